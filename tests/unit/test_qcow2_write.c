/* SPDX-License-Identifier: GPL-2.0 */
/*
 * New qcow2 images: qemu-img finds nothing wrong with them and reads from them what they
 * were to hold, and our own reader lists the same.
 */
#include <sys/wait.h>

#include "file_source.h"
#include "qcow2.h"
#include "qcow2_write.h"
#include "testing.h"

#define BLOCK		((size_t)QC2_LAYOUT_BLOCK)
#define MAX_PIECES	200000
/* Bytes of a disk that are compared; a larger one has no content but its pieces. */
#define MAX_DISK	(256 << 20)

static char dir[64];
static struct qc2_layout_piece pieces[MAX_PIECES];
static size_t nr_pieces;
static struct qc2_err err;
static unsigned int cluster_bits;	/* of the last image */

static int setup(void **state)
{
	snprintf(dir, sizeof(dir), "/tmp/test_qcow2_write.XXXXXX");
	nr_pieces = 0;
	return !mkdtemp(dir);
}

static int teardown(void **state)
{
	char cmd[128];

	snprintf(cmd, sizeof(cmd), "rm -r %s", dir);
	return system(cmd);
}

static void add(uint64_t block, uint64_t nr, bool zero)
{
	assert_true(nr_pieces < MAX_PIECES);
	pieces[nr_pieces++] = (struct qc2_layout_piece){ block, nr, zero };
}

/* Content of a block of the disk; the backing file has another. */
static void make_block(uint64_t block, bool backing, uint8_t *buf)
{
	uint64_t state = 2 * block + backing;
	size_t i;

	for (i = 0; i < BLOCK; i += 4) {
		uint32_t v = test_random(&state);

		memcpy(buf + i, &v, 4);
	}
}

static int create(const char *name, uint64_t size)
{
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, size), 0);
	return fd;
}

static void write_block(int fd, uint64_t at, const uint8_t *buf, size_t len)
{
	assert_int_equal(pwrite(fd, buf, len, at * BLOCK), len);
}

/* The file "expected": the backing file "backing" with the pieces over it. */
static void make_expected(uint64_t size, bool has_backing)
{
	int expected = create("expected", size), backing = has_backing ? create("backing", size) : -1;
	static const uint8_t zeros[QC2_LAYOUT_BLOCK];
	uint8_t buf[QC2_LAYOUT_BLOCK];
	uint64_t block;
	size_t i;

	for (block = 0; has_backing && block < size / BLOCK; block++) {
		make_block(block, true, buf);
		write_block(backing, block, buf, BLOCK);
		write_block(expected, block, buf, BLOCK);
	}
	for (i = 0; i < nr_pieces; i++) {
		for (block = pieces[i].block; block < pieces[i].block + pieces[i].nr; block++) {
			size_t len = size - block * BLOCK < BLOCK ? size - block * BLOCK : BLOCK;

			make_block(block, false, buf);
			write_block(expected, block, pieces[i].zero ? zeros : buf, len);
		}
	}
	close(expected);
	if (has_backing)
		close(backing);
}

static struct qc2_layout *make_layout(uint64_t size, const char *backing)
{
	const struct qc2_layout_config cfg = {
		.virtual_size = size, .backing = backing, .backing_raw = true,
	};
	struct qc2_layout *layout;

	assert_ok(qc2_layout_make(&cfg, pieces, nr_pieces, &layout, &err), err);
	return layout;
}

static void write_image(const struct qc2_layout *layout)
{
	uint64_t end = layout->head_len / BLOCK, i;
	int fd = create("image", layout->size);
	uint8_t buf[QC2_LAYOUT_BLOCK];
	size_t run;

	assert_int_equal(pwrite(fd, layout->head, layout->head_len, 0), layout->head_len);
	for (run = 0; run < layout->nr_runs; run++) {
		const struct qc2_layout_run *r = &layout->runs[run];

		assert_true(r->at >= end);
		end = r->at + r->nr;
		for (i = 0; i < r->nr; i++) {
			make_block(r->block + i, false, buf);
			write_block(fd, r->at + i, buf, BLOCK);
		}
	}
	assert_true(end * BLOCK <= layout->size);
	close(fd);
}

