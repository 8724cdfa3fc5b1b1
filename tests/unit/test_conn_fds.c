/* SPDX-License-Identifier: Apache-2.0 */
/* Descriptors on connections: whose they are, and that none is left open. */
#include "daemon/conn.h"

#include <sys/resource.h>
#include <sys/syscall.h>

#include "tests/unit/hold.h"

static int make_files(int *fds, uint64_t *inodes, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		struct stat st;

		fds[i] = openat(out, ".", O_TMPFILE | O_RDWR, 0600);
		if (fds[i] < 0 || fstat(fds[i], &st) < 0)
			return -errno;
		inodes[i] = st.st_ino;
	}
	return 0;
}

static void close_files(const int *fds, size_t n)
{
	for (size_t i = 0; i < n; i++)
		(void)close(fds[i]);
}

static void write_inodes_request(struct wire_out *message, uint32_t id, uint64_t n_fds)
{
	wire_request(message, id, "inodes");
	wire_map(message, 1);
	wire_put_uint(message, "fds", n_fds);
}

static void ck_inodes(struct peer *peer, uint32_t id, const uint64_t *inodes, size_t n)
{
	static const struct wire_field fields[] = { { .name = "inodes", .type = WIRE_ARRAY } };
	const struct wire_value *array = NULL;

	ck_assert_int_eq(wire_decode_open(peer_answer(peer, id), fields, 1, &array, "", &err), 0);
	ck_assert_uint_eq(wire_array_size(array), n);
	for (size_t i = 0; i < n; i++)
		ck_assert_uint_eq(wire_as_uint(wire_array_at(array, i)), inodes[i]);
}

START_TEST(descriptors_reach_the_request_they_came_with)
{
	struct wire_out message = { 0 };
	uint64_t inodes[10];
	struct peer peer;
	int fds[10];

	setup();
	ck_assert_int_eq(make_files(fds, inodes, 10), 0);
	peer_open(&peer);
	/* All of it before the loop reads anything: 3, none, 1, 4 in the middle of its bytes, 2 at the end.
	 */
	write_inodes_request(&message, 1, 3);
	peer_request(&peer, &message, fds, 3);
	write_inodes_request(&message, 2, 0);
	peer_request(&peer, &message, NULL, 0);
	write_inodes_request(&message, 3, 1);
	peer_request(&peer, &message, fds + 3, 1);
	write_inodes_request(&message, 4, 4);
	peer_send(&peer, message.data, 5, NULL, 0);
	peer_send(&peer, message.data + 5, 5, fds + 4, 4);
	peer_send(&peer, message.data + 10, message.len - 10, NULL, 0);
	wire_out_fini(&message);
	message = (struct wire_out){ 0 };
	write_inodes_request(&message, 5, 2);
	peer_send(&peer, message.data, message.len - 1, NULL, 0);
	peer_send(&peer, message.data + message.len - 1, 1, fds + 8, 2);
	wire_out_fini(&message);
	ck_inodes(&peer, 1, inodes, 3);
	ck_inodes(&peer, 2, NULL, 0);
	ck_inodes(&peer, 3, inodes + 3, 1);
	ck_inodes(&peer, 4, inodes + 4, 4);
	ck_inodes(&peer, 5, inodes + 8, 2);
	ck_assert_uint_eq(service.n_fds, 0);
	close_files(fds, 10);
	peer_close(&peer);
	teardown();
}
END_TEST

START_TEST(a_message_may_carry_253_descriptors)
{
	enum { N = WIRE_DESCRIPTORS_MAX };
	struct wire_out message = { 0 };
	uint64_t inodes[N];
	struct peer peer;
	int fds[N];

	setup();
	ck_assert_int_eq(make_files(fds, inodes, N), 0);
	peer_open(&peer);
	write_inodes_request(&message, 1, N);
	peer_request(&peer, &message, fds, N);
	ck_inodes(&peer, 1, inodes, N);
	close_files(fds, N);
	peer_close(&peer);
	teardown();
}
END_TEST

