/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The space of the cache: slots of one block each, in chunks of 64, and which of them are
 * used again next.  Pure logic; main thread only.
 *
 * Whether a block is used by a kernel is not seen here, as kernels read the cache on their
 * own.  So a chunk that is due becomes cold first: kernels are made to forget it, its
 * blocks stay, and are hidden: kernels are told of one only after a read asked for it.
 * When its turn comes, what was asked for stays and the rest is evicted.  So nothing that
 * is evicted is known to a kernel.
 *
 *	open      is being filled, one chunk for each class
 *	ahead     what was fetched ahead; half of it asked for makes it used
 *	used      what reads asked for; asked for once more, it goes round once more
 *	forgetting  kernels are being told
 *	cold      see above
 *	evicting  what was not asked for is being removed from the index
 *	free      has free slots, perhaps beside used ones
 *	bad       has hardly any slot that can be used; until those are tried again
 *	pinned    has hardly any slot that is not pinned; until that changes
 *
 * What was fetched ahead and never asked for takes a quarter of the cache at most before
 * it is evicted in preference to what was.
 *
 * Pinned slots are not evicted.  Half of all are pinned at most, so there are always others:
 * a chunk with 57 or more of them is left alone, and those are 57 % of the cache at most.
 */
#ifndef CHAIND_CACHE_SPACE_H
#define CHAIND_CACHE_SPACE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#define CHUNK_SLOTS	64U
/* 64 TiB of blocks */
#define SPACE_MAX_SLOTS	(1U << 30)

enum chunk_state {
	CHUNK_FREE,
	CHUNK_AHEAD,
	CHUNK_USED,
	CHUNK_COLD,
	CHUNK_BAD,
	CHUNK_PINNED,
	CHUNK_LISTS,		/* those above are in a list */
	CHUNK_OPEN = CHUNK_LISTS,
	CHUNK_FORGETTING,
	CHUNK_EVICTING,
	CHUNK_GONE,		/* the cache was made smaller */
};

enum space_class { SPACE_USED, SPACE_AHEAD, SPACE_CLASSES };

/* A bit for each slot. */
struct chunk {
	uint64_t taken;		/* filled, reserved, being written, or bad */
	uint64_t filled;	/* a block is there and may be found */
	uint64_t marked;	/* see cache_is_marked() */
	uint64_t asked;		/* by a read; since it is cold, if it is */
	uint64_t unverified;	/* filled, but not to be trusted before it was compared */
	uint64_t pinned;	/* filled, and stays */
	uint64_t bad;		/* cannot be written or read; taken */
	uint32_t freed;		/* space.clock when slots that were filled were freed */
	uint8_t state;
	bool again;		/* one that was asked for was asked for again */
	TAILQ_ENTRY(chunk) entry;
};
TAILQ_HEAD(chunk_list, chunk);

struct space {
	uint32_t nr_slots;		/* whole chunks */
	uint32_t nr_chunks;
	struct chunk *chunks;		/* stays where it is when there are more */
	struct chunk_list lists[CHUNK_LISTS];
	uint32_t nr[CHUNK_LISTS];	/* chunks in each */
	uint32_t nr_forgetting, nr_evicting;
	struct chunk *open[SPACE_CLASSES];
	uint32_t clock;
	uint32_t nr_filled, nr_bad, nr_unverified, nr_pinned;
};

/* Slots next to each other for the blocks of one fetch.  Zero to begin with. */
struct cache_span {
	uint32_t slot, end;
	uint32_t epoch;		/* cache->spans; another one: void */
};

/* Return: 0 or -ENOMEM.  No slot can be had before space_start(). */
int space_init(struct space *space, uint32_t nr_slots);
void space_free(struct space *space);

/* Adds free chunks up to that many slots.  Return: 0 or -ENOMEM. */
int space_grow(struct space *space, uint32_t nr_slots);
/*
 * Takes the last chunk away.  Its filled slots, which are returned, are not found any
 * more.  -EBUSY while it is forgetting or evicting.
 */
int space_cut(struct space *space, uint64_t *filled);

/* As after space_init(), with that clock; all slots were freed just then. */
void space_clear(struct space *space, uint32_t nr_slots, uint32_t clock);

/* A slot is filled, before space_start(). */
void space_load(struct space *space, uint32_t slot, bool unverified);
/* What was not loaded is free. */
void space_start(struct space *space);

static inline struct chunk *chunk_of(const struct space *space, uint32_t slot)
{
	return &space->chunks[slot / CHUNK_SLOTS];
}

static inline uint64_t slot_bit(uint32_t slot)
{
	return 1ULL << slot % CHUNK_SLOTS;
}

static inline uint32_t first_slot(const struct space *space, const struct chunk *chunk)
{
	return (chunk - space->chunks) * CHUNK_SLOTS;
}

/* Takes up to @want slots in a row.  Return: how many; 0: none is free. */
unsigned int space_take(struct space *space, enum space_class class, unsigned int want,
			uint32_t *slot);
/* A slot that was taken: is filled, was not used after all, or is bad. */
void space_fill(struct space *space, uint32_t slot, bool marked);
void space_give_back(struct space *space, uint32_t slot);
/* Slots that were hidden: the index does not have them any more. */
void space_release(struct space *space, struct chunk *chunk, uint64_t slots);
void space_set_bad(struct space *space, uint32_t slot);
/* So are all free slots of its chunk. */
void space_set_chunk_bad(struct space *space, uint32_t slot);
/* Bad ones are tried again. */
void space_retry_bad(struct space *space);

/* A read asks for it. */
void space_ask(struct space *space, uint32_t slot);

/* A filled slot stays.  Return: false if half of all slots are pinned already. */
bool space_pin(struct space *space, uint32_t slot);
/* Slots of a chunk that are pinned no more. */
void space_unpin(struct space *space, struct chunk *chunk, uint64_t slots);
/* No slot is pinned any more. */
void space_unpin_all(struct space *space);

/* Whether kernels are not to be told of it before a read asks for it. */
static inline bool space_is_hidden(const struct space *space, uint32_t slot)
{
	const struct chunk *chunk = chunk_of(space, slot);

	return chunk->marked & slot_bit(slot) ||
	       ((chunk->state == CHUNK_COLD || chunk->state == CHUNK_FORGETTING) &&
		!(chunk->asked & slot_bit(slot)));
}

/* Whether chunks should become cold. */
bool space_wants_cold(const struct space *space);

/**
 * space_next_cold() - the chunk to become cold next, which is forgetting then
 *
 * Return: NULL if there is no need, or none.
 */
struct chunk *space_next_cold(struct space *space);
void space_set_cold(struct space *space, struct chunk *chunk);

/* The cold chunk to be evicted from next, or NULL if there is no need, or none. */
struct chunk *space_next_victim(struct space *space);

/**
 * space_evict() - begin to evict from a chunk
 *
 * What was asked for or is pinned stays.
 *
 * Return: slots to be removed from the index, which are not filled any more; 0: too few to
 * be worth it, the chunk is used again.  Else space_evicted() has to follow.
 */
uint64_t space_evict(struct space *space, struct chunk *chunk);
void space_evicted(struct space *space, struct chunk *chunk, uint64_t slots);

/* A filled slot is not to be found any more; it stays taken. */
void space_hide(struct space *space, uint32_t slot);

/* Is in need of free slots: eviction should go on. */
bool space_is_short(const struct space *space);

#endif
