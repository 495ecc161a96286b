/* SPDX-License-Identifier: GPL-2.0 */
/*
 * start: makes, in this order, the daemon's open chain, the tip, the loop
 * device and the mapped device.  Each step is undone in reverse if a later
 * one fails or a signal comes.  The device is created without a table and its
 * table loaded first, the daemon is attached to it then, and only then the
 * table becomes live; so the first reads, which are udev's, find the daemon.
 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "client.h"
#include "disk.h"
#include "loop.h"
#include "tip.h"

struct start {
	struct ctl *ctl;
	const char *url, *name;
	int signal_fd;

	/* From the daemon */
	char chain_id[CHAIN_ID_HEX_LEN + 1];
	uint64_t nr_sectors;
	uint64_t depth;
	dev_t cache_dev, bypass_dev;

	/* What was made so far */
	bool opened;		/* daemon has the chain open */
	char *tip_path;		/* absolute */
	bool tip_made;
	int tip_fd;
	bool tip_is_device;
	struct qc2_loop loop;
	dev_t tip_dev;
	struct dm_dev dev;	/* exists: made by us */
	bool resumed;
};

/*
 * Signals that end a start are read from a file descriptor instead.  One that
 * the caller ignores, as nohup does, stays ignored.
 */
static int catch_signals(sigset_t *set, struct qc2_err *err)
{
	static const int ends[] = { SIGINT, SIGTERM, SIGHUP };
	struct sigaction action;
	int fd;

	sigemptyset(set);
	for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++)
		if (!sigaction(ends[i], NULL, &action) && action.sa_handler != SIG_IGN)
			sigaddset(set, ends[i]);
	sigprocmask(SIG_BLOCK, set, NULL);
	fd = signalfd(-1, set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (fd < 0)
		return qc2_fail(err, errno, "signalfd: %s", strerror(errno));
	return fd;
}

static int check_signal(const struct start *s, struct qc2_err *err)
{
	struct pollfd pfd = { .fd = s->signal_fd, .events = POLLIN };

	if (poll(&pfd, 1, 0) > 0)
		return qc2_fail(err, EINTR, "interrupted");
	return 0;
}

/* Is the running device of this name what is asked for? */
static int start_existing(const struct start *s, const char *uuid, const struct dm_dev *dev,
			  struct qc2_err *err)
{
	const char *name = s->name;
	struct qc2_err why = { };
	json_t *disk = NULL;
	const char *url, *tip;
	char *want = NULL, *is_url, *want_url;
	int ret = 0;

	if (strcmp(dev->uuid, uuid))
		return qc2_fail(err, EEXIST,
				"there is a device-mapper device %s already, which is not chainctl's (uuid \"%s\"); choose another name",
				name, dev->uuid);
	if (disk_ask_daemon(s->ctl, name, &disk, &why))
		return qc2_fail(err, EEXIST,
				"%s is started already, but from which image is not known: %s",
				name, why.msg);
	url = client_str(disk, "url");
	tip = client_str(disk, "tip");
	if (s->ctl->tip)
		want = realpath(s->ctl->tip, NULL);
	is_url = disk_canonical_url(url, NULL);
	want_url = disk_canonical_url(s->url, NULL);
	if (!is_url || !want_url || strcmp(is_url, want_url))
		ret = qc2_fail(err, EEXIST,
			       "%s is started already, from %s; stop it first or choose another name",
			       name, url);
	else if (s->ctl->tip && (!want || strcmp(want, tip)))
		ret = qc2_fail(err, EEXIST,
			       "%s is started already, with the tip %s; stop it first", name, tip);
	free(is_url);
	free(want_url);
	free(want);
	json_decref(disk);
	return ret;
}

/* A block device that chaind names. */
static int find_device(const json_t *reply, const char *key, dev_t *dev, struct qc2_err *err)
{
	const char *path = client_str(reply, key);
	struct stat st;

	if (stat(path, &st) || !S_ISBLK(st.st_mode))
		return qc2_fail(err, ENODEV, "the %s that chaind names, \"%s\", is no block device",
				key, path);
	*dev = st.st_rdev;
	return 0;
}

