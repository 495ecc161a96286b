/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Error texts.  No state, so any thread may call these; a struct qc2_err
 * belongs to one thread.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "err.h"

int qc2_fail(struct qc2_err *err, int errnum, const char *fmt, ...)
{
	va_list ap;

	if (err) {
		va_start(ap, fmt);
		vsnprintf(err->msg, sizeof(err->msg), fmt, ap);
		va_end(ap);
	}
	return -errnum;
}

int qc2_fail_prefix(struct qc2_err *err, int ret, const char *fmt, ...)
{
	char rest[sizeof(err->msg)];
	va_list ap;
	size_t len;

	if (!err)
		return ret;
	memcpy(rest, err->msg, sizeof(rest));
	va_start(ap, fmt);
	vsnprintf(err->msg, sizeof(err->msg), fmt, ap);
	va_end(ap);
	len = strlen(err->msg);
	snprintf(err->msg + len, sizeof(err->msg) - len, "%s", rest);
	return ret;
}

const char *qc2_printable(const char *text, size_t len, char *buf, size_t size)
{
	size_t i;

	for (i = 0; i < len && i + 1 < size && text[i]; i++)
		buf[i] = text[i] >= 0x20 && text[i] <= 0x7e ? text[i] : '?';
	buf[i] = '\0';
	return buf;
}
