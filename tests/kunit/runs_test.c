// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit suite of the checks of runs and ranges: what is accepted, and every kind
 * that is refused, at the borders.
 */
#include <kunit/test.h>

#include "../../kernel/runs.c"

#define DISK_SECTORS	QC2_TIP_MAX_SECTORS
#define SMALL_STORE	1000ULL
/* The most that a block device can have. */
#define LARGE_STORE	((u64)LLONG_MAX >> SECTOR_SHIFT)

/* A table with two stores, as far as the checks look at it. */
struct runs_fixture {
	struct dm_target ti;
	struct dm_dev devs[2];
	struct dm_dev *stores[2];
	struct block_device bdevs[2];
	struct qc2_target qt;
};

static int runs_test_init(struct kunit *test)
{
	struct runs_fixture *f = kunit_kzalloc(test, sizeof(*f), GFP_KERNEL);
	unsigned int i;

	if (!f)
		return -ENOMEM;
	for (i = 0; i < ARRAY_SIZE(f->stores); i++) {
		f->devs[i].bdev = &f->bdevs[i];
		f->stores[i] = &f->devs[i];
	}
	f->bdevs[0].bd_nr_sectors = SMALL_STORE;
	f->bdevs[1].bd_nr_sectors = LARGE_STORE;
	f->ti.len = DISK_SECTORS;
	f->qt.ti = &f->ti;
	f->qt.block_sectors = 1;
	f->qt.stores = f->stores;
	f->qt.nr_stores = ARRAY_SIZE(f->stores);
	test->priv = f;
	return 0;
}

#define EMPTY		"runs empty, unsorted or outside of the disk"
#define OUTSIDE_DISK	EMPTY
#define UNSORTED	EMPTY
#define UNALIGNED	"runs not aligned to the logical block size"
#define ZERO_PLACE	"run of zeros with a place"
#define NO_STORE	"unknown store device"
#define OUTSIDE_STORE	"runs outside of the store devices"
#define ZERO		QC2_STORE_ZERO

struct runs_case {
	const char *name;
	const char *refused;	/* the reason; NULL if accepted */
	u32 block_sectors;
	unsigned int nr;
	struct qc2_run runs[3];
};

