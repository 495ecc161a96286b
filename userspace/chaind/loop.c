/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Loop devices.  Main thread, before the event loop runs; no state.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "log.h"
#include "loop.h"

/* Other programs may take the free device first. */
#define ATTACH_TRIES	64

static int open_node(const char *name, char **device)
{
	int fd;

	if (asprintf(device, "/dev/%s", name) < 0) {
		*device = NULL;
		return -ENOMEM;
	}
	fd = open(*device, O_RDWR | O_DIRECT | O_CLOEXEC);
	if (fd < 0) {
		fd = -errno;
		free(*device);
		*device = NULL;
	}
	return fd;
}

static void close_node(int fd, char **device)
{
	close(fd);
	free(*device);
	*device = NULL;
}

/* With the device open it cannot detach itself: what is read here holds. */
static bool is_over(int fd, const struct stat *st)
{
	struct loop_info64 info;

	return !ioctl(fd, LOOP_GET_STATUS64, &info) &&
	       info.lo_device == st->st_dev && info.lo_inode == st->st_ino &&
	       !info.lo_offset && !info.lo_sizelimit &&
	       !(info.lo_flags & LO_FLAGS_READ_ONLY);
}

int loop_find(const char *path, char **device, struct qc2_err *err)
{
	struct dirent *ent;
	struct stat st;
	DIR *dir;
	int fd = -ENOENT;

	if (stat(path, &st))
		return errno == ENOENT ? -ENOENT :
		       qc2_fail(err, errno, "%s: %s", path, strerror(errno));
	dir = opendir("/sys/block");
	if (!dir)
		return qc2_fail(err, errno, "/sys/block: %s", strerror(errno));
	while ((ent = readdir(dir))) {
		char backing[300];

		snprintf(backing, sizeof(backing),
			 "/sys/block/%s/loop/backing_file", ent->d_name);
		if (strncmp(ent->d_name, "loop", 4) || access(backing, F_OK))
			continue;
		fd = open_node(ent->d_name, device);
		if (fd >= 0 && is_over(fd, &st))
			break;
		if (fd >= 0)
			close_node(fd, device);
		fd = -ENOENT;
	}
	closedir(dir);
	return fd;
}

static int try_attach(int control, const struct loop_config *config,
		      char **device, struct qc2_err *err)
{
	char name[32];
	int nr, fd, ret;

	nr = ioctl(control, LOOP_CTL_GET_FREE);
	if (nr < 0)
		return qc2_fail(err, errno, "no free loop device: %s",
				strerror(errno));
	snprintf(name, sizeof(name), "loop%d", nr);
	fd = open_node(name, device);
	if (fd < 0)
		return qc2_fail(err, -fd, "/dev/%s: %s", name, strerror(-fd));
	if (!ioctl(fd, LOOP_CONFIGURE, config))
		return fd;
	ret = qc2_fail(err, errno, "/dev/%s: cannot attach the cache: %s", name,
		       strerror(errno));
	close_node(fd, device);
	return ret;
}

int loop_attach(const char *path, char **device, struct qc2_err *err)
{
	struct loop_config config = {
		.info.lo_flags = LO_FLAGS_DIRECT_IO | LO_FLAGS_AUTOCLEAR,
	};
	struct loop_info64 info;
	int control, file, fd, i;

	file = open(path, O_RDWR | O_CLOEXEC);
	if (file < 0)
		return qc2_fail(err, errno, "%s: %s", path, strerror(errno));
	control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
	if (control < 0) {
		fd = qc2_fail(err, errno,
			      "/dev/loop-control: %s (is the loop module loaded?)",
			      strerror(errno));
		close(file);
		return fd;
	}
	config.fd = file;
	snprintf((char *)config.info.lo_file_name, LO_NAME_SIZE, "%s", path);
	for (i = 0, fd = -EBUSY; i < ATTACH_TRIES && fd == -EBUSY; i++)
		fd = try_attach(control, &config, device, err);
	close(control);
	close(file);
	if (fd >= 0 && !ioctl(fd, LOOP_GET_STATUS64, &info) &&
	    !(info.lo_flags & LO_FLAGS_DIRECT_IO))
		log_warn("%s: the file system of %s does not allow direct I/O; the cache is held in memory twice",
			 *device, path);
	return fd;
}
