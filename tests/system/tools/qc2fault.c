/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A proxy on loopback that stands for a bad network and a bad object store.
 *
 *	qc2fault serve SOCKET PORT SERVER_PORT	serves 127.0.0.1:PORT (0: a free one) in
 *						front of the server; prints "ready PORT"
 *	qc2fault SOCKET COMMAND...		tells a running one what to do; prints its
 *						answer: "ok", the counters, or "error: ..."
 *
 * What a client sends passes unchanged, Host included, so that signatures hold.  A
 * connection of a client is one to the server, and ends when either ends.  HTTP/1.1
 * without TLS and without pipelining.
 *
 * Commands: a fault, and what it applies to:
 *	FAULT [VALUE] [next N | percent P] [path TEXT]
 * the next N requests, P percent of them (at random), or all until it is cleared;
 * with a path only those whose path or query contains TEXT.  For a request, all
 * delays add up, and the first other fault that fits applies.
 *	delay MS	before the request is passed on
 *	cut [N]		closes the connection after N bytes of the body; without N before
 *			the answer, but after the server has done what was asked
 *	truncate N	closes it N bytes before the end of the body
 *	reset [N]	like cut, with RST
 *	stall [N]	like cut, but goes silent until cleared, and then goes on
 *	short N		the body ends after N bytes, and the headers say so
 *	wrong-range	Content-Range of the bytes after those asked for
 *	wrong-etag	another ETag
 *	whole		the range is not asked for: 200 with the whole object
 *	flip [N]	inverts a bit in byte N (0) of the body
 *	status CODE [error NAME] [retry-after SECONDS]
 *			that answer, with S3's error body; the server is not asked
 *	skewed [SECONDS]	403 RequestTimeTooSkewed; Date is so much ahead
 *	redirect REGION	301 PermanentRedirect with x-amz-bucket-region
 *	refuse		the port does not listen, and no connection is left
 * and
 *	clear [FAULT]	no such faults any more, no faults at all
 *	count		counters as JSON: connections, open, requests, in_flight (now),
 *			in_flight_max, bytes (of bodies), statuses, faults (that were seen by a
 *			client), paths (requests for each)
 *	zero		counters start again
 *
 * A thread for each connection.  "lock" guards the faults, the counters and the list
 * of connections; a connection's own fields belong to its thread.
 */
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define BUFFER		(64 << 10)
#define PIPE		(1 << 20)
#define MAX_HEAD	(64 << 10)
#define NONE		INT64_MAX

enum kind {
	DELAY, CUT, TRUNCATE, RESET, STALL, SHORT, WRONG_RANGE, WRONG_ETAG, WHOLE, FLIP, STATUS,
	SKEWED, REDIRECT, REFUSE, NR_KINDS
};

static const char * const names[NR_KINDS] = {
	"delay", "cut", "truncate", "reset", "stall", "short", "wrong-range", "wrong-etag",
	"whole", "flip", "status", "skewed", "redirect", "refuse",
};

struct fault {
	struct fault *next;
	enum kind kind;
	bool has_value;
	int64_t value;
	int64_t left;			/* requests; NONE: until cleared */
	double percent;			/* 100: all of those left */
	unsigned int retry_after;
	char error[64];			/* also the region of a redirect */
	char path[256];			/* empty: any */
	uint64_t id;
};

struct stream {
	int fd;
	char *buf;
	size_t at, end;
};

struct connection {
	struct connection *next;
	struct stream client, server;
	int pipe[2];			/* bodies go through it without being copied */
};

enum framing { EMPTY, LENGTH, CHUNKED, TO_THE_END };

