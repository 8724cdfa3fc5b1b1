/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/verify_internal.h"

#include <errno.h>

#include "common/alloc.h"
#include "common/directory.h"

/*
 * Directories are read from the store and looked through here, not by way of nodes: those remember what once
 * was read, and would mend what they find. A tree is held on its way, so that it is not evicted.
 *
 * Trees share most of their Directories, so each is read once, however many trees have it. Only when
 * something is absent at all is it asked, in a second walk, in which trees it is: then each tree is walked by
 * itself.
 */
enum {
	READ_MAX = 32,     /* Directories in a job */
	TURN_NS = 2000000, /* of a worker: then others may want it */
	UNCACHE_TRIES = 50,
	UNCACHE_NS = 20000000, /* between two tries at a tree that is in use */
	SLAB_DIGESTS = 512,
};

struct slab {
	struct slab *next;
	struct digest digests[SLAB_DIGESTS];
};

struct verify_walk {
	struct map_walk trees;
	bool by_tree;   /* the second walk */
	bool is_absent; /* something that the first walk met */
	bool in_tree;
	struct digest tree; /* held */

	struct map visited; /* struct digest, in slabs */
	struct slab *slabs;
	size_t n_in_slab;

	struct digest *waiting; /* Directories to be read */
	size_t n_waiting, capacity;

	/* The job's. */
	struct digest digests[READ_MAX];
	struct directory *read[READ_MAX];
	int r[READ_MAX];
	struct err errs[READ_MAX];
	size_t n, n_read;
	size_t next, entry; /* being looked through */

	char *lack; /* what the tree lacks first, in words */
};

/* ---- what was visited ---- */

static void forget_visited(struct verify_walk *walk)
{
	struct slab *next;

	map_fini(&walk->visited);
	map_init(&walk->visited);
	for (struct slab *slab = walk->slabs; slab; slab = next) {
		next = slab->next;
		free(slab);
	}
	walk->slabs = NULL;
	walk->n_in_slab = SLAB_DIGESTS;
}

static void visit(struct verify_walk *walk, const struct digest *digest)
{
	struct digest *kept;

	if (digest_is_empty(digest) || map_find(&walk->visited, digest))
		return;
	if (walk->n_in_slab == SLAB_DIGESTS) {
		struct slab *slab = xmalloc(sizeof(*slab));

		slab->next = walk->slabs;
		walk->slabs = slab;
		walk->n_in_slab = 0;
	}
	kept = &walk->slabs->digests[walk->n_in_slab++];
	*kept = *digest;
	map_add(&walk->visited, kept);
	walk->waiting = xgrow(walk->waiting, walk->n_waiting, &walk->capacity, sizeof(*walk->waiting));
	walk->waiting[walk->n_waiting++] = *digest;
}

static void free_read(struct verify_walk *walk)
{
	for (size_t i = 0; i < walk->n; i++) {
		directory_free(TAKE(walk->read[i]));
		err_clear(&walk->errs[i]);
	}
	walk->n = walk->n_read = walk->next = walk->entry = 0;
}

static struct verify_walk *walk_new(void)
{
	struct verify_walk *walk = xcalloc(1, sizeof(*walk));

	map_init(&walk->visited);
	walk->n_in_slab = SLAB_DIGESTS;
	return walk;
}

void verify_walk_free(struct verify *verify)
{
	struct verify_walk *walk = verify->walk;

	if (!walk)
		return;
	if (walk->in_tree)
		trees_unhold(verify->cache->trees, &walk->tree);
	free_read(walk);
	forget_visited(walk);
	map_fini(&walk->visited);
	free(walk->waiting);
	free(walk->lack);
	free(walk);
}

/* ---- reading, on a worker ---- */

static int read_one(const struct verify *verify, const struct digest *digest, struct directory **directory,
		    struct err *err)
{
	AUTO_FREE uint8_t *bytes = NULL;
	int r = blob_read(verify->cache->store, digest, DIRECTORY_BYTES_MAX, &bytes, err);

	if (r == 0)
		return directory_decode(bytes, digest->size, verify->cache->config.limits.entries, directory,
					err);
	return r;
}

static void read_some(struct verify *verify)
{
	struct verify_walk *walk = verify->walk;
	uint64_t end = slice_now_ns() + TURN_NS;

	while (walk->n_read < walk->n && slice_now_ns() < end) {
		size_t i = walk->n_read++;

		walk->r[i] = read_one(verify, &walk->digests[i], &walk->read[i], &walk->errs[i]);
		if (pool_others_wait(verify->queue))
			break;
	}
}

/* What time was too short for is read the next time. */
static void some_read(struct verify *verify)
{
	struct verify_walk *walk = verify->walk;

	while (walk->n > walk->n_read)
		walk->waiting[walk->n_waiting++] = walk->digests[--walk->n];
	verify_go_on(verify);
}

static void read_waiting(struct verify *verify)
{
	struct verify_walk *walk = verify->walk;

	while (walk->n < READ_MAX && walk->n_waiting)
		walk->digests[walk->n++] = walk->waiting[--walk->n_waiting];
	verify_submit(verify, read_some, some_read);
}

/* ---- looking through ---- */

static void note_lack(struct verify_walk *walk, char *lack)
{
	walk->is_absent = true;
	if (walk->lack)
		free(lack);
	else
		walk->lack = lack;
}

