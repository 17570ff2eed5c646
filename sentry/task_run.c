/*
 * sentry/task_run.c - the life of a task thread: run the application, serve the event, deliver signals.
 */
#include "mem/memfile.h"
#include "sentry/ptrace.h"
#include "sentry/task_internal.h"

#define VSYSCALL_BASE 0xffffffffff600000ull
#define VSYSCALL_SIZE 4096ull
/* For memory that is on its way back to the host; then it goes on all the same. */
#define DRAIN_WAIT_NS 100000000ll

/* x86 exception vectors. */
enum {
	VECTOR_DE = 0,
	VECTOR_DB = 1,
	VECTOR_BP = 3,
	VECTOR_OF = 4,
	VECTOR_BR = 5,
	VECTOR_UD = 6,
	VECTOR_NM = 7,
	VECTOR_TS = 10,
	VECTOR_NP = 11,
	VECTOR_SS = 12,
	VECTOR_GP = 13,
	VECTOR_PF = 14,
	VECTOR_MF = 16,
	VECTOR_AC = 17,
	VECTOR_XM = 19,
};

#define PF_ERR_PRESENT 1u
#define PF_ERR_WRITE 2u
#define PF_ERR_USER 4u
#define PF_ERR_FETCH 16u

static void force_fault(struct task *t, int signo, int code, uint64_t addr)
{
	struct moat_siginfo info = {.si_signo = signo, .si_code = code};

	info.fault.addr = addr;
	signal_force(t, &info);
}

/* ---- vsyscall: three fixed addresses that old binaries call ---- */

static bool vsyscall_serve(struct task *t)
{
	static const int calls[3] = {96 /* gettimeofday */, 201 /* time */, 309 /* getcpu */};
	struct user_regs_struct *r = &t->regs.r;
	uint64_t off = r->rip - VSYSCALL_BASE, ret_addr;

	if (off >= VSYSCALL_SIZE || (off & 0x3ff) || off >> 10 >= ARRAY_SIZE(calls))
		return false;
	if (task_copy_in(t, &ret_addr, r->rsp, sizeof(ret_addr)))
		return false;
	r->rax = (uint64_t)calls[off >> 10];
	kernel.dispatch(t);
	r->orig_rax = (unsigned long long)-1;
	r->rip = ret_addr;
	r->rsp += 8;
	return true;
}

/* ---- faults ---- */

static void task_page_fault(struct task *t, const struct platform_event *ev)
{
	int signo = SIGSEGV, code = SEGV_MAPERR, err;
	uint64_t rip = t->regs.r.rip;

	if (unlikely(ev->addr - VSYSCALL_BASE < VSYSCALL_SIZE && ev->access == MEM_EXEC &&
		     rip == ev->addr) &&
	    vsyscall_serve(t))
		return;
	if (ev->addr < ARCH_TASK_SIZE) {
		err = mm_fault(t->mm, ev->addr, ev->access, &signo, &code);
		atomic_fetch_add_explicit(&t->minflt, 1, memory_order_relaxed);
		if (likely(!err))
			return;
		if (err == -EINTR)
			return; /* the signal is looked at next */
		if (err == -ENOMEM) {
			log_info("tasks: pid %d killed: no memory for a page", t->group->tgid);
			signal_force_fatal(t, SIGKILL);
			return;
		}
	}
	t->fault_trapno = VECTOR_PF;
	t->fault_cr2 = ev->addr;
	t->fault_err = ev->error_code;
	if (!t->fault_err)
		t->fault_err = (ev->present ? PF_ERR_PRESENT : 0) |
			       (ev->access == MEM_WRITE ? PF_ERR_WRITE : 0) |
			       (ev->access == MEM_EXEC ? PF_ERR_FETCH : 0) | PF_ERR_USER;
	force_fault(t, signo, code, ev->addr);
}

/* si_code of a floating-point exception, from the status that the FPU image holds. */
static int fpe_code(struct task *t, uint32_t vector)
{
	size_t size = kernel.platform->ops->fpu_size(kernel.platform);
	uint8_t *buf = calloc(1, size < 512 ? 512 : size);
	uint16_t cwd, swd, err;
	uint32_t mxcsr;

	if (!buf)
		return FPE_FLTINV;
	if (kernel.platform->ops->fpu_get(t->ctx, buf, size) < 0) {
		free(buf);
		return FPE_FLTINV;
	}
	memcpy(&cwd, buf, 2);
	memcpy(&swd, buf + 2, 2);
	memcpy(&mxcsr, buf + 24, 4);
	free(buf);
	if (vector == VECTOR_MF)
		err = swd & ~cwd;
	else
		err = (uint16_t)(~(mxcsr >> 7) & mxcsr);
	if (err & 0x01)
		return FPE_FLTINV;
	if (err & 0x04)
		return FPE_FLTDIV;
	if (err & 0x08)
		return FPE_FLTOVF;
	if (err & 0x12)
		return FPE_FLTUND;
	return err & 0x20 ? FPE_FLTRES : 0;
}

static void task_exception(struct task *t, const struct platform_event *ev)
{
	uint64_t rip = t->regs.r.rip;
	int code;

	t->fault_trapno = ev->vector;
	t->fault_err = ev->error_code;
	switch (ev->vector) {
	case VECTOR_DE:
		force_fault(t, SIGFPE, FPE_INTDIV, rip);
		break;
	case VECTOR_DB:
		force_fault(t, SIGTRAP, TRAP_TRACE, rip);
		break;
	case VECTOR_BP:
		force_fault(t, SIGTRAP, SI_KERNEL, 0);
		break;
	case VECTOR_UD:
		force_fault(t, SIGILL, ILL_ILLOPN, rip);
		break;
	case VECTOR_NP:
	case VECTOR_SS:
		force_fault(t, SIGBUS, SI_KERNEL, 0);
		break;
	case VECTOR_AC:
		force_fault(t, SIGBUS, BUS_ADRALN, 0);
		break;
	case VECTOR_MF:
	case VECTOR_XM:
		code = fpe_code(t, ev->vector);
		/* No unmasked flag is set: a spurious exception, as Linux ignores it. */
		if (code)
			force_fault(t, SIGFPE, code, rip);
		break;
	default: /* #OF #BR #TS #GP and what should not reach the application */
		force_fault(t, SIGSEGV, SI_KERNEL, 0);
		break;
	}
}

