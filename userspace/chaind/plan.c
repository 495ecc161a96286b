/* SPDX-License-Identifier: GPL-2.0 */
/* What is fetched for a read, and ahead of reads.  Main thread only. */
#include <stdlib.h>
#include <string.h>

#include "bring.h"
#include "disk.h"
#include "plan.h"
#include "url.h"

/* A gap between live ranges of an object is fetched with them up to this. */
#define MAX_GAP		QC2_BLOCK_BYTES
/* How far beside its place the next read of a stream may lie, in sectors. */
#define SLACK		256
/* Reads that went on with another before they are a stream. */
#define IS_STREAM	2
/* A stream that none of so many requests was of has ended. */
#define RECENT		64
/* Bytes of a stream's first window. */
#define FIRST_WINDOW	(1U << 19)
/* Most pieces of a window; a disk of tiny pieces is planned for in more steps. */
#define MAX_WANTS	4096
/* Where extensions are of no use one is tried for so many reads. */
#define TRY_ONE_OF	16
#define ALL_USEFUL	256
/* Another miss in a spot doubles its extension, so often at most. */
#define MAX_DOUBLED	16
/* Pieces of an extension. */
#define MAX_RUNS	64
#define USEFUL_SHIFT	4	/* each tells a sixteenth */

struct run {
	uint32_t first, end;
};

void plan_init(struct plan *plan)
{
	plan->useful = ALL_USEFUL / 4;
}

void plan_was_useful(struct plan *plan)
{
	plan->useful += ALL_USEFUL >> USEFUL_SHIFT;
	if (plan->useful > ALL_USEFUL)
		plan->useful = ALL_USEFUL;
}

/* It is not yet known whether it will be.  Rounded up, or it would never come to none. */
static void count_extension(struct plan *plan)
{
	plan->useful -= (plan->useful + (1U << USEFUL_SHIFT) - 1) >> USEFUL_SHIFT;
}

/* Neither here nor on its way. */
static bool is_missing(const struct disk *disk, struct object *obj, uint32_t nr)
{
	return !block_find(obj, nr) &&
	       cache_lookup(disk->chaind->cache, obj, nr) == CACHE_NO_SLOT;
}

static const uint8_t *find_digest(const struct disk *disk, uint32_t object,
				  const struct block *block)
{
	return disk->digests ?
		qc2_digests_find(disk->digests, object, block->nr) : NULL;
}

bool plan_has_own_digest(const struct disk *disk, uint32_t object,
			 const struct block *block)
{
	const uint8_t *digest = find_digest(disk, object, block);

	return digest && block->has_digest &&
	       !memcmp(block->digest, digest, sizeof(block->digest));
}

static void set_digest(struct disk *disk, uint32_t object, struct block *block)
{
	const uint8_t *digest = find_digest(disk, object, block);
	struct qc2_err err;

	block->has_digest = digest;
	block->dead = disk->digests && !digest;
	if (!digest)
		return;
	memcpy(block->digest, digest, sizeof(block->digest));
	/*
	 * All disks read what is found by it.  A manifest speaks for images in its own
	 * folder: who can write there can change them, too.
	 */
	block->vouched = !qc2_url_allowed(block->obj->url, disk->chain->links[0].url, NULL, 0,
					  &err);
}

/*
 * A compressed cluster is unpacked as a whole: a fetch begins with the first
 * block of one and ends with the last one of one, as far as they are not
 * here; otherwise it would be fetched and unpacked for each of its blocks.
 */
static void whole_clusters(struct disk *disk, struct object *obj, uint32_t *first,
			   uint32_t *end)
{
	uint32_t blocks = object_cluster_blocks(obj), start = *first - *first % blocks;
	uint64_t stop = (uint64_t)*end + (blocks - *end % blocks) % blocks;

	if (stop > object_nr_blocks(obj))
		stop = object_nr_blocks(obj);
	while (*first > start && is_missing(disk, obj, *first - 1))
		--*first;
	while (*end < stop && is_missing(disk, obj, *end))
		++*end;
}

/* Blocks of one fetch: what takes as long as the wait for it, in whole clusters. */
static uint32_t fetch_blocks(struct object *obj)
{
	uint32_t blocks = object_cluster_blocks(obj), nr;

	nr = origin_chunk(object_place(obj, NULL)->origin) / QC2_BLOCK_BYTES;
	nr -= nr % blocks;
	return nr > FETCH_MAX_BLOCKS ? FETCH_MAX_BLOCKS : nr ? nr : blocks;
}

