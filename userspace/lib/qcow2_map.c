/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The L1 and L2 tables of a qcow2 image: a list of what the image holds.
 * Without state of its own; an image is used by one thread at a time.
 */
#include <endian.h>
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "qcow2_format.h"

/* One read of several L2 tables. */
#define MAX_READ		(2 << 20)
#define MAX_GAP			(64 << 10)
/* What is read with a small L1 table. */
#define MAX_SPECULATION		(128 << 10)

static const char *url_of(const struct qc2_qcow2 *img)
{
	return img->src->url;
}

/* An L2 table that is there. */
struct table {
	uint64_t offset;
	uint32_t l1_index;
};

/* One listing. */
struct walk {
	struct qc2_qcow2 *img;
	uint32_t data;
	uint64_t data_size;
	uint32_t packed_object;
	struct qc2_extents *list;
	struct qc2_packed *packed;
	struct qc2_err *err;
	uint64_t clusters_left;	/* that the file can hold */
	struct table *tables;
	size_t nr_tables;
};

/* An entry that is being looked at, for errors. */
struct entry {
	const struct table *table;
	size_t nr;
	uint64_t pos;		/* on the virtual disk, bytes */
	uint64_t len;		/* of the cluster, up to the end of the disk */
	uint64_t value;
	uint64_t bitmap;	/* of an extended entry */
};

static int fail_entry(const struct walk *w, const struct entry *e,
		      const char *what)
{
	return qc2_fail(w->err, EINVAL,
		"%s: damaged: entry %zu of the L2 table at offset %" PRIu64 " (0x%016" PRIx64 ") %s; repair a copy of the image with qemu-img check -r all",
		url_of(w->img), e->nr, e->table->offset, e->value, what);
}

