/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What stores mean by their answers, and the operations on objects: against a server whose
 * answers are made by hand.
 */
#include <errno.h>
#include <sys/stat.h>
#include <time.h>

#include "retry_budget.h"
#include "server.h"
#include "store.h"
#include "store_ops.h"
#include "url.h"

#define SECRET		"s3cretOfTheTests"
#define TOKEN		"t0kenOfTheTests"
#define AZURE_KEY	"c2VjcmV0"

#define GOOD	"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-7/8\r\n" \
		"ETag: \"v1\"\r\nContent-Length: 8\r\n\r\n01234567"

/* A store that is configured by a stores file. */
struct fixture {
	struct qc2_store_config cfg;
	struct server server, other;
	char path[64];
};

/* Keys are those of the file from the start. */
static void have_keys(struct fixture *f, const char *url)
{
	struct qc2_err err;

	assert_ok(qc2_credentials_refresh(qc2_sites_find(f->cfg.sites, url)->creds, &err), err);
}

static void configure(struct fixture *f, const char *section, const char *keys, ...)
{
	FILE *file;
	va_list ap;
	struct qc2_err err;

	f->cfg = (struct qc2_store_config){ .connect_timeout_s = 10, .low_speed_time_s = 10 };
	strcpy(f->path, "/tmp/test_store_ops.XXXXXX");
	file = fdopen(mkstemp(f->path), "w");
	fprintf(file, "[%s]\n", section);
	va_start(ap, keys);
	vfprintf(file, keys, ap);
	va_end(ap);
	fclose(file);
	assert_ok(qc2_sites_load(f->path, &f->cfg.sites, &err), err);
	unlink(f->path);
}

/* s3://bucket/ with keys, at the server. */
static void configure_s3(struct fixture *f)
{
	configure(f, "s3://bucket/",
		  "endpoint = %.*s\naccess_key = AKIDTEST\nsecret_key = " SECRET "\n",
		  (int)strlen(f->server.url) - 6, f->server.url);
	have_keys(f, "s3://bucket/");
}

static void configure_azure(struct fixture *f)
{
	configure(f, "azure://account/", "endpoint = %.*s\naccount_key = " AZURE_KEY "\n",
		  (int)strlen(f->server.url) - 6, f->server.url);
	have_keys(f, "azure://account/");
}

static void finish(struct fixture *f)
{
	qc2_sites_free(f->cfg.sites);
	server_stop(&f->server);
}

/* An answer that says when it was made. */
static char *answer(const char *status, const char *headers, const char *body)
{
	char *text, date[64];
	time_t now = time(NULL);
	struct tm tm;

	strftime(date, sizeof(date), "%a, %d %b %Y %H:%M:%S GMT", gmtime_r(&now, &tm));
	assert_true(asprintf(&text, "HTTP/1.1 %s\r\nDate: %s\r\n%sContent-Length: %zu\r\n\r\n%s",
			     status, date, headers, strlen(body), body) > 0);
	return text;
}

static char *error(const char *status, const char *headers, const char *code)
{
	char body[512];

	/* As Amazon's, which repeat much of the request. */
	snprintf(body, sizeof(body),
		 "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>%s</Code><Message>What is wrong</Message><AWSAccessKeyId>AKIDTEST</AWSAccessKeyId><StringToSign>AWS4 " SECRET "</StringToSign></Error>",
		 code);
	return answer(status, headers, body);
}

/* One GET of the first 8 bytes; the caller looks at the outcome and cleans it up. */
static int no_data(void *arg, const void *buf, size_t len)
{
	return 0;
}

static int get_once(struct fixture *f, struct qc2_get *get, const char *url,
		    struct qc2_err *err)
{
	CURL *easy = curl_easy_init();
	int ret;

	*get = (struct qc2_get){ .url = url, .len = 8, .data = no_data };
	ret = qc2_get_prepare(get, easy, &f->cfg, err);
	if (!ret)
		ret = qc2_get_finish(get, curl_easy_perform(easy), err);
	curl_easy_cleanup(easy);
	qc2_get_cleanup(get);
	return ret;
}

/* The synchronous reader goes on after whatever can be mended. */
static int open_object(struct fixture *f, const char *url, struct qc2_err *err)
{
	struct qc2_store *store = qc2_store_new(&f->cfg);
	struct qc2_opener *opener = qc2_store_opener(store);
	struct qc2_source *src;
	int ret;

	ret = opener->open_head(opener, url, 8, &src, err);
	if (!ret)
		src->ops->close(src);
	qc2_store_free(store);
	return ret;
}

/*
 * ---------------------------------------------------------------------------
 * Refusals
 * ---------------------------------------------------------------------------
 */

static void test_refusals(void **state)
{
	static const struct {
		const char *status, *code;
		int ret;
		bool throttled;
	} cases[] = {
		{ "403 Forbidden", "AccessDenied", -EACCES, false },
		{ "403 Forbidden", "SignatureDoesNotMatch", -EACCES, false },
		{ "404 Not Found", "NoSuchKey", -ENOENT, false },
		{ "412 Precondition Failed", "PreconditionFailed", -ESTALE, false },
		{ "400 Bad Request", "InvalidArgument", -EPROTO, false },
		{ "400 Bad Request", "RequestTimeout", -EAGAIN, false },
		{ "500 Internal Server Error", "InternalError", -EAGAIN, false },
		{ "503 Slow Down", "SlowDown", -EAGAIN, true },
		{ "429 Too Many Requests", "TooManyRequests", -EAGAIN, true },
		{ "302 Found", "Elsewhere", -EPROTO, false },
	};
	struct qc2_err err;
	struct qc2_get get;
	struct fixture f;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char *text = error(cases[i].status, "", cases[i].code);
		const char *const answers[] = { text, NULL };

		server_start(&f.server, answers);
		configure_s3(&f);
		assert_int_equal(get_once(&f, &get, "s3://bucket/a", &err), cases[i].ret);
		assert_in(err.msg, "s3://bucket/a");
		assert_in(err.msg, cases[i].code);
		assert_not_in(err.msg, "What is wrong");
		assert_not_in(err.msg, SECRET);
		assert_not_in(err.msg, "AKIDTEST");
		assert_int_equal(get.throttled, cases[i].throttled);
		assert_false(get.corrected || get.needs_keys || get.retry_after_ms);
		finish(&f);
		free(text);
	}
}

