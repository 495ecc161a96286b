// SPDX-License-Identifier: GPL-2.0
/*
 * The channel to the daemon.
 *
 * DOC: Netlink is a doorbell, not a queue.  Requests live in miss.c; a message
 * to the daemon only says that there are some, and the daemon fetches them
 * with a dump.  A message that gets lost costs time, nothing else: the daemon
 * also dumps when it starts, after ENOBUFS, and from time to time.
 *
 * The daemon of a mapped device is the netlink port that registered for it.
 * A new table of the same device takes the registration over.  When the
 * socket closes, the requests wait for the next daemon.
 *
 * Nothing from user space is trusted: each reply is checked in full before
 * any of it is used.
 *
 * Locking: qc2_targets and the @owner of its members are protected by
 * qc2_targets_lock, a spinlock, never held for long.  Operations hold a
 * reference to the target (@users); qc2_netlink_remove() waits for them.
 */
#include <linux/capability.h>
#include <linux/netlink.h>
#include <net/genetlink.h>
#include <net/net_namespace.h>

#include "netlink.h"
#include "runs.h"
#include "target.h"

static LIST_HEAD(qc2_targets);
static DEFINE_SPINLOCK(qc2_targets_lock);
static u64 qc2_last_generation;

static struct genl_family qc2_family;

/* u32 form of a device number, as in QC2_ATTR_DEV. */
static u32 qc2_dev_attr(dev_t devt)
{
	return (u32)MAJOR(devt) << 20 | MINOR(devt);
}

static void qc2_target_put(struct qc2_target *qt)
{
	if (refcount_dec_and_test(&qt->users))
		complete(&qt->unused);
}

/*
 * The target of a device with that generation or, with @next, the one with the
 * smallest generation above it.  With a reference.  @dev 0: of any device.
 */
static struct qc2_target *qc2_target_get(u32 dev, u64 generation, bool next)
{
	struct qc2_target *qt, *found = NULL;

	spin_lock(&qc2_targets_lock);
	/* The list is in the order of generations. */
	list_for_each_entry(qt, &qc2_targets, list) {
		if (dev && qc2_dev_attr(qt->devt) != dev)
			continue;
		if (next ? qt->generation > generation : qt->generation == generation) {
			refcount_inc(&qt->users);
			found = qt;
			break;
		}
	}
	spin_unlock(&qc2_targets_lock);
	return found;
}

/* Tells the daemon that there are new requests. */
static void qc2_send_doorbell(struct work_struct *work)
{
	struct qc2_target *qt = container_of(work, struct qc2_target, doorbell_work);
	u32 owner = READ_ONCE(qt->owner);
	struct sk_buff *skb;
	void *hdr;

	if (!owner)
		goto failed;
	skb = genlmsg_new(nla_total_size(sizeof(u32)), GFP_NOIO);
	if (!skb)
		goto failed;

	hdr = genlmsg_put(skb, 0, 0, &qc2_family, 0, QC2_CMD_DOORBELL);
	if (!hdr || nla_put_u32(skb, QC2_ATTR_DEV, qc2_dev_attr(qt->devt))) {
		nlmsg_free(skb);
		goto failed;
	}
	genlmsg_end(skb, hdr);

	if (genlmsg_unicast(&init_net, skb, owner))
		goto failed;
	return;

failed:
	/* The daemon's timer will find the request; the next miss tries again. */
	clear_bit(0, &qt->doorbell);
}

/**
 * qc2_netlink_add() - make a target known
 * @qt: the target; gets its generation, and the daemon of its device
 *
 * Context: process.
 */
void qc2_netlink_add(struct qc2_target *qt)
{
	struct qc2_target *other;

	refcount_set(&qt->users, 1);
	init_completion(&qt->unused);
	INIT_WORK(&qt->doorbell_work, qc2_send_doorbell);

	spin_lock(&qc2_targets_lock);
	qt->generation = ++qc2_last_generation;
	list_for_each_entry(other, &qc2_targets, list)
		if (other->devt == qt->devt)
			qt->owner = other->owner;
	list_add_tail(&qt->list, &qc2_targets);
	spin_unlock(&qc2_targets_lock);
}

/**
 * qc2_netlink_remove() - undo qc2_netlink_add()
 * @qt: the target
 *
 * Returns when no operation uses the target any more.
 *
 * Context: process; waits.
 */
