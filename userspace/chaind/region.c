/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Looking for blocks in the regional cache.  A find is what one region_fetch() asked for,
 * with a look-up for each of its blocks that can be looked for.  A block that is found
 * goes on by itself; the others are fetched when all of the find is known, so that
 * neighbours share a request, but for those that a read waits for.
 *
 * Main thread only.  The transfer of a file runs in a thread, and so does the check of
 * what came; meanwhile the main thread leaves the look-up's data alone.
 */
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "region.h"
#include "site.h"
#include "transfer.h"

#define CHECK_THREADS		2
#define MAX_CONNECTIONS		32
/* Failures, or look-ups without an answer, in a row. */
#define MANY_FAILURES		3
#define MIN_PAUSE_US		1000000ULL
#define MAX_PAUSE_US		60000000ULL
/* A look-up may take as long as so many answers of the block's store, and at least: */
#define TIMEOUT_ANSWERS		3
#define MIN_TIMEOUT_US		250000ULL
/* Answers of the bucket that correct what was asked, in a row. */
#define MAX_CORRECTED		2

enum lookup_state { QUEUED, ASKED, CHECKED };

struct lookup {
	struct transfer t;		/* first */
	struct region *region;
	struct find *find;		/* NULL: given up, while a thread goes on with it */
	unsigned int i;			/* of the find's blocks */
	enum fetch_class class;
	enum lookup_state state;
	uint8_t name[QC2_REGION_NAME_LEN];
	char *url;
	unsigned int corrected;
	uint64_t timeout_us;
	sd_event_source *timer;
	struct cache_buf *buf;
	uint8_t *data;			/* of QC2_REGION_MAX bytes */
	size_t filled;
	struct job job;			/* of the check, and its result */
	int ret;
	struct qc2_err err;
	TAILQ_ENTRY(lookup) entry;	/* QUEUED: in region->queue */
};
TAILQ_HEAD(lookup_list, lookup);

struct find {
	struct region *region;
	enum fetch_class class;
	struct fetch_stats *stats;
	struct cache_span span;
	uint32_t first_nr;
	unsigned int nr, left;		/* look-ups that are not over */
	struct {
		struct block *block;	/* NULL: is on its way elsewhere, or has come */
		struct lookup *lookup;	/* NULL: there is none, or it is over */
	} v[];
};

/* A GET that tells whether the bucket answers again; of an object that is not there. */
struct probe {
	struct transfer t;		/* first */
	struct region *region;
	bool running;
};

struct region {
	sd_event *event;
	struct cache *cache;
	struct fetcher *fetcher;
	const struct qc2_config *cfg;
	const struct qc2_store_config *store_cfg;
	void (*block_done)(struct block *block, int ret);
	struct qc2_region_key key_mem, *key;	/* NULL: none */
	struct origin *origin;
	struct transfers *transfers;
	struct pool *check_pool;
	struct region_store *store;

	struct lookup_list queue[FETCH_CLASSES];
	unsigned int running;		/* look-ups that will wake the pump */
	sd_event_source *pump_source;

	unsigned int failures;		/* in a row */
	struct qc2_err trouble;
	uint64_t trouble_since_us, pause_us, probe_timeout_us;
	struct probe probe;
	char *probe_url;
	sd_event_source *probe_source;	/* to its start, or to its end */

	uint64_t hits, misses, bad, slow, errors, bytes;
	struct log_limit trouble_limit, bad_limit;
	bool private_logged;
};

static void wake_pump(void *arg)
{
	struct region *region = arg;

	sd_event_source_set_enabled(region->pump_source, SD_EVENT_ONESHOT);
}

static struct block *block_of(const struct lookup *l)
{
	return l->find->v[l->i].block;
}

static bool is_wanted(const struct block *block)
{
	return !LIST_EMPTY(&block->waiters);
}

/*
 * ---------------------------------------------------------------------------
 * What is looked for
 * ---------------------------------------------------------------------------
 */

static bool is_below(const char *url, const char *prefix)
{
	return !strncmp(url, prefix, strlen(prefix));
}

/* Whether reading from there is no worse than from the bucket. */
static bool is_near(const struct region *region, const char *url)
{
	size_t i;

	if (!strncmp(url, "file:", 5) || is_below(url, region->cfg->region_cache))
		return true;
	for (i = 0; i < region->cfg->nr_region_stores; i++)
		if (is_below(url, region->cfg->region_stores[i]))
			return true;
	return false;
}

