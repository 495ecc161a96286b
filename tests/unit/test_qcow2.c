/* SPDX-License-Identifier: GPL-2.0 */
/* The qcow2 reader on images made by hand: what it lists, what it refuses. */
#include <errno.h>

#include "image.h"
#include "qcow2.h"
#include "testing.h"

#define URL	"mem:top"

#define COPIED	(1ULL << 63)
#define COMPRESSED (1ULL << 62)
#define ZERO	1ULL

#define DATA		5
#define UNPACKED	6

/* Opens and lists; returns the first failure. */
static int list_image(const struct image *img, const char *snapshot,
		      struct qc2_extents *list, struct qc2_packed **packed,
		      struct qc2_err *err)
{
	struct qc2_source *src = mem_open(img);
	struct qc2_qcow2 *qcow2;
	int ret;

	*packed = NULL;
	memset(list, 0, sizeof(*list));
	memset(&mem_count, 0, sizeof(mem_count));
	err->msg[0] = '\0';
	ret = qc2_qcow2_open(src, &qcow2, err);
	if (!ret) {
		if (snapshot)
			ret = qc2_qcow2_snapshot(qcow2, snapshot, err);
		if (!ret)
			ret = qc2_qcow2_extents(qcow2, 0, UINT64_MAX, DATA, src->size, UNPACKED,
						list, packed, err);
		qc2_qcow2_close(qcow2);
	}
	mem_close(src);
	return ret;
}

static void lists(const struct image *img, struct qc2_extents *list)
{
	struct qc2_packed *packed;
	struct qc2_err err;

	assert_ok(list_image(img, NULL, list, &packed, &err), err);
	assert_null(packed);
}

static void refused(const struct image *img, int errnum, const char *text)
{
	struct qc2_packed *packed;
	struct qc2_extents list;
	struct qc2_err err;

	assert_int_equal(list_image(img, NULL, &list, &packed, &err), -errnum);
	assert_in(err.msg, URL);
	assert_in(err.msg, text);
	qc2_packed_put(packed);
	qc2_extents_free(&list);
}

static void check_extent(const struct qc2_extents *list, size_t i,
			 uint64_t sector, uint32_t nr_sectors, uint32_t object,
			 uint64_t offset)
{
	assert_true(i < list->nr);
	assert_int_equal(list->v[i].sector, sector);
	assert_int_equal(list->v[i].nr_sectors, nr_sectors);
	assert_int_equal(list->v[i].object, object);
	assert_int_equal(list->v[i].offset, offset);
}

/* 64 KiB clusters, one L2 table in cluster 2, data from cluster 3 on. */
static struct image simple(unsigned int version)
{
	struct image img = image_new(URL, version, 16, 1 << 20, 8);

	put64(&img, 1 << 16, COPIED | 2 << 16);
	return img;
}

static void l2(struct image *img, unsigned int entry, uint64_t value)
{
	put64(img, (2 << 16) + 8 * entry, value);
}

static void test_lists_clusters(void **state)
{
	struct image img = simple(3);
	struct qc2_extents list;

	l2(&img, 0, COPIED | 3 << 16);
	l2(&img, 1, COPIED | 4 << 16);		/* joined */
	l2(&img, 2, COPIED | 6 << 16);		/* another place */
	l2(&img, 4, ZERO);
	l2(&img, 5, COPIED | 5 << 16 | ZERO);	/* zeros, preallocated */
	l2(&img, 15, COPIED | 7 << 16);
	lists(&img, &list);
	assert_int_equal(list.nr, 4);
	check_extent(&list, 0, 0, 256, DATA, 3 << 16);
	check_extent(&list, 1, 256, 128, DATA, 6 << 16);
	check_extent(&list, 2, 512, 256, QC2_OBJECT_ZERO, 0);
	check_extent(&list, 3, 15 * 128, 128, DATA, 7 << 16);
	/* head; the L1 table and the L2 table behind it */
	assert_int_equal(mem_count.reads, 2);
	qc2_extents_free(&list);
	image_free(&img);
}

