/*
 * sentry/ipc/mq.h - POSIX message queues (mq_overview(7)).
 *
 * A namespace has one space of queues, which one filesystem of type mqueue shows: mq_fs.c. A queue's descriptor is an open file of
 * that filesystem, so names, permissions and descriptors are the VFS's; mq.c has what a queue does.
 *
 *	space's lock (LOCK_IPC_TABLE): which queues there are
 *	  queue's lock (LOCK_IPC_OBJECT): messages, waiters, who is to be notified
 *
 * No user memory is touched, nothing sleeps and no signal is sent under them.
 */
#ifndef MOAT_SENTRY_IPC_MQ_H
#define MOAT_SENTRY_IPC_MQ_H

#include "sentry/task.h"
#include "vfs/vfs.h"

/* /proc/sys/fs/mqueue, for each namespace; at first the values in brackets. */
enum mq_limit {
	MQ_LIMIT_QUEUES, /* [256] */
	MQ_LIMIT_MSG, /* messages of a queue, without CAP_SYS_RESOURCE [10] */
	MQ_LIMIT_MSGSIZE, /* bytes of a message, likewise [8192] */
	MQ_LIMIT_MSG_DEFAULT, /* of a queue made without attributes [10] */
	MQ_LIMIT_MSGSIZE_DEFAULT, /* [8192] */
	MQ_LIMIT_COUNT
};

enum {
	MQ_PRIORITIES = 32768,
	/* With CAP_SYS_RESOURCE: Linux's HARD_MSGMAX and HARD_MSGSIZEMAX. */
	MQ_MSG_HARD_MAX = 65536,
	MQ_MSGSIZE_HARD_MAX = 16 << 20,
	MQ_BYTES_MAX =
		64 << 20, /* all messages of a namespace, in the sentry's memory: ENOMEM beyond */
	MQ_COOKIE_SIZE = 32,
};

/* struct mq_attr of the kernel ABI. */
struct mq_attr_k {
	int64_t flags, maxmsg, msgsize, curmsgs, reserved[4];
};

/* struct sigevent of the kernel ABI, as far as mq_notify(2) looks. */
struct mq_sigevent {
	uint64_t value;
	int32_t signo, notify;
	uint8_t rest[48];
};

struct mq_space;
struct mq_message;

must_check int mq_space_create(struct mq_space **ret);
/* The namespace ends: no queue is found any more. NULL is ignored. */
void mq_space_close(struct mq_space *s);
uint64_t mq_limit(const struct mq_space *s, enum mq_limit which);
/* Return: 0, -EINVAL. Queues that exist stay. */
must_check int mq_set_limit(struct mq_space *s, enum mq_limit which, uint64_t value);

/* SIGEV_THREAD: hands a datagram to a netlink socket; installed at boot (netlink_deliver()). */
extern int (*mq_deliver)(struct file *sock, const void *data, size_t size);
/* Once at boot: the filesystem type mqueue. */
void mq_register(void);

/*
 * mq_open(2) without the descriptor. attr: of a queue that is made, or NULL. Return: 0 and a reference; -ENOENT, -EEXIST, -EACCES, -EINVAL,
 * -EMFILE (RLIMIT_MSGQUEUE), -ENOSPC, ...
 */
must_check int mq_open_file(struct task *t, const char *name, unsigned flags, uint32_t mode,
			    const struct mq_attr_k *attr, struct file **ret);
must_check int mq_unlink_name(struct task *t, const char *name);
/* Is it a queue's descriptor? Everything below is -EBADF if not. */
bool mq_is_queue(const struct file *f);
/* A queue's largest message. */
must_check int mq_message_max(struct file *f, uint64_t *ret_bytes);

must_check int mq_message_create(struct file *f, size_t size, uint32_t prio,
				 struct mq_message **ret);
void mq_message_free(struct mq_message *m);
void *mq_message_text(struct mq_message *m);
size_t mq_message_size(const struct mq_message *m);
uint32_t mq_message_prio(const struct mq_message *m);
/* Takes the message on success. deadline: as sleeper_wait(). -EAGAIN, -ETIMEDOUT, -ERESTARTSYS_. */
must_check int mq_send(struct file *f, struct mq_message *m, int64_t deadline);
/* Return: 0 with a message that is the caller's; as mq_send(). */
must_check int mq_receive(struct file *f, int64_t deadline, struct mq_message **ret);
/* ev: NULL: no more. SIGEV_THREAD's socket is `sock` (a reference is taken), its cookie 32 bytes. -EBUSY, -EINVAL. */
must_check int mq_notify_set(struct task *t, struct file *f, const struct mq_sigevent *ev,
			     struct file *sock, const uint8_t *cookie);
/* Either may be NULL. */
must_check int mq_getset(struct file *f, const struct mq_attr_k *set, struct mq_attr_k *ret);

#endif
