/* SPDX-License-Identifier: GPL-2.0 */
/*
 * chainctl pull: has the daemon bring an image into the cache, and reports what that
 * cost.  The daemon ends it when our connection ends, so a signal needs no care.
 */
#include <errno.h>
#include <inttypes.h>

#include "client.h"
#include "disk.h"

#define SCHEMA		1

static void show_progress(void *arg, const json_t *pull)
{
	const char *stalled = client_str(pull, "stalled");
	char size[OUT_SIZE_LEN], more[256];

	if (*stalled)
		snprintf(more, sizeof(more), ", waiting: %.100s", stalled);
	else
		snprintf(more, sizeof(more), ", %s fetched",
			 out_size(size, client_u64(pull, "fetched_bytes")));
	if (client_u64(pull, "live_bytes"))
		out_progress("pulling", client_u64(pull, "done_bytes"),
			     client_u64(pull, "live_bytes"), more);
}

/* Of the live data, what had not to be fetched. */
static double saved_percent(const json_t *pull)
{
	uint64_t live = client_u64(pull, "live_bytes");

	return live ? 100.0 * (live - client_u64(pull, "fetched_bytes")) / live : 100;
}

static int report_json(const json_t *pull, struct qc2_err *err)
{
	static const char *const members[] = {
		"url", "live_bytes", "local_bytes", "same_bytes", "zero_bytes",
		"fetched_bytes", "requests", "downloaded_bytes", "verified",
		"manifest_trouble",
	};
	json_t *doc = json_pack("{si sf sf}", "schema", SCHEMA,
				"saved_percent", saved_percent(pull),
				"seconds", client_u64(pull, "ms") / 1000.0);

	for (size_t i = 0; i < sizeof(members) / sizeof(members[0]); i++)
		json_object_set(doc, members[i], json_object_get(pull, members[i]));
	return out_json(doc, err);
}

static void report(const json_t *pull)
{
	char size[OUT_SIZE_LEN];

	out_text(stdout, client_str(pull, "url"));
	printf(": %s of live data, local now\n", out_size(size, client_u64(pull, "live_bytes")));
	printf("  was there %10s\n", out_size(size, client_u64(pull, "local_bytes")));
	printf("  as other  %10s  equal content of other images, or of other places\n",
	       out_size(size, client_u64(pull, "same_bytes")));
	printf("  zeros     %10s\n", out_size(size, client_u64(pull, "zero_bytes")));
	printf("  fetched   %10s  in %" PRIu64 " requests",
	       out_size(size, client_u64(pull, "fetched_bytes")), client_u64(pull, "requests"));
	printf(", which brought %s\n", out_size(size, client_u64(pull, "downloaded_bytes")));
	printf("  saved     %8.1f %%\n  took      %8.1f s\n", saved_percent(pull),
	       client_u64(pull, "ms") / 1000.0);
}

int chain_pull(struct ctl *ctl, struct qc2_err *err)
{
	const char *url = ctl->arg[0];
	json_t *reply = NULL;
	int ret;

	ret = disk_check_url(url, err);
	if (ret)
		return ret;
	ret = client_follow(ctl->cfg.socket,
			    json_pack("{s:s, s:s, s:b}", "cmd", "pull", "url", url, "force",
				      ctl->force),
			    show_progress, NULL, &reply, err);
	out_progress_end();
	if (ret == -EINVAL)
		return -EUCLEAN;	/* a URL that is none was refused before */
	if (ret == -EIO)
		return -EREMOTEIO;	/* of the store */
	if (ret)
		return ret;
	if (*client_str(reply, "manifest_trouble"))
		out_warn(ctl, "manifest not used, all images were read instead: %s",
			 client_str(reply, "manifest_trouble"));
	if (ctl->json)
		ret = report_json(reply, err);
	else
		report(reply);
	json_decref(reply);
	return ret;
}
