/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Manifests: what is read is what was walked; what is damaged, stale or a lie is
 * refused, and the chain is walked then.
 */
#include <errno.h>

#include <zstd.h>

#include "chain.h"
#include "crc32c.h"
#include "image.h"
#include "manifest.h"
#include "manifest_format.h"
#include "qcow2.h"
#include "testing.h"

#define DIR	"http://host/images/"
#define OTHER	"http://host/other/"

static struct image images[32];
static char names[32][64];
static size_t nr_images;
static const char *version = "\"v1\"";	/* of all that is opened */

static int open_image(struct qc2_opener *opener, const char *url,
		      struct qc2_source **src, struct qc2_err *err)
{
	for (size_t i = 0; i < nr_images; i++)
		if (!strcmp(images[i].url, url)) {
			*src = mem_open(&images[i]);
			free((*src)->version);
			(*src)->version = strdup(version);
			return 0;
		}
	return qc2_fail(err, ENOENT, "%s: not found", url);
}

static struct qc2_opener opener = { .open = open_image };

static const char *const allow[] = { OTHER };
static struct qc2_chain_limits limits = { .max_depth = 100, .allow = allow, .nr_allow = 1 };

static int reset(void **state)
{
	memset(&mem_count, 0, sizeof(mem_count));
	version = "\"v1\"";
	limits.max_depth = 100;
	limits.nr_allow = 1;
	return 0;
}

static int drop_images(void **state)
{
	while (nr_images)
		image_free(&images[--nr_images]);
	/* Nothing stays open, whatever happened. */
	assert_int_equal(mem_count.opens, mem_count.closes);
	return 0;
}

static struct image *add_image(const char *folder, const char *name)
{
	struct image *img = &images[nr_images];

	snprintf(names[nr_images], sizeof(names[0]), "%s%s", folder, name);
	memset(img, 0, sizeof(*img));
	img->url = names[nr_images++];
	return img;
}

static struct image *add_object(const char *folder, const char *name, uint64_t size)
{
	struct image *img = add_image(folder, name);

	img->size = size;
	img->data = calloc(1, size ? size : 1);
	return img;
}

static struct image *add_qcow2(const char *folder, const char *name, unsigned int bits,
			       uint64_t size, uint64_t clusters, const char *backing,
			       const char *format)
{
	struct image *img = add_image(folder, name);
	const char *url = img->url;

	*img = image_new(url, 3, bits, size, clusters);
	put64(img, 1ULL << bits, 2ULL << bits);
	if (backing)
		image_backing(img, backing, format);
	return img;
}

/* Entries of an L2 table in cluster 2: data, zeros, compressed, or nothing. */
static void scribble(struct image *img, unsigned int bits, uint64_t size, uint64_t *state)
{
	uint64_t entries = (size + (1 << bits) - 1) >> bits, host = 3, i;

	for (i = 0; i < entries; i++) {
		uint64_t place = (2ULL << bits) + 8 * i;

		switch (test_random(state) % 6) {
		case 0:
			put64(img, place, 1);
			break;
		case 1:		/* one sector, or a bit more */
			put64(img, place, 1ULL << 62 | (3ULL << bits) |
			      (test_random(state) % (5 << bits)));
			break;
		case 2:
		case 3:
			if ((host + 1) << bits > img->size)
				break;
			put64(img, place, host << bits);
			host += 1 + test_random(state) % 3;
		}
	}
}

/* A chain of 1 to 6 links, the top of which is DIR "l0". */
static void make_chain(uint64_t *state)
{
	static const char *const link_names[] = { "l0", "l1", "l2", "l3", "l4", "l5" };
	unsigned int nr = 1 + test_random(state) % 6, i;
	bool raw = test_random(state) % 2;

	for (i = 0; i < nr; i++) {
		unsigned int bits = 10 + test_random(state) % 4;
		uint64_t size = 512 * (1 + test_random(state) % 128);
		bool last = i + 1 == nr, raw_next = i + 2 == nr && raw;
		char backing[64];

		/* The base is elsewhere. */
		snprintf(backing, sizeof(backing), "%s%s", i + 2 == nr ? OTHER : "",
			 last ? "" : link_names[i + 1]);
		if (last && i && raw)
			add_object(OTHER, link_names[i], size - test_random(state) % 512);
		else
			scribble(add_qcow2(last && i ? OTHER : DIR, link_names[i], bits, size,
					   8 + test_random(state) % 32,
					   last ? NULL : backing, raw_next ? "raw" : "qcow2"),
				 bits, size, state);
	}
}

