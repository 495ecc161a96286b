/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Fetches: queues, retries, hedges, cutting data into blocks.  One GET is a
 * struct transfer, see there; a fetch has one or two at a time, each with buffers
 * of its own.
 *
 * Main thread only.  The transfer of a file runs in a thread of a pool, unpacking in
 * one of unpack_pool; until its done() the main thread leaves it alone.
 */
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "fetch.h"
#include "retry_budget.h"
#include "transfer.h"
#include "unpack.h"

#define UNPACK_THREADS		2
#define MAX_BACKOFF_MS		10000
/* Answers of a store that correct what was asked, in a row. */
#define MAX_CORRECTED		2
/* So many fetches ahead go to the fastest place, then one to another. */
#define TRY_OTHERS		64
/* How long after a final error an object's next one is given at once. */
#define FAILED_US		1000000

enum fetch_state { QUEUED, RUNNING, RESTING };

/* A transfer for blocks [first, nr) of a fetch. */
struct carry {
	struct transfer t;
	struct fetch *fetch;
	struct place *place;
	unsigned int first, at;		/* @at is the block that is filled now */
	unsigned int filled;		/* bytes of it */
	bool is_hedge;
	sd_event_source *timer;		/* to the hedge */
	struct cache_buf *bufs[];	/* from @first on; NULL: handed on */
};

struct fetch {
	struct fetcher *fetcher;
	struct object *obj;
	struct place *place;	/* that is asked next, or was last */
	enum fetch_class class;
	enum fetch_state state;
	struct block **blocks;		/* [next, nr) are still to come, the others may be gone */
	uint32_t first_nr;		/* of the first block; the others follow */
	unsigned int next, nr;
	struct carry *carries[2];	/* the second is a hedge; NULL: none */
	unsigned int tries, corrected;
	struct cache_span span;
	struct fetch_stats *stats;
	struct unpack *unpack;		/* of an unpacked object */
	bool *damaged;			/* blocks of it that cannot be unpacked */
	bool unpacking;
	struct job job;			/* that does it, and its result */
	int ret;
	struct qc2_err err;
	sd_event_source *timer;		/* to the next try */
	TAILQ_ENTRY(fetch) entry;	/* in a list of the origin, see list_of() */
};

struct fetcher {
	sd_event *event;
	struct cache *cache;
	unsigned int connections;
	void (*block_done)(struct block *block, int ret);
	void (*share)(void *arg, const struct block *block, const void *data);
	void *share_arg;
	struct transfers *transfers;
	struct pool *unpack_pool;
	unsigned int nr_ahead;		/* fetches of that class so far */
	sd_event_source *pump_source, *pause_source;
};

static void transfer_over(struct transfer *t, int ret, const struct qc2_err *err);
static int start_carry(struct fetch *fetch, struct qc2_err *err);

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

static void wake_pump(void *arg)
{
	struct fetcher *fetcher = arg;

	sd_event_source_set_enabled(fetcher->pump_source, SD_EVENT_ONESHOT);
}

/* A fetch is in one list of its origin. */
static struct fetch_list *list_of(const struct fetch *fetch)
{
	struct origin *o = fetch->place->origin;

	return fetch->state == QUEUED ? &o->queue[fetch->class] :
	       fetch->state == RUNNING ? &o->running_list : &o->resting;
}

static void move(struct fetch *fetch, enum fetch_state state)
{
	TAILQ_REMOVE(list_of(fetch), fetch, entry);
	fetch->state = state;
	TAILQ_INSERT_TAIL(list_of(fetch), fetch, entry);
	wake_pump(fetch->fetcher);
}

/* The same at another place. */
static void set_place(struct fetch *fetch, struct place *place)
{
	TAILQ_REMOVE(list_of(fetch), fetch, entry);
	fetch->place = place;
	TAILQ_INSERT_TAIL(list_of(fetch), fetch, entry);
}

static void fetch_free(struct fetch *fetch)
{
	TAILQ_REMOVE(list_of(fetch), fetch, entry);
	sd_event_source_disable_unref(fetch->timer);
	cache_end_span(fetch->fetcher->cache, &fetch->span);
	fetch_stats_put(fetch->stats);
	unpack_free(fetch->unpack);
	object_put(fetch->obj);
	free(fetch->blocks);
	free(fetch->damaged);
	free(fetch);
}

