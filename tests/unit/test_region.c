/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The regional cache, at a server that answers on command, or in a folder.  The fetcher and
 * the cache of the host are played here.
 */
#include <dirent.h>
#include <ftw.h>
#include <signal.h>
#include <sys/stat.h>

#include "../../userspace/chaind/region.h"
#include "http_loop.h"
#include "site.h"

#define BLOCK		QC2_BLOCK_BYTES
#define NR_BLOCKS	64
#define NOISE		56		/* from this block on */
#define NR_BUFS		16
#define MAX_FETCHED	64

struct cache {
	struct cache_buf bufs[NR_BUFS], *unused[NR_BUFS];
	unsigned int nr_unused;
};

struct fetched {
	enum fetch_class class;
	uint32_t first;
	unsigned int nr;
	struct block *blocks[FETCH_MAX_BLOCKS];
};

struct result {
	uint32_t nr;
	int ret;
};

static char dir[] = "/tmp/qc2-region.XXXXXX";
static char prefix[128], key_path[64];
static sd_event *event;
static struct cache cache;
static struct qc2_config cfg;
static struct qc2_store_config store_cfg;
static struct http_server server;
static struct region *regions[64], *region;	/* kept to the end, as by the daemon */
static unsigned int nr_regions;
static struct object *object;
static struct fetch_stats *stats;
static struct fetched fetched[MAX_FETCHED];
static unsigned int nr_fetched;
static struct result results[128];
static unsigned int nr_results, nr_wanted;
static uint8_t written[NR_BLOCKS][BLOCK];
static int write_ret;
static void (*share)(void *arg, const struct block *block, const void *data);
static void *share_arg;
static struct waiter waiters[64];
static unsigned int nr_waiters;

/*
 * ---------------------------------------------------------------------------
 * What is around the regional cache
 * ---------------------------------------------------------------------------
 */

unsigned int cache_bufs(const struct cache *c, unsigned int *total)
{
	*total = NR_BUFS;
	return c->nr_unused;
}

bool cache_take_bufs(struct cache *c, unsigned int nr, struct cache_buf **bufs)
{
	assert_int_equal(nr, 1);
	if (!c->nr_unused)
		return false;
	*bufs = c->unused[--c->nr_unused];
	return true;
}

void cache_put_buf(struct cache_buf *buf)
{
	assert_true(cache.nr_unused < NR_BUFS);
	memset(buf->mem, 0xee, BLOCK);
	cache.unused[cache.nr_unused++] = buf;
}

struct write {
	struct cache_buf *buf;
	sd_event_source *source;
	uint32_t nr;
	void (*done)(void *arg, int ret);
	void *arg;
};

static int on_written(sd_event_source *source, void *arg)
{
	struct write *w = arg;

	if (!write_ret)
		memcpy(written[w->nr], w->buf->mem, BLOCK);
	cache_put_buf(w->buf);
	w->done(w->arg, write_ret);
	sd_event_source_disable_unref(source);
	free(w);
	return 0;
}

void cache_write(struct cache_buf *buf, struct object *obj, uint32_t block,
		 struct cache_span *span, unsigned int span_want, enum space_class class,
		 const bool *mark, const uint8_t *digest, void (*done)(void *arg, int ret), void *arg)
{
	struct write *w = calloc(1, sizeof(*w));

	*w = (struct write){ .buf = buf, .nr = block, .done = done, .arg = arg };
	assert_true(sd_event_add_defer(event, &w->source, on_written, w) >= 0);
}

void cache_end_span(struct cache *unused, struct cache_span *span)
{
}

int fetch_start(struct fetcher *fetcher, enum fetch_class class, struct block **blocks,
		unsigned int nr, struct fetch_stats *s)
{
	struct fetched *f = &fetched[nr_fetched++];
	unsigned int i;

	assert_true(nr_fetched < MAX_FETCHED);
	assert_in_range(nr, 1, FETCH_MAX_BLOCKS);
	*f = (struct fetched){ .class = class, .first = blocks[0]->nr, .nr = nr };
	for (i = 0; i < nr; i++) {
		assert_int_equal(blocks[i]->nr, blocks[0]->nr + i);
		f->blocks[i] = blocks[i];
	}
	return 0;
}

