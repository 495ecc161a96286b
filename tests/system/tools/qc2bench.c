/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What a benchmark of the kernel target needs and shell cannot do:
 *
 *	qc2bench create NAME TABLE	make a device with a table (one line, as for
 *					dmsetup); prints how long that took, in us
 *	qc2bench swap NAME TABLE	load a table, then swap it in with "suspend
 *					--noflush" and resume; prints the longest
 *					that one of many small writes took meanwhile,
 *					in us
 *	qc2bench map NAME		teach the kernel a map as a daemon would, from
 *					lines SECTOR NR_SECTORS STORE STORE_SECTOR
 *					on standard input
 *	qc2bench read DEVICE OFFSET FILE
 *					copy 4 KiB of a device, read directly, into a
 *					file; prints when they were there, in us since
 *					1970
 *	qc2bench replay DEVICE DEPTH PAUSE_MS
 *					read, directly, what lines OFFSET BYTES on
 *					standard input say, in their order, DEPTH at a
 *					time, with a pause before each; prints for each
 *					when it began, in us since the first, and how
 *					long it took, in us
 *	qc2bench boot DEVICE PERCENT
 *					read, directly, what a machine was recorded
 *					reading, each read no sooner than those it came
 *					after have ended, with so many percent of the
 *					machine's pauses; see boot() below.  Prints a
 *					line for each as replay does, and then "sum" and
 *					a checksum of all that was read
 *	qc2bench race read|write BYTES DEPTH random|once|sequential FLUSH MS TURNS MIB \
 *		DEVICE... [-- DEVICE...]
 *					how fast the devices are beside each other,
 *					see race() below
 *
 * The times are those of the calls alone, without the start of a process.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <libdevmapper.h>
#include <liburing.h>
#include <netlink/genl/ctrl.h>
#include <netlink/genl/genl.h>
#include <netlink/netlink.h>

#include <linux/dm-qcow2chain.h>

static void __attribute__((noreturn)) die(const char *what)
{
	fprintf(stderr, "qc2bench: %s\n", what);
	exit(1);
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000ULL + ts.tv_nsec;
}

/*
 * ---------------------------------------------------------------------------
 * Devices
 * ---------------------------------------------------------------------------
 */

static uint64_t now_us(void)
{
	return now_ns() / 1000;
}

static struct dm_task *task(int type, const char *name)
{
	struct dm_task *dmt = dm_task_create(type);

	if (!dmt || !dm_task_set_name(dmt, name))
		die("cannot make a task");
	return dmt;
}

static void run(struct dm_task *dmt)
{
	if (!dm_task_run(dmt))
		die("device-mapper refuses; see above and the kernel log");
	dm_task_destroy(dmt);
}

static void load(const char *name, const char *table)
{
	struct dm_task *dmt = task(DM_DEVICE_RELOAD, name);
	unsigned long long start, nr_sectors;
	char type[32];
	int params = 0;

	if (sscanf(table, "%llu %llu %31s %n", &start, &nr_sectors, type, &params) != 3 ||
	    !dm_task_add_target(dmt, start, nr_sectors, type, table + params))
		die("invalid table");
	run(dmt);
}

static void create(const char *name, const char *table)
{
	uint64_t start = now_us();

	run(task(DM_DEVICE_CREATE, name));
	load(name, table);
	run(task(DM_DEVICE_RESUME, name));
	printf("%llu\n", (unsigned long long)(now_us() - start));
	dm_task_update_nodes();
}

struct writer {
	int fd;
	void *buffer;
	sem_t started;
	atomic_bool stop;
	uint64_t longest_us;
};

/* One write after another, to the first block. */
static void *write_on(void *arg)
{
	struct writer *w = arg;
	uint64_t start, us;

	do {
		start = now_us();
		if (pwrite(w->fd, w->buffer, 4096, 0) != 4096)
			die("a write failed");
		us = now_us() - start;
		if (us > w->longest_us)
			w->longest_us = us;
		sem_post(&w->started);
	} while (!w->stop);
	return NULL;
}

