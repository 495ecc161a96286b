/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The index of the cache: opening it, writing changes, evicting.
 *
 * Changes are gathered for a second, or until room is needed.  Then a job makes the data
 * durable and writes them in one transaction; one job at a time, so they are in order.
 * If that fails the changes stay, and it is tried again; when they become too many, what
 * is fetched goes to the bypass.  An index that is damaged is removed, and the cache is
 * empty.
 *
 * Pins are of objects and in the index; in memory are their keys and a mask of slots in each
 * chunk.  A job reads these when the index is opened and when pins change, by the names of
 * the pinned objects; names that come later set their bits at once.  So eviction has
 * nothing to ask for, and a mask has more than is pinned, rather than less.
 *
 * An index that was not closed in order is checked as a whole, in a thread of its own.
 *
 * Main thread only, but for the jobs.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cache_dev.h"
#include "cache_impl.h"
#include "forget.h"

#define COMMIT_AFTER_US	1000000
#define RETRY_US	5000000
#define BAD_AFTER_US	60000000
#define MAX_CHANGES	65536		/* that wait */
#define MAX_FORGOTTEN	64		/* chunks at once ... */
#define MAX_DOOMED	(QC2_MAX_RANGES - MAX_FORGOTTEN)	/* ... and others */
#define MAX_EVICTED	16
#define BEYOND		1024		/* slots that are removed at once */
#define MAX_TRIES	12		/* with an I/O error of the index */
#define TICK_US		1000000

struct commit {
	struct job job;
	struct cache *cache;
	bool open;			/* the index is opened first */
	bool remove;			/* and removed before */
	bool trusted;
	uint64_t names, zeros;		/* that the index has then ... */
	bool counted;			/* ... if it is known */
	bool sync, synced;		/* it is to be durable; it is */
	struct changes changes;
	bool read_pins;			/* which slots are pinned is read: */
	struct pinned_keys pinned;
	uint64_t *masks;		/* for so many chunks */
	uint32_t nr_chunks;
	uint64_t retry_us;		/* it failed, and is tried again then; 0: it runs */
	unsigned int tries;
	struct index_name *gone;
	unsigned int nr_gone, max_gone;
	bool no_memory;
	bool not_durable;		/* the device failed to make the data so */
	int ret;
	struct qc2_err err;
};

/* Kernels are made to forget ... */
struct forgetting {
	struct job job;
	struct cache *cache;
	bool all;			/* ... everything, or */
	struct chunk *chunks[MAX_FORGOTTEN];	/* ... these, which are cold then, and */
	unsigned int nr_chunks;
	struct doomed *doomed;		/* ... these, which are removed from the index then */
	unsigned int nr_doomed;
	struct qc2_range *ranges;
	unsigned int nr_ranges;
	uint32_t epoch;
	uint64_t retry_us;		/* likewise */
	int ret;
	struct qc2_err err;
};

/* The index is looked through. */
struct check {
	struct job job;
	struct cache *cache;
	uint32_t epoch;
	int ret;
	struct qc2_err err;
};

/* Room for one more in an array. */
static bool grow(void *array, unsigned int nr, unsigned int *max, size_t size)
{
	void **p = array, *more;

	if (nr < *max)
		return true;
	more = reallocarray(*p, *max ? 2 * *max : 64, size);
	if (!more)
		return false;
	*p = more;
	*max = *max ? 2 * *max : 64;
	return true;
}

static void free_changes(struct changes *c)
{
	unsigned int i;

	for (i = 0; i < c->nr_pins; i++)
		free(c->pins[i].url);
	free(c->pins);
	free(c->blocks);
	free(c->names);
	free(c->doomed);
	free(c->disowned);
	*c = (struct changes){ 0 };
}

static void wake_commit(struct cache *cache)
{
	if (!cache->commit_at_us)
		cache->commit_at_us = now_us() + COMMIT_AFTER_US;
}

/*
 * ---------------------------------------------------------------------------
 * Pins
 * ---------------------------------------------------------------------------
 */

static int by_key(const void *a, const void *b)
{
	return memcmp(a, b, 32);
}

bool cache_is_pinned(const struct cache *cache, const struct object *obj)
{
	return cache->pinned.nr && bsearch(obj->key, cache->pinned.keys, cache->pinned.nr,
					   sizeof(*cache->pinned.keys), by_key);
}

static bool will_be_pinned(const struct changes *c, const struct object *obj)
{
	unsigned int i;

	for (i = 0; i < c->nr_pins; i++) {
		if (c->pins[i].pinned && !memcmp(c->pins[i].key, obj->key, 32))
			return true;
	}
	return false;
}

static void pin_slot(struct cache *cache, uint32_t slot)
{
	if (slot >= cache->space.nr_slots || space_pin(&cache->space, slot))
		return;
	if (!cache->pins_full)
		log_warn("cache %s: half of it is pinned; what else is pinned is evicted as other data is",
			 cache->path);
	cache->pins_full = true;
}

static void pin_name(struct cache *cache, const struct object *obj, uint32_t slot)
{
	if (cache_is_pinned(cache, obj) || will_be_pinned(&cache->changes, obj))
		pin_slot(cache, slot);
}

static bool add_pin(struct cache *cache, const uint8_t *key, const char *url, bool pinned)
{
	struct changes *c = &cache->changes;
	struct new_pin *pin;

	if (!grow(&c->pins, c->nr_pins, &c->max_pins, sizeof(*c->pins)))
		return false;
	pin = &c->pins[c->nr_pins];
	*pin = (struct new_pin){ .pinned = pinned };
	memcpy(pin->key, key, sizeof(pin->key));
	/* A query may have a signature in it. */
	pin->url = strndup(url, strcspn(url, "?"));
	c->nr_pins += !!pin->url;
	return pin->url;
}

