/* SPDX-License-Identifier: GPL-2.0 */
/* Error texts: filled, prefixed, cut, made printable. */
#include <errno.h>

#include "err.h"
#include "testing.h"

static void test_fail_and_prefix(void **state)
{
	struct qc2_err err;

	assert_int_equal(qc2_fail(&err, EIO, "at %d", 7), -EIO);
	assert_string_equal(err.msg, "at 7");
	assert_int_equal(qc2_fail_prefix(&err, -EIO, "%s: ", "file"), -EIO);
	assert_string_equal(err.msg, "file: at 7");
}

static void test_nobody_asks(void **state)
{
	assert_int_equal(qc2_fail(NULL, EIO, "x"), -EIO);
	assert_int_equal(qc2_fail_prefix(NULL, -ENOENT, "x"), -ENOENT);
}

static void test_long_texts_are_cut(void **state)
{
	char big[3000];
	struct qc2_err err;

	memset(big, 'x', sizeof(big) - 1);
	big[sizeof(big) - 1] = '\0';
	qc2_fail(&err, EIO, "%s", big);
	assert_int_equal(strlen(err.msg), sizeof(err.msg) - 1);
	qc2_fail_prefix(&err, -EIO, "first: ");
	assert_int_equal(strlen(err.msg), sizeof(err.msg) - 1);
	assert_int_equal(strncmp(err.msg, "first: xxx", 10), 0);
	qc2_fail_prefix(&err, -EIO, "%s", big);
	assert_int_equal(strlen(err.msg), sizeof(err.msg) - 1);
}

static void test_printable(void **state)
{
	char buf[8];

	assert_string_equal(qc2_printable("a\033[\n\377b", 6, buf, sizeof(buf)),
			    "a?[??b");
	assert_string_equal(qc2_printable("abc", 2, buf, sizeof(buf)), "ab");
	assert_string_equal(qc2_printable("ab\0c", 4, buf, sizeof(buf)), "ab");
	assert_string_equal(qc2_printable("0123456789", 10, buf, sizeof(buf)),
			    "0123456");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_fail_and_prefix),
		cmocka_unit_test(test_nobody_asks),
		cmocka_unit_test(test_long_texts_are_cut),
		cmocka_unit_test(test_printable),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
