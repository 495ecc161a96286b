/* SPDX-License-Identifier: GPL-2.0 */
/*
 * S3: Amazon's, and what speaks its language (Ceph, Google, Oracle and others).  Each
 * request is signed with AWS Signature Version 4, and a body by its true hash, so that a
 * damaged upload is refused.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sigv4.h"
#include "store_type.h"
#include "url.h"

/* The pieces of what is requested; all percent-encoded. */
struct s3_url {
	char *origin;		/* "https://HOST" */
	char *path;
	char *query;		/* or "" */
};

static void free_url(struct s3_url *url)
{
	free(url->origin);
	free(url->path);
	free(url->query);
}

static int s3_origin(struct qc2_request *req, struct s3_url *url, bool *in_host)
{
	const char *bucket = req->op->url + strlen("s3://"), *host;
	int len = strcspn(bucket, "/"), scheme_len;
	char endpoint[QC2_REGION_LEN + 64];
	const char *base = req->site->endpoint;

	if (!base) {
		snprintf(endpoint, sizeof(endpoint), "https://s3.%s.amazonaws.com%s", req->region,
			 strncmp(req->region, "cn-", 3) ? "" : ".cn");
		base = endpoint;
	}
	host = strstr(base, "://") + 3;
	scheme_len = host - base;
	/* A certificate for *.HOST does not cover a bucket with dots. */
	*in_host = req->site->virtual_host &&
		   !(memchr(bucket, '.', len) && !strncmp(base, "https:", 6));
	if (asprintf(&url->origin, "%.*s%.*s%s%s", scheme_len, base, *in_host ? len : 0,
		     bucket, *in_host ? "." : "", host) < 0) {
		url->origin = NULL;
		return -ENOMEM;
	}
	return 0;
}

static int s3_path(struct qc2_request *req, struct s3_url *url, bool in_host)
{
	const char *bucket = req->op->url + strlen("s3://");
	int len = in_host ? 0 : strcspn(bucket, "/"), ret = -ENOMEM;
	bool list = req->op->op == QC2_OP_LIST;
	char *key = qc2_url_to_key(req->op->url);
	char *encoded = key ? qc2_sigv4_encode(key, list ? 0 : '/') : NULL;
	char *marker = NULL;

	if (!encoded)
		goto out;
	if (asprintf(&url->path, "%s%.*s%s%s", len ? "/" : "", len, bucket,
		     list && len ? "" : "/", list ? "" : encoded) < 0) {
		url->path = NULL;
		goto out;
	}
	ret = 0;
	switch (req->op->op) {
	case QC2_OP_LIST:
		if (req->op->marker)
			marker = qc2_sigv4_encode(req->op->marker, 0);
		if (req->op->marker && !marker)
			ret = -ENOMEM;
		else
			ret = asprintf(&url->query, "%s%s%slist-type=2&prefix=%s",
				       marker ? "continuation-token=" : "",
				       marker ? marker : "", marker ? "&" : "", encoded);
		break;
	case QC2_OP_START:
		ret = asprintf(&url->query, "uploads=");
		break;
	case QC2_OP_PART:
	case QC2_OP_COMPLETE:
	case QC2_OP_ABORT:
		marker = qc2_sigv4_encode(req->op->upload, 0);
		if (!marker)
			ret = -ENOMEM;
		else if (req->op->op == QC2_OP_PART)
			ret = asprintf(&url->query, "partNumber=%u&uploadId=%s", req->op->part,
				       marker);
		else
			ret = asprintf(&url->query, "uploadId=%s", marker);
		break;
	default:
		ret = asprintf(&url->query, "%s", "");
	}
	if (ret < 0)
		url->query = NULL;
out:
	free(marker);
	free(encoded);
	free(key);
	return ret < 0 ? -ENOMEM : 0;
}

/* When writing, Ceph wants an ETag without its quotes, and Amazon takes both. */
static int s3_conditions(struct qc2_request *req)
{
	const char *version = req->op->version;
	size_t len = version ? strlen(version) : 0;

	if (req->op->op != QC2_OP_GET && len > 2 && version[0] == '"' &&
	    version[len - 1] == '"')
		return qc2_request_add(req, "If-Match: %.*s", (int)len - 2, version + 1);
	return qc2_request_conditions(req);
}

/* ETags have quotes, and nothing else that XML would not take as it is. */
static int complete_body(struct qc2_request *req)
{
	const struct qc2_operation *op = req->op;
	size_t len;
	FILE *out = open_memstream(&req->made_body, &len);

	if (!out)
		return -ENOMEM;
	fputs("<CompleteMultipartUpload>", out);
	for (size_t i = 0; i < op->nr_parts; i++)
		fprintf(out, "<Part><PartNumber>%zu</PartNumber><ETag>%s</ETag></Part>", i + 1,
			op->parts[i]);
	fputs("</CompleteMultipartUpload>", out);
	if (fclose(out))
		return -ENOMEM;
	req->body = req->made_body;
	req->body_len = len;
	return 0;
}

