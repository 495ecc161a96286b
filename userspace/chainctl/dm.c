/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Device-mapper as chainctl uses it.
 *
 * Where udev runs, device nodes are its business and we wait for it with a
 * cookie; where it does not, libdevmapper makes the nodes.  Why the kernel
 * refused a table is only in its log, so the log is read behind a failed
 * ioctl.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/sem.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include <libdevmapper.h>

#include "dm.h"

/* udev reads the first sectors of a new disk, which may be far away. */
#define UDEV_FIRST_MS	60000
/* Else it has nothing to wait for. */
#define UDEV_QUICK_MS	10000
#define UDEV_POLL_MS	20

/* First error that libdevmapper reported in the operation under way */
static char dm_msg[256];
/* The kernel log behind the start of the operation under way; -1: none */
static int kmsg_fd = -1;

static void __attribute__((format(printf, 5, 6)))
keep_message(int level, const char *file, int line, int dm_errno, const char *fmt, ...)
{
	va_list ap;

	/* The low bits are the syslog level; 3 is "error". */
	if ((level & 7) > 3 || *dm_msg)
		return;
	va_start(ap, fmt);
	vsnprintf(dm_msg, sizeof(dm_msg), fmt, ap);
	va_end(ap);
}

void dm_setup(void)
{
	dm_log_with_errno_init(keep_message);
	dm_hold_control_dev(1);
}

void dm_teardown(void)
{
	dm_hold_control_dev(0);
	dm_lib_exit();
}

static void kmsg_mark(void)
{
	kmsg_fd = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (kmsg_fd >= 0)
		lseek(kmsg_fd, 0, SEEK_END);
}

/* The last that our target logged since the mark; empty if nothing. */
static void kmsg_reason(char *reason, size_t size)
{
	char rec[8192];
	ssize_t len;

	*reason = 0;
	while (kmsg_fd >= 0 && ((len = read(kmsg_fd, rec, sizeof(rec) - 1)) > 0 ||
				errno == EPIPE)) {
		char *text;

		if (len < 0)
			continue;	/* records were overwritten; go on behind */
		rec[len] = 0;
		/* "priority,sequence,time,flags;text", then lines of a dictionary */
		text = strchr(rec, ';');
		if (!text || !strstr(text, DM_TARGET ": "))
			continue;
		text = strstr(text, DM_TARGET ": ") + strlen(DM_TARGET ": ");
		text[strcspn(text, "\n")] = 0;
		snprintf(reason, size, "%s", text);
	}
}

static void kmsg_done(void)
{
	if (kmsg_fd >= 0)
		close(kmsg_fd);
	kmsg_fd = -1;
}

static int no_task(struct qc2_err *err)
{
	if (!*dm_msg)
		return qc2_fail(err, ENOMEM, "device-mapper: not enough memory");
	/* libdevmapper talks to the kernel when the first task is made. */
	if (geteuid())
		return qc2_fail(err, EPERM, "%s; run chainctl as root", dm_msg);
	return qc2_fail(err, ENODEV, "%s; load the module: modprobe dm-mod", dm_msg);
}

static struct dm_task *task_new(int type, const char *name)
{
	struct dm_task *task;

	*dm_msg = 0;
	task = dm_task_create(type);
	if (task && name && !dm_task_set_name(task, name)) {
		dm_task_destroy(task);
		return NULL;
	}
	return task;
}

static int task_run(struct dm_task *task, const char *name, const char *what,
		    struct qc2_err *err)
{
	int errnum;

	if (dm_task_run(task))
		return 0;
	errnum = dm_task_get_errno(task);
	if (!errnum)
		return qc2_fail(err, ENODEV, "device-mapper: %s",
				*dm_msg ? dm_msg : "the kernel does not answer");
	return qc2_fail(err, errnum, "device-mapper: cannot %s %s: %s", what, name,
			strerror(errnum));
}

/* Removes a semaphore that nobody will complete any more. */
static void udev_abandon(uint32_t cookie)
{
	int id = semget(cookie, 1, 0);

	if (id >= 0)
		semctl(id, 0, IPC_RMID, 0);
}

/*
 * Waits until udev has handled the event with this cookie.  Unlike
 * dm_udev_wait() the wait has an end, after which libdevmapper sees to the
 * node itself, and can be interrupted.
 *
 * Return: 0, -ETIME if udev is not ready, -EINTR.
 */
