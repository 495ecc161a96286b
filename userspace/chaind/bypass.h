/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The way around the cache: a few slots in memory, behind a loop device that is store 1 of
 * every disk.  A block goes there when it cannot be written to the cache; it stays for
 * the next 200 or so, and is not kept beyond that.
 *
 * The slots are a ring.  Before some are used again they are taken out of the table, then
 * kernels are made to forget them.
 *
 * Main thread only; the jobs touch nothing but their buffer, the device and a netlink
 * socket of their own.
 */
#ifndef CHAIND_BYPASS_H
#define CHAIND_BYPASS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include <systemd/sd-event.h>

#include "err.h"
#include "object.h"

/* Stores of a table. */
#define CACHE_STORE		0
#define BYPASS_STORE		1
#define BYPASS_NO_SLOT		UINT32_MAX

struct bypass;

/* @path: its file, in a folder that is in memory.  0 or a negative errno with @err. */
int bypass_open(struct bypass **bypass, sd_event *event, const char *path,
		struct qc2_err *err);

/* For the end of the program: waits for the jobs that run, frees all. */
void bypass_close(struct bypass *bypass);

dev_t bypass_dev(const struct bypass *bypass);
const char *bypass_device(const struct bypass *bypass);

/* The slot that holds a block, or BYPASS_NO_SLOT. */
uint32_t bypass_lookup(const struct bypass *bypass, const struct object *obj, uint32_t block);

/**
 * bypass_write() - put a block there
 * @data: QC2_BLOCK_BYTES, copied
 * @done: called from the event loop when it is there (0), or cannot be (-EIO)
 *
 * Return: 0 or -ENOMEM, and @done is not called.
 */
int bypass_write(struct bypass *bypass, struct object *obj, uint32_t block, const void *data,
		 void (*done)(void *arg, int ret), void *arg);

/* Many wait for a slot already: kernels do not forget.  No more should be put there. */
bool bypass_is_busy(const struct bypass *bypass);

/* A block there cannot be read. */
void bypass_drop(struct bypass *bypass, uint32_t slot);

/*
 * Forgets all blocks: the cache may take them again.  Return: false if it cannot be done now.
 */
bool bypass_empty(struct bypass *bypass);

/* Blocks that went there, and that are there. */
void bypass_get_stats(const struct bypass *bypass, uint64_t *writes, unsigned int *used);

#endif
