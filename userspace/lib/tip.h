/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Tips as user space sees them: made here, read and written by the kernel.
 * The format is in <linux/dm-qcow2chain.h> and docs/tip-format.md.
 */
#ifndef QC2_TIP_H
#define QC2_TIP_H

#include <stdint.h>

#include <linux/dm-qcow2chain.h>

#include "err.h"

struct qc2_tip_info {
	uint8_t chain_id[QC2_CHAIN_ID_LEN];
	uint64_t nr_sectors;		/* of the virtual disk */
	uint64_t summary_start;		/* sectors, as in the superblock */
	uint64_t bitmap_start;
	uint64_t data_start;
	uint64_t dirty_sectors;		/* filled by qc2_tip_check() only */
};

/* Sectors a tip device needs for a virtual disk of @nr_sectors. */
uint64_t qc2_tip_device_sectors(uint64_t nr_sectors);

/**
 * qc2_tip_create() - write an empty tip
 * @path: a file, which must not exist and is made sparse, or a block device,
 *	which must not hold a tip unless @force
 * @chain_id: the chain it lies over
 * @nr_sectors: size of the virtual disk, 1 to QC2_TIP_MAX_SECTORS
 *
 * Durable on return.  A file that could not be finished is removed.
 *
 * Return: 0 or a negative errno with @err filled.
 */
int qc2_tip_create(const char *path, const uint8_t *chain_id,
		   uint64_t nr_sectors, int force, struct qc2_err *err);

/**
 * qc2_tip_open() - check what a path holds and read its superblock
 *
 * Refuses, with the reason: a directory or other kind of file, no superblock,
 * damage in both copies, a newer version, unknown incompatible features,
 * areas that overlap or reach past the end of the file or device.
 *
 * Return: 0 or a negative errno with @err filled.
 */
int qc2_tip_open(const char *path, struct qc2_tip_info *info,
		 struct qc2_err *err);

/**
 * qc2_tip_check() - as qc2_tip_open(), and read the whole bitmap
 *
 * Also refuses bits set past the end of the disk.
 */
int qc2_tip_check(const char *path, struct qc2_tip_info *info,
		  struct qc2_err *err);

#endif
