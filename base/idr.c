/*
 * base/idr.c - a radix tree of 64-way nodes.
 *
 * An index is id - first. A node of shift s covers 64 << s indices; a leaf has shift 0 and its
 * slots are the caller's pointers. `bits` finds free ids without looking at slots: a leaf's bit
 * is set when the slot is taken, an inner node's when nothing below is free. So allocation costs
 * the depth (at most six), whatever the number of ids.
 *
 * Readers walk root and slots with acquire loads and no lock. A slot changes by one release store.
 * The tree grows by a new root above the old one: a reader that holds the old root finds all that
 * was there. Empty nodes go back through RCU, except IDR_EMPTY_LEAVES_MAX leaves that are kept, so
 * that a small table never pays for it.
 */
#include <stdlib.h>

#include "base/idr.h"
#include "base/rcu.h"

#define IDR_BITS 6
#define IDR_WAYS 64u
#define IDR_DEPTH_MAX 6
#define IDR_EMPTY_LEAVES_MAX 16

struct idr_node {
	struct rcu_cb rcu;
	uint8_t shift; /* immutable */
	uint8_t used; /* non-NULL slots; guarded by the idr's lock */
	uint64_t bits; /* guarded by the idr's lock */
	void *_Atomic slots[IDR_WAYS];
};

/* The nodes from the root to a leaf, and how many. */
struct idr_trail {
	struct idr_node *node[IDR_DEPTH_MAX];
	int depth;
};

static uint64_t node_capacity(const struct idr_node *node)
{
	return (uint64_t)IDR_WAYS << node->shift;
}

static unsigned int node_slot(const struct idr_node *node, uint32_t index)
{
	return (index >> node->shift) & (IDR_WAYS - 1);
}

static struct idr_node *node_create(unsigned int shift)
{
	struct idr_node *node = calloc(1, sizeof(*node));

	if (node)
		node->shift = (uint8_t)shift;
	return node;
}

static void node_free_cb(struct rcu_cb *cb)
{
	free(container_of(cb, struct idr_node, rcu));
}

void idr_init(struct idr *idr, int32_t first, int32_t last, const char *name)
{
	assert(first <= last);
	*idr = (struct idr){.first = first, .last = last, .next = first};
	mutex_init(&idr->lock, LOCK_IDR, name);
}

static void node_free_tree(struct idr_node *node)
{
	if (!node)
		return;
	for (unsigned int i = 0; node->shift && i < IDR_WAYS; i++)
		node_free_tree(rcu_load(node->slots[i]));
	free(node);
}

void idr_fini(struct idr *idr)
{
	assert(atomic_load_explicit(&idr->count, memory_order_relaxed) == 0);
	node_free_tree(rcu_load(idr->root));
	rcu_store(idr->root, NULL);
}

void *idr_find(struct idr *idr, int32_t id)
{
	uint32_t index = (uint32_t)id - (uint32_t)idr->first;
	struct idr_node *node;

	if (id < idr->first || id > idr->last)
		return NULL;
	node = rcu_load(idr->root);
	if (!node || index >= node_capacity(node))
		return NULL;
	while (node && node->shift)
		node = rcu_load(node->slots[node_slot(node, index)]);
	return node ? rcu_load(node->slots[node_slot(node, index)]) : NULL;
}

/* The first free index >= start below `node` (both relative to it), or -1. */
static int64_t node_find_free(const struct idr_node *node, uint32_t start)
{
	uint32_t rest = start & ((1u << node->shift) - 1);

	for (unsigned int i = node_slot(node, start); i < IDR_WAYS; i++, rest = 0) {
		const struct idr_node *child;
		int64_t below;

		if (node->bits & (1ull << i))
			continue;
		child = node->shift ? rcu_load(node->slots[i]) : NULL;
		below = child ? node_find_free(child, rest) : rest;
		if (below >= 0)
			return ((int64_t)i << node->shift) + below;
	}
	return -1;
}

/* A free index in [from, to], or -1. */
static int64_t idr_find_free(struct idr *idr, uint32_t from, uint32_t to)
{
	struct idr_node *root = rcu_load(idr->root);
	int64_t index = from;

	if (root && from < node_capacity(root)) {
		index = node_find_free(root, from);
		if (index < 0)
			index = (int64_t)node_capacity(root);
	}
	return index <= (int64_t)to ? index : -1;
}

