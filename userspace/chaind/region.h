/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The regional cache: a bucket that the hosts of a region share.  Blocks of far stores are
 * looked for there before they are fetched, one GET each; those that are not there are
 * stored in the background when the fetch has brought them, see region_store.h.
 *
 * What comes from the bucket is believed only if it has the digest that a manifest names,
 * or a tag that the hosts' key makes; anything else is a miss.  Nothing is looked for, and
 * nothing stored, of stores that lie in the region; of files; of stores with credentials,
 * unless the configuration says that the bucket may have such data; of blocks that could
 * not be verified.
 *
 * The bucket is never waited for: a look-up that takes longer than the block's own store
 * usually does is given up, and after three failures or such look-ups in a row nothing is
 * looked up until a GET of its own, repeated after growing pauses, is answered in time.
 *
 * Look-ups for reads that wait go first, with a quarter of the bucket's connections and
 * some buffers kept for them, as with fetches.
 *
 * Main thread only, but for check_run() and the data of files.
 */
#ifndef CHAIND_REGION_H
#define CHAIND_REGION_H

#include <systemd/sd-event.h>

#include "cache.h"
#include "config.h"
#include "fetch.h"
#include "object.h"
#include "region_store.h"
#include "store.h"

struct region;

struct region_stats {
	const char *url;
	uint64_t hits, misses;
	uint64_t bad;			/* damaged, or not what they should be */
	uint64_t slow;			/* given up */
	uint64_t errors;
	uint64_t bytes;
	const struct qc2_err *trouble;	/* nothing is looked up because of it; or empty */
	uint64_t trouble_s;
	struct region_store_stats store;
};

/**
 * region_new() - set up
 * @cfg: with a regional cache; must stay, as @store
 * @block_done: as of fetcher_new(), and @fetcher's
 *
 * Return: 0 or a negative errno with @err filled.
 */
int region_new(struct region **region, sd_event *event, struct cache *cache,
	       struct fetcher *fetcher, const struct qc2_config *cfg,
	       const struct qc2_store_config *store,
	       void (*block_done)(struct block *block, int ret), struct qc2_err *err);

/* For the end of the program: stops the threads.  Before the cache is closed. */
void region_stop(struct region *region);	/* NULL is fine */

/* Whether blocks of an object are looked for now. */
bool region_wants(struct region *region, struct object *obj);

/**
 * region_fetch() - bring blocks in a row, from the regional cache if they are there
 *
 * Takes what fetch_start() does, and calls that for what is not found.
 *
 * Calls nothing back before it returns.  Return: 0 or -ENOMEM.
 */
int region_fetch(struct region *region, enum fetch_class class, struct block **blocks,
		 unsigned int nr, struct fetch_stats *stats);

/* A request has begun to wait for a block on its way; for others than look-ups it does nothing. */
void region_want(struct block *block);

void region_get_stats(const struct region *region, struct region_stats *stats);

#endif
