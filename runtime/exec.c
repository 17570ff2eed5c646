/*
 * runtime/exec.c - moat exec: a further process in a running container.
 *
 * As for the container itself, a monitor stands for it on the host: a process in the container's cgroup and network namespace that passes on
 * signals and the terminal's size, and exits with the process's status. It keeps a connection to the sentry; when that closes, the process is
 * killed.
 */
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/io.h"
#include "base/trim.h"
#include "runtime/cli.h"
#include "runtime/container.h"
#include "runtime/exec_flags.h"
#include "runtime/limits.h"
#include "runtime/sandbox.h"
#include "runtime/terminal.h"

/* What runc exits with when the process cannot be started. */
#define EXEC_FAILED 255
/* Of a process killed at the end of its time, or its own. */
#define EXEC_TIMED_OUT 254

struct exec {
	const struct container *c;
	const struct exec_options *opts;
	struct oci_config config;
	int link; /* the monitor's word to the command line */
	int sock; /* to the sentry */
	int console_master, console_slave;
	int signal_fd;
	pid_t monitor, caller;
	bool cgroup_entered; /* the monitor began there */
};

/* ---- the process's description ---- */

static void append_all(json_t *obj, const char *key, json_t *more)
{
	json_t *list = json_object_get(obj, key), *v;
	size_t i;

	if (!json_array_size(more))
		return;
	if (!json_is_array(list)) {
		list = json_array();
		json_object_set_new(obj, key, list);
	}
	json_array_foreach(more, i, v) json_array_append(list, v);
}

/* A uid or gid up to `stop`, in digits only. */
static bool parse_id(const char *text, char stop, unsigned long *ret_id)
{
	char *end;

	if (*text < '0' || *text > '9')
		return false;
	*ret_id = strtoul(text, &end, 10);
	return (*end == '\0' || *end == stop) && *ret_id < UINT32_MAX;
}

static int set_user(json_t *process, const char *text)
{
	json_t *user = json_object_get(process, "user");
	const char *gid_text = strchr(text, ':');
	unsigned long uid, gid;

	if (!json_is_object(user)) {
		user = json_object();
		json_object_set_new(process, "user", user);
	}
	if (!parse_id(text, ':', &uid)) {
		cli_error("exec failed: parsing %.*s as int for uid failed: a number is wanted",
			  (int)strcspn(text, ":"), text);
		return -EINVAL;
	}
	json_object_set_new(user, "uid", json_integer((json_int_t)uid));
	if (!gid_text)
		return 0;
	gid_text++;
	if (!parse_id(gid_text, '\0', &gid)) {
		cli_error("exec failed: parsing %s as int for gid failed: a number is wanted",
			  gid_text);
		return -EINVAL;
	}
	json_object_set_new(user, "gid", json_integer((json_int_t)gid));
	return 0;
}

/* The container's own process, changed by flags. Returns a reference or NULL. */
static json_t *process_from_flags(const json_t *config, const struct exec_options *o)
{
	static const char *const sets[] = {"bounding", "effective", "permitted"};
	json_t *p = json_deep_copy(json_object_get(config, "process")), *args;

	if (!p)
		return NULL;
	/* As many; what they are may be no JSON: see set_args(). */
	args = json_array();
	for (int i = 0; i < o->argc; i++)
		json_array_append_new(args, json_string(""));
	json_object_set_new(p, "args", args);
	json_object_set_new(p, "terminal", json_boolean(o->tty));
	json_object_del(p, "consoleSize");
	if (o->cwd && *o->cwd && json_object_set_new(p, "cwd", json_string(o->cwd))) {
		cli_error("exec failed: --cwd: the value is no UTF-8");
		json_decref(p);
		return NULL;
	}
	append_all(p, "env", o->env);
	if (json_array_size(o->caps)) {
		if (!json_is_object(json_object_get(p, "capabilities")))
			json_object_set_new(p, "capabilities", json_object());
		for (size_t i = 0; i < ARRAY_SIZE(sets); i++)
			append_all(json_object_get(p, "capabilities"), sets[i], o->caps);
	}
	if (o->no_new_privs)
		json_object_set_new(p, "noNewPrivileges", json_true());
	if (o->user && *o->user && set_user(p, o->user) < 0) {
		json_decref(p);
		return NULL;
	}
	if (o->gids && !json_is_object(json_object_get(p, "user")))
		json_object_set_new(p, "user", json_object());
	append_all(json_object_get(p, "user"), "additionalGids", o->gids);
	return p;
}

