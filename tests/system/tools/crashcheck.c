/* SPDX-License-Identifier: GPL-2.0 */
/*
 * crashcheck: whether a disk holds what it may after a crash, by the record of
 * a crashload (crash.h).
 *
 *	crashcheck [OPTION...] look DISK
 *	crashcheck [OPTION...] replay DISK LOG BASE IMAGE ARGUMENTS
 *
 *	--record FILE	the record
 *	--old FILE	what the disk held before
 *	--seed N	of the crashload, and for the choice of points (1)
 *	--live		the disk did not crash: what is acknowledged is there
 *	--points N	crashes to try, at least (200)
 *	--save PREFIX	keep one of them: the tip as the crash left it in
 *			PREFIX.tip, what the disk holds then in PREFIX.old
 *
 * "look" looks at a device-mapper device as it is.  "replay" takes the log of a
 * dm-log-writes below the tip, which held BASE when the log began, and lets the
 * power fail again and again: it puts what was written by then into IMAGE, which
 * is, by a loop device, the tip of DISK; has it checked by user space; loads a new
 * qcow2chain table with these ARGUMENTS; and looks at the disk.
 *
 * A crash is tried
 *  - after each entry of the log that is a flush or has FUA;
 *  - at entries between them, chosen at random: as if all before it was written
 *    in that order, or ("lossy") as a disk with a write cache may do it: of each
 *    write since the last flush all, some or none of the sectors; of a FUA write
 *    that the crash interrupts likewise.
 *
 * A sector may hold what the last durable operation left in it, or what any
 * later one did.  Durable is a FUA write that was acknowledged, and whatever had
 * been acknowledged when a flush was submitted that was.  In a log, a mark tells
 * what was acknowledged by then.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <libdevmapper.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "crash.h"
#include "tip.h"

#define CHUNK_SECTORS	2048		/* of one read */
#define BLOCK_SECTORS	128		/* what is read if one sector was touched */
#define FULL_EVERY	16		/* crashes after which the whole disk is read */
#define MAX_COMPLAINTS	10

/*
 * ---------------------------------------------------------------------------
 * The record, and what follows from it
 * ---------------------------------------------------------------------------
 */

enum kind { WRITE, FUA, ZERO, FLUSH };

struct op {
	enum kind kind;
	uint64_t sector, nr;
	size_t covered;		/* of a flush: acknowledged before */
};

enum event_kind { SUBMIT, ACK, ERROR, CUT };

struct event {
	enum event_kind kind;
	uint64_t op;
};

static uint64_t run = 1;		/* the seed */
static bool live;

static struct op *ops;
static uint64_t nr_ops;
static struct event *events;
static size_t nr_events;

/* Durable by the events up to @nr_acknowledged... */
static size_t next_ack;			/* event */
static uint64_t *acked;			/* operations, in their order */
static size_t nr_acked, nr_flushed;	/* of these, flushed */
static bool lies;
static uint32_t *durable;		/* last durable operation of a sector */

/* ... and submitted by the events up to that. */
static size_t next_submit;
static uint64_t submitted;		/* last operation */
static uint32_t *zeroed;		/* last operation that zeroed a sector */

static const char *disk;
static int disk_fd;
static const uint64_t *old;
static uint64_t nr_sectors;
static bool *touched;			/* blocks that operations touch */

static void __attribute__((noreturn, format(printf, 1, 2))) die(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	fputs("crashcheck: ", stderr);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
	va_end(args);
	exit(1);
}

static void *allocate(size_t nr, size_t size)
{
	void *p = calloc(nr ? nr : 1, size);

	if (!p)
		die("out of memory");
	return p;
}

static const void *map_file(const char *path, size_t *bytes)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	void *p;

	if (fd < 0 || fstat(fd, &st))
		die("%s: %s", path, strerror(errno));
	*bytes = st.st_size;
	p = mmap(NULL, st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (p == MAP_FAILED)
		die("%s: %s", path, strerror(errno));
	close(fd);
	return p;
}

