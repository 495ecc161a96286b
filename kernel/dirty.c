// SPDX-License-Identifier: GPL-2.0
/*
 * Which sectors are in the tip.
 *
 * DOC: A sector is in the tip ("dirty") from the moment a write to it
 * completes.  The state is kept for regions of 2 MiB, in an xarray: no entry,
 * nothing of the region is in the tip; a value entry, all of it is; else a
 * struct qc2_region with one bit a sector.  Bits are set when a write has
 * completed, before its bio does, and never cleared.  So a read that begins
 * after the write ended finds the sector in the tip, and a failed write leaves
 * the old content visible.
 *
 * Two records are kept for commit.c, which brings the state to the device: the
 * log, ranges for the journal, and the list of changed regions, for the bitmap.
 *
 * Locking: lookups, and writes that set no bit and make no region, run under RCU.
 * Everything else takes the lock of the xarray.  Bits are stored under it, whole
 * words at a time, and read without it.
 */
#include <linux/bitmap.h>
#include <linux/prefetch.h>
#include <linux/sched.h>
#include <linux/slab.h>

#include "compat/compat.h"
#include "dirty.h"

#include <linux/dm-qcow2chain.h>

#define QC2_REGION_BYTES	(QC2_REGION_SECTORS / 8)
#define QC2_REGION_LONGS	(QC2_REGION_SECTORS / BITS_PER_LONG)
#define QC2_REGIONS_PER_BLOCK	(QC2_TIP_BLOCK_BITS / QC2_REGION_SECTORS)

/* Changed regions that are looked at with interrupts off. */
#define QC2_TAKE_AT_ONCE	256

/* Value entry of a region that is in the tip throughout. */
#define QC2_REGION_ALL		xa_mk_value(1)

/**
 * struct qc2_region - a region that is in the tip in part
 * @changed: in the list of changed regions, or empty
 * @number: sector >> QC2_REGION_SHIFT
 * @nr_sectors: how many of its sectors are in the tip
 * @rcu: to free it
 * @bits: 1 for a sector that is in the tip
 */
struct qc2_region {
	struct list_head changed;
	unsigned long number;
	unsigned int nr_sectors;
	struct rcu_head rcu;
	unsigned long bits[QC2_REGION_LONGS];
};

static struct kmem_cache *qc2_region_cache;

int __init qc2_dirty_cache_init(void)
{
	qc2_region_cache = KMEM_CACHE(qc2_region, 0);
	return qc2_region_cache ? 0 : -ENOMEM;
}

void qc2_dirty_cache_exit(void)
{
	kmem_cache_destroy(qc2_region_cache);
}

static struct qc2_region *qc2_region_alloc(unsigned long number, gfp_t gfp)
{
	struct qc2_region *region = kmem_cache_zalloc(qc2_region_cache, gfp);

	if (region) {
		INIT_LIST_HEAD(&region->changed);
		region->number = number;
	}
	return region;
}

static void qc2_region_free_rcu(struct rcu_head *rcu)
{
	kmem_cache_free(qc2_region_cache, container_of(rcu, struct qc2_region, rcu));
}

/**
 * qc2_dirty_init() - nothing is in the tip
 * @dirty: zeroed; the caller may set @dirty->log and @dirty->max_log
 */
void qc2_dirty_init(struct qc2_dirty *dirty)
{
	xa_init_flags(&dirty->regions, XA_FLAGS_LOCK_IRQ);
	INIT_LIST_HEAD(&dirty->changed);
}

/**
 * qc2_dirty_clear() - free all memory; nothing is in the tip
 * @dirty: the state; nobody else uses it
 */
void qc2_dirty_clear(struct qc2_dirty *dirty)
{
	unsigned long number;
	void *entry;

	xa_for_each(&dirty->regions, number, entry) {
		if (!xa_is_value(entry))
			kmem_cache_free(qc2_region_cache, entry);
		cond_resched();
	}
	xa_destroy(&dirty->regions);
	INIT_LIST_HEAD(&dirty->changed);
	dirty->nr_changed = 0;
	dirty->nr_full = 0;
	dirty->nr_sectors = 0;
	dirty->nr_log = 0;
	dirty->log_lost = false;
}

/*
 * ---------------------------------------------------------------------------
 * The data path
 * ---------------------------------------------------------------------------
 */

/**
 * qc2_dirty_lookup() - whether a sector is in the tip
 * @dirty: the state
 * @sector: the sector
 * @nr_sectors: how many are asked for, not 0; reduced to how many the answer
 *	holds for
 *
 * Context: any.
 */
