/* SPDX-License-Identifier: Apache-2.0 */
#include "client/utf8.h"

/* How many bytes a character has that begins so; 0: none does. */
static size_t length_of(unsigned char first)
{
	if (first < 0x80)
		return 1;
	if (first < 0xc2) /* goes on, or could only begin a longer form than needed */
		return 0;
	if (first < 0xe0)
		return 2;
	if (first < 0xf0)
		return 3;
	return first < 0xf5 ? 4 : 0;
}

size_t utf8_read(const char *bytes, size_t len, uint32_t *code)
{
	const unsigned char *p = (const unsigned char *)bytes;
	static const uint32_t leasts[] = { 0, 0, 0x80, 0x800, 0x10000 };
	size_t n = length_of(p[0]);

	if (n == 0 || n > len)
		return 0;
	*code = n == 1 ? p[0] : p[0] & (0x7fu >> n);
	for (size_t i = 1; i < n; i++) {
		if ((p[i] & 0xc0) != 0x80)
			return 0;
		*code = *code << 6 | (p[i] & 0x3f);
	}
	if (*code < leasts[n] || *code > 0x10ffff || (*code >= 0xd800 && *code < 0xe000))
		return 0;
	return n;
}
