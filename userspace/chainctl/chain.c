/* SPDX-License-Identifier: GPL-2.0 */
/*
 * chainctl info and map: what a chain consists of, and where the content of a
 * disk is.  The chain is opened here, with the configuration of the daemon but
 * without the daemon.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <curl/curl.h>

#include "access.h"
#include "chain.h"
#include "chainctl.h"
#include "disk.h"
#include "client.h"
#include "store.h"

#define SCHEMA	1

int chain_access(struct ctl *ctl, struct chain_access *access, struct qc2_err *err)
{
	int ret;

	/* Not for all verbs: who may use the daemon's socket need not be able to read it. */
	ret = qc2_sites_load(ctl->cfg.sites_file, &ctl->sites, err);
	if (ret)
		return ret;
	*access = (struct chain_access){
		.cfg = {
			.ca_file = ctl->cfg.ca_file,
			.sites = ctl->sites,
			.connect_timeout_s = ctl->cfg.connect_timeout_s,
			.low_speed_time_s = ctl->cfg.low_speed_time_s,
			.allow_local_addresses = ctl->cfg.allow_local_addresses,
			.allow = (const char *const *)ctl->cfg.allow,
			.nr_allow = ctl->cfg.nr_allow,
		},
		.limits = {
			.max_depth = ctl->cfg.max_depth,
			.allow = (const char *const *)ctl->cfg.allow,
			.nr_allow = ctl->cfg.nr_allow,
		},
	};
	if (curl_global_init(CURL_GLOBAL_DEFAULT))
		return qc2_fail(err, ENOMEM, "libcurl cannot be set up");
	access->store = qc2_store_new(&access->cfg);
	return access->store ? 0 : qc2_fail(err, ENOMEM, "out of memory");
}

static int open_chain(struct ctl *ctl, const char *url, struct qc2_chain **chain,
		      struct qc2_err *err)
{
	struct chain_access access;
	int ret;

	ret = chain_access(ctl, &access, err);
	if (ret)
		return ret;
	ret = qc2_chain_open(qc2_store_opener(access.store), url, &access.limits, chain,
			     err);
	qc2_store_free(access.store);
	if (!ret && (*chain)->manifest_trouble)
		out_warn(ctl, "manifest not used, all images are read instead: %s",
			 (*chain)->manifest_trouble);
	return ret;
}

static json_int_t live_bytes(const struct qc2_chain *chain)
{
	uint64_t sectors = 0;

	for (size_t i = 0; i < chain->nr_links; i++)
		sectors += chain->links[i].live_sectors;
	return sectors * 512;
}

/* Scheme, host and port. */
static int store_len(const char *url)
{
	const char *host = strstr(url, "://") + 3;

	return host + strcspn(host, "/") - url;
}

/*
 * ---------------------------------------------------------------------------
 * info
 * ---------------------------------------------------------------------------
 */

/* A server may send an ETag that is not UTF-8. */
static json_t *version_json(const char *version)
{
	json_t *value = json_string(version);
	char copy[512];

	return value ? value : json_string(qc2_printable(version, strlen(version), copy,
							 sizeof(copy)));
}

static json_t *link_json(const struct qc2_link *link)
{
	json_t *data = json_null();

	if (link->data_url)
		data = json_pack("{ss sI so}", "url", link->data_url,
				 "size", (json_int_t)link->data_size,
				 "version", version_json(link->data_version));
	return json_pack("{ss ss ss% sI so sI sI sI so}",
			 "url", link->url,
			 "format", link->cluster_size ? "qcow2" : "raw",
			 "store", link->url, (size_t)store_len(link->url),
			 "size", (json_int_t)link->size,
			 "version", version_json(link->version),
			 "virtual_size", (json_int_t)link->virtual_size,
			 "cluster_size", (json_int_t)link->cluster_size,
			 "live_bytes", (json_int_t)link->live_sectors * 512,
			 "data_file", data);
}

