/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A client and its connection to the daemon, both in this process: what the client sends is read as the loop
 * runs, and the loop runs while the client waits for an answer.
 */
#ifndef DIRCACHE_TESTS_UNIT_PEER_H
#define DIRCACHE_TESTS_UNIT_PEER_H

#include <sys/socket.h>

#include "common/socket.h"
#include "common/wire.h"
#include "daemon/conn.h"
#include "tests/unit/daemon.h"

static struct service service;
static struct conns conns;

static inline void on_conns_changed(void *ctx)
{
	(void)ctx;
}

static inline void on_freed(struct service *s)
{
	(void)s;
	conns_feed(&conns);
}

/* The socket's side of the daemon, on the cache that is open. methods end with a NULL name. */
static inline void start_service(const struct method *methods)
{
	service = (struct service){
		.cache = &cache,
		.methods = methods,
		.freed = on_freed,
		.single_user = true,
	};
	list_init(&service.waiting);
	users_init(&service.users, &user_limits, cache.pool);
	conns = (struct conns){
		.base = base,
		.service = &service,
		.max_fds = 512,
		.changed = on_conns_changed,
	};
	list_init(&conns.open);
}

static inline void stop_service(void)
{
	conns_close(&conns);
	run_until_idle();
	ck_assert_uint_eq(service.n_fds, 0);
	ck_assert_uint_eq(cache.counters.requests_active, 0);
}

struct peer {
	int sock;
	char *in;
	size_t in_len, in_capacity;
	struct wire_scanner scanner;
	int fd; /* that came with an answer, or -1 */
	bool at_end;

	/* The message that peer_read() returned last. */
	char *bytes;
	struct wire_message message;
};

static inline void peer_open_as(struct peer *peer, uid_t uid)
{
	int fds[2];

	*peer = (struct peer){ .fd = -1 };
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
	peer->sock = fds[0];
	wire_scanner_init(&peer->scanner, &wire_default_limits);
	conn_new(&conns, fds[1], identity_new(uid, getegid(), NULL, 0), false);
}

static inline void peer_open(struct peer *peer)
{
	peer_open_as(peer, geteuid());
}

static inline void peer_drop_message(struct peer *peer)
{
	wire_message_fini(&peer->message);
	peer->message = (struct wire_message){ .id = 0 };
	free(peer->bytes);
	peer->bytes = NULL;
}

static inline void peer_hang_up(struct peer *peer)
{
	(void)close(peer->sock);
	peer->sock = -1;
}

static inline void peer_close(struct peer *peer)
{
	peer_drop_message(peer);
	if (peer->sock >= 0)
		peer_hang_up(peer);
	if (peer->fd >= 0)
		(void)close(peer->fd);
	free(peer->in);
}

/* Send bytes, with descriptors that stay the caller's; the loop runs when there is no room. */
static inline void peer_send(struct peer *peer, const void *bytes, size_t len, const int *fds, size_t n_fds)
{
	size_t sent = 0;

	while (sent < len) {
		ssize_t n = socket_send(peer->sock, (const char *)bytes + sent, len - sent, fds, n_fds);

		if (n > 0) {
			sent += (size_t)n;
			n_fds = 0;
		} else {
			ck_assert_int_eq(n, -EAGAIN);
			(void)event_base_loop(base, EVLOOP_NONBLOCK);
		}
	}
}

/* Send a request that was begun by wire_request() and written; out is empty afterwards. */
static inline void peer_request(struct peer *peer, struct wire_out *out_message, const int *fds, size_t n_fds)
{
	peer_send(peer, out_message->data, out_message->len, fds, n_fds);
	wire_out_fini(out_message);
	*out_message = (struct wire_out){ 0 };
}

/* A request without params. */
static inline void peer_call(struct peer *peer, uint32_t id, const char *method)
{
	struct wire_out message = { 0 };

	wire_request(&message, id, method);
	wire_map(&message, 0);
	peer_request(peer, &message, NULL, 0);
}

