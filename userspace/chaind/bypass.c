/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The bypass: its ring.  Main thread only, but for write_run() and forget_run().
 *
 * Places in the ring are 64-bit positions that only grow; slot = position modulo the
 * number of slots.  [tail, head) is in use, of which [tail, dying) is being forgotten.
 */
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bypass.h"
#include "cache_dev.h"
#include "forget.h"
#include "pool.h"

#define NR_SLOTS	256U
#define SEGMENT		32U		/* slots that are given up at once */
#define RETRY_US	1000000
#define MAX_WAITING	256

struct bypass_write {
	struct job job;
	struct bypass *bypass;
	struct object *obj;
	uint32_t block, slot;
	void *data;
	int ret;
	void (*done)(void *arg, int ret);
	void *arg;
	STAILQ_ENTRY(bypass_write) entry;
};

struct bypass {
	int fd;
	char *device;
	dev_t dev;
	struct {
		struct object *obj;	/* NULL: empty */
		uint32_t block;
		bool writing;
	} slots[NR_SLOTS];
	uint64_t head, tail, dying;
	unsigned int used;
	uint64_t writes;
	STAILQ_HEAD(, bypass_write) waiting;	/* for a slot */
	unsigned int nr_waiting;

	struct pool *pool;
	struct job forget_job;
	bool forgetting;
	int forget_ret;
	struct qc2_err forget_err;
	struct log_limit limit;
	sd_event_source *retry_timer;
};

uint32_t bypass_lookup(const struct bypass *bypass, const struct object *obj, uint32_t block)
{
	uint32_t i;

	for (i = 0; bypass && bypass->used && i < NR_SLOTS; i++) {
		if (bypass->slots[i].obj == obj && bypass->slots[i].block == block)
			return i;
	}
	return BYPASS_NO_SLOT;
}

void bypass_drop(struct bypass *bypass, uint32_t slot)
{
	if (!bypass->slots[slot].obj)
		return;
	object_put(bypass->slots[slot].obj);
	bypass->slots[slot].obj = NULL;
	bypass->used--;
}

static void submit_forget(struct bypass *bypass)
{
	bypass->forgetting = true;
	pool_submit(bypass->pool, &bypass->forget_job);
}

/* Keeps a segment free ahead of the writers. */
static void make_room(struct bypass *bypass)
{
	uint64_t pos;

	if (bypass->dying != bypass->tail ||
	    NR_SLOTS - (bypass->head - bypass->tail) >= SEGMENT)
		return;
	for (pos = bypass->tail; pos < bypass->tail + SEGMENT; pos++) {
		if (bypass->slots[pos % NR_SLOTS].writing)
			return;
	}
	for (pos = bypass->tail; pos < bypass->tail + SEGMENT; pos++)
		bypass_drop(bypass, pos % NR_SLOTS);
	bypass->dying = bypass->tail + SEGMENT;
	submit_forget(bypass);
}

bool bypass_empty(struct bypass *bypass)
{
	uint64_t pos;

	if (bypass->dying != bypass->tail || !STAILQ_EMPTY(&bypass->waiting))
		return false;
	for (pos = bypass->tail; pos < bypass->head; pos++) {
		if (bypass->slots[pos % NR_SLOTS].writing)
			return false;
	}
	for (pos = bypass->tail; pos < bypass->head; pos++)
		bypass_drop(bypass, pos % NR_SLOTS);
	bypass->dying = bypass->head;
	submit_forget(bypass);
	return true;
}

static void start_writes(struct bypass *bypass)
{
	struct bypass_write *w;

	while ((w = STAILQ_FIRST(&bypass->waiting)) && bypass->head - bypass->tail < NR_SLOTS) {
		STAILQ_REMOVE_HEAD(&bypass->waiting, entry);
		bypass->nr_waiting--;
		w->slot = bypass->head++ % NR_SLOTS;
		bypass->slots[w->slot].writing = true;
		pool_submit(bypass->pool, &w->job);
	}
	make_room(bypass);
}

static void write_run(struct job *job)
{
	struct bypass_write *w = (struct bypass_write *)job;
	ssize_t n = pwrite(w->bypass->fd, w->data, QC2_BLOCK_BYTES,
			   (off_t)w->slot * QC2_BLOCK_BYTES);

	w->ret = n == QC2_BLOCK_BYTES ? 0 : -EIO;
}

static void write_done(struct job *job)
{
	struct bypass_write *w = (struct bypass_write *)job;
	struct bypass *bypass = w->bypass;

	bypass->slots[w->slot].writing = false;
	if (!w->ret) {
		bypass->slots[w->slot].obj = object_ref(w->obj);
		bypass->slots[w->slot].block = w->block;
		bypass->used++;
		bypass->writes++;
	} else if (log_allowed(&bypass->limit)) {
		log_err("bypass %s: cannot be written, reads fail; is memory short?",
			bypass->device);
	}
	make_room(bypass);		/* may have waited for this write */
	w->done(w->arg, w->ret);
	object_put(w->obj);
	free(w->data);
	free(w);
}

