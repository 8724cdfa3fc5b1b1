/* SPDX-License-Identifier: Apache-2.0 */
#include "common/size.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static const char units[] = "KMGT";

/* The shift that a suffix stands for: 0 without one, -EINVAL for what is none. */
static int parse_unit(const char *suffix)
{
	const char *unit;

	if (!*suffix)
		return 0;
	unit = strchr(units, *suffix >= 'a' ? *suffix - 'a' + 'A' : *suffix);
	if (!unit || suffix[1])
		return -EINVAL;
	return 10 * (int)(unit - units + 1);
}

int size_parse(const char *text, uint64_t *size)
{
	uint64_t n = 0;
	int shift, range = 0;

	if (*text < '0' || *text > '9')
		return -EINVAL;
	for (; *text >= '0' && *text <= '9'; text++)
		if (__builtin_mul_overflow(n, 10, &n) ||
		    __builtin_add_overflow(n, (uint64_t)(*text - '0'), &n))
			range = -ERANGE;
	shift = parse_unit(text);
	if (shift < 0)
		return shift;
	if (range || n > (uint64_t)INT64_MAX >> shift)
		return -ERANGE;
	*size = n << shift;
	return 0;
}

/* size / 2^shift, times scale, rounded. */
static uint64_t rounded(uint64_t size, unsigned shift, unsigned scale)
{
	unsigned __int128 n = (unsigned __int128)size * scale + ((uint64_t)1 << (shift - 1));

	return (uint64_t)(n >> shift);
}

/* A number below 10, with two decimals, or one where that says as much. */
static void print_hundredths(char *buf, unsigned n, char unit)
{
	if (n % 10)
		(void)snprintf(buf, SIZE_TEXT_SIZE, "%u.%02u%c", n / 100, n % 100, unit);
	else
		(void)snprintf(buf, SIZE_TEXT_SIZE, "%u.%u%c", n / 100, n / 10 % 10, unit);
}

const char *size_print(uint64_t size, char buf[SIZE_TEXT_SIZE])
{
	const char *unit = units;
	unsigned shift = 10, n;

	if (size < 1024) {
		(void)snprintf(buf, SIZE_TEXT_SIZE, "%u", (unsigned)size);
		return buf;
	}
	for (; unit[1] && rounded(size, shift, 1) >= 1024; unit++)
		shift += 10;
	if ((n = (unsigned)rounded(size, shift, 100)) < 1000)
		print_hundredths(buf, n, *unit);
	else if ((n = (unsigned)rounded(size, shift, 10)) < 1000)
		(void)snprintf(buf, SIZE_TEXT_SIZE, "%u.%u%c", n / 10, n % 10, *unit);
	else
		(void)snprintf(buf, SIZE_TEXT_SIZE, "%u%c", (unsigned)rounded(size, shift, 1), *unit);
	return buf;
}