void qc2_netlink_remove(struct qc2_target *qt)
{
	spin_lock(&qc2_targets_lock);
	list_del(&qt->list);
	spin_unlock(&qc2_targets_lock);

	qc2_target_put(qt);
	wait_for_completion(&qt->unused);
}

/**
 * qc2_netlink_doorbell() - tell the daemon that there are new requests
 * @qt: the target
 *
 * Context: process; does not wait.
 */
void qc2_netlink_doorbell(struct qc2_target *qt)
{
	/* One message until the daemon has dumped; see qc2_pending_dump(). */
	if (READ_ONCE(qt->owner) && !test_and_set_bit(0, &qt->doorbell))
		queue_work(qt->wq, &qt->doorbell_work);
}

/*
 * ---------------------------------------------------------------------------
 * Registration
 * ---------------------------------------------------------------------------
 */

/* Changes the owner of all tables of a device, or of all devices of an owner. */
static int qc2_set_owner(u32 dev, u32 from, u32 to)
{
	struct qc2_target *qt;
	int r = -ENODEV;

	spin_lock(&qc2_targets_lock);
	list_for_each_entry(qt, &qc2_targets, list) {
		if (dev && qc2_dev_attr(qt->devt) != dev)
			continue;
		if (qt->owner != from && qt->owner != to) {
			if (dev)
				r = -EBUSY;
			continue;
		}
		r = 0;
		if (qt->owner == to)
			continue;
		WRITE_ONCE(qt->owner, to);
		clear_bit(0, &qt->doorbell);
		qc2_miss_resend(&qt->misses);
		qc2_target_event(qt, QC2_EVENT_DAEMON);
	}
	spin_unlock(&qc2_targets_lock);
	return r;
}

static int qc2_netlink_notify(struct notifier_block *nb, unsigned long action, void *data)
{
	struct netlink_notify *notify = data;

	if (action == NETLINK_URELEASE && notify->protocol == NETLINK_GENERIC &&
	    net_eq(notify->net, &init_net) && notify->portid)
		qc2_set_owner(0, notify->portid, 0);
	return NOTIFY_DONE;
}

static struct notifier_block qc2_netlink_notifier = {
	.notifier_call = qc2_netlink_notify,
};

/*
 * CAP_SYS_ADMIN, not the CAP_NET_ADMIN of GENL_ADMIN_PERM: this is about
 * disks.
 */
static int qc2_check_caller(struct sk_buff *skb)
{
	return netlink_capable(skb, CAP_SYS_ADMIN) ? 0 : -EPERM;
}

static int qc2_cmd_register(struct sk_buff *skb, struct genl_info *info)
{
	int r = qc2_check_caller(skb);

	if (r)
		return r;
	if (GENL_REQ_ATTR_CHECK(info, QC2_ATTR_DEV))
		return -EINVAL;

	r = qc2_set_owner(nla_get_u32(info->attrs[QC2_ATTR_DEV]), 0, info->snd_portid);
	if (r == -EBUSY)
		NL_SET_ERR_MSG(info->extack, "another daemon is registered for the device");
	else if (r)
		NL_SET_ERR_MSG(info->extack, "not a qcow2chain device");
	return r;
}

static int qc2_cmd_unregister(struct sk_buff *skb, struct genl_info *info)
{
	int r = qc2_check_caller(skb);

	if (r)
		return r;
	if (GENL_REQ_ATTR_CHECK(info, QC2_ATTR_DEV))
		return -EINVAL;

	r = qc2_set_owner(nla_get_u32(info->attrs[QC2_ATTR_DEV]), info->snd_portid, 0);
	return r == -EBUSY ? -EPERM : r;
}

/*
 * ---------------------------------------------------------------------------
 * Dumps
 * ---------------------------------------------------------------------------
 */

static int qc2_devices_start(struct netlink_callback *cb)
{
	return qc2_check_caller(cb->skb);
}

static int qc2_device_put(struct sk_buff *skb, struct netlink_callback *cb,
			  struct qc2_target *qt)
{
	char name[DM_NAME_LEN] = "";
	void *hdr;

	/* Fails for a device that is being removed. */
	if (dm_copy_name_and_uuid(dm_table_get_md(qt->ti->table), name, NULL))
		return 0;

