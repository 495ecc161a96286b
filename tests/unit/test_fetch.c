/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Fetching, from real servers that answer on command, into a cache that is played here.
 * So is unpacking: a compressed cluster is one that has its bytes in the file as they are.
 */
#include <semaphore.h>
#include <signal.h>
#include <sys/stat.h>

#include "../../userspace/chaind/fetch.h"
#include "../../userspace/chaind/replica.h"
#include "../../userspace/chaind/unpack.h"
#include "http_loop.h"
#include "site.h"

#define BLOCK		QC2_BLOCK_BYTES
#define NR_BLOCKS	64
#define SIZE		(NR_BLOCKS * (uint64_t)BLOCK - 1000)	/* the last one is short */
#define NR_SERVERS	3
#define NR_BUFS		64

struct cache {
	struct cache_buf bufs[NR_BUFS], *unused[NR_BUFS];
	unsigned int nr_unused;
	TAILQ_HEAD(, cache_buf) writes;
};

struct result {
	struct object *obj;
	uint32_t nr;
	int ret;
};

static char dir[] = "/tmp/qc2-fetch.XXXXXX";
static sd_event *event;
static struct cache cache;
static struct qc2_store_config cfg;
static struct fetcher *fetchers[64], *fetcher;	/* kept to the end, as by the daemon */
static unsigned int nr_fetchers;
static struct replicas *replicas[16];
static unsigned int nr_replicas;
static struct qc2_sites *sites[16];
static unsigned int nr_sites;
static struct fetch_stats *stats;
static struct http_server servers[NR_SERVERS];
static struct object *objects[NR_SERVERS];
static struct waiter waiters[512];
static unsigned int nr_waiters;
static struct result results[512];
static unsigned int nr_results;

/*
 * ---------------------------------------------------------------------------
 * What is around the fetcher
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
	assert_true(cache.nr_unused < NR_BUFS);
	memset(buf->mem, 0xee, BLOCK);
	cache.unused[cache.nr_unused++] = buf;
}

void cache_end_span(struct cache *c, struct cache_span *span)
{
}

void cache_write(struct cache_buf *buf, struct object *obj, uint32_t block,
		 struct cache_span *span, unsigned int span_want, enum space_class class,
		 const bool *mark, const uint8_t *digest, void (*done)(void *arg, int ret), void *arg)
{
	buf->obj = object_ref(obj);
	buf->block = block;
	buf->done = done;
	buf->arg = arg;
	TAILQ_INSERT_TAIL(&cache.writes, buf, entry);
}

/* All that is written has to be the object's. */
static void check_bytes(const struct cache_buf *buf)
{
	uint64_t offset = (uint64_t)buf->block * BLOCK;
	const uint8_t *mem = buf->mem;
	unsigned int i;

	for (i = 0; i < BLOCK; i++)
		if (mem[i] != (offset + i < buf->obj->size ? object_byte(offset + i) : 0))
			fail_msg("block %u is wrong at %u", buf->block, i);
}

static void end_writes(void)
{
	struct cache_buf *buf;

	while ((buf = TAILQ_FIRST(&cache.writes))) {
		TAILQ_REMOVE(&cache.writes, buf, entry);
		check_bytes(buf);
		object_put(buf->obj);
		cache_put_buf(buf);
		buf->done(buf->arg, 0);
	}
}

/* The fake unpacking waits for the test if that says so. */
struct unpack {
	uint64_t start, end;
	size_t filled;
	bool done;
	uint8_t mem[];
};

static bool hold_unpack;
static unsigned int unpack_failures;	/* so often there is no memory */
static sem_t unpack_begun, unpack_may_end;

struct unpack *unpack_new(struct qc2_packed *packed, uint64_t start, uint64_t end)
{
	struct unpack *u;

	if (unpack_failures) {
		unpack_failures--;
		return NULL;
	}
	u = calloc(1, sizeof(*u) + end - start);
	u->start = start;
	u->end = end;
	return u;
}

void unpack_free(struct unpack *u)
{
	free(u);
}

bool unpack_range(const struct unpack *u, uint64_t *offset, size_t *len)
{
	*offset = u->start;
	*len = u->end - u->start;
	return !u->done;
}

void unpack_data(struct unpack *u, const void *data, size_t len)
{
	assert_true(u->filled + len <= u->end - u->start);
	memcpy(u->mem + u->filled, data, len);
	u->filled += len;
}

void unpack_range_done(struct unpack *u, bool ok)
{
	u->filled = 0;
	u->done = ok;
}

int unpack_run(struct unpack *u, void *const *out, size_t piece, bool *damaged, uint64_t *bad)
{
	size_t at;

	if (hold_unpack) {
		sem_post(&unpack_begun);
		sem_wait(&unpack_may_end);
	}
	for (at = 0; at < u->end - u->start; at += piece) {
		size_t n = u->end - u->start - at < piece ? u->end - u->start - at : piece;

		memcpy(out[at / piece], u->mem + at, n);
	}
	return 0;
}

static void block_done(struct block *block, int ret)
{
	struct waiter *wait;

	assert_true(nr_results < sizeof(results) / sizeof(results[0]));
	results[nr_results++] = (struct result){ block->obj, block->nr, ret };
	while ((wait = LIST_FIRST(&block->waiters)))
		LIST_REMOVE(wait, by_block);
	block_free(block);
}

/*
 * ---------------------------------------------------------------------------
 * Tests' tools
 * ---------------------------------------------------------------------------
 */