static void swap(const char *name, const char *table)
{
	struct dm_task *suspend = task(DM_DEVICE_SUSPEND, name);
	struct writer w = {};
	char path[PATH_MAX];
	pthread_t thread;

	snprintf(path, sizeof(path), "/dev/mapper/%s", name);
	w.fd = open(path, O_RDWR | O_DIRECT);
	if (w.fd < 0 || posix_memalign(&w.buffer, 4096, 4096))
		die(path);
	memset(w.buffer, 0x5a, 4096);
	load(name, table);
	dm_task_no_flush(suspend);
	dm_task_skip_lockfs(suspend);

	if (sem_init(&w.started, 0, 0) || pthread_create(&thread, NULL, write_on, &w))
		die("cannot make a thread");
	sem_wait(&w.started);
	run(suspend);
	run(task(DM_DEVICE_RESUME, name));
	w.stop = true;
	pthread_join(thread, NULL);
	printf("%llu\n", (unsigned long long)w.longest_us);
}

static uint32_t device_number(const char *name)
{
	struct dm_task *dmt = task(DM_DEVICE_INFO, name);
	struct dm_info info;

	if (!dm_task_run(dmt) || !dm_task_get_info(dmt, &info) || !info.exists)
		die("no such device");
	dm_task_destroy(dmt);
	return info.major << 20 | info.minor;
}

/*
 * ---------------------------------------------------------------------------
 * Maps
 * ---------------------------------------------------------------------------
 */

struct table {
	uint32_t dev;
	uint64_t generation;
};

static int on_table(struct nl_msg *msg, void *arg)
{
	struct nlattr *attrs[QC2_ATTR_MAX + 1];
	struct table *table = arg;

	if (genlmsg_parse(nlmsg_hdr(msg), 0, attrs, QC2_ATTR_MAX, NULL))
		return NL_SKIP;
	if (nla_get_u32(attrs[QC2_ATTR_DEV]) == table->dev)
		table->generation = nla_get_u64(attrs[QC2_ATTR_GENERATION]);
	return NL_OK;
}

static struct nl_msg *message(int family, int cmd, int flags, uint32_t dev)
{
	struct nl_msg *msg = nlmsg_alloc_size(128 << 10);

	if (!msg || !genlmsg_put(msg, NL_AUTO_PORT, NL_AUTO_SEQ, family, 0, flags, cmd,
				 QC2_GENL_VERSION))
		die("cannot make a message");
	if (dev)
		nla_put_u32(msg, QC2_ATTR_DEV, dev);
	return msg;
}

static void call(struct nl_sock *sock, struct nl_msg *msg, const char *what)
{
	int r = nl_send_sync(sock, msg);

	if (r < 0) {
		fprintf(stderr, "qc2bench: %s: %s\n", what, nl_geterror(r));
		exit(1);
	}
}

static bool read_run(struct qc2_run *to)
{
	unsigned long long sector, store_sector;
	unsigned int nr_sectors, store;
	int n = scanf("%llu %u %u %llu", &sector, &nr_sectors, &store, &store_sector);

	if (n == EOF)
		return false;
	if (n != 4)
		die("invalid run");
	*to = (struct qc2_run){ .sector = sector, .nr_sectors = nr_sectors, .store = store,
				.store_sector = store_sector };
	return true;
}

static void map(const char *name)
{
	static struct qc2_run runs[QC2_MAX_RUNS];
	struct nl_sock *sock = nl_socket_alloc();
	struct table table = { .dev = device_number(name) };
	struct nl_msg *msg;
	unsigned int nr;
	int family;

	if (!sock || genl_connect(sock))
		die("cannot connect");
	family = genl_ctrl_resolve(sock, QC2_GENL_NAME);
	if (family < 0)
		die("the kernel does not know the family " QC2_GENL_NAME);

	nl_socket_modify_cb(sock, NL_CB_VALID, NL_CB_CUSTOM, on_table, &table);
	call(sock, message(family, QC2_CMD_GET_DEVICES, NLM_F_DUMP, 0), "tables");
	call(sock, message(family, QC2_CMD_REGISTER, 0, table.dev), "registering");
	do {
		for (nr = 0; nr < QC2_MAX_RUNS && read_run(&runs[nr]); nr++)
			;
		if (!nr)
			break;
		msg = message(family, QC2_CMD_REPLY, 0, table.dev);
		nla_put_u64(msg, QC2_ATTR_GENERATION, table.generation);
		nla_put(msg, QC2_ATTR_RUNS, nr * sizeof(runs[0]), runs);
		call(sock, msg, "runs");
	} while (nr == QC2_MAX_RUNS);
	nl_socket_free(sock);
}

