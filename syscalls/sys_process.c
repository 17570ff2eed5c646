/* syscalls/sys_process.c - fork, exec, exit, wait; process ids, groups and sessions; pidfds; namespaces that exist. */
#include "syscalls/syscalls.h"

#include <limits.h>
#include <linux/sched.h>
#include <stdio.h>
#include <sys/wait.h>

#include "sentry/cgroup_tree.h"
#include "sentry/fs/fs.h"
#include "sentry/nsfs.h"
#include "sentry/pidfd.h"
#include "syscalls/util.h"

#define EXEC_ARGS_BYTES_MAX (6ul << 20) /* of argv and envp, as Linux's cap of 3/4 of 8 MiB */
#define EXEC_ARG_STRLEN_MAX (32 * MOAT_PAGE_SIZE)
#define AT_SYMLINK_NOFOLLOW_ 0x100
#define AT_EMPTY_PATH_ 0x1000
#define CLONE_ARGS_SIZE_VER0_ 64
#define CLONE_ARGS_SIZE_VER2_ 88

/* ---- clone ---- */

int64_t sys_fork(struct task *t, const struct syscall_args *a unused_arg)
{
	struct clone_args_k args = {.exit_signal = SIGCHLD};

	return task_clone(t, &args);
}

int64_t sys_vfork(struct task *t, const struct syscall_args *a unused_arg)
{
	struct clone_args_k args = {.flags = CLONE_VFORK | CLONE_VM, .exit_signal = SIGCHLD};

	return task_clone(t, &args);
}

int64_t sys_clone(struct task *t, const struct syscall_args *a)
{
	struct clone_args_k args = {
		.flags = (uint32_t)a->a[0] & ~(uint32_t)CSIGNAL,
		.exit_signal = (int)(a->a[0] & CSIGNAL),
		.stack = a->a[1],
		.parent_tid = a->a[2],
		.pidfd = a->a[2],
		.child_tid = a->a[3],
		.tls = a->a[4],
	};

	/* Both would be written to the same place. */
	if ((args.flags & CLONE_PIDFD) && (args.flags & CLONE_PARENT_SETTID))
		return -EINVAL;
	if (args.flags & CLONE_THREAD)
		args.exit_signal = 0;
	return task_clone(t, &args);
}

/* CLONE_INTO_CGROUP: fd is the group's directory. */
static int64_t clone_into(struct task *t, struct clone_args_k *args, int fd)
{
	struct file *f = sys_fd_raw(t, fd); /* O_PATH will do: clone(2) */
	int64_t ret;

	if (!f)
		return -EBADF;
	ret = cgroup_group_of_dir(f, t->cred, &args->group);
	file_unref(f);
	if (ret)
		return ret;
	/* Threads of one process are in one group. */
	if ((args->flags & CLONE_THREAD) && !cgroup_group_has(args->group, t->group))
		ret = -EOPNOTSUPP;
	else
		ret = task_clone(t, args);
	cgroup_group_unref(args->group);
	return ret;
}

