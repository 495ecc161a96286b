// SPDX-License-Identifier: GPL-2.0
/*
 * dm-qcow2chain: a virtual disk whose content is a chain of qcow2 files.
 *
 * DOC: Every sector is in one of four states.  In the tip: all writes go
 * there, and reads of what was written.  At a place in a store device (a cache
 * shared by all disks of the host).  Zero.  Or unknown: such a read is parked
 * until the daemon has said where the content is.  The target knows no image
 * format and no network.
 *
 * This file owns the target's operations: the table line, mapping bios,
 * suspend and resume, status.  tip.c owns the tip, map.c the chain map, lookup.c
 * asks both, miss.c owns the parked reads, reread.c those that a store has failed,
 * netlink.c the daemon.
 *
 * Table line:
 *	<chain id> <tip dev> <#stores> <store dev>... [<#features> <feature>...]
 * It is described in docs/uapi.md, with the status line and the messages.
 *
 * Locking: mapping a bio takes no lock unless it misses.
 */
#include <linux/blkdev.h>
#include <linux/kobject.h>
#include <linux/module.h>
#include <linux/slab.h>

#include "compat/compat.h"
#include "lookup.h"
#include "netlink.h"
#include "target.h"

/*
 * ---------------------------------------------------------------------------
 * The data path
 * ---------------------------------------------------------------------------
 */

/* Bios are mapped in process context, so no interrupt counts in between. */
static void qc2_count(u64 __percpu *counter)
{
	preempt_disable();
	__this_cpu_inc(*counter);
	preempt_enable();
}

/* @read: filled, except for the token of the map's readers */
static void qc2_remap_to_store(struct qc2_target *qt, struct bio *bio,
			       const struct qc2_place *place, struct qc2_store_read *read)
{
	read->sector = bio->bi_iter.bi_sector;
	read->nr_sectors = bio_sectors(bio);
	read->store = place->store;
	read->store_sector = place->store_sector;
	bio_set_dev(bio, qt->stores[place->store]->bdev);
	bio->bi_iter.bi_sector = place->store_sector;
}

static void qc2_end_bio(struct bio *bio, blk_status_t status)
{
	bio->bi_status = status;
	bio_endio(bio);
}

/* Parks a read of sectors that nothing is known of. */
static void qc2_park(struct qc2_target *qt, struct bio *bio, u64 sector)
{
	/* Nobody polls for what a worker submits, and that may wait. */
	bio->bi_opf &= ~(REQ_POLLED | REQ_NOWAIT);
	switch (qc2_miss_park(&qt->misses, bio, sector)) {
	case QC2_PARKED_NEW:
		qc2_netlink_doorbell(qt);
		break;
	case QC2_PARK_REQUEUE:
		qc2_end_bio(bio, BLK_STS_DM_REQUEUE);
		break;
	case QC2_PARKED:
		break;
	}
}

static int qc2_map_read(struct qc2_target *qt, struct bio *bio)
{
	struct qc2_bio *qb = qc2_bio(bio);
	u64 sector = bio->bi_iter.bi_sector;
	enum qc2_state state;
	struct qc2_place place;

	state = qc2_lookup(qt, sector, bio_sectors(bio), &place, &qb->store_read.map_reader);
	if (place.nr_sectors < bio_sectors(bio))
		dm_accept_partial_bio(bio, place.nr_sectors);

	switch (state) {
	case QC2_IN_TIP:
		qc2_count(&qt->stats->reads_tip);
		qc2_tip_remap(qt->tip, bio, sector);
		return DM_MAPIO_REMAPPED;
	case QC2_IN_STORE:
		qc2_count(&qt->stats->reads_store);
		qc2_reread_record(&qb->reread, bio);
		qc2_remap_to_store(qt, bio, &place, &qb->store_read);
		return DM_MAPIO_REMAPPED;
	case QC2_ZERO:
		qc2_count(&qt->stats->reads_zero);
		zero_fill_bio(bio);
		bio_endio(bio);
		return DM_MAPIO_SUBMITTED;
	case QC2_UNKNOWN:
		break;
	}

	qc2_count(&qt->stats->reads_missed);
	qc2_reread_record(&qb->reread, bio);
	qc2_park(qt, bio, sector);
	return DM_MAPIO_SUBMITTED;
}

