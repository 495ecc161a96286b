/* SPDX-License-Identifier: GPL-2.0 */
/* The stores file: every key, which section counts, and every kind of mistake. */
#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include "site.h"
#include "testing.h"

#define SECRET	"wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"

static char dir[] = "/tmp/qc2-site.XXXXXX";
static char path[64];

static int make_dir(void **state)
{
	static const char *const variables[] = {
		"AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE", "AWS_ACCESS_KEY_ID",
		"AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_KEY", "AZURE_STORAGE_SAS_TOKEN",
	};

	if (!mkdtemp(dir))
		return -1;
	for (size_t i = 0; i < sizeof(variables) / sizeof(variables[0]); i++)
		unsetenv(variables[i]);
	setenv("AWS_CONFIG_FILE", "/nonexistent", 1);
	setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent", 1);
	snprintf(path, sizeof(path), "%s/stores.conf", dir);
	return 0;
}

static int remove_dir(void **state)
{
	unlink(path);
	return rmdir(dir);
}

static void write_file(const char *text, size_t len)
{
	FILE *file = fopen(path, "w");

	assert_non_null(file);
	assert_int_equal(fchmod(fileno(file), 0600), 0);
	assert_int_equal(fwrite(text, 1, len, file), len);
	assert_int_equal(fclose(file), 0);
}

static struct qc2_sites *load(const char *text)
{
	struct qc2_sites *sites = NULL;
	struct qc2_err err;

	write_file(text, strlen(text));
	assert_ok(qc2_sites_load(path, &sites, &err), err);
	return sites;
}

static void refused_bytes(const char *text, size_t len, unsigned int line, const char *part)
{
	struct qc2_err err = { "" };
	struct qc2_sites *sites = (void *)&err;
	char where[96];

	write_file(text, len);
	assert_true(qc2_sites_load(path, &sites, &err) < 0);
	assert_null(sites);	/* so that whoever frees it may */
	snprintf(where, sizeof(where), line ? "%s:%u: " : "%s: ", path, line);
	assert_in(err.msg, where);
	assert_in(err.msg, part);
	assert_not_in(err.msg, SECRET);
}

static void refused(const char *text, unsigned int line, const char *part)
{
	refused_bytes(text, strlen(text), line, part);
}

/* The keys of a site that has them in the file. */
static struct qc2_keys *keys_of(struct qc2_site *site)
{
	struct qc2_keys *keys;
	struct qc2_err err;

	assert_non_null(site->creds);
	assert_ok(qc2_credentials_refresh(site->creds, &err), err);
	keys = qc2_credentials_get(site->creds);
	assert_non_null(keys);
	return keys;
}

static void test_defaults(void **state)
{
	struct qc2_sites *sites = load("# nothing\n");
	struct qc2_site *s3 = qc2_sites_find(sites, "s3://bucket/image");
	char region[QC2_REGION_LEN];

	assert_string_equal(s3->prefix, "s3://");
	assert_null(s3->endpoint);
	assert_true(s3->virtual_host && s3->http2);
	assert_non_null(s3->creds);
	qc2_site_region(s3, "s3://bucket/image", region);
	assert_string_equal(region, "us-east-1");
	assert_string_equal(qc2_sites_find(sites, "azure://acct/c/b")->prefix, "azure://");
	assert_null(qc2_sites_find(sites, "azure://acct/c/b")->creds);
	assert_string_equal(qc2_sites_find(sites, "http://h/i")->prefix, "http://");
	assert_string_equal(qc2_sites_find(sites, "https://h/i")->prefix, "https://");
	assert_null(qc2_sites_find(sites, "https://h/i")->creds);
	assert_string_equal(qc2_sites_find(sites, "file:///i")->prefix, "file://");
	assert_non_null(qc2_sites_find(sites, "what is this"));
	qc2_sites_free(sites);
}

