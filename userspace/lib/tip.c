/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Making and checking tips.  Nothing is kept between calls.  A tip in use by
 * the kernel can be looked at; what is then seen is what was committed.
 */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <linux/fs.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "crc32c.h"
#include "tip.h"

/* The summary follows the second superblock. */
#define SUMMARY_START	(QC2_TIP_SB1_SECTOR + QC2_TIP_BLOCK_SECTORS)

/* Bitmap blocks that one read brings. */
#define READ_BLOCKS	256

_Static_assert(sizeof(struct qc2_tip_super) == QC2_TIP_BLOCK_SIZE,
	       "a superblock is one block");

static uint64_t div_up(uint64_t n, uint64_t d)
{
	return (n + d - 1) / d;
}

static uint64_t bitmap_blocks(uint64_t nr_sectors)
{
	return div_up(nr_sectors, QC2_TIP_BLOCK_BITS);
}

static uint64_t summary_blocks(uint64_t nr_sectors)
{
	return div_up(bitmap_blocks(nr_sectors), QC2_TIP_BLOCK_BITS);
}

static void make_layout(struct qc2_tip_info *info, uint64_t nr_sectors)
{
	uint64_t end;

	info->nr_sectors = nr_sectors;
	info->summary_start = SUMMARY_START;
	info->bitmap_start = SUMMARY_START +
		summary_blocks(nr_sectors) * QC2_TIP_BLOCK_SECTORS;
	end = info->bitmap_start +
	      bitmap_blocks(nr_sectors) * QC2_TIP_BLOCK_SECTORS;
	info->data_start = div_up(end, QC2_TIP_DATA_ALIGN) * QC2_TIP_DATA_ALIGN;
}

uint64_t qc2_tip_device_sectors(uint64_t nr_sectors)
{
	struct qc2_tip_info info;

	make_layout(&info, nr_sectors);
	return info.data_start +
	       div_up(nr_sectors, QC2_TIP_BLOCK_SECTORS) * QC2_TIP_BLOCK_SECTORS;
}