/* A part that was split off a parked read. */
struct qc2_part {
	struct qc2_target *qt;
	struct bio *parent;
	struct qc2_store_read store_read;
	struct bio bio;		/* last */
};

static struct bio_set qc2_part_set;

static void qc2_part_end(struct bio *bio)
{
	struct qc2_part *part = container_of(bio, struct qc2_part, bio);
	struct bio *parent = part->parent;
	struct qc2_reread *reread = &qc2_bio(parent)->reread;

	if (part->store_read.map_reader)
		qc2_map_read_unlock(&part->qt->map, part->store_read.map_reader);
	if (bio->bi_status) {
		if (part->store_read.map_reader && qc2_reread_useful(bio, bio->bi_status)) {
			WRITE_ONCE(reread->store_part_failed, true);
		} else {
			WRITE_ONCE(reread->part_failed, true);
			if (!parent->bi_status)
				parent->bi_status = bio->bi_status;
		}
	}
	bio_put(bio);
	bio_endio(parent);
}

/* Splits the first @nr_sectors off; @bio completes after them. */
static struct qc2_part *qc2_split(struct qc2_target *qt, struct bio *bio,
				  unsigned int nr_sectors)
{
	struct bio *split = bio_split(bio, nr_sectors, GFP_NOIO, &qc2_part_set);
	struct qc2_part *part;

	if (IS_ERR_OR_NULL(split))
		return NULL;

	part = container_of(split, struct qc2_part, bio);
	part->qt = qt;
	part->parent = bio;
	split->bi_end_io = qc2_part_end;
	bio_inc_remaining(bio);
	return part;
}

void qc2_target_read_parked(struct qc2_target *qt, struct bio *bio)
{
	struct qc2_bio *qb = qc2_bio(bio);
	struct qc2_store_read *read;
	enum qc2_state state;
	struct qc2_place place;
	struct qc2_part *part;
	struct bio *piece;
	unsigned long reader;
	bool last;
	u64 sector;

	do {
		sector = bio->bi_iter.bi_sector;
		state = qc2_lookup(qt, sector, bio_sectors(bio), &place, &reader);
		if (state == QC2_UNKNOWN) {
			qc2_park(qt, bio, sector);
			return;
		}

		if (qb->reread.by_pieces)
			place.nr_sectors = qc2_reread_piece(&qb->reread, bio, place.nr_sectors);
		last = place.nr_sectors == bio_sectors(bio);
		piece = bio;
		read = &qb->store_read;
		if (!last) {
			part = qc2_split(qt, bio, place.nr_sectors);
			if (!part) {
				if (reader)
					qc2_map_read_unlock(&qt->map, reader);
				qc2_end_bio(bio, BLK_STS_RESOURCE);
				return;
			}
			piece = &part->bio;
			read = &part->store_read;
		}
		read->map_reader = reader;

		if (state == QC2_ZERO) {
			zero_fill_bio(piece);
			bio_endio(piece);
			continue;
		}
		if (state == QC2_IN_TIP)
			qc2_tip_remap(qt->tip, piece, sector);
		else
			qc2_remap_to_store(qt, piece, &place, read);
		submit_bio_noacct(piece);
	} while (!last);
}

static int qc2_map_write(struct qc2_target *qt, struct bio *bio)
{
	struct qc2_bio *qb = qc2_bio(bio);
	u64 sector = bio->bi_iter.bi_sector;
	unsigned int nr_sectors;

	if (READ_ONCE(qt->tip->read_only) || !qt->writable)
		return DM_MAPIO_KILL;

	nr_sectors = qc2_write_reach(sector, bio_sectors(bio));
	if (nr_sectors < bio_sectors(bio))
		dm_accept_partial_bio(bio, nr_sectors);

	if (qc2_tip_write_begin(qt->tip, &qb->write, sector, nr_sectors,
				bio->bi_opf & REQ_NOWAIT)) {
		bio_wouldblock_error(bio);
		return DM_MAPIO_SUBMITTED;
	}

	/*
	 * A discarded sector reads as zeros and never as the chain's content
	 * again: the tip is punched, and the sectors are in the tip.
	 */
	if (bio_op(bio) == REQ_OP_DISCARD) {
		bio->bi_opf = (bio->bi_opf & ~REQ_OP_MASK) | REQ_OP_WRITE_ZEROES;
		qb->discard = true;
	}

	/*
	 * FUA: the data and every bit that it sets or relies on.  The flush of
	 * the commit makes the data durable, too.
	 */
	if ((bio->bi_opf & REQ_FUA) &&
	    (qc2_tip_write_adds(qt->tip, &qb->write) ||
	     !qc2_dirty_committed(&qt->tip->dirty))) {
		bio->bi_opf &= ~REQ_FUA;
		qb->commit = true;
	}

	qc2_count(&qt->stats->writes);
	qc2_tip_remap(qt->tip, bio, sector);
	return DM_MAPIO_REMAPPED;
}

