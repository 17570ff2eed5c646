/*
 * syscalls/dispatch.c - from a number in rax to a function and back.
 *
 * The task loop sees a PLATFORM_SYSCALL event and calls kernel.dispatch, which is syscall_dispatch() below: bounds, tracer and
 * seccomp, one indirect call through syscall_table, the result in rax. All that is known about a call is its row in table.def:
 * its function, whether it is complete, the kinds of its arguments. strace.c prints by those kinds, scripts/gen-syscalls-doc writes
 * docs/syscalls.md from them, and an ABSENT row needs no function at all. So adding a call is one row and one function.
 *
 * The families are one file each: sys_open.c, sys_io.c, sys_stat.c, ... They convert between Linux's ABI and the VFS, the mm and the
 * task objects, and do nothing else: guest structures are copied in once and checked as copied, in Linux's order of errors;
 * sys_path (syscalls/util.h) turns (dirfd, path, flags) into a struct vfs_lookup with references. Guest addresses never become
 * pointers here.
 *
 * Waiting calls return a restart code (sentry/task.h) with rax holding it as -ERESTART*: signal delivery, which runs after this and before the
 * application, turns it into EINTR or into the call again. orig_rax keeps the number for that.
 *
 * Performance: a call that does nothing costs the checks of four words and the indirect call.
 *
 * Watching: --strace.
 *
 * Cannot do: 32-bit (int 0x80) and x32 numbers; both answer -ENOSYS.
 */
#include "syscalls/syscalls.h"

#include "sentry/ptrace.h"
#include "sentry/seccomp.h"
#include "syscalls/strace.h"
#include "syscalls/table.h"

static int64_t serve(struct task *t, unsigned nr, const struct syscall_args *a)
{
	const struct syscall_row *row;

	if (nr >= SYSCALL_NR_MAX)
		return -ENOSYS;
	row = &syscall_table[nr];
	if (likely(row->fn))
		return row->fn(t, a);
	return row->name ? -(int64_t)row->err : -ENOSYS;
}

/* Linux's do_syscall_64: the number is the low half of rax, sign-extended; -1 leaves rax alone. */
void syscall_dispatch(struct task *t)
{
	struct user_regs_struct *r = &t->regs.r;
	struct syscall_args a;
	struct strace_call st;
	bool printed = false, run = true;
	int64_t rax = -ENOSYS;
	int32_t nr;

	r->orig_rax = r->rax;
	r->rax = (uint64_t)-ENOSYS;
	if (unlikely(t->ptrace)) {
		run = ptrace_syscall_enter(t);
		rax = (int64_t)r->rax;
	}
	nr = (int32_t)r->orig_rax;
	t->syscall_nr = nr;
	a = (struct syscall_args){{r->rdi, r->rsi, r->rdx, r->r10, r->r8, r->r9}};
	if (unlikely(atomic_load_explicit(&t->strace, memory_order_relaxed)))
		printed = strace_enter(&st, t, nr, &a);
	if (run && unlikely(atomic_load_explicit(&t->seccomp_mode, memory_order_relaxed)))
		run = seccomp_check(t, nr, &a, &rax);
	/* A filter's tracer may have changed the number. */
	nr = (int32_t)r->orig_rax;
	if (likely(run && nr != -1))
		rax = serve(t, (unsigned)nr, &a);
	/* execve and rt_sigreturn set all registers themselves, and return what rax shall be. */
	r->rax = (uint64_t)rax;
	if (unlikely(printed))
		strace_exit(&st, t, rax);
	if (unlikely(t->ptrace))
		ptrace_syscall_exit(t);
}
