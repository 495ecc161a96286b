/* SPDX-License-Identifier: GPL-2.0 */
/* Images written into a directory store: whole, broken off, and gone on with. */
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <unistd.h>

#include "image_put.h"
#include "store.h"
#include "testing.h"

#define BLOCK		((size_t)QC2_LAYOUT_BLOCK)
#define DISK		(100ULL << 20)
#define PART		(8U << 20)

static char dir[64], url[160], path[128], journal[128];
static _Atomic bool stop;
static const struct qc2_store_config cfg = { .stop = &stop };
static struct qc2_layout *layout;
static struct qc2_image_put put;
static struct qc2_err err;
static _Atomic unsigned int blocks_read;
static uint64_t fail_block;		/* reading it fails */
static bool damage;			/* what was written is damaged before it is read back */

static void make_block(uint64_t block, uint8_t *buf)
{
	uint64_t state = block;
	size_t i;

	for (i = 0; i < BLOCK; i += 4) {
		uint32_t v = test_random(&state);

		memcpy(buf + i, &v, 4);
	}
}

static int read_blocks(void *arg, uint64_t block, uint64_t nr, void *buf, struct qc2_err *e)
{
	uint64_t i;

	blocks_read += nr;
	for (i = 0; i < nr; i++) {
		if (block + i == fail_block)
			return qc2_fail(e, EIO, "block %llu cannot be read",
					(unsigned long long)fail_block);
		make_block(block + i, (uint8_t *)buf + i * BLOCK);
	}
	return 0;
}

static void on_progress(void *arg, uint64_t done, uint64_t total)
{
	struct stat st;
	int fd;

	assert_true(done <= total);
	/* The first part was read back. */
	if (!damage || done <= total / 2)
		return;
	damage = false;
	fd = open(path, O_WRONLY | O_CLOEXEC);
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(pwrite(fd, "damaged", 7, layout->size - 200000), 7);
	/* As if nothing had been. */
	assert_int_equal(futimens(fd, (struct timespec[]){ st.st_atim, st.st_mtim }), 0);
	close(fd);
}

static int setup(void **state)
{
	static const struct qc2_layout_piece pieces[] = {
		{ 3, 1, false }, { 10, 500, true }, { 1000, 9000, false }, { 12000, 7, false },
	};
	const struct qc2_layout_config image = { .virtual_size = DISK, .backing = "base.qcow2" };

	snprintf(dir, sizeof(dir), "/tmp/test_image_put.XXXXXX");
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/image.qcow2", dir);
	snprintf(url, sizeof(url), "file://%s", path);
	snprintf(journal, sizeof(journal), "%s/journal", dir);
	fail_block = UINT64_MAX;
	damage = false;
	stop = false;
	assert_ok(qc2_layout_make(&image, pieces, 4, &layout, &err), err);
	put = (struct qc2_image_put){
		.cfg = &cfg, .url = url, .layout = layout, .read = read_blocks,
		.progress = on_progress, .threads = 3, .journal = journal,
	};
	return 0;
}

static int teardown(void **state)
{
	char cmd[128];

	qc2_layout_free(layout);
	snprintf(cmd, sizeof(cmd), "rm -r %s", dir);
	return system(cmd);
}

static unsigned int nr_files(void)
{
	char pattern[80];
	glob_t found;
	unsigned int nr;

	snprintf(pattern, sizeof(pattern), "%s/*", dir);
	nr = glob(pattern, 0, NULL, &found) ? 0 : found.gl_pathc;
	globfree(&found);
	return nr;
}

static unsigned int journal_parts(void)
{
	FILE *file = fopen(journal, "re");
	unsigned int lines = 0;
	int c;

	assert_non_null(file);
	while ((c = getc(file)) != EOF)
		lines += c == '\n';
	fclose(file);
	return lines - 1;
}

/* The object is the image; so are the digests. */
static void assert_written(void)
{
	uint8_t *wanted = calloc(1, layout->size + QC2_DIGEST_BLOCK), digest[QC2_DIGEST_LEN];
	uint8_t *have = malloc(layout->size + 1);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t i;
	uint64_t b;

	memcpy(wanted, layout->head, layout->head_len);
	for (i = 0; i < layout->nr_runs; i++)
		for (b = 0; b < layout->runs[i].nr; b++)
			make_block(layout->runs[i].block + b,
				   wanted + (layout->runs[i].at + b) * BLOCK);
	assert_true(fd >= 0);
	assert_int_equal(read(fd, have, layout->size + 1), layout->size);
	close(fd);
	assert_memory_equal(have, wanted, layout->size);
	assert_int_equal(put.nr_digests,
			 (layout->size + QC2_DIGEST_BLOCK - 1) / QC2_DIGEST_BLOCK);
	for (i = 0; i < put.nr_digests; i++) {
		assert_int_equal(qc2_digest(wanted + i * QC2_DIGEST_BLOCK, digest), 0);
		assert_memory_equal(digest, put.digests[i], sizeof(digest));
	}
	assert_non_null(put.version);
	/* Nothing else is left. */
	assert_int_equal(nr_files(), 1);
	free(wanted);
	free(have);
	free(put.digests);
	free(put.version);
}

