/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/cache.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>

#include "common/alloc.h"
#include "common/log.h"
#include "common/path.h"
#include "daemon/disk.h"
#include "daemon/lap.h"
#include "daemon/reserve.h"

enum {
	LOAD_STEP = 32, /* trees taken in between two looks at the clock */
	TAGS_TOLD = 5,  /* in the log, each by itself, of those that were damaged */
};

/* ---- open ---- */

/* One daemon for a store: the lock is on a file in it, which names the holder. */
static int lock_store(struct cache *cache, struct err *err)
{
	char pid[32] = "";
	int r;

	cache->lock_fd = disk_openat(cache->store_fd, "lock", O_RDWR | O_CREAT | O_NOFOLLOW, 0600);
	if (cache->lock_fd < 0)
		return err_errno(err, cache->lock_fd, "opening the lock of the store '%s'",
				 cache->config.store);
	r = disk_flock(cache->lock_fd, LOCK_EX | LOCK_NB);
	if (r == -EWOULDBLOCK) {
		(void)disk_pread(cache->lock_fd, pid, sizeof(pid) - 1, 0);
		pid[strcspn(pid, " \n")] = '\0';
		err_set(err, ERR_FAILED_PRECONDITION,
			"the store '%s' is in use by another dircached, process %s", cache->config.store,
			*pid ? pid : "unknown");
		return r;
	}
	return r < 0 ? err_errno(err, r, "locking the store '%s'", cache->config.store) : 0;
}

/* Of one length, so that it needs no new block where the disk is full; and only a courtesy. */
static void name_holder(struct cache *cache)
{
	char pid[32];

	(void)snprintf(pid, sizeof(pid), "%-10d\n", (int)getpid());
	(void)disk_write_full(cache->lock_fd, pid, strlen(pid));
}

static int open_blobs(struct cache *cache, struct err *err)
{
	cache->store = blob_store_open(cache->store_fd, err);
	/* A file is made there and deleted; on a full disk the reserve has an inode to give, too. */
	if (!cache->store && err->code == ERR_NO_SPACE && reserve_give_up(cache->store_fd)) {
		err_clear(err);
		cache->store = blob_store_open(cache->store_fd, err);
	}
	return cache->store ? 0 : -EIO;
}

static int open_store(struct cache *cache, struct err *err)
{
	const char *path = cache->config.store;
	int r = path_make_folders(path, 0711, err);

	if (r < 0)
		return r;
	cache->store_fd = disk_openat(AT_FDCWD, path, O_RDONLY | O_DIRECTORY, 0);
	if (cache->store_fd < 0)
		return err_errno(err, cache->store_fd, "opening the store '%s'", path);
	if ((r = lock_store(cache, err)) < 0 || (r = index_check_version(cache->store_fd, err)) < 0)
		return r;
	name_holder(cache);
	if ((r = open_blobs(cache, err)) < 0)
		return r;
	if ((r = blob_store_is_empty(cache->store, err)) < 0)
		return r;
	cache->is_empty = r;
	blob_store_guard(cache->store, cache->space, cache->claims);
	cache->staging = staging_open(cache->store_fd, err);
	if (!cache->staging)
		return -EIO;
	cache->mount = mount_open(cache->store_fd, err);
	return cache->mount ? 0 : -EIO;
}

static size_t n_cpus(void)
{
	cpu_set_t set;

	return sched_getaffinity(0, sizeof(set), &set) == 0 ? (size_t)CPU_COUNT(&set) : 1;
}

static void make_evict(struct cache *cache)
{
	cache->uses = uses_new(cache->base, cache->catalog, cache->index);
	cache->usage = usage_new(&(struct usage_parts){
		.pool = cache->pool,
		.slicer = cache->slicer,
		.store = cache->store,
		.catalog = cache->catalog,
		.index = cache->index,
		.store_fd = cache->store_fd,
	});
	cache->evict = evict_new(&(struct evict_parts){
		.base = cache->base,
		.pool = cache->pool,
		.slicer = cache->slicer,
		.store = cache->store,
		.claims = cache->claims,
		.space = cache->space,
		.usage = cache->usage,
		.catalog = cache->catalog,
		.index = cache->index,
		.nodes = cache->nodes,
		.trees = cache->trees,
		.tags = cache->tags,
		.counters = &cache->counters,
	});
}

