/* SPDX-License-Identifier: GPL-2.0 */
/*
 * HTTP requests to stores: options of the easy handle, headers of the answer, and what
 * it means when a store refuses.  No state is shared; see store_type.h.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "store.h"
#include "store_type.h"
#include "url.h"
#include "xml.h"

/* A transfer slower than this many bytes a second counts as stalled. */
#define LOW_SPEED_LIMIT		256L
/* Idle connections older than this are not used again. */
#define MAX_IDLE_S		55L
/* Amazon's servers close theirs after about 5 s, and a request may cross that. */
#define MAX_IDLE_AWS_S		4L
#define MAX_REDIRECTS		3L
#define MAX_RETRY_AFTER_MS	60000
/* Signatures are good for 5 minutes at least, if the clocks differ by less. */
#define MIN_CLOCK_OFFSET	60

const struct qc2_store_type *qc2_store_type(const char *url)
{
	if (!strncmp(url, "file:", 5))
		return &qc2_store_file;
	if (!strncmp(url, "s3:", 3))
		return &qc2_store_s3;
	if (!strncmp(url, "azure:", 6))
		return &qc2_store_azure;
	return &qc2_store_http;
}

/*
 * ---------------------------------------------------------------------------
 * The request
 * ---------------------------------------------------------------------------
 */

int qc2_request_add(struct qc2_request *req, const char *fmt, ...)
{
	struct curl_slist *list;
	char *line;
	va_list ap;
	int len;

	va_start(ap, fmt);
	len = vasprintf(&line, fmt, ap);
	va_end(ap);
	if (len < 0)
		return -ENOMEM;
	list = curl_slist_append(req->headers, line);
	explicit_bzero(line, len);
	free(line);
	if (!list)
		return -ENOMEM;
	req->headers = list;
	return 0;
}

static bool is_modified_version(const char *version)
{
	return !strncmp(version, QC2_MODIFIED_VERSION, strlen(QC2_MODIFIED_VERSION));
}

bool qc2_version_has_condition(const char *version)
{
	return version[0] == '"' || is_modified_version(version);
}

int qc2_request_conditions(struct qc2_request *req)
{
	const struct qc2_operation *op = req->op;
	const char *version = op->version;

	if (op->if_absent)
		return qc2_request_add(req, "If-None-Match: *");
	if (!version || !qc2_version_has_condition(version))
		return 0;
	if (is_modified_version(version))
		return qc2_request_add(req, "If-Unmodified-Since: %s",
				       version + strlen(QC2_MODIFIED_VERSION));
	return qc2_request_add(req, "If-Match: %s", version);
}

int qc2_request_make(struct qc2_request *req, const struct qc2_operation *op,
		     const struct qc2_store_config *cfg, struct qc2_err *err)
{
	int ret;

	req->op = op;
	req->cfg = cfg;
	req->type = qc2_store_type(op->url);
	req->site = cfg->sites ? qc2_sites_find(cfg->sites, op->url) : NULL;
	req->body = op->body;
	req->body_len = op->body_len;
	req->answer.length = UINT64_MAX;
	if (!req->type->request) {
		req->target = strdup(op->url);
		return req->target ? 0 : qc2_fail(err, ENOMEM, "out of memory");
	}
	if (req->site && req->site->creds) {
		req->keys = qc2_credentials_get(req->site->creds);
		if (!req->keys) {
			req->needs_keys = true;
			return qc2_fail(err, EAGAIN, "%s: waits for credentials", op->url);
		}
	}
	if (req->site)
		req->clock_offset = atomic_load(&req->site->clock_offset);
	ret = req->type->request(req, time(NULL) + req->clock_offset, err);
	if (ret == -ENOMEM)
		qc2_fail(err, ENOMEM, "%s: out of memory", op->url);
	return ret;
}

/* They may have a secret in them. */
static void free_headers(struct curl_slist *list)
{
	for (struct curl_slist *item = list; item; item = item->next)
		explicit_bzero(item->data, strlen(item->data));
	curl_slist_free_all(list);
}

