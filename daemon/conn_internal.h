/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of connections share: conn.c moves bytes and messages, conn_wait.c ends those that are
 * waited for in vain.
 */
#ifndef DIRCACHE_DAEMON_CONN_INTERNAL_H
#define DIRCACHE_DAEMON_CONN_INTERNAL_H

#include "daemon/conn.h"
#include "daemon/inbox.h"

/* Waiting for the peer: since when, and what would have changed if it had done something. */
struct wait {
	uint64_t since_ns, mark;
};

struct conn {
	struct session session;
	struct conns *conns;
	struct list link;
	struct list starving; /* among those that wait for descriptors to be closed */
	struct list turn;     /* among those of its user that wait for a turn */
	int sock;
	struct event *readable, *writable;
	struct event *hung_up; /* while it is not read, and so cannot tell */
	struct event *again;   /* a timer: until it may send a descriptor */
	short due;             /* EV_READ, EV_WRITE: what the next visit is for */

	struct inbox inbox;
	struct list out;
	size_t out_len;
	uint64_t n_sent;    /* messages, whole */
	size_t n_given_fds; /* of answers, not known to have been taken, */
	size_t n_in_flight; /* of which these were sent */

	struct wait message, taking, rest; /* for its end, for answers to be taken, for a request */

	bool dispatching; /* a request may end from within, and must not start reading again below */
	bool held_up;     /* whole messages may be in the inbox, for which there was no room or time */
	bool paused;      /* sends nothing until `again` */
	bool closing;     /* send what is there, then close: the peer sent nonsense, or nothing more */
	bool dead;        /* free it as soon as nobody is inside */
};

void conn_free(struct conn *conn);

/* Which descriptors that were sent have been taken? None of them, or all. */
void conn_settle_fds(struct conn *conn);

/* Is it read? */
bool conn_is_read(const struct conn *conn);

/*
 * Does it keep others waiting? It has descriptors for a message that has not ended, and is not read because
 * there are too many: by such messages alone all that may be open could be kept for ever.
 */
bool conn_hoards_fds(const struct conn *conn);

/* Say why, listen no more, and close it when that is sent; the connection may be gone afterwards. */
void conn_end(struct conn *conn, const struct err *err);

/* The first connection is there: from now on look for those that are waited for. */
void conns_begin_sweeping(struct conns *conns);

#endif
