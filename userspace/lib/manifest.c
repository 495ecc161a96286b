/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Reading manifests.  What comes from the manifest is checked before it is used,
 * and no more is allocated than a bounded multiple of its bytes.
 */
#include <endian.h>
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <zstd.h>

#include "crc32c.h"
#include "manifest.h"
#include "manifest_format.h"
#include "qcow2.h"

static int fail_memory(struct qc2_err *err)
{
	return qc2_fail(err, ENOMEM, "out of memory");
}

static uint32_t get32(const uint8_t *p)
{
	uint32_t value;

	memcpy(&value, p, sizeof(value));
	return le32toh(value);
}

static uint64_t get64(const uint8_t *p)
{
	uint64_t value;

	memcpy(&value, p, sizeof(value));
	return le64toh(value);
}

char *qc2_manifest_url(const char *top)
{
	int path = strcspn(top, "?");
	char *url;

	if (asprintf(&url, "%.*s.manifest%s", path, top, top + path) < 0)
		return NULL;
	return url;
}

/*
 * ---------------------------------------------------------------------------
 * Header
 * ---------------------------------------------------------------------------
 */

static int read_section(const uint8_t *p, uint64_t header_len, uint64_t length,
			struct qc2_manifest_head *head, struct qc2_err *err)
{
	struct qc2_manifest_section s;
	struct manifest_section raw;
	size_t part;

	memcpy(&raw, p, sizeof(raw));
	for (part = 0; part < QC2_MANIFEST_NR_PARTS; part++)
		if (le32toh(raw.type) == manifest_types[part])
			break;
	if (part == QC2_MANIFEST_NR_PARTS)
		return 0;		/* of a later program */
	s.offset = le64toh(raw.offset);
	s.stored = le64toh(raw.stored);
	s.unpacked = le64toh(raw.unpacked);
	s.flags = le32toh(raw.flags);
	s.crc = le32toh(raw.crc);
	if (head->parts[part].offset)
		return qc2_fail(err, EBADMSG, "two sections %s", manifest_names[part]);
	if (s.flags & ~MANIFEST_ZSTD)
		return qc2_fail(err, ENOTSUP,
			"section %s: flags 0x%" PRIx32 ", of which this program knows 0x%x",
			manifest_names[part], s.flags, MANIFEST_ZSTD);
	if (s.offset < header_len || s.stored > length || s.offset > length - s.stored)
		return qc2_fail(err, EBADMSG,
			"section %s: %" PRIu64 " bytes at %" PRIu64 ", which is not between header and end, %" PRIu64 " to %" PRIu64,
			manifest_names[part], s.stored, s.offset, header_len, length);
	if (s.flags & MANIFEST_ZSTD ?
	    s.unpacked > MANIFEST_UNPACKED_MIN &&
	    s.unpacked / MANIFEST_UNPACKED_RATIO > s.stored :
	    s.unpacked != s.stored)
		return qc2_fail(err, EBADMSG,
			"section %s: %" PRIu64 " bytes that unpack to %" PRIu64 " cannot be",
			manifest_names[part], s.stored, s.unpacked);
	head->parts[part] = s;
	return 0;
}

/* Where the parts [@first, @last] begin and end; (0, 0) if there is none. */
static void find_range(const struct qc2_manifest_head *head, size_t first, size_t last,
		       uint64_t *start, uint64_t *end)
{
	*start = *end = 0;
	for (size_t i = first; i <= last; i++) {
		const struct qc2_manifest_section *s = &head->parts[i];

		if (!s->offset)
			continue;
		if (!*start || s->offset < *start)
			*start = s->offset;
		if (s->offset + s->stored > *end)
			*end = s->offset + s->stored;
	}
}

int qc2_manifest_head(const void *buf, size_t len, struct qc2_manifest_head *head,
		      struct qc2_err *err)
{
	struct manifest_header raw, *copy;
	uint32_t header_len, nr, crc, i;
	uint64_t start, end;
	int ret = 0;

