/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What is fetched for reads and ahead of them.  Fetcher and cache are played here: what
 * is fetched is in the cache when the test says so.
 */
#include "../../userspace/chaind/bring.h"
#include "../../userspace/chaind/disk.h"
#include "../../userspace/chaind/plan.h"
#include "testing.h"

#define BLOCK		QC2_BLOCK_BYTES
#define SECTORS		QC2_BLOCK_SECTORS
#define NR_BLOCKS	65536U		/* of each object */
#define NR_OBJECTS	2
#define NR_BUFS		256
#define SLOTS		1024
#define MAX_WINDOW	128		/* blocks: half of the buffers, an eighth of the slots */
#define LARGEST		32		/* blocks of a chunk */
#define LEAST		4

struct fetched {
	enum fetch_class class;
	unsigned int object;
	uint32_t first;
	unsigned int nr;
	struct block *blocks[FETCH_MAX_BLOCKS];
};

static struct chaind chaind = { .cfg = { .extension_bytes = 64 << 20 } };
static struct disk disk;
static struct object *objects[NR_OBJECTS];
static struct qc2_extents extents;
static struct qc2_index *idx;
static bool cached[NR_OBJECTS][NR_BLOCKS];
static struct fetched fetches[4096];
static unsigned int nr_fetches, nr_ended;

static unsigned int number_of(const struct object *obj)
{
	unsigned int i;

	for (i = 0; objects[i] != obj; i++)
		assert_true(i + 1 < NR_OBJECTS);
	return i;
}

uint32_t cache_lookup(struct cache *cache, const struct object *obj, uint32_t block)
{
	return cached[number_of(obj)][block] ? block : CACHE_NO_SLOT;
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
	*stats = (struct cache_stats){ .slots = SLOTS };
}

int bring_start(struct chaind *unused, enum fetch_class class, struct block **blocks,
		unsigned int nr, struct fetch_stats *stats)
{
	struct fetched *f = &fetches[nr_fetches++];
	unsigned int i;

	assert_true(nr_fetches < sizeof(fetches) / sizeof(fetches[0]));
	assert_in_range(nr, 1, FETCH_MAX_BLOCKS);
	*f = (struct fetched){ class, number_of(blocks[0]->obj), blocks[0]->nr, nr, { NULL } };
	for (i = 0; i < nr; i++) {
		assert_int_equal(blocks[i]->nr, blocks[0]->nr + i);
		assert_ptr_equal(blocks[i]->obj, blocks[0]->obj);
		/* Nothing is fetched that is there. */
		assert_false(cached[f->object][f->first + i]);
		f->blocks[i] = blocks[i];
	}
	return 0;
}

/* There is none. */
/* All that was fetched so far is in the cache. */
static void land(void)
{
	unsigned int i;

	for (; nr_ended < nr_fetches; nr_ended++) {
		struct fetched *f = &fetches[nr_ended];

		for (i = 0; i < f->nr; i++) {
			cached[f->object][f->first + i] = true;
			block_free(f->blocks[i]);
		}
	}
}

static void forget(void)
{
	land();
	nr_fetches = nr_ended = 0;
}

/* Each test has stores of its own, of which nothing is known yet. */
static int setup(void **state)
{
	static unsigned int nr;
	unsigned int i;
	char url[64];

	origin_setup(64);
	for (i = 0; i < NR_OBJECTS; i++) {
		snprintf(url, sizeof(url), "https://host%u-%u/image", nr, i);
		objects[i] = object_get(url, (uint64_t)NR_BLOCKS * BLOCK, "v");
		assert_non_null(objects[i]);
	}
	nr++;
	disk = (struct disk){ .chaind = &chaind, .objects = objects };
	plan_init(&disk.plan);
	memset(cached, 0, sizeof(cached));
	return 0;
}

