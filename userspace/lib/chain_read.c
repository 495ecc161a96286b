/* SPDX-License-Identifier: GPL-2.0 */
/* Reading what a chain holds.  No state. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "chain_read.h"
#include "store.h"

/* Of compressed clusters: between two that are read at once; and what is read at once. */
#define PACKED_GAP	(64U << 10)
#define PACKED_READ	(8U << 20)
/* The same of data. */
#define DATA_GAP	4096U
#define DATA_READ	(8U << 20)

/* A part of an object that is wanted. */
struct part {
	struct qc2_source *src;
	uint64_t from, to;		/* bytes of the object */
	uint8_t *buf;
};

/* Number of compressed clusters from @first on, before @end, that one read brings. */
static size_t group_len(const struct qc2_packed *packed, size_t first, size_t end,
			size_t *len)
{
	const struct qc2_packed_cluster *v = packed->v;
	uint64_t start = v[first].offset, to = start + v[first].len;
	size_t i;

	for (i = first + 1; i < end; i++) {
		if (v[i].offset < start || v[i].offset > to + PACKED_GAP ||
		    v[i].offset + v[i].len - start > PACKED_READ)
			break;
		if (v[i].offset + v[i].len > to)
			to = v[i].offset + v[i].len;
	}
	*len = to - start;
	return i - first;
}

/* Unpacks a cluster and copies what of it is wanted. */
static int unpack_cluster(const struct part *part, const struct qc2_packed *packed,
			  const struct qc2_packed_cluster *c, const uint8_t *in,
			  uint8_t *cluster, struct qc2_err *err)
{
	uint64_t size = 1ULL << packed->cluster_bits;
	uint64_t start = c->cluster * size, lo = start, hi = start + size;
	int ret;

	ret = qc2_unpack(packed, in, c->len, cluster);
	if (ret == -ENOMEM)
		return qc2_fail(err, ENOMEM, "out of memory");
	if (ret)
		return qc2_fail(err, EBADMSG,
			"%s: the compressed cluster at offset %" PRIu64 " is damaged",
			part->src->url, c->offset);
	if (lo < part->from)
		lo = part->from;
	if (hi > part->to)
		hi = part->to;
	memcpy(part->buf + (lo - part->from), cluster + (lo - start), hi - lo);
	return 0;
}

static int read_packed(const struct part *part, const struct qc2_packed *packed,
		       struct qc2_err *err)
{
	uint64_t size = 1ULL << packed->cluster_bits;
	size_t i = qc2_packed_find(packed, part->from / size), nr, len;
	size_t end = qc2_packed_find(packed, (part->to + size - 1) / size);
	uint8_t *cluster = malloc(size), *in = NULL, *bigger;
	int ret = 0;

	if (!cluster)
		return qc2_fail(err, ENOMEM, "out of memory");
	memset(part->buf, 0, part->to - part->from);
	for (; i < end && !ret; i += nr) {
		uint64_t start = packed->v[i].offset;

		nr = group_len(packed, i, end, &len);
		bigger = realloc(in, len);
		if (!bigger) {
			ret = qc2_fail(err, ENOMEM, "out of memory");
			break;
		}
		in = bigger;
		ret = part->src->ops->read(part->src, start, in, len, err);
		for (size_t k = i; k < i + nr && !ret; k++)
			ret = unpack_cluster(part, packed, &packed->v[k],
					     in + (packed->v[k].offset - start), cluster,
					     err);
	}
	free(in);
	free(cluster);
	return ret;
}

static int read_data(const struct part *part, struct qc2_err *err)
{
	uint64_t end = part->to < part->src->size ? part->to : part->src->size;
	size_t have = end > part->from ? end - part->from : 0;

	memset(part->buf + have, 0, part->to - part->from - have);
	return have ? part->src->ops->read(part->src, part->from, part->buf, have, err) : 0;
}

