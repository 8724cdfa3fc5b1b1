/* SPDX-License-Identifier: Apache-2.0 */
/*
 * World: the daemon without its listening socket, in this process, for targets that drive all of it: a cache
 * on a store of its own, the loop, the workers, every method, and a folder for targets. One for the process;
 * it lives through many inputs. A child deletes its folder whatever becomes of us.
 */
#ifndef DIRCACHE_TESTS_FUZZ_WORLD_H
#define DIRCACHE_TESTS_FUZZ_WORLD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/cache.h"
#include "daemon/conn.h"

/* A target's name that clients may choose, and the daemon does not. */
#define CLIENTS_HIDDEN ".dircache-t"

struct world {
	char folder[64], store[80];
	struct event_base *base;
	struct event *tick;
	struct cache cache;
	struct service service;
	struct conns conns;
	int out;      /* a folder on the store's file system that anybody may write */
	size_t n_fds; /* that are open when nobody is connected */
	bool is_running;
	int loaded; /* what came of reading the index */
	struct err err;
};

extern struct world world;

/* Make the folders, on the first call, and have end() called when the process does. */
void world_make(void (*end)(void));

/**
 * Open the store, read its index, and do what a start does in the background.
 *
 * @max_size  of the store; 0: no limit
 *
 * Return: 0, or a negative errno with world.err, when nothing runs.
 */
int world_start(uint64_t max_size);

/* One turn of the loop; waits up to a millisecond for something to do. */
void world_turn(void);

/* Run until nothing is under way; it is fatal if that takes long, which names what is waited for. */
void world_settle(void);
/* For such waits elsewhere: when it has to be over, and what is fatal if it is not. */
uint64_t world_deadline(void);
void world_check_deadline(uint64_t deadline, const char *what);

/* What `stop` does: cancel all, begin nothing more. world_stop() is due then. */
void world_begin_stop(void);

/* A clean stop, with no connection left. */
void world_stop(void);

/* Assert that nobody is connected, nothing under way, and nothing left of what was. */
void world_check_idle(void);

/* Delete all below a folder; all targets. */
void world_empty(const char *path);
void world_empty_out(void);

/* Entries of a folder below world.folder whose names begin so. */
size_t world_count(const char *path, const char *prefix);

#endif
