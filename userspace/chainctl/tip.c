/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Tips on the command line: tip create, tip check, and what start and stop
 * need to take a tip alone and to throw one away.
 *
 * Two guards keep a tip from being used twice.  A loop device over the file,
 * whoever made it, is looked for; and a lock on the open file description,
 * which the loop device inherits, covers the time before it is there.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <linux/fs.h>

#include "chainctl.h"
#include "loop.h"
#include "tip.h"

#define SECTOR_SIZE	512ULL

/* A loop device lets go of its file a little after it was detached. */
#define LOCK_TRIES	20
#define LOCK_RETRY_MS	50

static int lock_tip(int fd, const char *path, struct qc2_err *err)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

	for (int i = 0; fcntl(fd, F_OFD_SETLK, &lock); i++) {
		if (errno != EAGAIN && errno != EACCES)
			return qc2_fail(err, errno, "%s: cannot lock: %s", path, strerror(errno));
		if (i == LOCK_TRIES)
			return qc2_fail(err, EBUSY, "%s: in use by another program", path);
		poll(NULL, 0, LOCK_RETRY_MS);
	}
	return 0;
}

static int claim_device(const char *path, struct qc2_err *err)
{
	/* Mapped devices, mounts and md claim a device; so a claim tells. */
	int fd = open(path, O_RDONLY | O_EXCL | O_CLOEXEC);

	if (fd >= 0) {
		close(fd);
		return 0;
	}
	if (errno == EBUSY)
		return qc2_fail(err, EBUSY, "%s: in use (mounted, or part of another device)", path);
	return qc2_fail(err, errno, "%s: cannot open: %s", path, strerror(errno));
}

int tip_claim(const char *path, int *fd, bool *block_device, struct qc2_err *err)
{
	struct qc2_loop loop;
	struct stat st;
	int ret;

	*fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
	if (*fd < 0)
		return qc2_fail(err, errno, "%s: cannot open for writing: %s", path,
				strerror(errno));
	if (fstat(*fd, &st)) {
		ret = qc2_fail(err, errno, "%s: %s", path, strerror(errno));
		goto fail;
	}
	*block_device = S_ISBLK(st.st_mode);
	if (*block_device) {
		ret = claim_device(path, err);
	} else if (!S_ISREG(st.st_mode)) {
		ret = qc2_fail(err, EMEDIUMTYPE, "%s: neither a file nor a block device", path);
	} else if (qc2_loop_find(st.st_dev, st.st_ino, &loop)) {
		ret = qc2_fail(err, EBUSY, "%s: in use by the loop device %s", path, loop.path);
		qc2_loop_release(&loop);
	} else {
		ret = 0;
	}
	if (!ret)
		ret = lock_tip(*fd, path, err);
	if (!ret)
		return 0;
fail:
	close(*fd);
	*fd = -1;
	return ret;
}

/* What is no tip, or a damaged one, is told apart from a wrong argument. */
int tip_errno(int ret)
{
	return ret == -EINVAL || ret == -EISDIR ? -EUCLEAN : ret;
}

static bool has_magic(int fd, uint64_t sector)
{
	char magic[QC2_TIP_MAGIC_LEN];

	return pread(fd, magic, sizeof(magic), sector * SECTOR_SIZE) == sizeof(magic) &&
	       !memcmp(magic, QC2_TIP_MAGIC, QC2_TIP_MAGIC_LEN);
}

int tip_discard(const char *path, struct qc2_err *err)
{
	static const char zeros[QC2_TIP_BLOCK_SIZE];
	bool block_device;
	int fd, ret;

	ret = tip_claim(path, &fd, &block_device, err);
	if (ret)
		return ret;
	if (!has_magic(fd, QC2_TIP_SB0_SECTOR) && !has_magic(fd, QC2_TIP_SB1_SECTOR))
		ret = qc2_fail(err, EMEDIUMTYPE,
			       "%s: holds no tip (no superblock); it is left alone", path);
	else if (block_device &&
		 (pwrite(fd, zeros, sizeof(zeros), QC2_TIP_SB0_SECTOR * SECTOR_SIZE) !=
		  sizeof(zeros) ||
		  pwrite(fd, zeros, sizeof(zeros), QC2_TIP_SB1_SECTOR * SECTOR_SIZE) !=
		  sizeof(zeros) || fsync(fd)))
		ret = qc2_fail(err, errno, "%s: cannot wipe the superblocks: %s", path,
			       strerror(errno));
	else if (!block_device && unlink(path))
		ret = qc2_fail(err, errno, "%s: cannot delete: %s", path, strerror(errno));
	close(fd);
	return ret;
}

