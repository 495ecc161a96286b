/* SPDX-License-Identifier: GPL-2.0 */
/* libcurl's multi interface in an sd-event loop.  Main thread only. */
#ifndef CHAIND_MULTI_H
#define CHAIND_MULTI_H

#include <curl/curl.h>
#include <systemd/sd-event.h>

struct multi;

/**
 * multi_new() - set up
 * @connections: idle connections to keep
 * @done: a transfer ended; @arg is the easy handle's CURLOPT_PRIVATE.  The
 *	handle is no longer in use then.
 *
 * Return: 0 or a negative errno.
 */
int multi_new(struct multi **multi, sd_event *event, unsigned int connections,
	      void (*done)(void *arg, CURLcode code));

/* Starts a transfer; calls nothing back before it returns. */
int multi_add(struct multi *multi, CURL *easy);

/* Ends one without a word.  Not from within a callback of libcurl. */
void multi_remove(struct multi *multi, CURL *easy);

#endif
