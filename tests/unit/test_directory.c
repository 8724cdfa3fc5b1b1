/* SPDX-License-Identifier: Apache-2.0 */
#include "common/directory.h"

#include <errno.h>
#include <string.h>

#include "common/alloc.h"
#include "common/hash.h"
#include "tests/unit/message.h"
#include "tests/unit/unit.h"

static struct digest digest_of(const char *text)
{
	struct digest digest;

	hash_bytes(text, strlen(text), &digest);
	return digest;
}

/* ---- what other implementations write ---- */

/*
 * A Directory with everything in it, as Google's Python implementation serializes it:
 *
 *     protoc --python_out=. common/reapi.proto, then in Python
 *     d = Directory()
 *     files        empty (the empty blob); hello.txt ("hello world"); run.sh ("abc", executable, mtime
 *                  1600000000.000000005, unix_mode 0755, properties a=1 and b without a value)
 *     directories  sub (the empty Directory)
 *     symlinks     link -> ../x
 *     node_properties.unix_mode 0700
 *     d.SerializeToString(deterministic=True).hex(), and hashlib.sha256() of it
 */
static const char known_hex[] =
	"0a4b0a05656d70747912420a4065336230633434323938666331633134396166626634633839393666623932343237616534"
	"31"
	"6534363439623933346361343935393931623738353262383535"
	"0a510a0968656c6c6f2e74787412440a40623934643237623939333464336530386135326535326437646137646162666163"
	"34383465666533376135333830656539303838663761636532656663646539100b"
	"0a6e0a0672756e2e736812440a40626137383136626638663031636665613431343134306465356461653232323362303033"
	"36316133393631373761396362343130666636316632303031356164100320"
	"01321c0a060a01611201310a030a016212080880a0f8fa0510051a0308ed03"
	"12490a0373756212420a40653362306334343239386663316331343961666266346338393936666239323432376165343165"
	"34"
	"363439623933346361343935393931623738353262383535"
	"1a0c0a046c696e6b12042e2e2f78"
	"2a051a0308c003";

static const char known_digest[] = "6bfea6d8cb1578e1a6988e407479ff83d5962be463af6819dbe7deda708085ec/368";

static struct message known_message(void)
{
	struct message m = { .len = 0 };

	for (const char *p = known_hex; *p; p += 2)
		m.bytes[m.len++] = (uint8_t)strtoul((char[]){ p[0], p[1], '\0' }, NULL, 16);
	return m;
}

START_TEST(a_known_directory_has_its_known_digest)
{
	const struct node_property list[] = { { "a", "1" }, { "b", "" } };
	const struct node_properties run = { .has_mtime = true,
					     .has_unix_mode = true,
					     .mtime_sec = 1600000000,
					     .mtime_nsec = 5,
					     .unix_mode = 0755,
					     .n_properties = 2,
					     .properties = list };
	const struct node_properties own = { .has_unix_mode = true, .unix_mode = 0700 };
	struct file_node files[] = { { "run.sh", digest_of("abc"), &run, true },
				     { "hello.txt", digest_of("hello world"), NULL, false },
				     { "empty", digest_empty, NULL, false } };
	struct directory_node directories[] = { { "sub", digest_empty } };
	struct symlink_node symlinks[] = { { "link", "../x", NULL } };
	struct directory d = { 3, 1, 1, files, directories, symlinks, &own, 0, 0 };
	struct message expected = known_message();
	AUTO_FREE uint8_t *bytes = NULL;
	struct digest digest;
	size_t len;

	ck_assert_int_eq(directory_encode(&d, &bytes, &len, NULL), 0);
	ck_assert_uint_eq(len, expected.len);
	ck_assert_mem_eq(bytes, expected.bytes, len);
	hash_bytes(bytes, len, &digest);
	ck_assert_str_eq(DIGEST_TEXT(&digest), known_digest);
}
END_TEST