static void test_end_of_the_disk(void **state)
{
	struct image img = simple(3);
	struct qc2_extents list;

	/* The last cluster of the disk is not whole. */
	put64(&img, H_SIZE, 65536 + 1024);
	l2(&img, 1, COPIED | 3 << 16);
	l2(&img, 2, COPIED | 4 << 16);		/* behind the end */
	lists(&img, &list);
	assert_int_equal(list.nr, 1);
	check_extent(&list, 0, 128, 2, DATA, 3 << 16);
	qc2_extents_free(&list);

	/* A part of a sector at the end does not count. */
	put64(&img, H_SIZE, 65536 + 1024 + 511);
	lists(&img, &list);
	check_extent(&list, 0, 128, 2, DATA, 3 << 16);
	qc2_extents_free(&list);

	put64(&img, H_SIZE, 0);
	put32(&img, H_L1_SIZE, 0);
	lists(&img, &list);
	assert_int_equal(list.nr, 0);
	image_free(&img);
}

static void test_end_of_the_file(void **state)
{
	struct image img = simple(3);
	struct qc2_extents list;

	/* The last cluster of the file is cut: the rest reads as zeros. */
	l2(&img, 3, COPIED | 7 << 16);
	img.size = (7 << 16) + 1000;
	lists(&img, &list);
	assert_int_equal(list.nr, 2);
	check_extent(&list, 0, 3 * 128, 2, DATA, 7 << 16);
	check_extent(&list, 1, 3 * 128 + 2, 126, QC2_OBJECT_ZERO, 0);
	qc2_extents_free(&list);

	img.size = 7 << 16;
	refused(&img, EINVAL, "truncated: data cluster at offset 458752");
	img.size = (3 << 16) - 1;
	refused(&img, EINVAL, "truncated: L2 table");
	img.size = (1 << 16) + 7;
	refused(&img, EINVAL, "truncated: L1 table");
	img.size = 100;
	refused(&img, EINVAL, "truncated: header");
	img.size = 7;
	refused(&img, EINVAL, "not a qcow2 image");
	img.size = 0;
	refused(&img, EINVAL, "empty");
	image_free(&img);
}

static void test_cluster_sizes(void **state)
{
	unsigned int bits, version;

	for (version = 2; version <= 3; version++)
		for (bits = 9; bits <= 21; bits++) {
			uint64_t size = 1ULL << bits, span = size * (size / 8);
			struct image img;
			struct qc2_extents list;

			/* Two L2 tables, in reverse order. */
			img = image_new(URL, version, bits, 2 * span, 6);
			put64(&img, size, 3 << bits);
			put64(&img, size + 8, 2 << bits);
			put64(&img, (3 << bits) + size - 8, 4 << bits);
			put64(&img, 2 << bits, 5 << bits);
			lists(&img, &list);
			assert_int_equal(list.nr, 1);
			check_extent(&list, 0, (span - size) / 512,
				     2 * size / 512, DATA, 4 << bits);
			qc2_extents_free(&list);
			image_free(&img);
		}
}

