/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Digests of the blocks of objects, and finding them.  A table belongs to the
 * thread that fills it; afterwards nothing in it changes.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/evp.h>

#include "manifest.h"

/* Appends blocks [@from, @to] of an object, which are not before those of @last. */
static int add_blocks(struct qc2_digests *d, size_t *alloc, uint32_t object,
		      uint64_t from, uint64_t to)
{
	struct qc2_digest_run *last = d->nr_runs ? &d->runs[d->nr_runs - 1] : NULL;

	if (last && last->object == object) {
		uint64_t end = (uint64_t)last->block + last->nr;

		if (from < end)
			from = end;
		if (from > to)
			return 0;
		if (from == end) {
			last->nr += to - from + 1;
			d->nr += to - from + 1;
			return 0;
		}
	}
	if (d->nr_runs == *alloc) {
		struct qc2_digest_run *runs;

		*alloc = *alloc ? 2 * *alloc : 64;
		runs = reallocarray(d->runs, *alloc, sizeof(*runs));
		if (!runs)
			return -ENOMEM;
		d->runs = runs;
	}
	d->runs[d->nr_runs++] = (struct qc2_digest_run){
		.object = object, .block = from, .nr = to - from + 1, .first = d->nr,
	};
	d->nr += to - from + 1;
	return 0;
}

int qc2_digests_new(const struct qc2_chain *chain, struct qc2_digests **digests,
		    struct qc2_err *err)
{
	const struct qc2_index *idx = chain->index;
	struct qc2_digests *d = calloc(1, sizeof(*d));
	size_t alloc = 0, i;
	int ret = 0;

	if (!d)
		return qc2_fail(err, ENOMEM, "out of memory");
	for (i = 0; i < idx->nr_by_object && !ret; i++) {
		const struct qc2_extent *ext = &idx->extents[idx->by_object[i]];
		uint64_t last = (ext->offset + ext->nr_sectors * 512ULL - 1) /
				QC2_DIGEST_BLOCK;

		/* So that numbers of blocks, and what is a bit behind, can be counted. */
		if (last > INT32_MAX)
			ret = qc2_fail(err, EFBIG,
				"%s: data at offset %llu, too far behind for digests",
				chain->links[qc2_object_link(ext->object)].url,
				(unsigned long long)ext->offset);
		else
			ret = add_blocks(d, &alloc, ext->object,
					 ext->offset / QC2_DIGEST_BLOCK, last);
	}
	if (!ret && d->nr > UINT32_MAX)
		ret = qc2_fail(err, EFBIG, "more blocks than digests can be made of");
	if (!ret) {
		d->v = calloc(d->nr ? d->nr : 1, sizeof(*d->v));
		if (!d->v)
			ret = -ENOMEM;
	}
	if (ret == -ENOMEM)
		qc2_fail(err, ENOMEM, "out of memory");
	if (ret) {
		qc2_digests_free(d);
		return ret;
	}
	*digests = d;
	return 0;
}

void qc2_digests_free(struct qc2_digests *digests)
{
	if (!digests)
		return;
	free(digests->runs);
	free(digests->v);
	free(digests);
}

const uint8_t *qc2_digests_find(const struct qc2_digests *d, uint32_t object,
				uint32_t block)
{
	size_t lo = 0, hi = d->nr_runs;

	/* The first run that begins behind the block; it is in the one before. */
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		const struct qc2_digest_run *run = &d->runs[mid];

		if (run->object > object ||
		    (run->object == object && run->block > block))
			hi = mid;
		else
			lo = mid + 1;
	}
	if (!lo || d->runs[lo - 1].object != object ||
	    block - d->runs[lo - 1].block >= d->runs[lo - 1].nr)
		return NULL;
	return d->v[d->runs[lo - 1].first + (block - d->runs[lo - 1].block)];
}

int qc2_digest(const void *data, uint8_t digest[QC2_DIGEST_LEN])
{
	unsigned char sha256[EVP_MAX_MD_SIZE];

	if (!EVP_Digest(data, QC2_DIGEST_BLOCK, sha256, NULL, EVP_sha256(), NULL))
		return -EIO;
	memcpy(digest, sha256, QC2_DIGEST_LEN);
	return 0;
}
