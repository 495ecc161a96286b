/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Opening chains.  An opening lives until its disk has ended it and none of its
 * jobs is running.  Main thread only, but for the run functions of the jobs.
 */
#include <errno.h>
#include <malloc.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "disk.h"
#include "manifest_open.h"
#include "opening.h"

/* Sectors; 128 MiB: 16 KiB of an L2 table with clusters of 64 KiB. */
#define WINDOW_SECTORS	(1ULL << 18)
/* The whole index gives way to requests until none has come for so long ... */
#define QUIET_US	200000
/* ... but no longer than that; and so long if none comes at all. */
#define LATEST_US	2000000
#define MAX_RETRY_MS	10000

/* A window that was read; without an index: only the whole one will do. */
struct window {
	uint64_t from;
	struct qc2_index *index;
};

/* A step on its way. */
struct step {
	struct job job;
	struct opening *opening;
	bool running;
	struct qc2_err err;
	int ret;
};

struct opening {
	struct disk *disk;		/* NULL: ended */
	struct chaind *chaind;
	char *url;
	struct qc2_chain_limits limits;
	struct qc2_store *store;
	uint64_t requests, bytes;	/* of the store, counted already */
	struct qc2_walk *walk;
	bool whole;			/* no windows */
	struct step first, next_window, all, digests;
	struct qc2_digests *new_digests;
	struct window window;		/* being read */
	struct window *windows;
	size_t nr_windows;
	bool no_windows;		/* reading one has failed */
	sd_event_source *timer;		/* for reading all */
	uint64_t latest_us;		/* when it is to be read at the latest */
	unsigned int tries;
};

static void free_opening(struct opening *o)
{
	size_t i;

	for (i = 0; i < o->nr_windows; i++)
		qc2_index_free(o->windows[i].index);
	free(o->windows);
	qc2_index_free(o->window.index);
	qc2_digests_free(o->new_digests);
	sd_event_source_disable_unref(o->timer);
	qc2_walk_free(o->walk);
	qc2_store_free(o->store);
	free(o->url);
	free(o);
	/* Headers and tables took much more than what stays of them. */
	malloc_trim(0);
}

static void start_step(struct opening *o, struct step *step, struct pool *pool)
{
	step->running = true;
	pool_submit(pool, &step->job);
}

static bool is_running(const struct opening *o)
{
	return o->first.running || o->next_window.running || o->all.running ||
	       o->digests.running;
}

/*
 * A job has come back: counts what it cost.  Returns its disk; NULL: that has ended
 * the opening, which is freed with its last job.
 */
static struct disk *end_step(struct step *step)
{
	struct opening *o = step->opening;
	uint64_t requests, bytes;

	step->running = false;
	if (!o->disk) {
		if (!is_running(o))
			free_opening(o);
		return NULL;
	}
	qc2_store_stats(o->store, &requests, &bytes);
	o->disk->stats->requests += requests - o->requests;
	o->disk->stats->bytes += bytes - o->bytes;
	o->requests = requests;
	o->bytes = bytes;
	return o->disk;
}

static struct step *to_step(struct job *job)
{
	return (struct step *)((char *)job - offsetof(struct step, job));
}

/*
 * ---------------------------------------------------------------------------
 * Walking
 * ---------------------------------------------------------------------------
 */

static void read_window(struct opening *o, struct step *step)
{
	step->ret = qc2_walk_window(o->walk, o->window.from,
				    o->window.from + WINDOW_SECTORS,
				    &o->window.index, &step->err);
}

static void first_run(struct job *job)
{
	struct step *step = to_step(job);
	struct opening *o = step->opening;

	step->ret = qc2_walk_new(qc2_store_opener(o->store), o->url, &o->limits,
				 &o->walk, &step->err);
	if (step->ret || qc2_walk_chain(o->walk)->index)
		return;
	if (!o->whole && qc2_walk_chain(o->walk)->nr_sectors > WINDOW_SECTORS) {
		read_window(o, step);
		return;
	}
	step->ret = qc2_walk_read(o->walk, &step->err);
	if (!step->ret)
		qc2_walk_complete(o->walk);
}

