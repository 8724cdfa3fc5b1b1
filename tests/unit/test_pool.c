/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/pool.h"

#include <event2/event.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

#include "tests/unit/unit.h"

static struct event_base *base;
static size_t n_done;

/* A job that says in which place, of all jobs in this test, it ran and was done. */
struct step {
	struct job job; /* first */
	atomic_size_t *order;
	size_t ran_as, done_as;
	pthread_t ran_on;
	unsigned again; /* so many times */
};

static enum job_next run_step(struct job *job)
{
	struct step *step = (struct step *)job;

	if (step->again > 0) {
		step->again--;
		return JOB_AGAIN;
	}
	step->ran_on = pthread_self();
	step->ran_as = atomic_fetch_add(step->order, 1);
	return JOB_DONE;
}

static void on_step_done(struct job *job)
{
	((struct step *)job)->done_as = n_done++;
}

static void submit_steps(struct pool_queue *queue, struct step *steps, size_t n, atomic_size_t *order)
{
	for (size_t i = 0; i < n; i++) {
		steps[i] = (struct step){ .job = { .run = run_step, .done = on_step_done }, .order = order };
		pool_submit(queue, &steps[i].job);
	}
}

static void loop_until_done(size_t n)
{
	while (n_done < n)
		ck_assert_int_eq(event_base_loop(base, EVLOOP_ONCE), 0);
}

/* A job that keeps a worker until it is told to go on. */
struct gate {
	struct job job; /* first */
	atomic_bool is_reached, is_open;
};

static enum job_next run_gate(struct job *job)
{
	struct gate *gate = (struct gate *)job;

	atomic_store(&gate->is_reached, true);
	while (!atomic_load(&gate->is_open))
		(void)nanosleep(&(struct timespec){ .tv_nsec = 100000 }, NULL);
	return JOB_DONE;
}

static void on_gate_done(struct job *job)
{
	(void)job;
	n_done++;
}

static void close_gate(struct gate *gate, struct pool_queue *queue)
{
	*gate = (struct gate){ .job = { .run = run_gate, .done = on_gate_done } };
	pool_submit(queue, &gate->job);
	while (!atomic_load(&gate->is_reached))
		(void)nanosleep(&(struct timespec){ .tv_nsec = 100000 }, NULL);
}

static void open_gate(struct gate *gate)
{
	atomic_store(&gate->is_open, true);
}

static struct pool *start(size_t n_workers)
{
	struct pool *pool;

	base = event_base_new();
	ck_assert_ptr_nonnull(base);
	pool = pool_new(base, n_workers, "test");
	ck_assert_ptr_nonnull(pool);
	ck_assert_uint_eq(pool_n_workers(pool), n_workers);
	return pool;
}

static void stop(struct pool *pool)
{
	pool_free(pool);
	event_base_free(base);
}

START_TEST(every_job_runs_once_on_a_worker_and_is_done_on_the_loop)
{
	enum { N = 10000 };
	static struct step steps[N];
	static bool seen[N];
	struct pool *pool = start(4);
	struct pool_queue *queue = pool_queue_new(pool);
	atomic_size_t order = 0;

	submit_steps(queue, steps, N, &order);
	loop_until_done(N);
	for (size_t i = 0; i < N; i++) {
		ck_assert_uint_lt(steps[i].ran_as, N);
		ck_assert(!seen[steps[i].ran_as]);
		seen[steps[i].ran_as] = true;
		ck_assert(!pthread_equal(steps[i].ran_on, pthread_self()));
	}
	ck_assert_uint_eq(pool_n_jobs(pool), 0);
	pool_queue_free(queue);
	stop(pool);
}
END_TEST

START_TEST(a_lane_runs_and_is_done_in_the_order_submitted)
{
	enum { N = 5000 };
	static struct step steps[N];
	struct pool *pool = start(1);
	struct pool_queue *queue = pool_queue_new(pool);
	atomic_size_t order = 0;

	submit_steps(queue, steps, N, &order);
	loop_until_done(N);
	for (size_t i = 0; i < N; i++) {
		ck_assert_uint_eq(steps[i].ran_as, i);
		ck_assert_uint_eq(steps[i].done_as, i);
	}
	pool_queue_free(queue);
	stop(pool);
}
END_TEST

