/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The daemon's side of the netlink protocol in <linux/dm-qcow2chain.h>:
 * registration, pulling requests, replies.  The daemon starts without the
 * module; it is looked for when a disk needs it.
 *
 * Main thread only.
 */
#ifndef CHAIND_KERNEL_H
#define CHAIND_KERNEL_H

#include <stdbool.h>
#include <stdint.h>

#include <systemd/sd-event.h>

#include <linux/dm-qcow2chain.h>

#include "err.h"

struct kernel;

/* A request of the kernel: the content of some sectors is wanted. */
struct kernel_request {
	uint32_t dev;		/* (major << 20 | minor), as everywhere here */
	uint64_t generation;
	uint64_t id;
	uint64_t sector;
	uint64_t nr_sectors;
	/* A read of it has failed in that store: what was replied is bad. */
	bool store_failed;
	uint32_t failed_store;
};

struct kernel_device {
	uint32_t dev;
	uint64_t generation;
	char name[128];
	uint8_t chain_id[QC2_CHAIN_ID_LEN];
	uint64_t nr_sectors;
	uint32_t owner;
};

struct kernel_ops {
	/*
	 * May come more than once for the same request; does after a negative
	 * return value, and when store_failed becomes true.
	 */
	int (*request)(void *arg, const struct kernel_request *req);
	/* The device is gone or no longer ours; it is not registered now. */
	void (*gone)(void *arg, uint32_t dev, const struct qc2_err *err);
};

/* Return: 0 or a negative errno. */
int kernel_new(struct kernel **kernel, sd_event *event,
	       const struct kernel_ops *ops, void *arg);
/* Closing gives all devices up; their requests wait for the next daemon. */
void kernel_close(struct kernel *kernel);

/**
 * kernel_find() - look a mapped device up
 * @generation: of the table that is meant; 0: the one loaded last
 *
 * Return: 0; -ENOENT if the module is not loaded; -ENODEV if it is no
 * qcow2chain device; or another negative errno.  @err is filled.
 */
int kernel_find(struct kernel *kernel, uint32_t dev, uint64_t generation,
		struct kernel_device *found, struct qc2_err *err);

/* Become the daemon of a device; its requests follow from the event loop. */
int kernel_register(struct kernel *kernel, uint32_t dev, struct qc2_err *err);
void kernel_unregister(struct kernel *kernel, uint32_t dev);

/*
 * Replies.  They are in the kernel's map when this returns.  A failure needs
 * no care: either the device or the table is gone, or the request is pulled
 * again.
 */
void kernel_reply_runs(struct kernel *kernel, uint32_t dev,
		       uint64_t generation, const struct qc2_run *runs,
		       unsigned int nr_runs);
void kernel_reply_error(struct kernel *kernel, uint32_t dev,
			uint64_t generation, uint64_t id, int errnum);

#endif
