/* SPDX-License-Identifier: GPL-2.0 */
/* Opening chains of images made by hand, in memory. */
#include <errno.h>

#include "chain.h"
#include "image.h"
#include "testing.h"

#define DIR	"http://host/images/"

static struct image images[16];
static size_t nr_images;

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

static int reset(void **state)
{
	memset(&mem_count, 0, sizeof(mem_count));
	return 0;
}

static int drop_images(void **state)
{
	while (nr_images)
		image_free(&images[--nr_images]);
	/* Nothing stays open, whatever happened. */
	assert_int_equal(mem_count.opens, mem_count.closes);
	return 0;
}

/* 4 KiB clusters; L2 table in cluster 2; 13 clusters of data from 3 on. */
static struct image *add_qcow2(const char *url, uint64_t size,
			       const char *backing, const char *format)
{
	struct image *img = &images[nr_images++];

	*img = image_new(url, 3, 12, size, 16);
	put64(img, 4096, 8192);
	if (backing)
		image_backing(img, backing, format);
	return img;
}

static void add_raw(const char *url, uint64_t size)
{
	struct image *img = &images[nr_images++];

	img->url = url;
	img->size = size;
	img->data = calloc(1, size ? size : 1);
}

static int open_with(const char *url, unsigned int max_depth,
		     const char *allow, struct qc2_chain **chain,
		     struct qc2_err *err)
{
	const char *const prefixes[] = { allow };
	struct qc2_chain_limits limits = {
		.max_depth = max_depth,
		.allow = prefixes,
		.nr_allow = allow ? 1 : 0,
	};

	return qc2_chain_open(&opener, url, &limits, chain, err);
}

static struct qc2_chain *opens(const char *url)
{
	struct qc2_chain *chain;
	struct qc2_err err;

	assert_ok(open_with(url, 100, NULL, &chain, &err), err);
	return chain;
}

static void refused(const char *url, int errnum, const char *text1,
		    const char *text2)
{
	struct qc2_chain *chain;
	struct qc2_err err = { "" };

	assert_int_equal(open_with(url, 100, NULL, &chain, &err), -errnum);
	assert_in(err.msg, text1);
	assert_in(err.msg, text2);
}

static void check_extent(const struct qc2_chain *chain, size_t i,
			 uint64_t sector, uint32_t nr_sectors, uint32_t link,
			 uint64_t offset)
{
	const struct qc2_extent *ext = &chain->index->extents[i];

	assert_true(i < chain->index->nr_extents);
	assert_int_equal(ext->sector, sector);
	assert_int_equal(ext->nr_sectors, nr_sectors);
	assert_int_equal(ext->object, qc2_object_data(link));
	assert_int_equal(ext->offset, offset);
}

static void test_merges(void **state)
{
	struct image *img = add_qcow2(DIR "top", 40960, "mid", "qcow2");
	struct qc2_chain *chain;

	put64(img, 8192 + 8, 3 * 4096);
	img = add_qcow2(DIR "mid", 40960, "base", "raw");
	put64(img, 8192 + 8, 4 * 4096);		/* hidden */
	put64(img, 8192 + 16, 1);		/* zeros hide the base */
	add_raw(DIR "base", 40960);
	chain = opens(DIR "top");

	assert_int_equal(chain->nr_links, 3);
	assert_string_equal(chain->links[0].url, DIR "top");
	assert_string_equal(chain->links[1].url, DIR "mid");
	assert_string_equal(chain->links[2].url, DIR "base");
	assert_int_equal(chain->links[1].cluster_size, 4096);
	assert_int_equal(chain->links[2].cluster_size, 0);
	assert_string_equal(chain->links[2].version, "v1");
	assert_int_equal(chain->links[2].size, 40960);
	assert_int_equal(chain->nr_sectors, 80);
	assert_int_equal(chain->index->nr_extents, 3);
	check_extent(chain, 0, 0, 8, 2, 0);
	check_extent(chain, 1, 8, 8, 0, 3 * 4096);
	check_extent(chain, 2, 24, 56, 2, 24 * 512);
	assert_int_equal(chain->links[0].live_sectors, 8);
	assert_int_equal(chain->links[1].live_sectors, 0);
	assert_int_equal(chain->links[2].live_sectors, 64);
	/* one read for each qcow2 link, none for raw */
	assert_int_equal(mem_count.reads, 2);
	qc2_chain_put(chain);
}

