/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Fills.  All work is done in one deferred event, a little at a time; callbacks of disk
 * and fetcher only take notes and wake it.  Main thread only.
 */
#include <errno.h>
#include <stdlib.h>

#include "disk.h"
#include "fill.h"
#include "live.h"
#include "opening.h"
#include "plan.h"
#include "retry_budget.h"

/* Runs of blocks that are dealt with before other events have their turn. */
#define STEP_RUNS	64
#define MAX_RETRY_MS	10000

/* A block that is under way, or has to be tried again. */
struct want {
	struct watcher watcher;		/* first; while it is under way */
	struct fill *fill;
	uint32_t object, nr;
	bool own;			/* the fetch is ours */
	TAILQ_ENTRY(want) entry;
};
TAILQ_HEAD(want_list, want);

struct fill {
	struct disk *disk;		/* NULL: gone */
	bool force;
	enum fill_state state;
	struct qc2_chain *chain;	/* that is worked on, with a reference; or NULL */
	struct live live;
	struct fill_stats stats;
	struct fetch_stats *cost;
	struct want_list under_way, again;
	unsigned int nr_under_way;
	unsigned int tries;		/* failures since the last success */
	bool resting;			/* until the timer */
	sd_event_source *source, *timer;
	int ret;			/* of a block that will not come, or of all */
	struct qc2_err err;
	void (*done)(void *arg, int ret, const struct qc2_err *err);
	void *arg;
};

/* Those that bring blocks share what may be under way. */
static unsigned int nr_bringing;

static void wake(struct fill *fill)
{
	sd_event_source_set_enabled(fill->source, SD_EVENT_ONESHOT);
}

static void set_state(struct fill *fill, enum fill_state state)
{
	nr_bringing -= fill->state == FILL_BRINGING;
	nr_bringing += state == FILL_BRINGING;
	fill->state = state;
}

static void drop_wants(struct fill *fill)
{
	struct want *want;

	while ((want = TAILQ_FIRST(&fill->under_way))) {
		LIST_REMOVE(&want->watcher, entry);
		TAILQ_REMOVE(&fill->under_way, want, entry);
		free(want);
	}
	while ((want = TAILQ_FIRST(&fill->again))) {
		TAILQ_REMOVE(&fill->again, want, entry);
		free(want);
	}
	fill->nr_under_way = 0;
}

/* The disk's chain is not that one any more. */
static void start_over(struct fill *fill)
{
	drop_wants(fill);
	qc2_chain_put(fill->chain);
	fill->chain = NULL;
	fill->ret = 0;
	fill->stats = (struct fill_stats){ 0 };
	set_state(fill, FILL_OPENING);
}

/* @err: may be that of the fill */
static void end(struct fill *fill, int ret, const struct qc2_err *err)
{
	drop_wants(fill);
	fill->ret = ret;
	if (err != &fill->err)
		fill->err = *err;
	set_state(fill, FILL_ENDED);
	sd_event_source_set_enabled(fill->timer, SD_EVENT_OFF);
	wake(fill);
}

/*
 * ---------------------------------------------------------------------------
 * Blocks
 * ---------------------------------------------------------------------------
 */

static void rest(struct fill *fill)
{
	unsigned int ms = MAX_RETRY_MS;

	if (fill->resting)
		return;
	fill->resting = true;
	fill->tries++;
	if (qc2_retry_allowed())
		ms = qc2_backoff_ms(fill->tries, MAX_RETRY_MS);
	sd_event_source_set_time_relative(fill->timer, ms * 1000ULL);
	sd_event_source_set_enabled(fill->timer, SD_EVENT_ONESHOT);
}

static int on_timer(sd_event_source *source, uint64_t usec, void *arg)
{
	struct fill *fill = arg;

	fill->resting = false;
	wake(fill);
	return 0;
}