static int teardown(void **state)
{
	unsigned int i;

	forget();
	for (i = 0; i < NR_OBJECTS; i++) {
		assert_int_equal(objects[i]->refs, 1);
		object_put(objects[i]);
	}
	qc2_index_free(idx);
	idx = NULL;
	return 0;
}

/* Its chunk is as large as can be. */
static void make_far(unsigned int object)
{
	struct origin *o = objects[object]->places[0].origin;

	origin_first_byte(o, 100000);
	origin_body(o, 1 << 20, 1000);
	assert_int_equal(origin_chunk(o), LARGEST * BLOCK);
}

static void add(uint32_t disk_block, unsigned int object, uint32_t block, uint32_t nr)
{
	const struct qc2_extent ext = {
		.sector = (uint64_t)disk_block * SECTORS, .nr_sectors = nr * SECTORS,
		.offset = (uint64_t)block * BLOCK, .object = object,
	};

	assert_int_equal(qc2_extents_add(&extents, &ext), 0);
}

static void build(void)
{
	idx = qc2_index_build(&extents, (uint64_t)NR_BLOCKS * SECTORS);
	assert_non_null(idx);
}

static void build_plain(void)
{
	add(0, 0, 0, NR_BLOCKS);
	build();
}

/* A read of one block of the disk, as a request does it. */
static void read_one(uint32_t disk_block, bool was_marked)
{
	struct piece piece, missing;
	struct resolve res;
	bool fetched = false;

	resolve_start(&res, chaind.cache, idx, objects, (uint64_t)disk_block * SECTORS, SECTORS);
	while (resolve_next(&res, &piece)) {
		if (piece.kind != PIECE_MISSING ||
		    block_find(objects[piece.object], piece.offset / BLOCK))
			continue;
		assert_non_null(plan_demand(&disk, &piece));
		missing = piece;
		fetched = true;
	}
	plan_ahead(&disk, idx, idx->nr_sectors, (uint64_t)disk_block * SECTORS, SECTORS,
		   fetched ? &missing : NULL, was_marked);
}

static void read_block(uint32_t disk_block)
{
	read_one(disk_block, false);
}

static void assert_fetch(unsigned int nr, enum fetch_class class, unsigned int object,
			 uint32_t first, unsigned int blocks)
{
	assert_true(nr < nr_fetches);
	assert_int_equal(fetches[nr].class, class);
	assert_int_equal(fetches[nr].object, object);
	assert_int_equal(fetches[nr].first, first);
	assert_int_equal(fetches[nr].nr, blocks);
}

/* Blocks from fetch @from on, of which @marked are marked. */
static unsigned int count_ahead(unsigned int from, unsigned int *marked)
{
	unsigned int nr = 0, i;

	*marked = 0;
	for (; from < nr_fetches; from++) {
		if (fetches[from].class != FETCH_AHEAD)
			continue;
		nr += fetches[from].nr;
		for (i = 0; i < fetches[from].nr; i++)
			*marked += fetches[from].blocks[i]->marked;
	}
	return nr;
}

/*
 * ---------------------------------------------------------------------------
 * Extensions
 * ---------------------------------------------------------------------------
 */

static void make_useful(void)
{
	unsigned int i;

	for (i = 0; i < 100; i++)
		plan_was_useful(&disk.plan);
}

/* What a read wants comes alone; what is behind it, as far as it is live, beside it. */
static void test_extension(void **state)
{
	unsigned int marked;

	make_far(0);
	add(0, 0, 100, 8);
	build();
	make_useful();
	read_block(2);
	assert_int_equal(nr_fetches, 2);
	assert_fetch(0, FETCH_DEMAND, 0, 102, 1);
	assert_false(fetches[0].blocks[0]->marked);
	assert_fetch(1, FETCH_AHEAD, 0, 103, 5);
	assert_true(fetches[1].blocks[2]->marked);
	assert_int_equal(count_ahead(0, &marked), 5);
	assert_int_equal(marked, 1);
}

