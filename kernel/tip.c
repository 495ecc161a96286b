// SPDX-License-Identifier: GPL-2.0
/*
 * The tip: its superblock, loading its state, and the life of a write.
 *
 * dirty.c keeps the state of the sectors in memory, commit.c brings it to the
 * device.
 *
 * Locking: @qc2_tips_lock protects the list of tips.  Loading a tip needs no
 * other lock, for no bio is in flight then.
 */
#include <linux/blkdev.h>
#include <linux/math64.h>
#include <linux/mutex.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>

#include "compat/compat.h"
#include "journal.h"
#include "target.h"

#define QC2_LONGS_PER_BLOCK	(QC2_TIP_BLOCK_SIZE / sizeof(long))

/* All tips of all tables, to find those on the same device. */
static LIST_HEAD(qc2_tips);
static DEFINE_MUTEX(qc2_tips_lock);

/*
 * ---------------------------------------------------------------------------
 * The superblock
 * ---------------------------------------------------------------------------
 */

static bool qc2_super_checksum_ok(struct qc2_tip_super *sb)
{
	__le32 found = sb->checksum;
	u32 crc;

	sb->checksum = 0;
	crc = qc2_crc32c(sb, sizeof(*sb));
	sb->checksum = found;
	return le32_to_cpu(found) == crc;
}

/* Whether [@start, @start + @sectors) is aligned, and lies behind @after. */
static bool qc2_area_ok(u64 start, u64 sectors, u64 after, u64 device)
{
	return !(start % QC2_TIP_BLOCK_SECTORS) && start >= after &&
	       start <= device && sectors <= device - start;
}

static bool qc2_journal_ok(struct qc2_tip *tip, u64 after, u64 device)
{
	return tip->journal_sectors >= QC2_TIP_JOURNAL_ALIGN &&
	       tip->journal_sectors <= QC2_TIP_JOURNAL_MAX &&
	       !(tip->journal_sectors % QC2_TIP_JOURNAL_ALIGN) && tip->id &&
	       qc2_area_ok(tip->journal_start, tip->journal_sectors, after, device);
}

/* Checks everything that does not depend on the table. */
static int qc2_super_check(struct qc2_tip *tip, const struct qc2_tip_super *sb, char **error)
{
	u64 device = bdev_nr_sectors(tip->bdev);
	u64 incompat = le64_to_cpu(sb->incompat);
	u64 end, summary_sectors, bitmap_sectors;

	if (incompat & ~QC2_TIP_INCOMPAT_JOURNAL) {
		*error = "Tip has features that this version does not know";
		return -EOPNOTSUPP;
	}

	tip->nr_sectors = le64_to_cpu(sb->nr_sectors);
	tip->summary_start = le64_to_cpu(sb->summary_start);
	tip->bitmap_start = le64_to_cpu(sb->bitmap_start);
	tip->data_start = le64_to_cpu(sb->data_start);
	if (!tip->nr_sectors || tip->nr_sectors > QC2_TIP_MAX_SECTORS)
		goto bad;

	tip->nr_blocks = DIV_ROUND_UP_ULL(tip->nr_sectors, QC2_TIP_BLOCK_BITS);
	bitmap_sectors = tip->nr_blocks * QC2_TIP_BLOCK_SECTORS;
	summary_sectors = DIV_ROUND_UP_ULL(tip->nr_blocks, QC2_TIP_BLOCK_BITS) *
			  QC2_TIP_BLOCK_SECTORS;

	end = QC2_TIP_SB1_SECTOR + QC2_TIP_BLOCK_SECTORS;
	if (!qc2_area_ok(tip->summary_start, summary_sectors, end, device))
		goto bad;
	end = tip->summary_start + summary_sectors;
	if (incompat & QC2_TIP_INCOMPAT_JOURNAL) {
		tip->journal_start = le64_to_cpu(sb->journal_start);
		tip->journal_sectors = le64_to_cpu(sb->journal_sectors);
		tip->id = le64_to_cpu(sb->tip_id);
		if (!qc2_journal_ok(tip, end, device))
			goto bad;
		end = tip->journal_start + tip->journal_sectors;
	}
	if (!qc2_area_ok(tip->bitmap_start, bitmap_sectors, end, device))
		goto bad;
	end = tip->bitmap_start + bitmap_sectors;
	if (tip->data_start % QC2_TIP_DATA_ALIGN ||
	    !qc2_area_ok(tip->data_start, 0, end, device))
		goto bad;

	if (tip->nr_sectors > device - tip->data_start) {
		*error = "Tip device is smaller than its superblock says (truncated?)";
		return -EINVAL;
	}
	return 0;
bad:
	*error = "Tip superblock has invalid areas";
	return -EINVAL;
}

