/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Netlink to the kernel target.  A doorbell only marks its device; the
 * requests are pulled from a deferred event, once for any number of doorbells.
 * A doorbell may be lost, so all devices are also pulled every second, and
 * with RESEND after an overrun.  Main thread only.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <netlink/attr.h>
#include <netlink/msg.h>

#include "genl.h"
#include "kernel.h"
#include "log.h"

#define TICK_US		1000000

/* A registered device. */
struct kdev {
	uint32_t dev;
	bool pull;		/* now */
	bool resend;		/* with the next pull */
};

struct kernel {
	sd_event *event;
	const struct kernel_ops *ops;
	void *arg;
	struct genl genl;
	sd_event_source *io, *pull, *tick;
	struct kdev *devs;
	size_t nr_devs;
	struct kernel_request *pulled;	/* by the dump that is running */
	size_t nr_pulled;
	bool pull_failed;
	struct log_limit limit;
};

static struct kdev *find_kdev(struct kernel *kernel, uint32_t dev)
{
	size_t i;

	for (i = 0; i < kernel->nr_devs; i++) {
		if (kernel->devs[i].dev == dev)
			return &kernel->devs[i];
	}
	return NULL;
}

static void wake_pull(struct kernel *kernel)
{
	sd_event_source_set_enabled(kernel->pull, SD_EVENT_ONESHOT);
}

static void pull_all(struct kernel *kernel, bool resend)
{
	size_t i;

	for (i = 0; i < kernel->nr_devs; i++) {
		kernel->devs[i].pull = true;
		kernel->devs[i].resend |= resend;
	}
	wake_pull(kernel);
}

static void check_overrun(struct kernel *kernel)
{
	if (!kernel->genl.overrun)
		return;
	kernel->genl.overrun = false;
	log_debug("netlink: messages were lost, asking again");
	pull_all(kernel, true);
}

static void on_doorbell(void *arg, struct nlattr **attrs)
{
	struct kernel *kernel = arg;
	struct kdev *kdev;

	if (!attrs[QC2_ATTR_DEV])
		return;
	kdev = find_kdev(kernel, nla_get_u32(attrs[QC2_ATTR_DEV]));
	if (!kdev)
		return;
	kdev->pull = true;
	wake_pull(kernel);
}

static int on_io(sd_event_source *source, int fd, uint32_t revents, void *arg)
{
	struct kernel *kernel = arg;

	genl_drain(&kernel->genl);
	check_overrun(kernel);
	return 0;
}

static void on_request(void *arg, struct nlattr **attrs)
{
	struct kernel *kernel = arg;
	struct kernel_request *v;

	if (!attrs[QC2_ATTR_DEV] || !attrs[QC2_ATTR_GENERATION] ||
	    !attrs[QC2_ATTR_ID] || !attrs[QC2_ATTR_SECTOR] ||
	    !attrs[QC2_ATTR_SECTORS])
		return;
	v = reallocarray(kernel->pulled, kernel->nr_pulled + 1, sizeof(*v));
	if (!v) {
		kernel->pull_failed = true;
		return;
	}
	kernel->pulled = v;
	v[kernel->nr_pulled++] = (struct kernel_request){
		.dev = nla_get_u32(attrs[QC2_ATTR_DEV]),
		.generation = nla_get_u64(attrs[QC2_ATTR_GENERATION]),
		.id = nla_get_u64(attrs[QC2_ATTR_ID]),
		.sector = nla_get_u64(attrs[QC2_ATTR_SECTOR]),
		.nr_sectors = nla_get_u64(attrs[QC2_ATTR_SECTORS]),
		.store_failed = attrs[QC2_ATTR_FAILED_STORE],
		.failed_store = attrs[QC2_ATTR_FAILED_STORE] ?
				nla_get_u32(attrs[QC2_ATTR_FAILED_STORE]) : 0,
	};
}

static void forget_kdev(struct kernel *kernel, uint32_t dev)
{
	struct kdev *kdev = find_kdev(kernel, dev);

	if (!kdev)
		return;
	*kdev = kernel->devs[--kernel->nr_devs];
	if (!kernel->nr_devs)
		sd_event_source_set_enabled(kernel->tick, SD_EVENT_OFF);
}

