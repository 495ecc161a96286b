/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Unpacking compressed clusters.  The input has a byte that says how, and then
 * the stream itself; or the content of a cluster, which is compressed here, with
 * changes to the stream behind it.
 */
#include <errno.h>

#include <zlib.h>
#include <zstd.h>

#include "fuzz.h"
#include "packed.h"
#include "qcow2.h"

#define MAX_CLUSTER	(64 << 10)

/* As QEMU does it. */
static size_t pack(bool zstd, const uint8_t *data, size_t len, uint8_t *out,
		   size_t room)
{
	z_stream strm = { .next_in = (void *)data, .avail_in = len,
			  .next_out = out, .avail_out = room };
	size_t ret;

	if (zstd) {
		ret = ZSTD_compress(out, room, data, len, 3);
		assert(!ZSTD_isError(ret));
		return ret;
	}
	assert(deflateInit2(&strm, Z_DEFAULT_COMPRESSION, Z_DEFLATED, -12, 9,
			    Z_DEFAULT_STRATEGY) == Z_OK);
	assert(deflate(&strm, Z_FINISH) == Z_STREAM_END);
	deflateEnd(&strm);
	return room - strm.avail_out;
}

/* The same answer twice, and no byte of it from elsewhere. */
static void unpack(const struct qc2_packed *packed, const uint8_t *in,
		   size_t in_len, const uint8_t *expected)
{
	size_t size = 1U << packed->cluster_bits;
	uint8_t *copy = malloc(in_len ? in_len : 1);
	uint8_t *out[2] = { malloc(size), malloc(size) };
	int ret[2], i;

	/* On the heap, where reading behind the end is seen. */
	assert(copy && out[0] && out[1]);
	memcpy(copy, in, in_len);
	for (i = 0; i < 2; i++) {
		memset(out[i], i, size);
		ret[i] = qc2_unpack(packed, copy, in_len, out[i]);
		assert(!ret[i] || ret[i] == -EINVAL);
	}
	assert(ret[0] == ret[1]);
	if (!ret[0])
		assert(!memcmp(out[0], out[1], size));
	if (expected)
		assert(!ret[0] && !memcmp(out[0], expected, size));
	free(copy);
	free(out[0]);
	free(out[1]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t content[MAX_CLUSTER], stream[2 * MAX_CLUSTER];
	struct input in = { data, size };
	unsigned int how = take(&in, 1);
	bool zstd = how & 1;
	struct qc2_packed *packed = qc2_packed_new(9 + (how >> 2 & 7), zstd ?
		QC2_COMPRESSION_ZSTD : QC2_COMPRESSION_ZLIB);
	size_t len, nr_changes, content_len, i;

	assert(packed);
	if (!(how & 2)) {
		unpack(packed, in.p, in.len, NULL);
		goto out;
	}
	nr_changes = take(&in, 1) % 8;
	len = 1U << packed->cluster_bits;
	content_len = in.len > 4 * nr_changes ? in.len - 4 * nr_changes : 0;
	/* Short inputs repeat. */
	for (i = 0; i < len; i++)
		content[i] = content_len ? in.p[i % content_len] : 0;
	in.p += content_len;
	in.len -= content_len;
	len = pack(zstd, content, len, stream, sizeof(stream));
	unpack(packed, stream, len, content);
	if (!nr_changes)
		goto out;
	while (in.len >= 4) {
		i = take(&in, 2) % len;
		stream[i] = take(&in, 1);
		if (take(&in, 1) & 1)
			len = i + 1;
	}
	unpack(packed, stream, len, NULL);
out:
	qc2_packed_put(packed);
	return 0;
}
