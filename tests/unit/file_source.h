/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A source that reads local files, for tests: what the stores do, without a
 * network.  Counts the reads, so that tests can check how many were needed.
 */
#ifndef QC2_TEST_FILE_SOURCE_H
#define QC2_TEST_FILE_SOURCE_H

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "source.h"
#include "url.h"

struct file_source {
	struct qc2_source src;
	int fd;
};

/* Of all sources; a test resets them. */
static struct {
	_Atomic unsigned int opens, closes, reads;
	_Atomic size_t largest;
} file_source_count;

static int file_source_read(struct qc2_source *src, uint64_t offset, void *buf,
			    size_t len, struct qc2_err *err)
{
	struct file_source *file = (struct file_source *)src;
	char *p = buf;

	file_source_count.reads++;
	if (len > file_source_count.largest)
		file_source_count.largest = len;
	while (len) {
		ssize_t n = pread(file->fd, p, len, offset);

		if (n <= 0)
			return qc2_fail(err, EIO, "%s: read at %llu failed: %s",
				src->url, (unsigned long long)offset,
				n ? strerror(errno) : "end of file");
		p += n;
		offset += n;
		len -= n;
	}
	return 0;
}

static void file_source_close(struct qc2_source *src)
{
	struct file_source *file = (struct file_source *)src;

	file_source_count.closes++;
	close(file->fd);
	free(src->url);
	free(src->version);
	free(file);
}

static const struct qc2_source_ops file_source_ops = {
	.read = file_source_read,
	.close = file_source_close,
};

static int file_source_open(struct qc2_opener *opener, const char *url,
			    struct qc2_source **src, struct qc2_err *err)
{
	char *path = qc2_url_to_path(url);
	struct file_source *file;
	struct stat st;
	int fd;

	if (!path)
		return qc2_fail(err, EINVAL, "%s: not a file:// URL", url);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	free(path);
	if (fd < 0)
		return qc2_fail(err, errno, "%s: %s", url, strerror(errno));
	file = calloc(1, sizeof(*file));
	if (!file || fstat(fd, &st)) {
		close(fd);
		free(file);
		return qc2_fail(err, EIO, "%s: cannot be opened", url);
	}
	file->fd = fd;
	file->src.ops = &file_source_ops;
	file->src.url = strdup(url);
	file->src.size = st.st_size;
	file->src.version = strdup("v1");
	file_source_count.opens++;
	*src = &file->src;
	return 0;
}

static struct qc2_opener file_opener = { .open = file_source_open };

#endif
