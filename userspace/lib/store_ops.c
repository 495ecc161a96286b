/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Operations on objects, one request or a few each.  No state is shared; any thread may
 * call them.  Uploads in parts are in store_upload.c.
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "retry_budget.h"
#include "store.h"
#include "store_exchange.h"
#include "store_file.h"
#include "store_ops.h"
#include "store_retry.h"
#include "url.h"
#include "xml.h"

#define MAX_RETRY_MS		120000
/* A page of a list has 5000 objects at most, with names of 1 KiB. */
#define MAX_PAGE		(32 << 20)
/* A body that is not wanted is read up to here to keep the connection. */
#define MAX_IGNORED		65536

/*
 * ---------------------------------------------------------------------------
 * One operation, with retries
 * ---------------------------------------------------------------------------
 */

struct transfer {
	struct qc2_request *req;
	size_t max;		/* of a body that is wanted */
	bool too_long;
	uint64_t ignored;	/* of one that is not */
};

static bool is_success(const struct qc2_request *req)
{
	long status = req->answer.status;

	/* Gone is gone; an earlier try may have done it. */
	if (req->op->op == QC2_OP_DELETE || req->op->op == QC2_OP_ABORT)
		return (status >= 200 && status < 300) || status == 404;
	if (req->op->op == QC2_OP_GET)
		return status == 206;
	return status == 200 || status == 201 || status == 204;
}

static size_t on_header(char *line, size_t one, size_t len, void *arg)
{
	struct transfer *t = arg;

	return qc2_request_header(t->req, line, len) ? len : 0;
}

static size_t on_data(char *buf, size_t one, size_t len, void *arg)
{
	struct transfer *t = arg;

	if (is_success(t->req) && t->max) {
		t->too_long = !qc2_request_text(t->req, buf, len, t->max);
		return t->too_long ? 0 : len;
	}
	if (!is_success(t->req))
		qc2_request_text(t->req, buf, len, QC2_ERROR_TEXT);
	t->ignored += len;
	return t->ignored > MAX_IGNORED ? 0 : len;
}

static const char *failure(const struct qc2_operation *op)
{
	switch (op->op) {
	case QC2_OP_GET:
		return "cannot be read";
	case QC2_OP_HEAD:
		return "cannot be looked at";
	case QC2_OP_LIST:
		return "cannot be listed";
	case QC2_OP_DELETE:
		return "cannot be deleted";
	case QC2_OP_ABORT:
		return "its upload cannot be aborted";
	default:
		return "cannot be written";
	}
}

static int try_once(const struct qc2_store_config *cfg, const struct qc2_operation *op,
		    struct qc2_request *req, size_t max, struct qc2_err *err);

/*
 * The answer to HEAD has no body that would say why.  Asked for a byte, the store does
 * say; if that succeeds, nothing is known.
 */
static int ask_again(const struct qc2_request *head, struct qc2_outcome *outcome, int ret,
		     struct qc2_err *err)
{
	struct qc2_operation op = { .op = QC2_OP_GET, .url = head->op->url, .len = 1 };
	struct qc2_request req = { .op = NULL };
	struct qc2_err told;
	int again;

	again = try_once(head->cfg, &op, &req, 0, &told);
	if (again) {
		ret = again;
		if (err)
			*err = told;
		outcome->retry_after_ms = req.retry_after_ms;
		outcome->corrected = req.corrected;
		outcome->needs_keys = req.needs_keys;
	}
	qc2_request_free(&req);
	return ret;
}

static int on_progress(void *arg, curl_off_t dltotal, curl_off_t dlnow, curl_off_t ultotal,
		       curl_off_t ulnow)
{
	const _Atomic bool *stop = arg;

	return atomic_load(stop);
}

static int try_once(const struct qc2_store_config *cfg, const struct qc2_operation *op,
		    struct qc2_request *req, size_t max, struct qc2_err *err)
{
	struct transfer t = { .req = req, .max = max };
	char what[512];
	CURLcode code;
	CURL *easy;
	int ret;