	memset(head, 0, sizeof(*head));
	if (len < sizeof(raw))
		return qc2_fail(err, EBADMSG,
			"truncated: %zu bytes, the header alone has more", len);
	memcpy(&raw, buf, sizeof(raw));
	if (memcmp(raw.magic, MANIFEST_MAGIC, sizeof(raw.magic)))
		return qc2_fail(err, EBADMSG, "is no manifest (its magic number is another)");
	if (le32toh(raw.version) != MANIFEST_VERSION)
		return qc2_fail(err, ENOTSUP,
			"format version %" PRIu32 "; this program knows version %d",
			le32toh(raw.version), MANIFEST_VERSION);
	header_len = le32toh(raw.header_len);
	nr = le32toh(raw.nr_sections);
	if (header_len > QC2_MANIFEST_HEADER_MAX || nr > MANIFEST_MAX_SECTIONS ||
	    header_len < sizeof(raw) + nr * sizeof(struct manifest_section))
		return qc2_fail(err, EBADMSG,
			"a header of %" PRIu32 " bytes with %" PRIu32 " sections cannot be",
			header_len, nr);
	if (len < header_len)
		return qc2_fail(err, EBADMSG,
			"truncated: %zu bytes, the header alone has %" PRIu32,
			len, header_len);
	copy = malloc(header_len);
	if (!copy)
		return fail_memory(err);
	memcpy(copy, buf, header_len);
	copy->checksum = 0;
	crc = qc2_crc32c(0, copy, header_len);
	free(copy);
	if (crc != le32toh(raw.checksum))
		return qc2_fail(err, EBADMSG,
			"damaged: checksum of the header is 0x%08" PRIx32 ", not 0x%08" PRIx32,
			crc, le32toh(raw.checksum));
	head->length = le64toh(raw.length);
	if (head->length < header_len || head->length > INT64_MAX)
		return qc2_fail(err, EBADMSG, "a length of %" PRIu64 " bytes cannot be",
				head->length);
	for (i = 0; i < nr && !ret; i++)
		ret = read_section((const uint8_t *)buf + sizeof(raw) +
				   i * sizeof(struct manifest_section), header_len,
				   head->length, head, err);
	if (ret)
		return ret;
	find_range(head, QC2_MANIFEST_LINKS, QC2_MANIFEST_PACKED, &start, &end);
	head->open_len = end;
	find_range(head, QC2_MANIFEST_DIGEST_RUNS, QC2_MANIFEST_DIGESTS, &start, &end);
	head->digests_offset = start;
	head->digests_len = end - start;
	return 0;
}

/*
 * ---------------------------------------------------------------------------
 * Sections
 * ---------------------------------------------------------------------------
 */

/* The content of a section. */
struct content {
	const uint8_t *p;
	size_t len;
	void *owned;		/* what @p leads to, if it was unpacked */
};

/*
 * Unpacks one frame, the length of which is known, so that no more memory is needed
 * than for the result.
 */
static int unpack(const uint8_t *p, const struct qc2_manifest_section *s,
		  const char *name, struct content *content, struct qc2_err *err)
{
	size_t ret;

	if (s->stored < 4 || get32(p) != ZSTD_MAGICNUMBER ||
	    ZSTD_findFrameCompressedSize(p, s->stored) != s->stored)
		return qc2_fail(err, EBADMSG, "section %s is not one zstd frame", name);
	content->owned = malloc(s->unpacked ? s->unpacked : 1);
	if (!content->owned)
		return fail_memory(err);
	ret = ZSTD_decompress(content->owned, s->unpacked, p, s->stored);
	if (ZSTD_isError(ret))
		return qc2_fail(err, EBADMSG, "section %s does not unpack to %" PRIu64 " bytes: %s",
				name, s->unpacked, ZSTD_getErrorName(ret));
	if (ret != s->unpacked)
		return qc2_fail(err, EBADMSG,
			"section %s unpacks to %zu bytes, not %" PRIu64,
			name, ret, s->unpacked);
	content->p = content->owned;
	return 0;
}