static void pull(struct kernel *kernel, uint32_t dev)
{
	struct kdev *kdev = find_kdev(kernel, dev);
	struct kernel_request *pulled;
	struct qc2_err err;
	struct nl_msg *msg;
	size_t nr, i;
	int ret;

	msg = genl_msg(&kernel->genl, QC2_CMD_GET_PENDING,
		       NLM_F_REQUEST | NLM_F_DUMP, 64);
	if (!msg || nla_put_u32(msg, QC2_ATTR_DEV, dev) ||
	    (kdev->resend && nla_put_flag(msg, QC2_ATTR_RESEND))) {
		nlmsg_free(msg);
		return;			/* the tick comes back */
	}
	kdev->pull = false;
	kernel->pull_failed = false;
	ret = genl_ask(&kernel->genl, msg, on_request, kernel, &err);
	kdev->resend = ret || kernel->pull_failed;
	if (ret && ret != -ENOBUFS && ret != -ENODEV && ret != -EPERM &&
	    log_allowed(&kernel->limit))
		log_warn("device %u:%u: pulling requests: %s", dev >> 20,
			 dev & 0xfffff, err.msg);

	/* Handling them may pull nothing, but may send replies. */
	pulled = kernel->pulled;
	nr = kernel->nr_pulled;
	kernel->pulled = NULL;
	kernel->nr_pulled = 0;
	for (i = 0; i < nr; i++) {
		if (!kernel->ops->request(kernel->arg, &pulled[i]))
			continue;
		kdev = find_kdev(kernel, dev);
		if (kdev)
			kdev->resend = true;
	}
	free(pulled);
	if (ret == -ENODEV || ret == -EPERM) {
		forget_kdev(kernel, dev);
		kernel->ops->gone(kernel->arg, dev, &err);
	}
}

static int on_pull(sd_event_source *source, void *arg)
{
	struct kernel *kernel = arg;
	size_t i = 0;

	/* The list changes when a device turns out to be gone. */
	while (i < kernel->nr_devs) {
		uint32_t dev = kernel->devs[i].dev;

		if (kernel->devs[i].pull)
			pull(kernel, dev);
		if (i < kernel->nr_devs && kernel->devs[i].dev == dev)
			i++;
	}
	check_overrun(kernel);
	return 0;
}

static int on_tick(sd_event_source *source, uint64_t usec, void *arg)
{
	pull_all(arg, false);
	sd_event_source_set_time_relative(source, TICK_US);
	return 0;
}

static void disconnect(struct kernel *kernel)
{
	kernel->io = sd_event_source_disable_unref(kernel->io);
	if (kernel->genl.sk)
		genl_close(&kernel->genl);
}

/*
 * The module may have been loaded, or loaded anew, since the last time; it
 * stays for as long as a device is registered.
 */
static int connect_module(struct kernel *kernel, struct qc2_err *err)
{
	int ret;

	if (kernel->nr_devs)
		return 0;
	disconnect(kernel);
	memset(&kernel->genl, 0, sizeof(kernel->genl));
	ret = genl_open(&kernel->genl, true, err);
	if (ret)
		return ret;
	kernel->genl.doorbell = on_doorbell;
	kernel->genl.doorbell_arg = kernel;
	ret = sd_event_add_io(kernel->event, &kernel->io,
			      nl_socket_get_fd(kernel->genl.sk), EPOLLIN,
			      on_io, kernel);
	if (ret < 0) {
		disconnect(kernel);
		return qc2_fail(err, -ret, "netlink: %s", strerror(-ret));
	}
	return 0;
}