void fetch_want(struct block *block)
{
	nr_wanted++;
}

void fetch_wake(struct fetcher *fetcher)
{
}

void fetcher_share(struct fetcher *fetcher,
		   void (*fn)(void *arg, const struct block *block, const void *data), void *arg)
{
	share = fn;
	share_arg = arg;
}

void fetch_stats_put(struct fetch_stats *s)
{
	assert_true(s->refs-- > 1);
}

static void block_done(struct block *block, int ret)
{
	struct waiter *wait;

	results[nr_results++] = (struct result){ block->nr, ret };
	assert_null(block->find);
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
	assert_true(sd_event_run(event, 100000) >= 0);
}

#define UNTIL(condition) do {						\
	while (!(condition))						\
		step();							\
} while (0)

/* The last ones cannot be compressed. */
static void content_of(uint32_t nr, uint8_t *content)
{
	uint64_t random = nr;
	unsigned int i;

	for (i = 0; i < BLOCK; i++)
		content[i] = nr < NOISE ? nr + i / 512 : test_random(&random);
}

static bool is_written(uint32_t nr)
{
	uint8_t content[BLOCK];

	content_of(nr, content);
	return !memcmp(written[nr], content, BLOCK);
}

static struct block *new_block(uint32_t nr, bool has_digest)
{
	struct block *block = block_new(object, nr);
	uint8_t content[BLOCK];

	content_of(nr, content);
	block->has_digest = has_digest;
	assert_int_equal(qc2_digest(content, block->digest), 0);
	return block;
}

static void find(enum fetch_class class, uint32_t first, unsigned int nr)
{
	struct block *blocks[FETCH_MAX_BLOCKS];
	unsigned int i;

	for (i = 0; i < nr; i++)
		blocks[i] = new_block(first + i, true);
	assert_int_equal(region_fetch(region, class, blocks, nr, stats), 0);
}

static void want(uint32_t nr)
{
	struct block *block = block_find(object, nr);
	struct waiter *wait = &waiters[nr_waiters++];

	LIST_INSERT_HEAD(&block->waiters, wait, by_block);
	region_want(block);
}

static struct region_stats get_stats(void)
{
	struct region_stats s;

	region_get_stats(region, &s);
	return s;
}

static bool in_trouble(void)
{
	return get_stats().trouble->msg[0];
}

static void answer_bytes(struct ask *ask, const void *data, size_t len, size_t total)
{
	char text[512];

	snprintf(text, sizeof(text),
		 "HTTP/1.1 206 Partial\r\nETag: \"x\"\r\nContent-Range: bytes 0-%zu/%zu\r\nContent-Length: %zu\r\n\r\n",
		 len - 1, total, len);
	conn_send(ask->conn, text, strlen(text));
	conn_send(ask->conn, data, len);
	ask->over = true;
	ask->conn->ask = NULL;
	conn_flush(ask->conn);
}

/* Which of the blocks [0, NR_BLOCKS) a GET is for. */
static uint32_t asked(const struct ask *ask, uint8_t *name)
{
	uint8_t digest[QC2_DIGEST_LEN], content[BLOCK];
	uint32_t nr;
	char *url;
	bool same;

	for (nr = 0; nr < NR_BLOCKS; nr++) {
		content_of(nr, content);
		assert_int_equal(qc2_digest(content, digest), 0);
		assert_int_equal(qc2_region_name(NULL, digest, NULL, 0, name), 0);
		url = qc2_region_url("GET /cache/", name);
		same = !strncmp(ask->head, url, strlen(url));
		free(url);
		if (same)
			return nr;
	}
	return UINT32_MAX;
}

/* The block that was asked for, with a byte @flip of what is stored changed. */
static void answer_block(struct ask *ask, long flip, size_t len, bool longer)
{
	uint8_t content[BLOCK], packed[QC2_REGION_MAX], name[QC2_REGION_NAME_LEN];
	uint32_t nr = asked(ask, name);
	size_t n;

	assert_true(nr < NR_BLOCKS);
	content_of(nr, content);
	assert_int_equal(qc2_region_pack(NULL, name, NULL, content, packed, &n), 0);
	if (flip >= 0)
		packed[flip] ^= 1;
	if (len && len < n)
		n = len;
	answer_bytes(ask, packed, n, n + longer);
}

