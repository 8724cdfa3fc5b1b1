/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/verify.h"

#include <errno.h>
#include <event2/event.h>

#include "common/alloc.h"
#include "common/log.h"
#include "daemon/verify_internal.h"

enum {
	WAIT_NS = 20000000,  /* until it is looked again at what says no word when it is done */
	LATER_NS = 20000000, /* until a blob that somebody else is at is looked at again */
};

const char *verify_kind_word(enum verify_kind kind)
{
	static const char *const words[] = {
#define WORD(name, word, what) [name] = (word),
		VERIFY_KINDS(WORD)
#undef WORD
	};

	return words[kind];
}

/* ---- faults ---- */

static void fault_fini(struct verify_fault *fault)
{
	free(fault->name);
	free(fault->expected);
	free(fault->found);
	free(fault->repair);
}

void verify_fault_set(struct verify *verify, enum verify_kind kind, const struct digest *digest, char *name,
		      char *expected, char *found)
{
	verify->fault = (struct verify_fault){
		.kind = kind,
		.has_digest = digest,
		.name = name,
		.expected = expected,
		.found = found,
	};
	if (digest)
		verify->fault.digest = *digest;
}

void verify_fault_end(struct verify *verify, bool repaired, const char *repair)
{
	struct verify_call *call = verify->call;
	struct verify_fault *fault = &verify->fault;

	fault->repaired = repaired;
	fault->repair = repair ? xstrdup(repair) : NULL;
	call->n_faults++;
	call->n_repaired += repaired;
	if (call->n_listed < call->max_faults) {
		call->faults = xgrow(call->faults, call->n_listed, &call->capacity, sizeof(*call->faults));
		call->faults[call->n_listed++] = *fault;
	} else {
		fault_fini(fault);
	}
	*fault = (struct verify_fault){ 0 };
	verify_go_on(verify);
}

void verify_fini(struct verify_call *call)
{
	for (size_t i = 0; i < call->n_listed; i++)
		fault_fini(&call->faults[i]);
	free(call->faults);
	call->faults = NULL;
	call->n_listed = call->capacity = 0;
}

/* ---- one thing at a time ---- */

void verify_go_on(struct verify *verify)
{
	slice_start(verify->cache->slicer, &verify->slice);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct verify *verify = arg;

	(void)fd;
	(void)what;
	verify->is_waiting = false;
	verify_go_on(verify);
}

void verify_go_on_after(struct verify *verify, uint64_t ns)
{
	const struct timeval time = {
		.tv_sec = (time_t)(ns / 1000000000),
		.tv_usec = (suseconds_t)(ns % 1000000000 / 1000),
	};

	verify->is_waiting = true;
	(void)evtimer_add(verify->timer, &time);
}

bool verify_failed(struct verify *verify, int r)
{
	if (r >= 0)
		return false;
	verify->call->r = r;
	verify->call->err = verify->err;
	return true;
}

static enum job_next verify_run(struct job *job)
{
	struct verify *verify = CONTAINER_OF(job, struct verify, job);

	verify->work(verify);
	return JOB_DONE;
}

static void verify_done(struct job *job)
{
	struct verify *verify = CONTAINER_OF(job, struct verify, job);

	verify->then(verify);
}

void verify_submit(struct verify *verify, void (*work)(struct verify *verify),
		   void (*then)(struct verify *verify))
{
	verify->work = work;
	verify->then = then;
	verify->r = 0;
	err_clear(&verify->err);
	pool_submit(verify->queue, &verify->job);
}

/* ---- phases ---- */

/* Until this is done, index, catalog and files may differ, and nobody is to blame. */
static enum verify_next wait_next(struct verify *verify)
{
	const struct cache *cache = verify->cache;

	if (recovery_is_done(cache->recovery) && trees_may_evict(cache->trees) &&
	    evict_is_settled(cache->evict))
		return VERIFY_OVER;
	verify_go_on_after(verify, WAIT_NS);
	return VERIFY_BUSY;
}

static enum verify_next (*const phases[])(struct verify *verify) = {
	wait_next,        verify_folders_next,    verify_rows_next,   verify_files_next, verify_trees_next,
	verify_tags_next, verify_index_rows_next, verify_litter_next, verify_index_next,
};

static void free_all(struct verify *verify)
{
	struct cache *cache = verify->cache;

	blob_exam_end(&verify->look.exam);
	writers_give(cache->writers, verify->writer);
	hasher_free(verify->hasher);
	verify_walk_free(verify);
	verify_rows_free(verify);
	fault_fini(&verify->fault);
	verify_names_free(verify);
	tags_view_free(verify->tags);
	free(verify->look.again ? verify->kept.items : verify->look.items);
	free(verify->suspects.items);
	free(verify->later.items);
	event_free(verify->timer);
	pool_queue_free(verify->queue);
	free(verify);
}

static void end(struct verify *verify)
{
	struct verify_call *call = verify->call;

	if (verify->cancelled)
		call->r = err_set(&call->err, ERR_CANCELLED, "verify: cancelled");
	if (call->n_faults)
		log_warning("verify: looked at %ju files: %ju faults, %ju of them repaired",
			    (uintmax_t)call->files, (uintmax_t)call->n_faults, (uintmax_t)call->n_repaired);
	verify->cache->verify = NULL;
	call->verify = NULL;
	free_all(verify);
	call->done(call);
}

static void look_at_later(struct verify *verify)
{
	const struct verify_suspects done = verify->suspects;

	verify->suspects = verify->later;
	verify->later = done;
	verify->later.n = 0;
	verify_go_on_after(verify, LATER_NS);
}

/* Return: call again now? */
static bool go_on(struct verify *verify)
{
	if (verify_look_again(verify))
		return false;
	switch (phases[verify->phase](verify)) {
	case VERIFY_MORE:
		return true;
	case VERIFY_BUSY:
		return false;
	case VERIFY_OVER:
		break;
	}
	if (verify->later.n) {
		look_at_later(verify);
		return false;
	}
	verify->phase++;
	verify->listed = verify->compared = false;
	return true;
}

static bool verify_step(struct slice *slice)
{
	struct verify *verify = CONTAINER_OF(slice, struct verify, slice);

	if (!verify->cancelled && verify->call->r == 0 && verify->phase < N_ELEMENTS(phases))
		return go_on(verify);
	end(verify);
	return false;
}

int verify_begin(struct cache *cache, struct verify_call *call, struct err *err)
{
	struct verify *verify;

	if (cache->verify)
		return err_set(err, ERR_FAILED_PRECONDITION, "verify: another one is under way");
	verify = xcalloc(1, sizeof(*verify));
	verify->cache = cache;
	verify->call = call;
	verify->queue = pool_queue_new(cache->pool);
	verify->timer = evtimer_new(cache->base, on_timer, verify);
	if (!verify->timer)
		abort();
	verify->job = (struct job){ .run = verify_run, .done = verify_done };
	verify->look.exam.fd = -1;
	list_init(&verify->flight.link);
	slice_init(&verify->slice, verify_step);
	cache->verify = call->verify = verify;
	verify_go_on(verify);
	return 0;
}

void verify_cancel(struct verify_call *call)
{
	struct verify *verify = call->verify;

	verify->cancelled = true;
	if (verify->in_flight) {
		flight_leave(&verify->flight);
		verify->in_flight = false;
		verify_go_on(verify);
	}
	if (verify->is_waiting) {
		verify->is_waiting = false;
		(void)event_del(verify->timer);
		verify_go_on(verify);
	}
}
