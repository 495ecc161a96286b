/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Objects in memory, and qcow2 images made by hand, byte by byte, so that
 * tests can damage every field.
 */
#ifndef QC2_TEST_IMAGE_H
#define QC2_TEST_IMAGE_H

#include <endian.h>
#include <errno.h>

#include "source.h"
#include "testing.h"

struct image {
	const char *url;
	uint8_t *data;
	uint64_t size;
};

struct mem_source {
	struct qc2_source src;
	const struct image *img;
};

static struct {
	_Atomic unsigned int opens, closes, reads;
	_Atomic uint64_t largest;
} mem_count;

static inline int mem_read(struct qc2_source *src, uint64_t offset, void *buf,
			   size_t len, struct qc2_err *err)
{
	const struct image *img = ((struct mem_source *)src)->img;

	/* Contract of struct qc2_source_ops. */
	assert_true(len <= img->size && offset <= img->size - len);
	memcpy(buf, img->data + offset, len);
	mem_count.reads++;
	if (len > mem_count.largest)
		mem_count.largest = len;
	return 0;
}

static inline void mem_close(struct qc2_source *src)
{
	mem_count.closes++;
	free(src->url);
	free(src->version);
	free(src);
}

static const struct qc2_source_ops mem_ops = {
	.read = mem_read,
	.close = mem_close,
};

static inline struct qc2_source *mem_open(const struct image *img)
{
	struct mem_source *mem = calloc(1, sizeof(*mem));

	mem->src.ops = &mem_ops;
	mem->src.url = strdup(img->url);
	mem->src.version = strdup("v1");
	mem->src.size = img->size;
	mem->img = img;
	mem_count.opens++;
	return &mem->src;
}

static inline void put32(struct image *img, uint64_t offset, uint32_t value)
{
	value = htobe32(value);
	assert_true(offset + 4 <= img->size);
	memcpy(img->data + offset, &value, 4);
}

static inline void put64(struct image *img, uint64_t offset, uint64_t value)
{
	value = htobe64(value);
	assert_true(offset + 8 <= img->size);
	memcpy(img->data + offset, &value, 8);
}

/* Offsets of header fields. */
enum {
	H_VERSION = 4, H_BACKING_OFFSET = 8, H_BACKING_LEN = 16,
	H_CLUSTER_BITS = 20, H_SIZE = 24, H_CRYPT = 32, H_L1_SIZE = 36,
	H_L1_OFFSET = 40, H_INCOMPAT = 72, H_HEADER_LENGTH = 100,
	H_COMPRESSION = 104, H_EXTENSIONS = 112,
};

/*
 * An empty image of @clusters clusters.  The L1 table is in cluster 1 and as
 * long as the disk needs; the rest is for the test.
 */
static inline struct image image_new(const char *url, unsigned int version,
				     unsigned int cluster_bits,
				     uint64_t virtual_size, uint64_t clusters)
{
	struct image img = { .url = url, .size = clusters << cluster_bits };
	unsigned int l2_bits = 2 * cluster_bits - 3;

	img.data = calloc(1, img.size);
	assert_non_null(img.data);
	put32(&img, 0, 0x514649fb);
	put32(&img, H_VERSION, version);
	put32(&img, H_CLUSTER_BITS, cluster_bits);
	put64(&img, H_SIZE, virtual_size);
	put32(&img, H_L1_SIZE, (virtual_size + (1ULL << l2_bits) - 1) >> l2_bits);
	put64(&img, H_L1_OFFSET, 1ULL << cluster_bits);
	if (version == 3) {
		put32(&img, 96, 4);
		put32(&img, H_HEADER_LENGTH, 112);
	}
	return img;
}

static inline void image_free(struct image *img)
{
	free(img->data);
	img->data = NULL;
}

/* Appends an extension at @offset; returns where the next one goes. */
static inline uint64_t image_extension(struct image *img, uint64_t offset,
				       uint32_t type, const void *data,
				       uint32_t len)
{
	put32(img, offset, type);
	put32(img, offset + 4, len);
	memcpy(img->data + offset + 8, data, len);
	return offset + 8 + ((len + 7) & ~7U);
}

/* A backing file, its format behind the header; @format NULL: none. */
static inline void image_backing(struct image *img, const char *name,
				 const char *format)
{
	uint64_t end = H_EXTENSIONS;

	if (format)
		end = image_extension(img, end, 0xe2792aca, format,
				      strlen(format));
	end += 8;
	put64(img, H_BACKING_OFFSET, end);
	put32(img, H_BACKING_LEN, strlen(name));
	memcpy(img->data + end, name, strlen(name));
}

#endif
