/* SPDX-License-Identifier: Apache-2.0 */
#include "client/target.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "common/alloc.h"
#include "common/auto.h"

static bool is_name(const char *name, size_t len)
{
	return len > 0 && !(len <= 2 && strspn(name, ".") >= len);
}

static int open_folder(const char *path, size_t len, struct err *err)
{
	AUTO_FREE char *folder = len ? xmemdupz(path, len) : xstrdup(".");
	int fd = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);

	if (fd >= 0)
		return fd;
	if (errno == ENOENT) /* not "not found": nothing is absent from the cache */
		return err_set(err, ERR_FAILED_PRECONDITION, "the folder '%s' does not exist", folder);
	return err_errno(err, -errno, "opening the folder '%s'", folder);
}

int target_init(struct target *target, const char *path, struct err *err)
{
	size_t end = strlen(path), start;

	*target = (struct target){ .folder = -1 };
	while (end > 0 && path[end - 1] == '/')
		end--;
	for (start = end; start > 0 && path[start - 1] != '/'; start--)
		continue;
	target->name = path + start;
	target->len = end - start;
	if (!is_name(target->name, target->len))
		return err_set(err, ERR_INVALID_ARGUMENT, "'%s' does not end in a name", path);
	target->folder = open_folder(path, start, err);
	return target->folder < 0 ? target->folder : 0;
}

void target_fini(struct target *target)
{
	if (target->folder >= 0)
		(void)close(target->folder);
}

void target_put(const struct target *target, struct wire_out *out)
{
	wire_put_uint(out, "fds", 1);
	wire_put_bytes(out, "name", target->name, target->len);
}
