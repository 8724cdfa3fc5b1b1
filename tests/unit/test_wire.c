/* SPDX-License-Identifier: Apache-2.0 */
#include "common/wire.h"

#include <errno.h>
#include <string.h>

#include "tests/unit/unit.h"

/* Bytes from a string literal, NUL inside included. */
#define BYTES(literal) (literal), sizeof(literal) - 1

/* ---- messages ---- */

static int parse(const void *bytes, size_t len, struct wire_message *message, struct err *err)
{
	struct wire_scanner scanner;

	wire_scanner_init(&scanner, &wire_default_limits);
	ck_assert_int_eq(wire_scanner_feed(&scanner, bytes, len, err), WIRE_WHOLE);
	return wire_parse(bytes, len, message, err);
}

START_TEST(a_request_comes_back_as_it_was_written)
{
	CLEANUP(wire_out_fini) struct wire_out out = { 0 };
	CLEANUP(wire_message_fini) struct wire_message message;

	wire_request(&out, UINT32_MAX, "ping");
	wire_map(&out, 0);
	ck_assert_int_eq(parse(out.data, out.len, &message, NULL), 0);
	ck_assert_int_eq(message.type, WIRE_REQUEST);
	ck_assert_uint_eq(message.id, UINT32_MAX);
	ck_assert(wire_is(&message.method, "ping"));
	ck_assert_uint_eq(wire_map_size(message.params), 0);
}
END_TEST

START_TEST(a_response_comes_back_as_it_was_written)
{
	CLEANUP(wire_out_fini) struct wire_out out = { 0 };
	CLEANUP(wire_message_fini) struct wire_message message;

	wire_response(&out, 3);
	wire_map(&out, 1);
	wire_put_uint(&out, "n", 5);
	ck_assert_int_eq(parse(out.data, out.len, &message, NULL), 0);
	ck_assert_int_eq(message.type, WIRE_RESPONSE);
	ck_assert_uint_eq(message.id, 3);
	ck_assert_ptr_null(message.error);
	ck_assert_uint_eq(wire_as_uint(wire_map_value(message.result, 0)), 5);
}
END_TEST

START_TEST(a_notification_comes_back_as_it_was_written)
{
	CLEANUP(wire_out_fini) struct wire_out out = { 0 };
	CLEANUP(wire_message_fini) struct wire_message message;

	wire_notification(&out, "progress");
	wire_map(&out, 0);
	ck_assert_int_eq(parse(out.data, out.len, &message, NULL), 0);
	ck_assert_int_eq(message.type, WIRE_NOTIFICATION);
	ck_assert(wire_is(&message.method, "progress"));
	ck_assert_int_eq(wire_kind(message.params), WIRE_IS_MAP);
}
END_TEST

START_TEST(an_error_comes_back_as_it_was_written)
{
	CLEANUP(wire_out_fini) struct wire_out out = { 0 };
	CLEANUP(wire_message_fini) struct wire_message message;
	struct err sent = { 0 }, received = { 0 };
	const struct wire_value *missing;
	struct digest digest;

	err_set(&sent, ERR_NOT_FOUND, "tree '%s': blobs are missing", "x");
	wire_error_response(&out, 9, &sent, &digest_empty, 1);
	ck_assert_int_eq(parse(out.data, out.len, &message, NULL), 0);
	ck_assert_int_eq(message.type, WIRE_RESPONSE);
	ck_assert_uint_eq(message.id, 9);
	ck_assert_ptr_null(message.result);
	wire_read_error(message.error, &received, &missing);
	unit_ck_err(&received, ERR_NOT_FOUND, "tree 'x': blobs are missing");
	ck_assert_uint_eq(wire_array_size(missing), 1);
	ck_assert_int_eq(wire_as_digest(wire_array_at(missing, 0), &digest), 0);
	ck_assert(digest_is_empty(&digest));
}
END_TEST

