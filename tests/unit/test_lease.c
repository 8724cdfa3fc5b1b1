/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/lease.h"

#include "tests/unit/leaving.h"

enum { ALICE = 1001, BOB = 1002 };

static struct digest tree;

/* A cache with one cached tree, which nobody uses. */
static void setup(void)
{
	start_cache();
	tree = store_usual_tree();
	(void)use_tree(&tree);
	run_until_idle();
}

static void teardown(void)
{
	run_until_idle();
	stop_cache();
}

static bool is_evictable(void *ctx)
{
	(void)ctx;
	return oldest_is(&tree, NULL);
}

static struct lease *take(uid_t uid, struct lease_group *group)
{
	struct lease *lease = NULL;
	int r = lease_take(cache.leases, &tree, uid, group, &lease, &err);

	ck_assert_msg(r == 0, "%s", err.text);
	return lease;
}

static void ck_leased(size_t n)
{
	ck_assert_uint_eq(leases_n(cache.leases), n);
	ck_assert_uint_eq(cache_count(&cache)->leases, n);
	ck_assert_int_eq(is_evictable(NULL), n == 0);
}

START_TEST(a_leased_tree_is_not_evictable_until_its_seconds_are_over)
{
	struct lease *lease;

	setup();
	ck_leased(0);
	lease = take(ALICE, NULL);
	ck_leased(1); /* from the beginning of the request */
	lease_grant(lease, 1);
	ck_leased(1);
	run_until(is_evictable, NULL);
	ck_leased(0);
	teardown();
}
END_TEST

START_TEST(a_user_has_one_lease_on_a_tree_and_the_latest_end_counts)
{
	setup();
	lease_grant(take(ALICE, NULL), 1);
	lease_grant(take(ALICE, NULL), LEASE_SECONDS_MAX);
	lease_grant(take(ALICE, NULL), 1);
	ck_leased(1);
	run_for_ms(1300);
	ck_leased(1);
	teardown();
}
END_TEST

START_TEST(a_lease_of_a_connection_ends_with_it)
{
	struct lease_group connection;

	setup();
	lease_group_init(cache.leases, &connection);
	lease_grant(take(ALICE, &connection), 0);
	lease_grant(take(ALICE, &connection), 0);
	ck_leased(1);
	lease_group_fini(&connection);
	ck_leased(0);
	teardown();
}
END_TEST

START_TEST(a_tree_is_evictable_when_the_last_of_its_leases_ended)
{
	struct lease_group one, other;

	setup();
	lease_group_init(cache.leases, &one);
	lease_group_init(cache.leases, &other);
	lease_grant(take(ALICE, &one), 0);
	lease_grant(take(ALICE, &other), 0);
	lease_grant(take(ALICE, NULL), 1);
	lease_grant(take(BOB, NULL), 1);
	ck_leased(4);
	lease_group_fini(&one);
	ck_assert(!is_evictable(NULL));
	lease_group_fini(&other);
	ck_leased(2);
	run_until(is_evictable, NULL);
	ck_leased(0);
	teardown();
}
END_TEST

START_TEST(a_request_that_fails_leaves_leases_as_they_were)
{
	setup();
	lease_drop(take(ALICE, NULL));
	ck_leased(0);
	lease_grant(take(ALICE, NULL), LEASE_SECONDS_MAX);
	lease_drop(take(ALICE, NULL));
	lease_drop(NULL);
	ck_leased(1);
	teardown();
}
END_TEST

START_TEST(a_lease_that_expires_while_it_is_asked_for_again_goes_on)
{
	struct lease *again;

	setup();
	lease_grant(take(ALICE, NULL), 1);
	again = take(ALICE, NULL);
	run_for_ms(1300);
	ck_leased(1);
	lease_grant(again, LEASE_SECONDS_MAX);
	ck_leased(1);
	again = take(ALICE, NULL);
	lease_drop(again);
	ck_leased(1);
	teardown();
}
END_TEST

START_TEST(a_connection_that_ends_before_its_request_gets_no_lease)
{
	struct lease_group connection;
	struct lease *granted, *dropped;

	setup();
	lease_group_init(cache.leases, &connection);
	granted = take(ALICE, &connection);
	dropped = take(ALICE, &connection);
	lease_group_fini(&connection);
	ck_leased(1); /* the requests are not over */
	lease_grant(granted, 0);
	lease_drop(dropped);
	ck_leased(0);
	teardown();
}
END_TEST

START_TEST(what_is_not_cached_cannot_be_leased)
{
	struct digest absent = absent_digest(1);
	struct lease *lease = NULL;

	setup();
	ck_assert_int_lt(lease_take(cache.leases, &absent, ALICE, NULL, &lease, &err), 0);
	unit_ck_err(&err, ERR_NOT_FOUND, DIGEST_TEXT(&absent));
	ck_assert_ptr_null(lease);
	ck_leased(0);
	teardown();
}
END_TEST

static struct lease_group connections[LEASES_MAX];

START_TEST(leases_are_limited_for_each_user_and_in_all)
{
	enum { OF_USER = 10000, USERS = LEASES_MAX / OF_USER };
	struct lease *lease = NULL;

	setup();
	for (unsigned i = 0; i < LEASES_MAX; i++) {
		lease_group_init(cache.leases, &connections[i]);
		if (i % OF_USER == 0 && i) {
			ck_assert_int_lt(lease_take(cache.leases, &tree, ALICE + i / OF_USER - 1,
						    &connections[i], &lease, &err),
					 0);
			unit_ck_err(&err, ERR_RESOURCE_EXHAUSTED, "has 10000 leases");
			err_clear(&err);
		}
		lease_grant(take(ALICE + i / OF_USER, &connections[i]), 0);
	}
	ck_leased(LEASES_MAX);
	ck_assert_int_lt(lease_take(cache.leases, &tree, ALICE + USERS, NULL, &lease, &err), 0);
	unit_ck_err(&err, ERR_RESOURCE_EXHAUSTED, "50000 leases, and no more");
	lease_grant(take(ALICE, &connections[0]), 0); /* one that there is can be had again */
	lease_group_fini(&connections[0]);
	lease_grant(take(ALICE, NULL), 1); /* and there is room again */
	for (unsigned i = 1; i < LEASES_MAX; i++)
		lease_group_fini(&connections[i]);
	run_until(is_evictable, NULL);
	ck_leased(0);
	teardown();
}
END_TEST

START_TEST(leases_end_with_the_daemon)
{
	setup();
	lease_grant(take(ALICE, NULL), LEASE_SECONDS_MAX);
	restart_cache();
	ck_leased(0);
	stop_cache();
}
END_TEST

UNIT_MAIN("lease", a_leased_tree_is_not_evictable_until_its_seconds_are_over,
	  a_user_has_one_lease_on_a_tree_and_the_latest_end_counts, a_lease_of_a_connection_ends_with_it,
	  a_tree_is_evictable_when_the_last_of_its_leases_ended,
	  a_request_that_fails_leaves_leases_as_they_were,
	  a_lease_that_expires_while_it_is_asked_for_again_goes_on,
	  a_connection_that_ends_before_its_request_gets_no_lease, what_is_not_cached_cannot_be_leased,
	  leases_are_limited_for_each_user_and_in_all, leases_end_with_the_daemon)
