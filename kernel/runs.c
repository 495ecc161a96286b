// SPDX-License-Identifier: GPL-2.0
/*
 * What a reply of the daemon must keep to.  Nothing from user space is trusted:
 * all runs are checked before any of them is used.
 *
 * Locking: none; the target's table does not change.
 */
#include <linux/blkdev.h>
#include <linux/netlink.h>

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
