/* SPDX-License-Identifier: GPL-2.0 */
/*
 * One ranged GET: options of the easy handle, and the checks on the answer.
 * No state is shared; a struct qc2_get belongs to the thread that runs its
 * easy handle.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>
#include <sys/stat.h>

#include "store.h"
#include "url.h"

/* A transfer slower than this many bytes a second counts as stalled. */
#define LOW_SPEED_LIMIT		256L
/* Idle connections older than this are not used again. */
#define MAX_IDLE_S		60L
/* The body of an error answer is read up to here to keep the connection. */
#define MAX_ERROR_BODY		65536

static const char modified_prefix[] = "Last-Modified ";

static bool has_modified_version(const struct qc2_get *get)
{
	return !strncmp(get->version, modified_prefix,
			strlen(modified_prefix));
}

__attribute__((format(printf, 3, 4)))
static int get_fail(struct qc2_get *get, int errnum, const char *fmt, ...)
{
	char what[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	return qc2_fail(&get->err, errnum, "%s: bytes %" PRIu64 "-%" PRIu64
			": %s", get->url, get->offset,
			get->offset + get->len - 1, what);
}

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
	if ((size_t)(end - p) >= size || memchr(p, '\0', end - p))
		return false;
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

static size_t on_header(char *line, size_t one, size_t len, void *arg)
{
	struct qc2_get *get = arg;
	struct qc2_answer *ans = &get->answer;
	char value[256];

	if (len > 5 && !strncasecmp(line, "HTTP/", 5)) {
		memset(ans, 0, sizeof(*ans));
	} else if (token_is(line, len, "Content-Range")) {
		ans->have_range = copy_value(line, len, value, sizeof(value)) &&
				  parse_range(value, ans);
	} else if (token_is(line, len, "ETag")) {
		if (!copy_value(line, len, ans->etag, sizeof(ans->etag)))
			ans->etag[0] = '\0';
	} else if (token_is(line, len, "Last-Modified")) {
		if (!copy_value(line, len, ans->modified,
				sizeof(ans->modified)))
			ans->modified[0] = '\0';
	} else if (token_is(line, len, "Content-Encoding")) {
		ans->encoded = !copy_value(line, len, value, sizeof(value)) ||
			       strcasecmp(value, "identity");
	}
	return len;
}

/* Compares with, or when opening takes, the version of an HTTP answer. */
static int judge_version(struct qc2_get *get)
{
	const struct qc2_answer *ans = &get->answer;
	int n;

	if (get->version ? !has_modified_version(get) : ans->etag[0] != '\0')
		n = asprintf(&get->seen_version, "%s", ans->etag);
	else if (ans->modified[0])
		n = asprintf(&get->seen_version, "%s%s", modified_prefix,
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

static int judge_status(struct qc2_get *get, long status)
{
	switch (status) {
	case 206:
		return 0;
	case 200:
		return get_fail(get, EPROTO,
				"the server ignored the range (status 200, not 206); a store must support range requests");
	case 401:
	case 403:
		return get_fail(get, EACCES,
				"the server refuses access (status %ld)",
				status);
	case 404:
	case 410:
		return get_fail(get, ENOENT, "no such object (status %ld)",
				status);
	case 412:
		return get_fail(get, ESTALE,
				"the object changed since it was opened (status 412)");
	case 416:
		if (!get->version)
			return get_fail(get, EINVAL,
					"the object is empty (status 416)");
		return get_fail(get, ESTALE,
				"the object became shorter since it was opened (status 416)");
	case 408:
	case 425:
	case 429:
		return get_fail(get, EAGAIN, "the server is busy (status %ld)",
				status);
	}
	if (status >= 300 && status < 400)
		return get_fail(get, EPROTO,
				"the server redirects elsewhere (status %ld), which is not followed; use the final URL",
				status);
	if (status >= 500)
		return get_fail(get, EAGAIN, "server error (status %ld)",
				status);
	return get_fail(get, EPROTO, "unexpected status %ld", status);
}

static int judge_http(struct qc2_get *get)
{
	const struct qc2_answer *ans = &get->answer;
	uint64_t last = get->offset + get->len - 1;
	long status = 0;
	int ret;

	curl_easy_getinfo(get->easy, CURLINFO_RESPONSE_CODE, &status);
	ret = judge_status(get, status);
	if (ret)
		return ret;
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

static size_t on_data(char *buf, size_t one, size_t len, void *arg)
{
	struct qc2_get *get = arg;

	judge(get);
	if (get->ret) {
		/* A long body is not worth the connection that it keeps. */
		if (get->answer.total || len > MAX_ERROR_BODY - get->got)
			return 0;
		get->got += len;
		return len;
	}
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

/* Size and modification time are the version of a file. */
static int file_version(struct qc2_get *get, char **version, uint64_t *size)
{
	struct stat st;

	*version = NULL;
	if (stat(get->path, &st))
		return qc2_fail(&get->err, errno, "%s: %s", get->url,
				strerror(errno));
	if (S_ISDIR(st.st_mode))
		return qc2_fail(&get->err, EISDIR,
				"%s: is a directory, not an image", get->url);
	if (!S_ISREG(st.st_mode))
		return qc2_fail(&get->err, EINVAL, "%s: is not a regular file",
				get->url);
	if (asprintf(version, "%jd-%jd.%09ld", (intmax_t)st.st_size,
		     (intmax_t)st.st_mtim.tv_sec, st.st_mtim.tv_nsec) < 0) {
		*version = NULL;
		return qc2_fail(&get->err, ENOMEM, "%s: out of memory",
				get->url);
	}
	*size = st.st_size;
	return 0;
}

static int check_file(struct qc2_get *get)
{
	uint64_t size;
	int ret;

	get->path = qc2_url_to_path(get->url);
	if (!get->path)
		return qc2_fail(&get->err, EINVAL, "%s: not a usable file URL",
				get->url);
	ret = file_version(get, &get->seen_version, &size);
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

/* Of a URL whose host is a name. */
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
	struct qc2_get *get = arg;
	const char *what = qc2_address_local(&addr->addr, get->local);
	/* IPv6 has it in the same place. */
	unsigned int port = ntohs(((struct sockaddr_in *)&addr->addr)->sin_port);

	if (what && port == url_port(get->url)) {
		get->local_what = what;
		return CURL_SOCKET_BAD;
	}
	return socket(addr->family, addr->socktype | SOCK_CLOEXEC, addr->protocol);
}

static int add_header(struct qc2_get *get, const char *name, const char *value)
{
	struct curl_slist *list;
	char *line;

	if (asprintf(&line, "%s: %s", name, value) < 0)
		return -ENOMEM;
	list = curl_slist_append(get->headers, line);
	free(line);
	if (!list)
		return -ENOMEM;
	get->headers = list;
	return 0;
}

static int add_condition(struct qc2_get *get)
{
	if (!get->version || get->path)
		return 0;
	if (has_modified_version(get))
		return add_header(get, "If-Unmodified-Since",
				  get->version + strlen(modified_prefix));
	if (get->version[0] == '"')	/* a weak ETag never matches */
		return add_header(get, "If-Match", get->version);
	return 0;
}

int qc2_get_prepare(struct qc2_get *get, CURL *easy,
		    const struct qc2_store_config *cfg, struct qc2_err *err)
{
	char range[64];
	int ret;

	get->easy = easy;
	if (!strncmp(get->url, "file:", 5)) {
		ret = check_file(get);
		if (ret)
			goto fail;
	}
	if (add_condition(get)) {
		ret = get_fail(get, ENOMEM, "out of memory");
		goto fail;
	}
	snprintf(range, sizeof(range), "%" PRIu64 "-%" PRIu64, get->offset,
		 get->offset + get->len - 1);

	curl_easy_setopt(easy, CURLOPT_URL, get->url);
	curl_easy_setopt(easy, CURLOPT_RANGE, range);
	curl_easy_setopt(easy, CURLOPT_HTTPHEADER, get->headers);
	curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
	curl_easy_setopt(easy, CURLOPT_HEADERDATA, get);
	curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_data);
	curl_easy_setopt(easy, CURLOPT_WRITEDATA, get);
	curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, get->errbuf);
	curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "file,http,https");
	curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
	curl_easy_setopt(easy, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
	curl_easy_setopt(easy, CURLOPT_USERAGENT, "qcow2chain/" QC2_VERSION);
	/* One request on a connection: no transfer waits behind another. */
	curl_easy_setopt(easy, CURLOPT_HTTP_VERSION,
			 (long)CURL_HTTP_VERSION_1_1);
	curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(easy, CURLOPT_MAXAGE_CONN, MAX_IDLE_S);
	curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT,
			 (long)cfg->connect_timeout_s);
	curl_easy_setopt(easy, CURLOPT_LOW_SPEED_LIMIT, LOW_SPEED_LIMIT);
	curl_easy_setopt(easy, CURLOPT_LOW_SPEED_TIME,
			 (long)cfg->low_speed_time_s);
	curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, 131072L);
	if (cfg->ca_file)
		curl_easy_setopt(easy, CURLOPT_CAINFO, cfg->ca_file);
	if (!cfg->allow_local_addresses && qc2_url_has_name(get->url)) {
		curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, open_socket);
		curl_easy_setopt(easy, CURLOPT_OPENSOCKETDATA, get);
	}
	return 0;
fail:
	if (err)
		*err = get->err;
	return ret;
}

