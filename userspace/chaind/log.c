/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Messages to stderr.  Each is one write, so lines of different threads do
 * not mix.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "log.h"

#define LIMIT_INTERVAL_US	10000000

static bool to_journal, with_debug;

void log_open(bool debug)
{
	to_journal = getenv("JOURNAL_STREAM") != NULL;
	with_debug = debug;
}

void log_msg(int level, const char *fmt, ...)
{
	char line[1400];
	va_list ap;
	size_t n;
	int len;

	if (level == LOG_DEBUG && !with_debug)
		return;
	n = to_journal ? snprintf(line, sizeof(line), "<%d>", level) :
			 snprintf(line, sizeof(line), "chaind: ");
	va_start(ap, fmt);
	len = vsnprintf(line + n, sizeof(line) - n - 1, fmt, ap);
	va_end(ap);
	if (len < 0)
		return;
	n += (size_t)len < sizeof(line) - n - 1 ? (size_t)len :
						  sizeof(line) - n - 2;
	line[n++] = '\n';
	if (write(STDERR_FILENO, line, n) < 0)
		return;		/* there is nowhere to say so */
}

uint64_t now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000ULL + ts.tv_nsec / 1000;
}

bool log_allowed(struct log_limit *limit)
{
	uint64_t now = now_us();

	if (now < limit->next_us)
		return false;
	limit->next_us = now + LIMIT_INTERVAL_US;
	return true;
}