static json_t *info_json(const struct qc2_chain *chain, const char *url)
{
	char id[CHAIN_ID_HEX_LEN + 1];
	json_t *links = json_array();

	for (size_t i = 0; i < chain->nr_links; i++)
		json_array_append_new(links, link_json(&chain->links[i]));
	out_chain_id(id, chain->id);
	return json_pack("{si ss ss sb ss? sI sI sI so}", "schema", SCHEMA, "url", url,
			 "chain_id", id, "from_manifest", chain->from_manifest,
			 "manifest_trouble", chain->manifest_trouble, "virtual_size",
			 (json_int_t)chain->nr_sectors * 512, "depth",
			 (json_int_t)chain->nr_links, "live_bytes", live_bytes(chain),
			 "links", links);
}

static void print_info(const struct qc2_chain *chain, const char *url)
{
	char a[OUT_SIZE_LEN], b[OUT_SIZE_LEN], c[OUT_SIZE_LEN], d[OUT_SIZE_LEN];
	char id[CHAIN_ID_HEX_LEN + 1];

	out_chain_id(id, chain->id);
	out_text(stdout, url);
	printf("\n  size      %s\n  live      %s\n  chain     %s\n  manifest  %s\n  links     %zu\n\n",
	       out_size(a, chain->nr_sectors * 512), out_size(b, live_bytes(chain)), id,
	       chain->from_manifest ? "used" : chain->manifest_trouble ? "not used" : "none",
	       chain->nr_links);
	printf("%5s %10s %10s %10s %10s  %s\n", "LINK", "LIVE", "FILE", "DISK", "CLUSTER", "URL");
	for (size_t i = 0; i < chain->nr_links; i++) {
		const struct qc2_link *link = &chain->links[i];

		printf("%5zu %10s %10s %10s %10s  ", i, out_size(a, link->live_sectors * 512),
		       out_size(b, link->size), out_size(c, link->virtual_size),
		       link->cluster_size ? out_size(d, link->cluster_size) : "raw");
		out_text(stdout, link->url);
		if (link->data_url) {
			fputs(" (data in ", stdout);
			out_text(stdout, link->data_url);
			fputc(')', stdout);
		}
		fputc('\n', stdout);
	}
}

int chain_info(struct ctl *ctl, struct qc2_err *err)
{
	struct qc2_chain *chain;
	int ret;

	ret = open_chain(ctl, ctl->arg[0], &chain, err);
	if (ret)
		return ret;
	if (ctl->json)
		ret = out_json(info_json(chain, ctl->arg[0]), err);
	else
		print_info(chain, ctl->arg[0]);
	qc2_chain_put(chain);
	return ret;
}

/*
 * ---------------------------------------------------------------------------
 * map
 * ---------------------------------------------------------------------------
 */

/* Some bytes of the disk: in one extent, or zeros. */
struct piece {
	uint64_t start, len;
	const struct qc2_extent *ext;	/* NULL: zeros */
};

/* The piece that begins at @pos and ends before @end. */
static struct piece piece_at(const struct qc2_index *idx, size_t i, uint64_t pos, uint64_t end)
{
	const struct qc2_extent *ext = i < idx->nr_extents ? &idx->extents[i] : NULL;
	struct piece piece = { .start = pos, .len = end - pos };
	uint64_t start, stop;

	if (!ext)
		return piece;
	start = ext->sector * 512;
	stop = start + (uint64_t)ext->nr_sectors * 512;
	if (pos >= start) {
		piece.ext = ext;
		start = stop;
	}
	if (start < end)
		piece.len = start - pos;
	return piece;
}

static uint64_t object_offset(const struct piece *piece)
{
	return piece->ext->offset + (piece->start - piece->ext->sector * 512);
}

static bool is_compressed(const struct piece *piece)
{
	uint32_t object = piece->ext->object;

	return object == qc2_object_unpacked(qc2_object_link(object));
}

