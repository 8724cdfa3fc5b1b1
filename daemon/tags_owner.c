/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/tags_internal.h"

#include <errno.h>
#include <string.h>

#include "common/alloc.h"
#include "daemon/identity.h"

static bool has_name(const struct change *change, const char *name, size_t len)
{
	return strncmp(change->tag.name, name, len) == 0 && !change->tag.name[len];
}

bool tags_find_owner(const struct tags *tags, const char *name, size_t len, uid_t *uid)
{
	bool found;
	size_t i = tags_position(tags, name, len, &found);

	if (found)
		*uid = tags->items[i]->uid;
	list_for_each (l, &tags->pending) {
		const struct change *change = LIST_ENTRY(l, struct change, link);

		if (!has_name(change, name, len))
			continue;
		found = !change->is_deletion;
		*uid = change->tag.uid;
	}
	return found;
}

static int check_owner(uid_t owner, uid_t uid, const char *name, size_t len, struct err *err)
{
	AUTO_FREE char *what = NULL;

	if (owner == uid || identity_is_admin(uid))
		return 0;
	what = xasprintf("changing the tag '%.*s' of user %u", (int)len, name, (unsigned)owner);
	identity_refuse(what, err);
	err_prefix(err, "not yours: ");
	return -EPERM;
}

static int check_room(const struct tags *tags, uid_t uid, struct err *err)
{
	size_t n = 0;

	if (tags->n >= TAGS_MAX)
		return err_set(err, ERR_RESOURCE_EXHAUSTED, "there are %d tags: delete some", TAGS_MAX);
	for (size_t i = 0; i < tags->n; i++)
		n += tags->items[i]->uid == uid;
	list_for_each (l, &tags->pending) {
		const struct change *change = LIST_ENTRY(l, struct change, link);

		n += !change->is_deletion && change->tag.uid == uid;
	}
	if (n >= tags->max_of_user)
		return err_set(err, ERR_RESOURCE_EXHAUSTED,
			       "user %u has %zu tags, and may have no more (max-user-tags)", (unsigned)uid,
			       n);
	return 0;
}

int tags_check_set(const struct tags *tags, const char *name, size_t len, uid_t uid, struct err *err)
{
	int r = tag_check_name(name, len, err);
	uid_t owner;

	if (r < 0)
		return r;
	return tags_find_owner(tags, name, len, &owner) ? check_owner(owner, uid, name, len, err)
							: check_room(tags, uid, err);
}

int tags_check_delete(const struct tags *tags, const char *name, size_t len, uid_t uid, struct err *err)
{
	uid_t owner;

	if (!tags_find(tags, name, len) || !tags_find_owner(tags, name, len, &owner))
		return err_set(err, ERR_NOT_FOUND, "there is no tag '%.*s'",
			       len > TAG_NAME_MAX ? TAG_NAME_MAX : (int)len, name);
	return check_owner(owner, uid, name, len, err);
}

bool tags_sees(uid_t uid, uid_t owner)
{
	return uid == owner || identity_is_admin(uid);
}
