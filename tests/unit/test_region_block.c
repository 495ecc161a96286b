/* SPDX-License-Identifier: GPL-2.0 */
/* Blocks of a regional cache: names, what goes in comes out, and nothing else does. */
#include <endian.h>
#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include <zstd.h>

#include "region_block.h"
#include "testing.h"

#define BLOCK	QC2_DIGEST_BLOCK

static struct qc2_region_key key = { (char *)"0123456789abcdef0123456789abcdef", 32 };
static struct qc2_region_key other_key = { (char *)"0123456789abcdef0123456789abcdeg", 32 };
static uint8_t object[QC2_REGION_OBJECT_LEN] = "an object";
static uint8_t text[BLOCK], noise[BLOCK], out[BLOCK];
static uint8_t text_digest[QC2_DIGEST_LEN], noise_digest[QC2_DIGEST_LEN];

static int setup_all(void **state)
{
	uint64_t random = 1;
	unsigned int i;

	for (i = 0; i < BLOCK; i++) {
		text[i] = "some text "[i % 10] + i / 4096;
		noise[i] = test_random(&random);
	}
	return qc2_digest(text, text_digest) || qc2_digest(noise, noise_digest);
}

static void name_of(const struct qc2_region_key *k, const uint8_t *digest, uint64_t nr,
		    uint8_t *name)
{
	assert_int_equal(qc2_region_name(k, digest, object, nr, name), 0);
}

static void test_names(void **state)
{
	uint8_t names[6][QC2_REGION_NAME_LEN];
	char *url;
	int i, n;

	name_of(NULL, text_digest, 1, names[0]);
	name_of(&key, text_digest, 1, names[1]);
	name_of(&other_key, text_digest, 1, names[2]);
	name_of(&key, noise_digest, 1, names[3]);
	name_of(&key, NULL, 1, names[4]);
	name_of(&key, NULL, 1 + (1ULL << 32), names[5]);
	for (i = 0; i < 6; i++)
		for (n = 0; n < i; n++)
			assert_memory_not_equal(names[i], names[n], QC2_REGION_NAME_LEN);
	/* Content is the same wherever it is. */
	name_of(&key, text_digest, 7, names[5]);
	assert_memory_equal(names[1], names[5], QC2_REGION_NAME_LEN);
	memset(names[0], 0xa5, QC2_REGION_NAME_LEN);
	url = qc2_region_url("s3://bucket/x/", names[0]);
	assert_string_equal(url, "s3://bucket/x/v1/a5/a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5");
	free(url);
}

/* Names that hosts of another version must find, too; made by other programs. */
static void test_known_names(void **state)
{
	static const uint8_t digest[QC2_DIGEST_LEN] = "0123456789abcdef";
	uint8_t name[QC2_REGION_NAME_LEN];
	char *url;

	/* printf 'qcow2chain regional cache 1: block by digest\0000123456789abcdef' | sha256sum */
	name_of(NULL, digest, 0, name);
	url = qc2_region_url("", name);
	assert_string_equal(url, "v1/ae/aed911cca046ac782842ce5d51e6bb1e2c7933dde7ba614980875108ea985775");
	free(url);
	/* the same | openssl dgst -sha256 -hmac 0123456789abcdef0123456789abcdef */
	name_of(&key, digest, 0, name);
	url = qc2_region_url("", name);
	assert_string_equal(url, "v1/96/9693593f389cabd4570070167b42ce3aacd04d56a307fce29369d9d67f82fb1c");
	free(url);
}

static int unpack(const struct qc2_region_key *k, const uint8_t *name, const uint8_t *digest,
		  const uint8_t *in, size_t len, struct qc2_err *why)
{
	uint8_t *copy = malloc(len ? len : 1);	/* reading behind its end is seen */
	int ret;

	memcpy(copy, in, len);
	memset(out, 0xee, sizeof(out));
	why->msg[0] = '\0';
	ret = qc2_region_unpack(k, name, digest, copy, len, out, why);
	free(copy);
	assert_true(!ret || why->msg[0]);
	return ret;
}

