/*
 * sentry/tty/tty.c - terminals: life, controlling sessions, job control, hang-up.
 *
 * A terminal lives while a file, a session or the console refers to it; its number in devpts goes when its master is
 * closed and the last slave too. A hang-up does not close files: it starts a new generation, and files of an older one read
 * end-of-file and write EIO (Linux swaps their operations).
 *
 * Who controls what is written twice, session->tty (taskset_lock) and tty->session (both locks), so that either side
 * is found under its own lock. Lock order: tty.lock -> taskset_lock -> signals, wait queues.
 *
 * Cannot do: TIOCNOTTY by a process that is no session leader takes effect for nobody (Linux keeps the terminal per process).
 */
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "sentry/tty/internal.h"

static REF_TYPE(tty_ref_type, "tty");

int tty_create(struct devpts *inst, struct tty **ret)
{
	struct tty *t = calloc(1, sizeof(*t));
	const struct cred *cred = cred_current();

	if (!t)
		return -ENOMEM;
	t->out.size = TTY_OUT_HARD;
	t->in.size = TTY_IN_MAX;
	t->out.data = malloc(t->out.size + t->in.size);
	if (!t->out.data) {
		free(t);
		return -ENOMEM;
	}
	t->in.data = t->out.data + t->out.size;
	ref_init(&t->ref, &tty_ref_type);
	mutex_init(&t->lock, LOCK_TTY, "tty");
	wait_queue_init(&t->wait);
	wait_queue_init(&t->master_wait);
	tty_default_termios(&t->termios);
	ldisc_init(t);
	t->host_fd = -1;
	t->hp.fd = -1;
	t->inst = inst;
	filesystem_ref(inst->fs);
	mutex_lock(&inst->lock);
	t->mode = S_IFCHR | inst->mode;
	t->uid = inst->set_uid ? inst->uid : cred ? cred->fsuid : 0;
	t->gid = inst->set_gid ? inst->gid : cred ? cred->fsgid : 0;
	mutex_unlock(&inst->lock);
	t->time_ns = time_realtime_ns();
	*ret = t;
	return 0;
}

void tty_ref(struct tty *t)
{
	ref_get(&t->ref);
}

void tty_unref(struct tty *t)
{
	struct filesystem *fs;

	if (!ref_put(&t->ref))
		return;
	fs = t->inst->fs;
	devpts_remove(t->inst, t);
	wait_queue_fini(&t->wait);
	wait_queue_fini(&t->master_wait);
	ref_fini(&t->ref, &tty_ref_type);
	free(t->out.data);
	free(t);
	filesystem_unref(fs);
}

uint32_t tty_device(struct tty *t)
{
	/* new_encode_dev() */
	return (t->index & 0xff) | PTS_MAJOR << 8 | (t->index & ~0xffu) << 12;
}

int32_t tty_foreground(struct tty *t)
{
	int32_t pgrp;

	mutex_lock(&t->lock);
	pgrp = t->pgrp;
	mutex_unlock(&t->lock);
	return pgrp ? pgrp : -1;
}

struct tty *tty_of_group(struct thread_group *g)
{
	struct tty *t = NULL;

	rwlock_read_lock(&kernel.taskset_lock);
	if (g->pgrp && g->pgrp->session->tty) {
		t = g->pgrp->session->tty;
		tty_ref(t);
	}
	rwlock_read_unlock(&kernel.taskset_lock);
	return t;
}

struct tty *tty_current(void)
{
	struct task *self = task_current();

	return self ? tty_of_group(self->group) : NULL;
}

int32_t tty_current_session(void)
{
	struct task *self = task_current();

	return self ? group_sid(self->group) : 0;
}

bool tty_is_controlling(struct tty *t)
{
	int32_t sid = tty_current_session();
	bool ret;

	mutex_lock(&t->lock);
	ret = sid && t->session == sid;
	mutex_unlock(&t->lock);
	return ret;
}

bool tty_file_hung(struct tty_file *tf)
{
	return tf->gen != tf->tty->hup_gen;
}

void tty_output_ready(struct tty *t)
{
	if (!ring_used(&t->out))
		return;
	if (t->console)
		console_flush(t);
	else
		wait_queue_wake(&t->master_wait, POLLIN | POLLRDNORM);
}

/* ---- job control ---- */

