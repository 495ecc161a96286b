/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Fetches: the queue, retries, cutting data into blocks.  How libcurl's multi
 * interface is driven is in multi.c.
 *
 * Main thread only.  A fetch of a file runs in a thread of file_pool,
 * unpacking in one of unpack_pool; until its done() the main thread leaves the fetch alone.
 */
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "fetch.h"
#include "multi.h"
#include "pool.h"
#include "unpack.h"

#define FILE_THREADS		4
#define UNPACK_THREADS		2
#define MAX_BACKOFF_MS		10000
/* How long after a final error an object's next one is given at once. */
#define FAILED_US		1000000

struct fetch {
	struct fetcher *fetcher;
	struct object *obj;
	struct block **blocks;		/* [next, nr) are still to come */
	unsigned int next, nr;
	struct cache_buf **bufs;	/* for the same, while running */
	unsigned int filled;		/* bytes in bufs[next] */
	unsigned int tries;
	struct cache_span span;
	struct fetch_stats *stats;
	struct qc2_get get;
	CURL *easy;			/* of the GET that runs or ran */
	struct unpack *unpack;		/* of an unpacked object */
	bool damaged[FETCH_MAX_BLOCKS];	/* blocks of it that cannot be unpacked */
	struct job job;			/* of a file or of unpacking; its result */
	int ret;
	struct qc2_err err;
	sd_event_source *timer;		/* to the next try */
	TAILQ_ENTRY(fetch) entry;
};
TAILQ_HEAD(fetch_list, fetch);

struct fetcher {
	sd_event *event;
	struct cache *cache;
	const struct qc2_store_config *store;
	unsigned int connections;
	void (*block_done)(struct block *block, int ret);
	struct multi *multi;
	struct pool *file_pool, *unpack_pool;
	struct fetch_list queue;	/* to be started */
	struct fetch_list running;
	struct fetch_list resting;	/* between two tries */
	unsigned int nr_http;		/* running */
	sd_event_source *pump_source;
};

struct fetch_stats *fetch_stats_new(void)
{
	struct fetch_stats *stats = calloc(1, sizeof(*stats));

	if (stats)
		stats->refs = 1;
	return stats;
}

void fetch_stats_put(struct fetch_stats *stats)
{
	if (stats && !--stats->refs)
		free(stats);
}

static bool is_file(const struct fetch *fetch)
{
	return !strncmp(fetch->obj->url, "file:", 5);
}

static void wake_pump(struct fetcher *fetcher)
{
	sd_event_source_set_enabled(fetcher->pump_source, SD_EVENT_ONESHOT);
}

static void fetch_free(struct fetch *fetch)
{
	sd_event_source_disable_unref(fetch->timer);
	curl_easy_cleanup(fetch->easy);
	fetch_stats_put(fetch->stats);
	unpack_free(fetch->unpack);
	object_put(fetch->obj);
	free(fetch->blocks);
	free(fetch->bufs);
	free(fetch);
}

/* Bytes of a block that the object has; only its last block has fewer. */
static unsigned int block_bytes(const struct fetch *fetch, unsigned int i)
{
	uint64_t start = (uint64_t)fetch->blocks[i]->nr * QC2_BLOCK_BYTES;
	uint64_t left = fetch->obj->size - start;

	return left < QC2_BLOCK_BYTES ? left : QC2_BLOCK_BYTES;
}

static void landed(void *arg, int ret)
{
	struct block *block = arg;
	struct fetcher *fetcher = block->fetcher;

	fetcher->block_done(block, ret);
	wake_pump(fetcher);		/* a buffer is free again */
}

