/* SPDX-License-Identifier: GPL-2.0 */
/*
 * How fast the daemon's client of stores is, without a kernel target and a cache: its
 * fetches as they are, with memory in place of the cache's device.
 *
 *	qc2fetch [-c CA] [-n CONNECTIONS] URL seq|random|single DEPTH BYTES
 *
 * reads so many bytes of the object at a canonical URL, in blocks of 64 KiB, which
 * something waits for, and throws them away:
 *	seq	one after another from the start, DEPTH at a time
 *	random	in random places, DEPTH at a time
 *	single	in random places, one at a time, each with the rest of 2 MiB ahead of it, and
 *		when all of the one before has come; after DEPTH at a time that do not
 *		count and make the connections
 *
 * CONNECTIONS (64) is the daemon's setting; one store gets three quarters of them.
 *
 * Prints one line of JSON: reads, seconds, bytes, requests (hedges included) and hedges
 * of what counts; p50_us and p99_us of a read; and cpu_user_s and cpu_sys_s of the
 * process, from its start.  Like the daemon it waits for a store that has gone away.
 *
 * Main thread only.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/queue.h>
#include <sys/resource.h>

#include <curl/curl.h>
#include <systemd/sd-event.h>

#include "../../../userspace/chaind/fetch.h"
#include "../../../userspace/chaind/log.h"
#include "store.h"

#define EXTENSION	32		/* blocks: a read and what is ahead of it */
#define NR_BUFS		1024		/* most that the daemon has */
#define MAX_DEPTH	4096
#define MAX_READS	16777216

enum mode { SEQ, RANDOM, SINGLE };

struct cache {
	struct cache_buf bufs[NR_BUFS], *unused[NR_BUFS];
	unsigned int nr_unused;
	TAILQ_HEAD(, cache_buf) writes;
};

struct read {
	struct waiter waiter;		/* first */
	uint64_t start_us;
	struct read *next;
};

static struct cache cache;
static sd_event *event;
static sd_event_source *next_source;
static struct fetcher *fetcher;
static struct fetch_stats *stats;
static struct object *object;
static enum mode mode;
static unsigned int depth;		/* now */
static struct read *unused;		/* those that are not under way */
static unsigned int running, left, next_block;
static unsigned int ahead;		/* blocks on their way that nothing waits for */
static uint32_t *times;			/* of reads that have ended, in us */
static unsigned int nr_times;

static void __attribute__((noreturn)) die(const char *what)
{
	fprintf(stderr, "qc2fetch: %s\n", what);
	exit(1);
}

/*
 * ---------------------------------------------------------------------------
 * In place of the cache
 * ---------------------------------------------------------------------------
 */

unsigned int cache_bufs(const struct cache *c, unsigned int *total)
{
	*total = NR_BUFS;
	return c->nr_unused;
}

bool cache_take_bufs(struct cache *c, unsigned int nr, struct cache_buf **bufs)
{
	if (nr > c->nr_unused)
		return false;
	while (nr--)
		*bufs++ = c->unused[--c->nr_unused];
	return true;
}

void cache_put_buf(struct cache_buf *buf)
{
	cache.unused[cache.nr_unused++] = buf;
}

/* It has been written when the event loop gets to it. */
void cache_end_span(struct cache *c, struct cache_span *span)
{
}

void cache_write(struct cache_buf *buf, struct object *obj, uint32_t block,
		 struct cache_span *span, unsigned int span_want, enum space_class class,
		 const bool *mark, const uint8_t *digest, void (*done)(void *arg, int ret), void *arg)
{
	buf->done = done;
	buf->arg = arg;
	TAILQ_INSERT_TAIL(&cache.writes, buf, entry);
	sd_event_source_set_enabled(next_source, SD_EVENT_ONESHOT);
}

static void end_writes(void)
{
	struct cache_buf *buf;

	while ((buf = TAILQ_FIRST(&cache.writes))) {
		TAILQ_REMOVE(&cache.writes, buf, entry);
		cache_put_buf(buf);
		buf->done(buf->arg, 0);
	}
}