static json_t *describe(const char *path, const struct qc2_tip_info *info)
{
	char id[CHAIN_ID_HEX_LEN + 1];

	out_chain_id(id, info->chain_id);
	return json_pack("{s:i, s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I}",
			 "schema", 1,
			 "path", path,
			 "chain_id", id,
			 "size", (json_int_t)(info->nr_sectors * SECTOR_SIZE),
			 "dirty_bytes", (json_int_t)(info->dirty_sectors * SECTOR_SIZE),
			 "summary_offset", (json_int_t)(info->summary_start * SECTOR_SIZE),
			 "bitmap_offset", (json_int_t)(info->bitmap_start * SECTOR_SIZE),
			 "data_offset", (json_int_t)(info->data_start * SECTOR_SIZE),
			 "device_bytes", (json_int_t)(qc2_tip_device_sectors(info) * SECTOR_SIZE));
}

static int show(struct ctl *ctl, const char *path, struct qc2_err *err)
{
	char size[OUT_SIZE_LEN], dirty[OUT_SIZE_LEN], id[CHAIN_ID_HEX_LEN + 1];
	struct qc2_tip_info info;
	int ret;

	ret = tip_errno(qc2_tip_check(path, NULL, &info, err));
	if (ret)
		return ret;
	if (ctl->json)
		return out_json(describe(path, &info), err);
	out_chain_id(id, info.chain_id);
	out_text(stdout, path);
	printf(": tip of chain %s, %s, %s written\n", id,
	       out_size(size, info.nr_sectors * SECTOR_SIZE),
	       out_size(dirty, info.dirty_sectors * SECTOR_SIZE));
	return 0;
}

/* Refuses to write over what a device may still be needed for. */
static int device_is_blank(const char *path, struct qc2_err *err)
{
	static char buf[1 << 20];	/* file systems and tables announce themselves here */
	ssize_t len;
	int fd;

	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return qc2_fail(err, errno, "%s: cannot open: %s", path, strerror(errno));
	len = pread(fd, buf, sizeof(buf), 0);
	close(fd);
	if (len < 0)
		return qc2_fail(err, EIO, "%s: cannot read: %s", path, strerror(errno));
	for (ssize_t i = 0; i < len; i++)
		if (buf[i])
			return qc2_fail(err, EEXIST,
					"%s: not blank (byte %zd of the device is not 0); wipe it, or use --force to overwrite it",
					path, i);
	return 0;
}

int tip_create(struct ctl *ctl, struct qc2_err *err)
{
	const char *path = ctl->arg[0];
	uint8_t id[QC2_CHAIN_ID_LEN];
	struct stat st;
	int ret;

	if (parse_chain_id(ctl->chain_id, id))
		return qc2_fail(err, EBADARG, "--chain-id %s: expected %d hex digits",
				ctl->chain_id, CHAIN_ID_HEX_LEN);
	if (!ctl->size || ctl->size % SECTOR_SIZE || ctl->size / SECTOR_SIZE > QC2_TIP_MAX_SECTORS)
		return qc2_fail(err, EBADARG,
				"--size %" PRIu64 ": expected a multiple of 512, up to %llu",
				ctl->size, QC2_TIP_MAX_SECTORS * SECTOR_SIZE);
	if (ctl->journal_size % (QC2_TIP_JOURNAL_ALIGN * SECTOR_SIZE) ||
	    ctl->journal_size > QC2_TIP_JOURNAL_MAX * SECTOR_SIZE)
		return qc2_fail(err, EBADARG,
				"--journal-size %" PRIu64 ": expected 0 or a multiple of %llu, up to %llu",
				ctl->journal_size, QC2_TIP_JOURNAL_ALIGN * SECTOR_SIZE,
				QC2_TIP_JOURNAL_MAX * SECTOR_SIZE);
	if (!stat(path, &st) && S_ISBLK(st.st_mode)) {
		ret = claim_device(path, err);
		if (!ret && !ctl->force)
			ret = device_is_blank(path, err);
		if (ret)
			return ret;
	}
	ret = qc2_tip_create(path, id, ctl->size / SECTOR_SIZE, ctl->journal_size / SECTOR_SIZE,
			     ctl->force, err);
	if (ret)
		return ret;
	return show(ctl, path, err);
}

int tip_check(struct ctl *ctl, struct qc2_err *err)
{
	return show(ctl, ctl->arg[0], err);
}
