/* SPDX-License-Identifier: GPL-2.0 */
/*
 * AWS Signature Version 4, against what AWS publishes:
 * - "Signature Calculations for the Authorization Header: Transferring Payload in a
 *   Single Chunk", examples, in the API reference of Amazon S3;
 * - the signing test suite in awslabs/aws-c-auth, tests/aws-signing-test-suite/v4.
 */
#include <stdbool.h>

#include "sigv4.h"
#include "testing.h"

#define EMPTY	"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

struct vector {
	const char *name;
	const char *method, *path, *query;
	const char *headers[8];
	const char *hash;	/* NULL: of an empty body */
	const char *signed_headers, *signature;
};

static const struct vector s3_examples[] = {
	{ "GET Object", "GET", "/test.txt", "",
	  { "Host: examplebucket.s3.amazonaws.com", "Range: bytes=0-9",
	    "x-amz-content-sha256: " EMPTY, "x-amz-date: 20130524T000000Z" },
	  NULL, "host;range;x-amz-content-sha256;x-amz-date",
	  "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41" },
	{ "PUT Object", "PUT", "/test%24file.text", "",
	  { "Host: examplebucket.s3.amazonaws.com", "Date: Fri, 24 May 2013 00:00:00 GMT",
	    "x-amz-date: 20130524T000000Z", "x-amz-storage-class: REDUCED_REDUNDANCY",
	    "x-amz-content-sha256: 44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072" },
	  "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072",
	  "date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class",
	  "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd" },
	{ "GET Bucket Lifecycle", "GET", "/", "lifecycle",
	  { "Host: examplebucket.s3.amazonaws.com", "x-amz-date: 20130524T000000Z",
	    "x-amz-content-sha256: " EMPTY },
	  NULL, "host;x-amz-content-sha256;x-amz-date",
	  "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543" },
	{ "Get Bucket (List Objects)", "GET", "/", "prefix=J&max-keys=2",
	  { "Host: examplebucket.s3.amazonaws.com", "x-amz-date: 20130524T000000Z",
	    "x-amz-content-sha256: " EMPTY },
	  NULL, "host;x-amz-content-sha256;x-amz-date",
	  "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7" },
};

#define SUITE_HEADERS	"Host:example.amazonaws.com", "X-Amz-Date:20150830T123600Z"

static const struct vector suite[] = {
	{ "get-vanilla-with-session-token", "GET", "/", "",
	  { SUITE_HEADERS,
	    "X-Amz-Security-Token:6e86291e8372ff2a2260956d9b8aae1d763fbf315fa00fa31553b73ebf194267" },
	  NULL, "host;x-amz-date;x-amz-security-token",
	  "07ec1639c89043aa0e3e2de82b96708f198cceab042d4a97044c66dd9f74e7f8" },
	{ "get-vanilla-query-order-encoded", "GET", "/",
	  "Param-3=Value3&Param=Value2&%E1%88%B4=Value1", { SUITE_HEADERS },
	  NULL, "host;x-amz-date",
	  "371d3713e185cc334048618a97f809c9ffe339c62934c032af5a0e595648fcac" },
	{ "get-utf8", "GET", "/%E1%88%B4", "", { SUITE_HEADERS },
	  NULL, "host;x-amz-date",
	  "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85" },
	{ "get-vanilla-utf8-query", "GET", "/", "%E1%88%B4=bar", { SUITE_HEADERS },
	  NULL, "host;x-amz-date",
	  "2cdec8eed098649ff3a119c94853b13c643bcf08f8b0a1d91e12c9027818dd04" },
	{ "get-header-value-trim", "GET", "/", "",
	  { SUITE_HEADERS, "My-Header2: \"a   b   c\"", "My-Header1: value1", "Expect:" },
	  NULL, "host;my-header1;my-header2;x-amz-date",
	  "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736" },
	{ "post-x-www-form-urlencoded", "POST", "/", "",
	  { SUITE_HEADERS, "Content-Type:application/x-www-form-urlencoded",
	    "Content-Length:13",
	    "x-amz-content-sha256:9095672bbd1f56dfc5b65f3e153adc8731a4a654192329106275f4c7b24d0b6e" },
	  "9095672bbd1f56dfc5b65f3e153adc8731a4a654192329106275f4c7b24d0b6e",
	  "content-length;content-type;host;x-amz-content-sha256;x-amz-date",
	  "d3875051da38690788ef43de4db0d8f280229d82040bfac253562e56c3f20e0b" },
};

static void check(const struct vector *v, struct qc2_sigv4 req, const char *credential)
{
	struct curl_slist *headers = NULL;
	char *line, *expected;

	for (size_t i = 0; v->headers[i]; i++)
		headers = curl_slist_append(headers, v->headers[i]);
	req.method = v->method;
	req.path = v->path;
	req.query = v->query;
	req.headers = headers;
	req.payload_hash = v->hash ? v->hash : EMPTY;
	req.region = "us-east-1";
	line = qc2_sigv4(&req);
	assert_non_null(line);
	assert_true(asprintf(&expected, "Authorization: AWS4-HMAC-SHA256 Credential=%s/aws4_request, SignedHeaders=%s, Signature=%s",
			     credential, v->signed_headers, v->signature) > 0);
	if (strcmp(line, expected))
		fail_msg("%s: %s", v->name, line);
	free(expected);
	free(line);
	curl_slist_free_all(headers);
}

static void test_s3_examples(void **state)
{
	struct qc2_sigv4 req = {
		.id = "AKIAIOSFODNN7EXAMPLE",
		.secret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
		.service = "s3", .time = 1369353600,
	};

	for (size_t i = 0; i < sizeof(s3_examples) / sizeof(s3_examples[0]); i++)
		check(&s3_examples[i], req, "AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3");
}

static void test_suite(void **state)
{
	struct qc2_sigv4 req = {
		.id = "AKIDEXAMPLE", .secret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
		.service = "service", .time = 1440938160,
	};

	for (size_t i = 0; i < sizeof(suite) / sizeof(suite[0]); i++)
		check(&suite[i], req, "AKIDEXAMPLE/20150830/us-east-1/service");
}

static void test_date(void **state)
{
	char date[QC2_SIGV4_DATE_LEN];

	qc2_sigv4_date(1369353600, date);
	assert_string_equal(date, "20130524T000000Z");
	qc2_sigv4_date(1440938160, date);
	assert_string_equal(date, "20150830T123600Z");
}

static void test_hash(void **state)
{
	char hex[QC2_SHA256_HEX_LEN];

	qc2_sha256_hex("", 0, hex);
	assert_string_equal(hex, EMPTY);
	/* of the example PUT Object */
	qc2_sha256_hex("Welcome to Amazon S3.", 21, hex);
	assert_string_equal(hex, s3_examples[1].hash);
}

static void test_encode(void **state)
{
	static const struct {
		const char *text;
		char keep;
		const char *encoded;
	} cases[] = {
		{ "test$file.text", '/', "test%24file.text" },
		{ "/a/b c", '/', "/a/b%20c" },
		{ "/a", 0, "%2Fa" },
		{ "-._~%+=&\303\274\\", 0, "-._~%25%2B%3D%26%C3%BC%5C" },
		{ "", 0, "" },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char *text = qc2_sigv4_encode(cases[i].text, cases[i].keep);

		assert_string_equal(text, cases[i].encoded);
		free(text);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_s3_examples),
		cmocka_unit_test(test_suite),
		cmocka_unit_test(test_date),
		cmocka_unit_test(test_hash),
		cmocka_unit_test(test_encode),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
