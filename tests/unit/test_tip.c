/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Tips: made, opened, checked; every kind of damage is refused.  The tests of
 * block devices need root and loop devices and are skipped, visibly, without.
 */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "crc32c.h"
#include "testing.h"
#include "tip.h"

#define DISK	100000			/* sectors; 4 bitmap blocks */
#define JOURNAL	QC2_TIP_JOURNAL_DEFAULT

/* Where the areas of such a tip are */
#define SUMMARY_AT	136
#define JOURNAL_AT	144
#define BITMAP_AT	(JOURNAL_AT + JOURNAL)
#define DATA_AT		4096

static char dir[] = "/tmp/qc2-tip.XXXXXX";
static char path[64];
static const uint8_t id[QC2_CHAIN_ID_LEN] = "0123456789abcde";

static int make_dir(void **state)
{
	if (!mkdtemp(dir))
		return -1;
	snprintf(path, sizeof(path), "%s/tip", dir);
	return 0;
}

static int remove_dir(void **state)
{
	return rmdir(dir);
}

static int remove_tip(void **state)
{
	unlink(path);
	return 0;
}

static void create_with(uint64_t nr_sectors, uint64_t journal_sectors)
{
	struct qc2_err err;

	assert_ok(qc2_tip_create(path, id, nr_sectors, journal_sectors, 0, &err), err);
}

static void create(uint64_t nr_sectors)
{
	create_with(nr_sectors, JOURNAL);
}

static void put(uint64_t offset, const void *buf, size_t len)
{
	int fd = open(path, O_WRONLY);

	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, buf, len, offset), len);
	close(fd);
}

static void get(uint64_t offset, void *buf, size_t len)
{
	int fd = open(path, O_RDONLY);

	assert_true(fd >= 0);
	assert_int_equal(pread(fd, buf, len, offset), len);
	close(fd);
}

static const uint64_t copies[] = { QC2_TIP_SB0_SECTOR * 512,
				   QC2_TIP_SB1_SECTOR * 512 };

static void get_super(int copy, struct qc2_tip_super *sb)
{
	get(copies[copy], sb, sizeof(*sb));
}

/* Writes a superblock whose checksum is right. */
static void put_super(int copy, struct qc2_tip_super *sb)
{
	sb->checksum = 0;
	sb->checksum = htole32(qc2_crc32c(0, sb, sizeof(*sb)));
	put(copies[copy], sb, sizeof(*sb));
}

static void put_supers(struct qc2_tip_super *sb)
{
	put_super(0, sb);
	put_super(1, sb);
}

static void opens(struct qc2_tip_info *info)
{
	struct qc2_err err;

	assert_ok(qc2_tip_open(path, info, &err), err);
}

static void checks(struct qc2_tip_info *info)
{
	struct qc2_err err;

	assert_ok(qc2_tip_check(path, NULL, info, &err), err);
}

static void refused(int errnum, const char *text)
{
	struct qc2_tip_info info;
	struct qc2_err err = { "" };

	assert_int_equal(qc2_tip_open(path, &info, &err), -errnum);
	assert_in(err.msg, path);
	assert_in(err.msg, text);
	assert_int_equal(qc2_tip_check(path, NULL, &info, &err), -errnum);
}

static void check_refused(const char *text)
{
	struct qc2_tip_info info;
	struct qc2_err err = { "" };

	opens(&info);
	assert_int_equal(qc2_tip_check(path, NULL, &info, &err), -EINVAL);
	assert_in(err.msg, path);
	assert_in(err.msg, text);
}

static void test_layout_on_disk(void **state)
{
	struct qc2_tip_super sb, sb1;
	struct qc2_tip_info info;
	struct stat st;
	uint32_t sum;

	create(DISK);
	get_super(0, &sb);
	get_super(1, &sb1);
	assert_memory_equal(&sb, &sb1, sizeof(sb));
	assert_memory_equal(sb.magic, "QC2CHTIP", 8);
	assert_int_equal(le32toh(sb.version), 1);
	assert_memory_equal(sb.chain_id, id, sizeof(id));
	assert_int_equal(le64toh(sb.nr_sectors), DISK);
	assert_int_equal(le64toh(sb.summary_start), 136);
	assert_int_equal(le64toh(sb.journal_start), 144);
	assert_int_equal(le64toh(sb.journal_sectors), 2048);
	assert_int_equal(le64toh(sb.bitmap_start), 2192);
	assert_int_equal(le64toh(sb.data_start), 4096);
	assert_true(sb.tip_id != 0);
	assert_int_equal(le64toh(sb.incompat), 1);
	assert_int_equal(sb.compat, 0);
	sum = le32toh(sb.checksum);
	sb.checksum = 0;
	assert_int_equal(sum, qc2_crc32c(0, &sb, sizeof(sb)));

	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_size, (4096 + DISK) * 512);
	assert_int_equal(st.st_mode & 0777, 0600);
	/* Sparse, but for the metadata. */
	assert_in_range(st.st_blocks, 4096, 4096 + 256);

	opens(&info);
	assert_memory_equal(info.chain_id, id, sizeof(id));
	assert_int_equal(info.nr_sectors, DISK);
	assert_int_equal(info.seq, 1);
	assert_int_equal(info.incompat, 1);
	assert_int_equal(info.compat, 0);
	assert_int_equal(info.good_copies, 2);
	assert_int_equal(info.summary_start, 136);
	assert_int_equal(info.journal_start, 144);
	assert_int_equal(info.journal_sectors, 2048);
	assert_int_equal(info.tip_id, le64toh(sb.tip_id));
	assert_int_equal(info.bitmap_start, 2192);
	assert_int_equal(info.data_start, 4096);
	assert_int_equal(info.dirty_sectors, 0);
	assert_int_equal(qc2_tip_device_sectors(&info), 4096 + DISK);

	checks(&info);
	assert_int_equal(info.dirty_sectors, 0);
	assert_int_equal(info.journal_ranges, 0);
	assert_int_equal(info.journal[QC2_TIP_JOURNAL_EMPTY], 2048);
}

