/* syscalls/sys_futex.c - futex, futex_waitv, futex_wake, futex_wait, futex_requeue; robust lists; membarrier, rseq. */
#include "syscalls/syscalls.h"

#include <linux/futex.h>
#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "sentry/futex.h"
#include "sentry/timers.h"
#include "syscalls/util.h"

#define FUTEX_LOCK_PI2_ 13
#define FUTEX2_SIZE_U32_ 2u
#define FUTEX2_PRIVATE_ 128u
#define ANY 0xffffffffu

/* An absolute or relative guest timespec as a CLOCK_MONOTONIC deadline. */
static int futex_deadline(struct task *t, uint64_t uts, bool absolute, int clock, int64_t *ret)
{
	struct moat_timespec ts;
	int64_t ns;

	*ret = TIME_FOREVER;
	if (!uts)
		return 0;
	if (task_copy_in(t, &ts, uts, sizeof(ts)))
		return -EFAULT;
	if (ts.sec < 0 || ts.nsec < 0 || ts.nsec >= 1000000000)
		return -EINVAL;
	if (ts.sec >= INT64_MAX / 1000000000)
		return 0;
	ns = ts.sec * 1000000000 + ts.nsec;
	*ret = absolute ? clock_to_monotonic(clock, ns) : sys_deadline_after(ns);
	return 0;
}

static int64_t futex_wait_restart(struct task *t)
{
	int64_t ret = futex_op_wait(t, t->restart.futex.uaddr, t->restart.futex.flags,
				    t->restart.futex.val, t->restart.futex.bitset,
				    t->restart.futex.deadline);

	if (ret != -EINTR)
		return ret;
	t->restart_fn = futex_wait_restart;
	return -ERESTART_RESTARTBLOCK_;
}

/* A relative timeout must not start anew after a signal: restart_syscall goes on with the deadline. */
static int64_t wait_op(struct task *t, uint64_t uaddr, unsigned flags, uint32_t val,
		       uint32_t bitset, int64_t deadline)
{
	int64_t ret = futex_op_wait(t, uaddr, flags, val, bitset, deadline);

	if (ret != -EINTR)
		return ret;
	if (deadline == TIME_FOREVER)
		return -ERESTARTSYS_;
	t->restart.futex.uaddr = uaddr;
	t->restart.futex.flags = flags;
	t->restart.futex.val = val;
	t->restart.futex.bitset = bitset;
	t->restart.futex.deadline = deadline;
	t->restart_fn = futex_wait_restart;
	return -ERESTART_RESTARTBLOCK_;
}

static bool op_has_timeout(int cmd)
{
	switch (cmd) {
	case FUTEX_WAIT:
	case FUTEX_LOCK_PI:
	case FUTEX_LOCK_PI2_:
	case FUTEX_WAIT_BITSET:
	case FUTEX_WAIT_REQUEUE_PI:
		return true;
	default:
		return false;
	}
}