START_TEST(a_known_directory_is_read_whole)
{
	struct message m = known_message();
	AUTO(directory) d = accept_message(&m);
	const struct file_node *run = &d->files[2];
	struct digest hello = digest_of("hello world");

	ck_assert_uint_eq(d->n_files, 3);
	ck_assert_uint_eq(d->file_bytes, strlen("abc") + strlen("hello world"));
	ck_assert_str_eq(d->files[0].name, "empty");
	ck_assert(digest_is_empty(&d->files[0].digest));
	ck_assert(digest_equal(&d->files[1].digest, &hello));
	ck_assert(!d->files[1].executable);
	ck_assert_ptr_null(d->files[1].properties);
	ck_assert_str_eq(run->name, "run.sh");
	ck_assert(run->executable && run->properties->has_mtime && run->properties->has_unix_mode);
	ck_assert_int_eq(run->properties->mtime_sec, 1600000000);
	ck_assert_uint_eq(run->properties->mtime_nsec, 5);
	ck_assert_uint_eq(run->properties->unix_mode, 0755);
	ck_assert_uint_eq(run->properties->n_properties, 2);
	ck_assert_str_eq(run->properties->properties[0].name, "a");
	ck_assert_str_eq(run->properties->properties[0].value, "1");
	ck_assert_str_eq(run->properties->properties[1].value, "");
	ck_assert_uint_eq(d->n_directories, 1);
	ck_assert_str_eq(d->directories[0].name, "sub");
	ck_assert_uint_eq(d->n_symlinks, 1);
	ck_assert_str_eq(d->symlinks[0].target, "../x");
	ck_assert(!d->properties->has_mtime);
	ck_assert_uint_eq(d->properties->unix_mode, 0700);
	ck_assert_uint_lt(d->memory, 1024);
}
END_TEST

START_TEST(the_empty_directory_is_the_empty_blob)
{
	struct directory empty = { 0 };
	AUTO_FREE uint8_t *bytes = NULL;
	AUTO(directory) d = NULL;
	struct digest digest;
	size_t len = 1;

	ck_assert_int_eq(directory_encode(&empty, &bytes, &len, NULL), 0);
	ck_assert_uint_eq(len, 0);
	ck_assert_ptr_nonnull(bytes);
	hash_bytes(bytes, len, &digest);
	ck_assert(digest_is_empty(&digest));
	ck_assert_int_eq(directory_decode("", 0, 0, &d, NULL), 0);
	ck_assert_uint_eq(d->n_files + d->n_directories + d->n_symlinks, 0);
	ck_assert_ptr_null(d->properties);
}
END_TEST

START_TEST(what_is_decoded_is_encoded_to_the_same_bytes)
{
	struct message m = known_message();
	AUTO(directory) d = accept_message(&m);
	AUTO_FREE uint8_t *bytes = NULL;
	size_t len;

	ck_assert_int_eq(directory_encode(d, &bytes, &len, NULL), 0);
	ck_assert_uint_eq(len, m.len);
	ck_assert_mem_eq(bytes, m.bytes, len);
}
END_TEST

START_TEST(every_cut_of_a_message_is_refused_or_a_directory)
{
	struct message m = known_message();

	for (size_t len = 0; len < m.len; len++) {
		AUTO(directory) d = NULL;
		AUTO_FREE uint8_t *exact = (uint8_t *)xmemdupz(m.bytes, len);
		int r = directory_decode(exact, len, DIRECTORY_ENTRIES_MAX, &d, NULL);

		ck_assert(r == -EINVAL || (r == 0 && d->memory > 0));
	}
}
END_TEST

START_TEST(unknown_fields_are_passed_over)
{
	struct message m = { .len = 0 }, node = node_message("f", 1, HEX, 11);

	put_number(&m, 15, 1);
	put_bytes(&m, 100, "later", 5);
	put_varint(&m, 20 << 3 | 1); /* fixed64 */
	memset(m.bytes + m.len, 1, 8);
	m.len += 8;
	put_varint(&m, 21 << 3 | 5); /* fixed32 */
	memset(m.bytes + m.len, 1, 4);
	m.len += 4;
	put_bytes(&node, 99, "later", 5);
	put_message(&m, 1, &node);

	AUTO(directory) d = accept_message(&m);

	ck_assert_uint_eq(d->n_files, 1);
	ck_assert_str_eq(d->files[0].name, "f");
}
END_TEST

START_TEST(names_are_any_bytes_in_the_order_of_unsigned_bytes)
{
	struct message m = { .len = 0 };

	put_node(&m, 1, "...");
	put_node(&m, 1, "A");
	put_node(&m, 1, "a\nb");
	put_node(&m, 1, "\x7f");
	put_node(&m, 1, "\xff\xfe");

	AUTO(directory) d = accept_message(&m);

	ck_assert_str_eq(d->files[4].name, "\xff\xfe");
}
END_TEST

START_TEST(entries_are_found_by_name)
{
	struct message m = known_message();
	AUTO(directory) d = accept_message(&m);

	ck_assert_ptr_eq(directory_find_file(d, "empty", 5), &d->files[0]);
	ck_assert_ptr_eq(directory_find_file(d, "hello.txt", 9), &d->files[1]);
	ck_assert_ptr_eq(directory_find_file(d, "run.sh/x", 6), &d->files[2]);
	ck_assert_ptr_eq(directory_find_directory(d, "sub", 3), &d->directories[0]);
	ck_assert_ptr_eq(directory_find_symlink(d, "link", 4), &d->symlinks[0]);
	ck_assert_ptr_null(directory_find_file(d, "sub", 3));
	ck_assert_ptr_null(directory_find_file(d, "hello.tx", 8));
	ck_assert_ptr_null(directory_find_file(d, "hello.txtx", 10));
	ck_assert_ptr_null(directory_find_file(d, "empty\0x", 7));
	ck_assert_ptr_null(directory_find_file(d, "", 0));
	ck_assert_ptr_null(directory_find_directory(d, "run.sh", 6));
}
END_TEST