/* As tips were made before there was a journal. */
static void test_without_a_journal(void **state)
{
	static const uint8_t zeros[24];
	struct qc2_tip_super sb;
	struct qc2_tip_info info;

	create_with(DISK, 0);
	get_super(0, &sb);
	assert_int_equal(sb.incompat, 0);
	assert_memory_equal(&sb.journal_start, zeros, sizeof(zeros));
	checks(&info);
	assert_int_equal(info.journal_start, 0);
	assert_int_equal(info.journal_sectors, 0);
	assert_int_equal(info.tip_id, 0);
	assert_int_equal(info.summary_start, 136);
	assert_int_equal(info.bitmap_start, 144);
	assert_int_equal(info.data_start, 2048);
	assert_int_equal(info.journal[QC2_TIP_JOURNAL_EMPTY], 0);

	/* Without its bit the fields mean nothing. */
	sb.journal_start = htole64(3);
	sb.journal_sectors = htole64(5);
	sb.tip_id = htole64(7);
	put_supers(&sb);
	checks(&info);
	assert_int_equal(info.journal_start, 0);
	assert_int_equal(info.journal_sectors, 0);
	assert_int_equal(info.tip_id, 0);
}

static void test_journal_sizes(void **state)
{
	static const uint64_t good[] = { 0, 16, 32, 2048, 65536 };
	static const uint64_t bad[] = { 1, 8, 15, 17, 24, 2047, 65537, 65552, UINT64_MAX - 15 };
	struct qc2_tip_info info;
	size_t i;

	for (i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		create_with(DISK, good[i]);
		checks(&info);
		assert_int_equal(info.journal_sectors, good[i]);
		assert_int_equal(info.bitmap_start, 144 + good[i]);
		assert_int_equal(info.data_start % 2048, 0);
		assert_true(info.data_start >= info.bitmap_start + 32);
		unlink(path);
	}
	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct qc2_err err = { "" };

		assert_int_equal(qc2_tip_create(path, id, DISK, bad[i], 0, &err), -EINVAL);
		assert_in(err.msg, "journal");
		assert_int_equal(access(path, F_OK), -1);
	}
}

static void test_tips_have_their_own_id(void **state)
{
	struct qc2_tip_info one, two;

	create(DISK);
	opens(&one);
	unlink(path);
	create(DISK);
	opens(&two);
	assert_true(one.tip_id && two.tip_id && one.tip_id != two.tip_id);
}

static void test_sizes(void **state)
{
	static const uint64_t sizes[] = {
		1, 7, 32767, 32768, 32769, 1ULL << 25, (1ULL << 30) + 1,
		(1ULL << 30) * 4, QC2_TIP_MAX_SECTORS,
	};
	struct qc2_tip_info info;
	size_t i;

	for (i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		struct qc2_err err;
		uint64_t blocks = (sizes[i] + 32767) / 32768;
		uint64_t need;
		int ret = qc2_tip_create(path, id, sizes[i], JOURNAL, 0, &err);

		/* Not every file system has files of 64 TiB. */
		if (ret == -EFBIG) {
			assert_in(err.msg, path);
			print_message("no tip for %llu sectors here\n",
				      (unsigned long long)sizes[i]);
			assert_int_equal(access(path, F_OK), -1);
			continue;
		}
		assert_ok(ret, err);
		assert_ok(qc2_tip_check(path, NULL, &info, &err), err);
		need = qc2_tip_device_sectors(&info);
		assert_int_equal(info.nr_sectors, sizes[i]);
		assert_true(info.journal_start - info.summary_start >=
			    8 * ((blocks + 32767) / 32768));
		assert_true(info.bitmap_start - info.journal_start >= JOURNAL);
		assert_true(info.data_start - info.bitmap_start >= 8 * blocks);
		assert_int_equal(info.data_start % 2048, 0);
		assert_true(need >= info.data_start + sizes[i]);
		assert_int_equal(need % 8, 0);
		unlink(path);
	}
}

static void test_bad_calls(void **state)
{
	struct qc2_tip_info info;
	struct qc2_err err;
	char name[96];

	assert_int_equal(qc2_tip_create(path, id, 0, JOURNAL, 0, &err), -EINVAL);
	assert_int_equal(qc2_tip_create(path, id, QC2_TIP_MAX_SECTORS + 1, JOURNAL, 0,
					&err), -EINVAL);
	assert_int_equal(access(path, F_OK), -1);

	assert_int_equal(qc2_tip_create(dir, id, DISK, JOURNAL, 1, &err), -EISDIR);
	assert_in(err.msg, "directory");
	assert_int_equal(qc2_tip_open(dir, &info, &err), -EISDIR);
	assert_in(err.msg, "directory");
	assert_int_equal(qc2_tip_open(path, &info, &err), -ENOENT);
	assert_in(err.msg, path);
	snprintf(name, sizeof(name), "%s/no/tip", dir);
	assert_int_equal(qc2_tip_create(name, id, DISK, JOURNAL, 0, &err), -ENOENT);
	assert_in(err.msg, name);
	assert_int_equal(qc2_tip_open("/dev/null", &info, &err), -EINVAL);
	assert_in(err.msg, "neither a regular file");

	snprintf(name, sizeof(name), "%s/fifo", dir);
	assert_int_equal(mkfifo(name, 0600), 0);
	assert_int_equal(qc2_tip_open(name, &info, &err), -EINVAL);
	unlink(name);
}

