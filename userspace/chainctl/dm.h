/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Device-mapper as chainctl uses it, over libdevmapper.  libdevmapper's own
 * messages are kept and become part of our errors.
 */
#ifndef CHAINCTL_DM_H
#define CHAINCTL_DM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "err.h"

#define DM_TARGET	"qcow2chain"

struct dm_dev {
	bool exists;
	bool live_table;
	bool suspended;
	unsigned int major, minor;
	int open_count;
	char uuid[129];		/* empty if it has none */
};

/* What a device with one target maps. */
struct dm_target {
	uint64_t nr_sectors;	/* 0: the device has no table */
	char *type;
	char *params;		/* table or status line */
};

/* Before and after all other functions. */
void dm_setup(void);
void dm_teardown(void);

/**
 * dm_info() - look a device up
 * @dev: exists is false if there is no such device, which is no error
 *
 * Return: 0 or a negative errno with @err filled, as everywhere here.
 */
int dm_info(const char *name, struct dm_dev *dev, struct qc2_err *err);

/* Checks that the kernel has our target; loads the module if need be. */
int dm_check_kernel(struct qc2_err *err);

/* Makes a device without a table. */
int dm_make(const char *name, const char *uuid, struct dm_dev *dev, struct qc2_err *err);

/* Loads a table of one qcow2chain target into the inactive slot. */
int dm_load(const char *name, uint64_t nr_sectors, const char *params, struct qc2_err *err);

/**
 * dm_resume() - make the loaded table live and wait for the device node
 * @cancel_fd: the wait ends with -EINTR when this becomes readable; -1: none
 * @settled: false if udev was not ready after a minute; the node is there then
 *	all the same
 */
int dm_resume(const char *name, int cancel_fd, bool *settled, struct qc2_err *err);

/* Makes all I/O to a device fail, also what waits in it now. */
int dm_fail_io(const char *name, uint64_t nr_sectors, struct qc2_err *err);

/* Removes a device; -EBUSY while it is open. */
int dm_remove(const char *name, struct qc2_err *err);

/**
 * dm_table(), dm_status() - the first target of a device
 * @target: to be freed with dm_target_free() after success
 *
 * -ENXIO if there is no such device.
 */
int dm_table(const char *name, struct dm_target *target, struct qc2_err *err);
int dm_status(const char *name, struct dm_target *target, struct qc2_err *err);
void dm_target_free(struct dm_target *target);

/**
 * dm_names() - the names of all mapped devices of this host
 * @names: array of *@nr strings, to be freed with dm_names_free()
 */
int dm_names(char ***names, size_t *nr, struct qc2_err *err);
void dm_names_free(char **names, size_t nr);

#endif
