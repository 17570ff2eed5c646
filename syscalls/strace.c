/* syscalls/strace.c - which calls are printed, and how a line is put together. */
#include "syscalls/strace.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "syscalls/syscalls.h"
#include "syscalls/table.h"

/* Bit nr: print that call. Set before any task runs; all by default. */
static uint64_t selected[(SYSCALL_NR_MAX + 63) / 64] = {[0 ...(SYSCALL_NR_MAX + 63) / 64 - 1] =
								UINT64_MAX};

int strace_select(const char *list, const char **ret_bad)
{
	uint64_t bits[ARRAY_SIZE(selected)] = {0};
	bool invert = false;

	if (!list || !*list)
		return 0;
	if (*list == '!') {
		invert = true;
		list++;
	}
	while (*list) {
		size_t len = strcspn(list, ",");
		int nr = syscall_find(list, len);

		if (nr < 0) {
			*ret_bad = list;
			return -EINVAL;
		}
		bits[nr / 64] |= 1ull << (nr % 64);
		list += len + (list[len] == ',');
	}
	for (unsigned i = 0; i < ARRAY_SIZE(bits); i++)
		selected[i] = invert ? ~bits[i] : bits[i];
	return 0;
}

void strace_printf(struct strace_text *x, const char *fmt, ...)
{
	va_list ap;
	int n;

	if (x->len + 1 >= x->size)
		return;
	va_start(ap, fmt);
	n = vsnprintf(x->buf + x->len, x->size - x->len, fmt, ap);
	va_end(ap);
	if (n > 0)
		x->len = MIN(x->len + (size_t)n, x->size - 1);
}

static bool kind_is_out(unsigned kind)
{
	switch (kind) {
	case SC_FDPAIR_OUT:
	case SC_STR_OUT:
	case SC_BUF_OUT:
	case SC_IOVEC_OUT:
	case SC_STAT_OUT:
	case SC_STATX_OUT:
	case SC_STATFS_OUT:
	case SC_SIGSET_OUT:
	case SC_SIGACTION_OUT:
	case SC_TIMESPEC_OUT:
	case SC_TIMEVAL_OUT:
	case SC_ITIMERVAL_OUT:
	case SC_ITIMERSPEC_OUT:
	case SC_POLLFDS:
	case SC_EPOLL_EVENTS_OUT:
	case SC_SOCKADDR_OUT:
	case SC_MSGHDR_OUT:
	case SC_WSTATUS_OUT:
	case SC_RLIMIT_OUT:
		return true;
	default:
		return false;
	}
}

static void put_signo(struct strace_text *x, uint64_t signo)
{
	const char *name = strace_signal(signo);

	if (name)
		strace_printf(x, "%s", name);
	else
		strace_printf(x, "%lld", (long long)signo);
}

static void put_arg(struct strace_text *x, struct task *t, unsigned kind, uint64_t v, uint64_t next,
		    int64_t ret)
{
	switch (kind) {
	case SC_INT:
	case SC_FD:
		strace_printf(x, "%d", (int)v);
		break;
	case SC_DIRFD:
		if ((int)v == -100)
			strace_printf(x, "AT_FDCWD");
		else
			strace_printf(x, "%d", (int)v);
		break;
	case SC_UINT:
		strace_printf(x, "%u", (unsigned)v);
		break;
	case SC_LONG:
	case SC_OFF:
		strace_printf(x, "%lld", (long long)v);
		break;
	case SC_SIZE:
		strace_printf(x, "%llu", (unsigned long long)v);
		break;
	case SC_MODE:
		strace_printf(x, "0%o", (unsigned)v);
		break;
	case SC_HEX:
		strace_printf(x, v ? "%#llx" : "%llu", (unsigned long long)v);
		break;
	case SC_SIGNO:
		put_signo(x, v);
		break;
	case SC_OPEN_FLAGS:
	case SC_AT_FLAGS:
	case SC_ACCESS:
	case SC_WHENCE:
	case SC_FCNTL_CMD:
	case SC_FLOCK_OP:
	case SC_IOCTL:
	case SC_RENAME_FLAGS:
	case SC_RWF_FLAGS:
	case SC_MOUNT_FLAGS:
	case SC_PROT:
	case SC_MAP_FLAGS:
	case SC_MREMAP_FLAGS:
	case SC_MSYNC_FLAGS:
	case SC_MADVICE:
	case SC_SIG_HOW:
	case SC_CLOCKID:
	case SC_EPOLL_OP:
	case SC_SOCK_DOMAIN:
	case SC_SOCK_TYPE:
	case SC_SOCK_FLAGS:
	case SC_SOCK_LEVEL:
	case SC_SOCK_OPT:
	case SC_MSG_FLAGS:
	case SC_CLONE_FLAGS:
	case SC_WAIT_OPTIONS:
	case SC_FUTEX_OP:
	case SC_RESOURCE:
	case SC_PRCTL_OP:
	case SC_ARCH_PRCTL_OP:
	case SC_PTRACE_REQ:
		strace_flags(x, kind, v);
		break;
	default:
		strace_data(x, t, kind, v, next, ret);
	}
}

