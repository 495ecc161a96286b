/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Azure's Shared Key.  Microsoft's REST reference ("Authorize with Shared Key")
 * gives examples of the string that is signed, but not the key of its signatures;
 * the signature is that of a list request to the emulator, with the key that
 * everybody's emulator has, which another implementation arrives at as well.
 */
#include <errno.h>

#include "azure_key.h"
#include "testing.h"

/* Published in the documentation of the storage emulator and of Azurite. */
#define EMULATOR_KEY	\
	"Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="

static struct curl_slist *list(const char *const *lines)
{
	struct curl_slist *headers = NULL;

	for (; *lines; lines++)
		headers = curl_slist_append(headers, *lines);
	return headers;
}

static void string_is(struct qc2_azure_key req, const char *const *lines,
		      const char *expected)
{
	struct curl_slist *headers = list(lines);
	char *text;

	req.headers = headers;
	text = qc2_azure_string(&req);
	assert_string_equal(text, expected);
	free(text);
	curl_slist_free_all(headers);
}

static void test_documented(void **state)
{
	static const char *const get[] = {
		"x-ms-version: 2015-02-21", "x-ms-date: Fri, 26 Jun 2015 23:39:12 GMT", NULL
	};
	static const char *const put[] = {
		"x-ms-version: 2015-02-21", "x-ms-date: Fri, 26 Jun 2015 23:39:12 GMT",
		"Content-Type: text/plain; charset=UTF-8", "x-ms-blob-type: BlockBlob",
		"x-ms-blob: z", "Range: bytes=0-9", "If-None-Match: *", NULL
	};

	/* Get Container Metadata, the example of the reference. */
	string_is((struct qc2_azure_key){
			.method = "GET", .account = "myaccount", .path = "/mycontainer",
			.query = "comp=metadata&restype=container&timeout=20",
		  }, get,
		  "GET\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:Fri, 26 Jun 2015 23:39:12 GMT\nx-ms-version:2015-02-21\n/myaccount/mycontainer\ncomp:metadata\nrestype:container\ntimeout:20");
	/* Each header has its line; a shorter name sorts before a longer one. */
	string_is((struct qc2_azure_key){
			.method = "PUT", .account = "myaccount", .path = "/c/a%20b",
			.query = "comp=block&blockid=AA%3D%3D", .content_length = 11,
		  }, put,
		  "PUT\n\n\n11\n\ntext/plain; charset=UTF-8\n\n\n\n*\n\nbytes=0-9\nx-ms-blob:z\nx-ms-blob-type:BlockBlob\nx-ms-date:Fri, 26 Jun 2015 23:39:12 GMT\nx-ms-version:2015-02-21\n/myaccount/c/a%20b\nblockid:AA==\ncomp:block");
}

static void test_signature(void **state)
{
	static const char *const lines[] = {
		"x-ms-version: 2021-08-06", "x-ms-date: Wed, 12 Aug 2026 17:16:08 GMT", NULL
	};
	struct curl_slist *headers = list(lines);
	struct qc2_azure_key req = {
		.method = "GET", .account = "devstoreaccount1", .key = EMULATOR_KEY,
		.path = "/devstoreaccount1/photos", .query = "restype=container&comp=list",
		.headers = headers,
	};
	char *line;

	assert_int_equal(qc2_azure_key(&req, &line), 0);
	assert_string_equal(line, "Authorization: SharedKey devstoreaccount1:U4xEJ6UMPTYUbr+ETQL0ChekeOV8bmwueNq48b+QccI=");
	free(line);
	req.key = "no base64!!!";
	assert_int_equal(qc2_azure_key(&req, &line), -EINVAL);
	req.key = "";
	assert_int_equal(qc2_azure_key(&req, &line), -EINVAL);
	curl_slist_free_all(headers);
}

static void test_date(void **state)
{
	char date[QC2_HTTP_DATE_LEN];

	qc2_http_date(1435361952, date);
	assert_string_equal(date, "Fri, 26 Jun 2015 23:39:12 GMT");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_documented),
		cmocka_unit_test(test_signature),
		cmocka_unit_test(test_date),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