static void test_few_reads(void **state)
{
	/* 64 KiB clusters; tables in every second cluster from 1 MiB on */
	struct image img = image_new(URL, 3, 16, 24ULL << 29, 128);
	struct qc2_extents list;
	unsigned int i;

	for (i = 0; i < 8; i++)
		put64(&img, (1 << 16) + 8 * i, (uint64_t)(16 + 2 * i) << 16);
	/* behind a gap that is too large to be read as well */
	for (i = 8; i < 24; i++)
		put64(&img, (1 << 16) + 8 * i, (uint64_t)(40 + 2 * i) << 16);
	for (i = 0; i < 24; i++)
		put64(&img, ((uint64_t)(i < 8 ? 16 : 40) + 2 * i) << 16,
		      ZERO);
	lists(&img, &list);
	assert_int_equal(list.nr, 24);
	/* head; L1 table; 8 tables; 16 tables, which lie in 31 clusters */
	assert_int_equal(mem_count.reads, 4);
	assert_true(mem_count.largest <= 2 << 20);
	qc2_extents_free(&list);

	/* the last one far away */
	put64(&img, (1 << 16) + 8 * 23, 127ULL << 16);
	lists(&img, &list);
	assert_int_equal(mem_count.reads, 5);
	qc2_extents_free(&list);
	image_free(&img);

	/* Small clusters: all of it comes with the head. */
	img = image_new(URL, 3, 12, 1 << 20, 4);
	put64(&img, 4096, 8192);
	put64(&img, 8192, 3 * 4096);
	lists(&img, &list);
	assert_int_equal(list.nr, 1);
	assert_int_equal(mem_count.reads, 1);
	qc2_extents_free(&list);
	image_free(&img);
}

static void test_header_fields(void **state)
{
	struct image img = simple(3);
	static const struct {
		unsigned int offset, width;
		uint64_t value;
		int errnum;
		const char *text;
	} bad[] = {
		{ 0, 4, 0x514649fa, EINVAL, "not a qcow2 image" },
		{ H_VERSION, 4, 0, EOPNOTSUPP, "version 0" },
		{ H_VERSION, 4, 1, EOPNOTSUPP, "version 1" },
		{ H_VERSION, 4, 4, EOPNOTSUPP, "version 4" },
		{ H_CLUSTER_BITS, 4, 8, EINVAL, "2^8" },
		{ H_CLUSTER_BITS, 4, 22, EINVAL, "2^22" },
		{ H_CLUSTER_BITS, 4, UINT32_MAX, EINVAL, "512 bytes to 2 MiB" },
		{ H_SIZE, 8, UINT64_MAX, EFBIG, "64 TiB" },
		{ H_SIZE, 8, (1ULL << 46) + 512, EFBIG, "64 TiB" },
		{ H_SIZE, 8, 1ULL << 46, EINVAL, "too few" },
		{ H_SIZE, 8, (1 << 29) + 512, EINVAL, "too few" },
		{ H_CRYPT, 4, 1, EOPNOTSUPP, "encrypted (AES)" },
		{ H_CRYPT, 4, 2, EOPNOTSUPP, "encrypted (LUKS)" },
		{ H_CRYPT, 4, 77, EOPNOTSUPP, "encrypted" },
		{ H_L1_SIZE, 4, 0, EINVAL, "too few" },
		{ H_L1_SIZE, 4, UINT32_MAX, EFBIG, "L1 table" },
		{ H_L1_SIZE, 4, (4 << 20) + 1, EFBIG, "L1 table" },
		{ H_L1_SIZE, 4, 4 << 20, EINVAL, "truncated: L1 table" },
		{ H_L1_OFFSET, 8, 65537, EINVAL, "multiple of the cluster" },
		{ H_L1_OFFSET, 8, 8 << 16, EINVAL, "truncated: L1 table" },
		{ H_L1_OFFSET, 8, 0xffffffffffff0000ULL, EINVAL,
		  "truncated: L1 table" },
		{ H_HEADER_LENGTH, 4, 103, EINVAL, "header length 103" },
		{ H_HEADER_LENGTH, 4, 0, EINVAL, "header length 0" },
		{ H_HEADER_LENGTH, 4, 65537, EINVAL, "header length" },
		{ H_HEADER_LENGTH, 4, UINT32_MAX, EINVAL, "header length" },
		{ H_INCOMPAT, 8, 1 << 1, EINVAL, "marked corrupt" },
		{ H_INCOMPAT, 8, 1 << 2, EINVAL, "does not name it" },
		{ H_INCOMPAT, 8, 1 << 3, EINVAL, "compression type 0 does not go" },
		{ H_INCOMPAT, 8, 1 << 5, EOPNOTSUPP, "bit 5" },
		{ H_INCOMPAT, 8, 1ULL << 63, EOPNOTSUPP, "bit 63" },
		{ H_COMPRESSION, 4, 1 << 24, EINVAL, "compression type 1 does not go" },
		{ H_COMPRESSION, 4, 2 << 24, EOPNOTSUPP, "compression type 2" },
	};
	struct qc2_extents list;
	uint8_t saved[8];
	size_t i;

	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		memcpy(saved, img.data + bad[i].offset, 8);
		if (bad[i].width == 4)
			put32(&img, bad[i].offset, bad[i].value);
		else
			put64(&img, bad[i].offset, bad[i].value);
		refused(&img, bad[i].errnum, bad[i].text);
		memcpy(img.data + bad[i].offset, saved, 8);
	}
	/* Dirty, and whatever the compatible fields say, is fine. */
	put64(&img, H_INCOMPAT, 1);
	put64(&img, 80, UINT64_MAX);
	put64(&img, 88, UINT64_MAX);
	lists(&img, &list);
	/* Version 2 has no such fields. */
	put32(&img, H_VERSION, 2);
	put64(&img, H_INCOMPAT, 0);
	lists(&img, &list);
	image_free(&img);
}

