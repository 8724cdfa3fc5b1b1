/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/node_internal.h"

#include <assert.h>
#include <errno.h>

#include "common/alloc.h"

enum {
	SCAN_STEP = 128,  /* entries looked up between two looks at the clock */
	TELL_STEP = 128,  /* waiters told */
	BLOBS_MAX = 1024, /* blobs waited for at a time: then scanning waits, lest memory grow with a tree */
};

/* A node that waits for a kind of a blob. */
struct blob_wait {
	struct flight_waiter waiter;
	struct node_inner *node;
	struct digest digest;
	const char *name; /* of the file, in the node's Directory */
};

/* ---- settle ---- */

/* All that this node waited for has ended; its waiters are told from the slice, lest a chain recurse. */
static void settle_if_done(struct node_inner *n)
{
	struct nodes *nodes = n->nodes;

	if (n->pending || n->state != NODE_WAITING)
		return;
	n->state = NODE_SETTLING;
	list_append(&nodes->settled, &n->link);
	slice_start(nodes->parts.slicer, &nodes->slice);
}

static uint64_t add(uint64_t a, uint64_t b)
{
	uint64_t sum;

	return __builtin_add_overflow(a, b, &sum) ? UINT64_MAX : sum;
}

/* What the Directory itself holds. */
static void begin_totals(struct node *node)
{
	const struct directory *d = node->directory;

	node->totals = (struct tree_totals){
		.n_files = d->n_files,
		.n_directories = 1,
		.n_symlinks = d->n_symlinks,
		.bytes = d->file_bytes,
		.depth = 1,
	};
}

/* And what one of its children, resolved, stands for. */
static void add_totals(struct node *node, const struct node *child)
{
	const struct tree_totals *c = &child->totals;
	struct tree_totals *t = &node->totals;
	uint64_t depth = add(c->depth, 1);

	t->n_files = add(t->n_files, c->n_files);
	t->n_directories = add(t->n_directories, c->n_directories);
	t->n_symlinks = add(t->n_symlinks, c->n_symlinks);
	t->bytes = add(t->bytes, c->bytes);
	t->depth = depth > t->depth ? depth : t->depth;
}

/* Tell some waiters of one node; when all are told, the reference that kept it while under way ends. */
void node_settle(struct node_inner *n)
{
	struct list *l;

	if (n->state == NODE_SETTLING) {
		n->state = n->failure ? NODE_FAILED : NODE_RESOLVED;
		if (n->failure)
			map_remove(&n->nodes->map, &n->node.digest);
	}
	for (unsigned i = 0; i < TELL_STEP && (l = list_pop(&n->waiters)); i++) {
		struct node_waiter *waiter = LIST_ENTRY(l, struct node_waiter, link);

		waiter->settled(waiter, n->failure);
	}
	if (!list_is_empty(&n->waiters)) {
		list_append(&n->nodes->settled, &n->link);
		return;
	}
	free(TAKE(n->edges));
	free(TAKE(n->failure)); /* parents keep the node, however many are missing */
	n->nodes->n_waiting--;
	node_unref(n, 0);
}

void node_add_missing(struct node_failure *failure, const struct digest *digest)
{
	for (size_t i = 0; i < failure->n_missing; i++)
		if (digest_equal(&failure->missing[i], digest))
			return;
	if (failure->n_missing < NODE_MISSING_MAX)
		failure->missing[failure->n_missing++] = *digest;
}

/* The failure that this node will settle with; the first reason keeps the words. */
static struct node_failure *failing(struct node_inner *n, int r)
{
	if (!n->failure) {
		n->failure = xcalloc(1, sizeof(struct node_failure));
		n->failure->r = r;
	}
	return n->failure;
}

static void on_child_settled(struct node_waiter *waiter, const struct node_failure *failure)
{
	struct edge *edge = CONTAINER_OF(waiter, struct edge, waiter);
	struct node_inner *parent = edge->parent;

	if (failure) {
		struct node_failure *mine = failing(parent, failure->r);

		if (!mine->err.set)
			mine->err = failure->err;
		for (size_t i = 0; i < failure->n_missing; i++)
			node_add_missing(mine, &failure->missing[i]);
	} else {
		add_totals(&parent->node, edge->child);
	}
	parent->pending--;
	settle_if_done(parent);
}

/* ---- scan ---- */

/* Which kind must be there for this file; files of their own inode can be made from either. */
static enum blob_kind kind_wanted(const struct file_node *file)
{
	return file->executable ? BLOB_EXEC : BLOB_PLAIN;
}

static void fail_size(struct node_inner *n, const char *name, const struct digest *claimed, uint64_t size)
{
	struct node_failure *failure = failing(n, -EINVAL);

	err_set(&failure->err, ERR_INVALID_ARGUMENT,
		"Directory %s: '%s' claims %ju bytes, but that blob has %ju", DIGEST_TEXT(&n->node.digest),
		name, (uintmax_t)claimed->size, (uintmax_t)size);
}

