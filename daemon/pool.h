/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pool: worker threads that make every blocking call, so that the loop makes none. The one door to threads.
 *
 * A job is a struct that begins with struct job. Whoever submits it fills the in-part and lets go; run() on a
 * worker reads the in-part and writes the out-part; done() on the loop's thread reads the out-part and owns
 * the job again. Handing over is the only synchronisation: neither side looks at a job that the other holds.
 *
 *     submit (any thread)  ->  run (a worker)  ->  done (the loop)
 *
 * Jobs belong to a queue, one for each request, and queues to a user. Users take turns, and at each the next
 * of the user's queues: neither a request with ten thousand jobs nor a user with a thousand requests keeps
 * one with a single job waiting. A run() that has worked for a while and finds pool_others_wait() returns
 * JOB_AGAIN and goes to the end of its queue's turn. Since no job can be made to stop, one that hangs in a
 * client's file system, say, a user has jobs on so many workers at a time and no more.
 *
 * done() calls run in slices, and users take turns there, too: after a quarter of a millisecond the loop is
 * let at its other events.
 *
 * A pool of one worker is a lane: its jobs run one at a time, in the order submitted within a queue.
 */
#ifndef DIRCACHE_DAEMON_POOL_H
#define DIRCACHE_DAEMON_POOL_H

#include <stdbool.h>
#include <stddef.h>

#include "common/auto.h"
#include "common/list.h"

struct event_base;
struct pool;
struct pool_user;
struct pool_queue;
struct job;

enum job_next { JOB_DONE, JOB_AGAIN };

struct job {
	enum job_next (*run)(struct job *job); /* on a worker */
	void (*done)(struct job *job);         /* on the loop; may free the job */
	struct pool_queue *queue;              /* private from here on */
	struct list link;
};

/**
 * Start workers.
 *
 * @base       borrowed: its loop's thread calls done()
 * @n_workers  at least 1
 * @name       of the threads, for ps(1): at most 15 bytes
 *
 * All signals are blocked in workers. Return: a pool; NULL with errno set when threads cannot be made.
 */
struct pool *pool_new(struct event_base *base, size_t n_workers, const char *name);

/**
 * Stop when every job submitted has run and its done() was called; both may submit more meanwhile. NULL is
 * fine.
 *
 * Loop only, and not from a done(): it calls those that are left itself.
 */
void pool_free(struct pool *pool);
DEFINE_AUTO(pool);

size_t pool_n_workers(const struct pool *pool);

/* Jobs that were submitted and whose done() has not returned. Loop only. */
size_t pool_n_jobs(const struct pool *pool);

/**
 * One whose queues share a turn. Loop only.
 *
 * @most  workers that run its jobs at a time; 0: all
 *
 * It is there until it was put, and its last queue is freed.
 */
struct pool_user *pool_user_new(struct pool *pool, size_t most);
void pool_user_put(struct pool_user *user);

/* A queue of jobs that takes its turn with the others, those of a user or the pool's own. Loop only; free it
 * when none of its jobs is left. */
struct pool_queue *pool_queue_new_of(struct pool_user *user);
struct pool_queue *pool_queue_new(struct pool *pool);
void pool_queue_free(struct pool_queue *queue);
DEFINE_AUTO(pool_queue);

/* Hand a job over. Any thread. */
void pool_submit(struct pool_queue *queue, struct job *job);

/* Is a job of another queue waiting for a worker? Workers ask; an approximate answer without a lock. */
bool pool_others_wait(const struct pool_queue *queue);

#endif
