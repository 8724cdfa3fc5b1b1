/* SPDX-License-Identifier: Apache-2.0 */
#include "common/digest.h"

#include <errno.h>

const struct digest digest_empty = {
	.hash = { 0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4,
		  0xc8, 0x99, 0x6f, 0xb9, 0x24, 0x27, 0xae, 0x41, 0xe4, 0x64, 0x9b,
		  0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55 },
	.size = 0,
};

static const char digits[] = "0123456789abcdef";

/* A digit's value plus one, so that 0 is no digit: one table look-up a digit, one test a hash. */
static const uint8_t digit_values[256] = {
	['0'] = 1, ['1'] = 2,  ['2'] = 3,  ['3'] = 4,  ['4'] = 5,  ['5'] = 6,  ['6'] = 7,  ['7'] = 8,
	['8'] = 9, ['9'] = 10, ['a'] = 11, ['b'] = 12, ['c'] = 13, ['d'] = 14, ['e'] = 15, ['f'] = 16,
};

int digest_parse_hash(const char *hex, size_t len, uint8_t hash[DIGEST_HASH_SIZE])
{
	unsigned all_digits = 1;

	if (len != DIGEST_HEX_SIZE)
		return -EINVAL;
	for (size_t i = 0; i < DIGEST_HASH_SIZE; i++) {
		unsigned high = digit_values[(uint8_t)hex[2 * i]];
		unsigned low = digit_values[(uint8_t)hex[2 * i + 1]];

		all_digits &= (high != 0) & (low != 0);
		hash[i] = (uint8_t)((high - 1) << 4 | ((low - 1) & 15));
	}
	return all_digits ? 0 : -EINVAL;
}

static int parse_decimal(const char *text, size_t len, uint64_t *number)
{
	uint64_t n = 0;

	if (len == 0 || len > 19 || (len > 1 && text[0] == '0'))
		return -EINVAL;
	for (size_t i = 0; i < len; i++) {
		if (text[i] < '0' || text[i] > '9')
			return -EINVAL;
		n = n * 10 + (uint64_t)(text[i] - '0'); /* 19 digits cannot wrap */
	}
	if (n > INT64_MAX)
		return -EINVAL;
	*number = n;
	return 0;
}

int digest_parse(const char *text, size_t len, struct digest *digest)
{
	if (len <= DIGEST_HEX_SIZE + 1 || text[DIGEST_HEX_SIZE] != '/')
		return -EINVAL;
	if (digest_parse_hash(text, DIGEST_HEX_SIZE, digest->hash) < 0)
		return -EINVAL;
	return parse_decimal(text + DIGEST_HEX_SIZE + 1, len - DIGEST_HEX_SIZE - 1, &digest->size);
}

void digest_print_hash(const uint8_t hash[DIGEST_HASH_SIZE], char hex[DIGEST_HEX_SIZE])
{
	for (size_t i = 0; i < DIGEST_HASH_SIZE; i++) {
		hex[2 * i] = digits[hash[i] >> 4];
		hex[2 * i + 1] = digits[hash[i] & 15];
	}
}

const char *digest_print(const struct digest *digest, char buf[DIGEST_TEXT_SIZE])
{
	char decimal[20], *p = decimal + sizeof(decimal);
	uint64_t n = digest->size & INT64_MAX; /* what a digest can hold; more would not fit buf */
	size_t len;

	digest_print_hash(digest->hash, buf);
	buf[DIGEST_HEX_SIZE] = '/';
	do
		*--p = (char)('0' + n % 10);
	while (n /= 10);
	len = (size_t)(decimal + sizeof(decimal) - p);
	memcpy(buf + DIGEST_HEX_SIZE + 1, p, len);
	buf[DIGEST_HEX_SIZE + 1 + len] = '\0';
	return buf;
}
