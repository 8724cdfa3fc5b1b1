/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/tree_internal.h"

#include "common/log.h"

enum { WARMING_MAX = 4 }; /* trees read again at a time in the background: leave workers to requests */

static void warm_more(struct trees *trees);

static void on_warmed(struct node_waiter *waiter, const struct node_failure *failure)
{
	struct tree *tree = CONTAINER_OF(waiter, struct tree, warming);
	struct trees *trees = tree->trees;
	struct node *node = nodes_find(trees->parts.nodes, &tree->digest);

	if (failure)
		log_warning("cached tree %s cannot be read: %s", DIGEST_TEXT(&tree->digest),
			    failure->err.text);
	else
		tree_hold_node(tree, node);
	trees->n_warming--;
	warm_more(trees);
}

static void warm_more(struct trees *trees)
{
	struct list *l;

	while (trees->n_warming < WARMING_MAX && (l = list_pop(&trees->cold))) {
		struct tree *tree = LIST_ENTRY(l, struct tree, cold);
		struct node *node = nodes_resolve(trees->parts.nodes, &tree->digest, true);

		if (node_is_resolved(node)) {
			tree_hold_node(tree, node);
			node_put(node);
			continue;
		}
		trees->n_warming++;
		tree->warming.settled = on_warmed;
		node_wait(node, &tree->warming);
		node_put(node); /* what is under way keeps itself */
	}
	if (!trees->n_warming && list_is_empty(&trees->cold) && !trees->warmed) {
		trees->warmed = true;
		trees_unpark(trees);
	}
}

void trees_warm(struct trees *trees)
{
	warm_more(trees);
}

void trees_stop_warming(struct trees *trees)
{
	trees->stopping = true;
	while (list_pop(&trees->cold))
		;
}