static void answer_missing(struct ask *ask)
{
	answer_status(ask, 404, "", "");
}

static void new_region(const char *cache_url)
{
	struct qc2_err err;

	snprintf(prefix, sizeof(prefix), "%s", cache_url);
	cfg.region_cache = prefix;
	assert_ok(region_new(&region, event, &cache, NULL, &cfg, &store_cfg, block_done, &err),
		  err);
	regions[nr_regions++] = region;
}

static void begin(void)
{
	char url[128];

	snprintf(url, sizeof(url), "%scache/", server.url);
	new_region(url);
}

static void begin_in_folder(void)
{
	char url[128];

	snprintf(url, sizeof(url), "file://%s/", dir);
	new_region(url);
}

static int setup(void **state)
{
	nr_asks = nr_fetched = nr_results = nr_wanted = nr_waiters = 0;
	memset(asks, 0, sizeof(asks));
	memset(written, 0, sizeof(written));
	write_ret = 0;
	cfg = (struct qc2_config){ .connections = 16, .region_timeout_ms = 60000 };
	store_cfg.sites = NULL;
	origin_setup(16);
	http_start(&server, event, 1 << 20);
	object = object_get("https://far.example/image", (uint64_t)NR_BLOCKS * BLOCK, "\"v1\"");
	assert_non_null(object);
	return 0;
}

static int teardown(void **state)
{
	unsigned int i, n;

	for (i = 0; i < nr_fetched; i++)
		for (n = 0; n < fetched[i].nr; n++)
			block_done(fetched[i].blocks[n], 0);
	assert_null(object->blocks);
	assert_int_equal(object->refs, 1);
	object_put(object);
	assert_int_equal(cache.nr_unused, NR_BUFS);
	assert_int_equal(stats->refs, 1);
	http_stop(&server);
	region_stop(region);
	return 0;
}

/*
 * ---------------------------------------------------------------------------
 * Tests
 * ---------------------------------------------------------------------------
 */

static void test_found(void **state)
{
	unsigned int i;

	begin();
	find(FETCH_AHEAD, 3, 4);
	UNTIL(nr_asks == 4);
	for (i = 0; i < 4; i++)
		answer_block(&asks[3 - i], -1, 0, false);
	UNTIL(nr_results == 4);
	for (i = 0; i < 4; i++) {
		assert_int_equal(results[i].ret, 0);
		assert_true(is_written(3 + i));
	}
	assert_int_equal(nr_fetched, 0);
	assert_int_equal(get_stats().hits, 4);
}

/* What is not there is fetched with its neighbours, when all of it is known. */
static void test_missing(void **state)
{
	uint8_t name[QC2_REGION_NAME_LEN];
	unsigned int i;

	begin();
	find(FETCH_AHEAD, 0, 6);
	UNTIL(nr_asks == 6);
	for (i = 0; i < 6; i++) {
		assert_int_equal(nr_fetched, 0);
		if (asked(&asks[i], name) == 2)
			answer_block(&asks[i], -1, 0, false);
		else
			answer_missing(&asks[i]);
		UNTIL(get_stats().hits + get_stats().misses == i + 1);
	}
	UNTIL(nr_fetched == 2);
	assert_int_equal(fetched[0].first, 0);
	assert_int_equal(fetched[0].nr, 2);
	assert_int_equal(fetched[1].first, 3);
	assert_int_equal(fetched[1].nr, 3);
	assert_int_equal(fetched[1].class, FETCH_AHEAD);
	assert_true(fetched[0].blocks[0]->share && fetched[1].blocks[2]->share);
	assert_int_equal(get_stats().misses, 5);
	assert_false(in_trouble());
}