static int add(struct walk *w, uint64_t pos, uint64_t len, uint32_t object,
	       uint64_t offset)
{
	struct qc2_extent ext = {
		.sector = pos / 512,
		.nr_sectors = len / 512,
		.object = object,
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
	uint64_t have = host < w->data_size ? w->data_size - host : 0;
	int ret = 0;

	/* The last cluster of a file need not be whole; the rest is zeros. */
	have = (have + 511) & ~511ULL;
	if (have > len)
		have = len;
	if (have)
		ret = add(w, pos, have, w->data, host);
	if (!ret && have < len)
		ret = add(w, pos + have, len - have, QC2_OBJECT_ZERO, 0);
	return ret;
}

static int add_packed(struct walk *w, const struct entry *e)
{
	struct qc2_qcow2 *img = w->img;
	unsigned int shift = 62 - (img->cluster_bits - 8);
	uint64_t offset = e->value & ((1ULL << shift) - 1);
	uint64_t sectors = (e->value & (QCOW2_L2_COMPRESSED - 1)) >> shift;
	uint64_t len = (sectors + 1) * 512 - offset % 512;

	if (img->data_name)
		return fail_entry(w, e,
			"is compressed, which cannot be with an external data file");
	if (offset >= img->src->size)
		return qcow2_fail_truncated(img, w->err, "compressed cluster",
					    offset, len);
	if (len > img->src->size - offset)
		len = img->src->size - offset;
	if (!w->packed)
		w->packed = qc2_packed_new(img->cluster_bits, img->compression);
	if (!w->packed || qc2_packed_add(w->packed, offset,
					 e->pos >> img->cluster_bits, len))
		return qc2_fail(w->err, ENOMEM, "out of memory");
	return add(w, e->pos, e->len, w->packed_object, e->pos);
}

/* Checks where an entry leads that has a cluster. */
static int check_host(struct walk *w, const struct entry *e, uint64_t host)
{
	uint64_t size = qcow2_cluster_size(w->img);

	if (host & (size - 1))
		return fail_entry(w, e,
			"leads to an offset that is not a multiple of the cluster size");
	if (w->img->data_name && host != e->pos)
		return fail_entry(w, e,
			"leads to another offset of the external data file than its own");
	return 0;
}

/* The same for a cluster that is read from. */
static int check_data(struct walk *w, uint64_t host)
{
	if (w->img->data_name)
		return 0;		/* reads as zeros behind its end */
	if (host >= w->data_size)
		return qcow2_fail_truncated(w->img, w->err, "data cluster",
					    host, qcow2_cluster_size(w->img));
	if (!w->clusters_left--)
		return qc2_fail(w->err, EINVAL,
			"%s: more clusters in use than fit into its %" PRIu64 " bytes, so parts of the disk share clusters; repair a copy of it with qemu-img check -r all",
			url_of(w->img), w->data_size);
	return 0;
}

/* Each subcluster is data, zeros, or left to the backing file. */
static int add_subclusters(struct walk *w, const struct entry *e, bool data,
			   uint64_t host)
{
	uint64_t size = qcow2_cluster_size(w->img) / QCOW2_SUBCLUSTERS;
	uint32_t alloc = e->bitmap, zero = e->bitmap >> 32;
	unsigned int i;
	int ret = 0;

	if (alloc & zero)
		return fail_entry(w, e,
			"has subclusters that are both data and zeros");
	if (alloc && !data)
		return fail_entry(w, e, "has subclusters of data, but no cluster");
	if (alloc)
		ret = check_data(w, host);
	for (i = 0; i < QCOW2_SUBCLUSTERS && i * size < e->len && !ret; i++) {
		uint64_t pos = i * size, len = size;

		if (len > e->len - pos)
			len = e->len - pos;
		if (alloc >> i & 1)
			ret = add_data(w, e->pos + pos, len, host + pos);
		else if (zero >> i & 1)
			ret = add(w, e->pos + pos, len, QC2_OBJECT_ZERO, 0);
	}
	return ret;
}

static int walk_entry(struct walk *w, const struct entry *e)
{
	struct qc2_qcow2 *img = w->img;
	uint64_t host = e->value & QCOW2_OFFSET_MASK;
	/* Offset 0 of an external data file is a place like any other. */
	bool data = host || (img->data_name && e->value & QCOW2_L2_COPIED);
	bool zero = e->value & QCOW2_L2_ZERO && !img->extended_l2;
	int ret = 0;

	if (e->value & QCOW2_L2_COMPRESSED)
		return add_packed(w, e);
	if (zero && img->version < 3)
		return fail_entry(w, e,
			"has the zero flag, which version 2 does not know");
	if (data)
		ret = check_host(w, e, host);
	if (ret)
		return ret;
	if (img->extended_l2)
		return add_subclusters(w, e, data, host);
	if (zero)
		return add(w, e->pos, e->len, QC2_OBJECT_ZERO, 0);
	if (!data)
		return 0;
	ret = check_data(w, host);
	return ret ? ret : add_data(w, e->pos, e->len, host);
}

static int walk_table(struct walk *w, const struct table *table,
		      const uint8_t *l2)
{
	struct qc2_qcow2 *img = w->img;
	uint64_t size = qcow2_cluster_size(img), disk = img->virtual_size;
	size_t entry_len = img->extended_l2 ? 16 : 8;
	struct entry e = {
		.table = table,
		.pos = (uint64_t)table->l1_index << qcow2_l2_bits(img),
	};
	int ret = 0;

	for (; e.nr < size / entry_len && e.pos < disk && !ret;
	     e.nr++, e.pos += size) {
		memcpy(&e.value, l2 + entry_len * e.nr, 8);
		e.value = be64toh(e.value);
		if (img->extended_l2) {
			memcpy(&e.bitmap, l2 + entry_len * e.nr + 8, 8);
			e.bitmap = be64toh(e.bitmap);
		}
		e.len = disk - e.pos < size ? disk - e.pos : size;
		if (e.value || e.bitmap)
			ret = walk_entry(w, &e);
	}
	return ret;
}

static int cmp_table(const void *a, const void *b)
{
	const struct table *x = a, *y = b;

	return (x->offset > y->offset) - (x->offset < y->offset);
}

/*
 * Reads the L1 table with the cluster behind it, in which qemu-img has the first
 * L2 table.
 */
static int read_l1(struct walk *w, uint64_t l1_len)
{
	uint64_t size = qcow2_cluster_size(w->img), start, end;
	struct qc2_qcow2 *img = w->img;

	start = img->l1_offset;
	if (qcow2_peek(img, start, l1_len))
		return 0;
	end = start + ((l1_len + size - 1) & ~(size - 1)) + size;
	if (end - start > MAX_SPECULATION)
		end = start + (l1_len > MAX_SPECULATION ? l1_len : MAX_SPECULATION);
	return qcow2_read_ahead(img, start, end - start, w->err);
}

/* Reads the L1 table and lists the L2 tables in the order of the file. */
static int find_tables(struct walk *w)
{
	struct qc2_qcow2 *img = w->img;
	uint64_t nr = qcow2_l1_needed(img, img->virtual_size);
	uint64_t size = qcow2_cluster_size(img), *l1;
	size_t i;
	int ret;

	if (!nr)
		return 0;
	l1 = malloc(nr * sizeof(*l1));
	if (!l1)
		return qc2_fail(w->err, ENOMEM, "out of memory");
	ret = read_l1(w, nr * sizeof(*l1));
	if (!ret)
		ret = qcow2_read(img, "L1 table", img->l1_offset, l1,
				 nr * sizeof(*l1), w->err);
	if (ret)
		goto out;
	for (i = 0; i < nr; i++)
		if (be64toh(l1[i]) & QCOW2_OFFSET_MASK)
			w->nr_tables++;
	w->tables = calloc(w->nr_tables + 1, sizeof(*w->tables));
	if (!w->tables) {
		ret = qc2_fail(w->err, ENOMEM, "out of memory");
		goto out;
	}
	for (i = 0, w->nr_tables = 0; i < nr && !ret; i++) {
		uint64_t offset = be64toh(l1[i]) & QCOW2_OFFSET_MASK;

		if (!offset)
			continue;
		if (offset & (size - 1))
			ret = qc2_fail(w->err, EINVAL,
				"%s: damaged: entry %zu of the L1 table leads to offset %" PRIu64 ", which is not a multiple of the cluster size",
				url_of(img), i, offset);
		else if (size > img->src->size ||
			 offset > img->src->size - size)
			ret = qcow2_fail_truncated(img, w->err, "L2 table",
						   offset, size);
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
	uint64_t size = qcow2_cluster_size(w->img), start = w->tables[first].offset;
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
	uint64_t size = qcow2_cluster_size(w->img), start, len;
	const uint8_t *known;
	uint8_t *buf = NULL;
	size_t i, nr;
	int ret = 0;

	for (i = 0; i < w->nr_tables && !ret; i += nr) {
		start = w->tables[i].offset;
		nr = 1;
		known = qcow2_peek(w->img, start, size);
		if (known) {
			ret = walk_table(w, &w->tables[i], known);
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
		ret = qcow2_read(w->img, "L2 table", start, buf, len, w->err);
		for (size_t k = i; k < i + nr && !ret; k++)
			ret = walk_table(w, &w->tables[k],
					 buf + (w->tables[k].offset - start));
	}
	free(buf);
	return ret;
}

int qc2_qcow2_extents(struct qc2_qcow2 *img, uint32_t data, uint64_t data_size,
		      uint32_t packed_object, struct qc2_extents *list,
		      struct qc2_packed **packed, struct qc2_err *err)
{
	struct walk w = {
		.img = img,
		.data = data,
		.data_size = data_size,
		.packed_object = packed_object,
		.list = list,
		.err = err,
		.clusters_left = (img->src->size >> img->cluster_bits) + 1,
	};
	int ret;

	ret = find_tables(&w);
	if (!ret)
		ret = walk_tables(&w);
	free(w.tables);
	free(img->tables);
	img->tables = NULL;
	img->tables_len = 0;
	*packed = w.packed;
	if (ret)
		return ret;
	qc2_extents_sort(list);
	if (w.packed)
		qc2_packed_sort(w.packed);
	return 0;
}
