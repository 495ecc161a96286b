/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Storing blocks in the regional cache, in the background: a copy of each waits in a queue
 * for a thread that packs it and sends one PUT.  Nothing waits for that.  When the queue
 * is full, and for a while after a failure, blocks are dropped: whoever misses them next
 * stores them.
 *
 * Main thread only; a thread sees its own copy, and what never changes.
 */
#ifndef CHAIND_REGION_STORE_H
#define CHAIND_REGION_STORE_H

#include <systemd/sd-event.h>

#include "err.h"
#include "region_block.h"
#include "store.h"

struct region_store;

struct region_store_stats {
	uint64_t stored;
	uint64_t dropped;		/* were not even tried */
	uint64_t errors;
	unsigned int queued;		/* now, or being sent */
	const struct qc2_err *trouble;	/* the last PUT failed; empty: it did not */
};

/**
 * region_store_new() - set up
 * @prefix: of the cache's URLs, ends in '/'; must stay, as @key and @cfg
 * @key: NULL: none
 *
 * Return: 0 or a negative errno.
 */
int region_store_new(struct region_store **store, sd_event *event, const char *prefix,
		     const struct qc2_region_key *key, const struct qc2_store_config *cfg);

/* For the end of the program: breaks off what is being sent. */
void region_store_stop(struct region_store *store);

/**
 * region_store_add() - store a block
 * @digest: that it must have, QC2_DIGEST_LEN bytes, or it is not stored; NULL: any
 * @content: QC2_DIGEST_BLOCK bytes, which are copied
 */
void region_store_add(struct region_store *store, const uint8_t name[QC2_REGION_NAME_LEN],
		      const uint8_t *digest, const void *content);

void region_store_get_stats(const struct region_store *store, struct region_store_stats *stats);

#endif