/* libcurl shows the URL of a proxy that it cannot read. */
static void test_proxy_is_not_shown(void **state)
{
	static const char *const nothing[] = { NULL };
	struct qc2_err err;
	struct qc2_get get;
	struct fixture f;

	server_start(&f.server, nothing);
	configure(&f, "http://127.0.0.1/", "proxy = http://user:" SECRET "/x@127.0.0.1:1\n");
	assert_true(get_once(&f, &get, "http://127.0.0.1/a", &err) < 0);
	assert_in(err.msg, "proxy");
	assert_not_in(err.msg, SECRET);
	finish(&f);
}

/* A store may repeat a secret in what is shown as well. */
static void test_secret_is_not_repeated(void **state)
{
	char *text = error("403 Forbidden", "", "Bad" SECRET);
	char *http = answer("403 Forbidden", "", "<Error><Code>X</Code><Message>you said "
			    TOKEN "</Message></Error>");
	char *azure = answer("403 Forbidden", "x-ms-error-code: Bad" SECRET "\r\n", "");
	const char *const answers[] = { text, http, azure, NULL };
	struct qc2_err err;
	struct qc2_get get;
	struct fixture f;
	char header[] = "/tmp/test_store_ops.h.XXXXXX";
	int fd = mkstemp(header);

	server_start(&f.server, answers);
	configure_s3(&f);
	assert_int_equal(get_once(&f, &get, "s3://bucket/a", &err), -EACCES);
	assert_in(err.msg, "status 403");
	assert_not_in(err.msg, SECRET);
	qc2_sites_free(f.cfg.sites);

	assert_true(dprintf(fd, "X-Key: " TOKEN "\n") > 0);
	close(fd);
	configure(&f, strndupa(f.server.url, strlen(f.server.url) - 5), "header_file = %s\n",
		  header);
	assert_int_equal(get_once(&f, &get, f.server.url, &err), -EAGAIN);
	assert_true(get.needs_keys);
	assert_ok(qc2_credentials_refresh(get.site->creds, &err), err);
	assert_int_equal(get_once(&f, &get, f.server.url, &err), -EACCES);
	assert_in(err.msg, "status 403");
	assert_not_in(err.msg, TOKEN);
	qc2_sites_free(f.cfg.sites);
	configure_azure(&f);
	assert_int_equal(get_once(&f, &get, "azure://account/c/a", &err), -EACCES);
	assert_not_in(err.msg, SECRET);
	finish(&f);
	assert_in(f.server.requests[1], "X-Key: " TOKEN "\r\n");
	unlink(header);
	free(azure);
	free(text);
	free(http);
}

static void test_retry_after(void **state)
{
	static const struct {
		const char *header;
		unsigned int least, most;
	} cases[] = {
		{ "Retry-After: 7\r\n", 7000, 7000 },
		{ "Retry-After: 100000\r\n", 60000, 60000 },
		{ "Retry-After: 18446744073709551616\r\n", 0, 0 },
		{ "Retry-After: Fri, 01 Jan 2100 00:00:00 GMT\r\n", 60000, 60000 },
		{ "Retry-After: Fri, 01 Jan 2010 00:00:00 GMT\r\n", 0, 0 },
		{ "Retry-After: soon\r\n", 0, 0 },
		{ "Retry-After: \r\n", 0, 0 },
	};
	struct qc2_err err;
	struct qc2_get get;
	struct fixture f;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char *text = answer("503 Service Unavailable", cases[i].header, "");
		const char *const answers[] = { text, NULL };

		server_start(&f.server, answers);
		f.cfg = (struct qc2_store_config){
			.connect_timeout_s = 10, .low_speed_time_s = 10,
		};
		assert_int_equal(get_once(&f, &get, f.server.url, &err), -EAGAIN);
		assert_in_range(get.retry_after_ms, cases[i].least, cases[i].most);
		finish(&f);
		free(text);
	}
}

static void test_expired_keys(void **state)
{
	char *expired = error("400 Bad Request", "", "ExpiredToken");
	const char *const answers[] = { expired, expired, expired, NULL };
	struct qc2_err err;
	struct qc2_get get;
	struct fixture f;

	server_start(&f.server, answers);
	configure_s3(&f);
	assert_int_equal(get_once(&f, &get, "s3://bucket/a", &err), -EAGAIN);
	assert_true(get.needs_keys);
	assert_in(err.msg, "ExpiredToken");
	/* Keys that were rejected are not used again, and the file has no others. */
	assert_int_equal(get_once(&f, &get, "s3://bucket/a", &err), -EAGAIN);
	assert_true(get.needs_keys);
	assert_int_equal(open_object(&f, "s3://bucket/a", &err), -EACCES);
	assert_in(err.msg, "s3://bucket/a");
	finish(&f);
	assert_int_equal(f.server.nr_requests, 1);
	free(expired);
}