static void test_feature_names(void **state)
{
	struct image img = simple(3);
	char table[96] = { 0 };

	table[0] = 0;
	table[1] = 9;
	strcpy(table + 2, "warp\033[31mdrive");
	table[48] = 1;			/* a compatible one with that bit */
	table[49] = 10;
	strcpy(table + 50, "wrong");
	image_extension(&img, H_EXTENSIONS, 0x6803f857, table, sizeof(table));
	put64(&img, H_INCOMPAT, 3 << 9);
	refused(&img, EOPNOTSUPP, "warp?[31mdrive, bit 10");
	image_free(&img);
}

static void test_extensions(void **state)
{
	struct image img = simple(3);
	struct qc2_extents list;

	/* Unknown ones are passed over. */
	image_extension(&img, H_EXTENSIONS, 0x12345678, "abcde", 5);
	lists(&img, &list);
	put32(&img, H_EXTENSIONS + 4, 0xffffffff);
	refused(&img, EINVAL, "header extension 0x12345678");
	put32(&img, H_EXTENSIONS + 4, 65536);
	refused(&img, EINVAL, "header extension 0x12345678");
	/* Of an external data file only with the feature bit. */
	image_extension(&img, H_EXTENSIONS, 0x44415441, "data", 4);
	lists(&img, &list);
	image_free(&img);

	/* No mark of the end: the area ends with the cluster. */
	img = image_new(URL, 3, 9, 512, 4);
	image_extension(&img, H_EXTENSIONS, 0x12345678, "",
			0);
	put32(&img, H_EXTENSIONS, 0x12345678);
	put32(&img, H_EXTENSIONS + 4, 512 - H_EXTENSIONS - 8);
	lists(&img, &list);
	put32(&img, H_EXTENSIONS + 4, 512 - H_EXTENSIONS - 12);
	lists(&img, &list);
	image_free(&img);
}

