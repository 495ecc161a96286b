/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Requests to chaind.  The socket does not block; all waiting is in one place
 * that knows the time limit and the interruption.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "client.h"

/* No answer is longer; status lists every link of every disk. */
#define REPLY_MAX	(256UL << 20)
/* How often a full queue of the daemon is tried again */
#define CONNECT_RETRY_MS	50

struct call {
	const char *path;
	int fd;
	int cancel_fd;
	int64_t deadline_ms;	/* monotonic; negative: none */
	char *buf;		/* what came and was not looked at yet */
	size_t used, size;
};

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* Waits for the socket, or with @events 0 for @step_ms at most. */
static int wait_for(const struct call *call, short events, int step_ms, struct qc2_err *err)
{
	struct pollfd fds[2] = {
		{ .fd = events ? call->fd : -1, .events = events },
		{ .fd = call->cancel_fd, .events = POLLIN },
	};
	int timeout = step_ms;
	int n;

	if (call->deadline_ms >= 0) {
		int64_t left = call->deadline_ms - now_ms();

		if (left <= 0)
			return qc2_fail(err, ETIME,
					"chaind does not answer at %s; look at its log, or restart it",
					call->path);
		if (timeout < 0 || left < timeout)
			timeout = left;
	}
	n = poll(fds, 2, timeout);
	if (n < 0 && errno != EINTR)
		return qc2_fail(err, errno, "poll: %s", strerror(errno));
	if (n > 0 && fds[1].revents)
		return qc2_fail(err, EINTR, "interrupted while waiting for chaind");
	return 0;
}

static int connect_daemon(struct call *call, struct qc2_err *err)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int ret;

	if (strlen(call->path) >= sizeof(addr.sun_path))
		return qc2_fail(err, ENAMETOOLONG, "%s: too long for a socket, at most %zu bytes",
				call->path, sizeof(addr.sun_path) - 1);
	strcpy(addr.sun_path, call->path);
	call->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (call->fd < 0)
		return qc2_fail(err, errno, "socket: %s", strerror(errno));
	while (connect(call->fd, (struct sockaddr *)&addr, sizeof(addr))) {
		switch (errno) {
		case EINTR:
			break;
		case EAGAIN:	/* its queue is full */
			ret = wait_for(call, 0, CONNECT_RETRY_MS, err);
			if (ret)
				return ret;
			break;
		case ENOENT:
		case ECONNREFUSED:
			return qc2_fail(err, ENOTCONN,
					"chaind is not running (nobody listens at %s); start it: systemctl start chaind",
					call->path);
		default:
			return qc2_fail(err, errno, "cannot reach chaind at %s: %s", call->path,
					strerror(errno));
		}
	}
	return 0;
}

static int send_all(struct call *call, const char *buf, size_t len, struct qc2_err *err)
{
	while (len) {
		ssize_t n = send(call->fd, buf, len, MSG_NOSIGNAL);
		int ret;

		if (n >= 0) {
			buf += n;
			len -= n;
		} else if (errno == EAGAIN || errno == EINTR) {
			ret = wait_for(call, POLLOUT, -1, err);
			if (ret)
				return ret;
		} else {
			return qc2_fail(err, ENOTCONN,
					"chaind at %s went away before it took the request: %s",
					call->path, strerror(errno));
		}
	}
	return 0;
}

/* Makes room for more bytes of a message. */
static int grow(struct call *call, struct qc2_err *err)
{
	size_t size = call->size ? 2 * call->size : 65536;
	char *more = size <= REPLY_MAX ? realloc(call->buf, size) : NULL;

	if (!more)
		return qc2_fail(err, EBADE, "the answer of chaind is too long");
	call->buf = more;
	call->size = size;
	return 0;
}

