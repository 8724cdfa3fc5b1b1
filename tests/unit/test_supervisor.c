/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/supervisor.h"

#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/alloc.h"
#include "common/log.h"
#include "common/socket.h"
#include "tests/unit/unit.h"

enum { HANDED_FD = 3, ASIDE = 100 /* beyond what Check has open */ };

/* What a process finds that starts with a descriptor and these variables. */
struct start {
	int fd;            /* it has this as descriptor 3; -1: it has none */
	const char *count; /* LISTEN_FDS; NULL: unset */
	bool for_parent;   /* LISTEN_PID is another process's */
};

struct outcome {
	int r, fd;
	bool nonblocking, closed_on_exec;
	struct err err;
};

static void set_variables(const struct start *start)
{
	pid_t pid = start->for_parent ? getppid() : getpid();
	AUTO_FREE char *text = xasprintf("%ld", (long)pid);

	ck_assert_int_eq(setenv("LISTEN_PID", text, 1), 0);
	if (start->count)
		ck_assert_int_eq(setenv("LISTEN_FDS", start->count, 1), 0);
	else
		ck_assert_int_eq(unsetenv("LISTEN_FDS"), 0);
}

/* In a process of its own, where descriptor 3 is not Check's. */
_Noreturn static void begin(const struct start *start, int result)
{
	struct outcome outcome = { .fd = -1 };
	int fd = fcntl(result, F_DUPFD, ASIDE);

	if (start->fd != HANDED_FD) {
		(void)close(HANDED_FD);
		if (start->fd >= 0)
			(void)dup2(start->fd, HANDED_FD);
	}
	set_variables(start);
	outcome.r = supervisor_take_socket(&outcome.fd, &outcome.err);
	if (outcome.r == 0) {
		outcome.nonblocking = fcntl(outcome.fd, F_GETFL) & O_NONBLOCK;
		outcome.closed_on_exec = fcntl(outcome.fd, F_GETFD) & FD_CLOEXEC;
	}
	_exit(write(fd, &outcome, sizeof(outcome)) == sizeof(outcome) ? 0 : 1);
}

static struct outcome outcome_of(struct start start)
{
	struct outcome outcome;
	int fds[2], status;
	pid_t pid;

	ck_assert_int_eq(pipe(fds), 0);
	pid = fork();
	ck_assert_int_ge(pid, 0);
	if (pid == 0)
		begin(&start, fds[1]);
	(void)close(fds[1]);
	ck_assert_int_eq(read(fds[0], &outcome, sizeof(outcome)), sizeof(outcome));
	(void)close(fds[0]);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(status, 0);
	return outcome;
}

static int new_listener(void)
{
	AUTO_FREE char *path = xasprintf("%s/s%ld", unit_folder, (long)getpid());
	struct err err = { 0 };
	int fd = socket_listen(path, 0600, &err);

	ck_assert_msg(fd >= 0, "%s", err.text);
	return fd;
}

START_TEST(a_socket_that_was_handed_over_is_taken_and_never_blocks_nor_leaks)
{
	AUTO_CLOSE int listener = new_listener();
	struct outcome outcome;

	ck_assert_int_eq(fcntl(listener, F_SETFL, 0), 0); /* as a manager's are */
	outcome = outcome_of((struct start){ .fd = listener, .count = "1" });
	ck_assert_msg(outcome.r == 0, "%s", outcome.err.text);
	ck_assert_int_eq(outcome.fd, HANDED_FD);
	ck_assert(outcome.nonblocking);
	ck_assert(outcome.closed_on_exec);
}
END_TEST

START_TEST(without_the_variables_there_is_none)
{
	AUTO_CLOSE int listener = new_listener();

	ck_assert_int_eq(outcome_of((struct start){ .fd = listener }).r, SUPERVISOR_NONE);
	ck_assert_int_eq(outcome_of((struct start){ .fd = listener, .count = "0" }).r, SUPERVISOR_NONE);
}
END_TEST

START_TEST(what_was_meant_for_another_process_is_left_alone)
{
	AUTO_CLOSE int listener = new_listener();
	struct start start = { .fd = listener, .count = "1", .for_parent = true };

	ck_assert_int_eq(outcome_of(start).r, SUPERVISOR_NONE);
}
END_TEST

START_TEST(a_number_that_is_none_counts_for_nothing)
{
	static const char *const counts[] = { "", "-1", " 1", "+1", "1x", "one" };
	AUTO_CLOSE int listener = new_listener();

	for (size_t i = 0; i < N_ELEMENTS(counts); i++)
		ck_assert_int_eq(outcome_of((struct start){ .fd = listener, .count = counts[i] }).r,
				 SUPERVISOR_NONE);
}
END_TEST