static int qc2_super_read(struct qc2_tip *tip, char **error)
{
	static const u64 copies[] = { QC2_TIP_SB0_SECTOR, QC2_TIP_SB1_SECTOR };
	struct qc2_tip_super *sb, *best = NULL;
	struct qc2_metaio *io = &tip->commit.io;
	bool damaged = false;
	unsigned int i;
	int r;

	if (bdev_nr_sectors(tip->bdev) < QC2_TIP_SB1_SECTOR + QC2_TIP_BLOCK_SECTORS) {
		*error = "Tip device is too small to hold a superblock";
		return -EINVAL;
	}

	for (i = 0; i < ARRAY_SIZE(copies); i++) {
		io->blocks[i].block = copies[i] / QC2_TIP_BLOCK_SECTORS;
		memset(qc2_metaio_data(io, i), 0, QC2_TIP_BLOCK_SIZE);
	}
	/* One unreadable copy is what the other one is for. */
	r = qc2_metaio_run(io, 0, ARRAY_SIZE(copies), REQ_OP_READ | REQ_META);

	for (i = 0; i < ARRAY_SIZE(copies); i++) {
		sb = qc2_metaio_data(io, i);
		if (memcmp(sb->magic, QC2_TIP_MAGIC, QC2_TIP_MAGIC_LEN))
			continue;
		if (!qc2_super_checksum_ok(sb)) {
			damaged = true;
			continue;
		}
		if (!best || le64_to_cpu(sb->seq) > le64_to_cpu(best->seq))
			best = sb;
	}

	if (!best) {
		if (damaged)
			*error = "Tip superblock is damaged in both copies";
		else if (r)
			*error = "Tip superblock cannot be read";
		else
			*error = "Device is not a tip (no superblock)";
		return r ? r : -EINVAL;
	}

	/* The checksum covers the block in every version of the format. */
	if (le32_to_cpu(best->version) != QC2_TIP_VERSION) {
		*error = "Tip has a newer format version";
		return -EOPNOTSUPP;
	}

	r = qc2_super_check(tip, best, error);
	if (r)
		return r;

	if (memcmp(best->chain_id, tip->qt->chain_id, QC2_CHAIN_ID_LEN)) {
		*error = "Tip belongs to another chain";
		return -EINVAL;
	}
	if (tip->nr_sectors != tip->qt->ti->len) {
		*error = "Tip was made for a disk of another size";
		return -EINVAL;
	}
	return 0;
}

/**
 * qc2_tip_open() - check the superblock of a tip
 * @qt: the target; its device, chain id and length are set
 * @error: set to the reason of a failure
 *
 * Nothing but the superblock is read: another table may still write to the
 * device.
 *
 * Context: process.
 * Return: the tip, to be closed with qc2_tip_close(), or an ERR_PTR().
 */
struct qc2_tip *qc2_tip_open(struct qc2_target *qt, char **error)
{
	struct qc2_tip *tip;
	int r = -ENOMEM;

	*error = "Cannot allocate tip";
	tip = kzalloc(sizeof(*tip), GFP_KERNEL);
	if (!tip)
		return ERR_PTR(-ENOMEM);

	tip->qt = qt;
	tip->bdev = qt->tip_dev->bdev;
	/*
	 * A commit does not touch the physical block of an earlier one, which
	 * a power failure in the middle of the write might damage.
	 */
	tip->block_sectors = clamp(bdev_physical_block_size(tip->bdev) >> SECTOR_SHIFT,
				   1U, (unsigned int)QC2_TIP_BLOCK_SECTORS);
	qc2_dirty_init(&tip->dirty);
	tip->dirty.block_sectors = qt->block_sectors;
	mutex_lock(&qc2_tips_lock);
	list_add_tail(&tip->list, &qc2_tips);
	mutex_unlock(&qc2_tips_lock);

