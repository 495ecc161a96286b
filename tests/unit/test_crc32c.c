/* SPDX-License-Identifier: GPL-2.0 */
/* CRC-32C against the published values (RFC 3720, appendix B.4). */
#include "crc32c.h"
#include "testing.h"

static void test_known_answers(void **state)
{
	uint8_t buf[32];
	int i;

	assert_int_equal(qc2_crc32c(0, "", 0), 0);
	assert_int_equal(qc2_crc32c(0, "123456789", 9), 0xe3069283);
	memset(buf, 0, 32);
	assert_int_equal(qc2_crc32c(0, buf, 32), 0x8a9136aa);
	memset(buf, 0xff, 32);
	assert_int_equal(qc2_crc32c(0, buf, 32), 0x62a8ab43);
	for (i = 0; i < 32; i++)
		buf[i] = i;
	assert_int_equal(qc2_crc32c(0, buf, 32), 0x46dd794e);
	for (i = 0; i < 32; i++)
		buf[i] = 31 - i;
	assert_int_equal(qc2_crc32c(0, buf, 32), 0x113fdb5c);
}

static void test_in_pieces(void **state)
{
	uint32_t crc = qc2_crc32c(0, "1234", 4);

	assert_int_equal(qc2_crc32c(crc, "56789", 5), 0xe3069283);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_known_answers),
		cmocka_unit_test(test_in_pieces),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
