// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit suite of the state of the tip's sectors: bits and how they collapse,
 * the log for the journal, and blocks of the bitmap; beside a plain array of
 * sectors.
 */
#include <kunit/test.h>
#include <linux/kthread.h>
#include <linux/prandom.h>
#include <linux/vmalloc.h>

#include "../../kernel/dirty.c"
#include "dirty_cache.h"

/* The model's regions fill one block of the bitmap but for a part of the last. */
#define MODEL_REGIONS	QC2_REGIONS_PER_BLOCK
#define LAST_SECTORS	1001
#define MODEL_SECTORS	((MODEL_REGIONS - 1) * QC2_REGION_SECTORS + LAST_SECTORS)
#define MODEL_BLOCK	((1ULL << 34) / QC2_TIP_BLOCK_BITS)
#define MODEL_BASE	(MODEL_BLOCK * QC2_TIP_BLOCK_BITS)

/* Ranges that the log has room for, and how many most tests use. */
#define LOG_ROOM	4096
#define MAX_LOG		64

struct dirty_fixture {
	struct qc2_dirty dirty;
	struct qc2_dirty_range *spare;
	struct rnd_state rnd;
	/* Sectors from MODEL_BASE on: in the tip; since the last commit. */
	u8 in_tip[MODEL_SECTORS];
	u8 fresh[MODEL_SECTORS];
	u8 block[QC2_TIP_BLOCK_SIZE] __aligned(sizeof(long));
};

static u32 below(struct dirty_fixture *f, u32 limit)
{
	return prandom_u32_state(&f->rnd) % limit;
}

int dirty_cache_create(struct kunit_suite *suite)
{
	/* The module itself may have one of the name. */
	qc2_region_cache = kmem_cache_create("qc2_region_kunit", sizeof(struct qc2_region),
					     __alignof__(struct qc2_region), 0, NULL);
	return qc2_region_cache ? 0 : -ENOMEM;
}

void dirty_cache_destroy(struct kunit_suite *suite)
{
	/* Regions that collapsed may be on their way. */
	rcu_barrier();
	kmem_cache_destroy(qc2_region_cache);
}

static int dirty_test_init(struct kunit *test)
{
	struct dirty_fixture *f = vzalloc(sizeof(*f));

	if (!f)
		return -ENOMEM;
	test->priv = f;
	f->dirty.log = kunit_kcalloc(test, LOG_ROOM, sizeof(*f->spare), GFP_KERNEL);
	f->spare = kunit_kcalloc(test, LOG_ROOM, sizeof(*f->spare), GFP_KERNEL);
	if (!f->dirty.log || !f->spare)
		return -ENOMEM;
	f->dirty.max_log = MAX_LOG;
	qc2_dirty_init(&f->dirty);
	prandom_seed_state(&f->rnd, 1);
	return 0;
}

static void dirty_test_exit(struct kunit *test)
{
	struct dirty_fixture *f = test->priv;

	if (!f)
		return;
	if (f->spare)
		qc2_dirty_clear(&f->dirty);
	vfree(f);
}

/* A write to the sectors from @first on, one for each region. */
static unsigned int write_sectors(struct kunit *test, unsigned int first, unsigned int nr)
{
	struct dirty_fixture *f = test->priv;
	unsigned int part, i, nr_log, todo = 0;
	bool changes;
	int r;

	for (; nr; first += part, nr -= part) {
		part = min(nr, QC2_REGION_SECTORS - first % QC2_REGION_SECTORS);
		changes = memchr(f->in_tip + first, 0, part);
		r = qc2_dirty_prepare(&f->dirty, MODEL_BASE + first, GFP_KERNEL);
		KUNIT_EXPECT_EQ(test, r, changes || r);
		if (!r)
			continue;
		nr_log = f->dirty.nr_log;
		todo |= qc2_dirty_set(&f->dirty, MODEL_BASE + first, part);
		/* A write that changes nothing leaves no trace. */
		if (!changes)
			KUNIT_EXPECT_EQ(test, f->dirty.nr_log, nr_log);
		for (i = first; i < first + part; i++) {
			f->fresh[i] |= !f->in_tip[i];
			f->in_tip[i] = 1;
		}
	}
	return todo;
}

