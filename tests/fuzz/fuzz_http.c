/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What a web server or S3 answers to a GET.  The input has the range and what is
 * known of the object, and then the answer, which is sent before libcurl asks, and again
 * if it redirects.
 */
#include <errno.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "fuzz.h"
#include "store.h"

struct sink {
	uint8_t buf[4096];
	size_t got;
	uint64_t len;
};

static int to_sink(void *arg, const void *buf, size_t len)
{
	struct sink *sink = arg;

	/* No more than was asked for ever comes. */
	assert(len <= sink->len - sink->got);
	memcpy(sink->buf + sink->got, buf, len);
	sink->got += len;
	return 0;
}

/* The server: one thread does for both, as an answer fits into the socket. */
struct server {
	struct sockaddr_un addr;
	int listener, conn;
	struct input answer;
};

static void server_init(struct server *server)
{
	socklen_t len = sizeof(sa_family_t);

	/* The kernel finds a name. */
	server->addr.sun_family = AF_UNIX;
	server->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert(!bind(server->listener, (struct sockaddr *)&server->addr, len));
	assert(!listen(server->listener, 1));
	len = sizeof(server->addr);
	assert(!getsockname(server->listener, (struct sockaddr *)&server->addr, &len));
	server->addr.sun_path[len - sizeof(sa_family_t)] = '\0';
}

/* The connection stands, and the request comes next. */
static int on_connected(void *arg, char *to, char *from, int to_port, int from_port)
{
	struct server *server = arg;
	size_t len = server->answer.len;

	if (server->conn >= 0)
		close(server->conn);
	server->conn = accept4(server->listener, NULL, NULL, SOCK_CLOEXEC);
	assert(server->conn >= 0);
	assert(send(server->conn, server->answer.p, len, MSG_NOSIGNAL) == (ssize_t)len);
	assert(!shutdown(server->conn, SHUT_WR));
	return CURL_PREREQFUNC_OK;
}

/* With keys for S3, at an address that is not used. */
static struct qc2_sites *make_sites(void)
{
	static const char text[] =
		"[s3://bucket/]\nendpoint = http://127.0.0.1\naccess_key = AKID\nsecret_key = key\n";
	int fd = memfd_create("sites", MFD_CLOEXEC);
	struct qc2_sites *sites;
	char path[32];

	assert(fd >= 0 && !fchmod(fd, 0600) &&
	       write(fd, text, sizeof(text) - 1) == sizeof(text) - 1);
	sprintf(path, "/proc/self/fd/%d", fd);
	assert(!qc2_sites_load(path, &sites, NULL));
	close(fd);
	return sites;
}

static void check(const struct qc2_get *get, const struct sink *sink, bool opening,
		  uint64_t asked, int ret, const struct qc2_err *err)
{
	assert(get->retry_after_ms <= 60000);
	if (ret) {
		assert(ret < 0 && strstr(err->msg, get->url));
		assert(ret == -EAGAIN || !(get->corrected || get->needs_keys || get->throttled));
		return;
	}
	assert(sink->got == get->len && get->got == get->len);
	assert(get->len && get->len <= asked && (opening || get->len == asked));
	assert(get->size <= INT64_MAX && get->offset < get->size &&
	       get->len <= get->size - get->offset);
	assert(get->len == asked || get->offset + get->len == get->size);
	assert(get->seen_version && get->seen_version[0]);
	assert(opening || !strcmp(get->seen_version, get->version));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const versions[] = {
		NULL, "\"v1\"", "W/\"v1\"",
		"Last-Modified Sat, 01 Nov 2025 10:00:00 GMT",
	};
	static struct qc2_store_config cfg = {
		.connect_timeout_s = 10, .low_speed_time_s = 10,
	};
	static const char *const urls[] = { "http://127.0.0.1/x", "s3://bucket/x" };
	static struct server server;
	static bool started;
	struct input in = { data, size };
	struct sink sink = { .got = 0 };
	struct qc2_get get = {
		.offset = take(&in, 2),
		.len = take(&in, 2) % sizeof(sink.buf) + 1,
		.data = to_sink,
		.arg = &sink,
	};
	unsigned int what = take(&in, 1);
	struct qc2_err err = { "" };
	const char *effective;
	CURL *easy;
	int ret;

	get.version = versions[what % 4];
	get.url = urls[what / 4 % 2];
	sink.len = get.len;
	if (get.version)
		get.size = get.offset + get.len + take(&in, 2);
	if (!started)
		server_init(&server);
	started = true;
	/* New ones: what an answer teaches is none of the next input. */
	cfg.sites = make_sites();
	if (!strncmp(get.url, "s3:", 3))
		assert(!qc2_credentials_refresh(qc2_sites_find(cfg.sites, get.url)->creds, &err));
	easy = curl_easy_init();
	assert(easy);
	server.conn = -1;
	server.answer = in;
	assert(!qc2_get_prepare(&get, easy, &cfg, &err));
	curl_easy_setopt(easy, CURLOPT_ABSTRACT_UNIX_SOCKET, server.addr.sun_path + 1);
	curl_easy_setopt(easy, CURLOPT_FORBID_REUSE, 1L);
	/* Nobody would answer to TLS. */
	curl_easy_setopt(easy, CURLOPT_REDIR_PROTOCOLS_STR, "http");
	curl_easy_setopt(easy, CURLOPT_PREREQFUNCTION, on_connected);
	curl_easy_setopt(easy, CURLOPT_PREREQDATA, &server);
	ret = qc2_get_finish(&get, curl_easy_perform(easy), &err);
	assert(server.conn >= 0);
	close(server.conn);
	/* Nothing is in "allow", so this is where any redirect leads. */
	assert(!curl_easy_getinfo(easy, CURLINFO_EFFECTIVE_URL, &effective));
	assert(!strncmp(get.url, "s3:", 3) || !strncmp(effective, "http://127.0.0.1/", 17) ||
	       !strncmp(effective, "https://127.0.0.1", 17));
	curl_easy_cleanup(easy);
	check(&get, &sink, !get.version, sink.len, ret, &err);
	qc2_get_cleanup(&get);
	qc2_sites_free(cfg.sites);
	return 0;
}
