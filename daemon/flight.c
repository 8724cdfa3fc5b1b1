/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/flight.h"

#include <assert.h>

#include "common/alloc.h"
#include "common/log.h"
#include "daemon/map.h"

/* Enough to keep the workers busy while the loop is not; each has a writer, and that a buffer. */
enum { AT_WORK_MAX = 64 };

struct flight {
	struct digest key; /* first: by this it is found; see flight_key() */
	struct job job;

	/* In. */
	struct digest digest;
	enum blob_kind kind;
	bool links_used_up;
	bool is_disputed; /* the catalog has another size for this hash */
	struct blob_writer *writer;

	/* Out. */
	int r;
	struct blob_info info;
	unsigned n_changed;
	struct space_need need;
	struct err err;

	/* The loop's. */
	struct flights *flights;
	struct list waiters;
	struct list link; /* wanted */
	bool was_known;   /* the catalog had it: coming back is healing */
	bool was_doubted; /* but nobody believed that yet */
	struct room_waiter room;
};

struct flights {
	struct flights_parts parts;
	struct pool_queue *queue;
	struct map under_way[BLOB_KINDS];
	struct list wanted; /* no worker has them yet */
	size_t n_at_work;
};

struct flights *flights_new(const struct flights_parts *parts)
{
	struct flights *flights = xcalloc(1, sizeof(*flights));

	flights->parts = *parts;
	flights->queue = pool_queue_new(parts->pool);
	list_init(&flights->wanted);
	for (unsigned kind = 0; kind < BLOB_KINDS; kind++)
		map_init(&flights->under_way[kind]);
	return flights;
}

void flights_free(struct flights *flights)
{
	if (!flights)
		return;
	for (unsigned kind = 0; kind < BLOB_KINDS; kind++) {
		assert(flights->under_way[kind].n == 0);
		map_fini(&flights->under_way[kind]);
	}
	pool_queue_free(flights->queue);
	free(flights);
}

/* Who asks for the same hash with another size asks for another blob: hash and size together are the key. */
static struct digest flight_key(const struct flights *flights, const struct digest *digest,
				enum blob_kind kind)
{
	return map_key(&flights->under_way[kind], digest, digest->size);
}

size_t flights_n(const struct flights *flights)
{
	return flights->under_way[BLOB_PLAIN].n + flights->under_way[BLOB_EXEC].n;
}

/*
 * Of two sizes for one hash at most one is right, and the bytes say which: the catalog may have its size from
 * a row that was damaged. Return: as blob_renew().
 */
static int settle_size(struct flight *flight)
{
	unsigned n_changed;
	int r = blob_settle(flight->writer, &flight->digest, flight->kind, &flight->info, &flight->n_changed,
			    &flight->err);

	if (r == 0 || r == BLOB_EXISTS)
		return flight->info.digest.size == flight->digest.size ? r : BLOB_MISSING;
	if (r != BLOB_MISSING)
		return r;
	n_changed = flight->n_changed;
	r = blob_renew(flight->writer, &flight->digest, flight->kind, false, &flight->info,
		       &flight->n_changed, &flight->err);
	flight->n_changed += n_changed;
	return r;
}

/* On a worker. */
static enum job_next flight_run(struct job *job)
{
	struct flight *flight = CONTAINER_OF(job, struct flight, job);

	if (flight->is_disputed)
		flight->r = settle_size(flight);
	else
		flight->r = blob_renew(flight->writer, &flight->digest, flight->kind, flight->links_used_up,
				       &flight->info, &flight->n_changed, &flight->err);
	flight->need = blob_writer_need(flight->writer);
	return JOB_DONE;
}

/* The store has the kind now: so have the catalog and the index. */
static void note_landed(const struct flight *flight)
{
	const struct flights_parts *parts = &flight->flights->parts;
	struct catalog_entry *entry;
	struct index_batch *batch;
	struct index_blob row;
	uint64_t stale;

	if (flight->was_doubted && flight->r == BLOB_EXISTS && !flight->info.inode &&
	    catalog_confirm(parts->catalog, &flight->info, flight->kind))
		return; /* nothing is new, and to be found after a crash is no use */
	batch = index_batch_new();
	stale = catalog_drop_other_size(parts->catalog, &flight->info.digest);
	if (stale)
		index_batch_drop_blob(batch, stale);
	entry = catalog_add(parts->catalog, &flight->info, flight->kind, NULL);
	row = catalog_row_of(entry, &flight->info, flight->kind);
	index_batch_put_blob(batch, &row);
	index_submit(parts->index, batch, NULL, NULL);
	if (flight->r == BLOB_EXISTS)
		return;
	parts->counters->blob_fetches++;
	if (flight->links_used_up)
		parts->counters->inode_rotations++;
	else if (flight->was_known || flight->n_changed)
		parts->counters->healed_blobs++;
}

/* Did somebody store the kind since this began? The worker may have looked before that. */
static bool was_stored_meanwhile(const struct flight *flight)
{
	const struct catalog_entry *entry = catalog_find(flight->flights->parts.catalog, &flight->digest);

	return entry && entry->digest.size == flight->digest.size && catalog_was_stored(entry, flight->kind);
}