void qc2_request_free(struct qc2_request *req)
{
	free_headers(req->headers);
	free_headers(req->bare_headers);
	if (req->target)
		explicit_bzero(req->target, strlen(req->target));
	free(req->target);
	free(req->origin);
	free(req->made_body);
	free(req->text);
	qc2_keys_unref(req->keys);
	req->headers = NULL;
	req->bare_headers = NULL;
	req->target = NULL;
	req->origin = NULL;
	req->made_body = NULL;
	req->text = NULL;
	req->keys = NULL;
}

static bool has_redirects(const struct qc2_request *req)
{
	return req->type == &qc2_store_http &&
	       (req->op->op == QC2_OP_GET || req->op->op == QC2_OP_HEAD);
}

/* Where the next request goes. */
static const char *origin(const struct qc2_request *req)
{
	return req->origin ? req->origin : req->target;
}

static unsigned int url_port(const char *url)
{
	const char *host = strstr(url, "://") + 3, *port = host + strcspn(host, ":/");

	if (*port == ':')
		return atoi(port + 1);
	return !strncmp(url, "https:", 6) ? 443 : 80;
}

/*
 * Who answers for a name in the DNS can have it lead anywhere, and to another
 * place each time, so addresses are looked at when a connection is made.  A
 * proxy is the administrator's choice; what is at another port than the URL's
 * must be one.
 */
static curl_socket_t open_socket(void *arg, curlsocktype purpose,
				 struct curl_sockaddr *addr)
{
	struct qc2_request *req = arg;
	const char *what = qc2_address_local(&addr->addr, req->local);
	/* IPv6 has it in the same place. */
	unsigned int port = ntohs(((struct sockaddr_in *)&addr->addr)->sin_port);

	if (what && qc2_url_has_name(origin(req)) && port == url_port(origin(req))) {
		req->local_what = what;
		return CURL_SOCKET_BAD;
	}
	return socket(addr->family, addr->socktype | SOCK_CLOEXEC, addr->protocol);
}

static size_t send_body(char *buf, size_t size, size_t nr, void *arg)
{
	struct qc2_request *req = arg;
	size_t n = req->body_len - req->body_sent;

	if (n > size * nr)
		n = size * nr;
	memcpy(buf, req->body + req->body_sent, n);
	req->body_sent += n;
	return n;
}

/* The connection turned out to be closed, and libcurl begins again on another one. */
static int seek_body(void *arg, curl_off_t offset, int origin_of_offset)
{
	struct qc2_request *req = arg;

	if (origin_of_offset != SEEK_SET || offset < 0 || (size_t)offset > req->body_len)
		return CURL_SEEKFUNC_FAIL;
	req->body_sent = offset;
	return CURL_SEEKFUNC_OK;
}

static long idle_s(const struct qc2_request *req)
{
	static const char aws[] = ".amazonaws.com";
	const char *host = strstr(req->target, "://") + 3;
	size_t n = strcspn(host, ":/");

	if (req->site && req->site->idle_s)
		return req->site->idle_s;
	return n > strlen(aws) && !strncmp(host + n - strlen(aws), aws, strlen(aws)) ?
	       MAX_IDLE_AWS_S : MAX_IDLE_S;
}

