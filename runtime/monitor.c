/*
 * runtime/monitor.c - the process that stands for a container on the host.
 *
 * A copy of the command line that never executes another program, so it costs a few pages. It is pid 1 of a pid namespace that holds
 * sentry and gofer too: whoever kills it ends them. It passes on the signals that it gets and its terminal's size, and exits as the
 * container's first process did, which is what engines wait for.
 */
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/io.h"
#include "base/trim.h"
#include "runtime/cli.h"
#include "runtime/clone.h"
#include "runtime/network.h"
#include "runtime/room.h"
#include "runtime/sandbox.h"
#include "wire/control.h"

struct monitor {
	struct sandbox *sb;
	int signal_fd;
	struct room room;
	bool kept; /* the container outlives the command line */
	bool done;
	int exit_code;
};

/* Of a child that cannot become what it is to be. */
static noreturn_fn void role_error(const char *role, const char *call)
{
	char text[128];

	snprintf(text, sizeof(text), "moat: cannot execute %.20s: %.20s: %.60s\n", role, call,
		 strerror(errno));
	(void)!write(STDERR_FILENO, text, strlen(text));
	_exit(127);
}

/* In a child: descriptors src[i] become SANDBOX_FD_FIRST + i, everything else from there on is closed, and the role is executed. */
static noreturn_fn void exec_role(struct sandbox *sb, const char *role, const int *src,
				  unsigned count, char **extra)
{
	/* The gofer's trees, and --debug. */
	char *argv[2 + OCI_ATTACHES_MAX + 1 + 1] = {(char *)"moat", (char *)role};
	char *envp[] = {(char *)"PATH=/usr/bin:/bin", NULL, NULL};
	unsigned n = 2;
	int high = SANDBOX_FD_FIRST + (int)count, exe_fd;
	int *moved = calloc(count + 1, sizeof(*moved));

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	sigprocmask(SIG_SETMASK, &sb->old_mask, NULL);
	/* First out of the way, above where they will be. */
	exe_fd = fcntl(sb->exe_fd, F_DUPFD_CLOEXEC, high);
	for (unsigned i = 0; i < count; i++)
		moved[i] = src[i] < 0 ? -1 : fcntl(src[i], F_DUPFD_CLOEXEC, high);
	for (unsigned i = 0; i < count; i++)
		if (moved[i] >= 0)
			dup2(moved[i], SANDBOX_FD_FIRST + (int)i);
		else
			close(SANDBOX_FD_FIRST + (int)i);
	/*
	 * All that is above is O_CLOEXEC but what the caller preserved for nobody. A sandbox that would have some descriptor of the host's besides its own
	 * (the call is of Linux 5.9, and a seccomp profile may refuse it) does not begin.
	 */
	if (syscall(SYS_close_range, 3, SANDBOX_FD_FIRST - 1, 0) < 0 ||
	    syscall(SYS_close_range, high, ~0u, CLOSE_RANGE_CLOEXEC) < 0)
		role_error(role, "close_range");
	stdio_to_null(!sb->opts->detach);
	for (; extra && *extra && n < ARRAY_SIZE(argv) - 1; extra++)
		argv[n++] = *extra;
	/* Sanitizer builds take their options from the environment. */
	for (char **e = environ; *e; e++)
		if (strncmp(*e, "ASAN_OPTIONS=", 13) == 0 || strncmp(*e, "TSAN_OPTIONS=", 13) == 0)
			envp[1] = *e;
	fexecve(exe_fd, argv, envp);
	role_error(role, "execve");
}

