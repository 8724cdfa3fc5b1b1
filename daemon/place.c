/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/place.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "common/alloc.h"
#include "daemon/disk.h"

struct open_job {
	struct job job;

	/* In. */
	const struct identity *client;
	char *folder_path;

	/* Out. */
	int fd;
	struct err err;

	struct request *request;
	struct wire_bytes name;
	void (*got)(struct request *request, int r, const struct place *place, const struct err *err);
};

static enum job_next open_run(struct job *job)
{
	struct open_job *open = CONTAINER_OF(job, struct open_job, job);

	open->fd = identity_assume(open->client, &open->err);
	if (open->fd < 0)
		return JOB_DONE;
	open->fd = disk_openat(AT_FDCWD, open->folder_path, O_PATH | O_DIRECTORY, 0);
	if (open->fd < 0)
		err_errno(&open->err, open->fd, "opening the target's folder '%s'", open->folder_path);
	if (open->fd == -ENOENT) /* not_found is for what the cache lacks */
		open->err.code = ERR_FAILED_PRECONDITION;
	return JOB_DONE;
}

static void open_done(struct job *job)
{
	struct open_job *open = CONTAINER_OF(job, struct open_job, job);
	struct place place = { .folder = open->fd, .name = open->name };

	open->got(open->request, open->fd < 0 ? open->fd : 0, &place, &open->err);
	free(open->folder_path);
	free(open);
}

/* Cut `/folder/name/` in two. */
static void open_folder(struct request *request, struct wire_bytes path,
			void (*got)(struct request *, int, const struct place *, const struct err *))
{
	struct open_job *open = xcalloc(1, sizeof(*open));
	const char *slash;

	while (path.len > 1 && path.data[path.len - 1] == '/')
		path.len--;
	slash = memrchr(path.data, '/', path.len);
	open->folder_path = xmemdupz(path.data, slash == path.data ? 1 : (size_t)(slash - path.data));
	open->name = (struct wire_bytes){ slash + 1, (size_t)(path.data + path.len - slash - 1) };
	open->job = (struct job){ .run = open_run, .done = open_done };
	open->client = identity_acting_for(request->identity);
	open->request = request;
	open->got = got;
	pool_submit(request->user->chores, &open->job);
}

void place_get(struct request *request, const struct place_params *params,
	       void (*got)(struct request *request, int r, const struct place *place, const struct err *err))
{
	struct place place = { .name = params->name };
	struct err err = { 0 };
	int r;

	if (!params->path.data == !params->name.data || (params->name.data && params->fds != 1)) {
		r = err_set(&err, ERR_INVALID_ARGUMENT, "a target is `fds` 1 with `name`, or `path`");
		got(request, r, NULL, &err);
	} else if (params->name.data) {
		place.folder = request_take_fd(request, 0);
		got(request, 0, &place, NULL);
	} else if (!request->service->single_user) {
		r = err_set(&err, ERR_INVALID_ARGUMENT,
			    "path: this daemon serves several users: pass a descriptor");
		got(request, r, NULL, &err);
	} else if (!params->path.len || params->path.data[0] != '/' ||
		   memchr(params->path.data, 0, params->path.len)) {
		r = err_set(&err, ERR_INVALID_ARGUMENT, "path: an absolute path is needed");
		got(request, r, NULL, &err);
	} else {
		open_folder(request, params->path, got);
	}
}
