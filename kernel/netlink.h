/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The channel to the daemon: generic netlink, see <linux/dm-qcow2chain.h>.
 */
#ifndef QC2_NETLINK_H
#define QC2_NETLINK_H

struct qc2_target;

int qc2_netlink_init(void);
void qc2_netlink_exit(void);

void qc2_netlink_add(struct qc2_target *qt);
void qc2_netlink_remove(struct qc2_target *qt);
void qc2_netlink_doorbell(struct qc2_target *qt);

#endif
