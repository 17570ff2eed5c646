/*
 * sentry/ipc/msg.c - message queues.
 *
 * A sender looks for a waiting receiver first and hands the message over; only what nobody waits for is queued. Senders
 * that found the queue full wait in order and try again when something was taken. Messages live in
 * the sentry's memory, bounded for each queue (msg_qbytes) and in all (IPC_MSG_BYTES_MAX).
 */
#include <string.h>
#include <linux/capability.h>

#include "sentry/ipc/internal.h"
#include "sentry/pidns.h"

#ifndef MSG_EXCEPT
#define MSG_EXCEPT 020000
#endif
#ifndef MSG_COPY
#define MSG_COPY 040000
#endif

struct ipc_message {
	TAILQ_ENTRY(ipc_message) link;
	int64_t type;
	size_t size;
	struct ipc_ids *charged; /* its bytes count there; NULL: not queued yet, or no longer */
	char text[];
};

struct msg_receiver {
	TAILQ_ENTRY(msg_receiver) link;
	struct sleeper *sleeper;
	int64_t type;
	int flags;
	size_t size;
	int32_t pid;
	bool done;
	int status; /* of done */
	struct ipc_message *message;
};

struct msg_sender {
	TAILQ_ENTRY(msg_sender) link;
	struct sleeper *sleeper;
	bool queued;
};

struct msg_queue {
	struct ipc_object object;
	/* guarded by object.lock: */
	TAILQ_HEAD(, ipc_message) messages;
	TAILQ_HEAD(, msg_receiver) receivers;
	TAILQ_HEAD(, msg_sender) senders;
	uint64_t bytes, count, max_bytes;
	int64_t stime, rtime;
	int32_t last_sender, last_receiver;
};

static REF_TYPE(queue_type, "message queue");

static struct msg_queue *queue_of(struct ipc_object *o)
{
	return container_of(o, struct msg_queue, object);
}

/* ---- messages ---- */

int ipc_message_create(size_t size, struct ipc_message **ret)
{
	struct ipc_message *m;

	if (size > IPC_MSG_SIZE_MAX)
		return -EINVAL;
	m = calloc(1, sizeof(*m) + size);
	if (!m)
		return -ENOMEM;
	m->size = size;
	*ret = m;
	return 0;
}

void ipc_message_free(struct ipc_message *m)
{
	free(m);
}

void *ipc_message_text(struct ipc_message *m)
{
	return m->text;
}

size_t ipc_message_size(const struct ipc_message *m)
{
	return m->size;
}

int64_t ipc_message_type(const struct ipc_message *m)
{
	return m->type;
}

static void uncharge(struct ipc_message *m)
{
	if (m->charged)
		atomic_fetch_sub(&m->charged->used, m->size + sizeof(*m));
	m->charged = NULL;
}

static bool charge(struct ipc_ids *ids, struct ipc_message *m)
{
	uint64_t bytes = m->size + sizeof(*m);

	if (atomic_fetch_add(&ids->used, bytes) + bytes > IPC_MSG_BYTES_MAX) {
		atomic_fetch_sub(&ids->used, bytes);
		return false;
	}
	m->charged = ids;
	return true;
}

/* ---- queues ---- */

static void wake_senders(struct msg_queue *q)
{
	struct msg_sender *s;

	while ((s = TAILQ_FIRST(&q->senders))) {
		TAILQ_REMOVE(&q->senders, s, link);
		s->queued = false;
		sleeper_wake(s->sleeper);
	}
}

static void finish_receiver(struct msg_queue *q, struct msg_receiver *r, struct ipc_message *m,
			    int status)
{
	TAILQ_REMOVE(&q->receivers, r, link);
	r->message = m;
	r->status = status;
	r->done = true;
	sleeper_wake(r->sleeper);
}

static void queue_removing(struct ipc_object *o)
{
	struct msg_queue *q = queue_of(o);
	struct ipc_message *m;

	while (!TAILQ_EMPTY(&q->receivers))
		finish_receiver(q, TAILQ_FIRST(&q->receivers), NULL, -EIDRM);
	wake_senders(q);
	TAILQ_FOREACH (m, &q->messages, link)
		uncharge(m);
}