/* The command line's bytes: file names need not be UTF-8. Pre: argv is of process_from_flags(). */
static int set_args(struct boot_spec *s, const struct exec_options *o)
{
	for (int i = 0; i < o->argc; i++) {
		free(s->argv[i]);
		s->argv[i] = strdup(o->argv[i]);
		if (!s->argv[i])
			return -ENOMEM;
	}
	return 0;
}

static json_t *process_from_file(const char *path)
{
	json_error_t jerr;
	json_t *j;
	char *text;
	size_t size;
	int err = io_read_file_at(AT_FDCWD, path, OCI_CONFIG_MAX, &text, &size);

	if (err) {
		cli_error("--process %s: %s", path, strerror(-err));
		return NULL;
	}
	j = oci_json_load(text, size, &jerr);
	free(text);
	if (!j)
		cli_error("--process %s:%d:%d: not valid JSON: %s", path, jerr.line, jerr.column,
			  jerr.text);
	return j;
}

/* As runc: who leaves capabilities out means the container's, as it gives them to its first process. */
static json_t *with_capabilities(json_t *process, const struct container *c)
{
	json_t *own = json_object_get(process, "capabilities"), *config;

	if (!process || (own && !json_is_null(own)))
		return process;
	config = state_load(&c->dir, "config.json");
	own = json_object_get(json_object_get(config, "process"), "capabilities");
	if (own)
		json_object_set(process, "capabilities", own);
	json_decref(config);
	return process;
}

/* A configuration around `process` (taken), with what the container's says of all its processes. Prints its error. */
static int make_config(const struct container *c, json_t *process, struct oci_config *ret)
{
	json_t *config = state_load(&c->dir, "config.json"), *whole;
	json_t *own = json_object_get(config, "linux");
	char why[OCI_ERROR_MAX], *text;
	int err = -ENOMEM;

	whole = json_pack("{ss so s{ss}}", "ociVersion", "1.1.0", "process", process, "root",
			  "path", "/");
	if (whole && own)
		json_object_set_new(whole, "linux",
				    json_pack("{sO* sO*}", "seccomp",
					      json_object_get(own, "seccomp"), "personality",
					      json_object_get(own, "personality")));
	text = whole ? json_dumps(whole, JSON_COMPACT) : NULL;
	if (text) {
		err = oci_config_parse(text, strlen(text), "process", "/", ret, why);
		if (err)
			cli_error("%s", why);
		else
			limits_add(&ret->spec);
	}
	free(text);
	json_decref(whole);
	json_decref(config);
	return err;
}

/* ---- the monitor ---- */

static int spec_fd(struct exec *x)
{
	struct boot_spec *s = &x->config.spec;
	struct buf b;
	int fd, err;

	s->console_fd = s->gofer_fd = s->control_fd = s->listen_fd = s->log_fd = -1;
	s->extra_fds = x->opts->preserve_fds;
	if (!s->id)
		s->id = strdup(x->opts->id);
	if (!s->platform)
		s->platform = strdup("");
	buf_init(&b, BOOT_SIZE_MAX);
	boot_spec_encode(s, &b);
	err = buf_error(&b);
	fd = err ? err : memfd_create("moat-exec", MFD_CLOEXEC);
	if (fd >= 0)
		err = io_write_full(fd, b.data, b.len);
	buf_fini(&b);
	if (err && fd >= 0)
		close(fd);
	return err ? err : fd;
}

/* Return 0 once the process runs, or -errno after an error message. */
static int request_process(struct exec *x)
{
	struct control_msg msg = {.op = CONTROL_EXEC}, reply;
	int fds[CONTROL_FDS_MAX], err;
	size_t n = 0;

	fds[n] = spec_fd(x);
	if (fds[n] < 0) {
		cli_error("exec failed: %s", strerror(-fds[n]));
		return fds[n];
	}
	n++;
	if (x->console_slave >= 0) {
		msg.flags = CONTROL_EXEC_TERMINAL;
		fds[n++] = x->console_slave;
	} else {
		for (int i = 0; i < 3; i++) {
			int fd = io_reopen_nonblock(i);

			if (fd < 0)
				continue;
			msg.flags |= 1u << i;
			fds[n++] = fd;
		}
	}
	for (unsigned i = 0; i < x->opts->preserve_fds; i++)
		fds[n++] = 3 + (int)i;
	err = control_send_fds(x->sock, &msg, fds, n);
	/* The sentry has its own now. */
	for (size_t i = 0; i < n; i++)
		if (fds[i] != x->console_slave)
			close(fds[i]);
	if (!err)
		err = control_recv(x->sock, &reply);
	if (err) {
		cli_error("exec failed: container %s: %s", x->opts->id, strerror(-err));
		return err;
	}
	if (reply.op != CONTROL_STARTED) {
		cli_error("exec failed: unable to start container process: %s",
			  reply.text ? reply.text : "refused");
		err = -EREMOTEIO;
	}
	control_msg_fini(&reply);
	return err;
}

