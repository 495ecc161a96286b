/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The synchronous reader: opens objects and reads their metadata.
 *
 * Opening an object is one GET of its first bytes, whose answer also names
 * size and version; reads within these bytes need no further request.
 *
 * Several threads may read at once, each over connections of its own: a store
 * has as many sets of them as were ever in use together.  @lock protects the list
 * of idle ones and the counters.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "store.h"
#include "store_retry.h"

#define MAX_RETRY_MS		30000

struct qc2_store {
	struct qc2_opener opener;
	const struct qc2_store_config *cfg;
	atomic_bool canceled;
	pthread_mutex_t lock;
	CURLSH **idle;			/* stack of sets of connections */
	size_t nr_idle, nr_sets;	/* of the latter, there is room in @idle */
	uint64_t requests;
	uint64_t bytes;
};

struct store_source {
	struct qc2_source src;
	struct qc2_store *store;
	uint8_t *head;
	size_t head_len;
};

struct sink {
	uint8_t *buf;
	size_t filled;
};

static int to_sink(void *arg, const void *buf, size_t len)
{
	struct sink *sink = arg;

	memcpy(sink->buf + sink->filled, buf, len);
	sink->filled += len;
	return 0;
}

static int on_progress(void *arg, curl_off_t dltotal, curl_off_t dlnow,
		       curl_off_t ultotal, curl_off_t ulnow)
{
	struct qc2_store *store = arg;

	return atomic_load(&store->canceled);
}

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000ULL + ts.tv_nsec / 1000000;
}

static void sleep_ms(struct qc2_store *store, unsigned int ms)
{
	struct timespec ts = { .tv_nsec = 50 * 1000000 };
	uint64_t end = now_ms() + ms;

	while (now_ms() < end && !atomic_load(&store->canceled))
		nanosleep(&ts, NULL);
}

CURLSH *qc2_connections_new(void)
{
	CURLSH *share = curl_share_init();

	if (!share)
		return NULL;
	curl_share_setopt(share, CURLSHOPT_SHARE, CURL_LOCK_DATA_CONNECT);
	curl_share_setopt(share, CURLSHOPT_SHARE, CURL_LOCK_DATA_DNS);
	curl_share_setopt(share, CURLSHOPT_SHARE, CURL_LOCK_DATA_SSL_SESSION);
	return share;
}

/* Idle ones, or new ones; NULL: out of memory. */
static CURLSH *take_connections(struct qc2_store *store)
{
	CURLSH **idle, *share = NULL;

	pthread_mutex_lock(&store->lock);
	store->requests++;
	if (store->nr_idle) {
		share = store->idle[--store->nr_idle];
	} else {
		idle = reallocarray(store->idle, store->nr_sets + 1, sizeof(*idle));
		if (idle) {
			store->idle = idle;
			share = qc2_connections_new();
			store->nr_sets += !!share;
		}
	}
	pthread_mutex_unlock(&store->lock);
	return share;
}

static void put_connections(struct qc2_store *store, CURLSH *share, uint64_t bytes)
{
	pthread_mutex_lock(&store->lock);
	store->bytes += bytes;
	store->idle[store->nr_idle++] = share;
	pthread_mutex_unlock(&store->lock);
}

static int try_get(struct qc2_store *store, struct qc2_get *get,
		   struct qc2_err *err)
{
	CURLSH *share;
	CURL *easy;
	int ret;

	if (atomic_load(&store->canceled))
		return qc2_fail(err, ECANCELED, "%s: canceled", get->url);
	share = take_connections(store);
	if (!share)
		return qc2_fail(err, ENOMEM, "%s: out of memory", get->url);
	easy = curl_easy_init();
	if (easy)
		ret = qc2_get_prepare(get, easy, store->cfg, err);
	else
		ret = qc2_fail(err, ENOMEM, "%s: out of memory", get->url);
	if (!ret) {
		curl_easy_setopt(easy, CURLOPT_SHARE, share);
		curl_easy_setopt(easy, CURLOPT_NOPROGRESS, 0L);
		curl_easy_setopt(easy, CURLOPT_XFERINFOFUNCTION, on_progress);
		curl_easy_setopt(easy, CURLOPT_XFERINFODATA, store);
		ret = qc2_get_finish(get, qc2_request_perform(easy), err);
	}
	curl_easy_cleanup(easy);
	put_connections(store, share, get->got);
	return ret;
}

/*
 * Reads into @buf with retries.  When opening (no @version), *@len becomes
 * what the object has, and *@size and *@seen are filled.
 */
static int read_range(struct qc2_store *store, const char *url,
		      const char *version, uint64_t offset, void *buf,
		      size_t *len, uint64_t *size, char **seen,
		      struct qc2_err *err)
{
	struct qc2_retry retry = { .max_ms = MAX_RETRY_MS };
	unsigned int ms;
	int ret;

