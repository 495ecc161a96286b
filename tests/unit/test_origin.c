/* SPDX-License-Identifier: GPL-2.0 */
/* What a store is given at once, when it is asked twice, and how much is asked for. */
#include <errno.h>

#include "../../userspace/chaind/origin.h"
#include "testing.h"

#define SECOND		1000000ULL
#define CONNECTIONS	64
#define MAX		48	/* three quarters */

/* As if a day had gone by; no time before it is ever asked for. */
static const uint64_t start = 86400 * SECOND;

/* A new one each time: origins are never freed. */
static struct origin *new_origin(void)
{
	static unsigned int nr;
	struct origin *o;
	char url[64];

	origin_setup(CONNECTIONS);
	snprintf(url, sizeof(url), "https://host%u/image", nr++);
	o = origin_of(url);
	assert_non_null(o);
	assert_int_equal(o->max, MAX);
	return o;
}

/* How many of the class fit, with @others of the other one running. */
static unsigned int room(struct origin *o, enum fetch_class class, unsigned int others,
			 uint64_t now)
{
	enum fetch_class other = class == FETCH_DEMAND ? FETCH_AHEAD : FETCH_DEMAND;
	unsigned int n = 0;

	o->running[other] = others;
	for (o->running[class] = 0; origin_has_room(o, class, now); o->running[class]++)
		n++;
	o->running[class] = 0;
	o->running[other] = 0;
	return n;
}

static void succeed(struct origin *o, unsigned int nr)
{
	while (nr--)
		origin_succeeded(o);
}

static void fails(struct origin *o, unsigned int nr)
{
	struct qc2_err err;

	qc2_fail(&err, EAGAIN, "no answer");
	while (nr--)
		origin_failed(o, &err, start);
}

static void test_names(void **state)
{
	static const char *const same[][2] = {
		{ "https://a.example/x", "https://a.example/y/z?q" },
		{ "https://a.example:8443/x", "https://a.example:8443" },
		{ "s3://bucket/a", "s3://bucket/b/c" },
		{ "azure://account/c/a", "azure://account/d/b" },
		{ "file:///a/b", "file:///c" },
	};
	static const char *const other[][2] = {
		{ "https://a.example/x", "http://a.example/x" },
		{ "https://a.example/x", "https://a.example:8443/x" },
		{ "https://a.example/x", "https://a.example.org/x" },
		{ "https://a.example.org/x", "https://a.example/x" },
		{ "s3://bucket/a", "s3://bucket2/a" },
	};
	size_t i;

	for (i = 0; i < sizeof(same) / sizeof(same[0]); i++)
		assert_ptr_equal(origin_of(same[i][0]), origin_of(same[i][1]));
	for (i = 0; i < sizeof(other) / sizeof(other[0]); i++)
		assert_ptr_not_equal(origin_of(other[i][0]), origin_of(other[i][1]));
	assert_true(origin_of("file:///a")->is_file);
	assert_false(origin_of("https://file/a")->is_file);
}

/* What is fetched ahead never takes the last quarter; what waits may take all. */
static void test_room(void **state)
{
	struct origin *o = new_origin();

	assert_int_equal(room(o, FETCH_DEMAND, 0, start), MAX);
	assert_int_equal(room(o, FETCH_DEMAND, 10, start), MAX - 10);
	assert_int_equal(room(o, FETCH_DEMAND, MAX, start), 0);
	assert_int_equal(room(o, FETCH_AHEAD, 0, start), MAX * 3 / 4);
	assert_int_equal(room(o, FETCH_AHEAD, 30, start), MAX * 3 / 4 - 30);
	assert_int_equal(room(o, FETCH_AHEAD, MAX * 3 / 4, start), 0);
	/* So there is room for one that waits. */
	assert_int_equal(room(o, FETCH_DEMAND, MAX * 3 / 4, start), MAX / 4);
}

static void test_cap(void **state)
{
	struct origin *o = new_origin();

	origin_cap(o, 1000);
	assert_int_equal(room(o, FETCH_DEMAND, 0, start), MAX);
	origin_cap(o, 8);
	assert_int_equal(room(o, FETCH_DEMAND, 0, start), 8);
	assert_int_equal(room(o, FETCH_AHEAD, 0, start), 6);
	/* It does not grow beyond. */
	succeed(o, 1000);
	assert_int_equal(room(o, FETCH_DEMAND, 0, start), 8);
}

/* With a single connection, what is ahead has it when nobody else does. */
static void test_one(void **state)
{
	struct origin *o = new_origin();

	origin_cap(o, 1);
	assert_int_equal(room(o, FETCH_DEMAND, 0, start), 1);
	assert_int_equal(room(o, FETCH_AHEAD, 0, start), 1);
	assert_int_equal(room(o, FETCH_AHEAD, 1, start), 0);
}

