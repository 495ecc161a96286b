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

/* Length of the journal of a new tip: 1 MiB. */
#define QC2_TIP_JOURNAL_DEFAULT	2048

/* What a sector of the journal holds. */
enum qc2_tip_journal_state {
	QC2_TIP_JOURNAL_EMPTY,		/* zeros */
	QC2_TIP_JOURNAL_VALID,
	QC2_TIP_JOURNAL_OTHER,		/* a record of another tip */
	QC2_TIP_JOURNAL_BROKEN,		/* wrong checksum */
	QC2_TIP_JOURNAL_STATES
};

struct qc2_tip_info {
	uint64_t seq;
	uint64_t incompat, compat;	/* feature bits */
	unsigned int good_copies;	/* of the superblock, 1 or 2 */
	uint8_t chain_id[QC2_CHAIN_ID_LEN];
	uint64_t nr_sectors;		/* of the virtual disk */
	uint64_t summary_start;		/* sectors, as in the superblock */
	uint64_t journal_start;
	uint64_t journal_sectors;	/* 0: it has no journal */
	uint64_t tip_id;
	uint64_t bitmap_start;
	uint64_t data_start;
	/* Filled by qc2_tip_check() only */
	uint64_t dirty_sectors;		/* by bitmap and journal */
	uint64_t journal[QC2_TIP_JOURNAL_STATES];	/* sectors in each state */
	uint64_t journal_ranges;
};

struct qc2_tip_range {
	uint64_t sector;		/* of the virtual disk */
	uint64_t nr_sectors;
};

/**
 * struct qc2_tip_visitor - what qc2_tip_check() finds, in this order
 * @journal: a sector of the journal that is not zeros; @sector is its place in
 *	the tip; @ranges are those of a valid one.  May be NULL
 * @range: sectors in the tip, by bitmap and journal; sorted and joined
 * @arg: passed to both
 */
struct qc2_tip_visitor {
	void (*journal)(void *arg, uint64_t sector, enum qc2_tip_journal_state state,
			const struct qc2_tip_range *ranges, unsigned int nr);
	void (*range)(void *arg, const struct qc2_tip_range *range);
	void *arg;
};

/* Length of the file of a tip, in sectors; a device may be up to 7 shorter. */
uint64_t qc2_tip_device_sectors(const struct qc2_tip_info *info);

/**
 * qc2_tip_create() - write an empty tip
 * @path: a file, which must not exist and is made sparse, or a block device,
 *	which must not hold a tip unless @force
 * @chain_id: the chain it lies over
 * @nr_sectors: size of the virtual disk, 1 to QC2_TIP_MAX_SECTORS
 * @journal_sectors: length of the journal, a multiple of
 *	QC2_TIP_JOURNAL_ALIGN up to QC2_TIP_JOURNAL_MAX; 0: none
 *
 * Durable on return.  A file that could not be finished is removed.
 *
 * Return: 0 or a negative errno with @err filled.
 */
int qc2_tip_create(const char *path, const uint8_t *chain_id, uint64_t nr_sectors,
		   uint64_t journal_sectors, int force, struct qc2_err *err);

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
 * qc2_tip_check() - as qc2_tip_open(), and read the journal and the bitmap
 * @visitor: told what is found, until damage is; or NULL
 *
 * Also refuses sectors past the end of the disk, in either.
 */
int qc2_tip_check(const char *path, const struct qc2_tip_visitor *visitor,
		  struct qc2_tip_info *info, struct qc2_err *err);

#endif