/* A read comes to want a block: it goes first, and does not wait for the others. */
static void test_wanted(void **state)
{
	uint8_t name[QC2_REGION_NAME_LEN];
	unsigned int i, n;

	cfg.connections = 2;		/* one for what is ahead */
	origin_setup(2);
	begin();
	find(FETCH_AHEAD, 0, 8);
	UNTIL(nr_asks == 1);
	want(5);
	n = nr_asks;
	UNTIL(nr_asks > n);
	assert_int_equal(asked(&asks[n], name), 5);
	answer_missing(&asks[n]);
	UNTIL(nr_fetched == 1);
	assert_int_equal(fetched[0].first, 5);
	assert_int_equal(fetched[0].nr, 1);
	assert_int_equal(fetched[0].class, FETCH_DEMAND);
	/* Known to be missing, and waiting for the others, when it is wanted. */
	n = asked(&asks[0], name);
	answer_missing(&asks[0]);
	UNTIL(get_stats().misses == 2);
	assert_int_equal(nr_fetched, 1);
	want(n);
	assert_int_equal(nr_fetched, 2);
	assert_int_equal(fetched[1].first, n);
	for (i = 0; nr_results < 6; i++) {
		for (n = 1; n < nr_asks; n++)
			if (asks[n].conn && !asks[n].over)
				answer_block(&asks[n], -1, 0, false);
		step();
	}
	assert_int_equal(nr_fetched, 2);
	origin_setup(16);
}

static void test_bad(void **state)
{
	static const struct {
		long flip;
		size_t len;
	} cases[] = { { 0, 0 }, { 100, 0 }, { 40, 0 }, { -1, 200 }, { -1, 5 } };
	unsigned int i, n = sizeof(cases) / sizeof(cases[0]);

	begin();
	for (i = 0; i < n; i++) {
		find(FETCH_DEMAND, i, 1);
		UNTIL(nr_asks == i + 1);
		answer_block(&asks[i], cases[i].flip, cases[i].len, false);
		UNTIL(nr_fetched == i + 1);
		assert_int_equal(fetched[i].first, i);
		assert_true(fetched[i].blocks[0]->share);
		assert_int_equal(get_stats().bad, i + 1);
	}
	/* Longer than any block; empty, in two ways; right, but not for the cache. */
	find(FETCH_DEMAND, NOISE, 1);
	UNTIL(nr_asks == n + 1);
	answer_block(&asks[n], -1, 0, true);
	UNTIL(nr_fetched == n + 1);
	find(FETCH_DEMAND, n + 1, 1);
	UNTIL(nr_asks == n + 2);
	answer_status(&asks[n + 1], 416, "Content-Range: bytes */0\r\n", "");
	UNTIL(nr_fetched == n + 2);
	find(FETCH_DEMAND, n + 2, 1);
	UNTIL(nr_asks == n + 3);
	answer_status(&asks[n + 2], 200, "", "");
	UNTIL(nr_fetched == n + 3);
	write_ret = -EBADMSG;
	find(FETCH_DEMAND, n + 3, 1);
	UNTIL(nr_asks == n + 4);
	answer_block(&asks[n + 3], -1, 0, false);
	UNTIL(nr_fetched == n + 4);
	assert_int_equal(get_stats().bad, n + 4);
	assert_int_equal(get_stats().hits, 0);
	assert_false(in_trouble());
}

/* Who does not answer is not waited for, and not asked until it answers again. */
static void test_slow(void **state)
{
	unsigned int n;

	cfg.region_timeout_ms = 20;
	begin();
	find(FETCH_DEMAND, 0, 1);
	UNTIL(nr_fetched == 1);
	assert_true(fetched[0].blocks[0]->share);
	assert_false(in_trouble());
	find(FETCH_AHEAD, 1, 4);
	UNTIL(nr_fetched == 2);
	assert_true(in_trouble());
	assert_in(get_stats().trouble->msg, "no answer within");
	assert_false(region_wants(region, object));
	n = nr_asks;
	find(FETCH_DEMAND, 5, 1);
	assert_int_equal(nr_fetched, 3);
	assert_false(fetched[2].blocks[0]->share);
	/* A probe that is answered too late, and one in time. */
	UNTIL(nr_asks == n + 1);
	UNTIL(!asks[n].conn);
	assert_true(in_trouble());
	UNTIL(nr_asks == n + 2);
	answer_missing(&asks[n + 1]);
	UNTIL(!in_trouble());
	assert_true(region_wants(region, object));
	cfg.region_timeout_ms = 60000;
	find(FETCH_DEMAND, 6, 1);
	UNTIL(nr_asks == n + 3);
	answer_block(&asks[n + 2], -1, 0, false);
	UNTIL(nr_results == 1);
	assert_true(is_written(6));
	assert_int_equal(nr_fetched, 3);
}

