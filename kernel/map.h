/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The chain map: where the chain's content of each sector is.  Soft state;
 * what it does not know, or has lost, is asked for again.
 */
#ifndef QC2_MAP_H
#define QC2_MAP_H

#include <linux/mutex.h>
#include <linux/shrinker.h>
#include <linux/srcu.h>
#include <linux/types.h>
#include <linux/xarray.h>

#include <linux/dm-qcow2chain.h>

#include "region.h"

#define QC2_MAP_LIMIT_KB_MIN	256
#define QC2_MAP_LIMIT_KB_DEFAULT (64 * 1024)

struct qc2_map_run;

/**
 * struct qc2_map - the map of one table
 * @regions: region number -> chunk of runs, or a value entry for a region
 *	that is zeros throughout; absent if nothing is known.  Read under RCU
 * @lock: held by everybody who changes @regions
 * @scratch: room for the runs of one region, under @lock
 * @bytes: memory of the chunks, changed under @lock
 * @limit: upper limit of @bytes
 * @hand: region at which the next eviction starts, under @lock
 * @nr_chunks: number of chunks, changed under @lock
 * @readers: reads in flight to places that the map named
 * @shrinker: gives memory back to the system
 */
struct qc2_map {
	struct xarray regions;
	struct mutex lock;	/* see above */
	struct qc2_map_run *scratch;
	size_t bytes;
	size_t limit;
	unsigned long hand;
	unsigned long nr_chunks;
	struct srcu_struct readers;
	struct shrinker *shrinker;
};

/**
 * struct qc2_place - answer of a lookup
 * @store: index of the store, or QC2_STORE_ZERO
 * @store_sector: where the first sector is
 * @nr_sectors: for how many sectors the answer holds
 */
struct qc2_place {
	u32 store;
	u64 store_sector;
	unsigned int nr_sectors;
};

int qc2_map_init(struct qc2_map *map, size_t limit, const char *name);
void qc2_map_destroy(struct qc2_map *map);

unsigned long qc2_map_read_lock(struct qc2_map *map);
void qc2_map_read_unlock(struct qc2_map *map, unsigned long token);
bool qc2_map_lookup(struct qc2_map *map, u64 sector, unsigned int nr_sectors,
		    struct qc2_place *place);

int qc2_map_insert(struct qc2_map *map, const struct qc2_run *runs, unsigned int nr_runs);
void qc2_map_forget(struct qc2_map *map, u32 store, const struct qc2_range *ranges,
		    unsigned int nr_ranges);
void qc2_map_distrust(struct qc2_map *map, u64 sector, u32 store, u64 store_sector);
void qc2_map_drop(struct qc2_map *map);
void qc2_map_set_limit(struct qc2_map *map, size_t limit);

#endif
