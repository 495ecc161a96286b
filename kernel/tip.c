// SPDX-License-Identifier: GPL-2.0
/*
 * The tip.
 *
 * DOC: State of the sectors
 *
 * A sector is in the tip ("dirty") from the moment a write to it completes.
 * The state is kept for regions of 2 MiB, in an xarray: no entry, nothing of
 * the region is in the tip; a value entry, all of it is; else a struct
 * qc2_region with one bit a sector.  Bits are set when a write has completed,
 * before its bio does, and never cleared.  So a read that begins after the
 * write ended finds the sector in the tip, and a failed write leaves the old
 * content visible.
 *
 * DOC: Commit
 *
 * The bits on the device follow at FLUSH and FUA, in qc2_tip_commit():
 *
 *  1. copy the bitmap blocks in which bits were set since the last commit;
 *  2. flush the device: the data that the copied bits stand for is durable;
 *  3. write the copies;
 *  4. where a bitmap block is used for the first time, write the summary that
 *     says so, after a flush;
 *  5. flush, then complete the bios that wait.
 *
 * Step 1 comes before step 2, or a bit could be durable before its data.
 * Bits go from 0 to 1 only, so a bitmap block that is torn by a power failure
 * holds for each sector either its old or its new bit, and both are right: no
 * bio that relies on the new one has completed.
 *
 * If a commit fails the tip becomes read-only for good.  Everything that was
 * acknowledged as durable still is.
 *
 * DOC: Locking
 *
 * Lookups and overwrites take no lock; the end of a first write takes
 * @changed_lock.  Regions are freed after an RCU grace
 * period; one that a write in flight refers to is not freed, by its count.
 * Commits are serialised by @commit_lock.  @waiting has a spinlock.
 */
#include <linux/bitmap.h>
#include <linux/blkdev.h>
#include <linux/crc32c.h>
#include <linux/llist.h>
#include <linux/math64.h>
#include <linux/mm.h>
#include <linux/mutex.h>
#include <linux/percpu_counter.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/xarray.h>

#include "target.h"

#define QC2_REGION_LONGS	(QC2_REGION_SECTORS / BITS_PER_LONG)
#define QC2_REGION_BYTES	(QC2_REGION_SECTORS / 8)
#define QC2_REGIONS_PER_BLOCK	(QC2_TIP_BLOCK_BITS / QC2_REGION_SECTORS)

/* Value entry of a region that is in the tip and committed throughout. */
#define QC2_REGION_ALL		xa_mk_value(1)

/* Bitmap blocks that one round of a commit writes. */
#define QC2_TIP_BATCH		64

/**
 * struct qc2_region - a region that is in the tip in part
 * @refs: 1 for the xarray, and 1 for each write in flight to sectors that
 *	were not in the tip; 0 once the region is being freed
 * @changed: bit 0 is set while the region is on the tip's list @changed
 * @node: in that list
 * @number: sector >> QC2_REGION_SHIFT
 * @rcu: to free it
 * @bits: 1 for a sector that is in the tip
 */
struct qc2_region {
	atomic_t refs;
	unsigned long changed;
	struct llist_node node;
	unsigned long number;
	struct rcu_head rcu;
	unsigned long bits[QC2_REGION_LONGS];
};

/* One block of metadata on its way. */
struct qc2_tip_io {
	struct bio bio;
	struct bio_vec vec;
	struct page *page;
	u64 block;
};

/**
 * struct qc2_tip - the tip of one table
 * @qt: the target
 * @bdev: its device
 * @nr_sectors: of the virtual disk
 * @summary_start: in sectors, as in the superblock
 * @bitmap_start: likewise
 * @data_start: likewise
 * @nr_blocks: blocks of the bitmap
 * @loaded: the state was read from the device
 * @read_only: a commit has failed
 * @regions: state of the sectors, see above
 * @changed_lock: protects @changed and @committing, and keeps a write's bits
 *	and its entry in @changed together
 * @changed: regions with bits that no commit has taken up yet
 * @committing: a commit has taken up regions and not ended
 * @dirty: number of sectors in the tip
 * @nr_commits: commits that wrote metadata
 * @commit_lock: held during a commit; protects the fields below
 * @dirty_blocks: one bit for each bitmap block that a commit must write
 * @used_blocks: the summary: one bit for each bitmap block in use
 * @new_summaries: one bit for each block of the summary to be written
 * @io: the blocks on their way
 * @io_pending: their number
 * @io_done: completed with the last of them
 * @io_error: the first error among them
 * @waiting_lock: protects @waiting
 * @waiting: bios that complete after the next commit
 * @work: commits and completes @waiting
 */
