/* SPDX-License-Identifier: GPL-2.0 */
/* The configuration file: defaults, every key, every kind of mistake. */
#include <errno.h>
#include <unistd.h>

#include "config.h"
#include "testing.h"

static char dir[] = "/tmp/qc2-config.XXXXXX";
static char path[64];

static int make_dir(void **state)
{
	if (!mkdtemp(dir))
		return -1;
	snprintf(path, sizeof(path), "%s/chaind.conf", dir);
	return 0;
}

static int remove_dir(void **state)
{
	unlink(path);
	return rmdir(dir);
}

static int load_bytes(const char *text, size_t len, struct qc2_config *cfg,
		      struct qc2_err *err)
{
	FILE *file = fopen(path, "w");

	assert_non_null(file);
	assert_int_equal(fwrite(text, 1, len, file), len);
	assert_int_equal(fclose(file), 0);
	return qc2_config_load(path, cfg, err);
}

static void loads(const char *text, struct qc2_config *cfg)
{
	struct qc2_err err;

	assert_ok(load_bytes(text, strlen(text), cfg, &err), err);
}

static void refused(const char *text, unsigned int line, const char *part)
{
	struct qc2_config cfg;
	struct qc2_err err = { "" };
	char where[96];

	assert_true(load_bytes(text, strlen(text), &cfg, &err) < 0);
	snprintf(where, sizeof(where), "%s:%u: ", path, line);
	assert_in(err.msg, where);
	assert_in(err.msg, part);
}

static void test_defaults(void **state)
{
	struct qc2_config cfg;

	loads("# nothing\n", &cfg);
	assert_string_equal(cfg.socket, "/run/qcow2chain/chaind.sock");
	assert_string_equal(cfg.run_dir, "/run/qcow2chain");
	assert_null(cfg.group);
	assert_string_equal(cfg.cache_path, "/var/lib/qcow2chain/cache");
	assert_int_equal(cfg.cache_size, 10ULL << 30);
	assert_string_equal(cfg.tip_dir, "/var/lib/qcow2chain/tips");
	assert_int_equal(cfg.max_depth, 4096);
	assert_int_equal(cfg.nr_allow, 0);
	assert_null(cfg.ca_file);
	assert_null(cfg.sites_file);
	assert_false(cfg.allow_local_addresses);
	assert_int_equal(cfg.connections, 64);
	assert_int_equal(cfg.extension_bytes, 2 << 20);
	assert_true(cfg.connect_timeout_s > 0 && cfg.low_speed_time_s > 0);
	assert_null(cfg.region_cache);
	assert_null(cfg.region_key_file);
	assert_int_equal(cfg.nr_region_stores, 0);
	assert_false(cfg.region_private);
	assert_int_equal(cfg.region_timeout_ms, 1000);
	qc2_config_free(&cfg);
}

static void test_every_key(void **state)
{
	struct qc2_config cfg;

	loads("[daemon]\nsocket = /a/s\nrun_dir=/a/r\ngroup = disk\n"
	      "[cache]\npath=/a/c ; where\nsize = 3g\n"
	      "[tip]\ndir=/a/t\n"
	      "[chain]\nmax_depth = 7\n"
	      "allow = https://h/x file:///pool/\n"
	      "    http://other:80/y\n"
	      "allow = https://h2\n"
	      "[store]\nca_file=/a/ca\nsites_file=/a/stores\nconnections=3\nconnect_timeout_s=4\n"
	      "low_speed_time_s=5\nextension=512K\nallow_local_addresses=yes\n"
	      "[region]\ncache = S3://bucket/tenant\nstores = s3://near https://n/x\n"
	      "   http://n2/\nkey_file=/a/k\nprivate = yes\ntimeout_ms = 77\n", &cfg);
	assert_string_equal(cfg.socket, "/a/s");
	assert_string_equal(cfg.run_dir, "/a/r");
	assert_string_equal(cfg.group, "disk");
	assert_string_equal(cfg.cache_path, "/a/c");
	assert_int_equal(cfg.cache_size, 3ULL << 30);
	assert_string_equal(cfg.tip_dir, "/a/t");
	assert_int_equal(cfg.max_depth, 7);
	assert_int_equal(cfg.nr_allow, 4);
	assert_string_equal(cfg.allow[0], "https://h/x/");
	assert_string_equal(cfg.allow[1], "file:///pool/");
	assert_string_equal(cfg.allow[2], "http://other:80/y/");
	assert_string_equal(cfg.allow[3], "https://h2/");
	assert_string_equal(cfg.ca_file, "/a/ca");
	assert_string_equal(cfg.sites_file, "/a/stores");
	assert_int_equal(cfg.connections, 3);
	assert_int_equal(cfg.connect_timeout_s, 4);
	assert_int_equal(cfg.low_speed_time_s, 5);
	assert_true(cfg.allow_local_addresses);
	assert_int_equal(cfg.extension_bytes, 512 << 10);
	assert_string_equal(cfg.region_cache, "s3://bucket/tenant/");
	assert_int_equal(cfg.nr_region_stores, 3);
	assert_string_equal(cfg.region_stores[0], "s3://near/");
	assert_string_equal(cfg.region_stores[1], "https://n/x/");
	assert_string_equal(cfg.region_stores[2], "http://n2/");
	assert_string_equal(cfg.region_key_file, "/a/k");
	assert_true(cfg.region_private);
	assert_int_equal(cfg.region_timeout_ms, 77);
	qc2_config_free(&cfg);
}

