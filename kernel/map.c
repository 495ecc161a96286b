// SPDX-License-Identifier: GPL-2.0
/*
 * The chain map.
 *
 * DOC: The map divides the disk into regions of 2 MiB.  What is known of a
 * region is one immutable chunk: a sorted array of runs, found through an
 * xarray.  A change makes a new chunk and frees the old one after a grace
 * period, so a lookup takes no lock and writes nothing that CPUs share.  The
 * cost of the map follows the number of runs, not the depth of the chain.
 *
 * Two kinds of readers are told apart.  RCU protects the chunks during a
 * lookup.  SRCU (@readers) protects the *places* that a lookup named: a read
 * holds it until its data has arrived, so that qc2_map_forget() can wait until
 * no read uses the forgotten places any more.
 *
 * The map is bounded: what exceeds the limit is evicted, chunk by chunk, in
 * the manner of a clock; a shrinker does the same when the system is short of
 * memory.  A region that was evicted is asked for again.
 *
 * Locking: @lock for all changes; it is taken in process context only, and
 * memory is allocated with GFP_NOIO below it.
 */
#include <linux/blk_types.h>
#include <linux/mm.h>
#include <linux/rcupdate.h>
#include <linux/sched.h>
#include <linux/slab.h>

#include "compat/compat.h"
#include "map.h"

#define QC2_RUN_STORE_SHIFT	24
#define QC2_RUN_HI_MASK		0xffffffU
#define QC2_RUN_ZERO		0xffU

/*
 * A run inside its region, packed into 12 bytes: the store and the upper 24
 * bits of the store's sector share a word.
 */
struct qc2_map_run {
	u16 start;
	u16 nr;
	u32 store_hi;
	u32 lo;
};

struct qc2_chunk {
	struct rcu_head rcu;
	u16 nr_runs;
	u8 referenced;
	struct qc2_map_run runs[];
};

/* Value entry of a region that is zeros throughout. */
#define QC2_REGION_ZERO		xa_mk_value(0)

/* What an entry without a chunk is reckoned to cost. */
#define QC2_VALUE_BYTES		16

static u32 qc2_run_store(const struct qc2_map_run *run)
{
	u32 store = run->store_hi >> QC2_RUN_STORE_SHIFT;

	return store == QC2_RUN_ZERO ? QC2_STORE_ZERO : store;
}

static u64 qc2_run_sector(const struct qc2_map_run *run)
{
	return (u64)(run->store_hi & QC2_RUN_HI_MASK) << 32 | run->lo;
}

static void qc2_run_set(struct qc2_map_run *run, unsigned int start, unsigned int nr,
			u32 store, u64 store_sector)
{
	run->start = start;
	run->nr = nr;
	run->store_hi = (store & 0xffU) << QC2_RUN_STORE_SHIFT |
			(upper_32_bits(store_sector) & QC2_RUN_HI_MASK);
	run->lo = lower_32_bits(store_sector);
}

/* Appends a run to the @nr in @v; joins it to the last one if it continues it. */
static unsigned int qc2_runs_append(struct qc2_map_run *v, unsigned int nr,
				    unsigned int start, unsigned int len,
				    u32 store, u64 store_sector)
{
	struct qc2_map_run *last = nr ? &v[nr - 1] : NULL;

	if (!len)
		return nr;

	if (last && last->start + last->nr == start && qc2_run_store(last) == store &&
	    (store == QC2_STORE_ZERO || qc2_run_sector(last) + last->nr == store_sector)) {
		last->nr += len;
		return nr;
	}

	qc2_run_set(&v[nr], start, len, store, store_sector);
	return nr + 1;
}

/* As qc2_runs_append(), for the part [from, to) of a run. */
static unsigned int qc2_runs_append_part(struct qc2_map_run *v, unsigned int nr,
					 const struct qc2_map_run *run,
					 unsigned int from, unsigned int to)
{
	u32 store = qc2_run_store(run);

	from = max_t(unsigned int, from, run->start);
	to = min_t(unsigned int, to, run->start + run->nr);
	if (from >= to)
		return nr;

	return qc2_runs_append(v, nr, from, to - from, store,
			       store == QC2_STORE_ZERO ? 0 :
			       qc2_run_sector(run) + (from - run->start));
}