/* ---- the loop ---- */

/* app_since_ns is set while the application runs, so that others see time that has not been added yet. */
static void task_account_enter(struct task *t, int64_t now)
{
	atomic_store_explicit(&t->app_since_ns, now, memory_order_relaxed);
}

static void task_account_leave(struct task *t)
{
	int64_t spent =
		time_monotonic_ns() - atomic_load_explicit(&t->app_since_ns, memory_order_relaxed);
	int64_t sum = atomic_load_explicit(&t->app_ns, memory_order_relaxed) + spent;

	atomic_store_explicit(&t->app_since_ns, 0, memory_order_relaxed);
	atomic_store_explicit(&t->app_ns, sum, memory_order_relaxed);
}

/* The mask of a ppoll, pselect or epoll_pwait that was not interrupted ends with the call: before delivery looks. */
static void task_end_temp_mask(struct task *t)
{
	int64_t rax = (int64_t)t->regs.r.rax;

	if (rax == -EINTR || (rax <= -ERESTARTSYS_ && rax >= -ERESTART_RESTARTBLOCK_))
		return;
	t->restore_saved_blocked = false;
	signal_set_blocked(t, t->saved_blocked);
}

static bool is_restart(uint64_t rax)
{
	return (int64_t)rax <= -ERESTARTSYS_ && (int64_t)rax >= -ERESTART_RESTARTBLOCK_;
}

static void task_syscall(struct task *t)
{
	t->syscall_nr = (int64_t)t->regs.r.rax;
	kernel.dispatch(t);
	t->syscall_nr = -1;
	if (unlikely(t->restore_saved_blocked))
		task_end_temp_mask(t);
	if (unlikely(is_restart(t->regs.r.rax) || t->restore_saved_blocked) && !t->exiting)
		signal_deliver(t, true);
}

static void task_no_resources(struct task *t, int err)
{
	log_warn("tasks: pid %d killed: the platform cannot run it: %s", t->group->tgid,
		 strerror(-err));
	signal_force_fatal(t, SIGKILL);
}

static bool is_frozen(struct task *t)
{
	return unlikely(atomic_load_explicit(&task_cgroups_frozen, memory_order_relaxed)) &&
	       atomic_load_explicit(&t->group->cgroup->frozen, memory_order_relaxed);
}

/* One turn in the application. Return: an event was got. */
static bool task_switch(struct task *t, struct platform_event *ev)
{
	int err;

	/* Pairs with task_leave_app(): see there. */
	atomic_exchange_explicit(&t->in_app, 1, memory_order_acq_rel);
	if (unlikely(signal_pending(t) || is_frozen(t))) {
		atomic_store_explicit(&t->in_app, 0, memory_order_release);
		return false;
	}
	task_account_enter(t, time_monotonic_ns());
	err = kernel.platform->ops->context_switch(t->ctx, mm_address_space(t->mm), &t->regs, ev);
	atomic_store_explicit(&t->in_app, 0, memory_order_release);
	task_account_leave(t);
	if (unlikely(err)) {
		task_no_resources(t, err);
		return false;
	}
	return true;
}

static void task_serve(struct task *t, const struct platform_event *ev)
{
	bool syscall = ev->kind == PLATFORM_SYSCALL;

	if (!syscall)
		t->regs.r.orig_rax = (unsigned long long)-1;
	switch (ev->kind) {
	case PLATFORM_SYSCALL:
		task_syscall(t);
		break;
	case PLATFORM_FAULT:
		task_page_fault(t, ev);
		break;
	case PLATFORM_EXCEPTION:
		task_exception(t, ev);
		break;
	case PLATFORM_INTERRUPTED:
		atomic_fetch_add_explicit(&t->nivcsw, 1, memory_order_relaxed);
		break;
	}
}

void task_run(struct task *t)
{
	struct platform_event *ev = &t->event;
	bool in_syscall = false;

	/* CLONE_CHILD_SETTID: in the child's memory, before it runs. A bad address is no error. */
	if (t->set_child_tid)
		(void)!task_copy_out(t, t->set_child_tid, &t->vtid, sizeof(t->vtid));
	if (unlikely(t->exec_refused))
		exec_end_refused(t);
	while (!t->exiting) {
		vfs_run_deferred();
		if (unlikely(signal_pending(t))) {
			signal_deliver(t, in_syscall);
			in_syscall = false;
			continue;
		}
		/* Not who is to die: that may be enough. */
		if (unlikely(atomic_load_explicit(&mem_accounts_over, memory_order_relaxed)))
			oom_serve(t);
		if (unlikely(mem_hurried))
			mem_wait_drained(time_monotonic_ns() + DRAIN_WAIT_NS);
		if (unlikely(is_frozen(t))) {
			task_cgroup_rest(t);
			continue;
		}
		if (!task_switch(t, ev))
			continue;
		task_serve(t, ev);
		in_syscall = ev->kind == PLATFORM_SYSCALL;
	}
	task_do_exit(t);
}

bool task_should_interrupt(struct task *t)
{
	return signal_pending(t);
}
