/*
 * base/lock.h - ranked 4-byte locks.
 *
 * mutex: a futex lock (0 free, 1 held, 2 held with waiters). rwlock: readers count, writer bit,
 * writer preference. seqcount: for lock-free readers; its loads are acquire and its stores release,
 * no stand-alone fence, so TSan understands it.
 *
 * Order: a thread takes locks in strictly increasing rank. Two locks of one rank are taken only
 * with mutex_lock_pair() (by address) or mutex_lock_nested() (caller states why: ancestor first).
 * A debug build (MOAT_DEBUG) records each thread's held locks and aborts on an inversion, on an
 * unlock of what is not held, and on a blocking wait (lock_assert_may_sleep()).
 * Leaves have the highest ranks. Add a rank here with its reason in docs/locking.md.
 */
#ifndef MOAT_BASE_LOCK_H
#define MOAT_BASE_LOCK_H

#include "base/compiler.h"

/* Outermost first. Gaps leave room. */
enum lock_rank {
	LOCK_NONE = 0,
	/* runtime, control */
	LOCK_CONTROL = 10, /* the gofer's window of watches */
	LOCK_BOOT = 12, /* a sandbox's containers; who reads the gofer's socket */
	/* tasks */
	LOCK_TASK_EXEC =
		18, /* cred_guard analogue: one exec/ptrace-attach/seccomp-sync per group */
	LOCK_TTY = 20, /* a tty's line discipline and foreground group */
	LOCK_TASKSET = 22, /* parent/child, group, session and pid links (tasklist_lock) */
	LOCK_CGROUP = 23, /* the groups of processes that containers make: sentry/cgroup_tree.h */
	LOCK_TASK = 24, /* one task's pointers to its fs context, fd table, mm, creds */
	LOCK_FDTABLE = 26,
	LOCK_FSCONTEXT = 28, /* cwd, root, umask */
	LOCK_EPOLL = 30, /* one epoll file's interest tree; nested by depth */
	LOCK_SOCKET = 32, /* a socket's state; pair by address */
	LOCK_SOCKET_NS = 34, /* abstract names */
	LOCK_FILE_POS = 36, /* an open file's offset */
	/* vfs: mounts before directories */
	LOCK_VFS_RENAME = 40, /* one per filesystem: cross-directory renames */
	LOCK_MOUNT = 42, /* mount table and namespaces */
	LOCK_FS_OP = 44, /* a remote filesystem's tree lock: sleeps over its own RPC */
	LOCK_OVERLAY = 46, /* copy-up */
	LOCK_FS_DIR = 48, /* a directory's children; nested ancestor first */
	LOCK_FS_INODE = 50, /* one inode's metadata */
	LOCK_FS_SUPER = 52, /* a filesystem's inode and size accounting */
	LOCK_FILE_LOCKS = 54, /* POSIX/flock lists */
	LOCK_INOTIFY = 56,
	/* mm: vma lock, then file data (struct mappable), then translations, then page tables */
	LOCK_MM_FORK = 60, /* parent's vma lock while the child's is taken */
	LOCK_MM_VMA = 62,
	LOCK_FILE_DATA = 64, /* a file's page-cache map and its reverse mappings */
	LOCK_MM_PT = 66, /* an address space's translations (pmas) */
	LOCK_AS = 68, /* platform address space: page tables */
	LOCK_PLATFORM = 70, /* slots, vCPU pool, table pages */
	LOCK_MEMFILE = 72, /* a memory file's allocator */
	/* System V IPC: a segment is told under the mm's locks that it was mapped or unmapped */
	LOCK_IPC_UNDO = 73, /* a task's list of semaphore adjustments */
	LOCK_IPC_TABLE = 74, /* keys and ids of one kind of object */
	LOCK_IPC_OBJECT = 75, /* one object's contents */
	/* leaves that anything may take */
	LOCK_FUTEX = 76, /* futex hash bucket; pair by address */
	LOCK_TIMER = 78,
	LOCK_SIGNAL = 80, /* a thread group's signal state (sighand) */
	LOCK_PIPE = 82, /* a pipe's ring */
	LOCK_EPOLL_READY = 84, /* one epoll file's ready list */
	LOCK_WAITQUEUE = 86, /* a wait queue; callbacks run under it take only ranks above */
	LOCK_TASK_STATE = 88, /* a sleeper's word, stop state */
	LOCK_RPC = 90, /* a 9P/FUSE connection's tag table */
	LOCK_IDR = 92,
	LOCK_CRED = 94, /* credential interning */
	LOCK_LEAF = 98,
	LOCK_LOG = 100,
};

