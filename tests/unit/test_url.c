/* SPDX-License-Identifier: GPL-2.0 */
/* URLs: the canonical form, backing file names, attempts to escape. */
#include <errno.h>

#include "testing.h"
#include "url.h"

static void top_is(const char *url, const char *expected, bool raw,
		   const char *snapshot)
{
	struct qc2_err err = { "" };
	struct qc2_top top;

	assert_ok(qc2_url_top(url, &top, &err), err);
	assert_string_equal(top.url, expected);
	assert_int_equal(top.raw, raw);
	assert_int_equal(!!top.snapshot, !!snapshot);
	if (snapshot)
		assert_string_equal(top.snapshot, snapshot);
	qc2_top_free(&top);
}

static void top(const char *url, const char *expected, bool raw)
{
	top_is(url, expected, raw, NULL);
}

static void top_fails(const char *url, const char *text)
{
	struct qc2_err err = { "" };
	struct qc2_top top;

	if (!qc2_url_top(url, &top, &err))
		fail_msg("%s became %s", url, top.url);
	assert_null(top.url);
	assert_in(err.msg, text);
}

static void test_snapshot(void **state)
{
	struct qc2_err err = { "" };
	struct qc2_top top;
	char *text;

	top_is("HTTP://H/x#snapshot=a b", "http://h/x", false, "a b");
	top_is("http://h/x#snapshot=#format=raw", "http://h/x", false,
	       "#format=raw");
	top_fails("http://h/x#snapshot=", "name of the snapshot is missing");
	top_fails("http://h/x#snapshot=a\nb", "control character");
	top_fails("http://h/x#snapshots=a", "'#' in a URL");
	assert_int_equal(qc2_url_top("http://me:s3cret@h/x#snapshot=", &top,
				     &err), -EINVAL);
	assert_not_in(err.msg, "s3cret");

	/* What is shown means the same again. */
	assert_ok(qc2_url_top("HTTP://h/x#snapshot=s", &top, &err), err);
	text = qc2_top_text(&top);
	assert_string_equal(text, "http://h/x#snapshot=s");
	free(text);
	qc2_top_free(&top);
	assert_ok(qc2_url_top("HTTP://h/x#format=raw", &top, &err), err);
	text = qc2_top_text(&top);
	assert_string_equal(text, "http://h/x#format=raw");
	free(text);
	qc2_top_free(&top);
}

static void test_canonical(void **state)
{
	top("file:///a/b.qcow2", "file:///a/b.qcow2", false);
	top("FILE://localhost/a", "file:///a", false);
	top("file:////a//b", "file:///a/b", false);
	top("file:///a/./b/../c", "file:///a/c", false);
	top("file:///../../a", "file:///a", false);
	top("file:///a b%41%2d\303\274", "file:///a%20bA-%C3%BC", false);
	top("file:///a?b", "file:///a%3Fb", false);
	top("HTTP://Example.COM:80/Dir/x", "http://example.com:80/Dir/x", false);
	top("https://[::1]:8443/x", "https://[::1]:8443/x", false);
	top("https://h/a//b", "https://h/a//b", false);
	top("https://h/%7euser/%e4", "https://h/~user/%E4", false);
	top("https://h/a/%2e%2E/b", "https://h/b", false);
	top("https://h/x?sig=a/../b&c=%2f d", "https://h/x?sig=a/../b&c=%2f%20d",
	    false);
}

