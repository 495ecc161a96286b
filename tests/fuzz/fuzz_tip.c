/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Checking a tip.  The input is a sparse file, see images.h.  A checksum of 0,
 * in a superblock or a sector of the journal, is replaced by the right one.
 */
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "crc32c.h"
#include "images.h"
#include "tip.h"

#define MAX_RANGES	65536

static struct qc2_tip_range named[MAX_RANGES];	/* by the journal */
static size_t nr_named, nr_found;
static uint64_t found_end, found_sectors;

static void mend(int fd, uint64_t offset, size_t len, size_t checksum)
{
	uint8_t buf[QC2_TIP_BLOCK_SIZE];
	uint32_t sum;

	if (pread(fd, buf, len, offset) != (ssize_t)len)
		return;
	memcpy(&sum, buf + checksum, 4);
	if (sum)
		return;
	sum = htole32(qc2_crc32c(0, buf, len));
	assert(pwrite(fd, &sum, 4, offset + checksum) == 4);
}

static int make_file(struct images *images)
{
	int fd = memfd_create("tip", MFD_CLOEXEC);
	const uint8_t *record = images->records;
	struct qc2_tip_super sb;
	uint64_t start, len;
	uint32_t image;
	size_t i;

	/* Up to twice the largest. */
	assert(fd >= 0 && !ftruncate(fd, images->sizes[0] % (1ULL << 47)));
	for (i = 0; i < images->nr_records; i++, record += RECORD_BYTES)
		assert(pwrite(fd, record + 4, PAGE_BYTES,
			      record_place(record, &image)) == PAGE_BYTES);
	mend(fd, QC2_TIP_SB0_SECTOR * 512, sizeof(sb),
	     offsetof(struct qc2_tip_super, checksum));
	mend(fd, QC2_TIP_SB1_SECTOR * 512, sizeof(sb),
	     offsetof(struct qc2_tip_super, checksum));
	if (pread(fd, &sb, sizeof(sb), 0) != sizeof(sb))
		return fd;
	start = le64toh(sb.journal_start);
	len = le64toh(sb.journal_sectors);
	for (i = 0, record = images->records; i < images->nr_records;
	     i++, record += RECORD_BYTES) {
		uint64_t sector = record_place(record, &image) / 512;

		if (sector >= start && sector - start < len)
			mend(fd, sector * 512, 512,
			     offsetof(struct qc2_tip_journal, checksum));
	}
	return fd;
}

static void on_journal(void *arg, uint64_t sector, enum qc2_tip_journal_state state,
		       const struct qc2_tip_range *ranges, unsigned int nr)
{
	const struct qc2_tip_info *info = arg;

	assert(sector >= info->journal_start &&
	       sector - info->journal_start < info->journal_sectors);
	assert(state > QC2_TIP_JOURNAL_EMPTY && state < QC2_TIP_JOURNAL_STATES);
	assert(nr <= QC2_TIP_JOURNAL_RANGES && !nr == (state != QC2_TIP_JOURNAL_VALID));
	for (unsigned int i = 0; i < nr && nr_named < MAX_RANGES; i++)
		named[nr_named++] = ranges[i];
}

/* Sorted and joined; what the journal names is in one range, and ticked off. */
static void on_range(void *arg, const struct qc2_tip_range *range)
{
	const struct qc2_tip_info *info = arg;
	uint64_t end = range->sector + range->nr_sectors;
	size_t i, left = 0;

	assert(range->nr_sectors && range->sector < end && end <= info->nr_sectors);
	assert(!nr_found++ || range->sector > found_end);
	found_end = end;
	found_sectors += range->nr_sectors;
	for (i = 0; i < nr_named; i++)
		if (named[i].sector < range->sector || named[i].sector >= end)
			named[left++] = named[i];
		else
			assert(named[i].sector + named[i].nr_sectors <= end);
	nr_named = left;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct qc2_tip_info info, opened;
	struct qc2_tip_visitor visitor = {
		.journal = on_journal, .range = on_range, .arg = &info,
	};
	struct input in = { data, size };
	struct qc2_err err = { "" };
	struct images images;
	uint64_t sum = 0;
	char path[32];
	int fd, ret;

	images_init(&images, 1, &in);
	fd = make_file(&images);
	sprintf(path, "/proc/self/fd/%d", fd);
	nr_named = nr_found = found_end = found_sectors = 0;
	ret = qc2_tip_check(path, &visitor, &info, &err);
	if (ret)
		assert(strstr(err.msg, path));
	if (!ret) {
		assert(!nr_named);
		assert(found_sectors == info.dirty_sectors);
		for (size_t i = 0; i < QC2_TIP_JOURNAL_STATES; i++)
			sum += info.journal[i];
		assert(sum == info.journal_sectors);
	}
	if (!qc2_tip_open(path, &opened, &err)) {
		assert(opened.nr_sectors == info.nr_sectors);
		assert(opened.data_start + opened.nr_sectors <=
		       qc2_tip_device_sectors(&opened));
	} else {
		assert(ret);
	}
	close(fd);
	return 0;
}
