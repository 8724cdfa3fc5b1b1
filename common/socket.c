/* SPDX-License-Identifier: Apache-2.0 */
#include "common/socket.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "common/alloc.h"
#include "common/auto.h"
#include "common/wire.h"

enum { SOCKET_BACKLOG = 511 };

/* A path that bind(2) and connect(2) take, however long the real one is. */
struct address {
	struct sockaddr_un un;
	int folder; /* -1, or the descriptor that un.sun_path goes through */
};

static void address_fini(struct address *address)
{
	if (address->folder >= 0)
		(void)close(address->folder);
}

static int address_init_long(struct address *address, const char *path)
{
	const char *slash = strrchr(path, '/');
	AUTO_FREE char *folder = NULL;
	int n;

	if (!slash)
		return -ENAMETOOLONG;
	folder = xmemdupz(path, (size_t)(slash - path) + 1);
	address->folder = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (address->folder < 0)
		return -errno;
	n = snprintf(address->un.sun_path, sizeof(address->un.sun_path), "/proc/self/fd/%d/%s",
		     address->folder, slash + 1);
	return n < (int)sizeof(address->un.sun_path) ? 0 : -ENAMETOOLONG;
}

static int address_init(struct address *address, const char *path)
{
	size_t len = strlen(path);

	*address = (struct address){ .un.sun_family = AF_UNIX, .folder = -1 };
	if (len == 0)
		return -ENOENT; /* an empty name would be one that the kernel chooses */
	if (len >= sizeof(address->un.sun_path))
		return address_init_long(address, path);
	memcpy(address->un.sun_path, path, len + 1);
	return 0;
}

static int new_socket(int flags)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);

	return fd < 0 ? -errno : fd;
}

static int connect_to(int fd, const struct address *address)
{
	while (connect(fd, (const struct sockaddr *)&address->un, sizeof(address->un)) < 0)
		if (errno != EINTR)
			return -errno;
	return 0;
}

int socket_connect(const char *path, int flags, struct err *err)
{
	CLEANUP(address_fini) struct address address;
	AUTO_CLOSE int fd = -1;
	int r;

	if ((r = address_init(&address, path)) < 0)
		return err_errno(err, r, "connecting to '%s'", path);
	if ((fd = new_socket(flags)) < 0)
		return err_errno(err, fd, "making a socket");
	if ((r = connect_to(fd, &address)) < 0)
		return err_errno(err, r, "connecting to '%s'", path);
	return TAKE_FD(fd);
}

/* Nobody can connect before listen(2), so the mode is right before it matters. */
static int listen_with_mode(int fd, const struct address *address, mode_t mode)
{
	if (chmod(address->un.sun_path, mode) < 0 || listen(fd, SOCKET_BACKLOG) < 0) {
		int r = -errno;

		(void)unlink(address->un.sun_path);
		return r;
	}
	return 0;
}

int socket_listen(const char *path, mode_t mode, struct err *err)
{
	CLEANUP(address_fini) struct address address;
	AUTO_CLOSE int fd = -1;
	int r;

	if ((r = address_init(&address, path)) < 0)
		return err_errno(err, r, "listening at '%s'", path);
	if ((fd = new_socket(SOCK_NONBLOCK)) < 0)
		return err_errno(err, fd, "making a socket");
	if (bind(fd, (const struct sockaddr *)&address.un, sizeof(address.un)) < 0)
		return err_errno(err, -errno, "listening at '%s'", path);
	if ((r = listen_with_mode(fd, &address, mode)) < 0)
		return err_errno(err, r, "listening at '%s'", path);
	return TAKE_FD(fd);
}

union control {
	char buf[CMSG_SPACE(WIRE_DESCRIPTORS_MAX * sizeof(int))];
	struct cmsghdr align;
};

static void attach_descriptors(struct msghdr *msg, union control *control, const int *fds, size_t n_fds)
{
	struct cmsghdr *cmsg;

	memset(control, 0, CMSG_SPACE(n_fds * sizeof(int)));
	msg->msg_control = control->buf;
	msg->msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
	cmsg = CMSG_FIRSTHDR(msg);
	assert(cmsg);
	cmsg->cmsg_level = SOL_SOCKET;
	cmsg->cmsg_type = SCM_RIGHTS;
	cmsg->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
	memcpy(CMSG_DATA(cmsg), fds, n_fds * sizeof(int));
}

ssize_t socket_send(int sock, const void *bytes, size_t len, const int *fds, size_t n_fds)
{
	struct iovec iov = { .iov_base = (void *)bytes, .iov_len = len };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	union control control;
	ssize_t n;

	assert(n_fds <= WIRE_DESCRIPTORS_MAX && (n_fds == 0 || len > 0));
	if (n_fds)
		attach_descriptors(&msg, &control, fds, n_fds);
	do
		n = sendmsg(sock, &msg, MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

static void take_descriptors(struct msghdr *msg, int *fds, struct socket_received *received)
{
	for (struct cmsghdr *cmsg = CMSG_FIRSTHDR(msg); cmsg; cmsg = CMSG_NXTHDR(msg, cmsg)) {
		size_t n;

		if (cmsg->cmsg_level != SOL_SOCKET || cmsg->cmsg_type != SCM_RIGHTS)
			continue;
		n = (cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		assert(received->n_fds + n <= WIRE_DESCRIPTORS_MAX); /* the kernel's own limit of a message */
		memcpy(fds + received->n_fds, CMSG_DATA(cmsg), n * sizeof(int));
		received->n_fds += n;
	}
}

int socket_receive(int sock, void *buf, size_t size, int *fds, struct socket_received *received)
{
	struct iovec iov = { .iov_base = buf, .iov_len = size };
	union control control;
	struct msghdr msg = { .msg_iov = &iov,
			      .msg_iovlen = 1,
			      .msg_control = control.buf,
			      .msg_controllen = sizeof(control.buf) };
	ssize_t n;

	do
		n = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	*received = (struct socket_received){ .n = n, .truncated = msg.msg_flags & MSG_CTRUNC };
	take_descriptors(&msg, fds, received);
	return 0;
}

bool socket_is_taken(int sock)
{
	int n;

	return ioctl(sock, SIOCOUTQ, &n) == 0 && n == 0;
}