struct message {
	char head[MAX_HEAD + 512];	/* with the empty line; NUL after it; space for edits */
	size_t len;
	enum framing framing;
	int64_t length;			/* of the body, if it is known */
	bool closes;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t listening = PTHREAD_COND_INITIALIZER;
static struct fault *faults;
static struct connection *connections;
static uint64_t last_id;
static struct {
	int64_t connections, open, requests, in_flight, in_flight_max, bytes;
	json_t *statuses, *faults, *paths;
} counted;

static int listener;
static bool refusing;
static struct sockaddr_in server_address;

static void __attribute__((noreturn)) die(const char *what)
{
	fprintf(stderr, "qc2fault: %s: %s\n", what, strerror(errno));
	exit(1);
}

/* counters ---------------------------------------------------------------------- */

static void add_one(json_t *counters, const char *name)
{
	json_object_set_new(counters, name,
			    json_integer(json_integer_value(json_object_get(counters, name)) + 1));
}

static void start_counting(void)
{
	json_decref(counted.statuses);
	json_decref(counted.faults);
	json_decref(counted.paths);
	counted.statuses = json_object();
	counted.faults = json_object();
	counted.paths = json_object();
	counted.connections = counted.open;
	counted.requests = 0;
	counted.in_flight_max = counted.in_flight;
	counted.bytes = 0;
}

/* The client saw this fault. */
static void seen(const struct fault *f)
{
	pthread_mutex_lock(&lock);
	add_one(counted.faults, names[f->kind]);
	pthread_mutex_unlock(&lock);
}

static void answered(int status)
{
	char text[16];

	snprintf(text, sizeof(text), "%d", status);
	pthread_mutex_lock(&lock);
	add_one(counted.statuses, text);
	pthread_mutex_unlock(&lock);
}

/* bytes ------------------------------------------------------------------------- */

static int send_all(int fd, const char *p, size_t len, int flags)
{
	while (len) {
		ssize_t n = send(fd, p, len, flags | MSG_NOSIGNAL);

		if (n < 0)
			return -1;
		p += n;
		len -= n;
	}
	return 0;
}

/* Makes sure that something is in the buffer; -1: end or error. */
static int fill(struct stream *s)
{
	ssize_t n;

	if (s->at < s->end)
		return 0;
	n = recv(s->fd, s->buf, BUFFER, 0);
	if (n <= 0)
		return -1;
	s->at = 0;
	s->end = n;
	return 0;
}

/* The value of a header; NULL if it is not there. */
static const char *header(const struct message *m, const char *name, char *value, size_t size)
{
	size_t len = strlen(name);
	const char *line, *end;

	for (line = strstr(m->head, "\r\n"); line; line = strstr(line, "\r\n")) {
		line += 2;
		if (strncasecmp(line, name, len) || line[len] != ':')
			continue;
		line += len + 1;
		line += strspn(line, " \t");
		end = strstr(line, "\r\n");
		if ((size_t)(end - line) >= size)
			return NULL;
		memcpy(value, line, end - line);
		value[end - line] = 0;
		return value;
	}
	return NULL;
}

/* Another value for a header that is there, NULL: without it.  Room for 128 bytes more. */
static bool edit(struct message *m, const char *name, const char *value)
{
	size_t name_len = strlen(name), tail, new_len;
	char new[160] = "";
	char *line, *end;

	for (line = strstr(m->head, "\r\n"); line; line = strstr(line, "\r\n")) {
		line += 2;
		if (!strncasecmp(line, name, name_len) && line[name_len] == ':')
			break;
	}
	if (!line)
		return false;
	end = strstr(line, "\r\n") + 2;
	tail = m->head + m->len + 1 - end;
	if (value)
		snprintf(new, sizeof(new), "%s: %s\r\n", name, value);
	new_len = strlen(new);
	memmove(line + new_len, end, tail);
	memcpy(line, new, new_len);
	m->len = line + new_len + tail - 1 - m->head;
	return true;
}

/* Reads a head; the body is left in the stream. */
static int read_head(struct stream *s, struct message *m)
{
	char value[64], *end;

	m->len = 0;
	do {
		if (m->len == MAX_HEAD || fill(s))
			return -1;
		m->head[m->len++] = s->buf[s->at++];
	} while (m->len < 4 || memcmp(m->head + m->len - 4, "\r\n\r\n", 4));
	m->head[m->len] = 0;
	m->framing = EMPTY;
	m->length = 0;
	m->closes = header(m, "Connection", value, sizeof(value)) && !strcasecmp(value, "close");
	if (header(m, "Transfer-Encoding", value, sizeof(value)) && !strcasecmp(value, "chunked")) {
		m->framing = CHUNKED;
	} else if (header(m, "Content-Length", value, sizeof(value))) {
		m->framing = LENGTH;
		errno = 0;
		m->length = strtoll(value, &end, 10);
		if (errno || *end || m->length < 0)
			return -1;
	}
	return 0;
}

/* Passes bytes on; to -1: nowhere. */
static int pass(struct stream *from, int to, int64_t n)
{
	size_t part;

	while (n) {
		if (fill(from))
			return -1;
		part = from->end - from->at;
		if ((int64_t)part > n)
			part = n;
		if (to >= 0 && send_all(to, from->buf + from->at, part, 0))
			return -1;
		from->at += part;
		n -= part;
	}
	return 0;
}

static int pass_line(struct stream *from, int to, char *line, size_t size)
{
	size_t len = 0;

	do {
		if (len == size - 1 || fill(from))
			return -1;
		line[len++] = from->buf[from->at++];
	} while (line[len - 1] != '\n');
	line[len] = 0;
	return to < 0 ? 0 : send_all(to, line, len, 0);
}

/* faults ------------------------------------------------------------------------ */

/* Ends a connection so that the client sees a reset. */
static void send_reset(int fd)
{
	struct linger now = { .l_onoff = 1 };

	setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
}

static bool still_set(uint64_t id)
{
	struct fault *f;

	pthread_mutex_lock(&lock);
	for (f = faults; f && f->id != id; f = f->next)
		;
	pthread_mutex_unlock(&lock);
	return f;
}

/* Silence until the fault is cleared; -1: the client left. */
static int stall(int client, uint64_t id)
{
	struct pollfd p = { .fd = client, .events = POLLRDHUP };

	while (still_set(id))
		if (poll(&p, 1, 20))
			return -1;
	return 0;
}

/* The place in the body, or before it, where the fault acts, is reached. */
static int act(struct connection *c, const struct fault *f)
{
	seen(f);
	if (f->kind == STALL)
		return stall(c->client.fd, f->id);
	if (f->kind == RESET)
		send_reset(c->client.fd);
	return -1;
}

static bool acts_in_body(enum kind kind)
{
	return kind == CUT || kind == TRUNCATE || kind == RESET || kind == STALL;
}

/* At most so many bytes from the server to the client; how many, 0: end or error. */
static size_t splice_some(struct connection *c, size_t n)
{
	ssize_t got, put, left;

	got = splice(c->server.fd, NULL, c->pipe[1], NULL, n > PIPE ? PIPE : n, SPLICE_F_MOVE);
	if (got <= 0)
		return 0;
	for (left = got; left; left -= put) {
		put = splice(c->pipe[0], NULL, c->client.fd, NULL, left, SPLICE_F_MOVE);
		if (put <= 0)
			return 0;
	}
	return got;
}

/*
 * Passes N bytes of an answer's body that begin at *AT in it, with the fault, which
 * acts in front of byte WHERE.
 */
static int pass_body(struct connection *c, const struct fault *f, int64_t where, int64_t *at,
		     int64_t n)
{
	struct stream *from = &c->server;
	size_t part;

	while (n) {
		if (*at == where && f->kind != FLIP && act(c, f))
			return -1;
		part = n;
		if (where > *at && where - *at < n)
			part = where - *at;
		if (from->at < from->end || *at == where) {
			if (fill(from))
				return -1;
			if (part > from->end - from->at)
				part = from->end - from->at;
			if (*at == where && f->kind == FLIP) {
				from->buf[from->at] ^= 1;
				seen(f);
			}
			if (send_all(c->client.fd, from->buf + from->at, part, 0))
				return -1;
			from->at += part;
		} else {
			part = splice_some(c, part);
			if (!part)
				return -1;
		}
		*at += part;
		n -= part;
		pthread_mutex_lock(&lock);
		counted.bytes += part;
		pthread_mutex_unlock(&lock);
	}
	return 0;
}

static int pass_answer_body(struct connection *c, struct message *m, const struct fault *f,
			    int64_t short_of)
{
	int64_t at = 0, size, where = NONE;
	char line[1024];

	if (f && f->kind == FLIP)
		where = f->value;
	else if (f && f->kind == TRUNCATE)
		where = m->length > f->value ? m->length - f->value : 0;
	else if (f && acts_in_body(f->kind) && f->has_value)
		where = f->value;
	switch (m->framing) {
	case EMPTY:
		return 0;
	case LENGTH:
		if (pass_body(c, f, where, &at, m->length))
			return -1;
		/* The server sent more than the client is to see. */
		return pass(&c->server, -1, short_of);
	case CHUNKED:
		do {
			if (pass_line(&c->server, c->client.fd, line, sizeof(line)))
				return -1;
			size = strtoll(line, NULL, 16);
			if (size < 0 || (size && (pass_body(c, f, where, &at, size) ||
						  pass_line(&c->server, c->client.fd, line,
							    sizeof(line)))))
				return -1;
		} while (size);
		do {
			if (pass_line(&c->server, c->client.fd, line, sizeof(line)))
				return -1;
		} while (strcmp(line, "\r\n"));
		return 0;
	case TO_THE_END:
		pass_body(c, f, where, &at, NONE);
		return -1;
	}
	return -1;
}

static int pass_request_body(struct connection *c, struct message *m, int to)
{
	char line[1024];
	int64_t size;

	if (m->framing == LENGTH)
		return pass(&c->client, to, m->length);
	if (m->framing != CHUNKED)
		return 0;
	do {
		if (pass_line(&c->client, to, line, sizeof(line)))
			return -1;
		size = strtoll(line, NULL, 16);
		if (size < 0 || (size && (pass(&c->client, to, size) ||
					  pass_line(&c->client, to, line, sizeof(line)))))
			return -1;
	} while (size);
	do {
		if (pass_line(&c->client, to, line, sizeof(line)))
			return -1;
	} while (strcmp(line, "\r\n"));
	return 0;
}

/* The fault of a request, a copy in *FAULT, and its delay. */
static bool choose(const struct message *m, const char *target, struct fault *fault, int64_t *delay)
{
	bool found = false, get = !strncmp(m->head, "GET ", 4);
	struct fault *f;
	char value[128];

	*delay = 0;
	pthread_mutex_lock(&lock);
	for (f = faults; f; f = f->next) {
		if (f->kind == REFUSE || !f->left || (found && f->kind != DELAY))
			continue;
		if (f->path[0] && !strstr(target, f->path))
			continue;
		/* Faults of a body and of a range need one. */
		if ((f->kind == TRUNCATE || f->kind == SHORT || f->kind == FLIP ||
		     (acts_in_body(f->kind) && f->has_value)) && !get)
			continue;
		if ((f->kind == WRONG_RANGE || f->kind == WHOLE || f->kind == SHORT) &&
		    !header(m, "Range", value, sizeof(value)))
			continue;
		if (f->percent < 100 && drand48() * 100 >= f->percent)
			continue;
		if (f->left != NONE)
			f->left--;
		if (f->kind == DELAY) {
			*delay += f->value;
			add_one(counted.faults, names[DELAY]);
		} else {
			*fault = *f;
			found = true;
		}
	}
	pthread_mutex_unlock(&lock);
	return found;
}

static const char *reason(int status)
{
	switch (status) {
	case 301: return "Moved Permanently";
	case 400: return "Bad Request";
	case 403: return "Forbidden";
	case 404: return "Not Found";
	case 412: return "Precondition Failed";
	case 429: return "Too Many Requests";
	case 500: return "Internal Server Error";
	case 503: return "Service Unavailable";
	default: return "Status";
	}
}

/* An answer of our own. */
static int send_status(struct connection *c, const struct message *request, const struct fault *f)
{
	const char *error = f->error;
	char head[1024], body[512] = "", date[64], extra[128] = "";
	int status = f->value;
	time_t now = time(NULL);
	struct tm tm;

	if (f->kind == SKEWED) {
		status = 403;
		error = "RequestTimeTooSkewed";
		now += f->value;
	} else if (f->kind == REDIRECT) {
		status = 301;
		error = "PermanentRedirect";
		snprintf(extra, sizeof(extra), "x-amz-bucket-region: %s\r\n", f->error);
	}
	if (f->retry_after)
		snprintf(extra, sizeof(extra), "Retry-After: %u\r\n", f->retry_after);
	if (error[0])
		snprintf(body, sizeof(body), "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
			 "<Error><Code>%s</Code><Message>Made by qc2fault</Message>"
			 "<RequestId>0</RequestId></Error>", error);
	strftime(date, sizeof(date), "%a, %d %b %Y %T GMT", gmtime_r(&now, &tm));
	snprintf(head, sizeof(head), "HTTP/1.1 %d %s\r\nDate: %s\r\n%s"
		 "Content-Type: application/xml\r\nContent-Length: %zu\r\n\r\n",
		 status, reason(status), date, extra, strlen(body));
	seen(f);
	answered(status);
	if (send_all(c->client.fd, head, strlen(head), 0))
		return -1;
	if (!strncmp(request->head, "HEAD ", 5))
		return 0;
	return send_all(c->client.fd, body, strlen(body), 0);
}

/* The range in an answer, moved or cut to LENGTH bytes. */
static bool edit_range(struct message *m, int64_t move, int64_t length)
{
	long long first, last, size;
	char value[128];

	if (!header(m, "Content-Range", value, sizeof(value)) ||
	    sscanf(value, "bytes %lld-%lld/%lld", &first, &last, &size) != 3)
		return false;
	snprintf(value, sizeof(value), "bytes %lld-%lld/%lld", first + (long long)move,
		 first + (long long)(move + length) - 1, size);
	return edit(m, "Content-Range", value);
}

/* Changes the head of an answer; returns how many bytes of the body are not passed. */
static int64_t lie(struct message *m, const struct fault *f)
{
	int64_t dropped = 0;
	char value[128];
	bool done;

	switch (f->kind) {
	case WRONG_RANGE:
		done = edit_range(m, m->length, m->length);
		break;
	case WRONG_ETAG:
		done = edit(m, "ETag", "\"0123456789abcdef0123456789abcdef\"");
		break;
	case WHOLE:
		done = !header(m, "Content-Range", value, sizeof(value));
		break;
	case SHORT:
		done = m->framing == LENGTH && m->length > f->value && edit_range(m, 0, f->value);
		if (done) {
			dropped = m->length - f->value;
			m->length = f->value;
			snprintf(value, sizeof(value), "%lld", (long long)m->length);
			edit(m, "Content-Length", value);
		}
		break;
	default:
		return 0;
	}
	if (done)
		seen(f);
	return dropped;
}

static int tcp_socket(void)
{
	int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		die("socket");
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	return fd;
}

static int connect_server(struct connection *c)
{
	if (c->server.fd >= 0)
		return 0;
	c->server.fd = tcp_socket();
	return connect(c->server.fd, (struct sockaddr *)&server_address, sizeof(server_address));
}

/* One request and its answer; -1: the connection ends. */
static int exchange(struct connection *c, struct message *m, struct message *answer,
		    const char *target)
{
	char value[64], method_is_head = !strncmp(m->head, "HEAD ", 5);
	struct fault fault, *f = NULL;
	int64_t delay, dropped = 0;
	bool expects;
	int status;

	if (choose(m, target, &fault, &delay))
		f = &fault;
	if (delay) {
		struct timespec ts = { delay / 1000, delay % 1000 * 1000000 };

		clock_nanosleep(CLOCK_MONOTONIC, 0, &ts, NULL);
	}
	expects = header(m, "Expect", value, sizeof(value));
	if (f && (f->kind == STATUS || f->kind == SKEWED || f->kind == REDIRECT)) {
		/* Who expects "100 Continue" does not send the body now. */
		if (!expects && pass_request_body(c, m, -1))
			return -1;
		return send_status(c, m, f) || expects || m->closes ? -1 : 0;
	}
	if (f && f->kind == WHOLE)
		edit(m, "Range", NULL);
	if (connect_server(c) || send_all(c->server.fd, m->head, m->len, 0))
		return -1;
	/* A server may answer before it has all of the body, and may then not take the rest. */
	if (!expects)
		pass_request_body(c, m, c->server.fd);
	for (;;) {
		if (read_head(&c->server, answer) ||
		    sscanf(answer->head, "HTTP/1.%*d %d", &status) != 1)
			return -1;
		if (status >= 200)
			break;
		if (send_all(c->client.fd, answer->head, answer->len, 0))
			return -1;
		if (status == 100 && expects) {
			expects = false;
			pass_request_body(c, m, c->server.fd);
		}
	}
	if (method_is_head || status == 204 || status == 304)
		answer->framing = EMPTY;
	else if (answer->framing == EMPTY)
		answer->framing = TO_THE_END;
	if (f && acts_in_body(f->kind) && !f->has_value && act(c, f))
		return -1;
	if (f)
		dropped = lie(answer, f);
	answered(status);
	if (send_all(c->client.fd, answer->head, answer->len,
		     !f && answer->framing == LENGTH && answer->length ? MSG_MORE : 0) ||
	    pass_answer_body(c, answer, f, dropped))
		return -1;
	/* A request whose body was not taken cannot be told from the next one. */
	return m->closes || answer->closes || expects ? -1 : 0;
}

/* Waits for the next request; -1: one side ended. */
static int next_request(struct connection *c)
{
	struct pollfd p[2] = {
		{ .fd = c->client.fd, .events = POLLIN },
		{ .fd = c->server.fd, .events = POLLIN },	/* -1 is ignored */
	};

	if (c->client.at < c->client.end)
		return 0;
	while (poll(p, 2, -1) < 0)
		if (errno != EINTR)
			return -1;
	return p[1].revents || fill(&c->client) ? -1 : 0;
}

static void *serve(void *arg)
{
	struct message *request = malloc(sizeof(*request)), *answer = malloc(sizeof(*answer));
	struct connection *c = arg, **p;
	char target[2048], *query;
	int err = 0;

	c->client.buf = malloc(BUFFER);
	c->server.buf = malloc(BUFFER);
	if (!request || !answer || !c->client.buf || !c->server.buf || pipe2(c->pipe, O_CLOEXEC))
		die("a connection");
	fcntl(c->pipe[1], F_SETPIPE_SZ, PIPE);
	while (!err && !next_request(c) && !read_head(&c->client, request)) {
		if (sscanf(request->head, "%*s %2047s HTTP/1.", target) != 1)
			break;
		query = strchr(target, '?');
		pthread_mutex_lock(&lock);
		counted.requests++;
		counted.in_flight++;
		if (counted.in_flight > counted.in_flight_max)
			counted.in_flight_max = counted.in_flight;
		if (query)
			*query = 0;
		add_one(counted.paths, target);
		if (query)
			*query = '?';
		pthread_mutex_unlock(&lock);
		err = exchange(c, request, answer, target);
		pthread_mutex_lock(&lock);
		counted.in_flight--;
		pthread_mutex_unlock(&lock);
	}
	pthread_mutex_lock(&lock);
	for (p = &connections; *p != c; p = &(*p)->next)
		;
	*p = c->next;
	counted.open--;
	pthread_mutex_unlock(&lock);
	close(c->client.fd);
	if (c->server.fd >= 0)
		close(c->server.fd);
	close(c->pipe[0]);
	close(c->pipe[1]);
	free(c->client.buf);
	free(c->server.buf);
	free(c);
	free(request);
	free(answer);
	return NULL;
}

static void start_thread(void *(*run)(void *), void *arg)
{
	pthread_t thread;

	errno = pthread_create(&thread, NULL, run, arg);
	if (errno)
		die("pthread_create");
	pthread_detach(thread);
}

/* Never returns. */
static void *accept_all(void *arg)
{
	struct connection *c;
	int fd, on = 1;

	for (;;) {
		fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
		if (fd < 0 && errno != EINVAL && errno != ECONNABORTED)
			die("accept");
		pthread_mutex_lock(&lock);
		if (refusing && fd >= 0) {
			close(fd);
			fd = -1;
		}
		while (refusing)
			pthread_cond_wait(&listening, &lock);
		if (fd >= 0) {
			setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
			c = calloc(1, sizeof(*c));
			if (!c)
				die("calloc");
			c->client.fd = fd;
			c->server.fd = -1;
			c->next = connections;
			connections = c;
			counted.connections++;
			counted.open++;
			start_thread(serve, c);
		}
		pthread_mutex_unlock(&lock);
	}
	return NULL;
}

/* commands ---------------------------------------------------------------------- */

/* A socket that was shut down keeps its port, so nobody else gets it meanwhile. */
static void refuse(bool yes)
{
	struct connection *c;

	if (refusing == yes)
		return;
	refusing = yes;
	if (!yes) {
		if (listen(listener, 1024))
			die("listen");
		pthread_cond_broadcast(&listening);
		return;
	}
	shutdown(listener, SHUT_RDWR);
	for (c = connections; c; c = c->next)
		shutdown(c->client.fd, SHUT_RDWR);
	add_one(counted.faults, names[REFUSE]);
}

static void clear_faults(const char *name)
{
	struct fault **p = &faults, *f;
	bool refuses = false;

	while ((f = *p)) {
		if (!name || !strcmp(names[f->kind], name)) {
			*p = f->next;
			free(f);
		} else {
			refuses |= f->kind == REFUSE;
			p = &f->next;
		}
	}
	refuse(refuses);
}

static bool number(const char *text, int64_t *value)
{
	char *end;

	if (!text || !isdigit((unsigned char)text[0]))
		return false;
	errno = 0;
	*value = strtoll(text, &end, 10);
	return !errno && !*end;
}

/* Words after the name of a fault; false: they make no sense. */
static bool parse_fault(struct fault *f, char **words)
{
	int64_t value;

	f->left = NONE;
	f->percent = 100;
	if (f->kind == REDIRECT) {
		if (!*words)
			return false;
		snprintf(f->error, sizeof(f->error), "%s", *words++);
	} else if (number(*words, &f->value)) {
		f->has_value = true;
		words++;
	}
	if ((f->kind == DELAY || f->kind == TRUNCATE || f->kind == STATUS) && !f->has_value)
		return false;
	if (f->kind == SHORT && f->value < 1)
		return false;
	for (; *words; words += 2) {
		if (!words[1])
			return false;
		if (!strcmp(*words, "path"))
			snprintf(f->path, sizeof(f->path), "%s", words[1]);
		else if (!strcmp(*words, "error") && f->kind == STATUS)
			snprintf(f->error, sizeof(f->error), "%s", words[1]);
		else if (!strcmp(*words, "percent"))
			f->percent = strtod(words[1], NULL);
		else if (!number(words[1], &value))
			return false;
		else if (!strcmp(*words, "next"))
			f->left = value;
		else if (!strcmp(*words, "retry-after") && f->kind == STATUS)
			f->retry_after = value;
		else
			return false;
	}
	return true;
}

static bool add_fault(enum kind kind, char **words)
{
	struct fault *f = calloc(1, sizeof(*f)), **p;

	if (!f)
		die("calloc");
	f->kind = kind;
	f->id = ++last_id;
	if (!parse_fault(f, words)) {
		free(f);
		return false;
	}
	for (p = &faults; *p; p = &(*p)->next)
		;
	*p = f;
	if (kind == REFUSE)
		refuse(true);
	return true;
}

static char *counters(void)
{
	json_t *json = json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:O, s:O, s:O}",
				 "connections", (json_int_t)counted.connections,
				 "open", (json_int_t)counted.open,
				 "requests", (json_int_t)counted.requests,
				 "in_flight", (json_int_t)counted.in_flight,
				 "in_flight_max", (json_int_t)counted.in_flight_max,
				 "bytes", (json_int_t)counted.bytes,
				 "statuses", counted.statuses, "faults", counted.faults,
				 "paths", counted.paths);
	char *text = json_dumps(json, JSON_COMPACT | JSON_SORT_KEYS);

	json_decref(json);
	if (!text)
		die("json_dumps");
	return text;
}