	if (qc2_metaio_init(&tip->commit.io, tip->bdev))
		goto bad;
	r = qc2_super_read(tip, error);
	if (r)
		goto bad;
	r = qc2_commit_init(tip);
	if (r) {
		*error = "Cannot allocate tip state";
		goto bad;
	}

	*error = NULL;
	return tip;
bad:
	qc2_tip_close(tip);
	return ERR_PTR(r);
}

/**
 * qc2_tip_close() - free a tip
 * @tip: no bio is in flight and no work queued; what is not committed is lost
 *
 * Context: process.
 */
void qc2_tip_close(struct qc2_tip *tip)
{
	mutex_lock(&qc2_tips_lock);
	list_del(&tip->list);
	mutex_unlock(&qc2_tips_lock);

	qc2_dirty_clear(&tip->dirty);
	qc2_commit_exit(tip);
	qc2_metaio_exit(&tip->commit.io);
	kfree(tip);
}

/*
 * ---------------------------------------------------------------------------
 * Loading
 * ---------------------------------------------------------------------------
 */

/*
 * A table takes over from another one of its device, which is suspended by now
 * and may have the same tip.  If that one could not commit, writes that were
 * completed are lost, on whichever tip: nobody must be told by a flush of this
 * one that they are durable.
 */
static int qc2_tip_check_others(struct qc2_tip *tip)
{
	struct qc2_tip *other;
	int r = 0;

	mutex_lock(&qc2_tips_lock);
	list_for_each_entry(other, &qc2_tips, list) {
		if (other == tip)
			continue;
		if (other->qt->devt == tip->qt->devt) {
			/* It may have inherited that and then not been loaded itself. */
			if (!READ_ONCE(other->read_only))
				continue;
			DMERR("%pg: a commit failed before; remove the device to clear that",
			      tip->bdev);
			tip->read_only = true;
		} else if (other->loaded && other->bdev->bd_dev == tip->bdev->bd_dev) {
			DMERR("%pg: the tip is in use by device %u:%u", tip->bdev,
			      MAJOR(other->qt->devt), MINOR(other->qt->devt));
			r = -EBUSY;
		}
	}
	if (!r)
		tip->loaded = true;
	mutex_unlock(&qc2_tips_lock);
	return r;
}

static int qc2_load_summary(struct qc2_tip *tip)
{
	u64 summaries = DIV_ROUND_UP_ULL(tip->nr_blocks, QC2_TIP_BLOCK_BITS);
	struct qc2_commit *c = &tip->commit;
	unsigned long s;
	int r;

	for (s = 0; s < summaries; s++) {
		r = qc2_metaio_run_one(&c->io, tip->summary_start, s, REQ_OP_READ | REQ_META);
		if (r) {
			DMERR("%pg: cannot read the summary of the tip: error %d", tip->bdev, r);
			return r;
		}
		qc2_bits_copy(c->used + s * QC2_LONGS_PER_BLOCK, qc2_metaio_data(&c->io, 0),
			      QC2_LONGS_PER_BLOCK);
	}
	if (find_next_bit(c->used, summaries * QC2_TIP_BLOCK_BITS, tip->nr_blocks) <
	    summaries * QC2_TIP_BLOCK_BITS) {
		DMERR("%pg: summary of the tip has bits past the end of the disk (damaged)",
		      tip->bdev);
		return -EINVAL;
	}
	return 0;
}

static int qc2_load_bitmap_batch(struct qc2_tip *tip, unsigned int nr)
{
	struct qc2_metaio *io = &tip->commit.io;
	unsigned int i;
	int r;

	r = qc2_metaio_run(io, tip->bitmap_start, nr, REQ_OP_READ | REQ_META);
	if (r) {
		DMERR("%pg: cannot read the bitmap of the tip: error %d", tip->bdev, r);
		return r;
	}
	for (i = 0; i < nr; i++) {
		r = qc2_dirty_load_block(&tip->dirty, io->blocks[i].block,
					 qc2_metaio_data(io, i), tip->nr_sectors);
		if (r == -EINVAL)
			DMERR("%pg: bitmap of the tip is damaged or has unaligned bits",
			      tip->bdev);
		if (r)
			return r;
		cond_resched();
	}
	return 0;
}

