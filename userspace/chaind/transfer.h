/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Transfers: one ranged GET each, from a server by libcurl's multi interface in the main
 * loop, from a file in a thread of a pool.  What a transfer shows of its store is told
 * to the origin.  Credentials that have to be asked for are asked for in a thread, too.
 *
 * Main thread only, but for a file's data().
 */
#ifndef CHAIND_TRANSFER_H
#define CHAIND_TRANSFER_H

#include <systemd/sd-event.h>

#include "origin.h"
#include "pool.h"
#include "store.h"

struct transfers;

/**
 * struct transfer - one GET
 * @get: its public fields but @get.arg, which is the transfer
 * @done: called when it has ended, with 0 or a negative errno as of
 *	qc2_get_finish(); the transfer is its owner's again
 *
 * The rest is private.
 */
struct transfer {
	struct qc2_get get;
	struct origin *origin;
	enum fetch_class class;
	void (*done)(struct transfer *t, int ret, const struct qc2_err *err);

	struct transfers *all;
	uint64_t start_us, first_us, last_us;	/* data came first, last; 0: not yet */
	int (*data)(void *arg, const void *buf, size_t len);
	CURL *easy;
	struct job job;			/* of a file, and its result */
	int ret;
	struct qc2_err err;
};

/**
 * transfers_new() - set up
 * @connections: idle connections to keep
 * @wake: called when credentials have come, so that more may be started
 *
 * Return: 0 or a negative errno.
 */
int transfers_new(struct transfers **all, sd_event *event,
		  const struct qc2_store_config *cfg, unsigned int connections,
		  void (*wake)(void *arg), void *arg);

/* For the end of the program: waits for the threads. */
void transfers_stop(struct transfers *all);

/**
 * transfer_start() - send the request
 *
 * Calls nothing back before it returns.
 *
 * Return: 0; -EAGAIN with @t->get.needs_keys: credentials are being asked for, and
 * the origin has no room until they are there; or another negative errno with @err
 * filled.  @t is its owner's again then.
 */
int transfer_start(struct transfers *all, struct transfer *t, struct qc2_err *err);

/* Ends a transfer from a server; done() is not called. */
void transfer_cancel(struct transfer *t);

#endif
