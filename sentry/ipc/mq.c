/*
 * sentry/ipc/mq.c - what a POSIX message queue does.
 *
 * A sender hands its message to a receiver that waits; only what nobody waits for is queued, and only then somebody may be
 * notified. A receiver that makes room takes the first waiting sender's message into the queue. Waiters
 * go by nice value, then by time. Messages live in the sentry's memory: bounded by RLIMIT_MSGQUEUE, which a queue is charged
 * with whole when it is made, and in all by MQ_BYTES_MAX.
 */
#include <signal.h>

#include "sentry/ipc/mq_internal.h"
#include "sentry/task_internal.h"
#include "sentry/pidns.h"

#include <linux/capability.h>

/* What Linux counts for a message, and for a priority in use, in RLIMIT_MSGQUEUE. */
#define MESSAGE_COST 48
#define PRIORITY_COST 48
#define COOKIE_WOKEN 1
#define COOKIE_REMOVED 2

struct mq_message {
	TAILQ_ENTRY(mq_message) link;
	struct mq_space *space; /* a reference: its bytes count there */
	uint32_t prio;
	size_t size;
	char text[];
};

struct mq_waiter {
	TAILQ_ENTRY(mq_waiter) link;
	struct sleeper *sleeper;
	int nice;
	bool done;
	struct mq_message *message;
};

int (*mq_deliver)(struct file *sock, const void *data, size_t size);

static REF_TYPE(space_type, "mq space");
static REF_TYPE(queue_type, "POSIX message queue");

static const struct {
	uint64_t initial, min, max;
} limit_table[MQ_LIMIT_COUNT] = {
	[MQ_LIMIT_QUEUES] = {256, 0, INT32_MAX},
	[MQ_LIMIT_MSG] = {10, 1, MQ_MSG_HARD_MAX},
	[MQ_LIMIT_MSGSIZE] = {8192, 128, MQ_MSGSIZE_HARD_MAX},
	[MQ_LIMIT_MSG_DEFAULT] = {10, 1, MQ_MSG_HARD_MAX},
	[MQ_LIMIT_MSGSIZE_DEFAULT] = {8192, 128, MQ_MSGSIZE_HARD_MAX},
};

/* ---- spaces ---- */

int mq_space_create(struct mq_space **ret)
{
	struct mq_space *s = calloc(1, sizeof(*s));

	if (!s)
		return -ENOMEM;
	ref_init(&s->ref, &space_type);
	mutex_init(&s->lock, LOCK_IPC_TABLE, "mq space");
	TAILQ_INIT(&s->queues);
	for (unsigned i = 0; i < MQ_LIMIT_COUNT; i++)
		atomic_init(&s->limits[i], limit_table[i].initial);
	*ret = s;
	return 0;
}

void mq_space_unref(struct mq_space *s)
{
	if (!ref_put(&s->ref))
		return;
	ref_fini(&s->ref, &space_type);
	free(s);
}

uint64_t mq_limit(const struct mq_space *s, enum mq_limit which)
{
	return atomic_load_explicit(&s->limits[which], memory_order_relaxed);
}

int mq_set_limit(struct mq_space *s, enum mq_limit which, uint64_t value)
{
	if (value < limit_table[which].min || value > limit_table[which].max)
		return -EINVAL;
	atomic_store_explicit(&s->limits[which], value, memory_order_relaxed);
	return 0;
}

/* ---- queues ---- */

static int queue_sizes(struct mq_space *s, const struct mq_attr_k *attr, int64_t *ret_maxmsg,
		       int64_t *ret_msgsize)
{
	uint64_t msg = mq_limit(s, MQ_LIMIT_MSG), size = mq_limit(s, MQ_LIMIT_MSGSIZE);

	*ret_maxmsg = (int64_t)MIN(msg, mq_limit(s, MQ_LIMIT_MSG_DEFAULT));
	*ret_msgsize = (int64_t)MIN(size, mq_limit(s, MQ_LIMIT_MSGSIZE_DEFAULT));
	if (!attr)
		return 0;
	if (cred_has_cap(cred_current(), CAP_SYS_RESOURCE)) {
		msg = MQ_MSG_HARD_MAX;
		size = MQ_MSGSIZE_HARD_MAX;
	}
	if (attr->maxmsg <= 0 || attr->msgsize <= 0 || (uint64_t)attr->maxmsg > msg ||
	    (uint64_t)attr->msgsize > size)
		return -EINVAL;
	*ret_maxmsg = attr->maxmsg;
	*ret_msgsize = attr->msgsize;
	return 0;
}

