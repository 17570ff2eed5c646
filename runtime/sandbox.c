/*
 * runtime/sandbox.c - one sandbox from `moat run` to its end.
 *
 * The CLI stays for the sandbox's life. It holds the lifeline (a control socket pair to the sentry), forwards signals, and pumps the
 * terminal. Whoever is killed, the others notice: sentry and gofer carry a parent-death signal; the sentry is
 * its pid namespace's init; the gofer ends with its socket; the monitor sees the CLI's pipe close.
 */
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <linux/sched.h>
#include <unistd.h>

#include "base/io.h"
#include "runtime/cli.h"
#include "runtime/sandbox.h"
#include "runtime/state.h"
#include "runtime/terminal.h"
#include "wire/control.h"

#define SANDBOX_FD_FIRST 10 /* the roles' descriptors begin here */

struct sandbox {
	struct oci_config *config;
	const struct sandbox_options *opts;
	struct state_dir state;
	int exe_fd, log_fd;
	int lifeline; /* our end; -1 once the sentry has gone */
	int console; /* our end of the terminal's byte stream, -1 */
	int monitor_pipe; /* write end: its closing is the monitor's cue */
	pid_t sentry, gofer, monitor;
	int signal_fd;
	sigset_t old_mask;
	bool started, done;
	int exit_code;
};

static int open_log(struct sandbox *sb)
{
	sb->log_fd = -1;
	if (!cli.debug_log)
		return 0;
	if (strcmp(cli.debug_log, "-") == 0)
		sb->log_fd = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, SANDBOX_FD_FIRST);
	else
		sb->log_fd = open(cli.debug_log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
	if (sb->log_fd >= 0)
		return 0;
	cli_error("--debug-log %s: %m", cli.debug_log);
	return -errno;
}

static void kill_and_reap(pid_t pid)
{
	if (pid <= 0)
		return;
	kill(pid, SIGKILL);
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
}

/*
 * The monitor: a fork of the CLI that outlives it. Reads pids from the pipe; a 'q' means that the CLI has cleaned up itself.
 */
static noreturn_fn void monitor_main(struct sandbox *sb, int pipe_fd)
{
	pid_t pids[2] = {0, 0};
	struct {
		char tag;
		int32_t pid;
	} __attribute__((packed)) msg;
	unsigned n = 0;

	prctl(PR_SET_NAME, "moat-monitor");
	setsid();
	for (int s = 1; s < NSIG; s++)
		if (s != SIGKILL && s != SIGSTOP)
			signal(s, SIG_IGN);
	for (int fd = 0; fd < 3; fd++) {
		int null = open("/dev/null", O_RDWR | O_CLOEXEC);

		if (null != fd && null >= 0) {
			dup2(null, fd);
			close(null);
		}
	}
	/* Only what it needs: an inherited pipe must not be kept open by the monitor. */
	for (int fd = 3; fd < 1024; fd++)
		if (fd != pipe_fd && fd != sb->state.dirfd && fd != sb->state.rootfd &&
		    fd != sb->state.lockfd)
			close(fd);
	while (io_read_full(pipe_fd, &msg, sizeof(msg)) == 0) {
		if (msg.tag == 'q')
			_exit(0);
		if (n < ARRAY_SIZE(pids))
			pids[n++] = msg.pid;
	}
	for (unsigned i = 0; i < n; i++)
		kill(pids[i], SIGKILL);
	state_remove(&sb->state);
	_exit(0);
}

static int start_monitor(struct sandbox *sb)
{
	int p[2];

	if (pipe2(p, O_CLOEXEC) < 0)
		return -errno;
	sb->monitor = fork();
	if (sb->monitor == 0) {
		close(p[1]);
		monitor_main(sb, p[0]);
	}
	close(p[0]);
	sb->monitor_pipe = p[1];
	return sb->monitor < 0 ? -errno : 0;
}

static void tell_monitor(struct sandbox *sb, char tag, pid_t pid)
{
	struct {
		char tag;
		int32_t pid;
	} __attribute__((packed)) msg = {tag, pid};

	if (sb->monitor_pipe >= 0 && io_write_full(sb->monitor_pipe, &msg, sizeof(msg)) < 0)
		cli_warn("the sandbox's monitor is gone");
}

