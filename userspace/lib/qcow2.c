/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The qcow2 reader.  Where the format leaves a choice to readers (reserved
 * bits, data behind the end of the file) it does what QEMU does.  Without
 * state of its own; an image is used by one thread at a time.
 */
#include <endian.h>
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "qcow2.h"

#define QCOW2_MAGIC		0x514649fb	/* "QFI\xfb" */

/* One read of several L2 tables. */
#define MAX_READ		(2 << 20)
#define MAX_GAP			(64 << 10)

#define MAX_L1_BYTES		(32 << 20)
#define MAX_BACKING_NAME	1023

#define L1_OFFSET_MASK		0x00fffffffffffe00ULL
#define L2_OFFSET_MASK		0x00fffffffffffe00ULL
#define L2_COMPRESSED		(1ULL << 62)
#define L2_ZERO			1ULL

#define INCOMPAT_DIRTY		(1ULL << 0)
#define INCOMPAT_CORRUPT	(1ULL << 1)
#define INCOMPAT_DATA_FILE	(1ULL << 2)
#define INCOMPAT_COMPRESSION	(1ULL << 3)
#define INCOMPAT_EXTENDED_L2	(1ULL << 4)

#define EXT_END			0x00000000
#define EXT_BACKING_FORMAT	0xe2792aca
#define EXT_FEATURE_NAMES	0x6803f857
#define EXT_DATA_FILE		0x44415441

struct qcow2_header {
	uint32_t magic;
	uint32_t version;
	uint64_t backing_offset;
	uint32_t backing_len;
	uint32_t cluster_bits;
	uint64_t size;
	uint32_t crypt_method;
	uint32_t l1_size;
	uint64_t l1_offset;
	uint64_t refcount_table_offset;
	uint32_t refcount_table_clusters;
	uint32_t nb_snapshots;
	uint64_t snapshots_offset;
	/* version 3 */
	uint64_t incompat;
	uint64_t compat;
	uint64_t autoclear;
	uint32_t refcount_order;
	uint32_t header_length;
	uint8_t compression_type;	/* if header_length says so */
} __attribute__((packed));

#define V2_HEADER_LENGTH	72
#define V3_HEADER_LENGTH	104

struct qcow2_ext {
	uint32_t type;
	uint32_t len;
} __attribute__((packed));

struct qcow2_feature_name {
	uint8_t type;			/* 0: incompatible */
	uint8_t bit;
	char name[46];
} __attribute__((packed));

/* What the header extensions say; pointers go into the head. */
struct extensions {
	const char *backing_format;
	size_t backing_format_len;
	const struct qcow2_feature_name *names;
	size_t nr_names;
	bool data_file;
};

static uint64_t cluster_size(const struct qc2_qcow2 *img)
{
	return 1ULL << img->cluster_bits;
}

static const char *url_of(const struct qc2_qcow2 *img)
{
	return img->src->url;
}

static int fail_truncated(const struct qc2_qcow2 *img, struct qc2_err *err,
			  const char *what, uint64_t offset, uint64_t len)
{
	return qc2_fail(err, EINVAL,
		"%s: truncated: %s at offset %" PRIu64 " (%" PRIu64 " bytes) is behind the end of the file, which has %" PRIu64 " bytes; copy the image again",
		url_of(img), what, offset, len, img->src->size);
}

/* Reads metadata; what the head holds is not asked for again. */
static int read_meta(struct qc2_qcow2 *img, const char *what, uint64_t offset,
		     void *buf, size_t len, struct qc2_err *err)
{
	if (len > img->src->size || offset > img->src->size - len)
		return fail_truncated(img, err, what, offset, len);
	if (offset + len <= img->head_len) {
		memcpy(buf, img->head + offset, len);
		return 0;
	}
	return img->src->ops->read(img->src, offset, buf, len, err);
}

/* Extensions lie between the header and the backing file name. */
static int parse_extensions(struct qc2_qcow2 *img, uint64_t offset,
			    uint64_t end, struct extensions *exts,
			    struct qc2_err *err)
{
	struct qcow2_ext ext;

