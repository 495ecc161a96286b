/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The cache: ring of slots, table of blocks, buffers.  See cache.h for the
 * rules.  Main thread only, but for write_run() and forget_run().
 *
 * Places in the ring are 64-bit positions that only grow; slot = position
 * modulo the number of slots.  [tail, head) is in use, of which [tail, dying)
 * is being forgotten by the kernel.
 */
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cache.h"
#include "cache_dev.h"
#include "forget.h"

#define MIN_SEGMENT		64		/* slots evicted at once */
#define MAX_SEGMENT		1024
#define NR_SEGMENTS		16
#define WRITE_THREADS		4
#define WRITE_TRIES		3		/* in a row, each in a new slot */
#define RETRY_US		1000000
#define NO_ENTRY		CACHE_NO_SLOT
/* 64 TiB; bucket_mask must fit */
#define CACHE_MAX_SLOTS		(1U << 30)

struct slot {
	struct object *obj;		/* NULL: empty */
	uint32_t block;
	uint32_t next;			/* slot in the same bucket */
	bool writing;
	bool marked;			/* see cache_is_marked() */
};

STAILQ_HEAD(buf_queue, cache_buf);

struct cache {
	char *path;
	char *device;
	int fd;
	dev_t dev;
	uint64_t device_size;

	uint32_t nr_slots, segment;
	uint64_t head, tail, dying;
	struct slot *slots;
	uint32_t *buckets;
	uint32_t bucket_mask;

	uint32_t used;
	uint64_t hits, evictions, errors;
	struct log_limit write_limit, forget_limit;

	void *mem;			/* of all buffers */
	size_t mem_size;
	struct cache_buf *bufs;
	struct cache_buf **free_bufs;	/* stack */
	unsigned int nr_bufs, nr_free_bufs;
	struct buf_queue waiting;	/* for a slot or for a retry */

	struct pool *write_pool, *forget_pool;
	struct job forget_job;
	bool forgetting;
	int forget_ret;
	struct qc2_err forget_err;
	sd_event *event;
	sd_event_source *retry_timer;
	bool timer_armed;
};

static void start_eviction(struct cache *cache);

static uint32_t *bucket_of(struct cache *cache, const struct object *obj,
			   uint32_t block)
{
	uint64_t h = (uint64_t)(uintptr_t)obj / sizeof(*obj);

	h = (h + block) * 0x9e3779b97f4a7c15ULL;
	return &cache->buckets[(h >> 32) & cache->bucket_mask];
}

uint32_t cache_lookup(struct cache *cache, const struct object *obj,
		      uint32_t block)
{
	uint32_t i = *bucket_of(cache, obj, block);

	while (i != NO_ENTRY && (cache->slots[i].obj != obj ||
				 cache->slots[i].block != block))
		i = cache->slots[i].next;
	return i;
}

void cache_count_hit(struct cache *cache)
{
	cache->hits++;
}

bool cache_is_marked(const struct cache *cache, uint32_t slot)
{
	return cache->slots[slot].marked;
}

void cache_clear_mark(struct cache *cache, uint32_t slot)
{
	cache->slots[slot].marked = false;
}

static void insert(struct cache *cache, uint32_t slot, struct object *obj,
		   uint32_t block, bool marked)
{
	uint32_t *bucket = bucket_of(cache, obj, block);

	cache->slots[slot].obj = object_ref(obj);
	cache->slots[slot].block = block;
	cache->slots[slot].marked = marked;
	cache->slots[slot].next = *bucket;
	*bucket = slot;
	cache->used++;
}

static void drop(struct cache *cache, uint32_t slot)
{
	struct slot *s = &cache->slots[slot];
	uint32_t *p;

	if (!s->obj)
		return;
	p = bucket_of(cache, s->obj, s->block);
	while (*p != slot)
		p = &cache->slots[*p].next;
	*p = s->next;
	object_put(s->obj);
	s->obj = NULL;
	cache->used--;
	cache->evictions++;
}