static void test_round(void **state)
{
	const struct qc2_region_key *keys[] = { NULL, &key };
	uint8_t packed[QC2_REGION_MAX], name[QC2_REGION_NAME_LEN];
	struct qc2_err why;
	size_t len;
	int i;

	for (i = 0; i < 2; i++) {
		name_of(keys[i], text_digest, 0, name);
		assert_int_equal(qc2_region_pack(keys[i], name, NULL, text, packed, &len), 0);
		assert_true(len < BLOCK / 8);
		assert_ok(unpack(keys[i], name, text_digest, packed, len, &why), why);
		assert_memory_equal(out, text, BLOCK);

		name_of(keys[i], noise_digest, 0, name);
		assert_int_equal(qc2_region_pack(keys[i], name, NULL, noise, packed, &len), 0);
		assert_int_equal(len, QC2_REGION_MAX);
		assert_ok(unpack(keys[i], name, noise_digest, packed, len, &why), why);
		assert_memory_equal(out, noise, BLOCK);
	}
	assert_int_equal(qc2_region_pack(NULL, name, noise_digest, text, packed, &len), -EBADMSG);
	assert_int_equal(qc2_region_pack(NULL, name, text_digest, text, packed, &len), 0);
	/* With a key the tag says enough; without one nothing would. */
	name_of(&key, NULL, 3, name);
	assert_int_equal(qc2_region_pack(&key, name, NULL, text, packed, &len), 0);
	assert_ok(unpack(&key, name, NULL, packed, len, &why), why);
	assert_memory_equal(out, text, BLOCK);
	assert_int_equal(unpack(NULL, name, NULL, packed, len, &why), -EBADMSG);
}

/* Any bit, any length; with a digest, and with nothing but the tag. */
static void damage(const uint8_t *content, const struct qc2_region_key *k, const uint8_t *digest)
{
	uint8_t packed[QC2_REGION_MAX], name[QC2_REGION_NAME_LEN];
	uint64_t random = 7;
	struct qc2_err why;
	size_t len, at;
	int i;

	name_of(k, digest, 0, name);
	assert_int_equal(qc2_region_pack(k, name, NULL, content, packed, &len), 0);
	for (i = 0; i < 400; i++) {
		uint8_t bit = 1 << test_random(&random) % 8;

		at = i < QC2_REGION_HEADER ? (size_t)i : test_random(&random) % len;
		/* Nobody looks at these without a key. */
		if (!k && ((at >= 24 && at < 32) || (at >= 64 && at < 96)))
			continue;
		packed[at] ^= bit;
		assert_int_equal(unpack(k, name, digest, packed, len, &why), -EBADMSG);
		packed[at] ^= bit;
	}
	for (at = 0; at < len; at += at < 200 ? 1 : 1 + len / 100)
		assert_int_equal(unpack(k, name, digest, packed, at, &why), -EBADMSG);
	assert_ok(unpack(k, name, digest, packed, len, &why), why);
}

static void test_damage(void **state)
{
	damage(text, NULL, text_digest);
	damage(noise, NULL, noise_digest);
	damage(text, &key, text_digest);
	damage(text, &key, NULL);
	damage(noise, &key, NULL);
}

static void test_foreign(void **state)
{
	uint8_t packed[QC2_REGION_MAX + 1], name[QC2_REGION_NAME_LEN], other[QC2_REGION_NAME_LEN];
	struct qc2_err why;
	size_t len;

	/* Another block under the name of this one. */
	name_of(NULL, text_digest, 0, name);
	assert_int_equal(qc2_region_pack(NULL, name, NULL, noise, packed, &len), 0);
	assert_int_equal(unpack(NULL, name, text_digest, packed, len, &why), -EBADMSG);
	assert_in(why.msg, "another block");
	/* One of another place, of those whose digests are not known. */
	name_of(&key, NULL, 1, name);
	name_of(&key, NULL, 2, other);
	assert_int_equal(qc2_region_pack(&key, name, NULL, text, packed, &len), 0);
	assert_int_equal(unpack(&key, other, NULL, packed, len, &why), -EBADMSG);
	assert_in(why.msg, "another name");
	/* By somebody with another key, or without one. */
	assert_int_equal(unpack(&other_key, name, NULL, packed, len, &why), -EBADMSG);
	assert_int_equal(qc2_region_pack(NULL, name, NULL, text, packed, &len), 0);
	assert_int_equal(unpack(&key, name, text_digest, packed, len, &why), -EBADMSG);
	assert_in(why.msg, "not made with this key");
	/* Longer. */
	packed[len] = 0;
	assert_int_equal(unpack(NULL, name, text_digest, packed, len + 1, &why), -EBADMSG);
}

