// SPDX-License-Identifier: GPL-2.0
/*
 * Commits.
 *
 * DOC: Commit
 *
 * The device learns which sectors are in the tip at FLUSH and FUA, and now and
 * then in between.  A commit
 *
 *  1. takes over the log: the ranges that came into the tip since the last
 *     commit, by writes that have completed;
 *  2. flushes the device, so that their data is durable;
 *  3. writes the ranges to the journal, durably;
 *  4. completes the bios that wait.
 *
 * Step 1 comes before step 2, or a range could be durable before its data.
 * Step 3 is a write with FUA.  PREFLUSH would save step 2, but device mapper
 * devices go on with such a write when its flush has failed.
 *
 * DOC: Checkpoint
 *
 * The bitmap follows in checkpoints:
 *
 *  1. copy the bitmap blocks of changed regions;
 *  2. flush the device, for the data that the copied bits stand for;
 *  3. write the copies;
 *  4. where a bitmap block is used for the first time, write the summary that
 *     says so, after a flush;
 *  5. flush.
 *
 * Bits go from 0 to 1 only, so a bitmap block that is torn by a power failure
 * holds for each sector either its old or its new bit, and both are right: what
 * was acknowledged is in the old bitmap or in the journal.  For the same reason
 * every sector found in the journal may be applied when a tip is loaded,
 * however old it is: nothing says where the journal begins, and nothing has to.
 *
 * The journal has two halves.  When a commit enters one of them, a checkpoint
 * in the background makes the other one free: what that one holds was in the
 * list of changed regions, or in the bitmap, before.  A commit that the other
 * half is not free for is a checkpoint itself; so is one that the log had not
 * room enough for, and every one on a tip without a journal.
 *
 * If a commit or a checkpoint fails the tip becomes read-only for good.
 * Everything that was acknowledged as durable still is.
 *
 * Locking: see struct qc2_commit.  A commit and a checkpoint may run at the same
 * time.  Nothing is written between qc2_commit_suspend() and
 * qc2_commit_resume(): another table may use the tip then.
 */
#include <linux/blkdev.h>
#include <linux/math64.h>
#include <linux/mm.h>
#include <linux/slab.h>

#include "compat/compat.h"
#include "journal.h"
#include "target.h"

#define QC2_LONGS_PER_BLOCK	(QC2_TIP_BLOCK_SIZE / sizeof(long))

/* Guests wait for it: with IDLE, writeback throttling lets it pass, as logs do. */
#define QC2_COMMIT_WRITE	(REQ_OP_WRITE | REQ_META | REQ_SYNC | REQ_IDLE)

/*
 * ---------------------------------------------------------------------------
 * Checkpoint
 * ---------------------------------------------------------------------------
 */

/* Writes up to QC2_METAIO_BLOCKS blocks.  Returns their number or an error. */
static int qc2_checkpoint_batch(struct qc2_tip *tip)
{
	struct qc2_commit *c = &tip->commit;
	unsigned int nr = 0, i;
	unsigned long block;
	int r;

	for_each_set_bit(block, c->bitmap, tip->nr_blocks) {
		c->io.blocks[nr].block = block;
		qc2_dirty_copy_block(&tip->dirty, block, qc2_metaio_data(&c->io, nr));
		__clear_bit(block, c->bitmap);
		if (!__test_and_set_bit(block, c->used))
			__set_bit(block / QC2_TIP_BLOCK_BITS, c->summary);
		if (++nr == QC2_METAIO_BLOCKS)
			break;
	}
	if (!nr)
		return 0;

	r = blkdev_issue_flush(tip->bdev);
	if (!r)
		r = qc2_metaio_run(&c->io, tip->bitmap_start, nr, QC2_COMMIT_WRITE);
	if (r)
		return r;

	for (i = 0; i < nr; i++)
		qc2_dirty_collapse(&tip->dirty, c->io.blocks[i].block);
	return nr;
}