/* A store that does not answer is asked by few, until it does. */
static void test_failing(void **state)
{
	struct origin *o = new_origin();

	fails(o, 2);
	assert_int_equal(room(o, FETCH_DEMAND, 0, start), MAX);
	fails(o, 1);
	assert_in_range(room(o, FETCH_DEMAND, 0, start), 1, 2);
	assert_in_range(room(o, FETCH_AHEAD, 0, start), 0, 1);
	assert_string_equal(o->trouble.msg, "no answer");
	assert_int_equal(o->trouble_since_us, start);
	assert_int_equal(o->errors, 3);
	assert_true(origin_succeeded(o));
	assert_false(origin_succeeded(o));
	assert_string_equal(o->trouble.msg, "");
	assert_int_equal(room(o, FETCH_DEMAND, 0, start), MAX);
	/*
	 * In a row: with successes in between it is not one that fails, and each of them no
	 * reason to try at once what should rest.
	 */
	while (o->errors < 100) {
		fails(o, 2);
		assert_false(origin_succeeded(o));
	}
	assert_int_equal(room(o, FETCH_DEMAND, 0, start), MAX);
}

static void test_keys(void **state)
{
	struct origin *o = new_origin();

	o->needs_keys = true;
	assert_int_equal(room(o, FETCH_DEMAND, 0, start), 0);
	assert_int_equal(room(o, FETCH_AHEAD, 0, start), 0);
	o->needs_keys = false;
	assert_int_equal(room(o, FETCH_DEMAND, 0, start), MAX);
}

static void throttle(struct origin *o, unsigned int running, unsigned int ms, uint64_t now)
{
	o->running[FETCH_DEMAND] = running;
	struct qc2_err err;

	qc2_fail(&err, EAGAIN, "too many requests");
	origin_throttled(o, &err, ms, now);
	o->running[FETCH_DEMAND] = 0;
}

/* The answers of one overload cut once, whatever their number. */
static void test_cut(void **state)
{
	struct origin *o = new_origin();
	uint64_t now = start;
	unsigned int before, i;

	for (i = 0; i < 20; i++, now += SECOND / 25)
		throttle(o, MAX - 1 - i, 0, now);
	assert_int_equal(o->throttled, 20);
	before = room(o, FETCH_DEMAND, 0, now);
	assert_in_range(before, MAX / 2, MAX * 3 / 4);
	/* The next second is another one. */
	throttle(o, before, 0, start + SECOND);
	assert_in_range(room(o, FETCH_DEMAND, 0, start + SECOND), before / 2, before * 3 / 4);
	/* From what was running, not from what was allowed. */
	o = new_origin();
	throttle(o, 10, 0, start);
	assert_in_range(room(o, FETCH_DEMAND, 0, start), 5, 7);
	/* There is always one. */
	for (now = start, i = 0; i < 100; i++, now += SECOND)
		throttle(o, 0, 0, now);
	assert_int_equal(room(o, FETCH_DEMAND, 0, now), 1);
}

/* Successes give back what was cut, slower the more it is, and no more. */
static void test_growth(void **state)
{
	struct origin *o = new_origin();
	unsigned int cut, grown, n;

	throttle(o, MAX, 0, start);
	cut = room(o, FETCH_DEMAND, 0, start);
	succeed(o, cut - 1);
	assert_int_equal(room(o, FETCH_DEMAND, 0, start), cut);
	succeed(o, 1);
	assert_int_equal(room(o, FETCH_DEMAND, 0, start), cut + 1);
	grown = cut + 1;
	for (n = 0; room(o, FETCH_DEMAND, 0, start) < MAX; n++) {
		succeed(o, 1);
		assert_in_range(room(o, FETCH_DEMAND, 0, start), grown, grown + 1);
		grown = room(o, FETCH_DEMAND, 0, start);
	}
	assert_true(n > (MAX - cut) * cut / 2);
	succeed(o, 1000);
	assert_int_equal(room(o, FETCH_DEMAND, 0, start), MAX);
	/* A cut takes the successes before it, too. */
	throttle(o, MAX, 0, start + 10 * SECOND);
	cut = room(o, FETCH_DEMAND, 0, start + 10 * SECOND);
	succeed(o, cut - 1);
	throttle(o, cut, 0, start + 12 * SECOND);
	cut = room(o, FETCH_DEMAND, 0, start + 12 * SECOND);
	succeed(o, 1);
	assert_int_equal(room(o, FETCH_DEMAND, 0, start + 12 * SECOND), cut);
}

