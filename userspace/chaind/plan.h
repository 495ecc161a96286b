/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Planning: which blocks are fetched for a read, and which ahead of reads.
 *
 * A read's own blocks are asked for alone, so that nothing delays them.  Beside that,
 * ahead and with less right to connections:
 *
 * - the extension: what lies behind them in the object, as far as it is live data.  How
 *   much depends on the store's latency and bandwidth, and on how often extensions were
 *   of use to this disk: random reads soon have none.  Where other reads of the same part
 *   of the object missed lately it is more, and has what lies before them, too.
 * - streams: where reads follow each other on the disk, what comes next there, in
 *   whichever objects it is; more each time, until it keeps the connections full.
 *
 * Reads of what the kernel was told of are not seen here.  So one block in the middle of
 * each extension and of each window of a stream is marked: kernels are not told of it
 * until a read asks.
 *
 * Main thread only.
 */
#ifndef CHAIND_PLAN_H
#define CHAIND_PLAN_H

#include <stdbool.h>
#include <stdint.h>

#include "resolve.h"

struct block;
struct disk;
struct fetch_stats;

#define PLAN_STREAMS	8
#define PLAN_SPOTS	64

/* Reads that follow each other. */
struct stream {
	uint64_t pos;			/* sector behind the last one */
	uint64_t to;			/* planned up to that sector */
	uint64_t window;		/* bytes of the next window */
	uint64_t used;			/* when, by plan.clock */
	unsigned int hits;
};

/* A part of an object, as large as the greatest extension, where reads missed. */
struct spot {
	uint32_t object, nr;
	unsigned int misses;
	uint64_t used;			/* when, by plan.misses; 0: never */
};

/* Of a disk; zero to begin with, but for plan_init(). */
struct plan {
	struct stream streams[PLAN_STREAMS];
	struct spot spots[PLAN_SPOTS];
	uint64_t misses;
	uint64_t clock;
	unsigned int useful;		/* how many extensions are, of 256 */
	unsigned int without;		/* reads for which none seemed worth it */
};

void plan_init(struct plan *plan);

/* Fetches the missing block in which a piece lies.  NULL for lack of memory. */
struct block *plan_demand(struct disk *disk, const struct piece *piece);

/*
 * Fetches what is missing of blocks [@first, @end) of an object, ahead, though no read
 * suggests it.  What cannot be for lack of memory is missing still.
 */
void plan_bring(struct disk *disk, struct fetch_stats *stats, uint32_t object,
		uint32_t first, uint32_t end);

/* A read has come to a marked block. */
void plan_was_useful(struct plan *plan);

/**
 * plan_ahead() - a new request
 * @idx: of the disk
 * @to: sector up to which @idx knows
 * @sector: first of the request
 * @nr_sectors: its length
 * @missing: the last piece of it that had to be fetched; NULL: nothing had to
 * @was_marked: a block of it was
 */
void plan_ahead(struct disk *disk, const struct qc2_index *idx, uint64_t to,
		uint64_t sector, uint64_t nr_sectors, const struct piece *missing,
		bool was_marked);

/* Up to which sector kernels are told what is known, if a read at @sector goes on with others. */
uint64_t plan_told_to(const struct plan *plan, uint64_t sector);

/* Whether a block has another digest than the disk's manifest says, or none. */
bool plan_has_own_digest(const struct disk *disk, uint32_t object,
			 const struct block *block);

#endif
