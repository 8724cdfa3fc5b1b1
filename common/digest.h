/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Digest: the name of a blob, as the Remote Execution API v2 has it (message Digest): the SHA-256 of the
 * bytes and their number. Printed `hash/size`: 64 lower-case hexadecimal digits, a slash, a decimal number
 * without leading zeros, at most INT64_MAX.
 *
 * Plain values: no ownership, any thread.
 */
#ifndef DIRCACHE_COMMON_DIGEST_H
#define DIRCACHE_COMMON_DIGEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum {
	DIGEST_HASH_SIZE = 32,              /* bytes of a SHA-256 */
	DIGEST_HEX_SIZE = 64,               /* digits of one, without a NUL */
	DIGEST_TEXT_SIZE = 64 + 1 + 19 + 1, /* `hash/size` and the NUL */
};

struct digest {
	uint8_t hash[DIGEST_HASH_SIZE];
	uint64_t size; /* bytes */
};

/* The digest of no bytes at all, which every cache knows without storing it. */
extern const struct digest digest_empty;

/**
 * Read `hash/size`, all of text[0..len).
 *
 * Return: 0, or -EINVAL when it is anything else.
 */
int digest_parse(const char *text, size_t len, struct digest *digest);

/**
 * Read 64 lower-case hexadecimal digits.
 *
 * Return: 0, or -EINVAL.
 */
int digest_parse_hash(const char *hex, size_t len, uint8_t hash[DIGEST_HASH_SIZE]);

/* Write `hash/size`, terminated. Return: buf. */
const char *digest_print(const struct digest *digest, char buf[DIGEST_TEXT_SIZE]);

/* Write 64 digits, not terminated. */
void digest_print_hash(const uint8_t hash[DIGEST_HASH_SIZE], char hex[DIGEST_HEX_SIZE]);

/* `hash/size` for one printf() argument; lives until the end of the enclosing block. */
#define DIGEST_TEXT(digest) (digest_print((digest), (char[DIGEST_TEXT_SIZE]){ 0 }))

static inline bool digest_equal(const struct digest *a, const struct digest *b)
{
	return a->size == b->size && memcmp(a->hash, b->hash, DIGEST_HASH_SIZE) == 0;
}

static inline bool digest_is_empty(const struct digest *digest)
{
	return digest_equal(digest, &digest_empty);
}

#endif
