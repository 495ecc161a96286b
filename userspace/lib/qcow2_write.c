/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The layout of a new qcow2 image: header, reference counts, L1 table, L2 tables, data.
 * No state.
 */
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "qcow2_format.h"
#include "qcow2_write.h"

#define BLOCK_BITS	12
#define HEADER_BYTES	112
#define MAX_BACKING	1023
#define EXT_BACKING	0xe2792acaU
#define EXT_FEATURES	0x6803f857U
#define INCOMPAT_EXTENDED_L2	(1ULL << 4)
#define REFCOUNT_ORDER	4		/* 16 bits */
/* A file may be so much larger than the smallest could be, for larger clusters: a 64th. */
#define MORE_SHIFT	6

struct header {
	uint32_t magic;
	uint32_t version;
	uint64_t backing_offset;
	uint32_t backing_len;
	uint32_t cluster_bits;
	uint64_t size;
	uint32_t crypt_method;
	uint32_t l1_size;
	uint64_t l1_offset;
	uint64_t refcount_offset;
	uint32_t refcount_clusters;
	uint32_t nr_snapshots;
	uint64_t snapshots_offset;
	uint64_t incompatible;
	uint64_t compatible;
	uint64_t autoclear;
	uint32_t refcount_order;
	uint32_t header_length;
	uint8_t compression;
	uint8_t padding[7];
};

/* One cluster of the virtual disk; a bit for each of its blocks. */
struct guest {
	uint64_t nr;
	uint32_t data, zero;
};

/* The clusters of the virtual disk in which there are pieces, one after the other. */
struct walk {
	const struct qc2_layout_piece *pieces;
	size_t nr, i;
	uint64_t block;			/* where it is in the piece */
	unsigned int shift;		/* blocks of a cluster */
};

/* Sizes of clusters, and whether they have subclusters; QEMU has these from 16 KiB on. */
static const struct shape {
	unsigned int bits;
	bool extended;
} shapes[] = {
	{ 12, false }, { 14, true }, { 15, true }, { 16, true }, { 17, true },
};

#define NR_SHAPES	(sizeof(shapes) / sizeof(shapes[0]))

/* Where things are, in clusters. */
struct plan {
	struct shape shape;
	unsigned int table_bits;	/* entries of an L2 table, as a shift */
	uint64_t nr_l1;			/* entries */
	uint64_t nr_l2;			/* tables */
	uint64_t nr_data;
	uint64_t refcount_table, nr_refcount_table;
	uint64_t refcount_blocks, nr_refcount_blocks;
	uint64_t l1, nr_l1_clusters;
	uint64_t l2, data, end;

	struct qc2_layout *layout;
	size_t max_runs;
};

/*
 * ---------------------------------------------------------------------------
 * Counting
 * ---------------------------------------------------------------------------
 */

static bool next_guest(struct walk *w, struct guest *g)
{
	uint64_t end;

	if (w->i == w->nr)
		return false;
	*g = (struct guest){ .nr = w->block >> w->shift };
	end = (g->nr + 1) << w->shift;
	while (w->i < w->nr && w->block < end) {
		const struct qc2_layout_piece *p = &w->pieces[w->i];
		uint64_t stop = p->block + p->nr;
		unsigned int first, nr;
		uint32_t mask;

		if (stop > end)
			stop = end;
		first = w->block - (g->nr << w->shift);
		nr = stop - w->block;
		mask = (nr < 32 ? (1U << nr) - 1 : UINT32_MAX) << first;
		if (p->zero)
			g->zero |= mask;
		else
			g->data |= mask;
		w->block = stop;
		if (stop == p->block + p->nr && ++w->i < w->nr)
			w->block = w->pieces[w->i].block;
	}
	return true;
}

static struct walk start_walk(const struct qc2_layout_piece *pieces, size_t nr,
			      unsigned int bits)
{
	return (struct walk){
		.pieces = pieces, .nr = nr, .block = nr ? pieces[0].block : 0,
		.shift = bits - BLOCK_BITS,
	};
}

static uint64_t div_up(uint64_t n, uint64_t by)
{
	return (n + by - 1) / by;
}

/* How many of everything there are, and so where everything is. */
static void count(struct plan *plan, const struct qc2_layout_config *cfg,
		  const struct qc2_layout_piece *pieces, size_t nr, struct shape shape)
{
	struct walk w = start_walk(pieces, nr, shape.bits);
	uint64_t cluster = 1ULL << shape.bits, table = UINT64_MAX, blocks = 1, old;
	struct guest g;

	*plan = (struct plan){ .shape = shape };
	plan->table_bits = shape.bits - (shape.extended ? 4 : 3);
	plan->nr_l1 = div_up(cfg->virtual_size, 1ULL << (shape.bits + plan->table_bits));
	plan->nr_l1_clusters = div_up(plan->nr_l1 * 8, cluster);
	while (next_guest(&w, &g)) {
		plan->nr_l2 += g.nr >> plan->table_bits != table;
		table = g.nr >> plan->table_bits;
		plan->nr_data += !!g.data;
	}
	do {
		old = blocks;
		plan->nr_refcount_blocks = blocks;
		plan->nr_refcount_table = div_up(blocks * 8, cluster);
		plan->refcount_table = 1;
		plan->refcount_blocks = plan->refcount_table + plan->nr_refcount_table;
		plan->l1 = plan->refcount_blocks + plan->nr_refcount_blocks;
		plan->l2 = plan->l1 + plan->nr_l1_clusters;
		plan->data = plan->l2 + plan->nr_l2;
		plan->end = plan->data + plan->nr_data;
		blocks = div_up(plan->end, cluster / 2);
	} while (blocks != old);
}

