/* SPDX-License-Identifier: Apache-2.0 */
#include "client/json.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "client/utf8.h"
#include "common/auto.h"

static void print_character(FILE *file, const char *bytes, size_t len, uint32_t code)
{
	switch (code) {
	case '"':
	case '\\':
		fprintf(file, "\\%c", (int)code);
		return;
	case '\n':
		fputs("\\n", file);
		return;
	case '\t':
		fputs("\\t", file);
		return;
	}
	/* DEL and the C1 controls need not be escaped, but a terminal obeys them. */
	if (code < 0x20 || (code >= 0x7f && code < 0xa0))
		fprintf(file, "\\u%04" PRIx32, code);
	else
		fwrite(bytes, 1, len, file);
}

void json_print_bytes(FILE *file, const void *bytes, size_t len)
{
	const char *p = bytes;

	fputc('"', file);
	while (len) {
		uint32_t code;
		size_t n = utf8_read(p, len, &code);

		if (n)
			print_character(file, p, n, code);
		else
			fprintf(file, "\\udc%02x", (unsigned char)*p);
		n += n == 0;
		p += n;
		len -= n;
	}
	fputc('"', file);
}

void json_print_text(FILE *file, const char *text)
{
	json_print_bytes(file, text, strlen(text));
}

static void print_float(FILE *file, double value)
{
	if (isfinite(value))
		fprintf(file, "%.17g", value);
	else
		fputs("null", file);
}

static void print_array(FILE *file, const struct wire_value *array)
{
	fputc('[', file);
	for (size_t i = 0; i < wire_array_size(array); i++) {
		if (i)
			fputc(',', file);
		json_print_value(file, wire_array_at(array, i));
	}
	fputc(']', file);
}

/* JSON's keys are strings, and so are the protocol's; another's is its JSON in quotes. */
static void print_key(FILE *file, const struct wire_value *key)
{
	enum wire_kind kind = wire_kind(key);

	if (kind == WIRE_IS_TEXT || kind == WIRE_IS_BYTES) {
		json_print_value(file, key);
	} else {
		AUTO_FREE char *text = json_of_value(key);

		json_print_text(file, text);
	}
}

static void print_map(FILE *file, const struct wire_value *map)
{
	fputc('{', file);
	for (size_t i = 0; i < wire_map_size(map); i++) {
		if (i)
			fputc(',', file);
		print_key(file, wire_map_key(map, i));
		fputc(':', file);
		json_print_value(file, wire_map_value(map, i));
	}
	fputc('}', file);
}

/* Recursion ends: messages nest at most WIRE_NESTING_MAX levels. */
void json_print_value(FILE *file, const struct wire_value *value)
{
	struct wire_bytes bytes;

	switch (wire_kind(value)) {
	case WIRE_IS_BOOL:
		fputs(wire_as_bool(value) ? "true" : "false", file);
		break;
	case WIRE_IS_UINT:
		fprintf(file, "%" PRIu64, wire_as_uint(value));
		break;
	case WIRE_IS_INT:
		fprintf(file, "%" PRId64, wire_as_int(value));
		break;
	case WIRE_IS_FLOAT:
		print_float(file, wire_as_float(value));
		break;
	case WIRE_IS_TEXT:
	case WIRE_IS_BYTES:
		bytes = wire_as_bytes(value);
		json_print_bytes(file, bytes.data, bytes.len);
		break;
	case WIRE_IS_ARRAY:
		print_array(file, value);
		break;
	case WIRE_IS_MAP:
		print_map(file, value);
		break;
	case WIRE_IS_NIL:
	case WIRE_IS_OTHER:
		fputs("null", file);
		break;
	}
}

char *json_of_value(const struct wire_value *value)
{
	char *text = NULL;
	size_t len;
	FILE *file = open_memstream(&text, &len);
	int r;

	assert(file);
	json_print_value(file, value);
	r = fclose(file);
	assert(r == 0 && text); /* fails for want of memory only */
	return text;
}
