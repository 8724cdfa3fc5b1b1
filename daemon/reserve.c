/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/reserve.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>

#include "common/auto.h"
#include "daemon/disk.h"

enum {
	ZEROS = 64 * 1024,
	LEAVE = 4, /* times its size must be free to make it */
};

static const char name[] = "reserve";

/* Where the file system cannot allocate ahead of writing (ext3, some networks), zeros are as good. */
static int fill(int fd)
{
	static const char zeros[ZEROS];
	int r = disk_fallocate(fd, 0, 0, RESERVE_BYTES);

	if (r != -EOPNOTSUPP)
		return r;
	r = 0;
	for (unsigned i = 0; i < RESERVE_BYTES / ZEROS && r == 0; i++)
		r = disk_write_full(fd, zeros, sizeof(zeros));
	return r;
}

static bool is_there(int store_fd)
{
	struct stat st;

	return disk_fstatat(store_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
	       (uint64_t)st.st_blocks * 512 >= RESERVE_BYTES;
}

int reserve_make(int store_fd)
{
	AUTO_CLOSE int fd = -1;
	uint64_t n_free;
	int r;

	if (is_there(store_fd))
		return 0;
	(void)disk_unlinkat(store_fd, name, 0); /* half of one */
	if ((r = disk_free_bytes(store_fd, &n_free)) < 0)
		return r;
	if (n_free < (uint64_t)LEAVE * RESERVE_BYTES)
		return -ENOSPC;
	fd = disk_openat(store_fd, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0600);
	r = fd < 0 ? fd : fill(fd);
	if (r < 0 && fd >= 0)
		(void)disk_unlinkat(store_fd, name, 0);
	return r;
}

bool reserve_give_up(int store_fd)
{
	return disk_unlinkat(store_fd, name, 0) == 0;
}

bool reserve_is_for(int r)
{
	return r == -ENOSPC || r == -EDQUOT;
}
