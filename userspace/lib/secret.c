/* SPDX-License-Identifier: GPL-2.0 */
/* Memory for secrets, and files of them. */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "secret.h"

/* In front of each piece; what follows is aligned for anything. */
union head {
	size_t mapped;
	max_align_t align;
};

void *qc2_secret_alloc(size_t size)
{
	size_t page = sysconf(_SC_PAGESIZE), mapped;
	union head *head;

	if (size > SIZE_MAX - sizeof(*head) - page)
		return NULL;
	mapped = (sizeof(*head) + size + page - 1) / page * page;
	head = mmap(NULL, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (head == MAP_FAILED)
		return NULL;
	if (madvise(head, mapped, MADV_DONTDUMP)) {
		munmap(head, mapped);
		return NULL;
	}
	head->mapped = mapped;
	return head + 1;
}

void qc2_secret_free(void *p)
{
	union head *head = p;
	size_t mapped;

	if (!p)
		return;
	head--;
	mapped = head->mapped;
	explicit_bzero(head, mapped);
	munmap(head, mapped);
}

static int check_guarded(const char *path, const struct stat *st, struct qc2_err *err)
{
	if (!S_ISREG(st->st_mode))
		return qc2_fail(err, EINVAL, "%s: not a plain file", path);
	if (st->st_uid && st->st_uid != geteuid())
		return qc2_fail(err, EPERM,
			"%s: has secrets but belongs to user %u; chown it to root, mode 600",
			path, st->st_uid);
	if (st->st_mode & (S_IRWXO | S_IWGRP))
		return qc2_fail(err, EPERM,
			"%s: has secrets but mode %03o, with which others than its owner read or change it; chmod 600 it (640 for a group of readers)",
			path, st->st_mode & 0777);
	return 0;
}

int qc2_secret_read(const char *path, size_t max, bool guarded, char **text, size_t *len,
		    struct qc2_err *err)
{
	int fd, ret = 0;
	struct stat st;
	size_t n = 0;
	char *buf;

	/* O_NONBLOCK: nobody waits here for the other end of a FIFO. */
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0)
		return qc2_fail(err, errno, "%s: cannot be opened: %s", path, strerror(errno));
	if (fstat(fd, &st))
		ret = qc2_fail(err, errno, "%s: %s", path, strerror(errno));
	else if (guarded)
		ret = check_guarded(path, &st, err);
	buf = ret ? NULL : qc2_secret_alloc(max + 2);
	if (!ret && !buf)
		ret = qc2_fail(err, ENOMEM, "out of memory");
	while (!ret && n <= max) {
		ssize_t got = read(fd, buf + n, max + 1 - n);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			ret = qc2_fail(err, errno, "%s: cannot be read: %s", path,
				       strerror(errno));
		if (got <= 0)
			break;
		n += got;
	}
	close(fd);
	if (!ret && n > max)
		ret = qc2_fail(err, EFBIG, "%s: larger than the %zu bytes that it may have", path,
			       max);
	if (!ret && memchr(buf, '\0', n))
		ret = qc2_fail(err, EINVAL, "%s: has a NUL byte", path);
	if (ret) {
		qc2_secret_free(buf);
		return ret;
	}
	*text = buf;
	*len = n;
	return 0;
}