static void step(void)
{
	end_writes();
	assert_true(sd_event_run(event, 100000) >= 0);
	end_writes();
}

#define UNTIL(condition) do {						\
	while (!(condition))						\
		step();							\
} while (0)

static int on_once(sd_event_source *source, void *arg)
{
	*(bool *)arg = true;
	return 0;
}

/* All that is pending happens, what was begun for it too. */
static void settle(void)
{
	sd_event_source *source;
	bool once = false;
	int i;

	assert_true(sd_event_add_defer(event, &source, on_once, &once) >= 0);
	sd_event_source_set_priority(source, SD_EVENT_PRIORITY_IDLE);
	for (i = 0; i < 3; i++) {
		once = false;
		sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
		UNTIL(once);
	}
	sd_event_source_disable_unref(source);
}

static void new_fetcher(unsigned int connections)
{
	origin_setup(connections);
	assert_int_equal(fetcher_new(&fetcher, event, &cache, &cfg, connections, block_done), 0);
	fetchers[nr_fetchers++] = fetcher;
}

static struct origin *origin(unsigned int i)
{
	return objects[i]->places[0].origin;
}

/* An object at each server, over so many connections. */
static void begin(unsigned int connections)
{
	unsigned int i;
	char url[128];

	new_fetcher(connections);
	for (i = 0; i < NR_SERVERS; i++) {
		snprintf(url, sizeof(url), "%simage", servers[i].url);
		objects[i] = object_get(url, SIZE, "\"v1\"");
		assert_non_null(objects[i]);
	}
}

static int setup(void **state)
{
	unsigned int i;

	nr_asks = nr_waiters = nr_results = 0;
	memset(asks, 0, sizeof(asks));
	cfg.sites = NULL;
	for (i = 0; i < NR_SERVERS; i++)
		http_start(&servers[i], event, SIZE);
	return 0;
}

/* Whatever a test left unanswered is answered; nothing may be left then. */
static int teardown(void **state)
{
	struct origin *o;
	unsigned int i;

	for (i = 0; i < NR_SERVERS; i++) {
		servers[i].automatic = true;
		servers[i].other = 0;
	}
	for (i = 0; i < nr_asks; i++)
		if (asks[i].conn && !asks[i].over)
			answer_all(&asks[i]);
	LIST_FOREACH(o, &origins, entry) {
		UNTIL(TAILQ_EMPTY(&o->queue[FETCH_DEMAND]) && TAILQ_EMPTY(&o->resting) &&
		      TAILQ_EMPTY(&o->queue[FETCH_AHEAD]) && TAILQ_EMPTY(&o->running_list));
		assert_int_equal(origin_running(o), 0);
		assert_int_equal(o->bufs, 0);
	}
	UNTIL(cache.nr_unused == NR_BUFS);
	fetcher_stop(fetcher);
	for (i = 0; i < NR_SERVERS; i++) {
		assert_int_equal(objects[i]->refs, 1);
		assert_null(objects[i]->blocks);
		object_put(objects[i]);
		http_stop(&servers[i]);
	}
	return 0;
}

static void begin_fetch(enum fetch_class class, unsigned int i, uint32_t first, unsigned int nr)
{
	struct block *blocks[FETCH_MAX_BLOCKS];
	unsigned int n;

	for (n = 0; n < nr; n++) {
		blocks[n] = block_new(objects[i], first + n);
		assert_non_null(blocks[n]);
	}
	assert_int_equal(fetch_start(fetcher, class, blocks, nr, stats), 0);
}

static void want(unsigned int i, uint32_t nr)
{
	struct waiter *wait = &waiters[nr_waiters++];
	struct block *block = block_find(objects[i], nr);

	assert_non_null(block);
	assert_true(nr_waiters < sizeof(waiters) / sizeof(waiters[0]));
	LIST_INSERT_HEAD(&block->waiters, wait, by_block);
	fetch_want(block);
}

static void unwant(unsigned int i, uint32_t nr)
{
	struct waiter *wait = LIST_FIRST(&block_find(objects[i], nr)->waiters);

	LIST_REMOVE(wait, by_block);
}

static void demand(unsigned int i, uint32_t nr)
{
	begin_fetch(FETCH_DEMAND, i, nr, 1);
	want(i, nr);
}

static void assert_ask(const struct ask *ask, unsigned int server, uint32_t first,
		       unsigned int nr)
{
	uint64_t end = (uint64_t)(first + nr) * BLOCK;

	assert_ptr_equal(ask->server, &servers[server]);
	assert_int_equal(ask->offset, (uint64_t)first * BLOCK);
	assert_int_equal(ask->offset + ask->len, end < SIZE ? end : SIZE);
}

static void assert_result(const struct result *result, unsigned int i, uint32_t nr, int ret)
{
	assert_ptr_equal(result->obj, objects[i]);
	assert_int_equal(result->nr, nr);
	assert_int_equal(result->ret, ret);
}

/* Its reads are hurried from now on: nearly all answers came at once so far. */
static void make_hasty(struct origin *o)
{
	unsigned int i;

	for (i = 0; i < 1000; i++) {
		origin_first_byte(o, 1000);
		origin_earn_hedge(o);
	}
}

static int on_time(sd_event_source *source, uint64_t usec, void *arg)
{
	*(bool *)arg = true;
	return 0;
}

/* A second GET that was going to be sent has been. */
static void after_hedges(const struct origin *o)
{
	sd_event_source *source;
	bool over = false;

	assert_true(sd_event_add_time_relative(event, &source, CLOCK_MONOTONIC,
					       2 * origin_hedge_us(o) + 1000, 1, on_time,
					       &over) >= 0);
	UNTIL(over);
	sd_event_source_disable_unref(source);
}

