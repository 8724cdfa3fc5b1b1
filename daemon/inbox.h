/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inbox: what has come through one connection, until it is whole messages with the descriptors that belong to
 * them.
 *
 * A usual message is copied out of the buffer. One that outgrows the usual buffer gets one of its own, of the
 * size of the largest message, and takes it along: nothing large is ever copied or moved. So whoever reads
 * counts such buffers, and gives one before more is received (inbox_wants_large()). Not locked.
 */
#ifndef DIRCACHE_DAEMON_INBOX_H
#define DIRCACHE_DAEMON_INBOX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/err.h"
#include "common/wire.h"

enum {
	INBOX_READ = 64 * 1024, /* bytes received at a time, at most */
	INBOX_USUAL = 2 * INBOX_READ,
	INBOX_LARGE = WIRE_MESSAGE_MAX + INBOX_READ,
};

/* A whole message as it came. */
struct packet {
	char *bytes; /* of malloc() */
	size_t len;
	size_t values; /* in it, of all levels */
	int *fds;      /* of malloc(), NULL when there are none */
	size_t n_fds;
	bool truncated; /* descriptors were lost on the way */
	bool is_large;  /* bytes are a large buffer */
};

struct arrival;

struct inbox {
	char *bytes; /* those of the current message begin at `at` */
	size_t at, len, capacity;
	uint64_t start; /* the stream's position of bytes[at] */
	struct wire_scanner scanner;
	struct arrival *arrivals; /* of descriptors, oldest first */
	size_t n_arrivals, arrivals_capacity;
};

void inbox_init(struct inbox *inbox);

/* Gives back all but descriptors, which inbox_take_fds() has before, and the buffer if it is large. */
void inbox_fini(struct inbox *inbox);

/* Has more to be received into a large buffer, which is not there yet? */
bool inbox_wants_large(const struct inbox *inbox);

/* Is the buffer a large one? */
bool inbox_is_large(const struct inbox *inbox);

/**
 * Receive once.
 *
 * @n_fds  out: descriptors that came
 *
 * Return: bytes that came, 0 (the end), or a negative errno (-EAGAIN as it is).
 */
ssize_t inbox_receive(struct inbox *inbox, int sock, size_t *n_fds);

/**
 * The next message.
 *
 * Return: WIRE_WHOLE, with packet the caller's; WIRE_MORE; or a negative errno with err: the stream cannot be
 * understood.
 */
int inbox_next(struct inbox *inbox, struct packet *packet, struct err *err);

/* No message is taken just now: make room at the end. */
void inbox_settle(struct inbox *inbox);

/* Nothing is expected soon: give the buffer back if it is empty. */
void inbox_rest(struct inbox *inbox);

/* Is nothing there that was not taken? */
bool inbox_is_empty(const struct inbox *inbox);

/* Have descriptors come that belong to nothing that was taken? */
bool inbox_has_fds(const struct inbox *inbox);

/* The descriptors of messages that never became whole; the array is to be free()d, NULL when there are none.
 */
int *inbox_take_fds(struct inbox *inbox, size_t *n_fds);

#endif
