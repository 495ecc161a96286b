/* SPDX-License-Identifier: GPL-2.0 */
/*
 * How long something takes, as percentiles of what was seen lately.  No locks; whoever
 * owns a struct qc2_latency sees to that.
 */
#ifndef QC2_LATENCY_H
#define QC2_LATENCY_H

#include <stdint.h>

/* Eight for each doubling, from 64 us up to more than two minutes. */
#define QC2_LATENCY_BUCKETS	168

/* All zeros to begin with. */
struct qc2_latency {
	uint32_t buckets[QC2_LATENCY_BUCKETS];
	uint32_t nr;
};

/* Counts a time in microseconds; old ones fade. */
void qc2_latency_add(struct qc2_latency *l, uint64_t us);

/**
 * qc2_latency_at() - the time that a part of what was seen stayed below
 * @permille: which part; 500 is the median
 *
 * Return: microseconds, up to an eighth too many; 0 if nothing was seen.
 */
uint64_t qc2_latency_at(const struct qc2_latency *l, unsigned int permille);

#endif