static void test_buckets(void **state)
{
	struct qc2_err err;
	struct qc2_top top_image;
	char *url;

	top("S3://my-bucket.1/a/b.qcow2", "s3://my-bucket.1/a/b.qcow2", false);
	top("s3://bucket/a//b", "s3://bucket/a//b", false);
	top("s3://bucket/x/../a b%41+$", "s3://bucket/a%20bA+$", false);
	top("s3://bucket/a%3fb", "s3://bucket/a%3Fb", false);
	top("s3://bucket/a#format=raw", "s3://bucket/a", true);
	top("azure://account1/c/b", "azure://account1/c/b", false);
	top("azure://account1/$web/a/b", "azure://account1/$web/a/b", false);
	top_fails("s3://ab/x", "bad name of a bucket");
	top_fails("s3://Bucket/x", "lower-case");
	top_fails("s3://-bucket/x", "bad name of a bucket");
	top_fails("s3://bucket-/x", "bad name of a bucket");
	top_fails("s3://buck_et/x", "bad name of a bucket");
	top_fails("s3://bucket:80/x", "endpoint");
	top_fails("s3:///x", "bad name of a bucket");
	top_fails("s3://bucket", "no path");
	top_fails("s3://bucket/", "folder");
	top_fails("s3://bucket/a%2fb", "%2F");
	top_fails("azure://my-account/c/b", "storage account");
	top_fails("azure://account1234567890123456789/c/b", "storage account");
	top_fails("azure://account/blob", "no container");
	top_fails("azure://account/c/..", "folder");
	assert_int_equal(qc2_url_top("s3://key:s3cret@bucket/x", &top_image, &err), -EINVAL);
	assert_not_in(err.msg, "s3cret");
	assert_int_equal(qc2_url_top("azure://account/c/b?sig=s3cret", &top_image, &err),
			 -EINVAL);
	assert_in(err.msg, "stores file");
	assert_not_in(err.msg, "s3cret");

	assert_ok(qc2_url_prefix("s3://bucket", &url, &err), err);
	assert_string_equal(url, "s3://bucket/");
	free(url);
	assert_ok(qc2_url_prefix("azure://account/c", &url, &err), err);
	assert_string_equal(url, "azure://account/c/");
	free(url);
}

static void test_keys(void **state)
{
	static const char *const keys[] = { "a", "a/b c", "100%", "a?b#c", "\303\274+$", "a//b" };
	static const char *const bad[] = { "a/../b", "./a", "a/", "", "a\nb", "a\\b" };
	struct qc2_err err;
	char *url, *key;
	size_t i;

	for (i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
		assert_ok(qc2_url_from_key("s3://bucket/x/y", keys[i], &url, &err), err);
		assert_int_equal(strncmp(url, "s3://bucket/", 12), 0);
		key = qc2_url_to_key(url);
		assert_string_equal(key, keys[i]);
		free(key);
		free(url);
	}
	assert_ok(qc2_url_from_key("azure://account/c/x/", "a/b c", &url, &err), err);
	assert_string_equal(url, "azure://account/c/a/b%20c");
	free(url);
	assert_true(qc2_url_from_key("azure://account/c/x/", "../d/x", &url, &err) < 0);
	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_true(qc2_url_from_key("s3://bucket/x/y", bad[i], &url, &err) < 0);
}

static void redirect(const char *from, const char *location, const char *prefix,
		     const char *expected)
{
	const char *const allow[] = { prefix };
	struct qc2_err err = { "" };
	char *target;

	assert_ok(qc2_url_redirect(from, location, allow, prefix ? 1 : 0, &target, &err), err);
	assert_string_equal(target, expected);
	free(target);
}

static void redirect_fails(const char *from, const char *location, const char *prefix,
			   const char *text)
{
	const char *const allow[] = { prefix };
	struct qc2_err err = { "" };
	char *target;

	assert_true(qc2_url_redirect(from, location, allow, prefix ? 1 : 0, &target, &err) < 0);
	assert_null(target);
	assert_in(err.msg, text);
	assert_not_in(err.msg, "s3cret");
}