static void look_at_file(struct verify *verify, const struct file_node *file)
{
	const struct digest *digest = &file->digest;
	const struct catalog_entry *entry = catalog_find(verify->cache->catalog, digest);

	if (digest_is_empty(digest) || (entry && entry->digest.size == digest->size))
		return;
	note_lack(verify->walk, entry ? xasprintf("blob %s has %ju bytes", DIGEST_TEXT(digest),
						  (uintmax_t)entry->digest.size)
				      : xasprintf("no blob %s", DIGEST_TEXT(digest)));
}

/* Return: was there another entry? */
static bool look_at_entry(struct verify *verify, const struct directory *d, size_t i)
{
	if (i < d->n_files)
		look_at_file(verify, &d->files[i]);
	else if (i < d->n_files + d->n_directories)
		visit(verify->walk, &d->directories[i - d->n_files].digest);
	else
		return false;
	return true;
}

static char *words_of_unread(const struct verify_walk *walk, size_t i)
{
	const char *text = DIGEST_TEXT(&walk->digests[i]);

	if (walk->r[i] == BLOB_MISSING)
		return xasprintf("no Directory %s", text);
	if (walk->r[i] == BLOB_CHANGED)
		return xasprintf("Directory %s was changed", text);
	return xasprintf("Directory %s: %s", text, walk->errs[i].text);
}

/* Some entries of what was read. */
static void look_through(struct verify *verify)
{
	struct verify_walk *walk = verify->walk;

	for (unsigned i = 0; i < VERIFY_STEP && walk->next < walk->n; i++) {
		const struct directory *d = walk->read[walk->next];

		if (!d)
			note_lack(walk, words_of_unread(walk, walk->next));
		if (d && look_at_entry(verify, d, walk->entry++))
			continue;
		walk->next++;
		walk->entry = 0;
	}
	if (walk->next == walk->n)
		free_read(walk);
}

/* ---- what a tree lacks ---- */

static void on_uncached(void *ctx, int r, const struct err *err)
{
	struct verify *verify = ctx;

	if (r == 0)
		trees_release_one(verify->cache->trees);
	verify_fault_end(verify, r == 0, r < 0 ? err->text : "cached no more");
}

/* It can go when nobody has it just now. */
static void uncache(struct verify *verify)
{
	struct trees *trees = verify->cache->trees;
	const struct digest *digest = &verify->fault.digest;

	if (trees_may_go(trees, digest)) {
		trees_evict(trees, &(struct tree_victim){ .digest = *digest }, 1, on_uncached, verify);
	} else if (!trees_hold(trees, digest)) {
		verify_fault_end(verify, true, "gone by now");
	} else {
		trees_unhold(trees, digest);
		if (verify->n_tries++ < UNCACHE_TRIES)
			verify_go_on_after(verify, UNCACHE_NS);
		else
			verify_fault_end(verify, false, "it is leased or in use");
	}
}

static enum verify_next end_tree(struct verify *verify)
{
	struct verify_walk *walk = verify->walk;

	walk->in_tree = false;
	trees_unhold(verify->cache->trees, &walk->tree);
	if (!walk->by_tree || !walk->lack)
		return VERIFY_MORE;
	verify_fault_set(verify, VERIFY_TREE, &walk->tree, NULL, xstrdup("all that is below it"),
			 TAKE(walk->lack));
	verify->n_tries = 0;
	if (verify->call->repair)
		uncache(verify);
	else
		verify_fault_end(verify, false, NULL);
	return VERIFY_BUSY;
}

static bool begin_tree(struct verify *verify)
{
	struct verify_walk *walk = verify->walk;
	struct trees *trees = verify->cache->trees;

	if (!trees_visit_step(trees, &walk->trees, &walk->tree) || !trees_hold(trees, &walk->tree))
		return false;
	walk->in_tree = true;
	verify->call->trees += !walk->by_tree;
	if (walk->by_tree)
		forget_visited(walk);
	free(TAKE(walk->lack));
	visit(walk, &walk->tree);
	return true;
}

/* All trees were walked. Return: is there a reason to walk them again, each by itself? */
static bool walk_again(struct verify_walk *walk)
{
	if (walk->by_tree || !walk->is_absent)
		return false;
	walk->by_tree = true;
	walk->trees = (struct map_walk){ 0 };
	return true;
}

enum verify_next verify_trees_next(struct verify *verify)
{
	const struct trees *trees = verify->cache->trees;
	struct verify_walk *walk = verify->walk;

	if (!walk)
		walk = verify->walk = walk_new();
	if (verify->fault.expected) { /* a tree that is in use */
		uncache(verify);
		return VERIFY_BUSY;
	}
	if (walk->n) {
		look_through(verify);
		return VERIFY_MORE;
	}
	if (walk->n_waiting) {
		read_waiting(verify);
		return VERIFY_BUSY;
	}
	if (walk->in_tree)
		return end_tree(verify);
	for (unsigned i = 0; i < VERIFY_STEP && !trees_visit_is_over(trees, &walk->trees); i++)
		if (begin_tree(verify))
			return VERIFY_MORE;
	if (!trees_visit_is_over(trees, &walk->trees) || walk_again(walk))
		return VERIFY_MORE;
	return VERIFY_OVER;
}
