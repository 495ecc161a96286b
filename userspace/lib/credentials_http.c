/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The requests for credentials.  Each has a connection of its own: they are rare, and
 * nothing of one is left for the next.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <curl/curl.h>

#include "credentials_source.h"
#include "secret.h"

struct body {
	char *text;
	size_t len;
};

static size_t take_body(char *data, size_t size, size_t nmemb, void *arg)
{
	struct body *body = arg;

	size *= nmemb;
	if (size > QC2_CREDS_MAX - body->len)
		return 0;
	memcpy(body->text + body->len, data, size);
	body->len += size;
	return size;
}

static void wipe_list(struct curl_slist *list)
{
	for (struct curl_slist *l = list; l; l = l->next)
		explicit_bzero(l->data, strlen(l->data));
	curl_slist_free_all(list);
}

static CURLcode set_options(CURL *easy, const struct qc2_creds_request *req,
			    struct curl_slist *headers, struct body *body)
{
	CURLcode code = CURLE_OK;

	/* Short texts: only memory can be short here. */
#define SET(option, value) do {						\
	if (!code)							\
		code = curl_easy_setopt(easy, option, value);		\
} while (0)
	SET(CURLOPT_URL, req->url);
	SET(CURLOPT_PROTOCOLS_STR, "http,https");
	SET(CURLOPT_FOLLOWLOCATION, 0L);
	SET(CURLOPT_NOSIGNAL, 1L);
	SET(CURLOPT_CONNECTTIMEOUT_MS, (long)req->time_limit_ms);
	SET(CURLOPT_TIMEOUT_MS, (long)req->time_limit_ms);
	SET(CURLOPT_FRESH_CONNECT, 1L);
	SET(CURLOPT_FORBID_REUSE, 1L);
	SET(CURLOPT_HTTPHEADER, headers);
	SET(CURLOPT_WRITEFUNCTION, take_body);
	SET(CURLOPT_WRITEDATA, body);
	if (req->direct)
		SET(CURLOPT_PROXY, "");
	if (req->ca_file)
		SET(CURLOPT_CAINFO, req->ca_file);
	if (req->body)
		SET(CURLOPT_POSTFIELDS, req->body);
	SET(CURLOPT_CUSTOMREQUEST, req->method);
#undef SET
	return code;
}

int qc2_creds_http(const struct qc2_creds_request *req, char **text, size_t *len,
		   struct qc2_err *err)
{
	struct body body = { .text = qc2_secret_alloc(QC2_CREDS_MAX + 1) };
	struct curl_slist *headers = curl_slist_append(NULL, "Expect:");
	CURLcode code = CURLE_OUT_OF_MEMORY;
	CURL *easy = curl_easy_init();
	long status = 0;

	if (headers && req->header) {
		struct curl_slist *more = curl_slist_append(headers, req->header);

		if (!more)
			curl_slist_free_all(headers);
		headers = more;
	}
	if (easy && headers && body.text)
		code = set_options(easy, req, headers, &body);
	if (!code)
		code = curl_easy_perform(easy);
	if (!code)
		curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
	curl_easy_cleanup(easy);
	wipe_list(headers);
	if (!code && status >= 100 && status <= 999) {
		*text = body.text;
		*len = body.len;
		return status;
	}
	qc2_secret_free(body.text);
	switch (code) {
	case CURLE_OUT_OF_MEMORY:
		return qc2_fail(err, ENOMEM, "out of memory");
	case CURLE_WRITE_ERROR:
		return qc2_fail(err, EAGAIN, "%s: the answer is larger than %d KiB", req->what,
				QC2_CREDS_MAX >> 10);
	case CURLE_OPERATION_TIMEDOUT:
		return qc2_fail(err, EAGAIN, "%s: no answer within %u ms", req->what,
				req->time_limit_ms);
	case CURLE_PEER_FAILED_VERIFICATION:
	case CURLE_SSL_CACERT_BADFILE:
	case CURLE_URL_MALFORMAT:
	case CURLE_UNSUPPORTED_PROTOCOL:
		return qc2_fail(err, EACCES, "%s: %s", req->what, curl_easy_strerror(code));
	default:
		return qc2_fail(err, EAGAIN, "%s: %s", req->what, curl_easy_strerror(code));
	}
}

int qc2_creds_status(const char *what, int status, struct qc2_err *err)
{
	if (status == 408 || status == 429 || status >= 500)
		return qc2_fail(err, EAGAIN, "%s: answers with status %d", what, status);
	return qc2_fail(err, EACCES, "%s: refuses, with status %d", what, status);
}

bool qc2_creds_url_private(const char *url)
{
	static const char *const hosts[] = { "127.0.0.1", "localhost", "[::1]" };
	size_t len;

	if (!strncasecmp(url, "https://", 8))
		return true;
	if (strncasecmp(url, "http://", 7))
		return false;
	url += 7;
	/* With a user part the host is another one: there is an '@' in it then. */
	len = strcspn(url, "/?#\\");
	if (memchr(url, '@', len))
		return false;
	for (size_t i = 0; i < sizeof(hosts) / sizeof(hosts[0]); i++) {
		size_t n = strlen(hosts[i]);

		if (n <= len && !strncasecmp(url, hosts[i], n) && (n == len || url[n] == ':'))
			return true;
	}
	return false;
}

const char *qc2_creds_getenv(const char *name)
{
	const char *value = getenv(name);

	return value && *value ? value : NULL;
}