/*
 * ---------------------------------------------------------------------------
 * Races
 * ---------------------------------------------------------------------------
 */

/* A device behind "--" takes one of ten turns, or, if there is but one, a short one. */
#define RARE		10

struct work {
	bool write;
	bool sequential;
	bool once;		/* no place is visited twice */
	unsigned int bytes;
	unsigned int depth;	/* requests in flight */
	unsigned int flush;	/* so many writes, their end awaited, then a flush; or 0 */
	uint64_t turn_ns;
	uint64_t nr_places;
	unsigned int bits;	/* nr_places <= 2^bits */
};

struct device {
	const char *name;
	int fd;
	uint64_t next;		/* counts places, see place() */
	bool rare;
	double *rates;		/* requests in a second, of each turn */
	unsigned int nr_turns;
};

/*
 * Bijective on numbers of @bits bits: visits places in an order without order,
 * each of them once.
 */
static uint64_t scatter(uint64_t i, unsigned int bits)
{
	uint64_t mask = (1ULL << bits) - 1;

	i = i * 0x9e3779b97f4a7c15ULL & mask;
	i ^= i >> (bits / 2 + 1);
	i = i * 0xd6e8feb86659fd93ULL & mask;
	return i ^ i >> (bits / 2 + 1);
}

static uint64_t place(const struct work *work, struct device *dev)
{
	uint64_t p;

	if (work->sequential)
		return dev->next++ % work->nr_places;
	do {
		p = scatter(dev->next++ & ((1ULL << work->bits) - 1), work->bits);
	} while (p >= work->nr_places);
	return p;
}

/* Submits what is queued, waits until @nr requests or more have ended. */
static unsigned int reap(struct io_uring *ring, unsigned int nr)
{
	struct io_uring_cqe *cqe;
	unsigned int head, seen = 0;

	if (io_uring_submit_and_wait(ring, nr) < 0)
		die("io_uring");
	io_uring_for_each_cqe(ring, head, cqe) {
		if (cqe->res != (int)cqe->user_data) {
			fprintf(stderr, "qc2bench: I/O: %s\n", strerror(-cqe->res));
			exit(1);
		}
		seen++;
	}
	io_uring_cq_advance(ring, seen);
	return seen;
}

static void queue(struct io_uring *ring, const struct work *work, struct device *dev,
		  char *buffers)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
	uint64_t offset = place(work, dev) * work->bytes;
	char *buffer = buffers + dev->next % work->depth * work->bytes;

	if (work->write)
		io_uring_prep_write(sqe, dev->fd, buffer, work->bytes, offset);
	else
		io_uring_prep_read(sqe, dev->fd, buffer, work->bytes, offset);
	sqe->user_data = work->bytes;
}

static void flush(struct io_uring *ring, struct device *dev)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(ring);

	io_uring_prep_fsync(sqe, dev->fd, IORING_FSYNC_DATASYNC);
	sqe->user_data = 0;
	reap(ring, 1);
}