static void test_every_key(void **state)
{
	struct qc2_sites *sites = load(
		"[s3://golden/] ; ours\n"
		"endpoint = https://Rgw.example:7480/\nregion = here-1\nstyle = virtual\n"
		"access_key = AKIDEXAMPLE\nsecret_key = " SECRET "\nsession_token = tok==\n"
		"ca_file = /etc/ca.pem\nproxy = http://u:p@proxy:3128\nhttp2 = no\n"
		"connections = 7\nidle_s = 5\n"
		"replica = s3://silver/x\nreplica = https://mirror.example/golden\n"
		"[azure://acct1/]\naccount_key = Zm9v\nendpoint = http://127.0.0.1:10000\n"
		"[azure://acct2/c]\nsas = ?sv=2022&sig=abc%3D\nproxy = none\n"
		"[https://host/dir]\nheader_file = /etc/header\n"
		"[s3://public]\ncredentials = anonymous\n");
	struct qc2_site *site = qc2_sites_find(sites, "s3://golden/a/b");
	struct qc2_keys *keys;

	assert_string_equal(site->prefix, "s3://golden/");
	assert_string_equal(site->endpoint, "https://rgw.example:7480");
	assert_string_equal(site->region, "here-1");
	assert_true(site->virtual_host);
	assert_false(site->http2);
	assert_string_equal(site->ca_file, "/etc/ca.pem");
	assert_string_equal(site->proxy, "http://u:p@proxy:3128");
	assert_int_equal(site->connections, 7);
	assert_int_equal(site->idle_s, 5);
	assert_int_equal(site->nr_replicas, 2);
	assert_string_equal(site->replicas[0], "s3://silver/x/");
	assert_string_equal(site->replicas[1], "https://mirror.example/golden/");
	keys = keys_of(site);
	assert_string_equal(keys->id, "AKIDEXAMPLE");
	assert_string_equal(keys->secret, SECRET);
	assert_string_equal(keys->token, "tok==");
	assert_int_equal(keys->expires, 0);
	qc2_keys_unref(keys);

	site = qc2_sites_find(sites, "azure://acct1/c/b");
	assert_string_equal(site->endpoint, "http://127.0.0.1:10000");
	assert_false(site->virtual_host);
	keys = keys_of(site);
	assert_string_equal(keys->secret, "Zm9v");
	assert_null(keys->token);
	qc2_keys_unref(keys);

	site = qc2_sites_find(sites, "azure://acct2/c/b");
	assert_string_equal(site->proxy, "");
	keys = keys_of(site);
	assert_string_equal(keys->token, "sv=2022&sig=abc%3D");
	assert_null(keys->secret);
	qc2_keys_unref(keys);

	assert_non_null(qc2_sites_find(sites, "https://host/dir/i")->creds);
	assert_null(qc2_sites_find(sites, "https://host/other")->creds);
	assert_null(qc2_sites_find(sites, "s3://public/i")->creds);
	qc2_sites_free(sites);
}

static void test_longest_counts(void **state)
{
	struct qc2_sites *sites = load(
		"[s3://]\nregion = r0\nconnections = 3\n"
		"[s3://bbb/golden/]\nregion = r2\n"
		"[s3://bbb/]\nregion = r1\n");

	assert_string_equal(qc2_sites_find(sites, "s3://bbb/golden/i")->region, "r2");
	assert_int_equal(qc2_sites_find(sites, "s3://bbb/golden/i")->connections, 0);
	assert_string_equal(qc2_sites_find(sites, "s3://bbb/golden")->region, "r1");
	assert_string_equal(qc2_sites_find(sites, "s3://bbb/goldener/i")->region, "r1");
	assert_string_equal(qc2_sites_find(sites, "s3://bbb2/i")->region, "r0");
	assert_int_equal(qc2_sites_find(sites, "s3://bbb2/i")->connections, 3);
	qc2_sites_free(sites);
}