static void forward_signal(struct exec *x)
{
	struct control_msg msg = {.op = CONTROL_SIGNAL};
	struct signalfd_siginfo si;
	struct winsize ws;

	if (read(x->signal_fd, &si, sizeof(si)) != sizeof(si))
		return;
	msg.signo = (int)si.ssi_signo;
	if (msg.signo == SIGCHLD)
		return;
	if (x->console_slave >= 0 && si.ssi_code == SI_KERNEL) {
		if (msg.signo != SIGWINCH || ioctl(x->console_slave, TIOCGWINSZ, &ws) < 0)
			return;
		msg = (struct control_msg){
			.op = CONTROL_RESIZE, .rows = ws.ws_row, .cols = ws.ws_col};
	}
	if (control_send(x->sock, &msg))
		cli_debug("the sentry takes no more messages");
}

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static int monitor_loop(struct exec *x)
{
	int64_t begin = now_ms(), limit = x->opts->timeout_s * 1000;
	int trim_ms = TRIM_AFTER_MS;

	for (;;) {
		int64_t left = begin + limit - now_ms();
		int timeout_ms = !limit				 ? trim_ms
				 : trim_ms < 0 || left < trim_ms ? (int)MIN(left, INT_MAX)
								 : trim_ms;
		struct pollfd pfd[2] = {{.fd = x->signal_fd, .events = POLLIN},
					{.fd = x->sock, .events = POLLIN}};
		struct control_msg msg;
		int status, n;

		/* The connection closes with us, and that is its end. */
		if (limit && left <= 0)
			return EXEC_TIMED_OUT;
		n = poll(pfd, 2, timeout_ms);
		/* Once, when nothing has happened for a while. */
		if (n == 0) {
			(void)trim_process();
			trim_ms = -1;
		}
		if (n <= 0)
			continue;
		if (pfd[0].revents)
			forward_signal(x);
		if (!pfd[1].revents)
			continue;
		if (control_recv(x->sock, &msg))
			return 137; /* the container has ended, and the process with it */
		status = msg.status;
		if (msg.op == CONTROL_EXIT) {
			control_msg_fini(&msg);
			return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
		}
		control_msg_fini(&msg);
	}
}

static void enter_netns(const struct container *c)
{
	char path[64];
	int fd, err;

	snprintf(path, sizeof(path), "/proc/%d/ns/user", c->pid);
	err = userns_enter(path);
	if (err)
		cli_debug("exec: the container's user namespace: %s", strerror(-err));
	snprintf(path, sizeof(path), "/proc/%d/ns/net", c->pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || setns(fd, CLONE_NEWNET) < 0)
		cli_debug("exec: the container's network namespace: %m");
	if (fd >= 0)
		close(fd);
}

static noreturn_fn void exec_monitor(struct exec *x)
{
	char why[CGROUP_ERROR_MAX], mark[EXEC_MARK_MAX], ok = SANDBOX_READY;
	sigset_t set;
	int status;

	prctl(PR_SET_NAME, "moat-exec");
	setsid();
	if (x->console_slave >= 0 && ioctl(x->console_slave, TIOCSCTTY, 0) < 0)
		cli_debug("no controlling terminal for the monitor: %m");
	sigfillset(&set);
	sigprocmask(SIG_SETMASK, &set, NULL);
	x->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (!x->cgroup_entered && cgroup_enter(&x->c->cgroup, 0, why)) {
		/* A user's may have to stay in its session, as runc's does; what it starts is in the sandbox, and limited there. */
		if (!x->c->cgroup.user) {
			cli_error("exec failed: %s", why);
			_exit(EXEC_FAILED);
		}
		cli_debug("exec: %s", why);
	}
	enter_netns(x->c);
	/* After that: another user namespace may take it back. */
	if (x->opts->ends_with_us &&
	    (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != x->caller))
		_exit(EXEC_FAILED);
	if (request_process(x))
		_exit(EXEC_FAILED);
	exec_mark(&x->c->dir, mark);
	(void)!send(x->link, &ok, 1, MSG_NOSIGNAL);
	close(x->link);
	stdio_to_null(!x->opts->detach);
	for (unsigned i = 0; i < x->opts->preserve_fds; i++)
		close(3 + (int)i);
	cli_title_set(x->config.spec.argv);
	status = monitor_loop(x);
	unlinkat(x->c->dir.dirfd, mark, 0);
	_exit(status);
}