static int qc2_map_flush(struct qc2_target *qt, struct bio *bio)
{
	/* What a failed commit has lost no flush makes durable. */
	if (READ_ONCE(qt->tip->read_only))
		return DM_MAPIO_KILL;
	if (qc2_dirty_committed(&qt->tip->dirty)) {
		qc2_bio(bio)->flush = true;
		bio_set_dev(bio, qt->tip_dev->bdev);
		return DM_MAPIO_REMAPPED;
	}
	qc2_commit_queue(qt->tip, bio);
	return DM_MAPIO_SUBMITTED;
}

static int qc2_map_bio(struct dm_target *ti, struct bio *bio)
{
	struct qc2_target *qt = ti->private;
	struct qc2_bio *qb = qc2_bio(bio);

	qb->write.nr_sectors = 0;
	qb->commit = false;
	qb->discard = false;
	qb->flush = false;
	qb->store_read.map_reader = 0;
	qb->reread.nr_failures = 0;
	qb->reread.by_pieces = false;
	qb->reread.ask = false;
	qb->reread.store_part_failed = false;
	qb->reread.part_failed = false;
	qb->parked.since = 0;

	/* The core sends the flush of a write as an empty bio before it. */
	if (bio->bi_opf & REQ_PREFLUSH)
		return qc2_map_flush(qt, bio);

	switch (bio_op(bio)) {
	case REQ_OP_READ:
		return qc2_map_read(qt, bio);
	case REQ_OP_WRITE:
	case REQ_OP_DISCARD:
	case REQ_OP_WRITE_ZEROES:
		return qc2_map_write(qt, bio);
	default:
		qc2_end_bio(bio, BLK_STS_NOTSUPP);
		return DM_MAPIO_SUBMITTED;
	}
}

static int qc2_end_io(struct dm_target *ti, struct bio *bio, blk_status_t *error)
{
	struct qc2_target *qt = ti->private;
	struct qc2_bio *qb = qc2_bio(bio);
	bool of_store = qb->store_read.map_reader;

	if (of_store) {
		qc2_map_read_unlock(&qt->map, qb->store_read.map_reader);
		qb->store_read.map_reader = 0;
	}
	if (qc2_reread_end(&qt->rereads, bio, of_store, error))
		return DM_ENDIO_INCOMPLETE;

	/*
	 * A discard that is not supported counts as done, but this one was to
	 * zero.  The tip device may lose the ability while it is in use.
	 */
	if (*error == BLK_STS_NOTSUPP && qb->discard)
		*error = BLK_STS_IOERR;

	qc2_tip_write_end(qt->tip, &qb->write, *error);
	if (qb->flush) {
		if (unlikely(*error))
			qc2_tip_set_read_only(qt->tip, "flush of the tip",
					      blk_status_to_errno(*error));
		else if (unlikely(READ_ONCE(qt->tip->read_only)))
			/* A flush of ours may have got the error that this one did not. */
			*error = BLK_STS_IOERR;
	}

	if (qb->commit && !*error) {
		/* The commit calls bi_end_io again; then there is nothing to do. */
		qb->commit = false;
		qc2_commit_queue(qt->tip, bio);
		return DM_ENDIO_INCOMPLETE;
	}
	return DM_ENDIO_DONE;
}

/*
 * ---------------------------------------------------------------------------
 * The table line
 * ---------------------------------------------------------------------------
 */

static int qc2_parse_chain_id(struct qc2_target *qt, struct dm_arg_set *as, char **error)
{
	const char *arg = dm_shift_arg(as);

	if (!arg || strlen(arg) != 2 * QC2_CHAIN_ID_LEN ||
	    hex2bin(qt->chain_id, arg, QC2_CHAIN_ID_LEN)) {
		*error = "Invalid chain id (32 hexadecimal digits expected)";
		return -EINVAL;
	}
	return 0;
}

