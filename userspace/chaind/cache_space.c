/* SPDX-License-Identifier: GPL-2.0 */
/* Chunks and the order in which they are used again.  Pure logic; main thread only. */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "cache_space.h"

#define MAP_BYTES	((size_t)SPACE_MAX_SLOTS / CHUNK_SLOTS * sizeof(struct chunk))

/* Free and cold chunks there should be, of all. */
#define FREE_SHARE	64
#define COLD_SHARE	16
#define MIN_FREE	3
/* What was fetched ahead and not asked for goes first beyond this share. */
#define AHEAD_SHARE	4
/* Evicting less than this from a chunk is not worth it. */
#define MIN_EVICTED	(CHUNK_SLOTS / 8)

static unsigned int count(uint64_t mask)
{
	return __builtin_popcountll(mask);
}

static void push(struct space *space, struct chunk *chunk, enum chunk_state state)
{
	chunk->state = state;
	TAILQ_INSERT_TAIL(&space->lists[state], chunk, entry);
	space->nr[state]++;
}

static void pull(struct space *space, struct chunk *chunk)
{
	TAILQ_REMOVE(&space->lists[chunk->state], chunk, entry);
	space->nr[chunk->state]--;
}

static void move(struct space *space, struct chunk *chunk, enum chunk_state state)
{
	pull(space, chunk);
	push(space, chunk, state);
}

static uint32_t min_free(const struct space *space)
{
	uint32_t nr = space->nr_chunks / FREE_SHARE;

	return nr < MIN_FREE ? MIN_FREE : nr;
}

/*
 * Making kernels forget a chunk without anything to gain would go on for ever: where it is
 * then, or @state.
 */
static enum chunk_state place_of(const struct chunk *chunk, enum chunk_state state)
{
	if (count(~chunk->bad) < MIN_EVICTED)
		return CHUNK_BAD;
	return count(~(chunk->bad | chunk->pinned)) < MIN_EVICTED ? CHUNK_PINNED : state;
}

static void retire(struct space *space, struct chunk *chunk, enum chunk_state state)
{
	push(space, chunk, place_of(chunk, state));
}

void space_unpin(struct space *space, struct chunk *chunk, uint64_t slots)
{
	space->nr_pinned -= count(chunk->pinned & slots);
	chunk->pinned &= ~slots;
	if (chunk->state == CHUNK_PINNED && place_of(chunk, CHUNK_USED) == CHUNK_USED)
		move(space, chunk, CHUNK_USED);
}

bool space_pin(struct space *space, uint32_t slot)
{
	struct chunk *chunk = chunk_of(space, slot);
	uint64_t bit = slot_bit(slot) & chunk->filled & ~chunk->pinned;

	if (!bit)
		return true;
	if (space->nr_pinned >= space->nr_slots / 2)
		return false;
	chunk->pinned |= bit;
	space->nr_pinned++;
	return true;
}

void space_unpin_all(struct space *space)
{
	struct chunk *chunk;

	for (chunk = space->chunks; chunk < space->chunks + space->nr_chunks; chunk++)
		space_unpin(space, chunk, UINT64_MAX);
}

/* Reserved slots are few; a chunk that is full of others can be given back to a list. */
static void close_open(struct space *space, enum space_class class)
{
	struct chunk *chunk = space->open[class];

	space->open[class] = NULL;
	retire(space, chunk, class == SPACE_AHEAD ? CHUNK_AHEAD : CHUNK_USED);
}

/* The memory is used as far as there are chunks. */
static int use_chunks(struct space *space, uint32_t nr)
{
	if (mprotect(space->chunks, nr * sizeof(*space->chunks), PROT_READ | PROT_WRITE))
		return -ENOMEM;
	space->nr_chunks = nr;
	space->nr_slots = nr * CHUNK_SLOTS;
	return 0;
}

