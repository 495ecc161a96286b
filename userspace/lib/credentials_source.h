/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the files credentials*.c share: the sources that credentials.c asks, and what
 * they are made of.  All block; they keep nothing, so any thread may call them.
 *
 * A source returns 0 with keys; -ENODATA if it is not set up at all, so that the next
 * one may be asked; -EAGAIN if it may do better later; -EACCES if it refused, or if what
 * it is set up with cannot work; -ENOMEM.  The text of an error says which of its parts
 * failed; there is never a secret in it, nor text from an answer.
 */
#ifndef QC2_CREDENTIALS_SOURCE_H
#define QC2_CREDENTIALS_SOURCE_H

#include "credentials.h"

/* No answer, file or output of a program that has keys is larger. */
#define QC2_CREDS_MAX	(64 << 10)

/* @now: seconds since 1970 */
typedef int (*qc2_creds_source)(const struct qc2_credentials_config *cfg, int64_t now,
				struct qc2_keys **keys, struct qc2_err *err);

int qc2_creds_env(const struct qc2_credentials_config *cfg, int64_t now,
		  struct qc2_keys **keys, struct qc2_err *err);
int qc2_creds_profile(const struct qc2_credentials_config *cfg, int64_t now,
		      struct qc2_keys **keys, struct qc2_err *err);
int qc2_creds_process(const struct qc2_credentials_config *cfg, int64_t now,
		      struct qc2_keys **keys, struct qc2_err *err);
int qc2_creds_web_identity(const struct qc2_credentials_config *cfg, int64_t now,
			   struct qc2_keys **keys, struct qc2_err *err);
int qc2_creds_container(const struct qc2_credentials_config *cfg, int64_t now,
			struct qc2_keys **keys, struct qc2_err *err);
int qc2_creds_instance(const struct qc2_credentials_config *cfg, int64_t now,
		       struct qc2_keys **keys, struct qc2_err *err);
int qc2_creds_header_file(const struct qc2_credentials_config *cfg, int64_t now,
			  struct qc2_keys **keys, struct qc2_err *err);

/* --- credentials_process.c -------------------------------------------------- */

/**
 * qc2_creds_run() - run a command that prints keys as JSON
 * @command: split as a POSIX shell does it, but nothing else a shell does
 */
int qc2_creds_run(const char *command, unsigned int time_limit_ms, int64_t now,
		  struct qc2_keys **keys, struct qc2_err *err);

/**
 * qc2_creds_split() - split a command into words
 *
 * Return: an array that NULL ends, in one piece of memory that the caller frees; NULL with
 * errno EINVAL for a quote or backslash that nothing follows, or no word at all; ENOMEM.
 */
char **qc2_creds_split(const char *command);

/* --- credentials_sts.c ------------------------------------------------------- */

/**
 * qc2_creds_assume() - AssumeRoleWithWebIdentity
 * @session: name of the session; NULL: one of our own
 * @region: of the service; NULL: the one for the world
 */
int qc2_creds_assume(const struct qc2_credentials_config *cfg, const char *role_arn,
		     const char *token_file, const char *session, const char *region,
		     int64_t now, struct qc2_keys **keys, struct qc2_err *err);

/* --- credentials_parse.c: answers ------------------------------------------- */

/**
 * qc2_creds_make() - keys from texts that somebody sent
 * @token: or NULL
 *
 * Refuses what could not be in a header, and what has expired.
 */
int qc2_creds_make(const char *id, const char *secret, const char *token, int64_t expires,
		   int64_t now, struct qc2_keys **keys, struct qc2_err *err);

/* Seconds since 1970 of "2026-01-31T23:59:59Z", as ISO 8601 has it; or -1. */
int64_t qc2_creds_time(const char *text);

/**
 * qc2_creds_parse_json() - the answer of a program, a container or an instance
 * @token: what it calls the session token
 * @version: "Version" must be 1, and keys need not expire
 */
int qc2_creds_parse_json(const char *text, size_t len, const char *token, bool version,
			 int64_t now, struct qc2_keys **keys, struct qc2_err *err);

/* The answer of the token service. */
int qc2_creds_parse_sts(const char *text, size_t len, int64_t now, struct qc2_keys **keys,
			struct qc2_err *err);

/* The code in an error answer of the token service, if it is one of letters; or "". */
void qc2_creds_parse_sts_error(const char *text, size_t len, char code[48]);

/* --- credentials_http.c ------------------------------------------------------ */

struct qc2_creds_request {
	const char *what;	/* who is asked, for errors */
	const char *method;
	const char *url;
	const char *header;	/* or NULL */
	const char *body;	/* or NULL */
	const char *ca_file;
	bool direct;		/* without a proxy */
	unsigned int time_limit_ms;
};

/**
 * qc2_creds_http() - one request
 * @text: body of the answer with a NUL behind it; to be freed with qc2_secret_free()
 *
 * Return: the status of the answer, whatever it is, or a negative errno.
 */
int qc2_creds_http(const struct qc2_creds_request *req, char **text, size_t *len,
		   struct qc2_err *err);

/* The error that a status other than 200 is. */
int qc2_creds_status(const char *what, int status, struct qc2_err *err);

/* Whether a URL is https, or http to this machine: loopback or localhost. */
bool qc2_creds_url_private(const char *url);

/* getenv(), but "" is NULL. */
const char *qc2_creds_getenv(const char *name);

#endif
