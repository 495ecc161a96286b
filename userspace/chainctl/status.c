/* SPDX-License-Identifier: GPL-2.0 */
/*
 * status and list.  Both sides are asked, the kernel through device-mapper
 * and the daemon through its socket, and joined by name into one JSON
 * document; the output for people is made from that document.  A daemon that
 * is away or hangs takes nothing but its own part away.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "chainctl.h"
#include "client.h"
#include "dm.h"

#define SECTOR_SIZE	512ULL
#define SCHEMA		1

int status_parse(const char *line, struct disk_state *state)
{
	char mode[3];

	memset(state, 0, sizeof(*state));
	if (sscanf(line,
		   "%2s %" SCNu64 " %" SCNu64 " %" SCNu64 "/%" SCNu64 " %" SCNu64 " %" SCNu64
		   " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64
		   " %" SCNu64 " %" SCNu64,
		   mode, &state->owner, &state->dirty_sectors, &state->map_kb,
		   &state->map_limit_kb, &state->parked, &state->pending, &state->oldest_ms,
		   &state->reads_tip, &state->reads_store, &state->reads_zero,
		   &state->reads_missed, &state->writes, &state->commits,
		   &state->reads_again) != 15)
		return -EINVAL;
	if (strcmp(mode, "rw") && strcmp(mode, "ro"))
		return -EINVAL;
	state->read_only = !strcmp(mode, "ro");
	return 0;
}

static json_t *bytes(uint64_t sectors)
{
	return json_integer((json_int_t)(sectors * SECTOR_SIZE));
}

/* A number of sysfs for a block device; -1 if it is not there. */
static long queue_limit(unsigned int maj, unsigned int min, const char *attr)
{
	char path[96];
	long value = -1;
	FILE *f;

	snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/queue/%s", maj, min, attr);
	f = fopen(path, "re");
	if (f) {
		if (fscanf(f, "%ld", &value) != 1)
			value = -1;
		fclose(f);
	}
	return value;
}

/*
 * Puts what the kernel says about a mapped device into @disk.
 * Returns -ENXIO if the device is none of ours, or has gone meanwhile.
 */
static int add_kernel(json_t *disk, const char *name, struct qc2_err *err)
{
	char path[PATH_MAX], numbers[32], node[256];
	struct dm_target table = { }, status = { };
	struct disk_state state;
	dev_t tip_dev = 0;
	struct dm_dev dev;
	bool ours;
	int ret;

	ret = dm_info(name, &dev, err);
	if (ret)
		return ret;
	if (!dev.exists)
		return -ENXIO;
	ret = dm_table(name, &table, err);
	if (ret)
		return ret;
	ours = !strncmp(dev.uuid, DISK_UUID_PREFIX, strlen(DISK_UUID_PREFIX));
	if (strcmp(table.type, DM_TARGET) && !ours) {
		ret = -ENXIO;
		goto out;
	}
	ret = dm_status(name, &status, err);
	if (ret)
		goto out;

	snprintf(node, sizeof(node), "/dev/mapper/%s", name);
	snprintf(numbers, sizeof(numbers), "%u:%u", dev.major, dev.minor);
	json_object_set_new(disk, "device", json_string(node));
	json_object_set_new(disk, "dev", json_string(numbers));
	json_object_set_new(disk, "open_count", json_integer(dev.open_count));
	if (!dev.live_table || strcmp(table.type, DM_TARGET)) {
		json_object_set_new(disk, "state", json_string("incomplete"));
		goto out;
	}
	json_object_set_new(disk, "size", bytes(table.nr_sectors));
	json_object_set_new(disk, "logical_block_size",
			    json_integer(queue_limit(dev.major, dev.minor,
						     "logical_block_size")));
	if (disk_tip(table.params, &tip_dev, path, sizeof(path)) ||
	    status_parse(status.params, &state)) {
		ret = qc2_fail(err, EBADE,
			       "%s: the kernel's table \"%s\" or status line \"%s\" is not understood; do module and chainctl have the same version?",
			       name, table.params, status.params);
		goto out;
	}
	json_object_set_new(disk, "state",
			    json_string(state.read_only ? "read-only" :
					dev.suspended ? "suspended" :
					!state.owner ? "no daemon" : "running"));
	json_object_set_new(disk, "chain_id",
			    json_stringn(table.params, strcspn(table.params, " ")));
	snprintf(numbers, sizeof(numbers), "%u:%u", major(tip_dev), minor(tip_dev));
	json_object_set_new(disk, "tip",
			    json_pack("{s:s?, s:s, s:o, s:b}", "path", *path ? path : NULL, "dev",
				      numbers, "dirty_bytes", bytes(state.dirty_sectors),
				      "read_only", state.read_only));
	json_object_set_new(disk, "reads",
			    json_pack("{s:I, s:I, s:I, s:I, s:I}",
				      "tip", (json_int_t)state.reads_tip,
				      "store", (json_int_t)state.reads_store,
				      "zero", (json_int_t)state.reads_zero,
				      "missed", (json_int_t)state.reads_missed,
				      "asked_again", (json_int_t)state.reads_again));
	json_object_set_new(disk, "writes", json_integer(state.writes));
	json_object_set_new(disk, "commits", json_integer(state.commits));
	json_object_set_new(disk, "map",
			    json_pack("{s:I, s:I}", "bytes", (json_int_t)(state.map_kb * 1024),
				      "limit_bytes", (json_int_t)(state.map_limit_kb * 1024)));
	json_object_set_new(disk, "waiting",
			    json_pack("{s:I, s:I, s:I}", "bios", (json_int_t)state.parked,
				      "requests", (json_int_t)state.pending, "oldest_ms",
				      (json_int_t)state.oldest_ms));
out:
	dm_target_free(&table);
	dm_target_free(&status);
	return ret;
}

