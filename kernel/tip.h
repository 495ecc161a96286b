/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The tip: the device that takes all writes, and the state of each of its
 * sectors.  Format: <linux/dm-qcow2chain.h>, docs/tip-format.md.
 */
#ifndef QC2_TIP_H
#define QC2_TIP_H

#include <linux/bio.h>
#include <linux/types.h>

struct qc2_region;
struct qc2_target;
struct qc2_tip;

/**
 * struct qc2_tip_write - a write in flight, kept with its bio
 * @region: the region that it will change, or NULL
 * @first: first sector within the region
 * @nr: number of sectors
 */
struct qc2_tip_write {
	struct qc2_region *region;
	u16 first;
	u16 nr;
};

int qc2_tip_cache_init(void);
void qc2_tip_cache_exit(void);

struct qc2_tip *qc2_tip_open(struct qc2_target *qt, char **error);
void qc2_tip_close(struct qc2_tip *tip);
int qc2_tip_load(struct qc2_tip *tip);

bool qc2_tip_lookup(struct qc2_tip *tip, u64 sector, unsigned int *nr_sectors);
void qc2_tip_remap(struct qc2_tip *tip, struct bio *bio, u64 sector);

int qc2_tip_write_begin(struct qc2_tip *tip, struct qc2_tip_write *write,
			u64 sector, unsigned int nr_sectors);
void qc2_tip_write_end(struct qc2_tip *tip, struct qc2_tip_write *write, bool ok);

bool qc2_tip_is_committed(struct qc2_tip *tip);
void qc2_tip_queue_commit(struct qc2_tip *tip, struct bio *bio);
int qc2_tip_commit(struct qc2_tip *tip);

bool qc2_tip_read_only(struct qc2_tip *tip);
u64 qc2_tip_dirty_sectors(struct qc2_tip *tip);
u64 qc2_tip_commits(struct qc2_tip *tip);
sector_t qc2_tip_data_start(struct qc2_tip *tip);

#endif
