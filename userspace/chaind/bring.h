/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Bringing blocks: they are looked for in the cache's index, by name and by content, and
 * what is not there is fetched.  Main thread only.
 */
#ifndef CHAIND_BRING_H
#define CHAIND_BRING_H

#include "fetch.h"

struct chaind;

/**
 * bring_start() - have blocks of an object brought into the cache
 *
 * As fetch_start(): block_done() is called for each.
 */
int bring_start(struct chaind *chaind, enum fetch_class class, struct block **blocks,
		unsigned int nr, struct fetch_stats *stats);

#endif