static void run(const char *fmt)
{
	char cmd[512];
	int status;

	snprintf(cmd, sizeof(cmd), "cd %s && { %s; } > out 2>&1 || { cat out; false; }", dir, fmt);
	status = system(cmd);
	if (!WIFEXITED(status) || WEXITSTATUS(status))
		fail_msg("%s: status %x", fmt, status);
}

/* Our reader finds the same pieces at the same places. */
static void check_extents(const struct qc2_layout *layout)
{
	struct qc2_extents list = { 0 };
	struct qc2_packed *packed;
	struct qc2_source *src;
	struct qc2_qcow2 *img;
	uint64_t blocks = 0, wanted = 0;
	char path[128];
	size_t i;

	snprintf(path, sizeof(path), "file://%s/image", dir);
	assert_ok(file_source_open(&file_opener, path, &src, &err), err);
	assert_ok(qc2_qcow2_open(src, &img, &err), err);
	assert_int_equal(img->cluster_bits, layout->cluster_bits);
	assert_ok(qc2_qcow2_extents(img, 0, UINT64_MAX, 0, src->size, 1, &list, &packed, &err),
		  err);
	for (i = 0; i < nr_pieces; i++)
		wanted += pieces[i].nr;
	for (i = 0; i < list.nr; i++)
		blocks += list.v[i].nr_sectors;
	assert_in_range((blocks + 7) / 8, wanted, wanted);
	free(list.v);
	qc2_packed_put(packed);
	qc2_qcow2_close(img);
	src->ops->close(src);
}

/* All checks; returns the bytes of the file that are no data. */
static uint64_t check(uint64_t size, bool has_backing)
{
	struct qc2_layout *layout = make_layout(size, has_backing ? "backing" : NULL);
	uint64_t data = 0;
	size_t i;

	for (i = 0; i < layout->nr_runs; i++)
		data += layout->runs[i].nr * BLOCK;
	data = layout->size - data;
	cluster_bits = layout->cluster_bits;
	write_image(layout);
	if (size <= MAX_DISK)
		make_expected(size, has_backing);
	run("qemu-img check -f qcow2 image");
	if (size <= MAX_DISK)
		run("qemu-img compare -f qcow2 -F raw image expected");
	check_extents(layout);
	/* It is an image like any other when it is written to. */
	if (size <= MAX_DISK && has_backing) {
		run("qemu-io -f qcow2 -c 'write -P 7 0 100k' -c 'write -P 8 1000k 3k' image && "
		    "qemu-img check -f qcow2 image && "
		    "qemu-io -f raw -c 'write -P 7 0 100k' -c 'write -P 8 1000k 3k' expected && "
		    "qemu-img compare -f qcow2 -F raw image expected");
	}
	qc2_layout_free(layout);
	return data;
}

static void test_empty(void **state)
{
	assert_true(check(64 << 20, true) <= 6 << 14);
	check(512, false);
}

static void test_one_block(void **state)
{
	add(4711, 1, false);
	assert_true(check(64 << 20, true) <= 7 << 14);
}

static void test_full(void **state)
{
	add(0, (64 << 20) / BLOCK, false);
	assert_true(check(64 << 20, false) < 1 << 20);
	assert_int_equal(cluster_bits, 17);
}

static void test_zeros(void **state)
{
	add(0, 1, true);
	add(1, 1, false);
	add(2, 100, true);
	add(110, 30, false);
	add(140, 10, true);
	add(8000, 192, true);
	check(32 << 20, true);
}

/* A disk that ends in the middle of a block. */
static void test_odd_end(void **state)
{
	add(100, 3, true);
	add(256, 1, false);
	check((1 << 20) + 512, false);
}

