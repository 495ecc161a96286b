// SPDX-License-Identifier: GPL-2.0
/*
 * Reads that a store has failed.
 *
 * DOC: A store is a cache: it may have a bad sector or be gone, and the daemon can
 * bring the data again.  So a read of it that fails does not fail the guest's
 * read.  What the map says about the place is forgotten, and the read becomes a
 * miss, whose request tells the daemon that its answer was bad.
 *
 * The daemon is asked for blocks, and which block of a larger read has failed
 * nobody knows.  Such a read, and one of which a part has failed that had been
 * split off, starts again, piece by piece, each in one block.  The bio itself
 * reads one piece after the other: this needs no memory, and nothing taken from a
 * mempool ever waits for the daemon.
 *
 * A piece that was failed QC2_MAX_STORE_FAILURES times fails the read: a daemon
 * that always gives the same answer makes no loop.
 *
 * Locking: @lock for the list, with interrupts off.  What is kept with a bio
 * belongs to whoever has the bio; parts only ever set flags of it, before they
 * end.
 */
#include "compat/compat.h"
#include "target.h"

/* Makes the bio what it was before it was mapped; see dm-bio-record.h. */
static void qc2_reread_restore(const struct qc2_reread *reread, struct bio *bio)
{
	bio->bi_iter = reread->iter;
	bio->bi_flags = reread->bi_flags;
	bio->bi_status = BLK_STS_OK;
	/* A driver that has split the bio has counted it down to 0. */
	atomic_set(&bio->__bi_remaining, 1);
	/* It is submitted by a worker from now on, and may wait. */
	bio->bi_opf &= ~REQ_NOWAIT;
}

static void qc2_reread_work(struct work_struct *work)
{
	struct qc2_rereads *rereads = container_of(work, struct qc2_rereads, work);
	struct qc2_target *qt = rereads->qt;
	struct qc2_reread *reread;
	struct bio_list bios;
	struct qc2_bio *qb;
	struct bio *bio;

	spin_lock_irq(&rereads->lock);
	bios = rereads->bios;
	bio_list_init(&rereads->bios);
	spin_unlock_irq(&rereads->lock);

	while ((bio = bio_list_pop(&bios))) {
		qb = qc2_bio(bio);
		reread = &qb->reread;
		qc2_reread_restore(reread, bio);
		reread->by_pieces = true;
		reread->store_part_failed = false;
		reread->ask = reread->failed;
		if (reread->failed) {
			DMWARN_LIMIT("%s: a read of store %s failed, asking for the data again",
				     dm_table_device_name(qt->ti->table),
				     qt->stores[qb->store_read.store]->name);
			qc2_map_distrust(&qt->map, qb->store_read.sector, qb->store_read.store,
					 qb->store_read.store_sector);
		}
		qc2_target_read_parked(qt, bio);
		cond_resched();
	}
}

/**
 * qc2_rereads_init() - nothing has failed yet
 * @rereads: of the table
 * @qt: the target; @qt->wq is used from the first failure on
 */
void qc2_rereads_init(struct qc2_rereads *rereads, struct qc2_target *qt)
{
	rereads->qt = qt;
	spin_lock_init(&rereads->lock);
	bio_list_init(&rereads->bios);
	INIT_WORK(&rereads->work, qc2_reread_work);
	atomic64_set(&rereads->count, 0);
}

/**
 * qc2_rereads_stop() - stop the worker; no bio is in flight any more
 * @rereads: of the table
 */
void qc2_rereads_stop(struct qc2_rereads *rereads)
{
	cancel_work_sync(&rereads->work);
}

/**
 * qc2_reread_record() - note what it takes to make a read again
 * @reread: of the bio
 * @bio: the read as it came, after dm_accept_partial_bio()
 */
void qc2_reread_record(struct qc2_reread *reread, const struct bio *bio)
{
	reread->iter = bio->bi_iter;
	reread->bi_flags = bio->bi_flags;
}

/**
 * qc2_reread_useful() - whether another answer of the daemon may help
 * @bio: a read of a store, or a part of one
 * @status: how it has ended, not well
 *
 * It does not if the caller is to try again in another way, or has made a mistake,
 * or is not in need of the data.
 */
bool qc2_reread_useful(const struct bio *bio, blk_status_t status)
{
	if (bio->bi_opf & REQ_RAHEAD)
		return false;
	return status != BLK_STS_AGAIN && status != BLK_STS_NOTSUPP && status != BLK_STS_INVAL &&
	       status != BLK_STS_DM_REQUEUE;
}

/**
 * qc2_reread_piece() - prepare the next piece of a read that is made by pieces
 * @reread: of the bio
 * @bio: what is still to be read, the front of which has a place; is cut to the piece
 * @nr_sectors: for how much of it the place holds
 *
 * Return: number of sectors of the piece.
 */
unsigned int qc2_reread_piece(struct qc2_reread *reread, struct bio *bio,
			      unsigned int nr_sectors)
{
	unsigned int in_block = bio->bi_iter.bi_sector & (QC2_BLOCK_SECTORS - 1);

	nr_sectors = min(nr_sectors, QC2_BLOCK_SECTORS - in_block);
	reread->piece = nr_sectors << SECTOR_SHIFT;
	reread->ask = false;
	bio->bi_iter.bi_size = reread->piece;
	return nr_sectors;
}

static bool qc2_in_one_block(const struct qc2_store_read *read)
{
	return (read->sector & (QC2_BLOCK_SECTORS - 1)) + read->nr_sectors <= QC2_BLOCK_SECTORS;
}

/**
 * qc2_reread_end() - a bio has ended; it goes on if there is a reason to
 * @rereads: of the table
 * @bio: the bio, all parts of which have ended, too
 * @of_store: it has read from a store: its store_read is what
 * @error: its status; may be changed
 *
 * Context: any.
 * Return: whether the bio is no longer the caller's.
 */
bool qc2_reread_end(struct qc2_rereads *rereads, struct bio *bio, bool of_store,
		    blk_status_t *error)
{
	struct qc2_bio *qb = qc2_bio(bio);
	struct qc2_reread *reread = &qb->reread;
	unsigned long flags;

	if (likely(!*error && !reread->by_pieces && !reread->store_part_failed))
		return false;
	if (*error && (!of_store || reread->part_failed || !qc2_reread_useful(bio, *error)))
		return false;

	if (*error || reread->store_part_failed) {
		/* The core makes the read again, so that nobody polls for it. */
		if (bio->bi_opf & REQ_POLLED) {
			*error = BLK_STS_AGAIN;
			return false;
		}
		if (++reread->nr_failures == QC2_MAX_STORE_FAILURES) {
			*error = BLK_STS_IOERR;
			return false;
		}
		reread->failed = *error && qc2_in_one_block(&qb->store_read);
		atomic64_inc(&rereads->count);
	} else {
		if (reread->piece == reread->iter.bi_size)
			return false;
		bio_advance_iter(bio, &reread->iter, reread->piece);
		reread->nr_failures = 0;
		reread->failed = false;
		/* What comes now has not waited yet. */
		qb->parked.since = 0;
	}

	spin_lock_irqsave(&rereads->lock, flags);
	bio_list_add(&rereads->bios, bio);
	/* Under the lock: with the last bio the table may go. */
	queue_work(rereads->qt->wq, &rereads->work);
	spin_unlock_irqrestore(&rereads->lock, flags);
	return true;
}
