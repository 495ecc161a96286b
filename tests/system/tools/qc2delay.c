/* SPDX-License-Identifier: GPL-2.0 */
/*
 * qc2delay PORT SERVER_PORT MS: a proxy on loopback that makes a server look far
 * away.  What a client sends arrives so much later; answers pass at once.  So each
 * HTTP request takes MS longer, whatever goes on in other connections.  A
 * connection of a client is one to the server.  Prints "ready" when it listens.
 *
 * Two threads for each connection, one for each direction, which share its end:
 * who sees one side closed ends the other, and so the other thread.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define BUFFER	(256 << 10)

static struct timespec delay;
static struct sockaddr_in server;

struct connection {
	int client, server;
	atomic_int ends;
};

static void __attribute__((noreturn)) die(const char *what)
{
	fprintf(stderr, "qc2delay: %s: %s\n", what, strerror(errno));
	exit(1);
}

static int tcp_socket(void)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		die("socket");
	return fd;
}

static int send_all(int fd, const char *p, ssize_t len)
{
	while (len) {
		ssize_t n = write(fd, p, len);

		if (n < 0)
			return -1;
		p += n;
		len -= n;
	}
	return 0;
}

/*
 * A client that waits for an answer before it sends more has its request arrive
 * in one read, so this delays a request once.
 */
static void pass(struct connection *c, int from, int to, const struct timespec *wait)
{
	char *buf = malloc(BUFFER);
	ssize_t n;

	if (!buf)
		die("malloc");
	while ((n = read(from, buf, BUFFER)) > 0) {
		if (wait)
			clock_nanosleep(CLOCK_MONOTONIC, 0, wait, NULL);
		if (send_all(to, buf, n))
			break;
	}
	free(buf);
	shutdown(c->client, SHUT_RDWR);
	shutdown(c->server, SHUT_RDWR);
	if (atomic_fetch_add(&c->ends, 1)) {
		close(c->client);
		close(c->server);
		free(c);
	}
}

static void *requests(void *arg)
{
	struct connection *c = arg;

	pass(c, c->client, c->server, &delay);
	return NULL;
}

static void *answers(void *arg)
{
	struct connection *c = arg;

	pass(c, c->server, c->client, NULL);
	return NULL;
}

static void start(void *(*run)(void *), struct connection *c)
{
	pthread_t thread;

	errno = pthread_create(&thread, NULL, run, c);
	if (errno)
		die("pthread_create");
	pthread_detach(thread);
}

static void serve(int client)
{
	struct connection *c = calloc(1, sizeof(*c));
	int on = 1;

	if (!c)
		die("calloc");
	c->client = client;
	c->server = tcp_socket();
	if (connect(c->server, (struct sockaddr *)&server, sizeof(server)))
		die("connect");
	setsockopt(c->client, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	setsockopt(c->server, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	start(requests, c);
	start(answers, c);
}

static struct sockaddr_in loopback(const char *port)
{
	return (struct sockaddr_in){
		.sin_family = AF_INET,
		.sin_port = htons(atoi(port)),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
}

int main(int argc, char **argv)
{
	struct sockaddr_in here;
	int fd, client, on = 1;
	long ms;

	if (argc != 4) {
		fprintf(stderr, "usage: qc2delay PORT SERVER_PORT MS\n");
		return 2;
	}
	signal(SIGPIPE, SIG_IGN);
	here = loopback(argv[1]);
	server = loopback(argv[2]);
	ms = atol(argv[3]);
	delay.tv_sec = ms / 1000;
	delay.tv_nsec = ms % 1000 * 1000000;
	fd = tcp_socket();
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(fd, (struct sockaddr *)&here, sizeof(here)) || listen(fd, 128))
		die("listen");
	printf("ready\n");
	fflush(stdout);
	for (;;) {
		client = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
		if (client < 0)
			die("accept");
		serve(client);
	}
}
