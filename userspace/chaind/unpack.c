/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Unpacking compressed clusters.  Without state of its own; an unpack is used
 * by one thread at a time.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "unpack.h"

/* Neighbours are fetched together across gaps of this size, up to a sum. */
#define MAX_GAP		(64U << 10)
#define MAX_GAPS	(1U << 20)

struct range {
	uint64_t offset;	/* in the file */
	size_t len;
	size_t at;		/* in mem */
};

struct unpack {
	struct qc2_packed *packed;
	uint64_t start, end;
	size_t first, nr;		/* clusters */
	struct range *ranges;		/* by offset */
	size_t nr_ranges, next;
	size_t filled;			/* of the next range */
	uint8_t *mem;
};

static int cmp_offset(const void *a, const void *b)
{
	const struct range *x = a, *y = b;

	return (x->offset > y->offset) - (x->offset < y->offset);
}

/* One range for each cluster, then joined where they lie together. */
static void make_ranges(struct unpack *u)
{
	const struct qc2_packed_cluster *c = &u->packed->v[u->first];
	struct range *r = u->ranges;
	size_t i, gaps = 0, at = 0;

	for (i = 0; i < u->nr; i++)
		r[i] = (struct range){ .offset = c[i].offset, .len = c[i].len };
	qsort(r, u->nr, sizeof(*r), cmp_offset);
	for (i = 0; i < u->nr; i++) {
		struct range *last = u->nr_ranges ? &r[u->nr_ranges - 1] : NULL;
		uint64_t last_end = last ? last->offset + last->len : 0;
		uint64_t end = r[i].offset + r[i].len;
		uint64_t gap = r[i].offset > last_end ?
			       r[i].offset - last_end : 0;

		if (last && gap <= MAX_GAP && gaps + gap <= MAX_GAPS) {
			gaps += gap;
			if (end > last_end)
				last->len = end - last->offset;
		} else {
			r[u->nr_ranges++] = r[i];
		}
	}
	for (i = 0; i < u->nr_ranges; i++) {
		r[i].at = at;
		at += r[i].len;
	}
}

struct unpack *unpack_new(struct qc2_packed *packed, uint64_t start,
			  uint64_t end)
{
	struct unpack *u = calloc(1, sizeof(*u));
	const struct range *last;
	uint64_t size = 1ULL << packed->cluster_bits;

	if (!u)
		return NULL;
	u->packed = qc2_packed_ref(packed);
	u->start = start;
	u->end = end;
	u->first = qc2_packed_find(packed, start / size);
	u->nr = qc2_packed_find(packed, (end + size - 1) / size) - u->first;
	if (!u->nr)
		return u;
	u->ranges = calloc(u->nr, sizeof(*u->ranges));
	if (!u->ranges) {
		unpack_free(u);
		return NULL;
	}
	make_ranges(u);
	last = &u->ranges[u->nr_ranges - 1];
	u->mem = malloc(last->at + last->len);
	if (!u->mem) {
		unpack_free(u);
		return NULL;
	}
	return u;
}

void unpack_free(struct unpack *u)
{
	if (!u)
		return;
	qc2_packed_put(u->packed);
	free(u->ranges);
	free(u->mem);
	free(u);
}

bool unpack_range(const struct unpack *u, uint64_t *offset, size_t *len)
{
	if (u->next == u->nr_ranges)
		return false;
	*offset = u->ranges[u->next].offset;
	*len = u->ranges[u->next].len;
	return true;
}

void unpack_data(struct unpack *u, const void *data, size_t len)
{
	memcpy(u->mem + u->ranges[u->next].at + u->filled, data, len);
	u->filled += len;
}

void unpack_range_done(struct unpack *u, bool ok)
{
	u->filled = 0;
	u->next += ok;
}

/* The bytes of a cluster that were fetched. */
static const uint8_t *find_data(const struct unpack *u,
				const struct qc2_packed_cluster *c)
{
	size_t lo = 0, hi = u->nr_ranges;

	/* The last range that does not begin after it. */
	while (hi - lo > 1) {
		size_t mid = lo + (hi - lo) / 2;

		if (u->ranges[mid].offset <= c->offset)
			lo = mid;
		else
			hi = mid;
	}
	return u->mem + u->ranges[lo].at + (c->offset - u->ranges[lo].offset);
}

/* Copies [from, to) of the virtual disk from @data to where it belongs. */
static void copy_out(const struct unpack *u, void *const *out, size_t piece,
		     const uint8_t *data, uint64_t from, uint64_t to)
{
	while (from < to) {
		uint64_t at = from - u->start;
		size_t n = piece - at % piece;

		if (n > to - from)
			n = to - from;
		memcpy((uint8_t *)out[at / piece] + at % piece, data, n);
		data += n;
		from += n;
	}
}

int unpack_run(struct unpack *u, void *const *out, size_t piece, bool *damaged,
	       uint64_t *bad)
{
	size_t nr_pieces = (u->end - u->start + piece - 1) / piece, i;
	uint64_t size = 1ULL << u->packed->cluster_bits;
	uint8_t *cluster = malloc(size);
	int ret = 0;

	if (!cluster)
		return -ENOMEM;
	for (i = 0; i < nr_pieces; i++) {
		memset(out[i], 0, piece);
		damaged[i] = false;
	}
	for (i = u->first; i < u->first + u->nr && ret != -ENOMEM; i++) {
		const struct qc2_packed_cluster *c = &u->packed->v[i];
		uint64_t start = c->cluster * size, from = start, to = start + size;

		if (from < u->start)
			from = u->start;
		if (to > u->end)
			to = u->end;
		switch (qc2_unpack(u->packed, find_data(u, c), c->len, cluster)) {
		case 0:
			copy_out(u, out, piece, cluster + (from - start), from, to);
			break;
		case -ENOMEM:
			ret = -ENOMEM;
			break;
		default:
			for (; from < to; from += piece - (from - u->start) % piece)
				damaged[(from - u->start) / piece] = true;
			*bad = c->offset;
			ret = -EINVAL;
		}
	}
	free(cluster);
	return ret;
}
