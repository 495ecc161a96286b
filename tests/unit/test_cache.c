/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The cache with a real index, and files as devices.  The kernel is played here: it knows
 * the slots it was told of until it is made to forget them, and a write to a slot that it
 * knows is the mistake that must never happen.
 *
 * Time is what the test says; what waits for it is looked at by tick().  All else are
 * jobs, whose ends are events.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../../userspace/chaind/cache_dev.h"
#include "../../userspace/chaind/cache_impl.h"
#include "../../userspace/chaind/forget.h"
#include "testing.h"

#define SLOTS		1024U
#define SIZE		((uint64_t)SLOTS * QC2_BLOCK_BYTES)
#define NR_BUFS		32U
#define OBJECT_BLOCKS	4096U

static char dir[] = "/tmp/test_cache.XXXXXX";
static char path[64], index_path[64], bypass_path[64];
static sd_event *event;
static struct cache *cache;
static struct object *image, *copy;	/* the second one has the same blocks by other names */
static struct qc2_err err;
static atomic_ullong clock_us;
static const bool no_mark;

/* What fails, with which errno; how often the last two were called. */
static atomic_int write_error, sync_error, forget_error, commit_error, try_error;
static int check_error;
static atomic_uint nr_syncs, nr_commits;
static bool die;			/* the index is not closed in order */

static pthread_mutex_t kernel_lock = PTHREAD_MUTEX_INITIALIZER;
static bool known[2 * SLOTS];
static atomic_bool broken;		/* a slot was written that a kernel knew */

void log_msg(int level, const char *fmt, ...)
{
}

bool log_allowed(struct log_limit *limit)
{
	return false;
}

uint64_t now_us(void)
{
	return clock_us;
}

int cache_dev_open(const char *file, uint64_t size, char **device, uint64_t *device_size,
		   struct qc2_err *e)
{
	int fd = open(file, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, size), 0);
	*device = strdup(file);
	*device_size = size;
	return fd;
}

int cache_dev_try(const char *file, struct qc2_err *e)
{
	return try_error ? qc2_fail(e, try_error, "it is not there") : 0;
}

static int check(void *arg, dev_t dev, struct qc2_err *e)
{
	return check_error ? qc2_fail(e, check_error, "a disk has another one") : 0;
}

int cache_dev_grow(int fd, const char *file, uint64_t size, uint64_t *device_size,
		   struct qc2_err *e)
{
	struct stat st;

	assert_int_equal(fstat(fd, &st), 0);
	if ((uint64_t)st.st_size < size)
		assert_int_equal(ftruncate(fd, size), 0);
	*device_size = (uint64_t)st.st_size < size ? size : (uint64_t)st.st_size;
	return 0;
}

/* What is cut off must not be read again. */
void cache_dev_trim(int fd, const char *file, uint64_t size)
{
	struct stat st;

	assert_int_equal(stat(file, &st), 0);
	assert_int_equal(truncate(file, size), 0);
	assert_int_equal(truncate(file, st.st_size), 0);
}

int forget_store(uint32_t store, const struct qc2_range *ranges, unsigned int nr,
		 struct qc2_err *e)
{
	uint64_t slot, end;

	if (store)
		return 0;
	if (forget_error)
		return qc2_fail(e, forget_error, "it does not forget");
	pthread_mutex_lock(&kernel_lock);
	for (; nr--; ranges++) {
		slot = ranges->sector / QC2_BLOCK_SECTORS;
		end = slot + ranges->nr_sectors / QC2_BLOCK_SECTORS;
		for (; slot < end && slot < 2 * SLOTS; slot++)
			known[slot] = false;
	}
	pthread_mutex_unlock(&kernel_lock);
	return 0;
}

typeof(pwrite) __real_pwrite64, __wrap_pwrite64;
typeof(fdatasync) __wrap_fdatasync;
typeof(cache_index_commit) __real_cache_index_commit, __wrap_cache_index_commit;
typeof(cache_index_close) __real_cache_index_close, __wrap_cache_index_close;