START_TEST(an_error_without_missing_blobs_says_nothing_of_them)
{
	CLEANUP(wire_out_fini) struct wire_out out = { 0 };
	CLEANUP(wire_message_fini) struct wire_message message;
	struct err sent = { 0 }, received = { 0 };
	const struct wire_value *missing;

	err_set(&sent, ERR_CANCELLED, "stop");
	wire_error_response(&out, 9, &sent, NULL, 0);
	ck_assert_int_eq(parse(out.data, out.len, &message, NULL), 0);
	ck_assert_uint_eq(wire_map_size(message.error), 2);
	wire_read_error(message.error, &received, &missing);
	unit_ck_err(&received, ERR_CANCELLED, "stop");
	ck_assert_ptr_null(missing);
}
END_TEST

START_TEST(a_malformed_error_is_an_error_too)
{
	CLEANUP(wire_message_fini) struct wire_message message;
	struct err err = { 0 };

	ck_assert_int_eq(parse(BYTES("\x94\x01\x01\x81\xa4"
				     "code\x05\xc0"),
			       &message, NULL),
			 0);
	wire_read_error(message.error, &err, NULL);
	unit_ck_err(&err, ERR_INVALID_ARGUMENT, "error: 'code' must be text");
}
END_TEST

START_TEST(what_is_no_rpc_is_refused)
{
	static const struct {
		const char *bytes;
		size_t len;
	} cases[] = {
		{ BYTES("\x01") },
		{ BYTES("\x80") },
		{ BYTES("\x90") },
		{ BYTES("\x92\x00\x01") },
		{ BYTES("\x95\x00\x01\xa1m\x91\x80\x01") },
		{ BYTES("\x94\xff\x01\xa1m\x91\x80") },  /* type -1 */
		{ BYTES("\x94\x03\x01\xa1m\x91\x80") },  /* type 3 */
		{ BYTES("\x94\xa1x\x01\xa1m\x91\x80") }, /* type "x" */
		{ BYTES("\x94\x02\x01\xa1m\x91\x80") },  /* a notification of four */
		{ BYTES("\x93\x00\xa1m\x91\x80") },      /* a request of three */
		{ BYTES("\x94\x00\xff\xa1m\x91\x80") },  /* id -1 */
		{ BYTES("\x94\x00\xa1x\xa1m\x91\x80") }, /* id "x" */
		{ BYTES("\x94\x00\xcf\x00\x00\x00\x01\x00\x00\x00\x00\xa1m\x91\x80") }, /* id 2^32 */
		{ BYTES("\x94\x00\x01\x05\x91\x80") },                                  /* method 5 */
		{ BYTES("\x94\x00\x01\xc4\x01m\x91\x80") },                             /* method in binary */
		{ BYTES("\x94\x00\x01\xa1m\x80") },                                     /* params no array */
		{ BYTES("\x94\x00\x01\xa1m\x90") },                                     /* none */
		{ BYTES("\x94\x00\x01\xa1m\x92\x80\x80") },                             /* two */
		{ BYTES("\x94\x00\x01\xa1m\x91\x90") },                                 /* no map */
		{ BYTES("\x93\x02\xa1m\x91\x01") },
		{ BYTES("\x94\x01\x01\x01\xc0") }, /* error 1 */
		{ BYTES("\x94\x01\xff\xc0\xc0") },
	};

	for (size_t i = 0; i < N_ELEMENTS(cases); i++) {
		struct wire_message message;
		struct err err = { 0 };

		ck_assert_msg(parse(cases[i].bytes, cases[i].len, &message, &err) == -EBADMSG, "case %zu", i);
		unit_ck_err(&err, ERR_INVALID_ARGUMENT, "message: ");
		wire_message_fini(&message);
	}
}
END_TEST

