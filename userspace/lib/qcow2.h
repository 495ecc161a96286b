/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Reading the metadata of one qcow2 image: the header and, in few reads, the
 * whole map of its clusters.  The image is untrusted.  One thread at a time.
 *
 * Not read yet, and refused with the reason: encryption, external data files,
 * extended L2 entries, compressed clusters.
 */
#ifndef QC2_QCOW2_H
#define QC2_QCOW2_H

#include <stddef.h>
#include <stdint.h>

#include "err.h"
#include "index.h"
#include "source.h"

/* Largest virtual disk, bytes: 64 TiB. */
#define QC2_QCOW2_MAX_SIZE	(1ULL << 46)

struct qc2_qcow2 {
	struct qc2_source *src;		/* the caller's */
	uint8_t *head;			/* the first bytes of the object */
	size_t head_len;
	unsigned int version;		/* 2 or 3 */
	unsigned int cluster_bits;	/* 9 to 21 */
	uint64_t virtual_size;		/* bytes, a multiple of 512 */
	uint64_t l1_offset;
	uint32_t l1_size;		/* entries */
	char *backing_name;		/* as it is in the header; NULL: none */
	int backing_raw;		/* the header says so; else qcow2 */
};

/**
 * qc2_qcow2_open() - read and check the header
 * @src: stays the caller's, and open until qc2_qcow2_close()
 *
 * Makes one read, of QC2_HEAD_BYTES or the whole object if that is less.
 *
 * Return: 0 or a negative errno with @err filled (naming the object).
 */
int qc2_qcow2_open(struct qc2_source *src, struct qc2_qcow2 **img,
		   struct qc2_err *err);
void qc2_qcow2_close(struct qc2_qcow2 *img);

/**
 * qc2_qcow2_extents() - list what the image itself holds
 * @limit: only sectors of the virtual disk before this one are looked at
 * @link: number that the extents with data get
 * @list: sorted extents are put here: data, and zero clusters as
 *	QC2_LINK_ZERO; what is in no extent comes from the backing file.  To be
 *	freed by the caller in any case.
 *
 * L2 tables are read in the order of the file, many by one read where they
 * lie close together; none is kept.
 *
 * Return: 0 or a negative errno with @err filled (naming the object).
 */
int qc2_qcow2_extents(struct qc2_qcow2 *img, uint64_t limit, uint32_t link,
		      struct qc2_extents *list, struct qc2_err *err);

#endif
