/* SPDX-License-Identifier: GPL-2.0 */
/* Commands of the control socket.  Main thread only. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "command.h"
#include "disk.h"
#include "fetch.h"
#include "miss.h"
#include "pull.h"
#include "region.h"

/* Who waits for a chain to be opened. */
struct pending {
	command_reply *reply;
	void *arg;
	TAILQ_ENTRY(pending) entry;
};
static TAILQ_HEAD(, pending) pendings = TAILQ_HEAD_INITIALIZER(pendings);

/* Who waits for a pin to be durable. */
struct pinning {
	command_reply *reply;		/* NULL: it is gone */
	void *arg;
	TAILQ_ENTRY(pinning) entry;
};
static TAILQ_HEAD(, pinning) pinnings = TAILQ_HEAD_INITIALIZER(pinnings);

json_t *command_text(const char *text)
{
	json_t *value = json_string(text);
	char *copy, *p;

	if (value)
		return value;
	copy = strdup(text);
	for (p = copy; p && *p; p++) {
		if (*p & 0x80)
			*p = '?';
	}
	value = copy ? json_string(copy) : NULL;
	free(copy);
	return value;
}

json_t *command_error(int ret, const char *text)
{
	return json_pack("{sb si so}", "ok", 0, "errno", -ret, "error",
			 command_text(text));
}

static json_t *text_or_null(const char *text)
{
	return text && text[0] ? command_text(text) : json_null();
}

static json_t *do_ping(struct chaind *chaind)
{
	return json_pack("{sb ss si}", "ok", 1, "version", QC2_VERSION, "pid",
			 (int)getpid());
}

static json_t *opened_reply(const struct disk *disk)
{
	char id[2 * QC2_CHAIN_ID_LEN + 1];
	struct cache_stats stats;

	cache_get_stats(disk->chaind->cache, &stats);
	format_hex(disk->chain->id, QC2_CHAIN_ID_LEN, id);
	return json_pack("{sb ss ss ss sI sI so ss ss}", "ok", 1, "name",
			 disk->info.name, "url", disk->info.url, "chain_id", id,
			 "sectors", (json_int_t)disk->chain->nr_sectors,
			 "depth", (json_int_t)disk->chain->nr_links,
			 "manifest_trouble", text_or_null(disk->chain->manifest_trouble),
			 "cache_device", stats.device, "bypass_device",
			 stats.bypass_device);
}

static void end_pending(struct pending *pending)
{
	TAILQ_REMOVE(&pendings, pending, entry);
	free(pending);
}

static void on_opened(void *arg, struct disk *disk, int ret,
		      const struct qc2_err *err)
{
	struct pending *pending = arg;

	pending->reply(pending->arg, ret ? command_error(ret, err->msg) :
					   opened_reply(disk), true);
	end_pending(pending);
}

/* Return: NULL if the reply comes later. */
static json_t *do_open(struct chaind *chaind, json_t *request, command_reply *reply,
		       void *arg)
{
	const char *name, *url;
	struct pending *pending;
	struct qc2_err err;
	int ret;

	if (json_unpack(request, "{ss ss}", "name", &name, "url", &url))
		return command_error(-EINVAL,
				     "open: needs \"name\" and \"url\"");
	pending = calloc(1, sizeof(*pending));
	if (!pending)
		return command_error(-ENOMEM, "out of memory");
	pending->reply = reply;
	pending->arg = arg;
	TAILQ_INSERT_TAIL(&pendings, pending, entry);
	ret = disk_open(chaind, name, url, on_opened, pending, &err);
	if (!ret)
		return NULL;
	end_pending(pending);
	return command_error(ret, err.msg);
}

void command_abandon(struct chaind *chaind, void *arg)
{
	struct pinning *pinning;
	struct pending *pending;

	TAILQ_FOREACH(pinning, &pinnings, entry) {
		if (pinning->arg == arg)
			pinning->reply = NULL;
	}
	TAILQ_FOREACH(pending, &pendings, entry) {
		if (pending->arg == arg)
			break;
	}
	if (pending) {
		disk_open_abandon(chaind, pending);
		end_pending(pending);
	}
	pull_abandon(arg);
}

/* Return: NULL if the reply comes later. */
static json_t *do_pull(struct chaind *chaind, json_t *request, command_reply *reply,
		       void *arg)
{
	struct qc2_err err;
	const char *url;
	int force = 0, ret;

	if (json_unpack(request, "{ss s?b}", "url", &url, "force", &force))
		return command_error(-EINVAL,
				     "pull: needs \"url\"; \"force\" is true or false");
	ret = pull_start(chaind, url, force, reply, arg, &err);
	return ret ? command_error(ret, err.msg) : NULL;
}