ssize_t __wrap_pwrite64(int fd, const void *mem, size_t len, off_t offset)
{
	if (!cache || fd != cache->fd)
		return __real_pwrite64(fd, mem, len, offset);
	if (write_error) {
		errno = write_error;
		return -1;
	}
	pthread_mutex_lock(&kernel_lock);
	if (known[offset / QC2_BLOCK_BYTES])
		broken = true;
	pthread_mutex_unlock(&kernel_lock);
	return __real_pwrite64(fd, mem, len, offset);
}

/* No device is to be waited for. */
int __wrap_fdatasync(int fd)
{
	nr_syncs++;
	errno = sync_error;
	return errno ? -1 : 0;
}

int __wrap_cache_index_commit(struct cache_index *index, const uint32_t *evicted,
			      unsigned int nr_evicted,
			      void (*gone)(void *arg, const struct index_name *name), void *arg,
			      const struct index_block *blocks, unsigned int nr_blocks,
			      const struct index_name *names, unsigned int nr_names,
			      struct qc2_err *e)
{
	nr_commits++;
	if (commit_error)
		return qc2_fail(e, commit_error, "the index fails");
	return __real_cache_index_commit(index, evicted, nr_evicted, gone, arg, blocks, nr_blocks,
					 names, nr_names, e);
}

void __wrap_cache_index_close(struct cache_index *index, bool clean)
{
	__real_cache_index_close(index, clean && !die);
}

/* Events until something is so. */
#define UNTIL(cond) do {						\
	unsigned int n_ = 0;						\
									\
	while (!(cond)) {						\
		n_ += !sd_event_run(event, 100000);			\
		if (n_ > 300)	/* without any event */			\
			fail_msg("does not come about: %s", #cond);	\
	}								\
	assert_false(broken);						\
} while (0)

/* Time passes, and what waits for it is looked at. */
static void tick(unsigned int seconds)
{
	uint64_t now;

	for (; seconds; seconds--) {
		clock_us += 1000000;
		assert_true(sd_event_source_set_time(cache->tick, 0) >= 0);
		do {
			assert_true(sd_event_run(event, 100000) >= 0);
			assert_true(sd_event_source_get_time(cache->tick, &now) >= 0);
		} while (!now);
	}
}

static struct cache_stats stats(void)
{
	struct cache_stats s;

	cache_get_stats(cache, &s);
	return s;
}

static void open_any(uint64_t size)
{
	const struct cache_config cfg = {
		.path = path, .index_path = index_path, .bypass_path = bypass_path,
		.size = size, .nr_bufs = NR_BUFS, .may_be_absent = true, .check = check,
	};

	assert_ok(cache_open(&cache, event, &cfg, &err), err);
	image = object_get("http://host/image", (uint64_t)OBJECT_BLOCKS * QC2_BLOCK_BYTES, "1");
	copy = object_get("http://host/copy", (uint64_t)OBJECT_BLOCKS * QC2_BLOCK_BYTES, "1");
	assert_non_null(image);
	assert_non_null(copy);
}

static void open_size(uint64_t size)
{
	open_any(size);
	UNTIL(cache->ready);
}

static void close_cache(void)
{
	object_put(image);
	object_put(copy);
	cache_close(cache);
	cache = NULL;
}

static void reopen(void)
{
	close_cache();
	open_size(SIZE);
}

static int setup(void **state)
{
	snprintf(dir, sizeof(dir), "/tmp/test_cache.XXXXXX");
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/cache", dir);
	snprintf(index_path, sizeof(index_path), "%s/index", dir);
	snprintf(bypass_path, sizeof(bypass_path), "%s/bypass", dir);
	assert_true(sd_event_new(&event) >= 0);
	clock_us = 1000000000;
	write_error = 0;
	sync_error = 0;
	forget_error = 0;
	commit_error = 0;
	try_error = 0;
	check_error = 0;
	die = false;
	broken = false;
	memset(known, 0, sizeof(known));
	open_size(SIZE);
	return 0;
}

static int teardown(void **state)
{
	char cmd[128];

	close_cache();
	sd_event_unref(event);
	snprintf(cmd, sizeof(cmd), "rm -r %s", dir);
	return system(cmd);
}

/*
 * Contents are numbers; 0: zeros.
 */

static void make(void *mem, uint32_t content)
{
	uint32_t *v = mem, i;

	memset(mem, 0, QC2_BLOCK_BYTES);
	for (i = 0; content && i < QC2_BLOCK_BYTES / sizeof(*v); i += 128)
		v[i] = content;
}