	hdr = genlmsg_put(skb, NETLINK_CB(cb->skb).portid, cb->nlh->nlmsg_seq, &qc2_family,
			  NLM_F_MULTI, QC2_CMD_GET_DEVICES);
	if (!hdr)
		return -EMSGSIZE;
	if (nla_put_u32(skb, QC2_ATTR_DEV, qc2_dev_attr(qt->devt)) ||
	    nla_put_string(skb, QC2_ATTR_NAME, name) ||
	    nla_put_u64_64bit(skb, QC2_ATTR_GENERATION, qt->generation, QC2_ATTR_PAD) ||
	    nla_put(skb, QC2_ATTR_CHAIN_ID, QC2_CHAIN_ID_LEN, qt->chain_id) ||
	    nla_put_u64_64bit(skb, QC2_ATTR_SECTORS, qt->ti->len, QC2_ATTR_PAD) ||
	    nla_put_u32(skb, QC2_ATTR_OWNER, READ_ONCE(qt->owner))) {
		genlmsg_cancel(skb, hdr);
		return -EMSGSIZE;
	}
	genlmsg_end(skb, hdr);
	return 0;
}

/* What a dump keeps between its calls. */
struct qc2_dump {
	u64 generation;		/* of the last target that was finished */
	u32 dev;		/* 0: all devices */
};

static struct qc2_dump *qc2_dump(struct netlink_callback *cb)
{
	BUILD_BUG_ON(sizeof(struct qc2_dump) > sizeof(cb->ctx));
	return (struct qc2_dump *)cb->ctx;
}

/* Calls @put for each target of the dump until the message is full. */
static int qc2_dump_targets(struct sk_buff *skb, struct netlink_callback *cb,
			    int (*put)(struct sk_buff *skb, struct netlink_callback *cb,
				       struct qc2_target *qt))
{
	struct qc2_dump *dump = qc2_dump(cb);
	struct qc2_target *qt;
	int r;

	while ((qt = qc2_target_get(dump->dev, dump->generation, true))) {
		r = put(skb, cb, qt);
		if (!r)
			dump->generation = qt->generation;
		qc2_target_put(qt);
		if (r)
			break;
	}
	return skb->len;
}

static int qc2_devices_dump(struct sk_buff *skb, struct netlink_callback *cb)
{
	return qc2_dump_targets(skb, cb, qc2_device_put);
}

static const struct nla_policy qc2_policy[QC2_ATTR_MAX + 1] = {
	[QC2_ATTR_DEV]		= NLA_POLICY_MIN(NLA_U32, 1),
	[QC2_ATTR_GENERATION]	= { .type = NLA_U64 },
	[QC2_ATTR_ID]		= { .type = NLA_U64 },
	[QC2_ATTR_STORE]	= NLA_POLICY_MAX(NLA_U32, QC2_MAX_STORES - 1),
	[QC2_ATTR_RUNS]		= { .type = NLA_BINARY,
				    .len = QC2_MAX_RUNS * sizeof(struct qc2_run) },
	[QC2_ATTR_ERRNO]	= NLA_POLICY_RANGE(NLA_U32, 1, MAX_ERRNO),
	[QC2_ATTR_RESEND]	= { .type = NLA_FLAG },
	[QC2_ATTR_RANGES]	= { .type = NLA_BINARY,
				    .len = QC2_MAX_RANGES * sizeof(struct qc2_range) },
};

static int qc2_pending_start(struct netlink_callback *cb)
{
	struct qc2_dump *dump = qc2_dump(cb);
	struct nlattr *attrs[QC2_ATTR_MAX + 1];
	struct qc2_target *qt;
	u64 generation = 0;
	int r;

	r = qc2_check_caller(cb->skb);
	if (r)
		return r;
	r = genlmsg_parse(cb->nlh, &qc2_family, attrs, QC2_ATTR_MAX, qc2_policy, cb->extack);
	if (r)
		return r;
	if (!attrs[QC2_ATTR_DEV]) {
		NL_SET_ERR_MSG(cb->extack, "no device");
		return -EINVAL;
	}
	dump->dev = nla_get_u32(attrs[QC2_ATTR_DEV]);

	while ((qt = qc2_target_get(dump->dev, generation, true))) {
		bool mine = READ_ONCE(qt->owner) == NETLINK_CB(cb->skb).portid;

		generation = qt->generation;
		if (mine) {
			/* A request made after this rings again. */
			clear_bit(0, &qt->doorbell);
			if (attrs[QC2_ATTR_RESEND])
				qc2_miss_resend(&qt->misses);
		}
		qc2_target_put(qt);
		if (!mine) {
			NL_SET_ERR_MSG(cb->extack, "not registered for the device");
			return -EPERM;
		}
	}
	/* The doorbell is clear before the requests are looked at. */
	smp_mb__after_atomic();
	return generation ? 0 : -ENODEV;
}

