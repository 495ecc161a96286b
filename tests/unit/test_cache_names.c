/* SPDX-License-Identifier: GPL-2.0 */
/* Leaves of names: what is known, what is dropped, how much memory they take. */
#include "../../userspace/chaind/cache_names.h"
#include "testing.h"

#define OBJECTS		3
#define LEAVES		6		/* of each object */
#define BLOCKS		(LEAVES * LEAF_BLOCKS)
#define MANY		(1ULL << 30)

static struct cache_names names[OBJECTS];
static uint64_t leaf_bytes;

static int start(void **state)
{
	memset(names, 0, sizeof(names));
	names_set_limit(MANY);
	assert_int_equal(names_memory(), 0);
	assert_int_equal(names_add(&names[0], 0, 1), 0);
	leaf_bytes = names_memory();
	names_free(&names[0]);
	assert_int_equal(names_memory(), 0);
	return 0;
}

static int stop(void **state)
{
	unsigned int i;

	for (i = 0; i < OBJECTS; i++)
		names_free(&names[i]);
	assert_int_equal(names_memory(), 0);
	return 0;
}

static void load(unsigned int nr, uint32_t block, uint32_t slot, bool all)
{
	uint32_t slots[LEAF_BLOCKS], i;

	for (i = 0; i < LEAF_BLOCKS; i++)
		slots[i] = slot + i;
	assert_int_equal(names_load(&names[nr], block, slots, all), 0);
}

static void test_leaf(void **state)
{
	assert_false(names_loaded(&names[0], 300));
	load(0, 300, 1000, true);
	assert_true(names_loaded(&names[0], 256));
	assert_true(names_loaded(&names[0], 511));
	assert_false(names_loaded(&names[0], 255));
	assert_false(names_loaded(&names[0], 512));
	assert_false(names_loaded(&names[1], 256));
	assert_int_equal(names_get(&names[0], 256), 1000);
	assert_int_equal(names_get(&names[0], 511), 1255);
	assert_int_equal(names_get(&names[0], 255), QC2_SLOT_NONE);
	assert_int_equal(names_get(&names[0], 512), QC2_SLOT_NONE);
	assert_int_equal(names_get(&names[1], 256), QC2_SLOT_NONE);
	/* The last one that there can be. */
	load(0, UINT32_MAX, 2000, false);
	assert_false(names_loaded(&names[0], UINT32_MAX));
	assert_int_equal(names_get(&names[0], UINT32_MAX), 2255);
}

static void test_known_stays(void **state)
{
	assert_int_equal(names_add(&names[0], 7, 42), 0);
	assert_false(names_loaded(&names[0], 7));
	load(0, 0, 1000, true);
	assert_int_equal(names_get(&names[0], 7), 42);
	assert_int_equal(names_get(&names[0], 8), 1008);
	assert_int_equal(names_add(&names[0], 8, QC2_SLOT_ZERO), 0);
	assert_int_equal(names_get(&names[0], 8), QC2_SLOT_ZERO);
	/* A leaf that is loaded stays so. */
	load(0, 0, 2000, false);
	assert_true(names_loaded(&names[0], 0));
	assert_int_equal(names_get(&names[0], 9), 1009);
}

static void test_remove(void **state)
{
	load(0, 0, 1000, true);
	names_remove(&names[0], 5, 1006);	/* it leads elsewhere by now */
	assert_int_equal(names_get(&names[0], 5), 1005);
	names_remove(&names[0], 5, 1005);
	assert_int_equal(names_get(&names[0], 5), QC2_SLOT_NONE);
	names_remove(&names[0], 5000, 1005);
	names_remove(&names[1], 5, 1005);
	assert_int_equal(names_memory(), leaf_bytes);
}

