/* SPDX-License-Identifier: GPL-2.0 */
/* The space of the cache: what is handed out, what becomes cold, what is evicted. */
#include <errno.h>

#include "../../userspace/chaind/cache_space.h"
#include "testing.h"

#define SMALL	(16 * CHUNK_SLOTS)
#define ALL	UINT64_MAX

static struct space space;

static unsigned int count(uint64_t mask)
{
	return __builtin_popcountll(mask);
}

static int start(void **state)
{
	assert_int_equal(space_init(&space, SMALL), 0);
	space_start(&space);
	return 0;
}

static int stop(void **state)
{
	space_free(&space);
	return 0;
}

/* Masks, lists and counters agree with each other. */
static void check(void)
{
	uint32_t nr[CHUNK_GONE + 1] = { 0 }, filled = 0, bad = 0, unverified = 0, pinned = 0, i;
	const struct chunk *chunk;
	enum chunk_state state;
	enum space_class class;

	for (i = 0; i < space.nr_chunks; i++) {
		chunk = &space.chunks[i];
		assert_false(chunk->filled & ~chunk->taken);
		assert_false(chunk->bad & ~chunk->taken);
		assert_false(chunk->bad & chunk->filled);
		assert_false(chunk->unverified & ~chunk->filled);
		assert_false(chunk->marked & ~chunk->filled);
		assert_false(chunk->asked & ~chunk->filled);
		assert_false(chunk->pinned & ~chunk->filled);
		assert_true(chunk->state < CHUNK_GONE);
		assert_true((int32_t)(chunk->freed - space.clock) <= 0);
		nr[chunk->state]++;
		filled += count(chunk->filled);
		bad += count(chunk->bad);
		unverified += count(chunk->unverified);
		pinned += count(chunk->pinned);
	}
	assert_int_equal(space.nr_slots, space.nr_chunks * CHUNK_SLOTS);
	assert_int_equal(space.nr_filled, filled);
	assert_int_equal(space.nr_bad, bad);
	assert_int_equal(space.nr_unverified, unverified);
	assert_int_equal(space.nr_pinned, pinned);
	for (state = 0; state < CHUNK_LISTS; state++) {
		i = 0;
		TAILQ_FOREACH(chunk, &space.lists[state], entry) {
			assert_true(chunk < space.chunks + space.nr_chunks);
			assert_int_equal(chunk->state, state);
			i++;
		}
		assert_int_equal(i, nr[state]);
		assert_int_equal(space.nr[state], nr[state]);
	}
	assert_int_equal(space.nr_forgetting, nr[CHUNK_FORGETTING]);
	assert_int_equal(space.nr_evicting, nr[CHUNK_EVICTING]);
	i = 0;
	for (class = 0; class < SPACE_CLASSES; class++) {
		if (!space.open[class])
			continue;
		assert_int_equal(space.open[class]->state, CHUNK_OPEN);
		i++;
	}
	assert_int_equal(i, nr[CHUNK_OPEN]);
}

static uint32_t take(enum space_class class, unsigned int want, unsigned int expected)
{
	uint32_t slot = UINT32_MAX;

	assert_int_equal(space_take(&space, class, want, &slot), expected);
	check();
	return slot;
}

/* A chunk full of blocks, from an empty one. */
static struct chunk *fill_chunk(enum space_class class)
{
	uint32_t first = take(class, CHUNK_SLOTS, CHUNK_SLOTS), i;

	assert_int_equal(first % CHUNK_SLOTS, 0);
	for (i = 0; i < CHUNK_SLOTS; i++)
		space_fill(&space, first + i, false);
	return chunk_of(&space, first);
}

/* The one that is being filled is full, and the next one begins. */
static void close_chunk(enum space_class class)
{
	space_give_back(&space, take(class, 1, 1));
}

static void ask(const struct chunk *chunk, uint64_t slots)
{
	unsigned int i;

	for (i = 0; i < CHUNK_SLOTS; i++) {
		if (slots & 1ULL << i)
			space_ask(&space, first_slot(&space, chunk) + i);
	}
}

