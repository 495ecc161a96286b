/* SPDX-License-Identifier: GPL-2.0 */
/*
 * crashload: random writes, zeroes, FUA writes and flushes, several in flight,
 * with a record of them (crash.h) by which crashcheck tells what a disk may
 * hold after a crash, and what it must.
 *
 *	crashload [OPTION...] DEVICE RECORD
 *
 *	--seed N	of the choice; also names the record in the stamps (1)
 *	--ops N		operations (500)
 *	--zone A+B	write to the B sectors from A on only; may be repeated
 *	--mark NAME	device of target log-writes that gets, after each flush
 *			or FUA write was acknowledged, a mark: the number of the
 *			record's line which says so
 *	--at N		run the command before operation N, with others in flight
 *	--run COMMAND	a command of the shell
 *	--cut		nothing acknowledged since then counts
 *	--errors	errors of the device are not the end
 *
 * Zeroing is synchronous.  At most one flush of its own is in flight, since
 * dm-log-writes may log two in the wrong order.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <libdevmapper.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include <linux/aio_abi.h>
#include <linux/fs.h>

#include "crash.h"

#define MAX_DEPTH	24
#define MAX_SECTORS	200		/* of one operation */
#define MAX_ZONES	16

struct zone {
	uint64_t first, nr;
};

enum kind { WRITE, FUA, FLUSH };

struct slot {
	bool busy;
	enum kind kind;
	uint64_t op, sector, nr;
	void *buffer;
	struct iocb iocb;
};

static uint64_t seed = 1, nr_ops = 500;
static struct zone zones[MAX_ZONES];
static unsigned int nr_zones;
static const char *mark_device, *command;
static uint64_t command_op;
static bool cut, errors_allowed;

static int fd;
static FILE *record;
static uint64_t nr_lines;
static aio_context_t aio;
static struct slot slots[MAX_DEPTH];
static unsigned int nr_busy;
static bool flushing;
static uint64_t flushed;		/* greatest flush that was acknowledged */
static uint32_t *zeroed;		/* last operation that zeroed a sector */
static uint64_t rng;

static void __attribute__((noreturn, format(printf, 1, 2))) die(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	fputs("crashload: ", stderr);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
	va_end(args);
	exit(1);
}

static void __attribute__((format(printf, 1, 2))) note(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	if (vfprintf(record, format, args) < 0)
		die("cannot write the record: %s", strerror(errno));
	va_end(args);
	nr_lines++;
}

static void send_mark(void)
{
	struct dm_task *task = dm_task_create(DM_DEVICE_TARGET_MSG);
	char message[32];

	snprintf(message, sizeof(message), "mark %" PRIu64, nr_lines);
	if (!task || !dm_task_set_name(task, mark_device) || !dm_task_set_sector(task, 0) ||
	    !dm_task_set_message(task, message) || !dm_task_run(task))
		die("%s takes no mark", mark_device);
	dm_task_destroy(task);
}

static void ended(enum kind kind, uint64_t op, int64_t result, int64_t expected)
{
	if (result != expected) {
		/* A short write is an error that hit its end. */
		int error = result < 0 ? -result : EIO;

		if (!errors_allowed)
			die("operation %" PRIu64 ": %s", op, strerror(error));
		note("error %" PRIu64 " %d\n", op, error);
		return;
	}
	note("ack %" PRIu64 "\n", op);
	if (kind == FLUSH)
		flushed = op;
	if (mark_device && kind != WRITE)
		send_mark();
}

/* Takes up what has completed; waits for @least. */
static void reap(unsigned int least)
{
	struct io_event events[MAX_DEPTH];
	long nr = syscall(SYS_io_getevents, aio, (long)least, (long)MAX_DEPTH, events, NULL);

	if (nr < 0)
		die("io_getevents: %s", strerror(errno));
	for (long i = 0; i < nr; i++) {
		struct slot *slot = (struct slot *)(uintptr_t)events[i].data;

		slot->busy = false;
		nr_busy--;
		if (slot->kind == FLUSH)
			flushing = false;
		ended(slot->kind, slot->op, events[i].res,
		      slot->kind == FLUSH ? 0 : (int64_t)slot->nr * SECTOR_SIZE);
	}
}

static void drain(void)
{
	while (nr_busy)
		reap(1);
}