START_TEST(more_sockets_than_one_are_refused)
{
	AUTO_CLOSE int listener = new_listener();
	struct outcome outcome = outcome_of((struct start){ .fd = listener, .count = "2" });

	ck_assert_int_lt(outcome.r, 0);
	unit_ck_err(&outcome.err, ERR_INVALID_ARGUMENT, "2 were handed over");
	outcome = outcome_of((struct start){ .fd = listener, .count = "99999999999999999999999" });
	ck_assert_int_lt(outcome.r, 0);
}
END_TEST

START_TEST(what_is_no_unix_stream_socket_that_listens_is_refused)
{
	int others[] = {
		-1, /* a closed descriptor */
		open("/dev/null", O_RDWR | O_CLOEXEC),
		socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0),
		socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), /* it does not listen */
		socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0),
	};

	(void)listen(others[N_ELEMENTS(others) - 1], 1);
	for (size_t i = 0; i < N_ELEMENTS(others); i++) {
		struct outcome outcome = outcome_of((struct start){ .fd = others[i], .count = "1" });

		ck_assert_int_lt(outcome.r, 0);
		unit_ck_err(&outcome.err, ERR_INVALID_ARGUMENT, "no Unix stream socket that listens");
		if (others[i] >= 0)
			(void)close(others[i]);
	}
}
END_TEST

/* A manager's socket; a name that begins with @ is none of the file system. NOTIFY_SOCKET is set to it. */
static int new_manager(const char *name)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	ck_assert_int_ge(fd, 0);
	ck_assert_uint_lt(strlen(name), sizeof(address.sun_path));
	memcpy(address.sun_path, name, strlen(name));
	if (*name == '@')
		address.sun_path[0] = '\0';
	ck_assert_int_eq(bind(fd, (const struct sockaddr *)&address,
			      (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(name))),
			 0);
	ck_assert_int_eq(setenv("NOTIFY_SOCKET", name, 1), 0);
	return fd;
}

static void check_hears(const char *name)
{
	AUTO_CLOSE int manager = new_manager(name);
	char text[64] = "";

	supervisor_tell("READY=1");
	ck_assert_int_eq(recv(manager, text, sizeof(text) - 1, 0), (ssize_t)strlen("READY=1"));
	ck_assert_str_eq(text, "READY=1");
	supervisor_tell("STOPPING=1");
	ck_assert_int_eq(recv(manager, text, sizeof(text) - 1, 0), (ssize_t)strlen("STOPPING=1"));
	ck_assert_str_eq(text, "STOPPING=1");
}

START_TEST(a_manager_hears_each_state_as_one_datagram)
{
	AUTO_FREE char *path = xasprintf("%s/manager", unit_folder);
	AUTO_FREE char *abstract = xasprintf("@dircache-%s", unit_folder);

	check_hears(path);
	check_hears(abstract);
}
END_TEST

START_TEST(without_a_manager_nobody_is_told)
{
	static const char *const names[] = { "", "/", "@", "relative/name" };
	AUTO_FREE char *too_long = xasprintf("/%0200d", 1);
	size_t n;

	log_init("test", LOG_LEVEL_ERROR);
	ck_assert_int_eq(unsetenv("NOTIFY_SOCKET"), 0);
	n = unit_count_fds();
	supervisor_tell("READY=1");
	for (size_t i = 0; i < N_ELEMENTS(names); i++) {
		ck_assert_int_eq(setenv("NOTIFY_SOCKET", names[i], 1), 0);
		supervisor_tell("READY=1");
	}
	ck_assert_int_eq(setenv("NOTIFY_SOCKET", too_long, 1), 0);
	supervisor_tell("READY=1");
	ck_assert_uint_eq(unit_count_fds(), n);
}
END_TEST

START_TEST(a_manager_that_does_not_listen_is_not_waited_for_for_ever)
{
	AUTO_FREE char *path = xasprintf("%s/deaf", unit_folder);
	AUTO_CLOSE int manager = new_manager(path);
	AUTO_CLOSE int sender = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	memcpy(address.sun_path, path, strlen(path));
	ck_assert_int_eq(connect(sender, (const struct sockaddr *)&address, sizeof(address)), 0);
	while (send(sender, "x", 1, 0) == 1)
		; /* until no more is taken */
	log_init("test", LOG_LEVEL_ERROR);
	supervisor_tell("READY=1");
	ck_assert_int_ge(manager, 0); /* open until here, and never read */
}
END_TEST

UNIT_MAIN("supervisor", a_socket_that_was_handed_over_is_taken_and_never_blocks_nor_leaks,
	  without_the_variables_there_is_none, what_was_meant_for_another_process_is_left_alone,
	  a_number_that_is_none_counts_for_nothing, more_sockets_than_one_are_refused,
	  what_is_no_unix_stream_socket_that_listens_is_refused, a_manager_hears_each_state_as_one_datagram,
	  without_a_manager_nobody_is_told, a_manager_that_does_not_listen_is_not_waited_for_for_ever)