static int read_at(int fd, const char *path, void *buf, size_t len,
		   uint64_t offset, struct qc2_err *err)
{
	char *p = buf;

	while (len) {
		ssize_t n = pread(fd, p, len, offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return qc2_fail(err, n ? errno : EIO,
				"%s: reading at offset %" PRIu64 ": %s", path,
				offset, n ? strerror(errno) : "end of file");
		p += n;
		offset += n;
		len -= n;
	}
	return 0;
}

static int write_at(int fd, const char *path, const void *buf, size_t len,
		    uint64_t offset, struct qc2_err *err)
{
	const char *p = buf;

	while (len) {
		ssize_t n = pwrite(fd, p, len, offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return qc2_fail(err, n ? errno : EIO,
				"%s: writing at offset %" PRIu64 ": %s", path,
				offset, n ? strerror(errno) : "nothing written");
		p += n;
		offset += n;
		len -= n;
	}
	return 0;
}

/* Size of an open tip in sectors; refuses what can be none. */
static int tip_size(int fd, const char *path, bool *block, uint64_t *sectors,
		    struct qc2_err *err)
{
	struct stat st;
	uint64_t bytes;

	if (fstat(fd, &st))
		return qc2_fail(err, errno, "%s: %s", path, strerror(errno));
	*block = S_ISBLK(st.st_mode);
	if (S_ISDIR(st.st_mode))
		return qc2_fail(err, EISDIR,
			"%s: a directory; a tip is a file or a block device",
			path);
	if (!*block && !S_ISREG(st.st_mode))
		return qc2_fail(err, EINVAL,
			"%s: neither a regular file nor a block device", path);
	bytes = st.st_size;
	if (*block && ioctl(fd, BLKGETSIZE64, &bytes))
		return qc2_fail(err, errno, "%s: size unknown: %s", path,
				strerror(errno));
	*sectors = bytes / 512;
	return 0;
}

static uint32_t super_checksum(const struct qc2_tip_super *sb)
{
	struct qc2_tip_super copy = *sb;

	copy.checksum = 0;
	return qc2_crc32c(0, &copy, sizeof(copy));
}

static bool has_magic(const struct qc2_tip_super *sb)
{
	return !memcmp(sb->magic, QC2_TIP_MAGIC, QC2_TIP_MAGIC_LEN);
}

static int check_super(const char *path, const struct qc2_tip_super *sb,
		       uint64_t device_sectors, struct qc2_tip_info *info,
		       struct qc2_err *err)
{
	struct qc2_tip_info want;

	if (le32toh(sb->version) > QC2_TIP_VERSION || !sb->version)
		return qc2_fail(err, EOPNOTSUPP,
			"%s: a tip of format version %" PRIu32 "; this program knows version %d",
			path, le32toh(sb->version), QC2_TIP_VERSION);
	if (sb->incompat)
		return qc2_fail(err, EOPNOTSUPP,
			"%s: the tip needs features that this program does not know: 0x%" PRIx64,
			path, le64toh(sb->incompat));
	memcpy(info->chain_id, sb->chain_id, sizeof(info->chain_id));
	info->nr_sectors = le64toh(sb->nr_sectors);
	info->summary_start = le64toh(sb->summary_start);
	info->bitmap_start = le64toh(sb->bitmap_start);
	info->data_start = le64toh(sb->data_start);
	info->dirty_sectors = 0;
	if (!info->nr_sectors || info->nr_sectors > QC2_TIP_MAX_SECTORS)
		return qc2_fail(err, EINVAL,
			"%s: damaged: the tip's superblock says %" PRIu64 " sectors; 1 to %llu are possible",
			path, info->nr_sectors, QC2_TIP_MAX_SECTORS);

	/*
	 * Areas come in this order; each start leaves room for what is before
	 * it.  The limits keep the sums far from overflow.
	 */
	make_layout(&want, info->nr_sectors);
	if (info->summary_start < SUMMARY_START ||
	    info->summary_start > QC2_TIP_MAX_SECTORS ||
	    info->bitmap_start > QC2_TIP_MAX_SECTORS ||
	    info->data_start > QC2_TIP_MAX_SECTORS ||
	    info->summary_start % QC2_TIP_BLOCK_SECTORS ||
	    info->bitmap_start % QC2_TIP_BLOCK_SECTORS ||
	    info->data_start % QC2_TIP_DATA_ALIGN ||
	    info->bitmap_start < info->summary_start +
	    summary_blocks(info->nr_sectors) * QC2_TIP_BLOCK_SECTORS ||
	    info->data_start < info->bitmap_start +
	    bitmap_blocks(info->nr_sectors) * QC2_TIP_BLOCK_SECTORS)
		return qc2_fail(err, EINVAL,
			"%s: damaged: the areas of the tip overlap or are misaligned (summary at sector %" PRIu64 ", bitmap %" PRIu64 ", data %" PRIu64 "; the usual places are %" PRIu64 ", %" PRIu64 ", %" PRIu64 ")",
			path, info->summary_start, info->bitmap_start,
			info->data_start, want.summary_start,
			want.bitmap_start, want.data_start);
	if (device_sectors < info->data_start + info->nr_sectors)
		return qc2_fail(err, EINVAL,
			"%s: truncated: has %" PRIu64 " sectors, and its superblock says that it needs %" PRIu64,
			path, device_sectors,
			info->data_start + info->nr_sectors);
	return 0;
}

static int read_super(int fd, const char *path, uint64_t device_sectors,
		      struct qc2_tip_info *info, struct qc2_err *err)
{
	static const uint64_t places[] = { QC2_TIP_SB0_SECTOR,
					   QC2_TIP_SB1_SECTOR };
	struct qc2_tip_super sb, best = { 0 };
	bool magic = false, valid = false;
	uint32_t version = 0;
	size_t i;
	int ret = 0;

	for (i = 0; i < 2; i++) {
		int r;

		/* A file cut within its metadata can still have copy 0. */
		if (places[i] + QC2_TIP_BLOCK_SECTORS > device_sectors)
			break;
		/* One unreadable copy is what the other one is for. */
		r = read_at(fd, path, &sb, sizeof(sb), places[i] * 512, err);
		if (r) {
			ret = r;
			continue;
		}
		if (!has_magic(&sb))
			continue;
		magic = true;
		version = le32toh(sb.version);
		if (super_checksum(&sb) != le32toh(sb.checksum))
			continue;
		if (!valid || le64toh(sb.seq) > le64toh(best.seq))
			best = sb;
		valid = true;
	}
	if (!valid && ret)
		return ret;
	if (!magic)
		return qc2_fail(err, EINVAL,
			"%s: not a tip (no superblock)", path);
	if (!valid && version > QC2_TIP_VERSION)
		return qc2_fail(err, EOPNOTSUPP,
			"%s: a damaged tip, or one of format version %" PRIu32 "; this program knows version %d",
			path, version, QC2_TIP_VERSION);
	if (!valid)
		return qc2_fail(err, EINVAL,
			"%s: damaged: both copies of the tip's superblock have wrong checksums",
			path);
	return check_super(path, &best, device_sectors, info, err);
}

static int open_tip(const char *path, struct qc2_tip_info *info, int *fdp,
		    struct qc2_err *err)
{
	uint64_t sectors;
	bool block;
	int fd, ret;

	/* O_NONBLOCK: a FIFO is refused, not waited for. */
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return qc2_fail(err, errno, "%s: %s", path, strerror(errno));
	ret = tip_size(fd, path, &block, &sectors, err);
	if (!ret)
		ret = read_super(fd, path, sectors, info, err);
	if (ret)
		close(fd);
	else
		*fdp = fd;
	return ret;
}

int qc2_tip_open(const char *path, struct qc2_tip_info *info,
		 struct qc2_err *err)
{
	int fd, ret = open_tip(path, info, &fd, err);

	if (!ret)
		close(fd);
	return ret;
}

static bool get_bit(const uint8_t *bits, uint64_t n)
{
	return bits[n / 8] >> (n % 8) & 1;
}

/* Whether any bit from @from on is set in @len bytes. */
static bool bits_after(const uint8_t *bits, uint64_t from, size_t len)
{
	if (from % 8 && bits[from / 8] >> (from % 8))
		return true;
	for (from = div_up(from, 8); from < len; from++)
		if (bits[from])
			return true;
	return false;
}

static int count_block(const char *path, struct qc2_tip_info *info,
		       uint64_t block, const uint8_t *bits,
		       struct qc2_err *err)
{
	uint64_t left = info->nr_sectors - block * QC2_TIP_BLOCK_BITS, word;
	size_t i;

	if (left < QC2_TIP_BLOCK_BITS &&
	    bits_after(bits, left, QC2_TIP_BLOCK_SIZE))
		return qc2_fail(err, EINVAL,
			"%s: damaged: block %" PRIu64 " of the tip's bitmap has bits behind the end of the disk (%" PRIu64 " sectors)",
			path, block, info->nr_sectors);
	for (i = 0; i < QC2_TIP_BLOCK_SIZE; i += sizeof(word)) {
		memcpy(&word, bits + i, sizeof(word));
		info->dirty_sectors += __builtin_popcountll(word);
	}
	return 0;
}

static int check_bitmap(int fd, const char *path, struct qc2_tip_info *info,
			struct qc2_err *err)
{
	uint64_t nr = bitmap_blocks(info->nr_sectors), block, run, i;
	size_t len = summary_blocks(info->nr_sectors) * QC2_TIP_BLOCK_SIZE;
	uint8_t *summary = malloc(len);
	uint8_t *buf = malloc(READ_BLOCKS * QC2_TIP_BLOCK_SIZE);
	int ret;

	if (!summary || !buf) {
		ret = qc2_fail(err, ENOMEM, "out of memory");
		goto out;
	}
	ret = read_at(fd, path, summary, len, info->summary_start * 512, err);
	if (ret)
		goto out;
	if (bits_after(summary, nr, len)) {
		ret = qc2_fail(err, EINVAL,
			"%s: damaged: the tip's summary has bits behind the %" PRIu64 " blocks of the bitmap",
			path, nr);
		goto out;
	}
	for (block = 0; block < nr && !ret; block += run) {
		for (run = 0; run < READ_BLOCKS && block + run < nr &&
		     get_bit(summary, block + run); run++)
			;
		if (!run) {
			run = 1;
			continue;
		}
		ret = read_at(fd, path, buf, run * QC2_TIP_BLOCK_SIZE,
			      (info->bitmap_start +
			       block * QC2_TIP_BLOCK_SECTORS) * 512, err);
		for (i = 0; i < run && !ret; i++)
			ret = count_block(path, info, block + i,
					  buf + i * QC2_TIP_BLOCK_SIZE, err);
	}
out:
	free(buf);
	free(summary);
	return ret;
}

int qc2_tip_check(const char *path, struct qc2_tip_info *info,
		  struct qc2_err *err)
{
	int fd, ret = open_tip(path, info, &fd, err);

	if (ret)
		return ret;
	ret = check_bitmap(fd, path, info, err);
	close(fd);
	return ret;
}

/* A superblock of any state is a reason not to write over a device. */
static int check_no_tip(int fd, const char *path, struct qc2_err *err)
{
	static const uint64_t places[] = { QC2_TIP_SB0_SECTOR,
					   QC2_TIP_SB1_SECTOR };
	struct qc2_tip_super sb;
	size_t i;
	int ret;

	for (i = 0; i < 2; i++) {
		ret = read_at(fd, path, &sb, sizeof(sb), places[i] * 512, err);
		if (ret)
			return ret;
		if (has_magic(&sb))
			return qc2_fail(err, EEXIST,
				"%s: already holds a tip, whose data would be lost",
				path);
	}
	return 0;
}

/* The summary first: a superblock never stands before an unclean one. */
static int write_tip(int fd, const char *path, bool block,
		     const struct qc2_tip_info *info, struct qc2_err *err)
{
	struct qc2_tip_super sb = {
		.version = htole32(QC2_TIP_VERSION),
		.seq = htole64(1),
		.nr_sectors = htole64(info->nr_sectors),
		.summary_start = htole64(info->summary_start),
		.bitmap_start = htole64(info->bitmap_start),
		.data_start = htole64(info->data_start),
	};
	static const uint8_t zeros[QC2_TIP_BLOCK_SIZE];
	uint64_t s;
	int ret = 0;

	memcpy(sb.magic, QC2_TIP_MAGIC, QC2_TIP_MAGIC_LEN);
	memcpy(sb.chain_id, info->chain_id, sizeof(sb.chain_id));
	sb.checksum = htole32(super_checksum(&sb));

	if (block) {
		/* An old superblock goes before what it describes does. */
		ret = write_at(fd, path, zeros, sizeof(zeros),
			       QC2_TIP_SB0_SECTOR * 512, err);
		if (!ret)
			ret = write_at(fd, path, zeros, sizeof(zeros),
				       QC2_TIP_SB1_SECTOR * 512, err);
		if (!ret && fsync(fd))
			goto sync_failed;
		for (s = info->summary_start; s < info->bitmap_start && !ret;
		     s += QC2_TIP_BLOCK_SECTORS)
			ret = write_at(fd, path, zeros, sizeof(zeros), s * 512,
				       err);
		if (!ret && fsync(fd))
			goto sync_failed;
	}
	if (!ret)
		ret = write_at(fd, path, &sb, sizeof(sb),
			       QC2_TIP_SB0_SECTOR * 512, err);
	if (!ret)
		ret = write_at(fd, path, &sb, sizeof(sb),
			       QC2_TIP_SB1_SECTOR * 512, err);
	if (!ret && fsync(fd))
		goto sync_failed;
	return ret;
sync_failed:
	return qc2_fail(err, errno, "%s: fsync: %s", path, strerror(errno));
}

static int sync_folder(const char *path, struct qc2_err *err)
{
	char *copy = strdup(path);
	int fd, ret = 0;

	if (!copy)
		return qc2_fail(err, ENOMEM, "out of memory");
	fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || fsync(fd))
		ret = qc2_fail(err, errno,
			"%s: its folder cannot be synced: %s", path,
			strerror(errno));
	if (fd >= 0)
		close(fd);
	free(copy);
	return ret;
}

static int create_file(const char *path, const struct qc2_tip_info *info,
		       struct qc2_err *err)
{
	int fd, ret;

	fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0 && errno == EEXIST)
		return qc2_fail(err, EEXIST,
			"%s: exists already; a new tip needs a name that is free",
			path);
	if (fd < 0)
		return qc2_fail(err, errno, "%s: cannot be made: %s", path,
				strerror(errno));
	if (ftruncate(fd, qc2_tip_device_sectors(info->nr_sectors) * 512))
		ret = qc2_fail(err, errno,
			"%s: cannot be made %" PRIu64 " bytes long: %s", path,
			qc2_tip_device_sectors(info->nr_sectors) * 512,
			strerror(errno));
	else
		ret = write_tip(fd, path, false, info, err);
	close(fd);
	if (!ret)
		ret = sync_folder(path, err);
	if (ret)
		unlink(path);
	return ret;
}