bool qc2_dirty_lookup(struct qc2_dirty *dirty, u64 sector, unsigned int *nr_sectors)
{
	unsigned int first = sector & (QC2_REGION_SECTORS - 1);
	unsigned int end = min(first + *nr_sectors, QC2_REGION_SECTORS);
	struct qc2_region *region;
	bool in_tip;

	rcu_read_lock();
	region = xa_load(&dirty->regions, sector >> QC2_REGION_SHIFT);
	if (!region || xa_is_value(region)) {
		in_tip = region;
	} else {
		in_tip = test_bit(first, region->bits);
		end = in_tip ? find_next_zero_bit(region->bits, end, first) :
			       find_next_bit(region->bits, end, first);
		/* The bit was set meanwhile: the answer holds for it alone. */
		if (end == first)
			end++;
	}
	rcu_read_unlock();

	*nr_sectors = end - first;
	return in_tip;
}

static unsigned long *qc2_region_word(struct qc2_region *region, unsigned int sector)
{
	return &region->bits[sector / BITS_PER_LONG];
}

/**
 * qc2_dirty_prepare() - whether a write may change the state
 * @dirty: the state
 * @sector: first sector of the write, which stays in its region
 * @gfp: for the memory of the region
 *
 * After 1, qc2_dirty_set() is to be called when the write has completed.
 *
 * Context: as @gfp says.
 * Return: 0 if the region is in the tip throughout, 1 if not, or -ENOMEM.
 */
int qc2_dirty_prepare(struct qc2_dirty *dirty, u64 sector, gfp_t gfp)
{
	unsigned long number = sector >> QC2_REGION_SHIFT;
	struct qc2_region *region;
	bool full = false;
	void *old;

	rcu_read_lock();
	region = xa_load(&dirty->regions, number);
	if (xa_is_value(region)) {
		full = true;
	} else if (region) {
		/* To look at the bits now would be to wait for memory. */
		prefetchw(region);
		prefetchw(qc2_region_word(region, sector & (QC2_REGION_SECTORS - 1)));
	}
	rcu_read_unlock();
	if (region)
		return !full;

	region = qc2_region_alloc(number, gfp);
	if (!region)
		return -ENOMEM;
	old = xa_cmpxchg_irq(&dirty->regions, number, NULL, region, gfp);
	if (old)
		kmem_cache_free(qc2_region_cache, region);
	return xa_is_err(old) ? -ENOMEM : 1;
}

static unsigned int qc2_region_set_bits(struct qc2_region *region, unsigned int first,
					unsigned int nr)
{
	unsigned int end = first + nr, added = 0;

	while (first < end) {
		unsigned int bit = first % BITS_PER_LONG;
		unsigned int n = min_t(unsigned int, end - first, BITS_PER_LONG - bit);
		unsigned long mask = GENMASK(bit + n - 1, bit);
		unsigned long *word = qc2_region_word(region, first);

		added += hweight_long(mask & ~*word);
		WRITE_ONCE(*word, *word | mask);
		first += n;
	}
	return added;
}

/* Notes a range for the next commit. */
static void qc2_dirty_log(struct qc2_dirty *dirty, u64 sector, unsigned int nr_sectors)
{
	struct qc2_dirty_range *last = dirty->nr_log ? &dirty->log[dirty->nr_log - 1] : NULL;

	if (last && last->sector + last->nr_sectors == sector &&
	    last->nr_sectors + nr_sectors <= QC2_TIP_RANGE_MAX) {
		last->nr_sectors += nr_sectors;
	} else if (dirty->nr_log < dirty->max_log) {
		dirty->log[dirty->nr_log].sector = sector;
		dirty->log[dirty->nr_log].nr_sectors = nr_sectors;
		dirty->nr_log++;
	} else {
		dirty->log_lost = true;
	}
}

/* The region if there are bits to be set in it. */
static struct qc2_region *qc2_dirty_find(struct qc2_dirty *dirty, u64 sector,
					 unsigned int nr_sectors)
{
	struct qc2_region *region = xa_load(&dirty->regions, sector >> QC2_REGION_SHIFT);
	unsigned int first = sector & (QC2_REGION_SECTORS - 1);
	unsigned int end = first + nr_sectors;

	if (WARN_ON_ONCE(!region) || xa_is_value(region) ||
	    find_next_zero_bit(region->bits, end, first) >= end)
		return NULL;
	return region;
}

