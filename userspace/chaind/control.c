/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The control socket.  Main thread only.  A client is freed in one place,
 * on_client(), or with all others at the end.
 */
#include <errno.h>
#include <grp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <jansson.h>

#include "command.h"
#include "control.h"

#define MAX_REQUEST	65536
#define MAX_CLIENTS	64
#define READ_TIMEOUT_US	30000000

struct client {
	struct control *control;
	int fd;
	sd_event_source *io, *timer;
	char *in;
	size_t in_len;
	char *out;			/* messages to be sent, or NULL */
	size_t out_len, out_pos;
	bool asked;
	bool replied;			/* the last message is among them */
	TAILQ_ENTRY(client) entry;
};

struct control {
	struct chaind *chaind;
	char *path;
	int fd;
	sd_event_source *io;
	TAILQ_HEAD(, client) clients;
	unsigned int nr_clients;
};

static void free_client(struct client *client)
{
	struct control *control = client->control;

	command_abandon(control->chaind, client);
	TAILQ_REMOVE(&control->clients, client, entry);
	control->nr_clients--;
	sd_event_source_disable_unref(client->io);
	sd_event_source_disable_unref(client->timer);
	close(client->fd);
	free(client->in);
	free(client->out);
	free(client);
}

/* Messages are sent from on_client(), when the socket takes them. */
static void on_reply(void *arg, json_t *message, bool last)
{
	struct client *client = arg;
	char *text, *out;
	size_t len;

	if (!last && client->out) {
		json_decref(message);	/* a slow client does without it */
		return;
	}
	text = message ? json_dumps(message, JSON_COMPACT) : NULL;
	json_decref(message);
	if (!text && last)
		text = strdup("{\"ok\":false,\"errno\":12,\"error\":\"out of memory\"}");
	len = text ? strlen(text) : 0;
	out = text ? realloc(client->out, client->out_len + len + 1) : NULL;
	if (out) {
		memcpy(out + client->out_len, text, len);
		out[client->out_len + len] = '\n';
		client->out = out;
		client->out_len += len + 1;
	}
	free(text);
	client->replied = last;
	if (out || last)
		sd_event_source_set_io_events(client->io, EPOLLOUT);
}

static void run_request(struct client *client, size_t len)
{
	json_error_t jerr;
	json_t *request = json_loadb(client->in, len, JSON_REJECT_DUPLICATES,
				     &jerr);

	client->asked = true;
	sd_event_source_set_enabled(client->timer, SD_EVENT_OFF);
	/* From here on only its end is of interest. */
	sd_event_source_set_io_events(client->io, 0);
	if (request)
		command_run(client->control->chaind, request, on_reply, client);
	else
		on_reply(client, command_error(-EINVAL,
					       "request is not a JSON object in one line"), true);
	json_decref(request);
}

/* Return: false if the client is to be freed. */
static bool read_request(struct client *client)
{
	ssize_t n = recv(client->fd, client->in + client->in_len,
			 MAX_REQUEST - client->in_len, 0);
	char *end;

	if (n < 0)
		return errno == EAGAIN || errno == EINTR;
	client->in_len += n;
	end = memchr(client->in, '\n', client->in_len);
	if (end || (!n && client->in_len)) {
		run_request(client, end ? (size_t)(end - client->in) :
					  client->in_len);
		return true;
	}
	if (client->in_len == MAX_REQUEST) {
		client->asked = true;
		on_reply(client, command_error(-E2BIG,
					       "request is longer than 64 KiB"), true);
		return true;
	}
	return n > 0;
}

/* Return: false if the client is to be freed. */
static bool write_reply(struct client *client)
{
	ssize_t n;

	if (!client->out)
		return false;
	n = send(client->fd, client->out + client->out_pos,
		 client->out_len - client->out_pos, MSG_NOSIGNAL);
	if (n < 0)
		return errno == EAGAIN || errno == EINTR;
	client->out_pos += n;
	if (client->out_pos < client->out_len)
		return true;
	if (client->replied)
		return false;
	free(client->out);
	client->out = NULL;
	client->out_len = 0;
	client->out_pos = 0;
	sd_event_source_set_io_events(client->io, 0);
	return true;
}

