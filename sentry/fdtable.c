/*
 * sentry/fdtable.c - descriptor tables.
 *
 * A table is one struct fd_array, replaced when it grows: slots (file pointers), and two bitmaps, `open` (taken, perhaps only
 * reserved) and `cloexec`. Writers hold the table's lock; fd_get() takes none (Linux's fdget):
 *
 * - When the caller's reference is the table's only one, nobody else changes it: only holders do, and a new holder can only come
 *   from the caller itself. A reader of another task's table (/proc, pidfd_getfd) holds a reference.
 * - A shared table is read under RCU, and the file's reference is taken unless its count has gone to zero: then the slot has
 *   changed, and is read again. So the memory of a file that leaves a shared table outlives a grace period (file.looked_up), and
 *   so does a replaced array. Whether a table is shared is asked after the slot was cleared and the lock let go, which is a
 *   full barrier (an exchange): who takes a reference on the table later finds the slot empty.
 *
 * Lookup of the lowest free descriptor starts at `next_free`, below which everything is taken.
 */
#include "sentry/fdtable.h"

#include <stdlib.h>
#include <string.h>

#include "base/lock.h"
#include "base/rcu.h"
#include "vfs/locks.h"

#define FD_ARRAY_MIN 64 /* one bitmap word */

/* Changed under the table's lock. */
struct fd_array {
	unsigned size; /* immutable; a multiple of 64 */
	uint64_t *cloexec; /* bits; read under the lock, or by the sole holder */
	uint64_t *open; /* bits; as cloexec */
	struct rcu_cb rcu;
	struct file *_Atomic slots[]; /* read under RCU */
};

struct fd_table {
	struct ref ref;
	struct mutex lock; /* LOCK_FDTABLE */
	struct fd_array *_Atomic array; /* changed under lock, read under RCU */
	unsigned next_free; /* guarded by lock */
};

static REF_TYPE(fd_table_type, "fd_table");

static struct fd_array *array_create(unsigned size)
{
	size_t slots = size * sizeof(struct file *);
	size_t bits = size / 8;
	struct fd_array *a = calloc(1, sizeof(*a) + slots + 2 * bits);

	if (!a)
		return NULL;
	a->size = size;
	a->open = (uint64_t *)((char *)(a + 1) + slots);
	a->cloexec = (uint64_t *)((char *)(a + 1) + slots + bits);
	return a;
}

static void array_free_rcu(struct rcu_cb *cb)
{
	free(container_of(cb, struct fd_array, rcu));
}

/* These two: in a read section, or with the lock held, or by the sole holder. */
static struct fd_array *array_of(struct fd_table *t)
{
	return rcu_load(t->array);
}

static struct file *slot_of(struct fd_array *a, unsigned fd)
{
	return rcu_load(a->slots[fd]);
}

static bool bit_test(const uint64_t *bits, unsigned fd)
{
	return (bits[fd / 64] >> (fd % 64)) & 1;
}

static void bit_assign(uint64_t *bits, unsigned fd, bool on)
{
	uint64_t bit = 1ull << (fd % 64);

	bits[fd / 64] = on ? bits[fd / 64] | bit : bits[fd / 64] & ~bit;
}

int fd_table_create(struct fd_table **ret)
{
	struct fd_table *t = calloc(1, sizeof(*t));
	struct fd_array *a = array_create(FD_ARRAY_MIN);

	if (!t || !a) {
		free(t);
		free(a);
		return -ENOMEM;
	}
	ref_init(&t->ref, &fd_table_type);
	mutex_init(&t->lock, LOCK_FDTABLE, "fd_table");
	atomic_init(&t->array, a);
	*ret = t;
	return 0;
}

_Atomic int64_t fd_nr_open = FD_TABLE_MAX;

