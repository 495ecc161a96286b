/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Programs that print keys (credential_process of AWS's profiles).  No shell: the
 * command is split into words, and its program is started with them.  It gets a process
 * group, /dev/null for standard input and error, and no descriptor of ours; when its time is
 * over the whole group is killed.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "credentials_source.h"
#include "secret.h"

/* A login may take a while; but who waits for it is a read of a disk. */
#define TIME_LIMIT_MS	30000

char **qc2_creds_split(const char *command)
{
	/* Each word takes a character and a space at least, but the last. */
	size_t len = strlen(command), max = len / 2 + 2, nr = 0;
	char **words = calloc(1, max * sizeof(*words) + len + 1), *out, quote = 0;
	bool in_word = false;

	if (!words)
		return NULL;
	out = (char *)(words + max);
	for (const char *p = command; *p; p++) {
		if (!quote && strchr(" \t\r\n", *p)) {
			if (in_word)
				*out++ = '\0';
			in_word = false;
			continue;
		}
		if (!in_word)
			words[nr++] = out;
		in_word = true;
		if (quote ? *p == quote : *p == '\'' || *p == '"') {
			quote = quote ? 0 : *p;
		} else if (*p == '\\' && (!quote || (quote == '"' && strchr("\"\\", p[1])))) {
			if (!*++p)
				goto invalid;
			*out++ = *p;
		} else {
			*out++ = *p;
		}
	}
	if (quote || !nr || !*words[0])
		goto invalid;
	return words;
invalid:
	free(words);
	errno = EINVAL;
	return NULL;
}

/* Starts it with its output in @pipe; returns 0 or a positive errno. */
static int spawn(char **words, int pipe, pid_t *pid)
{
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attr;
	sigset_t none, all;
	int ret;

	ret = posix_spawn_file_actions_init(&actions);
	if (ret)
		return ret;
	ret = posix_spawnattr_init(&attr);
	if (ret) {
		posix_spawn_file_actions_destroy(&actions);
		return ret;
	}
	/* The daemon blocks and ignores signals that the program should have. */
	sigemptyset(&none);
	sigfillset(&all);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK |
				 POSIX_SPAWN_SETSIGDEF);
	posix_spawnattr_setpgroup(&attr, 0);
	posix_spawnattr_setsigmask(&attr, &none);
	posix_spawnattr_setsigdefault(&attr, &all);
	ret = posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
	if (!ret)
		ret = posix_spawn_file_actions_adddup2(&actions, pipe, 1);
	/* It may print a secret when it fails. */
	if (!ret)
		ret = posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
	if (!ret)
		ret = posix_spawn_file_actions_addclosefrom_np(&actions, 3);
	if (!ret)
		ret = posix_spawnp(pid, words[0], &actions, &attr, words, environ);
	posix_spawnattr_destroy(&attr);
	posix_spawn_file_actions_destroy(&actions);
	return ret;
}

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000LL + ts.tv_nsec / 1000000;
}

/* Waits until @fd is readable, or @end; false: the time is over. */
static bool wait_readable(int fd, int64_t end)
{
	struct pollfd pfd = { .fd = fd, .events = POLLIN };
	int64_t left;
	int n;

	do {
		left = end - now_ms();
		n = poll(&pfd, 1, left > 0 ? left : 0);
	} while (n < 0 && errno == EINTR);
	return n > 0;
}

/* Reads to the end of the output. */
static int read_output(int fd, int64_t end, unsigned int limit_ms, char *text, size_t *len,
		       struct qc2_err *err)
{
	ssize_t got;

	for (*len = 0; ; *len += got) {
		if (!wait_readable(fd, end))
			return qc2_fail(err, EAGAIN, "did not end within %u ms", limit_ms);
		got = read(fd, text + *len, QC2_CREDS_MAX + 1 - *len);
		if (got < 0 && errno == EINTR)
			got = 0;
		else if (got < 0)
			return qc2_fail(err, EAGAIN, "its output cannot be read: %s",
					strerror(errno));
		else if (!got)
			return 0;
		if (*len + got > QC2_CREDS_MAX)
			return qc2_fail(err, EAGAIN, "prints more than %d KiB",
					QC2_CREDS_MAX >> 10);
	}
}

/* Waits for the end of the program, and kills what is left of its group. */
static int reap(pid_t pid, int ret, int64_t end, unsigned int limit_ms, struct qc2_err *err)
{
	int fd = -1, status;
	siginfo_t info;

	if (!ret) {
		fd = syscall(SYS_pidfd_open, pid, 0);
		if (fd >= 0 && !wait_readable(fd, end))
			ret = qc2_fail(err, EAGAIN, "did not end within %u ms", limit_ms);
		if (fd >= 0)
			close(fd);
		else
			ret = qc2_fail(err, EAGAIN, "pidfd_open: %s", strerror(errno));
	}
	/* Not reaped yet, so the number still means this group; its own end stays known. */
	if (!ret)
		waitid(P_PID, pid, &info, WEXITED | WNOWAIT);
	kill(-pid, SIGKILL);
	while (waitpid(pid, &status, 0) < 0) {
		if (errno != EINTR)
			return qc2_fail(err, EAGAIN, "waitpid: %s", strerror(errno));
	}
	if (ret)
		return ret;
	if (WIFSIGNALED(status))
		return qc2_fail(err, EAGAIN, "was killed by signal %d", WTERMSIG(status));
	if (WEXITSTATUS(status))
		return qc2_fail(err, EAGAIN, "failed with exit status %d", WEXITSTATUS(status));
	return 0;
}

static int run(char **words, unsigned int limit_ms, char *text, size_t *len, struct qc2_err *err)
{
	int64_t end = now_ms() + limit_ms;
	int fds[2], ret;
	pid_t pid;

	if (pipe2(fds, O_CLOEXEC))
		return qc2_fail(err, EAGAIN, "pipe: %s", strerror(errno));
	ret = spawn(words, fds[1], &pid);
	close(fds[1]);
	if (ret) {
		close(fds[0]);
		return qc2_fail(err, ret == EAGAIN || ret == ENOMEM ? EAGAIN : EACCES,
				"cannot be started: %s", strerror(ret));
	}
	ret = read_output(fds[0], end, limit_ms, text, len, err);
	close(fds[0]);
	return reap(pid, ret, end, limit_ms, err);
}

int qc2_creds_run(const char *command, unsigned int time_limit_ms, int64_t now,
		  struct qc2_keys **keys, struct qc2_err *err)
{
	unsigned int limit_ms = time_limit_ms ? time_limit_ms : TIME_LIMIT_MS;
	char **words = qc2_creds_split(command), *text;
	size_t len = 0;
	int ret;

	if (!words && errno == EINVAL)
		return qc2_fail(err, EACCES,
			"its command has a quote or backslash that nothing follows, or no program");
	text = words ? qc2_secret_alloc(QC2_CREDS_MAX + 1) : NULL;
	if (!text) {
		free(words);
		return qc2_fail(err, ENOMEM, "out of memory");
	}
	ret = run(words, limit_ms, text, &len, err);
	if (!ret) {
		ret = qc2_creds_parse_json(text, len, "SessionToken", true, now, keys, err);
		if (ret)
			qc2_fail_prefix(err, ret, "its output ");
	}
	qc2_secret_free(text);
	free(words);
	return ret;
}
