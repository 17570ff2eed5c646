/*
 * gofer/share.c - who may wait for a file system of the host's that stands still: more workers, and what has to wait without one.
 *
 * A host's file system may keep a request for ever (a FUSE daemon that was stopped, a server behind a network file system). Its worker waits with it. When none is left to read on
 * for SERVER_STALL_MS, the watching thread of conn.c makes another, up to GOFER_THREADS_MAX; one that had nothing to do for SERVER_GROWN_IDLE_S ends.
 *
 * Of these an attach point gets no more than are left for all others, and the last is nobody's: one that stands still has 8 of 16, a second 4, then 2 and 1, and the reader goes on.
 * Requests past that are put aside, a copy of each, until one of the workers comes back. They can be flushed like any. Past SERVER_ASIDE_MAX of them, or SERVER_ASIDE_BYTES, -EAGAIN: no
 * client of ours has so many tags.
 *
 * Cannot: tell file systems below one attach point apart, which a path is only known to reach once it was walked. A request for which inotify would tell something holds the
 * window of watch.c, while anything is watched: then a still file system keeps all such requests waiting.
 */
#include <stdlib.h>
#include <string.h>

#include "base/futex.h"
#include "gofer/server.h"

/* ---- shares ---- */

/* Every request begins with the fid that it is about but these, which no file system keeps waiting, or several. */
static bool names_fid(uint8_t type)
{
	switch (type) {
	case P9_Tversion:
	case P9_Tauth:
	case P9_Tattach:
	case P9_Tmclunk:
	case P9_Tmnotify:
	case P9_Tmlockcancel:
		return false;
	default:
		return true;
	}
}

unsigned share_of(struct server *srv, const struct p9_msg *t, const uint8_t *raw, size_t size)
{
	const struct attach *at = NULL;
	uint32_t fid;

	if (names_fid(t->type) && size >= P9_HEADER_SIZE + sizeof(fid)) {
		memcpy(&fid, raw + P9_HEADER_SIZE, sizeof(fid));
		at = fid_attach(srv, fid);
	}
	return at ? (unsigned)(at - srv->attaches) : (unsigned)srv->attach_count;
}

bool share_is_used_locked(const struct server *srv, unsigned share)
{
	unsigned left = srv->busy < GOFER_THREADS_MAX - 1 ? GOFER_THREADS_MAX - 1 - srv->busy : 0;

	return srv->busy_of[share] >= left;
}

/* ---- put aside ---- */

int aside_add_locked(struct server *srv, const struct p9_msg *t, unsigned share, const uint8_t *raw,
		     size_t size)
{
	struct aside *a;

	if (srv->aside_count == SERVER_ASIDE_MAX || size > SERVER_ASIDE_BYTES - srv->aside_bytes)
		return -EAGAIN;
	a = malloc(sizeof(*a) + size);
	if (!a)
		return -EAGAIN;
	a->tag = t->tag;
	a->share = share;
	a->size = size;
	memcpy(a->raw, raw, size);
	TAILQ_INSERT_TAIL(&srv->asides, a, link);
	srv->aside_count++;
	srv->aside_bytes += size;
	return 0;
}

static void aside_remove_locked(struct server *srv, struct aside *a)
{
	TAILQ_REMOVE(&srv->asides, a, link);
	srv->aside_count--;
	srv->aside_bytes -= a->size;
}

/* The first one's of that share, if it has its worker back. */
static struct aside *first_of(struct server *srv, unsigned share)
{
	struct aside *a;

	if (share_is_used_locked(srv, share))
		return NULL;
	TAILQ_FOREACH (a, &srv->asides, link)
		if (a->share == share)
			break;
	return a;
}

/*
 * Nothing is left aside that may be served while nobody is about to look: a request that is begun leaves less to all, and one that ended one more to all and to
 * its own share, whose turn it is first. Were another's taken then, that share would have room for what nobody comes back for.
 */
struct aside *aside_take_locked(struct server *srv, unsigned share)
{
	struct aside *a = first_of(srv, share);

	if (!a)
		TAILQ_FOREACH (a, &srv->asides, link)
			if (!share_is_used_locked(srv, a->share))
				break;
	if (a)
		aside_remove_locked(srv, a);
	return a;
}

bool aside_has_locked(const struct server *srv, uint16_t tag)
{
	const struct aside *a;

	TAILQ_FOREACH (a, &srv->asides, link)
		if (a->tag == tag)
			return true;
	return false;
}

bool aside_drop_locked(struct server *srv, uint16_t tag)
{
	struct aside *a;

	TAILQ_FOREACH (a, &srv->asides, link)
		if (a->tag == tag)
			break;
	if (!a)
		return false;
	aside_remove_locked(srv, a);
	free(a);
	return true;
}

int shares_init(struct server *srv)
{
	TAILQ_INIT(&srv->asides);
	srv->busy_of = calloc(srv->attach_count + 1, sizeof(*srv->busy_of));
	return srv->busy_of ? 0 : -ENOMEM;
}

void shares_fini(struct server *srv)
{
	struct aside *a;

	while ((a = TAILQ_FIRST(&srv->asides))) {
		aside_remove_locked(srv, a);
		free(a);
	}
	free(srv->busy_of);
}

/* ---- more workers ---- */

/* A place without a thread, now ours. NULL: none. */
static struct worker *claim_place(struct server *srv)
{
	struct worker *w = NULL;

	mutex_lock(&srv->reader_lock);
	for (unsigned i = srv->thread_count; i < GOFER_THREADS_MAX && !srv->stop && !w; i++)
		if (!srv->workers[i].grown)
			w = &srv->workers[i];
	if (w) {
		w->grown = true;
		w->state = WORKER_IDLE;
		srv->worker_count = MAX(srv->worker_count, (unsigned)(w - srv->workers) + 1);
		atomic_fetch_add(&srv->grown, 1);
	}
	mutex_unlock(&srv->reader_lock);
	return w;
}

void share_give_place(struct worker *w)
{
	struct server *srv = w->srv;

	worker_fini(w);
	mutex_lock(&srv->reader_lock);
	w->grown = false;
	mutex_unlock(&srv->reader_lock);
	/* Last: the server may be gone then. */
	atomic_fetch_sub(&srv->grown, 1);
	futex_wake(&srv->grown, INT32_MAX);
}

void share_grow(struct server *srv, void *(*body)(void *worker))
{
	struct worker *w = claim_place(srv);
	pthread_attr_t attr;
	int err;

	if (!w)
		return;
	err = worker_init(w, srv);
	if (!err)
		err = -pthread_attr_init(&attr);
	if (!err) {
		pthread_attr_setstacksize(&attr, SERVER_WORKER_STACK);
		pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
		err = -pthread_create(&w->thread, &attr, body, w);
		pthread_attr_destroy(&attr);
	}
	if (!err)
		return;
	if (!srv->grow_failed)
		log_warn("gofer: no further thread: %s", strerror(-err));
	srv->grow_failed = true;
	share_give_place(w);
}

void share_await_grown(struct server *srv)
{
	uint32_t n;

	while ((n = atomic_load(&srv->grown)))
		(void)futex_wait(&srv->grown, n, NULL);
}
