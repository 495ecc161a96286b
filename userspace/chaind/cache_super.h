/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The superblock of the cache, in the first block of its device: which cache it is, so that
 * an index of another one is not taken for its own.
 *
 *	0	"QC2CACHE"
 *	8	version, 1 (le32)
 *	12	CRC-32 (zlib) of the 4096 bytes with this field 0 (le32)
 *	16	16 random bytes, the id
 *	32	zeros
 */
#ifndef CHAIND_CACHE_SUPER_H
#define CHAIND_CACHE_SUPER_H

#include <stdint.h>

#include "cache_index.h"
#include "err.h"

/**
 * cache_super_load() - read the superblock, or write the first one
 * @fd: of the device, O_DIRECT
 * @path: for errors
 *
 * A device that holds something else is refused (-EEXIST).  At start only.
 */
int cache_super_load(int fd, const char *path, uint8_t id[QC2_CACHE_ID_LEN],
		     struct qc2_err *err);

#endif
