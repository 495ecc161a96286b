/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Writing an object as a whole: by HTTP PUT, or as a file.  No state is shared; any
 * thread may write.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "store.h"
#include "url.h"

/* Bounds on retrying. */
#define MAX_TRIES		5
#define MAX_BACKOFF_MS		4000
#define LOW_SPEED_LIMIT		256L

/*
 * ---------------------------------------------------------------------------
 * Files
 * ---------------------------------------------------------------------------
 */

static int write_all(int fd, const char *buf, size_t len)
{
	while (len) {
		ssize_t n = write(fd, buf, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		buf += n;
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

int qc2_put_file(const char *path, const void *buf, size_t len, struct qc2_err *err)
{
	char *temp;
	int fd, ret;

	if (asprintf(&temp, "%s.XXXXXX", path) < 0)
		return qc2_fail(err, ENOMEM, "out of memory");
	fd = mkostemp(temp, O_CLOEXEC);
	if (fd < 0) {
		ret = qc2_fail(err, errno, "%s: cannot be written: %s", path,
			       strerror(errno));
		free(temp);
		return ret;
	}
	ret = write_all(fd, buf, len);
	if (!ret)
		ret = set_mode(fd);
	if (!ret && fsync(fd))
		ret = -errno;
	if (close(fd) && !ret)
		ret = -errno;
	if (!ret && rename(temp, path))
		ret = -errno;
	if (ret)
		unlink(temp);
	else
		ret = sync_folder(path);
	free(temp);
	return ret ? qc2_fail(err, -ret, "%s: cannot be written: %s", path,
			      strerror(-ret)) : 0;
}

/*
 * ---------------------------------------------------------------------------
 * HTTP
 * ---------------------------------------------------------------------------
 */

/* What is left to be sent. */
struct body {
	const char *p;
	size_t len;
};

static size_t send_body(char *buf, size_t size, size_t nr, void *arg)
{
	struct body *body = arg;
	size_t n = size * nr < body->len ? size * nr : body->len;

	memcpy(buf, body->p, n);
	body->p += n;
	body->len -= n;
	return n;
}

static size_t ignore_body(char *buf, size_t size, size_t nr, void *arg)
{
	return size * nr;
}

static int judge_put(const char *url, CURLcode code, long status, const char *text,
		     struct qc2_err *err)
{
	if (code == CURLE_PEER_FAILED_VERIFICATION || code == CURLE_SSL_CACERT_BADFILE)
		return qc2_fail(err, EACCES, "%s: the server's certificate is not trusted: %s",
				url, text);
	if (code != CURLE_OK)
		return qc2_fail(err, EAGAIN, "%s: cannot be written: %s", url,
				*text ? text : curl_easy_strerror(code));
	if (status == 200 || status == 201 || status == 204)
		return 0;
	if (status == 401 || status == 403)
		return qc2_fail(err, EACCES, "%s: the server refuses to have it written (status %ld)",
				url, status);
	if (status == 405 || status == 501)
		return qc2_fail(err, ENOTSUP,
			"%s: the server takes no uploads by PUT (status %ld)", url, status);
	if (status >= 500 || status == 408 || status == 425 || status == 429)
		return qc2_fail(err, EAGAIN, "%s: cannot be written: server error (status %ld)",
				url, status);
	return qc2_fail(err, EPROTO, "%s: cannot be written: unexpected status %ld", url,
			status);
}

static int try_put(const struct qc2_store_config *cfg, const char *url, const void *buf,
		   size_t len, struct qc2_err *err)
{
	char text[CURL_ERROR_SIZE] = "";
	struct body body = { buf, len };
	struct curl_slist *headers;
	CURL *easy = curl_easy_init();
	long status = 0;
	CURLcode code;

	headers = curl_slist_append(NULL, "Expect:");	/* do not wait for a 100 */
	if (!easy || !headers) {
		curl_easy_cleanup(easy);
		curl_slist_free_all(headers);
		return qc2_fail(err, ENOMEM, "%s: out of memory", url);
	}
	curl_easy_setopt(easy, CURLOPT_URL, url);
	curl_easy_setopt(easy, CURLOPT_UPLOAD, 1L);
	curl_easy_setopt(easy, CURLOPT_INFILESIZE_LARGE, (curl_off_t)len);
	curl_easy_setopt(easy, CURLOPT_READFUNCTION, send_body);
	curl_easy_setopt(easy, CURLOPT_READDATA, &body);
	curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, ignore_body);
	curl_easy_setopt(easy, CURLOPT_HTTPHEADER, headers);
	curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, text);
	curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
	curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
	curl_easy_setopt(easy, CURLOPT_USERAGENT, "qcow2chain/" QC2_VERSION);
	curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT, (long)cfg->connect_timeout_s);
	curl_easy_setopt(easy, CURLOPT_LOW_SPEED_LIMIT, LOW_SPEED_LIMIT);
	curl_easy_setopt(easy, CURLOPT_LOW_SPEED_TIME, (long)cfg->low_speed_time_s);
	if (cfg->ca_file)
		curl_easy_setopt(easy, CURLOPT_CAINFO, cfg->ca_file);
	code = curl_easy_perform(easy);
	curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
	curl_easy_cleanup(easy);
	curl_slist_free_all(headers);
	return judge_put(url, code, status, text, err);
}

static void sleep_ms(unsigned int ms)
{
	struct timespec ts = { .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L };

	nanosleep(&ts, NULL);
}

int qc2_put(const struct qc2_store_config *cfg, const char *url, const void *buf,
	    size_t len, struct qc2_err *err)
{
	unsigned int tries = 0;
	char *path;
	int ret;

	if (!strncmp(url, "file:", 5)) {
		path = qc2_url_to_path(url);
		ret = path ? qc2_put_file(path, buf, len, err) :
			     qc2_fail(err, ENOMEM, "out of memory");
		free(path);
		return ret;
	}
	for (;;) {
		ret = try_put(cfg, url, buf, len, err);
		if (ret != -EAGAIN || ++tries == MAX_TRIES)
			return ret;
		sleep_ms(qc2_backoff_ms(tries, MAX_BACKOFF_MS));
	}
}
