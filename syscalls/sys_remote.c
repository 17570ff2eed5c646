/* syscalls/sys_remote.c - calls that reach into another process: process_vm_*, process_madvise, kcmp. */
#include <linux/kcmp.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "base/hash.h"
#include "sentry/pidfd.h"
#include "syscalls/syscalls.h"
#include "syscalls/util.h"

#define CAP_SYS_PTRACE_ 19
#define CAP_SYS_NICE_ 23
#define REMOTE_CHUNK 16384u

/* __ptrace_may_access with PTRACE_MODE_REALCREDS: same ids throughout and dumpable, or the capability. */
static bool may_access(struct task *t, struct task *other)
{
	struct cred *oc;
	bool ok;

	if (t->group == other->group)
		return true;
	oc = task_get_cred(other);
	ok = (t->cred->uid == oc->euid && t->cred->uid == oc->suid && t->cred->uid == oc->uid &&
	      t->cred->gid == oc->egid && t->cred->gid == oc->sgid && t->cred->gid == oc->gid &&
	      !(oc->cap_permitted & ~t->cred->cap_permitted) &&
	      atomic_load_explicit(&other->group->dumpable, memory_order_relaxed) == 1) ||
	     cred_has_cap(t->cred, CAP_SYS_PTRACE_);
	cred_unref(oc);
	return ok;
}

/* ---- process_vm_readv, process_vm_writev ---- */

/* One remote range against the local iterator. Return: bytes moved; short at a fault on either side. */
static uint64_t move_range(struct mm *mm, uint64_t addr, uint64_t size, struct io_iter *it,
			   void *buf, bool is_write)
{
	uint64_t done = 0;

	while (done < size && it->remaining) {
		size_t n = MIN(size - done, (uint64_t)REMOTE_CHUNK), got;

		n = MIN(n, it->remaining);
		if (is_write) {
			n = io_iter_get(it, buf, n);
			got = mm_copy_remote(mm, addr + done, buf, n, true);
		} else {
			n = mm_copy_remote(mm, addr + done, buf, n, false);
			got = io_iter_put(it, buf, n);
		}
		done += got;
		if (!got || got < n || it->error)
			break;
	}
	return done;
}

static int64_t move_all(struct mm *mm, struct io_iter *it, const struct iovec *riov, uint64_t count,
			bool is_write)
{
	uint64_t total = 0, n;
	void *buf = malloc(REMOTE_CHUNK);

	if (!buf)
		return -ENOMEM;
	for (uint64_t i = 0; i < count && it->remaining; i++) {
		uint64_t want = MIN((uint64_t)riov[i].iov_len, it->remaining);

		n = move_range(mm, (uint64_t)riov[i].iov_base, want, it, buf, is_write);
		total += n;
		if (n < want) {
			if (!total)
				total = (uint64_t)-EFAULT;
			break;
		}
	}
	free(buf);
	return (int64_t)total;
}

static int64_t process_vm(struct task *t, const struct syscall_args *a, bool is_write)
{
	struct iovec lfast[SYS_IOV_FAST], rfast[SYS_IOV_FAST], *liov, *riov;
	struct task *other;
	struct io_iter it;
	struct mm *mm;
	int64_t ret;

	if (a->a[5])
		return -EINVAL;
	ret = sys_iov_get(t, a->a[1], a->a[2], lfast, &liov);
	if (ret < 0)
		return ret;
	if (!ret)
		goto out_local;
	ret = sys_iov_get(t, a->a[3], a->a[4], rfast, &riov);
	if (ret < 0)
		goto out_local;
	if (!ret)
		goto out_remote;
	other = task_find_v(t, ARG_INT(0));
	ret = -ESRCH;
	if (!other)
		goto out_remote;
	mm = task_get_mm(other);
	if (!mm)
		goto out_task;
	ret = -EPERM;
	if (may_access(t, other)) {
		mm_iter_init(t->mm, &it, liov, (unsigned)a->a[2], !is_write);
		ret = move_all(mm, &it, riov, a->a[4], is_write);
		io_iter_fini(&it);
	}
	mm_unref(mm);
out_task:
	task_unref(other);
out_remote:
	sys_iov_free(rfast, riov);
out_local:
	sys_iov_free(lfast, liov);
	return ret;
}

int64_t sys_process_vm_readv(struct task *t, const struct syscall_args *a)
{
	return process_vm(t, a, false);
}

int64_t sys_process_vm_writev(struct task *t, const struct syscall_args *a)
{
	return process_vm(t, a, true);
}

/* ---- process_madvise ---- */

