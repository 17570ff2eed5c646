/*
 * runtime/sandbox.c - the command line's side of starting a container: `create`, `run`, `do`.
 *
 * The order is runc's: state directory, cgroup, namespaces (in the monitor), prestart and createRuntime hooks, the sandbox itself,
 * createContainer hooks, pid-file. Whoever is killed, the others notice: the monitor sees the link close and takes everything
 * away; sentry and gofer are in its pid namespace.
 */
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <linux/sched.h>
#include <unistd.h>

#include "base/io.h"
#include "base/trim.h"
#include "runtime/cli.h"
#include "runtime/container.h"
#include "runtime/hooks.h"
#include "runtime/host_uds.h"
#include "runtime/overlay.h"
#include "runtime/sandbox.h"
#include "runtime/terminal.h"

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

/* As runc finds out: who is root in a user namespace has no more of the system's than its user. */
static enum cgroup_manager wanted_manager(void)
{
	bool user;

	if (!cli.systemd_cgroup)
		return CGROUP_BY_FILES;
	if (cli.rootless && strcmp(cli.rootless, "true") == 0)
		user = true;
	else if (cli.rootless && strcmp(cli.rootless, "false") == 0)
		user = false;
	else
		user = geteuid() != 0 || !userns_is_initial();
	return user ? CGROUP_BY_USER_SYSTEMD : CGROUP_BY_SYSTEMD;
}

/* Before anything is in the cgroup: whoever finds the directory later knows what to remove. */
static int make_cgroup(struct sandbox *sb)
{
	const struct oci_config *c = sb->config;
	char why[CGROUP_ERROR_MAX] = "";
	unsigned found;
	size_t others;
	int err;

	/* An unprivileged user's, unless it was given a place of its own, is the one that it has. */
	if (sb->opts->no_cgroup ||
	    (sb->userns.unprivileged && !c->cgroups_path && !cli.systemd_cgroup))
		return 0;
	err = cgroup_find(&sb->cgroup, c->cgroups_path, sb->opts->id, wanted_manager(), why);
	/* One that was there before: the monitor would never come back from it. Not ours, so nothing of it is touched. */
	if (!err && !sb->cgroup.unit && cgroup_is_frozen(&sb->cgroup)) {
		cgroup_fini(&sb->cgroup);
		cli_error("container's cgroup unexpectedly frozen");
		return -EBUSY;
	}
	/* Limits would be theirs, and the engine would end them with the container. (systemd refuses a unit that is there.) */
	others = err || sb->cgroup.unit ? 0 : cgroup_population(&sb->cgroup);
	if (others) {
		cgroup_fini(&sb->cgroup);
		cli_error("container's cgroup is not empty: %zu process(es) found; name another in "
			  "linux.cgroupsPath",
			  others);
		return -EBUSY;
	}
	/* systemd makes its own around the monitor: enter_scope(). */
	if (!err && !sb->cgroup.unit) {
		found = sb->cgroup.ndirs;
		err = state_write_cgroup(&sb->state, &sb->cgroup);
		if (!err)
			err = cgroup_create(&sb->cgroup, c->resources, why);
		/* Without those that could not be made. */
		if (!err && sb->cgroup.ndirs != found)
			err = state_write_cgroup(&sb->state, &sb->cgroup);
		if (!err)
			err = cgroup_apply(&sb->cgroup, c->resources, why);
	}
	if (err) {
		cli_error("%s", why);
		return -EIO;
	}
	return 0;
}

static int make_console(struct sandbox *sb)
{
	struct boot_spec *s = &sb->config->spec;
	struct winsize ws = {0};

	if (!s->terminal)
		return 0;
	if (console_open(&sb->console_master, &sb->console_slave))
		return -EIO;
	if (!s->console_rows && !sb->opts->console_socket &&
	    terminal_size(&s->console_rows, &s->console_cols) < 0)
		s->console_rows = s->console_cols = 0;
	ws.ws_row = (unsigned short)s->console_rows;
	ws.ws_col = (unsigned short)s->console_cols;
	if (ws.ws_row || ws.ws_col)
		ioctl(sb->console_master, TIOCSWINSZ, &ws);
	return sb->opts->console_socket ? console_send(sb->opts->console_socket, sb->console_master)
					: 0;
}