	memset(exts, 0, sizeof(*exts));
	if (end > img->head_len)
		end = img->head_len;
	while (offset < end) {
		if (end - offset < sizeof(ext))
			break;
		memcpy(&ext, img->head + offset, sizeof(ext));
		ext.type = be32toh(ext.type);
		ext.len = be32toh(ext.len);
		offset += sizeof(ext);
		if (ext.type == EXT_END)
			return 0;
		if (ext.len > end - offset)
			return qc2_fail(err, EINVAL,
				"%s: header extension 0x%08" PRIx32 " at offset %" PRIu64 " claims %" PRIu32 " bytes, %" PRIu64 " are left",
				url_of(img), ext.type, offset - sizeof(ext),
				ext.len, end - offset);
		switch (ext.type) {
		case EXT_BACKING_FORMAT:
			exts->backing_format = (char *)img->head + offset;
			exts->backing_format_len = ext.len;
			break;
		case EXT_FEATURE_NAMES:
			exts->names = (void *)(img->head + offset);
			exts->nr_names = ext.len / sizeof(*exts->names);
			break;
		case EXT_DATA_FILE:
			exts->data_file = true;
			break;
		}
		offset += ((uint64_t)ext.len + 7) & ~7ULL;
	}
	return 0;
}

static int check_incompat(struct qc2_qcow2 *img, uint64_t incompat,
			  const struct extensions *exts, struct qc2_err *err)
{
	char list[256] = "", one[64];
	unsigned int bit;
	size_t i, len;

	if (incompat & INCOMPAT_CORRUPT)
		return qc2_fail(err, EINVAL,
			"%s: the image is marked corrupt; repair a copy of it with qemu-img check -r all",
			url_of(img));
	if (incompat & INCOMPAT_DATA_FILE || exts->data_file)
		return qc2_fail(err, EOPNOTSUPP,
			"%s: its data is in an external data file, which cannot be read yet",
			url_of(img));
	if (incompat & INCOMPAT_EXTENDED_L2)
		return qc2_fail(err, EOPNOTSUPP,
			"%s: has extended L2 entries (subclusters), which cannot be read yet; convert it with qemu-img convert -O qcow2",
			url_of(img));
	if (incompat & INCOMPAT_COMPRESSION)
		return qc2_fail(err, EOPNOTSUPP,
			"%s: uses another compression type than zlib, which cannot be read yet; convert it with qemu-img convert -O qcow2",
			url_of(img));
	incompat &= ~INCOMPAT_DIRTY;
	if (!incompat)
		return 0;
	for (bit = 0; bit < 64; bit++) {
		if (!(incompat >> bit & 1))
			continue;
		snprintf(one, sizeof(one), "bit %u", bit);
		for (i = 0; i < exts->nr_names; i++)
			if (exts->names[i].type == 0 &&
			    exts->names[i].bit == bit)
				qc2_printable(exts->names[i].name,
					      sizeof(exts->names[i].name),
					      one, sizeof(one));
		len = strlen(list);
		snprintf(list + len, sizeof(list) - len, "%s%s",
			 len ? ", " : "", one);
	}
	return qc2_fail(err, EOPNOTSUPP,
		"%s: needs features of qcow2 that cannot be read yet: %s",
		url_of(img), list);
}