static void test_renewed_keys(void **state)
{
	char *expired = error("403 Forbidden", "", "ExpiredToken");
	const char *const answers[] = { expired, GOOD, NULL };
	char script[] = "/tmp/test_store_ops.s.XXXXXX";
	int fd = mkstemp(script);
	struct qc2_err err;
	struct fixture f;

	/* Other keys each time it is asked. */
	assert_true(dprintf(fd, "#!/bin/sh\necho x >> %s.n\nprintf '{\"Version\": 1, \"AccessKeyId\": \"AKID%%s\", \"SecretAccessKey\": \"" SECRET "\", \"SessionToken\": \"" TOKEN "\"}' $(wc -l < %s.n)\n",
			    script, script) > 0);
	close(fd);
	chmod(script, 0700);
	server_start(&f.server, answers);
	configure(&f, "s3://bucket/", "endpoint = %.*s\ncredentials = process\nprocess = %s\n",
		  (int)strlen(f.server.url) - 6, f.server.url, script);
	assert_ok(open_object(&f, "s3://bucket/a", &err), err);
	finish(&f);
	assert_int_equal(f.server.nr_requests, 2);
	assert_in(f.server.requests[0], "Credential=AKID1/");
	assert_in(f.server.requests[0], "x-amz-security-token: " TOKEN "\r\n");
	assert_in(f.server.requests[1], "Credential=AKID2/");
	unlink(script);
	strcat(strcpy(f.path, script), ".n");
	unlink(f.path);
	free(expired);
}

/* As get_once(), but the site is corrected while the request is under way. */
static int late_once(struct fixture *f, struct qc2_get *get, const char *url,
		     struct qc2_err *err)
{
	struct qc2_site *site = qc2_sites_find(f->cfg.sites, url);
	int64_t right = site->clock_offset;
	CURL *easy = curl_easy_init();
	int ret;

	site->clock_offset = 5000;
	*get = (struct qc2_get){ .url = url, .len = 8, .data = no_data };
	assert_int_equal(qc2_get_prepare(get, easy, &f->cfg, err), 0);
	site->clock_offset = right;
	ret = qc2_get_finish(get, curl_easy_perform(easy), err);
	curl_easy_cleanup(easy);
	qc2_get_cleanup(get);
	return ret;
}

/* Our clock is that of the fixture's site; the server's is right. */
static void check_clock(struct fixture *f, const char *url)
{
	struct qc2_site *site = qc2_sites_find(f->cfg.sites, url);
	struct qc2_err err;
	struct qc2_get get;

	site->clock_offset = 5000;
	assert_int_equal(get_once(f, &get, url, &err), -EAGAIN);
	assert_true(get.corrected);
	assert_in_range(site->clock_offset + 10, 5, 15);
	assert_int_equal(get_once(f, &get, url, &err), 0);
	/* One that was signed before the clock was corrected by another one. */
	assert_int_equal(late_once(f, &get, url, &err), -EAGAIN);
	assert_true(get.corrected);
	/* The clock is right, so it must be something else. */
	assert_int_equal(get_once(f, &get, url, &err), -EACCES);
	assert_false(get.corrected);
}

static void test_clock(void **state)
{
	char *s3 = error("403 Forbidden", "", "RequestTimeTooSkewed");
	char *azure = error("403 Forbidden", "", "AuthenticationFailed");
	char *none = answer("403 Forbidden", "", "");
	const char *const none_answers[] = { none, NULL };
	const char *const s3_answers[] = { s3, GOOD, s3, s3, NULL };
	const char *const azure_answers[] = { azure, GOOD, azure, azure, NULL };
	struct qc2_err err;
	struct qc2_get get;
	struct fixture f;

	server_start(&f.server, s3_answers);
	configure_s3(&f);
	check_clock(&f, "s3://bucket/a");
	finish(&f);
	server_start(&f.server, azure_answers);
	configure_azure(&f);
	check_clock(&f, "azure://account/c/a");
	finish(&f);
	/* What is not signed has no time that could be wrong. */
	server_start(&f.server, none_answers);
	configure(&f, "s3://bucket/", "endpoint = %.*s\ncredentials = anonymous\n",
		  (int)strlen(f.server.url) - 6, f.server.url);
	qc2_sites_find(f.cfg.sites, "s3://bucket/a")->clock_offset = 5000;
	assert_int_equal(get_once(&f, &get, "s3://bucket/a", &err), -EACCES);
	finish(&f);
	free(none);
	free(s3);
	free(azure);
}

static void test_region(void **state)
{
	char *redirect = error("301 Moved Permanently", "x-amz-bucket-region: eu-west-7\r\nLocation: http://127.0.0.1:1/\r\n",
			       "PermanentRedirect");
	char *malformed = answer("400 Bad Request", "",
				 "<Error><Code>AuthorizationHeaderMalformed</Code><Region>ap-x-1</Region></Error>");
	const char *const answers[] = { redirect, GOOD, malformed, GOOD, redirect, redirect,
					NULL };
	struct qc2_err err;
	struct qc2_get get;
	struct fixture f;

	server_start(&f.server, answers);
	configure_s3(&f);
	assert_ok(open_object(&f, "s3://bucket/a", &err), err);
	assert_ok(open_object(&f, "s3://bucket/a", &err), err);
	assert_int_equal(get_once(&f, &get, "s3://bucket/a", &err), -EAGAIN);
	assert_true(get.corrected);
	/* The region is the one it wants already. */
	assert_int_equal(get_once(&f, &get, "s3://bucket/a", &err), -EPROTO);
	assert_false(get.corrected);
	finish(&f);
	assert_in(f.server.requests[0], "/us-east-1/s3/aws4_request");
	assert_in(f.server.requests[1], "/eu-west-7/s3/aws4_request");
	assert_in(f.server.requests[3], "/ap-x-1/s3/aws4_request");
	assert_in(f.server.requests[4], "/ap-x-1/s3/aws4_request");
	free(redirect);
	free(malformed);
}

/*
 * ---------------------------------------------------------------------------
 * Where requests go
 * ---------------------------------------------------------------------------
 */

