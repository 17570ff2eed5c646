/* sentry/ipc/internal.h - what the three kinds of System V objects share. */
#ifndef MOAT_SENTRY_IPC_INTERNAL_H
#define MOAT_SENTRY_IPC_INTERNAL_H

#include "base/tree.h"
#include "sentry/ipc/ipc.h"

/* What ipc_may() is asked for. */
enum { IPC_READ = 0444, IPC_WRITE = 0222, IPC_EXEC = 0111 };

#define IPC_INDEX_BITS 15
#define IPC_INDEX_MAX ((1 << IPC_INDEX_BITS) - 1)

struct ipc_ids;

struct ipc_object;

/* What a kind does that the tables do not know. */
struct ipc_kind {
	struct ref_type *type;
	void (*free)(struct ipc_object *o); /* what it owns, not itself; no locks held */
	/* It just lost its id: wakes whoever waits. Object locked. May be NULL. */
	void (*removing)(struct ipc_object *o);
};

/* First member of every kind. The table holds one reference until removal. */
struct ipc_object {
	struct ref ref;
	struct rcu_cb rcu;
	RB_ENTRY(ipc_object) key_node; /* guarded by the table's lock; not for IPC_PRIVATE */
	const struct ipc_kind *kind; /* immutable */
	struct ipc_ids *ids; /* immutable; the object keeps its memory: ipc_namespace.users */
	int32_t id; /* immutable */
	int32_t key; /* guarded by the table's lock, changed under both */
	struct mutex lock;
	/* guarded by lock: */
	bool removed;
	uint32_t uid, gid, cuid, cgid;
	uint16_t mode;
	int64_t ctime;
};

RB_HEAD(ipc_keys, ipc_object);

struct ipc_ids {
	const struct ipc_kind *kind; /* immutable */
	struct ipc_namespace *ns; /* immutable */
	struct mutex lock;
	struct idr objects; /* index -> object; changed under lock, read under RCU */
	struct ipc_keys keys; /* guarded by lock */
	int32_t count; /* guarded by lock */
	enum ipc_limit max; /* immutable: which limit bounds count */
	int32_t last_index; /* guarded by lock */
	uint16_t seq; /* guarded by lock: the id's upper bits */
	int32_t next_id; /* guarded by lock: what the next object gets, -1: what comes */
	_Atomic uint64_t used; /* pages, semaphores, or bytes of messages, in all objects */
};

struct ipc_namespace {
	struct ref ref;
	/* The references as one, and each object: who is about to remove an object may be overtaken by the namespace's end. */
	_Atomic uint64_t users;
	uint64_t id;
	struct ipc_ids shm, sem, msg;
	_Atomic uint64_t limits[IPC_LIMIT_COUNT];
	struct mq_space *mq; /* POSIX message queues; immutable, a reference */
};

/* shm.c, sem.c, msg.c */
extern const struct ipc_kind shm_kind, sem_kind, msg_kind;

/* Fills in a new object (calloc'ed) before it is entered. */
void ipc_object_init(struct ipc_object *o, struct ipc_ids *ids, int32_t key, int mode);
/*
 * The *get() calls: finds key, or enters what `make` builds. make is called under the table's lock with its
 * argument and returns a new object or an error. check: may this caller have the existing one?
 * Return: the id, -ENOENT, -EEXIST, -EACCES, -ENOSPC, what the callbacks say.
 */
struct ipc_get {
	int32_t key;
	int flags;
	int (*make)(const struct ipc_get *g, struct ipc_ids *ids, struct ipc_object **ret);
	int (*check)(const struct ipc_get *g, struct ipc_object *o); /* object locked */
	uint64_t size;
};
int64_t ipc_get(struct ipc_ids *ids, const struct ipc_get *g);

/* A locked object that is not removed, with a reference; -EINVAL, or -EIDRM. By index for the *_STAT commands. */
must_check int ipc_lock_id(struct ipc_ids *ids, int id, struct ipc_object **ret);
must_check int ipc_lock_index(struct ipc_ids *ids, int index, struct ipc_object **ret);
/* The same for IPC_STAT and *_STAT, which need IPC_READ unless any; -EACCES. */
must_check int ipc_lock_to_stat(struct ipc_ids *ids, int id, bool index_not_id, bool any,
				struct ipc_object **ret);
/* The same for IPC_SET and IPC_RMID: by owner, creator or CAP_SYS_ADMIN; -EPERM. */
must_check int ipc_lock_to_control(struct ipc_ids *ids, int id, struct ipc_object **ret);
void ipc_unlock(struct ipc_object *o); /* and drops the reference */
void ipc_object_ref(struct ipc_object *o);
void ipc_object_unref(struct ipc_object *o);
/* Takes it out of the table: both locks are taken here. False if it was out already. Drops the table's reference. */
bool ipc_object_remove(struct ipc_object *o);
/* IPC_RMID. Return 0, -EINVAL, -EIDRM, -EPERM. */
must_check int ipc_remove_id(struct ipc_ids *ids, int id);
/* Out of the key tree only: nobody finds it any more but by id. */
void ipc_object_hide(struct ipc_object *o);

/* Object locked. want: IPC_READ, IPC_WRITE. 0 or -EACCES. */
must_check int ipc_may(const struct ipc_object *o, int want);
void ipc_fill_perm(const struct ipc_object *o, struct ipc_perm *ret);
/* IPC_SET's part: owner, group, mode. Object locked. */
void ipc_set_perm(struct ipc_object *o, const struct ipc_perm *perm);
/* What IPC_INFO and kin return. */
int ipc_highest_index(struct ipc_ids *ids);
/* The next object in index order with a reference, unlocked; NULL at the end. */
struct ipc_object *ipc_next(struct ipc_ids *ids, int32_t *index);
int64_t ipc_seconds(void);
int32_t ipc_caller(void); /* the calling process's id */

#endif
