/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Azure's Blob service: block blobs, with a shared key or a shared access signature
 * (SAS).  A body has its MD5 with it, so that a damaged upload is refused.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/evp.h>

#include "azure_key.h"
#include "sigv4.h"
#include "store_type.h"
#include "url.h"

#define VERSION		"2021-08-06"

static int azure_origin(struct qc2_request *req, char **origin, bool *in_host)
{
	const char *account = req->op->url + strlen("azure://"), *host;
	const char *endpoint = req->site->endpoint;
	int len = strcspn(account, "/"), ret;

	if (!endpoint)
		endpoint = "https://blob.core.windows.net";
	*in_host = !req->site->endpoint || req->site->virtual_host;
	host = strstr(endpoint, "://") + 3;
	ret = asprintf(origin, "%.*s%.*s%s%s", (int)(host - endpoint), endpoint,
		       *in_host ? len : 0, account, *in_host ? "." : "", host);
	if (ret < 0)
		*origin = NULL;
	return ret < 0 ? -ENOMEM : 0;
}

/* The blob, or for lists the container. */
static int azure_path(struct qc2_request *req, bool in_host, char **path)
{
	const char *account = req->op->url + strlen("azure://");
	int len = in_host ? 0 : strcspn(account, "/"), ret;
	char *key = qc2_url_to_key(req->op->url), *encoded;

	if (key && req->op->op == QC2_OP_LIST)
		key[strcspn(key, "/")] = '\0';
	encoded = key ? qc2_sigv4_encode(key, '/') : NULL;
	free(key);
	if (!encoded)
		return -ENOMEM;
	ret = asprintf(path, "%s%.*s/%s", len ? "/" : "", len, account, encoded);
	free(encoded);
	if (ret < 0)
		*path = NULL;
	return ret < 0 ? -ENOMEM : 0;
}

/* All ids of blocks in a blob have the same length; this is one with its upload's. */
static void block_id(const char *upload, unsigned int nr, char id[64])
{
	char text[48];
	int len = snprintf(text, sizeof(text), "%.32s-%08u", upload, nr);

	EVP_EncodeBlock((unsigned char *)id, (unsigned char *)text, len);
}

static int list_query(struct qc2_request *req, char **query)
{
	char *key = qc2_url_to_key(req->op->url);
	const char *prefix = key ? key + strcspn(key, "/") : NULL;
	char *encoded = key ? qc2_sigv4_encode(*prefix ? prefix + 1 : prefix, 0) : NULL;
	char *marker = req->op->marker ? qc2_sigv4_encode(req->op->marker, 0) : NULL;
	int ret = -1;

	if (encoded && !marker == !req->op->marker)
		ret = asprintf(query, "restype=container&comp=list%s%s%s%s",
			       *encoded ? "&prefix=" : "", encoded,
			       marker ? "&marker=" : "", marker ? marker : "");
	free(marker);
	free(encoded);
	free(key);
	return ret;
}

static int azure_query(struct qc2_request *req, char **query)
{
	char id[64], *encoded;
	int ret;

	switch (req->op->op) {
	case QC2_OP_LIST:
		ret = list_query(req, query);
		break;
	case QC2_OP_PART:
		block_id(req->op->upload, req->op->part, id);
		encoded = qc2_sigv4_encode(id, 0);
		ret = encoded ? asprintf(query, "comp=block&blockid=%s", encoded) : -1;
		free(encoded);
		break;
	case QC2_OP_COMPLETE:
		ret = asprintf(query, "comp=blocklist");
		break;
	default:
		ret = asprintf(query, "%s", "");
	}
	if (ret < 0)
		*query = NULL;
	return ret < 0 ? -ENOMEM : 0;
}

static int block_list(struct qc2_request *req)
{
	size_t len;
	FILE *out = open_memstream(&req->made_body, &len);
	char id[64];

	if (!out)
		return -ENOMEM;
	fputs("<?xml version=\"1.0\" encoding=\"utf-8\"?><BlockList>", out);
	for (size_t i = 0; i < req->op->nr_parts; i++) {
		block_id(req->op->upload, i + 1, id);
		fprintf(out, "<Latest>%s</Latest>", id);
	}
	fputs("</BlockList>", out);
	if (fclose(out))
		return -ENOMEM;
	req->body = req->made_body;
	req->body_len = len;
	return 0;
}

static int add_md5(struct qc2_request *req)
{
	unsigned char digest[EVP_MAX_MD_SIZE], text[32];

	/* Machines with strict rules about ciphers have no MD5. */
	if (!req->body_len ||
	    !EVP_Digest(req->body, req->body_len, digest, NULL, EVP_md5(), NULL))
		return 0;
	EVP_EncodeBlock(text, digest, 16);
	return qc2_request_add(req, "Content-MD5: %s", text);
}

