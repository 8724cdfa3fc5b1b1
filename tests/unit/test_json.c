/* SPDX-License-Identifier: Apache-2.0 */
#include "client/json.h"

#include <string.h>

#include "tests/unit/unit.h"

/* What the library prints for a result that `write` wrote. */
static void check_value(void (*write)(struct wire_out *out), const char *expected)
{
	struct wire_out out = { 0 };
	struct wire_message message = { 0 };
	struct err err = { 0 };
	AUTO_FREE char *json = NULL;

	wire_response(&out, 1);
	wire_map(&out, 1);
	wire_text(&out, "value");
	write(&out);
	ck_assert_msg(wire_parse(out.data, out.len, &message, &err) == 0, "%s", err.text);
	json = json_of_value(wire_map_value(message.result, 0));
	ck_assert_str_eq(json, expected);
	wire_message_fini(&message);
	wire_out_fini(&out);
}

static void check_bytes(const char *bytes, size_t len, const char *expected)
{
	char *json = NULL;
	size_t size;
	FILE *file = open_memstream(&json, &size);

	json_print_bytes(file, bytes, len);
	ck_assert_int_eq(fclose(file), 0);
	ck_assert_str_eq(json, expected);
	free(json);
}

#define CHECK_BYTES(literal, expected) check_bytes((literal), sizeof(literal) - 1, (expected))

static void write_scalars(struct wire_out *out)
{
	wire_array(out, 7);
	wire_nil(out);
	wire_bool(out, true);
	wire_bool(out, false);
	wire_uint(out, UINT64_MAX);
	wire_int(out, INT64_MIN);
	wire_float(out, 0.5);
	wire_text(out, "");
}

START_TEST(numbers_keep_all_their_digits)
{
	check_value(write_scalars, "[null,true,false,18446744073709551615,-9223372036854775808,0.5,\"\"]");
}
END_TEST

static void write_nested(struct wire_out *out)
{
	wire_map(out, 2);
	wire_put_bytes(out, "a", "\xff", 1);
	wire_text(out, "b");
	wire_array(out, 2);
	wire_map(out, 0);
	wire_array(out, 0);
}

START_TEST(maps_and_arrays_nest)
{
	check_value(write_nested, "{\"a\":\"\\udcff\",\"b\":[{},[]]}");
}
END_TEST

START_TEST(text_stays_as_it_is)
{
	CHECK_BYTES("a/b c", "\"a/b c\"");
	CHECK_BYTES("\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80", "\"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\"");
	CHECK_BYTES("\xf4\x8f\xbf\xbf", "\"\xf4\x8f\xbf\xbf\""); /* the last character there is */
}
END_TEST

START_TEST(what_json_and_terminals_obey_is_escaped)
{
	CHECK_BYTES("\"\\", "\"\\\"\\\\\"");
	CHECK_BYTES("\n\t\r\0\x1b\x7f", "\"\\n\\t\\u000d\\u0000\\u001b\\u007f\"");
	CHECK_BYTES("\xc2\x9b", "\"\\u009b\""); /* the one-character form of ESC [ */
}
END_TEST

START_TEST(bytes_that_are_no_utf8_become_lone_surrogates)
{
	CHECK_BYTES("a\xff"
		    "b",
		    "\"a\\udcffb\"");
	CHECK_BYTES("\xc3", "\"\\udcc3\"");                                  /* cut */
	CHECK_BYTES("\xe2\x82", "\"\\udce2\\udc82\"");                       /* cut */
	CHECK_BYTES("\x80", "\"\\udc80\"");                                  /* goes on from nothing */
	CHECK_BYTES("\xc0\xaf", "\"\\udcc0\\udcaf\"");                       /* longer than needed */
	CHECK_BYTES("\xe0\x80\xaf", "\"\\udce0\\udc80\\udcaf\"");            /* longer than needed */
	CHECK_BYTES("\xf4\x90\x80\x80", "\"\\udcf4\\udc90\\udc80\\udc80\""); /* above U+10FFFF */
}
END_TEST

/* Else two names would print the same. */
START_TEST(a_surrogate_in_the_input_is_escaped_byte_by_byte)
{
	CHECK_BYTES("\xed\xb3\xbf", "\"\\udced\\udcb3\\udcbf\"");
}
END_TEST

static void write_odd_keys(struct wire_out *out)
{
	wire_map(out, 1);
	wire_text(out, "k\"");
	wire_bool(out, true);
}

START_TEST(keys_are_escaped_too)
{
	check_value(write_odd_keys, "{\"k\\\"\":true}");
}
END_TEST

UNIT_MAIN("json", numbers_keep_all_their_digits, maps_and_arrays_nest, text_stays_as_it_is,
	  what_json_and_terminals_obey_is_escaped, bytes_that_are_no_utf8_become_lone_surrogates,
	  a_surrogate_in_the_input_is_escaped_byte_by_byte, keys_are_escaped_too)
