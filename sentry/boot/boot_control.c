/*
 * sentry/boot/boot_control.c - the control server: the lifelines to the monitors, and connections from the verbs.
 *
 * The sentry's first thread ends up here. When the first container's lifeline closes, its monitor is gone and so is the sandbox (its pid namespace
 * usually is quicker). Each container has a listening socket, and what connects there is about that container. Clients send one request and get
 * one reply; a connection that asked for a process (boot_exec.c) or for a further container (boot_add.c) stays until that ends. At most
 * CONTROL_CLIENTS_MAX at once.
 */
#include <assert.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "sentry/boot/internal.h"
#include "sentry/oom.h"
#include "sentry/fs/fs.h"
#include "sentry/tty/tty.h"

#define CONTROL_CLIENTS_FIRST 8
#define CONTROL_CLIENTS_MAX 4096 /* connections: requests, and processes of `moat exec` */

void control_post(const struct boot_container *b, const struct control_msg *msg)
{
	int err = control_send(b->lifeline, msg);

	if (err)
		log_warn("control: the monitor of %s is gone: %s", b->spec.id, strerror(-err));
}

/* The end of the first process by a signal, which takes the others along; the sandbox's too if it is the first container's. */
static int kill_container(struct boot_container *b, int signo)
{
	if (b->first)
		kernel.shutting_down = true;
	task_group_exit(b->init->group, signo);
	if (atomic_exchange(&b->started, true))
		return 0;
	/* One that was never started has no thread to die on. */
	if (b->first) {
		control_post(b, &(struct control_msg){.op = CONTROL_EXIT, .status = signo});
		_exit(0);
	}
	return task_start(b->init);
}

/*
 * Does it end a container that waits for its start? There the signal is that of a program of runc's, which ends on these and takes no notice of
 * others; nothing of it is left for the container's own.
 */
static bool ends_unstarted(int signo)
{
	static const uint64_t ending = 1ull << SIGHUP | 1ull << SIGINT | 1ull << SIGQUIT |
				       1ull << SIGILL | 1ull << SIGTRAP | 1ull << SIGABRT |
				       1ull << SIGBUS | 1ull << SIGFPE | 1ull << SIGKILL |
				       1ull << SIGSEGV | 1ull << SIGTERM | 1ull << SIGSTKFLT |
				       1ull << SIGSYS;

	return signo < 64 && (ending >> signo & 1);
}

static int signal_init(struct boot_container *b, struct moat_siginfo *info)
{
	if (!atomic_load(&b->started))
		return ends_unstarted(info->si_signo) ? kill_container(b, info->si_signo) : 0;
	if (info->si_signo == SIGKILL)
		return kill_container(b, SIGKILL);
	signal_send_group(b->init->group, info);
	return 0;
}

static int send_signal(struct boot_container *b, const struct control_msg *msg)
{
	struct moat_siginfo info = {.si_signo = msg->signo, .si_code = 0 /* SI_USER */};
	struct thread_group *g;
	int32_t id = 1;

	if (msg->signo < 1 || msg->signo > SIG_COUNT)
		return -EINVAL;
	if (!b->init || atomic_load(&b->ended))
		return -ESRCH;
	while (msg->all && (g = task_cgroup_next_group(b->cgroup, &id))) {
		if (g != b->init->group)
			signal_send_group(g, &info);
		group_unref(g);
		id++;
	}
	return signal_init(b, &info);
}

/* What the sandbox has of memory is the first container's to say. */
static void update(struct boot_container *b, const struct control_msg *msg)
{
	if (msg->memory && b->first) {
		boot_set_memory(msg->memory, msg->all);
		atomic_store(&b->cgroup->host_keeps, msg->all);
	}
	task_cgroup_update(b->cgroup, msg->memory, msg->pids, msg->text);
	/* The first one's threads are the sandbox's, which the host holds to it. */
	if (msg->text && !b->first)
		affinity_set_container(b->cgroup, msg->text);
}

