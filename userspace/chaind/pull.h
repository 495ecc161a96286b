/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Pulls: making images local, for clients of the control socket.  fill.c does the work;
 * here its chain is opened, and the client is told.
 *
 * Main thread only.
 */
#ifndef CHAIND_PULL_H
#define CHAIND_PULL_H

#include "command.h"

/**
 * pull_start() - begin
 * @force: even if the cache is too small
 * @reply: called now and then while it goes on, with
 *	{"progress": {"url", "state", ...}}, and at its end with the same members and
 *	"ok", or with an error
 * @arg: for @reply, and for pull_abandon()
 *
 * Return: 0 or a negative errno with @err filled.
 */
int pull_start(struct chaind *chaind, const char *url, bool force, command_reply *reply,
	       void *arg, struct qc2_err *err);

/* The client is gone: its pull ends, if it has one.  What has come stays. */
void pull_abandon(void *arg);

/* All that run, for status. */
json_t *pulls_status(void);

#endif