static int start_gofer(struct sandbox *sb, int sock)
{
	struct oci_config *c = sb->config;
	bool ns = sb->userns.create || sb->userns.path;
	unsigned long flags = CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS;
	char **extra = calloc((size_t)c->nattaches + 2, sizeof(*extra));
	pid_t pid;

	if (!extra)
		return -ENOMEM;
	if (cli.debug)
		extra[c->nattaches] = (char *)"--debug";
	for (unsigned i = 0; i < c->nattaches; i++) {
		const struct oci_attach *a = &c->attaches[i];

		/* The root's sockets are the container's own. */
		unsigned uds = i ? c->spec.host_uds : 0;

		if (asprintf(&extra[i], "%s%s%s%s%s%s%s:%s", a->readonly ? "ro" : "rw",
			     a->is_file ? ",file" : "", a->alone ? ",alone" : "",
			     cli.host_fifo ? ",fifo" : "", uds & BOOT_UDS_OPEN ? ",uds-open" : "",
			     uds & BOOT_UDS_CREATE ? ",uds-create" : "",
			     a->overlay ? ",overlay" : "", a->host_path) < 0)
			return -ENOMEM;
	}
	pid = clone_process(flags, SIGCHLD);
	if (pid == 0) {
		int fds[] = {sock, sb->log_fd};

		setsid();
		/* Without one of its own the root would be the host's: there it stays who the caller is. */
		if (ns && userns_become_root()) {
			cli_error("the gofer cannot become root of its user namespace: %m");
			_exit(1);
		}
		if (!ns && userns_keep_caps())
			cli_debug("the gofer's capabilities: %m");
		exec_role(sb, "gofer-role", fds, ARRAY_SIZE(fds), extra);
	}
	for (unsigned i = 0; i < c->nattaches; i++)
		free(extra[i]);
	free(extra);
	sb->gofer = pid;
	return pid < 0 ? pid : 0;
}

/* Where the sentry's descriptors are. */
enum {
	FD_SPEC,
	FD_GOFER,
	FD_CONTROL,
	FD_LISTEN,
	FD_LOG,
	FD_CONSOLE,
	FD_NOTIFY,
	FD_STDIO,
	FD_EXTRA = FD_STDIO + 3,
};

/* Asked of what is written down: the command line makes a systemd scope after we are there. */
static bool is_memory_bounded(struct sandbox *sb)
{
	json_t *j = sb->config->spec.memory_limit ? state_load(&sb->state, "cgroup.json") : NULL;
	struct cgroup cg = {0};
	bool bounded;

	bounded = j && cgroup_from_json(&cg, j) == 0 && cgroup_bounds_memory(&cg);
	json_decref(j);
	cgroup_fini(&cg);
	return bounded;
}

/* The spec, with the numbers that the descriptors will have in the sentry, as a memfd. */
static int spec_memfd(struct sandbox *sb)
{
	struct boot_spec *s = &sb->config->spec;
	bool have_console = sb->console_slave >= 0;
	struct buf b;
	int fd, err;

	s->gofer_fd = SANDBOX_FD_FIRST + FD_GOFER;
	s->control_fd = SANDBOX_FD_FIRST + FD_CONTROL;
	s->listen_fd = SANDBOX_FD_FIRST + FD_LISTEN;
	s->log_fd = sb->log_fd >= 0 ? SANDBOX_FD_FIRST + FD_LOG : -1;
	s->notify_fd = sb->notify.guest_fd >= 0 ? SANDBOX_FD_FIRST + FD_NOTIFY : -1;
	s->console_fd = have_console ? SANDBOX_FD_FIRST + FD_CONSOLE : -1;
	for (int i = 0; i < 3; i++)
		s->stdio[i] = have_console || fcntl(i, F_GETFD) < 0
				      ? -1
				      : SANDBOX_FD_FIRST + FD_STDIO + i;
	s->extra_fds = sb->opts->preserve_fds;
	s->extra_fd = SANDBOX_FD_FIRST + FD_EXTRA;
	s->virtiofs_fd = s->extra_fd + (int)s->extra_fds;
	s->memory_bounded = is_memory_bounded(sb);
	/* Seen from within its user namespace, as a program in it would. */
	s->uid_map = userns_map_text("uid_map");
	s->gid_map = userns_map_text("gid_map");
	buf_init(&b, BOOT_SIZE_MAX);
	boot_spec_encode(s, &b);
	err = buf_error(&b);
	fd = err ? err : memfd_create("moat-boot", MFD_CLOEXEC);
	if (fd >= 0 && (err = io_write_full(fd, b.data, b.len)) == 0)
		lseek(fd, 0, SEEK_SET);
	buf_fini(&b);
	if (err && fd >= 0)
		close(fd);
	return err ? err : fd < 0 ? -errno : fd;
}

