/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/verify_internal.h"

#include "common/alloc.h"

enum { BLOCK = 512 }; /* the unit of st_blocks: stat(2) */

/* @stale: the row that it replaces, or 0 */
static void put_row(struct verify *verify, const struct catalog_entry *entry, uint64_t stale)
{
	struct index_batch *batch = index_batch_new();
	struct index_blob row = catalog_row(entry);

	if (stale)
		index_batch_drop_blob(batch, stale);
	index_batch_put_blob(batch, &row);
	index_submit(verify->cache->index, batch, NULL, NULL);
}

void verify_note_allocated(struct verify *verify, const struct blob_exam *exam)
{
	struct catalog_fresh now = {
		.digest = exam->digest,
		.kind = exam->kind,
		.allocated = (uint64_t)exam->st.st_blocks * BLOCK,
	};
	const struct catalog_entry *entry = catalog_correct(verify->cache->catalog, &now);

	if (entry)
		put_row(verify, entry, 0);
}

/* Its bytes have another size than the index says: so have those of its other kind. */
static void note_size(struct verify *verify, const struct blob_exam *exam)
{
	struct catalog *catalog = verify->cache->catalog;
	const struct digest right = { .size = exam->found.size };
	struct catalog_entry *entry = catalog_find(catalog, &exam->digest);
	const struct index_blob row = catalog_row(entry);
	struct blob_info info = { .digest = exam->digest };
	uint64_t stale;

	info.digest.size = right.size;
	stale = catalog_drop_other_size(catalog, &info.digest);
	for (unsigned kind = 0; kind < BLOB_KINDS; kind++) {
		info.allocated = row.allocated[kind];
		if (row.kinds & 1u << kind)
			entry = catalog_add(catalog, &info, kind, NULL);
	}
	entry->used = row.used;
	put_row(verify, entry, stale);
	verify_note_allocated(verify, exam);
}

static void give_writer(struct verify *verify)
{
	writers_give(verify->cache->writers, TAKE(verify->writer));
}

/* ---- obtained again ---- */

static const char *words_of(enum verify_kind kind, bool is_there)
{
	switch (kind) {
	case VERIFY_NO_ROW:
		return is_there ? "taken into the index" : "gone by now";
	case VERIFY_NO_FILE:
		return is_there ? "made anew from its other kind"
				: "dropped from the index: nothing here has its bytes";
	case VERIFY_MODE:
	case VERIFY_OWNER:
	case VERIFY_TIME:
		return is_there ? "replaced by a fresh file" : "taken out of the store";
	default:
		return is_there ? "taken out of the store, and made anew from its other kind"
				: "taken out of the store: nothing else here has its bytes";
	}
}

static void on_landed(struct flight_waiter *waiter, int r, const struct err *err)
{
	struct verify *verify = CONTAINER_OF(waiter, struct verify, flight);

	verify->in_flight = false;
	if (r < 0)
		verify_fault_end(verify, false, err->text);
	else
		verify_fault_end(verify, true, words_of(verify->fault.kind, r == 0));
}

/* Catalog, index and counters follow what comes of a flight. */
static void obtain(struct verify *verify, const struct digest *digest)
{
	give_writer(verify);
	verify->flight.landed = on_landed;
	verify->in_flight = true;
	flight_join(verify->cache->flights, digest, verify->patient.kind, false, &verify->flight);
}

/* ---- taken out ---- */

static void take_out(struct verify *verify)
{
	struct blob_info info;

	verify->r = blob_settle(verify->writer, &verify->patient.digest, verify->patient.kind, &info,
				&verify->n_changed, &verify->err);
	if (verify->r == 0 || verify->r == BLOB_EXISTS)
		verify->patient.digest = info.digest;
}

static void taken_out(struct verify *verify)
{
	const struct catalog_entry *entry = catalog_find(verify->cache->catalog, &verify->patient.digest);
	bool is_known = entry && entry->kinds & 1u << verify->patient.kind;

	verify->cache->counters.tampered_blobs += verify->n_changed;
	if (verify->r < 0) {
		give_writer(verify);
		verify_fault_end(verify, false, verify->err.text);
	} else if (verify->r != BLOB_MISSING) { /* right by now: it comes into catalog and index */
		obtain(verify, &verify->patient.digest);
	} else if (is_known) {
		obtain(verify, &entry->digest);
	} else {
		give_writer(verify);
		verify_fault_end(verify, true, words_of(verify->fault.kind, false));
	}
}

void verify_mend(struct verify *verify, const struct blob_exam *exam)
{
	struct digest right = exam->digest;

	right.size = exam->found.size;
	switch (verify->fault.kind) {
	case VERIFY_TYPE:
	case VERIFY_UNREADABLE:
	case VERIFY_BYTES:
		verify_submit(verify, take_out, taken_out);
		break;
	case VERIFY_NO_FILE:
		obtain(verify, &verify->fault.digest);
		break;
	case VERIFY_SIZE:
		note_size(verify, exam);
		give_writer(verify);
		verify_fault_end(verify, true, "put right in the index");
		break;
	case VERIFY_ALLOCATED:
		verify_note_allocated(verify, exam);
		give_writer(verify);
		verify_fault_end(verify, true, "put right in the index");
		break;
	default: /* its bytes are right */
		obtain(verify, &right);
		break;
	}
}