/* They are not: those from @first on. */
static int cancel_pins(struct changes *c, unsigned int first, struct qc2_err *err)
{
	while (c->nr_pins > first)
		free(c->pins[--c->nr_pins].url);
	return qc2_fail(err, ENOMEM, "out of memory");
}

static int end_pins(struct cache *cache, void (*done)(void *arg, int ret), void *arg)
{
	struct changes *c = &cache->changes;

	c->pins[c->nr_pins - 1].done = done;
	c->pins[c->nr_pins - 1].arg = arg;
	cache->read_pins = true;
	cache->commit_at_us = now_us();
	commit_evict(cache);
	return 0;
}

int cache_pin(struct cache *cache, struct object *const *objs, unsigned int nr, bool pinned,
	      void (*done)(void *arg, int ret), void *arg, struct qc2_err *err)
{
	unsigned int first = cache->changes.nr_pins, i;
	int ret = cache_check_present(cache, err);

	if (ret)
		return ret;
	for (i = 0; i < nr; i++) {
		if (objs[i] && !add_pin(cache, objs[i]->key, objs[i]->url, pinned))
			return cancel_pins(&cache->changes, first, err);
	}
	if (cache->changes.nr_pins == first)
		return qc2_fail(err, ENOENT, "there is nothing to be pinned");
	return end_pins(cache, done, arg);
}

int cache_unpin_all(struct cache *cache, void (*done)(void *arg, int ret), void *arg,
		    struct qc2_err *err)
{
	unsigned int first = cache->changes.nr_pins, i;
	int ret = cache_check_present(cache, err);

	if (ret)
		return ret;
	for (i = 0; i < cache->pinned.nr; i++) {
		if (!add_pin(cache, cache->pinned.keys[i], "", false))
			return cancel_pins(&cache->changes, first, err);
	}
	if (cache->changes.nr_pins == first)
		return qc2_fail(err, ENOENT, "nothing is pinned");
	return end_pins(cache, done, arg);
}

void commit_pins_again(struct cache *cache)
{
	if (!cache->pinned.nr)
		return;
	cache->read_pins = true;
	wake_commit(cache);
}

static int note_key(void *arg, const uint8_t key[32])
{
	struct pinned_keys *list = &((struct commit *)arg)->pinned;

	if (!grow(&list->keys, list->nr, &list->max, sizeof(*list->keys)))
		return -ENOMEM;
	memcpy(list->keys[list->nr++], key, 32);
	return 0;
}

static void note_slot(void *arg, uint32_t slot)
{
	struct commit *commit = arg;

	if (slot / CHUNK_SLOTS < commit->nr_chunks)
		commit->masks[slot / CHUNK_SLOTS] |= slot_bit(slot);
}

static void free_pinned(struct pinned_keys *pinned)
{
	free(pinned->keys);
	*pinned = (struct pinned_keys){ 0 };
}

/* In a job. */
static int read_pins(struct commit *commit, struct cache_index *index)
{
	int ret;

	if (!commit->read_pins)
		return 0;
	free_pinned(&commit->pinned);
	free(commit->masks);
	commit->masks = calloc(commit->nr_chunks, sizeof(*commit->masks));
	ret = commit->masks ? cache_index_pinned(index, note_key, note_slot, commit,
						 &commit->err) : -ENOMEM;
	if (ret == -ENOMEM)
		return qc2_fail(&commit->err, ENOMEM, "out of memory");
	if (commit->pinned.nr)
		qsort(commit->pinned.keys, commit->pinned.nr, sizeof(*commit->pinned.keys),
		      by_key);
	return ret;
}

/* In a job.  What follows may fail, and this is done once more then. */
static int write_pins(struct commit *commit)
{
	struct cache_index *index = commit->cache->index;
	const struct changes *c = &commit->changes;
	struct index_pin *pins;
	unsigned int i;
	int ret;

	if (c->nr_pins) {
		pins = calloc(c->nr_pins, sizeof(*pins));
		if (!pins)
			return qc2_fail(&commit->err, ENOMEM, "out of memory");
		for (i = 0; i < c->nr_pins; i++) {
			memcpy(pins[i].key, c->pins[i].key, sizeof(pins[i].key));
			pins[i].url = c->pins[i].url;
			pins[i].pinned = c->pins[i].pinned;
		}
		ret = cache_index_pin(index, pins, c->nr_pins, &commit->err);
		free(pins);
		if (ret)
			return ret;
	}
	return read_pins(commit, index);
}

/* Names that the job did not see. */
static void pin_names(struct cache *cache, const struct changes *c)
{
	unsigned int i;

	for (i = 0; i < c->nr_names; i++)
		pin_name(cache, c->names[i].obj, c->names[i].slot);
}

/* What is pinned is known; slots that are not filled any more do not count. */
static void use_pins(struct cache *cache, struct commit *commit)
{
	uint32_t i, nr = commit->nr_chunks;

	if (!commit->read_pins)
		return;
	free_pinned(&cache->pinned);
	cache->pinned = commit->pinned;
	commit->pinned = (struct pinned_keys){ 0 };
	cache->pins_full = false;
	if (nr > cache->space.nr_chunks)
		nr = cache->space.nr_chunks;
	/* What was pinned before others goes first, but for a limit that is less now. */
	for (i = 0; i < nr; i++)
		space_unpin(&cache->space, &cache->space.chunks[i], ~commit->masks[i]);
	if (cache->space.nr_pinned > cache->space.nr_slots / 2)
		space_unpin_all(&cache->space);
	pin_names(cache, &commit->changes);
	pin_names(cache, &cache->changes);
	for (i = 0; i < nr; i++) {
		uint64_t mask = commit->masks[i];

		for (; mask; mask &= mask - 1)
			pin_slot(cache, i * CHUNK_SLOTS + __builtin_ctzll(mask));
	}
}

