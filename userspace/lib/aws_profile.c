/* SPDX-License-Identifier: GPL-2.0 */
/* Reading AWS's profile files. */
#include <errno.h>
#include <pwd.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "aws_profile.h"
#include "credentials_source.h"
#include "ini_text.h"
#include "secret.h"

#define MAX_FILE	(1 << 20)

static const struct key {
	const char *name;
	size_t offset;		/* in struct qc2_aws_profile */
} keys[] = {
#define FIELD(name) offsetof(struct qc2_aws_profile, name)
	{ "aws_access_key_id", FIELD(access_key) },
	{ "aws_secret_access_key", FIELD(secret_key) },
	{ "aws_session_token", FIELD(session_token) },
	{ "region", FIELD(region) },
	{ "credential_process", FIELD(process) },
	{ "role_arn", FIELD(role_arn) },
	{ "role_session_name", FIELD(role_session_name) },
	{ "web_identity_token_file", FIELD(web_identity_token_file) },
	{ "source_profile", FIELD(source_profile) },
	{ "credential_source", FIELD(credential_source) },
	{ "sso_session", FIELD(sso) },
	{ "sso_start_url", FIELD(sso) },
#undef FIELD
};

/* The path of a file: from the environment, else in the home of who runs this. */
static char *file_path(const char *variable, const char *file)
{
	const char *path = qc2_creds_getenv(variable), *home = NULL;
	struct passwd pw, *found = NULL;
	char buf[1024], *text;

	if (path && strncmp(path, "~/", 2))
		return strdup(path);
	home = qc2_creds_getenv("HOME");
	/* A service has no HOME. */
	if (!home && !getpwuid_r(geteuid(), &pw, buf, sizeof(buf), &found) && found)
		home = found->pw_dir;
	if (asprintf(&text, "%s/%s", home ? home : "", path ? path + 2 : file) < 0)
		return NULL;
	return text;
}

/* Whether a section is that of the profile; "profile NAME", but for the default one. */
static bool is_profile(char *section, const char *name, bool config)
{
	size_t len;

	if (!config || !strcmp(section, "default"))
		return !strcmp(section, name);
	if (strncmp(section, "profile", 7) || !strchr(" \t", section[7]))
		return false;
	section += 7 + strspn(section + 7, " \t");
	len = strlen(section);
	if (len >= 2 && strchr("\"'", section[0]) && section[len - 1] == section[0]) {
		section[len - 1] = '\0';
		section++;
	}
	return !strcmp(section, name);
}

static int read_text(struct qc2_aws_profile *profile, const char *path, char *text, bool config,
		     struct qc2_err *err)
{
	struct qc2_ini ini = { .rest = text };
	enum qc2_ini_item item;
	bool ours = false;

	while ((item = qc2_ini_next(&ini)) != QC2_INI_END) {
		if (item == QC2_INI_OTHER)
			return qc2_fail(err, EACCES, "%s:%u: neither [section] nor KEY = VALUE",
					path, ini.line);
		if (item == QC2_INI_SECTION) {
			ours = is_profile(ini.name, profile->name, config);
			profile->found |= ours;
			continue;
		}
		/* An indented line belongs to a key that is none of ours. */
		if (!ours || ini.indented || !ini.value[0])
			continue;
		for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
			const char **field = (void *)((char *)profile + keys[i].offset);

			if (!strcmp(ini.name, keys[i].name))
				*field = ini.value;
		}
	}
	return 0;
}

static int read_one(struct qc2_aws_profile *profile, bool config, struct qc2_err *err)
{
	char *path = config ? file_path("AWS_CONFIG_FILE", ".aws/config") :
			      file_path("AWS_SHARED_CREDENTIALS_FILE", ".aws/credentials");
	struct qc2_aws_profile before = *profile;
	char *text;
	size_t len;
	int ret;

	if (!path)
		return qc2_fail(err, ENOMEM, "out of memory");
	ret = qc2_secret_read(path, MAX_FILE, false, &text, &len, err);
	if (ret == -ENOENT || ret == -ENOTDIR) {
		free(path);
		return 0;
	}
	if (!ret) {
		profile->files[config] = text;
		profile->access_key = NULL;
		profile->secret_key = NULL;
		profile->session_token = NULL;
		ret = read_text(profile, path, text, config, err);
		if (!profile->access_key) {
			profile->access_key = before.access_key;
			profile->secret_key = before.secret_key;
			profile->session_token = before.session_token;
		}
	} else if (ret != -ENOMEM) {
		ret = -EACCES;
	}
	free(path);
	return ret;
}

int qc2_aws_profile_load(const char *name, struct qc2_aws_profile *profile, struct qc2_err *err)
{
	int ret;

	memset(profile, 0, sizeof(*profile));
	if (!name)
		name = qc2_creds_getenv("AWS_PROFILE");
	profile->named = name;
	profile->name = strdup(name ? name : "default");
	if (!profile->name)
		return qc2_fail(err, ENOMEM, "out of memory");
	ret = read_one(profile, true, err);
	if (!ret)
		ret = read_one(profile, false, err);
	if (ret)
		qc2_aws_profile_free(profile);
	return ret;
}

void qc2_aws_profile_free(struct qc2_aws_profile *profile)
{
	free(profile->name);
	qc2_secret_free(profile->files[0]);
	qc2_secret_free(profile->files[1]);
	memset(profile, 0, sizeof(*profile));
}