/* Lookups say what the model says, in as few answers as there can be. */
static void check_lookups(struct kunit *test, struct qc2_dirty *dirty, const u8 *in_tip)
{
	unsigned int pos = 0, nr, wanted, border;
	u64 count = 0;
	bool found;

	while (pos < MODEL_SECTORS) {
		nr = MODEL_SECTORS - pos;
		found = qc2_dirty_lookup(dirty, MODEL_BASE + pos, &nr);
		KUNIT_ASSERT_EQ_MSG(test, found, in_tip[pos], "at sector %u", pos);
		border = min_t(u32, round_up(pos + 1, QC2_REGION_SECTORS), MODEL_SECTORS);
		for (wanted = 1; pos + wanted < border; wanted++)
			if (in_tip[pos + wanted] != in_tip[pos])
				break;
		KUNIT_ASSERT_EQ_MSG(test, nr, wanted, "at sector %u", pos);
		pos += nr;
		count += found ? nr : 0;
	}
	KUNIT_EXPECT_EQ(test, qc2_dirty_nr_sectors(dirty), count);
}

/* The block of the bitmap says, bit by bit, what the model says. */
static void check_block(struct kunit *test)
{
	struct dirty_fixture *f = test->priv;
	unsigned int i, wanted;

	qc2_dirty_copy_block(&f->dirty, MODEL_BLOCK, f->block);
	for (i = 0; i < QC2_TIP_BLOCK_BITS; i++) {
		wanted = i < MODEL_SECTORS && f->in_tip[i];
		KUNIT_ASSERT_EQ_MSG(test, f->block[i / 8] >> i % 8 & 1, wanted, "bit %u", i);
	}
}

/*
 * A commit as commit.c makes it.  Its ranges are the sectors that came into the
 * tip since the last one, with none in between that are not in the tip.
 */
static void commit(struct kunit *test, bool expect_lost)
{
	struct dirty_fixture *f = test->priv;
	unsigned int nr, i;
	bool lost;
	u64 s;

	nr = qc2_dirty_begin_commit(&f->dirty, &f->spare, &lost);
	KUNIT_EXPECT_EQ(test, lost, expect_lost);
	KUNIT_EXPECT_FALSE(test, qc2_dirty_committed(&f->dirty));
	KUNIT_EXPECT_LE(test, nr, MAX_LOG);
	for (i = 0; i < nr; i++) {
		const struct qc2_dirty_range *range = &f->spare[i];

		KUNIT_ASSERT_GT(test, range->nr_sectors, 0);
		KUNIT_ASSERT_LE(test, range->nr_sectors, QC2_TIP_RANGE_MAX);
		for (s = range->sector; s < range->sector + range->nr_sectors; s++) {
			KUNIT_ASSERT_TRUE(test, f->in_tip[s - MODEL_BASE]);
			f->fresh[s - MODEL_BASE] = 0;
		}
	}
	if (lost)
		memset(f->fresh, 0, sizeof(f->fresh));
	KUNIT_EXPECT_PTR_EQ(test, memchr(f->fresh, 1, sizeof(f->fresh)), NULL);
	qc2_dirty_end_commit(&f->dirty);
	KUNIT_EXPECT_TRUE(test, qc2_dirty_committed(&f->dirty));
}

/* A checkpoint as commit.c makes it; returns whether there was anything to do. */
static bool checkpoint(struct kunit *test)
{
	unsigned long *blocks = vzalloc(round_up(MODEL_BLOCK + 1, BITS_PER_LONG) / 8);
	struct dirty_fixture *f = test->priv;
	bool any;

	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, blocks);
	any = qc2_dirty_take_changed(&f->dirty, blocks);
	KUNIT_EXPECT_EQ(test, find_first_bit(blocks, MODEL_BLOCK), MODEL_BLOCK);
	KUNIT_EXPECT_EQ(test, any, test_bit(MODEL_BLOCK, blocks));
	KUNIT_EXPECT_EQ(test, f->dirty.nr_changed, 0);
	vfree(blocks);
	if (any) {
		check_block(test);
		qc2_dirty_collapse(&f->dirty, MODEL_BLOCK);
	}
	return any;
}

