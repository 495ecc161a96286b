/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Lists of extents and the merged index.  A list belongs to the thread that
 * builds it; an index never changes, so any thread may search it.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "index.h"

static uint64_t ext_end(const struct qc2_extent *ext)
{
	return ext->sector + ext->nr_sectors;
}

static uint64_t ext_object_end(const struct qc2_extent *ext)
{
	return ext->offset + (uint64_t)ext->nr_sectors * 512;
}

static bool ext_join(struct qc2_extent *last, const struct qc2_extent *next)
{
	if (last->object != next->object || ext_end(last) != next->sector ||
	    last->nr_sectors > UINT32_MAX - next->nr_sectors)
		return false;
	if (last->object != QC2_OBJECT_ZERO &&
	    ext_object_end(last) != next->offset)
		return false;
	last->nr_sectors += next->nr_sectors;
	return true;
}

int qc2_extents_add(struct qc2_extents *list, const struct qc2_extent *ext)
{
	if (list->nr && ext_join(&list->v[list->nr - 1], ext))
		return 0;
	if (list->nr == QC2_MAX_EXTENTS)
		return -E2BIG;
	if (list->nr == list->alloc) {
		size_t alloc = list->alloc ? 2 * list->alloc : 64;
		struct qc2_extent *v = reallocarray(list->v, alloc, sizeof(*v));

		if (!v)
			return -ENOMEM;
		list->v = v;
		list->alloc = alloc;
	}
	list->v[list->nr++] = *ext;
	return 0;
}

void qc2_extents_free(struct qc2_extents *list)
{
	free(list->v);
	memset(list, 0, sizeof(*list));
}

static int cmp_sector(const void *a, const void *b)
{
	const struct qc2_extent *x = a, *y = b;

	return (x->sector > y->sector) - (x->sector < y->sector);
}

void qc2_extents_sort(struct qc2_extents *list)
{
	size_t i, nr = 0;

	/* Already in order is the usual case. */
	for (i = 1; i < list->nr; i++)
		if (list->v[i].sector < list->v[i - 1].sector)
			break;
	if (i >= list->nr)
		return;
	qsort(list->v, list->nr, sizeof(*list->v), cmp_sector);
	for (i = 1; i < list->nr; i++)
		if (!ext_join(&list->v[nr], &list->v[i]))
			list->v[++nr] = list->v[i];
	list->nr = nr + 1;
}

void qc2_extents_clip(struct qc2_extents *list, uint64_t from, uint64_t to)
{
	size_t i, nr = 0;

	for (i = 0; i < list->nr; i++) {
		struct qc2_extent ext = list->v[i];
		uint64_t end = ext_end(&ext) < to ? ext_end(&ext) : to;

		if (end <= from || ext.sector >= to)
			continue;
		if (ext.sector < from && ext.object != QC2_OBJECT_ZERO)
			ext.offset += (from - ext.sector) * 512;
		if (ext.sector < from)
			ext.sector = from;
		ext.nr_sectors = end - ext.sector;
		list->v[nr++] = ext;
	}
	list->nr = nr;
}

/* Adds sectors from..to (exclusive) of an extent. */
static int add_part(struct qc2_extents *list, const struct qc2_extent *ext,
		    uint64_t from, uint64_t to)
{
	struct qc2_extent part = *ext;

	part.sector = from;
	part.nr_sectors = to - from;
	if (part.object != QC2_OBJECT_ZERO)
		part.offset += (from - ext->sector) * 512;
	return qc2_extents_add(list, &part);
}

int qc2_extents_underlay(struct qc2_extents *upper,
			 const struct qc2_extents *lower, uint64_t limit)
{
	struct qc2_extents out = { 0 };
	uint64_t covered = 0;	/* end of the last upper extent in @out */
	size_t u = 0, l;
	int ret = 0;

	for (l = 0; l < lower->nr && !ret; l++) {
		const struct qc2_extent *ext = &lower->v[l];
		uint64_t from = ext->sector, to = ext_end(ext);

		if (to > limit)
			to = limit;
		if (from < covered)
			from = covered;
		/* Fill the gaps between upper extents with parts of it. */
		while (from < to && !ret) {
			const struct qc2_extent *up = NULL;
			uint64_t gap_end = to;

			if (u < upper->nr && upper->v[u].sector < to) {
				up = &upper->v[u++];
				gap_end = up->sector;
			}
			if (from < gap_end)
				ret = add_part(&out, ext, from, gap_end);
			if (!ret && up)
				ret = qc2_extents_add(&out, up);
			if (!up)
				break;
			covered = ext_end(up);
			if (from < covered)
				from = covered;
		}
	}
	for (; u < upper->nr && !ret; u++)
		ret = qc2_extents_add(&out, &upper->v[u]);
	if (ret) {
		qc2_extents_free(&out);
		return ret;
	}
	free(upper->v);
	*upper = out;
	return 0;
}