/* Members as qemu-img map has them; "url" is ours. */
static json_t *piece_json(const struct qc2_chain *chain, const struct piece *piece)
{
	const struct qc2_link *link;
	json_t *obj;

	if (!piece->ext)
		return json_pack("{sI sI sb sb sb}", "start", (json_int_t)piece->start,
				 "length", (json_int_t)piece->len, "present", 0, "zero", 1,
				 "data", 0);
	link = &chain->links[qc2_object_link(piece->ext->object)];
	obj = json_pack("{sI sI sI sb sb sb sb}", "start", (json_int_t)piece->start, "length",
			(json_int_t)piece->len, "depth",
			(json_int_t)qc2_object_link(piece->ext->object), "present", 1, "zero", 0,
			"data", 1, "compressed", is_compressed(piece));
	/* Where unpacked bytes are in the file has no one answer. */
	if (!is_compressed(piece))
		json_object_set_new(obj, "offset", json_integer(object_offset(piece)));
	json_object_set_new(obj, "url", json_string(link->data_url && !is_compressed(piece) ?
						    link->data_url : link->url));
	return obj;
}

static void print_piece(const struct qc2_chain *chain, const struct piece *piece)
{
	const struct qc2_link *link;

	if (!piece->ext)
		return;
	link = &chain->links[qc2_object_link(piece->ext->object)];
	if (is_compressed(piece))
		printf("%#-15" PRIx64 " %#-15" PRIx64 " %-15s ", piece->start, piece->len,
		       "compressed");
	else
		printf("%#-15" PRIx64 " %#-15" PRIx64 " %#-15" PRIx64 " ", piece->start,
		       piece->len, object_offset(piece));
	out_text(stdout, link->data_url && !is_compressed(piece) ? link->data_url : link->url);
	fputc('\n', stdout);
}

static int show_map(struct ctl *ctl, const struct qc2_chain *chain, const char *url,
		    struct qc2_err *err)
{
	const struct qc2_index *idx = chain->index;
	uint64_t size = idx->nr_sectors * 512, pos = ctl->offset, end = size;
	json_t *pieces;
	size_t i;

	if (pos > size)
		return qc2_fail(err, EBADARG, "--offset %" PRIu64 ": the disk has %" PRIu64 " bytes",
				pos, size);
	if (ctl->length && ctl->length < size - pos)
		end = pos + ctl->length;
	pieces = ctl->json ? json_array() : NULL;
	if (!ctl->json)
		printf("%-15s %-15s %-15s %s\n", "Offset", "Length", "Mapped to", "File");
	for (i = qc2_index_find(idx, pos / 512); pos < end;) {
		struct piece piece = piece_at(idx, i, pos, end);

		if (ctl->json)
			json_array_append_new(pieces, piece_json(chain, &piece));
		else
			print_piece(chain, &piece);
		pos += piece.len;
		i += !!piece.ext;
	}
	if (!ctl->json)
		return 0;
	return out_json(json_pack("{si ss sI so}", "schema", SCHEMA, "url", url, "size",
				  (json_int_t)size, "extents", pieces), err);
}

/* A disk goes on with the images that it was started with. */
static int check_same(const struct qc2_chain *chain, const json_t *disk, struct qc2_err *err)
{
	char id[CHAIN_ID_HEX_LEN + 1];

	out_chain_id(id, chain->id);
	if (!*client_str(disk, "chain_id") || !strcmp(client_str(disk, "chain_id"), id))
		return 0;
	return qc2_fail(err, ESTALE,
			"%s: the image or one below it was changed since the disk was started",
			client_str(disk, "url"));
}

int chain_map(struct ctl *ctl, struct qc2_err *err)
{
	const char *url = ctl->arg[0];
	struct qc2_chain *chain;
	json_t *disk = NULL;
	int ret;

	if (!strstr(url, "://")) {
		ret = disk_ask_daemon(ctl, url, &disk, err);
		if (ret)
			return ret;
		url = client_str(disk, "url");
	}
	ret = open_chain(ctl, url, &chain, err);
	if (!ret) {
		ret = disk ? check_same(chain, disk, err) : 0;
		if (!ret)
			ret = show_map(ctl, chain, url, err);
		qc2_chain_put(chain);
	}
	json_decref(disk);
	return ret;
}
