/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/faults/fault.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
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

bool fault_is_due(const char *call)
{
	int64_t left = orders ? atomic_load(&orders->left) : 0;

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
