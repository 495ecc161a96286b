// SPDX-License-Identifier: GPL-2.0
/*
 * Misses.
 *
 * DOC: A read whose place the map does not know is parked here.  The first
 * one of a block (64 KiB) becomes a request to the daemon, further ones of the
 * same block wait with it.  All state is in the per-bio data, so parking needs
 * no memory.
 *
 * A request is "fresh" until the daemon has fetched it (QC2_CMD_GET_PENDING)
 * and "sent" after that; when the daemon goes away, or asks for it, sent
 * requests are fresh again.  Whatever the daemon learns us goes into the map
 * first; then all reads of the blocks that it touches are taken out and look
 * again.  One that still misses is parked again under a new id.  So a reply
 * may be late, doubled or partial without harm.
 *
 * A read that a store has failed is parked like others; its request says so, and
 * is told again if the daemon was told of the block without that.
 *
 * Locking: one spinlock for each table.  It is taken in process context and by
 * nobody else, and not held while bios are submitted or completed.
 */
#include <linux/hash.h>
#include <linux/jiffies.h>
#include <linux/sched.h>

#include "target.h"

#define QC2_MISS_BITS	ilog2(QC2_MISS_BUCKETS)
#define QC2_TIMEOUT_PERIOD	HZ

static struct hlist_head *qc2_miss_bucket(struct qc2_misses *misses, u64 block)
{
	return &misses->buckets[hash_64(block, QC2_MISS_BITS)];
}

static struct qc2_parked *qc2_miss_find(struct qc2_misses *misses, u64 block)
{
	struct qc2_parked *parked;

	hlist_for_each_entry(parked, qc2_miss_bucket(misses, block), hash)
		if (parked->block == block)
			return parked;
	return NULL;
}

/* Takes a request and everything that waits for it out, onto @bios. */
static void qc2_miss_take(struct qc2_misses *misses, struct qc2_parked *parked,
			  struct bio_list *bios)
{
	hlist_del_init(&parked->hash);
	list_del_init(&parked->list);
	misses->nr_requests--;
	misses->nr_parked -= 1 + parked->nr_followers;
	bio_list_add(bios, qc2_bio_of_parked(parked));
	bio_list_merge(bios, &parked->followers);
	bio_list_init(&parked->followers);
}

static void qc2_miss_take_all(struct qc2_misses *misses, struct bio_list *bios)
{
	struct qc2_parked *parked, *next;

	list_for_each_entry_safe(parked, next, &misses->sent, list)
		qc2_miss_take(misses, parked, bios);
	list_for_each_entry_safe(parked, next, &misses->fresh, list)
		qc2_miss_take(misses, parked, bios);
}

static void qc2_miss_end_all(struct bio_list *bios, blk_status_t status)
{
	struct bio *bio;

	while ((bio = bio_list_pop(bios))) {
		bio->bi_status = status;
		bio_endio(bio);
	}
}

/* Reads are woken in a worker: they may sleep for bios to be split with. */
static void qc2_miss_ready(struct work_struct *work)
{
	struct qc2_misses *misses = container_of(work, struct qc2_misses, ready_work);
	struct bio_list bios;
	struct bio *bio;

	spin_lock(&misses->lock);
	bios = misses->ready;
	bio_list_init(&misses->ready);
	spin_unlock(&misses->lock);

	while ((bio = bio_list_pop(&bios))) {
		qc2_target_read_parked(misses->qt, bio);
		cond_resched();
	}
}

static void qc2_miss_timeout(struct work_struct *work)
{
	struct qc2_misses *misses = container_of(to_delayed_work(work), struct qc2_misses,
						 timeout_work);
	struct list_head *lists[] = { &misses->fresh, &misses->sent };
	struct bio_list failed = BIO_EMPTY_LIST;
	struct qc2_parked *parked, *next;
	unsigned int i;
	bool more;

	spin_lock(&misses->lock);
	for (i = 0; i < ARRAY_SIZE(lists); i++)
		list_for_each_entry_safe(parked, next, lists[i], list)
			if (misses->fail_after &&
			    time_after_eq(jiffies, parked->since + misses->fail_after * HZ))
				qc2_miss_take(misses, parked, &failed);
	more = misses->fail_after && misses->nr_requests;
	spin_unlock(&misses->lock);

	if (!bio_list_empty(&failed))
		DMWARN_LIMIT("%s: reads failed: no answer from the daemon in %u s",
			     dm_table_device_name(misses->qt->ti->table), misses->fail_after);
	qc2_miss_end_all(&failed, BLK_STS_IOERR);
	if (more)
		queue_delayed_work(misses->qt->wq, &misses->timeout_work, QC2_TIMEOUT_PERIOD);
}

/**
 * qc2_misses_init() - make an empty table of misses
 * @misses: the table
 * @qt: the target; @qt->wq is used from the first miss on
 */
