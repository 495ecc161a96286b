// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit suite of the chain map, beside a plain array of sectors that says what
 * the map should know.
 */
#include <kunit/test.h>
#include <linux/completion.h>
#include <linux/kthread.h>
#include <linux/prandom.h>
#include <linux/vmalloc.h>

#include "../../kernel/map.c"

/* The model covers this many regions; more are only needed to exceed a limit. */
#define MODEL_REGIONS	4
#define MODEL_SECTORS	(MODEL_REGIONS * QC2_REGION_SECTORS)

/* A store of sectors of which nothing is known. */
#define NOWHERE		(QC2_STORE_ZERO - 1)

#define NO_LIMIT	(SIZE_MAX / 2)

struct model_place {
	u64 store_sector;
	u32 store;
};

/* Sectors [base, base + MODEL_SECTORS) of a disk as the map should have them. */
struct map_model {
	struct qc2_map map;
	struct rnd_state rnd;
	u64 base;
	struct model_place *places;
};

static u32 below(struct map_model *m, u32 limit)
{
	return prandom_u32_state(&m->rnd) % limit;
}

static void model_unknown(struct map_model *m, unsigned int first, unsigned int nr)
{
	while (nr--)
		m->places[first++].store = NOWHERE;
}

static void model_set(struct map_model *m, const struct qc2_run *run)
{
	struct model_place *place = &m->places[run->sector - m->base];
	unsigned int i;

	for (i = 0; i < run->nr_sectors; i++) {
		place[i].store = run->store;
		place[i].store_sector = run->store == QC2_STORE_ZERO ? 0 : run->store_sector + i;
	}
}

static bool model_touches(const struct model_place *place, u32 store,
			  const struct qc2_range *ranges, unsigned int nr)
{
	unsigned int i;

	if (place->store != store)
		return false;
	for (i = 0; i < nr; i++)
		if (place->store_sector >= ranges[i].sector &&
		    place->store_sector - ranges[i].sector < ranges[i].nr_sectors)
			return true;
	return false;
}

/* As qc2_map_forget() promises: every region with a run that touches a range. */
static void model_forget(struct map_model *m, u32 store, const struct qc2_range *ranges,
			 unsigned int nr)
{
	unsigned int region, i;

	for (region = 0; region < MODEL_SECTORS; region += QC2_REGION_SECTORS) {
		for (i = region; i < region + QC2_REGION_SECTORS; i++)
			if (model_touches(&m->places[i], store, ranges, nr))
				break;
		if (i < region + QC2_REGION_SECTORS)
			model_unknown(m, region, QC2_REGION_SECTORS);
	}
}

/* Forgets one range, in the map only. */
static void forget(struct qc2_map *map, u32 store, u64 sector, u64 nr_sectors)
{
	const struct qc2_range range = { .sector = sector, .nr_sectors = nr_sectors };

	qc2_map_forget(map, store, &range, 1);
}

/* Likewise, in the model as well. */
static void forget_both(struct map_model *m, u32 store, u64 sector, u64 nr_sectors)
{
	const struct qc2_range range = { .sector = sector, .nr_sectors = nr_sectors };

	qc2_map_forget(&m->map, store, &range, 1);
	model_forget(m, store, &range, 1);
}

/* Whether sector @i of the model goes on where the one before it is. */
static bool model_continues(struct map_model *m, unsigned int i)
{
	const struct model_place *a = &m->places[i - 1], *b = &m->places[i];

	if (a->store != b->store)
		return false;
	return a->store == QC2_STORE_ZERO || a->store == NOWHERE ||
	       a->store_sector + 1 == b->store_sector;
}

/* The map says what the model says, in as few answers as there can be. */
static void check_all(struct kunit *test, struct map_model *m)
{
	unsigned int first = 0, i, region_end;
	struct qc2_place place;
	bool known;

	while (first < MODEL_SECTORS) {
		const struct model_place *wanted = &m->places[first];

		known = qc2_map_lookup(&m->map, m->base + first, MODEL_SECTORS - first, &place);
		if (known != (wanted->store != NOWHERE)) {
			KUNIT_FAIL(test, "sector %u: %sknown", first, known ? "" : "un");
			return;
		}
		if (known && (place.store != wanted->store ||
			      place.store_sector != wanted->store_sector)) {
			KUNIT_FAIL(test, "sector %u: at %u:%llu instead of %u:%llu", first,
				   place.store, place.store_sector, wanted->store,
				   wanted->store_sector);
			return;
		}

		region_end = round_up(first + 1, QC2_REGION_SECTORS);
		for (i = first + 1; i < region_end; i++)
			if (!model_continues(m, i))
				break;
		if (place.nr_sectors != i - first) {
			KUNIT_FAIL(test, "sector %u: answer for %u sectors instead of %u", first,
				   place.nr_sectors, i - first);
			return;
		}
		first = i;
	}
}

