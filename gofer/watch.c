/*
 * gofer/watch.c - inotify for clients: Tmwatch, and the notices (Tmevent) of what somebody else did.
 *
 * One inotify instance per connection, made with its first watch, and one thread that reads it and tells the client on its second connection. A
 * watch is a fid's, and ends with the last fid on it.
 *
 * What the connection's own requests cause is not told: the client has told its programs already. While something is watched, every request that
 * inotify would tell of runs in a window: under one lock what came before it is taken out first, and of what came when it
 * is done, events of its kinds about the names that it has are its own. So such requests are one at a time then, and an event of somebody else's of
 * the same kind about the same name in the same microseconds counts as the request's. What the client does with donated descriptors it
 * has to know again itself: notices say between which times their events happened.
 *
 * Notices wait in a bounded queue where the client does not read them; past it, and where there is no memory for one, IN_Q_OVERFLOW stands for the rest.
 *
 * Locks: window (LOCK_CONTROL, before all of a request's and reader_lock) -> lock (leaf: the table).
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "gofer/server.h"

#define THREAD_STACK_BYTES (64ul << 10)
/* The thread comes at once. Where it is later than that, what the client did itself may be told twice. */
#define WAKE_LATE_NS 5000000000ll

struct server_watch {
	LIST_ENTRY(server_watch) link;
	int wd;
	unsigned refs;
};

struct server_event {
	TAILQ_ENTRY(server_event) link;
	int wd;
	uint32_t mask, cookie;
	int64_t since, until;
	uint16_t len;
	char name[];
};

/* What a request may have caused. */
struct own_events {
	uint32_t mask;
	bool any_name; /* it names none */
	struct p9_str name[2];
	unsigned names;
};

static int64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000ll + ts.tv_nsec;
}

/* ---- what a request causes ---- */

static void own_name(struct own_events *own, const struct p9_str *path)
{
	const char *slash = path->len ? memrchr(path->data, '/', path->len) : NULL;
	struct p9_str last = *path;

	if (!path->len) {
		/* A fid's own place, by whatever name. */
		own->any_name = true;
		return;
	}
	if (slash) {
		last.data = slash + 1;
		last.len = (uint16_t)(path->data + path->len - last.data);
	}
	own->name[own->names++] = last;
}