/* Return the monitor's pid or -errno; `extra` are flags of clone3(2). */
static pid_t clone_monitor(struct sandbox *sb, const int *sp, unsigned long extra)
{
	unsigned long flags =
		CLONE_NEWPID | CLONE_NEWIPC | (sb->userns.create ? CLONE_NEWUSER : 0ul) |
		(sb->config->uts_ns && !sb->config->uts_ns_path ? CLONE_NEWUTS : 0ul) |
		network_clone_flag(&sb->opts->network) | extra;
	pid_t pid = cgroup_clone(&sb->cgroup, flags, extra & CLONE_PARENT ? 0 : SIGCHLD,
				 &sb->cgroup_entered);

	if (pid != 0)
		return pid;
	close(sp[0]);
	if (sb->console_master >= 0)
		close(sb->console_master);
	sb->link = sp[1];
	monitor_main(sb);
}

/*
 * Which namespaces must be entered before the monitor's own are made, so that those belong to the right user namespace: that, and before it
 * the ones that may belong to this one. What the right to is had in there only (a user's own pod), the monitor enters.
 */
static int enter_first(struct sandbox *sb)
{
	const char *uts = sb->config->uts_ns_path, *what = "";
	int err = uts ? uts_enter(uts) : 0;

	sb->uts_entered = uts && !err;
	if (err && err != -EPERM) {
		cli_error("linux.namespaces: %s: %s", uts, strerror(-err));
		return err;
	}
	if (sb->opts->network.path) {
		err = network_enter(&sb->opts->network, &sb->network_shared, &what);
		sb->network_entered = !err;
		if (err && err != -EPERM) {
			cli_error("network: %s %s: %s", what, sb->opts->network.path,
				  strerror(-err));
			return err;
		}
	}
	if (!sb->userns.path)
		return 0;
	/*
	 * In there it may be denied for good: then the gofer would keep the groups of the host's root. Who may not here has groups of
	 * its own.
	 */
	err = setgroups(0, NULL) < 0 && errno != EPERM ? -errno : userns_enter(sb->userns.path);
	if (err)
		cli_error("linux.namespaces: %s: %s", sb->userns.path, strerror(-err));
	return err;
}

/* By way of a process that enters those, and whose child the monitor is not: it is ours. */
static pid_t clone_by_helper(struct sandbox *sb, const int *sp)
{
	pid_t result[2] = {-EIO, 0}, helper;
	int pipe_fds[2];

	if (pipe2(pipe_fds, O_CLOEXEC) < 0)
		return -errno;
	helper = fork();
	if (helper == 0) {
		result[0] = enter_first(sb) ? -ECANCELED : clone_monitor(sb, sp, CLONE_PARENT);
		result[1] = sb->cgroup_entered;
		(void)!write(pipe_fds[1], result, sizeof(result));
		_exit(0);
	}
	close(pipe_fds[1]);
	if (helper > 0 && read(pipe_fds[0], result, sizeof(result)) != sizeof(result))
		result[0] = -EIO;
	/* Known to the helper, and to the monitor. */
	sb->cgroup_entered = result[0] > 0 && result[1];
	close(pipe_fds[0]);
	while (helper > 0 && waitpid(helper, NULL, 0) < 0 && errno == EINTR)
		;
	return result[0];
}

/*
 * The systemd manager's: the monitor waits until its scope, with all limits, is there. Written down only once it is ours: until
 * then one of that name may be another's, which nobody is to take for what we left.
 */
static int enter_scope(struct sandbox *sb)
{
	const struct oci_config *c = sb->config;
	char why[CGROUP_ERROR_MAX] = "";
	int err = cgroup_start_scope(&sb->cgroup, sb->monitor, c->annotations, why);

	if (!err)
		err = state_write_cgroup(&sb->state, &sb->cgroup);
	if (!err)
		err = cgroup_complete_scope(&sb->cgroup, sb->monitor, sb->config->resources, why);
	if (!err)
		err = cgroup_apply(&sb->cgroup, c->resources, why);
	if (err && *why)
		cli_error("%s", why);
	/* Without what could not be made. */
	if (!err)
		err = state_write_cgroup(&sb->state, &sb->cgroup);
	return err;
}

/* What only the caller may do for a monitor that begins in a user namespace without mappings, or in a scope of systemd's. */
static int settle_monitor(struct sandbox *sb)
{
	char why[CGROUP_ERROR_MAX], what = SANDBOX_MAPPED;

	if (sb->cgroup.unit) {
		if (enter_scope(sb))
			return -EIO;
	} else if (!sb->cgroup_entered && cgroup_enter(&sb->cgroup, sb->monitor, why)) {
		cli_error("%s", why);
		return -EIO;
	}
	if (sb->userns.create && userns_write_maps(&sb->userns, sb->monitor))
		return -EPERM;
	return send(sb->link, &what, 1, MSG_NOSIGNAL) == 1 ? 0 : -EPIPE;
}