static void read_record(const char *path)
{
	static const char * const kinds[] = { "write", "fua", "zero", "flush" };
	char word[16], line[128];
	uint64_t n[3];
	FILE *file = fopen(path, "re");
	int nr;

	if (!file)
		die("%s: %s", path, strerror(errno));
	while (fgets(line, sizeof(line), file)) {
		struct event *event;

		events = realloc(events, (nr_events + 1) * sizeof(*events));
		if (!events)
			die("out of memory");
		event = &events[nr_events++];
		memset(n, 0, sizeof(n));
		nr = sscanf(line, "%15s %" SCNu64 " %" SCNu64 " %" SCNu64, word, &n[0], &n[1],
			    &n[2]);
		event->op = n[0];
		if (nr == 1 && !strcmp(word, "cut")) {
			event->kind = CUT;
			continue;
		}
		if (nr >= 2 && (!strcmp(word, "ack") || !strcmp(word, "error"))) {
			event->kind = *word == 'a' ? ACK : ERROR;
			if (!n[0] || n[0] > nr_ops)
				die("%s: %s", path, line);
			continue;
		}
		event->kind = SUBMIT;
		ops = realloc(ops, (nr_ops + 2) * sizeof(*ops));
		if (!ops)
			die("out of memory");
		ops[++nr_ops] = (struct op) { .sector = n[1], .nr = n[2] };
		while (ops[nr_ops].kind <= FLUSH && strcmp(word, kinds[ops[nr_ops].kind]))
			ops[nr_ops].kind++;
		if (ops[nr_ops].kind > FLUSH || n[0] != nr_ops || n[1] > nr_sectors ||
		    n[2] > nr_sectors - n[1] || nr != (ops[nr_ops].kind == FLUSH ? 2 : 4))
			die("%s: %s", path, line);
		for (uint64_t s = n[1]; s < n[1] + n[2]; s++)
			touched[s / BLOCK_SECTORS] = true;
	}
	fclose(file);
	if (!nr_ops)
		die("%s: nothing in it", path);
	acked = allocate(nr_events, sizeof(*acked));
	durable = allocate(nr_sectors, sizeof(*durable));
	zeroed = allocate(nr_sectors, sizeof(*zeroed));
}

static void make_durable(uint64_t n)
{
	const struct op *op = &ops[n];

	for (uint64_t s = op->sector; s < op->sector + op->nr; s++)
		if (durable[s] < n)
			durable[s] = n;
}

/* Everything that the first @nr events of the record tell was acknowledged. */
static void acknowledge(size_t nr)
{
	for (; next_ack < nr && !lies; next_ack++) {
		const struct event *event = &events[next_ack];
		struct op *op = &ops[event->op];

		if (event->kind == CUT)
			lies = true;
		if (event->kind == SUBMIT && op->kind == FLUSH)
			op->covered = nr_acked;
		if (event->kind != ACK)
			continue;
		if (op->kind == FLUSH) {
			for (; nr_flushed < op->covered; nr_flushed++)
				make_durable(acked[nr_flushed]);
			continue;
		}
		if (op->kind == FUA || live)
			make_durable(event->op);
		acked[nr_acked++] = event->op;
	}
}

/* Everything that these events tell was submitted. */
static void submit(size_t nr)
{
	for (; next_submit < nr; next_submit++) {
		const struct event *event = &events[next_submit];
		const struct op *op = &ops[event->op];

		if (event->kind != SUBMIT)
			continue;
		submitted = event->op;
		if (op->kind == ZERO)
			for (uint64_t s = op->sector; s < op->sector + op->nr; s++)
				zeroed[s] = event->op;
	}
}

/*
 * ---------------------------------------------------------------------------
 * Looking at a disk
 * ---------------------------------------------------------------------------
 */

/* Word by word: an emulated processor's vectors, as in memcmp(), are slow. */
static inline bool same(const void *a, const void *b, size_t bytes)
{
	const uint64_t *p = a, *q = b;
	uint64_t diff = 0;

	for (size_t i = 0; i < bytes / sizeof(*p); i++)
		diff |= p[i] ^ q[i];
	return !diff;
}

static bool is_zero(const uint64_t *words)
{
	static const uint64_t zeros[SECTOR_WORDS];

	return same(words, zeros, SECTOR_SIZE);
}

