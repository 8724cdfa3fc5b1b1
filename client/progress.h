/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Progress: one line on a terminal, after half a second of work, ten times a second at most, gone at the end.
 */
#ifndef DIRCACHE_CLIENT_PROGRESS_H
#define DIRCACHE_CLIENT_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

#include "client/dircache.h"

struct progress {
	int64_t next_ms; /* when a line may be printed */
	bool shown;
};

/* Begin. Return: progress_show(), or NULL where standard error is no terminal: what the library takes. */
dircache_progress_fn progress_start(struct progress *progress);

/* @data: the struct progress */
void progress_show(void *data, const struct dircache_progress *done);

/* Take the line away. */
void progress_stop(struct progress *progress);

#endif