int64_t sys_clone3(struct task *t, const struct syscall_args *a)
{
	struct clone_args ca = {0};
	struct clone_args_k args;
	int32_t set_tid[PID_NS_LEVEL_MAX];
	int err;

	if (a->a[1] > MOAT_PAGE_SIZE)
		return -E2BIG;
	if (a->a[1] < CLONE_ARGS_SIZE_VER0_)
		return -EINVAL;
	err = sys_copy_struct_in(t, &ca, sizeof(ca), a->a[0], a->a[1]);
	if (err)
		return err;
	if (ca.set_tid_size > PID_NS_LEVEL_MAX || (!ca.set_tid && ca.set_tid_size) ||
	    (ca.set_tid && !ca.set_tid_size))
		return -EINVAL;
	if ((ca.exit_signal & ~(uint64_t)CSIGNAL) || ca.exit_signal > SIG_COUNT)
		return -EINVAL;
	if ((ca.flags & CLONE_INTO_CGROUP) &&
	    (ca.cgroup > INT_MAX || a->a[1] < CLONE_ARGS_SIZE_VER2_))
		return -EINVAL;
	if (ca.set_tid_size &&
	    task_copy_in(t, set_tid, ca.set_tid, ca.set_tid_size * sizeof(set_tid[0])))
		return -EFAULT;
	if (ca.set_tid_size && !cred_has_cap(t->cred, 40 /* CAP_CHECKPOINT_RESTORE */) &&
	    !cred_has_cap(t->cred, 21))
		return -EPERM;
	if (ca.flags & ~(0xffffffffull | CLONE_CLEAR_SIGHAND | CLONE_INTO_CGROUP))
		return -EINVAL;
	if (ca.flags & (CLONE_DETACHED | (CSIGNAL & ~(uint64_t)CLONE_NEWTIME)))
		return -EINVAL;
	if ((ca.flags & (CLONE_SIGHAND | CLONE_CLEAR_SIGHAND)) ==
	    (CLONE_SIGHAND | CLONE_CLEAR_SIGHAND))
		return -EINVAL;
	if ((ca.flags & (CLONE_THREAD | CLONE_PARENT)) && ca.exit_signal)
		return -EINVAL;
	if ((!ca.stack && ca.stack_size) ||
	    (ca.stack && (!ca.stack_size || !sys_range_ok(ca.stack, ca.stack_size))))
		return -EINVAL;
	args = (struct clone_args_k){
		.flags = ca.flags,
		.pidfd = ca.pidfd,
		.child_tid = ca.child_tid,
		.parent_tid = ca.parent_tid,
		.stack = ca.stack,
		.stack_size = ca.stack_size,
		.tls = ca.tls,
		.exit_signal = (int)ca.exit_signal,
		.set_tid = set_tid,
		.set_tid_size = ca.set_tid_size,
	};
	return ca.flags & CLONE_INTO_CGROUP ? clone_into(t, &args, (int)ca.cgroup)
					    : task_clone(t, &args);
}

/* ---- execve ---- */

struct exec_strings {
	char **v;
	size_t count, alloc;
};

static void exec_strings_free(struct exec_strings *s)
{
	for (size_t i = 0; i < s->count; i++)
		free(s->v[i]);
	free(s->v);
}

static int exec_strings_add(struct exec_strings *s, char *str)
{
	if (s->count + 1 >= s->alloc) {
		size_t alloc = s->alloc ? s->alloc * 2 : 32;
		char **v = realloc(s->v, alloc * sizeof(*v));

		if (!v)
			return -ENOMEM;
		s->v = v;
		s->alloc = alloc;
	}
	s->v[s->count++] = str;
	s->v[s->count] = NULL;
	return 0;
}

/* One array of strings. `left` bounds strings and pointers together, of argv and envp. */
static int exec_strings_get(struct task *t, uint64_t uvec, struct exec_strings *s, size_t *left,
			    char *buf)
{
	uint64_t ptr;
	ssize_t len;
	char *copy;

	*s = (struct exec_strings){0};
	s->v = calloc(1, sizeof(*s->v));
	if (!s->v)
		return -ENOMEM;
	s->alloc = 1;
	for (; uvec; uvec += sizeof(ptr)) {
		if (task_copy_in(t, &ptr, uvec, sizeof(ptr)))
			return -EFAULT;
		if (!ptr)
			break;
		len = mm_copy_in_string(t->mm, buf, ptr, EXEC_ARG_STRLEN_MAX);
		if (len == -ENAMETOOLONG)
			return -E2BIG;
		if (len < 0)
			return (int)len;
		if ((size_t)len + 1 + sizeof(ptr) > *left)
			return -E2BIG;
		*left -= (size_t)len + 1 + sizeof(ptr);
		copy = malloc((size_t)len + 1);
		if (!copy)
			return -ENOMEM;
		memcpy(copy, buf, (size_t)len + 1);
		if (exec_strings_add(s, copy)) {
			free(copy);
			return -ENOMEM;
		}
		if (signal_pending(t) && atomic_load(&t->fatal_pending))
			return -ERESTARTNOHAND_;
	}
	return 0;
}

static size_t exec_args_limit(struct task *t)
{
	uint64_t limit = task_rlimit(t, RLIMIT_STACK) / 4;

	limit = MIN(limit, EXEC_ARGS_BYTES_MAX);
	return (size_t)MAX(limit, 32 * MOAT_PAGE_SIZE);
}