static void pins_done(struct changes *c, int ret)
{
	unsigned int i;

	for (i = 0; i < c->nr_pins; i++) {
		if (c->pins[i].done)
			c->pins[i].done(c->pins[i].arg, ret);
	}
}

/*
 * ---------------------------------------------------------------------------
 * Changes
 * ---------------------------------------------------------------------------
 */

bool commit_block(struct cache *cache, uint32_t slot, const uint8_t *digest)
{
	struct changes *c = &cache->changes;

	if (!grow(&c->blocks, c->nr_blocks, &c->max_blocks, sizeof(*c->blocks)))
		return false;
	c->blocks[c->nr_blocks].slot = slot;
	memcpy(c->blocks[c->nr_blocks++].digest, digest, QC2_DIGEST_LEN);
	wake_commit(cache);
	return true;
}

bool commit_name(struct cache *cache, struct object *obj, uint32_t block, uint32_t slot)
{
	struct changes *c = &cache->changes;

	if (!grow(&c->names, c->nr_names, &c->max_names, sizeof(*c->names)) ||
	    names_add(&obj->names, block, slot))
		return false;
	c->names[c->nr_names++] = (struct new_name){ object_ref(obj), block, slot, 0 };
	pin_name(cache, obj, slot);
	cache->names++;
	cache->zeros += slot == QC2_SLOT_ZERO;
	wake_commit(cache);
	return true;
}

static bool add_doomed(struct cache *cache, const struct doomed *doomed)
{
	struct changes *c = &cache->changes;

	if (!grow(&c->doomed, c->nr_doomed, &c->max_doomed, sizeof(*c->doomed)))
		return false;
	c->doomed[c->nr_doomed++] = *doomed;
	wake_commit(cache);
	return true;
}

/*
 * Slots that are not to be used stay in the index, and are not used until the next start.
 * Blocks are compared then: they may be damaged, or cut off.
 */
static void forgot_to_doom(struct cache *cache)
{
	log_err("cache: out of memory");
	cache->suspect = true;
}

void cache_disown(struct cache *cache, struct object *obj)
{
	struct changes *c = &cache->changes;
	unsigned int i, nr = 0;

	names_drop(&obj->names);
	for (i = 0; i < c->nr_names; i++) {
		if (c->names[i].obj == obj)
			object_put(obj);
		else
			c->names[nr++] = c->names[i];
	}
	c->nr_names = nr;
	obj->names.disowned++;		/* what is being asked for does not count, either */
	obj->names.wrong++;
	if (!grow(&c->disowned, c->nr_disowned, &c->max_disowned, sizeof(*c->disowned))) {
		log_err("cache: out of memory");	/* wrong for as long as it lives */
		return;
	}
	c->disowned[c->nr_disowned++] = object_ref(obj);
	cache->commit_at_us = now_us();
}

static void end_disowned(struct object *obj)
{
	obj->names.wrong--;
	object_put(obj);
}

bool commit_is_behind(const struct cache *cache)
{
	return cache->changes.nr_names > MAX_CHANGES;
}

/* The name is in the index, or will not be. */
static void end_name(struct new_name *name)
{
	names_written(&name->obj->names, name->block);
	object_put(name->obj);
}

static bool still_filled(const struct cache *cache, uint32_t slot)
{
	return slot == QC2_SLOT_ZERO ||
	       (slot < cache->space.nr_slots &&
		chunk_of(&cache->space, slot)->filled & slot_bit(slot));
}

/* What was removed again before it was written. */
static void drop_void(struct cache *cache, struct changes *c)
{
	unsigned int i, nr = 0;

	for (i = 0; i < c->nr_blocks; i++) {
		if (still_filled(cache, c->blocks[i].slot))
			c->blocks[nr++] = c->blocks[i];
	}
	c->nr_blocks = nr;
	for (i = nr = 0; i < c->nr_names; i++) {
		struct new_name *name = &c->names[i];

		if (still_filled(cache, name->slot)) {
			c->names[nr++] = *name;
			continue;
		}
		names_remove(&name->obj->names, name->block, name->slot);
		end_name(name);
	}
	c->nr_names = nr;
}

/*
 * ---------------------------------------------------------------------------
 * Jobs
 * ---------------------------------------------------------------------------
 */

static void on_gone(void *arg, const struct index_name *name)
{
	struct commit *commit = arg;

	if (!grow(&commit->gone, commit->nr_gone, &commit->max_gone, sizeof(*commit->gone)))
		commit->no_memory = true;
	else
		commit->gone[commit->nr_gone++] = *name;
}

struct load {
	struct commit *commit;
	struct cache_index *index;
	uint32_t beyond[BEYOND];	/* slots to be removed */
	unsigned int nr_beyond;
};

static int remove_beyond(struct load *load)
{
	int ret = cache_index_commit(load->index, load->beyond, load->nr_beyond, NULL, NULL,
				     NULL, 0, NULL, 0, &load->commit->err);

	load->nr_beyond = 0;
	return ret;
}

/*
 * Which slots are filled; the main thread has no other use of the space now.  The cache
 * may have been greater: what was behind its end is something else when it is again.
 */
