/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Misses: reads whose place is not in the map wait here for the daemon.
 */
#ifndef QC2_MISS_H
#define QC2_MISS_H

#include <linux/bio.h>
#include <linux/spinlock.h>
#include <linux/types.h>
#include <linux/workqueue.h>

#include <linux/dm-qcow2chain.h>

struct qc2_target;

#define QC2_MISS_BUCKETS	256

enum qc2_park_result {
	QC2_PARKED,		/* waits with others for a request already made */
	QC2_PARKED_NEW,		/* a request with something new: ring the doorbell */
	QC2_PARK_REQUEUE,	/* not parked: the device is being suspended */
};

/**
 * struct qc2_parked - a read that waits
 * @hash: in the bucket of its block; for the first read of a block only
 * @list: in the list of new or of sent requests; likewise
 * @followers: the other reads of that block; likewise
 * @nr_followers: their number; likewise
 * @id: of the request; likewise
 * @block: number of the block; likewise
 * @failed: a read of the block has failed; likewise
 * @failed_store: index of the store that failed it; likewise
 * @since: jiffies when the read first missed; 0 before
 */
struct qc2_parked {
	struct hlist_node hash;
	struct list_head list;
	struct bio_list followers;
	unsigned int nr_followers;
	u64 id;
	u64 block;
	bool failed;
	u32 failed_store;
	unsigned long since;
};

/**
 * struct qc2_misses - the reads of one table that wait
 * @qt: the target
 * @lock: protects the rest
 * @buckets: first reads of blocks, by block
 * @fresh: requests that the daemon has not been told of
 * @sent: requests that it has been told of
 * @ready: reads that can go on
 * @nr_parked: reads that wait
 * @nr_requests: requests in @fresh and @sent
 * @last_id: id of the newest request
 * @fail_after: seconds after which a waiting read fails; 0: never
 * @requeue: the device is being suspended without flush: nothing is parked
 * @ready_work: lets @ready go on
 * @timeout_work: applies @fail_after
 */
struct qc2_misses {
	struct qc2_target *qt;
	spinlock_t lock;	/* see above */
	struct hlist_head buckets[QC2_MISS_BUCKETS];
	struct list_head fresh;
	struct list_head sent;
	struct bio_list ready;
	unsigned int nr_parked;
	unsigned int nr_requests;
	u64 last_id;
	unsigned int fail_after;
	bool requeue;
	struct work_struct ready_work;
	struct delayed_work timeout_work;
};

struct qc2_request {
	u64 id;
	u64 sector;
	u64 nr_sectors;
	bool failed;
	u32 failed_store;
};

void qc2_misses_init(struct qc2_misses *misses, struct qc2_target *qt);
void qc2_misses_stop(struct qc2_misses *misses);

enum qc2_park_result qc2_miss_park(struct qc2_misses *misses, struct bio *bio, u64 sector);
void qc2_miss_wake(struct qc2_misses *misses, const struct qc2_run *runs, unsigned int nr_runs);
int qc2_miss_fail(struct qc2_misses *misses, u64 id, blk_status_t status);

bool qc2_miss_peek(struct qc2_misses *misses, struct qc2_request *req);
void qc2_miss_sent(struct qc2_misses *misses, const struct qc2_request *req);
bool qc2_miss_resend(struct qc2_misses *misses);
bool qc2_miss_any_fresh(struct qc2_misses *misses);

void qc2_misses_requeue(struct qc2_misses *misses);
void qc2_misses_resume(struct qc2_misses *misses);

void qc2_misses_status(struct qc2_misses *misses, unsigned int *nr_parked,
		       unsigned int *nr_requests, unsigned int *oldest_ms);

#endif
