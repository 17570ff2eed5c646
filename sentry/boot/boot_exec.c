/*
 * sentry/boot/boot_exec.c - `moat exec`: further processes from outside, one a connection to the control socket.
 *
 * A process has no parent in here, as one that enters a Linux container's pid namespace: nobody inside waits for it, so it reaps itself,
 * and its end is told to the connection. The end is noticed by a waiter on the group's pidfd queue. A connection that closes first (the command
 * line or its engine was killed) takes the process along.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "mem/memfile.h"
#include "sentry/boot/internal.h"
#include "sentry/tty/tty.h"

/* How long the last output of a terminal may wait for whoever reads it. */
#define EXEC_DRAIN_NS 1000000000ll

struct exec_session {
	struct task *task; /* a reference */
	struct thread_group *group; /* a reference */
	struct tty *tty; /* NULL without a terminal */
	struct waiter waiter;
};

/* The spec from the memfd: positional reads, the sentry may not open anything. */
int exec_read_spec(int fd, struct boot_spec *ret, struct boot_error *e)
{
	struct stat st;
	char *json;
	int err;

	if (fstat(fd, &st) < 0 || st.st_size <= 0 || (uint64_t)st.st_size > BOOT_SIZE_MAX)
		return boot_fail(e, 1, "control: bad process description");
	json = malloc((size_t)st.st_size);
	if (!json)
		return boot_fail(e, 1, "control: out of memory");
	for (off_t at = 0; at < st.st_size;) {
		ssize_t n = pread(fd, json + at, (size_t)(st.st_size - at), at);

		if (n <= 0) {
			free(json);
			return boot_fail(e, 1, "control: process description: short read");
		}
		at += n;
	}
	err = boot_spec_decode(json, (size_t)st.st_size, ret, e->text, sizeof(e->text));
	free(json);
	e->exit_code = 1;
	return err ? -1 : 0;
}

int exec_place_fds(struct boot_process *p, int *fds, size_t count, size_t at, unsigned flags)
{
	struct boot_spec *s = p->spec;

	for (int i = 0; i < 3; i++)
		s->stdio[i] = -1;
	s->console_fd = s->extra_fd = -1;
	if (flags & CONTROL_EXEC_TERMINAL) {
		if (at < count) {
			s->console_fd = fds[at];
			fds[at++] = -1;
		}
	} else {
		for (unsigned i = 0; i < 3; i++)
			if ((flags & 1u << i) && at < count) {
				s->stdio[i] = fds[at];
				fds[at++] = -1;
			}
	}
	if (at > count || s->extra_fds != count - at ||
	    (s->console_fd < 0 && (flags & CONTROL_EXEC_TERMINAL)))
		return boot_fail(p->error, 1, "control: descriptors do not match the request");
	p->extra = fds + at;
	return 0;
}

static void exec_refuse(int sock, const struct boot_error *e)
{
	struct control_msg reply = {.op = CONTROL_REPLY,
				    .exit_code = e->exit_code ? e->exit_code : 1,
				    .text = (char *)e->text};

	if (control_send(sock, &reply))
		log_warn("control: a client went away before its reply");
}

static struct exec_session *exec_start(struct boot_process *p, int sock)
{
	struct control_msg started = {.op = CONTROL_STARTED};
	struct exec_session *x = calloc(1, sizeof(*x));
	struct task *t = NULL;

	if (!x) {
		boot_fail(p->error, 1, "exec: out of memory");
		return NULL;
	}
	if (boot_create_process(p, &t)) {
		free(x);
		return NULL;
	}
	x->task = t;
	x->group = t->group;
	x->tty = p->tty;
	p->tty = NULL;
	group_ref(x->group);
	waiter_init(&x->waiter, boot_event_on_exit, x, POLLIN | POLLHUP);
	wait_queue_add(&x->group->pidfd_wait, &x->waiter);
	started.pid = t->vtid;
	/* Before it runs: its exit must not overtake this. */
	if (control_send(sock, &started))
		task_group_exit(x->group, SIGKILL);
	if (task_start(t))
		log_error("exec: cannot start a process");
	return x;
}

void exec_begin(struct boot_job *j)
{
	struct boot_container *b = j->container;
	struct boot_error e = {.exit_code = 1};
	struct exec_session *x = NULL;
	struct boot_spec spec;
	struct boot_process p = {.boot = b, .spec = &spec, .error = &e};

	boot_spec_init(&spec);
	cred_set_current(b->root_cred);
	/* Pairs with add_finish(). */
	atomic_fetch_add(&b->execs, 1);
	if (atomic_load(&b->ended)) {
		boot_fail(&e, 1, "exec: the container has ended");
	} else if (!j->count || !b->root_cred || !b->init) {
		boot_fail(&e, 1, "exec: the container is not there yet");
	} else if (exec_read_spec(j->fds[0], &spec, &e) == 0) {
		mem_account_enter(b->cgroup->account);
		if (exec_place_fds(&p, j->fds, j->count, 1, j->flags) == 0)
			x = exec_start(&p, j->sock);
		mem_account_enter(NULL);
		/* What an error left. */
		for (int i = 0; i < 3; i++)
			if (spec.stdio[i] >= 0)
				close(spec.stdio[i]);
		if (spec.console_fd >= 0)
			close(spec.console_fd);
		boot_spec_fini(&spec);
	}
	for (size_t i = 0; i < j->count; i++)
		if (j->fds[i] >= 0)
			close(j->fds[i]);
	if (p.tty)
		tty_host_close(p.tty);
	if (atomic_fetch_sub(&b->execs, 1) == 1 && atomic_load(&b->ended))
		wait_queue_wake(&b->idle, POLLIN);
	if (!x)
		exec_refuse(j->sock, &e);
	j->session = x;
	j->last = !x;
}

void exec_message(struct exec_session *x, const struct control_msg *msg)
{
	struct moat_siginfo info = {.si_signo = msg->signo, .si_code = 0 /* SI_USER */};

	if (msg->op == CONTROL_RESIZE && x->tty) {
		tty_resize(x->tty, &(struct winsize){.ws_row = (unsigned short)msg->rows,
						     .ws_col = (unsigned short)msg->cols});
	} else if (msg->op == CONTROL_SIGNAL && msg->signo == SIGKILL) {
		task_group_exit(x->group, SIGKILL);
	} else if (msg->op == CONTROL_SIGNAL && msg->signo > 0 && msg->signo <= SIG_COUNT) {
		signal_send_group(x->group, &info);
	}
}

bool exec_has_ended(const struct exec_session *x)
{
	return group_is_dead(x->group);
}

void exec_finish(struct boot_job *j)
{
	struct exec_session *x = j->session;
	struct control_msg msg = {.op = CONTROL_EXIT, .status = x->group->exit_code};

	if (x->tty)
		tty_console_drain(x->tty, time_monotonic_ns() + EXEC_DRAIN_NS);
	j->last = true;
	if (control_send(j->sock, &msg))
		log_info("exec: nobody waits for the end of a process");
}

void exec_end(struct exec_session *x)
{
	if (!group_is_dead(x->group))
		task_group_exit(x->group, SIGKILL);
	wait_queue_remove(&x->waiter);
	if (x->tty)
		tty_host_close(x->tty);
	group_unref(x->group);
	task_unref(x->task);
	free(x);
	boot_trim_later();
}