static const char *freeze(struct boot_container *b, bool frozen)
{
	if (frozen)
		return task_cgroup_freeze(b->cgroup) ? "frozen" : "freezing";
	task_cgroup_thaw(b->cgroup);
	return "thawed";
}

/* Return 0 or -errno; text is the reply's. */
static int answer(struct boot_container *b, const struct control_msg *msg, struct buf *text)
{
	switch (msg->op) {
	case CONTROL_SIGNAL:
		return send_signal(b, msg);
	case CONTROL_RESIZE:
		if (b->console)
			tty_resize(b->console,
				   &(struct winsize){.ws_row = (unsigned short)msg->rows,
						     .ws_col = (unsigned short)msg->cols});
		return 0;
	case CONTROL_STATE:
		buf_puts(text, atomic_load(&b->started) ? "running" : "created");
		return 0;
	case CONTROL_UPDATE:
		update(b, msg);
		return 0;
	case CONTROL_FREEZE:
		buf_puts(text, freeze(b, msg->all));
		return 0;
	case CONTROL_PS:
		control_ps_text(b, text);
		return 0;
	case CONTROL_STATS:
		control_stats_text(b, text);
		return 0;
	case CONTROL_DEBUG:
		return control_debug_text(msg->text ? msg->text : "", text);
	default:
		buf_puts(text, "this sentry does not know the request");
		return -EOPNOTSUPP;
	}
}

/* The reply goes first: a program that ends at once takes the sandbox along. */
static void handle_start(struct boot_container *b, int sock)
{
	struct control_msg reply = {.op = CONTROL_REPLY};
	struct control_msg failed = {.op = CONTROL_ERROR,
				     .exit_code = 1,
				     .text = (char *)"sentry: cannot start the first process"};

	if (atomic_load(&b->started)) {
		reply.exit_code = 1;
		reply.text = (char *)strerror(EALREADY);
	}
	if (control_send(sock, &reply))
		log_warn("control: a client went away before its reply");
	if (!reply.exit_code && boot_start_init(b))
		control_post(b, &failed);
}

static void handle(struct boot_container *b, int sock, const struct control_msg *msg,
		   bool is_lifeline)
{
	struct control_msg reply = {.op = CONTROL_REPLY};
	struct buf text;
	int err;

	if (msg->op == CONTROL_START && !is_lifeline) {
		handle_start(b, sock);
		return;
	}
	if (msg->op == CONTROL_ROOM && is_lifeline && b->first) {
		oom_room_told(msg->pid, msg->exit_code, msg->memory);
		return;
	}
	buf_init(&text, CONTROL_MSG_MAX / 2);
	err = answer(b, msg, &text);
	if (!is_lifeline) {
		reply.exit_code = err ? 1 : 0;
		reply.text = err && !text.len ? (char *)strerror(-err) : text.data;
		if (control_send(sock, &reply))
			log_warn("control: a client went away before its reply");
	}
	buf_fini(&text);
}

/* ---- connections ---- */

enum client_kind {
	CLIENT_LISTEN, /* where a container's verbs connect */
	CLIENT_REQUEST, /* one request, one reply */
	CLIENT_EXEC, /* a process's */
	CLIENT_CONTAINER, /* a further container's lifeline */
};

struct client {
	enum client_kind kind;
	struct boot_container *container; /* a reference */
	struct exec_session *exec; /* of CLIENT_EXEC */
	bool busy; /* with a job: not polled, pfd.fd is -1 - fd */
	bool gone; /* to be removed */
};

/* The first entries of the poll array; clients follow. */
enum { POLL_LIFELINE, POLL_EVENT, POLL_FIRST };

static struct pollfd *pfds; /* POLL_FIRST + clients */
static struct client *clients; /* parallel: clients[i] belongs to pfds[POLL_FIRST + i] */
static size_t client_count, client_room, listen_count;

