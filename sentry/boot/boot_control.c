/*
 * sentry/boot/boot_control.c - the control server: the lifeline to the CLI, and connections from other CLIs.
 *
 * The sentry's first thread ends up here. When the lifeline closes, the monitor is gone and so is the sandbox (its pid namespace
 * usually is quicker). Clients send one request and get one reply; a connection that asked for a process (boot_exec.c) stays until that
 * ends. At most CONTROL_CLIENTS_MAX at once.
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
#include "sentry/fs/fs.h"
#include "sentry/tty/tty.h"

#define CONTROL_CLIENTS_FIRST 8
#define CONTROL_CLIENTS_MAX 4096 /* connections: requests, and processes of `moat exec` */

static struct boot_state *control_boot;
static _Atomic int lifeline = -1;

void control_init(struct boot_state *b)
{
	control_boot = b;
	atomic_store(&lifeline, b->spec.control_fd);
}

void control_post(const struct control_msg *msg)
{
	int err = control_send(atomic_load(&lifeline), msg);

	if (err)
		log_warn("control: the command line is gone: %s", strerror(-err));
}

static int send_signal(const struct control_msg *msg)
{
	struct moat_siginfo info = {.si_signo = msg->signo, .si_code = 0 /* SI_USER */};
	struct task *init;

	if (msg->signo < 1 || msg->signo > SIG_COUNT)
		return -EINVAL;
	if (msg->signo == SIGKILL) {
		kernel.shutting_down = true;
		init = task_find(1);
		if (!init)
			return -ESRCH;
		task_group_exit(init->group, SIGKILL);
		task_unref(init);
		/* One that was never started has no thread to die on. */
		if (!atomic_load(&control_boot->started)) {
			control_post(&(struct control_msg){.op = CONTROL_EXIT, .status = SIGKILL});
			_exit(0);
		}
		return 0;
	}
	if (msg->all) {
		struct task *t;
		int32_t tid = 1;

		rcu_read_begin();
		while ((t = idr_next(&kernel.tasks, &tid)) != NULL) {
			if (t->tid == t->group->tgid)
				signal_send_group(t->group, &info);
			tid++;
		}
		rcu_read_end();
		return 0;
	}
	init = task_find(1);
	if (!init)
		return -ESRCH;
	signal_send_group(init->group, &info);
	task_unref(init);
	return 0;
}

static void update(const struct control_msg *msg)
{
	if (msg->pids)
		kernel.task_limit = (int32_t)MIN(msg->pids, (uint64_t)TASKS_MAX);
	if (msg->memory)
		mm_set_total_bytes(msg->memory);
	cgroupfs_update(msg->memory, msg->pids);
}

/* Return 0 or -errno; text is the reply's. */
static int answer(const struct control_msg *msg, struct buf *text)
{
	switch (msg->op) {
	case CONTROL_SIGNAL:
		return send_signal(msg);
	case CONTROL_RESIZE:
		if (control_boot->console)
			tty_resize(control_boot->console,
				   &(struct winsize){.ws_row = (unsigned short)msg->rows,
						     .ws_col = (unsigned short)msg->cols});
		return 0;
	case CONTROL_STATE:
		buf_puts(text, atomic_load(&control_boot->started) ? "running" : "created");
		return 0;
	case CONTROL_UPDATE:
		update(msg);
		return 0;
	case CONTROL_PS:
		control_ps_text(text);
		return 0;
	case CONTROL_STATS:
		control_stats_text(text);
		return 0;
	case CONTROL_DEBUG:
		control_debug_text(msg->text ? msg->text : "", text);
		return 0;
	default:
		buf_puts(text, "this sentry does not know the request");
		return -EOPNOTSUPP;
	}
}

/* The reply goes first: a program that ends at once takes the sandbox along. */
static void handle_start(int sock)
{
	struct control_msg reply = {.op = CONTROL_REPLY};
	struct control_msg failed = {.op = CONTROL_ERROR,
				     .exit_code = 1,
				     .text = (char *)"sentry: cannot start the first process"};

	if (atomic_load(&control_boot->started)) {
		reply.exit_code = 1;
		reply.text = (char *)strerror(EALREADY);
	}
	if (control_send(sock, &reply))
		log_warn("control: a client went away before its reply");
	if (!reply.exit_code && boot_start_init(control_boot))
		control_post(&failed);
}

static void handle(int sock, const struct control_msg *msg, bool is_lifeline)
{
	struct control_msg reply = {.op = CONTROL_REPLY};
	struct buf text;
	int err;

	if (msg->op == CONTROL_START && !is_lifeline) {
		handle_start(sock);
		return;
	}
	buf_init(&text, CONTROL_MSG_MAX / 2);
	err = answer(msg, &text);
	if (!is_lifeline) {
		reply.exit_code = err ? 1 : 0;
		reply.text = err && !text.len ? (char *)strerror(-err) : text.data;
		if (control_send(sock, &reply))
			log_warn("control: a client went away before its reply");
	}
	buf_fini(&text);
}

/* ---- connections ---- */

