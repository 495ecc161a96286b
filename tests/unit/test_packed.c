/* SPDX-License-Identifier: GPL-2.0 */
/* Unpacking: streams as QEMU writes them, and damaged ones. */
#include <endian.h>
#include <errno.h>

#include <zlib.h>
#include <zstd.h>

#include "packed.h"
#include "qcow2.h"
#include "testing.h"

#define BITS	14
#define SIZE	(1 << BITS)

/* Content that compresses somewhat. */
static void make_content(uint8_t *data)
{
	uint64_t seed = 1;
	size_t i;

	for (i = 0; i < SIZE; i++)
		data[i] = test_random(&seed) % 4 ? 'a' + i % 7 :
						   (uint8_t)test_random(&seed);
}

static size_t pack_deflate(const uint8_t *data, size_t len, uint8_t *out,
			   size_t room)
{
	z_stream strm = { .next_in = (void *)data, .avail_in = len,
			  .next_out = out, .avail_out = room };

	assert_int_equal(deflateInit2(&strm, 9, Z_DEFLATED, -12, 9,
				      Z_DEFAULT_STRATEGY), Z_OK);
	assert_int_equal(deflate(&strm, Z_FINISH), Z_STREAM_END);
	deflateEnd(&strm);
	return room - strm.avail_out;
}

static void check(int compression, size_t (*pack)(const uint8_t *, size_t,
						  uint8_t *, size_t))
{
	struct qc2_packed *packed = qc2_packed_new(BITS, compression);
	static uint8_t data[SIZE + 1], in[2 * SIZE], out[SIZE];
	size_t len, i;
	uint8_t saved;

	make_content(data);
	len = pack(data, SIZE, in, sizeof(in));
	assert_true(len < SIZE);
	assert_int_equal(qc2_unpack(packed, in, len, out), 0);
	assert_memory_equal(out, data, SIZE);

	/* What fills the last sector does not matter. */
	memset(out, 0, SIZE);
	memset(in + len, 0xff, 511);
	assert_int_equal(qc2_unpack(packed, in, len + 511, out), 0);
	assert_memory_equal(out, data, SIZE);

	/* Cut, or too short for a cluster. */
	for (i = 0; i < len; i += 97)
		assert_int_equal(qc2_unpack(packed, in, i, out), -EINVAL);
	len = pack(data, SIZE - 1, in, sizeof(in));
	assert_int_equal(qc2_unpack(packed, in, len, out), -EINVAL);

	/* Any damage gives an answer, never more than a cluster. */
	len = pack(data, SIZE, in, sizeof(in));
	for (i = 0; i < len; i += 13) {
		saved = in[i];
		in[i] ^= 1 << i % 8;
		qc2_unpack(packed, in, len, out);
		in[i] = saved;
	}
	qc2_packed_put(packed);
}

static void test_zlib(void **state)
{
	check(QC2_COMPRESSION_ZLIB, pack_deflate);
}

static size_t pack_zstd(const uint8_t *data, size_t len, uint8_t *out,
			size_t room)
{
	size_t ret = ZSTD_compress(out, room, data, len, 3);

	assert_false(ZSTD_isError(ret));
	return ret;
}

static void test_zstd(void **state)
{
	check(QC2_COMPRESSION_ZSTD, pack_zstd);
}