static void test_whole(void **state)
{
	assert_ok(qc2_image_put(&put, &err), err);
	assert_written();
	assert_int_equal(qc2_image_put(&put, &err), -EEXIST);
	assert_in(err.msg, "image.qcow2");
}

static void test_without_journal(void **state)
{
	put.journal = NULL;
	fail_block = 5000;
	assert_int_equal(qc2_image_put(&put, &err), -EIO);
	assert_int_equal(nr_files(), 0);
	fail_block = UINT64_MAX;
	assert_ok(qc2_image_put(&put, &err), err);
	assert_written();
}

static void break_off(void)
{
	put.threads = 1;
	fail_block = 9000;
	assert_int_equal(qc2_image_put(&put, &err), -EIO);
	assert_in(err.msg, "block 9000 cannot be read");
	assert_null(put.digests);
	assert_int_equal(nr_files(), 2);
	assert_in_range(journal_parts(), 2, layout->size / PART);
	fail_block = UINT64_MAX;
}

static void test_goes_on(void **state)
{
	struct stat before, after;
	char pattern[200];
	glob_t found;

	break_off();
	snprintf(pattern, sizeof(pattern), "%s.*", path);
	assert_int_equal(glob(pattern, 0, NULL, &found), 0);
	assert_int_equal(stat(found.gl_pathv[0], &before), 0);
	globfree(&found);
	assert_ok(qc2_image_put(&put, &err), err);
	assert_int_equal(stat(path, &after), 0);
	assert_int_equal(before.st_ino, after.st_ino);
	assert_written();
}

/* The program ended while a line was written. */
static void test_cut_line(void **state)
{
	FILE *file;

	break_off();
	file = fopen(journal, "ae");
	fputs("5 838", file);
	fclose(file);
	assert_ok(qc2_image_put(&put, &err), err);
	assert_written();
}

static void test_only_head(void **state)
{
	FILE *file;

	break_off();
	file = fopen(journal, "r+e");
	assert_int_equal(ftruncate(fileno(file), 20), 0);
	fclose(file);
	/* What there was of it is nobody's now. */
	assert_ok(qc2_image_put(&put, &err), err);
	assert_int_equal(nr_files(), 2);
	free(put.digests);
	free(put.version);
}

/* The store has thrown it away. */
static void test_lost(void **state)
{
	char cmd[200];

	break_off();
	snprintf(cmd, sizeof(cmd), "rm %s.*", path);
	assert_int_equal(system(cmd), 0);
	assert_ok(qc2_image_put(&put, &err), err);
	assert_written();
}

/* The disk was written to meanwhile: another image. */
static void test_other_image(void **state)
{
	const struct qc2_layout_config image = { .virtual_size = DISK };
	const struct qc2_layout_piece piece = { 0, 5000, false };

	break_off();
	qc2_layout_free(layout);
	assert_ok(qc2_layout_make(&image, &piece, 1, &layout, &err), err);
	put.layout = layout;
	assert_ok(qc2_image_put(&put, &err), err);
	assert_written();
}

/* It was complete, but nobody has noted that. */
static void test_complete_already(void **state)
{
	char cmd[400];

	break_off();
	snprintf(cmd, sizeof(cmd), "cp %s %s.kept", journal, journal);
	assert_int_equal(system(cmd), 0);
	assert_ok(qc2_image_put(&put, &err), err);
	free(put.digests);
	free(put.version);
	snprintf(cmd, sizeof(cmd), "mv %s.kept %s", journal, journal);
	assert_int_equal(system(cmd), 0);
	assert_ok(qc2_image_put(&put, &err), err);
	assert_written();
}

static void test_damaged(void **state)
{
	damage = true;
	put.threads = 1;
	assert_int_equal(qc2_image_put(&put, &err), -EBADMSG);
	assert_in(err.msg, "do not read back");
}

static void test_stopped(void **state)
{
	stop = true;
	assert_int_equal(qc2_image_put(&put, &err), -ECANCELED);
	stop = false;
	assert_ok(qc2_image_put(&put, &err), err);
	assert_written();
}

static void test_abort(void **state)
{
	break_off();
	assert_ok(qc2_image_put_abort(&cfg, journal, &err), err);
	assert_int_equal(nr_files(), 0);
}

#define TEST(name)	cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_whole),
		TEST(test_without_journal),
		TEST(test_goes_on),
		TEST(test_cut_line),
		TEST(test_only_head),
		TEST(test_lost),
		TEST(test_other_image),
		TEST(test_complete_already),
		TEST(test_damaged),
		TEST(test_stopped),
		TEST(test_abort),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
