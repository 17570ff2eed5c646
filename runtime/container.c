/* runtime/container.c - finding a container, asking its sentry, destroying it. */
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "base/io.h"
#include "runtime/cli.h"
#include "runtime/container.h"
#include "runtime/hooks.h"

#define REQUEST_TIMEOUT_S 10
#define STATUS_TIMEOUT_S 2
#define DESTROY_TIMEOUT_MS 10000
#define CLOSED_TRIES 20
#define CLOSED_STEP_US 5000

const char *container_status_name(enum container_status s)
{
	static const char *const names[] = {"creating", "created", "running", "paused", "stopped"};

	return names[s];
}

/* One request, one reply. */
static int exchange(const struct container *c, const struct control_msg *msg,
		    struct control_msg *ret_reply, int timeout_s)
{
	struct timeval tv = {.tv_sec = timeout_s};
	int sock = state_connect((struct state_dir *)&c->dir), err;

	if (sock < 0)
		return sock;
	setsockopt(sock, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
	setsockopt(sock, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv));
	err = control_send(sock, msg);
	if (!err)
		err = control_recv(sock, ret_reply);
	close(sock);
	return err;
}

/*
 * As exchange(), and -ECONNREFUSED if the sentry has ended meanwhile: a connection that is closed without an answer was its end, or is one more than it serves, and
 * only where it has ended nobody listens the next time.
 */
static int ask_state(const struct container *c, struct control_msg *ret_reply)
{
	struct control_msg msg = {.op = CONTROL_STATE};
	int err = exchange(c, &msg, ret_reply, STATUS_TIMEOUT_S);

	for (int i = 0; i < CLOSED_TRIES && (err == -EPIPE || err == -ECONNRESET); i++) {
		usleep(CLOSED_STEP_US);
		err = exchange(c, &msg, ret_reply, STATUS_TIMEOUT_S);
	}
	return err;
}

static enum container_status find_status(struct container *c)
{
	struct control_msg reply;
	const char *said = json_string_value(json_object_get(c->state, "status"));
	enum container_status status = CONTAINER_RUNNING;
	int err;

	if (!state_is_live(&c->dir))
		return CONTAINER_STOPPED;
	if (!said || strcmp(said, "created") != 0)
		return CONTAINER_CREATING;
	if (cgroup_is_frozen(&c->cgroup) || faccessat(c->dir.dirfd, "paused", F_OK, 0) == 0 ||
	    faccessat(c->dir.dirfd, "frozen", F_OK, 0) == 0)
		return CONTAINER_PAUSED;
	err = ask_state(c, &reply);
	if (err == 0) {
		if (reply.text && strcmp(reply.text, "created") == 0)
			status = CONTAINER_CREATED;
		control_msg_fini(&reply);
	} else if (err == -ECONNREFUSED || !state_is_live(&c->dir)) {
		status = CONTAINER_STOPPED; /* the sentry has ended, the monitor is about to */
	}
	return status;
}

int container_load(const char *id, bool quiet, struct container *ret)
{
	json_t *cg;
	int err;

	*ret = (struct container){.dir = {.dirfd = -1, .rootfd = -1, .lockfd = -1}};
	err = state_open(cli.root, id, quiet, &ret->dir);
	if (err)
		return err;
	ret->state = state_load(&ret->dir, "state.json");
	if (!ret->state) {
		/* Not yet, or no more. */
		if (!quiet)
			cli_error("container does not exist: %s (in %s; 'moat list' shows what "
				  "there is)",
				  id, cli.root);
		container_unload(ret);
		return -ENOENT;
	}
	cg = state_load(&ret->dir, "cgroup.json");
	if (cg && cgroup_from_json(&ret->cgroup, cg))
		cli_warn("%s/%s/cgroup.json is damaged: the cgroup is left alone", cli.root, id);
	json_decref(cg);
	ret->pid = (int)json_integer_value(json_object_get(ret->state, "pid"));
	ret->status = find_status(ret);
	return 0;
}

void container_unload(struct container *c)
{
	json_decref(c->state);
	cgroup_fini(&c->cgroup);
	state_close(&c->dir);
	c->state = NULL;
}

int container_config(const struct container *c, struct oci_config *ret)
{
	const char *bundle = json_string_value(json_object_get(c->state, "bundle"));
	char why[OCI_ERROR_MAX], *text;
	size_t size;
	int err = io_read_file_at(c->dir.dirfd, "config.json", OCI_CONFIG_MAX, &text, &size);

	if (err) {
		cli_error("%s/%s/config.json: %s", cli.root, c->dir.id, strerror(-err));
		return err;
	}
	err = oci_config_parse(text, size, "config.json", bundle ? bundle : "/", ret, why);
	free(text);
	if (err)
		cli_error("%s", why);
	return err;
}

