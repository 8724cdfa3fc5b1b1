/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What directory_decode() refuses, by name.
 */
#include "common/directory.h"

#include <errno.h>
#include <string.h>

#include "common/alloc.h"
#include "tests/unit/message.h"
#include "tests/unit/unit.h"

static void refuse_limited(const struct message *m, size_t max_entries, enum err_code code, const char *words)
{
	struct directory *directory = NULL;
	struct err err = { 0 };

	ck_assert_msg(directory_decode(m->bytes, m->len, max_entries, &directory, &err) < 0,
		      "accepted, not refused with '%s'", words);
	ck_assert_ptr_null(directory);
	unit_ck_err(&err, code, words);
}

static void refuse(const struct message *m, const char *words)
{
	refuse_limited(m, DIRECTORY_ENTRIES_MAX, ERR_INVALID_ARGUMENT, words);
}

START_TEST(bad_names_are_refused_in_every_list)
{
	static const struct {
		const char *name;
		size_t len;
		const char *words;
	} cases[] = {
		{ "", 0, "a name is 1 to 255 bytes" }, { ".", 1, "'.': a name is" },
		{ "..", 2, "'..': a name is" },        { "a/b", 3, "'a/b': a name is" },
		{ "/", 1, "'/': a name is" },          { "a\0b", 3, "a NUL is in its name" },
		{ "\0", 1, "a NUL is in its name" },
	};

	for (unsigned field = 1; field <= 3; field++)
		for (size_t i = 0; i < N_ELEMENTS(cases); i++) {
			struct message m = { .len = 0 };
			struct message node = node_message(cases[i].name, cases[i].len, HEX, 11);

			if (field == 3) {
				node.len = 0;
				put_bytes(&node, 1, cases[i].name, cases[i].len);
				put_text(&node, 2, "target");
			}
			put_message(&m, field, &node);
			refuse(&m, cases[i].words);
		}
}
END_TEST

