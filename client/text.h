/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Text for people: names that may hold anything, and tables.
 */
#ifndef DIRCACHE_CLIENT_TEXT_H
#define DIRCACHE_CLIENT_TEXT_H

#include <stdbool.h>
#include <stdint.h>

/**
 * Print a name to standard output.
 *
 * @escape  control characters and what is no UTF-8 as `\n`, `\t` or `\xNN` (for a terminal); else raw
 */
void text_print_name(const char *name, bool escape);

enum { TEXT_TIME_SIZE = 32 };

/* Local time, to the second. Return: buf. */
const char *text_time(uint64_t microseconds, char buf[TEXT_TIME_SIZE]);

#endif