static void test_nothing_before_start(void **state)
{
	uint32_t slot;

	assert_int_equal(space_init(&space, SMALL), 0);
	assert_int_equal(space_take(&space, SPACE_USED, 1, &slot), 0);
	space_free(&space);
}

static void test_rows(void **state)
{
	uint32_t a = take(SPACE_USED, 10, 10), b = take(SPACE_USED, 10, 10), i;

	assert_int_equal(b, a + 10);
	/* Of another class: from another chunk. */
	i = take(SPACE_AHEAD, 10, 10);
	assert_ptr_not_equal(chunk_of(&space, i), chunk_of(&space, a));
	/* Holes are used: the first row that is long enough ... */
	space_give_back(&space, a + 1);
	for (i = 4; i < 9; i++)
		space_give_back(&space, a + i);
	assert_int_equal(take(SPACE_USED, 3, 3), a + 4);
	assert_int_equal(take(SPACE_USED, 1, 1), a + 1);
	/* ... or the longest. */
	assert_int_equal(take(SPACE_USED, CHUNK_SLOTS, CHUNK_SLOTS - 20), b + 10);
	assert_int_equal(take(SPACE_USED, 5, 2), a + 7);
	/* More than a chunk has. */
	assert_int_equal(take(SPACE_USED, 1000, CHUNK_SLOTS) % CHUNK_SLOTS, 0);
}

static void test_full(void **state)
{
	unsigned int i;

	for (i = 0; i < SMALL / CHUNK_SLOTS; i++)
		fill_chunk(SPACE_USED);
	take(SPACE_USED, 1, 0);
	take(SPACE_AHEAD, 1, 0);
	assert_int_equal(space.nr_filled, SMALL);
	assert_true(space_is_short(&space));
	assert_true(space_wants_cold(&space));
}

static void test_load(void **state)
{
	uint32_t slot, i;

	assert_int_equal(space_init(&space, SMALL), 0);
	for (i = 0; i < CHUNK_SLOTS; i++)
		space_load(&space, i, i % 2);
	space_load(&space, CHUNK_SLOTS + 3, true);
	space_start(&space);
	check();
	assert_int_equal(space.chunks[0].state, CHUNK_USED);
	assert_int_equal(space.chunks[1].state, CHUNK_FREE);
	assert_int_equal(space.nr_filled, CHUNK_SLOTS + 1);
	assert_int_equal(space.nr_unverified, CHUNK_SLOTS / 2 + 1);
	/* What is filled is not handed out. */
	assert_int_equal(space_take(&space, SPACE_USED, CHUNK_SLOTS, &slot), CHUNK_SLOTS - 4);
	assert_int_equal(slot, CHUNK_SLOTS + 4);
	space_hide(&space, 1);
	space_hide(&space, 1);
	check();
	assert_int_equal(space.nr_filled, CHUNK_SLOTS);
	assert_int_equal(space.nr_unverified, CHUNK_SLOTS / 2);
	/* Emptied: all slots count as freed. */
	i = space.clock;
	space_clear(&space, space.nr_slots, i + 1);
	assert_int_equal(space.chunks[3].freed, i + 1);
	assert_int_equal(space.nr_filled + space.nr_unverified, 0);
	assert_int_equal(space_take(&space, SPACE_USED, 1, &slot), 0);
	space_start(&space);
	check();
	space_free(&space);
}