/* Makes room for `fd`. Lock held; may drop nothing. Return: 0, -EMFILE, -ENOMEM. */
static int table_grow_locked(struct fd_table *t, unsigned fd)
{
	struct fd_array *old = array_of(t), *a;
	unsigned size = old->size;

	if (fd < size)
		return 0;
	if (fd >= atomic_load_explicit(&fd_nr_open, memory_order_relaxed))
		return -EMFILE;
	while (size <= fd)
		size *= 2;
	a = array_create(size);
	if (!a)
		return -ENOMEM;
	for (unsigned i = 0; i < old->size; i++)
		atomic_init(&a->slots[i], slot_of(old, i));
	for (unsigned i = 0; i < old->size / 64; i++) {
		a->open[i] = old->open[i];
		a->cloexec[i] = old->cloexec[i];
	}
	rcu_store(t->array, a);
	rcu_call(&old->rcu, array_free_rcu);
	return 0;
}

/* The lowest free descriptor >= min; may be the array's size. Lock held. */
static unsigned find_free_locked(struct fd_table *t, unsigned min)
{
	struct fd_array *a = array_of(t);
	unsigned fd = MAX(min, t->next_free);

	while (fd < a->size) {
		uint64_t busy = a->open[fd / 64] | ((1ull << (fd % 64)) - 1);

		if (~busy)
			return (fd & ~63u) + (unsigned)__builtin_ctzll(~busy);
		fd = (fd & ~63u) + 64;
	}
	return fd;
}

static int reserve_locked(struct fd_table *t, int min, unsigned limit, bool cloexec)
{
	unsigned fd = find_free_locked(t, (unsigned)min);
	struct fd_array *a;
	int err;

	if (fd >= limit)
		return -EMFILE;
	err = table_grow_locked(t, fd);
	if (err)
		return err;
	a = array_of(t);
	a->open[fd / 64] |= 1ull << (fd % 64);
	bit_assign(a->cloexec, fd, cloexec);
	if ((unsigned)min <= t->next_free)
		t->next_free = fd + 1;
	return (int)fd;
}

static void release_locked(struct fd_table *t, unsigned fd)
{
	struct fd_array *a = array_of(t);

	a->open[fd / 64] &= ~(1ull << (fd % 64));
	bit_assign(a->cloexec, fd, false);
	if (fd < t->next_free)
		t->next_free = fd;
}

int fd_reserve(struct fd_table *t, int min, unsigned limit, bool cloexec)
{
	int fd;

	mutex_lock(&t->lock);
	fd = reserve_locked(t, min, limit, cloexec);
	mutex_unlock(&t->lock);
	return fd;
}

void fd_commit(struct fd_table *t, int fd, struct file *f)
{
	file_ref(f);
	mutex_lock(&t->lock);
	assert(bit_test(array_of(t)->open, (unsigned)fd) && !slot_of(array_of(t), (unsigned)fd));
	rcu_store(array_of(t)->slots[fd], f);
	mutex_unlock(&t->lock);
}

void fd_cancel(struct fd_table *t, int fd)
{
	mutex_lock(&t->lock);
	release_locked(t, (unsigned)fd);
	mutex_unlock(&t->lock);
}

int fd_install(struct fd_table *t, struct file *f, int min, unsigned limit, bool cloexec)
{
	int fd;

	mutex_lock(&t->lock);
	fd = reserve_locked(t, min, limit, cloexec);
	if (fd >= 0)
		rcu_store(array_of(t)->slots[fd], file_ref(f));
	mutex_unlock(&t->lock);
	return fd;
}

struct file *fd_get_flags(struct fd_table *t, int fd, bool *ret_cloexec)
{
	bool shared = fd_table_shared(t);
	struct file *f = NULL;
	struct fd_array *a;

	if (shared)
		mutex_lock(&t->lock);
	a = array_of(t);
	if ((unsigned)fd < a->size)
		f = slot_of(a, (unsigned)fd);
	if (f) {
		file_ref(f);
		*ret_cloexec = bit_test(a->cloexec, (unsigned)fd);
	}
	if (shared)
		mutex_unlock(&t->lock);
	return f;
}

static struct file *get_shared(struct fd_table *t, unsigned fd)
{
	struct fd_array *a;
	struct file *f;
	bool done;

	do {
		rcu_read_begin();
		a = array_of(t);
		f = fd < a->size ? slot_of(a, fd) : NULL;
		/* A file whose last reference is gone has left the table. */
		done = !f || file_tryref(f);
		rcu_read_end();
	} while (!done);
	return f;
}