static int start_monitor(struct sandbox *sb)
{
	bool by_path = sb->opts->network.path || sb->config->uts_ns_path,
	     first = sb->userns.path || (sb->userns.create && by_path);
	int sp[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sp) < 0)
		return -errno;
	fflush(NULL);
	sb->monitor = first ? clone_by_helper(sb, sp) : clone_monitor(sb, sp, 0);
	close(sp[1]);
	sb->link = sp[0];
	if (sb->monitor > 0)
		return sandbox_settles(sb) ? settle_monitor(sb) : 0;
	if (sb->monitor != -ECANCELED)
		userns_explain(&sb->userns, sb->monitor);
	sb->monitor = 0;
	return -EPERM;
}

/* Waits for one byte from the monitor; false: it ended. */
static bool await(struct sandbox *sb, char what)
{
	char got;
	ssize_t n;

	do
		n = recv(sb->link, &got, 1, 0);
	while (n < 0 && errno == EINTR);
	return n == 1 && got == what;
}

static bool say(struct sandbox *sb, char what)
{
	return send(sb->link, &what, 1, MSG_NOSIGNAL) == 1;
}

static int write_pid_file(const char *path, pid_t pid)
{
	auto_free char *tmp = NULL;
	char text[16];
	int err;

	if (!path)
		return 0;
	/* In one step: engines watch for the file. */
	if (asprintf(&tmp, "%s.tmp-%d", path, getpid()) < 0)
		return -ENOMEM;
	snprintf(text, sizeof(text), "%d", pid);
	err = io_write_file_at(AT_FDCWD, tmp, text, strlen(text), 0644);
	if (!err && rename(tmp, path) < 0)
		err = -errno;
	if (err) {
		cli_error("--pid-file %s: %s", path, strerror(-err));
		unlink(tmp);
	}
	return err;
}

