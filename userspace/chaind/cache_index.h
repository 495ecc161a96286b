/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The index of the cache: which slot holds what, in an SQLite database that lives beside
 * the cache.  Write-ahead log, so readers and the writer do not wait for each other.
 *
 *	object	a file in a store, by the key of struct object (SHA-256 of URL, size, version),
 *		and whether it is pinned
 *	block	a slot that is filled, and the digest of what is in it
 *	name	block of an object -> slot, or QC2_SLOT_ZERO: all zeros, in no slot.  Several
 *		names may lead to one slot.
 *
 * Rows bear checksums, and a name is bound to its object's key and its slot's digest.  A
 * damaged row is as if it were not there, and is made anew when it is written again; only
 * cache_index_digest() says -EUCLEAN of one.  Whether a slot is within the cache, and one
 * that cache_index_each() named, is for the caller to check: damage may hide a block from one
 * and not from the other.  A bit that flips in the log of an index that was not closed in
 * order may undo the last commits.  The database knows which cache it is of (a random id
 * that the first sector of the cache device has, too; see cache.h) and whether it was closed
 * in order.
 *
 * Functions may be called from any thread; they block.  Those that change something are
 * called by one thread at a time (the caller sees to that).  All return 0 or a negative
 * errno with @err filled: -EUCLEAN the database is damaged, -ENOSPC, -EIO, -ENOMEM.
 */
#ifndef CHAIND_CACHE_INDEX_H
#define CHAIND_CACHE_INDEX_H

#include <stdbool.h>
#include <stdint.h>

#include "err.h"
#include "manifest.h"		/* QC2_DIGEST_LEN */

#define QC2_SLOT_NONE	UINT32_MAX
#define QC2_SLOT_ZERO	(UINT32_MAX - 1)
#define QC2_CACHE_ID_LEN	16

struct cache_index;

/* A change to the index, see cache_index_commit(). */
struct index_block {
	uint32_t slot;
	uint8_t digest[QC2_DIGEST_LEN];
};
struct index_name {
	int64_t object;
	uint32_t block, slot;		/* slot: or QC2_SLOT_ZERO */
};

/* See cache_index_pin(). */
struct index_pin {
	uint8_t key[32];		/* of an object */
	const char *url;		/* as for cache_index_object() */
	bool pinned;
};

/**
 * cache_index_open() - open or create
 * @cache_id: of the cache device.  An index of another cache is emptied.
 * @trusted: set if the index was closed in order.  Otherwise every block has to be
 *	verified before its use.
 *
 * A file that is no database or is damaged is not used: -EUCLEAN; the caller may call
 * cache_index_remove() and try again.  -EOPNOTSUPP: it is of a newer version; -EBUSY: another
 * process has it open.  From a successful return until cache_index_close() the index
 * counts, durably, as not closed in order.
 */
int cache_index_open(struct cache_index **index, const char *path,
		     const uint8_t cache_id[QC2_CACHE_ID_LEN], bool *trusted,
		     struct qc2_err *err);

/* Removes the files of a database that nobody has open. */
int cache_index_remove(const char *path, struct qc2_err *err);

/* @clean: all is well, and the cache's data durable: it may be trusted next time. */
void cache_index_close(struct cache_index *index, bool clean);

/**
 * cache_index_object() - the number of an object
 * @key: 32 bytes
 * @url: for people, kept when it is made, so without secrets
 * @add: make it if it is missing; this is a change.  Otherwise *@id is 0 for a missing one
 */
int cache_index_object(struct cache_index *index, const uint8_t key[32], const char *url,
		       bool add, int64_t *id, struct qc2_err *err);

/**
 * cache_index_pin() - objects are pinned from now on, or no more: a change, all or none
 *
 * Those to be pinned are made if they are missing.  When it returns they are durable, and
 * all commits before.
 */
int cache_index_pin(struct cache_index *index, const struct index_pin *pins, unsigned int nr,
		    struct qc2_err *err);

/*
 * Calls @object for each pinned object, and after that @slot for the slots of its names.  Stops
 * if @object returns non-zero, and returns that.  They must not call the index.
 */
int cache_index_pinned(struct cache_index *index,
		       int (*object)(void *arg, const uint8_t key[32]),
		       void (*slot)(void *arg, uint32_t slot), void *arg, struct qc2_err *err);

/* Slots of blocks [@first, @first + @nr) of an object; QC2_SLOT_NONE where none is known. */
int cache_index_names(struct cache_index *index, int64_t object, uint32_t first,
		      unsigned int nr, uint32_t *slots, struct qc2_err *err);

/* A slot with that content, or QC2_SLOT_NONE. */
int cache_index_find(struct cache_index *index, const uint8_t digest[QC2_DIGEST_LEN],
		     uint32_t *slot, struct qc2_err *err);

/* The digest of a filled slot; -ENOENT. */
int cache_index_digest(struct cache_index *index, uint32_t slot,
		       uint8_t digest[QC2_DIGEST_LEN], struct qc2_err *err);

/**
 * cache_index_commit() - several changes, all or none
 * @evicted: slots that are to be empty: their names are removed, too
 * @gone: called for each name removed or left out (before the end of the transaction; it must
 *	not call the index)
 * @blocks: slots newly filled (what had another content is evicted first); @names: new names
 *	(replacing what the block had).  A name for a slot that is not filled, or of an object
 *	that is not there, is left out
 *
 * In this order: evicted, blocks, names.  When it returns the process may die, and all of
 * it is there; after a loss of power all or a part of the last commits may be missing.
 */
int cache_index_commit(struct cache_index *index,
		       const uint32_t *evicted, unsigned int nr_evicted,
		       void (*gone)(void *arg, const struct index_name *name), void *arg,
		       const struct index_block *blocks, unsigned int nr_blocks,
		       const struct index_name *names, unsigned int nr_names,
		       struct qc2_err *err);

/* What was committed is there after a loss of power, too. */
int cache_index_sync(struct cache_index *index, struct qc2_err *err);

/*
 * Calls @filled, which may call the index, for each filled slot, in ascending order; stops if
 * it returns non-zero, and returns that if it is negative.
 */
int cache_index_each(struct cache_index *index, int (*filled)(void *arg, uint32_t slot),
		     void *arg, struct qc2_err *err);

/* Names there are (logical blocks), those of them that are zeros, and filled slots. */
int cache_index_count(struct cache_index *index, uint64_t *names, uint64_t *zeros,
		      uint64_t *blocks, struct qc2_err *err);

/* Removes all names of an object: a change. */
int cache_index_disown(struct cache_index *index, int64_t object, struct qc2_err *err);

/*
 * Removes objects without names, except for zeros, that were not used for 30 days and are
 * not pinned; called now and then.  One that cache_index_object() was asked to add since the
 * opening stays.
 */
int cache_index_tidy(struct cache_index *index, struct qc2_err *err);

/**
 * cache_index_check() - look for damage in the structure of the whole database
 *
 * Reads all of it; others do not wait, but the log grows meanwhile.  The checksums of rows
 * keep a damaged database from saying what is not so.  They cannot keep one from it that was
 * changed after the damage: a row that is not found in its place is not removed either.
 * So this is called now and then, and the index is given up if it fails.
 */
int cache_index_check(struct cache_index *index, struct qc2_err *err);

/* Checks end soon, with -ECANCELED; the index is about to be closed.  Any thread. */
void cache_index_stop(struct cache_index *index);

#endif