/* Its end, and blocks that are there or on their way, are where it stops. */
static void test_extension_stops(void **state)
{
	unsigned int marked;

	make_far(0);
	build_plain();
	make_useful();
	cached[0][105] = true;
	read_block(100);
	assert_int_equal(nr_fetches, 2);
	assert_fetch(1, FETCH_AHEAD, 0, 101, 4);
	read_block(90);
	assert_int_equal(nr_fetches, 4);
	assert_fetch(3, FETCH_AHEAD, 0, 91, 9);
	read_block(NR_BLOCKS - 3);
	assert_int_equal(nr_fetches, 6);
	assert_fetch(5, FETCH_AHEAD, 0, NR_BLOCKS - 2, 2);
	read_block(NR_BLOCKS - 10);
	make_useful();
	cached[0][201] = true;
	forget();
	read_block(200);
	assert_int_equal(count_ahead(0, &marked), 0);
}

/* A gap of one block in the object is fetched with what is around it, not more. */
static void test_extension_gap(void **state)
{
	make_far(0);
	add(0, 0, 100, 3);
	add(3, 0, 104, 2);	/* behind one block */
	add(5, 0, 108, 10);	/* behind two */
	build();
	make_useful();
	read_block(0);
	assert_int_equal(nr_fetches, 2);
	assert_fetch(1, FETCH_AHEAD, 0, 101, 5);
}

/* It takes no longer than the wait for the first byte, whatever is configured. */
static void test_extension_size(void **state)
{
	build_plain();
	make_useful();
	read_block(1000);
	assert_fetch(1, FETCH_AHEAD, 0, 1001, LEAST);
	make_far(0);
	make_useful();
	forget();
	read_block(2000);
	assert_fetch(1, FETCH_AHEAD, 0, 2001, LARGEST);
	chaind.cfg.extension_bytes = 10 * BLOCK;
	make_useful();
	forget();
	read_block(3000);
	assert_fetch(1, FETCH_AHEAD, 0, 3001, 10);
	chaind.cfg.extension_bytes = 64 << 20;
}

/* Reads that never come to what was fetched with others soon have nothing ahead. */
static void check_random(void)
{
	unsigned int i, ahead = 0, tries = 0, marked, first = 0;

	for (i = 0; i < 64 + 320; i++) {
		read_block(i * 40503U % NR_BLOCKS);
		if (i < 64)
			first += count_ahead(0, &marked);
		if (i >= 64) {
			ahead += count_ahead(0, &marked);
			tries += marked;
		}
		forget();
	}
	assert_true(first > 0);
	assert_int_equal(tries, 320 / 16);
	assert_int_equal(ahead, tries);
}

static void test_far_apart(void **state)
{
	build_plain();
	check_random();
}

static void test_far_apart_slow(void **state)
{
	make_far(0);
	build_plain();
	check_random();
}

/* Those that do have more. */
static void test_useful(void **state)
{
	unsigned int i, marked, last = 0;

	make_far(0);
	build_plain();
	check_random();
	for (i = 0; i < 64; i++) {
		read_block((i + 1000) * 40503U % NR_BLOCKS);
		last = count_ahead(0, &marked);
		if (marked)
			plan_was_useful(&disk.plan);
		forget();
	}
	assert_in_range(last, LARGEST / 2, LARGEST);
}

/* One read, where a quarter of the extensions are useful; returns what is ahead. */
static unsigned int read_quarter(uint32_t block)
{
	unsigned int nr, marked;

	disk.plan.useful = 256 / 4;
	forget();
	read_block(block);
	nr = count_ahead(0, &marked);
	assert_int_equal(marked, nr > 0);
	return nr;
}

