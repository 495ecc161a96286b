/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Profiles of AWS's tools: the files "credentials" and "config" in ~/.aws, or where
 * AWS_SHARED_CREDENTIALS_FILE and AWS_CONFIG_FILE say.  Read anew for each use; any thread.
 */
#ifndef QC2_AWS_PROFILE_H
#define QC2_AWS_PROFILE_H

#include <stdbool.h>

#include "err.h"

struct qc2_aws_profile {
	char *name;
	bool named;		/* by the caller or AWS_PROFILE, so that it must exist */
	bool found;
	/* NULL: not given.  All in @files. */
	const char *access_key, *secret_key, *session_token;
	const char *region;
	const char *process;
	const char *role_arn, *role_session_name, *web_identity_token_file;
	const char *source_profile, *credential_source;
	const char *sso;	/* sso_session or sso_start_url */
	char *files[2];
};

/**
 * qc2_aws_profile_load() - read a profile
 * @name: NULL: AWS_PROFILE, else "default"
 * @profile: to be freed with qc2_aws_profile_free() after a success; it may have not
 *	been found
 *
 * What the file of credentials says comes before the other; a secret and a session token
 * count only from the file that has the access key.
 *
 * Return: 0 or a negative errno with @err naming file and line.
 */
int qc2_aws_profile_load(const char *name, struct qc2_aws_profile *profile, struct qc2_err *err);
void qc2_aws_profile_free(struct qc2_aws_profile *profile);

#endif
