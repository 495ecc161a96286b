/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Checks of the runs and ranges that user space names.
 */
#ifndef QC2_RUNS_H
#define QC2_RUNS_H

#include <linux/types.h>

#include <linux/dm-qcow2chain.h>

struct netlink_ext_ack;
struct qc2_target;

int qc2_check_runs(const struct qc2_target *qt, const struct qc2_run *runs, unsigned int nr,
		   struct netlink_ext_ack *extack);
int qc2_check_ranges(const struct qc2_range *ranges, unsigned int nr,
		     struct netlink_ext_ack *extack);

#endif
