/* SPDX-License-Identifier: GPL-2.0 */
/* Looking at the table of a mapped device.  Main thread only. */
#ifndef CHAIND_TABLE_H
#define CHAIND_TABLE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "err.h"

/**
 * table_check_stores() - whether store 0 of a mapped device is the cache
 * @dev: mapped device, (major << 20 | minor)
 * @cache: device number of the cache; 0: it is absent, and nothing there is named
 * @bypass: of the bypass
 * @has_bypass: set if that is store 1
 *
 * A reply names places in store 0 by number alone, so with another device
 * there it would hand out other data.
 *
 * Return: 0 or a negative errno with @err filled.
 */
int table_check_stores(uint32_t dev, dev_t cache, dev_t bypass, bool *has_bypass,
		       struct qc2_err *err);

/* Has the kernel forget what it was told about a device.  Best effort. */
void table_drop_map(uint32_t dev);

/* Whether the live table of a mapped device is of the target qcow2chain. */
bool table_is_ours(unsigned int maj, unsigned int min);

#endif