static void make_room(void *ctx, uint64_t need, struct room_waiter *waiter)
{
	struct cache *cache = ctx;

	evict_make_room(cache->evict, need, waiter);
}

static void make_maps(struct cache *cache)
{
	cache->chores = pool_queue_new(cache->pool);
	cache->slicer = slicer_new(cache->base);
	cache->catalog = catalog_new();
	cache->writers = writers_new(&(struct writers_parts){
		.store = cache->store,
		.catalog = cache->catalog,
		.space = cache->space,
	});
	cache->room = (struct room){ .space = cache->space, .make = make_room, .ctx = cache };
	cache->flights = flights_new(&(struct flights_parts){
		.pool = cache->pool,
		.writers = cache->writers,
		.room = &cache->room,
		.catalog = cache->catalog,
		.index = cache->index,
		.counters = &cache->counters,
	});
	cache->nodes = nodes_new(&(struct nodes_parts){
		.pool = cache->pool,
		.store = cache->store,
		.catalog = cache->catalog,
		.flights = cache->flights,
		.slicer = cache->slicer,
		.counters = &cache->counters,
		.max_entries = cache->config.limits.entries,
	});
	cache->trees = trees_new(&(struct trees_parts){
		.base = cache->base,
		.nodes = cache->nodes,
		.catalog = cache->catalog,
		.index = cache->index,
		.slicer = cache->slicer,
		.counters = &cache->counters,
		.limits = cache->config.limits,
		.node_memory = cache->config.node_memory,
	});
	cache->leases = leases_new(cache->base, cache->trees, cache->config.user.leases);
	cache->tags = tags_new(cache->pool, cache->index, cache->store_fd, cache->config.user.tags);
	make_evict(cache);
}

static int make_syncer(struct cache *cache, struct err *err)
{
	cache->syncer = syncer_new(&(struct syncer_parts){
		.base = cache->base,
		.store_fd = cache->store_fd,
		.store = cache->store,
		.catalog = cache->catalog,
		.index = cache->index,
	});
	return cache->syncer ? 0 : err_errno(err, -errno, "starting the worker that syncs");
}

int cache_open(struct cache *cache, struct event_base *base, const struct cache_config *config,
	       struct err *err)
{
	size_t cpus = n_cpus();
	int r;

	*cache = (struct cache){ .base = base, .config = *config, .store_fd = -1, .lock_fd = -1 };
	cache->started_ns = slice_now_ns();
	cache->space = space_new(&config->space);
	cache->claims = claims_new();
	if ((r = open_store(cache, err)) < 0)
		return r;
	cache->n_hands = cpus < config->n_workers ? cpus : config->n_workers;
	cache->pool = pool_new(base, config->n_workers + config->n_spare, "dircached-work");
	if (!cache->pool)
		return err_errno(err, -errno, "starting %zu workers", config->n_workers);
	cache->index = index_new(base, config->store);
	if (!cache->index)
		return err_errno(err, -errno, "starting the index's worker");
	make_maps(cache);
	return make_syncer(cache, err);
}

/* ---- load ---- */

/* On the lane, as all of the sink: nobody else knows of what it fills yet. */
static void sink_begin(void *ctx, const struct index_loaded *loaded)
{
	struct cache *cache = ctx;
	struct err err = { 0 };

	cache->load_synced = loaded->is_doubtful ? loaded->synced : UINT64_MAX;
	cache->load_clean = loaded->was_clean;
	cache->suspects.n = 0;
	cache->n_loaded_blobs = 0;
	index_batch_free(cache->rows_to_mend);
	cache->rows_to_mend = index_batch_new();
	cache->vouchers.n = 0;
	cache->n_loaded_trees = 0;
	catalog_begin(cache->catalog, loaded->n_blobs);
	tags_clear(cache->tags);
	if (loaded->is_new && tags_read_back(cache->tags, &err) < 0)
		log_warning("%s", err.text);
}

static void suspect(struct suspects *suspects, const struct index_blob *blob)
{
	suspects->rows = xgrow(suspects->rows, suspects->n, &suspects->capacity, sizeof(*blob));
	suspects->rows[suspects->n++] = *blob;
}

