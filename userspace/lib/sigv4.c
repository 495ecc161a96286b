/* SPDX-License-Identifier: GPL-2.0 */
/*
 * AWS Signature Version 4.  No state; any thread may call these functions.
 */
#include <ctype.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "sigv4.h"

#define SHA256_LEN	32

static void to_hex(const unsigned char *data, size_t len, char *hex)
{
	for (size_t i = 0; i < len; i++)
		sprintf(hex + 2 * i, "%02x", data[i]);
}

void qc2_sha256_hex(const void *data, size_t len, char hex[QC2_SHA256_HEX_LEN])
{
	unsigned char digest[EVP_MAX_MD_SIZE];

	EVP_Digest(data, len, digest, NULL, EVP_sha256(), NULL);
	to_hex(digest, SHA256_LEN, hex);
}

void qc2_sigv4_date(int64_t time, char buf[QC2_SIGV4_DATE_LEN])
{
	time_t t = time;
	struct tm tm = { 0 };

	gmtime_r(&t, &tm);
	strftime(buf, QC2_SIGV4_DATE_LEN, "%Y%m%dT%H%M%SZ", &tm);
}

char *qc2_sigv4_encode(const char *text, char keep)
{
	char *buf = malloc(3 * strlen(text) + 1), *out = buf;

	if (!buf)
		return NULL;
	for (; *text; text++) {
		unsigned char c = *text;

		if ((c < 0x80 && isalnum(c)) || strchr("-._~", c) || (keep && c == keep))
			*out++ = c;
		else
			out += sprintf(out, "%%%02X", c);
	}
	*out = '\0';
	return buf;
}

/*
 * ---------------------------------------------------------------------------
 * The canonical request
 * ---------------------------------------------------------------------------
 */

/* A header, or a parameter of the query, within a copy of the text. */
struct pair {
	char *name;
	char *value;
};

static int compare_pairs(const void *a, const void *b)
{
	const struct pair *one = a, *two = b;
	int ret = strcmp(one->name, two->name);

	return ret ? ret : strcmp(one->value, two->value);
}

static bool write_query(FILE *out, const char *query)
{
	char *copy = strdup(query), *rest = copy, *word;
	struct pair *pairs;
	size_t nr = 0, i;

	/* No more of them than there are characters, and one. */
	pairs = calloc(strlen(query) + 1, sizeof(*pairs));
	if (!copy || !pairs) {
		free(copy);
		free(pairs);
		return false;
	}
	while ((word = strsep(&rest, "&"))) {
		if (!*word)
			continue;
		pairs[nr].name = strsep(&word, "=");
		pairs[nr++].value = word ? word : "";
	}
	qsort(pairs, nr, sizeof(*pairs), compare_pairs);
	for (i = 0; i < nr; i++)
		fprintf(out, "%s%s=%s", i ? "&" : "", pairs[i].name, pairs[i].value);
	free(pairs);
	free(copy);
	return true;
}

/* Without white space around it, and one space for each run of them within. */
static void trim(char *text)
{
	char *out = text;

	for (const char *p = text; *p; p++) {
		if (!isspace((unsigned char)*p))
			*out++ = *p;
		else if (out > text && out[-1] != ' ')
			*out++ = ' ';
	}
	if (out > text && out[-1] == ' ')
		out--;
	*out = '\0';
}