static int qc2_parse_tip(struct qc2_target *qt, struct dm_arg_set *as, char **error)
{
	const char *arg = dm_shift_arg(as);
	int r;

	if (!arg) {
		*error = "Tip device is missing";
		return -EINVAL;
	}

	r = dm_get_device(qt->ti, arg, dm_table_get_mode(qt->ti->table), &qt->tip_dev);
	if (r) {
		*error = "Cannot open tip device";
		return r;
	}
	if (bdev_logical_block_size(qt->tip_dev->bdev) > QC2_TIP_BLOCK_SIZE) {
		*error = "Logical blocks of the tip device are larger than 4096 bytes";
		return -EINVAL;
	}
	return 0;
}

static int qc2_parse_stores(struct qc2_target *qt, struct dm_arg_set *as, char **error)
{
	static const struct dm_arg nr_arg = {
		0, QC2_MAX_STORES, "Invalid number of store devices",
	};
	unsigned int nr;
	int r;

	r = dm_read_arg(&nr_arg, as, &nr, error);
	if (r)
		return r;

	qt->stores = kcalloc(nr, sizeof(*qt->stores), GFP_KERNEL);
	if (!qt->stores) {
		*error = "Cannot allocate store devices";
		return -ENOMEM;
	}

	while (qt->nr_stores < nr) {
		const char *arg = dm_shift_arg(as);

		if (!arg) {
			*error = "Store device is missing";
			return -EINVAL;
		}
		r = dm_get_device(qt->ti, arg, BLK_OPEN_READ, &qt->stores[qt->nr_stores]);
		if (r) {
			*error = "Cannot open store device";
			return r;
		}
		qt->nr_stores++;
	}
	return 0;
}

static int qc2_parse_map_limit(const char *arg, size_t *limit)
{
	unsigned int kb;

	if (kstrtouint(arg, 10, &kb) || kb < QC2_MAP_LIMIT_KB_MIN || kb > SIZE_MAX / 1024)
		return -EINVAL;
	*limit = (size_t)kb * 1024;
	return 0;
}

static int qc2_parse_features(struct qc2_target *qt, struct dm_arg_set *as, size_t *map_limit,
			      unsigned int *fail_after, char **error)
{
	static const struct dm_arg nr_arg = { 0, 4, "Invalid number of feature arguments" };
	unsigned int nr;
	int r;

	if (!as->argc)
		return 0;

	r = dm_read_arg_group(&nr_arg, as, &nr, error);
	if (r)
		return r;

	while (nr) {
		const char *name = dm_shift_arg(as);
		const char *value = nr > 1 ? dm_shift_arg(as) : NULL;

		if (!value) {
			*error = "Feature without a value";
			return -EINVAL;
		}
		nr -= 2;

		if (!strcmp(name, "map_limit_kb")) {
			r = qc2_parse_map_limit(value, map_limit);
			*error = "Invalid map_limit_kb (a number of at least 256 expected)";
		} else if (!strcmp(name, "fail_reads_after")) {
			r = kstrtouint(value, 10, fail_after);
			if (!r && *fail_after > 86400)
				r = -ERANGE;
			*error = "Invalid fail_reads_after (0 to 86400 seconds expected)";
		} else {
			r = -EINVAL;
			*error = "Unknown feature";
		}
		if (r)
			return -EINVAL;
	}

	if (as->argc) {
		*error = "Too many arguments";
		return -EINVAL;
	}
	return 0;
}

static char *qc2_event_action(struct qc2_target *qt, enum qc2_event event)
{
	switch (event) {
	case QC2_EVENT_DAEMON:
		return READ_ONCE(qt->owner) ? "DM_ACTION=DAEMON_BACK" : "DM_ACTION=DAEMON_LOST";
	case QC2_EVENT_READ_ONLY:
		return "DM_ACTION=READ_ONLY";
	case QC2_EVENT_TIP_FULL:
		return "DM_ACTION=TIP_FULL";
	case QC2_NR_EVENTS:
		break;
	}
	return NULL;
}