/*
 * The content of a part, a multiple of @unit bytes.
 * @buf: what is at @at in the manifest, and follows
 */
static int load(const struct qc2_manifest_head *head, enum qc2_manifest_part part,
		const uint8_t *buf, size_t len, uint64_t at, size_t unit,
		struct content *content, struct qc2_err *err)
{
	const struct qc2_manifest_section *s = &head->parts[part];
	const char *name = manifest_names[part];
	uint32_t crc;

	memset(content, 0, sizeof(*content));
	if (!s->offset)
		return qc2_fail(err, EBADMSG, "there is no section %s", name);
	if (s->offset < at || s->stored > len || s->offset - at > len - s->stored)
		return qc2_fail(err, EBADMSG,
			"truncated: section %s has %" PRIu64 " bytes at %" PRIu64,
			name, s->stored, s->offset);
	if (s->unpacked % unit)
		return qc2_fail(err, EBADMSG,
			"section %s: a length of %" PRIu64 ", which is no multiple of %zu",
			name, s->unpacked, unit);
	buf += s->offset - at;
	crc = qc2_crc32c(0, buf, s->stored);
	if (crc != s->crc)
		return qc2_fail(err, EBADMSG,
			"damaged: checksum of section %s is 0x%08" PRIx32 ", not 0x%08" PRIx32,
			name, crc, s->crc);
	content->len = s->unpacked;
	if (s->flags & MANIFEST_ZSTD)
		return unpack(buf, s, name, content, err);
	content->p = buf;
	return 0;
}

/*
 * ---------------------------------------------------------------------------
 * Links
 * ---------------------------------------------------------------------------
 */

/* A chain on its way. */
struct reading {
	const struct qc2_manifest_head *head;
	const uint8_t *buf;
	size_t len;
	const struct qc2_top *top;
	const struct qc2_chain_limits *limits;
	struct qc2_chain *chain;
	struct qc2_err *err;
	uint32_t *nr_packed;		/* by link */
	int *compression;		/* by link */
};

/* The strings that are left. */
struct strings {
	const char *p;
	size_t len;
};

/* The next string, of @len characters that are no control characters. */
static int take_string(struct reading *r, struct strings *strings, uint32_t len,
		       char **string)
{
	if (len > strings->len)
		return qc2_fail(r->err, EBADMSG,
			"link %zu: a name of %" PRIu32 " bytes where %zu are left",
			r->chain->nr_links, len, strings->len);
	for (uint32_t i = 0; i < len; i++) {
		unsigned char c = strings->p[i];

		if (c < 0x20 || c == 0x7f)
			return qc2_fail(r->err, EBADMSG,
				"link %zu: a name or version with a control character",
				r->chain->nr_links);
	}
	*string = strndup(strings->p, len);
	strings->p += len;
	strings->len -= len;
	return *string ? 0 : fail_memory(r->err);
}

static int take_version(struct reading *r, struct strings *strings, uint32_t len,
			char **version)
{
	if (!len || len > MANIFEST_MAX_VERSION)
		return qc2_fail(r->err, EBADMSG,
			"link %zu: a version of %" PRIu32 " bytes; 1 to %d are allowed",
			r->chain->nr_links, len, MANIFEST_MAX_VERSION);
	return take_string(r, strings, len, version);
}

/* A reference, as a backing file's name in the top image would be one. */
static int take_url(struct reading *r, struct strings *strings, uint32_t len,
		    const char *what, char **url)
{
	char *name;
	int ret;

	if (!len)
		return qc2_fail(r->err, EBADMSG, "link %zu: has no name",
				r->chain->nr_links);
	ret = take_string(r, strings, len, &name);
	if (ret)
		return ret;
	ret = qc2_url_resolve(r->top->url, name, url, r->err);
	free(name);
	if (ret)
		return ret;
	ret = qc2_url_allowed(*url, r->top->url, r->limits->allow, r->limits->nr_allow,
			      r->err);
	if (ret)
		qc2_fail_prefix(r->err, ret, "link %zu: %s refused: ",
				r->chain->nr_links, what);
	return ret;
}

