/* SPDX-License-Identifier: GPL-2.0 */
/* Making the kernel forget a part of the cache. */
#ifndef CHAIND_FORGET_H
#define CHAIND_FORGET_H

#include <stdint.h>

#include <linux/dm-qcow2chain.h>

#include "err.h"

/**
 * forget_store() - no device refers to or reads these sectors afterwards
 * @store: index of the store in the tables; one that has fewer is passed over
 * @ranges: sorted, without overlap, none of them empty
 * @nr: their number, 1 to QC2_MAX_RANGES
 *
 * Asks every qcow2chain device of the kernel once, and waits for reads in
 * flight.  Without the module there is none.  Any thread.
 *
 * Return: 0 or a negative errno with @err filled.
 */
int forget_store(uint32_t store, const struct qc2_range *ranges,
		 unsigned int nr, struct qc2_err *err);

#endif
