/* runtime/hooks.c - hooks: path, args, env, timeout; the state document on standard input. */
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/io.h"
#include "runtime/cli.h"
#include "runtime/hooks.h"
#include "runtime/limits.h"

/* A NULL-terminated vector that borrows the strings. */
static char **borrow_strings(const json_t *list, const char *first)
{
	size_t n = json_array_size(list), k = 0;
	char **v = calloc(n + 2, sizeof(*v));

	if (!v)
		return NULL;
	for (size_t i = 0; i < n; i++)
		if (json_is_string(json_array_get(list, i)))
			v[k++] = (char *)json_string_value(json_array_get(list, i));
	if (!k && first)
		v[k++] = (char *)first;
	return v;
}

static int state_memfd(const char *text)
{
	int fd = memfd_create("moat-state", 0);

	if (fd >= 0 && io_write_full(fd, text, strlen(text)) == 0 && lseek(fd, 0, SEEK_SET) == 0)
		return fd;
	if (fd >= 0)
		close(fd);
	return -1;
}

static noreturn_fn void hook_child(const char *path, char **argv, char **envp, const char *bundle,
				   int in, int out)
{
	sigset_t none;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL);
	limits_restore();
	/* As runc's create, run and start by an engine; delete may be called when it is gone. */
	if (bundle && chdir(bundle) < 0)
		cli_debug("hook %s: %s: %m", path, bundle);
	dup2(in, 0);
	dup2(out, 1);
	dup2(out, 2);
	/* A hook that would have descriptors of ours does not begin. */
	if (syscall(SYS_close_range, 3, ~0u, 0) < 0) {
		dprintf(2, "close_range: %s", strerror(errno));
		_exit(127);
	}
	execve(path, argv, envp);
	dprintf(2, "%s", strerror(errno));
	_exit(127);
}

static double left_s(double end, const struct timespec *now)
{
	return end - (double)now->tv_sec - (double)now->tv_nsec / 1e9;
}

/* Collects output until the hook has ended; kills it at the deadline. Return the wait status, or -ETIMEDOUT. */
static int hook_attend(pid_t pid, int out, double timeout_s, char *output)
{
	size_t len = 0;
	struct timespec now;
	double end;
	int status, left_ms = -1;
	bool late = false;

	clock_gettime(CLOCK_MONOTONIC, &now);
	end = (double)now.tv_sec + (double)now.tv_nsec / 1e9 + timeout_s;
	for (;;) {
		struct pollfd pfd = {.fd = out, .events = POLLIN};
		char rest[512];
		ssize_t n;

		if (timeout_s > 0) {
			clock_gettime(CLOCK_MONOTONIC, &now);
			left_ms = (int)(MIN(left_s(end, &now), 1.0) * 1e3);
			if (left_ms <= 0) {
				late = true;
				break;
			}
		}
		/* A hook's grandchild may keep the pipe: the hook's own end counts. */
		if (poll(&pfd, 1, left_ms < 0 ? 50 : MIN(left_ms, 50)) == 0) {
			siginfo_t si = {0};

			if (waitid(P_PID, (id_t)pid, &si, WEXITED | WNOHANG | WNOWAIT) == 0 &&
			    si.si_pid == pid)
				break;
			continue;
		}
		n = read(out, len < HOOK_OUTPUT_MAX - 1 ? output + len : rest,
			 len < HOOK_OUTPUT_MAX - 1 ? HOOK_OUTPUT_MAX - 1 - len : sizeof(rest));
		if (n <= 0)
			break;
		if (len < HOOK_OUTPUT_MAX - 1)
			len += (size_t)n;
	}
	output[len] = '\0';
	if (late)
		kill(pid, SIGKILL);
	/* Closed its output, but runs on: the deadline still counts. */
	for (;;) {
		pid_t got = waitpid(pid, &status, timeout_s > 0 && !late ? WNOHANG : 0);

		if (got == pid)
			break;
		if (got < 0 && errno != EINTR)
			return -ECHILD;
		clock_gettime(CLOCK_MONOTONIC, &now);
		if (got == 0 && left_s(end, &now) < 0) {
			late = true;
			kill(pid, SIGKILL);
		}
		if (got == 0)
			nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
	}
	return late ? -ETIMEDOUT : status;
}

/* As with runc: a hook without an environment has its caller's; that of createContainer, which runc's init calls, the container's. */
static int run_one(const struct oci_config *c, const json_t *hook, const char *stage,
		   const char *state_text, const char *bundle, size_t index)
{
	const json_t *env = json_object_get(hook, "env");
	bool of_container = strcmp(stage, "createContainer") == 0;
	const char *path = json_string_value(json_object_get(hook, "path"));
	double timeout = json_number_value(json_object_get(hook, "timeout"));
	auto_free char **argv = borrow_strings(json_object_get(hook, "args"), path);
	auto_free char **envp = borrow_strings(env, NULL);
	auto_close int in = state_memfd(state_text);
	char output[HOOK_OUTPUT_MAX] = "";
	int p[2], status;
	pid_t pid;

	if (!argv || !envp || in < 0) {
		cli_error("error running %s hook #%zu: %s: %s", stage, index, path,
			  in < 0 ? strerror(errno) : "out of memory");
		return -EIO;
	}
	if (pipe2(p, O_CLOEXEC) < 0)
		return -errno;
	fflush(NULL);
	pid = fork();
	if (pid == 0)
		hook_child(path, argv,
			   json_is_array(env) ? envp
			   : of_container     ? c->spec.envp
					      : environ,
			   bundle, in, p[1]);
	close(p[1]);
	status = pid < 0 ? -errno : hook_attend(pid, p[0], timeout, output);
	close(p[0]);
	if (status == 0)
		return 0;
	for (char *end = output + strlen(output);
	     end > output && (end[-1] == '\n' || end[-1] == '\r');)
		*--end = '\0';
	if (status == -ETIMEDOUT)
		cli_error("error running hook #%zu: error running %s hook: %s: hook ran past "
			  "specified timeout of %.1fs",
			  index, stage, path, timeout);
	else if (status < 0)
		cli_error("error running %s hook #%zu: %s: %s", stage, index, path,
			  strerror(-status));
	else
		cli_error("error running hook #%zu: error running %s hook: %s: %s %d, stdout and "
			  "stderr: %s",
			  index, stage, path, WIFSIGNALED(status) ? "signal" : "exit status",
			  WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status), output);
	return -EIO;
}

static int run_stage(const struct oci_config *c, const char *stage, const struct state_dir *state,
		     int pid, const char *status, bool lenient)
{
	const json_t *list = json_object_get(c->hooks, stage);
	auto_free char *text = NULL;
	json_t *said;
	int err = 0;

	if (!json_array_size(list))
		return 0;
	text = state_document(state, pid, status);
	if (!text) {
		cli_error("%s hooks: the container has no state", stage);
		return -EIO;
	}
	said = json_loads(text, 0, NULL);
	for (size_t i = 0; i < json_array_size(list) && (!err || lenient); i++)
		err = run_one(c, json_array_get(list, i), stage, text,
			      json_string_value(json_object_get(said, "bundle")), i);
	json_decref(said);
	return err;
}

int hooks_run(const struct oci_config *c, const char *stage, const struct state_dir *state, int pid,
	      const char *status)
{
	return run_stage(c, stage, state, pid, status, false);
}

void hooks_run_lenient(const struct oci_config *c, const char *stage, const struct state_dir *state,
		       int pid, const char *status)
{
	if (run_stage(c, stage, state, pid, status, true))
		cli_warn("a %s hook failed; going on", stage);
}
