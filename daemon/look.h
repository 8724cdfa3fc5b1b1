/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Look: the methods that read the store and change nothing: `ls`, `cat`, `has` (docs/PROTOCOL.md).
 *
 * Knowing a digest is the right to read it. Directories are read by a worker each time: a listing needs
 * neither the blobs of a tree nor its other Directories. Loop only.
 */
#ifndef DIRCACHE_DAEMON_LOOK_H
#define DIRCACHE_DAEMON_LOOK_H

#include "daemon/request.h"

void ls_start(struct request *request);
void cat_start(struct request *request);
void has_start(struct request *request);

#endif