static void target_is(const char *section, const char *keys, const char *region,
		      const struct qc2_operation *op, const char *target, const char *host)
{
	struct qc2_request req = { .op = NULL };
	struct curl_slist *item;
	struct qc2_err err;
	struct fixture f;

	configure(&f, section, "%s", keys);
	have_keys(&f, op->url);
	if (region)
		qc2_site_learn_region(qc2_sites_find(f.cfg.sites, op->url), op->url, region);
	assert_ok(qc2_request_make(&req, op, &f.cfg, &err), err);
	assert_string_equal(req.target, target);
	for (item = req.headers; item; item = item->next)
		if (host && !strncmp(item->data, "Host: ", 6))
			assert_string_equal(item->data + 6, host);
	qc2_request_free(&req);
	qc2_sites_free(f.cfg.sites);
}

#define KEYS	"access_key = AKIDTEST\nsecret_key = " SECRET "\n"

static void test_targets(void **state)
{
	struct qc2_operation op = {
		.op = QC2_OP_GET, .url = "s3://bucket/d/a%20b$", .len = 1,
	};

	target_is("s3://bucket/", KEYS "region = eu-west-1\n", NULL, &op,
		  "https://bucket.s3.eu-west-1.amazonaws.com/d/a%20b%24",
		  "bucket.s3.eu-west-1.amazonaws.com");
	target_is("s3://bucket/", KEYS "region = eu-west-1\n", "us-west-2", &op,
		  "https://bucket.s3.us-west-2.amazonaws.com/d/a%20b%24",
		  "bucket.s3.us-west-2.amazonaws.com");
	target_is("s3://bucket/", KEYS "region = cn-north-1\n", NULL, &op,
		  "https://bucket.s3.cn-north-1.amazonaws.com.cn/d/a%20b%24",
		  "bucket.s3.cn-north-1.amazonaws.com.cn");
	target_is("s3://bucket/", KEYS "region = eu-west-1\nstyle = path\n", NULL, &op,
		  "https://s3.eu-west-1.amazonaws.com/bucket/d/a%20b%24",
		  "s3.eu-west-1.amazonaws.com");
	target_is("s3://bucket/", KEYS "endpoint = http://h:8080\nstyle = virtual\n", NULL, &op,
		  "http://bucket.h:8080/d/a%20b%24", "bucket.h:8080");
	/* No certificate is for it. */
	op.url = "s3://my.bucket/a";
	target_is("s3://my.bucket/", KEYS "region = eu-west-1\n", NULL, &op,
		  "https://s3.eu-west-1.amazonaws.com/my.bucket/a", "s3.eu-west-1.amazonaws.com");
	op = (struct qc2_operation){ .op = QC2_OP_LIST, .url = "s3://bucket/" };
	target_is("s3://bucket/", KEYS "region = eu-west-1\n", NULL, &op,
		  "https://bucket.s3.eu-west-1.amazonaws.com/?list-type=2&prefix=",
		  "bucket.s3.eu-west-1.amazonaws.com");

	op = (struct qc2_operation){ .op = QC2_OP_GET, .url = "azure://account/$web/a+b", .len = 1 };
	target_is("azure://account/", "account_key = " AZURE_KEY "\n", NULL, &op,
		  "https://account.blob.core.windows.net/%24web/a%2Bb", NULL);
	target_is("azure://account/", "sas = ?sv=1&sig=x%2F\n", NULL, &op,
		  "https://account.blob.core.windows.net/%24web/a%2Bb?sv=1&sig=x%2F", NULL);
	target_is("azure://account/", "sas = sv=1&sig=x\nendpoint = https://h:1\n", NULL, &op,
		  "https://h:1/account/%24web/a%2Bb?sv=1&sig=x", NULL);
	op = (struct qc2_operation){ .op = QC2_OP_PART, .url = "azure://account/c/a",
				     .upload = "u", .part = 1 };
	target_is("azure://account/", "sas = sv=1&sig=x\n", NULL, &op,
		  "https://account.blob.core.windows.net/c/a?comp=block&blockid=dS0wMDAwMDAwMQ%3D%3D&sv=1&sig=x",
		  NULL);
}

/*
 * ---------------------------------------------------------------------------
 * Redirects of web servers
 * ---------------------------------------------------------------------------
 */

static void test_redirects(void **state)
{
	char *relative = answer("302 Found", "Location: /b\r\n", "elsewhere");
	char *twice = answer("302 Found", "Location: /b\r\nLocation: /c\r\n", "");
	char *long_text = calloc(1, 5100), *long_one;
	const char *answers[] = { relative, relative, GOOD, relative, relative, relative,
				  relative, twice, NULL, NULL };
	struct qc2_err err;
	struct qc2_get get;
	struct fixture f;

	memset(strcpy(long_text, "Location: /") + 11, 'a', 5000);
	strcat(long_text, "\r\n");
	long_one = answer("302 Found", long_text, "");
	answers[8] = long_one;
	server_start(&f.server, answers);
	f.cfg = (struct qc2_store_config){ .connect_timeout_s = 10, .low_speed_time_s = 10 };
	assert_int_equal(get_once(&f, &get, f.server.url, &err), 0);
	assert_int_equal(get_once(&f, &get, f.server.url, &err), -EPROTO);
	assert_in(err.msg, "more than 3 times");
	/* libcurl might take another target than is judged. */
	assert_int_equal(get_once(&f, &get, f.server.url, &err), -EPROTO);
	assert_in(err.msg, "no usable URL");
	assert_int_equal(get_once(&f, &get, f.server.url, &err), -EPROTO);
	assert_in(err.msg, "no usable URL");
	server_stop(&f.server);
	assert_int_equal(f.server.nr_requests, 9);
	free(twice);
	free(long_text);
	free(long_one);
	assert_in(f.server.requests[2], "GET /b HTTP");
	assert_in(f.server.requests[2], "Range: bytes=0-7\r\n");
	free(relative);
}