static void test_an_existing_file_is_kept(void **state)
{
	struct qc2_err err;
	char buf[6];

	close(open(path, O_CREAT | O_WRONLY, 0600));
	put(0, "mine!", 6);
	assert_int_equal(qc2_tip_create(path, id, DISK, JOURNAL, 0, &err), -EEXIST);
	assert_in(err.msg, "exists");
	assert_int_equal(qc2_tip_create(path, id, DISK, JOURNAL, 1, &err), -EEXIST);
	get(0, buf, 6);
	assert_string_equal(buf, "mine!");
}

static void test_one_damaged_copy(void **state)
{
	struct qc2_tip_info info;
	struct qc2_tip_super sb;
	int copy;

	for (copy = 0; copy < 2; copy++) {
		create(DISK);
		opens(&info);
		assert_int_equal(info.good_copies, 2);
		put(copies[copy] + 60, "damage", 6);
		opens(&info);
		assert_int_equal(info.good_copies, 1);
		assert_int_equal(info.nr_sectors, DISK);
		assert_memory_equal(info.chain_id, id, sizeof(id));
		/* nothing at all there */
		memset(&sb, 0, sizeof(sb));
		put(copies[copy], &sb, sizeof(sb));
		opens(&info);
		assert_int_equal(info.good_copies, 1);
		assert_int_equal(info.nr_sectors, DISK);
		unlink(path);
	}
}

static void test_the_newer_copy_counts(void **state)
{
	struct qc2_tip_info info;
	struct qc2_tip_super sb;
	int copy;

	for (copy = 0; copy < 2; copy++) {
		create(DISK);
		get_super(copy, &sb);
		sb.seq = htole64(2);
		sb.nr_sectors = htole64(DISK - 1);
		put_super(copy, &sb);
		opens(&info);
		assert_int_equal(info.nr_sectors, DISK - 1);
		unlink(path);
	}
}

static void test_not_a_tip(void **state)
{
	struct qc2_tip_super sb;

	close(open(path, O_CREAT | O_WRONLY, 0600));
	refused(EINVAL, "not a tip");
	assert_int_equal(truncate(path, 1 << 20), 0);
	refused(EINVAL, "not a tip");
	unlink(path);

	create(DISK);
	put(copies[0] + 60, "damage", 6);
	put(copies[1] + 60, "damage", 6);
	refused(EINVAL, "both copies");
	memset(&sb, 'x', sizeof(sb));
	put(copies[0], &sb, sizeof(sb));
	put(copies[1], &sb, sizeof(sb));
	refused(EINVAL, "not a tip");
}

/* Every bit of a superblock is covered by its checksum. */
static void test_every_bit_counts(void **state)
{
	struct qc2_tip_super sb, zeros = { 0 };
	struct qc2_tip_info info;
	struct qc2_err err;
	unsigned int bit;
	uint8_t *bytes = (uint8_t *)&sb;

	create(DISK);
	put(copies[1], &zeros, sizeof(zeros));
	get_super(0, &sb);
	for (bit = 0; bit < 8 * sizeof(sb); bit += bit < 1024 ? 1 : 61) {
		bytes[bit / 8] ^= 1 << bit % 8;
		put(copies[0], &sb, sizeof(sb));
		assert_true(qc2_tip_open(path, &info, &err) < 0);
		bytes[bit / 8] ^= 1 << bit % 8;
	}
	put(copies[0], &sb, sizeof(sb));
	opens(&info);
}

static void test_versions_and_features(void **state)
{
	struct qc2_tip_super sb, old;
	struct qc2_tip_info info;

	create(DISK);
	get_super(0, &old);
	sb = old;
	sb.version = htole32(2);
	put_supers(&sb);
	refused(EOPNOTSUPP, "version 2");
	sb.version = 0;
	put_supers(&sb);
	refused(EOPNOTSUPP, "version 0");
	/* A later version may have another checksum. */
	sb.version = htole32(3);
	put(copies[0], &sb, sizeof(sb));
	put(copies[1], &sb, sizeof(sb));
	refused(EOPNOTSUPP, "version 3");

	sb = old;
	sb.incompat = htole64(1ULL << 40);
	put_supers(&sb);
	refused(EOPNOTSUPP, "0x10000000000");
	/* The ones that are known are not blamed. */
	sb.incompat = htole64(QC2_TIP_INCOMPAT_JOURNAL | 2);
	put_supers(&sb);
	refused(EOPNOTSUPP, "know: 0x2");
	sb = old;
	sb.compat = htole64(~0ULL);
	put_supers(&sb);
	opens(&info);
}

static void test_bad_areas(void **state)
{
	static const struct {
		uint64_t nr_sectors, summary, bitmap, data;
		const char *text;
	} bad[] = {
		{ 0, 136, 144, 2048, "1 to" },
		{ QC2_TIP_MAX_SECTORS + 1, 136, 144, 2048, "1 to" },
		{ UINT64_MAX, 136, 144, 2048, "1 to" },
		{ DISK, 128, 144, 2048, "overlap" },
		{ DISK, 0, 144, 2048, "overlap" },
		{ DISK, 137, 152, 2048, "misaligned" },
		{ DISK, 136, 136, 2048, "overlap" },
		{ DISK, 136, 145, 2048, "misaligned" },
		{ DISK, 136, 2024, 2048, "overlap" },
		{ DISK, 136, 144, 2056, "misaligned" },
		{ DISK, 136, 144, 0, "overlap" },
		{ DISK, 4096, 4104, 2048, "overlap" },
		{ DISK, 136, UINT64_MAX - 7, 2048, "overlap" },
		{ DISK, UINT64_MAX - 7, 144, 2048, "overlap" },
		{ DISK, 136, 144, UINT64_MAX - 2047, "overlap" },
		{ DISK, 136, 144, 4096, "truncated" },
		{ DISK + 8, 136, 144, 2048, "truncated" },
		{ QC2_TIP_MAX_SECTORS, 136, 1160, 1ULL << 26, "truncated" },
	};
	struct qc2_tip_super sb;
	size_t i;

	create_with(DISK, 0);
	get_super(0, &sb);
	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		sb.nr_sectors = htole64(bad[i].nr_sectors);
		sb.summary_start = htole64(bad[i].summary);
		sb.bitmap_start = htole64(bad[i].bitmap);
		sb.data_start = htole64(bad[i].data);
		put_supers(&sb);
		refused(EINVAL, bad[i].text);
	}
}

