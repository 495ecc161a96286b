/* SPDX-License-Identifier: GPL-2.0 */
/* Reading a device-mapper table.  Main thread only; no state. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/sysmacros.h>

#include <stdbool.h>
#include <libdevmapper.h>

#include "table.h"

/* "CHAIN_ID TIP_DEV NR_STORES STORE_DEV...": the first two, 0 for one that is not there. */
static void parse_stores(const char *params, dev_t stores[2])
{
	unsigned int nr_stores, maj[2], min[2];
	int n = sscanf(params, "%*s %*s %u %u:%u %u:%u", &nr_stores, &maj[0], &min[0],
		       &maj[1], &min[1]);

	stores[0] = n >= 3 && nr_stores ? makedev(maj[0], min[0]) : 0;
	stores[1] = n == 5 && nr_stores > 1 ? makedev(maj[1], min[1]) : 0;
}

/*
 * Runs a query of the table that is about to be resumed, if there is one, else
 * of the live one.  Returns a task to be destroyed, or NULL.
 */
static struct dm_task *query_table(unsigned int maj, unsigned int min,
				   bool inactive, struct qc2_err *err)
{
	struct dm_task *task = dm_task_create(DM_DEVICE_TABLE);
	struct dm_info info = {0};
	int ret;

	if (!task) {
		qc2_fail(err, ENOMEM, "device-mapper: out of memory");
		return NULL;
	}
	if (!dm_task_set_major(task, maj) || !dm_task_set_minor(task, min) ||
	    (inactive && !dm_task_query_inactive_table(task)) ||
	    !dm_task_run(task) || !dm_task_get_info(task, &info)) {
		ret = dm_task_get_errno(task);
		dm_task_destroy(task);
		qc2_fail(err, ret ? ret : EIO,
			 "device-mapper: table of %u:%u: %s", maj, min,
			 strerror(ret ? ret : EIO));
		return NULL;
	}
	if (inactive && !info.inactive_table) {
		dm_task_destroy(task);
		return query_table(maj, min, false, err);
	}
	return task;
}

int table_check_stores(uint32_t dev, dev_t cache, dev_t bypass, bool *has_bypass,
		       struct qc2_err *err)
{
	unsigned int maj = dev >> 20, min = dev & 0xfffff;
	dev_t stores[2] = { 0 };
	char *type = NULL, *params = NULL;
	struct dm_task *task;
	uint64_t start, len;
	int ret;

	task = query_table(maj, min, true, err);
	if (!task)
		return -EIO;
	dm_get_next_target(task, NULL, &start, &len, &type, &params);
	if (type && !strcmp(type, "qcow2chain") && params)
		parse_stores(params, stores);
	if (!stores[0])
		ret = qc2_fail(err, EINVAL,
			       "%u:%u: its table has no store device; the cache, %u:%u, must be the first",
			       maj, min, major(cache), minor(cache));
	else if (cache && stores[0] != cache)
		ret = qc2_fail(err, EINVAL,
			       "%u:%u: the first store device of its table is %u:%u, but the cache is %u:%u; was [cache] path changed, or the file replaced, while the disk was running?",
			       maj, min, major(stores[0]), minor(stores[0]), major(cache),
			       minor(cache));
	else
		ret = 0;
	*has_bypass = stores[1] == bypass;
	dm_task_destroy(task);
	return ret;
}

bool table_is_ours(unsigned int maj, unsigned int min)
{
	char *type = NULL, *params = NULL;
	struct dm_task *task;
	uint64_t start, len;
	bool ours;

	task = query_table(maj, min, false, NULL);
	if (!task)
		return false;
	dm_get_next_target(task, NULL, &start, &len, &type, &params);
	ours = type && !strcmp(type, "qcow2chain");
	dm_task_destroy(task);
	return ours;
}

void table_drop_map(uint32_t dev)
{
	struct dm_task *task = dm_task_create(DM_DEVICE_TARGET_MSG);

	if (!task)
		return;
	if (dm_task_set_major(task, dev >> 20) &&
	    dm_task_set_minor(task, dev & 0xfffff) && dm_task_set_sector(task, 0) &&
	    dm_task_set_message(task, "map_drop"))
		dm_task_run(task);
	dm_task_destroy(task);
}
