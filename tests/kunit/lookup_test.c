// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit suite of the splitting of reads and writes: layouts of tip, map and
 * unknown sectors, walked the way that bios are.
 */
#include <kunit/test.h>
#include <linux/device-mapper.h>
#include <linux/prandom.h>

#include "../../kernel/lookup.c"
#include "dirty_cache.h"

#define DISK_REGIONS	3
#define DISK_SECTORS	(DISK_REGIONS * QC2_REGION_SECTORS)

/* A table, as far as lookups look at it. */
struct lookup_fixture {
	struct qc2_target qt;
	struct qc2_tip tip;
	struct rnd_state rnd;
	u64 base;
	/* What should be found at each sector; the place is base + STORE_SHIFT. */
	enum qc2_state states[DISK_SECTORS];
};

#define STORE		5
#define STORE_SHIFT	(1ULL << 33)

static u32 below(struct lookup_fixture *f, u32 limit)
{
	return prandom_u32_state(&f->rnd) % limit;
}

static int lookup_test_init(struct kunit *test)
{
	struct lookup_fixture *f = kunit_kzalloc(test, sizeof(*f), GFP_KERNEL);
	unsigned int i;

	if (!f)
		return -ENOMEM;
	f->qt.tip = &f->tip;
	f->tip.qt = &f->qt;
	f->base = 1ULL << 34;
	for (i = 0; i < DISK_SECTORS; i++)
		f->states[i] = QC2_UNKNOWN;
	prandom_seed_state(&f->rnd, 1);
	qc2_dirty_init(&f->tip.dirty);
	test->priv = f;
	return qc2_map_init(&f->qt.map, SIZE_MAX / 2, "kunit");
}

static void lookup_test_exit(struct kunit *test)
{
	struct lookup_fixture *f = test->priv;

	if (!f)
		return;
	qc2_dirty_clear(&f->tip.dirty);
	if (f->qt.map.scratch)
		qc2_map_destroy(&f->qt.map);
}

/* The map learns of data or zeros, or the tip gets sectors. */
static void put(struct kunit *test, enum qc2_state state, unsigned int first, unsigned int nr)
{
	struct lookup_fixture *f = test->priv;
	struct qc2_run run = {
		.sector = f->base + first,
		.nr_sectors = nr,
		.store = state == QC2_ZERO ? QC2_STORE_ZERO : STORE,
		.store_sector = state == QC2_ZERO ? 0 : f->base + first + STORE_SHIFT,
	};
	unsigned int i, reach;

	for (i = first; i < first + nr; i++)
		if (f->states[i] != QC2_IN_TIP)
			f->states[i] = state;
	if (state != QC2_IN_TIP) {
		KUNIT_ASSERT_EQ(test, qc2_map_insert(&f->qt.map, &run, 1), 0);
		return;
	}
	for (i = first; i < first + nr; i += reach) {
		reach = qc2_write_reach(f->base + i, first + nr - i);
		if (qc2_dirty_prepare(&f->tip.dirty, f->base + i, GFP_KERNEL))
			qc2_dirty_set(&f->tip.dirty, f->base + i, reach);
	}
}

/*
 * A read of [first, first + nr), split as bios are: every part is of one state,
 * goes to the right place, keeps to the borders, and is as long as it can be.
 */
static void check_read(struct kunit *test, unsigned int first, unsigned int nr)
{
	unsigned int pos = first, end = first + nr, wanted, border;
	struct lookup_fixture *f = test->priv;
	struct qc2_place place;
	enum qc2_state state;
	unsigned long reader;

	while (pos < end) {
		state = qc2_lookup(&f->qt, f->base + pos, end - pos, &place, &reader);
		if (reader)
			qc2_map_read_unlock(&f->qt.map, reader);
		KUNIT_ASSERT_EQ(test, state, f->states[pos]);
		KUNIT_ASSERT_EQ(test, reader != 0, state == QC2_IN_STORE);
		if (state == QC2_IN_STORE) {
			KUNIT_ASSERT_EQ(test, place.store, STORE);
			KUNIT_ASSERT_EQ(test, place.store_sector, f->base + pos + STORE_SHIFT);
		}

		border = round_up(pos + 1, state == QC2_UNKNOWN ? QC2_BLOCK_SECTORS :
				  QC2_REGION_SECTORS);
		for (wanted = 1; pos + wanted < min(end, border); wanted++)
			if (f->states[pos + wanted] != state)
				break;
		KUNIT_ASSERT_EQ_MSG(test, place.nr_sectors, wanted, "at sector %u of [%u, %u)",
				    pos, first, end);
		pos += wanted;
	}
}

