/* SPDX-License-Identifier: Apache-2.0 */
#include "common/size.h"

#include <errno.h>
#include <string.h>

#include "tests/unit/unit.h"

static void check_parse(const char *text, int expected_r, uint64_t expected)
{
	uint64_t size = 42;

	ck_assert_msg(size_parse(text, &size) == expected_r, "'%s'", text);
	if (expected_r == 0)
		ck_assert_uint_eq(size, expected);
	else
		ck_assert_uint_eq(size, 42);
}

START_TEST(sizes_are_powers_of_1024)
{
	check_parse("0", 0, 0);
	check_parse("512", 0, 512);
	check_parse("1K", 0, 1024);
	check_parse("1k", 0, 1024);
	check_parse("10M", 0, 10 << 20);
	check_parse("10G", 0, (uint64_t)10 << 30);
	check_parse("2t", 0, (uint64_t)2 << 40);
	check_parse("0T", 0, 0);
	check_parse("9223372036854775807", 0, INT64_MAX);
}
END_TEST

START_TEST(what_is_no_size_is_refused)
{
	static const char *const texts[] = { "",    "K",  " 1",  "1 ", "-1",  "+1",  "1.5G",
					     "1KB", "1P", "0x1", "1e", "1 K", "ten", "1\n" };

	for (size_t i = 0; i < N_ELEMENTS(texts); i++)
		check_parse(texts[i], -EINVAL, 0);
}
END_TEST

START_TEST(what_is_too_large_is_refused)
{
	check_parse("9223372036854775808", -ERANGE, 0);
	check_parse("18446744073709551616", -ERANGE, 0);
	check_parse("99999999999999999999999", -ERANGE, 0);
	check_parse("8388608T", -ERANGE, 0);
	check_parse("8388607T", 0, (uint64_t)8388607 << 40);
	check_parse("99999999999999999999999Q", -EINVAL, 0);
}
END_TEST

START_TEST(three_digits_are_printed)
{
	static const struct {
		uint64_t size;
		const char *text;
	} cases[] = {
		{ 0, "0" },
		{ 512, "512" },
		{ 1023, "1023" },
		{ 1024, "1.0K" },
		{ 1536, "1.5K" },
		{ 10 * 1024, "10.0K" },
		{ 24536678, "23.4M" },
		{ 1000 * 1024, "1000K" },
		{ (1 << 20) - 1, "1.0M" },
		{ 1 << 20, "1.0M" },
		{ (uint64_t)93 << 30, "93.0G" },
		{ ((uint64_t)1 << 40) - 1, "1.0T" },
		{ (uint64_t)5000 << 40, "5000T" },
		{ UINT64_MAX, "16777216T" },
	};

	for (size_t i = 0; i < N_ELEMENTS(cases); i++)
		ck_assert_str_eq(SIZE_TEXT(cases[i].size), cases[i].text);
}
END_TEST

UNIT_MAIN("size", sizes_are_powers_of_1024, what_is_no_size_is_refused, what_is_too_large_is_refused,
	  three_digits_are_printed)
