/* SPDX-License-Identifier: GPL-2.0 */
/* What is known of stores, and what they are given.  Main thread only. */
#include <stdlib.h>
#include <string.h>

#include "origin.h"

/* Of all requests for waiting reads, so many thousandths may be sent twice ... */
#define HEDGE_EARN	30
#define HEDGE_PRICE	1000
/* ... and so many at once after a quiet time. */
#define HEDGE_MOST	(3 * HEDGE_PRICE)
/*
 * The time that a request is given before it is sent again.  Where one in a hundred is
 * slow, the 99th percentile is already one of the slow ones.
 */
#define HEDGE_PERMILLE	980
#define HEDGE_MIN_SAMPLES	32
/* A wait shorter than that is the network's jitter. */
#define HEDGE_MIN_US	2000
/* No second request so long after the store asked for less. */
#define CALM_US		10000000
/* The limit is cut once for all answers of one overload. */
#define CUT_US		1000000
/* Failures in a row after which a store is asked by few at a time. */
#define MANY_FAILURES	3
#define FEW		2

#define MIN_BODY_US	500
#define MIN_CHUNK	(256U << 10)
#define MAX_CHUNK	(2U << 20)

/* Files have threads of their own. */
#define MAX_FILES	4

static unsigned int max_transfers = 1;
struct origin_list origins = LIST_HEAD_INITIALIZER(origins);

/* "https://host:port"; a file has no host. */
static size_t name_len(const char *url)
{
	const char *p = strstr(url, "://");

	return p ? (size_t)(p - url) + 3 + strcspn(p + 3, "/?#") : strlen(url);
}

void origin_setup(unsigned int connections)
{
	max_transfers = (connections * 3 + 3) / 4;
}

struct origin *origin_of(const char *url)
{
	size_t len = name_len(url);
	struct origin *o;
	int i;

	LIST_FOREACH(o, &origins, entry)
		if (!strncmp(o->name, url, len) && !o->name[len])
			return o;
	o = calloc(1, sizeof(*o));
	if (!o)
		return NULL;
	o->name = strndup(url, len);
	if (!o->name) {
		free(o);
		return NULL;
	}
	o->is_file = !strncmp(url, "file:", 5);
	o->max = o->is_file ? MAX_FILES : max_transfers;
	o->limit = o->max;
	for (i = 0; i < FETCH_CLASSES; i++)
		TAILQ_INIT(&o->queue[i]);
	TAILQ_INIT(&o->running_list);
	TAILQ_INIT(&o->resting);
	LIST_INSERT_HEAD(&origins, o, entry);
	return o;
}

void origin_cap(struct origin *o, unsigned int connections)
{
	if (connections < o->max)
		o->max = connections;
	if (o->limit > o->max)
		o->limit = o->max;
}

unsigned int origin_share(unsigned int room, enum fetch_class class)
{
	/* A quarter is kept for reads that wait; of one there is none. */
	return class == FETCH_DEMAND || room <= 1 ? room : room - (room + 3) / 4;
}

bool origin_has_room(const struct origin *o, enum fetch_class class, uint64_t now)
{
	unsigned int room = o->limit;

	if (o->needs_keys || now < o->not_before_us)
		return false;
	if (o->failures >= MANY_FAILURES && room > FEW)
		room = FEW;
	return origin_running(o) < origin_share(room, class);
}

void origin_first_byte(struct origin *o, uint64_t us)
{
	qc2_latency_add(&o->first_byte, us);
}

void origin_body(struct origin *o, uint64_t bytes, uint64_t us)
{
	uint64_t rate;

	/* What came at once says nothing of the rate. */
	if (bytes < MIN_CHUNK / 2)
		return;
	rate = bytes * 1000000 / (us < MIN_BODY_US ? MIN_BODY_US : us);
	o->bandwidth = o->bandwidth ? (o->bandwidth * 7 + rate) / 8 : rate;
}

bool origin_succeeded(struct origin *o)
{
	bool failed = o->failures >= MANY_FAILURES;

	if (o->limit < o->max && ++o->good >= o->limit) {
		o->limit++;
		o->good = 0;
	}
	if (o->trouble_logged)
		log_info("%s: answers again", o->name);
	o->trouble_logged = false;
	o->trouble.msg[0] = '\0';
	o->failures = 0;
	return failed;
}

static void trouble(struct origin *o, const struct qc2_err *err, uint64_t now)
{
	if (!o->trouble.msg[0])
		o->trouble_since_us = now;
	o->trouble = *err;
	o->failed_us = now;
	o->errors++;
	if (log_allowed(&o->log_limit)) {
		log_warn("%s", err->msg);
		o->trouble_logged = true;
	}
}

void origin_failed(struct origin *o, const struct qc2_err *err, uint64_t now)
{
	trouble(o, err, now);
	o->failures++;
}

void origin_throttled(struct origin *o, const struct qc2_err *err,
		      unsigned int retry_after_ms, uint64_t now)
{
	unsigned int running = origin_running(o);

	trouble(o, err, now);
	o->throttled++;
	if (now + retry_after_ms * 1000ULL > o->not_before_us)
		o->not_before_us = now + retry_after_ms * 1000ULL;
	if (o->cut_us && now - o->cut_us < CUT_US)
		return;
	o->cut_us = now;
	o->good = 0;
	if (running < o->limit)
		o->limit = running;
	o->limit = o->limit * 7 / 10;
	if (!o->limit)
		o->limit = 1;
}

uint64_t origin_hedge_us(const struct origin *o)
{
	uint64_t us;

	if (o->first_byte.nr < HEDGE_MIN_SAMPLES)
		return 0;
	us = qc2_latency_at(&o->first_byte, HEDGE_PERMILLE);
	return us < HEDGE_MIN_US ? HEDGE_MIN_US : us;
}

bool origin_is_calm(const struct origin *o, uint64_t now)
{
	return now >= o->not_before_us && (!o->cut_us || now - o->cut_us >= CALM_US);
}

bool origin_take_hedge(struct origin *o, uint64_t now)
{
	if (o->hedge_credit < HEDGE_PRICE || !origin_is_calm(o, now))
		return false;
	o->hedge_credit -= HEDGE_PRICE;
	o->hedges++;
	return true;
}

void origin_earn_hedge(struct origin *o)
{
	o->hedge_credit += HEDGE_EARN;
	if (o->hedge_credit > HEDGE_MOST)
		o->hedge_credit = HEDGE_MOST;
}

uint64_t origin_chunk(const struct origin *o)
{
	uint64_t us = qc2_latency_at(&o->first_byte, 500), chunk;

	if (!us || !o->bandwidth)
		return MIN_CHUNK;
	chunk = o->bandwidth / 1000 * us / 1000;
	return chunk < MIN_CHUNK ? MIN_CHUNK : chunk > MAX_CHUNK ? MAX_CHUNK : chunk;
}
