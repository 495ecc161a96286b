/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Opening a chain through its manifest: one GET of that, one of the first bytes of
 * the top image, which says whether the manifest is about it, both at once.
 *
 * The links below are not asked.  They are pinned to the versions in the manifest,
 * so the first GET of their data notices a change.
 */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "manifest_open.h"

/* What opening reads of a manifest; this would be a map of some 100 million pieces. */
#define MAX_OPEN_LEN	(1ULL << 30)
/* 16 bytes for each 64 KiB: of 4 TiB of data. */
#define MAX_DIGESTS_LEN	(1ULL << 30)

/* Getting the manifest.  The thread that does it owns this until it has ended. */
struct fetching {
	struct qc2_opener *opener;
	char *url;
	struct qc2_manifest_head head;
	uint8_t *buf;
	size_t len;
	uint64_t size;		/* of the object */
	char *version;
	bool none;		/* there is no manifest */
	int ret;
	struct qc2_err err;
};

/* Reads on up to @len bytes. */
static int read_up_to(struct fetching *f, struct qc2_source *src, size_t len)
{
	size_t have = f->len;
	uint8_t *buf = realloc(f->buf, len);
	int ret;

	if (!buf)
		return qc2_fail(&f->err, ENOMEM, "%s: out of memory", f->url);
	f->buf = buf;
	ret = src->ops->read(src, have, buf + have, len - have, &f->err);
	if (!ret)
		f->len = len;
	return ret;
}

static int read_manifest(struct fetching *f, struct qc2_source *src)
{
	size_t first = QC2_MANIFEST_FIRST;
	int ret;

	if (!src->size)
		return qc2_fail(&f->err, EBADMSG, "%s: is empty", f->url);
	if (src->size < first)
		first = src->size;
	ret = read_up_to(f, src, first);
	if (ret)
		return ret;
	ret = qc2_manifest_head(f->buf, f->len, &f->head, &f->err);
	if (!ret && f->head.length != src->size)
		ret = qc2_fail(&f->err, EBADMSG,
			"%s: %" PRIu64 " bytes, where its header says %" PRIu64,
			f->head.length > src->size ? "truncated" : "damaged",
			src->size, f->head.length);
	if (!ret && f->head.open_len > MAX_OPEN_LEN)
		ret = qc2_fail(&f->err, EFBIG, "%" PRIu64 " bytes to open it; %llu are allowed",
			       f->head.open_len, MAX_OPEN_LEN);
	if (ret)
		return qc2_fail_prefix(&f->err, ret, "%s: ", f->url);
	return f->head.open_len > f->len ? read_up_to(f, src, f->head.open_len) : 0;
}

static void *fetch(void *arg)
{
	struct fetching *f = arg;
	struct qc2_opener *opener = f->opener;
	struct qc2_source *src;

	f->ret = opener->open_head ?
		 opener->open_head(opener, f->url, QC2_MANIFEST_FIRST, &src, &f->err) :
		 opener->open(opener, f->url, &src, &f->err);
	/* A store that may not be listed says that access is denied. */
	f->none = f->ret == -ENOENT || f->ret == -EACCES;
	if (f->ret)
		return NULL;
	f->ret = read_manifest(f, src);
	f->size = src->size;
	f->version = src->version;
	src->version = NULL;
	src->ops->close(src);
	return NULL;
}

/* Opens the top image while the manifest is on its way. */
static int open_both(struct fetching *f, const char *top, struct qc2_source **src,
		     struct qc2_err *err)
{
	pthread_t thread;
	int no_thread, ret;

	no_thread = pthread_create(&thread, NULL, fetch, f);
	ret = f->opener->open(f->opener, top, src, err);
	if (!no_thread)
		pthread_join(thread, NULL);
	else if (!ret)
		fetch(f);
	return ret;
}

/* Whether a manifest is about the top image as it is. */
static int check_top(const struct fetching *f, const struct qc2_link *top,
		     const struct qc2_source *src, struct qc2_err *err)
{
	char made_for[200], is[200];

	if (top->size != src->size)
		return qc2_fail(err, ESTALE,
			"%.300s: stale: made for an image of %" PRIu64 " bytes, the image has %" PRIu64,
			f->url, top->size, src->size);
	if (strcmp(top->version, src->version))
		return qc2_fail(err, ESTALE,
			"%.300s: stale: made for version %s of the image, which is %s",
			f->url,
			qc2_printable(top->version, strlen(top->version), made_for,
				      sizeof(made_for)),
			qc2_printable(src->version, strlen(src->version), is, sizeof(is)));
	return 0;
}