/* Writes the blocks of the summary that changed, durably, after what they name. */
static int qc2_checkpoint_summary(struct qc2_tip *tip)
{
	u64 summaries = DIV_ROUND_UP_ULL(tip->nr_blocks, QC2_TIP_BLOCK_BITS);
	struct qc2_commit *c = &tip->commit;
	unsigned long s;
	int r;

	if (find_first_bit(c->summary, summaries) == summaries)
		return 0;
	r = blkdev_issue_flush(tip->bdev);
	if (r)
		return r;
	for_each_set_bit(s, c->summary, summaries) {
		qc2_bits_copy(qc2_metaio_data(&c->io, 0), c->used + s * QC2_LONGS_PER_BLOCK,
			      QC2_LONGS_PER_BLOCK);
		r = qc2_metaio_run_one(&c->io, tip->summary_start, s,
				       QC2_COMMIT_WRITE | REQ_FUA);
		if (r)
			return r;
		__clear_bit(s, c->summary);
	}
	return 0;
}

/*
 * Brings the bitmap up to date.  One that runs in the background ends with
 * -EINTR when the device is suspended; the next one goes on where it ended.
 */
static int qc2_checkpoint(struct qc2_tip *tip, bool background)
{
	struct qc2_commit *c = &tip->commit;
	bool covers;
	int r = 0;

	mutex_lock(&c->checkpoint_lock);
	/*
	 * If the other half is busy, the regions of all its ranges are in the
	 * list by now: pairs with the release in qc2_journal_make_room().
	 */
	covers = smp_load_acquire(&c->other_busy);
	qc2_dirty_take_changed(&tip->dirty, c->bitmap);
	do {
		if (background && READ_ONCE(c->suspended))
			r = -EINTR;
		else if (READ_ONCE(tip->read_only))
			r = -EIO;
		else
			r = qc2_checkpoint_batch(tip);
	} while (r > 0);
	if (!r)
		r = qc2_checkpoint_summary(tip);
	if (!r)
		r = blkdev_issue_flush(tip->bdev);
	if (!r && covers) {
		/* The bitmap is durable before the half is used again. */
		smp_store_release(&c->other_busy, false);
	}
	/* Below the lock: the next checkpoint would miss what this one has lost. */
	if (r && r != -EINTR)
		qc2_tip_set_read_only(tip, "update of the tip's bitmap", r);
	mutex_unlock(&c->checkpoint_lock);
	return r;
}

static void qc2_checkpoint_work(struct work_struct *work)
{
	struct qc2_tip *tip = container_of(work, struct qc2_tip, commit.checkpoint_work);

	qc2_checkpoint(tip, true);
}

/*
 * ---------------------------------------------------------------------------
 * Commit
 * ---------------------------------------------------------------------------
 */

/* Makes room for some sectors.  False if there is none before a checkpoint. */
static bool qc2_journal_make_room(struct qc2_tip *tip, unsigned int nr_sectors)
{
	unsigned int half_sectors = tip->journal_sectors / 2;
	struct qc2_commit *c = &tip->commit;

	if (c->head + nr_sectors <= half_sectors)
		return true;
	if (nr_sectors > half_sectors)
		return false;
	/* Pairs with the release in qc2_checkpoint(). */
	if (smp_load_acquire(&c->other_busy))
		return false;

	c->half ^= 1;
	c->head = 0;
	/* Pairs with the acquire in qc2_checkpoint(). */
	smp_store_release(&c->other_busy, true);
	queue_work(tip->qt->wq, &c->checkpoint_work);
	return true;
}

static int qc2_commit_to_journal(struct qc2_tip *tip, unsigned int nr_ranges)
{
	unsigned int used = DIV_ROUND_UP(nr_ranges, QC2_TIP_JOURNAL_RANGES);
	unsigned int nr_sectors = round_up(used, tip->block_sectors);
	struct qc2_commit *c = &tip->commit;
	unsigned int i, bytes;
	int r;

	if (!qc2_journal_make_room(tip, nr_sectors)) {
		/* A checkpoint that is running may be about to make room. */
		mutex_lock(&c->checkpoint_lock);
		mutex_unlock(&c->checkpoint_lock);
		if (!qc2_journal_make_room(tip, nr_sectors))
			return qc2_checkpoint(tip, false);
	}

	for (i = 0; i < nr_sectors; i++) {
		struct qc2_tip_journal *sector = page_address(c->pages[i / QC2_TIP_BLOCK_SECTORS]);
		unsigned int first = i * QC2_TIP_JOURNAL_RANGES;

		sector += i % QC2_TIP_BLOCK_SECTORS;
		if (i < used)
			qc2_journal_write(sector, tip->id, c->ranges + first,
					  min_t(unsigned int, nr_ranges - first,
						QC2_TIP_JOURNAL_RANGES));
		else
			memset(sector, 0, sizeof(*sector));
	}

	r = blkdev_issue_flush(tip->bdev);
	if (r)
		return r;

	bio_init(&c->bio, tip->bdev, c->vecs, QC2_COMMIT_PAGES, QC2_COMMIT_WRITE | REQ_FUA);
	c->bio.bi_iter.bi_sector = tip->journal_start + c->head +
				   c->half * (tip->journal_sectors / 2);
	bytes = nr_sectors << SECTOR_SHIFT;
	for (i = 0; bytes; i++) {
		unsigned int len = min_t(unsigned int, bytes, QC2_TIP_BLOCK_SIZE);

		__bio_add_page(&c->bio, c->pages[i], len, 0);
		bytes -= len;
	}
	r = submit_bio_wait(&c->bio);
	bio_uninit(&c->bio);
	if (!r)
		c->head += nr_sectors;
	return r;
}

