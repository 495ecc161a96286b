/* SPDX-License-Identifier: GPL-2.0 */
/*
 * chainctl publish: writes the manifest of a chain.  The chain is walked, whatever
 * manifest there is, and the live data is read for its digests.
 *
 * The thread that runs the verb owns everything but while the readers run: then
 * @lock protects what is said to be so, each reader owns the piece that it took and
 * the digests of its blocks, and nothing else changes.
 */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "access.h"
#include "chain_read.h"
#include "manifest.h"
#include "store_ops.h"

#define SCHEMA		1
#define NR_READERS	8
/* One read, in blocks, at a multiple of that; and what it may read for nothing. */
#define PIECE_BLOCKS	64U
#define GAP_BLOCKS	4U

struct publishing {
	const struct qc2_chain *chain;
	struct qc2_store *store;
	struct qc2_digests *digests;
	pthread_mutex_t lock;
	/* Protected by @lock. */
	size_t run;			/* the next blocks to read: in this run ... */
	uint32_t block;			/* ... from this one on, if it is not before it */
	size_t nr_done;			/* blocks */
	int ret;			/* of the first failure */
	struct qc2_err err;
};

/* Blocks of an object that one reader reads at once. */
struct piece {
	uint32_t object;
	uint32_t from, to;
	uint32_t nr;			/* that have a digest now */
	uint8_t *buf;			/* their bytes */
};

/*
 * ---------------------------------------------------------------------------
 * Reading
 * ---------------------------------------------------------------------------
 */

/* Makes the digests of those blocks of a piece that shall have one. */
static int digest_piece(struct publishing *pub, struct piece *piece, struct qc2_err *err)
{
	const struct qc2_digests *d = pub->digests;

	for (uint32_t block = piece->from; block < piece->to; block++) {
		const uint8_t *place = qc2_digests_find(d, piece->object, block);

		if (!place)
			continue;	/* read with its neighbours */
		if (qc2_digest(piece->buf + (size_t)(block - piece->from) * QC2_DIGEST_BLOCK,
			       d->v[(place - d->v[0]) / QC2_DIGEST_LEN]))
			return qc2_fail(err, EIO, "SHA-256 failed in libcrypto");
		piece->nr++;
	}
	return 0;
}

static int read_piece(struct publishing *pub, struct piece *piece, struct qc2_err *err)
{
	int ret;

	ret = qc2_object_read(pub->chain, pub->store, piece->object,
			      (uint64_t)piece->from * QC2_DIGEST_BLOCK, piece->buf,
			      (size_t)(piece->to - piece->from) * QC2_DIGEST_BLOCK, err);
	return ret ? ret : digest_piece(pub, piece, err);
}

/* The next piece; false if there is none, or something has failed. */
static bool take_piece(struct publishing *pub, struct piece *piece)
{
	const struct qc2_digests *d = pub->digests;
	const struct qc2_digest_run *run;
	uint32_t limit;

	if (pub->ret || pub->run == d->nr_runs)
		return false;
	run = &d->runs[pub->run];
	piece->nr = 0;
	piece->object = run->object;
	piece->from = pub->block > run->block ? pub->block : run->block;
	limit = piece->from - piece->from % PIECE_BLOCKS + PIECE_BLOCKS;
	for (piece->to = piece->from; ; run++, pub->run++) {
		if (pub->run == d->nr_runs || run->object != piece->object ||
		    run->block >= limit ||
		    (piece->to > piece->from && run->block > piece->to + GAP_BLOCKS))
			break;
		piece->to = run->block + run->nr;
		if (piece->to > limit) {
			piece->to = limit;
			break;
		}
	}
	pub->block = pub->run < d->nr_runs && run->object == piece->object ? piece->to : 0;
	return true;
}

static void *reader(void *arg)
{
	struct publishing *pub = arg;
	struct qc2_err err;
	struct piece piece;
	int ret = 0;

	piece.buf = malloc((size_t)PIECE_BLOCKS * QC2_DIGEST_BLOCK);
	pthread_mutex_lock(&pub->lock);
	while (piece.buf && take_piece(pub, &piece)) {
		pthread_mutex_unlock(&pub->lock);
		ret = read_piece(pub, &piece, &err);
		pthread_mutex_lock(&pub->lock);
		if (ret && !pub->ret) {
			pub->ret = ret;
			pub->err = err;
		}
		pub->nr_done += piece.nr;
		out_progress("reading", pub->nr_done * QC2_DIGEST_BLOCK,
			     pub->digests->nr * QC2_DIGEST_BLOCK, "");
	}
	if (!piece.buf && !pub->ret)
		pub->ret = qc2_fail(&pub->err, ENOMEM, "out of memory");
	pthread_mutex_unlock(&pub->lock);
	free(piece.buf);
	return NULL;
}

static int make_digests(struct publishing *pub, struct qc2_err *err)
{
	pthread_t threads[NR_READERS];
	size_t nr = 0;
	int ret;

	ret = qc2_digests_new(pub->chain, &pub->digests, err);
	if (ret)
		return ret;
	while (nr < NR_READERS && !pthread_create(&threads[nr], NULL, reader, pub))
		nr++;
	if (!nr)
		reader(pub);
	while (nr)
		pthread_join(threads[--nr], NULL);
	out_progress_end();
	if (pub->ret)
		*err = pub->err;
	return pub->ret;
}