static void test_bad_journals(void **state)
{
	static const struct {
		uint64_t summary, journal, sectors, bitmap, data;
		const char *text;
	} bad[] = {
		{ 136, 144, 0, 2192, 4096, "sectors of journal" },
		{ 136, 144, 8, 2192, 4096, "sectors of journal" },
		{ 136, 144, 2040, 2192, 4096, "sectors of journal" },
		{ 136, 144, 65552, 69632, 71680, "sectors of journal" },
		{ 136, 144, UINT64_MAX - 15, 2192, 4096, "sectors of journal" },
		{ 136, 0, 2048, 2192, 4096, "journal cannot be at sector 0:" },
		{ 136, 136, 2048, 2192, 4096, "journal cannot be at sector 136:" },
		{ 136, 145, 2032, 2192, 4096, "journal cannot be at sector 145:" },
		{ 136, UINT64_MAX - 7, 2048, 2192, 4096, "journal cannot be at" },
		{ 136, 152, 2048, 2192, 4096, "bitmap cannot be at sector 2192:" },
		{ 136, 144, 2064, 2192, 4096, "bitmap cannot be at sector 2192:" },
		/* behind the bitmap, and behind the data */
		{ 136, 2048, 2048, 144, 4096, "bitmap cannot be at sector 144:" },
		{ 136, 104096, 16, 2192, 4096, "bitmap cannot be at sector 2192:" },
		{ 2192, 144, 2048, 2200, 4096, "journal cannot be at sector 144:" },
	};
	static const struct {
		uint64_t journal, sectors;
	} good[] = { { 144, 16 }, { 144, 2048 }, { 2176, 16 }, { 152, 2032 } };
	struct qc2_tip_super sb;
	struct qc2_tip_info info;
	size_t i;

	create(DISK);
	get_super(0, &sb);
	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct qc2_tip_super damaged = sb;

		damaged.summary_start = htole64(bad[i].summary);
		damaged.journal_start = htole64(bad[i].journal);
		damaged.journal_sectors = htole64(bad[i].sectors);
		damaged.bitmap_start = htole64(bad[i].bitmap);
		damaged.data_start = htole64(bad[i].data);
		put_supers(&damaged);
		refused(EINVAL, "damaged");
		refused(EINVAL, bad[i].text);
	}
	info.tip_id = sb.tip_id;
	sb.tip_id = 0;
	put_supers(&sb);
	refused(EINVAL, "no id");
	sb.tip_id = info.tip_id;
	for (i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		sb.journal_start = htole64(good[i].journal);
		sb.journal_sectors = htole64(good[i].sectors);
		put_supers(&sb);
		checks(&info);
		assert_int_equal(info.journal[QC2_TIP_JOURNAL_EMPTY], good[i].sectors);
	}
}

static void test_truncated(void **state)
{
	create(DISK);
	assert_int_equal(truncate(path, (DATA_AT + DISK) * 512 - 512), 0);
	refused(EINVAL, "truncated");
	assert_int_equal(truncate(path, 8192), 0);
	refused(EINVAL, "truncated");
	assert_int_equal(truncate(path, 4095), 0);
	refused(EINVAL, "not a tip");
}

static void test_counts_dirty_sectors(void **state)
{
	struct qc2_tip_info info;
	struct qc2_err err;
	uint8_t block[4096];

	create(DISK);
	memset(block, 0xff, sizeof(block));
	put(BITMAP_AT * 512, block, sizeof(block));		/* block 0 */
	put((BITMAP_AT + 8) * 512, block, sizeof(block));	/* block 1: unused */
	put((BITMAP_AT + 24) * 512, "\x05", 1);		/* block 3 */
	/* blocks 0 and 3 */
	put(SUMMARY_AT * 512, "\x09", 1);
	assert_ok(qc2_tip_check(path, NULL, &info, &err), err);
	assert_int_equal(info.dirty_sectors, 32768 + 2);
	/* opening alone does not count */
	opens(&info);
	assert_int_equal(info.dirty_sectors, 0);
}

static void test_bits_behind_the_end(void **state)
{
	struct qc2_tip_info info;
	struct qc2_err err;

	create(DISK);
	/* DISK is bit 1696 of bitmap block 3. */
	put(SUMMARY_AT * 512, "\x08", 1);
	put((BITMAP_AT + 24) * 512 + 211, "\x80", 1);
	assert_ok(qc2_tip_check(path, NULL, &info, &err), err);
	assert_int_equal(info.dirty_sectors, 1);
	put((BITMAP_AT + 24) * 512 + 212, "\x01", 1);
	check_refused("block 3 of the tip's bitmap");
	put((BITMAP_AT + 24) * 512 + 212, "\0", 1);
	put((BITMAP_AT + 24) * 512 + 4095, "\x80", 1);
	check_refused("block 3 of the tip's bitmap");

	put(SUMMARY_AT * 512, "\x10", 1);
	check_refused("summary");
	put(SUMMARY_AT * 512, "\0", 1);
	put(SUMMARY_AT * 512 + 4095, "\x80", 1);
	check_refused("summary");
	unlink(path);

	/* within a byte */
	create(5);
	put(SUMMARY_AT * 512, "\x01", 1);
	put(BITMAP_AT * 512, "\x1f", 1);
	assert_ok(qc2_tip_check(path, NULL, &info, &err), err);
	assert_int_equal(info.dirty_sectors, 5);
	put(BITMAP_AT * 512, "\x20", 1);
	check_refused("block 0 of the tip's bitmap");
}

