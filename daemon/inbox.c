/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/inbox.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/alloc.h"
#include "common/auto.h"
#include "common/socket.h"

/* Descriptors that came with the byte before a position of the stream. */
struct arrival {
	uint64_t end;
	int *fds;
	size_t n;
	bool truncated;
};

void inbox_init(struct inbox *inbox)
{
	*inbox = (struct inbox){ 0 };
	wire_scanner_init(&inbox->scanner, &wire_default_limits);
}

void inbox_fini(struct inbox *inbox)
{
	assert(inbox->n_arrivals == 0);
	free(inbox->arrivals);
	free(inbox->bytes);
}

bool inbox_wants_large(const struct inbox *inbox)
{
	return inbox->capacity == INBOX_USUAL && inbox->capacity - inbox->len < INBOX_READ;
}

bool inbox_is_large(const struct inbox *inbox)
{
	return inbox->capacity == INBOX_LARGE;
}

bool inbox_is_empty(const struct inbox *inbox)
{
	return inbox->len == 0;
}

bool inbox_has_fds(const struct inbox *inbox)
{
	return inbox->n_arrivals > 0;
}

/* ---- descriptors ---- */

static void note_arrival(struct inbox *inbox, const int *fds, const struct socket_received *received)
{
	struct arrival *arrival;

	if (!received->n_fds && !received->truncated)
		return;
	inbox->arrivals = xgrow(inbox->arrivals, inbox->n_arrivals, &inbox->arrivals_capacity,
				sizeof(*inbox->arrivals));
	arrival = &inbox->arrivals[inbox->n_arrivals++];
	*arrival = (struct arrival){
		.end = inbox->start + inbox->len,
		.n = received->n_fds,
		.truncated = received->truncated,
	};
	if (received->n_fds) {
		arrival->fds = xreallocarray(NULL, received->n_fds, sizeof(*fds));
		memcpy(arrival->fds, fds, received->n_fds * sizeof(*fds));
	}
}

/* The descriptors of the message that ends at a position; those that came inside it are its own. */
static void take_arrivals(struct inbox *inbox, uint64_t end, struct packet *packet)
{
	size_t i;

	for (i = 0; i < inbox->n_arrivals && inbox->arrivals[i].end <= end; i++) {
		struct arrival *arrival = &inbox->arrivals[i];

		if (arrival->n) {
			packet->fds =
				xreallocarray(packet->fds, packet->n_fds + arrival->n, sizeof(*packet->fds));
			memcpy(packet->fds + packet->n_fds, arrival->fds, arrival->n * sizeof(*arrival->fds));
		}
		packet->n_fds += arrival->n;
		packet->truncated |= arrival->truncated;
		free(arrival->fds);
	}
	inbox->n_arrivals -= i;
	if (i && inbox->n_arrivals)
		memmove(inbox->arrivals, inbox->arrivals + i, inbox->n_arrivals * sizeof(*inbox->arrivals));
}

int *inbox_take_fds(struct inbox *inbox, size_t *n_fds)
{
	struct packet packet = { 0 };

	take_arrivals(inbox, UINT64_MAX, &packet);
	*n_fds = packet.n_fds;
	return packet.fds;
}

/* What came with a message that is not whole yet. */
static int check_arrivals(const struct inbox *inbox, struct err *err)
{
	size_t n = 0;

	for (size_t i = 0; i < inbox->n_arrivals; i++)
		n += inbox->arrivals[i].n + inbox->arrivals[i].truncated;
	if (n <= WIRE_DESCRIPTORS_MAX)
		return WIRE_MORE;
	err_set(err, ERR_RESOURCE_EXHAUSTED, "more than %d descriptors came with one message",
		WIRE_DESCRIPTORS_MAX);
	return -EBADMSG;
}

/* ---- bytes ---- */

/* The large buffer is not filled here, so it takes no memory but where bytes come to be. */
static void make_room(struct inbox *inbox)
{
	if (inbox->capacity - inbox->len >= INBOX_READ)
		return;
	inbox->capacity = inbox->capacity ? INBOX_LARGE : INBOX_USUAL;
	inbox->bytes = xreallocarray(inbox->bytes, inbox->capacity, 1);
}

ssize_t inbox_receive(struct inbox *inbox, int sock, size_t *n_fds)
{
	int fds[WIRE_DESCRIPTORS_MAX];
	struct socket_received received;
	int r;

	*n_fds = 0;
	make_room(inbox);
	r = socket_receive(sock, inbox->bytes + inbox->at + inbox->len, INBOX_READ, fds, &received);
	if (r < 0)
		return r;
	inbox->len += (size_t)received.n;
	note_arrival(inbox, fds, &received);
	*n_fds = received.n_fds;
	return received.n;
}

/* The message takes its buffer along; what came behind it is less than was received at a time. */
static void take_buffer(struct inbox *inbox, struct packet *packet)
{
	size_t rest = inbox->len - packet->len;

	assert(inbox->at == 0 && rest < INBOX_READ); /* it began before it outgrew the usual buffer */
	packet->bytes = TAKE(inbox->bytes);
	packet->is_large = true;
	inbox->capacity = 0;
	inbox->len = 0;
	if (rest) {
		make_room(inbox);
		memcpy(inbox->bytes, packet->bytes + packet->len, rest);
	}
	inbox->len = rest;
}

int inbox_next(struct inbox *inbox, struct packet *packet, struct err *err)
{
	int r = wire_scanner_feed(&inbox->scanner, inbox->bytes + inbox->at, inbox->len, err);

	if (r == WIRE_MORE)
		return check_arrivals(inbox, err);
	if (r < 0)
		return r;
	*packet = (struct packet){ .len = inbox->scanner.offset, .values = inbox->scanner.values };
	take_arrivals(inbox, inbox->start + packet->len, packet);
	inbox->start += packet->len;
	if (inbox_is_large(inbox)) {
		take_buffer(inbox, packet);
	} else {
		packet->bytes = xmemdupz(inbox->bytes + inbox->at, packet->len);
		inbox->at += packet->len;
		inbox->len -= packet->len;
	}
	wire_scanner_init(&inbox->scanner, &wire_default_limits);
	return WIRE_WHOLE;
}

void inbox_settle(struct inbox *inbox)
{
	if (inbox->at && inbox->len)
		memmove(inbox->bytes, inbox->bytes + inbox->at, inbox->len);
	inbox->at = 0;
}

void inbox_rest(struct inbox *inbox)
{
	if (inbox->len)
		return;
	free(TAKE(inbox->bytes));
	inbox->capacity = 0;
}