static void test_backing(void **state)
{
	struct image img = simple(3);
	struct qc2_source *src;
	struct qc2_qcow2 *qcow2;
	struct qc2_err err;

	image_backing(&img, "dir/base", "raw");
	src = mem_open(&img);
	assert_ok(qc2_qcow2_open(src, &qcow2, &err), err);
	assert_string_equal(qcow2->backing_name, "dir/base");
	assert_true(qcow2->backing_raw);
	qc2_qcow2_close(qcow2);
	mem_close(src);

	put32(&img, H_BACKING_LEN, 1024);
	refused(&img, EINVAL, "1024 bytes long");
	put32(&img, H_BACKING_LEN, UINT32_MAX);
	refused(&img, EINVAL, "bytes long");
	put32(&img, H_BACKING_LEN, 8);
	put64(&img, H_BACKING_OFFSET, 65536 - 7);
	refused(&img, EINVAL, "first cluster");
	put64(&img, H_BACKING_OFFSET, UINT64_MAX);
	refused(&img, EINVAL, "outside the first cluster");
	image_free(&img);

	img = simple(3);
	image_backing(&img, "a\0b", "qcow2");
	put32(&img, H_BACKING_LEN, 3);
	refused(&img, EINVAL, "NUL");
	image_free(&img);

	img = simple(3);
	image_backing(&img, "base\033", NULL);
	refused(&img, EINVAL,
		"qemu-img rebase -u -F qcow2 -b 'base?' IMAGE");
	image_free(&img);

	img = simple(3);
	image_backing(&img, "base", "vm\ndk");
	refused(&img, EOPNOTSUPP, "'vm?dk'");
	image_free(&img);

	/* A name that the file does not have any more. */
	img = image_new(URL, 3, 21, 1 << 20, 2);
	image_extension(&img, H_EXTENSIONS, 0xe2792aca, "raw", 3);
	put64(&img, H_BACKING_OFFSET, 2000000);
	put32(&img, H_BACKING_LEN, 4);
	put64(&img, H_L1_OFFSET, 0);
	img.size = 1999999;
	refused(&img, EINVAL, "truncated: backing file name");
	image_free(&img);
}

static void test_damaged_tables(void **state)
{
	struct image img = simple(3);
	struct qc2_extents list;

	put64(&img, 1 << 16, (2 << 16) + 512);
	refused(&img, EINVAL, "entry 0 of the L1 table");
	put64(&img, 1 << 16, 9 << 16);
	refused(&img, EINVAL, "truncated: L2 table");
	put64(&img, 1 << 16, 0x00ffffffffff0000ULL);
	refused(&img, EINVAL, "truncated: L2 table");
	/* QEMU takes only the offset to say whether there is a table. */
	put64(&img, 1 << 16, COPIED | 0x1ff);
	lists(&img, &list);
	assert_int_equal(list.nr, 0);

	put64(&img, 1 << 16, COPIED | 2 << 16);
	l2(&img, 1, (3 << 16) + 512);
	refused(&img, EINVAL, "entry 1 of the L2 table at offset 131072");
	l2(&img, 1, ((3 << 16) + 512) | ZERO);
	refused(&img, EINVAL, "entry 1 of the L2 table");
	l2(&img, 1, 0x00ffffffffff0000ULL);
	refused(&img, EINVAL, "truncated: data cluster");
	l2(&img, 1, COMPRESSED | 8 << 16);
	refused(&img, EINVAL, "truncated: compressed cluster");
	/* QEMU takes no notice of reserved bits. */
	l2(&img, 1, 0x3f000000000001feULL | 3 << 16);
	lists(&img, &list);
	check_extent(&list, 0, 128, 128, DATA, 3 << 16);
	qc2_extents_free(&list);
	image_free(&img);

	img = simple(2);
	l2(&img, 1, 3 << 16 | ZERO);
	refused(&img, EINVAL, "version 2");
	image_free(&img);
}

