/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The latest keys of a source, and when to get newer ones.
 *
 * Everything in struct qc2_credentials behind @lock is under it.  A refresh asks its
 * sources without it: @refreshing keeps others out meanwhile, who wait for @round to end.
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "credentials.h"
#include "credentials_source.h"
#include "secret.h"

/*
 * Keys are renewed so long before they expire, and up to as much earlier, different for
 * each process and time; but never in the first half of their life.  Services have new
 * ones about five minutes before.
 */
#define MARGIN_S	300
/* Pauses after failures: 1 s, doubled up to this. */
#define MAX_PAUSE_S	60
/* What does not expire but may change, a header in a file, is read again so often. */
#define RECHECK_S	10

struct qc2_credentials {
	struct qc2_credentials_config cfg;	/* texts are ours; those of KEYS in @configured */
	struct qc2_keys *configured;
	pthread_mutex_t lock;
	pthread_cond_t done;		/* @round has changed */
	struct qc2_keys *keys;		/* the latest; NULL: none, or rejected */
	int64_t since;			/* when @keys came */
	int64_t due;			/* time to renew @keys; INT64_MAX: not by time */
	struct qc2_keys *rejected;	/* the last that the store rejected */
	bool rejected_again;		/* the source gave the same once more */
	unsigned int rejections;	/* in a row, of keys that had just come */
	bool ever;			/* there have been keys */
	bool refreshing;
	unsigned int round;
	unsigned int failures;		/* in a row */
	int64_t pause_end;		/* no refresh before this, after a failure */
	int ret;			/* of the last refresh */
	struct qc2_err err;
};

/* --- keys ---------------------------------------------------------------------- */

static char *put_text(char *out, const char *text, const char **field)
{
	if (!text)
		return out;
	*field = out;
	return stpcpy(out, text) + 1;
}

struct qc2_keys *qc2_keys_new(const char *id, const char *secret, const char *token,
			      int64_t expires)
{
	size_t len = (id ? strlen(id) + 1 : 0) + (secret ? strlen(secret) + 1 : 0) +
		     (token ? strlen(token) + 1 : 0);
	struct qc2_keys *keys = qc2_secret_alloc(sizeof(*keys) + len);
	char *out;

	if (!keys)
		return NULL;
	out = put_text((char *)(keys + 1), id, &keys->id);
	out = put_text(out, secret, &keys->secret);
	put_text(out, token, &keys->token);
	keys->expires = expires;
	keys->refs = 1;
	return keys;
}

struct qc2_keys *qc2_keys_ref(struct qc2_keys *keys)
{
	keys->refs++;
	return keys;
}

void qc2_keys_unref(struct qc2_keys *keys)
{
	if (keys && !--keys->refs)
		qc2_secret_free(keys);
}

static bool same_text(const char *a, const char *b)
{
	return a && b ? !strcmp(a, b) : a == b;
}

static bool same_keys(const struct qc2_keys *a, const struct qc2_keys *b)
{
	return same_text(a->id, b->id) && same_text(a->secret, b->secret) &&
	       same_text(a->token, b->token);
}

/* --- sources --------------------------------------------------------------------- */

static const struct {
	const char *name;
	qc2_creds_source ask;
} sources[] = {
	[QC2_CREDENTIALS_ENV] = { "environment", qc2_creds_env },
	[QC2_CREDENTIALS_PROFILE] = { "profile", qc2_creds_profile },
	[QC2_CREDENTIALS_PROCESS] = { "process", qc2_creds_process },
	[QC2_CREDENTIALS_WEB_IDENTITY] = { "web identity", qc2_creds_web_identity },
	[QC2_CREDENTIALS_CONTAINER] = { "container", qc2_creds_container },
	[QC2_CREDENTIALS_INSTANCE] = { "instance", qc2_creds_instance },
	[QC2_CREDENTIALS_HEADER_FILE] = { "header_file", qc2_creds_header_file },
};

static int ask_one(struct qc2_credentials *creds, enum qc2_credentials_kind kind, int64_t now,
		   struct qc2_keys **keys, struct qc2_err *err)
{
	int ret = sources[kind].ask(&creds->cfg, now, keys, err);

	return ret && ret != -ENOMEM ?
	       qc2_fail_prefix(err, ret, "%s: ", sources[kind].name) : ret;
}

/*
 * The first source that is set up, in the order of AWS's tools; an error of it is one,
 * rather than a reason to be somebody else.  Only the instance cannot be told from
 * nothing: outside of the cloud its address does not answer.
 */