/* ---- the command line's side ---- */

static int make_console(struct exec *x)
{
	struct boot_spec *s = &x->config.spec;
	struct winsize ws = {0};

	x->console_master = x->console_slave = -1;
	if (x->opts->console_socket && (!x->opts->detach || !s->terminal)) {
		cli_error("exec failed: cannot use console socket if moat will not detach or "
			  "allocate tty");
		return -EINVAL;
	}
	if (!s->terminal)
		return 0;
	if (!x->opts->console_socket && (x->opts->detach || !isatty(STDIN_FILENO))) {
		cli_error("exec failed: cannot allocate tty: standard input is no terminal, and "
			  "there "
			  "is no --console-socket");
		return -EINVAL;
	}
	if (console_open(&x->console_master, &x->console_slave))
		return -EIO;
	if (!s->console_rows && !x->opts->console_socket &&
	    terminal_size(&s->console_rows, &s->console_cols) < 0)
		s->console_rows = s->console_cols = 0;
	ws.ws_row = (unsigned short)s->console_rows;
	ws.ws_col = (unsigned short)s->console_cols;
	if (ws.ws_row || ws.ws_col)
		ioctl(x->console_master, TIOCSWINSZ, &ws);
	return x->opts->console_socket ? console_send(x->opts->console_socket, x->console_master)
				       : 0;
}

static int wait_status(pid_t pid)
{
	int status = EXEC_FAILED << 8;

	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

/* The process was not started. The monitor said why, unless it was killed: with the container, by whoever ends that. */
static int monitor_gone(struct exec *x)
{
	siginfo_t si = {0};

	if (waitid(P_PID, (id_t)x->monitor, &si, WEXITED | WNOWAIT) == 0 &&
	    si.si_code != CLD_EXITED)
		cli_error("exec failed: killed (signal %d) while the process was started in "
			  "container %s",
			  si.si_status, x->opts->id);
	return wait_status(x->monitor);
}

static int pid_file(const char *path, pid_t pid)
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

static int attend(struct exec *x, int signal_fd)
{
	int console = x->console_master;

	x->console_master = -1;
	return sandbox_attend(x->monitor, console, signal_fd, NULL);
}

/* From x->config to the exit status. */
static int exec_process(struct exec *x)
{
	sigset_t set, old;
	int sp[2], signal_fd, status;
	char ready;

	for (unsigned i = 0; i < x->opts->preserve_fds; i++) {
		if (fcntl(3 + (int)i, F_GETFD) < 0) {
			cli_error("exec failed: unable to stat preserved-fd %u (of %u): descriptor "
				  "%u: "
				  "no such file or directory",
				  i, x->opts->preserve_fds, 3 + i);
			return EXEC_FAILED;
		}
	}
	if (make_console(x))
		return EXEC_FAILED;
	x->sock = state_connect((struct state_dir *)&x->c->dir);
	if (x->sock < 0 || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sp) < 0) {
		cli_error("exec failed: container %s: %s", x->opts->id,
			  x->sock < 0 ? strerror(-x->sock) : strerror(errno));
		return EXEC_FAILED;
	}
	sigfillset(&set);
	sigdelset(&set, SIGSEGV);
	sigprocmask(SIG_BLOCK, &set, &old);
	signal(SIGPIPE, SIG_IGN);
	signal_fd = signalfd(-1, &set, SFD_CLOEXEC);
	fflush(NULL);
	x->caller = getpid();
	x->monitor = cgroup_clone(&x->c->cgroup, 0, SIGCHLD, &x->cgroup_entered);
	if (x->monitor == 0) {
		close(sp[0]);
		if (x->console_master >= 0)
			close(x->console_master);
		x->link = sp[1];
		exec_monitor(x);
	}
	close(sp[1]);
	close(x->sock);
	if (x->console_slave >= 0)
		close(x->console_slave);
	if (x->monitor < 0)
		status = (cli_error("exec failed: %s", strerror(-x->monitor)), EXEC_FAILED);
	else if (recv(sp[0], &ready, 1, 0) != 1)
		status = monitor_gone(x);
	else if (pid_file(x->opts->pid_file, x->monitor))
		status = (kill(x->monitor, SIGKILL), wait_status(x->monitor), EXEC_FAILED);
	else if (x->opts->detach)
		status = 0;
	else
		status = attend(x, signal_fd);
	close(sp[0]);
	close(signal_fd);
	if (x->console_master >= 0)
		close(x->console_master);
	sigprocmask(SIG_SETMASK, &old, NULL);
	return status;
}