/* One link with its data in another file. */
static void make_data_file_chain(void)
{
	struct image *img = add_qcow2(DIR, "l0", 12, 65536, 8, NULL, NULL);

	put32(img, 1 << 12, 0);
	put64(img, 1 << 12, 2 << 12);
	put64(img, H_INCOMPAT, 4);
	image_extension(img, H_EXTENSIONS, 0x44415441, "a b.raw", 7);
	put64(img, (2 << 12) + 8 * 3, 1ULL << 63 | 3 << 12);
	add_object(DIR, "a%20b.raw", 3 * 4096 + 100);
}

static struct qc2_chain *opens(bool walk)
{
	struct qc2_chain *chain;
	struct qc2_err err;

	limits.no_manifest = walk;
	assert_ok(qc2_chain_open(&opener, DIR "l0", &limits, &chain, &err), err);
	return chain;
}

static void same_packed(const struct qc2_packed *a, const struct qc2_packed *b)
{
	assert_non_null(a);
	assert_non_null(b);
	assert_int_equal(a->cluster_bits, b->cluster_bits);
	assert_int_equal(a->compression, b->compression);
	assert_int_equal(a->nr, b->nr);
	for (size_t i = 0; i < a->nr; i++) {
		assert_int_equal(a->v[i].offset, b->v[i].offset);
		assert_int_equal(a->v[i].cluster, b->v[i].cluster);
		assert_int_equal(a->v[i].len, b->v[i].len);
	}
}

static void same_text(const char *a, const char *b)
{
	assert_int_equal(!a, !b);
	if (a)
		assert_string_equal(a, b);
}

static void same_chain(const struct qc2_chain *a, const struct qc2_chain *b)
{
	size_t i;

	assert_int_equal(a->nr_links, b->nr_links);
	assert_int_equal(a->nr_sectors, b->nr_sectors);
	assert_memory_equal(a->id, b->id, sizeof(a->id));
	for (i = 0; i < a->nr_links; i++) {
		const struct qc2_link *x = &a->links[i], *y = &b->links[i];

		same_text(x->url, y->url);
		same_text(x->version, y->version);
		same_text(x->data_url, y->data_url);
		same_text(x->data_version, y->data_version);
		assert_int_equal(x->size, y->size);
		assert_int_equal(x->data_size, y->data_size);
		assert_int_equal(x->virtual_size, y->virtual_size);
		assert_int_equal(x->cluster_size, y->cluster_size);
		assert_int_equal(x->live_sectors, y->live_sectors);
	}
	assert_int_equal(a->index->nr_sectors, b->index->nr_sectors);
	assert_int_equal(a->index->nr_extents, b->index->nr_extents);
	for (i = 0; i < a->index->nr_extents; i++) {
		const struct qc2_extent *x = &a->index->extents[i];
		const struct qc2_extent *y = &b->index->extents[i];

		assert_int_equal(x->sector, y->sector);
		assert_int_equal(x->nr_sectors, y->nr_sectors);
		assert_int_equal(x->object, y->object);
		assert_int_equal(x->offset, y->offset);
		if (qc2_object_is_unpacked(x->object))
			same_packed(a->links[x->object / 2].packed,
				    b->links[x->object / 2].packed);
	}
}

/* Digests with something in them. */
static struct qc2_digests *digests_of(const struct qc2_chain *chain)
{
	struct qc2_digests *d;
	struct qc2_err err;

	assert_ok(qc2_digests_new(chain, &d, &err), err);
	for (size_t i = 0; i < d->nr; i++)
		memset(d->v[i], i + 1, QC2_DIGEST_LEN);
	return d;
}

/* Puts the manifest of the chain beside DIR "l0"; returns it. */
static struct image *publish(bool with_digests)
{
	struct qc2_chain *chain = opens(true);
	struct qc2_digests *d = with_digests ? digests_of(chain) : NULL;
	struct image *img = add_image(DIR, "l0.manifest");
	struct qc2_err err;
	size_t len;
	void *buf;

	assert_ok(qc2_manifest_write(chain, d, &buf, &len, &err), err);
	img->data = buf;
	img->size = len;
	qc2_digests_free(d);
	qc2_chain_put(chain);
	return img;
}