static bool is_collapsed(struct dirty_fixture *f, unsigned int region)
{
	return xa_is_value(xa_load(&f->dirty.regions, (MODEL_BASE >> QC2_REGION_SHIFT) + region));
}

static void dirty_test_empty(struct kunit *test)
{
	struct dirty_fixture *f = test->priv;
	unsigned int nr = 10000;
	bool lost;

	check_lookups(test, &f->dirty, f->in_tip);
	check_block(test);
	KUNIT_EXPECT_TRUE(test, qc2_dirty_committed(&f->dirty));
	KUNIT_EXPECT_FALSE(test, checkpoint(test));
	KUNIT_EXPECT_EQ(test, qc2_dirty_begin_commit(&f->dirty, &f->spare, &lost), 0);
	qc2_dirty_end_commit(&f->dirty);
	KUNIT_EXPECT_FALSE(test, qc2_dirty_lookup(&f->dirty, QC2_TIP_MAX_SECTORS - 1, &nr));
	KUNIT_EXPECT_EQ(test, nr, 1);
}

/* A prepared write that fails leaves all as it was. */
static void dirty_test_failed_write(struct kunit *test)
{
	struct dirty_fixture *f = test->priv;

	KUNIT_EXPECT_EQ(test, qc2_dirty_prepare(&f->dirty, MODEL_BASE + 5, GFP_KERNEL), 1);
	check_lookups(test, &f->dirty, f->in_tip);
	KUNIT_EXPECT_TRUE(test, qc2_dirty_committed(&f->dirty));
	KUNIT_EXPECT_FALSE(test, checkpoint(test));
	write_sectors(test, 5, 10);
	check_lookups(test, &f->dirty, f->in_tip);
	KUNIT_EXPECT_FALSE(test, qc2_dirty_committed(&f->dirty));
}

/* Random writes, commits and checkpoints. */
static void dirty_test_random(struct kunit *test)
{
	struct dirty_fixture *f = test->priv;
	unsigned int i, first, nr;

	for (i = 0; i < 400; i++) {
		first = below(f, MODEL_SECTORS);
		nr = min_t(u32, 1 + below(f, 1 << below(f, 14)), MODEL_SECTORS - first);
		write_sectors(test, first, nr);
		if (!below(f, 8))
			commit(test, false);
		if (!below(f, 20))
			checkpoint(test);
		check_lookups(test, &f->dirty, f->in_tip);
	}
	commit(test, false);
	checkpoint(test);
	check_lookups(test, &f->dirty, f->in_tip);
}

/* A full region becomes one value, but for a part of one at the disk's end. */
static void dirty_test_collapse(struct kunit *test)
{
	struct dirty_fixture *f = test->priv;
	unsigned int i;

	write_sectors(test, 0, QC2_REGION_SECTORS - 1);
	write_sectors(test, QC2_REGION_SECTORS, 1);
	write_sectors(test, MODEL_SECTORS - LAST_SECTORS, LAST_SECTORS);
	KUNIT_EXPECT_TRUE(test, checkpoint(test));
	for (i = 0; i < MODEL_REGIONS; i++)
		KUNIT_EXPECT_FALSE(test, is_collapsed(f, i));

	/* Not before the bitmap on the device has its bits. */
	write_sectors(test, QC2_REGION_SECTORS - 1, 1);
	qc2_dirty_collapse(&f->dirty, MODEL_BLOCK);
	KUNIT_EXPECT_FALSE(test, is_collapsed(f, 0));
	KUNIT_EXPECT_TRUE(test, checkpoint(test));
	KUNIT_EXPECT_TRUE(test, is_collapsed(f, 0));
	KUNIT_EXPECT_FALSE(test, is_collapsed(f, 1));
	check_lookups(test, &f->dirty, f->in_tip);
	check_block(test);

	/* Such a region needs nothing any more. */
	KUNIT_EXPECT_FALSE(test, checkpoint(test));
	KUNIT_EXPECT_EQ(test, qc2_dirty_prepare(&f->dirty, MODEL_BASE, GFP_KERNEL), 0);

	/* A write that was prepared before does no harm. */
	KUNIT_EXPECT_EQ(test, qc2_dirty_set(&f->dirty, MODEL_BASE + 7, 9), 0);
	check_lookups(test, &f->dirty, f->in_tip);
}

