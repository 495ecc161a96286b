/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The L1 and L2 tables of a qcow2 image: a list of what the image holds.  The L1
 * table is read when it is first needed, under the image's lock; after that
 * nothing in an image changes, and several threads may list parts of it.
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
/* What is read with the L1 table: not less, and not more unless it is larger. */
#define MIN_SPECULATION		(64 << 10)
#define MAX_SPECULATION		(128 << 10)

static const char *url_of(const struct qc2_qcow2 *img)
{
	return img->src->url;
}

/* What is to be read of an L2 table. */
struct portion {
	const struct qcow2_table *table;
	uint32_t first, nr;	/* entries */
};

/* One listing. */
struct walk {
	struct qc2_qcow2 *img;
	uint64_t from, to;	/* bytes of the virtual disk, whole clusters */
	uint32_t data;
	uint64_t data_size;
	uint32_t packed_object;
	struct qc2_extents *list;
	struct qc2_packed *packed;
	struct qc2_err *err;
	uint64_t clusters_left;	/* that the file can hold */
	struct portion *portions;	/* in the order of the file */
	size_t nr_portions;
};

/* An entry that is being looked at, for errors. */
struct entry {
	const struct qcow2_table *table;
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

static size_t entry_len(const struct qc2_qcow2 *img)
{
	return img->extended_l2 ? 16 : 8;
}

static int walk_portion(struct walk *w, const struct portion *portion,
			const uint8_t *l2)
{
	struct qc2_qcow2 *img = w->img;
	uint64_t size = qcow2_cluster_size(img), disk = img->virtual_size;
	struct entry e = { .table = portion->table };
	uint32_t i;
	int ret = 0;

	for (i = 0; i < portion->nr && !ret; i++, l2 += entry_len(img)) {
		e.nr = portion->first + i;
		e.pos = ((uint64_t)e.table->l1_index << qcow2_l2_bits(img)) +
			e.nr * size;
		if (e.pos >= disk)
			break;
		memcpy(&e.value, l2, 8);
		e.value = be64toh(e.value);
		if (img->extended_l2) {
			memcpy(&e.bitmap, l2 + 8, 8);
			e.bitmap = be64toh(e.bitmap);
		}
		e.len = disk - e.pos < size ? disk - e.pos : size;
		if (e.value || e.bitmap)
			ret = walk_entry(w, &e);
	}
	return ret;
}

/*
 * ---------------------------------------------------------------------------
 * The L1 table
 * ---------------------------------------------------------------------------
 */

static int cmp_table(const void *a, const void *b)
{
	const struct qcow2_table *x = a, *y = b;

	return (x->offset > y->offset) - (x->offset < y->offset);
}

/*
 * Reads the L1 table with what qemu-img has behind it: the first L2 table, of
 * which @l2_len bytes are wanted.
 */
static int read_ahead_l1(struct qc2_qcow2 *img, uint64_t l1_len, uint64_t l2_len,
			 struct qc2_err *err)
{
	uint64_t size = qcow2_cluster_size(img), len;

	if (qcow2_peek(img, img->l1_offset, l1_len))
		return 0;
	len = ((l1_len + size - 1) & ~(size - 1)) + l2_len;
	if (len < MIN_SPECULATION)
		len = MIN_SPECULATION;
	if (len > MAX_SPECULATION)
		len = l1_len;
	return qcow2_read_ahead(img, img->l1_offset, len, err);
}

static int check_table(struct qc2_qcow2 *img, const struct qcow2_table *table,
		       struct qc2_err *err)
{
	uint64_t size = qcow2_cluster_size(img);

	if (table->offset & (size - 1))
		return qc2_fail(err, EINVAL,
			"%s: damaged: entry %" PRIu32 " of the L1 table leads to offset %" PRIu64 ", which is not a multiple of the cluster size",
			url_of(img), table->l1_index, table->offset);
	if (size > img->src->size || table->offset > img->src->size - size)
		return qcow2_fail_truncated(img, err, "L2 table", table->offset,
					    size);
	return 0;
}

/* Lists the L2 tables of an L1 table in the order of the file. */
static int list_tables(struct qc2_qcow2 *img, const uint64_t *l1, size_t nr,
		       struct qc2_err *err)
{
	struct qcow2_table *tables;
	size_t i, n = 0;
	int ret;