static int ask_all(struct qc2_credentials *creds, bool ever, int64_t now,
		   struct qc2_keys **keys, struct qc2_err *err)
{
	static const enum qc2_credentials_kind order[] = {
		QC2_CREDENTIALS_ENV, QC2_CREDENTIALS_WEB_IDENTITY, QC2_CREDENTIALS_PROFILE,
		QC2_CREDENTIALS_CONTAINER, QC2_CREDENTIALS_INSTANCE,
	};
	size_t nr = sizeof(order) / sizeof(order[0]), used = 0;
	char all[sizeof(err->msg)] = "";
	struct qc2_err one = { "" };
	int ret = 0;

	for (size_t i = 0; i < nr; i++) {
		ret = ask_one(creds, order[i], now, keys, &one);
		if (!ret)
			return 0;
		if (ret != -ENODATA && i < nr - 1) {
			*err = one;
			return ret;
		}
		used += snprintf(all + used, sizeof(all) - used, "%s%s", i ? "; " : "", one.msg);
		if (used >= sizeof(all))
			used = sizeof(all) - 1;
	}
	/* It worked before, so it will again. */
	return qc2_fail(err, ever ? EAGAIN : EACCES,
			"none found (%s); \"credentials = anonymous\" asks without", all);
}

static int ask(struct qc2_credentials *creds, bool ever, int64_t now, struct qc2_keys **keys,
	       struct qc2_err *err)
{
	int ret;

	if (creds->cfg.kind == QC2_CREDENTIALS_KEYS) {
		*keys = qc2_keys_ref(creds->configured);
		return 0;
	}
	if (creds->cfg.kind == QC2_CREDENTIALS_AUTO)
		ret = ask_all(creds, ever, now, keys, err);
	else
		ret = ask_one(creds, creds->cfg.kind, now, keys, err);
	return ret == -ENODATA ? -EACCES : ret;
}

/* --- refresh ----------------------------------------------------------------------- */

static int64_t now_s(struct qc2_credentials *creds)
{
	return creds->cfg.now ? creds->cfg.now() : time(NULL);
}

/* A clock that was put back must not make a pause of it. */
static bool pausing(const struct qc2_credentials *creds, int64_t now)
{
	return now < creds->pause_end && creds->pause_end - now <= MAX_PAUSE_S;
}

static bool valid(const struct qc2_keys *keys, int64_t now)
{
	return keys && (!keys->expires || now < keys->expires);
}

/* 0 to @max, another one for each process and time. */
static int64_t jitter(unsigned int max)
{
	unsigned int r;

	if (getrandom(&r, sizeof(r), GRND_NONBLOCK) != sizeof(r))
		return max / 2;
	return r % (max + 1);
}

static int64_t due_time(struct qc2_credentials *creds, const struct qc2_keys *keys, int64_t now)
{
	int64_t left = keys->expires - now;

	if (creds->cfg.kind == QC2_CREDENTIALS_HEADER_FILE)
		return now + RECHECK_S;
	if (!keys->expires)
		return INT64_MAX;
	if (left < 4 * MARGIN_S)
		return now + 1 + left / 2 + jitter(left / 4);
	return keys->expires - MARGIN_S - jitter(MARGIN_S);
}

/* The @nr-th pause in a row, from 0; at least half of what it may be. */
static int64_t pause_end(unsigned int nr, int64_t now)
{
	int64_t pause = nr < 6 ? 1 << nr : MAX_PAUSE_S;

	return now + (pause + 1) / 2 + jitter(pause / 2);
}

static void fail(struct qc2_credentials *creds, int ret, const struct qc2_err *err, int64_t now)
{
	creds->pause_end = pause_end(creds->failures++, now);
	creds->ret = ret;
	creds->err = *err;
}

/* Takes new keys over. */
static void succeed(struct qc2_credentials *creds, struct qc2_keys *keys, int64_t now)
{
	struct qc2_err err;

	if (creds->rejected && same_keys(keys, creds->rejected)) {
		/*
		 * No use now.  But later they get another chance: the store may
		 * have been wrong, and the reads that wait must not need help.
		 */
		if (!creds->rejected_again) {
			creds->rejected_again = true;
			qc2_fail(&err, EACCES,
				 "the store says that the keys have expired, and there are no others yet");
			fail(creds, -EACCES, &err, now);
			qc2_keys_unref(keys);
			return;
		}
	} else {
		qc2_keys_unref(creds->rejected);
		creds->rejected = NULL;
		creds->failures = 0;
	}
	qc2_keys_unref(creds->keys);
	creds->keys = keys;
	creds->ever = true;
	creds->since = now;
	creds->due = due_time(creds, keys, now);
	creds->pause_end = 0;
	creds->ret = 0;
}

