/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A raw client of the kernel's netlink family, for tests of the kernel alone:
 *
 *	qc2nl identity [--rcvbuf BYTES] [--whole SECTORS] DEV…
 *				be the daemon of devices whose store 0 holds the
 *				virtual disk itself, and whose other stores are
 *				frozen tips, a later one over the earlier;
 *				prints "ready", "overrun" for each ENOBUFS, and
 *				ends by a signal.  With --rcvbuf it has a buffer
 *				of that size, and asks only when it is told of
 *				something.  With --whole, the disk's size, an
 *				answer covers all of it; there is one store then
 *	qc2nl hostile DEV OTHER	register, wait for a request, send messages that
 *				the kernel must refuse, each for its reason, see
 *				that the request still waits, and at last answer
 *				it.  OTHER is another device; the store is as
 *				large as the disk
 *	qc2nl late DEV		take a request, print "holding", wait until a new
 *				table asks again and standard input ends; the reply
 *				to the old table is refused, that to the new one is
 *				not
 *	qc2nl second DEV	another daemon is there: everything that is the
 *				daemon's right is refused
 *	qc2nl handover DEV	two sockets pass the device on to each other
 *	qc2nl denied DEV	the caller may do nothing
 *	qc2nl zero DEV		say, unasked, that the whole disk is zeros
 *	qc2nl copies DEV	be the daemon of a device each store of which holds the
 *				virtual disk itself: name the first, for half of some
 *				blocks the second, and for a block that is said to
 *				have failed the one after that from then on;
 *				prints "ready", and "failed SECTOR STORE" for each
 *				request that says so
 *	qc2nl stubborn DEV	the same, but name the first store always
 *	qc2nl retold DEV	of such a device: name the first store for the front of
 *				block 0, print "named", take a request for the block,
 *				print "holding", see that it is told again when the
 *				first store fails, and name the second
 *
 * DEV is MAJOR:MINOR.  Exit status 0 if all was as expected.
 */
#include <errno.h>
#include <libgen.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <libdevmapper.h>
#include <netlink/genl/ctrl.h>
#include <netlink/genl/genl.h>
#include <netlink/netlink.h>

#include <linux/dm-qcow2chain.h>

#include "tip.h"

struct request {
	uint32_t dev;
	uint64_t generation, id, sector, nr_sectors;
	bool failed;
	uint32_t failed_store;
};

/* A loaded table, as GET_DEVICES shows it. */
struct table {
	uint32_t dev, owner;
	uint64_t generation, nr_sectors;
};

static struct nl_sock *sock;		/* of the daemon that we are, if we are one */
static int family;
static uint32_t dev;
static struct request *requests;	/* of the last dump */
static unsigned int nr_requests;
static struct table table;		/* the newest one of @dev */
static bool overrun;			/* messages were lost: cleared by the user */
static bool rung;			/* a doorbell has come: likewise */
static uint32_t whole;			/* sectors of the disk, if answers cover it */

static void __attribute__((noreturn)) die(const char *what, int err)
{
	fprintf(stderr, "qc2nl: %s: %s\n", what, nl_geterror(err));
	exit(1);
}

static int usage(void)
{
	fprintf(stderr, "usage: qc2nl identity [--rcvbuf BYTES] [--whole SECTORS] DEV... |\n"
		"             hostile DEV OTHER |\n"
		"             late|second|handover|denied|zero|copies|stubborn|retold DEV\n"
		"DEV is MAJOR:MINOR\n");
	return 2;
}

static uint32_t parse_dev(const char *arg)
{
	unsigned int major, minor;

	if (!arg || sscanf(arg, "%u:%u", &major, &minor) != 2)
		exit(usage());
	return major << 20 | minor;
}

/*
 * ---------------------------------------------------------------------------
 * Messages
 * ---------------------------------------------------------------------------
 */

/* Without a device for @of 0. */
static struct nl_msg *message(int cmd, int flags, uint32_t of)
{
	struct nl_msg *msg = nlmsg_alloc_size(128 << 10);

	if (!msg || !genlmsg_put(msg, NL_AUTO_PORT, NL_AUTO_SEQ, family, 0,
				 NLM_F_REQUEST | flags, cmd, QC2_GENL_VERSION))
		die("cannot make a message", -NLE_NOMEM);
	if (of)
		nla_put_u32(msg, QC2_ATTR_DEV, of);
	return msg;
}

static struct nl_msg *pending_message(uint32_t of, bool resend)
{
	struct nl_msg *msg = message(QC2_CMD_GET_PENDING, NLM_F_DUMP, of);

	if (resend)
		nla_put_flag(msg, QC2_ATTR_RESEND);
	return msg;
}

static struct nl_msg *runs_message(uint64_t generation, const struct qc2_run *runs,
				   unsigned int nr_bytes)
{
	struct nl_msg *msg = message(QC2_CMD_REPLY, NLM_F_ACK, dev);

	nla_put_u64(msg, QC2_ATTR_GENERATION, generation);
	nla_put(msg, QC2_ATTR_RUNS, nr_bytes, runs);
	return msg;
}

static struct nl_msg *errno_message(uint64_t generation, uint64_t id, uint32_t err)
{
	struct nl_msg *msg = message(QC2_CMD_REPLY, NLM_F_ACK, dev);

	nla_put_u64(msg, QC2_ATTR_GENERATION, generation);
	nla_put_u64(msg, QC2_ATTR_ID, id);
	nla_put_u32(msg, QC2_ATTR_ERRNO, err);
	return msg;
}

