/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reserve: STORE/reserve, a file of nothing that keeps room on the disk for the index.
 *
 * SQLite cannot delete a row without writing, so on a disk that is full to the last byte eviction could not
 * begin. When rows that are to go (or a start, or the file of tags) meet a full disk the reserve is given up,
 * and what was tried is tried once more; the index's lane makes it again when there is room. What is stored
 * never gets it: that is refused.
 *
 * It is as large as a full WAL (index_commit.c): a checkpoint can then bring all of that into the database,
 * and the WAL, whose blocks stay its own, begins again at its front. From there some hundred rows at a time
 * are dropped, after which files go and there is room.
 *
 * Any thread. Blocks on disk.
 */
#ifndef DIRCACHE_DAEMON_RESERVE_H
#define DIRCACHE_DAEMON_RESERVE_H

#include <stdbool.h>

enum { RESERVE_BYTES = 4 * 1024 * 1024 };

/**
 * See that the reserve is there. It is not made where that would leave little, or it would come and go.
 *
 * Return: 0 (it is there), -ENOSPC (there is no room for it), or another negative errno.
 */
int reserve_make(int store_fd);

/* Give it up. Return: was there anything to give up? */
bool reserve_give_up(int store_fd);

/* Does this errno say that the disk is full? */
bool reserve_is_for(int r);

#endif