int qc2_credentials_refresh(struct qc2_credentials *creds, struct qc2_err *err)
{
	struct qc2_keys *keys = NULL;
	struct qc2_err why = { "" };
	int64_t now = now_s(creds);
	unsigned int round;
	bool ever;
	int ret;

	pthread_mutex_lock(&creds->lock);
	if (creds->refreshing) {
		round = creds->round;
		while (creds->round == round)
			pthread_cond_wait(&creds->done, &creds->lock);
	} else if (!pausing(creds, now) && (!valid(creds->keys, now) || now >= creds->due)) {
		creds->refreshing = true;
		ever = creds->ever;
		pthread_mutex_unlock(&creds->lock);

		ret = ask(creds, ever, now, &keys, &why);

		now = now_s(creds);
		pthread_mutex_lock(&creds->lock);
		if (ret)
			fail(creds, ret, &why, now);
		else
			succeed(creds, keys, now);
		creds->refreshing = false;
		creds->round++;
		pthread_cond_broadcast(&creds->done);
	}
	ret = valid(creds->keys, now) ? 0 : creds->ret ? creds->ret : -EAGAIN;
	if (ret && creds->ret)
		qc2_fail(err, -ret, "credentials: %s", creds->err.msg);
	else if (ret)
		qc2_fail(err, -ret, "credentials: they have expired meanwhile");
	pthread_mutex_unlock(&creds->lock);
	return ret;
}

struct qc2_keys *qc2_credentials_get(struct qc2_credentials *creds)
{
	struct qc2_keys *keys = NULL;
	int64_t now = now_s(creds);

	pthread_mutex_lock(&creds->lock);
	if (valid(creds->keys, now))
		keys = qc2_keys_ref(creds->keys);
	pthread_mutex_unlock(&creds->lock);
	return keys;
}

bool qc2_credentials_due(struct qc2_credentials *creds)
{
	int64_t now = now_s(creds);
	bool due;

	pthread_mutex_lock(&creds->lock);
	due = !creds->refreshing && !pausing(creds, now) &&
	      (!valid(creds->keys, now) || now >= creds->due);
	pthread_mutex_unlock(&creds->lock);
	return due;
}

void qc2_credentials_reject(struct qc2_credentials *creds, const struct qc2_keys *used)
{
	int64_t now = now_s(creds);
	bool again;

	pthread_mutex_lock(&creds->lock);
	/* A reference is held, so that another set cannot have this address. */
	if (creds->keys == used && used) {
		/* The same keys got another chance, after a pause. */
		again = creds->rejected;
		qc2_keys_unref(creds->rejected);
		creds->rejected = creds->keys;
		creds->rejected_again = false;
		creds->keys = NULL;
		/* A pause after a failed renewal of other keys is over. */
		if (!creds->ret)
			creds->pause_end = 0;
		/* A store that takes no keys at all must not make us ask on and on. */
		if (now - creds->since >= MAX_PAUSE_S)
			creds->rejections = 0;
		if (!again && ++creds->rejections > 2) {
			creds->pause_end = pause_end(creds->rejections - 3, now);
			creds->ret = qc2_fail(&creds->err, EACCES,
				"the store says of new keys as well that they have expired");
		}
	}
	pthread_mutex_unlock(&creds->lock);
}

/* --- life ------------------------------------------------------------------------------ */

static bool copy_text(const char **text)
{
	if (*text)
		*text = strdup(*text);
	return *text;
}

struct qc2_credentials *qc2_credentials_new(const struct qc2_credentials_config *cfg)
{
	struct qc2_credentials *creds = calloc(1, sizeof(*creds));
	bool ok = creds;

	if (!ok)
		return NULL;
	creds->cfg = *cfg;
	creds->cfg.id = creds->cfg.secret = creds->cfg.token = NULL;
	if (cfg->kind == QC2_CREDENTIALS_KEYS) {
		creds->configured = qc2_keys_new(cfg->id, cfg->secret, cfg->token, 0);
		ok = creds->configured;
	}
	ok &= copy_text(&creds->cfg.account) || !cfg->account;
	ok &= copy_text(&creds->cfg.profile) || !cfg->profile;
	ok &= copy_text(&creds->cfg.process) || !cfg->process;
	ok &= copy_text(&creds->cfg.header_file) || !cfg->header_file;
	ok &= copy_text(&creds->cfg.ca_file) || !cfg->ca_file;
	pthread_mutex_init(&creds->lock, NULL);
	pthread_cond_init(&creds->done, NULL);
	if (ok)
		return creds;
	qc2_credentials_free(creds);
	return NULL;
}

void qc2_credentials_free(struct qc2_credentials *creds)
{
	if (!creds)
		return;
	qc2_keys_unref(creds->keys);
	qc2_keys_unref(creds->rejected);
	qc2_keys_unref(creds->configured);
	free((char *)creds->cfg.account);
	free((char *)creds->cfg.profile);
	free((char *)creds->cfg.process);
	free((char *)creds->cfg.header_file);
	free((char *)creds->cfg.ca_file);
	pthread_mutex_destroy(&creds->lock);
	pthread_cond_destroy(&creds->done);
	free(creds);
}