/* One turn: its rate.  Requests are submitted and awaited in batches. */
static double turn(struct io_uring *ring, const struct work *work, struct device *dev,
		   char *buffers, uint64_t max_ns)
{
	unsigned int in_flight = 0, nr = 0, batch = work->flush ? : work->depth / 2;
	uint64_t start = now_ns(), ns;

	do {
		for (unsigned int i = 0; i < batch; i++)
			queue(ring, work, dev, buffers);
		nr += batch;
		in_flight += batch;
		if (work->flush) {
			in_flight -= reap(ring, in_flight);
			flush(ring, dev);
		} else {
			while (in_flight > work->depth - batch)
				in_flight -= reap(ring, batch / 2);
		}
		ns = now_ns() - start;
	} while (ns < max_ns && !(work->once && dev->next >= 1ULL << work->bits));
	while (in_flight)
		in_flight -= reap(ring, in_flight);
	if (work->once)
		flush(ring, dev);
	return nr * 1e9 / (now_ns() - start);
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/*
 * The devices take turns of a few milliseconds, so that whatever else the
 * machine does concerns all alike.  Prints for each its name and its rate: a
 * tenth of its turns were faster.  What disturbs a turn can only slow it down,
 * and on a busy machine most are disturbed; the fast ones compare the devices.
 *
 * That holds as long as a device puts nothing off.  Where it may, places are
 * visited once, and a device visits all of its places in one long turn, which ends
 * with a flush.
 */
static void race(const struct work *work, unsigned int nr_turns, unsigned int nr, char **names)
{
	struct device *devs = calloc(nr, sizeof(*devs)), *dev;
	unsigned int t, i, nr_devs = 0;
	struct io_uring ring;
	bool rare = false;
	char *buffers;

	if (!devs || io_uring_queue_init(work->depth + 1, &ring, 0) ||
	    posix_memalign((void **)&buffers, 4096, (size_t)work->depth * work->bytes))
		die("no memory");
	memset(buffers, 0x5a, (size_t)work->depth * work->bytes);
	for (i = 0; i < nr; i++) {
		if (!strcmp(names[i], "--")) {
			rare = true;
			continue;
		}
		dev = &devs[nr_devs++];
		dev->name = names[i];
		dev->rare = rare;
		dev->rates = calloc(nr_turns, sizeof(*dev->rates));
		dev->fd = open(dev->name, (work->write ? O_RDWR : O_RDONLY) | O_DIRECT);
		if (!dev->rates || dev->fd < 0)
			die(dev->name);
		/* The first turn is slower than others. */
		if (!work->once)
			turn(&ring, work, dev, buffers, work->turn_ns);
	}

	for (t = 0; t < nr_turns; t++) {
		for (i = 0; i < nr_devs; i++) {
			dev = &devs[(t + i) % nr_devs];
			if (!dev->rare || t % RARE == 0)
				dev->rates[dev->nr_turns++] =
					turn(&ring, work, dev, buffers,
					     dev->rare && work->once ? work->turn_ns / RARE :
								       work->turn_ns);
		}
	}
	for (dev = devs; dev < devs + nr_devs; dev++) {
		qsort(dev->rates, dev->nr_turns, sizeof(*dev->rates), compare);
		printf("%s\t%.1f\n", dev->name, dev->rates[dev->nr_turns * 9 / 10]);
	}
}

static void parse_race(int argc, char **argv)
{
	struct work work = {
		.write = !strcmp(argv[0], "write"),
		.bytes = atoi(argv[1]),
		.depth = atoi(argv[2]),
		.sequential = !strcmp(argv[3], "sequential"),
		.once = !strcmp(argv[3], "once"),
		.flush = atoi(argv[4]),
		.turn_ns = atoi(argv[5]) * 1000000ULL,
	};

	work.nr_places = (strtoull(argv[7], NULL, 10) << 20) / work.bytes;
	while (1ULL << work.bits < work.nr_places)
		work.bits++;
	race(&work, atoi(argv[6]), argc - 8, argv + 8);
}

static void read_once(const char *device, off_t offset, const char *file)
{
	int in = open(device, O_RDONLY | O_DIRECT);
	int out = open(file, O_WRONLY | O_CREAT | O_TRUNC, 0644);
	struct timespec ts;
	void *buffer;

	if (in < 0 || out < 0)
		die("cannot open the device or the file");
	if (posix_memalign(&buffer, 4096, 4096))
		die("out of memory");
	if (pread(in, buffer, 4096, offset) != 4096)
		die("the read failed");
	clock_gettime(CLOCK_REALTIME, &ts);
	if (write(out, buffer, 4096) != 4096)
		die("cannot write the file");
	printf("%llu\n", ts.tv_sec * 1000000ULL + ts.tv_nsec / 1000);
}

struct replayed {
	off_t offset;
	size_t bytes;
	uint64_t start_ns, ns;
};

static struct replayed *parse_replay(FILE *from, size_t *nr, size_t *longest)
{
	struct replayed *reads = NULL, *r;
	long long offset, bytes;

	*nr = 0;
	*longest = 4096;
	while (fscanf(from, "%lld %lld", &offset, &bytes) == 2) {
		if (!(*nr & (*nr - 1))) {
			reads = realloc(reads, (*nr ? *nr * 2 : 1) * sizeof(*reads));
			if (!reads)
				die("out of memory");
		}
		r = &reads[(*nr)++];
		*r = (struct replayed){ .offset = offset, .bytes = bytes };
		if (r->bytes > *longest)
			*longest = r->bytes;
	}
	if (!feof(from) || !*nr)
		die("a line is not OFFSET BYTES, or there is none");
	return reads;
}

static void replay(const char *device, unsigned int depth, unsigned int pause_ms)
{
	const struct timespec pause = {
		.tv_sec = pause_ms / 1000, .tv_nsec = pause_ms % 1000 * 1000000L,
	};
	int fd = open(device, O_RDONLY | O_DIRECT);
	size_t nr, longest, next = 0, ended = 0, i;
	struct replayed *reads = parse_replay(stdin, &nr, &longest), *r;
	struct io_uring_sqe *sqe;
	struct io_uring_cqe *cqe;
	struct io_uring ring;
	char **buffers = calloc(nr, sizeof(*buffers)), **spare = calloc(depth, sizeof(*spare));

	if (fd < 0)
		die(device);
	if (!buffers || !spare || io_uring_queue_init(depth, &ring, 0))
		die("no memory");
	for (i = 0; i < depth; i++)
		if (posix_memalign((void **)&spare[i], 4096, longest))
			die("no memory");
	while (ended < nr) {
		while (next < nr && next - ended < depth) {
			if (pause_ms)
				clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, NULL);
			r = &reads[next];
			buffers[next] = spare[depth - 1 - (next - ended)];
			sqe = io_uring_get_sqe(&ring);
			io_uring_prep_read(sqe, fd, buffers[next], r->bytes, r->offset);
			sqe->user_data = next;
			r->start_ns = now_ns();
			next++;
			if (pause_ms)
				break;
		}
		if (io_uring_submit_and_wait(&ring, 1) < 0)
			die("io_uring_submit_and_wait");
		while (!io_uring_peek_cqe(&ring, &cqe)) {
			i = cqe->user_data;
			if (cqe->res != (int)reads[i].bytes) {
				fprintf(stderr, "qc2bench: %s: %zu bytes at %lld: %s\n", device,
					reads[i].bytes, (long long)reads[i].offset,
					cqe->res < 0 ? strerror(-cqe->res) : "short read");
				exit(1);
			}
			reads[i].ns = now_ns() - reads[i].start_ns;
			spare[depth - (next - ended)] = buffers[i];
			ended++;
			io_uring_cqe_seen(&ring, cqe);
		}
	}
	for (r = reads; r < reads + nr; r++)
		printf("%llu %llu\n", (unsigned long long)(r->start_ns - reads->start_ns) / 1000,
		       (unsigned long long)r->ns / 1000);
}