/* Nothing starts before the store wants it. */
static void test_pause(void **state)
{
	struct origin *o = new_origin();

	throttle(o, MAX, 5000, start);
	assert_int_equal(room(o, FETCH_DEMAND, 0, start), 0);
	assert_int_equal(room(o, FETCH_AHEAD, 0, start), 0);
	assert_int_equal(room(o, FETCH_DEMAND, 0, start + 5 * SECOND - 1), 0);
	/* A shorter one, that was on its way, does not end a longer one. */
	throttle(o, 3, 1000, start + SECOND);
	assert_int_equal(room(o, FETCH_DEMAND, 0, start + 5 * SECOND - 1), 0);
	assert_true(room(o, FETCH_DEMAND, 0, start + 5 * SECOND) > 0);
}

/* From the percentiles of what was seen, when that is enough. */
static void test_hedge_time(void **state)
{
	struct origin *o = new_origin();
	unsigned int i;

	for (i = 0; i < 10; i++) {
		origin_first_byte(o, 30000);
		assert_int_equal(origin_hedge_us(o), 0);
	}
	for (; i < 1000; i++)
		origin_first_byte(o, i % 100 ? 30000 : 2 * SECOND);
	/* Not before nearly all have come, nor as late as the slow ones. */
	assert_in_range(origin_hedge_us(o), 30000, 40000);
	/* What is slow on the whole is not hurried. */
	for (i = 0; i < 3000; i++)
		origin_first_byte(o, i % 10 ? 30000 : SECOND);
	assert_true(origin_hedge_us(o) >= SECOND);
	/* The jitter of a near network is no reason. */
	o = new_origin();
	for (i = 0; i < 1000; i++)
		origin_first_byte(o, 100);
	assert_true(origin_hedge_us(o) >= 1000);
}

/* However many would like one, three in a hundred are sent. */
static void test_hedge_budget(void **state)
{
	struct origin *o = new_origin();
	unsigned int i, hedges = 0;

	assert_false(origin_take_hedge(o, start));
	for (i = 1; i <= 10000; i++) {
		origin_earn_hedge(o);
		hedges += origin_take_hedge(o, start + i);
		assert_true(hedges * 100 <= i * 3);
	}
	assert_int_equal(hedges, 300);
	assert_int_equal(o->hedges, 300);
	/* What a quiet time saves is not more than a few. */
	for (i = 0; i < 10000; i++)
		origin_earn_hedge(o);
	for (hedges = 0; origin_take_hedge(o, start + SECOND); )
		hedges++;
	assert_in_range(hedges, 1, 5);
}

/* Who is asked for less gets no second requests. */
static void test_hedge_throttled(void **state)
{
	struct origin *o = new_origin();
	unsigned int i;

	for (i = 0; i < 1000; i++)
		origin_earn_hedge(o);
	assert_true(origin_take_hedge(o, start));
	throttle(o, MAX, 0, start);
	assert_false(origin_take_hedge(o, start));
	assert_false(origin_take_hedge(o, start + 9 * SECOND));
	assert_true(origin_take_hedge(o, start + 11 * SECOND));
	throttle(o, MAX, 60000, start + 12 * SECOND);
	assert_false(origin_take_hedge(o, start + 40 * SECOND));
	assert_true(origin_take_hedge(o, start + 73 * SECOND));
}

/* A chunk takes about as long as the wait for it. */
static void test_chunk(void **state)
{
	struct origin *o = new_origin();
	uint64_t least = origin_chunk(o);
	unsigned int i;

	assert_int_equal(least % 65536, 0);
	for (i = 0; i < 100; i++)
		origin_first_byte(o, 20000);
	assert_int_equal(origin_chunk(o), least);
	for (i = 0; i < 100; i++)
		origin_body(o, 1 << 20, 20972);		/* 50 MB/s */
	assert_in_range(o->bandwidth, 49000000, 51000000);
	assert_in_range(origin_chunk(o), 50000000 / 50, 50000000 / 50 * 5 / 4);
	/* What comes with the first bytes says nothing. */
	for (i = 0; i < 100; i++)
		origin_body(o, 4096, 0);
	assert_in_range(o->bandwidth, 49000000, 51000000);
	/* Between limits, whatever is measured. */
	for (i = 0; i < 100; i++)
		origin_body(o, 1 << 20, 0);
	assert_int_equal(origin_chunk(o), 2 << 20);
	for (i = 0; i < 1000; i++)
		origin_body(o, 1 << 20, 3600 * SECOND);
	assert_int_equal(origin_chunk(o), least);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_room),
		cmocka_unit_test(test_cap),
		cmocka_unit_test(test_one),
		cmocka_unit_test(test_failing),
		cmocka_unit_test(test_keys),
		cmocka_unit_test(test_cut),
		cmocka_unit_test(test_growth),
		cmocka_unit_test(test_pause),
		cmocka_unit_test(test_hedge_time),
		cmocka_unit_test(test_hedge_budget),
		cmocka_unit_test(test_hedge_throttled),
		cmocka_unit_test(test_chunk),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