/*
 * ---------------------------------------------------------------------------
 * Data
 * ---------------------------------------------------------------------------
 */

/* Each block goes on when its last byte is there. */
static void test_in_order(void **state)
{
	unsigned int i;

	begin(8);
	begin_fetch(FETCH_AHEAD, 0, NR_BLOCKS - 4, 4);
	UNTIL(nr_asks == 1);
	assert_ask(&asks[0], 0, NR_BLOCKS - 4, 4);
	answer(&asks[0], BLOCK - 1);
	settle();
	assert_int_equal(nr_results, 0);
	answer(&asks[0], 1 + BLOCK / 2);
	UNTIL(nr_results == 1);
	answer(&asks[0], 2 * BLOCK);
	UNTIL(nr_results == 3);
	assert_null(block_find(objects[0], NR_BLOCKS - 2));
	assert_non_null(block_find(objects[0], NR_BLOCKS - 1));
	answer_all(&asks[0]);
	UNTIL(nr_results == 4);
	for (i = 0; i < 4; i++)
		assert_result(&results[i], 0, NR_BLOCKS - 4 + i, 0);
	assert_int_equal(nr_asks, 1);
}

/* The connection is lost in the middle: what has come is not asked for again. */
static void test_cut(void **state)
{
	begin(8);
	begin_fetch(FETCH_AHEAD, 0, 4, 4);
	UNTIL(nr_asks == 1);
	want(0, 6);
	answer(&asks[0], BLOCK + BLOCK / 2);
	answer_no_more(&asks[0]);
	UNTIL(nr_asks == 2);
	assert_int_equal(nr_results, 1);
	assert_ask(&asks[1], 0, 5, 3);
	/* At once, without a byte; libcurl may see to that itself. */
	answer_no_more(&asks[1]);
	UNTIL(nr_asks == 3);
	assert_ask(&asks[2], 0, 5, 3);
	/* Less than it said that it would send, on a connection that stays. */
	answer_status(&asks[2], 206, "ETag: \"v1\"\r\nContent-Range: bytes 327680-524287/4193304\r\n",
		      "");
	UNTIL(nr_asks == 4);
	assert_ask(&asks[3], 0, 5, 3);
	answer_all(&asks[3]);
	UNTIL(nr_results == 4);
	assert_result(&results[3], 0, 7, 0);
}

/*
 * ---------------------------------------------------------------------------
 * Order
 * ---------------------------------------------------------------------------
 */

static void test_demand_first(void **state)
{
	begin(8);
	origin_cap(origin(0), 2);
	begin_fetch(FETCH_AHEAD, 0, 0, 1);
	begin_fetch(FETCH_AHEAD, 0, 10, 1);
	begin_fetch(FETCH_AHEAD, 0, 20, 1);
	UNTIL(nr_asks == 1);
	settle();
	assert_int_equal(origin_running(origin(0)), 1);
	/* Half of them are kept for it. */
	demand(0, 30);
	demand(0, 40);
	UNTIL(nr_asks == 2);
	assert_ask(&asks[1], 0, 30, 1);
	answer_all(&asks[0]);
	UNTIL(nr_asks == 3);
	assert_ask(&asks[2], 0, 40, 1);
	answer_all(&asks[1]);
	answer_all(&asks[2]);
	UNTIL(nr_asks == 4);
	assert_ask(&asks[3], 0, 10, 1);
}

/* Of what is fetched ahead, that comes first which a read comes to want. */
static void test_split(void **state)
{
	begin(8);
	origin_cap(origin(0), 1);
	demand(0, 0);
	UNTIL(nr_asks == 1);
	begin_fetch(FETCH_AHEAD, 0, 9, 1);
	begin_fetch(FETCH_AHEAD, 0, 20, 5);
	settle();
	want(0, 22);
	want(0, 22);
	answer_all(&asks[0]);
	UNTIL(nr_asks == 2);
	assert_ask(&asks[1], 0, 22, 1);
	servers[0].automatic = true;
	answer_all(&asks[1]);
	UNTIL(nr_results == 7);
	assert_int_equal(nr_asks, 5);
	/* The rest keeps its place behind what was planned before it. */
	assert_ask(&asks[2], 0, 9, 1);
	assert_ask(&asks[3], 0, 20, 2);
	assert_ask(&asks[4], 0, 23, 2);
}

/* Reads that wait for neighbours share a GET, up to a chunk. */
static void test_join(void **state)
{
	unsigned int chunk = 256 * 1024 / BLOCK, i;

	begin(8);
	origin_cap(origin(0), 1);
	demand(0, 0);
	UNTIL(nr_asks == 1);
	for (i = 0; i < chunk + 2; i++)
		demand(0, 10 + i);
	demand(0, 30);
	answer_all(&asks[0]);
	UNTIL(nr_asks == 2);
	assert_ask(&asks[1], 0, 10, chunk);
	answer_all(&asks[1]);
	UNTIL(nr_asks == 3);
	assert_ask(&asks[2], 0, 10 + chunk, 2);
	answer_all(&asks[2]);
	UNTIL(nr_asks == 4);
	assert_ask(&asks[3], 0, 30, 1);
	answer_all(&asks[3]);
	UNTIL(nr_results == chunk + 4);
}

