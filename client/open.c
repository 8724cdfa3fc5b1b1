/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dircache_open: find the daemon, or start one.
 */
#include "client/dircache.h"

#include <errno.h>
#include <sys/socket.h>

#include "client/connection.h"
#include "client/start.h"
#include "common/alloc.h"
#include "common/path.h"
#include "common/socket.h"

static bool nobody_listens(int r)
{
	return r == -ENOENT || r == -ECONNREFUSED || r == -ENOTDIR;
}

/*
 * The default socket of a user may lie below /tmp, where anyone could have been first. Whoever listens gets
 * our descriptors, so it must be this user or root.
 */
static int check_peer(int sock, const char *path, struct err *err)
{
	struct ucred peer;
	socklen_t len = sizeof(peer);

	if (getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0)
		return err_errno(err, -errno, "looking who listens at '%s'", path);
	if (peer.uid == geteuid() || peer.uid == 0 || geteuid() == 0)
		return 0;
	return err_set(err, ERR_PERMISSION_DENIED, "the daemon at '%s' belongs to user %u", path,
		       (unsigned)peer.uid);
}

/* Return: a connected socket; -ENOENT and the like where nobody listens; or another negative errno. */
static int connect_default(const char *path, unsigned flags, struct err *err)
{
	AUTO_CLOSE int sock = socket_connect(path, 0, NULL);
	int r;

	if (nobody_listens(sock) && !(flags & DIRCACHE_NO_START)) {
		sock = start_daemon(path, err);
		err_prefix(err, "no daemon listens at '%s', and none could be started: ", path);
	} else if (sock < 0) {
		err_errno(err, sock, "no daemon at '%s'", path);
	}
	if (sock < 0)
		return sock;
	if ((r = check_peer(sock, path, err)) < 0)
		return r;
	return TAKE_FD(sock);
}

static int connect_given(const char *path, struct err *err)
{
	int sock = socket_connect(path, 0, NULL);

	return sock >= 0 ? sock : err_errno(err, sock, "no daemon at '%s'", path);
}

enum dircache_code dircache_open(const char *socket, unsigned flags, struct dircache **dc,
				 struct dircache_error *error)
{
	const char *setting = getenv("DIRCACHE_SOCKET");
	AUTO_FREE char *path = socket ? xstrdup(socket) : path_default_socket();
	struct err err = { 0 };
	int sock;

	if (socket || (setting && *setting))
		sock = connect_given(path, &err);
	else
		sock = connect_default(path, flags, &err);
	if (sock >= 0) {
		*dc = connection_new(sock);
		return DIRCACHE_OK;
	}
	*dc = NULL;
	(void)error_fill(&err, error);
	if (error)
		error->code = DIRCACHE_NO_DAEMON;
	return DIRCACHE_NO_DAEMON;
}
