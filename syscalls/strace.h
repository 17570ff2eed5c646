/* syscalls/strace.h - one line a system call in the debug log. Internal to syscalls/. */
#ifndef MOAT_SYSCALLS_STRACE_H
#define MOAT_SYSCALLS_STRACE_H

#include "sentry/task.h"

#define STRACE_LINE_MAX 900 /* a log line holds it with its prefix */

/* A call being printed: what was known at entry. On dispatch's stack; big, but touched only when printing. */
struct strace_call {
	int64_t nr;
	struct syscall_args args;
	unsigned len[6], off[6]; /* each argument's text in buf; len 0: printed at exit */
	unsigned used;
	char buf[STRACE_LINE_MAX];
};

/* False when this call is not selected. Reads _IN arguments from guest memory. */
must_check bool strace_enter(struct strace_call *st, struct task *t, int64_t nr,
			     const struct syscall_args *a);
void strace_exit(struct strace_call *st, struct task *t, int64_t rax);

#endif