/* The store has the kind no more: nor have the catalog and the index. */
static void note_lost(const struct flight *flight)
{
	const struct flights_parts *parts = &flight->flights->parts;
	struct catalog_entry *entry = catalog_find(parts->catalog, &flight->digest);
	struct index_batch *batch;
	uint64_t row;

	if (!entry || !(entry->kinds & 1u << flight->kind) || entry->digest.size != flight->digest.size)
		return;
	row = entry->row;
	batch = index_batch_new();
	entry = catalog_drop(parts->catalog, entry, flight->kind);
	if (entry) {
		struct index_blob left = catalog_row(entry);

		index_batch_put_blob(batch, &left);
	} else {
		index_batch_drop_blob(batch, row);
	}
	index_submit(parts->index, batch, NULL, NULL);
}

/* Hand what is wanted to the workers, a bounded number ahead of them. */
static void hand_over(struct flights *flights)
{
	struct list *l;

	while (flights->n_at_work < AT_WORK_MAX && (l = list_pop(&flights->wanted))) {
		struct flight *flight = LIST_ENTRY(l, struct flight, link);

		flight->writer = writers_take(flights->parts.writers);
		flights->n_at_work++;
		pool_submit(flights->queue, &flight->job);
	}
}

static void land(struct flight *flight, int r)
{
	struct flights *flights = flight->flights;
	struct list *l;

	map_remove(&flights->under_way[flight->kind], &flight->key);
	while ((l = list_pop(&flight->waiters))) {
		struct flight_waiter *waiter = LIST_ENTRY(l, struct flight_waiter, link);

		waiter->landed(waiter, r, &flight->err);
	}
	free(flight);
}

static void on_room_made(struct room_waiter *waiter, int r, const struct err *err)
{
	struct flight *flight = CONTAINER_OF(waiter, struct flight, room);

	if (r < 0) {
		flight->err = *err;
		err_prefix(&flight->err, "blob %s: ", DIGEST_TEXT(&flight->digest));
		land(flight, r);
		return;
	}
	list_append(&flight->flights->wanted, &flight->link);
	hand_over(flight->flights);
}

/* Somebody wrote to what is published, or changed its mode: whose trees share it should know. */
static void note_changed(const struct flight *flight)
{
	log_warning("blob %s had changed since it was stored: %u of its files were taken out of the store",
		    DIGEST_TEXT(&flight->digest), flight->n_changed);
	flight->flights->parts.counters->tampered_blobs += flight->n_changed;
}

static void flight_done(struct job *job)
{
	struct flight *flight = CONTAINER_OF(job, struct flight, job);
	struct flights *flights = flight->flights;
	int r = flight->r == BLOB_EXISTS ? 0 : flight->r;

	if (flight->n_changed)
		note_changed(flight);
	if (r == BLOB_MISSING && was_stored_meanwhile(flight))
		r = 0;
	else if (r == 0)
		note_landed(flight);
	else if (r == BLOB_MISSING)
		note_lost(flight);
	writers_give(flights->parts.writers, flight->writer);
	flights->n_at_work--;
	hand_over(flights);
	if (r == BLOB_NO_ROOM)
		room_ask(flights->parts.room, &flight->need, 0, &flight->room);
	else
		land(flight, r);
}

static struct flight *start(struct flights *flights, const struct digest *digest, enum blob_kind kind,
			    bool links_used_up)
{
	struct catalog_entry *known = catalog_find(flights->parts.catalog, digest);
	struct flight *flight = xcalloc(1, sizeof(*flight));

	flight->key = flight_key(flights, digest, kind);
	flight->digest = *digest;
	flight->kind = kind;
	flight->links_used_up = links_used_up;
	flight->is_disputed = known && known->digest.size != digest->size;
	flight->flights = flights;
	flight->was_known = catalog_has(flights->parts.catalog, digest, kind);
	flight->was_doubted =
		flight->was_known && !(catalog_kinds(flights->parts.catalog, known) & 1u << kind);
	if (known && !flight->is_disputed) /* of those with another size the store has none */
		catalog_look(known, kind);
	flight->room.made = on_room_made;
	flight->job.run = flight_run;
	flight->job.done = flight_done;
	list_init(&flight->waiters);
	map_add(&flights->under_way[kind], &flight->key);
	list_append(&flights->wanted, &flight->link);
	hand_over(flights);
	return flight;
}

void flight_join(struct flights *flights, const struct digest *digest, enum blob_kind kind,
		 bool links_used_up, struct flight_waiter *waiter)
{
	struct digest key = flight_key(flights, digest, kind);
	struct flight *flight = map_find(&flights->under_way[kind], &key);

	if (flight)
		flights->parts.counters->blob_fetch_joins++;
	else
		flight = start(flights, digest, kind, links_used_up);
	list_append(&flight->waiters, &waiter->link);
}

void flight_leave(struct flight_waiter *waiter)
{
	list_remove(&waiter->link);
}