/* Its row is older than what was synced: its bytes are on the disk, if it is still that inode. */
static void vouch(struct blob_vouchers *vouchers, const struct index_blob *blob)
{
	struct blob_voucher *voucher;

	vouchers->items = xgrow(vouchers->items, vouchers->n, &vouchers->capacity, sizeof(*vouchers->items));
	voucher = &vouchers->items[vouchers->n++];
	memcpy(voucher->hash, blob->digest.hash, DIGEST_HASH_SIZE);
	for (unsigned kind = 0; kind < BLOB_KINDS; kind++)
		voucher->inodes[kind] = blob->kinds & 1u << kind ? blob->inodes[kind] : 0;
}

static void load_blob(struct cache *cache, const struct index_blob *blob)
{
	uint64_t stale = catalog_load(cache->catalog, blob);

	if (stale)
		index_batch_drop_blob(cache->rows_to_mend, stale);
	if (cache->load_synced != UINT64_MAX)
		vouch(&cache->vouchers, blob);
}

static bool sink_blob(void *ctx, const struct index_blob *blob)
{
	struct cache *cache = ctx;
	struct index_blob *slot = &cache->ahead[cache->n_loaded_blobs % CACHE_LOAD_AHEAD];

	if (blob->used >= cache->load_synced) {
		catalog_tick_seen(cache->catalog, blob->used);
		catalog_row_seen(cache->catalog, blob->row);
		suspect(&cache->suspects, blob);
		return true;
	}
	if (cache->n_loaded_blobs++ >= CACHE_LOAD_AHEAD)
		load_blob(cache, slot);
	*slot = *blob;
	catalog_expect(cache->catalog, &blob->digest);
	return true;
}

static void load_rest(struct cache *cache)
{
	size_t n = cache->n_loaded_blobs < CACHE_LOAD_AHEAD ? cache->n_loaded_blobs : CACHE_LOAD_AHEAD;

	for (size_t i = cache->n_loaded_blobs - n; i < cache->n_loaded_blobs; i++)
		load_blob(cache, &cache->ahead[i % CACHE_LOAD_AHEAD]);
}

static bool sink_tree(void *ctx, const struct index_tree *tree)
{
	struct cache *cache = ctx;

	cache->loaded_trees = xgrow(cache->loaded_trees, cache->n_loaded_trees, &cache->loaded_trees_capacity,
				    sizeof(*tree));
	cache->loaded_trees[cache->n_loaded_trees++] = *tree;
	return true;
}

static bool sink_tag(void *ctx, const struct index_tag *tag)
{
	struct cache *cache = ctx;

	return tags_load(cache->tags, tag);
}

static char *words_of_tag(const struct index_tag *tag)
{
	return tag ? xasprintf("%s of user %u", DIGEST_TEXT(&tag->digest), (unsigned)tag->uid)
		   : xstrdup("nothing");
}

static void on_tag_differs(void *ctx, const struct index_tag *index, const struct index_tag *file)
{
	AUTO_FREE char *said = words_of_tag(index), *right = words_of_tag(file);
	struct cache *cache = ctx;

	if (cache->n_tags_differ++ < TAGS_TOLD)
		log_warning("tag '%s': the index says %s, the file 'tags', whose sum is right, %s",
			    index ? index->name : file->name, said, right);
}

static void sink_end(void *ctx)
{
	struct cache *cache = ctx;

	cache->n_tags_differ = 0;
	if (cache->load_clean)
		tags_settle(cache->tags, cache->rows_to_mend, on_tag_differs, cache);
	if (cache->n_tags_differ)
		log_warning(
			"%zu tags of the index were damaged since the last stop, and are taken from the file",
			cache->n_tags_differ);
}

static int by_use(const void *a, const void *b)
{
	const struct index_tree *x = a, *y = b;

	return (x->used < y->used) - (x->used > y->used);
}

/* Some of the trees that the index had, the last used first; then the cache is ready. */
static bool load_step(struct slice *slice)
{
	struct cache *cache = CONTAINER_OF(slice, struct cache, load_slice);

	for (unsigned i = 0; i < LOAD_STEP; i++) {
		if (trees_n(cache->trees) == cache->n_loaded_trees) {
			free(TAKE(cache->loaded_trees));
			cache->loading = false;
			cache->ready = true;
			space_set_used(cache->space, catalog_totals(cache->catalog).allocated);
			if (cache->stopping)
				trees_stop_warming(cache->trees);
			trees_warm(cache->trees);
			evict_start(cache->evict, cache->was_clean);
			cache->loaded(cache->loaded_ctx, 0, NULL);
			return false;
		}
		tree_load(cache->trees, &cache->loaded_trees[trees_n(cache->trees)]);
	}
	return true;
}

