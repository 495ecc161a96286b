/* SPDX-License-Identifier: GPL-2.0 */
/*
 * State files: one for each attached disk, RUN_DIR/disks/NAME.json, so that a
 * new daemon can take the running disks over.  Main thread only.
 */
#ifndef CHAIND_STATE_H
#define CHAIND_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <linux/dm-qcow2chain.h>

#include "err.h"

#define DISK_NAME_MAX	100

struct disk_info {
	char *name;
	char *url;
	char *tip;		/* NULL unless attached, like the rest */
	char *dm_name;		/* name of the mapped device */
	uint32_t dev;		/* (major << 20 | minor), 0: not attached */
	uint8_t chain_id[QC2_CHAIN_ID_LEN];
};

void disk_info_free(struct disk_info *info);

/* Letters, digits, "._-", not "." or "-" first, at most DISK_NAME_MAX. */
bool disk_name_ok(const char *name);

/* "254:0" to a device number; 0: not one */
uint32_t parse_dev(const char *text);

/* @text has room for 2 * @len + 1 characters. */
void format_hex(const uint8_t *bytes, size_t len, char *text);

/* Makes RUN_DIR/disks.  All return 0 or a negative errno with @err filled. */
int state_setup(const char *run_dir, struct qc2_err *err);

/* Written to a new file that then replaces an old one. */
int state_save(const char *run_dir, const struct disk_info *info,
	       struct qc2_err *err);
void state_remove(const char *run_dir, const char *name);

/**
 * state_load_all() - read all state files
 * @found: called for each, takes @info over.  A file that cannot be
 *	understood is logged and left alone.
 */
int state_load_all(const char *run_dir,
		   void (*found)(void *arg, struct disk_info *info), void *arg,
		   struct qc2_err *err);

#endif