/*
 * ---------------------------------------------------------------------------
 * The journal
 * ---------------------------------------------------------------------------
 */

#define RANGE(sector, nr)	((uint64_t)(sector) | (uint64_t)(nr) << QC2_TIP_RANGE_SHIFT)
#define LAST_SECTOR		((1ULL << QC2_TIP_RANGE_SHIFT) - 1)

/* A record in sector @at of the journal whose checksum is right. */
static void put_record(uint64_t at, uint64_t tip_id, uint32_t nr_ranges, const uint64_t *ranges,
		       size_t nr)
{
	struct qc2_tip_journal record = {
		.nr_ranges = htole32(nr_ranges),
		.tip_id = htole64(tip_id),
	};

	assert_true(nr <= QC2_TIP_JOURNAL_RANGES);
	for (size_t i = 0; i < nr; i++)
		record.ranges[i] = htole64(ranges[i]);
	record.checksum = htole32(qc2_crc32c(0, &record, sizeof(record)));
	put((JOURNAL_AT + at) * 512, &record, sizeof(record));
}

static uint64_t tip_id(void)
{
	struct qc2_tip_info info;

	opens(&info);
	return info.tip_id;
}

static void put_range(uint64_t at, uint64_t sector, uint64_t nr)
{
	put_record(at, tip_id(), 1, (uint64_t[]){ RANGE(sector, nr) }, 1);
}

static void clear_record(uint64_t at)
{
	static const uint8_t zeros[512];

	put((JOURNAL_AT + at) * 512, zeros, sizeof(zeros));
}

/* What a visitor is told, as text: "SECTOR+NR " for each call of range() */
static char found[4096];

static void add_found(void *arg, const struct qc2_tip_range *range)
{
	size_t len = strlen(found);

	assert_ptr_equal(arg, found);
	assert_true(len + 48 < sizeof(found));
	sprintf(found + len, "%llu+%llu ", (unsigned long long)range->sector,
		(unsigned long long)range->nr_sectors);
}

static void add_record(void *arg, uint64_t sector, enum qc2_tip_journal_state state,
		       const struct qc2_tip_range *ranges, unsigned int nr)
{
	size_t len = strlen(found);

	assert_true(len + 48 < sizeof(found));
	sprintf(found + len, "%llu%c", (unsigned long long)sector, " voB"[state]);
	for (unsigned int i = 0; i < nr; i++)
		add_found(arg, &ranges[i]);
	strcat(found, "/ ");
}

static void visit(const struct qc2_tip_visitor *visitor, struct qc2_tip_info *info)
{
	struct qc2_err err;

	found[0] = '\0';
	assert_ok(qc2_tip_check(path, visitor, info, &err), err);
}

/* The sectors in the tip, and their number, are these. */
static void holds(const char *ranges)
{
	static const struct qc2_tip_visitor visitor = { .range = add_found, .arg = found };
	unsigned long long sector, nr, sum = 0;
	struct qc2_tip_info info;
	int len;

	visit(&visitor, &info);
	assert_string_equal(found, ranges);
	for (; sscanf(ranges, "%llu+%llu %n", &sector, &nr, &len) == 2; ranges += len)
		sum += nr;
	assert_int_equal(info.dirty_sectors, sum);
}

static void test_bitmap_ranges(void **state)
{
	create(DISK);
	holds("");
	put(SUMMARY_AT * 512, "\x0f", 1);
	put(BITMAP_AT * 512, "\x81\x01", 2);
	put(BITMAP_AT * 512 + 4095, "\x80\x01", 2);		/* blocks 0 and 1 */
	put((BITMAP_AT + 24) * 512 + 211, "\xc0", 1);		/* the end */
	holds("0+1 7+2 32767+2 99998+2 ");
	/* a block not in use lies between two that are */
	put(SUMMARY_AT * 512, "\x0d", 1);
	holds("0+1 7+2 32767+1 99998+2 ");
}

/* Sectors in the journal's first and last places, alone and together. */
static void test_replays_every_sector(void **state)
{
	static const uint64_t places[] = { 0, 1, 7, 8, JOURNAL / 2 - 1, JOURNAL / 2, JOURNAL - 1 };
	struct qc2_tip_info info;
	size_t i, nr = sizeof(places) / sizeof(places[0]);

	create(DISK);
	for (i = 0; i < nr; i++) {
		put_range(places[i], 1000, 8);
		holds("1000+8 ");
		clear_record(places[i]);
	}
	holds("");
	for (i = 0; i < nr; i++)
		put_range(places[i], 70000 - 100 * i, 1 + i);
	holds("69400+7 69500+6 69600+5 69700+4 69800+3 69900+2 70000+1 ");
	checks(&info);
	assert_int_equal(info.journal[QC2_TIP_JOURNAL_VALID], nr);
	assert_int_equal(info.journal[QC2_TIP_JOURNAL_EMPTY], JOURNAL - nr);
	assert_int_equal(info.journal_ranges, nr);
	/* opening alone reads none of it */
	opens(&info);
	assert_int_equal(info.dirty_sectors, 0);
	assert_int_equal(info.journal[QC2_TIP_JOURNAL_VALID], 0);

	/* What lies beside the journal is none of it. */
	for (i = 0; i < nr; i++)
		clear_record(places[i]);
	put_range(JOURNAL, 1000, 8);
	holds("");
}

