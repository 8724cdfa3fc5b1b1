/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/verify_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "common/alloc.h"

enum {
	TURN_NS = 2000000,           /* of a worker: then others may want it */
	TURN_BYTES_MIN = 256 * 1024, /* read in a turn, however low the rate is */
	RATE_TURNS = 20,             /* that a second has, where the rate is what bounds it */
	FANOUTS = 256,
	FOLDERS = FANOUTS * BLOB_KINDS,
	BLOCK = 512, /* the unit of st_blocks: stat(2) */
};

static void suspect(struct verify_suspects *suspects, const struct digest *digest, enum blob_kind kind)
{
	suspects->items = xgrow(suspects->items, suspects->n, &suspects->capacity, sizeof(*suspects->items));
	suspects->items[suspects->n++] = (struct verify_suspect){ *digest, kind };
}

/* ---- rows: has every blob of the catalog its file? ---- */

static void look_for_files(struct verify *verify)
{
	struct verify_look *look = &verify->look;

	for (size_t i = 0; i < look->n; i++)
		look->missing[i] = blob_stat(verify->cache->store, &look->items[i].digest,
					     look->items[i].kind, NULL, NULL) == BLOB_MISSING;
}

static void files_looked_for(struct verify *verify)
{
	struct verify_look *look = &verify->look;

	for (size_t i = 0; i < look->n; i++)
		if (look->missing[i])
			suspect(&verify->suspects, &look->items[i].digest, look->items[i].kind);
	look->n = 0;
	verify_go_on(verify);
}

static void add_item(struct verify_look *look, const struct digest *digest, enum blob_kind kind)
{
	look->items = xgrow(look->items, look->n, &look->capacity, sizeof(*look->items));
	look->items[look->n++] = (struct verify_suspect){ *digest, kind };
}

enum verify_next verify_rows_next(struct verify *verify)
{
	const struct catalog *catalog = verify->cache->catalog;
	struct verify_look *look = &verify->look;

	for (unsigned i = 0; i < VERIFY_STEP && !catalog_walk_is_over(catalog, &look->blobs); i++) {
		const struct catalog_entry *entry = catalog_walk_step(catalog, &look->blobs);

		for (unsigned kind = 0; entry && kind < BLOB_KINDS; kind++) {
			if (!(entry->kinds & 1u << kind))
				continue;
			add_item(look, &entry->digest, kind);
			verify->call->files_total++;
			verify->call->bytes_total += entry->digest.size;
		}
	}
	if (look->n < VERIFY_TURN_ROWS - VERIFY_STEP * BLOB_KINDS &&
	    !catalog_walk_is_over(catalog, &look->blobs))
		return VERIFY_MORE;
	if (!look->n)
		return VERIFY_OVER;
	verify_submit(verify, look_for_files, files_looked_for);
	return VERIFY_BUSY;
}

/* ---- on a worker: examine files, for a turn ---- */

/* Begin with the next item. Return: is one open? */
static bool begin_exam(struct verify *verify)
{
	struct verify_look *look = &verify->look;
	const struct verify_suspect *item = &look->items[look->next++];

	look->exam = (struct blob_exam){
		.writer = verify->writer,
		.hasher = verify->hasher,
		.digest = item->digest,
		.kind = item->kind,
		.fd = -1,
	};
	look->seen[look->n_seen].r = blob_exam_begin(&look->exam, look->again, &verify->err);
	look->in_exam = look->seen[look->n_seen].r == 0;
	if (!look->in_exam)
		look->seen[look->n_seen++].exam = look->exam;
	return look->in_exam;
}

static void exam_step(struct verify_look *look)
{
	uint64_t before = look->exam.found.size;

	look->in_exam = blob_exam_step(&look->exam);
	look->n_bytes += look->exam.found.size - before;
	if (look->in_exam)
		return;
	blob_exam_end(&look->exam);
	look->seen[look->n_seen].r = 0;
	look->seen[look->n_seen++].exam = look->exam;
}

static void examine(struct verify *verify)
{
	struct verify_look *look = &verify->look;
	uint64_t end = slice_now_ns() + TURN_NS;

	if (!verify->hasher)
		verify->hasher = hasher_new();
	look->n_bytes = look->n_seen = 0;
	while (look->n_seen < VERIFY_TURN_FILES && (look->in_exam || look->next < look->n)) {
		if (look->in_exam || begin_exam(verify))
			exam_step(look);
		if (look->n_bytes >= look->most || slice_now_ns() >= end || pool_others_wait(verify->queue))
			break;
	}
}

