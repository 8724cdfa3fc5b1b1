/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/identity.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "common/auto.h"
#include "tests/unit/unit.h"

enum { ALICE = 12001, PROJECT = 13000 };

static struct err err;

/* A line of what the kernel says of this thread, without its name. */
static const char *status(const char *name)
{
	static char line[256];
	FILE *file = fopen("/proc/thread-self/status", "re");
	bool found = false;

	ck_assert_ptr_nonnull(file);
	while (!found && fgets(line, sizeof(line), file))
		found = strncmp(line, name, strlen(name)) == 0;
	(void)fclose(file);
	ck_assert(found);
	line[strcspn(line, "\n")] = '\0';
	return line + strlen(name);
}

static void skip_unless_privileged(void)
{
	identity_init();
	if (!identity_can_act())
		exit(0); /* each test is a process: this one cannot be tried here */
}

static struct identity *alice(void)
{
	static const gid_t groups[] = { PROJECT };

	return identity_new(ALICE, ALICE, groups, 1);
}

START_TEST(a_thread_that_acts_as_a_client_has_its_ids_and_groups_and_no_capability)
{
	struct identity *client = alice();

	skip_unless_privileged();
	ck_assert_int_eq(identity_assume(identity_acting_for(client), &err), 0);
	ck_assert_ptr_eq(identity_assumed(), client);
	ck_assert_str_eq(strrchr(status("Uid:"), '\t'), "\t12001");
	ck_assert_str_eq(strrchr(status("Gid:"), '\t'), "\t12001");
	ck_assert_str_eq(status("Groups:"), "\t13000 ");
	ck_assert_str_eq(status("CapEff:"), "\t0000000000000000");
	identity_drop();
	identity_put(client);
}
END_TEST

START_TEST(it_may_link_what_is_not_its_own_for_as_long_as_it_says)
{
	struct identity *client = alice();

	skip_unless_privileged();
	identity_link(true); /* as the daemon: nothing */
	ck_assert_int_eq(identity_assume(client, &err), 0);
	identity_link(true);
	ck_assert_str_eq(status("CapEff:"), "\t0000000000000008");
	identity_link(false);
	ck_assert_str_eq(status("CapEff:"), "\t0000000000000000");
	identity_drop();
	identity_put(client);
}
END_TEST

START_TEST(the_daemon_is_itself_again_afterwards)
{
	struct identity *client = alice();
	char *before, *groups, *capabilities;

	skip_unless_privileged();
	before = strdup(status("Uid:"));
	groups = strdup(status("Groups:"));
	capabilities = strdup(status("CapEff:"));
	for (unsigned i = 0; i < 3; i++) {
		ck_assert_int_eq(identity_assume(client, &err), 0);
		identity_link(i);
		identity_resume(identity_suspend());
		ck_assert_ptr_eq(identity_assumed(), client);
		identity_drop();
		ck_assert_ptr_null(identity_assumed());
		ck_assert_str_eq(status("Uid:"), before);
		ck_assert_str_eq(status("Groups:"), groups);
		ck_assert_str_eq(status("CapEff:"), capabilities);
	}
	free(before);
	free(groups);
	free(capabilities);
	identity_put(client);
}
END_TEST

START_TEST(an_id_that_cannot_be_taken_is_refused_and_the_daemon_stays_itself)
{
	struct identity *nobody = identity_new((uid_t)-1, ALICE, NULL, 0);
	struct stat st;

	skip_unless_privileged();
	ck_assert_int_lt(identity_assume(nobody, &err), 0);
	unit_ck_err(&err, ERR_PERMISSION_DENIED, "acting as user 4294967295");
	ck_assert_ptr_null(identity_assumed());
	ck_assert_int_eq(stat("/root", &st), 0);
	identity_put(nobody);
}
END_TEST

static void *look_elsewhere(void *uid)
{
	(void)snprintf(uid, 64, "%s", strrchr(status("Uid:"), '\t'));
	return NULL;
}

START_TEST(other_threads_stay_who_they_are)
{
	struct identity *client = alice();
	char uid[64], own[64];
	pthread_t thread;

	skip_unless_privileged();
	look_elsewhere(own);
	ck_assert_int_eq(identity_assume(client, &err), 0);
	ck_assert_int_eq(pthread_create(&thread, NULL, look_elsewhere, uid), 0);
	(void)pthread_join(thread, NULL);
	identity_drop();
	ck_assert_str_eq(uid, "\t12001"); /* a new thread is as the one that made it */
	ck_assert_int_eq(pthread_create(&thread, NULL, look_elsewhere, uid), 0);
	(void)pthread_join(thread, NULL);
	ck_assert_str_eq(uid, own);
	identity_put(client);
}
END_TEST

START_TEST(a_peer_is_who_connected_with_all_groups)
{
	struct identity *peer;
	gid_t groups[256];
	int fds[2], n = getgroups(256, groups);

	identity_init();
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	ck_assert_int_eq(identity_of_peer(fds[0], &peer), 0);
	ck_assert_uint_eq(peer->uid, geteuid());
	ck_assert_uint_eq(peer->gid, getegid());
	ck_assert_int_eq((int)peer->n_groups, n);
	ck_assert_mem_eq(peer->groups, groups, (size_t)n * sizeof(*groups));
	ck_assert_ptr_null(identity_acting_for(peer)); /* the daemon's own user */
	identity_put(peer);
	ck_assert_int_lt(identity_of_peer(-1, &peer), 0);
	(void)close(fds[0]);
	(void)close(fds[1]);
}
END_TEST

START_TEST(the_overflow_uid_is_served_by_nobody_but_itself)
{
	identity_init();
	ck_assert(identity_is_served(geteuid()));
	ck_assert(identity_is_served(0));
	ck_assert_int_eq(identity_is_served(ALICE), identity_can_act() || geteuid() == ALICE);
	ck_assert_int_eq(identity_is_served(65534), geteuid() == 65534);
	ck_assert(!identity_is_served((uid_t)-1));
}
END_TEST

START_TEST(no_program_gives_the_daemon_more_rights_than_it_has)
{
	identity_init();
	ck_assert_str_eq(status("NoNewPrivs:"), "\t1");
}
END_TEST

UNIT_MAIN("identity", a_thread_that_acts_as_a_client_has_its_ids_and_groups_and_no_capability,
	  it_may_link_what_is_not_its_own_for_as_long_as_it_says, the_daemon_is_itself_again_afterwards,
	  an_id_that_cannot_be_taken_is_refused_and_the_daemon_stays_itself, other_threads_stay_who_they_are,
	  a_peer_is_who_connected_with_all_groups, the_overflow_uid_is_served_by_nobody_but_itself,
	  no_program_gives_the_daemon_more_rights_than_it_has)
