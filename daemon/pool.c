/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/pool.h"

#include <assert.h>
#include <errno.h>
#include <event2/event.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "common/alloc.h"
#include "daemon/identity.h"
#include "daemon/lap.h"

enum { DONE_SLICE_NS = 250 * 1000 };

struct pool_queue {
	struct pool *pool;
	struct list jobs; /* under pool->lock */
	struct list link; /* in pool->ready while there are jobs; under pool->lock */
	atomic_bool is_ready;
};

struct pool {
	pthread_mutex_t lock;
	pthread_cond_t wake;   /* something is ready, or the pool ends */
	struct list ready;     /* queues with jobs, the next to have its turn first; under lock */
	bool is_ending;        /* under lock */
	atomic_size_t n_ready; /* queues in it: written under lock, read without */

	pthread_mutex_t finished_lock; /* its own, so that finishing does not stand in the way of starting */
	struct list finished;          /* jobs that ran */
	int finished_fd;               /* eventfd: readable when finished got its first job */

	/* The loop's. */
	struct event *finished_event;
	struct list to_do; /* jobs taken from finished, whose done() is due */

	atomic_size_t n_jobs;
	size_t n_workers; /* that run */
	pthread_t workers[];
};

static void lock(pthread_mutex_t *mutex)
{
	int r = pthread_mutex_lock(mutex);

	assert(r == 0);
}

static void unlock(pthread_mutex_t *mutex)
{
	int r = pthread_mutex_unlock(mutex);

	assert(r == 0);
}

/* Under pool->lock. */
static void put_job(struct pool *pool, struct job *job)
{
	struct pool_queue *queue = job->queue;

	if (list_is_empty(&queue->jobs)) {
		list_append(&pool->ready, &queue->link);
		atomic_store_explicit(&queue->is_ready, true, memory_order_relaxed);
		atomic_fetch_add_explicit(&pool->n_ready, 1, memory_order_relaxed);
	}
	list_append(&queue->jobs, &job->link);
}

/* The next job of the queue whose turn it is, which then waits for its next turn; or NULL. Under pool->lock.
 */
static struct job *take_job(struct pool *pool)
{
	struct list *turn = list_pop(&pool->ready);
	struct pool_queue *queue;
	struct job *job;

	if (!turn)
		return NULL;
	queue = LIST_ENTRY(turn, struct pool_queue, link);
	job = LIST_ENTRY(list_pop(&queue->jobs), struct job, link);
	if (!list_is_empty(&queue->jobs)) {
		list_append(&pool->ready, &queue->link);
	} else {
		atomic_store_explicit(&queue->is_ready, false, memory_order_relaxed);
		atomic_fetch_sub_explicit(&pool->n_ready, 1, memory_order_relaxed);
	}
	return job;
}

static void kick(struct pool *pool)
{
	const uint64_t one = 1;
	ssize_t n;

	do
		n = write(pool->finished_fd, &one, sizeof(one));
	while (n < 0 && errno == EINTR);
	assert(n == sizeof(one));
}

/* Hand a job to the loop. Neither it nor its queue is ours afterwards. */
static void finish_job(struct pool *pool, struct job *job)
{
	bool is_first;

	lock(&pool->finished_lock);
	is_first = list_is_empty(&pool->finished);
	list_append(&pool->finished, &job->link);
	unlock(&pool->finished_lock);
	if (is_first)
		kick(pool);
}

static void *work(void *ctx)
{
	struct pool *pool = ctx;
	enum job_next next;
	struct job *job;

	lock(&pool->lock);
	for (;;) {
		while (!(job = take_job(pool)) && !pool->is_ending)
			pthread_cond_wait(&pool->wake, &pool->lock);
		if (!job)
			break;
		unlock(&pool->lock);
		next = job->run(job);
		identity_drop(); /* as whom this job acted is not for the next */
		if (next == JOB_DONE) {
			finish_job(pool, job);
			job = NULL;
		}
		lock(&pool->lock);
		if (job)
			put_job(pool, job); /* wakes nobody: this worker looks next */
	}
	unlock(&pool->lock);
	return NULL;
}

/* Append all of a list to another. */
static void move_all(struct list *from, struct list *to)
{
	if (list_is_empty(from))
		return;
	from->next->prev = to->prev;
	to->prev->next = from->next;
	from->prev->next = to;
	to->prev = from->prev;
	list_init(from);
}

/* Take over what finished since the last look. */
static void collect_finished(struct pool *pool)
{
	uint64_t count;

	/* Before the look: a job that finishes after it finds an empty list and makes this readable again. */
	(void)!read(pool->finished_fd, &count, sizeof(count));
	lock(&pool->finished_lock);
	move_all(&pool->finished, &pool->to_do);
	unlock(&pool->finished_lock);
}

