/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Opening a chain.  First the headers are read, one link after another from the
 * top to the base, because each names the next; then the tables of all links,
 * several at once, and merged on the way: of the whole disk, or of a window.
 *
 * Once its headers were read a walk does not change; passes over the tables may
 * run at the same time.  The thread that runs a pass owns it.  While it waits for
 * its readers, each of these owns the part of the link it took, and that of a half
 * that it was the second to finish.
 */
#include <errno.h>
#include <pthread.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/evp.h>

#include "chain.h"
#include "index_file.h"
#include "manifest_open.h"
#include "qcow2.h"
#include "url.h"

/* Readers of tables. */
#define MAX_READERS	16

/* A link on its way: what is needed until its tables were read. */
struct opening {
	struct qc2_source *src;
	struct qc2_qcow2 *img;		/* NULL: a raw image */
};

/* The walk.  @next is the link to come; without a URL behind the base. */
struct qc2_walk {
	struct qc2_opener *opener;
	const struct qc2_chain_limits *limits;
	struct qc2_chain *chain;
	struct opening *open;		/* by link */
	struct qc2_top next;
	struct qc2_source *top;		/* the top image, open; NULL: not yet, or taken */
	struct qc2_err *err;
	struct pass *whole;		/* over all tables, when it has ended */
};

/* What a pass found in a link; then, in all those that were merged into it. */
struct part {
	struct qc2_extents list;
	struct qc2_packed *packed;	/* of the link alone */
	atomic_uint halves;		/* finished ones of those that meet here */
	int ret;			/* of reading and merging */
	struct qc2_err err;
};

/* A pass over the tables of all links. */
struct pass {
	const struct qc2_walk *walk;
	const struct qc2_chain *chain;
	uint64_t from, to;		/* sectors of the disk */
	struct part *parts;		/* by link */
	struct qc2_index *index;
	atomic_size_t unread;		/* the first link that no reader took */
	atomic_bool failed;		/* a reader has failed */
};

/*
 * ---------------------------------------------------------------------------
 * Headers
 * ---------------------------------------------------------------------------
 */

/* Whether the chain may lead to that URL. */
static int check_allowed(struct qc2_walk *w, const char *url, const char *what,
			 const char *of)
{
	int ret = qc2_url_allowed(url, w->chain->links[0].url,
				  w->limits->allow, w->limits->nr_allow, w->err);

	if (ret)
		qc2_fail_prefix(w->err, ret, "%.300s: %s refused: ", of, what);
	return ret;
}

/* Finds out what is to be known of an external data file. */
static int find_data_file(struct qc2_walk *w, const struct qc2_qcow2 *img,
			  struct qc2_link *link)
{
	struct qc2_source *src;
	int ret;

	ret = qc2_url_resolve(link->url, img->data_name, &link->data_url,
			      w->err);
	if (!ret)
		ret = check_allowed(w, link->data_url, "external data file",
				    link->url);
	if (ret)
		return ret;
	ret = w->opener->open(w->opener, link->data_url, &src, w->err);
	if (ret) {
		qc2_fail_prefix(w->err, ret,
			"%.300s: its external data file cannot be opened: ",
			link->url);
		return ret;
	}
	link->data_size = src->size;
	link->data_version = strdup(src->version);
	src->ops->close(src);
	return link->data_version ? 0 :
		qc2_fail(w->err, ENOMEM, "out of memory");
}

static int open_raw(struct qc2_walk *w, const struct qc2_source *src,
		    struct qc2_link *link)
{
	if (src->size > QC2_QCOW2_MAX_SIZE)
		return qc2_fail(w->err, EFBIG,
			"%s: %" PRIu64 " bytes, larger than the 64 TiB that can be read",
			src->url, src->size);
	link->virtual_size = (src->size + 511) & ~511ULL;
	return 0;
}

static int open_qcow2(struct qc2_walk *w, struct opening *open,
		      struct qc2_link *link)
{
	bool top = w->chain->nr_links == 1;
	struct qc2_qcow2 *img;
	int ret;

	ret = qc2_qcow2_open(open->src, &open->img, w->err);
	if (ret)
		return ret;
	img = open->img;
	if (top && w->chain->snapshot)
		ret = qc2_qcow2_snapshot(img, w->chain->snapshot, w->err);
	if (!ret && img->data_name)
		ret = find_data_file(w, img, link);
	if (ret)
		return ret;
	link->virtual_size = img->virtual_size;
	link->cluster_size = 1U << img->cluster_bits;
	if (!img->backing_name)
		return 0;
	w->next.raw = img->backing_raw;
	return qc2_url_resolve(link->url, img->backing_name, &w->next.url,
			       w->err);
}

