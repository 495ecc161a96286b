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

static void create(uint64_t nr_sectors)
{
	struct qc2_err err;

	assert_ok(qc2_tip_create(path, id, nr_sectors, 0, &err), err);
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

static void refused(int errnum, const char *text)
{
	struct qc2_tip_info info;
	struct qc2_err err = { "" };

	assert_int_equal(qc2_tip_open(path, &info, &err), -errnum);
	assert_in(err.msg, path);
	assert_in(err.msg, text);
	assert_int_equal(qc2_tip_check(path, &info, &err), -errnum);
}

static void check_refused(const char *text)
{
	struct qc2_tip_info info;
	struct qc2_err err = { "" };

	opens(&info);
	assert_int_equal(qc2_tip_check(path, &info, &err), -EINVAL);
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
	assert_int_equal(le64toh(sb.bitmap_start), 144);
	assert_int_equal(le64toh(sb.data_start), 2048);
	assert_int_equal(sb.incompat, 0);
	assert_int_equal(sb.compat, 0);
	sum = le32toh(sb.checksum);
	sb.checksum = 0;
	assert_int_equal(sum, qc2_crc32c(0, &sb, sizeof(sb)));

	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_size, (2048 + DISK) * 512);
	assert_int_equal(st.st_mode & 0777, 0600);
	/* sparse */
	assert_true(st.st_blocks * 512 < 1 << 20);

	opens(&info);
	assert_memory_equal(info.chain_id, id, sizeof(id));
	assert_int_equal(info.nr_sectors, DISK);
	assert_int_equal(info.summary_start, 136);
	assert_int_equal(info.bitmap_start, 144);
	assert_int_equal(info.data_start, 2048);
	assert_int_equal(info.dirty_sectors, 0);
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
		uint64_t need = qc2_tip_device_sectors(sizes[i]);
		int ret = qc2_tip_create(path, id, sizes[i], 0, &err);

		/* Not every file system has files of 64 TiB. */
		if (ret == -EFBIG) {
			assert_in(err.msg, path);
			print_message("no file of %llu sectors here\n",
				      (unsigned long long)need);
			assert_int_equal(access(path, F_OK), -1);
			continue;
		}
		assert_ok(ret, err);
		assert_ok(qc2_tip_check(path, &info, &err), err);
		assert_int_equal(info.nr_sectors, sizes[i]);
		assert_true(info.bitmap_start - info.summary_start >=
			    8 * ((blocks + 32767) / 32768));
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

	assert_int_equal(qc2_tip_create(path, id, 0, 0, &err), -EINVAL);
	assert_int_equal(qc2_tip_create(path, id, QC2_TIP_MAX_SECTORS + 1, 0,
					&err), -EINVAL);
	assert_int_equal(access(path, F_OK), -1);

	assert_int_equal(qc2_tip_create(dir, id, DISK, 1, &err), -EISDIR);
	assert_in(err.msg, "directory");
	assert_int_equal(qc2_tip_open(dir, &info, &err), -EISDIR);
	assert_in(err.msg, "directory");
	assert_int_equal(qc2_tip_open(path, &info, &err), -ENOENT);
	assert_in(err.msg, path);
	snprintf(name, sizeof(name), "%s/no/tip", dir);
	assert_int_equal(qc2_tip_create(name, id, DISK, 0, &err), -ENOENT);
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
	assert_int_equal(qc2_tip_create(path, id, DISK, 0, &err), -EEXIST);
	assert_in(err.msg, "exists");
	assert_int_equal(qc2_tip_create(path, id, DISK, 1, &err), -EEXIST);
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
		put(copies[copy] + 60, "damage", 6);
		opens(&info);
		assert_int_equal(info.nr_sectors, DISK);
		assert_memory_equal(info.chain_id, id, sizeof(id));
		/* nothing at all there */
		memset(&sb, 0, sizeof(sb));
		put(copies[copy], &sb, sizeof(sb));
		opens(&info);
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

	create(DISK);
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

static void test_truncated(void **state)
{
	create(DISK);
	assert_int_equal(truncate(path, (2048 + DISK) * 512 - 512), 0);
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
	put(144 * 512, block, sizeof(block));		/* block 0 */
	put((144 + 8) * 512, block, sizeof(block));	/* block 1: unused */
	put((144 + 24) * 512, "\x05", 1);		/* block 3 */
	/* blocks 0 and 3 */
	put(136 * 512, "\x09", 1);
	assert_ok(qc2_tip_check(path, &info, &err), err);
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
	put(136 * 512, "\x08", 1);
	put((144 + 24) * 512 + 211, "\x80", 1);
	assert_ok(qc2_tip_check(path, &info, &err), err);
	assert_int_equal(info.dirty_sectors, 1);
	put((144 + 24) * 512 + 212, "\x01", 1);
	check_refused("block 3 of the tip's bitmap");
	put((144 + 24) * 512 + 212, "\0", 1);
	put((144 + 24) * 512 + 4095, "\x80", 1);
	check_refused("block 3 of the tip's bitmap");

	put(136 * 512, "\x10", 1);
	check_refused("summary");
	put(136 * 512, "\0", 1);
	put(136 * 512 + 4095, "\x80", 1);
	check_refused("summary");
	unlink(path);

	/* within a byte */
	create(5);
	put(136 * 512, "\x01", 1);
	put(144 * 512, "\x1f", 1);
	assert_ok(qc2_tip_check(path, &info, &err), err);
	assert_int_equal(info.dirty_sectors, 5);
	put(144 * 512, "\x20", 1);
	check_refused("block 0 of the tip's bitmap");
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
	static const uint64_t size = (2048 + DISK) * 512;
	struct qc2_tip_info info;
	uint8_t dirt[8192];
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
	assert_int_equal(pwrite(loop, dirt, sizeof(dirt), 136 * 512), 8192);
	ret = qc2_tip_create(name, id, DISK, 0, &err);
	if (!ret)
		ret = qc2_tip_check(name, &info, &err);
	if (ret)
		goto out;
	if (info.dirty_sectors) {
		ret = qc2_fail(&err, EINVAL, "old bits count");
		goto out;
	}
	/* Not over another tip, unless forced to. */
	if (qc2_tip_create(name, id, DISK, 0, &err) != -EEXIST ||
	    qc2_tip_create(name, id, DISK - 9, 1, &err) ||
	    qc2_tip_open(name, &info, &err) || info.nr_sectors != DISK - 9)
		ret = qc2_fail(&err, EINVAL, "force");
	else if (qc2_tip_create(name, id, DISK + 1, 1, &err) != -ENOSPC)
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
		T(test_sizes),
		T(test_bad_calls),
		T(test_an_existing_file_is_kept),
		T(test_one_damaged_copy),
		T(test_the_newer_copy_counts),
		T(test_not_a_tip),
		T(test_every_bit_counts),
		T(test_versions_and_features),
		T(test_bad_areas),
		T(test_truncated),
		T(test_counts_dirty_sectors),
		T(test_bits_behind_the_end),
		T(test_block_device),
	};

	return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