/* The map reckons with the memory that it has. */
static void check_bytes(struct kunit *test, struct qc2_map *map)
{
	unsigned long region, nr_chunks = 0;
	size_t bytes = 0;
	void *entry;

	xa_for_each(&map->regions, region, entry) {
		bytes += xa_is_value(entry) ? QC2_VALUE_BYTES : ksize(entry);
		nr_chunks += !xa_is_value(entry);
	}
	KUNIT_EXPECT_EQ(test, map->bytes, bytes);
	KUNIT_EXPECT_EQ(test, map->nr_chunks, nr_chunks);
}

static struct qc2_run run_at(u64 sector, u32 nr_sectors, u32 store, u64 store_sector)
{
	return (struct qc2_run){
		.sector = sector,
		.nr_sectors = nr_sectors,
		.store = store,
		.store_sector = store_sector,
	};
}

/* Inserts one run, into the model as well if it is there. */
static void insert(struct kunit *test, struct map_model *m, u64 sector, u32 nr_sectors, u32 store,
		   u64 store_sector)
{
	struct qc2_run run = run_at(sector, nr_sectors, store, store_sector);

	KUNIT_EXPECT_EQ(test, qc2_map_insert(&m->map, &run, 1), 0);
	if (sector >= m->base && sector + nr_sectors <= m->base + MODEL_SECTORS)
		model_set(m, &run);
}

static int map_test_init(struct kunit *test)
{
	struct map_model *m = kunit_kzalloc(test, sizeof(*m), GFP_KERNEL);

	if (!m)
		return -ENOMEM;
	m->places = vmalloc(array_size(MODEL_SECTORS, sizeof(*m->places)));
	if (!m->places)
		return -ENOMEM;
	model_unknown(m, 0, MODEL_SECTORS);
	prandom_seed_state(&m->rnd, 1);
	test->priv = m;
	return qc2_map_init(&m->map, NO_LIMIT, "kunit");
}

static void map_test_exit(struct kunit *test)
{
	struct map_model *m = test->priv;

	if (!m)
		return;
	if (m->map.scratch) {
		qc2_map_drop(&m->map);
		KUNIT_EXPECT_EQ(test, m->map.bytes, 0);
		qc2_map_destroy(&m->map);
	}
	vfree(m->places);
}

static void map_test_empty(struct kunit *test)
{
	struct map_model *m = test->priv;
	struct qc2_place place;

	check_all(test, m);
	KUNIT_EXPECT_FALSE(test, qc2_map_lookup(&m->map, QC2_TIP_MAX_SECTORS - 1, 1, &place));
	KUNIT_EXPECT_EQ(test, place.nr_sectors, 1);
	KUNIT_EXPECT_EQ(test, m->map.bytes, 0);
}

/* An answer ends where the run, the region or the question ends. */
static void map_test_reach(struct kunit *test)
{
	struct map_model *m = test->priv;
	struct qc2_place place;

	insert(test, m, 100, 50, 3, 7000);
	insert(test, m, QC2_REGION_SECTORS - 10, 20, 4, 100);

	KUNIT_EXPECT_FALSE(test, qc2_map_lookup(&m->map, 0, 1000, &place));
	KUNIT_EXPECT_EQ(test, place.nr_sectors, 100);
	KUNIT_EXPECT_TRUE(test, qc2_map_lookup(&m->map, 120, 1000, &place));
	KUNIT_EXPECT_EQ(test, place.store, 3);
	KUNIT_EXPECT_EQ(test, place.store_sector, 7020);
	KUNIT_EXPECT_EQ(test, place.nr_sectors, 30);
	KUNIT_EXPECT_TRUE(test, qc2_map_lookup(&m->map, 149, 1, &place));
	KUNIT_EXPECT_EQ(test, place.nr_sectors, 1);
	KUNIT_EXPECT_FALSE(test, qc2_map_lookup(&m->map, 150, 1, &place));

	/* A run that crosses the border of regions is found on both sides. */
	KUNIT_EXPECT_TRUE(test, qc2_map_lookup(&m->map, QC2_REGION_SECTORS - 1, 8, &place));
	KUNIT_EXPECT_EQ(test, place.store_sector, 109);
	KUNIT_EXPECT_EQ(test, place.nr_sectors, 1);
	KUNIT_EXPECT_TRUE(test, qc2_map_lookup(&m->map, QC2_REGION_SECTORS, 100, &place));
	KUNIT_EXPECT_EQ(test, place.store_sector, 110);
	KUNIT_EXPECT_EQ(test, place.nr_sectors, 10);
	KUNIT_EXPECT_FALSE(test, qc2_map_lookup(&m->map, QC2_REGION_SECTORS + 10,
						QC2_REGION_SECTORS, &place));
	KUNIT_EXPECT_EQ(test, place.nr_sectors, QC2_REGION_SECTORS - 10);
	check_all(test, m);
}