static bool is_allowed(const uint64_t *words, uint64_t sector)
{
	if (!durable[sector] && same(words, old + sector * SECTOR_WORDS, SECTOR_SIZE))
		return true;
	if (stamp_seen(words, run)) {
		uint64_t n = words[2];
		const struct op *op;

		if (!n || n > submitted || n < durable[sector])
			return false;
		op = &ops[n];
		return (op->kind == WRITE || op->kind == FUA) && sector >= op->sector &&
		       sector < op->sector + op->nr && stamp_is(words, run, n, sector);
	}
	return zeroed[sector] && zeroed[sector] >= durable[sector] && is_zero(words);
}

static void describe(const char *where, const uint64_t *words, uint64_t sector)
{
	fprintf(stderr, "%s: sector %" PRIu64 " holds ", where, sector);
	if (stamp_seen(words, run))
		fprintf(stderr, "operation %" PRIu64 " for sector %" PRIu64 "%s", words[2],
			words[3], stamp_is(words, run, words[2], words[3]) ? "" : ", in part");
	else if (is_zero(words))
		fprintf(stderr, "zeros");
	else if (same(words, old + sector * SECTOR_WORDS, SECTOR_SIZE))
		fprintf(stderr, "its old content");
	else
		fprintf(stderr, "nothing that was written there");
	if (durable[sector])
		fprintf(stderr, "; operation %u is durable", durable[sector]);
	fprintf(stderr, ", %" PRIu64 " is the last that was submitted\n", submitted);
}

/* Reads the disk, or the blocks that were touched; returns the bad sectors. */
static unsigned int look(const char *where, bool all, FILE *copy)
{
	static void *buffer;
	unsigned int bad = 0;
	uint64_t first, nr;

	if (!buffer) {
		buffer = aligned_alloc(4096, CHUNK_SECTORS * SECTOR_SIZE);
		if (!buffer)
			die("out of memory");
	}
	for (first = 0; first < nr_sectors; first += nr) {
		nr = 0;
		while (nr < CHUNK_SECTORS && first + nr < nr_sectors &&
		       (all || touched[(first + nr) / BLOCK_SECTORS]))
			nr += BLOCK_SECTORS;
		if (!nr) {
			nr = BLOCK_SECTORS;
			continue;
		}
		if (nr > nr_sectors - first)
			nr = nr_sectors - first;
		if (pread(disk_fd, buffer, nr * SECTOR_SIZE, first * SECTOR_SIZE) !=
		    (ssize_t)(nr * SECTOR_SIZE))
			die("%s: sectors from %" PRIu64 " on cannot be read: %s", where, first,
			    strerror(errno));
		for (uint64_t i = 0; i < nr; i++) {
			const uint64_t *words = (uint64_t *)buffer + i * SECTOR_WORDS;

			if (!is_allowed(words, first + i) && bad++ < MAX_COMPLAINTS)
				describe(where, words, first + i);
		}
		if (copy && fwrite(buffer, SECTOR_SIZE, nr, copy) != nr)
			die("cannot save the disk: %s", strerror(errno));
	}
	return bad;
}

static void open_disk(const char *name)
{
	char *path;

	if (asprintf(&path, "%s/%s", dm_dir(), name) < 0)
		die("out of memory");
	disk = name;
	disk_fd = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
	if (disk_fd < 0)
		die("%s: %s", path, strerror(errno));
	free(path);
}

/*
 * ---------------------------------------------------------------------------
 * The log
 * ---------------------------------------------------------------------------
 */

#define LOG_MAGIC	0x6a736677736872ULL
#define LOG_FLUSH	(1 << 0)
#define LOG_FUA		(1 << 1)
#define LOG_DISCARD	(1 << 2)
#define LOG_MARK	(1 << 3)
#define LOG_METADATA	(1 << 4)

struct log_super {
	uint64_t magic, version, nr_entries;
	uint32_t sector_size;
};

/* As in the log. */
struct log_entry {
	uint64_t sector, nr_sectors, flags, data_len;
};

struct entry {
	uint64_t sector, nr, flags;
	const char *data;
	size_t acknowledged;	/* events, by the last mark up to here */
	size_t submitted;	/* events, by the next mark after it */
};

static struct entry *entries;
static size_t nr_entries;