static struct nl_msg *forget_ranges_message(uint32_t store, const struct qc2_range *ranges,
					    unsigned int nr_bytes)
{
	struct nl_msg *msg = message(QC2_CMD_FORGET, NLM_F_ACK, dev);

	nla_put_u32(msg, QC2_ATTR_STORE, store);
	nla_put(msg, QC2_ATTR_RANGES, nr_bytes, ranges);
	return msg;
}

static struct nl_msg *forget_message(uint64_t sector, uint64_t nr_sectors)
{
	struct qc2_range range = { .sector = sector, .nr_sectors = nr_sectors };

	return forget_ranges_message(0, &range, sizeof(range));
}

static void on_request(struct nlattr **attrs)
{
	requests = reallocarray(requests, nr_requests + 1, sizeof(*requests));
	if (!requests)
		die("requests", -NLE_NOMEM);
	requests[nr_requests++] = (struct request){
		.dev = nla_get_u32(attrs[QC2_ATTR_DEV]),
		.generation = nla_get_u64(attrs[QC2_ATTR_GENERATION]),
		.id = nla_get_u64(attrs[QC2_ATTR_ID]),
		.sector = nla_get_u64(attrs[QC2_ATTR_SECTOR]),
		.nr_sectors = nla_get_u64(attrs[QC2_ATTR_SECTORS]),
		.failed = attrs[QC2_ATTR_FAILED_STORE],
	};
	if (attrs[QC2_ATTR_FAILED_STORE])
		requests[nr_requests - 1].failed_store =
			nla_get_u32(attrs[QC2_ATTR_FAILED_STORE]);
}

static void on_table(struct nlattr **attrs)
{
	if (nla_get_u32(attrs[QC2_ATTR_DEV]) != dev ||
	    nla_get_u64(attrs[QC2_ATTR_GENERATION]) < table.generation)
		return;
	table = (struct table){
		.dev = dev,
		.owner = nla_get_u32(attrs[QC2_ATTR_OWNER]),
		.generation = nla_get_u64(attrs[QC2_ATTR_GENERATION]),
		.nr_sectors = nla_get_u64(attrs[QC2_ATTR_SECTORS]),
	};
}

static int on_message(struct nl_msg *msg, void *arg)
{
	struct genlmsghdr *hdr = nlmsg_data(nlmsg_hdr(msg));
	struct nlattr *attrs[QC2_ATTR_MAX + 1];

	if (genlmsg_parse(nlmsg_hdr(msg), 0, attrs, QC2_ATTR_MAX, NULL))
		die("message from the kernel", -NLE_MSGTYPE_NOSUPPORT);
	if (hdr->cmd == QC2_CMD_GET_PENDING)
		on_request(attrs);
	else if (hdr->cmd == QC2_CMD_GET_DEVICES)
		on_table(attrs);
	else if (hdr->cmd == QC2_CMD_DOORBELL)
		rung = true;
	return NL_OK;
}

/* The call that waits for its answer. */
static struct {
	uint32_t seq;
	bool done;
	int error;
	char text[256];		/* the kernel's words */
} asked;

static int on_done(struct nl_msg *msg, void *arg)
{
	if (nlmsg_hdr(msg)->nlmsg_seq == asked.seq)
		asked.done = true;
	return NL_SKIP;
}

static int on_error(struct sockaddr_nl *addr, struct nlmsgerr *err, void *arg)
{
	struct nlmsghdr *hdr = (struct nlmsghdr *)((char *)err - NLMSG_HDRLEN);
	struct nlattr *attrs[NLMSGERR_ATTR_MAX + 1];

	if (hdr->nlmsg_seq != asked.seq)
		return NL_SKIP;
	asked.error = err->error;
	asked.done = true;
	if ((hdr->nlmsg_flags & NLM_F_ACK_TLVS) &&
	    !nlmsg_parse(hdr, sizeof(*err), attrs, NLMSGERR_ATTR_MAX, NULL) &&
	    attrs[NLMSGERR_ATTR_MSG])
		nla_strlcpy(asked.text, attrs[NLMSGERR_ATTR_MSG], sizeof(asked.text));
	return NL_SKIP;
}

/* Takes what has come.  Return: whether there may be more. */
static bool receive(struct nl_sock *on)
{
	int r = nl_recvmsgs_default(on);

	if (r == -NLE_NOMEM) {		/* ENOBUFS */
		overrun = true;
		puts("overrun");
		fflush(stdout);
	} else if (r < 0 && r != -NLE_AGAIN) {
		die("receive", r);
	}
	return r != -NLE_AGAIN;
}

/*
 * Sends a message.  The kernel works it off at once, so the answer lies there,
 * unless it was lost in an overrun.  Returns 0 or a negative errno, -ENOBUFS if
 * the answer was lost.
 */
static int call(struct nl_sock *on, struct nl_msg *msg)
{
	int r;

	memset(&asked, 0, sizeof(asked));
	nl_complete_msg(on, msg);
	asked.seq = nlmsg_hdr(msg)->nlmsg_seq;
	r = nl_send(on, msg);
	nlmsg_free(msg);
	if (r < 0)
		die("send", r);
	while (!asked.done && receive(on))
		;
	if (!asked.done && !overrun)
		die("no answer", -NLE_AGAIN);
	return asked.done ? asked.error : -ENOBUFS;
}

static struct nl_sock *open_sock(int rcvbuf)
{
	struct nl_sock *s = nl_socket_alloc();
	int one = 1, fd;

