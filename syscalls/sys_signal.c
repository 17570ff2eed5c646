/* syscalls/sys_signal.c - signals: actions, masks, sending, waiting. */
#include "syscalls/syscalls.h"

#include <signal.h>

#include "sentry/fs/fs.h"
#include "sentry/pidfd.h"
#include "syscalls/util.h"

#define SIGSETSIZE 8
#define MINSIGSTKSZ_ 2048
#define SS_ONSTACK_ 1
#define SS_DISABLE_ 2
#define SS_AUTODISARM_ (1u << 31)
#define SA_SUPPORTED                                                                             \
	(SA_NOCLDSTOP | SA_NOCLDWAIT | SA_SIGINFO | 0x800ull /* EXPOSE_TAGBITS */ | SA_ONSTACK | \
	 SA_RESTART | SA_NODEFER | (uint64_t)(uint32_t)SA_RESETHAND |                            \
	 0x04000000ull /* RESTORER */)

/* ---- actions and masks ---- */

int64_t sys_rt_sigaction(struct task *t, const struct syscall_args *a)
{
	struct moat_sigaction act, old;
	int err;

	if (a->a[3] != SIGSETSIZE)
		return -EINVAL;
	if (a->a[1]) {
		if (task_copy_in(t, &act, a->a[1], sizeof(act)))
			return -EFAULT;
		/* Unknown flags are cleared, so that programs can find out which exist. */
		act.flags &= SA_SUPPORTED;
	}
	err = signal_action(t, ARG_INT(0), a->a[1] ? &act : NULL, &old);
	if (err)
		return err;
	if (a->a[2] && task_copy_out(t, a->a[2], &old, sizeof(old)))
		return -EFAULT;
	return 0;
}

int64_t sys_rt_sigprocmask(struct task *t, const struct syscall_args *a)
{
	uint64_t old = t->blocked, set;

	if (a->a[3] != SIGSETSIZE)
		return -EINVAL;
	if (a->a[1]) {
		if (task_copy_in(t, &set, a->a[1], sizeof(set)))
			return -EFAULT;
		switch (ARG_INT(0)) {
		case SIG_BLOCK:
			signal_set_blocked(t, old | set);
			break;
		case SIG_UNBLOCK:
			signal_set_blocked(t, old & ~set);
			break;
		case SIG_SETMASK:
			signal_set_blocked(t, set);
			break;
		default:
			return -EINVAL;
		}
	}
	if (a->a[2] && task_copy_out(t, a->a[2], &old, sizeof(old)))
		return -EFAULT;
	return 0;
}

int64_t sys_rt_sigpending(struct task *t, const struct syscall_args *a)
{
	uint64_t set = signal_pending_set(t) & t->blocked;

	if (a->a[1] > SIGSETSIZE)
		return -EINVAL;
	return task_copy_out(t, a->a[0], &set, a->a[1]);
}

int64_t sys_rt_sigreturn(struct task *t, const struct syscall_args *a unused_arg)
{
	return signal_return(t);
}

int64_t sys_rt_sigsuspend(struct task *t, const struct syscall_args *a)
{
	uint64_t set;

	if (a->a[1] != SIGSETSIZE)
		return -EINVAL;
	if (task_copy_in(t, &set, a->a[0], sizeof(set)))
		return -EFAULT;
	signal_set_temp_mask(t, set);
	return sys_pause(t, a);
}

int64_t sys_pause(struct task *t, const struct syscall_args *a unused_arg)
{
	while (!sleeper_wait(&t->sleeper, SLEEP_INTERRUPTIBLE, TIME_FOREVER))
		;
	return -ERESTARTNOHAND_;
}

int64_t sys_rt_sigtimedwait(struct task *t, const struct syscall_args *a)
{
	struct moat_siginfo info;
	int64_t deadline;
	uint64_t set;
	bool zero;
	int ret;

	if (a->a[3] != SIGSETSIZE)
		return -EINVAL;
	if (task_copy_in(t, &set, a->a[0], sizeof(set)))
		return -EFAULT;
	ret = sys_timespec_deadline(t, a->a[2], &deadline, &zero);
	if (ret)
		return ret;
	ret = signal_timed_wait(t, set, zero ? 0 : deadline, &info);
	if (ret > 0 && a->a[1] && task_copy_out(t, a->a[1], &info, sizeof(info)))
		return -EFAULT;
	return ret;
}

/* ---- the alternate stack ---- */

struct moat_stack {
	uint64_t sp;
	uint32_t flags, pad;
	uint64_t size;
};

static uint32_t altstack_state(struct task *t)
{
	const struct sigaltstack_state *s = &t->altstack;
	uint64_t sp = t->regs.r.rsp;

	if (!s->size)
		return SS_DISABLE_;
	if (s->flags & SS_AUTODISARM_)
		return 0;
	return sp > s->sp && sp - s->sp <= s->size ? SS_ONSTACK_ : 0;
}