/* Room for one more link; it is empty. */
static struct qc2_link *add_link(struct qc2_walk *w)
{
	struct qc2_chain *chain = w->chain;
	size_t nr = chain->nr_links + 1;
	struct qc2_link *links;
	struct opening *open;

	links = reallocarray(chain->links, nr, sizeof(*links));
	if (links)
		chain->links = links;
	open = reallocarray(w->open, nr, sizeof(*open));
	if (open)
		w->open = open;
	if (!links || !open) {
		qc2_fail(w->err, ENOMEM, "out of memory");
		return NULL;
	}
	memset(&links[nr - 1], 0, sizeof(*links));
	memset(&open[nr - 1], 0, sizeof(*open));
	chain->nr_links = nr;
	return &links[nr - 1];
}

/* Opens the next link and finds out what comes behind it. */
static int open_link(struct qc2_walk *w)
{
	struct qc2_chain *chain = w->chain;
	bool raw = w->next.raw;
	struct qc2_source *src;
	struct qc2_link *link;
	int ret;

	src = w->top;
	w->top = NULL;
	ret = src ? 0 : w->opener->open(w->opener, w->next.url, &src, w->err);
	if (ret) {
		if (chain->nr_links)
			qc2_fail_prefix(w->err, ret,
				"%.300s: its backing file cannot be opened: ",
				chain->links[chain->nr_links - 1].url);
		return ret;
	}
	link = add_link(w);
	if (!link) {
		src->ops->close(src);
		return -ENOMEM;
	}
	w->open[chain->nr_links - 1].src = src;
	link->url = w->next.url;
	w->next.url = NULL;
	link->size = src->size;
	link->version = strdup(src->version);
	if (!link->version)
		return qc2_fail(w->err, ENOMEM, "out of memory");
	return raw ? open_raw(w, src, link) :
		     open_qcow2(w, &w->open[chain->nr_links - 1], link);
}

/* Whether the walk may go on to the next link. */
static int check_next(struct qc2_walk *w)
{
	const struct qc2_chain *chain = w->chain;
	const struct qc2_link *child = &chain->links[chain->nr_links - 1];
	size_t i;

	for (i = 0; i < chain->nr_links; i++)
		if (!strcmp(chain->links[i].url, w->next.url))
			return qc2_fail(w->err, ELOOP,
				"%.300s: its backing file %.300s is already in the chain (link %zu from the top): a loop",
				child->url, w->next.url, i);
	if (chain->nr_links >= w->limits->max_depth)
		return qc2_fail(w->err, E2BIG,
			"%.300s: has a backing file, but the chain is %zu links long already; max_depth in section [chain] of the configuration sets the limit",
			child->url, chain->nr_links);
	return check_allowed(w, w->next.url, "backing file", child->url);
}

/*
 * ---------------------------------------------------------------------------
 * Identity, and index files
 * ---------------------------------------------------------------------------
 */

void qc2_chain_complete(struct qc2_chain *chain, struct qc2_index *index)
{
	size_t i;

	chain->index = index;
	for (i = 0; i < index->nr_extents; i++)
		chain->links[qc2_object_link(index->extents[i].object)].live_sectors +=
			index->extents[i].nr_sectors;
}

/* Each part with its NUL, so that no two chains read the same. */
static int digest_object(EVP_MD_CTX *md, const char *url, const char *format,
			 uint64_t size, const char *version)
{
	char text[32];

	snprintf(text, sizeof(text), "%" PRIu64, size);
	return EVP_DigestUpdate(md, url, strlen(url) + 1) &&
	       EVP_DigestUpdate(md, format, strlen(format) + 1) &&
	       EVP_DigestUpdate(md, text, strlen(text) + 1) &&
	       EVP_DigestUpdate(md, version, strlen(version) + 1);
}