static json_t *links(const json_t *from)
{
	json_t *list = json_array();
	json_t *link;
	size_t i;

	json_array_foreach(json_object_get(from, "links"), i, link) {
		json_array_append_new(list,
			json_pack("{s:s, s:s, s:I, s:I, s:I, s:o}",
				  "url", client_str(link, "url"),
				  "version", client_str(link, "version"),
				  "size", (json_int_t)client_u64(link, "size"),
				  "virtual_size", (json_int_t)client_u64(link, "virtual_size"),
				  "cluster_size", (json_int_t)client_u64(link, "cluster_size"),
				  "live_bytes", bytes(client_u64(link, "live_sectors"))));
	}
	return list;
}

static json_t *text_or_null(const json_t *obj, const char *key)
{
	const char *s = client_str(obj, key);

	return *s ? json_string(s) : json_null();
}

/* Puts what the daemon says about a disk into @disk. */
static void add_daemon(json_t *disk, const json_t *from)
{
	static const char *const counters[] = {
		"requests", "bytes_fetched", "misses", "errors", "waiting", "oldest_wait_ms",
	};
	bool complete = json_is_true(json_object_get(from, "index_complete"));
	json_t *daemon = json_object();
	const char *state = client_str(from, "state");

	json_object_set_new(daemon, "state", json_string(state));
	for (size_t i = 0; i < sizeof(counters) / sizeof(counters[0]); i++)
		json_object_set_new(daemon, counters[i],
				    json_integer(client_u64(from, counters[i])));
	json_object_set_new(daemon, "error", text_or_null(from, "error"));
	json_object_set_new(daemon, "stalled", text_or_null(from, "stalled"));
	json_object_set_new(daemon, "last_error", text_or_null(from, "last_error"));
	json_object_set_new(disk, "daemon", daemon);

	json_object_set_new(disk, "url", text_or_null(from, "url"));
	json_object_set_new(disk, "depth", json_integer(client_u64(from, "depth")));
	json_object_set_new(disk, "index_complete", json_boolean(complete));
	/* Before that nobody knows. */
	if (complete)
		json_object_set_new(disk, "live_bytes",
				    bytes(client_u64(from, "live_sectors")));
	json_object_set_new(disk, "pinned",
			    json_boolean(json_is_true(json_object_get(from, "pinned"))));
	json_object_set_new(disk, "from_manifest",
			    json_boolean(json_is_true(json_object_get(from, "from_manifest"))));
	json_object_set_new(disk, "manifest_trouble", text_or_null(from, "manifest_trouble"));
	json_object_set_new(disk, "links", links(from));
	/* Where there is a live table, the kernel is right. */
	if (json_is_null(json_object_get(disk, "chain_id")))
		json_object_set_new(disk, "chain_id", text_or_null(from, "chain_id"));
	if (json_is_null(json_object_get(disk, "size")) && client_u64(from, "sectors"))
		json_object_set_new(disk, "size", bytes(client_u64(from, "sectors")));
	if (json_is_null(json_object_get(disk, "state")))
		json_object_set_new(disk, "state", json_string(state));
	else if (!strcmp(client_str(disk, "state"), "running") && *client_str(from, "stalled"))
		json_object_set_new(disk, "state", json_string("stalled"));
	/* The tip as it was asked for; the kernel knows numbers only. */
	if (*client_str(from, "tip") && json_is_object(json_object_get(disk, "tip")))
		json_object_set_new(json_object_get(disk, "tip"), "path",
				    text_or_null(from, "tip"));
}