/* ---- encoding ---- */

START_TEST(lists_are_sorted_when_encoded)
{
	struct file_node files[] = { { "c", digest_of("c"), NULL, false },
				     { "\xff", digest_of("f"), NULL, false },
				     { "a", digest_of("a"), NULL, true } };
	struct symlink_node symlinks[] = { { "z", "1", NULL }, { "y", "2", NULL } };
	struct directory d = { .n_files = 3, .files = files, .n_symlinks = 2, .symlinks = symlinks };
	AUTO_FREE uint8_t *bytes = NULL;
	AUTO(directory) again = NULL;
	size_t len;

	ck_assert_int_eq(directory_encode(&d, &bytes, &len, NULL), 0);
	ck_assert_int_eq(directory_decode(bytes, len, 5, &again, NULL), 0);
	ck_assert_str_eq(again->files[0].name, "a");
	ck_assert(again->files[0].executable);
	ck_assert_str_eq(again->files[2].name, "\xff");
	ck_assert_str_eq(again->symlinks[0].target, "2");
}
END_TEST

static void refuse_encoding(struct directory *d, const char *words)
{
	struct err err = { 0 };
	uint8_t *bytes = NULL;
	size_t len;

	ck_assert_int_eq(directory_encode(d, &bytes, &len, &err), -EINVAL);
	ck_assert_ptr_null(bytes);
	unit_ck_err(&err, ERR_INVALID_ARGUMENT, words);
}

START_TEST(what_would_not_be_decoded_is_not_encoded)
{
	struct file_node file = { "a/b", digest_of("x"), NULL, false };
	struct directory_node directory = { "a", digest_of("x") };
	struct symlink_node symlink = { "a", "", NULL };
	struct node_property unsorted[] = { { "b", "" }, { "a", "" } };
	struct node_properties properties = { .n_properties = 2, .properties = unsorted };
	struct directory d = { .n_files = 1, .files = &file };

	refuse_encoding(&d, "file 'a/b': a name is");
	file.name = "a";
	file.digest.size = (uint64_t)INT64_MAX + 1;
	refuse_encoding(&d, "file 'a': its size is out of range");
	file.digest.size = 0;
	refuse_encoding(&d, "file 'a': its digest has the hash or the size of the empty blob");
	file.digest.size = 1;
	file.properties = &properties;
	refuse_encoding(&d, "file 'a': its properties are not in ascending order");
	file.properties = NULL;
	d.n_directories = 1;
	d.directories = &directory;
	refuse_encoding(&d, "'a': the name is used twice");
	d = (struct directory){ .n_symlinks = 1, .symlinks = &symlink };
	refuse_encoding(&d, "symlink 'a': a target is");
}
END_TEST

START_TEST(a_node_too_large_to_decode_is_not_encoded)
{
	AUTO_FREE char *value = xcalloc(1, 70000);
	struct node_property property = { "p", value };
	struct node_properties properties = { .n_properties = 1, .properties = &property };
	struct file_node file = { "f", digest_of("x"), &properties, false };
	struct directory d = { .n_files = 1, .files = &file };

	memset(value, 'x', 69999);
	refuse_encoding(&d, "it is too large");
}
END_TEST

START_TEST(no_bytes_at_all_are_the_empty_directory)
{
	AUTO(directory) d = NULL;

	ck_assert_int_eq(directory_decode(NULL, 0, DIRECTORY_ENTRIES_MAX, &d, NULL), 0);
	ck_assert_uint_eq(d->n_files + d->n_directories + d->n_symlinks, 0);
}
END_TEST

UNIT_MAIN("directory", a_known_directory_has_its_known_digest, a_known_directory_is_read_whole,
	  the_empty_directory_is_the_empty_blob, no_bytes_at_all_are_the_empty_directory,
	  what_is_decoded_is_encoded_to_the_same_bytes, every_cut_of_a_message_is_refused_or_a_directory,
	  unknown_fields_are_passed_over, names_are_any_bytes_in_the_order_of_unsigned_bytes,
	  entries_are_found_by_name, lists_are_sorted_when_encoded, what_would_not_be_decoded_is_not_encoded,
	  a_node_too_large_to_decode_is_not_encoded)
