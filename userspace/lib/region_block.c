/* SPDX-License-Identifier: GPL-2.0 */
/* Blocks in a regional cache: names, packing, checking.  No state. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <zstd.h>
#include <zstd_errors.h>

#include "region_block.h"
#include "secret.h"

#define MAGIC		"QC2BLOCK"
#define VERSION		1
#define PLAIN		0
#define ZSTD		1
/* Compression that saves less than that is not worth the time to undo it. */
#define WORTH		4096
#define ZSTD_LEVEL	3

#define MIN_KEY		32
#define MAX_KEY		4096

#define SHA256_LEN	32

/* As it is stored; all numbers are little-endian. */
struct header {
	uint8_t magic[8];
	uint32_t version;
	uint32_t compression;
	uint32_t stored;		/* bytes behind the header */
	uint32_t unpacked;
	uint64_t reserved;
	uint8_t digest[SHA256_LEN];	/* of the block */
	uint8_t tag[SHA256_LEN];	/* see make_tag(); zeros without a key */
};

_Static_assert(sizeof(struct header) == QC2_REGION_HEADER, "header");

/* Each use of the key has a text of its own, with its NUL. */
static const char by_digest[] = "qcow2chain regional cache 1: block by digest";
static const char by_place[] = "qcow2chain regional cache 1: block by place";
static const char for_tag[] = "qcow2chain regional cache 1: tag";

int qc2_region_key_read(const char *path, struct qc2_region_key *key, struct qc2_err *err)
{
	int ret = qc2_secret_read(path, MAX_KEY, true, &key->bytes, &key->len, err);

	if (ret) {
		*key = (struct qc2_region_key){ 0 };
		return ret;
	}
	while (key->len && strchr(" \t\r\n", key->bytes[key->len - 1]))
		key->len--;
	if (key->len >= MIN_KEY)
		return 0;
	qc2_region_key_free(key);
	return qc2_fail(err, EINVAL,
			"%s: a key has %d characters at least; make one with \"openssl rand -hex 32\"",
			path, MIN_KEY);
}

void qc2_region_key_free(struct qc2_region_key *key)
{
	qc2_secret_free(key->bytes);
	*key = (struct qc2_region_key){ 0 };
}

/* HMAC-SHA256 over pieces, up to one that is NULL. */
struct piece {
	const void *p;
	size_t len;
};

static int hmac(const struct qc2_region_key *key, const struct piece *pieces,
		uint8_t out[SHA256_LEN])
{
	OSSL_PARAM params[] = {
		OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, (char *)"SHA256", 0),
		OSSL_PARAM_construct_end(),
	};
	EVP_MAC *mac = EVP_MAC_fetch(NULL, "HMAC", NULL);
	EVP_MAC_CTX *ctx = mac ? EVP_MAC_CTX_new(mac) : NULL;
	size_t len;
	int ok;

	ok = ctx && EVP_MAC_init(ctx, (const uint8_t *)key->bytes, key->len, params);
	for (; ok && pieces->p; pieces++)
		ok = EVP_MAC_update(ctx, pieces->p, pieces->len);
	ok = ok && EVP_MAC_final(ctx, out, &len, SHA256_LEN) && len == SHA256_LEN;
	EVP_MAC_CTX_free(ctx);
	EVP_MAC_free(mac);
	return ok ? 0 : -EIO;
}

static int sha256(const struct piece *pieces, uint8_t out[SHA256_LEN])
{
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	int ok = ctx && EVP_DigestInit_ex(ctx, EVP_sha256(), NULL);

	for (; ok && pieces->p; pieces++)
		ok = EVP_DigestUpdate(ctx, pieces->p, pieces->len);
	ok = ok && EVP_DigestFinal_ex(ctx, out, NULL);
	EVP_MD_CTX_free(ctx);
	return ok ? 0 : -EIO;
}

int qc2_region_name(const struct qc2_region_key *key, const uint8_t *digest,
		    const uint8_t *object, uint64_t block, uint8_t name[QC2_REGION_NAME_LEN])
{
	uint64_t nr = htole64(block);
	const struct piece named[] = {
		{ by_digest, sizeof(by_digest) }, { digest, QC2_DIGEST_LEN }, { NULL, 0 },
	};
	const struct piece placed[] = {
		{ by_place, sizeof(by_place) }, { object, QC2_REGION_OBJECT_LEN },
		{ &nr, sizeof(nr) }, { NULL, 0 },
	};
	const struct piece *pieces = digest ? named : placed;

	return key ? hmac(key, pieces, name) : sha256(pieces, name);
}

char *qc2_region_url(const char *prefix, const uint8_t name[QC2_REGION_NAME_LEN])
{
	char hex[2 * QC2_REGION_NAME_LEN + 1], *url;
	int i;

	for (i = 0; i < QC2_REGION_NAME_LEN; i++)
		sprintf(hex + 2 * i, "%02x", name[i]);
	return asprintf(&url, "%sv%d/%.2s/%s", prefix, VERSION, hex, hex) < 0 ? NULL : url;
}

/* Of the name, and of all that is stored but the tag itself. */
static int make_tag(const struct qc2_region_key *key, const uint8_t *name,
		    const struct header *header, const void *data, size_t len,
		    uint8_t tag[SHA256_LEN])
{
	const struct piece pieces[] = {
		{ for_tag, sizeof(for_tag) }, { name, QC2_REGION_NAME_LEN },
		{ header, offsetof(struct header, tag) }, { data, len }, { NULL, 0 },
	};

	return hmac(key, pieces, tag);
}