/* A disk with every member there, so that readers need not ask. */
static json_t *new_disk(const char *name)
{
	static const char *const members[] = {
		"state", "device", "dev", "size", "logical_block_size", "open_count", "url",
		"chain_id", "depth", "index_complete", "live_bytes", "pinned", "from_manifest",
		"manifest_trouble", "tip", "reads", "writes", "commits", "map", "waiting", "daemon",
	};
	json_t *disk = json_object();

	json_object_set_new(disk, "name", json_string(name));
	for (size_t i = 0; i < sizeof(members) / sizeof(members[0]); i++)
		json_object_set_new(disk, members[i], json_null());
	json_object_set_new(disk, "links", json_array());
	return disk;
}

static json_t *find_disk(json_t *disks, const char *name)
{
	json_t *disk;
	size_t i;

	json_array_foreach(disks, i, disk)
		if (!strcmp(client_str(disk, "name"), name))
			return disk;
	return NULL;
}

static int collect_kernel(json_t *disks, const char *only, struct qc2_err *err)
{
	char **names = NULL;
	size_t nr = 0;
	int ret;

	ret = dm_names(&names, &nr, err);
	if (ret)
		return ret;
	for (size_t i = 0; i < nr && !ret; i++) {
		json_t *disk;

		if (only && strcmp(only, names[i]))
			continue;
		disk = new_disk(names[i]);
		ret = add_kernel(disk, names[i], err);
		if (!ret)
			json_array_append(disks, disk);
		json_decref(disk);
		if (ret == -ENXIO)
			ret = 0;
	}
	dm_names_free(names, nr);
	return ret;
}

static json_t *cache_part(const json_t *cache)
{
	uint64_t slot = client_u64(cache, "slot_size");
	const json_t *bypass = json_object_get(cache, "bypass");

	if (!json_is_object(cache))
		return json_null();
	return json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:b, s:I, s:I, s:I, s:I, s:I, s:I, s:{s:s, s:I, s:I}, s:O}",
			 "path", client_str(cache, "path"),
			 "device", client_str(cache, "device"),
			 "slot_bytes", (json_int_t)slot,
			 "size_bytes", (json_int_t)(slot * client_u64(cache, "slots")),
			 "used_bytes", (json_int_t)(slot * client_u64(cache, "used")),
			 "logical_bytes", (json_int_t)(slot * client_u64(cache, "blocks")),
			 "zero_bytes", (json_int_t)(slot * client_u64(cache, "zero_blocks")),
			 "unverified_bytes", (json_int_t)(slot * client_u64(cache, "unverified")),
			 "bad_bytes", (json_int_t)(slot * client_u64(cache, "bad_slots")),
			 "pinned_bytes", (json_int_t)(slot * client_u64(cache, "pinned")),
			 "pins_full", json_is_true(json_object_get(cache, "pins_full")),
			 "memory_bytes", (json_int_t)client_u64(cache, "memory"),
			 "hits", (json_int_t)client_u64(cache, "hits"),
			 "evictions", (json_int_t)client_u64(cache, "evictions"),
			 "errors", (json_int_t)client_u64(cache, "errors"),
			 "damaged", (json_int_t)client_u64(cache, "damaged"),
			 "compared_bytes", (json_int_t)(slot * client_u64(cache, "compared")),
			 "bypass", "device", client_str(bypass, "device"),
			 "used_bytes", (json_int_t)(slot * client_u64(bypass, "used")),
			 "written_bytes", (json_int_t)(slot * client_u64(bypass, "writes")),
			 "trouble", json_object_get(cache, "trouble"));
}