int mq_queue_create(struct mq_space *s, const char *name, size_t len, uint32_t mode,
		    const struct mq_attr_k *attr, struct mq_queue **ret)
{
	const struct cred *c = cred_current();
	struct task *t = task_current();
	struct mq_queue *q = calloc(1, sizeof(*q) + len + 1);
	int err = q ? queue_sizes(s, attr, &q->maxmsg, &q->msgsize) : -ENOMEM;

	if (err)
		goto out_free;
	q->charged = (uint64_t)q->maxmsg * ((uint64_t)q->msgsize + MESSAGE_COST) +
		     MIN((uint64_t)q->maxmsg, (uint64_t)MQ_PRIORITIES) * PRIORITY_COST;
	err = -EMFILE;
	if (!ucount_try_charge(t->user, UCOUNT_MQ_BYTES, (int64_t)q->charged,
			       (int64_t)MIN(task_rlimit(t, RLIMIT_MSGQUEUE), (uint64_t)INT64_MAX)))
		goto out_free;
	q->user = ucount_ref(t->user);
	ref_init(&q->ref, &queue_type);
	ref_get(&s->ref);
	q->space = s;
	q->mode = mode;
	q->uid = c->fsuid;
	q->gid = c->fsgid;
	mutex_init(&q->lock, LOCK_IPC_OBJECT, "mq queue");
	TAILQ_INIT(&q->messages);
	TAILQ_INIT(&q->senders);
	TAILQ_INIT(&q->receivers);
	wait_queue_init(&q->wait);
	q->name_len = len;
	memcpy(q->name, name, len);
	*ret = q;
	return 0;
out_free:
	free(q);
	return err;
}

void mq_queue_ref(struct mq_queue *q)
{
	ref_get(&q->ref);
}

static void notify_put(struct mq_notify *n)
{
	if (n->owner)
		group_unref(n->owner);
	if (n->sock)
		file_unref(n->sock);
}

void mq_queue_unref(struct mq_queue *q)
{
	struct mq_message *m;

	if (!ref_put(&q->ref))
		return;
	while ((m = TAILQ_FIRST(&q->messages))) {
		TAILQ_REMOVE(&q->messages, m, link);
		mq_message_free(m);
	}
	notify_put(&q->notify);
	ucount_uncharge(q->user, UCOUNT_MQ_BYTES, (int64_t)q->charged);
	ucount_put(q->user);
	mq_space_unref(q->space);
	wait_queue_fini(&q->wait);
	ref_fini(&q->ref, &queue_type);
	free(q);
}

/* ---- messages ---- */

int mq_message_create(struct file *f, size_t size, uint32_t prio, struct mq_message **ret)
{
	struct mq_queue *q = mq_queue_of(f);
	struct mq_space *s;
	struct mq_message *m;

	if (!q)
		return -EBADF;
	s = q->space;
	if (atomic_fetch_add(&s->bytes, size) + size > MQ_BYTES_MAX)
		goto out_uncharge;
	m = malloc(sizeof(*m) + size);
	if (!m)
		goto out_uncharge;
	ref_get(&s->ref);
	m->space = s;
	m->prio = prio;
	m->size = size;
	*ret = m;
	return 0;
out_uncharge:
	atomic_fetch_sub(&s->bytes, size);
	return -ENOMEM;
}

void mq_message_free(struct mq_message *m)
{
	atomic_fetch_sub(&m->space->bytes, m->size);
	mq_space_unref(m->space);
	free(m);
}

void *mq_message_text(struct mq_message *m)
{
	return m->text;
}

size_t mq_message_size(const struct mq_message *m)
{
	return m->size;
}

uint32_t mq_message_prio(const struct mq_message *m)
{
	return m->prio;
}

static void insert_locked(struct mq_queue *q, struct mq_message *m)
{
	struct mq_message *at = TAILQ_LAST(&q->messages, mq_messages);

	/* Behind those of its priority; most queues have one. */
	while (at && at->prio < m->prio)
		at = TAILQ_PREV(at, mq_messages, link);
	if (at)
		TAILQ_INSERT_AFTER(&q->messages, at, m, link);
	else
		TAILQ_INSERT_HEAD(&q->messages, m, link);
	q->count++;
	q->bytes += m->size;
}

/* ---- notification ---- */

/* The registration ends; *ret is the caller's to tell and put, unlocked. */
static void notify_take_locked(struct mq_queue *q, struct mq_notify *ret)
{
	*ret = q->notify;
	q->notify = (struct mq_notify){0};
}