static int parse_backing(struct qc2_qcow2 *img, const struct qcow2_header *hdr,
			 const struct extensions *exts, struct qc2_err *err)
{
	uint64_t end = cluster_size(img);
	char shown[300], format[40];

	if (!hdr->backing_offset || !hdr->backing_len)
		return 0;
	if (hdr->backing_offset > end)
		return qc2_fail(err, EINVAL,
			"%s: the backing file name is at offset %" PRIu64 ", outside the first cluster of %" PRIu64 " bytes",
			url_of(img), hdr->backing_offset, end);
	if (hdr->backing_len > MAX_BACKING_NAME ||
	    hdr->backing_len > end - hdr->backing_offset)
		return qc2_fail(err, EINVAL,
			"%s: the backing file name is %" PRIu32 " bytes long; it may have %d and must end in the first cluster",
			url_of(img), hdr->backing_len, MAX_BACKING_NAME);
	if (hdr->backing_offset + hdr->backing_len > img->head_len)
		return fail_truncated(img, err, "backing file name",
				      hdr->backing_offset, hdr->backing_len);

	img->backing_name = strndup((char *)img->head + hdr->backing_offset,
				    hdr->backing_len);
	if (!img->backing_name)
		return qc2_fail(err, ENOMEM, "out of memory");
	if (strlen(img->backing_name) != hdr->backing_len)
		return qc2_fail(err, EINVAL,
			"%s: NUL byte in the backing file name", url_of(img));

	if (!exts->backing_format_len) {
		/*
		 * Never looked at to find out: a guest could have written a
		 * qcow2 header into a raw image.
		 */
		qc2_printable(img->backing_name, hdr->backing_len, shown,
			      sizeof(shown));
		return qc2_fail(err, EINVAL,
			"%s: the header does not say which format the backing file '%s' has; write it into the image: qemu-img rebase -u -F qcow2 -b '%s' IMAGE (or -F raw, if it is raw)",
			url_of(img), shown, shown);
	}
	qc2_printable(exts->backing_format, exts->backing_format_len, format,
		      sizeof(format));
	img->backing_raw = !strcmp(format, "raw");
	if (!img->backing_raw && strcmp(format, "qcow2"))
		return qc2_fail(err, EOPNOTSUPP,
			"%s: the backing file has the format '%s'; only qcow2 and raw can be read",
			url_of(img), format);
	return 0;
}

/* How much of the virtual disk one L2 table maps, as a shift. */
static unsigned int l2_bits(const struct qc2_qcow2 *img)
{
	return 2 * img->cluster_bits - 3;
}

static uint64_t l1_needed(const struct qc2_qcow2 *img, uint64_t bytes)
{
	return (bytes + (1ULL << l2_bits(img)) - 1) >> l2_bits(img);
}

static int check_geometry(struct qc2_qcow2 *img, const struct qcow2_header *hdr,
			  struct qc2_err *err)
{
	uint64_t len;

	/* QEMU takes no notice of an incomplete last sector. */
	img->virtual_size = hdr->size & ~511ULL;
	if (img->virtual_size > QC2_QCOW2_MAX_SIZE)
		return qc2_fail(err, EFBIG,
			"%s: virtual size %" PRIu64 " is larger than the 64 TiB that can be read",
			url_of(img), img->virtual_size);
	img->l1_offset = hdr->l1_offset;
	img->l1_size = hdr->l1_size;
	len = (uint64_t)img->l1_size * 8;
	if (len > MAX_L1_BYTES)
		return qc2_fail(err, EFBIG,
			"%s: the L1 table has %" PRIu32 " entries; at most %d are possible",
			url_of(img), img->l1_size, MAX_L1_BYTES / 8);
	if (img->l1_size < l1_needed(img, img->virtual_size))
		return qc2_fail(err, EINVAL,
			"%s: the L1 table has %" PRIu32 " entries, too few for a virtual size of %" PRIu64 " bytes",
			url_of(img), img->l1_size, img->virtual_size);
	if (img->l1_offset & (cluster_size(img) - 1))
		return qc2_fail(err, EINVAL,
			"%s: the offset of the L1 table, %" PRIu64 ", is not a multiple of the cluster size",
			url_of(img), img->l1_offset);
	if (len > img->src->size || img->l1_offset > img->src->size - len)
		return fail_truncated(img, err, "L1 table", img->l1_offset,
				      len);
	return 0;
}

