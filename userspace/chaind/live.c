/* SPDX-License-Identifier: GPL-2.0 */
/* Walking the blocks that are in use.  Any thread. */
#include "live.h"

void live_start(struct live *live, const struct qc2_index *idx,
		struct object *const *objects)
{
	*live = (struct live){ .idx = idx, .objects = objects, .object = UINT32_MAX };
}

/* The blocks that an extent leads to; what is behind the end of its object reads as zeros. */
static void blocks_of(const struct object *obj, const struct qc2_extent *ext, uint64_t *first,
		      uint64_t *end)
{
	uint64_t unit = object_cluster_blocks(obj);
	uint64_t last = ext->offset + ext->nr_sectors * 512ULL - 1;

	*first = ext->offset / QC2_BLOCK_BYTES / unit * unit;
	*end = (last / QC2_BLOCK_BYTES / unit + 1) * unit;
	if (*end > object_nr_blocks(obj))
		*end = object_nr_blocks(obj);
}

bool live_next(struct live *live, struct live_run *run)
{
	const struct qc2_index *idx = live->idx;
	uint64_t first, end, limit = 0;
	bool found = false;

	for (; live->pos < idx->nr_by_object; live->pos++) {
		const struct qc2_extent *ext = &idx->extents[idx->by_object[live->pos]];

		if (ext->object != live->object) {
			if (found)
				break;
			live->object = ext->object;
			live->next = 0;
		}
		blocks_of(live->objects[ext->object], ext, &first, &end);
		if (first < live->next)
			first = live->next;
		if (first >= end)
			continue;
		if (!found) {
			*run = (struct live_run){ ext->object, first, first };
			limit = first - first % LIVE_MAX_RUN + LIVE_MAX_RUN;
			found = true;
		}
		if (first > run->end)
			break;
		run->end = end < limit ? end : limit;
		live->next = run->end;
		if (end > limit)
			break;
	}
	return found;
}
