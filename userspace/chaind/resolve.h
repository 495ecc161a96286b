/* SPDX-License-Identifier: GPL-2.0 */
/*
 * From sectors of a disk to places: the index says which object holds them,
 * the cache where that is on the cache device.
 *
 * Main thread only, because of the cache's table.
 */
#ifndef CHAIND_RESOLVE_H
#define CHAIND_RESOLVE_H

#include <stdbool.h>
#include <stdint.h>

#include "cache.h"
#include "chain.h"
#include "object.h"

enum piece_kind {
	PIECE_ZERO,
	PIECE_CACHED,
	PIECE_MISSING,		/* has to be fetched */
};

/* Some sectors of a disk that lie in one block of one object, or are zeros. */
struct piece {
	enum piece_kind kind;
	uint64_t sector;
	uint64_t nr_sectors;
	uint32_t object;	/* not for PIECE_ZERO; number in the chain */
	uint64_t offset;	/* in it, bytes; likewise */
	uint32_t slot;		/* PIECE_CACHED: see cache_lookup() */
	uint32_t store;		/* likewise, and ... */
	uint64_t store_sector;	/* ... where on it */
};

struct resolve {
	struct cache *cache;
	const struct qc2_index *idx;
	struct object *const *objects;	/* of the chain */
	uint64_t pos, end;		/* sectors still to be looked at */
	size_t ext;			/* extent that ends after pos */
	bool has_bypass;		/* places there may be told; set by the caller */
};

/* Starts at @sector; @nr_sectors must lie within what the index knows. */
void resolve_start(struct resolve *res, struct cache *cache,
		   const struct qc2_index *idx,
		   struct object *const *objects, uint64_t sector,
		   uint64_t nr_sectors);

/* The next piece, in ascending order; false at the end. */
bool resolve_next(struct resolve *res, struct piece *piece);

/**
 * resolve_runs() - what can be said now about the sectors of @res
 * @runs: room for @max runs; neighbours are joined, pieces that are missing or marked
 *	in the cache left out
 * @complete: false if there was no room for all; may be NULL
 *
 * Return: number of runs.
 */
unsigned int resolve_runs(struct resolve *res, struct qc2_run *runs,
			  unsigned int max, bool *complete);

#endif
