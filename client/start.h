/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Start: a daemon on demand, where nobody listens at the default socket.
 *
 * Clients that come at once queue at a lock beside the socket; the first starts the daemon and holds the lock
 * until the socket answers, so the others find it answering. The daemon is nobody's child but init's, in a
 * session of its own, and inherits neither descriptors, signal settings nor the working directory: whoever
 * waits for this process, its pipeline or its mount waits for nothing of ours.
 */
#ifndef DIRCACHE_CLIENT_START_H
#define DIRCACHE_CLIENT_START_H

#include "common/err.h"

/**
 * Connect to the socket, starting a daemon for it.
 *
 * @socket  the default path: the daemon finds the same by itself
 *
 * Blocks until the socket answers, at most 30 seconds. When the daemon ends instead, err holds what it wrote
 * to its log.
 *
 * Return: a connected socket that the caller owns, or a negative errno.
 */
int start_daemon(const char *socket, struct err *err);

#endif
