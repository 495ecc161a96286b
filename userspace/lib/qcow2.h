/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Reading the metadata of one qcow2 image: the header and, in few reads, the
 * whole map of its clusters.  The image is untrusted.  One thread at a time, but
 * for qc2_qcow2_extents().
 *
 * qcow2.c reads the header, qcow2_snapshot.c the table of internal snapshots,
 * qcow2_map.c the L1 and L2 tables; packed.c unpacks compressed clusters.
 */
#ifndef QC2_QCOW2_H
#define QC2_QCOW2_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "err.h"
#include "index.h"
#include "packed.h"
#include "source.h"

/* Largest virtual disk, bytes: 64 TiB. */
#define QC2_QCOW2_MAX_SIZE	(1ULL << 46)

/* As in the header. */
enum qc2_compression {
	QC2_COMPRESSION_ZLIB = 0,
	QC2_COMPRESSION_ZSTD = 1,
};

struct qc2_qcow2 {
	struct qc2_source *src;		/* the caller's */
	uint8_t *head;			/* the first bytes of the object */
	size_t head_len;
	/*
	 * Metadata that was read ahead, or NULL: part of the snapshot table;
	 * once there is a list of the L2 tables, some of these.
	 */
	uint8_t *tables;
	uint64_t tables_offset;
	size_t tables_len;
	unsigned int version;		/* 2 or 3 */
	unsigned int cluster_bits;	/* 9 to 21 */
	uint64_t virtual_size;		/* bytes, a multiple of 512 */
	uint64_t l1_offset;
	uint64_t snapshots_offset;
	uint32_t nr_snapshots;
	bool extended_l2;		/* with subclusters */
	enum qc2_compression compression;
	char *backing_name;		/* as it is in the header; NULL: none */
	bool backing_raw;		/* the header says so; else qcow2 */
	char *data_name;		/* external data file, which is raw;
					   NULL: none */
	pthread_mutex_t l1_lock;	/* held while the L1 table is read */
	bool l1_read;
	struct qcow2_table *l2;		/* L2 tables that are there, by offset */
	size_t nr_l2;
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
 * qc2_qcow2_snapshot() - list an internal snapshot instead of the image itself
 * @name: its id, or its name if none has that id, as in QEMU
 *
 * Sets @img->virtual_size to that of the snapshot.
 *
 * Return: 0; -ENOENT; or another negative errno; with @err filled.
 */
int qc2_qcow2_snapshot(struct qc2_qcow2 *img, const char *name,
		       struct qc2_err *err);

/**
 * qc2_qcow2_extents() - list what the image itself holds, or a part of it
 * @from: sector of its virtual disk with which the list begins
 * @to: sector before which it ends; or more, for all that there is.  Clusters are
 *	listed whole.
 * @data: object of the data: the image, or its external data file
 * @data_size: its size in bytes
 * @packed_object: number that extents of compressed clusters get; their offset
 *	is the one on the virtual disk of this image
 * @list: sorted extents are put here: data, and zero clusters as
 *	QC2_OBJECT_ZERO; what is in no extent comes from the backing file.  To
 *	be freed by the caller in any case.
 * @packed: the compressed clusters, or NULL if there are none.  The caller
 *	puts its reference, in any case.
 *
 * L2 tables are read in the order of the file, many by one read where they
 * lie close together, and only the entries that are needed.  Any thread may call
 * this, also several at once for one image.
 *
 * Return: 0 or a negative errno with @err filled (naming the object).
 */
int qc2_qcow2_extents(struct qc2_qcow2 *img, uint64_t from, uint64_t to,
		      uint32_t data, uint64_t data_size, uint32_t packed_object,
		      struct qc2_extents *list, struct qc2_packed **packed,
		      struct qc2_err *err);

#endif