/* Runs that continue each other become one; the others do not. */
static void map_test_merge(struct kunit *test)
{
	struct map_model *m = test->priv;
	struct qc2_place place;

	insert(test, m, 8, 8, 1, 1008);
	insert(test, m, 24, 8, 1, 1024);
	insert(test, m, 16, 8, 1, 1016);
	KUNIT_EXPECT_TRUE(test, qc2_map_lookup(&m->map, 8, 100, &place));
	KUNIT_EXPECT_EQ(test, place.nr_sectors, 24);

	/* Another store, and a gap in the same store, at the same place. */
	insert(test, m, 32, 8, 2, 1032);
	insert(test, m, 40, 8, 2, 1041);
	check_all(test, m);

	/* Into the middle, over both ends, and over all of it. */
	insert(test, m, 12, 4, 5, 0);
	insert(test, m, 30, 4, QC2_STORE_ZERO, 0);
	insert(test, m, 34, 4, QC2_STORE_ZERO, 0);
	check_all(test, m);
	insert(test, m, 0, 64, 6, 500);
	check_all(test, m);
	KUNIT_EXPECT_TRUE(test, qc2_map_lookup(&m->map, 0, 100, &place));
	KUNIT_EXPECT_EQ(test, place.nr_sectors, 64);
}

/* A region of zeros costs next to nothing, however it came about. */
static void map_test_zero_region(struct kunit *test)
{
	struct map_model *m = test->priv;
	unsigned int i;

	insert(test, m, 0, QC2_REGION_SECTORS, QC2_STORE_ZERO, 0);
	KUNIT_EXPECT_EQ(test, m->map.bytes, QC2_VALUE_BYTES);
	check_all(test, m);

	for (i = 0; i < QC2_REGION_SECTORS; i += 512)
		insert(test, m, QC2_REGION_SECTORS + i, 512, QC2_STORE_ZERO, 0);
	KUNIT_EXPECT_EQ(test, m->map.bytes, 2 * QC2_VALUE_BYTES);
	check_all(test, m);

	/* Data in the midst of it, and zeros again. */
	insert(test, m, 2000, 1, 1, 77);
	KUNIT_EXPECT_GT(test, m->map.bytes, 2 * QC2_VALUE_BYTES);
	check_all(test, m);
	insert(test, m, 2000, 1, QC2_STORE_ZERO, 0);
	KUNIT_EXPECT_EQ(test, m->map.bytes, 2 * QC2_VALUE_BYTES);
	check_all(test, m);
}

/* Sorted runs in [first, end), without overlap; returns their number. */
static unsigned int random_runs(struct map_model *m, struct qc2_run *runs, unsigned int max,
				unsigned int first, unsigned int end, u64 store_base)
{
	unsigned int shift = below(m, 13), pos = first + below(m, end - first), nr, gap, len;
	bool zero;

	for (nr = 0; nr < max && pos < end; nr++) {
		len = min_t(u32, 1 + below(m, 1 << shift), end - pos);
		zero = !below(m, 6);
		/* Places by position, mostly, so that runs often continue each other. */
		runs[nr] = run_at(m->base + pos, len, zero ? QC2_STORE_ZERO : below(m, 3),
				  zero ? 0 : store_base + pos + (below(m, 4) ? 0 : below(m, 1000)));
		gap = below(m, 3) ? 0 : below(m, 1 << shift);
		pos += len + gap;
	}
	return nr;
}

struct random_case {
	const char *name;
	u64 base;
	u64 store_base;
	u32 seed;
};

/*
 * Disks and stores beyond 2 TiB, where a sector needs more than 32 bits; a
 * store sector has 56.
 */
static const struct random_case random_cases[] = {
	{ "low", 0, 0, 1 },
	{ "low 2", 0, 0, 2 },
	{ "end of the largest disk", QC2_TIP_MAX_SECTORS - MODEL_SECTORS, 0, 3 },
	{ "across 32 bits", (1ULL << 32) - 2 * QC2_REGION_SECTORS,
	  (1ULL << 32) - 2 * QC2_REGION_SECTORS, 4 },
	{ "high", 5ULL << 34, (1ULL << 56) - 2 * MODEL_SECTORS, 5 },
};

static void random_case_name(const struct random_case *c, char *desc)
{
	strscpy(desc, c->name, KUNIT_PARAM_DESC_SIZE);
}
KUNIT_ARRAY_PARAM(random, random_cases, random_case_name);

