/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Filling the cache with an image.  Disk, fetcher and cache are played here: what is
 * fetched comes when the test says so.
 */
#include <errno.h>

#include "../../userspace/chaind/bring.h"
#include "../../userspace/chaind/disk.h"
#include "../../userspace/chaind/fill.h"
#include "../../userspace/chaind/opening.h"
#include "testing.h"

#define BLOCK		QC2_BLOCK_BYTES
#define SECTORS		QC2_BLOCK_SECTORS
#define NR_BLOCKS	1000U
#define NR_BUFS		256
#define MAX_UNDER_WAY	64	/* a quarter of them ... */
#define RUN		32	/* ... and what one step more may bring */

/* As fetches are: from some block on, so many. */
struct fetched {
	struct block *blocks[FETCH_MAX_BLOCKS];
	unsigned int nr;
	struct fetch_stats *stats;
};

static struct chaind chaind;
static struct disk disks[2];
static struct object *object;
static struct qc2_link top;
static struct qc2_chain chains[2];
static struct fill *fills[2];
static bool cached[NR_BLOCKS];
static struct fetched fetches[1024];
static unsigned int nr_fetches, nr_ended;
static uint32_t slots;
static unsigned int went_on, distrusted;
static unsigned int nr_done[2];
static int result[2];
static struct qc2_err error;

uint32_t cache_lookup(struct cache *cache, const struct object *obj, uint32_t block)
{
	assert_ptr_equal(obj, object);
	return cached[block] ? block : CACHE_NO_SLOT;
}

bool cache_is_hidden(const struct cache *cache, uint32_t slot)
{
	return false;
}

bool cache_is_marked(const struct cache *cache, uint32_t slot)
{
	return false;
}

unsigned int cache_bufs(const struct cache *cache, unsigned int *total)
{
	return *total = NR_BUFS;
}

void cache_get_stats(const struct cache *cache, struct cache_stats *stats)
{
	*stats = (struct cache_stats){ .slots = slots };
}

struct fetch_stats *fetch_stats_new(void)
{
	return calloc(1, sizeof(struct fetch_stats));
}

void fetch_stats_put(struct fetch_stats *stats)
{
	free(stats);
}

int bring_start(struct chaind *unused, enum fetch_class class, struct block **blocks,
		unsigned int nr, struct fetch_stats *stats)
{
	struct fetched *f = &fetches[nr_fetches++];
	unsigned int i;

	assert_true(nr_fetches < sizeof(fetches) / sizeof(fetches[0]));
	assert_int_equal(class, FETCH_AHEAD);
	f->nr = nr;
	f->stats = stats;
	for (i = 0; i < nr; i++) {
		assert_false(cached[blocks[i]->nr]);
		f->blocks[i] = blocks[i];
	}
	return 0;
}

void opening_go_on(struct opening *opening)
{
	went_on++;
}

/* The chain is walked: it is found to be another one. */
bool disk_distrust(struct disk *disk, int why)
{
	distrusted++;
	if (!disk->chain->from_manifest)
		return false;
	disk->chain = NULL;
	return true;
}

/* As miss_block_done() does it. */
static void land(struct block *block, int ret)
{
	struct watcher *watcher;

	cached[block->nr] = !ret;
	while ((watcher = LIST_FIRST(&block->watchers))) {
		LIST_REMOVE(watcher, entry);
		watcher->done(watcher, block, ret);
	}
	block_free(block);
}

/* The next fetch that was started ends. */
static void end_fetch(int ret)
{
	struct fetched *f = &fetches[nr_ended++];
	unsigned int i;

	assert_true(nr_ended <= nr_fetches);
	for (i = 0; i < f->nr; i++)
		land(f->blocks[i], ret);
}

static void run_events(void)
{
	while (sd_event_run(chaind.event, 0) > 0)
		;
}

static unsigned int under_way(void)
{
	unsigned int i, nr = 0;

	for (i = nr_ended; i < nr_fetches; i++)
		nr += fetches[i].nr;
	return nr;
}

/* All that is fetched from now on comes. */
static void all_come(void)
{
	run_events();
	while (nr_ended < nr_fetches) {
		end_fetch(0);
		run_events();
	}
}

static void on_done(void *arg, int ret, const struct qc2_err *err)
{
	unsigned int i = arg == &disks[1];

	nr_done[i]++;
	result[i] = ret;
	error = *err;
}

/* Blocks [@first, @first + @nr) of the object are on the disk. */
static struct qc2_index *make_index(uint32_t first, uint32_t nr)
{
	const struct qc2_extent ext = {
		.offset = (uint64_t)first * BLOCK, .nr_sectors = nr * SECTORS,
	};
	struct qc2_extents list = { 0 };

