/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Stores: objects behind file://, http://, https://, s3:// and azure:// URLs, read by
 * ranged GETs through libcurl.  What else can be done with objects is in store_ops.h.
 *
 * struct qc2_get is one such GET.  It sets an easy handle up and judges the
 * answer before a byte of it is passed on, so that whoever moves the data (the
 * synchronous reader below, the daemon's event loop) has the same checks.
 *
 * struct qc2_store is the synchronous reader: it opens objects for the image
 * code.  Any thread may open and read; and qc2_store_cancel() may be called from
 * any.
 *
 * An object is pinned to the version seen when it was opened: its ETag, else
 * its Last-Modified; size and modification time of a file.  Every later
 * answer must show the same.
 */
#ifndef QC2_STORE_H
#define QC2_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <curl/curl.h>

#include "err.h"
#include "source.h"
#include "store_type.h"

/* The part of the configuration that stores need; see config.h. */
struct qc2_store_config {
	const char *ca_file;		/* NULL: those of the system */
	struct qc2_sites *sites;	/* what the stores file says; NULL: only files and web servers */
	unsigned int connect_timeout_s;
	unsigned int low_speed_time_s;
	bool allow_local_addresses;	/* names may lead there, see address.h */
	const char *const *allow;	/* URL prefixes; redirects may lead there */
	size_t nr_allow;
	/*
	 * Of operations (store_ops.h) in the background: those end when it becomes true, and
	 * what may pass is not tried again.  NULL: none are.
	 */
	const _Atomic bool *stop;
	/* Of operations, one at a time: from qc2_connections_new(); NULL: new ones for each. */
	CURLSH *connections;
};

/*
 * Connections, with what libcurl knows of hosts, for one thread at a time; for
 * curl_share_cleanup().  NULL: out of memory.
 */
CURLSH *qc2_connections_new(void);

/**
 * struct qc2_get - one ranged GET
 * @url: canonical URL
 * @offset: first byte
 * @len: bytes; when opening, the end of the object may come first
 * @size: size of the object; when opening, filled in by the answer
 * @version: pinned version; NULL when opening
 * @data: is given the bytes in order, after the headers were found right;
 *	returns 0, or a negative errno to break off
 * @arg: for @data
 * @got: bytes passed to @data so far
 * @site: how the store is reached; filled by qc2_get_prepare(); NULL: no stores file
 * @retry_after_ms: the store wants to be left alone for so long, a minute at most; 0: it
 *	did not say
 * @throttled: the store has too much to do
 * @corrected: after -EAGAIN, trying again at once may help, as the region or the clock
 *	was corrected; twice for the same bytes is enough
 * @needs_keys: after -EAGAIN, qc2_credentials_refresh(site->creds), which blocks, has to
 *	be called before trying again
 *
 * The rest is private.
 */
struct qc2_get {
	const char *url;
	uint64_t offset;
	uint64_t len;
	uint64_t size;
	const char *version;
	int (*data)(void *arg, const void *buf, size_t len);
	void *arg;
	uint64_t got;

	struct qc2_site *site;
	unsigned int retry_after_ms;
	bool throttled, corrected, needs_keys;

	bool judged;
	int ret;			/* of judging, or of @data */
	struct qc2_err err;
	struct qc2_operation op;
	struct qc2_request req;
	char *path;			/* of a file:// URL */
	char *seen_version;
	uint64_t ignored;		/* bytes of an error's body */
};

/**
 * qc2_get_prepare() - set up an easy handle
 * @get: with the public fields filled, the rest zeroed
 * @easy: new for each GET; must not move while @get is in use.  In libcurl
 *	7.88.1 one that was used before has a pointer to a header that was
 *	freed, and a server can make libcurl write there (curl's issue 11101)
 *
 * A file's existence, kind and version are checked here already.  Nothing blocks but that.
 * qc2_get_cleanup() is needed whatever this returns.
 *
 * Return: 0 or a negative errno with @err filled; -EAGAIN with @get->needs_keys if there
 * are no valid keys.
 */
int qc2_get_prepare(struct qc2_get *get, CURL *easy,
		    const struct qc2_store_config *cfg, struct qc2_err *err);

/**
 * qc2_get_finish() - the result of a transfer
 * @code: what libcurl said
 *
 * Return: 0 if @get->len bytes were passed on; else a negative errno with @err
 * naming URL and range: -EAGAIN if trying again may help, -ENOENT, -EACCES,
 * -ESTALE if the object changed since it was opened, and others.  -EACCES is
 * also that the URL's host is a name and leads to a local address, which the
 * configuration does not allow.  The outcome fields of @get say more.
 */
int qc2_get_finish(struct qc2_get *get, CURLcode code, struct qc2_err *err);

/*
 * The version that the answer showed (valid after success); the caller frees
 * it.
 */
char *qc2_get_take_version(struct qc2_get *get);

void qc2_get_cleanup(struct qc2_get *get);

/**
 * qc2_backoff_ms() - how long to wait before a retry ("full jitter")
 * @tries: failed tries so far, from 1
 * @max_ms: upper limit
 */
unsigned int qc2_backoff_ms(unsigned int tries, unsigned int max_ms);

struct qc2_store;

/**
 * qc2_store_new() - a synchronous reader with connections of its own
 * @cfg: must stay as long as the store
 *
 * Return: the store, or NULL for lack of memory.
 */
struct qc2_store *qc2_store_new(const struct qc2_store_config *cfg);

/* After all of its sources were closed. */
void qc2_store_free(struct qc2_store *store);

/*
 * Opens objects.  A failure that may pass is retried a few times, for no
 * longer than about half a minute.  Credentials are renewed in between.
 */
struct qc2_opener *qc2_store_opener(struct qc2_store *store);

/* From any thread: what is running or comes later fails with -ECANCELED. */
void qc2_store_cancel(struct qc2_store *store);

/* Requests sent and bytes received so far.  Any thread. */
void qc2_store_stats(struct qc2_store *store, uint64_t *requests, uint64_t *bytes);

/**
 * qc2_store_pinned() - a source of an object whose size and version are known
 * @url: canonical
 *
 * Nothing is asked for before the first read, which fails with -ESTALE if the object
 * is another one by then.
 *
 * Return: the source, or NULL for lack of memory.
 */
struct qc2_source *qc2_store_pinned(struct qc2_store *store, const char *url,
				    uint64_t size, const char *version);

#endif
