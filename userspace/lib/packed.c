/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Lists of compressed clusters, and unpacking them.  A list belongs to the
 * thread that builds it; afterwards only its reference count changes.
 */
#include <endian.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <zlib.h>
#include <zstd.h>

#include "packed.h"
#include "qcow2.h"

/* QEMU writes raw deflate streams with a window of 4 KiB. */
#define DEFLATE_WINDOW_BITS	(-12)

struct qc2_packed *qc2_packed_new(unsigned int cluster_bits, int compression)
{
	struct qc2_packed *packed = calloc(1, sizeof(*packed));

	if (!packed)
		return NULL;
	packed->refs = 1;
	packed->cluster_bits = cluster_bits;
	packed->compression = compression;
	return packed;
}

struct qc2_packed *qc2_packed_ref(struct qc2_packed *packed)
{
	__atomic_add_fetch(&packed->refs, 1, __ATOMIC_RELAXED);
	return packed;
}

void qc2_packed_put(struct qc2_packed *packed)
{
	if (!packed || __atomic_sub_fetch(&packed->refs, 1, __ATOMIC_ACQ_REL))
		return;
	free(packed->v);
	free(packed);
}

int qc2_packed_add(struct qc2_packed *packed, uint64_t offset, uint32_t cluster,
		   uint32_t len)
{
	if (packed->nr == packed->alloc) {
		size_t alloc = packed->alloc ? 2 * packed->alloc : 64;
		struct qc2_packed_cluster *v =
			reallocarray(packed->v, alloc, sizeof(*v));

		if (!v)
			return -ENOMEM;
		packed->v = v;
		packed->alloc = alloc;
	}
	packed->v[packed->nr++] = (struct qc2_packed_cluster){
		.offset = offset, .cluster = cluster, .len = len,
	};
	return 0;
}

static int cmp_cluster(const void *a, const void *b)
{
	const struct qc2_packed_cluster *x = a, *y = b;

	return (x->cluster > y->cluster) - (x->cluster < y->cluster);
}

void qc2_packed_sort(struct qc2_packed *packed)
{
	size_t i;

	/* Already in order is the usual case. */
	for (i = 1; i < packed->nr; i++)
		if (packed->v[i].cluster < packed->v[i - 1].cluster)
			break;
	if (i < packed->nr)
		qsort(packed->v, packed->nr, sizeof(*packed->v), cmp_cluster);
}

size_t qc2_packed_find(const struct qc2_packed *packed, uint64_t cluster)
{
	size_t lo = 0, hi = packed->nr;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (packed->v[mid].cluster >= cluster)
			hi = mid;
		else
			lo = mid + 1;
	}
	return lo;
}

bool qc2_packed_same(const struct qc2_packed *a, const struct qc2_packed *b)
{
	return a == b || (a->cluster_bits == b->cluster_bits &&
			  a->compression == b->compression && a->nr == b->nr &&
			  (!a->nr || !memcmp(a->v, b->v, a->nr * sizeof(*a->v))));
}

static int unpack_deflate(const void *in, size_t in_len, void *out,
			  size_t out_len)
{
	z_stream strm = {
		.next_in = (void *)in, .avail_in = in_len,
		.next_out = out, .avail_out = out_len,
	};
	int ret;

	ret = inflateInit2(&strm, DEFLATE_WINDOW_BITS);
	if (ret != Z_OK)
		return ret == Z_MEM_ERROR ? -ENOMEM : -EINVAL;
	/* As QEMU: the end of the stream need not have been reached. */
	ret = inflate(&strm, Z_FINISH);
	inflateEnd(&strm);
	if (ret == Z_MEM_ERROR)
		return -ENOMEM;
	return (ret == Z_STREAM_END || ret == Z_BUF_ERROR) && !strm.avail_out ?
		0 : -EINVAL;
}

/*
 * A frame says how much memory it takes to unpack it, up to 128 MiB.  What QEMU
 * writes has no more than a cluster; 8 MiB are what RFC 8878 asks of all readers.
 */
#define ZSTD_WINDOW_BITS	23

/* Frames of zstd before its format was settled (0.8) are none that QEMU wrote. */
static bool is_zstd_frame(const uint8_t *in, size_t len)
{
	uint32_t magic;

	if (len < sizeof(magic))
		return false;
	memcpy(&magic, in, sizeof(magic));
	return le32toh(magic) == ZSTD_MAGICNUMBER;
}

/*
 * The stream has no length of its own: what follows is not part of it.  As in
 * QEMU a cluster may be several frames, and a frame that goes on behind the
 * cluster, and has not been checked wholly therefore, is damaged.
 */
static int unpack_zstd(const void *in, size_t in_len, void *out, size_t out_len)
{
	ZSTD_inBuffer input = { .src = in, .size = in_len };
	ZSTD_outBuffer output = { .dst = out, .size = out_len };
	ZSTD_DCtx *ctx = ZSTD_createDCtx();
	size_t before, ret = 0;

	if (!ctx)
		return -ENOMEM;
	ZSTD_DCtx_setParameter(ctx, ZSTD_d_windowLogMax, ZSTD_WINDOW_BITS);
	do {
		before = input.pos + output.pos;
		/* After 0 a frame begins. */
		if (!ret && !is_zstd_frame((const uint8_t *)in + input.pos,
					   in_len - input.pos))
			break;
		ret = ZSTD_decompressStream(ctx, &output, &input);
	} while (!ZSTD_isError(ret) && output.pos < output.size &&
		 input.pos + output.pos > before);
	ZSTD_freeDCtx(ctx);
	return ret || output.pos < output.size ? -EINVAL : 0;
}

int qc2_unpack(const struct qc2_packed *packed, const void *in, size_t in_len,
	       void *out)
{
	size_t out_len = (size_t)1 << packed->cluster_bits;

	if (packed->compression == QC2_COMPRESSION_ZSTD)
		return unpack_zstd(in, in_len, out, out_len);
	return unpack_deflate(in, in_len, out, out_len);
}
