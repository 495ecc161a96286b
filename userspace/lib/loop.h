/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Loop devices: how a file becomes a block device for the kernel target.
 */
#ifndef QC2_LOOP_H
#define QC2_LOOP_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "err.h"

#define QC2_LOOP_PATH_LEN	32

struct qc2_loop {
	int fd;			/* holds the device; -1: none */
	char path[QC2_LOOP_PATH_LEN];
	dev_t dev;
	bool direct;		/* direct I/O is on */
	bool whole;		/* all of the file, writable */
};

/**
 * qc2_loop_attach() - put a loop device over a file
 * @file_fd: the file, open for reading and writing
 * @path: its absolute path, for errors and for losetup
 * @loop: filled; qc2_loop_release() gives the device up
 *
 * The loop device detaches itself when its last user closes it.  It keeps the
 * open file description of @file_fd, and with it a lock held through it.
 *
 * Return: 0 or a negative errno with @err filled.
 */
int qc2_loop_attach(int file_fd, const char *path, struct qc2_loop *loop, struct qc2_err *err);

/* Lets go; without another user the loop device is detached by that. */
void qc2_loop_release(struct qc2_loop *loop);

/**
 * qc2_loop_find() - the loop device that lies over a file
 * @file_dev: st_dev of the file
 * @file_ino: its st_ino
 * @loop: filled if there is one; qc2_loop_release() lets it go
 *
 * One that is read-only, or shows a part of the file, counts as well: the
 * caller looks at @loop->whole.
 *
 * Return: whether there is one.
 */
bool qc2_loop_find(dev_t file_dev, ino_t file_ino, struct qc2_loop *loop);

/**
 * qc2_loop_backing_file() - the file below a loop device
 * @dev: any block device
 * @auto_only: only a loop device that detaches itself counts
 *
 * Return: 0; -ENODEV if it is no (such) loop device or nothing is attached.
 */
int qc2_loop_backing_file(dev_t dev, bool auto_only, char *path, size_t size);

#endif