/* Not what is ahead: a read would wait for it. */
static void test_join_demand_only(void **state)
{
	begin(8);
	origin_cap(origin(0), 1);
	demand(0, 0);
	UNTIL(nr_asks == 1);
	demand(0, 10);
	begin_fetch(FETCH_AHEAD, 0, 11, 2);
	answer_all(&asks[0]);
	UNTIL(nr_asks == 2);
	assert_ask(&asks[1], 0, 10, 1);
}

/* A store that hangs takes what it may, and the next one goes on. */
static void test_stalled(void **state)
{
	unsigned int i;

	begin(4);
	for (i = 0; i < 8; i++) {
		demand(0, 2 * i);
		begin_fetch(FETCH_AHEAD, 0, 2 * i + 1, 1);
	}
	UNTIL(nr_asks == 3);
	servers[1].automatic = true;
	for (i = 0; i < 8; i++)
		demand(1, 2 * i);
	UNTIL(nr_results == 8);
	for (i = 0; i < 8; i++)
		assert_result(&results[i], 1, 2 * i, 0);
	assert_int_equal(origin_running(origin(0)), 3);
}

/* However long the queues of others are, each store has its turn. */
static void test_fair(void **state)
{
	unsigned int i, n;

	begin(4);
	for (i = 0; i < NR_SERVERS; i++)
		for (n = 0; n < 8; n++)
			demand(i, 2 * n);
	UNTIL(nr_asks == 4);
	settle();
	for (i = 0; i < NR_SERVERS; i++)
		assert_in_range(origin_running(origin(i)), 1, 2);
	/* Who has the least is next. */
	for (n = 0; n < 12; n++) {
		unsigned int had = nr_asks;

		answer_all(&asks[n]);
		UNTIL(nr_asks == had + 1);
		for (i = 0; i < NR_SERVERS; i++)
			assert_in_range(origin_running(origin(i)), 1, 2);
	}
}

/* What is ahead waits while the cache is slow, what a read waits for does not. */
static void test_bufs(void **state)
{
	struct cache_buf *taken[NR_BUFS];

	begin(8);
	assert_true(cache_take_bufs(&cache, NR_BUFS * 3 / 4 - 1, taken));
	begin_fetch(FETCH_AHEAD, 0, 0, 2);
	demand(0, 10);
	UNTIL(nr_asks == 1);
	assert_ask(&asks[0], 0, 10, 1);
	settle();
	assert_int_equal(origin_running(origin(0)), 1);
	for (unsigned int i = 0; i < NR_BUFS * 3 / 4 - 1; i++)
		cache_put_buf(taken[i]);
	answer_all(&asks[0]);
	UNTIL(nr_asks == 2);
	assert_ask(&asks[1], 0, 0, 2);
}

/* Nor has a store that hangs all buffers. */
static void test_stalled_bufs(void **state)
{
	unsigned int i;

	begin(64);
	origin_first_byte(origin(0), 100000);
	origin_body(origin(0), 1 << 20, 1000);
	for (i = 0; i < NR_BLOCKS; i++)
		demand(0, i);
	settle();
	assert_int_equal(cache.nr_unused, NR_BUFS / 4);
	assert_int_equal(origin(0)->bufs, NR_BUFS * 3 / 4);
	servers[1].automatic = true;
	for (i = 0; i < 8; i++)
		demand(1, 2 * i);
	UNTIL(nr_results == 8);
	for (i = 0; i < 8; i++)
		assert_ptr_equal(results[i].obj, objects[1]);
	/* When it answers it has them again. */
	servers[0].automatic = true;
	for (i = 0; i < nr_asks; i++)
		if (!asks[i].over)
			answer_all(&asks[i]);
	UNTIL(nr_results == 8 + NR_BLOCKS);
	UNTIL(cache.nr_unused == NR_BUFS);
}

/*
 * ---------------------------------------------------------------------------
 * Errors
 * ---------------------------------------------------------------------------
 */

static void test_retries(void **state)
{
	begin(8);
	demand(0, 0);
	UNTIL(nr_asks == 1);
	begin_fetch(FETCH_AHEAD, 0, 10, 2);
	UNTIL(nr_asks == 2);
	answer_status(&asks[0], 500, "", "");
	answer_status(&asks[1], 500, "", "");
	/* Nobody waits for it, so it is not asked for again. */
	UNTIL(nr_results == 2);
	assert_result(&results[0], 0, 10, -EAGAIN);
	assert_result(&results[1], 0, 11, -EAGAIN);
	UNTIL(nr_asks == 3);
	assert_ask(&asks[2], 0, 0, 1);
	answer_status(&asks[2], 408, "", "");
	UNTIL(nr_asks == 4);
	answer_all(&asks[3]);
	UNTIL(nr_results == 3);
	assert_result(&results[2], 0, 0, 0);
	assert_int_equal(origin(0)->failures, 0);
	assert_int_equal(origin(0)->retries, 2);
}

/* Given up as soon as nobody waits any more. */
static void test_unwanted(void **state)
{
	begin(8);
	demand(0, 0);
	UNTIL(nr_asks == 1);
	answer_status(&asks[0], 500, "", "");
	UNTIL(!TAILQ_EMPTY(&origin(0)->resting));
	unwant(0, 0);
	UNTIL(nr_results == 1);
	assert_result(&results[0], 0, 0, -ECANCELED);
	assert_int_equal(nr_asks, 1);
}

