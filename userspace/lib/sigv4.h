/* SPDX-License-Identifier: GPL-2.0 */
/*
 * AWS Signature Version 4 in the Authorization header, by the rules of S3: a path
 * is percent-encoded once, and a query is sorted, with '=' behind each name.
 *
 * Pure functions without state; any thread may call them.  The time comes from
 * the caller.  libcurl can sign as well, but 7.88.1 (Debian 12) does it wrongly for
 * queries, paths and headers, and later versions have other mistakes.
 */
#ifndef QC2_SIGV4_H
#define QC2_SIGV4_H

#include <stddef.h>
#include <stdint.h>

#include <curl/curl.h>

#define QC2_SIGV4_DATE_LEN	17	/* "20130524T000000Z" */
#define QC2_SHA256_HEX_LEN	65

/**
 * struct qc2_sigv4 - a request that is to be signed
 * @method: "GET" and so on
 * @path: as it is sent, percent-encoded, see qc2_sigv4_encode()
 * @query: as it is sent, percent-encoded in the same way, in any order, without the
 *	'?'; or ""
 * @headers: lines "Name: value".  All of them are signed, but for those without a
 *	value, which tell libcurl to leave a header out.  There must be Host,
 *	x-amz-date (as of @time) and whatever else begins with x-amz-
 * @payload_hash: SHA-256 of the body in hexadecimal digits, or "UNSIGNED-PAYLOAD"
 * @time: seconds since 1970
 */
struct qc2_sigv4 {
	const char *method;
	const char *path;
	const char *query;
	const struct curl_slist *headers;
	const char *payload_hash;
	const char *region, *service;
	const char *id, *secret;
	int64_t time;
};

/**
 * qc2_sigv4() - sign
 *
 * Return: the line "Authorization: ...", which the caller frees; NULL for lack of
 * memory.
 */
char *qc2_sigv4(const struct qc2_sigv4 *req);

/* The time as x-amz-date has it. */
void qc2_sigv4_date(int64_t time, char buf[QC2_SIGV4_DATE_LEN]);

void qc2_sha256_hex(const void *data, size_t len, char hex[QC2_SHA256_HEX_LEN]);

/**
 * qc2_sigv4_encode() - percent-encode all but letters, digits, '-', '.', '_', '~'
 * @keep: another byte that stays as it is: '/' in a path; 0: none
 *
 * Return: the text, which the caller frees; NULL for lack of memory.
 */
char *qc2_sigv4_encode(const char *text, char keep);

#endif