static void test_redirect_elsewhere(void **state)
{
	static const char *const good[] = {
		GOOD, "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n", NULL
	};
	char *first, *hidden, *odd, header[] = "/tmp/test_store_ops.h.XXXXXX";
	char location[160], prefix[64];
	const char *answers[6] = { NULL };
	const char *const allow[] = { prefix };
	struct qc2_err err;
	struct qc2_get get;
	struct fixture f;
	int fd;

	server_start(&f.other, good);
	snprintf(location, sizeof(location), "Location: %s?sig=" SECRET "\r\n", f.other.url);
	snprintf(prefix, sizeof(prefix), "%.*s", (int)strlen(f.other.url) - 5, f.other.url);
	first = answer("307 Temporary Redirect", location, "");
	/* A header that looks like the status line of another answer hides nothing. */
	strcat(location, "HTTP/1.1 200: OK\r\n");
	hidden = answer("307 Temporary Redirect", location, "");
	answers[0] = hidden;
	/* What libcurl takes for the empty line. */
	assert_true(asprintf(&odd, "HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: %s?sig="
			     SECRET "\r\n\r.\n", f.other.url) > 0);
	answers[1] = odd;
	for (size_t i = 2; i < 5; i++)
		answers[i] = first;
	server_start(&f.server, answers);
	fd = mkstemp(header);
	assert_true(dprintf(fd, "X-Key: " TOKEN "\n") > 0);
	close(fd);
	configure(&f, strndupa(f.server.url, strlen(f.server.url) - 5), "header_file = %s\n",
		  header);
	have_keys(&f, f.server.url);
	/* Another port is another origin. */
	for (int i = 0; i < 3; i++) {
		assert_int_equal(get_once(&f, &get, f.server.url, &err), -EACCES);
		assert_in(err.msg, prefix);
		assert_in(err.msg, "\"allow\"");
		assert_not_in(err.msg, SECRET);
	}
	f.cfg.allow = allow;
	f.cfg.nr_allow = 1;
	assert_int_equal(get_once(&f, &get, f.server.url, &err), 0);
	/* The other one does not know the key, so it cannot say that it is bad. */
	assert_int_equal(get_once(&f, &get, f.server.url, &err), -EACCES);
	assert_false(get.needs_keys);
	server_stop(&f.other);
	finish(&f);
	assert_in(f.server.requests[0], "X-Key: " TOKEN "\r\n");
	assert_in(f.server.requests[1], "X-Key: " TOKEN "\r\n");
	assert_int_equal(f.other.nr_requests, 2);
	assert_in(f.other.requests[0], "GET /image?sig=" SECRET " HTTP");
	assert_in(f.other.requests[0], "Range: bytes=0-7\r\n");
	assert_not_in(f.other.requests[0], TOKEN);
	unlink(header);
	free(odd);
	free(hidden);
	free(first);
}

/*
 * ---------------------------------------------------------------------------
 * Operations
 * ---------------------------------------------------------------------------
 */

static void test_head(void **state)
{
	static const char *const answers[] = {
		"HTTP/1.1 200 OK\r\nContent-Length: 12345678901\r\nETag: \"v1\"\r\n\r\n",
		"HTTP/1.1 404 Not Found\r\nContent-Length: 10\r\n\r\n",
		"HTTP/1.1 200 OK\r\nETag: \"v1\"\r\n\r\n",
		NULL
	};
	struct qc2_err err;
	struct fixture f;
	char *version;
	uint64_t size;

	server_start(&f.server, answers);
	configure_s3(&f);
	assert_ok(qc2_head(&f.cfg, "s3://bucket/a", &size, &version, &err), err);
	assert_int_equal(size, 12345678901);
	assert_string_equal(version, "\"v1\"");
	free(version);
	assert_int_equal(qc2_head(&f.cfg, "s3://bucket/a", &size, &version, &err), -ENOENT);
	assert_int_equal(qc2_head(&f.cfg, "s3://bucket/a", &size, &version, &err), -EPROTO);
	finish(&f);
	assert_in(f.server.requests[0], "HEAD /bucket/a HTTP");
}

/* HEAD alone would not tell that the clock is wrong. */
static void test_head_asks_why(void **state)
{
	char *skewed = error("403 Forbidden", "", "RequestTimeTooSkewed");
	const char *const answers[] = {
		"HTTP/1.1 403 Forbidden\r\nContent-Length: 100\r\n\r\n", skewed,
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nETag: \"v1\"\r\n\r\n",
		"HTTP/1.1 403 Forbidden\r\nContent-Length: 100\r\n\r\n", GOOD,
		NULL
	};
	struct qc2_err err;
	struct fixture f;
	char *version;
	uint64_t size;

	server_start(&f.server, answers);
	configure_s3(&f);
	qc2_sites_find(f.cfg.sites, "s3://bucket/a")->clock_offset = -5000;
	assert_ok(qc2_head(&f.cfg, "s3://bucket/a", &size, &version, &err), err);
	assert_int_equal(size, 5);
	free(version);
	assert_int_equal(qc2_head(&f.cfg, "s3://bucket/a", &size, &version, &err), -EACCES);
	finish(&f);
	assert_int_equal(f.server.nr_requests, 5);
	free(skewed);
}

static int to_text(void *arg, const char *url, uint64_t size)
{
	char *text = arg;

	sprintf(text + strlen(text), "%llu %s\n", (unsigned long long)size, url);
	return 0;
}

