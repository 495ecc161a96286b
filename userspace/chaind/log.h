/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Messages to stderr, with syslog levels in front ("<3>") when the journal
 * reads it.  May be called from any thread.
 */
#ifndef CHAIND_LOG_H
#define CHAIND_LOG_H

#include <stdbool.h>
#include <stdint.h>
#include <syslog.h>

void log_open(bool debug);

void log_msg(int level, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

#define log_err(...)	log_msg(LOG_ERR, __VA_ARGS__)
#define log_warn(...)	log_msg(LOG_WARNING, __VA_ARGS__)
#define log_info(...)	log_msg(LOG_INFO, __VA_ARGS__)
#define log_debug(...)	log_msg(LOG_DEBUG, __VA_ARGS__)

/* For messages that a failing store or device could repeat without end. */
struct log_limit {
	uint64_t next_us;
};

/* Whether to log now: once in ten seconds.  Main thread only. */
bool log_allowed(struct log_limit *limit);

/* CLOCK_MONOTONIC in microseconds */
uint64_t now_us(void);

#endif