struct written {
	bool done;
	int ret;
};

static void on_written(void *arg, int ret)
{
	struct written *w = arg;

	assert_false(w->done);
	*w = (struct written){ true, ret };
}

static void start_write(struct written *w, struct object *obj, uint32_t block, uint32_t content)
{
	struct cache_buf *buf;

	*w = (struct written){ 0 };
	UNTIL(cache_take_bufs(cache, 1, &buf));
	make(buf->mem, content);
	cache_write(buf, obj, block, NULL, 0, SPACE_USED, &no_mark, NULL, on_written, w);
}

static void write_block(struct object *obj, uint32_t block, uint32_t content)
{
	struct written w;

	start_write(&w, obj, block, content);
	UNTIL(w.done);
	assert_int_equal(w.ret, 0);
}

static void sync_cache(void)
{
	uint64_t sync = cache_sync(cache);

	UNTIL(cache_is_durable(cache, sync));
}

/* What a read of a slot gives. */
static bool has_content(uint32_t slot, uint32_t content)
{
	static char mem[QC2_BLOCK_BYTES], wanted[QC2_BLOCK_BYTES];
	const bool bypassed = slot >= CACHE_BYPASS && slot != QC2_SLOT_ZERO;
	int fd;

	if (slot == QC2_SLOT_ZERO)
		return !content;
	fd = open(bypassed ? bypass_path : path, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(pread(fd, mem, sizeof(mem), (off_t)(slot % CACHE_BYPASS) *
			       QC2_BLOCK_BYTES), sizeof(mem));
	close(fd);
	make(wanted, content);
	return !memcmp(mem, wanted, sizeof(mem));
}

static void assert_here(struct object *obj, uint32_t block, uint32_t content)
{
	uint32_t slot = cache_lookup(cache, obj, block);

	assert_int_not_equal(slot, CACHE_NO_SLOT);
	assert_true(has_content(slot, content));
}

static void assert_missing(struct object *obj, uint32_t block)
{
	assert_int_equal(cache_lookup(cache, obj, block), CACHE_NO_SLOT);
}

static void on_probed(void *arg)
{
	*(bool *)arg = true;
}

/* @digests: of contents @content on.  Returns how the first one came. */
static enum block_came probe(struct object *obj, uint32_t first, unsigned int nr,
			     const uint32_t *content, bool vouched)
{
	static char mem[QC2_BLOCK_BYTES];
	struct block *blocks[64];
	enum block_came came;
	bool done = false;
	unsigned int i;

	for (i = 0; i < nr; i++) {
		blocks[i] = block_new(obj, first + i);
		assert_non_null(blocks[i]);
		blocks[i]->has_digest = content;
		blocks[i]->vouched = vouched;
		if (!content)
			continue;
		make(mem, content[i]);
		assert_int_equal(qc2_digest(mem, blocks[i]->digest), 0);
	}
	if (cache_probe(cache, blocks, nr, on_probed, &done))
		UNTIL(done);
	came = blocks[0]->came;
	for (i = 0; i < nr; i++)
		block_free(blocks[i]);
	return came;
}

/* A read asks for it, and the kernel is told. */
static void tell(struct object *obj, uint32_t block)
{
	uint32_t slot = cache_lookup(cache, obj, block);

	assert_int_not_equal(slot, CACHE_NO_SLOT);
	if (slot >= CACHE_BYPASS)
		return;
	cache_ask(cache, slot, true);
	assert_false(cache_is_hidden(cache, slot));
	pthread_mutex_lock(&kernel_lock);
	known[slot] = true;
	pthread_mutex_unlock(&kernel_lock);
}

static void test_found_again(void **state)
{
	const uint32_t contents[] = { 1, 2, 3, 4, 77 };
	uint32_t i;

	for (i = 0; i < 4; i++) {
		assert_missing(image, i);
		write_block(image, i, 1 + i);
		assert_here(image, i, 1 + i);
	}
	write_block(image, 1000, 5);
	assert_int_equal(stats().used, 5);
	sync_cache();

	reopen();
	assert_int_equal(stats().used, 5);
	assert_int_equal(stats().unverified, 0);
	assert_missing(image, 0);
	probe(image, 0, 5, NULL, false);
	for (i = 0; i < 4; i++)
		assert_here(image, i, 1 + i);
	assert_missing(image, 4);
	assert_missing(image, 1000);		/* of another leaf */
	probe(image, 1000, 1, NULL, false);
	assert_here(image, 1000, 5);

	/* By content, if somebody vouches for the digests. */
	probe(copy, 0, 5, contents, false);
	assert_missing(copy, 0);
	assert_int_equal(probe(copy, 0, 5, contents, true), CAME_SAME);
	for (i = 0; i < 4; i++)
		assert_int_equal(cache_lookup(cache, copy, i), cache_lookup(cache, image, i));
	assert_missing(copy, 4);
	assert_int_equal(stats().used, 5);

	reopen();
	probe(copy, 0, 4, NULL, false);
	for (i = 0; i < 4; i++)
		assert_here(copy, i, 1 + i);
}

static void test_zeros_and_equal_ones(void **state)
{
	const uint32_t zero = 0;
	struct cache_buf *buf;
	struct written w = { 0 };
	uint8_t digest[QC2_DIGEST_LEN] = { 0 };

	write_block(image, 0, 0);
	assert_int_equal(cache_lookup(cache, image, 0), QC2_SLOT_ZERO);
	probe(copy, 7, 1, &zero, true);
	assert_int_equal(cache_lookup(cache, copy, 7), QC2_SLOT_ZERO);
	assert_int_equal(stats().used, 0);
	assert_int_equal(stats().zeros, 2);

	write_block(image, 1, 42);
	sync_cache();
	write_block(copy, 1, 42);
	assert_int_equal(cache_lookup(cache, copy, 1), cache_lookup(cache, image, 1));
	assert_int_equal(stats().used, 1);
	sync_cache();
	assert_int_equal(stats().names, 4);

	/* What is not what it should be is not kept. */
	assert_true(cache_take_bufs(cache, 1, &buf));
	make(buf->mem, 43);
	cache_write(buf, image, 2, NULL, 0, SPACE_USED, &no_mark, digest, on_written, &w);
	UNTIL(w.done);
	assert_int_equal(w.ret, -EBADMSG);
	assert_missing(image, 2);
	assert_int_equal(stats().used, 1);

	reopen();
	probe(image, 0, 3, NULL, false);
	assert_int_equal(cache_lookup(cache, image, 0), QC2_SLOT_ZERO);
	assert_here(image, 1, 42);
	assert_missing(image, 2);
	assert_int_equal(stats().zeros, 2);
}

static void damage(uint32_t slot)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	assert_int_equal(pwrite(fd, "x", 1, (off_t)slot * QC2_BLOCK_BYTES + 1000), 1);
	close(fd);
}

