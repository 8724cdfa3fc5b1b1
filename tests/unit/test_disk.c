/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/disk.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <signal.h>
#include <string.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/unit.h"

static int folder = -1;

static void open_folder(void)
{
	char name[32];
	int top = open(unit_folder, O_RDONLY | O_DIRECTORY);

	(void)snprintf(name, sizeof(name), "%d", (int)getpid());
	ck_assert_int_eq(disk_mkdirat(top, name, 0755), 0);
	folder = disk_openat(top, name, O_RDONLY | O_DIRECTORY, 0);
	ck_assert_int_ge(folder, 0);
	disk_close(top);
}

static int make_file(const char *name, const char *text)
{
	int fd = disk_openat(folder, name, O_RDWR | O_CREAT | O_EXCL, 0644);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(disk_write_full(fd, text, strlen(text)), 0);
	return fd;
}

START_TEST(failures_are_negative_errnos)
{
	char buf[8];
	struct stat st;

	open_folder();
	ck_assert_int_eq(disk_openat(folder, "none", O_RDONLY, 0), -ENOENT);
	ck_assert_int_eq(disk_fstatat(folder, "none", &st, 0), -ENOENT);
	ck_assert_int_eq(disk_unlinkat(folder, "none", 0), -ENOENT);
	ck_assert_int_eq(disk_readlinkat(folder, "none", buf, sizeof(buf)), -ENOENT);
	ck_assert_int_eq(disk_pread(-1, buf, sizeof(buf), 0), -EBADF);
	ck_assert_int_eq(disk_fstat(-1, &st), -EBADF);
	ck_assert_int_eq(disk_reopen(-1, O_RDONLY), -ENOENT);
	ck_assert_int_eq(disk_fd_flags(-1), -EBADF);
	disk_close(-1);
	disk_closedir(NULL);
}
END_TEST

START_TEST(every_descriptor_is_close_on_exec)
{
	int fd, again, beneath;

	open_folder();
	fd = make_file("a", "hello");
	again = disk_reopen(fd, O_RDONLY);
	beneath = disk_openat2(folder, "a", O_RDONLY, 0, RESOLVE_BENEATH);
	ck_assert_int_eq(fcntl(fd, F_GETFD), FD_CLOEXEC);
	ck_assert_int_eq(fcntl(again, F_GETFD), FD_CLOEXEC);
	if (beneath != -ENOSYS)
		ck_assert_int_eq(fcntl(beneath, F_GETFD), FD_CLOEXEC);
	ck_assert_int_eq(disk_fd_flags(again) & O_ACCMODE, O_RDONLY);
}
END_TEST

START_TEST(resolving_beneath_goes_no_higher)
{
	int fd;

	open_folder();
	fd = disk_openat2(folder, "..", O_RDONLY, 0, RESOLVE_BENEATH);
	ck_assert(fd == -EXDEV || fd == -ENOSYS);
}
END_TEST

START_TEST(full_reads_and_sends_fail_at_an_early_end)
{
	char buf[8] = { 0 };
	int fd, to;

	open_folder();
	fd = make_file("a", "hello");
	to = make_file("b", "");
	ck_assert_int_eq(disk_read_full(fd, buf, 5, 0), 0);
	ck_assert_str_eq(buf, "hello");
	ck_assert_int_eq(disk_read_full(fd, buf, 6, 0), -EIO);
	ck_assert_int_eq(disk_read_full(fd, buf, 2, 4), -EIO);
	ck_assert_int_eq(disk_send_full(fd, 0, to, 5), 0);
	ck_assert_int_eq(disk_send_full(fd, 0, to, 6), -EIO);
	ck_assert_int_eq(disk_pread(to, buf, 8, 0), 8);
	ck_assert_mem_eq(buf, "hellohel", 8);
}
END_TEST

