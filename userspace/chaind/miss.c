/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Misses.  Requests to be looked at stand in one queue, "ready", which is
 * worked off from a deferred event; so nothing here is re-entered from the
 * callbacks of fetcher and kernel.  Main thread only.
 */
#include <errno.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>

#include "bypass.h"
#include "disk.h"
#include "miss.h"
#include "opening.h"
#include "plan.h"
#include "region.h"
#include "resolve.h"

/* A reply tells what is known of the 2 MiB around the request. */
#define WINDOW_SECTORS	4096U

struct request {
	uint64_t generation;	/* key, with id; first for comparing */
	uint64_t id;
	struct disk *disk;
	uint64_t sector;
	uint64_t nr_sectors;
	uint64_t since_us;
	uint64_t resolved;	/* sectors that were answered so far */
	int error;		/* a block of it will not come */
	bool seen;		/* was looked at once */
	bool was_marked;	/* a block of it, see cache_is_marked() */
	bool ready;
	bool store_failed;	/* the kernel says so; see note_failed() */
	uint32_t failed_store;
	struct waiters waits;
	TAILQ_ENTRY(request) entry, ready_entry;
};

struct misses {
	struct chaind *chaind;
	struct request_list ready;
	sd_event_source *source;
	struct log_limit limit;
	struct qc2_run runs[QC2_MAX_RUNS];
};

/* The kernel has one request for a block at a time. */
static int cmp_request(const void *a, const void *b)
{
	const struct request *x = a, *y = b;

	if (x->generation != y->generation)
		return x->generation > y->generation ? 1 : -1;
	return (x->sector > y->sector) - (x->sector < y->sector);
}

static void make_ready(struct request *req)
{
	struct misses *misses = req->disk->chaind->misses;

	if (req->ready)
		return;
	req->ready = true;
	TAILQ_INSERT_TAIL(&misses->ready, req, ready_entry);
	sd_event_source_set_enabled(misses->source, SD_EVENT_ONESHOT);
}

static void drop_wait(struct waiter *wait)
{
	LIST_REMOVE(wait, by_block);
	LIST_REMOVE(wait, by_request);
	free(wait);
}

static void drop_waits(struct request *req)
{
	struct waiter *wait;

	while ((wait = LIST_FIRST(&req->waits)))
		drop_wait(wait);
}

static void free_request(struct request *req)
{
	struct disk *disk = req->disk;

	drop_waits(req);
	if (req->ready)
		TAILQ_REMOVE(&disk->chaind->misses->ready, req, ready_entry);
	TAILQ_REMOVE(&disk->requests, req, entry);
	tdelete(req, &disk->request_tree, cmp_request);
	free(req);
}

/* What the disk is to know is not what the guest is told. */
static void fail_request(struct request *req, int errnum)
{
	struct disk *disk = req->disk;

	if (errnum == ESTALE || errnum == EBADMSG)
		errnum = EIO;

	kernel_reply_error(disk->chaind->kernel, disk->info.dev,
			   req->generation, req->id, errnum);
	disk->stats->errors++;
	disk->misses++;
	free_request(req);
}

static void send_runs(struct disk *disk, const struct qc2_index *idx,
		      uint64_t generation, uint64_t sector, uint64_t nr_sectors,
		      bool *complete)
{
	struct chaind *chaind = disk->chaind;
	struct qc2_run *runs = chaind->misses->runs;
	struct resolve res;
	unsigned int nr;

	resolve_start(&res, chaind->cache, idx, disk->objects, sector,
		      nr_sectors);
	res.has_bypass = disk->has_bypass;
	nr = resolve_runs(&res, runs, QC2_MAX_RUNS, complete);
	if (nr && (!complete || *complete))
		kernel_reply_runs(chaind->kernel, disk->info.dev, generation,
				  runs, nr);
}

/*
 * All of the request is known.  So may be much around it; if that is more
 * than one message holds, it starts with the request.
 */
static void answer(struct request *req, const struct qc2_index *idx,
		   uint64_t known_to)
{
	struct disk *disk = req->disk;
	uint64_t size = disk->chain->nr_sectors;
	uint64_t start = req->sector - req->sector % WINDOW_SECTORS;
	uint64_t end = req->sector + req->nr_sectors + WINDOW_SECTORS - 1;
	bool complete;

	end -= end % WINDOW_SECTORS;
	if (end < plan_told_to(&disk->plan, req->sector + req->nr_sectors))
		end = plan_told_to(&disk->plan, req->sector + req->nr_sectors);
	if (end > size)
		end = size;
	if (end > known_to)
		end = known_to;
	send_runs(disk, idx, req->generation, start, end - start, &complete);
	if (!complete)
		send_runs(disk, idx, req->generation, req->sector,
			  end - req->sector, NULL);
	disk->misses++;
	free_request(req);
	if (disk->opening && TAILQ_EMPTY(&disk->requests))
		opening_go_on(disk->opening);
}