static void count(struct fill *fill, const struct object *obj, uint32_t nr,
		  enum block_came came)
{
	uint32_t slot = cache_lookup(fill->disk->chaind->cache, obj, nr);
	struct fill_stats *stats = &fill->stats;

	stats->bypassed += slot >= CACHE_BYPASS && slot != QC2_SLOT_ZERO &&
			   slot != CACHE_NO_SLOT;

	switch (came) {
	case CAME_FETCHED:
		stats->fetched++;
		break;
	case CAME_BY_NAME:
		stats->local++;
		break;
	case CAME_SAME:
		stats->same++;
		break;
	case CAME_ZERO:
		stats->zero++;
		break;
	}
}

/* Why a block will not come.  The fetcher's own text, if there is one, says it best. */
static void set_error(struct fill *fill, const struct want *want, int ret)
{
	const struct object *obj = fill->disk->objects[want->object];
	uint64_t offset = (uint64_t)want->nr * QC2_BLOCK_BYTES;
	const char *text = fill->cost->last_error.msg;

	if (ret == -EBADMSG)
		qc2_fail(&fill->err, EBADMSG,
			 "%s: the 64 KiB at offset %llu are not what the manifest says; see the log of chaind",
			 obj->url, (unsigned long long)offset);
	else if (text[0])
		qc2_fail(&fill->err, -ret, "%.900s (the 64 KiB at offset %llu are missing)",
			 text, (unsigned long long)offset);
	else
		qc2_fail(&fill->err, -ret, "%s: the 64 KiB at offset %llu cannot be read",
			 obj->url, (unsigned long long)offset);
	fill->ret = ret;
}

static void try_again(struct fill *fill, struct want *want)
{
	TAILQ_INSERT_TAIL(&fill->again, want, entry);
}

static void block_came(struct watcher *watcher, struct block *block, int ret)
{
	struct want *want = (struct want *)watcher;
	struct fill *fill = want->fill;

	TAILQ_REMOVE(&fill->under_way, want, entry);
	fill->nr_under_way--;
	wake(fill);
	if (fill->chain != fill->disk->chain) {
		;				/* it starts over */
	} else if (!ret) {
		fill->tries = 0;
		count(fill, block->obj, block->nr, block->came);
	} else if (ret == -EAGAIN || ret == -ECANCELED || ret == -ENOMEM) {
		rest(fill);
		try_again(fill, want);
		return;
	} else if (!want->own || (ret == -EBADMSG &&
				  !plan_has_own_digest(fill->disk, want->object, block))) {
		/* The fetch of another disk, which may know worse where and what it is. */
		try_again(fill, want);
		return;
	} else if (!fill->ret) {
		set_error(fill, want, ret);
	}
	free(want);
}

static struct want *new_want(struct fill *fill, uint32_t object, uint32_t nr, bool own)
{
	struct want *want = calloc(1, sizeof(*want));

	if (!want)
		return NULL;
	want->watcher.done = block_came;
	want->fill = fill;
	want->object = object;
	want->nr = nr;
	want->own = own;
	return want;
}

/* @other: it is on its way because of somebody else.  false: no memory. */
static bool deal_with(struct fill *fill, uint32_t object, uint32_t nr, bool other)
{
	struct disk *disk = fill->disk;
	struct object *obj = disk->objects[object];
	struct block *block = block_find(obj, nr);
	struct want *want;

	if (!block && cache_lookup(disk->chaind->cache, obj, nr) != CACHE_NO_SLOT) {
		count(fill, obj, nr, CAME_BY_NAME);
		return true;
	}
	want = new_want(fill, object, nr, !other);
	if (!want)
		return false;
	if (!block) {			/* for lack of memory */
		rest(fill);
		try_again(fill, want);
		return true;
	}
	LIST_INSERT_HEAD(&block->watchers, &want->watcher, entry);
	TAILQ_INSERT_TAIL(&fill->under_way, want, entry);
	fill->nr_under_way++;
	return true;
}