static void test_redirect(void **state)
{
	redirect("http://h/a/b", "/c", NULL, "http://h/c");
	redirect("http://h/a/b", "c?x=1", NULL, "http://h/a/c?x=1");
	redirect("http://h/a", "https://h/b", NULL, "https://h/b");
	redirect("http://h:8080/a", "https://h:8443/b", NULL, "https://h:8443/b");
	redirect("http://[::1]:80/a", "https://[::1]/b", NULL, "https://[::1]/b");
	redirect("https://h/a", "https://cdn/pub/x?sig=1", "https://cdn/pub/",
		 "https://cdn/pub/x?sig=1");
	redirect_fails("https://h/a", "http://h/a", NULL, "redirects to http://h;");
	redirect_fails("http://h/a", "http://h:81/a", NULL, "redirects to http://h:81;");
	redirect_fails("http://h/a", "https://h2/a?sig=s3cret", NULL, "https://h2;");
	redirect_fails("http://h/a", "https://h.evil/a", NULL, "https://h.evil;");
	redirect_fails("http://h/a", "//evil/a", NULL, "add http://evil/ to \"allow\"");
	redirect_fails("http://h/a", "https://cdn/public", "https://cdn/pub/", "https://cdn;");
	redirect_fails("http://h/a", "file:///etc/passwd", NULL, "redirects to file://;");
	redirect_fails("http://h/a", "ftp://h/s3cret", NULL, "no usable URL");
	redirect_fails("http://h/a", "https://me:s3cret@h/", NULL, "no usable URL");
	assert_true(qc2_url_same_origin("http://h/a", "http://h/b"));
	assert_false(qc2_url_same_origin("http://h/a", "http://h:80/b"));
	assert_false(qc2_url_same_origin("http://h/a", "https://h/b"));
}

static void test_format_suffix(void **state)
{
	top("https://h/x#format=raw", "https://h/x", true);
	top("https://h/x?q#format=raw", "https://h/x?q", true);
	top_fails("https://h/x#format=vmdk", "#format=raw");
	top_fails("https://h/x#", "%23");
	top_fails("#format=raw", "not a URL");
}

static void test_bad_urls(void **state)
{
	top_fails("", "not a URL");
	top_fails("/a/b", "file:///");
	top_fails("ftp://h/x", "http://");
	top_fails("http:/h/x", "not a URL");
	top_fails("file://host/x", "names no host");
	top_fails("file://?x", "names no host");
	top_fails("file://localhost?/x", "names no host");
	top_fails("http:///x", "host");
	top_fails("http://h", "no path");
	top_fails("http://h/", "folder");
	top_fails("http://h/a/", "folder");
	top_fails("http://h/a/..", "folder");
	top_fails("http://h:0/x", "host");
	top_fails("http://h:65536/x", "host");
	top_fails("http://h:99999999999999999999/x", "host");
	top_fails("http://h:/x", "host");
	top_fails("http://h:8x/x", "host");
	top_fails("http://[::1/x", "host");
	top_fails("http://[]/x", "host");
	top_fails("http://a b/x", "host");
	top_fails("http://h\\x/y", "host");
	top_fails("http://h/a\nHost: evil", "control character");
	top_fails("http://h/a\177", "control character");
	top_fails("http://h/%0d%0aX", "%0D");
	top_fails("http://h/%00", "%00");
	top_fails("http://h/a%2fb", "%2F");
	top_fails("file:///a%2fb", "%2F");
	top_fails("http://h/%", "%25");
	top_fails("http://h/%4", "%25");
	top_fails("http://h/%zz", "%25");
	top_fails("http://h/a\\..\\b", "backslash");
	top_fails("http://h/a%5c..%5cb", "backslash");
}

static void test_password_is_not_repeated(void **state)
{
	struct qc2_err err;
	struct qc2_top top;

	assert_int_equal(qc2_url_top("https://me:s3cret@h/x", &top, &err),
			 -EINVAL);
	assert_in(err.msg, "password");
	assert_not_in(err.msg, "s3cret");
	assert_not_in(err.msg, "me:");
	/* not even with other mistakes in the URL */
	assert_int_equal(qc2_url_top("https://me:s3cret@h/\n%%", &top, &err),
			 -EINVAL);
	assert_not_in(err.msg, "s3cret");
}

