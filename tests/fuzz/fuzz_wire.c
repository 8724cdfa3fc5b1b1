/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes on a connection: the scanner finds the same end whether they come at once or one by one; what it
 * passes is parsed or refused; and a message written again from its values is the same message.
 */
#include "tests/fuzz/fuzz.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "common/alloc.h"
#include "common/auto.h"
#include "common/wire.h"

struct params {
	bool b;
	uint64_t u;
	int64_t i;
	struct wire_bytes text, bytes;
	struct digest digest;
	const struct wire_value *array, *map, *any;
};

static const struct wire_field fields[] = {
	WIRE_FIELD(struct params, b, WIRE_BOOL, false),
	WIRE_FIELD(struct params, u, WIRE_UINT, true),
	WIRE_FIELD(struct params, i, WIRE_INT, false),
	WIRE_FIELD(struct params, text, WIRE_TEXT, false),
	WIRE_FIELD(struct params, bytes, WIRE_BYTES, false),
	WIRE_FIELD(struct params, digest, WIRE_DIGEST, false),
	WIRE_FIELD(struct params, array, WIRE_ARRAY, false),
	WIRE_FIELD(struct params, map, WIRE_MAP, false),
	WIRE_FIELD(struct params, any, WIRE_ANY, false),
};

/* Return: what the scanner said in the end; where it stood then in *end. */
static int scan(const uint8_t *bytes, size_t len, size_t step, size_t *end)
{
	struct wire_scanner scanner;
	size_t arrived = 0;
	int r;

	wire_scanner_init(&scanner, &wire_default_limits);
	do {
		arrived = len - arrived > step ? arrived + step : len;
		r = wire_scanner_feed(&scanner, bytes, arrived, NULL);
	} while (r == WIRE_MORE && arrived < len);
	*end = scanner.offset;
	return r;
}

static void write_value(struct wire_out *out, const struct wire_value *value);

static void write_text(struct wire_out *out, struct wire_bytes text)
{
	AUTO_FREE char *terminated = xmemdupz(text.data, text.len);

	if (strlen(terminated) == text.len)
		wire_text(out, terminated);
	else
		wire_bytes(out, text.data, text.len); /* there is no way to write such a text */
}

static void write_container(struct wire_out *out, const struct wire_value *value)
{
	if (wire_kind(value) == WIRE_IS_ARRAY) {
		wire_array(out, wire_array_size(value));
		for (size_t i = 0; i < wire_array_size(value); i++)
			write_value(out, wire_array_at(value, i));
		return;
	}
	wire_map(out, wire_map_size(value));
	for (size_t i = 0; i < wire_map_size(value); i++) {
		write_value(out, wire_map_key(value, i));
		write_value(out, wire_map_value(value, i));
	}
}

/* As deep as messages may be nested. */
static void write_value(struct wire_out *out, const struct wire_value *value)
{
	switch (wire_kind(value)) {
	case WIRE_IS_NIL:
		wire_nil(out);
		break;
	case WIRE_IS_BOOL:
		wire_bool(out, wire_as_bool(value));
		break;
	case WIRE_IS_UINT:
		wire_uint(out, wire_as_uint(value));
		break;
	case WIRE_IS_INT:
		wire_int(out, wire_as_int(value));
		break;
	case WIRE_IS_FLOAT:
		wire_float(out, wire_as_float(value));
		break;
	case WIRE_IS_TEXT:
		write_text(out, wire_as_bytes(value));
		break;
	case WIRE_IS_BYTES:
		wire_bytes(out, wire_as_bytes(value).data, wire_as_bytes(value).len);
		break;
	case WIRE_IS_ARRAY:
	case WIRE_IS_MAP:
		write_container(out, value);
		break;
	case WIRE_IS_OTHER:
		abort(); /* the scanner lets no other kind pass */
	}
}

static void write_message(struct wire_out *out, const struct wire_message *message)
{
	AUTO_FREE char *method =
		message->method.data ? xmemdupz(message->method.data, message->method.len) : NULL;

	if (message->type == WIRE_REQUEST)
		wire_request(out, message->id, method);
	else if (message->type == WIRE_NOTIFICATION)
		wire_notification(out, method);
	else
		wire_response(out, message->id);
	if (message->type != WIRE_RESPONSE)
		write_value(out, message->params);
	else if (message->result)
		write_value(out, message->result);
	else
		wire_nil(out);
}

/* Written twice, with a parse in between, it must be the same bytes. */
static void check_round_trip(const struct wire_message *message)
{
	CLEANUP(wire_out_fini) struct wire_out once = { 0 };
	CLEANUP(wire_out_fini) struct wire_out twice = { 0 };
	CLEANUP(wire_message_fini) struct wire_message again = { 0 };
	size_t end;
	int r;

	write_message(&once, message);
	if (once.len > WIRE_MESSAGE_MAX)
		return; /* a float of 4 bytes is written with 8 */
	r = scan((const uint8_t *)once.data, once.len, once.len, &end);
	assert(r == WIRE_WHOLE && end == once.len);
	r = wire_parse(once.data, once.len, &again, NULL);
	assert(r == 0);
	write_message(&twice, &again);
	assert(once.len == twice.len && memcmp(once.data, twice.data, once.len) == 0);
}

/* What the strict decoder takes, the open one takes too. */
static void check_params(const struct wire_value *map)
{
	struct err err = { 0 }, open_err = { 0 };
	struct params params = { 0 };
	int r = wire_decode(map, fields, N_ELEMENTS(fields), &params, "fuzz", &err);
	int open_r = wire_decode_open(map, fields, N_ELEMENTS(fields), &params, "fuzz", &open_err);

	assert((r == 0) == !err.set && (open_r == 0) == !open_err.set);
	assert(r < 0 || open_r == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
	CLEANUP(wire_message_fini) struct wire_message message = { 0 };
	AUTO_FREE char *exact = NULL;
	struct err err = { 0 };
	size_t end, end_by_bytes;
	int r = scan(bytes, len, SIZE_MAX, &end);
	int r_by_bytes = scan(bytes, len, 1, &end_by_bytes);

	assert(r == r_by_bytes && (r < 0 || end == end_by_bytes));
	if (r != WIRE_WHOLE)
		return 0;
	assert(end <= len);
	exact = xmalloc(end); /* so that a byte read behind the end is seen */
	memcpy(exact, bytes, end);
	if (wire_parse(exact, end, &message, &err) < 0) {
		assert(err.set);
		return 0;
	}
	if (message.params)
		check_params(message.params);
	if (message.error)
		wire_read_error(message.error, &err, NULL);
	else
		check_round_trip(&message);
	return 0;
}