int kernel_new(struct kernel **out, sd_event *event,
	       const struct kernel_ops *ops, void *arg)
{
	struct kernel *kernel = calloc(1, sizeof(*kernel));
	int ret;

	if (!kernel)
		return -ENOMEM;
	kernel->event = event;
	kernel->ops = ops;
	kernel->arg = arg;
	ret = sd_event_add_defer(event, &kernel->pull, on_pull, kernel);
	if (ret >= 0)
		ret = sd_event_source_set_enabled(kernel->pull, SD_EVENT_OFF);
	if (ret >= 0)
		ret = sd_event_add_time_relative(event, &kernel->tick,
						 CLOCK_MONOTONIC, TICK_US, 0,
						 on_tick, kernel);
	if (ret >= 0)
		ret = sd_event_source_set_enabled(kernel->tick, SD_EVENT_OFF);
	if (ret < 0) {
		kernel_close(kernel);
		return ret;
	}
	*out = kernel;
	return 0;
}

void kernel_close(struct kernel *kernel)
{
	if (!kernel)
		return;
	disconnect(kernel);
	sd_event_source_disable_unref(kernel->pull);
	sd_event_source_disable_unref(kernel->tick);
	free(kernel->devs);
	free(kernel);
}

struct find {
	uint32_t dev;
	uint64_t generation;
	struct kernel_device *found;
	bool any;
};

static void on_device(void *arg, struct nlattr **attrs)
{
	struct find *find = arg;
	struct kernel_device *found = find->found;

	if (!attrs[QC2_ATTR_DEV] || !attrs[QC2_ATTR_NAME] ||
	    !attrs[QC2_ATTR_GENERATION] || !attrs[QC2_ATTR_CHAIN_ID] ||
	    !attrs[QC2_ATTR_SECTORS] || !attrs[QC2_ATTR_OWNER] ||
	    nla_len(attrs[QC2_ATTR_CHAIN_ID]) < QC2_CHAIN_ID_LEN ||
	    nla_get_u32(attrs[QC2_ATTR_DEV]) != find->dev ||
	    (find->generation &&
	     nla_get_u64(attrs[QC2_ATTR_GENERATION]) != find->generation))
		return;
	find->any = true;
	found->dev = find->dev;
	found->generation = nla_get_u64(attrs[QC2_ATTR_GENERATION]);
	snprintf(found->name, sizeof(found->name), "%s",
		 nla_get_string(attrs[QC2_ATTR_NAME]));
	memcpy(found->chain_id, nla_data(attrs[QC2_ATTR_CHAIN_ID]),
	       QC2_CHAIN_ID_LEN);
	found->nr_sectors = nla_get_u64(attrs[QC2_ATTR_SECTORS]);
	found->owner = nla_get_u32(attrs[QC2_ATTR_OWNER]);
}

int kernel_find(struct kernel *kernel, uint32_t dev, uint64_t generation,
		struct kernel_device *found, struct qc2_err *err)
{
	struct find find = {
		.dev = dev, .generation = generation, .found = found,
	};
	struct nl_msg *msg;
	int ret;

	ret = connect_module(kernel, err);
	if (ret)
		return ret;
	msg = genl_msg(&kernel->genl, QC2_CMD_GET_DEVICES,
		       NLM_F_REQUEST | NLM_F_DUMP, 0);
	if (!msg)
		return qc2_fail(err, ENOMEM, "netlink: out of memory");
	ret = genl_ask(&kernel->genl, msg, on_device, &find, err);
	check_overrun(kernel);
	if (!ret && !find.any)
		ret = qc2_fail(err, ENODEV,
			       "%u:%u is no device with a live qcow2chain table",
			       dev >> 20, dev & 0xfffff);
	return ret;
}

static int ask_dev(struct kernel *kernel, enum qc2_cmd cmd, uint32_t dev,
		   struct qc2_err *err)
{
	struct nl_msg *msg = genl_msg(&kernel->genl, cmd,
				      NLM_F_REQUEST | NLM_F_ACK, 64);
	int ret;

	if (!msg || nla_put_u32(msg, QC2_ATTR_DEV, dev)) {
		nlmsg_free(msg);
		return qc2_fail(err, ENOMEM, "netlink: out of memory");
	}
	ret = genl_ask(&kernel->genl, msg, NULL, NULL, err);
	check_overrun(kernel);
	return ret;
}