	assert_int_equal(qc2_extents_add(&list, &ext), 0);
	return qc2_index_build(&list, NR_BLOCKS * SECTORS);
}

static int setup(void **state)
{
	static unsigned int number;
	static char url[64];
	size_t i;

	assert_true(sd_event_new(&chaind.event) >= 0);
	snprintf(url, sizeof(url), "https://host%u/image", number++);
	object = object_get(url, (uint64_t)NR_BLOCKS * BLOCK, "v");
	assert_non_null(object);
	top.url = url;
	for (i = 0; i < 2; i++) {
		chains[i] = (struct qc2_chain){ .refs = 1, .from_manifest = !i, .links = &top,
						.nr_links = 1 };
		disks[i] = (struct disk){
			.chaind = &chaind, .state = DISK_OPEN, .chain = &chains[i],
			.objects = &object, .info.url = url,
		};
	}
	chains[0].index = make_index(0, 500);
	chains[1].index = make_index(400, 500);
	memset(cached, 0, sizeof(cached));
	memset(nr_done, 0, sizeof(nr_done));
	memset(result, 0, sizeof(result));
	nr_fetches = nr_ended = went_on = distrusted = 0;
	slots = 1024;
	return 0;
}

static int teardown(void **state)
{
	size_t i;

	for (i = 0; i < 2; i++) {
		if (fills[i])
			fill_free(fills[i]);
		fills[i] = NULL;
	}
	while (nr_ended < nr_fetches)
		end_fetch(0);
	assert_int_equal(object->refs, 1);
	object_put(object);
	for (i = 0; i < 2; i++) {
		assert_int_equal(chains[i].refs, 1);
		qc2_index_free(chains[i].index);
	}
	sd_event_unref(chaind.event);
	return 0;
}

static void start(unsigned int i, bool force)
{
	fills[i] = fill_new(&disks[i], force, on_done, &disks[i]);
	assert_non_null(fills[i]);
	run_events();
}

static struct fill_stats stats_of(unsigned int i)
{
	struct fill_stats stats;

	fill_get_stats(fills[i], &stats);
	return stats;
}

/* All blocks, each once, few at a time. */
static void test_all(void **state)
{
	struct fill_stats stats;
	unsigned int i;

	cached[0] = cached[100] = cached[499] = true;
	start(0, false);
	assert_int_equal(fill_get_state(fills[0]), FILL_BRINGING);
	while (nr_ended < nr_fetches) {
		assert_in_range(under_way(), 1, MAX_UNDER_WAY + RUN);
		end_fetch(0);
		run_events();
	}
	assert_int_equal(nr_done[0], 1);
	assert_int_equal(result[0], 0);
	for (i = 0; i < NR_BLOCKS; i++)
		assert_int_equal(cached[i], i < 500);
	stats = stats_of(0);
	assert_int_equal(stats.live, 500);
	assert_int_equal(stats.local, 3);
	assert_int_equal(stats.fetched, 497);
	assert_int_equal(stats.same + stats.zero, 0);
}

/* The buffers are not left unused. */
static void test_fills_window(void **state)
{
	start(0, false);
	assert_in_range(under_way(), MAX_UNDER_WAY, MAX_UNDER_WAY + RUN);
	all_come();
}

static void test_nothing_to_do(void **state)
{
	memset(cached, 1, sizeof(cached));
	start(0, false);
	assert_int_equal(nr_done[0], 1);
	assert_int_equal(nr_fetches, 0);
	assert_int_equal(stats_of(0).local, 500);
}

/* Of a small cache an eighth may be under way. */
static void test_small_cache(void **state)
{
	slots = 256;
	start(0, true);
	assert_in_range(under_way(), 32, 32 + RUN - 1);
	all_come();
	assert_int_equal(nr_done[0], 1);
}

/* Two share what may be under way; when one ends, the other one has all of it. */
static void test_shares(void **state)
{
	unsigned int before, i;

	start(0, false);
	before = under_way();
	start(1, false);
	assert_in_range(under_way() - before, MAX_UNDER_WAY / 2, MAX_UNDER_WAY / 2 + RUN - 1);
	fill_free(fills[0]);
	fills[0] = NULL;
	while (nr_ended < nr_fetches && fetches[nr_ended].blocks[0]->nr < 400)
		end_fetch(0);
	end_fetch(0);
	run_events();
	assert_in_range(under_way(), MAX_UNDER_WAY, MAX_UNDER_WAY + RUN - 1);
	all_come();
	assert_int_equal(nr_done[0], 0);
	assert_int_equal(nr_done[1], 1);
	for (i = 400; i < 900; i++)
		assert_true(cached[i]);
}