static void queue_free(struct ipc_object *o)
{
	struct msg_queue *q = queue_of(o);
	struct ipc_message *m;

	while ((m = TAILQ_FIRST(&q->messages))) {
		TAILQ_REMOVE(&q->messages, m, link);
		ipc_message_free(m);
	}
}

const struct ipc_kind msg_kind = {
	.type = &queue_type,
	.free = queue_free,
	.removing = queue_removing,
};

static int queue_make(const struct ipc_get *g, struct ipc_ids *ids, struct ipc_object **ret)
{
	struct msg_queue *q = calloc(1, sizeof(*q));

	if (!q)
		return -ENOMEM;
	TAILQ_INIT(&q->messages);
	TAILQ_INIT(&q->receivers);
	TAILQ_INIT(&q->senders);
	q->max_bytes = ipc_limit(ids->ns, IPC_LIMIT_MSGMNB);
	ipc_object_init(&q->object, ids, g->key, g->flags);
	*ret = &q->object;
	return 0;
}

static int queue_check(unused_arg const struct ipc_get *g, unused_arg struct ipc_object *o)
{
	return 0;
}

int64_t msg_get(struct ipc_namespace *ns, int32_t key, int flags)
{
	const struct ipc_get g = {
		.key = key,
		.flags = flags,
		.make = queue_make,
		.check = queue_check,
	};

	return ipc_get(&ns->msg, &g);
}

/* ---- msgsnd ---- */

/* Does a receiver that asks for `type` take this one? */
static bool matches(const struct ipc_message *m, int64_t type, int flags)
{
	if (!type)
		return true;
	if (type < 0)
		return m->type <= (type == INT64_MIN ? INT64_MAX : -type);
	return (m->type == type) != !!(flags & MSG_EXCEPT);
}

static bool hand_over(struct msg_queue *q, struct ipc_message *m)
{
	struct msg_receiver *r, *next;

	for (r = TAILQ_FIRST(&q->receivers); r; r = next) {
		next = TAILQ_NEXT(r, link);
		if (!matches(m, r->type, r->flags))
			continue;
		if (m->size > r->size && !(r->flags & MSG_NOERROR)) {
			finish_receiver(q, r, NULL, -E2BIG);
			continue;
		}
		q->last_receiver = r->pid;
		q->rtime = ipc_seconds();
		finish_receiver(q, r, m, 0);
		return true;
	}
	return false;
}

static bool has_room(const struct msg_queue *q, const struct ipc_message *m)
{
	return q->bytes + m->size <= q->max_bytes && q->count + 1 <= q->max_bytes;
}

/* Queue locked before and after. */
static int wait_for_room(struct msg_queue *q)
{
	struct msg_sender s = {.sleeper = sleeper_current(), .queued = true};
	int err;

	TAILQ_INSERT_TAIL(&q->senders, &s, link);
	sleeper_set_what(s.sleeper, "msgsnd");
	do {
		mutex_unlock(&q->object.lock);
		err = sleeper_wait(s.sleeper, SLEEP_INTERRUPTIBLE, TIME_FOREVER);
		mutex_lock(&q->object.lock);
	} while (s.queued && !err);
	sleeper_set_what(s.sleeper, NULL);
	if (s.queued)
		TAILQ_REMOVE(&q->senders, &s, link);
	if (q->object.removed)
		return -EIDRM;
	return err ? -ERESTARTNOHAND_ : 0;
}

/* Queue locked. */
static int send_locked(struct msg_queue *q, struct ipc_message *m, int flags)
{
	int err;

	for (;;) {
		err = ipc_may(&q->object, IPC_WRITE);
		if (err)
			return err;
		if (has_room(q, m))
			break;
		if (flags & IPC_NOWAIT)
			return -EAGAIN;
		err = wait_for_room(q);
		if (err)
			return err;
	}
	q->last_sender = ipc_caller();
	q->stime = ipc_seconds();
	if (hand_over(q, m))
		return 0;
	if (!charge(q->object.ids, m))
		return -ENOMEM;
	TAILQ_INSERT_TAIL(&q->messages, m, link);
	q->bytes += m->size;
	q->count++;
	return 0;
}