static int start_open(struct start *s, struct qc2_err *err)
{
	struct ctl *ctl = s->ctl;
	json_t *reply = NULL;
	int ret;

	for (int tries = 0; ; tries++) {
		ret = client_call(ctl->cfg.socket,
				  json_pack("{s:s, s:s, s:s}", "cmd", "open", "name", s->name,
					    "url", s->url),
				  CLIENT_NO_LIMIT, s->signal_fd, &reply, err);
		/* There is no such disk, so this is what a killed start left. */
		if ((ret != -EEXIST && ret != -EBUSY) || tries)
			break;
		client_call(ctl->cfg.socket, disk_request("close", s->name), CLIENT_LIMIT_MS,
			    s->signal_fd, NULL, NULL);
	}
	s->opened = !ret || ret == -EINTR;
	if (ret == -EINVAL)
		ret = -EUCLEAN;		/* a URL that is none was refused before */
	if (ret)
		return ret;

	snprintf(s->chain_id, sizeof(s->chain_id), "%s", client_str(reply, "chain_id"));
	s->nr_sectors = client_u64(reply, "sectors");
	s->depth = client_u64(reply, "depth");
	if (*client_str(reply, "manifest_trouble"))
		out_warn(ctl, "manifest not used, all images are read instead: %s",
			 client_str(reply, "manifest_trouble"));
	if (strlen(s->chain_id) != CHAIN_ID_HEX_LEN)
		ret = qc2_fail(err, EBADE, "chaind sent no chain id");
	else if (!s->nr_sectors || s->nr_sectors > QC2_TIP_MAX_SECTORS)
		ret = qc2_fail(err, EINVAL,
			       "%s has a virtual size of %" PRIu64 " sectors; expected 1 to %llu",
			       s->url, s->nr_sectors, QC2_TIP_MAX_SECTORS);
	else if ((ret = find_device(reply, "cache_device", &s->cache_dev, err)) == 0)
		ret = find_device(reply, "bypass_device", &s->bypass_dev, err);
	json_decref(reply);
	return ret;
}

/* Does the tip belong to this chain? */
static int compare_tip(const struct start *s, const struct qc2_tip_info *info,
		       struct qc2_err *err)
{
	char id[CHAIN_ID_HEX_LEN + 1], remedy[512];

	out_chain_id(id, info->chain_id);
	if (!strcasecmp(id, s->chain_id) && info->nr_sectors == s->nr_sectors)
		return 0;
	if (s->ctl->tip || s->tip_is_device)
		snprintf(remedy, sizeof(remedy), "choose another tip with --tip");
	else
		snprintf(remedy, sizeof(remedy),
			 "keep it and choose another with --tip PATH, or delete it and all that was written to it: chainctl stop %s --discard",
			 s->name);
	return qc2_fail(err, EMEDIUMTYPE,
			"the tip %s belongs to chain %s with %" PRIu64
			" sectors, but %s is chain %s with %" PRIu64
			" sectors: the tip is another disk's, or the image was replaced; %s",
			s->tip_path, id, info->nr_sectors, s->url, s->chain_id, s->nr_sectors,
			remedy);
}

static int start_tip(struct start *s, struct qc2_err *err)
{
	struct ctl *ctl = s->ctl;
	uint8_t id[QC2_CHAIN_ID_LEN];
	struct qc2_tip_info info;
	char *path = NULL;
	struct stat st;
	int ret = 0;

	if (parse_chain_id(s->chain_id, id))
		return qc2_fail(err, EBADE, "chaind sent the chain id \"%s\"", s->chain_id);
	if (ctl->tip)
		path = strdup(ctl->tip);
	else if (asprintf(&path, "%s/%s.tip", ctl->cfg.tip_dir, s->name) < 0)
		path = NULL;
	if (!path)
		return qc2_fail(err, ENOMEM, "not enough memory");

	if (stat(path, &st) && errno == ENOENT) {
		if (!ctl->tip)
			ret = disk_make_dirs(ctl->cfg.tip_dir, 0700, err);
		if (!ret)
			ret = qc2_tip_create(path, id, s->nr_sectors, QC2_TIP_JOURNAL_DEFAULT, 0, err);
		s->tip_made = !ret;
	}
	if (!ret) {
		s->tip_path = realpath(path, NULL);
		if (!s->tip_path) {
			ret = qc2_fail(err, errno, "%s: %s", path, strerror(errno));
			if (s->tip_made)
				unlink(path);
			s->tip_made = false;
		}
	}
	free(path);
	if (ret)
		return ret;

	ret = tip_errno(qc2_tip_open(s->tip_path, &info, err));
	if (ret) {
		if (!stat(s->tip_path, &st) && S_ISBLK(st.st_mode) && ret != -EACCES) {
			struct qc2_err why = *err;

			qc2_fail(err, -ret,
				 "%.600s; an unused device becomes a tip by: chainctl tip create %s --chain-id %s --size %llu",
				 why.msg, s->tip_path, s->chain_id, s->nr_sectors * SECTOR_SIZE);
		}
		return ret;
	}
	ret = tip_claim(s->tip_path, &s->tip_fd, &s->tip_is_device, err);
	if (ret)
		return ret;
	return compare_tip(s, &info, err);
}