static struct own_events own_of(const struct p9_msg *t, uint32_t events)
{
	struct own_events own = {.mask = events};

#define NAME(m)                                \
	case P9_T##m:                          \
		own_name(&own, &t->T##m.path); \
		break
	switch (t->type) {
		NAME(mopen);
		NAME(mcreate);
		NAME(mmkdir);
		NAME(msymlink);
		NAME(mmknod);
		NAME(mlink);
		NAME(munlink);
		NAME(msetattr);
		NAME(mreaddir);
		NAME(msetxattr);
		NAME(mremovexattr);
	case P9_Tmrename:
		own_name(&own, &t->Tmrename.oldpath);
		own_name(&own, &t->Tmrename.path);
		break;
	default:
		own.any_name = true;
	}
#undef NAME
	return own;
}

static bool is_own(const struct own_events *own, const struct inotify_event *ev)
{
	size_t len = ev->len ? strnlen(ev->name, ev->len) : 0;

	if (!(ev->mask & own->mask))
		return false;
	if (!len || own->any_name)
		return true;
	for (unsigned i = 0; i < own->names; i++)
		if (own->name[i].len == len && !memcmp(own->name[i].data, ev->name, len))
			return true;
	return false;
}

/* ---- the queue; the window is held ---- */

/* Something is lost: the client is told so, for which there is memory. What tells it already stands for this, too. */
static void queue_lost(struct server_watches *ws, int64_t since, int64_t until)
{
	struct server_event *e = ws->spare;

	if (!e)
		return;
	ws->spare = NULL;
	*e = (struct server_event){.wd = -1, .mask = IN_Q_OVERFLOW, .since = since, .until = until};
	TAILQ_INSERT_TAIL(&ws->events, e, link);
	ws->event_count++;
}

static void queue_event(struct server_watches *ws, const struct inotify_event *ev, int64_t since,
			int64_t until)
{
	size_t len = ev->len ? strnlen(ev->name, ev->len) : 0;
	struct server_event *e = NULL;

	if (ws->event_count < SERVER_EVENTS_MAX && !(ev->mask & IN_Q_OVERFLOW))
		e = malloc(sizeof(*e) + len);
	if (!e) {
		queue_lost(ws, since, until);
		return;
	}
	*e = (struct server_event){
		.wd = ev->wd,
		.mask = ev->mask,
		.cookie = ev->cookie,
		.since = since,
		.until = until,
		.len = (uint16_t)len,
	};
	memcpy(e->name, ev->name, len);
	TAILQ_INSERT_TAIL(&ws->events, e, link);
	ws->event_count++;
}

/*
 * Takes out of inotify what is there, but no more than the queue may hold. own: NULL, or the request that was just served.
 * Return: there was no more.
 */
static bool drain(struct server_watches *ws, const struct own_events *own)
{
	int64_t before = now_ns(), since = MAX(ws->drained_ns, before - WAKE_LATE_NS), until;
	unsigned count = 0;

	while (count < SERVER_EVENTS_MAX) {
		ssize_t got = read(atomic_load(&ws->fd), ws->buf, SERVER_EVENT_BUF);

		if (got <= 0) {
			ws->drained_ns = before;
			return true;
		}
		until = now_ns();
		for (ssize_t at = 0; at < got;) {
			const struct inotify_event *ev = (const void *)(ws->buf + at);

			at += (ssize_t)(sizeof(*ev) + ev->len);
			count++;
			if (ev->mask & (IN_IGNORED | IN_UNMOUNT))
				continue;
			if (!own || !is_own(own, ev))
				queue_event(ws, ev, since, until);
		}
		before = now_ns();
	}
	return false;
}

/* The same where a request waits: what is left would be taken for what it is not. */
static void drain_or_lose(struct server_watches *ws, const struct own_events *own)
{
	if (!drain(ws, own))
		queue_lost(ws, ws->drained_ns, now_ns());
}

/* Return: there is no more to tell; false: no room for it now. */
static bool tell(struct server *srv)
{
	struct server_watches *ws = &srv->watches;
	struct server_event *e;

	while ((e = TAILQ_FIRST(&ws->events))) {
		struct p9_msg t = {.type = P9_Tmevent};
		uint8_t buf[P9_NOTICE_MAX];
		size_t size;

		t.Tmevent.watch = (uint32_t)e->wd;
		t.Tmevent.mask = e->mask;
		t.Tmevent.cookie = e->cookie;
		t.Tmevent.since = (uint64_t)e->since;
		t.Tmevent.until = (uint64_t)e->until;
		t.Tmevent.name = (struct p9_str){e->name, e->len};
		if (p9_encode(&t, buf, sizeof(buf), &size) == 0 &&
		    send(srv->notify_sock, buf, size, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 &&
		    (errno == EAGAIN || errno == EINTR))
			return false;
		TAILQ_REMOVE(&ws->events, e, link);
		ws->event_count--;
		if (e->mask & IN_Q_OVERFLOW)
			ws->spare = e;
		else
			free(e);
	}
	return true;
}

/* Pre: the window, which ends. */
static void tell_and_unlock(struct server *srv)
{
	struct server_watches *ws = &srv->watches;

	/* The thread waits for room. */
	if (!tell(srv))
		(void)!send(ws->wake[1], "", 1, MSG_NOSIGNAL | MSG_DONTWAIT);
	mutex_unlock(&ws->window);
}

bool watch_window_begin(struct server *srv, const struct p9_msg *t, uint32_t events)
{
	struct server_watches *ws = &srv->watches;

	if (!events || likely(!atomic_load_explicit(&ws->count, memory_order_acquire)))
		return false;
	/* Only asks. */
	if (t->type == P9_Tmsetattr && !t->Tmsetattr.valid)
		return false;
	mutex_lock(&ws->window);
	drain_or_lose(ws, NULL);
	return true;
}

bool watch_window_end(struct server *srv, const struct p9_msg *t, uint32_t events, bool donates)
{
	struct server_watches *ws = &srv->watches;
	struct own_events own = own_of(t, events);

	drain_or_lose(ws, &own);
	if (!donates)
		tell_and_unlock(srv);
	return donates;
}

void watch_window_end_donated(struct server *srv)
{
	/* Since the last time, which was before the reply: the client knows then that it closed one itself. */
	drain_or_lose(&srv->watches, NULL);
	tell_and_unlock(srv);
}

/* ---- the thread ---- */

static void *watch_main(void *arg)
{
	struct server *srv = arg;
	struct server_watches *ws = &srv->watches;

	for (;;) {
		struct pollfd p[] = {
			{.fd = srv->sock}, /* its end is ours */
			{.fd = atomic_load(&ws->fd), .events = POLLIN},
			{.fd = ws->wake[0], .events = POLLIN},
			{.fd = srv->notify_sock},
		};
		char byte[16];

		mutex_lock(&ws->window);
		/* What is left announces itself. */
		(void)drain(ws, NULL);
		if (!tell(srv))
			p[3].events = POLLOUT;
		mutex_unlock(&ws->window);
		if (poll(p, ARRAY_SIZE(p), -1) < 0 && errno != EINTR)
			return NULL;
		if ((p[0].revents | p[3].revents) & (POLLHUP | POLLERR | POLLNVAL))
			return NULL;
		while (recv(ws->wake[0], byte, sizeof(byte), MSG_DONTWAIT) > 0)
			;
	}
}

/* Pre: the window. Return: 0, -errno. */
static int start(struct server *srv)
{
	struct server_watches *ws = &srv->watches;
	pthread_attr_t attr;
	int err;

	if (atomic_load(&ws->started))
		return 0;
	if (!ws->buf)
		ws->buf = malloc(SERVER_EVENT_BUF);
	if (!ws->spare)
		ws->spare = malloc(sizeof(*ws->spare));
	if (!ws->buf || !ws->spare)
		return -ENOMEM;
	if (atomic_load(&ws->fd) < 0)
		atomic_store(&ws->fd, inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
	/* The host's limit of instances: to the client one of watches. */
	if (atomic_load(&ws->fd) < 0)
		return errno == EMFILE ? -ENOSPC : -errno;
	if (ws->wake[0] < 0 && socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ws->wake) < 0)
		return -errno;
	ws->drained_ns = now_ns();
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, THREAD_STACK_BYTES);
	err = -pthread_create(&ws->thread, &attr, watch_main, srv);
	pthread_attr_destroy(&attr);
	if (!err)
		atomic_store(&ws->started, true);
	return err;
}

/* ---- watches ---- */

static struct server_watch *find_locked(struct server_watches *ws, int wd)
{
	struct server_watch *sw;

