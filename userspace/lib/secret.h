/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Memory for secrets: pages of its own, left out of core dumps, wiped before
 * they are given back.  And small files read into it.  No locks; any thread.
 */
#ifndef QC2_SECRET_H
#define QC2_SECRET_H

#include <stdbool.h>
#include <stddef.h>

#include "err.h"

/* Zeroed.  NULL: out of memory. */
void *qc2_secret_alloc(size_t size);
void qc2_secret_free(void *p);	/* NULL is fine */

/**
 * qc2_secret_read() - read a small file into such memory
 * @max: a file of more bytes is refused
 * @guarded: refuse a file that is neither the caller's nor root's, that others can
 *	read, or that its group or others can write; and what is no plain file
 * @text: the content with a NUL behind it; to be freed with qc2_secret_free()
 * @len: its length; there is no other NUL in it
 *
 * Return: 0 or a negative errno with @err naming the file; never a piece of it.
 */
int qc2_secret_read(const char *path, size_t max, bool guarded, char **text, size_t *len,
		    struct qc2_err *err);

#endif