/*
 * Under the lock.  The region may be off the xarray by now: others have filled it
 * then, and nothing is added.
 */
static unsigned int __qc2_dirty_set(struct qc2_dirty *dirty, struct qc2_region *region,
				    unsigned int first, unsigned int nr_sectors)
{
	unsigned int added = qc2_region_set_bits(region, first, nr_sectors);

	if (!added)
		return 0;

	dirty->nr_sectors += added;
	region->nr_sectors += added;
	if (region->nr_sectors == QC2_REGION_SECTORS)
		WRITE_ONCE(dirty->nr_full, dirty->nr_full + 1);
	if (list_empty(&region->changed)) {
		list_add_tail(&region->changed, &dirty->changed);
		dirty->nr_changed++;
	}
	return added;
}

/**
 * qc2_dirty_set() - sectors have come into the tip
 * @dirty: the state
 * @sector: the first one
 * @nr_sectors: not 0, and all in the region of @sector, which was prepared
 *
 * Context: any.
 * Return: mask of QC2_DIRTY_LOG_FULL and QC2_DIRTY_CHECKPOINT, each only when a
 *	limit is just being passed.
 */
unsigned int qc2_dirty_set(struct qc2_dirty *dirty, u64 sector, unsigned int nr_sectors)
{
	unsigned int nr_log, nr_changed, nr_full, todo = 0;
	struct qc2_region *region;
	unsigned long flags;

	rcu_read_lock();
	region = qc2_dirty_find(dirty, sector, nr_sectors);
	if (!region)
		goto out;

	xa_lock_irqsave(&dirty->regions, flags);
	nr_log = dirty->nr_log;
	nr_changed = dirty->nr_changed;
	nr_full = dirty->nr_full;
	if (__qc2_dirty_set(dirty, region, sector & (QC2_REGION_SECTORS - 1), nr_sectors)) {
		qc2_dirty_log(dirty, sector, nr_sectors);
		if (dirty->nr_log != nr_log && dirty->nr_log == dirty->max_log / 2)
			todo |= QC2_DIRTY_LOG_FULL;
		if (dirty->nr_full != nr_full && dirty->nr_full % QC2_DIRTY_MAX_FULL == 0)
			todo |= QC2_DIRTY_CHECKPOINT;
		if (!dirty->max_log && dirty->nr_changed != nr_changed &&
		    dirty->nr_changed % QC2_DIRTY_MAX_CHANGED == 0)
			todo |= QC2_DIRTY_CHECKPOINT;
	}
	xa_unlock_irqrestore(&dirty->regions, flags);
out:
	rcu_read_unlock();
	return todo;
}

/**
 * qc2_dirty_nr_sectors() - number of sectors in the tip
 * @dirty: the state
 *
 * Context: process.
 */
u64 qc2_dirty_nr_sectors(struct qc2_dirty *dirty)
{
	u64 nr_sectors;

	xa_lock_irq(&dirty->regions);
	nr_sectors = dirty->nr_sectors;
	xa_unlock_irq(&dirty->regions);
	return nr_sectors;
}

/*
 * ---------------------------------------------------------------------------
 * For commits
 * ---------------------------------------------------------------------------
 */

/**
 * qc2_dirty_committed() - whether commits have covered every sector in the tip
 * @dirty: the state
 *
 * Context: any.
 */
bool qc2_dirty_committed(struct qc2_dirty *dirty)
{
	unsigned long flags;
	bool committed;

	xa_lock_irqsave(&dirty->regions, flags);
	committed = !dirty->nr_log && !dirty->log_lost && !dirty->committing;
	xa_unlock_irqrestore(&dirty->regions, flags);
	return committed;
}

/**
 * qc2_dirty_begin_commit() - take the log over
 * @dirty: the state
 * @spare: an empty array as large as the log; exchanged with the log
 * @lost: set if the log does not hold everything that is to be committed
 *
 * Until qc2_dirty_end_commit() the state does not count as committed.
 *
 * Context: process; one commit at a time.
 * Return: number of ranges in @spare.
 */
unsigned int qc2_dirty_begin_commit(struct qc2_dirty *dirty, struct qc2_dirty_range **spare,
				    bool *lost)
{
	unsigned int nr_log;

	xa_lock_irq(&dirty->regions);
	swap(*spare, dirty->log);
	nr_log = dirty->nr_log;
	*lost = dirty->log_lost;
	dirty->nr_log = 0;
	dirty->log_lost = false;
	dirty->committing = true;
	xa_unlock_irq(&dirty->regions);
	return nr_log;
}

