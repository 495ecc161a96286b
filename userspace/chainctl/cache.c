/* SPDX-License-Identifier: GPL-2.0 */
/* chainctl cache: the host's cache, which chaind has. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "chainctl.h"
#include "client.h"

static int ask(const struct ctl *ctl, json_t *request, json_t *result, struct qc2_err *err)
{
	int ret = client_call(ctl->cfg.socket, request, CLIENT_LIMIT_MS, -1, NULL, err);

	if (!ret && ctl->json)
		return out_json(result, err);
	json_decref(result);
	return ret;
}

int cache_resize(struct ctl *ctl, struct qc2_err *err)
{
	char size[OUT_SIZE_LEN];
	uint64_t bytes;
	int ret;

	if (parse_size(ctl->arg[0], &bytes))
		return qc2_fail(err, EBADARG,
				"%s: expected bytes, or a number with K, M, G or T", ctl->arg[0]);
	ret = ask(ctl, json_pack("{s:s, s:I}", "cmd", "cache-resize", "size", (json_int_t)bytes),
		  json_pack("{s:I}", "size_bytes", (json_int_t)bytes), err);
	if (!ret && !ctl->json)
		printf("cache: %s from now on; set size in [cache] of the configuration for the next start\n",
		       out_size(size, bytes));
	return ret;
}

/* @name: NULL: all, which is for unpinning only */
static int set_pin(struct ctl *ctl, const char *name, bool pinned, struct qc2_err *err)
{
	json_t *request = json_pack("{s:s, s:b}", "cmd", "cache-pin", "pinned", pinned);
	int ret;

	if (name)
		json_object_set_new(request, "name", json_string(name));
	ret = ask(ctl, request, json_pack("{s:s?, s:b}", "name", name, "pinned", pinned), err);
	if (!ret && !ctl->json)
		printf("%s: what the cache has of its images %s\n", name ? name : "every disk",
		       pinned ? "stays there" : "is evicted as other data is");
	return ret;
}

int cache_pin(struct ctl *ctl, struct qc2_err *err)
{
	return set_pin(ctl, ctl->arg[0], true, err);
}

int cache_unpin(struct ctl *ctl, struct qc2_err *err)
{
	if (ctl->all == !!ctl->arg[0])
		return qc2_fail(err, EBADARG, "needs either the name of a disk or --all");
	return set_pin(ctl, ctl->arg[0], false, err);
}