static int udev_settle(uint32_t cookie, int limit_ms, int cancel_fd)
{
	struct pollfd cancel = { .fd = cancel_fd, .events = POLLIN };
	int waited = 0;
	/* Without udev there is no cookie, and nothing that would get ready. */
	int ready = !cookie || !dm_udev_get_sync_support();

	int ret = 0;

	while (!ready && dm_udev_wait_immediate(cookie, &ready) && !ready) {
		if (poll(&cancel, 1, UDEV_POLL_MS) > 0)
			ret = -EINTR;
		else if (waited >= limit_ms)
			ret = -ETIME;
		if (ret) {
			udev_abandon(cookie);
			break;
		}
		waited += UDEV_POLL_MS;
	}
	dm_task_update_nodes();
	return ret;
}

int dm_info(const char *name, struct dm_dev *dev, struct qc2_err *err)
{
	struct dm_task *task = task_new(DM_DEVICE_INFO, name);
	struct dm_info info;
	const char *uuid;
	int ret;

	memset(dev, 0, sizeof(*dev));
	if (!task)
		return no_task(err);
	ret = task_run(task, name, "look up", err);
	if (!ret && dm_task_get_info(task, &info) && info.exists) {
		dev->exists = true;
		dev->live_table = info.live_table;
		dev->suspended = info.suspended;
		dev->major = info.major;
		dev->minor = info.minor;
		dev->open_count = info.open_count;
		uuid = dm_task_get_uuid(task);
		if (uuid)
			snprintf(dev->uuid, sizeof(dev->uuid), "%s", uuid);
	}
	dm_task_destroy(task);
	return ret == -ENXIO ? 0 : ret;
}

int dm_check_kernel(struct qc2_err *err)
{
	struct dm_task *task = task_new(DM_DEVICE_GET_TARGET_VERSION, DM_TARGET);
	int ret;

	if (!task)
		return no_task(err);
	ret = task_run(task, DM_TARGET, "find the target", err);
	dm_task_destroy(task);
	if (ret == -EINVAL || ret == -ENXIO)
		return qc2_fail(err, ENODEV,
				"the kernel has no target %s; load the module: modprobe dm-qcow2chain",
				DM_TARGET);
	return ret;
}

int dm_make(const char *name, const char *uuid, struct dm_dev *dev, struct qc2_err *err)
{
	struct dm_task *task = task_new(DM_DEVICE_CREATE, name);
	struct dm_info info;
	int ret;

	memset(dev, 0, sizeof(*dev));
	if (!task)
		return no_task(err);
	/* The node comes with the first resume; before it nothing can be read. */
	if (!dm_task_set_uuid(task, uuid) ||
	    !dm_task_set_add_node(task, DM_ADD_NODE_ON_RESUME))
		ret = no_task(err);
	else
		ret = task_run(task, name, "create", err);
	if (!ret && !dm_task_get_info(task, &info))
		ret = no_task(err);
	dm_task_destroy(task);
	if (ret)
		return ret;
	dev->exists = true;
	dev->major = info.major;
	dev->minor = info.minor;
	return 0;
}

static int load(const char *name, uint64_t nr_sectors, const char *type, const char *params,
		struct qc2_err *err)
{
	struct dm_task *task = task_new(DM_DEVICE_RELOAD, name);
	char reason[256];
	int ret;

	if (!task)
		return no_task(err);
	if (!dm_task_add_target(task, 0, nr_sectors, type, params)) {
		ret = no_task(err);
	} else {
		kmsg_mark();
		ret = task_run(task, name, "load the table of", err);
		kmsg_reason(reason, sizeof(reason));
		kmsg_done();
		if (ret && *reason)
			ret = qc2_fail(err, -ret,
				       "the kernel refused the table \"0 %llu %s %s\" of %s: %s",
				       (unsigned long long)nr_sectors, type, params, name,
				       reason);
	}
	dm_task_destroy(task);
	return ret;
}

int dm_load(const char *name, uint64_t nr_sectors, const char *params, struct qc2_err *err)
{
	return load(name, nr_sectors, DM_TARGET, params, err);
}

static int resume(const char *name, int limit_ms, int cancel_fd, bool *settled,
		  struct qc2_err *err)
{
	struct dm_task *task = task_new(DM_DEVICE_RESUME, name);
	char reason[256];
	uint32_t cookie = 0;
	int ret, udev;

	if (!task)
		return no_task(err);
	if (!dm_task_set_add_node(task, DM_ADD_NODE_ON_RESUME) ||
	    !dm_task_set_cookie(task, &cookie, 0)) {
		ret = no_task(err);
		dm_task_destroy(task);
		return ret;
	}
	kmsg_mark();
	ret = task_run(task, name, "activate", err);
	kmsg_reason(reason, sizeof(reason));
	kmsg_done();
	dm_task_destroy(task);
	if (ret && *reason)
		ret = qc2_fail(err, -ret, "the kernel could not activate %s: %s", name, reason);
	udev = udev_settle(cookie, limit_ms, cancel_fd);
	*settled = udev != -ETIME;
	if (!ret && udev == -EINTR)
		ret = qc2_fail(err, EINTR, "interrupted while udev set %s up", name);
	return ret;
}

