/*
 * gofer/lock.c - locks of the host for clients: Tlock, Tgetlock, and Tmlock, which also waits.
 *
 * They are on an open fid's descriptor, open-file-description or flock(2) locks: a client opens a fid for each of its lock owners, and other fids, other
 * clients and the host's programs conflict with it as on one machine. They go with the fid, and with the connection.
 *
 * A lock that is waited for is a thread's of its own (SERVER_LOCK_WAITS_MAX of them; more have to ask again), and takes no tag meanwhile: the reply says
 * that it waits, and a notice (Tmgranted, on the client's second connection) what came of it. Tmlockcancel takes it out, and tells if it came too late.
 * One whose fid is clunked ends with it, and no notice comes.
 *
 * Locks: lock_lock (leaf). A wait's slot is the thread's from BUSY to DONE; whoever turns it to CLAIMED joins the thread and makes it FREE.
 */
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "gofer/server.h"

#define WAIT_STACK_BYTES (64ul << 10)
#define STOP_RETRY_NS 2000000

static int to_flock(uint8_t type, uint64_t start, uint64_t length, struct flock *fl)
{
	if (type > P9_LOCK_UNLCK || start > INT64_MAX || length > INT64_MAX)
		return -EINVAL;
	*fl = (struct flock){
		.l_type = type == P9_LOCK_RDLCK	  ? F_RDLCK
			  : type == P9_LOCK_WRLCK ? F_WRLCK
						  : F_UNLCK,
		.l_whence = SEEK_SET,
		.l_start = (off_t)start,
		.l_len = (off_t)length,
	};
	return 0;
}

/* Host locks belong to the open fid (OFD locks): one owner a fid, never waited for. */
int op_lock(struct worker *w, const struct p9_msg *t, struct p9_msg *r)
{
	auto_fid struct fid *f = fid_get(w->srv, t->Tlock.fid);
	struct flock fl;
	int err;

	if (!f || f->io_fd < 0)
		return -EBADF;
	err = to_flock(t->Tlock.type, t->Tlock.start, t->Tlock.length, &fl);
	if (err)
		return err;
	r->Rlock.status = P9_LOCK_SUCCESS;
	if (fcntl(f->io_fd, F_OFD_SETLK, &fl) < 0)
		r->Rlock.status =
			errno == EAGAIN || errno == EACCES ? P9_LOCK_BLOCKED : P9_LOCK_ERROR;
	return 0;
}

int op_getlock(struct worker *w, const struct p9_msg *t, struct p9_msg *r)
{
	auto_fid struct fid *f = fid_get(w->srv, t->Tgetlock.fid);
	struct p9_Rgetlock *o = &r->Rgetlock;
	struct flock fl;
	int err;

	if (!f || f->io_fd < 0)
		return -EBADF;
	err = to_flock(t->Tgetlock.type, t->Tgetlock.start, t->Tgetlock.length, &fl);
	if (err)
		return err;
	if (fcntl(f->io_fd, F_OFD_GETLK, &fl) < 0)
		return -errno;
	o->type = fl.l_type == F_RDLCK	 ? P9_LOCK_RDLCK
		  : fl.l_type == F_WRLCK ? P9_LOCK_WRLCK
					 : P9_LOCK_UNLCK;
	o->start = (uint64_t)fl.l_start;
	o->length = (uint64_t)fl.l_len;
	o->proc_id = t->Tgetlock.proc_id;
	o->client_id = t->Tgetlock.client_id;
	return 0;
}

/* ---- waiting ---- */

/* Return: 0, -errno; -EAGAIN: not now (wait: never). */
static int take(const struct lock_wait *w, bool wait)
{
	struct flock lk = w->lk;
	int ret;

	if (w->flock)
		ret = flock(w->fid->io_fd, w->flock | (wait ? 0 : LOCK_NB));
	else
		ret = fcntl(w->fid->io_fd, wait ? F_OFD_SETLKW : F_OFD_SETLK, &lk);
	if (ret == 0)
		return 0;
	return errno == EACCES && !wait ? -EAGAIN : -errno;
}

/* This one may wait for room. A client that reads none of them loses the connection by its own doing, not this thread. */
static void tell_granted(const struct lock_wait *w)
{
	struct p9_msg t = {.type = P9_Tmgranted};
	uint8_t buf[P9_NOTICE_MAX];
	size_t size;

	t.Tmgranted.wait = w->id;
	t.Tmgranted.err = (uint32_t)-w->result;
	if (p9_encode(&t, buf, sizeof(buf), &size) != 0)
		return;
	while (send(w->srv->notify_sock, buf, size, MSG_NOSIGNAL) < 0 && errno == EINTR)
		if (atomic_load(&w->interrupted))
			return;
}

static void *wait_main(void *arg)
{
	struct lock_wait *w = arg;
	struct server *srv = w->srv;

	do
		w->result = atomic_load(&w->interrupted) ? -EINTR : take(w, true);
	while (w->result == -EINTR && !atomic_load(&w->interrupted));
	if (!atomic_load(&w->interrupted))
		tell_granted(w);
	fid_put(w->fid);
	mutex_lock(&srv->lock_lock);
	if (w->state == LOCK_WAIT_BUSY)
		w->state = LOCK_WAIT_DONE;
	mutex_unlock(&srv->lock_lock);
	return NULL;
}

