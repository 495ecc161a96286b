/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Replicas: other places where the stores file says that an object is, too.
 *
 * One is used once it was found to have the size of the object and the same bytes at
 * its beginning, in its middle and at its end; from then on it is pinned to the version
 * seen there, as the object itself is to its own.  Blocks that have a digest in the
 * manifest of the chain are verified wherever they come from.
 *
 * Main thread only; comparing is a job in a thread.
 */
#ifndef CHAIND_REPLICA_H
#define CHAIND_REPLICA_H

#include <systemd/sd-event.h>

#include "object.h"
#include "store.h"

struct replicas;

/* Return: 0 or a negative errno. */
int replicas_new(struct replicas **replicas, sd_event *event,
		 const struct qc2_store_config *cfg);

/* For the end of the program: waits for the threads. */
void replicas_stop(struct replicas *replicas);

/* Adds the places that the stores file has for an object, if they were not yet. */
void replicas_find(struct replicas *replicas, struct object *obj);

#endif
