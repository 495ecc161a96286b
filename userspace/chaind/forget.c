/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Making the kernel forget: runs in a pool thread, on a socket of its own,
 * because the kernel waits for reads in flight.
 */
#include <errno.h>
#include <stdlib.h>

#include <netlink/attr.h>
#include <netlink/msg.h>

#include "forget.h"
#include "genl.h"

struct dev_list {
	uint32_t *v;
	size_t nr;
	bool failed;
};

static void on_device(void *arg, struct nlattr **attrs)
{
	struct dev_list *devs = arg;
	uint32_t *v;

	if (!attrs[QC2_ATTR_DEV])
		return;
	v = reallocarray(devs->v, devs->nr + 1, sizeof(*v));
	if (!v) {
		devs->failed = true;
		return;
	}
	devs->v = v;
	devs->v[devs->nr++] = nla_get_u32(attrs[QC2_ATTR_DEV]);
}

static int forget_on(struct genl *genl, uint32_t dev, uint32_t store,
		     const struct qc2_range *ranges, unsigned int nr,
		     struct qc2_err *err)
{
	struct nl_msg *msg = genl_msg(genl, QC2_CMD_FORGET,
				      NLM_F_REQUEST | NLM_F_ACK,
				      64 + nr * sizeof(*ranges));
	int ret;

	if (!msg || nla_put_u32(msg, QC2_ATTR_DEV, dev) ||
	    nla_put_u32(msg, QC2_ATTR_STORE, store) ||
	    nla_put(msg, QC2_ATTR_RANGES, nr * sizeof(*ranges), ranges)) {
		nlmsg_free(msg);
		return qc2_fail(err, ENOMEM, "out of memory");
	}
	ret = genl_ask(genl, msg, NULL, NULL, err);
	return ret == -ENODEV ? 0 : ret;	/* removed meanwhile */
}

int forget_store(uint32_t store, const struct qc2_range *ranges,
		 unsigned int nr, struct qc2_err *err)
{
	struct dev_list devs = { 0 };
	struct genl genl = { 0 };
	struct nl_msg *msg;
	size_t i;
	int ret;

	ret = genl_open(&genl, false, err);
	if (ret)
		return ret == -ENOENT ? 0 : ret;
	msg = genl_msg(&genl, QC2_CMD_GET_DEVICES, NLM_F_REQUEST | NLM_F_DUMP,
		       0);
	ret = msg ? genl_ask(&genl, msg, on_device, &devs, err) : -ENOMEM;
	if (!ret && devs.failed)
		ret = -ENOMEM;
	if (ret == -ENOMEM)
		qc2_fail(err, ENOMEM, "out of memory");
	for (i = 0; !ret && i < devs.nr; i++)
		ret = forget_on(&genl, devs.v[i], store, ranges, nr, err);
	genl_close(&genl);
	free(devs.v);
	return ret;
}