/* Where reads missed near each other there is more each time, also what is before them. */
static void test_same_spot(void **state)
{
	const uint32_t spot = 32 * LARGEST;

	make_far(0);
	build_plain();
	assert_int_equal(read_quarter(spot + 16), LARGEST / 16);
	assert_fetch(1, FETCH_AHEAD, 0, spot + 17, 2);
	assert_int_equal(read_quarter(spot + 6), LARGEST / 4 - 1);
	assert_fetch(1, FETCH_AHEAD, 0, spot, 6);
	assert_fetch(2, FETCH_AHEAD, 0, spot + 7, 1);
	assert_int_equal(read_quarter(spot + 26), LARGEST / 2 - 4);
	assert_fetch(1, FETCH_AHEAD, 0, spot + 19, 7);
	assert_fetch(2, FETCH_AHEAD, 0, spot + 27, 5);
	assert_int_equal(read_quarter(spot + 12), 7);
	assert_fetch(1, FETCH_AHEAD, 0, spot + 8, 4);
	assert_fetch(2, FETCH_AHEAD, 0, spot + 13, 3);
	/* Nothing is left, and elsewhere nothing has missed. */
	assert_int_equal(read_quarter(spot - LARGEST), LARGEST / 16);
	assert_int_equal(read_quarter(spot + LARGEST), LARGEST / 16);
}

/* Only what is live, of any of it. */
static void test_same_spot_gaps(void **state)
{
	make_far(0);
	add(0, 0, 3, 2);
	add(10, 0, 6, 1);	/* behind one block */
	add(20, 0, 20, 2);
	add(30, 0, 30, 9);	/* beyond the spot */
	build();
	read_quarter(20);
	disk.plan.useful = 256;
	forget();
	read_block(10);
	assert_int_equal(nr_fetches, 3);
	assert_fetch(0, FETCH_DEMAND, 0, 6, 1);
	assert_fetch(1, FETCH_AHEAD, 0, 3, 3);
	assert_fetch(2, FETCH_AHEAD, 0, 30, 2);
}

/*
 * ---------------------------------------------------------------------------
 * Streams
 * ---------------------------------------------------------------------------
 */

/* Position of the only marked block among those of fetches from @from on. */
static unsigned int marked_at(unsigned int from)
{
	unsigned int at = 0, i;

	for (; from < nr_fetches; from++)
		for (i = 0; i < fetches[from].nr; i++, at++)
			if (fetches[from].blocks[i]->marked)
				return at;
	fail_msg("nothing is marked");
	return 0;
}

static void test_stream(void **state)
{
	unsigned int i, window = 8, windows = 0, planned, marked;

	build_plain();
	read_block(0);
	read_block(1);
	planned = 1 + LEAST;		/* at most: it is no stream yet */
	forget();
	for (i = 2; i < 2000; i++) {
		unsigned int nr, from = nr_fetches;

		read_block(i);
		/* From the first window on nothing has to be waited for. */
		if (i > 2)
			assert_int_equal(nr_fetches > from &&
					 fetches[from].class == FETCH_DEMAND, 0);
		nr = count_ahead(from, &marked);
		if (nr) {
			assert_int_equal(marked, 1);
			if (windows)
				assert_in_range(marked_at(from), nr / 2 - 1, nr / 2 + 1);
			planned = fetches[nr_fetches - 1].first + fetches[nr_fetches - 1].nr;
			/* Never more ahead than the window, which doubles. */
			assert_in_range(planned - (i + 1), window / 2, window);
			assert_in_range(nr, window / 4, window);
			window = 2 * window < MAX_WINDOW ? 2 * window : MAX_WINDOW;
			windows++;
		}
		assert_true(planned > i + 1);
		forget();
	}
	assert_true(windows > 2000 / MAX_WINDOW);
	assert_true(planned < 2000 + MAX_WINDOW);
	/* Kernels are told as far as that. */
	assert_int_equal(plan_told_to(&disk.plan, 2000 * SECTORS), planned * SECTORS);
	assert_int_equal(plan_told_to(&disk.plan, 3000 * SECTORS), 0);
}