static bool remote_advice(int advice)
{
	return advice == MADV_COLD || advice == MADV_PAGEOUT || advice == MADV_WILLNEED ||
	       advice == 25 /* MADV_COLLAPSE */;
}

int64_t sys_process_madvise(struct task *t, const struct syscall_args *a)
{
	struct iovec fast[SYS_IOV_FAST], *iov;
	struct thread_group *g = NULL;
	struct task *leader = NULL;
	struct mm *mm = NULL;
	struct file *f;
	int32_t tid;
	int64_t ret, done = 0;

	if (a->a[4])
		return -EINVAL;
	ret = sys_iov_get(t, a->a[1], a->a[2], fast, &iov);
	if (ret < 0)
		return ret;
	f = sys_fd(t, ARG_INT(0));
	ret = -EBADF;
	if (f)
		g = pidfd_group(f, &tid);
	if (!g)
		goto out_unref;
	leader = group_leader(g);
	ret = -ESRCH;
	if (leader)
		mm = task_get_mm(leader);
	if (!mm)
		goto out_unref;
	ret = -EINVAL;
	if (mm != t->mm && !remote_advice(ARG_INT(3)))
		goto out_unref;
	ret = -EPERM;
	if (!may_access(t, leader) || (mm != t->mm && !cred_has_cap(t->cred, CAP_SYS_NICE_)))
		goto out_unref;
	ret = 0;
	for (uint64_t i = 0; i < a->a[2] && !ret; i++) {
		ret = mm_advise(mm, (uint64_t)iov[i].iov_base, iov[i].iov_len, ARG_INT(3));
		if (!ret)
			done += (int64_t)iov[i].iov_len;
	}
	if (done)
		ret = done;
out_unref:
	if (mm)
		mm_unref(mm);
	if (leader)
		task_unref(leader);
	if (g)
		group_unref(g);
	if (f)
		file_unref(f);
	sys_iov_free(fast, iov);
	return ret;
}

/* ---- kcmp ---- */

/* 0 equal, 1 less, 2 greater: an order that tells nothing of addresses. */
static int64_t order(uint64_t x, uint64_t y)
{
	uint64_t hx = hash_u64(x), hy = hash_u64(y);

	return x == y ? 0 : hx < hy ? 1 : 2;
}

static int64_t kcmp_file(struct task *t1, struct task *t2, int fd1, int fd2)
{
	struct fd_table *ft1 = task_get_fdtable(t1), *ft2 = task_get_fdtable(t2);
	struct file *f1 = ft1 ? fd_get(ft1, fd1) : NULL;
	struct file *f2 = ft2 ? fd_get(ft2, fd2) : NULL;
	int64_t ret = f1 && f2 ? order(f1->id, f2->id) : -EBADF;

	if (f1)
		file_unref(f1);
	if (f2)
		file_unref(f2);
	if (ft1)
		fd_table_unref(ft1);
	if (ft2)
		fd_table_unref(ft2);
	return ret;
}

int64_t sys_kcmp(struct task *t, const struct syscall_args *a)
{
	struct task *t1 = task_find_v(t, ARG_INT(0)), *t2 = task_find_v(t, ARG_INT(1));
	int64_t ret = -ESRCH;

	if (!t1 || !t2)
		goto out_unref;
	ret = -EPERM;
	if (!may_access(t, t1) || !may_access(t, t2))
		goto out_unref;
	switch (ARG_INT(2)) {
	case KCMP_FILE:
		ret = kcmp_file(t1, t2, ARG_INT(3), ARG_INT(4));
		break;
	/* Identities only: the pointers are not followed. */
	case KCMP_VM:
		ret = order((uintptr_t)t1->mm, (uintptr_t)t2->mm);
		break;
	case KCMP_FILES:
		ret = order((uintptr_t)t1->fdtable, (uintptr_t)t2->fdtable);
		break;
	case KCMP_FS:
		ret = order((uintptr_t)t1->fsctx, (uintptr_t)t2->fsctx);
		break;
	case KCMP_SIGHAND:
		ret = order((uintptr_t)atomic_load(&t1->group->sighand),
			    (uintptr_t)atomic_load(&t2->group->sighand));
		break;
	case KCMP_SYSVSEM:
		ret = order((uintptr_t)t1->sem_undo, (uintptr_t)t2->sem_undo);
		break;
	/* No task has an I/O context, as on Linux where none set an I/O priority. */
	case KCMP_IO:
		ret = 0;
		break;
	default:
		ret = -EINVAL;
	}
out_unref:
	if (t1)
		task_unref(t1);
	if (t2)
		task_unref(t2);
	return ret;
}