int tty_check_change(struct tty *t, int signo)
{
	struct task *self = task_current();
	int32_t pgid, fg;

	if (!self || !tty_is_controlling(t))
		return 0;
	pgid = group_pgid(self->group);
	mutex_lock(&t->lock);
	fg = t->pgrp;
	mutex_unlock(&t->lock);
	if (!fg || fg == pgid)
		return 0;
	if (signal_ignored_or_blocked(self, signo))
		return signo == SIGTTIN ? -EIO : 0;
	if (pgrp_is_orphaned(pgid))
		return -EIO;
	signal_send_pgrp_kernel(pgid, signo);
	return -ERESTARTSYS_;
}

int tty_set_controlling(struct tty *t, struct session *s, int32_t pgid)
{
	int err = 0;

	mutex_lock(&t->lock);
	rwlock_write_lock(&kernel.taskset_lock);
	if (s->tty || t->session) {
		err = -EPERM;
	} else {
		tty_ref(t);
		s->tty = t;
		t->session = s->id;
		t->pgrp = pgid;
	}
	rwlock_write_unlock(&kernel.taskset_lock);
	mutex_unlock(&t->lock);
	return err;
}

/* Takes the terminal from its session. Pre: both locks (write). True: the caller drops the session's reference. */
static bool tty_leave_session_locked(struct tty *t, struct session *s)
{
	bool drop = s && s->tty == t;

	if (drop)
		s->tty = NULL;
	t->session = 0;
	t->pgrp = 0;
	return drop;
}

static struct session *session_find_locked(int32_t id)
{
	return id > 0 ? idr_find(&kernel.sessions, id) : NULL;
}

/* The part of a hang-up that concerns processes. Pre: tty->lock. True: drop the session's reference. */
static bool hangup_signal(struct tty *t, bool exit_session)
{
	int32_t pgrp = t->pgrp;
	struct session *s;
	bool drop;

	rwlock_write_lock(&kernel.taskset_lock);
	s = session_find_locked(t->session);
	if (s) {
		if (s->leader && !exit_session) {
			signal_send_group_kernel(s->leader, SIGHUP);
			signal_send_group_kernel(s->leader, SIGCONT);
		}
		/* Told when the leader exits. */
		s->tty_old_pgrp = pgrp;
	}
	drop = tty_leave_session_locked(t, s);
	rwlock_write_unlock(&kernel.taskset_lock);
	if (exit_session && pgrp)
		signal_send_pgrp_kernel(pgrp, SIGHUP);
	return drop;
}

void tty_hangup(struct tty *t, bool exit_session)
{
	bool drop;

	mutex_lock(&t->lock);
	t->hup_gen++;
	ldisc_flush_input(t);
	t->in.tail = t->in.head;
	tty_default_termios(&t->termios);
	t->ld.icanon = true;
	t->stopped = t->tco_stopped = false;
	drop = hangup_signal(t, exit_session);
	wait_queue_wake(&t->wait, POLLIN | POLLRDNORM | POLLOUT | POLLWRNORM | POLLHUP | POLLERR);
	mutex_unlock(&t->lock);
	if (drop)
		tty_unref(t);
}

void tty_session_leader_exit(struct session *s)
{
	struct tty *t;
	int32_t old_pgrp;

	rwlock_read_lock(&kernel.taskset_lock);
	t = s->tty;
	if (t)
		tty_ref(t);
	old_pgrp = s->tty_old_pgrp;
	rwlock_read_unlock(&kernel.taskset_lock);
	if (t) {
		tty_hangup(t, true);
		tty_unref(t);
	} else if (old_pgrp > 0) {
		signal_send_pgrp_kernel(old_pgrp, SIGHUP);
		signal_send_pgrp_kernel(old_pgrp, SIGCONT);
	}
}

void tty_session_free(struct session *s)
{
	struct tty *t = s->tty; /* nobody else can reach s */

	if (!t)
		return;
	mutex_lock(&t->lock);
	if (t->session == s->id) {
		t->session = 0;
		t->pgrp = 0;
	}
	mutex_unlock(&t->lock);
	s->tty = NULL;
	tty_unref(t);
}

void tty_resize(struct tty *t, const struct winsize *ws)
{
	mutex_lock(&t->lock);
	if (memcmp(ws, &t->ws, sizeof(*ws))) {
		t->ws = *ws;
		if (t->pgrp)
			signal_send_pgrp_kernel(t->pgrp, SIGWINCH);
	}
	mutex_unlock(&t->lock);
}

unsigned tty_pty_count(void)
{
	struct devpts *inst = devpts_first(NULL);
	unsigned n;

	if (!inst)
		return 0;
	n = atomic_load_explicit(&inst->count, memory_order_relaxed);
	filesystem_unref(inst->fs);
	return n;
}

int tty_init(void)
{
	devpts_register();
	return 0;
}
