/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Info: the methods that tell of the daemon, and the small ones that steer it (docs/PROTOCOL.md):
 * `ping`, `stats`, `trees`, `tags`, `tag`, `cancel`, `stop`. Loop only.
 */
#ifndef DIRCACHE_DAEMON_INFO_H
#define DIRCACHE_DAEMON_INFO_H

#include "daemon/request.h"

void ping_start(struct request *request);
void stats_start(struct request *request);
void tags_start(struct request *request);
void tag_start(struct request *request);
void cancel_start(struct request *request);
void stop_start(struct request *request);

#endif