static void qc2_send_events(struct work_struct *work)
{
	struct qc2_target *qt = container_of(work, struct qc2_target, event_work);
	struct mapped_device *md = dm_table_get_md(qt->ti->table);
	char *env[3] = { "DM_TARGET=qcow2chain", NULL, NULL };
	enum qc2_event event;

	for (event = 0; event < QC2_NR_EVENTS; event++) {
		if (!test_and_clear_bit(event, &qt->events))
			continue;
		env[1] = qc2_event_action(qt, event);
		kobject_uevent_env(&disk_to_dev(dm_disk(md))->kobj, KOBJ_CHANGE, env);
		dm_table_event(qt->ti->table);
	}
}

void qc2_target_event(struct qc2_target *qt, enum qc2_event event)
{
	set_bit(event, &qt->events);
	schedule_work(&qt->event_work);
}

/* Undoes as much of the constructor as was done. */
static void qc2_free(struct qc2_target *qt)
{
	unsigned int i;

	if (qt->wq)
		destroy_workqueue(qt->wq);
	/* Not cancelled: that a commit failed at a suspend is told by nobody else. */
	flush_work(&qt->event_work);
	if (!IS_ERR_OR_NULL(qt->tip))
		qc2_tip_close(qt->tip);
	if (qt->map.scratch)
		qc2_map_destroy(&qt->map);
	for (i = 0; i < qt->nr_stores; i++)
		dm_put_device(qt->ti, qt->stores[i]);
	if (qt->tip_dev)
		dm_put_device(qt->ti, qt->tip_dev);
	kfree(qt->stores);
	free_percpu(qt->stats);
	kfree(qt);
}

/* The largest logical block of the devices below, which the disk gets, too. */
static unsigned int qc2_block_sectors(struct qc2_target *qt)
{
	unsigned int bytes = bdev_logical_block_size(qt->tip_dev->bdev), i;

	for (i = 0; i < qt->nr_stores; i++)
		bytes = max(bytes, bdev_logical_block_size(qt->stores[i]->bdev));
	return bytes >> SECTOR_SHIFT;
}

static int qc2_ctr(struct dm_target *ti, unsigned int argc, char **argv)
{
	struct dm_arg_set as = { argc, argv };
	size_t map_limit = QC2_MAP_LIMIT_KB_DEFAULT * 1024UL;
	unsigned int fail_after = 0;
	struct qc2_target *qt;
	int r;

	qt = kzalloc(sizeof(*qt), GFP_KERNEL);
	if (!qt) {
		ti->error = "Cannot allocate target";
		return -ENOMEM;
	}
	qt->ti = ti;
	qt->writable = dm_table_get_mode(ti->table) & BLK_OPEN_WRITE;
	qt->devt = disk_devt(dm_disk(dm_table_get_md(ti->table)));
	INIT_WORK(&qt->event_work, qc2_send_events);

	r = qc2_parse_chain_id(qt, &as, &ti->error);
	if (!r)
		r = qc2_parse_tip(qt, &as, &ti->error);
	if (!r)
		r = qc2_parse_stores(qt, &as, &ti->error);
	if (!r)
		r = qc2_parse_features(qt, &as, &map_limit, &fail_after, &ti->error);
	if (r)
		goto bad;

	/* The limits of the mapped device are still those of an older table. */
	qt->block_sectors = qc2_block_sectors(qt);
	qt->tip = qc2_tip_open(qt, &ti->error);
	if (IS_ERR(qt->tip)) {
		r = PTR_ERR(qt->tip);
		goto bad;
	}

	r = -ENOMEM;
	ti->error = "Cannot allocate target";
	qt->stats = alloc_percpu(struct qc2_stats);
	if (!qt->stats)
		goto bad;
	if (qc2_map_init(&qt->map, map_limit, dm_table_device_name(ti->table)))
		goto bad;
	qt->wq = alloc_workqueue("qcow2chain/%s", WQ_MEM_RECLAIM | WQ_UNBOUND, 0,
				 dm_table_device_name(ti->table));
	if (!qt->wq)
		goto bad;

	qc2_misses_init(&qt->misses, qt);
	qt->misses.fail_after = fail_after;
	qc2_rereads_init(&qt->rereads, qt);

	ti->error = NULL;
	ti->private = qt;
	ti->per_io_data_size = sizeof(struct qc2_bio);
	ti->num_flush_bios = 1;
	ti->flush_supported = true;
	if (bdev_write_zeroes_sectors(qt->tip_dev->bdev)) {
		ti->num_discard_bios = 1;
		ti->num_write_zeroes_bios = 1;
		ti->discards_supported = true;
	}
	qc2_netlink_add(qt);
	return 0;
bad:
	qc2_free(qt);
	return r;
}

