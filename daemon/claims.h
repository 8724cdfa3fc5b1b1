/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Claims: blobs that somebody relies on right now, against their being evicted in the same moment.
 *
 * A worker that is asked to store a blob and finds it there says so, and the loop hears of it a little later;
 * until it does, nobody holds the blob, and eviction could unlink it. So a worker claims a blob before it
 * looks at its name, and the claim is given up on the loop, after the blob was noted and held there.
 * Eviction takes the other side:
 *
 *     loop      condemn                       no, if it is claimed
 *     worker    execute, unlink, executed     no, if it was claimed since: acquitted
 *     loop      settle                        when catalog and index say what became of it
 *
 * While a blob is being unlinked who claims it waits; when its name is gone, it is stored afresh. Until a
 * condemnation is settled there is no second one of the same blob.
 *
 * By hash; a size makes no difference. Any thread; the lock is held for a look into a table.
 */
#ifndef DIRCACHE_DAEMON_CLAIMS_H
#define DIRCACHE_DAEMON_CLAIMS_H

#include <stdbool.h>
#include <stddef.h>

#include "common/auto.h"
#include "common/digest.h"

struct claims;

struct claims *claims_new(void);
void claims_free(struct claims *claims); /* when all are given up */
DEFINE_AUTO(claims);

/* Claim a blob; as often as one likes. Waits while it is being unlinked: worker only. */
void claims_take(struct claims *claims, const struct digest *digest);

/* Give up claims, one for each digest. */
void claims_drop(struct claims *claims, const struct digest *digests, size_t n);

/* Have a blob unlinked soon. Return: false, if it is claimed or condemned already. */
bool claims_condemn(struct claims *claims, const struct digest *digest);

/* Begin to unlink a condemned blob. Return: true, and claims_executed() is due once its names are gone; or
 * false, if it was acquitted and stays. */
bool claims_execute(struct claims *claims, const struct digest *digest);
void claims_executed(struct claims *claims, const struct digest *digest);

/* The end of a condemnation, whatever came of it. */
void claims_settle(struct claims *claims, const struct digest *digest);

/* Is it claimed or condemned just now: does somebody know more of it than the catalog? */
bool claims_has(struct claims *claims, const struct digest *digest);

/* Of a blob that the caller has claimed: has nobody else since, nor condemned it just before? */
bool claims_is_sole(struct claims *claims, const struct digest *digest);

size_t claims_n(struct claims *claims); /* blobs that are claimed or condemned */

#endif