/**
 * qc2_dirty_end_commit() - what qc2_dirty_begin_commit() took over is durable
 * @dirty: the state
 *
 * Context: process.
 */
void qc2_dirty_end_commit(struct qc2_dirty *dirty)
{
	xa_lock_irq(&dirty->regions);
	dirty->committing = false;
	xa_unlock_irq(&dirty->regions);
}

/**
 * qc2_dirty_take_changed() - mark the bitmap blocks of changed regions
 * @dirty: the state
 * @blocks: bit n is set if block n of the bitmap must be written
 *
 * Context: process.
 * Return: whether there was one.
 */
bool qc2_dirty_take_changed(struct qc2_dirty *dirty, unsigned long *blocks)
{
	struct qc2_region *region;
	LIST_HEAD(taken);
	unsigned int n = 0;

	xa_lock_irq(&dirty->regions);
	list_splice_init(&dirty->changed, &taken);
	dirty->nr_changed = 0;
	while ((region = list_first_entry_or_null(&taken, struct qc2_region, changed))) {
		__set_bit(region->number / QC2_REGIONS_PER_BLOCK, blocks);
		/* A bit set from now on puts the region on the list again. */
		list_del_init(&region->changed);
		if (++n % QC2_TAKE_AT_ONCE == 0) {
			xa_unlock_irq(&dirty->regions);
			cond_resched();
			xa_lock_irq(&dirty->regions);
		}
	}
	xa_unlock_irq(&dirty->regions);
	return n;
}

/**
 * qc2_bits_copy() - copy bits from memory to their form on disk, or back
 * @to: the copy
 * @from: bits that others may set meanwhile
 * @nr_longs: length in unsigned longs
 *
 * A bitmap on disk is little-endian by bytes.  An array of unsigned long has
 * that form after each of them was converted.
 */
void qc2_bits_copy(unsigned long *to, const unsigned long *from, unsigned int nr_longs)
{
	unsigned int i;

	for (i = 0; i < nr_longs; i++) {
		unsigned long v = READ_ONCE(from[i]);

		to[i] = BITS_PER_LONG == 64 ? le64_to_cpu((__force __le64)v) :
					      le32_to_cpu((__force __le32)v);
	}
}

/**
 * qc2_dirty_copy_block() - make a block of the bitmap
 * @dirty: the state
 * @block: its number
 * @to: filled, QC2_TIP_BLOCK_SIZE bytes
 *
 * Context: process.
 */
void qc2_dirty_copy_block(struct qc2_dirty *dirty, u64 block, void *to)
{
	unsigned long number = block * QC2_REGIONS_PER_BLOCK;
	unsigned long *longs = to;
	unsigned int i;

	for (i = 0; i < QC2_REGIONS_PER_BLOCK; i++, number++, longs += QC2_REGION_LONGS) {
		struct qc2_region *region;

		rcu_read_lock();
		region = xa_load(&dirty->regions, number);
		if (!region || xa_is_value(region))
			memset(longs, region ? 0xff : 0, QC2_REGION_BYTES);
		else
			qc2_bits_copy(longs, region->bits, QC2_REGION_LONGS);
		rcu_read_unlock();
	}
}

/**
 * qc2_dirty_collapse() - free the regions of a block that are full
 * @dirty: the state
 * @block: number of a block of the bitmap that was written
 *
 * A region with bits that were set after the block was copied stays.
 *
 * Context: process.
 */
void qc2_dirty_collapse(struct qc2_dirty *dirty, u64 block)
{
	unsigned long number = block * QC2_REGIONS_PER_BLOCK;
	unsigned int i;

	if (!READ_ONCE(dirty->nr_full))
		return;
	for (i = 0; i < QC2_REGIONS_PER_BLOCK; i++, number++) {
		struct qc2_region *region;

		xa_lock_irq(&dirty->regions);
		region = xa_load(&dirty->regions, number);
		if (region && !xa_is_value(region) && list_empty(&region->changed) &&
		    region->nr_sectors == QC2_REGION_SECTORS) {
			/* Replaces an entry, so it needs no memory. */
			__xa_store(&dirty->regions, number, QC2_REGION_ALL, GFP_NOWAIT);
			call_rcu(&region->rcu, qc2_region_free_rcu);
			WRITE_ONCE(dirty->nr_full, dirty->nr_full - 1);
		}
		xa_unlock_irq(&dirty->regions);
	}
}