static int start_sentry(struct sandbox *sb, int gofer_sock, int control)
{
	unsigned long flags =
		CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP;
	unsigned last = FD_EXTRA + sb->opts->preserve_fds + sb->virtiofs.count, count = last + 1;
	int spec, again[2] = {-1, -1}, *fds = calloc(count, sizeof(*fds));
	pid_t pid;

	if (!fds)
		return -ENOMEM;
	if (sb->virtiofs.count &&
	    socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, again) < 0) {
		free(fds);
		return -errno;
	}
	sb->config->spec.network = sb->network_shared ? BOOT_NETWORK_HOST : BOOT_NETWORK_OWN;
	spec = spec_memfd(sb);
	if (spec < 0) {
		free(fds);
		return spec; /* the monitor ends */
	}
	fds[FD_SPEC] = spec;
	fds[FD_GOFER] = gofer_sock;
	fds[FD_CONTROL] = control;
	fds[FD_LISTEN] = sb->listen_fd;
	fds[FD_LOG] = sb->log_fd;
	fds[FD_CONSOLE] = sb->console_slave;
	fds[FD_NOTIFY] = sb->notify.guest_fd;
	for (int i = 0; i < 3; i++)
		fds[FD_STDIO + i] = sb->console_slave >= 0 || fcntl(i, F_GETFD) < 0 ? -1 : i;
	for (unsigned i = 0; i < sb->opts->preserve_fds; i++)
		fds[FD_EXTRA + i] = 3 + (int)i;
	for (unsigned i = 0; i < sb->virtiofs.count; i++)
		fds[FD_EXTRA + sb->opts->preserve_fds + i] = sb->virtiofs.fds[i];
	fds[last] = again[1];
	pid = clone_process(flags, SIGCHLD);
	if (pid == 0) {
		setsid();
		if (userns_keep_caps())
			cli_debug("the sentry's capabilities: %m");
		exec_role(sb, "sentry-role", fds, count, NULL);
	}
	close(spec);
	if (again[1] >= 0)
		close(again[1]);
	sb->virtiofs.again = again[0];
	free(fds);
	sb->sentry = pid;
	return pid < 0 ? pid : 0;
}

/* No sentry of its own: that of the pod's sandbox makes the container, with what it is sent. */
static int join_sandbox(struct sandbox *sb, int gofer_sock)
{
	struct control_msg msg = {.op = CONTROL_ADD};
	int fds[CONTROL_FDS_MAX], again[2] = {-1, -1}, owned = 0, err;
	size_t n = 0;

	if (sb->opts->preserve_fds > CONTROL_PRESERVED_MAX) {
		cli_error("--preserve-fds: at most %d in a container of a pod",
			  CONTROL_PRESERVED_MAX);
		return -E2BIG;
	}
	if (sb->virtiofs.count && socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, again) < 0)
		return -errno;
	fds[n++] = spec_memfd(sb);
	if (fds[0] < 0)
		return fds[0]; /* the monitor ends */
	fds[n++] = gofer_sock;
	fds[n++] = sb->listen_fd;
	if (sb->notify.guest_fd >= 0) {
		msg.flags |= CONTROL_ADD_NOTIFY;
		fds[n++] = sb->notify.guest_fd;
	}
	for (unsigned i = 0; i < sb->virtiofs.count; i++)
		fds[n++] = sb->virtiofs.fds[i];
	if (sb->virtiofs.count)
		fds[n++] = again[1];
	if (sb->console_slave >= 0) {
		msg.flags |= CONTROL_EXEC_TERMINAL;
		fds[n++] = sb->console_slave;
	}
	for (int i = 0; i < 3 && sb->console_slave < 0; i++) {
		/* The sentry can open no description of its own any more. */
		int fd = fcntl(i, F_GETFD) < 0 ? -1 : io_reopen_nonblock(i);

		if (fd < 0)
			continue;
		msg.flags |= 1u << i;
		fds[n + (size_t)owned++] = fd;
	}
	n += (size_t)owned;
	for (unsigned i = 0; i < sb->opts->preserve_fds; i++)
		fds[n++] = 3 + (int)i;
	err = control_send_fds(sb->pod.sock, &msg, fds, n);
	close(fds[0]);
	if (again[1] >= 0)
		close(again[1]);
	sb->virtiofs.again = again[0];
	for (size_t i = n - sb->opts->preserve_fds - (size_t)owned; owned-- > 0;)
		close(fds[i++]);
	if (err)
		cli_error("the pod's sandbox %s: %s", sb->pod.sandbox, strerror(-err));
	sb->lifeline = sb->pod.sock;
	sb->pod.sock = -1;
	return err;
}