static size_t qc2_entry_bytes(void *entry)
{
	if (!entry)
		return 0;
	return xa_is_value(entry) ? QC2_VALUE_BYTES : ksize(entry);
}

static void qc2_entry_free(struct qc2_map *map, void *entry)
{
	map->bytes -= qc2_entry_bytes(entry);
	if (entry && !xa_is_value(entry)) {
		struct qc2_chunk *chunk = entry;

		map->nr_chunks--;
		kfree_rcu(chunk, rcu);
	}
}

static void qc2_region_erase(struct qc2_map *map, unsigned long region)
{
	qc2_entry_free(map, xa_erase(&map->regions, region));
}

/*
 * One step of the clock: evicts the next entry, or a chunk that was used since
 * the last round is passed over for this time.  Returns whether it evicted.
 */
static bool qc2_map_evict(struct qc2_map *map)
{
	unsigned long region = map->hand;
	struct qc2_chunk *chunk;

	chunk = xa_find(&map->regions, &region, ULONG_MAX, XA_PRESENT);
	if (!chunk) {
		map->hand = 0;
		return false;
	}
	map->hand = region + 1;

	if (!xa_is_value(chunk) && READ_ONCE(chunk->referenced)) {
		WRITE_ONCE(chunk->referenced, 0);
		return false;
	}
	qc2_region_erase(map, region);
	return true;
}

/* Evicts until @bytes are free below the limit or nothing is left. */
static void qc2_map_make_room(struct qc2_map *map, size_t bytes)
{
	while (map->bytes && map->bytes + bytes > map->limit) {
		qc2_map_evict(map);
		cond_resched();
	}
}

/* The smallest map that can be configured is left alone by the shrinker. */
static unsigned long qc2_map_count(struct shrinker *shrinker, struct shrink_control *sc)
{
	struct qc2_map *map = qc2_shrinker_data(shrinker);

	if (READ_ONCE(map->bytes) <= QC2_MAP_LIMIT_KB_MIN * 1024UL)
		return SHRINK_EMPTY;
	return READ_ONCE(map->nr_chunks) ? : SHRINK_EMPTY;
}

static unsigned long qc2_map_scan(struct shrinker *shrinker, struct shrink_control *sc)
{
	struct qc2_map *map = qc2_shrinker_data(shrinker);
	unsigned long freed = 0, i;

	/* The holder of the lock may be the one who needs memory. */
	if (!mutex_trylock(&map->lock))
		return SHRINK_STOP;
	for (i = 0; i < sc->nr_to_scan && map->bytes > QC2_MAP_LIMIT_KB_MIN * 1024UL; i++)
		freed += qc2_map_evict(map);
	mutex_unlock(&map->lock);
	return freed;
}

/**
 * qc2_map_init() - make an empty map
 * @map: the map
 * @limit: upper limit of its memory, in bytes
 * @name: of the device
 *
 * Return: 0 or -ENOMEM.
 */
int qc2_map_init(struct qc2_map *map, size_t limit, const char *name)
{
	int r;

	xa_init(&map->regions);
	mutex_init(&map->lock);
	map->bytes = 0;
	map->limit = limit;
	map->nr_chunks = 0;
	map->hand = 0;
	/*
	 * A region has at most one run a sector.  While new runs are merged in,
	 * an old one that is cut in two adds one more.
	 */
	map->scratch = kvmalloc_array(QC2_REGION_SECTORS + 2, sizeof(*map->scratch), GFP_KERNEL);
	if (!map->scratch)
		return -ENOMEM;

	r = qc2_srcu_init(&map->readers);
	if (r)
		goto bad_srcu;
	map->shrinker = qc2_shrinker_add(qc2_map_count, qc2_map_scan, map, name);
	if (!map->shrinker) {
		r = -ENOMEM;
		goto bad_shrinker;
	}
	return 0;

bad_shrinker:
	cleanup_srcu_struct(&map->readers);
bad_srcu:
	kvfree(map->scratch);
	map->scratch = NULL;
	return r;
}

/**
 * qc2_map_destroy() - free a map
 * @map: the map; no read is in flight
 */
void qc2_map_destroy(struct qc2_map *map)
{
	qc2_shrinker_remove(map->shrinker);
	qc2_map_drop(map);
	xa_destroy(&map->regions);
	cleanup_srcu_struct(&map->readers);
	kvfree(map->scratch);
	mutex_destroy(&map->lock);
}