/* The digests, if they came, too.  What is wrong with them is told when they are fetched. */
static struct qc2_digests *read_digests(const struct fetching *f)
{
	const struct qc2_manifest_head *head = &f->head;
	struct qc2_digests *digests;
	struct qc2_err err;

	if (!head->digests_len || head->digests_offset > f->len ||
	    head->digests_len > f->len - head->digests_offset ||
	    qc2_manifest_digests(head, f->buf + head->digests_offset, head->digests_len, &digests,
				 &err))
		return NULL;
	return digests;
}

/* Notes where the chain is from; URL and version go there. */
static int set_origin(struct fetching *f, struct qc2_chain *chain)
{
	struct qc2_manifest_origin *origin = calloc(1, sizeof(*origin));

	if (!origin)
		return qc2_fail(&f->err, ENOMEM, "%s: out of memory", f->url);
	origin->url = f->url;
	origin->size = f->size;
	origin->version = f->version;
	origin->head = f->head;
	origin->digests = read_digests(f);
	f->url = NULL;
	f->version = NULL;
	chain->manifest = origin;
	return 0;
}

static int read_chain(struct fetching *f, const struct qc2_top *top,
		      const struct qc2_chain_limits *limits,
		      const struct qc2_source *src, struct qc2_chain **chain)
{
	int ret;

	ret = qc2_manifest_read(&f->head, f->buf, f->len, top, limits, chain, &f->err);
	if (ret)
		return qc2_fail_prefix(&f->err, ret, "%s: ", f->url);
	ret = check_top(f, &(*chain)->links[0], src, &f->err);
	if (!ret)
		ret = set_origin(f, *chain);
	if (ret) {
		qc2_chain_put(*chain);
		*chain = NULL;
	}
	return ret;
}

int qc2_manifest_open(struct qc2_opener *opener, const struct qc2_top *top,
		      const struct qc2_chain_limits *limits,
		      struct qc2_source **src, struct qc2_chain **chain,
		      char **trouble, struct qc2_err *err)
{
	struct fetching f = { .opener = opener, .url = qc2_manifest_url(top->url) };
	int ret;

	*src = NULL;
	*chain = NULL;
	*trouble = NULL;
	if (!f.url)
		return qc2_fail(err, ENOMEM, "out of memory");
	ret = open_both(&f, top->url, src, err);
	if (!ret) {
		if (!f.ret)
			f.ret = read_chain(&f, top, limits, *src, chain);
		if (f.ret && !f.none)
			*trouble = strdup(f.err.msg);
	}
	free(f.buf);
	free(f.version);
	free(f.url);
	return ret;
}

void qc2_manifest_origin_free(struct qc2_manifest_origin *origin)
{
	if (!origin)
		return;
	qc2_digests_free(origin->digests);
	free(origin->url);
	free(origin->version);
	free(origin);
}

int qc2_manifest_fetch_digests(struct qc2_store *store,
			       const struct qc2_manifest_origin *origin,
			       struct qc2_digests **digests, struct qc2_err *err)
{
	const struct qc2_manifest_head *head = &origin->head;
	struct qc2_source *src;
	void *buf;
	int ret;

	if (!head->digests_len)
		return qc2_fail(err, ENOENT, "%s: has no digests", origin->url);
	if (head->digests_len > MAX_DIGESTS_LEN)
		return qc2_fail(err, EFBIG, "%s: %" PRIu64 " bytes of digests; %llu are allowed",
				origin->url, head->digests_len, MAX_DIGESTS_LEN);
	src = qc2_store_pinned(store, origin->url, origin->size, origin->version);
	buf = malloc(head->digests_len);
	if (src && buf)
		ret = src->ops->read(src, head->digests_offset, buf, head->digests_len, err);
	else
		ret = qc2_fail(err, ENOMEM, "%s: out of memory", origin->url);
	if (!ret) {
		ret = qc2_manifest_digests(head, buf, head->digests_len, digests, err);
		if (ret)
			qc2_fail_prefix(err, ret, "%s: ", origin->url);
	}
	free(buf);
	if (src)
		src->ops->close(src);
	return ret;
}