START_TEST(another_number_of_descriptors_than_announced_is_refused_and_they_are_closed)
{
	struct wire_out message = { 0 };
	uint64_t inodes[3];
	struct peer peer;
	size_t n_before;
	int fds[3];

	setup();
	ck_assert_int_eq(make_files(fds, inodes, 3), 0);
	peer_open(&peer);
	n_before = unit_count_fds();
	write_inodes_request(&message, 1, 2);
	peer_request(&peer, &message, fds, 3);
	peer_ck_error(&peer, 1, ERR_INVALID_ARGUMENT, "2 descriptors were announced, 3 came");
	write_inodes_request(&message, 2, 1);
	peer_request(&peer, &message, NULL, 0);
	peer_ck_error(&peer, 2, ERR_INVALID_ARGUMENT, "1 descriptors were announced, 0 came");
	wire_request(&message, 3, "ping");
	wire_map(&message, 0);
	peer_request(&peer, &message, fds, 1);
	peer_ck_error(&peer, 3, ERR_INVALID_ARGUMENT, "0 descriptors were announced, 1 came");
	run_until_idle();
	ck_assert_uint_eq(unit_count_fds(), n_before);
	close_files(fds, 3);
	peer_close(&peer);
	teardown();
}
END_TEST

static bool three_are_held(void *ctx)
{
	(void)ctx;
	return service.n_fds == 3;
}

START_TEST(descriptors_of_a_request_that_never_became_whole_are_closed)
{
	struct wire_out message = { 0 };
	uint64_t inodes[3];
	struct peer peer;
	size_t n_before;
	int fds[3];

	setup();
	n_before = unit_count_fds();
	ck_assert_int_eq(make_files(fds, inodes, 3), 0);
	peer_open(&peer);
	write_inodes_request(&message, 1, 3);
	peer_send(&peer, message.data, message.len - 1, fds, 3);
	wire_out_fini(&message);
	close_files(fds, 3);
	run_until(three_are_held, NULL);
	peer_close(&peer);
	run_until(none_open, NULL);
	run_until_idle();
	ck_assert_uint_eq(service.n_fds, 0);
	ck_assert_uint_eq(unit_count_fds(), n_before);
	teardown();
}
END_TEST

static void hold_with_fd(struct peer *peer)
{
	struct wire_out message = { 0 };

	wire_request(&message, 1, "hold");
	wire_map(&message, 1);
	wire_put_uint(&message, "fds", 1);
	peer_request(peer, &message, &out, 1);
}

static bool all_are_held(void *ctx)
{
	(void)ctx;
	return service.n_fds >= conns.max_fds;
}

START_TEST(while_too_many_descriptors_are_open_nobody_is_read)
{
	struct peer holder, waiter;

	setup();
	conns.max_fds = 1;
	peer_open(&holder);
	hold_with_fd(&holder);
	run_until_held(1);
	peer_open(&waiter);
	peer_call(&waiter, 1, "ping");
	run_for_ms(50);
	ck_assert_uint_eq(cache.counters.requests, 1);
	release();
	(void)peer_answer(&waiter, 1);
	peer_close(&holder);
	peer_close(&waiter);
	teardown();
}
END_TEST

START_TEST(who_waited_for_descriptors_is_read_when_the_client_that_sent_them_is_gone)
{
	struct peer holder, waiter;

	setup();
	end_when_cancelled = true;
	conns.max_fds = 1;
	peer_open(&holder);
	hold_with_fd(&holder);
	run_until_held(1);
	peer_open(&waiter);
	peer_call(&waiter, 1, "ping");
	run_for_ms(20);
	peer_close(&holder);
	(void)peer_answer(&waiter, 1);
	peer_close(&waiter);
	teardown();
}
END_TEST

/* A message that never ends keeps all descriptors that may be open; what it sent stays the caller's. */
static void hoard(struct peer *peer, const int *fds, size_t n)
{
	conns.max_fds = n;
	conns.patience.stall = 1;
	peer_send(peer, "\x94", 1, fds, n);
	run_until(all_are_held, NULL);
}

START_TEST(who_keeps_all_descriptors_in_a_message_without_end_is_told_so_and_closed)
{
	struct peer hoarder, waiter;

	setup();
	peer_open(&hoarder);
	hoard(&hoarder, (const int[]){ out, out }, 2);
	peer_open(&waiter);
	peer_call(&waiter, 1, "ping");
	(void)peer_answer(&waiter, 1);
	ck_assert_ptr_nonnull(peer_read(&hoarder));
	ck_assert_int_eq(hoarder.message.type, WIRE_NOTIFICATION);
	ck_assert_ptr_null(peer_read(&hoarder));
	ck_assert_uint_eq(cache.counters.slow_writers, 1);
	peer_close(&hoarder);
	peer_close(&waiter);
	teardown();
}
END_TEST

