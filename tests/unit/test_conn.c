/* SPDX-License-Identifier: Apache-2.0 */
/* Connections and requests, from the bytes of a client to the bytes of its answers. */
#include "daemon/conn.h"

#include "daemon/info.h"
#include "daemon/look.h"
#include "tests/unit/peer.h"

/* ---- methods to test with ---- */

enum { HELD_MAX = 256 };
static struct request *held[HELD_MAX];
static size_t n_held, n_started, n_cancelled;
static bool end_when_cancelled;

static void forget(const struct request *request)
{
	for (size_t i = 0; i < n_held; i++)
		if (held[i] == request)
			held[i] = held[--n_held];
}

static void on_hold_cancel(struct request *request)
{
	struct err why = { 0 };

	n_cancelled++;
	if (!end_when_cancelled)
		return;
	forget(request);
	err_set(&why, ERR_CANCELLED, "hold: cancelled");
	request_fail(request, &why);
}

/* Keep the request until release(). */
static void hold_start(struct request *request)
{
	n_started++;
	request->cancel = on_hold_cancel;
	held[n_held++] = request;
}

static void release(void)
{
	struct request *now[HELD_MAX];
	size_t n = n_held;

	memcpy(now, held, sizeof(now));
	n_held = 0; /* what comes in meanwhile is held again */
	for (size_t i = 0; i < n; i++)
		request_ok(now[i]);
}

/* Answer with the inode numbers of the descriptors that came. */
static void inodes_start(struct request *request)
{
	struct wire_out *answer = request_reply(request);

	n_started++;
	wire_map(answer, 1);
	wire_text(answer, "inodes");
	wire_array(answer, request->n_fds);
	for (size_t i = 0; i < request->n_fds; i++) {
		struct stat st;

		ck_assert_int_eq(fstat(request->fds[i], &st), 0);
		wire_uint(answer, st.st_ino);
	}
	request_send(request);
}

/* Answer with 100 KB. */
static void large_start(struct request *request)
{
	static char bytes[100000];
	struct wire_out *answer = request_reply(request);

	n_started++;
	wire_map(answer, 1);
	wire_put_bytes(answer, "bytes", bytes, sizeof(bytes));
	request_send(request);
}

static const struct method methods[] = {
	{ "ping", ping_start, true },     { "stats", stats_start, true }, { "cat", cat_start, false },
	{ "cancel", cancel_start, true }, { "hold", hold_start, false },  { "inodes", inodes_start, false },
	{ "large", large_start, false },  { NULL, NULL, false },
};

static void setup(void)
{
	start_cache();
	start_service(methods);
}

static void teardown(void)
{
	while (n_held)
		release();
	stop_service();
	stop_cache();
}

static bool enough_held(void *n)
{
	return n_held >= *(size_t *)n;
}

static void run_until_held(size_t n)
{
	run_until(enough_held, &n);
}

static bool none_open(void *ctx)
{
	(void)ctx;
	return conns.n == 0;
}

/* ---- bytes ---- */

START_TEST(a_request_gets_one_answer)
{
	struct peer peer;

	setup();
	peer_open(&peer);
	peer_call(&peer, 7, "ping");
	ck_assert_uint_eq(answer_uint(peer_answer(&peer, 7), "protocol"), 1);
	ck_assert_uint_eq(cache.counters.requests, 1);
	ck_assert_uint_eq(cache.counters.requests_active, 0);
	peer_close(&peer);
	run_until(none_open, NULL);
	teardown();
}
END_TEST

START_TEST(a_request_may_come_byte_by_byte)
{
	struct wire_out message = { 0 };
	struct peer peer;

	setup();
	peer_open(&peer);
	wire_request(&message, UINT32_MAX, "ping");
	wire_map(&message, 0);
	for (size_t i = 0; i < message.len; i++) {
		peer_send(&peer, message.data + i, 1, NULL, 0);
		(void)event_base_loop(base, EVLOOP_NONBLOCK);
	}
	(void)peer_answer(&peer, UINT32_MAX);
	wire_out_fini(&message);
	peer_close(&peer);
	teardown();
}
END_TEST

START_TEST(a_thousand_requests_in_one_write_are_all_answered_in_order)
{
	struct wire_out messages = { 0 };
	struct peer peer;

	setup();
	peer_open(&peer);
	for (uint32_t id = 0; id < 1000; id++) {
		wire_request(&messages, id, "stats");
		wire_map(&messages, 0);
	}
	peer_request(&peer, &messages, NULL, 0);
	for (uint32_t id = 0; id < 1000; id++)
		(void)peer_answer(&peer, id);
	peer_close(&peer);
	teardown();
}
END_TEST

