/*
 * sentry/pgrp.c - process groups and sessions, and when a group is orphaned.
 *
 * kernel.groups and kernel.sessions hold borrowed pointers: an entry goes when the last reference does. Both objects are referenced
 * only by groups (members) and process groups (their session), and all of that changes under taskset_lock (write).
 */
#include "sentry/task_internal.h"
#include "sentry/tty/tty.h"

REF_TYPE(pgrp_ref_type, "process group");
REF_TYPE(session_ref_type, "session");

struct process_group *pgrp_find(int32_t id)
{
	return id > 0 ? idr_find(&kernel.groups, id) : NULL;
}

struct session *session_create(int32_t id)
{
	struct session *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->id = id;
	if (idr_alloc_at(&kernel.sessions, id, s)) {
		free(s);
		return NULL;
	}
	ref_init(&s->ref, &session_ref_type);
	return s;
}

/*
 * The terminal's reference cannot be dropped here, under taskset_lock: the session goes to a list that session_run_deferred() empties.
 */
static SLIST_HEAD(, session) sessions_dead; /* guarded by taskset_lock (write) */
static _Atomic bool sessions_dead_any;

void session_unref(struct session *s)
{
	if (!ref_put(&s->ref))
		return;
	idr_remove(&kernel.sessions, s->id);
	task_tid_release(s->id);
	SLIST_INSERT_HEAD(&sessions_dead, s, dead_link);
	atomic_store(&sessions_dead_any, true);
}

void session_run_deferred(void)
{
	struct session *s;

	if (likely(!atomic_load_explicit(&sessions_dead_any, memory_order_relaxed)))
		return;
	for (;;) {
		rwlock_write_lock(&kernel.taskset_lock);
		s = SLIST_FIRST(&sessions_dead);
		if (s)
			SLIST_REMOVE_HEAD(&sessions_dead, dead_link);
		else
			atomic_store(&sessions_dead_any, false);
		rwlock_write_unlock(&kernel.taskset_lock);
		if (!s)
			return;
		tty_session_free(s);
		ref_fini(&s->ref, &session_ref_type);
		free(s);
	}
}

int pgrp_create(int32_t id, struct session *s, struct process_group **ret)
{
	struct process_group *p = calloc(1, sizeof(*p));

	if (!p)
		return -ENOMEM;
	p->id = id;
	LIST_INIT(&p->members);
	if (idr_alloc_at(&kernel.groups, id, p)) {
		free(p);
		return -ENOMEM;
	}
	ref_init(&p->ref, &pgrp_ref_type);
	ref_get(&s->ref);
	p->session = s;
	*ret = p;
	return 0;
}

void pgrp_unref(struct process_group *p)
{
	if (!ref_put(&p->ref))
		return;
	idr_remove(&kernel.groups, p->id);
	task_tid_release(p->id);
	session_unref(p->session);
	ref_fini(&p->ref, &pgrp_ref_type);
	free(p);
}

void group_set_pgrp(struct thread_group *g, struct process_group *p)
{
	struct process_group *old = g->pgrp;

	ref_get(&p->ref);
	if (old)
		LIST_REMOVE(g, pgrp_link);
	g->pgrp = p;
	LIST_INSERT_HEAD(&p->members, g, pgrp_link);
	if (old)
		pgrp_unref(old);
}

void group_leave_pgrp(struct thread_group *g)
{
	struct process_group *p = g->pgrp;

	if (!p)
		return;
	LIST_REMOVE(g, pgrp_link);
	g->pgrp = NULL;
	pgrp_unref(p);
}

/* POSIX: orphaned if every member's parent is in the group itself or in another session. */
bool pgrp_orphaned_locked(struct process_group *p, struct thread_group *ignored)
{
	struct thread_group *g;

	LIST_FOREACH (g, &p->members, pgrp_link) {
		/* A container's pid 1 is a parent like any other: Linux only leaves out the machine's own init. */
		if (g == ignored || g->zombie || !g->parent)
			continue;
		if (g->parent->pgrp && g->parent->pgrp != p &&
		    g->parent->pgrp->session == p->session)
			return false;
	}
	return true;
}

