/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Identity: who a client is, and acting as the client.
 *
 * A peer's user, group and supplementary groups are what the kernel noted when it connected (SO_PEERCRED,
 * SO_PEERGROUPS): never looked up, neither by name service nor in /proc, so they are those of the process
 * that connected and not of one that has its number now.
 *
 * A daemon that may (CAP_SETUID, CAP_SETGID and CAP_FOWNER are effective when it starts) touches the folders
 * of other users as they: a worker's thread, and it alone, takes the client's fsuid, fsgid and groups, and
 * the kernel decides each call. Of its capabilities there remain none, but
 *
 *   CAP_FOWNER        between identity_link(true) and identity_link(false): the kernel lets nobody link an
 *                     inode that he neither owns nor may write (fs.protected_hardlinks)
 *   CAP_DAC_OVERRIDE  for a client of uid 0, where the daemon has it: that is what root is to files
 *
 *     identity_assume(client) --- calls as the client --- identity_drop()      which pool.c does after each
 * job
 *
 * For the daemon's own user nothing is switched, by no system call: such an identity is NULL wherever
 * somebody is to be acted as; and so is every client's where the daemon may not act for others, which then
 * serves its own user and root alone.
 *
 * The kernel makes a process whose thread changes its fsuid undumpable: nobody but root may trace it or look
 * at its /proc. Its own way through /proc/self/fd stays open, since its threads may always look at
 * themselves.
 */
#ifndef DIRCACHE_DAEMON_IDENTITY_H
#define DIRCACHE_DAEMON_IDENTITY_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "common/auto.h"
#include "common/err.h"

/* Immutable. References are counted on the loop; workers only read. */
struct identity {
	size_t refs;
	uid_t uid;
	gid_t gid;
	size_t n_groups;
	gid_t groups[];
};

/**
 * Note whom this process runs as, and what it may: it never may more from here on (PR_SET_NO_NEW_PRIVS).
 * Once, before there is a second thread.
 */
void identity_init(void);

/* May the daemon act for others? */
bool identity_can_act(void);

/**
 * Does the daemon serve this user: its own and root, and everybody if it can act for others? But for the
 * overflow uid, which stands for all that have no number here.
 */
bool identity_is_served(uid_t uid);

/* May this user administer the daemon: is it the daemon's, or root? */
bool identity_is_admin(uid_t uid);

/* Say that something is for those. Return: -EPERM (ERR_PERMISSION_DENIED). */
int identity_refuse(const char *what, struct err *err);

/* Who connected this socket. Return: 0 with a reference for the caller, or a negative errno. */
int identity_of_peer(int sock, struct identity **identity);

/* One that is put together. groups is copied. */
struct identity *identity_new(uid_t uid, gid_t gid, const gid_t *groups, size_t n_groups);
struct identity *identity_get(struct identity *identity); /* NULL is fine, here and below */
void identity_put(struct identity *identity);

/* As whom workers act for it: itself, or NULL for the daemon's own user. Borrowed. */
struct identity *identity_acting_for(struct identity *identity);

/* ---- workers ---- */

/**
 * Act as somebody from here on; NULL: as the daemon. Acting as he already is costs nothing.
 *
 * Return: 0, or a negative errno with err, acting as the daemon then.
 */
int identity_assume(const struct identity *identity, struct err *err);

/* Act as the daemon again. It is fatal if that cannot be. */
void identity_drop(void);

/* As whom this thread acts; NULL: as the daemon. */
const struct identity *identity_assumed(void);

/* For a step among others that is the daemon's: drop, then assume again what was returned (fatal if it cannot
 * be). */
const struct identity *identity_suspend(void);
void identity_resume(const struct identity *identity);

/* Is this thread to link what the client does not own? Off when an identity is assumed. */
void identity_link(bool on);

#endif