/**
 * qc2_commit() - make the tip durable
 * @tip: the tip
 *
 * Covers every write that has completed before the call.
 *
 * Context: process; waits for I/O.
 * Return: 0, or a negative errno; the tip is read-only then.
 */
int qc2_commit(struct qc2_tip *tip)
{
	struct qc2_commit *c = &tip->commit;
	unsigned int nr_ranges;
	bool lost;
	int r;

	mutex_lock(&c->lock);
	if (READ_ONCE(tip->read_only)) {
		r = -EIO;
		goto out;
	}

	nr_ranges = qc2_dirty_begin_commit(&tip->dirty, &c->ranges, &lost);
	if (lost)
		r = qc2_checkpoint(tip, false);
	else if (nr_ranges)
		r = qc2_commit_to_journal(tip, nr_ranges);
	else
		r = blkdev_issue_flush(tip->bdev);
	/* A checkpoint's flush may have got the error that this one did not. */
	if (!r && READ_ONCE(tip->read_only))
		r = -EIO;
	if (r) {
		qc2_tip_set_read_only(tip, "commit of the tip", r);
		goto out;
	}
	if (lost || nr_ranges)
		WRITE_ONCE(c->nr_commits, c->nr_commits + 1);
	qc2_dirty_end_commit(&tip->dirty);
out:
	mutex_unlock(&c->lock);
	return r;
}

static void qc2_commit_work(struct work_struct *work)
{
	struct qc2_tip *tip = container_of(work, struct qc2_tip, commit.work);
	struct qc2_commit *c = &tip->commit;
	struct bio_list bios;
	struct bio *bio;
	int r;

	spin_lock_irq(&c->waiting_lock);
	bios = c->waiting;
	bio_list_init(&c->waiting);
	spin_unlock_irq(&c->waiting_lock);
	if (bio_list_empty(&bios) && qc2_dirty_committed(&tip->dirty))
		return;

	r = qc2_commit(tip);
	while ((bio = bio_list_pop(&bios))) {
		if (r)
			bio->bi_status = errno_to_blk_status(r);
		/* A write was through bio_endio() before, see qc2_end_io(). */
		bio->bi_end_io(bio);
	}
}

/**
 * qc2_commit_queue() - complete a bio after a commit
 * @tip: the tip
 * @bio: an empty flush, or a write whose data was written
 *
 * Context: any.
 */
void qc2_commit_queue(struct qc2_tip *tip, struct bio *bio)
{
	struct qc2_commit *c = &tip->commit;
	unsigned long flags;

	spin_lock_irqsave(&c->waiting_lock, flags);
	bio_list_add(&c->waiting, bio);
	/* Below the lock: once the bio is completed the tip may go away. */
	queue_work(tip->qt->wq, &c->work);
	spin_unlock_irqrestore(&c->waiting_lock, flags);
}

/**
 * qc2_commit_soon() - do in the background what qc2_dirty_set() asked for
 * @tip: the tip
 * @todo: mask of QC2_DIRTY_LOG_FULL and QC2_DIRTY_CHECKPOINT
 *
 * Context: any; a bio of the device is in flight.
 */
void qc2_commit_soon(struct qc2_tip *tip, unsigned int todo)
{
	if (todo & QC2_DIRTY_LOG_FULL)
		queue_work(tip->qt->wq, &tip->commit.work);
	if (todo & QC2_DIRTY_CHECKPOINT)
		queue_work(tip->qt->wq, &tip->commit.checkpoint_work);
}

