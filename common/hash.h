/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SHA-256 as bytes come: the one door to libcrypto.
 *
 * A hasher is used by one thread at a time and again and again: making one costs more than hashing a small
 * file (280 ns against 886 for 64 bytes).
 */
#ifndef DIRCACHE_COMMON_HASH_H
#define DIRCACHE_COMMON_HASH_H

#include <stddef.h>

#include "common/auto.h"
#include "common/digest.h"

struct hasher;

struct hasher *hasher_new(void);
void hasher_free(struct hasher *hasher);
DEFINE_AUTO(hasher);

/* Begin anew; a fresh hasher has begun. */
void hasher_reset(struct hasher *hasher);

void hasher_update(struct hasher *hasher, const void *bytes, size_t len);

/* The digest of all bytes since the beginning; hasher_reset() before the next use. */
void hasher_finish(struct hasher *hasher, struct digest *digest);

/* The hasher that this thread keeps for itself, begun anew: for one use at a time, within a function. */
struct hasher *hasher_of_thread(void);

/* The digest of these bytes, by the thread's hasher. */
void hash_bytes(const void *bytes, size_t len, struct digest *digest);

#endif
