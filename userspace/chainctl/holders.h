/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Who holds a block device open.
 */
#ifndef CHAINCTL_HOLDERS_H
#define CHAINCTL_HOLDERS_H

#include <stddef.h>
#include <sys/types.h>

/**
 * holders_find() - describe who uses a block device
 * @dev: the device
 * @text: filled with a list such as "mounted at /mnt, process 12 (qemu)";
 *	empty if nobody was found, which does not prove that there is nobody:
 *	other mount namespaces are not looked into
 *
 * Return: how many were found.  A process of udev, which goes by itself, is
 * named but not counted.
 */
unsigned int holders_find(dev_t dev, char *text, size_t size);

#endif
