/* SPDX-License-Identifier: GPL-2.0 */
/* Files: what store_ops.h does with objects, for file:// URLs.  No state is shared. */
#ifndef QC2_STORE_FILE_H
#define QC2_STORE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "err.h"

/**
 * qc2_file_version() - size and modification time are the version of a file
 * @version: the caller frees it
 *
 * Return: 0 or a negative errno with @err filled, also if it is no regular file.
 */
int qc2_file_version(const char *url, const char *path, char **version, uint64_t *size,
		     struct qc2_err *err);

/*
 * Writes a file: beside its place, and durable before it takes that.  With @if_absent
 * it fails with -EEXIST if there is one, with @if_version with -ESTALE if that is another
 * one; whoever writes at the same moment may still come between for the latter.
 */
int qc2_file_put(const char *path, const void *buf, size_t len, bool if_absent,
		 const char *if_version, struct qc2_err *err);

int qc2_file_delete(const char *path, struct qc2_err *err);

/* As qc2_list(); folders that links lead to are left out. */
int qc2_file_list(const char *path, int (*fn)(void *arg, const char *url, uint64_t size),
		  void *arg, struct qc2_err *err);

/* An upload in parts is a file beside the place. */
int qc2_file_start(const char *path, char **temp, struct qc2_err *err);
int qc2_file_part(const char *temp, uint64_t offset, const void *buf, size_t len,
		  struct qc2_err *err);
int qc2_file_complete(const char *path, const char *temp, bool if_absent,
		      struct qc2_err *err);

#endif