static void qc2_dtr(struct dm_target *ti)
{
	struct qc2_target *qt = ti->private;

	qc2_netlink_remove(qt);
	qc2_rereads_stop(&qt->rereads);
	qc2_misses_stop(&qt->misses);
	qc2_free(qt);
}

static int qc2_iterate_devices(struct dm_target *ti, iterate_devices_callout_fn fn, void *data)
{
	struct qc2_target *qt = ti->private;
	unsigned int i;
	int r;

	r = fn(ti, qt->tip_dev, qt->tip->data_start, ti->len, data);
	for (i = 0; !r && i < qt->nr_stores; i++)
		r = fn(ti, qt->stores[i], 0, bdev_nr_sectors(qt->stores[i]->bdev), data);
	return r;
}

static void qc2_io_hints(struct dm_target *ti, struct queue_limits *limits)
{
	/*
	 * Logical blocks are as small as the devices below allow, because disk
	 * images keep partition tables in units of 512 bytes; writes of 4 KiB
	 * are what the tip likes.
	 */
	limits->physical_block_size = max(limits->physical_block_size, 4096U);
	limits->io_min = max(limits->io_min, 4096U);

	if (ti->discards_supported) {
		limits->max_discard_sectors = QC2_REGION_SECTORS;
		limits->max_hw_discard_sectors = QC2_REGION_SECTORS;
		limits->discard_granularity = limits->logical_block_size;
	}
}

/*
 * ---------------------------------------------------------------------------
 * Suspend and resume
 * ---------------------------------------------------------------------------
 */

static void qc2_presuspend(struct dm_target *ti)
{
	struct qc2_target *qt = ti->private;

	/* Otherwise dm waits for the daemon's answers. */
	if (dm_noflush_suspending(ti))
		qc2_misses_requeue(&qt->misses);
}

static void qc2_presuspend_undo(struct dm_target *ti)
{
	struct qc2_target *qt = ti->private;

	qc2_misses_resume(&qt->misses);
}

static void qc2_postsuspend(struct dm_target *ti)
{
	struct qc2_target *qt = ti->private;

	qc2_commit_suspend(qt->tip);
}

static int qc2_preresume(struct dm_target *ti)
{
	struct qc2_target *qt = ti->private;

	return qc2_tip_load(qt->tip);
}

static void qc2_resume(struct dm_target *ti)
{
	struct qc2_target *qt = ti->private;

	qc2_misses_resume(&qt->misses);
	qc2_commit_resume(qt->tip);
}

/*
 * ---------------------------------------------------------------------------
 * Status and messages
 * ---------------------------------------------------------------------------
 */

static void qc2_sum_stats(struct qc2_target *qt, struct qc2_stats *sum)
{
	int cpu;

	memset(sum, 0, sizeof(*sum));
	for_each_possible_cpu(cpu) {
		const struct qc2_stats *stats = per_cpu_ptr(qt->stats, cpu);

		sum->reads_tip += READ_ONCE(stats->reads_tip);
		sum->reads_store += READ_ONCE(stats->reads_store);
		sum->reads_zero += READ_ONCE(stats->reads_zero);
		sum->reads_missed += READ_ONCE(stats->reads_missed);
		sum->writes += READ_ONCE(stats->writes);
	}
}

