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
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "crc32c.h"
#include "tip.h"

/* The summary follows the second superblock. */
#define SUMMARY_START	(QC2_TIP_SB1_SECTOR + QC2_TIP_BLOCK_SECTORS)

/* Bitmap blocks that one read brings. */
#define READ_BLOCKS	256

/* The bitmap of larger disks (1 TiB) takes room as it is used. */
#define ALLOCATE_MAX_SECTORS	(1ULL << 31)

static const uint64_t super_places[] = { QC2_TIP_SB0_SECTOR, QC2_TIP_SB1_SECTOR };

_Static_assert(sizeof(struct qc2_tip_super) == QC2_TIP_BLOCK_SIZE,
	       "a superblock is one block");
_Static_assert(sizeof(struct qc2_tip_journal) == 512, "a record is one sector");

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

/* Fills in the places of @info, which says how long disk and journal are. */
static void make_layout(struct qc2_tip_info *info)
{
	uint64_t end;

	info->summary_start = SUMMARY_START;
	end = SUMMARY_START + summary_blocks(info->nr_sectors) * QC2_TIP_BLOCK_SECTORS;
	info->journal_start = info->journal_sectors ? end : 0;
	info->bitmap_start = end + info->journal_sectors;
	end = info->bitmap_start + bitmap_blocks(info->nr_sectors) * QC2_TIP_BLOCK_SECTORS;
	info->data_start = div_up(end, QC2_TIP_DATA_ALIGN) * QC2_TIP_DATA_ALIGN;
}

uint64_t qc2_tip_device_sectors(const struct qc2_tip_info *info)
{
	return info->data_start +
	       div_up(info->nr_sectors, QC2_TIP_BLOCK_SECTORS) * QC2_TIP_BLOCK_SECTORS;
}