static int qc2_load_bitmap(struct qc2_tip *tip)
{
	struct qc2_commit *c = &tip->commit;
	unsigned int nr = 0;
	unsigned long block;
	int r;

	for_each_set_bit(block, c->used, tip->nr_blocks) {
		c->io.blocks[nr++].block = block;
		if (nr == QC2_METAIO_BLOCKS) {
			r = qc2_load_bitmap_batch(tip, nr);
			if (r)
				return r;
			nr = 0;
		}
	}
	return nr ? qc2_load_bitmap_batch(tip, nr) : 0;
}

/* Applies a sector of the journal.  Returns as qc2_dirty_load_range(). */
static int qc2_load_journal_sector(struct qc2_tip *tip, struct qc2_tip_journal *sector,
				   unsigned int *torn)
{
	unsigned int i;
	int r, any = 0;

	switch (qc2_journal_read(sector, tip->id, tip->nr_sectors)) {
	case QC2_JOURNAL_EMPTY:
		return 0;
	case QC2_JOURNAL_TORN:
		++*torn;
		return 0;
	case QC2_JOURNAL_BAD:
		DMERR("%pg: journal of the tip has impossible ranges (damaged)", tip->bdev);
		return -EINVAL;
	case QC2_JOURNAL_VALID:
		break;
	}

	for (i = 0; i < le32_to_cpu(sector->nr_ranges); i++) {
		struct qc2_dirty_range range = qc2_journal_range(sector, i);

		r = qc2_dirty_load_range(&tip->dirty, range.sector, range.nr_sectors);
		if (r == -EINVAL)
			DMERR("%pg: journal of the tip has unaligned ranges",
			      tip->bdev);
		if (r < 0)
			return r;
		any |= r;
	}
	return any;
}

static int qc2_load_journal(struct qc2_tip *tip)
{
	unsigned int nr_blocks = tip->journal_sectors / QC2_TIP_BLOCK_SECTORS;
	unsigned int torn = 0, first, nr, i, j;
	struct qc2_commit *c = &tip->commit;
	bool any = false;
	int r;

	for (first = 0; first < nr_blocks; first += nr) {
		nr = min_t(unsigned int, nr_blocks - first, QC2_METAIO_BLOCKS);
		for (i = 0; i < nr; i++)
			c->io.blocks[i].block = first + i;
		r = qc2_metaio_run(&c->io, tip->journal_start, nr, REQ_OP_READ | REQ_META);
		if (r) {
			DMERR("%pg: cannot read the journal of the tip: error %d", tip->bdev, r);
			return r;
		}
		for (i = 0; i < nr; i++) {
			struct qc2_tip_journal *sectors = qc2_metaio_data(&c->io, i);

			for (j = 0; j < QC2_TIP_BLOCK_SECTORS; j++) {
				r = qc2_load_journal_sector(tip, &sectors[j], &torn);
				if (r < 0)
					return r;
				any |= r;
			}
			cond_resched();
		}
	}

	if (torn)
		DMWARN("%pg: ignored %u torn journal sectors of the tip (unfinished commits)",
		       tip->bdev, torn);
	/* No sector of the journal is written before a checkpoint. */
	c->half = 0;
	c->head = any ? tip->journal_sectors / 2 : 0;
	c->other_busy = any;
	return 0;
}

/**
 * qc2_tip_load() - read the state of the sectors
 * @tip: the tip
 *
 * For .preresume: an older table on the same device has committed by then.
 * Reads what is in use, whatever the size of the disk.  Does nothing the
 * second time.
 *
 * Context: process, no bio in flight.
 * Return: 0 or a negative errno, with the reason in the kernel log.
 */