static void test_sizes(void **state)
{
	struct qc2_config cfg;

	loads("[cache]\nsize=1048576", &cfg);
	assert_int_equal(cfg.cache_size, 1 << 20);
	qc2_config_free(&cfg);
	loads("[cache]\nsize=1024T", &cfg);
	assert_int_equal(cfg.cache_size, 1ULL << 50);
	qc2_config_free(&cfg);
	loads("[cache]\nsize=2G\nsize=1G", &cfg);
	assert_int_equal(cfg.cache_size, 1ULL << 30);
	qc2_config_free(&cfg);

	refused("[cache]\nsize=", 2, "not a size");
	refused("[cache]\nsize=G", 2, "not a size");
	refused("[cache]\nsize=10GB", 2, "not a size");
	refused("[cache]\nsize=-1G", 2, "not a size");
	refused("[cache]\nsize=+1G", 2, "not a size");
	refused("[cache]\nsize=1.5G", 2, "not a size");
	refused("[cache]\nsize=0x100000", 2, "not a size");
	refused("[cache]\nsize=1023K", 2, "not a size");
	refused("[cache]\nsize=1025T", 2, "not a size");
	refused("[cache]\nsize=18446744073709551616", 2, "not a size");
	refused("[cache]\nsize=18446744073709551615T", 2, "not a size");
	refused("[cache]\nsize=17592186044416M", 2, "not a size");
	refused("[cache]\nsize=11111111111111111111111111111111111111", 2,
		"not a size");
}

static void test_mistakes(void **state)
{
	refused("\n[store]\nconections = 3\n", 3,
		"unknown key \"conections\" in [store]");
	refused("[stroe]\nconnections = 3\n", 2, "unknown section [stroe]");
	refused("connections = 3\n", 1, "before the first [section]");
	refused("[chain]\npath = /x\n", 2, "unknown key \"path\" in [chain]");
	refused("[store]\nconnections\n", 2, "KEY = VALUE");
	refused("[store\nconnections=1\n", 1, "[section]");
	refused("[region]\ncache = nbd://h/\n", 2, "nbd");
	refused("[region]\nstores = s3://abc ftp://h/\n", 2, "ftp");
	refused("[region]\ntimeout_ms = 9\n", 2, "from 10 to 60000");
	refused("[store]\nconnections = 0\n", 2, "from 1 to 1024");
	refused("[store]\nconnections = many\n", 2, "from 1 to 1024");
	refused("[store]\nconnections = 4294967297\n", 2, "from 1 to 1024");
	refused("[store]\nconnections = 1 2\n", 2, "from 1 to 1024");
	refused("[store]\nallow_local_addresses = 1\n", 2, "neither yes nor no");
	refused("[store]\nallow_local_addresses =\n", 2, "neither yes nor no");
	refused("[tip]\ndir = tips\n", 2, "absolute path");
	refused("[tip]\ndir =\n", 2, "absolute path");
	refused("[chain]\nallow = /pool\n", 2, "file:///");
	refused("[chain]\nallow = https://a/\n  ftp://b/\n", 3, "https://");
	refused("[chain]\nallow = https://u:geheim@a/\n", 2, "password");
	/* The first mistake is the one that is told. */
	refused("[cache]\nsize=x\n[nonsense]\na=b\n", 2, "not a size");
	/* A key that is indented would become a piece of the one before. */
	refused("[cache]\npath = /x\n  size = 1G\n", 3, "indented");
}

static void test_odd_lines(void **state)
{
	struct qc2_config cfg;
	struct qc2_err err;
	char text[400];

	/* Cut by the parser, the line's end would be a line of its own. */
	memset(text, 'x', sizeof(text));
	memcpy(text, "[tip]\ndir=/", 11);
	text[sizeof(text) - 1] = '\0';
	refused(text, 2, "longer than");
	assert_int_equal(load_bytes("[tip]\ndir=/a\0b\n", 15, &cfg, &err),
			 -EINVAL);
	assert_in(err.msg, "NUL");
}

static void test_missing_file(void **state)
{
	struct qc2_config cfg;
	struct qc2_err err;

	assert_int_equal(qc2_config_load("/nonexistent/x.conf", &cfg, &err),
			 -ENOENT);
	assert_in(err.msg, "/nonexistent/x.conf");
	assert_true(qc2_config_load(dir, &cfg, &err) < 0);
	assert_in(err.msg, dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_defaults),
		cmocka_unit_test(test_every_key),
		cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_mistakes),
		cmocka_unit_test(test_odd_lines),
		cmocka_unit_test(test_missing_file),
	};

	return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