/* Whether not everybody may read it, as far as we can tell.  A query may be a signature. */
static bool is_private(const struct region *region, const char *url)
{
	struct qc2_sites *sites = region->store_cfg->sites;

	return strchr(url, '?') || (sites && qc2_sites_find(sites, url)->creds);
}

bool region_wants(struct region *region, struct object *obj)
{
	const struct place *place = object_place(obj, NULL);

	if (!region || region->trouble.msg[0] || is_near(region, place->url))
		return false;
	if (region->cfg->region_private || !is_private(region, obj->url))
		return true;
	if (!region->private_logged)
		log_info("regional cache: not used for %s, whose data only those with credentials may read (private = yes in [region] would copy it)",
			 obj->places[0].origin->name);
	region->private_logged = true;
	return false;
}

/*
 * What nobody could verify is neither looked for nor stored.  Nor is what other hosts know
 * under another name: a file, and clusters that somebody else may have listed otherwise.
 */
static bool has_name(const struct region *region, const struct block *block)
{
	return block->has_digest || (region->key && !block->obj->packed &&
				     strncmp(block->obj->url, "file:", 5));
}

static int make_name(const struct region *region, const struct block *block, uint8_t *name)
{
	return qc2_region_name(region->key, block->has_digest ? block->digest : NULL,
			       block->obj->key, block->nr, name);
}

/*
 * ---------------------------------------------------------------------------
 * Trouble
 * ---------------------------------------------------------------------------
 */

static void arm_probe(struct region *region, uint64_t us)
{
	sd_event_source_set_time_relative(region->probe_source, us);
	sd_event_source_set_enabled(region->probe_source, SD_EVENT_ONESHOT);
}

static void pause_region(struct region *region)
{
	uint64_t now = now_us(), us = region->pause_us;

	if (region->origin->not_before_us > now + us)
		us = region->origin->not_before_us - now;
	arm_probe(region, us);
	region->pause_us *= 2;
	if (region->pause_us > MAX_PAUSE_US)
		region->pause_us = MAX_PAUSE_US;
}

/* Nothing is looked up until a probe succeeds. */
static void begin_trouble(struct region *region, const struct qc2_err *err, uint64_t timeout_us)
{
	if (region->trouble.msg[0])
		return;
	region->trouble = *err;
	region->trouble_since_us = now_us();
	region->probe_timeout_us = timeout_us;
	if (log_allowed(&region->trouble_limit))
		log_warn("regional cache: %s; reads go to their stores until it answers",
			 err->msg);
	pause_region(region);
	wake_pump(region);
}

static void end_trouble(struct region *region)
{
	region->failures = 0;
	if (!region->trouble.msg[0])
		return;
	log_info("regional cache: %s answers again", region->cfg->region_cache);
	region->trouble.msg[0] = '\0';
	if (!region->probe.running)
		sd_event_source_set_enabled(region->probe_source, SD_EVENT_OFF);
}

static uint64_t max_timeout_us(const struct region *region)
{
	return region->cfg->region_timeout_ms * 1000ULL;
}

static void lookup_failed(struct region *region, int ret, bool throttled,
			  const struct qc2_err *err)
{
	region->errors++;
	/* Refused is refused. */
	if (++region->failures >= MANY_FAILURES || throttled || ret == -EACCES)
		begin_trouble(region, err, max_timeout_us(region));
}

static void lookup_slow(struct region *region, uint64_t timeout_us)
{
	struct qc2_err err;

	region->slow++;
	if (++region->failures < MANY_FAILURES)
		return;
	qc2_fail(&err, ETIMEDOUT, "%s: no answer within %llu ms", region->cfg->region_cache,
		 (unsigned long long)timeout_us / 1000);
	begin_trouble(region, &err, timeout_us);
}

/* A look-up was answered, whatever with. */
static void answered(struct region *region)
{
	origin_succeeded(region->origin);
	region->pause_us = MIN_PAUSE_US;
	end_trouble(region);
}

static int ignore_data(void *arg, const void *data, size_t len)
{
	return 0;
}

static void probe_over(struct transfer *t, int ret, const struct qc2_err *err)
{
	struct region *region = ((struct probe *)t)->region;

	region->probe.running = false;
	if (!ret || ret == -ENOENT) {
		origin_succeeded(region->origin);
		end_trouble(region);
	}
	if (!region->trouble.msg[0]) {
		sd_event_source_set_enabled(region->probe_source, SD_EVENT_OFF);
		return;
	}
	region->trouble = *err;
	pause_region(region);
}

