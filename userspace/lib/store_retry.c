/* SPDX-License-Identifier: GPL-2.0 */
/* Retries of requests by those who can block.  No state is shared but the budget. */
#include <errno.h>
#include <time.h>

#include "retry_budget.h"
#include "store.h"
#include "store_retry.h"

#define MAX_TRIES		5
#define MAX_BACKOFF_MS		4000
/* Region, then clock; and keys may expire just when they are used. */
#define MAX_CORRECTIONS		2

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000ULL + ts.tv_nsec / 1000000;
}

void qc2_retry_begin(struct qc2_retry *retry)
{
	retry->start = now_ms();
}

int qc2_retry_again(struct qc2_retry *retry, int ret, const struct qc2_outcome *outcome,
		    unsigned int *wait_ms, struct qc2_err *err)
{
	uint64_t end = retry->start + retry->max_ms;

	*wait_ms = 0;
	if (ret != -EAGAIN)
		return ret;
	if (outcome->needs_keys) {
		ret = qc2_credentials_refresh(outcome->site->creds, err);
		if (ret)
			qc2_fail_prefix(err, ret, "%.400s: ", outcome->url);
		else if (retry->renewals++ == MAX_CORRECTIONS)
			ret = qc2_fail(err, EACCES, "%s: the store rejects all new keys",
				       outcome->url);
		if (ret != -EAGAIN)
			return ret;
	}
	if (outcome->corrected && retry->corrections++ < MAX_CORRECTIONS)
		return 0;
	if (++retry->tries == MAX_TRIES || !qc2_retry_allowed())
		return -EAGAIN;
	*wait_ms = qc2_backoff_ms(retry->tries, MAX_BACKOFF_MS);
	if (*wait_ms < outcome->retry_after_ms)
		*wait_ms = outcome->retry_after_ms;
	return now_ms() + *wait_ms > end ? -EAGAIN : 0;
}
