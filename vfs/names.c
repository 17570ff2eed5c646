/* vfs/names.c - tables of names, read under RCU. */
#include "vfs/names.h"

#include <stdlib.h>
#include <string.h>

#define TABLE_FIRST 8u
#define TABLE_MAX (1u << 24)

struct name_buckets {
	struct rcu_cb rcu;
	uint32_t mask;
	struct name_node *_Atomic chains[];
};

int name_create(void *parent, const char *s, size_t len, struct name **ret)
{
	struct name *n = malloc(sizeof(*n) + MAX(len + 1, sizeof(uint64_t)));

	if (!n)
		return -ENOMEM;
	n->parent = parent;
	n->hash = vfs_name_hash(s, len);
	n->len = (uint16_t)len;
	memset(n->s, 0, sizeof(uint64_t));
	memcpy(n->s, s, len);
	n->s[len] = '\0';
	*ret = n;
	return 0;
}

static void name_free_cb(struct rcu_cb *cb)
{
	free(container_of(cb, struct name, rcu));
}

void name_free_later(struct name *n)
{
	rcu_call(&n->rcu, name_free_cb);
}

static void buckets_free_cb(struct rcu_cb *cb)
{
	free(container_of(cb, struct name_buckets, rcu));
}

static struct name_node *_Atomic *chain_of(struct names *t, struct name_buckets *b, uint32_t hash)
{
	return b ? &b->chains[hash & b->mask] : &t->first;
}

struct name_node *names_find(const struct names *t, const void *parent, uint32_t hash,
			     const char *s, size_t len)
{
	struct name_buckets *b = rcu_load(t->table);
	struct name_node *n = b ? rcu_load(b->chains[hash & b->mask]) : rcu_load(t->first);

	for (; n; n = rcu_load(n->next)) {
		const struct name *name = name_of(n);

		/* A node that is being moved leads into other chains. */
		if (name->hash == hash && name->len == len && name->parent == parent &&
		    !memcmp(name->s, s, len))
			return n;
	}
	return NULL;
}

static void link_node(struct name_node *_Atomic *chain, struct name_node *n)
{
	rcu_store(n->next, rcu_load(*chain));
	rcu_store(*chain, n);
}

/* Without memory the chains stay longer. */
static void grow(struct names *t)
{
	struct name_buckets *old = rcu_load(t->table), *b;
	uint32_t size = old ? (old->mask + 1) * 2 : TABLE_FIRST;

	if ((old && old->mask + 1 >= TABLE_MAX) || t->count < size)
		return;
	b = calloc(1, sizeof(*b) + size * sizeof(b->chains[0]));
	if (!b)
		return;
	b->mask = size - 1;
	seqcount_write_begin(&t->moved);
	for (uint32_t i = 0; i <= (old ? old->mask : 0); i++) {
		struct name_node *n = old ? rcu_load(old->chains[i]) : rcu_load(t->first), *next;

		for (; n; n = next) {
			next = rcu_load(n->next);
			link_node(chain_of(t, b, name_of(n)->hash), n);
		}
	}
	rcu_store(t->table, b);
	/* A reader that still sees no table, or sees it gone with its directory, finds nothing: not what is freed since. */
	rcu_store(t->first, NULL);
	seqcount_write_end(&t->moved);
	if (old)
		rcu_call(&old->rcu, buckets_free_cb);
}

void names_insert(struct names *t, struct name_node *n)
{
	assert(!n->linked);
	grow(t);
	link_node(chain_of(t, rcu_load(t->table), name_of(n)->hash), n);
	n->linked = true;
	t->count++;
}

void names_remove(struct names *t, struct name_node *n)
{
	struct name_node *_Atomic *link, *at;

	if (!n->linked)
		return;
	link = chain_of(t, rcu_load(t->table), name_of(n)->hash);
	seqcount_write_begin(&t->moved);
	while ((at = rcu_load(*link)) != n) {
		assert(at);
		link = &at->next;
	}
	/* n keeps its own link: a reader that stands on it goes on. */
	rcu_store(*link, rcu_load(n->next));
	seqcount_write_end(&t->moved);
	n->linked = false;
	t->count--;
}

bool names_each(struct names *t, bool (*each)(void *arg, struct name_node *n), void *arg)
{
	uint32_t seq = seqcount_read_begin(&t->moved);
	struct name_buckets *b = rcu_load(t->table);

	for (uint32_t i = 0; i <= (b ? b->mask : 0); i++)
		for (struct name_node *n = b ? rcu_load(b->chains[i]) : rcu_load(t->first); n;
		     n = rcu_load(n->next))
			if (!each(arg, n))
				return false;
	return !seqcount_read_retry_acquired(&t->moved, seq);
}

void names_fini(struct names *t)
{
	struct name_buckets *b = rcu_load(t->table);

	rcu_store(t->table, NULL);
	if (b)
		rcu_call(&b->rcu, buckets_free_cb);
}