static void test_round_trip(void **state)
{
	uint64_t seed = 1;

	for (int n = 0; n < 300; n++) {
		struct qc2_chain *walked, *read;

		make_chain(&seed);
		publish(n % 2);
		walked = opens(true);
		read = opens(false);
		assert_false(walked->from_manifest);
		assert_true(read->from_manifest);
		assert_null(read->manifest_trouble);
		same_chain(walked, read);
		qc2_chain_put(walked);
		qc2_chain_put(read);
		drop_images(NULL);
	}
}

static void test_data_file(void **state)
{
	struct qc2_chain *walked, *read;

	make_data_file_chain();
	publish(true);
	walked = opens(true);
	read = opens(false);
	assert_true(read->from_manifest);
	assert_string_equal(read->links[0].data_url, DIR "a%20b.raw");
	same_chain(walked, read);
	qc2_chain_put(walked);
	qc2_chain_put(read);
}

static void test_requests(void **state)
{
	struct qc2_chain *chain;
	uint64_t seed = 7;

	while (nr_images < 4) {
		drop_images(NULL);
		make_chain(&seed);
	}
	publish(true);
	memset(&mem_count, 0, sizeof(mem_count));
	chain = opens(false);
	assert_true(chain->from_manifest);
	assert_true(chain->nr_links >= 4);
	/* top and manifest, whatever the depth; and one read of the latter */
	assert_int_equal(mem_count.opens, 2);
	assert_int_equal(mem_count.reads, 1);
	qc2_chain_put(chain);
}

/* The chain is opened by walking, and the reason is said. */
static void walks(const char *reason)
{
	struct qc2_chain *walked = opens(true), *chain = opens(false);

	assert_false(chain->from_manifest);
	if (reason) {
		assert_non_null(chain->manifest_trouble);
		assert_in(chain->manifest_trouble, DIR "l0.manifest: ");
		assert_in(chain->manifest_trouble, reason);
	} else {
		assert_null(chain->manifest_trouble);
	}
	same_chain(walked, chain);
	qc2_chain_put(walked);
	qc2_chain_put(chain);
}

static int read_digests(const struct image *img, struct qc2_err *err)
{
	struct qc2_manifest_head head;
	struct qc2_digests *d;
	int ret;

	ret = qc2_manifest_head(img->data, img->size, &head, err);
	if (!ret && head.length != img->size)
		ret = -EBADMSG;
	if (!ret)
		ret = qc2_manifest_digests(&head, img->data + head.digests_offset,
					   head.digests_len, &d, err);
	if (!ret)
		qc2_digests_free(d);
	return ret;
}

static void make_small_chain(void)
{
	uint64_t seed = 3;

	while (nr_images != 3) {
		drop_images(NULL);
		make_chain(&seed);
	}
}

static void test_truncated(void **state)
{
	struct image *img;
	uint64_t size;

	make_small_chain();
	walks(NULL);
	img = publish(true);
	size = img->size;
	for (img->size = 0; img->size < size; img->size++) {
		struct qc2_err err;

		walks(img->size ? "truncated" : "empty");
		assert_int_not_equal(read_digests(img, &err), 0);
	}
	/* Something behind its end is no better. */
	img->data = realloc(img->data, size + 1);
	img->data[size] = 0;
	img->size = size + 1;
	walks("damaged");
	img->size = size;
}

static void test_flipped(void **state)
{
	struct qc2_chain *walked, *chain;
	size_t used = 0, i;
	struct image *img;

	make_small_chain();
	img = publish(true);
	walked = opens(true);
	for (i = 0; i < 8 * img->size; i++) {
		struct qc2_err err;
		bool sound;

		img->data[i / 8] ^= 1 << i % 8;
		chain = opens(false);
		same_chain(walked, chain);
		sound = chain->from_manifest;
		used += sound;
		assert_int_equal(!chain->manifest_trouble, sound);
		/* What opens is damaged in the digests, and they are refused. */
		if (sound)
			assert_int_equal(read_digests(img, &err), -EBADMSG);
		qc2_chain_put(chain);
		img->data[i / 8] ^= 1 << i % 8;
	}
	assert_true(used > 0 && used < 4 * img->size);
	qc2_chain_put(walked);
}

/*
 * ---------------------------------------------------------------------------
 * Lies: sections unpacked, changed, and sealed again
 * ---------------------------------------------------------------------------
 */

