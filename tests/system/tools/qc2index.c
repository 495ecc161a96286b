/* SPDX-License-Identifier: GPL-2.0 */
/*
 * How fast the index is, without anything around it:
 *
 *	qc2index lookups EXTENTS even|uneven TIMES
 *		lookups a second, in random places, in an index with so many
 *		extents; even: as dense anywhere, uneven: nine tenths of them in a tenth
 *		of the disk, where nine tenths of the lookups go, too
 *	qc2index open URL TIMES
 *		microseconds that it takes to open a chain and build its index
 *
 * One line for each time.  All is processor time.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <curl/curl.h>

#include "chain.h"
#include "store.h"

#define LOOKUPS		(1 << 23)

static void __attribute__((noreturn)) die(const char *what)
{
	fprintf(stderr, "qc2index: %s\n", what);
	exit(1);
}

/* What the processor has spent on this process, whatever else the machine does. */
static uint64_t now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
	return ts.tv_sec * 1000000ULL + ts.tv_nsec / 1000;
}

static uint64_t next_random(void)
{
	static uint64_t x = 0x9e3779b97f4a7c15;

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	return x;
}

/* Adds @nr extents of 4 to 64 KiB, with gaps that are @gap sectors at most. */
static uint64_t add_extents(struct qc2_extents *list, size_t nr, uint64_t sector, uint64_t gap)
{
	for (; nr; nr--) {
		struct qc2_extent ext = { .nr_sectors = 8 * (1 + next_random() % 16) };

		sector += 8 * (1 + next_random() % (gap / 8));
		ext.sector = sector;
		/* Where the one before ends, another goes on. */
		ext.object = next_random() % 100 * 2;
		ext.offset = next_random() % (1ULL << 40) / 512 * 512;
		if (qc2_extents_add(list, &ext))
			die("out of memory");
		sector += ext.nr_sectors;
	}
	return sector;
}

/* What is fast and wrong does not count. */
static void check(const struct qc2_index *idx)
{
	size_t i;

	for (i = 0; i < idx->nr_extents; i++) {
		const struct qc2_extent *ext = &idx->extents[i];

		if (qc2_index_find(idx, ext->sector) != i ||
		    qc2_index_find(idx, ext->sector + ext->nr_sectors - 1) != i)
			die("a lookup found something else");
	}
}

static void lookups(size_t nr, int even, int times)
{
	struct qc2_extents list = { 0 };
	uint64_t *sectors = malloc(LOOKUPS * sizeof(*sectors));
	uint64_t dense, end, start, found = 0;
	struct qc2_index *idx;
	size_t i;

	if (even) {
		dense = end = add_extents(&list, nr, 0, 128);
	} else {
		dense = add_extents(&list, nr / 10 * 9, 0, 128);
		end = add_extents(&list, nr - nr / 10 * 9, dense, 2 * 9 * dense / (nr / 10));
	}
	idx = qc2_index_build(&list, end);
	if (!idx || !sectors)
		die("out of memory");
	if (idx->nr_extents != nr)
		die("not as many extents as wanted");
	check(idx);
	for (i = 0; i < LOOKUPS; i++)
		sectors[i] = next_random() % (i % 10 ? dense : end);
	while (times--) {
		start = now_us();
		for (i = 0; i < LOOKUPS; i++)
			found += qc2_index_find(idx, sectors[i]);
		printf("%.0f\n", LOOKUPS * 1e6 / (now_us() - start));
	}
	if (!found)
		die("nothing was found");
	free(sectors);
	qc2_index_free(idx);
}

static void open_chain(const char *url, int times)
{
	const struct qc2_store_config cfg = { .connect_timeout_s = 10, .low_speed_time_s = 30 };
	const struct qc2_chain_limits limits = { .max_depth = 4096 };
	struct qc2_chain *chain;
	struct qc2_store *store;
	struct qc2_err err;
	uint64_t start;

	if (curl_global_init(CURL_GLOBAL_DEFAULT))
		die("libcurl cannot be set up");
	while (times--) {
		start = now_us();
		store = qc2_store_new(&cfg);
		if (!store)
			die("out of memory");
		if (qc2_chain_open(qc2_store_opener(store), url, &limits, &chain, &err))
			die(err.msg);
		qc2_store_free(store);
		printf("%" PRIu64 "\n", now_us() - start);
		qc2_chain_put(chain);
	}
}

int main(int argc, char **argv)
{
	if (argc == 5 && !strcmp(argv[1], "lookups") && atoi(argv[2]) >= 1000)
		lookups(atoi(argv[2]), !strcmp(argv[3], "even"), atoi(argv[4]));
	else if (argc == 4 && !strcmp(argv[1], "open"))
		open_chain(argv[2], atoi(argv[3]));
	else
		die("usage: qc2index lookups EXTENTS even|uneven TIMES | open URL TIMES");
	return 0;
}