static bool in_flight(uint64_t sector, uint64_t nr)
{
	for (unsigned int i = 0; i < MAX_DEPTH; i++)
		if (slots[i].busy && slots[i].kind != FLUSH &&
		    sector < slots[i].sector + slots[i].nr && slots[i].sector < sector + nr)
			return true;
	return false;
}

/* Mostly small, up to MAX_SECTORS.  Waits until nothing in flight is hit. */
static void choose(uint64_t *sector, uint64_t *nr)
{
	const struct zone *zone = &zones[random_below(&rng, nr_zones)];

	*nr = 1 + random_below(&rng, MAX_SECTORS >> random_below(&rng, 8));
	if (*nr > zone->nr)
		*nr = zone->nr;
	*sector = zone->first + random_below(&rng, zone->nr - *nr + 1);
	/* What a guest writes is mostly aligned. */
	if (random_below(&rng, 3) && *nr >= 8 && (*sector | 7) - 7 >= zone->first) {
		*sector = (*sector | 7) - 7;
		*nr = (*nr | 7) - 7;
	}
	while (in_flight(*sector, *nr))
		reap(1);
}

static void submit(enum kind kind, uint64_t op, uint64_t sector, uint64_t nr)
{
	struct slot *slot = slots;
	struct iocb *iocb;

	while (slot->busy)
		slot++;
	slot->busy = true;
	slot->kind = kind;
	slot->op = op;
	slot->sector = sector;
	slot->nr = nr;
	iocb = &slot->iocb;
	*iocb = (struct iocb) {
		.aio_data = (uintptr_t)slot,
		.aio_fildes = fd,
		.aio_lio_opcode = IOCB_CMD_FDSYNC,
	};
	if (kind == FLUSH) {
		note("flush %" PRIu64 "\n", op);
		flushing = true;
	} else {
		for (uint64_t i = 0; i < nr; i++)
			stamp_fill((uint64_t *)((char *)slot->buffer + i * SECTOR_SIZE), seed, op,
				   sector + i);
		iocb->aio_lio_opcode = IOCB_CMD_PWRITE;
		iocb->aio_buf = (uintptr_t)slot->buffer;
		iocb->aio_nbytes = nr * SECTOR_SIZE;
		iocb->aio_offset = sector * SECTOR_SIZE;
		/* With direct I/O this is a write with FUA. */
		iocb->aio_rw_flags = kind == FUA ? RWF_DSYNC : 0;
		note("%s %" PRIu64 " %" PRIu64 " %" PRIu64 "\n", kind == FUA ? "fua" : "write",
		     op, sector, nr);
	}
	if (syscall(SYS_io_submit, aio, 1L, &iocb) != 1)
		die("io_submit: %s", strerror(errno));
	nr_busy++;
}

static void zero(uint64_t op, uint64_t sector, uint64_t nr)
{
	uint64_t range[2] = { sector * SECTOR_SIZE, nr * SECTOR_SIZE };
	int r = -1;

	note("zero %" PRIu64 " %" PRIu64 " %" PRIu64 "\n", op, sector, nr);
	errno = EOPNOTSUPP;
	if (random_below(&rng, 2))
		r = ioctl(fd, BLKDISCARD, range);
	if (r && errno == EOPNOTSUPP)
		r = ioctl(fd, BLKZEROOUT, range);
	for (uint64_t i = 0; i < nr; i++)
		zeroed[sector + i] = op;
	ended(WRITE, op, r ? -errno : 0, 0);
}

/*
 * dm-log-writes logs a FUA write ahead of earlier writes that no flush has
 * followed yet.  The stamps tell crashcheck the right order; zeros bear none.
 */
static bool fua_allowed(uint64_t sector, uint64_t nr)
{
	for (uint64_t i = 0; i < nr; i++)
		if (zeroed[sector + i] > flushed)
			return false;
	return true;
}

/* So that what comes next meets one before it at any stage. */
static void pause_some(void)
{
	const struct timespec time = { .tv_nsec = 1000UL << random_below(&rng, 13) };

	nanosleep(&time, NULL);
}