static int create_on_device(const char *path, const struct qc2_tip_info *info,
			    int force, struct qc2_err *err)
{
	uint64_t need = info->data_start + info->nr_sectors, sectors;
	bool block;
	int fd, ret;

	/* O_EXCL: not while it is mounted or part of another device. */
	fd = open(path, O_RDWR | O_EXCL | O_CLOEXEC);
	if (fd < 0)
		return qc2_fail(err, errno, "%s: %s", path, strerror(errno));
	ret = tip_size(fd, path, &block, &sectors, err);
	if (!ret && sectors < need)
		ret = qc2_fail(err, ENOSPC,
			"%s: has %" PRIu64 " sectors; a tip for %" PRIu64 " sectors needs %" PRIu64,
			path, sectors, info->nr_sectors, need);
	if (!ret && !force)
		ret = check_no_tip(fd, path, err);
	if (!ret)
		ret = write_tip(fd, path, true, info, err);
	close(fd);
	return ret;
}

int qc2_tip_create(const char *path, const uint8_t *chain_id,
		   uint64_t nr_sectors, int force, struct qc2_err *err)
{
	struct qc2_tip_info info = { 0 };
	struct stat st;

	if (!nr_sectors || nr_sectors > QC2_TIP_MAX_SECTORS)
		return qc2_fail(err, EINVAL,
			"%s: no tip can be made for a disk of %" PRIu64 " sectors",
			path, nr_sectors);
	make_layout(&info, nr_sectors);
	memcpy(info.chain_id, chain_id, sizeof(info.chain_id));
	if (stat(path, &st) == 0) {
		if (S_ISBLK(st.st_mode))
			return create_on_device(path, &info, force, err);
		if (S_ISDIR(st.st_mode))
			return qc2_fail(err, EISDIR,
				"%s: a directory; a tip is a file or a block device",
				path);
	}
	return create_file(path, &info, err);
}
