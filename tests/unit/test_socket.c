/* SPDX-License-Identifier: Apache-2.0 */
#include "common/socket.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/alloc.h"
#include "common/wire.h"
#include "tests/unit/unit.h"

struct pair {
	int a, b;
};

static struct pair new_pair(void)
{
	int fds[2];

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
	return (struct pair){ fds[0], fds[1] };
}

static bool same_file(int a, int b)
{
	struct stat sa, sb;

	return fstat(a, &sa) == 0 && fstat(b, &sb) == 0 && sa.st_dev == sb.st_dev && sa.st_ino == sb.st_ino;
}

static void check_conversation(const char *path)
{
	struct err err = { 0 };
	AUTO_CLOSE int listener = socket_listen(path, 0600, &err);
	AUTO_CLOSE int client = -1;
	AUTO_CLOSE int server = -1;
	char byte;

	ck_assert_msg(listener >= 0, "%s", err.text);
	ck_assert_int_eq(accept(listener, NULL, NULL), -1);
	ck_assert_int_eq(errno, EAGAIN); /* it does not block */
	client = socket_connect(path, 0, &err);
	ck_assert_msg(client >= 0, "%s", err.text);
	server = accept(listener, NULL, NULL);
	ck_assert_int_ge(server, 0);
	ck_assert_int_eq(socket_send(client, "x", 1, NULL, 0), 1);
	ck_assert_int_eq(read(server, &byte, 1), 1);
	ck_assert_int_eq(fcntl(client, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
	ck_assert_int_eq(fcntl(listener, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
	ck_assert_int_eq(fcntl(client, F_GETFL) & O_NONBLOCK, 0);
}

START_TEST(a_listener_is_found_by_its_path)
{
	AUTO_FREE char *path = xasprintf("%s/s", unit_folder);

	check_conversation(path);
}
END_TEST

START_TEST(a_path_may_be_longer_than_107_bytes)
{
	AUTO_FREE char *folder = xasprintf("%s/%0150d", unit_folder, 1);
	AUTO_FREE char *path = xasprintf("%s/socket", folder);
	AUTO_FREE char *name_too_long = xasprintf("%s/%0108d", folder, 1);
	struct err err = { 0 };

	ck_assert_int_eq(mkdir(folder, 0700), 0);
	check_conversation(path);
	ck_assert_int_eq(socket_listen(name_too_long, 0600, &err), -ENAMETOOLONG);
	unit_ck_err(&err, ERR_INVALID_ARGUMENT, name_too_long);
}
END_TEST

START_TEST(the_mode_is_as_asked_whatever_the_umask)
{
	AUTO_FREE char *path = xasprintf("%s/mode", unit_folder);
	AUTO_CLOSE int listener = -1;
	struct stat st;

	umask(0777);
	listener = socket_listen(path, 0660, NULL);
	ck_assert_int_ge(listener, 0);
	ck_assert_int_eq(stat(path, &st), 0);
	ck_assert_int_eq(st.st_mode & 0777, 0660);
}
END_TEST

START_TEST(what_exists_is_not_taken)
{
	AUTO_FREE char *path = xasprintf("%s/taken", unit_folder);
	AUTO_CLOSE int listener = socket_listen(path, 0600, NULL);
	struct err err = { 0 };

	ck_assert_int_eq(socket_listen(path, 0600, &err), -EADDRINUSE);
	unit_ck_err(&err, ERR_FAILED_PRECONDITION, path);
	ck_assert_int_eq(access(path, F_OK), 0);
}
END_TEST

START_TEST(nobody_there_is_said_by_two_errnos)
{
	AUTO_FREE char *path = xasprintf("%s/stale", unit_folder);
	struct err err = { 0 };

	ck_assert_int_eq(socket_connect(path, 0, &err), -ENOENT);
	unit_ck_err(&err, ERR_NOT_FOUND, path);
	ck_assert_int_eq(close(socket_listen(path, 0600, NULL)), 0);
	ck_assert_int_eq(socket_connect(path, 0, NULL), -ECONNREFUSED);
	ck_assert_int_eq(socket_connect("", 0, NULL), -ENOENT);
}
END_TEST

START_TEST(descriptors_travel_with_the_first_bytes)
{
	int sent[WIRE_DESCRIPTORS_MAX], fds[WIRE_DESCRIPTORS_MAX];
	struct pair pair = new_pair();
	struct socket_received received;
	char buf[16];

	for (size_t i = 0; i < N_ELEMENTS(sent); i++)
		sent[i] = i % 2 ? pair.a : STDIN_FILENO;
	ck_assert_int_eq(socket_send(pair.a, "hello", 5, sent, N_ELEMENTS(sent)), 5);
	ck_assert_int_eq(socket_receive(pair.b, buf, sizeof(buf), fds, &received), 0);
	ck_assert_int_eq(received.n, 5);
	ck_assert_uint_eq(received.n_fds, WIRE_DESCRIPTORS_MAX);
	ck_assert(!received.truncated);
	for (size_t i = 0; i < N_ELEMENTS(sent); i++) {
		ck_assert(same_file(sent[i], fds[i]));
		ck_assert_int_eq(fcntl(fds[i], F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
	}
}
END_TEST

START_TEST(one_receive_has_the_descriptors_of_one_send)
{
	int fds[WIRE_DESCRIPTORS_MAX], fd = STDIN_FILENO;
	struct pair pair = new_pair();
	struct socket_received received;
	char buf[16];

	ck_assert_int_eq(socket_send(pair.a, "a", 1, NULL, 0), 1);
	ck_assert_int_eq(socket_send(pair.a, "b", 1, &fd, 1), 1);
	ck_assert_int_eq(socket_send(pair.a, "c", 1, &fd, 1), 1);
	for (size_t n = 0, n_fds = 0; n < 3; n += (size_t)received.n) {
		ck_assert_int_eq(socket_receive(pair.b, buf, sizeof(buf), fds, &received), 0);
		ck_assert_uint_le(received.n_fds, 1);
		n_fds += received.n_fds;
		ck_assert_uint_le(n_fds, n + (size_t)received.n); /* never before their byte */
	}
	ck_assert_int_eq(socket_receive(pair.b, buf, sizeof(buf), fds, &received), -EAGAIN);
}
END_TEST

START_TEST(the_end_of_the_stream_is_no_error)
{
	int fds[WIRE_DESCRIPTORS_MAX];
	struct pair pair = new_pair();
	struct socket_received received;
	char buf[16];

	close(pair.a);
	ck_assert_int_eq(socket_receive(pair.b, buf, sizeof(buf), fds, &received), 0);
	ck_assert_int_eq(received.n, 0);
	ck_assert_int_eq(socket_send(pair.b, "x", 1, NULL, 0), -EPIPE); /* and no signal */
}
END_TEST

START_TEST(descriptors_lost_for_want_of_room_are_told)
{
	int sent[8] = { 0 }, fds[WIRE_DESCRIPTORS_MAX];
	struct pair pair = new_pair();
	struct rlimit limit;
	struct socket_received received;
	char buf[16];

	ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
	limit.rlim_cur = (rlim_t)(pair.a > pair.b ? pair.a : pair.b) + 4;
	ck_assert_int_eq(socket_send(pair.a, "x", 1, sent, N_ELEMENTS(sent)), 1);
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
	ck_assert_int_eq(socket_receive(pair.b, buf, sizeof(buf), fds, &received), 0);
	ck_assert_int_eq(received.n, 1);
	ck_assert(received.truncated);
	ck_assert_uint_lt(received.n_fds, N_ELEMENTS(sent));
	for (size_t i = 0; i < received.n_fds; i++)
		ck_assert_int_eq(close(fds[i]), 0);
}
END_TEST

UNIT_MAIN("socket", a_listener_is_found_by_its_path, a_path_may_be_longer_than_107_bytes,
	  the_mode_is_as_asked_whatever_the_umask, what_exists_is_not_taken,
	  nobody_there_is_said_by_two_errnos, descriptors_travel_with_the_first_bytes,
	  one_receive_has_the_descriptors_of_one_send, the_end_of_the_stream_is_no_error,
	  descriptors_lost_for_want_of_room_are_told)