static int start_pod_roles(struct sandbox *sb)
{
	int gofer_sp[2], err = network_configure(sb->config->spec.sysctls, sb->network_shared);

	if (err)
		return err;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, gofer_sp) < 0) {
		cli_error("cannot make the container's sockets: %m");
		return -errno;
	}
	err = start_gofer(sb, gofer_sp[1]);
	if (err)
		cli_error("cannot start the gofer: %s", strerror(-err));
	if (!err)
		err = join_sandbox(sb, gofer_sp[0]);
	close(gofer_sp[0]);
	close(gofer_sp[1]);
	close(sb->listen_fd);
	sb->listen_fd = -1;
	return err;
}

static int start_roles(struct sandbox *sb)
{
	int gofer_sp[2], control_sp[2], err;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, gofer_sp) < 0 ||
	    socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, control_sp) < 0) {
		cli_error("cannot make the sandbox's sockets: %m");
		return -errno;
	}
	err = start_gofer(sb, gofer_sp[1]);
	if (err)
		cli_error("cannot start the gofer: %s", strerror(-err));
	if (!err) {
		err = start_sentry(sb, gofer_sp[0], control_sp[1]);
		if (err)
			cli_error("cannot make the sentry's namespaces: %s", strerror(-err));
	}
	close(gofer_sp[0]);
	close(gofer_sp[1]);
	close(control_sp[1]);
	close(sb->listen_fd);
	sb->listen_fd = -1;
	sb->lifeline = control_sp[0];
	return err;
}

static void tell(struct sandbox *sb, char what)
{
	if (sb->link >= 0 && send(sb->link, &what, 1, MSG_NOSIGNAL) < 0) {
		close(sb->link);
		sb->link = -1;
	}
}

static void to_sentry(struct monitor *m, const struct control_msg *msg)
{
	if (m->sb->lifeline >= 0 && control_send(m->sb->lifeline, msg) < 0)
		cli_debug("the sentry takes no more messages");
}

/* One message from the sentry. False: there is none. */
static bool on_control(struct monitor *m)
{
	struct sandbox *sb = m->sb;
	struct control_msg msg, reply;
	int err = control_recv(sb->lifeline, &msg);

	if (err == -EAGAIN)
		return false;
	if (err) {
		close(sb->lifeline);
		sb->lifeline = -1;
		/* Without a sentry of its own to wait for: the sandbox has ended, and the container with it. */
		if (sb->pod.sandbox && !m->done) {
			if (!m->kept)
				cli_error("the pod's sandbox %s has ended", sb->pod.sandbox);
			m->exit_code = 137;
			m->done = true;
		}
		return false;
	}
	switch (msg.op) {
	case CONTROL_CREATED:
	case CONTROL_STARTED:
		if (sb->opts->detach && view_make(sb)) {
			m->exit_code = 1;
			m->done = true;
			break;
		}
		tell(sb, SANDBOX_READY);
		break;
	case CONTROL_ERROR:
		cli_error("%s", msg.text ? msg.text : "the sentry failed");
		m->exit_code = msg.exit_code ? msg.exit_code : 1;
		m->done = true;
		break;
	case CONTROL_EXIT:
		m->exit_code = WIFSIGNALED(msg.status) ? 128 + WTERMSIG(msg.status)
						       : WEXITSTATUS(msg.status);
		m->done = true;
		break;
	case CONTROL_ROOM:
		if (!sb->pod.sandbox && room_ask(&m->room, &msg, &reply))
			to_sentry(m, &reply);
		break;
	default:
		break;
	}
	control_msg_fini(&msg);
	return true;
}

static void send_resize(struct monitor *m)
{
	struct control_msg msg = {.op = CONTROL_RESIZE};
	struct winsize ws;

	if (m->sb->console_slave < 0 || ioctl(m->sb->console_slave, TIOCGWINSZ, &ws) < 0)
		return;
	msg.rows = ws.ws_row;
	msg.cols = ws.ws_col;
	to_sentry(m, &msg);
}

