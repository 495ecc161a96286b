/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A raw client of the kernel's netlink family, for tests of the kernel alone:
 *
 *	qc2nl identity DEV	be the daemon of a device whose store 0 holds the
 *				virtual disk itself; prints "ready", ends by a
 *				signal
 *	qc2nl hostile DEV	register, wait for a request, send replies that
 *				the kernel must refuse, each for its reason, and
 *				at last a right one
 *	qc2nl second DEV	registering must fail: another daemon is there
 *
 * DEV is MAJOR:MINOR.  Exit status 0 if all was as expected.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <netlink/genl/ctrl.h>
#include <netlink/genl/genl.h>
#include <netlink/netlink.h>

#include <linux/dm-qcow2chain.h>

#define NR_REQUESTS	512

struct request {
	uint64_t generation, id, sector, nr_sectors;
};

static struct nl_sock *sock;		/* registrations and doorbells */
static struct nl_sock *calls;		/* used by those who are not the daemon */
static int family;
static uint32_t dev;
static struct request requests[NR_REQUESTS];
static unsigned int nr_requests;

static void die(const char *what, int err)
{
	fprintf(stderr, "qc2nl: %s: %s\n", what, nl_geterror(err));
	exit(1);
}

static struct nl_msg *message(int cmd, int flags)
{
	struct nl_msg *msg = nlmsg_alloc_size(65536);

	if (!msg || !genlmsg_put(msg, NL_AUTO_PORT, NL_AUTO_SEQ, family, 0,
				 NLM_F_REQUEST | flags, cmd, QC2_GENL_VERSION))
		die("cannot make a message", -NLE_NOMEM);
	nla_put_u32(msg, QC2_ATTR_DEV, dev);
	return msg;
}

static int on_message(struct nl_msg *msg, void *arg)
{
	struct genlmsghdr *hdr = nlmsg_data(nlmsg_hdr(msg));
	struct nlattr *attrs[QC2_ATTR_MAX + 1];
	struct request *req;

	if (hdr->cmd != QC2_CMD_GET_PENDING || nr_requests == NR_REQUESTS)
		return NL_OK;
	if (genlmsg_parse(nlmsg_hdr(msg), 0, attrs, QC2_ATTR_MAX, NULL))
		return NL_SKIP;
	req = &requests[nr_requests++];
	req->generation = nla_get_u64(attrs[QC2_ATTR_GENERATION]);
	req->id = nla_get_u64(attrs[QC2_ATTR_ID]);
	req->sector = nla_get_u64(attrs[QC2_ATTR_SECTOR]);
	req->nr_sectors = nla_get_u64(attrs[QC2_ATTR_SECTORS]);
	return NL_OK;
}

static int done;

static int on_done(struct nl_msg *msg, void *arg)
{
	done = 1;
	return NL_STOP;
}

static int call_error;

static int on_error(struct sockaddr_nl *addr, struct nlmsgerr *err, void *arg)
{
	call_error = err->error;
	done = 1;
	return NL_SKIP;
}

/* Sends a message and waits for its end; returns 0 or a negative errno. */
static int call(struct nl_sock *on, struct nl_msg *msg)
{
	int r;

	done = 0;
	call_error = 0;
	r = nl_send_auto(on, msg);
	nlmsg_free(msg);
	if (r < 0)
		die("send", r);
	while (!done) {
		r = nl_recvmsgs_default(on);
		if (r < 0)
			die("receive", r);
	}
	return call_error;
}

static struct nl_sock *open_sock(void)
{
	struct nl_sock *s = nl_socket_alloc();

	if (!s || genl_connect(s))
		die("connect", -NLE_FAILURE);
	nl_socket_disable_seq_check(s);
	family = genl_ctrl_resolve(s, QC2_GENL_NAME);
	if (family < 0)
		die("family " QC2_GENL_NAME, family);
	nl_socket_modify_cb(s, NL_CB_VALID, NL_CB_CUSTOM, on_message, NULL);
	nl_socket_modify_cb(s, NL_CB_FINISH, NL_CB_CUSTOM, on_done, NULL);
	nl_socket_modify_cb(s, NL_CB_ACK, NL_CB_CUSTOM, on_done, NULL);
	nl_socket_modify_err_cb(s, NL_CB_CUSTOM, on_error, NULL);
	return s;
}

static void expect(const char *what, int found, int expected)
{
	printf("%s: %s, expected %s\n", what, strerror(-found), strerror(-expected));
	fflush(stdout);
	if (found != expected)
		exit(1);
}

static int reply(uint64_t generation, const struct qc2_run *runs, unsigned int nr_bytes)
{
	struct nl_msg *msg = message(QC2_CMD_REPLY, NLM_F_ACK);

	nla_put_u64(msg, QC2_ATTR_GENERATION, generation);
	if (runs)
		nla_put(msg, QC2_ATTR_RUNS, nr_bytes, runs);
	return call(sock, msg);
}

static int reply_errno(uint64_t generation, uint64_t id, uint32_t err)
{
	struct nl_msg *msg = message(QC2_CMD_REPLY, NLM_F_ACK);

	nla_put_u64(msg, QC2_ATTR_GENERATION, generation);
	nla_put_u64(msg, QC2_ATTR_ID, id);
	nla_put_u32(msg, QC2_ATTR_ERRNO, err);
	return call(sock, msg);
}