/* The end of a connection that sent what is no request: words, then nothing. */
static void ck_ended_with(const void *bytes, size_t len, const char *words)
{
	static const struct wire_field fields[] = { { .name = "message", .type = WIRE_BYTES } };
	struct wire_bytes said = { 0 };
	struct wire_message *message;
	struct peer peer;

	peer_open(&peer);
	peer_call(&peer, 1, "ping");
	(void)peer_answer(&peer, 1);
	peer_send(&peer, bytes, len, NULL, 0);
	message = peer_read(&peer);
	ck_assert_ptr_nonnull(message);
	ck_assert_int_eq(message->type, WIRE_NOTIFICATION);
	ck_assert(wire_is(&message->method, "error"));
	ck_assert_int_eq(wire_decode_open(message->params, fields, 1, &said, "", &err), 0);
	ck_assert_msg(memmem(said.data, said.len, words, strlen(words)), "'%.*s' does not say '%s'",
		      (int)said.len, said.data, words);
	ck_assert_ptr_null(peer_read(&peer));
	peer_close(&peer);
}

START_TEST(garbage_ends_the_connection_with_an_error)
{
	static const unsigned char huge[] = { 0x94, 0, 1, 0xdb, 0xff, 0xff, 0xff, 0xff };
	unsigned char nested[64];
	struct peer other;

	setup();
	peer_open(&other);
	memset(nested, 0x91, sizeof(nested));
	ck_ended_with("GET / HTTP/1.1\r\n\r\n", 18, "");
	ck_ended_with("\xc1", 1, "");
	ck_ended_with(huge, sizeof(huge), "");
	ck_ended_with(nested, sizeof(nested), "");
	ck_ended_with("\x94\x01\x01\xc0\xc0", 5, "a client sends requests only");
	ck_ended_with("\x93\x02\xa4ping\x91\x80", 9, "a client sends requests only");
	peer_call(&other, 1, "ping"); /* not affected */
	(void)peer_answer(&other, 1);
	peer_close(&other);
	teardown();
}
END_TEST

START_TEST(random_bytes_never_do_more_than_end_their_connection)
{
	uint64_t random = 88172645463325252u;
	unsigned char bytes[256];
	struct peer peer;

	setup();
	for (unsigned round = 0; round < 500; round++) {
		for (size_t i = 0; i < sizeof(bytes); i++) {
			random ^= random << 13, random ^= random >> 7, random ^= random << 17;
			bytes[i] = (unsigned char)random;
		}
		if (round % 2) /* as far as the method's name it is right */
			memcpy(bytes, "\x94\x00\x01\xa4ping\x91", 9);
		peer_open(&peer);
		(void)socket_send(peer.sock, bytes, sizeof(bytes), NULL, 0);
		(void)event_base_loop(base, EVLOOP_NONBLOCK);
		peer_close(&peer);
	}
	run_until(none_open, NULL);
	teardown();
}
END_TEST

START_TEST(garbage_behind_a_request_cancels_it_and_both_are_answered)
{
	struct wire_message *message;
	struct peer peer;

	setup();
	end_when_cancelled = true;
	peer_open(&peer);
	peer_call(&peer, 1, "hold");
	run_until_held(1);
	peer_send(&peer, "\xc1", 1, NULL, 0);
	message = peer_read(&peer);
	ck_assert_int_eq(message->type, WIRE_NOTIFICATION);
	peer_ck_error(&peer, 1, ERR_CANCELLED, "cancelled");
	ck_assert_ptr_null(peer_read(&peer));
	peer_close(&peer);
	teardown();
}
END_TEST

/* ---- requests ---- */

START_TEST(what_is_wrong_with_a_request_fails_it_alone)
{
	struct wire_out message = { 0 };
	struct peer peer;

	setup();
	peer_open(&peer);
	peer_call(&peer, 1, "nonsense");
	peer_ck_error(&peer, 1, ERR_INVALID_ARGUMENT, "no method 'nonsense'");
	wire_request(&message, 2, "ping");
	wire_map(&message, 1);
	wire_put_uint(&message, "unknown", 1);
	peer_request(&peer, &message, NULL, 0);
	peer_ck_error(&peer, 2, ERR_INVALID_ARGUMENT, "unknown");
	wire_request(&message, 3, "ping");
	wire_map(&message, 1);
	wire_put_uint(&message, "x-unknown", 1);
	peer_request(&peer, &message, NULL, 0);
	(void)peer_answer(&peer, 3);
	ck_assert_uint_eq(cache.counters.errors, 2);
	peer_close(&peer);
	teardown();
}
END_TEST