static json_t *region_part(const json_t *reply)
{
	json_t *from = json_object_get(reply, "region");

	return json_is_object(from) ? json_incref(from) : json_null();
}

/* What the daemon has a list of, as it is. */
static json_t *list_of(const json_t *reply, const char *key)
{
	json_t *from = json_object_get(reply, key);

	return json_is_array(from) ? json_incref(from) : json_array();
}

static void collect_daemon(const struct ctl *ctl, json_t *doc, const char *only)
{
	json_t *disks = json_object_get(doc, "disks");
	json_t *reply = NULL, *from;
	struct qc2_err why = { };
	size_t i;

	if (client_call(ctl->cfg.socket, json_pack("{s:s}", "cmd", "status"), CLIENT_LIMIT_MS, -1,
			&reply, &why)) {
		json_object_set_new(doc, "daemon",
				    json_pack("{s:b, s:n, s:n, s:s}", "running", 0, "version",
					      "pid", "error", why.msg));
		json_object_set_new(doc, "cache", json_null());
		json_object_set_new(doc, "region", json_null());
		json_object_set_new(doc, "stores", json_array());
		json_object_set_new(doc, "pulls", json_array());
		return;
	}
	json_object_set_new(doc, "daemon",
			    json_pack("{s:b, s:s, s:I, s:n}", "running", 1, "version",
				      client_str(reply, "version"), "pid",
				      (json_int_t)client_u64(reply, "pid"), "error"));
	json_object_set_new(doc, "cache", cache_part(json_object_get(reply, "cache")));
	json_object_set_new(doc, "stores", list_of(reply, "stores"));
	json_object_set_new(doc, "pulls", list_of(reply, "pulls"));
	json_object_set_new(doc, "region", region_part(reply));
	json_array_foreach(json_object_get(reply, "disks"), i, from) {
		const char *name = client_str(from, "name");
		json_t *disk;

		if (only && strcmp(only, name))
			continue;
		disk = find_disk(disks, name);
		if (!disk) {
			disk = new_disk(name);
			json_array_append_new(disks, disk);
		}
		add_daemon(disk, from);
	}
	json_decref(reply);
}

/* Everything as one document; @only: one disk, which must be there. */
static int collect(const struct ctl *ctl, const char *only, json_t **doc, struct qc2_err *err)
{
	json_t *disks = json_array();
	int ret;

	*doc = json_pack("{s:i, s:o}", "schema", SCHEMA, "disks", disks);
	if (!*doc)
		return qc2_fail(err, ENOMEM, "not enough memory");
	ret = collect_kernel(disks, only, err);
	if (!ret)
		collect_daemon(ctl, *doc, only);
	if (!ret && only && !json_array_size(disks))
		ret = qc2_fail(err, ENOENT, "there is no disk %s; chainctl list shows which there are",
			       only);
	if (ret)
		json_decref(*doc);
	return ret;
}

static const char *human(char buf[OUT_SIZE_LEN], const json_t *obj, const char *key)
{
	return out_size(buf, client_u64(obj, key));
}

static void print_field(const char *title, const char *text)
{
	printf("  %-9s ", title);
	out_text(stdout, text);
	putchar('\n');
}