	ret = qc2_request_make(req, op, cfg, err);
	if (ret)
		return ret;
	easy = curl_easy_init();
	if (!easy)
		return qc2_fail(err, ENOMEM, "%s: out of memory", op->url);
	qc2_request_setup(req, easy);
	curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
	curl_easy_setopt(easy, CURLOPT_HEADERDATA, &t);
	curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_data);
	curl_easy_setopt(easy, CURLOPT_WRITEDATA, &t);
	if (cfg->connections)
		curl_easy_setopt(easy, CURLOPT_SHARE, cfg->connections);
	if (cfg->stop) {
		curl_easy_setopt(easy, CURLOPT_NOPROGRESS, 0L);
		curl_easy_setopt(easy, CURLOPT_XFERINFOFUNCTION, on_progress);
		curl_easy_setopt(easy, CURLOPT_XFERINFODATA, cfg->stop);
	}
	code = qc2_request_perform(easy);
	if (t.too_long) {
		ret = -EPROTO;
		snprintf(what, sizeof(what), "the answer is longer than %zu bytes", max);
	} else if (code != CURLE_OK && t.ignored <= MAX_IGNORED) {
		ret = qc2_request_code(req, code, what, sizeof(what));
	} else if (!is_success(req)) {
		ret = qc2_request_refused(req, what, sizeof(what));
	}
	curl_easy_cleanup(easy);
	req->easy = NULL;
	return ret ? qc2_fail(err, -ret, "%.400s: %s: %s", op->url, failure(op), what) : 0;
}

int qc2_exchange(const struct qc2_store_config *cfg, const struct qc2_operation *op,
		 struct qc2_request *req, size_t max, bool *repeated, struct qc2_err *err)
{
	struct qc2_retry retry = { .max_ms = MAX_RETRY_MS };
	struct qc2_outcome outcome;
	struct timespec ts;
	unsigned int ms;
	int ret;

	*repeated = false;
	qc2_retry_begin(&retry);
	for (;;) {
		*req = (struct qc2_request){ .op = op };
		ret = try_once(cfg, op, req, max, err);
		outcome = (struct qc2_outcome){
			.url = op->url, .site = req->site,
			.retry_after_ms = req->retry_after_ms,
			.corrected = req->corrected, .needs_keys = req->needs_keys,
		};
		if (ret && ret != -EAGAIN && op->op == QC2_OP_HEAD &&
		    (req->answer.status == 400 || req->answer.status == 403))
			ret = ask_again(req, &outcome, ret, err);
		if (!ret) {
			qc2_retry_success();
			return 0;
		}
		if (cfg->stop && (atomic_load(cfg->stop) ||
				  !(outcome.needs_keys || outcome.corrected)))
			return ret;
		ret = qc2_retry_again(&retry, ret, &outcome, &ms, err);
		if (ret)
			return ret;
		/* The store may have done it all the same. */
		*repeated |= !outcome.needs_keys && !outcome.corrected;
		qc2_request_free(req);
		ts = (struct timespec){ .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L };
		nanosleep(&ts, NULL);
	}
}

int qc2_answer_version(const struct qc2_request *req, char **version, struct qc2_err *err)
{
	const struct qc2_answer *ans = &req->answer;
	int ret = 0;

	*version = NULL;
	if (ans->etag[0])
		ret = asprintf(version, "%s", ans->etag);
	else if (ans->modified[0])
		ret = asprintf(version, QC2_MODIFIED_VERSION "%s", ans->modified);
	if (ret >= 0)
		return 0;
	*version = NULL;
	return qc2_fail(err, ENOMEM, "%s: out of memory", req->op->url);
}

/*
 * ---------------------------------------------------------------------------
 * Operations
 * ---------------------------------------------------------------------------
 */

static bool is_file(const char *url)
{
	return qc2_store_type(url) == &qc2_store_file;
}

