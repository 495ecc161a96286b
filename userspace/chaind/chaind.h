/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The daemon as a whole: what its parts share.
 *
 * Threads: the main thread runs the event loop and owns every table.  Pool
 * threads run one job each and see nothing but what the job owns and what
 * never changes: the configuration, chains that are open.
 */
#ifndef CHAIND_CHAIND_H
#define CHAIND_CHAIND_H

#include <stdbool.h>
#include <sys/queue.h>

#include <systemd/sd-event.h>

#include "cache.h"
#include "config.h"
#include "fetch.h"
#include "kernel.h"
#include "pool.h"
#include "store.h"

struct control;
struct disk;
struct misses;
struct region;
struct replicas;

TAILQ_HEAD(disk_list, disk);

struct chaind {
	struct qc2_config cfg;
	struct qc2_store_config store_cfg;
	bool has_index_dir;
	sd_event *event;
	struct kernel *kernel;
	struct cache *cache;
	struct fetcher *fetcher;
	struct region *region;		/* NULL: there is none */
	struct replicas *replicas;
	struct pool *open_pool;		/* headers, and windows of the index */
	struct pool *table_pool;	/* all of the index */
	struct misses *misses;
	struct disk_list disks;
	struct control *control;
};

#endif