	if (!s || genl_connect(s))
		die("connect", -NLE_FAILURE);
	family = genl_ctrl_resolve(s, QC2_GENL_NAME);
	if (family < 0)
		die("family " QC2_GENL_NAME, family);
	nl_socket_disable_seq_check(s);
	nl_socket_disable_auto_ack(s);
	nl_socket_set_nonblocking(s);
	nl_socket_set_msg_buf_size(s, 65536);
	nl_socket_modify_cb(s, NL_CB_VALID, NL_CB_CUSTOM, on_message, NULL);
	nl_socket_modify_cb(s, NL_CB_FINISH, NL_CB_CUSTOM, on_done, NULL);
	nl_socket_modify_cb(s, NL_CB_ACK, NL_CB_CUSTOM, on_done, NULL);
	nl_socket_modify_err_cb(s, NL_CB_CUSTOM, on_error, NULL);
	fd = nl_socket_get_fd(s);
	if (setsockopt(fd, SOL_NETLINK, NETLINK_EXT_ACK, &one, sizeof(one)) ||
	    setsockopt(fd, SOL_NETLINK, NETLINK_CAP_ACK, &one, sizeof(one)) ||
	    (rcvbuf && setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &rcvbuf, sizeof(rcvbuf))))
		die("setsockopt", -NLE_FAILURE);
	return s;
}

static void expect(const char *what, int found, int expected)
{
	printf("%s: %s%s%s, expected %s\n", what, strerror(-found), *asked.text ? ": " : "",
	       asked.text, strerror(-expected));
	fflush(stdout);
	if (found != expected)
		exit(1);
}

static void check(const char *what, bool right)
{
	printf("%s: %s\n", what, right ? "right" : "wrong");
	fflush(stdout);
	if (!right)
		exit(1);
}

static void get_table(struct nl_sock *on)
{
	table.generation = 0;
	expect("asking for the tables",
	       call(on, message(QC2_CMD_GET_DEVICES, NLM_F_DUMP, 0)), 0);
	check("the device has a table", table.generation);
}

static void register_sock(void)
{
	expect("registering", call(sock, message(QC2_CMD_REGISTER, NLM_F_ACK, dev)), 0);
}

/* Until there is a request of a table newer than @generation. */
static void wait_for_request(uint64_t generation)
{
	struct pollfd pfd = { .fd = nl_socket_get_fd(sock), .events = POLLIN };

	for (;;) {
		nr_requests = 0;
		expect("fetching requests", call(sock, pending_message(dev, false)), 0);
		if (nr_requests && requests[0].generation > generation)
			return;
		poll(&pfd, 1, 1000);
	}
}

/*
 * ---------------------------------------------------------------------------
 * A daemon
 * ---------------------------------------------------------------------------
 */

static void fetch(uint32_t of, bool resend)
{
	int r = call(sock, pending_message(of, resend));

	/* A dump that an overrun has cut short ends before the next one starts. */
	if (r == -ENOBUFS || r == -EBUSY)
		overrun = true;
	else if (r && r != -ENODEV)	/* a device may go */
		expect("fetching requests", r, 0);
}

/* A store that is a frozen tip. */
struct frozen {
	uint64_t data_start;
	struct qc2_tip_range *ranges;	/* what it holds */
	unsigned int nr_ranges;
};

/* The stores of the table that was asked about last; of store 0 nothing is known. */
static struct frozen stores[QC2_MAX_STORES];
static unsigned int nr_stores;
static uint64_t stores_generation;

static void on_range(void *arg, const struct qc2_tip_range *range)
{
	struct frozen *store = arg;

	store->ranges = reallocarray(store->ranges, store->nr_ranges + 1,
				     sizeof(*store->ranges));
	if (!store->ranges)
		die("ranges of a tip", -NLE_NOMEM);
	store->ranges[store->nr_ranges++] = *range;
}

static void load_frozen(struct frozen *store, const char *number)
{
	struct qc2_tip_visitor visitor = { .range = on_range, .arg = store };
	char link[64], target[256], path[320];
	struct qc2_tip_info info;
	struct qc2_err err;
	ssize_t len;

	/* There is no udev that would make /dev/block. */
	snprintf(link, sizeof(link), "/sys/dev/block/%s", number);
	len = readlink(link, target, sizeof(target) - 1);
	if (len < 0)
		die(link, -NLE_OBJ_NOTFOUND);
	target[len] = '\0';
	snprintf(path, sizeof(path), "/dev/%s", basename(target));
	if (qc2_tip_check(path, &visitor, &info, &err)) {
		fprintf(stderr, "qc2nl: store %s: %s\n", path, err.msg);
		exit(1);
	}
	store->data_start = info.data_start;
}

/* "CHAIN_ID TIP NR_STORES STORE…" of the live table */
static void load_stores(uint64_t generation)
{
	struct dm_task *task = dm_task_create(DM_DEVICE_TABLE);
	char *type = NULL, *params = NULL, *word;
	uint64_t start, len;
	unsigned int i;

	for (i = 0; i < nr_stores; i++)
		free(stores[i].ranges);
	memset(stores, 0, sizeof(stores));
	nr_stores = 1;
	stores_generation = generation;

	if (!task || !dm_task_set_major(task, dev >> 20) ||
	    !dm_task_set_minor(task, dev & 0xfffff))
		die("the device's table", -NLE_NOMEM);
	/* A device that is gone, or has another table, refuses the reply. */
	if (dm_task_run(task))
		dm_get_next_target(task, NULL, &start, &len, &type, &params);
	if (params && !strcmp(type, "qcow2chain")) {
		strsep(&params, " ");
		strsep(&params, " ");
		nr_stores = atoi(strsep(&params, " "));
		for (i = 0; i < nr_stores; i++) {
			word = strsep(&params, " ");
			if (i)
				load_frozen(&stores[i], word);
		}
	}
	dm_task_destroy(task);
}