static void test_limit(void **state)
{
	uint32_t i;

	names_set_limit(4 * leaf_bytes);
	for (i = 0; i < 6; i++)
		load(i % 2, i * LEAF_BLOCKS, 1000 * i, true);
	assert_int_equal(names_memory(), 4 * leaf_bytes);
	for (i = 0; i < 6; i++)
		assert_int_equal(names_loaded(&names[i % 2], i * LEAF_BLOCKS), i >= 2);
	/* What the index does not have stays. */
	assert_int_equal(names_add(&names[0], 2 * LEAF_BLOCKS, 1), 0);
	assert_int_equal(names_add(&names[0], 2 * LEAF_BLOCKS, 2), 0);
	for (i = 6; i < 12; i++)
		load(0, i * LEAF_BLOCKS, 1000 * i, true);
	assert_int_equal(names_memory(), 4 * leaf_bytes);
	assert_int_equal(names_get(&names[0], 2 * LEAF_BLOCKS), 2);
	names_written(&names[0], 2 * LEAF_BLOCKS);
	load(0, 12 * LEAF_BLOCKS, 1, true);
	assert_int_equal(names_get(&names[0], 2 * LEAF_BLOCKS), 2);
	names_written(&names[0], 2 * LEAF_BLOCKS);
	load(0, 13 * LEAF_BLOCKS, 1, true);
	assert_int_equal(names_get(&names[0], 2 * LEAF_BLOCKS), QC2_SLOT_NONE);
	/* One that is not there, and one that has nothing to be written. */
	names_written(&names[0], 2 * LEAF_BLOCKS);
	names_written(&names[0], 13 * LEAF_BLOCKS);
	load(0, 14 * LEAF_BLOCKS, 1, true);
	assert_int_equal(names_memory(), 4 * leaf_bytes);
}

static void test_all_unwritten(void **state)
{
	uint32_t i;

	names_set_limit(0);
	for (i = 0; i < 20; i++)
		assert_int_equal(names_add(&names[0], i * LEAF_BLOCKS, i), 0);
	assert_int_equal(names_memory(), 20 * leaf_bytes);
	for (i = 0; i < 20; i++) {
		assert_int_equal(names_get(&names[0], i * LEAF_BLOCKS), i);
		names_written(&names[0], i * LEAF_BLOCKS);
	}
	load(1, 0, 1, true);
	assert_int_equal(names_memory(), leaf_bytes);
	assert_true(names_loaded(&names[1], 0));
}

static void test_numbers(void **state)
{
	assert_null(names_find(5));
	assert_int_equal(names_set_object(&names[0], 5), 0);
	assert_int_equal(names_set_object(&names[1], 6), 0);
	load(0, 0, 1000, true);
	load(1, 0, 2000, true);
	assert_int_equal(names_set_object(&names[0], 5), 0);
	assert_int_equal(names_get(&names[0], 1), 1001);
	assert_ptr_equal(names_find(5), &names[0]);
	assert_ptr_equal(names_find(6), &names[1]);

	/* By the new number nobody hears of the end of the old ones. */
	assert_int_equal(names_set_object(&names[0], 7), 0);
	assert_null(names_find(5));
	assert_ptr_equal(names_find(7), &names[0]);
	assert_int_equal(names_get(&names[0], 1), QC2_SLOT_NONE);
	assert_false(names_loaded(&names[0], 1));
	assert_int_equal(names_get(&names[1], 1), 2001);

	names_drop(&names[1]);
	assert_ptr_equal(names_find(6), &names[1]);
	assert_int_equal(names_get(&names[1], 1), QC2_SLOT_NONE);
	names_free(&names[0]);
	assert_null(names_find(7));
	names_forget_all();
	assert_null(names_find(6));
	assert_int_equal(names[1].object, 0);
	assert_int_equal(names_memory(), 0);
	assert_int_equal(names_set_object(&names[1], 6), 0);
	assert_ptr_equal(names_find(6), &names[1]);
}

/*
 * What the index has, and what is not written to it yet, against what is known.
 */

struct pending {
	unsigned int nr;
	uint32_t block, slot;
};

static uint32_t indexed[OBJECTS][BLOCKS], truth[OBJECTS][BLOCKS];
static struct pending pending[64];
static unsigned int nr_pending;

static void write_pending(void)
{
	unsigned int i;

	for (i = 0; i < nr_pending; i++) {
		const struct pending *p = &pending[i];

		indexed[p->nr][p->block] = p->slot;
		names_written(&names[p->nr], p->block);
	}
	nr_pending = 0;
}

static void nothing_is_known(unsigned int nr)
{
	unsigned int i, left = 0;

	for (i = 0; i < nr_pending; i++) {
		if (pending[i].nr != nr)
			pending[left++] = pending[i];
	}
	nr_pending = left;
	memset(indexed[nr], 0xff, sizeof(indexed[nr]));
	memset(truth[nr], 0xff, sizeof(truth[nr]));
}