/* The next block is complete: on to the cache with it. */
static void land_block(struct fetch *fetch)
{
	struct cache_buf *buf = fetch->bufs[fetch->next];
	struct block *block = fetch->blocks[fetch->next];
	unsigned int bytes = block_bytes(fetch, fetch->next);

	memset((char *)buf->mem + bytes, 0, QC2_BLOCK_BYTES - bytes);
	cache_write(buf, fetch->obj, block->nr, &fetch->span,
		    fetch->nr - fetch->next, block->has_digest ? block->digest : NULL,
		    landed, block);
	fetch->next++;
	fetch->filled = 0;
	fetch->tries = 0;
}

static int http_data(void *arg, const void *data, size_t len)
{
	struct fetch *fetch = arg;

	while (len) {
		size_t n = block_bytes(fetch, fetch->next) - fetch->filled;

		if (n > len)
			n = len;
		memcpy((char *)fetch->bufs[fetch->next]->mem + fetch->filled,
		       data, n);
		fetch->filled += n;
		fetch->stats->bytes += n;
		data = (const char *)data + n;
		len -= n;
		if (fetch->filled == block_bytes(fetch, fetch->next))
			land_block(fetch);
	}
	return 0;
}

/* In a pool thread; the bytes are handed on by file_done(). */
static int file_data(void *arg, const void *data, size_t len)
{
	struct fetch *fetch = arg;

	while (len) {
		unsigned int i = fetch->next + fetch->filled / QC2_BLOCK_BYTES;
		unsigned int at = fetch->filled % QC2_BLOCK_BYTES;
		size_t n = QC2_BLOCK_BYTES - at;

		if (n > len)
			n = len;
		memcpy((char *)fetch->bufs[i]->mem + at, data, n);
		fetch->filled += n;
		data = (const char *)data + n;
		len -= n;
	}
	return 0;
}

/* Compressed data is unpacked when all of it has come.  In any thread. */
static int packed_data(void *arg, const void *data, size_t len)
{
	struct fetch *fetch = arg;

	unpack_data(fetch->unpack, data, len);
	return 0;
}

static bool is_wanted(const struct fetch *fetch)
{
	unsigned int i;

	for (i = fetch->next; i < fetch->nr; i++) {
		if (!LIST_EMPTY(&fetch->blocks[i]->waiters))
			return true;
	}
	return false;
}

/* Gives up what has not come. */
static void end_fetch(struct fetch *fetch, int ret)
{
	struct fetcher *fetcher = fetch->fetcher;

	while (fetch->next < fetch->nr)
		fetcher->block_done(fetch->blocks[fetch->next++], ret);
	fetch_free(fetch);
}

static int on_rested(sd_event_source *source, uint64_t usec, void *arg)
{
	struct fetch *fetch = arg;
	struct fetcher *fetcher = fetch->fetcher;

	TAILQ_REMOVE(&fetcher->resting, fetch, entry);
	fetch->timer = sd_event_source_disable_unref(fetch->timer);
	if (is_wanted(fetch)) {
		TAILQ_INSERT_TAIL(&fetcher->queue, fetch, entry);
		wake_pump(fetcher);
	} else {
		end_fetch(fetch, -ECANCELED);
	}
	return 0;
}

static bool rest(struct fetch *fetch)
{
	struct fetcher *fetcher = fetch->fetcher;
	unsigned int ms = qc2_backoff_ms(++fetch->tries, MAX_BACKOFF_MS);

	if (sd_event_add_time_relative(fetcher->event, &fetch->timer,
				       CLOCK_MONOTONIC, ms * 1000ULL, 0,
				       on_rested, fetch) < 0)
		return false;
	TAILQ_INSERT_TAIL(&fetcher->resting, fetch, entry);
	return true;
}

/* The store answers: what rests because of it is tried now. */
static void wake_resting(struct fetcher *fetcher, const char *host)
{
	struct fetch *fetch;

	TAILQ_FOREACH(fetch, &fetcher->resting, entry) {
		if (!strcmp(fetch->obj->host, host))
			sd_event_source_set_time_relative(fetch->timer, 0);
	}
}