/* The run that begins at @sector and ends before @end. */
static struct qc2_run find_run(uint64_t sector, uint64_t end)
{
	struct qc2_run run = { .sector = sector, .store_sector = sector };
	unsigned int i, k;

	for (i = nr_stores - 1; i && !run.store; i--) {
		const struct frozen *store = &stores[i];

		for (k = 0; k < store->nr_ranges; k++) {
			const struct qc2_tip_range *range = &store->ranges[k];

			if (range->sector + range->nr_sectors <= sector)
				continue;
			if (range->sector <= sector) {
				run.store = i;
				run.store_sector = store->data_start + sector;
				if (end > range->sector + range->nr_sectors)
					end = range->sector + range->nr_sectors;
			} else if (end > range->sector) {
				end = range->sector;
			}
			break;
		}
	}
	run.nr_sectors = end - sector;
	return run;
}

static bool still_pending(const struct request *req)
{
	unsigned int i;
	int r;

	nr_requests = 0;
	r = call(sock, pending_message(req->dev, true));
	for (i = 0; !r && i < nr_requests; i++) {
		if (requests[i].id == req->id && requests[i].generation == req->generation)
			return true;
	}
	return false;
}

/* Returns false if all requests must be fetched again. */
static bool answer(struct request req)
{
	struct qc2_run runs[QC2_BLOCK_SECTORS];
	uint64_t sector = req.sector, end = req.sector + req.nr_sectors;
	unsigned int nr = 0;
	int r;

	dev = req.dev;
	if (req.generation != stores_generation)
		load_stores(req.generation);
	if (whole) {
		sector = 0;
		end = whole;
	}
	for (; sector < end; sector += runs[nr++].nr_sectors)
		runs[nr] = find_run(sector, end);
	r = call(sock, runs_message(req.generation, runs, nr * sizeof(runs[0])));
	if (!r || r == -ENODEV || r == -ENOBUFS)
		return true;
	/* The table, and with it the stores, may have been swapped meanwhile. */
	if (still_pending(&req))
		expect("reply", r, 0);
	overrun = true;
	return false;
}

static void __attribute__((noreturn)) identity(char **devs, unsigned int nr_devs, int timer_ms)
{
	struct pollfd pfd = { .fd = nl_socket_get_fd(sock), .events = POLLIN };
	unsigned int i;
	bool resend;

	for (i = 0; i < nr_devs; i++) {
		dev = parse_dev(devs[i]);
		register_sock();
	}
	puts("ready");
	fflush(stdout);
	for (;;) {
		while (receive(sock))
			;
		nr_requests = 0;
		rung = false;
		resend = overrun;
		overrun = false;
		for (i = 0; i < nr_devs; i++)
			fetch(parse_dev(devs[i]), resend);
		for (i = 0; i < nr_requests && answer(requests[i]); i++)
			;
		if (!nr_requests && !overrun && !rung)
			poll(&pfd, 1, timer_ms);
	}
}

/*
 * ---------------------------------------------------------------------------
 * What the kernel must refuse
 * ---------------------------------------------------------------------------
 */

static struct request held;		/* waits while we misbehave */

/* A refused message has no effect. */
static void refused_on(struct nl_sock *on, const char *what, struct nl_msg *msg, int expected)
{
	expect(what, call(on, msg), expected);
	check("the request still waits", still_pending(&held));
}

static void refused(const char *what, struct nl_msg *msg, int expected)
{
	refused_on(sock, what, msg, expected);
}

/* The kernel says in words what is wrong with runs. */
static void bad_runs(const char *what, const struct qc2_run *runs, unsigned int nr)
{
	expect(what, call(sock, runs_message(held.generation, runs, nr * sizeof(*runs))), -EINVAL);
	check("a reason is given", *asked.text);
	check("the request still waits", still_pending(&held));
}

static unsigned int logical_block_sectors(void)
{
	char path[128];
	unsigned int bytes;
	FILE *file;

	snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/queue/logical_block_size",
		 dev >> 20, dev & 0xfffff);
	file = fopen(path, "r");
	if (!file || fscanf(file, "%u", &bytes) != 1)
		die(path, -NLE_FAILURE);
	fclose(file);
	return bytes / 512;
}

static struct qc2_run identity_run(uint64_t sector, uint32_t nr_sectors)
{
	return (struct qc2_run){
		.sector = sector, .nr_sectors = nr_sectors, .store_sector = sector,
	};
}

