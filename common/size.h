/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sizes for people: `10G` in, `9.3G` out. Powers of 1024.
 */
#ifndef DIRCACHE_COMMON_SIZE_H
#define DIRCACHE_COMMON_SIZE_H

#include <stddef.h>
#include <stdint.h>

enum { SIZE_TEXT_SIZE = 16 };

/**
 * Read a decimal number with an optional K, M, G or T (or in lower case).
 *
 * Return: 0, -EINVAL, or -ERANGE above INT64_MAX.
 */
int size_parse(const char *text, uint64_t *size);

/* Three significant digits: `512`, `1.5K`, `23.4M`. Return: buf. */
const char *size_print(uint64_t size, char buf[SIZE_TEXT_SIZE]);

/* The same for one printf() argument. */
#define SIZE_TEXT(size) (size_print((size), (char[SIZE_TEXT_SIZE]){ 0 }))

#endif
