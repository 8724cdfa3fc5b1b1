/* SPDX-License-Identifier: Apache-2.0 */
/* The daemon's disk, whose calls can fail: linked in front of the one in libdircached.a. */
#include <dirent.h>

#include "tests/faults/fault.h"

#define DISK_CALL(call) (fault_is_due("disk: " #call) ? -1 : (call))

/* The two that say by a null pointer that they failed. */
#define fdopendir(fd) (fault_is_due("disk: fdopendir") ? NULL : fdopendir(fd))
#define readdir(dir)  (fault_is_due("disk: readdir") ? NULL : readdir(dir))

#include "daemon/disk.c"
