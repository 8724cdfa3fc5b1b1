/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/node.h"

#include <assert.h>
#include <errno.h>

#include "common/alloc.h"
#include "daemon/map.h"

enum {
	LOAD_BATCH_MAX = 32, /* Directories a job reads: long enough to pay for the hand-over */
	SCAN_STEP = 128,     /* entries looked up between two looks at the clock */
	TELL_STEP = 128,     /* waiters told */
	BLOBS_MAX = 1024, /* blobs waited for at a time: then scanning waits, lest memory grow with a tree */
};

enum node_state {
	NODE_LOADING,
	NODE_SCANNING,
	NODE_WAITING,  /* scanned; children or flights have not ended */
	NODE_SETTLING, /* all have; its own waiters are not told yet */
	NODE_RESOLVED,
	NODE_FAILED,
};

/* A parent that waits for one of its children. */
struct edge {
	struct node_waiter waiter;
	struct node_inner *parent;
	const struct node *child;
};

/* The loop's side of a node. */
struct node_inner {
	struct node node; /* first: what others see */
	struct nodes *nodes;
	enum node_state state;
	bool recalled;
	size_t refs;    /* parents' children[], waiters' and holders' */
	size_t pending; /* children and flights that have not ended */
	size_t scanned; /* entries looked up: files, then directories */
	struct edge *edges;
	struct list waiters;
	struct list link; /* wanted, scanning, settled or dying */
	struct node_failure *failure;
};

/* A node that waits for a kind of a blob. */
struct blob_wait {
	struct flight_waiter waiter;
	struct node_inner *node;
	struct digest digest;
	const char *name; /* of the file, in the node's Directory */
};

/* Read and decode some Directories. */
struct load_job {
	struct job job;

	/* In. */
	struct blob_store *store;
	size_t max_entries;
	size_t n;
	struct node_inner *nodes[LOAD_BATCH_MAX]; /* run() reads their digests only */

	/* Out. */
	struct directory *directories[LOAD_BATCH_MAX];
	struct node_failure *failures[LOAD_BATCH_MAX];
	struct blob_repairs repairs;

	struct nodes *owner;
};

struct nodes {
	struct nodes_parts parts;
	struct pool_queue *queue;
	struct map map;
	struct slice slice;
	struct list wanted;   /* to be loaded */
	struct list scanning; /* loaded, being looked through */
	struct list settled;  /* ended, waiters not told yet */
	struct list dying;    /* without references */
	size_t n_wanted, n_jobs, n_waiting;
	size_t n_blobs; /* blobs waited for */
};

static struct node_inner *inner(const struct node *node)
{
	return (struct node_inner *)(uintptr_t)node;
}

/* ---- life ---- */

static struct node_inner *node_new(struct nodes *nodes, const struct digest *digest, enum node_state state)
{
	struct node_inner *n = xcalloc(1, sizeof(*n));

	n->node.digest = *digest;
	n->nodes = nodes;
	n->state = state;
	n->refs = 1;
	list_init(&n->waiters);
	list_init(&n->link);
	map_add(&nodes->map, &n->node.digest);
	nodes->n_waiting++;
	return n;
}

static void node_destroy(struct node_inner *n)
{
	for (size_t i = 0; n->node.children && i < n->node.directory->n_directories; i++)
		node_put(n->node.children[i]);
	free(n->node.children);
	directory_free(n->node.directory);
	free(n->edges);
	free(n->failure);
	free(n);
}

struct node *node_get(struct node *node)
{
	inner(node)->refs++;
	return node;
}

void node_put(struct node *node)
{
	struct node_inner *n = inner(node);

	if (!node || --n->refs)
		return;
	if (n->state == NODE_RESOLVED)
		map_remove(&n->nodes->map, &node->digest);
	list_append(&n->nodes->dying, &n->link);
	slice_start(n->nodes->parts.slicer, &n->nodes->slice);
}

bool node_is_resolved(const struct node *node)
{
	return inner(node)->state == NODE_RESOLVED;
}

bool node_is_recalled(const struct node *node)
{
	return inner(node)->recalled;
}

void node_wait(struct node *node, struct node_waiter *waiter)
{
	list_append(&inner(node)->waiters, &waiter->link);
}

void node_wait_no_longer(struct node_waiter *waiter)
{
	list_remove(&waiter->link);
}

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
static void settle(struct node_inner *n)
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
	node_put(&n->node);
}

static void add_missing(struct node_failure *failure, const struct digest *digest)
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
			add_missing(mine, &failure->missing[i]);
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
		add_missing(failure, &wait->digest);
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
static struct node_inner *find_or_want(struct nodes *nodes, const struct digest *digest, bool recall)
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
	struct node_inner *child = find_or_want(n->nodes, &d->digest, n->recalled);

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
static void scan(struct node_inner *n)
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

static void start_scan(struct node_inner *n, struct directory *directory)
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

/* ---- load ---- */

/* On a worker. Return: NULL, or why this Directory cannot be had. */
static struct node_failure *load_one(struct load_job *load, const struct digest *digest,
				     struct directory **directory)
{
	struct node_failure *failure = NULL;
	struct err err = { 0 };
	AUTO_FREE uint8_t *bytes = NULL;
	int r = 0;

