/* SPDX-License-Identifier: GPL-2.0 */
/* Chains as chainctl opens them: with the configuration, without the daemon. */
#ifndef ACCESS_H
#define ACCESS_H

#include "chain.h"
#include "chainctl.h"
#include "store.h"

/* Must not move while its store is there. */
struct chain_access {
	struct qc2_store_config cfg;
	struct qc2_chain_limits limits;
	struct qc2_store *store;	/* the caller frees it */
};

/* Once in a process; the stores file stays in @ctl. */
int chain_access(struct ctl *ctl, struct chain_access *access, struct qc2_err *err);

#endif
