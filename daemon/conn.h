/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connections: bytes and descriptors in, whole messages to request.h, answers out.
 *
 * Back-pressure: a connection is read only while it has fewer than 64 open requests and less than a megabyte
 * of answers that its client did not take, while its user has room (users.h), and while the daemon has
 * descriptors left, in all and for its user, and room for another large message; else its client's writes
 * wait in the socket. What is no MessagePack-RPC ends the connection, after a notification that says why;
 * other connections are not affected.
 *
 * Fair turns: a connection on which something can be done is visited, for a fraction of a millisecond. At
 * once, if its user has not had much of the loop's time lately; else, and if more is left to do than there
 * was time for, when it is that user's turn among those who wait (users.h). So a user with a thousand busy
 * connections keeps nobody else's waiting for longer than a few visits. Loop only.
 */
#ifndef DIRCACHE_DAEMON_CONN_H
#define DIRCACHE_DAEMON_CONN_H

#include <stdbool.h>
#include <stddef.h>

#include "common/list.h"
#include "daemon/request.h"

struct event;
struct event_base;

/* How long a connection is waited for, in nanoseconds; 0: for ever. */
struct conn_patience {
	uint64_t stall; /* for the end of a message that was begun, and until an answer is taken */
	uint64_t idle;  /* for the next request, where nothing is open, put or leased */
};

/* All connections of the daemon. */
struct conns {
	struct event_base *base;
	struct service *service;
	struct list open;
	size_t n, n_reserved;
	size_t max_fds; /* received descriptors that may be open at a time */
	struct conn_patience patience;
	struct event *sweep;        /* private: looks for those that are waited for */
	struct event *turn;         /* private: a timer, while anybody waits for a turn */
	struct turns turns;         /* of users with connections to be served */
	void (*changed)(void *ctx); /* a connection came or went */
	void *ctx;
};

enum {
	CONN_REQUESTS_MAX = 64,    /* open requests of one connection */
	CONN_UNSENT_MAX = 1 << 20, /* bytes of answers not taken, */
	CONN_GIVEN_FDS_MAX = 64,   /* and descriptors of such, before reading stops */
};

/**
 * Serve a connection that was accepted.
 *
 * @sock         non-blocking; taken over
 * @identity     of the peer; taken over
 * @is_reserved  beyond what may be open: for administration alone
 */
void conn_new(struct conns *conns, int sock, struct identity *identity, bool is_reserved);

/* Descriptors were closed: whoever waited for that is read again. */
void conns_feed(struct conns *conns);

/* Cancel all requests of all connections. */
void conns_cancel(struct conns *conns);

/* Is any answer still to be sent, or any request open? */
bool conns_busy(const struct conns *conns);

/* Close all. */
void conns_close(struct conns *conns);

#endif