static void test_unclean_end(void **state)
{
	const uint32_t contents[] = { 1, 2, 3, 4 };
	uint32_t slots[4], i;

	for (i = 0; i < 4; i++) {
		write_block(image, i, contents[i]);
		slots[i] = cache_lookup(cache, image, i);
	}
	die = true;
	close_cache();
	die = false;
	damage(slots[1]);
	damage(slots[3]);
	open_size(SIZE);
	assert_int_equal(stats().unverified, 4);

	/* Not before it was compared, and only what is asked for is. */
	assert_missing(image, 0);
	probe(image, 0, 2, NULL, false);
	assert_int_equal(cache_lookup(cache, image, 0), slots[0]);
	assert_here(image, 0, 1);
	assert_missing(image, 1);
	assert_missing(image, 2);
	assert_int_equal(stats().damaged, 1);
	/* By content neither. */
	probe(copy, 0, 4, contents, true);
	assert_here(copy, 2, 3);
	assert_missing(copy, 3);
	assert_int_equal(stats().damaged, 2);
	assert_int_equal(stats().unverified, 0);

	/* Fetched again it is kept again, in an order that is no end without order. */
	write_block(image, 1, 2);
	write_block(image, 3, 4);
	reopen();
	assert_int_equal(stats().unverified, 0);
	probe(image, 0, 4, NULL, false);
	for (i = 0; i < 4; i++)
		assert_here(image, i, contents[i]);
}