static int azure_headers(struct qc2_request *req, const char *path, const char *query,
			 int64_t now, struct qc2_err *err)
{
	const char *account = req->op->url + strlen("azure://");
	const struct qc2_operation *op = req->op;
	char date[QC2_HTTP_DATE_LEN], name[32], *line;
	struct qc2_azure_key sign = {
		.method = req->method, .account = name, .path = path, .query = query,
		.content_length = req->body_len,
	};
	int ret;

	snprintf(name, sizeof(name), "%.*s", (int)strcspn(account, "/"), account);
	qc2_http_date(now, date);
	ret = qc2_request_add(req, "x-ms-version: " VERSION);
	if (!ret)
		ret = qc2_request_add(req, "x-ms-date: %s", date);
	if (!ret && op->op == QC2_OP_PUT)
		ret = qc2_request_add(req, "x-ms-blob-type: BlockBlob");
	if (!ret && op->op == QC2_OP_GET)
		ret = qc2_request_add(req, "Range: bytes=%" PRIu64 "-%" PRIu64, op->offset,
				      op->offset + op->len - 1);
	if (!ret)
		ret = qc2_request_conditions(req);
	if (!ret)
		ret = add_md5(req);
	if (!ret && req->keys && req->keys->secret) {
		sign.key = req->keys->secret;
		sign.headers = req->headers;
		ret = qc2_azure_key(&sign, &line);
		if (ret == -EINVAL)
			return qc2_fail(err, EACCES,
					"%s: \"account_key\" in the stores file is not the base64 text that Azure shows",
					op->url);
		if (!ret)
			ret = qc2_request_add(req, "%s", line);
		free(line);
	}
	if (!ret)
		ret = qc2_request_add(req, "Accept-Encoding: identity");
	if (!ret)
		ret = qc2_request_add(req, "Expect:");	/* do not wait for a 100 */
	return ret;
}

static int azure_request(struct qc2_request *req, int64_t now, struct qc2_err *err)
{
	static const char *const methods[] = {
		[QC2_OP_GET] = "GET", [QC2_OP_HEAD] = "HEAD", [QC2_OP_PUT] = "PUT",
		[QC2_OP_DELETE] = "DELETE", [QC2_OP_LIST] = "GET", [QC2_OP_PART] = "PUT",
		[QC2_OP_COMPLETE] = "PUT", [QC2_OP_ABORT] = NULL,
	};
	char *origin = NULL, *path = NULL, *query = NULL;
	const char *sas;
	bool in_host;
	int ret = 0;

	if (!req->site)
		return qc2_fail(err, EINVAL, "%s: no stores file was read", req->op->url);
	req->method = methods[req->op->op];
	if (!req->method)
		return qc2_fail(err, ENOTSUP, "%s: not in this kind of store", req->op->url);
	if (req->op->op == QC2_OP_LIST &&
	    !strchr(req->op->url + strlen("azure://"), '/')[1])
		return qc2_fail(err, EINVAL, "%s: a list needs a container: azure://ACCOUNT/CONTAINER/",
				req->op->url);
	if (req->op->op == QC2_OP_COMPLETE)
		ret = block_list(req);
	if (!ret)
		ret = azure_origin(req, &origin, &in_host);
	if (!ret)
		ret = azure_path(req, in_host, &path);
	if (!ret)
		ret = azure_query(req, &query);
	if (!ret)
		ret = azure_headers(req, path, query, now, err);
	sas = req->keys && req->keys->token ? req->keys->token : "";
	if (!ret && asprintf(&req->target, "%s%s%s%s%s%s", origin, path,
			     *query || *sas ? "?" : "", query, *query && *sas ? "&" : "",
			     sas) < 0) {
		req->target = NULL;
		ret = -ENOMEM;
	}
	free(query);
	free(path);
	free(origin);
	return ret;
}

static int azure_refused(struct qc2_request *req, int ret)
{
	const struct qc2_answer *ans = &req->answer;

	/* The text alone tells more, and that is for people. */
	if (!strcmp(ans->code, "AuthenticationFailed") && req->keys && req->keys->secret)
		return qc2_request_learn_clock(req) ? -EAGAIN : ret;
	if (!strcmp(ans->code, "ServerBusy")) {
		req->throttled = true;
		return -EAGAIN;
	}
	if (!strcmp(ans->code, "OperationTimedOut") || !strcmp(ans->code, "InternalError"))
		return -EAGAIN;
	return ret;
}

static const struct qc2_list_names azure_list = {
	.object = "EnumerationResults/Blobs/Blob",
	.key = "EnumerationResults/Blobs/Blob/Name",
	.size = "EnumerationResults/Blobs/Blob/Properties/Content-Length",
	.marker = "EnumerationResults/NextMarker",
};

const struct qc2_store_type qc2_store_azure = {
	.request = azure_request,
	.refused = azure_refused,
	.list = &azure_list,
	.blocks = true,
	.uploads = true,
};
