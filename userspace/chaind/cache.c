/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The cache: what can be found, buffers, writes.  See cache.h for the rules.  Main thread
 * only, but for write_run().
 */
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cache_dev.h"
#include "cache_impl.h"
#include "cache_super.h"

#define WRITE_THREADS	4
#define TICK_US		1000000
/* A device that failed is written to again after this. */
#define PAUSE_US	5000000
/* A write that takes longer hangs; a slot that is waited for longer will not come. */
#define HANG_US		5000000
/* What went to the bypass is given back to the cache, if it can take it by then. */
#define BYPASS_US	30000000
#define NO_SLOT_US	1000000
/* Memory of names, by slot. */
#define NAME_BYTES	3
#define MIN_NAME_BYTES	(4 << 20)

/*
 * ---------------------------------------------------------------------------
 * What can be found
 * ---------------------------------------------------------------------------
 */

bool cache_is_absent(const struct cache *cache)
{
	return cache->fd < 0;
}

int cache_check_present(const struct cache *cache, struct qc2_err *err)
{
	if (!cache_is_absent(cache))
		return 0;
	return qc2_fail(err, EAGAIN,
			"the cache is absent until this is mended; disks that run go on: %s",
			cache->write_trouble);
}

bool cache_slot_ok(const struct cache *cache, uint32_t slot)
{
	const struct chunk *chunk;

	if (slot >= cache->space.nr_slots)
		return false;
	chunk = chunk_of(&cache->space, slot);
	return chunk->filled & ~chunk->unverified & slot_bit(slot);
}

uint32_t cache_lookup(struct cache *cache, const struct object *obj, uint32_t block)
{
	uint32_t slot = names_get(&obj->names, block);

	if (slot == QC2_SLOT_ZERO || cache_slot_ok(cache, slot))
		return slot;
	slot = bypass_lookup(cache->bypass, obj, block);
	return slot == BYPASS_NO_SLOT ? CACHE_NO_SLOT : CACHE_BYPASS + slot;
}

/* Slots of the bypass, and zeros, have no marks. */
static bool has_state(const struct cache *cache, uint32_t slot)
{
	return slot < cache->space.nr_slots;
}

bool cache_is_marked(const struct cache *cache, uint32_t slot)
{
	return has_state(cache, slot) &&
	       chunk_of(&cache->space, slot)->marked & slot_bit(slot);
}

void cache_set_mark(struct cache *cache, uint32_t slot)
{
	if (has_state(cache, slot))
		chunk_of(&cache->space, slot)->marked |= slot_bit(slot);
}

void cache_clear_mark(struct cache *cache, uint32_t slot)
{
	chunk_of(&cache->space, slot)->marked &= ~slot_bit(slot);
}

bool cache_is_hidden(const struct cache *cache, uint32_t slot)
{
	return has_state(cache, slot) && space_is_hidden(&cache->space, slot);
}

void cache_ask(struct cache *cache, uint32_t slot, bool first)
{
	cache->hits += first;
	/* A request that is looked at once more is not another one. */
	if (has_state(cache, slot) &&
	    (first || !(chunk_of(&cache->space, slot)->asked & slot_bit(slot))))
		space_ask(&cache->space, slot);
}

void cache_bad_slot(struct cache *cache, uint32_t slot)
{
	if (slot == QC2_SLOT_ZERO)
		return;
	if (slot >= CACHE_BYPASS) {
		bypass_drop(cache->bypass, slot - CACHE_BYPASS);
		return;
	}
	cache->errors++;
	if (log_allowed(&cache->write_limit))
		log_err("cache %s (%s): the 64 KiB at %llu cannot be read; fetching them again",
			cache->device, cache->path,
			(unsigned long long)slot * QC2_BLOCK_BYTES);
	/* Others may fail, too: what is fetched instead goes elsewhere for a while. */
	cache->no_write_before_us = now_us() + PAUSE_US;
	snprintf(cache->write_trouble, sizeof(cache->write_trouble),
		 "the 64 KiB at %llu cannot be read",
		 (unsigned long long)slot * QC2_BLOCK_BYTES);
	commit_drop(cache, slot, true);
}