/* What the program sees as AT_EXECFN: of execveat on a descriptor, a name that leads to it. */
static void exec_name(int dirfd, const struct sys_path *p, char *buf, size_t size)
{
	if (p->path[0] == '/' || (dirfd == SYS_AT_FDCWD && p->path[0]))
		snprintf(buf, size, "%s", p->path);
	else if (!p->path[0])
		snprintf(buf, size, "/dev/fd/%d", dirfd);
	else
		snprintf(buf, size, "/dev/fd/%d/%s", dirfd, p->path);
}

static int exec_open_file(struct task *t, int dirfd, uint64_t upath, int flags, char *name,
			  size_t size, struct file **ret)
{
	struct open_args oa = {.flags = O_RDONLY, .exec = true};
	unsigned lookup = 0;
	struct sys_path *p;
	int err;

	if (!(flags & AT_SYMLINK_NOFOLLOW_))
		lookup |= LOOKUP_FOLLOW;
	if (flags & AT_EMPTY_PATH_)
		lookup |= LOOKUP_EMPTY;
	p = malloc(sizeof(*p));
	if (!p)
		return -ENOMEM;
	err = sys_path_get(t, dirfd, upath, lookup, p);
	if (err)
		goto out_free;
	err = vfs_open(&p->lk, &oa, ret);
	if (!err)
		exec_name(dirfd, p, name, size);
	sys_path_put(p);
out_free:
	free(p);
	return err;
}

static int64_t exec_common(struct task *t, int dirfd, uint64_t upath, uint64_t uargv,
			   uint64_t uenvp, int flags)
{
	struct exec_strings argv = {0}, envp = {0};
	size_t left = exec_args_limit(t);
	char name[VFS_PATH_MAX + 32];
	struct file *exe = NULL;
	char *buf;
	int64_t ret;

	if (flags & ~(AT_SYMLINK_NOFOLLOW_ | AT_EMPTY_PATH_))
		return -EINVAL;
	buf = malloc(EXEC_ARG_STRLEN_MAX);
	if (!buf)
		return -ENOMEM;
	ret = exec_open_file(t, dirfd, upath, flags, name, sizeof(name), &exe);
	if (!ret)
		ret = exec_strings_get(t, uargv, &argv, &left, buf);
	if (!ret)
		ret = exec_strings_get(t, uenvp, &envp, &left, buf);
	/* Linux 5.18: no program runs with argc 0. */
	if (!ret && !argv.count) {
		char *empty = strdup("");

		ret = empty ? exec_strings_add(&argv, empty) : -ENOMEM;
		if (ret)
			free(empty);
	}
	free(buf);
	if (!ret)
		ret = task_execve(t, exe, name, argv.v, argv.count, envp.v, envp.count);
	exec_strings_free(&argv);
	exec_strings_free(&envp);
	if (exe)
		file_unref(exe);
	return ret;
}

int64_t sys_execve(struct task *t, const struct syscall_args *a)
{
	return exec_common(t, SYS_AT_FDCWD, a->a[0], a->a[1], a->a[2], 0);
}

int64_t sys_execveat(struct task *t, const struct syscall_args *a)
{
	return exec_common(t, ARG_INT(0), a->a[1], a->a[2], a->a[3], ARG_INT(4));
}

/* ---- exit ---- */

int64_t sys_exit(struct task *t, const struct syscall_args *a)
{
	task_exit(t, ARG_INT(0));
	return 0;
}

int64_t sys_exit_group(struct task *t, const struct syscall_args *a)
{
	task_group_exit(t->group, (ARG_INT(0) & 0xff) << 8);
	return 0;
}

/* ---- wait ---- */

struct moat_rusage {
	struct moat_timeval utime, stime;
	int64_t maxrss, ixrss, idrss, isrss, minflt, majflt, nswap, inblock, oublock, msgsnd,
		msgrcv, nsignals, nvcsw, nivcsw;
};

