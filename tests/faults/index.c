/* SPDX-License-Identifier: Apache-2.0 */
/* SQLite's system calls, each of which can fail: those of the table that its unix VFS has for that, and
 * fdatasync(2), which is not in it and comes from here instead of the C library. */
#include <assert.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/auto.h"
#include "tests/faults/fault.h"

/* NAME's stand-in: the real one by real_NAME. The last of the parameters are those of the call. */
#define STAND_IN(name, type, failure, parameters, arguments)                                                 \
	static type(*real_##name) parameters;                                                                \
	static type try_##name parameters                                                                    \
	{                                                                                                    \
		return fault_is_due("index: " #name) ? (failure) : real_##name arguments;                    \
	}

STAND_IN(open, int, -1, (const char *path, int flags, int mode), (path, flags, mode))
STAND_IN(access, int, -1, (const char *path, int mode), (path, mode))
STAND_IN(stat, int, -1, (const char *path, struct stat *st), (path, st))
STAND_IN(fstat, int, -1, (int fd, struct stat *st), (fd, st))
STAND_IN(ftruncate, int, -1, (int fd, off_t size), (fd, size))
STAND_IN(fcntl, int, -1, (int fd, int command, void *argument), (fd, command, argument))
STAND_IN(read, ssize_t, -1, (int fd, void *buf, size_t len), (fd, buf, len))
STAND_IN(pread64, ssize_t, -1, (int fd, void *buf, size_t len, off_t offset), (fd, buf, len, offset))
STAND_IN(write, ssize_t, -1, (int fd, const void *buf, size_t len), (fd, buf, len))
STAND_IN(pwrite64, ssize_t, -1, (int fd, const void *buf, size_t len, off_t offset), (fd, buf, len, offset))
STAND_IN(unlink, int, -1, (const char *path), (path))
STAND_IN(mmap, void *, MAP_FAILED, (void *at, size_t len, int prot, int flags, int fd, off_t offset),
	 (at, len, prot, flags, fd, offset))

#define TAKE_PLACE(name)                                                                                     \
	{                                                                                                    \
#name, (sqlite3_syscall_ptr)try_##name, (sqlite3_syscall_ptr *)&real_##name                  \
	}

int fdatasync(int fd)
{
	return fault_is_due("index: fdatasync") ? -1 : (int)syscall(SYS_fdatasync, fd);
}

__attribute__((constructor)) static void stand_in(void)
{
	static const struct {
		const char *name;
		sqlite3_syscall_ptr stand_in;
		sqlite3_syscall_ptr *real;
	} calls[] = {
		TAKE_PLACE(open),      TAKE_PLACE(access),   TAKE_PLACE(stat),   TAKE_PLACE(fstat),
		TAKE_PLACE(ftruncate), TAKE_PLACE(fcntl),    TAKE_PLACE(read),   TAKE_PLACE(pread64),
		TAKE_PLACE(write),     TAKE_PLACE(pwrite64), TAKE_PLACE(unlink), TAKE_PLACE(mmap),
	};
	sqlite3_vfs *vfs = sqlite3_vfs_find(NULL);

	for (unsigned i = 0; i < N_ELEMENTS(calls); i++) {
		int code;

		*calls[i].real = vfs->xGetSystemCall(vfs, calls[i].name);
		assert(*calls[i].real);
		code = vfs->xSetSystemCall(vfs, calls[i].name, calls[i].stand_in);
		assert(code == SQLITE_OK);
	}
}
