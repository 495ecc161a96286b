/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Images as fuzz inputs: sparse, so that a mutation hits metadata and not the
 * zeros between.  An input is the sizes of the images, 8 bytes each, then pages
 * of 64 bytes, each behind 4 bytes: the number of the image (the three highest
 * bits) and the number of the page in it.  All little-endian; what is in no
 * page is zeros.  tests/fuzz/seeds writes such inputs of files.
 */
#ifndef QC2_FUZZ_IMAGES_H
#define QC2_FUZZ_IMAGES_H

#include <errno.h>
#include <stdatomic.h>

#include "fuzz.h"
#include "qcow2.h"
#include "source.h"

#define PAGE_BYTES	64
#define RECORD_BYTES	(4 + PAGE_BYTES)
#define MAX_IMAGES	8

/* After so many bytes the store of one input fails. */
#define MAX_READ_BYTES	(16 << 20)

struct images {
	uint64_t sizes[MAX_IMAGES];
	const uint8_t *records;
	size_t nr_records;
	/* A chain is read by several threads. */
	atomic_size_t read;	/* bytes, so far */
	atomic_uint open;	/* sources */
};

struct image_source {
	struct qc2_source src;
	struct images *images;
	uint32_t image;
};

static inline void images_init(struct images *images, uint32_t nr,
			       struct input *in)
{
	memset(images, 0, sizeof(*images));
	for (uint32_t i = 0; i < nr; i++)
		images->sizes[i] = take(in, 8) & INT64_MAX;
	images->records = in->p;
	images->nr_records = in->len / RECORD_BYTES;
}

static inline uint64_t record_place(const uint8_t *record, uint32_t *image)
{
	uint32_t word;

	memcpy(&word, record, 4);
	word = le32toh(word);
	*image = word >> 29;
	return (uint64_t)(word & 0x1fffffff) * PAGE_BYTES;
}

static inline int image_read(struct qc2_source *src, uint64_t offset, void *buf,
			     size_t len, struct qc2_err *err)
{
	struct image_source *s = (struct image_source *)src;
	struct images *images = s->images;

	/* Contract of struct qc2_source_ops. */
	assert(len && len <= src->size && offset <= src->size - len);
	if (atomic_fetch_add(&images->read, len) + len > MAX_READ_BYTES)
		return qc2_fail(err, EIO, "%s: the store fails", src->url);
	memset(buf, 0, len);
	for (size_t i = 0; i < images->nr_records; i++) {
		const uint8_t *record = images->records + i * RECORD_BYTES;
		uint32_t image;
		uint64_t from = record_place(record, &image), start = from;
		uint64_t to = from + PAGE_BYTES;

		if (from < offset)
			from = offset;
		if (to > offset + len)
			to = offset + len;
		if (image == s->image && from < to)
			memcpy((char *)buf + (from - offset),
			       record + 4 + (from - start), to - from);
	}
	return 0;
}

static inline void image_close(struct qc2_source *src)
{
	struct image_source *s = (struct image_source *)src;

	s->images->open--;
	free(src->url);
	free(src->version);
	free(s);
}

static inline struct qc2_source *image_open(struct images *images,
					    uint32_t image, const char *url)
{
	static const struct qc2_source_ops ops = {
		.read = image_read,
		.close = image_close,
	};
	struct image_source *s = calloc(1, sizeof(*s));

	assert(s);
	s->src.ops = &ops;
	s->src.url = strdup(url);
	s->src.version = strdup("v1");
	s->src.size = images->sizes[image];
	s->images = images;
	s->image = image;
	images->open++;
	return &s->src;
}

static inline bool joins(const struct qc2_extent *a, const struct qc2_extent *b)
{
	return a->object == b->object && a->sector + a->nr_sectors == b->sector &&
	       (uint64_t)a->nr_sectors + b->nr_sectors <= UINT32_MAX &&
	       (a->object == QC2_OBJECT_ZERO ||
		a->offset + a->nr_sectors * 512ULL == b->offset);
}

/* Not empty, sorted, without overlap, joined, on the disk. */
static inline void check_extents(const struct qc2_extent *v, size_t nr,
				 uint64_t sectors)
{
	uint64_t end = 0;

	for (size_t i = 0; i < nr; i++) {
		assert(v[i].nr_sectors && v[i].sector >= end);
		assert(v[i].nr_sectors <= sectors &&
		       v[i].sector <= sectors - v[i].nr_sectors);
		end = v[i].sector + v[i].nr_sectors;
		assert(!i || !joins(&v[i - 1], &v[i]));
		assert(v[i].object != QC2_OBJECT_ZERO || !v[i].offset);
	}
}

/* In a file of @size bytes, the last sector of which need not be whole. */
static inline void check_in_file(const struct qc2_extent *ext, uint64_t size)
{
	uint64_t len = ext->nr_sectors * 512ULL;

	size = (size + 511) & ~511ULL;
	assert(len <= size && ext->offset <= size - len);
}

/* In the file, sorted by cluster, none twice. */
static inline void check_packed(const struct qc2_packed *packed,
				uint64_t file_size, uint64_t virtual_size)
{
	for (size_t i = 0; packed && i < packed->nr; i++) {
		const struct qc2_packed_cluster *c = &packed->v[i];

		assert(!i || packed->v[i - 1].cluster < c->cluster);
		assert((uint64_t)c->cluster << packed->cluster_bits < virtual_size);
		assert(c->len && c->len <= file_size &&
		       c->offset <= file_size - c->len);
		assert(c->len <= 2U << packed->cluster_bits);
	}
}

