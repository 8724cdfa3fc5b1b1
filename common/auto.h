/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Scope-bound resources: a variable that owns something gives it back when its scope ends, so a function
 * has one way out (return) and no error ladder.
 *
 *     AUTO_FREE char *text = xstrdup("x");      free()d
 *     AUTO_CLOSE int fd = open(...);            close()d when >= 0
 *     AUTO(hasher) h = hasher_new();            hasher_free()d; declare with DEFINE_AUTO(hasher)
 *     return TAKE(h);                           handed on: h is NULL afterwards
 *     return TAKE_FD(fd);                       handed on: fd is -1 afterwards
 *
 * Destructors accept NULL.
 */
#ifndef DIRCACHE_COMMON_AUTO_H
#define DIRCACHE_COMMON_AUTO_H

#include <stddef.h>
#include <stdlib.h>
#include <unistd.h>

/* A variable may be there for its end alone: clang would call it unused. */
#define CLEANUP(f) __attribute__((cleanup(f), unused))

#define AUTO_FREE  CLEANUP(auto_free_)
#define AUTO_CLOSE CLEANUP(auto_close_)
#define AUTO(type) CLEANUP(auto_##type##_) struct type *

/* Make AUTO(type) call type_free(struct type *). */
#define DEFINE_AUTO(type)                                                                                    \
	static inline void auto_##type##_(struct type **p)                                                   \
	{                                                                                                    \
		type##_free(*p);                                                                             \
	}                                                                                                    \
	struct auto_##type##_semicolon_

#define TAKE(p)                                                                                              \
	(__extension__({                                                                                     \
		__typeof__(p) taken_ = (p);                                                                  \
		(p) = NULL;                                                                                  \
		taken_;                                                                                      \
	}))

#define TAKE_FD(fd)                                                                                          \
	(__extension__({                                                                                     \
		int taken_ = (fd);                                                                           \
		(fd) = -1;                                                                                   \
		taken_;                                                                                      \
	}))

static inline void auto_free_(void *p)
{
	free(*(void **)p);
}

static inline void auto_close_(int *fd)
{
	if (*fd >= 0)
		(void)close(*fd);
}

#define N_ELEMENTS(array) (sizeof(array) / sizeof((array)[0]))

/* The struct that a member is embedded in. */
#define CONTAINER_OF(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

#endif