/* What fails for good ends the fetch, and all that is in it. */
static void test_final(void **state)
{
	static const struct {
		int status;
		const char *headers;
		int ret;
	} cases[] = {
		{ 404, "", -EIO },
		{ 403, "", -EIO },
		{ 412, "", -ESTALE },
		{ 416, "", -ESTALE },
		{ 200, "", -EIO },
		{ 301, "", -EIO },
		{ 206, "ETag: \"v1\"\r\n", -EIO },
		{ 206, "Content-Range: bytes 0-131071/4193304\r\nETag: \"v2\"\r\n", -ESTALE },
		{ 206, "Content-Range: bytes 0-131071/4193305\r\nETag: \"v1\"\r\n", -ESTALE },
		{ 206, "Content-Range: bytes 1-131072/4193304\r\nETag: \"v1\"\r\n", -EIO },
	};
	unsigned int i;

	begin(8);
	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		begin_fetch(FETCH_DEMAND, 0, 0, 2);
		want(0, 1);
		UNTIL(nr_asks == i + 1);
		answer_status(&asks[i], cases[i].status, cases[i].headers, "");
		UNTIL(nr_results == 2 * i + 2);
		assert_result(&results[2 * i], 0, 0, cases[i].ret);
		assert_result(&results[2 * i + 1], 0, 1, cases[i].ret);
		assert_int_equal(objects[0]->failed, cases[i].ret);
		assert_true(stats->last_error.msg[0]);
	}
	assert_int_equal(origin(0)->retries, 0);
}

/* A store that wants a pause has it; others go on. */
static void test_throttled(void **state)
{
	begin(8);
	demand(0, 0);
	demand(0, 10);
	UNTIL(nr_asks == 2);
	answer_status(&asks[0], 503, "Retry-After: 1\r\n", "");
	UNTIL(origin(0)->throttled);
	demand(0, 20);
	begin_fetch(FETCH_AHEAD, 0, 30, 1);
	demand(1, 0);
	UNTIL(nr_asks == 3);
	assert_ask(&asks[2], 1, 0, 1);
	answer_all(&asks[1]);
	answer_all(&asks[2]);
	UNTIL(nr_results == 2);
	/* It answers, but it wanted a pause. */
	settle();
	assert_int_equal(origin_running(origin(0)), 0);
	assert_int_equal(nr_asks, 3);
	assert_true(origin(0)->limit < 6);
	servers[0].automatic = true;
	UNTIL(nr_results == 5);
	assert_int_equal(nr_asks, 6);
}

/*
 * ---------------------------------------------------------------------------
 * Hedges
 * ---------------------------------------------------------------------------
 */

/* A fetch of @nr blocks that gets a second GET when the first one has come. */
static void fetch_hedged(uint32_t first, unsigned int nr)
{
	unsigned int had = nr_asks;

	begin_fetch(FETCH_AHEAD, 0, first, nr);
	UNTIL(nr_asks == had + 1);
	want(0, first + nr - 1);
	UNTIL(nr_asks == had + 2);
	assert_ask(&asks[had], 0, first, nr);
	assert_ask(&asks[had + 1], 0, first, nr);
}

static void begin_hedged(uint32_t first, unsigned int nr)
{
	begin(8);
	make_hasty(origin(0));
	fetch_hedged(first, nr);
}

static void end_hedged(unsigned int nr, unsigned int loser, unsigned int won)
{
	unsigned int i;

	UNTIL(nr_results == nr);
	for (i = 0; i < nr; i++)
		assert_result(&results[i], 0, results[0].nr + i, 0);
	UNTIL(!asks[loser].conn);
	assert_int_equal(nr_asks, 2);
	assert_int_equal(origin_running(origin(0)), 0);
	assert_int_equal(origin(0)->hedges, 1);
	assert_int_equal(origin(0)->hedges_won, won);
	UNTIL(cache.nr_unused == NR_BUFS);
}

static void test_hedge_wins(void **state)
{
	begin_hedged(4, 3);
	answer_all(&asks[1]);
	end_hedged(3, 0, 1);
}

static void test_hedge_loses(void **state)
{
	begin_hedged(4, 3);
	answer_all(&asks[0]);
	end_hedged(3, 1, 0);
}

/* Both bring parts: of each block the whole is of one of them. */
static void test_hedge_both(void **state)
{
	begin_hedged(4, 4);
	answer(&asks[0], BLOCK / 2);
	answer(&asks[1], BLOCK / 4);
	settle();
	answer(&asks[1], BLOCK);		/* block 4, and a quarter of 5 */
	UNTIL(nr_results == 1);
	answer(&asks[0], 2 * BLOCK);		/* block 5, and half of 6 */
	UNTIL(nr_results == 2);
	answer(&asks[1], 2 * BLOCK);		/* block 6, and a quarter of 7 */
	UNTIL(nr_results == 3);
	answer_all(&asks[0]);
	end_hedged(4, 1, 1);
}

/* Whichever of the two fails, the other one goes on. */
static void test_hedge_fails(void **state)
{
	begin_hedged(4, 2);
	answer(&asks[0], BLOCK / 2);
	answer_no_more(&asks[0]);
	UNTIL(origin_running(origin(0)) == 1);
	answer_all(&asks[1]);
	UNTIL(nr_results == 2);
	fetch_hedged(10, 2);
	answer_status(&asks[3], 500, "", "");
	UNTIL(origin_running(origin(0)) == 1);
	answer(&asks[2], BLOCK);
	UNTIL(nr_results == 3);
	answer_all(&asks[2]);
	UNTIL(nr_results == 4);
	/* Both. */
	fetch_hedged(20, 2);
	answer(&asks[4], BLOCK);
	answer_no_more(&asks[4]);
	UNTIL(nr_results == 5);
	answer(&asks[5], 1);
	answer_no_more(&asks[5]);
	UNTIL(nr_asks == 7);
	assert_ask(&asks[6], 0, 21, 1);
	answer_all(&asks[6]);
	UNTIL(nr_results == 6);
}