static int finish_code(struct qc2_get *get, CURLcode code)
{
	const char *text = get->errbuf[0] ? get->errbuf :
					    curl_easy_strerror(code);

	/* There may be other addresses as well, but none of them works. */
	if (code == CURLE_COULDNT_CONNECT && get->local_what)
		return get_fail(get, EACCES,
				"the name of the host leads to %s (%s); if it may, set allow_local_addresses = yes in section [store] of the configuration",
				get->local, get->local_what);
	switch (code) {
	case CURLE_ABORTED_BY_CALLBACK:
		return get_fail(get, ECANCELED, "canceled");
	case CURLE_PEER_FAILED_VERIFICATION:
	case CURLE_SSL_CACERT_BADFILE:
	case CURLE_SSL_ISSUER_ERROR:
	case CURLE_SSL_INVALIDCERTSTATUS:
		return get_fail(get, EACCES,
				"the server's certificate is not trusted: %s",
				text);
	case CURLE_URL_MALFORMAT:
	case CURLE_UNSUPPORTED_PROTOCOL:
		return get_fail(get, EINVAL, "%s", text);
	case CURLE_FILE_COULDNT_READ_FILE:
		return get_fail(get, EACCES, "%s", text);
	case CURLE_OUT_OF_MEMORY:
	case CURLE_COULDNT_RESOLVE_PROXY:
	case CURLE_COULDNT_RESOLVE_HOST:
	case CURLE_COULDNT_CONNECT:
	case CURLE_OPERATION_TIMEDOUT:
	case CURLE_SSL_CONNECT_ERROR:
	case CURLE_GOT_NOTHING:
	case CURLE_SEND_ERROR:
	case CURLE_RECV_ERROR:
	case CURLE_PARTIAL_FILE:
	case CURLE_READ_ERROR:
		return get_fail(get, EAGAIN, "%s", text);
	default:
		return get_fail(get, EIO, "%s", text);
	}
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
		get->ret = file_version(get, &version, &size);
		if (!get->ret && strcmp(version, get->seen_version))
			get->ret = get_fail(get, ESTALE,
					    "the file changed while it was read");
		free(version);
	}
	if (!get->ret && get->got != get->len)
		get->ret = get_fail(get, EAGAIN,
				    "the answer ended after %" PRIu64 " bytes",
				    get->got);
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
	curl_slist_free_all(get->headers);
	get->headers = NULL;
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
