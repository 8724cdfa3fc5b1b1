/* SPDX-License-Identifier: Apache-2.0 */
/*
 * UTF-8, one character at a time (RFC 3629: no surrogates, nothing over U+10FFFF, no longer forms than
 * needed).
 */
#ifndef DIRCACHE_CLIENT_UTF8_H
#define DIRCACHE_CLIENT_UTF8_H

#include <stddef.h>
#include <stdint.h>

/**
 * Read the first character of bytes.
 *
 * @len   at least 1
 * @code  out: the character
 *
 * Return: its length, 1 to 4; or 0 where no character begins.
 */
size_t utf8_read(const char *bytes, size_t len, uint32_t *code);

#endif