/* A raw datagram on the netlink socket that the C library's helper thread reads. */
static void notify_cookie(struct mq_notify *n, uint8_t what)
{
	n->cookie[MQ_COOKIE_SIZE - 1] = what;
	if (!mq_deliver || mq_deliver(n->sock, n->cookie, sizeof(n->cookie)))
		log_debug("mq: a notification is lost: its socket is full");
}

static void notify_tell(struct mq_notify *n)
{
	struct task *t = task_current();
	struct moat_siginfo info = {.si_signo = n->signo, .si_code = SI_MESGQ};

	if (!n->owner)
		return;
	info.rt.pid = pid_nr_in(n->owner->pid_ns, t->group->tgid);
	info.rt.uid = t->cred->uid;
	info.rt.value = n->value;
	if (n->kind == MQ_NOTIFY_SIGNAL && n->signo && signal_send_group(n->owner, &info))
		log_debug("mq: a notification is lost: too many signals are queued");
	if (n->kind == MQ_NOTIFY_THREAD)
		notify_cookie(n, COOKIE_WOKEN);
	notify_put(n);
}

static void notify_remove(struct mq_notify *n)
{
	if (n->kind == MQ_NOTIFY_THREAD)
		notify_cookie(n, COOKIE_REMOVED);
	notify_put(n);
}

static bool notify_drop(struct mq_queue *q, const struct thread_group *g)
{
	struct mq_notify old = {0};
	bool mine;

	mutex_lock(&q->lock);
	mine = q->notify.owner && q->notify.owner == g;
	if (mine)
		notify_take_locked(q, &old);
	mutex_unlock(&q->lock);
	if (mine)
		notify_remove(&old);
	return mine;
}

void mq_notify_closed(struct mq_queue *q, const struct thread_group *g)
{
	(void)notify_drop(q, g);
}

int mq_notify_set(struct task *t, struct file *f, const struct mq_sigevent *ev, struct file *sock,
		  const uint8_t *cookie)
{
	struct mq_queue *q = mq_queue_of(f);
	int err = 0;

	if (!q)
		return -EBADF;
	if (!ev) {
		(void)notify_drop(q, t->group);
		return 0;
	}
	mutex_lock(&q->lock);
	if (q->notify.owner) {
		err = -EBUSY;
	} else {
		q->notify = (struct mq_notify){.signo = ev->signo, .value = ev->value};
		q->notify.kind = ev->notify == SIGEV_SIGNAL   ? MQ_NOTIFY_SIGNAL
				 : ev->notify == SIGEV_THREAD ? MQ_NOTIFY_THREAD
							      : MQ_NOTIFY_NONE;
		if (q->notify.kind == MQ_NOTIFY_THREAD) {
			q->notify.sock = file_ref(sock);
			memcpy(q->notify.cookie, cookie, MQ_COOKIE_SIZE);
		}
		group_ref(t->group);
		q->notify.owner = t->group;
	}
	mutex_unlock(&q->lock);
	return err;
}

/* ---- waiting ---- */

/* Queues up and sleeps until somebody has seen to w. Return: 0, -ETIMEDOUT, -ERESTARTSYS_. Locked, dropped in between. */
static int wait_turn(struct mq_queue *q, struct mq_waiters *list, struct mq_waiter *w,
		     const char *what, int64_t deadline)
{
	struct mq_waiter *at;
	int err;

	w->sleeper = sleeper_current();
	sleeper_set_what(w->sleeper, what);
	w->nice = task_current()->nice;
	TAILQ_FOREACH (at, list, link)
		if (at->nice > w->nice)
			break;
	if (at)
		TAILQ_INSERT_BEFORE(at, w, link);
	else
		TAILQ_INSERT_TAIL(list, w, link);
	do {
		mutex_unlock(&q->lock);
		err = sleeper_wait(w->sleeper, SLEEP_INTERRUPTIBLE, deadline);
		mutex_lock(&q->lock);
	} while (!w->done && !err);
	sleeper_set_what(w->sleeper, NULL);
	if (w->done)
		return 0;
	TAILQ_REMOVE(list, w, link);
	return err == -EINTR ? -ERESTARTSYS_ : err;
}

/* The one who waits first, off its list; whoever calls says `done` and wakes it before the lock is dropped. */
static struct mq_waiter *first_waiter(struct mq_waiters *list)
{
	struct mq_waiter *w = TAILQ_FIRST(list);