/* Ends the wait of a slot that the caller claimed. By signals, again and again: it may be on its way into the call. Return: what came of it. */
static int wait_end(struct server *srv, struct lock_wait *w)
{
	struct timespec end;
	int result;

	atomic_store(&w->interrupted, true);
	do {
		pthread_kill(w->thread, SIGUSR1);
		clock_gettime(CLOCK_REALTIME, &end);
		end.tv_nsec += STOP_RETRY_NS;
		end.tv_sec += end.tv_nsec / 1000000000;
		end.tv_nsec %= 1000000000;
	} while (pthread_timedjoin_np(w->thread, NULL, &end));
	result = w->result;
	mutex_lock(&srv->lock_lock);
	w->state = LOCK_WAIT_FREE;
	mutex_unlock(&srv->lock_lock);
	return result;
}

/* Claims a slot in that state, and with that id unless 0. NULL: there is none. */
static struct lock_wait *claim(struct server *srv, int state, uint64_t id)
{
	struct lock_wait *found = NULL;

	mutex_lock(&srv->lock_lock);
	for (unsigned i = 0; i < SERVER_LOCK_WAITS_MAX && !found; i++)
		if ((int)srv->lock_waits[i].state == state && (!id || srv->lock_waits[i].id == id))
			found = &srv->lock_waits[i];
	if (found)
		found->state = LOCK_WAIT_CLAIMED;
	mutex_unlock(&srv->lock_lock);
	return found;
}

/* Takes like's fid over if it returns true. */
static bool wait_start(struct server *srv, const struct lock_wait *like)
{
	struct lock_wait *w = claim(srv, LOCK_WAIT_DONE, 0);
	pthread_attr_t attr;
	bool ok;

	if (w)
		(void)wait_end(srv, w);
	w = claim(srv, LOCK_WAIT_FREE, 0);
	if (!w)
		return false;
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, WAIT_STACK_BYTES);
	mutex_lock(&srv->lock_lock);
	w->srv = srv;
	w->fid = like->fid;
	w->id = like->id;
	w->flock = like->flock;
	w->lk = like->lk;
	atomic_store(&w->interrupted, false);
	ok = pthread_create(&w->thread, &attr, wait_main, w) == 0;
	w->state = ok ? LOCK_WAIT_BUSY : LOCK_WAIT_FREE;
	mutex_unlock(&srv->lock_lock);
	pthread_attr_destroy(&attr);
	return ok;
}

static void on_wake(int signo)
{
	(void)signo;
}

void locks_init(struct server *srv)
{
	struct sigaction wake = {.sa_handler = on_wake};

	mutex_init(&srv->lock_lock, LOCK_LEAF, "gofer_locks");
	/* Without SA_RESTART: it ends what a waiter waits in. */
	sigaction(SIGUSR1, &wake, NULL);
}

void locks_fini(struct server *srv)
{
	struct lock_wait *w;

	while ((w = claim(srv, LOCK_WAIT_BUSY, 0)) || (w = claim(srv, LOCK_WAIT_DONE, 0)))
		(void)wait_end(srv, w);
}

void locks_fid_gone(struct server *srv, const struct fid *f)
{
	struct lock_wait *found;

	do {
		found = NULL;
		mutex_lock(&srv->lock_lock);
		for (unsigned i = 0; i < SERVER_LOCK_WAITS_MAX && !found; i++)
			if (srv->lock_waits[i].state == LOCK_WAIT_BUSY &&
			    srv->lock_waits[i].fid == f)
				found = &srv->lock_waits[i];
		if (found)
			found->state = LOCK_WAIT_CLAIMED;
		mutex_unlock(&srv->lock_lock);
		if (found)
			(void)wait_end(srv, found);
	} while (found);
}

/* ---- requests ---- */

/* Once per connection. */
int op_mnotify(struct worker *w, const struct p9_msg *t, struct p9_msg *r)
{
	int sv[2], none = -1;

	(void)t;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv) < 0)
		return -errno;
	if (!atomic_compare_exchange_strong(&w->srv->notify_sock, &none, sv[0])) {
		close(sv[0]);
		close(sv[1]);
		return -EBUSY;
	}
	w->donate_fd = sv[1];
	r->Rmnotify.donated = 1;
	return 0;
}

int op_mlock(struct worker *w, const struct p9_msg *t, struct p9_msg *r)
{
	static const int ops[] = {
		[P9_LOCK_RDLCK] = LOCK_SH, [P9_LOCK_WRLCK] = LOCK_EX, [P9_LOCK_UNLCK] = LOCK_UN};
	const struct p9_Tmlock *a = &t->Tmlock;
	struct lock_wait wait = {.id = a->wait};
	int err;

	err = a->kind > P9_LOCK_FLOCK ? -EINVAL : to_flock(a->type, a->start, a->length, &wait.lk);
	if (err)
		return err;
	wait.fid = fid_get(w->srv, a->fid);
	if (!wait.fid)
		return -EBADF;
	if (a->kind == P9_LOCK_FLOCK)
		wait.flock = ops[a->type];
	err = wait.fid->io_fd < 0 ? -EBADF : take(&wait, false);
	if (err == -EAGAIN && a->wait) {
		err = 0;
		r->Rmlock.status = P9_LOCK_RETRY;
		if (w->srv->notify_sock >= 0 && wait_start(w->srv, &wait)) {
			r->Rmlock.status = P9_LOCK_QUEUED;
			return 0;
		}
	} else if (err == -EAGAIN) {
		err = 0;
		r->Rmlock.status = P9_LOCK_BLOCKED;
	}
	fid_put(wait.fid);
	return err;
}

int op_mlockcancel(struct worker *w, const struct p9_msg *t, struct p9_msg *r)
{
	uint64_t id = t->Tmlockcancel.wait;
	struct lock_wait *found = id ? claim(w->srv, LOCK_WAIT_BUSY, id) : NULL;

	if (!found)
		return -ENOENT;
	r->Rmlockcancel.err = (uint32_t)-wait_end(w->srv, found);
	return 0;
}
