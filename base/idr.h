/*
 * base/idr.h - small integer ids to pointers (pids, timer ids, SysV ids, fids).
 *
 * Lookups are lock-free under RCU when the caller frees through RCU; changes take the idr's own
 * lock. Ids are given in cyclic order, lowest first after a wrap.
 */
#ifndef MOAT_BASE_IDR_H
#define MOAT_BASE_IDR_H

#include "base/lock.h"

struct idr_node;

struct idr {
	struct mutex lock;
	struct idr_node *_Atomic root; /* radix tree of 64-way nodes */
	int32_t first, last; /* immutable: inclusive range of ids */
	int32_t next; /* guarded by lock */
	int32_t empty_leaves; /* guarded by lock: kept for reuse, at most IDR_EMPTY_LEAVES_MAX */
	_Atomic int32_t count;
};

void idr_init(struct idr *idr, int32_t first, int32_t last, const char *name);
void idr_fini(struct idr *idr); /* the idr is empty */
/* Reserves an id for `ptr` (not NULL). Return: the id, -EAGAIN when all are taken, -ENOMEM. */
must_check int32_t idr_alloc(struct idr *idr, void *ptr);
/* As idr_alloc(), lowest free id (timer ids, fds of small tables). */
must_check int32_t idr_alloc_lowest(struct idr *idr, void *ptr);
/* Exactly this id. Return: 0, -EEXIST, -ENOMEM, -EINVAL out of range. */
must_check int idr_alloc_at(struct idr *idr, int32_t id, void *ptr);
void *idr_find(struct idr *idr,
	       int32_t id); /* NULL if none; RCU read section or the owner's lock */
void *idr_remove(struct idr *idr, int32_t id);
void idr_replace(struct idr *idr, int32_t id, void *ptr);
/* The first entry with id >= *id; sets *id. NULL at the end. */
void *idr_next(struct idr *idr, int32_t *id);

#endif
