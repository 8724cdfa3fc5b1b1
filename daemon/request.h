/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Request: one call of a client, from the whole message to its one answer.
 *
 *     conn            request_start           methods.def            a method's file
 *     whole message -> parse, find method -> start(request) -> ... -> request_reply / request_fail
 *
 * A method gets the request as its own, keeps its state under ctx, and ends it by exactly one of
 * request_send(), request_send_fd() or request_fail(), now or later, on the loop. When the client is gone or
 * cancels, cancel() is called if it is set: the method then ends soon, by the same calls; an answer for a
 * client that is gone is dropped. Loop only.
 */
#ifndef DIRCACHE_DAEMON_REQUEST_H
#define DIRCACHE_DAEMON_REQUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/digest.h"
#include "common/err.h"
#include "common/list.h"
#include "common/wire.h"
#include "daemon/cache.h"
#include "daemon/identity.h"
#include "daemon/inbox.h"
#include "daemon/users.h"

struct request;

/* A method of the protocol. */
struct method {
	const char *name;
	void (*start)(struct request *request);
	bool any_time; /* also before the cache is ready, and while the daemon stops */
	bool admin;    /* for the daemon's user and root */
};

/* What all requests of the daemon share. */
struct service {
	struct cache *cache;
	const struct method *methods;           /* ends with a NULL name */
	void (*stop)(struct service *service);  /* begin to stop the daemon */
	void (*freed)(struct service *service); /* n_fds or n_large went down */
	struct list waiting;                    /* requests that came before the cache was ready */
	bool stopping;
	struct users users;
	size_t n_fds;     /* descriptors received, of requests that have not ended */
	size_t n_large;   /* messages in large buffers, whole or not */
	bool single_user; /* absolute paths are accepted */
};

/* Something that a method keeps for a connection beyond one request. */
struct session_item {
	struct list link;
	void (*gone)(struct session_item *item); /* the client is gone; the item is off the list */
};

/* One client's connection, as requests see it. */
struct session {
	struct service *service;   /* borrowed */
	struct identity *identity; /* the peer's */
	struct user *user;         /* its account */
	struct list requests;      /* open ones */
	size_t n_requests;
	size_t n_held; /* of these, such that those behind them wait for */
	struct list items;
	uint32_t n_numbered; /* items that were given a number */
	struct lease_group leases;
	bool is_reserved; /* one connection more than may be: for administration alone */

	/* Send bytes (taken over), and a descriptor (taken over) with them unless fd is -1. */
	void (*send)(struct session *session, char *bytes, size_t len, int fd);
	/* A request has ended, or holds those behind it no longer: the next may begin. */
	void (*request_ended)(struct session *session);
	/* What came was no request after all: the connection cannot go on. */
	void (*refuse)(struct session *session, const struct err *err);
};

struct request {
	struct session *session;   /* NULL when the client is gone */
	struct identity *identity; /* whose request it is */
	struct user *user;
	struct service *service;
	struct cache *cache;
	const struct wire_value *params;
	int *fds; /* received with it; closed at the end but for those taken (-1) */
	size_t n_fds;

	/* The method's. */
	void (*cancel)(struct request *request);
	void *ctx;

	/* Private. */
	struct wire_message message;
	char *bytes;
	bool is_large, is_heavy; /* of bytes; of values */
	bool holds;
	size_t weight;    /* of its user's bytes */
	bool promises_fd; /* one of its user's given ones */
	struct wire_out out;
	bool cancelled;
	struct list link, waiting;
};

/* identity is taken over. */
void session_init(struct session *session, struct service *service, struct identity *identity);

/* The client is gone: its requests are cancelled, its puts end. session is not used by any request any more.
 */
void session_fini(struct session *session);

/**
 * Begin a request. One of many values is parsed by a worker, and the connection is held meanwhile.
 *
 * @packet  taken over, all of it
 *
 * Return: 0; or -EBADMSG with err for what is no request: the connection cannot go on.
 */
int request_start(struct session *session, struct packet *packet, struct err *err);

/* Let no other request of this connection begin before request_release(), or the end. */
void request_hold(struct request *request);
void request_release(struct request *request);

/* The cache is ready: begin those that waited. */
void requests_ready(struct service *service);

/* The daemon stops: cancel all open requests of a session. */
void session_cancel(struct session *session);

/* Cancel an open request by its id. Return: was there one? */
bool request_cancel(struct session *session, uint32_t id);

/* What it takes of its user's share besides its message: an answer of up to so many bytes, or one with a
 * descriptor.
 */
void request_promise(struct request *request, size_t bytes);
void request_promise_fd(struct request *request);

/* The answer's head is written; go on with one map, then request_send(). */
struct wire_out *request_reply(struct request *request);
void request_send(struct request *request);
/* With a descriptor, taken over; the map says `fds: 1`. */
void request_send_fd(struct request *request, int fd);
/* A whole response, written elsewhere (with message.id); taken over. */
void request_send_written(struct request *request, struct wire_out *response);
/* An answer that says nothing: an empty map. */
void request_ok(struct request *request);

void request_fail(struct request *request, const struct err *err);
void request_fail_missing(struct request *request, const struct err *err, const struct digest *missing,
			  size_t n);

/* Say how far it is, if the client is still there: `progress` (docs/PROTOCOL.md). */
void request_progress(struct request *request, uint64_t files, uint64_t files_total, uint64_t bytes,
		      uint64_t bytes_total);

/* A queue for the request's jobs, which take turns as its user's. */
struct pool_queue *request_queue_new(const struct request *request);

/* One descriptor of the request, for the caller to close; -1 if it was taken already or never came. */
int request_take_fd(struct request *request, size_t i);

/* Descriptors came in, or were closed: in all, and of the user. */
void session_count_fds(struct session *session, size_t n);
void session_uncount_fds(struct session *session, size_t n);

/* May this user have one more message in a large buffer? It takes one, or gives it back. */
bool service_has_large(const struct service *service, const struct user *user);
void service_take_large(struct service *service, struct user *user);
void service_give_large(struct service *service, struct user *user);

/* ---- what several methods take from their params ---- */

/**
 * A digest, or the digest that a tag names: exactly one of the two.
 *
 * @has_digest  whether `digest` was given
 * @tag         `tag`, or NULL data
 */
int request_digest(struct request *request, bool has_digest, struct wire_bytes tag, struct digest *digest,
		   struct err *err);

#endif