/* The block was fetched ahead, and now it is wanted. */
static void take_mark(struct request *req, struct block *block)
{
	if (!block->marked)
		return;
	block->marked = false;
	req->was_marked = true;
	plan_was_useful(&req->disk->plan);
}

/* @fetched: set if the block was not on its way yet */
static int wait_for(struct request *req, const struct piece *piece, bool *fetched)
{
	struct object *obj = req->disk->objects[piece->object];
	struct block *block = block_find(obj, piece->offset / QC2_BLOCK_BYTES);
	struct waiter *wait;

	if (!block && now_us() < obj->failed_until_us)
		return obj->failed;
	if (!block) {
		block = plan_demand(req->disk, piece);
		*fetched = true;
	}
	if (!block)
		return -ENOMEM;
	take_mark(req, block);
	LIST_FOREACH(wait, &req->waits, by_request) {
		if (wait->block == block)
			return 0;
	}
	wait = malloc(sizeof(*wait));
	if (!wait)
		return -ENOMEM;
	wait->req = req;
	wait->block = block;
	wait->own_digest = plan_has_own_digest(req->disk, piece->object, block);
	LIST_INSERT_HEAD(&block->waiters, wait, by_block);
	LIST_INSERT_HEAD(&req->waits, wait, by_request);
	region_want(block);
	fetch_want(block);
	return 0;
}

/* What was found out by the manifest does not count any more. */
static void start_over(struct disk *disk)
{
	struct request *req;

	TAILQ_FOREACH(req, &disk->requests, entry) {
		drop_waits(req);
		req->error = 0;
	}
}

static int found_cached(struct request *req, const struct piece *piece)
{
	struct disk *disk = req->disk;
	struct cache *cache = disk->chaind->cache;

	if (piece->store == BYPASS_STORE && !disk->has_bypass)
		return qc2_fail(&disk->stats->last_error, EIO,
				"the cache cannot be written, and the table of %s has no second store, the bypass; stop and start the disk",
				disk->info.name);
	cache_ask(cache, piece->slot, !req->seen);
	if (cache_is_marked(cache, piece->slot)) {
		cache_clear_mark(cache, piece->slot);
		req->was_marked = true;
		plan_was_useful(&req->disk->plan);
	}
	return 0;
}

/* What the kernel could not read is brought again.  Which part is bad it does not say. */
static void drop_failed(struct request *req, const struct qc2_index *idx)
{
	struct disk *disk = req->disk;
	struct resolve res;
	struct piece piece;

	req->store_failed = false;
	resolve_start(&res, disk->chaind->cache, idx, disk->objects, req->sector,
		      req->nr_sectors);
	while (resolve_next(&res, &piece))
		if (piece.kind == PIECE_CACHED && piece.store == req->failed_store)
			cache_bad_slot(disk->chaind->cache, piece.slot);
}

static void look_at(struct request *req)
{
	struct disk *disk = req->disk;
	const struct qc2_index *idx;
	uint64_t resolved = 0, to;
	struct resolve res;
	struct piece piece, missing;
	bool fetched = false;
	int ret = req->error;

	drop_waits(req);
	idx = disk_index(disk, req->sector, req->nr_sectors, &to);
	if (!idx)
		return;		/* miss_retry() comes back */
	if (req->store_failed)
		drop_failed(req, idx);
	resolve_start(&res, disk->chaind->cache, idx, disk->objects,
		      req->sector, req->nr_sectors);
	while (!ret && resolve_next(&res, &piece)) {
		if (piece.kind == PIECE_MISSING) {
			ret = wait_for(req, &piece, &fetched);
			missing = piece;
			continue;
		}
		resolved += piece.nr_sectors;
		if (piece.kind == PIECE_CACHED)
			ret = found_cached(req, &piece);
	}
	if (!ret && !req->seen)
		plan_ahead(disk, idx, to, req->sector, req->nr_sectors,
			   fetched ? &missing : NULL, req->was_marked);
	req->seen = true;
	if ((ret == -ESTALE || ret == -EBADMSG) && disk_distrust(disk, ret)) {
		start_over(disk);
		return;
	}
	if (ret)
		fail_request(req, -ret);
	else if (resolved == req->nr_sectors)
		answer(req, idx, to);
	else if (resolved > req->resolved) {
		req->resolved = resolved;
		send_runs(disk, idx, req->generation, req->sector,
			  req->nr_sectors, NULL);
	}
}

static bool in_bounds(const struct request *req)
{
	uint64_t size = req->disk->chain->nr_sectors;

	return req->nr_sectors && req->nr_sectors <= WINDOW_SECTORS / 2 &&
	       req->sector < size && req->nr_sectors <= size - req->sector;
}