static void test_region(void **state)
{
	char config[80], region[QC2_REGION_LEN];
	struct qc2_sites *sites;
	struct qc2_site *site;
	FILE *file;

	snprintf(config, sizeof(config), "%s/config", dir);
	file = fopen(config, "w");
	fputs("[default]\nregion = from-default\n[profile p]\nregion = from-p\n", file);
	fclose(file);
	setenv("AWS_CONFIG_FILE", config, 1);
	sites = load("[s3://bbb/]\nprofile = p\n");
	assert_string_equal(qc2_sites_find(sites, "s3://bbb/i")->region, "from-p");
	assert_string_equal(qc2_sites_find(sites, "s3://ccc/i")->region, "from-default");
	qc2_sites_free(sites);
	setenv("AWS_REGION", "from-env", 1);
	sites = load("[s3://bbb/]\nregion = from-file\n");
	site = qc2_sites_find(sites, "s3://ccc/i");
	assert_string_equal(site->region, "from-env");
	assert_string_equal(qc2_sites_find(sites, "s3://bbb/i")->region, "from-file");
	unsetenv("AWS_REGION");
	setenv("AWS_CONFIG_FILE", "/nonexistent", 1);
	unlink(config);

	assert_false(qc2_site_learn_region(site, "s3://ccc/i", "../x"));
	assert_false(qc2_site_learn_region(site, "s3://ccc/i", ""));
	assert_true(qc2_site_learn_region(site, "s3://ccc/i", "eu-west-1"));
	assert_true(qc2_site_learn_region(site, "s3://ddd/i", "eu-west-2"));
	qc2_site_region(site, "s3://ccc/other", region);
	assert_string_equal(region, "eu-west-1");
	qc2_site_region(site, "s3://ddd/i", region);
	assert_string_equal(region, "eu-west-2");
	qc2_site_region(site, "s3://eee/i", region);
	assert_string_equal(region, "from-env");
	/* More buckets than have room. */
	for (char name[] = "s3://xxa/i"; name[7] <= 'z'; name[7]++) {
		assert_true(qc2_site_learn_region(site, name, "r"));
		qc2_site_region(site, name, region);
		assert_string_equal(region, "r");
	}
	qc2_sites_free(sites);
}

static void test_azure_environment(void **state)
{
	struct qc2_sites *sites;
	struct qc2_keys *keys;

	setenv("AZURE_STORAGE_ACCOUNT", "acct1", 1);
	setenv("AZURE_STORAGE_KEY", "Zm9v", 1);
	sites = load("[azure://acct2/]\nhttp2 = no\n");
	keys = keys_of(qc2_sites_find(sites, "azure://acct1/c/b"));
	assert_string_equal(keys->secret, "Zm9v");
	qc2_keys_unref(keys);
	assert_null(qc2_sites_find(sites, "azure://acct2/c/b")->creds);
	qc2_sites_free(sites);
	unsetenv("AZURE_STORAGE_KEY");
	setenv("AZURE_STORAGE_SAS_TOKEN", "?sv=1&sig=x", 1);
	sites = load("[azure://acct1/c/]\nhttp2 = no\n");
	keys = keys_of(qc2_sites_find(sites, "azure://acct1/c/b"));
	assert_string_equal(keys->token, "sv=1&sig=x");
	assert_null(keys->secret);
	qc2_keys_unref(keys);
	qc2_sites_free(sites);
	unsetenv("AZURE_STORAGE_ACCOUNT");
	unsetenv("AZURE_STORAGE_SAS_TOKEN");
}

