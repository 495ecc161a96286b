/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Error texts.  A function that can fail for reasons a user must understand
 * takes a struct qc2_err and fills it once, where the reason is known: the
 * object, the offset, what was expected, what to do.
 */
#ifndef QC2_ERR_H
#define QC2_ERR_H

#include <stddef.h>

struct qc2_err {
	char msg[1024];
};

/**
 * qc2_fail() - set the text of an error
 * @err: may be NULL
 * @errnum: positive errno
 * @fmt: printf format; no newline at the end
 *
 * Return: -@errnum, for "return qc2_fail(...)".
 */
int qc2_fail(struct qc2_err *err, int errnum, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/**
 * qc2_fail_prefix() - put the circumstances in front of an error's text
 * @err: may be NULL
 * @ret: negative errno that the failed function returned
 * @fmt: printf format
 *
 * Return: @ret.
 */
int qc2_fail_prefix(struct qc2_err *err, int ret, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/**
 * qc2_printable() - make bytes from outside fit for a message
 * @text: not necessarily terminated
 * @len: its length; it ends at a NUL before that too
 * @buf: takes the copy, in which bytes that are not printable ASCII are '?'
 * @size: of @buf; a longer text is cut
 *
 * Return: @buf.
 */
const char *qc2_printable(const char *text, size_t len, char *buf, size_t size);

#endif
