/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Supervisor: what passes between the daemon and a service manager that started it, in environment variables
 * (sd_listen_fds(3), sd_notify(3); docs/adr/0014). Without these variables nothing passes.
 *
 * The variables stay set: a child would not take them for its own, since they name our process id, and
 * descriptors are closed on exec.
 */
#ifndef DIRCACHE_DAEMON_SUPERVISOR_H
#define DIRCACHE_DAEMON_SUPERVISOR_H

#include "common/err.h"

enum { SUPERVISOR_NONE = 1 };

/**
 * Take the socket that was opened for us (LISTEN_PID, LISTEN_FDS): one, of Unix streams, that listens.
 *
 * @fd  set to a non-blocking descriptor that the caller owns
 *
 * Before there are other threads, since it reads the environment.
 *
 * Return: 0, SUPERVISOR_NONE, or a negative errno with err: what was handed over is something else.
 */
int supervisor_take_socket(int *fd, struct err *err);

/**
 * Tell how it is with us (NOTIFY_SOCKET): lines of NAME=VALUE, such as READY=1. A manager that does not hear
 * it is no reason to fail, so nothing is returned. A busy one is waited for, a second at most: without
 * READY=1 it would take the start for failed.
 */
void supervisor_tell(const char *state);

#endif
