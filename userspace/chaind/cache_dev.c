/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The device under the cache: its file, its loop device.  Main thread; no state.
 */
#include <blkid/blkid.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <libgen.h>
#include <linux/fs.h>
#include <linux/loop.h>
#include <linux/magic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "cache_dev.h"
#include "log.h"
#include "loop.h"
#include "table.h"

#define SUPER_BYTES	4096

/* Whether what uses a device are disks of ours, and at least one. */
static bool held_by_disks(dev_t dev)
{
	unsigned int maj, min;
	char pattern[64];
	bool ours = true;
	glob_t found;
	size_t i;

	snprintf(pattern, sizeof(pattern), "/sys/dev/block/%u:%u/holders/*/dev",
		 major(dev), minor(dev));
	if (glob(pattern, 0, NULL, &found))
		return false;
	for (i = 0; ours && i < found.gl_pathc; i++) {
		FILE *file = fopen(found.gl_pathv[i], "re");

		ours = file && fscanf(file, "%u:%u", &maj, &min) == 2 &&
		       table_is_ours(maj, min);
		if (file)
			fclose(file);
	}
	globfree(&found);
	return ours;
}

/*
 * Two daemons must not write to one cache.  A lock by fcntl() goes with the
 * process (one by flock() would stay with the loop device); closing any other
 * descriptor of the file would drop it, so @fd stays open for good.
 */
static int lock_cache(int fd, const char *path, struct qc2_err *err)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

	if (!fcntl(fd, F_SETLK, &lock))
		return 0;
	if (errno != EAGAIN && errno != EACCES)
		return qc2_fail(err, errno, "cache %s: cannot lock: %s", path,
				strerror(errno));
	return qc2_fail(err, EBUSY,
			"cache %s: in use by another chaind; give each its own [cache] path",
			path);
}

static bool begins_with_zeros(int fd)
{
	static const char zeros[SUPER_BYTES];
	char block[SUPER_BYTES];

	return pread(fd, block, sizeof(block), 0) == sizeof(block) &&
	       !memcmp(block, zeros, sizeof(block));
}

/*
 * A device that begins with zeros becomes a cache; some file systems leave their first
 * block so, btrfs for one.
 */
static int check_unused(int fd, const char *path, struct qc2_err *err)
{
	const char *type = "";
	blkid_probe probe;
	int ret;

	if (!begins_with_zeros(fd))
		return 0;		/* its superblock will tell */
	probe = blkid_new_probe();
	if (!probe)
		return qc2_fail(err, ENOMEM, "cache: out of memory");
	blkid_probe_enable_partitions(probe, 1);
	if (blkid_probe_set_device(probe, fd, 0, 0))
		ret = qc2_fail(err, EIO, "cache %s: cannot be read", path);
	else if (blkid_do_safeprobe(probe) == 1)
		ret = 0;
	else if (blkid_probe_lookup_value(probe, "TYPE", &type, NULL) &&
		 blkid_probe_lookup_value(probe, "PTTYPE", &type, NULL))
		ret = qc2_fail(err, EEXIST,
			       "cache %s: may hold something else, see blkid -p %s; if that is not needed: wipefs -a %s",
			       path, path, path);
	else
		ret = qc2_fail(err, EEXIST,
			       "cache %s: holds something else (%s); if that is not needed: wipefs -a %s",
			       path, type, path);
	blkid_free_probe(probe);
	return ret;
}

static int open_device(const char *path, dev_t dev, char **device,
		       struct qc2_err *err)
{
	int fd, ret;

	/*
	 * A device that is mounted, or part of another one, must not be
	 * overwritten; a cache whose disks are running is in use by them.
	 */
	fd = open(path, O_RDWR | O_EXCL | O_CLOEXEC);
	if (fd >= 0) {
		/* Not later: when its descriptor is closed the lock would go. */
		ret = check_unused(fd, path, err);
		close(fd);
		if (ret)
			return ret;
	} else if (errno != EBUSY || !held_by_disks(dev)) {
		return qc2_fail(err, errno, "cache %s: %s", path,
				strerror(errno));
	}
	fd = open(path, O_RDWR | O_DIRECT | O_CLOEXEC);
	if (fd < 0)
		return qc2_fail(err, errno, "cache %s: %s", path,
				strerror(errno));
	ret = lock_cache(fd, path, err);
	*device = ret ? NULL : strdup(path);
	if (!*device) {
		close(fd);
		return ret ? ret : qc2_fail(err, ENOMEM, "cache: out of memory");
	}
	return fd;
}

/* The folder is made if only its last part is missing. */
static void make_folder(const char *path)
{
	char *copy = strdup(path);

	if (copy)
		mkdir(dirname(copy), 0700);	/* open() reports trouble */
	free(copy);
}

/* The loop device over the cache file: the one that is there, or a new one. */
static int get_loop(int file, const char *path, uint64_t size,
		    struct qc2_loop *loop, struct qc2_err *err)
{
	struct stat st;
	bool found;

