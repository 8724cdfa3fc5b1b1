/* SPDX-License-Identifier: Apache-2.0 */
#include "common/hash.h"

#include <assert.h>
#include <openssl/evp.h>
#include <pthread.h>

#include "common/alloc.h"

struct hasher {
	EVP_MD_CTX *context;
	uint64_t size;
};

/*
 * Fetching the algorithm takes libcrypto's locks and look-ups: once, for good. By pthread_once(), since
 * ThreadSanitizer does not know call_once().
 */
static EVP_MD *sha256;
static pthread_key_t thread_hasher;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void free_thread_hasher(void *hasher)
{
	hasher_free(hasher);
}

static void init_once(void)
{
	int r;

	sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
	assert(sha256);
	r = pthread_key_create(&thread_hasher, free_thread_hasher);
	assert(r == 0);
}

struct hasher *hasher_new(void)
{
	struct hasher *hasher = xcalloc(1, sizeof(*hasher));
	int ok;

	(void)pthread_once(&once, init_once);
	hasher->context = EVP_MD_CTX_new();
	assert(hasher->context);
	ok = EVP_DigestInit_ex2(hasher->context, sha256, NULL);
	assert(ok);
	return hasher;
}

void hasher_free(struct hasher *hasher)
{
	if (!hasher)
		return;
	EVP_MD_CTX_free(hasher->context);
	free(hasher);
}

void hasher_reset(struct hasher *hasher)
{
	/* Without a type the context keeps its algorithm and its memory. */
	int ok = EVP_DigestInit_ex2(hasher->context, NULL, NULL);

	assert(ok);
	hasher->size = 0;
}

void hasher_update(struct hasher *hasher, const void *bytes, size_t len)
{
	int ok = EVP_DigestUpdate(hasher->context, bytes, len);

	assert(ok);
	hasher->size += len;
}

void hasher_finish(struct hasher *hasher, struct digest *digest)
{
	unsigned n = 0;
	int ok = EVP_DigestFinal_ex(hasher->context, digest->hash, &n);

	assert(ok && n == DIGEST_HASH_SIZE);
	digest->size = hasher->size;
}

struct hasher *hasher_of_thread(void)
{
	struct hasher *hasher;
	int r;

	(void)pthread_once(&once, init_once);
	hasher = pthread_getspecific(thread_hasher);
	if (hasher) {
		hasher_reset(hasher);
		return hasher;
	}
	hasher = hasher_new();
	r = pthread_setspecific(thread_hasher, hasher);
	assert(r == 0);
	return hasher;
}

void hash_bytes(const void *bytes, size_t len, struct digest *digest)
{
	struct hasher *hasher = hasher_of_thread();

	hasher_update(hasher, bytes, len);
	hasher_finish(hasher, digest);
}
