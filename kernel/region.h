/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The disk is divided into regions of 2 MiB, by the chain map and by the state
 * of the tip's sectors alike.
 */
#ifndef QC2_REGION_H
#define QC2_REGION_H

#define QC2_REGION_SHIFT	12
#define QC2_REGION_SECTORS	4096U

#endif