/* What was filled first is evicted first, but for what was asked for again. */
static void test_order(void **state)
{
	struct chunk *chunks[12];
	unsigned int i;

	for (i = 0; i < 12; i++)
		chunks[i] = fill_chunk(SPACE_USED);
	/* Once is what a block is fetched for. */
	ask(chunks[0], 1);
	ask(chunks[1], 3);
	ask(chunks[1], 2);
	close_chunk(SPACE_USED);
	assert_int_equal(space.nr[CHUNK_FREE], 3);
	/* The small one has 3 to be free, and one more cold. */
	assert_ptr_equal(space_next_cold(&space), chunks[0]);
	assert_null(space_next_cold(&space));
	check();
	assert_int_equal(chunks[0]->state, CHUNK_FORGETTING);
	assert_int_equal(chunks[0]->asked, 0);
	space_set_cold(&space, chunks[0]);
	check();
	assert_null(space_next_victim(&space));		/* there are enough */
	fill_chunk(SPACE_AHEAD);
	assert_true(space_is_short(&space));
	/* chunks[1] goes round once more, once. */
	assert_ptr_equal(space_next_cold(&space), chunks[2]);
	assert_false(chunks[1]->again);
	assert_ptr_equal(space_next_victim(&space), chunks[0]);
	assert_int_equal(space_evict(&space, chunks[0]), ALL);
	check();
	assert_false(space_is_short(&space));
	assert_null(space_next_victim(&space));
	i = space.clock;
	space_evicted(&space, chunks[0], ALL);
	check();
	assert_true((int32_t)(chunks[0]->freed - i) > 0);
	assert_int_equal(chunks[0]->state, CHUNK_FREE);
}

static void test_all_again(void **state)
{
	unsigned int i;

	for (i = 0; i < 16; i++) {
		struct chunk *chunk = fill_chunk(SPACE_USED);

		ask(chunk, 1);
		ask(chunk, 1);
	}
	assert_int_equal(take(SPACE_USED, 1, 0), UINT32_MAX);
	/* Nevertheless room is made. */
	assert_non_null(space_next_cold(&space));
	check();
}

/* What reads ask for while it is cold stays; no other block of it is shown to kernels. */
static void test_second_chance(void **state)
{
	struct chunk *chunk = fill_chunk(SPACE_USED);
	uint32_t first = first_slot(&space, chunk);
	uint64_t asked = 0xf0f0;
	unsigned int i;

	for (i = 0; i < 15; i++)
		fill_chunk(SPACE_USED);
	take(SPACE_USED, 1, 0);
	assert_false(space_is_hidden(&space, first));
	assert_ptr_equal(space_next_cold(&space), chunk);
	assert_true(space_is_hidden(&space, first + 4));
	ask(chunk, 0xf0);			/* while kernels forget */
	space_set_cold(&space, chunk);
	ask(chunk, 0xf000);
	assert_false(space_is_hidden(&space, first + 4));
	assert_false(space_is_hidden(&space, first + 12));
	assert_true(space_is_hidden(&space, first));
	assert_ptr_equal(space_next_victim(&space), chunk);
	assert_true(space_pin(&space, first_slot(&space, chunk)));
	assert_int_equal(space_evict(&space, chunk), ~(asked | 1));
	assert_int_equal(chunk->filled, asked | 1);
	assert_int_equal(chunk->taken, ALL);	/* not yet out of the index */
	assert_false(space_is_hidden(&space, first + 4));
	check();
	space_evicted(&space, chunk, ~(asked | 1));
	assert_int_equal(chunk->taken, asked | 1);
	check();
}

static void test_nothing_to_evict(void **state)
{
	struct chunk *chunk = fill_chunk(SPACE_USED);
	unsigned int i;

	for (i = 0; i < 15; i++)
		fill_chunk(SPACE_USED);
	take(SPACE_USED, 1, 0);
	assert_ptr_equal(space_next_cold(&space), chunk);
	space_set_cold(&space, chunk);
	ask(chunk, ~0xfULL);
	/* Four are not worth it ... */
	assert_int_equal(space_evict(&space, chunk), 0);
	assert_int_equal(chunk->state, CHUNK_USED);
	assert_ptr_equal(TAILQ_LAST(&space.lists[CHUNK_USED], chunk_list), chunk);
	check();
}

/* ... and what has free slots only is free at once. */
static void test_holes(void **state)
{
	struct chunk *chunk = fill_chunk(SPACE_USED);
	unsigned int i;

	for (i = 0; i < 15; i++)
		fill_chunk(SPACE_USED);
	take(SPACE_USED, 1, 0);
	for (i = 0; i < 8; i++)
		space_hide(&space, first_slot(&space, chunk) + i);
	space_release(&space, chunk, 0xff);
	assert_ptr_equal(space_next_cold(&space), chunk);
	space_set_cold(&space, chunk);
	ask(chunk, ~0xffULL);
	assert_int_equal(space_evict(&space, chunk), 0);
	assert_int_equal(chunk->state, CHUNK_FREE);
	check();
	assert_int_equal(take(SPACE_USED, 64, 8), first_slot(&space, chunk));
}

