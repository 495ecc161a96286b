/* SPDX-License-Identifier: GPL-2.0 */
/* Leaves of names.  Main thread only. */
#include <errno.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "cache_names.h"

struct leaf {
	uint32_t nr;			/* key in names->leaves; first for comparing */
	bool loaded;
	unsigned int unwritten;		/* names that the index does not have yet */
	struct cache_names *names;
	TAILQ_ENTRY(leaf) entry;	/* in the order of their making */
	uint32_t slots[LEAF_BLOCKS];
};
TAILQ_HEAD(leaf_list, leaf);

static struct leaf_list leaves = TAILQ_HEAD_INITIALIZER(leaves);
static uint64_t nr_leaves, max_leaves = 4096;

static void *by_object;		/* tree of struct cache_names (tsearch) */

static int cmp_names(const void *a, const void *b)
{
	const struct cache_names *x = a, *y = b;

	return (x->object > y->object) - (x->object < y->object);
}

int names_set_object(struct cache_names *names, int64_t object)
{
	struct cache_names **found;

	if (names->object == object)
		return 0;
	if (names->object) {
		tdelete(names, &by_object, cmp_names);
		/* By that number it was told of names that are gone. */
		names_drop(names);
	}
	names->object = object;
	found = tsearch(names, &by_object, cmp_names);
	if (found && *found == names)
		return 0;
	/* By names_find() it will not be told of names that are gone. */
	names->object = 0;
	names_free(names);
	return -ENOMEM;
}

struct cache_names *names_find(int64_t object)
{
	struct cache_names key = { .object = object }, **found;

	found = tfind(&key, &by_object, cmp_names);
	return found ? *found : NULL;
}

static int cmp_leaf(const void *a, const void *b)
{
	const struct leaf *x = a, *y = b;

	return (x->nr > y->nr) - (x->nr < y->nr);
}

static struct leaf *find(const struct cache_names *names, uint32_t block)
{
	uint32_t nr = block / LEAF_BLOCKS;
	struct leaf **found = tfind(&nr, &names->leaves, cmp_leaf);

	return found ? *found : NULL;
}

static void drop(struct leaf *leaf)
{
	tdelete(leaf, &leaf->names->leaves, cmp_leaf);
	TAILQ_REMOVE(&leaves, leaf, entry);
	nr_leaves--;
	free(leaf);
}

static void make_room(void)
{
	struct leaf *leaf, *next;

	for (leaf = TAILQ_FIRST(&leaves); leaf && nr_leaves >= max_leaves; leaf = next) {
		next = TAILQ_NEXT(leaf, entry);
		if (!leaf->unwritten)
			drop(leaf);
	}
}

static struct leaf *get(struct cache_names *names, uint32_t block)
{
	struct leaf *leaf = find(names, block);

	if (leaf)
		return leaf;
	make_room();
	leaf = malloc(sizeof(*leaf));
	if (!leaf)
		return NULL;
	leaf->nr = block / LEAF_BLOCKS;
	leaf->loaded = false;
	leaf->unwritten = 0;
	leaf->names = names;
	memset(leaf->slots, 0xff, sizeof(leaf->slots));		/* QC2_SLOT_NONE */
	if (!tsearch(leaf, &names->leaves, cmp_leaf)) {
		free(leaf);
		return NULL;
	}
	TAILQ_INSERT_TAIL(&leaves, leaf, entry);
	nr_leaves++;
	return leaf;
}

uint32_t names_get(const struct cache_names *names, uint32_t block)
{
	const struct leaf *leaf = find(names, block);

	return leaf ? leaf->slots[block % LEAF_BLOCKS] : QC2_SLOT_NONE;
}

bool names_loaded(const struct cache_names *names, uint32_t block)
{
	const struct leaf *leaf = find(names, block);

	return leaf && leaf->loaded;
}

int names_load(struct cache_names *names, uint32_t block, const uint32_t *slots, bool all)
{
	struct leaf *leaf = get(names, block);
	unsigned int i;

	if (!leaf)
		return -ENOMEM;
	for (i = 0; i < LEAF_BLOCKS; i++) {
		if (leaf->slots[i] == QC2_SLOT_NONE)
			leaf->slots[i] = slots[i];
	}
	leaf->loaded |= all;
	return 0;
}

int names_add(struct cache_names *names, uint32_t block, uint32_t slot)
{
	struct leaf *leaf = get(names, block);

	if (!leaf)
		return -ENOMEM;
	leaf->slots[block % LEAF_BLOCKS] = slot;
	leaf->unwritten++;
	return 0;
}

void names_written(struct cache_names *names, uint32_t block)
{
	struct leaf *leaf = find(names, block);

	if (leaf && leaf->unwritten)
		leaf->unwritten--;
}

void names_remove(struct cache_names *names, uint32_t block, uint32_t slot)
{
	struct leaf *leaf = find(names, block);

	if (leaf && leaf->slots[block % LEAF_BLOCKS] == slot)
		leaf->slots[block % LEAF_BLOCKS] = QC2_SLOT_NONE;
}

static void forget_leaf(void *p)
{
	struct leaf *leaf = p;

	TAILQ_REMOVE(&leaves, leaf, entry);
	nr_leaves--;
	free(leaf);
}

void names_drop(struct cache_names *names)
{
	tdestroy(names->leaves, forget_leaf);
	names->leaves = NULL;
}

void names_free(struct cache_names *names)
{
	names_drop(names);
	if (names->object)
		tdelete(names, &by_object, cmp_names);
	names->object = 0;
}

static void forget_names(void *p)
{
	struct cache_names *names = p;

	names->object = 0;
}

void names_forget_all(void)
{
	tdestroy(by_object, forget_names);
	by_object = NULL;
	while (!TAILQ_EMPTY(&leaves))
		drop(TAILQ_FIRST(&leaves));
}

void names_set_limit(uint64_t bytes)
{
	max_leaves = bytes / sizeof(struct leaf);
	if (!max_leaves)
		max_leaves = 1;
}

uint64_t names_memory(void)
{
	return nr_leaves * sizeof(struct leaf);
}