static int digest_link(EVP_MD_CTX *md, const struct qc2_chain *chain, size_t i)
{
	const struct qc2_link *link = &chain->links[i];
	char *snapshot = NULL;
	int ok;

	if (!i && chain->snapshot &&
	    asprintf(&snapshot, "qcow2#snapshot=%s", chain->snapshot) < 0)
		return 0;
	ok = digest_object(md, link->url, snapshot ? snapshot :
			   link->cluster_size ? "qcow2" : "raw", link->size,
			   link->version) &&
	     (!link->data_url || digest_object(md, link->data_url, "data",
					       link->data_size, link->data_version));
	free(snapshot);
	return ok;
}

/* The id of @nr links from @first on. */
static int make_id(const struct qc2_chain *chain, size_t first, size_t nr,
		   uint8_t *id, struct qc2_err *err)
{
	EVP_MD_CTX *md = EVP_MD_CTX_new();
	unsigned char digest[EVP_MAX_MD_SIZE];
	size_t i;
	int ok = md && EVP_DigestInit_ex(md, EVP_sha256(), NULL);

	for (i = first; ok && i < first + nr; i++)
		ok = digest_link(md, chain, i);
	ok = ok && EVP_DigestFinal_ex(md, digest, NULL);
	EVP_MD_CTX_free(md);
	if (!ok)
		return qc2_fail(err, EIO, "SHA-256 failed in libcrypto");
	memcpy(id, digest, QC2_CHAIN_ID_LEN);
	return 0;
}

int qc2_chain_identify(struct qc2_chain *chain, struct qc2_err *err)
{
	return make_id(chain, 0, chain->nr_links, chain->id, err);
}

/* Makes the chain complete if there is an index file of it. */
static void load_chain(const struct qc2_walk *w)
{
	struct qc2_chain *chain = w->chain;
	struct qc2_index_parts parts = {
		.nr_sectors = chain->nr_sectors,
		.nr_links = chain->nr_links,
		.packed = calloc(chain->nr_links, sizeof(*parts.packed)),
	};
	size_t i;

	if (parts.packed && !qc2_index_file_load(w->limits->index_dir, chain->id,
						 true, &parts, NULL)) {
		for (i = 0; i < chain->nr_links; i++)
			chain->links[i].packed = parts.packed[i];
		qc2_chain_complete(chain, parts.index);
	}
	free(parts.packed);
}

/* Writes the index of the whole, and uses it from the file. */
static void save_chain(struct pass *p)
{
	const char *dir = p->walk->limits->index_dir;
	const struct qc2_chain *chain = p->chain;
	struct qc2_index_parts parts = {
		.nr_sectors = chain->nr_sectors,
		.index = p->index,
		.nr_links = chain->nr_links,
		.packed = calloc(chain->nr_links, sizeof(*parts.packed)),
	};
	size_t i;
	int ret;

	for (i = 0; parts.packed && i < chain->nr_links; i++)
		parts.packed[i] = p->parts[i].packed;
	ret = parts.packed ? qc2_index_file_save(dir, chain->id, &parts, NULL) :
			     -ENOMEM;
	if (!ret) {
		memset(parts.packed, 0, chain->nr_links * sizeof(*parts.packed));
		ret = qc2_index_file_load(dir, chain->id, true, &parts, NULL);
	}
	if (!ret) {
		for (i = 0; i < chain->nr_links; i++)
			qc2_packed_put(parts.packed[i]);
		qc2_index_free(p->index);
		p->index = parts.index;
	}
	free(parts.packed);
}

/*
 * ---------------------------------------------------------------------------
 * Merging
 * ---------------------------------------------------------------------------
 */

/* Merges links [@mid, @hi) below links [@lo, @mid); each is one list by now. */
static int merge(struct pass *p, size_t lo, size_t mid, size_t hi,
		 struct qc2_err *err)
{
	uint64_t limit = UINT64_MAX;
	size_t i;
	int ret;

	/* A smaller link hides what is below its end. */
	for (i = lo; i < mid; i++)
		if (p->chain->links[i].virtual_size / 512 < limit)
			limit = p->chain->links[i].virtual_size / 512;
	ret = qc2_extents_underlay(&p->parts[lo].list, &p->parts[mid].list, limit);
	qc2_extents_free(&p->parts[mid].list);
	if (ret)
		return qc2_fail(err, -ret, ret == -E2BIG ?
			"%s: the chain down to here has too many pieces" :
			"%s: out of memory", p->chain->links[hi - 1].url);
	return 0;
}

/*
 * The list of link @i is finished: merges it with its neighbour's, that with the
 * neighbouring two's, and so on, as far as these are finished; whoever finishes
 * the other half goes on.  So an extent is copied as often as the depth has
 * binary digits, and what is hidden does not stay until the last link was read.
 */