static void make_cache(void)
{
	size_t size = (size_t)NR_BUFS * QC2_BLOCK_BYTES;
	char *mem = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	unsigned int i;

	if (mem == MAP_FAILED)
		die("out of memory");
	TAILQ_INIT(&cache.writes);
	for (i = 0; i < NR_BUFS; i++) {
		cache.bufs[i].mem = mem + (size_t)i * QC2_BLOCK_BYTES;
		cache_put_buf(&cache.bufs[i]);
	}
}

/*
 * ---------------------------------------------------------------------------
 * Reads
 * ---------------------------------------------------------------------------
 */

static uint64_t next_random(void)
{
	static uint64_t x = 0x9e3779b97f4a7c15;

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	return x;
}

/* Nothing is kept, so that a block may come again; but not while it is on its way. */
static uint32_t choose_block(void)
{
	uint32_t nr;

	if (mode == SEQ)
		return next_block++;
	do
		nr = next_random() % object_nr_blocks(object);
	while (block_find(object, nr));
	return nr;
}

static uint32_t start_read(void)
{
	uint32_t nr = choose_block();
	struct block *block = block_new(object, nr);
	struct read *r = unused;

	unused = r->next;
	running++;
	left--;
	r->start_us = now_us();
	if (!block || fetch_start(fetcher, FETCH_DEMAND, &block, 1, stats))
		die("out of memory");
	LIST_INSERT_HEAD(&block->waiters, &r->waiter, by_block);
	return nr;
}

/* What the daemon fetches with a read in a place where none was before. */
static void start_ahead(uint32_t first)
{
	struct block *blocks[EXTENSION - 1];
	unsigned int nr;

	for (nr = 0; nr < EXTENSION - 1 && first + nr < object_nr_blocks(object); nr++) {
		blocks[nr] = block_new(object, first + nr);
		if (!blocks[nr])
			die("out of memory");
	}
	if (nr && fetch_start(fetcher, FETCH_AHEAD, blocks, nr, stats))
		die("out of memory");
	ahead += nr;
}

static void read_done(struct block *block, int ret)
{
	struct read *r = (struct read *)LIST_FIRST(&block->waiters);

	if (!r) {
		ahead--;
		block_free(block);
		sd_event_source_set_enabled(next_source, SD_EVENT_ONESHOT);
		return;
	}
	if (ret)
		die(stats->last_error.msg[0] ? stats->last_error.msg : strerror(-ret));
	times[nr_times++] = now_us() - r->start_us;
	LIST_REMOVE(&r->waiter, by_block);
	block_free(block);
	r->next = unused;
	unused = r;
	running--;
	sd_event_source_set_enabled(next_source, SD_EVENT_ONESHOT);
}

static int on_next(sd_event_source *source, void *arg)
{
	end_writes();
	while (left && running < depth && !ahead) {
		uint32_t nr = start_read();

		if (mode == SINGLE && depth == 1)
			start_ahead(nr + 1);
	}
	return 0;
}

/* Reads @nr blocks.  Return: microseconds that it took. */
static uint64_t read_blocks(unsigned int nr, unsigned int at_once)
{
	uint64_t start = now_us();

	left = nr;
	depth = at_once;
	nr_times = 0;
	sd_event_source_set_enabled(next_source, SD_EVENT_ONESHOT);
	while (left || running || ahead)
		if (sd_event_run(event, UINT64_MAX) < 0)
			die("the event loop failed");
	return now_us() - start;
}

static int compare(const void *a, const void *b)
{
	const uint32_t *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

static double seconds(const struct timeval *tv)
{
	return tv->tv_sec + tv->tv_usec / 1e6;
}

/* What has happened since @before. */
static void report(uint64_t us, const struct fetch_stats *before, uint64_t hedges_before)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	qsort(times, nr_times, sizeof(*times), compare);
	printf("{\"reads\": %u, \"seconds\": %.6f, \"bytes\": %" PRIu64 ", \"requests\": %" PRIu64
	       ", \"hedges\": %" PRIu64 ", \"p50_us\": %" PRIu32 ", \"p99_us\": %" PRIu32
	       ", \"cpu_user_s\": %.6f, \"cpu_sys_s\": %.6f}\n",
	       nr_times, us / 1e6, stats->bytes - before->bytes,
	       stats->requests - before->requests,
	       object->places[0].origin->hedges - hedges_before, times[nr_times / 2],
	       times[(uint64_t)nr_times * 99 / 100], seconds(&usage.ru_utime),
	       seconds(&usage.ru_stime));
}