static void test_sizes(void **state)
{
	struct qc2_chain *chain;

	/* A short link hides what lies behind its end for good. */
	add_qcow2(DIR "top", 40960, "mid", "qcow2");
	add_qcow2(DIR "mid", 8192, "base", "raw");
	add_raw(DIR "base", 40960);
	chain = opens(DIR "top");
	assert_int_equal(chain->nr_sectors, 80);
	assert_int_equal(chain->index->nr_extents, 1);
	check_extent(chain, 0, 0, 16, 2, 0);
	qc2_chain_put(chain);

	/* A longer base is cut by the top. */
	chain = opens(DIR "mid");
	assert_int_equal(chain->nr_sectors, 16);
	check_extent(chain, 0, 0, 16, 1, 0);
	qc2_chain_put(chain);
}

static void test_raw(void **state)
{
	struct qc2_chain *chain;

	add_raw(DIR "odd", 1025);
	chain = opens(DIR "odd#format=raw");
	assert_string_equal(chain->links[0].url, DIR "odd");
	assert_int_equal(chain->links[0].virtual_size, 1536);
	assert_int_equal(chain->nr_sectors, 3);
	check_extent(chain, 0, 0, 3, 0, 0);
	qc2_chain_put(chain);

	refused(DIR "odd", EINVAL, DIR "odd", "not a qcow2 image");
	add_raw(DIR "empty", 0);
	refused(DIR "empty#format=raw", EINVAL, DIR "empty", "size of 0");
}

/* 5 TiB of raw data are more sectors than one extent can count. */
static void test_large_raw(void **state)
{
	struct qc2_chain *chain;
	uint64_t sectors = 0;
	size_t i;

	add_raw(DIR "large", 1);
	images[0].size = 5ULL << 40;
	chain = opens(DIR "large#format=raw");
	for (i = 0; i < chain->index->nr_extents; i++) {
		assert_int_equal(chain->index->extents[i].sector, sectors);
		assert_int_equal(chain->index->extents[i].offset,
				 sectors * 512);
		sectors += chain->index->extents[i].nr_sectors;
	}
	assert_int_equal(sectors, 5ULL << 31);
	assert_int_equal(chain->links[0].live_sectors, 5ULL << 31);
	qc2_chain_put(chain);

	images[0].size = (1ULL << 46) + 1;
	refused(DIR "large#format=raw", EFBIG, DIR "large", "64 TiB");
	images[0].size = UINT64_MAX;
	refused(DIR "large#format=raw", EFBIG, DIR "large", "64 TiB");
}

static void test_id(void **state)
{
	uint8_t first[QC2_CHAIN_ID_LEN];
	/* sha256("http://host/images/top\0" "qcow2\0" "65536\0" "v1\0") */
	static const uint8_t expected[] = {
		0x9d, 0x59, 0x86, 0x42, 0xae, 0x98, 0x10, 0x9b, 0x9e,
		0x33, 0x49, 0xc4, 0xef, 0x74, 0x6c, 0xde,
	};
	struct qc2_chain *chain;

	add_qcow2(DIR "top", 40960, NULL, NULL);
	chain = opens(DIR "top");
	memcpy(first, chain->id, sizeof(first));
	assert_memory_equal(first, expected, sizeof(expected));
	qc2_chain_put(chain);
	chain = opens("HTTP://HOST/images/./top");
	assert_memory_equal(chain->id, first, sizeof(first));
	qc2_chain_put(chain);
	chain = opens(DIR "top#format=raw");
	assert_memory_not_equal(chain->id, first, sizeof(first));
	qc2_chain_put(chain);
	images[0].size -= 4096;
	chain = opens(DIR "top");
	assert_memory_not_equal(chain->id, first, sizeof(first));
	qc2_chain_put(chain);

	/* A change of any link is a change of the chain. */
	add_qcow2(DIR "base", 40960, NULL, NULL);
	add_qcow2(DIR "over", 40960, "base", "qcow2");
	chain = opens(DIR "over");
	memcpy(first, chain->id, sizeof(first));
	qc2_chain_put(chain);
	images[1].size -= 4096;
	chain = opens(DIR "over");
	assert_memory_not_equal(chain->id, first, sizeof(first));
	qc2_chain_put(chain);
}