static void start_timer(struct opening *o, uint64_t usec)
{
	sd_event_source_set_time_relative(o->timer, usec);
	sd_event_source_set_enabled(o->timer, SD_EVENT_ONESHOT);
}

/* Takes a window that was read; without memory for it the whole one has to do. */
static void add_window(struct opening *o)
{
	struct window *windows = reallocarray(o->windows, o->nr_windows + 1,
					      sizeof(*windows));

	if (windows) {
		o->windows = windows;
		windows[o->nr_windows++] = o->window;
	} else {
		qc2_index_free(o->window.index);
		o->no_windows = true;
	}
	if (!windows || !o->window.index)
		opening_go_on(o);
	o->window.index = NULL;
}

static void first_done(struct job *job)
{
	struct step *step = to_step(job);
	struct opening *o = step->opening;
	struct disk *disk = end_step(step);

	if (!disk)
		return;
	if (step->ret) {
		disk_walked(disk, NULL, step->ret, &step->err);
		return;
	}
	o->latest_us = now_us() + LATEST_US;
	if (!qc2_walk_chain(o->walk)->index) {
		start_timer(o, LATEST_US);
		add_window(o);
	} else if (opening_wants_digests(o)) {
		start_timer(o, LATEST_US);
	}
	disk_walked(disk, qc2_walk_chain(o->walk), 0, NULL);
}

/*
 * ---------------------------------------------------------------------------
 * Windows
 * ---------------------------------------------------------------------------
 */

static void window_run(struct job *job)
{
	struct step *step = to_step(job);

	read_window(step->opening, step);
}

static void window_done(struct job *job)
{
	struct step *step = to_step(job);
	struct opening *o = step->opening;
	struct disk *disk = end_step(step);

	if (!disk)
		return;
	if (!step->ret) {
		add_window(o);
	} else {
		/* What it means for the disk is decided when all is read. */
		o->no_windows = true;
		opening_go_on(o);
	}
	disk_indexed(disk);
}

const struct qc2_index *opening_index(struct opening *o, uint64_t sector,
				      uint64_t nr_sectors, uint64_t *to)
{
	uint64_t start = sector - sector % WINDOW_SECTORS;
	size_t i;

	for (i = 0; i < o->nr_windows; i++) {
		if (o->windows[i].from != start)
			continue;
		*to = start + WINDOW_SECTORS;
		return nr_sectors <= *to - sector ? o->windows[i].index : NULL;
	}
	if (!o->next_window.running && !o->no_windows) {
		o->window.from = start;
		start_step(o, &o->next_window, o->chaind->open_pool);
	}
	return NULL;
}

/*
 * ---------------------------------------------------------------------------
 * All
 * ---------------------------------------------------------------------------
 */

static void all_run(struct job *job)
{
	struct step *step = to_step(job);

	step->ret = qc2_walk_read(step->opening->walk, &step->err);
}

static void all_done(struct job *job)
{
	struct step *step = to_step(job);
	struct opening *o = step->opening;
	struct disk *disk = end_step(step);

	if (!disk)
		return;
	if (step->ret == -EAGAIN || step->ret == -ENOMEM) {
		log_warn("disk %s: %s; trying again", disk->info.name,
			 step->err.msg);
		disk->error = step->err;
		start_timer(o, qc2_backoff_ms(++o->tries, MAX_RETRY_MS) * 1000ULL);
		return;
	}
	if (!step->ret)
		qc2_walk_complete(o->walk);
	disk_complete(disk, step->ret, &step->err);
}

/*
 * ---------------------------------------------------------------------------
 * Digests
 * ---------------------------------------------------------------------------
 */

