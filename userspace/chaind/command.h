/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The commands of the control socket, without the socket.  Main thread only.
 */
#ifndef CHAIND_COMMAND_H
#define CHAIND_COMMAND_H

#include <jansson.h>

#include "chaind.h"

/*
 * Takes a message for the client over: its reply if it is the @last one, else how far it
 * has come, which may be left out if the client is slow.
 */
typedef void command_reply(void *arg, json_t *message, bool last);

/**
 * command_run() - carry a request out
 * @request: any JSON value
 * @reply: called at once or, for a chain that has to be opened, later
 * @arg: for @reply; with it command_abandon() calls a later reply off
 */
void command_run(struct chaind *chaind, json_t *request, command_reply *reply, void *arg);

/* The client is gone: what it asked to be opened or pulled is closed. */
void command_abandon(struct chaind *chaind, void *arg);

/* {"ok": false, ...} */
json_t *command_error(int ret, const char *text);

/* A text, which may repeat bytes of an image, which need not be UTF-8. */
json_t *command_text(const char *text);

/* The first link whose store is in trouble, or the opening, if it is; else null. */
json_t *command_stalled(const struct disk *disk);

#endif