START_TEST(a_message_ends_where_its_bytes_end)
{
	CLEANUP(wire_message_fini) struct wire_message message;
	struct err err = { 0 };

	ck_assert_int_eq(wire_parse(BYTES("\x93\x02\xa1m\x91\x80\x00"), &message, &err), -EBADMSG);
	unit_ck_err(&err, ERR_INVALID_ARGUMENT, "left behind");
	wire_message_fini(&message);
	ck_assert_int_eq(wire_parse(BYTES("\x93\x02\xa1m\x91"), &message, NULL), -EBADMSG);
}
END_TEST

/* ---- maps ---- */

struct everything {
	bool b;
	uint64_t u;
	int64_t i;
	struct wire_bytes text, bytes;
	struct digest digest;
	const struct wire_value *array, *map, *any;
	bool has_u;
};

#define FIELD(type, member) WIRE_FIELD(struct everything, member, type, false)

static const struct wire_field everything_fields[] = {
	FIELD(WIRE_BOOL, b),
	{ "u", WIRE_UINT, true, offsetof(struct everything, u), offsetof(struct everything, has_u) },
	FIELD(WIRE_INT, i),
	FIELD(WIRE_TEXT, text),
	FIELD(WIRE_BYTES, bytes),
	FIELD(WIRE_DIGEST, digest),
	FIELD(WIRE_ARRAY, array),
	FIELD(WIRE_MAP, map),
	FIELD(WIRE_ANY, any),
};

/* A notification whose params are these bytes, decoded. The result points into static memory. */
static int decode(const void *params, size_t len, bool open, struct everything *out, struct err *err)
{
	static const uint8_t head[] = { 0x93, 0x02, 0xa1, 'm', 0x91 };
	static char bytes[1024];
	static struct wire_message message;
	__typeof__(wire_decode) *function = open ? wire_decode_open : wire_decode;

	memcpy(bytes, head, sizeof(head));
	memcpy(bytes + sizeof(head), params, len);
	wire_message_fini(&message);
	ck_assert_int_eq(parse(bytes, sizeof(head) + len, &message, NULL), 0);
	return function(message.params, everything_fields, N_ELEMENTS(everything_fields), out, "test", err);
}

START_TEST(every_type_is_read)
{
	CLEANUP(wire_out_fini) struct wire_out out = { 0 };
	struct everything e = { 0 };

	wire_map(&out, 9);
	wire_put_bool(&out, "b", true);
	wire_put_uint(&out, "u", UINT64_MAX);
	wire_text(&out, "i");
	wire_int(&out, INT64_MIN);
	wire_put_text(&out, "text", "hello");
	wire_put_bytes(&out, "bytes", "a\0b", 3);
	wire_put_digest(&out, "digest", &digest_empty);
	wire_text(&out, "array");
	wire_array(&out, 1);
	wire_float(&out, 0.5);
	wire_text(&out, "map");
	wire_map(&out, 0);
	wire_text(&out, "any");
	wire_nil(&out);
	ck_assert_int_eq(decode(out.data, out.len, false, &e, NULL), 0);
	ck_assert(e.b && e.has_u);
	ck_assert_uint_eq(e.u, UINT64_MAX);
	ck_assert_int_eq(e.i, INT64_MIN);
	ck_assert(wire_is(&e.text, "hello"));
	ck_assert(e.bytes.len == 3 && memcmp(e.bytes.data, "a\0b", 3) == 0);
	ck_assert(digest_is_empty(&e.digest));
	ck_assert_double_eq(wire_as_float(wire_array_at(e.array, 0)), 0.5);
	ck_assert_uint_eq(wire_map_size(e.map), 0);
	ck_assert_int_eq(wire_kind(e.any), WIRE_IS_NIL);
}
END_TEST

START_TEST(text_may_come_as_binary_and_bytes_as_text)
{
	struct everything e = { 0 };

	ck_assert_int_eq(decode(BYTES("\x83\xa1u\x00\xa4text\xc4\x01x\xa5"
				      "bytes\xa1y"),
				false, &e, NULL),
			 0);
	ck_assert(wire_is(&e.text, "x"));
	ck_assert(wire_is(&e.bytes, "y"));
}
END_TEST