/* Ranges of the log: joined if they continue, and none for what was there. */
static void dirty_test_log(struct kunit *test)
{
	struct dirty_fixture *f = test->priv;

	write_sectors(test, 0, 8);
	write_sectors(test, 8, 8);
	write_sectors(test, 4, 4);
	KUNIT_EXPECT_EQ(test, f->dirty.nr_log, 1);
	KUNIT_EXPECT_EQ(test, f->dirty.log[0].sector, MODEL_BASE);
	KUNIT_EXPECT_EQ(test, f->dirty.log[0].nr_sectors, 16);
	write_sectors(test, 17, 1);
	KUNIT_EXPECT_EQ(test, f->dirty.nr_log, 2);
	/* Across regions as well. */
	write_sectors(test, QC2_REGION_SECTORS - 4, 10);
	KUNIT_EXPECT_EQ(test, f->dirty.nr_log, 3);
	commit(test, false);
	KUNIT_EXPECT_EQ(test, f->dirty.nr_log, 0);
	write_sectors(test, 0, 18);
	KUNIT_EXPECT_EQ(test, f->dirty.nr_log, 1);
	commit(test, false);
	write_sectors(test, 0, 18);
	KUNIT_EXPECT_TRUE(test, qc2_dirty_committed(&f->dirty));
}

/* A range is no longer than the journal can say. */
static void dirty_test_log_longest(struct kunit *test)
{
	struct dirty_fixture *f = test->priv;
	struct qc2_dirty_range *log = f->dirty.log;

	qc2_dirty_log(&f->dirty, 0, QC2_TIP_RANGE_MAX - 8);
	qc2_dirty_log(&f->dirty, QC2_TIP_RANGE_MAX - 8, 8);
	KUNIT_EXPECT_EQ(test, f->dirty.nr_log, 1);
	KUNIT_EXPECT_EQ(test, log[0].nr_sectors, QC2_TIP_RANGE_MAX);
	qc2_dirty_log(&f->dirty, QC2_TIP_RANGE_MAX, 1);
	KUNIT_EXPECT_EQ(test, f->dirty.nr_log, 2);
	KUNIT_EXPECT_EQ(test, log[1].sector, QC2_TIP_RANGE_MAX);
	KUNIT_EXPECT_EQ(test, log[1].nr_sectors, 1);
}

/* Half full, the log asks for a commit, once; overfull, it says that it lost. */
static void dirty_test_log_full(struct kunit *test)
{
	struct dirty_fixture *f = test->priv;
	unsigned int i, todo, round;

	for (round = 0; round < 2; round++) {
		for (i = 0; i < MAX_LOG; i++) {
			todo = write_sectors(test, (round * 1000 + i) * 3, 1);
			KUNIT_EXPECT_EQ(test, todo,
					i + 1 == MAX_LOG / 2 ? QC2_DIRTY_LOG_FULL : 0);
		}
		/* What continues the last range needs no room. */
		write_sectors(test, (round * 1000 + i - 1) * 3 + 1, 1);
		KUNIT_EXPECT_FALSE(test, f->dirty.log_lost);
		if (round)
			write_sectors(test, (round * 1000 + i) * 3, 1);
		commit(test, round);
	}
	write_sectors(test, 20000, 1);
	commit(test, false);

	/* A tip without a journal has no log at all. */
	f->dirty.max_log = 0;
	KUNIT_EXPECT_EQ(test, write_sectors(test, 31, 1), 0);
	KUNIT_EXPECT_FALSE(test, qc2_dirty_committed(&f->dirty));
	commit(test, true);
}