/* Blocks [@first, @end) of an object, all missing, at once; false: no memory. */
static bool fetch_some(struct disk *disk, struct fetch_stats *stats, enum fetch_class class,
		       uint32_t object, uint32_t first, uint32_t end)
{
	struct block *blocks[FETCH_MAX_BLOCKS];
	unsigned int nr;

	for (nr = 0; nr < end - first; nr++) {
		blocks[nr] = block_new(disk->objects[object], first + nr);
		if (!blocks[nr])
			break;
		set_digest(disk, object, blocks[nr]);
	}
	if (nr == end - first && !bring_start(disk->chaind, class, blocks, nr, stats))
		return true;
	while (nr)
		block_free(blocks[--nr]);
	return false;
}

struct block *plan_demand(struct disk *disk, const struct piece *piece)
{
	struct object *obj = disk->objects[piece->object];
	uint32_t wanted = piece->offset / QC2_BLOCK_BYTES;
	uint32_t first = wanted, end = wanted + 1;

	whole_clusters(disk, obj, &first, &end);
	if (!fetch_some(disk, disk->stats, FETCH_DEMAND, piece->object, first, end))
		return NULL;
	return block_find(obj, wanted);
}

/* The same for many, ahead, in several fetches. */
void plan_bring(struct disk *disk, struct fetch_stats *stats, uint32_t object,
		uint32_t first, uint32_t end)
{
	struct object *obj = disk->objects[object];
	uint32_t step = fetch_blocks(obj), nr;

	whole_clusters(disk, obj, &first, &end);
	while (first < end) {
		for (nr = 0; nr < step && first + nr < end &&
		     is_missing(disk, obj, first + nr); nr++)
			;
		if (nr && !fetch_some(disk, stats, FETCH_AHEAD, object, first, first + nr))
			return;
		first += nr ? nr : 1;
	}
}

static void fetch_ahead(struct disk *disk, uint32_t object, uint32_t first, uint32_t end)
{
	/* It would be stale when the store is back. */
	if (object_place(disk->objects[object], NULL)->origin->failures)
		return;
	plan_bring(disk, disk->stats, object, first, end);
}

static void mark(struct disk *disk, uint32_t object, uint32_t nr)
{
	struct block *block = block_find(disk->objects[object], nr);

	if (block)
		block->marked = true;
}

/*
 * ---------------------------------------------------------------------------
 * Extensions
 * ---------------------------------------------------------------------------
 */

/* Blocks that an extension of a read from an object has at most. */
static uint32_t max_extension(const struct disk *disk, struct object *obj)
{
	uint64_t chunk = origin_chunk(object_place(obj, NULL)->origin);
	uint64_t max = disk->chaind->cfg.extension_bytes;

	return (max < chunk ? max : chunk) / QC2_BLOCK_BYTES;
}

/* Counts a miss there.  Returns how many there were lately, this one included. */
static unsigned int count_miss(struct plan *plan, uint32_t object, uint32_t nr)
{
	struct spot *oldest = &plan->spots[0];
	unsigned int i;

	plan->misses++;
	for (i = 0; i < PLAN_SPOTS; i++) {
		struct spot *spot = &plan->spots[i];

		if (spot->used && spot->object == object && spot->nr == nr) {
			spot->used = plan->misses;
			return ++spot->misses;
		}
		if (spot->used < oldest->used)
			oldest = spot;
	}
	*oldest = (struct spot){ object, nr, 1, plan->misses };
	return 1;
}

/*
 * Blocks that an extension should have.  The first one in a spot: the square of how useful
 * they are; a boot is about as fast with it, and fetches much less.
 */
static uint32_t extension_blocks(struct plan *plan, uint32_t max, unsigned int misses)
{
	uint64_t nr = (uint64_t)max * plan->useful;

	if (misses == 1)
		nr = nr * plan->useful / ALL_USEFUL;
	else
		nr <<= misses < MAX_DOUBLED ? misses - 2 : MAX_DOUBLED;
	nr /= ALL_USEFUL;
	if (!nr && plan->without++ % TRY_ONE_OF == 0)
		nr = 1;
	return nr < max ? nr : max;
}

/* Runs of blocks in [@first, @end) that are live data, over small gaps, and missing. */
static unsigned int live_runs(struct disk *disk, const struct qc2_index *idx, uint32_t object,
			      uint32_t first, uint32_t end, struct run *runs, unsigned int max)
{
	struct object *obj = disk->objects[object];
	size_t i = qc2_index_find_object(idx, object, (uint64_t)first * QC2_BLOCK_BYTES);
	uint32_t nr = first;		/* what is before it was seen */
	unsigned int nr_runs = 0;

	for (; i < idx->nr_by_object && nr < end; i++) {
		const struct qc2_extent *ext = &idx->extents[idx->by_object[i]];
		uint64_t ext_end = ext->offset + ext->nr_sectors * 512ULL;

		if (ext->object != object)
			break;
		if (ext->offset > (uint64_t)nr * QC2_BLOCK_BYTES + (nr > first ? MAX_GAP : 0))
			nr = ext->offset / QC2_BLOCK_BYTES;
		for (; nr < end && (uint64_t)nr * QC2_BLOCK_BYTES < ext_end; nr++) {
			if (!is_missing(disk, obj, nr))
				continue;
			if (nr_runs && runs[nr_runs - 1].end == nr) {
				runs[nr_runs - 1].end++;
			} else if (nr_runs < max) {
				runs[nr_runs++] = (struct run){ nr, nr + 1 };
			}
		}
	}
	return nr_runs;
}