START_TEST(bytes_are_compared_whole)
{
	const struct wire_bytes bytes = { "text", 4 }, absent = { NULL, 0 }, empty = { "", 0 };

	ck_assert(wire_is(&bytes, "text"));
	ck_assert(!wire_is(&bytes, "tex"));
	ck_assert(!wire_is(&bytes, "texts"));
	ck_assert(wire_is(&empty, ""));
	ck_assert(!wire_is(&absent, ""));
}
END_TEST

START_TEST(absent_keys_leave_their_members_alone)
{
	struct everything e = { .i = -5, .text = { "kept", 4 } };

	ck_assert_int_eq(decode(BYTES("\x81\xa1u\x07"), false, &e, NULL), 0);
	ck_assert_uint_eq(e.u, 7);
	ck_assert(e.has_u);
	ck_assert_int_eq(e.i, -5);
	ck_assert(wire_is(&e.text, "kept"));
	ck_assert_ptr_null(e.bytes.data);
}
END_TEST

START_TEST(every_wrong_map_is_refused_by_name)
{
	static const struct {
		const char *bytes;
		size_t len;
		const char *words;
	} cases[] = {
		{ BYTES("\x80"), "test: 'u' is missing" },
		{ BYTES("\x82\xa1u\x01\xa1u\x01"), "test: 'u' comes twice" },
		{ BYTES("\x82\xa1u\x01\xa1v\x01"), "test: 'v' is no key" },
		{ BYTES("\x82\xa1u\x01\xa0\x01"), "test: '' is no key" },
		{ BYTES("\x82\xa1u\x01\xa1x\x01"), "test: 'x' is no key" },
		{ BYTES("\x82\xa1u\x01\xa2u\x00\x01"), "test: a key is no text" },
		{ BYTES("\x82\xa1u\x01\x05\x01"), "test: a key is no text" },
		{ BYTES("\x82\xa1u\x01\xa1"
			"b\x01"),
		  "test: 'b' must be a bool" },
		{ BYTES("\x81\xa1u\xff"), "test: 'u' must be an unsigned integer" },
		{ BYTES("\x81\xa1u\xca\x00\x00\x00\x00"), "test: 'u' must be an unsigned integer" },
		{ BYTES("\x81\xa1u\xc0"), "test: 'u' must be an unsigned integer" },
		{ BYTES("\x82\xa1u\x01\xa1i\xcf\x80\x00\x00\x00\x00\x00\x00\x00"),
		  "test: 'i' must be an integer" },
		{ BYTES("\x82\xa1u\x01\xa4text\xa1\x00"), "test: 'text' must be text without NUL" },
		{ BYTES("\x82\xa1u\x01\xa4text\x01"), "test: 'text' must be text without NUL" },
		{ BYTES("\x82\xa1u\x01\xa5"
			"bytes\x80"),
		  "test: 'bytes' must be bytes" },
		{ BYTES("\x82\xa1u\x01\xa6"
			"digest\xa1x"),
		  "test: 'digest' must be a digest" },
		{ BYTES("\x82\xa1u\x01\xa6"
			"digest\x01"),
		  "test: 'digest' must be a digest" },
		{ BYTES("\x82\xa1u\x01\xa5"
			"array\x80"),
		  "test: 'array' must be an array" },
		{ BYTES("\x82\xa1u\x01\xa3map\x90"), "test: 'map' must be a map" },
	};

	for (size_t i = 0; i < N_ELEMENTS(cases); i++) {
		struct everything e = { 0 };
		struct err err = { 0 };

		ck_assert_msg(decode(cases[i].bytes, cases[i].len, false, &e, &err) == -EINVAL, "case %zu",
			      i);
		unit_ck_err(&err, ERR_INVALID_ARGUMENT, cases[i].words);
	}
}
END_TEST