static void hostile_runs(void)
{
	unsigned int block = logical_block_sectors();
	const struct qc2_run good = identity_run(held.sector, held.nr_sectors);
	uint64_t size = table.nr_sectors;
	struct qc2_run run[2];

	run[0] = good;
	run[0].nr_sectors = 0;
	bad_runs("empty run", run, 1);
	run[0] = good;
	run[0].nr_sectors = UINT32_MAX - 7;
	bad_runs("run past the end of the disk", run, 1);
	run[0] = identity_run(size, held.nr_sectors);
	bad_runs("run behind the end of the disk", run, 1);
	run[0] = good;
	run[0].sector = UINT64_MAX - 7;
	bad_runs("sector overflow", run, 1);
	run[0].sector = 1ULL << 63;
	bad_runs("huge sector", run, 1);

	run[0] = good;
	run[0].store_sector = size - 8;
	bad_runs("run past the end of the store", run, 1);
	run[0].store_sector = size;
	bad_runs("run behind the end of the store", run, 1);
	run[0].store_sector = UINT64_MAX - 7;
	bad_runs("store sector overflow", run, 1);
	run[0] = good;
	run[0].store = 1;
	bad_runs("unknown store", run, 1);
	run[0].store = QC2_STORE_ZERO - 1;
	bad_runs("huge store", run, 1);
	run[0] = good;
	run[0].store = QC2_STORE_ZERO;
	run[0].store_sector = 8;
	bad_runs("zeros with a place", run, 1);

	/* The first run alone would be right. */
	run[0] = good;
	run[1] = good;
	bad_runs("the same run twice", run, 2);
	run[1] = identity_run(held.sector + 64, held.nr_sectors);
	bad_runs("overlapping runs", run, 2);
	run[0] = identity_run(held.sector + 64, 8);
	run[1] = identity_run(held.sector + 32, 8);
	bad_runs("unsorted runs", run, 2);
	run[0] = good;
	run[1] = identity_run(held.sector + held.nr_sectors, 8);
	run[1].store = 1;
	bad_runs("a right run before a wrong one", run, 2);

	if (block > 1) {
		run[0] = good;
		run[0].sector++;
		run[0].nr_sectors -= block;
		bad_runs("unaligned sector", run, 1);
		run[0] = good;
		run[0].nr_sectors--;
		bad_runs("unaligned length", run, 1);
		run[0] = good;
		run[0].store_sector++;
		bad_runs("unaligned store sector", run, 1);
		run[0].store = QC2_STORE_ZERO;
		run[0].store_sector = 0;
		run[0].nr_sectors--;
		bad_runs("unaligned zeros", run, 1);
	}
}

static void hostile_attributes(void)
{
	const struct qc2_run good = identity_run(held.sector, held.nr_sectors);
	static struct qc2_run many[QC2_MAX_RUNS + 1];
	unsigned int i, block = logical_block_sectors();
	struct nl_msg *msg;
	struct nlattr *nla;

	refused("empty array", runs_message(held.generation, &good, 0), -EINVAL);
	refused("half a run", runs_message(held.generation, &good, sizeof(good) / 2), -EINVAL);
	for (i = 0; i <= QC2_MAX_RUNS; i++)
		many[i] = identity_run(held.sector + i * block, block);
	refused("too many runs", runs_message(held.generation, many, sizeof(many)), -ERANGE);
	refused("more than the greatest number of runs by a byte",
		runs_message(held.generation, many, sizeof(many) - sizeof(many[0]) + 1), -ERANGE);

	msg = message(QC2_CMD_REPLY, NLM_F_ACK, dev);
	nla_put_u64(msg, QC2_ATTR_GENERATION, held.generation);
	refused("neither runs nor an error", msg, -EINVAL);
	msg = message(QC2_CMD_REPLY, NLM_F_ACK, dev);
	nla_put_u64(msg, QC2_ATTR_GENERATION, held.generation);
	nla_put_u64(msg, QC2_ATTR_ID, held.id);
	refused("request without an error", msg, -EINVAL);
	msg = message(QC2_CMD_REPLY, NLM_F_ACK, dev);
	nla_put_u64(msg, QC2_ATTR_GENERATION, held.generation);
	nla_put_u32(msg, QC2_ATTR_ERRNO, EIO);
	refused("error without a request", msg, -EINVAL);
	msg = message(QC2_CMD_REPLY, NLM_F_ACK, dev);
	nla_put(msg, QC2_ATTR_RUNS, sizeof(good), &good);
	refused("no generation", msg, -EINVAL);
	msg = message(QC2_CMD_REPLY, NLM_F_ACK, 0);
	nla_put_u64(msg, QC2_ATTR_GENERATION, held.generation);
	nla_put(msg, QC2_ATTR_RUNS, sizeof(good), &good);
	refused("no device", msg, -EINVAL);
	refused("nothing", message(QC2_CMD_REPLY, NLM_F_ACK, 0), -EINVAL);

	msg = message(QC2_CMD_REPLY, NLM_F_ACK, dev);
	nla_put_u32(msg, QC2_ATTR_GENERATION, held.generation);
	nla_put(msg, QC2_ATTR_RUNS, sizeof(good), &good);
	refused("short generation", msg, -EINVAL);
	msg = message(QC2_CMD_REPLY, NLM_F_ACK, dev);
	nla_put_u64(msg, QC2_ATTR_GENERATION, held.generation);
	nla_put_u32(msg, QC2_ATTR_ID, held.id);
	nla_put_u32(msg, QC2_ATTR_ERRNO, EIO);
	refused("short id", msg, -EINVAL);
	msg = message(QC2_CMD_REPLY, NLM_F_ACK, dev);
	nla_put_u64(msg, QC2_ATTR_GENERATION, held.generation);
	nla_put_u64(msg, QC2_ATTR_ID, held.id);
	nla_put_u64(msg, QC2_ATTR_ERRNO, EIO);
	refused("long errno", msg, -EINVAL);
	msg = runs_message(held.generation, &good, sizeof(good));
	nla_put_u32(msg, QC2_ATTR_MAX + 1, 0);
	refused("unknown attribute", msg, -EINVAL);
	/* The last attribute says that it reaches past the end of the message. */
	msg = runs_message(held.generation, &good, sizeof(good));
	nla = nlmsg_find_attr(nlmsg_hdr(msg), GENL_HDRLEN, QC2_ATTR_RUNS);
	nla->nla_len += sizeof(good);
	refused("truncated attribute", msg, -EINVAL);
	msg = runs_message(held.generation, &good, sizeof(good));
	nla = nlmsg_find_attr(nlmsg_hdr(msg), GENL_HDRLEN, QC2_ATTR_RUNS);
	nla->nla_len = 1;
	refused("attribute shorter than its header", msg, -EINVAL);
}

