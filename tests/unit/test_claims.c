/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/claims.h"

#include <event2/event.h>
#include <stdatomic.h>
#include <time.h>

#include "common/hash.h"
#include "daemon/pool.h"
#include "tests/unit/unit.h"

static struct event_base *base;
static struct claims *claims;
static struct pool *pool;
static struct pool_queue *queue;
static size_t n_done;

static void setup(void)
{
	base = event_base_new();
	ck_assert_ptr_nonnull(base);
	pool = pool_new(base, 4, "test");
	ck_assert_ptr_nonnull(pool);
	queue = pool_queue_new(pool);
	claims = claims_new();
}

static void teardown(void)
{
	pool_free(pool);
	pool_queue_free(queue);
	ck_assert_uint_eq(claims_n(claims), 0);
	claims_free(claims);
	event_base_free(base);
}

static struct digest digest_of(unsigned number)
{
	struct digest digest;

	hash_bytes(&number, sizeof(number), &digest);
	return digest;
}

/* Nobody claims it: it goes. */
static void ck_goes(const struct digest *blob)
{
	ck_assert(claims_condemn(claims, blob));
	ck_assert(claims_execute(claims, blob));
	claims_executed(claims, blob);
	claims_settle(claims, blob);
}

static void loop_until_done(size_t n)
{
	while (n_done < n)
		ck_assert_int_eq(event_base_loop(base, EVLOOP_ONCE), 0);
}

static void on_done(struct job *job)
{
	(void)job;
	n_done++;
}

START_TEST(what_is_claimed_cannot_be_condemned)
{
	struct digest blob = digest_of(1), other = digest_of(2);

	setup();
	claims_take(claims, &blob);
	claims_take(claims, &blob);
	ck_assert(!claims_condemn(claims, &blob));
	claims_drop(claims, &blob, 1);
	ck_assert(!claims_condemn(claims, &blob));
	claims_drop(claims, &blob, 1);
	ck_assert_uint_eq(claims_n(claims), 0);

	ck_assert(claims_condemn(claims, &blob));
	ck_assert(claims_condemn(claims, &other));
	ck_assert(claims_execute(claims, &blob));
	claims_executed(claims, &blob);
	claims_settle(claims, &blob);
	ck_assert(claims_execute(claims, &other));
	claims_executed(claims, &other);
	claims_settle(claims, &other);
	teardown();
}
END_TEST

START_TEST(a_claim_acquits_what_is_condemned)
{
	struct digest blob = digest_of(1);

	setup();
	ck_assert(claims_condemn(claims, &blob));
	claims_take(claims, &blob);
	ck_assert(!claims_execute(claims, &blob));
	claims_settle(claims, &blob);
	ck_assert(!claims_condemn(claims, &blob));
	claims_drop(claims, &blob, 1);
	ck_goes(&blob);
	teardown();
}
END_TEST

START_TEST(nothing_is_condemned_again_before_it_is_settled)
{
	struct digest blob = digest_of(1);

	setup();
	ck_assert(claims_condemn(claims, &blob));
	ck_assert(!claims_condemn(claims, &blob));
	claims_take(claims, &blob);
	claims_drop(claims, &blob, 1);
	ck_assert_msg(!claims_condemn(claims, &blob), "acquitted, and the loop does not know yet");
	ck_assert(!claims_execute(claims, &blob));
	ck_assert(!claims_condemn(claims, &blob));
	claims_settle(claims, &blob);

	ck_assert(claims_condemn(claims, &blob));
	ck_assert(claims_execute(claims, &blob));
	claims_executed(claims, &blob);
	claims_take(claims, &blob);
	claims_drop(claims, &blob, 1);
	ck_assert_msg(!claims_condemn(claims, &blob), "gone, stored afresh, and the loop does not know yet");
	claims_settle(claims, &blob);
	teardown();
}
END_TEST

/* A job that claims, and says when it has the claim. */
struct taker {
	struct job job; /* first */
	struct digest digest;
	atomic_bool began, has_it;
};

static enum job_next run_taker(struct job *job)
{
	struct taker *taker = (struct taker *)job;

	atomic_store(&taker->began, true);
	claims_take(claims, &taker->digest);
	atomic_store(&taker->has_it, true);
	return JOB_DONE;
}

START_TEST(who_claims_what_is_being_unlinked_waits_until_it_is_gone)
{
	static struct taker takers[3];
	struct digest blob = digest_of(1);

	setup();
	ck_assert(claims_condemn(claims, &blob));
	ck_assert(claims_execute(claims, &blob));
	for (size_t i = 0; i < N_ELEMENTS(takers); i++) {
		takers[i] = (struct taker){ .job = { .run = run_taker, .done = on_done },
					    .digest = digest_of(1) };
		pool_submit(queue, &takers[i].job);
		while (!atomic_load(&takers[i].began))
			(void)nanosleep(&(struct timespec){ .tv_nsec = 100000 }, NULL);
	}
	for (size_t i = 0; i < N_ELEMENTS(takers); i++)
		ck_assert(!atomic_load(&takers[i].has_it));
	claims_executed(claims, &blob);
	loop_until_done(N_ELEMENTS(takers));
	claims_settle(claims, &blob);
	for (size_t i = 0; i < N_ELEMENTS(takers); i++) {
		ck_assert(!claims_condemn(claims, &blob));
		claims_drop(claims, &blob, 1);
	}
	teardown();
}
END_TEST