/* Sorted ranges without overlap in the places of the model; returns their number. */
static unsigned int random_ranges(struct map_model *m, struct qc2_range *ranges,
				  unsigned int max, u64 store_base)
{
	unsigned int shift = below(m, 12), nr;
	u64 sector = store_base;

	for (nr = 0; nr < max; nr++) {
		/* Some touch the one before. */
		sector += below(m, 3) ? below(m, 2 * MODEL_SECTORS / max) : 0;
		ranges[nr].sector = sector;
		ranges[nr].nr_sectors = 1 + below(m, 1 << below(m, shift + 1));
		sector += ranges[nr].nr_sectors;
	}
	return nr;
}

/* Random inserts and forgets: the map is the model after each of them. */
static void map_test_random(struct kunit *test)
{
	const struct random_case *c = test->param_value;
	struct map_model *m = test->priv;
	struct qc2_range ranges[16];
	struct qc2_run runs[16];
	unsigned int i, j, nr;

	m->base = c->base;
	prandom_seed_state(&m->rnd, c->seed);

	for (i = 0; i < 250; i++) {
		if (below(m, 20)) {
			nr = random_runs(m, runs, 1 + below(m, ARRAY_SIZE(runs)), 0,
					 MODEL_SECTORS, c->store_base);
			KUNIT_ASSERT_EQ(test, qc2_map_insert(&m->map, runs, nr), 0);
			for (j = 0; j < nr; j++)
				model_set(m, &runs[j]);
		} else {
			u32 store = below(m, 4);

			nr = random_ranges(m, ranges, 1 + below(m, ARRAY_SIZE(ranges)),
					   c->store_base);
			qc2_map_forget(&m->map, store, ranges, nr);
			model_forget(m, store, ranges, nr);
		}
		check_all(test, m);
		if (test->status == KUNIT_FAILURE) {
			kunit_info(test, "after step %u", i);
			return;
		}
	}
	check_bytes(test, &m->map);
}

/* One insert of the longest run there can be, over many regions. */
static void map_test_long_run(struct kunit *test)
{
	const u64 sector = (1ULL << 33) - 5, nr = 64ULL * QC2_REGION_SECTORS + 10;
	const u64 store_sector = (1ULL << 32) - 3;
	struct map_model *m = test->priv;
	struct qc2_run run = run_at(sector, nr, 9, store_sector);
	u64 pos = 0;
	struct qc2_place place;

	KUNIT_EXPECT_EQ(test, qc2_map_insert(&m->map, &run, 1), 0);
	while (pos < nr) {
		if (!qc2_map_lookup(&m->map, sector + pos, U32_MAX, &place)) {
			KUNIT_FAIL(test, "unknown at +%llu", pos);
			return;
		}
		KUNIT_EXPECT_EQ(test, place.store, 9);
		KUNIT_EXPECT_EQ(test, place.store_sector, store_sector + pos);
		pos += place.nr_sectors;
	}
	KUNIT_EXPECT_EQ(test, pos, nr);
	KUNIT_EXPECT_FALSE(test, qc2_map_lookup(&m->map, sector + nr, 1, &place));
	KUNIT_EXPECT_FALSE(test, qc2_map_lookup(&m->map, sector - 1, 1, &place));
}

/* Every other sector of its own: the most runs that a region can have. */
static void map_test_full_region(struct kunit *test)
{
	struct map_model *m = test->priv;
	struct qc2_run *runs;
	unsigned int i;

	runs = kunit_kzalloc(test, array_size(QC2_REGION_SECTORS, sizeof(*runs)), GFP_KERNEL);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, runs);
	for (i = 0; i < QC2_REGION_SECTORS; i++) {
		runs[i] = run_at(i, 1, i % 2, 2 * i);
		model_set(m, &runs[i]);
	}
	KUNIT_EXPECT_EQ(test, qc2_map_insert(&m->map, runs, QC2_REGION_SECTORS), 0);
	check_all(test, m);

	/* Over old ones that are cut at both ends. */
	insert(test, m, 0, QC2_REGION_SECTORS, 5, 10000);
	for (i = 0; i < QC2_REGION_SECTORS / 2; i++)
		runs[i] = run_at(2 * i + 1, 1, 1, 3 * i);
	for (i = 0; i < QC2_REGION_SECTORS / 2; i++)
		model_set(m, &runs[i]);
	KUNIT_EXPECT_EQ(test, qc2_map_insert(&m->map, runs, QC2_REGION_SECTORS / 2), 0);
	check_all(test, m);
	check_bytes(test, &m->map);
}

#define WORST_REGIONS	200