/* What comes into the tip during a commit is for the next one. */
static void dirty_test_set_during_commit(struct kunit *test)
{
	struct dirty_fixture *f = test->priv;
	bool lost;

	write_sectors(test, 0, 8);
	KUNIT_EXPECT_EQ(test, qc2_dirty_begin_commit(&f->dirty, &f->spare, &lost), 1);
	memset(f->fresh, 0, sizeof(f->fresh));
	write_sectors(test, 100, 8);
	qc2_dirty_end_commit(&f->dirty);
	KUNIT_EXPECT_FALSE(test, qc2_dirty_committed(&f->dirty));
	commit(test, false);
}

/* Without a journal many changed regions ask for a checkpoint, once. */
static void dirty_test_many_changed(struct kunit *test)
{
	const unsigned int blocks = 2 * QC2_DIRTY_MAX_CHANGED / QC2_REGIONS_PER_BLOCK;
	struct dirty_fixture *f = test->priv;
	unsigned int i, j, todo;
	unsigned long *taken;

	f->dirty.max_log = 0;
	taken = kunit_kzalloc(test, BITS_TO_LONGS(blocks) * sizeof(long), GFP_KERNEL);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, taken);
	for (i = 0; i < QC2_DIRTY_MAX_CHANGED + 1; i++) {
		/* Twice: the second write changes no further region. */
		for (j = 0; j < 2; j++) {
			u64 sector = (u64)i * QC2_REGION_SECTORS + j;

			KUNIT_ASSERT_EQ(test, qc2_dirty_prepare(&f->dirty, sector, GFP_KERNEL), 1);
			todo = qc2_dirty_set(&f->dirty, sector, 1);
			KUNIT_EXPECT_EQ(test, todo, i + 1 == QC2_DIRTY_MAX_CHANGED && !j ?
					QC2_DIRTY_CHECKPOINT : 0);
		}
	}
	KUNIT_EXPECT_EQ(test, f->dirty.nr_changed, i);
	KUNIT_EXPECT_TRUE(test, qc2_dirty_take_changed(&f->dirty, taken));
	KUNIT_EXPECT_EQ(test, f->dirty.nr_changed, 0);
	KUNIT_EXPECT_EQ(test, find_first_zero_bit(taken, blocks),
			QC2_DIRTY_MAX_CHANGED / QC2_REGIONS_PER_BLOCK + 1);
	KUNIT_EXPECT_FALSE(test, qc2_dirty_take_changed(&f->dirty, taken));
}

/*
 * With a journal, changed regions ask for nothing; full ones do, once, and need no
 * memory after the checkpoint.
 */
static void dirty_test_many_full(struct kunit *test)
{
	struct dirty_fixture *f = test->priv;
	unsigned int i, half, todo;
	unsigned long *taken;
	void *entry;

	taken = kunit_kzalloc(test, BITS_TO_LONGS(QC2_DIRTY_MAX_CHANGED) * sizeof(long),
			      GFP_KERNEL);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, taken);
	for (half = 0; half < 2; half++) {
		for (i = 0; i < QC2_DIRTY_MAX_FULL; i++) {
			u64 sector = (u64)i * QC2_REGION_SECTORS + half * QC2_REGION_SECTORS / 2;

			KUNIT_ASSERT_EQ(test, qc2_dirty_prepare(&f->dirty, sector, GFP_KERNEL), 1);
			/* That the log fills up is another matter. */
			todo = qc2_dirty_set(&f->dirty, sector, QC2_REGION_SECTORS / 2);
			KUNIT_EXPECT_EQ(test, todo & QC2_DIRTY_CHECKPOINT,
					half && i + 1 == QC2_DIRTY_MAX_FULL ?
					QC2_DIRTY_CHECKPOINT : 0);
		}
	}
	KUNIT_EXPECT_TRUE(test, qc2_dirty_take_changed(&f->dirty, taken));
	for (i = 0; i < QC2_DIRTY_MAX_FULL; i++) {
		if (i % QC2_REGIONS_PER_BLOCK == 0)
			qc2_dirty_collapse(&f->dirty, i / QC2_REGIONS_PER_BLOCK);
		entry = xa_load(&f->dirty.regions, i);
		KUNIT_ASSERT_TRUE(test, xa_is_value(entry));
	}
	KUNIT_EXPECT_EQ(test, f->dirty.nr_full, 0);
}