void qc2_request_setup(struct qc2_request *req, CURL *easy)
{
	const struct qc2_store_config *cfg = req->cfg;
	const struct qc2_site *site = req->site;
	const char *ca_file = site && site->ca_file ? site->ca_file : cfg->ca_file;

	req->easy = easy;
	curl_easy_setopt(easy, CURLOPT_URL, req->target);
	curl_easy_setopt(easy, CURLOPT_HTTPHEADER, req->headers);
	curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, req->errbuf);
	curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, req->type->request ? "http,https" : "file");
	curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, has_redirects(req) ? 1L : 0L);
	curl_easy_setopt(easy, CURLOPT_REDIR_PROTOCOLS_STR, "http,https");
	curl_easy_setopt(easy, CURLOPT_MAXREDIRS, MAX_REDIRECTS);
	/* Paths are canonical, and signed. */
	curl_easy_setopt(easy, CURLOPT_PATH_AS_IS, has_redirects(req) ? 0L : 1L);
	curl_easy_setopt(easy, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
	curl_easy_setopt(easy, CURLOPT_USERAGENT, "qcow2chain/" QC2_VERSION);
	curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, site && site->http2 ?
			 (long)CURL_HTTP_VERSION_2TLS : (long)CURL_HTTP_VERSION_1_1);
	curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	/* Nor wait for the DNS when a transfer ends: its thread ends by itself. */
	curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L);
	curl_easy_setopt(easy, CURLOPT_DNS_SHUFFLE_ADDRESSES, 1L);
	curl_easy_setopt(easy, CURLOPT_MAXAGE_CONN, idle_s(req));
	curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT, (long)cfg->connect_timeout_s);
	curl_easy_setopt(easy, CURLOPT_LOW_SPEED_LIMIT, LOW_SPEED_LIMIT);
	curl_easy_setopt(easy, CURLOPT_LOW_SPEED_TIME, (long)cfg->low_speed_time_s);
	curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, 131072L);
	if (ca_file)
		curl_easy_setopt(easy, CURLOPT_CAINFO, ca_file);
	if (site && site->proxy)
		curl_easy_setopt(easy, CURLOPT_PROXY, site->proxy);
	if (!cfg->allow_local_addresses &&
	    (qc2_url_has_name(req->op->url) || has_redirects(req))) {
		curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, open_socket);
		curl_easy_setopt(easy, CURLOPT_OPENSOCKETDATA, req);
	}
	if (!req->method || !strcmp(req->method, "GET"))
		return;
	curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, req->method);
	if (!strcmp(req->method, "HEAD")) {
		curl_easy_setopt(easy, CURLOPT_NOBODY, 1L);
	} else if (strcmp(req->method, "DELETE")) {
		curl_easy_setopt(easy, CURLOPT_UPLOAD, 1L);
		curl_easy_setopt(easy, CURLOPT_INFILESIZE_LARGE, (curl_off_t)req->body_len);
		curl_easy_setopt(easy, CURLOPT_READFUNCTION, send_body);
		curl_easy_setopt(easy, CURLOPT_READDATA, req);
		curl_easy_setopt(easy, CURLOPT_SEEKFUNCTION, seek_body);
		curl_easy_setopt(easy, CURLOPT_SEEKDATA, req);
	}
}

/*
 * Without CURLOPT_NOSIGNAL libcurl would change signals of the whole process, and with it
 * TLS writes into closed connections raise SIGPIPE.
 */
CURLcode qc2_request_perform(CURL *easy)
{
	const struct timespec none = { 0 };
	sigset_t pipe_signal, old, pending;
	CURLcode code;

	sigemptyset(&pipe_signal);
	sigaddset(&pipe_signal, SIGPIPE);
	pthread_sigmask(SIG_BLOCK, &pipe_signal, &old);
	code = curl_easy_perform(easy);
	if (!sigismember(&old, SIGPIPE) && !sigpending(&pending) &&
	    sigismember(&pending, SIGPIPE))
		sigtimedwait(&pipe_signal, NULL, &none);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return code;
}

/*
 * ---------------------------------------------------------------------------
 * The answer
 * ---------------------------------------------------------------------------
 */

static bool token_is(const char *line, size_t len, const char *name)
{
	size_t n = strlen(name);

	return len > n && line[n] == ':' && !strncasecmp(line, name, n);
}

/* Copies a header's value without the white space around it. */
static bool copy_value(const char *line, size_t len, char *buf, size_t size)
{
	const char *p = memchr(line, ':', len), *end = line + len;

	for (p++; p < end && (*p == ' ' || *p == '\t'); p++)
		;
	while (end > p && (end[-1] == '\r' || end[-1] == '\n' ||
			   end[-1] == ' ' || end[-1] == '\t'))
		end--;
	if ((size_t)(end - p) >= size || memchr(p, '\0', end - p)) {
		buf[0] = '\0';
		return false;
	}
	memcpy(buf, p, end - p);
	buf[end - p] = '\0';
	return true;
}

