/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The queue of blocks for the regional cache.  Main thread only, but for put_run() and what
 * it calls.
 */
#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "log.h"
#include "pool.h"
#include "region_store.h"
#include "store_ops.h"
#include "url.h"

#define THREADS		8
#define NICE		10
/* 32 MiB, beside those that are being sent. */
#define MAX_QUEUED	512
/* After a failure nothing is stored for so long, twice as long after the next one. */
#define MIN_PAUSE_US	5000000ULL
#define MAX_PAUSE_US	600000000ULL

/* One PUT after another, over the same connection. */
struct sender {
	struct qc2_store_config cfg;	/* with @connections and the store's @stop */
	bool busy;
};

struct put {
	struct job job;			/* first */
	struct region_store *store;
	struct sender *sender;
	uint8_t name[QC2_REGION_NAME_LEN];
	bool has_digest;
	uint8_t digest[QC2_DIGEST_LEN];
	int ret;
	struct qc2_err err;
	STAILQ_ENTRY(put) entry;
	uint8_t content[QC2_DIGEST_BLOCK];
};

struct region_store {
	struct pool *pool;
	const char *prefix;
	const struct qc2_region_key *key;
	struct sender senders[THREADS];
	_Atomic bool stop;
	STAILQ_HEAD(, put) queue;
	unsigned int nr_queued;
	uint64_t pause_us, not_before_us;
	uint64_t stored, dropped, errors;
	struct qc2_err trouble;
	struct log_limit log_limit;
};

/* The folders of a block in a folder.  That of the cache itself must be there. */
static void make_folders(const char *url)
{
	char *path = qc2_url_to_path(url), *slash;
	int up;

	for (up = 2; path && up; up--) {
		int n = up;

		for (slash = path + strlen(path); n && slash > path; n--)
			while (--slash > path && *slash != '/')
				;
		*slash = '\0';
		mkdir(path, 0777);
		*slash = '/';
	}
	free(path);
}

static int send_put(const struct qc2_store_config *cfg, const char *url, const void *buf,
		    size_t len, struct qc2_err *err)
{
	int ret = qc2_put(cfg, url, buf, len, NULL, NULL, err);

	if (ret != -ENOENT || strncmp(url, "file:", 5))
		return ret;
	make_folders(url);
	return qc2_put(cfg, url, buf, len, NULL, NULL, err);
}

/* In a pool thread. */
static void put_run(struct job *job)
{
	struct put *put = (struct put *)job;
	const struct region_store *store = put->store;
	void *buf = malloc(QC2_REGION_MAX);
	char *url = qc2_region_url(store->prefix, put->name);
	size_t len;

	/* Of this thread: whatever else the daemon does goes first. */
	setpriority(PRIO_PROCESS, gettid(), NICE);
	if (!buf || !url)
		put->ret = qc2_fail(&put->err, ENOMEM, "out of memory");
	else
		put->ret = qc2_region_pack(store->key, put->name,
					   put->has_digest ? put->digest : NULL, put->content,
					   buf, &len);
	if (put->ret == -EIO)
		qc2_fail(&put->err, EIO, "%s: cannot be packed", url);
	if (!put->ret)
		put->ret = send_put(&put->sender->cfg, url, buf, len, &put->err);
	free(url);
	free(buf);
}

static void start_puts(struct region_store *store);

static void failed(struct region_store *store, const struct put *put)
{
	struct put *other;

	store->errors++;
	store->trouble = put->err;
	if (log_allowed(&store->log_limit))
		log_warn("regional cache: %s; nothing is stored there for %llu s", put->err.msg,
			 (unsigned long long)store->pause_us / 1000000);
	/* Those that were under way together count once. */
	if (now_us() >= store->not_before_us) {
		store->not_before_us = now_us() + store->pause_us;
		store->pause_us *= 2;
		if (store->pause_us > MAX_PAUSE_US)
			store->pause_us = MAX_PAUSE_US;
	}
	while ((other = STAILQ_FIRST(&store->queue))) {
		STAILQ_REMOVE_HEAD(&store->queue, entry);
		free(other);
		store->nr_queued--;
		store->dropped++;
	}
}

static void put_done(struct job *job)
{
	struct put *put = (struct put *)job;
	struct region_store *store = put->store;

	put->sender->busy = false;
	if (!put->ret) {
		store->stored++;
		store->pause_us = MIN_PAUSE_US;
		store->trouble.msg[0] = '\0';
	} else if (put->ret != -EBADMSG) {	/* who fetched it has that noticed, too */
		failed(store, put);
	}
	free(put);
	start_puts(store);
}

static struct sender *find_sender(struct region_store *store)
{
	struct sender *s;

	for (s = store->senders; s < store->senders + THREADS; s++)
		if (!s->busy)
			return s;
	return NULL;
}

static void start_puts(struct region_store *store)
{
	struct sender *sender;
	struct put *put;

	while ((put = STAILQ_FIRST(&store->queue)) && (sender = find_sender(store))) {
		STAILQ_REMOVE_HEAD(&store->queue, entry);
		store->nr_queued--;
		put->sender = sender;
		sender->busy = true;
		pool_submit(store->pool, &put->job);
	}
}

void region_store_add(struct region_store *store, const uint8_t name[QC2_REGION_NAME_LEN],
		      const uint8_t *digest, const void *content)
{
	struct put *put = NULL;

	if (store->nr_queued < MAX_QUEUED && now_us() >= store->not_before_us)
		put = malloc(sizeof(*put));
	if (!put) {
		store->dropped++;
		return;
	}
	memset(put, 0, offsetof(struct put, content));
	put->job.run = put_run;
	put->job.done = put_done;
	put->store = store;
	memcpy(put->name, name, sizeof(put->name));
	put->has_digest = digest;
	if (digest)
		memcpy(put->digest, digest, sizeof(put->digest));
	memcpy(put->content, content, sizeof(put->content));
	STAILQ_INSERT_TAIL(&store->queue, put, entry);
	store->nr_queued++;
	start_puts(store);
}

int region_store_new(struct region_store **out, sd_event *event, const char *prefix,
		     const struct qc2_region_key *key, const struct qc2_store_config *cfg)
{
	struct region_store *store = calloc(1, sizeof(*store));
	struct sender *s;
	int ret;

	if (!store)
		return -ENOMEM;
	STAILQ_INIT(&store->queue);
	store->prefix = prefix;
	store->key = key;
	for (s = store->senders; s < store->senders + THREADS; s++) {
		s->cfg = *cfg;
		s->cfg.stop = &store->stop;
		s->cfg.connections = qc2_connections_new();	/* it does without */
	}
	store->pause_us = MIN_PAUSE_US;
	ret = pool_new(&store->pool, event, THREADS);
	if (ret)	/* the program ends */
		return ret;
	*out = store;
	return 0;
}

void region_store_stop(struct region_store *store)
{
	struct sender *s;

	if (!store)
		return;
	atomic_store(&store->stop, true);
	pool_free(store->pool);
	for (s = store->senders; s < store->senders + THREADS; s++)
		curl_share_cleanup(s->cfg.connections);
}

void region_store_get_stats(const struct region_store *store, struct region_store_stats *stats)
{
	const struct sender *s;

	*stats = (struct region_store_stats){
		.stored = store->stored, .dropped = store->dropped, .errors = store->errors,
		.queued = store->nr_queued, .trouble = &store->trouble,
	};
	for (s = store->senders; s < store->senders + THREADS; s++)
		stats->queued += s->busy;
}