static struct manifest_section *section(struct image *img, unsigned int part)
{
	return (struct manifest_section *)(img->data + sizeof(struct manifest_header)) + part;
}

static void seal(struct image *img)
{
	struct manifest_header *h = (struct manifest_header *)img->data;

	uint32_t header_len = h->header_len < img->size ? h->header_len : img->size;

	for (uint32_t i = 0; i < h->nr_sections && i < QC2_MANIFEST_NR_PARTS; i++) {
		struct manifest_section *s = section(img, i);

		if (s->offset <= img->size && s->stored <= img->size - s->offset)
			s->crc = qc2_crc32c(0, img->data + s->offset, s->stored);
	}
	h->checksum = 0;
	h->checksum = qc2_crc32c(0, img->data, header_len);
}

/* The same manifest with nothing compressed. */
static void unpack_all(struct image *img)
{
	struct manifest_header *h = (struct manifest_header *)img->data;
	size_t size = h->header_len;
	uint8_t *data;

	for (uint32_t i = 0; i < h->nr_sections; i++)
		size += section(img, i)->unpacked;
	data = malloc(size);
	size = h->header_len;
	for (uint32_t i = 0; i < h->nr_sections; i++) {
		struct manifest_section *s = section(img, i);

		if (s->flags & MANIFEST_ZSTD)
			assert_int_equal(ZSTD_decompress(data + size, s->unpacked,
				img->data + s->offset, s->stored), s->unpacked);
		else
			memcpy(data + size, img->data + s->offset, s->stored);
		s->flags = 0;
		s->offset = size;
		s->stored = s->unpacked;
		size += s->stored;
	}
	h->length = size;
	memcpy(data, img->data, h->header_len);
	free(img->data);
	img->data = data;
	img->size = size;
	seal(img);
}

/* Writes @len bytes of @value at @at; the chain is walked then, for that reason. */
static void lie(struct image *img, uint64_t at, size_t len, uint64_t value,
		const char *reason)
{
	uint8_t *copy = malloc(img->size);

	assert_true(at + len <= img->size);
	memcpy(copy, img->data, img->size);
	memcpy(img->data + at, &value, len);
	seal(img);
	walks(reason);
	memcpy(img->data, copy, img->size);
	free(copy);
}

/* Top with two data clusters and a compressed one, over a base with one. */
static struct image *make_lies(void)
{
	struct image *img;

	img = add_qcow2(DIR, "l0", 12, 40960, 16, "l1", "qcow2");
	put64(img, 8192, 3 * 4096);
	put64(img, 8192 + 16, 8 * 4096);
	put64(img, 8192 + 32, 1ULL << 62 | 7 * 4096);
	img = add_qcow2(DIR, "l1", 12, 32768, 16, NULL, NULL);
	put64(img, 8192 + 8, 3 * 4096);
	img = publish(true);
	unpack_all(img);
	return img;
}