static int check_link(struct reading *r, const struct qc2_link *link, uint32_t bits,
		      uint32_t nr_packed, int compression)
{
	size_t i = r->chain->nr_links;

	if (link->size > INT64_MAX || link->data_size > INT64_MAX)
		return qc2_fail(r->err, EBADMSG, "link %zu: a file of %" PRIu64 " bytes", i,
				link->size > INT64_MAX ? link->size : link->data_size);
	if (bits && (bits < 9 || bits > 21))
		return qc2_fail(r->err, EBADMSG,
			"link %zu: clusters of 2^%" PRIu32 " bytes; 2^9 to 2^21 are possible",
			i, bits);
	if (link->virtual_size > QC2_QCOW2_MAX_SIZE || link->virtual_size % 512 ||
	    (!i && !link->virtual_size) ||
	    (!bits && link->virtual_size != ((link->size + 511) & ~511ULL)))
		return qc2_fail(r->err, EBADMSG,
			"link %zu: a disk of %" PRIu64 " bytes cannot be, or not in a file of %" PRIu64,
			i, link->virtual_size, link->size);
	if (compression != QC2_COMPRESSION_ZLIB && compression != QC2_COMPRESSION_ZSTD)
		return qc2_fail(r->err, EBADMSG, "link %zu: unknown compression %d", i,
				compression);
	if (nr_packed && (!bits || link->data_url))
		return qc2_fail(r->err, EBADMSG,
			"link %zu: has compressed clusters, which is for qcow2 without external data file",
			i);
	/* A raw image has nothing below it. */
	if (i && !r->chain->links[i - 1].cluster_size)
		return qc2_fail(r->err, EBADMSG, "link %zu: lies below a raw image", i);
	return 0;
}

static int read_link(struct reading *r, const uint8_t *p, struct strings *strings)
{
	struct qc2_chain *chain = r->chain;
	size_t i = chain->nr_links;
	struct qc2_link *link = &chain->links[i];
	struct manifest_link raw;
	uint32_t bits;
	int ret;

	memcpy(&raw, p, sizeof(raw));
	link->size = le64toh(raw.size);
	link->virtual_size = le64toh(raw.virtual_size);
	bits = le32toh(raw.cluster_bits);
	r->nr_packed[i] = le32toh(raw.nr_packed);
	r->compression[i] = le32toh(raw.compression);
	if (i) {
		ret = take_url(r, strings, le32toh(raw.name_len), "image", &link->url);
	} else {
		link->url = strdup(r->top->url);
		ret = link->url ? 0 : fail_memory(r->err);
		if (!ret && raw.name_len)
			ret = qc2_fail(r->err, EBADMSG, "link 0: has a name");
	}
	if (!ret)
		ret = take_version(r, strings, le32toh(raw.version_len), &link->version);
	if (!ret && raw.data_name_len) {
		link->data_size = le64toh(raw.data_size);
		ret = take_url(r, strings, le32toh(raw.data_name_len),
			       "external data file", &link->data_url);
		if (!ret)
			ret = take_version(r, strings, le32toh(raw.data_version_len),
					   &link->data_version);
	}
	if (!ret)
		ret = check_link(r, link, bits, r->nr_packed[i], r->compression[i]);
	if (!ret && bits)
		link->cluster_size = 1U << bits;
	return ret;
}