struct client {
	struct exec_session *exec; /* NULL: one request, one reply */
	bool busy; /* with a step of exec: not polled, pfd.fd is -1 - fd */
};

/* The first entries of the poll array; clients follow. */
enum { POLL_LIFELINE, POLL_LISTEN, POLL_EXEC, POLL_FIRST };

static struct pollfd *pfds; /* POLL_FIRST + clients */
static struct client *clients; /* parallel: clients[i] belongs to pfds[POLL_FIRST + i] */
static size_t client_count, client_room;

static void client_accept(int listen_fd)
{
	int fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC);

	if (fd < 0)
		return;
	if (client_count == client_room && client_room < CONTROL_CLIENTS_MAX) {
		size_t room = client_room * 2;
		struct pollfd *p = realloc(pfds, (POLL_FIRST + room) * sizeof(*p));
		struct client *c = p ? realloc(clients, room * sizeof(*c)) : NULL;

		if (p)
			pfds = p;
		if (c) {
			clients = c;
			client_room = room;
		}
	}
	if (client_count == client_room) {
		close(fd);
		return;
	}
	clients[client_count] = (struct client){0};
	pfds[POLL_FIRST + client_count++] = (struct pollfd){.fd = fd, .events = POLLIN};
}

static void client_remove(size_t i)
{
	if (clients[i].exec)
		exec_end(clients[i].exec);
	close(pfds[POLL_FIRST + i].fd);
	client_count--;
	clients[i] = clients[client_count];
	pfds[POLL_FIRST + i] = pfds[POLL_FIRST + client_count];
}

static void client_set_busy(size_t i, bool busy)
{
	if (clients[i].busy != busy)
		pfds[POLL_FIRST + i].fd = -1 - pfds[POLL_FIRST + i].fd;
	clients[i].busy = busy;
}

/* False: the connection is to be closed. */
static bool client_message(size_t i)
{
	int fds[CONTROL_FDS_MAX], sock = pfds[POLL_FIRST + i].fd;
	struct control_msg msg;
	bool keep = false;
	size_t count;

	if (control_recv_fds(sock, &msg, fds, &count))
		return false;
	if (clients[i].exec) {
		exec_message(clients[i].exec, &msg);
		keep = true;
	} else if (msg.op == CONTROL_EXEC) {
		keep = exec_request(control_boot, sock, fds, count, msg.flags);
		if (keep)
			client_set_busy(i, true);
		count = 0;
	} else {
		handle(sock, &msg, false);
	}
	for (size_t k = 0; k < count; k++)
		close(fds[k]);
	control_msg_fini(&msg);
	return keep;
}

static void lifeline_message(int fd)
{
	struct control_msg msg;
	int err = control_recv(fd, &msg);

	if (err == -EAGAIN)
		return;
	if (err) {
		log_info("control: the monitor is gone; ending");
		_exit(137);
	}
	handle(fd, &msg, true);
	control_msg_fini(&msg);
}

static void execs_ended(void)
{
	struct exec_session *session;
	bool finished;
	uint64_t n;
	int sock;

	if (read(exec_event_fd(), &n, sizeof(n)) < 0)
		return;
	while (exec_next_done(&sock, &session, &finished)) {
		size_t i = 0;

		while (i < client_count && pfds[POLL_FIRST + i].fd != -1 - sock)
			i++;
		assert(i < client_count && clients[i].busy);
		client_set_busy(i, false);
		clients[i].exec = session;
		if (finished || !session)
			client_remove(i);
	}
	for (size_t i = client_count; i-- > 0;) {
		if (!clients[i].exec || clients[i].busy || !exec_has_ended(clients[i].exec))
			continue;
		if (exec_report(clients[i].exec, pfds[POLL_FIRST + i].fd))
			client_set_busy(i, true);
		else
			client_remove(i);
	}
}

void control_serve(struct boot_state *b)
{
	client_room = CONTROL_CLIENTS_FIRST;
	pfds = calloc(POLL_FIRST + client_room, sizeof(*pfds));
	clients = calloc(client_room, sizeof(*clients));
	if (!pfds || !clients) {
		log_error("control: out of memory");
		_exit(1);
	}
	pfds[POLL_LIFELINE] = (struct pollfd){.fd = b->spec.control_fd, .events = POLLIN};
	pfds[POLL_LISTEN] = (struct pollfd){.fd = b->spec.listen_fd, .events = POLLIN};
	pfds[POLL_EXEC] = (struct pollfd){.fd = exec_event_fd(), .events = POLLIN};
	for (;;) {
		if (poll(pfds, POLL_FIRST + client_count, -1) < 0)
			continue;
		/* Clients first, from the end: removal moves the last one, which was looked at. */
		for (size_t i = client_count; i-- > 0;)
			if (pfds[POLL_FIRST + i].revents && !client_message(i))
				client_remove(i);
		if (pfds[POLL_LIFELINE].revents)
			lifeline_message(b->spec.control_fd);
		if (pfds[POLL_EXEC].revents)
			execs_ended();
		if (pfds[POLL_LISTEN].revents)
			client_accept(b->spec.listen_fd);
	}
}