static void wait_for_requests(void)
{
	struct pollfd pfd = { .fd = nl_socket_get_fd(sock), .events = POLLIN };

	nr_requests = 0;
	call(sock, message(QC2_CMD_GET_PENDING, NLM_F_DUMP));
	while (!nr_requests) {
		poll(&pfd, 1, 1000);
		call(sock, message(QC2_CMD_GET_PENDING, NLM_F_DUMP));
	}
}

static void __attribute__((noreturn)) identity(void)
{
	unsigned int i;
	int r;

	puts("ready");
	fflush(stdout);
	for (;;) {
		wait_for_requests();
		for (i = 0; i < nr_requests; i++) {
			struct qc2_run run = {
				.sector = requests[i].sector,
				.nr_sectors = requests[i].nr_sectors,
				.store_sector = requests[i].sector,
			};

			/* The table may have been swapped meanwhile. */
			r = reply(requests[i].generation, &run, sizeof(run));
			if (r && r != -ENODEV)
				expect("reply", r, 0);
		}
	}
}

static int hostile(void)
{
	struct request req;
	struct qc2_run good, run[2];

	wait_for_requests();
	req = requests[0];
	good = (struct qc2_run){ .sector = req.sector, .nr_sectors = req.nr_sectors,
				 .store_sector = req.sector };

	expect("another generation", reply(req.generation + 1000, &good, sizeof(good)), -ENODEV);
	expect("generation 0", reply(0, &good, sizeof(good)), -ENODEV);
	expect("no runs", reply(req.generation, NULL, 0), -EINVAL);
	expect("empty array", reply(req.generation, &good, 0), -EINVAL);
	expect("half a run", reply(req.generation, &good, sizeof(good) / 2), -EINVAL);

	run[0] = good;
	run[0].nr_sectors = 0;
	expect("empty run", reply(req.generation, run, sizeof(good)), -EINVAL);
	run[0] = good;
	run[0].store = 1;
	expect("unknown store", reply(req.generation, run, sizeof(good)), -EINVAL);
	run[0] = good;
	run[0].store = QC2_STORE_ZERO - 1;
	expect("huge store", reply(req.generation, run, sizeof(good)), -EINVAL);
	run[0] = good;
	run[0].store_sector = UINT64_MAX - 7;
	expect("store sector overflow", reply(req.generation, run, sizeof(good)), -EINVAL);
	run[0] = good;
	run[0].sector = UINT64_MAX - 7;
	expect("sector overflow", reply(req.generation, run, sizeof(good)), -EINVAL);
	run[0] = good;
	run[0].nr_sectors = UINT32_MAX;
	expect("run past the end", reply(req.generation, run, sizeof(good)), -EINVAL);
	run[0] = good;
	run[0].store = QC2_STORE_ZERO;
	run[0].store_sector = 8;
	expect("zeros with a place", reply(req.generation, run, sizeof(good)), -EINVAL);
	run[0] = good;
	run[1] = good;
	expect("overlapping runs", reply(req.generation, run, sizeof(run)), -EINVAL);
	run[0] = good;
	run[0].nr_sectors = 8;
	run[0].sector += 64;
	run[1] = run[0];
	run[1].sector -= 32;
	expect("unsorted runs", reply(req.generation, run, sizeof(run)), -EINVAL);

	expect("error for an unknown id", reply_errno(req.generation, req.id + 1000, EIO),
	       -ENOENT);
	expect("errno 0", reply_errno(req.generation, req.id, 0), -ERANGE);
	expect("errno out of range", reply_errno(req.generation, req.id, 5000), -ERANGE);

	expect("registering twice", call(sock, message(QC2_CMD_REGISTER, NLM_F_ACK)), 0);
	expect("the good reply", reply(req.generation, &good, sizeof(good)), 0);
	expect("the good reply again", reply(req.generation, &good, sizeof(good)), 0);
	expect("error after the answer", reply_errno(req.generation, req.id, EIO), -ENOENT);
	return 0;
}

int main(int argc, char **argv)
{
	unsigned int major, minor;

	if (argc != 3 || sscanf(argv[2], "%u:%u", &major, &minor) != 2) {
		fprintf(stderr, "usage: qc2nl identity|hostile|second MAJOR:MINOR\n");
		return 2;
	}
	dev = major << 20 | minor;
	sock = open_sock();

	if (!strcmp(argv[1], "second")) {
		struct nl_msg *msg;

		calls = open_sock();
		expect("registering", call(calls, message(QC2_CMD_REGISTER, NLM_F_ACK)), -EBUSY);
		expect("pending requests of another's device",
		       call(calls, message(QC2_CMD_GET_PENDING, NLM_F_DUMP)), -EPERM);
		expect("unregistering another", call(calls, message(QC2_CMD_UNREGISTER, NLM_F_ACK)),
		       -EPERM);
		msg = message(QC2_CMD_REPLY, NLM_F_ACK);
		nla_put_u64(msg, QC2_ATTR_GENERATION, 0);
		expect("reply for a table that is gone", call(calls, msg), -ENODEV);
		return 0;
	}

	expect("registering", call(sock, message(QC2_CMD_REGISTER, NLM_F_ACK)), 0);
	if (!strcmp(argv[1], "identity"))
		identity();
	return hostile();
}
