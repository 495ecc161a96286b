/* SPDX-License-Identifier: GPL-2.0 */
/* Index files: written and read, damaged, and in the place of reading images. */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "chain.h"
#include "image.h"
#include "index_file.h"
#include "testing.h"

#define STORE	"http://host/images/"

static char dir[] = "/tmp/test_index_file.XXXXXX";
static const uint8_t id[QC2_CHAIN_ID_LEN] = "0123456789abcdef";
static struct image images[4];
static size_t nr_images;

static int make_dir(void **state)
{
	return !mkdtemp(dir);
}

/* Calls for each file of the folder; returns their number. */
static unsigned int each_file(const char *suffix, void (*call)(const char *path))
{
	unsigned int nr = 0;
	struct dirent *de;
	char path[512];
	DIR *d = opendir(dir);

	assert_non_null(d);
	while ((de = readdir(d))) {
		size_t len = strlen(de->d_name), n = strlen(suffix);

		if (de->d_name[0] == '.' || len < n ||
		    strcmp(de->d_name + len - n, suffix))
			continue;
		snprintf(path, sizeof(path), "%s/%s", dir, de->d_name);
		call(path);
		nr++;
	}
	closedir(d);
	return nr;
}

static void nothing(const char *path)
{
}

static void delete(const char *path)
{
	unlink(path);
}

static int remove_dir(void **state)
{
	each_file("", delete);
	return rmdir(dir);
}

static int empty_dir(void **state)
{
	each_file("", delete);
	while (nr_images)
		image_free(&images[--nr_images]);
	assert_int_equal(mem_count.opens, mem_count.closes);
	memset(&mem_count, 0, sizeof(mem_count));
	return 0;
}

static const struct qc2_extent some[] = {
	{ .sector = 8, .nr_sectors = 8, .object = 0, .offset = 65536 },
	{ .sector = 16, .nr_sectors = 100, .object = 3, .offset = 8192 },
	{ .sector = 4000, .nr_sectors = 96, .object = 2, .offset = 512 },
};

static struct qc2_index *make_index(void)
{
	struct qc2_extents list = { 0 };
	size_t i;

	for (i = 0; i < sizeof(some) / sizeof(some[0]); i++)
		assert_int_equal(qc2_extents_add(&list, &some[i]), 0);
	return qc2_index_build(&list, 4096);
}

static void save(void)
{
	struct qc2_packed *packed[2] = { NULL, qc2_packed_new(16, 1) };
	struct qc2_index_parts parts = {
		.nr_sectors = 4096, .index = make_index(), .packed = packed,
		.nr_links = 2,
	};
	struct qc2_err err;

	assert_int_equal(qc2_packed_add(packed[1], 70000, 0, 500), 0);
	assert_int_equal(qc2_packed_add(packed[1], 70500, 1, 800), 0);
	assert_ok(qc2_index_file_save(dir, id, &parts, &err), err);
	qc2_index_free(parts.index);
	qc2_packed_put(packed[1]);
}

static int load(uint64_t nr_sectors, size_t nr_links, bool chain,
		struct qc2_index_parts *parts, struct qc2_err *err)
{
	struct qc2_packed **packed = parts->packed;

	*parts = (struct qc2_index_parts){
		.nr_sectors = nr_sectors, .nr_links = nr_links, .packed = packed,
	};
	return qc2_index_file_load(dir, id, chain, parts, err);
}

static void test_round_trip(void **state)
{
	struct qc2_packed *packed[4] = { NULL };
	struct qc2_index_parts parts = { .packed = packed };
	struct qc2_index *idx = make_index();
	struct qc2_err err;
	uint64_t sector;
	size_t i;

	assert_int_equal(load(4096, 2, true, &parts, &err), -ENOENT);
	save();
	assert_ok(load(4096, 2, true, &parts, &err), err);
	assert_int_equal(parts.index->nr_extents, 3);
	assert_memory_equal(parts.index->extents, some, sizeof(some));
	for (sector = 0; sector < 4100; sector++)
		assert_int_equal(qc2_index_find(parts.index, sector),
				 qc2_index_find(idx, sector));
	for (i = 0; i < 5; i++)
		for (sector = 0; sector < 70000; sector += 512)
			assert_int_equal(qc2_index_find_object(parts.index, i, sector),
					 qc2_index_find_object(idx, i, sector));
	assert_null(packed[0]);
	assert_int_equal(packed[1]->nr, 2);
	assert_int_equal(packed[1]->v[1].offset, 70500);
	assert_int_equal(packed[1]->compression, 1);
	qc2_packed_put(packed[1]);
	packed[1] = NULL;
	qc2_index_free(parts.index);
	qc2_index_free(idx);

	/* of something else */
	assert_int_equal(load(4097, 2, true, &parts, &err), -EBADMSG);
	assert_int_equal(load(4096, 1, true, &parts, &err), -EBADMSG);
	assert_null(packed[0]);
	assert_null(packed[1]);
	assert_int_equal(load(4096, 2, false, &parts, &err), -ENOENT);
}