static int load_slot(void *arg, uint32_t slot)
{
	struct load *load = arg;
	struct cache *cache = load->commit->cache;

	if (slot < cache->space.nr_slots && slot != CACHE_SUPER_SLOT) {
		space_load(&cache->space, slot, !load->commit->trusted);
		return 0;
	}
	load->beyond[load->nr_beyond++] = slot;
	return load->nr_beyond < BEYOND ? 0 : remove_beyond(load);
}

static int open_index(struct commit *commit)
{
	struct load load = { .commit = commit };
	struct cache *cache = commit->cache;
	struct cache_index *index;
	uint64_t blocks;
	int ret = 0;

	/* Nobody else sets it.  A check would hold this up. */
	if (cache->index)
		cache_index_stop(cache->index);
	pthread_rwlock_wrlock(&cache->index_lock);
	index = cache->index;
	cache->index = NULL;
	pthread_rwlock_unlock(&cache->index_lock);
	cache_index_close(index, false);
	if (commit->remove)
		ret = cache_index_remove(cache->index_path, &commit->err);
	if (!ret)
		ret = cache_index_open(&index, cache->index_path, cache->id,
				       &commit->trusted, &commit->err);
	if (ret)
		return ret;
	load.index = index;
	ret = cache_index_each(index, load_slot, &load, &commit->err);
	if (!ret && load.nr_beyond)
		ret = remove_beyond(&load);
	if (!ret)
		ret = cache_index_count(index, &commit->names, &commit->zeros, &blocks,
					&commit->err);
	if (!ret)
		ret = cache_index_tidy(index, &commit->err);
	if (!ret)
		ret = read_pins(commit, index);
	if (ret) {
		cache_index_close(index, false);
		return ret;
	}
	pthread_rwlock_wrlock(&cache->index_lock);
	cache->index = index;
	pthread_rwlock_unlock(&cache->index_lock);
	return 0;
}

static int find_ids(struct commit *commit)
{
	struct changes *c = &commit->changes;
	char url[1024];
	unsigned int i;
	int ret;

	for (i = 0; i < c->nr_names; i++) {
		struct new_name *name = &c->names[i];

		if (name->id)
			continue;
		/* Often several of one object follow each other. */
		if (i && name[-1].obj == name->obj) {
			name->id = name[-1].id;
			continue;
		}
		/* A query may have a signature in it. */
		snprintf(url, sizeof(url), "%.*s", (int)strcspn(name->obj->url, "?"),
			 name->obj->url);
		ret = cache_index_object(commit->cache->index, name->obj->key, url, true,
					 &name->id, &commit->err);
		if (ret)
			return ret;
	}
	return 0;
}

static int disown(struct commit *commit)
{
	struct cache_index *index = commit->cache->index;
	const struct changes *c = &commit->changes;
	int ret = 0;
	unsigned int i;

	for (i = 0; i < c->nr_disowned && !ret; i++) {
		int64_t id;

		ret = cache_index_object(index, c->disowned[i]->key, "", false, &id, &commit->err);
		if (!ret && id)
			ret = cache_index_disown(index, id, &commit->err);
	}
	return ret;
}

static int write_changes(struct commit *commit)
{
	struct changes *c = &commit->changes;
	struct cache *cache = commit->cache;
	struct index_name *names = calloc(c->nr_names + 1, sizeof(*names));
	uint32_t *evicted = calloc((c->nr_doomed + 1) * CHUNK_SLOTS, sizeof(*evicted));
	unsigned int nr_evicted = 0, i, j;
	int ret = -ENOMEM;

	if (!names || !evicted)
		goto out;
	for (i = 0; i < c->nr_names; i++)
		names[i] = (struct index_name){ c->names[i].id, c->names[i].block,
						c->names[i].slot };
	for (i = 0; i < c->nr_doomed; i++) {
		for (j = 0; j < CHUNK_SLOTS; j++) {
			if (c->doomed[i].slots & 1ULL << j)
				evicted[nr_evicted++] =
					first_slot(&cache->space, c->doomed[i].chunk) + j;
		}
	}
	ret = cache_index_commit(cache->index, evicted, nr_evicted, on_gone, commit,
				 c->blocks, c->nr_blocks, names, c->nr_names, &commit->err);
	if (!ret && commit->no_memory)
		ret = -EUCLEAN;		/* names in memory may be of other content */
out:
	free(names);
	free(evicted);
	return ret == -ENOMEM ? qc2_fail(&commit->err, ENOMEM, "out of memory") : ret;
}

static void commit_run(struct job *job)
{
	struct commit *commit = (struct commit *)job;
	struct cache *cache = commit->cache;
	struct qc2_err err;
	uint64_t blocks;

	commit->nr_gone = 0;
	commit->no_memory = false;
	commit->not_durable = false;
	commit->ret = commit->open ? open_index(commit) : 0;
	if (commit->ret || commit->open)
		return;
	if (commit->changes.nr_blocks && fdatasync(cache->fd)) {
		commit->not_durable = true;
		commit->ret = qc2_fail(&commit->err, errno, "%s: %s", cache->device,
				       strerror(errno));
	}
	if (!commit->ret)
		commit->ret = disown(commit);
	if (!commit->ret)
		commit->ret = write_pins(commit);
	if (!commit->ret)
		commit->ret = find_ids(commit);
	if (!commit->ret)
		commit->ret = write_changes(commit);
	commit->synced = !commit->ret && commit->sync &&
			 !cache_index_sync(cache->index, &commit->err);
	/* Without them the counts are those of before: what was written is not written again. */
	commit->counted = !commit->ret && !cache_index_count(cache->index, &commit->names,
							     &commit->zeros, &blocks, &err);
}

static void commit_done(struct job *job);

