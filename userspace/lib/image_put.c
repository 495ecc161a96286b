/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Writing a new image into a store.
 *
 * The journal is text: a line for the upload, "qcow2chain-upload 1 URL SIZE PART_BYTES LAYOUT
 * ID", LAYOUT being a digest of the metadata, and one for each part that was sent, "NR LEN
 * ETAG".  A last line without its end was being written, and does not count.
 *
 * Threads share struct work; its lock protects what is said to be so.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/evp.h>

#include "image_put.h"
#include "store.h"
#include "store_ops.h"

#define PART_BYTES	(8U << 20)	/* at least */
#define MAX_PARTS	9000		/* stores have 10000 */
#define MAX_THREADS	64
#define READ_BYTES	(1U << 20)	/* that are read back at once */
#define JOURNAL_MAGIC	"qcow2chain-upload"

struct work {
	struct qc2_image_put *put;
	size_t part_bytes;
	unsigned int nr_parts;
	struct qc2_upload *upload;	/* NULL: the parts are only read */
	bool resumed;			/* it is one of an earlier call */
	FILE *journal;
	struct qc2_source *src;		/* what is read back */
	pthread_mutex_t lock;
	/* Protected by @lock. */
	unsigned int next;		/* part, from 0 */
	uint64_t done, total;		/* bytes */
	int ret;			/* of the first failure */
	struct qc2_err err;
};

/*
 * ---------------------------------------------------------------------------
 * The bytes of the image
 * ---------------------------------------------------------------------------
 */

static uint64_t part_start(const struct work *w, unsigned int part)
{
	return (uint64_t)part * w->part_bytes;
}

static size_t part_len(const struct work *w, unsigned int part)
{
	uint64_t left = w->put->layout->size - part_start(w, part);

	return left < w->part_bytes ? left : w->part_bytes;
}

