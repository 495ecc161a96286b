/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Writing a new image into a store, in parts and by several threads, and reading it back.
 *
 * The object is complete or not there at all.  With a journal an upload that was broken off,
 * also by the end of the program, goes on where it was: what is in the journal is not sent
 * again.  The functions block; one image, one call at a time.
 */
#ifndef QC2_IMAGE_PUT_H
#define QC2_IMAGE_PUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "err.h"
#include "manifest.h"
#include "qcow2_write.h"

struct qc2_store_config;

/**
 * struct qc2_image_put - an image on its way
 * @cfg: when its stop becomes true the upload breaks off with -ECANCELED
 * @url: canonical; there must be no such object
 * @layout: what is written
 * @read: reads @nr blocks of the virtual disk, from @block on, into @buf; the last one is
 *	filled up with zeros.  Called from several threads at once, and must give the same each
 *	time.  Returns 0 or a negative errno with @err filled
 * @progress: called now and then, by one thread at a time, with bytes; may be NULL
 * @arg: for both
 * @threads: so many parts are sent at once; each needs memory for one
 * @journal: path of a file, which is removed at the end; NULL: none
 * @digests: of the object's blocks of QC2_DIGEST_BLOCK bytes, filled here; the caller frees
 *	them
 * @version: of the object, likewise
 */
struct qc2_image_put {
	const struct qc2_store_config *cfg;
	const char *url;
	const struct qc2_layout *layout;
	int (*read)(void *arg, uint64_t block, uint64_t nr, void *buf, struct qc2_err *err);
	void (*progress)(void *arg, uint64_t done, uint64_t total);
	void *arg;
	unsigned int threads;
	const char *journal;

	uint8_t (*digests)[QC2_DIGEST_LEN];
	uint64_t nr_digests;
	char *version;
};

/**
 * qc2_image_put() - write it, and see that what is in the store is it
 *
 * Return: 0 or a negative errno with @err filled: -EEXIST if there is another object with
 * that name; -EAGAIN, -ECANCELED and others, after which, with a journal, another call goes on.
 */
int qc2_image_put(struct qc2_image_put *put, struct qc2_err *err);

/* Throws away what an upload that will not go on has in the store, and its journal. */
int qc2_image_put_abort(const struct qc2_store_config *cfg, const char *journal,
			struct qc2_err *err);

#endif
