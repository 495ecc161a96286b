/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the unit tests share: cmocka with what it needs before it, and checks
 * of error texts.
 */
#ifndef QC2_TEST_TESTING_H
#define QC2_TEST_TESTING_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* An error's text must have this in it. */
#define assert_in(text, part) do {					\
	if (!strstr(text, part))					\
		fail_msg("no \"%s\" in \"%s\"", part, text);		\
} while (0)

#define assert_not_in(text, part) do {					\
	if (strstr(text, part))						\
		fail_msg("\"%s\" in \"%s\"", part, text);		\
} while (0)

#define assert_ok(ret, err) do {					\
	int ret_ = (ret);						\
	if (ret_)							\
		fail_msg("returned %d: %s", ret_, (err).msg);		\
} while (0)

/* Deterministic pseudo-random numbers, the same on every machine. */
static inline uint32_t test_random(uint64_t *state)
{
	*state = *state * 6364136223846793005ULL + 1442695040888963407ULL;
	return *state >> 33;
}

#endif
