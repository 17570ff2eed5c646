/*
 * syscalls/syscalls.h - the functions behind the table, and how the sentry is told about them.
 *
 * Each system call is one function: int64_t sys_NAME(task, args). It runs on the task's own thread with no lock held, gets the
 * six raw argument registers (narrow types are cut by the function, as the C ABI of Linux's does), and returns what rax shall be:
 * a result, -errno, or a restart code of sentry/task.h, which stays in rax for signal delivery.
 */
#ifndef MOAT_SYSCALLS_SYSCALLS_H
#define MOAT_SYSCALLS_SYSCALLS_H

#include "sentry/task.h"

/*
 * syscalls_init - installs kernel.dispatch and the VFS's hooks that need a task (user copies, RLIMIT_FSIZE, signals).
 * Once, after kernel_init(). Return: 0, -ENOMEM.
 */
must_check int syscalls_init(void);

/* kernel.dispatch: serves the call in t->regs (its number is in rax) and sets rax. */
void syscall_dispatch(struct task *t);

/*
 * --strace[=list]: which calls are printed for tasks whose `strace` is set. list: comma-separated names, "!" first inverts;
 * NULL or "": all. Before any task runs. Return: 0, -EINVAL for an unknown name (*ret_bad points at it in list).
 */
must_check int strace_select(const char *list, const char **ret_bad);

#define SYSCALL(nr, call, lvl, error, args, note) \
	int64_t sys_##call(struct task *t, const struct syscall_args *a);
#include "syscalls/table.def"
#undef SYSCALL

#endif
