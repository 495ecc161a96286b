/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Where the bios of a target go.
 */
#ifndef QC2_LOOKUP_H
#define QC2_LOOKUP_H

#include <linux/types.h>

struct qc2_place;
struct qc2_target;

/* What a read finds at its first sector. */
enum qc2_state { QC2_IN_TIP, QC2_IN_STORE, QC2_ZERO, QC2_UNKNOWN };

enum qc2_state qc2_lookup(struct qc2_target *qt, u64 sector, unsigned int nr_sectors,
			  struct qc2_place *place, unsigned long *reader);
unsigned int qc2_write_reach(u64 sector, unsigned int nr_sectors);

#endif
