/* SPDX-License-Identifier: GPL-2.0 */
/* Pulls.  Main thread only.  A pull belongs to its client and goes with it. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "disk.h"
#include "fill.h"
#include "pull.h"

#define MAX_PULLS	16
/* How often the client is told. */
#define TELL_US		500000
/* While it waits for the index of the cache. */
#define LOOK_US		20000

struct pull {
	struct cache *cache;
	char *url;
	struct fill *fill;
	uint64_t since_us;
	bool saving;			/* all came; it is made durable */
	uint64_t sync;			/* ... by that; see cache_sync() */
	uint32_t losses;		/* of the cache, when it began to be */
	sd_event_source *timer;
	command_reply *reply;
	void *arg;
	TAILQ_ENTRY(pull) entry;
};
static TAILQ_HEAD(, pull) pulls = TAILQ_HEAD_INITIALIZER(pulls);
static unsigned int nr_pulls, last_number;

static json_t *numbers(const struct pull *pull)
{
	static const char *const states[] = {
		[FILL_OPENING] = "opening",
		[FILL_COUNTING] = "opening",
		[FILL_BRINGING] = "pulling",
		[FILL_ENDED] = "ended",
	};
	const struct disk *disk = fill_disk(pull->fill);
	struct fill_stats s;
	json_t *stalled = NULL;

	fill_get_stats(pull->fill, &s);
	/* Others may wait for a store that this one has no use for now. */
	if (disk && (fill_rests(pull->fill) || disk->error.msg[0]))
		stalled = command_stalled(disk);
	return json_pack("{so ss sI sI sI sI sI sI sI sI sI sb so}",
		"url", command_text(pull->url),
		"state", pull->saving ? "saving" : states[fill_get_state(pull->fill)],
		"live_bytes", (json_int_t)(s.live * QC2_BLOCK_BYTES),
		"done_bytes",
		(json_int_t)((s.local + s.same + s.zero + s.fetched) * QC2_BLOCK_BYTES),
		"local_bytes", (json_int_t)(s.local * QC2_BLOCK_BYTES),
		"same_bytes", (json_int_t)(s.same * QC2_BLOCK_BYTES),
		"zero_bytes", (json_int_t)(s.zero * QC2_BLOCK_BYTES),
		"fetched_bytes", (json_int_t)(s.fetched * QC2_BLOCK_BYTES),
		"requests", (json_int_t)s.requests,
		"downloaded_bytes", (json_int_t)s.bytes,
		"ms", (json_int_t)((now_us() - pull->since_us) / 1000),
		"verified", disk && disk->digests,
		"stalled", stalled ? stalled : json_null());
}

json_t *pulls_status(void)
{
	json_t *list = json_array();
	const struct pull *pull;

	TAILQ_FOREACH(pull, &pulls, entry)
		json_array_append_new(list, numbers(pull));
	return list;
}

static void pull_free(struct pull *pull)
{
	struct disk *disk = pull->fill ? fill_disk(pull->fill) : NULL;

	TAILQ_REMOVE(&pulls, pull, entry);
	nr_pulls--;
	if (pull->fill)
		fill_free(pull->fill);
	if (disk)
		disk_close(disk);
	sd_event_source_disable_unref(pull->timer);
	free(pull->url);
	free(pull);
}

static json_t *final_reply(const struct pull *pull)
{
	const struct disk *disk = fill_disk(pull->fill);
	json_t *reply = numbers(pull);

	json_object_set_new(reply, "ok", json_true());
	json_object_set_new(reply, "manifest_trouble",
			    disk && disk->chain && disk->chain->manifest_trouble ?
			    command_text(disk->chain->manifest_trouble) : json_null());
	return reply;
}

static void end(struct pull *pull, int ret, const char *msg)
{
	if (ret)
		log_warn("pull of %s: %s", pull->url, msg);
	else
		log_info("pull of %s: it is local", pull->url);
	pull->reply(pull->arg, ret ? command_error(ret, msg) : final_reply(pull), true);
	pull_free(pull);
}

/* Returns whether that was the end. */
static bool end_if_durable(struct pull *pull)
{
	struct cache_stats stats;
	bool durable = cache_is_durable(pull->cache, pull->sync), kept;
	struct fill_stats fill;
	struct qc2_err err;
	int ret = 0;

	fill_get_stats(pull->fill, &fill);
	cache_get_stats(pull->cache, &stats);
	kept = !fill.bypassed && stats.losses == pull->losses;
	if (kept && !durable && !stats.index_trouble)
		return false;
	if (!kept || !durable)
		ret = qc2_fail(&err, EIO,
			"all of it came, but the cache could not keep it: %s; pull again when that is mended",
			stats.trouble ? stats.trouble : "for a time it took no writes");
	end(pull, ret, err.msg);
	return true;
}

static void on_done(void *arg, int ret, const struct qc2_err *err)
{
	struct pull *pull = arg;
	struct cache_stats stats;

	if (ret) {
		end(pull, ret, err->msg);
		return;
	}
	cache_get_stats(pull->cache, &stats);
	pull->losses = stats.losses;
	pull->saving = true;
	pull->sync = cache_sync(pull->cache);
	if (!end_if_durable(pull))
		sd_event_source_set_time_relative(pull->timer, LOOK_US);
}

static int on_timer(sd_event_source *source, uint64_t usec, void *arg)
{
	struct pull *pull = arg;

	if (pull->saving && end_if_durable(pull))
		return 0;
	if (!pull->saving)
		pull->reply(pull->arg, json_pack("{so}", "progress", numbers(pull)), false);
	sd_event_source_set_time_relative(source, pull->saving ? LOOK_US : TELL_US);
	sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
	return 0;
}

int pull_start(struct chaind *chaind, const char *url, bool force, command_reply *reply,
	       void *arg, struct qc2_err *err)
{
	struct disk *disk;
	struct pull *pull;
	char label[32];
	int ret;

	if (nr_pulls == MAX_PULLS)
		return qc2_fail(err, EBUSY, "%d pulls are running, which is the most; wait for one",
				MAX_PULLS);
	pull = calloc(1, sizeof(*pull));
	if (!pull)
		return qc2_fail(err, ENOMEM, "out of memory");
	TAILQ_INSERT_TAIL(&pulls, pull, entry);
	nr_pulls++;
	pull->cache = chaind->cache;
	pull->reply = reply;
	pull->arg = arg;
	pull->since_us = now_us();
	pull->url = strdup(url);
	snprintf(label, sizeof(label), "(pull %u)", ++last_number);
	if (!pull->url ||
	    sd_event_add_time_relative(chaind->event, &pull->timer, CLOCK_MONOTONIC, TELL_US,
				       0, on_timer, pull) < 0)
		ret = qc2_fail(err, ENOMEM, "out of memory");
	else
		ret = disk_open_unnamed(chaind, label, url, &disk, err);
	if (!ret) {
		pull->fill = fill_new(disk, force, on_done, pull);
		if (!pull->fill) {
			disk_close(disk);
			ret = qc2_fail(err, ENOMEM, "out of memory");
		}
	}
	if (ret)
		pull_free(pull);
	return ret;
}

void pull_abandon(void *arg)
{
	struct pull *pull;

	TAILQ_FOREACH(pull, &pulls, entry) {
		if (pull->arg == arg)
			break;
	}
	if (!pull)
		return;
	log_info("pull of %s: called off", pull->url);
	pull_free(pull);
}
