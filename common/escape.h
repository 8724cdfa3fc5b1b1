/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Text from anywhere, made harmless for a terminal, a log and a UTF-8 string: control characters and bytes
 * that are no UTF-8 become `\n`, `\t` or `\xNN`. For people to read; not reversible, for `\` stays as it is.
 */
#ifndef DIRCACHE_COMMON_ESCAPE_H
#define DIRCACHE_COMMON_ESCAPE_H

#include <stddef.h>

/**
 * Copy text into buf, escaped and terminated; cut between characters where it would not fit.
 *
 * @size  of buf, at least 1
 *
 * Return: the length of what is in buf.
 */
size_t escape_text(char *buf, size_t size, const char *text, size_t len);

#endif
