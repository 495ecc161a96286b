/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Shared Key authorization of Azure's Blob service, as "Authorize with Shared Key"
 * of Microsoft's REST reference has it for versions since 2015-02-21.  No state;
 * any thread may call these functions.
 */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "azure_key.h"

#define SHA256_LEN	32

void qc2_http_date(int64_t time, char buf[QC2_HTTP_DATE_LEN])
{
	static const char days[][4] = { "Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat" };
	static const char months[][4] = { "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul",
					  "Aug", "Sep", "Oct", "Nov", "Dec" };
	time_t t = time;
	struct tm tm = { 0 };

	/* Not strftime(), whose names depend on the locale. */
	gmtime_r(&t, &tm);
	snprintf(buf, QC2_HTTP_DATE_LEN, "%s, %02d %s %04d %02d:%02d:%02d GMT",
		 days[tm.tm_wday], tm.tm_mday, months[tm.tm_mon],
		 (tm.tm_year + 1900) % 10000, tm.tm_hour, tm.tm_min, tm.tm_sec);
}

/* The value behind the name of a line; NULL: it has another name. */
static const char *value_of(const char *line, const char *name)
{
	size_t len = strlen(name);

	if (strncasecmp(line, name, len) || line[len] != ':')
		return NULL;
	for (line += len + 1; *line == ' ' || *line == '\t'; line++)
		;
	return line;
}

static void write_value(FILE *out, const struct curl_slist *headers, const char *name)
{
	const char *value;

	for (; headers; headers = headers->next) {
		value = value_of(headers->data, name);
		if (value) {
			fputs(value, out);
			break;
		}
	}
	fputc('\n', out);
}

static int compare_texts(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* By the names alone: ':' behind a name would sort behind '-' in a longer one. */
static int compare_names(const void *a, const void *b)
{
	const char *one = *(char *const *)a, *two = *(char *const *)b;
	size_t n = strcspn(one, ":"), m = strcspn(two, ":");
	int ret = strncasecmp(one, two, n < m ? n : m);

	return ret ? ret : (n > m) - (n < m);
}

static bool write_ms_headers(FILE *out, const struct curl_slist *headers)
{
	const struct curl_slist *item;
	const char **lines;
	size_t nr = 0, i;

	for (item = headers; item; item = item->next)
		nr++;
	lines = calloc(nr + 1, sizeof(*lines));
	if (!lines)
		return false;
	for (nr = 0, item = headers; item; item = item->next)
		if (!strncasecmp(item->data, "x-ms-", 5) && strchr(item->data, ':'))
			lines[nr++] = item->data;
	qsort(lines, nr, sizeof(*lines), compare_names);
	for (i = 0; i < nr; i++) {
		const char *p = lines[i];

		for (; *p != ':'; p++)
			fputc(tolower((unsigned char)*p), out);
		for (p++; *p == ' ' || *p == '\t'; p++)
			;
		fprintf(out, ":%s\n", p);
	}
	free(lines);
	return true;
}

/* Each as "name:value" in a line of its own, decoded. */
static bool write_query(FILE *out, const char *query)
{
	char *copy = strdup(query), *rest = copy, *word, *value;
	char **words = calloc(strlen(query) + 1, sizeof(*words));
	bool ok = copy && words;
	size_t nr = 0, i;

	while (ok && (word = strsep(&rest, "&")))
		if (*word)
			words[nr++] = word;
	if (ok)
		qsort(words, nr, sizeof(*words), compare_texts);
	for (i = 0; ok && i < nr; i++) {
		value = words[i];
		word = strsep(&value, "=");
		value = curl_easy_unescape(NULL, value ? value : "", 0, NULL);
		ok = value != NULL;
		if (ok)
			fprintf(out, "\n%s:%s", word, value);
		curl_free(value);
	}
	free(words);
	free(copy);
	return ok;
}

char *qc2_azure_string(const struct qc2_azure_key *req)
{
	static const char *const names[] = {
		"Content-MD5", "Content-Type", "Date", "If-Modified-Since", "If-Match",
		"If-None-Match", "If-Unmodified-Since", "Range",
	};
	char *text = NULL;
	size_t len;
	FILE *out = open_memstream(&text, &len);
	bool ok;

	if (!out)
		return NULL;
	fprintf(out, "%s\n", req->method);
	write_value(out, req->headers, "Content-Encoding");
	write_value(out, req->headers, "Content-Language");
	if (req->content_length)
		fprintf(out, "%" PRIu64, req->content_length);
	fputc('\n', out);
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		write_value(out, req->headers, names[i]);
	ok = write_ms_headers(out, req->headers);
	fprintf(out, "/%s%s", req->account, req->path);
	ok = ok && write_query(out, req->query);
	if (fclose(out) || !ok) {
		free(text);
		return NULL;
	}
	return text;
}

/* Bytes of the decoded key, or -1. */
static int decode_key(const char *key, unsigned char *out)
{
	size_t len = strlen(key);
	int n;

	if (!len || len % 4)
		return -1;
	n = EVP_DecodeBlock(out, (const unsigned char *)key, len);
	/* What pads the end was decoded, too. */
	if (n > 0 && key[len - 1] == '=')
		n -= key[len - 2] == '=' ? 2 : 1;
	return n;
}

int qc2_azure_key(const struct qc2_azure_key *req, char **line)
{
	unsigned char key[1024], mac[SHA256_LEN], text[4 * SHA256_LEN / 3 + 5];
	char *string;
	int len;

	if (strlen(req->key) > sizeof(key))
		return -EINVAL;
	len = decode_key(req->key, key);
	if (len < 0) {
		explicit_bzero(key, sizeof(key));
		return -EINVAL;
	}
	string = qc2_azure_string(req);
	if (string) {
		HMAC(EVP_sha256(), key, len, (unsigned char *)string, strlen(string), mac,
		     NULL);
		EVP_EncodeBlock(text, mac, sizeof(mac));
		if (asprintf(line, "Authorization: SharedKey %s:%s", req->account, text) < 0)
			*line = NULL;
	} else {
		*line = NULL;
	}
	explicit_bzero(key, sizeof(key));
	free(string);
	return *line ? 0 : -ENOMEM;
}
