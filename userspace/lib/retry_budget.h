/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The budget for retries, of the whole process: when a store is in trouble, requests that
 * are repeated must not be most of its load.  About a tenth of the requests may be
 * retries; there are 100 to begin with, and one a second always, so that whoever waits
 * for a store to come back finds out.
 *
 * Any thread may call these functions; there is no lock.
 */
#ifndef QC2_RETRY_BUDGET_H
#define QC2_RETRY_BUDGET_H

#include <stdbool.h>

/* Takes one retry out of the budget; false: there is none, so do not try again yet. */
bool qc2_retry_allowed(void);

/* A request succeeded. */
void qc2_retry_success(void);

#endif