int bypass_write(struct bypass *bypass, struct object *obj, uint32_t block, const void *data,
		 void (*done)(void *arg, int ret), void *arg)
{
	struct bypass_write *w = calloc(1, sizeof(*w));

	/* For direct I/O, where the file system has it. */
	if (!w || posix_memalign(&w->data, 4096, QC2_BLOCK_BYTES)) {
		free(w);
		return -ENOMEM;
	}
	memcpy(w->data, data, QC2_BLOCK_BYTES);
	w->job.run = write_run;
	w->job.done = write_done;
	w->bypass = bypass;
	w->obj = object_ref(obj);
	w->block = block;
	w->done = done;
	w->arg = arg;
	STAILQ_INSERT_TAIL(&bypass->waiting, w, entry);
	bypass->nr_waiting++;
	start_writes(bypass);
	return 0;
}

bool bypass_is_busy(const struct bypass *bypass)
{
	return bypass->nr_waiting >= MAX_WAITING;
}

static struct bypass *of_job(struct job *job)
{
	return (struct bypass *)((char *)job - offsetof(struct bypass, forget_job));
}

static void forget_run(struct job *job)
{
	struct bypass *bypass = of_job(job);
	uint64_t nr = bypass->dying - bypass->tail, first = bypass->tail % NR_SLOTS;
	bool all = first + nr > NR_SLOTS;	/* around the end of the ring */
	struct qc2_range range = {
		.sector = all ? 0 : first * QC2_BLOCK_SECTORS,
		.nr_sectors = (all ? NR_SLOTS : nr) * QC2_BLOCK_SECTORS,
	};

	/* tail and dying do not change while this runs */
	bypass->forget_ret = forget_store(BYPASS_STORE, &range, 1, &bypass->forget_err);
}

static void forget_done(struct job *job)
{
	struct bypass *bypass = of_job(job);

	bypass->forgetting = false;
	if (bypass->forget_ret) {
		if (log_allowed(&bypass->limit))
			log_err("bypass %s: the kernel does not forget old blocks: %s",
				bypass->device, bypass->forget_err.msg);
		sd_event_source_set_time_relative(bypass->retry_timer, RETRY_US);
		sd_event_source_set_enabled(bypass->retry_timer, SD_EVENT_ONESHOT);
		return;
	}
	bypass->tail = bypass->dying;
	start_writes(bypass);
}

static int on_retry(sd_event_source *source, uint64_t usec, void *arg)
{
	struct bypass *bypass = arg;

	if (bypass->dying != bypass->tail && !bypass->forgetting)
		submit_forget(bypass);
	return 0;
}

int bypass_open(struct bypass **out, sd_event *event, const char *path, struct qc2_err *err)
{
	struct bypass *bypass = calloc(1, sizeof(*bypass));
	uint64_t size = 0;
	struct stat st;
	int ret;

	if (!bypass)
		return qc2_fail(err, ENOMEM, "bypass: out of memory");
	STAILQ_INIT(&bypass->waiting);
	bypass->forget_job.run = forget_run;
	bypass->forget_job.done = forget_done;
	bypass->fd = cache_dev_open(path, (uint64_t)NR_SLOTS * QC2_BLOCK_BYTES,
				    &bypass->device, &size, err);
	ret = bypass->fd < 0 ? bypass->fd : 0;
	if (!ret && (fstat(bypass->fd, &st) || size < (uint64_t)NR_SLOTS * QC2_BLOCK_BYTES))
		ret = qc2_fail(err, EIO, "bypass %s: %s is too small", path, bypass->device);
	if (!ret) {
		bypass->dev = st.st_rdev;
		ret = pool_new(&bypass->pool, event, 2);
		if (ret >= 0)
			ret = sd_event_add_time_relative(event, &bypass->retry_timer,
							 CLOCK_MONOTONIC, RETRY_US, 0,
							 on_retry, bypass);
		if (ret >= 0)
			ret = sd_event_source_set_enabled(bypass->retry_timer, SD_EVENT_OFF);
		if (ret < 0)
			qc2_fail(err, -ret, "bypass: %s", strerror(-ret));
	}
	if (ret < 0) {
		bypass_close(bypass);
		return ret;
	}
	/* What an earlier daemon left in kernels is not known. */
	bypass->head = NR_SLOTS;
	bypass->dying = NR_SLOTS;
	submit_forget(bypass);
	*out = bypass;
	return 0;
}

void bypass_close(struct bypass *bypass)
{
	uint32_t i;

	if (!bypass)
		return;
	pool_free(bypass->pool);
	for (i = 0; i < NR_SLOTS; i++)
		bypass_drop(bypass, i);
	sd_event_source_disable_unref(bypass->retry_timer);
	if (bypass->fd >= 0)
		close(bypass->fd);
	free(bypass->device);
	free(bypass);
}

dev_t bypass_dev(const struct bypass *bypass)
{
	return bypass->dev;
}

const char *bypass_device(const struct bypass *bypass)
{
	return bypass->device;
}

void bypass_get_stats(const struct bypass *bypass, uint64_t *writes, unsigned int *used)
{
	*writes = bypass->writes;
	*used = bypass->used;
}
