/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Uploads in parts.  Several threads may send parts of one upload; @lock protects what
 * is known of those that were sent.
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "store.h"
#include "store_exchange.h"
#include "store_file.h"
#include "store_ops.h"
#include "url.h"
#include "xml.h"

#define MAX_PARTS	10000
#define MAX_ANSWER	65536

struct qc2_upload {
	const struct qc2_store_config *cfg;
	const struct qc2_store_type *type;
	char *url;
	char *path;		/* of a file */
	size_t part_bytes;
	char *id;		/* of a file: the name of its precursor */
	pthread_mutex_t lock;
	char **parts;		/* ETags */
	size_t room;
	uint64_t bytes;
};

/* The text of one element of an answer. */
struct wanted {
	const char *path;
	char *text;
	bool failed;		/* it is an error instead */
};

static int on_element(void *arg, const char *path, const char *text)
{
	struct wanted *wanted = arg;

	wanted->failed |= !strncmp(path, "Error", 5);
	if (!wanted->text && !strcmp(path, wanted->path)) {
		wanted->text = strdup(text);
		if (!wanted->text)
			return -ENOMEM;
	}
	return 0;
}

static int start_store(struct qc2_upload *up, struct qc2_err *err)
{
	struct qc2_operation op = { .op = QC2_OP_START, .url = up->url };
	struct wanted wanted = { .path = "InitiateMultipartUploadResult/UploadId" };
	struct qc2_request req;
	bool repeated;
	int ret;

	ret = qc2_exchange(up->cfg, &op, &req, MAX_ANSWER, &repeated, err);
	if (!ret) {
		qc2_xml_parse(req.text, req.text_len, on_element, &wanted);
		up->id = wanted.text;
		if (!up->id || !*up->id)
			ret = qc2_fail(err, EPROTO, "%s: cannot be written: the server gives no id of an upload",
				       up->url);
	}
	qc2_request_free(&req);
	return ret;
}

/* Nobody else's blocks have it. */
static int make_id(struct qc2_upload *up, struct qc2_err *err)
{
	uint64_t id[2];

	if (getrandom(id, sizeof(id), 0) != sizeof(id))
		return qc2_fail(err, EIO, "%s: no random numbers", up->url);
	if (asprintf(&up->id, "%016llx%016llx", (unsigned long long)id[0],
		     (unsigned long long)id[1]) < 0) {
		up->id = NULL;
		return qc2_fail(err, ENOMEM, "%s: out of memory", up->url);
	}
	return 0;
}

static struct qc2_upload *new_upload(const struct qc2_store_config *cfg, const char *url,
				     size_t part_bytes, struct qc2_err *err)
{
	struct qc2_upload *up = calloc(1, sizeof(*up));

	if (up) {
		up->cfg = cfg;
		up->type = qc2_store_type(url);
		up->part_bytes = part_bytes;
		pthread_mutex_init(&up->lock, NULL);
		up->url = strdup(url);
		if (up->type == &qc2_store_file)
			up->path = qc2_url_to_path(url);
		if (up->url && (up->type != &qc2_store_file || up->path))
			return up;
	}
	qc2_upload_free(up);
	qc2_fail(err, ENOMEM, "%s: out of memory", url);
	return NULL;
}

int qc2_upload_start(const struct qc2_store_config *cfg, const char *url, size_t part_bytes,
		     struct qc2_upload **upload, struct qc2_err *err)
{
	struct qc2_upload *up = new_upload(cfg, url, part_bytes, err);
	int ret;

	*upload = NULL;
	if (!up)
		return -ENOMEM;
	if (up->path)
		ret = qc2_file_start(up->path, &up->id, err);
	else if (!up->type->uploads)
		ret = qc2_fail(err, ENOTSUP, "%s: a web server takes no uploads in parts; use s3:// or azure://",
			       url);
	else if (up->type->blocks)
		ret = make_id(up, err);
	else
		ret = start_store(up, err);
	if (ret) {
		qc2_upload_free(up);
		return ret;
	}
	*upload = up;
	return 0;
}

int qc2_upload_resume(const struct qc2_store_config *cfg, const char *url, size_t part_bytes,
		      const char *id, struct qc2_upload **upload, struct qc2_err *err)
{
	struct qc2_upload *up = new_upload(cfg, url, part_bytes, err);

	*upload = NULL;
	if (!up)
		return -ENOMEM;
	up->id = strdup(id);
	if (!up->id) {
		qc2_upload_free(up);
		return qc2_fail(err, ENOMEM, "%s: out of memory", url);
	}
	*upload = up;
	return 0;
}

const char *qc2_upload_id(const struct qc2_upload *up)
{
	return up->id;
}

const char *qc2_upload_etag(struct qc2_upload *up, unsigned int nr)
{
	const char *etag;

	pthread_mutex_lock(&up->lock);
	etag = nr && nr <= up->room ? up->parts[nr - 1] : NULL;
	pthread_mutex_unlock(&up->lock);
	return etag;
}

int qc2_upload_set_part(struct qc2_upload *up, unsigned int nr, const char *etag, size_t len)
{
	char *copy = strdup(etag), **parts;
	int ret = copy ? 0 : -ENOMEM;

	pthread_mutex_lock(&up->lock);
	if (!ret && nr > up->room) {
		parts = reallocarray(up->parts, nr, sizeof(*parts));
		if (parts) {
			memset(parts + up->room, 0, (nr - up->room) * sizeof(*parts));
			up->parts = parts;
			up->room = nr;
		} else {
			ret = -ENOMEM;
		}
	}
	if (!ret) {
		if (!up->parts[nr - 1])
			up->bytes += len;
		free(up->parts[nr - 1]);
		up->parts[nr - 1] = copy;
	}
	pthread_mutex_unlock(&up->lock);
	if (ret)
		free(copy);
	return ret;
}

