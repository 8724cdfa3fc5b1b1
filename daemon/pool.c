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
#include "daemon/turns.h"

enum { DONE_SLICE_NS = 250 * 1000 };

struct pool_user {
	struct pool *pool;
	size_t refs;              /* the loop's */
	struct taker ready;       /* queues with jobs; held while as many run as may; under pool->lock */
	size_t n_running, n_most; /* workers; under pool->lock */
	struct taker to_do;       /* the loop's: jobs whose done() is due */
};

struct pool_queue {
	struct pool_user *user;
	struct list jobs; /* under pool->lock */
	struct list link; /* in user->ready while there are jobs; under pool->lock */
	atomic_bool is_ready;
};

struct pool {
	pthread_mutex_t lock;
	pthread_cond_t wake;   /* something is ready, or the pool ends */
	struct turns ready;    /* of users with queues that have jobs; under lock */
	bool is_ending;        /* under lock */
	atomic_size_t n_ready; /* queues with jobs: written under lock, read without */

	pthread_mutex_t finished_lock; /* its own, so that finishing does not stand in the way of starting */
	struct list finished;          /* jobs that ran */
	int finished_fd;               /* eventfd: readable when finished got its first job */

	/* The loop's. */
	struct event *finished_event;
	struct turns to_do;    /* of users with jobs taken from finished */
	struct pool_user *own; /* what is no user's; its queues may be freed after the pool */

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
		turns_wait(&pool->ready, &queue->user->ready, &queue->link);
		atomic_store_explicit(&queue->is_ready, true, memory_order_relaxed);
		atomic_fetch_add_explicit(&pool->n_ready, 1, memory_order_relaxed);
	}
	list_append(&queue->jobs, &job->link);
}

/* One of this user's jobs more is run, or less. Under pool->lock. */
static void enter(struct pool_user *user)
{
	if (++user->n_running == user->n_most)
		taker_hold(&user->ready);
}

static void leave(struct pool_user *user)
{
	if (user->n_running-- == user->n_most)
		taker_release(&user->pool->ready, &user->ready);
}

/* The next job of the queue whose turn it is, which then waits for its next turn; or NULL. Under pool->lock.
 */
static struct job *take_job(struct pool *pool)
{
	struct list *turn = turns_next(&pool->ready);
	struct pool_queue *queue;
	struct job *job;

	if (!turn)
		return NULL;
	queue = LIST_ENTRY(turn, struct pool_queue, link);
	job = LIST_ENTRY(list_pop(&queue->jobs), struct job, link);
	if (!list_is_empty(&queue->jobs)) {
		turns_wait(&pool->ready, &queue->user->ready, &queue->link);
	} else {
		atomic_store_explicit(&queue->is_ready, false, memory_order_relaxed);
		atomic_fetch_sub_explicit(&pool->n_ready, 1, memory_order_relaxed);
	}
	enter(queue->user);
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
		lock(&pool->lock);
		leave(job->queue->user); /* what may run now wakes nobody: this worker looks next */
		if (next == JOB_AGAIN) {
			put_job(pool, job);
			continue;
		}
		unlock(&pool->lock);
		finish_job(pool, job);
		lock(&pool->lock);
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
	struct list finished, *l;
	uint64_t count;

	/* Before the look: a job that finishes after it finds an empty list and makes this readable again. */
	(void)!read(pool->finished_fd, &count, sizeof(count));
	lock(&pool->finished_lock);
	list_init(&finished);
	move_all(&pool->finished, &finished);
	unlock(&pool->finished_lock);
	while ((l = list_pop(&finished)))
		turns_wait(&pool->to_do, &LIST_ENTRY(l, struct job, link)->queue->user->to_do, l);
}

static void on_finished(evutil_socket_t fd, short what, void *ctx)
{
	struct pool *pool = ctx;
	struct lap lap = lap_begin();
	struct list *l;

	(void)fd;
	(void)what;
	collect_finished(pool);
	while ((l = turns_next(&pool->to_do))) {
		struct job *job = LIST_ENTRY(l, struct job, link);

		job->done(job);
		atomic_fetch_sub_explicit(&pool->n_jobs, 1, memory_order_relaxed);
		if (lap_now_ns() >= lap.began_ns + DONE_SLICE_NS)
			break;
	}
	/* Not event_active(), which would have us run again before the loop looks at its other events. */
	if (!turns_are_over(&pool->to_do))
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
	turns_init(&pool->ready);
	list_init(&pool->finished);
	turns_init(&pool->to_do);
	pool->own = pool_user_new(pool, 0);
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
	assert(turns_are_over(&pool->ready));
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
	pool_user_put(pool->own);
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

struct pool_user *pool_user_new(struct pool *pool, size_t most)
{
	struct pool_user *user = xcalloc(1, sizeof(*user));

	user->pool = pool;
	user->refs = 1;
	user->n_most = most;
	taker_init(&user->ready);
	taker_init(&user->to_do);
	return user;
}

void pool_user_put(struct pool_user *user)
{
	if (--user->refs)
		return;
	assert(!taker_waits(&user->ready) && !taker_waits(&user->to_do));
	free(user);
}

struct pool_queue *pool_queue_new_of(struct pool_user *user)
{
	struct pool_queue *queue = xcalloc(1, sizeof(*queue));

	queue->user = user;
	user->refs++;
	list_init(&queue->jobs);
	list_init(&queue->link);
	return queue;
}

struct pool_queue *pool_queue_new(struct pool *pool)
{
	return pool_queue_new_of(pool->own);
}

void pool_queue_free(struct pool_queue *queue)
{
	if (!queue)
		return;
	assert(list_is_empty(&queue->jobs) && list_is_empty(&queue->link));
	pool_user_put(queue->user);
	free(queue);
}

void pool_submit(struct pool_queue *queue, struct job *job)
{
	struct pool *pool = queue->user->pool;

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
	size_t n_ready = atomic_load_explicit(&queue->user->pool->n_ready, memory_order_relaxed);

	return n_ready > (atomic_load_explicit(&queue->is_ready, memory_order_relaxed) ? 1 : 0);
}