static void print_kernel(const json_t *disk)
{
	const json_t *tip = json_object_get(disk, "tip");
	const json_t *reads = json_object_get(disk, "reads");
	const json_t *map = json_object_get(disk, "map");
	const json_t *waiting = json_object_get(disk, "waiting");
	char a[OUT_SIZE_LEN], b[OUT_SIZE_LEN];

	printf("  tip       ");
	out_text(stdout, *client_str(tip, "path") ? client_str(tip, "path") :
		 client_str(tip, "dev"));
	printf(", %s written%s\n", human(a, tip, "dirty_bytes"),
	       json_is_true(json_object_get(tip, "read_only")) ?
	       "; a commit failed, so it takes no more writes" : "");
	printf("  reads     %" PRIu64 " from the tip, %" PRIu64 " from stores, %" PRIu64
	       " of zeros, %" PRIu64 " missed",
	       client_u64(reads, "tip"), client_u64(reads, "store"), client_u64(reads, "zero"),
	       client_u64(reads, "missed"));
	if (client_u64(reads, "asked_again"))
		printf(", %" PRIu64 " asked again because a store failed",
		       client_u64(reads, "asked_again"));
	putchar('\n');
	printf("  writes    %" PRIu64 ", %" PRIu64 " commits\n", client_u64(disk, "writes"),
	       client_u64(disk, "commits"));
	printf("  waiting   %" PRIu64 " reads for %" PRIu64 " requests",
	       client_u64(waiting, "bios"), client_u64(waiting, "requests"));
	if (client_u64(waiting, "requests"))
		printf(", the oldest for %.1f s", client_u64(waiting, "oldest_ms") / 1000.0);
	printf("\n  map       %s of at most %s\n", human(a, map, "bytes"),
	       human(b, map, "limit_bytes"));
	if (client_u64(disk, "logical_block_size") > 512)
		printf("  blocks    %" PRIu64 " bytes, as the device of the tip or the cache has\n",
		       client_u64(disk, "logical_block_size"));
}

static void print_disk(const json_t *disk)
{
	const json_t *daemon = json_object_get(disk, "daemon");
	bool complete = json_is_true(json_object_get(disk, "index_complete"));
	char a[OUT_SIZE_LEN];

	out_text(stdout, client_str(disk, "name"));
	printf(": %s", client_str(disk, "state"));
	if (client_u64(disk, "size"))
		printf(", %s", human(a, disk, "size"));
	if (*client_str(disk, "device"))
		printf(" at %s (%s)", client_str(disk, "device"),
		       client_u64(disk, "open_count") ? "in use" : "not in use");
	putchar('\n');
	if (*client_str(disk, "url"))
		print_field("image", client_str(disk, "url"));
	if (client_u64(disk, "depth"))
		printf("  chain     %" PRIu64 " links, %s%s, id %s\n",
		       client_u64(disk, "depth"),
		       complete ? human(a, disk, "live_bytes") : "index being read",
		       complete ? " live" : "", client_str(disk, "chain_id"));
	else if (*client_str(disk, "chain_id"))
		print_field("chain", client_str(disk, "chain_id"));
	if (json_is_true(json_object_get(disk, "pinned")))
		print_field("cache", "what it has of the images is pinned");
	if (*client_str(disk, "manifest_trouble")) {
		fputs("  manifest  not used: ", stdout);
		out_text(stdout, client_str(disk, "manifest_trouble"));
		putchar('\n');
	}
	if (json_is_object(json_object_get(disk, "tip")))
		print_kernel(disk);
	if (!json_is_object(daemon))
		return;
	printf("  fetched   %s in %" PRIu64 " requests; %" PRIu64 " misses answered, %" PRIu64
	       " errors, %" PRIu64 " waiting\n",
	       human(a, daemon, "bytes_fetched"), client_u64(daemon, "requests"),
	       client_u64(daemon, "misses"), client_u64(daemon, "errors"),
	       client_u64(daemon, "waiting"));
	if (*client_str(daemon, "stalled"))
		print_field("stalled", client_str(daemon, "stalled"));
	if (*client_str(daemon, "error"))
		print_field("error", client_str(daemon, "error"));
	if (*client_str(daemon, "last_error"))
		print_field("failed", client_str(daemon, "last_error"));
}

