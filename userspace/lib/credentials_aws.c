/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The places where AWS's tools find keys, and Azure's variables.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "aws_profile.h"
#include "credentials_source.h"
#include "secret.h"

/* On the machine or its host: they answer at once, or are not there. */
#define METADATA_LIMIT_MS	2000
#define CONTAINER_LIMIT_MS	5000
#define MAX_TOKEN		(16 << 10)

/* --- environment -------------------------------------------------------------- */

static int azure_env(const struct qc2_credentials_config *cfg, struct qc2_keys **keys,
		     struct qc2_err *err)
{
	const char *account = qc2_creds_getenv("AZURE_STORAGE_ACCOUNT");
	const char *key = qc2_creds_getenv("AZURE_STORAGE_KEY");
	const char *sas = qc2_creds_getenv("AZURE_STORAGE_SAS_TOKEN");

	if (!account || strcmp(account, cfg->account))
		return qc2_fail(err, ENODATA, "AZURE_STORAGE_ACCOUNT is not this account");
	if (!key && !sas)
		return qc2_fail(err, ENODATA,
			"neither AZURE_STORAGE_KEY nor AZURE_STORAGE_SAS_TOKEN is set");
	*keys = qc2_keys_new(NULL, key, key ? NULL : sas + (*sas == '?'), 0);
	return *keys ? 0 : qc2_fail(err, ENOMEM, "out of memory");
}

int qc2_creds_env(const struct qc2_credentials_config *cfg, int64_t now,
		  struct qc2_keys **keys, struct qc2_err *err)
{
	const char *id = qc2_creds_getenv("AWS_ACCESS_KEY_ID");
	int ret;

	if (cfg->account)
		return azure_env(cfg, keys, err);
	if (!id)
		return qc2_fail(err, ENODATA, "AWS_ACCESS_KEY_ID is not set");
	ret = qc2_creds_make(id, qc2_creds_getenv("AWS_SECRET_ACCESS_KEY"),
			     qc2_creds_getenv("AWS_SESSION_TOKEN"), 0, now, keys, err);
	/* A process gets no other environment. */
	return ret == -EAGAIN ? -EACCES : ret;
}

static const char *env_region(void)
{
	const char *region = qc2_creds_getenv("AWS_REGION");

	return region ? region : qc2_creds_getenv("AWS_DEFAULT_REGION");
}

/* --- profiles ------------------------------------------------------------------- */

static int profile_keys(const struct qc2_credentials_config *cfg,
			const struct qc2_aws_profile *p, int64_t now, struct qc2_keys **keys,
			struct qc2_err *err)
{
	const char *region = p->region;
	int ret;

	if (!region)
		region = env_region();
	if (!p->found)
		return qc2_fail(err, p->named ? EACCES : ENODATA, "there is none");
	if (p->role_arn && p->web_identity_token_file)
		return qc2_creds_assume(cfg, p->role_arn, p->web_identity_token_file,
					p->role_session_name, region, now, keys, err);
	if (p->role_arn || p->source_profile || p->credential_source)
		return qc2_fail(err, EACCES,
			"assuming a role by source_profile or credential_source is not supported; use credential_process with AWS's own tool, or web_identity_token_file");
	if (p->access_key) {
		ret = qc2_creds_make(p->access_key, p->secret_key, p->session_token, 0, now, keys,
				     err);
		return ret == -EAGAIN ? -EACCES : ret;
	}
	if (p->process) {
		ret = qc2_creds_run(p->process, cfg->time_limit_ms, now, keys, err);
		return ret ? qc2_fail_prefix(err, ret, "credential_process ") : 0;
	}
	if (p->sso)
		return qc2_fail(err, EACCES,
			"single sign-on is not supported; use credential_process with \"aws configure export-credentials\"");
	return qc2_fail(err, ENODATA, "it has no credentials");
}

int qc2_creds_profile(const struct qc2_credentials_config *cfg, int64_t now,
		      struct qc2_keys **keys, struct qc2_err *err)
{
	struct qc2_aws_profile profile;
	char name[64];
	int ret;

	ret = qc2_aws_profile_load(cfg->profile, &profile, err);
	if (ret)
		return ret;
	ret = profile_keys(cfg, &profile, now, keys, err);
	if (ret)
		qc2_fail_prefix(err, ret, "\"%s\": ", qc2_printable(profile.name,
				strlen(profile.name), name, sizeof(name)));
	qc2_aws_profile_free(&profile);
	return ret;
}

int qc2_creds_process(const struct qc2_credentials_config *cfg, int64_t now,
		      struct qc2_keys **keys, struct qc2_err *err)
{
	return qc2_creds_run(cfg->process, cfg->time_limit_ms, now, keys, err);
}

/* --- web identity --------------------------------------------------------------- */

int qc2_creds_web_identity(const struct qc2_credentials_config *cfg, int64_t now,
			   struct qc2_keys **keys, struct qc2_err *err)
{
	const char *file = qc2_creds_getenv("AWS_WEB_IDENTITY_TOKEN_FILE");
	const char *role = qc2_creds_getenv("AWS_ROLE_ARN");