static bool is_pending(unsigned int nr, uint32_t leaf)
{
	unsigned int i;

	for (i = 0; i < nr_pending; i++) {
		if (pending[i].nr == nr && pending[i].block / LEAF_BLOCKS == leaf)
			return true;
	}
	return false;
}

static void check(uint64_t limit, uint64_t before)
{
	unsigned int nr, leaf, i, unwritten = 0;

	for (nr = 0; nr < OBJECTS; nr++) {
		for (leaf = 0; leaf < LEAVES; leaf++)
			unwritten += is_pending(nr, leaf);
		for (i = 0; i < BLOCKS; i++) {
			uint32_t slot = names_get(&names[nr], i);

			if (slot != QC2_SLOT_NONE || names_loaded(&names[nr], i))
				assert_int_equal(slot, truth[nr][i]);
		}
	}
	for (i = 0; i < nr_pending; i++)
		assert_int_equal(names_get(&names[pending[i].nr], pending[i].block),
				 truth[pending[i].nr][pending[i].block]);
	/* A new one comes to those that have to stay. */
	assert_true(names_memory() <= before || names_memory() <= limit ||
		    names_memory() <= (unwritten + 1) * leaf_bytes);
}

static void step(uint64_t *seed, uint64_t limit)
{
	unsigned int nr = test_random(seed) % OBJECTS, what = test_random(seed) % 100, i;
	uint32_t block = test_random(seed) % BLOCKS, slots[LEAF_BLOCKS];
	uint64_t before = names_memory();
	bool all = test_random(seed) % 2;

	if (what < 40 && nr_pending < 64) {
		uint32_t slot = test_random(seed) % 16 ? test_random(seed) : QC2_SLOT_ZERO;

		assert_int_equal(names_add(&names[nr], block, slot), 0);
		pending[nr_pending++] = (struct pending){ nr, block, slot };
		truth[nr][block] = slot;
	} else if (what < 70) {
		memcpy(slots, &indexed[nr][block - block % LEAF_BLOCKS], sizeof(slots));
		for (i = 0; i < LEAF_BLOCKS; i++) {
			if (!all && test_random(seed) % 4 == 0)
				slots[i] = QC2_SLOT_NONE;
		}
		assert_int_equal(names_load(&names[nr], block, slots, all), 0);
	} else if (what < 85) {
		/* Its slot is evicted; a name that is not written has none that is. */
		if (is_pending(nr, block / LEAF_BLOCKS))
			return;
		names_remove(&names[nr], block, indexed[nr][block] + 1);
		names_remove(&names[nr], block, indexed[nr][block]);
		indexed[nr][block] = truth[nr][block] = QC2_SLOT_NONE;
	} else if (what < 95) {
		write_pending();
	} else if (what < 97) {
		nothing_is_known(nr);
		names_drop(&names[nr]);
	} else if (what < 98) {
		write_pending();
		assert_int_equal(names_set_object(&names[nr], 1 + nr + OBJECTS * (block % 4)), 0);
	} else if (what < 99) {
		nothing_is_known(nr);
		names_free(&names[nr]);
	} else {
		for (i = 0; i < OBJECTS; i++)
			nothing_is_known(i);
		names_forget_all();
	}
	check(limit, before);
}

static void test_random_steps(void **state)
{
	uint64_t seed = 6, limit;
	unsigned int i, j;

	for (i = 0; i < OBJECTS; i++)
		nothing_is_known(i);
	for (i = 0; i < 20; i++) {
		limit = (1 + test_random(&seed) % (OBJECTS * LEAVES)) * leaf_bytes;
		/* A lower limit counts when a leaf is made. */
		write_pending();
		names_forget_all();
		names_set_limit(limit);
		for (j = 0; j < 200; j++)
			step(&seed, limit);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_leaf, start, stop),
		cmocka_unit_test_setup_teardown(test_known_stays, start, stop),
		cmocka_unit_test_setup_teardown(test_remove, start, stop),
		cmocka_unit_test_setup_teardown(test_limit, start, stop),
		cmocka_unit_test_setup_teardown(test_all_unwritten, start, stop),
		cmocka_unit_test_setup_teardown(test_numbers, start, stop),
		cmocka_unit_test_setup_teardown(test_random_steps, start, stop),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
