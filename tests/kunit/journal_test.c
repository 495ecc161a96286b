// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit suite of the journal's sectors: their form on disk, and what is made of
 * those found there.
 */
#include <kunit/test.h>

#include "../../kernel/journal.c"

#define TIP_ID		0x1122334455667788ULL
#define DISK_SECTORS	QC2_TIP_MAX_SECTORS

static struct qc2_tip_journal *journal_sector(struct kunit *test, u64 sector, u32 nr_sectors)
{
	struct qc2_dirty_range range = { sector, nr_sectors };
	struct qc2_tip_journal *j = kunit_kzalloc(test, sizeof(*j), GFP_KERNEL);

	if (j)
		qc2_journal_write(j, TIP_ID, &range, 1);
	return j;
}

/* With the checksum that belongs to a content which qc2_journal_write() refuses. */
static void journal_seal(struct qc2_tip_journal *j)
{
	j->checksum = 0;
	j->checksum = cpu_to_le32(qc2_crc32c(j, sizeof(*j)));
}

static void journal_test_crc32c(struct kunit *test)
{
	/* The check value of CRC-32C. */
	KUNIT_EXPECT_EQ(test, qc2_crc32c("123456789", 9), 0xe3069283);
}

/* Byte by byte, as docs/tip-format.md has it. */
static void journal_test_form(struct kunit *test)
{
	const struct qc2_dirty_range ranges[] = { { 0x1234567890ULL, 0xabcdef }, { 1, 2 } };
	static const u8 wanted[] = {
		0, 0, 0, 0,					/* checksum, cleared below */
		2, 0, 0, 0,
		0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11,
		0x90, 0x78, 0x56, 0x34, 0x12, 0xef, 0xcd, 0xab,
		1, 0, 0, 0, 0, 2, 0, 0,
	};
	struct qc2_tip_journal *j = kunit_kmalloc(test, sizeof(*j), GFP_KERNEL);
	u32 checksum;

	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, j);
	memset(j, 0xa5, sizeof(*j));
	qc2_journal_write(j, TIP_ID, ranges, ARRAY_SIZE(ranges));
	checksum = le32_to_cpu(j->checksum);
	j->checksum = 0;
	KUNIT_EXPECT_EQ(test, checksum, qc2_crc32c(j, sizeof(*j)));
	KUNIT_EXPECT_EQ(test, memcmp(j, wanted, sizeof(wanted)), 0);
	KUNIT_EXPECT_PTR_EQ(test, memchr_inv((u8 *)j + sizeof(wanted), 0,
					     sizeof(*j) - sizeof(wanted)), NULL);
}

/* One range to as many as there can be, the largest ones among them. */
static void journal_test_round_trip(struct kunit *test)
{
	struct qc2_tip_journal *j = journal_sector(test, 0, 1);
	struct qc2_dirty_range ranges[QC2_TIP_JOURNAL_RANGES];
	unsigned int nr, i;

	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, j);
	for (i = 0; i < QC2_TIP_JOURNAL_RANGES; i++) {
		ranges[i].nr_sectors = i % 2 ? i : QC2_TIP_RANGE_MAX - i;
		ranges[i].sector = DISK_SECTORS - ranges[i].nr_sectors - i / 2;
	}
	for (nr = 1; nr <= QC2_TIP_JOURNAL_RANGES; nr++) {
		qc2_journal_write(j, TIP_ID, ranges, nr);
		KUNIT_ASSERT_EQ(test, qc2_journal_read(j, TIP_ID, DISK_SECTORS),
				QC2_JOURNAL_VALID);
		KUNIT_ASSERT_EQ(test, le32_to_cpu(j->nr_ranges), nr);
		for (i = 0; i < nr; i++) {
			struct qc2_dirty_range range = qc2_journal_range(j, i);

			KUNIT_EXPECT_EQ(test, range.sector, ranges[i].sector);
			KUNIT_EXPECT_EQ(test, range.nr_sectors, ranges[i].nr_sectors);
		}
	}
}

static void journal_test_empty(struct kunit *test)
{
	struct qc2_tip_journal *j = journal_sector(test, 8, 8);

	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, j);
	/* Of the tip that was there before. */
	KUNIT_EXPECT_EQ(test, qc2_journal_read(j, TIP_ID + 1, DISK_SECTORS), QC2_JOURNAL_EMPTY);
	memset(j, 0, sizeof(*j));
	KUNIT_EXPECT_EQ(test, qc2_journal_read(j, TIP_ID, DISK_SECTORS), QC2_JOURNAL_EMPTY);
	memset(j, 0xff, sizeof(*j));
	KUNIT_EXPECT_EQ(test, qc2_journal_read(j, TIP_ID, DISK_SECTORS), QC2_JOURNAL_EMPTY);
}

