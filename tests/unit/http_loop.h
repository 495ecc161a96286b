/* SPDX-License-Identifier: GPL-2.0 */
/*
 * An HTTP server in the event loop of the test: it keeps the GETs that come, and answers
 * them when and as far as the test says.  No threads, so what a test sees does not change
 * under its hands.
 */
#ifndef QC2_TEST_HTTP_LOOP_H
#define QC2_TEST_HTTP_LOOP_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <unistd.h>

#include <systemd/sd-event.h>

#include "testing.h"

#define MAX_ASKS	256

struct http_conn;

struct http_server {
	sd_event *event;
	int listener;
	sd_event_source *source;
	char url[64];			/* with a slash at the end */
	const char *etag;
	uint64_t size;
	bool automatic;			/* all is answered at once */
	uint8_t other;			/* that bytes differ in from those of the object */
	uint64_t other_from;		/* from there on */
};

/* A GET that came. */
struct ask {
	struct http_server *server;
	struct http_conn *conn;		/* NULL: it is closed */
	uint64_t offset, len, sent;
	bool started, over;
	char head[4096];
};

struct http_conn {
	struct http_server *server;
	int fd;
	sd_event_source *source;
	char in[4096];
	size_t in_len;
	char *out;
	size_t out_len;
	bool closing;			/* when all is sent */
	struct ask *ask;
};

/* In the order in which they came, from all servers. */
static struct ask asks[MAX_ASKS];
static unsigned int nr_asks;

/* What objects are made of. */
static inline uint8_t object_byte(uint64_t offset)
{
	return (offset * 0x9e3779b97f4a7c15ULL >> 56) ^ (offset >> 16);
}

static inline void conn_close(struct http_conn *conn)
{
	if (conn->ask)
		conn->ask->conn = NULL;
	sd_event_source_disable_unref(conn->source);
	close(conn->fd);
	free(conn->out);
	free(conn);
}

static inline void conn_flush(struct http_conn *conn)
{
	ssize_t n = 0;

	if (conn->out_len)
		n = send(conn->fd, conn->out, conn->out_len, MSG_NOSIGNAL | MSG_DONTWAIT);
	if (n < 0 && errno != EAGAIN) {
		conn_close(conn);
		return;
	}
	if (n > 0) {
		memmove(conn->out, conn->out + n, conn->out_len - n);
		conn->out_len -= n;
	}
	if (!conn->out_len && conn->closing)
		conn_close(conn);
	else
		sd_event_source_set_io_events(conn->source,
					      EPOLLIN | (conn->out_len ? EPOLLOUT : 0));
}

static inline void conn_send(struct http_conn *conn, const void *data, size_t len)
{
	conn->out = realloc(conn->out, conn->out_len + len);
	assert_non_null(conn->out);
	memcpy(conn->out + conn->out_len, data, len);
	conn->out_len += len;
}

/* An answer without a part of the object; @headers with their line ends. */
static inline void answer_status(struct ask *ask, int status, const char *headers,
				 const char *body)
{
	char text[2048];

	assert_non_null(ask->conn);
	snprintf(text, sizeof(text), "HTTP/1.1 %d Whatever\r\n%sContent-Length: %zu\r\n\r\n%s",
		 status, headers, strlen(body), body);
	ask->over = true;
	ask->conn->ask = NULL;
	conn_send(ask->conn, text, strlen(text));
	conn_flush(ask->conn);
}

