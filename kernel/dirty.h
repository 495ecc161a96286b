/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Which sectors are in the tip, as the kernel knows it in memory.
 */
#ifndef QC2_DIRTY_H
#define QC2_DIRTY_H

#include <linux/gfp.h>
#include <linux/list.h>
#include <linux/types.h>
#include <linux/xarray.h>

#include "region.h"

/*
 * When the bitmap should be brought up to date: when so many regions have become
 * full, because then they need no memory any more; and, where no journal does it
 * in its turn, when so many have changed, because all of them are part of the next
 * commit.
 */
#define QC2_DIRTY_MAX_FULL	512
#define QC2_DIRTY_MAX_CHANGED	4096

/* What qc2_dirty_set() asks its caller to see to. */
#define QC2_DIRTY_LOG_FULL	BIT(0)	/* commit soon: the log fills up */
#define QC2_DIRTY_CHECKPOINT	BIT(1)	/* write the bitmap soon */

/**
 * struct qc2_dirty_range - sectors of the virtual disk
 * @sector: the first
 * @nr_sectors: their number
 */
struct qc2_dirty_range {
	u64 sector;
	u32 nr_sectors;
};

/**
 * struct qc2_dirty - state of all sectors
 * @regions: region number -> region, see dirty.c.  Its lock, taken with
 *	interrupts off, protects everything here
 * @changed: regions with bits that the bitmap on the device may lack
 * @nr_changed: their number
 * @nr_full: number of regions that are full and have a struct qc2_region yet
 * @nr_sectors: number of sectors in the tip
 * @block_sectors: logical block size; what is loaded must be aligned to it.
 *	0 as 1
 * @log: ranges that came into the tip and that no commit has taken up
 * @nr_log: their number
 * @max_log: room in @log; may be 0
 * @log_lost: there were more than @log holds
 * @committing: a commit has taken up ranges and not ended
 */
struct qc2_dirty {
	struct xarray regions;
	struct list_head changed;
	unsigned int nr_changed;
	unsigned int nr_full;
	u64 nr_sectors;
	unsigned int block_sectors;

	struct qc2_dirty_range *log;
	unsigned int nr_log;
	unsigned int max_log;
	bool log_lost;
	bool committing;
};

int qc2_dirty_cache_init(void);
void qc2_dirty_cache_exit(void);

void qc2_dirty_init(struct qc2_dirty *dirty);
void qc2_dirty_clear(struct qc2_dirty *dirty);

bool qc2_dirty_lookup(struct qc2_dirty *dirty, u64 sector, unsigned int *nr_sectors);
int qc2_dirty_prepare(struct qc2_dirty *dirty, u64 sector, gfp_t gfp);
unsigned int qc2_dirty_set(struct qc2_dirty *dirty, u64 sector, unsigned int nr_sectors);
u64 qc2_dirty_nr_sectors(struct qc2_dirty *dirty);

bool qc2_dirty_committed(struct qc2_dirty *dirty);
unsigned int qc2_dirty_begin_commit(struct qc2_dirty *dirty, struct qc2_dirty_range **spare,
				    bool *lost);
void qc2_dirty_end_commit(struct qc2_dirty *dirty);

bool qc2_dirty_take_changed(struct qc2_dirty *dirty, unsigned long *blocks);
void qc2_bits_copy(unsigned long *to, const unsigned long *from, unsigned int nr_longs);
void qc2_dirty_copy_block(struct qc2_dirty *dirty, u64 block, void *to);
void qc2_dirty_collapse(struct qc2_dirty *dirty, u64 block);
int qc2_dirty_load_range(struct qc2_dirty *dirty, u64 sector, u64 nr_sectors);
int qc2_dirty_load_block(struct qc2_dirty *dirty, u64 block, const void *from,
			 u64 disk_sectors);

#endif
