/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A loop device over the cache file, with direct I/O.  Called at start only.
 */
#ifndef CHAIND_LOOP_H
#define CHAIND_LOOP_H

#include "err.h"

/**
 * loop_find() - the loop device that is attached to a file already
 * @path: the file
 * @device: name of the device node; the caller frees it
 *
 * Return: a descriptor, O_RDWR | O_DIRECT, which keeps the device attached;
 * -ENOENT if there is none; or another negative errno with @err filled.
 */
int loop_find(const char *path, char **device, struct qc2_err *err);

/**
 * loop_attach() - attach a file to a free loop device
 *
 * The device detaches itself when its last user is gone.  Return: as
 * loop_find().
 */
int loop_attach(const char *path, char **device, struct qc2_err *err);

#endif
