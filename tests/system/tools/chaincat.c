/* SPDX-License-Identifier: GPL-2.0 */
/*
 * chaincat [--config FILE] TOP OUT: writes the disk that a chain holds to a file, by
 * the library and nothing else.  Tests compare it with qemu-img convert.  TOP is the
 * path of an image, or the URL of a top image, which may have a suffix.  Without a
 * configuration only local files are read, and not by the library's own means.
 */
#include <inttypes.h>

#include "../../unit/file_source.h"
#include "chain.h"
#include "config.h"
#include "site.h"
#include "store.h"

#define CHUNK	(1 << 20)

static struct qc2_opener *opener = &file_opener;
static struct qc2_store *store;
static struct qc2_sites *sites;

static int copy_extent(const struct qc2_extent *ext, struct qc2_source *src,
		       FILE *out, uint8_t *buf, struct qc2_err *err)
{
	uint64_t left = (uint64_t)ext->nr_sectors * 512, offset = ext->offset;
	uint64_t have, len;
	int ret;

	if (fseeko(out, ext->sector * 512, SEEK_SET))
		return qc2_fail(err, errno, "output: %s", strerror(errno));
	for (; left; left -= len, offset += len) {
		len = left < CHUNK ? left : CHUNK;
		/* An extent can reach past the end of the object; index.h. */
		have = src->size - offset < len ? src->size - offset : len;
		memset(buf + have, 0, len - have);
		ret = src->ops->read(src, offset, buf, have, err);
		if (ret)
			return ret;
		if (fwrite(buf, 1, len, out) != len)
			return qc2_fail(err, EIO, "output: %s",
					strerror(errno));
	}
	return 0;
}

/* A compressed cluster, unpacked to @out. */
static int read_packed(const struct qc2_packed *packed, uint64_t cluster,
		       struct qc2_source *src, uint8_t *out, struct qc2_err *err)
{
	size_t i = qc2_packed_find(packed, cluster);
	const struct qc2_packed_cluster *c = &packed->v[i];
	uint8_t *in;
	int ret;

	if (i == packed->nr || c->cluster != cluster)
		return qc2_fail(err, EIO, "%s: cluster %" PRIu64 " is not listed",
				src->url, cluster);
	in = malloc(c->len);
	ret = src->ops->read(src, c->offset, in, c->len, err);
	if (!ret && qc2_unpack(packed, in, c->len, out))
		ret = qc2_fail(err, EIO, "%s: cluster %" PRIu64 " is damaged",
			       src->url, cluster);
	free(in);
	return ret;
}

static int copy_packed(const struct qc2_extent *ext,
		       const struct qc2_packed *packed, struct qc2_source *src,
		       FILE *out, struct qc2_err *err)
{
	uint64_t size = 1ULL << packed->cluster_bits, pos = ext->offset;
	uint64_t end = pos + (uint64_t)ext->nr_sectors * 512, len;
	uint8_t *buf = malloc(size);
	int ret = 0;

	if (fseeko(out, ext->sector * 512, SEEK_SET))
		ret = qc2_fail(err, errno, "output: %s", strerror(errno));
	for (; pos < end && !ret; pos += len) {
		len = size - pos % size;
		if (len > end - pos)
			len = end - pos;
		ret = read_packed(packed, pos / size, src, buf, err);
		if (!ret && fwrite(buf + pos % size, 1, len, out) != len)
			ret = qc2_fail(err, EIO, "output: %s", strerror(errno));
	}
	free(buf);
	return ret;
}

/* Of the version that the chain was made of. */
static int open_object(const struct qc2_link *link, bool data, struct qc2_source **src,
		       struct qc2_err *err)
{
	if (!store)
		return opener->open(opener, data ? link->data_url : link->url, src, err);
	*src = qc2_store_pinned(store, data ? link->data_url : link->url,
				data ? link->data_size : link->size,
				data ? link->data_version : link->version);
	return *src ? 0 : qc2_fail(err, ENOMEM, "out of memory");
}