/*
 * Of reads of what the kernel was told of nothing is heard, until one comes to the marked
 * block of the extension: that is a stream.
 */
static void test_stream_by_mark(void **state)
{
	unsigned int from, at, marked;

	build_plain();
	make_useful();
	read_block(0);
	at = marked_at(0);
	assert_true(at > 1);
	from = nr_fetches;
	read_one(at, true);
	assert_true(count_ahead(from, &marked) > 0);
	assert_int_equal(marked, 1);
	assert_true(plan_told_to(&disk.plan, (at + 1) * SECTORS) > 2 * at * SECTORS);
}

/* Several at once, and reads between them. */
static void test_streams(void **state)
{
	unsigned int i, n;

	build_plain();
	for (i = 0; i < 200; i++) {
		for (n = 0; n < 4; n++) {
			read_block(10000 * n + i);
			forget();
		}
		read_block(50000 + i * 37);
		forget();
	}
	for (n = 0; n < 4; n++)
		/* They share what may be ahead. */
		assert_in_range(plan_told_to(&disk.plan, (10000 * n + 200) * SECTORS) / SECTORS,
				10000 * n + 200 + MAX_WINDOW / 16,
				10000 * n + 200 + MAX_WINDOW / 4);
}

/* Backwards, or with holes, is no stream. */
static void test_no_stream(void **state)
{
	unsigned int i, marked, ahead = 0;

	build_plain();
	for (i = 0; i < 400; i++) {
		read_block(i < 200 ? 9000 - 10 * i : 20000 + 10 * i);
		if (i > 100)
			ahead += count_ahead(0, &marked);
		forget();
	}
	assert_true(ahead < 400 / 8);
}

/* Where the disk goes on in other objects, so does what is fetched, in its order. */
static void test_fragments(void **state)
{
	unsigned int i;

	/* Four blocks at a time, from two objects in turn, and there from the end on. */
	for (i = 0; i < 100; i++)
		add(4 * i, i % 2, 10000 - 8 * i, 4);
	build();
	for (i = 0; i < 4; i++) {
		read_block(i);
		land();
	}
	forget();
	for (; i < 100; i++)
		read_block(i);
	/* In the order of the disk; where a window ends a fragment is cut. */
	for (i = 0; i < nr_fetches; i++) {
		unsigned int n = (10000 + 3 - fetches[i].first) / 8;

		assert_int_equal(fetches[i].object, n % 2);
		if (i)
			assert_in_range(n - (10003 - fetches[i - 1].first) / 8, 0, 1);
		assert_int_equal(fetches[i].class, FETCH_AHEAD);
		assert_in_range(fetches[i].nr, 1, 4);
	}
	assert_true(nr_fetches > 100 / 4);
}

/* Single blocks with one between them are fetched together with that. */
static void test_stream_gaps(void **state)
{
	unsigned int i, n = 0;

	make_far(0);
	for (i = 0; i < 200; i++)
		add(i, 0, 2 * i, 1);
	for (; i < 400; i++)
		add(i, 0, 1000 + 3 * (i - 200), 1);
	build();
	for (i = 0; i < 150; i++) {
		read_block(i);
		land();
	}
	for (i = 3; i < nr_fetches; i++)
		n += fetches[i].nr > 1;
	assert_true(n > 0);
	forget();
	for (i = 300; i < 350; i++) {
		read_block(i);
		land();
	}
	for (i = 0; i < nr_fetches; i++)
		assert_int_equal(fetches[i].nr, 1);
}

/* No GET of a window is longer than the chunk. */
static void test_stream_chunks(void **state)
{
	unsigned int i;

	build_plain();
	for (i = 0; i < 300; i++)
		read_block(i);
	assert_true(nr_fetches > 300 / LEAST);
	for (i = 0; i < nr_fetches; i++)
		assert_in_range(fetches[i].nr, 1, LEAST);
}

