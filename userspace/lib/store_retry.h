/* SPDX-License-Identifier: GPL-2.0 */
/*
 * When a request that failed is sent again, for those who can block.  A struct qc2_retry
 * belongs to one thread.
 */
#ifndef QC2_STORE_RETRY_H
#define QC2_STORE_RETRY_H

#include <stdbool.h>
#include <stdint.h>

#include "err.h"
#include "site.h"

/* All tries of one request; zeroed but for @max_ms. */
struct qc2_retry {
	unsigned int max_ms;		/* no try begins later than this after the first */
	uint64_t start;
	unsigned int tries, corrections, renewals;
};

/* What is known of the last one; see struct qc2_get. */
struct qc2_outcome {
	const char *url;
	struct qc2_site *site;
	unsigned int retry_after_ms;
	bool corrected, needs_keys;
};

/* Before the first try. */
void qc2_retry_begin(struct qc2_retry *retry);

/**
 * qc2_retry_again() - a try failed
 * @ret: its result
 * @wait_ms: before the next one
 * @err: its text; is replaced if getting credentials failed
 *
 * Gets new credentials if needed, which blocks.
 *
 * Return: 0 to try again; else the result that counts.
 */
int qc2_retry_again(struct qc2_retry *retry, int ret, const struct qc2_outcome *outcome,
		    unsigned int *wait_ms, struct qc2_err *err);

#endif