static void submit_commit(struct commit *commit)
{
	commit->retry_us = 0;
	commit->ret = -EINPROGRESS;
	pool_submit(commit->cache->commit_pool, &commit->job);
}

static bool start_job(struct cache *cache, bool open, bool remove)
{
	struct commit *commit = calloc(1, sizeof(*commit));

	if (!commit)
		return false;		/* the next tick tries again */
	commit->job.run = commit_run;
	commit->job.done = commit_done;
	commit->cache = cache;
	commit->open = open;
	commit->remove = remove;
	commit->read_pins = open || cache->read_pins;
	commit->nr_chunks = cache->space.nr_chunks;
	cache->read_pins = false;
	if (!open) {
		drop_void(cache, &cache->changes);
		commit->changes = cache->changes;
		cache->changes = (struct changes){ 0 };
		cache->commit_at_us = 0;
		cache->nr_commits++;
		commit->sync = cache->sync;
		cache->sync = false;
	}
	cache->commit = commit;
	submit_commit(commit);
	return true;
}

static void end_doomed(struct cache *cache, const struct doomed *doomed)
{
	struct space *space = &cache->space;
	uint32_t first = first_slot(space, doomed->chunk);
	unsigned int i;

	if (doomed->chunk->state == CHUNK_GONE)
		return;
	if (doomed->evicted) {
		cache->evictions += __builtin_popcountll(doomed->slots);
		space_evicted(space, doomed->chunk, doomed->slots);
		return;
	}
	space_release(space, doomed->chunk, doomed->slots);
	for (i = 0; doomed->bad && i < CHUNK_SLOTS; i++) {
		if (doomed->slots & 1ULL << i)
			space_set_bad(space, first + i);
	}
}

static void changes_written(struct commit *commit)
{
	struct changes *c = &commit->changes;
	struct cache *cache = commit->cache;
	unsigned int i;

	for (i = 0; i < c->nr_names; i++) {
		/* Without memory its names are loaded another time. */
		names_set_object(&c->names[i].obj->names, c->names[i].id);
		end_name(&c->names[i]);
	}
	for (i = 0; i < commit->nr_gone; i++) {
		struct cache_names *names = names_find(commit->gone[i].object);

		if (names)
			names_remove(names, commit->gone[i].block, commit->gone[i].slot);
	}
	for (i = 0; i < c->nr_doomed; i++)
		end_doomed(cache, &c->doomed[i]);
	for (i = 0; i < c->nr_disowned; i++)
		end_disowned(c->disowned[i]);
	pins_done(c, 0);
	free_changes(c);
	if (!commit->counted)
		return;
	cache->names = commit->names + cache->changes.nr_names;
	cache->zeros = commit->zeros;
	for (i = 0; i < cache->changes.nr_names; i++)
		cache->zeros += cache->changes.names[i].slot == QC2_SLOT_ZERO;
}

/*
 * ---------------------------------------------------------------------------
 * Starting, and starting empty
 * ---------------------------------------------------------------------------
 */

/* They are not written. */
static void drop_changes(struct changes *c)
{
	unsigned int i;

	for (i = 0; i < c->nr_names; i++)
		end_name(&c->names[i]);
	for (i = 0; i < c->nr_disowned; i++)
		end_disowned(c->disowned[i]);
	pins_done(c, -ECANCELED);
	free_changes(c);
}

static void free_commit(struct commit *commit)
{
	drop_changes(&commit->changes);
	free_pinned(&commit->pinned);
	free(commit->masks);
	free(commit->gone);
	free(commit);
}

static void submit_forget(struct forgetting *f)
{
	f->retry_us = 0;
	pool_submit(f->cache->forget_pool, &f->job);
}

static void forget_run(struct job *job);
static void forget_done(struct job *job);

static struct forgetting *forgetting_new(struct cache *cache)
{
	struct forgetting *f = calloc(1, sizeof(*f));

	if (!f)
		return NULL;
	f->ranges = calloc(QC2_MAX_RANGES, sizeof(*f->ranges));
	f->doomed = calloc(MAX_DOOMED, sizeof(*f->doomed));
	if (!f->ranges || !f->doomed) {
		free(f->ranges);
		free(f->doomed);
		free(f);
		return NULL;
	}
	f->job.run = forget_run;
	f->job.done = forget_done;
	f->cache = cache;
	f->epoch = cache->epoch;
	return f;
}

static void free_forgetting(struct forgetting *f)
{
	free(f->ranges);
	free(f->doomed);
	free(f);
}

/* Both have to be done: the index is loaded, and kernels know nothing. */
static void now_ready(struct cache *cache)
{
	if (!cache->index_open || !cache->forgot_all)
		return;
	chunk_of(&cache->space, CACHE_SUPER_SLOT)->taken |= slot_bit(CACHE_SUPER_SLOT);
	space_start(&cache->space);
	cache->ready = true;
	cache_writes_go_on(cache);
}

static void forget_all(struct cache *cache)
{
	struct forgetting *f = forgetting_new(cache);

	if (!f)
		return;			/* the next tick tries again */
	f->all = true;
	f->ranges[0].nr_sectors = cache->device_size / 512;
	f->nr_ranges = 1;
	cache->forgetting = f;
	submit_forget(f);
}

/* The index is opened, and kernels forget all of the cache; see cache.h. */
static void start(struct cache *cache, bool remove)
{
	forget_all(cache);
	start_job(cache, true, remove);
}

/* Slots that are being written are not used for anything else. */
static void clear_space(struct cache *cache)
{
	struct space *space = &cache->space;
	struct cache_buf *buf;

	space_clear(space, space->nr_slots, space->clock + 1);
	TAILQ_FOREACH(buf, &cache->writing, entry) {
		if (buf->slot < space->nr_slots)
			chunk_of(space, buf->slot)->taken |= slot_bit(buf->slot);
	}
}

