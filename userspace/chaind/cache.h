/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The cache of the host: a block device (a file is attached to a loop device) cut into
 * slots of one block each, and the index of what is in them.  The daemon writes it, the
 * kernel reads it: it is store 0 of every disk.
 *
 * A block is found by its name, (object, number), or by the digest of its content; equal
 * blocks are stored once, and zeros not at all.
 *
 * The rules that keep a read from ever seeing other data than it asked for:
 *
 * - A block can be found after its write has completed, and only what can be found is
 *   named in replies.  The index has it when it is durable, too.
 * - Replies are made and sent in one go in the main thread, which also changes what can
 *   be found, and the kernel has processed a reply when sending returns.  So a reply that
 *   names a slot is sent before the slot cannot be found any more, and what it put into a
 *   map goes when kernels are made to forget the slot after that.
 * - A slot is used again after kernels have forgotten it, which includes the end of the
 *   reads in flight, and the index does not have it any more.
 * - At start kernels forget all of it before the first write, because an earlier daemon
 *   left maps behind.
 * - After a loss of power, or another end without order, a block is compared with its
 *   digest before its first use.
 *
 * What cannot be written goes to the bypass, see there: its slots are numbers from
 * CACHE_BYPASS on.  Zeros are QC2_SLOT_ZERO.
 *
 * cache.c has the table and the writes, cache_commit.c the index and eviction,
 * cache_probe.c looks for blocks in the index and compares them.  Main thread only; the
 * jobs touch what they own, the device, the index and a netlink socket of their own.
 */
#ifndef CHAIND_CACHE_H
#define CHAIND_CACHE_H

#include <stdbool.h>
#include <stdint.h>

#include <systemd/sd-event.h>

#include "cache_index.h"
#include "cache_space.h"
#include "err.h"
#include "object.h"
#include "pool.h"

#define CACHE_MIN_SIZE		(64ULL << 20)
#define CACHE_NO_SLOT		QC2_SLOT_NONE
#define CACHE_BYPASS		(1U << 31)

struct cache;

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
	enum space_class class;
	const bool *mark;
	bool has_expected;
	uint8_t expected[QC2_DIGEST_LEN], digest[QC2_DIGEST_LEN];
	bool zero;			/* it is all zeros */
	bool alone;			/* do not look for its content elsewhere */
	uint32_t same;			/* slot with the same content, if any ... */
	uint32_t clock;			/* ... at that time */
	uint64_t since_us;
	bool handed_over;		/* to the bypass, as the device hangs */
	int ret;
	void (*done)(void *arg, int ret);
	void *arg;
	TAILQ_ENTRY(cache_buf) entry;
};

struct cache_config {
	const char *path;		/* a file, made sparse if missing, or a block device */
	const char *index_path;
	const char *bypass_path;
	uint64_t size;			/* bytes; of a block device, what is used at most */
	uint64_t scrub_rate;		/* bytes/s; 0: no scrubbing */
	unsigned int nr_bufs;
	bool may_be_absent;		/* disks run already */
	/* Whether disks that run can use that device as the cache; NULL: there are none. */
	int (*check)(void *arg, dev_t dev, struct qc2_err *err);
	void *arg;
};

struct cache_stats {
	const char *path;
	const char *device;		/* "": absent */
	const char *bypass_device;
	uint32_t slots;
	uint32_t used;
	uint32_t unverified;
	uint32_t bad_slots;
	uint32_t pinned;		/* of those used */
	bool pins_full;			/* more is pinned than half of the slots: not that */
	uint64_t names, zeros;		/* blocks of objects that are here; those that are zeros */
	uint64_t hits;
	uint64_t evictions;
	uint64_t errors;
	uint64_t damaged;		/* blocks that were found to have another content */
	uint64_t scrubbed;		/* blocks compared so far */
	uint64_t memory;		/* bytes, of tables */
	uint64_t bypass_writes;
	unsigned int bypass_used;
	const char *trouble;		/* of device or index; NULL: none */
	const char *index_trouble;	/* NULL: none */
	bool unchecked;			/* a check of the index is under way, or was not possible */
	uint32_t losses;		/* so often all was lost with the index */
};

/**
 * cache_open() - the cache of the host
 *
 * If its device cannot be opened or read, and @cfg allows that, it is absent: everything
 * goes to the bypass, and the device is looked for again and again.
 *
 * Return: 0 or a negative errno with @err filled.
 */
int cache_open(struct cache **cache, sd_event *event, const struct cache_config *cfg,
	       struct qc2_err *err);