/* As it does for a look-up that waits behind others. */
static void test_slow_queue(void **state)
{
	cfg.region_timeout_ms = 20;
	cfg.connections = 1;
	origin_setup(1);
	begin();
	find(FETCH_DEMAND, 0, 1);
	find(FETCH_DEMAND, 1, 1);
	UNTIL(nr_fetched == 2);
	assert_false(in_trouble());
	assert_true(get_stats().slow < 3);
	origin_setup(16);
}

/* And what waits behind those that are under way does not wait for these. */
static void test_trouble_queue(void **state)
{
	cfg.connections = 2;
	origin_setup(2);
	begin();
	find(FETCH_DEMAND, 0, 1);
	find(FETCH_DEMAND, 1, 1);
	find(FETCH_DEMAND, 2, 1);
	UNTIL(nr_asks == 2);
	answer_status(&asks[0], 403, "", "");
	UNTIL(nr_fetched == 2);
	assert_int_equal(fetched[0].first + fetched[1].first, 2);
	answer_missing(&asks[1]);
	UNTIL(nr_fetched == 3);
	origin_setup(16);
}

static void test_refused(void **state)
{
	begin();
	find(FETCH_DEMAND, 0, 1);
	UNTIL(nr_asks == 1);
	answer_status(&asks[0], 403, "", "");
	UNTIL(nr_fetched == 1);
	assert_true(in_trouble());
	assert_in(get_stats().trouble->msg, "refuses access");
	UNTIL(nr_asks == 2);
	answer_missing(&asks[1]);
	UNTIL(!in_trouble());
}

/* One failure is none; three are. */
static void test_failures(void **state)
{
	unsigned int i;

	begin();
	for (i = 0; i < 5; i++) {
		assert_false(in_trouble());
		find(FETCH_DEMAND, i, 1);
		UNTIL(nr_asks == i + 1);
		if (i == 1)
			answer_missing(&asks[i]);
		else
			answer_status(&asks[i], 500, "", "");
		UNTIL(nr_fetched == i + 1);
	}
	assert_true(in_trouble());
	assert_int_equal(get_stats().errors, 4);
	UNTIL(nr_asks == 6);
	answer_status(&asks[5], 500, "", "");
	UNTIL(nr_asks == 7);
	answer_missing(&asks[6]);
	UNTIL(!in_trouble());
}

static void test_throttled(void **state)
{
	begin();
	find(FETCH_DEMAND, 0, 1);
	UNTIL(nr_asks == 1);
	answer_status(&asks[0], 503, "Retry-After: 1\r\n", "");
	UNTIL(nr_fetched == 1);
	assert_true(in_trouble());
	UNTIL(nr_asks == 2);
	answer_missing(&asks[1]);
	UNTIL(!in_trouble());
}

/* Without a buffer nothing is looked up, and nothing waits. */
static void test_no_bufs(void **state)
{
	struct cache_buf *bufs[NR_BUFS];
	int i;

	begin();
	for (i = 0; i < NR_BUFS; i++)
		assert_true(cache_take_bufs(&cache, 1, &bufs[i]));
	find(FETCH_DEMAND, 0, 2);
	UNTIL(nr_fetched == 1);
	assert_int_equal(fetched[0].nr, 2);
	for (i = 0; i < NR_BUFS; i++)
		cache_put_buf(bufs[i]);
	assert_int_equal(nr_asks, 0);
}

static bool wants(const char *url)
{
	struct object *obj = object_get(url, 1 << 20, "v");
	bool ret = region_wants(region, obj);

	object_put(obj);
	return ret;
}

