/* SPDX-License-Identifier: GPL-2.0 */
/*
 * URLs of images: checking, the names in backing file fields, and the rule
 * where a backing file may lie.  Everything here is text work without I/O, so
 * symbolic links are not looked at.
 *
 * A canonical URL is file:///PATH, http://HOST/PATH, https://HOST/PATH,
 * s3://BUCKET/KEY or azure://ACCOUNT/CONTAINER/BLOB with
 * the scheme and host in lower case, no dot segments and no user part, in
 * printable ASCII (other bytes percent-encoded, one spelling for each).  A
 * percent-encoded slash or control character is refused, so the canonical form
 * means the same to every server.  Only canonical URLs are opened, compared
 * and shown.
 */
#ifndef QC2_URL_H
#define QC2_URL_H

#include <stdbool.h>
#include <stddef.h>

#include "err.h"

/* A top image, as a user names it. */
struct qc2_top {
	char *url;		/* canonical */
	bool raw;		/* "#format=raw" followed; else it is qcow2 */
	char *snapshot;		/* "#snapshot=NAME" followed; or NULL */
};

/**
 * qc2_url_top() - check the URL of a top image as a user gives it
 * @url: may end in "#format=raw" or "#snapshot=NAME", NAME as it is
 * @top: filled; to be freed with qc2_top_free() after a success
 *
 * Return: 0 or a negative errno with @err filled.  The text never repeats a
 * password.
 */
int qc2_url_top(const char *url, struct qc2_top *top, struct qc2_err *err);
void qc2_top_free(struct qc2_top *top);

/* One text for each top image; the caller frees it.  NULL: out of memory. */
char *qc2_top_text(const struct qc2_top *top);

/**
 * qc2_url_prefix() - check the URL of a folder, for the "allow" list
 * @url: with or without a slash at the end
 * @canonical: canonical, with a slash at the end; the caller frees it
 *
 * Return: 0 or a negative errno with @err filled.
 */
int qc2_url_prefix(const char *url, char **canonical, struct qc2_err *err);

/**
 * qc2_url_resolve() - find out what the name of a backing or data file means
 * @base: canonical URL of the image that holds the name
 * @name: an absolute URL; or a name relative to the
 *	folder of @base; or, in a file:// image only, an absolute path
 * @canonical: the result; the caller frees it
 *
 * In a file:// image a name is a plain file name, as QEMU takes it: "%20" are
 * three characters.  In others it is a piece of a URL.  "json:" and protocols
 * other than those above are refused.
 *
 * Return: 0 or a negative errno with @err filled (naming @base).
 */
int qc2_url_resolve(const char *base, const char *name, char **canonical,
		    struct qc2_err *err);

/**
 * qc2_url_allowed() - whether a backing file may be read
 * @url: canonical URL of the backing file
 * @top: canonical URL of the top image, whose folder is always allowed
 * @allow: canonical prefixes that are allowed too
 * @nr_allow: their number
 *
 * Return: 0, or -EACCES with @err saying which prefix to add.
 */
int qc2_url_allowed(const char *url, const char *top, const char *const *allow,
		    size_t nr_allow, struct qc2_err *err);

/**
 * qc2_url_has_name() - whether the DNS, or the like, says where a URL leads
 * @url: canonical
 *
 * Return: true if its host is a name; false for an address, for localhost, for a
 * file, and for s3:// and azure://, whose servers the administrator names.
 */
bool qc2_url_has_name(const char *url);

/* Whether scheme, host and port of two canonical URLs are the same. */
bool qc2_url_same_origin(const char *one, const char *two);

/**
 * qc2_url_redirect() - whether a server may send us elsewhere
 * @from: canonical http:// or https:// URL that was asked for
 * @location: where it redirects to, as in its answer
 * @allow: canonical prefixes that are allowed, besides the same origin and https:// on
 *	the same host
 * @target: canonical, if it may; the caller frees it
 *
 * Return: 0 or a negative errno; the text of @err names the target's origin, not more,
 * as the rest of such a URL is often a secret.
 */
int qc2_url_redirect(const char *from, const char *location, const char *const *allow,
		     size_t nr_allow, char **target, struct qc2_err *err);

/**
 * qc2_url_to_key() - what follows the host of a canonical URL and a slash, decoded
 *
 * Return: the text, which the caller frees; NULL for lack of memory.
 */
char *qc2_url_to_key(const char *url);

/**
 * qc2_url_from_key() - the canonical URL of an object that a store listed
 * @base: canonical URL of another object or folder in the bucket
 * @key: its name there (in the container, at azure://)
 *
 * Return: 0 or a negative errno with @err filled: no URL names such an object, or it
 * is a folder; the caller frees @canonical.
 */
int qc2_url_from_key(const char *base, const char *key, char **canonical,
		     struct qc2_err *err);

/**
 * qc2_url_from_path() - the canonical URL of an absolute path
 *
 * Return: 0 or a negative errno with @err filled; the caller frees @canonical.
 */
int qc2_url_from_path(const char *path, char **canonical, struct qc2_err *err);

/**
 * qc2_url_to_path() - the path of a canonical file:// URL
 *
 * Return: the path, which the caller frees; NULL if the URL has another scheme
 * or for lack of memory.
 */
char *qc2_url_to_path(const char *url);

#endif