/* @len more bytes of the object, after the headers if those were not sent yet. */
static inline void answer(struct ask *ask, uint64_t len)
{
	struct http_server *server = ask->server;
	struct http_conn *conn = ask->conn;
	uint8_t *data = malloc(len);
	char text[512];
	uint64_t i;

	assert_non_null(conn);
	assert_true(len <= ask->len - ask->sent);
	for (i = 0; i < len; i++) {
		uint64_t at = ask->offset + ask->sent + i;

		data[i] = object_byte(at) ^ (at >= server->other_from ? server->other : 0);
	}
	if (!ask->started) {
		snprintf(text, sizeof(text),
			 "HTTP/1.1 206 Partial\r\nETag: %s\r\nContent-Range: bytes %llu-%llu/%llu\r\nContent-Length: %llu\r\n\r\n",
			 server->etag, (unsigned long long)ask->offset,
			 (unsigned long long)(ask->offset + ask->len - 1),
			 (unsigned long long)server->size, (unsigned long long)ask->len);
		conn_send(conn, text, strlen(text));
		ask->started = true;
	}
	conn_send(conn, data, len);
	free(data);
	ask->sent += len;
	if (ask->sent == ask->len) {
		ask->over = true;
		conn->ask = NULL;
	}
	conn_flush(conn);
}

static inline void answer_all(struct ask *ask)
{
	answer(ask, ask->len - ask->sent);
}

/* The connection is closed when what was said so far is sent. */
static inline void answer_no_more(struct ask *ask)
{
	struct http_conn *conn = ask->conn;

	assert_non_null(conn);
	ask->over = true;
	conn->closing = true;
	conn_flush(conn);
}

static inline void take_ask(struct http_conn *conn)
{
	struct http_server *server = conn->server;
	struct ask *ask = &asks[nr_asks];
	unsigned long long first, last;
	const char *range = strcasestr(conn->in, "\r\nRange: bytes=");

	assert_true(nr_asks < MAX_ASKS);
	assert_non_null(range);
	assert_int_equal(sscanf(range + 15, "%llu-%llu", &first, &last), 2);
	if (last >= server->size)
		last = server->size - 1;
	*ask = (struct ask){ .server = server, .conn = conn, .offset = first,
			     .len = last - first + 1 };
	snprintf(ask->head, sizeof(ask->head), "%s", conn->in);
	conn->ask = ask;
	conn->in_len = 0;
	nr_asks++;
	if (server->automatic)
		answer_all(ask);
}

static inline int conn_io(sd_event_source *source, int fd, uint32_t revents, void *arg)
{
	struct http_conn *conn = arg;
	ssize_t n;

	if (revents & EPOLLOUT) {
		conn_flush(conn);
		return 0;
	}
	n = recv(fd, conn->in + conn->in_len, sizeof(conn->in) - 1 - conn->in_len, 0);
	if (n <= 0) {
		conn_close(conn);
		return 0;
	}
	conn->in_len += n;
	conn->in[conn->in_len] = '\0';
	if (strstr(conn->in, "\r\n\r\n"))
		take_ask(conn);
	return 0;
}

static inline int server_accept(sd_event_source *source, int fd, uint32_t revents, void *arg)
{
	struct http_server *server = arg;
	struct http_conn *conn = calloc(1, sizeof(*conn));

	conn->server = server;
	conn->fd = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
	assert_true(conn->fd >= 0);
	assert_true(sd_event_add_io(server->event, &conn->source, conn->fd, EPOLLIN, conn_io,
				    conn) >= 0);
	return 0;
}

static inline void http_start(struct http_server *server, sd_event *event, uint64_t size)
{
	struct sockaddr_in addr = {
		.sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	socklen_t len = sizeof(addr);

	*server = (struct http_server){ .event = event, .etag = "\"v1\"", .size = size };
	server->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(server->listener, (void *)&addr, len), 0);
	assert_int_equal(listen(server->listener, 64), 0);
	assert_int_equal(getsockname(server->listener, (void *)&addr, &len), 0);
	sprintf(server->url, "http://127.0.0.1:%u/", ntohs(addr.sin_port));
	assert_true(sd_event_add_io(event, &server->source, server->listener, EPOLLIN,
				    server_accept, server) >= 0);
}

/* Connections that are open stay so. */
static inline void http_stop(struct http_server *server)
{
	sd_event_source_disable_unref(server->source);
	close(server->listener);
}

#endif
