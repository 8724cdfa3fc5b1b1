/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Put: storing a file or a tree from descriptors (docs/PROTOCOL.md, `put`).
 *
 *     begin     a struct put, kept by the connection
 *     entries   names into the put, descriptors to workers, which hash and store them; the answer when all
 * are stored commit    encode the Directories from the leaves up, store them, take them into the DAG: cached
 * as one unit; answer when blobs, tree and tag are in the index
 *
 * A put whose connection ends is forgotten; what it stored stays in the store as blobs. Loop only.
 */
#ifndef DIRCACHE_DAEMON_PUT_H
#define DIRCACHE_DAEMON_PUT_H

#include "daemon/request.h"

/* The method `put`. */
void put_start(struct request *request);

#endif
