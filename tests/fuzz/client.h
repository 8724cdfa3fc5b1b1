/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Clients of the world (world.h), and what holds of every answer: it is a message, of the protocol's form, to
 * a request that is open, and each request has exactly one.
 */
#ifndef DIRCACHE_TESTS_FUZZ_CLIENT_H
#define DIRCACHE_TESTS_FUZZ_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/digest.h"
#include "common/err.h"
#include "common/wire.h"

enum { CLIENT_DIGESTS = 8 };

struct client {
	int sock;     /* -1: not connected */
	bool is_wild; /* sent what is no request, or half of one: anything may come, or nothing more */
	uint32_t last_id;
	size_t n_asked, n_answered;
	char *in;
	size_t in_len;
	struct wire_scanner scanner;
	int fd;             /* that came with an answer, or -1 */
	uint64_t value;     /* the first number of the last answer that had one of `put`, `faults_total` or
			       `blobs` */
	struct err failure; /* set: the last answer was an error, this one */
};

/* Digests that answers have named, the last ones; some to begin with. */
extern struct digest client_digests[CLIENT_DIGESTS];

void client_init(struct client *client);

/* uid: whose process it is, if the daemon may act for others */
void client_connect(struct client *client, uid_t uid);
void client_hang_up(struct client *client);

/* Send, as far as it is taken within some turns of the loop; fds stay the caller's. Return: was it all? */
bool client_send(struct client *client, const void *bytes, size_t len, const int *fds, size_t n_fds);

/* Take what has come, and check it. */
void client_read(struct client *client);

/* Run until all of its requests are answered; nothing to wait for if it is wild. */
void client_wait(struct client *client);

/* What has to succeed: did it? Says why not, and is fatal then. */
void client_must_succeed(const struct client *client);

/* A request without descriptors, and its answer. message is begun by wire_request() with client->last_id + 1.
 */
void client_call(struct client *client, struct wire_out *message);

#endif