static void on_sentry_end(struct monitor *m, int status)
{
	m->sb->sentry = 0;
	/* What it said last may still be in the socket. */
	while (m->sb->lifeline >= 0 && !m->done && on_control(m))
		;
	if (!m->done) {
		m->exit_code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
		if (!WIFSIGNALED(status) && m->exit_code != 137)
			m->exit_code = 1;
		cli_error("the sentry ended unexpectedly (%s %d)%s",
			  WIFSIGNALED(status) ? "signal" : "status",
			  WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status),
			  cli.debug_log ? "; see the debug log" : "; --debug-log FILE tells more");
	}
	m->done = true;
}

static void reap(struct monitor *m)
{
	struct control_msg reply;
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		if (pid == m->sb->gofer)
			m->sb->gofer = 0; /* the sentry sees EIO, and says so */
		else if (pid == m->sb->sentry)
			on_sentry_end(m, status);
		else if (room_reaped(&m->room, pid, status, &reply))
			to_sentry(m, &reply);
	}
}

static void on_signal(struct monitor *m)
{
	struct control_msg msg = {.op = CONTROL_SIGNAL};
	struct signalfd_siginfo si;

	if (read(m->signal_fd, &si, sizeof(si)) != sizeof(si))
		return;
	msg.signo = (int)si.ssi_signo;
	if (msg.signo == SIGCHLD) {
		reap(m);
	} else if (m->sb->console_slave >= 0 && si.ssi_code == SI_KERNEL) {
		/* Of our terminal: its size; a hang-up is seen by the sentry on its own descriptor. */
		if (msg.signo == SIGWINCH)
			send_resize(m);
	} else {
		to_sentry(m, &msg);
	}
}

/* The command line: to be kept, or gone. */
static void on_link(struct monitor *m)
{
	struct sandbox *sb = m->sb;
	char what;
	ssize_t n = recv(sb->link, &what, 1, 0);

	if (n == 1 && what == SANDBOX_KEEP) {
		m->kept = true;
		/* The name by which `docker top` and its like find the container's first process. */
		cli_title_set(sb->config->spec.argv);
		tell(sb, SANDBOX_KEEP);
		/* Not opened again: /dev/null is the image's here, and an overlay would copy it up. */
		if (dup2(STDIN_FILENO, STDERR_FILENO) < 0)
			cli_debug("standard error: %m");
		return;
	}
	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return;
	close(sb->link);
	sb->link = -1;
	if (!m->kept)
		m->done = true;
}