bool pgrp_is_orphaned(int32_t pgid)
{
	struct process_group *p;
	bool orphaned = true;

	rwlock_read_lock(&kernel.taskset_lock);
	p = pgrp_find(pgid);
	if (p)
		orphaned = pgrp_orphaned_locked(p, NULL);
	rwlock_read_unlock(&kernel.taskset_lock);
	return orphaned;
}

static bool pgrp_has_stopped(struct process_group *p)
{
	struct thread_group *g;
	struct sighand *sh;
	bool stopped = false;

	LIST_FOREACH (g, &p->members, pgrp_link) {
		sh = sighand_lock(g);
		stopped = g->stop.stopped;
		sighand_unlock(sh);
		if (stopped)
			break;
	}
	return stopped;
}

void pgrp_check_orphaned(struct thread_group *g, struct thread_group *parent)
{
	struct process_group *p = g->pgrp;
	struct thread_group *ignored = g;
	struct thread_group *m;

	if (!p)
		return;
	if (parent)
		ignored = NULL; /* g lives, its parent exits */
	else
		parent = g->parent;
	if (!parent || !parent->pgrp || parent->pgrp == p || parent->pgrp->session != p->session)
		return;
	if (!pgrp_orphaned_locked(p, ignored) || !pgrp_has_stopped(p))
		return;
	LIST_FOREACH (m, &p->members, pgrp_link) {
		signal_send_group_kernel(m, SIGHUP);
		signal_send_group_kernel(m, SIGCONT);
	}
}

/* ---- setsid, setpgid: their rules ---- */

int32_t group_setsid(struct thread_group *g)
{
	struct process_group *p;
	struct session *s;
	int32_t err;

	rwlock_write_lock(&kernel.taskset_lock);
	/* A leader of a process group, or of a group that still bears our number, cannot. */
	err = -EPERM;
	if ((g->pgrp->session->leader == g) || pgrp_find(g->tgid))
		goto out_unlock;
	err = -ENOMEM;
	s = session_create(g->tgid);
	if (!s)
		goto out_unlock;
	err = pgrp_create(g->tgid, s, &p);
	if (err) {
		session_unref(s);
		goto out_unlock;
	}
	s->leader = g;
	group_set_pgrp(g, p);
	pgrp_unref(p);
	session_unref(s);
	err = g->tgid;
out_unlock:
	rwlock_write_unlock(&kernel.taskset_lock);
	session_run_deferred();
	return err;
}

static int setpgid_locked(struct thread_group *caller, struct thread_group *g, int32_t pgid)
{
	struct process_group *p;
	int err;

	if (g->parent == caller) {
		if (g->pgrp->session != caller->pgrp->session)
			return -EPERM;
		if (g->did_exec)
			return -EACCES;
	} else if (g != caller) {
		return -ESRCH;
	}
	if (g->pgrp->session->leader == g)
		return -EPERM;
	p = pgrp_find(pgid);
	if (pgid != g->tgid) {
		if (!p || p->session != caller->pgrp->session || LIST_EMPTY(&p->members))
			return -EPERM;
	}
	if (p == g->pgrp)
		return 0;
	if (p) {
		if (p->session != g->pgrp->session)
			return -EPERM;
		group_set_pgrp(g, p);
		return 0;
	}
	err = pgrp_create(pgid, g->pgrp->session, &p);
	if (err)
		return err;
	group_set_pgrp(g, p);
	pgrp_unref(p);
	return 0;
}

int group_setpgid(struct thread_group *caller, int32_t pid, int32_t pgid)
{
	struct thread_group *g;
	int err = -ESRCH;

	if (pgid < 0)
		return -EINVAL;
	g = group_find(pid ? pid : caller->tgid);
	if (!g) {
		struct task *t = task_find(pid);

		if (!t)
			return -ESRCH;
		task_unref(t);
		return -EINVAL; /* a thread that is no leader */
	}
	rwlock_write_lock(&kernel.taskset_lock);
	if (g->pgrp)
		err = setpgid_locked(caller, g, pgid ? pgid : g->tgid);
	rwlock_write_unlock(&kernel.taskset_lock);
	session_run_deferred();
	group_unref(g);
	return err;
}
