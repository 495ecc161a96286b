/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The commands of the control socket, without the socket.  Main thread only.
 */
#ifndef CHAIND_COMMAND_H
#define CHAIND_COMMAND_H

#include <jansson.h>

#include "chaind.h"

/**
 * command_run() - carry a request out
 * @request: any JSON value
 * @reply: called once with the reply, which it takes over; at once or, for a
 *	chain that has to be opened, later
 * @arg: for @reply; with it command_abandon() calls a later reply off
 */
void command_run(struct chaind *chaind, json_t *request,
		 void (*reply)(void *arg, json_t *reply), void *arg);

/* The client is gone: what it asked to be opened is closed. */
void command_abandon(struct chaind *chaind, void *arg);

/* {"ok": false, ...} */
json_t *command_error(int ret, const char *text);

#endif