static void test_list(void **state)
{
	char *first = answer("200 OK", "", "<?xml version=\"1.0\"?><ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Name>bucket</Name><NextContinuationToken>a+/=&amp;</NextContinuationToken><Contents><Key>d/a b</Key><Size>1</Size></Contents><Contents><Key>d/../x</Key><Size>2</Size></Contents></ListBucketResult>");
	char *second = answer("200 OK", "", "<ListBucketResult><Contents><Size>3</Size><Key>d/&#xfc;</Key></Contents><Contents><Key>d/folder/</Key></Contents></ListBucketResult>");
	char *cut = answer("200 OK", "", "<ListBucketResult><Contents><Size>3</Size>");
	char *bomb = answer("200 OK", "", "<!DOCTYPE x [<!ENTITY a \"a\">]><ListBucketResult></ListBucketResult>");
	const char *const answers[] = { first, second, cut, bomb, NULL };
	char text[512] = "";
	struct qc2_err err;
	struct fixture f;

	server_start(&f.server, answers);
	configure_s3(&f);
	assert_ok(qc2_list(&f.cfg, "s3://bucket/d/", to_text, text, &err), err);
	assert_string_equal(text, "1 s3://bucket/d/a%20b\n3 s3://bucket/d/%C3%BC\n");
	assert_int_equal(qc2_list(&f.cfg, "s3://bucket/d/", to_text, text, &err), -EPROTO);
	assert_in(err.msg, "s3://bucket/d/");
	assert_int_equal(qc2_list(&f.cfg, "s3://bucket/d/", to_text, text, &err), -EPROTO);
	assert_int_equal(qc2_list(&f.cfg, "http://h/d/", to_text, text, &err), -ENOTSUP);
	finish(&f);
	assert_in(f.server.requests[0], "GET /bucket?list-type=2&prefix=d%2F HTTP");
	assert_in(f.server.requests[1],
		  "GET /bucket?continuation-token=a%2B%2F%3D%26&list-type=2&prefix=d%2F HTTP");
	free(first);
	free(second);
	free(cut);
	free(bomb);
}

static void test_list_azure(void **state)
{
	char *first = answer("200 OK", "", "\357\273\277<?xml version=\"1.0\" encoding=\"utf-8\"?><EnumerationResults><Blobs><Blob><Name>d/a</Name><Properties><Content-Length>7</Content-Length></Properties></Blob></Blobs><NextMarker>m!</NextMarker></EnumerationResults>");
	char *second = answer("200 OK", "", "<EnumerationResults><Blobs/><NextMarker/></EnumerationResults>");
	const char *const answers[] = { first, second, NULL };
	char text[512] = "";
	struct qc2_err err;
	struct fixture f;

	server_start(&f.server, answers);
	configure_azure(&f);
	assert_ok(qc2_list(&f.cfg, "azure://account/c/d/", to_text, text, &err), err);
	assert_string_equal(text, "7 azure://account/c/d/a\n");
	assert_int_equal(qc2_list(&f.cfg, "azure://account/", to_text, text, &err), -EINVAL);
	assert_in(err.msg, "container");
	finish(&f);
	assert_in(f.server.requests[0],
		  "GET /account/c?restype=container&comp=list&prefix=d%2F HTTP");
	assert_in(f.server.requests[1], "&marker=m%21 HTTP");
	free(first);
	free(second);
}

#define BUSY	"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n"
#define EXISTS	"HTTP/1.1 412 Precondition Failed\r\nContent-Length: 0\r\n\r\n"

static void test_put(void **state)
{
	static const char *const answers[] = {
		BUSY, "HTTP/1.1 200 OK\r\nETag: \"v1\"\r\nContent-Length: 0\r\n\r\n",
		EXISTS,
		/* We wrote it the first time, but did not get to know. */
		"", EXISTS, GOOD,
		/* Somebody else did. */
		"", EXISTS,
		"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-7/8\r\nETag: \"v2\"\r\nContent-Length: 8\r\n\r\nabcdefgh",
		/* Nobody tells. */
		"", EXISTS, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
		NULL
	};
	const struct qc2_put_if absent = { .absent = true };
	const struct qc2_put_if weak = { .version = "W/\"v1\"" };
	struct qc2_err err;
	struct fixture f;
	char *version;

	server_start(&f.server, answers);
	configure_s3(&f);
	/* Not without any condition. */
	assert_int_equal(qc2_put(&f.cfg, "s3://bucket/a", "01234567", 8, &weak, NULL, &err),
			 -ENOTSUP);
	assert_ok(qc2_put(&f.cfg, "s3://bucket/a", "01234567", 8, NULL, &version, &err), err);
	assert_string_equal(version, "\"v1\"");
	free(version);
	assert_int_equal(qc2_put(&f.cfg, "s3://bucket/a", "01234567", 8, &absent, NULL, &err),
			 -EEXIST);
	assert_ok(qc2_put(&f.cfg, "s3://bucket/a", "01234567", 8, &absent, &version, &err), err);
	assert_string_equal(version, "\"v1\"");
	free(version);
	for (int i = 0; i < 2; i++)
		assert_int_equal(qc2_put(&f.cfg, "s3://bucket/a", "01234567", 8, &absent, NULL,
					 &err), -EEXIST);
	finish(&f);
	assert_in(f.server.requests[1], "PUT /bucket/a HTTP");
	assert_in(f.server.requests[1], "Content-Length: 8\r\n");
	assert_in(f.server.requests[1], "\r\n\r\n01234567");
	/* SHA-256 of the body */
	assert_in(f.server.requests[1], "x-amz-content-sha256: 924592b9b103f14f833faafb67f480691f01988aa457c0061769f58cd47311bc\r\n");
	assert_in(f.server.requests[2], "If-None-Match: *\r\n");
}

#define DONE	"HTTP/1.1 200 OK\r\nETag: \"v1\"\r\nContent-Length: 0\r\n\r\n"

