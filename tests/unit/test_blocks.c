/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/blocks.h"

#include "tests/unit/unit.h"

enum { N = 10 * BLOCK_ITEMS + 7 };

static uint64_t *at(const struct blocks *blocks, size_t i)
{
	return blocks_at(blocks, i, sizeof(uint64_t));
}

static void fill(struct blocks *blocks, uint64_t **items)
{
	for (uint64_t i = 0; i < N; i++) {
		items[i] = blocks_add(blocks, sizeof(uint64_t));
		ck_assert_uint_eq(*items[i], 0);
		*items[i] = i;
	}
}

START_TEST(items_stay_where_they_are_while_others_come)
{
	static uint64_t *items[N];
	struct blocks blocks = { 0 };

	fill(&blocks, items);
	ck_assert_uint_eq(blocks.n, N);
	for (uint64_t i = 0; i < N; i++) {
		ck_assert_ptr_eq(at(&blocks, i), items[i]);
		ck_assert_uint_eq(*items[i], i);
	}
	blocks_fini(&blocks);
	ck_assert_uint_eq(blocks.n, 0);
}
END_TEST

START_TEST(what_was_dropped_makes_room_for_others)
{
	static uint64_t *items[N];
	struct blocks blocks = { 0 };

	fill(&blocks, items);
	while (blocks.n > BLOCK_ITEMS / 2)
		blocks_pop(&blocks);
	ck_assert_uint_eq(blocks.n_blocks, 1);
	for (uint64_t i = 0; i < blocks.n; i++)
		ck_assert_uint_eq(*at(&blocks, i), i);
	while (blocks.n)
		blocks_pop(&blocks);
	ck_assert_uint_eq(blocks.n_blocks, 0);
	fill(&blocks, items);
	blocks_fini(&blocks);
}
END_TEST

UNIT_MAIN("blocks", items_stay_where_they_are_while_others_come, what_was_dropped_makes_room_for_others)
