/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What verbs that work on disks share; see disk.h.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "client.h"
#include "disk.h"
#include "holders.h"
#include "loop.h"
#include "url.h"

int disk_check_name(const char *name, struct qc2_err *err)
{
	static const char allowed[] =
		"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.+-";

	if (!*name || strlen(name) > DISK_NAME_MAX || name[strspn(name, allowed)] ||
	    strchr(".+-", *name))
		return qc2_fail(err, EBADARG,
				"\"%s\" is no name for a disk: expected 1 to %d letters, digits or _ . + -, the first a letter, digit or _",
				name, DISK_NAME_MAX);
	if (!strcmp(name, "control"))
		return qc2_fail(err, EBADARG, "\"control\" is a name that device-mapper needs itself");
	return 0;
}

char *disk_canonical_url(const char *url, struct qc2_err *err)
{
	struct qc2_top top;
	char *text;

	if (qc2_url_top(url, &top, err))
		return NULL;
	text = qc2_top_text(&top);
	qc2_top_free(&top);
	if (!text)
		qc2_fail(err, ENOMEM, "out of memory");
	return text;
}

int disk_check_url(const char *url, struct qc2_err *err)
{
	char *canonical;

	if (*url == '/')
		return qc2_fail(err, EBADARG,
				"\"%s\" is a path, not a URL; did you mean file://%s ?", url, url);
	canonical = disk_canonical_url(url, err);
	free(canonical);
	return canonical ? 0 : -EBADARG;
}

int disk_need_root(struct qc2_err *err)
{
	if (geteuid())
		return qc2_fail(err, EPERM, "only root can make and remove disks; use sudo");
	return 0;
}

int disk_make_dirs(const char *path, mode_t mode, struct qc2_err *err)
{
	char *copy = strdup(path);
	char *slash = copy;
	int ret = 0;

	if (!copy)
		return qc2_fail(err, ENOMEM, "not enough memory");
	do {
		slash = strchr(slash + 1, '/');
		if (slash)
			*slash = 0;
		if (*copy && mkdir(copy, mode) && errno != EEXIST) {
			ret = qc2_fail(err, errno, "%s: cannot make the folder: %s", copy,
				       strerror(errno));
			break;
		}
		if (slash)
			*slash = '/';
	} while (slash);
	free(copy);
	return ret;
}

int disk_lock(const struct ctl *ctl, const char *name, struct disk_lock_file *lock,
	      struct qc2_err *err)
{
	struct stat by_fd, by_path;
	int ret;

	lock->fd = -1;
	lock->path = NULL;
	ret = disk_make_dirs(ctl->cfg.run_dir, 0755, err);
	if (ret)
		return ret;
	if (asprintf(&lock->path, "%s/%s.lock", ctl->cfg.run_dir, name) < 0) {
		lock->path = NULL;
		return qc2_fail(err, ENOMEM, "not enough memory");
	}
	for (;;) {
		lock->fd = open(lock->path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
		if (lock->fd < 0) {
			ret = qc2_fail(err, errno, "%s: cannot open: %s", lock->path,
				       strerror(errno));
			break;
		}
		if (flock(lock->fd, LOCK_EX | LOCK_NB)) {
			if (errno == EWOULDBLOCK)
				ret = qc2_fail(err, EBUSY,
					       "another chainctl is starting or stopping %s", name);
			else
				ret = qc2_fail(err, errno, "%s: cannot lock: %s", lock->path,
					       strerror(errno));
			break;
		}
		/* The one before us may have removed the file that we opened. */
		if (!fstat(lock->fd, &by_fd) && !stat(lock->path, &by_path) &&
		    by_fd.st_dev == by_path.st_dev && by_fd.st_ino == by_path.st_ino)
			return 0;
		close(lock->fd);
	}
	if (lock->fd >= 0)
		close(lock->fd);
	free(lock->path);
	return ret;
}

void disk_unlock(struct disk_lock_file *lock)
{
	unlink(lock->path);
	close(lock->fd);
	free(lock->path);
}

int disk_remove(const char *name, const struct dm_dev *dev, struct qc2_err *err)
{
	char holders[512];
	int ret, waited = 0;

	for (;;) {
		ret = dm_remove(name, err);
		if (ret == -ENXIO)
			return 0;
		if (ret != -EBUSY)
			return ret;
		if (holders_find(makedev(dev->major, dev->minor), holders, sizeof(holders)) ||
		    waited >= DISK_BUSY_WAIT_MS)
			break;
		poll(NULL, 0, DISK_BUSY_STEP_MS);
		waited += DISK_BUSY_STEP_MS;
	}
	if (!*holders)
		return qc2_fail(err, EBUSY,
				"%s is in use; nobody was found who holds it, perhaps a mount in another mount namespace or a kernel user",
				name);
	return qc2_fail(err, EBUSY, "%s is in use: %s", name, holders);
}

int disk_tip(const char *table, dev_t *dev, char *path, size_t size)
{
	char link[64], target[256];
	unsigned int maj, min;
	const char *base;
	ssize_t len;

	*path = 0;
	/* CHAIN_ID TIP_DEV ... */
	if (sscanf(table, "%*s %u:%u", &maj, &min) != 2)
		return -EINVAL;
	*dev = makedev(maj, min);
	if (!qc2_loop_backing_file(*dev, true, path, size))
		return 0;
	snprintf(link, sizeof(link), "/sys/dev/block/%u:%u", maj, min);
	len = readlink(link, target, sizeof(target) - 1);
	if (len > 0) {
		target[len] = 0;
		base = strrchr(target, '/');
		snprintf(path, size, "/dev/%s", base ? base + 1 : target);
		/* sysfs writes the '/' of names such as cciss/c0d0 as '!'. */
		for (char *c = path; *c; c++)
			if (*c == '!')
				*c = '/';
	}
	return 0;
}

json_t *disk_request(const char *cmd, const char *name)
{
	return json_pack("{s:s, s:s}", "cmd", cmd, "name", name);
}

int disk_ask_daemon(const struct ctl *ctl, const char *name, json_t **disk,
		    struct qc2_err *err)
{
	json_t *reply;
	int ret;

	ret = client_call(ctl->cfg.socket, disk_request("status", name), CLIENT_LIMIT_MS, -1,
			  &reply, err);
	if (ret)
		return ret;
	*disk = json_incref(json_array_get(json_object_get(reply, "disks"), 0));
	json_decref(reply);
	if (!*disk)
		return qc2_fail(err, ENOENT, "chaind does not know %s", name);
	return 0;
}
