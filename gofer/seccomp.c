/* gofer/seccomp.c - the filter of the file servers: the calls that both make, and how it is loaded. */
#include <errno.h>
#include <malloc.h>
#include <seccomp.h>
#include <sys/mman.h>
#include <unistd.h>

#include "gofer/confine.h"

/* Calls without conditions on their arguments. */
static const int allowed[] = {
	/* the connection */
	SCMP_SYS(recvfrom),
	SCMP_SYS(shutdown),
	SCMP_SYS(close),
	SCMP_SYS(close_range),
	/* the tree: paths start at held descriptors, the namespace bounds them */
	SCMP_SYS(openat),
	SCMP_SYS(statx),
	SCMP_SYS(fstat),
	SCMP_SYS(newfstatat),
	SCMP_SYS(readlinkat),
	SCMP_SYS(fstatfs),
	SCMP_SYS(getdents64),
	SCMP_SYS(lseek),
	/* its changes */
	SCMP_SYS(mkdirat),
	SCMP_SYS(mknodat),
	SCMP_SYS(symlinkat),
	SCMP_SYS(linkat),
	SCMP_SYS(unlinkat),
	SCMP_SYS(renameat), /* the C library's renameat2() without flags */
	SCMP_SYS(renameat2),
	SCMP_SYS(ftruncate),
	SCMP_SYS(fallocate),
	SCMP_SYS(fsync),
	SCMP_SYS(fdatasync),
	/* attributes; xattrs go by "N" below the working directory, /proc/self/fd */
	SCMP_SYS(fchownat),
	SCMP_SYS(fchmodat),
	SCMP_SYS(utimensat),
	SCMP_SYS(getxattr),
	SCMP_SYS(setxattr),
	SCMP_SYS(listxattr),
	SCMP_SYS(llistxattr),
	SCMP_SYS(removexattr),
	/* threads: locks, their end, signals' return */
	SCMP_SYS(futex),
	SCMP_SYS(exit),
	SCMP_SYS(exit_group),
	SCMP_SYS(rt_sigreturn),
	SCMP_SYS(rt_sigprocmask),
	SCMP_SYS(restart_syscall),
	SCMP_SYS(sched_yield),
	SCMP_SYS(gettid),
	SCMP_SYS(getpid),
	/* the allocator */
	SCMP_SYS(munmap),
	SCMP_SYS(madvise),
	SCMP_SYS(brk),
	SCMP_SYS(mremap),
	/* log lines' time where the vDSO has none */
	SCMP_SYS(clock_gettime),
	/* an assertion that failed */
	SCMP_SYS(rt_sigaction),
};

static int add_common(scmp_filter_ctx ctx)
{
	int err = 0;

	for (unsigned i = 0; i < ARRAY_SIZE(allowed) && !err; i++)
		err = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, allowed[i], 0);
	/* Memory, never executable. */
	if (!err)
		err = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 1,
				       SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
	if (!err)
		err = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(mprotect), 1,
				       SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
	/* abort(): only to this process. */
	if (!err)
		err = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(tgkill), 1,
				       SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)getpid()));
	return err;
}

int confine_filter_load(const struct confine_filter *f)
{
	scmp_filter_ctx ctx;
	int err;

	if (CONFINE_SANITIZED)
		return 0;
	ctx = seccomp_init(SCMP_ACT_KILL_PROCESS);
	if (!ctx)
		return -ENOMEM;
	err = add_common(ctx);
	for (size_t i = 0; i < f->count && !err; i++)
		err = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, f->calls[i], 0);
	if (!err && f->add)
		err = f->add(ctx, f->arg);
	if (!err && f->all_threads)
		err = seccomp_attr_set(ctx, SCMP_FLTATR_CTL_TSYNC, 1);
	if (!err)
		err = seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2);
	if (!err)
		err = seccomp_load(ctx);
	seccomp_release(ctx);
	/* An idle container's memory: what the filter took is not needed again. */
	malloc_trim(0);
	return err;
}
