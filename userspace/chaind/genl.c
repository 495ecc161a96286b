/* SPDX-License-Identifier: GPL-2.0 */
/* The socket to the kernel module.  See genl.h; no global state. */
#include <errno.h>
#include <linux/netlink.h>
#include <string.h>
#include <unistd.h>
#include <sys/socket.h>

#include <netlink/attr.h>
#include <netlink/genl/ctrl.h>
#include <netlink/genl/genl.h>
#include <netlink/msg.h>

#include "genl.h"

#define RECV_BUFFER		(4 << 20)

static void answered(struct genl *genl, const struct nlmsghdr *hdr, int ret)
{
	if (genl->asking && hdr->nlmsg_seq == genl->seq) {
		genl->asking = false;
		genl->ret = ret;
	}
}

static int on_valid(struct nl_msg *msg, void *arg)
{
	struct nlmsghdr *hdr = nlmsg_hdr(msg);
	struct nlattr *attrs[QC2_ATTR_MAX + 1];
	struct genl *genl = arg;

	if (!genlmsg_valid_hdr(hdr, 0) ||
	    genlmsg_parse(hdr, 0, attrs, QC2_ATTR_MAX, NULL) < 0)
		return NL_SKIP;
	if (genlmsg_hdr(hdr)->cmd == QC2_CMD_DOORBELL) {
		if (genl->doorbell)
			genl->doorbell(genl->doorbell_arg, attrs);
	} else if (genl->asking && hdr->nlmsg_seq == genl->seq && genl->item) {
		genl->item(genl->item_arg, attrs);
	}
	return NL_SKIP;
}

static int on_ack(struct nl_msg *msg, void *arg)
{
	answered(arg, nlmsg_hdr(msg), 0);
	return NL_SKIP;
}

/* The kernel's own words, when it has some. */
static const char *ext_text(struct nlmsghdr *hdr)
{
	struct nlattr *attrs[NLMSGERR_ATTR_MAX + 1];

	if (!(hdr->nlmsg_flags & NLM_F_ACK_TLVS) ||
	    nlmsg_parse(hdr, sizeof(struct nlmsgerr), attrs,
			NLMSGERR_ATTR_MAX, NULL) < 0 ||
	    !attrs[NLMSGERR_ATTR_MSG])
		return NULL;
	return nla_get_string(attrs[NLMSGERR_ATTR_MSG]);
}

static int on_error(struct sockaddr_nl *from, struct nlmsgerr *e, void *arg)
{
	struct nlmsghdr *hdr = (struct nlmsghdr *)((char *)e - NLMSG_HDRLEN);
	struct genl *genl = arg;
	const char *text;

	if (genl->asking && hdr->nlmsg_seq == genl->seq) {
		text = ext_text(hdr);
		qc2_fail(genl->err, -e->error, "%s%s%s", text ? text : "",
			 text ? ": " : "", strerror(-e->error));
	}
	answered(genl, hdr, e->error);
	return NL_SKIP;
}

static int accept_seq(struct nl_msg *msg, void *arg)
{
	return NL_OK;
}

int genl_open(struct genl *genl, bool nonblock, struct qc2_err *err)
{
	struct nl_cb *cb;
	int one = 1, ret;

	genl->sk = nl_socket_alloc();
	if (!genl->sk)
		return qc2_fail(err, ENOMEM, "netlink: out of memory");
	ret = genl_connect(genl->sk);
	if (ret < 0) {
		genl_close(genl);
		return qc2_fail(err, EIO, "netlink: %s", nl_geterror(ret));
	}
	genl->family = genl_ctrl_resolve(genl->sk, QC2_GENL_NAME);
	if (genl->family < 0) {
		genl_close(genl);
		/* libnl has one error for "not there" and "could not ask". */
		if (!access("/sys/module/dm_qcow2chain", F_OK))
			return qc2_fail(err, EIO,
					"netlink: cannot look up the family "
					QC2_GENL_NAME);
		return qc2_fail(err, ENOENT,
				"the kernel has no qcow2chain target; load the module: modprobe dm-qcow2chain");
	}
	nl_socket_disable_auto_ack(genl->sk);
	nl_socket_set_msg_buf_size(genl->sk, 65536);
	/* Doorbells may come in while the loop is busy; see "overrun". */
	setsockopt(nl_socket_get_fd(genl->sk), SOL_SOCKET, SO_RCVBUFFORCE,
		   &(int){ RECV_BUFFER }, sizeof(int));
	setsockopt(nl_socket_get_fd(genl->sk), SOL_NETLINK, NETLINK_CAP_ACK,
		   &one, sizeof(one));
	setsockopt(nl_socket_get_fd(genl->sk), SOL_NETLINK, NETLINK_EXT_ACK,
		   &one, sizeof(one));
	cb = nl_socket_get_cb(genl->sk);
	nl_cb_set(cb, NL_CB_SEQ_CHECK, NL_CB_CUSTOM, accept_seq, genl);
	nl_cb_set(cb, NL_CB_VALID, NL_CB_CUSTOM, on_valid, genl);
	nl_cb_set(cb, NL_CB_ACK, NL_CB_CUSTOM, on_ack, genl);
	nl_cb_set(cb, NL_CB_FINISH, NL_CB_CUSTOM, on_ack, genl);
	nl_cb_err(cb, NL_CB_CUSTOM, on_error, genl);
	nl_cb_put(cb);
	genl->nonblock = nonblock;
	if (nonblock)
		nl_socket_set_nonblocking(genl->sk);
	return 0;
}

void genl_close(struct genl *genl)
{
	nl_socket_free(genl->sk);
	genl->sk = NULL;
}

struct nl_msg *genl_msg(struct genl *genl, enum qc2_cmd cmd, int flags,
			size_t size)
{
	struct nl_msg *msg = nlmsg_alloc_size(NLMSG_HDRLEN + GENL_HDRLEN +
					      size);

	if (msg && !genlmsg_put(msg, NL_AUTO_PORT, NL_AUTO_SEQ, genl->family,
				0, flags, cmd, QC2_GENL_VERSION)) {
		nlmsg_free(msg);
		msg = NULL;
	}
	return msg;
}

/* Receives one message, or all parts of a dump.  Return: whether to go on. */
static bool receive(struct genl *genl)
{
	int ret = nl_recvmsgs_default(genl->sk);

	if (ret >= 0)
		return true;
	if (ret == -NLE_NOMEM) {		/* ENOBUFS */
		genl->overrun = true;
		/* A blocking socket might wait for what was lost. */
		return genl->nonblock;
	}
	return ret == -NLE_INTR || ret == -NLE_DUMP_INTR;
}

int genl_ask(struct genl *genl, struct nl_msg *msg, genl_handler *item,
	     void *item_arg, struct qc2_err *err)
{
	int ret;

	genl->err = err;
	genl->item = item;
	genl->item_arg = item_arg;
	nl_complete_msg(genl->sk, msg);
	genl->seq = nlmsg_hdr(msg)->nlmsg_seq;
	genl->asking = true;
	ret = nl_send(genl->sk, msg);
	nlmsg_free(msg);
	if (ret < 0) {
		genl->asking = false;
		return qc2_fail(err, EIO, "netlink: %s", nl_geterror(ret));
	}
	while (genl->asking && receive(genl))
		;
	if (genl->asking) {
		genl->asking = false;
		return qc2_fail(err, ENOBUFS,
				"netlink: the kernel's answer was lost");
	}
	return genl->ret;
}

void genl_drain(struct genl *genl)
{
	while (receive(genl))
		;
}
