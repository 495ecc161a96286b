/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Blocks of 64 KiB as they are in a regional cache: their names, and their format.
 * docs/regional-cache-format.md has both.  Pure functions on memory, but for reading the
 * file of a key.  No locks; any thread may call them.
 *
 * What comes from such a cache is not trusted: whoever may write there chooses its bytes.
 * A block is known by its digest, or, where there is none, by a tag that only those who
 * have the key can make.
 */
#ifndef QC2_REGION_BLOCK_H
#define QC2_REGION_BLOCK_H

#include <stddef.h>
#include <stdint.h>

#include "err.h"
#include "manifest.h"

#define QC2_REGION_NAME_LEN	32
#define QC2_REGION_OBJECT_LEN	32
#define QC2_REGION_HEADER	96
/* Bytes of the largest one. */
#define QC2_REGION_MAX		(QC2_REGION_HEADER + QC2_DIGEST_BLOCK)

/* A secret that hosts share; the others are told nothing by names, and believed nothing. */
struct qc2_region_key {
	char *bytes;
	size_t len;
};

/**
 * qc2_region_key_read() - read the file of a key
 * @path: at least 32 characters of text; white space at its end does not count.  It is
 *	refused if others may read or change it, see qc2_secret_read()
 * @key: to be freed with qc2_region_key_free()
 *
 * Return: 0 or a negative errno with @err naming the file.
 */
int qc2_region_key_read(const char *path, struct qc2_region_key *key, struct qc2_err *err);
void qc2_region_key_free(struct qc2_region_key *key);	/* zeroed is fine */

/**
 * qc2_region_name() - the name of a block
 * @key: NULL: none, so anybody who knows the content can tell the name
 * @digest: of the block, QC2_DIGEST_LEN bytes; NULL: not known, it is named by its place
 * @object: what identifies the object, QC2_REGION_OBJECT_LEN bytes; used without @digest
 * @block: its number in the object; used without @digest
 *
 * Return: 0 or -EIO if libcrypto fails.
 */
int qc2_region_name(const struct qc2_region_key *key, const uint8_t *digest,
		    const uint8_t *object, uint64_t block,
		    uint8_t name[QC2_REGION_NAME_LEN]);

/*
 * The URL of a name in a cache; @prefix ends in '/'.  The caller frees it; NULL: out of
 * memory.
 */
char *qc2_region_url(const char *prefix, const uint8_t name[QC2_REGION_NAME_LEN]);

/**
 * qc2_region_pack() - make what is stored
 * @digest: that it must have; NULL: any
 * @content: QC2_DIGEST_BLOCK bytes
 * @out: takes up to QC2_REGION_MAX bytes
 * @len: of it
 *
 * Return: 0; -EBADMSG: it has another digest; -EIO if libcrypto fails.
 */
int qc2_region_pack(const struct qc2_region_key *key, const uint8_t name[QC2_REGION_NAME_LEN],
		    const uint8_t *digest, const void *content, void *out, size_t *len);

/**
 * qc2_region_unpack() - check what was stored, and take the block out of it
 * @digest: that it must have; NULL, with a key only: any
 * @in: of @len bytes, which need not be aligned
 * @content: takes QC2_DIGEST_BLOCK bytes; undefined after a failure
 * @why: is told what is wrong, without any object's name
 *
 * Return: 0; -EBADMSG: it is damaged, or another block, or made by somebody without the
 * key; -ENOMEM; -EIO if libcrypto fails.
 */
int qc2_region_unpack(const struct qc2_region_key *key, const uint8_t name[QC2_REGION_NAME_LEN],
		      const uint8_t *digest, const void *in, size_t len, void *content,
		      struct qc2_err *why);

#endif
