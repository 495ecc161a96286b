/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Output: sizes for people, texts from outside, JSON documents, progress, warnings.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <linux/dm-qcow2chain.h>

#include "chainctl.h"

const char *out_size(char buf[OUT_SIZE_LEN], uint64_t bytes)
{
	static const char *const unit[] = { "KiB", "MiB", "GiB", "TiB", "PiB" };
	double value = bytes / 1024.0;
	size_t i = 0;

	if (bytes < 1024) {
		snprintf(buf, OUT_SIZE_LEN, "%llu B", (unsigned long long)bytes);
		return buf;
	}
	while (value >= 1024 && i + 1 < sizeof(unit) / sizeof(unit[0])) {
		value /= 1024;
		i++;
	}
	snprintf(buf, OUT_SIZE_LEN, "%.1f %s", value, unit[i]);
	return buf;
}

void out_text(FILE *f, const char *text)
{
	for (; *text; text++) {
		unsigned char c = *text;

		fputc(c < 0x20 || c == 0x7f ? '?' : c, f);
	}
}

int out_json(json_t *doc, struct qc2_err *err)
{
	int ret;

	if (!doc)
		return qc2_fail(err, ENOMEM, "no JSON could be made: not enough memory, or a path that is not UTF-8");
	ret = json_dumpf(doc, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
	json_decref(doc);
	if (ret)
		return qc2_fail(err, EIO, "cannot write the output");
	putchar('\n');
	return 0;
}

void out_progress(const char *what, uint64_t done, uint64_t all, const char *more)
{
	static const char bar[] = "##############################";
	const int width = sizeof(bar) - 1;
	int part = all ? (double)done / all * width : 0;
	char size[OUT_SIZE_LEN];

	if (!isatty(STDERR_FILENO))
		return;
	fprintf(stderr, "\r%s [%-*.*s] %3d %% of %s", what, width, part, bar,
		all ? (int)((double)done / all * 100) : 0, out_size(size, all));
	out_text(stderr, more);
	fputs("\033[K", stderr);
}

void out_progress_end(void)
{
	if (isatty(STDERR_FILENO))
		fputs("\r\033[K", stderr);
}

void out_warn(const struct ctl *ctl, const char *fmt, ...)
{
	char msg[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(msg, sizeof(msg), fmt, ap);
	va_end(ap);
	fprintf(stderr, "chainctl: %s: warning: ", ctl->verb);
	out_text(stderr, msg);
	fputc('\n', stderr);
}

void out_chain_id(char hex[CHAIN_ID_HEX_LEN + 1], const uint8_t *id)
{
	for (int i = 0; i < QC2_CHAIN_ID_LEN; i++)
		sprintf(hex + 2 * i, "%02x", id[i]);
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

int parse_chain_id(const char *hex, uint8_t *id)
{
	if (strlen(hex) != CHAIN_ID_HEX_LEN)
		return -EINVAL;
	for (int i = 0; i < QC2_CHAIN_ID_LEN; i++) {
		int hi = hex_digit(hex[2 * i]);
		int lo = hex_digit(hex[2 * i + 1]);

		if (hi < 0 || lo < 0)
			return -EINVAL;
		id[i] = hi << 4 | lo;
	}
	return 0;
}