static void bring(struct fill *fill, const struct live_run *run)
{
	struct disk *disk = fill->disk;
	bool other[LIVE_MAX_RUN];
	uint32_t i, nr = run->end - run->first;

	for (i = 0; i < nr; i++)
		other[i] = block_find(disk->objects[run->object], run->first + i);
	plan_bring(disk, fill->cost, run->object, run->first, run->end);
	for (i = 0; i < nr; i++) {
		if (deal_with(fill, run->object, run->first + i, other[i]))
			continue;
		end(fill, qc2_fail(&fill->err, ENOMEM, "out of memory"), &fill->err);
		return;
	}
}

/* What has to be tried again goes first. */
static bool next_run(struct fill *fill, struct live_run *run)
{
	struct want *want = TAILQ_FIRST(&fill->again);

	if (!want)
		return live_next(&fill->live, run);
	*run = (struct live_run){ want->object, want->nr, want->nr };
	do {
		TAILQ_REMOVE(&fill->again, want, entry);
		free(want);
		run->end++;
		want = TAILQ_FIRST(&fill->again);
	} while (want && want->object == run->object && want->nr == run->end &&
		 run->end % LIVE_MAX_RUN);
	return true;
}

/*
 * Blocks that may be under way: a quarter of the buffers, so that the queues stay short
 * for others, and an eighth of the cache; of one that does not answer, one run.
 */
static unsigned int max_under_way(const struct fill *fill)
{
	struct cache *cache = fill->disk->chaind->cache;
	struct cache_stats stats;
	unsigned int nr;

	if (fill->tries)
		return 1;
	cache_bufs(cache, &nr);
	cache_get_stats(cache, &stats);
	nr /= 4;
	if (nr > stats.slots / 8)
		nr = stats.slots / 8;
	nr /= nr_bringing;
	return nr ? nr : 1;
}

static void bring_some(struct fill *fill)
{
	struct live_run run;
	unsigned int n;

	for (n = 0; n < STEP_RUNS && fill->state == FILL_BRINGING && !fill->resting; n++) {
		if (fill->nr_under_way >= max_under_way(fill))
			return;		/* block_came() goes on */
		if (!next_run(fill, &run)) {
			if (!fill->nr_under_way)
				end(fill, 0, &fill->err);
			return;
		}
		bring(fill, &run);
	}
	if (!fill->resting)
		wake(fill);
}

/*
 * ---------------------------------------------------------------------------
 * The whole
 * ---------------------------------------------------------------------------
 */

/* Rounded away from each other, so that they differ. */
static int too_large(struct fill *fill, uint64_t slots)
{
	uint64_t per_mib = (1 << 20) / QC2_BLOCK_BYTES;
	uint64_t live = (fill->stats.live * 10 + per_mib - 1) / per_mib;
	uint64_t room = slots * 10 / per_mib;

	return qc2_fail(&fill->err, ENOSPC,
			"%s: its live data, %llu.%llu MiB, is more than the cache holds, %llu.%llu MiB, so what comes first would be gone at the end; set a greater size in section [cache], or bring it nevertheless with --force",
			fill->disk->info.url, (unsigned long long)live / 10,
			(unsigned long long)live % 10, (unsigned long long)room / 10,
			(unsigned long long)room % 10);
}

static void end_counting(struct fill *fill)
{
	const struct disk *disk = fill->disk;
	struct cache_stats cache;

	cache_get_stats(disk->chaind->cache, &cache);
	if (fill->stats.live > cache.slots && !fill->force) {
		end(fill, too_large(fill, cache.slots), &fill->err);
		return;
	}
	live_start(&fill->live, fill->chain->index, disk->objects);
	set_state(fill, FILL_BRINGING);
	wake(fill);
}

static void count_some(struct fill *fill)
{
	struct live_run run;
	unsigned int n;

	for (n = 0; n < STEP_RUNS; n++) {
		if (!live_next(&fill->live, &run)) {
			end_counting(fill);
			return;
		}
		fill->stats.live += run.end - run.first;
	}
	wake(fill);
}