/* A bitmap that was written can be loaded, and is the same then. */
static void dirty_test_load(struct kunit *test)
{
	struct dirty_fixture *f = test->priv;
	struct qc2_dirty loaded = {};
	unsigned int i, first;

	write_sectors(test, QC2_REGION_SECTORS, QC2_REGION_SECTORS);
	write_sectors(test, MODEL_SECTORS - LAST_SECTORS, LAST_SECTORS);
	for (i = 0; i < 100; i++) {
		first = below(f, 3 * QC2_REGION_SECTORS);
		write_sectors(test, first, 1 + below(f, 50));
	}
	check_block(test);

	qc2_dirty_init(&loaded);
	KUNIT_EXPECT_EQ(test, qc2_dirty_load_block(&loaded, MODEL_BLOCK, f->block,
						   MODEL_BASE + MODEL_SECTORS), 0);
	check_lookups(test, &loaded, f->in_tip);
	KUNIT_EXPECT_TRUE(test, qc2_dirty_committed(&loaded));
	KUNIT_EXPECT_EQ(test, loaded.nr_changed, 0);
	/* Memory for regions that need it alone. */
	KUNIT_EXPECT_TRUE(test, xa_is_value(xa_load(&loaded.regions,
						    (MODEL_BASE >> QC2_REGION_SHIFT) + 1)));
	KUNIT_EXPECT_PTR_EQ(test, xa_load(&loaded.regions,
					  (MODEL_BASE >> QC2_REGION_SHIFT) + 5), NULL);
	qc2_dirty_clear(&loaded);
	KUNIT_EXPECT_EQ(test, qc2_dirty_nr_sectors(&loaded), 0);
}

/* Bits of sectors that the disk does not have are damage. */
static void dirty_test_load_past_end(struct kunit *test)
{
	const u64 disk = MODEL_BASE + MODEL_SECTORS;
	struct dirty_fixture *f = test->priv;
	static const struct {
		unsigned int bit;
		int wanted;
	} cases[] = {
		{ MODEL_SECTORS - 1, 0 },
		{ MODEL_SECTORS, -EINVAL },
		{ round_up(MODEL_SECTORS, QC2_REGION_SECTORS) - 1, -EINVAL },
		{ QC2_TIP_BLOCK_BITS - 1, -EINVAL },
	};
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		memset(f->block, 0, sizeof(f->block));
		f->block[cases[i].bit / 8] = 1 << cases[i].bit % 8;
		KUNIT_EXPECT_EQ(test, qc2_dirty_load_block(&f->dirty, MODEL_BLOCK, f->block, disk),
				cases[i].wanted);
		qc2_dirty_clear(&f->dirty);
		qc2_dirty_init(&f->dirty);
	}
	/* A disk that ends with a region, and one that ended blocks before. */
	memset(f->block, 0, sizeof(f->block));
	f->block[QC2_REGION_BYTES] = 1;
	KUNIT_EXPECT_EQ(test, qc2_dirty_load_block(&f->dirty, MODEL_BLOCK, f->block,
						   MODEL_BASE + QC2_REGION_SECTORS), -EINVAL);
	KUNIT_EXPECT_EQ(test, qc2_dirty_load_block(&f->dirty, MODEL_BLOCK, f->block, 1), -EINVAL);
	KUNIT_EXPECT_EQ(test, qc2_dirty_load_block(&f->dirty, MODEL_BLOCK, f->block,
						   MODEL_BASE + QC2_REGION_SECTORS + 1), 0);
}