static int qc2_pending_put(struct sk_buff *skb, struct netlink_callback *cb,
			   struct qc2_target *qt)
{
	struct qc2_request req;
	void *hdr;

	/* A dump may go on after its socket has given the device up. */
	while (READ_ONCE(qt->owner) == NETLINK_CB(cb->skb).portid &&
	       qc2_miss_peek(&qt->misses, &req)) {
		hdr = genlmsg_put(skb, NETLINK_CB(cb->skb).portid, cb->nlh->nlmsg_seq,
				  &qc2_family, NLM_F_MULTI, QC2_CMD_GET_PENDING);
		if (!hdr)
			return -EMSGSIZE;
		if (nla_put_u32(skb, QC2_ATTR_DEV, qc2_dev_attr(qt->devt)) ||
		    nla_put_u64_64bit(skb, QC2_ATTR_GENERATION, qt->generation, QC2_ATTR_PAD) ||
		    nla_put_u64_64bit(skb, QC2_ATTR_ID, req.id, QC2_ATTR_PAD) ||
		    nla_put_u64_64bit(skb, QC2_ATTR_SECTOR, req.sector, QC2_ATTR_PAD) ||
		    nla_put_u64_64bit(skb, QC2_ATTR_SECTORS, req.nr_sectors, QC2_ATTR_PAD) ||
		    (req.failed && nla_put_u32(skb, QC2_ATTR_FAILED_STORE, req.failed_store))) {
			genlmsg_cancel(skb, hdr);
			return -EMSGSIZE;
		}
		genlmsg_end(skb, hdr);
		qc2_miss_sent(&qt->misses, &req);
	}
	return 0;
}

static int qc2_pending_dump(struct sk_buff *skb, struct netlink_callback *cb)
{
	return qc2_dump_targets(skb, cb, qc2_pending_put);
}

/*
 * ---------------------------------------------------------------------------
 * Replies
 * ---------------------------------------------------------------------------
 */

/*
 * A copy of an attribute that is an array: attributes are aligned to 4 bytes only.
 * To be freed with kvfree().
 */
static void *qc2_array(const struct nlattr *attr, size_t size, unsigned int *nr,
		       struct netlink_ext_ack *extack)
{
	void *array;

	*nr = nla_len(attr) / size;
	if (!*nr || nla_len(attr) % size) {
		NL_SET_ERR_MSG_ATTR(extack, attr, "not an array");
		return ERR_PTR(-EINVAL);
	}
	array = kvmalloc(nla_len(attr), GFP_NOIO);
	if (!array)
		return ERR_PTR(-ENOMEM);
	return memcpy(array, nla_data(attr), nla_len(attr));
}

static int qc2_reply_runs(struct qc2_target *qt, struct genl_info *info)
{
	struct qc2_run *runs;
	unsigned int nr;
	int r;

	runs = qc2_array(info->attrs[QC2_ATTR_RUNS], sizeof(*runs), &nr, info->extack);
	if (IS_ERR(runs))
		return PTR_ERR(runs);

	r = qc2_check_runs(qt, runs, nr, info->extack);
	if (!r) {
		/* Reads wake in any case: one that misses again is asked again. */
		r = qc2_map_insert(&qt->map, runs, nr);
		qc2_miss_wake(&qt->misses, runs, nr);
	}
	kvfree(runs);
	return r;
}