static int start_tip_device(struct start *s, struct qc2_err *err)
{
	struct stat st;
	int ret;

	if (s->tip_is_device) {
		if (fstat(s->tip_fd, &st))
			return qc2_fail(err, errno, "%s: %s", s->tip_path, strerror(errno));
		s->tip_dev = st.st_rdev;
		return 0;
	}
	ret = qc2_loop_attach(s->tip_fd, s->tip_path, &s->loop, err);
	if (ret)
		return ret;
	s->tip_dev = s->loop.dev;
	if (!s->loop.direct)
		out_warn(s->ctl,
			 "%s: the file system cannot do direct I/O with 512-byte blocks; writes go through the page cache, which is slower and needs more memory",
			 s->tip_path);
	return 0;
}

static int start_device(struct start *s, const char *uuid, struct qc2_err *err)
{
	const struct ctl *ctl = s->ctl;
	char params[256], dev[32];
	bool settled;
	int len, ret;

	len = snprintf(params, sizeof(params), "%s %u:%u 2 %u:%u %u:%u", s->chain_id,
		       major(s->tip_dev), minor(s->tip_dev), major(s->cache_dev),
		       minor(s->cache_dev), major(s->bypass_dev), minor(s->bypass_dev));
	if (ctl->map_limit_kb || ctl->fail_reads_after)
		len += snprintf(params + len, sizeof(params) - len, " %d",
				2 * (!!ctl->map_limit_kb + !!ctl->fail_reads_after));
	if (ctl->map_limit_kb)
		len += snprintf(params + len, sizeof(params) - len, " map_limit_kb %" PRIu64,
				ctl->map_limit_kb);
	if (ctl->fail_reads_after)
		snprintf(params + len, sizeof(params) - len, " fail_reads_after %" PRIu64,
			 ctl->fail_reads_after);

	ret = dm_make(s->name, uuid, &s->dev, err);
	if (ret)
		return ret;
	ret = dm_load(s->name, s->nr_sectors, params, err);
	if (ret)
		return ret;
	ret = check_signal(s, err);
	if (ret)
		return ret;
	snprintf(dev, sizeof(dev), "%u:%u", s->dev.major, s->dev.minor);
	ret = client_call(ctl->cfg.socket,
			  json_pack("{s:s, s:s, s:s, s:s}", "cmd", "attach", "name", s->name,
				    "dev", dev, "tip", s->tip_path),
			  CLIENT_LIMIT_MS, s->signal_fd, NULL, err);
	if (ret)
		return qc2_fail_prefix(err, ret, "chaind cannot serve %s: ", s->name);
	s->resumed = true;	/* even a failed resume may have let I/O in */
	ret = dm_resume(s->name, s->signal_fd, &settled, err);
	if (!ret && !settled)
		out_warn(ctl, "udev is not ready with %s yet; is its first read waiting for the chain? chainctl status %s",
			 s->name, s->name);
	return ret;
}

static int check_node(const struct start *s, const char *node, struct qc2_err *err)
{
	struct stat st;

	if (stat(node, &st))
		return qc2_fail(err, ENODEV, "%s was not made: %s; does udev work?", node,
				strerror(errno));
	if (!S_ISBLK(st.st_mode) || st.st_rdev != makedev(s->dev.major, s->dev.minor))
		return qc2_fail(err, EEXIST,
				"%s is there but is not the new device %u:%u; remove it", node,
				s->dev.major, s->dev.minor);
	return 0;
}

static int start_report(const struct start *s, const char *node, struct qc2_err *err)
{
	char size[OUT_SIZE_LEN], dirty[OUT_SIZE_LEN];
	struct disk_state state = { };
	struct dm_target target;
	int ret;

	ret = dm_status(s->name, &target, err);
	if (ret)
		return ret;
	ret = status_parse(target.params, &state);
	if (ret)
		ret = qc2_fail(err, EBADE, "the status line of %s is not understood: \"%s\"",
			       s->name, target.params);
	dm_target_free(&target);
	if (ret)
		return ret;
	if (s->ctl->json)
		return out_json(json_pack("{s:i, s:s, s:s, s:b, s:I, s:I, s:s, s:s, s:b, s:I}",
					  "schema", 1, "name", s->name, "device", node,
					  "already_started", 0,
					  "size", (json_int_t)(s->nr_sectors * SECTOR_SIZE),
					  "depth", (json_int_t)s->depth,
					  "chain_id", s->chain_id, "tip", s->tip_path,
					  "tip_new", s->tip_made,
					  "dirty_bytes",
					  (json_int_t)(state.dirty_sectors * SECTOR_SIZE)),
				err);
	printf("%s: %s, %" PRIu64 " link%s, tip ", node,
	       out_size(size, s->nr_sectors * SECTOR_SIZE), s->depth, s->depth == 1 ? "" : "s");
	out_text(stdout, s->tip_path);
	if (s->tip_made)
		printf(" (new)\n");
	else
		printf(" (%s written)\n", out_size(dirty, state.dirty_sectors * SECTOR_SIZE));
	return 0;
}

