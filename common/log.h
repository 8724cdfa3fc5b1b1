/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lines for the administrator, on standard error: `dircached: warning: ...`, with the time in front where
 * standard error is a file, and with sd-daemon(3)'s <N> where it is the journal (JOURNAL_STREAM).
 * One write(2) a line; control characters are escaped. Any thread. Libraries do not log: `main` and the
 * boundaries of requests and background work do.
 */
#ifndef DIRCACHE_COMMON_LOG_H
#define DIRCACHE_COMMON_LOG_H

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARNING, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

/* program: borrowed for good. Lines above the level are dropped. Before any thread starts. */
void log_init(const char *program, enum log_level level);

void log_error(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_warning(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_info(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_debug(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