/* NULL, with @err filled: out of memory. */
static char *file_path(const char *url, struct qc2_err *err)
{
	char *path = qc2_url_to_path(url);

	if (!path)
		qc2_fail(err, ENOMEM, "%s: out of memory", url);
	return path;
}

static int head_file(const char *url, uint64_t *size, char **version, struct qc2_err *err)
{
	char *path = file_path(url, err);
	int ret;

	if (!path)
		return -ENOMEM;
	ret = qc2_file_version(url, path, version, size, err);
	free(path);
	return ret;
}

int qc2_head(const struct qc2_store_config *cfg, const char *url, uint64_t *size,
	     char **version, struct qc2_err *err)
{
	struct qc2_operation op = { .op = QC2_OP_HEAD, .url = url };
	const struct qc2_answer *ans;
	struct qc2_request req;
	bool repeated;
	int ret;

	*version = NULL;
	if (is_file(url))
		return head_file(url, size, version, err);
	ret = qc2_exchange(cfg, &op, &req, 0, &repeated, err);
	ans = &req.answer;
	*size = ans->length;
	if (!ret && (ans->length > INT64_MAX || ans->encoded))
		ret = qc2_fail(err, EPROTO, "%s: the server does not tell the size", url);
	if (!ret && !ans->etag[0] && !ans->modified[0])
		ret = qc2_fail(err, ENOTSUP,
			       "%s: the server names neither ETag nor Last-Modified, so a change of the object would go unnoticed",
			       url);
	if (!ret)
		ret = qc2_answer_version(&req, version, err);
	qc2_request_free(&req);
	return ret;
}

struct page {
	const struct qc2_list_names *names;
	const char *prefix;
	int (*fn)(void *arg, const char *url, uint64_t size);
	void *arg;
	char *key;
	uint64_t size;
	char *marker;
};

static int on_list_element(void *arg, const char *path, const char *text)
{
	const struct qc2_list_names *names;
	struct page *page = arg;
	char **copy = NULL, *url;
	int ret = 0;

	names = page->names;
	if (!strcmp(path, names->key))
		copy = &page->key;
	else if (!strcmp(path, names->marker) && *text)
		copy = &page->marker;
	else if (!strcmp(path, names->size))
		page->size = strtoull(text, NULL, 10);
	if (copy) {
		free(*copy);
		*copy = strdup(text);
		return *copy ? 0 : -ENOMEM;
	}
	if (strcmp(path, names->object) || !page->key)
		return 0;
	if (!qc2_url_from_key(page->prefix, page->key, &url, NULL)) {
		ret = page->fn(page->arg, url, page->size);
		free(url);
	}
	free(page->key);
	page->key = NULL;
	return ret;
}

static int list_page(const struct qc2_store_config *cfg, struct page *page, const char *marker,
		     struct qc2_err *err)
{
	struct qc2_operation op = {
		.op = QC2_OP_LIST, .url = page->prefix, .marker = marker,
	};
	struct qc2_request req;
	bool repeated;
	int ret;

	ret = qc2_exchange(cfg, &op, &req, MAX_PAGE, &repeated, err);
	if (!ret) {
		ret = qc2_xml_parse(req.text, req.text_len, on_list_element, page);
		if (ret == -EBADMSG)
			qc2_fail(err, EPROTO, "%s: cannot be listed: the answer is no list",
				 page->prefix);
		else if (ret == -ENOMEM)
			qc2_fail(err, ENOMEM, "%s: out of memory", page->prefix);
	}
	qc2_request_free(&req);
	free(page->key);
	page->key = NULL;
	return ret == -EBADMSG ? -EPROTO : ret;
}

static int list_files(const char *prefix, int (*fn)(void *arg, const char *url, uint64_t size),
		      void *arg, struct qc2_err *err)
{
	char *path = file_path(prefix, err);
	int ret;

	if (!path)
		return -ENOMEM;
	ret = qc2_file_list(path, fn, arg, err);
	free(path);
	return ret;
}