static void test_lies(void **state)
{
	struct image *img = make_lies();
	struct manifest_section *s = section(img, 0);
	uint64_t links = s[0].offset, exts = s[1].offset, pack = s[2].offset;
	uint64_t link1 = links + 8 + sizeof(struct manifest_link);
	uint64_t nr = s[1].stored / MANIFEST_EXTENT_LEN;
	uint64_t lens = exts + 8 * nr, objects = lens + 4 * nr, diffs = objects + 4 * nr;
	struct qc2_chain *chain = opens(false);

	assert_true(chain->from_manifest);
	qc2_chain_put(chain);
	assert_int_equal(nr, 4);
#define AT(base, field)	((base) + offsetof(struct manifest_link, field))
	/* header */
	lie(img, 0, 1, 'q', "no manifest");
	lie(img, 8, 4, 2, "version 2");
	lie(img, 24, 8, 1 << 20, "truncated");
	lie(img, 24, 8, 7, "a length of 7");
	lie(img, 32, 4, 8000, "header of 8000 bytes");
	lie(img, 36, 4, 200, "200 sections");
	lie(img, 36, 4, UINT32_MAX, "sections cannot be");
	/* table of sections */
	lie(img, 64 + 40, 4, MANIFEST_TYPE('L', 'I', 'N', 'K'), "two sections LINK");
	lie(img, 64, 4, 77, "no section LINK");
	lie(img, 64 + 40, 4, 77, "no section EXTS");
	lie(img, 64 + 80, 4, 77, "section PACK 0");
	lie(img, 64 + 4, 4, 2, "flags 0x2");
	lie(img, 64 + 4, 4, 1, "not one zstd frame");
	lie(img, 64 + 8, 8, 8, "between header and end");
	lie(img, 64 + 8, 8, UINT64_MAX - 8, "between header and end");
	lie(img, 64 + 16, 8, UINT64_MAX, "between header and end");
	lie(img, 64 + 24, 8, 1, "cannot be");
	/* links */
	lie(img, links, 4, 0, "0 links");
	lie(img, links, 4, 3, "3 links");
	lie(img, links, 4, UINT32_MAX, "links");
	lie(img, links, 4, 1, "control character");
	lie(img, AT(links + 8, size), 8, UINT64_MAX, "a file of");
	lie(img, AT(links + 8, virtual_size), 8, 0, "a disk of 0");
	lie(img, AT(links + 8, virtual_size), 8, 1000, "a disk of 1000");
	lie(img, AT(links + 8, virtual_size), 8, 1ULL << 47, "a disk of");
	lie(img, AT(links + 8, cluster_bits), 4, 8, "2^8");
	lie(img, AT(links + 8, cluster_bits), 4, 40, "2^40");
	lie(img, AT(links + 8, compression), 4, 2, "unknown compression 2");
	lie(img, AT(links + 8, nr_packed), 4, 2, "section PACK 1");
	lie(img, AT(links + 8, nr_packed), 4, UINT32_MAX, "section PACK 1");
	lie(img, AT(links + 8, name_len), 4, 1, "has a name");
	lie(img, AT(links + 8, version_len), 4, 0, "a version of 0 bytes");
	lie(img, AT(links + 8, version_len), 4, 513, "a version of 513 bytes");
	lie(img, AT(link1, name_len), 4, 0, "has no name");
	lie(img, AT(link1, name_len), 4, UINT32_MAX, "a name of 4294967295 bytes");
	lie(img, AT(link1, data_name_len), 4, 1, "a name of 1 bytes");
	lie(img, AT(link1, version_len), 4, 3, "left over");
	/* version of the top: a header of a request must not be made of it */
	lie(img, link1 + sizeof(struct manifest_link) + 1, 1, '\n', "control character");
	lie(img, link1 + sizeof(struct manifest_link) + 4, 1, '/', "is a path");
	lie(img, link1 + sizeof(struct manifest_link) + 5, 1, '0', "twice");
	/* extents: sectors 0, 8, 16 and 32 on, of objects 0, 2, 0, 1 */
	lie(img, exts + 8, 8, UINT64_MAX, "behind sector 8");
	lie(img, exts + 8, 8, 1 << 20, "behind sector 8");
	lie(img, lens, 4, 0, "0 sectors");
	lie(img, lens, 4, UINT32_MAX, "4294967295 sectors");
	lie(img, lens + 12, 4, 16, "compressed clusters of link 0");
	lie(img, objects, 4, 4, "object 4");
	lie(img, objects, 4, 3, "not in compressed clusters of link 1");
	lie(img, objects, 4, 1, "not in compressed clusters of link 0");
	/* At the place of a compressed cluster, but on another one of the disk. */
	lie(img, objects + 8, 4, 1, "sectors 16 to 23 are not in compressed clusters");
	lie(img, diffs, 8, 16 * 8, "at offset 65536");
	lie(img, diffs, 8, UINT64_MAX, "of its object");
	lie(img, diffs + 24, 8, 1, "not in compressed clusters");
	/* compressed clusters */
	lie(img, pack, 4, 10, "compressed cluster 10 of a disk of 10");
	lie(img, pack, 4, 3, "not in compressed clusters");
	lie(img, pack + 4, 4, 0, "0 bytes");
	lie(img, pack + 4, 4, 8193, "8193 bytes");
	lie(img, pack + 8, 8, 65536, "at 65536");
	lie(img, pack + 8, 8, UINT64_MAX, "compressed cluster 4");
}

