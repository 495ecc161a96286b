/* SPDX-License-Identifier: GPL-2.0 */
/* Which disks share an object. */
#include "../../userspace/chaind/object.h"
#include "testing.h"

#define URL	"http://host/base.qcow2"
#define DISK	(4ULL << 16)

static struct qc2_packed *make_packed(uint64_t offset)
{
	struct qc2_packed *packed = qc2_packed_new(16, 0);

	assert_non_null(packed);
	assert_int_equal(qc2_packed_add(packed, offset, 0, 500), 0);
	assert_int_equal(qc2_packed_add(packed, offset + 500, 2, 500), 0);
	return packed;
}

static struct object *get(struct qc2_packed *packed, uint64_t size)
{
	struct object *obj = object_get_unpacked(URL, 1 << 20, "v", NULL, packed, size);

	assert_non_null(obj);
	assert_non_null(obj->packed);
	assert_int_equal(obj->size, size);
	return obj;
}

/* The cache has an object for longer than it is there. */
static void test_key_is_of_list(void **state)
{
	struct qc2_packed *wrong = make_packed(4096), *right = make_packed(8192);
	struct object *obj = get(wrong, DISK);
	uint8_t key[sizeof(obj->key)];

	memcpy(key, obj->key, sizeof(key));
	object_put(obj);
	obj = get(right, DISK);
	assert_memory_not_equal(obj->key, key, sizeof(key));
	object_put(obj);
	obj = get(wrong, DISK);
	assert_memory_equal(obj->key, key, sizeof(key));
	object_put(obj);
	qc2_packed_put(wrong);
	qc2_packed_put(right);
}

/* A manifest that is wrong does not tell other disks what is in an image. */
static void test_unpacked(void **state)
{
	struct qc2_packed *wrong = make_packed(4096), *right = make_packed(8192);
	struct qc2_packed *again = make_packed(8192);
	struct object *objs[] = {
		get(wrong, DISK), get(right, DISK), get(again, DISK),
		get(right, DISK - 512), get(wrong, DISK),
	};
	size_t i;

	assert_int_equal(objs[0]->packed->v[0].offset, 4096);
	assert_int_equal(objs[1]->packed->v[0].offset, 8192);
	assert_ptr_not_equal(objs[0], objs[1]);
	assert_ptr_equal(objs[1], objs[2]);
	assert_ptr_not_equal(objs[1], objs[3]);
	assert_ptr_equal(objs[0], objs[4]);
	for (i = 0; i < sizeof(objs) / sizeof(objs[0]); i++)
		object_put(objs[i]);
	qc2_packed_put(wrong);
	qc2_packed_put(right);
	qc2_packed_put(again);
}

static void test_views(void **state)
{
	struct qc2_packed *packed = make_packed(4096);
	struct object *file = object_get(URL, 1 << 20, "v");
	struct object *unpacked = get(packed, DISK);
	struct object *snapshot = object_get_unpacked(URL, 1 << 20, "v", "s", packed, DISK);

	assert_null(file->packed);
	assert_ptr_not_equal(file, unpacked);
	assert_ptr_not_equal(unpacked, snapshot);
	object_put(file);
	object_put(unpacked);
	object_put(snapshot);
	qc2_packed_put(packed);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_key_is_of_list),
		cmocka_unit_test(test_unpacked),
		cmocka_unit_test(test_views),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
