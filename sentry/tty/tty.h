/*
 * sentry/tty/tty.h - terminals: pty pairs, the N_TTY line discipline, controlling terminals, devpts.
 *
 * A struct tty is one terminal: the slave side with its line discipline, and a master side that is either a file (ptmx) or a
 * host descriptor (the container's console).
 *
 * Locks: tty.lock (LOCK_TTY) guards a terminal's state; taskset_lock, signals and wait queues are taken inside it, never the
 * other way round. session->tty is guarded by taskset_lock as task.h says; the tty's own link to its session is guarded by both
 * (written with both held, read with either).
 */
#ifndef MOAT_SENTRY_TTY_H
#define MOAT_SENTRY_TTY_H

#include <sys/ioctl.h>

#include "vfs/vfs.h"

struct tty;
struct session;
struct task_cgroup;
struct task;
struct thread_group;

#define PTY_MAX 4096 /* /proc/sys/kernel/pty/max */

void tty_ref(struct tty *t);
void tty_unref(struct tty *t); /* may sleep; no locks held */
/* Device number as /proc/PID/stat's tty_nr shows it. */
uint32_t tty_device(struct tty *t);
/* The foreground process group; 0 for none. */
int32_t tty_foreground(struct tty *t);
/* The calling task's controlling terminal: a reference or NULL. */
struct tty *tty_current(void);
/* g's controlling terminal: a reference or NULL. Takes taskset_lock (read). */
struct tty *tty_of_group(struct thread_group *g);

/*
 * Makes t the controlling terminal of session s, foreground group pgid. For a new process with a terminal (task_exec_args.ctty): called
 * before the task runs, taskset_lock NOT held. Takes its own reference for session->tty. -EPERM: t or s has another already.
 */
must_check int tty_set_controlling(struct tty *t, struct session *s, int32_t pgid);
/*
 * The leader of s exits (exit(2) of the group's last thread): SIGHUP and SIGCONT to the foreground group, the terminal is hung up and
 * leaves the session. No-op without a terminal. No locks held. Before session->leader is cleared.
 */
void tty_session_leader_exit(struct session *s);
/* The session is freed (nobody is left in it): drops its reference, if still there. No locks held. */
void tty_session_free(struct session *s);

/*
 * ---- the container's console ----
 * A pty slave in the devpts instance `devpts` (its filesystem; NULL: the first one mounted) whose master is host_fd: a raw host terminal,
 * or a socket or pipe pair driven by the runtime. Takes host_fd (O_NONBLOCK recommended) on success. It becomes
 * /dev/console of the container that the thread acts in, which keeps a reference until tty_console_forget().
 * *ret_index: N of /dev/pts/N. Returns a reference. -ENODEV (no devpts), -ENOSPC, -ENOMEM.
 */
must_check int tty_console_create(struct filesystem *devpts, int host_fd, unsigned *ret_index,
				  struct tty **ret);
/* Before tty_host_close(): whoever opens /dev/console there gets -ENODEV from now on. */
void tty_console_forget(struct task_cgroup *cg);
/* The same for a further process of `moat exec`: it does not become /dev/console, and ends with tty_host_close(). */
must_check int tty_host_create(struct filesystem *devpts, int host_fd, unsigned *ret_index,
			       struct tty **ret);
/* Hangs up and closes the host descriptor; drops the caller's reference. Not from a hostpoll callback. */
void tty_host_close(struct tty *t);
/* Who owns /dev/pts/N: the process's user, as login(1) does. */
void tty_set_owner(struct tty *t, uint32_t uid);
/*
 * Opens the slave side as a file (for the fd table of pid 1). lk: a template (cred, ns, root) in which /dev/pts/N is found, so that
 * ttyname(3) works inside; NULL or not there: a place outside every namespace. flags: O_RDWR | O_NOCTTY ... Returns a reference.
 */
must_check int tty_open_slave(struct tty *t, const struct vfs_lookup *lk, unsigned flags,
			      struct file **ret);
/* The host terminal changed size: SIGWINCH to the foreground group. Any thread, no locks. */
void tty_resize(struct tty *t, const struct winsize *ws);
/* Waits (bounded) until output queued for the host descriptor was written: before the sentry exits. */
void tty_console_drain(struct tty *t, int64_t deadline_ns);

/* ---- for sentry/fs ---- */
unsigned tty_pty_count(void); /* ptys that exist: /proc/sys/kernel/pty/nr */
must_check int tty_init(void); /* registers devpts */
/* open(2) of character devices 5:0 (tty), 5:1 (console), 5:2 (ptmx of the devpts on "pts" beside it), 136..143:N (-EIO: no devpts). */
must_check int tty_open_device(const struct vfs_path *place, uint32_t major, uint32_t minor,
			       unsigned flags, struct file **ret);
/* TIOCGPTPEER needs a descriptor: the ioctl's syscall asks here first. Returns a reference in *ret or -ENOTTY (not that ioctl or file). */
must_check int tty_ioctl_open_peer(struct file *f, unsigned cmd, uint64_t arg, struct file **ret);

#endif