/* The place of each 4 KiB of a disk that continues nothing. */
static struct qc2_run worst_run(u64 sector)
{
	return run_at(sector, 8, sector / 8 % 5, (sector / 8 * 2654435761ULL % (1 << 20)) * 8 +
		      (1ULL << 33));
}

/*
 * Every 4 KiB from another run, in a map that can hold a tenth of it: each
 * insert works and can be looked up, the limit holds, and what the map still
 * knows is right.
 */
static void map_test_worst_case(struct kunit *test)
{
	const size_t limit = QC2_MAP_LIMIT_KB_MIN * 1024;
	struct map_model *m = test->priv;
	unsigned int i, known = 0;
	struct qc2_run *runs;
	struct qc2_place place;
	u64 sector, base;

	qc2_map_set_limit(&m->map, limit);
	runs = kunit_kzalloc(test, array_size(QC2_REGION_SECTORS / 8, sizeof(*runs)), GFP_KERNEL);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, runs);

	for (base = 0; base < WORST_REGIONS * QC2_REGION_SECTORS; base += QC2_REGION_SECTORS) {
		for (i = 0; i < QC2_REGION_SECTORS / 8; i++)
			runs[i] = worst_run(base + 8 * i);
		KUNIT_ASSERT_EQ(test, qc2_map_insert(&m->map, runs, i), 0);
		KUNIT_EXPECT_LE(test, m->map.bytes, limit);
		for (i = 0; i < QC2_REGION_SECTORS / 8; i++)
			if (!qc2_map_lookup(&m->map, base + 8 * i, 8, &place))
				KUNIT_FAIL(test, "sector %llu is not known after its insert",
					   base + 8 * i);
	}

	for (sector = 0; sector < WORST_REGIONS * QC2_REGION_SECTORS; sector += 8) {
		struct qc2_run wanted = worst_run(sector);

		if (!qc2_map_lookup(&m->map, sector, 8, &place))
			continue;
		known++;
		if (place.store != wanted.store || place.store_sector != wanted.store_sector ||
		    place.nr_sectors != 8)
			KUNIT_FAIL(test, "sector %llu is wrong", sector);
	}
	/* Not more is lost than must be: half of the limit at least is used. */
	KUNIT_EXPECT_GE(test, known * sizeof(struct qc2_map_run), limit / 2);
	check_bytes(test, &m->map);

	/* Regions of zeros count as well. */
	for (i = 0; i < 2 * limit / QC2_VALUE_BYTES; i++) {
		struct qc2_run run = run_at((u64)(1000 + i) * QC2_REGION_SECTORS,
					    QC2_REGION_SECTORS, QC2_STORE_ZERO, 0);

		KUNIT_ASSERT_EQ(test, qc2_map_insert(&m->map, &run, 1), 0);
	}
	KUNIT_EXPECT_LE(test, m->map.bytes, limit);
	check_bytes(test, &m->map);
}

/*
 * Random inserts into a map that cannot hold them.  An evicted region is unknown
 * as a whole, and none of its past comes back.
 */
static void map_test_evict_random(struct kunit *test)
{
	unsigned int i, j, nr, region, evicted = 0;
	struct map_model *m = test->priv;
	struct qc2_run runs[64];

	/* Less than users can set, for the few regions of the model. */
	qc2_map_set_limit(&m->map, 8192);
	for (i = 0; i < 250; i++) {
		/* In one region: this insert evicts others, not what it inserts. */
		region = below(m, MODEL_REGIONS) * QC2_REGION_SECTORS;
		nr = random_runs(m, runs, 1 + below(m, ARRAY_SIZE(runs)), region,
				 region + QC2_REGION_SECTORS, 1ULL << 40);
		KUNIT_ASSERT_EQ(test, qc2_map_insert(&m->map, runs, nr), 0);
		for (j = 0; j < nr; j++)
			model_set(m, &runs[j]);
		for (j = 0; j < MODEL_SECTORS; j += QC2_REGION_SECTORS)
			if (j != region && !xa_load(&m->map.regions, j >> QC2_REGION_SHIFT)) {
				model_unknown(m, j, QC2_REGION_SECTORS);
				evicted++;
			}
		check_all(test, m);
		if (test->status == KUNIT_FAILURE) {
			kunit_info(test, "after step %u", i);
			return;
		}
	}
	KUNIT_EXPECT_GT(test, evicted, 0);
	check_bytes(test, &m->map);
}