START_TEST(an_unnamed_file_is_given_a_name)
{
	struct stat st;
	char buf[5];
	int fd, again;

	open_folder();
	fd = disk_openat(folder, ".", O_WRONLY | O_TMPFILE, 0444);
	if (fd == -EOPNOTSUPP) {
		(void)fprintf(stderr, "# skipped: the file system of %s has no O_TMPFILE\n", unit_folder);
		return;
	}
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(disk_write_full(fd, "hello", 5), 0);
	again = disk_reopen(fd, O_RDONLY); /* not named yet */
	ck_assert_int_eq(disk_read_full(again, buf, 5, 0), 0);
	disk_close(fd);
	ck_assert_int_eq(disk_link_fd(again, folder, "name"), 0);
	ck_assert_int_eq(disk_link_fd(again, folder, "name"), -EEXIST);
	ck_assert_int_eq(disk_fstatat(folder, "name", &st, 0), 0);
	ck_assert_int_eq(st.st_size, 5);
}
END_TEST

START_TEST(the_path_behind_a_descriptor_is_whole_or_refused)
{
	char path[256], small[4];
	int fd;

	open_folder();
	fd = make_file("a", "");
	ck_assert_int_eq(disk_fd_path(fd, path, sizeof(path)), 0);
	ck_assert_int_eq(strncmp(path, unit_folder, strlen(unit_folder)), 0);
	ck_assert_str_eq(path + strlen(path) - 2, "/a");
	ck_assert_int_eq(disk_fd_path(fd, small, sizeof(small)), -ENAMETOOLONG);
	ck_assert_int_eq(disk_fd_path(fd, path, strlen(path)), -ENAMETOOLONG); /* no room for the NUL */
}
END_TEST

START_TEST(a_stream_gives_each_entry_but_the_dots)
{
	struct dirent *entry;
	unsigned n = 0;
	DIR *dir;
	int r;

	open_folder();
	disk_close(make_file("a", ""));
	disk_close(make_file(".hidden", ""));
	ck_assert_int_eq(disk_mkdirat(folder, "...", 0700), 0);
	dir = disk_fdopendir(disk_openat(folder, ".", O_RDONLY | O_DIRECTORY, 0), &r);
	ck_assert_ptr_nonnull(dir);
	while ((entry = disk_readdir(dir, &r)))
		n++;
	ck_assert_int_eq(r, 0);
	ck_assert_uint_eq(n, 3);
	disk_closedir(dir);
}
END_TEST

START_TEST(a_descriptor_that_is_no_folder_is_closed_when_it_makes_no_stream)
{
	int fd, r = 0;

	open_folder();
	fd = make_file("a", "");
	ck_assert_ptr_null(disk_fdopendir(fd, &r));
	ck_assert_int_eq(r, -ENOTDIR);
	ck_assert_int_eq(fcntl(fd, F_GETFD), -1);
}
END_TEST

static void on_alarm(int signo)
{
	(void)signo;
}

/* The lock is held by another open file until a child lets go of it, long after the signal. */
START_TEST(a_signal_does_not_end_a_call)
{
	struct sigaction action = { .sa_handler = on_alarm }; /* without SA_RESTART */
	int fd, held;
	pid_t pid;

	open_folder();
	fd = make_file("a", "");
	held = disk_openat(folder, "a", O_RDONLY, 0);
	ck_assert_int_eq(disk_flock(held, LOCK_EX), 0);
	ck_assert_int_eq(disk_flock(fd, LOCK_EX | LOCK_NB), -EWOULDBLOCK);
	ck_assert_int_eq(sigaction(SIGALRM, &action, NULL), 0);
	pid = fork();
	if (pid == 0) {
		(void)usleep(50000);
		(void)kill(getppid(), SIGALRM);
		(void)usleep(50000);
		(void)flock(held, LOCK_UN);
		_exit(0);
	}
	ck_assert_int_eq(disk_flock(fd, LOCK_EX), 0);
	ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
}
END_TEST

UNIT_MAIN("disk", failures_are_negative_errnos, every_descriptor_is_close_on_exec,
	  resolving_beneath_goes_no_higher, full_reads_and_sends_fail_at_an_early_end,
	  an_unnamed_file_is_given_a_name, the_path_behind_a_descriptor_is_whole_or_refused,
	  a_stream_gives_each_entry_but_the_dots,
	  a_descriptor_that_is_no_folder_is_closed_when_it_makes_no_stream, a_signal_does_not_end_a_call)
