/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Looking for blocks in the index, and comparing blocks with their digests: before their
 * first use after an end without order, and all of them slowly again and again.
 *
 * A probe is one job, or two if there is something to compare.  What it found counts if
 * no slot of that chunk was freed since it was asked for.  One that takes too long is
 * given up, its blocks are fetched; while such a one hangs there are no others.
 *
 * Main thread only, but for the jobs.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cache_impl.h"

#define PROBE_THREADS	4
#define HANG_US		2000000
/* At the start the index may take longer to come. */
#define START_US	10000000
#define MAX_BLOCKS	256U		/* of a fetch */
#define MAX_LEAVES	2U
/* Blocks compared in one job; until all were after an end without order, and later. */
#define COMPARED	64U

struct found {
	uint32_t nr;
	bool has_digest;
	uint8_t digest[QC2_DIGEST_LEN];
	uint32_t slot;			/* with that content */
};

/* A slot that is to be compared. */
struct compared {
	uint32_t slot;
	int ret;			/* 0: it is right; -EBADMSG, or why it cannot be told */
};

struct probe {
	struct job job;
	struct cache *cache;
	struct object *obj;
	int64_t object;			/* its number; 0: to be found */
	uint32_t first;
	unsigned int nr;
	struct found *blocks;
	struct block **wanted;		/* the same; the caller's, until @done is called */
	uint32_t leaf[MAX_LEAVES];	/* first blocks of leaves to be loaded */
	unsigned int nr_leaves;
	uint32_t (*slots)[LEAF_BLOCKS];	/* of these */
	bool failed;
	uint32_t clock, epoch;
	unsigned int disowned;		/* names->disowned by then */
	struct compared *compared;
	unsigned int nr_compared;
	uint64_t since_us;		/* of this job, or waiting for the index */
	bool submitted, over;
	void (*done)(void *arg);
	void *arg;
	TAILQ_ENTRY(probe) entry;
};

static void free_probe(struct probe *p)
{
	object_put(p->obj);
	free(p->blocks);
	free(p->slots);
	free(p->compared);
	free(p);
}

/*
 * ---------------------------------------------------------------------------
 * Comparing
 * ---------------------------------------------------------------------------
 */

/* In a pool thread. */
static int compare(struct cache *cache, uint32_t slot, void *mem)
{
	uint8_t wanted[QC2_DIGEST_LEN], digest[QC2_DIGEST_LEN];
	struct qc2_err err;
	int ret = -EAGAIN;
	ssize_t n;

	pthread_rwlock_rdlock(&cache->index_lock);
	if (cache->index)
		ret = cache_index_digest(cache->index, slot, wanted, &err);
	pthread_rwlock_unlock(&cache->index_lock);
	if (ret)		/* -EIO would be that of the device */
		return ret == -EIO ? -EAGAIN : ret;
	n = pread(cache->fd, mem, QC2_BLOCK_BYTES, (off_t)slot * QC2_BLOCK_BYTES);
	if (n != QC2_BLOCK_BYTES)
		return n < 0 ? -errno : -EIO;
	ret = qc2_digest(mem, digest);
	return ret ? ret : memcmp(digest, wanted, sizeof(digest)) ? -EBADMSG : 0;
}

static void compare_all(struct cache *cache, struct compared *list, unsigned int nr)
{
	unsigned int i;
	void *mem;

	if (posix_memalign(&mem, 4096, QC2_BLOCK_BYTES))
		mem = NULL;
	for (i = 0; i < nr; i++)
		list[i].ret = mem ? compare(cache, list[i].slot, mem) : -ENOMEM;
	free(mem);
}

/* Whether what was asked of the index at @clock still counts. */
static bool is_current(const struct cache *cache, uint32_t slot, uint32_t clock)
{
	return slot < cache->space.nr_slots &&
	       chunk_of(&cache->space, slot)->filled & slot_bit(slot) &&
	       (int32_t)(chunk_of(&cache->space, slot)->freed - clock) <= 0;
}

