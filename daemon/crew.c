/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/crew.h"

#include <assert.h>

#include "daemon/slice.h"

enum { TURN_NS = 2000000 }; /* how long a worker stays with one request while others wait */

static void lock(struct crew *crew)
{
	int r = pthread_mutex_lock(&crew->lock);

	assert(r == 0);
}

static void unlock(struct crew *crew)
{
	int r = pthread_mutex_unlock(&crew->lock);

	assert(r == 0);
}

static void push(struct crew_item **stack, struct crew_item *item)
{
	item->next = *stack;
	*stack = item;
}

/* Locked. A share that the pool may have, or NULL when enough are at work. */
static struct crew_share *recruit(struct crew *crew)
{
	if (crew->n_active >= crew->max || crew->finishing)
		return NULL;
	for (size_t i = 0; i < crew->max; i++) {
		struct crew_share *share = &crew->shares[i];

		if (!share->active) {
			share->active = true;
			crew->n_active++;
			return share;
		}
	}
	return NULL;
}

static void submit(struct crew *crew, struct crew_share *share)
{
	if (share)
		pool_submit(crew->queue, &share->job);
}

void crew_add(struct crew *crew, struct crew_item *item)
{
	struct crew_share *share = NULL;

	lock(crew);
	push(&crew->stack, item);
	crew->n_items++;
	crew->waiting_weight += item->weight;
	if (crew->waiting_weight >= CREW_WEIGHT * crew->n_active)
		share = recruit(crew);
	unlock(crew);
	submit(crew, share);
}

void crew_stall(struct crew *crew, struct crew_item *item)
{
	lock(crew);
	push(&crew->stalls, item);
	crew->n_items++; /* work() returns and takes one off, but this one is not done */
	unlock(crew);
}

void crew_resume(struct crew *crew, struct crew_item *item)
{
	struct crew_share *share;

	lock(crew);
	push(&crew->stack, item);
	crew->waiting_weight += item->weight;
	share = recruit(crew);
	unlock(crew);
	submit(crew, share);
}

/* Locked; unlocked while the item is worked on. */
static void work_on_top(struct crew *crew)
{
	struct crew_item *item = crew->stack;

	crew->stack = item->next;
	crew->waiting_weight -= item->weight;
	unlock(crew);
	crew->work(crew, item);
	lock(crew);
	assert(crew->n_items);
	crew->n_items--;
}

static void finish(struct crew *crew)
{
	lock(crew);
	if (crew->n_items || crew->finishing) {
		unlock(crew);
		return;
	}
	crew->finishing = true;
	unlock(crew);
	crew->finish(crew);
	lock(crew);
	crew->finished = true;
	unlock(crew);
}

static enum job_next share_run(struct job *job)
{
	struct crew_share *share = CONTAINER_OF(job, struct crew_share, job);
	struct crew *crew = share->crew;
	uint64_t end = slice_now_ns() + TURN_NS;

	lock(crew);
	while (crew->stack) {
		work_on_top(crew);
		if (pool_others_wait(crew->queue) && slice_now_ns() >= end && crew->stack) {
			unlock(crew);
			return JOB_AGAIN;
		}
	}
	unlock(crew);
	finish(crew);
	return JOB_DONE;
}

static void share_done(struct job *job)
{
	struct crew_share *share = CONTAINER_OF(job, struct crew_share, job);
	struct crew *crew = share->crew;
	struct crew_item *stalls, *item;
	struct crew_share *again = NULL;
	bool is_over;

	lock(crew);
	share->active = false;
	crew->n_active--;
	stalls = crew->stalls;
	crew->stalls = NULL;
	if (crew->stack) /* came while this share was on its way here */
		again = recruit(crew);
	is_over = crew->finished && crew->n_active == 0;
	unlock(crew);
	submit(crew, again);
	while ((item = stalls)) {
		stalls = item->next;
		crew->stalled(crew, item);
	}
	if (is_over) {
		(void)pthread_mutex_destroy(&crew->lock);
		crew->done(crew);
	}
}

void crew_start(struct crew *crew, struct crew_item *first)
{
	int r = pthread_mutex_init(&crew->lock, NULL);

	assert(r == 0);
	assert(crew->max >= 1 && crew->max <= CREW_MAX);
	for (size_t i = 0; i < crew->max; i++)
		crew->shares[i] =
			(struct crew_share){ .job = { .run = share_run, .done = share_done }, .crew = crew };
	crew->n_items = 1;
	crew_resume(crew, first);
}
