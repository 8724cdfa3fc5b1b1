/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What went wrong, for people and for programs.
 *
 * Functions return 0, a positive outcome that their header names and the direct caller handles, or a
 * negative errno that is passed on unchanged. The words go into a struct err where the failure is first
 * known: what was being done, to what, and why it failed. Later callers do not overwrite them.
 */
#ifndef DIRCACHE_COMMON_ERR_H
#define DIRCACHE_COMMON_ERR_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

/* The codes of the protocol (docs/PROTOCOL.md), which are gRPC's names in lower case. */
#define ERR_CODES(X)                                                                                         \
	X(ERR_INTERNAL, "internal")                                                                          \
	X(ERR_NOT_FOUND, "not_found")                                                                        \
	X(ERR_INVALID_ARGUMENT, "invalid_argument")                                                          \
	X(ERR_PERMISSION_DENIED, "permission_denied")                                                        \
	X(ERR_NO_SPACE, "no_space")                                                                          \
	X(ERR_FAILED_PRECONDITION, "failed_precondition")                                                    \
	X(ERR_UNAVAILABLE, "unavailable")                                                                    \
	X(ERR_RESOURCE_EXHAUSTED, "resource_exhausted")                                                      \
	X(ERR_CANCELLED, "cancelled")

#define ERR_ENUM_(name, text) name,
enum err_code { ERR_CODES(ERR_ENUM_) };
#undef ERR_ENUM_

enum { ERR_TEXT_SIZE = 1024 };

struct err {
	bool set;
	enum err_code code;
	char text[ERR_TEXT_SIZE]; /* terminated; cut where it would not fit; control characters escaped */
};

/* The protocol's word for a code. */
const char *err_code_text(enum err_code code);

/* The code for a word of the protocol; ERR_INTERNAL for one it does not know. */
enum err_code err_code_parse(const char *text, size_t len);

/* The code that an errno stands for: ENOENT not_found, ENOSPC and EDQUOT no_space, ... */
enum err_code err_code_of_errno(int errnum);

/**
 * Say what failed, with a code of the protocol.
 *
 * @err  may be NULL; an err that is already set keeps its first words
 *
 * Return: the negative errno that stands for the code, to be returned at once.
 */
int err_set(struct err *err, enum err_code code, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/**
 * Say what failed because of a system call; `: strerror` is added.
 *
 * @r  a negative errno
 *
 * Return: r.
 */
int err_errno(struct err *err, int r, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Put words in front of what is already said: "storing 'a/b': " + text. */
void err_prefix(struct err *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Forget what was said. */
void err_clear(struct err *err);

#endif