struct mutex {
	_Atomic uint32_t word;
#ifdef MOAT_DEBUG
	uint16_t rank;
	const char *name;
#endif
};

struct rwlock {
	_Atomic uint32_t word; /* readers or all ones; bits 31, 30: writers, readers sleep */
	_Atomic uint32_t wait_seq; /* writers' futex word; readers sleep on `word` */
#ifdef MOAT_DEBUG
	uint16_t rank;
	const char *name;
#endif
};

#ifdef MOAT_DEBUG
#define MUTEX_INIT(lock_rank_, lock_name)                 \
	{                                                 \
		.rank = (lock_rank_), .name = (lock_name) \
	}
#define RWLOCK_INIT(lock_rank_, lock_name)                \
	{                                                 \
		.rank = (lock_rank_), .name = (lock_name) \
	}
#else
#define MUTEX_INIT(lock_rank_, lock_name) \
	{                                 \
		0                         \
	}
#define RWLOCK_INIT(lock_rank_, lock_name) \
	{                                  \
		0                          \
	}
#endif

void mutex_init(struct mutex *m, enum lock_rank rank, const char *name);
void mutex_lock(struct mutex *m);
must_check bool mutex_trylock(struct mutex *m);
void mutex_unlock(struct mutex *m);
/* A second lock of a rank already held; the caller's comment says what orders the two. */
void mutex_lock_nested(struct mutex *m);
/* Both, in address order; `a` may equal `b` (taken once). */
void mutex_lock_pair(struct mutex *a, struct mutex *b);
void mutex_unlock_pair(struct mutex *a, struct mutex *b);
/* Aborts in a debug build unless the calling thread holds `m`. */
void mutex_assert_held(const struct mutex *m);

void rwlock_init(struct rwlock *l, enum lock_rank rank, const char *name);
void rwlock_read_lock(struct rwlock *l);
void rwlock_read_unlock(struct rwlock *l);
void rwlock_write_lock(struct rwlock *l);
/*
 * The same, for a lock that is held across slow operations (LOCK_FS_OP): -EINTR when the thread's task was killed (base/sleep.h) and a tick has
 * passed, at most half a second; the lock is not held then.
 */
must_check int rwlock_read_lock_killable(struct rwlock *l);
must_check int rwlock_write_lock_killable(struct rwlock *l);
void rwlock_write_unlock(struct rwlock *l);
/* Writer becomes reader without letting another writer in. */
void rwlock_downgrade(struct rwlock *l);
/* A second rwlock of a rank already held (fork: parent's mm, then the child's). */
void rwlock_write_lock_nested(struct rwlock *l);

/* Before a sleep: aborts in a debug build if the thread holds any lock but those of LOCK_FS_OP. */
void lock_assert_may_sleep(void);
/* The calling thread's held locks, one name a line, into buf (debug builds; else empty). */
size_t lock_held_names(char *buf, size_t size);

/* Sequence count; writers are serialised by a lock of theirs. */
struct seqcount {
	_Atomic uint32_t seq;
};

static inline uint32_t seqcount_read_begin(const struct seqcount *s)
{
	return atomic_load_explicit(&s->seq, memory_order_acquire);
}

/* True when the section raced with a writer, or began inside one. */
static inline must_check bool seqcount_read_retry(struct seqcount *s, uint32_t start)
{
	/* An RMW orders the section's loads before it without a fence (pairs with write_begin). */
	return (start & 1) || atomic_fetch_add_explicit(&s->seq, 0, memory_order_acq_rel) != start;
}

/*
 * As seqcount_read_retry(), but without writing the cache line: every load of the section must
 * itself be an acquire load.
 */
static inline must_check bool seqcount_read_retry_acquired(const struct seqcount *s, uint32_t start)
{
	return (start & 1) || atomic_load_explicit(&s->seq, memory_order_relaxed) != start;
}

static inline void seqcount_write_begin(struct seqcount *s)
{
	/* acq_rel: the section's stores stay after the odd value. */
	atomic_fetch_add_explicit(&s->seq, 1, memory_order_acq_rel);
}

static inline void seqcount_write_end(struct seqcount *s)
{
	atomic_fetch_add_explicit(&s->seq, 1, memory_order_release);
}

#endif
