/* SPDX-License-Identifier: Apache-2.0 */
#include "common/err.h"

#include <errno.h>
#include <string.h>

#include "tests/unit/unit.h"

START_TEST(every_code_has_a_word_and_an_errno_that_lead_back)
{
	for (int code = ERR_INTERNAL; code <= ERR_CANCELLED; code++) {
		const char *text = err_code_text((enum err_code)code);
		int r = err_set(NULL, (enum err_code)code, "%s", "");

		ck_assert_int_lt(r, 0);
		ck_assert_int_eq(err_code_parse(text, strlen(text)), code);
		ck_assert_int_eq(err_code_of_errno(-r), code);
	}
}
END_TEST

START_TEST(an_unknown_word_is_internal)
{
	ck_assert_int_eq(err_code_parse("no_such_word", 12), ERR_INTERNAL);
	ck_assert_int_eq(err_code_parse("not_foundx", 10), ERR_INTERNAL);
	ck_assert_int_eq(err_code_parse("not_foundx", 9), ERR_NOT_FOUND);
	ck_assert_int_eq(err_code_parse("", 0), ERR_INTERNAL);
}
END_TEST

START_TEST(errnos_have_the_code_that_a_user_expects)
{
	ck_assert_int_eq(err_code_of_errno(ENOENT), ERR_NOT_FOUND);
	ck_assert_int_eq(err_code_of_errno(EDQUOT), ERR_NO_SPACE);
	ck_assert_int_eq(err_code_of_errno(EACCES), ERR_PERMISSION_DENIED);
	ck_assert_int_eq(err_code_of_errno(EEXIST), ERR_FAILED_PRECONDITION);
	ck_assert_int_eq(err_code_of_errno(EMFILE), ERR_RESOURCE_EXHAUSTED);
	ck_assert_int_eq(err_code_of_errno(EIO), ERR_INTERNAL);
	ck_assert_int_eq(err_code_of_errno(123456), ERR_INTERNAL);
}
END_TEST

START_TEST(the_first_words_stay)
{
	struct err err = { 0 };

	ck_assert_int_eq(err_set(&err, ERR_NOT_FOUND, "no %s", "blob"), -ENOENT);
	ck_assert_int_eq(err_set(&err, ERR_INTERNAL, "later"), -EIO);
	ck_assert_int_eq(err_errno(&err, -EACCES, "later"), -EACCES);
	ck_assert_int_eq(err.code, ERR_NOT_FOUND);
	ck_assert_str_eq(err.text, "no blob");
	err_clear(&err);
	ck_assert(!err.set);
	ck_assert_int_eq(err_errno(&err, -EACCES, "opening '%s'", "x"), -EACCES);
	ck_assert_str_eq(err.text, "opening 'x': Permission denied");
	ck_assert_int_eq(err.code, ERR_PERMISSION_DENIED);
}
END_TEST

START_TEST(an_errno_without_a_name_is_a_number)
{
	struct err err = { 0 };

	ck_assert_int_eq(err_errno(&err, -12345, "x"), -12345);
	ck_assert_str_eq(err.text, "x: error 12345");
}
END_TEST

START_TEST(a_prefix_goes_in_front)
{
	struct err err = { 0 };

	err_prefix(&err, "nothing was said: ");
	ck_assert(!err.set);
	err_set(&err, ERR_NO_SPACE, "the disk is full");
	err_prefix(&err, "storing '%s': ", "a/b");
	ck_assert_str_eq(err.text, "storing 'a/b': the disk is full");
	ck_assert_int_eq(err.code, ERR_NO_SPACE);
}
END_TEST

START_TEST(control_characters_and_broken_utf8_are_escaped)
{
	struct err err = { 0 };

	err_set(&err, ERR_INTERNAL, "%s", "a\nb\tc\x1b[31md\x7f");
	ck_assert_str_eq(err.text, "a\\nb\\tc\\x1b[31md\\x7f");
	err_clear(&err);
	err_set(&err, ERR_INTERNAL, "%s", "gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x8c\xb3");
	ck_assert_str_eq(err.text, "gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x8c\xb3");
	err_clear(&err);
	/* alone, overlong, a surrogate, above U+10FFFF, a C1 control, cut off */
	err_set(&err, ERR_INTERNAL, "%s", "\xff \xc0\x80 \xed\xa0\x80 \xf4\x90\x80\x80 \xc2\x85 \xe2\x82");
	ck_assert_str_eq(err.text,
			 "\\xff \\xc0\\x80 \\xed\\xa0\\x80 \\xf4\\x90\\x80\\x80 \\xc2\\x85 \\xe2\\x82");
}
END_TEST

START_TEST(long_words_are_cut_and_the_reason_kept)
{
	char words[3 * ERR_TEXT_SIZE];
	struct err err = { 0 };

	memset(words, 'x', sizeof(words) - 1);
	words[sizeof(words) - 1] = '\0';
	err_errno(&err, -ENOENT, "%s", words);
	ck_assert(strstr(err.text, "xxx: No such file or directory"));
	ck_assert_uint_lt(strlen(err.text), ERR_TEXT_SIZE);
	err_prefix(&err, "%s", words);
	ck_assert_uint_lt(strlen(err.text), ERR_TEXT_SIZE);

	/* Escapes are longer than what they stand for, and are not cut in two. */
	memset(words, '\x01', sizeof(words) - 1);
	err_clear(&err);
	err_set(&err, ERR_INTERNAL, "%s", words);
	ck_assert_uint_eq(strlen(err.text), 1020);
	ck_assert_str_eq(err.text + 1016, "\\x01");
}
END_TEST

UNIT_MAIN("err", every_code_has_a_word_and_an_errno_that_lead_back, an_unknown_word_is_internal,
	  errnos_have_the_code_that_a_user_expects, the_first_words_stay, an_errno_without_a_name_is_a_number,
	  a_prefix_goes_in_front, control_characters_and_broken_utf8_are_escaped,
	  long_words_are_cut_and_the_reason_kept)
