/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What is done with objects besides reading them: asking for size and version, listing,
 * writing whole or in parts, deleting.  Every function blocks; any thread may call
 * any of them at any time.
 *
 * URLs are canonical.  A failure that may pass is retried a few times, as long as the
 * budget for retries (retry_budget.h) lasts and for two minutes at most; credentials are
 * renewed in between.  Errors are negative errno with @err filled, naming the object:
 * -ENOENT, -EACCES, -EEXIST, -ESTALE if the object is another one than it must be,
 * -ENOTSUP if such a store cannot do it, -EAGAIN if trying again later may help, others.
 */
#ifndef QC2_STORE_OPS_H
#define QC2_STORE_OPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "err.h"

struct qc2_store_config;

/**
 * qc2_head() - size and version of an object
 * @version: as in struct qc2_source; the caller frees it
 */
int qc2_head(const struct qc2_store_config *cfg, const char *url, uint64_t *size,
	     char **version, struct qc2_err *err);

/**
 * qc2_list() - all objects in a folder and those below it
 * @prefix: ends in '/'; see qc2_url_prefix().  A folder that is not there is empty.
 * @fn: is given the canonical URL of each, in any order; returns 0, or a negative
 *	errno to break off.  Objects whose names no URL has are left out.
 *
 * Web servers have no lists: -ENOTSUP.
 */
int qc2_list(const struct qc2_store_config *cfg, const char *prefix,
	     int (*fn)(void *arg, const char *url, uint64_t size), void *arg,
	     struct qc2_err *err);

/* On what condition an object is written. */
struct qc2_put_if {
	bool absent;			/* there is no such object; else -EEXIST */
	/* It has this version; else -ESTALE.  -ENOTSUP: no server compares with that one. */
	const char *version;
};

/**
 * qc2_put() - write an object as a whole
 * @cond: NULL: whatever is there
 * @version: of what was written, if the store told; else NULL.  The caller frees it; may
 *	be NULL itself
 *
 * Nobody sees a part of it in a file or an object store; whether a web server, which must
 * allow PUT, does the same is its business.  With @cond->absent, -EEXIST is never about
 * what an earlier try of this call wrote.
 */
int qc2_put(const struct qc2_store_config *cfg, const char *url, const void *buf,
	    size_t len, const struct qc2_put_if *cond, char **version, struct qc2_err *err);

/* The same into a file: written beside it, and durable before it takes its place. */
int qc2_put_file(const char *path, const void *buf, size_t len, struct qc2_err *err);

/* Deletes an object; one that is not there is fine. */
int qc2_delete(const struct qc2_store_config *cfg, const char *url, struct qc2_err *err);

struct qc2_upload;

/**
 * qc2_upload_start() - begin to write an object in parts
 * @part_bytes: of each part but the last; stores want 5 MiB to 5 GiB and at most 10000
 *	parts
 * @upload: to be ended with qc2_upload_complete() or qc2_upload_abort(), and freed then
 *
 * Nobody sees the object before it is complete.
 */
int qc2_upload_start(const struct qc2_store_config *cfg, const char *url, size_t part_bytes,
		     struct qc2_upload **upload, struct qc2_err *err);

/*
 * An upload that was begun before, perhaps by another process: with its id, and what is known
 * of the parts that were sent.  Whether the store still has it shows with the next part.
 */
int qc2_upload_resume(const struct qc2_store_config *cfg, const char *url, size_t part_bytes,
		      const char *id, struct qc2_upload **upload, struct qc2_err *err);
const char *qc2_upload_id(const struct qc2_upload *upload);
/* What the store called a part, "" if it has no name; NULL: it was not sent. */
const char *qc2_upload_etag(struct qc2_upload *upload, unsigned int nr);
/* Return: 0 or -ENOMEM. */
int qc2_upload_set_part(struct qc2_upload *upload, unsigned int nr, const char *etag, size_t len);

/* Sends a part, from number 1 on, in any order and from several threads at once. */
int qc2_upload_part(struct qc2_upload *upload, unsigned int nr, const void *buf, size_t len,
		    struct qc2_err *err);

/**
 * qc2_upload_complete() - put the object together
 * @nr_parts: all of which were sent
 * @if_absent: -EEXIST if there is such an object already.  Some servers (Ceph's) do not
 *	care and replace it
 * @version: of the object; the caller frees it
 */
int qc2_upload_complete(struct qc2_upload *upload, unsigned int nr_parts, bool if_absent,
			char **version, struct qc2_err *err);

/* Throws the parts away; if that fails, they stay and cost space until somebody does. */
int qc2_upload_abort(struct qc2_upload *upload, struct qc2_err *err);
void qc2_upload_free(struct qc2_upload *upload);

#endif