/* Ranges of the journal, over a bitmap that knows of some of them. */
static void dirty_test_load_range(struct kunit *test)
{
	struct dirty_fixture *f = test->priv;
	unsigned int first = QC2_REGION_SECTORS - 5, nr = 2 * QC2_REGION_SECTORS + 10;

	memset(f->block, 0xff, QC2_REGION_BYTES);
	KUNIT_ASSERT_EQ(test, qc2_dirty_load_block(&f->dirty, MODEL_BLOCK, f->block,
						   MODEL_BASE + MODEL_SECTORS), 0);
	memset(f->in_tip, 1, QC2_REGION_SECTORS);
	KUNIT_EXPECT_EQ(test, qc2_dirty_load_range(&f->dirty, MODEL_BASE, 100), 0);
	KUNIT_EXPECT_EQ(test, f->dirty.nr_changed, 0);

	KUNIT_EXPECT_EQ(test, qc2_dirty_load_range(&f->dirty, MODEL_BASE + first, nr), 1);
	memset(f->in_tip + first, 1, nr);
	check_lookups(test, &f->dirty, f->in_tip);
	KUNIT_EXPECT_EQ(test, f->dirty.nr_changed, 3);
	KUNIT_EXPECT_EQ(test, qc2_dirty_load_range(&f->dirty, MODEL_BASE + first, nr), 0);

	/* The last sector of the disk. */
	KUNIT_EXPECT_EQ(test, qc2_dirty_load_range(&f->dirty, MODEL_BASE + MODEL_SECTORS - 1, 1),
			1);
	f->in_tip[MODEL_SECTORS - 1] = 1;
	check_lookups(test, &f->dirty, f->in_tip);

	/* It is in the journal already: not for a commit, but for the bitmap. */
	KUNIT_EXPECT_TRUE(test, qc2_dirty_committed(&f->dirty));
	KUNIT_EXPECT_TRUE(test, checkpoint(test));
}

#define STRESS_WRITERS	2

struct dirty_stress {
	struct qc2_dirty *dirty;
	struct task_struct *task;
	struct rnd_state rnd;
	unsigned int lost;
	struct completion done;
};

/* Fills all regions but for the last one, sees its own bits at once. */
static int stress_write(void *data)
{
	struct dirty_stress *s = data;
	unsigned int i, len, nr;
	u64 sector;

	for (i = 0; i < 20000; i++) {
		sector = MODEL_BASE + prandom_u32_state(&s->rnd) %
			((MODEL_REGIONS - 1) * QC2_REGION_SECTORS);
		len = min_t(u64, 1 + prandom_u32_state(&s->rnd) % 64,
			    QC2_REGION_SECTORS - sector % QC2_REGION_SECTORS);
		if (qc2_dirty_prepare(s->dirty, sector, GFP_KERNEL))
			qc2_dirty_set(s->dirty, sector, len);
		nr = len;
		if (!qc2_dirty_lookup(s->dirty, sector, &nr) || nr != len)
			s->lost++;
	}
	complete(&s->done);
	return 0;
}

/*
 * Writers beside commits and checkpoints.  No bit is lost: what no commit had
 * in its ranges, or no block in its copy, is in the next one.
 */
