/* SPDX-License-Identifier: Apache-2.0 */
/* Storing into a space that is limited, against claims. */
#include <errno.h>

#include "common/alloc.h"
#include "common/hash.h"
#include "tests/unit/store.h"

enum { K = 1024, CAP = 1024 * K };

static struct space *space;
static struct claims *claims;
static struct blob_info info;

static void open_guarded(uint64_t max_size)
{
	open_store();
	space = space_new(&(struct space_limits){ .max_size = max_size });
	claims = claims_new();
	blob_store_guard(store, space, claims);
}

static void close_guarded(void)
{
	close_store(); /* frees the writer, which settles it */
	ck_assert_uint_eq(claims_n(claims), 0);
	ck_assert_uint_eq(space_levels(space).reserved, 0);
	claims_free(claims);
	space_free(space);
}

/* A file of so many bytes, all of them this one. */
static int open_file(size_t size, char byte)
{
	AUTO_FREE char *bytes = xmalloc(size);
	int fd = openat(out, ".", O_TMPFILE | O_RDWR, 0600);

	memset(bytes, byte, size);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(write(fd, bytes, size), (ssize_t)size);
	return fd;
}

static int store_file(size_t size, char byte, bool likely_known)
{
	AUTO_CLOSE int fd = open_file(size, byte);

	return blob_write_file(writer, fd, likely_known, BLOB_PLAIN, &info, NULL, &err);
}

static uint64_t reserved(void)
{
	return space_levels(space).reserved;
}

START_TEST(a_blob_that_does_not_fit_is_no_room_and_leaves_nothing)
{
	const size_t sizes[] = { 100 * K, 1000 * K }; /* read whole first, and streamed */

	open_guarded(64 * K);
	for (unsigned i = 0; i < N_ELEMENTS(sizes); i++) {
		ck_assert_int_eq(store_file(sizes[i], 'x', i), BLOB_NO_ROOM);
		ck_assert(!err.set);
		ck_assert(!blob_writer_need(writer).disk_full);
		ck_assert_uint_ge(blob_writer_need(writer).bytes, sizes[i]);
		ck_assert_uint_lt(blob_writer_need(writer).bytes, sizes[i] + 64 * K);
		ck_assert_uint_eq(reserved(), 0);
	}
	ck_assert_uint_eq(count_entries(folder, "blobs"), 0);
	ck_assert_uint_eq(count_entries(folder, "tmp"), 0);
	ck_assert_int_eq(store_file(10 * K, 'x', false), 0);
	close_guarded();
}
END_TEST

START_TEST(what_is_written_stays_reserved_until_it_is_settled)
{
	open_guarded(CAP);
	ck_assert_int_eq(store_file(10 * K, 'a', false), 0);
	ck_assert_uint_ge(reserved(), info.allocated);
	ck_assert_int_eq(store_file(300 * K, 'b', true), 0);
	ck_assert_uint_ge(reserved(), 310 * K);
	ck_assert_int_eq(store_file(300 * K, 'c', false), 0);
	ck_assert_int_eq(store_file(500 * K, 'd', false), BLOB_NO_ROOM);
	ck_assert_uint_le(reserved(), CAP);
	blob_writer_settle(writer);
	ck_assert_uint_eq(reserved(), 0);
	ck_assert_int_eq(store_file(500 * K, 'd', false), 0);
	close_guarded();
}
END_TEST

START_TEST(what_is_known_needs_no_room)
{
	open_guarded(CAP);
	ck_assert_int_eq(store_file(600 * K, 'a', false), 0);
	ck_assert_int_eq(store_file(10 * K, 'b', false), 0);
	blob_writer_settle(writer);
	ck_assert_int_eq(store_file(600 * K, 'a', true), BLOB_EXISTS);
	ck_assert_int_eq(store_file(10 * K, 'b', false), BLOB_EXISTS);
	ck_assert_uint_eq(reserved(), 0);
	/* Nobody said that it is likely to be known: it was written, and thrown away. */
	ck_assert_int_eq(store_file(600 * K, 'a', false), BLOB_EXISTS);
	ck_assert_uint_eq(reserved(), 0);
	close_guarded();
}
END_TEST

START_TEST(what_was_written_or_found_is_claimed_until_it_is_settled)
{
	struct digest written, found;
	unsigned n_changed;

	open_guarded(CAP);
	found = put("found", BLOB_PLAIN);
	blob_writer_settle(writer);
	written = put("written", BLOB_PLAIN);
	ck_assert_int_eq(blob_write(writer, "found", 5, BLOB_PLAIN, &info, NULL, &err), BLOB_EXISTS);
	ck_assert(!claims_condemn(claims, &written));
	ck_assert(!claims_condemn(claims, &found));
	blob_writer_settle(writer);
	ck_assert_uint_eq(claims_n(claims), 0);

	ck_assert_int_eq(blob_renew(writer, &found, BLOB_PLAIN, false, &info, &n_changed, &err), BLOB_EXISTS);
	ck_assert_int_eq(blob_renew(writer, &written, BLOB_EXEC, false, &info, &n_changed, &err), 0);
	ck_assert(!claims_condemn(claims, &written));
	ck_assert(!claims_condemn(claims, &found));
	close_guarded();
}
END_TEST

START_TEST(a_kind_that_does_not_fit_is_not_made_and_the_other_stays)
{
	struct digest digest;
	unsigned n_changed;

	open_guarded(CAP);
	ck_assert_int_eq(store_file(600 * K, 'a', false), 0);
	digest = info.digest;
	space_set_used(space, 600 * K);
	blob_writer_settle(writer);
	ck_assert_int_eq(blob_renew(writer, &digest, BLOB_EXEC, false, &info, &n_changed, &err),
			 BLOB_NO_ROOM);
	ck_assert_uint_ge(blob_writer_need(writer).bytes, 600 * K);
	ck_assert_int_eq(look(&digest, BLOB_EXEC), BLOB_MISSING);
	ck_assert_int_eq(look(&digest, BLOB_PLAIN), 0);
	ck_assert_uint_eq(reserved(), 0);
	close_guarded();
}
END_TEST

START_TEST(a_directory_that_cannot_be_healed_for_want_of_room_says_so)
{
	struct blob_repairs repairs = { 0 };
	struct digest digest;
	uint8_t *bytes = NULL;

	open_guarded(CAP);
	digest = put("bytes of a Directory", BLOB_PLAIN);
	blob_writer_settle(writer);
	change_mode(path_of(&digest, BLOB_PLAIN));
	space_set_used(space, CAP);
	ck_assert_int_eq(blob_read_renewed(store, &digest, 100, &bytes, &repairs, &err), -ENOSPC);
	unit_ck_err(&err, ERR_NO_SPACE, "--max-size");
	space_set_used(space, 0);
	err_clear(&err);
	ck_assert_int_eq(blob_read_renewed(store, &digest, 100, &bytes, &repairs, &err), 0);
	free(bytes);
	close_guarded();
}
END_TEST

UNIT_MAIN("blob_room", a_blob_that_does_not_fit_is_no_room_and_leaves_nothing,
	  what_is_written_stays_reserved_until_it_is_settled, what_is_known_needs_no_room,
	  what_was_written_or_found_is_claimed_until_it_is_settled,
	  a_kind_that_does_not_fit_is_not_made_and_the_other_stays,
	  a_directory_that_cannot_be_healed_for_want_of_room_says_so)