/* A transfer ended, with the result @ret, or could not be started. */
static void transfer_done(struct fetch *fetch, int ret,
			  const struct qc2_err *err)
{
	struct fetcher *fetcher = fetch->fetcher;
	struct object *obj = fetch->obj;
	bool may_pass = ret == -EAGAIN || ret == -ENOMEM;
	unsigned int i;

	TAILQ_REMOVE(&fetcher->running, fetch, entry);
	for (i = fetch->next; i < fetch->nr; i++)
		cache_put_buf(fetch->bufs[i]);
	fetch->filled = 0;
	wake_pump(fetcher);
	if (!ret) {
		if (obj->trouble.msg[0])
			wake_resting(fetcher, obj->host);
		object_recovered(obj);
		fetch_free(fetch);
		return;
	}
	fetch->stats->errors++;
	object_trouble(obj, err);
	if (may_pass && is_wanted(fetch) && rest(fetch))
		return;
	if (!may_pass) {
		fetch->stats->last_error = *err;
		obj->failed_until_us = now_us() + FAILED_US;
		obj->failed = ret == -ESTALE ? ret : -EIO;
	}
	end_fetch(fetch, may_pass ? -EAGAIN : obj->failed);
}

static void start_transfer(struct fetch *fetch);

/* In a pool thread. */
static void unpack_job(struct job *job)
{
	struct fetch *fetch = (struct fetch *)((char *)job -
			      offsetof(struct fetch, job));
	void *out[FETCH_MAX_BLOCKS];
	unsigned int i;
	uint64_t bad;

	for (i = 0; i < fetch->nr; i++)
		out[i] = fetch->bufs[i]->mem;
	fetch->ret = unpack_run(fetch->unpack, out, QC2_BLOCK_BYTES,
				fetch->damaged, &bad);
	if (fetch->ret == -ENOMEM)
		qc2_fail(&fetch->err, ENOMEM, "out of memory");
	else if (fetch->ret)
		qc2_fail(&fetch->err, -fetch->ret,
			 "%s: the compressed cluster at offset %llu is damaged; repair the image from a copy",
			 fetch->obj->url, (unsigned long long)bad);
}

static void unpack_done(struct job *job)
{
	struct fetch *fetch = (struct fetch *)((char *)job -
			      offsetof(struct fetch, job));

	if (fetch->ret == -ENOMEM) {
		transfer_done(fetch, fetch->ret, &fetch->err);
		return;
	}
	/* Damage is the image's, not the store's, and that of some blocks only. */
	if (fetch->ret) {
		fetch->stats->errors++;
		fetch->stats->last_error = fetch->err;
		if (log_allowed(&fetch->obj->log_limit))
			log_err("%s", fetch->err.msg);
	}
	while (fetch->next < fetch->nr) {
		if (fetch->damaged[fetch->next]) {
			struct block *block = fetch->blocks[fetch->next];

			cache_put_buf(fetch->bufs[fetch->next++]);
			/* A manifest may have named the wrong place. */
			fetch->fetcher->block_done(block, block->has_digest ?
						   -EBADMSG : -EIO);
		} else {
			land_block(fetch);
		}
	}
	transfer_done(fetch, 0, NULL);
}

/* A range of compressed data has come, or has not. */
static void packed_done(struct fetch *fetch, int ret, const struct qc2_err *err)
{
	unpack_range_done(fetch->unpack, !ret);
	if (ret)
		transfer_done(fetch, ret, err);
	else
		start_transfer(fetch);
}

static void http_done(void *arg, CURLcode code)
{
	struct fetch *fetch = arg;
	struct qc2_err err;
	int ret;

	fetch->fetcher->nr_http--;
	ret = qc2_get_finish(&fetch->get, code, &err);
	qc2_get_cleanup(&fetch->get);
	if (!fetch->unpack) {
		transfer_done(fetch, ret, &err);
		return;
	}
	if (!ret)
		fetch->stats->bytes += fetch->get.len;
	packed_done(fetch, ret, &err);
}

