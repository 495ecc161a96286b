/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The table of objects and of their blocks on the way.  Main thread only.
 */
#include <errno.h>
#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/evp.h>
#include <openssl/sha.h>

#include "object.h"

/* A replica that refuses is left alone for so long. */
#define REFUSED_US	60000000

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

/*
 * What a list of clusters is called.  The cache knows the object by its key for longer than
 * the object is there, so the key has to say all that makes a difference.
 */
static bool name_packed(char *name, const struct qc2_packed *packed)
{
	const int kind[] = { packed->cluster_bits, packed->compression };
	unsigned char digest[SHA256_DIGEST_LENGTH];
	EVP_MD_CTX *md = EVP_MD_CTX_new();
	unsigned int i;
	int ok;

	ok = md && EVP_DigestInit_ex(md, EVP_sha256(), NULL) &&
	     EVP_DigestUpdate(md, kind, sizeof(kind)) &&
	     EVP_DigestUpdate(md, packed->v, packed->nr * sizeof(*packed->v)) &&
	     EVP_DigestFinal_ex(md, digest, NULL);
	EVP_MD_CTX_free(md);
	for (i = 0; ok && i < sizeof(digest); i++)
		sprintf(name + 2 * i, "%02x", digest[i]);
	return ok;
}

int object_add_place(struct object *obj, const char *url)
{
	struct place *place = &obj->places[obj->nr_places];

	if (obj->nr_places == OBJECT_MAX_PLACES)
		return -E2BIG;
	place->url = strdup(url);
	place->origin = origin_of(url);
	if (!place->url || !place->origin) {
		free(place->url);
		return -ENOMEM;
	}
	obj->nr_places++;
	return 0;
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
	if (!obj->url || !obj->version || object_add_place(obj, url)) {
		object_put(obj);
		return NULL;
	}
	obj->places[0].version = strdup(version);
	if (!obj->places[0].version) {
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
	struct object *obj;
	char list[2 * SHA256_DIGEST_LENGTH + 1], *view;

	if (!name_packed(list, packed) ||
	    asprintf(&view, "unpacked %llu %s%s%s", (unsigned long long)virtual_size, list,
		     snapshot ? "#" : "", snapshot ? snapshot : "") < 0)
		return NULL;
	obj = get(url, size, version, view, virtual_size);
	free(view);
	if (obj && !obj->packed)
		obj->packed = qc2_packed_ref(packed);
	return obj;
}

struct object *object_ref(struct object *obj)
{
	obj->refs++;
	return obj;
}

void object_put(struct object *obj)
{
	unsigned int i;

	if (--obj->refs)
		return;
	for (i = 0; i < obj->nr_places; i++) {
		free(obj->places[i].url);
		free(obj->places[i].version);
	}
	tdelete(obj, &objects, cmp_object);
	names_free(&obj->names);
	free(obj->url);
	free(obj->version);
	qc2_packed_put(obj->packed);
	free(obj);
}

/* Whether there is reason to think that it will not answer. */
static bool in_trouble(const struct place *place)
{
	return place->origin->failures || now_us() < place->not_before_us ||
	       now_us() < place->origin->not_before_us;
}

/* Lower is better: the fastest; of those in trouble the one that failed longest ago. */
static uint64_t cost(const struct place *place)
{
	if (in_trouble(place))
		return (1ULL << 62) + place->origin->failed_us;
	return qc2_latency_at(&place->origin->first_byte, 500);
}

struct place *object_place(struct object *obj, struct place *avoid)
{
	struct place *best = NULL, *place;

	for (place = obj->places; place < obj->places + obj->nr_places; place++) {
		if (!place->version || place->lost || place == avoid)
			continue;
		if (!best || cost(place) < cost(best))
			best = place;
	}
	/* One in trouble is no better than the one that is avoided. */
	return avoid && !avoid->lost && (!best || in_trouble(best)) ? avoid : best;
}

void object_place_failed(struct place *place, int ret, const struct qc2_err *err)
{
	if (ret == -ESTALE || log_allowed(&place->origin->log_limit))
		log_warn("%s (not used %s)", err->msg,
			 ret == -ESTALE ? "any more" : "for a while");
	if (ret == -ESTALE)
		place->lost = true;	/* whatever other GETs say */
	place->not_before_us = now_us() + REFUSED_US;
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
	LIST_INIT(&block->watchers);
	return block;
}

void block_free(struct block *block)
{
	tdelete(block, &block->obj->blocks, cmp_block);
	object_put(block->obj);
	free(block);
}
