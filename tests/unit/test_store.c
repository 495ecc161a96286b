/* SPDX-License-Identifier: GPL-2.0 */
/* The synchronous reader, and a server whose answers are made by hand. */
#include <dlfcn.h>
#include <errno.h>
#include <netdb.h>
#include <semaphore.h>
#include <time.h>

#include "server.h"
#include "store.h"
#include "testing.h"

#define HEADERS	"Content-Range: bytes 0-7/8\r\nETag: \"v1\"\r\nContent-Length: 8\r\n"

static const struct qc2_store_config cfg = {
	.connect_timeout_s = 10, .low_speed_time_s = 10,
};

static void test_keeps_connections(void **state)
{
	static const char *const answers[] = {
		"HTTP/1.1 206 Partial Content\r\n" HEADERS "\r\n01234567",
		"HTTP/1.1 206 Partial Content\r\n" HEADERS "\r\n89abcdef",
		NULL
	};
	struct qc2_store *store = qc2_store_new(&cfg);
	struct qc2_opener *opener = qc2_store_opener(store);
	struct qc2_source *first, *second;
	uint64_t requests, bytes;
	struct server server;
	struct qc2_err err;
	char buf[8];

	server_start(&server, answers);
	assert_ok(opener->open(opener, server.url, &first, &err), err);
	assert_ok(opener->open(opener, server.url, &second, &err), err);
	assert_int_equal(first->size, 8);
	assert_string_equal(first->version, "\"v1\"");
	assert_ok(first->ops->read(first, 0, buf, 8, &err), err);
	assert_memory_equal(buf, "01234567", 8);
	assert_ok(second->ops->read(second, 4, buf, 4, &err), err);
	assert_memory_equal(buf, "cdef", 4);
	first->ops->close(first);
	second->ops->close(second);
	qc2_store_stats(store, &requests, &bytes);
	assert_int_equal(requests, 2);
	assert_int_equal(bytes, 16);
	qc2_store_free(store);
	server_stop(&server);
	assert_int_equal(server.connections, 1);
}

/*
 * A first header that begins with a space goes on with the last header of the
 * answer before, if libcurl still has a pointer to that.
 */
static void test_folded_first_header(void **state)
{
	static const char *const answers[] = {
		"HTTP/1.1 206 Partial Content\r\n" HEADERS "\r\n01234567",
		"HTTP/1.1 206 Partial Content\r\n More: of it\r\n" HEADERS "\r\n01234567",
		"HTTP/1.1 206 Partial Content\r\n" HEADERS "\r\n01234567",
		NULL
	};
	struct qc2_store *store = qc2_store_new(&cfg);
	struct qc2_opener *opener = qc2_store_opener(store);
	struct qc2_source *src;
	struct server server;
	struct qc2_err err;

	server_start(&server, answers);
	assert_ok(opener->open(opener, server.url, &src, &err), err);
	src->ops->close(src);
	/* Whether libcurl takes it depends on its version. */
	if (!opener->open(opener, server.url, &src, &err))
		src->ops->close(src);
	assert_ok(opener->open(opener, server.url, &src, &err), err);
	src->ops->close(src);
	qc2_store_free(store);
	server_stop(&server);
}

/* The head of an object of that size. */
static char *make_answer(unsigned long long size)
{
	char *text, *body = calloc(1, QC2_HEAD_BYTES + 1);

	memset(body, 'x', QC2_HEAD_BYTES);
	assert_true(asprintf(&text,
		"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-%d/%llu\r\nETag: \"v1\"\r\nContent-Length: %d\r\n\r\n%s",
		QC2_HEAD_BYTES - 1, size, QC2_HEAD_BYTES, body) > 0);
	free(body);
	return text;
}

/* Of a size with which sums of offsets would wrap around. */
static void test_huge_object(void **state)
{
	char *largest = make_answer(INT64_MAX), *huge = make_answer(1ULL << 63);
	const char *const answers[] = { largest, huge, NULL };
	struct qc2_store *store = qc2_store_new(&cfg);
	struct qc2_opener *opener = qc2_store_opener(store);
	struct qc2_source *src;
	struct server server;
	struct qc2_err err;

	server_start(&server, answers);
	assert_ok(opener->open(opener, server.url, &src, &err), err);
	assert_int_equal(src->size, INT64_MAX);
	src->ops->close(src);
	assert_int_equal(opener->open(opener, server.url, &src, &err), -EPROTO);
	assert_in(err.msg, "Content-Range");
	qc2_store_free(store);
	server_stop(&server);
	free(largest);
	free(huge);
}

/* What the DNS says: the addresses of all hosts in "example", one or two. */
static const char *const *dns;
/* For "slow.example" there is no answer before @dns_end, unless the test allows it. */
static sem_t dns_asked, dns_answers;
static struct timespec dns_end;
static bool answered_late;

int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints,
		struct addrinfo **res)
{
	__typeof__(getaddrinfo) *real = (__typeof__(real))dlsym(RTLD_NEXT, "getaddrinfo");
	struct addrinfo *last;
	int ret;

