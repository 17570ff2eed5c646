/* sentry/ptrace_requests.c - ptrace(2)'s requests: registers, memory, signals and options of a stopped tracee, resuming, attaching. */
#include <linux/audit.h>
#include <linux/elf.h>
#include <sys/uio.h>
#include <sys/user.h>

#include "sentry/ptrace_internal.h"

/* ---- requests on a stopped tracee; its sighand lock is held ---- */

#define REGS_SIZE sizeof(struct user_regs_struct)
#define PEEK_BATCH 16 /* of PTRACE_PEEKSIGINFO, under one hold of the lock */

static int set_regs(struct task *t, const struct user_regs_struct *new)
{
	struct user_regs_struct *r = &t->regs.r;

	if (new->fs_base >= ARCH_TASK_SIZE || new->gs_base >= ARCH_TASK_SIZE)
		return -EIO;
	*r = *new;
	r->eflags = (new->eflags &(ARCH_EFLAGS_USER & ~RF_FLAG)) | ARCH_EFLAGS_FIXED;
	r->cs = ARCH_USER_CS;
	r->ss = ARCH_USER_SS;
	return 0;
}

static void resume_locked(struct task *t, enum ptrace_resume mode, int signo)
{
	struct ptrace_state *p = t->ptrace;

	p->mode = mode;
	p->resume_signo = signo;
	if (mode == RESUME_STEP || mode == RESUME_SYSEMU_STEP)
		t->regs.r.eflags |= ARCH_EFLAGS_TF;
	else
		t->regs.r.eflags &= ~ARCH_EFLAGS_TF;
	p->stopped = p->news = false;
	sleeper_wake(&t->sleeper);
}

/* PTRACE_GETREGSET/SETREGSET: the register bytes of a note, in a buffer of the caller's. */
static int regset_find(struct task *t, uint64_t note, void **ret_data, size_t *ret_size)
{
	switch (note) {
	case NT_PRSTATUS:
		*ret_data = &t->regs.r;
		*ret_size = REGS_SIZE;
		return 0;
	case NT_PRFPREG:
		*ret_data = t->ptrace->fpu;
		*ret_size = sizeof(struct user_fpregs_struct);
		return 0;
	case NT_X86_XSTATE:
		*ret_data = t->ptrace->fpu;
		*ret_size = t->ptrace->fpu_size;
		return 0;
	default:
		return -EINVAL;
	}
}

/* Registers and FPU of the stopped tracee to a buffer, or from it. */
static int regset_copy(struct task *t, uint64_t note, void *buf, size_t *inout_size, bool write)
{
	struct sighand *sh = sighand_lock(t->group);
	struct user_regs_struct regs;
	size_t size;
	void *data;
	int err = -ESRCH;

	if (!t->ptrace || !t->ptrace->stopped)
		goto out;
	err = regset_find(t, note, &data, &size);
	if (err)
		goto out;
	*inout_size = MIN(*inout_size, size);
	if (!write) {
		memcpy(buf, data, *inout_size);
	} else if (note == NT_PRSTATUS) {
		regs = t->regs.r;
		memcpy(&regs, buf, *inout_size);
		err = set_regs(t, &regs);
	} else {
		memcpy(data, buf, *inout_size);
		t->ptrace->fpu_changed = true;
	}
out:
	sighand_unlock(sh);
	return err;
}

#define REGSET_MAX (16ul << 10)

static int64_t request_regset(struct task *t, struct task *target, uint64_t note, uint64_t uaddr,
			      size_t *inout_size, bool write)
{
	size_t size = MIN(*inout_size, REGSET_MAX);
	uint8_t *buf = calloc(1, REGSET_MAX);
	int err = -ENOMEM;

	if (!buf)
		return err;
	if (write && task_copy_in(t, buf, uaddr, size)) {
		err = -EFAULT;
		goto out;
	}
	err = regset_copy(target, note, buf, &size, write);
	if (!err && !write && task_copy_out(t, uaddr, buf, size))
		err = -EFAULT;
	*inout_size = size;
out:
	free(buf);
	return err;
}