static uint8_t content[4096];
static size_t content_len;
static char content_path[512];

static void read_content(const char *path)
{
	FILE *f = fopen(path, "r");

	snprintf(content_path, sizeof(content_path), "%s", path);
	content_len = fread(content, 1, sizeof(content), f);
	fclose(f);
}

static void write_content(size_t len)
{
	FILE *f = fopen(content_path, "w");

	assert_int_equal(fwrite(content, 1, len, f), len);
	fclose(f);
}

/* Whatever is wrong with a file: it counts as none. */
static void test_damage(void **state)
{
	struct qc2_packed *packed[2] = { NULL };
	struct qc2_index_parts parts = { .packed = packed };
	struct qc2_err err;
	size_t i;

	save();
	assert_int_equal(each_file(".chain", read_content), 1);
	for (i = 0; i < content_len; i++) {
		write_content(i);
		assert_int_equal(load(4096, 2, true, &parts, &err), -EBADMSG);
		content[i] ^= 1 << i % 8;
		write_content(content_len);
		assert_int_equal(load(4096, 2, true, &parts, &err), -EBADMSG);
		assert_in(err.msg, "damaged");
		content[i] ^= 1 << i % 8;
	}
	content[content_len] = 0;
	write_content(content_len + 1);
	assert_int_equal(load(4096, 2, true, &parts, &err), -EBADMSG);
}

/* What has the right checksum, but leads to nothing that can be read. */
static void test_bad_parts(void **state)
{
	static const struct {
		struct qc2_extent ext;
		uint32_t len;		/* of a compressed cluster; 0: none is there */
		int ret;
	} cases[] = {
		{ { .nr_sectors = 8, .offset = 4096 }, 0, 0 },
		{ { .nr_sectors = 8, .object = 1 }, 500, 0 },
		{ { .nr_sectors = 8, .object = 1 }, 0, -EBADMSG },
		{ { .nr_sectors = 8, .object = 1 }, 2 << 16, 0 },
		{ { .nr_sectors = 8, .object = 1 }, (2 << 16) + 1, -EBADMSG },
		{ { .nr_sectors = 8, .offset = 65535 }, 0, -EBADMSG },
		{ { .nr_sectors = 8, .offset = UINT64_MAX - 511 }, 0, -EBADMSG },
	};
	size_t i;

	for (i = 0; i < 2 * sizeof(cases) / sizeof(cases[0]); i++) {
		const uint32_t len = cases[i / 2].len;
		struct qc2_packed *packed = len ? qc2_packed_new(16, 0) : NULL;
		struct qc2_index_parts parts = {
			.nr_sectors = 4096, .nr_links = 1, .packed = &packed,
		};
		bool chain = i % 2;
		struct qc2_err err;

		if (len)
			assert_int_equal(qc2_packed_add(packed, 70000, 0, len), 0);
		assert_int_equal(qc2_extents_add(&parts.list, &cases[i / 2].ext), 0);
		if (chain)
			parts.index = qc2_index_build(&parts.list, 4096);
		assert_ok(qc2_index_file_save(dir, id, &parts, &err), err);
		qc2_index_free(parts.index);
		qc2_extents_free(&parts.list);
		qc2_packed_put(packed);
		packed = NULL;
		assert_int_equal(load(4096, 1, chain, &parts, &err), cases[i / 2].ret);
		qc2_index_free(parts.index);
		qc2_extents_free(&parts.list);
		qc2_packed_put(packed);
	}
}