static int parse_header(struct qc2_qcow2 *img, struct qc2_err *err)
{
	struct qcow2_header hdr = { 0 };
	struct extensions exts;
	uint64_t ext_end;
	size_t len = V2_HEADER_LENGTH;
	int ret;

	if (img->head_len < 8 ||
	    (memcpy(&hdr, img->head, 8), be32toh(hdr.magic) != QCOW2_MAGIC))
		return qc2_fail(err, EINVAL,
			"%s: not a qcow2 image (a raw image is named with #format=raw behind the URL, or with qemu-img rebase -u -F raw as a backing file)",
			url_of(img));
	img->version = be32toh(hdr.version);
	if (img->version != 2 && img->version != 3)
		return qc2_fail(err, EOPNOTSUPP,
			"%s: qcow2 version %u; only 2 and 3 can be read",
			url_of(img), img->version);
	if (img->version == 3)
		len = V3_HEADER_LENGTH;
	if (img->head_len < len)
		return fail_truncated(img, err, "header", 0, len);
	memcpy(&hdr, img->head, len);

	hdr.backing_offset = be64toh(hdr.backing_offset);
	hdr.backing_len = be32toh(hdr.backing_len);
	hdr.cluster_bits = be32toh(hdr.cluster_bits);
	hdr.size = be64toh(hdr.size);
	hdr.crypt_method = be32toh(hdr.crypt_method);
	hdr.l1_size = be32toh(hdr.l1_size);
	hdr.l1_offset = be64toh(hdr.l1_offset);
	hdr.incompat = be64toh(hdr.incompat);
	hdr.header_length = be32toh(hdr.header_length);
	if (img->version == 2)
		hdr.header_length = V2_HEADER_LENGTH;

	if (hdr.cluster_bits < 9 || hdr.cluster_bits > 21)
		return qc2_fail(err, EINVAL,
			"%s: clusters of 2^%" PRIu32 " bytes; 512 bytes to 2 MiB are possible",
			url_of(img), hdr.cluster_bits);
	img->cluster_bits = hdr.cluster_bits;
	if (hdr.header_length < len || hdr.header_length > cluster_size(img))
		return qc2_fail(err, EINVAL,
			"%s: header length %" PRIu32 "; it is %zu at least and %" PRIu64 " (the cluster size) at most",
			url_of(img), hdr.header_length, len, cluster_size(img));
	if (hdr.header_length > img->head_len)
		return fail_truncated(img, err, "header", 0,
				      hdr.header_length);
	if (hdr.header_length >= sizeof(hdr))
		hdr.compression_type = img->head[V3_HEADER_LENGTH];

	ext_end = cluster_size(img);
	if (hdr.backing_offset && hdr.backing_offset < ext_end)
		ext_end = hdr.backing_offset;
	ret = parse_extensions(img, hdr.header_length, ext_end, &exts, err);
	if (ret)
		return ret;
	if (hdr.crypt_method)
		return qc2_fail(err, EOPNOTSUPP,
			"%s: encrypted (%s), which cannot be read yet",
			url_of(img), hdr.crypt_method == 1 ? "AES" :
			hdr.crypt_method == 2 ? "LUKS" : "unknown method");
	if (hdr.compression_type)
		hdr.incompat |= INCOMPAT_COMPRESSION;
	ret = check_incompat(img, hdr.incompat, &exts, err);
	if (ret)
		return ret;
	ret = check_geometry(img, &hdr, err);
	if (ret)
		return ret;
	return parse_backing(img, &hdr, &exts, err);
}

int qc2_qcow2_open(struct qc2_source *src, struct qc2_qcow2 **imgp,
		   struct qc2_err *err)
{
	struct qc2_qcow2 *img = calloc(1, sizeof(*img));
	int ret;

	if (!img)
		return qc2_fail(err, ENOMEM, "out of memory");
	img->src = src;
	img->head_len = src->size < QC2_HEAD_BYTES ? src->size : QC2_HEAD_BYTES;
	img->head = malloc(img->head_len ? img->head_len : 1);
	if (!img->head)
		ret = qc2_fail(err, ENOMEM, "out of memory");
	else if (img->head_len)
		ret = src->ops->read(src, 0, img->head, img->head_len, err);
	else
		ret = qc2_fail(err, EINVAL, "%s: the file is empty", src->url);
	if (!ret)
		ret = parse_header(img, err);
	if (ret) {
		qc2_qcow2_close(img);
		return ret;
	}
	*imgp = img;
	return 0;
}

void qc2_qcow2_close(struct qc2_qcow2 *img)
{
	if (!img)
		return;
	free(img->head);
	free(img->backing_name);
	free(img);
}

/* An L2 table that is there. */
struct table {
	uint64_t offset;
	uint32_t l1_index;
};