static void print_store(const json_t *store)
{
	char a[OUT_SIZE_LEN];

	fputs("store ", stdout);
	out_text(stdout, client_str(store, "store"));
	printf(": %s in %" PRIu64 " requests, first byte after %.1f ms (p99 %.1f ms), %" PRIu64
	       " errors, %" PRIu64 " retries, %" PRIu64 " sent twice, throttled %" PRIu64
	       " times, %" PRIu64 " of %" PRIu64 " connections in use, %" PRIu64
	       " blocks waited for\n",
	       human(a, store, "bytes"), client_u64(store, "requests"),
	       client_u64(store, "first_byte_p50_us") / 1000.0,
	       client_u64(store, "first_byte_p99_us") / 1000.0, client_u64(store, "errors"),
	       client_u64(store, "retries"), client_u64(store, "hedges"),
	       client_u64(store, "throttled"), client_u64(store, "running"),
	       client_u64(store, "limit"), client_u64(store, "waiting"));
	if (!*client_str(store, "trouble"))
		return;
	printf("  no success for %" PRIu64 " s: ", client_u64(store, "trouble_s"));
	out_text(stdout, client_str(store, "trouble"));
	putchar('\n');
}

static void print_cache(const json_t *cache)
{
	const json_t *bypass = json_object_get(cache, "bypass");
	char a[OUT_SIZE_LEN], b[OUT_SIZE_LEN], c[OUT_SIZE_LEN];

	printf("cache: ");
	out_text(stdout, client_str(cache, "path"));
	printf(", %s of %s used\n", human(a, cache, "used_bytes"), human(b, cache, "size_bytes"));
	printf("  holds     %s of images, %s of it zeros; tables of %s in memory\n",
	       human(a, cache, "logical_bytes"), human(b, cache, "zero_bytes"),
	       human(c, cache, "memory_bytes"));
	printf("  counts    %" PRIu64 " hits, %" PRIu64 " evictions, %" PRIu64 " errors\n",
	       client_u64(cache, "hits"), client_u64(cache, "evictions"),
	       client_u64(cache, "errors"));
	printf("  checked   %s, %" PRIu64 " blocks were damaged\n",
	       human(a, cache, "compared_bytes"), client_u64(cache, "damaged"));
	if (client_u64(cache, "unverified_bytes"))
		printf("  to check  %s, each before it is used\n",
		       human(a, cache, "unverified_bytes"));
	if (client_u64(cache, "bad_bytes"))
		printf("  bad       %s are not used\n", human(a, cache, "bad_bytes"));
	if (client_u64(cache, "pinned_bytes"))
		printf("  pinned    %s are not evicted%s\n", human(a, cache, "pinned_bytes"),
		       json_is_true(json_object_get(cache, "pins_full")) ?
		       ", which is all that may be: more is evicted as other data is" : "");
	if (client_u64(bypass, "written_bytes"))
		printf("  bypass    %s went through memory, %s are there\n",
		       human(a, bypass, "written_bytes"), human(b, bypass, "used_bytes"));
	if (*client_str(cache, "trouble"))
		print_field("trouble", client_str(cache, "trouble"));
}

static void print_pull(const json_t *pull)
{
	char a[OUT_SIZE_LEN], b[OUT_SIZE_LEN], c[OUT_SIZE_LEN];

	fputs("pull of ", stdout);
	out_text(stdout, client_str(pull, "url"));
	if (client_u64(pull, "live_bytes"))
		printf(": %s of %s local, %s fetched\n", human(a, pull, "done_bytes"),
		       human(b, pull, "live_bytes"), human(c, pull, "fetched_bytes"));
	else
		puts(": opening the chain");
	if (*client_str(pull, "stalled"))
		print_field("stalled", client_str(pull, "stalled"));
}