static void use_compared(struct cache *cache, const struct compared *list, unsigned int nr,
			 uint32_t clock)
{
	unsigned int i;

	for (i = 0; i < nr; i++) {
		struct chunk *chunk = chunk_of(&cache->space, list[i].slot);
		uint64_t bit = slot_bit(list[i].slot);

		if (!is_current(cache, list[i].slot, clock))
			continue;
		cache->scrubbed++;
		if (!list[i].ret) {
			cache->space.nr_unverified -= !!(chunk->unverified & bit);
			chunk->unverified &= ~bit;
			continue;
		}
		/* Written just now, or the index cannot be read. */
		if (!(chunk->unverified & bit) && list[i].ret != -EBADMSG &&
		    list[i].ret != -EIO)
			continue;
		if (list[i].ret == -ENOMEM || list[i].ret == -EAGAIN)
			continue;
		cache->damaged++;
		if (log_allowed(&cache->damage_limit))
			log_warn("cache %s (%s): the 64 KiB at %llu %s; they are fetched again when they are needed",
				 cache->device, cache->path,
				 (unsigned long long)list[i].slot * QC2_BLOCK_BYTES,
				 list[i].ret == -EBADMSG ? "are not what was written" :
							   "cannot be read");
		commit_drop(cache, list[i].slot, list[i].ret == -EIO);
	}
}

/*
 * ---------------------------------------------------------------------------
 * Probes
 * ---------------------------------------------------------------------------
 */

/* In a pool thread. */
static int ask_index(struct probe *p)
{
	struct cache_index *index = p->cache->index;
	struct qc2_err err;
	unsigned int i;
	int ret = 0;

	if (!index)
		return -EAGAIN;
	if (!p->object)
		ret = cache_index_object(index, p->obj->key, "", false, &p->object, &err);
	for (i = 0; !ret && i < p->nr_leaves; i++) {
		memset(p->slots[i], 0xff, sizeof(p->slots[i]));
		if (p->object)
			ret = cache_index_names(index, p->object, p->leaf[i], LEAF_BLOCKS,
						p->slots[i], &err);
	}
	for (i = 0; !ret && i < p->nr; i++) {
		if (p->blocks[i].has_digest)
			ret = cache_index_find(index, p->blocks[i].digest, &p->blocks[i].slot,
					       &err);
	}
	return ret;
}

static void probe_run(struct job *job)
{
	struct probe *p = (struct probe *)job;

	if (p->nr_compared) {
		compare_all(p->cache, p->compared, p->nr_compared);
		return;
	}
	pthread_rwlock_rdlock(&p->cache->index_lock);
	p->failed = ask_index(p) != 0;
	pthread_rwlock_unlock(&p->cache->index_lock);
}

static void end_probe(struct probe *p)
{
	TAILQ_REMOVE(&p->cache->probes, p, entry);
	p->over = true;
	p->done(p->arg);
}

static void load_leaves(struct probe *p)
{
	struct cache *cache = p->cache;
	unsigned int i, j;

	/* Else nobody would tell it that a name is gone. */
	if (p->object && names_set_object(&p->obj->names, p->object))
		return;
	for (i = 0; i < p->nr_leaves; i++) {
		bool all = true;

		for (j = 0; j < LEAF_BLOCKS; j++) {
			uint32_t *slot = &p->slots[i][j];

			if (*slot == QC2_SLOT_ZERO || *slot == QC2_SLOT_NONE ||
			    is_current(cache, *slot, p->clock))
				continue;
			*slot = QC2_SLOT_NONE;
			all = false;
		}
		names_load(&p->obj->names, p->leaf[i], p->slots[i], all);
	}
}

/* Of a block of zeros, which is in no slot. */
static const uint8_t *zero_digest(void)
{
	static uint8_t digest[QC2_DIGEST_LEN];
	static const uint8_t zeros[QC2_BLOCK_BYTES];
	static bool known;

	if (!known)
		known = !qc2_digest(zeros, digest);
	return digest;
}

/* What has the wanted content gets the name, if there is nothing of that name. */
static void use_content(struct probe *p)
{
	struct cache *cache = p->cache;
	unsigned int i;

	for (i = 0; i < p->nr; i++) {
		const struct found *b = &p->blocks[i];
		uint32_t slot = names_get(&p->obj->names, b->nr);

		if (slot == QC2_SLOT_ZERO || (slot < cache->space.nr_slots &&
		    chunk_of(&cache->space, slot)->filled & slot_bit(slot)))
			continue;
		if (!b->has_digest || commit_is_behind(cache))
			continue;
		if (!memcmp(b->digest, zero_digest(), QC2_DIGEST_LEN))
			commit_name(cache, p->obj, b->nr, QC2_SLOT_ZERO);
		else if (is_current(cache, b->slot, p->clock) &&
			 commit_name(cache, p->obj, b->nr, b->slot))
			p->wanted[i]->came = CAME_SAME;
	}
}

