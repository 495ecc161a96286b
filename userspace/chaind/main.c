/* SPDX-License-Identifier: GPL-2.0 */
/*
 * chaind: serves the misses of qcow2chain devices.  This file: options, setup
 * of the process, the event loop.
 *
 * The end of the daemon stops no disk: reads of what the kernel knows and all
 * writes go on, other reads wait for the next daemon.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <curl/curl.h>
#include <libdevmapper.h>
#include <systemd/sd-daemon.h>

#include "chaind.h"
#include "control.h"
#include "disk.h"
#include "log.h"
#include "miss.h"
#include "region.h"
#include "replica.h"

#define OPEN_THREADS	16
#define TABLE_THREADS	4
/*
 * Buffers: for all fetches running, and as many being written, within this; and
 * for the largest fetch at least, which would wait for ever with fewer.  It can
 * be larger than the extension: compressed clusters are fetched as a whole.
 */
#define MAX_BUFS	1024

#ifndef PR_SET_IO_FLUSHER
#define PR_SET_IO_FLUSHER 57
#endif

static struct chaind chaind;

static void usage(FILE *out)
{
	fprintf(out,
"Usage: chaind [--config FILE] [--debug]\n"
"Serves the disks of the qcow2chain device-mapper target, in the foreground.\n"
"\n"
"  -c, --config FILE  configuration (default %s)\n"
"  -d, --debug        log more\n"
"  -h, --help         this text\n"
"  -V, --version      version\n", QC2_CONFIG_DEFAULT_PATH);
}

static int on_kernel_request(void *arg, const struct kernel_request *req)
{
	struct disk *disk = disk_find_dev(arg, req->dev);

	return disk ? miss_request(disk, req) : 0;
}

static void on_device_gone(void *arg, uint32_t dev, const struct qc2_err *err)
{
	struct disk *disk = disk_find_dev(arg, dev);

	if (disk)
		disk_device_gone(disk, err);
}

static const struct kernel_ops kernel_ops = {
	.request = on_kernel_request,
	.gone = on_device_gone,
};

/*
 * Memory reclaim may wait for a write to one of our disks, and that for us:
 * the daemon must not wait for reclaim, nor for its own pages.
 */
static void protect_process(void)
{
	if (prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0))
		log_warn("PR_SET_IO_FLUSHER: %s; low memory may hold up disks",
			 strerror(errno));
	/*
	 * Locked memory is given back by brk() and munmap() only.  So: one arena, and
	 * what is large, as buffers for tables are, in a mapping of its own.
	 */
	mallopt(M_ARENA_MAX, 1);
	mallopt(M_MMAP_THRESHOLD, 64 << 10);
	if (mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT))
		log_warn("mlockall: %s; low memory may hold up disks",
			 strerror(errno));
}

/* The lock goes with the process, however it ends. */
static int lock_run_dir(const char *run_dir, struct qc2_err *err)
{
	char *path;
	int fd, ret = 0;

	if (mkdir(run_dir, 0755) && errno != EEXIST)
		return qc2_fail(err, errno, "%s: %s", run_dir, strerror(errno));
	if (asprintf(&path, "%s/lock", run_dir) < 0)
		return qc2_fail(err, ENOMEM, "out of memory");
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		ret = qc2_fail(err, errno, "%s: %s", path, strerror(errno));
	else if (flock(fd, LOCK_EX | LOCK_NB))
		ret = errno == EWOULDBLOCK ?
		      qc2_fail(err, EBUSY,
			       "another chaind is running (it holds the lock %s)",
			       path) :
		      qc2_fail(err, errno, "%s: %s", path, strerror(errno));
	free(path);
	return ret;
}

static int setup_event(struct qc2_err *err)
{
	sigset_t set;
	int ret;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	ret = sd_event_new(&chaind.event);
	if (ret >= 0)
		ret = sd_event_add_signal(chaind.event, NULL, SIGTERM, NULL,
					  NULL);
	if (ret >= 0)
		ret = sd_event_add_signal(chaind.event, NULL, SIGINT, NULL,
					  NULL);
	return ret < 0 ? qc2_fail(err, -ret, "event loop: %s", strerror(-ret)) :
			 0;
}

static unsigned int count_bufs(void)
{
	unsigned int blocks = (chaind.cfg.extension_bytes +
			       QC2_BLOCK_BYTES - 1) / QC2_BLOCK_BYTES;
	uint64_t nr;

	if (blocks < 1)
		blocks = 1;
	if (blocks > FETCH_MAX_BLOCKS)
		blocks = FETCH_MAX_BLOCKS;
	nr = 2ULL * chaind.cfg.connections * blocks;
	if (nr < FETCH_MAX_BLOCKS)
		nr = FETCH_MAX_BLOCKS;
	return nr > MAX_BUFS ? MAX_BUFS : nr;
}

/* Index files save time; without them disks start nevertheless. */
static void setup_index_dir(void)
{
	const char *dir = chaind.cfg.index_dir;

	chaind.has_index_dir = !mkdir(dir, 0700) ||
			       (errno == EEXIST && !access(dir, W_OK | X_OK));
	if (!chaind.has_index_dir)
		log_warn("%s: %s; the tables of images are read anew for each disk",
			 dir, strerror(errno));
}