	LIST_FOREACH (sw, &ws->table[(unsigned)wd % SERVER_WATCH_BUCKETS], link)
		if (sw->wd == wd)
			return sw;
	return NULL;
}

/* Return: the watch descriptor, a reference; -errno. */
static int watch_get(struct server_watches *ws, int path_fd, uint32_t mask)
{
	struct server_watch *fresh = calloc(1, sizeof(*fresh)), *sw;
	char name[16];
	int wd;

	if (!fresh)
		return -ENOMEM;
	fd_name(path_fd, name);
	mutex_lock(&ws->lock);
	wd = inotify_add_watch(atomic_load(&ws->fd), name, mask | IN_MASK_ADD);
	if (wd < 0)
		wd = -errno;
	sw = wd < 0 ? NULL : find_locked(ws, wd);
	if (sw) {
		sw->refs++;
	} else if (wd >= 0 && atomic_load(&ws->count) >= SERVER_WATCHES_MAX) {
		(void)inotify_rm_watch(atomic_load(&ws->fd), wd);
		wd = -ENOSPC;
	} else if (wd >= 0) {
		fresh->wd = wd;
		fresh->refs = 1;
		LIST_INSERT_HEAD(&ws->table[(unsigned)wd % SERVER_WATCH_BUCKETS], fresh, link);
		atomic_fetch_add(&ws->count, 1);
		fresh = NULL;
	}
	mutex_unlock(&ws->lock);
	free(fresh);
	return wd;
}

void watch_put(struct server *srv, int wd)
{
	struct server_watches *ws = &srv->watches;
	struct server_watch *sw;

	mutex_lock(&ws->lock);
	sw = find_locked(ws, wd);
	if (sw && --sw->refs) {
		sw = NULL;
	} else if (sw) {
		LIST_REMOVE(sw, link);
		atomic_fetch_sub(&ws->count, 1);
		/* What was removed has none any more, and its number does not come again. */
		(void)inotify_rm_watch(atomic_load(&ws->fd), wd);
	}
	mutex_unlock(&ws->lock);
	free(sw);
}

int op_mwatch(struct worker *w, const struct p9_msg *t, struct p9_msg *r)
{
	const struct p9_Tmwatch *a = &t->Tmwatch;
	struct server_watches *ws = &w->srv->watches;
	auto_fid struct fid *f = fid_get(w->srv, a->fid);
	int fd, err, wd = 0;
	struct statx stx;
	bool owned;

	if (!f)
		return -EBADF;
	if (!(a->mask & IN_ALL_EVENTS))
		return -EINVAL;
	if (w->srv->notify_sock < 0)
		return -EOPNOTSUPP;
	err = resolve_path(w, f, &a->path, w->path, &fd, &owned);
	if (err)
		return err;
	err = stat_fd(fd, "", &stx);
	mutex_lock(&ws->window);
	if (!err)
		err = start(w->srv);
	if (!err) {
		/* What came of an earlier watch of the place is older than this one. */
		drain_or_lose(ws, NULL);
		wd = watch_get(ws, fd, a->mask & IN_ALL_EVENTS);
		err = wd < 0 ? wd : 0;
	}
	mutex_unlock(&ws->window);
	if (owned)
		close(fd);
	if (!err)
		err = fid_add_watch(w->srv, a->newfid, f, wd);
	if (err)
		return err == -EMFILE ? -ENOSPC : err;
	stat_to_qid(w->srv, &stx, &r->Rmwatch.qid);
	r->Rmwatch.watch = (uint32_t)wd;
	return 0;
}

/* ---- life ---- */

void watches_init(struct server *srv)
{
	struct server_watches *ws = &srv->watches;

	mutex_init(&ws->window, LOCK_CONTROL, "gofer_window");
	mutex_init(&ws->lock, LOCK_LEAF, "gofer_watches");
	atomic_init(&ws->fd, -1);
	ws->wake[0] = ws->wake[1] = -1;
	TAILQ_INIT(&ws->events);
}

void watches_fini(struct server *srv)
{
	struct server_watches *ws = &srv->watches;
	struct server_event *e;

	/* The socket was shut down: it sees that. */
	if (atomic_load(&ws->started))
		pthread_join(ws->thread, NULL);
	while ((e = TAILQ_FIRST(&ws->events))) {
		TAILQ_REMOVE(&ws->events, e, link);
		free(e);
	}
	for (unsigned i = 0; i < 2; i++)
		if (ws->wake[i] >= 0)
			close(ws->wake[i]);
	if (atomic_load(&ws->fd) >= 0)
		close(atomic_load(&ws->fd));
	free(ws->spare);
	free(ws->buf);
}