static int qc2_cmd_reply(struct sk_buff *skb, struct genl_info *info)
{
	struct nlattr **attrs = info->attrs;
	struct qc2_target *qt;
	int r;

	r = qc2_check_caller(skb);
	if (r)
		return r;
	if (GENL_REQ_ATTR_CHECK(info, QC2_ATTR_DEV) ||
	    GENL_REQ_ATTR_CHECK(info, QC2_ATTR_GENERATION))
		return -EINVAL;

	qt = qc2_target_get(nla_get_u32(attrs[QC2_ATTR_DEV]),
			    nla_get_u64(attrs[QC2_ATTR_GENERATION]), false);
	if (!qt) {
		NL_SET_ERR_MSG(info->extack, "no such table");
		return -ENODEV;
	}

	if (READ_ONCE(qt->owner) != info->snd_portid) {
		NL_SET_ERR_MSG(info->extack, "not registered for the device");
		r = -EPERM;
	} else if (attrs[QC2_ATTR_RUNS]) {
		r = qc2_reply_runs(qt, info);
	} else if (attrs[QC2_ATTR_ID] && attrs[QC2_ATTR_ERRNO]) {
		/* Some errnos mean something to dm and the block layer. */
		r = qc2_miss_fail(&qt->misses, nla_get_u64(attrs[QC2_ATTR_ID]),
				  BLK_STS_IOERR);
	} else {
		NL_SET_ERR_MSG(info->extack, "neither runs nor an error");
		r = -EINVAL;
	}
	qc2_target_put(qt);
	return r;
}

static int qc2_cmd_forget(struct sk_buff *skb, struct genl_info *info)
{
	struct nlattr **attrs = info->attrs;
	struct qc2_range *ranges;
	struct qc2_target *qt;
	u64 generation = 0;
	unsigned int nr;
	int r;

	r = qc2_check_caller(skb);
	if (r)
		return r;
	if (GENL_REQ_ATTR_CHECK(info, QC2_ATTR_DEV) ||
	    GENL_REQ_ATTR_CHECK(info, QC2_ATTR_STORE) ||
	    GENL_REQ_ATTR_CHECK(info, QC2_ATTR_RANGES))
		return -EINVAL;

	ranges = qc2_array(attrs[QC2_ATTR_RANGES], sizeof(*ranges), &nr, info->extack);
	if (IS_ERR(ranges))
		return PTR_ERR(ranges);
	r = qc2_check_ranges(ranges, nr, info->extack);
	if (r)
		goto out;

	while ((qt = qc2_target_get(nla_get_u32(attrs[QC2_ATTR_DEV]), generation, true))) {
		generation = qt->generation;
		qc2_map_forget(&qt->map, nla_get_u32(attrs[QC2_ATTR_STORE]), ranges, nr);
		qc2_target_put(qt);
	}
	r = generation ? 0 : -ENODEV;
out:
	kvfree(ranges);
	return r;
}

static const struct genl_ops qc2_ops[] = {
	{
		.cmd = QC2_CMD_GET_DEVICES,
		.start = qc2_devices_start,
		.dumpit = qc2_devices_dump,
	}, {
		.cmd = QC2_CMD_REGISTER,
		.doit = qc2_cmd_register,
	}, {
		.cmd = QC2_CMD_UNREGISTER,
		.doit = qc2_cmd_unregister,
	}, {
		.cmd = QC2_CMD_GET_PENDING,
		.start = qc2_pending_start,
		.dumpit = qc2_pending_dump,
	}, {
		.cmd = QC2_CMD_REPLY,
		.doit = qc2_cmd_reply,
	}, {
		.cmd = QC2_CMD_FORGET,
		.doit = qc2_cmd_forget,
	},
};

static struct genl_family qc2_family __ro_after_init = {
	.name = QC2_GENL_NAME,
	.version = QC2_GENL_VERSION,
	.maxattr = QC2_ATTR_MAX,
	.policy = qc2_policy,
	.module = THIS_MODULE,
	.ops = qc2_ops,
	.n_ops = ARRAY_SIZE(qc2_ops),
	/*
	 * A forget waits for I/O and replies must not wait for it; nor may
	 * other families that sleep in reclaim on one of our devices.
	 */
	.parallel_ops = true,
};

int __init qc2_netlink_init(void)
{
	int r;

	r = genl_register_family(&qc2_family);
	if (r)
		return r;
	r = netlink_register_notifier(&qc2_netlink_notifier);
	if (r)
		genl_unregister_family(&qc2_family);
	return r;
}

void qc2_netlink_exit(void)
{
	netlink_unregister_notifier(&qc2_netlink_notifier);
	genl_unregister_family(&qc2_family);
}