struct qc2_tip {
	struct qc2_target *qt;
	struct block_device *bdev;
	u64 nr_sectors;
	u64 summary_start;
	u64 bitmap_start;
	u64 data_start;
	u64 nr_blocks;
	bool loaded;
	bool read_only;

	struct xarray regions;
	spinlock_t changed_lock;	/* see above */
	struct llist_head changed;
	bool committing;
	struct percpu_counter dirty;
	u64 nr_commits;

	struct mutex commit_lock;	/* see above */
	unsigned long *dirty_blocks;
	unsigned long *used_blocks;
	unsigned long *new_summaries;
	struct qc2_tip_io *io;
	atomic_t io_pending;
	struct completion io_done;
	blk_status_t io_error;

	spinlock_t waiting_lock;	/* see above */
	struct bio_list waiting;
	struct work_struct work;
};

static struct kmem_cache *qc2_region_cache;

int __init qc2_tip_cache_init(void)
{
	qc2_region_cache = KMEM_CACHE(qc2_region, 0);
	return qc2_region_cache ? 0 : -ENOMEM;
}

void qc2_tip_cache_exit(void)
{
	kmem_cache_destroy(qc2_region_cache);
}

/*
 * ---------------------------------------------------------------------------
 * Metadata I/O
 * ---------------------------------------------------------------------------
 */

static void qc2_tip_io_end(struct bio *bio)
{
	struct qc2_tip_io *io = container_of(bio, struct qc2_tip_io, bio);
	struct qc2_tip *tip = bio->bi_private;

	if (bio->bi_status)
		WRITE_ONCE(tip->io_error, bio->bi_status);
	bio_uninit(&io->bio);
	if (atomic_dec_and_test(&tip->io_pending))
		complete(&tip->io_done);
}

/* Reads or writes the first @nr blocks of tip->io, which lie at their @block. */
static int qc2_tip_io_run(struct qc2_tip *tip, u64 start, unsigned int nr, blk_opf_t opf)
{
	struct blk_plug plug;
	unsigned int i;

	atomic_set(&tip->io_pending, 1);
	reinit_completion(&tip->io_done);
	tip->io_error = BLK_STS_OK;

	blk_start_plug(&plug);
	for (i = 0; i < nr; i++) {
		struct qc2_tip_io *io = &tip->io[i];

		bio_init(&io->bio, tip->bdev, &io->vec, 1, opf);
		io->bio.bi_iter.bi_sector = start + io->block * QC2_TIP_BLOCK_SECTORS;
		io->bio.bi_end_io = qc2_tip_io_end;
		io->bio.bi_private = tip;
		__bio_add_page(&io->bio, io->page, QC2_TIP_BLOCK_SIZE, 0);
		atomic_inc(&tip->io_pending);
		submit_bio(&io->bio);
	}
	blk_finish_plug(&plug);

	if (!atomic_dec_and_test(&tip->io_pending))
		wait_for_completion_io(&tip->io_done);

	return blk_status_to_errno(tip->io_error);
}

/* Reads or writes one block of metadata through the first page of tip->io. */
static int qc2_tip_io_block(struct qc2_tip *tip, u64 start, u64 block, blk_opf_t opf)
{
	tip->io[0].block = block;
	return qc2_tip_io_run(tip, start, 1, opf);
}

static void *qc2_tip_io_data(struct qc2_tip *tip, unsigned int i)
{
	return page_address(tip->io[i].page);
}

/*
 * ---------------------------------------------------------------------------
 * Opening and loading
 * ---------------------------------------------------------------------------
 */

static bool qc2_super_checksum_ok(struct qc2_tip_super *sb)
{
	__le32 found = sb->checksum;
	u32 crc;

	sb->checksum = 0;
	crc = ~crc32c(~0, sb, sizeof(*sb));
	sb->checksum = found;
	return le32_to_cpu(found) == crc;
}

