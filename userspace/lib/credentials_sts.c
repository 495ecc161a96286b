/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Web identity: a token in a file, which something else keeps fresh, is exchanged for
 * keys at the security token service (AssumeRoleWithWebIdentity).  The request is not
 * signed; the token is the secret.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <curl/curl.h>

#include "credentials_source.h"
#include "secret.h"

#define TIME_LIMIT_MS	10000
#define MAX_TOKEN	(16 << 10)

/* The URL of the service, which the caller frees; "" if it is one that we do not ask. */
static char *sts_url(const char *region)
{
	const char *configured = qc2_creds_getenv("AWS_ENDPOINT_URL_STS");
	char *url;
	int n;

	if (configured)
		return strdup(qc2_creds_url_private(configured) ? configured : "");
	if (!region)
		return strdup("https://sts.amazonaws.com/");
	/* It becomes a part of a host's name. */
	if (region[strspn(region, "abcdefghijklmnopqrstuvwxyz0123456789-")])
		return strdup("");
	n = asprintf(&url, "https://sts.%s.amazonaws.com%s/", region,
		     strncmp(region, "cn-", 3) ? "" : ".cn");
	return n < 0 ? NULL : url;
}

/* Behind @out, whose size was computed by the caller. */
static char *put_parameter(char *out, const char *name, const char *escaped)
{
	return stpcpy(stpcpy(stpcpy(out, name), "="), escaped);
}

/* The body of the request in secret memory. */
static char *make_body(const char *role_arn, const char *session, const char *token)
{
	static const char head[] = "Action=AssumeRoleWithWebIdentity&Version=2011-06-15";
	char *arn = curl_easy_escape(NULL, role_arn, 0);
	char *name = curl_easy_escape(NULL, session, 0);
	char *tok = curl_easy_escape(NULL, token, 0);
	char *body = NULL, *out;

	if (arn && name && tok)
		body = qc2_secret_alloc(sizeof(head) + strlen(arn) + strlen(name) + strlen(tok) +
					64);
	if (body) {
		out = stpcpy(body, head);
		out = put_parameter(out, "&RoleArn", arn);
		out = put_parameter(out, "&RoleSessionName", name);
		put_parameter(out, "&WebIdentityToken", tok);
	}
	if (tok)
		explicit_bzero(tok, strlen(tok));
	curl_free(arn);
	curl_free(name);
	curl_free(tok);
	return body;
}

static int ask(const struct qc2_credentials_config *cfg, const char *url, const char *body,
	       int64_t now, struct qc2_keys **keys, struct qc2_err *err)
{
	const char *ca_file = qc2_creds_getenv("AWS_CA_BUNDLE");
	struct qc2_creds_request req = {
		.what = "the token service", .method = "POST", .url = url,
		.header = "Accept: application/xml", .body = body,
		.ca_file = ca_file ? ca_file : cfg->ca_file,
		.time_limit_ms = cfg->time_limit_ms ? cfg->time_limit_ms : TIME_LIMIT_MS,
	};
	char *text, code[48];
	size_t len;
	int ret;

	ret = qc2_creds_http(&req, &text, &len, err);
	if (ret < 0)
		return ret;
	if (ret != 200) {
		qc2_creds_parse_sts_error(text, len, code);
		ret = qc2_creds_status(req.what, ret, err);
		if (code[0] && ret == -EACCES && strcmp(code, "IDPCommunicationError"))
			ret = qc2_fail(err, EACCES, "%s: refuses: %s", req.what, code);
		else if (code[0])
			ret = qc2_fail(err, EAGAIN, "%s: %s", req.what, code);
	} else {
		ret = qc2_creds_parse_sts(text, len, now, keys, err);
		if (ret)
			qc2_fail_prefix(err, ret, "%s: the answer ", req.what);
	}
	qc2_secret_free(text);
	return ret;
}

int qc2_creds_assume(const struct qc2_credentials_config *cfg, const char *role_arn,
		     const char *token_file, const char *session, const char *region,
		     int64_t now, struct qc2_keys **keys, struct qc2_err *err)
{
	char *token, *url, *body, name[32];
	size_t len;
	int ret;

	/* Whatever is wrong with the file may be mended by who writes it. */
	ret = qc2_secret_read(token_file, MAX_TOKEN, false, &token, &len, err);
	if (ret)
		return ret == -ENOMEM ? ret : -EAGAIN;
	token[strcspn(token, "\r\n")] = '\0';
	if (!session) {
		snprintf(name, sizeof(name), "qcow2chain-%d", getpid());
		session = name;
	}
	url = sts_url(region);
	body = make_body(role_arn, session, token);
	if (!url || !body)
		ret = qc2_fail(err, ENOMEM, "out of memory");
	else if (!*url)
		ret = qc2_fail(err, EACCES, "%s",
			qc2_creds_getenv("AWS_ENDPOINT_URL_STS") ?
			"AWS_ENDPOINT_URL_STS must be an https:// URL, or http:// on this machine" :
			"the region has other characters than a-z, 0-9 and -");
	else if (!*token)
		ret = qc2_fail(err, EAGAIN, "%s: has no token", token_file);
	else
		ret = ask(cfg, url, body, now, keys, err);
	free(url);
	qc2_secret_free(body);
	qc2_secret_free(token);
	return ret;
}