static void test_ahead(void **state)
{
	struct chunk *ahead[6], *used[8];
	unsigned int i;

	for (i = 0; i < 8; i++)
		used[i] = fill_chunk(SPACE_USED);
	for (i = 0; i < 6; i++)
		ahead[i] = fill_chunk(SPACE_AHEAD);
	take(SPACE_USED, 1, 1);
	take(SPACE_AHEAD, 1, 1);
	assert_int_equal(space.nr[CHUNK_AHEAD], 6);
	/* Half of it asked for: it is used like others. */
	ask(ahead[0], 0x7fffffff);
	assert_int_equal(ahead[0]->state, CHUNK_AHEAD);
	ask(ahead[0], 1ULL << 40);
	assert_int_equal(ahead[0]->state, CHUNK_USED);
	check();
	/* More than a quarter of the cache goes first, then what was used. */
	assert_ptr_equal(space_next_cold(&space), ahead[1]);
	assert_ptr_equal(space_next_cold(&space), used[0]);
	assert_ptr_equal(space_next_cold(&space), used[1]);
	check();
}

static void test_bad(void **state)
{
	struct chunk *chunk = fill_chunk(SPACE_USED);
	uint32_t first = first_slot(&space, chunk), slot, clock, i;

	space_hide(&space, first + 3);
	space_release(&space, chunk, 8);
	space_set_bad(&space, first + 3);
	space_set_bad(&space, first + 3);
	assert_int_equal(space.nr_bad, 1);
	check();
	/* A file system that is full: the slots that nobody has. */
	slot = take(SPACE_USED, 1, 1);
	space_set_bad(&space, slot);
	space_set_chunk_bad(&space, slot);
	assert_int_equal(space.nr_bad, 1 + CHUNK_SLOTS);
	i = take(SPACE_USED, 1, 1);
	assert_ptr_not_equal(chunk_of(&space, i), chunk_of(&space, slot));
	assert_int_equal(chunk_of(&space, slot)->state, CHUNK_BAD);
	check();
	/* Tried again; an answer of the index of before does not count. */
	clock = space.clock;
	space_retry_bad(&space);
	check();
	assert_int_equal(space.nr_bad, 0);
	assert_true((int32_t)(chunk->freed - clock) > 0);
	assert_int_equal(chunk_of(&space, slot)->state, CHUNK_FREE);
	assert_false(chunk->taken & 8);
}

/* Chunks without anything to gain are not made cold, again and again. */
static void test_bad_chunks(void **state)
{
	struct chunk *chunk, *good = NULL;
	uint32_t slot, i;

	for (i = 0; i < 16; i++) {
		slot = take(SPACE_USED, CHUNK_SLOTS, CHUNK_SLOTS);
		chunk = chunk_of(&space, slot);
		for (slot = 0; slot < CHUNK_SLOTS; slot++) {
			if (i == 7 || slot < 3)
				space_fill(&space, first_slot(&space, chunk) + slot, false);
			else
				space_set_bad(&space, first_slot(&space, chunk) + slot);
		}
		if (i == 7)
			good = chunk;
	}
	take(SPACE_USED, 1, 0);
	assert_ptr_equal(space_next_cold(&space), good);
	check();
	assert_false(space_wants_cold(&space));
	assert_null(space_next_cold(&space));
	space_set_cold(&space, good);
	assert_int_equal(space_evict(&space, good), ALL);
	space_evicted(&space, good, ALL);
	for (i = 0; i < CHUNK_SLOTS; i++)
		space_set_bad(&space, take(SPACE_USED, 1, 1));
	/* A free one may have become bad, too. */
	take(SPACE_USED, 1, 0);
	assert_int_equal(space.nr[CHUNK_BAD], 16);
	space_retry_bad(&space);
	check();
	assert_int_equal(space.nr[CHUNK_FREE], 16);
	take(SPACE_USED, CHUNK_SLOTS, CHUNK_SLOTS - 3);
}

