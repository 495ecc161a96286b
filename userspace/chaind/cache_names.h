/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Where the blocks of objects in use are in the cache: the part of the index that is in
 * memory, in leaves of 256 blocks that are loaded when something in them is looked for.
 * Leaves are dropped, the oldest first, when all of them together have grown beyond a
 * limit, and with their object.  Main thread only.
 */
#ifndef CHAIND_CACHE_NAMES_H
#define CHAIND_CACHE_NAMES_H

#include <stdbool.h>
#include <stdint.h>

#include "cache_index.h"

#define LEAF_BLOCKS	256U

/* Of one object; zero to begin with. */
struct cache_names {
	int64_t object;		/* its number in the index; 0: none yet, or not known */
	void *leaves;		/* tree of struct leaf (tsearch) */
	unsigned int wrong;	/* what the index has of it is being removed; so often ... */
	unsigned int disowned;	/* ... that was done */
};

/*
 * Its number is known now.  If it had another one, no names are known any more.
 * Return: 0; -ENOMEM: nothing is known of it.
 */
int names_set_object(struct cache_names *names, int64_t object);
/* Those of an object in use, or NULL. */
struct cache_names *names_find(int64_t object);

/* The slot of a block, QC2_SLOT_ZERO, or QC2_SLOT_NONE, which may mean: not loaded. */
uint32_t names_get(const struct cache_names *names, uint32_t block);
bool names_loaded(const struct cache_names *names, uint32_t block);

/*
 * What the index has for the leaf of @block; what is known already stays.
 * @all: it is all that the index has
 */
int names_load(struct cache_names *names, uint32_t block, const uint32_t *slots, bool all);

/*
 * A new name.  The index has it later: its leaf stays until names_written().
 * Return: 0 or -ENOMEM.
 */
int names_add(struct cache_names *names, uint32_t block, uint32_t slot);
void names_written(struct cache_names *names, uint32_t block);

/* None is known any more.  Those that the index does not have yet are written nevertheless. */
void names_drop(struct cache_names *names);

/* A name is gone, if it is still that one. */
void names_remove(struct cache_names *names, uint32_t block, uint32_t slot);

void names_free(struct cache_names *names);

/* Nothing is known of any object, not their numbers either. */
void names_forget_all(void);

/* The limit of all leaves, bytes, and what they have. */
void names_set_limit(uint64_t bytes);
uint64_t names_memory(void);

#endif
