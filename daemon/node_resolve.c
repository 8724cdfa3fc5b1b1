/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/node_internal.h"

#include <assert.h>
#include <errno.h>

#include "common/alloc.h"
#include "daemon/discard.h"

enum {
	SCAN_STEP = 128,       /* entries looked up between two looks at the clock */
	TELL_STEP = 128,       /* waiters told */
	TELL_FAILURE_STEP = 4, /* the same of a failure: each adds a hundred digests to its own hundred */
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

	if (n->work->pending || n->state != NODE_WAITING)
		return;
	list_append(&nodes->settled, &n->work->link);
	nodes_wake_slice(nodes);
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

/* Those who waited are still to be told; whoever comes now finds what the node became. */
static void end_work(struct node_work *work)
{
	struct node_inner *n = TAKE(work->node);
	struct nodes *nodes = n->nodes;

	n->work = NULL;
	if (!work->failure) {
		n->state = NODE_AWAKE;
		n->known = true;
	} else if (n->known) { /* it could not be woken: the next who asks tries again */
		n->state = NODE_FALLING;
		list_append(&nodes->drowsy, &n->link);
	} else {
		n->state = NODE_FAILED;
		if (n->node.directory)
			map_remove(&nodes->map, &n->node.digest);
		else
			map_remove(&nodes->unproven, &work->key);
	}
	node_drop_pin(n);
	node_unref(n, 0);
}

void node_settle(struct nodes *nodes, struct node_work *work)
{
	unsigned step = work->failure ? TELL_FAILURE_STEP : TELL_STEP;
	struct list *l;

	if (work->node)
		end_work(work);
	for (unsigned i = 0; i < step && (l = list_pop(&work->waiters)); i++) {
		struct node_waiter *waiter = LIST_ENTRY(l, struct node_waiter, link);

		waiter->settled(waiter, work->failure);
	}
	if (!list_is_empty(&work->waiters)) {
		list_append(&nodes->settled, &work->link);
		return;
	}
	discard(nodes->chores, work->edges, work->n_edges * sizeof(*work->edges));
	free(work->failure);
	free(work);
	nodes->n_working--;
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
	struct node_work *work = n->work;

	if (!work->failure) {
		work->failure = xcalloc(1, sizeof(struct node_failure));
		work->failure->r = r;
	}
	return work->failure;
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
	} else if (!parent->known) {
		add_totals(&parent->node, edge->child);
	}
	parent->work->pending--;
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

/* The store has nothing of this hash, or something of another size. */
static void fail_missing(struct node_inner *n, const struct digest *digest, const char *name)
{
	const struct catalog_entry *entry = catalog_find(n->nodes->parts.catalog, digest);
	struct node_failure *failure;

	if (entry && entry->digest.size != digest->size) {
		fail_size(n, name, digest, entry->digest.size);
		return;
	}
	failure = failing(n, -ENOENT);
	err_set(&failure->err, ERR_NOT_FOUND, "blob %s is not in the store: '%s' in Directory %s needs it",
		DIGEST_TEXT(digest), name, DIGEST_TEXT(&n->node.digest));
	node_add_missing(failure, digest);
}

static void fail_blob(struct node_inner *n, int r, const struct err *err)
{
	struct node_failure *failure = failing(n, r);

	if (!failure->err.set)
		failure->err = *err;
}

static void on_blob_landed(struct flight_waiter *waiter, int r, const struct err *err)
{
	struct blob_wait *wait = CONTAINER_OF(waiter, struct blob_wait, waiter);
	struct node_inner *n = wait->node;
	struct nodes *nodes = n->nodes;

	if (r == BLOB_MISSING)
		fail_missing(n, &wait->digest, wait->name);
	else if (r < 0)
		fail_blob(n, r, err);
	free(wait);
	n->work->pending--;
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
	n->work->pending++;
	n->nodes->n_blobs++;
	flight_join(n->nodes->parts.flights, digest, kind, false, &wait->waiter);
}

static void scan_file(struct node_inner *n, const struct file_node *file)
{
	const struct nodes_parts *parts = &n->nodes->parts;
	struct catalog_entry *entry;
	uint8_t kinds;

	if (digest_is_empty(&file->digest))
		return;
	catalog_hold(parts->catalog, &file->digest);
	entry = catalog_find(parts->catalog, &file->digest);
	kinds = entry ? catalog_kinds(parts->catalog, entry) : 0;
	/* With another size it is wanted as well: the flight finds out which of the two is right. */
	if (kinds && entry->digest.size == file->digest.size &&
	    (file->properties || kinds & 1u << kind_wanted(file)))
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

static struct node_inner *want_new(struct nodes *nodes, const struct digest *digest, bool recall)
{
	struct node_inner *n = node_new(nodes, digest);

	n->recalled = recall;
	node_begin_work(n);
	map_add(&nodes->unproven, &n->work->key);
	node_want(n);
	return n;
}

/* Find a Directory or have it loaded, and count which. Return: a new reference and pin. */
struct node_inner *node_find_or_want(struct nodes *nodes, const struct digest *digest, bool recall)
{
	struct node_inner *n = node_find(nodes, digest);

	if (!recall && n)
		nodes->parts.counters->directory_hits++;
	else if (!recall)
		nodes->parts.counters->directory_misses++;
	if (!n)
		n = want_new(nodes, digest, recall);
	node_ref(n);
	node_add_pin(n);
	return n;
}

/* A child of a node that was resolved once is there, as long as the node is. */
static struct node_inner *pin_child(struct node_inner *n, const struct digest *digest)
{
	struct node_inner *child;

	if (!n->known)
		return node_find_or_want(n->nodes, digest, n->recalled);
	child = node_find(n->nodes, digest);
	assert(child);
	node_add_pin(child);
	return child;
}

/* As for files: what the catalog knows is right. */
static bool has_wrong_size(struct node_inner *n, const struct directory_node *d)
{
	const struct catalog_entry *entry = catalog_find(n->nodes->parts.catalog, &d->digest);

	if (n->known || !entry || entry->digest.size == d->digest.size)
		return false;
	fail_size(n, d->name, &d->digest, entry->digest.size);
	return true;
}

static void scan_child(struct node_inner *n, size_t i)
{
	const struct directory_node *d = &n->node.directory->directories[i];
	struct edge *edge = &n->work->edges[i];
	struct node_inner *child;

	if (has_wrong_size(n, d))
		return;
	child = pin_child(n, &d->digest);
	n->node.children[i] = &child->node;
	if (child->state == NODE_AWAKE) {
		if (!n->known)
			add_totals(&n->node, &child->node);
		return;
	}
	*edge = (struct edge){ .waiter.settled = on_child_settled, .parent = n, .child = &child->node };
	list_init(&edge->waiter.link);
	node_wait(&child->node, &edge->waiter);
	n->work->pending++;
}

/* Look through some entries of one node. */
void node_scan(struct node_inner *n)
{
	const struct directory *d = n->node.directory;
	const struct node_failure *failure = n->work->failure;
	bool is_hopeless = failure && failure->n_missing == NODE_MISSING_MAX; /* no more can be named */
	size_t end = is_hopeless ? n->scanned : d->n_files + d->n_directories;
	size_t stop = n->scanned + SCAN_STEP < end ? n->scanned + SCAN_STEP : end;

	if (!n->scanned && !n->known)
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

/* ---- the beginning ---- */

void node_begin_work(struct node_inner *n)
{
	struct node_work *work = xcalloc(1, sizeof(*work));

	assert(!n->work);
	work->key = map_key(&n->nodes->unproven, &n->node.digest, n->node.digest.size);
	work->node = n;
	list_init(&work->waiters);
	list_init(&work->link);
	n->work = work;
	n->refs++;
	n->pins++;
	n->nodes->n_working++;
}

void node_want(struct node_inner *n)
{
	n->state = NODE_LOADING;
	list_append(&n->nodes->wanted, &n->link);
	n->nodes->n_wanted++;
	nodes_wake_slice(n->nodes);
}

void node_start_scan(struct node_inner *n, struct directory *directory)
{
	struct node_work *work = n->work;

	node_take_contents(n, directory);
	work->n_edges = directory->n_directories;
	if (work->n_edges) {
		n->node.children = xcalloc(work->n_edges, sizeof(struct node *));
		work->edges = xcalloc(work->n_edges, sizeof(*work->edges));
	}
	if (n->known) /* its files are held already */
		n->scanned = directory->n_files;
	else
		begin_totals(&n->node);
	n->state = NODE_SCANNING;
	list_append(&n->nodes->scanning, &n->link);
	nodes_wake_slice(n->nodes);
}

void node_fail_load(struct node_inner *n, struct node_failure *failure)
{
	n->work->failure = failure;
	n->state = NODE_WAITING;
	settle_if_done(n);
}

bool nodes_may_scan(const struct nodes *nodes)
{
	return !list_is_empty(&nodes->scanning) && nodes->n_blobs < BLOBS_MAX;
}