static void test_resize(void **state)
{
	struct chunk *first = fill_chunk(SPACE_USED), *last = NULL;
	uint64_t filled;
	uint32_t i;

	assert_int_equal(space_grow(&space, SMALL + 3 * CHUNK_SLOTS), 0);
	check();
	assert_ptr_equal(first, space.chunks);
	assert_int_equal(space.nr[CHUNK_FREE], 18);
	for (i = 1; i < 19; i++)
		last = fill_chunk(i % 2 ? SPACE_AHEAD : SPACE_USED);
	assert_ptr_equal(last, space.chunks + 18);
	/* The one that is being filled. */
	assert_ptr_equal(space.open[SPACE_USED], last);
	assert_int_equal(space_cut(&space, &filled), 0);
	assert_true(filled == ALL);
	assert_null(space.open[SPACE_USED]);
	assert_int_equal(last->state, CHUNK_GONE);
	check();
	/* One with bad slots. */
	last = space.chunks + 17;
	for (i = 0; i < 3; i++)
		space_hide(&space, first_slot(&space, last) + i);
	space_release(&space, last, 7);
	space_set_bad(&space, first_slot(&space, last));
	assert_int_equal(space_cut(&space, &filled), 0);
	assert_true(filled == ~7ULL);
	check();
	/* What somebody works with cannot go. */
	while (space.chunks[space.nr_chunks - 1].state != CHUNK_FORGETTING) {
		struct chunk *chunk = space_next_cold(&space);

		if (!chunk) {
			assert_int_equal(space_cut(&space, &filled), 0);
			check();
		}
	}
	assert_int_equal(space_cut(&space, &filled), -EBUSY);
	check();
	/* What comes back is empty. */
	assert_int_equal(space_grow(&space, SMALL + CHUNK_SLOTS), 0);
	check();
	assert_int_equal(space.chunks[SMALL / CHUNK_SLOTS].taken, 0);
}

/* Forget and evict as long as there is need; returns how many slots were evicted. */
static unsigned int make_room(void)
{
	struct chunk *chunk;
	unsigned int evicted = 0, i;
	uint64_t gone;

	for (i = 0; i < 100; i++) {
		while ((chunk = space_next_cold(&space)))
			space_set_cold(&space, chunk);
		while ((chunk = space_next_victim(&space))) {
			gone = space_evict(&space, chunk);
			evicted += count(gone);
			if (gone)
				space_evicted(&space, chunk, gone);
		}
		check();
	}
	return evicted;
}

/* Much more than the cache holds goes through it: what is pinned stays. */
static void test_pins(void **state)
{
	struct chunk *whole, *half;
	uint32_t slot, freed;
	unsigned int i, evicted = 0;

	whole = fill_chunk(SPACE_USED);
	half = fill_chunk(SPACE_USED);
	for (slot = 0; slot < 32; slot++) {
		assert_true(space_pin(&space, first_slot(&space, whole) + slot));
		assert_true(space_pin(&space, first_slot(&space, whole) + 32 + slot));
		assert_true(space_pin(&space, first_slot(&space, half) + slot));
		assert_true(space_pin(&space, first_slot(&space, half) + slot));
	}
	assert_int_equal(space.nr_pinned, 96);
	for (i = 0; i < 5000; i++) {
		space_take(&space, SPACE_USED, 1, &slot);
		space_fill(&space, slot, false);
		evicted += make_room();
	}
	assert_true(evicted > 3000);
	assert_true(whole->pinned == ALL);
	assert_true(whole->filled == ALL);
	assert_true((uint32_t)half->pinned == UINT32_MAX);
	assert_int_equal(whole->state, CHUNK_PINNED);

	/* One is damaged, eight are: it is worth something again. */
	for (i = 0; i < 8; i++) {
		assert_int_equal(whole->state, CHUNK_PINNED);
		space_hide(&space, first_slot(&space, whole) + i);
		check();
	}
	assert_int_equal(whole->state, CHUNK_USED);
	space_release(&space, whole, 0xff);
	freed = whole->freed;
	space_unpin_all(&space);
	assert_int_equal(space.nr_pinned, 0);
	for (i = 0; i < 5000; i++) {
		space_take(&space, SPACE_USED, 1, &slot);
		space_fill(&space, slot, false);
		make_room();
	}
	assert_true(whole->freed > freed);
	check();
}