int64_t msg_send(struct task *t, int id, struct ipc_message *m, int64_t type, int flags)
{
	struct ipc_object *o;
	int err = ipc_lock_id(&t->ipc_ns->msg, id, &o);

	if (err)
		return err;
	m->type = type;
	err = send_locked(queue_of(o), m, flags);
	ipc_unlock(o);
	return err;
}

/* ---- msgrcv ---- */

/* The message to take: the first that fits, or of type < 0 the first of the lowest type. */
static struct ipc_message *find_message(struct msg_queue *q, int64_t type, int flags)
{
	struct ipc_message *m, *best = NULL;

	TAILQ_FOREACH (m, &q->messages, link) {
		if (!matches(m, type, flags))
			continue;
		if (type >= 0)
			return m;
		if (!best || m->type < best->type)
			best = m;
	}
	return best;
}

static int wait_for_message(struct msg_queue *q, struct msg_receiver *r)
{
	int err;

	r->sleeper = sleeper_current();
	TAILQ_INSERT_TAIL(&q->receivers, r, link);
	sleeper_set_what(r->sleeper, "msgrcv");
	do {
		mutex_unlock(&q->object.lock);
		err = sleeper_wait(r->sleeper, SLEEP_INTERRUPTIBLE, TIME_FOREVER);
		mutex_lock(&q->object.lock);
	} while (!r->done && !err);
	sleeper_set_what(r->sleeper, NULL);
	if (r->done)
		return r->status;
	TAILQ_REMOVE(&q->receivers, r, link);
	return -ERESTARTNOHAND_;
}

/* MSG_COPY: the message at a place in the queue stays there. */
static int copy_locked(struct msg_queue *q, struct msg_receiver *r)
{
	int64_t place = r->type;
	struct ipc_message *m;
	int err;

	if (place < 0)
		return -ENOMSG;
	TAILQ_FOREACH (m, &q->messages, link)
		if (place-- == 0)
			break;
	if (!m)
		return -ENOMSG;
	if (m->size > r->size)
		return r->flags & MSG_NOERROR ? -EINVAL : -E2BIG;
	err = ipc_message_create(m->size, &r->message);
	if (err)
		return err;
	r->message->type = m->type;
	memcpy(r->message->text, m->text, m->size);
	return 0;
}

static int receive_locked(struct msg_queue *q, struct msg_receiver *r)
{
	struct ipc_message *m;
	int err = ipc_may(&q->object, IPC_READ);

	if (err)
		return err;
	if (r->flags & MSG_COPY)
		return copy_locked(q, r);
	m = find_message(q, r->type, r->flags);
	if (!m)
		return r->flags & IPC_NOWAIT ? -ENOMSG : wait_for_message(q, r);
	if (m->size > r->size && !(r->flags & MSG_NOERROR))
		return -E2BIG;
	TAILQ_REMOVE(&q->messages, m, link);
	uncharge(m);
	q->bytes -= m->size;
	q->count--;
	q->last_receiver = r->pid;
	q->rtime = ipc_seconds();
	r->message = m;
	wake_senders(q);
	return 0;
}

int64_t msg_receive(struct task *t, int id, size_t size, int64_t type, int flags,
		    struct ipc_message **ret)
{
	struct msg_receiver r = {
		.type = type,
		.flags = flags,
		.size = size,
		.pid = t->group->tgid,
	};
	struct ipc_object *o;
	int err = ipc_lock_id(&t->ipc_ns->msg, id, &o);

	if (err)
		return err;
	err = receive_locked(queue_of(o), &r);
	ipc_unlock(o);
	*ret = r.message;
	return err;
}

/* ---- msgctl ---- */

int64_t msg_stat(struct ipc_namespace *ns, int id, bool index_not_id, bool any,
		 struct msqid_ds *ret)
{
	struct ipc_object *o;
	struct msg_queue *q;
	int err = ipc_lock_to_stat(&ns->msg, id, index_not_id, any, &o);