/**
 * qc2_map_read_lock() - announce a read of a place that the map will name
 * @map: the map
 *
 * Context: process; the lock may be released in any other context.
 * Return: token for qc2_map_read_unlock(), never 0.
 */
unsigned long qc2_map_read_lock(struct qc2_map *map) __acquires(&map->readers)
{
	return qc2_srcu_down_read(&map->readers);
}

/**
 * qc2_map_read_unlock() - the read has ended
 * @map: the map
 * @token: what qc2_map_read_lock() returned
 *
 * Context: any.
 */
void qc2_map_read_unlock(struct qc2_map *map, unsigned long token)
	__releases(&map->readers)
{
	qc2_srcu_up_read(&map->readers, token);
}

/**
 * qc2_map_lookup() - where the chain's content of some sectors is
 * @map: the map
 * @sector: first sector
 * @nr_sectors: number of sectors asked for, not 0
 * @place: the answer; @place->nr_sectors is set in any case, at most
 *	@nr_sectors, and says how far the answer, known or unknown, reaches
 *
 * The caller holds qc2_map_read_lock() from before the lookup until it no
 * longer uses the place.
 *
 * Context: any.
 * Return: whether the place is known.
 */
bool qc2_map_lookup(struct qc2_map *map, u64 sector, unsigned int nr_sectors,
		    struct qc2_place *place)
{
	unsigned int offset = sector & (QC2_REGION_SECTORS - 1);
	unsigned int lo = 0, hi, mid;
	const struct qc2_map_run *run;
	struct qc2_chunk *chunk;
	bool known = false;

	place->nr_sectors = min(nr_sectors, QC2_REGION_SECTORS - offset);

	rcu_read_lock();
	chunk = xa_load(&map->regions, sector >> QC2_REGION_SHIFT);
	if (!chunk)
		goto out;

	if (xa_is_value(chunk)) {
		place->store = QC2_STORE_ZERO;
		place->store_sector = 0;
		known = true;
		goto out;
	}

	/* Only the first lookup after the clock's hand has passed writes. */
	if (!READ_ONCE(chunk->referenced))
		WRITE_ONCE(chunk->referenced, 1);

	/*
	 * The first run that ends after the sector.  The first look is where it is
	 * if all runs are of one length: each look may be to wait for memory.
	 */
	hi = chunk->nr_runs;
	mid = offset * hi / QC2_REGION_SECTORS;
	while (lo < hi) {
		run = &chunk->runs[mid];
		if (run->start > offset) {
			hi = mid;
		} else if (run->start + run->nr <= offset) {
			lo = mid + 1;
		} else {
			lo = mid;
			break;
		}
		mid = (lo + hi) / 2;
	}
	if (lo == chunk->nr_runs)
		goto out;

	run = &chunk->runs[lo];
	if (run->start > offset) {
		place->nr_sectors = min_t(unsigned int, place->nr_sectors, run->start - offset);
		goto out;
	}

	place->nr_sectors = min_t(unsigned int, place->nr_sectors,
				  run->start + run->nr - offset);
	place->store = qc2_run_store(run);
	place->store_sector = place->store == QC2_STORE_ZERO ? 0 :
			      qc2_run_sector(run) + (offset - run->start);
	known = true;
out:
	rcu_read_unlock();
	return known;
}

/* Replaces what is known of a region by the @nr runs in map->scratch. */
static int qc2_region_set(struct qc2_map *map, unsigned long region, unsigned int nr)
{
	const struct qc2_map_run *v = map->scratch;
	struct qc2_chunk *chunk;
	void *entry, *old;

	if (nr == 1 && v->nr == QC2_REGION_SECTORS && qc2_run_store(v) == QC2_STORE_ZERO) {
		entry = QC2_REGION_ZERO;
	} else {
		chunk = kmalloc(struct_size(chunk, runs, nr), GFP_NOIO | __GFP_NOWARN);
		if (!chunk)
			goto nomem;
		chunk->nr_runs = nr;
		chunk->referenced = 1;
		memcpy(chunk->runs, v, array_size(nr, sizeof(*v)));
		entry = chunk;
	}

	map->bytes += qc2_entry_bytes(entry);
	map->nr_chunks += !xa_is_value(entry);
	old = xa_store(&map->regions, region, entry, GFP_NOIO);
	if (xa_is_err(old)) {
		qc2_entry_free(map, entry);
		goto nomem;
	}
	qc2_entry_free(map, old);
	return 0;

nomem:
	/* What is not known is asked for again. */
	qc2_region_erase(map, region);
	return -ENOMEM;
}