/*
 * ---------------------------------------------------------------------------
 * Setting up, suspend and resume, status
 * ---------------------------------------------------------------------------
 */

/**
 * qc2_commit_init() - allocate what commits need
 * @tip: the tip, with its @commit.io; its superblock was read
 *
 * Return: 0 or -ENOMEM; qc2_commit_exit() in any case.
 */
int qc2_commit_init(struct qc2_tip *tip)
{
	struct qc2_commit *c = &tip->commit;
	unsigned int i;

	mutex_init(&c->lock);
	mutex_init(&c->checkpoint_lock);
	spin_lock_init(&c->waiting_lock);
	bio_list_init(&c->waiting);
	INIT_WORK(&c->work, qc2_commit_work);
	INIT_WORK(&c->checkpoint_work, qc2_checkpoint_work);
	c->suspended = true;

	/* Whole blocks of it are copied to and from the device. */
	c->used = kvzalloc(round_up(DIV_ROUND_UP_ULL(tip->nr_blocks, 8), QC2_TIP_BLOCK_SIZE),
			   GFP_KERNEL);
	c->bitmap = kvcalloc(BITS_TO_LONGS(tip->nr_blocks), sizeof(long), GFP_KERNEL);
	c->summary = kvcalloc(BITS_TO_LONGS(tip->nr_blocks / QC2_TIP_BLOCK_BITS + 1),
			      sizeof(long), GFP_KERNEL);
	if (!c->used || !c->bitmap || !c->summary)
		return -ENOMEM;
	if (!tip->journal_sectors)
		return 0;

	for (i = 0; i < QC2_COMMIT_PAGES; i++) {
		c->pages[i] = alloc_page(GFP_KERNEL);
		if (!c->pages[i])
			return -ENOMEM;
	}
	c->ranges = kvcalloc(QC2_COMMIT_RANGES, sizeof(*c->ranges), GFP_KERNEL);
	tip->dirty.log = kvcalloc(QC2_COMMIT_RANGES, sizeof(*c->ranges), GFP_KERNEL);
	if (!c->ranges || !tip->dirty.log)
		return -ENOMEM;
	tip->dirty.max_log = QC2_COMMIT_RANGES;
	return 0;
}

/**
 * qc2_commit_exit() - free it
 * @tip: the tip; no work of it is queued
 */
void qc2_commit_exit(struct qc2_tip *tip)
{
	struct qc2_commit *c = &tip->commit;
	unsigned int i;

	kvfree(tip->dirty.log);
	kvfree(c->ranges);
	for (i = 0; i < QC2_COMMIT_PAGES; i++)
		if (c->pages[i])
			__free_page(c->pages[i]);
	kvfree(c->summary);
	kvfree(c->bitmap);
	kvfree(c->used);
}

/**
 * qc2_commit_suspend() - commit, and write nothing from then on
 * @tip: the tip; no bio is in flight
 *
 * Context: process; waits for I/O: of a checkpoint in the background for one
 *	batch at most, or for a whole one if the log was lost or the journal full.
 */
void qc2_commit_suspend(struct qc2_tip *tip)
{
	struct qc2_commit *c = &tip->commit;

	WRITE_ONCE(c->suspended, true);
	/*
	 * The next table may be another one, which will not flush this tip:
	 * also overwrites, which change no bit, must be durable.  A failure
	 * has been logged and made this table read-only.
	 */
	qc2_commit(tip);
	cancel_work_sync(&c->work);
	cancel_work_sync(&c->checkpoint_work);
}

/**
 * qc2_commit_resume() - the tip may be written
 * @tip: the tip
 *
 * Context: process.
 */
void qc2_commit_resume(struct qc2_tip *tip)
{
	struct qc2_commit *c = &tip->commit;

	if (!tip->qt->writable)
		return;
	WRITE_ONCE(c->suspended, false);
	/* For what an interrupted one left, or the journal held. */
	queue_work(tip->qt->wq, &c->checkpoint_work);
}

/**
 * qc2_commit_count() - number of commits that wrote metadata
 * @tip: the tip
 */
u64 qc2_commit_count(struct qc2_tip *tip)
{
	return READ_ONCE(tip->commit.nr_commits);
}
