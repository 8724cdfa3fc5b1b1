/* SPDX-License-Identifier: Apache-2.0 */
#include "client/text.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "common/alloc.h"
#include "common/auto.h"
#include "common/escape.h"

void text_print_name(const char *name, bool escape)
{
	size_t len = strlen(name), size = 4 * len + 1; /* every byte as \xNN */
	AUTO_FREE char *escaped = NULL;

	if (!escape) {
		fputs(name, stdout);
		return;
	}
	escaped = xmalloc(size);
	(void)escape_text(escaped, size, name, len);
	fputs(escaped, stdout);
}

const char *text_time(uint64_t microseconds, char buf[TEXT_TIME_SIZE])
{
	time_t seconds = (time_t)(microseconds / 1000000);
	struct tm tm;

	if (!localtime_r(&seconds, &tm) || strftime(buf, TEXT_TIME_SIZE, "%Y-%m-%d %H:%M:%S", &tm) == 0)
		(void)snprintf(buf, TEXT_TIME_SIZE, "?");
	return buf;
}
