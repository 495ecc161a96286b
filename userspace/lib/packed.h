/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The compressed clusters of one image: where each is, and what it unpacks to.
 * A list never changes once it is built, so any thread may read it.
 */
#ifndef QC2_PACKED_H
#define QC2_PACKED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "err.h"

/**
 * struct qc2_packed_cluster - a compressed cluster
 * @offset: in the image file, bytes
 * @cluster: number of the cluster on the virtual disk of the image
 * @len: bytes in the file, at most; the stream may end earlier
 */
struct qc2_packed_cluster {
	uint64_t offset;
	uint32_t cluster;
	uint32_t len;
};

struct qc2_packed {
	unsigned int refs;		/* changed atomically */
	unsigned int cluster_bits;
	int compression;		/* enum qc2_compression */
	size_t nr, alloc;
	struct qc2_packed_cluster *v;	/* by cluster */
};

/* An empty list with one reference, or NULL for lack of memory. */
struct qc2_packed *qc2_packed_new(unsigned int cluster_bits, int compression);
struct qc2_packed *qc2_packed_ref(struct qc2_packed *packed);
/* NULL is fine. */
void qc2_packed_put(struct qc2_packed *packed);

/* For building: appends; at the end all are put in order.  0 or -ENOMEM. */
int qc2_packed_add(struct qc2_packed *packed, uint64_t offset, uint32_t cluster,
		   uint32_t len);
void qc2_packed_sort(struct qc2_packed *packed);

/* Position of the first one with that number or a greater one; or @nr. */
size_t qc2_packed_find(const struct qc2_packed *packed, uint64_t cluster);

/* Whether both say the same. */
bool qc2_packed_same(const struct qc2_packed *a, const struct qc2_packed *b);

/**
 * qc2_unpack() - decompress a cluster
 * @packed: of the image
 * @in: the compressed bytes; what is behind the end of the stream is ignored
 * @in_len: their number
 * @out: room for a whole cluster
 *
 * Return: 0; -EINVAL if the data is damaged, that is, is no stream or does not
 * unpack to a whole cluster; or -ENOMEM.
 */
int qc2_unpack(const struct qc2_packed *packed, const void *in, size_t in_len,
	       void *out);

#endif