/* A journal longer than what one read brings. */
static void test_replays_the_longest_journal(void **state)
{
	static const uint64_t places[] = { 2047, 2048, 2049, 4095, 32768, 65535 };
	struct qc2_tip_info info;
	size_t i;

	create_with(DISK, QC2_TIP_JOURNAL_MAX);
	for (i = 0; i < sizeof(places) / sizeof(places[0]); i++)
		put_range(places[i], 10 * i, 1 + i);
	holds("0+1 10+2 20+3 30+4 40+5 50+6 ");
	checks(&info);
	assert_int_equal(info.journal[QC2_TIP_JOURNAL_VALID], i);
	assert_int_equal(info.journal[QC2_TIP_JOURNAL_EMPTY], QC2_TIP_JOURNAL_MAX - i);
}

static void test_replay_joins(void **state)
{
	const uint64_t full[QC2_TIP_JOURNAL_RANGES] = { [0 ... 61] = RANGE(500, 10) };
	uint64_t own, many[QC2_TIP_JOURNAL_RANGES];
	char expected[62 * 8 + 1];
	unsigned int i, len = 0;

	create(DISK);
	own = tip_id();
	/* in one sector: not sorted, overlapping, touching, the same twice */
	put_record(0, own, 5, (uint64_t[]){ RANGE(200, 10), RANGE(100, 50), RANGE(120, 10),
		   RANGE(210, 1), RANGE(100, 50) }, 5);
	holds("100+50 200+11 ");
	/* in two */
	put_range(9, 149, 51);
	holds("100+111 ");
	put_record(9, own, QC2_TIP_JOURNAL_RANGES, full, QC2_TIP_JOURNAL_RANGES);
	holds("100+50 200+11 500+10 ");
	/* with the bitmap: sector 99, and 158 to 160 */
	put(SUMMARY_AT * 512, "\x01", 1);
	put(BITMAP_AT * 512 + 12, "\x08", 1);
	put(BITMAP_AT * 512 + 19, "\xc0\x01", 2);
	holds("99+51 158+3 200+11 500+10 ");
	/* A block that the summary does not know holds nothing of its own. */
	put(SUMMARY_AT * 512, "\0", 1);
	holds("100+50 200+11 500+10 ");
	clear_record(0);

	/* over the boundaries of bitmap blocks, used or not */
	put_range(9, 32767, 2);
	holds("32767+2 ");
	put_range(9, 32768, 32768);
	holds("32768+32768 ");
	put(SUMMARY_AT * 512, "\x02", 1);
	put_range(9, 1, 99998);
	holds("1+99998 ");

	/* the edges of the disk */
	put_range(9, 0, 1);
	put_range(10, DISK - 1, 1);
	holds("0+1 99999+1 ");
	put_range(9, 0, DISK);
	holds("0+100000 ");

	/* all of 62 */
	for (i = 0; i < QC2_TIP_JOURNAL_RANGES; i++) {
		many[i] = RANGE(1000 * i, 1);
		len += sprintf(expected + len, "%u+1 ", 1000 * i);
	}
	put_record(9, own, QC2_TIP_JOURNAL_RANGES, many, QC2_TIP_JOURNAL_RANGES);
	clear_record(10);
	holds(expected);
}

static void test_replays_long_ranges(void **state)
{
	create(1 << 26);
	put_range(3, 5, QC2_TIP_RANGE_MAX);
	holds("5+16777215 ");
	put_range(4, (1 << 26) - QC2_TIP_RANGE_MAX, QC2_TIP_RANGE_MAX);
	holds("5+16777215 50331649+16777215 ");
}

/* Random bitmaps and journals beside a model with a byte for each sector. */
struct model {
	uint8_t want[DISK], got[DISK];
	uint64_t end;		/* of the last range */
};

static void add_to_model(void *arg, const struct qc2_tip_range *range)
{
	struct model *model = arg;

	/* sorted, joined, not empty */
	assert_true(range->nr_sectors > 0);
	assert_true(range->sector > model->end || !model->end);
	model->end = range->sector + range->nr_sectors;
	assert_true(model->end <= DISK);
	memset(model->got + range->sector, 1, range->nr_sectors);
}

static void test_replay_beside_a_model(void **state)
{
	static struct model model;
	const struct qc2_tip_visitor visitor = { .range = add_to_model, .arg = &model };
	uint64_t seed = 1, ranges[QC2_TIP_JOURNAL_RANGES];
	struct qc2_tip_info info;
	uint8_t bits[4 * 4096];
	unsigned int round, i, j;

	for (round = 0; round < 50; round++) {
		uint8_t used = test_random(&seed) % 16;
		uint64_t own, dirty = 0;
		unsigned int records = test_random(&seed) % 4;

		create(DISK);
		own = tip_id();
		memset(&model, 0, sizeof(model));
		memset(bits, 0, sizeof(bits));
		for (i = 0; i < 20; i++) {
			unsigned int from = test_random(&seed) % DISK;
			unsigned int nr = test_random(&seed) % (1 << test_random(&seed) % 14);

			for (j = from; j < from + nr && j < DISK; j++) {
				bits[j / 8] |= 1 << j % 8;
				if (used >> j / 32768 & 1)
					model.want[j] = 1;
			}
		}
		put(SUMMARY_AT * 512, &used, 1);
		put(BITMAP_AT * 512, bits, sizeof(bits));
		for (i = 0; i < records; i++) {
			unsigned int n = 1 + test_random(&seed) % QC2_TIP_JOURNAL_RANGES;

			for (j = 0; j < n; j++) {
				unsigned int from = test_random(&seed) % DISK;
				unsigned int nr = 1 + test_random(&seed) %
						  (1 << test_random(&seed) % 14);

				if (nr > DISK - from)
					nr = DISK - from;
				ranges[j] = RANGE(from, nr);
				memset(model.want + from, 1, nr);
			}
			put_record(test_random(&seed) % JOURNAL, own, n, ranges, n);
		}
		for (i = 0; i < DISK; i++)
			dirty += model.want[i];
		visit(&visitor, &info);
		assert_memory_equal(model.got, model.want, DISK);
		assert_int_equal(info.dirty_sectors, dirty);
		unlink(path);
	}
}