/* Nobody waits for it, so it may be slow. */
static void test_hedge_ahead(void **state)
{
	begin(8);
	make_hasty(origin(0));
	begin_fetch(FETCH_AHEAD, 0, 4, 2);
	UNTIL(nr_asks == 1);
	fetch_hedged(10, 2);
	settle();
	assert_int_equal(nr_asks, 3);
	want(0, 5);
	UNTIL(nr_asks == 4);
	assert_ask(&asks[3], 0, 4, 2);
}

/* While the cache is slow there is none, and none is paid for; it is sent later. */
static void test_hedge_bufs(void **state)
{
	struct cache_buf *taken[NR_BUFS];
	unsigned int nr;

	begin(8);
	make_hasty(origin(0));
	begin_fetch(FETCH_AHEAD, 0, 4, 2);
	UNTIL(nr_asks == 1);
	nr = cache.nr_unused;
	assert_true(cache_take_bufs(&cache, nr, taken));
	want(0, 5);
	after_hedges(origin(0));
	assert_int_equal(origin(0)->hedges, 0);
	while (nr)
		cache_put_buf(taken[--nr]);
	UNTIL(nr_asks == 2);
	answer_all(&asks[1]);
	end_hedged(2, 0, 1);
}

/*
 * ---------------------------------------------------------------------------
 * Compressed clusters
 * ---------------------------------------------------------------------------
 */

static void use_packed(unsigned int i)
{
	struct qc2_packed *packed = qc2_packed_new(16, 0);
	char url[128];

	assert_non_null(packed);
	snprintf(url, sizeof(url), "%spacked", servers[i].url);
	object_put(objects[i]);
	objects[i] = object_get_unpacked(url, SIZE, "\"v1\"", NULL, packed, SIZE);
	assert_non_null(objects[i]);
	qc2_packed_put(packed);
}

static void test_packed(void **state)
{
	begin(8);
	use_packed(0);
	begin_fetch(FETCH_DEMAND, 0, 4, 3);
	want(0, 4);
	UNTIL(nr_asks == 1);
	answer(&asks[0], BLOCK + 1);
	answer_no_more(&asks[0]);
	UNTIL(nr_asks == 2);
	/* It has to come as a whole. */
	assert_ask(&asks[1], 0, 4, 3);
	assert_int_equal(nr_results, 0);
	answer_all(&asks[1]);
	UNTIL(nr_results == 3);
}

/* The one GET is sent anew, as there is one memory for what comes. */
static void test_packed_hedge(void **state)
{
	begin(8);
	use_packed(0);
	make_hasty(origin(0));
	begin_fetch(FETCH_AHEAD, 0, 4, 3);
	UNTIL(nr_asks == 1);
	answer(&asks[0], BLOCK + 1);
	want(0, 4);
	UNTIL(nr_asks == 2);
	UNTIL(!asks[0].conn);
	assert_ask(&asks[1], 0, 4, 3);
	answer_all(&asks[1]);
	UNTIL(nr_results == 3);
	assert_int_equal(nr_asks, 2);
}

/* A read comes to want what is being unpacked: there is nothing to ask for any more. */
static void test_packed_wanted(void **state)
{
	begin(8);
	use_packed(0);
	make_hasty(origin(0));
	hold_unpack = true;
	begin_fetch(FETCH_AHEAD, 0, 4, 3);
	UNTIL(nr_asks == 1);
	answer_all(&asks[0]);
	while (sem_trywait(&unpack_begun))
		step();
	want(0, 4);
	after_hedges(origin(0));
	hold_unpack = false;
	sem_post(&unpack_may_end);
	UNTIL(nr_results == 3);
	settle();
	assert_int_equal(nr_asks, 1);
	assert_int_equal(origin_running(origin(0)), 0);
}

/*
 * ---------------------------------------------------------------------------
 * Replicas
 * ---------------------------------------------------------------------------
 */

/* Another server has the object of the first one, too, and is much faster. */
static struct place *add_replica(unsigned int i)
{
	char url[128];
	struct place *place;

	snprintf(url, sizeof(url), "%simage", servers[i].url);
	assert_int_equal(object_add_place(objects[0], url), 0);
	place = &objects[0]->places[objects[0]->nr_places - 1];
	servers[i].etag = "\"other\"";
	place->version = strdup(servers[i].etag);
	origin_first_byte(origin(0), 500000);
	origin_first_byte(place->origin, 1000);
	return place;
}

/* It fails in the middle: the rest comes from elsewhere, at once. */
static void test_replica_fails(void **state)
{
	begin(8);
	add_replica(1);
	begin_fetch(FETCH_AHEAD, 0, 4, 4);
	UNTIL(nr_asks == 1);
	want(0, 7);
	assert_ask(&asks[0], 1, 4, 4);
	assert_in(asks[0].head, "\r\nIf-Match: \"other\"\r\n");
	answer(&asks[0], BLOCK + BLOCK / 2);
	answer_no_more(&asks[0]);
	UNTIL(nr_asks == 2);
	assert_ask(&asks[1], 0, 5, 3);
	assert_in(asks[1].head, "\r\nIf-Match: \"v1\"\r\n");
	/* And back again. */
	answer(&asks[1], BLOCK);
	origin_succeeded(origin(1));
	answer_no_more(&asks[1]);
	UNTIL(nr_asks == 3);
	assert_ask(&asks[2], 1, 6, 2);
	answer_all(&asks[2]);
	UNTIL(nr_results == 4);
}

