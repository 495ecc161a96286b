/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Objects: the links that disks read from, one for each content, so disks that
 * share a link share its cached blocks and its fetches.  An object lives as
 * long as a disk, a fetch or a change of the cache's index refers to it.
 *
 * The compressed clusters of an image are an object of their own: its bytes
 * are those of the image's virtual disk, unpacked.  Where they are may be known from
 * a manifest, which can be wrong; so who has another list of them has another object.
 *
 * A block is QC2_BLOCK_BYTES of an object, at a multiple of that.  A struct
 * block exists while a block is on its way into the cache; there is one at
 * most for each block, whoever waits for it.
 *
 * Main thread only.
 */
#ifndef CHAIND_OBJECT_H
#define CHAIND_OBJECT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include <linux/dm-qcow2chain.h>

#include "cache_names.h"
#include "err.h"
#include "log.h"
#include "manifest.h"
#include "origin.h"
#include "packed.h"

#define QC2_BLOCK_BYTES		(QC2_BLOCK_SECTORS * 512U)

struct block;
struct fetch;
struct fetcher;
struct find;
struct request;

/* A request that waits for a block. */
struct waiter {
	struct request *req;
	struct block *block;
	bool own_digest;	/* the block has the digest that the request's disk wants */
	LIST_ENTRY(waiter) by_block, by_request;
};
LIST_HEAD(waiters, waiter);

/* Who else wants to know what becomes of a block; it is no more urgent for that. */
struct watcher {
	void (*done)(struct watcher *watcher, struct block *block, int ret);
	LIST_ENTRY(watcher) entry;
};
LIST_HEAD(watchers, watcher);

/* How a block that was missing came; whoever brings it says so before block_done(). */
enum block_came {
	CAME_FETCHED,		/* from a store */
	CAME_BY_NAME,		/* it was in the cache, if not known in memory */
	CAME_SAME,		/* its content was, under another name */
	CAME_ZERO,		/* it is all zeros, as its digest says */
};

struct block {
	uint32_t nr;		/* key in object->blocks; first for comparing */
	struct object *obj;
	struct fetcher *fetcher;	/* that brings it */
	struct fetch *fetch;		/* the same, until the cache has it */
	bool marked;			/* see cache_is_marked() */
	struct find *find;		/* in the regional cache, until it is known */
	bool share;			/* it is to be stored there when it comes */
	bool dead;			/* no live data: it fills a gap between blocks that have */
	bool has_digest;
	bool vouched;			/* what has that digest may be taken for it */
	uint8_t digest[QC2_DIGEST_LEN];	/* that its bytes must have */
	enum block_came came;
	struct waiters waiters;
	struct watchers watchers;
};

/*
 * Where the bytes of an object are: first its URL, then the replicas that the stores
 * file names.  A replica is used once it was found to be the same, see replica.h.
 */
struct place {
	char *url;
	char *version;			/* set once; NULL: not known, so not used */
	struct origin *origin;
	bool lost;			/* it is another object now */
	uint64_t not_before_us;		/* it was refused */
};

#define OBJECT_MAX_PLACES	8

struct object {
	uint8_t key[32];	/* SHA-256 of what object_get() was given; first */
	char *url;
	uint64_t size;		/* bytes */
	char *version;
	struct place places[OBJECT_MAX_PLACES];
	unsigned int nr_places;
	bool has_replicas;	/* they were looked for */
	/* Of an unpacked object; else NULL and @size. */
	struct qc2_packed *packed;
	uint64_t file_size;
	struct cache_names names;	/* where its blocks are in the cache */
	unsigned int refs;
	void *blocks;		/* tree of struct block (tsearch) */

	/* A final error is not tried again before this. */
	uint64_t failed_until_us;
	int failed;			/* which one, a negative errno */
	struct log_limit log_limit;
};

/*
 * The object of that URL, size and version, with a reference for the caller;
 * NULL for lack of memory or if it has more blocks than can be counted.
 */
struct object *object_get(const char *url, uint64_t size, const char *version);
/*
 * The same for the compressed clusters of the image in it.
 * @snapshot: internal snapshot that they are of, or NULL
 * @packed: the clusters; a reference is taken
 * @virtual_size: of the image, bytes
 */
struct object *object_get_unpacked(const char *url, uint64_t size,
				   const char *version, const char *snapshot,
				   struct qc2_packed *packed,
				   uint64_t virtual_size);
struct object *object_ref(struct object *obj);

/* One more place, without a version.  Return: 0; -E2BIG or -ENOMEM. */
int object_add_place(struct object *obj, const char *url);
void object_put(struct object *obj);

static inline uint64_t object_nr_blocks(const struct object *obj)
{
	return obj->size / QC2_BLOCK_BYTES + !!(obj->size % QC2_BLOCK_BYTES);
}

/*
 * Blocks of a compressed cluster of an object, which is unpacked as a whole; 1: they are
 * independent.
 */
static inline uint32_t object_cluster_blocks(const struct object *obj)
{
	unsigned int bits = obj->packed ? obj->packed->cluster_bits : 0;

	return 1ULL << bits <= QC2_BLOCK_BYTES ? 1 : (1U << bits) / QC2_BLOCK_BYTES;
}

/**
 * object_place() - where to read from: the fastest place that is not in trouble
 * @avoid: not there, if there is another one that is not in trouble; or NULL
 */
struct place *object_place(struct object *obj, struct place *avoid);

/*
 * A place gave an error that does not pass: it is left alone for a while, or for good
 * after -ESTALE.
 */
void object_place_failed(struct place *place, int ret, const struct qc2_err *err);

/* The block if it is on its way, or NULL. */
struct block *block_find(struct object *obj, uint32_t nr);
/* A new one, which must not exist; NULL for lack of memory. */
struct block *block_new(struct object *obj, uint32_t nr);
/* Without waiters and watchers. */
void block_free(struct block *block);

#endif
