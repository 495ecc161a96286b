/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Credentials: the keys that requests to a store are signed with, and where
 * they come from.
 *
 * struct qc2_keys is one set of keys, constant once it is made.  It lies in
 * pages of its own, which are left out of core dumps and wiped before they are
 * given back.
 *
 * struct qc2_credentials is a source of them: the latest keys, and how to get
 * newer ones.  Any thread may call any function; only qc2_credentials_refresh()
 * blocks (on the network, on a program, on another thread that does the same).
 *
 * No text that comes from here (errors above all) has a secret in it, nor a
 * piece of an answer.
 */
#ifndef QC2_CREDENTIALS_H
#define QC2_CREDENTIALS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "err.h"

/**
 * struct qc2_keys - one set of keys
 * @id: s3: access key id.  azure: NULL, the account is in the URL.  http: NULL
 * @secret: s3: secret access key.  azure: account key (base64), or NULL with a SAS.
 *	http: NULL
 * @token: s3: session token, or NULL.  azure: SAS (a query without the '?'), or
 *	NULL with an account key.  http: a whole header line, "Name: value"
 * @expires: seconds since 1970; 0: never
 *
 * The rest is private.
 */
struct qc2_keys {
	const char *id;
	const char *secret;
	const char *token;
	int64_t expires;

	_Atomic unsigned int refs;
};

/**
 * qc2_keys_new() - make keys from copies of texts
 * @id: or NULL, as the other two
 *
 * Return: keys with one reference, or NULL for lack of memory.
 */
struct qc2_keys *qc2_keys_new(const char *id, const char *secret, const char *token,
			      int64_t expires);
struct qc2_keys *qc2_keys_ref(struct qc2_keys *keys);
void qc2_keys_unref(struct qc2_keys *keys);	/* NULL is fine */

enum qc2_credentials_kind {
	QC2_CREDENTIALS_AUTO,		/* the first that is set up: credentials.c */
	QC2_CREDENTIALS_KEYS,		/* as configured */
	QC2_CREDENTIALS_ENV,
	QC2_CREDENTIALS_PROFILE,	/* of AWS's files */
	QC2_CREDENTIALS_PROCESS,
	QC2_CREDENTIALS_WEB_IDENTITY,
	QC2_CREDENTIALS_CONTAINER,
	QC2_CREDENTIALS_INSTANCE,
	QC2_CREDENTIALS_HEADER_FILE,	/* http: a header line in a file */
};

/* What to make a source of; the texts are copied.  What a kind does not need is NULL. */
struct qc2_credentials_config {
	enum qc2_credentials_kind kind;
	const char *account;		/* azure: of the URL; NULL: this is for s3 or http */
	const char *id, *secret, *token;	/* KEYS */
	const char *profile;		/* NULL: AWS_PROFILE, else "default" */
	const char *process;		/* PROCESS: the command */
	const char *header_file;
	const char *ca_file;		/* for the token service; NULL: those of the system */
	/* For tests; NULL or 0: the real ones. */
	int64_t (*now)(void);		/* seconds since 1970 */
	const char *container_base;	/* "http://169.254.170.2" */
	unsigned int time_limit_ms;	/* of each request, and of a program */
};

struct qc2_credentials;

/* Nothing is read or asked for yet.  NULL: out of memory. */
struct qc2_credentials *qc2_credentials_new(const struct qc2_credentials_config *cfg);

/* When no thread is in any of the functions below; keys taken out of it stay. */
void qc2_credentials_free(struct qc2_credentials *creds);

/**
 * qc2_credentials_get() - the keys to sign with now
 *
 * Never blocks.  Return: a reference, or NULL if there are no valid keys and
 * qc2_credentials_refresh() is needed first.
 */
struct qc2_keys *qc2_credentials_get(struct qc2_credentials *creds);

/**
 * qc2_credentials_due() - whether a refresh should be started
 *
 * Never blocks.  Return: true if there are no valid keys, or they expire soon
 * (a different "soon" for each process, so that many machines do not ask at
 * once); false while a refresh runs, or shortly after one failed.
 */
bool qc2_credentials_due(struct qc2_credentials *creds);

/**
 * qc2_credentials_refresh() - get new keys
 *
 * Blocks for a bounded time (half a minute at most for each source that is
 * asked).  While one thread does it, others wait for its result and share it; one
 * that comes later still finds them new enough.  Shortly after a failure it fails
 * again, with the same text, without asking anybody.
 *
 * Return: 0 if qc2_credentials_get() has valid keys now, be it the old ones since the
 * refresh failed; else a negative errno with @err saying which source was asked, and
 * what to do: -EAGAIN if trying again later may help, -EACCES if there are no
 * credentials, or a source refused, or it has nothing but keys that the store rejected.
 */
int qc2_credentials_refresh(struct qc2_credentials *creds, struct qc2_err *err);

/**
 * qc2_credentials_reject() - the store said that these keys have expired
 * @used: what qc2_credentials_get() returned; the caller still has its reference
 *
 * They are not given out any more.  Nothing happens if there are newer ones.  When the
 * third set within a minute of its life is rejected, and from then on, the next refresh
 * is one after a failure: with a pause in front of it.
 */
void qc2_credentials_reject(struct qc2_credentials *creds, const struct qc2_keys *used);

#endif