static int on_ready(sd_event_source *source, void *arg)
{
	struct misses *misses = arg;
	struct request *req;

	while ((req = TAILQ_FIRST(&misses->ready))) {
		TAILQ_REMOVE(&misses->ready, req, ready_entry);
		req->ready = false;
		if (req->disk->state == DISK_FAILED && !disk_revive(req->disk)) {
			fail_request(req, EIO);
		} else if (!req->disk->chain) {
			continue;	/* miss_retry() comes back */
		} else if (!in_bounds(req)) {
			log_err("%s: request for %llu sectors at %llu makes no sense",
				req->disk->info.name,
				(unsigned long long)req->nr_sectors,
				(unsigned long long)req->sector);
			fail_request(req, EIO);
		} else {
			look_at(req);
		}
	}
	return 0;
}

int misses_new(struct misses **out, struct chaind *chaind)
{
	struct misses *misses = calloc(1, sizeof(*misses));
	int ret;

	if (!misses)
		return -ENOMEM;
	misses->chaind = chaind;
	TAILQ_INIT(&misses->ready);
	ret = sd_event_add_defer(chaind->event, &misses->source, on_ready,
				 misses);
	if (ret < 0) {
		free(misses);
		return ret;
	}
	*out = misses;
	return 0;
}

/* The table was replaced: what the old one asked for, the new one asks anew. */
static void drop_older(struct disk *disk, uint64_t generation)
{
	struct request *req, *next;

	for (req = TAILQ_FIRST(&disk->requests); req; req = next) {
		next = TAILQ_NEXT(req, entry);
		if (req->generation < generation)
			free_request(req);
	}
}

/* The kernel could not read what it was told. */
static void note_failed(struct request *req, const struct kernel_request *kreq)
{
	req->store_failed = true;
	req->failed_store = kreq->failed_store;
	make_ready(req);
}

int miss_request(struct disk *disk, const struct kernel_request *kreq)
{
	struct request *req, **found;
	int ret;

	if (kreq->generation > disk->generation) {
		ret = disk_check_table(disk, kreq->generation);
		if (ret == -EINVAL)
			return 0;	/* the disk is not ours any more */
		if (ret)
			return ret;
		disk->generation = kreq->generation;
		drop_older(disk, kreq->generation);
	}
	req = calloc(1, sizeof(*req));
	if (!req)
		return -ENOMEM;
	req->generation = kreq->generation;
	req->id = kreq->id;
	req->sector = kreq->sector;
	found = tsearch(req, &disk->request_tree, cmp_request);
	if (!found || *found != req) {
		free(req);
		if (!found)
			return -ENOMEM;
		/* The kernel gave the old one up, and asks for the block anew. */
		req = *found;
		if (req->id < kreq->id) {
			req->id = kreq->id;
			req->since_us = now_us();
			req->error = 0;
			make_ready(req);
		}
		if (kreq->store_failed)
			note_failed(req, kreq);
		return 0;
	}
	req->disk = disk;
	req->nr_sectors = kreq->nr_sectors;
	req->since_us = now_us();
	LIST_INIT(&req->waits);
	TAILQ_INSERT_TAIL(&disk->requests, req, entry);
	make_ready(req);
	if (kreq->store_failed)
		note_failed(req, kreq);
	return 0;
}

void miss_retry(struct disk *disk)
{
	struct request *req;

	TAILQ_FOREACH(req, &disk->requests, entry)
		make_ready(req);
}

void miss_drop(struct disk *disk)
{
	struct request *req;

	while ((req = TAILQ_FIRST(&disk->requests)))
		free_request(req);
}

void miss_waiting(const struct disk *disk, unsigned int *nr,
		  uint64_t *oldest_ms)
{
	const struct request *req;

	*nr = 0;
	*oldest_ms = 0;
	TAILQ_FOREACH(req, &disk->requests, entry)
		(*nr)++;
	req = TAILQ_FIRST(&disk->requests);
	if (req)
		*oldest_ms = (now_us() - req->since_us) / 1000;
}

void miss_block_done(struct block *block, int ret)
{
	struct watcher *watcher;
	struct waiter *wait;

	while ((wait = LIST_FIRST(&block->waiters))) {
		/* With the digest of another disk: it is fetched anew. */
		if (ret && (ret != -EBADMSG || wait->own_digest))
			wait->req->error = ret;
		if (ret == -EBADMSG && wait->own_digest)
			qc2_fail(&wait->req->disk->stats->last_error, EBADMSG,
				 "%s: the 64 KiB at offset %llu are not what the manifest says; see the log",
				 block->obj->url,
				 (unsigned long long)block->nr * QC2_BLOCK_BYTES);
		make_ready(wait->req);
		drop_wait(wait);
	}
	while ((watcher = LIST_FIRST(&block->watchers))) {
		LIST_REMOVE(watcher, entry);
		watcher->done(watcher, block, ret);
	}
	block_free(block);
}
