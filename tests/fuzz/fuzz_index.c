/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Merging links and looking sectors up, against a model: an array with a place
 * for each sector.  The input has the size of the disk, and the links from the
 * top, each with its size and extents.
 */
#include "fuzz.h"
#include "images.h"
#include "index.h"

#define MAX_SECTORS	256
#define MAX_LINKS	8

struct place {
	uint32_t object;
	uint64_t offset;
	bool known;
};

/* Sectors in ascending order; what overlaps is cut. */
static void take_link(struct input *in, uint32_t link, struct qc2_extents *list)
{
	uint64_t pos = 0;

	for (unsigned int nr = take(in, 1) % 32; nr; nr--) {
		unsigned int how = take(in, 1);
		struct qc2_extent ext = {
			.sector = pos + (how & 15),
			.nr_sectors = 1 + (how >> 4),
			.object = link,
			.offset = take(in, 1) * 512,
		};

		if (ext.offset == 255 * 512) {
			ext.object = QC2_OBJECT_ZERO;
			ext.offset = 0;
		}
		pos = ext.sector + ext.nr_sectors;
		if (pos > MAX_SECTORS)
			break;
		assert(!qc2_extents_add(list, &ext));
	}
}

/* Puts the link below what is in the model, sector by sector. */
static void model_underlay(struct place *model, const struct qc2_extents *list,
			   uint64_t limit)
{
	for (size_t i = 0; i < list->nr; i++)
		for (uint64_t k = 0; k < list->v[i].nr_sectors; k++) {
			const struct qc2_extent *ext = &list->v[i];
			struct place *place = &model[ext->sector + k];

			if (place->known || ext->sector + k >= limit)
				continue;
			*place = (struct place){ ext->object, ext->offset, true };
			if (ext->object != QC2_OBJECT_ZERO)
				place->offset += k * 512;
		}
}

static void check_lookup(const struct qc2_index *idx, const struct place *model)
{
	for (uint64_t s = 0; s < idx->nr_sectors; s++) {
		size_t i = qc2_index_find(idx, s);
		bool data = model[s].known && model[s].object != QC2_OBJECT_ZERO;
		const struct qc2_extent *ext;

		assert(i <= idx->nr_extents);
		if (i == idx->nr_extents || idx->extents[i].sector > s) {
			assert(!data);
			continue;
		}
		ext = &idx->extents[i];
		assert(data && ext->object == model[s].object &&
		       ext->offset + (s - ext->sector) * 512 == model[s].offset);
	}
}

static void check_objects(const struct qc2_index *idx)
{
	const struct qc2_extent *v = idx->extents;

	assert(idx->nr_by_object == idx->nr_extents);
	for (size_t i = 1; i < idx->nr_by_object; i++) {
		const struct qc2_extent *a = &v[idx->by_object[i - 1]];
		const struct qc2_extent *b = &v[idx->by_object[i]];

		assert(a->object < b->object ||
		       (a->object == b->object && a->offset <= b->offset));
	}
	/* The first byte of every extent is found in one that holds it. */
	for (size_t i = 0; i < idx->nr_extents; i++) {
		size_t k = qc2_index_find_object(idx, v[i].object, v[i].offset);
		const struct qc2_extent *ext;

		assert(k < idx->nr_by_object);
		ext = &v[idx->by_object[k]];
		assert(ext->object == v[i].object && ext->offset <= v[i].offset &&
		       v[i].offset < ext->offset + ext->nr_sectors * 512ULL);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct place model[MAX_SECTORS] = { 0 };
	struct qc2_extents merged = { 0 };
	struct input in = { data, size };
	uint64_t sectors = take(&in, 1) + 1, limit = sectors, end;
	struct qc2_index *idx;

	for (uint32_t link = 0; link < MAX_LINKS && in.len; link++) {
		struct qc2_extents list = { 0 };

		take_link(&in, link, &list);
		assert(!qc2_extents_underlay(&merged, &list, limit));
		check_extents(merged.v, merged.nr, sectors);
		model_underlay(model, &list, limit);
		qc2_extents_free(&list);
		end = take(&in, 1);
		if (limit > end)
			limit = end;
	}
	idx = qc2_index_build(&merged, sectors);
	assert(idx && !merged.nr);
	check_extents(idx->extents, idx->nr_extents, sectors);
	check_lookup(idx, model);
	check_objects(idx);
	qc2_index_free(idx);
	return 0;
}