/* Also fills @names with those of the headers, separated by ';'. */
static bool write_headers(FILE *out, const struct curl_slist *headers, FILE *names)
{
	const struct curl_slist *item;
	struct pair *pairs;
	size_t nr = 0, i;
	bool ok = true;

	for (item = headers; item; item = item->next)
		nr++;
	pairs = calloc(nr + 1, sizeof(*pairs));
	if (!pairs)
		return false;
	for (nr = 0, item = headers; item && ok; item = item->next) {
		char *name = strdup(item->data), *value = name ? strchr(name, ':') : NULL;

		ok = name != NULL;
		if (!value) {
			free(name);
			continue;
		}
		*value++ = '\0';
		trim(value);
		if (!*value) {
			free(name);
			continue;
		}
		for (char *p = name; *p; p++)
			*p = tolower((unsigned char)*p);
		pairs[nr++] = (struct pair){ name, value };
	}
	qsort(pairs, nr, sizeof(*pairs), compare_pairs);
	for (i = 0; i < nr; i++) {
		fprintf(out, "%s:%s\n", pairs[i].name, pairs[i].value);
		fprintf(names, "%s%s", i ? ";" : "", pairs[i].name);
		/* Session tokens are among them. */
		explicit_bzero(pairs[i].value, strlen(pairs[i].value));
		free(pairs[i].name);
	}
	free(pairs);
	return ok;
}

/* @names: as in write_headers(); the caller frees both texts. */
static char *canonical_request(const struct qc2_sigv4 *req, char **names)
{
	size_t len, names_len;
	char *text = NULL;
	FILE *out = open_memstream(&text, &len), *list;
	bool ok;

	*names = NULL;
	list = open_memstream(names, &names_len);
	ok = out && list;
	if (ok) {
		fprintf(out, "%s\n%s\n", req->method, req->path);
		ok = write_query(out, req->query);
		fputc('\n', out);
		ok = ok && write_headers(out, req->headers, list);
	}
	if (list && fclose(list))
		ok = false;
	if (ok)
		fprintf(out, "\n%s\n%s", *names, req->payload_hash);
	if (out && fclose(out))
		ok = false;
	if (ok)
		return text;
	free(text);
	free(*names);
	*names = NULL;
	return NULL;
}

/*
 * ---------------------------------------------------------------------------
 * The signature
 * ---------------------------------------------------------------------------
 */

static void hmac(const void *key, size_t key_len, const char *text,
		 unsigned char out[SHA256_LEN])
{
	HMAC(EVP_sha256(), key, key_len, (const unsigned char *)text, strlen(text), out,
	     NULL);
}

static bool signing_key(const struct qc2_sigv4 *req, const char *day,
			unsigned char key[SHA256_LEN])
{
	unsigned char next[SHA256_LEN];
	char *start;
	int len;

	len = asprintf(&start, "AWS4%s", req->secret);
	if (len < 0)
		return false;
	hmac(start, len, day, key);
	hmac(key, SHA256_LEN, req->region, next);
	hmac(next, SHA256_LEN, req->service, key);
	hmac(key, SHA256_LEN, "aws4_request", next);
	memcpy(key, next, SHA256_LEN);
	explicit_bzero(next, sizeof(next));
	explicit_bzero(start, len);
	free(start);
	return true;
}

char *qc2_sigv4(const struct qc2_sigv4 *req)
{
	char date[QC2_SIGV4_DATE_LEN], day[9], hash[QC2_SHA256_HEX_LEN];
	char *request, *names, *text = NULL, *line = NULL;
	unsigned char key[SHA256_LEN], signature[SHA256_LEN];

	request = canonical_request(req, &names);
	if (!request)
		return NULL;
	qc2_sha256_hex(request, strlen(request), hash);
	explicit_bzero(request, strlen(request));
	free(request);

	qc2_sigv4_date(req->time, date);
	snprintf(day, sizeof(day), "%.8s", date);
	if (asprintf(&text, "AWS4-HMAC-SHA256\n%s\n%s/%s/%s/aws4_request\n%s", date, day,
		     req->region, req->service, hash) < 0)
		text = NULL;
	if (text && signing_key(req, day, key)) {
		hmac(key, sizeof(key), text, signature);
		explicit_bzero(key, sizeof(key));
		to_hex(signature, sizeof(signature), hash);
		if (asprintf(&line, "Authorization: AWS4-HMAC-SHA256 Credential=%s/%s/%s/%s/aws4_request, SignedHeaders=%s, Signature=%s",
			     req->id, day, req->region, req->service, names, hash) < 0)
			line = NULL;
	}
	free(text);
	free(names);
	return line;
}