/* It is another object now: nobody asks for that any more, and no read fails. */
static void test_replica_changed(void **state)
{
	struct place *place;
	unsigned int i;

	begin(8);
	place = add_replica(1);
	for (i = 0; i < 3; i++) {
		begin_fetch(FETCH_DEMAND, 0, 10 * i, 2);
		want(0, 10 * i + 1);
		UNTIL(nr_asks == i + 1);
	}
	answer(&asks[0], BLOCK);
	answer_no_more(&asks[0]);
	UNTIL(nr_asks == 4);
	assert_ask(&asks[3], 0, 1, 1);
	answer_all(&asks[3]);
	answer_status(&asks[1], 412, "", "");
	UNTIL(nr_asks == 5);
	assert_ask(&asks[4], 0, 10, 2);
	answer_all(&asks[4]);
	assert_true(place->lost);
	/* Whatever it says of another GET. */
	answer_status(&asks[2], 403, "", "");
	UNTIL(nr_asks == 6);
	assert_ask(&asks[5], 0, 20, 2);
	answer_all(&asks[5]);
	UNTIL(nr_results == 6);
	for (i = 0; i < 6; i++)
		assert_int_equal(results[i].ret, 0);
	assert_true(place->lost);
	assert_int_equal(objects[0]->failed, 0);
}

/* The second GET goes to the other place. */
static void test_replica_hedge(void **state)
{
	begin(8);
	add_replica(1);
	make_hasty(origin(1));
	begin_fetch(FETCH_AHEAD, 0, 4, 2);
	UNTIL(nr_asks == 1);
	want(0, 5);
	UNTIL(nr_asks == 2);
	assert_ask(&asks[0], 1, 4, 2);
	assert_ask(&asks[1], 0, 4, 2);
	answer(&asks[0], BLOCK / 2);
	answer_all(&asks[1]);
	UNTIL(nr_results == 2);
	UNTIL(!asks[0].conn);
	assert_int_equal(origin_running(origin(1)), 0);
}

/* For lack of memory nobody is asked, there or elsewhere, before a while. */
static void test_replica_no_memory(void **state)
{
	begin(8);
	use_packed(0);
	add_replica(1);
	unpack_failures = 1000;
	begin_fetch(FETCH_DEMAND, 0, 4, 1);
	want(0, 4);
	UNTIL(unpack_failures < 1000);
	settle();
	assert_true(unpack_failures > 990);
	unpack_failures = 0;
	UNTIL(nr_asks == 1);
	assert_int_equal(nr_results, 0);
	answer_all(&asks[0]);
	UNTIL(nr_results == 1);
	assert_result(&results[0], 0, 4, 0);
}

static void use_sites(const char *fmt, ...)
{
	char path[64];
	struct qc2_err err;
	va_list ap;
	FILE *file;

	snprintf(path, sizeof(path), "%s/stores.conf", dir);
	file = fopen(path, "w");
	assert_non_null(file);
	assert_int_equal(fchmod(fileno(file), 0600), 0);
	va_start(ap, fmt);
	assert_true(vfprintf(file, fmt, ap) > 0);
	va_end(ap);
	fclose(file);
	assert_ok(qc2_sites_load(path, &sites[nr_sites], &err), err);
	cfg.sites = sites[nr_sites++];
	unlink(path);
}

/* One that has other bytes is never asked for blocks, nor one of another size. */
static void test_replica_other(void **state)
{
	struct replicas *r;
	unsigned int i;

	use_sites("[%s]\nreplica = %s\nreplica = %s\nreplica = %swrong/\n", servers[0].url,
		  servers[1].url, servers[2].url, servers[0].url);
	begin(8);
	assert_int_equal(replicas_new(&replicas[nr_replicas], event, &cfg), 0);
	r = replicas[nr_replicas++];
	servers[0].automatic = true;
	servers[1].automatic = true;
	servers[1].etag = "\"same\"";
	servers[2].automatic = true;
	servers[2].other = 1;
	servers[2].other_from = SIZE / 2;
	replicas_find(r, objects[0]);
	assert_int_equal(objects[0]->nr_places, 4);
	UNTIL(objects[0]->refs == 1);
	assert_string_equal(objects[0]->places[1].version, "\"same\"");
	assert_null(objects[0]->places[2].version);
	assert_string_equal(objects[0]->places[3].version, "\"v1\"");
	/* Nor is one of which nothing is known. */
	for (i = 0; i < 10; i++)
		origin_first_byte(origin(0), 10000000);
	begin_fetch(FETCH_DEMAND, 0, 4, 2);
	want(0, 4);
	UNTIL(nr_results == 2);
	assert_ask(&asks[nr_asks - 1], 1, 4, 2);
	replicas_find(r, objects[0]);
	assert_int_equal(objects[0]->nr_places, 4);
	replicas_stop(r);
}

static void test_replica_size(void **state)
{
	struct replicas *r;

	use_sites("[%s]\nreplica = %s\n", servers[0].url, servers[1].url);
	begin(8);
	assert_int_equal(replicas_new(&replicas[nr_replicas], event, &cfg), 0);
	r = replicas[nr_replicas++];
	servers[0].automatic = true;
	servers[1].automatic = true;
	servers[1].size = SIZE + 1;
	replicas_find(r, objects[0]);
	UNTIL(objects[0]->refs == 1);
	assert_null(objects[0]->places[1].version);
	replicas_stop(r);
}