/* Returns true if there is something to compare first. */
static bool has_to_compare(struct probe *p)
{
	struct cache *cache = p->cache;
	unsigned int i;

	p->compared = calloc(p->nr, sizeof(*p->compared));
	for (i = 0; p->compared && i < p->nr; i++) {
		uint32_t slot = names_get(&p->obj->names, p->blocks[i].nr);

		if (slot < cache->space.nr_slots &&
		    chunk_of(&cache->space, slot)->unverified & slot_bit(slot))
			p->compared[p->nr_compared++].slot = slot;
	}
	return p->nr_compared;
}

static void probe_done(struct job *job)
{
	struct probe *p = (struct probe *)job;
	struct cache *cache = p->cache;

	if (p->over) {			/* it was given up */
		cache->abandoned--;
		free_probe(p);
		return;
	}
	if (p->epoch != cache->epoch) {
		p->failed = true;
	} else if (p->nr_compared) {
		use_compared(cache, p->compared, p->nr_compared, p->clock);
	} else if (!p->failed && p->disowned == p->obj->names.disowned) {
		load_leaves(p);
		use_content(p);
		if (has_to_compare(p)) {
			p->clock = cache->space.clock;
			p->since_us = now_us();
			pool_submit(cache->probe_pool, &p->job);
			return;
		}
	}
	end_probe(p);
	free_probe(p);
}

/* What has to be asked: leaves that are not loaded, content. */
static bool prepare(struct probe *p, struct block **blocks)
{
	struct cache *cache = p->cache;
	bool unverified = false, digests = false;
	unsigned int i;

	for (i = 0; i < p->nr; i++) {
		uint32_t nr = blocks[i]->nr, leaf = nr - nr % LEAF_BLOCKS;
		uint32_t slot = names_get(&p->obj->names, nr);

		p->blocks[i].nr = nr;
		p->blocks[i].slot = QC2_SLOT_NONE;
		p->blocks[i].has_digest = blocks[i]->has_digest && blocks[i]->vouched;
		memcpy(p->blocks[i].digest, blocks[i]->digest, QC2_DIGEST_LEN);
		digests |= p->blocks[i].has_digest;
		unverified |= slot < cache->space.nr_slots &&
			      chunk_of(&cache->space, slot)->unverified & slot_bit(slot);
		if (!names_loaded(&p->obj->names, nr) && p->nr_leaves < MAX_LEAVES &&
		    (!p->nr_leaves || p->leaf[p->nr_leaves - 1] != leaf))
			p->leaf[p->nr_leaves++] = leaf;
	}
	return p->nr_leaves || digests || unverified;
}

static void submit_probe(struct probe *p)
{
	struct cache *cache = p->cache;

	p->submitted = true;
	p->since_us = now_us();
	p->clock = cache->space.clock;
	p->epoch = cache->epoch;
	p->disowned = p->obj->names.disowned;
	pool_submit(cache->probe_pool, &p->job);
}

void probes_go_on(struct cache *cache)
{
	struct probe *p;

	TAILQ_FOREACH(p, &cache->probes, entry) {
		if (!p->submitted)
			submit_probe(p);
	}
}

bool cache_probe(struct cache *cache, struct block **blocks, unsigned int nr,
		 void (*done)(void *arg), void *arg)
{
	struct probe *p;

	if (cache_is_absent(cache) || cache->abandoned || nr > MAX_BLOCKS || blocks[0]->obj->names.wrong)
		return false;
	p = calloc(1, sizeof(*p));
	if (!p)
		return false;
	p->cache = cache;
	p->obj = object_ref(blocks[0]->obj);
	p->object = p->obj->names.object;
	p->first = blocks[0]->nr;
	p->nr = nr;
	p->wanted = blocks;
	p->blocks = calloc(nr, sizeof(*p->blocks));
	p->slots = calloc(MAX_LEAVES, sizeof(*p->slots));
	if (!p->blocks || !p->slots || !prepare(p, blocks)) {
		free_probe(p);
		return false;
	}
	p->job.run = probe_run;
	p->job.done = probe_done;
	p->since_us = now_us();
	p->done = done;
	p->arg = arg;
	TAILQ_INSERT_TAIL(&cache->probes, p, entry);
	if (cache->index_open)
		submit_probe(p);
	return true;
}

