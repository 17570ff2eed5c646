/*
 * syscalls/table.h - the system call table: what syscalls/table.def says, as an array.
 *
 * One immutable row a number gives dispatch its function, strace its names and argument kinds, docs/syscalls.md its
 * lines and the tests their coverage. Numbers that Linux leaves unused have a row without a name.
 */
#ifndef MOAT_SYSCALLS_TABLE_H
#define MOAT_SYSCALLS_TABLE_H

#include "sentry/task.h"

#define SYSCALL_NR_MAX 471 /* one past the last number that table.def knows */

enum syscall_level {
	SYSCALL_NONE, /* a gap in the numbers: -ENOSYS */
	SYSCALL_FULL,
	SYSCALL_PARTIAL,
	SYSCALL_ABSENT,
};

/* How strace prints an argument. _IN is read from guest memory before the call, _OUT after it. */
enum syscall_arg_kind {
	SC_NONE,
	SC_INT,
	SC_UINT,
	SC_LONG,
	SC_HEX,
	SC_SIZE,
	SC_OFF,
	SC_ADDR,
	SC_MODE,
	SC_FD,
	SC_DIRFD,
	SC_FDPAIR_OUT,
	SC_PATH,
	SC_STR,
	SC_STR_OUT,
	SC_BUF_IN, /* the next argument is its size */
	SC_BUF_OUT, /* the result is its size */
	SC_ARGV,
	SC_ENVP,
	SC_IOVEC_IN,
	SC_IOVEC_OUT, /* the next argument is their count */
	SC_OPEN_FLAGS,
	SC_OPEN_HOW_IN,
	SC_AT_FLAGS,
	SC_ACCESS,
	SC_WHENCE,
	SC_FCNTL_CMD,
	SC_FLOCK_OP,
	SC_IOCTL,
	SC_RENAME_FLAGS,
	SC_RWF_FLAGS,
	SC_MOUNT_FLAGS,
	SC_STAT_OUT,
	SC_STATX_OUT,
	SC_STATFS_OUT,
	SC_PROT,
	SC_MAP_FLAGS,
	SC_MREMAP_FLAGS,
	SC_MSYNC_FLAGS,
	SC_MADVICE,
	SC_SIGNO,
	SC_SIG_HOW,
	SC_SIGSET_IN,
	SC_SIGSET_OUT,
	SC_SIGACTION_IN,
	SC_SIGACTION_OUT,
	SC_TIMESPEC_IN,
	SC_TIMESPEC_OUT,
	SC_TIMESPEC2_IN,
	SC_TIMEVAL_IN,
	SC_TIMEVAL_OUT,
	SC_ITIMERVAL_IN,
	SC_ITIMERVAL_OUT,
	SC_ITIMERSPEC_IN,
	SC_ITIMERSPEC_OUT,
	SC_CLOCKID,
	SC_POLLFDS,
	SC_FDSET,
	SC_EPOLL_OP,
	SC_EPOLL_EVENT_IN,
	SC_EPOLL_EVENTS_OUT,
	SC_SOCK_DOMAIN,
	SC_SOCK_TYPE,
	SC_SOCK_FLAGS,
	SC_SOCK_LEVEL,
	SC_SOCK_OPT,
	SC_MSG_FLAGS,
	SC_SOCKADDR_IN, /* the next argument is its size */
	SC_SOCKADDR_OUT, /* the next argument points to its size */
	SC_MSGHDR_IN,
	SC_MSGHDR_OUT,
	SC_CLONE_FLAGS,
	SC_WSTATUS_OUT,
	SC_WAIT_OPTIONS,
	SC_FUTEX_OP,
	SC_RESOURCE,
	SC_RLIMIT_IN,
	SC_RLIMIT_OUT,
	SC_PRCTL_OP,
	SC_ARCH_PRCTL_OP,
	SC_PTRACE_REQ,
};

struct syscall_row {
	const char *name; /* NULL for a gap */
	int64_t (*fn)(struct task *t, const struct syscall_args *a); /* NULL: absent */
	uint16_t err; /* the errno of an absent call */
	uint8_t level; /* enum syscall_level */
	uint8_t nargs;
	uint8_t kinds[6]; /* enum syscall_arg_kind */
	const char *note;
};

extern const struct syscall_row syscall_table[SYSCALL_NR_MAX];

/* The number of the call with this name; -1. */
int syscall_find(const char *name, size_t len);

#endif
