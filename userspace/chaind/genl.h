/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A generic netlink socket to the kernel module: one question at a time,
 * answered before the call returns.  That needs no waiting in the main loop:
 * the kernel works a request off while it is sent, so with a non-blocking
 * socket the answer lies there already.
 *
 * A socket belongs to one thread.
 */
#ifndef CHAIND_GENL_H
#define CHAIND_GENL_H

#include <stdbool.h>
#include <stdint.h>

#include <netlink/netlink.h>

#include <linux/dm-qcow2chain.h>

#include "err.h"

/* Gets the attributes of a message, an array of QC2_ATTR_MAX + 1 pointers. */
typedef void genl_handler(void *arg, struct nlattr **attrs);

struct genl {
	struct nl_sock *sk;
	int family;
	bool nonblock;
	bool overrun;		/* messages were lost; cleared by the user */
	genl_handler *doorbell;	/* set by the user */
	void *doorbell_arg;

	/* the question that is being asked */
	uint32_t seq;
	bool asking;
	int ret;
	struct qc2_err *err;
	genl_handler *item;
	void *item_arg;
};

/**
 * genl_open() - connect and look the family up
 * @genl: zeroed
 * @nonblock: for the main loop
 *
 * Return: 0; -ENOENT if the module is not loaded; another negative errno.
 * @err is filled.
 */
int genl_open(struct genl *genl, bool nonblock, struct qc2_err *err);
void genl_close(struct genl *genl);

/* A new message for a command with room for @size bytes; NULL: no memory. */
struct nl_msg *genl_msg(struct genl *genl, enum qc2_cmd cmd, int flags,
			size_t size);

/**
 * genl_ask() - send a message and take its answer
 * @msg: is freed
 * @item: called for each message of a dump
 *
 * Return: what the kernel says; -ENOBUFS if the answer was lost.  @err is
 * filled.
 */
int genl_ask(struct genl *genl, struct nl_msg *msg, genl_handler *item,
	     void *item_arg, struct qc2_err *err);

/* Takes what has come without a question. */
void genl_drain(struct genl *genl);

#endif