static void hostile_errnos(void)
{
	refused("unknown id", errno_message(held.generation, held.id + 1000, EIO), -ENOENT);
	refused("id 0", errno_message(held.generation, 0, EIO), -ENOENT);
	refused("errno 0", errno_message(held.generation, held.id, 0), -ERANGE);
	refused("errno 4096", errno_message(held.generation, held.id, 4096), -ERANGE);
	refused("negative errno", errno_message(held.generation, held.id, -EIO), -ERANGE);
}

static void hostile_devices(uint32_t other)
{
	const struct qc2_run good = identity_run(held.sector, held.nr_sectors);
	uint64_t generation = held.generation;
	struct nl_sock *stranger = open_sock(0);
	struct nl_msg *msg;

	refused("a later generation", runs_message(generation + 1000, &good, sizeof(good)),
		-ENODEV);
	refused("generation 0", runs_message(0, &good, sizeof(good)), -ENODEV);
	refused("error of another generation", errno_message(generation + 1000, held.id, EIO),
		-ENODEV);

	dev = 0xfff00000;
	refused("unknown device", runs_message(generation, &good, sizeof(good)), -ENODEV);
	refused("registering for an unknown device",
		message(QC2_CMD_REGISTER, NLM_F_ACK, dev), -ENODEV);
	refused("requests of an unknown device", pending_message(dev, false), -ENODEV);
	refused("forgetting on an unknown device", forget_message(0, 8), -ENODEV);
	msg = message(QC2_CMD_REGISTER, NLM_F_ACK, 0);
	nla_put_u32(msg, QC2_ATTR_DEV, 0);
	refused("device 0", msg, -ERANGE);
	refused("registering for no device", message(QC2_CMD_REGISTER, NLM_F_ACK, 0), -EINVAL);
	refused("unregistering from no device", message(QC2_CMD_UNREGISTER, NLM_F_ACK, 0),
		-EINVAL);
	refused("requests of no device", message(QC2_CMD_GET_PENDING, NLM_F_DUMP, 0), -EINVAL);

	dev = other;
	get_table(sock);
	refused("generation of another device", runs_message(generation, &good, sizeof(good)),
		-ENODEV);
	refused("device of no daemon", runs_message(table.generation, &good, sizeof(good)),
		-EPERM);
	refused("error for a device of no daemon",
		errno_message(table.generation, held.id, EIO), -EPERM);
	refused("requests of a device of no daemon", pending_message(dev, true), -EPERM);
	refused("unregistering from a device of no daemon",
		message(QC2_CMD_UNREGISTER, NLM_F_ACK, dev), 0);

	dev = held.dev;
	get_table(sock);
	refused_on(stranger, "a stranger's reply",
		   runs_message(generation, &good, sizeof(good)), -EPERM);
	refused_on(stranger, "a stranger's error", errno_message(generation, held.id, EIO),
		   -EPERM);
	nl_socket_free(stranger);
}

static void bad_ranges(const char *what, const struct qc2_range *ranges, unsigned int nr)
{
	expect(what, call(sock, forget_ranges_message(0, ranges, nr * sizeof(*ranges))), -EINVAL);
	check("a reason is given", *asked.text);
	check("the request still waits", still_pending(&held));
}

static void hostile_ranges(void)
{
	static struct qc2_range many[QC2_MAX_RANGES + 1];
	const struct qc2_range good = { .sector = 8, .nr_sectors = 8 };
	struct qc2_range range[2];
	struct nl_msg *msg;
	unsigned int i;

	bad_ranges("forgetting no ranges", &good, 0);
	refused("forgetting half a range", forget_ranges_message(0, &good, sizeof(good) / 2),
		-EINVAL);
	refused("forgetting an empty range", forget_message(0, 0), -EINVAL);
	refused("forgetting with overflow", forget_message(16, UINT64_MAX - 8), -EINVAL);
	range[0] = good;
	range[1] = good;
	bad_ranges("forgetting the same range twice", range, 2);
	range[1].sector = 0;
	bad_ranges("forgetting unsorted ranges", range, 2);
	range[1] = (struct qc2_range){ .sector = 15, .nr_sectors = 8 };
	bad_ranges("forgetting overlapping ranges", range, 2);
	range[1] = (struct qc2_range){ .sector = UINT64_MAX, .nr_sectors = 1 };
	bad_ranges("forgetting a range that overflows behind a right one", range, 2);

	refused("forgetting nowhere", message(QC2_CMD_FORGET, NLM_F_ACK, dev), -EINVAL);
	msg = message(QC2_CMD_FORGET, NLM_F_ACK, dev);
	nla_put_u32(msg, QC2_ATTR_STORE, 0);
	nla_put_u64(msg, QC2_ATTR_SECTOR, 0);
	nla_put_u64(msg, QC2_ATTR_SECTORS, 8);
	refused("forgetting sectors without an array", msg, -EINVAL);
	refused("forgetting an impossible store",
		forget_ranges_message(QC2_MAX_STORES, &good, sizeof(good)), -ERANGE);

	/* These are no harm: the request has no place yet. */
	refused("forgetting in a store that the table lacks",
		forget_ranges_message(QC2_MAX_STORES - 1, &good, sizeof(good)), 0);
	for (i = 0; i < QC2_MAX_RANGES; i++)
		many[i] = (struct qc2_range){ .sector = 16 * i, .nr_sectors = 8 };
	refused("forgetting the greatest number of ranges",
		forget_ranges_message(0, many, QC2_MAX_RANGES * sizeof(many[0])), 0);
	refused("forgetting more than the greatest number of ranges by a byte",
		forget_ranges_message(0, many, QC2_MAX_RANGES * sizeof(many[0]) + 1), -ERANGE);
}

