/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Running transfers.  Main thread only, but for what jobs run: while it does so a
 * transfer of a file is left alone here.
 */
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "credentials.h"
#include "multi.h"
#include "site.h"
#include "transfer.h"

#define FILE_THREADS	4
#define KEYS_THREADS	8
/* When credentials cannot be had, they are asked for again after this. */
#define KEYS_PAUSE_US	5000000

struct renewal;
LIST_HEAD(renewal_list, renewal);

struct transfers {
	const struct qc2_store_config *cfg;
	struct multi *multi;
	struct pool *file_pool, *keys_pool;
	struct renewal_list renewals;
	struct log_limit log_limit;
	void (*wake)(void *arg);
	void *arg;
};

/* Asking for the credentials of a site; one at a time for each. */
struct renewal {
	struct job job;
	struct transfers *all;
	struct qc2_site *site;
	int ret;
	struct qc2_err err;
	LIST_ENTRY(renewal) entry;
};

static struct transfer *of_job(struct job *job)
{
	return (struct transfer *)((char *)job - offsetof(struct transfer, job));
}

static void clean(struct transfer *t)
{
	qc2_get_cleanup(&t->get);
	curl_easy_cleanup(t->easy);
	t->easy = NULL;
}

/* In a pool thread. */
static void renewal_run(struct job *job)
{
	struct renewal *r = (struct renewal *)job;

	r->ret = qc2_credentials_refresh(r->site->creds, &r->err);
}

static void renewal_done(struct job *job)
{
	struct renewal *r = (struct renewal *)job;
	uint64_t now = now_us();
	struct origin *o;
	bool told = false;

	LIST_REMOVE(r, entry);
	LIST_FOREACH(o, &origins, entry) {
		if (!o->needs_keys || o->keys_site != r->site)
			continue;
		o->needs_keys = false;
		if (!r->ret)
			continue;
		origin_failed(o, &r->err, now);
		o->not_before_us = now + KEYS_PAUSE_US;
		told = true;
	}
	if (r->ret && !told && log_allowed(&r->all->log_limit))
		log_warn("%s", r->err.msg);
	r->all->wake(r->all->arg);
	free(r);
}

/* Returns false if there is no memory for it. */
static bool renew_keys(struct transfers *all, struct qc2_site *site)
{
	struct renewal *r;

	LIST_FOREACH(r, &all->renewals, entry)
		if (r->site == site)
			return true;
	r = calloc(1, sizeof(*r));
	if (!r)
		return false;	/* the next transfer tries again */
	r->job.run = renewal_run;
	r->job.done = renewal_done;
	r->all = all;
	r->site = site;
	LIST_INSERT_HEAD(&all->renewals, r, entry);
	pool_submit(all->keys_pool, &r->job);
	return true;
}

/* The origin gets no transfers until there are keys. */
static void wait_for_keys(struct transfer *t)
{
	t->origin->needs_keys = renew_keys(t->all, t->get.site);
	t->origin->keys_site = t->get.site;
}

/* Measures, and passes on. */
static int on_data(void *arg, const void *buf, size_t len)
{
	struct transfer *t = arg;

	t->last_us = now_us();
	if (!t->first_us) {
		t->first_us = t->last_us;
		if (!t->origin->is_file)
			origin_first_byte(t->origin, t->first_us - t->start_us);
	}
	return t->data(t, buf, len);
}

/* Tells the origin what became of it. */
static void learn(struct transfer *t, int ret, const struct qc2_err *err)
{
	struct origin *o = t->origin;
	uint64_t now = now_us();

	o->bytes += t->get.got;
	if (!ret && t->first_us)
		origin_body(o, t->get.got, now - t->first_us);
	if (t->get.throttled)
		origin_throttled(o, err, t->get.retry_after_ms, now);
	else if (ret == -EAGAIN && !t->get.corrected && !t->get.needs_keys)
		origin_failed(o, err, now);
	o->running[t->class]--;
	if (t->get.needs_keys)
		wait_for_keys(t);
}

static void http_done(void *arg, CURLcode code)
{
	struct transfer *t = arg;
	struct qc2_err err;
	int ret;

	ret = qc2_get_finish(&t->get, code, &err);
	learn(t, ret, &err);
	clean(t);
	t->done(t, ret, &err);
}

static void file_run(struct job *job)
{
	struct transfer *t = of_job(job);

	t->ret = qc2_get_prepare(&t->get, t->easy, t->all->cfg, &t->err);
	if (!t->ret)
		t->ret = qc2_get_finish(&t->get, curl_easy_perform(t->easy), &t->err);
}

static void file_done(struct job *job)
{
	struct transfer *t = of_job(job);

	learn(t, t->ret, &t->err);
	clean(t);
	t->done(t, t->ret, &t->err);
}

static int start_http(struct transfers *all, struct transfer *t, struct qc2_err *err)
{
	int ret = qc2_get_prepare(&t->get, t->easy, all->cfg, err);
	struct qc2_site *site = t->get.site;

	if (t->get.needs_keys)
		wait_for_keys(t);
	if (ret)
		return ret;
	if (site && site->connections)
		origin_cap(t->origin, site->connections);
	if (site && site->creds && qc2_credentials_due(site->creds))
		renew_keys(all, site);
	curl_easy_setopt(t->easy, CURLOPT_PRIVATE, t);
	ret = multi_add(all->multi, t->easy);
	return ret ? qc2_fail(err, -ret, "%s: out of memory", t->get.url) : 0;
}

int transfer_start(struct transfers *all, struct transfer *t, struct qc2_err *err)
{
	struct origin *o = t->origin;
	int ret;

	t->all = all;
	t->start_us = now_us();
	t->first_us = 0;
	t->last_us = 0;
	t->data = t->get.data;
	t->get.data = on_data;
	t->get.arg = t;
	/* Each has a new one, see qc2_get_prepare(). */
	t->easy = curl_easy_init();
	if (!t->easy)
		return qc2_fail(err, ENOMEM, "%s: out of memory", t->get.url);
	if (o->is_file) {
		t->job.run = file_run;
		t->job.done = file_done;
		pool_submit(all->file_pool, &t->job);
	} else {
		ret = start_http(all, t, err);
		if (ret) {
			clean(t);
			return ret;
		}
	}
	o->requests++;
	o->running[t->class]++;
	return 0;
}

void transfer_cancel(struct transfer *t)
{
	/* It took at least so long. */
	if (!t->first_us)
		origin_first_byte(t->origin, now_us() - t->start_us);
	t->origin->running[t->class]--;
	t->origin->bytes += t->get.got;
	multi_remove(t->all->multi, t->easy);
	clean(t);
}

int transfers_new(struct transfers **out, sd_event *event,
		  const struct qc2_store_config *cfg, unsigned int connections,
		  void (*wake)(void *arg), void *arg)
{
	struct transfers *all = calloc(1, sizeof(*all));
	int ret;

	if (!all)
		return -ENOMEM;
	all->cfg = cfg;
	all->wake = wake;
	all->arg = arg;
	ret = multi_new(&all->multi, event, connections, http_done);
	if (!ret)
		ret = pool_new(&all->file_pool, event, FILE_THREADS);
	if (!ret)
		ret = pool_new(&all->keys_pool, event, KEYS_THREADS);
	if (ret)
		return ret;	/* the program ends */
	*out = all;
	return 0;
}

void transfers_stop(struct transfers *all)
{
	if (!all)
		return;
	pool_free(all->file_pool);
	pool_free(all->keys_pool);
}