static int cmp_object(const void *a, const void *b, void *extents)
{
	const struct qc2_extent *v = extents;
	const struct qc2_extent *x = &v[*(const uint32_t *)a];
	const struct qc2_extent *y = &v[*(const uint32_t *)b];

	if (x->object != y->object)
		return x->object < y->object ? -1 : 1;
	if (x->offset != y->offset)
		return x->offset < y->offset ? -1 : 1;
	return cmp_sector(x, y);
}

/* Room for the directory; the sizes are known. */
static int alloc_dir(struct qc2_index *idx)
{
	while (idx->nr_sectors >> idx->dir_shift > idx->nr_extents)
		idx->dir_shift++;
	idx->dir = calloc(qc2_index_nr_dir(idx), sizeof(*idx->dir));
	return idx->dir ? 0 : -ENOMEM;
}

static void fill_dir(struct qc2_index *idx)
{
	size_t nr = qc2_index_nr_dir(idx), d, i = 0;

	for (d = 0; d < nr; d++) {
		while (i < idx->nr_extents && ext_end(&idx->extents[i]) <=
					      (uint64_t)d << idx->dir_shift)
			i++;
		idx->dir[d] = i;
	}
}

struct qc2_index *qc2_index_build(struct qc2_extents *list, uint64_t nr_sectors)
{
	struct qc2_index *idx = calloc(1, sizeof(*idx));
	struct qc2_extent *v;
	size_t i, nr = 0;

	if (!idx)
		return NULL;
	for (i = 0; i < list->nr; i++)
		nr += list->v[i].object != QC2_OBJECT_ZERO;
	idx->nr_sectors = nr_sectors;
	idx->nr_extents = nr;
	idx->nr_by_object = nr;
	idx->by_object = calloc(nr ? nr : 1, sizeof(*idx->by_object));
	if (!idx->by_object || alloc_dir(idx)) {
		qc2_index_free(idx);
		return NULL;
	}

	for (i = 0, nr = 0; i < list->nr; i++)
		if (list->v[i].object != QC2_OBJECT_ZERO)
			list->v[nr++] = list->v[i];
	v = list->v;
	if (nr && nr < list->alloc) {
		v = reallocarray(list->v, nr, sizeof(*v));
		if (!v)
			v = list->v;
	}
	memset(list, 0, sizeof(*list));
	idx->extents = v;
	for (i = 0; i < nr; i++)
		idx->by_object[i] = i;
	qsort_r(idx->by_object, nr, sizeof(*idx->by_object), cmp_object, v);
	fill_dir(idx);
	return idx;
}

void qc2_index_free(struct qc2_index *idx)
{
	if (!idx)
		return;
	if (idx->map) {
		munmap(idx->map, idx->map_len);
	} else {
		free(idx->extents);
		free(idx->by_object);
		free(idx->dir);
	}
	free(idx);
}

size_t qc2_index_find(const struct qc2_index *idx, uint64_t sector)
{
	uint64_t piece = sector >> idx->dir_shift;
	size_t lo, hi;

	if (sector >= idx->nr_sectors)
		return idx->nr_extents;
	lo = idx->dir[piece];
	hi = idx->dir[piece + 1];
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (ext_end(&idx->extents[mid]) > sector)
			hi = mid;
		else
			lo = mid + 1;
	}
	return lo;
}

size_t qc2_index_find_object(const struct qc2_index *idx, uint32_t object,
			     uint64_t offset)
{
	size_t lo = 0, hi = idx->nr_by_object;

	/* The first that begins after the byte ... */
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		const struct qc2_extent *ext =
			&idx->extents[idx->by_object[mid]];

		if (ext->object > object ||
		    (ext->object == object && ext->offset > offset))
			hi = mid;
		else
			lo = mid + 1;
	}
	/* ... unless the one before it reaches over the byte. */
	if (lo) {
		const struct qc2_extent *ext =
			&idx->extents[idx->by_object[lo - 1]];

		if (ext->object == object && ext_object_end(ext) > offset)
			lo--;
	}
	return lo;
}
