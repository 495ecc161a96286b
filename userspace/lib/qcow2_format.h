/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the files of the qcow2 reader share: constants of the format (QEMU,
 * docs/interop/qcow2.txt) and helpers.  For qcow2*.c alone.
 */
#ifndef QC2_QCOW2_FORMAT_H
#define QC2_QCOW2_FORMAT_H

#include <stdint.h>

#include "qcow2.h"

#define QCOW2_OFFSET_MASK	0x00fffffffffffe00ULL	/* of L1 and L2 entries */
#define QCOW2_L2_COPIED		(1ULL << 63)
#define QCOW2_L2_COMPRESSED	(1ULL << 62)
#define QCOW2_L2_ZERO		1ULL

/* An extended L2 entry has a bitmap of 32 subclusters behind the offset. */
#define QCOW2_SUBCLUSTERS	32

/* Most entries QEMU has in an L1 table: 32 MiB. */
#define QCOW2_MAX_L1_BYTES	(32 << 20)

static inline uint64_t qcow2_cluster_size(const struct qc2_qcow2 *img)
{
	return 1ULL << img->cluster_bits;
}

/* An L2 table that is there. */
struct qcow2_table {
	uint64_t offset;
	uint32_t l1_index;
};

/* How much of the virtual disk one L2 table maps, as a shift. */
static inline unsigned int qcow2_l2_bits(const struct qc2_qcow2 *img)
{
	return 2 * img->cluster_bits - (img->extended_l2 ? 4 : 3);
}

/* Entries of the L1 table for @bytes of the virtual disk. */
static inline uint64_t qcow2_l1_needed(const struct qc2_qcow2 *img,
				       uint64_t bytes)
{
	unsigned int bits = qcow2_l2_bits(img);

	return (bytes + (1ULL << bits) - 1) >> bits;
}

int qcow2_fail_truncated(const struct qc2_qcow2 *img, struct qc2_err *err,
			 const char *what, uint64_t offset, uint64_t len);

/* Bytes that were read before, or NULL. */
const uint8_t *qcow2_peek(const struct qc2_qcow2 *img, uint64_t offset,
			  size_t len);

/* Reads metadata; what was read before is not asked for again. */
int qcow2_read(struct qc2_qcow2 *img, const char *what, uint64_t offset,
	       void *buf, size_t len, struct qc2_err *err);

/*
 * Reads metadata, as far as the file has it, for qcow2_peek(), in the place of
 * what this function read before.
 */
int qcow2_read_ahead(struct qc2_qcow2 *img, uint64_t offset, uint64_t len,
		     struct qc2_err *err);

/*
 * Checks size and place of an L1 table, and makes it the one to be listed.
 * @virtual_size is a multiple of 512.
 */
int qcow2_set_l1(struct qc2_qcow2 *img, uint64_t virtual_size, uint64_t offset,
		 uint32_t entries, struct qc2_err *err);

#endif
