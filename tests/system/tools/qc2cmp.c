/* SPDX-License-Identifier: GPL-2.0 */
/*
 * qc2cmp [--direct] DEVICE FILE LENGTH THREADS SEED: reads random pieces of 4 KiB to
 * 1 MiB of the first LENGTH bytes of DEVICE, until SIGTERM, and compares each with the
 * same piece of FILE.  Half of them lie near one of the last places: what was read a
 * moment ago is in a cache, and on its way out of it.  Without --direct the page cache
 * is dropped after each read.
 *
 * Ends at SIGTERM with "READS BYTES", the sums of all threads, and status 0; after a
 * read that failed or brought something else, with a line about each and status 1.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define UNIT		4096U
#define MAX_UNITS	256U		/* 1 MiB */
#define NR_LAST		16

static const char *device, *expected;
static uint64_t units;
static int fd;
static bool direct;
static atomic_bool stop, wrong;
static atomic_ullong reads, bytes;

struct reader {
	pthread_t thread;
	unsigned int seed;
	uint64_t last[NR_LAST];
	unsigned int nr_last;
};

static void on_term(int sig)
{
	stop = true;
}

static uint64_t random_below(struct reader *r, uint64_t n)
{
	return ((uint64_t)rand_r(&r->seed) << 24 ^ rand_r(&r->seed)) % n;
}

static void report(uint64_t from, const uint8_t *buf, size_t len)
{
	size_t i, nr = 0, first = 0;

	for (i = len; i-- > 0;) {
		if (buf[i] != (uint8_t)expected[from + i]) {
			first = i;
			nr++;
		}
	}
	printf("%s: %zu bytes of %zu at %llu are wrong, the first at %llu\n", device, nr, len,
	       (unsigned long long)from, (unsigned long long)from + first);
	wrong = true;
}

static void *run(void *arg)
{
	struct reader *r = arg;
	uint8_t *buf = aligned_alloc(UNIT, (size_t)MAX_UNITS * UNIT);

	while (buf && !stop && !wrong) {
		/* As many small ones as large ones. */
		uint64_t nr = MAX_UNITS >> random_below(r, 9), at;
		size_t len = nr * UNIT;
		ssize_t n;

		if (r->nr_last == NR_LAST && random_below(r, 2))
			at = r->last[random_below(r, NR_LAST)] + random_below(r, 16);
		else
			at = random_below(r, units);
		if (at + nr > units)
			at = units - nr;
		r->last[r->nr_last < NR_LAST ? r->nr_last++ : random_below(r, NR_LAST)] = at;
		n = pread(fd, buf, len, at * UNIT);
		if (n != (ssize_t)len) {
			printf("%s: read of %zu bytes at %llu: %s\n", device, len,
			       (unsigned long long)at * UNIT, n < 0 ? strerror(errno) : "short");
			wrong = true;
			break;
		}
		if (memcmp(buf, expected + at * UNIT, len))
			report(at * UNIT, buf, len);
		if (!direct)
			posix_fadvise(fd, at * UNIT, len, POSIX_FADV_DONTNEED);
		reads++;
		bytes += len;
	}
	if (!buf)
		wrong = true;
	free(buf);
	return NULL;
}

int main(int argc, char **argv)
{
	unsigned int nr_threads, i;
	struct reader *readers;
	uint64_t length;
	int file;

	direct = argc > 1 && !strcmp(argv[1], "--direct");
	if (argc != 6 + direct) {
		fputs("usage: qc2cmp [--direct] DEVICE FILE LENGTH THREADS SEED\n", stderr);
		return 2;
	}
	argv += direct;
	device = argv[1];
	length = strtoull(argv[3], NULL, 0);
	nr_threads = strtoul(argv[4], NULL, 0);
	units = length / UNIT;
	if (units < MAX_UNITS || !nr_threads) {
		fputs("qc2cmp: at least 1 MiB, and one thread\n", stderr);
		return 2;
	}
	fd = open(device, O_RDONLY | (direct ? O_DIRECT : 0));
	file = open(argv[2], O_RDONLY);
	if (fd < 0 || file < 0) {
		perror(fd < 0 ? device : argv[2]);
		return 2;
	}
	expected = mmap(NULL, length, PROT_READ, MAP_SHARED, file, 0);
	readers = calloc(nr_threads, sizeof(*readers));
	if (expected == MAP_FAILED || !readers) {
		perror(argv[2]);
		return 2;
	}
	signal(SIGTERM, on_term);
	for (i = 0; i < nr_threads; i++) {
		readers[i].seed = strtoul(argv[5], NULL, 0) * 1000 + i;
		if (pthread_create(&readers[i].thread, NULL, run, &readers[i])) {
			fputs("qc2cmp: cannot start a thread\n", stderr);
			return 2;
		}
	}
	for (i = 0; i < nr_threads; i++)
		pthread_join(readers[i].thread, NULL);
	printf("%llu %llu\n", reads, bytes);
	return wrong;
}