/* In a child: descriptors src[i] become SANDBOX_FD_FIRST + i, everything else from there on is closed, and the role is executed. */
static noreturn_fn void exec_role(struct sandbox *sb, const char *role, int *src, unsigned count,
				  char **extra)
{
	char *argv[2 + 512 + 1] = {(char *)"moat", (char *)role};
	char exe[64];
	unsigned n = 2;
	int high[32], exe_fd = fcntl(sb->exe_fd, F_DUPFD, 200);

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	sigprocmask(SIG_SETMASK, &sb->old_mask, NULL);
	for (unsigned i = 0; i < count; i++)
		high[i] = src[i] < 0 ? -1 : fcntl(src[i], F_DUPFD, 100);
	for (unsigned i = 0; i < count; i++)
		if (high[i] >= 0)
			dup2(high[i], SANDBOX_FD_FIRST + (int)i);
		else
			close(SANDBOX_FD_FIRST + (int)i);
	syscall(SYS_close_range, 3, SANDBOX_FD_FIRST - 1, 0);
	syscall(SYS_close_range, SANDBOX_FD_FIRST + count, exe_fd - 1, 0);
	syscall(SYS_close_range, exe_fd + 1, ~0u, 0);
	fcntl(exe_fd, F_SETFD, FD_CLOEXEC);
	for (; extra && *extra && n < ARRAY_SIZE(argv) - 1; extra++)
		argv[n++] = *extra;
	char *envp[] = {(char *)"PATH=/usr/bin:/bin", NULL, NULL};

	/* Sanitizer builds take their options from the environment. */
	for (char **e = environ; *e; e++)
		if (strncmp(*e, "ASAN_OPTIONS=", 13) == 0 || strncmp(*e, "TSAN_OPTIONS=", 13) == 0)
			envp[1] = *e;
	fexecve(exe_fd, argv, envp);
	snprintf(exe, sizeof(exe), "moat: cannot execute role %.20s\n", role);
	(void)!write(STDERR_FILENO, exe, strlen(exe));
	_exit(127);
}

static int start_gofer(struct sandbox *sb, int sock)
{
	struct oci_config *c = sb->config;
	struct clone_args args = {.flags = CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS,
				  .exit_signal = SIGCHLD};
	char **extra = calloc((size_t)c->nattaches + 1, sizeof(*extra));
	unsigned n = 0;
	pid_t pid;

	if (!extra)
		return -ENOMEM;
	for (unsigned i = 0; i < c->nattaches; i++) {
		const struct oci_attach *a = &c->attaches[i];

		if (asprintf(&extra[n], "%s%s:%s", a->readonly ? "ro" : "rw",
			     a->is_file ? ",file" : "", a->host_path) < 0)
			return -ENOMEM;
		n++;
	}
	pid = (pid_t)syscall(SYS_clone3, &args, sizeof(args));
	if (pid == 0) {
		int fds[] = {sock, sb->log_fd};

		setsid();
		exec_role(sb, "gofer-role", fds, ARRAY_SIZE(fds), extra);
	}
	for (unsigned i = 0; i < n; i++)
		free(extra[i]);
	free(extra);
	sb->gofer = pid;
	return pid < 0 ? -errno : 0;
}

