/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Options of dircached: defaults < configuration file < environment < command line.
 *
 * One table (options.def) feeds the command line, the file and --help. The file is INI without sections:
 * `store = /srv/dircache`, one line an option, the names without their dashes.
 */
#ifndef DIRCACHE_DAEMON_OPTIONS_H
#define DIRCACHE_DAEMON_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/err.h"
#include "daemon/tree.h"
#include "daemon/users.h"

struct options {
	char *store, *socket; /* owned */
	uint64_t max_size;    /* bytes; 0: no cap */
	uint64_t min_free;    /* bytes */
	uint64_t node_memory; /* bytes */
	struct tree_limits limits;
	struct user_limits user;     /* fds 0: half of all */
	uint64_t max_connections;    /* 0: chosen by RLIMIT_NOFILE */
	uint64_t message_timeout;    /* seconds; 0: none */
	uint64_t connection_timeout; /* the same */
	uint64_t workers;            /* 0: chosen by the number of CPUs */
	uint64_t socket_mode;        /* permission bits */
	char *socket_group;          /* owned, or NULL */
	uint64_t idle_timeout;       /* seconds without a connection before a stop; 0: never */
	bool verbose;
};

enum { OPTIONS_GO = 0, OPTIONS_DONE = 1 };

/**
 * Read all of them.
 *
 * Return: OPTIONS_GO; OPTIONS_DONE when --help or --version was asked for and printed; or -EINVAL with err.
 * options_fini() is due in any case.
 */
int options_read(struct options *options, int argc, char **argv, struct err *err);
void options_fini(struct options *options);

#endif