bool strace_enter(struct strace_call *st, struct task *t, int64_t nr, const struct syscall_args *a)
{
	struct strace_text x = {st->buf, 0, sizeof(st->buf)};
	const struct syscall_row *row;
	bool known = nr >= 0 && nr < SYSCALL_NR_MAX;

	if (known && !(selected[nr / 64] >> (nr % 64) & 1))
		return false;
	st->nr = nr;
	st->args = *a;
	memset(st->off, 0, sizeof(st->off));
	if (!known || !syscall_table[nr].name)
		return true;
	row = &syscall_table[nr];
	for (unsigned i = 0; i < row->nargs; i++) {
		st->off[i] = (unsigned)x.len;
		if (!kind_is_out(row->kinds[i]))
			put_arg(&x, t, row->kinds[i], a->a[i], i < 5 ? a->a[i + 1] : 0, 0);
		st->off[i + 1] = (unsigned)x.len;
	}
	/* These two do not come back to strace_exit. */
	if (!strcmp(row->name, "exit_group") || !strcmp(row->name, "exit"))
		log_info("[%d %d] %s(%d)", t->group->tgid, t->tid, row->name, (int)a->a[0]);
	return true;
}

static void put_args(struct strace_text *x, struct strace_call *st, struct task *t,
		     const struct syscall_row *row, int64_t rax)
{
	for (unsigned i = 0; i < row->nargs; i++) {
		unsigned len = st->off[i + 1] - st->off[i];

		if (i)
			strace_printf(x, ", ");
		if (len)
			strace_printf(x, "%.*s", (int)len, st->buf + st->off[i]);
		else if (rax < 0 && rax > -4096 && row->kinds[i] != SC_POLLFDS)
			strace_printf(x, "%#llx", (unsigned long long)st->args.a[i]);
		else
			put_arg(x, t, row->kinds[i], st->args.a[i], i < 5 ? st->args.a[i + 1] : 0,
				rax);
	}
}

static void put_result(struct strace_text *x, int64_t rax)
{
	const char *name = rax < 0 && rax > -4096 ? strace_errno((int)-rax) : NULL;

	if (name)
		strace_printf(x, ") = -1 (%s)", name);
	else if (rax > 0xffffff || rax < 0)
		strace_printf(x, ") = %#llx", (unsigned long long)rax);
	else
		strace_printf(x, ") = %lld", (long long)rax);
}

void strace_exit(struct strace_call *st, struct task *t, int64_t rax)
{
	char line[STRACE_LINE_MAX];
	/* The result always fits. */
	struct strace_text x = {line, 0, sizeof(line) - 64};
	bool known = st->nr >= 0 && st->nr < SYSCALL_NR_MAX && syscall_table[st->nr].name;

	if (known) {
		const struct syscall_row *row = &syscall_table[st->nr];

		if (!strcmp(row->name, "exit_group") || !strcmp(row->name, "exit"))
			return;
		strace_printf(&x, "%s(", row->name);
		if (t->mm)
			put_args(&x, st, t, row, rax);
	} else {
		strace_printf(&x, "syscall_%lld(%#llx, %#llx, %#llx", (long long)st->nr,
			      (unsigned long long)st->args.a[0], (unsigned long long)st->args.a[1],
			      (unsigned long long)st->args.a[2]);
	}
	x.size = sizeof(line);
	put_result(&x, rax);
	log_info("[%d %d] %s", t->group->tgid, t->tid, line);
}
