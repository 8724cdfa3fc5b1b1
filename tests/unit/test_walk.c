/* SPDX-License-Identifier: Apache-2.0 */
#include "client/walk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/alloc.h"
#include "tests/unit/unit.h"

enum { DEPTH = 300 }; /* well beyond what stays open */

/* Each test in a folder of its own, with the tree to walk in `root`. */
static void enter_folder(void)
{
	AUTO_FREE char *folder = xasprintf("%s/XXXXXX", unit_folder);

	ck_assert_ptr_nonnull(mkdtemp(folder));
	ck_assert_int_eq(chdir(folder), 0);
	ck_assert_int_eq(mkdir("root", 0755), 0);
}

static void make_file(const char *path)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);

	ck_assert_msg(fd >= 0, "%s: %s", path, strerror(errno));
	(void)close(fd);
}

static struct walk *walk_root(void)
{
	int fd = open("root", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	ck_assert_int_ge(fd, 0);
	return walk_new(fd, "root");
}

struct counts {
	size_t files, directories, symlinks;
};

/* Walk to the end. */
static int count_entries(struct counts *counts, struct err *err)
{
	AUTO(walk) walk = walk_root();
	struct walk_entry entry;
	int r;

	*counts = (struct counts){ 0 };
	while ((r = walk_next(walk, &entry, err)) > 0) {
		counts->files += entry.type == WALK_FILE;
		counts->directories += entry.type == WALK_DIRECTORY;
		counts->symlinks += entry.type == WALK_SYMLINK;
		if (entry.type == WALK_FILE)
			(void)close(entry.fd);
	}
	return r;
}

static void check_refused(const char *words)
{
	struct counts counts;
	struct err err = { 0 };

	ck_assert_int_lt(count_entries(&counts, &err), 0);
	unit_ck_err(&err, ERR_INVALID_ARGUMENT, words);
}

START_TEST(entries_name_the_directory_they_are_in)
{
	AUTO(walk) walk = NULL;
	struct walk_entry entry;
	uint64_t inner = 0, n = 0;
	struct err err = { 0 };

	enter_folder();
	ck_assert_int_eq(mkdir("root/a", 0755), 0);
	ck_assert_int_eq(mkdir("root/a/b", 0755), 0);
	make_file("root/a/b/deep");
	make_file("root/top");
	walk = walk_root();
	while (walk_next(walk, &entry, &err) > 0) {
		if (entry.type == WALK_DIRECTORY)
			n++;
		if (strcmp(entry.name, "b") == 0)
			inner = n;
		if (entry.type == WALK_FILE) {
			ck_assert_uint_eq(entry.parent, strcmp(entry.name, "top") == 0 ? 0 : inner);
			(void)close(entry.fd);
		}
	}
	ck_assert_uint_eq(n, 2);
	ck_assert_uint_ne(inner, 0);
}
END_TEST

START_TEST(symlinks_are_read_and_never_followed)
{
	AUTO(walk) walk = NULL;
	struct walk_entry entry;
	struct err err = { 0 };

	enter_folder();
	ck_assert_int_eq(mkdir("elsewhere", 0755), 0);
	make_file("elsewhere/secret");
	ck_assert_int_eq(symlink("../elsewhere", "root/link"), 0);
	walk = walk_root();
	ck_assert_int_eq(walk_next(walk, &entry, &err), 1);
	ck_assert_int_eq(entry.type, WALK_SYMLINK);
	ck_assert_str_eq(entry.target, "../elsewhere");
	ck_assert_int_eq(walk_next(walk, &entry, &err), 0);
}
END_TEST

/* Two ways down at each level, so that the walk must come back up past what it closed. */
START_TEST(depth_costs_no_descriptors)
{
	struct counts counts;
	struct err err = { 0 };
	struct rlimit limit = { .rlim_cur = WALK_OPEN_MAX + 40, .rlim_max = WALK_OPEN_MAX + 40 };
	AUTO_CLOSE int here = -1;
	size_t before;

	enter_folder();
	here = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
	ck_assert_int_eq(chdir("root"), 0);
	for (int i = 0; i < DEPTH; i++) {
		ck_assert_int_eq(mkdir("a", 0755), 0);
		ck_assert_int_eq(mkdir("b", 0755), 0);
		make_file("b/file");
		ck_assert_int_eq(chdir("a"), 0);
	}
	ck_assert_int_eq(fchdir(here), 0);
	before = unit_count_fds();
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
	ck_assert_msg(count_entries(&counts, &err) == 0, "%s", err.text);
	ck_assert_uint_eq(counts.directories, 2 * DEPTH);
	ck_assert_uint_eq(counts.files, DEPTH);
	ck_assert_uint_eq(unit_count_fds(), before);
}
END_TEST

START_TEST(a_directory_moved_away_ends_the_walk)
{
	AUTO(walk) walk = NULL;
	AUTO_FREE char *path = xstrdup("root");
	struct walk_entry entry;
	struct err err = { 0 };
	int r;

	enter_folder();
	for (int i = 0; i < WALK_OPEN_MAX + 10; i++) {
		AUTO_FREE char *above = path;

		path = xasprintf("%s/a", above);
		ck_assert_int_eq(mkdir(path, 0755), 0);
	}
	walk = walk_root();
	for (int i = 0; i < WALK_OPEN_MAX + 10; i++)
		ck_assert_int_eq(walk_next(walk, &entry, &err), 1);
	/* We stand at the bottom; the directory above some that are closed goes elsewhere. */
	ck_assert_int_eq(rename("root/a/a/a", "moved"), 0);
	while ((r = walk_next(walk, &entry, &err)) > 0)
		continue;
	ck_assert_int_lt(r, 0);
	unit_ck_err(&err, ERR_FAILED_PRECONDITION, "vanished");
}
END_TEST

START_TEST(special_files_are_refused_by_name)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX, .sun_path = "root/sub/socket" };
	int fd;

	enter_folder();
	ck_assert_int_eq(mkdir("root/sub", 0755), 0);
	ck_assert_int_eq(mkfifo("root/sub/fifo", 0644), 0);
	check_refused("'root/sub/fifo' is a FIFO");
	ck_assert_int_eq(unlink("root/sub/fifo"), 0);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	check_refused("'root/sub/socket' is a socket");
	(void)close(fd);
}
END_TEST

START_TEST(a_walk_out_of_descriptors_goes_on_when_there_are_some)
{
	AUTO(walk) walk = NULL;
	struct walk_entry entry;
	struct err err = { 0 };
	struct rlimit limit = { .rlim_cur = 16, .rlim_max = 16 };
	int held[16], n_held = 0, n = 0, r;

	enter_folder();
	for (int i = 0; i < 40; i++) {
		char path[32];

		(void)snprintf(path, sizeof(path), "root/%d", i);
		make_file(path);
	}
	walk = walk_root();
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
	while ((r = walk_next(walk, &entry, &err)) != 0) {
		if (r == 1) {
			held[n_held++] = entry.fd;
			n++;
			continue;
		}
		ck_assert_int_eq(r, -EMFILE);
		ck_assert_int_gt(n_held, 0);
		err_clear(&err);
		while (n_held)
			(void)close(held[--n_held]);
	}
	ck_assert_int_eq(n, 40);
	while (n_held)
		(void)close(held[--n_held]);
}
END_TEST

UNIT_MAIN("walk", entries_name_the_directory_they_are_in, symlinks_are_read_and_never_followed,
	  depth_costs_no_descriptors, a_directory_moved_away_ends_the_walk, special_files_are_refused_by_name,
	  a_walk_out_of_descriptors_goes_on_when_there_are_some)