/* A hook's are not checked, but nothing finds what has no name. */
static json_t *hook_env(const json_t *hook, const json_t *process)
{
	json_t *list = json_object_get(hook, "env"), *copy = json_array(), *v;
	size_t i;

	/* As runc's init, whose environment is the container's by then. */
	if (!json_is_array(list))
		list = json_object_get(process, "env");
	json_array_foreach(list, i, v)
	{
		if (strchr(json_is_string(v) ? json_string_value(v) : "", '='))
			json_array_append(copy, v);
	}
	return copy;
}

/* What is executed is `path`, whatever args[0] says. A reference; NULL: no memory. */
static json_t *hook_process(const json_t *hook, const json_t *process)
{
	json_t *args = json_object_get(hook, "args");

	args = json_array_size(args) ? json_incref(args)
				     : json_pack("[O]", json_object_get(hook, "path"));
	return json_pack("{so ss s{si si} so sO*}", "args", args, "cwd", "/", "user", "uid", 0,
			 "gid", 0, "env", hook_env(hook, process), "rlimits",
			 json_object_get(process, "rlimits"));
}

static int set_program(struct boot_spec *s, const json_t *hook)
{
	s->program = strdup(json_string_value(json_object_get(hook, "path")));
	return s->program ? 0 : -ENOMEM;
}

/* `in` is its standard input. Takes x->config. Return: an exit status. */
static int run_hook(struct exec *x, int in)
{
	int saved = fcntl(0, F_DUPFD_CLOEXEC, 3), status;

	dup2(in, 0);
	status = exec_process(x);
	if (saved >= 0) {
		dup2(saved, 0);
		close(saved);
	} else {
		close(0);
	}
	oci_config_fini(&x->config);
	return status;
}

/* The container's state, as a file to be read. Return: a descriptor or -errno. */
static int state_file(const struct container *c)
{
	auto_free char *doc = state_document(&c->dir, c->pid, "created");
	int fd = memfd_create("moat-state", MFD_CLOEXEC);

	if (fd < 0)
		return -errno;
	if (doc && io_write_full(fd, doc, strlen(doc)) == 0 && lseek(fd, 0, SEEK_SET) == 0)
		return fd;
	close(fd);
	return -EIO;
}

int exec_hooks(const struct container *c, const struct oci_config *config, const char *stage)
{
	const json_t *list = json_object_get(config->hooks, stage);
	json_t *hook;
	size_t i;

	json_array_foreach((json_t *)list, i, hook)
	{
		/* It has copies of our descriptors, the link to a sandbox that is to end with us among them. */
		struct exec_options o = {
			.id = c->dir.id,
			.stdin_fd = -1,
			.ends_with_us = true,
			.timeout_s = json_integer_value(json_object_get(hook, "timeout")),
		};
		struct exec x = {.c = c, .opts = &o};
		const json_t *process = json_object_get(config->json, "process");
		int64_t begin = now_ms();
		auto_close int in = state_file(c);
		json_t *p;
		int status;

		p = hook_process(hook, process);
		if (in < 0) {
			json_decref(p);
			cli_error("%s hook #%zu: the container's state: %s", stage, i,
				  strerror(-in));
			return in;
		}
		if (make_config(c, p, &x.config))
			return -EINVAL;
		x.config.spec.cap_bounding = x.config.spec.cap_permitted =
			x.config.spec.cap_effective = (1ull << 41) - 1;
		status = set_program(&x.config.spec, hook) ? EXEC_FAILED : run_hook(&x, in);
		if (status == EXEC_TIMED_OUT && o.timeout_s &&
		    now_ms() - begin >= o.timeout_s * 1000) {
			cli_error("error running hook #%zu: error running %s hook: hook ran past "
				  "specified timeout of %lld.0s",
				  i, stage, o.timeout_s);
			return -ETIMEDOUT;
		}
		if (status) {
			cli_error("error running %s hook #%zu: exit status %d", stage, i, status);
			return -EIO;
		}
	}
	return 0;
}

