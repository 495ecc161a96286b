/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Shared Key authorization of Azure's Blob service.  A pure function without
 * state; any thread may call it.
 */
#ifndef QC2_AZURE_KEY_H
#define QC2_AZURE_KEY_H

#include <stdint.h>

#include <curl/curl.h>

#define QC2_HTTP_DATE_LEN	30	/* "Fri, 26 Jun 2015 23:39:12 GMT" */

/**
 * struct qc2_azure_key - a request that is to be signed
 * @method: "GET" and so on
 * @account: name of the storage account
 * @key: its key, in base64
 * @path: as it is sent, percent-encoded; begins with '/', and where the account is
 *	a part of the path, with that
 * @query: as it is sent, percent-encoded, each name once and in lower case; or ""
 * @headers: lines "Name: value"; there must be x-ms-date and x-ms-version
 * @content_length: bytes of the body
 */
struct qc2_azure_key {
	const char *method;
	const char *account;
	const char *key;
	const char *path;
	const char *query;
	const struct curl_slist *headers;
	uint64_t content_length;
};

/**
 * qc2_azure_string() - what is signed
 *
 * Return: the text, which the caller frees; NULL for lack of memory.
 */
char *qc2_azure_string(const struct qc2_azure_key *req);

/**
 * qc2_azure_key() - sign
 * @line: "Authorization: ...", which the caller frees
 *
 * Return: 0, -ENOMEM, or -EINVAL if the key is not base64.
 */
int qc2_azure_key(const struct qc2_azure_key *req, char **line);

/* A time (seconds since 1970) as HTTP and x-ms-date have it. */
void qc2_http_date(int64_t time, char buf[QC2_HTTP_DATE_LEN]);

#endif
