/* SPDX-License-Identifier: Apache-2.0 */
#include "common/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/escape.h"

enum { LOG_LINE_MAX = 4096 };

/* By level: the word in the line, and the priority of sd-daemon(3). */
static const struct {
	const char *word;
	int priority;
} levels[] = {
	[LOG_LEVEL_ERROR] = { "error: ", 3 },
	[LOG_LEVEL_WARNING] = { "warning: ", 4 },
	[LOG_LEVEL_INFO] = { "", 6 },
	[LOG_LEVEL_DEBUG] = { "debug: ", 7 },
};

static struct {
	const char *program;
	enum log_level level;
	bool is_file, is_journal;
} log_state = { .program = "dircache", .level = LOG_LEVEL_INFO };

/* JOURNAL_STREAM is `device:inode` of the journal's socket, inherited also by those whose standard error is
 * something else by now (systemd.exec(5)). */
static bool is_journal(const struct stat *st)
{
	const char *stream = getenv("JOURNAL_STREAM");
	unsigned long long dev, ino;

	return stream && sscanf(stream, "%llu:%llu", &dev, &ino) == 2 && dev == st->st_dev &&
	       ino == st->st_ino;
}

void log_init(const char *program, enum log_level level)
{
	struct stat st;

	log_state.program = program;
	log_state.level = level;
	if (fstat(STDERR_FILENO, &st) < 0)
		return;
	log_state.is_file = S_ISREG(st.st_mode);
	log_state.is_journal = is_journal(&st);
}

static size_t print_time(char *buf, size_t size)
{
	struct timespec now;
	struct tm utc;
	size_t n;

	(void)clock_gettime(CLOCK_REALTIME, &now);
	if (!gmtime_r(&now.tv_sec, &utc))
		return 0;
	n = strftime(buf, size, "%Y-%m-%dT%H:%M:%S", &utc);
	return n + (size_t)snprintf(buf + n, size - n, ".%03ldZ ", now.tv_nsec / 1000000);
}

static void write_line(const char *line, size_t len)
{
	/* A log that cannot be written has nobody to tell. */
	while (write(STDERR_FILENO, line, len) < 0 && errno == EINTR)
		continue;
}

__attribute__((format(printf, 2, 0))) static void log_line(enum log_level level, const char *format,
							   va_list args)
{
	char text[LOG_LINE_MAX / 2], line[LOG_LINE_MAX];
	int saved_errno = errno;
	size_t n = 0;

	if (level > log_state.level)
		return;
	if (vsnprintf(text, sizeof(text), format, args) < 0)
		return;
	if (log_state.is_journal)
		n += (size_t)snprintf(line, sizeof(line), "<%d>", levels[level].priority);
	else if (log_state.is_file)
		n += print_time(line, sizeof(line));
	n += (size_t)snprintf(line + n, sizeof(line) - n, "%.64s: %s", log_state.program, levels[level].word);
	n += escape_text(line + n, sizeof(line) - n - 1, text, strlen(text));
	line[n++] = '\n';
	write_line(line, n);
	errno = saved_errno;
}

#define LOG_FUNCTION(name, level)                                                                            \
	void name(const char *format, ...)                                                                   \
	{                                                                                                    \
		va_list args;                                                                                \
                                                                                                             \
		va_start(args, format);                                                                      \
		log_line(level, format, args);                                                               \
		va_end(args);                                                                                \
	}

LOG_FUNCTION(log_error, LOG_LEVEL_ERROR)
LOG_FUNCTION(log_warning, LOG_LEVEL_WARNING)
LOG_FUNCTION(log_info, LOG_LEVEL_INFO)
LOG_FUNCTION(log_debug, LOG_LEVEL_DEBUG)