/* ---- a race: is a blob that a claimant saw there as long as it has the claim? ---- */

enum { N_BLOBS = 16, N_ROUNDS = 20000 };

static atomic_bool is_there[N_BLOBS];
static atomic_size_t n_betrayed, n_unlinked;

struct racer {
	struct job job; /* first */
	unsigned seed;
};

static unsigned next_random(unsigned *seed)
{
	*seed = *seed * 1103515245u + 12345u;
	return *seed >> 16;
}

static enum job_next run_claimant(struct job *job)
{
	struct racer *racer = (struct racer *)job;

	for (unsigned i = 0; i < N_ROUNDS; i++) {
		unsigned n = next_random(&racer->seed) % N_BLOBS;
		struct digest blob = digest_of(n);

		claims_take(claims, &blob);
		atomic_store(&is_there[n], true);
		for (volatile unsigned work = next_random(&racer->seed) % 64; work; work--)
			;
		if (!atomic_load(&is_there[n]))
			atomic_fetch_add(&n_betrayed, 1);
		claims_drop(claims, &blob, 1);
	}
	return JOB_DONE;
}

static enum job_next run_evictor(struct job *job)
{
	struct racer *racer = (struct racer *)job;

	for (unsigned i = 0; i < N_ROUNDS; i++) {
		unsigned n = next_random(&racer->seed) % N_BLOBS;
		struct digest blob = digest_of(n);

		if (!claims_condemn(claims, &blob))
			continue;
		if (claims_execute(claims, &blob)) {
			atomic_store(&is_there[n], false);
			atomic_fetch_add(&n_unlinked, 1);
			claims_executed(claims, &blob);
		}
		claims_settle(claims, &blob);
	}
	return JOB_DONE;
}

START_TEST(nothing_claimed_is_ever_unlinked)
{
	struct racer racers[4];

	setup();
	for (unsigned i = 0; i < N_ELEMENTS(racers); i++) {
		racers[i] = (struct racer){
			.job = { .run = i < 2 ? run_claimant : run_evictor, .done = on_done },
			.seed = i,
		};
		pool_submit(queue, &racers[i].job);
	}
	loop_until_done(N_ELEMENTS(racers));
	ck_assert_uint_eq(atomic_load(&n_betrayed), 0);
	ck_assert_uint_gt(atomic_load(&n_unlinked), 0);
	teardown();
}
END_TEST

START_TEST(who_claims_knows_whether_another_has_since)
{
	struct digest blob = digest_of(1);

	setup();
	ck_assert(!claims_has(claims, &blob));
	claims_take(claims, &blob);
	ck_assert(claims_has(claims, &blob));
	ck_assert(claims_is_sole(claims, &blob));
	claims_take(claims, &blob);
	ck_assert(!claims_is_sole(claims, &blob));
	claims_drop(claims, &blob, 1);
	ck_assert(!claims_is_sole(claims, &blob)); /* it was, and that counts */
	claims_drop(claims, &blob, 1);
	ck_assert(!claims_has(claims, &blob));
	ck_assert(claims_condemn(claims, &blob));
	ck_assert(claims_has(claims, &blob));
	ck_assert(claims_execute(claims, &blob));
	claims_executed(claims, &blob);
	claims_settle(claims, &blob);
	teardown();
}
END_TEST

START_TEST(who_acquits_a_blob_is_not_alone_with_it_until_that_is_settled)
{
	struct digest blob = digest_of(1);

	setup();
	ck_assert(claims_condemn(claims, &blob));
	claims_take(claims, &blob);
	ck_assert(!claims_is_sole(claims, &blob)); /* the catalog does not have it just now */
	ck_assert(!claims_execute(claims, &blob));
	ck_assert(!claims_is_sole(claims, &blob));
	claims_settle(claims, &blob);
	ck_assert(claims_is_sole(claims, &blob));
	claims_drop(claims, &blob, 1);
	teardown();
}
END_TEST

UNIT_MAIN("claims", what_is_claimed_cannot_be_condemned, a_claim_acquits_what_is_condemned,
	  nothing_is_condemned_again_before_it_is_settled,
	  who_claims_what_is_being_unlinked_waits_until_it_is_gone, nothing_claimed_is_ever_unlinked,
	  who_claims_knows_whether_another_has_since,
	  who_acquits_a_blob_is_not_alone_with_it_until_that_is_settled)
