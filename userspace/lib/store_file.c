/* SPDX-License-Identifier: GPL-2.0 */
/* Files as objects.  No state is shared; any thread may call these functions. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store_file.h"
#include "store_type.h"
#include "url.h"

#define MAX_LIST_DEPTH	64

const struct qc2_store_type qc2_store_file;

int qc2_file_version(const char *url, const char *path, char **version, uint64_t *size,
		     struct qc2_err *err)
{
	struct stat st;

	*version = NULL;
	if (stat(path, &st))
		return qc2_fail(err, errno, "%s: %s", url, strerror(errno));
	if (S_ISDIR(st.st_mode))
		return qc2_fail(err, EISDIR, "%s: is a directory, not an image", url);
	if (!S_ISREG(st.st_mode))
		return qc2_fail(err, EINVAL, "%s: is not a regular file", url);
	if (asprintf(version, "%jd-%jd.%09ld", (intmax_t)st.st_size,
		     (intmax_t)st.st_mtim.tv_sec, st.st_mtim.tv_nsec) < 0) {
		*version = NULL;
		return qc2_fail(err, ENOMEM, "%s: out of memory", url);
	}
	*size = st.st_size;
	return 0;
}

/*
 * ---------------------------------------------------------------------------
 * Writing
 * ---------------------------------------------------------------------------
 */

static int write_fail(struct qc2_err *err, const char *path, int ret)
{
	return qc2_fail(err, -ret, "%s: cannot be written: %s", path,
			ret == -EEXIST ? "there is such a file already" : strerror(-ret));
}

static int write_all(int fd, const char *buf, size_t len, uint64_t offset)
{
	while (len) {
		ssize_t n = pwrite(fd, buf, len, offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		buf += n;
		offset += n;
		len -= n;
	}
	return 0;
}

/* As open() would make a new file; mkstemp() makes it for nobody else. */
static int set_mode(int fd)
{
	mode_t mask = umask(0);

	umask(mask);
	return fchmod(fd, 0666 & ~mask) ? -errno : 0;
}

static int sync_folder(const char *path)
{
	const char *slash = strrchr(path, '/');
	char *folder = slash ? strndup(path, slash - path + 1) : strdup(".");
	int fd, ret = 0;

	if (!folder)
		return -ENOMEM;
	fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	free(folder);
	if (fd < 0)
		return -errno;
	if (fsync(fd))
		ret = -errno;
	close(fd);
	return ret;
}

/* A name that is there already stays as it is with @if_absent. */
static int take_place(const char *temp, const char *path, bool if_absent)
{
	if (if_absent) {
		if (link(temp, path))
			return -errno;
		unlink(temp);
	} else if (rename(temp, path)) {
		return -errno;
	}
	return sync_folder(path);
}

static int check_version(const char *path, const char *version, struct qc2_err *err)
{
	char *seen;
	uint64_t size;
	int ret;

	ret = qc2_file_version(path, path, &seen, &size, err);
	if (ret)
		return ret;
	if (strcmp(seen, version))
		ret = qc2_fail(err, ESTALE, "%s: the file changed since it was opened", path);
	free(seen);
	return ret;
}

int qc2_file_put(const char *path, const void *buf, size_t len, bool if_absent,
		 const char *if_version, struct qc2_err *err)
{
	char *temp;
	int ret;

	ret = qc2_file_start(path, &temp, err);
	if (ret)
		return ret;
	ret = qc2_file_part(temp, 0, buf, len, err);
	if (!ret && if_version)
		ret = check_version(path, if_version, err);
	if (!ret)
		ret = qc2_file_complete(path, temp, if_absent, err);
	if (ret)
		unlink(temp);
	free(temp);
	return ret;
}

int qc2_file_start(const char *path, char **temp, struct qc2_err *err)
{
	int fd, ret;

	if (asprintf(temp, "%s.XXXXXX", path) < 0)
		return qc2_fail(err, ENOMEM, "out of memory");
	fd = mkostemp(*temp, O_CLOEXEC);
	if (fd < 0) {
		ret = write_fail(err, path, -errno);
		free(*temp);
		*temp = NULL;
		return ret;
	}
	close(fd);
	return 0;
}

int qc2_file_part(const char *temp, uint64_t offset, const void *buf, size_t len,
		  struct qc2_err *err)
{
	int fd = open(temp, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
	int ret = fd < 0 ? -errno : write_all(fd, buf, len, offset);

	if (fd >= 0 && close(fd) && !ret)
		ret = -errno;
	return ret ? write_fail(err, temp, ret) : 0;
}

int qc2_file_complete(const char *path, const char *temp, bool if_absent,
		      struct qc2_err *err)
{
	int fd = open(temp, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
	int ret = fd < 0 ? -errno : set_mode(fd);

	if (!ret && fsync(fd))
		ret = -errno;
	if (fd >= 0 && close(fd) && !ret)
		ret = -errno;
	if (!ret)
		ret = take_place(temp, path, if_absent);
	return ret ? write_fail(err, path, ret) : 0;
}

int qc2_file_delete(const char *path, struct qc2_err *err)
{
	int ret = 0;

	if (unlink(path) && errno != ENOENT)
		ret = -errno;
	if (!ret)
		ret = sync_folder(path);
	if (!ret || ret == -ENOENT)
		return 0;
	return qc2_fail(err, -ret, "%s: cannot be deleted: %s", path, strerror(-ret));
}

/*
 * ---------------------------------------------------------------------------
 * Listing
 * ---------------------------------------------------------------------------
 */

struct listing {
	int (*fn)(void *arg, const char *url, uint64_t size);
	void *arg;
	struct qc2_err *err;
};

static int list_folder(struct listing *l, const char *path, unsigned int depth);

static int list_entry(struct listing *l, const char *path, unsigned int depth)
{
	struct stat st;
	char *url;
	int ret;

	if (lstat(path, &st) || (S_ISLNK(st.st_mode) && stat(path, &st)))
		return 0;	/* it was deleted just now */
	if (S_ISDIR(st.st_mode))
		return lstat(path, &st) || S_ISLNK(st.st_mode) ? 0 :
		       list_folder(l, path, depth + 1);
	if (!S_ISREG(st.st_mode) || qc2_url_from_path(path, &url, NULL))
		return 0;
	ret = l->fn(l->arg, url, st.st_size);
	free(url);
	return ret;
}

static int list_folder(struct listing *l, const char *path, unsigned int depth)
{
	struct dirent *entry;
	char *name;
	DIR *dir;
	int ret = 0;

	if (depth > MAX_LIST_DEPTH)
		return qc2_fail(l->err, ELOOP, "%s: folders are nested too deeply", path);
	dir = opendir(path);
	if (!dir)
		return errno == ENOENT ? 0 :
		       qc2_fail(l->err, errno, "%s: %s", path, strerror(errno));
	while (!ret && (entry = readdir(dir))) {
		if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
			continue;
		if (asprintf(&name, "%s%s%s", path,
			     path[strlen(path) - 1] == '/' ? "" : "/", entry->d_name) < 0) {
			ret = qc2_fail(l->err, ENOMEM, "out of memory");
			break;
		}
		ret = list_entry(l, name, depth);
		free(name);
	}
	closedir(dir);
	return ret;
}

int qc2_file_list(const char *path, int (*fn)(void *arg, const char *url, uint64_t size),
		  void *arg, struct qc2_err *err)
{
	struct listing l = { fn, arg, err };

	return list_folder(&l, path, 0);
}