static int64_t request_regset_iov(struct task *t, struct task *target, uint64_t note, uint64_t uiov,
				  bool write)
{
	struct {
		uint64_t base, len;
	} iov;
	size_t size;
	int64_t err;

	if (task_copy_in(t, &iov, uiov, sizeof(iov)))
		return -EFAULT;
	/* Whole registers; those of any note are of that size. */
	if (iov.len % sizeof(uint64_t))
		return -EINVAL;
	size = iov.len;
	err = request_regset(t, target, note, iov.base, &size, write);
	if (err)
		return err;
	iov.len = size;
	return task_copy_out(t, uiov, &iov, sizeof(iov));
}

static int64_t request_memory(struct task *t, struct task *target, uint64_t addr, uint64_t data,
			      bool write)
{
	struct mm *mm = task_get_mm(target);
	uint64_t word = data;
	size_t n;

	if (!mm)
		return -ESRCH;
	n = mm_access_remote(mm, addr, &word, sizeof(word), write);
	mm_unref(mm);
	if (n != sizeof(word))
		return -EIO;
	return write ? 0 : task_copy_out(t, data, &word, sizeof(word));
}

/* PEEKUSER and POKEUSER: struct user; only the registers are really there. */
static int64_t request_user(struct task *t, struct task *target, uint64_t off, uint64_t data,
			    bool write)
{
	struct user_regs_struct regs;
	size_t size = sizeof(regs);
	uint64_t word = 0;
	int err;

	if ((off & 7) || off > sizeof(struct user) - 8)
		return -EIO;
	err = regset_copy(target, NT_PRSTATUS, &regs, &size, false);
	if (err)
		return err;
	if (off < REGS_SIZE) {
		if (write) {
			memcpy((char *)&regs + off, &data, sizeof(data));
			return regset_copy(target, NT_PRSTATUS, &regs, &size, true);
		}
		memcpy(&word, (char *)&regs + off, sizeof(word));
	} else if (write) {
		/* Debug registers may be cleared, not set. */
		return data ? -EIO : 0;
	}
	return task_copy_out(t, data, &word, sizeof(word));
}

static int64_t request_siginfo(struct task *t, struct task *target, uint64_t uaddr, bool write)
{
	struct moat_siginfo info;
	struct sighand *sh;
	int err = 0;

	if (write && task_copy_in(t, &info, uaddr, sizeof(info)))
		return -EFAULT;
	sh = sighand_lock(target->group);
	if (!target->ptrace || !target->ptrace->stopped)
		err = -ESRCH;
	else if (write)
		target->ptrace->info = info;
	else
		info = target->ptrace->info;
	sighand_unlock(sh);
	if (err || write)
		return err;
	return task_copy_out(t, uaddr, &info, sizeof(info));
}

/* What of the queue comes behind `skip` entries. Its lock held. Return: how many. */
static unsigned peek_batch(const struct sigpending *pending, uint64_t skip, unsigned max,
			   struct moat_siginfo *ret)
{
	struct sigqueue_entry *e;
	unsigned n = 0;

	TAILQ_FOREACH (e, &pending->queue, link) {
		if (n == max)
			break;
		if (skip)
			skip--;
		else
			ret[n++] = e->info;
	}
	return n;
}

