/* SPDX-License-Identifier: Apache-2.0 */
/* What requests of one connection share, and what those of one user, or of all, have of the daemon. */
#include "daemon/request.h"

enum {
	LARGE_MAX = 32, /* messages in large buffers: of 16 MiB each, and half of that for their values; */
	USER_LARGE_MAX = 8, /* of these one user's */
};

void session_init(struct session *session, struct service *service, struct identity *identity)
{
	session->service = service;
	session->identity = identity;
	session->user = users_get(&service->users, identity->uid);
	session->user->n_connections++;
	list_init(&session->requests);
	list_init(&session->items);
	lease_group_init(service->cache->leases, &session->leases);
}

static void cancel(struct request *request)
{
	if (request->cancelled)
		return;
	request->cancelled = true;
	if (!list_is_empty(&request->waiting)) { /* the cache was not ready: nothing has begun */
		struct err err = { 0 };

		err_set(&err, ERR_CANCELLED, "cancelled before it began");
		request_fail(request, &err);
	} else if (request->cancel) {
		request->cancel(request);
	}
}

static struct request *find_uncancelled(const struct session *session)
{
	list_for_each (l, &session->requests) {
		struct request *request = LIST_ENTRY(l, struct request, link);

		if (!request->cancelled)
			return request;
	}
	return NULL;
}

/* From the beginning each time: one that ends lets in what had waited behind it, be it a `cancel` of the
 * next. */
void session_cancel(struct session *session)
{
	struct request *request;

	while ((request = find_uncancelled(session)))
		cancel(request);
}

void session_fini(struct session *session)
{
	struct list *l;

	while ((l = list_pop(&session->requests))) {
		struct request *request = LIST_ENTRY(l, struct request, link);

		request->session = NULL;
		cancel(request);
	}
	while ((l = list_pop(&session->items))) {
		struct session_item *item = LIST_ENTRY(l, struct session_item, link);

		item->gone(item);
	}
	lease_group_fini(&session->leases);
	session->user->n_connections--;
	user_put(session->user);
	identity_put(session->identity);
}

void session_count_fds(struct session *session, size_t n)
{
	session->service->n_fds += n;
	session->user->n_fds += n;
}

void session_uncount_fds(struct session *session, size_t n)
{
	session->service->n_fds -= n;
	session->user->n_fds -= n;
}

bool service_has_large(const struct service *service, const struct user *user)
{
	return service->n_large < LARGE_MAX && user->n_large < USER_LARGE_MAX;
}

void service_take_large(struct service *service, struct user *user)
{
	service->n_large++;
	user->n_large++;
}

void service_give_large(struct service *service, struct user *user)
{
	service->n_large--;
	user->n_large--;
}

bool request_cancel(struct session *session, uint32_t id)
{
	list_for_each (l, &session->requests) {
		struct request *request = LIST_ENTRY(l, struct request, link);

		if (request->message.id == id) {
			cancel(request);
			return true;
		}
	}
	return false;
}