static bool clients_grow(void)
{
	size_t room = client_room ? client_room * 2 : CONTROL_CLIENTS_FIRST;
	struct pollfd *p;
	struct client *c;

	if (client_count < client_room)
		return true;
	if (room > 4 * CONTROL_CLIENTS_MAX)
		return false;
	p = realloc(pfds, (POLL_FIRST + room) * sizeof(*p));
	c = p ? realloc(clients, room * sizeof(*c)) : NULL;
	if (p)
		pfds = p;
	if (c) {
		clients = c;
		client_room = room;
	}
	return c != NULL;
}

/* Takes fd. */
static void client_add(enum client_kind kind, int fd, struct boot_container *b)
{
	bool is_listen = kind == CLIENT_LISTEN;

	if ((!is_listen && client_count - listen_count >= CONTROL_CLIENTS_MAX) || !clients_grow()) {
		log_warn("control: too many connections");
		close(fd);
		return;
	}
	boot_container_ref(b);
	listen_count += is_listen;
	clients[client_count] = (struct client){.kind = kind, .container = b};
	pfds[POLL_FIRST + client_count++] = (struct pollfd){.fd = fd, .events = POLLIN};
}

static void client_set_busy(size_t i, bool busy)
{
	if (clients[i].busy != busy)
		pfds[POLL_FIRST + i].fd = -1 - pfds[POLL_FIRST + i].fd;
	clients[i].busy = busy;
}

/* No job is under way. The last one takes its place. */
static void client_remove(size_t i)
{
	struct client *c = &clients[i];

	if (c->exec)
		exec_end(c->exec);
	close(pfds[POLL_FIRST + i].fd);
	boot_container_unref(c->container);
	listen_count -= c->kind == CLIENT_LISTEN;
	client_count--;
	clients[i] = clients[client_count];
	pfds[POLL_FIRST + i] = pfds[POLL_FIRST + client_count];
}

static void clients_sweep(void)
{
	for (size_t i = client_count; i-- > 0;)
		if (clients[i].gone)
			client_remove(i);
}

/* Begins a job with the client's connection; takes the descriptors. */
static void client_begin(size_t i, void (*run)(struct boot_job *), const int *fds, size_t count,
			 unsigned flags)
{
	struct boot_job j = {.run = run,
			     .sock = pfds[POLL_FIRST + i].fd,
			     .container = clients[i].container,
			     .session = clients[i].exec,
			     .flags = flags,
			     .count = count};

	if (count)
		memcpy(j.fds, fds, count * sizeof(*fds));
	boot_container_ref(j.container);
	client_set_busy(i, true);
	if (boot_job_start(&j))
		return;
	boot_container_unref(j.container);
	client_set_busy(i, false);
	clients[i].gone = true;
}

static void client_accept(size_t i)
{
	int fd = accept4(pfds[POLL_FIRST + i].fd, NULL, NULL, SOCK_CLOEXEC);

	if (fd >= 0)
		client_add(CLIENT_REQUEST, fd, clients[i].container);
}

static void request_message(size_t i, const struct control_msg *msg, int *fds, size_t *count)
{
	bool is_exec = msg->op == CONTROL_EXEC;

	if (!is_exec && msg->op != CONTROL_ADD) {
		handle(clients[i].container, pfds[POLL_FIRST + i].fd, msg, false);
		clients[i].gone = true;
		return;
	}
	clients[i].kind = is_exec ? CLIENT_EXEC : CLIENT_CONTAINER;
	client_begin(i, is_exec ? exec_begin : add_begin, fds, *count, msg->flags);
	*count = 0;
}