static void qc2_status(struct dm_target *ti, status_type_t type, unsigned int status_flags,
		       char *result, unsigned int maxlen)
{
	struct qc2_target *qt = ti->private;
	size_t map_limit = READ_ONCE(qt->map.limit);
	unsigned int nr_parked, nr_requests, oldest_ms, i, nr_features;
	struct qc2_stats stats;
	unsigned int sz = 0;

	switch (type) {
	case STATUSTYPE_INFO:
		qc2_sum_stats(qt, &stats);
		qc2_misses_status(&qt->misses, &nr_parked, &nr_requests, &oldest_ms);
		DMEMIT("%s %u %llu %zu/%zu %u %u %u %llu %llu %llu %llu %llu %llu %lld",
		       READ_ONCE(qt->tip->read_only) ? "ro" : "rw", READ_ONCE(qt->owner),
		       qc2_dirty_nr_sectors(&qt->tip->dirty),
		       DIV_ROUND_UP(READ_ONCE(qt->map.bytes), 1024), map_limit / 1024,
		       nr_parked, nr_requests, oldest_ms,
		       stats.reads_tip, stats.reads_store, stats.reads_zero,
		       stats.reads_missed, stats.writes, qc2_commit_count(qt->tip),
		       (s64)atomic64_read(&qt->rereads.count));
		break;

	case STATUSTYPE_TABLE:
		DMEMIT("%*phN %s %u", QC2_CHAIN_ID_LEN, qt->chain_id, qt->tip_dev->name,
		       qt->nr_stores);
		for (i = 0; i < qt->nr_stores; i++)
			DMEMIT(" %s", qt->stores[i]->name);

		nr_features = (map_limit != QC2_MAP_LIMIT_KB_DEFAULT * 1024UL ? 2 : 0) +
			      (qt->misses.fail_after ? 2 : 0);
		if (nr_features)
			DMEMIT(" %u", nr_features);
		if (map_limit != QC2_MAP_LIMIT_KB_DEFAULT * 1024UL)
			DMEMIT(" map_limit_kb %zu", map_limit / 1024);
		if (qt->misses.fail_after)
			DMEMIT(" fail_reads_after %u", qt->misses.fail_after);
		break;

	case STATUSTYPE_IMA:
		DMEMIT_TARGET_NAME_VERSION(ti->type);
		DMEMIT(",chain_id=%*phN,tip_device_name=%s;", QC2_CHAIN_ID_LEN, qt->chain_id,
		       qt->tip_dev->name);
		break;
	}
}

static int qc2_message(struct dm_target *ti, unsigned int argc, char **argv, char *result,
		       unsigned int maxlen)
{
	struct qc2_target *qt = ti->private;
	size_t limit;

	if (argc == 2 && !strcasecmp(argv[0], "map_limit_kb")) {
		if (qc2_parse_map_limit(argv[1], &limit)) {
			DMERR("invalid map_limit_kb: %s", argv[1]);
			return -EINVAL;
		}
		qc2_map_set_limit(&qt->map, limit);
		return 0;
	}
	if (argc == 1 && !strcasecmp(argv[0], "map_drop")) {
		qc2_map_drop(&qt->map);
		return 0;
	}

	DMERR("unknown message: %s", argv[0]);
	return -EINVAL;
}

static struct target_type qc2_target_type = {
	.name = "qcow2chain",
	.version = {0, 1, 0},
	.features = DM_TARGET_SINGLETON | DM_TARGET_NOWAIT,
	.module = THIS_MODULE,
	.ctr = qc2_ctr,
	.dtr = qc2_dtr,
	.map = qc2_map_bio,
	.end_io = qc2_end_io,
	.presuspend = qc2_presuspend,
	.presuspend_undo = qc2_presuspend_undo,
	.postsuspend = qc2_postsuspend,
	.preresume = qc2_preresume,
	.resume = qc2_resume,
	.status = qc2_status,
	.message = qc2_message,
	.iterate_devices = qc2_iterate_devices,
	.io_hints = qc2_io_hints,
};

static int __init qc2_init(void)
{
	int r;

	r = qc2_dirty_cache_init();
	if (r)
		return r;
	r = bioset_init(&qc2_part_set, BIO_POOL_SIZE, offsetof(struct qc2_part, bio),
			BIOSET_NEED_BVECS);
	if (r)
		goto bad_bioset;
	r = qc2_netlink_init();
	if (r)
		goto bad_netlink;
	r = dm_register_target(&qc2_target_type);
	if (r)
		goto bad_target;
	return 0;

bad_target:
	qc2_netlink_exit();
bad_netlink:
	bioset_exit(&qc2_part_set);
bad_bioset:
	qc2_dirty_cache_exit();
	return r;
}

static void __exit qc2_exit(void)
{
	dm_unregister_target(&qc2_target_type);
	qc2_netlink_exit();
	bioset_exit(&qc2_part_set);
	/* Regions and chunks may still be on their way to be freed. */
	rcu_barrier();
	qc2_dirty_cache_exit();
}

module_init(qc2_init);
module_exit(qc2_exit);

MODULE_DESCRIPTION(DM_NAME " target for chains of qcow2 images");
MODULE_AUTHOR("The qcow2chain authors");
MODULE_LICENSE("GPL");
MODULE_SOFTDEP("pre: crc32c");