int64_t sys_futex(struct task *t, const struct syscall_args *a)
{
	uint64_t uaddr = a->a[0], uaddr2 = a->a[4];
	int op = ARG_INT(1), cmd = op & FUTEX_CMD_MASK;
	unsigned flags = op & FUTEX_PRIVATE_FLAG ? 0 : FUTEX_F_SHARED;
	uint32_t val = ARG_UINT(2), val3 = ARG_UINT(5);
	int val2 = ARG_INT(3);
	int clock = op & FUTEX_CLOCK_REALTIME ? CLOCK_REALTIME : CLOCK_MONOTONIC;
	int64_t deadline = TIME_FOREVER;
	int err;

	if ((op & FUTEX_CLOCK_REALTIME) && cmd != FUTEX_WAIT_BITSET &&
	    cmd != FUTEX_WAIT_REQUEUE_PI && cmd != FUTEX_LOCK_PI2_)
		return -ENOSYS;
	if (cmd == FUTEX_LOCK_PI)
		clock = CLOCK_REALTIME;
	if (op_has_timeout(cmd)) {
		err = futex_deadline(t, a->a[3], cmd != FUTEX_WAIT, clock, &deadline);
		if (err)
			return err;
	}
	switch (cmd) {
	case FUTEX_WAIT:
		return wait_op(t, uaddr, flags, val, ANY, deadline);
	case FUTEX_WAIT_BITSET:
		return wait_op(t, uaddr, flags, val, val3, deadline);
	case FUTEX_WAKE:
		return futex_op_wake(t, uaddr, flags, (int)val, ANY);
	case FUTEX_WAKE_BITSET:
		return futex_op_wake(t, uaddr, flags, (int)val, val3);
	case FUTEX_REQUEUE:
		return futex_op_requeue(t, uaddr, flags, (int)val, val2, uaddr2, NULL);
	case FUTEX_CMP_REQUEUE:
		return futex_op_requeue(t, uaddr, flags, (int)val, val2, uaddr2, &val3);
	case FUTEX_WAKE_OP:
		return futex_op_wake_op(t, uaddr, flags, (int)val, val2, uaddr2, val3);
	case FUTEX_LOCK_PI:
	case FUTEX_LOCK_PI2_:
		return futex_op_lock_pi(t, uaddr, flags, deadline, false);
	case FUTEX_TRYLOCK_PI:
		return futex_op_lock_pi(t, uaddr, flags, deadline, true);
	case FUTEX_UNLOCK_PI:
		return futex_op_unlock_pi(t, uaddr, flags);
	case FUTEX_WAIT_REQUEUE_PI:
		return futex_op_wait_requeue_pi(t, uaddr, flags, val, ANY, deadline, uaddr2);
	case FUTEX_CMP_REQUEUE_PI:
		return futex_op_cmp_requeue_pi(t, uaddr, flags, (int)val, val2, uaddr2, val3);
	default:
		return -ENOSYS;
	}
}

static bool futex2_flags_ok(uint32_t flags)
{
	return !(flags & ~(FUTEX2_PRIVATE_ | FUTEX2_SIZE_U32_)) && (flags & 3) == FUTEX2_SIZE_U32_;
}

int64_t sys_futex_waitv(struct task *t, const struct syscall_args *a)
{
	struct futex_waitv_k v[FUTEX_WAITV_MAX_];
	unsigned count = ARG_UINT(1);
	int clock = ARG_INT(4);
	int64_t deadline, ret;
	int err;

	if (ARG_UINT(2) || !count || count > FUTEX_WAITV_MAX_ || !a->a[0])
		return -EINVAL;
	if (a->a[3] && clock != CLOCK_REALTIME && clock != CLOCK_MONOTONIC)
		return -EINVAL;
	err = futex_deadline(t, a->a[3], true, clock, &deadline);
	if (err)
		return err;
	if (task_copy_in(t, v, a->a[0], count * sizeof(v[0])))
		return -EFAULT;
	for (unsigned i = 0; i < count; i++)
		if (!futex2_flags_ok(v[i].flags) || v[i].reserved || v[i].val >> 32)
			return -EINVAL;
	ret = futex_op_waitv(t, v, count, deadline);
	return ret == -EINTR ? (a->a[3] ? -EINTR : -ERESTARTSYS_) : ret;
}

int64_t sys_futex_wake(struct task *t, const struct syscall_args *a)
{
	uint32_t flags = ARG_UINT(3);

	if (!futex2_flags_ok(flags) || a->a[1] >> 32)
		return -EINVAL;
	return futex_op_wake(t, a->a[0], flags & FUTEX2_PRIVATE_ ? 0 : FUTEX_F_SHARED, ARG_INT(2),
			     ARG_UINT(1));
}

int64_t sys_futex_wait(struct task *t, const struct syscall_args *a)
{
	uint32_t flags = ARG_UINT(3);
	int clock = ARG_INT(5);
	int64_t deadline, ret;
	int err;

	if (!futex2_flags_ok(flags) || a->a[1] >> 32 || a->a[2] >> 32)
		return -EINVAL;
	if (a->a[4] && clock != CLOCK_REALTIME && clock != CLOCK_MONOTONIC)
		return -EINVAL;
	err = futex_deadline(t, a->a[4], true, clock, &deadline);
	if (err)
		return err;
	ret = futex_op_wait(t, a->a[0], flags & FUTEX2_PRIVATE_ ? 0 : FUTEX_F_SHARED, ARG_UINT(1),
			    ARG_UINT(2), deadline);
	return sys_restart(ret);
}

