/*
 * fsimpl/socket/gc.c - sockets that only their own queues keep alive.
 *
 * A socket passed through a socket is referred to by the message. Two that were sent through each other, or one
 * through itself, and then closed would stay for ever. The collector sees a graph: a vertex is a socket, an edge goes from the
 * socket in whose queue a message lies (for a connection not accepted yet: its listener) to each socket in the message. A
 * socket is alive when its file has a reference that is no edge, or when a live socket's edge leads to it; what is
 * left is garbage, and stays so, for nobody can receive it. So it is only looked for under the lock and closed after it.
 *
 * gc_lock is held while an edge comes (delivery) or goes (receiving, purging), while MSG_PEEK makes a second
 * reference and while the collector looks: no file that it found without other references can get one meanwhile.
 * It ranks below a socket's lock, and nothing is locked under it.
 *
 * It runs when a socket's file is released and when too many descriptors are in flight, and costs one pass over the
 * messages that carry sockets: nothing, if there are none.
 */
#include "fsimpl/socket/internal.h"

static struct mutex gc_lock = MUTEX_INIT(LOCK_SOCKET_NS, "unix_gc");
static TAILQ_HEAD(,
		  umsg) gc_messages = TAILQ_HEAD_INITIALIZER(gc_messages); /* guarded by gc_lock */
static _Atomic unsigned gc_count; /* of gc_messages; written with gc_lock */
static uint64_t gc_run; /* guarded by gc_lock */

SLIST_HEAD(gc_vertices, usock);

void gc_message_queued(struct umsg *m, struct usock *to)
{
	if (!m->nsockets)
		return;
	mutex_lock(&gc_lock);
	m->to = to;
	TAILQ_INSERT_TAIL(&gc_messages, m, gc_link);
	atomic_fetch_add_explicit(&gc_count, 1, memory_order_relaxed);
	mutex_unlock(&gc_lock);
}

void gc_message_gone(struct umsg *m)
{
	if (!m->nsockets)
		return;
	mutex_lock(&gc_lock);
	if (m->to) {
		m->to = NULL;
		TAILQ_REMOVE(&gc_messages, m, gc_link);
		atomic_fetch_sub_explicit(&gc_count, 1, memory_order_relaxed);
	}
	mutex_unlock(&gc_lock);
}

void gc_peek_files(struct umsg *m, struct file **files)
{
	mutex_lock(&gc_lock);
	for (unsigned i = 0; i < m->nfiles; i++)
		files[i] = file_ref(m->files[i]);
	mutex_unlock(&gc_lock);
}

void gc_set_listener(struct usock *embryo, struct usock *listener)
{
	mutex_lock(&gc_lock);
	embryo->gc.listener = listener;
	mutex_unlock(&gc_lock);
}

/* s as a vertex of this run. Pre: gc_lock. */
static struct usock *vertex_locked(struct gc_vertices *all, struct usock *s)
{
	if (s->gc.run != gc_run) {
		s->gc.run = gc_run;
		s->gc.file = NULL;
		s->gc.inflight = 0;
		s->gc.live = false;
		SLIST_INIT(&s->gc.out);
		SLIST_INSERT_HEAD(all, s, gc.link);
	}
	return s;
}

static void mark_live_locked(struct gc_vertices *todo, struct usock *s)
{
	if (s->gc.live)
		return;
	s->gc.live = true;
	SLIST_INSERT_HEAD(todo, s, gc.todo);
}

static void gc_build_locked(struct gc_vertices *all)
{
	struct usock *from, *s;
	struct umsg *m;

	SLIST_INIT(all);
	gc_run++;
	TAILQ_FOREACH (m, &gc_messages, gc_link) {
		from = m->to->gc.listener ? m->to->gc.listener : m->to;
		vertex_locked(all, from);
		SLIST_INSERT_HEAD(&from->gc.out, m, gc_out);
		for (unsigned i = 0; i < m->nfiles; i++) {
			if (!unix_is(m->files[i]))
				continue;
			s = vertex_locked(all, usock_of(m->files[i]));
			s->gc.file = m->files[i];
			s->gc.inflight++;
		}
	}
}

static void gc_mark_locked(struct gc_vertices *all)
{
	struct gc_vertices todo = SLIST_HEAD_INITIALIZER(todo);
	struct usock *s;
	struct umsg *m;

	/* One that is not in flight at all has a descriptor, or is about to be purged. */
	SLIST_FOREACH (s, all, gc.link)
		if (!s->gc.file || (int64_t)ref_read(&s->gc.file->ref) > s->gc.inflight)
			mark_live_locked(&todo, s);
	while ((s = SLIST_FIRST(&todo))) {
		SLIST_REMOVE_HEAD(&todo, gc.todo);
		SLIST_FOREACH (m, &s->gc.out, gc_out)
			for (unsigned i = 0; i < m->nfiles; i++)
				if (unix_is(m->files[i]))
					mark_live_locked(&todo, usock_of(m->files[i]));
	}
}

/*
 * Some of the garbage, with references: what has messages to lose, so that each pass gets further. The others go with the
 * message that holds them. Pre: gc_lock.
 */
static size_t gc_take_locked(struct gc_vertices *all, struct usock **list, size_t room)
{
	struct usock *s;
	size_t n = 0;

	SLIST_FOREACH (s, all, gc.link)
		if (!s->gc.live && !SLIST_EMPTY(&s->gc.out) && n < room) {
			usock_ref(s);
			list[n++] = s;
		}
	return n;
}

#define GC_BATCH 64 /* pieces of garbage that one pass takes */

void usock_collect(void)
{
	struct usock *list[GC_BATCH];
	struct gc_vertices all;
	size_t n;

	if (!atomic_load_explicit(&gc_count, memory_order_relaxed))
		return;
	do {
		mutex_lock(&gc_lock);
		gc_build_locked(&all);
		gc_mark_locked(&all);
		n = gc_take_locked(&all, list, GC_BATCH);
		mutex_unlock(&gc_lock);
		/* Emptied first: a peer sees an end, not a reset. */
		for (size_t i = 0; i < n; i++) {
			usock_purge(list[i]);
			usock_close(list[i]);
			usock_unref(list[i]);
		}
	} while (n == GC_BATCH);
}