/*
 * ---------------------------------------------------------------------------
 * Writing
 * ---------------------------------------------------------------------------
 */

static int compare_file(const char *path, const void *buf, size_t len, struct qc2_err *err)
{
	FILE *file = fopen(path, "re");
	char *copy = malloc(len + 1);
	size_t got = 0;

	if (file && copy)
		got = fread(copy, 1, len + 1, file);
	if (file)
		fclose(file);
	if (got == len && !memcmp(copy, buf, len)) {
		free(copy);
		return 0;
	}
	free(copy);
	return qc2_fail(err, EIO, "%s: what was written does not read back", path);
}

static int compare_url(struct qc2_store *store, const char *url, const void *buf,
		       size_t len, struct qc2_err *err)
{
	struct qc2_opener *opener = qc2_store_opener(store);
	struct qc2_source *src;
	char *copy;
	int ret;

	ret = opener->open(opener, url, &src, err);
	if (ret)
		return qc2_fail_prefix(err, ret, "what was written does not read back: ");
	copy = malloc(len);
	if (src->size != len)
		ret = qc2_fail(err, EIO, "%s: %zu bytes were written, it has %" PRIu64, url,
			       len, src->size);
	else if (!copy)
		ret = qc2_fail(err, ENOMEM, "out of memory");
	else
		ret = src->ops->read(src, 0, copy, len, err);
	if (!ret && memcmp(copy, buf, len))
		ret = qc2_fail(err, EIO, "%s: what was written does not read back", url);
	free(copy);
	src->ops->close(src);
	return ret;
}

static int report(struct ctl *ctl, const struct publishing *pub, const char *where,
		  const void *buf, size_t len, struct qc2_err *err)
{
	const struct qc2_chain *chain = pub->chain;
	size_t nr_digests = pub->digests ? pub->digests->nr : 0;
	char a[OUT_SIZE_LEN], b[OUT_SIZE_LEN];
	struct qc2_manifest_head head;
	int ret;

	ret = qc2_manifest_head(buf, len, &head, err);
	if (ret)
		return ret;
	if (ctl->json)
		return out_json(json_pack("{si ss ss sI sI sI sI sI}", "schema", SCHEMA,
					  "url", ctl->arg[0], "manifest", where,
					  "bytes", (json_int_t)len, "open_bytes",
					  (json_int_t)head.open_len, "depth",
					  (json_int_t)chain->nr_links, "extents",
					  (json_int_t)chain->index->nr_extents, "digests",
					  (json_int_t)nr_digests), err);
	out_text(stdout, where);
	printf(": %zu links, %zu extents, %zu digests, %s, of which %s open the chain\n",
	       chain->nr_links, chain->index->nr_extents, nr_digests, out_size(a, len),
	       out_size(b, head.open_len));
	return 0;
}

static int write_manifest(struct ctl *ctl, const struct chain_access *access,
			  const struct publishing *pub, struct qc2_err *err)
{
	char *url = qc2_manifest_url(pub->chain->links[0].url);
	void *buf;
	size_t len;
	int ret;

	if (!url)
		return qc2_fail(err, ENOMEM, "out of memory");
	ret = qc2_manifest_write(pub->chain, pub->digests, &buf, &len, err);
	if (ret)
		goto out;
	if (ctl->output) {
		ret = qc2_put_file(ctl->output, buf, len, err);
		if (!ret)
			ret = compare_file(ctl->output, buf, len, err);
	} else {
		ret = qc2_put(&access->cfg, url, buf, len, NULL, NULL, err);
		if (!ret)
			ret = compare_url(access->store, url, buf, len, err);
	}
	if (!ret)
		ret = report(ctl, pub, ctl->output ? ctl->output : url, buf, len, err);
	free(buf);
out:
	free(url);
	return ret;
}

int chain_publish(struct ctl *ctl, struct qc2_err *err)
{
	struct publishing pub = { .lock = PTHREAD_MUTEX_INITIALIZER };
	struct chain_access access;
	struct qc2_chain *chain;
	int ret;

	ret = chain_access(ctl, &access, err);
	if (ret)
		return ret;
	access.limits.no_manifest = true;
	ret = qc2_chain_open(qc2_store_opener(access.store), ctl->arg[0], &access.limits,
			     &chain, err);
	if (!ret) {
		pub.chain = chain;
		pub.store = access.store;
		/* Before hours of reading. */
		if (chain->snapshot)
			ret = qc2_fail(err, EBADARG,
				"%s: a manifest is for an image as it is, not for an internal snapshot of it",
				ctl->arg[0]);
		if (!ret && !ctl->no_digests)
			ret = make_digests(&pub, err);
		if (!ret)
			ret = write_manifest(ctl, &access, &pub, err);
		qc2_digests_free(pub.digests);
		qc2_chain_put(chain);
	}
	qc2_store_free(access.store);
	return ret;
}