/* sector, nr_sectors, store, store_sector */
static const struct runs_case runs_cases[] = {
	{ "one sector", NULL, 1, 1, { { 0, 1, 0, 0 } } },
	{ "last sector", NULL, 1, 1, { { DISK_SECTORS - 1, 1, 0, 0 } } },
	{ "longest run", NULL, 1, 1, { { 5, U32_MAX, 1, 7 } } },
	{ "runs that touch", NULL, 1, 3,
	  { { 10, 5, 0, 0 }, { 15, 5, 1, 0 }, { 20, 5, ZERO, 0 } } },
	{ "one place twice", NULL, 1, 2, { { 10, 5, 0, 3 }, { 15, 5, 0, 3 } } },
	{ "all of a store", NULL, 1, 1, { { 9, SMALL_STORE, 0, 0 } } },
	{ "last sector of a store", NULL, 1, 1, { { 9, 1, 0, SMALL_STORE - 1 } } },
	{ "last sector of a large store", NULL, 1, 1, { { 9, 1, 1, LARGE_STORE - 1 } } },
	{ "longest zeros", NULL, 1, 1, { { DISK_SECTORS - U32_MAX, U32_MAX, ZERO, 0 } } },
	{ "aligned", NULL, 8, 2, { { 8, 16, 0, 24 }, { DISK_SECTORS - 8, 8, ZERO, 0 } } },

	{ "no sectors", EMPTY, 1, 1, { { 10, 0, 0, 0 } } },
	{ "no sectors of zeros", EMPTY, 1, 1, { { 10, 0, ZERO, 0 } } },
	{ "behind the disk", OUTSIDE_DISK, 1, 1, { { DISK_SECTORS, 1, 0, 0 } } },
	{ "over the end of the disk", OUTSIDE_DISK, 1, 1, { { DISK_SECTORS - 1, 2, 0, 0 } } },
	{ "zeros over the end of the disk", OUTSIDE_DISK, 1, 1,
	  { { DISK_SECTORS - 1, 2, ZERO, 0 } } },
	{ "end overflows", OUTSIDE_DISK, 1, 1, { { U64_MAX, 1, 0, 0 } } },
	{ "end overflows to the start", OUTSIDE_DISK, 1, 1, { { U64_MAX - 1, 10, 0, 0 } } },
	{ "overlap by one", UNSORTED, 1, 2, { { 10, 5, 0, 0 }, { 14, 5, 0, 0 } } },
	{ "same run twice", UNSORTED, 1, 2, { { 10, 5, 0, 0 }, { 10, 5, 0, 0 } } },
	{ "backwards", UNSORTED, 1, 2, { { 15, 5, 0, 0 }, { 10, 5, 0, 0 } } },
	{ "third is unsorted", UNSORTED, 1, 3,
	  { { 10, 5, 0, 0 }, { 15, 5, 0, 0 }, { 12, 1, ZERO, 0 } } },
	{ "overlap after the longest run", UNSORTED, 1, 2,
	  { { 5, U32_MAX, 1, 0 }, { U32_MAX + 4ULL, 1, 0, 0 } } },

	{ "sector not aligned", UNALIGNED, 8, 1, { { 4, 8, 0, 0 } } },
	{ "length not aligned", UNALIGNED, 8, 1, { { 8, 4, 0, 0 } } },
	{ "place not aligned", UNALIGNED, 8, 1, { { 8, 8, 0, 7 } } },
	{ "zeros not aligned", UNALIGNED, 8, 1, { { 8, 9, ZERO, 0 } } },
	{ "zeros with a place", ZERO_PLACE, 1, 1, { { 8, 8, ZERO, 1 } } },

	{ "first unknown store", NO_STORE, 1, 1, { { 8, 8, 2, 0 } } },
	{ "store of the packed zeros", NO_STORE, 1, 1, { { 8, 8, 255, 0 } } },
	{ "store that packs to the first", NO_STORE, 1, 1, { { 8, 8, 256, 0 } } },
	{ "next to zeros", NO_STORE, 1, 1, { { 8, 8, ZERO - 1, 0 } } },

	{ "behind the store", OUTSIDE_STORE, 1, 1, { { 8, 1, 0, SMALL_STORE } } },
	{ "over the end of the store", OUTSIDE_STORE, 1, 1, { { 8, 2, 0, SMALL_STORE - 1 } } },
	{ "larger than the store", OUTSIDE_STORE, 1, 1, { { 8, SMALL_STORE + 1, 0, 0 } } },
	{ "over the end of a large store", OUTSIDE_STORE, 1, 1, { { 8, 2, 1, LARGE_STORE - 1 } } },
	{ "place overflows", OUTSIDE_STORE, 1, 1, { { 8, 8, 1, U64_MAX } } },
	{ "place overflows to the start", OUTSIDE_STORE, 1, 1, { { 8, 16, 1, U64_MAX - 7 } } },
	{ "last one only", OUTSIDE_STORE, 1, 3,
	  { { 0, 8, 0, 0 }, { 8, 8, ZERO, 0 }, { 16, 8, 0, SMALL_STORE } } },
};

static void runs_case_name(const struct runs_case *c, char *desc)
{
	strscpy(desc, c->name, KUNIT_PARAM_DESC_SIZE);
}
KUNIT_ARRAY_PARAM(runs, runs_cases, runs_case_name);

static void runs_test_check(struct kunit *test)
{
	const struct runs_case *c = test->param_value;
	struct runs_fixture *f = test->priv;
	struct netlink_ext_ack extack = {};
	int r;

	f->qt.block_sectors = c->block_sectors;
	r = qc2_check_runs(&f->qt, c->runs, c->nr, &extack);
	if (c->refused) {
		KUNIT_EXPECT_EQ(test, r, -EINVAL);
		KUNIT_EXPECT_STREQ(test, extack._msg ? extack._msg : "", c->refused);
	} else {
		KUNIT_EXPECT_EQ(test, r, 0);
		KUNIT_EXPECT_PTR_EQ(test, extack._msg, NULL);
	}
}

