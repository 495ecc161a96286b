/* SPDX-License-Identifier: GPL-2.0 */
/* What the files of the cache share; see cache.h.  For cache*.c only. */
#ifndef CHAIND_CACHE_IMPL_H
#define CHAIND_CACHE_IMPL_H

#include <pthread.h>

#include "bypass.h"
#include "cache.h"
#include "log.h"

/* The first slot is that of the superblock. */
#define CACHE_SUPER_SLOT	0

TAILQ_HEAD(buf_list, cache_buf);

/* Slots of one chunk that are to be empty. */
struct doomed {
	struct chunk *chunk;
	uint64_t slots;
	bool bad;			/* they are not used again */
	bool evicted;			/* by space_evict() */
};

/* A name that the index does not have yet. */
struct new_name {
	struct object *obj;
	uint32_t block, slot;
	int64_t id;			/* of the object; 0: it has none yet */
};

/* An object that is to be pinned, or no more. */
struct new_pin {
	uint8_t key[32];
	char *url;
	bool pinned;
	void (*done)(void *arg, int ret);	/* with the last of those that go together */
	void *arg;
};

/* Changes that the index does not have yet. */
struct changes {
	struct new_pin *pins;
	unsigned int nr_pins, max_pins;

	struct index_block *blocks;
	struct new_name *names;
	struct doomed *doomed;
	struct object **disowned;
	unsigned int nr_blocks, nr_names, nr_doomed, nr_disowned;
	unsigned int max_blocks, max_names, max_doomed, max_disowned;
};

/* Keys of the objects that are pinned in the index, sorted. */
struct pinned_keys {
	uint8_t (*keys)[32];
	unsigned int nr, max;
};

struct check;
struct commit;
struct forgetting;
struct probe;

struct cache {
	struct cache_config cfg;	/* without its paths */
	char *path, *index_path;
	char *device;
	int fd;				/* -1: the cache is absent ... */
	bool trying;			/* ... its device is being tried ... */
	uint64_t try_at_us;		/* ... or is then */
	struct job try_job;
	int try_ret;
	struct qc2_err try_err;
	dev_t dev;
	uint64_t device_size;
	uint8_t id[QC2_CACHE_ID_LEN];
	struct bypass *bypass;
	sd_event *event;
	sd_event_source *tick;

	struct space space;
	bool shrinking;
	uint32_t target_slots;		/* ... to that many */
	uint32_t epoch;			/* it was emptied so often */
	uint32_t spans;			/* so often all spans became void */
	bool forgot_all;		/* kernels did, since the start */
	bool ready;			/* and the index is loaded: slots can be taken */
	uint64_t names, zeros;
	uint64_t hits, evictions, errors, damaged, scrubbed;
	struct log_limit write_limit, forget_limit, index_limit, damage_limit;

	void *mem;			/* of all buffers */
	size_t mem_size;
	struct cache_buf *bufs;
	struct cache_buf **free_bufs;	/* stack */
	unsigned int nr_bufs, nr_free_bufs;
	struct buf_list waiting;	/* for a slot */
	struct buf_list writing;	/* oldest first */
	struct pool *write_pool;
	uint64_t no_write_before_us;	/* the device failed, or hangs */
	uint64_t no_wait_before_us;	/* there was no slot for too long */
	uint64_t empty_bypass_us;
	char write_trouble[256];

	/* Jobs use the index under a read lock, and set it under a write lock. */
	struct cache_index *index;
	pthread_rwlock_t index_lock;
	bool index_open;		/* the main thread's view of it */
	char index_trouble[256];
	bool suspect;			/* the index has slots that it should not have */
	struct changes changes;
	struct commit *commit;		/* running; NULL: none */
	uint64_t commit_at_us;		/* 0: there is nothing to do */
	bool sync;			/* the next commit is to be synced */
	uint64_t nr_commits, nr_durable;	/* that were begun; that are, up to which */
	struct pool *commit_pool;

	struct pinned_keys pinned;
	bool read_pins;			/* the next commit reads which slots are pinned */
	bool pins_full;

	struct pool *check_pool;
	bool unchecked;			/* the index was not closed in order; it is checked */
	struct check *check;		/* running; NULL: none */
	bool index_damaged;		/* it is given up when no commit runs */

	struct forgetting *forgetting;	/* running; NULL: none */
	uint64_t retry_bad_us;
	struct doomed *to_forget;	/* slots that kernels may know */
	unsigned int nr_to_forget, max_to_forget;
	struct pool *forget_pool;

	TAILQ_HEAD(, probe) probes;
	unsigned int abandoned;		/* probes that hang */
	struct pool *probe_pool;
	uint32_t scrub_at;
	bool scrubbing;
};

/* cache.c */
void cache_writes_go_on(struct cache *cache);
bool cache_is_absent(const struct cache *cache);
bool cache_slot_ok(const struct cache *cache, uint32_t slot);

/* cache_commit.c */
int commit_setup(struct cache *cache, struct qc2_err *err);
/* The device is there. */
void commit_start(struct cache *cache);
void commit_tick(struct cache *cache, uint64_t now);
/* At the end of the program, without threads. */
void commit_finish(struct cache *cache);
/* Changes: a block was written; a block of an object has a slot; slots are not used any more. */
bool commit_block(struct cache *cache, uint32_t slot, const uint8_t *digest);
bool commit_name(struct cache *cache, struct object *obj, uint32_t block, uint32_t slot);
void commit_drop(struct cache *cache, uint32_t slot, bool bad);
/* There is another limit of what is pinned. */
void commit_pins_again(struct cache *cache);
/* Goes on with making the cache smaller. */
void commit_shrink(struct cache *cache);
/* Too much is not written yet. */
bool commit_is_behind(const struct cache *cache);
/* Makes room if there is need. */
void commit_evict(struct cache *cache);

/* cache_probe.c */
int probe_setup(struct cache *cache, struct qc2_err *err);
/* The index is there. */
void probes_go_on(struct cache *cache);
void probe_tick(struct cache *cache, uint64_t now);

#endif