/* PTRACE_PEEKSIGINFO: the infos of what is queued for the thread or, with SHARED, for its process. Nothing is taken. */
static int64_t request_peek_siginfo(struct task *t, struct task *target, uint64_t uargs,
				    uint64_t uaddr)
{
	struct moat_siginfo batch[PEEK_BATCH];
	struct ptrace_peeksiginfo_args args;
	int64_t done = 0;

	if (task_copy_in(t, &args, uargs, sizeof(args)))
		return -EFAULT;
	if ((args.flags & ~(uint32_t)PTRACE_PEEKSIGINFO_SHARED) || args.nr < 0)
		return -EINVAL;
	while (done < args.nr && !atomic_load(&t->fatal_pending)) {
		bool shared = args.flags & PTRACE_PEEKSIGINFO_SHARED;
		struct sighand *sh = sighand_lock(target->group);
		unsigned n = peek_batch(shared ? &target->group->pending : &target->pending,
					args.off + (uint64_t)done,
					(unsigned)MIN(args.nr - done, PEEK_BATCH), batch);

		sighand_unlock(sh);
		if (n && task_copy_out(t, uaddr + (uint64_t)done * sizeof(batch[0]), batch,
				       n * sizeof(batch[0])))
			return done ? done : -EFAULT;
		done += n;
		if (n < PEEK_BATCH)
			break;
	}
	return done;
}

static int64_t request_message(struct task *t, struct task *target, uint64_t uaddr)
{
	struct sighand *sh = sighand_lock(target->group);
	uint64_t message = target->ptrace ? target->ptrace->message : 0;

	sighand_unlock(sh);
	return task_copy_out(t, uaddr, &message, sizeof(message));
}

static int64_t request_sigmask(struct task *t, struct task *target, uint64_t size, uint64_t uaddr,
			       bool write)
{
	struct sighand *sh;
	uint64_t mask = 0;
	int err = 0;

	if (size != sizeof(mask))
		return -EINVAL;
	if (write && task_copy_in(t, &mask, uaddr, sizeof(mask)))
		return -EFAULT;
	sh = sighand_lock(target->group);
	if (!target->ptrace || !target->ptrace->stopped)
		err = -ESRCH;
	else if (write)
		target->blocked = mask & ~SIGMASK_UNBLOCKABLE;
	else
		mask = target->blocked;
	sighand_unlock(sh);
	return err || write ? err : task_copy_out(t, uaddr, &mask, sizeof(mask));
}

static int64_t request_syscall_info(struct task *t, struct task *target, uint64_t size,
				    uint64_t uaddr)
{
	struct ptrace_syscall_info si = {.arch = AUDIT_ARCH_X86_64};
	const struct user_regs_struct *r = &target->regs.r;
	size_t full = offsetof(struct ptrace_syscall_info, entry);
	struct sighand *sh = sighand_lock(target->group);
	uint64_t message = 0;

	/* Let go since the caller looked: its registers are its own. */
	if (!target->ptrace || !target->ptrace->stopped) {
		sighand_unlock(sh);
		return -ESRCH;
	}
	si.op = target->ptrace->syscall_op;
	message = target->ptrace->message;
	si.instruction_pointer = r->rip;
	si.stack_pointer = r->rsp;
	if (si.op == PTRACE_SYSCALL_INFO_ENTRY || si.op == PTRACE_SYSCALL_INFO_SECCOMP) {
		const uint64_t args[6] = {r->rdi, r->rsi, r->rdx, r->r10, r->r8, r->r9};

		si.entry.nr = r->orig_rax;
		memcpy(si.entry.args, args, sizeof(args));
		full += sizeof(si.entry);
		if (si.op == PTRACE_SYSCALL_INFO_SECCOMP) {
			si.seccomp.ret_data = (uint32_t)message;
			full = offsetof(struct ptrace_syscall_info, seccomp) + sizeof(si.seccomp);
		}
	} else if (si.op == PTRACE_SYSCALL_INFO_EXIT) {
		si.exit.rval = (int64_t)r->rax;
		si.exit.is_error = si.exit.rval < 0 && si.exit.rval >= -4095;
		full += sizeof(si.exit);
	}
	sighand_unlock(sh);
	if (task_copy_out(t, uaddr, &si, MIN(size, full)))
		return -EFAULT;
	return (int64_t)full;
}