static int start_probe(struct region *region)
{
	struct probe *probe = &region->probe;
	struct qc2_err err;
	int ret;

	probe->region = region;
	probe->t = (struct transfer){
		.get = { .url = region->probe_url, .len = 1, .data = ignore_data },
		.origin = region->origin,
		.class = FETCH_AHEAD,
		.done = probe_over,
	};
	ret = transfer_start(region->transfers, &probe->t, &err);
	if (!ret) {
		probe->running = true;
		arm_probe(region, region->probe_timeout_us);
	}
	return ret;
}

static int on_probe(sd_event_source *source, uint64_t usec, void *arg)
{
	struct region *region = arg;
	struct probe *probe = &region->probe;

	if (probe->running && region->origin->is_file)
		return 0;	/* it comes to an end some time */
	if (probe->running) {
		transfer_cancel(&probe->t);
		probe->running = false;
	} else if (region->trouble.msg[0] && !start_probe(region)) {
		return 0;
	}
	if (region->trouble.msg[0])
		pause_region(region);
	return 0;
}

/*
 * ---------------------------------------------------------------------------
 * The end of look-ups
 * ---------------------------------------------------------------------------
 */

/* Gives blocks in a row to the fetcher; false: no memory, they stay. */
static bool pass_on(struct find *find, enum fetch_class class, unsigned int first,
		    unsigned int nr)
{
	struct block *blocks[FETCH_MAX_BLOCKS];
	unsigned int i;

	for (i = 0; i < nr; i++)
		blocks[i] = find->v[first + i].block;
	if (fetch_start(find->region->fetcher, class, blocks, nr, find->stats))
		return false;
	for (i = 0; i < nr; i++) {
		find->v[first + i].block = NULL;
		blocks[i]->find = NULL;
		if (is_wanted(blocks[i]))
			fetch_want(blocks[i]);
	}
	return true;
}

static void drop_block(struct find *find, unsigned int i, int ret)
{
	struct block *block = find->v[i].block;

	find->v[i].block = NULL;
	block->find = NULL;
	find->region->block_done(block, ret);
}

/* All that could be found has been: the rest is fetched. */
static void end_find(struct find *find)
{
	unsigned int i, nr;

	for (i = 0; i < find->nr; i += nr ? nr : 1) {
		for (nr = 0; i + nr < find->nr && find->v[i + nr].block; nr++)
			;
		if (!nr || pass_on(find, find->class, i, nr))
			continue;
		while (nr)
			drop_block(find, i + --nr, -ENOMEM);
	}
	cache_end_span(find->region->cache, &find->span);
	fetch_stats_put(find->stats);
	free(find);
}

/* Without its transfer. */
static void free_lookup(struct lookup *l)
{
	sd_event_source_disable_unref(l->timer);
	if (l->buf)
		cache_put_buf(l->buf);
	free(l->data);
	free(l->url);
	free(l);
}

/* The look-up, which is in no queue and has no transfer, is over. */
static struct find *take_out(struct lookup *l)
{
	struct find *find = l->find;

	if (l->state != QUEUED)
		find->region->running--;
	find->v[l->i].lookup = NULL;
	find->left--;
	wake_pump(find->region);
	fetch_wake(find->region->fetcher);
	return find;
}

/* @share: it is not there, so far as is known, and shall be */
static void not_found(struct lookup *l, bool share)
{
	struct block *block = block_of(l);
	struct find *find = take_out(l);
	unsigned int i = l->i;

	block->share = share;
	free_lookup(l);
	/* What is unpacked comes as a whole. */
	if (find->left && is_wanted(block) && !block->obj->packed)
		pass_on(find, FETCH_DEMAND, i, 1);
	if (!find->left)
		end_find(find);
}

static void is_bad(struct lookup *l, const char *why)
{
	struct region *region = l->region;

	region->bad++;
	if (log_allowed(&region->bad_limit))
		log_warn("regional cache: %s: %s; it is fetched from its store, and stored here again",
			 l->url, why);
	not_found(l, true);
}

static void landed(void *arg, int ret)
{
	struct lookup *l = arg;
	struct find *find;
	unsigned int i = l->i;

	if (ret == -EBADMSG) {
		is_bad(l, "not what the manifest says");
		return;
	}
	l->region->hits++;
	find = take_out(l);
	free_lookup(l);
	drop_block(find, i, ret);
	if (!find->left)
		end_find(find);
}