/* ---- the verb ---- */

static bool may_exec(const struct container *c, const struct exec_options *o)
{
	if (c->status == CONTAINER_STOPPED || c->status == CONTAINER_CREATING) {
		cli_error("exec failed: cannot exec in a %s container",
			  container_status_name(c->status));
		return false;
	}
	if (c->status == CONTAINER_PAUSED && !o->ignore_paused) {
		cli_error("exec failed: cannot exec in a paused container (use --ignore-paused to "
			  "override)");
		return false;
	}
	return true;
}

static int exec_in(const struct container *c, const struct exec_options *o)
{
	struct exec x = {.c = c, .opts = o, .console_master = -1, .console_slave = -1};
	json_t *config, *process;
	int status;

	if (!may_exec(c, o) || !exec_check_flags(o))
		return EXEC_FAILED;
	if (o->process_file) {
		process = with_capabilities(process_from_file(o->process_file), c);
	} else {
		config = state_load(&c->dir, "config.json");
		if (!config)
			cli_error("exec failed: container does not exist: %s", o->id);
		process = process_from_flags(config, o);
		json_decref(config);
	}
	if (!process || make_config(c, process, &x.config))
		return EXEC_FAILED;
	if (x.config.unknown_caps[0])
		cli_warn("ignoring unknown or unavailable capabilities: [%s]",
			 x.config.unknown_caps);
	status = !o->process_file && set_args(&x.config.spec, o) ? EXEC_FAILED : exec_process(&x);
	oci_config_fini(&x.config);
	return status;
}

static int exec_main(int argc, char **argv)
{
	struct exec_options o = {.stdin_fd = -1};
	struct container c;
	int i, status;

	for (i = 1; i < argc; i++) {
		int taken;

		if (argv[i][0] != '-' || o.id) {
			if (o.id)
				break;
			o.id = argv[i];
			continue;
		}
		if (strcmp(argv[i], "--") == 0)
			continue;
		taken = exec_flag(&o, argc, argv, &i);
		if (taken < 0)
			return 1;
		if (!taken)
			return cli_unknown_flag("exec", argv[i]);
	}
	if (o.id && i < argc && strcmp(argv[i], "--") == 0)
		i++;
	o.argc = argc - i;
	o.argv = argv + i;
	if (!o.id) {
		cli_error("exec: no container id; usage: moat exec ID COMMAND...");
		return 1;
	}
	if (container_load(o.id, false, &c))
		return EXEC_FAILED;
	status = exec_in(&c, &o);
	container_unload(&c);
	json_decref(o.env);
	json_decref(o.caps);
	json_decref(o.gids);
	return status;
}

const struct cli_verb verb_exec = {
	"exec", "run a further process in a container",
	"Usage: moat exec [FLAGS] ID COMMAND [ARGS...]\n"
	"       moat exec [FLAGS] --process FILE ID\n\n"
	"Exits with the process's status, or 255 if it cannot be started.\n\n"
	"  -p, --process FILE       the process as in config.json's \"process\"\n"
	"  -d, --detach             return as soon as it runs\n"
	"  -t, --tty                a terminal of its own\n"
	"  --console-socket PATH    where the terminal's master goes\n"
	"  --pid-file FILE          the host process that stands for it\n"
	"  -u, --user UID[:GID]     as another user\n"
	"  -g, --additional-gids N  a further group\n"
	"  --cwd DIR                start there\n"
	"  -e, --env NAME=VALUE     a further variable\n"
	"  -c, --cap CAP_NAME       a further capability\n"
	"  --preserve-fds N         pass on descriptors 3 to N + 2\n"
	"  --no-new-privs           as in config.json\n"
	"  --cgroup [NAMES:]PATH    / only: a container's processes are in one cgroup\n"
	"  --apparmor PROFILE, --process-label LABEL   refused: the sandbox has no such\n"
	"  --ignore-paused          also in a paused container\n",
	exec_main};
