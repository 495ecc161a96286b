/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Unpacking compressed clusters on their way into the cache: which ranges of
 * the image file have to be fetched for some bytes of the virtual disk, the
 * memory for them, and the result.
 *
 * One thread at a time.
 */
#ifndef CHAIND_UNPACK_H
#define CHAIND_UNPACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "packed.h"

struct unpack;

/**
 * unpack_new() - find out what has to be fetched
 * @packed: compressed clusters of the image; a reference is taken
 * @start: first byte of the virtual disk that is wanted
 * @end: behind the last
 *
 * Return: NULL for lack of memory.
 */
struct unpack *unpack_new(struct qc2_packed *packed, uint64_t start,
			  uint64_t end);
void unpack_free(struct unpack *unpack);

/* The range of the file to be fetched now; false if all of them were. */
bool unpack_range(const struct unpack *unpack, uint64_t *offset, size_t *len);
/* The next bytes of that range. */
void unpack_data(struct unpack *unpack, const void *data, size_t len);
/* The range was fetched wholly (on to the next), or has to be fetched again. */
void unpack_range_done(struct unpack *unpack, bool ok);

/**
 * unpack_run() - unpack what was fetched
 * @out: the memory for [start, end), in pieces of @piece bytes
 * @damaged: set for each piece that a damaged cluster belongs to
 * @bad: offset in the file of such a cluster, after -EINVAL
 *
 * Bytes that are in no compressed cluster become zeros.
 *
 * Return: 0; -EINVAL if there are damaged clusters, all others are unpacked;
 * or -ENOMEM.
 */
int unpack_run(struct unpack *unpack, void *const *out, size_t piece,
	       bool *damaged, uint64_t *bad);

#endif