int64_t sys_futex_requeue(struct task *t, const struct syscall_args *a)
{
	struct futex_waitv_k v[2];
	uint32_t cmpval;

	if (ARG_UINT(1) || !a->a[0])
		return -EINVAL;
	if (task_copy_in(t, v, a->a[0], sizeof(v)))
		return -EFAULT;
	for (int i = 0; i < 2; i++)
		if (!futex2_flags_ok(v[i].flags) || v[i].reserved || v[i].val >> 32)
			return -EINVAL;
	if ((v[0].flags ^ v[1].flags) & FUTEX2_PRIVATE_)
		return -EINVAL; /* one kind of key for both */
	cmpval = (uint32_t)v[0].val;
	return futex_op_requeue(t, v[0].uaddr, v[0].flags & FUTEX2_PRIVATE_ ? 0 : FUTEX_F_SHARED,
				ARG_INT(2), ARG_INT(3), v[1].uaddr, &cmpval);
}

/* ---- robust lists ---- */

int64_t sys_set_robust_list(struct task *t, const struct syscall_args *a)
{
	if (a->a[1] != 24) /* sizeof(struct robust_list_head) */
		return -EINVAL;
	__atomic_store_n(&t->robust_list, a->a[0], __ATOMIC_RELAXED); /* others look */
	return 0;
}

int64_t sys_get_robust_list(struct task *t, const struct syscall_args *a)
{
	uint64_t size = 24, head = t->robust_list;
	struct task *other;

	if (ARG_INT(0) && ARG_INT(0) != t->vtid) {
		other = task_find_v(t, ARG_INT(0));
		if (!other)
			return -ESRCH;
		if (!task_may_access(t, other)) {
			task_unref(other);
			return -EPERM;
		}
		head = __atomic_load_n(&other->robust_list, __ATOMIC_RELAXED);
		task_unref(other);
	}
	if (task_copy_out(t, a->a[2], &size, sizeof(size)))
		return -EFAULT;
	return task_copy_out(t, a->a[1], &head, sizeof(head));
}

/* ---- membarrier ---- */

#define MEMBARRIER_SUPPORTED                                                                      \
	(MEMBARRIER_CMD_GLOBAL | MEMBARRIER_CMD_GLOBAL_EXPEDITED |                                \
	 MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED | MEMBARRIER_CMD_PRIVATE_EXPEDITED |            \
	 MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED | MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE | \
	 MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE)

/*
 * The threads of all applications are threads of this process, in the guest or not: the host's own expedited barrier reaches the CPUs that
 * run them, and leaving and entering the guest serialises.
 */
static int64_t host_barrier(void)
{
	static _Atomic bool registered;

	if (!atomic_load(&registered)) {
		if (syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0))
			return -EINVAL;
		atomic_store(&registered, true);
	}
	return syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) ? -EINVAL : 0;
}

int64_t sys_membarrier(struct task *t, const struct syscall_args *a)
{
	_Atomic uint32_t *reg = &t->group->membarrier;
	int cmd = ARG_INT(0);

	if (ARG_UINT(1))
		return -EINVAL;
	switch (cmd) {
	case MEMBARRIER_CMD_QUERY:
		return MEMBARRIER_SUPPORTED;
	case MEMBARRIER_CMD_GLOBAL:
	case MEMBARRIER_CMD_GLOBAL_EXPEDITED:
		return host_barrier();
	case MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED:
	case MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED:
	case MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE:
		atomic_fetch_or(reg, (uint32_t)cmd);
		return 0;
	case MEMBARRIER_CMD_PRIVATE_EXPEDITED:
		return atomic_load(reg) & MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED ? host_barrier()
										    : -EPERM;
	case MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE:
		return atomic_load(reg) & MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE
			       ? host_barrier()
			       : -EPERM;
	default:
		return -EINVAL;
	}
}