/*
 * Merges the runs of [from, to), which lie in one region, over what is known
 * of that region.
 */
static int qc2_region_merge(struct qc2_map *map, unsigned long region,
			    const struct qc2_run *runs, unsigned int nr_runs)
{
	static const struct qc2_map_run zero_run = {
		.nr = QC2_REGION_SECTORS,
		.store_hi = QC2_RUN_ZERO << QC2_RUN_STORE_SHIFT,
	};
	u64 base = (u64)region << QC2_REGION_SHIFT;
	const struct qc2_map_run *old = NULL;
	unsigned int nr_old = 0, pos = 0, nr = 0, i, o = 0;
	struct qc2_chunk *chunk;

	chunk = xa_load(&map->regions, region);
	if (xa_is_value(chunk)) {
		old = &zero_run;
		nr_old = 1;
	} else if (chunk) {
		old = chunk->runs;
		nr_old = chunk->nr_runs;
	}

	for (i = 0; i < nr_runs; i++) {
		const struct qc2_run *run = &runs[i];
		u64 from = max(run->sector, base);
		u64 to = min(run->sector + run->nr_sectors, base + QC2_REGION_SECTORS);
		unsigned int start, len;

		if (from >= to)
			continue;
		start = from - base;
		len = to - from;

		/* Old runs keep what lies between the new ones. */
		while (o < nr_old && old[o].start < start) {
			nr = qc2_runs_append_part(map->scratch, nr, &old[o], pos, start);
			if (old[o].start + old[o].nr > start)
				break;
			o++;
		}
		nr = qc2_runs_append(map->scratch, nr, start, len, run->store,
				     run->store == QC2_STORE_ZERO ? 0 :
				     run->store_sector + (from - run->sector));
		pos = start + len;
		while (o < nr_old && old[o].start + old[o].nr <= pos)
			o++;
	}
	for (; o < nr_old; o++)
		nr = qc2_runs_append_part(map->scratch, nr, &old[o], pos, QC2_REGION_SECTORS);

	qc2_map_make_room(map, struct_size(chunk, runs, nr));
	return qc2_region_set(map, region, nr);
}

/**
 * qc2_map_insert() - learn where the chain's content is
 * @map: the map
 * @runs: sorted, without overlap, checked by the caller
 * @nr_runs: their number, not 0
 *
 * New runs replace what was known of their sectors.
 *
 * Context: process; allocates with GFP_NOIO.
 * Return: 0, or -ENOMEM if some of it was not learnt.
 */
int qc2_map_insert(struct qc2_map *map, const struct qc2_run *runs, unsigned int nr_runs)
{
	const struct qc2_run *end = runs + nr_runs, *last;
	unsigned long region, done = 0;
	bool any = false;
	int r = 0, err;

	mutex_lock(&map->lock);
	while (runs < end) {
		region = runs->sector >> QC2_REGION_SHIFT;
		if (any && region <= done)
			region = done + 1;
		if ((u64)region << QC2_REGION_SHIFT >= runs->sector + runs->nr_sectors) {
			runs++;
			continue;
		}

		/* All runs that begin before the end of this region. */
		for (last = runs; last < end; last++)
			if (last->sector >> QC2_REGION_SHIFT > region)
				break;
		err = qc2_region_merge(map, region, runs, last - runs);
		/* The region is forgotten then: its new runs alone are less. */
		if (err)
			err = qc2_region_merge(map, region, runs, last - runs);
		if (err)
			r = err;
		done = region;
		any = true;
		cond_resched();
	}
	mutex_unlock(&map->lock);
	return r;
}

