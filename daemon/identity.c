/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/identity.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <linux/capability.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/alloc.h"
#include "daemon/disk.h"

#define CAP(number) (UINT64_C(1) << (number))
#define NEEDED      (CAP(CAP_SETUID) | CAP(CAP_SETGID) | CAP(CAP_FOWNER))

enum { OVERFLOW_UID = 65534 /* unless the system says otherwise */ };

struct capabilities {
	uint64_t effective, permitted, inheritable;
};

/* Of the process; written by identity_init(). */
static struct {
	uid_t uid, overflow_uid;
	gid_t gid;
	gid_t *groups;
	size_t n_groups;
	struct capabilities capabilities;
	bool can_act;
} own;

static _Thread_local struct {
	const struct identity *acting;
	bool linking;
} self;

/* ---- system calls that change or tell of this thread alone ---- */

/* glibc's setgroups() would change all threads. */
static int set_groups(const gid_t *groups, size_t n)
{
#ifdef SYS_setgroups32
	long r = syscall(SYS_setgroups32, n, groups);
#else
	long r = syscall(SYS_setgroups, n, groups);
#endif
	return r < 0 ? -errno : 0;
}

static bool set_fsids(uid_t uid, gid_t gid)
{
	(void)setfsgid(gid);
	(void)setfsuid(uid);
	/* They tell what was before, and nothing of failures; what is no id changes nothing. */
	return (gid_t)setfsgid((gid_t)-1) == gid && (uid_t)setfsuid((uid_t)-1) == uid;
}

static int get_capabilities(struct capabilities *capabilities)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];

	if (syscall(SYS_capget, &head, data) < 0)
		return -errno;
	*capabilities = (struct capabilities){
		.effective = (uint64_t)data[1].effective << 32 | data[0].effective,
		.permitted = (uint64_t)data[1].permitted << 32 | data[0].permitted,
		.inheritable = (uint64_t)data[1].inheritable << 32 | data[0].inheritable,
	};
	return 0;
}

/* The permitted ones stay: they are the way back. */
static int set_effective(uint64_t effective)
{
	const struct capabilities *c = &own.capabilities;
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];

	for (unsigned i = 0; i < _LINUX_CAPABILITY_U32S_3; i++)
		data[i] = (struct __user_cap_data_struct){
			.effective = (uint32_t)(effective >> 32 * i),
			.permitted = (uint32_t)(c->permitted >> 32 * i),
			.inheritable = (uint32_t)(c->inheritable >> 32 * i),
		};
	return syscall(SYS_capset, &head, data) < 0 ? -errno : 0;
}

/* ---- the process ---- */

static uid_t read_overflow_uid(void)
{
	AUTO_CLOSE int fd = disk_openat(AT_FDCWD, "/proc/sys/kernel/overflowuid", O_RDONLY, 0);
	char text[32] = "";
	unsigned number;

	if (fd < 0 || disk_pread(fd, text, sizeof(text) - 1, 0) <= 0 || sscanf(text, "%u", &number) != 1)
		return OVERFLOW_UID;
	return number;
}

void identity_init(void)
{
	int n = getgroups(0, NULL);

	/* Whatever we become, no program that we would start gives us more than we have. */
	(void)prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	own.uid = geteuid();
	own.gid = getegid();
	own.overflow_uid = read_overflow_uid();
	own.groups = xreallocarray(own.groups, n > 0 ? (size_t)n : 1, sizeof(*own.groups));
	n = getgroups(n > 0 ? n : 0, own.groups);
	own.n_groups = n > 0 ? (size_t)n : 0;
	own.can_act = n >= 0 && get_capabilities(&own.capabilities) == 0 &&
		      (own.capabilities.effective & NEEDED) == NEEDED;
}

bool identity_can_act(void)
{
	return own.can_act;
}

bool identity_is_served(uid_t uid)
{
	return identity_is_admin(uid) || (own.can_act && uid != own.overflow_uid && uid != (uid_t)-1);
}

bool identity_is_admin(uid_t uid)
{
	return uid == own.uid || uid == 0;
}

