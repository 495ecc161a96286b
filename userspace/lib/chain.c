/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Opening a chain: one link after another, from the top to the base.  Of each
 * link only what is still visible is merged below what is known already.  One
 * thread opens a chain; a finished one never changes.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/evp.h>

#include "chain.h"
#include "qcow2.h"
#include "url.h"

/* The walk.  @next is the link to come; without a URL behind the base. */
struct walk {
	struct qc2_opener *opener;
	const struct qc2_chain_limits *limits;
	struct qc2_chain *chain;
	struct qc2_extents merged;
	uint64_t limit;		/* sectors that the links so far let through */
	struct qc2_top next;
	struct qc2_err *err;
};

/* A raw image is one run of data. */
static int raw_extents(const struct qc2_source *src, uint32_t link,
		       struct qc2_extents *list)
{
	uint64_t sectors = (src->size + 511) / 512, pos, step;
	int ret = 0;

	for (pos = 0; pos < sectors && !ret; pos += step) {
		struct qc2_extent ext;

		step = sectors - pos;
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

static int read_raw(struct walk *w, struct qc2_source *src,
		    struct qc2_link *link, struct qc2_extents *list)
{
	int ret;

	if (src->size > QC2_QCOW2_MAX_SIZE)
		return qc2_fail(w->err, EFBIG,
			"%s: %" PRIu64 " bytes, larger than the 64 TiB that can be read",
			src->url, src->size);
	link->virtual_size = (src->size + 511) & ~511ULL;
	ret = raw_extents(src, w->chain->nr_links - 1, list);
	return ret ? qc2_fail(w->err, -ret, "out of memory") : 0;
}

/* Whether the chain may lead to that URL. */
static int check_allowed(struct walk *w, const char *url, const char *what,
			 const char *of)
{
	int ret = qc2_url_allowed(url, w->chain->links[0].url,
				  w->limits->allow, w->limits->nr_allow, w->err);

	if (ret)
		qc2_fail_prefix(w->err, ret, "%.300s: %s refused: ", of, what);
	return ret;
}

/* Finds out what is to be known of an external data file. */
static int find_data_file(struct walk *w, const struct qc2_qcow2 *img,
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

static int read_qcow2(struct walk *w, struct qc2_qcow2 *img,
		      struct qc2_link *link, struct qc2_extents *list)
{
	uint32_t number = w->chain->nr_links - 1;
	int ret = 0;

	if (w->chain->snapshot && !number)
		ret = qc2_qcow2_snapshot(img, w->chain->snapshot, w->err);
	if (!ret && img->data_name)
		ret = find_data_file(w, img, link);
	if (ret)
		return ret;
	link->virtual_size = img->virtual_size;
	link->cluster_size = 1U << img->cluster_bits;
	return qc2_qcow2_extents(img, qc2_object_data(number),
				 link->data_url ? link->data_size : link->size,
				 qc2_object_unpacked(number), list,
				 &link->packed, w->err);
}

/* Reads one link; the name of its backing file goes to @backing. */
static int read_link(struct walk *w, bool raw, struct qc2_source *src,
		     struct qc2_link *link, struct qc2_extents *list,
		     char **backing, bool *backing_raw)
{
	struct qc2_qcow2 *img;
	int ret;

	*backing = NULL;
	if (raw)
		return read_raw(w, src, link, list);
	ret = qc2_qcow2_open(src, &img, w->err);
	if (ret)
		return ret;
	ret = read_qcow2(w, img, link, list);
	if (!ret && img->backing_name) {
		*backing = img->backing_name;
		*backing_raw = img->backing_raw;
		img->backing_name = NULL;
	}
	qc2_qcow2_close(img);
	return ret;
}

/* Adds the next link and finds out what comes behind it. */
static int add_link(struct walk *w)
{
	struct qc2_chain *chain = w->chain;
	struct qc2_link *link, *links;
	struct qc2_extents list = { 0 };
	struct qc2_source *src;
	char *backing = NULL;
	bool backing_raw = false;
	int ret;

	ret = w->opener->open(w->opener, w->next.url, &src, w->err);
	if (ret) {
		if (chain->nr_links)
			qc2_fail_prefix(w->err, ret,
				"%.300s: its backing file cannot be opened: ",
				chain->links[chain->nr_links - 1].url);
		return ret;
	}
	links = reallocarray(chain->links, chain->nr_links + 1,
			     sizeof(*links));
	if (!links) {
		ret = qc2_fail(w->err, ENOMEM, "out of memory");
		goto out;
	}
	chain->links = links;
	link = &links[chain->nr_links++];
	memset(link, 0, sizeof(*link));
	link->url = w->next.url;
	w->next.url = NULL;
	link->size = src->size;
	link->version = strdup(src->version);
	if (!link->version) {
		ret = qc2_fail(w->err, ENOMEM, "out of memory");
		goto out;
	}

	ret = read_link(w, w->next.raw, src, link, &list, &backing,
			&backing_raw);
	if (ret)
		goto out;
	ret = qc2_extents_underlay(&w->merged, &list, w->limit);
	if (ret) {
		ret = qc2_fail(w->err, -ret, ret == -E2BIG ?
			"%s: the chain down to here has too many pieces" :
			"%s: out of memory", link->url);
		goto out;
	}
	if (w->limit > link->virtual_size / 512)
		w->limit = link->virtual_size / 512;
	if (backing) {
		ret = qc2_url_resolve(link->url, backing, &w->next.url,
				      w->err);
		w->next.raw = backing_raw;
	}
out:
	free(backing);
	qc2_extents_free(&list);
	src->ops->close(src);
	return ret;
}

/* Whether the walk may go on to the next link. */
static int check_next(struct walk *w)
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

static int make_id(struct qc2_chain *chain, struct qc2_err *err)
{
	EVP_MD_CTX *md = EVP_MD_CTX_new();
	unsigned char digest[EVP_MAX_MD_SIZE];
	char *top_format = NULL;
	size_t i;
	int ok = md && EVP_DigestInit_ex(md, EVP_sha256(), NULL);

	if (ok && chain->snapshot)
		ok = asprintf(&top_format, "qcow2#snapshot=%s",
			      chain->snapshot) >= 0;
	for (i = 0; ok && i < chain->nr_links; i++) {
		const struct qc2_link *link = &chain->links[i];
		const char *format = link->cluster_size ? "qcow2" : "raw";

		if (!i && top_format)
			format = top_format;
		ok = digest_object(md, link->url, format, link->size,
				   link->version) &&
		     (!link->data_url ||
		      digest_object(md, link->data_url, "data", link->data_size,
				    link->data_version));
	}
	ok = ok && EVP_DigestFinal_ex(md, digest, NULL);
	EVP_MD_CTX_free(md);
	free(top_format);
	if (!ok)
		return qc2_fail(err, EIO, "SHA-256 failed in libcrypto");
	memcpy(chain->id, digest, sizeof(chain->id));
	return 0;
}

static int finish(struct walk *w)
{
	struct qc2_chain *chain = w->chain;
	size_t i;

	if (!chain->links[0].virtual_size)
		return qc2_fail(w->err, EINVAL,
			"%s: the disk has a size of 0", chain->links[0].url);
	chain->index = qc2_index_build(&w->merged,
				       chain->links[0].virtual_size / 512);
	if (!chain->index)
		return qc2_fail(w->err, ENOMEM, "out of memory");
	for (i = 0; i < chain->index->nr_extents; i++) {
		const struct qc2_extent *ext = &chain->index->extents[i];

		chain->links[qc2_object_link(ext->object)].live_sectors +=
			ext->nr_sectors;
	}
	return make_id(chain, w->err);
}

int qc2_chain_open(struct qc2_opener *opener, const char *url,
		   const struct qc2_chain_limits *limits,
		   struct qc2_chain **chain, struct qc2_err *err)
{
	struct walk w = {
		.opener = opener,
		.limits = limits,
		.limit = UINT64_MAX,
		.err = err,
	};
	int ret;

	ret = qc2_url_top(url, &w.next, err);
	if (ret)
		return ret;
	w.chain = calloc(1, sizeof(*w.chain));
	if (!w.chain) {
		ret = qc2_fail(err, ENOMEM, "out of memory");
	} else {
		w.chain->snapshot = w.next.snapshot;
		w.next.snapshot = NULL;
	}
	while (!ret && w.next.url) {
		if (w.chain->nr_links)
			ret = check_next(&w);
		if (!ret)
			ret = add_link(&w);
	}
	if (!ret)
		ret = finish(&w);
	qc2_top_free(&w.next);
	qc2_extents_free(&w.merged);
	if (ret) {
		qc2_chain_free(w.chain);
		return ret;
	}
	*chain = w.chain;
	return 0;
}

void qc2_chain_free(struct qc2_chain *chain)
{
	size_t i;

	if (!chain)
		return;
	for (i = 0; i < chain->nr_links; i++) {
		free(chain->links[i].url);
		free(chain->links[i].version);
		free(chain->links[i].data_url);
		free(chain->links[i].data_version);
		qc2_packed_put(chain->links[i].packed);
	}
	free(chain->snapshot);
	free(chain->links);
	qc2_index_free(chain->index);
	free(chain);
}