/* A smaller limit applies at once. */
static void map_test_limit(struct kunit *test)
{
	struct map_model *m = test->priv;
	struct qc2_run run;
	unsigned int i, j;

	for (i = 0; i < MODEL_REGIONS; i++)
		for (j = 0; j < 100; j++) {
			run = worst_run(i * QC2_REGION_SECTORS + 8 * j);
			KUNIT_ASSERT_EQ(test, qc2_map_insert(&m->map, &run, 1), 0);
		}
	check_bytes(test, &m->map);
	KUNIT_EXPECT_GT(test, m->map.bytes, 4096);
	qc2_map_set_limit(&m->map, 4096);
	KUNIT_EXPECT_LE(test, m->map.bytes, 4096);
	KUNIT_EXPECT_GT(test, m->map.bytes, 0);
	check_bytes(test, &m->map);
	qc2_map_drop(&m->map);
	KUNIT_EXPECT_EQ(test, m->map.bytes, 0);
	check_all(test, m);
}

/* The shrinker leaves the smallest map that can be configured. */
static void map_test_shrink(struct kunit *test)
{
	const size_t least = QC2_MAP_LIMIT_KB_MIN * 1024;
	struct shrink_control sc = { .gfp_mask = GFP_KERNEL, .nr_to_scan = 8 };
	struct map_model *m = test->priv;
	unsigned long freed;
	unsigned int i;

	KUNIT_EXPECT_EQ(test, qc2_map_count(m->map.shrinker, &sc), SHRINK_EMPTY);
	for (i = 0; m->map.bytes <= 2 * least; i++) {
		struct qc2_run run = worst_run(i * QC2_REGION_SECTORS);

		KUNIT_ASSERT_EQ(test, qc2_map_insert(&m->map, &run, 1), 0);
	}
	KUNIT_EXPECT_EQ(test, qc2_map_count(m->map.shrinker, &sc), i);

	/* Who holds the lock may be waiting for memory. */
	mutex_lock(&m->map.lock);
	KUNIT_EXPECT_EQ(test, qc2_map_scan(m->map.shrinker, &sc), SHRINK_STOP);
	mutex_unlock(&m->map.lock);

	/* All were used since the clock's hand passed, which is about to. */
	freed = qc2_map_scan(m->map.shrinker, &sc);
	KUNIT_EXPECT_EQ(test, freed, 0);
	sc.nr_to_scan = 2 * i;
	freed = qc2_map_scan(m->map.shrinker, &sc);
	KUNIT_EXPECT_EQ(test, m->map.nr_chunks, i - freed);
	KUNIT_EXPECT_LE(test, m->map.bytes, least);
	KUNIT_EXPECT_GT(test, m->map.bytes, least / 2);
	KUNIT_EXPECT_EQ(test, qc2_map_count(m->map.shrinker, &sc), SHRINK_EMPTY);
	KUNIT_EXPECT_EQ(test, qc2_map_scan(m->map.shrinker, &sc), 0);
	check_bytes(test, &m->map);
}

/* Forget: the edges of what touches a run. */
static void map_test_forget_edges(struct kunit *test)
{
	struct map_model *m = test->priv;
	const u64 place = (1ULL << 32) - 4;

	insert(test, m, 100, 8, 1, place);
	insert(test, m, QC2_REGION_SECTORS, QC2_REGION_SECTORS, QC2_STORE_ZERO, 0);

	/* Beside it, in another store, and far off. */
	forget(&m->map, 1, place + 8, 100);
	forget(&m->map, 1, place - 100, 100);
	forget(&m->map, 2, place, 8);
	forget(&m->map, 0, 0, U64_MAX);
	check_all(test, m);

	/* Zeros are nowhere: also what their entries seem to say. */
	forget(&m->map, 255, 0, U64_MAX);
	check_all(test, m);

	forget_both(m, 1, place + 7, 1);
	check_all(test, m);
	KUNIT_EXPECT_EQ(test, m->map.bytes, QC2_VALUE_BYTES);

	insert(test, m, 100, 8, 1, place);
	forget_both(m, 1, place - 10, 11);
	check_all(test, m);
	KUNIT_EXPECT_EQ(test, m->map.bytes, QC2_VALUE_BYTES);
}