/* Returns how many blocks it goes beyond the cluster of the read. */
static uint32_t extend(struct disk *disk, const struct qc2_index *idx,
		       const struct piece *missing)
{
	struct object *obj = disk->objects[missing->object];
	uint32_t block = missing->offset / QC2_BLOCK_BYTES, first, start, end, nr, nr_here = 0;
	uint32_t cluster = object_cluster_blocks(obj), max = max_extension(disk, obj);
	struct run runs[MAX_RUNS];
	unsigned int misses, nr_runs, i;

	if (!max)
		return 0;
	misses = count_miss(&disk->plan, missing->object, block / max);
	nr = extension_blocks(&disk->plan, max, misses);
	first = block + 1;
	first += (cluster - first % cluster) % cluster;	/* the cluster comes anyway */
	start = first - 1;
	end = first + nr;
	if (misses > 1 && nr) {
		while (nr & (nr - 1))
			nr &= nr - 1;
		start = block - block % nr;
		end = start + nr;
	}
	nr_runs = live_runs(disk, idx, missing->object, start, end, runs, MAX_RUNS);
	/* The first one ends where something is here. */
	if (misses == 1 && nr_runs)
		nr_runs = runs[0].first == first;
	if (!nr_runs)
		return 0;
	for (i = 0; i < nr_runs; i++) {
		fetch_ahead(disk, missing->object, runs[i].first, runs[i].end);
		nr_here += runs[i].end - runs[i].first;
	}
	for (i = 0, nr = nr_here / 2; nr >= runs[i].end - runs[i].first; i++)
		nr -= runs[i].end - runs[i].first;
	mark(disk, missing->object, runs[i].first + nr);
	count_extension(&disk->plan);
	return runs[nr_runs - 1].end > first ? runs[nr_runs - 1].end - first : 0;
}

/*
 * ---------------------------------------------------------------------------
 * Streams
 * ---------------------------------------------------------------------------
 */

/* A missing block of a window. */
struct want {
	uint32_t object, nr;
	uint32_t order;			/* on the disk */
};

/* Blocks in a row of one object. */
struct wanted_run {
	uint32_t object, first, end;
	uint32_t order;
};

static int by_place(const void *a, const void *b)
{
	const struct want *x = a, *y = b;

	if (x->object != y->object)
		return x->object > y->object ? 1 : -1;
	if (x->nr != y->nr)
		return x->nr > y->nr ? 1 : -1;
	return (x->order > y->order) - (x->order < y->order);
}

static int by_order(const void *a, const void *b)
{
	const struct wanted_run *x = a, *y = b;

	return (x->order > y->order) - (x->order < y->order);
}

/*
 * What is missing in sectors [@from, *@to), in order; *@to is cut if that is too much.
 * @middle: which of them is to be marked
 */
static unsigned int collect(struct disk *disk, const struct qc2_index *idx, uint64_t from,
			    uint64_t *to, struct want *wants, unsigned int *middle)
{
	uint64_t half = from + (*to - from) / 2;
	struct resolve res;
	struct piece piece;
	unsigned int nr = 0;

	*middle = 0;
	resolve_start(&res, disk->chaind->cache, idx, disk->objects, from, *to - from);
	while (resolve_next(&res, &piece)) {
		uint32_t block = piece.offset / QC2_BLOCK_BYTES;

		if (piece.kind != PIECE_MISSING ||
		    (nr && wants[nr - 1].object == piece.object && wants[nr - 1].nr == block) ||
		    block_find(disk->objects[piece.object], block))
			continue;
		if (nr == MAX_WANTS) {
			*to = piece.sector;
			break;
		}
		if (piece.sector <= half)
			*middle = nr;
		wants[nr] = (struct want){ piece.object, block, nr };
		nr++;
	}
	return nr;
}

/* Sorts @wants and joins them, over gaps of one block, too. */
static unsigned int join(struct want *wants, unsigned int nr, struct wanted_run *runs)
{
	unsigned int nr_runs = 0, i;

	qsort(wants, nr, sizeof(*wants), by_place);
	for (i = 0; i < nr; i++) {
		const struct want *w = &wants[i];
		struct wanted_run *run = nr_runs ? &runs[nr_runs - 1] : NULL;

		if (run && run->object == w->object && w->nr <= run->end + 1) {
			run->end = w->nr + 1;
			if (w->order < run->order)
				run->order = w->order;
			continue;
		}
		runs[nr_runs++] = (struct wanted_run){ w->object, w->nr, w->nr + 1, w->order };
	}
	qsort(runs, nr_runs, sizeof(*runs), by_order);
	return nr_runs;
}