START_TEST(ten_thousand_jobs_do_not_keep_one_of_another_queue_waiting)
{
	enum { N = 10000 };
	static struct step many[N], one[1];
	struct pool *pool = start(1);
	struct pool_queue *big = pool_queue_new(pool), *small = pool_queue_new(pool);
	atomic_size_t order = 0;
	struct gate gate;

	close_gate(&gate, big);
	submit_steps(big, many, N, &order);
	submit_steps(small, one, 1, &order);
	open_gate(&gate);
	loop_until_done(N + 2);
	ck_assert_uint_le(one[0].ran_as, 1);
	pool_queue_free(big);
	pool_queue_free(small);
	stop(pool);
}
END_TEST

START_TEST(queues_take_turns)
{
	enum { N = 300 };
	static struct step steps[3][N];
	struct pool *pool = start(1);
	struct pool_queue *queues[3];
	atomic_size_t order = 0;
	struct gate gate;

	for (int i = 0; i < 3; i++)
		queues[i] = pool_queue_new(pool);
	close_gate(&gate, queues[0]);
	for (int i = 0; i < 3; i++)
		submit_steps(queues[i], steps[i], N, &order);
	open_gate(&gate);
	loop_until_done(3 * N + 1);
	for (size_t turn = 0; turn < N; turn++)
		for (int i = 0; i < 3; i++)
			ck_assert_uint_eq(steps[i][turn].ran_as / 3, turn);
	for (int i = 0; i < 3; i++)
		pool_queue_free(queues[i]);
	stop(pool);
}
END_TEST

START_TEST(users_take_turns_however_many_queues_they_have)
{
	enum { N = 300 };
	static struct step many[N][1], one[N];
	struct pool *pool = start(1);
	struct pool_user *users[2];
	struct pool_queue *queues[N], *queue;
	atomic_size_t order = 0;
	struct gate gate;

	for (int i = 0; i < 2; i++)
		users[i] = pool_user_new(pool, 0);
	queue = pool_queue_new_of(users[1]);
	close_gate(&gate, queue);
	for (int i = 0; i < N; i++) {
		queues[i] = pool_queue_new_of(users[0]);
		submit_steps(queues[i], many[i], 1, &order);
	}
	submit_steps(queue, one, N, &order);
	open_gate(&gate);
	loop_until_done(2 * N + 1);
	for (size_t i = 0; i < N; i++) {
		ck_assert_uint_eq(many[i][0].ran_as, 2 * i);
		ck_assert_uint_eq(one[i].ran_as, 2 * i + 1);
		pool_queue_free(queues[i]);
	}
	for (int i = 0; i < 2; i++)
		pool_user_put(users[i]);
	pool_queue_free(queue);
	stop(pool);
}
END_TEST

START_TEST(what_ran_is_done_by_turns_of_users_too)
{
	enum { N = 300 };
	static struct step many[N], one[1];
	struct pool *pool = start(1);
	struct pool_user *user = pool_user_new(pool, 0);
	struct pool_queue *big = pool_queue_new(pool), *small = pool_queue_new_of(user);
	atomic_size_t order = 0;
	struct gate gate;

	submit_steps(big, many, N, &order);
	while (atomic_load(&order) < N)
		(void)nanosleep(&(struct timespec){ .tv_nsec = 100000 }, NULL);
	submit_steps(small, one, 1, &order);
	close_gate(&gate, small); /* by now both have run, and the loop has not looked */
	open_gate(&gate);
	loop_until_done(N + 2);
	ck_assert_uint_le(one[0].done_as, 1);
	pool_queue_free(big);
	pool_queue_free(small);
	pool_user_put(user);
	stop(pool);
}
END_TEST

