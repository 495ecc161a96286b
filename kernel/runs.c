// SPDX-License-Identifier: GPL-2.0
/*
 * What the daemon's runs and ranges must keep to.  Nothing from user space is
 * trusted: all of them are checked before any is used.
 *
 * Locking: none; the target's table does not change.
 */
#include <linux/blkdev.h>
#include <linux/netlink.h>
#include <linux/overflow.h>

#include "runs.h"
#include "target.h"

/**
 * qc2_check_runs() - check the runs of a reply
 * @qt: the target that they are meant for
 * @runs: the runs, as user space sent them
 * @nr: their number
 * @extack: gets the reason of a refusal
 *
 * Runs that pass are not empty, sorted, without overlap, and lie within the
 * disk and the store devices.
 *
 * Context: any.
 * Return: 0 or -EINVAL.
 */
int qc2_check_runs(const struct qc2_target *qt, const struct qc2_run *runs, unsigned int nr,
		   struct netlink_ext_ack *extack)
{
	unsigned int mask = qt->block_sectors - 1, i;
	u64 end = 0, size;

	for (i = 0; i < nr; i++) {
		const struct qc2_run *run = &runs[i];

		if (!run->nr_sectors || run->sector < end || run->sector >= qt->ti->len ||
		    run->nr_sectors > qt->ti->len - run->sector) {
			NL_SET_ERR_MSG(extack, "runs empty, unsorted or outside of the disk");
			return -EINVAL;
		}
		end = run->sector + run->nr_sectors;

		if ((run->sector | run->nr_sectors | run->store_sector) & mask) {
			NL_SET_ERR_MSG(extack, "runs not aligned to the logical block size");
			return -EINVAL;
		}

		if (run->store == QC2_STORE_ZERO) {
			if (!run->store_sector)
				continue;
			NL_SET_ERR_MSG(extack, "run of zeros with a place");
			return -EINVAL;
		}
		if (run->store >= qt->nr_stores) {
			NL_SET_ERR_MSG(extack, "unknown store device");
			return -EINVAL;
		}
		/* A store may grow while the table is in use. */
		size = bdev_nr_sectors(qt->stores[run->store]->bdev);
		if (run->store_sector >= size || run->nr_sectors > size - run->store_sector) {
			NL_SET_ERR_MSG(extack, "runs outside of the store devices");
			return -EINVAL;
		}
	}
	return 0;
}

/**
 * qc2_check_ranges() - check ranges that are to be forgotten
 * @ranges: the ranges, as user space sent them
 * @nr: their number
 * @extack: gets the reason of a refusal
 *
 * Ranges that pass are not empty, sorted, without overlap, and their ends do not
 * overflow.  The store may be smaller: there is nothing to forget then.
 *
 * Context: any.
 * Return: 0 or -EINVAL.
 */
int qc2_check_ranges(const struct qc2_range *ranges, unsigned int nr,
		     struct netlink_ext_ack *extack)
{
	unsigned int i;
	u64 end = 0;

	for (i = 0; i < nr; i++) {
		if (!ranges[i].nr_sectors || ranges[i].sector < end ||
		    check_add_overflow(ranges[i].sector, ranges[i].nr_sectors, &end)) {
			NL_SET_ERR_MSG(extack, "ranges empty, unsorted or too long");
			return -EINVAL;
		}
	}
	return 0;
}
