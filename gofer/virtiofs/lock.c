/*
 * gofer/virtiofs/lock.c - remote locks: GETLK, SETLK, SETLKW for POSIX locks and for flock(2).
 *
 * A POSIX lock belongs to (file, owner) of the client. Each such pair has a descriptor of its own here, and locks are the host's open-file-description locks
 * on it: other clients, other owners and the host's programs conflict with them as on one machine. They go when the owner unlocks everything, at its FLUSH
 * (close(2)), and with the node; one that is waited for stays so. flock(2)'s locks are taken on the handle's own descriptor and go with it.
 *
 * A queue's thread must not wait: the unlocking it waits for may stand behind it in the ring. A lock that is not to be had at once is waited for by a
 * thread of its own (WAITS_MAX of them), which answers into the ring; INTERRUPT, and the end of the queue, take it out with EINTR. INTERRUPT is itself
 * answered: 0, or EAGAIN for a request that is not waiting here (not yet, or no more): whoever still waits for that one asks again.
 *
 * Locks: waits_lock (leaf), not together with nodes_lock, which guards owners. A wait's slot is the thread's from FREE to DONE; whoever turns it to CLAIMED
 * joins the thread and makes it FREE.
 */
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "gofer/virtiofs/server.h"

#define WAIT_STACK_BYTES (256ul << 10)
#define CLAIMED_MS 1 /* between looks at a wait that another thread ends */

/* ---- owners ---- */

static void owner_free(struct daemon *d, struct lock_owner *o)
{
	close(o->fd);
	file_release(d);
	free(o);
}

static void owner_put(struct daemon *d, struct lock_owner *o)
{
	bool last;

	mutex_lock(&d->nodes_lock);
	last = --o->refs == 0;
	mutex_unlock(&d->nodes_lock);
	if (last)
		owner_free(d, o);
}

/* A use of the owner's; NULL: it has none. Pre: nodes_lock. */
static struct lock_owner *owner_find(struct node *n, uint64_t id)
{
	struct lock_owner *o;

	for (o = n->owners; o && o->id != id; o = o->next)
		;
	if (o)
		o->refs++;
	return o;
}

static struct lock_owner *owner_get(struct daemon *d, struct node *n, uint64_t id)
{
	struct lock_owner *o;

	mutex_lock(&d->nodes_lock);
	o = owner_find(n, id);
	mutex_unlock(&d->nodes_lock);
	return o;
}

/* For writing, if that can be: an exclusive lock wants it. What the client's file is open for is the client's to check. */
static int owner_open(struct daemon *d, const struct node *n)
{
	int fd = n->type == S_IFREG ? node_open(d, n, O_RDWR | O_NONBLOCK) : -EINVAL;

	return fd < 0 && n->type == S_IFREG ? node_open(d, n, O_RDONLY | O_NONBLOCK) : fd;
}

/* A use of the owner's, made if need be. -errno. */
static int owner_make(struct daemon *d, struct node *n, uint64_t id, struct lock_owner **ret)
{
	struct lock_owner *o = owner_get(d, n, id), *fresh;
	int fd;

	if (o) {
		*ret = o;
		return 0;
	}
	fd = owner_open(d, n);
	if (fd < 0)
		return fd;
	fresh = malloc(sizeof(*fresh));
	if (!fresh || !file_reserve(d)) {
		close(fd);
		free(fresh);
		return -ENOLCK;
	}
	*fresh = (struct lock_owner){.id = id, .fd = fd, .refs = 2};
	mutex_lock(&d->nodes_lock);
	o = owner_find(n, id);
	if (!o) {
		fresh->next = n->owners;
		n->owners = fresh;
	}
	mutex_unlock(&d->nodes_lock);
	if (o)
		owner_free(d, fresh);
	*ret = o ? o : fresh;
	return 0;
}

void locks_drop_owner(struct daemon *d, struct node *n, uint64_t id)
{
	struct flock all = {.l_type = F_UNLCK, .l_whence = SEEK_SET};
	struct lock_owner **p, *o;
	bool busy;

	if (!d->config.posix_lock)
		return;
	mutex_lock(&d->nodes_lock);
	for (p = &n->owners; *p && (*p)->id != id; p = &(*p)->next)
		;
	o = *p;
	/* A lock that is being waited for is the owner's when it is granted, whatever it gave up before. */
	busy = o && o->refs > 1;
	if (busy)
		o->refs++;
	else if (o)
		*p = o->next;
	mutex_unlock(&d->nodes_lock);
	if (busy)
		(void)fcntl(o->fd, F_OFD_SETLK, &all);
	if (o)
		owner_put(d, o);
}

