/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mount: the store's own mount, and clients' folders opened again on it.
 *
 * link(2) joins names of one mount only. A folder that the client reached by another mount of the store's
 * file system (a bind mount; any mount, where the client lives in a mount namespace of its own, as containers
 * and sandboxed services do) is refused with EXDEV, though inodes could be shared. Such a folder is opened
 * again on the mount that the store is on, once for a request:
 *
 *   1. by its file handle, where the daemon may (CAP_DAC_READ_SEARCH): that finds it wherever it is;
 *   2. else by its path, as the kernel tells it of the descriptor: in other namespaces most paths are the
 * same;
 *   3. else by where it lies in the file system, as /proc/self/mountinfo tells of mounts that the daemon
 * sees.
 *
 * What is opened is the client's folder or is not used: device and inode must be those of the descriptor that
 * the client opened with its own rights. So nothing is reached that it did not hand over. Neither does it
 * gain a right there: a folder on a read-only mount stays where it is, to fail as the client would, and so
 * does one whose mount shows other owners or modes than the store's (an idmapped mount), since what is made
 * in it would get other owners.
 *
 * A worker that acts as a client (identity.h) does so here too, but for handles, which are the daemon's to
 * use: a path that the client cannot go leads nowhere.
 *
 * Whether a folder is on the store's mount already costs one statx(2). Any thread; blocks: workers only.
 */
#ifndef DIRCACHE_DAEMON_MOUNT_H
#define DIRCACHE_DAEMON_MOUNT_H

#include "common/auto.h"
#include "common/err.h"

struct mount;

/* store_fd: borrowed for good, a descriptor of STORE, not O_PATH. Return: a mount, or NULL with err. */
struct mount *mount_open(int store_fd, struct err *err);
void mount_free(struct mount *mount);
DEFINE_AUTO(mount);

enum mount_place {
	MOUNT_OWN = 0,   /* on the store's own mount, as far as can be told: links may work */
	MOUNT_OTHER = 1, /* on another mount of the same file system, and it stays there: links cannot work */
	MOUNT_AWAY = 2,  /* on another file system */
};

/**
 * Have a folder on the store's own mount, if that can be.
 *
 * @folder  in and out: the client's descriptor; where it was opened again that is closed, and this is the new
 *          one, O_PATH
 */
enum mount_place mount_enter(struct mount *mount, int *folder);

#endif
