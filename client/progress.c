/* SPDX-License-Identifier: Apache-2.0 */
#include "client/progress.h"

#include <inttypes.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "common/size.h"

enum { FIRST_MS = 500, STEP_MS = 100 };

static int64_t now_ms(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * INT64_C(1000) + now.tv_nsec / 1000000;
}

dircache_progress_fn progress_start(struct progress *progress)
{
	*progress = (struct progress){ .next_ms = now_ms() + FIRST_MS };
	return isatty(STDERR_FILENO) ? progress_show : NULL;
}

static void print_count(const struct dircache_progress *done)
{
	fprintf(stderr, "\r\033[K%" PRIu64, done->files);
	if (done->files_total)
		fprintf(stderr, " of %" PRIu64, done->files_total);
	fputs(" files", stderr);
	if (done->bytes_total)
		fprintf(stderr, ", %s of %s", SIZE_TEXT(done->bytes), SIZE_TEXT(done->bytes_total));
	fflush(stderr);
}

void progress_show(void *data, const struct dircache_progress *done)
{
	struct progress *progress = data;
	int64_t now = now_ms();

	if (now < progress->next_ms)
		return;
	progress->next_ms = now + STEP_MS;
	progress->shown = true;
	print_count(done);
}

void progress_stop(struct progress *progress)
{
	if (progress->shown)
		fputs("\r\033[K", stderr);
	progress->shown = false;
}
