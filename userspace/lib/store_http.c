/* SPDX-License-Identifier: GPL-2.0 */
/* Web servers: http:// and https://. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "store_type.h"

static int add_common(struct qc2_request *req)
{
	const struct qc2_operation *op = req->op;
	int ret = 0;

	if (op->op == QC2_OP_GET)
		ret = qc2_request_add(req, "Range: bytes=%" PRIu64 "-%" PRIu64, op->offset,
				      op->offset + op->len - 1);
	if (!ret)
		ret = qc2_request_conditions(req);
	if (!ret)
		ret = qc2_request_add(req, "Accept-Encoding: identity");
	if (!ret)
		ret = qc2_request_add(req, "Expect:");	/* do not wait for a 100 */
	return ret;
}

static int http_request(struct qc2_request *req, int64_t now, struct qc2_err *err)
{
	static const char *const methods[] = {
		[QC2_OP_GET] = "GET", [QC2_OP_HEAD] = "HEAD", [QC2_OP_PUT] = "PUT",
		[QC2_OP_DELETE] = "DELETE", [QC2_OP_ABORT] = NULL,
	};
	int ret;

	req->method = methods[req->op->op];
	if (!req->method)
		return qc2_fail(err, ENOTSUP, "%s: a web server cannot do this; use s3:// or azure://",
				req->op->url);
	req->target = strdup(req->op->url);
	if (!req->target)
		return -ENOMEM;
	ret = add_common(req);
	if (ret || !req->keys || !req->keys->token)
		return ret;
	/* What another origin gets has no key. */
	req->bare_headers = req->headers;
	req->headers = NULL;
	ret = add_common(req);
	return ret ? ret : qc2_request_add(req, "%s", req->keys->token);
}

static int http_refused(struct qc2_request *req, int ret)
{
	/* The key may have been renewed in its file; if it is what this server was given. */
	if (req->answer.status != 401 || !req->keys || req->bare)
		return ret;
	qc2_credentials_reject(req->site->creds, req->keys);
	req->needs_keys = true;
	return -EAGAIN;
}

const struct qc2_store_type qc2_store_http = {
	.request = http_request,
	.refused = http_refused,
};
