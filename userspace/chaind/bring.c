/* SPDX-License-Identifier: GPL-2.0 */
/* Bringing blocks.  Main thread only. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "bring.h"
#include "cache.h"
#include "chaind.h"
#include "miss.h"
#include "region.h"

struct bring {
	struct chaind *chaind;
	enum fetch_class class;
	struct fetch_stats *stats;
	unsigned int nr;
	struct block *blocks[];
};

static int start(struct chaind *chaind, enum fetch_class class, struct block **blocks,
		 unsigned int nr, struct fetch_stats *stats)
{
	if (chaind->region)
		return region_fetch(chaind->region, class, blocks, nr, stats);
	return fetch_start(chaind->fetcher, class, blocks, nr, stats);
}

static void fetch(struct bring *b, struct block **blocks, unsigned int nr)
{
	int ret = start(b->chaind, b->class, blocks, nr, b->stats);
	unsigned int i;

	for (i = 0; i < nr; i++) {
		if (ret) {
			miss_block_done(blocks[i], ret);
		} else if (!LIST_EMPTY(&blocks[i]->waiters)) {	/* since it was looked for */
			region_want(blocks[i]);
			fetch_want(blocks[i]);
		}
	}
}

static bool is_here(struct bring *b, struct block *block)
{
	struct cache *cache = b->chaind->cache;
	uint32_t slot = cache_lookup(cache, block->obj, block->nr);

	if (slot == CACHE_NO_SLOT)
		return false;
	if (block->marked)
		cache_set_mark(cache, slot);
	b->stats->local++;
	if (slot == QC2_SLOT_ZERO)
		block->came = CAME_ZERO;
	else if (block->came != CAME_SAME)
		block->came = CAME_BY_NAME;
	return true;
}

static bool is_gap(const struct block *block)
{
	return block->dead && LIST_EMPTY(&block->waiters) && LIST_EMPTY(&block->watchers);
}

/* Blocks in a row that are not here, between some that are.  A gap at an end is none. */
static void fetch_rest(struct bring *b, unsigned int first, unsigned int end)
{
	while (first < end && is_gap(b->blocks[first]))
		miss_block_done(b->blocks[first++], 0);
	while (first < end && is_gap(b->blocks[end - 1]))
		miss_block_done(b->blocks[--end], 0);
	if (first < end)
		fetch(b, b->blocks + first, end - first);
}

static void probed(void *arg)
{
	struct bring *b = arg;
	unsigned int i = 0, first;

	while (i < b->nr) {
		for (first = i; i < b->nr && !is_here(b, b->blocks[i]); i++)
			;
		fetch_rest(b, first, i);
		if (i < b->nr)
			miss_block_done(b->blocks[i++], 0);
	}
	fetch_stats_put(b->stats);
	free(b);
}

int bring_start(struct chaind *chaind, enum fetch_class class, struct block **blocks,
		unsigned int nr, struct fetch_stats *stats)
{
	struct bring *b = calloc(1, sizeof(*b) + nr * sizeof(*blocks));

	if (!b)
		return -ENOMEM;
	b->chaind = chaind;
	b->class = class;
	b->stats = stats;
	b->nr = nr;
	memcpy(b->blocks, blocks, nr * sizeof(*blocks));
	if (cache_probe(chaind->cache, b->blocks, nr, probed, b)) {
		stats->refs++;
		return 0;
	}
	free(b);
	return start(chaind, class, blocks, nr, stats);
}