/* The index is lost. */
static void start_empty(struct cache *cache)
{
	log_err("cache %s: the index %s is lost; all is fetched anew%s", cache->path,
		cache->index_path, cache->pinned.nr ? ", and nothing is pinned any more" : "");
	free_pinned(&cache->pinned);
	cache->pins_full = false;
	cache->index_damaged = false;
	cache->unchecked = false;
	cache->ready = false;
	cache->index_open = false;
	cache->forgot_all = false;
	cache->epoch++;
	cache->spans++;
	if (cache->forgetting && cache->forgetting->retry_us)
		free_forgetting(cache->forgetting);
	cache->forgetting = NULL;	/* one that runs sees the epoch */
	names_forget_all();
	drop_changes(&cache->changes);
	cache->commit_at_us = 0;
	cache->nr_to_forget = 0;
	cache->names = 0;
	cache->zeros = 0;
	clear_space(cache);
	start(cache, true);
}

/*
 * What was written since the last commit may be lost, and the kernel says so only once: the
 * next fdatasync() succeeds, and the device has something else.  So it is not kept.
 */
static void drop_not_durable(struct commit *commit)
{
	const struct changes *lists[] = { &commit->changes, &commit->cache->changes };
	struct cache *cache = commit->cache;
	unsigned int i, j;

	cache->errors++;
	cache->no_write_before_us = now_us() + RETRY_US;
	snprintf(cache->write_trouble, sizeof(cache->write_trouble), "%.150s", commit->err.msg);
	for (i = 0; i < 2; i++) {
		for (j = 0; j < lists[i]->nr_blocks; j++)
			commit_drop(cache, lists[i]->blocks[j].slot, true);
	}
	drop_void(cache, &commit->changes);
}

static void commit_failed(struct commit *commit)
{
	struct cache *cache = commit->cache;

	snprintf(cache->index_trouble, sizeof(cache->index_trouble), "%.240s", commit->err.msg);
	if (log_allowed(&cache->index_limit))
		log_err("cache %s: %s; trying again", cache->path, commit->err.msg);
	if (commit->not_durable)
		drop_not_durable(commit);
	commit->tries++;
	/* One that was made anew and is damaged again is tried after a pause, as others are. */
	if ((commit->ret == -EUCLEAN && !commit->remove) ||
	    (commit->ret == -EIO && commit->tries >= MAX_TRIES && !commit->open &&
	     !commit->not_durable)) {
		cache->commit = NULL;
		if (commit->open) {
			clear_space(cache);
			start_job(cache, true, true);
		} else {
			start_empty(cache);
		}
		free_commit(commit);
		return;
	}
	/* What was loaded of it so far. */
	if (commit->open)
		clear_space(cache);
	commit->retry_us = now_us() + RETRY_US;
}

/* It was found to be damaged; a commit that fails and waits does not count. */
static void give_up_index(struct cache *cache)
{
	struct commit *waiting = cache->commit;

	if (!cache->index_damaged || (waiting && !waiting->retry_us))
		return;
	cache->commit = NULL;
	start_empty(cache);
	if (waiting)
		free_commit(waiting);
}

/*
 * It reads all of the index, for as long as that takes, with a connection of its own:
 * nobody waits for it.
 */
static void check_run(struct job *job)
{
	struct check *check = (struct check *)job;
	struct cache *cache = check->cache;

	check->ret = -ECANCELED;
	pthread_rwlock_rdlock(&cache->index_lock);
	if (cache->index)
		check->ret = cache_index_check(cache->index, &check->err);
	pthread_rwlock_unlock(&cache->index_lock);
}

static void check_done(struct job *job)
{
	struct check *check = (struct check *)job;
	struct cache *cache = check->cache;

	if (check->epoch == cache->epoch && check->ret != -ECANCELED) {
		cache->unchecked = check->ret;
		cache->index_damaged = check->ret == -EUCLEAN;
		if (check->ret)
			log_err("cache %s: %s", cache->path, check->err.msg);
		else
			log_info("cache %s: the index is not damaged", cache->path);
		give_up_index(cache);
	}
	cache->check = NULL;
	free(check);
}

static void start_check(struct cache *cache)
{
	struct check *check = cache->check ? NULL : calloc(1, sizeof(*check));

	/* Without it the index is not closed as one to be trusted: another time. */
	cache->unchecked = true;
	if (!check)
		return;
	cache->check = check;
	check->job.run = check_run;
	check->job.done = check_done;
	check->cache = cache;
	check->epoch = cache->epoch;
	pool_submit(cache->check_pool, &check->job);
}

static void commit_done(struct job *job)
{
	struct commit *commit = (struct commit *)job;
	struct cache *cache = commit->cache;

	if (commit->ret) {
		commit_failed(commit);
		return;
	}
	cache->index_trouble[0] = '\0';
	cache->commit = NULL;
	if (commit->open) {
		cache->index_open = true;
		cache->names = commit->names;
		cache->zeros = commit->zeros;
		log_info("cache %s: %u blocks of %u are filled%s", cache->path,
			 cache->space.nr_filled, cache->space.nr_slots,
			 commit->trusted ? "" : "; each is compared before it is used");
		use_pins(cache, commit);
		now_ready(cache);
		probes_go_on(cache);
		if (!commit->trusted)
			start_check(cache);
	} else {
		use_pins(cache, commit);
		changes_written(commit);
		if (commit->synced)
			cache->nr_durable = cache->nr_commits;
		else if (commit->sync)
			snprintf(cache->index_trouble, sizeof(cache->index_trouble), "%.240s",
				 commit->err.msg);
	}
	free_commit(commit);
	give_up_index(cache);
	commit_evict(cache);
	cache_writes_go_on(cache);
}