static void one(uint64_t op)
{
	static bool after_fua;
	unsigned int what = random_below(&rng, 100);
	uint64_t sector, nr;

	if (after_fua && random_below(&rng, 2)) {
		pause_some();
		what = 2;
	}
	after_fua = false;
	if (what < 14 && !flushing) {
		/* Now and then alone, so that everything before it is covered. */
		if (what < 2)
			drain();
		submit(FLUSH, op, 0, 0);
		return;
	}
	choose(&sector, &nr);
	if (what < 24) {
		zero(op, sector, nr);
	} else if (what < 34 && fua_allowed(sector, nr)) {
		submit(FUA, op, sector, nr);
		after_fua = true;
	} else {
		submit(WRITE, op, sector, nr);
	}
}

static void run_command(void)
{
	if (cut)
		note("cut\n");
	if (system(command))
		die("failed: %s", command);
}

static uint64_t number(const char *arg)
{
	char *end;
	uint64_t n = strtoull(arg, &end, 10);

	if (end == arg || *end)
		die("%s: not a number", arg);
	return n;
}

static void options(int argc, char **argv)
{
	static const struct option known[] = {
		{ "seed", required_argument, NULL, 's' },
		{ "ops", required_argument, NULL, 'n' },
		{ "zone", required_argument, NULL, 'z' },
		{ "mark", required_argument, NULL, 'm' },
		{ "at", required_argument, NULL, 'a' },
		{ "run", required_argument, NULL, 'r' },
		{ "cut", no_argument, NULL, 'c' },
		{ "errors", no_argument, NULL, 'e' },
		{ NULL, 0, NULL, 0 }
	};
	int c;

	while ((c = getopt_long(argc, argv, "", known, NULL)) != -1) {
		switch (c) {
		case 's':
			seed = number(optarg);
			break;
		case 'n':
			nr_ops = number(optarg);
			break;
		case 'z':
			if (nr_zones == MAX_ZONES ||
			    sscanf(optarg, "%" SCNu64 "+%" SCNu64, &zones[nr_zones].first,
				   &zones[nr_zones].nr) != 2 || !zones[nr_zones].nr)
				die("--zone %s: FIRST+SECTORS expected", optarg);
			nr_zones++;
			break;
		case 'm':
			mark_device = optarg;
			break;
		case 'a':
			command_op = number(optarg);
			break;
		case 'r':
			command = optarg;
			break;
		case 'c':
			cut = true;
			break;
		case 'e':
			errors_allowed = true;
			break;
		default:
			exit(2);
		}
	}
	if (argc - optind != 2) {
		fprintf(stderr, "usage: crashload [OPTION...] DEVICE RECORD\n");
		exit(2);
	}
}

int main(int argc, char **argv)
{
	uint64_t bytes, op;
	unsigned int i;

	options(argc, argv);
	fd = open(argv[optind], O_RDWR | O_DIRECT | O_CLOEXEC);
	if (fd < 0 || ioctl(fd, BLKGETSIZE64, &bytes))
		die("%s: %s", argv[optind], strerror(errno));
	record = fopen(argv[optind + 1], "we");
	if (!record)
		die("%s: %s", argv[optind + 1], strerror(errno));

	if (!nr_zones)
		zones[nr_zones++].nr = bytes / SECTOR_SIZE;
	for (i = 0; i < nr_zones; i++)
		if (zones[i].first >= bytes / SECTOR_SIZE ||
		    zones[i].nr > bytes / SECTOR_SIZE - zones[i].first)
			die("zone %u lies outside of the device", i);

	zeroed = calloc(bytes / SECTOR_SIZE, sizeof(*zeroed));
	for (i = 0; i < MAX_DEPTH; i++)
		slots[i].buffer = aligned_alloc(4096, (MAX_SECTORS + 7) / 8 * 4096);
	if (!zeroed || !slots[MAX_DEPTH - 1].buffer)
		die("out of memory");
	if (syscall(SYS_io_setup, MAX_DEPTH, &aio))
		die("io_setup: %s", strerror(errno));

	rng = seed;
	for (op = 1; op <= nr_ops; op++) {
		/* Sometimes many are in flight, sometimes few. */
		unsigned int depth = 1 + (op / 32 * 7 + seed) % MAX_DEPTH;

		if (command && op == command_op)
			run_command();
		while (nr_busy >= depth)
			reap(1);
		one(op);
	}
	drain();
	if (fclose(record))
		die("cannot write the record: %s", strerror(errno));
	return 0;
}