static void lookup_test_unknown(struct kunit *test)
{
	struct lookup_fixture *f = test->priv;
	struct qc2_place place;
	unsigned long reader;

	check_read(test, 0, DISK_SECTORS);
	/* From the middle of a block to its end, and to the last sector of it. */
	KUNIT_EXPECT_EQ(test, qc2_lookup(&f->qt, f->base + 100, 1000, &place, &reader),
			QC2_UNKNOWN);
	KUNIT_EXPECT_EQ(test, place.nr_sectors, QC2_BLOCK_SECTORS - 100);
	qc2_lookup(&f->qt, f->base + QC2_BLOCK_SECTORS - 1, 1000, &place, &reader);
	KUNIT_EXPECT_EQ(test, place.nr_sectors, 1);
	qc2_lookup(&f->qt, f->base + QC2_BLOCK_SECTORS, 1000, &place, &reader);
	KUNIT_EXPECT_EQ(test, place.nr_sectors, QC2_BLOCK_SECTORS);
	qc2_lookup(&f->qt, f->base + 3, 7, &place, &reader);
	KUNIT_EXPECT_EQ(test, place.nr_sectors, 7);
}

/* Known places end with their region, not with a block. */
static void lookup_test_known(struct kunit *test)
{
	put(test, QC2_IN_STORE, 0, 2 * QC2_REGION_SECTORS);
	check_read(test, 0, DISK_SECTORS);
	check_read(test, 1, 1);
	check_read(test, QC2_REGION_SECTORS - 1, 2);
	put(test, QC2_ZERO, 0, QC2_REGION_SECTORS + 7);
	check_read(test, 0, DISK_SECTORS);
	put(test, QC2_IN_TIP, 5, 2 * QC2_REGION_SECTORS);
	check_read(test, 0, DISK_SECTORS);
	/* A region that is in the tip throughout. */
	put(test, QC2_IN_TIP, 0, QC2_REGION_SECTORS);
	check_read(test, 0, DISK_SECTORS);
}

/* The tip wins over whatever the map says, before and afterwards. */
static void lookup_test_tip_first(struct kunit *test)
{
	struct lookup_fixture *f = test->priv;
	struct qc2_place place;
	unsigned long reader;

	put(test, QC2_IN_STORE, 0, 1000);
	put(test, QC2_IN_TIP, 300, 1);
	check_read(test, 0, 2000);
	put(test, QC2_ZERO, 200, 200);
	check_read(test, 0, 2000);
	KUNIT_EXPECT_EQ(test, qc2_lookup(&f->qt, f->base + 300, 50, &place, &reader), QC2_IN_TIP);
	KUNIT_EXPECT_EQ(test, place.nr_sectors, 1);
	/* A sector of the tip ends what is read from the store before it. */
	KUNIT_EXPECT_EQ(test, qc2_lookup(&f->qt, f->base + 299, 50, &place, &reader), QC2_ZERO);
	KUNIT_EXPECT_EQ(test, place.nr_sectors, 1);
}

static void lookup_test_random(struct kunit *test)
{
	static const enum qc2_state kinds[] = { QC2_IN_STORE, QC2_ZERO, QC2_IN_TIP };
	struct lookup_fixture *f = test->priv;
	unsigned int i, first, nr;

	for (i = 0; i < 150; i++) {
		first = below(f, DISK_SECTORS);
		nr = min(1 + below(f, 1 << below(f, 12)), DISK_SECTORS - first);
		put(test, kinds[below(f, ARRAY_SIZE(kinds))], first, nr);
		check_read(test, 0, DISK_SECTORS);
		first = below(f, DISK_SECTORS);
		check_read(test, first, 1 + below(f, DISK_SECTORS - first));
	}
}

/* Writes of every length at the ends of a region. */
static void lookup_test_write(struct kunit *test)
{
	const u64 region = QC2_TIP_MAX_SECTORS - QC2_REGION_SECTORS;
	unsigned int i;

	KUNIT_EXPECT_EQ(test, qc2_write_reach(0, 1), 1);
	KUNIT_EXPECT_EQ(test, qc2_write_reach(0, U32_MAX), QC2_REGION_SECTORS);
	for (i = 1; i <= QC2_REGION_SECTORS; i *= 2) {
		KUNIT_EXPECT_EQ(test, qc2_write_reach(region, i), i);
		KUNIT_EXPECT_EQ(test, qc2_write_reach(region + QC2_REGION_SECTORS - i, i), i);
		KUNIT_EXPECT_EQ(test, qc2_write_reach(region + QC2_REGION_SECTORS - i, i + 1), i);
	}
	KUNIT_EXPECT_EQ(test, qc2_write_reach(region + 1, QC2_REGION_SECTORS),
			QC2_REGION_SECTORS - 1);
}

static struct kunit_case lookup_test_cases[] = {
	KUNIT_CASE(lookup_test_unknown),
	KUNIT_CASE(lookup_test_known),
	KUNIT_CASE(lookup_test_tip_first),
	KUNIT_CASE(lookup_test_random),
	KUNIT_CASE(lookup_test_write),
	{}
};

static struct kunit_suite lookup_test_suite = {
	.name = "qcow2chain-lookup",
	.suite_init = dirty_cache_create,
	.suite_exit = dirty_cache_destroy,
	.init = lookup_test_init,
	.exit = lookup_test_exit,
	.test_cases = lookup_test_cases,
};

kunit_test_suite(lookup_test_suite);