int space_init(struct space *space, uint32_t nr_slots)
{
	memset(space, 0, sizeof(*space));
	space->chunks = mmap(NULL, MAP_BYTES, PROT_NONE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (space->chunks == MAP_FAILED) {
		space->chunks = NULL;
		return -ENOMEM;
	}
	if (use_chunks(space, nr_slots / CHUNK_SLOTS))
		return -ENOMEM;
	space_clear(space, nr_slots, 0);
	return 0;
}

void space_clear(struct space *space, uint32_t nr_slots, uint32_t clock)
{
	struct chunk *chunks = space->chunks;
	uint32_t i;

	for (i = 0; i < nr_slots / CHUNK_SLOTS; i++)
		chunks[i] = (struct chunk){ .freed = clock };
	*space = (struct space){
		.chunks = chunks,
		.nr_chunks = nr_slots / CHUNK_SLOTS,
		.nr_slots = nr_slots / CHUNK_SLOTS * CHUNK_SLOTS,
		.clock = clock,
	};
	for (i = 0; i < CHUNK_LISTS; i++)
		TAILQ_INIT(&space->lists[i]);
}

int space_grow(struct space *space, uint32_t nr_slots)
{
	uint32_t i = space->nr_chunks;
	int ret = use_chunks(space, nr_slots / CHUNK_SLOTS);

	for (; !ret && i < space->nr_chunks; i++) {
		space->chunks[i] = (struct chunk){ .freed = ++space->clock };
		push(space, &space->chunks[i], CHUNK_FREE);
	}
	return ret;
}

void space_free(struct space *space)
{
	if (space->chunks)
		munmap(space->chunks, MAP_BYTES);
	space->chunks = NULL;
}

void space_load(struct space *space, uint32_t slot, bool unverified)
{
	struct chunk *chunk = chunk_of(space, slot);

	chunk->taken |= slot_bit(slot);
	chunk->filled |= slot_bit(slot);
	space->nr_filled++;
	if (unverified) {
		chunk->unverified |= slot_bit(slot);
		space->nr_unverified++;
	}
}

void space_start(struct space *space)
{
	struct chunk *chunk;

	for (chunk = space->chunks; chunk < space->chunks + space->nr_chunks; chunk++) {
		chunk->freed = space->clock;
		push(space, chunk, chunk->taken == UINT64_MAX ? CHUNK_USED : CHUNK_FREE);
	}
}

/* The longest of the first rows of free slots that has @want, or the longest one. */
static unsigned int find_row(const struct chunk *chunk, unsigned int want, unsigned int *at)
{
	unsigned int best = 0, i = 0;

	while (i < CHUNK_SLOTS && best < want) {
		unsigned int start = i;

		while (i < CHUNK_SLOTS && !(chunk->taken & 1ULL << i))
			i++;
		if (i - start > best) {
			best = i - start;
			*at = start;
		}
		i += i == start;
	}
	return best < want ? best : want;
}

unsigned int space_take(struct space *space, enum space_class class, unsigned int want,
			uint32_t *slot)
{
	unsigned int nr, at = 0;
	struct chunk *chunk;

	if (want > CHUNK_SLOTS)
		want = CHUNK_SLOTS;
	for (;;) {
		if (space->open[class] && space->open[class]->taken == UINT64_MAX)
			close_open(space, class);
		if (space->open[class])
			break;
		chunk = TAILQ_FIRST(&space->lists[CHUNK_FREE]);
		if (!chunk)
			return 0;
		pull(space, chunk);
		chunk->state = CHUNK_OPEN;
		chunk->again = false;
		space->open[class] = chunk;
	}
	chunk = space->open[class];
	nr = find_row(chunk, want, &at);
	*slot = first_slot(space, chunk) + at;
	chunk->taken |= (nr == CHUNK_SLOTS ? UINT64_MAX : (1ULL << nr) - 1) << at;
	return nr;
}

void space_fill(struct space *space, uint32_t slot, bool marked)
{
	struct chunk *chunk = chunk_of(space, slot);
	uint64_t bit = slot_bit(slot);

	chunk->filled |= bit;
	chunk->asked &= ~bit;
	chunk->marked = marked ? chunk->marked | bit : chunk->marked & ~bit;
	space->nr_filled++;
}

/* Free slots of a chunk that is neither open nor free are found when its turn comes. */
void space_give_back(struct space *space, uint32_t slot)
{
	struct chunk *chunk = chunk_of(space, slot);

	chunk->taken &= ~slot_bit(slot);
}

void space_release(struct space *space, struct chunk *chunk, uint64_t slots)
{
	chunk->taken &= ~slots;
	chunk->freed = ++space->clock;
}

void space_set_bad(struct space *space, uint32_t slot)
{
	struct chunk *chunk = chunk_of(space, slot);

	if (!(chunk->bad & slot_bit(slot)))
		space->nr_bad++;
	chunk->bad |= slot_bit(slot);
	chunk->taken |= slot_bit(slot);
}

void space_set_chunk_bad(struct space *space, uint32_t slot)
{
	uint32_t first = slot - slot % CHUNK_SLOTS, i;

	for (i = first; i < first + CHUNK_SLOTS; i++) {
		if (!(chunk_of(space, i)->taken & slot_bit(i)))
			space_set_bad(space, i);
	}
}

void space_retry_bad(struct space *space)
{
	struct chunk *chunk;

	for (chunk = space->chunks; chunk < space->chunks + space->nr_chunks; chunk++) {
		if (!chunk->bad)
			continue;
		chunk->taken &= ~chunk->bad;
		chunk->bad = 0;
		chunk->freed = ++space->clock;
		if (chunk->state == CHUNK_BAD || chunk->state == CHUNK_PINNED)
			move(space, chunk, CHUNK_FREE);
	}
	space->nr_bad = 0;
}

void space_ask(struct space *space, uint32_t slot)
{
	struct chunk *chunk = chunk_of(space, slot);
	uint64_t bit = slot_bit(slot);

	chunk->again |= chunk->asked & bit;
	chunk->asked |= bit;
	if (chunk->state == CHUNK_AHEAD && 2 * count(chunk->asked) >= count(chunk->filled))
		move(space, chunk, CHUNK_USED);
}

void space_hide(struct space *space, uint32_t slot)
{
	struct chunk *chunk = chunk_of(space, slot);
	uint64_t bit = slot_bit(slot);

	if (!(chunk->filled & bit))
		return;
	space->nr_filled--;
	if (chunk->unverified & bit)
		space->nr_unverified--;
	chunk->filled &= ~bit;
	chunk->unverified &= ~bit;
	chunk->marked &= ~bit;
	chunk->asked &= ~bit;
	space_unpin(space, chunk, bit);
}

bool space_is_short(const struct space *space)
{
	return space->nr[CHUNK_FREE] + space->nr_evicting < min_free(space);
}

/* Those asked for again go round; each once, or this would not end. */
static struct chunk *oldest_used(struct space *space)
{
	uint32_t left = space->nr[CHUNK_USED];
	struct chunk *chunk;

	while ((chunk = TAILQ_FIRST(&space->lists[CHUNK_USED])) && chunk->again && left--) {
		chunk->again = false;
		move(space, chunk, CHUNK_USED);
	}
	return chunk;
}

bool space_wants_cold(const struct space *space)
{
	uint32_t want = min_free(space) + space->nr_chunks / COLD_SHARE;

	return space->nr[CHUNK_USED] + space->nr[CHUNK_AHEAD] &&
	       space->nr[CHUNK_FREE] + space->nr[CHUNK_COLD] + space->nr_forgetting +
	       space->nr_evicting < want;
}

static struct chunk *oldest(struct space *space)
{
	struct chunk *chunk = NULL;

	if (space->nr[CHUNK_AHEAD] > space->nr_chunks / AHEAD_SHARE)
		chunk = TAILQ_FIRST(&space->lists[CHUNK_AHEAD]);
	if (!chunk)
		chunk = oldest_used(space);
	return chunk ? chunk : TAILQ_FIRST(&space->lists[CHUNK_AHEAD]);
}

struct chunk *space_next_cold(struct space *space)
{
	struct chunk *chunk;

	while (space_wants_cold(space)) {
		chunk = oldest(space);
		pull(space, chunk);
		if (place_of(chunk, CHUNK_USED) != CHUNK_USED) {
			retire(space, chunk, CHUNK_USED);
			continue;
		}
		chunk->state = CHUNK_FORGETTING;
		chunk->asked = 0;
		space->nr_forgetting++;
		return chunk;
	}
	return NULL;
}

void space_set_cold(struct space *space, struct chunk *chunk)
{
	space->nr_forgetting--;
	push(space, chunk, CHUNK_COLD);
}

struct chunk *space_next_victim(struct space *space)
{
	return space_is_short(space) ? TAILQ_FIRST(&space->lists[CHUNK_COLD]) : NULL;
}

uint64_t space_evict(struct space *space, struct chunk *chunk)
{
	uint64_t gone = chunk->filled & ~chunk->asked & ~chunk->pinned;

	pull(space, chunk);
	/* What is neither filled nor being written can be used at once. */
	if (count(gone) + count(~chunk->taken) < MIN_EVICTED) {
		retire(space, chunk, CHUNK_USED);
		return 0;
	}
	if (!gone) {
		push(space, chunk, CHUNK_FREE);
		return 0;
	}
	chunk->state = CHUNK_EVICTING;
	space->nr_evicting++;
	space->nr_filled -= count(gone);
	space->nr_unverified -= count(gone & chunk->unverified);
	chunk->filled &= ~gone;
	chunk->unverified &= ~gone;
	chunk->marked &= ~gone;
	return gone;
}

void space_evicted(struct space *space, struct chunk *chunk, uint64_t slots)
{
	space_release(space, chunk, slots);
	space->nr_evicting--;
	push(space, chunk, CHUNK_FREE);
}

int space_cut(struct space *space, uint64_t *filled)
{
	struct chunk *chunk = &space->chunks[space->nr_chunks - 1];
	unsigned int class;

	if (chunk->state == CHUNK_FORGETTING || chunk->state == CHUNK_EVICTING)
		return -EBUSY;
	if (chunk->state < CHUNK_LISTS)
		pull(space, chunk);
	for (class = 0; class < SPACE_CLASSES; class++)
		if (space->open[class] == chunk)
			space->open[class] = NULL;
	*filled = chunk->filled;
	space->nr_filled -= count(chunk->filled);
	space->nr_unverified -= count(chunk->unverified);
	space->nr_bad -= count(chunk->bad);
	space->nr_pinned -= count(chunk->pinned);
	*chunk = (struct chunk){ .state = CHUNK_GONE, .taken = UINT64_MAX };
	space->nr_chunks--;
	space->nr_slots -= CHUNK_SLOTS;
	return 0;
}