static void test_too_long(void **state)
{
	char *url = malloc(20001);

	memset(url, 'a', 20000);
	url[20000] = '\0';
	memcpy(url, "http://h/", 9);
	top_fails(url, "longer than");
	/* What is taken is so short that its canonical form is, too. */
	memset(url + 9, '\303', 3000);
	url[9 + 3000] = '\0';
	top_fails(url, "when percent-encoded");
	free(url);
}

static void resolve(const char *base, const char *name, const char *expected)
{
	struct qc2_err err;
	char *canonical;

	assert_ok(qc2_url_resolve(base, name, &canonical, &err), err);
	assert_string_equal(canonical, expected);
	free(canonical);
}

static void resolve_fails(const char *base, const char *name, const char *text)
{
	struct qc2_err err = { "" };
	char *canonical = NULL;

	if (!qc2_url_resolve(base, name, &canonical, &err))
		fail_msg("%s became %s", name, canonical);
	assert_in(err.msg, base);
	assert_in(err.msg, text);
}

static void test_resolve(void **state)
{
	const char *file = "file:///dir/top.qcow2";
	const char *web = "https://h/dir/top.qcow2?sig=a/b";

	resolve(file, "base.qcow2", "file:///dir/base.qcow2");
	resolve(file, "./a:b", "file:///dir/a:b");
	resolve(file, "../x/base", "file:///x/base");
	resolve(file, "/abs/x y", "file:///abs/x%20y");
	resolve(file, "100%", "file:///dir/100%25");
	resolve(file, "a%20b#c?d", "file:///dir/a%2520b%23c%3Fd");
	resolve(file, "back\\slash", "file:///dir/back%5Cslash");
	resolve(file, "file:///other/x", "file:///other/x");
	resolve(file, "http://h/x", "http://h/x");
	resolve(web, "base.qcow2", "https://h/dir/base.qcow2");
	resolve(web, "sub/../base", "https://h/dir/base");
	resolve(web, "a b", "https://h/dir/a%20b");
	resolve(web, "a%20b", "https://h/dir/a%20b");
	resolve(web, "base?sig=x", "https://h/dir/base?sig=x");
	resolve(web, "a#b", "https://h/dir/a%23b");
	resolve("s3://bucket/dir/top", "base a", "s3://bucket/dir/base%20a");
	resolve("s3://bucket/dir/top", "../base", "s3://bucket/base");
	resolve("s3://bucket/top", "s3://other/base", "s3://other/base");
	resolve("azure://account/c/top", "base", "azure://account/c/base");
	resolve_fails("s3://bucket/top", "/etc/passwd", "rebase");
	resolve_fails("s3://bucket/top", "base?x", "'?'");
	resolve_fails("azure://account/c/top", "../base", "no container");

	resolve_fails(web, "/etc/passwd", "rebase");
	resolve_fails(web, "//evil/x", "rebase");
	resolve_fails(web, "..%2f..%2fx", "%2F");
	resolve_fails(web, "..\\x", "backslash");
	resolve_fails(file, "json:{\"driver\":\"raw\"}", "json:");
	resolve_fails(file, "nbd:localhost:10809", "\"nbd:\"");
	resolve_fails(file, "rbd:pool/image", "\"rbd:\"");
	resolve_fails(file, "file:x", "\"file:\"");
	resolve_fails(file, "ssh://h/x", "file:///");
	resolve_fails(file, "http://u:geheim@h/x", "password");
	resolve_fails(file, "a\nb", "%0A");
	resolve_fails(file, "sub/", "folder");
	resolve_fails(file, "..", "folder");
	resolve_fails(web, "", "folder");
}

static int allowed(const char *url, const char *top_url, const char *prefix,
		   struct qc2_err *err)
{
	const char *const allow[] = { prefix };