/* A tip may have been used on a device with smaller logical blocks. */
static bool qc2_bits_aligned(const unsigned long *bits, unsigned int block_sectors)
{
	unsigned int start, end = 0;

	if (block_sectors <= 1)
		return true;
	while ((start = find_next_bit(bits, QC2_REGION_SECTORS, end)) < QC2_REGION_SECTORS) {
		end = find_next_zero_bit(bits, QC2_REGION_SECTORS, start);
		if ((start | end) % block_sectors)
			return false;
	}
	return true;
}

static int qc2_region_load(struct qc2_dirty *dirty, unsigned long number,
			   const unsigned long *disk, unsigned int valid)
{
	struct qc2_region *region;
	unsigned int weight;
	void *old, *entry;

	region = qc2_region_alloc(number, GFP_NOIO);
	if (!region)
		return -ENOMEM;
	qc2_bits_copy(region->bits, disk, QC2_REGION_LONGS);
	weight = bitmap_weight(region->bits, QC2_REGION_SECTORS);
	if (weight != bitmap_weight(region->bits, valid) ||
	    !qc2_bits_aligned(region->bits, dirty->block_sectors)) {
		kmem_cache_free(qc2_region_cache, region);
		return -EINVAL;
	}

	region->nr_sectors = weight;
	entry = region;
	if (!weight || weight == QC2_REGION_SECTORS) {
		kmem_cache_free(qc2_region_cache, region);
		entry = weight ? QC2_REGION_ALL : NULL;
	}
	if (!entry)
		return 0;

	old = xa_store_irq(&dirty->regions, number, entry, GFP_NOIO);
	if (xa_is_err(old)) {
		if (!xa_is_value(entry))
			kmem_cache_free(qc2_region_cache, region);
		return xa_err(old);
	}
	dirty->nr_sectors += weight;
	return 0;
}

/**
 * qc2_dirty_load_block() - learn the state from a block of the bitmap
 * @dirty: the state; nothing is known of these sectors yet
 * @block: number of the block
 * @from: the block, QC2_TIP_BLOCK_SIZE bytes
 * @disk_sectors: size of the virtual disk
 *
 * Context: process; no other user.
 * Return: 0, -ENOMEM, or -EINVAL for bits that are past the end of the disk or
 *	not aligned to logical blocks.
 */
int qc2_dirty_load_block(struct qc2_dirty *dirty, u64 block, const void *from,
			 u64 disk_sectors)
{
	unsigned int i;

	for (i = 0; i < QC2_REGIONS_PER_BLOCK; i++) {
		unsigned long number = block * QC2_REGIONS_PER_BLOCK + i;
		u64 start = (u64)number << QC2_REGION_SHIFT;
		u64 valid = start < disk_sectors ? disk_sectors - start : 0;
		int r;

		r = qc2_region_load(dirty, number, from + i * QC2_REGION_BYTES,
				    min_t(u64, valid, QC2_REGION_SECTORS));
		if (r)
			return r;
	}
	return 0;
}

/**
 * qc2_dirty_load_range() - learn from the journal that sectors are in the tip
 * @dirty: the state
 * @sector: the first one
 * @nr_sectors: their number
 *
 * Regions that this changes are put on the list of changed ones.
 *
 * Context: process; no other user.
 * Return: 1 if some of it was not known, 0 if all was, -ENOMEM, or -EINVAL if
 *	it is not aligned to logical blocks.
 */
int qc2_dirty_load_range(struct qc2_dirty *dirty, u64 sector, u64 nr_sectors)
{
	u64 end = sector + nr_sectors;
	struct qc2_region *region;
	int r, any = 0;

	if (dirty->block_sectors > 1 && (sector | nr_sectors) & (dirty->block_sectors - 1))
		return -EINVAL;
	for (; sector < end; sector += nr_sectors) {
		nr_sectors = min_t(u64, end - sector,
				   QC2_REGION_SECTORS - (sector & (QC2_REGION_SECTORS - 1)));
		r = qc2_dirty_prepare(dirty, sector, GFP_NOIO);
		if (r < 0)
			return r;
		region = qc2_dirty_find(dirty, sector, nr_sectors);
		if (region) {
			any = 1;
			xa_lock_irq(&dirty->regions);
			__qc2_dirty_set(dirty, region, sector & (QC2_REGION_SECTORS - 1),
					nr_sectors);
			xa_unlock_irq(&dirty->regions);
		}
	}
	return any;
}