/* For the end of the program: waits for the jobs that run, writes the index, frees all. */
void cache_close(struct cache *cache);

/**
 * cache_disown() - a manifest was wrong: names that it gave blocks of an object count no more
 *
 * Neither does any other name of it.  The caller sees to the maps of kernels.
 */
void cache_disown(struct cache *cache, struct object *obj);

/**
 * cache_resize() - use more or less of the device, or a longer file
 * @size: bytes
 *
 * What is behind the new end is evicted in the background.  Until the next start.
 */
int cache_resize(struct cache *cache, uint64_t size, struct qc2_err *err);

/**
 * cache_pin() - blocks of some objects are not evicted any more, or are again
 * @objs: @nr, more than 0; NULL: none
 * @done: called from the event loop when it is so, durably (0); or when it will not be
 *	(-ECANCELED): the index was lost meanwhile, or this is the end of the program
 *
 * That is for what the cache has of them and for what comes.  At most half of the slots are
 * pinned; further blocks are evicted as others are.  Pins are in the index and go with it.
 */
int cache_pin(struct cache *cache, struct object *const *objs, unsigned int nr, bool pinned,
	      void (*done)(void *arg, int ret), void *arg, struct qc2_err *err);
/* No object is pinned any more, also those that nothing refers to; likewise. */
int cache_unpin_all(struct cache *cache, void (*done)(void *arg, int ret), void *arg,
		    struct qc2_err *err);
bool cache_is_pinned(const struct cache *cache, const struct object *obj);

/* -EAGAIN with @err filled if it is absent. */
int cache_check_present(const struct cache *cache, struct qc2_err *err);

/* major:minor of the device, 0 if it is absent, and of the bypass. */
dev_t cache_dev(const struct cache *cache);
dev_t cache_bypass_dev(const struct cache *cache);
void cache_get_stats(const struct cache *cache, struct cache_stats *stats);

/* The slot that holds a block, as far as is known without asking the index. */
uint32_t cache_lookup(struct cache *cache, const struct object *obj, uint32_t block);

/**
 * cache_probe() - look for blocks in the index
 * @blocks: @nr blocks of an object, numbers ascending by one; the array stays until
 * @done: called from the event loop; cache_lookup() finds now what is here
 *
 * By name, and by content where a digest is known.  What has to be compared with its
 * digest is.
 *
 * Return: false if it is known that none is here; @done is not called.
 */
bool cache_probe(struct cache *cache, struct block **blocks, unsigned int nr,
		 void (*done)(void *arg), void *arg);

/*
 * A mark on a cached block: it was fetched ahead, and kernels are not told of it before
 * a request asks; so that is noticed.
 */
bool cache_is_marked(const struct cache *cache, uint32_t slot);
void cache_set_mark(struct cache *cache, uint32_t slot);
void cache_clear_mark(struct cache *cache, uint32_t slot);
/* Kernels are not told: it is marked, or cold. */
bool cache_is_hidden(const struct cache *cache, uint32_t slot);

/* A request asks for a block that is here; @first: for the first time. */
void cache_ask(struct cache *cache, uint32_t slot, bool first);

/* A kernel could not read it: it is not used any more. */
void cache_bad_slot(struct cache *cache, uint32_t slot);

/* Takes @nr buffers, all or none. */
bool cache_take_bufs(struct cache *cache, unsigned int nr,
		     struct cache_buf **bufs);
void cache_put_buf(struct cache_buf *buf);
/* How many are free, and how many there are. */
unsigned int cache_bufs(const struct cache *cache, unsigned int *total);

/**
 * cache_write() - put a block into the cache
 * @buf: filled; is put back when the block can be found
 * @span: of the fetch, may be NULL; ended with cache_end_span()
 * @span_want: how many blocks the fetch still brings, this one included
 * @class: whether a read waits for it
 * @mark: see cache_is_marked(); looked at when the block can be found
 * @digest: that it must have; NULL: any
 * @done: called, from the event loop, when the block can be found (0), or has another
 *	digest (-EBADMSG) and is not
 */
void cache_write(struct cache_buf *buf, struct object *obj, uint32_t block,
		 struct cache_span *span, unsigned int span_want, enum space_class class,
		 const bool *mark, const uint8_t *digest,
		 void (*done)(void *arg, int ret), void *arg);
void cache_end_span(struct cache *cache, struct cache_span *span);

/* What can be found now is durable when cache_is_durable(cache, that) says so. */
uint64_t cache_sync(struct cache *cache);
bool cache_is_durable(const struct cache *cache, uint64_t sync);

#endif