static void test_compressed(void **state)
{
	struct image img = simple(3);
	struct qc2_packed *packed;
	struct qc2_extents list;
	struct qc2_err err;

	/* 8 bits of sectors - 1, then 54 bits of offset. */
	l2(&img, 3, COMPRESSED | 2ULL << 54 | ((4 << 16) + 1000));
	l2(&img, 4, COMPRESSED | ((4 << 16) + 512 * 3));
	l2(&img, 15, COMPRESSED | 0xffULL << 54 | ((7 << 16) + 1));
	assert_ok(list_image(&img, NULL, &list, &packed, &err), err);
	/* Where they are on the disk is where they are when unpacked. */
	assert_int_equal(list.nr, 2);
	check_extent(&list, 0, 3 * 128, 256, UNPACKED, 3 << 16);
	check_extent(&list, 1, 15 * 128, 128, UNPACKED, 15 << 16);
	assert_int_equal(packed->nr, 3);
	assert_int_equal(packed->cluster_bits, 16);
	assert_int_equal(packed->compression, QC2_COMPRESSION_ZLIB);
	assert_int_equal(packed->v[0].cluster, 3);
	assert_int_equal(packed->v[0].offset, (4 << 16) + 1000);
	assert_int_equal(packed->v[0].len, 3 * 512 - 1000 % 512);
	assert_int_equal(packed->v[1].cluster, 4);
	assert_int_equal(packed->v[1].len, 512);
	/* not past the end of the file */
	assert_int_equal(packed->v[2].len, 65535);
	assert_int_equal(qc2_packed_find(packed, 0), 0);
	assert_int_equal(qc2_packed_find(packed, 4), 1);
	assert_int_equal(qc2_packed_find(packed, 5), 2);
	assert_int_equal(qc2_packed_find(packed, 16), 3);
	qc2_packed_put(packed);
	qc2_extents_free(&list);

	put64(&img, H_INCOMPAT, 1 << 3);
	put32(&img, H_COMPRESSION, 1 << 24);
	assert_ok(list_image(&img, NULL, &list, &packed, &err), err);
	assert_int_equal(packed->compression, QC2_COMPRESSION_ZSTD);
	qc2_packed_put(packed);
	qc2_extents_free(&list);
	image_free(&img);
}

/* An entry of 16 bytes for each cluster of 64 KiB, subclusters of 2 KiB. */
static void test_subclusters(void **state)
{
	struct image img = simple(3);
	uint64_t entry = 2 << 16;
	struct qc2_extents list;

	put64(&img, H_INCOMPAT, 1 << 4);
	put64(&img, entry, COPIED | 3 << 16);
	put64(&img, entry + 8, 0xffffffffULL);		/* all data */
	put64(&img, entry + 16, COPIED | 4 << 16);
	put64(&img, entry + 24, 1ULL << 33 | 1ULL << 63 | 0x5);
	put64(&img, entry + 40, 3ULL << 32);		/* zeros, no cluster */
	put64(&img, entry + 48, ZERO);			/* no meaning here */
	lists(&img, &list);
	assert_int_equal(list.nr, 4);
	check_extent(&list, 0, 0, 132, DATA, 3 << 16);	/* joined with the next */
	check_extent(&list, 1, 132, 4, QC2_OBJECT_ZERO, 0);
	check_extent(&list, 2, 136, 4, DATA, (4 << 16) + 4096);
	check_extent(&list, 3, 128 + 124, 4 + 8, QC2_OBJECT_ZERO, 0);
	qc2_extents_free(&list);

	put64(&img, entry + 24, 1ULL << 32 | 1);
	refused(&img, EINVAL, "both data and zeros");
	put64(&img, entry + 24, 0);
	put64(&img, entry + 40, 1);
	refused(&img, EINVAL, "subclusters of data, but no cluster");
	put32(&img, H_CLUSTER_BITS, 13);
	refused(&img, EINVAL, "at least 16384");
	image_free(&img);
}