/* In a pool thread. */
static void check_run(struct job *job)
{
	struct lookup *l = (struct lookup *)((char *)job - offsetof(struct lookup, job));
	const struct block *block = block_of(l);

	l->ret = qc2_region_unpack(l->region->key, l->name,
				   block->has_digest ? block->digest : NULL, l->data, l->filled,
				   l->buf->mem, &l->err);
}

static void check_done(struct job *job)
{
	struct lookup *l = (struct lookup *)((char *)job - offsetof(struct lookup, job));
	struct block *block = block_of(l);
	struct cache_buf *buf = l->buf;

	if (l->ret == -EBADMSG) {
		is_bad(l, l->err.msg);
	} else if (l->ret) {
		not_found(l, false);
	} else {
		l->buf = NULL;
		cache_write(buf, block->obj, block->nr, &l->find->span, l->find->left,
			    is_wanted(block) ? SPACE_USED : SPACE_AHEAD, &block->marked,
			    block->has_digest ? block->digest : NULL, landed, l);
	}
}

/*
 * ---------------------------------------------------------------------------
 * Look-ups
 * ---------------------------------------------------------------------------
 */

/* In a pool thread, of files. */
static int take_data(void *arg, const void *data, size_t len)
{
	struct lookup *l = arg;

	memcpy(l->data + l->filled, data, len);
	l->filled += len;
	return 0;
}

static void enqueue(struct lookup *l)
{
	l->state = QUEUED;
	TAILQ_INSERT_TAIL(&l->region->queue[l->class], l, entry);
	wake_pump(l->region);
}

/* @share: as of not_found() */
static void give_up(struct lookup *l, bool share)
{
	struct lookup_list *queue = &l->region->queue[l->class];
	struct lookup *rest;

	if (l->state == QUEUED) {
		TAILQ_REMOVE(queue, l, entry);
	} else if (!l->t.origin->is_file) {
		transfer_cancel(&l->t);
	} else {
		/* The thread keeps its part, and frees it. */
		rest = l;
		l = malloc(sizeof(*l));
		if (!l) {
			rest->timer = sd_event_source_disable_unref(rest->timer);
			return;
		}
		*l = *rest;
		rest->find = NULL;
		rest->buf = NULL;
		rest->timer = NULL;
		l->data = NULL;
		l->url = NULL;
		l->find->v[l->i].lookup = l;
	}
	not_found(l, share);
}

static int on_late(sd_event_source *source, uint64_t usec, void *arg)
{
	struct lookup *l = arg;

	if (l->state == ASKED)
		lookup_slow(l->region, l->timeout_us);
	/* It may be there; stored once more it does no harm. */
	give_up(l, true);
	return 0;
}

/* From now on it holds up a read, or a connection. */
static void arm_timer(struct lookup *l)
{
	struct object *obj = block_of(l)->obj;
	uint64_t us = qc2_latency_at(&object_place(obj, NULL)->origin->first_byte, 500);

	if (l->timer)
		return;
	us *= TIMEOUT_ANSWERS;
	if (us && us < MIN_TIMEOUT_US)
		us = MIN_TIMEOUT_US;
	if (!us || us > max_timeout_us(l->region))
		us = max_timeout_us(l->region);
	l->timeout_us = us;
	if (sd_event_add_time_relative(l->region->event, &l->timer, CLOCK_MONOTONIC, us, 1000,
				       on_late, l) < 0)
		l->timer = NULL;	/* libcurl has time limits of its own */
}

static void lookup_over(struct transfer *t, int ret, const struct qc2_err *err)
{
	struct lookup *l = (struct lookup *)t;
	struct region *region = l->region;

	region->bytes += t->get.got;
	if (!l->find) {
		free_lookup(l);
		return;
	}
	if (!ret || ret == -ENOENT)
		answered(region);
	if (!ret && t->get.size == l->filled) {
		l->timer = sd_event_source_disable_unref(l->timer);
		l->state = CHECKED;
		l->job.run = check_run;
		l->job.done = check_done;
		pool_submit(region->check_pool, &l->job);
	} else if (!ret) {
		is_bad(l, "longer than a block can be");
	} else if (ret == -ENOENT) {
		region->misses++;
		not_found(l, true);
	} else if (ret == -EINVAL) {
		is_bad(l, "empty");
	} else if (ret == -EPROTO) {
		/* Empty, too, at some servers; or the server will not do. */
		lookup_failed(region, ret, false, err);
		is_bad(l, "the server gives no part of it");
	} else if (t->get.needs_keys ||
		   (t->get.corrected && l->corrected++ < MAX_CORRECTED)) {
		region->running--;
		cache_put_buf(l->buf);
		l->buf = NULL;
		enqueue(l);
	} else {
		lookup_failed(region, ret, t->get.throttled, err);
		not_found(l, false);
	}
}