/* Its end is open in the daemon for as long as the connection is, so that no hanging up shows. */
START_TEST(a_connection_that_was_sent_through_itself_does_not_stay)
{
	struct peer hoarder, waiter;

	setup();
	peer_open(&hoarder);
	hoard(&hoarder, &hoarder.sock, 1);
	peer_close(&hoarder);
	peer_open(&waiter);
	peer_call(&waiter, 1, "ping");
	(void)peer_answer(&waiter, 1);
	peer_close(&waiter);
	run_until(none_open, NULL);
	teardown();
}
END_TEST

/* A message that waits because of others' descriptors may take its time. */
START_TEST(who_has_none_of_the_descriptors_that_are_open_may_be_in_the_middle_of_a_message)
{
	struct wire_out message = { 0 };
	struct peer holder, waiter;
	size_t half;

	setup();
	peer_open(&holder);
	peer_open(&waiter);
	wire_request(&message, 1, "ping");
	wire_map(&message, 0);
	half = message.len + 3;
	wire_request(&message, 2, "ping");
	wire_map(&message, 0);
	peer_send(&waiter, message.data, half, NULL, 0);
	(void)peer_answer(&waiter, 1);
	conns.max_fds = 1;
	conns.patience.stall = 1;
	hold_with_fd(&holder);
	run_until_held(1);
	for (int i = 0; i < 4; i++) /* each second those are looked for that are waited for */
		run_for_ms(900);
	conns.patience.stall = 0;
	peer_send(&waiter, message.data + half, message.len - half, NULL, 0);
	wire_out_fini(&message);
	release();
	(void)peer_answer(&waiter, 2);
	peer_close(&holder);
	peer_close(&waiter);
	teardown();
}
END_TEST

START_TEST(an_answer_can_carry_a_descriptor)
{
	struct wire_out message = { 0 };
	struct digest digest;
	struct peer peer;
	char bytes[16];

	setup();
	digest = store_text("contents", BLOB_PLAIN);
	peer_open(&peer);
	wire_request(&message, 1, "cat");
	wire_map(&message, 1);
	wire_put_digest(&message, "digest", &digest);
	peer_request(&peer, &message, NULL, 0);
	ck_assert_uint_eq(answer_uint(peer_answer(&peer, 1), "size"), 8);
	ck_assert_int_eq(pread(peer.fd, bytes, sizeof(bytes), 0), 8);
	ck_assert_int_eq(memcmp(bytes, "contents", 8), 0);
	ck_assert_int_lt(write(peer.fd, "x", 1), 0);
	peer_close(&peer);
	teardown();
}
END_TEST

static const struct user *only_user(void)
{
	return LIST_ENTRY(service.users.all.next, struct user, link);
}

static bool is_given_many(void *unused)
{
	(void)unused;
	return only_user()->n_given_fds >= CONN_GIVEN_FDS_MAX;
}

static bool is_given_none(void *unused)
{
	(void)unused;
	return only_user()->n_given_fds == 0;
}

START_TEST(who_takes_no_descriptors_is_given_no_more_and_all_when_they_are_taken)
{
	enum { N = 300 };
	struct digest digest;
	struct peer peer;

	setup();
	digest = store_text("contents", BLOB_PLAIN);
	peer_open(&peer);
	for (uint32_t id = 0; id < N; id++) {
		struct wire_out message = { 0 };

		wire_request(&message, id, "cat");
		wire_map(&message, 1);
		wire_put_digest(&message, "digest", &digest);
		peer_request(&peer, &message, NULL, 0);
	}
	run_until(is_given_many, NULL);
	run_for_ms(100);
	ck_assert_uint_lt(only_user()->n_given_fds, CONN_GIVEN_FDS_MAX + CONN_REQUESTS_MAX);
	for (size_t i = 0; i < N; i++) {
		ck_assert_ptr_nonnull(peer_read(&peer));
		ck_assert_int_ge(peer.fd, 0);
		(void)close(TAKE_FD(peer.fd));
	}
	run_until(is_given_none, NULL);
	peer_close(&peer);
	teardown();
}
END_TEST