	if (w)
		TAILQ_REMOVE(list, w, link);
	return w;
}

static void waiter_done(struct mq_waiter *w, struct mq_message *m)
{
	w->message = m;
	w->done = true;
	sleeper_wake(w->sleeper);
}

/* ---- the calls ---- */

int mq_message_max(struct file *f, uint64_t *ret_bytes)
{
	struct mq_queue *q = mq_queue_of(f);

	if (!q)
		return -EBADF;
	*ret_bytes = (uint64_t)q->msgsize;
	return 0;
}

int mq_send(struct file *f, struct mq_message *m, int64_t deadline)
{
	struct mq_queue *q = mq_queue_of(f);
	struct mq_waiter self = {.message = m}, *receiver;
	struct mq_notify told = {0};
	int err = 0;

	if (!q)
		return -EBADF;
	mutex_lock(&q->lock);
	if (q->count == q->maxmsg) {
		err = file_flags(f) & O_NONBLOCK
			      ? -EAGAIN
			      : wait_turn(q, &q->senders, &self, "mq_send", deadline);
	} else if ((receiver = first_waiter(&q->receivers))) {
		waiter_done(receiver, m);
	} else {
		insert_locked(q, m);
		if (q->count == 1)
			notify_take_locked(q, &told);
		wait_queue_wake(&q->wait, POLLIN | POLLRDNORM);
	}
	mutex_unlock(&q->lock);
	notify_tell(&told);
	return err;
}

int mq_receive(struct file *f, int64_t deadline, struct mq_message **ret)
{
	struct mq_queue *q = mq_queue_of(f);
	struct mq_waiter self = {0}, *sender;
	struct mq_message *m;
	int err = 0;

	if (!q)
		return -EBADF;
	mutex_lock(&q->lock);
	m = TAILQ_FIRST(&q->messages);
	if (m) {
		TAILQ_REMOVE(&q->messages, m, link);
		q->count--;
		q->bytes -= m->size;
		sender = first_waiter(&q->senders);
		if (sender) {
			insert_locked(q, sender->message);
			waiter_done(sender, NULL);
		} else {
			wait_queue_wake(&q->wait, POLLOUT | POLLWRNORM);
		}
	} else if (file_flags(f) & O_NONBLOCK) {
		err = -EAGAIN;
	} else {
		err = wait_turn(q, &q->receivers, &self, "mq_receive", deadline);
		m = self.message;
	}
	mutex_unlock(&q->lock);
	*ret = m;
	return err;
}

int mq_getset(struct file *f, const struct mq_attr_k *set, struct mq_attr_k *ret)
{
	struct mq_queue *q = mq_queue_of(f);

	if (!q)
		return -EBADF;
	if (ret) {
		*ret = (struct mq_attr_k){.maxmsg = q->maxmsg, .msgsize = q->msgsize};
		ret->flags = file_flags(f) & O_NONBLOCK;
		mutex_lock(&q->lock);
		ret->curmsgs = q->count;
		mutex_unlock(&q->lock);
	}
	if (set && (set->flags & O_NONBLOCK))
		atomic_fetch_or(&f->flags, (unsigned)O_NONBLOCK);
	else if (set)
		atomic_fetch_and(&f->flags, ~(unsigned)O_NONBLOCK);
	return 0;
}

uint32_t mq_poll(struct mq_queue *q)
{
	uint32_t events = 0;

	mutex_lock(&q->lock);
	if (q->count)
		events |= POLLIN | POLLRDNORM;
	if (q->count < q->maxmsg)
		events |= POLLOUT | POLLWRNORM;
	mutex_unlock(&q->lock);
	return events;
}

void mq_show(struct mq_queue *q, struct buf *b)
{
	static const int kinds[] = {
		[MQ_NOTIFY_NONE] = SIGEV_NONE,
		[MQ_NOTIFY_SIGNAL] = SIGEV_SIGNAL,
		[MQ_NOTIFY_THREAD] = SIGEV_THREAD,
	};
	struct mq_notify *n = &q->notify;

	mutex_lock(&q->lock);
	buf_printf(b, "QSIZE:%-10llu NOTIFY:%-5d SIGNO:%-5d NOTIFY_PID:%-6d\n",
		   (unsigned long long)q->bytes, n->owner ? kinds[n->kind] : 0,
		   n->owner && n->kind == MQ_NOTIFY_SIGNAL ? n->signo : 0,
		   n->owner ? pid_current_vnr(n->owner->tgid) : 0);
	mutex_unlock(&q->lock);
}
