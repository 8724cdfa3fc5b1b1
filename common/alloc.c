/* SPDX-License-Identifier: Apache-2.0 */
#include "common/alloc.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static _Noreturn void out_of_memory(void)
{
	static const char text[] = "dircache: out of memory\n";

	/* Whether it could be said changes nothing. */
	if (write(STDERR_FILENO, text, sizeof(text) - 1) < 0)
		abort();
	abort();
}

static void *checked(void *p)
{
	if (!p)
		out_of_memory();
	return p;
}

/* malloc(0) may return NULL, which would look like a failure. */
static size_t at_least_one(size_t size)
{
	return size ? size : 1;
}

void *xmalloc(size_t size)
{
	return checked(malloc(at_least_one(size)));
}

void *xcalloc(size_t n, size_t size)
{
	return checked(calloc(at_least_one(n), at_least_one(size)));
}

void *xreallocarray(void *p, size_t n, size_t size)
{
	return checked(reallocarray(p, at_least_one(n), at_least_one(size)));
}

char *xstrdup(const char *s)
{
	return checked(strdup(s));
}

char *xmemdupz(const void *bytes, size_t len)
{
	char *copy = xmalloc(len + 1);

	if (len)
		memcpy(copy, bytes, len);
	copy[len] = '\0';
	return copy;
}

char *xasprintf(const char *format, ...)
{
	va_list args;
	char *text;
	int n;

	va_start(args, format);
	n = vasprintf(&text, format, args);
	va_end(args);
	if (n < 0)
		out_of_memory();
	return text;
}

void *xgrow(void *items, size_t n, size_t *capacity, size_t size)
{
	if (n < *capacity)
		return items;
	if (*capacity > SIZE_MAX / 2)
		out_of_memory();
	*capacity = *capacity ? *capacity * 2 : 8;
	return xreallocarray(items, *capacity, size);
}
