/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A pool of threads for work that blocks: opening chains, writing the cache,
 * reading files, asking the kernel to forget.  A job's run() is called in a
 * thread of the pool and must touch nothing but what the job owns or what is
 * immutable; its done() is called in the main thread afterwards.
 */
#ifndef CHAIND_POOL_H
#define CHAIND_POOL_H

#include <stdbool.h>
#include <sys/queue.h>

#include <systemd/sd-event.h>

struct pool;

struct job {
	void (*run)(struct job *job);
	void (*done)(struct job *job);
	STAILQ_ENTRY(job) entry;
};

/* Return: 0 or a negative errno. */
int pool_new(struct pool **pool, sd_event *event, unsigned int nr_threads);

/* Main thread only; the caller keeps @job until its done() is called. */
void pool_submit(struct pool *pool, struct job *job);

/* Likewise.  Takes back a job; false: it runs or ran, done() will be called. */
bool pool_cancel(struct pool *pool, struct job *job);

/*
 * For the end of the program: waits for the jobs that are running.  No further
 * job is started, no done() is called.
 */
void pool_free(struct pool *pool);

#endif