static int put_rusage(struct task *t, uint64_t uaddr, const struct task_times *times)
{
	struct moat_rusage ru = {
		.utime = {times->utime_ns / 1000000000, times->utime_ns % 1000000000 / 1000},
		.stime = {times->stime_ns / 1000000000, times->stime_ns % 1000000000 / 1000},
		.maxrss = (int64_t)times->maxrss_kib,
		.minflt = times->minflt,
		.majflt = times->majflt,
		.inblock = times->inblock,
		.oublock = times->oublock,
		.nvcsw = times->nvcsw,
		.nivcsw = times->nivcsw,
	};

	return uaddr ? task_copy_out(t, uaddr, &ru, sizeof(ru)) : 0;
}

int64_t sys_wait4(struct task *t, const struct syscall_args *a)
{
	int32_t pid = ARG_INT(0);
	struct task_wait_args args = {.idtype = P_PID, .id = pid, .options = ARG_INT(2) | WEXITED};
	struct task_wait_result res;
	int err;

	if ((unsigned)ARG_INT(2) &
	    ~(unsigned)(WNOHANG | WUNTRACED | WCONTINUED | __WNOTHREAD | __WCLONE | __WALL))
		return -EINVAL;
	if (pid == INT32_MIN)
		return -ESRCH;
	if (pid == -1) {
		args.idtype = P_ALL;
	} else if (pid < 0) {
		args.idtype = P_PGID;
		args.id = pid_root(t, -pid);
	} else if (!pid) {
		args.idtype = P_PGID;
		args.id = group_pgid(t->group);
	} else {
		args.id = pid_root(t, pid);
	}
	err = task_wait(t, &args, &res);
	if (err || !res.pid)
		return err;
	if (a->a[1] && task_copy_out(t, a->a[1], &res.wait_status, sizeof(int)))
		return -EFAULT;
	if (put_rusage(t, a->a[3], &res.times))
		return -EFAULT;
	return res.pid;
}

static int waitid_target(struct task *t, int idtype, int32_t id, struct task_wait_args *args)
{
	struct thread_group *g;
	struct file *f;

	args->idtype = idtype;
	args->id = id > 0 ? pid_root(t, id) : id;
	switch (idtype) {
	case P_ALL:
		return 0;
	case P_PID:
		return id > 0 ? 0 : -EINVAL;
	case P_PGID:
		if (id < 0)
			return -EINVAL;
		if (!id)
			args->id = group_pgid(t->group);
		return 0;
	case P_PIDFD:
		if (id < 0)
			return -EINVAL;
		f = sys_fd(t, id);
		if (!f)
			return -EBADF;
		g = pidfd_group(f, NULL);
		args->nonblock = g && (pidfd_flags(f) & O_NONBLOCK);
		file_unref(f);
		if (!g)
			return -EBADF;
		args->idtype = P_PID;
		args->id = g->tgid;
		group_unref(g);
		return 0;
	default:
		return -EINVAL;
	}
}

int64_t sys_waitid(struct task *t, const struct syscall_args *a)
{
	int options = ARG_INT(3);
	struct task_wait_args args = {.options = options};
	struct moat_siginfo info = {0};
	struct task_wait_result res;
	int err;

	if ((unsigned)options & ~(unsigned)(WNOHANG | WNOWAIT | WEXITED | WSTOPPED | WCONTINUED |
					    __WNOTHREAD | __WCLONE | __WALL))
		return -EINVAL;
	if (!(options & (WEXITED | WSTOPPED | WCONTINUED)))
		return -EINVAL;
	err = waitid_target(t, ARG_INT(0), ARG_INT(1), &args);
	if (err)
		return err;
	err = task_wait(t, &args, &res);
	if (err)
		return err;
	if (res.pid) {
		info.si_signo = SIGCHLD;
		info.si_code = res.code;
		info.chld.pid = res.pid;
		info.chld.uid = res.uid;
		info.chld.status = res.status;
		if (put_rusage(t, a->a[4], &res.times))
			return -EFAULT;
	}
	/* Linux fills signo, errno, code, pid, uid, status and nothing else. */
	if (a->a[2] && task_copy_out(t, a->a[2], &info, 32))
		return -EFAULT;
	return 0;
}

/* ---- ids ---- */

int64_t sys_getpid(struct task *t, const struct syscall_args *a unused_arg)
{
	return t->group->vtgid;
}

int64_t sys_gettid(struct task *t, const struct syscall_args *a unused_arg)
{
	return t->vtid;
}

