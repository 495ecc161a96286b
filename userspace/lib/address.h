/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Network addresses that mean something else on each machine: this machine, its
 * link, and what its cloud tells it, keys included.  No image may lead there by
 * itself.  Pure functions; any thread may call them.
 */
#ifndef QC2_ADDRESS_H
#define QC2_ADDRESS_H

#include <netinet/in.h>
#include <sys/socket.h>

#define QC2_ADDRESS_LEN	INET6_ADDRSTRLEN

/**
 * qc2_address_local() - whether an address is such a one
 * @addr: of any family
 * @text: the address as text, if it is one
 *
 * Return: what it is, as "loopback"; or NULL.
 */
const char *qc2_address_local(const struct sockaddr *addr, char text[QC2_ADDRESS_LEN]);

#endif