int64_t sys_sigaltstack(struct task *t, const struct syscall_args *a)
{
	struct moat_stack old = {.sp = t->altstack.sp, .size = t->altstack.size}, new;
	uint32_t mode;

	old.flags = altstack_state(t) | (t->altstack.flags & SS_AUTODISARM_);
	if (a->a[0]) {
		if (task_copy_in(t, &new, a->a[0], sizeof(new)))
			return -EFAULT;
		mode = new.flags & ~SS_AUTODISARM_;
		if (altstack_state(t) == SS_ONSTACK_)
			return -EPERM;
		if (mode != SS_DISABLE_ && mode != SS_ONSTACK_ && mode != 0)
			return -EINVAL;
		if (mode == SS_DISABLE_)
			new.size = new.sp = 0;
		else if (new.size < MINSIGSTKSZ_)
			return -ENOMEM;
		t->altstack = (struct sigaltstack_state){
			.sp = new.sp, .size = new.size, .flags = new.flags};
	}
	if (a->a[1] && task_copy_out(t, a->a[1], &old, sizeof(old)))
		return -EFAULT;
	return 0;
}

/* ---- sending ---- */

static void fill_sender(struct task *t, int signo, int code, struct moat_siginfo *info)
{
	*info = (struct moat_siginfo){.si_signo = signo, .si_code = code};
	info->rt.pid = t->group->vtgid;
	info->rt.uid = t->cred->uid;
}

static bool signo_ok(int signo)
{
	return signo >= 0 && signo <= SIG_COUNT;
}

/* kill's permission is asked of the group's leader, or whoever is left. */
static int send_group(struct task *t, struct thread_group *g, int signo,
		      const struct moat_siginfo *info)
{
	struct task *leader = group_leader(g);
	bool may;

	if (!leader)
		return -ESRCH;
	may = signal_may_send(t, leader, signo);
	task_unref(leader);
	if (!may)
		return -EPERM;
	return signo ? signal_send_group(g, info) : 0;
}

struct kill_many {
	int found, sent, err;
};

static void kill_one(struct task *t, struct thread_group *g, int signo,
		     const struct moat_siginfo *info, struct kill_many *k)
{
	int err = send_group(t, g, signo, info);

	k->found++;
	if (!err)
		k->sent++;
	else if (err != -EPERM || !k->err)
		k->err = err;
}

static int64_t kill_pgrp(struct task *t, int32_t pgid, int signo, const struct moat_siginfo *info)
{
	struct kill_many k = {0};
	struct thread_group *g;
	int32_t id = 1;

	if (!pgid)
		return -ESRCH; /* no such number in the caller's namespace */
	while ((g = group_next(&id))) {
		if (group_pgid(g) == pgid)
			kill_one(t, g, signo, info, &k);
		group_unref(g);
		id++;
	}
	if (!k.found)
		return -ESRCH;
	return k.sent ? 0 : k.err;
}

static int64_t kill_all(struct task *t, int signo, const struct moat_siginfo *info)
{
	struct pid_namespace *ns = t->group->pid_ns;
	struct kill_many k = {0};
	struct thread_group *g;
	int32_t id = 2; /* all of the namespace but its init and the caller */

	while ((g = group_next_in(ns, &id))) {
		if (g != t->group)
			kill_one(t, g, signo, info, &k);
		group_unref(g);
		id++;
	}
	if (!k.found)
		return -ESRCH;
	/* EPERM only is as good as success here. */
	return k.sent || k.err == -EPERM ? 0 : k.err;
}

/* A thread's id stands for its process. */
static int send_process(struct task *t, int32_t pid, int signo, const struct moat_siginfo *info)
{
	struct task *target = task_find_v(t, pid);
	struct thread_group *g;
	int ret;

	if (!target)
		return -ESRCH;
	g = target->group;
	group_ref(g);
	task_unref(target);
	ret = send_group(t, g, signo, info);
	group_unref(g);
	return ret;
}

int64_t sys_kill(struct task *t, const struct syscall_args *a)
{
	int32_t pid = ARG_INT(0);
	int signo = ARG_INT(1);
	struct moat_siginfo info;

	if (pid == INT32_MIN)
		return -ESRCH;
	if (!signo_ok(signo))
		return -EINVAL;
	fill_sender(t, signo, SI_USER, &info);
	if (pid == -1)
		return kill_all(t, signo, &info);
	if (pid <= 0)
		return kill_pgrp(t, pid ? pid_root(t, -pid) : group_pgid(t->group), signo, &info);
	return send_process(t, pid, signo, &info);
}

