/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A chain of up to six images, http://h/i/a to http://h/i/f, of which the last
 * lies elsewhere, http://h/f.  The input has a byte that says how it is opened,
 * and the images.
 */
#include "chains.h"
#include "images.h"
#include "url.h"

#define WINDOW	4096	/* sectors */

static const char *const urls[] = {
	"http://h/i/a", "http://h/i/b", "http://h/i/c", "http://h/i/d",
	"http://h/i/e", "http://h/f",
};

#define NR_URLS	(sizeof(urls) / sizeof(urls[0]))

static struct images images;

static int open_url(struct qc2_opener *opener, const char *url,
		    struct qc2_source **src, struct qc2_err *err)
{
	for (size_t i = 0; i < NR_URLS; i++)
		if (!strcmp(url, urls[i])) {
			*src = image_open(&images, i, url);
			return 0;
		}
	return qc2_fail(err, ENOENT, "%s: not found", url);
}

/* A window says what the index of the whole chain says. */
static void check_window(const struct qc2_index *idx, const struct qc2_index *window,
			 uint64_t from, uint64_t to)
{
	size_t i = qc2_index_find(idx, from), k;

	for (k = 0; i < idx->nr_extents && idx->extents[i].sector < to; i++, k++) {
		struct qc2_extent ext = idx->extents[i];
		uint64_t end = ext.sector + ext.nr_sectors;

		if (ext.sector < from) {
			ext.offset += (from - ext.sector) * 512;
			ext.sector = from;
		}
		ext.nr_sectors = (end < to ? end : to) - ext.sector;
		assert(!window || (k < window->nr_extents &&
		       !memcmp(&window->extents[k], &ext, sizeof(ext))));
		if (!window && qc2_object_is_unpacked(ext.object))
			return;
	}
	assert(window && k == window->nr_extents);
}

/* Opens in steps, with a window of 2 MiB. */
static int open_chain(struct qc2_opener *opener, const char *url,
		      const struct qc2_chain_limits *limits, uint64_t from,
		      struct qc2_chain **chain, struct qc2_err *err)
{
	struct qc2_err window_err = { "" };
	struct qc2_index *window;
	struct qc2_walk *walk;
	int ret, window_ret;

	ret = qc2_walk_new(opener, url, limits, &walk, err);
	if (ret)
		return ret;
	*chain = qc2_walk_chain(walk);
	from = from * WINDOW < (*chain)->nr_sectors ? from * WINDOW : 0;
	window_ret = qc2_walk_window(walk, from, from + WINDOW, &window, &window_err);
	ret = qc2_walk_read(walk, err);
	if (window_ret)
		assert(ret && window_err.msg[0]);
	if (!ret) {
		qc2_walk_complete(walk);
		qc2_chain_ref(*chain);
		check_window((*chain)->index, window, from, from + WINDOW);
	}
	qc2_index_free(window);
	qc2_walk_free(walk);
	return ret;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const tops[] = {
		"http://h/i/a", "http://h/i/a#snapshot=s",
		"http://h/i/a#format=raw", "http://h/f",
	};
	static const char *const allow[] = { "http://h/" };
	struct qc2_opener opener = { .open = open_url };
	struct input in = { data, size };
	unsigned int how = take(&in, 1);
	struct qc2_chain_limits limits = {
		.max_depth = how & 4 ? 3 : 100,
		.allow = allow,
		.nr_allow = how & 8 ? 1 : 0,
	};
	struct qc2_err err = { "" };
	struct qc2_chain *chain;

	images_init(&images, NR_URLS, &in);
	if (!open_chain(&opener, tops[how & 3], &limits, how >> 4, &chain, &err)) {
		check_chain(chain, &limits);
		qc2_chain_put(chain);
	} else {
		assert(err.msg[0]);
	}
	assert(!images.open);
	return 0;
}