static json_t *no_disk(const char *name)
{
	struct qc2_err err;
	int ret = qc2_fail(&err, ENOENT, "there is no disk %.120s", name);

	return command_error(ret, err.msg);
}

static json_t *do_attach(struct chaind *chaind, json_t *request)
{
	const char *name, *dev_text, *tip;
	struct qc2_err err;
	struct disk *disk;
	uint32_t dev;
	int ret;

	if (json_unpack(request, "{ss ss ss}", "name", &name, "dev", &dev_text,
			"tip", &tip))
		return command_error(-EINVAL,
				     "attach: needs \"name\", \"dev\" and \"tip\"");
	dev = parse_dev(dev_text);
	if (!dev)
		return command_error(-EINVAL,
				     "attach: \"dev\" must be like 254:0");
	disk = disk_find(chaind, name);
	if (!disk)
		return no_disk(name);
	ret = disk_attach(disk, dev, tip, &err);
	return ret ? command_error(ret, err.msg) : json_pack("{sb}", "ok", 1);
}

static json_t *do_close(struct chaind *chaind, json_t *request)
{
	struct disk *disk;
	const char *name;

	if (json_unpack(request, "{ss}", "name", &name))
		return command_error(-EINVAL, "close: needs \"name\"");
	disk = disk_find(chaind, name);
	if (!disk)
		return no_disk(name);
	disk_close(disk);
	return json_pack("{sb}", "ok", 1);
}

static json_t *do_cache_resize(struct chaind *chaind, json_t *request)
{
	struct qc2_err err;
	json_int_t size;
	int ret;

	if (json_unpack(request, "{sI}", "size", &size) || size < 0)
		return command_error(-EINVAL, "cache-resize: needs \"size\", bytes");
	ret = cache_resize(chaind->cache, size, &err);
	return ret ? command_error(ret, err.msg) : json_pack("{sb}", "ok", 1);
}

static void on_pinned(void *arg, int ret)
{
	struct pinning *pinning = arg;

	if (pinning->reply)
		pinning->reply(pinning->arg, ret ?
			       command_error(ret, "the index of the cache was lost meanwhile") :
			       json_pack("{sb}", "ok", 1), true);
	TAILQ_REMOVE(&pinnings, pinning, entry);
	free(pinning);
}

/* Of a disk whose objects are all known. */
static int pin_disk(struct chaind *chaind, const char *name, bool pinned,
		    struct pinning *pinning, struct qc2_err *err)
{
	const struct disk *disk = disk_find(chaind, name);

	if (!disk)
		return qc2_fail(err, ENOENT, "there is no disk %.120s; start one over the same images",
				name);
	if (disk->state != DISK_ATTACHED)
		return qc2_fail(err, ENODEV, "disk %.120s is not running", name);
	if (disk->opening || disk->suspect)
		return qc2_fail(err, EAGAIN, "disk %.120s: its images are still being read; try again",
				name);
	return cache_pin(chaind->cache, disk->objects, 2 * disk->chain->nr_links, pinned,
			 on_pinned, pinning, err);
}

/* Return: NULL if the reply comes later. */
static json_t *do_cache_pin(struct chaind *chaind, json_t *request, command_reply *reply,
			    void *arg)
{
	const char *name = NULL;
	struct pinning *pinning;
	struct qc2_err err;
	int pinned, ret;

	if (json_unpack(request, "{s?s sb}", "name", &name, "pinned", &pinned) ||
	    (pinned && !name))
		return command_error(-EINVAL, "cache-pin: needs \"name\" and \"pinned\", true or false");
	pinning = calloc(1, sizeof(*pinning));
	if (!pinning)
		return command_error(-ENOMEM, "out of memory");
	pinning->reply = reply;
	pinning->arg = arg;
	TAILQ_INSERT_TAIL(&pinnings, pinning, entry);
	ret = name ? pin_disk(chaind, name, pinned, pinning, &err) :
		     cache_unpin_all(chaind->cache, on_pinned, pinning, &err);
	if (!ret)
		return NULL;
	TAILQ_REMOVE(&pinnings, pinning, entry);
	free(pinning);
	return command_error(ret, err.msg);
}

