/* SPDX-License-Identifier: Apache-2.0 */
#include "common/escape.h"

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

enum { ESCAPE_PIECE_MAX = 4 }; /* bytes of a UTF-8 character, or of `\xNN` */

/* How many bytes a UTF-8 character has by its first one; 0 for a byte that begins none. */
static size_t character_size(uint8_t first)
{
	if (first < 0x80)
		return 1;
	if (first >= 0xc2 && first < 0xe0)
		return 2;
	if (first >= 0xe0 && first < 0xf0)
		return 3;
	if (first >= 0xf0 && first < 0xf5)
		return 4;
	return 0;
}

/* The bounds of the second byte rule out overlong forms, surrogates, and what is above U+10FFFF (RFC 3629).
 */
static bool second_byte_fits(uint8_t first, uint8_t second)
{
	switch (first) {
	case 0xc2: /* U+0080 to U+009F are control characters */
		return second >= 0xa0 && second < 0xc0;
	case 0xe0:
		return second >= 0xa0 && second < 0xc0;
	case 0xed:
		return second >= 0x80 && second < 0xa0;
	case 0xf0:
		return second >= 0x90 && second < 0xc0;
	case 0xf4:
		return second >= 0x80 && second < 0x90;
	default:
		return second >= 0x80 && second < 0xc0;
	}
}

/* The size of the printable character that text begins with, or 0. */
static size_t printable(const uint8_t *text, size_t len)
{
	size_t n = character_size(text[0]);

	if (n == 1)
		return text[0] >= 0x20 && text[0] != 0x7f;
	if (n == 0 || n > len || !second_byte_fits(text[0], text[1]))
		return 0;
	for (size_t i = 2; i < n; i++)
		if ((text[i] & 0xc0) != 0x80)
			return 0;
	return n;
}

static size_t escape_byte(uint8_t byte, char piece[ESCAPE_PIECE_MAX + 1])
{
	if (byte == '\n' || byte == '\t')
		return (size_t)sprintf(piece, "\\%c", byte == '\n' ? 'n' : 't');
	return (size_t)sprintf(piece, "\\x%02x", byte);
}

size_t escape_text(char *buf, size_t size, const char *text, size_t len)
{
	size_t used = 0;

	assert(size > 0);
	for (size_t i = 0; i < len;) {
		char piece[ESCAPE_PIECE_MAX + 1];
		size_t n = printable((const uint8_t *)text + i, len - i);
		size_t taken = n ? n : 1;

		if (n)
			memcpy(piece, text + i, n);
		else
			n = escape_byte((uint8_t)text[i], piece);
		if (used + n >= size)
			break;
		memcpy(buf + used, piece, n);
		used += n;
		i += taken;
	}
	buf[used] = '\0';
	return used;
}
