/* SPDX-License-Identifier: Apache-2.0 */
/* How many staging records a store has: the slots of daemon/staging.h that are not clear. */
#ifndef DIRCACHE_TESTS_UNIT_RECORDS_H
#define DIRCACHE_TESTS_UNIT_RECORDS_H

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include "common/auto.h"

static inline size_t count_records(int store)
{
	DIR *dir = fdopendir(openat(store, "staging", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
	struct dirent *entry;
	size_t n = 0;

	while ((entry = readdir(dir))) {
		AUTO_CLOSE int fd = openat(dirfd(dir), entry->d_name, O_RDONLY | O_CLOEXEC);
		char first;

		if (entry->d_name[0] == '.')
			continue;
		for (off_t at = 0; pread(fd, &first, 1, at) == 1; at += 8192)
			n += first != '\0';
	}
	(void)closedir(dir);
	return n;
}

#endif