/* Over one connection, without second tries, and to an end when that is wanted. */
static void test_background(void **state)
{
	static const char *const answers[] = { DONE, DONE, BUSY, DONE, NULL };
	_Atomic bool stop = false;
	struct qc2_err err;
	struct fixture f;
	int i;

	server_start(&f.server, answers);
	configure_s3(&f);
	f.cfg.stop = &stop;
	f.cfg.connections = qc2_connections_new();
	assert_non_null(f.cfg.connections);
	for (i = 0; i < 4; i++)
		assert_int_equal(qc2_put(&f.cfg, "s3://bucket/a", "01234567", 8, NULL, NULL, &err),
				 i == 2 ? -EAGAIN : 0);
	stop = true;
	assert_true(qc2_put(&f.cfg, "s3://bucket/a", "01234567", 8, NULL, NULL, &err) < 0);
	curl_share_cleanup(f.cfg.connections);
	finish(&f);
	assert_int_equal(f.server.nr_requests, 4);
	assert_int_equal(f.server.connections, 1);
}

#define STARTED	"HTTP/1.1 200 OK\r\nContent-Length: 96\r\n\r\n" \
	"<InitiateMultipartUploadResult><UploadId>up/1+=</UploadId></InitiateMultipartUploadResult>\n\n\n\n\n\n"
#define PART	"HTTP/1.1 200 OK\r\nETag: \"p\"\r\nContent-Length: 0\r\n\r\n"
#define HEAD_16	"HTTP/1.1 200 OK\r\nETag: \"all-2\"\r\nContent-Length: 16\r\n\r\n"

static void start_two_parts(struct fixture *f, struct qc2_upload **upload)
{
	struct qc2_err err;

	assert_ok(qc2_upload_start(&f->cfg, "s3://bucket/a", 8, upload, &err), err);
	assert_ok(qc2_upload_part(*upload, 2, "89abcdef", 8, &err), err);
	assert_ok(qc2_upload_part(*upload, 1, "01234567", 8, &err), err);
}

/* Another process goes on with an upload. */
static void test_resume(void **state)
{
	char *lost = error("404 Not Found", "", "NoSuchUpload");
	char *done = answer("200 OK", "", "<CompleteMultipartUploadResult><ETag></ETag></CompleteMultipartUploadResult>");
	const char *const answers[] = {
		STARTED, PART,
		"HTTP/1.1 200 OK\r\nETag: \"q\"\r\nContent-Length: 0\r\n\r\n",
		done, HEAD_16, lost, NULL
	};
	struct qc2_upload *upload, *other;
	struct qc2_err err;
	struct fixture f;
	char *version;

	server_start(&f.server, answers);
	configure_s3(&f);
	assert_ok(qc2_upload_start(&f.cfg, "s3://bucket/a", 8, &upload, &err), err);
	assert_ok(qc2_upload_part(upload, 2, "89abcdef", 8, &err), err);
	assert_null(qc2_upload_etag(upload, 1));
	assert_null(qc2_upload_etag(upload, 3));
	assert_ok(qc2_upload_resume(&f.cfg, "s3://bucket/a", 8, qc2_upload_id(upload), &other, &err),
		  err);
	assert_int_equal(qc2_upload_set_part(other, 2, qc2_upload_etag(upload, 2), 8), 0);
	qc2_upload_free(upload);
	assert_ok(qc2_upload_part(other, 1, "01234567", 8, &err), err);
	assert_ok(qc2_upload_complete(other, 2, true, &version, &err), err);
	assert_string_equal(version, "\"all-2\"");
	free(version);
	assert_int_equal(qc2_upload_part(other, 1, "01234567", 8, &err), -ENOENT);
	qc2_upload_free(other);
	finish(&f);
	assert_in(f.server.requests[2], "PUT /bucket/a?partNumber=1&uploadId=up%2F1%2B%3D HTTP");
	assert_in(f.server.requests[3], "<ETag>\"q\"</ETag></Part><Part><PartNumber>2</PartNumber><ETag>\"p\"");
	free(lost);
	free(done);
}

static void test_multipart(void **state)
{
	char *empty_etag = answer("200 OK", "", "<CompleteMultipartUploadResult><ETag></ETag></CompleteMultipartUploadResult>");
	char *late_error = error("200 OK", "", "InternalError");
	char *bad_part = error("200 OK", "", "InvalidPart");
	const char *const answers[] = {
		STARTED, PART, PART, empty_etag, HEAD_16,
		/* A success that is none, and then one that was. */
		STARTED, PART, PART, late_error,
		"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", HEAD_16,
		STARTED, PART, PART, bad_part,
		"HTTP/1.1 204 No Content\r\n\r\n", NULL
	};
	struct qc2_upload *upload;
	struct qc2_err err;
	struct fixture f;
	char *version;

	server_start(&f.server, answers);
	configure_s3(&f);
	start_two_parts(&f, &upload);
	assert_int_equal(qc2_upload_complete(upload, 3, false, &version, &err), -EINVAL);
	assert_ok(qc2_upload_complete(upload, 2, true, &version, &err), err);
	assert_string_equal(version, "\"all-2\"");
	free(version);
	qc2_upload_free(upload);

	start_two_parts(&f, &upload);
	assert_ok(qc2_upload_complete(upload, 2, false, &version, &err), err);
	free(version);
	qc2_upload_free(upload);

	start_two_parts(&f, &upload);
	assert_int_equal(qc2_upload_complete(upload, 2, false, &version, &err), -EPROTO);
	assert_in(err.msg, "InvalidPart");
	assert_ok(qc2_upload_abort(upload, &err), err);
	qc2_upload_free(upload);
	finish(&f);
	assert_int_equal(f.server.nr_requests, 16);
	assert_in(f.server.requests[0], "POST /bucket/a?uploads= HTTP");
	assert_in(f.server.requests[1], "PUT /bucket/a?partNumber=2&uploadId=up%2F1%2B%3D HTTP");
	assert_in(f.server.requests[3], "POST /bucket/a?uploadId=up%2F1%2B%3D HTTP");
	assert_in(f.server.requests[3], "<Part><PartNumber>1</PartNumber><ETag>\"p\"</ETag></Part><Part><PartNumber>2</PartNumber>");
	assert_in(f.server.requests[15], "DELETE /bucket/a?uploadId=up%2F1%2B%3D HTTP");
	free(empty_etag);
	free(late_error);
	free(bad_part);
}