/* Whether one of the sorted ranges touches @nr sectors from @start on. */
static bool qc2_ranges_touch(const struct qc2_range *ranges, unsigned int nr_ranges, u64 start,
			     unsigned int nr)
{
	unsigned int lo = 0, hi = nr_ranges, mid;

	/* The first range that ends behind @start; the ends are sorted, too. */
	while (lo < hi) {
		mid = (lo + hi) / 2;
		if (ranges[mid].sector + ranges[mid].nr_sectors <= start)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < nr_ranges && ranges[lo].sector < start + nr;
}

static bool qc2_entry_uses(void *entry, u32 store, const struct qc2_range *ranges,
			   unsigned int nr_ranges)
{
	struct qc2_chunk *chunk = entry;
	unsigned int i;

	if (xa_is_value(entry))
		return false;

	for (i = 0; i < chunk->nr_runs; i++) {
		const struct qc2_map_run *run = &chunk->runs[i];

		if (qc2_run_store(run) == store &&
		    qc2_ranges_touch(ranges, nr_ranges, qc2_run_sector(run), run->nr))
			return true;
	}
	return false;
}

/**
 * qc2_map_forget() - forget places, and wait until no read uses them
 * @map: the map
 * @store: index of the store
 * @ranges: sectors of that store, as qc2_check_ranges() wants them
 * @nr_ranges: their number
 *
 * Whole regions are forgotten in which a run touches a range: that needs no
 * memory, and the rest is asked for again.
 *
 * Context: process; waits for all reads in flight to places of this map.
 */
void qc2_map_forget(struct qc2_map *map, u32 store, const struct qc2_range *ranges,
		    unsigned int nr_ranges)
{
	unsigned long region;
	void *entry;

	mutex_lock(&map->lock);
	xa_for_each(&map->regions, region, entry) {
		if (qc2_entry_uses(entry, store, ranges, nr_ranges))
			qc2_region_erase(map, region);
		cond_resched();
	}
	mutex_unlock(&map->lock);

	/* Readers without memory barriers make others wait long, unless pressed. */
	synchronize_srcu_expedited(&map->readers);
}

/* Forgets [from, to) of a region that has a chunk; all of it without memory. */
static void qc2_region_cut(struct qc2_map *map, unsigned long region, unsigned int from,
			   unsigned int to)
{
	struct qc2_chunk *chunk = xa_load(&map->regions, region);
	unsigned int nr = 0, i;

	for (i = 0; i < chunk->nr_runs; i++) {
		nr = qc2_runs_append_part(map->scratch, nr, &chunk->runs[i], 0, from);
		nr = qc2_runs_append_part(map->scratch, nr, &chunk->runs[i], to,
					  QC2_REGION_SECTORS);
	}
	if (nr)
		qc2_region_set(map, region, nr);
	else
		qc2_region_erase(map, region);
}

/**
 * qc2_map_distrust() - forget a place that a read has found to be bad
 * @map: the map
 * @sector: sector that the map said to be there
 * @store: index of the store
 * @store_sector: sector of that store
 *
 * What is known of the sector's block is forgotten, unless the map says something
 * else about the sector meanwhile: that may be the daemon's better answer.
 *
 * Context: process; allocates with GFP_NOIO.  Does not wait for reads in flight.
 */
void qc2_map_distrust(struct qc2_map *map, u64 sector, u32 store, u64 store_sector)
{
	unsigned int from = sector & (QC2_REGION_SECTORS - 1) & ~(QC2_BLOCK_SECTORS - 1);
	struct qc2_place place;

	mutex_lock(&map->lock);
	if (qc2_map_lookup(map, sector, 1, &place) && place.store == store &&
	    place.store_sector == store_sector)
		qc2_region_cut(map, sector >> QC2_REGION_SHIFT, from, from + QC2_BLOCK_SECTORS);
	mutex_unlock(&map->lock);
}

/**
 * qc2_map_drop() - forget everything
 * @map: the map
 *
 * Context: process.  Does not wait for reads in flight.
 */
void qc2_map_drop(struct qc2_map *map)
{
	unsigned long region;
	void *entry;

	mutex_lock(&map->lock);
	xa_for_each(&map->regions, region, entry) {
		qc2_region_erase(map, region);
		cond_resched();
	}
	mutex_unlock(&map->lock);
}

/**
 * qc2_map_set_limit() - change the limit of a map's memory
 * @map: the map
 * @limit: in bytes
 *
 * Context: process.
 */
void qc2_map_set_limit(struct qc2_map *map, size_t limit)
{
	mutex_lock(&map->lock);
	WRITE_ONCE(map->limit, limit);
	qc2_map_make_room(map, 0);
	mutex_unlock(&map->lock);
}
