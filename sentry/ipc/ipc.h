/*
 * sentry/ipc/ipc.h - System V IPC: shared memory segments, semaphore sets, message queues.
 *
 * A struct ipc_namespace has one table (struct ipc_ids) for each of the three. An object is found by its id under
 * RCU, or by its key under the table's lock; its contents are guarded by its own lock. Structures that cross
 * to the application (struct shmid_ds ...) are the C library's, which on x86-64 are the kernel's.
 *
 *	undo list's lock (LOCK_IPC_UNDO)
 *	  table's lock (LOCK_IPC_TABLE): keys, ids, limits in use
 *	    object's lock (LOCK_IPC_OBJECT): everything else
 *
 * All three rank below the mm's locks in the order of taking: a segment learns under vma_lock that it was
 * mapped or unmapped. No user memory is touched and nothing sleeps under them.
 * Errors are Linux's (ipc/shm.c, sem.c, msg.c); functions return 0 or more, or -errno.
 */
#ifndef MOAT_SENTRY_IPC_IPC_H
#define MOAT_SENTRY_IPC_IPC_H

#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>

#include "base/buf.h"
#include "sentry/task.h"

/* What /proc/sys/kernel shows and sets, for each namespace; at first the values in brackets. */
enum ipc_limit {
	IPC_LIMIT_SHMMAX, /* bytes of a segment [IPC_SHM_SIZE_MAX] */
	IPC_LIMIT_SHMALL, /* pages of all [IPC_SHM_SIZE_MAX] */
	IPC_LIMIT_SHMMNI, /* segments [4096] */
	IPC_LIMIT_MSGMAX, /* bytes of a message [8192] */
	IPC_LIMIT_MSGMNB, /* bytes of a queue [16384] */
	IPC_LIMIT_MSGMNI, /* queues [32000] */
	IPC_LIMIT_SEMMSL, /* semaphores of a set [32000] */
	IPC_LIMIT_SEMMNS, /* of all [IPC_SEMS_MAX] */
	IPC_LIMIT_SEMOPM, /* operations of a call [500] */
	IPC_LIMIT_SEMMNI, /* sets [32000] */
	IPC_LIMIT_COUNT
};

/* Bounds of ours that no sysctl lifts. */
enum {
	IPC_OBJECTS_MAX = 32768, /* of a kind: IPCMNI */
	IPC_SEMS_PER_SET_MAX = 65536,
	/* semmns. Linux allows 1,024,000,000 and charges their memory to the cgroup; here it is the sentry's own. */
	IPC_SEMS_MAX = 1024000,
	IPC_SEM_OPS_MAX = 4096,
	IPC_SEM_VALUE_MAX = 32767,
	IPC_MSG_SIZE_MAX = 1 << 20,
	IPC_MSG_BYTES_MAX =
		64 << 20, /* all messages of a namespace, in the sentry's memory: ENOMEM beyond */
};
#define IPC_SHM_SIZE_MAX 18446744073692774399ul

struct ipc_namespace;
struct sem_undo_list;
struct mq_space;
struct ipc_message;

must_check int ipc_namespace_create(struct ipc_namespace **ret);
void ipc_namespace_ref(struct ipc_namespace *ns);
/* The last reference removes every object; segments that are attached live on without an id. NULL is ignored. */
void ipc_namespace_unref(struct ipc_namespace *ns);
uint64_t ipc_limit(const struct ipc_namespace *ns, enum ipc_limit which);
/* Return: 0, -EINVAL when it is more than this sentry bears. Objects that exist stay. */
must_check int ipc_set_limit(struct ipc_namespace *ns, enum ipc_limit which, uint64_t value);
/* The id that the next new object of a kind gets, or one of the same sequence above it; -1: none in particular. For restoring processes. */
enum ipc_table { IPC_TABLE_SHM, IPC_TABLE_SEM, IPC_TABLE_MSG };
int32_t ipc_next_id(struct ipc_namespace *ns, enum ipc_table which);
void ipc_set_next_id(struct ipc_namespace *ns, enum ipc_table which, int32_t id);
/* POSIX message queues (ipc/mq.h); borrowed. */
struct mq_space *ipc_namespace_mq(const struct ipc_namespace *ns);
uint64_t ipc_namespace_id(const struct ipc_namespace *ns); /* the inode of /proc/PID/ns/ipc */

/* ---- shared memory ---- */