/*
 * Lines on standard input, in the order in which it happened: "read OFFSET BYTES PAUSE_US",
 * the pause being that since the line before, and "done N", the read N, from 0, had ended.
 * So what the machine read after N is begun after N, and reads that were in flight together
 * are again.
 */
#define BOOT_DEPTH	256

struct boot {
	int fd;
	struct io_uring ring;
	struct replayed *reads;
	char **buffers;			/* NULL: not begun, or ended */
	size_t nr, in_flight;
	uint64_t sum;
};

static void boot_end_one(struct boot *b)
{
	struct io_uring_cqe *cqe;
	struct replayed *r;
	uint64_t word, sum = 0;
	size_t i, at;

	if (io_uring_wait_cqe(&b->ring, &cqe))
		die("io_uring_wait_cqe");
	i = cqe->user_data;
	r = &b->reads[i];
	if (cqe->res != (int)r->bytes) {
		fprintf(stderr, "qc2bench: %zu bytes at %lld: %s\n", r->bytes,
			(long long)r->offset, cqe->res < 0 ? strerror(-cqe->res) : "short read");
		exit(1);
	}
	r->ns = now_ns() - r->start_ns;
	for (at = 0; at < r->bytes; at += sizeof(word)) {
		memcpy(&word, b->buffers[i] + at, sizeof(word));
		sum = sum * 3 + word;
	}
	b->sum += sum * (2 * i + 1);
	free(b->buffers[i]);
	b->buffers[i] = NULL;
	b->in_flight--;
	io_uring_cqe_seen(&b->ring, cqe);
}