	if (fstat(file, &st))
		return qc2_fail(err, errno, "cache %s: %s", path,
				strerror(errno));
	found = qc2_loop_find(st.st_dev, st.st_ino, loop);
	if (found && !loop->whole) {
		qc2_loop_release(loop);
		return qc2_fail(err, EBUSY,
				"cache %s: %s shows it read-only or in part; detach it: losetup -d %s",
				path, loop->path, loop->path);
	}
	/* One that disks use must not shrink. */
	if ((found ? st.st_size < (off_t)size : st.st_size != (off_t)size) &&
	    ftruncate(file, size)) {
		int ret = qc2_fail(err, errno,
				   "cache %s: cannot make it %llu bytes long: %s",
				   path, (unsigned long long)size,
				   strerror(errno));

		if (found)
			qc2_loop_release(loop);
		return ret;
	}
	if (!found)
		return qc2_loop_attach(file, path, loop, err);
	ioctl(loop->fd, LOOP_SET_CAPACITY, 0);	/* if it has grown */
	return 0;
}

static bool is_in_memory(int file)
{
	struct statfs fs;

	return !fstatfs(file, &fs) && (fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC);
}

static int open_file(const char *path, uint64_t size, char **device,
		     struct qc2_err *err)
{
	struct qc2_loop loop;
	int file, fd, ret;

	make_folder(path);
	file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (file < 0)
		return qc2_fail(err, errno, "cache %s: %s", path,
				strerror(errno));
	ret = lock_cache(file, path, err);
	if (!ret)
		ret = get_loop(file, path, size, &loop, err);
	if (ret) {
		close(file);
		return ret;
	}
	if (!loop.direct && !is_in_memory(file))
		log_warn("%s: the file system of %s does not allow direct I/O; the cache is held in memory twice",
			 loop.path, path);

	*device = strdup(loop.path);
	fd = *device ? open(loop.path, O_RDWR | O_DIRECT | O_CLOEXEC) : -1;
	if (fd < 0) {
		fd = qc2_fail(err, *device ? errno : ENOMEM, "%s: %s",
			      loop.path,
			      strerror(*device ? errno : ENOMEM));
		free(*device);
		*device = NULL;
	}
	qc2_loop_release(&loop);
	return fd;
}

static int get_size(int fd, const char *path, uint64_t *size, struct qc2_err *err)
{
	return ioctl(fd, BLKGETSIZE64, size) ?
	       qc2_fail(err, errno, "cache %s: its size: %s", path, strerror(errno)) : 0;
}

int cache_dev_grow(int fd, const char *path, uint64_t size, uint64_t *device_size,
		   struct qc2_err *err)
{
	struct stat st;

	if (!stat(path, &st) && S_ISREG(st.st_mode) && (uint64_t)st.st_size < size &&
	    (truncate(path, size) || ioctl(fd, LOOP_SET_CAPACITY, 0)))
		return qc2_fail(err, errno, "cache %s: cannot make it %llu bytes long: %s",
				path, (unsigned long long)size, strerror(errno));
	return get_size(fd, path, device_size, err);
}

void cache_dev_trim(int fd, const char *path, uint64_t size)
{
	uint64_t range[2] = { size };
	struct stat st;

	if (stat(path, &st) || !S_ISREG(st.st_mode) || get_size(fd, path, &range[1], NULL) ||
	    range[1] <= size)
		return;
	/*
	 * Not shorter: the disks' tables were made with that size.  Through the loop device:
	 * the lock would go when another descriptor of the file is closed.
	 */
	range[1] -= size;
	ioctl(fd, BLKDISCARD, range);
}

/* A file made instead of a device that is missing would take memory. */
static bool is_missing_device(const char *path)
{
	return errno == ENOENT && !strncmp(path, "/dev/", 5);
}

int cache_dev_try(const char *path, struct qc2_err *err)
{
	struct stat st;
	void *block;
	int fd, ret = 0;

	if (stat(path, &st) && errno == ENOENT && !is_missing_device(path))
		return 0;
	if (posix_memalign(&block, SUPER_BYTES, SUPER_BYTES))
		return qc2_fail(err, ENOMEM, "cache: out of memory");
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || (fcntl(fd, F_SETFL, O_DIRECT), pread(fd, block, SUPER_BYTES, 0) < 0))
		ret = qc2_fail(err, errno, "cache %s: %s", path, strerror(errno));
	if (fd >= 0)
		close(fd);
	free(block);
	return ret;
}

int cache_dev_open(const char *path, uint64_t size, char **device,
		   uint64_t *device_size, struct qc2_err *err)
{
	struct stat st;
	int fd, ret;

	if (stat(path, &st)) {
		if (errno != ENOENT || is_missing_device(path))
			return qc2_fail(err, errno, "cache %s: %s", path,
					strerror(errno));
		st.st_mode = S_IFREG;
	}
	if (S_ISBLK(st.st_mode))
		fd = open_device(path, st.st_rdev, device, err);
	else if (S_ISREG(st.st_mode))
		fd = open_file(path, size, device, err);
	else
		return qc2_fail(err, EINVAL,
				"cache %s: is neither a file nor a block device",
				path);
	if (fd < 0)
		return fd;
	ret = get_size(fd, path, device_size, err);
	if (ret) {
		close(fd);
		free(*device);
		return ret;
	}
	return fd;
}