static void test_data_file(void **state)
{
	struct image img = simple(3);
	struct qc2_extents list = { 0 };
	struct qc2_packed *packed;
	struct qc2_qcow2 *qcow2;
	struct qc2_source *src;
	struct qc2_err err;

	put64(&img, H_INCOMPAT, 1 << 2);
	refused(&img, EINVAL, "does not name it");
	image_extension(&img, H_EXTENSIONS, 0x44415441, "x\0y", 3);
	refused(&img, EINVAL, "NUL byte");
	image_extension(&img, H_EXTENSIONS, 0x44415441, "data", 4);
	l2(&img, 0, COPIED);			/* offset 0 is a place */
	l2(&img, 1, 0);
	l2(&img, 2, COPIED | 2 << 16);
	src = mem_open(&img);
	assert_ok(qc2_qcow2_open(src, &qcow2, &err), err);
	assert_string_equal(qcow2->data_name, "data");
	/* The data file is short: the rest is zeros. */
	assert_ok(qc2_qcow2_extents(qcow2, 0, UINT64_MAX, DATA, (2 << 16) + 1000, UNPACKED,
				    &list, &packed, &err), err);
	assert_null(packed);
	assert_int_equal(list.nr, 3);
	check_extent(&list, 0, 0, 128, DATA, 0);
	check_extent(&list, 1, 256, 2, DATA, 2 << 16);
	check_extent(&list, 2, 258, 126, QC2_OBJECT_ZERO, 0);
	qc2_extents_free(&list);
	qc2_qcow2_close(qcow2);
	mem_close(src);

	l2(&img, 2, COPIED | 3 << 16);
	refused(&img, EINVAL, "another offset of the external data file");
	l2(&img, 2, COMPRESSED | 3 << 16);
	refused(&img, EINVAL, "cannot be with an external data file");
	image_free(&img);
}

/* One entry of a snapshot table; returns where the next one goes. */
static uint64_t snapshot(struct image *img, uint64_t at, uint64_t l1_offset,
			 uint32_t l1_size, const char *id, const char *name,
			 uint64_t disk_size)
{
	put64(img, at, l1_offset);
	put32(img, at + 8, l1_size);
	put32(img, at + 12, strlen(id) << 16 | strlen(name));
	put32(img, at + 36, disk_size ? 16 : 0);
	at += 40;
	if (disk_size) {
		put64(img, at + 8, disk_size);
		at += 16;
	}
	memcpy(img->data + at, id, strlen(id));
	memcpy(img->data + at + strlen(id), name, strlen(name));
	return (at + strlen(id) + strlen(name) + 7) & ~7ULL;
}

static int list_snapshot(const struct image *img, const char *name,
			 struct qc2_extents *list, struct qc2_err *err)
{
	struct qc2_packed *packed;
	int ret = list_image(img, name, list, &packed, err);

	assert_null(packed);
	return ret;
}

static void test_snapshots(void **state)
{
	enum { TABLE = 5 << 16 };
	struct image img = simple(3);
	struct qc2_extents list;
	struct qc2_err err;
	uint64_t at = TABLE;

	l2(&img, 0, COPIED | 3 << 16);
	/* The L1 table of the snapshots, and their L2 table. */
	put64(&img, 6 << 16, COPIED | 7 << 16);
	put64(&img, (7 << 16) + 8, 4 << 16);
	at = snapshot(&img, at, 6 << 16, 1, "1", "first", 0);
	at = snapshot(&img, at, 6 << 16, 1, "2", "1", 65536 + 1024);
	put32(&img, 60, 2);
	put64(&img, 64, TABLE);

	lists(&img, &list);
	check_extent(&list, 0, 0, 128, DATA, 3 << 16);
	qc2_extents_free(&list);
	assert_ok(list_snapshot(&img, "first", &list, &err), err);
	assert_int_equal(list.nr, 1);
	check_extent(&list, 0, 128, 128, DATA, 4 << 16);
	qc2_extents_free(&list);
	/* An id counts before a name. */
	assert_ok(list_snapshot(&img, "1", &list, &err), err);
	check_extent(&list, 0, 128, 128, DATA, 4 << 16);
	qc2_extents_free(&list);
	/* It had another size. */
	assert_ok(list_snapshot(&img, "2", &list, &err), err);
	check_extent(&list, 0, 128, 2, DATA, 4 << 16);
	/* The header; the snapshot table, with the L1 table; the L2 table. */
	assert_int_equal(mem_count.reads, 3);
	qc2_extents_free(&list);
	assert_int_equal(list_snapshot(&img, "3", &list, &err), -ENOENT);
	assert_in(err.msg, "'3'");

	put64(&img, TABLE, (6 << 16) + 512);
	assert_int_equal(list_snapshot(&img, "first", &list, &err), -EINVAL);
	put64(&img, TABLE, 8 << 16);
	assert_int_equal(list_snapshot(&img, "first", &list, &err), -EINVAL);
	put32(&img, TABLE + 36, 1025);
	assert_int_equal(list_snapshot(&img, "first", &list, &err), -EINVAL);
	assert_in(err.msg, "extra data");
	put32(&img, 60, 65537);
	assert_int_equal(list_snapshot(&img, "first", &list, &err), -EFBIG);
	put32(&img, 60, 2);
	put64(&img, 64, TABLE + 8);
	assert_int_equal(list_snapshot(&img, "first", &list, &err), -EINVAL);
	put64(&img, 64, 8 << 16);
	assert_int_equal(list_snapshot(&img, "first", &list, &err), -EINVAL);
	assert_in(err.msg, "truncated: snapshot table");
	image_free(&img);
}