/* Many ranges, of which one touches the run, or all but one do not. */
static void map_test_forget_ranges(struct kunit *test)
{
	struct map_model *m = test->priv;
	struct qc2_range *ranges;
	unsigned int i, k;

	ranges = kunit_kzalloc(test, array_size(QC2_MAX_RANGES, sizeof(*ranges)), GFP_KERNEL);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, ranges);

	/* Ranges of 8 sectors; runs that fill gaps between them stay. */
	for (i = 0; i < QC2_MAX_RANGES; i++)
		ranges[i] = (struct qc2_range){ .sector = 16ULL * i, .nr_sectors = 8 };
	for (i = 0; i < QC2_MAX_RANGES; i += 13)
		insert(test, m, i, 8, 1, 16ULL * i + 8);
	qc2_map_forget(&m->map, 1, ranges, QC2_MAX_RANGES);
	check_all(test, m);

	/* One range moves into its gap, to the first sector of a run or the last. */
	for (i = 0; i < QC2_MAX_RANGES; i += 800) {
		for (k = 0; k < 2; k++) {
			insert(test, m, QC2_REGION_SECTORS + i, 8, 1, 16ULL * i + 8);
			ranges[i].sector = 16ULL * i + (k ? 15 : 1);
			ranges[i].nr_sectors = k ? 1 : 8;
			qc2_map_forget(&m->map, 1, ranges, QC2_MAX_RANGES);
			model_forget(m, 1, ranges, QC2_MAX_RANGES);
			KUNIT_EXPECT_EQ(test, m->places[QC2_REGION_SECTORS + i].store, NOWHERE);
			check_all(test, m);
			ranges[i] = (struct qc2_range){ .sector = 16ULL * i, .nr_sectors = 8 };
		}
	}
}

/* A bad place: its block is unknown, unless the map has another place meanwhile. */
static void map_test_distrust(struct kunit *test)
{
	const u64 place = (1ULL << 32) - 4;
	struct map_model *m = test->priv;
	unsigned int i;

	/* Nothing is known, or zeros. */
	qc2_map_distrust(&m->map, 5, 0, 5);
	insert(test, m, QC2_REGION_SECTORS, QC2_REGION_SECTORS, QC2_STORE_ZERO, 0);
	qc2_map_distrust(&m->map, QC2_REGION_SECTORS + 5, QC2_STORE_ZERO - 1, 0);
	check_all(test, m);

	/* In the middle of a run, of which both ends stay. */
	insert(test, m, 10, 1000, 1, place);
	qc2_map_distrust(&m->map, 300, 2, place + 290);
	qc2_map_distrust(&m->map, 300, 1, place + 291);
	qc2_map_distrust(&m->map, 9, 1, place - 1);
	check_all(test, m);
	for (i = 256; i < 384; i += 127) {
		insert(test, m, 10, 1000, 1, place);
		qc2_map_distrust(&m->map, i, 1, place + i - 10);
		model_unknown(m, 256, QC2_BLOCK_SECTORS);
		check_all(test, m);
		/* There is no more to forget. */
		qc2_map_distrust(&m->map, i, 1, place + i - 10);
		check_all(test, m);
	}

	/* The last block of a region, with runs of others and zeros in it. */
	insert(test, m, QC2_REGION_SECTORS - 130, 100, 3, 70);
	insert(test, m, QC2_REGION_SECTORS - 20, 10, QC2_STORE_ZERO, 0);
	insert(test, m, QC2_REGION_SECTORS - 1, 1, 0, 0);
	qc2_map_distrust(&m->map, QC2_REGION_SECTORS - 1, 0, 0);
	model_unknown(m, QC2_REGION_SECTORS - QC2_BLOCK_SECTORS, QC2_BLOCK_SECTORS);
	check_all(test, m);
	check_bytes(test, &m->map);

	/* All that is known of a region. */
	insert(test, m, 2 * QC2_REGION_SECTORS + 128, 128, 1, 0);
	qc2_map_distrust(&m->map, 2 * QC2_REGION_SECTORS + 128, 1, 0);
	model_unknown(m, 2 * QC2_REGION_SECTORS, QC2_REGION_SECTORS);
	check_all(test, m);
	KUNIT_EXPECT_PTR_EQ(test, xa_load(&m->map.regions, 2), NULL);
	check_bytes(test, &m->map);
}

struct forget_work {
	struct work_struct work;
	struct qc2_map *map;
	struct completion done;
};

static void forget_work(struct work_struct *work)
{
	struct forget_work *f = container_of(work, struct forget_work, work);

	forget(f->map, 1, 0, 1000);
	complete(&f->done);
}

/* Forget returns after the reads that may use the place, not before. */
static void map_test_forget_waits(struct kunit *test)
{
	struct map_model *m = test->priv;
	struct forget_work f = { .map = &m->map };
	struct qc2_place place;
	unsigned long token;

	insert(test, m, 0, 8, 1, 100);
	init_completion(&f.done);
	INIT_WORK_ONSTACK(&f.work, forget_work);

	token = qc2_map_read_lock(&m->map);
	KUNIT_EXPECT_TRUE(test, qc2_map_lookup(&m->map, 0, 8, &place));
	queue_work(system_unbound_wq, &f.work);
	/* The place can be named no more, while this read goes on. */
	while (qc2_map_lookup(&m->map, 0, 8, &place))
		schedule_timeout_uninterruptible(1);
	KUNIT_EXPECT_FALSE(test, completion_done(&f.done));
	qc2_map_read_unlock(&m->map, token);

	wait_for_completion(&f.done);
	destroy_work_on_stack(&f.work);
}

