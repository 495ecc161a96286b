/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What crashload leaves behind and crashcheck reads: sectors that say which
 * write they came from, and a record of what was submitted and acknowledged.
 *
 * A record is text, one event a line, in the order in which the program that
 * did the I/O saw them:
 *
 *	write OP SECTOR SECTORS		submitted
 *	fua OP SECTOR SECTORS
 *	zero OP SECTOR SECTORS
 *	flush OP
 *	ack OP				completed, without error
 *	error OP ERRNO			completed, with one
 *	cut				what is acknowledged from here on was a lie
 *
 * Operations are numbered from 1.  Those in flight at a time do not overlap,
 * so of two that touch a sector the one with the greater number came later.
 */
#ifndef QC2_TESTS_CRASH_H
#define QC2_TESTS_CRASH_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define SECTOR_SIZE	512
#define SECTOR_WORDS	(SECTOR_SIZE / sizeof(uint64_t))
#define STAMP_MAGIC	0x5143324352415348ULL

static inline uint64_t stamp_mix(uint64_t x)
{
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ULL;
	x = (x ^ x >> 27) * 0x94d049bb133111ebULL;
	return x ^ x >> 31;
}

/* Numbers that depend on the seed alone. */
static inline uint64_t next_random(uint64_t *state)
{
	return stamp_mix(*state += 0x9e3779b97f4a7c15ULL);
}

static inline uint64_t random_below(uint64_t *state, uint64_t end)
{
	return next_random(state) % end;
}

/* Fills one sector with what operation @op of the record @run writes to it. */
static inline void stamp_fill(uint64_t *words, uint64_t run, uint64_t op, uint64_t sector)
{
	uint64_t x = stamp_mix(run ^ stamp_mix(op ^ stamp_mix(sector)));

	words[0] = STAMP_MAGIC;
	words[1] = run;
	words[2] = op;
	words[3] = sector;
	for (unsigned int i = 4; i < SECTOR_WORDS; i++)
		words[i] = x + i * 0x9e3779b97f4a7c15ULL;
}

/* Whether that sector looks stamped; the rest of it is not compared. */
static inline bool stamp_seen(const uint64_t *words, uint64_t run)
{
	return words[0] == STAMP_MAGIC && words[1] == run;
}

static inline bool stamp_is(const uint64_t *words, uint64_t run, uint64_t op, uint64_t sector)
{
	uint64_t expected[SECTOR_WORDS];

	stamp_fill(expected, run, op, sector);
	return !memcmp(words, expected, SECTOR_SIZE);
}

#endif