int64_t shm_get(struct ipc_namespace *ns, int32_t key, uint64_t size, int flags);
/* shmat(2) into t's mm. */
int64_t shm_attach(struct task *t, int id, uint64_t addr, int flags);
int64_t shm_detach(struct task *t, uint64_t addr);
/* index_not_id: SHM_STAT's argument is an index; any: SHM_STAT_ANY asks for no permission. Return: 0, the id for an index. */
int64_t shm_stat(struct ipc_namespace *ns, int id, bool index_not_id, bool any,
		 struct shmid_ds *ret);
int64_t shm_set(struct ipc_namespace *ns, int id, const struct shmid_ds *ds);
int64_t shm_remove(struct ipc_namespace *ns, int id);
int64_t shm_lock(struct task *t, int id, bool lock);
/* IPC_INFO, SHM_INFO. Return: the highest index in use. */
int64_t shm_limits(struct ipc_namespace *ns, struct shminfo *ret);
int64_t shm_info(struct ipc_namespace *ns, struct shm_info *ret);

/* ---- semaphores ---- */

int64_t sem_get(struct ipc_namespace *ns, int32_t key, int count, int flags);
/* deadline: as sleeper_wait(). Return: 0, -EAGAIN (also when the time is up), -EINTR, -EIDRM ... */
int64_t sem_operate(struct task *t, int id, const struct sembuf *ops, unsigned count,
		    int64_t deadline);
int64_t sem_stat(struct ipc_namespace *ns, int id, bool index_not_id, bool any,
		 struct semid_ds *ret);
int64_t sem_set(struct ipc_namespace *ns, int id, const struct semid_ds *ds);
int64_t sem_remove(struct ipc_namespace *ns, int id);
/* GETVAL, GETPID, GETNCNT, GETZCNT. */
int64_t sem_get_one(struct ipc_namespace *ns, int id, int num, int cmd);
int64_t sem_set_one(struct task *t, int id, int num, int value);
/* How many semaphores; for the size of the next two's arrays. Asks for the permission they will. */
int64_t sem_count(struct ipc_namespace *ns, int id, bool to_write);
int64_t sem_get_all(struct ipc_namespace *ns, int id, uint16_t *values, unsigned count);
int64_t sem_set_all(struct task *t, int id, const uint16_t *values, unsigned count);
/* IPC_INFO (in_use false: limits), SEM_INFO. */
int64_t sem_limits(struct ipc_namespace *ns, bool in_use, struct seminfo *ret);

/* SEM_UNDO: shared by CLONE_SYSVSEM, else each task's own, made at first use. */
void sem_undo_ref(struct sem_undo_list *list);
/* The last user's undoes what it did. NULL is ignored. */
void sem_undo_unref(struct sem_undo_list *list);
/* The calling task's list, made if there is none: for CLONE_SYSVSEM, whose child shares it. NULL: no memory. */
struct sem_undo_list *sem_undo_list_get(struct task *t);

/* ---- messages ---- */

int64_t msg_get(struct ipc_namespace *ns, int32_t key, int flags);
must_check int ipc_message_create(size_t size, struct ipc_message **ret);
void ipc_message_free(struct ipc_message *m);
void *ipc_message_text(struct ipc_message *m);
size_t ipc_message_size(const struct ipc_message *m);
int64_t ipc_message_type(const struct ipc_message *m);
/* Takes the message on success. -ERESTARTNOHAND_ when a signal came. */
int64_t msg_send(struct task *t, int id, struct ipc_message *m, int64_t type, int flags);
/* Return: 0 with a message that is the caller's, -ENOMSG, -E2BIG, ... */
int64_t msg_receive(struct task *t, int id, size_t size, int64_t type, int flags,
		    struct ipc_message **ret);
int64_t msg_stat(struct ipc_namespace *ns, int id, bool index_not_id, bool any,
		 struct msqid_ds *ret);
int64_t msg_set(struct ipc_namespace *ns, int id, const struct msqid_ds *ds);
int64_t msg_remove(struct ipc_namespace *ns, int id);
int64_t msg_limits(struct ipc_namespace *ns, bool in_use, struct msginfo *ret);

/* ---- /proc/sysvipc ---- */

void shm_show(struct ipc_namespace *ns, struct buf *b);
void sem_show(struct ipc_namespace *ns, struct buf *b);
void msg_show(struct ipc_namespace *ns, struct buf *b);

#endif
