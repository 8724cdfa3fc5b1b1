/* SPDX-License-Identifier: Apache-2.0 */
/* `trees`: what a client is told of the cached trees and of the disk that they take. */
#include "daemon/gc.h"

#include "tests/unit/peer.h"

static const struct method methods[] = {
	{ "trees", trees_start, false, false },
	{ NULL, NULL, false, false },
};

enum { N_TREES = 100 }; /* more than are read at a time */

static struct peer peer;
static struct draft draft;
static struct digest trees[N_TREES], own_files[N_TREES];

/*
 * A cached tree with a file of its own, plain and executable, and one that another has, too, which is read
 * long before or after.
 */
static void cache_tree(unsigned number)
{
	char own[16], shared[16];

	(void)snprintf(own, sizeof(own), "own %u", number);
	(void)snprintf(shared, sizeof(shared), "shared %u", number % (N_TREES / 2));
	(void)store_text(own, BLOB_PLAIN);
	own_files[number] = store_text(own, BLOB_EXEC);
	draft_init(&draft);
	draft_file(&draft, "own", own_files[number], false);
	draft_file(&draft, "run", own_files[number], true);
	draft_file(&draft, "shared", store_text(shared, BLOB_PLAIN), false);
	trees[number] = draft_store(&draft);
	(void)use_tree(&trees[number]);
}

/* Many trees, and a start after which a client asks for their sizes before they were read again. */
static void ask_early(uint32_t id)
{
	struct wire_out message = { 0 };

	start_cache();
	for (unsigned i = 0; i < N_TREES; i++)
		cache_tree(i);
	stop_cache();
	open_cache();
	start_service(methods);
	peer_open(&peer);
	wire_request(&message, id, "trees");
	wire_map(&message, 1);
	wire_put_bool(&message, "sizes", true);
	peer_request(&peer, &message, NULL, 0);
	load_cache();
	requests_ready(&service);
	ck_assert(!trees_may_evict(cache.trees));
}

static void teardown(void)
{
	peer_close(&peer);
	stop_service();
	stop_cache();
}

struct row {
	uint64_t allocated, unique;
};

/* What a blob takes: of a small one, as much for each kind. */
static uint64_t takes(const struct digest *digest)
{
	return catalog_allocated(catalog_find(cache.catalog, digest));
}

START_TEST(sizes_after_a_start_are_told_once_it_is_known_what_every_tree_needs)
{
	static const struct wire_field fields[] = {
		{ .name = "trees", .type = WIRE_ARRAY, .required = true }
	};
	static const struct wire_field row_fields[] = {
		WIRE_FIELD(struct row, allocated, WIRE_UINT, true),
		WIRE_FIELD(struct row, unique, WIRE_UINT, true),
	};
	const struct wire_value *rows = NULL;
	struct digest digest;
	uint64_t shared;

	ask_early(1);
	ck_assert_int_eq(wire_decode_open(peer_answer(&peer, 1), fields, 1, &rows, "answer", &err), 0);
	ck_assert_uint_eq(wire_array_size(rows), N_TREES);
	hash_bytes("shared 0", 8, &digest);
	shared = takes(&digest);
	ck_assert_uint_eq(takes(&own_files[0]), 2 * shared);
	for (size_t i = 0; i < N_TREES; i++) {
		const struct wire_value *map = wire_array_at(rows, i);
		struct row row;

		ck_assert_int_eq(wire_decode_open(map, row_fields, N_ELEMENTS(row_fields), &row, "row", &err),
				 0);
		/* The last used comes first. */
		ck_assert_uint_eq(row.unique,
				  takes(&own_files[N_TREES - 1 - i]) + takes(&trees[N_TREES - 1 - i]));
		ck_assert_uint_eq(row.allocated - row.unique, shared);
	}
	teardown();
}
END_TEST

START_TEST(who_waits_for_them_can_cancel)
{
	ask_early(1);
	conns_cancel(&conns);
	peer_ck_error(&peer, 1, ERR_CANCELLED, "trees: cancelled");
	teardown();
}
END_TEST

UNIT_MAIN("gc_trees", sizes_after_a_start_are_told_once_it_is_known_what_every_tree_needs,
	  who_waits_for_them_can_cancel)
