/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Tips on the command line: tip create, tip check, tip dump, and what start and
 * stop need to take a tip alone and to throw one away.
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

#define TIP_ID_FMT	"%016" PRIx64

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

static json_t *describe_journal(const struct qc2_tip_info *info)
{
	char id[17];

	if (!info->journal_sectors)
		return json_null();
	snprintf(id, sizeof(id), TIP_ID_FMT, info->tip_id);
	return json_pack("{s:I, s:I, s:s, s:I, s:{s:I, s:I, s:I, s:I}}",
			 "offset", (json_int_t)(info->journal_start * SECTOR_SIZE),
			 "bytes", (json_int_t)(info->journal_sectors * SECTOR_SIZE),
			 "tip_id", id,
			 "ranges", (json_int_t)info->journal_ranges,
			 "sectors",
			 "valid", (json_int_t)info->journal[QC2_TIP_JOURNAL_VALID],
			 "other_tip", (json_int_t)info->journal[QC2_TIP_JOURNAL_OTHER],
			 "damaged", (json_int_t)info->journal[QC2_TIP_JOURNAL_BROKEN],
			 "empty", (json_int_t)info->journal[QC2_TIP_JOURNAL_EMPTY]);
}

static json_t *describe(const char *path, const struct qc2_tip_info *info)
{
	char id[CHAIN_ID_HEX_LEN + 1], incompat[32], compat[32];

	out_chain_id(id, info->chain_id);
	snprintf(incompat, sizeof(incompat), "0x%" PRIx64, info->incompat);
	snprintf(compat, sizeof(compat), "0x%" PRIx64, info->compat);
	return json_pack("{s:i, s:s, s:i, s:I, s:s, s:s, s:i, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:o}",
			 "schema", 1,
			 "path", path,
			 "version", QC2_TIP_VERSION,
			 "seq", (json_int_t)info->seq,
			 "incompat", incompat,
			 "compat", compat,
			 "superblock_copies", info->good_copies,
			 "chain_id", id,
			 "size", (json_int_t)(info->nr_sectors * SECTOR_SIZE),
			 "dirty_bytes", (json_int_t)(info->dirty_sectors * SECTOR_SIZE),
			 "summary_offset", (json_int_t)(info->summary_start * SECTOR_SIZE),
			 "bitmap_offset", (json_int_t)(info->bitmap_start * SECTOR_SIZE),
			 "data_offset", (json_int_t)(info->data_start * SECTOR_SIZE),
			 "device_bytes", (json_int_t)(qc2_tip_device_sectors(info) * SECTOR_SIZE),
			 "journal", describe_journal(info));
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
	printf(": tip of chain %s, %s, %s written, %s journal", id,
	       out_size(size, info.nr_sectors * SECTOR_SIZE),
	       out_size(dirty, info.dirty_sectors * SECTOR_SIZE),
	       info.journal_sectors ? "with a" : "without a");
	if (info.journal_sectors)
		printf(" of %s: %" PRIu64 " ranges in %" PRIu64 " sectors",
		       out_size(size, info.journal_sectors * SECTOR_SIZE), info.journal_ranges,
		       info.journal[QC2_TIP_JOURNAL_VALID]);
	printf("\n");
	if (info.good_copies < 2)
		printf("note: one of the two copies of the superblock is damaged\n");
	if (info.journal[QC2_TIP_JOURNAL_BROKEN])
		printf("note: journal sectors with a wrong checksum: %" PRIu64 "; writing them was interrupted before a flush had completed, or they are damaged\n",
		       info.journal[QC2_TIP_JOURNAL_BROKEN]);
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

/* A dump is printed as it is read: a tip may hold more ranges than memory does. */
struct dump {
	bool json;
	const char *array;	/* JSON: the one that is being written, or NULL */
	bool more;		/* JSON: it has an element already */
};

static const char journal_array[] = "journal_sectors", range_array[] = "ranges";

/* Makes @array the one that is written; NULL: none, it was the last. */
static void dump_array(struct dump *dump, const char *array)
{
	if (!dump->json || array == dump->array)
		return;
	if (dump->array)
		printf("%s]", dump->more ? "\n  " : "");
	if (array)
		printf(",\n  \"%s\": [", array);
	dump->array = array;
	dump->more = false;
}

static void dump_range(struct dump *dump, const struct qc2_tip_range *range, const char *indent)
{
	if (dump->json)
		printf("%s\n%s{\"offset\": %llu, \"bytes\": %llu}", dump->more ? "," : "", indent,
		       range->sector * SECTOR_SIZE, range->nr_sectors * SECTOR_SIZE);
	else
		printf("%s%" PRIu64 " %" PRIu64 "\n", indent, range->sector, range->nr_sectors);
	dump->more = true;
}

static void dump_dirty(void *arg, const struct qc2_tip_range *range)
{
	struct dump *dump = arg;

	dump_array(dump, range_array);
	dump_range(dump, range, dump->json ? "    " : "");
}

static void dump_journal(void *arg, uint64_t sector, enum qc2_tip_journal_state state,
			 const struct qc2_tip_range *ranges, unsigned int nr)
{
	static const char *const names[] = {
		[QC2_TIP_JOURNAL_VALID] = "valid",
		[QC2_TIP_JOURNAL_OTHER] = "other_tip",
		[QC2_TIP_JOURNAL_BROKEN] = "damaged",
	};
	struct dump *dump = arg;

	if (dump->json)
		printf("%s\n    {\"offset\": %llu, \"state\": \"%s\", \"ranges\": [",
		       dump->more ? "," : "", sector * SECTOR_SIZE, names[state]);
	else
		printf("# journal sector %" PRIu64 ": %s, %u ranges\n", sector, names[state], nr);
	dump->more = false;
	for (unsigned int i = 0; i < nr; i++)
		dump_range(dump, &ranges[i], dump->json ? "      " : "#   ");
	if (dump->json)
		printf("%s]}", nr ? "\n    " : "");
	dump->more = true;
}

/* Everything but the ranges; they are lines of their own without the "#". */
static void dump_head(const char *path, const struct qc2_tip_info *info)
{
	char id[CHAIN_ID_HEX_LEN + 1];

	out_chain_id(id, info->chain_id);
	printf("# ");
	out_text(stdout, path);
	printf("\n# version %d\n# seq %" PRIu64 "\n# incompat 0x%" PRIx64 "%s\n# compat 0x%" PRIx64
	       "\n# chain_id %s\n# nr_sectors %" PRIu64 "\n# summary_start %" PRIu64 "\n",
	       QC2_TIP_VERSION, info->seq, info->incompat,
	       info->journal_sectors ? " (journal)" : "", info->compat, id, info->nr_sectors,
	       info->summary_start);
	if (info->journal_sectors)
		printf("# journal_start %" PRIu64 "\n# journal_sectors %" PRIu64
		       "\n# tip_id " TIP_ID_FMT "\n",
		       info->journal_start, info->journal_sectors, info->tip_id);
	printf("# bitmap_start %" PRIu64 "\n# data_start %" PRIu64
	       "\n# superblock: %u good copies\n",
	       info->bitmap_start, info->data_start, info->good_copies);
	if (info->journal_sectors)
		printf("# journal: %" PRIu64 " ranges; %" PRIu64 " sectors valid, %" PRIu64
		       " of another tip, %" PRIu64 " damaged, %" PRIu64 " empty\n",
		       info->journal_ranges, info->journal[QC2_TIP_JOURNAL_VALID],
		       info->journal[QC2_TIP_JOURNAL_OTHER],
		       info->journal[QC2_TIP_JOURNAL_BROKEN],
		       info->journal[QC2_TIP_JOURNAL_EMPTY]);
	printf("# in the tip: %" PRIu64 " sectors\n", info->dirty_sectors);
}

int tip_dump(struct ctl *ctl, struct qc2_err *err)
{
	const char *path = ctl->arg[0];
	struct dump dump = { .json = ctl->json };
	const struct qc2_tip_visitor visitor = {
		.journal = ctl->journal ? dump_journal : NULL,
		.range = dump_dirty,
		.arg = &dump,
	};
	struct qc2_tip_info info;
	char *head = NULL;
	json_t *doc;
	int ret;

	/* Damage is found before anything is printed. */
	ret = tip_errno(qc2_tip_check(path, NULL, &info, err));
	if (ret)
		return ret;
	if (!ctl->json) {
		dump_head(path, &info);
		return tip_errno(qc2_tip_check(path, &visitor, &info, err));
	}

	doc = describe(path, &info);
	if (doc)
		head = json_dumps(doc, JSON_INDENT(2));
	json_decref(doc);
	if (!head)
		return out_json(NULL, err);
	/* The arrays go before the "\n}" at its end. */
	printf("%.*s", (int)strlen(head) - 2, head);
	free(head);
	if (ctl->journal)
		dump_array(&dump, journal_array);
	ret = tip_errno(qc2_tip_check(path, &visitor, &info, err));
	dump_array(&dump, range_array);
	dump_array(&dump, NULL);
	printf("\n}\n");
	return ret;
}
