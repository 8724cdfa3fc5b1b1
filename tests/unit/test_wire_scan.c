/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The scanner: where a message ends, and what goes beyond a limit.
 */
#include "common/wire.h"

#include <errno.h>
#include <string.h>

#include "tests/unit/unit.h"

/* Bytes from a string literal, NUL inside included. */
#define BYTES(literal) (literal), sizeof(literal) - 1

static int scan_limited(const void *bytes, size_t len, const struct wire_limits *limits, struct err *err)
{
	struct wire_scanner scanner;

	wire_scanner_init(&scanner, limits);
	return wire_scanner_feed(&scanner, bytes, len, err);
}

static int scan(const void *bytes, size_t len)
{
	return scan_limited(bytes, len, &wire_default_limits, NULL);
}

/* A message with each kind of head. */
static void write_everything(struct wire_out *out)
{
	static const char bytes[70000];
	static const char text[300] = { [0 ... 298] = 'x' };

	wire_request(out, 7, "method");
	wire_map(out, 8);
	wire_put_text(out, "text", text);
	wire_put_bytes(out, "bytes 8", bytes, 100);
	wire_put_bytes(out, "bytes 16", bytes, 1000);
	wire_put_bytes(out, "bytes 32", bytes, sizeof(bytes));
	wire_put_bool(out, "bool", true);
	wire_text(out, "array 16");
	wire_array(out, 300);
	for (int64_t i = 0; i < 300; i++)
		wire_int(out, i % 2 ? -((int64_t)1 << i % 63) : (int64_t)1 << i % 63);
	wire_text(out, "float");
	wire_float(out, 1.5);
	wire_text(out, "map");
	wire_map(out, 20);
	for (uint64_t i = 0; i < 20; i++) {
		wire_uint(out, i);
		wire_nil(out);
	}
}

START_TEST(a_message_may_come_byte_by_byte)
{
	CLEANUP(wire_out_fini) struct wire_out out = { 0 };
	struct wire_scanner scanner;

	write_everything(&out);
	wire_scanner_init(&scanner, &wire_default_limits);
	for (size_t n = 0; n < out.len; n++)
		ck_assert_int_eq(wire_scanner_feed(&scanner, out.data, n, NULL), WIRE_MORE);
	ck_assert_int_eq(wire_scanner_feed(&scanner, out.data, out.len, NULL), WIRE_WHOLE);
	ck_assert_uint_eq(scanner.offset, out.len);
}
END_TEST

START_TEST(the_end_is_found_with_the_next_message_behind_it)
{
	CLEANUP(wire_out_fini) struct wire_out out = { 0 };
	struct wire_scanner scanner;
	size_t first;

	write_everything(&out);
	first = out.len;
	write_everything(&out);
	wire_scanner_init(&scanner, &wire_default_limits);
	ck_assert_int_eq(wire_scanner_feed(&scanner, out.data, out.len, NULL), WIRE_WHOLE);
	ck_assert_uint_eq(scanner.offset, first);
}
END_TEST

START_TEST(what_was_seen_is_not_looked_at_again)
{
	CLEANUP(wire_out_fini) struct wire_out out = { 0 };
	struct wire_scanner scanner;

	write_everything(&out);
	wire_scanner_init(&scanner, &wire_default_limits);
	ck_assert_int_eq(wire_scanner_feed(&scanner, out.data, out.len - 1, NULL), WIRE_MORE);
	memset(out.data, 0xc1, scanner.offset); /* would be refused */
	ck_assert_int_eq(wire_scanner_feed(&scanner, out.data, out.len, NULL), WIRE_WHOLE);
}
END_TEST

START_TEST(every_head_has_its_length)
{
	static const struct {
		const char *bytes;
		size_t len;
	} cases[] = {
		{ BYTES("\x00") },
		{ BYTES("\x7f") },
		{ BYTES("\xe0") },
		{ BYTES("\xff") },
		{ BYTES("\xc0") },
		{ BYTES("\xc2") },
		{ BYTES("\xc3") },
		{ BYTES("\x80") },
		{ BYTES("\x90") },
		{ BYTES("\xa0") },
		{ BYTES("\x81\x01\x02") },
		{ BYTES("\x92\x01\x02") },
		{ BYTES("\xa3xyz") },
		{ BYTES("\xc4\x02xy") },
		{ BYTES("\xc5\x00\x02xy") },
		{ BYTES("\xc6\x00\x00\x00\x02xy") },
		{ BYTES("\xca\x00\x00\x00\x00") },
		{ BYTES("\xcb\x00\x00\x00\x00\x00\x00\x00\x00") },
		{ BYTES("\xcc\xff") },
		{ BYTES("\xcd\xff\xff") },
		{ BYTES("\xce\xff\xff\xff\xff") },
		{ BYTES("\xcf\xff\xff\xff\xff\xff\xff\xff\xff") },
		{ BYTES("\xd0\xff") },
		{ BYTES("\xd1\xff\xff") },
		{ BYTES("\xd2\xff\xff\xff\xff") },
		{ BYTES("\xd3\xff\xff\xff\xff\xff\xff\xff\xff") },
		{ BYTES("\xd9\x02xy") },
		{ BYTES("\xda\x00\x02xy") },
		{ BYTES("\xdb\x00\x00\x00\x02xy") },
		{ BYTES("\xdc\x00\x02\x01\x01") },
		{ BYTES("\xdd\x00\x00\x00\x02\x01\x01") },
		{ BYTES("\xde\x00\x01\x01\x01") },
		{ BYTES("\xdf\x00\x00\x00\x01\x01\x01") },
	};

	for (size_t i = 0; i < N_ELEMENTS(cases); i++) {
		for (size_t n = 0; n < cases[i].len; n++)
			ck_assert_int_eq(scan(cases[i].bytes, n), WIRE_MORE);
		ck_assert_int_eq(scan(cases[i].bytes, cases[i].len), WIRE_WHOLE);
	}
}
END_TEST