static void boot_begin(struct boot *b, long long offset, long long bytes)
{
	struct io_uring_sqe *sqe;

	if (!(b->nr & (b->nr - 1))) {
		b->reads = realloc(b->reads, (b->nr ? b->nr * 2 : 1) * sizeof(*b->reads));
		b->buffers = realloc(b->buffers, (b->nr ? b->nr * 2 : 1) * sizeof(*b->buffers));
	}
	if (!b->reads || !b->buffers ||
	    posix_memalign((void **)&b->buffers[b->nr], 4096, bytes))
		die("no memory");
	while (b->in_flight == BOOT_DEPTH)
		boot_end_one(b);
	b->reads[b->nr] = (struct replayed){
		.offset = offset, .bytes = bytes, .start_ns = now_ns(),
	};
	sqe = io_uring_get_sqe(&b->ring);
	io_uring_prep_read(sqe, b->fd, b->buffers[b->nr], bytes, offset);
	sqe->user_data = b->nr++;
	b->in_flight++;
	if (io_uring_submit(&b->ring) < 0)
		die("io_uring_submit");
}

static void boot(const char *device, unsigned int percent)
{
	struct boot b = { .fd = open(device, O_RDONLY | O_DIRECT) };
	long long offset, bytes, us;
	struct timespec pause;
	const struct replayed *r;
	char line[128];

	if (b.fd < 0)
		die(device);
	if (io_uring_queue_init(BOOT_DEPTH, &b.ring, 0))
		die("no memory");
	while (fgets(line, sizeof(line), stdin)) {
		if (sscanf(line, "read %lld %lld %lld", &offset, &bytes, &us) == 3 &&
		    bytes > 0 && !(bytes % 512) && us >= 0) {
			us = us * percent / 100;
			pause.tv_sec = us / 1000000;
			pause.tv_nsec = us % 1000000 * 1000;
			if (us)
				clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, NULL);
			boot_begin(&b, offset, bytes);
		} else if (sscanf(line, "done %lld", &us) == 1 && us >= 0 && us < (long long)b.nr) {
			while (b.buffers[us])
				boot_end_one(&b);
		} else {
			die("a line is neither \"read OFFSET BYTES PAUSE_US\" nor \"done N\"");
		}
	}
	while (b.in_flight)
		boot_end_one(&b);
	if (!b.nr)
		die("no read");
	for (r = b.reads; r < b.reads + b.nr; r++)
		printf("%llu %llu\n", (unsigned long long)(r->start_ns - b.reads->start_ns) / 1000,
		       (unsigned long long)r->ns / 1000);
	printf("sum %016llx\n", (unsigned long long)b.sum);
}

int main(int argc, char **argv)
{
	if (argc == 4 && !strcmp(argv[1], "create")) {
		create(argv[2], argv[3]);
	} else if (argc == 4 && !strcmp(argv[1], "swap")) {
		swap(argv[2], argv[3]);
	} else if (argc == 3 && !strcmp(argv[1], "map")) {
		map(argv[2]);
	} else if (argc == 5 && !strcmp(argv[1], "read")) {
		read_once(argv[2], atoll(argv[3]), argv[4]);
	} else if (argc == 5 && !strcmp(argv[1], "replay") && atoi(argv[3]) > 0) {
		replay(argv[2], atoi(argv[3]), atoi(argv[4]));
	} else if (argc == 4 && !strcmp(argv[1], "boot") && atoi(argv[3]) >= 0) {
		boot(argv[2], atoi(argv[3]));
	} else if (argc >= 11 && !strcmp(argv[1], "race")) {
		parse_race(argc - 2, argv + 2);
	} else {
		fprintf(stderr, "usage: see the head of qc2bench.c\n");
		return 2;
	}
	return 0;
}
