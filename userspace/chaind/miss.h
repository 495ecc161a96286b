/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Misses: the kernel's requests.  A request is answered from index and cache,
 * at once if they know all of it; otherwise what is missing is fetched, and
 * each time blocks have come the request is looked at again: the part that
 * can be answered is, the rest waits on.
 *
 * Main thread only.
 */
#ifndef CHAIND_MISS_H
#define CHAIND_MISS_H

#include <stdint.h>

#include "kernel.h"
#include "object.h"

struct chaind;
struct disk;

/* Return: 0 or a negative errno. */
int misses_new(struct misses **misses, struct chaind *chaind);

/*
 * A request came; it is handled from the event loop, once however often it
 * comes.  Return: 0 or -ENOMEM.
 */
int miss_request(struct disk *disk, const struct kernel_request *kreq);

/* The chain is open now, or will not be: look at all requests of the disk. */
void miss_retry(struct disk *disk);

/* Forget all requests of a disk, without an answer. */
void miss_drop(struct disk *disk);

/* For status: requests not answered yet, and the age of the oldest. */
void miss_waiting(const struct disk *disk, unsigned int *nr,
		  uint64_t *oldest_ms);

/* Called by the fetcher; takes the block. */
void miss_block_done(struct block *block, int ret);

#endif
