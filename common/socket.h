/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Unix sockets and the descriptors that travel over them (unix(7), SCM_RIGHTS), for both ends.
 */
#ifndef DIRCACHE_COMMON_SOCKET_H
#define DIRCACHE_COMMON_SOCKET_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "common/err.h"

/**
 * Connect to a socket by its path, of any length (over 107 bytes by way of its folder's descriptor).
 *
 * @flags  for socket(2): SOCK_NONBLOCK or 0; SOCK_CLOEXEC is always set
 *
 * Return: a descriptor that the caller owns, or a negative errno; -ENOENT and -ECONNREFUSED mean that
 * nobody listens.
 */
int socket_connect(const char *path, int flags, struct err *err);

/**
 * Listen at a path, of any length, which must not exist.
 *
 * @mode  of the socket file
 *
 * Return: a non-blocking descriptor that the caller owns, or a negative errno.
 */
int socket_listen(const char *path, mode_t mode, struct err *err);

/**
 * Send bytes, and descriptors with the first of them (so n_fds > 0 needs len > 0).
 *
 * @fds  borrowed: the kernel keeps its own references
 *
 * Return: the number of bytes sent (all descriptors went with them), or a negative errno; -EAGAIN as it is.
 * -ETOOMANYREFS: too many descriptors of this user are on their way; try again later.
 */
ssize_t socket_send(int sock, const void *bytes, size_t len, const int *fds, size_t n_fds);

/* Has the peer received all that was sent? False also where that cannot be told. */
bool socket_is_taken(int sock);

struct socket_received {
	ssize_t n;      /* bytes; 0 at the end of the stream */
	size_t n_fds;   /* descriptors that came with them, close-on-exec, the caller's */
	bool truncated; /* more had come, and are lost: out of descriptors, or too many at once */
};

/**
 * Receive bytes and the descriptors that came with them. One call returns descriptors of one sendmsg() at
 * most, with no byte behind the one they came with belonging to an earlier message.
 *
 * @fds  room for WIRE_DESCRIPTORS_MAX
 *
 * Return: 0, or a negative errno (-EAGAIN as it is).
 */
int socket_receive(int sock, void *buf, size_t size, int *fds, struct socket_received *received);

#endif
