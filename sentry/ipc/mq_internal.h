/* sentry/ipc/mq_internal.h - shared by mq.c and mq_fs.c. */
#ifndef MOAT_SENTRY_IPC_MQ_INTERNAL_H
#define MOAT_SENTRY_IPC_MQ_INTERNAL_H

#include "sentry/ipc/mq.h"

struct mq_queue;
struct ucount;

enum mq_notify_kind { MQ_NOTIFY_NONE, MQ_NOTIFY_SIGNAL, MQ_NOTIFY_THREAD };

/* Who hears of a message that comes to an empty queue. owner: a reference; NULL: nobody. */
struct mq_notify {
	enum mq_notify_kind kind;
	int32_t signo;
	uint64_t value;
	struct thread_group *owner;
	struct file *sock; /* a reference; THREAD */
	uint8_t cookie[MQ_COOKIE_SIZE];
};

struct mq_space {
	struct ref ref;
	struct mutex lock; /* LOCK_IPC_TABLE */
	/* guarded by lock: */
	TAILQ_HEAD(, mq_queue) queues; /* by serial */
	uint64_t count, next_serial;
	bool closed;
	struct filesystem *fs; /* references; NULL before the first use and once closed */
	struct dentry *root;
	struct mount *mount;
	_Atomic uint64_t limits[MQ_LIMIT_COUNT];
	_Atomic uint64_t bytes; /* of all messages */
};

struct mq_queue {
	struct ref ref;
	struct mq_space *space; /* immutable; a reference */
	int64_t maxmsg, msgsize; /* immutable */
	struct ucount *user; /* immutable; a reference: who is charged */
	uint64_t charged; /* immutable: RLIMIT_MSGQUEUE's bytes */
	uint64_t serial; /* immutable */
	/* guarded by the space's lock: */
	TAILQ_ENTRY(mq_queue) link;
	bool linked;
	uint32_t mode, uid, gid; /* the nodes have no own */
	struct mutex lock; /* LOCK_IPC_OBJECT */
	/* guarded by lock: */
	TAILQ_HEAD(mq_messages, mq_message) messages; /* highest priority first */
	TAILQ_HEAD(mq_waiters, mq_waiter) senders, receivers; /* lowest nice value first */
	int64_t count;
	uint64_t bytes;
	struct mq_notify notify;
	struct wait_queue wait; /* poll */
	size_t name_len; /* immutable */
	char name[]; /* immutable */
};

void mq_space_unref(struct mq_space *s);
void mq_queue_ref(struct mq_queue *q);
void mq_queue_unref(struct mq_queue *q);
/* attr NULL: the defaults. Return: 0 and a reference; -EINVAL, -EMFILE, -ENOMEM. */
must_check int mq_queue_create(struct mq_space *s, const char *name, size_t len, uint32_t mode,
			       const struct mq_attr_k *attr, struct mq_queue **ret);
/* mq_fs.c: the queue of an open file; NULL if it is none. */
struct mq_queue *mq_queue_of(const struct file *f);
/* close(2) by somebody of this process: it wants to hear no more. */
void mq_notify_closed(struct mq_queue *q, const struct thread_group *g);
uint32_t mq_poll(struct mq_queue *q);
void mq_show(struct mq_queue *q, struct buf *b);

#endif
