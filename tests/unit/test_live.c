/* SPDX-License-Identifier: GPL-2.0 */
/* Which blocks of which objects hold the content of a disk. */
#include "../../userspace/chaind/live.h"
#include "testing.h"

#define BLOCK		QC2_BLOCK_BYTES
#define SECTORS		QC2_BLOCK_SECTORS
#define NR_OBJECTS	3
#define NR_BLOCKS	1000U
/* The last object is unpacked, in clusters of four blocks (256 KiB). */

static struct object *objects[NR_OBJECTS];
static struct qc2_extents extents;
static struct qc2_index *idx;
static struct live live;

static int setup(void **state)
{
	struct qc2_packed *packed = qc2_packed_new(18, 0);
	uint64_t size = NR_BLOCKS * (uint64_t)BLOCK - 512;

	assert_non_null(packed);
	objects[0] = object_get("https://host/a", size, "v");
	objects[1] = object_get("https://host/b", size, "v");
	objects[2] = object_get_unpacked("https://host/b", size, "v", NULL, packed, size);
	qc2_packed_put(packed);
	assert_non_null(objects[0]);
	assert_non_null(objects[1]);
	assert_non_null(objects[2]);
	return 0;
}

static int teardown(void **state)
{
	unsigned int i;

	for (i = 0; i < NR_OBJECTS; i++)
		object_put(objects[i]);
	qc2_index_free(idx);
	idx = NULL;
	return 0;
}

/* Sectors of the disk, in order, from a byte of an object. */
static void add(uint64_t sector, unsigned int object, uint64_t offset, uint64_t nr)
{
	const struct qc2_extent ext = {
		.sector = sector, .nr_sectors = nr, .offset = offset, .object = object,
	};

	assert_int_equal(qc2_extents_add(&extents, &ext), 0);
}

static void start(void)
{
	idx = qc2_index_build(&extents, 1 << 24);
	assert_non_null(idx);
	live_start(&live, idx, objects);
}

static void next_is(unsigned int object, uint32_t first, uint32_t end)
{
	struct live_run run;

	assert_true(live_next(&live, &run));
	assert_int_equal(run.object, object);
	assert_int_equal(run.first, first);
	assert_int_equal(run.end, end);
}

static void is_over(void)
{
	struct live_run run;

	assert_false(live_next(&live, &run));
	assert_false(live_next(&live, &run));
}

static void test_empty(void **state)
{
	start();
	is_over();
}

/* By object, and by place in it, whatever the order on the disk. */
static void test_order(void **state)
{
	add(0, 1, 5 * BLOCK, SECTORS);
	add(1000, 0, 9 * BLOCK, SECTORS);
	add(2000, 1, 3 * BLOCK, SECTORS);
	add(3000, 0, 2 * BLOCK, 2 * SECTORS);
	start();
	next_is(0, 2, 4);
	next_is(0, 9, 10);
	next_is(1, 3, 4);
	next_is(1, 5, 6);
	is_over();
}

/* Pieces of blocks, that touch, share a block, or are the same. */
static void test_pieces(void **state)
{
	add(0, 0, BLOCK + 512, 1);
	add(10, 0, BLOCK + 4096, 1);
	add(20, 0, 2 * BLOCK - 512, 2);
	add(30, 0, 3 * BLOCK, 1);
	add(40, 0, 3 * BLOCK, 1);
	add(50, 0, 5 * BLOCK, 1);
	start();
	next_is(0, 1, 4);
	next_is(0, 5, 6);
	is_over();
}

/* An extent within another one takes nothing away from what follows. */
static void test_shared(void **state)
{
	add(0, 0, 0, 10 * SECTORS);
	add(10000, 0, 2 * BLOCK, SECTORS);
	add(20000, 0, 10 * BLOCK, SECTORS);
	start();
	next_is(0, 0, 11);
	is_over();
}

/* Runs end at multiples, and nothing is left out or comes twice there. */
static void test_long(void **state)
{
	add(0, 0, 30 * BLOCK, 100 * SECTORS);
	add(20000, 0, 100 * BLOCK, 60 * SECTORS);
	add(40000, 1, 32 * BLOCK, 32 * SECTORS);
	add(60000, 1, 64 * BLOCK, SECTORS);
	start();
	next_is(0, 30, 32);
	next_is(0, 32, 64);
	next_is(0, 64, 96);
	next_is(0, 96, 128);
	next_is(0, 128, 160);
	next_is(1, 32, 64);
	next_is(1, 64, 65);
	is_over();
}

/* The last block is not whole; behind it there is nothing but zeros. */
static void test_end_of_object(void **state)
{
	add(0, 0, (NR_BLOCKS - 1) * (uint64_t)BLOCK, 5 * SECTORS);
	add(10000, 0, (NR_BLOCKS + 5) * (uint64_t)BLOCK, SECTORS);
	add(20000, 1, NR_BLOCKS * (uint64_t)BLOCK, SECTORS);
	start();
	next_is(0, NR_BLOCKS - 1, NR_BLOCKS);
	is_over();
}

/* Compressed clusters come as a whole. */
static void test_clusters(void **state)
{
	add(0, 2, 5 * BLOCK, 1);
	add(10, 2, 7 * BLOCK, 1);
	add(20, 2, 16 * BLOCK, SECTORS);
	add(1000, 2, 30 * BLOCK, SECTORS);
	add(2000, 2, 35 * BLOCK, SECTORS);
	add(3000, 2, 998 * BLOCK, SECTORS);
	start();
	next_is(2, 4, 8);
	next_is(2, 16, 20);
	next_is(2, 28, 32);
	next_is(2, 32, 36);
	next_is(2, 996, 1000);
	is_over();
}

/* Against a plain list of all blocks. */
static void test_random_extents(void **state)
{
	static bool want[2][NR_BLOCKS], got[2][NR_BLOCKS];
	uint64_t random = 1, sector = 0;
	struct live_run run;
	uint32_t last = 0;
	unsigned int i, object = 0;

	for (i = 0; i < 300; i++) {
		unsigned int to = test_random(&random) % 2;
		uint64_t at = test_random(&random) % (NR_BLOCKS * SECTORS - 20000);
		uint64_t nr = test_random(&random) % (i % 10 ? 100 : 20000) + 1;
		uint64_t b;

		add(sector, to, at * 512, nr);
		sector += nr + 1;
		for (b = at / SECTORS; b <= (at + nr - 1) / SECTORS; b++)
			want[to][b] = true;
	}
	start();
	while (live_next(&live, &run)) {
		assert_true(run.object > object || run.first >= last);
		assert_true(run.first < run.end);
		assert_int_equal(run.first / LIVE_MAX_RUN, (run.end - 1) / LIVE_MAX_RUN);
		object = run.object;
		last = run.end;
		for (; run.first < run.end; run.first++)
			got[object][run.first] = true;
	}
	assert_memory_equal(want, got, sizeof(want));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_empty, setup, teardown),
		cmocka_unit_test_setup_teardown(test_order, setup, teardown),
		cmocka_unit_test_setup_teardown(test_pieces, setup, teardown),
		cmocka_unit_test_setup_teardown(test_shared, setup, teardown),
		cmocka_unit_test_setup_teardown(test_long, setup, teardown),
		cmocka_unit_test_setup_teardown(test_end_of_object, setup, teardown),
		cmocka_unit_test_setup_teardown(test_clusters, setup, teardown),
		cmocka_unit_test_setup_teardown(test_random_extents, setup, teardown),
	};

	origin_setup(64);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
