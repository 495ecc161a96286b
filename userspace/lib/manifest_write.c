/* SPDX-License-Identifier: GPL-2.0 */
/* Writing manifests. */
#include <endian.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <zstd.h>

#include "crc32c.h"
#include "manifest.h"
#include "manifest_format.h"

/* Small enough for the extents of a large disk in seconds. */
#define ZSTD_LEVEL	9

/* Bytes that grow; after a failure @p is NULL and nothing is added any more. */
struct bytes {
	uint8_t *p;
	size_t len, alloc;
	bool failed;
};

static void put(struct bytes *b, const void *data, size_t len)
{
	if (!b->failed && len > b->alloc - b->len) {
		size_t alloc = 2 * b->alloc + len + 64;
		uint8_t *p = realloc(b->p, alloc);

		if (!p) {
			b->failed = true;
			return;
		}
		b->p = p;
		b->alloc = alloc;
	}
	if (b->failed || !len)
		return;
	memcpy(b->p + b->len, data, len);
	b->len += len;
}

static void put32(struct bytes *b, uint32_t value)
{
	value = htole32(value);
	put(b, &value, sizeof(value));
}

static void put64(struct bytes *b, uint64_t value)
{
	value = htole64(value);
	put(b, &value, sizeof(value));
}

/*
 * ---------------------------------------------------------------------------
 * Parts
 * ---------------------------------------------------------------------------
 */

/* The name by which @url is found from @top; NULL: out of memory. */
static char *relative_name(const char *top, const char *url)
{
	bool file = !strncmp(top, "file:", 5);
	char *from = file ? qc2_url_to_path(top) : strndup(top, strcspn(top, "?"));
	char *to = file && !strncmp(url, "file:", 5) ? qc2_url_to_path(url) : strdup(url);
	char *name = NULL, *canonical = NULL;
	size_t folder;

	if (!from || !to)
		goto out;
	folder = strrchr(from, '/') + 1 - from;
	if (!strncmp(from, to, folder)) {
		/* A colon is not taken for the end of a scheme behind "./". */
		const char *rest = to + folder;

		name = malloc(strlen(rest) + 3);
		if (!name)
			goto out;
		strcpy(name, strchr(rest, ':') ? "./" : "");
		strcat(name, rest);
		/* Some names mean something else when they stand alone. */
		if (!qc2_url_resolve(top, name, &canonical, NULL) &&
		    !strcmp(canonical, url))
			goto out;
		free(name);
	}
	name = strdup(url);
out:
	free(canonical);
	free(from);
	free(to);
	return name;
}

/* The links that have compressed clusters which an extent leads to. */
static bool *find_packed(const struct qc2_chain *chain)
{
	bool *packed = calloc(chain->nr_links, sizeof(*packed));

	for (size_t i = 0; packed && i < chain->index->nr_extents; i++) {
		uint32_t object = chain->index->extents[i].object;

		if (qc2_object_is_unpacked(object))
			packed[qc2_object_link(object)] = true;
	}
	return packed;
}

static int put_links(const struct qc2_chain *chain, const bool *packed, struct bytes *out,
		     struct qc2_err *err)
{
	struct bytes strings = { 0 };
	int ret = 0;

	put32(out, chain->nr_links);
	put32(out, 0);
	for (size_t i = 0; i < chain->nr_links && !ret; i++) {
		const struct qc2_link *link = &chain->links[i];
		const char *top = chain->links[0].url;
		struct manifest_link raw = {
			.size = htole64(link->size),
			.virtual_size = htole64(link->virtual_size),
			.cluster_bits = htole32(link->cluster_size ?
						__builtin_ctz(link->cluster_size) : 0),
			.version_len = htole32(strlen(link->version)),
		};
		char *name = i ? relative_name(top, link->url) : strdup("");
		char *data = link->data_url ? relative_name(top, link->data_url) :
					      strdup("");

		if (name && data) {
			raw.name_len = htole32(strlen(name));
			put(&strings, name, strlen(name));
			put(&strings, link->version, strlen(link->version));
		} else {
			strings.failed = true;
		}
		if (data && link->data_url) {
			raw.data_size = htole64(link->data_size);
			raw.data_name_len = htole32(strlen(data));
			raw.data_version_len = htole32(strlen(link->data_version));
			put(&strings, data, strlen(data));
			put(&strings, link->data_version, strlen(link->data_version));
		}
		free(name);
		free(data);
		if (packed[i]) {
			raw.compression = htole32(link->packed->compression);
			raw.nr_packed = htole32(link->packed->nr);
			if (link->packed->nr > UINT32_MAX)
				ret = qc2_fail(err, EFBIG,
					"%s: too many compressed clusters", link->url);
		}
		put(out, &raw, sizeof(raw));
	}
	if (strings.len)
		put(out, strings.p, strings.len);
	out->failed |= strings.failed;
	free(strings.p);
	return ret;
}

static void put_extents(const struct qc2_chain *chain, struct bytes *out)
{
	const struct qc2_index *idx = chain->index;
	uint64_t *ends = calloc(2 * chain->nr_links, sizeof(*ends)), end = 0;
	size_t i;

	if (!ends) {
		out->failed = true;
		return;
	}
	for (i = 0; i < idx->nr_extents; i++) {
		put64(out, idx->extents[i].sector - end);
		end = idx->extents[i].sector + idx->extents[i].nr_sectors;
	}
	for (i = 0; i < idx->nr_extents; i++)
		put32(out, idx->extents[i].nr_sectors);
	for (i = 0; i < idx->nr_extents; i++)
		put32(out, idx->extents[i].object);
	for (i = 0; i < idx->nr_extents; i++) {
		const struct qc2_extent *ext = &idx->extents[i];

		put64(out, ext->offset / 512 - ends[ext->object]);
		ends[ext->object] = ext->offset / 512 + ext->nr_sectors;
	}
	free(ends);
}

