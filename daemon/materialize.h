/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Materialize: a tree, or a single blob, at a target (docs/PROTOCOL.md, `materialize`).
 *
 *     params -> place (folder, name) -> tree_get (hit, miss or join) -> limits -> plan -> answer
 *
 * A tree that was not cached before is answered when its row is in the index, so that it is a hit after a
 * kill too; the commit runs beside the linking. Loop only.
 */
#ifndef DIRCACHE_DAEMON_MATERIALIZE_H
#define DIRCACHE_DAEMON_MATERIALIZE_H

#include "daemon/request.h"

/* The method `materialize`. */
void materialize_start(struct request *request);

#endif