/* A new store: index and files agree, as there are none. */
static bool is_new_store(const struct cache *cache, const struct index_loaded *loaded)
{
	return loaded->is_new && cache->is_empty;
}

/* Nothing has to be compared, by this start or the next. */
static void settle_new_store(struct cache *cache)
{
	struct index_batch *batch = index_batch_new();

	index_batch_settled(batch);
	index_submit(cache->index, batch, NULL, NULL);
}

/* Say what the last stop was, and believe no file that may have lost its bytes. */
static void begin_doubt(struct cache *cache, const struct index_loaded *loaded)
{
	if (loaded->damage.set)
		log_error("%s; it is set aside as '%s'", loaded->damage.text, loaded->aside);
	if (loaded->is_new)
		tags_keep(cache->tags);
	if (is_new_store(cache, loaded))
		settle_new_store(cache);
	if (!loaded->is_doubtful || cache->is_empty)
		return;
	if (loaded->is_new)
		log_warning("the store has no index: blobs are looked up in it, and hashed before they are "
			    "used, until all are; tags are read back (%zu), and other trees than theirs are "
			    "resolved again",
			    tags_n(cache->tags));
	else
		log_warning(
			"the machine has crashed: %zu blobs that may not have reached the disk, and those "
			"that are not the files that the index has, are hashed before they are used",
			cache->suspects.n);
	blob_store_doubt(cache->store, &cache->vouchers);
	catalog_doubt(cache->catalog, true);
}

static bool is_here(void *ctx, const struct digest *digest)
{
	const struct cache *cache = ctx;

	return catalog_names(cache->catalog, digest);
}

/* Not after a crash of the machine: then the file may be the older one. */
static void restore_tags(struct cache *cache, const struct index_loaded *loaded)
{
	struct err err = { 0 };
	size_t n;

	if (loaded->is_new || loaded->is_doubtful)
		return;
	if (tags_restore(cache->tags, is_here, cache, &n, &err) < 0)
		log_warning("%s", err.text);
	else if (n)
		log_warning(
			"%zu tags named nothing, by rows of the index that are damaged: they name again what "
			"the file 'tags' says",
			n);
}

static void on_tags_compared(void *ctx, int r, const struct err *err)
{
	(void)ctx;
	if (r < 0)
		log_warning("%s", err->text);
	else if (r == TAGS_DIFFERED)
		log_info("after an unclean stop: wrote the file 'tags' anew");
}

static void on_index_loaded(void *ctx, int r, const struct index_loaded *loaded, const struct err *err)
{
	struct cache *cache = ctx;

	if (r < 0) {
		cache->loading = false;
		cache->loaded(cache->loaded_ctx, r, err);
		return;
	}
	load_rest(cache);
	if (cache->n_loaded_trees)
		qsort(cache->loaded_trees, cache->n_loaded_trees, sizeof(*cache->loaded_trees), by_use);
	begin_doubt(cache, loaded);
	restore_tags(cache, loaded);
	index_submit(cache->index, TAKE(cache->rows_to_mend), NULL, NULL);
	cache->was_clean = loaded->was_clean || cache->is_empty;
	cache->recovery = recovery_start(
		&(struct recovery_parts){
			.pool = cache->pool,
			.slicer = cache->slicer,
			.store = cache->store,
			.staging = cache->staging,
			.writers = cache->writers,
			.claims = cache->claims,
			.catalog = cache->catalog,
			.tags = cache->tags,
			.index = cache->index,
			.counters = &cache->counters,
		},
		!loaded->was_clean && !is_new_store(cache, loaded), &cache->suspects);
	/* A kill between the commit of a tag and its file; where the index is new, the file has the last
	 * word. */
	if (!loaded->was_clean && !loaded->is_new)
		tags_compare_file(cache->tags, true, on_tags_compared, NULL);
	syncer_start(cache->syncer, loaded->was_clean);
	if (cache->stopping)
		recovery_stop(cache->recovery);
	slice_init(&cache->load_slice, load_step);
	slice_start(cache->slicer, &cache->load_slice);
}

