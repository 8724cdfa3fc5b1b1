/* SPDX-License-Identifier: Apache-2.0 */
#include "common/hash.h"

#include "tests/unit/unit.h"

#define ABC "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad/3" /* FIPS 180-2, B.1 */

START_TEST(known_bytes_have_their_known_digest)
{
	struct digest digest;

	hash_bytes("abc", 3, &digest);
	ck_assert_str_eq(DIGEST_TEXT(&digest), ABC);
	hash_bytes("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 56, &digest); /* B.2 */
	ck_assert_str_eq(DIGEST_TEXT(&digest),
			 "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1/56");
}
END_TEST

START_TEST(no_bytes_have_the_empty_digest)
{
	AUTO(hasher) hasher = hasher_new();
	struct digest digest;

	hasher_finish(hasher, &digest);
	ck_assert(digest_is_empty(&digest));
	hash_bytes(NULL, 0, &digest);
	ck_assert(digest_is_empty(&digest));
}
END_TEST

START_TEST(the_digest_does_not_depend_on_the_pieces)
{
	static uint8_t bytes[300];
	AUTO(hasher) hasher = hasher_new();
	struct digest whole, pieces;

	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)(i * 7);
	hash_bytes(bytes, sizeof(bytes), &whole);
	for (size_t cut = 0; cut <= sizeof(bytes); cut++) {
		hasher_reset(hasher);
		hasher_update(hasher, bytes, cut);
		hasher_update(hasher, bytes + cut, sizeof(bytes) - cut);
		hasher_finish(hasher, &pieces);
		ck_assert(digest_equal(&whole, &pieces));
	}
}
END_TEST

START_TEST(a_hasher_forgets_when_it_is_reset)
{
	AUTO(hasher) hasher = hasher_new();
	struct digest digest;

	hasher_update(hasher, "xyz", 3);
	hasher_reset(hasher);
	hasher_update(hasher, "abc", 3);
	hasher_finish(hasher, &digest);
	ck_assert_str_eq(DIGEST_TEXT(&digest), ABC);
}
END_TEST

UNIT_MAIN("hash", known_bytes_have_their_known_digest, no_bytes_have_the_empty_digest,
	  the_digest_does_not_depend_on_the_pieces, a_hasher_forgets_when_it_is_reset)
