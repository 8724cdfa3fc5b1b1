/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/node_internal.h"

#include <assert.h>

#include "common/alloc.h"
#include "common/log.h"
#include "daemon/discard.h"

enum {
	RELEASE_STEP = 128, /* entries released between two looks at the clock */
};

/* ---- contents ---- */

/* What they take, as counted in nodes->memory. */
static size_t memory_of(const struct directory *d)
{
	return d->memory + d->n_directories * sizeof(struct node *);
}

void node_take_contents(struct node_inner *n, struct directory *directory)
{
	n->node.directory = directory;
	n->nodes->memory += memory_of(directory);
}

static void drop_contents(struct node_inner *n)
{
	struct directory *d = TAKE(n->node.directory);
	struct node **children = TAKE(n->node.children);

	if (!d)
		return;
	n->nodes->memory -= memory_of(d);
	discard(n->nodes->chores, children, d->n_directories * sizeof(*children));
	discard(n->nodes->chores, d, d->memory);
}

/* ---- falling asleep ---- */

static bool has_pinned_children(const struct node_inner *n)
{
	return n->node.directory && n->scanned > n->node.directory->n_files;
}

void node_fall(struct node_inner *n)
{
	struct nodes *nodes = n->nodes;

	n->state = NODE_FALLING;
	for (unsigned i = 0; i < RELEASE_STEP && has_pinned_children(n); i++)
		node_drop_pin(node_inner(n->node.children[--n->scanned - n->node.directory->n_files]));
	if (has_pinned_children(n)) {
		list_append(&nodes->drowsy, &n->link);
		return;
	}
	drop_contents(n);
	n->scanned = 0;
	n->state = NODE_ASLEEP;
	if (n->work)
		node_want(n);
	else if (!n->refs)
		list_append(&nodes->unread, &n->link);
}

/* ---- the end ---- */

/* The reference to a child; those of a node that was asleep have no pins. */
static void release_child(struct node_inner *n, size_t i)
{
	const struct digest *digest = &n->node.directory->directories[i].digest;
	struct node_inner *child;

	if (n->node.children && !n->node.children[i]) /* one of a wrong size: nothing was taken */
		return;
	if (n->node.children) {
		child = node_inner(n->node.children[i]);
		node_drop_pin(child);
	} else {
		child = node_find(n->nodes, digest);
		assert(child); /* kept by this reference */
	}
	node_unref(child, n->used);
}

static void release_entry(struct node_inner *n, size_t i)
{
	const struct directory *d = n->node.directory;

	if (i < d->n_files)
		catalog_release(n->nodes->parts.catalog, &d->files[i].digest, n->used);
	else
		release_child(n, i - d->n_files);
}

void node_release(struct node_inner *n)
{
	for (unsigned i = 0; i < RELEASE_STEP && n->scanned; i++)
		release_entry(n, --n->scanned);
	if (n->scanned) {
		list_append(&n->nodes->dying, &n->link);
		return;
	}
	catalog_release(n->nodes->parts.catalog, &n->node.digest, n->used);
	drop_contents(n);
	node_free(n);
}

void node_cannot_release(struct node_inner *n, const struct err *err)
{
	log_warning("what Directory %s held stays until a restart: %s", DIGEST_TEXT(&n->node.digest),
		    err->text);
	catalog_release(n->nodes->parts.catalog, &n->node.digest, n->used);
	node_free(n);
}

void node_free(struct node_inner *n)
{
	directory_free(n->node.directory);
	free(n->node.children);
	free(n);
}
