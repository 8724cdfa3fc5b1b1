/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A client that puts, step by step: begin, entries with descriptors, commit.
 */
#ifndef DIRCACHE_TESTS_UNIT_PUTTING_H
#define DIRCACHE_TESTS_UNIT_PUTTING_H

#include "tests/unit/peer.h"

static struct peer peer;
static struct wire_out message;
static uint32_t last_id;
static uint64_t put;

static inline void begin_step(const char *step, size_t n_more)
{
	wire_request(&message, ++last_id, "put");
	wire_map(&message, 2 + n_more);
	wire_put_text(&message, "step", step);
	wire_put_uint(&message, "put", put);
}

static inline void begin(void)
{
	put = 0;
	begin_step("begin", 0);
	peer_request(&peer, &message, NULL, 0);
	put = answer_uint(peer_answer(&peer, last_id), "put");
}

/* A request with entries; n of them follow, then its descriptors are sent with it. */
static inline void begin_entries(size_t n_fds, size_t n)
{
	begin_step("entries", 2);
	wire_put_uint(&message, "fds", n_fds);
	wire_text(&message, "entries");
	wire_array(&message, n);
}

static inline void add_file(const char *name, uint64_t parent, uint64_t fd)
{
	wire_map(&message, 3 + (name != NULL));
	wire_put_text(&message, "type", "file");
	if (name)
		wire_put_bytes(&message, "name", name, strlen(name));
	wire_put_uint(&message, "parent", parent);
	wire_put_uint(&message, "fd", fd);
}

static inline void add_directory(const char *name, uint64_t parent)
{
	wire_map(&message, 3);
	wire_put_text(&message, "type", "directory");
	wire_put_bytes(&message, "name", name, strlen(name));
	wire_put_uint(&message, "parent", parent);
}

static inline void add_symlink(const char *name, const char *target, size_t len)
{
	wire_map(&message, 3);
	wire_put_text(&message, "type", "symlink");
	wire_put_bytes(&message, "name", name, strlen(name));
	wire_put_bytes(&message, "target", target, len);
}

/* A file with a text, open for reading. */
static inline int open_file(const char *text, mode_t mode)
{
	int fd = openat(out, ".", O_TMPFILE | O_RDWR, mode);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	return fd;
}

/* Send what was written, with descriptors that are closed here. */
static inline void send_closing(const int *fds, size_t n)
{
	peer_request(&peer, &message, fds, n);
	for (size_t i = 0; i < n; i++)
		(void)close(fds[i]);
}

/* One file, in the root; or the only one, without a name. */
static inline void send_file(const char *name, int fd)
{
	begin_entries(1, 1);
	add_file(name, 0, 0);
	send_closing(&fd, 1);
}

static inline void put_file(const char *name, int fd)
{
	send_file(name, fd);
	(void)peer_answer(&peer, last_id);
}

static inline const struct wire_value *commit(void)
{
	begin_step("commit", 0);
	peer_request(&peer, &message, NULL, 0);
	return peer_answer(&peer, last_id);
}

static inline struct digest answer_digest(const struct wire_value *answer)
{
	static const struct wire_field fields[] = { { .name = "digest", .type = WIRE_DIGEST } };
	struct digest digest = { .size = 0 };

	ck_assert_int_eq(wire_decode_open(answer, fields, 1, &digest, "", &err), 0);
	return digest;
}

#endif
