/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory that is there: allocation that ends the process, with a message, when it fails.
 *
 * Sizes that come from outside are bounded before they get here, so a failure means that the machine has no
 * memory left for a few kilobytes; a restarted daemon loses nothing that it answered (docs/adr/0003).
 */
#ifndef DIRCACHE_COMMON_ALLOC_H
#define DIRCACHE_COMMON_ALLOC_H

#include <stdarg.h>
#include <stddef.h>

/* Each returns memory that the caller owns and gives back with free(). */
void *xmalloc(size_t size) __attribute__((malloc, returns_nonnull));
void *xcalloc(size_t n, size_t size) __attribute__((malloc, returns_nonnull)); /* zeroed; n * size checked */
void *xreallocarray(void *p, size_t n, size_t size) __attribute__((returns_nonnull));
char *xstrdup(const char *s) __attribute__((malloc, returns_nonnull));
char *xmemdupz(const void *bytes, size_t len) __attribute__((malloc, returns_nonnull)); /* adds a NUL */
char *xasprintf(const char *format, ...) __attribute__((format(printf, 1, 2), malloc, returns_nonnull));

/**
 * Make room for one more element at the end of a growing array (doubling).
 *
 * @items     the array, or NULL when *capacity is 0
 * @n         elements in use
 * @capacity  elements that fit; updated
 *
 * Return: the array, perhaps moved.
 */
void *xgrow(void *items, size_t n, size_t *capacity, size_t size) __attribute__((returns_nonnull));

#endif