/* Does what a line says; the answer is to be freed. */
static char *command(char *line)
{
	char *words[32] = { NULL }, *save = NULL, *answer = NULL;
	bool ok = false;
	int i, nr = 0;

	for (words[0] = strtok_r(line, " \n", &save); words[nr] && nr < 30;)
		words[++nr] = strtok_r(NULL, " \n", &save);
	pthread_mutex_lock(&lock);
	if (!nr) {
		ok = false;
	} else if (!strcmp(words[0], "clear")) {
		clear_faults(words[1]);
		ok = true;
	} else if (!strcmp(words[0], "zero")) {
		start_counting();
		ok = true;
	} else if (!strcmp(words[0], "count")) {
		answer = counters();
	} else {
		for (i = 0; i < NR_KINDS; i++)
			if (!strcmp(words[0], names[i]))
				ok = add_fault(i, words + 1);
	}
	pthread_mutex_unlock(&lock);
	return answer ? answer : strdup(ok ? "ok" : "error: no such command");
}

static struct sockaddr_un control_address(const char *path)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };

	if (strlen(path) >= sizeof(a.sun_path)) {
		errno = ENAMETOOLONG;
		die(path);
	}
	strcpy(a.sun_path, path);
	return a;
}

static void __attribute__((noreturn)) control(const char *path, int port)
{
	struct sockaddr_un address = control_address(path);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), client;
	char line[4096], *answer;
	ssize_t n;

	if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) || listen(fd, 16))
		die(path);
	printf("ready %d\n", port);
	fflush(stdout);
	for (;;) {
		client = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
		if (client < 0)
			die("accept");
		n = recv(client, line, sizeof(line) - 1, 0);
		if (n > 0) {
			line[n] = 0;
			answer = command(line);
			send_all(client, answer, strlen(answer), MSG_MORE);
			send_all(client, "\n", 1, 0);
			free(answer);
		}
		close(client);
	}
}