/* Begins as soon as the chain is complete. */
static void take_chain(struct fill *fill)
{
	struct disk *disk = fill->disk;

	if (!disk->chain)
		return;			/* fill_look() comes back, here and below */
	if (disk->opening) {
		opening_go_on(disk->opening);
		return;
	}
	fill->chain = qc2_chain_ref(disk->chain);
	live_start(&fill->live, fill->chain->index, disk->objects);
	set_state(fill, FILL_COUNTING);
	wake(fill);
}

static int on_wake(sd_event_source *source, void *arg)
{
	struct fill *fill = arg;
	struct disk *disk = fill->disk;

	if (fill->state == FILL_ENDED) {
		fill->done(fill->arg, fill->ret, &fill->err);	/* which may free it */
		return 0;
	}
	if (fill->ret && fill->chain == disk->chain &&
	    !((fill->ret == -ESTALE || fill->ret == -EBADMSG) &&
	      disk_distrust(disk, fill->ret))) {
		end(fill, fill->ret, &fill->err);
		return 0;
	}
	if (fill->chain && fill->chain != disk->chain)
		start_over(fill);
	if (disk->state == DISK_FAILED)
		end(fill, disk->failed, &disk->error);
	else if (fill->state == FILL_OPENING)
		take_chain(fill);
	else if (fill->state == FILL_COUNTING)
		count_some(fill);
	else
		bring_some(fill);
	return 0;
}

void fill_look(struct fill *fill)
{
	if (fill && fill->state != FILL_ENDED)
		wake(fill);
}

void fill_disk_gone(struct fill *fill)
{
	struct disk *disk = fill->disk;

	if (fill->state == FILL_ENDED)
		;
	else if (disk->failed)
		end(fill, disk->failed, &disk->error);
	else
		end(fill, qc2_fail(&fill->err, ECANCELED, "%s: its disk was closed",
				   disk->info.url), &fill->err);
	fill->disk = NULL;
}

struct disk *fill_disk(const struct fill *fill)
{
	return fill->disk;
}

enum fill_state fill_get_state(const struct fill *fill)
{
	return fill->state;
}

void fill_get_stats(const struct fill *fill, struct fill_stats *stats)
{
	*stats = fill->stats;
	if (fill->state == FILL_COUNTING)
		stats->live = 0;
	stats->requests = fill->cost->requests;
	stats->bytes = fill->cost->bytes;
}

bool fill_rests(const struct fill *fill)
{
	return fill->tries;
}

struct fill *fill_new(struct disk *disk, bool force,
		      void (*done)(void *arg, int ret, const struct qc2_err *err), void *arg)
{
	sd_event *event = disk->chaind->event;
	struct fill *fill = calloc(1, sizeof(*fill));

	if (!fill)
		return NULL;
	fill->force = force;
	fill->done = done;
	fill->arg = arg;
	TAILQ_INIT(&fill->under_way);
	TAILQ_INIT(&fill->again);
	fill->cost = fetch_stats_new();
	if (!fill->cost || sd_event_add_defer(event, &fill->source, on_wake, fill) < 0 ||
	    sd_event_add_time_relative(event, &fill->timer, CLOCK_MONOTONIC, 0, 0, on_timer,
				       fill) < 0 ||
	    sd_event_source_set_enabled(fill->timer, SD_EVENT_OFF) < 0) {
		fill_free(fill);
		return NULL;
	}
	fill->disk = disk;
	disk->fill = fill;
	return fill;
}

void fill_free(struct fill *fill)
{
	drop_wants(fill);
	set_state(fill, FILL_ENDED);
	if (fill->disk)
		fill->disk->fill = NULL;
	qc2_chain_put(fill->chain);
	fetch_stats_put(fill->cost);
	sd_event_source_disable_unref(fill->source);
	sd_event_source_disable_unref(fill->timer);
	free(fill);
}