static void test_bad_ranges(void **state)
{
	static const struct {
		uint64_t range;
		const char *text;
	} bad[] = {
		{ 0, "names 0 sectors from 0 on" },
		{ RANGE(5, 0), "names 0 sectors from 5 on" },
		{ RANGE(DISK, 0), "names 0 sectors" },
		{ RANGE(DISK, 1), "names 1 sectors from 100000 on" },
		{ RANGE(DISK - 1, 2), "names 2 sectors from 99999 on" },
		{ RANGE(0, DISK + 1), "names 100001 sectors from 0 on" },
		{ RANGE(0, QC2_TIP_RANGE_MAX), "names 16777215 sectors from 0 on" },
		{ RANGE(LAST_SECTOR, 1), "from 1099511627775 on" },
		{ RANGE(LAST_SECTOR, QC2_TIP_RANGE_MAX), "names 16777215 sectors from 1099511627775" },
		{ RANGE(1ULL << 39, 1), "damaged" },
	};
	static const uint32_t counts[] = { 0, 63, 64, 1 << 16, 1U << 31, UINT32_MAX };
	static const uint64_t places[] = { 0, JOURNAL / 2, JOURNAL - 1 };
	uint64_t own, ranges[QC2_TIP_JOURNAL_RANGES];
	size_t i, j;

	create(DISK);
	own = tip_id();
	for (i = 0; i < QC2_TIP_JOURNAL_RANGES; i++)
		ranges[i] = RANGE(i, 1);
	for (j = 0; j < sizeof(places) / sizeof(places[0]); j++) {
		char place[32];

		snprintf(place, sizeof(place), "sector %llu,",
			 (unsigned long long)(JOURNAL_AT + places[j]));
		for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
			put_record(places[j], own, 1, &bad[i].range, 1);
			check_refused(bad[i].text);
			check_refused(place);
			/* the last of 62, the others good */
			ranges[61] = bad[i].range;
			put_record(places[j], own, 62, ranges, 62);
			check_refused(bad[i].text);
			/* not one of the 61 */
			put_record(places[j], own, 61, ranges, 62);
			holds("0+61 ");
			/* nobody's promise: another tip's, or torn */
			put_record(places[j], own + 1, 62, ranges, 62);
			holds("");
			put_record(places[j], own, 62, ranges, 62);
			put((JOURNAL_AT + places[j]) * 512 + 100, "torn", 4);
			holds("");
		}
		for (i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
			put_record(places[j], own, counts[i], ranges, 61);
			check_refused("ranges; 1 to 62");
			check_refused(place);
		}
		clear_record(places[j]);
	}
}

static void test_stale_and_broken_sectors(void **state)
{
	const struct qc2_tip_visitor visitor = {
		.journal = add_record, .range = add_found, .arg = found,
	};
	uint64_t own, ranges[] = { RANGE(10, 1), RANGE(20, 2) };
	struct qc2_tip_journal record;
	struct qc2_tip_info info;
	uint8_t noise[512];

	create(DISK);
	own = tip_id();
	/* of an older tip; ids that differ in one bit; none */
	put_record(0, ~own, 2, ranges, 2);
	put_record(1, own ^ 1, 2, ranges, 2);
	put_record(2, own ^ 1ULL << 63, 2, ranges, 2);
	put_record(3, 0, 2, ranges, 2);
	/* ours; broken: noise, ones, cut off in the middle, a wrong checksum */
	put_record(8, own, 2, ranges, 2);
	memset(noise, 0x5a, sizeof(noise));
	put((JOURNAL_AT + 9) * 512, noise, sizeof(noise));
	memset(noise, 0xff, sizeof(noise));
	put((JOURNAL_AT + 10) * 512, noise, sizeof(noise));
	put_record(11, own, 1, (uint64_t[]){ RANGE(30, 3) }, 1);
	get((JOURNAL_AT + 11) * 512, &record, sizeof(record));
	put((JOURNAL_AT + 12) * 512, &record, 16);
	record.checksum ^= htole32(1);
	put((JOURNAL_AT + JOURNAL - 1) * 512, &record, sizeof(record));

	visit(&visitor, &info);
	assert_string_equal(found,
			    "144o/ 145o/ 146o/ 147o/ 152v10+1 20+2 / 153B/ 154B/ 155v30+3 / 156B/ "
			    "2191B/ 10+1 20+2 30+3 ");
	assert_int_equal(info.journal[QC2_TIP_JOURNAL_VALID], 2);
	assert_int_equal(info.journal[QC2_TIP_JOURNAL_OTHER], 4);
	assert_int_equal(info.journal[QC2_TIP_JOURNAL_BROKEN], 4);
	assert_int_equal(info.journal[QC2_TIP_JOURNAL_EMPTY], JOURNAL - 10);
	assert_int_equal(info.journal_ranges, 3);
	assert_int_equal(info.dirty_sectors, 6);
}