static void on_blob_landed(struct flight_waiter *waiter, int r, const struct err *err)
{
	struct blob_wait *wait = CONTAINER_OF(waiter, struct blob_wait, waiter);
	struct node_inner *n = wait->node;
	struct nodes *nodes = n->nodes;
	struct node_failure *failure = r ? failing(n, r < 0 ? r : -ENOENT) : NULL;

	if (r == BLOB_MISSING) {
		err_set(&failure->err, ERR_NOT_FOUND,
			"blob %s is not in the store: '%s' in Directory %s needs it",
			DIGEST_TEXT(&wait->digest), wait->name, DIGEST_TEXT(&n->node.digest));
		node_add_missing(failure, &wait->digest);
	} else if (r < 0 && !failure->err.set) {
		failure->err = *err;
	}
	free(wait);
	n->pending--;
	settle_if_done(n);
	if (nodes->n_blobs-- == BLOBS_MAX)
		slice_start(nodes->parts.slicer, &nodes->slice);
}

/* Have a kind of a blob obtained, and wait for it. */
static void want_blob(struct node_inner *n, const struct digest *digest, enum blob_kind kind,
		      const char *name)
{
	struct blob_wait *wait = xcalloc(1, sizeof(*wait));

	wait->waiter.landed = on_blob_landed;
	wait->node = n;
	wait->digest = *digest;
	wait->name = name;
	n->pending++;
	n->nodes->n_blobs++;
	flight_join(n->nodes->parts.flights, digest, kind, false, &wait->waiter);
}

static void scan_file(struct node_inner *n, const struct file_node *file)
{
	const struct nodes_parts *parts = &n->nodes->parts;
	struct catalog_entry *entry;

	if (digest_is_empty(&file->digest))
		return;
	catalog_hold(parts->catalog, &file->digest);
	entry = catalog_find(parts->catalog, &file->digest);
	if (entry && entry->digest.size != file->digest.size) {
		fail_size(n, file->name, &file->digest, entry->digest.size);
		return;
	}
	if (entry && (file->properties || entry->kinds & 1u << kind_wanted(file)))
		return;
	want_blob(n, &file->digest, kind_wanted(file), file->name);
}

/* A Directory that was read although the catalog does not know it is taken in, as a blob met on disk. */
static void scan_self(struct node_inner *n)
{
	const struct digest *digest = &n->node.digest;

	if (!digest_is_empty(digest) && !catalog_find(n->nodes->parts.catalog, digest))
		want_blob(n, digest, BLOB_PLAIN, ".");
}

static struct node_inner *want(struct nodes *nodes, const struct digest *digest, bool recall)
{
	struct node_inner *n = node_new(nodes, digest, NODE_LOADING);

	n->recalled = recall;
	list_append(&nodes->wanted, &n->link);
	nodes->n_wanted++;
	slice_start(nodes->parts.slicer, &nodes->slice);
	return n;
}

/* Find a Directory or have it loaded, and count which. Return: a new reference. */
struct node_inner *node_find_or_want(struct nodes *nodes, const struct digest *digest, bool recall)
{
	struct node_inner *n = map_find(&nodes->map, digest);

	if (!recall && n)
		nodes->parts.counters->directory_hits++;
	else if (!recall)
		nodes->parts.counters->directory_misses++;
	if (!n)
		n = want(nodes, digest, recall);
	n->refs++;
	return n;
}

static void scan_child(struct node_inner *n, size_t i)
{
	const struct directory_node *d = &n->node.directory->directories[i];
	struct node_inner *child = node_find_or_want(n->nodes, &d->digest, n->recalled);

	n->node.children[i] = &child->node;
	if (child->node.digest.size != d->digest.size)
		fail_size(n, d->name, &d->digest, child->node.digest.size);
	if (child->state == NODE_RESOLVED) {
		add_totals(&n->node, &child->node);
		return;
	}
	n->edges[i] = (struct edge){ .waiter.settled = on_child_settled, .parent = n, .child = &child->node };
	list_init(&n->edges[i].waiter.link);
	node_wait(&child->node, &n->edges[i].waiter);
	n->pending++;
}

/* Look through some entries of one node. */
void node_scan(struct node_inner *n)
{
	const struct directory *d = n->node.directory;
	bool is_hopeless = n->failure && n->failure->n_missing == NODE_MISSING_MAX; /* no more can be named */
	size_t end = is_hopeless ? n->scanned : d->n_files + d->n_directories;
	size_t stop = n->scanned + SCAN_STEP < end ? n->scanned + SCAN_STEP : end;

	if (!n->scanned)
		scan_self(n);
	for (; n->scanned < stop && n->scanned < d->n_files; n->scanned++)
		scan_file(n, &d->files[n->scanned]);
	for (; n->scanned < stop; n->scanned++)
		scan_child(n, n->scanned - d->n_files);
	if (n->scanned < end) {
		list_append(&n->nodes->scanning, &n->link);
		return;
	}
	n->state = NODE_WAITING;
	settle_if_done(n);
}

void node_start_scan(struct node_inner *n, struct directory *directory)
{
	n->node.directory = directory;
	if (directory->n_directories) {
		n->node.children = xcalloc(directory->n_directories, sizeof(struct node *));
		n->edges = xcalloc(directory->n_directories, sizeof(*n->edges));
	}
	begin_totals(&n->node);
	n->state = NODE_SCANNING;
	list_append(&n->nodes->scanning, &n->link);
	slice_start(n->nodes->parts.slicer, &n->nodes->slice);
}

void node_fail_load(struct node_inner *n, struct node_failure *failure)
{
	n->failure = failure;
	n->state = NODE_WAITING;
	settle_if_done(n);
}

bool nodes_may_scan(const struct nodes *nodes)
{
	return !list_is_empty(&nodes->scanning) && nodes->n_blobs < BLOBS_MAX;
}