int qc2_object_read(const struct qc2_chain *chain, struct qc2_store *store, uint32_t object,
		    uint64_t offset, void *buf, size_t len, struct qc2_err *err)
{
	const struct qc2_link *link = &chain->links[qc2_object_link(object)];
	struct part part = { .from = offset, .to = offset + len, .buf = buf };
	bool packed = qc2_object_is_unpacked(object);
	int ret;

	if (link->data_url && !packed)
		part.src = qc2_store_pinned(store, link->data_url, link->data_size,
					    link->data_version);
	else
		part.src = qc2_store_pinned(store, link->url, link->size, link->version);
	if (!part.src)
		return qc2_fail(err, ENOMEM, "out of memory");
	ret = packed ? read_packed(&part, link->packed, err) : read_data(&part, err);
	part.src->ops->close(part.src);
	return ret;
}

/* What is wanted of the virtual disk, and where it is. */
struct want {
	uint32_t object;
	uint64_t offset;
	size_t len;
	uint8_t *to;
};

static int by_place(const void *a, const void *b)
{
	const struct want *x = a, *y = b;

	if (x->object != y->object)
		return x->object > y->object ? 1 : -1;
	return (x->offset > y->offset) - (x->offset < y->offset);
}

/* The pieces of a range; what is in none is zeros.  NULL for lack of memory. */
static struct want *collect(const struct qc2_index *idx, uint64_t sector, uint64_t end,
			    uint8_t *buf, size_t *nr)
{
	size_t first = qc2_index_find(idx, sector), i;
	struct want *wants;

	*nr = 0;
	for (i = first; i < idx->nr_extents && idx->extents[i].sector < end; i++)
		;
	wants = calloc(i - first + 1, sizeof(*wants));
	for (i = first; wants && i < idx->nr_extents && idx->extents[i].sector < end; i++) {
		const struct qc2_extent *ext = &idx->extents[i];
		uint64_t lo = ext->sector > sector ? ext->sector : sector;
		uint64_t hi = ext->sector + ext->nr_sectors;

		if (hi > end)
			hi = end;
		wants[(*nr)++] = (struct want){
			.object = ext->object, .offset = ext->offset + (lo - ext->sector) * 512,
			.len = (hi - lo) * 512, .to = buf + (lo - sector) * 512,
		};
	}
	return wants;
}

/* So many, from the first on, are read at once; *@end is where they end in the object. */
static size_t group_wants(const struct want *wants, size_t nr, uint64_t *end)
{
	size_t i;

	*end = wants->offset + wants->len;
	for (i = 1; i < nr; i++) {
		uint64_t stop = wants[i].offset + wants[i].len;

		if (wants[i].object != wants->object || wants[i].offset > *end + DATA_GAP ||
		    stop - wants->offset > DATA_READ)
			break;
		if (stop > *end)
			*end = stop;
	}
	return i;
}

int qc2_chain_read(const struct qc2_chain *chain, struct qc2_store *store, uint64_t sector,
		   uint64_t nr_sectors, void *buf, struct qc2_err *err)
{
	struct want *wants;
	size_t nr, i, k, n;
	uint64_t end;
	int ret = 0;

	wants = collect(chain->index, sector, sector + nr_sectors, buf, &nr);
	if (!wants)
		return qc2_fail(err, ENOMEM, "out of memory");
	memset(buf, 0, nr_sectors * 512);
	qsort(wants, nr, sizeof(*wants), by_place);
	for (i = 0; i < nr && !ret; i += n) {
		uint64_t start = wants[i].offset;
		uint8_t *in;

		n = group_wants(&wants[i], nr - i, &end);
		if (n == 1) {
			ret = qc2_object_read(chain, store, wants[i].object, start, wants[i].to,
					      wants[i].len, err);
			continue;
		}
		in = malloc(end - start);
		ret = in ? qc2_object_read(chain, store, wants[i].object, start, in, end - start,
					   err) : qc2_fail(err, ENOMEM, "out of memory");
		for (k = i; k < i + n && !ret; k++)
			memcpy(wants[k].to, in + (wants[k].offset - start), wants[k].len);
		free(in);
	}
	free(wants);
	return ret;
}
