/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Server: the socket, the signals, and the order of starting and stopping.
 *
 *     lock the store -> listen -> read the index -> ready -> ... -> SIGTERM, SIGINT, `stop`, idle
 *       -> listen no more, cancel what can be, let the rest end -> write the index -> unlink the socket
 *
 * The socket answers before the index is read. A stale socket is replaced, a live one is not: a lock beside
 * it (SOCKET.lock) belongs to the daemon that listens. A socket that a service manager handed over is the
 * manager's: its name, mode and group are not looked at, and it outlives the daemon.
 */
#ifndef DIRCACHE_DAEMON_SERVER_H
#define DIRCACHE_DAEMON_SERVER_H

#include "common/err.h"
#include "daemon/options.h"
#include "daemon/request.h"

/* All that is answered; ends with a NULL name. For those who serve connections of their own making, too. */
extern const struct method server_methods[];

/**
 * Serve until told to stop.
 *
 * Return: 0 after a clean stop, or a negative errno with err.
 */
int server_run(const struct options *options, struct err *err);

#endif