	for (i = 0; i < nr; i++)
		n += !!(be64toh(l1[i]) & QCOW2_OFFSET_MASK);
	tables = calloc(n + 1, sizeof(*tables));
	if (!tables)
		return qc2_fail(err, ENOMEM, "out of memory");
	img->l2 = tables;
	for (i = 0, n = 0; i < nr; i++) {
		tables[n].offset = be64toh(l1[i]) & QCOW2_OFFSET_MASK;
		tables[n].l1_index = i;
		if (!tables[n].offset)
			continue;
		ret = check_table(img, &tables[n], err);
		if (ret)
			return ret;
		n++;
	}
	qsort(tables, n, sizeof(*tables), cmp_table);
	for (i = 1; i < n; i++)
		if (tables[i].offset == tables[i - 1].offset)
			return qc2_fail(err, EINVAL,
				"%s: damaged: entries %" PRIu32 " and %" PRIu32 " of the L1 table share an L2 table; repair a copy of it with qemu-img check -r all",
				url_of(img), tables[i - 1].l1_index,
				tables[i].l1_index);
	img->nr_l2 = n;
	return 0;
}

/* Keeps of what was read ahead no more than begins with an L2 table. */
static void trim_tables(struct qc2_qcow2 *img)
{
	size_t i = 0, skip;
	uint8_t *tables;

	while (i < img->nr_l2 && img->l2[i].offset < img->tables_offset)
		i++;
	if (i == img->nr_l2 ||
	    img->l2[i].offset - img->tables_offset >= img->tables_len) {
		free(img->tables);
		img->tables = NULL;
		img->tables_len = 0;
		return;
	}
	skip = img->l2[i].offset - img->tables_offset;
	img->tables_offset += skip;
	img->tables_len -= skip;
	memmove(img->tables, img->tables + skip, img->tables_len);
	tables = realloc(img->tables, img->tables_len);
	if (tables)
		img->tables = tables;
}

/* @l2_len: bytes of an L2 table that are going to be looked at */
static int load_l1(struct qc2_qcow2 *img, uint64_t l2_len, struct qc2_err *err)
{
	uint64_t nr = qcow2_l1_needed(img, img->virtual_size), *l1;
	int ret;

	if (!nr)
		return 0;
	l1 = malloc(nr * sizeof(*l1));
	if (!l1)
		return qc2_fail(err, ENOMEM, "out of memory");
	ret = read_ahead_l1(img, nr * sizeof(*l1), l2_len, err);
	if (!ret)
		ret = qcow2_read(img, "L1 table", img->l1_offset, l1,
				 nr * sizeof(*l1), err);
	if (!ret)
		ret = list_tables(img, l1, nr, err);
	free(l1);
	if (ret) {
		free(img->l2);
		img->l2 = NULL;
	} else {
		trim_tables(img);
	}
	return ret;
}

/* Once for an image; who comes second waits. */
static int need_l1(struct walk *w)
{
	uint64_t size = qcow2_cluster_size(w->img);
	uint64_t l2_len = (w->to - w->from) / size * entry_len(w->img);
	struct qc2_qcow2 *img = w->img;
	int ret = 0;

	pthread_mutex_lock(&img->l1_lock);
	if (!img->l1_read)
		ret = load_l1(img, l2_len < size ? l2_len : size, w->err);
	img->l1_read = !ret;
	pthread_mutex_unlock(&img->l1_lock);
	return ret;
}

/*
 * ---------------------------------------------------------------------------
 * L2 tables
 * ---------------------------------------------------------------------------
 */

/* Lists what of the L2 tables maps from..to, in the order of the file. */
static int find_portions(struct walk *w)
{
	struct qc2_qcow2 *img = w->img;
	unsigned int bits = qcow2_l2_bits(img);
	size_t i;

	for (i = 0; i < img->nr_l2; i++)
		w->nr_portions += img->l2[i].l1_index >= w->from >> bits &&
				  img->l2[i].l1_index <= (w->to - 1) >> bits;
	w->portions = calloc(w->nr_portions + 1, sizeof(*w->portions));
	if (!w->portions)
		return qc2_fail(w->err, ENOMEM, "out of memory");
	for (i = 0, w->nr_portions = 0; i < img->nr_l2; i++) {
		uint64_t start = (uint64_t)img->l2[i].l1_index << bits;
		uint64_t from = start, to = start + (1ULL << bits);
		struct portion *portion = &w->portions[w->nr_portions];

		if (to <= w->from || start >= w->to)
			continue;
		if (from < w->from)
			from = w->from;
		if (to > w->to)
			to = w->to;
		portion->table = &img->l2[i];
		portion->first = (from - start) >> img->cluster_bits;
		portion->nr = (to - from) >> img->cluster_bits;
		w->nr_portions++;
	}
	return 0;
}

static uint64_t portion_offset(const struct walk *w, size_t i)
{
	const struct portion *portion = &w->portions[i];

	return portion->table->offset + portion->first * entry_len(w->img);
}

static uint64_t portion_end(const struct walk *w, size_t i)
{
	return portion_offset(w, i) + w->portions[i].nr * entry_len(w->img);
}

/* Number of portions from @first on that one read brings. */
static size_t group_len(const struct walk *w, size_t first)
{
	uint64_t start = portion_offset(w, first);
	size_t i;

	for (i = first + 1; i < w->nr_portions; i++)
		if (portion_offset(w, i) - portion_end(w, i - 1) > MAX_GAP ||
		    portion_end(w, i) - start > MAX_READ)
			break;
	return i - first;
}

static int walk_group(struct walk *w, size_t first, size_t nr, uint8_t **buf)
{
	uint64_t start = portion_offset(w, first);
	uint64_t len = portion_end(w, first + nr - 1) - start;
	size_t i;
	int ret;

	if (!*buf)
		*buf = malloc(MAX_READ);
	if (!*buf)
		return qc2_fail(w->err, ENOMEM, "out of memory");
	ret = qcow2_read(w->img, "L2 table", start, *buf, len, w->err);
	for (i = first; i < first + nr && !ret; i++)
		ret = walk_portion(w, &w->portions[i],
				   *buf + (portion_offset(w, i) - start));
	return ret;
}

static int walk_portions(struct walk *w)
{
	const uint8_t *known;
	uint8_t *buf = NULL;
	size_t i, nr;
	int ret = 0;

	for (i = 0; i < w->nr_portions && !ret; i += nr) {
		uint64_t start = portion_offset(w, i);

		nr = 1;
		known = qcow2_peek(w->img, start, portion_end(w, i) - start);
		if (known) {
			ret = walk_portion(w, &w->portions[i], known);
			continue;
		}
		nr = group_len(w, i);
		ret = walk_group(w, i, nr, &buf);
	}
	free(buf);
	return ret;
}

int qc2_qcow2_extents(struct qc2_qcow2 *img, uint64_t from, uint64_t to,
		      uint32_t data, uint64_t data_size, uint32_t packed_object,
		      struct qc2_extents *list, struct qc2_packed **packed,
		      struct qc2_err *err)
{
	uint64_t size = qcow2_cluster_size(img);
	struct walk w = {
		.img = img,
		.from = from * 512 & ~(size - 1),
		.data = data,
		.data_size = data_size,
		.packed_object = packed_object,
		.list = list,
		.err = err,
		.clusters_left = (img->src->size >> img->cluster_bits) + 1,
	};
	int ret;

	*packed = NULL;
	w.to = to > img->virtual_size / 512 ? img->virtual_size : to * 512;
	w.to = (w.to + size - 1) & ~(size - 1);
	if (w.from >= w.to)
		return 0;
	ret = need_l1(&w);
	if (!ret)
		ret = find_portions(&w);
	if (!ret)
		ret = walk_portions(&w);
	free(w.portions);
	*packed = w.packed;
	if (ret)
		return ret;
	qc2_extents_sort(list);
	if (w.packed)
		qc2_packed_sort(w.packed);
	return 0;
}
