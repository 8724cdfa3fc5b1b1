/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Remove: taking a materialized tree away (docs/PROTOCOL.md, `remove`).
 *
 * A worker renames the target to a hidden name beside it, with a record in STORE/staging first, so that a
 * restart finishes what a killed daemon began. Then the answer; then the deletion, in the background. Mount
 * points are refused by rename(2) itself, and a folder that holds the store by comparing it with all above
 * the store. Loop only.
 */
#ifndef DIRCACHE_DAEMON_REMOVE_H
#define DIRCACHE_DAEMON_REMOVE_H

#include "daemon/request.h"

/* The method `remove`. */
void remove_start(struct request *request);

#endif
