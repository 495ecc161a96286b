/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Thread pool.  The lock protects the two queues and "stop"; an eventfd wakes
 * the main loop when the queue of finished jobs becomes non-empty.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "pool.h"

STAILQ_HEAD(job_queue, job);

struct pool {
	pthread_mutex_t lock;
	pthread_cond_t work;
	struct job_queue todo, finished;
	bool stop;
	int fd;
	sd_event_source *source;
	unsigned int nr_threads;
	pthread_t threads[];
};

static void *pool_thread(void *arg)
{
	struct pool *pool = arg;
	uint64_t one = 1;

	pthread_mutex_lock(&pool->lock);
	for (;;) {
		struct job *job = STAILQ_FIRST(&pool->todo);

		if (pool->stop)
			break;
		if (!job) {
			pthread_cond_wait(&pool->work, &pool->lock);
			continue;
		}
		STAILQ_REMOVE_HEAD(&pool->todo, entry);
		pthread_mutex_unlock(&pool->lock);
		job->run(job);
		pthread_mutex_lock(&pool->lock);
		if (STAILQ_EMPTY(&pool->finished) &&
		    write(pool->fd, &one, sizeof(one)) < 0)
			abort();	/* cannot happen: the counter is small */
		STAILQ_INSERT_TAIL(&pool->finished, job, entry);
	}
	pthread_mutex_unlock(&pool->lock);
	return NULL;
}

static int on_finished(sd_event_source *source, int fd, uint32_t revents,
		       void *arg)
{
	struct job_queue finished = STAILQ_HEAD_INITIALIZER(finished);
	struct pool *pool = arg;
	struct job *job;
	uint64_t count;

	/* Reset before the queue is taken, so that no wake-up is lost. */
	if (read(fd, &count, sizeof(count)) < 0 && errno != EAGAIN)
		return -errno;
	pthread_mutex_lock(&pool->lock);
	STAILQ_CONCAT(&finished, &pool->finished);
	pthread_mutex_unlock(&pool->lock);
	while ((job = STAILQ_FIRST(&finished))) {
		STAILQ_REMOVE_HEAD(&finished, entry);
		job->done(job);
	}
	return 0;
}

int pool_new(struct pool **out, sd_event *event, unsigned int nr_threads)
{
	struct pool *pool;
	sigset_t all, old;
	int ret;

	pool = calloc(1, sizeof(*pool) + nr_threads * sizeof(pthread_t));
	if (!pool)
		return -ENOMEM;
	pthread_mutex_init(&pool->lock, NULL);
	pthread_cond_init(&pool->work, NULL);
	STAILQ_INIT(&pool->todo);
	STAILQ_INIT(&pool->finished);
	pool->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (pool->fd < 0) {
		ret = -errno;
		goto fail;
	}
	ret = sd_event_add_io(event, &pool->source, pool->fd, EPOLLIN,
			      on_finished, pool);
	if (ret < 0)
		goto fail;
	/* Signals are for the main thread. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	while (pool->nr_threads < nr_threads) {
		ret = -pthread_create(&pool->threads[pool->nr_threads], NULL,
				      pool_thread, pool);
		if (ret)
			break;
		pool->nr_threads++;
	}
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (ret)
		goto fail;
	*out = pool;
	return 0;
fail:
	pool_free(pool);
	return ret;
}

void pool_submit(struct pool *pool, struct job *job)
{
	pthread_mutex_lock(&pool->lock);
	STAILQ_INSERT_TAIL(&pool->todo, job, entry);
	pthread_cond_signal(&pool->work);
	pthread_mutex_unlock(&pool->lock);
}

bool pool_cancel(struct pool *pool, struct job *job)
{
	struct job *todo;

	pthread_mutex_lock(&pool->lock);
	STAILQ_FOREACH(todo, &pool->todo, entry) {
		if (todo == job)
			break;
	}
	if (todo)
		STAILQ_REMOVE(&pool->todo, job, job, entry);
	pthread_mutex_unlock(&pool->lock);
	return todo;
}

void pool_free(struct pool *pool)
{
	unsigned int i;

	if (!pool)
		return;
	pthread_mutex_lock(&pool->lock);
	pool->stop = true;
	pthread_cond_broadcast(&pool->work);
	pthread_mutex_unlock(&pool->lock);
	for (i = 0; i < pool->nr_threads; i++)
		pthread_join(pool->threads[i], NULL);
	sd_event_source_disable_unref(pool->source);
	if (pool->fd >= 0)
		close(pool->fd);
	pthread_cond_destroy(&pool->work);
	pthread_mutex_destroy(&pool->lock);
	free(pool);
}
