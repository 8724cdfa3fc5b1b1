/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finding the end of a message. Only the head of each value is looked at, once: a text or binary body is
 * stepped over by arithmetic, however late it arrives. Extension types are refused: nobody here sends them.
 */
#include "common/wire.h"

#include <assert.h>
#include <errno.h>

const struct wire_limits wire_default_limits = { .bytes = WIRE_MESSAGE_MAX, .values = WIRE_VALUES_MAX };

enum head_kind { HEAD_NONE, HEAD_SCALAR, HEAD_BODY, HEAD_ARRAY, HEAD_MAP };

struct head {
	enum head_kind kind;
	size_t size;    /* bytes of the head; with a scalar's value */
	uint64_t count; /* bytes of a body, elements of an array, pairs of a map */
};

/* The first bytes 0xc0 to 0xdf: what follows, and the size of the number behind the byte. */
static const struct {
	uint8_t kind, number_size;
} head_table[32] = {
	[0x00] = { HEAD_SCALAR, 0 }, /* nil */
	[0x02] = { HEAD_SCALAR, 0 }, /* false */
	[0x03] = { HEAD_SCALAR, 0 }, /* true */
	[0x04] = { HEAD_BODY, 1 },   /* bin 8, 16, 32 */
	[0x05] = { HEAD_BODY, 2 },   [0x06] = { HEAD_BODY, 4 },
	[0x0a] = { HEAD_SCALAR, 4 },                              /* float 32, 64 */
	[0x0b] = { HEAD_SCALAR, 8 }, [0x0c] = { HEAD_SCALAR, 1 }, /* uint 8, 16, 32, 64 */
	[0x0d] = { HEAD_SCALAR, 2 }, [0x0e] = { HEAD_SCALAR, 4 },
	[0x0f] = { HEAD_SCALAR, 8 }, [0x10] = { HEAD_SCALAR, 1 }, /* int 8, 16, 32, 64 */
	[0x11] = { HEAD_SCALAR, 2 }, [0x12] = { HEAD_SCALAR, 4 },
	[0x13] = { HEAD_SCALAR, 8 }, [0x19] = { HEAD_BODY, 1 }, /* str 8, 16, 32 */
	[0x1a] = { HEAD_BODY, 2 },   [0x1b] = { HEAD_BODY, 4 },
	[0x1c] = { HEAD_ARRAY, 2 },                            /* array 16, 32 */
	[0x1d] = { HEAD_ARRAY, 4 },  [0x1e] = { HEAD_MAP, 2 }, /* map 16, 32 */
	[0x1f] = { HEAD_MAP, 4 },
};

static uint64_t read_big_endian(const uint8_t *p, size_t n)
{
	uint64_t value = 0;

	for (size_t i = 0; i < n; i++)
		value = value << 8 | p[i];
	return value;
}

/* Return: WIRE_WHOLE, WIRE_MORE when the head's number has not arrived whole, or -EBADMSG. */
static int read_table_head(const uint8_t *p, size_t len, struct head *head)
{
	enum head_kind kind = head_table[p[0] & 0x1f].kind;
	size_t number_size = head_table[p[0] & 0x1f].number_size;

	if (kind == HEAD_NONE)
		return -EBADMSG;
	*head = (struct head){ .kind = kind, .size = 1 + number_size };
	if (kind == HEAD_SCALAR)
		return WIRE_WHOLE; /* its value does not matter here */
	if (len < head->size)
		return WIRE_MORE;
	head->count = read_big_endian(p + 1, number_size);
	return WIRE_WHOLE;
}

static int read_head(const uint8_t *p, size_t len, struct head *head)
{
	if (p[0] >= 0xc0 && p[0] < 0xe0)
		return read_table_head(p, len, head);
	*head = (struct head){ .kind = HEAD_SCALAR, .size = 1 }; /* fixint, positive or negative */
	if (p[0] >= 0xa0 && p[0] < 0xc0)
		*head = (struct head){ .kind = HEAD_BODY, .size = 1, .count = p[0] & 0x1f };
	else if (p[0] >= 0x90 && p[0] < 0xa0)
		*head = (struct head){ .kind = HEAD_ARRAY, .size = 1, .count = p[0] & 0x0f };
	else if (p[0] >= 0x80 && p[0] < 0x90)
		*head = (struct head){ .kind = HEAD_MAP, .size = 1, .count = p[0] & 0x0f };
	return WIRE_WHOLE;
}

static int too_large(struct err *err, const char *what, uint64_t limit)
{
	(void)err_set(err, ERR_RESOURCE_EXHAUSTED, "message: more than %llu %s", (unsigned long long)limit,
		      what);
	return -EMSGSIZE;
}

static int enter(struct wire_scanner *scanner, uint64_t children, struct err *err)
{
	if (scanner->depth > WIRE_NESTING_MAX)
		return too_large(err, "levels of nesting", WIRE_NESTING_MAX);
	if (children > scanner->limits->values - scanner->values)
		return too_large(err, "values", scanner->limits->values);
	scanner->values += children;
	scanner->open[scanner->depth++] = children;
	return 0;
}

/* A container's own place in its parent was counted off before it was entered, so that a level whose last
 * value is done can be left at once. */
static void leave_done_levels(struct wire_scanner *scanner)
{
	while (scanner->depth > 0 && scanner->open[scanner->depth - 1] == 0)
		scanner->depth--;
}

static int take_head(struct wire_scanner *scanner, const struct head *head, struct err *err)
{
	uint64_t body = head->kind == HEAD_BODY ? head->count : 0;
	int r = 0;

	if (head->size + body > scanner->limits->bytes - scanner->offset)
		return too_large(err, "bytes", scanner->limits->bytes);
	scanner->offset += head->size + body;
	scanner->open[scanner->depth - 1]--;
	if (head->kind == HEAD_ARRAY)
		r = enter(scanner, head->count, err);
	else if (head->kind == HEAD_MAP)
		r = enter(scanner, 2 * head->count, err);
	leave_done_levels(scanner);
	return r;
}

void wire_scanner_init(struct wire_scanner *scanner, const struct wire_limits *limits)
{
	assert(limits->values > 0);
	*scanner = (struct wire_scanner){ .limits = limits, .values = 1, .depth = 1, .open = { 1 } };
}

int wire_scanner_feed(struct wire_scanner *scanner, const void *bytes, size_t len, struct err *err)
{
	const uint8_t *p = bytes;

	while (scanner->depth > 0 && scanner->offset < len) {
		struct head head;
		int r = read_head(p + scanner->offset, len - scanner->offset, &head);

		if (r == WIRE_MORE)
			return r;
		if (r < 0) {
			(void)err_set(err, ERR_INVALID_ARGUMENT,
				      "message: 0x%02x at byte %zu begins no value that is known here",
				      p[scanner->offset], scanner->offset);
			return r;
		}
		if ((r = take_head(scanner, &head, err)) < 0)
			return r;
	}
	return scanner->depth == 0 && scanner->offset <= len ? WIRE_WHOLE : WIRE_MORE;
}
