/* SPDX-License-Identifier: Apache-2.0 */
/* Messages that are large, or of many values: parsed by workers, in the order that they came. */
#include "daemon/conn.h"

#include "tests/unit/hold.h"

enum { MANY = 50000 };

/* A request with a key of many values, which is passed over. */
static void write_heavy(struct wire_out *message, uint32_t id, const char *method, size_t n_fds)
{
	wire_request(message, id, method);
	wire_map(message, 1 + (n_fds > 0));
	if (n_fds)
		wire_put_uint(message, "fds", n_fds);
	wire_text(message, "x-many");
	wire_array(message, MANY);
	for (size_t i = 0; i < MANY; i++)
		wire_uint(message, i);
}

/* One of many bytes and few values. */
static void write_large(struct wire_out *message, uint32_t id, size_t size)
{
	char *bytes = xcalloc(size, 1);

	wire_request(message, id, "ping");
	wire_map(message, 1);
	wire_put_bytes(message, "x-large", bytes, size);
	free(bytes);
}

START_TEST(what_is_parsed_by_a_worker_keeps_its_place)
{
	struct wire_out message = { 0 };
	struct peer peer;

	setup();
	peer_open(&peer);
	for (uint32_t id = 0; id < 30; id++) {
		if (id % 3)
			peer_call(&peer, id, "ping");
		else
			write_heavy(&message, id, "ping", 0);
		if (message.len)
			peer_request(&peer, &message, NULL, 0);
	}
	for (uint32_t id = 0; id < 30; id++)
		(void)peer_answer(&peer, id);
	run_until_idle();
	ck_assert_uint_eq(service.n_large, 0);
	peer_close(&peer);
	teardown();
}
END_TEST

START_TEST(large_messages_come_through_whole_however_they_are_cut)
{
	static const size_t sizes[] = { INBOX_READ - 40,    INBOX_READ, INBOX_USUAL - 40,     INBOX_USUAL,
					3 * INBOX_READ - 7, 1 << 20,    WIRE_MESSAGE_MAX - 64 };
	struct wire_out message = { 0 };
	struct peer peer;

	setup();
	peer_open(&peer);
	for (uint32_t i = 0; i < N_ELEMENTS(sizes); i++) {
		for (uint32_t id = 0; id < 3; id++) /* of which two are together in the buffer */
			write_large(&message, id, sizes[i]);
		wire_request(&message, 3, "ping");
		wire_map(&message, 0);
		peer_request(&peer, &message, NULL, 0);
		for (uint32_t id = 0; id < 4; id++)
			(void)peer_answer(&peer, id);
	}
	run_until_idle();
	ck_assert_uint_eq(service.n_large, 0);
	peer_close(&peer);
	teardown();
}
END_TEST

START_TEST(descriptors_of_a_large_message_are_its_own)
{
	struct wire_out message = { 0 };
	struct peer peer;
	size_t n_before;

	setup();
	peer_open(&peer);
	n_before = unit_count_fds();
	write_heavy(&message, 1, "hold", 2);
	peer_request(&peer, &message, (int[]){ out, out }, 2);
	peer_call(&peer, 2, "hold");
	run_until_held(2);
	ck_assert_uint_eq(held[0]->n_fds, 2);
	ck_assert_uint_eq(held[1]->n_fds, 0);
	release();
	run_until_idle();
	ck_assert_uint_eq(service.n_fds, 0);
	ck_assert_uint_eq(unit_count_fds(), n_before);
	peer_close(&peer);
	teardown();
}
END_TEST

START_TEST(a_client_that_is_gone_while_its_message_is_parsed_leaves_nothing)
{
	struct wire_out message = { 0 };
	struct peer peer;

	setup();
	for (unsigned i = 0; i < 20; i++) {
		peer_open(&peer);
		write_heavy(&message, 1, "hold", 1);
		peer_request(&peer, &message, &out, 1);
		peer_close(&peer);
	}
	run_until(none_open, NULL);
	run_until_idle();
	while (n_held)
		release();
	ck_assert_uint_eq(cache.counters.requests_active, 0);
	ck_assert_uint_eq(service.n_fds, 0);
	teardown();
}
END_TEST

START_TEST(what_is_no_request_ends_the_connection_after_a_worker_has_seen_it)
{
	struct wire_out message = { 0 };
	struct wire_message *answer;
	struct peer peer;

	setup();
	peer_open(&peer);
	wire_array(&message, MANY);
	for (size_t i = 0; i < MANY; i++)
		wire_nil(&message);
	peer_request(&peer, &message, NULL, 0);
	answer = peer_read(&peer);
	ck_assert_ptr_nonnull(answer);
	ck_assert_int_eq(answer->type, WIRE_NOTIFICATION);
	ck_assert(wire_is(&answer->method, "error"));
	ck_assert_ptr_null(peer_read(&peer));
	peer_close(&peer);
	run_until(none_open, NULL);
	teardown();
}
END_TEST

/* Half of a message that outgrew the usual buffer. */
static void send_half(struct peer *peer)
{
	static char bytes[INBOX_USUAL];
	struct wire_out message = { 0 };

	wire_request(&message, 1, "ping");
	wire_map(&message, 1);
	wire_text(&message, "x-large");
	wire_bytes(&message, bytes, sizeof(bytes));
	peer_send(peer, message.data, message.len - 1, NULL, 0);
	wire_out_fini(&message);
}

static bool n_large_is(void *n)
{
	return service.n_large == *(size_t *)n;
}

START_TEST(one_user_has_so_many_large_messages_and_the_next_waits)
{
	struct wire_out message = { 0 };
	size_t n = 8;
	struct peer peers[8], late, other;

	setup();
	for (size_t i = 0; i < n; i++) {
		peer_open(&peers[i]);
		send_half(&peers[i]);
		run_until(n_large_is, &(size_t){ i + 1 });
	}
	peer_open(&late);
	peer_open_as(&other, 12345);
	write_large(&message, 1, INBOX_USUAL);
	(void)socket_send(late.sock, message.data, message.len, NULL, 0);
	peer_request(&other, &message, NULL, 0);
	(void)peer_answer(&other, 1); /* he has others of his own */
	peer_call(&other, 2, "ping");
	(void)peer_answer(&other, 2);
	peer_receive(&late);
	ck_assert_uint_eq(late.in_len, 0);
	peer_close(&peers[0]);
	(void)peer_answer(&late, 1);
	for (size_t i = 1; i < n; i++)
		peer_close(&peers[i]);
	peer_close(&late);
	peer_close(&other);
	run_until(none_open, NULL);
	run_until_idle();
	ck_assert_uint_eq(service.n_large, 0);
	teardown();
}
END_TEST

UNIT_MAIN("conn_large", what_is_parsed_by_a_worker_keeps_its_place,
	  large_messages_come_through_whole_however_they_are_cut, descriptors_of_a_large_message_are_its_own,
	  a_client_that_is_gone_while_its_message_is_parsed_leaves_nothing,
	  what_is_no_request_ends_the_connection_after_a_worker_has_seen_it,
	  one_user_has_so_many_large_messages_and_the_next_waits)