void qc2_misses_init(struct qc2_misses *misses, struct qc2_target *qt)
{
	unsigned int i;

	misses->qt = qt;
	spin_lock_init(&misses->lock);
	for (i = 0; i < QC2_MISS_BUCKETS; i++)
		INIT_HLIST_HEAD(&misses->buckets[i]);
	INIT_LIST_HEAD(&misses->fresh);
	INIT_LIST_HEAD(&misses->sent);
	bio_list_init(&misses->ready);
	INIT_WORK(&misses->ready_work, qc2_miss_ready);
	INIT_DELAYED_WORK(&misses->timeout_work, qc2_miss_timeout);
}

/**
 * qc2_misses_stop() - stop the workers; no read is parked any more
 * @misses: the table
 */
void qc2_misses_stop(struct qc2_misses *misses)
{
	cancel_work_sync(&misses->ready_work);
	cancel_delayed_work_sync(&misses->timeout_work);
}

/* Notes in a request that a store has failed it.  Returns whether that is news. */
static bool qc2_miss_note_failed(struct qc2_parked *parked, u32 store)
{
	if (parked->failed && parked->failed_store == store)
		return false;
	parked->failed = true;
	parked->failed_store = store;
	return true;
}

/**
 * qc2_miss_park() - let a read wait for the daemon
 * @misses: the table
 * @bio: the read, with its qc2_bio; what is behind its first block is not asked
 *	for yet
 * @sector: where it begins on the virtual disk
 *
 * Unless the answer is QC2_PARK_REQUEUE the bio is no longer the caller's.
 *
 * Context: process.
 */
enum qc2_park_result qc2_miss_park(struct qc2_misses *misses, struct bio *bio, u64 sector)
{
	struct qc2_bio *qb = qc2_bio(bio);
	struct qc2_parked *parked = &qb->parked, *first;
	u64 block = div_u64(sector, QC2_BLOCK_SECTORS);
	enum qc2_park_result result = QC2_PARKED;
	bool limited;

	if (!parked->since)
		parked->since = jiffies ? : 1;

	spin_lock(&misses->lock);
	/* An interrupted suspend takes dm's flag back before ours. */
	if (misses->requeue && dm_noflush_suspending(misses->qt->ti)) {
		spin_unlock(&misses->lock);
		return QC2_PARK_REQUEUE;
	}

	limited = misses->fail_after;
	misses->nr_parked++;
	first = qc2_miss_find(misses, block);
	if (first) {
		/* All reads of a block fail with the one that waits longest. */
		if (time_before(parked->since, first->since))
			first->since = parked->since;
		bio_list_add(&first->followers, bio);
		first->nr_followers++;
		if (qb->reread.ask && qc2_miss_note_failed(first, qb->store_read.store)) {
			list_move_tail(&first->list, &misses->fresh);
			result = QC2_PARKED_NEW;
		}
	} else {
		bio_list_init(&parked->followers);
		parked->nr_followers = 0;
		parked->id = ++misses->last_id;
		parked->block = block;
		parked->failed = qb->reread.ask;
		parked->failed_store = parked->failed ? qb->store_read.store : 0;
		hlist_add_head(&parked->hash, qc2_miss_bucket(misses, block));
		list_add_tail(&parked->list, &misses->fresh);
		misses->nr_requests++;
		result = QC2_PARKED_NEW;
	}
	spin_unlock(&misses->lock);

	if (limited)
		queue_delayed_work(misses->qt->wq, &misses->timeout_work, QC2_TIMEOUT_PERIOD);
	return result;
}

/**
 * qc2_miss_wake() - let the reads go on that some runs concern
 * @misses: the table
 * @runs: runs that were put into the map
 * @nr_runs: their number
 *
 * Context: process.
 */
void qc2_miss_wake(struct qc2_misses *misses, const struct qc2_run *runs, unsigned int nr_runs)
{
	struct qc2_parked *parked;
	struct hlist_node *next;
	u64 block, last;
	unsigned int i, b;

	spin_lock(&misses->lock);
	for (i = 0; i < nr_runs && misses->nr_requests; i++) {
		block = div_u64(runs[i].sector, QC2_BLOCK_SECTORS);
		last = div_u64(runs[i].sector + runs[i].nr_sectors - 1, QC2_BLOCK_SECTORS);

		if (last - block < QC2_MISS_BUCKETS) {
			for (; block <= last; block++) {
				parked = qc2_miss_find(misses, block);
				if (parked)
					qc2_miss_take(misses, parked, &misses->ready);
			}
			continue;
		}
		for (b = 0; b < QC2_MISS_BUCKETS; b++)
			hlist_for_each_entry_safe(parked, next, &misses->buckets[b], hash)
				if (parked->block >= block && parked->block <= last)
					qc2_miss_take(misses, parked, &misses->ready);
	}
	if (!bio_list_empty(&misses->ready))
		queue_work(misses->qt->wq, &misses->ready_work);
	spin_unlock(&misses->lock);
}

static struct qc2_parked *qc2_miss_find_id(struct list_head *list, u64 id)
{
	struct qc2_parked *parked;