int container_request(const struct container *c, const struct control_msg *msg,
		      struct control_msg *ret_reply)
{
	int err =
		exchange(c, msg, ret_reply, c->status == CONTAINER_PAUSED ? 1 : REQUEST_TIMEOUT_S);

	/* The signal ended the container before the sentry could answer; or the sentry is frozen and has it in its socket. */
	if ((msg->op == CONTROL_SIGNAL && (err == -EPIPE || err == -ECONNRESET)) ||
	    (c->status == CONTAINER_PAUSED && err == -EAGAIN)) {
		*ret_reply = (struct control_msg){.op = CONTROL_REPLY};
		err = 0;
	}
	if (err) {
		cli_error("container %s: %s", c->dir.id,
			  err == -EAGAIN ? "the sentry does not answer" : strerror(-err));
		return err;
	}
	if (ret_reply->exit_code) {
		cli_error("container %s: %s", c->dir.id,
			  ret_reply->text ? ret_reply->text : "refused");
		control_msg_fini(ret_reply);
		return -EREMOTEIO;
	}
	return 0;
}

int container_start(const struct container *c)
{
	struct control_msg msg = {.op = CONTROL_START}, reply;
	int err = container_request(c, &msg, &reply);

	if (!err)
		control_msg_fini(&reply);
	return err;
}

int container_wait_end(const struct container *c, int timeout_ms)
{
	struct timespec end, now;
	int pidfd;

	clock_gettime(CLOCK_MONOTONIC, &end);
	if (timeout_ms >= 0) {
		end.tv_sec += timeout_ms / 1000;
		end.tv_nsec += timeout_ms % 1000 * 1000000l;
	}
	pidfd = c->pid > 0 ? (int)syscall(SYS_pidfd_open, c->pid, 0) : -1;
	/* The pid is the monitor's as long as the lock is held; after that nobody waits on it. */
	while (state_is_live(&c->dir)) {
		struct pollfd pfd = {.fd = pidfd, .events = POLLIN};

		clock_gettime(CLOCK_MONOTONIC, &now);
		if (timeout_ms >= 0 && (now.tv_sec > end.tv_sec ||
					(now.tv_sec == end.tv_sec && now.tv_nsec >= end.tv_nsec))) {
			if (pidfd >= 0)
				close(pidfd);
			return -ETIMEDOUT;
		}
		if (poll(&pfd, 1, 20) > 0) {
			close(pidfd);
			pidfd = -1;
		}
	}
	if (pidfd >= 0)
		close(pidfd);
	return 0;
}

/*
 * Once: whoever takes config.json away runs them. Pre: it has ended. Return 0 or -errno: the directory does not change, and they have not
 * run.
 */
static int run_poststop(struct container *c)
{
	struct oci_config config;
	int err;

	if (faccessat(c->dir.dirfd, "config.json", F_OK, 0) < 0 || container_config(c, &config))
		return 0;
	err = state_remove_config(&c->dir);
	if (!err)
		hooks_run_lenient(&config, "poststop", &c->dir, 0, "stopped");
	oci_config_fini(&config);
	return err == -ENOENT ? 0 : err;
}

int container_destroy(struct container *c)
{
	/* Before it is asked whether that lives: afterwards the number may be another's. */
	int pidfd = c->pid > 0 ? (int)syscall(SYS_pidfd_open, c->pid, 0) : -1, err = 0;

	if (state_is_live(&c->dir)) {
		if (pidfd >= 0)
			(void)syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0);
		if (cgroup_is_frozen(&c->cgroup) && cgroup_freeze(&c->cgroup, false))
			cli_warn("cannot thaw container %s", c->dir.id);
		err = container_wait_end(c, DESTROY_TIMEOUT_MS);
	}
	if (pidfd >= 0)
		close(pidfd);
	if (err) {
		cli_error("container %s does not end; kill its processes ('moat state %s' has the "
			  "pid) and try again",
			  c->dir.id, c->dir.id);
		return err;
	}
	exec_kill_all(&c->dir);
	/* What may not be removed by us stays; what still has processes must not lose the state by which it is found. */
	if (cgroup_remove(&c->cgroup, CGROUP_REMOVE_MS) == -EBUSY) {
		cli_error("container %s has ended, but there are processes in its cgroup; move "
			  "or end them, and try again",
			  c->dir.id);
		return -EBUSY;
	}
	err = run_poststop(c);
	if (!err)
		err = state_remove(&c->dir);
	if (err)
		cli_error("container %s has ended, but %s/%s stays: %s; make it removable and try "
			  "again",
			  c->dir.id, cli.root, c->dir.id, strerror(-err));
	return err;
}