/* One block of @every, in pieces of up to @most; some are zeros. */
static void scatter(uint64_t blocks, unsigned int every, unsigned int most)
{
	uint64_t random = every, block = 0;

	for (;;) {
		uint64_t nr = 1 + test_random(&random) % most;

		block += test_random(&random) % (2 * every * most);
		if (block + nr > blocks)
			return;
		add(block, nr, test_random(&random) % 16 == 0);
		block += nr;
	}
}

static uint64_t data_bytes(void)
{
	uint64_t nr = 0;
	size_t i;

	for (i = 0; i < nr_pieces; i++)
		nr += pieces[i].zero ? 0 : pieces[i].nr;
	return nr * BLOCK;
}

static void test_scattered(void **state)
{
	scatter((128 << 20) / BLOCK, 3, 1);
	check(128 << 20, true);
}

static void test_scattered_pieces(void **state)
{
	scatter((128 << 20) / BLOCK, 2, 40);
	check(128 << 20, true);
}

/* Over a large disk the file has little but data, too. */
static void test_overhead(void **state)
{
	uint64_t overhead;

	scatter((8ULL << 30) / BLOCK, 20, 1);
	overhead = check(8ULL << 30, false);
	print_message("%zu pieces, %u MiB of data: %.1f %% more\n", nr_pieces,
		      (unsigned int)(data_bytes() >> 20), 100.0 * overhead / data_bytes());
	assert_true(overhead < data_bytes() / 20);
	assert_int_equal(cluster_bits, 12);
}

/* The largest disk, and few blocks: the tables are as large as they must be. */
static void test_large(void **state)
{
	uint64_t blocks = QC2_QCOW2_MAX_SIZE / BLOCK;

	add(0, 1, false);
	add(blocks / 2, 5, false);
	add(blocks - 1, 1, true);
	assert_true(check(QC2_QCOW2_MAX_SIZE, false) < 2 << 20);
}

static void test_refused(void **state)
{
	struct qc2_layout_config cfg = { .virtual_size = 1000 };
	struct qc2_layout *layout;
	char name[1025];

	assert_int_equal(qc2_layout_make(&cfg, NULL, 0, &layout, &err), -EINVAL);
	cfg.virtual_size = 1 << 20;
	memset(name, 'a', sizeof(name));
	name[1024] = '\0';
	cfg.backing = name;
	assert_int_equal(qc2_layout_make(&cfg, NULL, 0, &layout, &err), -ENAMETOOLONG);
	name[1023] = '\0';
	assert_ok(qc2_layout_make(&cfg, NULL, 0, &layout, &err), err);
	qc2_layout_free(layout);
	cfg.backing = "";
	assert_int_equal(qc2_layout_make(&cfg, NULL, 0, &layout, &err), -ENAMETOOLONG);
	cfg.backing = NULL;
	add(10, 2, false);
	add(11, 1, false);
	assert_int_equal(qc2_layout_make(&cfg, pieces, 2, &layout, &err), -EINVAL);
	pieces[1] = (struct qc2_layout_piece){ 255, 2, false };
	assert_int_equal(qc2_layout_make(&cfg, pieces, 2, &layout, &err), -EINVAL);
	pieces[1] = (struct qc2_layout_piece){ 255, 0, false };
	assert_int_equal(qc2_layout_make(&cfg, pieces, 2, &layout, &err), -EINVAL);
	pieces[1] = (struct qc2_layout_piece){ 1, UINT64_MAX, false };
	assert_int_equal(qc2_layout_make(&cfg, pieces, 2, &layout, &err), -EINVAL);
}

#define TEST(name)	cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_empty),
		TEST(test_one_block),
		TEST(test_full),
		TEST(test_zeros),
		TEST(test_odd_end),
		TEST(test_scattered),
		TEST(test_scattered_pieces),
		TEST(test_overhead),
		TEST(test_large),
		TEST(test_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