static inline void peer_cancel(struct peer *peer, uint32_t id, uint32_t which)
{
	struct wire_out message = { 0 };

	wire_request(&message, id, "cancel");
	wire_map(&message, 1);
	wire_put_uint(&message, "id", which);
	peer_request(peer, &message, NULL, 0);
}

static inline void peer_receive(struct peer *peer)
{
	static char buf[65536];
	int fds[WIRE_DESCRIPTORS_MAX];
	struct socket_received received;
	int r = socket_receive(peer->sock, buf, sizeof(buf), fds, &received);

	if (r == -EAGAIN)
		return;
	if (r < 0 || received.n == 0) {
		peer->at_end = true;
		return;
	}
	for (size_t i = 0; i < received.n_fds; i++) {
		ck_assert_int_lt(peer->fd, 0);
		peer->fd = fds[i];
	}
	peer->in = xreallocarray(peer->in, peer->in_len + (size_t)received.n, 1);
	memcpy(peer->in + peer->in_len, buf, (size_t)received.n);
	peer->in_len += (size_t)received.n;
}

/* Take the next whole message out of what has come. */
static inline bool peer_take(struct peer *peer)
{
	size_t len;
	int r = WIRE_MORE;

	if (peer->in_len)
		r = wire_scanner_feed(&peer->scanner, peer->in, peer->in_len, &err);
	ck_assert_msg(r >= 0, "%s", err.text);
	if (r == WIRE_MORE)
		return false;
	len = peer->scanner.offset;
	peer_drop_message(peer);
	peer->bytes = xmemdupz(peer->in, len);
	peer->in_len -= len;
	memmove(peer->in, peer->in + len, peer->in_len);
	wire_scanner_init(&peer->scanner, &wire_default_limits);
	ck_assert_int_eq(wire_parse(peer->bytes, len, &peer->message, &err), 0);
	return true;
}

static inline bool peer_has_message_or_end(void *ctx)
{
	struct peer *peer = ctx;

	peer_drop_message(peer);
	peer_receive(peer);
	return peer_take(peer) || peer->at_end;
}

/* Nothing to do: it wakes the loop. */
static inline void on_peer_readable(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	(void)arg;
}

/* Wait for the next message. Return: NULL at the end of the stream. */
static inline struct wire_message *peer_read(struct peer *peer)
{
	struct event *readable = event_new(base, peer->sock, EV_READ | EV_PERSIST, on_peer_readable, NULL);

	(void)event_add(readable, NULL);
	run_until(peer_has_message_or_end, peer);
	event_free(readable);
	return peer->bytes ? &peer->message : NULL;
}

/* Wait for an answer without an error. */
static inline const struct wire_value *peer_answer(struct peer *peer, uint32_t id)
{
	struct wire_message *message = peer_read(peer);
	struct err why = { 0 };

	ck_assert_ptr_nonnull(message);
	ck_assert_int_eq(message->type, WIRE_RESPONSE);
	ck_assert_uint_eq(message->id, id);
	if (message->error)
		wire_read_error(message->error, &why, NULL);
	ck_assert_msg(!message->error, "%s", why.text);
	return message->result;
}

/* Wait for an answer with an error, of this code and with these words. */
static inline void peer_ck_error(struct peer *peer, uint32_t id, enum err_code code, const char *words)
{
	struct wire_message *message = peer_read(peer);
	struct err why = { 0 };

	ck_assert_ptr_nonnull(message);
	ck_assert_int_eq(message->type, WIRE_RESPONSE);
	ck_assert_uint_eq(message->id, id);
	ck_assert_ptr_nonnull(message->error);
	wire_read_error(message->error, &why, NULL);
	unit_ck_err(&why, code, words);
}

/* One uint of an answer. */
static inline uint64_t answer_uint(const struct wire_value *answer, const char *key)
{
	const struct wire_field field = { .name = key, .type = WIRE_UINT, .required = true };
	uint64_t value = 0;

	ck_assert_int_eq(wire_decode_open(answer, &field, 1, &value, "answer", &err), 0);
	return value;
}

#endif