/* ---- on the loop ---- */

/* Until when the bytes of the last turn last, at this rate. */
static void note_rate(struct verify *verify)
{
	struct verify_look *look = &verify->look;
	uint64_t now = slice_now_ns();

	if (!verify->call->rate)
		return;
	if (look->may_read_ns < now)
		look->may_read_ns = now;
	look->may_read_ns += (uint64_t)((double)look->n_bytes * 1e9 / (double)verify->call->rate);
}

/* Begin a turn, or wait until there may be one. */
static void begin_turn(struct verify *verify, void (*then)(struct verify *verify))
{
	struct verify_look *look = &verify->look;
	uint64_t now = slice_now_ns(), share = verify->call->rate / RATE_TURNS;

	if (verify->call->rate && look->may_read_ns > now) {
		verify_go_on_after(verify, look->may_read_ns - now);
		return;
	}
	look->most = !verify->call->rate ? UINT64_MAX : share > TURN_BYTES_MIN ? share : TURN_BYTES_MIN;
	if (!verify->writer)
		verify->writer = writers_take(verify->cache->writers);
	verify_submit(verify, examine, then);
}

/* What its file takes by now. Only what the index said at the start, and was settled then, can be wrong. */
static bool is_allocated_wrong(struct verify *verify, const struct catalog_entry *entry,
			       const struct blob_exam *exam)
{
	uint64_t allocated = (uint64_t)exam->st.st_blocks * BLOCK;
	const struct index_blob row = catalog_row(entry);

	if (row.allocated[exam->kind] == allocated)
		return false;
	if (!(entry->seen & 1u << exam->kind))
		return true;
	verify_note_allocated(verify, exam);
	return false;
}

/* Return: the kind of its fault, or -1. */
static int judge(struct verify *verify, int r, const struct blob_exam *exam)
{
	static const enum verify_kind flaws[] = {
		[BLOB_IS_NO_FILE] = VERIFY_TYPE,       [BLOB_IS_UNREADABLE] = VERIFY_UNREADABLE,
		[BLOB_HAS_OTHER_BYTES] = VERIFY_BYTES, [BLOB_HAS_OTHER_MODE] = VERIFY_MODE,
		[BLOB_HAS_OTHER_OWNER] = VERIFY_OWNER, [BLOB_HAS_OTHER_TIME] = VERIFY_TIME,
	};
	const struct catalog_entry *entry = catalog_find(verify->cache->catalog, &exam->digest);
	bool is_known = entry && entry->kinds & 1u << exam->kind;

	if (r == BLOB_MISSING)
		return is_known ? VERIFY_NO_FILE : -1;
	if (exam->flaw != BLOB_FINE)
		return flaws[exam->flaw];
	if (!is_known)
		return VERIFY_NO_ROW;
	if (entry->digest.size != exam->found.size)
		return VERIFY_SIZE;
	return is_allocated_wrong(verify, entry, exam) ? (int)VERIFY_ALLOCATED : -1;
}

/* One of its links is its name in the store; all others were handed out. */
static void note_file(struct verify *verify, const struct stat *st)
{
	verify->call->files++;
	verify->call->links += S_ISREG(st->st_mode) ? (uint64_t)st->st_nlink - 1 : 0;
}

static void examined(struct verify *verify)
{
	struct verify_look *look = &verify->look;

	note_rate(verify);
	verify->call->bytes += look->n_bytes;
	for (size_t i = 0; i < look->n_seen && !verify_failed(verify, look->seen[i].r); i++) {
		const struct blob_exam *exam = &look->seen[i].exam;

		if (judge(verify, look->seen[i].r, exam) >= 0)
			suspect(&verify->suspects, &exam->digest, exam->kind);
		if (look->seen[i].r == 0)
			note_file(verify, &exam->st);
	}
	verify_go_on(verify);
}

/* ---- files ---- */

static void on_name(void *ctx, const struct blob_name_found *found)
{
	struct verify *verify = ctx;
	struct verify_look *look = &verify->look;
	struct digest digest = { 0 };

	if (found->hash) {
		memcpy(digest.hash, found->hash, sizeof(digest.hash));
		add_item(look, &digest, look->folder / FANOUTS);
		return;
	}
	verify_name_add(verify, VERIFY_STRANGER,
			xasprintf("%s/%02x/%s", blob_kind_name(look->folder / FANOUTS),
				  look->folder % FANOUTS, found->name),
			xstrdup("the hash of a blob"), xstrdup("another name"));
}