static void client_message(size_t i)
{
	struct client *c = &clients[i];
	int fds[CONTROL_FDS_MAX], sock = pfds[POLL_FIRST + i].fd;
	struct control_msg msg;
	size_t count;

	if (control_recv_fds(sock, &msg, fds, &count)) {
		/* A container without its monitor ends; so does a process. */
		if (c->kind == CLIENT_CONTAINER)
			client_begin(i, add_finish, NULL, 0, 0);
		else
			c->gone = true;
		return;
	}
	if (c->kind == CLIENT_EXEC)
		exec_message(c->exec, &msg);
	else if (c->kind == CLIENT_CONTAINER)
		handle(c->container, sock, &msg, true);
	else
		request_message(i, &msg, fds, &count);
	for (size_t k = 0; k < count; k++)
		close(fds[k]);
	control_msg_fini(&msg);
}

static void lifeline_message(struct boot_container *first)
{
	struct control_msg msg;
	int err = control_recv(first->lifeline, &msg);

	if (err == -EAGAIN)
		return;
	if (err) {
		log_info("control: the monitor is gone; ending");
		_exit(137);
	}
	handle(first, first->lifeline, &msg, true);
	control_msg_fini(&msg);
}

/* A further container is there: what connects to its socket is about it. */
static void container_begun(size_t i, struct boot_container *b)
{
	boot_container_unref(clients[i].container);
	boot_container_ref(b);
	clients[i].container = b;
	client_add(CLIENT_LISTEN, b->listen_fd, b);
	b->listen_fd = -1;
}

static void container_ended(const struct boot_container *b)
{
	for (size_t i = 0; i < client_count; i++)
		if (clients[i].kind == CLIENT_LISTEN && clients[i].container == b)
			clients[i].gone = true;
}

static void job_done(const struct boot_job *j)
{
	size_t i = 0;

	if (j->sock < 0)
		return; /* nobody's */
	/* Its number is nobody else's until it is closed. */
	while (i < client_count && pfds[POLL_FIRST + i].fd != -1 - j->sock)
		i++;
	assert(i < client_count && clients[i].busy);
	client_set_busy(i, false);
	if (clients[i].kind == CLIENT_EXEC)
		clients[i].exec = j->session;
	else if (!j->last)
		container_begun(i, j->container);
	else if (j->run == add_finish)
		container_ended(j->container);
	clients[i].gone = j->last;
	boot_container_unref(j->container);
}

/* Jobs are done, or processes have ended. */
static void events(void)
{
	struct boot_job *j;
	uint64_t n;

	if (read(boot_event_fd(), &n, sizeof(n)) < 0)
		return;
	while ((j = boot_next_job_done())) {
		job_done(j);
		free(j);
	}
	for (size_t i = 0; i < client_count; i++) {
		struct client *c = &clients[i];

		if (c->busy || c->gone)
			continue;
		if (c->kind == CLIENT_CONTAINER)
			add_look_at_end(c->container);
		if (c->kind == CLIENT_EXEC && c->exec && exec_has_ended(c->exec))
			client_begin(i, exec_finish, NULL, 0, 0);
		else if (c->kind == CLIENT_CONTAINER && add_has_ended(c->container))
			client_begin(i, add_finish, NULL, 0, 0);
	}
}

void control_serve(struct boot_container *first)
{
	if (!clients_grow()) {
		log_error("control: out of memory");
		_exit(1);
	}
	pfds[POLL_LIFELINE] = (struct pollfd){.fd = first->lifeline, .events = POLLIN};
	pfds[POLL_EVENT] = (struct pollfd){.fd = boot_event_fd(), .events = POLLIN};
	client_add(CLIENT_LISTEN, first->listen_fd, first);
	for (;;) {
		size_t count = client_count;

		if (poll(pfds, POLL_FIRST + count, -1) < 0)
			continue;
		for (size_t i = 0; i < count; i++) {
			if (!pfds[POLL_FIRST + i].revents)
				continue;
			if (clients[i].kind == CLIENT_LISTEN)
				client_accept(i);
			else
				client_message(i);
		}
		if (pfds[POLL_LIFELINE].revents)
			lifeline_message(first);
		if (pfds[POLL_EVENT].revents)
			events();
		clients_sweep();
	}
}
