/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The configuration of daemon and control tool: an INI file with the sections
 * [daemon], [cache], [tip], [chain], [store] and [region].  Read once at start, constant
 * afterwards.  What a key means is in chaind(8).
 */
#ifndef QC2_CONFIG_H
#define QC2_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "err.h"

#define QC2_CONFIG_DEFAULT_PATH	"/etc/qcow2chain/chaind.conf"

struct qc2_config {
	/* [daemon] */
	char *socket;			/* control socket */
	char *run_dir;			/* state files of running disks */
	char *group;			/* may use the socket; NULL: root only */
	/* [cache] */
	char *cache_path;		/* "path" */
	uint64_t cache_size;		/* "size", bytes */
	char *cache_index;		/* "index"; NULL: beside the cache's file */
	uint64_t cache_scrub_rate;	/* "scrub_rate", bytes/s */
	/* [tip] */
	char *tip_dir;			/* "dir" */
	/* [chain] */
	unsigned int max_depth;
	char **allow;			/* URL prefixes, each ends in '/' */
	size_t nr_allow;
	char *index_dir;		/* see index_file.h */
	/* [store] */
	char *ca_file;			/* NULL: those of the system */
	char *sites_file;		/* NULL: the default one, see site.h */
	bool allow_local_addresses;	/* a name may lead to this machine */
	unsigned int connections;	/* at once, to all stores together */
	unsigned int connect_timeout_s;
	unsigned int low_speed_time_s;	/* a transfer that stalls this long fails */
	uint64_t extension_bytes;	/* "extension": a fetch grows up to this */
	/* [region] */
	char *region_cache;		/* "cache": folder or bucket, ends in '/'; NULL: none */
	char **region_stores;		/* "stores": URL prefixes that lie in the region */
	size_t nr_region_stores;
	char *region_key_file;		/* "key_file"; NULL: none */
	bool region_private;		/* "private": data of stores with credentials, too */
	unsigned int region_timeout_ms;	/* "timeout_ms": who does not answer by then has not got it */
};

/**
 * qc2_config_load() - read the configuration
 * @path: the file, which must exist; or NULL for the default file, which may
 *	be missing
 * @cfg: filled with the file's values over the defaults; to be freed with
 *	qc2_config_free() after success only
 *
 * Unknown sections and keys, values out of range and lines that cannot be
 * read are errors that name the file and the line.  A key given twice counts
 * as given last, but for "allow" and "stores", which add up.
 *
 * Return: 0 or a negative errno with @err filled.
 */
int qc2_config_load(const char *path, struct qc2_config *cfg,
		    struct qc2_err *err);
void qc2_config_free(struct qc2_config *cfg);

#endif
