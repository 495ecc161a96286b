/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Sectors of a tip's journal.
 */
#ifndef QC2_JOURNAL_H
#define QC2_JOURNAL_H

#include <linux/types.h>

#include <linux/dm-qcow2chain.h>

struct qc2_dirty_range;

/* What qc2_journal_read() found. */
enum qc2_journal_state {
	QC2_JOURNAL_EMPTY,	/* zeros, or of another tip */
	QC2_JOURNAL_VALID,
	QC2_JOURNAL_TORN,	/* wrong checksum: of a commit that did not end */
	QC2_JOURNAL_BAD,	/* valid checksum, impossible content */
};

void qc2_journal_write(struct qc2_tip_journal *sector, u64 tip_id,
		       const struct qc2_dirty_range *ranges, unsigned int nr_ranges);
enum qc2_journal_state qc2_journal_read(struct qc2_tip_journal *sector, u64 tip_id,
					u64 disk_sectors);
struct qc2_dirty_range qc2_journal_range(const struct qc2_tip_journal *sector, unsigned int i);

u32 qc2_crc32c(const void *data, size_t bytes);

#endif