static int merge_finished(struct pass *p, size_t i, struct qc2_err *err)
{
	size_t len, lo, mid;
	int ret = 0;

	for (len = 1; !ret; len *= 2) {
		lo = i & ~(2 * len - 1);
		mid = lo + len;
		if (mid + len > p->chain->nr_links ||
		    !atomic_fetch_add(&p->parts[mid].halves, 1))
			break;
		ret = merge(p, lo, mid, mid + len, err);
	}
	return ret;
}

/* What is left: one list for each binary digit of the depth, the longest first. */
static int merge_rest(struct pass *p, struct qc2_err *err)
{
	size_t nr = p->chain->nr_links, lo, mid;
	int ret = 0;

	for (mid = nr & (nr - 1); mid && !ret; mid = lo) {
		lo = mid & (mid - 1);
		ret = merge(p, lo, mid, nr, err);
	}
	return ret;
}

/*
 * ---------------------------------------------------------------------------
 * Tables
 * ---------------------------------------------------------------------------
 */

/* A raw image is one run of data. */
static int raw_extents(const struct pass *p, size_t link,
		       struct qc2_extents *list)
{
	uint64_t end = p->chain->links[link].virtual_size / 512, pos, step;
	int ret = 0;

	if (end > p->to)
		end = p->to;
	for (pos = p->from; pos < end && !ret; pos += step) {
		struct qc2_extent ext;

		step = end - pos;
		if (step > 1U << 31)
			step = 1U << 31;
		ext = (struct qc2_extent){
			.sector = pos,
			.nr_sectors = step,
			.offset = pos * 512,
			.object = qc2_object_data(link),
		};
		ret = qc2_extents_add(list, &ext);
	}
	return ret;
}

/* The list of an index file is that of link 0. */
static void renumber(struct qc2_extents *list, uint32_t from, uint32_t to)
{
	size_t i;

	for (i = 0; i < list->nr; i++)
		if (list->v[i].object != QC2_OBJECT_ZERO)
			list->v[i].object += 2 * to - 2 * from;
}

static int load_link(struct pass *p, size_t i, const uint8_t *id)
{
	struct part *part = &p->parts[i];
	struct qc2_index_parts parts = {
		.nr_sectors = p->chain->links[i].virtual_size / 512,
		.nr_links = 1,
		.packed = &part->packed,
	};
	int ret;

	ret = qc2_index_file_load(p->walk->limits->index_dir, id, false, &parts, NULL);
	if (ret)
		return ret;
	part->list = parts.list;
	renumber(&part->list, 0, i);
	qc2_extents_clip(&part->list, p->from, p->to);
	return 0;
}

static void save_link(struct pass *p, size_t i, const uint8_t *id)
{
	struct part *part = &p->parts[i];
	struct qc2_index_parts parts = {
		.nr_sectors = p->chain->links[i].virtual_size / 512,
		.nr_links = 1,
		.packed = &part->packed,
	};

	renumber(&part->list, i, 0);
	parts.list = part->list;
	qc2_index_file_save(p->walk->limits->index_dir, id, &parts, NULL);
	renumber(&part->list, 0, i);
}

/* From the index file of the link, or from the image. */
static int read_image(struct pass *p, size_t i)
{
	const struct qc2_link *link = &p->chain->links[i];
	bool files = p->walk->limits->index_dir;
	struct part *part = &p->parts[i];
	uint8_t id[QC2_CHAIN_ID_LEN];
	int ret;

	if (files && make_id(p->chain, i, 1, id, NULL))
		files = false;
	if (files && !p->walk->limits->reread && !load_link(p, i, id))
		return 0;
	ret = qc2_qcow2_extents(p->walk->open[i].img, p->from, p->to,
		qc2_object_data(i), link->data_url ? link->data_size : link->size,
		qc2_object_unpacked(i), &part->list, &part->packed, &part->err);
	if (!ret && files && !p->from && p->to == UINT64_MAX)
		save_link(p, i, id);
	return ret;
}

static int read_link(struct pass *p, size_t i)
{
	struct part *part = &p->parts[i];

	if (p->walk->open[i].img)
		return read_image(p, i);
	return raw_extents(p, i, &part->list) ?
		qc2_fail(&part->err, ENOMEM, "out of memory") : 0;
}

