/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Blocks of a regional cache.  The input has a byte that says how, and then what was
 * stored; or content, which is packed here, with changes behind it.  Without a key, the
 * digest that is wanted is the one that the header names, or nothing would get past that.
 */
#include <errno.h>

#include "fuzz.h"
#include "region_block.h"

static struct qc2_region_key key = { (char *)"0123456789abcdef0123456789abcdef", 32 };
static const uint8_t name[QC2_REGION_NAME_LEN] = "a name";

/* The same answer twice, and no block but the one that was wanted. */
static int unpack(bool keyed, const uint8_t *digest, const uint8_t *in, size_t len, uint8_t *out)
{
	static uint8_t again[QC2_DIGEST_BLOCK];
	uint8_t *copy = malloc(len ? len : 1), seen[QC2_DIGEST_LEN];
	struct qc2_err why = { "" };
	int ret;

	/* On the heap, where reading behind the end is seen. */
	assert(copy);
	memcpy(copy, in, len);
	memset(out, 1, QC2_DIGEST_BLOCK);
	ret = qc2_region_unpack(keyed ? &key : NULL, name, digest, copy, len, out, &why);
	assert(!ret || (ret == -EBADMSG && why.msg[0]));
	memset(again, 2, sizeof(again));
	assert(qc2_region_unpack(keyed ? &key : NULL, name, digest, copy, len, again, &why) == ret);
	free(copy);
	if (!ret) {
		assert(!memcmp(out, again, sizeof(again)));
		assert(!qc2_digest(out, seen));
		assert(!digest || !memcmp(seen, digest, sizeof(seen)));
	}
	return ret;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t content[QC2_DIGEST_BLOCK], out[QC2_DIGEST_BLOCK], packed[QC2_REGION_MAX];
	uint8_t digest[QC2_DIGEST_LEN] = { 0 };
	struct input in = { data, size };
	unsigned int how = take(&in, 1), nr_changes = how >> 4;
	bool keyed = how & 1, changed = false;
	size_t len, content_len, i;

	if (how & 2) {
		if (in.len >= QC2_REGION_HEADER)
			memcpy(digest, in.p + 32, sizeof(digest));
		unpack(keyed, keyed && (how & 4) ? NULL : digest, in.p, in.len, out);
		return 0;
	}
	content_len = in.len > 4 * nr_changes ? in.len - 4 * nr_changes : 0;
	/* Short inputs repeat. */
	for (i = 0; i < sizeof(content); i++)
		content[i] = content_len ? in.p[i % content_len] : 0;
	in.p += content_len;
	in.len -= content_len;
	assert(!qc2_digest(content, digest));
	assert(!qc2_region_pack(keyed ? &key : NULL, name, digest, content, packed, &len));
	assert(len <= sizeof(packed));
	assert(!unpack(keyed, keyed && (how & 4) ? NULL : digest, packed, len, out));
	assert(!memcmp(out, content, sizeof(content)));
	while (in.len >= 4) {
		uint8_t value;

		i = take(&in, 2) % len;
		value = take(&in, 1);
		changed |= packed[i] != value;
		packed[i] = value;
		if (take(&in, 1) & 1) {
			changed |= len != i + 1;
			len = i + 1;
		}
	}
	/* The tag covers every bit, and no digest but the right one is accepted. */
	if (!unpack(keyed, keyed && (how & 4) ? NULL : digest, packed, len, out))
		assert(!memcmp(out, content, sizeof(content)) && !(keyed && changed));
	return 0;
}
