/* SPDX-License-Identifier: Apache-2.0 */
#include "common/digest.h"

#include <errno.h>

#include "tests/unit/unit.h"

#define HEX "b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9"

static int parse(const char *text)
{
	struct digest digest;

	return digest_parse(text, strlen(text), &digest);
}

START_TEST(what_is_printed_is_read_again)
{
	static const char *const texts[] = { HEX "/0", HEX "/1", HEX "/11", HEX "/9223372036854775807" };

	for (size_t i = 0; i < N_ELEMENTS(texts); i++) {
		struct digest digest, again;

		ck_assert_int_eq(digest_parse(texts[i], strlen(texts[i]), &digest), 0);
		ck_assert_str_eq(DIGEST_TEXT(&digest), texts[i]);
		ck_assert_int_eq(digest_parse(DIGEST_TEXT(&digest), strlen(texts[i]), &again), 0);
		ck_assert(digest_equal(&digest, &again));
	}
}
END_TEST

START_TEST(every_byte_of_the_hash_is_read)
{
	struct digest digest;

	ck_assert_int_eq(digest_parse(HEX "/11", strlen(HEX "/11"), &digest), 0);
	ck_assert_uint_eq(digest.size, 11);
	for (size_t i = 0; i < DIGEST_HASH_SIZE; i++) {
		char two[3] = { HEX[2 * i], HEX[2 * i + 1], '\0' };

		ck_assert_uint_eq(digest.hash[i], strtoul(two, NULL, 16));
	}
}
END_TEST

START_TEST(all_else_is_refused)
{
	static const char *const texts[] = {
		"",
		"/",
		HEX,
		HEX "/",
		"/1",
		HEX "1/1",
		HEX "/-1",
		HEX "/+1",
		HEX "/01",
		HEX "/00",
		HEX "/1 ",
		" " HEX "/1",
		HEX "/0x1",
		HEX "/1/1",
		HEX "/9223372036854775808",
		HEX "/18446744073709551616",
		HEX "/99999999999999999999",
		HEX ":1",
		/* upper case */
		"B94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9/1",
		/* 63 digits, and not a digit, first and last */
		"b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde/1",
		"g94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9/1",
		"b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde\xb9/1",
	};

	for (size_t i = 0; i < N_ELEMENTS(texts); i++)
		ck_assert_msg(parse(texts[i]) == -EINVAL, "accepted: %s", texts[i]);
}
END_TEST

START_TEST(a_nul_inside_is_no_digit)
{
	char text[] = HEX "/11";
	struct digest digest;

	text[10] = '\0';
	ck_assert_int_eq(digest_parse(text, sizeof(text) - 1, &digest), -EINVAL);
	ck_assert_int_eq(digest_parse(HEX "/1\0", sizeof(HEX "/1\0") - 1, &digest), -EINVAL);
}
END_TEST

START_TEST(the_empty_digest_is_known)
{
	ck_assert_str_eq(DIGEST_TEXT(&digest_empty),
			 "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855/0");
	ck_assert(digest_is_empty(&digest_empty));
	ck_assert(!digest_is_empty(&(struct digest){ .size = 0 }));
}
END_TEST

UNIT_MAIN("digest", what_is_printed_is_read_again, every_byte_of_the_hash_is_read, all_else_is_refused,
	  a_nul_inside_is_no_digit, the_empty_digest_is_known)
