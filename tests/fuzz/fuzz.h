/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the fuzz targets share: the function that each of them defines, and
 * taking an input apart.  libFuzzer calls it ("make fuzz"), or replay.c.
 */
#ifndef QC2_FUZZ_H
#define QC2_FUZZ_H

#include <assert.h>
#include <endian.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What is left of an input. */
struct input {
	const uint8_t *p;
	size_t len;
};

/* The next @len bytes, little-endian; 0 behind the end. */
static inline uint64_t take(struct input *in, size_t len)
{
	uint64_t value = 0;

	if (len > in->len)
		len = in->len;
	memcpy(&value, in->p, len);
	in->p += len;
	in->len -= len;
	return le64toh(value);
}

/* The text up to the next NUL, or the end; the caller frees it. */
static inline char *take_text(struct input *in)
{
	size_t len = strnlen((const char *)in->p, in->len);
	char *text = strndup((const char *)in->p, len);

	assert(text);
	in->p += len;
	in->len -= len;
	take(in, 1);
	return text;
}

#endif