static void hostile_commands(void)
{
	refused("a doorbell", message(QC2_CMD_DOORBELL, NLM_F_ACK, dev), -EOPNOTSUPP);
	refused("unknown command", message(QC2_CMD_MAX + 1, NLM_F_ACK, dev), -EOPNOTSUPP);
	refused("requests without a dump", message(QC2_CMD_GET_PENDING, NLM_F_ACK, dev),
		-EOPNOTSUPP);
	refused("a dump of a reply", message(QC2_CMD_REPLY, NLM_F_DUMP, dev), -EOPNOTSUPP);

	hostile_ranges();
}

static int hostile(uint32_t other)
{
	static struct qc2_run many[QC2_MAX_RUNS];
	unsigned int i, block = logical_block_sectors();
	struct qc2_run good;

	register_sock();
	register_sock();
	wait_for_request(0);
	held = requests[0];
	get_table(sock);

	hostile_runs();
	hostile_attributes();
	hostile_errnos();
	hostile_devices(other);
	hostile_commands();

	good = identity_run(held.sector, held.nr_sectors);
	expect("the good reply",
	       call(sock, runs_message(held.generation, &good, sizeof(good))), 0);
	expect("the good reply again",
	       call(sock, runs_message(held.generation, &good, sizeof(good))), 0);
	expect("error after the answer",
	       call(sock, errno_message(held.generation, held.id, EIO)), -ENOENT);
	for (i = 0; i < QC2_MAX_RUNS; i++)
		many[i] = identity_run(i * block, block);
	expect("the greatest number of runs",
	       call(sock, runs_message(held.generation, many, sizeof(many))), 0);
	return 0;
}

static int late(void)
{
	struct request old;
	struct qc2_run run;

	register_sock();
	wait_for_request(0);
	old = requests[0];
	puts("holding");
	fflush(stdout);

	wait_for_request(old.generation);
	held = requests[0];
	while (getchar() != EOF)
		;
	/* Wrong data, to be sure. */
	run = identity_run(old.sector, old.nr_sectors);
	run.store = QC2_STORE_ZERO;
	run.store_sector = 0;
	refused("reply to the old table", runs_message(old.generation, &run, sizeof(run)),
		-ENODEV);
	refused("error for the old table", errno_message(old.generation, old.id, EIO), -ENODEV);
	run = identity_run(held.sector, held.nr_sectors);
	expect("reply to the new table",
	       call(sock, runs_message(held.generation, &run, sizeof(run))), 0);
	return 0;
}

static int second(void)
{
	struct qc2_run run;

	get_table(sock);
	run = identity_run(0, 8);
	expect("registering", call(sock, message(QC2_CMD_REGISTER, NLM_F_ACK, dev)), -EBUSY);
	expect("pending requests of another's device", call(sock, pending_message(dev, true)),
	       -EPERM);
	expect("unregistering another", call(sock, message(QC2_CMD_UNREGISTER, NLM_F_ACK, dev)),
	       -EPERM);
	expect("reply", call(sock, runs_message(table.generation, &run, sizeof(run))), -EPERM);
	expect("error", call(sock, errno_message(table.generation, 1, EIO)), -EPERM);
	return 0;
}

/* A request that one has fetched is the other's when it registers. */
static int handover(void)
{
	struct nl_sock *first = open_sock(0), *next;
	struct qc2_run run;

	sock = first;
	register_sock();
	wait_for_request(0);
	held = requests[0];
	nr_requests = 0;
	expect("fetching again", call(sock, pending_message(dev, false)), 0);
	check("nothing is handed out twice", !nr_requests);

	next = open_sock(0);
	refused_on(next, "registering a second daemon",
		   message(QC2_CMD_REGISTER, NLM_F_ACK, dev), -EBUSY);
	expect("unregistering", call(first, message(QC2_CMD_UNREGISTER, NLM_F_ACK, dev)), 0);
	sock = next;
	register_sock();
	wait_for_request(0);
	check("the same request", requests[0].id == held.id);
	run = identity_run(held.sector, held.nr_sectors);
	refused_on(first, "reply of the old daemon",
		   runs_message(held.generation, &run, sizeof(run)), -EPERM);
	refused_on(first, "requests for the old daemon", pending_message(dev, true), -EPERM);
	refused_on(first, "unregistering of the old daemon",
		   message(QC2_CMD_UNREGISTER, NLM_F_ACK, dev), -EPERM);

	/* A socket that closes gives up what it has, and only that. */
	nl_socket_free(first);
	get_table(sock);
	check("owner after another socket closed",
	      table.owner == nl_socket_get_local_port(next));
	nl_socket_free(next);
	sock = open_sock(0);
	register_sock();
	wait_for_request(0);
	check("the same request", requests[0].id == held.id);
	expect("reply", call(sock, runs_message(held.generation, &run, sizeof(run))), 0);
	return 0;
}