void locks_drop_all(struct daemon *d, struct node *n)
{
	while (n->owners) {
		struct lock_owner *o = n->owners;

		n->owners = o->next;
		owner_put(d, o);
	}
}

/* ---- waiting ---- */

/* Return: 0, -errno; -EAGAIN: not now (wait: never). */
static int take(const struct lock_wait *w, bool wait)
{
	struct flock lk = w->lk;
	int ret;

	if (w->handle)
		ret = flock(w->handle->fd, w->flock | (wait ? 0 : LOCK_NB));
	else
		ret = fcntl(w->owner->fd, wait ? F_OFD_SETLKW : F_OFD_SETLK, &lk);
	if (ret == 0)
		return 0;
	return errno == EACCES && !wait ? -EAGAIN : -errno;
}

static void wait_drop(struct daemon *d, struct lock_wait *w)
{
	if (w->handle)
		handle_put(d, w->handle);
	if (w->owner)
		owner_put(d, w->owner);
	w->handle = NULL;
	w->owner = NULL;
}

static void *wait_main(void *arg)
{
	struct lock_wait *w = arg;
	struct daemon *d = w->q->d;
	int err;

	do
		err = atomic_load(&w->interrupted) ? -EINTR : take(w, true);
	while (err == -EINTR && !atomic_load(&w->interrupted));
	wait_drop(d, w);
	queue_complete(w->q, w->head,
		       request_answer(w->in, w->in_count, w->in_size, w->unique, err));
	mutex_lock(&d->waits_lock);
	if (w->state == WAIT_BUSY)
		w->state = WAIT_DONE;
	mutex_unlock(&d->waits_lock);
	return NULL;
}

/* Ends a claimed wait and gives its slot back. */
static void wait_end(struct daemon *d, struct lock_wait *w)
{
	atomic_store(&w->interrupted, true);
	thread_stop(w->thread);
	mutex_lock(&d->waits_lock);
	w->state = WAIT_FREE;
	mutex_unlock(&d->waits_lock);
}

/* A free slot, the caller's; NULL: there are WAITS_MAX. */
static struct lock_wait *wait_slot(struct daemon *d)
{
	struct lock_wait *found = NULL;
	bool done = false;

	mutex_lock(&d->waits_lock);
	for (unsigned i = 0; i < WAITS_MAX && !found; i++)
		if (d->waits[i].state == WAIT_FREE || d->waits[i].state == WAIT_DONE) {
			found = &d->waits[i];
			done = found->state == WAIT_DONE;
			found->state = WAIT_CLAIMED;
		}
	mutex_unlock(&d->waits_lock);
	if (done)
		thread_stop(found->thread);
	return found;
}

static int wait_start(struct request *r, const struct lock_wait *like)
{
	const struct virtq_chain *c = r->chain;
	struct lock_wait *w = wait_slot(r->d);
	pthread_attr_t attr;
	int err;

	if (!w)
		return -ENOLCK;
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, WAIT_STACK_BYTES);
	mutex_lock(&r->d->waits_lock);
	*w = *like;
	w->q = r->q;
	w->head = c->head;
	w->unique = r->in.head.unique;
	w->in_count = MIN(c->in_count, (unsigned)ARRAY_SIZE(w->in));
	for (unsigned i = 0; i < w->in_count; i++) {
		w->in[i] = c->in[i];
		w->in_size += c->in[i].iov_len;
	}
	err = pthread_create(&w->thread, &attr, wait_main, w) ? -ENOLCK : 0;
	w->state = err ? WAIT_FREE : WAIT_BUSY;
	mutex_unlock(&r->d->waits_lock);
	pthread_attr_destroy(&attr);
	r->deferred = !err;
	return err;
}

void locks_end_waits(struct daemon *d, const struct queue *q)
{
	for (;;) {
		struct lock_wait *mine = NULL;
		bool others = false;

		mutex_lock(&d->waits_lock);
		for (unsigned i = 0; i < WAITS_MAX && !mine; i++) {
			struct lock_wait *w = &d->waits[i];

			if (w->state == WAIT_FREE || w->q != q)
				continue;
			if (w->state == WAIT_CLAIMED) {
				others = true;
			} else {
				w->state = WAIT_CLAIMED;
				mine = w;
			}
		}
		mutex_unlock(&d->waits_lock);
		if (mine)
			wait_end(d, mine);
		else if (others)
			(void)poll(NULL, 0, CLAIMED_MS);
		else
			return;
	}
}