/*
 * ---------------------------------------------------------------------------
 * Buffers
 * ---------------------------------------------------------------------------
 */

bool cache_take_bufs(struct cache *cache, unsigned int nr,
		     struct cache_buf **bufs)
{
	unsigned int i;

	if (nr > cache->nr_free_bufs)
		return false;
	for (i = 0; i < nr; i++)
		bufs[i] = cache->free_bufs[--cache->nr_free_bufs];
	return true;
}

unsigned int cache_bufs(const struct cache *cache, unsigned int *total)
{
	*total = cache->nr_bufs;
	return cache->nr_free_bufs;
}

void cache_put_buf(struct cache_buf *buf)
{
	buf->cache->free_bufs[buf->cache->nr_free_bufs++] = buf;
}

static void write_run(struct job *job);
static void write_done(struct job *job);

/* A few more than is told: writes that hang keep theirs, and nobody hears of their end. */
static int make_bufs(struct cache *cache, unsigned int nr, struct qc2_err *err)
{
	unsigned int i;

	cache->nr_bufs = nr;
	nr += WRITE_THREADS;
	cache->mem_size = (size_t)nr * QC2_BLOCK_BYTES;
	cache->mem = mmap(NULL, cache->mem_size, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	cache->bufs = calloc(nr, sizeof(*cache->bufs));
	cache->free_bufs = calloc(nr, sizeof(*cache->free_bufs));
	if (cache->mem == MAP_FAILED || !cache->bufs || !cache->free_bufs)
		return qc2_fail(err, ENOMEM, "cache: out of memory");
	for (i = 0; i < nr; i++) {
		cache->bufs[i].cache = cache;
		cache->bufs[i].mem = (char *)cache->mem +
				     (size_t)i * QC2_BLOCK_BYTES;
		cache->bufs[i].job.run = write_run;
		cache->bufs[i].job.done = write_done;
		cache_put_buf(&cache->bufs[i]);
	}
	return 0;
}

/*
 * ---------------------------------------------------------------------------
 * Writes
 * ---------------------------------------------------------------------------
 */

/* The block can be found, or will not be. */
static void end_write(struct cache_buf *buf, int ret)
{
	void (*done)(void *arg, int ret) = buf->done;
	void *arg = buf->arg;

	object_put(buf->obj);
	cache_put_buf(buf);
	done(arg, ret);
}

static void give_back(struct cache *cache, uint32_t slot)
{
	space_give_back(&cache->space, slot);
}

static int check_digest(const struct cache_buf *buf, uint8_t *digest)
{
	int ret = qc2_digest(buf->mem, digest);

	if (!ret && buf->has_expected && memcmp(digest, buf->expected, QC2_DIGEST_LEN))
		ret = -EBADMSG;
	return ret;
}

/*
 * Who waits for the block gets it from the bypass.  A device that hangs still has the
 * buffer: its own end comes later, see write_done().
 */
static void hand_over(struct cache_buf *buf)
{
	static const bool no_mark;
	uint8_t digest[QC2_DIGEST_LEN];
	int ret = check_digest(buf, digest);

	if (!ret)
		ret = bypass_write(buf->cache->bypass, buf->obj, buf->block, buf->mem,
				   buf->done, buf->arg);
	if (ret)
		buf->done(buf->arg, ret);
	buf->mark = &no_mark;		/* the block is gone */
	buf->handed_over = true;
}

static void to_bypass(struct cache_buf *buf)
{
	hand_over(buf);
	object_put(buf->obj);
	cache_put_buf(buf);
}

/*
 * A slot for one block.  The span of a cache that was emptied meanwhile is void.
 */
static bool take_slot(struct cache *cache, struct cache_span *span, unsigned int want,
		      enum space_class class, uint32_t *slot)
{
	unsigned int nr;

	if (!span || span->epoch != cache->spans || span->slot >= span->end ||
	    span->end > cache->space.nr_slots) {
		nr = space_take(&cache->space, class, span ? want : 1, slot);
		if (!nr)
			return false;
		if (span)
			*span = (struct cache_span){ *slot + 1, *slot + nr, cache->spans };
		return true;
	}
	*slot = span->slot++;
	return true;
}

void cache_end_span(struct cache *cache, struct cache_span *span)
{
	while (span->epoch == cache->spans && span->slot < span->end)
		give_back(cache, span->slot++);
	span->end = span->slot;
}

static bool start_write(struct cache_buf *buf, struct cache_span *span, unsigned int want)
{
	struct cache *cache = buf->cache;
	bool ok = cache->ready && !commit_is_behind(cache) &&
		  take_slot(cache, span, want, buf->class, &buf->slot);

	if (ok) {
		buf->clock = cache->space.clock;
		buf->since_us = now_us();
		TAILQ_INSERT_TAIL(&cache->writing, buf, entry);
		pool_submit(cache->write_pool, &buf->job);
	}
	commit_evict(cache);
	return ok;
}

/* Whether nothing waits for a slot, as it would be too long. */
static bool goes_around(const struct cache *cache, uint64_t now)
{
	return cache_is_absent(cache) || now < cache->no_write_before_us ||
	       now < cache->no_wait_before_us;
}

void cache_writes_go_on(struct cache *cache)
{
	struct cache_buf *buf;

	if (now_us() < cache->no_write_before_us)
		return;
	while ((buf = TAILQ_FIRST(&cache->waiting))) {
		TAILQ_REMOVE(&cache->waiting, buf, entry);
		if (!start_write(buf, NULL, 0)) {
			TAILQ_INSERT_HEAD(&cache->waiting, buf, entry);
			return;		/* goes on after the eviction */
		}
	}
}

void cache_write(struct cache_buf *buf, struct object *obj, uint32_t block,
		 struct cache_span *span, unsigned int span_want, enum space_class class,
		 const bool *mark, const uint8_t *digest,
		 void (*done)(void *arg, int ret), void *arg)
{
	struct cache *cache = buf->cache;

	buf->obj = object_ref(obj);
	buf->block = block;
	buf->class = class;
	buf->mark = mark;
	buf->has_expected = digest;
	if (digest)
		memcpy(buf->expected, digest, sizeof(buf->expected));
	buf->alone = false;
	buf->handed_over = false;
	buf->since_us = now_us();
	buf->done = done;
	buf->arg = arg;
	if (goes_around(cache, buf->since_us) && !bypass_is_busy(cache->bypass))
		to_bypass(buf);
	else if (buf->since_us < cache->no_write_before_us || !TAILQ_EMPTY(&cache->waiting) ||
		 !start_write(buf, span, span_want))
		TAILQ_INSERT_TAIL(&cache->waiting, buf, entry);
}

static bool is_zero(const void *mem, size_t len)
{
	const char *p = mem;

	return !p[0] && !memcmp(p, p + 1, len - 1);
}

static uint32_t find_same(struct cache *cache, const uint8_t *digest)
{
	uint32_t slot = QC2_SLOT_NONE;
	struct qc2_err err;

	pthread_rwlock_rdlock(&cache->index_lock);
	if (cache->index && cache_index_find(cache->index, digest, &slot, &err))
		slot = QC2_SLOT_NONE;
	pthread_rwlock_unlock(&cache->index_lock);
	return slot;
}

/* In a pool thread. */
static void write_run(struct job *job)
{
	struct cache_buf *buf = (struct cache_buf *)((char *)job -
				offsetof(struct cache_buf, job));
	ssize_t n;

	buf->ret = check_digest(buf, buf->digest);
	if (buf->ret)
		return;
	buf->zero = is_zero(buf->mem, QC2_BLOCK_BYTES);
	buf->same = buf->zero || buf->alone ? QC2_SLOT_NONE :
					      find_same(buf->cache, buf->digest);
	if (buf->zero || buf->same != QC2_SLOT_NONE)
		return;
	n = pwrite(buf->cache->fd, buf->mem, QC2_BLOCK_BYTES,
		   (off_t)buf->slot * QC2_BLOCK_BYTES);
	buf->ret = n == QC2_BLOCK_BYTES ? 0 : n < 0 ? -errno : -EIO;
}

/* A slot of the index may have been used for other content since it was asked. */
static bool same_is_there(const struct cache_buf *buf)
{
	const struct space *space = &buf->cache->space;

	return cache_slot_ok(buf->cache, buf->same) &&
	       (int32_t)(chunk_of(space, buf->same)->freed - buf->clock) <= 0;
}

static void write_failed(struct cache_buf *buf)
{
	struct cache *cache = buf->cache;

	cache->errors++;
	snprintf(cache->write_trouble, sizeof(cache->write_trouble),
		 "write of 64 KiB at %llu failed: %s",
		 (unsigned long long)buf->slot * QC2_BLOCK_BYTES, strerror(-buf->ret));
	if (log_allowed(&cache->write_limit))
		log_err("cache %s (%s): %s; what is fetched is not kept for now",
			cache->device, cache->path, cache->write_trouble);
	space_set_bad(&cache->space, buf->slot);
	/* Of a sparse file: what was written before can be written again. */
	if (buf->ret == -ENOSPC)
		space_set_chunk_bad(&cache->space, buf->slot);
	else
		cache->no_write_before_us = now_us() + PAUSE_US;
}

/* Returns 0, -EBADMSG, or what keeps the block out of the cache. */
static int end_of_write(struct cache_buf *buf)
{
	struct cache *cache = buf->cache;
	uint32_t slot = buf->slot;

	if (buf->ret == -EBADMSG) {
		give_back(cache, slot);
		return buf->ret;
	}
	if (buf->ret && buf->slot < cache->space.nr_slots) {
		write_failed(buf);
		return buf->ret;
	}
	if (buf->slot >= cache->space.nr_slots)
		return -ENOSPC;		/* the cache was made smaller */
	if (!cache->ready) {
		/* It was emptied meanwhile, and may be once more before it is ready. */
		give_back(cache, slot);
		return -EAGAIN;
	}
	if (buf->zero || buf->same != QC2_SLOT_NONE) {
		give_back(cache, slot);
		slot = buf->zero ? QC2_SLOT_ZERO : buf->same;
	} else {
		space_fill(&cache->space, slot, *buf->mark);
		cache->write_trouble[0] = '\0';
		if (!commit_block(cache, slot, buf->digest))
			goto no_memory;
	}
	if (commit_name(cache, buf->obj, buf->block, slot))
		return 0;
no_memory:
	if (slot == buf->slot) {
		space_hide(&cache->space, slot);
		give_back(cache, slot);
	}
	return -ENOMEM;
}

static void write_done(struct job *job)
{
	struct cache_buf *buf = (struct cache_buf *)((char *)job -
				offsetof(struct cache_buf, job));
	struct cache *cache = buf->cache;
	int ret;

	TAILQ_REMOVE(&cache->writing, buf, entry);
	if (!buf->ret && buf->same != QC2_SLOT_NONE && !same_is_there(buf)) {
		buf->alone = true;
		buf->clock = cache->space.clock;
		TAILQ_INSERT_TAIL(&cache->writing, buf, entry);
		pool_submit(cache->write_pool, &buf->job);
		return;
	}
	ret = end_of_write(buf);
	if (buf->handed_over) {
		object_put(buf->obj);
		cache_put_buf(buf);
	} else if (ret && ret != -EBADMSG) {
		to_bypass(buf);
	} else {
		end_write(buf, ret);
	}
	commit_evict(cache);
	cache_writes_go_on(cache);
}

/*
 * ---------------------------------------------------------------------------
 * The device
 * ---------------------------------------------------------------------------
 */

/* Slots that the cache has with that size; 0: too few. */
static uint32_t count_slots(const struct cache *cache, uint64_t size)
{
	uint64_t nr;

	if (size > cache->device_size)
		size = cache->device_size;
	nr = size / QC2_BLOCK_BYTES;
	if (nr > SPACE_MAX_SLOTS)
		nr = SPACE_MAX_SLOTS;
	return size < CACHE_MIN_SIZE ? 0 : nr - nr % CHUNK_SLOTS;
}

static void limit_names(uint64_t nr_slots)
{
	uint64_t bytes = nr_slots * NAME_BYTES;

	names_set_limit(bytes > MIN_NAME_BYTES ? bytes : MIN_NAME_BYTES);
}

static int make_space(struct cache *cache, uint64_t size, struct qc2_err *err)
{
	uint32_t nr = count_slots(cache, size);

	if (!nr)
		return qc2_fail(err, EINVAL,
				"cache %s: has %llu bytes, the least is 64 MiB; set a greater size in section [cache]",
				cache->path, (unsigned long long)
				(size < cache->device_size ? size : cache->device_size));
	cache->target_slots = nr;
	limit_names(nr);
	return space_init(&cache->space, nr) ?
	       qc2_fail(err, ENOMEM, "cache: out of memory") : 0;
}

/* From the path to a cache that can be started. */
static int open_device(struct cache *cache, struct qc2_err *err)
{
	uint64_t size = cache->cfg.size;
	struct stat st;
	char *device;
	int fd, ret;

	fd = cache_dev_open(cache->path, size, &device, &cache->device_size, err);
	if (fd < 0)
		return fd;
	ret = fstat(fd, &st) ? qc2_fail(err, errno, "cache %s: %s", cache->path, strerror(errno)) :
			       0;
	if (!ret && cache->cfg.check)
		ret = cache->cfg.check(cache->cfg.arg, st.st_rdev, err);
	if (!ret)
		ret = cache_super_load(fd, cache->path, cache->id, err);
	if (!ret)
		ret = make_space(cache, size, err);
	if (ret) {
		close(fd);
		free(device);
		return ret;
	}
	cache->fd = fd;
	cache->device = device;
	cache->dev = st.st_rdev;
	return 0;
}

static void is_absent(struct cache *cache, const struct qc2_err *err)
{
	if (log_allowed(&cache->write_limit))
		log_err("%s; without a cache until that is mended", err->msg);
	snprintf(cache->write_trouble, sizeof(cache->write_trouble), "%.250s", err->msg);
	cache->try_at_us = now_us() + PAUSE_US;
}

static void try_run(struct job *job)
{
	struct cache *cache = (struct cache *)((char *)job - offsetof(struct cache, try_job));

	cache->try_ret = cache_dev_try(cache->path, &cache->try_err);
}

static void try_done(struct job *job)
{
	struct cache *cache = (struct cache *)((char *)job - offsetof(struct cache, try_job));

	cache->trying = false;
	if (!cache->try_ret)
		cache->try_ret = open_device(cache, &cache->try_err);
	if (cache->try_ret) {
		is_absent(cache, &cache->try_err);
		return;
	}
	log_info("cache %s (%s): is there again", cache->device, cache->path);
	cache->write_trouble[0] = '\0';
	commit_start(cache);
}

static void try_device(struct cache *cache, uint64_t now)
{
	if (!cache_is_absent(cache) || cache->trying || now < cache->try_at_us)
		return;
	cache->trying = true;
	cache->try_job = (struct job){ .run = try_run, .done = try_done };
	pool_submit(cache->write_pool, &cache->try_job);
}

/*
 * ---------------------------------------------------------------------------
 * Time
 * ---------------------------------------------------------------------------
 */

static void write_hangs(struct cache_buf *buf)
{
	struct cache *cache = buf->cache;

	snprintf(cache->write_trouble, sizeof(cache->write_trouble),
		 "a write at %llu takes longer than 5 s",
		 (unsigned long long)buf->slot * QC2_BLOCK_BYTES);
	if (log_allowed(&cache->write_limit))
		log_err("cache %s (%s): %s; what is fetched is not kept for now",
			cache->device, cache->path, cache->write_trouble);
	hand_over(buf);
}

/*
 * What waits for a device that hangs goes another way.  A few writes are stuck in it, with
 * their buffers; all that wait behind them are taken back, and there are no others as
 * long as it hangs: or there were no buffers left to fetch with.
 */
static void look_at_writes(struct cache *cache, uint64_t now)
{
	struct cache_buf *buf = TAILQ_FIRST(&cache->writing), *next;

	if (!buf || now - buf->since_us < HANG_US)
		return;
	cache->no_write_before_us = now + PAUSE_US;
	for (; buf; buf = next) {
		next = TAILQ_NEXT(buf, entry);
		if (buf->handed_over)
			continue;
		if (!pool_cancel(cache->write_pool, &buf->job)) {
			if (now - buf->since_us >= HANG_US)
				write_hangs(buf);
			continue;
		}
		TAILQ_REMOVE(&cache->writing, buf, entry);
		if (buf->slot < cache->space.nr_slots)
			give_back(cache, buf->slot);
		if (bypass_is_busy(cache->bypass))
			TAILQ_INSERT_TAIL(&cache->waiting, buf, entry);
		else
			to_bypass(buf);
	}
}

/* What waits for a slot, too; what comes next would only wait as long. */
static void look_at_waiting(struct cache *cache, uint64_t now)
{
	struct cache_buf *buf = TAILQ_FIRST(&cache->waiting);

	if (buf && now - buf->since_us >= NO_SLOT_US)
		cache->no_wait_before_us = now + (cache->ready ? NO_SLOT_US : PAUSE_US);
	if (!goes_around(cache, now))
		return;
	/* The others keep their buffers, so that no more is fetched than those are for. */
	while (!bypass_is_busy(cache->bypass) && (buf = TAILQ_FIRST(&cache->waiting))) {
		TAILQ_REMOVE(&cache->waiting, buf, entry);
		to_bypass(buf);
	}
}

static void look_at_bypass(struct cache *cache, uint64_t now)
{
	uint64_t writes;
	unsigned int used;

	bypass_get_stats(cache->bypass, &writes, &used);
	if (!used || goes_around(cache, now) || !cache->ready)
		cache->empty_bypass_us = now + BYPASS_US;
	else if (now >= cache->empty_bypass_us && bypass_empty(cache->bypass))
		cache->empty_bypass_us = now + BYPASS_US;
}

static int on_tick(sd_event_source *source, uint64_t usec, void *arg)
{
	struct cache *cache = arg;
	uint64_t now = now_us();

	try_device(cache, now);
	look_at_writes(cache, now);
	look_at_bypass(cache, now);
	look_at_waiting(cache, now);
	commit_tick(cache, now);
	commit_shrink(cache);
	probe_tick(cache, now);
	cache_writes_go_on(cache);
	sd_event_source_set_time_relative(source, TICK_US);
	return 0;
}

/*
 * ---------------------------------------------------------------------------
 * Open and close
 * ---------------------------------------------------------------------------
 */

int cache_resize(struct cache *cache, uint64_t size, struct qc2_err *err)
{
	uint32_t nr;
	int ret = cache_check_present(cache, err);

	if (ret)
		return ret;
	if (!cache->ready || cache->shrinking)
		return qc2_fail(err, EAGAIN, "cache %s: %s; try again", cache->path,
				cache->ready ? "is still being made smaller" :
					       "is not ready yet");
	ret = cache_dev_grow(cache->fd, cache->path, size, &cache->device_size, err);
	if (ret)
		return ret;
	if (size > cache->device_size)
		return qc2_fail(err, ENOSPC, "cache %s: the device has %llu bytes only",
				cache->path, (unsigned long long)cache->device_size);
	nr = count_slots(cache, size);
	if (!nr)
		return qc2_fail(err, EINVAL, "cache %s: the least size is 64 MiB", cache->path);
	if (nr > cache->space.nr_slots && space_grow(&cache->space, nr))
		return qc2_fail(err, ENOMEM, "cache: out of memory");
	/* They may have been behind the end. */
	cache->spans += nr > cache->space.nr_slots;
	cache->target_slots = nr;
	cache->shrinking = nr < cache->space.nr_slots;
	limit_names(nr);
	commit_pins_again(cache);
	commit_shrink(cache);
	cache_writes_go_on(cache);
	return 0;
}

static int make_machinery(struct cache *cache, sd_event *event,
			  struct qc2_err *err)
{
	int ret;

	ret = pool_new(&cache->write_pool, event, WRITE_THREADS);
	if (ret >= 0)
		ret = sd_event_add_time_relative(event, &cache->tick, CLOCK_MONOTONIC, TICK_US,
						 0, on_tick, cache);
	if (ret >= 0)
		ret = sd_event_source_set_enabled(cache->tick, SD_EVENT_ON);
	return ret < 0 ? qc2_fail(err, -ret, "cache: %s", strerror(-ret)) : 0;
}

int cache_open(struct cache **out, sd_event *event, const struct cache_config *cfg,
	       struct qc2_err *err)
{
	struct cache *cache = calloc(1, sizeof(*cache));
	int ret;

	if (!cache)
		return qc2_fail(err, ENOMEM, "cache: out of memory");
	TAILQ_INIT(&cache->waiting);
	TAILQ_INIT(&cache->writing);
	TAILQ_INIT(&cache->probes);
	pthread_rwlock_init(&cache->index_lock, NULL);
	cache->event = event;
	cache->fd = -1;
	cache->cfg = *cfg;
	cache->cfg.path = cache->cfg.index_path = cache->cfg.bypass_path = NULL;
	cache->path = strdup(cfg->path);
	cache->index_path = strdup(cfg->index_path);
	if (!cache->path || !cache->index_path) {
		ret = qc2_fail(err, ENOMEM, "cache: out of memory");
		goto fail;
	}
	ret = open_device(cache, err);
	if (ret && cfg->may_be_absent) {
		is_absent(cache, err);
		ret = 0;
	}
	if (!ret)
		ret = make_bufs(cache, cfg->nr_bufs, err);
	if (!ret)
		ret = bypass_open(&cache->bypass, event, cfg->bypass_path, err);
	if (!ret)
		ret = make_machinery(cache, event, err);
	if (!ret)
		ret = probe_setup(cache, err);
	if (!ret)
		ret = commit_setup(cache, err);
	if (ret)
		goto fail;
	if (!cache_is_absent(cache))
		commit_start(cache);
	*out = cache;
	return 0;
fail:
	cache_close(cache);
	return ret;
}

void cache_close(struct cache *cache)
{
	if (!cache)
		return;
	pool_free(cache->write_pool);
	pool_free(cache->probe_pool);
	commit_finish(cache);
	bypass_close(cache->bypass);
	sd_event_source_disable_unref(cache->tick);
	if (cache->fd >= 0)
		close(cache->fd);
	if (cache->mem && cache->mem != MAP_FAILED)
		munmap(cache->mem, cache->mem_size);
	pthread_rwlock_destroy(&cache->index_lock);
	space_free(&cache->space);
	free(cache->bufs);
	free(cache->free_bufs);
	free(cache->device);
	free(cache->path);
	free(cache->index_path);
	free(cache);
}

dev_t cache_dev(const struct cache *cache)
{
	return cache->dev;
}

dev_t cache_bypass_dev(const struct cache *cache)
{
	return bypass_dev(cache->bypass);
}

void cache_get_stats(const struct cache *cache, struct cache_stats *stats)
{
	*stats = (struct cache_stats){
		.path = cache->path,
		.device = cache->device ? cache->device : "",
		.bypass_device = bypass_device(cache->bypass),
		.slots = cache->space.nr_slots,
		.used = cache->space.nr_filled,
		.unverified = cache->space.nr_unverified,
		.bad_slots = cache->space.nr_bad,
		.pinned = cache->space.nr_pinned,
		.pins_full = cache->pins_full,
		.names = cache->names,
		.zeros = cache->zeros,
		.hits = cache->hits,
		.evictions = cache->evictions,
		.errors = cache->errors,
		.damaged = cache->damaged,
		.scrubbed = cache->scrubbed,
		.memory = names_memory() + cache->space.nr_chunks * sizeof(struct chunk),
		.unchecked = cache->unchecked,
		.losses = cache->epoch,
		.index_trouble = cache->index_trouble[0] ? cache->index_trouble : NULL,
	};
	stats->trouble = cache->write_trouble[0] ? cache->write_trouble : stats->index_trouble;
	bypass_get_stats(cache->bypass, &stats->bypass_writes, &stats->bypass_used);
}