int qc2_upload_part(struct qc2_upload *up, unsigned int nr, const void *buf, size_t len,
		    struct qc2_err *err)
{
	struct qc2_operation op = {
		.op = QC2_OP_PART, .url = up->url, .upload = up->id, .part = nr,
		.body = buf, .body_len = len,
	};
	struct qc2_request req;
	bool repeated;
	int ret;

	if (!nr || nr > MAX_PARTS || !len || len > up->part_bytes)
		return qc2_fail(err, EINVAL, "%s: bad part %u of %zu bytes", up->url, nr, len);
	if (up->path) {
		ret = qc2_file_part(up->id, (uint64_t)(nr - 1) * up->part_bytes, buf, len, err);
		if (!ret && qc2_upload_set_part(up, nr, "", len))
			ret = qc2_fail(err, ENOMEM, "%s: out of memory", up->url);
		return ret;
	}
	ret = qc2_exchange(up->cfg, &op, &req, 0, &repeated, err);
	/* It goes into XML as it is. */
	if (!ret && !up->type->blocks &&
	    (!req.answer.etag[0] || strpbrk(req.answer.etag, "<>&")))
		ret = qc2_fail(err, EPROTO, "%s: cannot be written: part %u has no usable ETag",
			       up->url, nr);
	if (!ret && qc2_upload_set_part(up, nr, req.answer.etag, len))
		ret = qc2_fail(err, ENOMEM, "%s: out of memory", up->url);
	qc2_request_free(&req);
	return ret;
}

/* The object is there, and as large as what was sent. */
static int look(struct qc2_upload *up, char **version, struct qc2_err *err)
{
	uint64_t size;
	int ret;

	ret = qc2_head(up->cfg, up->url, &size, version, err);
	if (!ret && size != up->bytes) {
		ret = qc2_fail(err, EIO, "%s: cannot be written: it has %llu bytes, and %llu were sent",
			       up->url, (unsigned long long)size,
			       (unsigned long long)up->bytes);
		free(*version);
		*version = NULL;
	}
	return ret;
}

/* A success may still be an error, as the body of its answer says. */
static int judge_complete(struct qc2_upload *up, struct qc2_request *req, struct qc2_err *err)
{
	struct wanted wanted = { .path = "CompleteMultipartUploadResult/ETag" };
	char what[512];
	int ret;

	if (up->type->blocks)
		return 0;
	ret = qc2_xml_parse(req->text, req->text_len, on_element, &wanted);
	if (wanted.failed) {
		ret = qc2_request_refused(req, what, sizeof(what));
		qc2_fail(err, -ret, "%s: cannot be written: %s", up->url, what);
	} else if (ret) {
		ret = qc2_fail(err, EAGAIN, "%s: cannot be written: the answer is cut short",
			       up->url);
	}
	free(wanted.text);
	return ret;
}

static int complete_store(struct qc2_upload *up, unsigned int nr_parts, bool if_absent,
			  char **version, struct qc2_err *err)
{
	struct qc2_operation op = {
		.op = QC2_OP_COMPLETE, .url = up->url, .upload = up->id,
		.parts = up->parts, .nr_parts = nr_parts, .if_absent = if_absent,
	};
	bool repeated, unsure = false;
	struct qc2_request req;
	struct qc2_err seen;
	unsigned int tries = 0;
	int ret;

	do {
		ret = qc2_exchange(up->cfg, &op, &req, MAX_ANSWER, &repeated, err);
		unsure |= repeated;
		if (!ret)
			ret = judge_complete(up, &req, err);
		qc2_request_free(&req);
		unsure |= ret == -EAGAIN;
	} while (ret == -EAGAIN && !tries++);
	/*
	 * Of an upload that an earlier try has completed, the store knows nothing any
	 * more; and its answer may have no ETag (Ceph's).
	 */
	if (!ret)
		return look(up, version, err);
	if (unsure && (ret == -ENOENT || ret == -EEXIST) && !look(up, version, &seen))
		return 0;
	return ret;
}

int qc2_upload_complete(struct qc2_upload *up, unsigned int nr_parts, bool if_absent,
			char **version, struct qc2_err *err)
{
	uint64_t size;
	unsigned int i;
	int ret;

	*version = NULL;
	for (i = 0; i < nr_parts; i++)
		if (i >= up->room || !up->parts[i])
			break;
	if (!nr_parts || i < nr_parts)
		return qc2_fail(err, EINVAL, "%s: part %u was not sent", up->url, i + 1);
	if (!up->path)
		return complete_store(up, nr_parts, if_absent, version, err);
	ret = qc2_file_complete(up->path, up->id, if_absent, err);
	return ret ? ret : qc2_file_version(up->url, up->path, version, &size, err);
}

int qc2_upload_abort(struct qc2_upload *up, struct qc2_err *err)
{
	struct qc2_operation op = { .op = QC2_OP_ABORT, .url = up->url, .upload = up->id };
	struct qc2_request req;
	bool repeated;
	int ret;

	if (up->path)
		return qc2_file_delete(up->id, err);
	/* Azure forgets blocks of which no blob consists after a week. */
	if (up->type->blocks)
		return 0;
	ret = qc2_exchange(up->cfg, &op, &req, 0, &repeated, err);
	qc2_request_free(&req);
	return ret;
}

void qc2_upload_free(struct qc2_upload *up)
{
	if (!up)
		return;
	for (size_t i = 0; i < up->room; i++)
		free(up->parts[i]);
	free(up->parts);
	free(up->id);
	free(up->path);
	free(up->url);
	pthread_mutex_destroy(&up->lock);
	free(up);
}
