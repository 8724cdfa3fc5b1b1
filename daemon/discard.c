/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/discard.h"

#include <stdlib.h>

#include "common/alloc.h"
#include "daemon/pool.h"

enum { LARGE = 1 << 20 }; /* below it the system is hardly ever asked */

struct discard_job {
	struct job job;
	void *memory;
};

static enum job_next discard_run(struct job *job)
{
	free(CONTAINER_OF(job, struct discard_job, job)->memory);
	return JOB_DONE;
}

static void discard_done(struct job *job)
{
	free(CONTAINER_OF(job, struct discard_job, job));
}

void discard(struct pool_queue *chores, void *memory, size_t size)
{
	struct discard_job *job;

	if (size < LARGE) {
		free(memory);
		return;
	}
	job = xcalloc(1, sizeof(*job));
	*job = (struct discard_job){ .job = { .run = discard_run, .done = discard_done }, .memory = memory };
	pool_submit(chores, &job->job);
}