static void test_what(void **state)
{
	static char *near_stores[] = { (char *)"https://near.example/", (char *)"http://x/y/" };
	struct qc2_sites *sites;
	struct qc2_err err;
	char path[64];
	FILE *f;

	snprintf(path, sizeof(path), "%s/stores", dir);
	f = fopen(path, "w");
	fprintf(f, "[s3://secret/]\naccess_key=a\nsecret_key=b\n[s3://open/]\ncredentials=anonymous\n");
	fclose(f);
	chmod(path, 0600);
	assert_ok(qc2_sites_load(path, &sites, &err), err);
	unlink(path);
	store_cfg.sites = sites;
	cfg.region_stores = near_stores;
	cfg.nr_region_stores = 2;
	begin();
	assert_true(wants("https://far.example/near.example"));
	assert_true(wants("http://x/z"));
	assert_true(wants("s3://open/x"));
	assert_false(wants("https://near.example/x"));
	assert_false(wants("http://x/y/z"));
	assert_false(wants("file:///x"));
	assert_false(wants("s3://secret/x"));
	assert_false(wants("https://far.example/x?signature"));
	cfg.region_private = true;
	assert_true(wants("s3://secret/x"));
	assert_true(wants("https://far.example/x?signature"));
	assert_false(wants("https://near.example/x"));
	store_cfg.sites = NULL;
	qc2_sites_free(sites);
}

/* Nobody could verify a block without a digest, if there is no key. */
static void test_no_digest(void **state)
{
	struct block *block;

	begin();
	block = new_block(0, false);
	assert_int_equal(region_fetch(region, FETCH_DEMAND, &block, 1, stats), 0);
	assert_int_equal(nr_fetched, 1);
	assert_false(block->share);
	assert_int_equal(nr_asks, 0);
}

static char stored[16][512];
static unsigned int nr_stored;

static int count_file(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	if (type == FTW_F)
		snprintf(stored[nr_stored++ % 16], sizeof(stored[0]), "%s", path);
	return 0;
}

static unsigned int count_stored(void)
{
	char path[64];

	snprintf(path, sizeof(path), "%s/v1", dir);
	nr_stored = 0;
	nftw(path, count_file, 8, FTW_PHYS);
	return nr_stored;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	return remove(path);
}

/* What is missing is stored, and found then, by digest or by place. */
static void round_trip(bool has_digest)
{
	uint8_t content[BLOCK];
	struct block *block;
	FILE *f;

	block = new_block(7, has_digest);
	assert_int_equal(region_fetch(region, FETCH_DEMAND, &block, 1, stats), 0);
	UNTIL(nr_fetched == 1);
	assert_true(block->share);
	/* It turns out to be damaged: not stored. */
	if (has_digest) {
		content_of(8, content);
		share(share_arg, block, content);
		UNTIL(!get_stats().store.queued);
		assert_int_equal(get_stats().store.errors, 0);
		assert_int_equal(count_stored(), 0);
	}
	content_of(7, content);
	share(share_arg, block, content);
	UNTIL(get_stats().store.stored == 1);
	assert_int_equal(count_stored(), 1);
	block_done(block, 0);
	nr_fetched = 0;
	nr_results = 0;

	block = new_block(7, has_digest);
	assert_int_equal(region_fetch(region, FETCH_DEMAND, &block, 1, stats), 0);
	UNTIL(nr_results == 1);
	assert_int_equal(nr_fetched, 0);
	assert_true(is_written(7));

	/* Changed: noticed, and replaced by what the store has. */
	f = fopen(stored[0], "r+");
	assert_non_null(f);
	fseek(f, 100, SEEK_SET);
	fputc(0xff, f);
	fclose(f);
	nr_results = 0;
	block = new_block(7, has_digest);
	assert_int_equal(region_fetch(region, FETCH_DEMAND, &block, 1, stats), 0);
	UNTIL(nr_fetched == 1);
	assert_int_equal(get_stats().bad, 1);
	share(share_arg, block, content);
	UNTIL(get_stats().store.stored == 2);
	block_done(block, 0);
	nr_fetched = 0;
	nr_results = 0;
	block = new_block(7, has_digest);
	assert_int_equal(region_fetch(region, FETCH_DEMAND, &block, 1, stats), 0);
	UNTIL(nr_results == 1);
	assert_int_equal(get_stats().hits, 2);
	assert_int_equal(count_stored(), 1);
}

