/* SPDX-License-Identifier: GPL-2.0 */
/*
 * One ranged GET, and the checks on the answer.
 * No state is shared; a struct qc2_get belongs to the thread that runs its
 * easy handle.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "retry_budget.h"
#include "store.h"
#include "store_file.h"
#include "url.h"

/* The body of an error answer is read up to here to keep the connection. */
#define MAX_ERROR_BODY		65536
/* Slower than that for the whole of a transfer is as good as nothing. */
#define MIN_BYTES_PER_S		16384

static bool has_modified_version(const struct qc2_get *get)
{
	return !strncmp(get->version, QC2_MODIFIED_VERSION, strlen(QC2_MODIFIED_VERSION));
}

__attribute__((format(printf, 3, 4)))
static int get_fail(struct qc2_get *get, int errnum, const char *fmt, ...)
{
	char what[768];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	return qc2_fail(&get->err, errnum, "%.600s: bytes %" PRIu64 "-%" PRIu64
			": %s", get->url, get->offset,
			get->offset + get->len - 1, what);
}

static size_t on_header(char *line, size_t one, size_t len, void *arg)
{
	struct qc2_get *get = arg;

	return qc2_request_header(&get->req, line, len) ? len : 0;
}

/* Compares with, or when opening takes, the version of an HTTP answer. */
static int judge_version(struct qc2_get *get)
{
	const struct qc2_answer *ans = &get->req.answer;
	int n;

	if (get->version ? !has_modified_version(get) : ans->etag[0] != '\0')
		n = asprintf(&get->seen_version, "%s", ans->etag);
	else if (ans->modified[0])
		n = asprintf(&get->seen_version, "%s%s", QC2_MODIFIED_VERSION,
			     ans->modified);
	else
		return get_fail(get, ENOTSUP,
				"the server names neither ETag nor Last-Modified, so a change of the object would go unnoticed");
	if (n < 0) {
		get->seen_version = NULL;
		return get_fail(get, ENOMEM, "out of memory");
	}
	if (get->version && strcmp(get->version, get->seen_version))
		return get_fail(get, ESTALE,
				"the object changed since it was opened: version is now %s, was %s",
				get->seen_version, get->version);
	return 0;
}

/* An answer that has no part of the object. */
static int judge_refusal(struct qc2_get *get)
{
	struct qc2_request *req = &get->req;
	char what[512];
	int ret;

	switch (req->answer.status) {
	case 200:
		return get_fail(get, EPROTO,
				"the server ignored the range (status 200, not 206); a store must support range requests");
	case 416:
		if (!get->version)
			return get_fail(get, EINVAL,
					"the object is empty (status 416)");
		return get_fail(get, ESTALE,
				"the object became shorter since it was opened (status 416)");
	}
	ret = qc2_request_refused(req, what, sizeof(what));
	get->retry_after_ms = req->retry_after_ms;
	get->throttled = req->throttled;
	get->corrected = req->corrected;
	get->needs_keys = req->needs_keys;
	return get_fail(get, -ret, "%s", what);
}

static int judge_http(struct qc2_get *get)
{
	const struct qc2_answer *ans = &get->req.answer;
	uint64_t last = get->offset + get->len - 1;
	int ret;

	if (ans->status != 206)
		return judge_refusal(get);
	if (!ans->have_range)
		return get_fail(get, EPROTO,
				"status 206 without a usable Content-Range");
	if (ans->encoded)
		return get_fail(get, EPROTO,
				"the server encoded the content (compression), so offsets mean nothing");
	ret = judge_version(get);
	if (ret)
		return ret;
	if (get->version && ans->total != get->size)
		return get_fail(get, ESTALE,
				"the object changed since it was opened: size is now %" PRIu64 ", was %" PRIu64,
				ans->total, get->size);
	if (!get->version && last >= ans->total)
		last = ans->total - 1;
	if (ans->first != get->offset || ans->last != last)
		return get_fail(get, EPROTO,
				"the server sent bytes %" PRIu64 "-%" PRIu64 " of %" PRIu64 " instead",
				ans->first, ans->last, ans->total);
	if (!get->version) {
		get->size = ans->total;
		get->len = last - get->offset + 1;
	}
	return 0;
}

static void judge(struct qc2_get *get)
{
	if (get->judged)
		return;
	get->judged = true;
	if (!get->path)
		get->ret = judge_http(get);
}

/* The body of an answer that is not what was asked for. */
static size_t ignore_data(struct qc2_get *get, const char *buf, size_t len)
{
	/* A long body is not worth the connection that it keeps. */
	if (get->req.answer.have_range || len > MAX_ERROR_BODY - get->ignored)
		return 0;
	get->ignored += len;
	qc2_request_text(&get->req, buf, len, QC2_ERROR_TEXT);
	return len;
}