/* A URL with a signature is not shown to other servers. */
static void test_replica_query(void **state)
{
	struct replicas *r;
	char url[96];

	use_sites("[%s]\nreplica = %s\n", servers[0].url, servers[1].url);
	begin(8);
	assert_int_equal(replicas_new(&replicas[nr_replicas], event, &cfg), 0);
	r = replicas[nr_replicas++];
	object_put(objects[0]);
	snprintf(url, sizeof(url), "%simage?sig=s3cret", servers[0].url);
	objects[0] = object_get(url, SIZE, "\"v1\"");
	replicas_find(r, objects[0]);
	assert_int_equal(objects[0]->nr_places, 1);
	replicas_stop(r);
}

/*
 * ---------------------------------------------------------------------------
 * Credentials
 * ---------------------------------------------------------------------------
 */

/* The program that is asked for keys prints these. */
static void give_keys(const char *path, const char *id)
{
	char text[256];
	int fd, len;

	UNTIL((fd = open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC)) >= 0);
	len = snprintf(text, sizeof(text),
		       "{\"Version\": 1, \"AccessKeyId\": \"%s\", \"SecretAccessKey\": \"it-is-one\"}", id);
	assert_int_equal(write(fd, text, len), len);
	close(fd);
}

/* Who has no keys yet waits for them, and nobody else does. */
static void test_keys(void **state)
{
	static const char expired[] = "<Error><Code>ExpiredToken</Code></Error>";
	char path[64];

	snprintf(path, sizeof(path), "%s/fifo", dir);
	assert_int_equal(mkfifo(path, 0600), 0);
	servers[0].url[strlen(servers[0].url) - 1] = '\0';
	use_sites("[s3://bucket/]\nendpoint = %s\ncredentials = process\nprocess = cat %s\n",
		  servers[0].url, path);
	begin(8);
	object_put(objects[0]);
	objects[0] = object_get("s3://bucket/image", SIZE, "\"v1\"");
	demand(0, 0);
	demand(0, 10);
	UNTIL(origin(0)->needs_keys);
	demand(1, 0);
	UNTIL(nr_asks == 1);
	assert_ask(&asks[0], 1, 0, 1);
	answer_all(&asks[0]);
	UNTIL(nr_results == 1);
	assert_int_equal(origin_running(origin(0)), 0);
	give_keys(path, "FIRST");
	UNTIL(nr_asks == 3);
	assert_in(asks[1].head, "=FIRST/");
	assert_in(asks[2].head, "=FIRST/");
	answer(&asks[2], 100);
	/* Of no use any more: new ones are asked for, and what runs goes on. */
	answer_status(&asks[1], 403, "Content-Type: application/xml\r\n", expired);
	UNTIL(origin(0)->needs_keys);
	answer_all(&asks[2]);
	UNTIL(nr_results == 2);
	assert_int_equal(nr_asks, 3);
	give_keys(path, "SECOND");
	UNTIL(nr_asks == 4);
	assert_in(asks[3].head, "=SECOND/");
	answer_all(&asks[3]);
	UNTIL(nr_results == 3);
	assert_int_equal(origin(0)->errors, 0);
	assert_int_equal(origin(0)->retries, 0);
	unlink(path);
}

static int setup_all(void **state)
{
	unsigned int i;
	char *mem;

	/* A test that waits for what never comes must end, too. */
	alarm(120);
	if (!mkdtemp(dir))
		return -1;
	mem = malloc((size_t)NR_BUFS * BLOCK);
	if (!mem || sd_event_new(&event) < 0)
		return -1;
	TAILQ_INIT(&cache.writes);
	for (i = 0; i < NR_BUFS; i++) {
		cache.bufs[i].mem = mem + (size_t)i * BLOCK;
		cache_put_buf(&cache.bufs[i]);
	}
	sem_init(&unpack_begun, 0, 0);
	sem_init(&unpack_may_end, 0, 0);
	cfg = (struct qc2_store_config){ .connect_timeout_s = 30, .low_speed_time_s = 60 };
	stats = fetch_stats_new();
	return stats ? 0 : -1;
}

static int teardown_all(void **state)
{
	return rmdir(dir);
}

#define TEST(name)	cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_in_order),
		TEST(test_cut),
		TEST(test_demand_first),
		TEST(test_split),
		TEST(test_join),
		TEST(test_join_demand_only),
		TEST(test_stalled),
		TEST(test_fair),
		TEST(test_bufs),
		TEST(test_stalled_bufs),
		TEST(test_retries),
		TEST(test_unwanted),
		TEST(test_final),
		TEST(test_throttled),
		TEST(test_hedge_wins),
		TEST(test_hedge_loses),
		TEST(test_hedge_both),
		TEST(test_hedge_fails),
		TEST(test_hedge_ahead),
		TEST(test_hedge_bufs),
		TEST(test_packed),
		TEST(test_packed_hedge),
		TEST(test_packed_wanted),
		TEST(test_replica_fails),
		TEST(test_replica_changed),
		TEST(test_replica_hedge),
		TEST(test_replica_no_memory),
		TEST(test_replica_other),
		TEST(test_replica_size),
		TEST(test_replica_query),
		TEST(test_keys),
	};

	return cmocka_run_group_tests(tests, setup_all, teardown_all);
}