/* As much is pinned as can be: there is room for others, and an end. */
static void test_many_pins(void **state)
{
	struct chunk *chunk;
	uint32_t slot, nr = 0;
	unsigned int i, evicted = 0;

	/* 57 in each chunk: none of these has anything to gain. */
	for (i = 0; i < 12; i++) {
		chunk = fill_chunk(SPACE_USED);
		for (slot = 0; slot < 57; slot++)
			nr += space_pin(&space, first_slot(&space, chunk) + slot);
	}
	assert_int_equal(nr, SMALL / 2);
	assert_int_equal(space.nr_pinned, SMALL / 2);
	assert_false(space_pin(&space, first_slot(&space, chunk)));
	/* Again is not one more. */
	assert_true(space_pin(&space, 0));
	for (i = 0; i < 5000; i++) {
		assert_int_equal(space_take(&space, SPACE_USED, 1, &slot), 1);
		space_fill(&space, slot, false);
		evicted += make_room();
	}
	assert_true(evicted > 4000);
	assert_int_equal(space.nr[CHUNK_PINNED], SMALL / 2 / 57);
	assert_int_equal(space.nr_pinned, SMALL / 2);
	for (i = 0; i < SMALL / 2 / 57; i++)
		assert_int_equal(count(space.chunks[i].pinned), 57);
	space_unpin_all(&space);
	check();
	assert_int_equal(space.nr[CHUNK_PINNED], 0);
}

/*
 * Random steps, with a model of what is in each slot and of what kernels know.
 */

#define MODEL_CHUNKS	24
#define MODEL_SLOTS	(MODEL_CHUNKS * CHUNK_SLOTS)
#define MAX_BUSY	32

enum { FREE, TAKEN, FILLED, DOOMED, BAD, GONE };

struct eviction {
	struct chunk *chunk;
	uint64_t slots;
};

static struct {
	uint64_t random;
	uint8_t slots[MODEL_SLOTS];
	bool known[MODEL_SLOTS];	/* to a kernel */
	struct chunk *forgetting[MAX_BUSY];
	struct eviction evicting[MAX_BUSY];
	unsigned int nr_forgetting, nr_evicting;
	unsigned int takes, evicted, kept, kept_pinned;
} model;

static uint32_t below(uint32_t n)
{
	return test_random(&model.random) % n;
}

/* A slot in that state, if a few tries find one. */
static bool find_slot(int state, uint32_t *slot)
{
	unsigned int i;

	for (i = 0; i < 200; i++) {
		*slot = below(space.nr_slots);
		if (model.slots[*slot] == state)
			return true;
	}
	return false;
}

static void step_take(void)
{
	unsigned int want = 1 + below(below(4) ? 8 : 100), nr, i;
	uint32_t slot;

	nr = space_take(&space, below(3) ? SPACE_USED : SPACE_AHEAD, want, &slot);
	assert_true(nr <= want);
	assert_true(nr <= CHUNK_SLOTS);
	for (i = 0; i < nr; i++) {
		assert_int_equal(model.slots[slot + i], FREE);
		assert_false(model.known[slot + i]);
		model.slots[slot + i] = TAKEN;
	}
	model.takes += nr;
}

static void step_taken(void)
{
	uint32_t slot, what = below(20);

	if (!find_slot(TAKEN, &slot))
		return;
	if (what == 0) {
		space_set_bad(&space, slot);
		model.slots[slot] = BAD;
	} else if (what < 4) {
		space_give_back(&space, slot);
		model.slots[slot] = FREE;
	} else {
		space_fill(&space, slot, !below(8));
		model.slots[slot] = FILLED;
	}
}