/* What nobody asks for is compared in the background; until then it counts as unclean. */
static void test_compared_ahead(void **state)
{
	uint32_t i, slot;

	for (i = 0; i < 10; i++)
		write_block(image, i, 1 + i);
	slot = cache_lookup(cache, image, 4);
	die = true;
	close_cache();
	die = false;
	damage(slot);
	open_size(SIZE);
	assert_int_equal(stats().unverified, 10);
	reopen();
	assert_int_equal(stats().unverified, 10);
	tick(1);
	UNTIL(!stats().unverified && !stats().unchecked);
	assert_int_equal(stats().damaged, 1);
	reopen();
	assert_int_equal(stats().unverified, 0);
	assert_int_equal(stats().used, 9);
	probe(image, 0, 10, NULL, false);
	for (i = 0; i < 10; i++) {
		if (i == 4)
			assert_missing(image, i);
		else
			assert_here(image, i, 1 + i);
	}
}

/* More than there is room for, all of it known to the kernel. */
static void test_eviction(void **state)
{
	uint32_t i, older, here = 0;
	uint64_t seed = 1;

	for (i = 0; i < 2 * SLOTS; i++) {
		write_block(image, i, 1 + i);
		tell(image, i);
		/* What is cold and asked for stays. */
		older = test_random(&seed) % (i + 1);
		if (cache_lookup(cache, image, older) != CACHE_NO_SLOT)
			tell(image, older);
	}
	assert_true(stats().evictions > SLOTS / 2);
	assert_int_equal(stats().bypass_writes, 0);
	sync_cache();
	for (i = 0; i < 2 * SLOTS; i++) {
		if (cache_lookup(cache, image, i) == CACHE_NO_SLOT)
			continue;
		assert_here(image, i, 1 + i);
		here++;
	}
	assert_int_equal(here, stats().used);
	assert_true(here > SLOTS / 2);

	reopen();
	assert_int_equal(stats().used, here);
	for (i = 0; i < 2 * SLOTS; i += 64)
		probe(image, i, 64, NULL, false);
	for (i = 0; i < 2 * SLOTS; i++) {
		if (cache_lookup(cache, image, i) == CACHE_NO_SLOT)
			continue;
		assert_here(image, i, 1 + i);
		here--;
	}
	assert_int_equal(here, 0);
}

/* Kernels that do not forget keep what they know. */
static void test_no_eviction(void **state)
{
	struct written w[NR_BUFS];
	uint32_t i, nr, slot;

	forget_error = EIO;
	for (i = 0; TAILQ_EMPTY(&cache->waiting); i += NR_BUFS) {
		assert_true(i < 2 * SLOTS);
		for (nr = 0; nr < NR_BUFS; nr++)
			start_write(&w[nr], image, i + nr, 1 + i + nr);
		for (nr = 0; nr < NR_BUFS; nr++) {
			UNTIL(w[nr].done || TAILQ_EMPTY(&cache->writing));
			if (w[nr].done)
				tell(image, i + nr);
		}
	}
	assert_int_equal(stats().evictions, 0);
	/* They do not wait for ever. */
	tick(2);
	for (nr = 0; nr < NR_BUFS; nr++) {
		UNTIL(w[nr].done);
		assert_int_equal(w[nr].ret, 0);
	}
	assert_true(stats().bypass_writes > 0);
	assert_int_equal(stats().evictions, 0);
	for (nr = 0; nr < i; nr++)
		assert_here(image, nr, 1 + nr);

	forget_error = 0;
	UNTIL(({ tick(1); !space_is_short(&cache->space); }));
	tick(2);
	write_block(image, i, 1 + i);
	slot = cache_lookup(cache, image, i);
	assert_true(slot < SLOTS);
	assert_true(stats().evictions > 0);
}

