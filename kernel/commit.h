/* SPDX-License-Identifier: GPL-2.0 */
/*
 * How the state of the sectors becomes durable: the journal and the bitmap of
 * a tip.
 */
#ifndef QC2_COMMIT_H
#define QC2_COMMIT_H

#include <linux/bio.h>
#include <linux/mutex.h>
#include <linux/workqueue.h>

#include <linux/dm-qcow2chain.h>

#include "metaio.h"

struct qc2_dirty_range;
struct qc2_tip;

/* Journal sectors, in pages of 4 KiB, that one commit writes at most. */
#define QC2_COMMIT_PAGES	8
#define QC2_COMMIT_SECTORS	(QC2_COMMIT_PAGES * QC2_TIP_BLOCK_SECTORS)
#define QC2_COMMIT_RANGES	(QC2_COMMIT_SECTORS * QC2_TIP_JOURNAL_RANGES)

/**
 * struct qc2_commit - the commits of one tip
 * @lock: held during a commit; protects the fields down to @vecs
 * @ranges: what is being committed; exchanged with the log of the dirty state
 * @half: the half of the journal that is being written, 0 or 1
 * @head: next sector to be written in that half
 * @nr_commits: commits that wrote metadata
 * @bio: writes the journal
 * @pages: its content
 * @vecs: likewise
 * @other_busy: the other half holds ranges that the bitmap may lack.  Set by a
 *	commit, cleared by a checkpoint
 * @checkpoint_lock: held during a checkpoint; protects the fields down to @io.
 *	Taken below @lock, or alone
 * @bitmap: one bit for each bitmap block that has to be written
 * @used: the summary: one bit for each bitmap block in use
 * @summary: one bit for each block of the summary that has to be written
 * @io: the blocks on their way
 * @suspended: so is the device, or is being: a checkpoint in the background ends
 *	early
 * @waiting_lock: protects @waiting
 * @waiting: bios that complete after the next commit
 * @work: commits and completes @waiting
 * @checkpoint_work: brings the bitmap up to date
 */
struct qc2_commit {
	struct mutex lock;	/* see above */
	struct qc2_dirty_range *ranges;
	unsigned int half;
	unsigned int head;
	u64 nr_commits;
	struct bio bio;
	struct page *pages[QC2_COMMIT_PAGES];
	struct bio_vec vecs[QC2_COMMIT_PAGES];

	bool other_busy;

	struct mutex checkpoint_lock;	/* see above */
	unsigned long *bitmap;
	unsigned long *used;
	unsigned long *summary;
	struct qc2_metaio io;
	bool suspended;

	spinlock_t waiting_lock;	/* see above */
	struct bio_list waiting;
	struct work_struct work;
	struct work_struct checkpoint_work;
};

int qc2_commit_init(struct qc2_tip *tip);
void qc2_commit_exit(struct qc2_tip *tip);

void qc2_commit_queue(struct qc2_tip *tip, struct bio *bio);
void qc2_commit_soon(struct qc2_tip *tip, unsigned int todo);
int qc2_commit(struct qc2_tip *tip);

void qc2_commit_suspend(struct qc2_tip *tip);
void qc2_commit_resume(struct qc2_tip *tip);

u64 qc2_commit_count(struct qc2_tip *tip);

#endif
