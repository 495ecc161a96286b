/* SPDX-License-Identifier: GPL-2.0 */
/* A histogram with buckets that grow with the time; no state of its own. */
#include "latency.h"

#define FIRST_BITS	6	/* the first bucket begins at 2^6 us */
#define SUB_BITS	3
/* All counts are halved when there are so many. */
#define FADE_AT		2048

static unsigned int bucket_of(uint64_t us)
{
	unsigned int bits, bucket;

	if (us < 1ULL << FIRST_BITS)
		return 0;
	bits = 63 - __builtin_clzll(us);
	bucket = (bits - FIRST_BITS) << SUB_BITS;
	bucket += (us >> (bits - SUB_BITS)) & ((1U << SUB_BITS) - 1);
	return bucket < QC2_LATENCY_BUCKETS ? bucket : QC2_LATENCY_BUCKETS - 1;
}

static uint64_t bucket_end(unsigned int bucket)
{
	unsigned int bits = (bucket >> SUB_BITS) + FIRST_BITS;
	uint64_t sub = (bucket & ((1U << SUB_BITS) - 1)) + 1;

	return (1ULL << bits) + (sub << (bits - SUB_BITS));
}

static void fade(struct qc2_latency *l)
{
	unsigned int i;

	l->nr = 0;
	for (i = 0; i < QC2_LATENCY_BUCKETS; i++) {
		l->buckets[i] /= 2;
		l->nr += l->buckets[i];
	}
}

void qc2_latency_add(struct qc2_latency *l, uint64_t us)
{
	l->buckets[bucket_of(us)]++;
	if (++l->nr >= FADE_AT)
		fade(l);
}

uint64_t qc2_latency_at(const struct qc2_latency *l, unsigned int permille)
{
	uint64_t below = 0, want = ((uint64_t)l->nr * permille + 999) / 1000;
	unsigned int i;

	if (!l->nr)
		return 0;
	for (i = 0; i < QC2_LATENCY_BUCKETS - 1; i++) {
		below += l->buckets[i];
		if (below >= want && below)
			break;
	}
	return bucket_end(i);
}