static void start_undo(struct start *s)
{
	struct qc2_err err = { };

	if (s->dev.exists) {
		/*
		 * udev may read the new disk, and with nobody to answer it
		 * would hold it for minutes; so its reads fail first.
		 */
		if (s->resumed && dm_fail_io(s->name, s->nr_sectors, &err))
			out_warn(s->ctl, "%s", err.msg);
		if (disk_remove(s->name, &s->dev, &err))
			out_warn(s->ctl, "%s; remove it with: dmsetup remove %s", err.msg,
				 s->name);
	}
	qc2_loop_release(&s->loop);
	if (s->tip_made && unlink(s->tip_path))
		out_warn(s->ctl, "%s: cannot delete: %s", s->tip_path, strerror(errno));
	if (s->opened && client_call(s->ctl->cfg.socket, disk_request("close", s->name),
				     CLIENT_LIMIT_MS, -1, NULL, &err) == -ETIME)
		out_warn(s->ctl, "%s", err.msg);
}

static int start_locked(struct start *s, struct qc2_err *err)
{
	char uuid[DISK_UUID_LEN];
	char node[DISK_NODE_LEN];
	struct dm_dev dev;
	int ret;

	snprintf(uuid, sizeof(uuid), DISK_UUID_PREFIX "%s", s->name);
	snprintf(node, sizeof(node), "/dev/mapper/%s", s->name);

	ret = dm_info(s->name, &dev, err);
	if (ret)
		return ret;
	if (dev.exists && !dev.live_table && !strcmp(dev.uuid, uuid)) {
		out_warn(s->ctl, "removing what an interrupted start of %s left", s->name);
		ret = disk_remove(s->name, &dev, err);
		if (ret)
			return ret;
	} else if (dev.exists) {
		ret = start_existing(s, uuid, &dev, err);
		if (ret)
			return ret;
		if (s->ctl->json)
			return out_json(json_pack("{s:i, s:s, s:s, s:b}", "schema", 1, "name",
						  s->name, "device", node, "already_started", 1),
					err);
		printf("%s: already started\n", node);
		return 0;
	}

	ret = dm_check_kernel(err);
	if (!ret)
		ret = start_open(s, err);
	if (!ret)
		ret = check_signal(s, err);
	if (!ret)
		ret = start_tip(s, err);
	if (!ret)
		ret = start_tip_device(s, err);
	if (!ret)
		ret = start_device(s, uuid, err);
	if (!ret)
		ret = check_node(s, node, err);
	if (!ret)
		ret = check_signal(s, err);
	if (!ret)
		ret = start_report(s, node, err);
	if (ret)
		start_undo(s);
	qc2_loop_release(&s->loop);
	if (s->tip_fd >= 0)
		close(s->tip_fd);
	free(s->tip_path);
	return ret;
}

int disk_start(struct ctl *ctl, struct qc2_err *err)
{
	struct start s = {
		.ctl = ctl,
		.url = ctl->arg[0],
		.name = ctl->arg[1],
		.tip_fd = -1,
		.loop.fd = -1,
	};
	struct disk_lock_file lock;
	sigset_t signals;
	int ret;

	ret = disk_check_name(s.name, err);
	if (!ret)
		ret = disk_check_url(s.url, err);
	if (!ret)
		ret = disk_need_root(err);
	if (!ret)
		ret = disk_lock(ctl, s.name, &lock, err);
	if (ret)
		return ret;
	s.signal_fd = catch_signals(&signals, err);
	ret = s.signal_fd < 0 ? s.signal_fd : start_locked(&s, err);
	disk_unlock(&lock);
	if (ret == -EINTR)
		fprintf(stderr, "chainctl: start: %s; %s was not started\n", err->msg, s.name);
	/* A signal that came is still pending and now ends us, as it should. */
	if (s.signal_fd >= 0)
		close(s.signal_fd);
	sigprocmask(SIG_UNBLOCK, &signals, NULL);
	return ret;
}
