/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connection: requests out, answers in, over one socket.
 *
 * A public function does the same five things: connection_begin(), connection_request() with its params,
 * connection_call(), reading the answer, connection_end(). What an answer holds points into the connection
 * and is gone with the next message.
 */
#ifndef DIRCACHE_CLIENT_CONNECTION_H
#define DIRCACHE_CLIENT_CONNECTION_H

#include <stdbool.h>
#include <stdint.h>

#include "client/dircache.h"
#include "common/auto.h"
#include "common/err.h"
#include "common/wire.h"

struct dircache {
	int sock;
	bool lost;         /* nothing can be sent or received any more */
	uint32_t id;       /* of the last request */
	uint32_t first_id; /* of the first one that was not given up */

	/* Out: the request being written. */
	struct wire_out out;

	/* In: bytes from `start` on belong to messages not yet read. */
	char *in;
	size_t start, len, capacity;
	struct wire_scanner scanner;

	/* The last message, and the descriptors that came and were not yet taken. */
	struct wire_message message;
	const struct wire_value *missing; /* of its error, or NULL */
	int fds[2 * WIRE_DESCRIPTORS_MAX];
	size_t n_fds;

	/* Results handed out, freed by the next call. */
	void **kept;
	size_t n_kept, kept_capacity;

	dircache_progress_fn progress; /* during a call, or NULL */
	void *progress_data;
};

/* Make a handle. @sock: taken. */
struct dircache *connection_new(int sock);

/* What dircache_close() does. */
void connection_free(struct dircache *dc);

/* Forget the last call: its message, its descriptors, its results. */
void connection_begin(struct dircache *dc);

/**
 * Say how a call ended.
 *
 * @r      what it came to: 0, or a negative errno with its words in err
 * @error  out, may be NULL
 *
 * Return: what the public function returns.
 */
enum dircache_code connection_end(struct dircache *dc, int r, const struct err *err,
				  struct dircache_error *error);

/* As connection_end(), where there is no handle. Return: the code. */
enum dircache_code error_fill(const struct err *err, struct dircache_error *error);

/**
 * Begin a request, the one that is sent next.
 *
 * @n_params  keys that the caller puts next
 *
 * Return: where to put them.
 */
struct wire_out *connection_request(struct dircache *dc, const char *method, size_t n_params);

/**
 * Send the request.
 *
 * @fds  borrowed
 *
 * Return: 0; -ETOOMANYREFS, nothing was sent: receive or wait, and send again; or a negative errno.
 */
int connection_send(struct dircache *dc, const int *fds, size_t n_fds, struct err *err);

/* What to do about -ETOOMANYREFS when there is nothing to receive: a millisecond's sleep. */
void connection_pause(void);

/**
 * Wait for one answer to any request that was not given up. Progress is reported meanwhile.
 *
 * Return: 0, with the answer in dc->message.result; or a negative errno with the words of its error.
 */
int connection_await(struct dircache *dc, struct err *err);

/* Give up older requests, send this one, and wait. @fd: borrowed, or -1. Return: as connection_await(). */
int connection_call(struct dircache *dc, int fd, struct err *err);

/* Decode the answer, by a table of fields. Return: 0, or -EINVAL. */
int connection_decode(struct dircache *dc, const struct wire_field *fields, size_t n_fields, void *out,
		      const char *what, struct err *err);

/* Take the descriptor that came with the answer. Return: it, or a negative errno. */
int connection_take_fd(struct dircache *dc, struct err *err);

/* Keep memory until the next call. Return: p. */
void *connection_keep(struct dircache *dc, void *p);

/* A terminated copy, kept until the next call. */
char *connection_keep_text(struct dircache *dc, struct wire_bytes bytes);
char *connection_keep_digest(struct dircache *dc, const struct digest *digest);

/* Put `digest` or `tag`, by what the text is. */
void connection_put_what(struct wire_out *out, const char *what);

/**
 * Read a digest that the caller of the library gave.
 *
 * Return: 0, or -EINVAL.
 */
int connection_parse_digest(const char *text, struct digest *digest, struct err *err);

#endif
