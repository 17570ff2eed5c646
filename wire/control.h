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
	CONTROL_CREATED, /* the sandbox is up; its first process waits for CONTROL_START */
	/* runtime to sentry */
	CONTROL_SIGNAL, /* signo, all */
	CONTROL_RESIZE, /* rows, cols */
	CONTROL_DEBUG, /* text: "" or what to show; reply: text */
	CONTROL_STATE, /* reply: text is "created" or "running" */
	CONTROL_START, /* the first process begins */
	/*
	 * A further process: descriptors are a memfd with its boot spec, then either the terminal's byte stream or standard input,
	 * output and error (flags: CONTROL_EXEC_*), then what is preserved from 3 on. Answers: CONTROL_STARTED with its pid, or
	 * CONTROL_REPLY with the error; then CONTROL_EXIT. Meanwhile CONTROL_SIGNAL and CONTROL_RESIZE on the same connection are
	 * for that process. It is killed when the connection closes.
	 */
	CONTROL_EXEC,
	CONTROL_UPDATE, /* memory, pids: new limits, 0 for unchanged; all: the host's cgroup bounds the memory */
	CONTROL_PS, /* reply: text, a line "uid pid ppid start_s tty cpu_ms command" for each process */
	CONTROL_STATS, /* reply: text, JSON of the sandbox's own figures */
	/*
	 * A further container in the sandbox: descriptors are a memfd with its boot spec, the connection to its gofer, its listening control socket,
	 * (CONTROL_ADD_NOTIFY) where its NOTIFY_SOCKET leads, where the spec names virtio-fs devices and 9P servers a connection to each and a socket on
	 * which another is asked for (boot_spec.virtiofs_fd), then as for CONTROL_EXEC. The connection is its lifeline from then on: answers are
	 * CONTROL_CREATED or CONTROL_STARTED, or CONTROL_ERROR; then CONTROL_EXIT. It is killed when the connection closes.
	 */
	CONTROL_ADD,
	/* all: the container's processes stop before they go on in the application; else they go on. reply: text is "frozen", "freezing" or "thawed" */
	CONTROL_FREEZE,
	/*
	 * On the first container's lifeline, from the sentry: how much memory is left? memory: what is to be had at least, bytes; all: it is tried if the figures say
	 * less than twice that. The answer has the question's pid, and memory as the figures say; exit_code: ENOMEM: it was not to be had (and the host has noted
	 * an OOM kill), ENODATA: nobody knows, EBUSY: the child of an earlier question still tries.
	 */
	CONTROL_ROOM,
	CONTROL_OPS,
};

/* flags of CONTROL_EXEC: which descriptors follow the memfd */
enum {
	CONTROL_EXEC_STDIN = 1 << 0,
	CONTROL_EXEC_STDOUT = 1 << 1,
	CONTROL_EXEC_STDERR = 1 << 2,
	CONTROL_EXEC_TERMINAL = 1 << 3, /* one descriptor instead of the three */
	CONTROL_ADD_NOTIFY = 1 << 4,
};

/* Descriptors in one message: the memfd, three more of CONTROL_ADD, those of devices, three of stdio, the preserved ones. */
#define CONTROL_DEVICES_MAX 64
#define CONTROL_PRESERVED_MAX 21
#define CONTROL_FDS_MAX (1 + 3 + CONTROL_DEVICES_MAX + 1 + 3 + CONTROL_PRESERVED_MAX)

struct control_msg {
	enum control_op op;
	int signo, status, exit_code, pid;
	unsigned rows, cols, flags;
	uint64_t memory, pids;
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
/* The same with descriptors: sent ones are borrowed; received ones (O_CLOEXEC) are the caller's, *ret_count at most CONTROL_FDS_MAX. */
must_check int control_send_fds(int sock, const struct control_msg *msg, const int *fds,
				size_t count);
must_check int control_recv_fds(int sock, struct control_msg *ret, int *ret_fds, size_t *ret_count);

#endif