static int64_t request_resume(struct task *target, enum ptrace_resume mode, uint64_t signo)
{
	struct sighand *sh;
	int err = -ESRCH;

	if (signo > SIG_COUNT)
		return -EIO;
	sh = sighand_lock(target->group);
	if (target->ptrace && target->ptrace->stopped) {
		resume_locked(target, mode, (int)signo);
		err = 0;
	}
	sighand_unlock(sh);
	return err;
}

static int64_t request_detach(struct task *target, uint64_t signo)
{
	struct sighand *sh;
	int err = -ESRCH;

	if (signo > SIG_COUNT)
		return -EIO;
	rwlock_write_lock(&kernel.taskset_lock);
	sh = sighand_lock(target->group);
	if (target->ptrace && target->ptrace->stopped) {
		target->ptrace->resume_signo = (int)signo;
		ptrace_end_locked(target);
		err = 0;
	}
	sighand_unlock(sh);
	rwlock_write_unlock(&kernel.taskset_lock);
	return err;
}

static int64_t request_options(struct task *target, uint64_t options)
{
	struct sighand *sh;

	if (options & ~(uint64_t)PTRACE_OPTIONS_ALL)
		return -EINVAL;
	sh = sighand_lock(target->group);
	if (target->ptrace)
		target->ptrace->options = (uint32_t)options;
	sighand_unlock(sh);
	return 0;
}

static int64_t request_interrupt(struct task *target)
{
	struct sighand *sh = sighand_lock(target->group);
	int err = -EIO;

	if (target->ptrace && target->ptrace->seized) {
		err = 0;
		if (!target->ptrace->stopped) {
			target->ptrace->interrupt = true;
			signal_wake_task(target, false);
		}
	}
	sighand_unlock(sh);
	return err;
}

static int64_t request_listen(struct task *target)
{
	struct sighand *sh = sighand_lock(target->group);
	int err = -EIO;

	if (target->ptrace && target->ptrace->seized && target->ptrace->stopped &&
	    target->ptrace->stop_code >> 8 == EVENT_STOP) {
		target->ptrace->listening = true;
		err = 0;
	}
	sighand_unlock(sh);
	return err;
}

/* ---- making a tracee ---- */

static int64_t request_attach(struct task *t, struct task *target, bool seize, uint64_t options)
{
	struct sighand *sh;
	int err = -EPERM;

	if (target->group == t->group)
		return -EPERM;
	if (!task_may_access(t, target))
		return -EPERM;
	if (seize && (options & ~(uint64_t)PTRACE_OPTIONS_ALL))
		return -EIO;
	rwlock_write_lock(&kernel.taskset_lock);
	sh = sighand_lock(target->group);
	if (target->linked && atomic_load(&target->state) != TASK_ZOMBIE)
		err = ptrace_begin_locked(target, t->group, seize, seize ? (uint32_t)options : 0);
	sighand_unlock(sh);
	rwlock_write_unlock(&kernel.taskset_lock);
	if (!err && !seize)
		(void)signal_send_task_kernel(target, SIGSTOP);
	return err;
}

static int64_t request_traceme(struct task *t)
{
	struct sighand *sh;
	int err = -EPERM;

	rwlock_write_lock(&kernel.taskset_lock);
	sh = sighand_lock(t->group);
	if (t->group->parent)
		err = ptrace_begin_locked(t, t->group->parent, false, 0);
	sighand_unlock(sh);
	rwlock_write_unlock(&kernel.taskset_lock);
	return err;
}

/* The target is ours, and stopped unless the request works without. */
static int check_tracee(struct task *t, struct task *target, bool any_state)
{
	struct sighand *sh = sighand_lock(target->group);
	int err = -ESRCH;

	if (target->ptrace && target->ptrace->tracer == t->group &&
	    (any_state || target->ptrace->stopped))
		err = 0;
	sighand_unlock(sh);
	return err;
}