	return qc2_url_allowed(url, top_url, allow, prefix ? 1 : 0, err);
}

static void test_allowed(void **state)
{
	const char *web = "https://h/images/a/top.qcow2?x=/y";
	struct qc2_err err;

	assert_int_equal(allowed("https://h/images/a/base", web, NULL, &err), 0);
	assert_int_equal(allowed("https://h/images/a/b/c", web, NULL, &err), 0);
	assert_int_equal(allowed("https://h/images/b", web, NULL, &err),
			 -EACCES);
	assert_in(err.msg, "add https://h/images/ to \"allow\"");
	assert_int_equal(allowed("https://h/images/ab", web, NULL, &err),
			 -EACCES);
	assert_int_equal(allowed("http://h/images/a/x", web, NULL, &err),
			 -EACCES);
	assert_int_equal(allowed("https://h2/images/a/x", web, NULL, &err),
			 -EACCES);
	assert_int_equal(allowed("file:///etc/passwd", web, NULL, &err),
			 -EACCES);

	assert_int_equal(allowed("https://h2/pub/x", web, "https://h2/pub/",
				 &err), 0);
	assert_int_equal(allowed("https://h2/public/x", web, "https://h2/pub",
				 &err), -EACCES);
	assert_int_equal(allowed("https://h2.evil/x", web, "https://h2", &err),
			 -EACCES);
	assert_int_equal(allowed("https://h2/x", web, "", &err), -EACCES);
	assert_int_equal(allowed("s3://bucket/a/x", "s3://bucket/a/top", NULL, &err), 0);
	assert_int_equal(allowed("s3://bucket/b", "s3://bucket/a/top", NULL, &err), -EACCES);
	assert_int_equal(allowed("s3://bucket2/a/x", "s3://bucket/a/top", NULL, &err), -EACCES);
	assert_int_equal(allowed("s3://bucket2/a/x", "s3://bucket/a/top", "s3://bucket2/", &err),
			 0);
}

/* What an image names is no better for being on this machine. */
static void test_local_addresses(void **state)
{
	static const char *const urls[] = {
		"http://127.0.0.1/x", "http://localhost/x", "http://[::1]/x",
		"http://0.0.0.0/x", "http://127.1/x", "http://2130706433/x",
		"http://[::ffff:127.0.0.1]/x", "http://[fe80::1]/x",
		"http://169.254.169.254/latest/meta-data", "http://[fd00:ec2::254]/x",
		"http://h:8080/images/x", "http://127.0.0.1:81/images/x",
		"file:///images/x", "file://localhost/images/x",
	};
	static const char *const tops[] = {
		"http://h/images/top", "http://127.0.0.1:80/images/top",
		"http://localhost:8080/images/top",
	};
	struct qc2_err err;
	char *url;
	size_t i, k;

	for (i = 0; i < sizeof(urls) / sizeof(urls[0]); i++) {
		for (k = 0; k < sizeof(tops) / sizeof(tops[0]); k++) {
			assert_ok(qc2_url_resolve(tops[k], urls[i], &url, &err), err);
			assert_int_equal(allowed(url, tops[k], NULL, &err), -EACCES);
			assert_in(err.msg, "\"allow\"");
			free(url);
		}
	}
	assert_int_equal(allowed("http://127.0.0.1/x", tops[0], "http://127.0.0.1/",
				 &err), 0);
	assert_int_equal(allowed("http://127.0.0.1:80/images/x", tops[1], NULL, &err), 0);
}

