/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Sites: how each store is reached and who we are there, from the stores file.
 *
 * A section of the file is named by the prefix of URLs that it is for.  The
 * longest one that fits a URL counts, and it alone: a key that is missing there
 * has its default, even if a shorter prefix gives one.
 *
 * Everything is constant once it is loaded, but for what answers teach: the clock
 * and the region of a site, and its credentials.  Those have locks of their own,
 * so any thread may use a site at any time.
 */
#ifndef QC2_SITE_H
#define QC2_SITE_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "credentials.h"
#include "err.h"

#define QC2_SITES_DEFAULT_PATH	"/etc/qcow2chain/stores.conf"
#define QC2_REGION_LEN		64	/* with the NUL */
#define QC2_BUCKET_LEN		64

/**
 * struct qc2_site - one section of the stores file, or the default of a scheme
 * @prefix: canonical; ends in '/'.  The defaults are "s3://", "azure://", "http://",
 *	"https://" and "file://"
 * @endpoint: "https://HOST" or "https://HOST:PORT" (or http), no slash at the end;
 *	NULL: the provider's own.  Never given for http:// and https:// prefixes
 * @region: as configured, else from the environment or profile, else "us-east-1"; s3 only
 * @ca_file: NULL: what the configuration has for all stores
 * @proxy: NULL: as the environment says; "": none.  May hold a password: never show it
 * @virtual_host: the bucket (or account) is a part of the host name
 * @http2: may be used where it is offered
 * @connections: at once; 0: no limit of its own
 * @idle_s: an unused connection is closed after this time; 0: the default
 * @replicas: canonical prefixes that hold the same objects as @prefix
 * @creds: NULL: anonymous
 */
struct qc2_site {
	char *prefix;
	char *endpoint;
	char *region;
	char *ca_file;
	char *proxy;
	bool virtual_host;
	bool http2;
	unsigned int connections;
	unsigned int idle_s;
	char **replicas;
	size_t nr_replicas;
	struct qc2_credentials *creds;

	/* What answers taught; see the functions below. */
	_Atomic int64_t clock_offset;	/* the store's clock minus ours, seconds */
	pthread_mutex_t lock;
	/* Under @lock: regions of buckets, the last ones that were learned. */
	struct {
		char bucket[QC2_BUCKET_LEN];
		char region[QC2_REGION_LEN];
	} learned[16];
	unsigned int nr_learned;
};

struct qc2_sites;

/**
 * qc2_sites_load() - read the stores file
 * @path: the file, which must exist; or NULL for the default file, which may be
 *	missing
 * @sites: to be freed with qc2_sites_free(); NULL after a failure
 *
 * The file is refused if it is neither the caller's nor root's, if others can
 * read it, or if its group or others can write it.  Mistakes are errors that name
 * the file and the line, and never repeat the value of a secret.
 *
 * Return: 0 or a negative errno with @err filled.
 */
int qc2_sites_load(const char *path, struct qc2_sites **sites, struct qc2_err *err);
void qc2_sites_free(struct qc2_sites *sites);	/* NULL is fine */

/**
 * qc2_sites_find() - the site of an object
 * @url: canonical
 *
 * Return: the site, which lives as long as @sites; never NULL.
 */
struct qc2_site *qc2_sites_find(struct qc2_sites *sites, const char *url);

/**
 * qc2_site_region() - the region to sign for
 * @url: canonical s3:// URL in the site; each bucket may be in another region
 * @buf: takes what was learned, else what is configured
 */
void qc2_site_region(struct qc2_site *site, const char *url, char buf[QC2_REGION_LEN]);

/**
 * qc2_site_learn_region() - a store named the region of a bucket in an answer
 * @url: canonical s3:// URL
 *
 * Return: true if it is a plausible name of a region (1 to 63 of a-z, 0-9 and '-').
 */
bool qc2_site_learn_region(struct qc2_site *site, const char *url, const char *region);

#endif
