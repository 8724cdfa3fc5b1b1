/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/faults/fault.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static struct fault_orders *orders;

/* Before main(): its first call counts already. */
__attribute__((constructor)) static void take_orders(void)
{
	const char *path = getenv("DIRCACHE_FAULTS");
	void *map;
	int fd;

	if (!path)
		return;
	fd = open(path, O_RDWR | O_CLOEXEC);
	assert(fd >= 0);
	map = mmap(NULL, sizeof(*orders), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert(map != MAP_FAILED);
	(void)close(fd);
	orders = map;
}

/*
 * May a signal interrupt it? Those whose man pages say EINTR, and that SQLite (open(2), read(2), write(2),
 * ftruncate(2)) or daemon/disk.c tries again. All others on files wait as long as it takes.
 *
 * The pages of fcntl(2) and fdatasync(2) say it, too, for file systems behind a network, which no store is
 * on; SQLite does not try these again, and need not: it works in a thread that has all signals blocked.
 *
 * tests/faults/released.py sees to it that each of them is one that the daemon makes.
 */
static bool can_be_interrupted(const char *call)
{
	static const char *const calls[] = {
		"disk: openat(",   "disk: call_openat2(", "disk: open_by_handle_at(",
		"disk: pread(",    "disk: write(",        "disk: pwrite(",
		"disk: fsync(",    "disk: ftruncate(",    "disk: fallocate(",
		"disk: flock(",    "disk: fstatvfs(",     "index: open",
		"index: read",     "index: pread64",      "index: write",
		"index: pwrite64", "index: ftruncate",
	};

	for (unsigned i = 0; i < sizeof(calls) / sizeof(*calls); i++)
		if (strncmp(call, calls[i], strlen(calls[i])) == 0)
			return true;
	return false;
}

bool fault_is_due(const char *call)
{
	int64_t left = orders ? atomic_load(&orders->left) : 0;

	if (left > 0 && orders->errnum == EINTR && !can_be_interrupted(call))
		return false;
	while (left > 0 && !atomic_compare_exchange_weak(&orders->left, &left, left - 1))
		continue;
	if (left != 1)
		return false;
	(void)snprintf(orders->call, sizeof(orders->call), "%s", call);
	if (!orders->errnum)
		(void)raise(SIGKILL);
	errno = orders->errnum;
	return true;
}
