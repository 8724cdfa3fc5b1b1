/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/bench/plan.h"

#include <err.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/alloc.h"
#include "common/auto.h"

static char *read_text(const char *path)
{
	AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	char *text;

	if (fd < 0 || fstat(fd, &st) < 0)
		err(1, "%s", path);
	text = xmalloc((size_t)st.st_size + 1);
	if (read(fd, text, (size_t)st.st_size) != st.st_size)
		err(1, "%s", path);
	text[st.st_size] = '\0';
	return text;
}

static void add_entry(struct plan *plan, size_t *capacity, char *line, const char *path)
{
	char *rest = line + 1;
	struct plan_entry *entry;

	(void)strsep(&rest, " ");
	plan->entries = xgrow(plan->entries, plan->n_entries, capacity, sizeof(*plan->entries));
	entry = &plan->entries[plan->n_entries++];
	entry->type = *line;
	entry->what = strsep(&rest, " ");
	entry->name = rest;
	if (!strchr("dpxl", *line) || !rest || !plan->n_directories)
		errx(1, "%s: not a plan, at '%s'", path, line);
	entry->number = *line == 'd' ? strtoul(entry->what, NULL, 10) : 0;
	plan->directories[plan->n_directories - 1].n++;
}

void plan_read(struct plan *plan, const char *path)
{
	size_t entries = 0, directories = 0;
	char *rest, *line;

	*plan = (struct plan){ .text = read_text(path) };
	rest = plan->text;
	while ((line = strsep(&rest, "\n"))) {
		if (!*line)
			continue;
		if (*line != 'D') {
			add_entry(plan, &entries, line, path);
			continue;
		}
		plan->directories = xgrow(plan->directories, plan->n_directories, &directories,
					  sizeof(*plan->directories));
		plan->directories[plan->n_directories++] = (struct plan_directory){ plan->n_entries, 0 };
	}
	if (!plan->n_directories)
		errx(1, "%s: an empty plan", path);
}

static int open_folder(int dirfd, const char *path)
{
	int fd = openat(dirfd, path, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	if (fd < 0)
		err(1, "%s", path);
	return fd;
}

void plan_store_open(struct plan_store *store, const char *path, bool stat)
{
	AUTO_CLOSE int fd = open_folder(AT_FDCWD, path);

	store->blobs = open_folder(fd, "blobs");
	store->exec = open_folder(fd, "exec");
	store->stat = stat;
}

void plan_make_entry(const struct plan_store *store, const struct plan_entry *entry, int dirfd)
{
	int from = entry->type == 'x' ? store->exec : store->blobs;
	struct stat st;

	if (entry->type == 'l') {
		if (symlinkat(entry->what, dirfd, entry->name) < 0)
			err(1, "symlink %s", entry->name);
		return;
	}
	if (store->stat && fstatat(from, entry->what, &st, AT_SYMLINK_NOFOLLOW) < 0)
		err(1, "stat %s", entry->what);
	if (linkat(from, entry->what, dirfd, entry->name, 0) < 0)
		err(1, "link %s to %s", entry->what, entry->name);
}

int plan_make_directory(int dirfd, const char *name)
{
	if (mkdirat(dirfd, name, 0755) < 0)
		err(1, "mkdir %s", name);
	return open_folder(dirfd, name);
}

uint64_t plan_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}