static void test_loops(void **state)
{
	add_qcow2(DIR "self", 40960, "self", "qcow2");
	add_qcow2(DIR "a", 40960, "b", "qcow2");
	add_qcow2(DIR "b", 40960, "./x/../a", "qcow2");
	refused(DIR "self", ELOOP, DIR "self", "loop");
	refused(DIR "a", ELOOP, DIR "b: ", "loop");
}

static void test_depth(void **state)
{
	static char urls[10][40], names[10][8];
	struct qc2_chain *chain;
	struct qc2_err err;
	int i;

	for (i = 0; i < 10; i++) {
		snprintf(urls[i], sizeof(urls[i]), DIR "l%d", i);
		snprintf(names[i], sizeof(names[i]), "l%d", i + 1);
		add_qcow2(urls[i], 40960, i < 9 ? names[i] : NULL, "qcow2");
	}
	assert_ok(open_with(DIR "l0", 10, NULL, &chain, &err), err);
	assert_int_equal(chain->nr_links, 10);
	qc2_chain_put(chain);
	assert_int_equal(open_with(DIR "l0", 9, NULL, &chain, &err), -E2BIG);
	assert_in(err.msg, DIR "l8");
	assert_in(err.msg, "max_depth");
	/* a second end of the chain is never opened */
	assert_int_equal(mem_count.opens, 19);
}

static void test_missing_parent(void **state)
{
	refused(DIR "gone", ENOENT, DIR "gone", "not found");
	add_qcow2(DIR "top", 40960, "gone", "qcow2");
	refused(DIR "top", ENOENT, DIR "top: its backing file",
		DIR "gone: not found");
}

static void test_policy(void **state)
{
	struct qc2_chain *chain;
	struct qc2_err err;

	add_qcow2(DIR "up", 40960, "../base", "raw");
	add_raw("http://host/base", 40960);
	refused(DIR "up", EACCES, DIR "up", "add http://host/ to \"allow\"");
	assert_int_equal(mem_count.opens, 1);
	assert_ok(open_with(DIR "up", 100, "http://host/", &chain, &err), err);
	qc2_chain_put(chain);

	/* The folder of the top counts, not that of a link below it. */
	add_qcow2(DIR "a/top", 40960, "http://host/base2", "qcow2");
	add_qcow2("http://host/base2", 40960, "base", "raw");
	assert_int_equal(open_with(DIR "a/top", 100, "http://other/", &chain,
				   &err), -EACCES);
	add_qcow2(DIR "local", 40960, "file:///etc/passwd", "raw");
	refused(DIR "local", EACCES, "file:///etc/passwd", "allow");
	add_qcow2(DIR "meta", 40960, "http://169.254.169.254/latest", "raw");
	refused(DIR "meta", EACCES, DIR "meta: backing file refused",
		"http://169.254.169.254/latest is outside");
	add_qcow2(DIR "path", 40960, "/etc/passwd", "raw");
	refused(DIR "path", EACCES, DIR "path", "/etc/passwd");
	add_qcow2(DIR "nbd", 40960, "nbd:h:1", "raw");
	refused(DIR "nbd", EOPNOTSUPP, DIR "nbd", "nbd:");
}

static void test_damage_below(void **state)
{
	struct image *img;

	add_qcow2(DIR "top", 40960, "mid", "qcow2");
	img = add_qcow2(DIR "mid", 40960, NULL, NULL);
	put64(img, 8192, 4096 * 99);
	refused(DIR "top", EINVAL, DIR "mid: truncated", "data cluster");
	put64(img, H_INCOMPAT, 2);
	refused(DIR "top", EINVAL, DIR "mid", "corrupt");
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, reset, drop_images)
	const struct CMUnitTest tests[] = {
		T(test_merges),
		T(test_sizes),
		T(test_raw),
		T(test_large_raw),
		T(test_id),
		T(test_loops),
		T(test_depth),
		T(test_missing_parent),
		T(test_policy),
		T(test_damage_below),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
