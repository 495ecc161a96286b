/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A server for tests whose answers are made by hand: one thread serves one connection
 * after another with the answers in turn, and keeps the requests.
 */
#ifndef QC2_TEST_SERVER_H
#define QC2_TEST_SERVER_H

#include <arpa/inet.h>
#include <pthread.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <unistd.h>

#include "testing.h"

#define MAX_SERVER_REQUESTS	16

struct server {
	const char *const *answers;	/* NULL ends them; "" closes the connection */
	int listener;
	unsigned int connections;
	pthread_t thread;
	char url[64];
	/* To be read after server_stop(). */
	char requests[MAX_SERVER_REQUESTS][8192];
	unsigned int nr_requests;
};

static inline bool read_request(int fd, char *buf, size_t size)
{
	size_t len = 0, body = 0;
	char *end = NULL, *length;
	ssize_t n;

	do {
		n = recv(fd, buf + len, size - 1 - len, 0);
		if (n <= 0)
			return false;
		len += n;
		buf[len] = '\0';
		end = strstr(buf, "\r\n\r\n");
		if (!end)
			continue;
		length = strstr(buf, "Content-Length: ");
		body = length && length < end ? strtoul(length + 16, NULL, 10) : 0;
	} while (!end || len < (size_t)(end + 4 - buf) + body);
	return true;
}

static inline void *serve(void *arg)
{
	struct server *server = arg;
	char buf[8192];
	int fd;

	while ((fd = accept(server->listener, NULL, NULL)) >= 0) {
		server->connections++;
		while (read_request(fd, buf, sizeof(buf)) && *server->answers) {
			size_t len = strlen(*server->answers);

			if (server->nr_requests < MAX_SERVER_REQUESTS)
				strcpy(server->requests[server->nr_requests++], buf);
			if (send(fd, *server->answers++, len, MSG_NOSIGNAL) !=
			    (ssize_t)len || !len)
				break;
		}
		close(fd);
	}
	return NULL;
}

static inline void server_start(struct server *server, const char *const *answers)
{
	struct sockaddr_in addr = {
		.sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	socklen_t len = sizeof(addr);

	memset(server, 0, sizeof(*server));
	server->answers = answers;
	server->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(server->listener, (void *)&addr, len), 0);
	assert_int_equal(listen(server->listener, 8), 0);
	assert_int_equal(getsockname(server->listener, (void *)&addr, &len), 0);
	sprintf(server->url, "http://127.0.0.1:%u/image", ntohs(addr.sin_port));
	assert_int_equal(pthread_create(&server->thread, NULL, serve, server), 0);
}

/* After the store's connections were closed. */
static inline void server_stop(struct server *server)
{
	shutdown(server->listener, SHUT_RDWR);
	pthread_join(server->thread, NULL);
	close(server->listener);
}

#endif