/* The exit status of the monitor, which is the container's. */
static int reap_monitor(struct sandbox *sb)
{
	int status = 0;

	if (sb->monitor <= 0)
		return 1;
	while (waitpid(sb->monitor, &status, 0) < 0 && errno == EINTR)
		;
	sb->monitor = 0;
	return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

/* The monitor has ended before the program could run. It said why, unless somebody killed it. Return the status to exit with. */
static int monitor_gone(struct sandbox *sb)
{
	siginfo_t si = {0};

	if (sb->monitor > 0 && waitid(P_PID, (id_t)sb->monitor, &si, WEXITED | WNOWAIT) == 0 &&
	    si.si_code != CLD_EXITED)
		cli_error("container %s was killed (signal %d) while it was created", sb->state.id,
			  si.si_status);
	return reap_monitor(sb);
}

/* From the monitor's birth until the program waits or runs. Return 0, or the status to exit with. */
static int bring_up(struct sandbox *sb)
{
	struct oci_config *c = sb->config;

	if (start_monitor(sb))
		return 1;
	close(sb->listen_fd);
	sb->listen_fd = -1;
	/* The monitor's alone: its end must be the end of the connection. */
	if (sb->pod.sock >= 0)
		close(sb->pod.sock);
	sb->pod.sock = -1;
	if (sb->console_slave >= 0)
		close(sb->console_slave);
	sb->console_slave = -1;
	if (!await(sb, SANDBOX_NAMESPACES))
		return monitor_gone(sb);
	if (state_write_json(&sb->state, sb, "creating"))
		return 1;
	if (hooks_run(c, "prestart", &sb->state, sb->monitor, "creating") ||
	    hooks_run(c, "createRuntime", &sb->state, sb->monitor, "creating"))
		return 1;
	if (!say(sb, SANDBOX_GO) || !await(sb, SANDBOX_READY))
		return monitor_gone(sb);
	if (hooks_run(c, "createContainer", &sb->state, sb->monitor, "creating"))
		return 1;
	if (state_write_json(&sb->state, sb, "created") ||
	    write_pid_file(sb->opts->pid_file, sb->monitor))
		return 1;
	return 0;
}

/* From here on the container is on its own. Return 0, or the status to exit with. */
static int let_go(struct sandbox *sb, bool *ret_kept)
{
	int status;

	*ret_kept = say(sb, SANDBOX_KEEP) && await(sb, SANDBOX_KEEP);
	if (*ret_kept)
		return 0;
	cli_error("the sandbox ended while it was started");
	status = reap_monitor(sb);
	return status ? status : 1;
}

/*
 * `run`: what `start` does after `create`, so that whoever looks sees the same states: the program does not begin before the state says `created`, the hooks of the
 * creation have run and the pid-file is there. A detached one is let go after its hooks: until then it ends with us; and before its program, which may end at once.
 * Return 0, or the status to exit with, after an error message.
 */
static int begin(struct sandbox *sb, bool *ret_kept)
{
	struct container c;
	int status;

	if (container_load(sb->state.id, false, &c))
		return 1;
	status = exec_hooks(&c, sb->config, "startContainer") ? 1 : 0;
	if (!status && sb->opts->detach)
		status = let_go(sb, ret_kept);
	if (!status && container_start(&c)) {
		*ret_kept = false;
		status = 1;
	}
	container_unload(&c);
	if (!status)
		hooks_run_lenient(sb->config, "poststart", &sb->state, sb->monitor, "running");
	return status;
}

/* ---- run in the foreground ---- */

static int block_signals(sigset_t *old)
{
	static const int forwarded[] = {SIGHUP,	 SIGINT,  SIGQUIT,  SIGTERM, SIGUSR1,
					SIGUSR2, SIGCONT, SIGWINCH, SIGALRM, SIGCHLD,
					SIGTSTP, SIGTTIN, SIGTTOU};
	sigset_t set;

	sigemptyset(&set);
	for (size_t i = 0; i < ARRAY_SIZE(forwarded); i++)
		sigaddset(&set, forwarded[i]);
	signal(SIGPIPE, SIG_IGN);
	sigprocmask(SIG_BLOCK, &set, old);
	return signalfd(-1, &set, SFD_CLOEXEC);
}

/* False: the monitor has ended; *ret_status is its wait status. */
static bool on_signal(int signal_fd, pid_t monitor, int console, int *ret_status)
{
	struct signalfd_siginfo si;

	if (read(signal_fd, &si, sizeof(si)) != sizeof(si))
		return true;
	if (si.ssi_signo == SIGCHLD)
		return waitpid(monitor, ret_status, WNOHANG) != monitor;
	if (si.ssi_signo == SIGWINCH && console >= 0)
		terminal_copy_size(console);
	else
		kill(monitor, (int)si.ssi_signo);
	return true;
}

int sandbox_attend(pid_t monitor, int console, int signal_fd, struct notify *notify)
{
	bool running = true;
	int status = 0, timeout_ms = TRIM_AFTER_MS;

	if (console >= 0)
		terminal_raw();
	while (running) {
		struct pollfd pfd[5] = {{.fd = signal_fd, .events = POLLIN},
					{.fd = -1},
					{.fd = -1},
					{.fd = -1},
					{.fd = notify ? notify->in_fd : -1, .events = POLLIN}};

		if (console >= 0)
			terminal_poll_prepare(console, &pfd[1]);
		int n = poll(pfd, ARRAY_SIZE(pfd), timeout_ms);

		if (n < 0 && errno != EINTR)
			break;
		/* Once, when nothing has happened for a while. */
		if (n == 0) {
			(void)trim_process();
			timeout_ms = -1;
		}
		if (pfd[4].revents & POLLIN)
			notify_forward(notify);
		if (pfd[0].revents)
			running = on_signal(signal_fd, monitor, console, &status);
		if (console >= 0 && !terminal_poll_done(console, &pfd[1])) {
			close(console);
			console = -1;
		}
	}
	/* The last output. */
	if (console >= 0) {
		terminal_drain(console);
		close(console);
	}
	terminal_restore();
	return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

static int run_foreground(struct sandbox *sb, int signal_fd)
{
	int status;

	status = sandbox_attend(sb->monitor, sb->console_master, signal_fd, &sb->notify);
	sb->console_master = -1;
	sb->monitor = 0;
	return status;
}

/* What the configuration says that concerns this side. */
static bool check_options(const struct oci_config *c, const struct sandbox_options *opts)
{
	if (c->spec.terminal && !opts->console_socket && opts->detach) {
		cli_error("cannot allocate tty if moat will detach without setting console socket");
		return false;
	}
	if ((!c->spec.terminal || !opts->detach) && opts->console_socket) {
		cli_error("cannot use console socket if moat will not detach or allocate tty");
		return false;
	}
	if (c->spec.terminal && !opts->console_socket && !isatty(STDIN_FILENO)) {
		cli_error("process.terminal is true, but standard input is no terminal; set it to "
			  "false, or run from a terminal");
		return false;
	}
	for (unsigned i = 0; i < opts->preserve_fds; i++)
		if (fcntl(3 + (int)i, F_GETFD) < 0) {
			cli_error("--preserve-fds: descriptor %u is not open", 3 + i);
			return false;
		}
	return true;
}

static void tear_down(struct sandbox *sb)
{
	bool busy;
	int err;

	if (sb->monitor > 0) {
		kill(sb->monitor, SIGKILL);
		reap_monitor(sb);
	}
	exec_kill_all(&sb->state);
	busy = cgroup_remove(&sb->cgroup, CGROUP_REMOVE_MS) == -EBUSY;
	err = state_remove_config(&sb->state);
	if (!err || err == -ENOENT)
		hooks_run_lenient(sb->config, "poststop", &sb->state, 0, "stopped");
	/* With processes in its cgroup it is left for whoever meets the directory next. */
	if (!busy)
		(void)!state_remove(&sb->state);
}

/* A daemon's socket: the flag's, or for engines, which have no way to give flags, the annotation's. */
static const char *rootfs_virtiofs(const struct sandbox *sb)
{
	return sb->opts->rootfs_virtiofs
		       ? sb->opts->rootfs_virtiofs
		       : json_string_value(json_object_get(sb->config->annotations,
							   "org.moat.rootfs-virtiofs"));
}

static int start(struct sandbox *sb, bool *ret_kept)
{
	const struct sandbox_options *opts = sb->opts;
	int signal_fd, status = 1;

	sb->exe_fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	if (sb->exe_fd < 0) {
		cli_error("/proc/self/exe: %m");
		return 1;
	}
	if (pod_find(&sb->pod, sb->config, &opts->network))
		return 1;
	if (virtiofs_connect(&sb->config->spec, rootfs_virtiofs(sb), &sb->virtiofs) ||
	    overlay_plan(sb->config, &sb->overlay_locks) || host_uds_plan(sb->config))
		return 1;
	if (sb->config->nattaches > OCI_ATTACHES_MAX) {
		cli_error("mounts: the root filesystem, bind mounts and overlays are %u trees of "
			  "the host, and a container may have %d",
			  sb->config->nattaches, OCI_ATTACHES_MAX);
		return 1;
	}
	if (userns_plan(sb->config, &sb->userns) || make_cgroup(sb) || make_console(sb) ||
	    notify_prepare(&sb->notify, sb->config))
		return 1;
	view_make_mountpoints(sb->config);
	sb->listen_fd = state_listen(&sb->state);
	if (sb->listen_fd < 0) {
		cli_error("control socket in %s/%s: %s", cli.root, sb->state.id,
			  strerror(-sb->listen_fd));
		return 1;
	}
	signal_fd = block_signals(&sb->old_mask);
	if (signal_fd < 0)
		return 1;
	status = bring_up(sb);
	sb->notify.main_pid = sb->monitor;
	if (!status)
		status = opts->hold ? let_go(sb, ret_kept) : begin(sb, ret_kept);
	if (!status && !opts->detach) {
		status = run_foreground(sb, signal_fd);
		*ret_kept = opts->keep;
	}
	close(signal_fd);
	return status;
}

int sandbox_run(struct oci_config *config, const struct sandbox_options *opts)
{
	struct sandbox sb = {.config = config,
			     .opts = opts,
			     .exe_fd = -1,
			     .log_fd = -1,
			     .listen_fd = -1,
			     .link = -1,
			     .console_master = -1,
			     .console_slave = -1,
			     .lifeline = -1};
	bool kept = false;
	int status;

	notify_init(&sb.notify);
	pod_init(&sb.pod);
	config->spec.hold = true; /* begin() */
	if (!check_options(config, opts) || open_log(&sb) ||
	    state_create(cli.root, opts->id, &sb.state))
		return 1;
	state_time(sb.created, sizeof(sb.created));
	status = start(&sb, &kept);
	terminal_restore();
	if (!kept && !(opts->keep && sb.monitor == 0 && status != 1))
		tear_down(&sb);
	for (size_t i = 0; i < 5; i++) {
		int fd = (int[]){sb.exe_fd, sb.log_fd, sb.listen_fd, sb.link, sb.console_master}[i];

		if (fd >= 0)
			close(fd);
	}
	notify_close(&sb.notify);
	pod_fini(&sb.pod);
	virtiofs_sockets_fini(&sb.virtiofs);
	cgroup_fini(&sb.cgroup);
	userns_fini(&sb.userns);
	state_close(&sb.state);
	return status;
}