struct file *fd_get(struct fd_table *t, int fd)
{
	struct fd_array *a;
	struct file *f = NULL;

	if (fd_table_shared(t))
		return get_shared(t, (unsigned)fd);
	a = array_of(t);
	if ((unsigned)fd < a->size)
		f = slot_of(a, (unsigned)fd);
	return f ? file_ref(f) : NULL;
}

/* filp_close: what the close of one descriptor, which is out of the table, does to its file, and its reference. No locks held. */
static int close_file(struct fd_table *t, struct file *f)
{
	int err = 0;

	/* Before the reference goes: whoever drops the last one sees it. */
	if (fd_table_shared(t))
		atomic_store_explicit(&f->looked_up, true, memory_order_relaxed);
	if (!(f->mode & FILE_PATH_ONLY)) {
		if (f->ops->flush)
			err = f->ops->flush(f);
		file_locks_close(f, t);
	}
	file_unref(f);
	return err;
}

int fd_install_at(struct fd_table *t, struct file *f, int fd, unsigned limit, bool cloexec)
{
	struct fd_array *a;
	struct file *old;
	int err;

	if (fd < 0 || (unsigned)fd >= limit)
		return -EBADF;
	mutex_lock(&t->lock);
	err = table_grow_locked(t, (unsigned)fd);
	if (err) {
		mutex_unlock(&t->lock);
		return err == -EMFILE ? -EBADF : err;
	}
	a = array_of(t);
	old = slot_of(a, (unsigned)fd);
	if (!old && bit_test(a->open, (unsigned)fd)) {
		mutex_unlock(&t->lock);
		return -EBUSY;
	}
	a->open[fd / 64] |= 1ull << (fd % 64);
	bit_assign(a->cloexec, (unsigned)fd, cloexec);
	rcu_store(a->slots[fd], file_ref(f));
	mutex_unlock(&t->lock);
	if (old)
		(void)close_file(t, old); /* dup2 loses the error, as on Linux */
	return fd;
}

int fd_close(struct fd_table *t, int fd)
{
	struct file *f = NULL;
	struct fd_array *a;

	mutex_lock(&t->lock);
	a = array_of(t);
	if ((unsigned)fd < a->size)
		f = slot_of(a, (unsigned)fd);
	if (f) {
		rcu_store(a->slots[fd], NULL);
		release_locked(t, (unsigned)fd);
	}
	mutex_unlock(&t->lock);
	return f ? close_file(t, f) : -EBADF;
}

/* The first descriptor >= fd and <= last with a file; -1. Lock held. */
static int next_open_locked(struct fd_table *t, unsigned fd, unsigned last)
{
	struct fd_array *a = array_of(t);

	while (fd < a->size && fd <= last) {
		uint64_t w = a->open[fd / 64] & ~((1ull << (fd % 64)) - 1);

		if (!w) {
			fd = (fd & ~63u) + 64;
			continue;
		}
		fd = (fd & ~63u) + (unsigned)__builtin_ctzll(w);
		if (fd > last)
			break;
		if (slot_of(a, fd))
			return (int)fd;
		fd++;
	}
	return -1;
}

int fd_close_range(struct fd_table *t, unsigned first, unsigned last, bool cloexec_only)
{
	struct file *f;
	int fd = -1;

	if (cloexec_only) {
		mutex_lock(&t->lock);
		while ((fd = next_open_locked(t, first, last)) >= 0) {
			bit_assign(array_of(t)->cloexec, (unsigned)fd, true);
			first = (unsigned)fd + 1;
		}
		mutex_unlock(&t->lock);
		return 0;
	}
	for (;;) {
		mutex_lock(&t->lock);
		fd = next_open_locked(t, first, last);
		if (fd < 0)
			break;
		f = slot_of(array_of(t), (unsigned)fd);
		rcu_store(array_of(t)->slots[fd], NULL);
		release_locked(t, (unsigned)fd);
		mutex_unlock(&t->lock);
		(void)close_file(t, f);
		first = (unsigned)fd + 1;
	}
	mutex_unlock(&t->lock);
	return 0;
}