static void dirty_test_concurrent(struct kunit *test)
{
	struct dirty_stress writers[STRESS_WRITERS] = {};
	struct dirty_fixture *f = test->priv;
	unsigned long *logged, *written, *now, *blocks;
	const unsigned int bytes = QC2_TIP_BLOCK_SIZE;
	unsigned int i, nr, running = 0;
	struct qc2_dirty_range *range;
	bool lost, busy;

	logged = kunit_kzalloc(test, bytes, GFP_KERNEL);
	written = kunit_kzalloc(test, bytes, GFP_KERNEL);
	now = kunit_kzalloc(test, bytes, GFP_KERNEL);
	blocks = kunit_kzalloc(test, round_up(MODEL_BLOCK + 1, BITS_PER_LONG) / 8, GFP_KERNEL);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, logged);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, written);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, now);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, blocks);
	f->dirty.max_log = LOG_ROOM;

	for (i = 0; i < STRESS_WRITERS; i++) {
		writers[i].dirty = &f->dirty;
		init_completion(&writers[i].done);
		prandom_seed_state(&writers[i].rnd, 20 + i);
		writers[i].task = kthread_run(stress_write, &writers[i], "qc2-dirty-test/%u", i);
		if (IS_ERR(writers[i].task)) {
			KUNIT_FAIL(test, "no thread");
			break;
		}
		running++;
	}

	do {
		/* Before the last round: it has to see everything. */
		busy = false;
		for (i = 0; i < running; i++)
			busy |= !completion_done(&writers[i].done);

		nr = qc2_dirty_begin_commit(&f->dirty, &f->spare, &lost);
		for (i = 0; i < nr; i++) {
			range = &f->spare[i];
			bitmap_set(logged, range->sector - MODEL_BASE, range->nr_sectors);
		}
		qc2_dirty_take_changed(&f->dirty, blocks);
		if (test_and_clear_bit(MODEL_BLOCK, blocks)) {
			qc2_dirty_copy_block(&f->dirty, MODEL_BLOCK, f->block);
			qc2_bits_copy(now, (unsigned long *)f->block, bytes / sizeof(long));
			bitmap_or(written, written, now, QC2_TIP_BLOCK_BITS);
			qc2_dirty_collapse(&f->dirty, MODEL_BLOCK);
		}
		/* As commit.c: a log with a gap is covered by a checkpoint. */
		if (lost)
			bitmap_or(logged, logged, written, QC2_TIP_BLOCK_BITS);
		qc2_dirty_end_commit(&f->dirty);
		cond_resched();
	} while (busy);

	qc2_dirty_copy_block(&f->dirty, MODEL_BLOCK, f->block);
	qc2_bits_copy(now, (unsigned long *)f->block, bytes / sizeof(long));
	KUNIT_EXPECT_TRUE(test, bitmap_equal(written, now, QC2_TIP_BLOCK_BITS));
	KUNIT_EXPECT_TRUE(test, bitmap_equal(logged, written, QC2_TIP_BLOCK_BITS));
	KUNIT_EXPECT_EQ(test, qc2_dirty_nr_sectors(&f->dirty),
			bitmap_weight(written, QC2_TIP_BLOCK_BITS));
	KUNIT_EXPECT_TRUE(test, qc2_dirty_committed(&f->dirty));
	for (i = 0; i < running; i++)
		KUNIT_EXPECT_EQ(test, writers[i].lost, 0);
}

static struct kunit_case dirty_test_cases[] = {
	KUNIT_CASE(dirty_test_empty),
	KUNIT_CASE(dirty_test_failed_write),
	KUNIT_CASE(dirty_test_random),
	KUNIT_CASE(dirty_test_collapse),
	KUNIT_CASE(dirty_test_log),
	KUNIT_CASE(dirty_test_log_longest),
	KUNIT_CASE(dirty_test_log_full),
	KUNIT_CASE(dirty_test_set_during_commit),
	KUNIT_CASE(dirty_test_many_changed),
	KUNIT_CASE(dirty_test_many_full),
	KUNIT_CASE(dirty_test_load),
	KUNIT_CASE(dirty_test_load_past_end),
	KUNIT_CASE(dirty_test_load_range),
	KUNIT_CASE(dirty_test_concurrent),
	{}
};

static struct kunit_suite dirty_test_suite = {
	.name = "qcow2chain-dirty",
	.suite_init = dirty_cache_create,
	.suite_exit = dirty_cache_destroy,
	.init = dirty_test_init,
	.exit = dirty_test_exit,
	.test_cases = dirty_test_cases,
};

kunit_test_suite(dirty_test_suite);
