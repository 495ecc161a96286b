/* SPDX-License-Identifier: GPL-2.0 */
/* Which addresses are local, from the first to the last of each range. */
#include <arpa/inet.h>

#include "address.h"
#include "testing.h"

static const char *kind(const char *text)
{
	struct sockaddr_in6 v6 = { .sin6_family = AF_INET6 };
	struct sockaddr_in v4 = { .sin_family = AF_INET };
	char shown[QC2_ADDRESS_LEN] = "";
	const char *what;

	if (inet_pton(AF_INET, text, &v4.sin_addr) == 1) {
		what = qc2_address_local((struct sockaddr *)&v4, shown);
	} else {
		assert_int_equal(inet_pton(AF_INET6, text, &v6.sin6_addr), 1);
		what = qc2_address_local((struct sockaddr *)&v6, shown);
	}
	assert_string_equal(shown, what ? text : "");
	return what ? what : "other";
}

static void test_kinds(void **state)
{
	static const char *const table[][2] = {
		{ "0.0.0.0", "unspecified" },
		{ "0.255.255.255", "unspecified" },
		{ "1.0.0.0", "other" },
		{ "126.255.255.255", "other" },
		{ "127.0.0.0", "loopback" },
		{ "127.0.0.1", "loopback" },
		{ "127.255.255.255", "loopback" },
		{ "128.0.0.0", "other" },
		{ "169.253.255.255", "other" },
		{ "169.254.0.0", "link-local" },
		{ "169.254.169.254", "link-local" },
		{ "169.254.255.255", "link-local" },
		{ "169.255.0.0", "other" },
		{ "100.100.100.200", "metadata" },
		{ "100.100.100.201", "other" },
		{ "168.63.129.16", "metadata" },
		{ "10.0.0.1", "other" },
		{ "192.168.1.1", "other" },
		{ "255.255.255.255", "other" },
		{ "::", "unspecified" },
		{ "::1", "loopback" },
		{ "::2", "other" },
		{ "::ffff:127.0.0.1", "loopback" },
		{ "::ffff:0.0.0.0", "unspecified" },
		{ "::ffff:169.254.169.254", "link-local" },
		{ "::ffff:10.0.0.1", "other" },
		{ "fe7f:ffff::", "other" },
		{ "fe80::", "link-local" },
		{ "febf:ffff::1", "link-local" },
		{ "fec0::", "other" },
		{ "fd00:ec2::254", "metadata" },
		{ "fd00:ec1::254", "other" },
		{ "fd20:ce::254", "metadata" },
		{ "2001:db8::1", "other" },
	};
	struct sockaddr unix_addr = { .sa_family = AF_UNIX };
	char text[QC2_ADDRESS_LEN];

	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
		if (strcmp(kind(table[i][0]), table[i][1]))
			fail_msg("%s is %s, not %s", table[i][0], kind(table[i][0]),
				 table[i][1]);
	assert_null(qc2_address_local(&unix_addr, text));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_kinds),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
