/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Origins: the stores that objects come from, one for each scheme, host and port (of
 * s3:// and azure://: bucket or account).  What is measured of a store, how many
 * transfers it is given at once, and its trouble are kept here, so that one store that
 * is slow, throttles or hangs holds up nothing but the reads that need it.
 *
 * There are few, and they are never freed.  Main thread only.
 */
#ifndef CHAIND_ORIGIN_H
#define CHAIND_ORIGIN_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "err.h"
#include "latency.h"
#include "log.h"
#include "store.h"

/* What is fetched in which order; each has queues of its own. */
enum fetch_class {
	FETCH_DEMAND,		/* a request waits for it */
	FETCH_AHEAD,		/* may be wanted soon */
	FETCH_CLASSES
};

struct fetch;
TAILQ_HEAD(fetch_list, fetch);

struct origin {
	char *name;			/* "https://host:port", "s3://bucket" */
	bool is_file;
	/* Of the fetcher: to be started, under way, and between two tries. */
	struct fetch_list queue[FETCH_CLASSES];
	struct fetch_list running_list;
	struct fetch_list resting;
	unsigned int running[FETCH_CLASSES];	/* transfers */
	unsigned int bufs;		/* that wait for their bytes */

	unsigned int max;		/* transfers at once by configuration */
	unsigned int limit;		/* that it stands, 1 to @max */
	unsigned int good;		/* successes since @limit was changed */
	uint64_t cut_us;		/* when @limit was cut */
	uint64_t not_before_us;		/* it asked for a pause up to then */
	bool needs_keys;		/* nothing starts until it has credentials ... */
	const struct qc2_site *keys_site;	/* ... of this site */

	struct qc2_latency first_byte;	/* from the request to it */
	uint64_t bandwidth;		/* of one transfer, bytes/s; 0: not known */
	unsigned int hedge_credit;	/* thousandths of a request */

	/* For status. */
	uint64_t requests, bytes, errors, retries, hedges, hedges_won, throttled;
	/* The last error, and since when there was nothing but errors; or empty. */
	struct qc2_err trouble;
	uint64_t trouble_since_us;
	unsigned int failures;		/* in a row */
	uint64_t failed_us;		/* when the last one was */
	bool trouble_logged;
	struct log_limit log_limit;
	LIST_ENTRY(origin) entry;
};
LIST_HEAD(origin_list, origin);

/* All that there are. */
extern struct origin_list origins;

/* Before all else: how many transfers at once there may be, to all origins together. */
void origin_setup(unsigned int connections);

/* The origin of a canonical URL; NULL for lack of memory. */
struct origin *origin_of(const char *url);

/* The stores file has a limit for it. */
void origin_cap(struct origin *o, unsigned int connections);

/* How many of @room transfers a class may have, if there are no others. */
unsigned int origin_share(unsigned int room, enum fetch_class class);

/* Whether one more transfer may be started now. */
bool origin_has_room(const struct origin *o, enum fetch_class class, uint64_t now);

static inline unsigned int origin_running(const struct origin *o)
{
	return o->running[FETCH_DEMAND] + o->running[FETCH_AHEAD];
}

/* What is learned from a transfer: the first byte came after so long ... */
void origin_first_byte(struct origin *o, uint64_t us);
/* ... and the rest, @bytes, after @us more. */
void origin_body(struct origin *o, uint64_t bytes, uint64_t us);
/* It has succeeded.  Returns true if the store did not answer at all until now. */
bool origin_succeeded(struct origin *o);
/* It has failed in a way that may pass. */
void origin_failed(struct origin *o, const struct qc2_err *err, uint64_t now);
/*
 * The store asked for less, and perhaps for a pause.  It answers, so that is no failure.
 * The transfer that was told so is still among those that run.
 */
void origin_throttled(struct origin *o, const struct qc2_err *err,
		      unsigned int retry_after_ms, uint64_t now);

/**
 * origin_hedge_us() - after how long without a byte a second request is worth it
 *
 * Return: microseconds; 0: too little is known.
 */
uint64_t origin_hedge_us(const struct origin *o);
/* Whether the store has not asked for less lately. */
bool origin_is_calm(const struct origin *o, uint64_t now);
/* Whether a second request may be sent now; it is paid for then. */
bool origin_take_hedge(struct origin *o, uint64_t now);
/* A request for a waiting read was sent, which earns a part of a second one. */
void origin_earn_hedge(struct origin *o);

/*
 * Bytes whose transfer takes about as long as the wait for the first of them: larger
 * requests save little, and what is behind them waits longer.
 */
uint64_t origin_chunk(const struct origin *o);

#endif
