/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A manifest beside http://h/i/a.  The input has a byte that says how it is read, and
 * the manifest.  Checksums and its length are put right, if that byte says so, or a
 * mutation would hardly get behind them.
 */
#include "chains.h"
#include "crc32c.h"
#include "fuzz.h"
#include "manifest.h"
#include "manifest_format.h"

static void seal(uint8_t *data, size_t size)
{
	struct manifest_header h;
	uint32_t nr;

	if (size < sizeof(h))
		return;
	memcpy(&h, data, sizeof(h));
	h.length = htole64(size);
	h.checksum = 0;
	memcpy(data, &h, sizeof(h));
	nr = le32toh(h.nr_sections);
	for (uint32_t i = 0; i < nr; i++) {
		struct manifest_section s;
		size_t at = sizeof(h) + i * sizeof(s);
		uint64_t offset, stored;

		if (at + sizeof(s) > size || i == MANIFEST_MAX_SECTIONS)
			break;
		memcpy(&s, data + at, sizeof(s));
		offset = le64toh(s.offset);
		stored = le64toh(s.stored);
		if (stored > size || offset > size - stored)
			continue;
		s.crc = htole32(qc2_crc32c(0, data + offset, stored));
		memcpy(data + at, &s, sizeof(s));
	}
	if (le32toh(h.header_len) <= size) {
		h.checksum = htole32(qc2_crc32c(0, data, le32toh(h.header_len)));
		memcpy(data, &h, sizeof(h));
	}
}

/* On the heap, where reading behind the end is seen. */
static uint8_t *copy_of(const uint8_t *data, size_t len)
{
	uint8_t *copy = malloc(len ? len : 1);

	assert(copy);
	memcpy(copy, data, len);
	return copy;
}

/* A list of nothing may be NULL. */
static bool same_bytes(const void *a, const void *b, size_t len)
{
	return !len || !memcmp(a, b, len);
}

static void same_chain(const struct qc2_chain *a, const struct qc2_chain *b)
{
	assert(!memcmp(a->id, b->id, sizeof(a->id)));
	assert(a->nr_links == b->nr_links && a->nr_sectors == b->nr_sectors);
	assert(a->index->nr_extents == b->index->nr_extents);
	assert(same_bytes(a->index->extents, b->index->extents,
			  a->index->nr_extents * sizeof(*a->index->extents)));
	for (size_t i = 0; i < a->nr_links; i++) {
		const struct qc2_packed *x = a->links[i].packed, *y = b->links[i].packed;

		assert(!strcmp(a->links[i].url, b->links[i].url));
		assert(!strcmp(a->links[i].version, b->links[i].version));
		assert(a->links[i].live_sectors == b->links[i].live_sectors);
		/* Of links with a live one. */
		assert(!y || (x && x->nr == y->nr &&
			      same_bytes(x->v, y->v, x->nr * sizeof(*x->v))));
	}
}

/* What is written of a chain is that chain, and its digests. */
static void write_again(const struct qc2_chain *chain, const struct qc2_digests *digests,
			const struct qc2_top *top, const struct qc2_chain_limits *limits)
{
	struct qc2_manifest_head head;
	struct qc2_digests *d;
	struct qc2_chain *again;
	struct qc2_err err;
	uint8_t *buf;
	size_t len;

	assert(!qc2_manifest_write(chain, digests, (void **)&buf, &len, &err));
	assert(!qc2_manifest_head(buf, len, &head, &err));
	assert(head.length == len && head.open_len <= len);
	assert(!qc2_manifest_read(&head, buf, head.open_len, top, limits, &again, &err));
	same_chain(chain, again);
	if (digests) {
		assert(!qc2_manifest_digests(&head, buf + head.digests_offset,
					     head.digests_len, &d, &err));
		assert(d->nr == digests->nr && d->nr_runs == digests->nr_runs);
		assert(same_bytes(d->v, digests->v, d->nr * QC2_DIGEST_LEN));
		qc2_digests_free(d);
	}
	qc2_chain_put(again);
	free(buf);
}

static void check_digests(const struct qc2_digests *d)
{
	size_t nr = 0;

	for (size_t i = 0; i < d->nr_runs; i++) {
		const struct qc2_digest_run *run = &d->runs[i];

		assert(run->first == nr);
		nr += run->nr;
		assert(qc2_digests_find(d, run->object, run->block) == d->v[run->first]);
		assert(qc2_digests_find(d, run->object, run->block + run->nr - 1) ==
		       d->v[nr - 1]);
	}
	assert(nr == d->nr);
}

/* The digests of a manifest, or NULL. */
static struct qc2_digests *read_digests(const struct qc2_manifest_head *head,
					const uint8_t *data, size_t len)
{
	struct qc2_digests *digests = NULL;
	struct qc2_err err = { "" };
	uint8_t *part;

	if (head->digests_offset > len || head->digests_len > len - head->digests_offset)
		return NULL;
	part = copy_of(data + head->digests_offset, head->digests_len);
	if (!qc2_manifest_digests(head, part, head->digests_len, &digests, &err))
		check_digests(digests);
	else
		assert(err.msg[0]);
	free(part);
	return digests;
}

static void read_manifest(const uint8_t *data, size_t len, const struct qc2_top *top,
			  const struct qc2_chain_limits *limits)
{
	struct qc2_manifest_head head;
	struct qc2_err err = { "" };
	struct qc2_digests *digests;
	struct qc2_chain *chain;
	size_t open_len;
	uint8_t *part;

	if (qc2_manifest_head(data, len, &head, &err)) {
		assert(err.msg[0]);
		return;
	}
	open_len = head.open_len < len ? head.open_len : len;
	part = copy_of(data, open_len);
	if (!qc2_manifest_read(&head, part, open_len, top, limits, &chain, &err)) {
		check_chain(chain, limits);
		digests = read_digests(&head, data, len);
		write_again(chain, digests, top, limits);
		qc2_digests_free(digests);
		qc2_chain_put(chain);
	} else {
		assert(err.msg[0]);
	}
	free(part);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const allow[] = { "http://h/" };
	struct input in = { data, size };
	unsigned int how = take(&in, 1);
	struct qc2_top top = { .url = (char *)"http://h/i/a", .raw = how & 2 };
	struct qc2_chain_limits limits = {
		.max_depth = how & 4 ? 3 : 100,
		.allow = allow,
		.nr_allow = how & 8 ? 1 : 0,
	};
	uint8_t *copy = copy_of(in.p, in.len);

	if (how & 1)
		seal(copy, in.len);
	read_manifest(copy, in.len, &top, &limits);
	free(copy);
	return 0;
}
