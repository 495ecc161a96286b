/* SPDX-License-Identifier: GPL-2.0 */
/* Looking sectors up in index and cache.  Main thread only; no state. */
#include "bypass.h"
#include "resolve.h"

void resolve_start(struct resolve *res, struct cache *cache,
		   const struct qc2_index *idx,
		   struct object *const *objects, uint64_t sector,
		   uint64_t nr_sectors)
{
	res->cache = cache;
	res->idx = idx;
	res->objects = objects;
	res->pos = sector;
	res->end = sector + nr_sectors;
	res->has_bypass = false;
	res->ext = qc2_index_find(idx, sector);
}

/* Zeros up to @end, which may lie behind the end of the search. */
static void zero_piece(struct resolve *res, struct piece *piece, uint64_t end)
{
	piece->kind = PIECE_ZERO;
	piece->nr_sectors = (end < res->end ? end : res->end) - piece->sector;
}

static void data_piece(struct resolve *res, struct piece *piece,
		       const struct qc2_extent *ext)
{
	const struct object *obj = res->objects[ext->object];
	uint64_t ext_end = ext->sector + ext->nr_sectors;
	uint64_t left, in_block;
	uint32_t slot;

	piece->object = ext->object;
	piece->offset = ext->offset + (piece->sector - ext->sector) * 512;
	if (piece->offset >= obj->size) {	/* past the end of the object */
		zero_piece(res, piece, ext_end);
		return;
	}
	left = (ext_end < res->end ? ext_end : res->end) - piece->sector;
	in_block = (QC2_BLOCK_BYTES - piece->offset % QC2_BLOCK_BYTES) / 512;
	/* A cached block is zeros past the end of its object. */
	if (left > in_block)
		left = in_block;
	piece->nr_sectors = left;

	slot = cache_lookup(res->cache, obj, piece->offset / QC2_BLOCK_BYTES);
	if (slot == CACHE_NO_SLOT) {
		piece->kind = PIECE_MISSING;
		return;
	}
	if (slot == QC2_SLOT_ZERO) {
		piece->kind = PIECE_ZERO;
		return;
	}
	piece->kind = PIECE_CACHED;
	piece->slot = slot;
	piece->store = slot < CACHE_BYPASS ? CACHE_STORE : BYPASS_STORE;
	piece->store_sector = (uint64_t)(slot % CACHE_BYPASS) * QC2_BLOCK_SECTORS +
			      piece->offset % QC2_BLOCK_BYTES / 512;
}

bool resolve_next(struct resolve *res, struct piece *piece)
{
	const struct qc2_index *idx = res->idx;
	const struct qc2_extent *ext;

	if (res->pos >= res->end)
		return false;
	while (res->ext < idx->nr_extents &&
	       idx->extents[res->ext].sector +
	       idx->extents[res->ext].nr_sectors <= res->pos)
		res->ext++;
	ext = res->ext < idx->nr_extents ? &idx->extents[res->ext] : NULL;

	*piece = (struct piece){ .sector = res->pos };
	if (!ext)
		zero_piece(res, piece, res->end);
	else if (ext->sector > res->pos)
		zero_piece(res, piece, ext->sector);
	else
		data_piece(res, piece, ext);
	res->pos += piece->nr_sectors;
	return true;
}

static bool joins(const struct qc2_run *run, const struct qc2_run *next)
{
	return run->store == next->store &&
	       run->sector + run->nr_sectors == next->sector &&
	       (run->store == QC2_STORE_ZERO ||
		run->store_sector + run->nr_sectors == next->store_sector);
}

unsigned int resolve_runs(struct resolve *res, struct qc2_run *runs,
			  unsigned int max, bool *complete)
{
	unsigned int nr = 0;
	struct piece piece;

	if (complete)
		*complete = true;
	while (resolve_next(res, &piece)) {
		struct qc2_run run = {
			.sector = piece.sector,
			.nr_sectors = piece.nr_sectors,
			.store = piece.kind == PIECE_ZERO ? QC2_STORE_ZERO : piece.store,
			.store_sector = piece.store_sector,
		};

		if (piece.kind == PIECE_MISSING ||
		    (piece.kind == PIECE_CACHED && piece.store == BYPASS_STORE &&
		     !res->has_bypass) ||
		    (piece.kind == PIECE_CACHED && cache_is_hidden(res->cache, piece.slot)))
			continue;
		if (nr && joins(&runs[nr - 1], &run)) {
			runs[nr - 1].nr_sectors += run.nr_sectors;
			continue;
		}
		if (nr == max) {
			if (complete)
				*complete = false;
			break;
		}
		runs[nr++] = run;
	}
	return nr;
}
