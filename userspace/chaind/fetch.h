/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Fetching blocks of objects into the cache.  A fetch is one ranged GET of
 * some blocks in a row; each block goes on to the cache as soon as its last
 * byte is there, so the first does not wait for the others.
 *
 * What a read waits for goes before what is fetched ahead: each origin has a queue
 * for either, and a quarter of the connections, of all and of each origin, and some
 * buffers are never given to the latter.  Blocks on the way ahead that a read comes to
 * want go over to the other queue.
 *
 * Errors that may pass are retried, with growing random pauses, for as long as
 * a request waits for one of the blocks.  Others end the fetch, and its
 * blocks' requests with it.  A GET that a read waits for and that shows nothing for
 * longer than nearly all others gets a second one beside it (a hedge); who brings a
 * block first wins.
 *
 * One origin may take three quarters of all connections and of the buffers, and few
 * when it does not answer, so that a store that hangs leaves room for the others.  A transfer
 * starts only when there are buffers for all its blocks: a slow cache holds
 * the fetches back.
 *
 * Main thread only, but for file_data() and unpack_job().
 */
#ifndef CHAIND_FETCH_H
#define CHAIND_FETCH_H

#include <systemd/sd-event.h>

#include "cache.h"
#include "err.h"
#include "object.h"
#include "store.h"

/* Most blocks of one fetch, whatever the configuration says. */
#define FETCH_MAX_BLOCKS	256

struct fetcher;

/* What fetches cost; outlives its owner for as long as one is under way. */
struct fetch_stats {
	unsigned int refs;
	uint64_t requests;
	uint64_t bytes;
	uint64_t local;			/* blocks that were looked for and found here */
	uint64_t errors;
	struct qc2_err last_error;	/* that failed a read; or empty */
};

struct fetch_stats *fetch_stats_new(void);
void fetch_stats_put(struct fetch_stats *stats);

/**
 * fetcher_new() - set up
 * @block_done: called when a block is in the cache (0) or will not come (negative
 *	errno; -ESTALE: the object is another one now, -EBADMSG: not what its digest
 *	says); gets the ownership of the block back
 */
int fetcher_new(struct fetcher **fetcher, sd_event *event,
		struct cache *cache, const struct qc2_store_config *store,
		unsigned int connections,
		void (*block_done)(struct block *block, int ret));

/*
 * Who is shown the bytes of each block whose @share is set, before they are verified and
 * written into the cache.
 */
void fetcher_share(struct fetcher *fetcher,
		   void (*share)(void *arg, const struct block *block, const void *data),
		   void *arg);

/* For the end of the program: stops the threads. */
void fetcher_stop(struct fetcher *fetcher);

/**
 * fetch_start() - fetch blocks in a row
 * @blocks: @nr blocks made with block_new(), numbers ascending by one; the
 *	fetcher owns them until block_done() is called for each
 * @nr: 1 to FETCH_MAX_BLOCKS
 * @stats: where the cost is counted
 *
 * Calls nothing back before it returns.  Return: 0 or -ENOMEM.
 */
int fetch_start(struct fetcher *fetcher, enum fetch_class class, struct block **blocks,
		unsigned int nr, struct fetch_stats *stats);

/* A request has begun to wait for a block on its way. */
void fetch_want(struct block *block);

/* Others than fetches gave a connection or a buffer back. */
void fetch_wake(struct fetcher *fetcher);

/* Blocks that reads wait for, of an origin. */
unsigned int fetch_waiting(const struct origin *o);

#endif