static bool parse_number(const char **p, uint64_t *out)
{
	char *end;

	if (**p < '0' || **p > '9')
		return false;
	errno = 0;
	*out = strtoull(*p, &end, 10);
	*p = end;
	return !errno;
}

/* "bytes 0-499/1234" */
static bool parse_range(const char *p, struct qc2_answer *ans)
{
	if (strncasecmp(p, "bytes ", 6))
		return false;
	p += 6;
	return parse_number(&p, &ans->first) && *p++ == '-' &&
	       parse_number(&p, &ans->last) && *p++ == '/' &&
	       parse_number(&p, &ans->total) && !*p &&
	       ans->first <= ans->last && ans->last < ans->total &&
	       ans->total <= INT64_MAX;
}

/*
 * libcurl is about to follow; it must be to what is judged here, so there is one target,
 * and one that can be read.
 */
static bool check_redirect(struct qc2_request *req)
{
	const struct qc2_store_config *cfg = req->cfg;
	char *target;

	if (req->answer.nr_locations != 1 || !req->answer.location[0]) {
		req->redirect_ret = qc2_fail(&req->redirect_err, EPROTO,
					     "the server redirects to no usable URL");
		return false;
	}
	req->redirect_ret = qc2_url_redirect(origin(req), req->answer.location, cfg->allow,
					     cfg->nr_allow, &target, &req->redirect_err);
	if (req->redirect_ret)
		return false;
	/* What is for one origin is not told another one, nor ever again. */
	if (req->bare_headers && !qc2_url_same_origin(req->target, target)) {
		curl_easy_setopt(req->easy, CURLOPT_HTTPHEADER, req->bare_headers);
		req->bare = true;
	}
	free(req->origin);
	req->origin = target;
	return true;
}

/*
 * Of an error only the code is shown, and only one of letters: its texts may repeat what
 * was sent, or a piece of it, with the keys, a token, or a proxy's password.
 */
static void set_code(struct qc2_answer *ans, const char *text, size_t len)
{
	static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

	if (len <= strspn(text, letters))
		qc2_printable(text, len, ans->code, sizeof(ans->code));
}

bool qc2_request_header(struct qc2_request *req, const char *line, size_t len)
{
	struct qc2_answer *ans = &req->answer;
	char value[256];
	const char *p;
	long status;

	if (!len)
		return true;
	/* A header can begin like that as well, and must not hide those in front of it. */
	if (!req->in_headers && len > 5 && !strncasecmp(line, "HTTP/", 5)) {
		memset(ans, 0, sizeof(*ans));
		ans->length = UINT64_MAX;
		req->in_headers = true;
		curl_easy_getinfo(req->easy, CURLINFO_RESPONSE_CODE, &ans->status);
	} else if (line[0] == '\r' || line[0] == '\n') {
		/* libcurl looks at no more of it, either. */
		req->in_headers = false;
	} else if (token_is(line, len, "Content-Range")) {
		ans->have_range = copy_value(line, len, value, sizeof(value)) &&
				  parse_range(value, ans);
	} else if (token_is(line, len, "Content-Length")) {
		p = value;
		if (!copy_value(line, len, value, sizeof(value)) ||
		    !parse_number(&p, &ans->length) || *p)
			ans->length = UINT64_MAX;
	} else if (token_is(line, len, "ETag")) {
		copy_value(line, len, ans->etag, sizeof(ans->etag));
	} else if (token_is(line, len, "Last-Modified")) {
		copy_value(line, len, ans->modified, sizeof(ans->modified));
	} else if (token_is(line, len, "Content-Encoding")) {
		ans->encoded = !copy_value(line, len, value, sizeof(value)) ||
			       strcasecmp(value, "identity");
	} else if (token_is(line, len, "Location")) {
		ans->nr_locations++;
		copy_value(line, len, ans->location, sizeof(ans->location));
		/* What libcurl has, and goes by. */
		curl_easy_getinfo(req->easy, CURLINFO_RESPONSE_CODE, &status);
		if (has_redirects(req) && status >= 300 && status < 400)
			return check_redirect(req);
	} else if (token_is(line, len, "Retry-After")) {
		copy_value(line, len, ans->retry_after, sizeof(ans->retry_after));
	} else if (token_is(line, len, "Date")) {
		if (copy_value(line, len, value, sizeof(value)))
			ans->date = curl_getdate(value, NULL);
		if (ans->date < 0)
			ans->date = 0;
	} else if (token_is(line, len, "x-amz-bucket-region")) {
		copy_value(line, len, ans->region, sizeof(ans->region));
	} else if (token_is(line, len, "x-ms-error-code")) {
		if (copy_value(line, len, value, sizeof(value)))
			set_code(ans, value, strlen(value));
	}
	return true;
}