/* The spec, with the numbers that the descriptors will have in the sentry, as a memfd. */
static int spec_memfd(struct sandbox *sb, bool have_console)
{
	struct boot_spec *s = &sb->config->spec;
	struct buf b;
	int fd, err;

	s->gofer_fd = SANDBOX_FD_FIRST + 1;
	s->control_fd = SANDBOX_FD_FIRST + 2;
	s->listen_fd = SANDBOX_FD_FIRST + 3;
	s->log_fd = sb->log_fd >= 0 ? SANDBOX_FD_FIRST + 4 : -1;
	s->console_fd = have_console ? SANDBOX_FD_FIRST + 5 : -1;
	for (int i = 0; i < 3; i++)
		s->stdio[i] = have_console || fcntl(i, F_GETFD) < 0 ? -1 : SANDBOX_FD_FIRST + 6 + i;
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

static int start_sentry(struct sandbox *sb, int gofer_sock, int control, int listen_fd, int console)
{
	struct clone_args args = {
		.flags = CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS |
			 CLONE_NEWCGROUP | network_clone_flag(&sb->opts->network),
		.exit_signal = SIGCHLD,
	};
	const char *what;
	int spec, err;
	pid_t pid;

	sb->config->spec.network =
		sb->opts->network.host ? BOOT_NETWORK_HOST : BOOT_NETWORK_OWN;
	spec = spec_memfd(sb, console >= 0);
	if (spec < 0)
		return spec;
	pid = (pid_t)syscall(SYS_clone3, &args, sizeof(args));
	if (pid == 0) {
		int fds[9] = {spec,    gofer_sock, control, listen_fd, sb->log_fd,
			      console, -1,	   -1,	    -1};

		err = network_enter(&sb->opts->network, &what);
		if (err) {
			cli_error("network: %s%s%s: %s", what, sb->opts->network.path ? " " : "",
				  sb->opts->network.path ? sb->opts->network.path : "",
				  strerror(-err));
			_exit(1);
		}
		setsid();
		for (int i = 0; i < 3 && console < 0; i++)
			fds[6 + i] = fcntl(i, F_GETFD) < 0 ? -1 : i;
		exec_role(sb, "sentry-role", fds, ARRAY_SIZE(fds), NULL);
	}
	close(spec);
	sb->sentry = pid;
	if (pid < 0) {
		err = -errno;
		cli_error("cannot make the sentry's namespaces: %s; moat needs CAP_SYS_ADMIN here "
			  "(run it as root)",
			  strerror(-err));
		return err;
	}
	return 0;
}

/* One message from the sentry. */
static void on_control(struct sandbox *sb)
{
	struct control_msg msg;
	int err = control_recv(sb->lifeline, &msg);

	if (err == -EAGAIN)
		return;
	if (err) {
		close(sb->lifeline);
		sb->lifeline = -1;
		return;
	}
	switch (msg.op) {
	case CONTROL_STARTED:
		sb->started = true;
		break;
	case CONTROL_ERROR:
		cli_error("%s", msg.text ? msg.text : "the sentry failed");
		sb->exit_code = msg.exit_code ? msg.exit_code : 1;
		sb->done = true;
		break;
	case CONTROL_EXIT:
		sb->exit_code = WIFSIGNALED(msg.status) ? 128 + WTERMSIG(msg.status)
							: WEXITSTATUS(msg.status);
		sb->done = true;
		break;
	default:
		break;
	}
	control_msg_fini(&msg);
}

static void send_resize(struct sandbox *sb)
{
	struct control_msg msg = {.op = CONTROL_RESIZE};

	if (sb->lifeline >= 0 && terminal_size(&msg.rows, &msg.cols) == 0 &&
	    control_send(sb->lifeline, &msg) < 0)
		cli_warn("cannot pass on the terminal's size");
}

static void on_signal(struct sandbox *sb)
{
	struct signalfd_siginfo si;
	struct control_msg msg = {.op = CONTROL_SIGNAL};
	int status;

	if (read(sb->signal_fd, &si, sizeof(si)) != sizeof(si))
		return;
	if (si.ssi_signo == SIGCHLD) {
		if (sb->gofer > 0 && waitpid(sb->gofer, &status, WNOHANG) == sb->gofer)
			sb->gofer = 0; /* the sentry sees EIO, and says so */
		if (sb->monitor > 0 && waitpid(sb->monitor, &status, WNOHANG) == sb->monitor)
			sb->monitor = 0;
		if (sb->sentry > 0 && waitpid(sb->sentry, &status, WNOHANG) == sb->sentry) {
			sb->sentry = 0;
			/* What it said last may still be in the socket. */
			while (sb->lifeline >= 0 && !sb->done)
				on_control(sb);
			if (!sb->done) {
				sb->exit_code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : 1;
				cli_error("the sentry ended unexpectedly (%s %d)%s",
					  WIFSIGNALED(status) ? "signal" : "status",
					  WIFSIGNALED(status) ? WTERMSIG(status)
							      : WEXITSTATUS(status),
					  cli.debug_log ? "; see the debug log"
							: "; --debug-log FILE tells more");
			}
			sb->done = true;
		}
		return;
	}
	if (si.ssi_signo == SIGWINCH && sb->console >= 0) {
		send_resize(sb);
		return;
	}
	msg.signo = (int)si.ssi_signo;
	if (sb->lifeline >= 0 && control_send(sb->lifeline, &msg) < 0)
		cli_warn("cannot forward signal %d", msg.signo);
}

static int block_signals(struct sandbox *sb)
{
	static const int forwarded[] = {SIGHUP,	 SIGINT,  SIGQUIT,  SIGTERM, SIGUSR1,
					SIGUSR2, SIGCONT, SIGWINCH, SIGALRM, SIGCHLD,
					SIGTSTP, SIGTTIN, SIGTTOU};
	sigset_t set;

	sigemptyset(&set);
	for (size_t i = 0; i < ARRAY_SIZE(forwarded); i++)
		sigaddset(&set, forwarded[i]);
	signal(SIGPIPE, SIG_IGN);
	sigprocmask(SIG_BLOCK, &set, &sb->old_mask);
	sb->signal_fd = signalfd(-1, &set, SFD_CLOEXEC);
	return sb->signal_fd < 0 ? -errno : 0;
}

static void event_loop(struct sandbox *sb)
{
	while (!sb->done || (sb->console >= 0 && terminal_pump_pending())) {
		struct pollfd pfd[5] = {
			{.fd = sb->signal_fd, .events = POLLIN},
			{.fd = sb->lifeline, .events = POLLIN},
			{.fd = -1},
			{.fd = -1},
			{.fd = -1},
		};

		if (sb->console >= 0)
			terminal_poll_prepare(sb->console, &pfd[2]);
		if (poll(pfd, ARRAY_SIZE(pfd), sb->done ? 0 : -1) < 0 && errno != EINTR)
			break;
		if (pfd[0].revents)
			on_signal(sb);
		if (sb->lifeline >= 0 && pfd[1].revents)
			on_control(sb);
		if (sb->console >= 0 && !terminal_poll_done(sb->console, &pfd[2])) {
			close(sb->console);
			sb->console = -1;
		}
	}
	/* The last output: the sentry closed its end after writing it. */
	if (sb->console >= 0)
		terminal_drain(sb->console);
}

static int start_all(struct sandbox *sb, int *gofer_sp, int *control_sp, int *console_sp)
{
	int listen_fd, err;

	listen_fd = state_listen(&sb->state);
	if (listen_fd < 0) {
		cli_error("control socket in %s/%s: %s", cli.root, sb->state.id,
			  strerror(-listen_fd));
		return listen_fd;
	}
	err = start_gofer(sb, gofer_sp[1]);
	if (err) {
		cli_error("cannot start the gofer: %s", strerror(-err));
	} else {
		tell_monitor(sb, 'p', sb->gofer);
		err = start_sentry(sb, gofer_sp[0], control_sp[1], listen_fd, console_sp[1]);
	}
	close(listen_fd);
	if (!err)
		tell_monitor(sb, 'p', sb->sentry);
	return err;
}

static int write_pid_file(const char *path, pid_t pid)
{
	char text[16];
	int err;

	if (!path)
		return 0;
	snprintf(text, sizeof(text), "%d", pid);
	err = io_write_file_at(AT_FDCWD, path, text, strlen(text), 0644);
	if (err)
		cli_error("--pid-file %s: %s", path, strerror(-err));
	return err;
}

static void close_pair(int *sp)
{
	for (int i = 0; i < 2; i++)
		if (sp[i] >= 0)
			close(sp[i]);
}

int sandbox_run(struct oci_config *config, const struct sandbox_options *opts)
{
	struct sandbox sb = {.config = config,
			     .opts = opts,
			     .exe_fd = -1,
			     .log_fd = -1,
			     .lifeline = -1,
			     .console = -1,
			     .monitor_pipe = -1,
			     .signal_fd = -1,
			     .exit_code = 1};
	int gofer_sp[2] = {-1, -1}, control_sp[2] = {-1, -1}, console_sp[2] = {-1, -1};

	if (config->spec.terminal && !isatty(STDIN_FILENO)) {
		cli_error("process.terminal is true, but standard input is no terminal; set it to "
			  "false, or run from a terminal");
		return 1;
	}
	if (open_log(&sb) || state_create(cli.root, opts->id, &sb.state))
		return 1;
	/* First, so that it holds none of the sandbox's sockets. */
	if (start_monitor(&sb)) {
		cli_error("cannot start the monitor: %m");
		goto out;
	}
	sb.exe_fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	if (sb.exe_fd < 0 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, gofer_sp) < 0 ||
	    socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, control_sp) < 0 ||
	    (config->spec.terminal &&
	     socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, console_sp) < 0)) {
		cli_error("cannot make the sandbox's sockets: %m");
		goto out;
	}
	if (config->spec.terminal && !config->spec.console_rows &&
	    terminal_size(&config->spec.console_rows, &config->spec.console_cols) < 0)
		config->spec.console_rows = config->spec.console_cols = 0;
	if (block_signals(&sb) || start_all(&sb, gofer_sp, control_sp, console_sp))
		goto out;
	close_pair((int[]){gofer_sp[0], gofer_sp[1]});
	gofer_sp[0] = gofer_sp[1] = -1;
	close(control_sp[1]);
	control_sp[1] = -1;
	sb.lifeline = control_sp[0];
	control_sp[0] = -1;
	if (console_sp[0] >= 0) {
		close(console_sp[1]);
		sb.console = console_sp[0];
		console_sp[0] = console_sp[1] = -1;
		terminal_raw();
	}
	if (state_write_json(&sb.state, opts->bundle, sb.sentry, config->attaches[0].host_path) ||
	    write_pid_file(opts->pid_file, sb.sentry))
		goto out;
	event_loop(&sb);
out:
	terminal_restore();
	kill_and_reap(sb.sentry);
	kill_and_reap(sb.gofer);
	state_remove(&sb.state);
	if (sb.monitor > 0) {
		tell_monitor(&sb, 'q', 0);
		while (waitpid(sb.monitor, NULL, 0) < 0 && errno == EINTR)
			;
	}
	close_pair(gofer_sp);
	close_pair(control_sp);
	close_pair(console_sp);
	state_close(&sb.state);
	return sb.exit_code;
}
