/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The manifest of a chain: what walking the chain finds out, and digests of the
 * data, in one object beside the top image.  docs/manifest-format.md describes it.
 *
 * Everything here works on memory, without I/O, and without state; any thread may
 * call it.  A manifest is untrusted input: reading it takes nothing for granted.
 */
#ifndef QC2_MANIFEST_H
#define QC2_MANIFEST_H

#include <stddef.h>
#include <stdint.h>

#include <linux/dm-qcow2chain.h>

#include "chain.h"
#include "err.h"
#include "url.h"

/* So many bytes hold the header of a manifest, and most manifests but the digests. */
#define QC2_MANIFEST_FIRST	(256U << 10)
/* A header is no longer than that. */
#define QC2_MANIFEST_HEADER_MAX	4096U

/*
 * ---------------------------------------------------------------------------
 * Digests
 * ---------------------------------------------------------------------------
 */

/* A block is that much of an object, at a multiple of it. */
#define QC2_DIGEST_BLOCK	(QC2_BLOCK_SECTORS * 512U)
/* The first bytes of the SHA-256 of a block. */
#define QC2_DIGEST_LEN		16

/* Neighbouring blocks of an object. */
struct qc2_digest_run {
	uint32_t object;
	uint32_t block;		/* number of the first */
	uint32_t nr;
	uint32_t first;		/* position of its digest in qc2_digests.v */
};

struct qc2_digests {
	struct qc2_digest_run *runs;	/* sorted, without overlap */
	size_t nr_runs;
	uint8_t (*v)[QC2_DIGEST_LEN];
	size_t nr;
};

/**
 * qc2_digests_new() - room for the digests of all blocks with live data
 * @chain: complete
 *
 * Return: 0 or a negative errno with @err filled.  @digests are all zeros; the
 * caller frees them.
 */
int qc2_digests_new(const struct qc2_chain *chain, struct qc2_digests **digests,
		    struct qc2_err *err);
/* NULL is fine. */
void qc2_digests_free(struct qc2_digests *digests);

/* The digest of a block; NULL: there is none. */
const uint8_t *qc2_digests_find(const struct qc2_digests *digests, uint32_t object,
				uint32_t block);

/**
 * qc2_digest() - the digest of a block
 * @data: its bytes, with zeros behind the end of the object, QC2_DIGEST_BLOCK in all
 *
 * Return: 0, or -EIO if libcrypto fails.
 */
int qc2_digest(const void *data, uint8_t digest[QC2_DIGEST_LEN]);

/*
 * ---------------------------------------------------------------------------
 * Manifests
 * ---------------------------------------------------------------------------
 */

/* The manifest of a top image with that canonical URL; NULL: out of memory. */
char *qc2_manifest_url(const char *top);

/* What a manifest has, in the order in which it is written. */
enum qc2_manifest_part {
	QC2_MANIFEST_LINKS,
	QC2_MANIFEST_EXTENTS,
	QC2_MANIFEST_PACKED,
	QC2_MANIFEST_DIGEST_RUNS,
	QC2_MANIFEST_DIGESTS,
	QC2_MANIFEST_NR_PARTS,
};

/* A part as the header describes it; without @offset it is not there. */
struct qc2_manifest_section {
	uint64_t offset;	/* in the manifest, bytes */
	uint64_t stored;	/* length there */
	uint64_t unpacked;	/* length when decompressed */
	uint32_t flags;
	uint32_t crc;		/* CRC-32C of what is stored */
};

/**
 * struct qc2_manifest_head - what the header says
 * @length: of the manifest, bytes
 * @open_len: its first bytes that qc2_manifest_read() needs
 * @digests_offset: where the bytes that qc2_manifest_digests() needs are
 * @digests_len: their number; 0: the manifest has no digests
 */
struct qc2_manifest_head {
	uint64_t length;
	uint64_t open_len;
	uint64_t digests_offset;
	uint64_t digests_len;
	struct qc2_manifest_section parts[QC2_MANIFEST_NR_PARTS];
};

/**
 * struct qc2_manifest_origin - the manifest that a chain was taken from
 * @url: the object
 * @size: of it, bytes
 * @version: of it
 * @digests: if they came with the rest; else NULL, see qc2_manifest_fetch_digests()
 */
struct qc2_manifest_origin {
	char *url;
	uint64_t size;
	char *version;
	struct qc2_manifest_head head;
	struct qc2_digests *digests;
};

/* NULL is fine. */
void qc2_manifest_origin_free(struct qc2_manifest_origin *origin);

/**
 * qc2_manifest_write() - make a manifest
 * @chain: complete, and not of an internal snapshot
 * @digests: NULL: without
 * @buf: the manifest, which the caller frees
 *
 * Return: 0 or a negative errno with @err filled.
 */
int qc2_manifest_write(const struct qc2_chain *chain,
		       const struct qc2_digests *digests, void **buf, size_t *len,
		       struct qc2_err *err);

/**
 * qc2_manifest_head() - read the header
 * @buf: the first QC2_MANIFEST_HEADER_MAX bytes or more; or the whole manifest
 *
 * Return: 0 or a negative errno with @err filled: -EBADMSG if it is damaged or no
 * manifest, -ENOTSUP if it is of another version.
 */
int qc2_manifest_head(const void *buf, size_t len, struct qc2_manifest_head *head,
		      struct qc2_err *err);

/**
 * qc2_manifest_read() - rebuild the chain
 * @buf: the first @head->open_len bytes of the manifest, or more
 * @top: the image beside which it lies
 * @limits: hold for the links as they do when a chain is walked
 * @chain: complete; the caller puts it
 *
 * Whether the images are still those that the manifest speaks of is for the caller
 * to find out: they have the size and version that is in the links.
 *
 * Return: 0 or a negative errno with @err filled.
 */
int qc2_manifest_read(const struct qc2_manifest_head *head, const void *buf,
		      size_t len, const struct qc2_top *top,
		      const struct qc2_chain_limits *limits,
		      struct qc2_chain **chain, struct qc2_err *err);

/**
 * qc2_manifest_digests() - read the digests
 * @buf: @head->digests_len bytes of the manifest, from @head->digests_offset on
 *
 * Objects have the numbers that they have in the chain of this manifest.  The
 * caller frees the digests.
 *
 * Return: 0 or a negative errno with @err filled; -ENOENT if there are none.
 */
int qc2_manifest_digests(const struct qc2_manifest_head *head, const void *buf,
			 size_t len, struct qc2_digests **digests,
			 struct qc2_err *err);

#endif
