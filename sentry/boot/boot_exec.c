/*
 * sentry/boot/boot_exec.c - `moat exec`: further processes from outside, one a connection to the control socket.
 *
 * A process has no parent in here, as one that enters a Linux container's pid namespace: nobody inside waits for it, so it reaps itself,
 * and its end is told to the connection. The end is noticed by a waiter on the group's pidfd queue, which wakes the control thread
 * through an eventfd. A connection that closes first (the command line or its engine was killed) takes the process along.
 *
 * Looking for the program, loading it and draining a terminal can take as long as the gofer or a reader likes: a thread of its own does
 * that for each request (struct exec_job), and the control thread leaves the connection alone meanwhile.
 */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "sentry/boot/internal.h"
#include "sentry/tty/tty.h"

/* How long the last output of a terminal may wait for whoever reads it. */
#define EXEC_DRAIN_NS 1000000000ll
#define EXEC_STACK_SIZE (256u << 10)

struct exec_session {
	struct task *task; /* a reference */
	struct thread_group *group; /* a reference */
	struct tty *tty; /* NULL without a terminal */
	struct waiter waiter;
};

/* A step of a session, on its own thread. */
struct exec_job {
	STAILQ_ENTRY(exec_job) link; /* guarded by jobs_lock, once done */
	struct boot_state *boot;
	struct exec_session *session; /* begin: out, NULL if refused; finish: in */
	bool finish;
	int sock;
	unsigned flags;
	size_t count;
	int fds[CONTROL_FDS_MAX];
};

static struct mutex jobs_lock = MUTEX_INIT(LOCK_LEAF, "exec_jobs");
static STAILQ_HEAD(, exec_job) jobs_done = STAILQ_HEAD_INITIALIZER(jobs_done);
static int exec_fd = -1;

int exec_init(void)
{
	exec_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return exec_fd < 0 ? -errno : 0;
}

int exec_event_fd(void)
{
	return exec_fd;
}

static void exec_wake(void)
{
	static const uint64_t one = 1;

	if (write(exec_fd, &one, sizeof(one)) < 0 && errno != EAGAIN)
		log_warn("exec: the end of a process goes unnoticed: %s", strerror(errno));
}

static void exec_ended(unused_arg struct waiter *w, unused_arg uint32_t events)
{
	exec_wake();
}

/* The spec from the memfd: positional reads, the sentry may not open anything. */
static int exec_read_spec(int fd, struct boot_spec *ret, struct boot_error *e)
{
	struct stat st;
	char *json;
	int err;

	if (fstat(fd, &st) < 0 || st.st_size <= 0 || (uint64_t)st.st_size > BOOT_SIZE_MAX)
		return boot_fail(e, 1, "exec: bad process description");
	json = malloc((size_t)st.st_size);
	if (!json)
		return boot_fail(e, 1, "exec: out of memory");
	for (off_t at = 0; at < st.st_size;) {
		ssize_t n = pread(fd, json + at, (size_t)(st.st_size - at), at);

		if (n <= 0) {
			free(json);
			return boot_fail(e, 1, "exec: process description: short read");
		}
		at += n;
	}
	err = boot_spec_decode(json, (size_t)st.st_size, ret, e->text, sizeof(e->text));
	free(json);
	e->exit_code = 1;
	return err ? -1 : 0;
}

/* Puts the received descriptors (after the memfd) where the spec says they are. */
static int exec_place_fds(struct boot_process *p, int *fds, size_t count, unsigned flags)
{
	struct boot_spec *s = p->spec;
	size_t at = 1;

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
	if (s->extra_fds != count - at || (s->console_fd < 0 && (flags & CONTROL_EXEC_TERMINAL)))
		return boot_fail(p->error, 1, "exec: descriptors do not match the request");
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
	waiter_init(&x->waiter, exec_ended, x, POLLIN | POLLHUP);
	wait_queue_add(&x->group->pidfd_wait, &x->waiter);
	started.pid = t->tid;
	/* Before it runs: its exit must not overtake this. */
	if (control_send(sock, &started))
		task_group_exit(x->group, SIGKILL);
	if (task_start(t))
		log_error("exec: cannot start a process");
	return x;
}