static int denied(void)
{
	const struct qc2_run run = identity_run(0, 8);

	expect("tables", call(sock, message(QC2_CMD_GET_DEVICES, NLM_F_DUMP, 0)), -EPERM);
	expect("registering", call(sock, message(QC2_CMD_REGISTER, NLM_F_ACK, dev)), -EPERM);
	expect("unregistering", call(sock, message(QC2_CMD_UNREGISTER, NLM_F_ACK, dev)), -EPERM);
	expect("requests", call(sock, pending_message(dev, true)), -EPERM);
	expect("reply", call(sock, runs_message(1, &run, sizeof(run))), -EPERM);
	expect("error", call(sock, errno_message(1, 1, EIO)), -EPERM);
	expect("forgetting", call(sock, forget_message(0, 8)), -EPERM);
	return 0;
}

static int zero(void)
{
	struct qc2_run run = { .store = QC2_STORE_ZERO };

	register_sock();
	get_table(sock);
	run.nr_sectors = table.nr_sectors;
	expect("zeros", call(sock, runs_message(table.generation, &run, sizeof(run))), 0);
	return 0;
}

/* The halves of a block at these stores. */
static struct nl_msg *halves_message(const struct request *req, uint32_t front, uint32_t back)
{
	uint64_t half = req->nr_sectors / 2;
	struct qc2_run runs[2] = {
		identity_run(req->sector, half),
		identity_run(req->sector + half, req->nr_sectors - half),
	};

	runs[0].store = front;
	runs[1].store = back;
	return runs_message(req->generation, runs, sizeof(runs));
}

static struct nl_msg *copy_message(const struct request *req, uint32_t store)
{
	return halves_message(req, store, store);
}

/* Of two blocks of four one half is at the second store. */
static struct nl_msg *mixed_message(const struct request *req)
{
	unsigned int kind = req->sector / QC2_BLOCK_SECTORS % 4;

	return halves_message(req, kind == 1, kind == 2);
}

static void __attribute__((noreturn)) copies(bool stubborn)
{
	struct pollfd pfd = { .fd = nl_socket_get_fd(sock), .events = POLLIN };
	unsigned int i, *stores_of;
	int r;

	register_sock();
	get_table(sock);
	stores_of = calloc(table.nr_sectors / QC2_BLOCK_SECTORS + 1, sizeof(*stores_of));
	if (!stores_of)
		die("blocks", -NLE_NOMEM);
	puts("ready");
	fflush(stdout);
	for (;;) {
		while (receive(sock))
			;
		nr_requests = 0;
		rung = false;
		fetch(dev, false);
		for (i = 0; i < nr_requests; i++) {
			const struct request *req = &requests[i];
			unsigned int *store = &stores_of[req->sector / QC2_BLOCK_SECTORS];

			if (req->failed) {
				printf("failed %llu %u\n", (unsigned long long)req->sector,
				       req->failed_store);
				fflush(stdout);
				if (!stubborn && *store == req->failed_store)
					*store += 1;
			}
			r = call(sock, *store || stubborn ? copy_message(req, *store) :
							    mixed_message(req));
			if (r && r != -ENODEV)	/* a table may go */
				expect("reply", r, 0);
		}
		if (!nr_requests && !rung)
			poll(&pfd, 1, 1000);
	}
}

static int retold(void)
{
	struct qc2_run run = identity_run(0, 8);

	register_sock();
	get_table(sock);
	expect("the front", call(sock, runs_message(table.generation, &run, sizeof(run))), 0);
	puts("named");
	fflush(stdout);
	wait_for_request(0);
	held = requests[0];
	check("nothing has failed yet", nr_requests == 1 && !held.sector && !held.failed);
	puts("holding");
	fflush(stdout);

	wait_for_request(0);
	check("told again that it has failed", nr_requests == 1 && requests[0].id == held.id &&
	      requests[0].failed && !requests[0].failed_store);
	nr_requests = 0;
	expect("fetching again", call(sock, pending_message(dev, false)), 0);
	check("not a third time", !nr_requests);
	check("until all are asked for", still_pending(&held) && requests[0].failed);
	expect("the second store", call(sock, copy_message(&held, 1)), 0);
	return 0;
}

int main(int argc, char **argv)
{
	const char *mode = argc > 1 ? argv[1] : "";
	int rcvbuf = 0;

	argv += 2;
	argc -= 2;
	for (; argc > 1 && !strncmp(argv[0], "--", 2); argv += 2, argc -= 2) {
		if (!strcmp(argv[0], "--rcvbuf"))
			rcvbuf = atoi(argv[1]);
		else if (!strcmp(argv[0], "--whole"))
			whole = strtoul(argv[1], NULL, 10);
		else
			return usage();
	}
	if (argc < 1)
		return usage();
	dev = parse_dev(argv[0]);
	sock = open_sock(rcvbuf);
	if (!strcmp(mode, "identity"))
		identity(argv, argc, rcvbuf ? -1 : 1000);
	if (!strcmp(mode, "hostile"))
		return hostile(parse_dev(argv[1]));
	if (!strcmp(mode, "late"))
		return late();
	if (!strcmp(mode, "second"))
		return second();
	if (!strcmp(mode, "handover"))
		return handover();
	if (!strcmp(mode, "denied"))
		return denied();
	if (!strcmp(mode, "zero"))
		return zero();
	if (!strcmp(mode, "copies") || !strcmp(mode, "stubborn"))
		copies(!strcmp(mode, "stubborn"));
	if (!strcmp(mode, "retold"))
		return retold();
	return usage();
}