int identity_refuse(const char *what, struct err *err)
{
	err_set(err, ERR_PERMISSION_DENIED, "%s is for the daemon's user (%u) and root", what,
		(unsigned)own.uid);
	return -EPERM;
}

/* ---- identities ---- */

static struct identity *allocate(uid_t uid, gid_t gid, size_t n_groups)
{
	struct identity *identity = xcalloc(1, sizeof(*identity) + n_groups * sizeof(*identity->groups));

	identity->refs = 1;
	identity->uid = uid;
	identity->gid = gid;
	identity->n_groups = n_groups;
	return identity;
}

struct identity *identity_new(uid_t uid, gid_t gid, const gid_t *groups, size_t n_groups)
{
	struct identity *identity = allocate(uid, gid, n_groups);

	if (n_groups)
		memcpy(identity->groups, groups, n_groups * sizeof(*groups));
	return identity;
}

int identity_of_peer(int sock, struct identity **identity)
{
	struct ucred peer;
	socklen_t size = sizeof(peer), groups_size = 0;
	struct identity *found;

	if (getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0)
		return -errno;
	/* The first call tells how many: they were noted when the peer connected, and do not change. */
	if (getsockopt(sock, SOL_SOCKET, SO_PEERGROUPS, NULL, &groups_size) < 0 && errno != ERANGE)
		return -errno;
	found = allocate(peer.uid, peer.gid, groups_size / sizeof(gid_t));
	if (groups_size && getsockopt(sock, SOL_SOCKET, SO_PEERGROUPS, found->groups, &groups_size) < 0) {
		int r = -errno;

		identity_put(found);
		return r;
	}
	*identity = found;
	return 0;
}

struct identity *identity_get(struct identity *identity)
{
	if (identity)
		identity->refs++;
	return identity;
}

void identity_put(struct identity *identity)
{
	if (identity && --identity->refs == 0)
		free(identity);
}

struct identity *identity_acting_for(struct identity *identity)
{
	return identity && own.can_act && identity->uid != own.uid ? identity : NULL;
}

/* ---- acting ---- */

static uint64_t remaining(const struct identity *identity, bool linking)
{
	uint64_t wanted = (linking ? CAP(CAP_FOWNER) : 0) | (identity->uid == 0 ? CAP(CAP_DAC_OVERRIDE) : 0);

	return wanted & own.capabilities.permitted;
}

/* From whatever half of an identity this thread has. To go on with that would be to act as the wrong one. */
static void become_self(void)
{
	bool done = set_effective(own.capabilities.effective) == 0 && set_fsids(own.uid, own.gid) &&
		    set_groups(own.groups, own.n_groups) == 0 &&
		    /* A change of the fsuid from or to 0 has changed them meanwhile. */
		    set_effective(own.capabilities.effective) == 0;

	assert(done);
	self.acting = NULL;
	self.linking = false;
}

static int become(const struct identity *identity)
{
	int r = set_groups(identity->groups, identity->n_groups);

	if (r == 0 && !set_fsids(identity->uid, identity->gid))
		r = -EPERM;
	return r < 0 ? r : set_effective(remaining(identity, false));
}

int identity_assume(const struct identity *identity, struct err *err)
{
	int r;

	if (identity == self.acting)
		return 0;
	identity_drop();
	if (!identity)
		return 0;
	r = become(identity);
	if (r < 0) {
		become_self();
		return err_errno(err, r, "acting as user %u", (unsigned)identity->uid);
	}
	self.acting = identity;
	return 0;
}

void identity_drop(void)
{
	if (self.acting)
		become_self();
}

const struct identity *identity_assumed(void)
{
	return self.acting;
}

const struct identity *identity_suspend(void)
{
	const struct identity *acting = self.acting;

	identity_drop();
	return acting;
}

void identity_resume(const struct identity *identity)
{
	int r = identity_assume(identity, NULL);

	assert(r == 0);
}

void identity_link(bool on)
{
	int r;

	if (!self.acting || self.linking == on)
		return;
	r = set_effective(remaining(self.acting, on));
	assert(r == 0);
	self.linking = on;
}