int qc2_list(const struct qc2_store_config *cfg, const char *prefix,
	     int (*fn)(void *arg, const char *url, uint64_t size), void *arg,
	     struct qc2_err *err)
{
	struct page page = {
		.names = qc2_store_type(prefix)->list, .prefix = prefix, .fn = fn, .arg = arg,
	};
	char *marker = NULL;
	int ret;

	if (is_file(prefix))
		return list_files(prefix, fn, arg, err);
	if (!page.names)
		return qc2_fail(err, ENOTSUP, "%s: a web server has no lists; use s3:// or azure://",
				prefix);
	for (;;) {
		ret = list_page(cfg, &page, marker, err);
		if (!ret && marker && page.marker && !strcmp(marker, page.marker))
			ret = qc2_fail(err, EPROTO, "%s: the list does not come to an end",
				       prefix);
		free(marker);
		marker = page.marker;
		page.marker = NULL;
		if (ret || !marker)
			break;
	}
	free(marker);
	return ret;
}

int qc2_put_file(const char *path, const void *buf, size_t len, struct qc2_err *err)
{
	return qc2_file_put(path, buf, len, false, NULL, err);
}

static int put_file(const char *url, const void *buf, size_t len,
		    const struct qc2_put_if *cond, char **version, struct qc2_err *err)
{
	char *path = file_path(url, err);
	uint64_t size;
	int ret;

	if (!path)
		return -ENOMEM;
	ret = qc2_file_put(path, buf, len, cond && cond->absent, cond ? cond->version : NULL,
			   err);
	if (!ret && version)
		ret = qc2_file_version(url, path, version, &size, err);
	free(path);
	return ret;
}

/* Whether the object is what we wrote: we did, and the answer was lost. */
static bool is_ours(const struct qc2_store_config *cfg, const char *url, const void *buf,
		    size_t len, char **version)
{
	struct qc2_operation op = { .op = QC2_OP_GET, .url = url, .len = len + 1 };
	struct qc2_request req;
	bool repeated, same;

	if (!len)
		return false;
	same = !qc2_exchange(cfg, &op, &req, len + 1, &repeated, NULL) &&
	       req.text_len == len && !memcmp(req.text, buf, len) &&
	       (!version || !qc2_answer_version(&req, version, NULL));
	qc2_request_free(&req);
	return same;
}

int qc2_put(const struct qc2_store_config *cfg, const char *url, const void *buf,
	    size_t len, const struct qc2_put_if *cond, char **version, struct qc2_err *err)
{
	struct qc2_operation op = {
		.op = QC2_OP_PUT, .url = url, .body = buf, .body_len = len,
		.if_absent = cond && cond->absent, .version = cond ? cond->version : NULL,
	};
	struct qc2_request req;
	bool repeated;
	int ret;

	if (version)
		*version = NULL;
	if (is_file(url))
		return put_file(url, buf, len, cond, version, err);
	/* There would be no condition at all. */
	if (op.version && !qc2_version_has_condition(op.version))
		return qc2_fail(err, ENOTSUP, "%s: cannot be written: no server compares with %.100s, which is no strong ETag",
				url, op.version);
	ret = qc2_exchange(cfg, &op, &req, 0, &repeated, err);
	if (!ret && version)
		ret = qc2_answer_version(&req, version, err);
	qc2_request_free(&req);
	if ((ret == -EEXIST || ret == -ESTALE) && repeated && is_ours(cfg, url, buf, len, version))
		return 0;
	return ret;
}

int qc2_delete(const struct qc2_store_config *cfg, const char *url, struct qc2_err *err)
{
	struct qc2_operation op = { .op = QC2_OP_DELETE, .url = url };
	struct qc2_request req;
	bool repeated;
	char *path;
	int ret;

	if (is_file(url)) {
		path = file_path(url, err);
		ret = path ? qc2_file_delete(path, err) : -ENOMEM;
		free(path);
		return ret;
	}
	ret = qc2_exchange(cfg, &op, &req, 0, &repeated, err);
	qc2_request_free(&req);
	return ret;
}