/* Unlinks and frees the trail's nodes from the leaf up, as far as they are empty. */
static void idr_prune(struct idr *idr, struct idr_trail *trail, uint32_t index)
{
	for (int i = trail->depth - 1; i >= 0 && trail->node[i]->used == 0; i--) {
		if (i == 0) {
			rcu_store(idr->root, NULL);
		} else {
			struct idr_node *up = trail->node[i - 1];

			rcu_store(up->slots[node_slot(up, index)], NULL);
			up->used--;
		}
		rcu_call(&trail->node[i]->rcu, node_free_cb);
	}
}

/* Grows the tree upward until it covers index. */
static int idr_grow(struct idr *idr, uint32_t index)
{
	struct idr_node *root = rcu_load(idr->root), *up;

	if (!root) {
		unsigned int shift = 0;

		while (index >= (uint64_t)IDR_WAYS << shift)
			shift += IDR_BITS;
		root = node_create(shift);
		if (!root)
			return -ENOMEM;
		rcu_store(idr->root, root);
	}
	while (index >= node_capacity(root)) {
		up = node_create(root->shift + IDR_BITS);
		if (!up)
			return -ENOMEM;
		atomic_store_explicit(&up->slots[0], root, memory_order_relaxed);
		up->used = 1;
		if (root->bits == UINT64_MAX)
			up->bits = 1;
		rcu_store(idr->root, up);
		root = up;
	}
	return 0;
}

/* Fills the trail down to index's leaf, making what is missing when `create`. */
static int idr_walk(struct idr *idr, uint32_t index, bool create, struct idr_trail *trail)
{
	struct idr_node *node = rcu_load(idr->root);

	trail->depth = 0;
	if (!node || index >= node_capacity(node))
		return -ENOENT;
	for (;;) {
		void *_Atomic *slot = &node->slots[node_slot(node, index)];
		struct idr_node *child;

		trail->node[trail->depth++] = node;
		if (!node->shift)
			return 0;
		child = rcu_load(*slot);
		if (!child) {
			if (!create)
				return -ENOENT;
			child = node_create(node->shift - IDR_BITS);
			if (!child)
				return -ENOMEM;
			rcu_store(*slot, child);
			node->used++;
			/* Counted as an empty leaf until the caller fills it. */
			if (!child->shift)
				idr->empty_leaves++;
		}
		node = child;
	}
}

/* Takes a free index for ptr. */
static int idr_insert_locked(struct idr *idr, uint32_t index, void *ptr)
{
	bool fresh_root = !rcu_load(idr->root);
	struct idr_trail trail;
	int err;

	err = idr_grow(idr, index);
	if (err)
		return err;
	if (fresh_root && !rcu_load(idr->root)->shift)
		idr->empty_leaves++;
	err = idr_walk(idr, index, true, &trail);
	if (err) {
		idr_prune(idr, &trail, index);
		return err;
	}
	for (int i = trail.depth - 1; i >= 0; i--) {
		struct idr_node *node = trail.node[i];

		if (!node->shift) {
			if (node->used++ == 0)
				idr->empty_leaves--;
			rcu_store(node->slots[node_slot(node, index)], ptr);
		}
		node->bits |= 1ull << node_slot(node, index);
		if (node->bits != UINT64_MAX)
			break;
	}
	atomic_fetch_add_explicit(&idr->count, 1, memory_order_relaxed);
	return 0;
}

static uint32_t idr_last_index(const struct idr *idr)
{
	return (uint32_t)idr->last - (uint32_t)idr->first;
}

int32_t idr_alloc(struct idr *idr, void *ptr)
{
	uint32_t next, last = idr_last_index(idr);
	int64_t index;
	int err;

	assert(ptr);
	mutex_lock(&idr->lock);
	next = (uint32_t)idr->next - (uint32_t)idr->first;
	index = idr_find_free(idr, next, last);
	if (index < 0 && next > 0)
		index = idr_find_free(idr, 0, next - 1);
	err = index < 0 ? -EAGAIN : idr_insert_locked(idr, (uint32_t)index, ptr);
	if (!err) {
		err = (int32_t)((uint32_t)idr->first + (uint32_t)index);
		idr->next = err == idr->last ? idr->first : err + 1;
	}
	mutex_unlock(&idr->lock);
	return err;
}

