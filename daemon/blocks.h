/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Blocks: an array that grows at its end and never moves what is in it.
 *
 * An ordinary array of a hundred thousand items copies megabytes when it grows and gives them back at once
 * when it goes: milliseconds either time, which the daemon's loop does not have. This one takes and gives a
 * block of 256 items.
 */
#ifndef DIRCACHE_DAEMON_BLOCKS_H
#define DIRCACHE_DAEMON_BLOCKS_H

#include <stddef.h>

enum { BLOCK_ITEMS = 256 };

/* Zeroed: empty. */
struct blocks {
	char **blocks;
	size_t n; /* items */
	size_t n_blocks, capacity;
};

/* One more item at the end. @size: of an item, always the same. Return: it, zeroed. */
void *blocks_add(struct blocks *blocks, size_t size);

/* Drop the last item. */
void blocks_pop(struct blocks *blocks);

/* Drop all. */
void blocks_fini(struct blocks *blocks);

static inline void *blocks_at(const struct blocks *blocks, size_t i, size_t size)
{
	return blocks->blocks[i / BLOCK_ITEMS] + i % BLOCK_ITEMS * size;
}

#endif