/* A small file that claims much must not cost much. */
static void test_shared_tables_and_clusters(void **state)
{
	struct image img = image_new(URL, 3, 9, 128 << 10, 8);
	unsigned int i;

	put64(&img, 512, 1024);
	put64(&img, 520, 1024);
	refused(&img, EINVAL, "entries 0 and 1 of the L1 table share");
	image_free(&img);

	img = simple(3);
	for (i = 0; i < 16; i++)
		l2(&img, i, 3 << 16);
	refused(&img, EINVAL, "share clusters");
	image_free(&img);
}

/* Any damage gives an answer, never a crash; the sanitizers watch. */
static void test_random_damage(void **state)
{
	uint64_t seed = 7;
	int round;

	for (round = 0; round < 20000; round++) {
		struct image img = image_new(URL, 2 + round % 2, 9, 40000, 12);
		struct qc2_packed *packed;
		struct qc2_extents list;
		struct qc2_err err;
		unsigned int i, n = 1 + test_random(&seed) % 6;

		put64(&img, 512, 1024);
		put64(&img, 520, 1536);
		for (i = 0; i < 8; i++)
			put64(&img, 1024 + 8 * i, (4 + i) * 512);
		image_backing(&img, "base", "raw");
		for (i = 0; i < n; i++) {
			uint32_t at = test_random(&seed) % 1600;

			if (test_random(&seed) % 2)
				at %= 160;
			img.data[at] = test_random(&seed) % 3 ?
				(uint8_t)test_random(&seed) :
				img.data[at] ^ 1 << test_random(&seed) % 8;
		}
		img.size -= test_random(&seed) % 4 ? 0 :
			test_random(&seed) % img.size;
		if (list_image(&img, NULL, &list, &packed, &err))
			assert_in(err.msg, URL);
		qc2_packed_put(packed);
		assert_true(list.nr <= 40000 / 512 + 2 * 64 + 1);
		qc2_extents_free(&list);
		image_free(&img);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lists_clusters),
		cmocka_unit_test(test_end_of_the_disk),
		cmocka_unit_test(test_end_of_the_file),
		cmocka_unit_test(test_cluster_sizes),
		cmocka_unit_test(test_few_reads),
		cmocka_unit_test(test_header_fields),
		cmocka_unit_test(test_feature_names),
		cmocka_unit_test(test_extensions),
		cmocka_unit_test(test_backing),
		cmocka_unit_test(test_damaged_tables),
		cmocka_unit_test(test_compressed),
		cmocka_unit_test(test_subclusters),
		cmocka_unit_test(test_data_file),
		cmocka_unit_test(test_snapshots),
		cmocka_unit_test(test_shared_tables_and_clusters),
		cmocka_unit_test(test_random_damage),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
