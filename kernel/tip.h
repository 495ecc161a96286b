/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The tip: the device that takes all writes, and the state of each of its
 * sectors.  Format: <linux/dm-qcow2chain.h>, docs/tip-format.md.
 */
#ifndef QC2_TIP_H
#define QC2_TIP_H

#include <linux/bio.h>
#include <linux/types.h>

#include "commit.h"
#include "dirty.h"

struct qc2_target;

/**
 * struct qc2_tip - the tip of one table
 * @qt: the target
 * @bdev: its device
 * @list: in the list of all tips, see tip.c
 * @nr_sectors: of the virtual disk
 * @summary_start: in sectors, as in the superblock
 * @journal_start: likewise
 * @journal_sectors: likewise; 0 without a journal
 * @bitmap_start: likewise
 * @data_start: likewise
 * @id: likewise
 * @nr_blocks: blocks of the bitmap
 * @block_sectors: physical block size of the device, at most
 *	QC2_TIP_BLOCK_SECTORS
 * @loaded: the state was read from the device
 * @read_only: a commit has failed
 * @full: a write has failed because the device was full
 * @dirty: which sectors are in the tip
 * @commit: how that becomes durable
 */
struct qc2_tip {
	struct qc2_target *qt;
	struct block_device *bdev;
	struct list_head list;

	u64 nr_sectors;
	u64 summary_start;
	u64 journal_start;
	u64 journal_sectors;
	u64 bitmap_start;
	u64 data_start;
	u64 id;
	u64 nr_blocks;
	unsigned int block_sectors;

	bool loaded;
	bool read_only;
	unsigned long full;

	struct qc2_dirty dirty;
	struct qc2_commit commit;
};

/**
 * struct qc2_tip_write - a write in flight, kept with its bio
 * @sector: first sector
 * @nr_sectors: number of sectors that may come into the tip; 0 if their whole
 *	region is in it
 */
struct qc2_tip_write {
	u64 sector;
	unsigned int nr_sectors;
};

struct qc2_tip *qc2_tip_open(struct qc2_target *qt, char **error);
void qc2_tip_close(struct qc2_tip *tip);
int qc2_tip_load(struct qc2_tip *tip);

void qc2_tip_remap(struct qc2_tip *tip, struct bio *bio, u64 sector);
int qc2_tip_write_begin(struct qc2_tip *tip, struct qc2_tip_write *write,
			u64 sector, unsigned int nr_sectors, bool nowait);
bool qc2_tip_write_adds(struct qc2_tip *tip, const struct qc2_tip_write *write);
void qc2_tip_write_end(struct qc2_tip *tip, struct qc2_tip_write *write, blk_status_t status);
void qc2_tip_set_read_only(struct qc2_tip *tip, const char *what, int error);

#endif
