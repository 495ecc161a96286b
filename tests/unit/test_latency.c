// SPDX-License-Identifier: GPL-2.0
/* Percentiles: close to the true ones, and of late rather than of old. */
#include "latency.h"
#include "testing.h"

/* The buckets are an eighth of a doubling wide. */
static void assert_about(uint64_t us, uint64_t want)
{
	assert_in_range(us, want, want + want / 7 + 1);
}

static void test_nothing(void **state)
{
	struct qc2_latency l = { 0 };

	assert_int_equal(qc2_latency_at(&l, 500), 0);
}

static void test_one(void **state)
{
	uint64_t us;

	for (us = 64; us < 100000000; us = us * 9 / 8 + 1) {
		struct qc2_latency l = { 0 };

		qc2_latency_add(&l, us);
		assert_about(qc2_latency_at(&l, 1), us);
		assert_about(qc2_latency_at(&l, 500), us);
		assert_about(qc2_latency_at(&l, 1000), us);
	}
}

static void test_extremes(void **state)
{
	struct qc2_latency l = { 0 };

	qc2_latency_add(&l, 0);
	assert_in_range(qc2_latency_at(&l, 1000), 1, 128);
	qc2_latency_add(&l, UINT64_MAX);
	assert_true(qc2_latency_at(&l, 1000) > 100000000);
}

static void test_percentiles(void **state)
{
	struct qc2_latency l = { 0 };
	unsigned int i;

	for (i = 1; i <= 1000; i++)
		qc2_latency_add(&l, i * 1000);
	assert_about(qc2_latency_at(&l, 500), 500000);
	assert_about(qc2_latency_at(&l, 990), 990000);
	assert_about(qc2_latency_at(&l, 1000), 1000000);
}

/* One in a hundred is slow: that is above the 98th percentile, not at it. */
static void test_tail(void **state)
{
	struct qc2_latency l = { 0 };
	unsigned int i;

	for (i = 0; i < 10000; i++)
		qc2_latency_add(&l, i % 100 ? 30000 : 1000000);
	assert_about(qc2_latency_at(&l, 980), 30000);
	assert_about(qc2_latency_at(&l, 1000), 1000000);
}

static void test_fades(void **state)
{
	struct qc2_latency l = { 0 };
	unsigned int i;

	for (i = 0; i < 100000; i++)
		qc2_latency_add(&l, 1000000);
	for (i = 0; i < 20000; i++)
		qc2_latency_add(&l, 1000);
	assert_about(qc2_latency_at(&l, 990), 1000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_nothing),
		cmocka_unit_test(test_one),
		cmocka_unit_test(test_extremes),
		cmocka_unit_test(test_percentiles),
		cmocka_unit_test(test_tail),
		cmocka_unit_test(test_fades),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