int64_t sys_getppid(struct task *t, const struct syscall_args *a unused_arg)
{
	return pid_vnr(t, group_ppid(t->group));
}

int64_t sys_set_tid_address(struct task *t, const struct syscall_args *a)
{
	t->clear_child_tid = a->a[0];
	return t->vtid;
}

int64_t sys_setpgid(struct task *t, const struct syscall_args *a)
{
	int32_t pid = ARG_INT(0), pgid = ARG_INT(1);

	if (pgid < 0)
		return -EINVAL;
	if (pid) {
		pid = pid_root(t, pid);
		if (pid <= 0)
			return -ESRCH;
	}
	/* A number that nobody bears is no group of the session, which is told after the other errors. */
	if (pgid) {
		pgid = pid_root(t, pgid);
		if (!pgid)
			pgid = INT32_MAX;
	}
	return group_setpgid(t->group, pid, pgid);
}

int64_t sys_setsid(struct task *t, const struct syscall_args *a unused_arg)
{
	int32_t sid = group_setsid(t->group);

	return sid > 0 ? pid_vnr(t, sid) : sid;
}

static int64_t other_group_id(struct task *t, int32_t pid, int32_t (*get)(struct thread_group *g))
{
	struct task *other;
	int64_t id;

	if (!pid)
		return pid_vnr(t, get(t->group));
	other = task_find_v(t, pid);
	if (!other)
		return -ESRCH;
	id = get(other->group);
	task_unref(other);
	return id ? pid_vnr(t, (int32_t)id) : -ESRCH;
}

int64_t sys_getpgid(struct task *t, const struct syscall_args *a)
{
	return other_group_id(t, ARG_INT(0), group_pgid);
}

int64_t sys_getpgrp(struct task *t, const struct syscall_args *a unused_arg)
{
	return pid_vnr(t, group_pgid(t->group));
}

int64_t sys_getsid(struct task *t, const struct syscall_args *a)
{
	return other_group_id(t, ARG_INT(0), group_sid);
}

/* ---- pidfds ---- */

int64_t sys_pidfd_open(struct task *t, const struct syscall_args *a)
{
	unsigned flags = ARG_UINT(1);
	struct task *target;
	struct file *f;
	int err;

	if (flags & ~(unsigned)(O_NONBLOCK | O_EXCL))
		return -EINVAL;
	if (ARG_INT(0) <= 0)
		return -EINVAL;
	target = task_find_v(t, ARG_INT(0));
	if (!target)
		return -ESRCH;
	/* Without PIDFD_THREAD it must be a process's id. */
	err = -EINVAL;
	if (!(flags & O_EXCL) && target->tid != target->group->tgid)
		goto out_unref;
	err = pidfd_create_file(target, flags, &f);
	if (!err)
		err = sys_fd_install(t, f, true);
out_unref:
	task_unref(target);
	return err;
}

int64_t sys_pidfd_getfd(struct task *t, const struct syscall_args *a)
{
	struct fd_table *table = NULL;
	struct thread_group *g;
	struct task *target;
	struct file *f;
	int64_t ret;

	if (ARG_UINT(2))
		return -EINVAL;
	f = sys_fd(t, ARG_INT(0));
	if (!f)
		return -EBADF;
	g = pidfd_group(f, NULL);
	file_unref(f);
	if (!g)
		return -EBADF;
	target = group_leader(g);
	group_unref(g);
	if (!target)
		return -ESRCH;
	ret = -EPERM;
	if (!task_may_access(t, target))
		goto out_task;
	ret = -ESRCH;
	table = task_get_fdtable(target);
	if (!table)
		goto out_task;
	ret = -EBADF;
	f = fd_get(table, ARG_INT(1));
	if (f)
		ret = sys_fd_install(t, f, true);
	fd_table_unref(table);
out_task:
	task_unref(target);
	return ret;
}

/* ---- namespaces ---- */

int64_t sys_unshare(struct task *t, const struct syscall_args *a)
{
	return task_unshare(t, a->a[0]);
}

int64_t sys_setns(struct task *t, const struct syscall_args *a)
{
	struct file *f = sys_fd(t, ARG_INT(0));

	int err;

	if (!f)
		return -EBADF;
	err = task_setns(t, f, ARG_INT(1));
	file_unref(f);
	return err;
}