/*
 * ---------------------------------------------------------------------------
 * Compressed clusters, digests
 * ---------------------------------------------------------------------------
 */

/* Clusters of four blocks; the last one of the disk is not whole. */
static void use_packed(uint64_t size)
{
	struct qc2_packed *packed = qc2_packed_new(18, 0);

	assert_non_null(packed);
	object_put(objects[0]);
	objects[0] = object_get_unpacked("https://packed/image", 1 << 20, "v", NULL, packed, size);
	assert_non_null(objects[0]);
	qc2_packed_put(packed);
}

static void test_packed(void **state)
{
	unsigned int i;

	use_packed(1002ULL * BLOCK);
	add(0, 0, 0, 1002);
	build();
	make_useful();
	read_block(5);
	assert_fetch(0, FETCH_DEMAND, 0, 4, 4);
	assert_fetch(1, FETCH_AHEAD, 0, 8, 4);
	assert_true(fetches[1].blocks[2]->marked);
	/* As far as it is not there. */
	cached[0][102] = true;
	read_block(101);
	assert_fetch(2, FETCH_DEMAND, 0, 100, 2);
	read_block(1001);
	i = nr_fetches - 1;
	assert_fetch(i, FETCH_DEMAND, 0, 1000, 2);
	/* A stream brings whole ones, each once. */
	forget();
	for (i = 400; i < 600; i++) {
		read_block(i);
		land();
	}
	for (i = 0; i < nr_fetches; i++) {
		assert_int_equal(fetches[i].first % 4, 0);
		assert_int_equal(fetches[i].nr % 4, 0);
	}
}

static void read_with_digests(bool elsewhere)
{
	static uint8_t digest[16][QC2_DIGEST_LEN];
	static struct qc2_digest_run run = { .object = 0, .block = 10, .nr = 16 };
	static struct qc2_digests digests = { .runs = &run, .nr_runs = 1, .v = digest, .nr = 16 };
	struct qc2_link top = { .url = elsewhere ? "https://elsewhere/top" : objects[0]->url };
	struct qc2_chain chain = { .links = &top, .nr_links = 1 };
	unsigned int i, n, nr = 0;

	for (i = 0; i < 16; i++)
		memset(digest[i], i + 1, QC2_DIGEST_LEN);
	disk.chain = &chain;
	disk.digests = &digests;
	make_far(0);
	build_plain();
	make_useful();
	read_block(8);
	for (i = 0; i < nr_fetches; i++) {
		for (n = 0; n < fetches[i].nr; n++, nr++) {
			const struct block *block = fetches[i].blocks[n];
			bool has = block->nr >= 10 && block->nr < 26;

			assert_int_equal(block->has_digest, has);
			assert_int_equal(plan_has_own_digest(&disk, 0, block), has);
			assert_int_equal(block->vouched, has && !elsewhere);
			if (has)
				assert_memory_equal(block->digest, digest[block->nr - 10],
						    QC2_DIGEST_LEN);
			assert_false(plan_has_own_digest(&disk, 1, block));
		}
	}
	assert_int_equal(nr, 1 + LARGEST);
}

static void test_digests(void **state)
{
	read_with_digests(false);
}

/* A manifest vouches for nobody else's images. */
static void test_digests_elsewhere(void **state)
{
	read_with_digests(true);
}

#define TEST(name)	cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_extension),
		TEST(test_extension_stops),
		TEST(test_extension_gap),
		TEST(test_extension_size),
		TEST(test_far_apart),
		TEST(test_far_apart_slow),
		TEST(test_useful),
		TEST(test_same_spot),
		TEST(test_same_spot_gaps),
		TEST(test_stream),
		TEST(test_stream_by_mark),
		TEST(test_streams),
		TEST(test_no_stream),
		TEST(test_fragments),
		TEST(test_stream_gaps),
		TEST(test_stream_chunks),
		TEST(test_packed),
		TEST(test_digests),
		TEST(test_digests_elsewhere),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