START_TEST(a_user_whose_jobs_hang_leaves_workers_to_others)
{
	enum { N = 10 };
	static struct step behind[N], others[N];
	struct pool *pool = start(3);
	struct pool_user *user = pool_user_new(pool, 2), *other = pool_user_new(pool, 2);
	struct pool_queue *hung[2], *free_queue = pool_queue_new_of(other);
	atomic_size_t order = 0;
	struct gate gates[2];

	for (int i = 0; i < 2; i++) {
		hung[i] = pool_queue_new_of(user);
		close_gate(&gates[i], hung[i]);
	}
	submit_steps(hung[0], behind, N, &order);
	submit_steps(free_queue, others, N, &order);
	loop_until_done(N);
	for (int i = 0; i < N; i++)
		ck_assert_uint_lt(others[i].ran_as, N);
	for (int i = 0; i < 2; i++)
		open_gate(&gates[i]);
	loop_until_done(2 * N + 2);
	for (int i = 0; i < 2; i++)
		pool_queue_free(hung[i]);
	pool_queue_free(free_queue);
	pool_user_put(user);
	pool_user_put(other);
	stop(pool);
}
END_TEST

START_TEST(a_job_that_says_again_lets_others_run_first)
{
	static struct step long_one[1], others[5];
	struct pool *pool = start(1);
	struct pool_queue *queue = pool_queue_new(pool), *other = pool_queue_new(pool);
	atomic_size_t order = 0;
	struct gate gate;

	close_gate(&gate, other);
	submit_steps(queue, long_one, 1, &order);
	long_one[0].again = 3;
	submit_steps(other, others, 5, &order);
	open_gate(&gate);
	loop_until_done(7);
	/* One of the others for each time that it stood back. */
	ck_assert_uint_eq(long_one[0].ran_as, 3);
	pool_queue_free(queue);
	pool_queue_free(other);
	stop(pool);
}
END_TEST

struct asking {
	struct job job; /* first */
	struct pool_queue *queue;
	bool answer;
};

static enum job_next run_asking(struct job *job)
{
	struct asking *asking = (struct asking *)job;

	asking->answer = pool_others_wait(asking->queue);
	return JOB_DONE;
}

START_TEST(others_wait_means_another_queue_has_a_job)
{
	static struct step step[1];
	struct pool *pool = start(1);
	struct pool_queue *mine = pool_queue_new(pool), *other = pool_queue_new(pool);
	struct asking asking[4];
	atomic_size_t order = 0;
	struct gate gate;

	for (int i = 0; i < 4; i++)
		asking[i] =
			(struct asking){ .job = { .run = run_asking, .done = on_gate_done }, .queue = mine };
	close_gate(&gate, mine);
	pool_submit(mine, &asking[0].job);
	pool_submit(mine, &asking[1].job);
	submit_steps(other, step, 1, &order);
	ck_assert(pool_others_wait(mine));
	ck_assert(pool_others_wait(other));
	open_gate(&gate);
	loop_until_done(4);
	ck_assert(asking[0].answer);  /* the step waits */
	ck_assert(!asking[1].answer); /* it had its turn between them */

	n_done = 0;
	close_gate(&gate, mine);
	pool_submit(mine, &asking[2].job);
	pool_submit(mine, &asking[3].job);
	open_gate(&gate);
	loop_until_done(3);
	ck_assert(!asking[2].answer); /* what waits is its own */
	ck_assert(!asking[3].answer);
	pool_queue_free(mine);
	pool_queue_free(other);
	stop(pool);
}
END_TEST

/* A job that submits a younger one from run() and from done(). */
struct family {
	struct job job; /* first */
	struct pool_queue *queue;
	unsigned generation;
};

static void submit_family(struct pool_queue *queue, unsigned generation);

static enum job_next run_family(struct job *job)
{
	struct family *family = (struct family *)job;

	if (family->generation > 0)
		submit_family(family->queue, family->generation - 1);
	return JOB_DONE;
}

static void on_family_done(struct job *job)
{
	struct family *family = (struct family *)job;

	if (family->generation > 0)
		submit_family(family->queue, family->generation - 1);
	n_done++;
	free(family);
}

static void submit_family(struct pool_queue *queue, unsigned generation)
{
	struct family *family = calloc(1, sizeof(*family));

	*family = (struct family){ { .run = run_family, .done = on_family_done }, queue, generation };
	pool_submit(queue, &family->job);
}