/* Returns false if nothing more can be started now. */
static bool start(struct lookup *l)
{
	struct region *region = l->region;
	struct qc2_err err;
	int ret = 0;

	if (!cache_take_bufs(region->cache, 1, &l->buf))
		return false;
	if (!l->data)
		l->data = malloc(QC2_REGION_MAX);
	l->filled = 0;
	l->t = (struct transfer){
		.get = { .url = l->url, .len = QC2_REGION_MAX, .data = take_data },
		.origin = region->origin,
		.class = l->class,
		.done = lookup_over,
	};
	if (!l->data)
		ret = qc2_fail(&err, ENOMEM, "%s: out of memory", l->url);
	if (!ret)
		ret = transfer_start(region->transfers, &l->t, &err);
	if (ret && l->t.get.needs_keys) {
		cache_put_buf(l->buf);
		l->buf = NULL;
		return false;
	}
	TAILQ_REMOVE(&region->queue[l->class], l, entry);
	if (ret) {
		lookup_failed(region, ret, false, &err);
		not_found(l, false);
		return true;
	}
	l->state = ASKED;
	region->running++;
	arm_timer(l);
	return true;
}

static bool may_start(const struct region *region, enum fetch_class class)
{
	unsigned int total, unused = cache_bufs(region->cache, &total);

	return !region->trouble.msg[0] && unused > (class == FETCH_DEMAND ? 0 : total / 4) &&
	       origin_has_room(region->origin, class, now_us());
}

static int on_pump(sd_event_source *source, void *arg)
{
	struct region *region = arg;
	struct lookup *l;
	int class;

	for (class = 0; class < FETCH_CLASSES; class++)
		while ((l = TAILQ_FIRST(&region->queue[class])) && may_start(region, class) &&
		       start(l))
			;
	/* Nobody would come back to them. */
	if (!region->trouble.msg[0] && (region->running || region->origin->needs_keys))
		return 0;
	for (class = 0; class < FETCH_CLASSES; class++)
		while ((l = TAILQ_FIRST(&region->queue[class])))
			give_up(l, false);
	return 0;
}

static struct lookup *lookup_new(struct find *find, unsigned int i)
{
	struct lookup *l = calloc(1, sizeof(*l));

	if (!l)
		return NULL;
	l->region = find->region;
	l->find = find;
	l->i = i;
	l->class = find->class;
	if (!make_name(l->region, find->v[i].block, l->name))
		l->url = qc2_region_url(l->region->cfg->region_cache, l->name);
	if (l->url)
		return l;
	free(l);
	return NULL;
}

int region_fetch(struct region *region, enum fetch_class class, struct block **blocks,
		 unsigned int nr, struct fetch_stats *stats)
{
	struct find *find;
	unsigned int i;

	if (!region_wants(region, blocks[0]->obj))
		return fetch_start(region->fetcher, class, blocks, nr, stats);
	find = calloc(1, sizeof(*find) + nr * sizeof(find->v[0]));
	if (!find)
		return -ENOMEM;
	find->region = region;
	find->class = class;
	find->stats = stats;
	find->first_nr = blocks[0]->nr;
	find->nr = nr;
	for (i = 0; i < nr; i++) {
		find->v[i].block = blocks[i];
		/* Without memory it is fetched. */
		if (has_name(region, blocks[i]))
			find->v[i].lookup = lookup_new(find, i);
		find->left += !!find->v[i].lookup;
	}
	if (!find->left) {
		free(find);
		return fetch_start(region->fetcher, class, blocks, nr, stats);
	}
	stats->refs++;
	for (i = 0; i < nr; i++) {
		blocks[i]->find = find;
		if (!find->v[i].lookup)
			continue;
		enqueue(find->v[i].lookup);
		if (class == FETCH_DEMAND)
			arm_timer(find->v[i].lookup);
	}
	return 0;
}