/*
 * ---------------------------------------------------------------------------
 * Setup
 * ---------------------------------------------------------------------------
 */

static void __attribute__((noreturn)) usage(void)
{
	fputs("usage: qc2fetch [-c CA] [-n CONNECTIONS] URL seq|random|single DEPTH BYTES\n",
	      stderr);
	exit(2);
}

static uint64_t number(const char *text, uint64_t max)
{
	unsigned long long value;
	char *end;

	errno = 0;
	value = strtoull(text, &end, 10);
	if (errno || end == text || *end || !value || value > max)
		usage();
	return value;
}

static enum mode mode_of(const char *text)
{
	static const char * const names[] = { "seq", "random", "single" };
	unsigned int i;

	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (!strcmp(text, names[i]))
			return i;
	usage();
}

/* Its size and version, as the daemon's opening of a chain finds them. */
static void open_object(const char *url, const struct qc2_store_config *cfg)
{
	struct qc2_store *store = qc2_store_new(cfg);
	struct qc2_opener *opener;
	struct qc2_source *src;
	struct qc2_err err;

	if (!store)
		die("out of memory");
	opener = qc2_store_opener(store);
	if (opener->open(opener, url, &src, &err))
		die(err.msg);
	object = object_get(src->url, src->size, src->version);
	if (!object)
		die("out of memory");
	src->ops->close(src);
	qc2_store_free(store);
}

static void make_reads(unsigned int nr, unsigned int at_once)
{
	struct read *reads = calloc(at_once, sizeof(*reads));
	unsigned int i;

	times = calloc(nr > at_once ? nr : at_once, sizeof(*times));
	if (!reads || !times)
		die("out of memory");
	for (i = 0; i < at_once; i++) {
		reads[i].next = unused;
		unused = &reads[i];
	}
}

int main(int argc, char **argv)
{
	struct qc2_store_config cfg = {
		.connect_timeout_s = 10, .low_speed_time_s = 30, .allow_local_addresses = true,
	};
	unsigned int connections = 64, at_once, nr;
	struct fetch_stats before;
	uint64_t hedges, us;
	int opt;

	while ((opt = getopt(argc, argv, "c:n:")) != -1) {
		if (opt == 'c')
			cfg.ca_file = optarg;
		else if (opt == 'n')
			connections = number(optarg, 1024);
		else
			usage();
	}
	if (argc - optind != 4)
		usage();
	mode = mode_of(argv[optind + 1]);
	at_once = number(argv[optind + 2], MAX_DEPTH);
	nr = (number(argv[optind + 3], (uint64_t)MAX_READS * QC2_BLOCK_BYTES) - 1) /
	     QC2_BLOCK_BYTES + 1;

	signal(SIGPIPE, SIG_IGN);
	log_open(false);
	if (curl_global_init(CURL_GLOBAL_DEFAULT))
		die("libcurl: cannot be set up");
	origin_setup(connections);
	make_cache();
	stats = fetch_stats_new();
	if (!stats || sd_event_new(&event) < 0 ||
	    sd_event_add_defer(event, &next_source, on_next, NULL) < 0 ||
	    fetcher_new(&fetcher, event, &cache, &cfg, connections, read_done))
		die("cannot be set up");
	open_object(argv[optind], &cfg);
	if (object_nr_blocks(object) < (mode == SEQ ? nr : 2 * at_once))
		die("the object is too small for that");
	make_reads(nr, at_once);

	if (mode == SINGLE) {
		read_blocks(at_once, at_once);
		at_once = 1;
	}
	before = *stats;
	hedges = object->places[0].origin->hedges;
	us = read_blocks(nr, at_once);
	report(us, &before, hedges);
	fetcher_stop(fetcher);
	return 0;
}