static void test_delete(void **state)
{
	static const char *const answers[] = {
		"HTTP/1.1 204 No Content\r\n\r\n",
		"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", NULL
	};
	struct qc2_err err;
	struct fixture f;

	server_start(&f.server, answers);
	configure_azure(&f);
	assert_ok(qc2_delete(&f.cfg, "azure://account/c/a", &err), err);
	assert_ok(qc2_delete(&f.cfg, "azure://account/c/a", &err), err);
	assert_int_equal(qc2_delete(&f.cfg, "azure://account/c/a", &err), -EACCES);
	finish(&f);
	assert_in(f.server.requests[0], "DELETE /account/c/a HTTP");
}

static int count(void *arg, const char *url, uint64_t size)
{
	++*(unsigned int *)arg;
	return 0;
}

static void test_files(void **state)
{
	const struct qc2_store_config cfg = { .connect_timeout_s = 1 };
	const struct qc2_put_if absent = { .absent = true };
	struct qc2_put_if same = { .version = NULL };
	char dir[] = "/tmp/test_store_ops.d.XXXXXX", url[128], folder[64], *version, *seen;
	struct qc2_upload *upload;
	unsigned int nr = 0;
	struct qc2_err err;
	uint64_t size;

	assert_non_null(mkdtemp(dir));
	snprintf(folder, sizeof(folder), "file://%s/", dir);
	snprintf(url, sizeof(url), "%sa+b", folder);
	assert_ok(qc2_put(&cfg, url, "abc", 3, &absent, &version, &err), err);
	assert_int_equal(qc2_put(&cfg, url, "abc", 3, &absent, NULL, &err), -EEXIST);
	assert_ok(qc2_head(&cfg, url, &size, &seen, &err), err);
	assert_int_equal(size, 3);
	assert_string_equal(seen, version);
	same.version = "0-0.0";
	assert_int_equal(qc2_put(&cfg, url, "abcd", 4, &same, NULL, &err), -ESTALE);
	same.version = version;
	assert_ok(qc2_put(&cfg, url, "abcd", 4, &same, NULL, &err), err);
	free(version);
	free(seen);
	assert_ok(qc2_upload_start(&cfg, url, 4, &upload, &err), err);
	assert_ok(qc2_upload_part(upload, 2, "567", 3, &err), err);
	assert_ok(qc2_upload_part(upload, 1, "1234", 4, &err), err);
	assert_int_equal(qc2_upload_part(upload, 3, "12345", 5, &err), -EINVAL);
	assert_int_equal(qc2_upload_complete(upload, 2, true, &version, &err), -EEXIST);
	assert_ok(qc2_upload_complete(upload, 2, false, &version, &err), err);
	free(version);
	qc2_upload_free(upload);
	assert_ok(qc2_upload_start(&cfg, url, 4, &upload, &err), err);
	assert_ok(qc2_upload_abort(upload, &err), err);
	qc2_upload_free(upload);
	assert_ok(qc2_head(&cfg, url, &size, &version, &err), err);
	assert_int_equal(size, 7);
	free(version);
	assert_ok(qc2_list(&cfg, folder, count, &nr, &err), err);
	assert_int_equal(nr, 1);
	assert_ok(qc2_delete(&cfg, url, &err), err);
	assert_ok(qc2_delete(&cfg, url, &err), err);
	assert_int_equal(rmdir(dir), 0);
}

/* A body that nobody wants, and of which more was announced than comes. */
static void test_long_answers(void **state)
{
	char *refused, *deleted, *body = calloc(1, 100001);
	struct qc2_err err;
	struct fixture f;

	memset(body, 'x', 100000);
	assert_true(asprintf(&refused, "HTTP/1.1 403 Forbidden\r\nContent-Length: 200000\r\n\r\n%s",
			     body) > 0);
	assert_true(asprintf(&deleted, "HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n%s",
			     body) > 0);
	{
		const char *const answers[] = { refused, deleted, NULL };

		server_start(&f.server, answers);
		configure_s3(&f);
		assert_int_equal(qc2_delete(&f.cfg, "s3://bucket/a", &err), -EACCES);
		assert_ok(qc2_delete(&f.cfg, "s3://bucket/a", &err), err);
		finish(&f);
	}
	free(refused);
	free(deleted);
	free(body);
}

/* Last: nothing is left of the budget afterwards. */
static void test_budget(void **state)
{
	unsigned int retries = 0, i;

	while (retries < 1000 && qc2_retry_allowed())
		retries++;
	assert_in_range(retries, 50, 200);
	for (i = 0; i < 200; i++)
		qc2_retry_success();
	for (retries = 0; retries < 1000 && qc2_retry_allowed(); retries++)
		;
	/* A tenth, and one for each second that passes. */
	assert_in_range(retries, 20, 50);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_proxy_is_not_shown),
		cmocka_unit_test(test_secret_is_not_repeated),
		cmocka_unit_test(test_retry_after),
		cmocka_unit_test(test_expired_keys),
		cmocka_unit_test(test_renewed_keys),
		cmocka_unit_test(test_clock),
		cmocka_unit_test(test_region),
		cmocka_unit_test(test_targets),
		cmocka_unit_test(test_redirects),
		cmocka_unit_test(test_redirect_elsewhere),
		cmocka_unit_test(test_head),
		cmocka_unit_test(test_head_asks_why),
		cmocka_unit_test(test_list),
		cmocka_unit_test(test_list_azure),
		cmocka_unit_test(test_put),
		cmocka_unit_test(test_background),
		cmocka_unit_test(test_multipart),
		cmocka_unit_test(test_resume),
		cmocka_unit_test(test_delete),
		cmocka_unit_test(test_files),
		cmocka_unit_test(test_long_answers),
		cmocka_unit_test(test_budget),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