/* Slots that may be given out now. */
static uint64_t nr_unused(const struct cache *cache)
{
	return cache->nr_slots - (cache->head - cache->tail);
}

/*
 * A slot for one block.  A span that eviction has reached is void: its slots
 * are about to be given out anew.
 */
static bool take_slot(struct cache *cache, struct cache_span *span,
		      unsigned int want, uint32_t *slot)
{
	uint64_t pos;

	if (span && (span->pos >= span->end || span->pos < cache->dying)) {
		if (want > nr_unused(cache))
			want = nr_unused(cache);
		span->pos = cache->head;
		span->end = cache->head + want;
		cache->head = span->end;
	}
	if (span && span->pos < span->end) {
		pos = span->pos++;
	} else {
		if (!nr_unused(cache))
			return false;
		pos = cache->head++;
	}
	*slot = pos % cache->nr_slots;
	return true;
}

static void arm_timer(struct cache *cache)
{
	if (cache->timer_armed)
		return;
	cache->timer_armed =
		sd_event_source_set_time_relative(cache->retry_timer,
						  RETRY_US) >= 0 &&
		sd_event_source_set_enabled(cache->retry_timer,
					    SD_EVENT_ONESHOT) >= 0;
}

static bool start_write(struct cache_buf *buf, struct cache_span *span,
			unsigned int want)
{
	struct cache *cache = buf->cache;
	bool ok = take_slot(cache, span, want, &buf->slot);

	if (ok) {
		cache->slots[buf->slot].writing = true;
		pool_submit(cache->write_pool, &buf->job);
	}
	start_eviction(cache);
	return ok;
}

static void run_waiting(struct cache *cache)
{
	struct cache_buf *buf;

	while ((buf = STAILQ_FIRST(&cache->waiting))) {
		if (!start_write(buf, NULL, 0))
			return;		/* goes on after the eviction */
		STAILQ_REMOVE_HEAD(&cache->waiting, entry);
	}
}

static void submit_forget(struct cache *cache)
{
	cache->forgetting = true;
	pool_submit(cache->forget_pool, &cache->forget_job);
}

static int on_timer(sd_event_source *source, uint64_t usec, void *arg)
{
	struct cache *cache = arg;

	cache->timer_armed = false;
	if (cache->dying != cache->tail && !cache->forgetting)
		submit_forget(cache);
	run_waiting(cache);
	return 0;
}

static void write_run(struct job *job)
{
	struct cache_buf *buf = (struct cache_buf *)((char *)job -
				offsetof(struct cache_buf, job));
	uint8_t digest[QC2_DIGEST_LEN];
	ssize_t n;

	if (buf->digest && (qc2_digest(buf->mem, digest) ||
			    memcmp(digest, buf->digest, sizeof(digest)))) {
		buf->ret = -EBADMSG;
		return;
	}
	n = pwrite(buf->cache->fd, buf->mem, QC2_BLOCK_BYTES,
		   (off_t)buf->slot * QC2_BLOCK_BYTES);
	buf->ret = n == QC2_BLOCK_BYTES ? 0 : n < 0 ? -errno : -EIO;
}

static void write_done(struct job *job)
{
	struct cache_buf *buf = (struct cache_buf *)((char *)job -
				offsetof(struct cache_buf, job));
	struct cache *cache = buf->cache;
	void (*done)(void *arg, int ret) = buf->done;
	void *arg = buf->arg;
	int ret = buf->ret;

	cache->slots[buf->slot].writing = false;
	/* The slot is left out until the ring comes by again. */
	if (ret && ret != -EBADMSG) {
		cache->errors++;
		if (log_allowed(&cache->write_limit))
			log_err("cache %s (%s): write of 64 KiB at %llu failed: %s; trying again elsewhere, reads of it wait",
				cache->device, cache->path,
				(unsigned long long)buf->slot * QC2_BLOCK_BYTES,
				strerror(-buf->ret));
		if (++buf->tries % WRITE_TRIES == 0)
			arm_timer(cache);
		else if (start_write(buf, NULL, 0))
			return;
		STAILQ_INSERT_TAIL(&cache->waiting, buf, entry);
		return;
	}
	if (!ret)
		insert(cache, buf->slot, buf->obj, buf->block, *buf->mark);
	object_put(buf->obj);
	cache_put_buf(buf);
	start_eviction(cache);		/* may have waited for this write */
	done(arg, ret);
}

