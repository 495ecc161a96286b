/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Filling the cache with all live data of a disk's chain, without a read that asks for it.
 *
 * It waits until the chain is complete and its digests are there, if it has any; so equal
 * content under another name is found.  Then blocks are brought object by object, as
 * fetches ahead and few at a time, so that what reads wait for goes first.  While a store
 * does not answer it is asked for one run of blocks now and then.  The first error that
 * does not pass ends it.
 *
 * Main thread only.
 */
#ifndef CHAIND_FILL_H
#define CHAIND_FILL_H

#include <stdbool.h>
#include <stdint.h>

#include "err.h"

struct disk;
struct fill;

enum fill_state {
	FILL_OPENING,		/* the chain is not complete */
	FILL_COUNTING,
	FILL_BRINGING,
	FILL_ENDED,
};

/* Blocks, but for @requests and @bytes. */
struct fill_stats {
	uint64_t live;		/* all that there are; 0 before they were counted */
	uint64_t local;		/* that were in the cache under their own names, */
	uint64_t same;		/* in the cache under another name, */
	uint64_t zero;		/* nothing but zeros by their digests, */
	uint64_t fetched;	/* not here */
	uint64_t requests;	/* that were made for them ... */
	uint64_t bytes;		/* ... and what came */
	uint64_t bypassed;	/* of all that are here: in the bypass, not in the cache */
};

/**
 * fill_new() - begin
 * @disk: that no fill is of yet
 * @force: even if the cache is too small for all of it
 * @done: called once from the event loop: 0 or a negative errno with a text
 *
 * Return: NULL for lack of memory.
 */
struct fill *fill_new(struct disk *disk, bool force,
		      void (*done)(void *arg, int ret, const struct qc2_err *err), void *arg);

/* Ends it; fetches that are under way, no more than fit into some buffers, go on. */
void fill_free(struct fill *fill);

/* The disk; NULL if that is gone. */
struct disk *fill_disk(const struct fill *fill);
enum fill_state fill_get_state(const struct fill *fill);
void fill_get_stats(const struct fill *fill, struct fill_stats *stats);
/* Whether it waits for a store that failed. */
bool fill_rests(const struct fill *fill);

/* From the disk: its chain is another one, or is complete, or failed.  NULL is fine. */
void fill_look(struct fill *fill);
/* From the disk: it goes, because of disk->failed if that is set. */
void fill_disk_gone(struct fill *fill);

#endif