static void file_run(struct job *job)
{
	struct fetch *fetch = (struct fetch *)((char *)job -
			      offsetof(struct fetch, job));

	fetch->ret = qc2_get_prepare(&fetch->get, fetch->easy,
				     fetch->fetcher->store, &fetch->err);
	if (!fetch->ret)
		fetch->ret = qc2_get_finish(&fetch->get,
					    curl_easy_perform(fetch->easy),
					    &fetch->err);
	qc2_get_cleanup(&fetch->get);
}

static void file_done(struct job *job)
{
	struct fetch *fetch = (struct fetch *)((char *)job -
			      offsetof(struct fetch, job));

	if (fetch->unpack) {
		if (!fetch->ret)
			fetch->stats->bytes += fetch->get.len;
		packed_done(fetch, fetch->ret, &fetch->err);
		return;
	}
	fetch->stats->bytes += fetch->filled;
	while (!fetch->ret && fetch->next < fetch->nr)
		land_block(fetch);
	transfer_done(fetch, fetch->ret, &fetch->err);
}

/* The bytes that the blocks to come have in their object. */
static void blocks_range(const struct fetch *fetch, uint64_t *start,
			 uint64_t *end)
{
	*start = (uint64_t)fetch->blocks[fetch->next]->nr * QC2_BLOCK_BYTES;
	*end = *start + (uint64_t)(fetch->nr - fetch->next) * QC2_BLOCK_BYTES;
	if (*end > fetch->obj->size)
		*end = fetch->obj->size;
}

/* What is to be transferred now. */
static void set_get(struct fetch *fetch, uint64_t offset, uint64_t len)
{
	struct object *obj = fetch->obj;

	fetch->filled = 0;
	fetch->get = (struct qc2_get){
		.url = obj->url, .offset = offset, .len = len,
		.size = obj->file_size, .version = obj->version,
		.data = obj->packed ? packed_data :
			is_file(fetch) ? file_data : http_data,
		.arg = fetch,
	};
}

/* Buffers were taken, or the next range of compressed data is due. */
static void start_transfer(struct fetch *fetch)
{
	struct fetcher *fetcher = fetch->fetcher;
	struct object *obj = fetch->obj;
	uint64_t start, end;
	struct qc2_err err;
	size_t len;
	int ret;

	blocks_range(fetch, &start, &end);
	len = end - start;
	if (obj->packed && !fetch->unpack) {
		fetch->unpack = unpack_new(obj->packed, start, end);
		if (!fetch->unpack) {
			qc2_fail(&err, ENOMEM, "%s: out of memory", obj->url);
			transfer_done(fetch, -ENOMEM, &err);
			return;
		}
	}
	if (obj->packed && !unpack_range(fetch->unpack, &start, &len)) {
		fetch->job.run = unpack_job;
		fetch->job.done = unpack_done;
		pool_submit(fetcher->unpack_pool, &fetch->job);
		return;
	}
	set_get(fetch, start, len);
	curl_easy_cleanup(fetch->easy);
	fetch->easy = curl_easy_init();
	if (!fetch->easy) {
		qc2_fail(&err, ENOMEM, "%s: out of memory", obj->url);
		transfer_done(fetch, -ENOMEM, &err);
		return;
	}
	fetch->stats->requests++;
	if (is_file(fetch)) {
		fetch->job.run = file_run;
		fetch->job.done = file_done;
		pool_submit(fetcher->file_pool, &fetch->job);
		return;
	}
	ret = qc2_get_prepare(&fetch->get, fetch->easy, fetcher->store, &err);
	if (!ret) {
		curl_easy_setopt(fetch->easy, CURLOPT_PRIVATE, fetch);
		ret = multi_add(fetcher->multi, fetch->easy);
		if (!ret) {
			fetcher->nr_http++;
			return;
		}
		qc2_fail(&err, -ret, "%s: out of memory", obj->url);
	}
	qc2_get_cleanup(&fetch->get);
	transfer_done(fetch, ret, &err);
}