/* How blocks came is what their bringer says. */
static void test_kinds(void **state)
{
	struct fill_stats stats;
	unsigned int i;

	start(0, false);
	while (nr_ended < nr_fetches) {
		struct fetched *f = &fetches[nr_ended];

		for (i = 0; i < f->nr; i++)
			f->blocks[i]->came = f->blocks[i]->nr < 10 ? CAME_SAME :
					     f->blocks[i]->nr < 30 ? CAME_ZERO :
					     f->blocks[i]->nr < 60 ? CAME_BY_NAME :
								     CAME_FETCHED;
		end_fetch(0);
		run_events();
	}
	stats = stats_of(0);
	assert_int_equal(stats.same, 10);
	assert_int_equal(stats.zero, 20);
	assert_int_equal(stats.local, 30);
	assert_int_equal(stats.fetched, 440);
}

static void test_waits_for_opening(void **state)
{
	struct opening *opening = (struct opening *)&chaind;

	disks[0].chain = NULL;
	disks[0].opening = opening;
	start(0, false);
	assert_int_equal(went_on, 0);
	disks[0].chain = &chains[0];
	fill_look(disks[0].fill);
	run_events();
	assert_int_equal(went_on, 1);
	assert_int_equal(nr_fetches, 0);
	assert_int_equal(fill_get_state(fills[0]), FILL_OPENING);
	disks[0].opening = NULL;
	fill_look(disks[0].fill);
	all_come();
	assert_int_equal(nr_done[0], 1);
	assert_int_equal(stats_of(0).fetched, 500);
}

static void test_opening_fails(void **state)
{
	disks[0].chain = NULL;
	start(0, false);
	disks[0].failed = -ENOENT;
	qc2_fail(&disks[0].error, ENOENT, "there is no image");
	fill_disk_gone(disks[0].fill);
	assert_int_equal(nr_done[0], 0);
	run_events();
	assert_int_equal(nr_done[0], 1);
	assert_int_equal(result[0], -ENOENT);
	assert_in(error.msg, "no image");
	assert_null(fill_disk(fills[0]));
}

static void test_too_small(void **state)
{
	slots = 499;
	start(0, false);
	assert_int_equal(nr_done[0], 1);
	assert_int_equal(result[0], -ENOSPC);
	assert_in(error.msg, "31.3 MiB");	/* 500 blocks, rounded up, and 499, rounded down */
	assert_in(error.msg, "31.1 MiB");
	assert_in(error.msg, "--force");
	assert_int_equal(nr_fetches, 0);
	fill_free(fills[0]);
	start(0, true);
	all_come();
	assert_int_equal(nr_done[0], 2);
	assert_int_equal(result[0], 0);
}

/* Runs the event loop until there is something to fetch. */
static void wait_for_fetch(void)
{
	while (nr_ended == nr_fetches)
		assert_true(sd_event_run(chaind.event, UINT64_MAX) >= 0);
	run_events();
}

/* A store that does not answer: one run now and then; when it does, all goes on. */
static void test_store_fails(void **state)
{
	unsigned int i;

	start(0, false);
	end_fetch(0);
	while (nr_ended < nr_fetches)
		end_fetch(-EAGAIN);
	run_events();
	assert_int_equal(nr_ended, nr_fetches);
	assert_true(fill_rests(fills[0]));
	for (i = 0; i < 2; i++) {
		wait_for_fetch();
		assert_in_range(under_way(), 1, RUN);
		while (nr_ended < nr_fetches)
			end_fetch(i ? -ECANCELED : -EAGAIN);
		run_events();
	}
	assert_int_equal(nr_done[0], 0);
	wait_for_fetch();
	end_fetch(0);
	run_events();
	assert_false(fill_rests(fills[0]));
	assert_in_range(under_way(), MAX_UNDER_WAY / 2, MAX_UNDER_WAY + RUN);
	all_come();
	assert_int_equal(nr_done[0], 1);
	assert_int_equal(result[0], 0);
	for (i = 0; i < 500; i++)
		assert_true(cached[i]);
	assert_int_equal(stats_of(0).fetched, 500);
}

