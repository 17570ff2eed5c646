/*
 * sentry/boot/boot_control.c - the control server: the lifeline to the CLI, and connections from other CLIs.
 *
 * The sentry's first thread ends up here. When the lifeline closes, the CLI is gone and so is the sandbox (the parent-death
 * signal usually is quicker). Clients send one request and get one reply; at most CONTROL_CLIENTS_MAX at once.
 */
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "sentry/boot/internal.h"
#include "sentry/tty/tty.h"

#define CONTROL_CLIENTS_MAX 32

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

static void handle(int sock, struct control_msg *msg, bool is_lifeline)
{
	struct control_msg reply = {.op = CONTROL_REPLY};
	struct buf text;
	int err = 0;

	buf_init(&text, CONTROL_MSG_MAX / 2);
	switch (msg->op) {
	case CONTROL_SIGNAL:
		err = send_signal(msg);
		break;
	case CONTROL_RESIZE:
		if (control_boot->console)
			tty_resize(control_boot->console,
				   &(struct winsize){.ws_row = (unsigned short)msg->rows,
						     .ws_col = (unsigned short)msg->cols});
		break;
	case CONTROL_STATE:
		buf_puts(&text, "running");
		break;
	case CONTROL_DEBUG:
		control_debug_text(msg->text ? msg->text : "", &text);
		break;
	default:
		err = -EOPNOTSUPP;
		buf_puts(&text, "this sentry does not know the request");
	}
	if (!is_lifeline) {
		reply.exit_code = err ? 1 : 0;
		reply.text = err && !text.len ? (char *)strerror(-err) : text.data;
		if (control_send(sock, &reply))
			log_warn("control: a client went away before its reply");
	}
	buf_fini(&text);
}

void control_serve(struct boot_state *b)
{
	struct pollfd pfd[2 + CONTROL_CLIENTS_MAX];
	nfds_t n = 2;

	pfd[0] = (struct pollfd){.fd = b->spec.control_fd, .events = POLLIN};
	pfd[1] = (struct pollfd){.fd = b->spec.listen_fd, .events = POLLIN};
	for (;;) {
		if (poll(pfd, n, -1) < 0)
			continue;
		if (pfd[1].revents) {
			int fd = accept4(b->spec.listen_fd, NULL, NULL, SOCK_CLOEXEC);

			if (fd >= 0 && n < ARRAY_SIZE(pfd))
				pfd[n++] = (struct pollfd){.fd = fd, .events = POLLIN};
			else if (fd >= 0)
				close(fd);
		}
		for (nfds_t i = 0; i < n; i++) {
			struct control_msg msg;
			int err;

			if (i == 1 || !pfd[i].revents)
				continue;
			err = control_recv(pfd[i].fd, &msg);
			if (!err) {
				handle(pfd[i].fd, &msg, i == 0);
				control_msg_fini(&msg);
			}
			if (err && i == 0) {
				log_info("control: the command line is gone; ending");
				_exit(137);
			}
			if (i >= 2) {
				close(pfd[i].fd);
				pfd[i--] = pfd[--n];
			}
		}
	}
}