static void clear_folder(void)
{
	char path[64];

	snprintf(path, sizeof(path), "%s/v1", dir);
	nftw(path, remove_one, 8, FTW_PHYS | FTW_DEPTH);
}

static void test_folder(void **state)
{
	begin_in_folder();
	round_trip(true);
	clear_folder();
}

static void test_folder_with_key(void **state)
{
	FILE *f = fopen(key_path, "w");

	fprintf(f, "0123456789abcdef0123456789abcdef\n");
	fclose(f);
	chmod(key_path, 0600);
	cfg.region_key_file = key_path;
	begin_in_folder();
	round_trip(true);
	clear_folder();
	region_stop(region);
	nr_fetched = nr_results = 0;
	begin_in_folder();
	round_trip(false);
	clear_folder();
	unlink(key_path);
}

/* Storing fails: there is a pause, in which blocks are dropped; looking goes on. */
static void test_cannot_store(void **state)
{
	uint8_t content[BLOCK] = { 0 };
	struct block *block;
	char path[64];
	FILE *f;

	snprintf(path, sizeof(path), "%s/v1", dir);
	f = fopen(path, "w");	/* a file in the folder's place */
	fclose(f);
	begin_in_folder();
	block = new_block(0, false);
	block->share = true;
	share(share_arg, block, content);
	UNTIL(get_stats().store.errors == 1);
	assert_true(get_stats().store.trouble->msg[0]);
	share(share_arg, block, content);
	assert_int_equal(get_stats().store.dropped, 1);
	assert_false(in_trouble());
	block_free(block);
	unlink(path);
}

/* However fast they come, and whatever becomes of them, memory is bounded. */
static void test_queue(void **state)
{
	uint8_t content[BLOCK] = { 0 };
	struct region_store_stats s;
	struct block *block;
	unsigned int i;

	begin_in_folder();
	block = new_block(0, false);
	for (i = 0; i < 2000; i++)
		share(share_arg, block, content);
	s = get_stats().store;
	assert_in_range(s.queued, 1, 600);
	assert_int_equal(s.queued + s.dropped, 2000);
	UNTIL(!get_stats().store.queued);
	s = get_stats().store;
	assert_int_equal(s.stored + s.dropped, 2000);
	block_free(block);
	clear_folder();
}

static int setup_all(void **state)
{
	unsigned int i;

	signal(SIGPIPE, SIG_IGN);
	if (!mkdtemp(dir) || sd_event_new(&event) < 0 || curl_global_init(CURL_GLOBAL_DEFAULT))
		return -1;
	snprintf(key_path, sizeof(key_path), "%s/key", dir);
	store_cfg.connect_timeout_s = 10;
	store_cfg.low_speed_time_s = 10;
	for (i = 0; i < NR_BUFS; i++) {
		cache.bufs[i].mem = malloc(BLOCK);
		cache.unused[i] = &cache.bufs[i];
	}
	cache.nr_unused = NR_BUFS;
	stats = calloc(1, sizeof(*stats));
	stats->refs = 1;
	return 0;
}

static int teardown_all(void **state)
{
	return rmdir(dir);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_found),
		TEST(test_missing),
		TEST(test_wanted),
		TEST(test_bad),
		TEST(test_slow),
		TEST(test_slow_queue),
		TEST(test_trouble_queue),
		TEST(test_refused),
		TEST(test_failures),
		TEST(test_throttled),
		TEST(test_no_bufs),
		TEST(test_what),
		TEST(test_no_digest),
		TEST(test_folder),
		TEST(test_folder_with_key),
		TEST(test_cannot_store),
		TEST(test_queue),
	};

	return cmocka_run_group_tests(tests, setup_all, teardown_all);
}