/* What does not pass ends it, and is told. */
static void test_final_error(void **state)
{
	unsigned int before, i;

	chains[0].from_manifest = false;
	start(0, false);
	end_fetch(0);
	run_events();
	qc2_fail(&fetches[nr_ended].stats->last_error, EIO, "https://host/x: 404");
	before = nr_fetches;
	i = fetches[nr_ended].blocks[0]->nr;
	end_fetch(-EIO);
	run_events();
	assert_int_equal(nr_done[0], 1);
	assert_int_equal(result[0], -EIO);
	assert_in(error.msg, "https://host/x: 404");
	assert_int_equal(strtoull(strstr(error.msg, "offset ") + 7, NULL, 10), i * BLOCK);
	assert_int_equal(distrusted, 0);
	all_come();
	assert_int_equal(nr_fetches, before);
	assert_int_equal(nr_done[0], 1);
}

/* The fetch of another disk may fail for reasons of its own. */
static void test_other_fails(void **state)
{
	struct block *block = block_new(object, 3);

	start(0, false);
	assert_int_not_equal(fetches[0].nr, 0);
	land(block, -EIO);
	all_come();
	assert_int_equal(nr_done[0], 1);
	assert_int_equal(result[0], 0);
	assert_int_equal(stats_of(0).fetched, 500);
}

/* A manifest that is wrong: the chain that a walk finds is brought. */
static void test_wrong_manifest(void **state)
{
	static uint8_t digest[NR_BLOCKS][QC2_DIGEST_LEN];
	static struct qc2_digest_run run = { .nr = NR_BLOCKS };
	static struct qc2_digests digests = { .runs = &run, .nr_runs = 1, .v = digest,
					      .nr = NR_BLOCKS };
	unsigned int i;

	disks[0].digests = &digests;
	start(0, false);
	assert_true(fetches[0].blocks[0]->has_digest);
	end_fetch(-EBADMSG);
	run_events();
	assert_int_equal(distrusted, 1);
	assert_int_equal(nr_done[0], 0);
	all_come();
	assert_int_equal(fill_get_state(fills[0]), FILL_OPENING);
	disks[0].chain = &chains[1];
	disks[0].digests = NULL;
	fill_look(disks[0].fill);
	all_come();
	assert_int_equal(nr_done[0], 1);
	assert_int_equal(result[0], 0);
	assert_int_equal(stats_of(0).live, 500);
	for (i = 400; i < 900; i++)
		assert_true(cached[i]);
}

/* The image is what is wrong: no walk helps. */
static void test_damaged(void **state)
{
	static uint8_t digest[NR_BLOCKS][QC2_DIGEST_LEN];
	static struct qc2_digest_run run = { .nr = NR_BLOCKS };
	static struct qc2_digests digests = { .runs = &run, .nr_runs = 1, .v = digest,
					      .nr = NR_BLOCKS };

	chains[0].from_manifest = false;
	disks[0].digests = &digests;
	start(0, false);
	end_fetch(-EBADMSG);
	run_events();
	assert_int_equal(distrusted, 1);
	assert_int_equal(result[0], -EBADMSG);
	assert_in(error.msg, "offset 0 are not what the manifest says");
}

/* It ends in the middle; what is under way comes nevertheless. */
static void test_ends(void **state)
{
	start(0, false);
	end_fetch(0);
	run_events();
	fill_free(fills[0]);
	fills[0] = NULL;
	assert_null(disks[0].fill);
	all_come();
	assert_int_equal(nr_done[0], 0);
	assert_true(cached[MAX_UNDER_WAY / 2]);
	assert_false(cached[499]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_all, setup, teardown),
		cmocka_unit_test_setup_teardown(test_fills_window, setup, teardown),
		cmocka_unit_test_setup_teardown(test_nothing_to_do, setup, teardown),
		cmocka_unit_test_setup_teardown(test_small_cache, setup, teardown),
		cmocka_unit_test_setup_teardown(test_shares, setup, teardown),
		cmocka_unit_test_setup_teardown(test_kinds, setup, teardown),
		cmocka_unit_test_setup_teardown(test_waits_for_opening, setup, teardown),
		cmocka_unit_test_setup_teardown(test_opening_fails, setup, teardown),
		cmocka_unit_test_setup_teardown(test_too_small, setup, teardown),
		cmocka_unit_test_setup_teardown(test_store_fails, setup, teardown),
		cmocka_unit_test_setup_teardown(test_final_error, setup, teardown),
		cmocka_unit_test_setup_teardown(test_other_fails, setup, teardown),
		cmocka_unit_test_setup_teardown(test_wrong_manifest, setup, teardown),
		cmocka_unit_test_setup_teardown(test_damaged, setup, teardown),
		cmocka_unit_test_setup_teardown(test_ends, setup, teardown),
	};

	origin_setup(64);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
