/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Requests that wait for blocks, where a block has another digest than a manifest
 * says.  What the daemon has around them is played here: the fetcher, the cache, the
 * kernel, and the walk that tells whether the manifest was right.
 */
#include <errno.h>

#include "../../userspace/chaind/bring.h"
#include "../../userspace/chaind/bypass.h"
#include "../../userspace/chaind/disk.h"
#include "../../userspace/chaind/miss.h"
#include "../../userspace/chaind/opening.h"
#include "../../userspace/chaind/region.h"
#include "testing.h"

#define NR_BLOCKS	4
#define DISK_SECTORS	(NR_BLOCKS * QC2_BLOCK_SECTORS)

static struct chaind chaind;
static struct disk disks[2];
static struct object *objects[2];
static struct qc2_link top = { .url = (char *)"http://host/image" };
static struct qc2_chain chains[2], walked = { .links = &top, .nr_links = 1 };
static struct qc2_digests digests;
static uint8_t digest[NR_BLOCKS][QC2_DIGEST_LEN];
static struct qc2_digest_run run = { .nr = NR_BLOCKS };
static struct block *fetched[16];
static unsigned int nr_fetched, nr_errors, nr_runs, nr_bad;
static bool cached[NR_BLOCKS];

const struct qc2_index *disk_index(struct disk *disk, uint64_t sector,
				   uint64_t nr_sectors, uint64_t *to)
{
	*to = DISK_SECTORS;
	return disk->chain->index;
}

bool disk_distrust(struct disk *disk, int why)
{
	if (!disk->chain->from_manifest)
		return false;
	disk->chain = NULL;
	return true;
}

bool disk_revive(struct disk *disk)
{
	return false;
}

int disk_check_table(struct disk *disk, uint64_t generation)
{
	return 0;
}

void opening_go_on(struct opening *opening)
{
}

uint32_t cache_lookup(struct cache *cache, const struct object *obj, uint32_t block)
{
	return cached[block] ? block : CACHE_NO_SLOT;
}

void cache_ask(struct cache *cache, uint32_t slot, bool first)
{
}

void cache_bad_slot(struct cache *cache, uint32_t slot)
{
	assert_true(cached[slot]);
	cached[slot] = false;
	nr_bad++;
}

bool cache_is_hidden(const struct cache *cache, uint32_t slot)
{
	return false;
}

bool cache_is_marked(const struct cache *cache, uint32_t slot)
{
	return false;
}

void cache_clear_mark(struct cache *cache, uint32_t slot)
{
}

unsigned int cache_bufs(const struct cache *cache, unsigned int *total)
{
	return *total = 1024;
}

void cache_get_stats(const struct cache *cache, struct cache_stats *stats)
{
	*stats = (struct cache_stats){ .slots = 1024 };
}

void fetch_want(struct block *block)
{
}

void region_want(struct block *block)
{
}

/* Nothing is fetched ahead. */
int bring_start(struct chaind *unused, enum fetch_class class, struct block **blocks,
		unsigned int nr, struct fetch_stats *stats)
{
	if (class != FETCH_DEMAND)
		return -ENOMEM;
	while (nr--)
		fetched[nr_fetched++] = *blocks++;
	return 0;
}

void kernel_reply_runs(struct kernel *kernel, uint32_t dev, uint64_t generation,
		       const struct qc2_run *runs, unsigned int nr)
{
	nr_runs += nr;
}

void kernel_reply_error(struct kernel *kernel, uint32_t dev, uint64_t generation,
			uint64_t id, int errnum)
{
	nr_errors++;
}

static struct qc2_index *make_index(void)
{
	const struct qc2_extent ext = { .nr_sectors = DISK_SECTORS };
	struct qc2_extents list = { 0 };

	assert_int_equal(qc2_extents_add(&list, &ext), 0);
	return qc2_index_build(&list, DISK_SECTORS);
}

/* Two disks over one image; the first by a manifest with digests. */
static int setup(void **state)
{
	static struct fetch_stats stats;
	size_t i;

	/* As in the daemon: once, for good. */
	if (!chaind.misses) {
		assert_true(sd_event_new(&chaind.event) >= 0);
		assert_int_equal(misses_new(&chaind.misses, &chaind), 0);
	}
	chaind.cfg.extension_bytes = QC2_BLOCK_BYTES;
	walked.index = make_index();
	walked.nr_sectors = DISK_SECTORS;
	digests = (struct qc2_digests){ .runs = &run, .nr_runs = 1, .v = digest,
					.nr = NR_BLOCKS };
	objects[0] = object_get("http://host/image", DISK_SECTORS * 512, "v");
	assert_non_null(objects[0]);
	for (i = 0; i < 2; i++) {
		chains[i] = walked;
		chains[i].from_manifest = !i;
		disks[i] = (struct disk){
			.chaind = &chaind, .state = DISK_ATTACHED, .chain = &chains[i],
			.objects = objects, .digests = i ? NULL : &digests,
			.stats = &stats,
		};
		TAILQ_INIT(&disks[i].requests);
	}
	nr_fetched = nr_errors = nr_runs = nr_bad = 0;
	memset(cached, 0, sizeof(cached));
	return 0;
}