static void reap_one(pid_t pid)
{
	while (pid > 0 && waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
}

/* All of it: false if something of the cgroup stays, which only the host's root may remove and nobody would find without the state directory. */
static bool leave_nothing(struct sandbox *sb)
{
	if (!view_leave(sb) && sb->cgroup.ndirs)
		return false;
	/* A v2 hierarchy may let nobody out of the part that its namespace shows. */
	if (sb->host_cgroups >= 0 && setns(sb->host_cgroups, CLONE_NEWCGROUP) < 0)
		cli_debug("back to the host's cgroup namespace: %m");
	cgroup_leave(&sb->cgroup);
	if (cgroup_remove(&sb->cgroup, CGROUP_REMOVE_MS))
		return false;
	return state_remove(&sb->state) == 0;
}

/* The end. Without its command line the container leaves nothing, where that can be; else that, or `moat delete`, takes the rest away. */
static noreturn_fn void finish(struct monitor *m)
{
	struct sandbox *sb = m->sb;

	/* Both at once: the end of either takes the kernel some time. */
	if (sb->sentry > 0)
		kill(sb->sentry, SIGKILL);
	if (sb->gofer > 0)
		kill(sb->gofer, SIGKILL);
	reap_one(sb->sentry);
	reap_one(sb->gofer);
	if (m->kept || sb->link >= 0 || !leave_nothing(sb))
		state_write_exit(&sb->state, m->exit_code);
	_exit(m->exit_code);
}

static noreturn_fn void loop(struct monitor *m)
{
	struct sandbox *sb = m->sb;
	int timeout_ms = TRIM_AFTER_MS;

	while (!m->done) {
		struct pollfd pfd[5] = {
			{.fd = m->signal_fd, .events = POLLIN},
			{.fd = sb->lifeline, .events = POLLIN},
			{.fd = sb->link, .events = POLLIN},
			{.fd = sb->notify.in_fd, .events = POLLIN},
			{.fd = sb->virtiofs.again, .events = POLLIN},
		};

		int n = poll(pfd, ARRAY_SIZE(pfd), timeout_ms);

		/* Once, when nothing has happened for a while. */
		if (n == 0) {
			(void)trim_process();
			timeout_ms = -1;
		}
		if (n <= 0)
			continue;
		/* Before what may be the end. */
		if (pfd[3].revents & POLLIN)
			notify_forward(&sb->notify);
		if (pfd[1].revents)
			on_control(m);
		if (!m->done && pfd[0].revents)
			on_signal(m);
		if (!m->done && pfd[2].revents)
			on_link(m);
		if (!m->done && pfd[4].revents)
			virtiofs_connect_again(&sb->virtiofs);
	}
	finish(m);
}

static int by_number(const void *a, const void *b)
{
	return *(const int *)a - *(const int *)b;
}

/* Only what it needs: an inherited pipe must not be kept open by the monitor. Return 0 or -errno. */
static int close_others(const struct sandbox *sb)
{
	const int own[] = {sb->exe_fd,	     sb->log_fd,	 sb->listen_fd,
			   sb->link,	     sb->console_slave,	 sb->state.dirfd,
			   sb->state.rootfd, sb->state.lockfd,	 sb->notify.guest_fd,
			   sb->notify.in_fd, sb->notify.host_fd, sb->pod.sock};
	int keep[ARRAY_SIZE(own) + VIRTIOFS_KEPT_MAX + OVERLAY_DIRS_MAX];
	int next = 3 + (int)sb->opts->preserve_fds;
	size_t n = ARRAY_SIZE(own);

	for (size_t i = 0; i < n; i++) {
		keep[i] = own[i];
		if (own[i] >= 0)
			fcntl(own[i], F_SETFD, FD_CLOEXEC);
	}
	n += virtiofs_sockets_kept(&sb->virtiofs, keep + n);
	for (unsigned i = 0; i < sb->overlay_locks.count; i++)
		keep[n++] = sb->overlay_locks.fds[i];
	qsort(keep, n, sizeof(*keep), by_number);
	for (size_t i = 0; i < n; i++) {
		if (keep[i] < next)
			continue;
		if (keep[i] > next && syscall(SYS_close_range, next, keep[i] - 1, 0) < 0)
			return -errno;
		next = keep[i] + 1;
	}
	return syscall(SYS_close_range, next, ~0u, 0) < 0 ? -errno : 0;
}

static int monitor_signals(struct monitor *m)
{
	sigset_t set;

	sigfillset(&set);
	/* Our own faults. */
	sigdelset(&set, SIGSEGV);
	sigdelset(&set, SIGBUS);
	sigdelset(&set, SIGILL);
	sigdelset(&set, SIGFPE);
	sigdelset(&set, SIGABRT);
	for (int s = 1; s < NSIG; s++)
		if (s != SIGKILL && s != SIGSTOP)
			signal(s, SIG_DFL);
	sigprocmask(SIG_SETMASK, &set, NULL);
	m->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return m->signal_fd < 0 ? -errno : 0;
}

/* The host name: given to a new UTS namespace, or taken from one that is there (of a pod, the host's). */
static int set_hostname(struct sandbox *sb)
{
	struct oci_config *c = sb->config;
	char name[65] = "";

	if (c->uts_ns && !c->uts_ns_path) {
		if (c->spec.hostname && sethostname(c->spec.hostname, strlen(c->spec.hostname)) < 0)
			cli_debug("sethostname: %m");
		return 0;
	}
	if (c->uts_ns_path && !sb->uts_entered) {
		int err = uts_enter(c->uts_ns_path);

		if (err) {
			cli_error("linux.namespaces: %s: %s", c->uts_ns_path, strerror(-err));
			return err;
		}
	}
	if (c->spec.hostname && !c->uts_ns_path)
		return 0; /* not from a bundle */
	if (gethostname(name, sizeof(name) - 1) == 0) {
		free(c->spec.hostname);
		c->spec.hostname = strdup(name);
	}
	return c->spec.hostname ? 0 : -ENOMEM;
}

/* For those who look at the monitor's: what the container sees of its cgroup is the sentry's doing. */
static void enter_cgroup_namespace(struct sandbox *sb)
{
	if (!sb->config->cgroup_ns || sb->cgroup.ndirs == 0)
		return;
	sb->host_cgroups = open("/proc/self/ns/cgroup", O_RDONLY | O_CLOEXEC);
	if (sb->host_cgroups < 0 || unshare(CLONE_NEWCGROUP) < 0)
		cli_debug("no cgroup namespace for the monitor: %m");
}

/* The command line has gone: what it has written down is what there is to remove. A scope that it had not is not known to be ours. */
static void take_over(struct sandbox *sb)
{
	json_t *j = state_load(&sb->state, "cgroup.json");

	close(sb->link);
	sb->link = -1;
	cgroup_fini(&sb->cgroup);
	if (j && cgroup_from_json(&sb->cgroup, j))
		cli_debug("cgroup.json is damaged: the cgroup is left alone");
	json_decref(j);
}

static int enter_namespaces(struct sandbox *sb)
{
	char why[CGROUP_ERROR_MAX], mapped;
	const char *what = "";
	int err;

	if (sandbox_settles(sb)) {
		/* What fails there it says itself, and ends us. */
		if (recv(sb->link, &mapped, 1, 0) != 1 || mapped != SANDBOX_MAPPED) {
			take_over(sb);
			return -EPIPE;
		}
	} else if (!sb->cgroup_entered && cgroup_enter(&sb->cgroup, 0, why)) {
		cli_error("%s", why);
		return -EIO;
	}
	enter_cgroup_namespace(sb);
	err = set_hostname(sb);
	if (err || sb->network_entered)
		return err;
	err = network_enter(&sb->opts->network, &sb->network_shared, &what);
	if (err)
		cli_error("network: %s%s%s: %s", what, sb->opts->network.path ? " " : "",
			  sb->opts->network.path ? sb->opts->network.path : "", strerror(-err));
	return err;
}

/* The sentry has its end. Who passes the messages on is the command line, while it stays. */
static void settle_notify(struct sandbox *sb)
{
	char pid[16] = "";

	if (sb->notify.guest_fd >= 0)
		close(sb->notify.guest_fd);
	sb->notify.guest_fd = -1;
	if (!sb->opts->detach)
		notify_close(&sb->notify);
	/* Our own number is another in our pid namespace. */
	if (readlink("/proc/self", pid, sizeof(pid) - 1) > 0)
		sb->notify.main_pid = atoi(pid);
}

/* A systemd scope is made after we are there: what is written down is where we are. */
static void open_room(struct monitor *m)
{
	json_t *j = sandbox_settles(m->sb) ? state_load(&m->sb->state, "cgroup.json") : NULL;
	struct cgroup cg = {0};

	if (j && cgroup_from_json(&cg, j))
		cli_debug("cgroup.json is damaged: how much memory is left is not known");
	room_open(&m->room, sandbox_settles(m->sb) ? &cg : &m->sb->cgroup);
	json_decref(j);
	cgroup_fini(&cg);
}

void monitor_main(struct sandbox *sb)
{
	struct monitor m = {.sb = sb, .signal_fd = -1, .exit_code = 1};
	char go;
	int err;

	prctl(PR_SET_NAME, "moat-monitor");
	setsid();
	err = close_others(sb);
	sb->lifeline = sb->host_mounts = sb->host_cgroups = -1;
	sb->sentry = sb->gofer = 0;
	if (err) {
		cli_error("cannot close inherited descriptors: close_range: %s", strerror(-err));
		finish(&m);
	}
	if (sb->console_slave >= 0 && ioctl(sb->console_slave, TIOCSCTTY, 0) < 0)
		cli_debug("no controlling terminal for the monitor: %m");
	if (monitor_signals(&m) || enter_namespaces(sb))
		finish(&m);
	tell(sb, SANDBOX_NAMESPACES);
	/* Nothing of the sandbox exists yet: hooks (networks) run in between. */
	if (sb->link < 0 || recv(sb->link, &go, 1, 0) != 1 || go != SANDBOX_GO) {
		if (sb->link >= 0)
			close(sb->link);
		sb->link = -1;
		finish(&m);
	}
	if (!sb->pod.sandbox)
		open_room(&m);
	if (sb->pod.sandbox ? start_pod_roles(sb) : start_roles(sb))
		finish(&m);
	settle_notify(sb);
	stdio_to_null(true);
	/* Preserved descriptors are the sentry's now. */
	for (unsigned i = 0; i < sb->opts->preserve_fds; i++)
		close(3 + (int)i);
	send_resize(&m);
	loop(&m);
}