START_TEST(more_descriptors_than_a_message_may_have_end_the_connection)
{
	enum { N = 200 };
	struct wire_out message = { 0 };
	uint64_t inodes[N];
	struct peer peer;
	size_t n_before;
	int fds[N];

	setup();
	n_before = unit_count_fds();
	ck_assert_int_eq(make_files(fds, inodes, N), 0);
	peer_open(&peer);
	write_inodes_request(&message, 1, 2 * N);
	peer_send(&peer, message.data, 1, fds, N);
	peer_send(&peer, message.data + 1, 1, fds, N);
	wire_out_fini(&message);
	close_files(fds, N);
	ck_assert_ptr_nonnull(peer_read(&peer));
	ck_assert_int_eq(peer.message.type, WIRE_NOTIFICATION);
	ck_assert_ptr_null(peer_read(&peer));
	peer_close(&peer);
	run_until(none_open, NULL);
	run_until_idle();
	ck_assert_uint_eq(unit_count_fds(), n_before);
	teardown();
}
END_TEST

/*
 * Root is let to have any number of descriptors under way, and those of one real user are counted together,
 * whichever process sent them: so this thread, which is the loop, becomes one that nobody else is.
 */
static bool drop_privileges(void)
{
	(void)syscall(SYS_setresuid, 1000000 + getpid(), -1, -1);
	return unit_heed_modes();
}

/* Its user is one again, or the sanitizer that looks for leaks at the end may not look into this process. */
static void take_back_user(void)
{
	(void)syscall(SYS_setresuid, geteuid(), -1, -1);
}

enum { A_WHILE_MS = 200, TURNS_MAX = 2000 }; /* a loop that spins makes a hundred thousand */

static size_t count_turns(void)
{
	bool is_up = false;
	struct event *timer = evtimer_new(base, on_time_up, &is_up);
	size_t n = 0;

	(void)evtimer_add(timer, &(struct timeval){ .tv_usec = A_WHILE_MS * 1000 });
	while (!is_up) {
		(void)event_base_loop(base, EVLOOP_ONCE);
		n++;
	}
	event_free(timer);
	return n;
}

START_TEST(an_answer_whose_descriptor_cannot_be_sent_yet_waits_and_does_not_spin)
{
	enum { N = 100 };
	struct rlimit limit = { .rlim_cur = N, .rlim_max = N };
	struct wire_out message = { 0 };
	struct digest digest;
	struct peer peer;
	int pair[2], in_flight;

	setup();
	digest = store_text("contents", BLOB_PLAIN);
	peer_open(&peer);
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair), 0);
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
	if (!drop_privileges()) {
		(void)fprintf(stderr, "# skipped: capabilities cannot be dropped here\n");
		return;
	}
	for (in_flight = 0; in_flight < 2 * N && socket_send(pair[0], "x", 1, &out, 1) == 1; in_flight++)
		continue;
	ck_assert_int_lt(in_flight, 2 * N);
	wire_request(&message, 1, "cat");
	wire_map(&message, 1);
	wire_put_digest(&message, "digest", &digest);
	peer_request(&peer, &message, NULL, 0);
	ck_assert_uint_lt(count_turns(), TURNS_MAX);
	ck_assert(!peer_has_message_or_end(&peer));
	(void)close(pair[1]);
	(void)close(pair[0]);
	ck_assert_uint_eq(answer_uint(peer_answer(&peer, 1), "size"), 8);
	peer_close(&peer);
	teardown();
	take_back_user();
}
END_TEST

UNIT_MAIN("conn_fds", descriptors_reach_the_request_they_came_with, a_message_may_carry_253_descriptors,
	  another_number_of_descriptors_than_announced_is_refused_and_they_are_closed,
	  descriptors_of_a_request_that_never_became_whole_are_closed,
	  while_too_many_descriptors_are_open_nobody_is_read,
	  who_waited_for_descriptors_is_read_when_the_client_that_sent_them_is_gone,
	  who_keeps_all_descriptors_in_a_message_without_end_is_told_so_and_closed,
	  a_connection_that_was_sent_through_itself_does_not_stay,
	  who_has_none_of_the_descriptors_that_are_open_may_be_in_the_middle_of_a_message,
	  an_answer_can_carry_a_descriptor,
	  who_takes_no_descriptors_is_given_no_more_and_all_when_they_are_taken,
	  more_descriptors_than_a_message_may_have_end_the_connection,
	  an_answer_whose_descriptor_cannot_be_sent_yet_waits_and_does_not_spin)
