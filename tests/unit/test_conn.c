/* SPDX-License-Identifier: Apache-2.0 */
/* Connections and requests, from the bytes of a client to the bytes of its answers. */
#include "daemon/conn.h"

#include "tests/unit/hold.h"

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
	static const unsigned char head[] = { 0x94, 0x00, 0x01, 0xa4, 'p', 'i', 'n', 'g', 0x91 };
	unsigned char bytes[256];
	struct peer peer;

	setup();
	for (unsigned round = 0; round < 500; round++) {
		for (size_t i = 0; i < sizeof(bytes); i++) {
			random ^= random << 13, random ^= random >> 7, random ^= random << 17;
			bytes[i] = (unsigned char)random;
		}
		if (round % 2) /* as far as the method's name it is right */
			memcpy(bytes, head, sizeof(head));
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
	ck_assert_ptr_nonnull(message);
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

/* As many requests as a connection may have open, which end when they are cancelled. */
static void open_64(struct peer *peer)
{
	end_when_cancelled = true;
	peer_open(peer);
	for (uint32_t id = 0; id < CONN_REQUESTS_MAX; id++)
		peer_call(peer, id, "hold");
	run_until_held(CONN_REQUESTS_MAX);
}

START_TEST(a_client_that_dies_with_64_requests_open_is_noticed)
{
	struct peer peer;

	setup();
	open_64(&peer);
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
	open_64(&peer);
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
	  a_daemon_that_stops_answers_ping_and_refuses_work)