int32_t idr_alloc_lowest(struct idr *idr, void *ptr)
{
	int64_t index;
	int err;

	assert(ptr);
	mutex_lock(&idr->lock);
	index = idr_find_free(idr, 0, idr_last_index(idr));
	err = index < 0 ? -EAGAIN : idr_insert_locked(idr, (uint32_t)index, ptr);
	if (!err)
		err = (int32_t)((uint32_t)idr->first + (uint32_t)index);
	mutex_unlock(&idr->lock);
	return err;
}

int idr_alloc_at(struct idr *idr, int32_t id, void *ptr)
{
	int err;

	assert(ptr);
	if (id < idr->first || id > idr->last)
		return -EINVAL;
	mutex_lock(&idr->lock);
	if (idr_find(idr, id))
		err = -EEXIST;
	else
		err = idr_insert_locked(idr, (uint32_t)id - (uint32_t)idr->first, ptr);
	mutex_unlock(&idr->lock);
	return err;
}

void *idr_remove(struct idr *idr, int32_t id)
{
	uint32_t index = (uint32_t)id - (uint32_t)idr->first;
	struct idr_trail trail;
	struct idr_node *leaf;
	void *ptr = NULL;

	if (id < idr->first || id > idr->last)
		return NULL;
	mutex_lock(&idr->lock);
	if (idr_walk(idr, index, false, &trail))
		goto out_unlock;
	leaf = trail.node[trail.depth - 1];
	ptr = rcu_load(leaf->slots[node_slot(leaf, index)]);
	if (!ptr)
		goto out_unlock;
	rcu_store(leaf->slots[node_slot(leaf, index)], NULL);
	leaf->used--;
	for (int i = trail.depth - 1; i >= 0; i--)
		trail.node[i]->bits &= ~(1ull << node_slot(trail.node[i], index));
	atomic_fetch_sub_explicit(&idr->count, 1, memory_order_relaxed);
	if (leaf->used == 0) {
		if (idr->empty_leaves < IDR_EMPTY_LEAVES_MAX)
			idr->empty_leaves++;
		else
			idr_prune(idr, &trail, index);
	}
out_unlock:
	mutex_unlock(&idr->lock);
	return ptr;
}

void idr_replace(struct idr *idr, int32_t id, void *ptr)
{
	uint32_t index = (uint32_t)id - (uint32_t)idr->first;
	struct idr_trail trail;
	struct idr_node *leaf;
	int err;

	assert(ptr && id >= idr->first && id <= idr->last);
	mutex_lock(&idr->lock);
	err = idr_walk(idr, index, false, &trail);
	assert(!err);
	leaf = trail.node[trail.depth - 1];
	assert(rcu_load(leaf->slots[node_slot(leaf, index)]));
	rcu_store(leaf->slots[node_slot(leaf, index)], ptr);
	mutex_unlock(&idr->lock);
}

/* The first entry at or after start below `node`; sets *ret_index (relative to the node). */
static void *node_next(struct idr_node *node, uint32_t start, uint32_t *ret_index)
{
	uint32_t rest = start & ((1u << node->shift) - 1);

	for (unsigned int i = node_slot(node, start); i < IDR_WAYS; i++, rest = 0) {
		void *slot = rcu_load(node->slots[i]);
		uint32_t below = 0;

		if (slot && node->shift)
			slot = node_next(slot, rest, &below);
		if (slot) {
			*ret_index = (i << node->shift) + below;
			return slot;
		}
	}
	return NULL;
}

void *idr_next(struct idr *idr, int32_t *id)
{
	int32_t from = MAX(*id, idr->first);
	uint32_t index = (uint32_t)from - (uint32_t)idr->first;
	struct idr_node *root = rcu_load(idr->root);
	void *ptr;

	if (from > idr->last || !root || index >= node_capacity(root))
		return NULL;
	ptr = node_next(root, index, &index);
	if (ptr)
		*id = (int32_t)((uint32_t)idr->first + index);
	return ptr;
}
