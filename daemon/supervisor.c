/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/supervisor.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/auto.h"
#include "common/log.h"

enum { LISTEN_FD = 3 /* sd_listen_fds(3): the first one handed over */ };

static const struct timeval patience = { .tv_sec = 1 };

/* A variable's number; 0 without one, which stands for nothing here. */
static unsigned long number_of(const char *name)
{
	const char *text = getenv(name);
	char *end;
	unsigned long number;

	if (!text || *text < '0' || *text > '9')
		return 0;
	number = strtoul(text, &end, 10);
	return *end ? 0 : number;
}

static bool socket_is(int fd, int option, int value)
{
	int found = 0;
	socklen_t size = sizeof(found);

	return getsockopt(fd, SOL_SOCKET, option, &found, &size) == 0 && found == value;
}

static int set_flags(int fd)
{
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 || fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
		return -errno;
	return 0;
}

int supervisor_take_socket(int *fd, struct err *err)
{
	unsigned long n = number_of("LISTEN_FDS");
	int r;

	if (n == 0 || number_of("LISTEN_PID") != (unsigned long)getpid())
		return SUPERVISOR_NONE;
	if (n > 1)
		return err_set(err, ERR_INVALID_ARGUMENT, "one socket is served, and %lu were handed over",
			       n);
	if (!socket_is(LISTEN_FD, SO_DOMAIN, AF_UNIX) || !socket_is(LISTEN_FD, SO_TYPE, SOCK_STREAM) ||
	    !socket_is(LISTEN_FD, SO_ACCEPTCONN, 1))
		return err_set(err, ERR_INVALID_ARGUMENT,
			       "what was handed over is no Unix stream socket that listens");
	r = set_flags(LISTEN_FD);
	if (r < 0)
		return err_errno(err, r, "taking the socket that was handed over");
	*fd = LISTEN_FD;
	return 0;
}

/* An absolute path, or with an @ a name outside of the file system. Return: its size, 0 where it is none. */
static socklen_t find_manager(struct sockaddr_un *address)
{
	const char *name = getenv("NOTIFY_SOCKET");
	size_t len = name ? strlen(name) : 0;

	*address = (struct sockaddr_un){ .sun_family = AF_UNIX };
	if (len < 2 || len >= sizeof(address->sun_path) || (*name != '/' && *name != '@'))
		return 0;
	memcpy(address->sun_path, name, len);
	if (*name == '@')
		address->sun_path[0] = '\0';
	return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len);
}

void supervisor_tell(const char *state)
{
	struct sockaddr_un address;
	socklen_t size = find_manager(&address);
	AUTO_CLOSE int fd = -1;

	if (size == 0)
		return;
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience)) < 0 ||
	    sendto(fd, state, strlen(state), MSG_NOSIGNAL, (const struct sockaddr *)&address, size) < 0)
		log_warning("telling the service manager '%s': %s", state, strerror(errno));
}