int kernel_register(struct kernel *kernel, uint32_t dev, struct qc2_err *err)
{
	struct kdev *devs;
	int ret;

	ret = connect_module(kernel, err);
	if (ret)
		return ret;
	/* An old entry may be of a removed device that had the same number. */
	forget_kdev(kernel, dev);
	devs = reallocarray(kernel->devs, kernel->nr_devs + 1, sizeof(*devs));
	if (!devs)
		return qc2_fail(err, ENOMEM, "netlink: out of memory");
	kernel->devs = devs;
	ret = ask_dev(kernel, QC2_CMD_REGISTER, dev, err);
	if (ret)
		return qc2_fail_prefix(err, ret, "registering for %u:%u: ",
				       dev >> 20, dev & 0xfffff);
	devs[kernel->nr_devs++] = (struct kdev){
		.dev = dev, .pull = true, .resend = true,
	};
	wake_pull(kernel);
	sd_event_source_set_time_relative(kernel->tick, TICK_US);
	sd_event_source_set_enabled(kernel->tick, SD_EVENT_ON);
	return 0;
}

void kernel_unregister(struct kernel *kernel, uint32_t dev)
{
	struct qc2_err err;
	int ret;

	if (!find_kdev(kernel, dev))
		return;
	ret = ask_dev(kernel, QC2_CMD_UNREGISTER, dev, &err);
	if (ret && ret != -ENODEV)
		log_warn("device %u:%u: unregistering: %s", dev >> 20,
			 dev & 0xfffff, err.msg);
	forget_kdev(kernel, dev);
}

static void send_reply(struct kernel *kernel, uint32_t dev, struct nl_msg *msg)
{
	struct kdev *kdev;
	struct qc2_err err;
	int ret;

	ret = genl_ask(&kernel->genl, msg, NULL, NULL, &err);
	check_overrun(kernel);
	if (!ret)
		return;
	if (ret == -ENOENT || ret == -ESTALE || ret == -ENODEV) {
		log_debug("device %u:%u: reply came too late: %s", dev >> 20,
			  dev & 0xfffff, err.msg);
		return;
	}
	if (log_allowed(&kernel->limit))
		log_warn("device %u:%u: the kernel refuses a reply: %s",
			 dev >> 20, dev & 0xfffff, err.msg);
	kdev = find_kdev(kernel, dev);
	if (kdev)
		kdev->resend = true;	/* with the next tick */
}

void kernel_reply_runs(struct kernel *kernel, uint32_t dev,
		       uint64_t generation, const struct qc2_run *runs,
		       unsigned int nr_runs)
{
	struct nl_msg *msg = genl_msg(&kernel->genl, QC2_CMD_REPLY,
				      NLM_F_REQUEST | NLM_F_ACK,
				      64 + nr_runs * sizeof(*runs));

	if (!msg || nla_put_u32(msg, QC2_ATTR_DEV, dev) ||
	    nla_put_u64(msg, QC2_ATTR_GENERATION, generation) ||
	    nla_put(msg, QC2_ATTR_RUNS, nr_runs * sizeof(*runs), runs)) {
		struct kdev *kdev = find_kdev(kernel, dev);

		nlmsg_free(msg);
		if (kdev)
			kdev->resend = true;
		return;
	}
	send_reply(kernel, dev, msg);
}

void kernel_reply_error(struct kernel *kernel, uint32_t dev,
			uint64_t generation, uint64_t id, int errnum)
{
	struct nl_msg *msg = genl_msg(&kernel->genl, QC2_CMD_REPLY,
				      NLM_F_REQUEST | NLM_F_ACK, 128);

	if (!msg || nla_put_u32(msg, QC2_ATTR_DEV, dev) ||
	    nla_put_u64(msg, QC2_ATTR_GENERATION, generation) ||
	    nla_put_u64(msg, QC2_ATTR_ID, id) ||
	    nla_put_u32(msg, QC2_ATTR_ERRNO, errnum)) {
		struct kdev *kdev = find_kdev(kernel, dev);

		nlmsg_free(msg);
		if (kdev)
			kdev->resend = true;
		return;
	}
	send_reply(kernel, dev, msg);
}