static int tell(const char *path, char **words)
{
	struct sockaddr_un address = control_address(path);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	char line[4096] = "", part[4096];
	bool good = true, first = true;
	ssize_t n;

	if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)))
		die(path);
	for (; *words; words++) {
		n = strlen(line);
		snprintf(line + n, sizeof(line) - n, "%s ", *words);
	}
	if (send_all(fd, line, strlen(line), 0))
		die("send");
	while ((n = recv(fd, part, sizeof(part), 0)) > 0) {
		good &= !first || part[0] != 'e';
		first = false;
		fwrite(part, n, 1, stdout);
	}
	return good && !first ? 0 : 1;
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
	socklen_t len = sizeof(here);
	int chosen;

	signal(SIGPIPE, SIG_IGN);
	if (argc < 3 || (!strcmp(argv[1], "serve") && argc != 5)) {
		fprintf(stderr, "usage: qc2fault serve SOCKET PORT SERVER_PORT\n"
			"       qc2fault SOCKET COMMAND...\n");
		return 2;
	}
	if (strcmp(argv[1], "serve"))
		return tell(argv[1], argv + 2);
	here = loopback(argv[3]);
	server_address = loopback(argv[4]);
	start_counting();
	/*
	 * A port that the kernel chose is lost when the socket is shut down, one that was
	 * asked for is not.  So ask for it while another socket holds it.
	 */
	chosen = tcp_socket();
	if (bind(chosen, (struct sockaddr *)&here, len) ||
	    getsockname(chosen, (struct sockaddr *)&here, &len))
		die("bind");
	listener = tcp_socket();
	if (bind(listener, (struct sockaddr *)&here, len) || listen(listener, 1024))
		die("listen");
	close(chosen);
	start_thread(accept_all, NULL);
	control(argv[2], ntohs(here.sin_port));
}
