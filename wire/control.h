/*
 * wire/control.h - the control protocol between the command line and a running sentry.
 *
 * One JSON object a SOCK_SEQPACKET message, {"v":1,"op":"signal",...}. The same messages travel on the lifeline (a socket pair that
 * `moat run` keeps; its end closes with the CLI) and on connections to the listening socket in the state directory.
 * Additions keep v; a reader ignores members it does not know and answers "error" to an op it does not know.
 */
#ifndef MOAT_WIRE_CONTROL_H
#define MOAT_WIRE_CONTROL_H

#include "base/buf.h"
#include "base/compiler.h"

#define CONTROL_VERSION 1
#define CONTROL_MSG_MAX (1u << 18)

enum control_op {
	/* sentry to runtime */
	CONTROL_STARTED, /* pid: of the container's init, as the sentry numbers it */
	CONTROL_ERROR, /* text; exit_code: what the CLI exits with */
	CONTROL_EXIT, /* status: wait status of init */
	CONTROL_REPLY, /* text, or exit_code != 0 with text as the reason */
	/* runtime to sentry */
	CONTROL_SIGNAL, /* signo, all */
	CONTROL_RESIZE, /* rows, cols */
	CONTROL_DEBUG, /* text: "" or what to show; reply: text */
	CONTROL_STATE, /* reply: text is "running" or "stopped" */
	CONTROL_OPS,
};

struct control_msg {
	enum control_op op;
	int signo, status, exit_code, pid;
	unsigned rows, cols;
	bool all;
	char *text; /* owned; NULL if none */
};

void control_msg_fini(struct control_msg *msg);
void control_encode(const struct control_msg *msg, struct buf *out);
/* Return: 0, -EINVAL (not a message of this protocol), -ENOMEM. */
must_check int control_decode(const char *json, size_t size, struct control_msg *ret);
/* One message over a SOCK_SEQPACKET socket. recv: -EPIPE at the end, -EAGAIN. */
must_check int control_send(int sock, const struct control_msg *msg);
must_check int control_recv(int sock, struct control_msg *ret);

#endif