/* No single wrong bit is taken for a valid sector. */
static void journal_test_torn(struct kunit *test)
{
	const unsigned int id = offsetof(struct qc2_tip_journal, tip_id) * 8;
	struct qc2_tip_journal *good = journal_sector(test, 12345, 678), *j;
	enum qc2_journal_state found, wanted;
	unsigned int bit;

	j = kunit_kmalloc(test, sizeof(*j), GFP_KERNEL);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, good);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, j);
	for (bit = 0; bit < 8 * sizeof(*j); bit++) {
		*j = *good;
		((u8 *)j)[bit / 8] ^= 1 << bit % 8;
		found = qc2_journal_read(j, TIP_ID, DISK_SECTORS);
		wanted = bit >= id && bit < id + 64 ? QC2_JOURNAL_EMPTY : QC2_JOURNAL_TORN;
		KUNIT_EXPECT_EQ_MSG(test, found, wanted, "bit %u", bit);
	}
	/* The front of one sector and the back of another. */
	*j = *good;
	memcpy(&j->ranges[20], &good->ranges[0], sizeof(j->ranges[0]));
	KUNIT_EXPECT_EQ(test, qc2_journal_read(j, TIP_ID, DISK_SECTORS), QC2_JOURNAL_TORN);
}

struct journal_case {
	const char *name;
	enum qc2_journal_state state;
	u64 sector;
	u32 nr_sectors;
	u64 disk_sectors;
};

static const struct journal_case journal_cases[] = {
	{ "first sector", QC2_JOURNAL_VALID, 0, 1, 1 },
	{ "all of a disk", QC2_JOURNAL_VALID, 0, 4097, 4097 },
	{ "up to the end", QC2_JOURNAL_VALID, DISK_SECTORS - 5, 5, DISK_SECTORS },
	{ "longest range", QC2_JOURNAL_VALID, 0, QC2_TIP_RANGE_MAX, DISK_SECTORS },
	{ "no sectors", QC2_JOURNAL_BAD, 0, 0, 100 },
	{ "behind the end", QC2_JOURNAL_BAD, 100, 1, 100 },
	{ "over the end", QC2_JOURNAL_BAD, 99, 2, 100 },
	{ "over the end of the largest disk", QC2_JOURNAL_BAD, DISK_SECTORS - 1, 2, DISK_SECTORS },
	{ "greatest number there can be", QC2_JOURNAL_BAD, (1ULL << QC2_TIP_RANGE_SHIFT) - 1,
	  QC2_TIP_RANGE_MAX, DISK_SECTORS },
};

static void journal_case_name(const struct journal_case *c, char *desc)
{
	strscpy(desc, c->name, KUNIT_PARAM_DESC_SIZE);
}
KUNIT_ARRAY_PARAM(journal, journal_cases, journal_case_name);

static void journal_test_ranges(struct kunit *test)
{
	const struct journal_case *c = test->param_value;
	struct qc2_tip_journal *j = journal_sector(test, c->sector, c->nr_sectors);

	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, j);
	KUNIT_EXPECT_EQ(test, qc2_journal_read(j, TIP_ID, c->disk_sectors), c->state);
}

/* A bad range anywhere, and numbers of ranges that there cannot be. */
static void journal_test_bad(struct kunit *test)
{
	struct qc2_dirty_range ranges[QC2_TIP_JOURNAL_RANGES];
	struct qc2_tip_journal *j = journal_sector(test, 0, 1);
	unsigned int i;

	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, j);
	for (i = 0; i < QC2_TIP_JOURNAL_RANGES; i++)
		ranges[i] = (struct qc2_dirty_range) { i, 1 };
	for (i = 0; i < QC2_TIP_JOURNAL_RANGES; i++) {
		ranges[i].nr_sectors = 0;
		qc2_journal_write(j, TIP_ID, ranges, QC2_TIP_JOURNAL_RANGES);
		KUNIT_EXPECT_EQ(test, qc2_journal_read(j, TIP_ID, DISK_SECTORS), QC2_JOURNAL_BAD);
		ranges[i].nr_sectors = 1;
	}

	qc2_journal_write(j, TIP_ID, ranges, QC2_TIP_JOURNAL_RANGES);
	j->nr_ranges = 0;
	journal_seal(j);
	KUNIT_EXPECT_EQ(test, qc2_journal_read(j, TIP_ID, DISK_SECTORS), QC2_JOURNAL_BAD);
	j->nr_ranges = cpu_to_le32(QC2_TIP_JOURNAL_RANGES + 1);
	journal_seal(j);
	KUNIT_EXPECT_EQ(test, qc2_journal_read(j, TIP_ID, DISK_SECTORS), QC2_JOURNAL_BAD);
	j->nr_ranges = cpu_to_le32(U32_MAX);
	journal_seal(j);
	KUNIT_EXPECT_EQ(test, qc2_journal_read(j, TIP_ID, DISK_SECTORS), QC2_JOURNAL_BAD);
}

static struct kunit_case journal_test_cases[] = {
	KUNIT_CASE(journal_test_crc32c),
	KUNIT_CASE(journal_test_form),
	KUNIT_CASE(journal_test_round_trip),
	KUNIT_CASE(journal_test_empty),
	KUNIT_CASE(journal_test_torn),
	KUNIT_CASE_PARAM(journal_test_ranges, journal_gen_params),
	KUNIT_CASE(journal_test_bad),
	{}
};

static struct kunit_suite journal_test_suite = {
	.name = "qcow2chain-journal",
	.test_cases = journal_test_cases,
};

kunit_test_suite(journal_test_suite);