/*
 * ---------------------------------------------------------------------------
 * Forgetting and evicting
 * ---------------------------------------------------------------------------
 */

static int by_sector(const void *a, const void *b)
{
	const struct qc2_range *x = a, *y = b;

	return (x->sector > y->sector) - (x->sector < y->sector);
}

static void add_range(struct forgetting *f, uint32_t slot, uint32_t nr)
{
	f->ranges[f->nr_ranges++] = (struct qc2_range){
		.sector = (uint64_t)slot * QC2_BLOCK_SECTORS,
		.nr_sectors = (uint64_t)nr * QC2_BLOCK_SECTORS,
	};
}

/* Sorted, without overlap. */
static void order_ranges(struct forgetting *f)
{
	unsigned int i, nr = 0;

	qsort(f->ranges, f->nr_ranges, sizeof(*f->ranges), by_sector);
	for (i = 0; i < f->nr_ranges; i++) {
		const struct qc2_range *r = &f->ranges[i];
		struct qc2_range *last = nr ? &f->ranges[nr - 1] : NULL;
		uint64_t end = r->sector + r->nr_sectors;

		if (last && r->sector <= last->sector + last->nr_sectors) {
			if (end > last->sector + last->nr_sectors)
				last->nr_sectors = end - last->sector;
			continue;
		}
		f->ranges[nr++] = *r;
	}
	f->nr_ranges = nr;
}

static void start_forgetting(struct cache *cache)
{
	struct forgetting *f;
	struct chunk *chunk;

	if (cache->forgetting || !cache->ready)
		return;
	if (!cache->nr_to_forget && !space_wants_cold(&cache->space))
		return;
	f = forgetting_new(cache);
	if (!f)
		return;			/* the next tick tries again */
	while (f->nr_chunks < MAX_FORGOTTEN && (chunk = space_next_cold(&cache->space))) {
		f->chunks[f->nr_chunks++] = chunk;
		add_range(f, first_slot(&cache->space, chunk), CHUNK_SLOTS);
	}
	while (f->nr_doomed < MAX_DOOMED && cache->nr_to_forget) {
		const struct doomed *doomed = &cache->to_forget[--cache->nr_to_forget];

		f->doomed[f->nr_doomed++] = *doomed;
		if (doomed->slots & (doomed->slots - 1))
			add_range(f, first_slot(&cache->space, doomed->chunk), CHUNK_SLOTS);
		else
			add_range(f, first_slot(&cache->space, doomed->chunk) +
				  __builtin_ctzll(doomed->slots), 1);
	}
	if (!f->nr_ranges) {
		free_forgetting(f);
		return;
	}
	order_ranges(f);
	cache->forgetting = f;
	submit_forget(f);
}

static void forget_run(struct job *job)
{
	struct forgetting *f = (struct forgetting *)job;

	f->ret = forget_store(0, f->ranges, f->nr_ranges, &f->err);
}

static void forget_done(struct job *job)
{
	struct forgetting *f = (struct forgetting *)job;
	struct cache *cache = f->cache;
	unsigned int i;

	if (f->epoch != cache->epoch) {
		free_forgetting(f);
		return;
	}
	if (f->ret) {
		if (log_allowed(&cache->forget_limit))
			log_err("cache %s: no room can be made, the kernel does not forget old blocks: %s",
				cache->device, f->err.msg);
		f->retry_us = now_us() + TICK_US;
		return;
	}
	cache->forgetting = NULL;
	if (f->all) {
		cache->forgot_all = true;
		now_ready(cache);
	}
	for (i = 0; i < f->nr_chunks; i++)
		space_set_cold(&cache->space, f->chunks[i]);
	for (i = 0; i < f->nr_doomed; i++) {
		if (!add_doomed(cache, &f->doomed[i]))
			forgot_to_doom(cache);
	}
	free_forgetting(f);
	commit_evict(cache);
}

static void forget_slots(struct cache *cache, struct chunk *chunk, uint64_t slots, bool bad)
{
	if (!grow(&cache->to_forget, cache->nr_to_forget, &cache->max_to_forget,
		  sizeof(*cache->to_forget))) {
		forgot_to_doom(cache);
		return;
	}
	cache->to_forget[cache->nr_to_forget++] = (struct doomed){
		.chunk = chunk, .slots = slots, .bad = bad,
	};
}

void commit_drop(struct cache *cache, uint32_t slot, bool bad)
{
	struct chunk *chunk = chunk_of(&cache->space, slot);

	if (!(chunk->filled & slot_bit(slot)))
		return;
	space_hide(&cache->space, slot);
	forget_slots(cache, chunk, slot_bit(slot), bad);
	start_forgetting(cache);
}

static bool any_beyond(const struct space *space, const struct doomed *doomed, unsigned int nr)
{
	while (nr--) {
		if (doomed[nr].chunk >= space->chunks + space->nr_chunks)
			return true;
	}
	return false;
}

/*
 * Whether anything still refers to what is behind the end of the cache.  What is evicted
 * before it does not count: under load there is always something.
 */