	qc2_retry_begin(&retry);
	for (;;) {
		struct sink sink = { .buf = buf };
		struct qc2_get get = {
			.url = url, .version = version, .offset = offset,
			.len = *len, .size = *size, .data = to_sink,
			.arg = &sink,
		};
		struct qc2_outcome outcome;

		ret = try_get(store, &get, err);
		if (!ret) {
			*len = get.len;
			*size = get.size;
			if (seen)
				*seen = qc2_get_take_version(&get);
		}
		outcome = (struct qc2_outcome){
			.url = url, .site = get.site, .retry_after_ms = get.retry_after_ms,
			.corrected = get.corrected, .needs_keys = get.needs_keys,
		};
		qc2_get_cleanup(&get);
		if (!ret)
			return 0;
		ret = qc2_retry_again(&retry, ret, &outcome, &ms, err);
		if (ret)
			return ret;
		sleep_ms(store, ms);
	}
}

static int store_read(struct qc2_source *src, uint64_t offset, void *buf,
		      size_t len, struct qc2_err *err)
{
	struct store_source *s = (struct store_source *)src;
	uint64_t size = src->size;

	if (len > src->size || offset > src->size - len)
		return qc2_fail(err, EINVAL,
				"%s: read of %zu bytes at %llu is past the end",
				src->url, len, (unsigned long long)offset);
	if (offset < s->head_len) {
		size_t n = s->head_len - offset;

		if (n > len)
			n = len;
		memcpy(buf, s->head + offset, n);
		buf = (uint8_t *)buf + n;
		offset += n;
		len -= n;
	}
	if (!len)
		return 0;
	return read_range(s->store, src->url, src->version, offset, buf, &len,
			  &size, NULL, err);
}

static void store_close(struct qc2_source *src)
{
	struct store_source *s = (struct store_source *)src;

	free(src->url);
	free(src->version);
	free(s->head);
	free(s);
}

static const struct qc2_source_ops store_ops = {
	.read = store_read,
	.close = store_close,
};

static int store_open_head(struct qc2_opener *opener, const char *url,
			   size_t head_len, struct qc2_source **src,
			   struct qc2_err *err)
{
	struct qc2_store *store = (struct qc2_store *)opener;
	struct store_source *s = calloc(1, sizeof(*s));
	uint8_t *head;
	int ret;

	if (!s)
		return qc2_fail(err, ENOMEM, "%s: out of memory", url);
	s->src.ops = &store_ops;
	s->src.url = strdup(url);
	s->store = store;
	s->head_len = head_len;
	s->head = malloc(head_len);
	if (!s->src.url || !s->head) {
		ret = qc2_fail(err, ENOMEM, "%s: out of memory", url);
		goto fail;
	}
	ret = read_range(store, url, NULL, 0, s->head, &s->head_len,
			 &s->src.size, &s->src.version, err);
	if (ret)
		goto fail;
	head = realloc(s->head, s->head_len);	/* most links are small */
	if (head)
		s->head = head;
	*src = &s->src;
	return 0;
fail:
	store_close(&s->src);
	return ret;
}

static int store_open(struct qc2_opener *opener, const char *url,
		      struct qc2_source **src, struct qc2_err *err)
{
	return store_open_head(opener, url, QC2_HEAD_BYTES, src, err);
}

struct qc2_source *qc2_store_pinned(struct qc2_store *store, const char *url,
				    uint64_t size, const char *version)
{
	struct store_source *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->src.ops = &store_ops;
	s->src.url = strdup(url);
	s->src.version = strdup(version);
	s->src.size = size;
	s->store = store;
	if (s->src.url && s->src.version)
		return &s->src;
	store_close(&s->src);
	return NULL;
}

struct qc2_store *qc2_store_new(const struct qc2_store_config *cfg)
{
	struct qc2_store *store = calloc(1, sizeof(*store));

	if (!store)
		return NULL;
	store->opener.open = store_open;
	store->opener.open_head = store_open_head;
	store->cfg = cfg;
	pthread_mutex_init(&store->lock, NULL);
	return store;
}

void qc2_store_free(struct qc2_store *store)
{
	if (!store)
		return;
	while (store->nr_idle)
		curl_share_cleanup(store->idle[--store->nr_idle]);
	free(store->idle);
	pthread_mutex_destroy(&store->lock);
	free(store);
}

struct qc2_opener *qc2_store_opener(struct qc2_store *store)
{
	return &store->opener;
}

void qc2_store_cancel(struct qc2_store *store)
{
	atomic_store(&store->canceled, true);
}

void qc2_store_stats(struct qc2_store *store, uint64_t *requests, uint64_t *bytes)
{
	pthread_mutex_lock(&store->lock);
	*requests = store->requests;
	*bytes = store->bytes;
	pthread_mutex_unlock(&store->lock);
}