	if (node && !strcmp(node, "slow.example")) {
		sem_post(&dns_asked);
		answered_late = sem_clockwait(&dns_answers, CLOCK_MONOTONIC, &dns_end) != 0;
		sem_post(&dns_asked);
		return EAI_AGAIN;
	}
	if (!node || !strstr(node, ".example"))
		return real(node, service, hints, res);
	ret = real(dns[0], service, hints, res);
	if (ret || !dns[1])
		return ret;
	for (last = *res; last->ai_next; last = last->ai_next)
		;
	return real(dns[1], service, hints, &last->ai_next);
}

static void name_server(struct server *server, const char *name)
{
	char port[16];

	snprintf(port, sizeof(port), "%s", strchr(strstr(server->url, "://") + 3, ':'));
	snprintf(server->url, sizeof(server->url), "http://%s%s", name, port);
}

/* Over a connection of its own. */
static void opens(const struct qc2_store_config *config, const char *url)
{
	struct qc2_store *store = qc2_store_new(config);
	struct qc2_opener *opener = qc2_store_opener(store);
	struct qc2_source *src;
	struct qc2_err err;

	assert_ok(opener->open(opener, url, &src, &err), err);
	src->ops->close(src);
	qc2_store_free(store);
}

/* A name must not lead to this machine; an address may. */
static void test_local_addresses(void **state)
{
	static const char *const hosts[][4] = {	/* name, what is said; DNS */
		{ "127.1", "127.0.0.1 (loopback)" },
		{ "a.example", "127.0.0.1 (loopback)", "127.0.0.1" },
		{ "b.example", "0.0.0.0 (unspecified)", "0.0.0.0" },
		{ "c.example", "169.254.169.254 (link-local)", "169.254.169.254" },
		{ "d.example", "::ffff:127.0.0.1 (loopback)", "::ffff:127.0.0.1" },
		{ "e.example", "(loopback)", "::1", "127.0.0.1" },
	};
	static const char *const loopback[] = { "127.0.0.1", NULL };
	char *answer = make_answer(1 << 20);
	const char *const answers[] = { answer, answer, answer, NULL };
	struct qc2_store_config allowing = cfg;
	struct qc2_store *store = qc2_store_new(&cfg);
	struct qc2_opener *opener = qc2_store_opener(store);
	struct qc2_source *src;
	struct server server;
	struct qc2_err err;

	server_start(&server, answers);
	for (size_t i = 0; i < sizeof(hosts) / sizeof(hosts[0]); i++) {
		name_server(&server, hosts[i][0]);
		dns = &hosts[i][2];
		assert_int_equal(opener->open(opener, server.url, &src, &err), -EACCES);
		assert_in(err.msg, server.url);
		assert_in(err.msg, hosts[i][1]);
		assert_in(err.msg, "allow_local_addresses = yes in section [store]");
	}
	qc2_store_free(store);
	assert_int_equal(server.connections, 0);
	name_server(&server, "localhost");
	opens(&cfg, server.url);
	name_server(&server, "127.0.0.1");
	opens(&cfg, server.url);

	allowing.allow_local_addresses = true;
	name_server(&server, "f.example");
	dns = loopback;
	opens(&allowing, server.url);
	server_stop(&server);
	free(answer);
}

/* The administrator's proxy may be anywhere, and says itself what a name means. */
static void test_local_proxy(void **state)
{
	char *answer = make_answer(1 << 20);
	const char *const answers[] = { answer, NULL };
	struct server server;

	server_start(&server, answers);
	assert_int_equal(setenv("http_proxy", server.url, 1), 0);
	opens(&cfg, "http://a.example/image");
	unsetenv("http_proxy");
	server_stop(&server);
	free(answer);
}

/* A transfer can be ended while the DNS does not answer: the daemon's main loop does that. */
static void test_slow_dns(void **state)
{
	struct qc2_get get = { .url = "http://slow.example/image", .len = 8 };
	CURLM *multi = curl_multi_init();
	CURL *easy = curl_easy_init();
	struct qc2_err err;
	int running;

	assert_int_equal(sem_init(&dns_asked, 0, 0), 0);
	assert_int_equal(sem_init(&dns_answers, 0, 0), 0);
	assert_int_equal(clock_gettime(CLOCK_MONOTONIC, &dns_end), 0);
	dns_end.tv_sec += 5;
	assert_ok(qc2_get_prepare(&get, easy, &cfg, &err), err);
	assert_int_equal(curl_multi_add_handle(multi, easy), CURLM_OK);
	assert_int_equal(curl_multi_perform(multi, &running), CURLM_OK);
	sem_wait(&dns_asked);
	curl_multi_remove_handle(multi, easy);
	curl_easy_cleanup(easy);
	qc2_get_cleanup(&get);
	curl_multi_cleanup(multi);
	sem_post(&dns_answers);
	sem_wait(&dns_asked);
	assert_false(answered_late);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_keeps_connections),
		cmocka_unit_test(test_folded_first_header),
		cmocka_unit_test(test_huge_object),
		cmocka_unit_test(test_local_addresses),
		cmocka_unit_test(test_local_proxy),
		cmocka_unit_test(test_slow_dns),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
