/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/fuzz/client.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/alloc.h"
#include "common/socket.h"
#include "tests/fuzz/world.h"

enum { TURNS_MAX = 20 };

struct digest client_digests[CLIENT_DIGESTS];

void client_init(struct client *client)
{
	*client = (struct client){ .sock = -1, .fd = -1 };
}

void client_connect(struct client *client, uid_t uid)
{
	int ends[2];
	int r = socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends);

	assert(r == 0 && client->sock < 0);
	client_init(client);
	client->sock = ends[0];
	wire_scanner_init(&client->scanner, &wire_default_limits);
	conn_new(&world.conns, ends[1],
		 identity_new(identity_can_act() ? uid : geteuid(), identity_can_act() ? uid : getegid(),
			      NULL, 0),
		 false);
}

void client_hang_up(struct client *client)
{
	if (client->sock >= 0)
		(void)close(client->sock);
	if (client->fd >= 0)
		(void)close(client->fd);
	free(client->in);
	client_init(client);
}

bool client_send(struct client *client, const void *bytes, size_t len, const int *fds, size_t n_fds)
{
	size_t sent = 0;

	for (unsigned turns = 0; sent < len && turns < TURNS_MAX; turns++) {
		ssize_t n = socket_send(client->sock, (const char *)bytes + sent, len - sent, fds, n_fds);

		if (n > 0) {
			sent += (size_t)n;
			n_fds = 0;
		} else {
			world_turn();
		}
	}
	return sent == len;
}

/* ---- answers ---- */

static void note_digest(const struct digest *digest)
{
	static size_t next;

	for (size_t i = 0; i < CLIENT_DIGESTS; i++)
		if (digest_equal(&client_digests[i], digest))
			return;
	client_digests[next++ % CLIENT_DIGESTS] = *digest;
}

/* Of `stats`, `verify` and `put`. */
struct told {
	struct digest digest;
	bool has_digest, has_put, has_faults, has_blobs;
	uint64_t put, faults_total, blobs, fds;
};

static const struct wire_field told_fields[] = {
	WIRE_OPTIONAL(struct told, digest, WIRE_DIGEST, has_digest),
	WIRE_OPTIONAL(struct told, put, WIRE_UINT, has_put),
	WIRE_OPTIONAL(struct told, faults_total, WIRE_UINT, has_faults),
	WIRE_OPTIONAL(struct told, blobs, WIRE_UINT, has_blobs),
	WIRE_FIELD(struct told, fds, WIRE_UINT, false),
};

static void check_result(struct client *client, const struct wire_value *result)
{
	struct told told = { .fds = 0 };
	int r;

	assert(wire_kind(result) == WIRE_IS_MAP);
	r = wire_decode_open(result, told_fields, N_ELEMENTS(told_fields), &told, "answer", NULL);
	assert(r == 0);
	if (told.has_digest)
		note_digest(&told.digest);
	if (told.has_put || told.has_faults || told.has_blobs)
		client->value = told.has_put ? told.put : told.has_faults ? told.faults_total : told.blobs;
	assert(told.fds <= (client->fd >= 0));
	if (told.fds)
		(void)close(TAKE_FD(client->fd));
}

struct said {
	struct wire_bytes code, message;
};

static const struct wire_field said_fields[] = {
	WIRE_FIELD(struct said, code, WIRE_TEXT, true),
	WIRE_FIELD(struct said, message, WIRE_TEXT, true),
};

/* A word of the protocol's table, and words for people. */
static void check_error(const struct wire_value *error)
{
	struct said said = { .code = { NULL, 0 } };
	int r = wire_decode_open(error, said_fields, N_ELEMENTS(said_fields), &said, "error", NULL);

	assert(r == 0 && said.message.len > 0);
	assert(wire_is(&said.code, err_code_text(err_code_parse(said.code.data, said.code.len))));
}

static void check_message(struct client *client, const struct wire_message *message)
{
	assert(message->type != WIRE_REQUEST);
	if (message->type == WIRE_NOTIFICATION) {
		assert(wire_is(&message->method, "progress") || wire_is(&message->method, "error"));
		if (wire_is(&message->method, "error")) {
			check_error(message->params);
			assert(client->is_wild);
		}
		return;
	}
	client->n_answered++;
	err_clear(&client->failure);
	if (message->error) {
		check_error(message->error);
		wire_read_error(message->error, &client->failure, NULL);
	}
	if (!message->error)
		check_result(client, message->result);
}

/* Return: was there a whole message? */
static bool take_message(struct client *client)
{
	CLEANUP(wire_message_fini) struct wire_message message = { .id = 0 };
	AUTO_FREE char *bytes = NULL;
	size_t len;
	int r = client->in_len ? wire_scanner_feed(&client->scanner, client->in, client->in_len, NULL)
			       : WIRE_MORE;

	assert(r >= 0);
	if (r == WIRE_MORE)
		return false;
	len = client->scanner.offset;
	bytes = xmemdupz(client->in, len);
	client->in_len -= len;
	memmove(client->in, client->in + len, client->in_len);
	wire_scanner_init(&client->scanner, &wire_default_limits);
	r = wire_parse(bytes, len, &message, NULL);
	assert(r == 0);
	check_message(client, &message);
	assert(client->is_wild || client->n_answered <= client->n_asked);
	return true;
}

/* Return: did anything come? */
static bool receive(struct client *client)
{
	static char buf[65536];
	int fds[WIRE_DESCRIPTORS_MAX];
	struct socket_received received;
	int r = socket_receive(client->sock, buf, sizeof(buf), fds, &received);

	if (r < 0 || received.n == 0) {
		/* Nobody hangs up on a client that keeps to the protocol. */
		assert(r == -EAGAIN || client->is_wild);
		return false;
	}
	assert(received.n_fds <= 1 && !received.truncated);
	if (received.n_fds) {
		assert(client->fd < 0);
		client->fd = fds[0];
	}
	client->in = xreallocarray(client->in, client->in_len + (size_t)received.n, 1);
	memcpy(client->in + client->in_len, buf, (size_t)received.n);
	client->in_len += (size_t)received.n;
	return true;
}

void client_read(struct client *client)
{
	while (client->sock >= 0 && receive(client))
		while (take_message(client))
			;
}

void client_wait(struct client *client)
{
	uint64_t deadline = world_deadline();

	client_read(client);
	while (client->sock >= 0 && !client->is_wild && client->n_answered < client->n_asked) {
		world_turn();
		client_read(client);
		world_check_deadline(deadline, "a request has no answer");
	}
}

void client_must_succeed(const struct client *client)
{
	if (!client->failure.set)
		return;
	(void)fprintf(stderr, "a request failed: %s\n", client->failure.text);
	abort();
}

void client_call(struct client *client, struct wire_out *message)
{
	bool sent = client_send(client, message->data, message->len, NULL, 0);

	assert(sent);
	client->last_id++;
	client->n_asked++;
	wire_out_fini(message);
	*message = (struct wire_out){ 0 };
	client_wait(client);
}