	if (!file)
		return qc2_fail(err, ENODATA, "AWS_WEB_IDENTITY_TOKEN_FILE is not set");
	if (!role)
		return qc2_fail(err, EACCES,
			"AWS_ROLE_ARN is not set, but AWS_WEB_IDENTITY_TOKEN_FILE is");
	return qc2_creds_assume(cfg, role, file, qc2_creds_getenv("AWS_ROLE_SESSION_NAME"),
				env_region(), now, keys, err);
}

/* --- container ------------------------------------------------------------------ */

/* The address of a host that a container may be told to ask over http. */
static bool container_url_allowed(const char *url)
{
	static const char *const hosts[] = {
		"169.254.170.2", "169.254.170.23", "[fd00:ec2::23]"
	};
	size_t len;

	if (qc2_creds_url_private(url))
		return true;
	if (strncasecmp(url, "http://", 7))
		return false;
	url += 7;
	len = strcspn(url, "/?#\\");
	if (memchr(url, '@', len))
		return false;
	for (size_t i = 0; i < sizeof(hosts) / sizeof(hosts[0]); i++) {
		size_t n = strlen(hosts[i]);

		if (n <= len && !strncasecmp(url, hosts[i], n) && (n == len || url[n] == ':'))
			return true;
	}
	return false;
}

/* "Authorization: TOKEN" in secret memory, NULL if there is none. */
static int container_header(char **header, struct qc2_err *err)
{
	const char *file = qc2_creds_getenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE");
	const char *token = qc2_creds_getenv("AWS_CONTAINER_AUTHORIZATION_TOKEN");
	char *text = NULL;
	size_t len;
	int ret;

	*header = NULL;
	if (file) {
		ret = qc2_secret_read(file, MAX_TOKEN, false, &text, &len, err);
		if (ret)
			return ret == -ENOMEM ? ret : -EAGAIN;
		while (len && strchr(" \r\n", text[len - 1]))
			text[--len] = '\0';
		token = text;
	}
	if (!token)
		return 0;
	if (token[strcspn(token, "\r\n")]) {
		qc2_secret_free(text);
		return qc2_fail(err, EACCES, "the authorization token has more than one line");
	}
	*header = qc2_secret_alloc(strlen(token) + 32);
	if (*header)
		stpcpy(stpcpy(*header, "Authorization: "), token);
	qc2_secret_free(text);
	return *header ? 0 : qc2_fail(err, ENOMEM, "out of memory");
}

int qc2_creds_container(const struct qc2_credentials_config *cfg, int64_t now,
			struct qc2_keys **keys, struct qc2_err *err)
{
	const char *relative = qc2_creds_getenv("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
	const char *full = qc2_creds_getenv("AWS_CONTAINER_CREDENTIALS_FULL_URI");
	struct qc2_creds_request req = {
		.what = "the container's credential service", .method = "GET", .direct = true,
		.ca_file = cfg->ca_file,
		.time_limit_ms = cfg->time_limit_ms ? cfg->time_limit_ms : CONTAINER_LIMIT_MS,
	};
	char *url, *header, *text;
	size_t len;
	int ret;

	if (!relative && !full)
		return qc2_fail(err, ENODATA,
			"neither AWS_CONTAINER_CREDENTIALS_RELATIVE_URI nor AWS_CONTAINER_CREDENTIALS_FULL_URI is set");
	if (relative && *relative != '/')
		return qc2_fail(err, EACCES,
			"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI does not begin with a slash");
	if (!relative && !container_url_allowed(full))
		return qc2_fail(err, EACCES,
			"AWS_CONTAINER_CREDENTIALS_FULL_URI must be an https:// URL, or an http:// URL of this machine, 169.254.170.2 or 169.254.170.23");
	if (asprintf(&url, "%s%s", !relative ? "" : cfg->container_base ? cfg->container_base :
		     "http://169.254.170.2", relative ? relative : full) < 0)
		return qc2_fail(err, ENOMEM, "out of memory");
	ret = container_header(&header, err);
	if (!ret) {
		req.url = url;
		req.header = header;
		ret = qc2_creds_http(&req, &text, &len, err);
		qc2_secret_free(header);
	}
	free(url);
	if (ret < 0)
		return ret;
	ret = ret == 200 ? qc2_creds_parse_json(text, len, "Token", false, now, keys, err) :
			   qc2_creds_status(req.what, ret, err);
	qc2_secret_free(text);
	return ret;
}

/* --- instance: IMDSv2 only ------------------------------------------------------- */

#define ROLES	"/latest/meta-data/iam/security-credentials/"
/* What the name of a role may have in it. */
#define ROLE	"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_+=,.@-"

struct imds {
	const char *base;
	struct qc2_creds_request req;
};

static int imds_init(const struct qc2_credentials_config *cfg, struct imds *imds,
		     struct qc2_err *err)
{
	const char *disabled = qc2_creds_getenv("AWS_EC2_METADATA_DISABLED");
	const char *mode = qc2_creds_getenv("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE");