static void read_log(const char *path)
{
	const struct log_super *super;
	size_t bytes, offset = SECTOR_SIZE, i, known = 0;
	const char *log = map_file(path, &bytes);

	super = (const struct log_super *)log;
	if (bytes < SECTOR_SIZE || le64toh(super->magic) != LOG_MAGIC ||
	    le64toh(super->version) != 1)
		die("%s: not a log", path);
	if (le32toh(super->sector_size) != SECTOR_SIZE)
		die("%s: sectors of %u bytes", path, le32toh(super->sector_size));
	nr_entries = le64toh(super->nr_entries);
	entries = allocate(nr_entries, sizeof(*entries));

	for (i = 0; i < nr_entries; i++) {
		const struct log_entry *found = (const struct log_entry *)(log + offset);
		struct entry *entry = &entries[i];

		if (offset + SECTOR_SIZE > bytes)
			die("%s: truncated", path);
		entry->sector = le64toh(found->sector);
		entry->nr = le64toh(found->nr_sectors);
		entry->flags = le64toh(found->flags);
		entry->data = (const char *)found + SECTOR_SIZE;
		if (entry->flags & LOG_DISCARD)
			die("%s: a tip is not discarded", path);
		/* The last mark, which is no number, is dm-log-writes' own. */
		if (entry->flags & LOG_MARK) {
			const char *mark = (const char *)(found + 1);

			known = i + 1 < nr_entries ? strtoull(mark, NULL, 10) : nr_events;
			if (!known || known > nr_events)
				die("%s: mark '%s' is not in the record", path, mark);
		}
		entry->acknowledged = known;
		offset += SECTOR_SIZE + entry->nr * SECTOR_SIZE;
		if (offset > bytes)
			die("%s: truncated", path);
	}
	for (known = nr_events; i-- > 0; ) {
		entries[i].submitted = known;
		if (entries[i].flags & LOG_MARK)
			known = entries[i].acknowledged;
	}
}

/*
 * ---------------------------------------------------------------------------
 * Replay
 * ---------------------------------------------------------------------------
 */

struct point {
	size_t entry;		/* the last one that was begun */
	bool lossy;
};

static struct point *points;
static size_t nr_points, wanted_points = 200;
static const char *save_prefix;

static const char *image_path;
static char *image;		/* the tip, mapped */
static char *flushed;		/* what it was after the entries below @nr_applied */
static size_t image_bytes, nr_applied;
static unsigned long nr_lost, nr_torn;

static void write_sector(char *to, const char *from)
{
	const uint64_t *new = (const uint64_t *)from, *there = (const uint64_t *)to;

	/*
	 * dm-log-writes logs a FUA write when it completes, but another write
	 * when a flush follows: what seems to be older is.
	 */
	if (stamp_seen(new, run) && stamp_seen(there, run) && new[3] == there[3] &&
	    new[2] < there[2])
		return;
	memcpy(to, from, SECTOR_SIZE);
}

static char *place(const struct entry *entry, char *tip)
{
	if (entry->sector > image_bytes / SECTOR_SIZE ||
	    entry->nr > image_bytes / SECTOR_SIZE - entry->sector)
		die("the log has a write to sector %" PRIu64 ", which the tip has not",
		    entry->sector);
	return tip + entry->sector * SECTOR_SIZE;
}

static void apply(const struct entry *entry, char *tip)
{
	char *to = place(entry, tip);

	for (uint64_t i = 0; i < entry->nr; i++)
		write_sector(to + i * SECTOR_SIZE, entry->data + i * SECTOR_SIZE);
}

/* As much of a write as a crash may leave of it. */
static void apply_some(const struct entry *entry, char *tip, uint64_t *rng)
{
	char *to = place(entry, tip);
	unsigned int fate = random_below(rng, 4);

	if (!entry->nr)
		return;
	if (fate == 0)
		nr_lost++;
	if (fate == 1)
		nr_torn++;
	for (uint64_t i = 0; i < entry->nr; i++)
		if (fate > 1 || (fate == 1 && random_below(rng, 2)))
			write_sector(to + i * SECTOR_SIZE, entry->data + i * SECTOR_SIZE);
}