int fd_set_cloexec(struct fd_table *t, int fd, bool cloexec)
{
	struct fd_array *a;
	int err = -EBADF;

	mutex_lock(&t->lock);
	a = array_of(t);
	if ((unsigned)fd < a->size && slot_of(a, (unsigned)fd)) {
		bit_assign(a->cloexec, (unsigned)fd, cloexec);
		err = 0;
	}
	mutex_unlock(&t->lock);
	return err;
}

void fd_close_on_exec(struct fd_table *t)
{
	for (unsigned w = 0;; w++) {
		struct fd_array *a;
		uint64_t bits;

		mutex_lock(&t->lock);
		a = array_of(t);
		if (w >= a->size / 64)
			break;
		bits = a->cloexec[w] & a->open[w];
		mutex_unlock(&t->lock);
		for (; bits; bits &= bits - 1)
			(void)!fd_close(t, (int)(w * 64 + (unsigned)__builtin_ctzll(bits)));
	}
	mutex_unlock(&t->lock);
}

int fd_next(struct fd_table *t, int fd, struct file **ret)
{
	mutex_lock(&t->lock);
	fd = next_open_locked(t, (unsigned)MAX(fd, 0), FD_TABLE_MAX);
	if (fd >= 0)
		*ret = file_ref(slot_of(array_of(t), (unsigned)fd));
	mutex_unlock(&t->lock);
	return fd;
}

/* Enough slots for the highest open descriptor below max_fds. Lock held. */
static unsigned fork_size_locked(struct fd_table *t, unsigned max_fds)
{
	struct fd_array *a = array_of(t);
	unsigned words = a->size / 64, size = FD_ARRAY_MIN;

	while (words > 1 && (!a->open[words - 1] || (words - 1) * 64 >= max_fds))
		words--;
	while (size < words * 64)
		size *= 2;
	return size;
}

int fd_table_fork(struct fd_table *old, struct fd_table **ret, unsigned max_fds)
{
	struct fd_table *t = calloc(1, sizeof(*t));
	struct fd_array *a = NULL, *from;
	unsigned size;
	int fd;

	if (!t)
		return -ENOMEM;
	for (;;) {
		mutex_lock(&old->lock);
		size = fork_size_locked(old, max_fds);
		if (a && a->size >= size)
			break;
		mutex_unlock(&old->lock);
		free(a);
		a = array_create(size);
		if (!a) {
			free(t);
			return -ENOMEM;
		}
	}
	from = old->array;
	/* Reserved descriptors are the reserving task's only: the child does not get them. */
	for (fd = -1;
	     max_fds && (fd = next_open_locked(old, (unsigned)(fd + 1), max_fds - 1)) >= 0;) {
		atomic_init(&a->slots[fd], file_ref(slot_of(from, (unsigned)fd)));
		a->open[fd / 64] |= 1ull << (fd % 64);
		bit_assign(a->cloexec, (unsigned)fd, bit_test(from->cloexec, (unsigned)fd));
	}
	mutex_unlock(&old->lock);
	ref_init(&t->ref, &fd_table_type);
	mutex_init(&t->lock, LOCK_FDTABLE, "fd_table");
	atomic_init(&t->array, a);
	*ret = t;
	return 0;
}

void fd_table_ref(struct fd_table *t)
{
	ref_get(&t->ref);
}

void fd_table_unref(struct fd_table *t)
{
	if (!ref_put(&t->ref))
		return;
	(void)fd_close_range(t, 0, FD_TABLE_MAX, false);
	free(array_of(t));
	ref_fini(&t->ref, &fd_table_type);
	free(t);
}

bool fd_table_shared(struct fd_table *t)
{
	/* acquire: what a holder that has just let go did is seen. */
	return atomic_load_explicit(&t->ref.count, memory_order_acquire) > 1;
}

unsigned fd_table_size(struct fd_table *t)
{
	unsigned size;

	mutex_lock(&t->lock);
	size = array_of(t)->size;
	mutex_unlock(&t->lock);
	return size;
}

void *fd_table_owner(struct fd_table *t)
{
	return t;
}