static void print_region(const json_t *region)
{
	char a[OUT_SIZE_LEN];

	fputs("regional cache: ", stdout);
	out_text(stdout, client_str(region, "url"));
	printf(", %" PRIu64 " hits (%s), %" PRIu64 " misses, %" PRIu64 " bad, %" PRIu64
	       " too slow, %" PRIu64 " errors; %" PRIu64 " stored, %" PRIu64 " dropped, %" PRIu64
	       " failed\n", client_u64(region, "hits"), human(a, region, "bytes"),
	       client_u64(region, "misses"), client_u64(region, "bad"),
	       client_u64(region, "slow"), client_u64(region, "errors"),
	       client_u64(region, "stored"), client_u64(region, "dropped"),
	       client_u64(region, "store_errors"));
	if (*client_str(region, "trouble")) {
		printf("  not used for %" PRIu64 " s: ", client_u64(region, "trouble_s"));
		out_text(stdout, client_str(region, "trouble"));
		putchar('\n');
	}
	if (*client_str(region, "store_trouble")) {
		fputs("  not written to: ", stdout);
		out_text(stdout, client_str(region, "store_trouble"));
		putchar('\n');
	}
}

int status_show(struct ctl *ctl, struct qc2_err *err)
{
	const char *only = ctl->arg[0];
	json_t *doc, *disk, *daemon, *cache, *store, *pull;
	size_t i;
	int ret;

	ret = collect(ctl, only, &doc, err);
	if (ret)
		return ret;
	if (ctl->json)
		return out_json(doc, err);
	daemon = json_object_get(doc, "daemon");
	cache = json_object_get(doc, "cache");
	json_array_foreach(json_object_get(doc, "disks"), i, disk)
		print_disk(disk);
	json_array_foreach(json_object_get(doc, "stores"), i, store)
		print_store(store);
	if (json_is_object(cache))
		print_cache(cache);
	json_array_foreach(json_object_get(doc, "pulls"), i, pull)
		print_pull(pull);
	if (json_is_object(json_object_get(doc, "region")))
		print_region(json_object_get(doc, "region"));
	if (json_is_true(json_object_get(daemon, "running"))) {
		printf("chaind: version %s, process %" PRIu64 "\n", client_str(daemon, "version"),
		       client_u64(daemon, "pid"));
	} else {
		/* The text says itself whether it does not run or does not answer. */
		out_text(stdout, client_str(daemon, "error"));
		putchar('\n');
	}
	json_decref(doc);
	return 0;
}

static json_t *list_part(const json_t *disk)
{
	static const char *const members[] = {
		"name", "state", "device", "size", "depth", "url",
	};
	const json_t *tip = json_object_get(disk, "tip");
	json_t *entry = json_object();

	for (size_t i = 0; i < sizeof(members) / sizeof(members[0]); i++)
		json_object_set(entry, members[i], json_object_get(disk, members[i]));
	json_object_set_new(entry, "tip", text_or_null(tip, "path"));
	json_object_set_new(entry, "dirty_bytes",
			    json_is_object(tip) ? json_integer(client_u64(tip, "dirty_bytes")) :
			    json_null());
	return entry;
}

int status_list(struct ctl *ctl, struct qc2_err *err)
{
	char size[OUT_SIZE_LEN], dirty[OUT_SIZE_LEN];
	json_t *doc, *disk, *all = json_array();
	size_t i;
	int ret;

	ret = collect(ctl, NULL, &doc, err);
	if (ret) {
		json_decref(all);
		return ret;
	}
	json_array_foreach(json_object_get(doc, "disks"), i, disk)
		json_array_append_new(all, list_part(disk));
	json_decref(doc);
	if (ctl->json)
		return out_json(json_pack("{s:i, s:o}", "schema", SCHEMA, "disks", all), err);
	if (json_array_size(all))
		printf("%-16s %-10s %10s %10s %6s  %s\n", "NAME", "STATE", "SIZE", "WRITTEN",
		       "DEPTH", "IMAGE");
	json_array_foreach(all, i, disk) {
		printf("%-16s %-10s %10s %10s ", client_str(disk, "name"),
		       client_str(disk, "state"), human(size, disk, "size"),
		       human(dirty, disk, "dirty_bytes"));
		if (client_u64(disk, "depth"))
			printf("%6" PRIu64, client_u64(disk, "depth"));
		else
			printf("%6s", "-");
		printf("  ");
		out_text(stdout, *client_str(disk, "url") ? client_str(disk, "url") : "-");
		putchar('\n');
	}
	json_decref(all);
	return 0;
}