START_TEST(a_name_is_255_bytes_at_most)
{
	struct message m = { .len = 0 };
	char name[DIRECTORY_NAME_MAX + 2];

	memset(name, 'x', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	put_node(&m, 1, name);
	refuse(&m, "a name is 1 to 255 bytes");
	m.len = 0;
	put_node(&m, 1, name + 1);
	directory_free(accept_message(&m));
	ck_assert(directory_name_is_valid(name + 1, 255));
	ck_assert(!directory_name_is_valid(name, 256));
}
END_TEST

START_TEST(names_out_of_order_are_refused_in_every_list)
{
	for (unsigned field = 1; field <= 2; field++) {
		struct message m = { .len = 0 };

		put_node(&m, field, "b");
		put_node(&m, field, "a");
		refuse(&m, field == 1 ? "file 'a': the names are not in ascending order"
				      : "directory 'a': the names are not in ascending order");
	}
	struct message m = { .len = 0 };

	put_symlink(&m, "b", "x");
	put_symlink(&m, "a", "x");
	refuse(&m, "symlink 'a': the names are not in ascending order");
}
END_TEST

START_TEST(a_name_used_twice_is_refused_wherever_it_is)
{
	struct message m = { .len = 0 };

	put_node(&m, 1, "a");
	put_node(&m, 1, "a");
	refuse(&m, "file 'a': the name is used twice");
	m.len = 0;
	put_node(&m, 1, "a");
	put_node(&m, 1, "x");
	put_node(&m, 2, "b");
	put_node(&m, 2, "x");
	refuse(&m, "'x': the name is used twice, for a file and a directory");
	m.len = 0;
	put_node(&m, 1, "x");
	put_symlink(&m, "a", "t");
	put_symlink(&m, "x", "t");
	refuse(&m, "'x': the name is used twice, for a file and a symlink");
	m.len = 0;
	put_node(&m, 2, "x");
	put_symlink(&m, "x", "t");
	refuse(&m, "'x': the name is used twice, for a directory and a symlink");
}
END_TEST

START_TEST(bad_digests_are_refused)
{
	static const struct {
		const char *hash;
		int64_t size;
		const char *words;
	} cases[] = {
		{ "", 1, "64 lower-case hexadecimal digits" },
		{ HEX "0", 1, "64 lower-case hexadecimal digits" },
		{ "B94D27B9934D3E08A52E52D7DA7DABFAC484EFE37A5380EE9088F7ACE2EFCDE9", 1, "64 lower-case" },
		{ "x94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9", 1, "64 lower-case" },
		{ HEX, -1, "its size is negative" },
		{ HEX, INT64_MIN, "its size is negative" },
		{ HEX, 0, "not both" },
		{ HEX_EMPTY, 1, "not both" },
	};

	for (unsigned field = 1; field <= 2; field++)
		for (size_t i = 0; i < N_ELEMENTS(cases); i++) {
			struct message m = { .len = 0 },
				       node = node_message("n", 1, cases[i].hash, cases[i].size);

			put_message(&m, field, &node);
			refuse(&m, cases[i].words);
			refuse(&m, field == 1 ? "file 'n'" : "directory 'n'");
		}
}
END_TEST

START_TEST(a_missing_digest_is_refused)
{
	struct message m = { .len = 0 }, node = { .len = 0 };

	put_text(&node, 1, "n");
	put_message(&m, 1, &node);
	refuse(&m, "file 'n': its digest is missing");
	m.len = 0;
	put_message(&m, 2, &node);
	refuse(&m, "directory 'n': its digest is missing");
}
END_TEST

START_TEST(bad_targets_are_refused)
{
	char target[DIRECTORY_TARGET_MAX + 2];
	struct message m = { .len = 0 }, node = { .len = 0 };

	memset(target, 'x', sizeof(target) - 1);
	target[sizeof(target) - 1] = '\0';
	put_symlink(&m, "s", "");
	refuse(&m, "symlink 's': a target is 1 to 4095 bytes");
	m.len = 0;
	put_symlink(&m, "s", target);
	refuse(&m, "symlink 's': a target is 1 to 4095 bytes");
	m.len = 0;
	put_symlink(&m, "s", target + 1);
	directory_free(accept_message(&m));
	m.len = 0;
	put_text(&node, 1, "s");
	put_bytes(&node, 2, "a\0b", 3);
	put_message(&m, 3, &node);
	refuse(&m, "symlink 's': a NUL is in its name, target or properties");
}
END_TEST

static void check_mtime(int64_t seconds, int64_t nanos, bool good)
{
	struct message m = { .len = 0 }, properties = { .len = 0 }, time = { .len = 0 };

	put_number(&time, 1, (uint64_t)seconds);
	put_number(&time, 2, (uint64_t)nanos);
	put_message(&properties, 2, &time);
	put_file_with_properties(&m, &properties);
	if (good)
		directory_free(accept_message(&m));
	else
		refuse(&m, "file 'f': its mtime is out of range");
	m.len = 0;
	put_message(&m, 5, &properties);
	if (good)
		directory_free(accept_message(&m));
	else
		refuse(&m, "its mtime is out of range");
}

START_TEST(times_are_of_the_years_1_to_9999)
{
	check_mtime(0, 0, true);
	check_mtime(-1, 999999999, true);
	check_mtime(253402300799, 999999999, true);
	check_mtime(-62135596800, 0, true);
	check_mtime(253402300800, 0, false);
	check_mtime(-62135596801, 0, false);
	check_mtime(INT64_MIN, 0, false);
	check_mtime(0, 1000000000, false);
	check_mtime(0, -1, false);
}
END_TEST

static void put_property(struct message *m, const char *name, size_t len)
{
	struct message property = { .len = 0 };

	put_bytes(&property, 1, name, len);
	put_message(m, 1, &property);
}

START_TEST(bad_properties_are_refused)
{
	static const struct {
		const char *first, *second;
		size_t len;
		const char *words;
	} cases[] = {
		{ "b", "a", 1, "file 'f': its properties are not in ascending order" },
		{ "a", "a", 1, "file 'f': its properties are not in ascending order" },
		{ "a", "", 0, "file 'f': one of its properties has no name" },
		{ "a", "b\0", 2, "file 'f': a NUL is in its name, target or properties" },
	};

	for (size_t i = 0; i < N_ELEMENTS(cases); i++) {
		struct message m = { .len = 0 }, properties = { .len = 0 };

		put_property(&properties, cases[i].first, strlen(cases[i].first));
		put_property(&properties, cases[i].second, cases[i].len);
		put_file_with_properties(&m, &properties);
		refuse(&m, cases[i].words);
	}
	struct message m = { .len = 0 }, properties = { .len = 0 };

	put_message(&m, 5, &properties);
	directory_free(accept_message(&m));
	put_message(&m, 5, &properties);
	refuse(&m, "its properties come twice");
}
END_TEST

START_TEST(entries_are_counted_before_they_are_read)
{
	struct message m = { .len = 0 };

	put_node(&m, 1, "a");
	put_node(&m, 2, "b");
	put_symlink(&m, "c", "d");
	refuse_limited(&m, 2, ERR_RESOURCE_EXHAUSTED, "it has 3 entries: the limit is 2");
	directory_free(accept_message(&m));
	m.len = 0;
	for (int i = 0; i < 100; i++)
		put_bytes(&m, 1, "", 0);
	/* and not that the first has no name */
	refuse_limited(&m, 99, ERR_RESOURCE_EXHAUSTED, "it has 100 entries: the limit is 99");
}
END_TEST

START_TEST(millions_of_tiny_messages_cost_little)
{
	size_t len = 4 << 20;
	AUTO_FREE uint8_t *bytes = xmalloc(len);
	struct directory *d = NULL;
	struct err err = { 0 };

	for (size_t i = 0; i < len; i += 2)
		memcpy(bytes + i, "\x1a", 2); /* an empty symlink */
	ck_assert_int_lt(directory_decode(bytes, len, DIRECTORY_ENTRIES_MAX, &d, &err), 0);
	unit_ck_err(&err, ERR_RESOURCE_EXHAUSTED, "the limit is 1000000");
}
END_TEST

START_TEST(a_node_of_nothing_but_properties_is_bounded)
{
	static const uint8_t large_file[] = { 0x0a, 0x9c, 0x8d, 0x06 }; /* 99996 bytes */
	struct message m = { .len = 0 }, properties = { .len = 0 };
	AUTO_FREE uint8_t *bytes = xmalloc(100000);
	struct directory *d = NULL;
	struct err err = { 0 };

	for (int i = 0; i < 5000; i++)
		put_bytes(&properties, 1, "", 0);
	put_file_with_properties(&m, &properties);
	refuse(&m, "file 'f': one of its properties has no name");

	memset(bytes, 0, 100000);
	memcpy(bytes, large_file, sizeof(large_file));
	ck_assert_int_eq(directory_decode(bytes, 100000, 10, &d, &err), -EINVAL);
	unit_ck_err(&err, ERR_INVALID_ARGUMENT, "field 1: it is too large");
}
END_TEST

START_TEST(many_properties_are_kept)
{
	struct message m = { .len = 0 }, properties = { .len = 0 };
	char name[16];

	for (int i = 0; i < 1000; i++) {
		(void)snprintf(name, sizeof(name), "p%04d", i);
		put_property(&properties, name, strlen(name));
	}
	put_file_with_properties(&m, &properties);

	AUTO(directory) d = accept_message(&m);

	ck_assert_uint_eq(d->files[0].properties->n_properties, 1000);
	ck_assert_str_eq(d->files[0].properties->properties[999].name, "p0999");
	ck_assert_str_eq(d->files[0].name, "f");
}
END_TEST

START_TEST(what_is_no_protobuf_is_refused)
{
	static const struct {
		const char *bytes;
		size_t len;
		const char *words;
	} cases[] = {
		{ "\x0a", 1, "malformed" },     /* no length */
		{ "\x0a\x05", 2, "malformed" }, /* no body */
		{ "\x0b", 1, "malformed" },     /* a group */
		{ "\x02\x00", 2, "malformed" }, /* field 0 */
		{ "\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01", 11, "malformed" },
		{ "\x7a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11, "malformed" },
		{ "\x79\x01", 2, "malformed" },        /* a fixed64 of one byte */
		{ "\x08\x01", 2, "it is no message" }, /* files = 1 */
		{ "\x0a\x01\x0a", 3, "file 0: malformed" },
		{ "\x12\x01\x0a", 3, "directory 0: malformed" },
		{ "\x1a\x01\x0a", 3, "symlink 0: malformed" },
		{ "\x2a\x01\x0a", 3, "properties 0: malformed" },
	};

	for (size_t i = 0; i < N_ELEMENTS(cases); i++) {
		struct message m = { .len = cases[i].len };

		memcpy(m.bytes, cases[i].bytes, cases[i].len);
		refuse(&m, cases[i].words);
	}
}
END_TEST

UNIT_MAIN("directory_refused", bad_names_are_refused_in_every_list, a_name_is_255_bytes_at_most,
	  names_out_of_order_are_refused_in_every_list, a_name_used_twice_is_refused_wherever_it_is,
	  bad_digests_are_refused, a_missing_digest_is_refused, bad_targets_are_refused,
	  times_are_of_the_years_1_to_9999, bad_properties_are_refused,
	  entries_are_counted_before_they_are_read, millions_of_tiny_messages_cost_little,
	  a_node_of_nothing_but_properties_is_bounded, many_properties_are_kept,
	  what_is_no_protobuf_is_refused)
