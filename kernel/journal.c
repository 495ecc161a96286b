// SPDX-License-Identifier: GPL-2.0
/*
 * Sectors of a tip's journal: making them, and what to make of those found on
 * a device.  Format: <linux/dm-qcow2chain.h>, docs/tip-format.md.  When they are
 * written is the business of commit.c.
 *
 * Locking: none; pure functions.
 */
#include <linux/build_bug.h>
#include <linux/crc32c.h>
#include <linux/string.h>

#include "dirty.h"
#include "journal.h"

/**
 * qc2_crc32c() - the checksum of the tip format
 * @data: what to check
 * @bytes: its length
 */
u32 qc2_crc32c(const void *data, size_t bytes)
{
	return ~crc32c(~0, data, bytes);
}

/**
 * qc2_journal_write() - make a sector of the journal
 * @sector: filled
 * @tip_id: of the tip
 * @ranges: what it shall hold
 * @nr_ranges: 1 to QC2_TIP_JOURNAL_RANGES
 */
void qc2_journal_write(struct qc2_tip_journal *sector, u64 tip_id,
		       const struct qc2_dirty_range *ranges, unsigned int nr_ranges)
{
	unsigned int i;

	BUILD_BUG_ON(sizeof(*sector) != 512);
	memset(sector, 0, sizeof(*sector));
	sector->nr_ranges = cpu_to_le32(nr_ranges);
	sector->tip_id = cpu_to_le64(tip_id);
	for (i = 0; i < nr_ranges; i++)
		sector->ranges[i] = cpu_to_le64(ranges[i].sector |
						(u64)ranges[i].nr_sectors << QC2_TIP_RANGE_SHIFT);
	sector->checksum = cpu_to_le32(qc2_crc32c(sector, sizeof(*sector)));
}

/**
 * qc2_journal_range() - one range of a sector
 * @sector: a valid sector
 * @i: number of the range
 */
struct qc2_dirty_range qc2_journal_range(const struct qc2_tip_journal *sector, unsigned int i)
{
	u64 range = le64_to_cpu(sector->ranges[i]);

	return (struct qc2_dirty_range) {
		.sector = range & ((1ULL << QC2_TIP_RANGE_SHIFT) - 1),
		.nr_sectors = range >> QC2_TIP_RANGE_SHIFT,
	};
}

/**
 * qc2_journal_read() - check a sector found on a device
 * @sector: the sector; its checksum is cleared
 * @tip_id: of the tip
 * @disk_sectors: size of the virtual disk
 *
 * Return: what it is; ranges may be read from a valid one only.
 */
enum qc2_journal_state qc2_journal_read(struct qc2_tip_journal *sector, u64 tip_id,
					u64 disk_sectors)
{
	u32 checksum = le32_to_cpu(sector->checksum);
	unsigned int nr = le32_to_cpu(sector->nr_ranges), i;

	if (le64_to_cpu(sector->tip_id) != tip_id)
		return QC2_JOURNAL_EMPTY;
	sector->checksum = 0;
	if (qc2_crc32c(sector, sizeof(*sector)) != checksum)
		return QC2_JOURNAL_TORN;
	if (!nr || nr > QC2_TIP_JOURNAL_RANGES)
		return QC2_JOURNAL_BAD;

	for (i = 0; i < nr; i++) {
		struct qc2_dirty_range range = qc2_journal_range(sector, i);

		if (!range.nr_sectors || range.sector >= disk_sectors ||
		    range.nr_sectors > disk_sectors - range.sector)
			return QC2_JOURNAL_BAD;
	}
	return QC2_JOURNAL_VALID;
}