	if (err)
		return err;
	q = queue_of(o);
	*ret = (struct msqid_ds){
		.msg_stime = q->stime,
		.msg_rtime = q->rtime,
		.msg_ctime = o->ctime,
		.__msg_cbytes = q->bytes,
		.msg_qnum = q->count,
		.msg_qbytes = q->max_bytes,
		.msg_lspid = pid_current_vnr(q->last_sender),
		.msg_lrpid = pid_current_vnr(q->last_receiver),
	};
	ipc_fill_perm(o, &ret->msg_perm);
	err = index_not_id ? o->id : 0;
	ipc_unlock(o);
	return err;
}

int64_t msg_set(struct ipc_namespace *ns, int id, const struct msqid_ds *ds)
{
	struct ipc_object *o;
	int err = ipc_lock_to_control(&ns->msg, id, &o);

	if (err)
		return err;
	if (ds->msg_qbytes > ipc_limit(ns, IPC_LIMIT_MSGMNB) &&
	    !cred_has_cap(cred_current(), CAP_SYS_RESOURCE))
		err = -EPERM;
	if (!err) {
		struct msg_queue *q = queue_of(o);

		q->max_bytes = ds->msg_qbytes;
		ipc_set_perm(o, &ds->msg_perm);
		/* A receiver may have lost its right, a sender found its room. */
		while (!TAILQ_EMPTY(&q->receivers))
			finish_receiver(q, TAILQ_FIRST(&q->receivers), NULL, -EAGAIN);
		wake_senders(q);
	}
	ipc_unlock(o);
	return err;
}

int64_t msg_remove(struct ipc_namespace *ns, int id)
{
	return ipc_remove_id(&ns->msg, id);
}

int64_t msg_limits(struct ipc_namespace *ns, bool in_use, struct msginfo *ret)
{
	struct ipc_object *o;
	int32_t index = 0;

	*ret = (struct msginfo){
		.msgmni = (int)ipc_limit(ns, IPC_LIMIT_MSGMNI),
		.msgmax = (int)ipc_limit(ns, IPC_LIMIT_MSGMAX),
		.msgmnb = (int)ipc_limit(ns, IPC_LIMIT_MSGMNB),
		.msgssz = 16,
		.msgseg = 0xffff,
		.msgpool = (int)(ipc_limit(ns, IPC_LIMIT_MSGMNI) *
				 (ipc_limit(ns, IPC_LIMIT_MSGMNB) / 1024)),
		.msgmap = (int)ipc_limit(ns, IPC_LIMIT_MSGMNB),
		.msgtql = (int)ipc_limit(ns, IPC_LIMIT_MSGMNB),
	};
	if (!in_use)
		return ipc_highest_index(&ns->msg);
	ret->msgpool = ret->msgmap = ret->msgtql = 0;
	while ((o = ipc_next(&ns->msg, &index))) {
		mutex_lock(&o->lock);
		ret->msgpool++;
		ret->msgmap += (int)queue_of(o)->count;
		ret->msgtql += (int)queue_of(o)->bytes;
		mutex_unlock(&o->lock);
		ipc_object_unref(o);
	}
	return ipc_highest_index(&ns->msg);
}

void msg_show(struct ipc_namespace *ns, struct buf *b)
{
	struct ipc_object *o;
	int32_t index = 0;

	buf_printf(b, "       key      msqid perms      cbytes       qnum lspid lrpid   uid   gid"
		      "  cuid  cgid      stime      rtime      ctime\n");
	while ((o = ipc_next(&ns->msg, &index))) {
		struct msg_queue *q = queue_of(o);

		mutex_lock(&o->lock);
		buf_printf(b,
			   "%10d %10d  %4o  %10lu %10lu %5u %5u %5u %5u %5u %5u %10lld %10lld"
			   " %10lld\n",
			   o->key, o->id, o->mode, (unsigned long)q->bytes, (unsigned long)q->count,
			   (unsigned)pid_current_vnr(q->last_sender),
			   (unsigned)pid_current_vnr(q->last_receiver), o->uid, o->gid, o->cuid,
			   o->cgid, (long long)q->stime, (long long)q->rtime, (long long)o->ctime);
		mutex_unlock(&o->lock);
		ipc_object_unref(o);
	}
}
