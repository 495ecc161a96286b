/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Laying out a new qcow2 image: where its data goes, and all of its metadata, which lies
 * in one piece at the front.  Works on memory, without I/O; any thread may call it.
 *
 * The image is of version 3 and can hold single blocks of 4 KiB without what is around
 * them: where data is dense its clusters are large and have subclusters (extended L2
 * entries), where it is scattered they have one block each.  So the file has little but data,
 * and is like any other for QEMU.
 */
#ifndef QC2_QCOW2_WRITE_H
#define QC2_QCOW2_WRITE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "err.h"

/* Unit of everything here but the size of the disk. */
#define QC2_LAYOUT_BLOCK	4096U

/* Neighbouring blocks that the image is to hold. */
struct qc2_layout_piece {
	uint64_t block;			/* of the virtual disk */
	uint64_t nr;
	bool zero;			/* they read as zeros, and have no data */
};

/* Neighbouring blocks of the file that are data. */
struct qc2_layout_run {
	uint64_t at;			/* block of the file */
	uint64_t block;			/* of the virtual disk */
	uint64_t nr;
};

struct qc2_layout_config {
	uint64_t virtual_size;		/* bytes, a multiple of 512 */
	const char *backing;		/* URL or file name; NULL: none */
	bool backing_raw;		/* else it is qcow2 */
};

/**
 * struct qc2_layout - an image that is to be written
 * @size: of the file, bytes
 * @head: its metadata: its first @head_len bytes
 * @runs: its data, by place in the file; where there is none behind @head, the file has
 *	zeros
 */
struct qc2_layout {
	uint64_t size;
	unsigned int cluster_bits;
	void *head;
	size_t head_len;
	struct qc2_layout_run *runs;
	size_t nr_runs;
};

/**
 * qc2_layout_make() - lay out an image
 * @pieces: sorted, without overlap, not beyond the end of the disk; what is in none
 *	comes from the backing file
 * @layout: the caller frees it
 *
 * Of all sizes of clusters the one is taken that makes the smallest file; a larger one if
 * that costs little.  Needs memory for the metadata, and 6 MiB for each GiB of single
 * scattered blocks.
 *
 * Return: 0 or a negative errno with @err filled.
 */
int qc2_layout_make(const struct qc2_layout_config *cfg, const struct qc2_layout_piece *pieces,
		    size_t nr_pieces, struct qc2_layout **layout, struct qc2_err *err);
/* NULL is fine. */
void qc2_layout_free(struct qc2_layout *layout);

#endif