/* Plans for sectors [@from, @to).  Returns up to where it did. */
static uint64_t fetch_window(struct disk *disk, const struct qc2_index *idx, uint64_t from,
			     uint64_t to)
{
	struct want *wants = calloc(MAX_WANTS, sizeof(*wants)), middle;
	struct wanted_run *runs = calloc(MAX_WANTS, sizeof(*runs));
	unsigned int nr, nr_runs, i;

	if (!wants || !runs) {
		to = from;
		goto out;
	}
	nr = collect(disk, idx, from, &to, wants, &i);
	if (!nr)
		goto out;
	middle = wants[i];
	nr_runs = join(wants, nr, runs);
	for (i = 0; i < nr_runs; i++)
		fetch_ahead(disk, runs[i].object, runs[i].first, runs[i].end);
	mark(disk, middle.object, middle.nr);
	count_extension(&disk->plan);
out:
	free(wants);
	free(runs);
	return to;
}

/*
 * What may be ahead at once: half of the buffers, and an eighth of the cache, shared by
 * the streams that go on.
 */
static uint64_t max_window(const struct disk *disk)
{
	const struct plan *plan = &disk->plan;
	unsigned int bufs, active = 0, i;
	struct cache_stats stats;

	cache_bufs(disk->chaind->cache, &bufs);
	cache_get_stats(disk->chaind->cache, &stats);
	if (bufs / 2 > stats.slots / 8)
		bufs = stats.slots / 4;
	for (i = 0; i < PLAN_STREAMS; i++)
		active += plan->streams[i].hits >= IS_STREAM &&
			  plan->clock - plan->streams[i].used < RECENT;
	bufs /= 2 * (active ? active : 1);
	return bufs ? (uint64_t)bufs * QC2_BLOCK_BYTES : FIRST_WINDOW;
}

/* The stream that a read goes on with, or the one to be replaced by a new one. */
static struct stream *find_stream(struct plan *plan, uint64_t sector, bool *goes_on)
{
	struct stream *oldest = &plan->streams[0];
	unsigned int i;

	for (i = 0; i < PLAN_STREAMS; i++) {
		struct stream *s = &plan->streams[i];

		*goes_on = s->used && sector + SLACK >= s->pos && sector <= s->to + SLACK;
		if (*goes_on)
			return s;
		if (s->used < oldest->used)
			oldest = s;
	}
	return oldest;
}

/* The stream that a read belongs to, a new one if it goes on with none. */
static struct stream *follow(struct plan *plan, uint64_t sector, uint64_t end,
			     bool was_marked)
{
	bool goes_on;
	struct stream *s = find_stream(plan, sector, &goes_on);

	s->used = ++plan->clock;
	if (!goes_on) {
		s->pos = end;
		s->to = end;
		s->window = FIRST_WINDOW;
		s->hits = 0;
	} else if (end > s->pos) {
		s->pos = end;
		/* Between it and a marked block there were others. */
		s->hits += was_marked ? IS_STREAM : 1;
	}
	return s;
}

/* Fetches what comes next, if less than half of a window is left. */
static void go_ahead(struct disk *disk, const struct qc2_index *idx, uint64_t to,
		     struct stream *s)
{
	uint64_t from = s->to > s->pos ? s->to : s->pos;
	uint64_t target = s->pos + s->window / 512;

	if (target > to)
		target = to;
	if (from >= target || from - s->pos > s->window / 512 / 2)
		return;
	s->to = fetch_window(disk, idx, from, target);
	s->window *= 2;
	if (s->window > max_window(disk))
		s->window = max_window(disk);
}

uint64_t plan_told_to(const struct plan *plan, uint64_t sector)
{
	unsigned int i;

	for (i = 0; i < PLAN_STREAMS; i++) {
		const struct stream *s = &plan->streams[i];

		if (s->used && sector <= s->pos && sector + SLACK >= s->pos)
			return s->to;
	}
	return 0;
}

void plan_ahead(struct disk *disk, const struct qc2_index *idx, uint64_t to,
		uint64_t sector, uint64_t nr_sectors, const struct piece *missing,
		bool was_marked)
{
	uint64_t end = sector + nr_sectors;
	struct stream *s = follow(&disk->plan, sector, end, was_marked);

	if (s->hits >= IS_STREAM) {
		go_ahead(disk, idx, to, s);
	} else if (missing) {
		/* Mostly what lies behind it in the object does so on the disk, too. */
		end += (uint64_t)extend(disk, idx, missing) * QC2_BLOCK_SECTORS;
		if (end > s->to)
			s->to = end;
	}
}