/* QEMU takes a frame only if it ends with the cluster and its checksum is right. */
static void test_zstd_frame_end(void **state)
{
	struct qc2_packed *packed = qc2_packed_new(BITS, QC2_COMPRESSION_ZSTD);
	static uint8_t data[2 * SIZE], in[3 * SIZE], out[SIZE];
	ZSTD_CCtx *ctx = ZSTD_createCCtx();
	size_t len;

	make_content(data);
	len = pack_zstd(data, 2 * SIZE, in, sizeof(in));
	assert_int_equal(qc2_unpack(packed, in, len, out), -EINVAL);
	len = pack_zstd(data, SIZE + 1, in, sizeof(in));
	assert_int_equal(qc2_unpack(packed, in, len, out), -EINVAL);

	len = pack_zstd(data, SIZE / 2, in, sizeof(in));
	len += pack_zstd(data + SIZE / 2, SIZE / 2, in + len, sizeof(in) - len);
	assert_int_equal(qc2_unpack(packed, in, len, out), 0);
	assert_memory_equal(out, data, SIZE);

	ZSTD_CCtx_setParameter(ctx, ZSTD_c_checksumFlag, 1);
	len = ZSTD_compress2(ctx, in, sizeof(in), data, SIZE);
	assert_int_equal(qc2_unpack(packed, in, len, out), 0);
	assert_memory_equal(out, data, SIZE);
	assert_int_equal(qc2_unpack(packed, in, len - 4, out), -EINVAL);
	in[len - 1] ^= 1;
	assert_int_equal(qc2_unpack(packed, in, len, out), -EINVAL);
	ZSTD_freeCCtx(ctx);
	qc2_packed_put(packed);
}

/* A frame of one block without compression, whose header asks for a window. */
static size_t make_frame(uint8_t *out, uint32_t magic, unsigned int window_bits,
			 const uint8_t *data)
{
	magic = htole32(magic);
	memcpy(out, &magic, 4);
	out[4] = 0;
	out[5] = (window_bits - 10) << 3;
	out[6] = (SIZE << 3 | 1) & 0xff;	/* the last block */
	out[7] = SIZE << 3 >> 8 & 0xff;
	out[8] = SIZE << 3 >> 16;
	memcpy(out + 9, data, SIZE);
	return 9 + SIZE;
}

/* An image does not decide how much memory is taken, nor on code of old. */
static void test_zstd_limits(void **state)
{
	struct qc2_packed *packed = qc2_packed_new(BITS, QC2_COMPRESSION_ZSTD);
	static uint8_t data[SIZE], in[9 + SIZE], out[SIZE];
	uint32_t magic;
	size_t len;

	make_content(data);
	len = make_frame(in, ZSTD_MAGICNUMBER, 23, data);
	assert_int_equal(qc2_unpack(packed, in, len, out), 0);
	assert_memory_equal(out, data, SIZE);
	len = make_frame(in, ZSTD_MAGICNUMBER, 24, data);
	assert_int_equal(qc2_unpack(packed, in, len, out), -EINVAL);
	len = make_frame(in, ZSTD_MAGICNUMBER, 27, data);
	assert_int_equal(qc2_unpack(packed, in, len, out), -EINVAL);
	for (magic = 0xfd2fb522; magic < ZSTD_MAGICNUMBER; magic++) {
		len = make_frame(in, magic, 17, data);
		assert_int_equal(qc2_unpack(packed, in, len, out), -EINVAL);
	}
	qc2_packed_put(packed);
}

static void test_list(void **state)
{
	struct qc2_packed *packed = qc2_packed_new(16, QC2_COMPRESSION_ZLIB);
	uint32_t i;

	assert_int_equal(qc2_packed_find(packed, 0), 0);
	for (i = 0; i < 1000; i++)
		assert_int_equal(qc2_packed_add(packed, i, 2 * (999 - i), 1), 0);
	qc2_packed_sort(packed);
	for (i = 0; i < 1000; i++) {
		assert_int_equal(packed->v[i].cluster, 2 * i);
		assert_int_equal(packed->v[i].offset, 999 - i);
		assert_int_equal(qc2_packed_find(packed, 2 * i), i);
		assert_int_equal(qc2_packed_find(packed, 2 * i + 1), i + 1);
	}
	qc2_packed_put(qc2_packed_ref(packed));
	qc2_packed_put(packed);
	qc2_packed_put(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_list),
		cmocka_unit_test(test_zlib),
		cmocka_unit_test(test_zstd),
		cmocka_unit_test(test_zstd_frame_end),
		cmocka_unit_test(test_zstd_limits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