	list_for_each_entry(parked, list, list)
		if (parked->id == id)
			return parked;
	return NULL;
}

/**
 * qc2_miss_fail() - fail the reads that wait for a request
 * @misses: the table
 * @id: of a request that the daemon was told of
 * @status: for the reads
 *
 * Context: process.
 * Return: 0, or -ENOENT if there is no such request (any more).
 */
int qc2_miss_fail(struct qc2_misses *misses, u64 id, blk_status_t status)
{
	struct bio_list bios = BIO_EMPTY_LIST;
	struct qc2_parked *parked;

	spin_lock(&misses->lock);
	parked = qc2_miss_find_id(&misses->sent, id);
	if (parked)
		qc2_miss_take(misses, parked, &bios);
	spin_unlock(&misses->lock);

	if (!parked)
		return -ENOENT;
	qc2_miss_end_all(&bios, status);
	return 0;
}

/**
 * qc2_miss_peek() - the oldest request that the daemon was not told of
 * @misses: the table
 * @req: filled
 *
 * Context: process.
 * Return: whether there is one.
 */
bool qc2_miss_peek(struct qc2_misses *misses, struct qc2_request *req)
{
	struct qc2_parked *parked;

	spin_lock(&misses->lock);
	parked = list_first_entry_or_null(&misses->fresh, struct qc2_parked, list);
	if (parked) {
		req->id = parked->id;
		req->sector = parked->block * QC2_BLOCK_SECTORS;
		req->nr_sectors = min_t(u64, QC2_BLOCK_SECTORS,
					misses->qt->ti->len - req->sector);
		req->failed = parked->failed;
		req->failed_store = parked->failed_store;
	}
	spin_unlock(&misses->lock);
	return parked;
}

/**
 * qc2_miss_sent() - the daemon is being told of a request
 * @misses: the table
 * @req: as qc2_miss_peek() gave it; it may be gone meanwhile, or another store may
 *	have failed it, which the daemon has to be told, too
 *
 * Context: process.
 */
void qc2_miss_sent(struct qc2_misses *misses, const struct qc2_request *req)
{
	struct qc2_parked *parked;

	spin_lock(&misses->lock);
	parked = qc2_miss_find_id(&misses->fresh, req->id);
	if (parked && parked->failed == req->failed && parked->failed_store == req->failed_store)
		list_move_tail(&parked->list, &misses->sent);
	spin_unlock(&misses->lock);
}

/**
 * qc2_miss_resend() - make all requests fresh again
 * @misses: the table
 *
 * Context: process.
 * Return: whether there are any.
 */
bool qc2_miss_resend(struct qc2_misses *misses)
{
	bool any;

	spin_lock(&misses->lock);
	list_splice_init(&misses->sent, &misses->fresh);
	any = !list_empty(&misses->fresh);
	spin_unlock(&misses->lock);
	return any;
}

/**
 * qc2_miss_any_fresh() - whether there is something to tell the daemon
 * @misses: the table
 */
bool qc2_miss_any_fresh(struct qc2_misses *misses)
{
	return !list_empty_careful(&misses->fresh);
}

/**
 * qc2_misses_requeue() - give all waiting reads back to the dm core
 * @misses: the table
 *
 * For a suspend without flush: dm keeps the bios and maps them anew after the
 * resume, maybe by another table.  Until qc2_misses_resume() nothing is
 * parked.
 *
 * Context: process.
 */
void qc2_misses_requeue(struct qc2_misses *misses)
{
	struct bio_list bios = BIO_EMPTY_LIST;

	spin_lock(&misses->lock);
	misses->requeue = true;
	qc2_miss_take_all(misses, &bios);
	spin_unlock(&misses->lock);
	qc2_miss_end_all(&bios, BLK_STS_DM_REQUEUE);
}

/**
 * qc2_misses_resume() - reads may be parked again
 * @misses: the table
 */
void qc2_misses_resume(struct qc2_misses *misses)
{
	spin_lock(&misses->lock);
	misses->requeue = false;
	spin_unlock(&misses->lock);
}

/**
 * qc2_misses_status() - numbers for the status line
 * @misses: the table
 * @nr_parked: reads that wait
 * @nr_requests: blocks that they wait for
 * @oldest_ms: how long the first read of the longest-waiting block waits
 */
void qc2_misses_status(struct qc2_misses *misses, unsigned int *nr_parked,
		       unsigned int *nr_requests, unsigned int *oldest_ms)
{
	struct list_head *lists[] = { &misses->fresh, &misses->sent };
	struct qc2_parked *parked;
	unsigned long oldest = 0;
	unsigned int i;

	spin_lock(&misses->lock);
	*nr_parked = misses->nr_parked;
	*nr_requests = misses->nr_requests;
	for (i = 0; i < ARRAY_SIZE(lists); i++)
		list_for_each_entry(parked, lists[i], list)
			oldest = max(oldest, jiffies - parked->since);
	spin_unlock(&misses->lock);
	*oldest_ms = jiffies_to_msecs(oldest);
}