static void *reader(void *arg)
{
	struct pass *p = arg;
	size_t i;
	int ret;

	while (!atomic_load(&p->failed)) {
		i = atomic_fetch_add(&p->unread, 1);
		if (i >= p->chain->nr_links)
			break;
		ret = read_link(p, i);
		if (!ret)
			ret = merge_finished(p, i, &p->parts[i].err);
		if (ret)
			atomic_store(&p->failed, true);
		p->parts[i].ret = ret;
	}
	return NULL;
}

/* Reads the tables of all links; without threads if there can be none. */
static int read_links(struct pass *p, struct qc2_err *err)
{
	pthread_t threads[MAX_READERS];
	size_t nr = 0, i;

	while (nr + 1 < p->chain->nr_links && nr < MAX_READERS &&
	       !pthread_create(&threads[nr], NULL, reader, p))
		nr++;
	reader(p);
	for (i = 0; i < nr; i++)
		pthread_join(threads[i], NULL);
	/* The error nearest to the top is the one that a walk would have met. */
	for (i = 0; i < p->chain->nr_links; i++) {
		if (p->parts[i].ret) {
			*err = p->parts[i].err;
			return p->parts[i].ret;
		}
	}
	return 0;
}

static void free_pass(struct pass *p)
{
	size_t i;

	if (!p)
		return;
	for (i = 0; p->parts && i < p->chain->nr_links; i++) {
		qc2_extents_free(&p->parts[i].list);
		qc2_packed_put(p->parts[i].packed);
	}
	free(p->parts);
	qc2_index_free(p->index);
	free(p);
}

static int run_pass(struct pass *p, struct qc2_err *err)
{
	int ret = read_links(p, err);

	if (!ret)
		ret = merge_rest(p, err);
	if (ret)
		return ret;
	p->index = qc2_index_build(&p->parts[0].list, p->chain->nr_sectors);
	return p->index ? 0 : qc2_fail(err, ENOMEM, "out of memory");
}

/* To be freed by the caller in any case. */
static int read_tables(const struct qc2_walk *walk, uint64_t from, uint64_t to,
		       struct pass **pass, struct qc2_err *err)
{
	struct pass *p = calloc(1, sizeof(*p));

	*pass = p;
	if (!p)
		return qc2_fail(err, ENOMEM, "out of memory");
	p->walk = walk;
	p->chain = walk->chain;
	p->from = from;
	p->to = to;
	p->parts = calloc(p->chain->nr_links, sizeof(*p->parts));
	if (!p->parts)
		return qc2_fail(err, ENOMEM, "out of memory");
	return run_pass(p, err);
}

int qc2_walk_window(struct qc2_walk *walk, uint64_t from, uint64_t to,
		    struct qc2_index **index, struct qc2_err *err)
{
	struct pass *pass;
	size_t i;
	int ret;

	ret = read_tables(walk, from, to, &pass, err);
	*index = NULL;
	if (!ret) {
		*index = pass->index;
		pass->index = NULL;
	}
	for (i = 0; *index && i < (*index)->nr_extents; i++) {
		if (qc2_object_is_unpacked((*index)->extents[i].object)) {
			qc2_index_free(*index);
			*index = NULL;
		}
	}
	free_pass(pass);
	return ret;
}

int qc2_walk_read(struct qc2_walk *walk, struct qc2_err *err)
{
	struct pass *pass;
	int ret;

	ret = read_tables(walk, 0, UINT64_MAX, &pass, err);
	if (ret) {
		free_pass(pass);
		return ret;
	}
	if (walk->limits->index_dir)
		save_chain(pass);
	walk->whole = pass;
	return 0;
}

void qc2_walk_complete(struct qc2_walk *walk)
{
	struct qc2_chain *chain = walk->chain;
	struct pass *p = walk->whole;
	size_t i;

	for (i = 0; i < chain->nr_links; i++) {
		chain->links[i].packed = p->parts[i].packed;
		p->parts[i].packed = NULL;
	}
	qc2_chain_complete(chain, p->index);
	p->index = NULL;
}

/*
 * ---------------------------------------------------------------------------
 * The whole
 * ---------------------------------------------------------------------------
 */

