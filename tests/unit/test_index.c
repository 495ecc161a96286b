/* SPDX-License-Identifier: GPL-2.0 */
/* Lists of extents and the index, against a model with one entry a sector. */
#include <errno.h>

#include "index.h"
#include "testing.h"

static void add(struct qc2_extents *list, uint64_t sector, uint32_t nr,
		uint32_t link, uint64_t offset)
{
	struct qc2_extent ext = {
		.sector = sector,
		.nr_sectors = nr,
		.object = link,
		.offset = offset,
	};

	assert_int_equal(qc2_extents_add(list, &ext), 0);
}

static void test_join(void **state)
{
	struct qc2_extents list = { 0 };

	add(&list, 0, 8, 1, 4096);
	add(&list, 8, 8, 1, 8192);		/* goes on */
	assert_int_equal(list.nr, 1);
	assert_int_equal(list.v[0].nr_sectors, 16);
	add(&list, 16, 8, 1, 4096);		/* another place */
	add(&list, 24, 8, 2, 8192);		/* another link */
	add(&list, 40, 8, 2, 12288);		/* a gap on the disk */
	add(&list, 48, 8, QC2_OBJECT_ZERO, 0);
	assert_int_equal(list.nr, 5);
	add(&list, 56, 8, QC2_OBJECT_ZERO, 0);
	assert_int_equal(list.nr, 5);
	assert_int_equal(list.v[4].nr_sectors, 16);
	qc2_extents_free(&list);
	assert_int_equal(list.nr, 0);
}

static void test_join_does_not_overflow(void **state)
{
	struct qc2_extents list = { 0 };

	add(&list, 0, UINT32_MAX, 0, 0);
	add(&list, UINT32_MAX, 1, 0, (uint64_t)UINT32_MAX * 512);
	assert_int_equal(list.nr, 2);
	assert_int_equal(list.v[0].nr_sectors, UINT32_MAX);
	qc2_extents_free(&list);
}

static void test_sort(void **state)
{
	struct qc2_extents list = { 0 };

	add(&list, 100, 10, 0, 51200);
	add(&list, 0, 10, 0, 0);
	add(&list, 10, 5, 0, 99840);
	add(&list, 90, 10, 0, 46080);
	qc2_extents_sort(&list);
	assert_int_equal(list.nr, 3);
	assert_int_equal(list.v[0].sector, 0);
	assert_int_equal(list.v[1].sector, 10);
	assert_int_equal(list.v[2].sector, 90);
	assert_int_equal(list.v[2].nr_sectors, 20);
	qc2_extents_free(&list);
	qc2_extents_sort(&list);
	assert_int_equal(list.nr, 0);
}

/*
 * The model: for each sector the link and offset, ~0 for nothing.
 */
#define DISK 400

struct cell {
	uint32_t link;
	uint64_t offset;
	int used;
};

static void random_layer(uint64_t *seed, uint32_t link,
			 struct qc2_extents *list, struct cell *cells)
{
	uint64_t pos = 0, base = 0;

	memset(cells, 0, DISK * sizeof(*cells));
	while (pos < DISK) {
		uint32_t gap = test_random(seed) % 20 * (test_random(seed) % 2);
		uint32_t nr = 1 + test_random(seed) % 30, i;
		int zero = test_random(seed) % 4 == 0;

		pos += gap;
		if (pos >= DISK)
			break;
		if (nr > DISK - pos)
			nr = DISK - pos;
		if (test_random(seed) % 3)
			base += 512 * (test_random(seed) % 50);
		add(list, pos, nr, zero ? QC2_OBJECT_ZERO : link,
		    zero ? 0 : base);
		for (i = 0; i < nr; i++) {
			cells[pos + i].used = 1;
			cells[pos + i].link = zero ? QC2_OBJECT_ZERO : link;
			cells[pos + i].offset = zero ? 0 : base + 512 * i;
		}
		pos += nr;
		base += 512 * nr;
	}
}

static void compare(const struct qc2_extents *list, const struct cell *cells)
{
	uint64_t pos = 0;
	size_t i;
	uint32_t k;

	for (i = 0; i < list->nr; i++) {
		const struct qc2_extent *ext = &list->v[i];

		assert_true(ext->sector >= pos && ext->nr_sectors > 0);
		for (; pos < ext->sector; pos++)
			assert_false(cells[pos].used);
		for (k = 0; k < ext->nr_sectors; k++, pos++) {
			assert_true(pos < DISK && cells[pos].used);
			assert_int_equal(cells[pos].link, ext->object);
			assert_int_equal(cells[pos].offset,
					 ext->object == QC2_OBJECT_ZERO ? 0 :
					 ext->offset + 512 * (uint64_t)k);
		}
	}
	for (; pos < DISK; pos++)
		assert_false(cells[pos].used);
}