	if (!digest_is_empty(digest))
		r = blob_read_renewed(load->store, digest, DIRECTORY_BYTES_MAX, &bytes, &load->repairs, &err);
	if (r == 0) {
		r = directory_decode(bytes, digest->size, load->max_entries, directory, &err);
		if (r == 0)
			return NULL;
		err_prefix(&err, "Directory %s: ", DIGEST_TEXT(digest));
	}
	failure = xcalloc(1, sizeof(struct node_failure));
	if (r > 0) {
		add_missing(failure, digest);
		r = err_set(&err, ERR_NOT_FOUND, "Directory %s is not in the store%s", DIGEST_TEXT(digest),
			    r == BLOB_CHANGED ? ": its file was changed" : "");
	}
	failure->r = r;
	failure->err = err;
	return failure;
}

static enum job_next load_run(struct job *job)
{
	struct load_job *load = CONTAINER_OF(job, struct load_job, job);

	for (size_t i = 0; i < load->n; i++)
		load->failures[i] = load_one(load, &load->nodes[i]->node.digest, &load->directories[i]);
	return JOB_DONE;
}

static void load_done(struct job *job)
{
	struct load_job *load = CONTAINER_OF(job, struct load_job, job);

	for (size_t i = 0; i < load->n; i++) {
		struct node_inner *n = load->nodes[i];

		if (load->failures[i]) {
			n->failure = load->failures[i];
			n->state = NODE_WAITING;
			settle_if_done(n);
		} else {
			start_scan(n, load->directories[i]);
		}
	}
	load->owner->parts.counters->tampered_blobs += load->repairs.n_changed;
	load->owner->parts.counters->healed_blobs += load->repairs.n_healed;
	load->owner->n_jobs--;
	if (load->owner->n_wanted)
		slice_start(load->owner->parts.slicer, &load->owner->slice);
	free(load);
}

/* Hand what is wanted to the workers, in equal parts, a few jobs ahead of them. */
static void dispatch_loads(struct nodes *nodes)
{
	size_t n_workers = pool_n_workers(nodes->parts.pool);
	size_t share = nodes->n_wanted / n_workers + 1;

	while (nodes->n_wanted && nodes->n_jobs < 2 * n_workers) {
		struct load_job *load = xcalloc(1, sizeof(*load));

		*load = (struct load_job){
			.job = { .run = load_run, .done = load_done },
			.store = nodes->parts.store,
			.max_entries = nodes->parts.max_entries,
			.owner = nodes,
		};
		while (nodes->n_wanted && load->n < LOAD_BATCH_MAX && load->n < share) {
			load->nodes[load->n++] =
				LIST_ENTRY(list_pop(&nodes->wanted), struct node_inner, link);
			nodes->n_wanted--;
		}
		nodes->n_jobs++;
		pool_submit(nodes->queue, &load->job);
	}
}

/* ---- the slice: settle before scan before load, so that memory is given back first ---- */

static bool may_scan(const struct nodes *nodes)
{
	return !list_is_empty(&nodes->scanning) && nodes->n_blobs < BLOBS_MAX;
}

static bool nodes_step(struct slice *slice)
{
	struct nodes *nodes = CONTAINER_OF(slice, struct nodes, slice);
	struct list *l;

	if ((l = list_pop(&nodes->dying)))
		node_destroy(LIST_ENTRY(l, struct node_inner, link));
	else if ((l = list_pop(&nodes->settled)))
		settle(LIST_ENTRY(l, struct node_inner, link));
	else if (may_scan(nodes) && (l = list_pop(&nodes->scanning)))
		scan(LIST_ENTRY(l, struct node_inner, link));
	if (list_is_empty(&nodes->scanning))
		dispatch_loads(nodes);
	return !list_is_empty(&nodes->dying) || !list_is_empty(&nodes->settled) || may_scan(nodes);
}

/* ---- the whole ---- */

struct nodes *nodes_new(const struct nodes_parts *parts)
{
	struct nodes *nodes = xcalloc(1, sizeof(*nodes));

	nodes->parts = *parts;
	nodes->queue = pool_queue_new(parts->pool);
	map_init(&nodes->map);
	slice_init(&nodes->slice, nodes_step);
	list_init(&nodes->wanted);
	list_init(&nodes->scanning);
	list_init(&nodes->settled);
	list_init(&nodes->dying);
	return nodes;
}

void nodes_free(struct nodes *nodes)
{
	struct list *l;

	if (!nodes)
		return;
	while ((l = list_pop(&nodes->dying)))
		node_destroy(LIST_ENTRY(l, struct node_inner, link));
	assert(nodes->map.n == 0);
	map_fini(&nodes->map);
	list_remove(&nodes->slice.link);
	pool_queue_free(nodes->queue);
	free(nodes);
}

struct node *nodes_find(const struct nodes *nodes, const struct digest *digest)
{
	return map_find(&nodes->map, digest);
}

struct node *nodes_resolve(struct nodes *nodes, const struct digest *digest, bool recall)
{
	return &find_or_want(nodes, digest, recall)->node;
}

struct node *nodes_adopt(struct nodes *nodes, const struct digest *digest, struct directory *directory)
{
	struct node_inner *n = map_find(&nodes->map, digest);

	if (n) {
		directory_free(directory);
	} else {
		n = node_new(nodes, digest, NODE_SCANNING);
		n->recalled = true;
		start_scan(n, directory);
	}
	n->refs++;
	return &n->node;
}

bool nodes_busy(const struct nodes *nodes)
{
	return nodes->n_waiting || nodes->n_jobs || !list_is_empty(&nodes->dying);
}