/* One listing. */
struct walk {
	struct qc2_qcow2 *img;
	uint64_t limit;		/* in bytes of the virtual disk */
	uint32_t link;
	struct qc2_extents *list;
	struct qc2_err *err;
	uint64_t clusters_left;	/* that the file can hold */
	struct table *tables;
	size_t nr_tables;
};

static int add(struct walk *w, uint64_t pos, uint64_t len, uint32_t link,
	       uint64_t offset)
{
	struct qc2_extent ext = {
		.sector = pos / 512,
		.nr_sectors = len / 512,
		.link = link,
		.offset = offset,
	};
	int ret = qc2_extents_add(w->list, &ext);

	if (ret == -E2BIG)
		return qc2_fail(w->err, E2BIG,
			"%s: more than %u pieces; convert it with qemu-img convert -O qcow2 or larger clusters",
			url_of(w->img), QC2_MAX_EXTENTS);
	if (ret)
		return qc2_fail(w->err, -ret, "out of memory");
	return 0;
}

/* Data of @len bytes at @host, of which the file may lack the end. */
static int add_data(struct walk *w, uint64_t pos, uint64_t len, uint64_t host)
{
	uint64_t size = w->img->src->size, have;
	int ret;

	if (host >= size)
		return fail_truncated(w->img, w->err, "data cluster", host,
				      cluster_size(w->img));
	if (!w->clusters_left--)
		return qc2_fail(w->err, EINVAL,
			"%s: more clusters in use than fit into its %" PRIu64 " bytes, so parts of the disk share clusters; repair a copy of it with qemu-img check -r all",
			url_of(w->img), size);
	/* The last cluster of a file need not be whole; the rest is zeros. */
	have = (size - host + 511) & ~511ULL;
	if (have > len)
		have = len;
	ret = add(w, pos, have, w->link, host);
	if (!ret && have < len)
		ret = add(w, pos + have, len - have, QC2_LINK_ZERO, 0);
	return ret;
}

static int walk_table(struct walk *w, const struct table *table,
		      const uint8_t *l2)
{
	uint64_t pos = (uint64_t)table->l1_index << l2_bits(w->img);
	uint64_t size = cluster_size(w->img), entry, host, len;
	size_t i, nr = size / 8;
	int ret = 0;

	for (i = 0; i < nr && pos < w->limit && !ret; i++, pos += size) {
		memcpy(&entry, l2 + 8 * i, 8);
		entry = be64toh(entry);
		if (!entry)
			continue;
		host = entry & L2_OFFSET_MASK;
		len = w->limit - pos < size ? w->limit - pos : size;
		if (entry & L2_COMPRESSED)
			return qc2_fail(w->err, EOPNOTSUPP,
				"%s: has compressed clusters (the first at offset %" PRIu64 " of the disk), which cannot be read yet; convert it with qemu-img convert -O qcow2",
				url_of(w->img), pos);
		if (entry & L2_ZERO && w->img->version < 3)
			return qc2_fail(w->err, EINVAL,
				"%s: damaged: entry %zu of the L2 table at offset %" PRIu64 " has the zero flag, which version 2 does not know",
				url_of(w->img), i, table->offset);
		if (host & (size - 1))
			return qc2_fail(w->err, EINVAL,
				"%s: damaged: entry %zu of the L2 table at offset %" PRIu64 " leads to offset %" PRIu64 ", which is not a multiple of the cluster size",
				url_of(w->img), i, table->offset, host);
		if (entry & L2_ZERO)
			ret = add(w, pos, len, QC2_LINK_ZERO, 0);
		else if (host)
			ret = add_data(w, pos, len, host);
	}
	return ret;
}

static int cmp_table(const void *a, const void *b)
{
	const struct table *x = a, *y = b;

	return (x->offset > y->offset) - (x->offset < y->offset);
}

