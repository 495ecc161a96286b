/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The cache of the host: a block device (a file is attached to a loop device)
 * cut into slots of one block each, and the table of what is in them.  The
 * daemon writes it, the kernel reads it: it is store 0 of every disk.
 *
 * The rules that keep a read from ever seeing other data than it asked for:
 *
 * - A block enters the table after its write has completed, and only what is
 *   in the table is named in replies.
 * - Slots are used in a ring.  Before some are used again they are taken out
 *   of the table; then every qcow2chain device of this kernel is told to
 *   forget them, which returns after the reads in flight; only then are they
 *   written.  Replies are made and sent in one go in the main thread, which
 *   also changes the table, and the kernel has processed a reply when sending
 *   returns.  So a reply that names a slot is always sent before the slot is
 *   taken out, and what it put into a map is gone before the slot is written.
 * - At start the ring counts as full of blocks that nobody knows: all of it is
 *   forgotten by the kernel before the first write, because an earlier daemon
 *   left maps behind.
 *
 * Main thread only; the jobs touch nothing but the buffer, the device and the
 * netlink socket of their own.
 */
#ifndef CHAIND_CACHE_H
#define CHAIND_CACHE_H

#include <stdbool.h>
#include <stdint.h>

#include <systemd/sd-event.h>

#include "err.h"
#include "object.h"
#include "pool.h"

#define CACHE_MIN_SIZE		(64ULL << 20)
#define CACHE_NO_SLOT		UINT32_MAX

struct cache;

/*
 * Slots next to each other for the blocks of one fetch, so that they make one
 * run.  A wish, not a claim: the ring may overtake them.  Zero to begin with.
 */
struct cache_span {
	uint64_t pos, end;
};

/**
 * struct cache_buf - memory for one block on its way into the cache
 * @mem: QC2_BLOCK_BYTES, aligned for direct I/O
 *
 * The rest is private.
 */
struct cache_buf {
	void *mem;

	struct job job;
	struct cache *cache;
	struct object *obj;
	uint32_t block;
	uint32_t slot;
	unsigned int tries;
	const bool *mark;
	const uint8_t *digest;
	int ret;
	void (*done)(void *arg, int ret);
	void *arg;
	STAILQ_ENTRY(cache_buf) entry;
};

struct cache_stats {
	const char *path;
	const char *device;
	uint32_t slots;
	uint32_t used;
	uint64_t hits;
	uint64_t evictions;
	uint64_t errors;
};

/**
 * cache_open() - open or create the cache and start to empty it
 * @path: a file, made sparse if missing, or a block device
 * @size: bytes; of a block device, what is used at most
 * @nr_bufs: buffers to allocate
 *
 * Return: 0 or a negative errno with @err filled.
 */
int cache_open(struct cache **cache, sd_event *event, const char *path,
	       uint64_t size, unsigned int nr_bufs, struct qc2_err *err);

/* For the end of the program: waits for the jobs that run, frees all. */
void cache_close(struct cache *cache);

/* major:minor of the device */
dev_t cache_dev(const struct cache *cache);
void cache_get_stats(const struct cache *cache, struct cache_stats *stats);

/* The slot that holds a block, or CACHE_NO_SLOT. */
uint32_t cache_lookup(struct cache *cache, const struct object *obj,
		      uint32_t block);

/*
 * A mark on a cached block: it was fetched ahead, and kernels are not told of it before
 * a request asks; so that is noticed.
 */
bool cache_is_marked(const struct cache *cache, uint32_t slot);
void cache_clear_mark(struct cache *cache, uint32_t slot);

/* Counts a block that a request found in the cache. */
void cache_count_hit(struct cache *cache);

/* Takes @nr buffers, all or none. */
bool cache_take_bufs(struct cache *cache, unsigned int nr,
		     struct cache_buf **bufs);
void cache_put_buf(struct cache_buf *buf);
/* How many are free, and how many there are. */
unsigned int cache_bufs(const struct cache *cache, unsigned int *total);

/**
 * cache_write() - put a block into the cache
 * @buf: filled; is put back when the block is in the table
 * @span: of the fetch, may be NULL
 * @span_want: how many blocks the fetch still brings, this one included
 * @mark: see cache_is_marked(); looked at when the block enters the table
 * @digest: that it must have; NULL: any.  Stays until @done
 * @done: called, from the event loop, when the block is in the table (0), or has
 *	another digest (-EBADMSG) and is not.  A failing device is retried until it
 *	works.
 */
void cache_write(struct cache_buf *buf, struct object *obj, uint32_t block,
		 struct cache_span *span, unsigned int span_want,
		 const bool *mark, const uint8_t *digest,
		 void (*done)(void *arg, int ret), void *arg);

#endif