/* A request asks, or is told of what is around it. */
static void step_ask(void)
{
	uint32_t slot;

	if (!find_slot(FILLED, &slot))
		return;
	if (below(2)) {
		space_ask(&space, slot);
		chunk_of(&space, slot)->marked &= ~slot_bit(slot);
	}
	if (!space_is_hidden(&space, slot))
		model.known[slot] = true;
}

static void step_cold(void)
{
	struct chunk *chunk = model.nr_forgetting < MAX_BUSY ? space_next_cold(&space) : NULL;

	if (chunk)
		model.forgetting[model.nr_forgetting++] = chunk;
}

static void step_forgot(void)
{
	struct chunk *chunk;
	unsigned int i;

	if (!model.nr_forgetting)
		return;
	i = below(model.nr_forgetting);
	chunk = model.forgetting[i];
	model.forgetting[i] = model.forgetting[--model.nr_forgetting];
	for (i = 0; i < CHUNK_SLOTS; i++) {
		/* It may have been told again after kernels forgot it. */
		if (!(chunk->asked & 1ULL << i))
			model.known[first_slot(&space, chunk) + i] = false;
	}
	space_set_cold(&space, chunk);
}

static void step_evict(void)
{
	struct chunk *chunk;
	uint64_t gone, pinned;
	unsigned int i;

	if (model.nr_evicting == MAX_BUSY)
		return;
	chunk = space_next_victim(&space);
	if (!chunk)
		return;
	pinned = chunk->pinned;
	gone = space_evict(&space, chunk);
	assert_false(gone & pinned);
	assert_true(chunk->pinned == pinned);
	model.kept_pinned += count(pinned);
	for (i = 0; i < CHUNK_SLOTS; i++) {
		uint32_t slot = first_slot(&space, chunk) + i;

		if (!(gone & 1ULL << i))
			continue;
		assert_int_equal(model.slots[slot], FILLED);
		assert_false(model.known[slot]);
		model.slots[slot] = DOOMED;
	}
	model.kept += count(chunk->filled);
	if (gone)
		model.evicting[model.nr_evicting++] = (struct eviction){ chunk, gone };
}

/* A few slots next to each other, which come from one fetch; rarely no more. */
static void step_pin(void)
{
	uint32_t slot, end;

	if (!below(400)) {
		space_unpin_all(&space);
		assert_int_equal(space.nr_pinned, 0);
		return;
	}
	if (below(8) || !find_slot(FILLED, &slot))
		return;
	for (end = slot + below(100); slot < end && slot < space.nr_slots; slot++) {
		bool full = space.nr_pinned >= space.nr_slots / 2;
		bool was = chunk_of(&space, slot)->pinned & slot_bit(slot);

		assert_int_equal(space_pin(&space, slot),
				 was || model.slots[slot] != FILLED || !full);
	}
}

static void free_slots(struct chunk *chunk, uint64_t slots)
{
	unsigned int i;

	for (i = 0; i < CHUNK_SLOTS; i++) {
		if (slots & 1ULL << i)
			model.slots[first_slot(&space, chunk) + i] = FREE;
	}
	model.evicted += count(slots);
}

static void step_evicted(void)
{
	struct eviction e;
	unsigned int i;

	if (!model.nr_evicting)
		return;
	i = below(model.nr_evicting);
	e = model.evicting[i];
	model.evicting[i] = model.evicting[--model.nr_evicting];
	space_evicted(&space, e.chunk, e.slots);
	free_slots(e.chunk, e.slots);
}

/* Damaged: hidden, forgotten, out of the index, and then free or bad. */
static void step_damaged(void)
{
	struct chunk *chunk;
	uint32_t slot;

	if (!find_slot(FILLED, &slot))
		return;
	chunk = chunk_of(&space, slot);
	space_hide(&space, slot);
	model.known[slot] = false;
	space_release(&space, chunk, slot_bit(slot));
	model.slots[slot] = FREE;
	if (below(2)) {
		space_set_bad(&space, slot);
		model.slots[slot] = BAD;
	}
}

