/* SPDX-License-Identifier: Apache-2.0 */
/*
 * JSON: values of the wire as text, whatever they hold.
 *
 * Text and bytes are the same in it: a string. Characters stay as they are (the output is UTF-8); bytes that
 * are no UTF-8 are escaped as Python's surrogateescape does, the byte 0xNN as \udcNN, so that nothing is
 * lost: no valid UTF-8 gives these.
 */
#ifndef DIRCACHE_CLIENT_JSON_H
#define DIRCACHE_CLIENT_JSON_H

#include <stddef.h>
#include <stdio.h>

#include "common/wire.h"

/* Print a string, with its quotes. */
void json_print_bytes(FILE *file, const void *bytes, size_t len);
void json_print_text(FILE *file, const char *text); /* terminated */

/* Print a value, on one line without spaces around it. */
void json_print_value(FILE *file, const struct wire_value *value);

/* As text that the caller free()s. */
char *json_of_value(const struct wire_value *value);

#endif
