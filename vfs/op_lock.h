/*
 * vfs/op_lock.h - a sleeping lock that may be held while its owner sleeps: over user copies, RPCs, another filesystem's work.
 *
 * For what Linux guards with f_pos_lock and i_rwsem: a shared file offset, writers of one file, a remote directory's operation. It is no ranked
 * mutex because a sleep under those is forbidden; waiting for it is killable. Rules that replace a rank: it is never taken on a page-fault path,
 * never with a ranked lock held, and never two of one kind. Order: an offset's, then a file's.
 */
#ifndef MOAT_VFS_OP_LOCK_H
#define MOAT_VFS_OP_LOCK_H

#include "base/compiler.h"

struct op_lock {
	_Atomic uint32_t word; /* 0 free, 1 held, 2 held and somebody waits */
};

static inline void op_lock_init(struct op_lock *l)
{
	atomic_init(&l->word, 0);
}
void op_lock_slow(struct op_lock *l);
must_check int op_lock_killable_slow(struct op_lock *l);
void op_unlock_slow(struct op_lock *l);

static inline must_check bool op_trylock(struct op_lock *l)
{
	uint32_t free_word = 0;

	return atomic_compare_exchange_strong_explicit(&l->word, &free_word, 1,
						       memory_order_acquire, memory_order_relaxed);
}

static inline void op_lock(struct op_lock *l)
{
	if (unlikely(!op_trylock(l)))
		op_lock_slow(l);
}

/* -EINTR: a fatal signal came while waiting. */
static inline must_check int op_lock_killable(struct op_lock *l)
{
	return likely(op_trylock(l)) ? 0 : op_lock_killable_slow(l);
}

static inline void op_unlock(struct op_lock *l)
{
	if (unlikely(atomic_exchange_explicit(&l->word, 0, memory_order_release) == 2))
		op_unlock_slow(l);
}

#endif