static json_t *cache_status(struct chaind *chaind)
{
	struct cache_stats s;

	cache_get_stats(chaind->cache, &s);
	return json_pack("{ss ss sI sI sI sI sI sI sI sI sb sI sI sI sI sI sI s{ss sI sI} so}",
			 "device", s.device, "path", s.path,
			 "slot_size", (json_int_t)QC2_BLOCK_BYTES,
			 "slots", (json_int_t)s.slots,
			 "used", (json_int_t)s.used,
			 "blocks", (json_int_t)s.names,
			 "zero_blocks", (json_int_t)s.zeros,
			 "unverified", (json_int_t)s.unverified,
			 "bad_slots", (json_int_t)s.bad_slots,
			 "pinned", (json_int_t)s.pinned,
			 "pins_full", s.pins_full,
			 "hits", (json_int_t)s.hits,
			 "evictions", (json_int_t)s.evictions,
			 "errors", (json_int_t)s.errors,
			 "damaged", (json_int_t)s.damaged,
			 "compared", (json_int_t)s.scrubbed,
			 "memory", (json_int_t)s.memory,
			 "bypass", "device", s.bypass_device,
			 "writes", (json_int_t)s.bypass_writes,
			 "used", (json_int_t)s.bypass_used,
			 "trouble", text_or_null(s.trouble));
}

static json_t *store_status(const struct origin *o)
{
	const struct qc2_latency *first = &o->first_byte;
	bool troubled = o->trouble.msg[0];

	return json_pack("{ss sI sI sI sI sI sI sI sI sI sI sI sI sI so so}",
			 "store", o->name,
			 "requests", (json_int_t)o->requests,
			 "bytes", (json_int_t)o->bytes,
			 "errors", (json_int_t)o->errors,
			 "retries", (json_int_t)o->retries,
			 "hedges", (json_int_t)o->hedges,
			 "hedges_won", (json_int_t)o->hedges_won,
			 "throttled", (json_int_t)o->throttled,
			 "running", (json_int_t)origin_running(o),
			 "limit", (json_int_t)o->limit,
			 "waiting", (json_int_t)fetch_waiting(o),
			 "first_byte_p50_us", (json_int_t)qc2_latency_at(first, 500),
			 "first_byte_p99_us", (json_int_t)qc2_latency_at(first, 990),
			 "bytes_per_second", (json_int_t)o->bandwidth,
			 "trouble", text_or_null(o->trouble.msg),
			 "trouble_s", troubled ?
			 json_integer((now_us() - o->trouble_since_us) / 1000000) : json_null());
}

static json_t *stores_status(void)
{
	json_t *stores = json_array();
	const struct origin *o;

	LIST_FOREACH(o, &origins, entry)
		json_array_append_new(stores, store_status(o));
	return stores;
}

static json_t *region_status(const struct region *region)
{
	struct region_stats s;

	if (!region)
		return json_null();
	region_get_stats(region, &s);
	return json_pack("{ss sI sI sI sI sI sI sI sI sI sI so so so}",
			 "url", s.url,
			 "hits", (json_int_t)s.hits,
			 "misses", (json_int_t)s.misses,
			 "bad", (json_int_t)s.bad,
			 "slow", (json_int_t)s.slow,
			 "errors", (json_int_t)s.errors,
			 "bytes", (json_int_t)s.bytes,
			 "stored", (json_int_t)s.store.stored,
			 "dropped", (json_int_t)s.store.dropped,
			 "store_errors", (json_int_t)s.store.errors,
			 "queued", (json_int_t)s.store.queued,
			 "trouble", text_or_null(s.trouble->msg),
			 "trouble_s", s.trouble->msg[0] ? json_integer(s.trouble_s) : json_null(),
			 "store_trouble", text_or_null(s.store.trouble->msg));
}

static json_t *links_status(const struct disk *disk)
{
	json_t *links = json_array();
	size_t i;

	for (i = 0; disk->chain && i < disk->chain->nr_links; i++) {
		const struct qc2_link *link = &disk->chain->links[i];

		json_array_append_new(links, json_pack("{ss sI ss sI sI sI}",
			"url", link->url, "size", (json_int_t)link->size,
			"version", link->version, "virtual_size",
			(json_int_t)link->virtual_size, "cluster_size",
			(json_int_t)link->cluster_size, "live_sectors",
			(json_int_t)link->live_sectors));
	}
	return links;
}

json_t *command_stalled(const struct disk *disk)
{
	struct qc2_err text;
	size_t i;

	if (disk->opening && disk->error.msg[0])
		return command_text(disk->error.msg);
	for (i = 0; disk->chain && i < 2 * disk->chain->nr_links; i++) {
		struct object *obj = disk->objects[i];
		const struct origin *o = obj ? object_place(obj, NULL)->origin : NULL;

		if (!o || !o->trouble.msg[0])
			continue;
		qc2_fail(&text, EAGAIN, "%s (no success for %llu s)",
			 o->trouble.msg,
			 (unsigned long long)(now_us() -
				o->trouble_since_us) / 1000000);
		return command_text(text.msg);
	}
	return json_null();
}

