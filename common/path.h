/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where things are when nobody says otherwise; what both programs must agree on.
 *
 *              as root                  else
 *     store    /var/cache/dircache      $XDG_CACHE_HOME/dircache          (~/.cache/dircache)
 *     socket   /run/dircache/socket     $XDG_RUNTIME_DIR/dircache/socket  (/tmp/dircache-UID/socket)
 *     log      -                        $XDG_STATE_HOME/dircache/log      (~/.local/state/dircache/log)
 *
 * DIRCACHE_STORE and DIRCACHE_SOCKET override the first two. XDG variables that are not absolute paths are
 * passed over, as the XDG base directory specification says. The home is $HOME, else the password database's.
 *
 * Each function returns a new string, the caller's to free().
 */
#ifndef DIRCACHE_COMMON_PATH_H
#define DIRCACHE_COMMON_PATH_H

#include <stdbool.h>
#include <sys/types.h>

#include "common/err.h"

char *path_default_store(void);
char *path_default_socket(void);

/* Where a daemon that a client starts writes its log; as root too ($HOME/.local/state). */
char *path_default_log(void);

/**
 * Make a folder and those above it that are missing.
 *
 * @mode  of the folders made, whatever the umask; folders that exist stay as they are
 *
 * Return: 0, or a negative errno.
 */
int path_make_folders(const char *path, mode_t mode, struct err *err);

/**
 * Make the folder that a socket lives in. The default one below /tmp must belong to the caller and be closed
 * to others (0700), made or found, for anyone could have put it there.
 *
 * Return: 0, or a negative errno.
 */
int path_make_socket_folder(const char *socket, struct err *err);

#endif