void cache_load(struct cache *cache, void (*loaded)(void *ctx, int r, const struct err *err), void *ctx)
{
	cache->sink = (struct index_sink){ .begin = sink_begin,
					   .blob = sink_blob,
					   .tree = sink_tree,
					   .tag = sink_tag,
					   .end = sink_end,
					   .ctx = cache };
	cache->loaded = loaded;
	cache->loaded_ctx = ctx;
	cache->loading = true;
	index_load(cache->index, &cache->sink, on_index_loaded, cache);
}

/* ---- stop and close ---- */

void cache_stop(struct cache *cache)
{
	cache->stopping = true;
	trees_stop_warming(cache->trees);
	evict_stop(cache->evict);
	if (cache->recovery)
		recovery_stop(cache->recovery);
	trees_flush(cache->trees);
	uses_flush(cache->uses);
	syncer_stop(cache->syncer);
}

bool cache_busy(const struct cache *cache)
{
	return cache->loading || cache->n_ending || cache->verify ||
	       (cache->ready && trees_busy(cache->trees)) || nodes_busy(cache->nodes) ||
	       flights_n(cache->flights) || evict_is_busy(cache->evict) || syncer_is_busy(cache->syncer) ||
	       pool_n_jobs(cache->pool) || index_n_pending(cache->index) ||
	       (cache->recovery && !recovery_is_done(cache->recovery));
}

/* Are index and files in order, and all of both on the disk for good? */
static bool is_clean(struct cache *cache)
{
	struct err err = { 0 };

	if (!cache->ready || !recovery_is_whole(cache->recovery) || !evict_is_settled(cache->evict) ||
	    tags_file_is_behind(cache->tags))
		return false;
	if (syncer_finish(cache->syncer, &err) == 0)
		return true;
	log_warning("%s", err.text);
	return false;
}

void cache_close(struct cache *cache)
{
	bool clean;

	if (cache->trees)
		trees_flush(cache->trees); /* uses since the last time */
	if (cache->uses)
		uses_flush(cache->uses);
	clean = is_clean(cache);
	if (clean)
		usage_settle(cache->usage); /* all bytes are on the disk now */
	evict_free(cache->evict);
	usage_free(cache->usage);
	uses_free(cache->uses);
	syncer_free(cache->syncer);
	tags_free(cache->tags);
	leases_free(cache->leases);
	trees_free(cache->trees);
	nodes_free(cache->nodes);
	flights_free(cache->flights);
	recovery_free(cache->recovery);
	writers_free(cache->writers);
	index_free(cache->index, clean);
	catalog_free(cache->catalog);
	slicer_free(cache->slicer);
	pool_free(cache->pool); /* the last connections left descriptors to be closed */
	pool_queue_free(cache->chores);
	mount_free(cache->mount);
	staging_free(cache->staging);
	blob_store_close(cache->store);
	claims_free(cache->claims);
	space_free(cache->space);
	free(cache->loaded_trees);
	free(cache->suspects.rows);
	index_batch_free(cache->rows_to_mend);
	free(cache->vouchers.items);
	disk_close(cache->lock_fd);
	disk_close(cache->store_fd);
}

/* ---- chores ---- */

const struct counters *cache_count(struct cache *cache)
{
	struct catalog_totals totals = { 0 };
	uint64_t allocated = 0;

	/* Before it is ready the index's lane has the catalog. */
	if (cache->ready) {
		totals = catalog_totals(cache->catalog);
		allocated = evict_allocated(cache->evict);
	}
	cache->counters.blobs = totals.n_blobs;
	cache->counters.blob_bytes = totals.bytes;
	cache->counters.allocated_bytes = allocated;
	cache->counters.nodes = nodes_n(cache->nodes);
	cache->counters.node_bytes = nodes_memory(cache->nodes);
	cache->counters.trees = trees_n(cache->trees);
	cache->counters.tags = cache->ready ? tags_n(cache->tags) : 0;
	cache->counters.leases = leases_n(cache->leases);
	cache->counters.loop_longest_us = lap_longest_ns() / 1000;
	cache->counters.loop_longest_cpu_us = lap_longest_cpu_ns() / 1000;
	cache->counters.constructions_active = nodes_n_under_way(cache->nodes);
	cache->counters.fetches_active = flights_n(cache->flights);
	cache->counters.uptime_seconds = (slice_now_ns() - cache->started_ns) / 1000000000u;
	return &cache->counters;
}