/* A frame of another size than a block, one of two, and one with something behind it. */
static void test_frames(void **state)
{
	uint8_t packed[QC2_REGION_MAX], name[QC2_REGION_NAME_LEN];
	uint8_t *large = calloc(1, 64 << 20);
	struct qc2_err why;
	uint32_t stored;
	size_t len, n;

	name_of(NULL, text_digest, 0, name);
	assert_int_equal(qc2_region_pack(NULL, name, NULL, text, packed, &len), 0);
	n = ZSTD_compress(packed + QC2_REGION_HEADER, BLOCK, large, 64 << 20, 3);
	assert_false(ZSTD_isError(n));
	stored = htole32(n);
	memcpy(packed + 16, &stored, sizeof(stored));
	assert_int_equal(unpack(NULL, name, text_digest, packed, QC2_REGION_HEADER + n, &why),
			 -EBADMSG);
	assert_in(why.msg, "decompressed");
	n = ZSTD_compress(packed + QC2_REGION_HEADER, BLOCK, text, BLOCK / 2, 3);
	n += ZSTD_compress(packed + QC2_REGION_HEADER + n, BLOCK - n, text + BLOCK / 2, BLOCK / 2,
			   3);
	stored = htole32(n);
	memcpy(packed + 16, &stored, sizeof(stored));
	assert_int_equal(unpack(NULL, name, text_digest, packed, QC2_REGION_HEADER + n, &why),
			 -EBADMSG);
	/* Behind it a frame that readers skip. */
	assert_int_equal(qc2_region_pack(NULL, name, NULL, text, packed, &len), 0);
	memcpy(packed + len, "\x50\x2a\x4d\x18\0\0\0\0", 8);
	stored = htole32(len - QC2_REGION_HEADER + 8);
	memcpy(packed + 16, &stored, sizeof(stored));
	assert_int_equal(unpack(NULL, name, text_digest, packed, len + 8, &why), -EBADMSG);
	assert_int_equal(qc2_region_pack(NULL, name, NULL, text, packed, &len), 0);
	stored = htole32(len - QC2_REGION_HEADER + 1);
	memcpy(packed + 16, &stored, sizeof(stored));
	packed[len] = 0;
	assert_int_equal(unpack(NULL, name, text_digest, packed, len + 1, &why), -EBADMSG);
	free(large);
}

static void write_key(const char *path, const char *bytes, mode_t mode)
{
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	assert_true(fputs(bytes, f) >= 0);
	assert_int_equal(fclose(f), 0);
	assert_int_equal(chmod(path, mode), 0);
}

static void test_key_file(void **state)
{
	char path[] = "/tmp/qc2-key.XXXXXX";
	struct qc2_region_key read;
	struct qc2_err err;

	close(mkstemp(path));
	write_key(path, "0123456789abcdef0123456789abcdef\n", 0600);
	assert_ok(qc2_region_key_read(path, &read, &err), err);
	assert_int_equal(read.len, 32);
	assert_memory_equal(read.bytes, key.bytes, 32);
	qc2_region_key_free(&read);
	write_key(path, "0123456789abcdef0123456789abcde \n", 0600);
	assert_int_equal(qc2_region_key_read(path, &read, &err), -EINVAL);
	assert_in(err.msg, path);
	assert_not_in(err.msg, "0123456789");
	write_key(path, "0123456789abcdef0123456789abcdef\n", 0644);
	assert_int_equal(qc2_region_key_read(path, &read, &err), -EPERM);
	unlink(path);
	assert_int_equal(qc2_region_key_read(path, &read, &err), -ENOENT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_known_names),
		cmocka_unit_test(test_round),
		cmocka_unit_test(test_damage),
		cmocka_unit_test(test_foreign),
		cmocka_unit_test(test_frames),
		cmocka_unit_test(test_key_file),
	};

	return cmocka_run_group_tests(tests, setup_all, NULL);
}