static void list_folder(struct verify *verify)
{
	struct verify_look *look = &verify->look;

	verify->r = blob_list(verify->cache->store, look->folder / FANOUTS, look->folder % FANOUTS, on_name,
			      verify, &verify->err);
}

static void folder_listed(struct verify *verify)
{
	verify->look.folder++;
	(void)verify_failed(verify, verify->r);
	verify_go_on(verify);
}

enum verify_next verify_files_next(struct verify *verify)
{
	struct verify_look *look = &verify->look;

	if (look->in_exam || look->next < look->n) {
		begin_turn(verify, examined);
		return VERIFY_BUSY;
	}
	if (verify_report_name(verify))
		return VERIFY_BUSY;
	if (look->folder == FOLDERS)
		return VERIFY_OVER;
	look->n = look->next = 0;
	verify_submit(verify, list_folder, folder_listed);
	return VERIFY_BUSY;
}

/* ---- looking again ---- */

/* Begin the fault. */
static void describe(struct verify *verify, enum verify_kind kind, const struct blob_exam *exam)
{
	const struct catalog_entry *entry = catalog_find(verify->cache->catalog, &exam->digest);
	struct digest digest = exam->digest;
	char path[BLOB_PATH_SIZE];
	char *words[2];

	digest.size = entry ? entry->digest.size : exam->found.size;
	blob_print_path(&digest, exam->kind, path);
	verify_describe(verify, kind, entry, exam, words);
	verify_fault_set(verify, kind, &digest, xstrdup(path), words[0], words[1]);
}

/* Does the catalog speak against it, rather than the file itself? */
static bool is_relative(enum verify_kind kind)
{
	return kind == VERIFY_NO_FILE || kind == VERIFY_NO_ROW || kind == VERIFY_SIZE ||
	       kind == VERIFY_ALLOCATED;
}

static void give_writer(struct verify *verify)
{
	writers_give(verify->cache->writers, TAKE(verify->writer));
}

/* The second look is over, and the blob still claimed. */
static void judge_again(struct verify *verify)
{
	const struct verify_look *look = &verify->look;
	const struct blob_exam *exam = &look->seen[0].exam;
	int kind = judge(verify, look->seen[0].r, exam);

	if (kind >= 0 && is_relative(kind) && !claims_is_sole(verify->cache->claims, &exam->digest)) {
		give_writer(verify);
		suspect(&verify->later, &exam->digest, exam->kind);
		verify_go_on(verify);
		return;
	}
	if (kind < 0) {
		give_writer(verify);
		verify_go_on(verify);
		return;
	}
	describe(verify, kind, exam);
	if (verify->call->repair) {
		verify_mend(verify, exam);
		return;
	}
	give_writer(verify);
	verify_fault_end(verify, false, NULL);
}

static void examined_again(struct verify *verify);

static bool go_on_again(struct verify *verify)
{
	begin_turn(verify, examined_again);
	return true;
}

/* The item stands for one alone; the folder's are kept aside. */
static void end_again(struct verify *verify)
{
	struct verify_look *look = &verify->look;

	look->again = false;
	look->items = verify->kept.items;
	look->n = verify->kept.n;
	look->capacity = verify->kept.capacity;
	look->next = verify->kept_next;
}

static void examined_again(struct verify *verify)
{
	struct verify_look *look = &verify->look;

	note_rate(verify);
	if (!look->n_seen) { /* the turn was over before the file was */
		verify_go_on(verify);
		return;
	}
	end_again(verify);
	if (verify_failed(verify, look->seen[0].r))
		verify_go_on(verify);
	else
		judge_again(verify);
}

static void begin_again(struct verify *verify, const struct verify_suspect *suspect)
{
	struct verify_look *look = &verify->look;

	verify->patient = *suspect;
	verify->kept = (struct verify_suspects){ look->items, look->n, look->capacity };
	verify->kept_next = look->next;
	look->items = &verify->patient;
	look->n = 1;
	look->capacity = look->next = 0;
	look->again = true;
}

bool verify_look_again(struct verify *verify)
{
	struct verify_look *look = &verify->look;
	struct verify_suspects *suspects = &verify->suspects;

	if (look->again)
		return go_on_again(verify);
	while (suspects->n && !look->in_exam) {
		struct verify_suspect next = suspects->items[--suspects->n];

		if (claims_has(verify->cache->claims, &next.digest)) {
			suspect(&verify->later, &next.digest, next.kind);
			continue;
		}
		begin_again(verify, &next);
		return go_on_again(verify);
	}
	return false;
}