static bool has_room(const struct fetcher *fetcher, const struct fetch *fetch)
{
	unsigned int same_host = 0;
	const struct fetch *other;

	if (is_file(fetch))
		return true;		/* the pool has a queue of its own */
	if (fetcher->nr_http >= fetcher->connections)
		return false;
	TAILQ_FOREACH(other, &fetcher->running, entry)
		same_host += !strcmp(other->obj->host, fetch->obj->host);
	return same_host < (fetcher->connections * 3 + 3) / 4;
}

static void pump(struct fetcher *fetcher)
{
	struct fetch *fetch, *next;

	for (fetch = TAILQ_FIRST(&fetcher->queue); fetch; fetch = next) {
		next = TAILQ_NEXT(fetch, entry);
		if (!has_room(fetcher, fetch))
			continue;
		/* In order: a long fetch is not starved by short ones. */
		if (!cache_take_bufs(fetcher->cache, fetch->nr - fetch->next,
				     fetch->bufs + fetch->next))
			return;
		TAILQ_REMOVE(&fetcher->queue, fetch, entry);
		TAILQ_INSERT_TAIL(&fetcher->running, fetch, entry);
		start_transfer(fetch);
	}
}

static int on_pump(sd_event_source *source, void *arg)
{
	pump(arg);
	return 0;
}

int fetch_start(struct fetcher *fetcher, struct block **blocks,
		unsigned int nr, struct fetch_stats *stats)
{
	struct fetch *fetch = calloc(1, sizeof(*fetch));
	unsigned int i;

	if (!fetch)
		return -ENOMEM;
	fetch->blocks = calloc(nr, sizeof(*fetch->blocks));
	fetch->bufs = calloc(nr, sizeof(*fetch->bufs));
	if (!fetch->blocks || !fetch->bufs) {
		free(fetch->blocks);
		free(fetch->bufs);
		free(fetch);
		return -ENOMEM;
	}
	fetch->fetcher = fetcher;
	fetch->obj = object_ref(blocks[0]->obj);
	fetch->stats = stats;
	stats->refs++;
	fetch->nr = nr;
	for (i = 0; i < nr; i++) {
		blocks[i]->fetcher = fetcher;
		fetch->blocks[i] = blocks[i];
	}
	TAILQ_INSERT_TAIL(&fetcher->queue, fetch, entry);
	wake_pump(fetcher);
	return 0;
}

int fetcher_new(struct fetcher **out, sd_event *event, struct cache *cache,
		const struct qc2_store_config *store, unsigned int connections,
		void (*block_done)(struct block *block, int ret))
{
	struct fetcher *fetcher = calloc(1, sizeof(*fetcher));
	int ret;

	if (!fetcher)
		return -ENOMEM;
	fetcher->event = event;
	fetcher->cache = cache;
	fetcher->store = store;
	fetcher->connections = connections;
	fetcher->block_done = block_done;
	TAILQ_INIT(&fetcher->queue);
	TAILQ_INIT(&fetcher->running);
	TAILQ_INIT(&fetcher->resting);
	ret = multi_new(&fetcher->multi, event, connections, http_done);
	if (!ret)
		ret = pool_new(&fetcher->file_pool, event, FILE_THREADS);
	if (!ret)
		ret = pool_new(&fetcher->unpack_pool, event, UNPACK_THREADS);
	if (!ret)
		ret = sd_event_add_defer(event, &fetcher->pump_source, on_pump,
					 fetcher);
	if (ret < 0)
		return ret;	/* the program ends */
	*out = fetcher;
	return 0;
}

void fetcher_stop(struct fetcher *fetcher)
{
	if (!fetcher)
		return;
	pool_free(fetcher->file_pool);
	pool_free(fetcher->unpack_pool);
}