static void test_failed_write(void **state)
{
	uint32_t slot;

	write_error = EIO;
	write_block(image, 0, 1);
	slot = cache_lookup(cache, image, 0);
	assert_true(slot >= CACHE_BYPASS && slot < QC2_SLOT_ZERO);
	assert_here(image, 0, 1);
	assert_int_equal(stats().bad_slots, 1);
	assert_int_equal(stats().errors, 1);
	assert_int_equal(stats().bypass_writes, 1);
	assert_in(stats().trouble, "Input/output error");

	/* For a while nothing else is tried. */
	write_error = 0;
	write_block(image, 1, 2);
	assert_int_equal(stats().bypass_writes, 2);
	tick(5);
	write_block(image, 2, 3);
	assert_true(cache_lookup(cache, image, 2) < SLOTS);
	assert_here(image, 2, 3);
	assert_null(stats().trouble);

	/* What is in the bypass may come back to the cache, and bad slots are used again. */
	tick(62);
	UNTIL(!stats().bypass_used);
	assert_missing(image, 0);
	assert_int_equal(stats().bad_slots, 0);

	/* No room below a sparse file. */
	write_error = ENOSPC;
	write_block(image, 0, 1);
	assert_true(cache_lookup(cache, image, 0) >= CACHE_BYPASS);
	assert_true(stats().bad_slots > 1);
	write_error = 0;
}

/* Without its device the cache is one that takes nothing, until the device is there. */
static void test_absent(void **state)
{
	write_block(image, 0, 1);
	close_cache();
	check_error = EBUSY;
	try_error = EIO;
	open_any(SIZE);
	assert_int_equal(cache_check_present(cache, &err), -EAGAIN);
	assert_in(stats().trouble, "a disk has another one");
	assert_string_equal(stats().device, "");
	assert_int_equal(cache_dev(cache), 0);
	assert_int_equal(cache_resize(cache, 2 * SIZE, &err), -EAGAIN);
	assert_int_equal(cache_pin(cache, &image, 1, true, NULL, NULL, &err), -EAGAIN);
	assert_missing(image, 0);
	write_block(image, 0, 1);
	assert_true(cache_lookup(cache, image, 0) >= CACHE_BYPASS);
	assert_here(image, 0, 1);

	tick(5);
	UNTIL(!cache->trying);
	assert_in(stats().trouble, "it is not there");
	try_error = 0;
	tick(5);
	UNTIL(!cache->trying);
	assert_in(stats().trouble, "a disk has another one");
	check_error = 0;
	tick(5);
	UNTIL(cache->ready);
	assert_null(stats().trouble);
	assert_ok(cache_check_present(cache, &err), err);
	write_block(image, 1, 2);
	assert_true(cache_lookup(cache, image, 1) < SLOTS);
	assert_int_equal(stats().used, 2);

	/* Its end without a device is one in order. */
	close_cache();
	check_error = EBUSY;
	open_any(SIZE);
	close_cache();
	check_error = 0;
	open_size(SIZE);
	assert_int_equal(stats().used, 2);
	assert_int_equal(stats().unverified, 0);
}

/* A slot that a kernel could not read is not read again. */
static void test_bad_slot(void **state)
{
	uint32_t slot;

	write_block(image, 0, 1);
	sync_cache();
	tell(image, 0);
	slot = cache_lookup(cache, image, 0);
	forget_error = EIO;
	cache_bad_slot(cache, slot);
	assert_missing(image, 0);
	cache_bad_slot(cache, slot);
	assert_int_equal(stats().used, 0);
	/* In an end with order the index does not have it any more, forgotten or not. */
	close_cache();
	forget_error = 0;
	open_size(SIZE);
	assert_int_equal(stats().used, 0);
	assert_int_equal(stats().unverified, 0);
	probe(image, 0, 1, NULL, false);
	assert_missing(image, 0);
}

static void test_index_errors(void **state)
{
	unsigned int seen, i;
	uint64_t sync;

	commit_error = ENOSPC;
	write_block(image, 0, 1);
	sync = cache_sync(cache);
	for (i = 1; i <= 3; i++) {
		seen = nr_commits;
		UNTIL(({ tick(1); nr_commits > seen && stats().trouble; }));
		assert_in(stats().trouble, "the index fails");
		assert_false(cache_is_durable(cache, sync));
		write_block(image, i, 1 + i);
	}
	commit_error = 0;
	UNTIL(({ tick(1); cache_is_durable(cache, sync); }));
	assert_null(stats().trouble);
	sync_cache();

	reopen();
	probe(image, 0, 4, NULL, false);
	for (i = 0; i < 4; i++)
		assert_here(image, i, 1 + i);
}