static size_t on_data(char *buf, size_t one, size_t len, void *arg)
{
	struct qc2_get *get = arg;

	/* What an error means is known when all of it has come. */
	if (!get->path && get->req.answer.status != 206)
		return ignore_data(get, buf, len);
	judge(get);
	if (get->ret)
		return ignore_data(get, buf, len);
	if (len > get->len - get->got) {
		get->ret = get_fail(get, EPROTO,
				    "the server sent more than asked for");
		return 0;
	}
	get->ret = get->data(get->arg, buf, len);
	if (get->ret) {
		get_fail(get, -get->ret, "%s", strerror(-get->ret));
		return 0;
	}
	get->got += len;
	return len;
}

static int check_file(struct qc2_get *get)
{
	uint64_t size;
	int ret;

	get->path = qc2_url_to_path(get->url);
	if (!get->path)
		return qc2_fail(&get->err, EINVAL, "%s: not a usable file URL",
				get->url);
	ret = qc2_file_version(get->url, get->path, &get->seen_version, &size, &get->err);
	if (ret)
		return ret;
	if (get->version && strcmp(get->version, get->seen_version))
		return get_fail(get, ESTALE,
				"the file changed since it was opened: version is now %s, was %s",
				get->seen_version, get->version);
	if (!get->version) {
		get->size = size;
		if (get->offset >= size)
			return qc2_fail(&get->err, EINVAL,
					"%s: the file is empty", get->url);
		if (get->len > size - get->offset)
			get->len = size - get->offset;
	}
	return 0;
}

int qc2_get_prepare(struct qc2_get *get, CURL *easy,
		    const struct qc2_store_config *cfg, struct qc2_err *err)
{
	char range[64];
	int ret = 0;

	if (!strncmp(get->url, "file:", 5))
		ret = check_file(get);
	get->op = (struct qc2_operation){
		.op = QC2_OP_GET, .url = get->url, .offset = get->offset, .len = get->len,
		.version = get->version,
	};
	if (!ret) {
		ret = qc2_request_make(&get->req, &get->op, cfg, &get->err);
		get->site = get->req.site;
		get->needs_keys = get->req.needs_keys;
	}
	if (ret) {
		get->ret = ret;
		if (err)
			*err = get->err;
		return ret;
	}
	qc2_request_setup(&get->req, easy);
	if (get->path) {
		snprintf(range, sizeof(range), "%" PRIu64 "-%" PRIu64, get->offset,
			 get->offset + get->len - 1);
		curl_easy_setopt(easy, CURLOPT_RANGE, range);
	} else {
		curl_easy_setopt(easy, CURLOPT_TIMEOUT,
				 (long)(cfg->connect_timeout_s + cfg->low_speed_time_s +
					get->len / MIN_BYTES_PER_S));
	}
	curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
	curl_easy_setopt(easy, CURLOPT_HEADERDATA, get);
	curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_data);
	curl_easy_setopt(easy, CURLOPT_WRITEDATA, get);
	return 0;
}

static int finish_code(struct qc2_get *get, CURLcode code)
{
	char what[512];
	int ret;

	/* A long error was cut off, but its status and its start have come. */
	if (code == CURLE_WRITE_ERROR && !get->path && !get->req.redirect_ret &&
	    get->req.answer.status != 206)
		return judge_refusal(get);
	ret = qc2_request_code(&get->req, code, what, sizeof(what));
	return get_fail(get, -ret, "%s", what);
}

int qc2_get_finish(struct qc2_get *get, CURLcode code, struct qc2_err *err)
{
	char *version = NULL;
	uint64_t size;

	if (code == CURLE_OK)
		judge(get);
	if (!get->ret && code != CURLE_OK)
		get->ret = finish_code(get, code);
	if (!get->ret && get->path) {
		get->ret = qc2_file_version(get->url, get->path, &version, &size,
					    &get->err);
		if (!get->ret && strcmp(version, get->seen_version))
			get->ret = get_fail(get, ESTALE,
					    "the file changed while it was read");
		free(version);
	}
	if (!get->ret && get->got != get->len)
		get->ret = get_fail(get, EAGAIN,
				    "the answer ended after %" PRIu64 " bytes",
				    get->got);
	if (!get->ret && !get->path)
		qc2_retry_success();
	if (get->ret && err)
		*err = get->err;
	return get->ret;
}

char *qc2_get_take_version(struct qc2_get *get)
{
	char *version = get->seen_version;

	get->seen_version = NULL;
	return version;
}

void qc2_get_cleanup(struct qc2_get *get)
{
	qc2_request_free(&get->req);
	free(get->path);
	get->path = NULL;
	free(get->seen_version);
	get->seen_version = NULL;
}

unsigned int qc2_backoff_ms(unsigned int tries, unsigned int max_ms)
{
	unsigned int limit = max_ms, r = 0;

	if (tries < 16 && (100U << tries) < max_ms)
		limit = 100U << tries;
	if (getrandom(&r, sizeof(r), GRND_NONBLOCK) != sizeof(r))
		r = limit / 2;
	return r % (limit + 1);
}