static void run_events(void)
{
	while (sd_event_run(chaind.event, 0) > 0)
		;
}

static int teardown(void **state)
{
	size_t i;

	for (i = 0; i < 2; i++)
		miss_drop(&disks[i]);
	object_put(objects[0]);
	qc2_index_free(walked.index);
	run_events();
	return 0;
}

static void ask(struct disk *disk, unsigned int block)
{
	const struct kernel_request req = {
		.generation = 1, .id = block + 1,
		.sector = block * QC2_BLOCK_SECTORS, .nr_sectors = QC2_BLOCK_SECTORS,
	};

	assert_int_equal(miss_request(disk, &req), 0);
}

/* The fetch with that number ends. */
static void ends(unsigned int nr, int ret)
{
	if (!ret)
		cached[fetched[nr]->nr] = true;
	miss_block_done(fetched[nr], ret);
}

/* A disk that has no digest does not fail because another one has a wrong one. */
static void test_other_disk(void **state)
{
	ask(&disks[0], 0);
	run_events();
	ask(&disks[1], 0);
	run_events();
	assert_int_equal(nr_fetched, 1);
	assert_true(fetched[0]->has_digest);
	ends(0, -EBADMSG);
	run_events();
	assert_int_equal(nr_errors, 0);
	assert_null(disks[0].chain);
	assert_int_equal(nr_fetched, 2);
	assert_false(fetched[1]->has_digest);
	ends(1, 0);
	run_events();
	assert_int_equal(nr_errors, 0);
	assert_int_equal(nr_runs, 1);
	assert_true(TAILQ_EMPTY(&disks[1].requests));
}

/* The manifest is wrong: no request fails, whenever its blocks come. */
static void test_walk(void **state)
{
	unsigned int i;

	for (i = 0; i < 3; i++)
		ask(&disks[0], i);
	run_events();
	assert_int_equal(nr_fetched, 3);
	ends(0, -EBADMSG);
	ends(1, -EBADMSG);
	run_events();
	assert_null(disks[0].chain);
	disks[0].chain = &walked;
	disks[0].digests = NULL;
	miss_retry(&disks[0]);
	run_events();
	assert_int_equal(nr_fetched, 5);
	/* It was on its way all the time. */
	ends(2, -EBADMSG);
	run_events();
	assert_int_equal(nr_fetched, 6);
	for (i = 3; i < 6; i++) {
		assert_false(fetched[i]->has_digest);
		ends(i, 0);
	}
	run_events();
	assert_int_equal(nr_errors, 0);
	assert_true(TAILQ_EMPTY(&disks[0].requests));
}

/* The manifest is right: the request of the block fails, and nothing else. */
static void test_damaged(void **state)
{
	ask(&disks[0], 0);
	ask(&disks[0], 1);
	run_events();
	ends(0, -EBADMSG);
	run_events();
	ends(1, 0);
	disks[0].chain = &walked;
	miss_retry(&disks[0]);
	run_events();
	assert_int_equal(nr_fetched, 3);
	assert_true(fetched[2]->has_digest);
	ends(2, -EBADMSG);
	run_events();
	assert_int_equal(nr_errors, 1);
	assert_true(TAILQ_EMPTY(&disks[0].requests));
}

/* What the kernel could not read from that store is brought again, and nothing else. */
static void test_store_failed(void **state)
{
	struct kernel_request req = {
		.generation = 1, .id = 1, .sector = QC2_BLOCK_SECTORS,
		.nr_sectors = QC2_BLOCK_SECTORS, .store_failed = true,
		.failed_store = BYPASS_STORE,
	};

	cached[0] = cached[1] = true;
	assert_int_equal(miss_request(&disks[1], &req), 0);
	run_events();
	assert_int_equal(nr_runs, 1);
	assert_int_equal(nr_bad, 0);

	req.id++;
	req.failed_store = CACHE_STORE;
	assert_int_equal(miss_request(&disks[1], &req), 0);
	run_events();
	assert_int_equal(nr_bad, 1);
	assert_true(cached[0]);
	assert_int_equal(nr_fetched, 1);
	assert_int_equal(nr_runs, 1);
	ends(0, 0);
	run_events();
	assert_int_equal(nr_bad, 1);
	assert_int_equal(nr_runs, 2);
	assert_true(TAILQ_EMPTY(&disks[1].requests));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_other_disk, setup, teardown),
		cmocka_unit_test_setup_teardown(test_walk, setup, teardown),
		cmocka_unit_test_setup_teardown(test_damaged, setup, teardown),
		cmocka_unit_test_setup_teardown(test_store_failed, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