static void test_mistakes(void **state)
{
	refused("access_key = x\n", 1, "before the first [section]");
	refused("\n[s3://bbb/]\n" SECRET "\n", 3, "neither [section] nor KEY");
	refused("[s3://bbb/]\n" SECRET "=\n", 2, "unknown key \"...\"");
	refused("[s3://bbb/]\nsecret = " SECRET "\n", 2, "unknown key \"secret\"");
	refused("[s3://bbb/]\nsecret_key = " SECRET " x\n", 2, "\"secret_key\": has a space");
	refused("[s3://bbb/]\nsecret_key = " SECRET "\n", 1, "belong together");
	refused("[s3://bbb/]\nsession_token = " SECRET "\n", 1, "belong together");
	refused("[s3://bbb/]\naccess_key = a\nsecret_key = " SECRET "\nprofile = p\n", 1,
		"profile does not go with");
	refused("[s3://bbb/]\ncredentials = env\nsecret_key = " SECRET "\n", 1, "does not go with");
	refused("[s3://bbb/]\nsecret_key =\n", 2, "has no value");
	refused("[s3://bbb/]\nregion = a\nregion = b\n", 3, "given twice");
	refused("[s3://bbb/]\n[s3://bbb]\n", 2, "there already");
	refused("[s3://bbb/]\ncredentials = magic\n", 2, "unknown; there are");
	refused("[s3://bbb/]\ncredentials = process\n", 1, "process is needed");
	refused("[s3://bbb/]\nregion = Europe\n", 2, "\"region\": not up to");
	refused("[s3://bbb/]\nstyle = both\n", 2, "neither virtual nor path");
	refused("[s3://bbb/]\nendpoint = h:80\n", 2, "does not begin with https://");
	refused("[s3://bbb/]\nendpoint = https://h/path\n", 2, "has a path");
	refused("[s3://bbb/]\nendpoint = https://user:" SECRET "@h\n", 2, "\"endpoint\": ");
	refused("[s3://bbb/]\nproxy = " SECRET "\n", 2, "\"proxy\": neither none");
	refused("[s3://bbb/]\nca_file = ca.pem\n", 2, "absolute");
	refused("[s3://bbb/]\nconnections = 0\n", 2, "from 1 to 1024");
	refused("[s3://bbb/]\nconnections = 99999999999999999999\n", 2, "from 1 to 1024");
	refused("[s3://bbb/]\nidle_s = -1\n", 2, "from 1 to 3600");
	refused("[s3://bbb/]\nhttp2 = maybe\n", 2, "neither yes nor no");
	refused("[s3://bbb/]\nreplica = s3://bbb\n", 2, "own prefix");
	refused("[s3://bbb/]\nreplica = ftp://b\n", 2, "\"replica\": ");
	refused("[s3://]\nreplica = s3://bbb\n", 2, "is for all s3:// URLs");
	refused("[s3://bbb/]\naccount_key = Zm9v\n", 2, "no meaning for s3://");
	refused("[https://h/]\naccess_key = x\n", 2, "no meaning for https://");
	refused("[azure://acct/]\ncredentials = instance\n", 2, "not possible for azure://");
	refused("[azure://acct/]\ncredentials = keys\n", 1, "one of account_key and sas");
	refused("[azure://acct/]\nsas = sig=1\naccount_key = Zm9v\n", 1, "one of account_key and sas");
	refused("[azure://acct/]\naccount_key = not base64\n", 2, "not base64");
	refused("[azure://acct/]\nsas = " SECRET "\n", 2, "not a SAS");
	refused("[azure://]\nsas = sig=1\n", 1, "those of one account");
	refused("[https://]\nheader_file = /f\n", 1, "every host");
	refused("[http://h/]\nheader_file = /f\n", 1, "use https");
	refused("[http://127.0.0.1@h/]\n", 1, "");
	refused("[ftp://h/]\n", 1, "");
	refused("[store]\n", 1, "");
	refused("[https://u:" SECRET "@h/]\n", 1, "no user or password");
	refused("[s3://bbb/]\nreplica = https://u:" SECRET "@h/\n", 2, "no user or password");
	refused("[s3://bbb/\n", 1, "neither [section]");
	refused_bytes("[s3://bbb/]\n\0", 13, 0, "NUL");
}

static void test_mode(void **state)
{
	static const mode_t bad[] = { 0604, 0602, 0620, 0644, 0660, 0601 };
	struct qc2_sites *sites;
	struct qc2_err err;

	write_file("[s3://bbb/]\n", 12);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_int_equal(chmod(path, bad[i]), 0);
		assert_int_equal(qc2_sites_load(path, &sites, &err), -EPERM);
		assert_in(err.msg, path);
		assert_in(err.msg, "chmod");
	}
	assert_int_equal(chmod(path, 0640), 0);
	assert_ok(qc2_sites_load(path, &sites, &err), err);
	qc2_sites_free(sites);
	/* Only root can give a file away. */
	if (!geteuid()) {
		assert_int_equal(chown(path, 1, -1), 0);
		assert_int_equal(qc2_sites_load(path, &sites, &err), -EPERM);
		assert_in(err.msg, "chown");
	}
	assert_int_equal(unlink(path), 0);
	assert_int_equal(qc2_sites_load(path, &sites, &err), -ENOENT);
	assert_int_equal(qc2_sites_load(dir, &sites, &err), -EINVAL);
	assert_in(err.msg, "not a plain file");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_defaults),
		cmocka_unit_test(test_every_key),
		cmocka_unit_test(test_longest_counts),
		cmocka_unit_test(test_region),
		cmocka_unit_test(test_azure_environment),
		cmocka_unit_test(test_mistakes),
		cmocka_unit_test(test_mode),
	};

	return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
