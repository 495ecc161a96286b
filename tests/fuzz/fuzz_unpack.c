/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Fetching and unpacking part of a disk of compressed clusters, as chaind does:
 * every cluster of the window must come out as qc2_unpack() alone unpacks it.
 * The input has the window, the clusters, and how the fetches go.
 */
#include <errno.h>

#include "../../userspace/chaind/unpack.h"
#include "fuzz.h"
#include "packed.h"
#include "qcow2.h"

#define CLUSTER_BITS	12
#define CLUSTER		(1U << CLUSTER_BITS)
#define NR_CLUSTERS	64
#define FILE_SIZE	(2U << 20)
#define PIECE		(2 * CLUSTER)
#define MAX_PIECES	(256 * 512 / PIECE)

static uint8_t file[FILE_SIZE];

/* Stored blocks of deflate, so that any place can hold a cluster. */
static void put_cluster(uint8_t *at, uint8_t value)
{
	at[0] = 1;		/* the last block, stored */
	at[1] = CLUSTER & 0xff;
	at[2] = CLUSTER >> 8;
	at[3] = ~at[1];
	at[4] = ~at[2];
	memset(at + 5, value, CLUSTER);
}

static struct qc2_packed *make_list(struct input *in)
{
	struct qc2_packed *packed = qc2_packed_new(CLUSTER_BITS,
						   QC2_COMPRESSION_ZLIB);
	uint32_t cluster = 0;
	uint64_t offset = 0;

	assert(packed);
	memset(file, 0, FILE_SIZE);
	for (unsigned int nr = take(in, 1) % NR_CLUSTERS; nr; nr--) {
		unsigned int how = take(in, 1);
		uint32_t len = CLUSTER + 5 + take(in, 1);

		if (how & 1)
			cluster += how >> 4;
		/* Close by, far, or one that may overlap. */
		offset = how & 2 ? take(in, 3) : offset + take(in, 2);
		offset %= FILE_SIZE - 2 * CLUSTER;
		if (!(how & 4))
			put_cluster(file + offset, cluster);
		if (how & 8)
			len = take(in, 2) % (2 * CLUSTER) + 1;
		assert(!qc2_packed_add(packed, offset, cluster++, len));
	}
	qc2_packed_sort(packed);
	return packed;
}

/* Any number of bytes at once; a fetch can fail on the way. */
static void fetch(struct unpack *u, struct input *in)
{
	uint64_t offset, done;
	size_t len;

	while (unpack_range(u, &offset, &len)) {
		size_t step = in->len ? take(in, 2) + 1 : SIZE_MAX;
		bool fails = in->len && take(in, 1) & 1;

		assert(len && len <= FILE_SIZE && offset <= FILE_SIZE - len);
		for (done = 0; done < len && !fails; done += step) {
			if (step > len - done)
				step = len - done;
			unpack_data(u, file + offset + done, step);
			fails = in->len && take(in, 1) == 1;
		}
		unpack_range_done(u, !fails);
	}
}

/* Compares cluster by cluster, each up to where a piece ends. */
static void check(const struct qc2_packed *packed, uint64_t start, uint64_t end,
		  uint8_t *const *out, const bool *damaged, int ret)
{
	bool bad[MAX_PIECES] = { false }, any = false;
	static uint8_t cluster[CLUSTER];
	uint64_t pos, next;
	size_t i;

	for (pos = start; pos < end; pos = next) {
		size_t piece = (pos - start) / PIECE, at = (pos - start) % PIECE;
		int expected = 0;

		next = (pos / CLUSTER + 1) * CLUSTER;
		if (next > start + (piece + 1) * PIECE)
			next = start + (piece + 1) * PIECE;
		if (next > end)
			next = end;
		memset(cluster, 0, CLUSTER);
		i = qc2_packed_find(packed, pos / CLUSTER);
		if (i < packed->nr && packed->v[i].cluster == pos / CLUSTER)
			expected = qc2_unpack(packed, file + packed->v[i].offset,
					      packed->v[i].len, cluster);
		assert(!expected || expected == -EINVAL);
		bad[piece] |= expected;
		assert(expected || !memcmp(out[piece] + at, cluster + pos % CLUSTER,
					   next - pos));
	}
	for (i = 0; i * PIECE < end - start; i++) {
		assert(damaged[i] == bad[i]);
		any |= bad[i];
	}
	assert(ret == (any ? -EINVAL : 0));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	uint64_t start = take(&in, 2) * 512 % (NR_CLUSTERS * CLUSTER);
	uint64_t end = start + (take(&in, 1) + 1) * 512, bad = 0;
	size_t nr = (end - start + PIECE - 1) / PIECE, i;
	struct qc2_packed *packed = make_list(&in);
	struct unpack *u = unpack_new(packed, start, end);
	uint8_t *out[MAX_PIECES];
	bool damaged[MAX_PIECES];

	assert(u);
	for (i = 0; i < nr; i++) {
		out[i] = malloc(PIECE);
		assert(out[i]);
	}
	fetch(u, &in);
	check(packed, start, end, out, damaged,
	      unpack_run(u, (void *const *)out, PIECE, damaged, &bad));
	for (i = 0; i < nr; i++)
		free(out[i]);
	unpack_free(u);
	qc2_packed_put(packed);
	return 0;
}