static void test_damaged_index(void **state)
{
	uint32_t i;

	for (i = 0; i < 4; i++) {
		write_block(image, i, 1 + i);
		tell(image, i);
	}
	sync_cache();
	commit_error = EUCLEAN;
	write_block(image, 4, 5);
	cache_sync(cache);
	UNTIL(!cache->ready);
	commit_error = 0;
	UNTIL(cache->ready);
	for (i = 0; i < 5; i++)
		assert_missing(image, i);
	assert_int_equal(stats().used, 0);
	assert_int_equal(stats().names, 0);
	for (i = 0; i < 5; i++)
		write_block(image, i, 11 + i);
	reopen();
	probe(image, 0, 5, NULL, false);
	for (i = 0; i < 5; i++)
		assert_here(image, i, 11 + i);
}

/* The device may have lost it, and says so only once. */
static void test_not_durable(void **state)
{
	unsigned int before;
	uint64_t sync;

	write_block(image, 0, 1);
	sync_cache();
	write_block(image, 1, 2);
	tell(image, 1);
	before = nr_syncs;
	sync_error = EIO;
	sync = cache_sync(cache);
	UNTIL(stats().trouble);
	assert_true(nr_syncs > before);
	sync_error = 0;
	assert_missing(image, 1);
	assert_here(image, 0, 1);
	UNTIL(({ tick(1); cache_is_durable(cache, sync); }));
	tick(6);
	assert_int_equal(stats().used, 1);
	write_block(image, 2, 3);
	assert_true(cache_lookup(cache, image, 2) < SLOTS);

	reopen();
	probe(image, 0, 3, NULL, false);
	assert_here(image, 0, 1);
	assert_missing(image, 1);
	assert_here(image, 2, 3);
}

static void test_resize(void **state)
{
	uint32_t i, here = 0;

	assert_ok(cache_resize(cache, 2 * SIZE, &err), err);
	assert_int_equal(stats().slots, 2 * SLOTS);
	for (i = 0; i < SLOTS + SLOTS / 2; i++) {
		write_block(image, i, 1 + i);
		tell(image, i);
	}
	assert_int_equal(stats().evictions, 0);
	sync_cache();
	assert_ok(cache_resize(cache, SIZE, &err), err);
	for (i = 0; i < 100 && cache->shrinking; i++) {
		tick(1);
		UNTIL(!cache->forgetting && !cache->commit);
	}
	assert_false(cache->shrinking);
	assert_int_equal(stats().slots, SLOTS);
	assert_ok(cache_resize(cache, 2 * SIZE, &err), err);
	for (i = 0; i < SLOTS + SLOTS / 2; i++) {
		if (cache_lookup(cache, image, i) == CACHE_NO_SLOT)
			continue;
		assert_here(image, i, 1 + i);
		here++;
	}
	assert_int_equal(here, stats().used);
	assert_true(here >= SLOTS / 2 && here < SLOTS);
	for (i = 2 * SLOTS; i < 2 * SLOTS + SLOTS / 2; i++, here++)
		write_block(image, i, 1 + i);
	sync_cache();
	/* What was cut off is not there when there is room for it again. */
	close_cache();
	open_size(2 * SIZE);
	assert_int_equal(stats().used, here);
	assert_int_equal(stats().unverified, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_found_again, setup, teardown),
		cmocka_unit_test_setup_teardown(test_zeros_and_equal_ones, setup, teardown),
		cmocka_unit_test_setup_teardown(test_unclean_end, setup, teardown),
		cmocka_unit_test_setup_teardown(test_compared_ahead, setup, teardown),
		cmocka_unit_test_setup_teardown(test_eviction, setup, teardown),
		cmocka_unit_test_setup_teardown(test_no_eviction, setup, teardown),
		cmocka_unit_test_setup_teardown(test_failed_write, setup, teardown),
		cmocka_unit_test_setup_teardown(test_absent, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bad_slot, setup, teardown),
		cmocka_unit_test_setup_teardown(test_index_errors, setup, teardown),
		cmocka_unit_test_setup_teardown(test_damaged_index, setup, teardown),
		cmocka_unit_test_setup_teardown(test_not_durable, setup, teardown),
		cmocka_unit_test_setup_teardown(test_resize, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