/* All of it or an error; writing leaves @buf alone. */
static int transfer(int fd, const char *path, bool writing, void *buf, size_t len,
		    uint64_t offset, struct qc2_err *err)
{
	char *p = buf;

	while (len) {
		ssize_t n = writing ? pwrite(fd, p, len, offset) : pread(fd, p, len, offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return qc2_fail(err, n ? errno : EIO,
				"%s: %s at offset %" PRIu64 ": %s", path,
				writing ? "writing" : "reading", offset,
				n ? strerror(errno) : "end of file");
		p += n;
		offset += n;
		len -= n;
	}
	return 0;
}

static int read_at(int fd, const char *path, void *buf, size_t len,
		   uint64_t offset, struct qc2_err *err)
{
	return transfer(fd, path, false, buf, len, offset, err);
}

static int write_at(int fd, const char *path, const void *buf, size_t len,
		    uint64_t offset, struct qc2_err *err)
{
	return transfer(fd, path, true, (void *)buf, len, offset, err);
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

static bool good_journal_size(uint64_t sectors)
{
	return sectors && sectors % QC2_TIP_JOURNAL_ALIGN == 0 && sectors <= QC2_TIP_JOURNAL_MAX;
}

static bool has_magic(const struct qc2_tip_super *sb)
{
	return !memcmp(sb->magic, QC2_TIP_MAGIC, QC2_TIP_MAGIC_LEN);
}

/*
 * The areas come in this order, none of them empty; each begins where the one
 * before it has ended, or later.  The limit keeps the sums far from overflow.
 */
static int check_areas(const char *path, const struct qc2_tip_info *info, struct qc2_err *err)
{
	const struct {
		const char *name;
		uint64_t start, sectors, align;
	} areas[] = {
		{ "summary", info->summary_start,
		  summary_blocks(info->nr_sectors) * QC2_TIP_BLOCK_SECTORS,
		  QC2_TIP_BLOCK_SECTORS },
		{ "journal", info->journal_start, info->journal_sectors,
		  QC2_TIP_BLOCK_SECTORS },
		{ "bitmap", info->bitmap_start,
		  bitmap_blocks(info->nr_sectors) * QC2_TIP_BLOCK_SECTORS,
		  QC2_TIP_BLOCK_SECTORS },
		{ "data area", info->data_start, info->nr_sectors, QC2_TIP_DATA_ALIGN },
	};
	uint64_t end = SUMMARY_START;

	for (size_t i = 0; i < sizeof(areas) / sizeof(areas[0]); i++) {
		if (!areas[i].sectors)
			continue;	/* no journal */
		if (areas[i].start < end || areas[i].start > QC2_TIP_MAX_SECTORS ||
		    areas[i].start % areas[i].align)
			return qc2_fail(err, EINVAL,
				"%s: damaged: the tip's %s cannot be at sector %" PRIu64 ": it is misaligned, past the largest tip, or overlaps what comes before it, up to sector %" PRIu64,
				path, areas[i].name, areas[i].start, end);
		end = areas[i].start + areas[i].sectors;
	}
	return 0;
}

static int check_super(const char *path, const struct qc2_tip_super *sb,
		       uint64_t device_sectors, struct qc2_tip_info *info,
		       struct qc2_err *err)
{
	if (le32toh(sb->version) > QC2_TIP_VERSION || !sb->version)
		return qc2_fail(err, EOPNOTSUPP,
			"%s: a tip of format version %" PRIu32 "; this program knows version %d",
			path, le32toh(sb->version), QC2_TIP_VERSION);
	info->incompat = le64toh(sb->incompat);
	if (info->incompat & ~QC2_TIP_INCOMPAT_JOURNAL)
		return qc2_fail(err, EOPNOTSUPP,
			"%s: the tip needs features that this program does not know: 0x%" PRIx64,
			path, (uint64_t)(info->incompat & ~QC2_TIP_INCOMPAT_JOURNAL));
	info->compat = le64toh(sb->compat);
	info->seq = le64toh(sb->seq);
	memcpy(info->chain_id, sb->chain_id, sizeof(info->chain_id));
	info->nr_sectors = le64toh(sb->nr_sectors);
	info->summary_start = le64toh(sb->summary_start);
	info->bitmap_start = le64toh(sb->bitmap_start);
	info->data_start = le64toh(sb->data_start);
	if (!info->nr_sectors || info->nr_sectors > QC2_TIP_MAX_SECTORS)
		return qc2_fail(err, EINVAL,
			"%s: damaged: the tip's superblock says %" PRIu64 " sectors; 1 to %llu are possible",
			path, info->nr_sectors, QC2_TIP_MAX_SECTORS);
	if (info->incompat & QC2_TIP_INCOMPAT_JOURNAL) {
		info->journal_start = le64toh(sb->journal_start);
		info->journal_sectors = le64toh(sb->journal_sectors);
		info->tip_id = le64toh(sb->tip_id);
		if (!good_journal_size(info->journal_sectors))
			return qc2_fail(err, EINVAL,
				"%s: damaged: the tip's superblock says %" PRIu64 " sectors of journal; multiples of %d up to %d are possible",
				path, info->journal_sectors, QC2_TIP_JOURNAL_ALIGN,
				QC2_TIP_JOURNAL_MAX);
		if (!info->tip_id)
			return qc2_fail(err, EINVAL,
				"%s: damaged: the tip's superblock gives it a journal and no id",
				path);
	}
	if (check_areas(path, info, err))
		return -EINVAL;
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
	struct qc2_tip_super sb, best = { 0 };
	bool magic = false;
	uint32_t version = 0;
	size_t i;
	int ret = 0;

	memset(info, 0, sizeof(*info));
	for (i = 0; i < 2; i++) {
		int r;

		/* A file cut within its metadata can still have copy 0. */
		if (super_places[i] + QC2_TIP_BLOCK_SECTORS > device_sectors)
			break;
		/* One unreadable copy is what the other one is for. */
		r = read_at(fd, path, &sb, sizeof(sb), super_places[i] * 512, err);
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
		if (!info->good_copies || le64toh(sb.seq) > le64toh(best.seq))
			best = sb;
		info->good_copies++;
	}
	if (!info->good_copies && ret)
		return ret;
	if (!magic)
		return qc2_fail(err, EINVAL,
			"%s: not a tip (no superblock)", path);
	if (!info->good_copies && version > QC2_TIP_VERSION)
		return qc2_fail(err, EOPNOTSUPP,
			"%s: a damaged tip, or one of format version %" PRIu32 "; this program knows version %d",
			path, version, QC2_TIP_VERSION);
	if (!info->good_copies)
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
	/* What the kernel writes passes by the page cache of a device. */
	if (!ret && block)
		posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
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

/* Where the next bit that is @set is, from @from on; @nr if there is none. */
static uint64_t next_bit(const uint8_t *bits, uint64_t from, uint64_t nr, bool set)
{
	while (from < nr) {
		uint64_t word;

		memcpy(&word, bits + from / 64 * 8, sizeof(word));
		word = le64toh(set ? word : ~word) >> from % 64;
		if (word) {
			from += __builtin_ctzll(word);
			break;
		}
		from += 64 - from % 64;
	}
	return from < nr ? from : nr;
}

static bool has_bits(const uint8_t *bits, uint64_t from, uint64_t nr)
{
	return next_bit(bits, from, nr, true) < nr;
}

static void set_bits(uint8_t *bits, uint64_t from, uint64_t end)
{
	for (; from < end && from % 8; from++)
		bits[from / 8] |= 1 << from % 8;
	memset(bits + from / 8, 0xff, (end - from) / 8);
	for (from += (end - from) / 8 * 8; from < end; from++)
		bits[from / 8] |= 1 << from % 8;
}

/* What is read of a tip, and what is known of it so far. */
struct reader {
	int fd;
	const char *path;
	const struct qc2_tip_visitor *visitor;	/* or NULL */
	struct qc2_tip_info *info;
	struct qc2_tip_range *ranges;	/* of the journal */
	size_t nr_ranges, max_ranges;
	struct qc2_tip_range dirty;	/* to be joined with what follows it */
};

static enum qc2_tip_journal_state journal_state(const struct qc2_tip_journal *record,
						uint64_t tip_id)
{
	static const struct qc2_tip_journal zeros;
	struct qc2_tip_journal copy = *record;

	if (!memcmp(record, &zeros, sizeof(zeros)))
		return QC2_TIP_JOURNAL_EMPTY;
	copy.checksum = 0;
	if (qc2_crc32c(0, &copy, sizeof(copy)) != le32toh(record->checksum))
		return QC2_TIP_JOURNAL_BROKEN;
	return le64toh(record->tip_id) == tip_id ? QC2_TIP_JOURNAL_VALID : QC2_TIP_JOURNAL_OTHER;
}

static int read_ranges(struct reader *r, const struct qc2_tip_journal *record,
		       uint64_t place, struct qc2_err *err)
{
	uint32_t nr = le32toh(record->nr_ranges), i;

	if (!nr || nr > QC2_TIP_JOURNAL_RANGES)
		return qc2_fail(err, EINVAL,
			"%s: damaged: sector %" PRIu64 ", of the tip's journal, says that it has %" PRIu32 " ranges; 1 to %d are possible",
			r->path, place, nr, QC2_TIP_JOURNAL_RANGES);
	if (r->nr_ranges + nr > r->max_ranges) {
		size_t max = 2 * r->max_ranges + nr;
		void *p = realloc(r->ranges, max * sizeof(*r->ranges));

		if (!p)
			return qc2_fail(err, ENOMEM, "out of memory");
		r->ranges = p;
		r->max_ranges = max;
	}
	for (i = 0; i < nr; i++) {
		uint64_t v = le64toh(record->ranges[i]);
		struct qc2_tip_range range = {
			.sector = v & ((1ULL << QC2_TIP_RANGE_SHIFT) - 1),
			.nr_sectors = v >> QC2_TIP_RANGE_SHIFT,
		};

		if (!range.nr_sectors || range.sector + range.nr_sectors > r->info->nr_sectors)
			return qc2_fail(err, EINVAL,
				"%s: damaged: sector %" PRIu64 ", of the tip's journal, names %" PRIu64 " sectors from %" PRIu64 " on, and the disk has %" PRIu64,
				r->path, place, range.nr_sectors, range.sector,
				r->info->nr_sectors);
		r->ranges[r->nr_ranges++] = range;
	}
	r->info->journal_ranges += nr;
	return 0;
}

static int compare_ranges(const void *a, const void *b)
{
	uint64_t x = ((const struct qc2_tip_range *)a)->sector;
	uint64_t y = ((const struct qc2_tip_range *)b)->sector;

	return x < y ? -1 : x > y;
}

static void join_ranges(struct reader *r)
{
	struct qc2_tip_range *to = r->ranges, *from = to, *end;

	if (!r->nr_ranges)
		return;
	end = to + r->nr_ranges;
	qsort(to, r->nr_ranges, sizeof(*to), compare_ranges);
	for (; ++from < end;) {
		uint64_t to_end = to->sector + to->nr_sectors;
		uint64_t from_end = from->sector + from->nr_sectors;

		if (from->sector > to_end)
			*++to = *from;
		else if (from_end > to_end)
			to->nr_sectors = from_end - to->sector;
	}
	r->nr_ranges = to + 1 - r->ranges;
}

/* Every valid record counts, however old: what it names stays in the tip. */
static int read_journal(struct reader *r, struct qc2_tip_journal *buf, size_t max,
			struct qc2_err *err)
{
	struct qc2_tip_info *info = r->info;
	uint64_t done, n, i;
	int ret;

	for (done = 0; done < info->journal_sectors; done += n) {
		n = info->journal_sectors - done;
		if (n > max)
			n = max;
		ret = read_at(r->fd, r->path, buf, n * sizeof(*buf),
			      (info->journal_start + done) * 512, err);
		if (ret)
			return ret;
		for (i = 0; i < n; i++) {
			enum qc2_tip_journal_state state = journal_state(&buf[i], info->tip_id);
			uint64_t place = info->journal_start + done + i;
			size_t before = r->nr_ranges, nr;

			info->journal[state]++;
			if (state == QC2_TIP_JOURNAL_VALID) {
				ret = read_ranges(r, &buf[i], place, err);
				if (ret)
					return ret;
			}
			nr = r->nr_ranges - before;
			if (r->visitor && r->visitor->journal && state != QC2_TIP_JOURNAL_EMPTY)
				r->visitor->journal(r->visitor->arg, place, state,
						    nr ? r->ranges + before : NULL, nr);
		}
	}
	join_ranges(r);
	return 0;
}

static void end_range(struct reader *r)
{
	r->info->dirty_sectors += r->dirty.nr_sectors;
	if (r->visitor && r->dirty.nr_sectors)
		r->visitor->range(r->visitor->arg, &r->dirty);
}

static void add_ranges(struct reader *r, uint64_t first, const uint8_t *bits, uint64_t nr)
{
	uint64_t from = next_bit(bits, 0, nr, true), end;

	for (; from < nr; from = next_bit(bits, end, nr, true)) {
		end = next_bit(bits, from, nr, false);
		if (first + from != r->dirty.sector + r->dirty.nr_sectors) {
			end_range(r);
			r->dirty.sector = first + from;
			r->dirty.nr_sectors = 0;
		}
		r->dirty.nr_sectors += end - from;
	}
}

/* Sets the bits of the journal's ranges in @nr bits, those from @first on. */
static void replay(const struct reader *r, size_t *next, uint64_t first, uint8_t *bits,
		   uint64_t nr)
{
	for (; *next < r->nr_ranges; ++*next) {
		uint64_t from = r->ranges[*next].sector;
		uint64_t end = from + r->ranges[*next].nr_sectors;

		if (from >= first + nr)
			break;
		from = from < first ? 0 : from - first;
		set_bits(bits, from, end - first < nr ? end - first : nr);
		if (end > first + nr)
			break;	/* the rest in the next block */
	}
}

static int read_bitmap(struct reader *r, const uint8_t *summary, uint8_t *buf,
		       struct qc2_err *err)
{
	struct qc2_tip_info *info = r->info;
	uint64_t nr = bitmap_blocks(info->nr_sectors), block, run, first, left;
	size_t next = 0;	/* range of the journal that is not in a block yet */
	int ret;

	for (block = 0; block < nr; block += run) {
		bool used = get_bit(summary, block);

		/* Blocks of one kind in one go. */
		run = next_bit(summary, block, nr, !used) - block;
		if (run > READ_BLOCKS)
			run = READ_BLOCKS;
		first = block * QC2_TIP_BLOCK_BITS;
		left = info->nr_sectors - first;
		if (left > run * QC2_TIP_BLOCK_BITS)
			left = run * QC2_TIP_BLOCK_BITS;

		if (used) {
			ret = read_at(r->fd, r->path, buf, run * QC2_TIP_BLOCK_SIZE,
				      (info->bitmap_start + block * QC2_TIP_BLOCK_SECTORS) * 512,
				      err);
			if (ret)
				return ret;
			if (has_bits(buf, left, run * QC2_TIP_BLOCK_BITS))
				return qc2_fail(err, EINVAL,
					"%s: damaged: block %" PRIu64 " of the tip's bitmap has bits behind the end of the disk (%" PRIu64 " sectors)",
					r->path, nr - 1, info->nr_sectors);
		} else {
			if (next == r->nr_ranges || r->ranges[next].sector >= first + left)
				continue;
			memset(buf, 0, run * QC2_TIP_BLOCK_SIZE);
		}
		replay(r, &next, first, buf, left);
		add_ranges(r, first, buf, left);
	}
	end_range(r);
	return 0;
}

static int read_state(struct reader *r, struct qc2_err *err)
{
	struct qc2_tip_info *info = r->info;
	uint64_t nr = bitmap_blocks(info->nr_sectors);
	size_t len = summary_blocks(info->nr_sectors) * QC2_TIP_BLOCK_SIZE;
	size_t buf_len = READ_BLOCKS * QC2_TIP_BLOCK_SIZE;
	uint8_t *summary = malloc(len), *buf = malloc(buf_len);
	int ret;

	if (!summary || !buf) {
		ret = qc2_fail(err, ENOMEM, "out of memory");
		goto out;
	}
	/*
	 * In this order: while the kernel uses the tip, what leaves the journal
	 * is in the bitmap before, and what a bitmap block holds is there
	 * before its bit in the summary is.
	 */
	ret = read_journal(r, (struct qc2_tip_journal *)buf,
			   buf_len / sizeof(struct qc2_tip_journal), err);
	if (!ret)
		ret = read_at(r->fd, r->path, summary, len, info->summary_start * 512, err);
	if (!ret && has_bits(summary, nr, len * 8))
		ret = qc2_fail(err, EINVAL,
			"%s: damaged: the tip's summary has bits behind the %" PRIu64 " blocks of the bitmap",
			r->path, nr);
	if (!ret)
		ret = read_bitmap(r, summary, buf, err);
out:
	free(buf);
	free(summary);
	return ret;
}

int qc2_tip_check(const char *path, const struct qc2_tip_visitor *visitor,
		  struct qc2_tip_info *info, struct qc2_err *err)
{
	struct reader r = { .path = path, .visitor = visitor, .info = info };
	int ret = open_tip(path, info, &r.fd, err);

	if (ret)
		return ret;
	ret = read_state(&r, err);
	free(r.ranges);
	close(r.fd);
	return ret;
}

/* A superblock of any state is a reason not to write over a device. */
static int check_no_tip(int fd, const char *path, struct qc2_err *err)
{
	struct qc2_tip_super sb;
	size_t i;
	int ret;

	for (i = 0; i < 2; i++) {
		ret = read_at(fd, path, &sb, sizeof(sb), super_places[i] * 512, err);
		if (ret)
			return ret;
		if (has_magic(&sb))
			return qc2_fail(err, EEXIST,
				"%s: already holds a tip, whose data would be lost",
				path);
	}
	return 0;
}

static int sync_tip(int fd, const char *path, struct qc2_err *err)
{
	return fsync(fd) ? qc2_fail(err, errno, "%s: fsync: %s", path, strerror(errno)) : 0;
}

/* Writes a block to the place of each superblock. */
static int write_supers(int fd, const char *path, const void *block, struct qc2_err *err)
{
	int ret = 0;

	for (size_t i = 0; i < 2 && !ret; i++)
		ret = write_at(fd, path, block, QC2_TIP_BLOCK_SIZE, super_places[i] * 512, err);
	return ret ? ret : sync_tip(fd, path, err);
}

/* The superblocks last: none ever stands before an unclean summary or journal. */
static int write_tip(int fd, const char *path, bool block,
		     const struct qc2_tip_info *info, struct qc2_err *err)
{
	struct qc2_tip_super sb = {
		.version = htole32(QC2_TIP_VERSION),
		.seq = htole64(info->seq),
		.incompat = htole64(info->incompat),
		.nr_sectors = htole64(info->nr_sectors),
		.summary_start = htole64(info->summary_start),
		.bitmap_start = htole64(info->bitmap_start),
		.data_start = htole64(info->data_start),
		.journal_start = htole64(info->journal_start),
		.journal_sectors = htole64(info->journal_sectors),
		.tip_id = htole64(info->tip_id),
	};
	static const uint8_t zeros[QC2_TIP_BLOCK_SIZE];
	uint64_t s;
	int ret;

	memcpy(sb.magic, QC2_TIP_MAGIC, QC2_TIP_MAGIC_LEN);
	memcpy(sb.chain_id, info->chain_id, sizeof(sb.chain_id));
	sb.checksum = htole32(super_checksum(&sb));

	if (block) {
		/* An old superblock goes before what it describes does. */
		ret = write_supers(fd, path, zeros, err);
		for (s = info->summary_start; s < info->bitmap_start && !ret;
		     s += QC2_TIP_BLOCK_SECTORS)
			ret = write_at(fd, path, zeros, sizeof(zeros), s * 512,
				       err);
		if (!ret)
			ret = sync_tip(fd, path, err);
		if (ret)
			return ret;
	}
	return write_supers(fd, path, &sb, err);
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

/*
 * A full file system must fail writes of data, not of metadata: that would make
 * the disk read-only.
 */
static int allocate_metadata(int fd, const char *path, const struct qc2_tip_info *info,
			     struct qc2_err *err)
{
	uint64_t end = info->nr_sectors > ALLOCATE_MAX_SECTORS ? info->bitmap_start :
								 info->data_start;

	if (fallocate(fd, 0, 0, end * 512) && errno != EOPNOTSUPP)
		return qc2_fail(err, errno, "%s: no room for %" PRIu64 " bytes of metadata: %s",
				path, end * 512, strerror(errno));
	return 0;
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
	if (ftruncate(fd, qc2_tip_device_sectors(info) * 512))
		ret = qc2_fail(err, errno,
			"%s: cannot be made %" PRIu64 " bytes long: %s", path,
			qc2_tip_device_sectors(info) * 512,
			strerror(errno));
	else
		ret = allocate_metadata(fd, path, info, err);
	if (!ret)
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

int qc2_tip_create(const char *path, const uint8_t *chain_id, uint64_t nr_sectors,
		   uint64_t journal_sectors, int force, struct qc2_err *err)
{
	struct qc2_tip_info info = {
		.seq = 1,
		.nr_sectors = nr_sectors,
		.journal_sectors = journal_sectors,
	};
	struct stat st;

	if (!nr_sectors || nr_sectors > QC2_TIP_MAX_SECTORS)
		return qc2_fail(err, EINVAL,
			"%s: no tip can be made for a disk of %" PRIu64 " sectors",
			path, nr_sectors);
	if (journal_sectors) {
		if (!good_journal_size(journal_sectors))
			return qc2_fail(err, EINVAL,
				"%s: no tip can be made with a journal of %" PRIu64 " sectors; multiples of %d up to %d are possible",
				path, journal_sectors, QC2_TIP_JOURNAL_ALIGN,
				QC2_TIP_JOURNAL_MAX);
		info.incompat = QC2_TIP_INCOMPAT_JOURNAL;
		while (!info.tip_id)
			if (getrandom(&info.tip_id, sizeof(info.tip_id), 0) !=
			    sizeof(info.tip_id))
				return qc2_fail(err, errno, "%s: no random number: %s", path,
						strerror(errno));
	}
	make_layout(&info);
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