static void test_digests_lie(void **state)
{
	struct image *img = make_lies();
	uint64_t at = section(img, 3)->offset;
	struct qc2_err err;
	size_t i;

	const struct {
		uint64_t at;
		uint32_t value;
	} lies[] = {
		{ at, 1 },		/* object 0 behind 1 */
		{ at + 12, UINT32_MAX },
		{ at + 24, 0 },		/* no block */
		{ at + 24, 2 },
		{ at + 24, UINT32_MAX },
	};

	assert_int_equal(section(img, 3)->stored, 36);
	assert_int_equal(read_digests(img, &err), 0);
	for (i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
		uint32_t before;

		memcpy(&before, img->data + lies[i].at, 4);
		memcpy(img->data + lies[i].at, &lies[i].value, 4);
		seal(img);
		/* The first is one block of object 1 before one of the same. */
		assert_int_equal(read_digests(img, &err), -EBADMSG);
		assert_in(err.msg, "DRUN");
		memcpy(img->data + lies[i].at, &before, 4);
	}
}

/* Later programs may add sections and features that do no harm. */
static void test_compatible(void **state)
{
	struct image *img = make_lies();
	struct manifest_header *h = (struct manifest_header *)img->data;
	struct qc2_chain *chain;
	struct qc2_err err;

	h->compat = 1ULL << 40;
	h->reserved[3] = 1;
	section(img, 3)->type = MANIFEST_TYPE('N', 'E', 'W', '!');
	section(img, 3)->flags = 8;
	section(img, 3)->offset = UINT64_MAX;
	seal(img);
	chain = opens(false);
	assert_true(chain->from_manifest);
	qc2_chain_put(chain);
	assert_int_equal(read_digests(img, &err), -EBADMSG);
	assert_in(err.msg, "no section DRUN");
}

/* Not more memory than a multiple of what was stored. */
static void test_bomb(void **state)
{
	struct image *img = make_lies();
	struct manifest_section *s = section(img, 1);

	s->flags = MANIFEST_ZSTD;
	s->unpacked = 1ULL << 34;
	seal(img);
	walks("unpack to 17179869184 cannot be");
}

static void test_stale(void **state)
{
	uint64_t seed = 5;
	struct image *img;

	while (nr_images < 3) {
		drop_images(NULL);
		make_chain(&seed);
	}
	publish(false);
	img = &images[0];
	img->data = realloc(img->data, img->size + 512);
	memset(img->data + img->size, 0, 512);
	img->size += 512;
	walks("stale: made for an image of");
	img->size -= 512;
	version = "\"v2\"";
	walks("stale: made for version \"v1\" of the image, which is \"v2\"");
}

static void test_foreign(void **state)
{
	make_small_chain();
	add_object(DIR, "l0.manifest", 5000);
	walks("is no manifest");
}

/* A manifest leads nowhere where a backing file's name would not. */
static void test_policy(void **state)
{
	struct qc2_chain *chain;
	struct qc2_err err;

	make_small_chain();
	publish(false);
	chain = opens(false);
	assert_true(chain->from_manifest);
	qc2_chain_put(chain);
	limits.nr_allow = 0;
	limits.no_manifest = false;
	assert_int_equal(qc2_chain_open(&opener, DIR "l0", &limits, &chain, &err), -EACCES);
	assert_in(err.msg, "add " OTHER " to \"allow\"");
	limits.nr_allow = 1;
	limits.max_depth = 2;
	assert_int_equal(qc2_chain_open(&opener, DIR "l0", &limits, &chain, &err), -E2BIG);
	assert_in(err.msg, "max_depth");
}

/* What is raw is said by who names the top, never by a manifest. */
static void test_raw(void **state)
{
	struct qc2_chain *chain;
	struct qc2_err err;
	struct image *img;
	size_t len;
	void *buf;

	limits.no_manifest = false;
	add_qcow2(DIR, "l0", 12, 40960, 16, NULL, NULL);
	assert_ok(qc2_chain_open(&opener, DIR "l0#format=raw", &limits, &chain, &err), err);
	assert_ok(qc2_manifest_write(chain, NULL, &buf, &len, &err), err);
	qc2_chain_put(chain);
	img = add_image(DIR, "l0.manifest");
	img->data = buf;
	img->size = len;
	walks("to be opened as qcow2");
	limits.no_manifest = false;
	assert_ok(qc2_chain_open(&opener, DIR "l0#format=raw", &limits, &chain, &err), err);
	assert_true(chain->from_manifest);
	assert_int_equal(chain->nr_sectors, 16 * 8);
	qc2_chain_put(chain);
}

