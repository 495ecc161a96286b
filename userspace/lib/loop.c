/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Loop devices.  Which loop device lies over which file is asked of the
 * kernel each time (sysfs and LOOP_GET_STATUS64); nothing is remembered.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <linux/loop.h>
#include <linux/major.h>

#include "loop.h"

/* Others may take the device that GET_FREE named; so many times in a row. */
#define ATTACH_TRIES	64

/* Fills the rest of @loop, whose path and descriptor are set. */
static int read_state(struct qc2_loop *loop, struct loop_info64 *info)
{
	struct stat st;

	if (fstat(loop->fd, &st) || ioctl(loop->fd, LOOP_GET_STATUS64, info))
		return -errno;
	loop->dev = st.st_rdev;
	loop->direct = info->lo_flags & LO_FLAGS_DIRECT_IO;
	loop->whole = !info->lo_offset && !info->lo_sizelimit &&
		      !(info->lo_flags & LO_FLAGS_READ_ONLY);
	return 0;
}

static int attach_once(int control, int file_fd, const char *path, struct qc2_loop *loop,
		       struct qc2_err *err)
{
	struct loop_config config = {
		.fd = file_fd,
		/* Guests see 512-byte sectors, so tip and cache must have them. */
		.block_size = 512,
		.info.lo_flags = LO_FLAGS_DIRECT_IO | LO_FLAGS_AUTOCLEAR,
	};
	struct loop_info64 info;
	int nr, ret;

	nr = ioctl(control, LOOP_CTL_GET_FREE);
	if (nr < 0)
		return qc2_fail(err, errno, "no free loop device: %s", strerror(errno));
	snprintf(loop->path, sizeof(loop->path), "/dev/loop%d", nr);
	loop->fd = open(loop->path, O_RDWR | O_CLOEXEC);
	if (loop->fd < 0)
		return qc2_fail(err, errno, "%s: cannot open: %s", loop->path, strerror(errno));
	snprintf((char *)config.info.lo_file_name, sizeof(config.info.lo_file_name), "%s", path);
	if (ioctl(loop->fd, LOOP_CONFIGURE, &config)) {
		ret = qc2_fail(err, errno, "%s: cannot attach %s: %s", loop->path, path,
			       strerror(errno));
		goto fail;
	}
	ret = read_state(loop, &info);
	if (ret) {
		qc2_fail(err, -ret, "%s: cannot read its state: %s", loop->path, strerror(-ret));
		goto fail;
	}
	return 0;
fail:
	qc2_loop_release(loop);
	return ret;
}

int qc2_loop_attach(int file_fd, const char *path, struct qc2_loop *loop, struct qc2_err *err)
{
	int control, ret, tries = 0;

	loop->fd = -1;
	control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
	if (control < 0)
		return qc2_fail(err, errno,
				"/dev/loop-control: cannot open: %s; load the module: modprobe loop",
				strerror(errno));
	do {
		ret = attach_once(control, file_fd, path, loop, err);
	} while (ret == -EBUSY && ++tries < ATTACH_TRIES);
	close(control);
	return ret;
}

void qc2_loop_release(struct qc2_loop *loop)
{
	if (loop->fd >= 0)
		close(loop->fd);
	loop->fd = -1;
}

bool qc2_loop_find(dev_t file_dev, ino_t file_ino, struct qc2_loop *loop)
{
	DIR *dir = opendir("/sys/block");
	struct dirent *entry;
	bool found = false;

	while (dir && !found && (entry = readdir(dir))) {
		struct loop_info64 info;
		char attr[64];
		unsigned int nr;

		if (sscanf(entry->d_name, "loop%u", &nr) != 1)
			continue;
		/* There while something is attached */
		snprintf(attr, sizeof(attr), "/sys/block/loop%u/loop", nr);
		if (access(attr, F_OK))
			continue;
		snprintf(loop->path, sizeof(loop->path), "/dev/loop%u", nr);
		/* With the device open it cannot detach itself. */
		loop->fd = open(loop->path, O_RDONLY | O_CLOEXEC);
		if (loop->fd < 0)
			continue;
		found = !read_state(loop, &info) &&
			info.lo_device == file_dev && info.lo_inode == file_ino;
		if (!found)
			qc2_loop_release(loop);
	}
	if (dir)
		closedir(dir);
	return found;
}

static int read_attr(dev_t dev, const char *attr, char *buf, size_t size)
{
	char path[96];
	ssize_t len;
	int fd;

	snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/loop/%s", major(dev), minor(dev), attr);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -ENODEV;
	len = read(fd, buf, size - 1);
	close(fd);
	if (len <= 0)
		return -ENODEV;
	buf[len] = 0;
	buf[strcspn(buf, "\n")] = 0;
	return 0;
}

int qc2_loop_backing_file(dev_t dev, bool auto_only, char *path, size_t size)
{
	char autoclear[8];

	if (major(dev) != LOOP_MAJOR)
		return -ENODEV;
	if (auto_only && (read_attr(dev, "autoclear", autoclear, sizeof(autoclear)) ||
			  strcmp(autoclear, "1")))
		return -ENODEV;
	return read_attr(dev, "backing_file", path, size);
}