START_TEST(an_id_that_is_open_is_refused)
{
	struct peer peer;

	setup();
	peer_open(&peer);
	peer_call(&peer, 5, "hold");
	run_until_held(1);
	peer_call(&peer, 5, "ping");
	peer_ck_error(&peer, 5, ERR_INVALID_ARGUMENT, "the id 5 is that of an open request");
	release();
	(void)peer_answer(&peer, 5);
	peer_call(&peer, 5, "ping"); /* now it may be used again */
	(void)peer_answer(&peer, 5);
	peer_close(&peer);
	teardown();
}
END_TEST

START_TEST(cancel_reaches_the_request_named_and_no_other)
{
	struct peer peer;

	setup();
	end_when_cancelled = true;
	peer_open(&peer);
	peer_call(&peer, 1, "hold");
	peer_call(&peer, 2, "hold");
	run_until_held(2);
	peer_cancel(&peer, 3, 2);
	peer_ck_error(&peer, 2, ERR_CANCELLED, "hold");
	(void)peer_answer(&peer, 3);
	ck_assert_uint_eq(n_held, 1);
	peer_cancel(&peer, 4, 2); /* is over */
	(void)peer_answer(&peer, 4);
	peer_cancel(&peer, 5, 5); /* itself */
	(void)peer_answer(&peer, 5);
	ck_assert_uint_eq(n_cancelled, 1);
	release();
	(void)peer_answer(&peer, 1);
	peer_close(&peer);
	teardown();
}
END_TEST

START_TEST(a_request_that_outlives_its_client_is_dropped_quietly)
{
	struct peer peer;

	setup();
	peer_open(&peer);
	peer_call(&peer, 1, "hold");
	run_until_held(1);
	peer_hang_up(&peer);
	run_until(none_open, NULL);
	ck_assert_uint_eq(n_cancelled, 1);
	ck_assert_ptr_null(held[0]->session);
	ck_assert_uint_eq(cache.counters.requests_active, 1);
	request_progress(held[0], 1, 2, 3, 4); /* nobody is there */
	release();
	ck_assert_uint_eq(cache.counters.requests_active, 0);
	peer_close(&peer);
	teardown();
}
END_TEST

START_TEST(no_more_than_64_requests_of_a_connection_are_open)
{
	struct peer peer, other;

	setup();
	peer_open(&peer);
	peer_open(&other);
	for (uint32_t id = 0; id < 100; id++)
		peer_call(&peer, id, "hold");
	run_until_held(CONN_REQUESTS_MAX);
	peer_call(&other, 1, "ping"); /* another connection has its own 64 */
	(void)peer_answer(&other, 1);
	run_for_ms(50);
	ck_assert_uint_eq(n_held, CONN_REQUESTS_MAX);
	release();
	run_until_held(100 - CONN_REQUESTS_MAX);
	release();
	ck_assert_uint_eq(n_started, 100);
	for (unsigned i = 0; i < 100; i++)
		ck_assert_ptr_nonnull(peer_read(&peer));
	peer_close(&peer);
	peer_close(&other);
	teardown();
}
END_TEST

START_TEST(a_client_that_dies_with_64_requests_open_is_noticed)
{
	struct peer peer;

	setup();
	end_when_cancelled = true;
	peer_open(&peer);
	for (uint32_t id = 0; id < CONN_REQUESTS_MAX; id++)
		peer_call(&peer, id, "hold");
	run_until_held(CONN_REQUESTS_MAX);
	peer_close(&peer);
	run_until(none_open, NULL);
	ck_assert_uint_eq(n_cancelled, CONN_REQUESTS_MAX);
	teardown();
}
END_TEST

/* The sixty-fifth is a `cancel` of the second, let in when the first of them is cancelled by the stop. */
START_TEST(cancelling_all_is_safe_when_that_lets_in_a_cancel_of_the_next)
{
	struct peer peer;

	setup();
	end_when_cancelled = true;
	peer_open(&peer);
	for (uint32_t id = 0; id < CONN_REQUESTS_MAX; id++)
		peer_call(&peer, id, "hold");
	run_until_held(CONN_REQUESTS_MAX);
	peer_cancel(&peer, 1000, 1);
	peer_cancel(&peer, 1001, 2);
	peer_call(&peer, 1002, "hold");
	run_for_ms(20);
	conns_cancel(&conns);
	run_until_idle();
	ck_assert_uint_ge(n_cancelled, CONN_REQUESTS_MAX);
	peer_close(&peer);
	run_until(none_open, NULL);
	teardown();
}
END_TEST