static int s3_headers(struct qc2_request *req, const struct s3_url *url, int64_t now)
{
	char hash[QC2_SHA256_HEX_LEN], date[QC2_SIGV4_DATE_LEN], *line;
	const struct qc2_operation *op = req->op;
	struct qc2_sigv4 sign = {
		.method = req->method, .path = url->path, .query = url->query,
		.payload_hash = hash, .region = req->region, .service = "s3", .time = now,
	};
	int ret;

	qc2_sha256_hex(req->body ? req->body : "", req->body_len, hash);
	qc2_sigv4_date(now, date);
	ret = qc2_request_add(req, "Host: %s", strstr(url->origin, "://") + 3);
	if (!ret && op->op == QC2_OP_GET)
		ret = qc2_request_add(req, "Range: bytes=%" PRIu64 "-%" PRIu64, op->offset,
				      op->offset + op->len - 1);
	if (!ret)
		ret = s3_conditions(req);
	if (!ret && req->keys) {
		ret = qc2_request_add(req, "x-amz-content-sha256: %s", hash);
		if (!ret)
			ret = qc2_request_add(req, "x-amz-date: %s", date);
		if (!ret && req->keys->token)
			ret = qc2_request_add(req, "x-amz-security-token: %s",
					      req->keys->token);
		if (ret)
			return ret;
		sign.id = req->keys->id;
		sign.secret = req->keys->secret;
		sign.headers = req->headers;
		line = qc2_sigv4(&sign);
		ret = line ? qc2_request_add(req, "%s", line) : -ENOMEM;
		free(line);
	}
	/* Not signed, as some servers in between change it. */
	if (!ret)
		ret = qc2_request_add(req, "Accept-Encoding: identity");
	if (!ret)
		ret = qc2_request_add(req, "Expect:");	/* do not wait for a 100 */
	return ret;
}

static int s3_request(struct qc2_request *req, int64_t now, struct qc2_err *err)
{
	static const char *const methods[] = {
		[QC2_OP_GET] = "GET", [QC2_OP_HEAD] = "HEAD", [QC2_OP_PUT] = "PUT",
		[QC2_OP_DELETE] = "DELETE", [QC2_OP_LIST] = "GET", [QC2_OP_START] = "POST",
		[QC2_OP_PART] = "PUT", [QC2_OP_COMPLETE] = "POST", [QC2_OP_ABORT] = "DELETE",
	};
	struct s3_url url = { .origin = NULL };
	bool in_host;
	int ret = 0;

	if (!req->site)
		return qc2_fail(err, EINVAL, "%s: no stores file was read", req->op->url);
	if (req->keys && (!req->keys->id || !req->keys->secret))
		return qc2_fail(err, EACCES,
				"%s: the stores file has no access key and secret key for it",
				req->op->url);
	req->method = methods[req->op->op];
	qc2_site_region(req->site, req->op->url, req->region);
	if (req->op->op == QC2_OP_COMPLETE)
		ret = complete_body(req);
	if (!ret)
		ret = s3_origin(req, &url, &in_host);
	if (!ret)
		ret = s3_path(req, &url, in_host);
	if (!ret)
		ret = s3_headers(req, &url, now);
	if (!ret && asprintf(&req->target, "%s%s%s%s", url.origin, url.path,
			     *url.query ? "?" : "", url.query) < 0) {
		req->target = NULL;
		ret = -ENOMEM;
	}
	free_url(&url);
	return ret;
}

static bool is_one_of(const char *code, const char *const *codes)
{
	while (*codes && strcmp(code, *codes))
		codes++;
	return *codes != NULL;
}

static int s3_refused(struct qc2_request *req, int ret)
{
	static const char *const expired[] = {
		"ExpiredToken", "ExpiredTokenException", "InvalidToken",
		"TokenRefreshRequired", NULL
	};
	static const char *const skewed[] = {
		"RequestTimeTooSkewed", "RequestExpired", "RequestInTheFuture", NULL
	};
	static const char *const elsewhere[] = {
		"PermanentRedirect", "TemporaryRedirect", "AuthorizationHeaderMalformed",
		"IllegalLocationConstraintException", NULL
	};
	static const char *const throttling[] = {
		"SlowDown", "ServerBusy", "ServiceUnavailable", "Throttling",
		"ThrottlingException", "RequestLimitExceeded", "TooManyRequests",
		"BandwidthLimitExceeded", "RequestThrottled", NULL
	};
	static const char *const passing[] = {
		"RequestTimeout", "InternalError", "OperationAborted",
		"ConditionalRequestConflict", NULL
	};
	struct qc2_answer *ans = &req->answer;

	if (is_one_of(ans->code, expired) && req->keys) {
		qc2_credentials_reject(req->site->creds, req->keys);
		req->needs_keys = true;
		return -EAGAIN;
	}
	/*
	 * The answer to a HEAD has no body, so it does not say why; its Date may.  What is
	 * not signed has no time.
	 */
	if (req->keys && (is_one_of(ans->code, skewed) ||
			  (ans->status == 403 && !ans->code[0])))
		return qc2_request_learn_clock(req) ? -EAGAIN : ret;
	/* HEAD has no code. */
	if (is_one_of(ans->code, elsewhere) || ans->status == 301 || ans->status == 307 ||
	    (ans->status == 400 && !ans->code[0])) {
		if (!strcmp(ans->region, req->region) ||
		    !qc2_site_learn_region(req->site, req->op->url, ans->region))
			return ret;
		req->corrected = true;
		return -EAGAIN;
	}
	if (is_one_of(ans->code, throttling)) {
		req->throttled = true;
		return -EAGAIN;
	}
	return is_one_of(ans->code, passing) ? -EAGAIN : ret;
}

static const struct qc2_list_names s3_list = {
	.object = "ListBucketResult/Contents",
	.key = "ListBucketResult/Contents/Key",
	.size = "ListBucketResult/Contents/Size",
	.marker = "ListBucketResult/NextContinuationToken",
};

const struct qc2_store_type qc2_store_s3 = {
	.request = s3_request,
	.refused = s3_refused,
	.list = &s3_list,
	.uploads = true,
};