bool opening_wants_digests(const struct opening *o)
{
	const struct qc2_chain *chain = qc2_walk_chain(o->walk);

	return chain->manifest && chain->manifest->head.digests_len;
}

static void digests_run(struct job *job)
{
	struct step *step = to_step(job);
	struct opening *o = step->opening;

	step->ret = qc2_manifest_fetch_digests(o->store,
					       qc2_walk_chain(o->walk)->manifest,
					       &o->new_digests, &step->err);
}

static void digests_done(struct job *job)
{
	struct step *step = to_step(job);
	struct opening *o = step->opening;
	struct disk *disk = end_step(step);
	struct qc2_digests *digests;

	if (!disk)
		return;
	if (step->ret == -EAGAIN || step->ret == -ENOMEM) {
		log_warn("disk %s: what is fetched is not verified yet: %s; trying again",
			 disk->info.name, step->err.msg);
		start_timer(o, qc2_backoff_ms(++o->tries, MAX_RETRY_MS) * 1000ULL);
		return;
	}
	digests = o->new_digests;
	o->new_digests = NULL;
	disk_verifies(disk, digests, &step->err);
}

static int on_timer(sd_event_source *source, uint64_t usec, void *arg)
{
	struct opening *o = arg;

	if (o->all.running || o->digests.running)
		return 0;
	if (qc2_walk_chain(o->walk)->index)
		start_step(o, &o->digests, o->chaind->table_pool);
	else
		start_step(o, &o->all, o->chaind->table_pool);
	return 0;
}

void opening_go_on(struct opening *o)
{
	uint64_t now = now_us(), left = o->latest_us > now ? o->latest_us - now : 0;

	/* After a failure the timer has to wait. */
	if (!o->all.running && !o->digests.running && !o->tries)
		start_timer(o, left < QUIET_US ? left : QUIET_US);
}

/*
 * ---------------------------------------------------------------------------
 * The whole
 * ---------------------------------------------------------------------------
 */

static void init_step(struct opening *o, struct step *step,
		      void (*run)(struct job *job), void (*done)(struct job *job))
{
	step->opening = o;
	step->job.run = run;
	step->job.done = done;
}

struct opening *opening_new(struct disk *disk)
{
	struct chaind *chaind = disk->chaind;
	const struct qc2_config *cfg = &chaind->cfg;
	struct opening *o = calloc(1, sizeof(*o));

	if (!o)
		return NULL;
	o->disk = disk;
	o->chaind = chaind;
	o->url = strdup(disk->info.url);
	o->store = qc2_store_new(&chaind->store_cfg);
	o->whole = disk->suspect;
	o->limits.reread = disk->suspect;
	o->limits.no_manifest = disk->no_manifest;
	o->limits.max_depth = cfg->max_depth;
	o->limits.allow = (const char *const *)cfg->allow;
	o->limits.nr_allow = cfg->nr_allow;
	o->limits.index_dir = chaind->has_index_dir ? cfg->index_dir : NULL;
	init_step(o, &o->first, first_run, first_done);
	init_step(o, &o->next_window, window_run, window_done);
	init_step(o, &o->all, all_run, all_done);
	init_step(o, &o->digests, digests_run, digests_done);
	if (!o->url || !o->store ||
	    sd_event_add_time_relative(chaind->event, &o->timer, CLOCK_MONOTONIC,
				       0, 0, on_timer, o) < 0 ||
	    sd_event_source_set_enabled(o->timer, SD_EVENT_OFF) < 0) {
		free_opening(o);
		return NULL;
	}
	start_step(o, &o->first, chaind->open_pool);
	return o;
}

void opening_cancel(struct opening *o)
{
	qc2_store_cancel(o->store);
}

void opening_end(struct opening *o)
{
	opening_cancel(o);
	o->disk = NULL;
	sd_event_source_set_enabled(o->timer, SD_EVENT_OFF);
	if (!is_running(o))
		free_opening(o);
}