/*
 * ---------------------------------------------------------------------------
 * Writing
 * ---------------------------------------------------------------------------
 */

static void *at_cluster(const struct plan *plan, uint64_t nr)
{
	return (char *)plan->layout->head + (nr << plan->shape.bits);
}

static char *put_extension(char *p, uint32_t type, const void *data, uint32_t len)
{
	uint32_t head[2] = { htobe32(type), htobe32(len) };

	memcpy(p, head, sizeof(head));
	memcpy(p + sizeof(head), data, len);
	return p + sizeof(head) + (len + 7) / 8 * 8;
}

static void write_header(const struct plan *plan, const struct qc2_layout_config *cfg)
{
	/* Type (incompatible), bit, name. */
	static const char feature[48] = "\0\4extended L2 entries";
	uint64_t cluster = 1ULL << plan->shape.bits;
	struct header *h = at_cluster(plan, 0);
	char *p = (char *)(h + 1);

	_Static_assert(sizeof(*h) == HEADER_BYTES, "as in the format");
	*h = (struct header){
		.magic = htobe32(0x514649fb),
		.version = htobe32(3),
		.cluster_bits = htobe32(plan->shape.bits),
		.size = htobe64(cfg->virtual_size),
		.l1_size = htobe32(plan->nr_l1),
		.l1_offset = htobe64(plan->l1 * cluster),
		.refcount_offset = htobe64(plan->refcount_table * cluster),
		.refcount_clusters = htobe32(plan->nr_refcount_table),
		.incompatible = htobe64(plan->shape.extended ? INCOMPAT_EXTENDED_L2 : 0),
		.refcount_order = htobe32(REFCOUNT_ORDER),
		.header_length = htobe32(HEADER_BYTES),
	};
	if (cfg->backing) {
		const char *format = cfg->backing_raw ? "raw" : "qcow2";

		p = put_extension(p, EXT_BACKING, format, strlen(format));
	}
	p = put_extension(p, EXT_FEATURES, feature, sizeof(feature));
	p += 8;				/* the end of the extensions: zeros */
	if (cfg->backing) {
		h->backing_offset = htobe64(p - (char *)h);
		h->backing_len = htobe32(strlen(cfg->backing));
		memcpy(p, cfg->backing, strlen(cfg->backing));
	}
}

static void write_refcounts(const struct plan *plan)
{
	uint64_t *table = at_cluster(plan, plan->refcount_table), i;
	uint16_t *refs = at_cluster(plan, plan->refcount_blocks);	/* one behind the other */

	for (i = 0; i < plan->nr_refcount_blocks; i++)
		table[i] = htobe64((plan->refcount_blocks + i) << plan->shape.bits);
	for (i = 0; i < plan->end; i++)
		refs[i] = htobe16(1);
}

/* A bit for each subcluster. */
static uint64_t subclusters(const struct plan *plan, uint32_t blocks)
{
	unsigned int nr = QCOW2_SUBCLUSTERS >> (plan->shape.bits - BLOCK_BITS);
	uint64_t all = (1ULL << nr) - 1, mask = 0;

	for (; blocks; blocks &= blocks - 1)
		mask |= all << (__builtin_ctz(blocks) * nr);
	return mask;
}

static bool add_run(struct plan *plan, uint64_t at, uint64_t block, uint64_t nr)
{
	struct qc2_layout *layout = plan->layout;
	struct qc2_layout_run *last = layout->nr_runs ? &layout->runs[layout->nr_runs - 1] : NULL;
	struct qc2_layout_run *more;

	if (last && last->at + last->nr == at && last->block + last->nr == block) {
		last->nr += nr;
		return true;
	}
	if (layout->nr_runs == plan->max_runs) {
		size_t max = plan->max_runs ? 2 * plan->max_runs : 64;

		more = reallocarray(layout->runs, max, sizeof(*more));
		if (!more)
			return false;
		layout->runs = more;
		plan->max_runs = max;
	}
	layout->runs[layout->nr_runs++] = (struct qc2_layout_run){ at, block, nr };
	return true;
}

/* The blocks of a cluster, in runs. */
static bool add_data(struct plan *plan, const struct guest *g, uint64_t cluster)
{
	unsigned int shift = plan->shape.bits - BLOCK_BITS;
	uint32_t left = g->data;

	while (left) {
		unsigned int first = __builtin_ctz(left), nr = 0;

		while (first + nr < 32 && left & (1U << (first + nr)))
			left &= ~(1U << (first + nr++));
		if (!add_run(plan, (cluster << shift) + first, (g->nr << shift) + first, nr))
			return false;
	}
	return true;
}