static bool has_rests(const struct cache *cache)
{
	const struct forgetting *f = cache->forgetting;
	const struct space *space = &cache->space;
	const struct cache_buf *buf;

	TAILQ_FOREACH(buf, &cache->writing, entry) {
		if (buf->slot >= space->nr_slots)
			return true;
	}
	return any_beyond(space, cache->to_forget, cache->nr_to_forget) ||
	       (f && any_beyond(space, f->doomed, f->nr_doomed)) ||
	       any_beyond(space, cache->changes.doomed, cache->changes.nr_doomed) ||
	       (cache->commit && any_beyond(space, cache->commit->changes.doomed,
					    cache->commit->changes.nr_doomed));
}

void commit_shrink(struct cache *cache)
{
	struct space *space = &cache->space;
	uint64_t filled;

	if (!cache->ready || !cache->shrinking)
		return;
	while (space->nr_slots > cache->target_slots && cache->nr_to_forget < MAX_FORGOTTEN &&
	       !space_cut(space, &filled)) {
		if (filled)
			forget_slots(cache, &space->chunks[space->nr_chunks], filled, false);
	}
	start_forgetting(cache);
	if (space->nr_slots > cache->target_slots || has_rests(cache))
		return;			/* the next tick goes on */
	cache_dev_trim(cache->fd, cache->path, (uint64_t)space->nr_slots * QC2_BLOCK_BYTES);
	cache->shrinking = false;
}

void commit_evict(struct cache *cache)
{
	struct chunk *chunk;
	unsigned int nr = 0;

	if (!cache->ready)
		return;
	start_forgetting(cache);
	while (nr < MAX_EVICTED && (chunk = space_next_victim(&cache->space))) {
		struct doomed doomed = { .chunk = chunk, .evicted = true };

		doomed.slots = space_evict(&cache->space, chunk);
		if (!doomed.slots)
			continue;
		if (!add_doomed(cache, &doomed)) {
			log_err("cache: out of memory");
			return;
		}
		nr++;
		cache->commit_at_us = now_us();
	}
	if (cache->commit_at_us && cache->commit_at_us <= now_us() && !cache->commit)
		start_job(cache, false, false);
}

/*
 * ---------------------------------------------------------------------------
 * Time
 * ---------------------------------------------------------------------------
 */

void commit_tick(struct cache *cache, uint64_t now)
{
	if (cache_is_absent(cache))
		return;
	if (cache->commit && cache->commit->retry_us && cache->commit->retry_us <= now)
		submit_commit(cache->commit);
	if (cache->forgetting && cache->forgetting->retry_us &&
	    cache->forgetting->retry_us <= now)
		submit_forget(cache->forgetting);
	give_up_index(cache);
	if (!cache->index_open && !cache->commit)
		start_job(cache, true, false);
	if (!cache->forgot_all && !cache->forgetting)
		forget_all(cache);
	if (cache->space.nr_bad && now >= cache->retry_bad_us) {
		if (cache->retry_bad_us)
			space_retry_bad(&cache->space);
		cache->retry_bad_us = now + BAD_AFTER_US;
	}
	commit_evict(cache);
}

uint64_t cache_sync(struct cache *cache)
{
	uint64_t next = cache->nr_commits + 1;

	cache->sync = true;
	cache->commit_at_us = now_us();
	commit_evict(cache);
	return next;
}

bool cache_is_durable(const struct cache *cache, uint64_t sync)
{
	return cache->nr_durable >= sync;
}

int commit_setup(struct cache *cache, struct qc2_err *err)
{
	int ret = pool_new(&cache->commit_pool, cache->event, 1);

	if (ret >= 0)
		ret = pool_new(&cache->forget_pool, cache->event, 1);
	if (ret >= 0)
		ret = pool_new(&cache->check_pool, cache->event, 1);
	if (ret < 0)
		return qc2_fail(err, -ret, "cache: %s", strerror(-ret));
	return 0;
}

void commit_start(struct cache *cache)
{
	start(cache, false);
}

/* What kernels were still to forget is damaged, perhaps: the index must not have it. */
static bool doom_hidden(struct cache *cache)
{
	const struct forgetting *f = cache->forgetting;
	bool ok = true;
	unsigned int i;

	for (i = 0; f && i < f->nr_doomed; i++)
		ok &= add_doomed(cache, &f->doomed[i]);
	for (i = 0; i < cache->nr_to_forget; i++)
		ok &= add_doomed(cache, &cache->to_forget[i]);
	return ok;
}

/* Writes all changes; false: not all. */
static bool write_last(struct cache *cache)
{
	struct commit *commit = cache->commit, last = { .cache = cache };

	/* One that had begun is over, its end was not looked at. */
	if (commit && commit->ret == -EINPROGRESS)
		commit_run(&commit->job);
	if ((commit && commit->ret) || !doom_hidden(cache))
		return false;
	drop_void(cache, &cache->changes);
	if (!cache->changes.nr_names && !cache->changes.nr_blocks &&
	    !cache->changes.nr_doomed && !cache->changes.nr_disowned && !cache->changes.nr_pins)
		return true;
	last.changes = cache->changes;
	commit_run(&last.job);
	free(last.gone);
	return !last.ret;
}

void commit_finish(struct cache *cache)
{
	pool_free(cache->forget_pool);
	pool_free(cache->commit_pool);
	if (cache->index)
		cache_index_stop(cache->index);
	pool_free(cache->check_pool);
	free(cache->check);
	/* What was not compared yet must not be trusted the next time, nor checked. */
	cache_index_close(cache->index, cache->index_open && write_last(cache) &&
			  !cache->space.nr_unverified && !cache->suspect &&
			  !cache->unchecked &&
			  !fdatasync(cache->fd));
	drop_changes(&cache->changes);
	if (cache->commit)
		free_commit(cache->commit);
	if (cache->forgetting)
		free_forgetting(cache->forgetting);
	free_pinned(&cache->pinned);
	free(cache->to_forget);
}