static int on_client(sd_event_source *source, int fd, uint32_t revents,
		     void *arg)
{
	struct client *client = arg;
	bool keep = true;

	if (!client->asked && (revents & EPOLLIN))
		keep = read_request(client);
	else if (revents & (EPOLLHUP | EPOLLERR))
		keep = false;
	else if (revents & EPOLLOUT)
		keep = write_reply(client);
	if (!keep)
		free_client(client);
	return 0;
}

static int on_timeout(sd_event_source *source, uint64_t usec, void *arg)
{
	free_client(arg);
	return 0;
}

/*
 * The mode of the socket decides who can connect; this is the second check,
 * for a socket whose mode somebody changed.
 */
static bool may_ask(const struct control *control, int fd)
{
	struct ucred cred;
	socklen_t len = sizeof(cred);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len))
		return false;
	return cred.uid == 0 || cred.uid == geteuid() ||
	       control->chaind->cfg.group;
}

static int on_connect(sd_event_source *source, int fd, uint32_t revents,
		      void *arg)
{
	struct control *control = arg;
	sd_event *event = control->chaind->event;
	struct client *client;
	int conn;

	conn = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (conn < 0)
		return 0;
	client = calloc(1, sizeof(*client));
	if (client)
		client->in = malloc(MAX_REQUEST);
	if (!client || !client->in || control->nr_clients >= MAX_CLIENTS ||
	    !may_ask(control, conn)) {
		if (client)
			free(client->in);
		free(client);
		close(conn);
		return 0;
	}
	client->control = control;
	client->fd = conn;
	TAILQ_INSERT_TAIL(&control->clients, client, entry);
	control->nr_clients++;
	if (sd_event_add_io(event, &client->io, conn, EPOLLIN, on_client,
			    client) < 0 ||
	    sd_event_add_time_relative(event, &client->timer, CLOCK_MONOTONIC,
				       READ_TIMEOUT_US, 0, on_timeout,
				       client) < 0)
		free_client(client);
	return 0;
}

static int set_owner(const char *path, const char *group, struct qc2_err *err)
{
	struct group *gr;

	if (!group)
		return 0;
	gr = getgrnam(group);
	if (!gr)
		return qc2_fail(err, EINVAL,
				"there is no group \"%s\" (group in section [daemon])",
				group);
	if (chown(path, -1, gr->gr_gid) || chmod(path, 0660))
		return qc2_fail(err, errno, "%s: %s", path, strerror(errno));
	return 0;
}

int control_new(struct chaind *chaind, struct qc2_err *err)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	const char *path = chaind->cfg.socket;
	struct control *control;
	mode_t mask;
	int ret;

	if (strlen(path) >= sizeof(addr.sun_path))
		return qc2_fail(err, ENAMETOOLONG,
				"socket %s: the path is too long", path);
	strcpy(addr.sun_path, path);
	control = calloc(1, sizeof(*control));
	if (!control)
		return qc2_fail(err, ENOMEM, "out of memory");
	chaind->control = control;
	control->chaind = chaind;
	TAILQ_INIT(&control->clients);
	control->path = strdup(path);
	control->fd = socket(AF_UNIX,
			     SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (control->fd < 0 || !control->path)
		return qc2_fail(err, errno, "socket: %s", strerror(errno));
	if (unlink(path) && errno != ENOENT)
		return qc2_fail(err, errno, "socket %s: %s", path,
				strerror(errno));
	mask = umask(0177);
	ret = bind(control->fd, (struct sockaddr *)&addr, sizeof(addr));
	umask(mask);
	if (ret)
		return qc2_fail(err, errno, "socket %s: %s", path,
				strerror(errno));
	ret = set_owner(path, chaind->cfg.group, err);
	if (ret)
		return ret;
	if (listen(control->fd, 64))
		return qc2_fail(err, errno, "socket %s: %s", path,
				strerror(errno));
	ret = sd_event_add_io(chaind->event, &control->io, control->fd,
			      EPOLLIN, on_connect, control);
	return ret < 0 ? qc2_fail(err, -ret, "socket: %s", strerror(-ret)) : 0;
}

void control_free(struct control *control)
{
	struct client *client;

	if (!control)
		return;
	while ((client = TAILQ_FIRST(&control->clients)))
		free_client(client);
	sd_event_source_disable_unref(control->io);
	if (control->fd >= 0) {
		close(control->fd);
		unlink(control->path);
	}
	free(control->path);
	free(control);
}
