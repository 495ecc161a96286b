/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The blocks that a disk's content is in, in the order in which they lie in objects.
 * Nothing but counting; no state beside struct live.
 */
#ifndef CHAIND_LIVE_H
#define CHAIND_LIVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "index.h"
#include "object.h"

/* A run lies within so many blocks at a multiple of that; a compressed cluster does. */
#define LIVE_MAX_RUN	32U

/* Blocks [first, end) of an object. */
struct live_run {
	uint32_t object;
	uint32_t first, end;
};

struct live {
	const struct qc2_index *idx;
	struct object *const *objects;
	size_t pos;		/* in idx->by_object */
	uint32_t object;	/* of the last run ... */
	uint64_t next;		/* ... and the block behind it */
};

/* @idx and @objects, those of its chain, stay while it goes on. */
void live_start(struct live *live, const struct qc2_index *idx,
		struct object *const *objects);

/**
 * live_next() - the next blocks in a row with content in them
 *
 * No block comes twice.  Of compressed clusters all blocks count, because they are
 * fetched as a whole.
 *
 * Return: false at the end.
 */
bool live_next(struct live *live, struct live_run *run);

#endif
