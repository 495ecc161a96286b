/* SPDX-License-Identifier: GPL-2.0 */
/*
 * One loaded qcow2chain table: what its parts (tip, map, misses, netlink)
 * share, and what is kept with each bio.
 */
#ifndef QC2_TARGET_H
#define QC2_TARGET_H

#include <linux/bio.h>
#include <linux/device-mapper.h>
#include <linux/percpu.h>
#include <linux/refcount.h>
#include <linux/workqueue.h>

#include <linux/dm-qcow2chain.h>

#include "map.h"
#include "miss.h"
#include "reread.h"
#include "tip.h"

#define DM_MSG_PREFIX "qcow2chain"

/* Counters of the data path.  Per CPU: a hit writes no shared cache line. */
struct qc2_stats {
	u64 reads_tip;
	u64 reads_store;
	u64 reads_zero;
	u64 reads_missed;
	u64 writes;
};

/* Bits of qc2_target.events: uevents that event_work has to send. */
enum qc2_event {
	QC2_EVENT_DAEMON,	/* another owner, or none */
	QC2_EVENT_READ_ONLY,
	QC2_EVENT_TIP_FULL,
	QC2_NR_EVENTS
};

/**
 * struct qc2_target - one loaded table
 * @ti: the dm target
 * @chain_id: the chain that map, stores and tip belong to
 * @generation: number of this table; never used twice
 * @devt: the mapped device, see QC2_ATTR_DEV
 * @writable: the table was not loaded as a read-only one
 * @tip_dev: device of the tip
 * @tip: state of the tip
 * @map: the chain map
 * @misses: reads that wait for the daemon
 * @rereads: reads that a store has failed
 * @stores: devices that the map's runs lie on
 * @nr_stores: their number
 * @block_sectors: size of a logical block
 * @wq: for commits, for reads that go on, and for time limits
 * @stats: see struct qc2_stats
 * @owner: netlink port of the daemon, 0 without one; written under the lock
 *	of netlink.c
 * @doorbell: bit 0 is set while a doorbell is on its way to the daemon
 * @doorbell_work: sends it
 * @events: bit mask of enum qc2_event
 * @event_work: sends @events as uevents.  Not on @wq: it may wait for memory,
 *	and for others who send uevents
 * @list: in the list of netlink.c, under its lock
 * @users: references that netlink operations hold; see qc2_netlink_remove()
 * @unused: completed when @users becomes 0
 */
struct qc2_target {
	struct dm_target *ti;
	u8 chain_id[QC2_CHAIN_ID_LEN];
	u64 generation;
	dev_t devt;
	bool writable;

	struct dm_dev *tip_dev;
	struct qc2_tip *tip;
	struct qc2_map map;
	struct qc2_misses misses;
	struct qc2_rereads rereads;
	struct dm_dev **stores;
	unsigned int nr_stores;
	unsigned int block_sectors;

	struct workqueue_struct *wq;
	struct qc2_stats __percpu *stats;

	u32 owner;
	unsigned long doorbell;
	struct work_struct doorbell_work;
	unsigned long events;
	struct work_struct event_work;

	struct list_head list;
	refcount_t users;
	struct completion unused;
};

/**
 * struct qc2_bio - what is kept with each bio of the target
 * @write: the write in flight; used by tip.c
 * @commit: the write must be committed before it completes
 * @discard: it came as a discard
 * @flush: an empty flush that the tip device does
 * @store_read: what it reads from a store, or did last
 * @reread: how to make the read again
 * @parked: the read as miss.c keeps it
 */
struct qc2_bio {
	struct qc2_tip_write write;
	bool commit;
	bool discard;
	bool flush;
	struct qc2_store_read store_read;
	struct qc2_reread reread;
	struct qc2_parked parked;
};

static inline struct qc2_bio *qc2_bio(struct bio *bio)
{
	return dm_per_bio_data(bio, sizeof(struct qc2_bio));
}

static inline struct bio *qc2_bio_of_parked(struct qc2_parked *parked)
{
	return dm_bio_from_per_bio_data(container_of(parked, struct qc2_bio, parked),
					sizeof(struct qc2_bio));
}

/**
 * qc2_target_read_parked() - let a read go on that was parked, or has failed
 * @qt: the target
 * @bio: a read whose sectors may be in the map now; parked, or parked again, if
 *	not
 *
 * Context: process; may sleep for a bio.
 */
void qc2_target_read_parked(struct qc2_target *qt, struct bio *bio);

/**
 * qc2_target_event() - tell user space, by a uevent and a dm event
 * @qt: the target
 * @event: what happened
 *
 * Context: any.
 */
void qc2_target_event(struct qc2_target *qt, enum qc2_event event);

#endif