static void check_index(struct qc2_extents *list, const struct cell *cells)
{
	struct qc2_index *idx = qc2_index_build(list, DISK);
	uint64_t pos;
	size_t i;

	assert_non_null(idx);
	assert_int_equal(list->nr, 0);
	assert_null(list->v);
	for (pos = 0; pos < DISK; pos++) {
		const struct qc2_extent *ext;
		int data = cells[pos].used && cells[pos].link != QC2_OBJECT_ZERO;

		i = qc2_index_find(idx, pos);
		ext = &idx->extents[i];
		if (data) {
			assert_true(i < idx->nr_extents);
			assert_true(ext->sector <= pos);
			assert_int_equal(ext->object, cells[pos].link);
			assert_int_equal(ext->offset +
					 512 * (pos - ext->sector),
					 cells[pos].offset);
			/* and back, by the object */
			i = qc2_index_find_object(idx, cells[pos].link,
						  cells[pos].offset + 100);
			assert_true(i < idx->nr_by_object);
			assert_ptr_equal(&idx->extents[idx->by_object[i]],
					 ext);
		} else {
			assert_true(i == idx->nr_extents || ext->sector > pos);
		}
	}
	assert_int_equal(qc2_index_find(idx, DISK), idx->nr_extents);
	for (i = 1; i < idx->nr_by_object; i++) {
		const struct qc2_extent *a = &idx->extents[idx->by_object[i - 1]];
		const struct qc2_extent *b = &idx->extents[idx->by_object[i]];

		assert_true(a->object < b->object || (a->object == b->object &&
						  a->offset < b->offset));
	}
	qc2_index_free(idx);
}

static void test_underlay_against_model(void **state)
{
	static struct cell cells[DISK], layer[DISK];
	uint64_t seed = 1, pos;
	int round;

	for (round = 0; round < 500; round++) {
		struct qc2_extents merged = { 0 };
		uint64_t limit = DISK;
		uint32_t link, depth = 1 + test_random(&seed) % 6;

		memset(cells, 0, sizeof(cells));
		for (link = 0; link < depth; link++) {
			struct qc2_extents list = { 0 };

			random_layer(&seed, link, &list, layer);
			for (pos = 0; pos < limit; pos++)
				if (!cells[pos].used)
					cells[pos] = layer[pos];
			assert_int_equal(qc2_extents_underlay(&merged, &list,
							      limit), 0);
			compare(&merged, cells);
			qc2_extents_free(&list);
			if (test_random(&seed) % 2)
				limit -= test_random(&seed) % (limit + 1) / 4;
		}
		check_index(&merged, cells);
	}
}

static void test_underlay_joins_again(void **state)
{
	struct qc2_extents upper = { 0 }, lower = { 0 };

	/* Zeros from two links side by side are one extent. */
	add(&upper, 10, 10, QC2_OBJECT_ZERO, 0);
	add(&lower, 0, 30, QC2_OBJECT_ZERO, 0);
	assert_int_equal(qc2_extents_underlay(&upper, &lower, UINT64_MAX), 0);
	assert_int_equal(upper.nr, 1);
	assert_int_equal(upper.v[0].nr_sectors, 30);
	qc2_extents_free(&upper);
	qc2_extents_free(&lower);
}

static void test_empty_index(void **state)
{
	struct qc2_extents list = { 0 };
	struct qc2_index *idx;

	add(&list, 0, 100, QC2_OBJECT_ZERO, 0);
	idx = qc2_index_build(&list, 100);
	assert_non_null(idx);
	assert_int_equal(idx->nr_extents, 0);
	assert_int_equal(qc2_index_find(idx, 0), 0);
	assert_int_equal(qc2_index_find_object(idx, 0, 0), 0);
	qc2_index_free(idx);
	qc2_index_free(NULL);
}

static void test_find_object_borders(void **state)
{
	struct qc2_extents list = { 0 };
	struct qc2_index *idx;
	size_t i;

	add(&list, 0, 8, 2, 8192);
	add(&list, 8, 8, 1, 65536);
	add(&list, 16, 8, 2, 4096);
	idx = qc2_index_build(&list, 100);
	assert_non_null(idx);
	i = qc2_index_find_object(idx, 0, 0);
	assert_int_equal(idx->extents[idx->by_object[i]].object, 1);
	i = qc2_index_find_object(idx, 1, 65536 + 4096);
	assert_int_equal(idx->extents[idx->by_object[i]].object, 2);
	assert_int_equal(idx->extents[idx->by_object[i]].offset, 4096);
	i = qc2_index_find_object(idx, 2, 8191);
	assert_int_equal(idx->extents[idx->by_object[i]].offset, 4096);
	i = qc2_index_find_object(idx, 2, 8192);
	assert_int_equal(idx->extents[idx->by_object[i]].offset, 8192);
	assert_int_equal(qc2_index_find_object(idx, 2, 12288),
			 idx->nr_by_object);
	assert_int_equal(qc2_index_find_object(idx, 3, 0), idx->nr_by_object);
	qc2_index_free(idx);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_join),
		cmocka_unit_test(test_join_does_not_overflow),
		cmocka_unit_test(test_sort),
		cmocka_unit_test(test_underlay_against_model),
		cmocka_unit_test(test_underlay_joins_again),
		cmocka_unit_test(test_empty_index),
		cmocka_unit_test(test_find_object_borders),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
