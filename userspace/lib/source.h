/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the image code reads from: an object of known size, pinned to one
 * version.  The stores (HTTP, files) implement it; unit tests use files and
 * memory.  Reads are synchronous; several threads may read from a source, and open
 * others, at once.
 */
#ifndef QC2_SOURCE_H
#define QC2_SOURCE_H

#include <stddef.h>
#include <stdint.h>

#include "err.h"

/*
 * What opening a source reads of it at once, in bytes: the header, with all that
 * lies in the same cluster, and all tables of a small image.
 */
#define QC2_HEAD_BYTES		(12 << 10)

struct qc2_source;

struct qc2_source_ops {
	/*
	 * Read exactly @len bytes at @offset.  The caller keeps to the size
	 * of the object.  Returns 0 or a negative errno with @err filled.
	 */
	int (*read)(struct qc2_source *src, uint64_t offset, void *buf,
		    size_t len, struct qc2_err *err);
	void (*close)(struct qc2_source *src);
};

struct qc2_source {
	const struct qc2_source_ops *ops;
	char *url;		/* as errors and status name it; owned */
	uint64_t size;		/* bytes, at most INT64_MAX */
	char *version;		/* ETag or equivalent; never NULL; owned */
};

/* Opens the object at a URL; how is the caller's business (stores, tests). */
struct qc2_opener {
	int (*open)(struct qc2_opener *opener, const char *url,
		    struct qc2_source **src, struct qc2_err *err);
	/* The same, reading @head bytes at once.  NULL: as many as always. */
	int (*open_head)(struct qc2_opener *opener, const char *url, size_t head,
			 struct qc2_source **src, struct qc2_err *err);
};

#endif