int do_interrupt(struct request *r)
{
	struct fuse_interrupt_in a;
	struct lock_wait *found = NULL;

	memcpy(&a, r->in.arg, sizeof(a));
	mutex_lock(&r->d->waits_lock);
	for (unsigned i = 0; i < WAITS_MAX && !found; i++)
		if (r->d->waits[i].state == WAIT_BUSY && r->d->waits[i].unique == a.unique) {
			found = &r->d->waits[i];
			found->state = WAIT_CLAIMED;
		}
	mutex_unlock(&r->d->waits_lock);
	if (!found)
		return -EAGAIN;
	wait_end(r->d, found);
	return 0;
}

/* ---- requests ---- */

static int range_of(const struct fuse_file_lock *lk, struct flock *ret)
{
	if (lk->start > lk->end || lk->end > INT64_MAX || lk->type > F_UNLCK)
		return -EINVAL;
	*ret = (struct flock){
		.l_type = (short)lk->type,
		.l_whence = SEEK_SET,
		.l_start = (off_t)lk->start,
		.l_len = lk->end == INT64_MAX ? 0 : (off_t)(lk->end - lk->start + 1),
	};
	return 0;
}

int do_getlk(struct request *r, struct node *n)
{
	struct fuse_lk_in a;
	struct fuse_lk_out out = {.lk = {.type = F_UNLCK}};
	struct lock_owner *o;
	struct flock lk;
	int err, fd;

	memcpy(&a, r->in.arg, sizeof(a));
	if (!r->d->config.posix_lock)
		return -ENOSYS;
	err = range_of(&a.lk, &lk);
	if (err)
		return err;
	o = owner_get(r->d, n, a.owner);
	fd = o ? o->fd : node_open(r->d, n, O_RDONLY | O_NONBLOCK);
	if (fd < 0)
		return fd;
	err = fcntl(fd, F_OFD_GETLK, &lk) < 0 ? -errno : 0;
	if (o)
		owner_put(r->d, o);
	else
		close(fd);
	if (err)
		return err;
	if (lk.l_type != F_UNLCK)
		/* Whose it is, the host does not say of these locks, and its process ids mean nothing to the client. */
		out.lk = (struct fuse_file_lock){
			.start = (uint64_t)lk.l_start,
			.end = lk.l_len ? (uint64_t)(lk.l_start + lk.l_len - 1) : INT64_MAX,
			.type = (uint32_t)lk.l_type,
		};
	memcpy(r->reply, &out, sizeof(out));
	r->reply_size = sizeof(out);
	return 0;
}

static int take_flock(struct request *r, const struct fuse_lk_in *a, bool wait)
{
	static const int ops[] = {[F_RDLCK] = LOCK_SH, [F_WRLCK] = LOCK_EX, [F_UNLCK] = LOCK_UN};
	struct lock_wait w = {.lk = {0}};
	int err;

	if (!r->d->config.flock)
		return -ENOSYS;
	if (a->lk.type > F_UNLCK)
		return -EINVAL;
	w.flock = ops[a->lk.type];
	w.handle = handle_get(r->d, a->fh, false);
	if (!w.handle)
		w.handle = handle_get(r->d, a->fh, true);
	if (!w.handle)
		return -EBADF;
	err = take(&w, false);
	if (err == -EAGAIN && wait) {
		err = wait_start(r, &w);
		if (r->deferred)
			return 0;
	}
	wait_drop(r->d, &w);
	return err;
}

static int take_posix(struct request *r, struct node *n, const struct fuse_lk_in *a, bool wait)
{
	struct lock_wait w = {.lk = {0}};
	int err = range_of(&a->lk, &w.lk);

	if (!r->d->config.posix_lock)
		return -ENOSYS;
	if (err)
		return err;
	if (a->lk.type == F_UNLCK) {
		if (!a->lk.start && a->lk.end == INT64_MAX) {
			locks_drop_owner(r->d, n, a->owner);
			return 0;
		}
		w.owner = owner_get(r->d, n, a->owner);
		if (!w.owner)
			return 0;
	} else {
		err = owner_make(r->d, n, a->owner, &w.owner);
		if (err)
			return err;
	}
	err = take(&w, false);
	if (err == -EAGAIN && wait) {
		err = wait_start(r, &w);
		if (r->deferred)
			return 0;
	}
	wait_drop(r->d, &w);
	return err;
}

int do_setlk(struct request *r, struct node *n)
{
	bool wait = r->in.head.opcode == FUSE_SETLKW;
	struct fuse_lk_in a;

	memcpy(&a, r->in.arg, sizeof(a));
	return a.lk_flags & FUSE_LK_FLOCK ? take_flock(r, &a, wait) : take_posix(r, n, &a, wait);
}