#define STRESS_READERS	2

/* Sector s is at s + STRESS_SHIFT in the store of its parity of 64. */
#define STRESS_SHIFT	(3ULL << 32)

static struct qc2_run stress_run(u64 sector, u32 nr)
{
	u32 store = sector / 64 % 2;

	return run_at(sector, min_t(u32, nr, 64 - sector % 64), store, sector + STRESS_SHIFT);
}

struct stress_reader {
	struct qc2_map *map;
	struct task_struct *task;
	unsigned long lookups, known, wrong;
	struct rnd_state rnd;
};

static int stress_read(void *data)
{
	struct stress_reader *r = data;
	struct qc2_place place;
	u64 sector;
	unsigned long token;

	while (!kthread_should_stop()) {
		sector = prandom_u32_state(&r->rnd) % MODEL_SECTORS;
		token = qc2_map_read_lock(r->map);
		r->lookups++;
		if (qc2_map_lookup(r->map, sector, 64, &place)) {
			r->known++;
			if (place.store != sector / 64 % 2 ||
			    place.store_sector != sector + STRESS_SHIFT ||
			    place.nr_sectors > 64 - sector % 64)
				r->wrong++;
		}
		qc2_map_read_unlock(r->map, token);
		cond_resched();
	}
	return 0;
}

/* Lookups beside inserts, forgets and evictions see the truth or nothing. */
static void map_test_concurrent(struct kunit *test)
{
	struct stress_reader readers[STRESS_READERS] = {};
	struct map_model *m = test->priv;
	struct qc2_run runs[8];
	unsigned int i, nr;
	u64 pos;

	for (i = 0; i < STRESS_READERS; i++) {
		readers[i].map = &m->map;
		prandom_seed_state(&readers[i].rnd, 10 + i);
		readers[i].task = kthread_run(stress_read, &readers[i], "qc2-map-test/%u", i);
		if (IS_ERR(readers[i].task)) {
			KUNIT_FAIL(test, "no thread");
			break;
		}
	}
	qc2_map_set_limit(&m->map, 2048);
	for (i = 0; i < 4000; i++) {
		pos = below(m, MODEL_SECTORS);
		for (nr = 0; nr < ARRAY_SIZE(runs) && pos < MODEL_SECTORS; nr++) {
			runs[nr] = stress_run(pos, 1 + below(m, 64));
			pos = runs[nr].sector + runs[nr].nr_sectors + below(m, 2) * below(m, 200);
		}
		KUNIT_EXPECT_EQ(test, qc2_map_insert(&m->map, runs, nr), 0);
		if (i % 64 == 0)
			forget(&m->map, i / 64 % 2, STRESS_SHIFT + pos, 500);
		if (i % 512 == 0)
			qc2_map_drop(&m->map);
	}
	for (i = 0; i < STRESS_READERS && !IS_ERR_OR_NULL(readers[i].task); i++) {
		/* A thread that never ran would have shown nothing. */
		while (!READ_ONCE(readers[i].known)) {
			runs[0] = stress_run(below(m, MODEL_SECTORS), 64);
			qc2_map_insert(&m->map, runs, 1);
			schedule_timeout_uninterruptible(1);
		}
		kthread_stop(readers[i].task);
		KUNIT_EXPECT_EQ(test, readers[i].wrong, 0);
		kunit_info(test, "reader %u: %lu lookups, %lu known", i, readers[i].lookups,
			   readers[i].known);
	}
}

static struct kunit_case map_test_cases[] = {
	KUNIT_CASE(map_test_empty),
	KUNIT_CASE(map_test_reach),
	KUNIT_CASE(map_test_merge),
	KUNIT_CASE(map_test_zero_region),
	KUNIT_CASE_PARAM(map_test_random, random_gen_params),
	KUNIT_CASE(map_test_long_run),
	KUNIT_CASE(map_test_full_region),
	KUNIT_CASE(map_test_worst_case),
	KUNIT_CASE(map_test_evict_random),
	KUNIT_CASE(map_test_limit),
	KUNIT_CASE(map_test_shrink),
	KUNIT_CASE(map_test_forget_edges),
	KUNIT_CASE(map_test_forget_ranges),
	KUNIT_CASE(map_test_distrust),
	KUNIT_CASE(map_test_forget_waits),
	KUNIT_CASE(map_test_concurrent),
	{}
};

static struct kunit_suite map_test_suite = {
	.name = "qcow2chain-map",
	.init = map_test_init,
	.exit = map_test_exit,
	.test_cases = map_test_cases,
};

kunit_test_suite(map_test_suite);

MODULE_LICENSE("GPL");