/* Bytes of a block that the object has; only its last block has fewer. */
static unsigned int block_bytes(const struct fetch *fetch, unsigned int i)
{
	uint64_t start = ((uint64_t)fetch->first_nr + i) * QC2_BLOCK_BYTES;
	uint64_t left = fetch->obj->size - start;

	return left < QC2_BLOCK_BYTES ? left : QC2_BLOCK_BYTES;
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

/*
 * ---------------------------------------------------------------------------
 * Data
 * ---------------------------------------------------------------------------
 */

static void landed(void *arg, int ret)
{
	struct block *block = arg;
	struct fetcher *fetcher = block->fetcher;

	fetcher->block_done(block, ret);
	wake_pump(fetcher);		/* a buffer is free again */
}

/* The next block of the fetch is complete: on to the cache with it. */
static void land_block(struct fetch *fetch, struct cache_buf *buf)
{
	struct block *block = fetch->blocks[fetch->next];
	struct fetcher *fetcher = fetch->fetcher;
	unsigned int bytes = block_bytes(fetch, fetch->next);

	memset((char *)buf->mem + bytes, 0, QC2_BLOCK_BYTES - bytes);
	block->fetch = NULL;
	if (block->share)
		fetcher->share(fetcher->share_arg, block, buf->mem);
	cache_write(buf, fetch->obj, block->nr, &fetch->span, fetch->nr - fetch->next,
		    LIST_EMPTY(&block->waiters) ? SPACE_AHEAD : SPACE_USED, &block->marked,
		    block->has_digest ? block->digest : NULL, landed, block);
	fetch->next++;
	fetch->tries = 0;
	fetch->corrected = 0;
}

/* The buffer of a block is not the carry's any more. */
static struct cache_buf *give_buf(struct carry *c, unsigned int i)
{
	struct cache_buf *buf = c->bufs[i - c->first];

	c->bufs[i - c->first] = NULL;
	c->place->origin->bufs--;
	return buf;
}

static void fill_block(struct carry *c, const void *data, size_t len)
{
	struct cache_buf *buf = c->bufs[c->at - c->first];
	struct fetch *fetch = c->fetch;

	memcpy((char *)buf->mem + c->filled, data, len);
	c->filled += len;
	fetch->stats->bytes += len;
	if (c->filled < block_bytes(fetch, c->at))
		return;
	give_buf(c, c->at);
	if (c->at != fetch->next) {
		cache_put_buf(buf);	/* the other one was faster */
	} else {
		c->t.origin->hedges_won += c->is_hedge;
		c->is_hedge = false;		/* counted */
		land_block(fetch, buf);
	}
	c->at++;
	c->filled = 0;
}

static int http_data(void *arg, const void *data, size_t len)
{
	struct carry *c = arg;

	while (len) {
		size_t n = block_bytes(c->fetch, c->at) - c->filled;

		if (n > len)
			n = len;
		fill_block(c, data, n);
		data = (const char *)data + n;
		len -= n;
	}
	return 0;
}

/* In a pool thread; the bytes are handed on when it is over. */
static int file_data(void *arg, const void *data, size_t len)
{
	struct carry *c = arg;

	while (len) {
		struct cache_buf *buf = c->bufs[c->filled / QC2_BLOCK_BYTES];
		unsigned int at = c->filled % QC2_BLOCK_BYTES;
		size_t n = QC2_BLOCK_BYTES - at;

		if (n > len)
			n = len;
		memcpy((char *)buf->mem + at, data, n);
		c->filled += n;
		data = (const char *)data + n;
		len -= n;
	}
	return 0;
}

/* Compressed data is unpacked when all of it has come.  In any thread. */
static int packed_data(void *arg, const void *data, size_t len)
{
	struct carry *c = arg;

	unpack_data(c->fetch->unpack, data, len);
	return 0;
}

static void take_buf(struct carry *c, unsigned int i)
{
	land_block(c->fetch, give_buf(c, i));
}

/*
 * ---------------------------------------------------------------------------
 * The end of fetches
 * ---------------------------------------------------------------------------
 */

/* Without its transfer, which is not running. */
static void free_carry(struct carry *c)
{
	struct fetch *fetch = c->fetch;
	unsigned int i;

	for (i = c->first; i < fetch->nr; i++) {
		if (c->bufs[i - c->first])
			cache_put_buf(give_buf(c, i));
	}
	sd_event_source_disable_unref(c->timer);
	fetch->carries[c == fetch->carries[1]] = NULL;
	free(c);
	wake_pump(fetch->fetcher);
}

static struct carry *other_carry(const struct carry *c)
{
	return c->fetch->carries[c == c->fetch->carries[0]];
}

/* Gives up what has not come. */
static void end_fetch(struct fetch *fetch, int ret)
{
	struct fetcher *fetcher = fetch->fetcher;

	while (fetch->next < fetch->nr) {
		struct block *block = fetch->blocks[fetch->next++];

		block->fetch = NULL;
		fetcher->block_done(block, ret);
	}
	fetch_free(fetch);
}

static int on_rested(sd_event_source *source, uint64_t usec, void *arg)
{
	struct fetch *fetch = arg;

	fetch->timer = sd_event_source_disable_unref(fetch->timer);
	set_place(fetch, object_place(fetch->obj, NULL));
	if (is_wanted(fetch))
		move(fetch, QUEUED);
	else
		end_fetch(fetch, -ECANCELED);
	return 0;
}

static bool rest(struct fetch *fetch, unsigned int ms)
{
	if (sd_event_add_time_relative(fetch->fetcher->event, &fetch->timer,
				       CLOCK_MONOTONIC, ms * 1000ULL, 0,
				       on_rested, fetch) < 0)
		return false;
	move(fetch, RESTING);
	return true;
}

/* The store answers again: what rests because of it is tried now. */
static void wake_resting(struct origin *origin)
{
	struct fetch *fetch;

	TAILQ_FOREACH(fetch, &origin->resting, entry)
		sd_event_source_set_time_relative(fetch->timer, 0);
}

static unsigned int retry_ms(const struct fetch *fetch, unsigned int retry_after_ms)
{
	unsigned int ms = qc2_backoff_ms(fetch->tries, MAX_BACKOFF_MS);

	if (!qc2_retry_allowed())
		ms = MAX_BACKOFF_MS;
	return ms > retry_after_ms ? ms : retry_after_ms;
}

/* The fetch has no transfer any more, because of an error that may pass. */
static bool try_again(struct fetch *fetch, int ret, unsigned int retry_after_ms)
{
	struct place *old = fetch->place;

	if (!is_wanted(fetch))
		return false;
	fetch->class = FETCH_DEMAND;	/* it is in no queue now */
	fetch->tries++;
	old->origin->retries++;
	/* Memory is short everywhere. */
	if (ret != -ENOMEM)
		set_place(fetch, object_place(fetch->obj, old));
	if (fetch->place != old) {
		move(fetch, QUEUED);
		return true;
	}
	return rest(fetch, retry_ms(fetch, retry_after_ms));
}

/*
 * Whether trying again is of no use.  There may be another place; but an object that was
 * changed is another one, whatever replicas still have.
 */
static bool is_final(const struct fetch *fetch, int ret)
{
	if (ret == -EAGAIN || ret == -ENOMEM || fetch->place != fetch->obj->places)
		return false;
	return ret == -ESTALE || object_place(fetch->obj, fetch->place) == fetch->place;
}

static void fetch_failed(struct fetch *fetch, int ret, unsigned int retry_after_ms,
			 const struct qc2_err *err)
{
	struct object *obj = fetch->obj;
	bool may_pass = !is_final(fetch, ret);

	fetch->stats->errors++;
	if (may_pass && try_again(fetch, ret, retry_after_ms))
		return;
	if (!may_pass) {
		if (log_allowed(&obj->log_limit))
			log_warn("%s", err->msg);
		fetch->stats->last_error = *err;
		obj->failed_until_us = now_us() + FAILED_US;
		obj->failed = ret == -ESTALE ? ret : -EIO;
	}
	end_fetch(fetch, may_pass ? -EAGAIN : obj->failed);
}

/*
 * ---------------------------------------------------------------------------
 * Unpacking
 * ---------------------------------------------------------------------------
 */

/* In a pool thread. */
static void unpack_job(struct job *job)
{
	struct fetch *fetch = (struct fetch *)((char *)job -
			      offsetof(struct fetch, job));
	struct carry *c = fetch->carries[0];
	void *out[FETCH_MAX_BLOCKS];
	unsigned int i;
	uint64_t bad;

	for (i = 0; i < fetch->nr; i++)
		out[i] = c->bufs[i]->mem;
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
	struct carry *c = fetch->carries[0];

	fetch->unpacking = false;
	if (fetch->ret == -ENOMEM) {
		free_carry(c);
		fetch_failed(fetch, fetch->ret, 0, &fetch->err);
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
		struct block *block = fetch->blocks[fetch->next];

		if (!fetch->damaged[fetch->next]) {
			take_buf(c, fetch->next);
			continue;
		}
		fetch->next++;
		block->fetch = NULL;
		/* A manifest may have named the wrong place. */
		fetch->fetcher->block_done(block, block->has_digest ? -EBADMSG : -EIO);
	}
	free_carry(c);
	fetch_free(fetch);
}

/*
 * ---------------------------------------------------------------------------
 * Transfers
 * ---------------------------------------------------------------------------
 */

/* The bytes that blocks from @first on have in their object. */
static void blocks_range(const struct fetch *fetch, unsigned int first,
			 uint64_t *start, uint64_t *end)
{
	*start = ((uint64_t)fetch->first_nr + first) * QC2_BLOCK_BYTES;
	*end = *start + (uint64_t)(fetch->nr - first) * QC2_BLOCK_BYTES;
	if (*end > fetch->obj->size)
		*end = fetch->obj->size;
}

/* A hedge that is not due yet, or cannot be had, is looked at again later. */
static void arm_hedge(struct carry *c, uint64_t us)
{
	sd_event_source_set_time_relative(c->timer, us);
	sd_event_source_set_enabled(c->timer, SD_EVENT_ONESHOT);
}

static struct carry *carry_new(struct fetch *fetch, unsigned int slot,
			       struct place *place)
{
	unsigned int nr = fetch->nr - fetch->next;
	struct carry *c = calloc(1, sizeof(*c) + nr * sizeof(c->bufs[0]));

	if (!c)
		return NULL;
	if (!cache_take_bufs(fetch->fetcher->cache, nr, c->bufs)) {
		free(c);
		return NULL;
	}
	c->fetch = fetch;
	c->place = place;
	place->origin->bufs += nr;
	c->first = fetch->next;
	c->at = fetch->next;
	c->is_hedge = slot;
	fetch->carries[slot] = c;
	return c;
}

static int send_get(struct carry *c, uint64_t offset, uint64_t len, struct qc2_err *err)
{
	struct fetch *fetch = c->fetch;
	struct object *obj = fetch->obj;
	int ret;

	c->t = (struct transfer){
		.get = {
			.url = c->place->url, .offset = offset, .len = len,
			.size = obj->file_size, .version = c->place->version,
			.data = obj->packed ? packed_data :
				c->place->origin->is_file ? file_data : http_data,
		},
		.origin = c->place->origin,
		.class = fetch->class,
		.done = transfer_over,
	};
	c->filled = 0;
	ret = transfer_start(fetch->fetcher->transfers, &c->t, err);
	if (!ret)
		fetch->stats->requests++;
	return ret;
}

/* Nothing came for too long: ask once more. */
static void start_hedge(struct fetch *fetch, struct place *place)
{
	struct carry *c = carry_new(fetch, 1, place);
	uint64_t start, end;
	struct qc2_err err;

	if (!c)
		return;
	blocks_range(fetch, c->first, &start, &end);
	if (send_get(c, start, end - start, &err))
		free_carry(c);
}

/* Compressed data is gathered in one place: the old transfer has to go. */
static void restart_packed(struct carry *c, struct place *place)
{
	struct fetch *fetch = c->fetch;
	struct qc2_err err;
	int ret;

	transfer_cancel(&c->t);
	c->place->origin->bufs -= fetch->nr;
	c->place = place;
	c->place->origin->bufs += fetch->nr;
	unpack_range_done(fetch->unpack, false);
	ret = start_carry(fetch, &err);
	if (ret) {
		free_carry(c);
		fetch_failed(fetch, ret, 0, &err);
	}
}

static bool may_start(const struct fetcher *fetcher, const struct origin *o,
		      enum fetch_class class, uint64_t now);
static bool has_bufs(const struct fetcher *fetcher, const struct fetch *fetch);

static int on_hedge(sd_event_source *source, uint64_t usec, void *arg)
{
	struct carry *c = arg;
	struct fetch *fetch = c->fetch;
	struct place *place = object_place(fetch->obj, c->place);
	struct origin *origin = c->t.origin;
	uint64_t now = now_us(), after = origin_hedge_us(origin);
	uint64_t idle = now - (c->t.last_us ? c->t.last_us : c->t.start_us);

	if (fetch->carries[1] || !after || !is_wanted(fetch))
		return 0;
	if (idle < after) {
		arm_hedge(c, after - idle);
	} else if (place->origin->is_file ||
		   !may_start(fetch->fetcher, place->origin, FETCH_DEMAND, now) ||
		   !origin_is_calm(place->origin, now) ||
		   (!fetch->unpack && !has_bufs(fetch->fetcher, fetch)) ||
		   !origin_take_hedge(origin, now)) {
		arm_hedge(c, after);
	} else if (fetch->unpack) {
		arm_hedge(c, 2 * after);
		restart_packed(c, place);
	} else {
		start_hedge(fetch, place);
	}
	return 0;
}

/* A read waits for it, from now on. */
static void want_hedge(struct carry *c)
{
	struct fetch *fetch = c->fetch;
	struct origin *origin = c->place->origin;
	uint64_t after = origin_hedge_us(origin);

	if (origin->is_file || fetch->unpacking)
		return;
	origin_earn_hedge(origin);
	if (!after || c->timer)
		return;
	if (sd_event_add_time_relative(fetch->fetcher->event, &c->timer,
				       CLOCK_MONOTONIC, after, 500, on_hedge, c) < 0)
		c->timer = NULL;	/* it does without */
}

/* Sends the GET of the fetch's only carry, or goes on to unpack. */
static int start_carry(struct fetch *fetch, struct qc2_err *err)
{
	struct carry *c = fetch->carries[0];
	uint64_t start, end;
	size_t len;

	blocks_range(fetch, c->first, &start, &end);
	len = end - start;
	if (fetch->obj->packed) {
		if (!fetch->unpack)
			fetch->unpack = unpack_new(fetch->obj->packed, start, end);
		if (!fetch->damaged)
			fetch->damaged = calloc(fetch->nr, sizeof(*fetch->damaged));
		if (!fetch->unpack || !fetch->damaged)
			return qc2_fail(err, ENOMEM, "%s: out of memory", fetch->obj->url);
	}
	if (fetch->obj->packed && !unpack_range(fetch->unpack, &start, &len)) {
		c->timer = sd_event_source_disable_unref(c->timer);
		fetch->job.run = unpack_job;
		fetch->job.done = unpack_done;
		fetch->unpacking = true;
		pool_submit(fetch->fetcher->unpack_pool, &fetch->job);
		return 0;
	}
	return send_get(c, start, len, err);
}

/* Buffers are there: see has_bufs(). */
static void start_fetch(struct fetch *fetch)
{
	struct carry *c = carry_new(fetch, 0, fetch->place);
	struct qc2_err err;
	int ret;

	move(fetch, RUNNING);
	if (!c)
		ret = qc2_fail(&err, ENOMEM, "%s: out of memory", fetch->obj->url);
	else
		ret = start_carry(fetch, &err);
	if (!ret) {
		if (is_wanted(fetch))
			want_hedge(c);
		return;
	}
	if (c && c->t.get.needs_keys) {
		free_carry(c);
		move(fetch, QUEUED);	/* the origin has no room until they come */
		return;
	}
	if (c)
		free_carry(c);
	fetch_failed(fetch, ret, 0, &err);
}

static void range_done(struct carry *c)
{
	struct fetch *fetch = c->fetch;
	struct qc2_err err;
	int ret;

	fetch->stats->bytes += c->t.get.len;
	unpack_range_done(fetch->unpack, true);
	ret = start_carry(fetch, &err);
	if (ret) {
		free_carry(c);
		fetch_failed(fetch, ret, 0, &err);
	}
}

static void transfer_over(struct transfer *t, int ret, const struct qc2_err *err)
{
	struct carry *c = (struct carry *)t, *other = other_carry(c);
	unsigned int retry_after_ms = t->get.retry_after_ms;
	struct fetch *fetch = c->fetch;
	struct origin *origin = t->origin;

	if (!ret && origin_succeeded(origin))
		wake_resting(origin);
	if (fetch->unpack) {
		if (!ret) {
			range_done(c);
			return;
		}
		unpack_range_done(fetch->unpack, false);
	} else if (!ret && origin->is_file) {
		fetch->stats->bytes += c->filled;
		while (fetch->next < fetch->nr)
			take_buf(c, fetch->next);
	}
	if (ret && ret != -EAGAIN && ret != -ENOMEM &&
	    (c->place != fetch->obj->places || ret != -ESTALE))
		object_place_failed(c->place, ret, err);
	if (fetch->next == fetch->nr) {
		if (other) {
			transfer_cancel(&other->t);
			free_carry(other);
		}
		free_carry(c);
		fetch_free(fetch);
		return;
	}
	if (t->get.needs_keys || (t->get.corrected && fetch->corrected++ < MAX_CORRECTED)) {
		free_carry(c);
		if (!other)
			move(fetch, QUEUED);
		return;
	}
	if (other) {
		fetch->stats->errors++;
		free_carry(c);
		return;
	}
	set_place(fetch, c->place);
	free_carry(c);
	fetch_failed(fetch, ret, retry_after_ms, err);
}

/*
 * ---------------------------------------------------------------------------
 * Queues
 * ---------------------------------------------------------------------------
 */

static bool has_connection(const struct fetcher *fetcher, enum fetch_class class)
{
	unsigned int running = 0;
	const struct origin *o;

	LIST_FOREACH(o, &origins, entry)
		running += o->is_file ? 0 : origin_running(o);
	return running < origin_share(fetcher->connections, class);
}

static bool has_bufs(const struct fetcher *fetcher, const struct fetch *fetch)
{
	unsigned int nr = fetch->nr - fetch->next, total, unused;

	unused = cache_bufs(fetcher->cache, &total);
	if (fetch->class != FETCH_DEMAND)
		nr += total / 4;
	return unused >= nr;
}

/* Three quarters of the buffers at most wait for one origin, as it may hang. */
static bool has_share(const struct fetch *fetch, unsigned int more)
{
	unsigned int nr = fetch->nr - fetch->next + more, total;

	cache_bufs(fetch->fetcher->cache, &total);
	return fetch->place->origin->bufs + nr <= total - total / 4 ||
	       !fetch->place->origin->bufs;
}

static bool may_start(const struct fetcher *fetcher, const struct origin *o,
		      enum fetch_class class, uint64_t now)
{
	return origin_has_room(o, class, now) &&
	       (o->is_file || has_connection(fetcher, class));
}

/* Takes the blocks of another fetch, which go on where its own end. */
static bool append(struct fetch *fetch, struct fetch *tail)
{
	unsigned int nr = fetch->nr + tail->nr, i;
	struct block **blocks = reallocarray(fetch->blocks, nr, sizeof(*blocks));

	if (!blocks)
		return false;
	fetch->blocks = blocks;
	for (i = 0; i < tail->nr; i++) {
		blocks[fetch->nr + i] = tail->blocks[i];
		blocks[fetch->nr + i]->fetch = fetch;
	}
	fetch->nr = nr;
	fetch_free(tail);
	return true;
}

/* Reads that wait for neighbours in an object share a GET, if it is not too long. */
static void join_neighbours(struct fetch *fetch)
{
	unsigned int max = origin_chunk(fetch->place->origin) / QC2_BLOCK_BYTES;

	if (fetch->class != FETCH_DEMAND || fetch->obj->packed)
		return;
	while (fetch->nr < max) {
		struct block *block = block_find(fetch->obj,
						 fetch->blocks[fetch->nr - 1]->nr + 1);
		struct fetch *tail = block ? block->fetch : NULL;

		if (!tail || tail->state != QUEUED || tail->class != FETCH_DEMAND ||
		    tail->place != fetch->place || tail->next || tail->stats != fetch->stats ||
		    tail->blocks[0] != block || fetch->nr + tail->nr > FETCH_MAX_BLOCKS ||
		    !has_share(fetch, tail->nr) || !append(fetch, tail))
			break;
	}
}

/* Who has the least under way is next, so that no store is starved by others. */
static struct fetch *next_fetch(const struct fetcher *fetcher, enum fetch_class class,
				uint64_t now)
{
	struct origin *o, *best = NULL;

	LIST_FOREACH(o, &origins, entry) {
		const struct fetch *fetch = TAILQ_FIRST(&o->queue[class]);

		if (fetch && may_start(fetcher, o, class, now) && has_share(fetch, 0) &&
		    (!best || origin_running(o) < origin_running(best)))
			best = o;
	}
	return best ? TAILQ_FIRST(&best->queue[class]) : NULL;
}

/* Starts one of the class; false: no more can be. */
static bool start_next(struct fetcher *fetcher, enum fetch_class class, uint64_t now)
{
	struct fetch *fetch = next_fetch(fetcher, class, now);

	/* In order: a long fetch is not starved by short ones. */
	if (!fetch || !has_bufs(fetcher, fetch))
		return false;
	join_neighbours(fetch);
	if (!has_bufs(fetcher, fetch))
		return false;
	start_fetch(fetch);
	return true;
}

/* A store asked for a pause: its queue goes on afterwards. */
static void wake_after_pauses(struct fetcher *fetcher, uint64_t now)
{
	uint64_t first = UINT64_MAX;
	const struct origin *o;

	LIST_FOREACH(o, &origins, entry) {
		if (o->not_before_us > now && o->not_before_us < first)
			first = o->not_before_us;
	}
	if (first == UINT64_MAX)
		return;
	sd_event_source_set_time(fetcher->pause_source, first);
	sd_event_source_set_enabled(fetcher->pause_source, SD_EVENT_ONESHOT);
}

static int on_pump(sd_event_source *source, void *arg)
{
	struct fetcher *fetcher = arg;
	uint64_t now = now_us();
	int class;

	for (class = 0; class < FETCH_CLASSES; class++)
		while (start_next(fetcher, class, now))
			;
	wake_after_pauses(fetcher, now);
	return 0;
}

static int on_pause_over(sd_event_source *source, uint64_t usec, void *arg)
{
	wake_pump(arg);
	return 0;
}

static struct fetch *fetch_new(struct fetcher *fetcher, enum fetch_class class,
			       struct block **blocks, unsigned int nr,
			       struct fetch_stats *stats)
{
	struct fetch *fetch = calloc(1, sizeof(*fetch));
	unsigned int i;

	if (!fetch)
		return NULL;
	fetch->place = object_place(blocks[0]->obj, NULL);
	/* Others are asked now and then, to see whether they became faster. */
	if (class != FETCH_DEMAND && ++fetcher->nr_ahead % TRY_OTHERS == 0)
		fetch->place = object_place(blocks[0]->obj, fetch->place);
	fetch->blocks = calloc(nr, sizeof(*fetch->blocks));
	if (!fetch->blocks) {
		free(fetch);
		return NULL;
	}
	fetch->fetcher = fetcher;
	fetch->class = class;
	fetch->obj = object_ref(blocks[0]->obj);
	fetch->stats = stats;
	stats->refs++;
	fetch->first_nr = blocks[0]->nr;
	fetch->nr = nr;
	for (i = 0; i < nr; i++) {
		fetch->blocks[i] = blocks[i];
		blocks[i]->fetcher = fetcher;
		blocks[i]->fetch = fetch;
	}
	return fetch;
}

int fetch_start(struct fetcher *fetcher, enum fetch_class class, struct block **blocks,
		unsigned int nr, struct fetch_stats *stats)
{
	struct fetch *fetch = fetch_new(fetcher, class, blocks, nr, stats);

	if (!fetch)
		return -ENOMEM;
	TAILQ_INSERT_TAIL(list_of(fetch), fetch, entry);
	wake_pump(fetcher);
	return 0;
}

/* Makes the part from @at on a fetch of its own, in the same place of the queue. */
static struct fetch *split(struct fetch *fetch, unsigned int at)
{
	struct fetch *tail = fetch_new(fetch->fetcher, fetch->class, fetch->blocks + at,
				       fetch->nr - at, fetch->stats);

	if (!tail)
		return NULL;
	fetch->nr = at;
	tail->place = fetch->place;
	TAILQ_INSERT_AFTER(&fetch->place->origin->queue[fetch->class], fetch, tail, entry);
	return tail;
}

void fetch_want(struct block *block)
{
	struct fetch *fetch = block->fetch;
	unsigned int i = 0;

	if (!fetch || fetch->class == FETCH_DEMAND)
		return;		/* the cache has it, or it goes first already */
	if (fetch->state != QUEUED) {
		fetch->class = FETCH_DEMAND;
		if (fetch->carries[0])
			want_hedge(fetch->carries[0]);
		return;
	}
	/* What is unpacked comes as a whole. */
	if (!fetch->obj->packed) {
		while (fetch->blocks[i] != block)
			i++;
		if (i && !(fetch = split(fetch, i)))
			return;		/* it comes, if later */
		if (fetch->nr > 1 && !split(fetch, 1))
			return;
	}
	TAILQ_REMOVE(list_of(fetch), fetch, entry);
	fetch->class = FETCH_DEMAND;
	TAILQ_INSERT_TAIL(list_of(fetch), fetch, entry);
	wake_pump(fetch->fetcher);
}

static unsigned int count_waiting(const struct fetch_list *list)
{
	const struct fetch *fetch;
	unsigned int n = 0, i;

	TAILQ_FOREACH(fetch, list, entry)
		for (i = fetch->next; i < fetch->nr; i++)
			n += !LIST_EMPTY(&fetch->blocks[i]->waiters);
	return n;
}

void fetch_wake(struct fetcher *fetcher)
{
	wake_pump(fetcher);
}

unsigned int fetch_waiting(const struct origin *o)
{
	return count_waiting(&o->queue[FETCH_DEMAND]) + count_waiting(&o->running_list) +
	       count_waiting(&o->resting);
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
	fetcher->connections = connections;
	fetcher->block_done = block_done;
	ret = transfers_new(&fetcher->transfers, event, store, connections, wake_pump,
			    fetcher);
	if (!ret)
		ret = pool_new(&fetcher->unpack_pool, event, UNPACK_THREADS);
	if (!ret)
		ret = sd_event_add_defer(event, &fetcher->pump_source, on_pump,
					 fetcher);
	if (ret >= 0)
		ret = sd_event_add_time(event, &fetcher->pause_source, CLOCK_MONOTONIC,
					UINT64_MAX, 1000, on_pause_over, fetcher);
	if (ret >= 0)
		ret = sd_event_source_set_enabled(fetcher->pause_source, SD_EVENT_OFF);
	if (ret < 0)
		return ret;	/* the program ends */
	*out = fetcher;
	return 0;
}

void fetcher_share(struct fetcher *fetcher,
		   void (*share)(void *arg, const struct block *block, const void *data),
		   void *arg)
{
	fetcher->share = share;
	fetcher->share_arg = arg;
}

void fetcher_stop(struct fetcher *fetcher)
{
	if (!fetcher)
		return;
	transfers_stop(fetcher->transfers);
	pool_free(fetcher->unpack_pool);
}
