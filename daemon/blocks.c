/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/blocks.h"

#include <assert.h>
#include <stdlib.h>

#include "common/alloc.h"

void *blocks_add(struct blocks *blocks, size_t size)
{
	if (blocks->n == blocks->n_blocks * BLOCK_ITEMS) {
		blocks->blocks =
			xgrow(blocks->blocks, blocks->n_blocks, &blocks->capacity, sizeof(*blocks->blocks));
		blocks->blocks[blocks->n_blocks++] = xcalloc(BLOCK_ITEMS, size);
	}
	return blocks_at(blocks, blocks->n++, size);
}

void blocks_pop(struct blocks *blocks)
{
	assert(blocks->n);
	if (--blocks->n == (blocks->n_blocks - 1) * BLOCK_ITEMS)
		free(blocks->blocks[--blocks->n_blocks]);
}

void blocks_fini(struct blocks *blocks)
{
	while (blocks->n_blocks)
		free(blocks->blocks[--blocks->n_blocks]);
	free(blocks->blocks);
	*blocks = (struct blocks){ 0 };
}