enum column { COLUMN_GAP, COLUMN_LEN, COLUMN_OFFSET };

static void put_packed_column(const struct qc2_packed *packed, enum column column,
			      struct bytes *out)
{
	uint64_t cluster = 0, end = 0;

	for (size_t i = 0; i < packed->nr; i++) {
		const struct qc2_packed_cluster *c = &packed->v[i];

		if (column == COLUMN_GAP)
			put32(out, c->cluster - cluster);
		else if (column == COLUMN_LEN)
			put32(out, c->len);
		else
			put64(out, c->offset - end);
		cluster = c->cluster + 1ULL;
		end = c->offset + c->len;
	}
}

static void put_packed(const struct qc2_chain *chain, const bool *packed,
		       struct bytes *out)
{
	for (enum column column = COLUMN_GAP; column <= COLUMN_OFFSET; column++)
		for (size_t i = 0; i < chain->nr_links; i++)
			if (packed[i])
				put_packed_column(chain->links[i].packed, column, out);
}

static void put_runs(const struct qc2_digests *digests, struct bytes *out)
{
	size_t i;

	for (i = 0; i < digests->nr_runs; i++)
		put32(out, digests->runs[i].object);
	for (i = 0; i < digests->nr_runs; i++)
		put32(out, digests->runs[i].block);
	for (i = 0; i < digests->nr_runs; i++)
		put32(out, digests->runs[i].nr);
}

/*
 * ---------------------------------------------------------------------------
 * The whole
 * ---------------------------------------------------------------------------
 */

/* Compressed if it is shorter then, and no reader refuses it. */
static void put_section(struct bytes *out, enum qc2_manifest_part part, struct bytes *content,
			bool pack, struct manifest_section *s)
{
	size_t room = ZSTD_compressBound(content->len), len = 0;
	const uint8_t *data = content->p;
	uint8_t *packed = NULL;

	if (pack && content->len) {
		packed = malloc(room);
		if (packed)
			len = ZSTD_compress(packed, room, content->p, content->len, ZSTD_LEVEL);
		if (!packed || ZSTD_isError(len))
			out->failed = true;
	}
	*s = (struct manifest_section){
		.type = htole32(manifest_types[part]),
		.offset = htole64(out->len),
		.unpacked = htole64(content->len),
	};
	if (packed && len < content->len &&
	    (content->len <= MANIFEST_UNPACKED_MIN ||
	     content->len / MANIFEST_UNPACKED_RATIO <= len)) {
		s->flags = htole32(MANIFEST_ZSTD);
		data = packed;
	} else {
		len = content->len;
	}
	s->stored = htole64(len);
	s->crc = htole32(qc2_crc32c(0, data, len));
	put(out, data, len);
	out->failed |= content->failed;
	free(packed);
	free(content->p);
	memset(content, 0, sizeof(*content));
}

static int put_parts(const struct qc2_chain *chain, const struct qc2_digests *digests,
		     const bool *packed, struct bytes *out, struct manifest_section *sections,
		     struct qc2_err *err)
{
	struct bytes content = { 0 };
	int ret;

	ret = put_links(chain, packed, &content, err);
	put_section(out, QC2_MANIFEST_LINKS, &content, true, sections++);
	put_extents(chain, &content);
	put_section(out, QC2_MANIFEST_EXTENTS, &content, true, sections++);
	put_packed(chain, packed, &content);
	put_section(out, QC2_MANIFEST_PACKED, &content, true, sections++);
	if (!digests)
		return ret;
	put_runs(digests, &content);
	put_section(out, QC2_MANIFEST_DIGEST_RUNS, &content, true, sections++);
	put(&content, digests->v, digests->nr * QC2_DIGEST_LEN);
	put_section(out, QC2_MANIFEST_DIGESTS, &content, false, sections++);
	return ret;
}

int qc2_manifest_write(const struct qc2_chain *chain,
		       const struct qc2_digests *digests, void **buf, size_t *len,
		       struct qc2_err *err)
{
	uint32_t nr = digests ? QC2_MANIFEST_NR_PARTS : QC2_MANIFEST_DIGEST_RUNS;
	struct {
		struct manifest_header header;
		struct manifest_section sections[QC2_MANIFEST_NR_PARTS];
	} raw = { 0 };
	size_t header_len = sizeof(raw.header) + nr * sizeof(raw.sections[0]);
	struct bytes out = { 0 };
	bool *packed;
	int ret;

	if (chain->snapshot)
		return qc2_fail(err, EINVAL,
			"%s: a manifest is for an image as it is, not for an internal snapshot of it",
			chain->links[0].url);
	packed = find_packed(chain);
	if (!packed)
		return qc2_fail(err, ENOMEM, "out of memory");
	put(&out, &raw, header_len);	/* its place */
	ret = put_parts(chain, digests, packed, &out, raw.sections, err);
	free(packed);
	if (!ret && out.failed)
		ret = qc2_fail(err, ENOMEM, "out of memory");
	if (ret) {
		free(out.p);
		return ret;
	}
	memcpy(raw.header.magic, MANIFEST_MAGIC, sizeof(raw.header.magic));
	raw.header.version = htole32(MANIFEST_VERSION);
	raw.header.length = htole64(out.len);
	raw.header.header_len = htole32(header_len);
	raw.header.nr_sections = htole32(nr);
	raw.header.checksum = htole32(qc2_crc32c(0, &raw, header_len));
	memcpy(out.p, &raw, header_len);
	*buf = out.p;
	*len = out.len;
	return 0;
}