static void step_retry_bad(void)
{
	unsigned int i;

	if (below(50))
		return;
	space_retry_bad(&space);
	for (i = 0; i < MODEL_SLOTS; i++) {
		if (model.slots[i] == BAD)
			model.slots[i] = FREE;
	}
}

static void step_resize(void)
{
	uint32_t i, end = space.nr_slots;
	uint64_t filled;

	if (below(30))
		return;
	if (below(2) && space.nr_chunks > 16) {
		for (i = end - CHUNK_SLOTS; i < end; i++) {
			if (model.slots[i] == TAKEN)
				return;			/* a write is under way */
		}
		if (space_cut(&space, &filled))
			return;
		for (i = space.nr_slots; i < end; i++) {
			assert_int_equal(model.slots[i] == FILLED, !!(filled & slot_bit(i)));
			model.slots[i] = GONE;
			model.known[i] = false;
		}
	} else if (space.nr_chunks < MODEL_CHUNKS) {
		assert_int_equal(space_grow(&space, end + CHUNK_SLOTS), 0);
		for (i = end; i < space.nr_slots; i++)
			model.slots[i] = FREE;
	}
}

static void compare(void)
{
	uint32_t i;

	check();
	for (i = 0; i < space.nr_slots; i++) {
		const struct chunk *chunk = chunk_of(&space, i);

		assert_int_equal(!!(chunk->taken & slot_bit(i)), model.slots[i] != FREE);
		assert_int_equal(!!(chunk->filled & slot_bit(i)), model.slots[i] == FILLED);
		assert_int_equal(!!(chunk->bad & slot_bit(i)), model.slots[i] == BAD);
		if (model.known[i])
			assert_int_equal(model.slots[i], FILLED);
	}
}

static void test_random_steps(void **state)
{
	static void (*const steps[])(void) = {
		step_take, step_taken, step_taken, step_taken, step_taken, step_taken,
		step_taken, step_ask, step_ask, step_ask, step_cold, step_forgot, step_evict,
		step_evicted, step_damaged, step_retry_bad, step_resize, step_pin,
	};
	unsigned int i;

	memset(&model, 0, sizeof(model));
	memset(model.slots, GONE, sizeof(model.slots));
	memset(model.slots, FREE, SMALL);
	model.random = 6;
	for (i = 0; i < 400000; i++) {
		steps[below(sizeof(steps) / sizeof(steps[0]))]();
		if (i % 64 == 0)
			compare();
	}
	/* It went on until the end. */
	assert_true(model.takes > 50 * SMALL);
	assert_true(model.evicted > 20 * SMALL);
	assert_true(model.kept > SMALL);
	assert_true(model.kept_pinned > SMALL);
	/* All that is under way ends: there is room. */
	while (model.nr_forgetting)
		step_forgot();
	while (model.nr_evicting)
		step_evicted();
	for (i = 0; i < 100; i++) {
		step_cold();
		step_forgot();
		step_evict();
		step_evicted();
	}
	compare();
	assert_false(space_is_short(&space));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_nothing_before_start),
		cmocka_unit_test_setup_teardown(test_rows, start, stop),
		cmocka_unit_test_setup_teardown(test_full, start, stop),
		cmocka_unit_test(test_load),
		cmocka_unit_test_setup_teardown(test_order, start, stop),
		cmocka_unit_test_setup_teardown(test_all_again, start, stop),
		cmocka_unit_test_setup_teardown(test_second_chance, start, stop),
		cmocka_unit_test_setup_teardown(test_nothing_to_evict, start, stop),
		cmocka_unit_test_setup_teardown(test_holes, start, stop),
		cmocka_unit_test_setup_teardown(test_ahead, start, stop),
		cmocka_unit_test_setup_teardown(test_bad, start, stop),
		cmocka_unit_test_setup_teardown(test_bad_chunks, start, stop),
		cmocka_unit_test_setup_teardown(test_resize, start, stop),
		cmocka_unit_test_setup_teardown(test_pins, start, stop),
		cmocka_unit_test_setup_teardown(test_many_pins, start, stop),
		cmocka_unit_test_setup_teardown(test_random_steps, start, stop),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
