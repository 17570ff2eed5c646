/*
 * syscalls/strace.h - one line a system call in the debug log. Internal to syscalls/.
 *
 *	[12 13] openat(AT_FDCWD, "/etc/passwd", O_RDONLY|O_CLOEXEC) = 3
 *
 * Printing is by the argument kinds of table.def. _IN kinds and plain numbers are formatted at entry (execve loses the memory),
 * _OUT kinds at exit. Guest memory is read as any copy reads it: a fault prints the address.
 */
#ifndef MOAT_SYSCALLS_STRACE_H
#define MOAT_SYSCALLS_STRACE_H

#include "sentry/task.h"

#define STRACE_LINE_MAX 900 /* a log line holds it with its prefix */
#define STRACE_STR_MAX 48 /* bytes of a buffer or string that are shown */
#define STRACE_LIST_MAX 8 /* elements of an array that are shown */

/* Text that is cut, never overrun. */
struct strace_text {
	char *buf;
	size_t len, size;
};

/* A call being printed: what was known at entry. On dispatch's stack; big, but touched only when printing. */
struct strace_call {
	int64_t nr;
	struct syscall_args args;
	unsigned off[7]; /* argument i's text is buf[off[i]..off[i + 1]); empty: printed at exit */
	char buf[STRACE_LINE_MAX];
};

/* False when this call is not selected. */
must_check bool strace_enter(struct strace_call *st, struct task *t, int64_t nr,
			     const struct syscall_args *a);
void strace_exit(struct strace_call *st, struct task *t, int64_t rax);

void strace_printf(struct strace_text *x, const char *fmt, ...) printf_like(2, 3);

/* strace_names.c: values by their names. */
void strace_flags(struct strace_text *x, unsigned kind,
		  uint64_t value); /* a SC_*_FLAGS or enumeration kind */
const char *strace_errno(int err); /* "ENOENT"; NULL */
const char *strace_signal(uint64_t signo); /* "SIGINT"; NULL */

/* strace_data.c: structures in guest memory. `count` is the next argument, `ret` the result (0 at entry). */
void strace_data(struct strace_text *x, struct task *t, unsigned kind, uint64_t addr,
		 uint64_t count, int64_t ret);

#endif
