/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/verify_internal.h"

#include <string.h>

#include "common/alloc.h"

/* ---- tags that name nothing ---- */

static void on_deleted(void *ctx, int r, const struct err *err)
{
	struct verify *verify = ctx;

	verify_fault_end(verify, r == 0, r < 0 ? err->text : "deleted");
}

static void report(struct verify *verify, const struct index_tag *tag)
{
	struct tags *tags = verify->cache->tags;

	verify_fault_set(verify, VERIFY_TAG, &tag->digest, xstrdup(tag->name), xstrdup("a blob or a tree"),
			 xstrdup("nothing of that digest"));
	if (!verify->call->repair)
		verify_fault_end(verify, false, NULL);
	else if (tags_delete(tags, tag->name, strlen(tag->name), on_deleted, verify) < 0)
		verify_fault_end(verify, true, "gone by now");
}

/* ---- the file ---- */

static void on_compared(void *ctx, int r, const struct err *err)
{
	struct verify *verify = ctx;
	bool repair = verify->call->repair;

	if (r == 0) {
		verify_go_on(verify);
		return;
	}
	verify_fault_set(verify, VERIFY_TAGS_FILE, NULL, xstrdup("tags"), xstrdup("the tags of the index"),
			 r < 0 ? xstrdup(err->text) : xstrdup("something else"));
	verify_fault_end(verify, repair && r > 0, !repair ? NULL : r < 0 ? err->text : "written anew");
}

/* Does it name nothing? One that is gone by now, or names something else, does not matter. */
static bool names_nothing(const struct verify *verify, const struct index_tag *tag)
{
	const struct digest *now = tags_find(verify->cache->tags, tag->name, strlen(tag->name));

	return now && digest_equal(now, &tag->digest) && !catalog_names(verify->cache->catalog, now);
}

enum verify_next verify_tags_next(struct verify *verify)
{
	struct tags *tags = verify->cache->tags;

	if (!verify->tags)
		verify->tags = tags_view(tags, 0);
	for (unsigned i = 0; i < VERIFY_STEP && verify->next_tag < verify->tags->n; i++) {
		struct index_tag tag = tags_view_at(verify->tags, verify->next_tag++);

		verify->call->tags++;
		if (!names_nothing(verify, &tag))
			continue;
		report(verify, &tag);
		return VERIFY_BUSY;
	}
	if (verify->next_tag < verify->tags->n)
		return VERIFY_MORE;
	if (verify->compared)
		return VERIFY_OVER;
	verify->compared = true;
	tags_compare_file(tags, verify->call->repair, on_compared, verify);
	return VERIFY_BUSY;
}

/* ---- the index ---- */

static void on_checked(void *ctx, int r, const struct index_checked *checked, const struct err *err)
{
	struct verify *verify = ctx;
	AUTO_FREE char *repair = NULL;

	if (!checked->damage.set) {
		if (r < 0)
			verify->err = *err;
		(void)verify_failed(verify, r);
		verify_go_on(verify);
		return;
	}
	verify_fault_set(verify, VERIFY_INDEX, NULL, xstrdup("index.sqlite"),
			 xstrdup("a database that is whole"), xstrdup(checked->damage.text));
	if (r < 0)
		repair = xstrdup(err->text);
	else if (verify->call->repair)
		repair = xasprintf(
			"set aside as '%s'; a new one takes what comes, and the next start finds the "
			"rest in the store",
			checked->aside);
	verify_fault_end(verify, r == 0 && verify->call->repair, repair);
}

enum verify_next verify_index_next(struct verify *verify)
{
	if (verify->compared)
		return VERIFY_OVER;
	verify->compared = true;
	index_check(verify->cache->index, verify->damage.set ? &verify->damage : NULL, verify->call->repair,
		    on_checked, verify);
	return VERIFY_BUSY;
}