static int cmp_url(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* No image is below itself. */
static int check_loop(struct reading *r)
{
	size_t nr = r->chain->nr_links, i;
	const char **urls = calloc(nr, sizeof(*urls));
	int ret = 0;

	if (!urls)
		return fail_memory(r->err);
	for (i = 0; i < nr; i++)
		urls[i] = r->chain->links[i].url;
	qsort(urls, nr, sizeof(*urls), cmp_url);
	for (i = 1; i < nr && !ret; i++)
		if (!strcmp(urls[i - 1], urls[i]))
			ret = qc2_fail(r->err, ELOOP, "%.300s is in the chain twice",
				       urls[i]);
	free(urls);
	return ret;
}

static int read_links(struct reading *r, const struct content *content)
{
	const size_t fixed = sizeof(struct manifest_links);
	const size_t one = sizeof(struct manifest_link);
	struct qc2_chain *chain = r->chain;
	struct strings strings;
	uint32_t nr, i;
	int ret = 0;

	if (content->len < fixed)
		return qc2_fail(r->err, EBADMSG, "section LINK is empty");
	nr = get32(content->p);
	if (!nr || nr > (content->len - fixed) / one)
		return qc2_fail(r->err, EBADMSG,
			"%" PRIu32 " links in a section LINK of %zu bytes", nr,
			content->len);
	if (nr > r->limits->max_depth)
		return qc2_fail(r->err, E2BIG,
			"%" PRIu32 " links; max_depth in section [chain] of the configuration allows %u",
			nr, r->limits->max_depth);
	chain->links = calloc(nr, sizeof(*chain->links));
	r->nr_packed = calloc(nr, sizeof(*r->nr_packed));
	r->compression = calloc(nr, sizeof(*r->compression));
	if (!chain->links || !r->nr_packed || !r->compression)
		return fail_memory(r->err);
	strings.p = (const char *)content->p + fixed + nr * one;
	strings.len = content->len - fixed - nr * one;
	for (i = 0; i < nr && !ret; i++) {
		ret = read_link(r, content->p + fixed + i * one, &strings);
		chain->nr_links++;
	}
	if (ret)
		return ret;
	if (strings.len)
		return qc2_fail(r->err, EBADMSG, "section LINK: %zu bytes are left over",
				strings.len);
	if (r->top->raw != !chain->links[0].cluster_size)
		return qc2_fail(r->err, EBADMSG,
			"it takes the top image for %s, which is to be opened as %s",
			r->top->raw ? "qcow2" : "raw", r->top->raw ? "raw" : "qcow2");
	chain->nr_sectors = chain->links[0].virtual_size / 512;
	return check_loop(r);
}

/*
 * ---------------------------------------------------------------------------
 * Compressed clusters
 * ---------------------------------------------------------------------------
 */

/* Columns: gap, length, difference of the offset to the end of the one before. */
static int read_packed_of(struct reading *r, size_t i, const uint8_t *gaps,
			  const uint8_t *lens, const uint8_t *offsets)
{
	struct qc2_link *link = &r->chain->links[i];
	unsigned int bits = __builtin_ctz(link->cluster_size);
	uint64_t nr_clusters = (link->virtual_size + link->cluster_size - 1) >> bits;
	uint64_t cluster = 0, end = 0;

	link->packed = qc2_packed_new(bits, r->compression[i]);
	if (!link->packed)
		return fail_memory(r->err);
	for (uint32_t n = 0; n < r->nr_packed[i]; n++) {
		uint64_t offset = end + get64(offsets + 8 * (size_t)n);
		uint32_t len = get32(lens + 4 * (size_t)n);

		cluster += get32(gaps + 4 * (size_t)n);
		if (cluster >= nr_clusters || cluster > UINT32_MAX)
			return qc2_fail(r->err, EBADMSG,
				"link %zu: compressed cluster %" PRIu64 " of a disk of %" PRIu64,
				i, cluster, nr_clusters);
		if (!len || len > 2 * link->cluster_size || len > link->size ||
		    offset > link->size - len)
			return qc2_fail(r->err, EBADMSG,
				"link %zu: compressed cluster %" PRIu64 " cannot be %" PRIu32 " bytes at %" PRIu64 " of a file of %" PRIu64,
				i, cluster, len, offset, link->size);
		if (qc2_packed_add(link->packed, offset, cluster, len))
			return fail_memory(r->err);
		cluster++;
		end = offset + len;
	}
	return 0;
}

static int read_packed(struct reading *r, const struct content *content)
{
	size_t nr = content->len / MANIFEST_PACKED_LEN, first = 0, i;
	uint64_t expected = 0;
	int ret = 0;

	for (i = 0; i < r->chain->nr_links; i++)
		expected += r->nr_packed[i];
	if (expected != nr)
		return qc2_fail(r->err, EBADMSG,
			"the links have %" PRIu64 " compressed clusters, section PACK %zu",
			expected, nr);
	for (i = 0; i < r->chain->nr_links && !ret; i++) {
		if (!r->nr_packed[i])
			continue;
		ret = read_packed_of(r, i, content->p + 4 * first,
				     content->p + 4 * nr + 4 * first,
				     content->p + 8 * nr + 8 * first);
		first += r->nr_packed[i];
	}
	return ret;
}

/*
 * ---------------------------------------------------------------------------
 * Extents
 * ---------------------------------------------------------------------------
 */

/* Whether all clusters are there that hold the sectors. */
static bool is_packed(const struct qc2_packed *packed, uint64_t offset, uint64_t len)
{
	uint64_t first = offset >> packed->cluster_bits;
	uint64_t last = (offset + len - 1) >> packed->cluster_bits;
	size_t i = qc2_packed_find(packed, first);

	/* They ascend. */
	return last - first < packed->nr - i &&
	       packed->v[i].cluster == first &&
	       packed->v[i + (last - first)].cluster == last;
}

/* Whether an extent leads to something. */
static int check_extent(struct reading *r, const struct qc2_extent *ext)
{
	const struct qc2_link *link = &r->chain->links[qc2_object_link(ext->object)];
	uint64_t len = ext->nr_sectors * 512ULL, size;

	if (qc2_object_is_unpacked(ext->object)) {
		if (!link->packed || ext->offset != ext->sector * 512 ||
		    !is_packed(link->packed, ext->offset, len))
			return qc2_fail(r->err, EBADMSG,
				"sectors %" PRIu64 " to %" PRIu64 " are not in compressed clusters of link %" PRIu32,
				ext->sector, ext->sector + ext->nr_sectors - 1,
				qc2_object_link(ext->object));
		return 0;
	}
	/* The last sector need not be whole; see index.h. */
	size = link->data_url ? link->data_size : link->size;
	size = (size + 511) & ~511ULL;
	if (len > size || ext->offset > size - len)
		return qc2_fail(r->err, EBADMSG,
			"sectors %" PRIu64 " to %" PRIu64 " at offset %" PRIu64 " of %.300s, which has %" PRIu64 " bytes",
			ext->sector, ext->sector + ext->nr_sectors - 1, ext->offset,
			link->data_url ? link->data_url : link->url,
			link->data_url ? link->data_size : link->size);
	return 0;
}

/* State of the columns of extents. */
struct ends {
	uint64_t disk;		/* sector behind the last extent */
	uint64_t *limit;	/* by link: sector behind the last it may hold */
	uint64_t *object;	/* by object: sector behind the last extent in it */
};

static int read_extent(struct reading *r, struct ends *ends, uint64_t gap,
		       uint32_t nr_sectors, uint32_t object, uint64_t diff,
		       struct qc2_extents *list)
{
	struct qc2_extent ext = { .nr_sectors = nr_sectors, .object = object };
	uint64_t limit, offset;
	int ret;

	if (object / 2 >= r->chain->nr_links)
		return qc2_fail(r->err, EBADMSG,
			"an extent of object %" PRIu32 ", where there are %zu links",
			object, r->chain->nr_links);
	limit = ends->limit[qc2_object_link(object)];
	if (!nr_sectors || ends->disk > limit || gap > limit - ends->disk ||
	    nr_sectors > limit - ends->disk - gap)
		return qc2_fail(r->err, EBADMSG,
			"%" PRIu32 " sectors of link %" PRIu32 ", %" PRIu64 " behind sector %" PRIu64 ", where the link is seen up to sector %" PRIu64,
			nr_sectors, qc2_object_link(object), gap, ends->disk, limit);
	ext.sector = ends->disk + gap;
	ends->disk = ext.sector + nr_sectors;
	offset = ends->object[object] + diff;
	if (offset > INT64_MAX / 512)
		return qc2_fail(r->err, EBADMSG,
			"sector %" PRIu64 " at sector %" PRIu64 " of its object",
			ext.sector, offset);
	ends->object[object] = offset + nr_sectors;
	ext.offset = offset * 512;
	ret = check_extent(r, &ext);
	if (ret)
		return ret;
	ret = qc2_extents_add(list, &ext);
	if (ret == -E2BIG)
		return qc2_fail(r->err, E2BIG, "more than %u extents", QC2_MAX_EXTENTS);
	return ret ? fail_memory(r->err) : 0;
}

/* A link is seen up to where it ends, or one above it. */
static int init_ends(struct reading *r, struct ends *ends)
{
	size_t nr = r->chain->nr_links, i;
	uint64_t limit = UINT64_MAX;

	ends->limit = calloc(nr, sizeof(*ends->limit));
	ends->object = calloc(2 * nr, sizeof(*ends->object));
	if (!ends->limit || !ends->object)
		return fail_memory(r->err);
	for (i = 0; i < nr; i++) {
		if (r->chain->links[i].virtual_size / 512 < limit)
			limit = r->chain->links[i].virtual_size / 512;
		ends->limit[i] = limit;
	}
	return 0;
}

/* Columns: gap, length, object, difference of the offset, in sectors. */
static int read_extents(struct reading *r, const struct content *content,
			struct qc2_extents *list)
{
	size_t nr = content->len / MANIFEST_EXTENT_LEN, i;
	const uint8_t *gaps = content->p, *lens = gaps + 8 * nr;
	const uint8_t *objects = lens + 4 * nr, *diffs = objects + 4 * nr;
	struct ends ends = { 0 };
	int ret;

	if (nr > QC2_MAX_EXTENTS)
		return qc2_fail(r->err, E2BIG, "more than %u extents", QC2_MAX_EXTENTS);
	ret = init_ends(r, &ends);
	for (i = 0; i < nr && !ret; i++)
		ret = read_extent(r, &ends, get64(gaps + 8 * i), get32(lens + 4 * i),
				  get32(objects + 4 * i), get64(diffs + 8 * i), list);
	free(ends.limit);
	free(ends.object);
	return ret;
}

/*
 * ---------------------------------------------------------------------------
 * The whole
 * ---------------------------------------------------------------------------
 */

typedef int (*part_fn)(struct reading *r, const struct content *content);

/* Loads a part, and has it read. */
static int read_part(struct reading *r, enum qc2_manifest_part part, size_t unit,
		     part_fn fn)
{
	struct content content;
	int ret;

	ret = load(r->head, part, r->buf, r->len, 0, unit, &content, r->err);
	if (!ret)
		ret = fn(r, &content);
	free(content.owned);
	return ret;
}

static int read_index(struct reading *r, const struct content *content)
{
	struct qc2_extents list = { 0 };
	struct qc2_index *index;
	int ret;

	ret = read_extents(r, content, &list);
	if (!ret) {
		index = qc2_index_build(&list, r->chain->nr_sectors);
		if (index)
			qc2_chain_complete(r->chain, index);
		else
			ret = fail_memory(r->err);
	}
	qc2_extents_free(&list);
	return ret;
}

static int read_chain(struct reading *r)
{
	const struct content none = { .len = 0 };
	int ret;

	ret = read_part(r, QC2_MANIFEST_LINKS, 1, read_links);
	if (ret)
		return ret;
	if (r->head->parts[QC2_MANIFEST_PACKED].offset)
		ret = read_part(r, QC2_MANIFEST_PACKED, MANIFEST_PACKED_LEN, read_packed);
	else
		ret = read_packed(r, &none);
	if (!ret)
		ret = read_part(r, QC2_MANIFEST_EXTENTS, MANIFEST_EXTENT_LEN, read_index);
	return ret ? ret : qc2_chain_identify(r->chain, r->err);
}

int qc2_manifest_read(const struct qc2_manifest_head *head, const void *buf,
		      size_t len, const struct qc2_top *top,
		      const struct qc2_chain_limits *limits,
		      struct qc2_chain **chain, struct qc2_err *err)
{
	struct reading r = {
		.head = head,
		.buf = buf,
		.len = len,
		.top = top,
		.limits = limits,
		.chain = calloc(1, sizeof(*r.chain)),
		.err = err,
	};
	int ret;

	if (!r.chain)
		return fail_memory(err);
	r.chain->refs = 1;
	r.chain->from_manifest = true;
	ret = read_chain(&r);
	free(r.nr_packed);
	free(r.compression);
	if (ret) {
		qc2_chain_put(r.chain);
		return ret;
	}
	*chain = r.chain;
	return 0;
}

/*
 * ---------------------------------------------------------------------------
 * Digests
 * ---------------------------------------------------------------------------
 */

/* Columns: object, number of the first block, number of blocks. */
static int read_runs(const struct content *content, struct qc2_digests *d,
		     struct qc2_err *err)
{
	size_t nr = content->len / MANIFEST_RUN_LEN, i;
	const uint8_t *objects = content->p, *blocks = objects + 4 * nr;
	const uint8_t *lens = blocks + 4 * nr;
	uint64_t end = 0, total = 0;	/* @end: behind the last block */

	d->runs = calloc(nr ? nr : 1, sizeof(*d->runs));
	if (!d->runs)
		return fail_memory(err);
	for (i = 0; i < nr; i++) {
		struct qc2_digest_run *run = &d->runs[i];

		run->object = get32(objects + 4 * i);
		run->block = get32(blocks + 4 * i);
		run->nr = get32(lens + 4 * i);
		run->first = total;
		if (i && run->object != run[-1].object)
			end = 0;
		if (!run->nr || run->block < end || run->nr > UINT32_MAX - run->block ||
		    (i && run->object < run[-1].object))
			return qc2_fail(err, EBADMSG,
				"section DRUN: %" PRIu32 " blocks from %" PRIu32 " on of object %" PRIu32 " are out of order",
				run->nr, run->block, run->object);
		end = (uint64_t)run->block + run->nr;
		total += run->nr;
		if (total > d->nr)
			break;
	}
	if (total != d->nr)
		return qc2_fail(err, EBADMSG,
			"section DRUN has %" PRIu64 " or more blocks, section DIGS %zu digests",
			total, d->nr);
	d->nr_runs = nr;
	return 0;
}

int qc2_manifest_digests(const struct qc2_manifest_head *head, const void *buf,
			 size_t len, struct qc2_digests **digests,
			 struct qc2_err *err)
{
	struct content runs = { 0 }, values = { 0 };
	struct qc2_digests *d;
	int ret;

	if (!head->digests_len)
		return qc2_fail(err, ENOENT, "there are no digests");
	d = calloc(1, sizeof(*d));
	if (!d)
		return fail_memory(err);
	ret = load(head, QC2_MANIFEST_DIGESTS, buf, len, head->digests_offset,
		   QC2_DIGEST_LEN, &values, err);
	if (!ret)
		ret = load(head, QC2_MANIFEST_DIGEST_RUNS, buf, len, head->digests_offset,
			   MANIFEST_RUN_LEN, &runs, err);
	d->nr = values.len / QC2_DIGEST_LEN;
	if (!ret && d->nr > UINT32_MAX)
		ret = qc2_fail(err, E2BIG, "%zu digests", d->nr);
	if (!ret)
		ret = read_runs(&runs, d, err);
	if (!ret) {
		d->v = malloc(values.len ? values.len : 1);
		if (d->v)
			memcpy(d->v, values.p, values.len);
		else
			ret = fail_memory(err);
	}
	free(runs.owned);
	free(values.owned);
	if (ret) {
		qc2_digests_free(d);
		return ret;
	}
	*digests = d;
	return 0;
}