void cache_write(struct cache_buf *buf, struct object *obj, uint32_t block,
		 struct cache_span *span, unsigned int span_want,
		 const bool *mark, const uint8_t *digest,
		 void (*done)(void *arg, int ret), void *arg)
{
	buf->mark = mark;
	buf->digest = digest;
	buf->obj = object_ref(obj);
	buf->block = block;
	buf->tries = 0;
	buf->done = done;
	buf->arg = arg;
	if (!start_write(buf, span, span_want))
		STAILQ_INSERT_TAIL(&buf->cache->waiting, buf, entry);
}

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

static void forget_run(struct job *job)
{
	struct cache *cache = (struct cache *)((char *)job -
			      offsetof(struct cache, forget_job));
	uint64_t first = cache->tail % cache->nr_slots;
	uint64_t nr = cache->dying - cache->tail;
	struct qc2_range range = {
		.sector = first * QC2_BLOCK_SECTORS,
		.nr_sectors = nr * QC2_BLOCK_SECTORS,
	};

	/* tail and dying do not change while this runs */
	if (nr == cache->nr_slots)
		range = (struct qc2_range){
			.nr_sectors = cache->device_size / 512,
		};
	cache->forget_ret = forget_store(0, &range, 1, &cache->forget_err);
}

static void forget_done(struct job *job)
{
	struct cache *cache = (struct cache *)((char *)job -
			      offsetof(struct cache, forget_job));

	cache->forgetting = false;
	if (cache->forget_ret) {
		if (log_allowed(&cache->forget_limit))
			log_err("cache %s: no room can be made, the kernel does not forget old blocks: %s",
				cache->device, cache->forget_err.msg);
		arm_timer(cache);
		return;
	}
	cache->tail = cache->dying;
	run_waiting(cache);
	start_eviction(cache);
}

/*
 * Keeps a segment free ahead of the writers.  Blocks still being written (a
 * whole ring behind: the device is stuck) hold it up; write_done() comes back.
 */
static void start_eviction(struct cache *cache)
{
	uint64_t pos;

	if (cache->dying != cache->tail || nr_unused(cache) >= cache->segment)
		return;
	for (pos = cache->tail; pos < cache->tail + cache->segment; pos++) {
		if (cache->slots[pos % cache->nr_slots].writing)
			return;
	}
	for (pos = cache->tail; pos < cache->tail + cache->segment; pos++)
		drop(cache, pos % cache->nr_slots);
	cache->dying = cache->tail + cache->segment;
	submit_forget(cache);
}

/* A segment is a sixteenth, within limits; it never wraps around the end. */
static int make_ring(struct cache *cache, uint64_t size, struct qc2_err *err)
{
	uint64_t nr;
	uint32_t i;

	if (size > cache->device_size)
		size = cache->device_size;
	if (size < CACHE_MIN_SIZE)
		return qc2_fail(err, EINVAL,
				"cache %s: has %llu bytes, the least is 64 MiB; set a greater size in section [cache]",
				cache->path, (unsigned long long)size);
	nr = size / QC2_BLOCK_BYTES;
	if (nr > CACHE_MAX_SLOTS)
		nr = CACHE_MAX_SLOTS;
	cache->segment = nr / NR_SEGMENTS;
	if (cache->segment < MIN_SEGMENT)
		cache->segment = MIN_SEGMENT;
	if (cache->segment > MAX_SEGMENT)
		cache->segment = MAX_SEGMENT;
	cache->nr_slots = nr - nr % cache->segment;
	for (cache->bucket_mask = 1; cache->bucket_mask < cache->nr_slots;)
		cache->bucket_mask <<= 1;
	cache->slots = calloc(cache->nr_slots, sizeof(*cache->slots));
	cache->buckets = malloc(cache->bucket_mask * sizeof(*cache->buckets));
	if (!cache->slots || !cache->buckets)
		return qc2_fail(err, ENOMEM, "cache: out of memory");
	for (i = 0; i < cache->bucket_mask; i++)
		cache->buckets[i] = NO_ENTRY;
	cache->bucket_mask--;
	return 0;
}