/* Every bit of a journal sector is covered by its checksum. */
static void test_every_bit_of_the_journal_counts(void **state)
{
	struct qc2_tip_journal record;
	uint8_t *bytes = (uint8_t *)&record;
	struct qc2_tip_info info;

	create_with(DISK, QC2_TIP_JOURNAL_ALIGN);
	put_range(5, 40, 2);
	get((JOURNAL_AT + 5) * 512, &record, sizeof(record));
	for (unsigned int bit = 0; bit < 8 * sizeof(record); bit++) {
		bytes[bit / 8] ^= 1 << bit % 8;
		put((JOURNAL_AT + 5) * 512, &record, sizeof(record));
		checks(&info);
		assert_int_equal(info.journal[QC2_TIP_JOURNAL_BROKEN], 1);
		assert_int_equal(info.dirty_sectors, 0);
		bytes[bit / 8] ^= 1 << bit % 8;
	}
	put((JOURNAL_AT + 5) * 512, &record, sizeof(record));
	holds("40+2 ");
}

/* The bitmap is checked as without a journal. */
static void test_replay_hides_no_damage(void **state)
{
	create(DISK);
	put_range(0, 98304, DISK - 98304);
	put(SUMMARY_AT * 512, "\x08", 1);
	holds("98304+1696 ");
	put((BITMAP_AT + 24) * 512 + 212, "\x01", 1);
	check_refused("block 3 of the tip's bitmap");
}

/* A loop device over the file; -1 if this machine does not let us. */
static int loop_setup(char *name, size_t size)
{
	int ctl = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
	int nr, loop, file;

	if (ctl < 0)
		return -1;
	nr = ioctl(ctl, LOOP_CTL_GET_FREE);
	close(ctl);
	if (nr < 0)
		return -1;
	snprintf(name, size, "/dev/loop%d", nr);
	loop = open(name, O_RDWR | O_CLOEXEC);
	file = open(path, O_RDWR | O_CLOEXEC);
	if (loop < 0 || file < 0 || ioctl(loop, LOOP_SET_FD, file)) {
		close(loop);
		close(file);
		return -1;
	}
	close(file);
	return loop;
}

static void test_block_device(void **state)
{
	static const uint64_t size = (DATA_AT + DISK) * 512;
	struct qc2_tip_info info;
	static uint8_t dirt[(BITMAP_AT + 32 - SUMMARY_AT) * 512];
	struct qc2_err err;
	char name[32];
	int loop, ret;

	close(open(path, O_CREAT | O_WRONLY, 0600));
	assert_int_equal(truncate(path, size), 0);
	loop = loop_setup(name, sizeof(name));
	if (loop < 0) {
		print_message("no loop device to be had: needs root\n");
		skip();
	}
	/* What stood on the device before must not become dirty bits. */
	memset(dirt, 0xff, sizeof(dirt));
	assert_int_equal(pwrite(loop, dirt, sizeof(dirt), SUMMARY_AT * 512),
			 sizeof(dirt));
	ret = qc2_tip_create(name, id, DISK, JOURNAL, 0, &err);
	if (!ret)
		ret = qc2_tip_check(name, NULL, &info, &err);
	if (ret)
		goto out;
	if (info.dirty_sectors || info.journal[QC2_TIP_JOURNAL_EMPTY] != JOURNAL) {
		ret = qc2_fail(&err, EINVAL, "old bits or an old journal count");
		goto out;
	}
	/* What the kernel writes passes by the page cache of the device. */
	ret = qc2_tip_open(name, &info, &err);
	if (ret)
		goto out;
	put_record(JOURNAL - 1, info.tip_id, 1, (uint64_t[]){ RANGE(5, 3) }, 1);
	ret = qc2_tip_check(name, NULL, &info, &err);
	if (!ret && info.dirty_sectors != 3)
		ret = qc2_fail(&err, EINVAL, "old content of the device is seen");
	if (ret)
		goto out;
	/* Not over another tip, unless forced to. */
	if (qc2_tip_create(name, id, DISK, JOURNAL, 0, &err) != -EEXIST ||
	    qc2_tip_create(name, id, DISK - 9, JOURNAL, 1, &err) ||
	    qc2_tip_check(name, NULL, &info, &err) || info.nr_sectors != DISK - 9 ||
	    info.dirty_sectors || info.journal[QC2_TIP_JOURNAL_EMPTY] != JOURNAL)
		ret = qc2_fail(&err, EINVAL, "force");
	else if (qc2_tip_create(name, id, DISK + 1, JOURNAL, 1, &err) != -ENOSPC)
		ret = qc2_fail(&err, EINVAL, "a device that is too small");
	else if (qc2_tip_open(name, &info, &err))
		ret = qc2_fail(&err, EINVAL, "gone after a failed attempt");
out:
	ioctl(loop, LOOP_CLR_FD, 0);
	close(loop);
	assert_ok(ret, err);
}

int main(void)
{
#define T(f) cmocka_unit_test_teardown(f, remove_tip)
	const struct CMUnitTest tests[] = {
		T(test_layout_on_disk),
		T(test_without_a_journal),
		T(test_journal_sizes),
		T(test_tips_have_their_own_id),
		T(test_sizes),
		T(test_bad_calls),
		T(test_an_existing_file_is_kept),
		T(test_one_damaged_copy),
		T(test_the_newer_copy_counts),
		T(test_not_a_tip),
		T(test_every_bit_counts),
		T(test_versions_and_features),
		T(test_bad_areas),
		T(test_bad_journals),
		T(test_truncated),
		T(test_counts_dirty_sectors),
		T(test_bits_behind_the_end),
		T(test_bitmap_ranges),
		T(test_replays_every_sector),
		T(test_replays_the_longest_journal),
		T(test_replay_joins),
		T(test_replays_long_ranges),
		T(test_replay_beside_a_model),
		T(test_bad_ranges),
		T(test_stale_and_broken_sectors),
		T(test_every_bit_of_the_journal_counts),
		T(test_replay_hides_no_damage),
		T(test_block_device),
	};

	return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
