/* SPDX-License-Identifier: GPL-2.0 */
/*
 * stop: removes the mapped device, tells the daemon, waits until the loop
 * device is gone, and deletes the tip if asked to.  Needs no daemon, so that
 * a disk can always be stopped.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "client.h"
#include "disk.h"
#include "loop.h"

/* Writes of the last seconds become durable, or the user hears of it. */
static void flush_device(const struct ctl *ctl, const char *name)
{
	char node[DISK_NODE_LEN];
	int fd;

	snprintf(node, sizeof(node), "/dev/mapper/%s", name);
	fd = open(node, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return;		/* no node; the kernel commits at removal all the same */
	if (fsync(fd))
		out_warn(ctl, "%s: the last flush failed: %s; what was written since the one before may be lost",
			 name, strerror(errno));
	close(fd);
}

/* Lets the daemon forget the disk, if it is there to do so. */
static void close_daemon(const struct ctl *ctl, const char *name)
{
	struct qc2_err err = { };
	char *state = NULL;
	int ret;

	ret = client_call(ctl->cfg.socket, disk_request("close", name), CLIENT_LIMIT_MS, -1, NULL,
			  &err);
	if (!ret || ret == -ENOENT)
		return;
	if (ret != -ENOTCONN)
		out_warn(ctl, "chaind did not let go of %s: %s", name, err.msg);
	/* A daemon that starts later must not look for the disk. */
	if (asprintf(&state, "%s/disks/%s.json", ctl->cfg.run_dir, name) >= 0) {
		unlink(state);
		free(state);
	}
}

/* Is this file still below this loop device? */
static void await_loop(const struct ctl *ctl, dev_t dev, const char *file)
{
	char now[PATH_MAX];
	int waited = 0;

	while (!qc2_loop_backing_file(dev, false, now, sizeof(now)) && !strcmp(now, file)) {
		if (waited >= DISK_BUSY_WAIT_MS) {
			out_warn(ctl, "/dev/loop%u still holds %s: another program has the loop device open",
				 minor(dev), file);
			return;
		}
		poll(NULL, 0, DISK_BUSY_STEP_MS);
		waited += DISK_BUSY_STEP_MS;
	}
}

static int remove_running(struct ctl *ctl, const char *name, const struct dm_dev *dev,
			  char *tip, size_t size, struct qc2_err *err)
{
	struct dm_target target;
	json_t *disk = NULL;
	char file[PATH_MAX];
	dev_t tip_dev = 0;
	bool looped = false;
	int ret;

	*tip = 0;
	ret = dm_table(name, &target, err);
	if (ret)
		return ret;
	if (dev->live_table && strcmp(target.type, DM_TARGET) == 0)
		disk_tip(target.params, &tip_dev, tip, size);
	dm_target_free(&target);
	looped = !qc2_loop_backing_file(tip_dev, true, file, sizeof(file));
	/* A loop device may be the user's own; the daemon knows what was asked for. */
	if (ctl->discard && !disk_ask_daemon(ctl, name, &disk, NULL)) {
		if (*client_str(disk, "tip"))
			snprintf(tip, size, "%s", client_str(disk, "tip"));
		json_decref(disk);
	}

	if (!dev->open_count && dev->live_table && !ctl->discard)
		flush_device(ctl, name);
	ret = disk_remove(name, dev, err);
	if (ret)
		return qc2_fail_prefix(err, ret, "%s was not stopped: ", name);
	close_daemon(ctl, name);
	if (looped)
		await_loop(ctl, tip_dev, file);
	return 0;
}

static int stop_locked(struct ctl *ctl, const char *name, struct qc2_err *err)
{
	char uuid[DISK_UUID_LEN];
	char tip[PATH_MAX] = "";
	bool discarded = false;
	struct dm_dev dev;
	int ret;

	snprintf(uuid, sizeof(uuid), DISK_UUID_PREFIX "%s", name);
	ret = dm_info(name, &dev, err);
	if (ret)
		return ret;
	if (dev.exists && strcmp(dev.uuid, uuid))
		return qc2_fail(err, ENOENT,
				"the device-mapper device %s is not chainctl's (uuid \"%s\"); it is left alone",
				name, dev.uuid);
	if (dev.exists)
		ret = remove_running(ctl, name, &dev, tip, sizeof(tip), err);
	else
		close_daemon(ctl, name);
	if (ret)
		return ret;
	if (ctl->discard) {
		if (!*tip)
			snprintf(tip, sizeof(tip), "%s/%s.tip", ctl->cfg.tip_dir, name);
		ret = tip_discard(tip, err);
		if (ret && ret != -ENOENT)
			return qc2_fail_prefix(err, ret, "%s is stopped, but its tip was not deleted: ",
					       name);
		discarded = !ret;
	}
	if (ctl->json)
		return out_json(json_pack("{s:i, s:s, s:b, s:s?}", "schema", 1, "name", name,
					  "was_running", dev.exists,
					  "discarded", discarded ? tip : NULL), err);
	printf("%s: %s", name, dev.exists ? "stopped" : "not running");
	if (discarded) {
		printf(", discarded its tip ");
		out_text(stdout, tip);
	} else if (ctl->discard) {
		printf(", no tip at ");
		out_text(stdout, tip);
	}
	putchar('\n');
	return 0;
}

int disk_stop(struct ctl *ctl, struct qc2_err *err)
{
	const char *name = ctl->arg[0];
	struct disk_lock_file lock;
	int ret;

	ret = disk_check_name(name, err);
	if (!ret)
		ret = disk_need_root(err);
	if (!ret)
		ret = disk_lock(ctl, name, &lock, err);
	if (ret)
		return ret;
	ret = stop_locked(ctl, name, err);
	disk_unlock(&lock);
	return ret;
}
