/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The table of objects and of their blocks on the way.  Main thread only.
 */
#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/evp.h>

#include "object.h"

static void *objects;		/* tree by key (tsearch) */

static int cmp_object(const void *a, const void *b)
{
	const struct object *x = a, *y = b;

	return memcmp(x->key, y->key, sizeof(x->key));
}

static int cmp_block(const void *a, const void *b)
{
	const struct block *x = a, *y = b;

	return (x->nr > y->nr) - (x->nr < y->nr);
}

/* Each part with its terminating zero, so no two read the same. */
static int make_key(uint8_t *key, const char *url, uint64_t size,
		    const char *version, const char *view)
{
	EVP_MD_CTX *md = EVP_MD_CTX_new();
	char text[32];
	int ok;

	snprintf(text, sizeof(text), "%llu", (unsigned long long)size);
	ok = md && EVP_DigestInit_ex(md, EVP_sha256(), NULL) &&
	     EVP_DigestUpdate(md, url, strlen(url) + 1) &&
	     EVP_DigestUpdate(md, text, strlen(text) + 1) &&
	     EVP_DigestUpdate(md, version, strlen(version) + 1) &&
	     EVP_DigestUpdate(md, view, strlen(view) + 1) &&
	     EVP_DigestFinal_ex(md, key, NULL);
	EVP_MD_CTX_free(md);
	return ok;
}

/* @view: "", or what tells unpacked clusters from the file itself. */
static struct object *get(const char *url, uint64_t file_size,
			  const char *version, const char *view, uint64_t size)
{
	struct object *obj = calloc(1, sizeof(*obj)), **found;

	if (!obj)
		return NULL;
	obj->size = size;
	obj->file_size = file_size;
	if (object_nr_blocks(obj) > UINT32_MAX ||
	    !make_key(obj->key, url, file_size, version, view))
		goto fail;
	found = tsearch(obj, &objects, cmp_object);
	if (!found)
		goto fail;
	if (*found != obj) {
		free(obj);
		return object_ref(*found);
	}
	obj->refs = 1;
	obj->url = strdup(url);
	obj->version = strdup(version);
	obj->origin = origin_of(url);
	if (!obj->url || !obj->version || !obj->origin) {
		object_put(obj);
		return NULL;
	}
	return obj;
fail:
	free(obj);
	return NULL;
}

struct object *object_get(const char *url, uint64_t size, const char *version)
{
	return get(url, size, version, "", size);
}

struct object *object_get_unpacked(const char *url, uint64_t size,
				   const char *version, const char *snapshot,
				   struct qc2_packed *packed,
				   uint64_t virtual_size)
{
	struct object *obj = NULL;
	unsigned int nr;
	char *view;

	for (nr = 0; !obj; nr++) {
		if (asprintf(&view, "unpacked %u%s%s", nr, snapshot ? "#" : "",
			     snapshot ? snapshot : "") < 0)
			return NULL;
		obj = get(url, size, version, view, virtual_size);
		free(view);
		if (!obj)
			return NULL;
		if (!obj->packed)
			obj->packed = qc2_packed_ref(packed);
		if (obj->size != virtual_size ||
		    !qc2_packed_same(obj->packed, packed)) {
			object_put(obj);
			obj = NULL;
		}
	}
	return obj;
}

struct object *object_ref(struct object *obj)
{
	obj->refs++;
	return obj;
}

void object_put(struct object *obj)
{
	if (--obj->refs)
		return;
	tdelete(obj, &objects, cmp_object);
	free(obj->url);
	free(obj->version);
	qc2_packed_put(obj->packed);
	free(obj);
}

struct block *block_find(struct object *obj, uint32_t nr)
{
	struct block key = { .nr = nr }, **found;

	found = tfind(&key, &obj->blocks, cmp_block);
	return found ? *found : NULL;
}

struct block *block_new(struct object *obj, uint32_t nr)
{
	struct block *block = calloc(1, sizeof(*block));

	if (!block)
		return NULL;
	block->nr = nr;
	if (!tsearch(block, &obj->blocks, cmp_block)) {
		free(block);
		return NULL;
	}
	block->obj = object_ref(obj);
	LIST_INIT(&block->waiters);
	return block;
}

void block_free(struct block *block)
{
	tdelete(block, &block->obj->blocks, cmp_block);
	object_put(block->obj);
	free(block);
}