static struct exec_session *exec_begin(struct boot_state *b, int sock, int *fds, size_t count,
				       unsigned flags)
{
	struct boot_error e = {.exit_code = 1};
	struct exec_session *x = NULL;
	struct boot_spec spec;
	struct boot_process p = {.boot = b, .spec = &spec, .error = &e};

	boot_spec_init(&spec);
	cred_set_current(b->root_cred);
	if (!count || !b->root_cred || !b->init) {
		boot_fail(&e, 1, "exec: the container is not there yet");
	} else if (exec_read_spec(fds[0], &spec, &e) == 0) {
		if (exec_place_fds(&p, fds, count, flags) == 0)
			x = exec_start(&p, sock);
		/* What an error left. */
		for (int i = 0; i < 3; i++)
			if (spec.stdio[i] >= 0)
				close(spec.stdio[i]);
		if (!x && !p.tty && spec.console_fd >= 0)
			close(spec.console_fd);
		boot_spec_fini(&spec);
	}
	for (size_t i = 0; i < count; i++)
		if (fds[i] >= 0)
			close(fds[i]);
	if (p.tty)
		tty_host_close(p.tty);
	if (!x)
		exec_refuse(sock, &e);
	return x;
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

static void exec_finish(struct exec_session *x, int sock)
{
	struct control_msg msg = {.op = CONTROL_EXIT, .status = x->group->exit_code};

	if (x->tty)
		tty_console_drain(x->tty, time_monotonic_ns() + EXEC_DRAIN_NS);
	if (control_send(sock, &msg))
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
}

/* ---- jobs ---- */

static void job_run(struct exec_job *j)
{
	if (j->finish)
		exec_finish(j->session, j->sock);
	else
		j->session = exec_begin(j->boot, j->sock, j->fds, j->count, j->flags);
	mutex_lock(&jobs_lock);
	STAILQ_INSERT_TAIL(&jobs_done, j, link);
	mutex_unlock(&jobs_lock);
	exec_wake();
}

static void *job_main(void *arg)
{
	rcu_thread_begin();
	job_run(arg);
	cred_set_current(NULL);
	/* Files and mounts that it let go: the queue is this thread's. */
	vfs_run_deferred();
	rcu_thread_end();
	return NULL;
}

/* On a new thread; without one to be had, here and now. */
static void job_start(struct exec_job *j)
{
	pthread_attr_t attr;
	pthread_t thread;

	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&attr, EXEC_STACK_SIZE);
	if (pthread_create(&thread, &attr, job_main, j))
		job_run(j);
	pthread_attr_destroy(&attr);
}

bool exec_request(struct boot_state *b, int sock, const int *fds, size_t count, unsigned flags)
{
	struct exec_job *j = malloc(sizeof(*j));

	if (!j) {
		for (size_t i = 0; i < count; i++)
			close(fds[i]);
		return false;
	}
	*j = (struct exec_job){.boot = b, .sock = sock, .flags = flags, .count = count};
	memcpy(j->fds, fds, count * sizeof(*fds));
	job_start(j);
	return true;
}

bool exec_report(struct exec_session *x, int sock)
{
	struct exec_job *j = malloc(sizeof(*j));

	if (!j)
		return false;
	*j = (struct exec_job){.session = x, .sock = sock, .finish = true};
	job_start(j);
	return true;
}

bool exec_next_done(int *ret_sock, struct exec_session **ret_session, bool *ret_finished)
{
	struct exec_job *j;

	mutex_lock(&jobs_lock);
	j = STAILQ_FIRST(&jobs_done);
	if (j)
		STAILQ_REMOVE_HEAD(&jobs_done, link);
	mutex_unlock(&jobs_lock);
	if (!j)
		return false;
	*ret_sock = j->sock;
	*ret_session = j->session;
	*ret_finished = j->finish;
	free(j);
	return true;
}