bool qc2_request_text(struct qc2_request *req, const char *buf, size_t len, size_t max)
{
	size_t room = max - req->text_len, want;
	bool fits = len <= room;
	char *text;

	if (!fits)
		len = room;
	if (req->text_len + len > req->text_room) {
		want = 2 * req->text_room > req->text_len + len ? 2 * req->text_room :
		       req->text_len + len;
		text = realloc(req->text, want);
		if (!text)
			return false;
		req->text = text;
		req->text_room = want;
	}
	if (len)
		memcpy(req->text + req->text_len, buf, len);
	req->text_len += len;
	return fits;
}

int qc2_request_code(struct qc2_request *req, CURLcode code, char *what, size_t size)
{
	const char *text = req->errbuf[0] ? req->errbuf : curl_easy_strerror(code);

	/* The whole URL would follow, which may have a password. */
	if (!strncmp(text, "Unsupported proxy", 17))
		text = "the URL of the proxy cannot be understood";
	if (req->redirect_ret) {
		snprintf(what, size, "%s", req->redirect_err.msg);
		return req->redirect_ret;
	}
	/* There may be other addresses as well, but none of them works. */
	if (code == CURLE_COULDNT_CONNECT && req->local_what) {
		snprintf(what, size, "the name of the host leads to %s (%s); if it may, set allow_local_addresses = yes in section [store] of the configuration",
			 req->local, req->local_what);
		return -EACCES;
	}
	snprintf(what, size, "%s", text);
	switch (code) {
	case CURLE_ABORTED_BY_CALLBACK:
		snprintf(what, size, "canceled");
		return -ECANCELED;
	case CURLE_PEER_FAILED_VERIFICATION:
	case CURLE_SSL_CACERT_BADFILE:
	case CURLE_SSL_ISSUER_ERROR:
	case CURLE_SSL_INVALIDCERTSTATUS:
		snprintf(what, size, "the server's certificate is not trusted: %s", text);
		return -EACCES;
	case CURLE_TOO_MANY_REDIRECTS:
		snprintf(what, size, "the server redirects more than %ld times", MAX_REDIRECTS);
		return -EPROTO;
	case CURLE_URL_MALFORMAT:
	case CURLE_UNSUPPORTED_PROTOCOL:
		return -EINVAL;
	case CURLE_FILE_COULDNT_READ_FILE:
		return -EACCES;
	case CURLE_OUT_OF_MEMORY:
	case CURLE_COULDNT_RESOLVE_PROXY:
	case CURLE_COULDNT_RESOLVE_HOST:
	case CURLE_COULDNT_CONNECT:
	case CURLE_OPERATION_TIMEDOUT:
	case CURLE_SSL_CONNECT_ERROR:
	case CURLE_GOT_NOTHING:
	case CURLE_SEND_ERROR:
	case CURLE_SEND_FAIL_REWIND:
	case CURLE_RECV_ERROR:
	case CURLE_PARTIAL_FILE:
	case CURLE_READ_ERROR:
	case CURLE_HTTP2:
	case CURLE_HTTP2_STREAM:
		return -EAGAIN;
	default:
		return -EIO;
	}
}