static void test_snapshot(void **state)
{
	struct qc2_chain *chain;
	struct qc2_err err;
	size_t len;
	void *buf;

	make_small_chain();
	publish(false);
	limits.no_manifest = false;
	/* The image is asked, which has none of that name. */
	assert_int_equal(qc2_chain_open(&opener, DIR "l0#snapshot=s", &limits, &chain, &err),
			 -ENOENT);
	chain = opens(true);
	chain->snapshot = strdup("s");
	assert_int_equal(qc2_manifest_write(chain, NULL, &buf, &len, &err), -EINVAL);
	assert_in(err.msg, "internal snapshot");
	qc2_chain_put(chain);
}

/* Every name that a link can have comes back. */
static void test_names(void **state)
{
	static const struct {
		const char *top, *link, *stored;
	} cases[] = {
		{ "http://h/a/t", "http://h/a/b", "b" },
		{ "http://h/a/t", "http://h/a/s/b", "s/b" },
		{ "http://h/a/t?q=/x/y", "http://h/a/b?q=1", "b?q=1" },
		{ "http://h/a/t", "http://h/a/b:c", "./b:c" },
		{ "http://h/a/t", "http://h/a/b%20c%23", "b%20c%23" },
		{ "http://h/a/t", "http://h/b", "http://h/b" },
		{ "http://h/a/t", "https://h/a/b", "https://h/a/b" },
		{ "http://h/a/t", "http://h/a//b", "http://h/a//b" },
		{ "file:///a/t", "file:///a/b", "b" },
		{ "file:///a/t", "file:///a/b%20c%25d%23e%3Ff%5Cg", "b c%d#e?f\\g" },
		{ "file:///a/t", "file:///a/json:x", "./json:x" },
		{ "file:///a/t", "file:///c/b", "file:///c/b" },
		{ "file:///a/t", "http://h/b", "http://h/b" },
		{ "file:///t", "file:///b", "b" },
	};
	static const char *const all[] = { "http://h/", "https://h/", "file:///" };
	struct qc2_chain_limits any = { .max_depth = 9, .allow = all, .nr_allow = 3 };

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct qc2_extents none = { 0 };
		struct qc2_link links[] = {
			{ .url = (char *)cases[i].top, .version = "v", .size = 4096,
			  .virtual_size = 512, .cluster_size = 4096 },
			{ .url = (char *)cases[i].link, .version = "w", .size = 4096,
			  .virtual_size = 512, .cluster_size = 4096 },
		};
		struct qc2_chain chain = { .links = links, .nr_links = 2, .nr_sectors = 1 };
		const struct qc2_top top = { .url = (char *)cases[i].top };
		struct qc2_manifest_head head;
		struct qc2_chain *read;
		struct image img = { 0 };
		struct qc2_err err;
		size_t len;
		void *buf;

		chain.index = qc2_index_build(&none, 1);
		assert_ok(qc2_manifest_write(&chain, NULL, &buf, &len, &err), err);
		qc2_index_free(chain.index);
		assert_ok(qc2_manifest_head(buf, len, &head, &err), err);
		assert_ok(qc2_manifest_read(&head, buf, len, &top, &any, &read, &err), err);
		assert_string_equal(read->links[1].url, cases[i].link);
		qc2_chain_put(read);
		img.data = buf;
		img.size = len;
		unpack_all(&img);
		if (!memmem(img.data, img.size, cases[i].stored, strlen(cases[i].stored)) ||
		    (cases[i].stored[0] != 'h' && memmem(img.data, img.size, "://", 3) &&
		     strncmp(cases[i].stored, "file:", 5)))
			fail_msg("%s is not stored as %s", cases[i].link, cases[i].stored);
		free(img.data);
	}
}

static void test_url(void **state)
{
	char *url = qc2_manifest_url("http://h/a.qcow2?x=y?z");

	assert_string_equal(url, "http://h/a.qcow2.manifest?x=y?z");
	free(url);
	url = qc2_manifest_url("file:///a%3Fb");
	assert_string_equal(url, "file:///a%3Fb.manifest");
	free(url);
}