static void on_finished(evutil_socket_t fd, short what, void *ctx)
{
	struct pool *pool = ctx;
	struct lap lap = lap_begin();
	struct list *l;

	(void)fd;
	(void)what;
	collect_finished(pool);
	while ((l = list_pop(&pool->to_do))) {
		struct job *job = LIST_ENTRY(l, struct job, link);

		job->done(job);
		atomic_fetch_sub_explicit(&pool->n_jobs, 1, memory_order_relaxed);
		if (lap_now_ns() >= lap.began_ns + DONE_SLICE_NS)
			break;
	}
	/* Not event_active(), which would have us run again before the loop looks at its other events. */
	if (!list_is_empty(&pool->to_do))
		kick(pool);
	lap_end(&lap);
}

/* Start what workers can be; all signals are blocked in them. Return: 0, or a negative errno. */
static int start_workers(struct pool *pool, size_t n_workers, const char *name)
{
	sigset_t all, before;
	int r = 0;

	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &before);
	while (r == 0 && pool->n_workers < n_workers) {
		r = pthread_create(&pool->workers[pool->n_workers], NULL, work, pool);
		if (r == 0)
			(void)pthread_setname_np(pool->workers[pool->n_workers++], name);
	}
	(void)pthread_sigmask(SIG_SETMASK, &before, NULL);
	return -r;
}

static int watch_finished(struct pool *pool, struct event_base *base)
{
	pool->finished_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (pool->finished_fd < 0)
		return -errno;
	pool->finished_event = event_new(base, pool->finished_fd, EV_READ | EV_PERSIST, on_finished, pool);
	if (!pool->finished_event || event_add(pool->finished_event, NULL) < 0)
		return -ENOMEM;
	return 0;
}

struct pool *pool_new(struct event_base *base, size_t n_workers, const char *name)
{
	struct pool *pool = xcalloc(1, sizeof(*pool) + n_workers * sizeof(pool->workers[0]));
	int r;

	assert(n_workers > 0 && strlen(name) <= 15);
	(void)pthread_mutex_init(&pool->lock, NULL);
	(void)pthread_mutex_init(&pool->finished_lock, NULL);
	(void)pthread_cond_init(&pool->wake, NULL);
	list_init(&pool->ready);
	list_init(&pool->finished);
	list_init(&pool->to_do);
	pool->finished_fd = -1;
	r = watch_finished(pool, base);
	if (r == 0)
		r = start_workers(pool, n_workers, name);
	if (r == 0)
		return pool;
	pool_free(pool);
	errno = -r;
	return NULL;
}

/* Run what is left, and its done() here, since the loop does not run any more. */
static void drain(struct pool *pool)
{
	while (pool_n_jobs(pool) > 0) {
		struct pollfd finished = { .fd = pool->finished_fd, .events = POLLIN };

		(void)poll(&finished, 1, -1);
		on_finished(pool->finished_fd, EV_READ, pool);
	}
}

void pool_free(struct pool *pool)
{
	if (!pool)
		return;
	drain(pool);
	lock(&pool->lock);
	assert(list_is_empty(&pool->ready));
	pool->is_ending = true;
	unlock(&pool->lock);
	(void)pthread_cond_broadcast(&pool->wake);
	for (size_t i = 0; i < pool->n_workers; i++)
		(void)pthread_join(pool->workers[i], NULL);
	if (pool->finished_event)
		event_free(pool->finished_event);
	if (pool->finished_fd >= 0)
		(void)close(pool->finished_fd);
	(void)pthread_cond_destroy(&pool->wake);
	(void)pthread_mutex_destroy(&pool->finished_lock);
	(void)pthread_mutex_destroy(&pool->lock);
	free(pool);
}

size_t pool_n_workers(const struct pool *pool)
{
	return pool->n_workers;
}

size_t pool_n_jobs(const struct pool *pool)
{
	return atomic_load_explicit(&pool->n_jobs, memory_order_relaxed);
}

struct pool_queue *pool_queue_new(struct pool *pool)
{
	struct pool_queue *queue = xcalloc(1, sizeof(*queue));

	queue->pool = pool;
	list_init(&queue->jobs);
	list_init(&queue->link);
	return queue;
}

void pool_queue_free(struct pool_queue *queue)
{
	if (!queue)
		return;
	assert(list_is_empty(&queue->jobs) && list_is_empty(&queue->link));
	free(queue);
}

void pool_submit(struct pool_queue *queue, struct job *job)
{
	struct pool *pool = queue->pool;

	job->queue = queue;
	atomic_fetch_add_explicit(&pool->n_jobs, 1, memory_order_relaxed);
	lock(&pool->lock);
	put_job(pool, job);
	unlock(&pool->lock);
	/* One, and without the lock that it needs at once. The system is asked only if somebody sleeps. */
	(void)pthread_cond_signal(&pool->wake);
}

bool pool_others_wait(const struct pool_queue *queue)
{
	size_t n_ready = atomic_load_explicit(&queue->pool->n_ready, memory_order_relaxed);

	return n_ready > (atomic_load_explicit(&queue->is_ready, memory_order_relaxed) ? 1 : 0);
}