static int walk_headers(struct qc2_walk *w)
{
	int ret = 0;

	while (!ret && w->next.url) {
		if (w->chain->nr_links)
			ret = check_next(w);
		if (!ret)
			ret = open_link(w);
	}
	if (ret)
		return ret;
	w->chain->nr_sectors = w->chain->links[0].virtual_size / 512;
	if (!w->chain->nr_sectors)
		return qc2_fail(w->err, EINVAL,
			"%s: the disk has a size of 0", w->chain->links[0].url);
	ret = qc2_chain_identify(w->chain, w->err);
	if (!ret && w->limits->index_dir && !w->limits->reread)
		load_chain(w);
	return ret;
}

/*
 * Takes the chain from a manifest.  Without one that can be used, the top image is
 * open, and the chain is as it was.
 */
static int try_manifest(struct qc2_walk *w)
{
	struct qc2_chain *chain;
	char *trouble;
	int ret;

	if (w->limits->no_manifest || w->next.snapshot)
		return 0;
	ret = qc2_manifest_open(w->opener, &w->next, w->limits, &w->top, &chain,
				&trouble, w->err);
	if (chain) {
		qc2_chain_put(w->chain);
		w->chain = chain;
	}
	w->chain->manifest_trouble = trouble;
	return ret;
}

int qc2_walk_new(struct qc2_opener *opener, const char *url,
		 const struct qc2_chain_limits *limits, struct qc2_walk **walk,
		 struct qc2_err *err)
{
	struct qc2_walk *w = calloc(1, sizeof(*w));
	int ret;

	if (!w)
		return qc2_fail(err, ENOMEM, "out of memory");
	w->opener = opener;
	w->limits = limits;
	w->err = err;
	w->chain = calloc(1, sizeof(*w->chain));
	ret = w->chain ? qc2_url_top(url, &w->next, err) :
			 qc2_fail(err, ENOMEM, "out of memory");
	if (!ret) {
		w->chain->refs = 1;
		ret = try_manifest(w);
		if (!ret && !w->chain->index) {
			w->chain->snapshot = w->next.snapshot;
			w->next.snapshot = NULL;
			ret = walk_headers(w);
		}
		qc2_top_free(&w->next);
	}
	w->err = NULL;
	if (ret) {
		qc2_walk_free(w);
		return ret;
	}
	*walk = w;
	return 0;
}

struct qc2_chain *qc2_walk_chain(struct qc2_walk *walk)
{
	return walk->chain;
}

void qc2_walk_free(struct qc2_walk *walk)
{
	size_t i;

	if (!walk)
		return;
	free_pass(walk->whole);
	for (i = 0; walk->open && i < walk->chain->nr_links; i++) {
		struct opening *open = &walk->open[i];

		qc2_qcow2_close(open->img);
		if (open->src)
			open->src->ops->close(open->src);
	}
	if (walk->top)
		walk->top->ops->close(walk->top);
	free(walk->open);
	qc2_chain_put(walk->chain);
	free(walk);
}

int qc2_chain_open(struct qc2_opener *opener, const char *url,
		   const struct qc2_chain_limits *limits,
		   struct qc2_chain **chain, struct qc2_err *err)
{
	struct qc2_walk *walk;
	int ret;

	ret = qc2_walk_new(opener, url, limits, &walk, err);
	if (ret)
		return ret;
	if (!qc2_walk_chain(walk)->index)
		ret = qc2_walk_read(walk, err);
	if (!ret) {
		if (!qc2_walk_chain(walk)->index)
			qc2_walk_complete(walk);
		*chain = qc2_chain_ref(qc2_walk_chain(walk));
	}
	qc2_walk_free(walk);
	return ret;
}

struct qc2_chain *qc2_chain_ref(struct qc2_chain *chain)
{
	__atomic_add_fetch(&chain->refs, 1, __ATOMIC_RELAXED);
	return chain;
}

void qc2_chain_put(struct qc2_chain *chain)
{
	size_t i;

	if (!chain || __atomic_sub_fetch(&chain->refs, 1, __ATOMIC_ACQ_REL))
		return;
	for (i = 0; i < chain->nr_links; i++) {
		free(chain->links[i].url);
		free(chain->links[i].version);
		free(chain->links[i].data_url);
		free(chain->links[i].data_version);
		qc2_packed_put(chain->links[i].packed);
	}
	free(chain->snapshot);
	qc2_manifest_origin_free(chain->manifest);
	free(chain->manifest_trouble);
	free(chain->links);
	qc2_index_free(chain->index);
	free(chain);
}