void region_want(struct block *block)
{
	struct find *find = block->find;
	struct lookup *l;
	unsigned int i;

	if (!find)
		return;
	i = block->nr - find->first_nr;
	l = find->v[i].lookup;
	if (!l) {
		/* It was not there, and waits for the others. */
		if (!block->obj->packed)
			pass_on(find, FETCH_DEMAND, i, 1);
		return;
	}
	if (l->state == QUEUED && l->class != FETCH_DEMAND) {
		TAILQ_REMOVE(&find->region->queue[l->class], l, entry);
		l->class = FETCH_DEMAND;
		enqueue(l);
		arm_timer(l);
	}
}

/* What a fetch brought, and the bucket had not. */
static void share_block(void *arg, const struct block *block, const void *data)
{
	uint8_t name[QC2_REGION_NAME_LEN];
	struct region *region = arg;

	if (region->trouble.msg[0] || make_name(region, block, name))
		return;
	region_store_add(region->store, name, block->has_digest ? block->digest : NULL, data);
}

/*
 * ---------------------------------------------------------------------------
 * Beginning and end
 * ---------------------------------------------------------------------------
 */

static int make_machinery(struct region *region)
{
	unsigned int connections = region->cfg->connections;
	static const uint8_t no_name[QC2_REGION_NAME_LEN];
	int ret;

	if (connections > MAX_CONNECTIONS)
		connections = MAX_CONNECTIONS;
	region->origin = origin_of(region->cfg->region_cache);
	region->probe_url = qc2_region_url(region->cfg->region_cache, no_name);
	if (!region->origin || !region->probe_url)
		return -ENOMEM;
	ret = transfers_new(&region->transfers, region->event, region->store_cfg, connections,
			    wake_pump, region);
	if (!ret)
		ret = pool_new(&region->check_pool, region->event, CHECK_THREADS);
	if (!ret)
		ret = region_store_new(&region->store, region->event,
				       region->cfg->region_cache, region->key,
				       region->store_cfg);
	if (!ret)
		ret = sd_event_add_defer(region->event, &region->pump_source, on_pump, region);
	if (ret >= 0)
		ret = sd_event_source_set_enabled(region->pump_source, SD_EVENT_OFF);
	if (ret >= 0)
		ret = sd_event_add_time(region->event, &region->probe_source, CLOCK_MONOTONIC,
					UINT64_MAX, 1000, on_probe, region);
	if (ret >= 0)
		ret = sd_event_source_set_enabled(region->probe_source, SD_EVENT_OFF);
	return ret < 0 ? ret : 0;
}

int region_new(struct region **out, sd_event *event, struct cache *cache,
	       struct fetcher *fetcher, const struct qc2_config *cfg,
	       const struct qc2_store_config *store,
	       void (*block_done)(struct block *block, int ret), struct qc2_err *err)
{
	struct region *region = calloc(1, sizeof(*region));
	int ret, class;

	if (!region)
		return qc2_fail(err, ENOMEM, "regional cache: out of memory");
	region->event = event;
	region->cache = cache;
	region->fetcher = fetcher;
	region->cfg = cfg;
	region->store_cfg = store;
	region->block_done = block_done;
	region->pause_us = MIN_PAUSE_US;
	for (class = 0; class < FETCH_CLASSES; class++)
		TAILQ_INIT(&region->queue[class]);
	if (cfg->region_key_file) {
		ret = qc2_region_key_read(cfg->region_key_file, &region->key_mem, err);
		if (ret)
			return qc2_fail_prefix(err, ret, "regional cache: ");
		region->key = &region->key_mem;
	}
	ret = make_machinery(region);
	if (ret)	/* the program ends */
		return qc2_fail(err, -ret, "regional cache: %s", strerror(-ret));
	fetcher_share(fetcher, share_block, region);
	*out = region;
	return 0;
}

void region_stop(struct region *region)
{
	if (!region)
		return;
	region_store_stop(region->store);
	transfers_stop(region->transfers);
	pool_free(region->check_pool);
	qc2_region_key_free(&region->key_mem);
}

void region_get_stats(const struct region *region, struct region_stats *stats)
{
	*stats = (struct region_stats){
		.url = region->cfg->region_cache,
		.hits = region->hits, .misses = region->misses, .bad = region->bad,
		.slow = region->slow, .errors = region->errors, .bytes = region->bytes,
		.trouble = &region->trouble,
		.trouble_s = region->trouble.msg[0] ?
			     (now_us() - region->trouble_since_us) / 1000000 : 0,
	};
	region_store_get_stats(region->store, &stats->store);
}