int dm_resume(const char *name, int cancel_fd, bool *settled, struct qc2_err *err)
{
	return resume(name, UDEV_FIRST_MS, cancel_fd, settled, err);
}

static int suspend_noflush(const char *name, struct qc2_err *err)
{
	struct dm_task *task = task_new(DM_DEVICE_SUSPEND, name);
	int ret;

	if (!task)
		return no_task(err);
	if (!dm_task_no_flush(task) || !dm_task_skip_lockfs(task))
		ret = no_task(err);
	else
		ret = task_run(task, name, "suspend", err);
	dm_task_destroy(task);
	return ret;
}

int dm_fail_io(const char *name, uint64_t nr_sectors, struct qc2_err *err)
{
	bool settled;
	int ret;

	ret = load(name, nr_sectors, "error", "", err);
	if (!ret)
		ret = suspend_noflush(name, err);
	if (!ret)
		ret = resume(name, UDEV_QUICK_MS, -1, &settled, err);
	return ret;
}

int dm_remove(const char *name, struct qc2_err *err)
{
	struct dm_task *task = task_new(DM_DEVICE_REMOVE, name);
	uint32_t cookie = 0;
	int ret;

	if (!task)
		return no_task(err);
	if (!dm_task_set_cookie(task, &cookie, 0)) {
		ret = no_task(err);
		dm_task_destroy(task);
		return ret;
	}
	ret = task_run(task, name, "remove", err);
	dm_task_destroy(task);
	/* libdevmapper completes the cookie itself if the ioctl failed. */
	udev_settle(cookie, UDEV_QUICK_MS, -1);
	return ret;
}

static int first_target(int type, const char *name, struct dm_target *target,
			struct qc2_err *err)
{
	struct dm_task *task = task_new(type, name);
	char *ttype = NULL, *params = NULL;
	uint64_t start, length = 0;
	int ret;

	memset(target, 0, sizeof(*target));
	if (!task)
		return no_task(err);
	/* Looking at a device must not cause a commit. */
	if (!dm_task_no_flush(task))
		ret = no_task(err);
	else
		ret = task_run(task, name, "read the state of", err);
	if (!ret) {
		dm_get_next_target(task, NULL, &start, &length, &ttype, &params);
		target->nr_sectors = ttype ? length : 0;
		target->type = strdup(ttype ? ttype : "");
		target->params = strdup(params ? params : "");
		if (!target->type || !target->params) {
			dm_target_free(target);
			ret = qc2_fail(err, ENOMEM, "not enough memory");
		}
	}
	dm_task_destroy(task);
	return ret;
}

int dm_table(const char *name, struct dm_target *target, struct qc2_err *err)
{
	return first_target(DM_DEVICE_TABLE, name, target, err);
}

int dm_status(const char *name, struct dm_target *target, struct qc2_err *err)
{
	return first_target(DM_DEVICE_STATUS, name, target, err);
}

void dm_target_free(struct dm_target *target)
{
	free(target->type);
	free(target->params);
	memset(target, 0, sizeof(*target));
}

int dm_names(char ***names, size_t *nr, struct qc2_err *err)
{
	struct dm_task *task = task_new(DM_DEVICE_LIST, NULL);
	struct dm_names *entry;
	char **list = NULL;
	size_t n = 0;
	int ret;

	if (!task)
		return no_task(err);
	ret = task_run(task, "devices", "list", err);
	if (ret)
		goto out;
	entry = dm_task_get_names(task);
	if (!entry)
		ret = no_task(err);
	while (!ret && entry->dev) {
		char **more = realloc(list, (n + 1) * sizeof(*list));

		if (more)
			list = more;
		if (!more || !(list[n] = strdup(entry->name))) {
			ret = qc2_fail(err, ENOMEM, "not enough memory");
			break;
		}
		n++;
		if (!entry->next)
			break;
		entry = (struct dm_names *)((char *)entry + entry->next);
	}
out:
	dm_task_destroy(task);
	if (ret) {
		dm_names_free(list, n);
		return ret;
	}
	*names = list;
	*nr = n;
	return 0;
}

void dm_names_free(char **names, size_t nr)
{
	for (size_t i = 0; i < nr; i++)
		free(names[i]);
	free(names);
}