	if (disabled && !strcasecmp(disabled, "true"))
		return qc2_fail(err, ENODATA, "AWS_EC2_METADATA_DISABLED is true");
	imds->base = qc2_creds_getenv("AWS_EC2_METADATA_SERVICE_ENDPOINT");
	if (!imds->base)
		imds->base = mode && !strcasecmp(mode, "ipv6") ? "http://[fd00:ec2::254]" :
								 "http://169.254.169.254";
	imds->req = (struct qc2_creds_request){
		.what = "the instance's metadata service", .direct = true,
		.ca_file = cfg->ca_file,
		.time_limit_ms = cfg->time_limit_ms ? cfg->time_limit_ms : METADATA_LIMIT_MS,
	};
	return 0;
}

/* One request; the answer in @text if it is 200. */
static int imds_ask(struct imds *imds, const char *method, const char *path, const char *leaf,
		    const char *header, char **text, size_t *len, struct qc2_err *err)
{
	size_t n = strlen(imds->base);
	char *url;
	int ret;

	if (n && imds->base[n - 1] == '/')
		n--;
	if (asprintf(&url, "%.*s%s%s", (int)n, imds->base, path, leaf) < 0)
		return qc2_fail(err, ENOMEM, "out of memory");
	imds->req.method = method;
	imds->req.url = url;
	imds->req.header = header;
	ret = qc2_creds_http(&imds->req, text, len, err);
	free(url);
	if (ret < 0 || ret == 200)
		return ret < 0 ? ret : 0;
	qc2_secret_free(*text);
	if (ret == 404 && !*leaf && *method == 'G')
		return qc2_fail(err, ENODATA, "%s: the instance has no role", imds->req.what);
	return qc2_creds_status(imds->req.what, ret, err);
}

/* The header with the session's token, in secret memory. */
static int imds_token(struct imds *imds, char **header, struct qc2_err *err)
{
	char *token;
	size_t len;
	int ret;

	ret = imds_ask(imds, "PUT", "/latest/api/token", "",
		       "X-aws-ec2-metadata-token-ttl-seconds: 300", &token, &len, err);
	if (ret)
		return ret;
	if (!len || len > MAX_TOKEN || token[strcspn(token, "\r\n")] || strlen(token) != len) {
		qc2_secret_free(token);
		return qc2_fail(err, EAGAIN, "%s: gives no usable token", imds->req.what);
	}
	*header = qc2_secret_alloc(len + 64);
	if (*header)
		stpcpy(stpcpy(*header, "X-aws-ec2-metadata-token: "), token);
	qc2_secret_free(token);
	return *header ? 0 : qc2_fail(err, ENOMEM, "out of memory");
}

int qc2_creds_instance(const struct qc2_credentials_config *cfg, int64_t now,
		       struct qc2_keys **keys, struct qc2_err *err)
{
	char *header, *text, role[72];
	struct imds imds;
	size_t len;
	int ret;

	ret = imds_init(cfg, &imds, err);
	if (!ret)
		ret = imds_token(&imds, &header, err);
	if (ret)
		return ret;
	ret = imds_ask(&imds, "GET", ROLES, "", header, &text, &len, err);
	if (!ret) {
		len = strcspn(text, "\r\n");
		/* It becomes a part of a path. */
		if (!len || len >= sizeof(role) || strspn(text, ROLE) != len)
			ret = qc2_fail(err, EAGAIN, "%s: names no role", imds.req.what);
		else
			stpcpy(mempcpy(role, text, len), "");
		qc2_secret_free(text);
	}
	if (!ret)
		ret = imds_ask(&imds, "GET", ROLES, role, header, &text, &len, err);
	qc2_secret_free(header);
	if (ret)
		return ret;
	ret = qc2_creds_parse_json(text, len, "Token", false, now, keys, err);
	if (ret)
		qc2_fail_prefix(err, ret, "%s: the answer ", imds.req.what);
	qc2_secret_free(text);
	return ret;
}

/* --- http ------------------------------------------------------------------------ */

int qc2_creds_header_file(const struct qc2_credentials_config *cfg, int64_t now,
			  struct qc2_keys **keys, struct qc2_err *err)
{
	static const char bearer[] = "Authorization: Bearer ";
	char *text, *line = NULL;
	size_t len;
	int ret;

	ret = qc2_secret_read(cfg->header_file, MAX_TOKEN, true, &text, &len, err);
	if (ret)
		return ret == -ENOMEM ? ret : -EACCES;
	while (len && strchr(" \t\r\n", text[len - 1]))
		text[--len] = '\0';
	for (const char *p = text; *p; p++) {
		if ((*p < ' ' && *p != '\t') || *p >= 0x7f)
			len = 0;
	}
	if (!len) {
		qc2_secret_free(text);
		return qc2_fail(err, EACCES,
			"%s: expected one line, a header (\"Name: value\") or a bearer token",
			cfg->header_file);
	}
	line = qc2_secret_alloc(len + sizeof(bearer));
	if (line)
		stpcpy(stpcpy(line, strchr(text, ':') ? "" : bearer), text);
	*keys = line ? qc2_keys_new(NULL, NULL, line, 0) : NULL;
	qc2_secret_free(line);
	qc2_secret_free(text);
	return *keys ? 0 : qc2_fail(err, ENOMEM, "out of memory");
}