START_TEST(free_waits_for_all_jobs_and_those_that_they_submit)
{
	struct pool *pool = start(3);
	struct pool_queue *queue = pool_queue_new(pool);

	submit_family(queue, 10);
	stop(pool);
	ck_assert_uint_eq(n_done, (1 << 11) - 1);
	pool_queue_free(queue);
}
END_TEST

START_TEST(free_without_a_job_ends_at_once)
{
	stop(start(8));
	pool_free(NULL);
	pool_queue_free(NULL);
}
END_TEST

static void spin_us(long us)
{
	struct timespec from, now;

	(void)clock_gettime(CLOCK_MONOTONIC, &from);
	do
		(void)clock_gettime(CLOCK_MONOTONIC, &now);
	while ((now.tv_sec - from.tv_sec) * 1000000 + (now.tv_nsec - from.tv_nsec) / 1000 < us);
}

static void on_slow_done(struct job *job)
{
	(void)job;
	spin_us(100);
	n_done++;
}

static void on_tick(evutil_socket_t fd, short what, void *n_ticks)
{
	(void)fd;
	(void)what;
	if (n_done > 0)
		++*(unsigned *)n_ticks;
}

START_TEST(the_loop_gets_at_its_other_events_between_done_calls)
{
	enum { N = 1000 };
	static struct step steps[N];
	struct pool *pool = start(2);
	struct pool_queue *queue = pool_queue_new(pool);
	struct event *tick;
	atomic_size_t order = 0;
	unsigned n_ticks = 0;

	tick = event_new(base, -1, EV_PERSIST, on_tick, &n_ticks);
	(void)event_add(tick, &(struct timeval){ .tv_usec = 1000 });
	submit_steps(queue, steps, N, &order);
	for (size_t i = 0; i < N; i++)
		steps[i].job.done = on_slow_done;
	loop_until_done(N); /* 100 ms of done() calls */
	ck_assert_uint_ge(n_ticks, 20);
	event_free(tick);
	pool_queue_free(queue);
	stop(pool);
}
END_TEST

struct mask {
	struct job job; /* first */
	sigset_t blocked;
	char name[16];
};

static enum job_next run_mask(struct job *job)
{
	struct mask *mask = (struct mask *)job;

	(void)pthread_sigmask(SIG_SETMASK, NULL, &mask->blocked);
	(void)pthread_getname_np(pthread_self(), mask->name, sizeof(mask->name));
	return JOB_DONE;
}

START_TEST(workers_have_their_name_and_take_no_signal)
{
	struct mask mask = { .job = { .run = run_mask, .done = on_gate_done } };
	struct pool *pool = start(1);
	struct pool_queue *queue = pool_queue_new(pool);
	sigset_t ours;

	pool_submit(queue, &mask.job);
	loop_until_done(1);
	ck_assert_int_eq(sigismember(&mask.blocked, SIGTERM), 1);
	ck_assert_int_eq(sigismember(&mask.blocked, SIGCHLD), 1);
	(void)pthread_sigmask(SIG_SETMASK, NULL, &ours);
	ck_assert_int_eq(sigismember(&ours, SIGTERM), 0);
	ck_assert_str_eq(mask.name, "test");
	pool_queue_free(queue);
	stop(pool);
}
END_TEST

UNIT_MAIN("pool", every_job_runs_once_on_a_worker_and_is_done_on_the_loop,
	  a_lane_runs_and_is_done_in_the_order_submitted,
	  ten_thousand_jobs_do_not_keep_one_of_another_queue_waiting, queues_take_turns,
	  users_take_turns_however_many_queues_they_have, what_ran_is_done_by_turns_of_users_too,
	  a_user_whose_jobs_hang_leaves_workers_to_others, a_job_that_says_again_lets_others_run_first,
	  others_wait_means_another_queue_has_a_job, free_waits_for_all_jobs_and_those_that_they_submit,
	  free_without_a_job_ends_at_once, the_loop_gets_at_its_other_events_between_done_calls,
	  workers_have_their_name_and_take_no_signal)