START_TEST(a_client_that_takes_no_answers_is_read_no_further)
{
	struct peer peer;

	setup();
	peer_open(&peer);
	for (uint32_t id = 0; id < 200; id++)
		peer_call(&peer, id, "large");
	run_for_ms(100);
	ck_assert_uint_lt(n_started, 30); /* a megabyte, and what the socket holds */
	for (uint32_t id = 0; id < 200; id++)
		(void)peer_answer(&peer, id);
	ck_assert_uint_eq(n_started, 200);
	peer_close(&peer);
	teardown();
}
END_TEST

START_TEST(requests_wait_until_the_cache_is_ready_and_ping_does_not)
{
	struct peer peer;

	setup();
	cache.ready = false;
	peer_open(&peer);
	peer_call(&peer, 1, "hold");
	peer_call(&peer, 2, "inodes");
	peer_call(&peer, 3, "hold");
	peer_call(&peer, 4, "ping");
	(void)peer_answer(&peer, 4);
	ck_assert_uint_eq(n_started, 0);
	peer_cancel(&peer, 5, 3); /* has not begun */
	peer_ck_error(&peer, 3, ERR_CANCELLED, "before it began");
	(void)peer_answer(&peer, 5);
	cache.ready = true;
	requests_ready(&service);
	(void)peer_answer(&peer, 2);
	ck_assert_uint_eq(n_held, 1);
	peer_close(&peer);
	teardown();
}
END_TEST

START_TEST(a_daemon_that_stops_answers_ping_and_refuses_work)
{
	struct peer peer;

	setup();
	service.stopping = true;
	peer_open(&peer);
	peer_call(&peer, 1, "hold");
	peer_ck_error(&peer, 1, ERR_UNAVAILABLE, "stopping");
	peer_call(&peer, 2, "ping");
	(void)peer_answer(&peer, 2);
	peer_close(&peer);
	teardown();
}
END_TEST

/* ---- descriptors ---- */

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

static size_t count_open_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	size_t n = 0;

	while (readdir(dir))
		n++;
	(void)closedir(dir);
	return n;
}

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
	n_before = count_open_fds();
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
	ck_assert_uint_eq(count_open_fds(), n_before);
	close_files(fds, 3);
	peer_close(&peer);
	teardown();
}
END_TEST

START_TEST(descriptors_of_a_request_that_never_became_whole_are_closed)
{
	struct wire_out message = { 0 };
	uint64_t inodes[3];
	struct peer peer;
	size_t n_before;
	int fds[3];

	setup();
	n_before = count_open_fds();
	ck_assert_int_eq(make_files(fds, inodes, 3), 0);
	peer_open(&peer);
	write_inodes_request(&message, 1, 3);
	peer_send(&peer, message.data, message.len - 1, fds, 3);
	wire_out_fini(&message);
	close_files(fds, 3);
	run_for_ms(20);
	ck_assert_uint_eq(service.n_fds, 3);
	peer_close(&peer);
	run_until(none_open, NULL);
	run_until_idle();
	ck_assert_uint_eq(service.n_fds, 0);
	ck_assert_uint_eq(count_open_fds(), n_before);
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

UNIT_MAIN("conn", a_request_gets_one_answer, a_request_may_come_byte_by_byte,
	  a_thousand_requests_in_one_write_are_all_answered_in_order,
	  garbage_ends_the_connection_with_an_error, random_bytes_never_do_more_than_end_their_connection,
	  garbage_behind_a_request_cancels_it_and_both_are_answered,
	  what_is_wrong_with_a_request_fails_it_alone, an_id_that_is_open_is_refused,
	  cancel_reaches_the_request_named_and_no_other,
	  a_request_that_outlives_its_client_is_dropped_quietly,
	  no_more_than_64_requests_of_a_connection_are_open,
	  a_client_that_dies_with_64_requests_open_is_noticed,
	  cancelling_all_is_safe_when_that_lets_in_a_cancel_of_the_next,
	  a_client_that_takes_no_answers_is_read_no_further,
	  requests_wait_until_the_cache_is_ready_and_ping_does_not,
	  a_daemon_that_stops_answers_ping_and_refuses_work, descriptors_reach_the_request_they_came_with,
	  a_message_may_carry_253_descriptors,
	  another_number_of_descriptors_than_announced_is_refused_and_they_are_closed,
	  descriptors_of_a_request_that_never_became_whole_are_closed,
	  while_too_many_descriptors_are_open_nobody_is_read,
	  who_waited_for_descriptors_is_read_when_the_client_that_sent_them_is_gone,
	  an_answer_can_carry_a_descriptor)
