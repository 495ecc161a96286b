/* SPDX-License-Identifier: GPL-2.0 */
/* The budget for retries: a bucket of tokens, in atomic variables. */
#include <stdatomic.h>
#include <time.h>

#include "retry_budget.h"

#define RETRY	10			/* a success gives one token */
#define FULL	(100 * RETRY)

static atomic_int tokens = FULL;
static atomic_llong refilled;		/* the second it was last done for */

static void give(int nr)
{
	int old = atomic_load(&tokens), new;

	do {
		new = old + nr < FULL ? old + nr : FULL;
	} while (!atomic_compare_exchange_weak(&tokens, &old, new));
}

bool qc2_retry_allowed(void)
{
	struct timespec ts;
	long long last = atomic_load(&refilled);
	int old;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &ts);
	/* One retry for any number of seconds: it is there for him who waits. */
	if (ts.tv_sec > last && atomic_compare_exchange_strong(&refilled, &last, ts.tv_sec))
		give(RETRY);
	old = atomic_load(&tokens);
	do {
		if (old < RETRY)
			return false;
	} while (!atomic_compare_exchange_weak(&tokens, &old, old - RETRY));
	return true;
}

void qc2_retry_success(void)
{
	if (atomic_load(&tokens) < FULL)
		give(1);
}