/* Reads up to the newline; what follows it stays in the buffer. */
static int receive(struct call *call, json_t **message, struct qc2_err *err)
{
	json_error_t jerr;
	size_t seen = 0;
	char *end;
	ssize_t n;
	int ret;

	while (!(end = memchr(call->buf + seen, '\n', call->used - seen))) {
		seen = call->used;
		ret = call->used == call->size ? grow(call, err) : 0;
		if (ret)
			return ret;
		n = recv(call->fd, call->buf + call->used, call->size - call->used, 0);
		if (n > 0) {
			call->used += n;
		} else if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
			ret = wait_for(call, POLLIN, -1, err);
			if (ret)
				return ret;
		} else {
			return qc2_fail(err, ENOTCONN,
					"chaind at %s went away before it answered; look at its log",
					call->path);
		}
	}
	*message = json_loadb(call->buf, end - call->buf, JSON_REJECT_DUPLICATES, &jerr);
	call->used -= end + 1 - call->buf;
	memmove(call->buf, end + 1, call->used);
	if (json_is_object(*message))
		return 0;
	qc2_fail(err, EBADE, "the answer of chaind is no JSON object: %s",
		 *message ? "another type" : jerr.text);
	json_decref(*message);
	return -EBADE;
}

/* Takes an answer apart; a refusal becomes our error. */
static int judge(json_t *reply, struct qc2_err *err)
{
	json_t *ok = json_object_get(reply, "ok");
	uint64_t errnum;

	if (json_is_true(ok))
		return 0;
	if (!json_is_false(ok))
		return qc2_fail(err, EBADE, "chaind sent an answer without \"ok\"");
	errnum = client_u64(reply, "errno");
	if (errnum < 1 || errnum > 4095)
		errnum = EIO;
	if (*client_str(reply, "error"))
		return qc2_fail(err, errnum, "%s", client_str(reply, "error"));
	return qc2_fail(err, errnum, "chaind refuses: %s", strerror(errnum));
}

static int do_call(struct call *call, json_t *request,
		   void (*progress)(void *arg, const json_t *progress), void *arg,
		   json_t **reply, struct qc2_err *err)
{
	json_t *message, *part;
	char *text = NULL;
	int ret;

	if (request)
		text = json_dumps(request, JSON_COMPACT);
	json_decref(request);
	if (!text)
		return qc2_fail(err, ENOMEM, "no request could be made: not enough memory, or a name or path that is not UTF-8");

	ret = grow(call, err);
	if (!ret)
		ret = connect_daemon(call, err);
	if (!ret)
		ret = send_all(call, text, strlen(text), err);
	if (!ret)
		ret = send_all(call, "\n", 1, err);
	if (!ret)
		ret = receive(call, &message, err);
	while (!ret && progress && (part = json_object_get(message, "progress"))) {
		progress(arg, part);
		json_decref(message);
		ret = receive(call, &message, err);
	}
	if (call->fd >= 0)
		close(call->fd);
	free(call->buf);
	free(text);
	if (ret)
		return ret;

	ret = judge(message, err);
	if (!ret && reply)
		*reply = message;
	else
		json_decref(message);
	return ret;
}

int client_call(const char *socket_path, json_t *request, int limit_ms, int cancel_fd,
		json_t **reply, struct qc2_err *err)
{
	struct call call = {
		.path = socket_path,
		.fd = -1,
		.cancel_fd = cancel_fd,
		.deadline_ms = limit_ms < 0 ? -1 : now_ms() + limit_ms,
	};

	return do_call(&call, request, NULL, NULL, reply, err);
}

int client_follow(const char *socket_path, json_t *request,
		  void (*progress)(void *arg, const json_t *progress), void *arg,
		  json_t **reply, struct qc2_err *err)
{
	struct call call = {
		.path = socket_path, .fd = -1, .cancel_fd = -1, .deadline_ms = -1,
	};

	return do_call(&call, request, progress, arg, reply, err);
}

const char *client_str(const json_t *obj, const char *key)
{
	const char *s = json_string_value(json_object_get(obj, key));

	return s ? s : "";
}

uint64_t client_u64(const json_t *obj, const char *key)
{
	json_int_t v = json_integer_value(json_object_get(obj, key));

	return v > 0 ? v : 0;
}