/* The first run that ends behind a block of the file. */
static size_t find_run(const struct qc2_layout *layout, uint64_t at)
{
	size_t lo = 0, hi = layout->nr_runs;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (layout->runs[mid].at + layout->runs[mid].nr <= at)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

/* @len bytes of the file, from @start on; all of it is in blocks. */
static int make_bytes(const struct qc2_image_put *put, uint64_t start, uint8_t *buf, size_t len,
		      struct qc2_err *err)
{
	const struct qc2_layout *layout = put->layout;
	uint64_t at = start / QC2_LAYOUT_BLOCK, end = (start + len) / QC2_LAYOUT_BLOCK;
	size_t i;
	int ret;

	memset(buf, 0, len);
	if (start < layout->head_len)
		memcpy(buf, (const uint8_t *)layout->head + start,
		       layout->head_len - start < len ? layout->head_len - start : len);
	for (i = find_run(layout, at); i < layout->nr_runs && layout->runs[i].at < end; i++) {
		const struct qc2_layout_run *run = &layout->runs[i];
		uint64_t from = run->at > at ? run->at : at;
		uint64_t to = run->at + run->nr < end ? run->at + run->nr : end;

		ret = put->read(put->arg, run->block + (from - run->at), to - from,
				buf + (from - at) * QC2_LAYOUT_BLOCK, err);
		if (ret)
			return ret;
	}
	return 0;
}

/* @buf has room for whole blocks of digests. */
static int make_digests(const struct work *w, uint64_t start, uint8_t *buf, size_t len,
			uint8_t (*digests)[QC2_DIGEST_LEN], struct qc2_err *err)
{
	size_t at;

	memset(buf + len, 0, (QC2_DIGEST_BLOCK - len % QC2_DIGEST_BLOCK) % QC2_DIGEST_BLOCK);
	for (at = 0; at < len; at += QC2_DIGEST_BLOCK) {
		if (qc2_digest(buf + at, digests[(start + at) / QC2_DIGEST_BLOCK]))
			return qc2_fail(err, EIO, "%s: libcrypto fails", w->put->url);
	}
	return 0;
}

/*
 * ---------------------------------------------------------------------------
 * Threads
 * ---------------------------------------------------------------------------
 */

static int stopped(const struct qc2_image_put *put, struct qc2_err *err)
{
	if (!put->cfg->stop || !*put->cfg->stop)
		return 0;
	return qc2_fail(err, ECANCELED, "%s: broken off", put->url);
}

/* Calls @part for one part after the other until all were, or one failed. */
struct crew {
	struct work *w;
	int (*part)(struct work *w, unsigned int part, uint8_t *buf, struct qc2_err *err);
};

static void *run_parts(void *arg)
{
	const struct crew *crew = arg;
	struct work *w = crew->w;
	uint8_t *buf = malloc(w->part_bytes + QC2_DIGEST_BLOCK);
	struct qc2_err err;
	unsigned int part;
	int ret;

	pthread_mutex_lock(&w->lock);
	if (!buf && !w->ret)
		w->ret = qc2_fail(&w->err, ENOMEM, "out of memory");
	while (!w->ret && w->next < w->nr_parts) {
		part = w->next++;
		pthread_mutex_unlock(&w->lock);
		ret = stopped(w->put, &err);
		if (!ret)
			ret = crew->part(w, part, buf, &err);
		pthread_mutex_lock(&w->lock);
		if (ret && !w->ret) {
			w->ret = ret;
			w->err = err;
		}
		w->done += part_len(w, part);
		if (!w->ret && w->put->progress)
			w->put->progress(w->put->arg, w->done, w->total);
	}
	pthread_mutex_unlock(&w->lock);
	free(buf);
	return NULL;
}

static int all_parts(struct work *w, int (*part)(struct work *w, unsigned int part,
						 uint8_t *buf, struct qc2_err *err),
		     struct qc2_err *err)
{
	struct crew crew = { w, part };
	pthread_t threads[MAX_THREADS];
	unsigned int nr = 0, max = w->put->threads;

	if (max > MAX_THREADS)
		max = MAX_THREADS;
	if (max > w->nr_parts)
		max = w->nr_parts;
	w->next = 0;
	while (nr < max && !pthread_create(&threads[nr], NULL, run_parts, &crew))
		nr++;
	if (!nr)
		run_parts(&crew);
	while (nr)
		pthread_join(threads[--nr], NULL);
	if (w->ret)
		*err = w->err;
	return w->ret;
}

/*
 * ---------------------------------------------------------------------------
 * The journal
 * ---------------------------------------------------------------------------
 */

/* What its first line says. */
struct journal_head {
	char *url, *id;
	uint64_t size;
	size_t part_bytes;
	char layout[2 * QC2_DIGEST_LEN + 1];
};

static void free_head(struct journal_head *head)
{
	free(head->url);
	free(head->id);
}

static int layout_digest(const struct qc2_layout *layout, char hex[2 * QC2_DIGEST_LEN + 1])
{
	unsigned char digest[EVP_MAX_MD_SIZE];
	unsigned int i;

	if (!EVP_Digest(layout->head, layout->head_len, digest, NULL, EVP_sha256(), NULL))
		return -EIO;
	for (i = 0; i < QC2_DIGEST_LEN; i++)
		sprintf(hex + 2 * i, "%02x", digest[i]);
	return 0;
}

/* One line without its end; NULL: there is none that is whole.  The caller frees it. */
static char *read_line(FILE *file)
{
	char *line = NULL;
	size_t room = 0;
	ssize_t len = getline(&line, &room, file);

	if (len > 0 && line[len - 1] == '\n') {
		line[len - 1] = '\0';
		return line;
	}
	free(line);
	return NULL;
}

static bool parse_head(const char *line, struct journal_head *head)
{
	int n;

	*head = (struct journal_head){ 0 };
	if (!line)
		return false;
	n = sscanf(line, JOURNAL_MAGIC " 1 %ms %" SCNu64 " %zu %32[0-9a-f] %ms", &head->url,
		   &head->size, &head->part_bytes, head->layout, &head->id);
	return n == 5;
}

/* Goes on with the upload of a journal; false: it is of another one, or of none. */
static bool go_on(struct work *w, FILE *file, const char *layout)
{
	struct qc2_image_put *put = w->put;
	char *line = read_line(file), *etag;
	struct journal_head head;
	struct qc2_err err;
	unsigned int nr;
	long end = 0;
	size_t len;
	bool ok;

	ok = parse_head(line, &head) && !strcmp(head.url, put->url) &&
	     head.size == put->layout->size && head.part_bytes == w->part_bytes &&
	     !strcmp(head.layout, layout) &&
	     !qc2_upload_resume(put->cfg, put->url, w->part_bytes, head.id, &w->upload, &err);
	free(line);
	free_head(&head);
	while (ok && (end = ftell(file)) >= 0 && (line = read_line(file))) {
		etag = NULL;
		if (sscanf(line, "%u %zu %m[^\n]", &nr, &len, &etag) >= 2 && nr &&
		    nr <= w->nr_parts && len == part_len(w, nr - 1))
			ok = !qc2_upload_set_part(w->upload, nr, etag ? etag : "", len);
		free(etag);
		free(line);
	}
	/* What follows must not become part of a line that was cut off. */
	ok = ok && end > 0 && !ftruncate(fileno(file), end) && !fseek(file, end, SEEK_SET);
	if (!ok) {
		qc2_upload_free(w->upload);
		w->upload = NULL;
	}
	return ok;
}

static int begin_journal(struct work *w, const char *layout, struct qc2_err *err)
{
	struct qc2_image_put *put = w->put;
	int fd = open(put->journal, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	w->journal = fd < 0 ? NULL : fdopen(fd, "r+");
	if (!w->journal ||
	    fprintf(w->journal, JOURNAL_MAGIC " 1 %s %" PRIu64 " %zu %s %s\n", put->url,
		    put->layout->size, w->part_bytes, layout, qc2_upload_id(w->upload)) < 0 ||
	    fflush(w->journal) || fdatasync(fd))
		return qc2_fail(err, errno, "%s: %s", put->journal, strerror(errno));
	return 0;
}

/* Under the lock, or the lines of two threads would mix. */
static int note_part(struct work *w, unsigned int nr, size_t len, struct qc2_err *err)
{
	if (!w->journal)
		return 0;
	if (fprintf(w->journal, "%u %zu %s\n", nr, len, qc2_upload_etag(w->upload, nr)) < 0 ||
	    fflush(w->journal) || fdatasync(fileno(w->journal)))
		return qc2_fail(err, errno, "%s: %s", w->put->journal, strerror(errno));
	return 0;
}

/* The upload that the journal has, or a new one. */
static int start(struct work *w, struct qc2_err *err)
{
	struct qc2_image_put *put = w->put;
	char layout[2 * QC2_DIGEST_LEN + 1];
	FILE *old;
	int ret;

	if (!put->journal)
		return qc2_upload_start(put->cfg, put->url, w->part_bytes, &w->upload, err);
	if (layout_digest(put->layout, layout))
		return qc2_fail(err, EIO, "%s: libcrypto fails", put->url);
	old = fopen(put->journal, "r+e");
	if (old && go_on(w, old, layout)) {
		w->journal = old;
		w->resumed = true;
		return 0;
	}
	if (old) {
		fclose(old);
		qc2_image_put_abort(put->cfg, put->journal, NULL);
	}
	ret = qc2_upload_start(put->cfg, put->url, w->part_bytes, &w->upload, err);
	return ret ? ret : begin_journal(w, layout, err);
}

int qc2_image_put_abort(const struct qc2_store_config *cfg, const char *journal,
			struct qc2_err *err)
{
	FILE *file = fopen(journal, "re");
	char *line = file ? read_line(file) : NULL;
	struct journal_head head;
	struct qc2_upload *upload;
	int ret = 0;

	if (parse_head(line, &head)) {
		ret = qc2_upload_resume(cfg, head.url, head.part_bytes, head.id, &upload, err);
		if (!ret) {
			ret = qc2_upload_abort(upload, err);
			qc2_upload_free(upload);
		}
		if (ret == -ENOENT)
			ret = 0;
	}
	free_head(&head);
	free(line);
	if (file)
		fclose(file);
	if (!ret)
		unlink(journal);
	return ret;
}

/*
 * ---------------------------------------------------------------------------
 * Sending, and reading back
 * ---------------------------------------------------------------------------
 */

static int send_part(struct work *w, unsigned int part, uint8_t *buf, struct qc2_err *err)
{
	struct qc2_image_put *put = w->put;
	uint64_t start = part_start(w, part);
	size_t len = part_len(w, part);
	int ret;

	ret = make_bytes(put, start, buf, len, err);
	if (!ret)
		ret = make_digests(w, start, buf, len, put->digests, err);
	if (ret || !w->upload || qc2_upload_etag(w->upload, part + 1))
		return ret;
	ret = qc2_upload_part(w->upload, part + 1, buf, len, err);
	if (ret)
		return ret;
	pthread_mutex_lock(&w->lock);
	ret = note_part(w, part + 1, len, err);
	pthread_mutex_unlock(&w->lock);
	return ret;
}

static int check_part(struct work *w, unsigned int part, uint8_t *buf, struct qc2_err *err)
{
	uint64_t start = part_start(w, part), first = start / QC2_DIGEST_BLOCK;
	uint8_t digests[READ_BYTES / QC2_DIGEST_BLOCK][QC2_DIGEST_LEN];
	size_t len = part_len(w, part), at, i, nr;
	int ret = 0;

	for (at = 0; at < len && !ret; at += nr) {
		nr = len - at < READ_BYTES ? len - at : READ_BYTES;
		ret = w->src->ops->read(w->src, start + at, buf, nr, err);
		memset(buf + nr, 0, (QC2_DIGEST_BLOCK - nr % QC2_DIGEST_BLOCK) % QC2_DIGEST_BLOCK);
		for (i = 0; i * QC2_DIGEST_BLOCK < nr && !ret; i++) {
			if (qc2_digest(buf + i * QC2_DIGEST_BLOCK, digests[i]))
				ret = qc2_fail(err, EIO, "%s: libcrypto fails", w->put->url);
			else if (memcmp(digests[i],
					w->put->digests[first + at / QC2_DIGEST_BLOCK + i],
					QC2_DIGEST_LEN))
				ret = qc2_fail(err, EBADMSG,
					       "%s: the 64 KiB at %" PRIu64 " do not read back as they were written",
					       w->put->url, start + at + i * QC2_DIGEST_BLOCK);
		}
	}
	return ret;
}

/* Whether it is in the store as a whole already: an earlier call came so far. */
static bool is_complete(const struct work *w)
{
	struct qc2_err err;
	char *version;
	uint64_t size;

	if (!w->put->journal || access(w->put->journal, F_OK) ||
	    qc2_head(w->put->cfg, w->put->url, &size, &version, &err))
		return false;
	free(version);
	return size == w->put->layout->size;
}

static int send_all(struct work *w, struct qc2_err *err)
{
	struct qc2_image_put *put = w->put;
	bool complete = is_complete(w);
	int ret;

	w->done = 0;
	w->ret = 0;
	w->resumed = false;
	ret = complete ? 0 : start(w, err);
	if (!ret)
		ret = all_parts(w, send_part, err);
	if (!ret && !complete)
		ret = qc2_upload_complete(w->upload, w->nr_parts, true, &put->version, err);
	/* Without a journal nobody comes back to it. */
	if (ret && w->upload && !put->journal)
		qc2_upload_abort(w->upload, NULL);
	qc2_upload_free(w->upload);
	w->upload = NULL;
	if (w->journal)
		fclose(w->journal);
	w->journal = NULL;
	return ret;
}

static int read_back(struct work *w, struct qc2_err *err)
{
	struct qc2_image_put *put = w->put;
	struct qc2_store *store = qc2_store_new(put->cfg);
	struct qc2_opener *opener;
	int ret;

	if (!store)
		return qc2_fail(err, ENOMEM, "out of memory");
	opener = qc2_store_opener(store);
	ret = opener->open(opener, put->url, &w->src, err);
	if (!ret) {
		if (w->src->size != put->layout->size)
			ret = qc2_fail(err, EBADMSG,
				       "%s: has %" PRIu64 " bytes, and %" PRIu64 " were written",
				       put->url, w->src->size, put->layout->size);
		if (!ret)
			ret = all_parts(w, check_part, err);
		free(put->version);
		put->version = strdup(w->src->version);
		if (!ret && !put->version)
			ret = qc2_fail(err, ENOMEM, "out of memory");
		w->src->ops->close(w->src);
	}
	qc2_store_free(store);
	return ret;
}

int qc2_image_put(struct qc2_image_put *put, struct qc2_err *err)
{
	uint64_t size = put->layout->size, mib = 1 << 20;
	struct work w = {
		.put = put, .part_bytes = PART_BYTES, .total = 2 * size,
		.lock = PTHREAD_MUTEX_INITIALIZER,
	};
	int ret;

	if (size / MAX_PARTS >= w.part_bytes)
		w.part_bytes = (size / MAX_PARTS / mib + 1) * mib;
	w.nr_parts = (size + w.part_bytes - 1) / w.part_bytes;
	put->nr_digests = (size + QC2_DIGEST_BLOCK - 1) / QC2_DIGEST_BLOCK;
	put->version = NULL;
	put->digests = calloc(put->nr_digests, sizeof(*put->digests));
	ret = put->digests ? send_all(&w, err) : qc2_fail(err, ENOMEM, "out of memory");
	/* The store has thrown away what there was of it. */
	if (ret == -ENOENT && w.resumed) {
		unlink(put->journal);
		ret = send_all(&w, err);
	}
	if (!ret)
		ret = read_back(&w, err);
	if (!ret && put->journal)
		unlink(put->journal);
	if (ret) {
		free(put->digests);
		free(put->version);
		put->digests = NULL;
		put->version = NULL;
	}
	return ret;
}
