/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What verbs that work on disks share: names, URLs, the lock on a name, removal of the mapped
 * device, and the daemon's view of one disk.
 *
 * One chainctl at a time works on a name: a lock file, removed at the end, is
 * held meanwhile.  So a device without a table under our lock is one that an
 * interrupted start left.
 */
#ifndef CHAINCTL_DISK_H
#define CHAINCTL_DISK_H

#include <sys/types.h>

#include <jansson.h>

#include "chainctl.h"
#include "dm.h"

#define SECTOR_SIZE	512ULL
/* Leaves room for the prefix in a device-mapper uuid of 128 characters. */
#define DISK_NAME_MAX	120
/* What goes by itself (udev looking at a device) is gone by then. */
#define DISK_BUSY_WAIT_MS	5000
#define DISK_BUSY_STEP_MS	50

/* Room for the uuid and the node of a disk */
#define DISK_UUID_LEN	(sizeof(DISK_UUID_PREFIX) + DISK_NAME_MAX)
#define DISK_NODE_LEN	(sizeof("/dev/mapper/") + DISK_NAME_MAX)

struct disk_lock_file {
	int fd;
	char *path;
};

/* The form in which URLs of top images are compared; NULL if it is none. */
char *disk_canonical_url(const char *url, struct qc2_err *err);

/* Is this the URL of a top image? */
int disk_check_url(const char *url, struct qc2_err *err);

int disk_need_root(struct qc2_err *err);

/**
 * disk_lock() - be the only chainctl that works on a name
 *
 * Return: 0; -EBUSY while another one does.
 */
int disk_lock(const struct ctl *ctl, const char *name, struct disk_lock_file *lock,
	      struct qc2_err *err);
void disk_unlock(struct disk_lock_file *lock);

/* mkdir -p */
int disk_make_dirs(const char *path, mode_t mode, struct qc2_err *err);

/**
 * disk_remove() - remove a mapped device
 *
 * Waits a little for users that go by themselves.
 *
 * Return: 0, also if it is gone already; -EBUSY, naming who holds it.
 */
int disk_remove(const char *name, const struct dm_dev *dev, struct qc2_err *err);

/* A request to the daemon that has a name only. */
json_t *disk_request(const char *cmd, const char *name);

/**
 * disk_ask_daemon() - what the daemon knows of one disk
 * @disk: an element of its status, to be dropped with json_decref()
 *
 * Return: 0; -ENOENT if it does not know the disk; as client_call().
 */
int disk_ask_daemon(const struct ctl *ctl, const char *name, json_t **disk,
		    struct qc2_err *err);

#endif
