/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A fuzz target: one function, which must accept any bytes and may end the process only where we are wrong.
 * It is linked with libFuzzer (`make fuzz`) or with replay.c (`make check`).
 */
#ifndef DIRCACHE_TESTS_FUZZ_FUZZ_H
#define DIRCACHE_TESTS_FUZZ_FUZZ_H

#include <stddef.h>
#include <stdint.h>

/* Return: 0. */
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

#endif
