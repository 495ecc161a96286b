/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Loop devices: how a file becomes a block device for the kernel target.
 */
#ifndef CHAINCTL_LOOP_H
#define CHAINCTL_LOOP_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "err.h"

#define LOOP_PATH_LEN	32

struct loop_dev {
	int fd;			/* holds the device; -1: none */
	char path[LOOP_PATH_LEN];
	dev_t dev;
	bool direct;		/* direct I/O is on */
};

/**
 * loop_attach() - put a loop device over a file
 * @file_fd: the file, open for reading and writing
 * @path: its absolute path, for errors and for losetup
 * @loop: filled; loop_release() gives the device up
 *
 * The loop device detaches itself when its last user closes it.  It keeps the
 * open file description of @file_fd, and with it a lock held through it.
 *
 * Return: 0 or a negative errno with @err filled.
 */
int loop_attach(int file_fd, const char *path, struct loop_dev *loop, struct qc2_err *err);

/* Lets go; without another user the loop device is detached by that. */
void loop_release(struct loop_dev *loop);

/* Finds a loop device over a file; writes its path and returns true. */
bool loop_find_file(dev_t file_dev, ino_t file_ino, char loop_path[LOOP_PATH_LEN]);

/**
 * loop_backing_file() - the file below a loop device
 * @dev: any block device
 * @auto_only: only a loop device that detaches itself counts
 *
 * Return: 0; -ENODEV if it is no (such) loop device or nothing is attached.
 */
int loop_backing_file(dev_t dev, bool auto_only, char *path, size_t size);

#endif