static int open_image(struct qc2_opener *opener, const char *url,
		      struct qc2_source **src, struct qc2_err *err)
{
	size_t i;

	for (i = 0; i < nr_images; i++)
		if (!strcmp(images[i].url, url)) {
			*src = mem_open(&images[i]);
			return 0;
		}
	return qc2_fail(err, ENOENT, "%s: not found", url);
}

static struct qc2_opener opener = { .open = open_image };

/* 64 KiB clusters: the tables are not in the head. */
static void add_image(const char *url, const char *backing, unsigned int cluster)
{
	struct image *img = &images[nr_images++];

	*img = image_new(url, 3, 16, 1 << 20, 8);
	put64(img, 1 << 16, 2 << 16);
	put64(img, (2 << 16) + 8 * cluster, (3 + cluster) << 16);
	if (backing)
		image_backing(img, backing, "qcow2");
}

static struct qc2_chain *opens(const char *url)
{
	struct qc2_chain_limits limits = { .max_depth = 10, .index_dir = dir };
	struct qc2_chain *chain;
	struct qc2_err err;

	mem_count.reads = 0;
	assert_ok(qc2_chain_open(&opener, url, &limits, &chain, &err), err);
	return chain;
}

static void check_chain(const struct qc2_chain *chain, size_t nr)
{
	size_t i;

	assert_int_equal(chain->index->nr_extents, nr);
	assert_non_null(chain->index->map);
	for (i = 0; i < nr; i++) {
		const struct qc2_extent *ext = &chain->index->extents[i];

		assert_int_equal(ext->sector, i * 128);
		assert_int_equal(ext->nr_sectors, 128);
		assert_int_equal(ext->object, qc2_object_data(nr - 1 - i));
		assert_int_equal(ext->offset, (3 + i) << 16);
		assert_int_equal(chain->links[i].live_sectors, 128);
	}
}

static void test_read_once(void **state)
{
	struct qc2_chain *chain;

	add_image(STORE "base", NULL, 0);
	add_image(STORE "mid", "base", 1);
	add_image(STORE "top", "mid", 2);
	chain = opens(STORE "mid");
	check_chain(chain, 2);
	qc2_chain_put(chain);
	assert_int_equal(each_file(".link", nothing), 2);
	assert_int_equal(each_file(".chain", nothing), 1);

	/* The same chain: the headers. */
	chain = opens(STORE "mid");
	check_chain(chain, 2);
	qc2_chain_put(chain);
	assert_int_equal(mem_count.reads, 2);

	/* A new top: three headers, and its tables. */
	chain = opens(STORE "top");
	check_chain(chain, 3);
	qc2_chain_put(chain);
	assert_int_equal(mem_count.reads, 4);

	/* Lists of links as good as none, index as good as none. */
	each_file(".chain", delete);
	assert_int_equal(each_file(".link", read_content), 3);
	content[content_len - 1] ^= 1;
	write_content(content_len);
	chain = opens(STORE "top");
	check_chain(chain, 3);
	qc2_chain_put(chain);
	assert_int_equal(mem_count.reads, 4);

	/* Another file of the same size is another image. */
	images[0].size = images[0].size - 512;
	chain = opens(STORE "top");
	check_chain(chain, 3);
	qc2_chain_put(chain);
	assert_int_equal(mem_count.reads, 4);
	assert_int_equal(each_file(".link", nothing), 4);
}

static void test_no_folder(void **state)
{
	struct qc2_chain_limits limits = { .max_depth = 10, .index_dir = "/nonexistent" };
	struct qc2_chain *chain;
	struct qc2_err err;

	add_image(STORE "base", NULL, 0);
	assert_ok(qc2_chain_open(&opener, STORE "base", &limits, &chain, &err), err);
	assert_int_equal(chain->index->nr_extents, 1);
	assert_null(chain->index->map);
	qc2_chain_put(chain);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(test_round_trip, empty_dir),
		cmocka_unit_test_teardown(test_damage, empty_dir),
		cmocka_unit_test_teardown(test_bad_parts, empty_dir),
		cmocka_unit_test_teardown(test_read_once, empty_dir),
		cmocka_unit_test_teardown(test_no_folder, empty_dir),
	};

	return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