static void write_entry(const struct plan *plan, uint64_t *l2, const struct guest *g,
			uint64_t cluster)
{
	uint64_t nr = g->nr & ((1ULL << plan->table_bits) - 1);
	uint64_t entry = g->data ? cluster << plan->shape.bits | QCOW2_L2_COPIED : 0;

	if (plan->shape.extended) {
		l2[2 * nr] = htobe64(entry);
		l2[2 * nr + 1] = htobe64(subclusters(plan, g->data) |
					 subclusters(plan, g->zero) << 32);
	} else {
		l2[nr] = htobe64(entry | (g->zero ? QCOW2_L2_ZERO : 0));
	}
}

static bool write_map(struct plan *plan, const struct qc2_layout_piece *pieces, size_t nr)
{
	struct walk w = start_walk(pieces, nr, plan->shape.bits);
	uint64_t *l1 = at_cluster(plan, plan->l1), *l2 = NULL;
	uint64_t table = UINT64_MAX, next_l2 = plan->l2, next_data = plan->data;
	struct guest g;

	while (next_guest(&w, &g)) {
		if (g.nr >> plan->table_bits != table) {
			table = g.nr >> plan->table_bits;
			l2 = at_cluster(plan, next_l2);
			l1[table] = htobe64(next_l2++ << plan->shape.bits | QCOW2_L2_COPIED);
		}
		write_entry(plan, l2, &g, next_data);
		if (g.data && !add_data(plan, &g, next_data++))
			return false;
	}
	return true;
}

static int check(const struct qc2_layout_config *cfg, const struct qc2_layout_piece *pieces,
		 size_t nr, struct qc2_err *err)
{
	uint64_t end = 0, size = div_up(cfg->virtual_size, QC2_LAYOUT_BLOCK);
	size_t i;

	if (!cfg->virtual_size || cfg->virtual_size % 512 ||
	    cfg->virtual_size > QC2_QCOW2_MAX_SIZE)
		return qc2_fail(err, EINVAL,
				"a qcow2 image of %llu bytes cannot be made: up to 64 TiB, a multiple of 512",
				(unsigned long long)cfg->virtual_size);
	if (cfg->backing && (!*cfg->backing || strlen(cfg->backing) > MAX_BACKING))
		return qc2_fail(err, ENAMETOOLONG,
				"%.80s…: a qcow2 image holds 1 to %d bytes of the name of its backing file",
				cfg->backing, MAX_BACKING);
	for (i = 0; i < nr; i++) {
		if (pieces[i].block < end || !pieces[i].nr || pieces[i].nr > size ||
		    pieces[i].block > size - pieces[i].nr)
			return qc2_fail(err, EINVAL,
					"piece %zu of the image, %llu blocks at %llu: empty, unsorted or beyond its end",
					i, (unsigned long long)pieces[i].nr,
					(unsigned long long)pieces[i].block);
		end = pieces[i].block + pieces[i].nr;
	}
	return 0;
}

/* QEMU's limit, too. */
static bool l1_fits(const struct plan *plan)
{
	return plan->nr_l1 * 8 <= QCOW2_MAX_L1_BYTES;
}

int qc2_layout_make(const struct qc2_layout_config *cfg, const struct qc2_layout_piece *pieces,
		    size_t nr_pieces, struct qc2_layout **out, struct qc2_err *err)
{
	struct qc2_layout *layout;
	struct plan plan;
	uint64_t least = UINT64_MAX;
	unsigned int i;
	int ret;

	ret = check(cfg, pieces, nr_pieces, err);
	if (ret)
		return ret;
	for (i = 0; i < NR_SHAPES; i++) {
		count(&plan, cfg, pieces, nr_pieces, shapes[i]);
		if (l1_fits(&plan) && plan.end << plan.shape.bits < least)
			least = plan.end << plan.shape.bits;
	}
	for (i = NR_SHAPES; i--; ) {
		count(&plan, cfg, pieces, nr_pieces, shapes[i]);
		if (l1_fits(&plan) &&
		    plan.end << plan.shape.bits <= least + (least >> MORE_SHIFT))
			break;
	}
	layout = calloc(1, sizeof(*layout));
	if (!layout)
		return qc2_fail(err, ENOMEM, "out of memory");
	plan.layout = layout;
	layout->cluster_bits = plan.shape.bits;
	layout->size = plan.end << plan.shape.bits;
	layout->head_len = plan.data << plan.shape.bits;
	layout->head = calloc(1, layout->head_len);
	if (!layout->head || !write_map(&plan, pieces, nr_pieces)) {
		qc2_layout_free(layout);
		return qc2_fail(err, ENOMEM, "out of memory");
	}
	write_refcounts(&plan);
	write_header(&plan, cfg);
	*out = layout;
	return 0;
}

void qc2_layout_free(struct qc2_layout *layout)
{
	if (!layout)
		return;
	free(layout->head);
	free(layout->runs);
	free(layout);
}