static int make_digest(const void *content, uint8_t digest[SHA256_LEN])
{
	const struct piece pieces[] = { { content, QC2_DIGEST_BLOCK }, { NULL, 0 } };

	return sha256(pieces, digest);
}

int qc2_region_pack(const struct qc2_region_key *key, const uint8_t name[QC2_REGION_NAME_LEN],
		    const uint8_t *digest, const void *content, void *out, size_t *len)
{
	struct header header = {
		.magic = MAGIC, .version = htole32(VERSION), .compression = htole32(ZSTD),
		.unpacked = htole32(QC2_DIGEST_BLOCK),
	};
	uint8_t *data = (uint8_t *)out + sizeof(header);
	size_t stored;
	int ret;

	ret = make_digest(content, header.digest);
	if (!ret && digest && memcmp(header.digest, digest, QC2_DIGEST_LEN))
		ret = -EBADMSG;
	if (ret)
		return ret;
	stored = ZSTD_compress(data, QC2_DIGEST_BLOCK - WORTH, content, QC2_DIGEST_BLOCK,
			       ZSTD_LEVEL);
	if (ZSTD_isError(stored)) {
		/* Mostly there is no room for what it would become. */
		memcpy(data, content, QC2_DIGEST_BLOCK);
		stored = QC2_DIGEST_BLOCK;
		header.compression = htole32(PLAIN);
	}
	header.stored = htole32(stored);
	if (key)
		ret = make_tag(key, name, &header, data, stored, header.tag);
	memcpy(out, &header, sizeof(header));
	*len = sizeof(header) + stored;
	return ret;
}

static int check_header(const struct header *header, size_t len, struct qc2_err *why)
{
	uint32_t compression = le32toh(header->compression);

	if (memcmp(header->magic, MAGIC, sizeof(header->magic)))
		return qc2_fail(why, EBADMSG, "no block of a regional cache");
	if (le32toh(header->version) != VERSION)
		return qc2_fail(why, EBADMSG, "version %u of the format, not %u",
				le32toh(header->version), VERSION);
	if (le32toh(header->unpacked) != QC2_DIGEST_BLOCK || compression > ZSTD)
		return qc2_fail(why, EBADMSG, "%u bytes, compressed by method %u, make no sense",
				le32toh(header->unpacked), compression);
	if (le32toh(header->stored) != len || (compression == PLAIN && len != QC2_DIGEST_BLOCK))
		return qc2_fail(why, EBADMSG, "%zu bytes behind the header instead of %u", len,
				compression == PLAIN ? QC2_DIGEST_BLOCK : le32toh(header->stored));
	return 0;
}

/*
 * One frame of exactly one block.  Its memory is that of the output, whatever the frame
 * says of its window.  Frames from before zstd's format was settled are refused, as they
 * would go to decoders that nobody looks after.
 */
static int unpack_zstd(const uint8_t *in, size_t len, void *content)
{
	uint32_t magic = 0;
	size_t ret;

	if (len >= sizeof(magic))
		memcpy(&magic, in, sizeof(magic));
	if (le32toh(magic) != ZSTD_MAGICNUMBER ||
	    ZSTD_getFrameContentSize(in, len) != QC2_DIGEST_BLOCK ||
	    ZSTD_findFrameCompressedSize(in, len) != len)
		return -EBADMSG;
	ret = ZSTD_decompress(content, QC2_DIGEST_BLOCK, in, len);
	if (ZSTD_isError(ret))
		return ZSTD_getErrorCode(ret) == ZSTD_error_memory_allocation ?
		       -ENOMEM : -EBADMSG;
	return ret == QC2_DIGEST_BLOCK ? 0 : -EBADMSG;
}

int qc2_region_unpack(const struct qc2_region_key *key, const uint8_t name[QC2_REGION_NAME_LEN],
		      const uint8_t *digest, const void *in, size_t len, void *content,
		      struct qc2_err *why)
{
	const uint8_t *data = (const uint8_t *)in + QC2_REGION_HEADER;
	uint8_t sum[SHA256_LEN];
	struct header header;
	int ret;

	if (!key && !digest)
		return qc2_fail(why, EBADMSG, "nothing tells what it should be");
	if (len < sizeof(header))
		return qc2_fail(why, EBADMSG, "%zu bytes, less than the header", len);
	memcpy(&header, in, sizeof(header));
	len -= sizeof(header);
	ret = check_header(&header, len, why);
	if (ret)
		return ret;
	/* With a key, nobody without it gets as far as to the decompressor. */
	ret = key ? make_tag(key, name, &header, data, len, sum) : 0;
	if (ret)
		return ret;
	if (key && CRYPTO_memcmp(sum, header.tag, sizeof(sum)))
		return qc2_fail(why, EBADMSG,
				"changed, stored under another name, or not made with this key");
	if (digest && memcmp(header.digest, digest, QC2_DIGEST_LEN))
		return qc2_fail(why, EBADMSG, "another block");
	if (le32toh(header.compression) == ZSTD)
		ret = unpack_zstd(data, len, content);
	else
		memcpy(content, data, QC2_DIGEST_BLOCK);
	if (ret)
		return ret == -EBADMSG ? qc2_fail(why, EBADMSG, "cannot be decompressed") : ret;
	ret = make_digest(content, sum);
	if (!ret && memcmp(sum, header.digest, sizeof(sum)))
		ret = qc2_fail(why, EBADMSG, "its bytes have another digest");
	return ret;
}