/* Checks everything that does not depend on the table. */
static int qc2_super_check(struct qc2_tip *tip, struct qc2_tip_super *sb, char **error)
{
	u64 device = bdev_nr_sectors(tip->bdev);
	u64 bitmap_end, summary_end;

	if (le64_to_cpu(sb->incompat)) {
		*error = "Tip has features that this version does not know";
		return -EOPNOTSUPP;
	}

	tip->nr_sectors = le64_to_cpu(sb->nr_sectors);
	tip->summary_start = le64_to_cpu(sb->summary_start);
	tip->bitmap_start = le64_to_cpu(sb->bitmap_start);
	tip->data_start = le64_to_cpu(sb->data_start);

	if (!tip->nr_sectors || tip->nr_sectors > QC2_TIP_MAX_SECTORS ||
	    tip->summary_start > device || tip->bitmap_start > device ||
	    tip->data_start > device ||
	    (tip->summary_start | tip->bitmap_start) % QC2_TIP_BLOCK_SECTORS ||
	    tip->data_start % QC2_TIP_DATA_ALIGN)
		goto bad;

	tip->nr_blocks = DIV_ROUND_UP_ULL(tip->nr_sectors, QC2_TIP_BLOCK_BITS);
	summary_end = tip->summary_start +
		DIV_ROUND_UP_ULL(tip->nr_blocks, QC2_TIP_BLOCK_BITS) * QC2_TIP_BLOCK_SECTORS;
	bitmap_end = tip->bitmap_start + tip->nr_blocks * QC2_TIP_BLOCK_SECTORS;

	if (tip->summary_start < QC2_TIP_SB1_SECTOR + QC2_TIP_BLOCK_SECTORS ||
	    summary_end > tip->bitmap_start || bitmap_end > tip->data_start)
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
	bool damaged = false;
	unsigned int i;
	int r;

	if (bdev_nr_sectors(tip->bdev) < QC2_TIP_SB1_SECTOR + QC2_TIP_BLOCK_SECTORS) {
		*error = "Tip device is too small to hold a superblock";
		return -EINVAL;
	}

	for (i = 0; i < ARRAY_SIZE(copies); i++) {
		tip->io[i].block = copies[i] / QC2_TIP_BLOCK_SECTORS;
		memset(qc2_tip_io_data(tip, i), 0, QC2_TIP_BLOCK_SIZE);
	}
	/* One unreadable copy is what the other one is for. */
	r = qc2_tip_io_run(tip, 0, ARRAY_SIZE(copies), REQ_OP_READ | REQ_META);

	for (i = 0; i < ARRAY_SIZE(copies); i++) {
		sb = qc2_tip_io_data(tip, i);
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

static void qc2_tip_work(struct work_struct *work);

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
	unsigned int i;
	int r = -ENOMEM;

	*error = "Cannot allocate tip";
	tip = kzalloc(sizeof(*tip), GFP_KERNEL);
	if (!tip)
		return ERR_PTR(-ENOMEM);

	tip->qt = qt;
	tip->bdev = qt->tip_dev->bdev;
	xa_init(&tip->regions);
	spin_lock_init(&tip->changed_lock);
	init_llist_head(&tip->changed);
	mutex_init(&tip->commit_lock);
	spin_lock_init(&tip->waiting_lock);
	bio_list_init(&tip->waiting);
	init_completion(&tip->io_done);
	INIT_WORK(&tip->work, qc2_tip_work);

	tip->io = kvcalloc(QC2_TIP_BATCH, sizeof(*tip->io), GFP_KERNEL);
	if (!tip->io)
		goto bad;
	for (i = 0; i < QC2_TIP_BATCH; i++) {
		tip->io[i].page = alloc_page(GFP_KERNEL);
		if (!tip->io[i].page)
			goto bad;
	}
	if (percpu_counter_init(&tip->dirty, 0, GFP_KERNEL))
		goto bad;

	r = qc2_super_read(tip, error);
	if (r)
		goto bad;

	r = -ENOMEM;
	*error = "Cannot allocate tip state";
	tip->dirty_blocks = kvcalloc(BITS_TO_LONGS(tip->nr_blocks), sizeof(long), GFP_KERNEL);
	/* Whole blocks of it are copied to and from the device. */
	tip->used_blocks = kvzalloc(round_up(DIV_ROUND_UP_ULL(tip->nr_blocks, 8),
					     QC2_TIP_BLOCK_SIZE), GFP_KERNEL);
	tip->new_summaries = kvcalloc(BITS_TO_LONGS(tip->nr_blocks / QC2_TIP_BLOCK_BITS + 1),
				      sizeof(long), GFP_KERNEL);
	if (!tip->dirty_blocks || !tip->used_blocks || !tip->new_summaries)
		goto bad;

	*error = NULL;
	return tip;
bad:
	qc2_tip_close(tip);
	return ERR_PTR(r);
}

static void qc2_regions_free(struct qc2_tip *tip)
{
	unsigned long number;
	void *entry;

	xa_for_each(&tip->regions, number, entry)
		if (!xa_is_value(entry))
			kmem_cache_free(qc2_region_cache, entry);
	xa_destroy(&tip->regions);
}

/**
 * qc2_tip_close() - free a tip
 * @tip: no bio is in flight; what is not committed is lost
 *
 * Context: process.
 */
void qc2_tip_close(struct qc2_tip *tip)
{
	unsigned int i;

	qc2_regions_free(tip);
	percpu_counter_destroy(&tip->dirty);
	kvfree(tip->new_summaries);
	kvfree(tip->used_blocks);
	kvfree(tip->dirty_blocks);
	for (i = 0; tip->io && i < QC2_TIP_BATCH; i++)
		if (tip->io[i].page)
			__free_page(tip->io[i].page);
	kvfree(tip->io);
	mutex_destroy(&tip->commit_lock);
	kfree(tip);
}

static struct qc2_region *qc2_region_alloc(unsigned long number, gfp_t gfp)
{
	struct qc2_region *region = kmem_cache_zalloc(qc2_region_cache, gfp);

	if (region) {
		atomic_set(&region->refs, 1);
		region->number = number;
	}
	return region;
}

/*
 * A bitmap on disk is little-endian by bytes.  An array of unsigned long has
 * that form after each of them was converted.
 */
static unsigned long qc2_long_from_disk(unsigned long v)
{
	return BITS_PER_LONG == 64 ? le64_to_cpu((__force __le64)v) :
				     le32_to_cpu((__force __le32)v);
}

static unsigned long qc2_long_to_disk(unsigned long v)
{
	return qc2_long_from_disk(v);
}

/* Takes one region's bits over from a bitmap block. */
static int qc2_region_load(struct qc2_tip *tip, unsigned long number, const unsigned long *disk)
{
	u64 first = (u64)number << QC2_REGION_SHIFT;
	unsigned int valid = min_t(u64, QC2_REGION_SECTORS,
				   first < tip->nr_sectors ? tip->nr_sectors - first : 0);
	struct qc2_region *region;
	unsigned int i, weight;
	void *entry;

	region = qc2_region_alloc(number, GFP_NOIO);
	if (!region)
		return -ENOMEM;
	for (i = 0; i < QC2_REGION_LONGS; i++)
		region->bits[i] = qc2_long_from_disk(disk[i]);

	weight = bitmap_weight(region->bits, QC2_REGION_SECTORS);
	if (weight != bitmap_weight(region->bits, valid)) {
		kmem_cache_free(qc2_region_cache, region);
		DMERR("%pg: bitmap of the tip has bits past the end of the disk (damaged)",
		      tip->bdev);
		return -EINVAL;
	}

	entry = region;
	if (!weight || weight == QC2_REGION_SECTORS) {
		kmem_cache_free(qc2_region_cache, region);
		entry = QC2_REGION_ALL;
	}
	if (weight) {
		percpu_counter_add(&tip->dirty, weight);
		entry = xa_store(&tip->regions, number, entry, GFP_NOIO);
		if (xa_is_err(entry)) {
			if (weight != QC2_REGION_SECTORS)
				kmem_cache_free(qc2_region_cache, region);
			return xa_err(entry);
		}
	}
	return 0;
}

static int qc2_tip_load_batch(struct qc2_tip *tip, unsigned int nr)
{
	unsigned int i, j;
	int r;

	r = qc2_tip_io_run(tip, tip->bitmap_start, nr, REQ_OP_READ | REQ_META);
	if (r) {
		DMERR("%pg: cannot read the bitmap of the tip: error %d", tip->bdev, r);
		return r;
	}

	for (i = 0; i < nr; i++) {
		const char *data = qc2_tip_io_data(tip, i);

		for (j = 0; j < QC2_REGIONS_PER_BLOCK; j++) {
			r = qc2_region_load(tip, tip->io[i].block * QC2_REGIONS_PER_BLOCK + j,
					    (const unsigned long *)
					    (data + j * QC2_REGION_BYTES));
			if (r)
				return r;
		}
	}
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
	unsigned int nr = 0, i;
	u64 summaries = DIV_ROUND_UP_ULL(tip->nr_blocks, QC2_TIP_BLOCK_BITS);
	unsigned long block, s;
	int r = 0;

	if (tip->loaded)
		return 0;

	mutex_lock(&tip->commit_lock);
	for (s = 0; s < summaries; s++) {
		unsigned long *to = tip->used_blocks + s * (QC2_TIP_BLOCK_SIZE / sizeof(long));
		const unsigned long *from = qc2_tip_io_data(tip, 0);

		r = qc2_tip_io_block(tip, tip->summary_start, s, REQ_OP_READ | REQ_META);
		if (r) {
			DMERR("%pg: cannot read the summary of the tip: error %d", tip->bdev, r);
			goto out;
		}
		for (i = 0; i < QC2_TIP_BLOCK_SIZE / sizeof(long); i++)
			to[i] = qc2_long_from_disk(from[i]);
	}

	if (find_next_bit(tip->used_blocks, summaries * QC2_TIP_BLOCK_BITS, tip->nr_blocks) <
	    summaries * QC2_TIP_BLOCK_BITS) {
		DMERR("%pg: summary of the tip has bits past the end of the disk (damaged)",
		      tip->bdev);
		r = -EINVAL;
		goto out;
	}

	for_each_set_bit(block, tip->used_blocks, tip->nr_blocks) {
		tip->io[nr++].block = block;
		if (nr == QC2_TIP_BATCH) {
			r = qc2_tip_load_batch(tip, nr);
			if (r)
				goto out;
			nr = 0;
		}
	}
	if (nr)
		r = qc2_tip_load_batch(tip, nr);
	if (!r)
		tip->loaded = true;
out:
	if (r) {
		/* The resume may be tried again. */
		qc2_regions_free(tip);
		percpu_counter_set(&tip->dirty, 0);
	}
	mutex_unlock(&tip->commit_lock);
	return r;
}

/*
 * ---------------------------------------------------------------------------
 * The data path
 * ---------------------------------------------------------------------------
 */

/**
 * qc2_tip_lookup() - whether a sector is in the tip
 * @tip: the tip
 * @sector: the sector
 * @nr_sectors: how many are asked for, not 0; reduced to how many the answer
 *	holds for
 *
 * Context: any.
 */
bool qc2_tip_lookup(struct qc2_tip *tip, u64 sector, unsigned int *nr_sectors)
{
	unsigned int first = sector & (QC2_REGION_SECTORS - 1);
	unsigned int end = min(first + *nr_sectors, QC2_REGION_SECTORS);
	struct qc2_region *region;
	bool dirty;

	rcu_read_lock();
	region = xa_load(&tip->regions, sector >> QC2_REGION_SHIFT);
	if (!region || xa_is_value(region)) {
		dirty = region;
	} else {
		dirty = test_bit(first, region->bits);
		end = dirty ? find_next_zero_bit(region->bits, end, first) :
			      find_next_bit(region->bits, end, first);
		/* The bit was set meanwhile: the answer holds for it alone. */
		if (end == first)
			end++;
	}
	rcu_read_unlock();

	*nr_sectors = end - first;
	return dirty;
}

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

/* The region with a reference, NULL if all of it is in the tip, or an error. */
static struct qc2_region *qc2_region_get(struct qc2_tip *tip, unsigned long number)
{
	struct qc2_region *region, *new;
	void *old;

	for (;;) {
		rcu_read_lock();
		region = xa_load(&tip->regions, number);
		if (xa_is_value(region)) {
			rcu_read_unlock();
			return NULL;
		}
		if (region && atomic_inc_not_zero(&region->refs)) {
			rcu_read_unlock();
			return region;
		}
		rcu_read_unlock();

		/* Being replaced by the value entry; that takes a moment. */
		if (region) {
			cpu_relax();
			continue;
		}

		new = qc2_region_alloc(number, GFP_NOIO);
		if (!new)
			return ERR_PTR(-ENOMEM);
		atomic_inc(&new->refs);
		old = xa_cmpxchg(&tip->regions, number, NULL, new, GFP_NOIO);
		if (!old)
			return new;
		kmem_cache_free(qc2_region_cache, new);
		if (xa_is_err(old))
			return ERR_PTR(xa_err(old));
	}
}

/**
 * qc2_tip_write_begin() - prepare a write, discard or write-zeroes
 * @tip: the tip
 * @write: filled; @write->region stays NULL if the sectors are all in the tip
 * @sector: first sector
 * @nr_sectors: not 0, and all in one region
 *
 * Each success needs a qc2_tip_write_end().
 *
 * Context: process; allocates with GFP_NOIO.
 * Return: 0 or -ENOMEM.
 */
int qc2_tip_write_begin(struct qc2_tip *tip, struct qc2_tip_write *write,
			u64 sector, unsigned int nr_sectors)
{
	unsigned int first = sector & (QC2_REGION_SECTORS - 1);
	struct qc2_region *region;

	write->region = NULL;
	region = qc2_region_get(tip, sector >> QC2_REGION_SHIFT);
	if (IS_ERR_OR_NULL(region))
		return PTR_ERR_OR_ZERO(region);

	if (find_next_zero_bit(region->bits, first + nr_sectors, first) == first + nr_sectors) {
		atomic_dec(&region->refs);
		return 0;
	}

	write->region = region;
	write->first = first;
	write->nr = nr_sectors;
	return 0;
}

/* Sets bits; other CPUs may set others of the same words. */
static unsigned int qc2_region_set_bits(struct qc2_region *region, unsigned int first,
					unsigned int nr)
{
	unsigned int end = first + nr, added = 0;

	while (first < end) {
		unsigned int bit = first % BITS_PER_LONG;
		unsigned int n = min_t(unsigned int, end - first, BITS_PER_LONG - bit);
		unsigned long mask = GENMASK(bit + n - 1, bit);
		atomic_long_t *word = (atomic_long_t *)&region->bits[first / BITS_PER_LONG];

		added += hweight_long(mask & ~atomic_long_fetch_or(mask, word));
		first += n;
	}
	return added;
}

/**
 * qc2_tip_write_end() - a write has ended
 * @tip: the tip
 * @write: as qc2_tip_write_begin() filled it
 * @ok: it succeeded, so the sectors are in the tip from now on
 *
 * Context: any.
 */
void qc2_tip_write_end(struct qc2_tip *tip, struct qc2_tip_write *write, bool ok)
{
	struct qc2_region *region = write->region;
	unsigned long flags;
	unsigned int added;

	if (!region)
		return;

	if (ok) {
		/*
		 * Whoever sees the bits, and asks whether all is committed,
		 * must find the region on the list.
		 */
		spin_lock_irqsave(&tip->changed_lock, flags);
		added = qc2_region_set_bits(region, write->first, write->nr);
		if (added && !test_and_set_bit(0, &region->changed))
			llist_add(&region->node, &tip->changed);
		spin_unlock_irqrestore(&tip->changed_lock, flags);
		percpu_counter_add(&tip->dirty, added);
	}
	write->region = NULL;
	atomic_dec(&region->refs);
}

/*
 * ---------------------------------------------------------------------------
 * Commit
 * ---------------------------------------------------------------------------
 */

/**
 * qc2_tip_is_committed() - whether the device knows of every sector in the tip
 * @tip: the tip
 *
 * Covers every write that has completed before the call.
 *
 * Context: any.
 */
bool qc2_tip_is_committed(struct qc2_tip *tip)
{
	unsigned long flags;
	bool committed;

	spin_lock_irqsave(&tip->changed_lock, flags);
	committed = llist_empty(&tip->changed) && !tip->committing;
	spin_unlock_irqrestore(&tip->changed_lock, flags);
	return committed;
}

/* Marks the bitmap blocks with bits that were set since the last commit. */
static bool qc2_tip_collect_changed(struct qc2_tip *tip)
{
	struct qc2_region *region, *next;
	struct llist_node *list;
	unsigned long flags;

	spin_lock_irqsave(&tip->changed_lock, flags);
	tip->committing = true;
	list = llist_del_all(&tip->changed);
	llist_for_each_entry_safe(region, next, list, node) {
		__set_bit(region->number / QC2_REGIONS_PER_BLOCK, tip->dirty_blocks);
		/* Before the bits are copied: a later one queues the region again. */
		clear_bit(0, &region->changed);
	}
	spin_unlock_irqrestore(&tip->changed_lock, flags);
	return list;
}

static void qc2_tip_copy_block(struct qc2_tip *tip, u64 block, unsigned long *to)
{
	unsigned long number = block * QC2_REGIONS_PER_BLOCK;
	unsigned int i, j;

	for (i = 0; i < QC2_REGIONS_PER_BLOCK; i++, number++, to += QC2_REGION_LONGS) {
		struct qc2_region *region;

		rcu_read_lock();
		region = xa_load(&tip->regions, number);
		if (!region || xa_is_value(region))
			memset(to, region ? 0xff : 0, QC2_REGION_BYTES);
		else
			for (j = 0; j < QC2_REGION_LONGS; j++)
				to[j] = qc2_long_to_disk(READ_ONCE(region->bits[j]));
		rcu_read_unlock();
	}
}

static void qc2_region_free_rcu(struct rcu_head *rcu)
{
	kmem_cache_free(qc2_region_cache, container_of(rcu, struct qc2_region, rcu));
}

/*
 * Frees the regions of a committed block that are in the tip throughout.
 * @copy is what was committed; once all bits are set nothing sets one anew, so
 * such a region cannot get back onto the list of changed ones.
 */
static void qc2_tip_collapse(struct qc2_tip *tip, u64 block, const unsigned long *copy)
{
	unsigned long number = block * QC2_REGIONS_PER_BLOCK;
	unsigned int i;

	for (i = 0; i < QC2_REGIONS_PER_BLOCK; i++, number++, copy += QC2_REGION_LONGS) {
		struct qc2_region *region = xa_load(&tip->regions, number);

		if (!region || xa_is_value(region) || !bitmap_full(copy, QC2_REGION_SECTORS) ||
		    atomic_cmpxchg(&region->refs, 1, 0) != 1)
			continue;
		/* With no write left that could queue it, this is the last word. */
		if (test_bit(0, &region->changed)) {
			atomic_set(&region->refs, 1);
			continue;
		}
		/* Replaces an entry, so it needs no memory and cannot fail. */
		xa_store(&tip->regions, number, QC2_REGION_ALL, GFP_NOIO);
		call_rcu(&region->rcu, qc2_region_free_rcu);
	}
}

/* One round: up to QC2_TIP_BATCH blocks.  Returns their number or an error. */
static int qc2_tip_commit_batch(struct qc2_tip *tip)
{
	unsigned int nr = 0, i;
	unsigned long block;
	int r;

	for_each_set_bit(block, tip->dirty_blocks, tip->nr_blocks) {
		tip->io[nr].block = block;
		qc2_tip_copy_block(tip, block, qc2_tip_io_data(tip, nr));
		__clear_bit(block, tip->dirty_blocks);
		if (!__test_and_set_bit(block, tip->used_blocks))
			__set_bit(block / QC2_TIP_BLOCK_BITS, tip->new_summaries);
		if (++nr == QC2_TIP_BATCH)
			break;
	}
	if (!nr)
		return 0;

	r = blkdev_issue_flush(tip->bdev);
	if (!r)
		r = qc2_tip_io_run(tip, tip->bitmap_start, nr, REQ_OP_WRITE | REQ_META | REQ_SYNC);
	if (r)
		return r;

	for (i = 0; i < nr; i++)
		qc2_tip_collapse(tip, tip->io[i].block, qc2_tip_io_data(tip, i));
	return nr;
}

/* Writes the blocks of the summary that changed, each durably. */
static int qc2_tip_commit_summaries(struct qc2_tip *tip)
{
	u64 summaries = DIV_ROUND_UP_ULL(tip->nr_blocks, QC2_TIP_BLOCK_BITS);
	unsigned long s;
	unsigned int i;
	int r;

	for_each_set_bit(s, tip->new_summaries, summaries) {
		const unsigned long *from = tip->used_blocks +
					    s * (QC2_TIP_BLOCK_SIZE / sizeof(long));
		unsigned long *to = qc2_tip_io_data(tip, 0);

		for (i = 0; i < QC2_TIP_BLOCK_SIZE / sizeof(long); i++)
			to[i] = qc2_long_to_disk(from[i]);
		r = qc2_tip_io_block(tip, tip->summary_start, s, REQ_OP_WRITE | REQ_META |
				     REQ_SYNC | REQ_PREFLUSH | REQ_FUA);
		if (r)
			return r;
		__clear_bit(s, tip->new_summaries);
	}
	return 0;
}

/**
 * qc2_tip_commit() - make the tip durable
 * @tip: the tip
 *
 * Covers every write that has completed before the call.
 *
 * Context: process; waits for I/O.
 * Return: 0, or a negative errno; the tip is read-only then.
 */
int qc2_tip_commit(struct qc2_tip *tip)
{
	bool wrote = false;
	int r;

	mutex_lock(&tip->commit_lock);
	if (tip->read_only) {
		r = -EIO;
		goto out;
	}

	if (qc2_tip_collect_changed(tip)) {
		while ((r = qc2_tip_commit_batch(tip)) > 0)
			wrote = true;
		if (r)
			goto failed;
		r = qc2_tip_commit_summaries(tip);
		if (r)
			goto failed;
	}
	r = blkdev_issue_flush(tip->bdev);
	if (r)
		goto failed;

	if (wrote)
		WRITE_ONCE(tip->nr_commits, tip->nr_commits + 1);
	spin_lock_irq(&tip->changed_lock);
	tip->committing = false;
	spin_unlock_irq(&tip->changed_lock);
	goto out;

failed:
	WRITE_ONCE(tip->read_only, true);
	DMERR("%pg: commit of the tip failed with error %d, device is read-only now",
	      tip->bdev, r);
	qc2_target_event(tip->qt, QC2_EVENT_READ_ONLY);
out:
	mutex_unlock(&tip->commit_lock);
	return r;
}

static void qc2_tip_work(struct work_struct *work)
{
	struct qc2_tip *tip = container_of(work, struct qc2_tip, work);
	struct bio_list bios;
	struct bio *bio;
	int r;

	spin_lock_irq(&tip->waiting_lock);
	bios = tip->waiting;
	bio_list_init(&tip->waiting);
	spin_unlock_irq(&tip->waiting_lock);
	if (bio_list_empty(&bios))
		return;

	r = qc2_tip_commit(tip);
	while ((bio = bio_list_pop(&bios))) {
		if (r)
			bio->bi_status = errno_to_blk_status(r);
		/* A write was through bio_endio() before, see qc2_end_io(). */
		bio->bi_end_io(bio);
	}
}

/**
 * qc2_tip_queue_commit() - complete a bio after a commit
 * @tip: the tip
 * @bio: an empty flush, or a write whose data was written
 *
 * Context: any.
 */
void qc2_tip_queue_commit(struct qc2_tip *tip, struct bio *bio)
{
	unsigned long flags;

	spin_lock_irqsave(&tip->waiting_lock, flags);
	bio_list_add(&tip->waiting, bio);
	/* Below the lock: once the bio is completed the tip may go away. */
	queue_work(tip->qt->wq, &tip->work);
	spin_unlock_irqrestore(&tip->waiting_lock, flags);
}

/*
 * ---------------------------------------------------------------------------
 * For status and limits
 * ---------------------------------------------------------------------------
 */

bool qc2_tip_read_only(struct qc2_tip *tip)
{
	return READ_ONCE(tip->read_only);
}

u64 qc2_tip_dirty_sectors(struct qc2_tip *tip)
{
	return percpu_counter_sum_positive(&tip->dirty);
}

u64 qc2_tip_commits(struct qc2_tip *tip)
{
	return READ_ONCE(tip->nr_commits);
}

sector_t qc2_tip_data_start(struct qc2_tip *tip)
{
	return tip->data_start;
}
