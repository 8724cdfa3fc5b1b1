/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Discard: giving back memory that may be large.
 *
 * malloc gives a large piece back to the system at once, which takes the system some 10 ms for 100 MB: time
 * that the loop does not have. So a worker does it. Loop only.
 */
#ifndef DIRCACHE_DAEMON_DISCARD_H
#define DIRCACHE_DAEMON_DISCARD_H

#include <stddef.h>

struct pool_queue;

/**
 * Give back a piece of memory, now or a little later.
 *
 * @chores  the queue whose worker does it when it is large
 * @memory  of malloc(), taken over; NULL is fine
 * @size    of it in bytes, at least about
 */
void discard(struct pool_queue *chores, void *memory, size_t size);

#endif