static int setup_cache(struct qc2_err *err)
{
	struct cache_config cfg = {
		.path = chaind.cfg.cache_path,
		.size = chaind.cfg.cache_size,
		.scrub_rate = chaind.cfg.cache_scrub_rate,
		.nr_bufs = count_bufs(),
		.may_be_absent = disks_run(&chaind),
		.check = disks_check_cache,
		.arg = &chaind,
	};
	char *index_path = NULL, *bypass_path = NULL;
	int ret;

	if (!chaind.cfg.cache_index && !strncmp(cfg.path, "/dev/", 5))
		return qc2_fail(err, EINVAL,
				"cache %s: say where its index is to be: a path for index in section [cache]",
				cfg.path);
	if (asprintf(&index_path, "%s.index", cfg.path) < 0 ||
	    asprintf(&bypass_path, "%s/bypass", chaind.cfg.run_dir) < 0)
		return qc2_fail(err, ENOMEM, "out of memory");
	cfg.index_path = chaind.cfg.cache_index ? chaind.cfg.cache_index : index_path;
	cfg.bypass_path = bypass_path;
	ret = cache_open(&chaind.cache, chaind.event, &cfg, err);
	free(index_path);
	free(bypass_path);
	return ret;
}

static int setup_parts(struct qc2_err *err)
{
	int ret;

	TAILQ_INIT(&chaind.disks);
	setup_index_dir();
	chaind.store_cfg.ca_file = chaind.cfg.ca_file;
	chaind.store_cfg.connect_timeout_s = chaind.cfg.connect_timeout_s;
	chaind.store_cfg.low_speed_time_s = chaind.cfg.low_speed_time_s;
	chaind.store_cfg.allow_local_addresses = chaind.cfg.allow_local_addresses;
	chaind.store_cfg.allow = (const char *const *)chaind.cfg.allow;
	chaind.store_cfg.nr_allow = chaind.cfg.nr_allow;
	if (curl_global_init(CURL_GLOBAL_DEFAULT))
		return qc2_fail(err, EIO, "libcurl: cannot be set up");
	origin_setup(chaind.cfg.connections);
	ret = setup_cache(err);
	if (ret)
		return ret;
	ret = kernel_new(&chaind.kernel, chaind.event, &kernel_ops, &chaind);
	if (!ret)
		ret = misses_new(&chaind.misses, &chaind);
	if (!ret)
		ret = replicas_new(&chaind.replicas, chaind.event, &chaind.store_cfg);
	if (!ret)
		ret = pool_new(&chaind.open_pool, chaind.event, OPEN_THREADS);
	if (!ret)
		ret = pool_new(&chaind.table_pool, chaind.event, TABLE_THREADS);
	if (!ret)
		ret = fetcher_new(&chaind.fetcher, chaind.event, chaind.cache,
				  &chaind.store_cfg, chaind.cfg.connections,
				  miss_block_done);
	if (ret)
		return qc2_fail(err, -ret, "setup: %s", strerror(-ret));
	if (chaind.cfg.region_cache)
		ret = region_new(&chaind.region, chaind.event, chaind.cache, chaind.fetcher,
				 &chaind.cfg, &chaind.store_cfg, miss_block_done, err);
	return ret;
}

/* Ends what runs in threads.  The rest goes with the process. */
static void stop(void)
{
	control_free(chaind.control);
	kernel_close(chaind.kernel);
	disks_cancel_opening(&chaind);
	pool_free(chaind.open_pool);
	pool_free(chaind.table_pool);
	region_stop(chaind.region);
	fetcher_stop(chaind.fetcher);
	replicas_stop(chaind.replicas);
	cache_close(chaind.cache);
}

static void dm_log(int level, const char *file, int line, int dm_errno,
		   const char *fmt, ...)
{
	/* Errors are reported where they are handled. */
}

static int run(const char *config, struct qc2_err *err)
{
	int ret;

	ret = qc2_config_load(config, &chaind.cfg, err);
	if (!ret)
		ret = qc2_sites_load(chaind.cfg.sites_file, &chaind.store_cfg.sites, err);
	if (!ret)
		ret = setup_event(err);
	if (!ret)
		ret = lock_run_dir(chaind.cfg.run_dir, err);
	if (!ret)
		ret = state_setup(chaind.cfg.run_dir, err);
	if (ret)
		return ret;
	dm_log_with_errno_init(dm_log);
	protect_process();
	ret = setup_parts(err);
	if (ret)
		return ret;
	disks_restore(&chaind);
	ret = control_new(&chaind, err);
	if (ret)
		return ret;
	sd_notify(0, "READY=1");
	log_info("version " QC2_VERSION " is ready");
	ret = sd_event_loop(chaind.event);
	sd_notify(0, "STOPPING=1");
	stop();
	return ret < 0 ? qc2_fail(err, -ret, "event loop: %s", strerror(-ret)) :
			 0;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "config", required_argument, NULL, 'c' },
		{ "debug", no_argument, NULL, 'd' },
		{ "help", no_argument, NULL, 'h' },
		{ "version", no_argument, NULL, 'V' },
		{ 0 }
	};
	const char *config = NULL;
	struct qc2_err err;
	bool debug = false;
	int opt;

	while ((opt = getopt_long(argc, argv, "c:dhV", options, NULL)) != -1) {
		switch (opt) {
		case 'c':
			config = optarg;
			break;
		case 'd':
			debug = true;
			break;
		case 'h':
			usage(stdout);
			return 0;
		case 'V':
			puts("chaind " QC2_VERSION);
			return 0;
		default:
			usage(stderr);
			return 2;
		}
	}
	if (optind < argc) {
		usage(stderr);
		return 2;
	}
	log_open(debug);
	/* No core dump has keys in it: libcurl and others keep copies of them. */
	if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0))
		log_warn("PR_SET_DUMPABLE: %s", strerror(errno));
	if (run(config, &err)) {
		log_err("%s", err.msg);
		return 1;
	}
	log_info("stopped; disks go on, reads of data that is not here yet wait");
	return 0;
}