/* An extent of unpacked data needs all clusters that it lies in. */
static inline void check_unpacked(const struct qc2_extent *ext,
				  const struct qc2_packed *packed)
{
	uint64_t cluster, last;
	size_t i;

	assert(packed);
	cluster = ext->offset >> packed->cluster_bits;
	last = (ext->offset + ext->nr_sectors * 512ULL - 1) >>
	       packed->cluster_bits;
	i = qc2_packed_find(packed, cluster);
	for (; cluster <= last; cluster++, i++)
		assert(i < packed->nr && packed->v[i].cluster == cluster);
}

#define DATA		0
#define UNPACKED	1
#define NOTHING		2	/* of model_lookup(): left to the backing file */

static inline uint64_t image_be64(struct qc2_source *src, uint64_t offset)
{
	struct qc2_err err;
	uint64_t value;

	assert(!src->ops->read(src, offset, &value, sizeof(value), &err));
	return be64toh(value);
}

/* Finds a sector as the format's document says, from the L1 table on. */
static inline void model_lookup(const struct qc2_qcow2 *img, uint64_t data_size,
				uint64_t sector, uint32_t *object,
				uint64_t *offset)
{
	uint64_t pos = sector * 512, size = 1ULL << img->cluster_bits;
	uint64_t entry_len = img->extended_l2 ? 16 : 8, entries = size / entry_len;
	uint64_t table, entry, host, bitmap = 0;
	unsigned int sub = pos % size / (size / 32);
	bool data, zero;

	*object = NOTHING;
	*offset = 0;
	table = image_be64(img->src, img->l1_offset + pos / size / entries * 8) &
		0xfffffffffffe00;
	if (!table)
		return;
	table += pos / size % entries * entry_len;
	entry = image_be64(img->src, table);
	if (img->extended_l2)
		bitmap = image_be64(img->src, table + 8);
	if (entry >> 62 & 1) {
		*object = UNPACKED;
		*offset = pos;
		return;
	}
	host = entry & 0xfffffffffffe00;
	/* What is behind the end is zeros in an external data file, else refused. */
	data = img->extended_l2 ? bitmap >> sub & 1 :
	       host || (img->data_name && entry >> 63);
	zero = img->extended_l2 ? bitmap >> (32 + sub) & 1 : entry & 1;
	assert(!data || zero || img->data_name || host < data_size);
	if (data && !zero && host + pos % size < data_size) {
		*object = DATA;
		*offset = host + pos % size;
	} else if (data || zero) {
		*object = QC2_OBJECT_ZERO;
	}
}

/* Compares a sector; @i is the number of an extent that may hold it. */
static inline void check_sector(const struct qc2_qcow2 *img, uint64_t data_size,
				const struct qc2_extents *list, size_t i,
				uint64_t sector)
{
	const struct qc2_extent *ext = i < list->nr ? &list->v[i] : NULL;
	uint32_t object;
	uint64_t offset;

	if (sector >= img->virtual_size / 512)
		return;
	model_lookup(img, data_size, sector, &object, &offset);
	if (!ext || sector < ext->sector ||
	    sector >= ext->sector + ext->nr_sectors) {
		assert(object == NOTHING);
		return;
	}
	assert(object == ext->object);
	assert(offset == (object == QC2_OBJECT_ZERO ? 0 :
			  ext->offset + (sector - ext->sector) * 512));
}

/* The ends of the first extents, and of the gaps behind them. */
static inline void check_sectors(const struct qc2_qcow2 *img, uint64_t data_size,
				 const struct qc2_extents *list)
{
	((struct image_source *)img->src)->images->read = 0;
	check_sector(img, data_size, list, 0, 0);
	for (size_t i = 0; i < list->nr && i < 64; i++) {
		const struct qc2_extent *ext = &list->v[i];
		uint64_t end = ext->sector + ext->nr_sectors;

		check_sector(img, data_size, list, i, ext->sector);
		check_sector(img, data_size, list, i, end - 1);
		if (i + 1 == list->nr || ext[1].sector > end)
			check_sector(img, data_size, list, i, end);
		if (i + 1 < list->nr && ext[1].sector > end)
			check_sector(img, data_size, list, i, ext[1].sector - 1);
	}
}

/* Lists an open image, its data being in a file of @data_size bytes. */
static inline void list_image(struct qc2_qcow2 *img, uint64_t data_size)
{
	struct qc2_packed *packed = NULL;
	struct qc2_extents list = { 0 };
	struct qc2_err err;

	assert(img->virtual_size <= QC2_QCOW2_MAX_SIZE &&
	       img->virtual_size % 512 == 0);
	if (!qc2_qcow2_extents(img, 0, UINT64_MAX, DATA, data_size, UNPACKED, &list, &packed,
			       &err)) {
		check_extents(list.v, list.nr, img->virtual_size / 512);
		check_packed(packed, img->src->size, img->virtual_size);
		check_sectors(img, data_size, &list);
		for (size_t i = 0; i < list.nr; i++) {
			const struct qc2_extent *ext = &list.v[i];

			if (ext->object == DATA) {
				check_in_file(ext, data_size);
			} else if (ext->object == UNPACKED) {
				assert(ext->offset == ext->sector * 512);
				check_unpacked(ext, packed);
			} else {
				assert(ext->object == QC2_OBJECT_ZERO);
			}
		}
	}
	qc2_packed_put(packed);
	qc2_extents_free(&list);
}

#endif