static void test_has_name(void **state)
{
	assert_true(qc2_url_has_name("http://h/x"));
	assert_true(qc2_url_has_name("https://cdn.example:8080/x"));
	assert_true(qc2_url_has_name("http://localhost.example/x"));
	assert_true(qc2_url_has_name("http://notlocalhost/x"));
	/* Forms of an address that libcurl understands, and others. */
	assert_true(qc2_url_has_name("http://127.1/x"));
	assert_true(qc2_url_has_name("http://2130706433/x"));
	assert_true(qc2_url_has_name("http://0x7f.0.0.1/x"));
	assert_true(qc2_url_has_name("http://127.0.0.1.example/x"));
	assert_false(qc2_url_has_name("http://127.0.0.1/x"));
	assert_false(qc2_url_has_name("http://169.254.169.254:80/x"));
	assert_false(qc2_url_has_name("http://[::1]:8080/x"));
	assert_false(qc2_url_has_name("http://localhost/x"));
	assert_false(qc2_url_has_name("http://images.localhost:7480/x"));
	assert_false(qc2_url_has_name("file:///localhost/x"));
	assert_false(qc2_url_has_name("s3://bucket/x"));
	assert_false(qc2_url_has_name("azure://account/c/x"));
}

static void test_escapes_are_seen(void **state)
{
	static const char *const names[] = {
		"../x", "a/../../x", "./../x", "%2e%2e/x", ".%2E/x",
		"a/%2e%2e/%2e./x", "../images2/x", "https://h/images/../x",
		"https://h/images/%2e%2e/x",
	};
	const char *base = "https://h/images/top";
	struct qc2_err err;
	char *url;
	size_t i;

	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		assert_ok(qc2_url_resolve(base, names[i], &url, &err), err);
		assert_int_equal(allowed(url, base, NULL, &err), -EACCES);
		free(url);
	}
}

static void test_prefix(void **state)
{
	struct qc2_err err;
	char *prefix;

	assert_ok(qc2_url_prefix("https://H/a", &prefix, &err), err);
	assert_string_equal(prefix, "https://h/a/");
	free(prefix);
	assert_ok(qc2_url_prefix("https://h", &prefix, &err), err);
	assert_string_equal(prefix, "https://h/");
	free(prefix);
	assert_ok(qc2_url_prefix("file:///a/../b/", &prefix, &err), err);
	assert_string_equal(prefix, "file:///b/");
	free(prefix);
	assert_int_equal(qc2_url_prefix("https://h/a?b", &prefix, &err),
			 -EINVAL);
	assert_int_equal(qc2_url_prefix("", &prefix, &err), -EINVAL);
	assert_int_equal(qc2_url_prefix("*", &prefix, &err), -EINVAL);
}

static void test_paths(void **state)
{
	static const char *const paths[] = {
		"/a/b.qcow2", "/a b/c%20d", "/x#y?z;", "/\303\274/\\", "/a'b\"",
	};
	struct qc2_err err;
	char *url, *path;
	size_t i;

	for (i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
		assert_ok(qc2_url_from_path(paths[i], &url, &err), err);
		path = qc2_url_to_path(url);
		assert_string_equal(path, paths[i]);
		free(path);
		free(url);
	}
	assert_null(qc2_url_to_path("http://h/x"));
	assert_null(qc2_url_to_path("file://host/x"));
	path = qc2_url_to_path("file:///a%");
	assert_string_equal(path, "/a%");
	free(path);
	assert_int_equal(qc2_url_from_path("relative", &url, &err), -EINVAL);
	assert_int_equal(qc2_url_from_path("/line\nfeed", &url, &err), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_canonical),
		cmocka_unit_test(test_snapshot),
		cmocka_unit_test(test_buckets),
		cmocka_unit_test(test_keys),
		cmocka_unit_test(test_redirect),
		cmocka_unit_test(test_format_suffix),
		cmocka_unit_test(test_bad_urls),
		cmocka_unit_test(test_password_is_not_repeated),
		cmocka_unit_test(test_too_long),
		cmocka_unit_test(test_resolve),
		cmocka_unit_test(test_allowed),
		cmocka_unit_test(test_local_addresses),
		cmocka_unit_test(test_has_name),
		cmocka_unit_test(test_escapes_are_seen),
		cmocka_unit_test(test_prefix),
		cmocka_unit_test(test_paths),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