/* Blocks with live data, and no others, have a digest, which comes back. */
static void test_digests(void **state)
{
	struct qc2_extent v[] = {
		{ .sector = 0, .nr_sectors = 8, .object = 0, .offset = 65536 - 2048 },
		{ .sector = 8, .nr_sectors = 8, .object = 0, .offset = 65536 + 4096 },
		{ .sector = 16, .nr_sectors = 128, .object = 2, .offset = 5 * 65536 },
		{ .sector = 200, .nr_sectors = 8, .object = 0, .offset = 9 * 65536 },
		{ .sector = 300, .nr_sectors = 1, .object = 0, .offset = 2 * 65536 },
	};
	static const struct {
		uint32_t object, block;
		int there;
	} blocks[] = {
		{ 0, 0, 1 }, { 0, 1, 1 }, { 0, 2, 1 }, { 0, 3, 0 }, { 0, 8, 0 }, { 0, 9, 1 },
		{ 0, 10, 0 }, { 1, 0, 0 }, { 1, 9, 0 }, { 2, 4, 0 }, { 2, 5, 1 }, { 2, 6, 0 },
		{ 3, 5, 0 }, { UINT32_MAX, UINT32_MAX, 0 },
	};
	struct qc2_link links[] = {
		{ .url = DIR "l0", .version = "v", .size = 1 << 20, .virtual_size = 1 << 20,
		  .cluster_size = 4096 },
		{ .url = DIR "l1", .version = "v", .size = 1 << 20, .virtual_size = 1 << 20,
		  .cluster_size = 4096 },
	};
	struct qc2_chain chain = { .links = links, .nr_links = 2, .nr_sectors = 2048 };
	struct qc2_extents list = { 0 };
	struct qc2_digests *d, *read;
	struct qc2_manifest_head head;
	struct qc2_err err;
	size_t len, i;
	uint8_t *buf;

	for (i = 0; i < sizeof(v) / sizeof(v[0]); i++)
		assert_int_equal(qc2_extents_add(&list, &v[i]), 0);
	chain.index = qc2_index_build(&list, chain.nr_sectors);
	d = digests_of(&chain);
	assert_int_equal(d->nr, 5);
	assert_int_equal(d->nr_runs, 3);
	assert_ok(qc2_manifest_write(&chain, d, (void **)&buf, &len, &err), err);
	assert_ok(qc2_manifest_head(buf, len, &head, &err), err);
	/* They come last. */
	assert_int_equal(head.digests_offset, head.open_len);
	assert_int_equal(head.digests_offset + head.digests_len, len);
	assert_ok(qc2_manifest_digests(&head, buf + head.digests_offset, head.digests_len,
				       &read, &err), err);
	for (i = 0; i < sizeof(blocks) / sizeof(blocks[0]); i++) {
		const uint8_t *a = qc2_digests_find(d, blocks[i].object, blocks[i].block);
		const uint8_t *b = qc2_digests_find(read, blocks[i].object, blocks[i].block);

		assert_int_equal(!!a, blocks[i].there);
		assert_int_equal(!!b, blocks[i].there);
		if (a)
			assert_memory_equal(a, b, QC2_DIGEST_LEN);
	}
	free(buf);
	qc2_digests_free(d);
	qc2_digests_free(read);
	assert_ok(qc2_manifest_write(&chain, NULL, (void **)&buf, &len, &err), err);
	assert_ok(qc2_manifest_head(buf, len, &head, &err), err);
	assert_int_equal(head.digests_len, 0);
	assert_int_equal(qc2_manifest_digests(&head, buf, 0, &read, &err), -ENOENT);
	free(buf);
	qc2_index_free(chain.index);
}

/* As sha256sum says of 64 KiB of zeros. */
static void test_digest(void **state)
{
	static const uint8_t zeros[QC2_DIGEST_BLOCK];
	static const uint8_t expected[QC2_DIGEST_LEN] = {
		0xde, 0x2f, 0x25, 0x60, 0x64, 0xa0, 0xaf, 0x79,
		0x77, 0x47, 0xc2, 0xb9, 0x75, 0x05, 0xdc, 0x0b,
	};
	uint8_t digest[QC2_DIGEST_LEN];

	assert_int_equal(qc2_digest(zeros, digest), 0);
	assert_memory_equal(digest, expected, sizeof(digest));
}

#define TEST(name)	cmocka_unit_test_setup_teardown(name, reset, drop_images)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_round_trip),
		TEST(test_data_file),
		TEST(test_requests),
		TEST(test_truncated),
		TEST(test_flipped),
		TEST(test_lies),
		TEST(test_digests_lie),
		TEST(test_compatible),
		TEST(test_bomb),
		TEST(test_stale),
		TEST(test_foreign),
		TEST(test_policy),
		TEST(test_raw),
		TEST(test_snapshot),
		TEST(test_names),
		TEST(test_url),
		TEST(test_digests),
		TEST(test_digest),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