static int make_bufs(struct cache *cache, unsigned int nr, struct qc2_err *err)
{
	unsigned int i;

	cache->mem_size = (size_t)nr * QC2_BLOCK_BYTES;
	cache->mem = mmap(NULL, cache->mem_size, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	cache->bufs = calloc(nr, sizeof(*cache->bufs));
	cache->free_bufs = calloc(nr, sizeof(*cache->free_bufs));
	if (cache->mem == MAP_FAILED || !cache->bufs || !cache->free_bufs)
		return qc2_fail(err, ENOMEM, "cache: out of memory");
	cache->nr_bufs = nr;
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

static int make_machinery(struct cache *cache, sd_event *event,
			  struct qc2_err *err)
{
	int ret;

	ret = pool_new(&cache->write_pool, event, WRITE_THREADS);
	if (!ret)
		ret = pool_new(&cache->forget_pool, event, 1);
	if (!ret)
		ret = sd_event_add_time_relative(event, &cache->retry_timer,
						 CLOCK_MONOTONIC, RETRY_US, 0,
						 on_timer, cache);
	if (ret >= 0)
		ret = sd_event_source_set_enabled(cache->retry_timer,
						  SD_EVENT_OFF);
	return ret < 0 ? qc2_fail(err, -ret, "cache: %s", strerror(-ret)) : 0;
}

int cache_open(struct cache **out, sd_event *event, const char *path,
	       uint64_t size, unsigned int nr_bufs, struct qc2_err *err)
{
	struct cache *cache = calloc(1, sizeof(*cache));
	struct stat st;
	int ret;

	if (!cache)
		return qc2_fail(err, ENOMEM, "cache: out of memory");
	STAILQ_INIT(&cache->waiting);
	cache->forget_job.run = forget_run;
	cache->forget_job.done = forget_done;
	cache->path = strdup(path);
	cache->fd = cache_dev_open(path, size, &cache->device,
				   &cache->device_size, err);
	ret = cache->fd;
	if (ret < 0)
		goto fail;
	if (!cache->path || fstat(cache->fd, &st)) {
		ret = qc2_fail(err, ENOMEM, "cache: out of memory");
		goto fail;
	}
	cache->dev = st.st_rdev;
	ret = make_ring(cache, size, err);
	if (!ret)
		ret = make_bufs(cache, nr_bufs, err);
	if (!ret)
		ret = make_machinery(cache, event, err);
	if (ret)
		goto fail;
	cache->head = cache->nr_slots;
	cache->dying = cache->nr_slots;
	submit_forget(cache);
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
	pool_free(cache->forget_pool);
	sd_event_source_disable_unref(cache->retry_timer);
	if (cache->fd >= 0)
		close(cache->fd);
	if (cache->mem && cache->mem != MAP_FAILED)
		munmap(cache->mem, cache->mem_size);
	free(cache->bufs);
	free(cache->free_bufs);
	free(cache->slots);
	free(cache->buckets);
	free(cache->device);
	free(cache->path);
	free(cache);
}

dev_t cache_dev(const struct cache *cache)
{
	return cache->dev;
}

void cache_get_stats(const struct cache *cache, struct cache_stats *stats)
{
	stats->path = cache->path;
	stats->device = cache->device;
	stats->slots = cache->nr_slots;
	stats->used = cache->used;
	stats->hits = cache->hits;
	stats->evictions = cache->evictions;
	stats->errors = cache->errors;
}