static int64_t request_registers(struct task *t, struct task *target, int request, uint64_t data)
{
	bool fp = request == PTRACE_GETFPREGS || request == PTRACE_SETFPREGS;
	bool write = request == PTRACE_SETREGS || request == PTRACE_SETFPREGS;
	size_t size = fp ? sizeof(struct user_fpregs_struct) : REGS_SIZE;

	return request_regset(t, target, fp ? NT_PRFPREG : NT_PRSTATUS, data, &size, write);
}

static int64_t request_stopped(struct task *t, struct task *target, int request, uint64_t addr,
			       uint64_t data)
{
	switch (request) {
	case PTRACE_PEEKTEXT:
	case PTRACE_PEEKDATA:
		return request_memory(t, target, addr, data, false);
	case PTRACE_POKETEXT:
	case PTRACE_POKEDATA:
		return request_memory(t, target, addr, data, true);
	case PTRACE_PEEKUSR:
		return request_user(t, target, addr, data, false);
	case PTRACE_POKEUSR:
		return request_user(t, target, addr, data, true);
	case PTRACE_GETREGS:
	case PTRACE_SETREGS:
	case PTRACE_GETFPREGS:
	case PTRACE_SETFPREGS:
		return request_registers(t, target, request, data);
	case PTRACE_GETREGSET:
		return request_regset_iov(t, target, addr, data, false);
	case PTRACE_SETREGSET:
		return request_regset_iov(t, target, addr, data, true);
	case PTRACE_GETSIGINFO:
		return request_siginfo(t, target, data, false);
	case PTRACE_SETSIGINFO:
		return request_siginfo(t, target, data, true);
	case PTRACE_PEEKSIGINFO:
		return request_peek_siginfo(t, target, addr, data);
	case PTRACE_GETSIGMASK:
		return request_sigmask(t, target, addr, data, false);
	case PTRACE_SETSIGMASK:
		return request_sigmask(t, target, addr, data, true);
	case PTRACE_GETEVENTMSG:
		return request_message(t, target, data);
	case PTRACE_GET_SYSCALL_INFO:
		return request_syscall_info(t, target, addr, data);
	case PTRACE_SETOPTIONS:
		return request_options(target, data);
	case PTRACE_CONT:
		return request_resume(target, RESUME_CONT, data);
	case PTRACE_SYSCALL:
		return request_resume(target, RESUME_SYSCALL, data);
	case PTRACE_SINGLESTEP:
		return request_resume(target, RESUME_STEP, data);
	case PTRACE_SYSEMU:
		return request_resume(target, RESUME_SYSEMU, data);
	case PTRACE_SYSEMU_SINGLESTEP:
		return request_resume(target, RESUME_SYSEMU_STEP, data);
	case PTRACE_DETACH:
		return request_detach(target, data);
	case PTRACE_LISTEN:
		return request_listen(target);
	default:
		return -EIO;
	}
}

int64_t ptrace_request(struct task *t, int request, int32_t tid, uint64_t addr, uint64_t data)
{
	struct task *target;
	int64_t ret;

	if (request == PTRACE_TRACEME)
		return request_traceme(t);
	target = task_find_v(t, tid);
	if (!target)
		return -ESRCH;
	if (request == PTRACE_ATTACH || request == PTRACE_SEIZE) {
		ret = addr && request == PTRACE_SEIZE
			      ? -EIO
			      : request_attach(t, target, request == PTRACE_SEIZE, data);
		goto out;
	}
	ret = check_tracee(t, target, request == PTRACE_KILL || request == PTRACE_INTERRUPT);
	if (ret)
		goto out;
	if (request == PTRACE_KILL)
		ret = signal_send_group_kernel(target->group, SIGKILL);
	else if (request == PTRACE_INTERRUPT)
		ret = request_interrupt(target);
	else
		ret = request_stopped(t, target, request, addr, data);
out:
	task_unref(target);
	return ret;
}