static void make_crash(const struct point *point, uint64_t rng)
{
	size_t i;

	/* The last flush that was over. */
	for (i = point->entry + !point->lossy; i > nr_applied; i--)
		if (entries[i - 1].flags & LOG_FLUSH)
			break;
	while (nr_applied < i)
		apply(&entries[nr_applied++], flushed);

	memcpy(image, flushed, image_bytes);
	for (; i <= point->entry; i++) {
		bool over = (entries[i].flags & LOG_FUA) && i < point->entry;

		if (point->lossy && !over)
			apply_some(&entries[i], image, &rng);
		else
			apply(&entries[i], image);
	}
}

static int compare_points(const void *a, const void *b)
{
	const struct point *p = a, *q = b;

	if (p->entry != q->entry)
		return p->entry < q->entry ? -1 : 1;
	return q->lossy - p->lossy;
}

static void choose_points(uint64_t *rng)
{
	size_t nr_flushes = 0, more, i;

	points = allocate(2 * nr_entries + wanted_points, sizeof(*points));
	for (i = 0; i < nr_entries; i++)
		if (entries[i].flags & (LOG_FLUSH | LOG_FUA))
			points[nr_flushes++].entry = i;
	nr_points = nr_flushes;
	if (nr_flushes < 2)
		die("no flushes in the log");

	more = nr_flushes / 3;
	if (nr_points + more < wanted_points)
		more = wanted_points - nr_points;
	while (more) {
		struct point *point = &points[nr_points];

		point->entry = random_below(rng, nr_entries);
		point->lossy = random_below(rng, 4);
		/* Between flushes; half of them at metadata. */
		if ((entries[point->entry].flags & LOG_MARK) ||
		    (!point->lossy && (entries[point->entry].flags & (LOG_FLUSH | LOG_FUA))) ||
		    (random_below(rng, 2) && !(entries[point->entry].flags & LOG_METADATA)))
			continue;
		nr_points++;
		more--;
	}
	qsort(points, nr_points, sizeof(*points), compare_points);
	printf("%zu log entries, %zu crashes, %zu of them at a flush or FUA\n", nr_entries,
	       nr_points, nr_flushes);
	fflush(stdout);
}

static struct dm_task *disk_task(int type)
{
	struct dm_task *task = dm_task_create(type);

	if (!task || !dm_task_set_name(task, disk))
		die("out of memory");
	return task;
}

static bool finish_task(struct dm_task *task)
{
	bool ok = dm_task_run(task);

	dm_task_destroy(task);
	return ok;
}

static void suspend(void)
{
	struct dm_task *task = disk_task(DM_DEVICE_SUSPEND);

	if (!dm_task_no_flush(task) || !dm_task_skip_lockfs(task) || !finish_task(task))
		die("%s cannot be suspended", disk);
}

static void start(const char *arguments, const char *where)
{
	struct dm_task *task = disk_task(DM_DEVICE_RELOAD);

	if (!dm_task_add_target(task, 0, nr_sectors, "qcow2chain", arguments) ||
	    !finish_task(task) || !finish_task(disk_task(DM_DEVICE_RESUME)))
		die("%s: the disk does not start", where);
}

/* The number of sectors in the tip by the disk's status. */
static uint64_t disk_in_tip(void)
{
	struct dm_task *task = disk_task(DM_DEVICE_STATUS);
	uint64_t first, length, n;
	char *type, *status = NULL;

	if (dm_task_run(task))
		dm_get_next_target(task, NULL, &first, &length, &type, &status);
	if (!status || sscanf(status, "rw %*s %" SCNu64, &n) != 1)
		die("%s: unexpected status: %s", disk, status ? status : "none");
	dm_task_destroy(task);
	return n;
}

static FILE *save(const char *suffix)
{
	FILE *file;
	char *path;

	if (asprintf(&path, "%s.%s", save_prefix, suffix) < 0)
		die("out of memory");
	file = fopen(path, "we");
	if (!file)
		die("%s: %s", path, strerror(errno));
	free(path);
	return file;
}

static void saved(FILE *file)
{
	if (ferror(file) || fclose(file))
		die("cannot save: %s", strerror(errno));
}

