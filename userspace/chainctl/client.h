/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Requests to chaind over its control socket: one connection, one JSON object
 * and one answer for each request; before that, for some, how far it has come.
 */
#ifndef CHAINCTL_CLIENT_H
#define CHAINCTL_CLIENT_H

#include <stdint.h>

#include <jansson.h>

#include "err.h"

/* For requests that the daemon answers at once */
#define CLIENT_LIMIT_MS		10000
/* For as long as the daemon lives */
#define CLIENT_NO_LIMIT		-1

/**
 * client_call() - send a request and wait for the answer
 * @socket_path: where the daemon listens
 * @request: reference is taken over; NULL (no memory) fails
 * @limit_ms: time for all of it, or CLIENT_NO_LIMIT
 * @cancel_fd: the call ends with -EINTR when this becomes readable; -1: none
 * @reply: the answer, to be dropped with json_decref(); may be NULL
 *
 * Return: 0; -ENOTCONN if the daemon does not run, -ETIME if it does not
 * answer in time, -EBADE if not sensibly; the daemon's own -errno if it
 * refuses.
 */
int client_call(const char *socket_path, json_t *request, int limit_ms, int cancel_fd,
		json_t **reply, struct qc2_err *err);

/**
 * client_follow() - the same, without a time limit, and being told meanwhile
 * @progress: called with "progress" of each message that comes before the answer
 */
int client_follow(const char *socket_path, json_t *request,
		  void (*progress)(void *arg, const json_t *progress), void *arg,
		  json_t **reply, struct qc2_err *err);

/* The members of an answer; "" and 0 if missing or of another type. */
const char *client_str(const json_t *obj, const char *key);
uint64_t client_u64(const json_t *obj, const char *key);

#endif