/* tid and tgid are root numbers; tgid 0: any. */
static int64_t send_thread(struct task *t, int32_t tgid, int32_t tid, int signo,
			   const struct moat_siginfo *info)
{
	struct task *target = task_find(tid);
	int64_t ret = -ESRCH;

	if (!target)
		return -ESRCH;
	if (tgid > 0 && target->group->tgid != tgid)
		goto out_unref;
	ret = -EPERM;
	if (!signal_may_send(t, target, signo))
		goto out_unref;
	ret = signo ? signal_send_task(target, info) : 0;
out_unref:
	task_unref(target);
	return ret;
}

/* The same by numbers as the caller sees them. */
static int64_t send_thread_v(struct task *t, int32_t vtgid, int32_t vtid, int signo,
			     const struct moat_siginfo *info)
{
	int32_t tgid = pid_root(t, vtgid), tid = pid_root(t, vtid);

	if (!tid || (vtgid && !tgid))
		return -ESRCH;
	return send_thread(t, tgid, tid, signo, info);
}

int64_t sys_tkill(struct task *t, const struct syscall_args *a)
{
	struct moat_siginfo info;

	if (ARG_INT(0) <= 0 || !signo_ok(ARG_INT(1)))
		return -EINVAL;
	fill_sender(t, ARG_INT(1), SI_TKILL, &info);
	return send_thread_v(t, 0, ARG_INT(0), ARG_INT(1), &info);
}

int64_t sys_tgkill(struct task *t, const struct syscall_args *a)
{
	struct moat_siginfo info;

	if (ARG_INT(0) <= 0 || ARG_INT(1) <= 0 || !signo_ok(ARG_INT(2)))
		return -EINVAL;
	fill_sender(t, ARG_INT(2), SI_TKILL, &info);
	return send_thread_v(t, ARG_INT(0), ARG_INT(1), ARG_INT(2), &info);
}

/* A siginfo of the caller's own making: not one that only the kernel or kill sends, unless to itself. */
static int queue_info_get(struct task *t, uint64_t uinfo, int signo, int32_t target,
			  struct moat_siginfo *info)
{
	if (task_copy_in(t, info, uinfo, sizeof(*info)))
		return -EFAULT;
	info->si_signo = signo;
	if (!signo_ok(signo))
		return -EINVAL;
	if ((info->si_code >= 0 || info->si_code == SI_TKILL) && target != t->group->vtgid)
		return -EPERM;
	return 0;
}

int64_t sys_rt_sigqueueinfo(struct task *t, const struct syscall_args *a)
{
	struct moat_siginfo info;
	int err;

	err = queue_info_get(t, a->a[2], ARG_INT(1), ARG_INT(0), &info);
	if (err)
		return err;
	if (ARG_INT(0) <= 0)
		return -ESRCH;
	return send_process(t, ARG_INT(0), ARG_INT(1), &info);
}

int64_t sys_rt_tgsigqueueinfo(struct task *t, const struct syscall_args *a)
{
	struct moat_siginfo info;
	int err;

	if (ARG_INT(0) <= 0 || ARG_INT(1) <= 0)
		return -EINVAL;
	err = queue_info_get(t, a->a[3], ARG_INT(2), ARG_INT(0), &info);
	if (err)
		return err;
	return send_thread_v(t, ARG_INT(0), ARG_INT(1), ARG_INT(2), &info);
}

int64_t sys_pidfd_send_signal(struct task *t, const struct syscall_args *a)
{
	int signo = ARG_INT(1);
	struct moat_siginfo info;
	struct thread_group *g;
	struct file *f;
	int32_t tid;
	int64_t ret;

	if (ARG_UINT(3))
		return -EINVAL;
	f = sys_fd(t, ARG_INT(0));
	if (!f)
		return -EBADF;
	tid = 0;
	g = pidfd_group(f, &tid);
	if (!g)
		g = procfs_file_group(f);
	file_unref(f);
	if (!g)
		return -EBADF;
	ret = -EINVAL;
	if (!signo_ok(signo))
		goto out_unref;
	fill_sender(t, signo, tid ? SI_TKILL : SI_USER, &info);
	if (a->a[2]) {
		if (task_copy_in(t, &info, a->a[2], sizeof(info))) {
			ret = -EFAULT;
			goto out_unref;
		}
		if (info.si_signo != signo)
			goto out_unref;
		ret = -EPERM;
		if ((info.si_code >= 0 || info.si_code == SI_TKILL) && g != t->group)
			goto out_unref;
	}
	ret = tid ? send_thread(t, g->tgid, tid, signo, &info) : send_group(t, g, signo, &info);
out_unref:
	group_unref(g);
	return ret;
}

int64_t sys_restart_syscall(struct task *t, const struct syscall_args *a unused_arg)
{
	int64_t (*fn)(struct task *) = t->restart_fn;

	t->restart_fn = NULL;
	return fn ? fn(t) : -EINTR;
}