/*
 * ---------------------------------------------------------------------------
 * Refusals
 * ---------------------------------------------------------------------------
 */

static int on_error_element(void *arg, const char *path, const char *text)
{
	struct qc2_answer *ans = arg;
	size_t line = strcspn(text, "\r\n");

	if (!strcmp(path, "Error/Code"))
		set_code(ans, text, line);
	else if (!strcmp(path, "Error/Region") && !ans->region[0])
		qc2_printable(text, line, ans->region, sizeof(ans->region));
	return 0;
}

static unsigned int parse_retry_after(const struct qc2_answer *ans)
{
	const char *p = ans->retry_after;
	uint64_t seconds;
	time_t until;

	if (!*p)
		return 0;
	if (!parse_number(&p, &seconds) || *p) {
		until = curl_getdate(ans->retry_after, NULL);
		seconds = ans->date ? ans->date : time(NULL);
		if (until < 0 || (uint64_t)until <= seconds)
			return 0;
		seconds = until - seconds;
	}
	return seconds < MAX_RETRY_AFTER_MS / 1000 ? seconds * 1000 : MAX_RETRY_AFTER_MS;
}

bool qc2_request_learn_clock(struct qc2_request *req)
{
	int64_t offset = req->answer.date - time(NULL);
	int64_t error = offset - req->clock_offset;

	if (!req->answer.date || (error < MIN_CLOCK_OFFSET && -error < MIN_CLOCK_OFFSET))
		return false;
	atomic_store(&req->site->clock_offset, offset);
	req->corrected = true;
	return true;
}

static bool is_writing(const struct qc2_request *req)
{
	return req->op->op == QC2_OP_PUT || req->op->op == QC2_OP_PART ||
	       req->op->op == QC2_OP_START || req->op->op == QC2_OP_COMPLETE;
}

static int judge_status(struct qc2_request *req, const char **text)
{
	long status = req->answer.status;

	switch (status) {
	case 401:
	case 403:
		*text = is_writing(req) ? "the server refuses to have it written" :
			"the server refuses access";
		return -EACCES;
	case 404:
	case 410:
		*text = "no such object";
		return -ENOENT;
	case 409:
	case 412:
		if (req->op->if_absent) {
			*text = "there is such an object already";
			return -EEXIST;
		}
		if (status == 409)
			break;
		*text = "the object changed since it was opened";
		return -ESTALE;
	case 405:
	case 501:
		if (!is_writing(req))
			break;
		*text = "the server takes no uploads by PUT";
		return -ENOTSUP;
	case 408:
	case 425:
	case 429:
		*text = "the server is busy";
		req->throttled = status == 429;
		return -EAGAIN;
	}
	if (status >= 300 && status < 400) {
		*text = "the server redirects elsewhere, which is not followed; use the final URL";
		return -EPROTO;
	}
	if (status >= 500 && status != 501 && status != 505) {
		*text = "server error";
		req->throttled = status == 503 && req->answer.retry_after[0];
		return -EAGAIN;
	}
	*text = "unexpected answer";
	return -EPROTO;
}

int qc2_request_refused(struct qc2_request *req, char *what, size_t size)
{
	struct qc2_answer *ans = &req->answer;
	const char *text;
	int ret;

	/* HTML, or cut short: whatever was understood counts. */
	if (req->text_len)
		qc2_xml_parse(req->text, req->text_len, on_error_element, ans);
	ret = judge_status(req, &text);
	ret = req->type->refused(req, ret);
	if (ret == -EAGAIN)
		req->retry_after_ms = parse_retry_after(ans);
	snprintf(what, size, "%s (status %ld%s%s)", text, ans->status,
		 ans->code[0] ? ", " : "", ans->code);
	return ret;
}