/* Lets the power fail; returns the number of bad sectors. */
static unsigned int crash(size_t nr, bool all, bool keep, const char *arguments)
{
	const struct point *point = &points[nr];
	const struct entry *entry = &entries[point->entry];
	struct qc2_tip_info info;
	struct qc2_err err;
	unsigned int bad;
	FILE *copy = NULL;
	char where[128];

	snprintf(where, sizeof(where), "crash %zu, %sat entry %zu (%s%s%s)", nr,
		 point->lossy ? "lossy, " : "", point->entry,
		 entry->flags & LOG_METADATA ? "metadata " : "",
		 entry->flags & LOG_FLUSH ? "flush" : "write",
		 entry->flags & LOG_FUA ? " with FUA" : "");
	suspend();
	make_crash(point, run ^ stamp_mix(nr));
	acknowledge(entry->acknowledged);
	submit(entry->submitted);
	if (keep) {
		copy = save("tip");
		fwrite(image, 1, image_bytes, copy);
		saved(copy);
		copy = save("old");
	}

	if (qc2_tip_check(image_path, NULL, &info, &err))
		die("%s: %s", where, err.msg);
	start(arguments, where);
	if (disk_in_tip() != info.dirty_sectors)
		die("%s: the kernel finds %" PRIu64 " sectors in the tip, user space %" PRIu64,
		    where, disk_in_tip(), info.dirty_sectors);
	bad = look(where, all, copy);
	if (copy)
		saved(copy);
	return bad;
}

static int replay(const char *log, const char *base, const char *arguments)
{
	uint64_t rng = run;
	size_t kept = SIZE_MAX;
	const void *before;
	int fd;

	read_log(log);
	choose_points(&rng);
	before = map_file(base, &image_bytes);
	flushed = allocate(image_bytes, 1);
	memcpy(flushed, before, image_bytes);
	fd = open(image_path, O_RDWR | O_CLOEXEC);
	if (fd < 0 || ftruncate(fd, image_bytes))
		die("%s: %s", image_path, strerror(errno));
	image = mmap(NULL, image_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (image == MAP_FAILED)
		die("%s: %s", image_path, strerror(errno));
	if (save_prefix)
		kept = nr_points / 2 + random_below(&rng, nr_points - nr_points / 2);

	for (size_t i = 0; i < nr_points; i++) {
		bool all = i % FULL_EVERY == 0 || i == kept || i == nr_points - 1;

		if (crash(i, all, i == kept, arguments))
			return 1;
	}
	printf("%lu writes lost, %lu torn\n", nr_lost, nr_torn);
	return 0;
}

static uint64_t number(const char *arg)
{
	char *end;
	uint64_t n = strtoull(arg, &end, 10);

	if (end == arg || *end)
		die("%s: not a number", arg);
	return n;
}

int main(int argc, char **argv)
{
	static const struct option known[] = {
		{ "record", required_argument, NULL, 'r' },
		{ "old", required_argument, NULL, 'o' },
		{ "seed", required_argument, NULL, 's' },
		{ "live", no_argument, NULL, 'l' },
		{ "points", required_argument, NULL, 'p' },
		{ "save", required_argument, NULL, 'k' },
		{ NULL, 0, NULL, 0 }
	};
	const char *record_path = NULL, *old_path = NULL;
	size_t bytes;
	int c;

	while ((c = getopt_long(argc, argv, "+", known, NULL)) != -1) {
		switch (c) {
		case 'r':
			record_path = optarg;
			break;
		case 'o':
			old_path = optarg;
			break;
		case 's':
			run = number(optarg);
			break;
		case 'l':
			live = true;
			break;
		case 'p':
			wanted_points = number(optarg);
			break;
		case 'k':
			save_prefix = optarg;
			break;
		default:
			return 2;
		}
	}
	argv += optind;
	argc -= optind;
	if (!record_path || !old_path || !((argc == 2 && !strcmp(argv[0], "look")) ||
					   (argc == 6 && !strcmp(argv[0], "replay")))) {
		fprintf(stderr, "usage: crashcheck [OPTION...] look|replay DISK ARGUMENT...\n");
		return 2;
	}

	old = map_file(old_path, &bytes);
	nr_sectors = bytes / SECTOR_SIZE;
	touched = allocate(nr_sectors / BLOCK_SECTORS + 1, sizeof(*touched));
	read_record(record_path);
	open_disk(argv[1]);
	if (argc == 6) {
		image_path = argv[4];
		return replay(argv[2], argv[3], argv[5]);
	}

	acknowledge(nr_events);
	submit(nr_events);
	return look(argv[1], true, NULL) ? 1 : 0;
}
