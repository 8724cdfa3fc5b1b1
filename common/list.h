/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A doubly linked list whose links are embedded in its elements.
 *
 * A head and an unlinked element point at themselves, so removing twice is harmless and "is it on a list"
 * is one comparison. Not locked: the owner's thread only.
 */
#ifndef DIRCACHE_COMMON_LIST_H
#define DIRCACHE_COMMON_LIST_H

#include <stdbool.h>
#include <stddef.h>

#include "common/auto.h"

struct list {
	struct list *next, *prev;
};

static inline void list_init(struct list *l)
{
	l->next = l->prev = l;
}

static inline bool list_is_empty(const struct list *l)
{
	return l->next == l;
}

static inline void list_remove(struct list *l)
{
	l->prev->next = l->next;
	l->next->prev = l->prev;
	list_init(l);
}

static inline void list_append(struct list *head, struct list *l)
{
	l->prev = head->prev;
	l->next = head;
	head->prev->next = l;
	head->prev = l;
}

/* The first element taken off, or NULL. */
static inline struct list *list_pop(struct list *head)
{
	struct list *l = head->next;

	if (l == head)
		return NULL;
	list_remove(l);
	return l;
}

#define LIST_ENTRY(l, type, member) CONTAINER_OF(l, type, member)

/* The body may remove `it` itself, and nothing else. */
#define list_for_each(it, head)                                                                              \
	for (struct list *it = (head)->next, *it##_next_ = it->next; it != (head);                           \
	     it = it##_next_, it##_next_ = it->next)

#endif