START_TEST(keys_with_x_are_passed_over)
{
	struct everything e = { 0 };

	ck_assert_int_eq(decode(BYTES("\x83\xa3x-a\x01\xa1u\x01\xa3x-a\x90"), false, &e, NULL), 0);
}
END_TEST

START_TEST(an_open_map_may_hold_anything_but_wrong_types)
{
	struct everything e = { 0 };
	struct err err = { 0 };

	ck_assert_int_eq(decode(BYTES("\x83\xa1z\x01\xa1u\x09\x05\x06"), true, &e, &err), 0);
	ck_assert_uint_eq(e.u, 9);
	ck_assert_int_eq(decode(BYTES("\x81\xa1u\xa1x"), true, &e, &err), -EINVAL);
}
END_TEST

START_TEST(every_kind_is_told)
{
	static const enum wire_kind kinds[] = { WIRE_IS_NIL,   WIRE_IS_BOOL,  WIRE_IS_UINT, WIRE_IS_INT,
						WIRE_IS_FLOAT, WIRE_IS_FLOAT, WIRE_IS_TEXT, WIRE_IS_BYTES,
						WIRE_IS_ARRAY, WIRE_IS_MAP };
	struct everything e = { 0 };

	ck_assert_int_eq(decode(BYTES("\x82\xa1u\x01\xa5"
				      "array\x9a\xc0\xc3\x05\xfb\xca\x3f\x00\x00\x00"
				      "\xcb\x3f\xe0\x00\x00\x00\x00\x00\x00\xa1x\xc4\x01y\x90\x80"),
				false, &e, NULL),
			 0);
	ck_assert_uint_eq(wire_array_size(e.array), N_ELEMENTS(kinds));
	for (size_t i = 0; i < N_ELEMENTS(kinds); i++)
		ck_assert_int_eq(wire_kind(wire_array_at(e.array, i)), kinds[i]);
	ck_assert(wire_as_bool(wire_array_at(e.array, 1)));
	ck_assert_int_eq(wire_as_int(wire_array_at(e.array, 3)), -5);
	ck_assert_double_eq(wire_as_float(wire_array_at(e.array, 4)), 0.5);
	ck_assert_double_eq(wire_as_float(wire_array_at(e.array, 5)), 0.5);
	ck_assert_uint_eq(wire_array_size(NULL), 0);
	ck_assert_uint_eq(wire_map_size(NULL), 0);
}
END_TEST

START_TEST(taken_bytes_leave_an_empty_writer)
{
	struct wire_out out = { 0 };
	AUTO_FREE char *bytes = NULL;
	size_t len;

	wire_text(&out, "x");
	bytes = wire_out_take(&out, &len);
	ck_assert_uint_eq(len, 2);
	ck_assert_int_eq(memcmp(bytes, "\xa1x", 2), 0);
	ck_assert_ptr_null(out.data);
	ck_assert_uint_eq(out.len, 0);
	wire_out_fini(&out);
}
END_TEST

UNIT_MAIN("wire", a_request_comes_back_as_it_was_written, a_response_comes_back_as_it_was_written,
	  a_notification_comes_back_as_it_was_written, an_error_comes_back_as_it_was_written,
	  an_error_without_missing_blobs_says_nothing_of_them, a_malformed_error_is_an_error_too,
	  what_is_no_rpc_is_refused, a_message_ends_where_its_bytes_end, every_type_is_read,
	  text_may_come_as_binary_and_bytes_as_text, bytes_are_compared_whole,
	  absent_keys_leave_their_members_alone, every_wrong_map_is_refused_by_name,
	  keys_with_x_are_passed_over, an_open_map_may_hold_anything_but_wrong_types, every_kind_is_told,
	  taken_bytes_leave_an_empty_writer)