START_TEST(extension_types_and_the_unused_byte_are_refused)
{
	static const uint8_t heads[] = { 0xc1, 0xc7, 0xc8, 0xc9, 0xd4, 0xd5, 0xd6, 0xd7, 0xd8 };

	for (size_t i = 0; i < sizeof(heads); i++) {
		const uint8_t bytes[] = { 0x92, 0x01, heads[i] };
		struct err err = { 0 };

		ck_assert_int_eq(scan_limited(bytes, sizeof(bytes), &wire_default_limits, &err), -EBADMSG);
		unit_ck_err(&err, ERR_INVALID_ARGUMENT, "at byte 2");
	}
}
END_TEST

START_TEST(hostile_counts_are_refused_at_once)
{
	static const struct {
		const char *bytes;
		size_t len;
		const char *words;
	} cases[] = {
		{ BYTES("\xdd\xff\xff\xff\xff"), "more than 262144 values" },
		{ BYTES("\xdf\xff\xff\xff\xff"), "more than 262144 values" },
		{ BYTES("\xdf\x80\x00\x00\x00"), "more than 262144 values" },
		{ BYTES("\xdd\x00\x04\x00\x00"), "more than 262144 values" },
		{ BYTES("\x92\xdd\x00\x02\x00\x00"), NULL },
		{ BYTES("\x92\xdf\x00\x02\x00\x00"), "more than 262144 values" },
		{ BYTES("\xc6\xc0\x00\x00\x00"), "more than 16777216 bytes" },
		{ BYTES("\xdb\xff\xff\xff\xff"), "more than 16777216 bytes" },
		{ BYTES("\xc6\x01\x00\x00\x00"), "more than 16777216 bytes" },
		{ BYTES("\xc6\x00\xff\xff\xfb"), NULL }, /* with its head just 16 MiB */
		{ BYTES("\x91\xc6\x00\xff\xff\xfb"), "more than 16777216 bytes" },
	};

	for (size_t i = 0; i < N_ELEMENTS(cases); i++) {
		struct err err = { 0 };
		int r = scan_limited(cases[i].bytes, cases[i].len, &wire_default_limits, &err);

		ck_assert_int_eq(r, cases[i].words ? -EMSGSIZE : WIRE_MORE);
		if (cases[i].words)
			unit_ck_err(&err, ERR_RESOURCE_EXHAUSTED, cases[i].words);
	}
}
END_TEST

START_TEST(values_of_all_levels_count)
{
	const struct wire_limits limits = { .bytes = 100, .values = 6 };

	ck_assert_int_eq(scan_limited(BYTES("\x92\x91\x01\x92\x01\x01"), &limits, NULL), WIRE_WHOLE);
	ck_assert_int_eq(scan_limited(BYTES("\x92\x91\x01\x93"), &limits, NULL), -EMSGSIZE);
}
END_TEST

START_TEST(nesting_ends_at_sixteen_levels)
{
	char bytes[WIRE_NESTING_MAX + 1];
	struct err err = { 0 };

	memset(bytes, '\x91', sizeof(bytes));
	bytes[WIRE_NESTING_MAX] = '\x01';
	ck_assert_int_eq(scan(bytes, sizeof(bytes)), WIRE_WHOLE);
	bytes[WIRE_NESTING_MAX] = '\x90';
	ck_assert_int_eq(scan_limited(bytes, sizeof(bytes), &wire_default_limits, &err), -EMSGSIZE);
	unit_ck_err(&err, ERR_RESOURCE_EXHAUSTED, "16 levels");
	memset(bytes, '\x81', sizeof(bytes)); /* as keys of maps */
	ck_assert_int_eq(scan(bytes, sizeof(bytes)), -EMSGSIZE);
}
END_TEST

UNIT_MAIN("wire_scan", a_message_may_come_byte_by_byte, the_end_is_found_with_the_next_message_behind_it,
	  what_was_seen_is_not_looked_at_again, every_head_has_its_length,
	  extension_types_and_the_unused_byte_are_refused, hostile_counts_are_refused_at_once,
	  values_of_all_levels_count, nesting_ends_at_sixteen_levels)
