/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Comparing replicas with their objects.  Main thread only, but for compare_run(), which
 * sees nothing but its comparison and what an object has for good.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "pool.h"
#include "replica.h"
#include "site.h"

#define THREADS		2
/* Of each of the three samples. */
#define SAMPLE_BYTES	(64U << 10)
/* A comparison that could not be made is tried again after this. */
#define RETRY_US	30000000

struct replicas {
	sd_event *event;
	const struct qc2_store_config *cfg;
	struct pool *pool;
	struct qc2_store *store;	/* any thread may read with it */
};

struct comparison {
	struct job job;
	struct replicas *replicas;
	struct object *obj;
	struct place *place;
	sd_event_source *timer;		/* to the next try */
	uint8_t buf[2][SAMPLE_BYTES];
	char *version;			/* of the replica, if it is the same */
	uint64_t us;			/* how long its first answer took */
	int ret;
	struct qc2_err err;
};

static void comparison_free(struct comparison *c)
{
	sd_event_source_disable_unref(c->timer);
	object_put(c->obj);
	free(c->version);
	free(c);
}

static int compare_sample(struct comparison *c, struct qc2_source *a, struct qc2_source *b,
			  uint64_t offset)
{
	size_t len = a->size - offset < SAMPLE_BYTES ? a->size - offset : SAMPLE_BYTES;
	int ret;

	ret = a->ops->read(a, offset, c->buf[0], len, &c->err);
	if (!ret)
		ret = b->ops->read(b, offset, c->buf[1], len, &c->err);
	if (!ret && memcmp(c->buf[0], c->buf[1], len))
		ret = qc2_fail(&c->err, ESTALE, "%s: other bytes at offset %llu than %s",
			       b->url, (unsigned long long)offset, a->url);
	return ret;
}

static int compare(struct comparison *c, struct qc2_source *a, struct qc2_source *b)
{
	uint64_t last = a->size > SAMPLE_BYTES ? a->size - SAMPLE_BYTES : 0;
	int ret;

	if (a->size != b->size)
		return qc2_fail(&c->err, ESTALE, "%s: has %llu bytes, but %s has %llu", b->url,
				(unsigned long long)b->size, a->url,
				(unsigned long long)a->size);
	ret = compare_sample(c, a, b, 0);
	if (!ret)
		ret = compare_sample(c, a, b, last / 2);
	if (!ret)
		ret = compare_sample(c, a, b, last);
	return ret;
}

/* In a pool thread. */
static void compare_run(struct job *job)
{
	struct comparison *c = (struct comparison *)job;
	struct qc2_opener *opener = qc2_store_opener(c->replicas->store);
	struct qc2_source *a, *b = NULL;
	uint64_t start = now_us();

	c->ret = opener->open(opener, c->place->url, &b, &c->err);
	if (c->ret)
		return;
	c->us = now_us() - start;
	a = qc2_store_pinned(c->replicas->store, c->obj->url, c->obj->file_size,
			     c->obj->version);
	if (!a) {
		c->ret = qc2_fail(&c->err, ENOMEM, "%s: out of memory", c->obj->url);
	} else {
		c->ret = compare(c, a, b);
		if (!c->ret) {
			c->version = strdup(b->version);
			if (!c->version)
				c->ret = -ENOMEM;
		}
		a->ops->close(a);
	}
	b->ops->close(b);
}

static int on_retry(sd_event_source *source, uint64_t usec, void *arg)
{
	struct comparison *c = arg;

	c->timer = sd_event_source_disable_unref(c->timer);
	pool_submit(c->replicas->pool, &c->job);
	return 0;
}

static void compare_done(struct job *job)
{
	struct comparison *c = (struct comparison *)job;
	struct place *place = c->place;

	if (!c->ret) {
		place->version = c->version;
		c->version = NULL;
		if (!place->origin->first_byte.nr)
			origin_first_byte(place->origin, c->us);
		log_info("%s: is a replica of %s", place->url, c->obj->url);
	} else if (c->ret == -ESTALE) {
		log_warn("%s (not used as a replica)", c->err.msg);
	} else if (c->obj->refs > 1 &&	/* others still want it */
		   sd_event_add_time_relative(c->replicas->event, &c->timer, CLOCK_MONOTONIC,
					      RETRY_US, 0, on_retry, c) >= 0) {
		if (log_allowed(&place->origin->log_limit))
			log_warn("%s (not used as a replica yet)", c->err.msg);
		return;
	}
	comparison_free(c);
}

static void start_comparison(struct replicas *replicas, struct object *obj,
			     struct place *place)
{
	struct comparison *c = calloc(1, sizeof(*c));

	if (!c)
		return;		/* it does without */
	c->job.run = compare_run;
	c->job.done = compare_done;
	c->replicas = replicas;
	c->obj = object_ref(obj);
	c->place = place;
	pool_submit(replicas->pool, &c->job);
}

void replicas_find(struct replicas *replicas, struct object *obj)
{
	const struct qc2_site *site = replicas->cfg->sites ?
		qc2_sites_find(replicas->cfg->sites, obj->url) : NULL;
	size_t i;

	if (obj->has_replicas || !site)
		return;
	/* A query may be a signature, which is nobody else's business. */
	if (strchr(obj->url, '?'))
		return;
	obj->has_replicas = true;
	for (i = 0; i < site->nr_replicas; i++) {
		char *url;

		if (asprintf(&url, "%s%s", site->replicas[i],
			     obj->url + strlen(site->prefix)) < 0)
			return;
		if (!object_add_place(obj, url))
			start_comparison(replicas, obj, &obj->places[obj->nr_places - 1]);
		else
			log_warn("%s: not used as a replica: there are too many", url);
		free(url);
	}
}

int replicas_new(struct replicas **out, sd_event *event, const struct qc2_store_config *cfg)
{
	struct replicas *replicas = calloc(1, sizeof(*replicas));
	int ret;

	if (!replicas)
		return -ENOMEM;
	replicas->event = event;
	replicas->cfg = cfg;
	replicas->store = qc2_store_new(cfg);
	if (!replicas->store)
		return -ENOMEM;	/* the program ends */
	ret = pool_new(&replicas->pool, event, THREADS);
	if (!ret)
		*out = replicas;
	return ret;
}

void replicas_stop(struct replicas *replicas)
{
	if (!replicas)
		return;
	qc2_store_cancel(replicas->store);
	pool_free(replicas->pool);
}
