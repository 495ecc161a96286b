/* SPDX-License-Identifier: GPL-2.0 */
/* The device under the cache. */
#ifndef CHAIND_CACHE_DEV_H
#define CHAIND_CACHE_DEV_H

#include <stdint.h>

#include "err.h"

/**
 * cache_dev_open() - the cache as a block device
 * @path: a block device; or a file, created if missing, for which a loop
 *	device is found or attached
 * @size: bytes a file gets.  A file that is attached already may grow; it is
 *	not cut, because disks may be reading from it.
 * @device: name of the device node; the caller frees it
 * @device_size: bytes it has
 *
 * Return: a descriptor, O_RDWR | O_DIRECT, or a negative errno with @err
 * filled.
 */
int cache_dev_open(const char *path, uint64_t size, char **device,
		   uint64_t *device_size, struct qc2_err *err);

/**
 * cache_dev_try() - whether the first block can be read
 *
 * For a thread: what it says in time does not hang when it is opened.  A file that is missing
 * is no trouble.
 */
int cache_dev_try(const char *path, struct qc2_err *err);

/**
 * cache_dev_grow() - make a file at least so long
 * @fd: of the device
 * @device_size: what it has then; a block device keeps its own size
 */
int cache_dev_grow(int fd, const char *path, uint64_t size, uint64_t *device_size,
		   struct qc2_err *err);

/* Gives back the space of a file behind @size.  Best effort. */
void cache_dev_trim(int fd, const char *path, uint64_t size);

#endif