/* The blocks are fetched; the job, if there is one, comes back some time. */
static void give_up(struct probe *p)
{
	struct cache *cache = p->cache;

	end_probe(p);
	if (p->submitted)
		cache->abandoned++;
	else
		free_probe(p);
}

static void look_at_probes(struct cache *cache, uint64_t now)
{
	struct probe *p, *next;

	for (p = TAILQ_FIRST(&cache->probes); p; p = next) {
		next = TAILQ_NEXT(p, entry);
		if (now < p->since_us + (p->submitted ? HANG_US : START_US))
			continue;
		if (log_allowed(&cache->index_limit))
			log_err("cache %s: the index %s does not answer; what it may have is fetched",
				cache->path, cache->index_path);
		give_up(p);
	}
}

/*
 * ---------------------------------------------------------------------------
 * Scrubbing
 * ---------------------------------------------------------------------------
 */

struct scrub {
	struct job job;
	struct cache *cache;
	uint32_t clock, epoch;
	struct compared compared[COMPARED];
	unsigned int nr;
};

static void start_scrub(struct cache *cache, unsigned int nr);

static void scrub_run(struct job *job)
{
	struct scrub *s = (struct scrub *)job;

	compare_all(s->cache, s->compared, s->nr);
}

static void scrub_done(struct job *job)
{
	struct scrub *s = (struct scrub *)job;
	struct cache *cache = s->cache;
	bool told = !s->compared[0].ret || s->compared[0].ret == -EBADMSG;

	if (s->epoch == cache->epoch)
		use_compared(cache, s->compared, s->nr, s->clock);
	cache->scrubbing = false;
	free(s);
	/* Until all may be used: without a pause, if it can be told at all. */
	if (cache->space.nr_unverified && told)
		start_scrub(cache, COMPARED);
}

/* The next slots behind the last ones; only those not verified as long as there are any. */
static void collect(struct scrub *s, unsigned int nr)
{
	struct cache *cache = s->cache;
	bool all = !cache->space.nr_unverified;
	uint32_t seen;

	for (seen = 0; seen < cache->space.nr_slots && s->nr < nr; seen++) {
		const struct chunk *chunk;

		if (++cache->scrub_at >= cache->space.nr_slots)
			cache->scrub_at = 0;
		chunk = chunk_of(&cache->space, cache->scrub_at);
		if ((all ? chunk->filled : chunk->unverified) & slot_bit(cache->scrub_at))
			s->compared[s->nr++].slot = cache->scrub_at;
	}
}

static void start_scrub(struct cache *cache, unsigned int nr)
{
	struct scrub *s;

	if (!nr || cache->scrubbing || cache->abandoned || !cache->ready)
		return;
	s = calloc(1, sizeof(*s));
	if (!s)
		return;
	s->job.run = scrub_run;
	s->job.done = scrub_done;
	s->cache = cache;
	s->clock = cache->space.clock;
	s->epoch = cache->epoch;
	collect(s, nr);
	if (!s->nr) {
		free(s);
		return;
	}
	cache->scrubbing = true;
	pool_submit(cache->probe_pool, &s->job);
}

void probe_tick(struct cache *cache, uint64_t now)
{
	uint64_t nr = cache->cfg.scrub_rate / QC2_BLOCK_BYTES;

	look_at_probes(cache, now);
	if (cache->space.nr_unverified || nr > COMPARED)
		nr = COMPARED;
	start_scrub(cache, nr);
}

int probe_setup(struct cache *cache, struct qc2_err *err)
{
	int ret = pool_new(&cache->probe_pool, cache->event, PROBE_THREADS);

	return ret < 0 ? qc2_fail(err, -ret, "cache: %s", strerror(-ret)) : 0;
}