int qc2_tip_load(struct qc2_tip *tip)
{
	int r;

	if (tip->loaded)
		return 0;

	r = qc2_tip_check_others(tip);
	if (r)
		return r;
	r = qc2_load_summary(tip);
	if (!r)
		r = qc2_load_bitmap(tip);
	if (!r)
		r = qc2_load_journal(tip);
	if (r) {
		/* The resume may be tried again. */
		qc2_dirty_clear(&tip->dirty);
		tip->loaded = false;
	}
	return r;
}

/*
 * ---------------------------------------------------------------------------
 * The data path
 * ---------------------------------------------------------------------------
 */

/**
 * qc2_tip_remap() - direct a bio to the tip
 * @tip: the tip
 * @bio: any bio with sectors
 * @sector: where it begins on the virtual disk
 *
 * Context: any.
 */
void qc2_tip_remap(struct qc2_tip *tip, struct bio *bio, u64 sector)
{
	bio_set_dev(bio, tip->bdev);
	bio->bi_iter.bi_sector = tip->data_start + sector;
}

/**
 * qc2_tip_write_begin() - prepare a write, discard or write-zeroes
 * @tip: the tip
 * @write: filled
 * @sector: first sector
 * @nr_sectors: not 0, and all in one region
 * @nowait: fail rather than wait for memory
 *
 * Each success needs a qc2_tip_write_end().
 *
 * Context: process.  A write must not fail for want of memory: guests take
 *	that for a broken disk.  What is needed is one page at most.
 * Return: 0, or with @nowait -EAGAIN.
 */
int qc2_tip_write_begin(struct qc2_tip *tip, struct qc2_tip_write *write,
			u64 sector, unsigned int nr_sectors, bool nowait)
{
	gfp_t gfp = (nowait ? GFP_NOWAIT : GFP_NOIO) | __GFP_NOWARN;
	int r;

	/* Not with __GFP_NOFAIL: kswapd may be the one who writes. */
	while ((r = qc2_dirty_prepare(&tip->dirty, sector, gfp)) < 0) {
		if (nowait)
			return -EAGAIN;
		memalloc_retry_wait(gfp);
	}
	write->sector = sector;
	write->nr_sectors = r ? nr_sectors : 0;
	return 0;
}

/**
 * qc2_tip_write_adds() - whether a write brings sectors into the tip
 * @tip: the tip
 * @write: as qc2_tip_write_begin() filled it
 *
 * Context: any.
 */
bool qc2_tip_write_adds(struct qc2_tip *tip, const struct qc2_tip_write *write)
{
	unsigned int nr_sectors = write->nr_sectors;

	return nr_sectors && !(qc2_dirty_lookup(&tip->dirty, write->sector, &nr_sectors) &&
			       nr_sectors == write->nr_sectors);
}

/**
 * qc2_tip_write_end() - a write has ended
 * @tip: the tip
 * @write: as qc2_tip_write_begin() filled it; may be called again
 * @status: of the write; after a success the sectors are in the tip
 *
 * Context: any; before the bio completes.
 */
void qc2_tip_write_end(struct qc2_tip *tip, struct qc2_tip_write *write, blk_status_t status)
{
	unsigned int todo;

	if (unlikely(status == BLK_STS_NOSPC) && !test_and_set_bit(0, &tip->full))
		qc2_target_event(tip->qt, QC2_EVENT_TIP_FULL);
	if (!write->nr_sectors)
		return;

	if (!status) {
		todo = qc2_dirty_set(&tip->dirty, write->sector, write->nr_sectors);
		if (todo)
			qc2_commit_soon(tip, todo);
		if (unlikely(tip->full))
			clear_bit(0, &tip->full);
	}
	write->nr_sectors = 0;
}

/**
 * qc2_tip_set_read_only() - a commit has failed
 * @tip: the tip
 * @what: what has failed, for the kernel log
 * @error: negative errno
 *
 * Context: any.
 */
void qc2_tip_set_read_only(struct qc2_tip *tip, const char *what, int error)
{
	if (READ_ONCE(tip->read_only))
		return;
	WRITE_ONCE(tip->read_only, true);
	DMERR("%pg: %s failed with error %d, device is read-only now", tip->bdev, what, error);
	qc2_target_event(tip->qt, QC2_EVENT_READ_ONLY);
}
