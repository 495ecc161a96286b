/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The control socket: a client sends one JSON object in one line, gets one
 * back in one line, and the connection ends; before that there may be others that
 * say how far it has come.  chaind(8) describes the commands.  Main thread only; a
 * slow client holds nobody up.
 */
#ifndef CHAIND_CONTROL_H
#define CHAIND_CONTROL_H

#include "chaind.h"

/**
 * control_new() - listen
 *
 * The caller holds the lock of the run directory, so a socket that exists is
 * a leftover and is replaced.
 *
 * Return: 0 or a negative errno with @err filled.
 */
int control_new(struct chaind *chaind, struct qc2_err *err);

/* Closes all connections and removes the socket. */
void control_free(struct control *control);

#endif