static bool is_pinned(const struct disk *disk)
{
	bool pinned = disk->chain && disk->objects;
	size_t i;

	for (i = 0; pinned && i < 2 * disk->chain->nr_links; i++)
		pinned = !disk->objects[i] ||
			 cache_is_pinned(disk->chaind->cache, disk->objects[i]);
	return pinned;
}

static json_t *disk_status(const struct disk *disk)
{
	static const char *const states[] = {
		[DISK_OPENING] = "opening",
		[DISK_OPEN] = "open",
		[DISK_ATTACHED] = "attached",
		[DISK_FAILED] = "failed",
	};
	const struct qc2_chain *chain = disk->chain;
	char id[2 * QC2_CHAIN_ID_LEN + 1] = "", dev[32] = "";
	unsigned int waiting;
	uint64_t oldest_ms;

	miss_waiting(disk, &waiting, &oldest_ms);
	if (chain || disk->info.dev)
		format_hex(disk->info.chain_id, QC2_CHAIN_ID_LEN, id);
	if (disk->info.dev)
		snprintf(dev, sizeof(dev), "%u:%u", disk->info.dev >> 20,
			 disk->info.dev & 0xfffff);
	return json_pack("{ss ss so sI sI sI sb sb sb so so so ss so sI sI sI sI so sI sI so so}",
			 "name", disk->info.name,
			 "url", disk->info.url,
			 "chain_id", text_or_null(id),
			 "sectors", (json_int_t)(chain ?
						 chain->nr_sectors : 0),
			 "depth", (json_int_t)(chain ? chain->nr_links : 0),
			 "live_sectors", (json_int_t)disk->live_sectors,
			 "pinned", is_pinned(disk),
			 "index_complete", chain && chain->index,
			 "from_manifest", chain && chain->from_manifest,
			 "manifest_trouble",
			 text_or_null(chain ? chain->manifest_trouble : NULL),
			 "dev", text_or_null(dev),
			 "tip", text_or_null(disk->info.tip),
			 "state", states[disk->state],
			 "error", text_or_null(disk->error.msg),
			 "requests", (json_int_t)disk->stats->requests,
			 "bytes_fetched", (json_int_t)disk->stats->bytes,
			 "misses", (json_int_t)disk->misses,
			 "errors", (json_int_t)disk->stats->errors,
			 "last_error",
			 text_or_null(disk->stats->last_error.msg),
			 "waiting", (json_int_t)waiting,
			 "oldest_wait_ms", (json_int_t)oldest_ms,
			 "stalled", command_stalled(disk),
			 "links", links_status(disk));
}

static json_t *do_status(struct chaind *chaind, json_t *request)
{
	json_t *disks = json_array();
	const char *name = NULL;
	struct disk *disk;

	if (json_unpack(request, "{s?s}", "name", &name)) {
		json_decref(disks);
		return command_error(-EINVAL,
				     "status: \"name\" must be a string");
	}
	if (name && !disk_find(chaind, name)) {
		json_decref(disks);
		return no_disk(name);
	}
	TAILQ_FOREACH(disk, &chaind->disks, entry) {
		if (!disk->unnamed && (!name || !strcmp(name, disk->info.name)))
			json_array_append_new(disks, disk_status(disk));
	}
	return json_pack("{sb ss si so so so so so}", "ok", 1, "version", QC2_VERSION,
			 "pid", (int)getpid(), "cache", cache_status(chaind),
			 "region", region_status(chaind->region), "stores", stores_status(),
			 "disks", disks,
			 "pulls", pulls_status());
}

void command_run(struct chaind *chaind, json_t *request, command_reply *reply, void *arg)
{
	const char *cmd;
	json_t *answer;

	if (json_unpack(request, "{ss}", "cmd", &cmd))
		answer = command_error(-EINVAL, "request has no \"cmd\"");
	else if (!strcmp(cmd, "ping"))
		answer = do_ping(chaind);
	else if (!strcmp(cmd, "open"))
		answer = do_open(chaind, request, reply, arg);
	else if (!strcmp(cmd, "pull"))
		answer = do_pull(chaind, request, reply, arg);
	else if (!strcmp(cmd, "attach"))
		answer = do_attach(chaind, request);
	else if (!strcmp(cmd, "cache-resize"))
		answer = do_cache_resize(chaind, request);
	else if (!strcmp(cmd, "cache-pin"))
		answer = do_cache_pin(chaind, request, reply, arg);
	else if (!strcmp(cmd, "close"))
		answer = do_close(chaind, request);
	else if (!strcmp(cmd, "status"))
		answer = do_status(chaind, request);
	else
		answer = command_error(-EOPNOTSUPP, "unknown \"cmd\"");
	if (answer)
		reply(arg, answer, true);
}