static int copy_object(const struct qc2_chain *chain, uint32_t object,
		       FILE *out, struct qc2_err *err)
{
	const struct qc2_link *link = &chain->links[qc2_object_link(object)];
	bool packed = object == qc2_object_unpacked(qc2_object_link(object));
	const struct qc2_index *idx = chain->index;
	uint8_t *buf = malloc(CHUNK);
	struct qc2_source *src;
	size_t i;
	int ret;

	ret = open_object(link, link->data_url && !packed, &src, err);
	if (ret)
		goto out;
	i = qc2_index_find_object(idx, object, 0);
	for (; i < idx->nr_by_object && !ret; i++) {
		const struct qc2_extent *ext = &idx->extents[idx->by_object[i]];

		if (ext->object != object)
			break;
		ret = packed ? copy_packed(ext, link->packed, src, out, err) :
			       copy_extent(ext, src, out, buf, err);
	}
	src->ops->close(src);
out:
	free(buf);
	return ret;
}

/* One object after another, so that few files are open. */
static int copy_chain(const struct qc2_chain *chain, FILE *out,
		      struct qc2_err *err)
{
	size_t link;
	int ret = 0;

	for (link = 0; link < chain->nr_links && !ret; link++) {
		ret = copy_object(chain, qc2_object_data(link), out, err);
		if (!ret && chain->links[link].packed)
			ret = copy_object(chain, qc2_object_unpacked(link), out,
					  err);
	}
	return ret;
}

/* Through the stores that a configuration describes. */
static int open_stores(const char *path, struct qc2_config *config,
		       struct qc2_store_config *stores, struct qc2_err *err)
{
	int ret = qc2_config_load(path, config, err);

	if (!ret)
		ret = qc2_sites_load(config->sites_file, &sites, err);
	if (ret)
		return ret;
	*stores = (struct qc2_store_config){
		.sites = sites,
		.ca_file = config->ca_file,
		.connect_timeout_s = config->connect_timeout_s,
		.low_speed_time_s = config->low_speed_time_s,
		.allow_local_addresses = config->allow_local_addresses,
	};
	curl_global_init(CURL_GLOBAL_DEFAULT);
	store = qc2_store_new(stores);
	if (!store)
		return qc2_fail(err, ENOMEM, "out of memory");
	opener = qc2_store_opener(store);
	return 0;
}

static int write_disk(const char *url, const char *path, struct qc2_err *err)
{
	const struct qc2_chain_limits limits = { .max_depth = 4096 };
	struct qc2_chain *chain;
	FILE *out;
	int ret;

	ret = qc2_chain_open(opener, url, &limits, &chain, err);
	if (ret)
		return ret;
	out = fopen(path, "w");
	if (!out || ftruncate(fileno(out), chain->nr_sectors * 512))
		ret = qc2_fail(err, errno, "%s: %s", path, strerror(errno));
	else
		ret = copy_chain(chain, out, err);
	qc2_chain_put(chain);
	if (out && fclose(out) && !ret)
		ret = qc2_fail(err, EIO, "%s: write failed", path);
	return ret;
}

static char *url_of(const char *top, struct qc2_err *err)
{
	char *path, *url = NULL;

	if (strstr(top, "://"))
		return strdup(top);
	path = realpath(top, NULL);
	if (!path)
		qc2_fail(err, errno, "%s: %s", top, strerror(errno));
	else
		qc2_url_from_path(path, &url, err);
	free(path);
	return url;
}

int main(int argc, char **argv)
{
	struct qc2_store_config stores;
	struct qc2_config config = { 0 };
	struct qc2_err err;
	char *url = NULL;
	int ret = 0;

	if (argc == 5 && !strcmp(argv[1], "--config")) {
		ret = open_stores(argv[2], &config, &stores, &err);
		argc -= 2;
		argv += 2;
	}
	if (argc != 3) {
		fprintf(stderr, "usage: chaincat [--config FILE] TOP OUT\n");
		return 2;
	}
	if (!ret) {
		url = url_of(argv[1], &err);
		ret = url ? write_disk(url, argv[2], &err) : -EINVAL;
	}
	if (ret)
		fprintf(stderr, "chaincat: %s\n", err.msg);
	free(url);
	if (store) {
		qc2_store_free(store);
		qc2_sites_free(sites);
		qc2_config_free(&config);
	}
	return ret ? 1 : 0;
}