/* A table without stores has places for zeros only. */
static void runs_test_no_stores(struct kunit *test)
{
	const struct qc2_run zeros = { 0, 8, ZERO, 0 }, data = { 0, 8, 0, 0 };
	struct runs_fixture *f = test->priv;
	struct netlink_ext_ack extack = {};

	f->qt.nr_stores = 0;
	KUNIT_EXPECT_EQ(test, qc2_check_runs(&f->qt, &zeros, 1, &extack), 0);
	KUNIT_EXPECT_EQ(test, qc2_check_runs(&f->qt, &data, 1, &extack), -EINVAL);
	KUNIT_EXPECT_STREQ(test, extack._msg, NO_STORE);
}

/* A store that has grown since the table was loaded. */
static void runs_test_store_grows(struct kunit *test)
{
	const struct qc2_run run = { 0, 8, 0, SMALL_STORE };
	struct runs_fixture *f = test->priv;
	struct netlink_ext_ack extack = {};

	KUNIT_EXPECT_EQ(test, qc2_check_runs(&f->qt, &run, 1, &extack), -EINVAL);
	f->bdevs[0].bd_nr_sectors = SMALL_STORE + 8;
	KUNIT_EXPECT_EQ(test, qc2_check_runs(&f->qt, &run, 1, &extack), 0);
}

struct ranges_case {
	const char *name;
	bool refused;
	unsigned int nr;
	struct qc2_range ranges[3];
};

static const struct ranges_case ranges_cases[] = {
	{ "one sector", false, 1, { { 0, 1 } } },
	{ "everything", false, 1, { { 0, U64_MAX } } },
	{ "last sector", false, 1, { { U64_MAX - 1, 1 } } },
	{ "ranges that touch", false, 3, { { 5, 5 }, { 10, 1 }, { 11, U64_MAX - 11 } } },
	{ "ranges apart", false, 2, { { 5, 5 }, { U64_MAX - 5, 5 } } },

	{ "empty range", true, 1, { { 5, 0 } } },
	{ "second is empty", true, 2, { { 5, 5 }, { 10, 0 } } },
	{ "end is 2^64", true, 1, { { U64_MAX, 1 } } },
	{ "end overflows", true, 1, { { 16, U64_MAX - 8 } } },
	{ "first overflows to the second", true, 2, { { U64_MAX, 6 }, { 5, 5 } } },
	{ "same range twice", true, 2, { { 5, 5 }, { 5, 5 } } },
	{ "overlap by one", true, 2, { { 5, 5 }, { 9, 5 } } },
	{ "backwards", true, 2, { { 10, 5 }, { 5, 5 } } },
	{ "third is unsorted", true, 3, { { 5, 5 }, { 10, 5 }, { 0, 1 } } },
};

static void ranges_case_name(const struct ranges_case *c, char *desc)
{
	strscpy(desc, c->name, KUNIT_PARAM_DESC_SIZE);
}
KUNIT_ARRAY_PARAM(ranges, ranges_cases, ranges_case_name);

static void runs_test_ranges(struct kunit *test)
{
	const struct ranges_case *c = test->param_value;
	struct netlink_ext_ack extack = {};

	KUNIT_EXPECT_EQ(test, qc2_check_ranges(c->ranges, c->nr, &extack),
			c->refused ? -EINVAL : 0);
	KUNIT_EXPECT_EQ(test, !!extack._msg, c->refused);
}

static struct kunit_case runs_test_cases[] = {
	KUNIT_CASE_PARAM(runs_test_check, runs_gen_params),
	KUNIT_CASE(runs_test_no_stores),
	KUNIT_CASE(runs_test_store_grows),
	KUNIT_CASE_PARAM(runs_test_ranges, ranges_gen_params),
	{}
};

static struct kunit_suite runs_test_suite = {
	.name = "qcow2chain-runs",
	.init = runs_test_init,
	.test_cases = runs_test_cases,
};

kunit_test_suite(runs_test_suite);