/* Reads the L1 table and lists the L2 tables in the order of the file. */
static int find_tables(struct walk *w)
{
	struct qc2_qcow2 *img = w->img;
	uint64_t nr = l1_needed(img, w->limit), size = cluster_size(img), *l1;
	size_t i;
	int ret;

	if (!nr)
		return 0;
	l1 = malloc(nr * sizeof(*l1));
	if (!l1)
		return qc2_fail(w->err, ENOMEM, "out of memory");
	ret = read_meta(img, "L1 table", img->l1_offset, l1, nr * sizeof(*l1),
			w->err);
	if (ret)
		goto out;
	for (i = 0; i < nr; i++)
		if (be64toh(l1[i]) & L1_OFFSET_MASK)
			w->nr_tables++;
	w->tables = calloc(w->nr_tables + 1, sizeof(*w->tables));
	if (!w->tables) {
		ret = qc2_fail(w->err, ENOMEM, "out of memory");
		goto out;
	}
	for (i = 0, w->nr_tables = 0; i < nr && !ret; i++) {
		uint64_t offset = be64toh(l1[i]) & L1_OFFSET_MASK;

		if (!offset)
			continue;
		if (offset & (size - 1))
			ret = qc2_fail(w->err, EINVAL,
				"%s: damaged: entry %zu of the L1 table leads to offset %" PRIu64 ", which is not a multiple of the cluster size",
				url_of(img), i, offset);
		else if (size > img->src->size ||
			 offset > img->src->size - size)
			ret = fail_truncated(img, w->err, "L2 table", offset,
					     size);
		w->tables[w->nr_tables].offset = offset;
		w->tables[w->nr_tables++].l1_index = i;
	}
	if (ret)
		goto out;
	qsort(w->tables, w->nr_tables, sizeof(*w->tables), cmp_table);
	for (i = 1; i < w->nr_tables; i++)
		if (w->tables[i].offset == w->tables[i - 1].offset) {
			ret = qc2_fail(w->err, EINVAL,
				"%s: damaged: entries %" PRIu32 " and %" PRIu32 " of the L1 table share an L2 table; repair a copy of it with qemu-img check -r all",
				url_of(img), w->tables[i - 1].l1_index,
				w->tables[i].l1_index);
			break;
		}
out:
	free(l1);
	return ret;
}

/* Number of tables from @first on that one read brings. */
static size_t group_len(const struct walk *w, size_t first)
{
	uint64_t size = cluster_size(w->img), start = w->tables[first].offset;
	size_t i;

	for (i = first + 1; i < w->nr_tables; i++)
		if (w->tables[i].offset - w->tables[i - 1].offset >
		    size + MAX_GAP ||
		    w->tables[i].offset + size - start > MAX_READ)
			break;
	return i - first;
}

static int walk_tables(struct walk *w)
{
	uint64_t size = cluster_size(w->img), start, len;
	uint8_t *buf = NULL;
	size_t i, nr;
	int ret = 0;

	for (i = 0; i < w->nr_tables && !ret; i += nr) {
		start = w->tables[i].offset;
		nr = 1;
		if (start + size <= w->img->head_len) {
			ret = walk_table(w, &w->tables[i],
					 w->img->head + start);
			continue;
		}
		if (!buf)
			buf = malloc(MAX_READ);
		if (!buf) {
			ret = qc2_fail(w->err, ENOMEM, "out of memory");
			break;
		}
		nr = group_len(w, i);
		len = w->tables[i + nr - 1].offset + size - start;
		ret = read_meta(w->img, "L2 table", start, buf, len, w->err);
		for (size_t k = i; k < i + nr && !ret; k++)
			ret = walk_table(w, &w->tables[k],
					 buf + (w->tables[k].offset - start));
	}
	free(buf);
	return ret;
}

int qc2_qcow2_extents(struct qc2_qcow2 *img, uint64_t limit, uint32_t link,
		      struct qc2_extents *list, struct qc2_err *err)
{
	struct walk w = {
		.img = img,
		.limit = img->virtual_size,
		.link = link,
		.list = list,
		.err = err,
		.clusters_left = (img->src->size >> img->cluster_bits) + 1,
	};
	int ret;

	if (limit < w.limit / 512)
		w.limit = limit * 512;
	ret = find_tables(&w);
	if (!ret)
		ret = walk_tables(&w);
	free(w.tables);
	if (!ret)
		qc2_extents_sort(list);
	return ret;
}
