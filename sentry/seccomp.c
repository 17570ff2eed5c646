/*
 * sentry/seccomp.c - the guest's seccomp: strict mode and filters.
 *
 * A filter is classic BPF over struct seccomp_data, checked when it is installed as seccomp_check_filter() does, interpreted for
 * every call. The chain is walked newest first and the most restrictive answer wins. Filters are immutable, so a task reads its chain
 * without a lock; TSYNC changes a sibling's pointer while that sibling is in the application or blocked, under its LOCK_TASK, and
 * pushed-out chains stay referenced by the new one.
 */
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <time.h>

#include "sentry/mm.h"
#include "sentry/ptrace.h"
#include "sentry/seccomp.h"
#include "sentry/task_internal.h"

/* The vDSO's code is in its first pages. */
#define VDSO_TEXT_MAX 8192u

REF_TYPE(seccomp_ref_type, "seccomp filter");

struct seccomp_filter {
	struct ref ref;
	struct seccomp_filter *prev; /* immutable; a reference */
	unsigned count, total; /* instructions: own, and of the chain (plus 4 each) */
	bool log;
	struct seccomp_insn insns[];
};

void seccomp_filter_ref(struct seccomp_filter *f)
{
	ref_get(&f->ref);
}

void seccomp_filter_unref(struct seccomp_filter *f)
{
	while (f && ref_put(&f->ref)) {
		struct seccomp_filter *prev = f->prev;

		ref_fini(&f->ref, &seccomp_ref_type);
		free(f);
		f = prev;
	}
}

void seccomp_fork(struct task *parent, struct task *child)
{
	struct seccomp_filter *f = parent->seccomp;

	if (f)
		seccomp_filter_ref(f);
	child->seccomp = f;
	atomic_store(&child->seccomp_mode, atomic_load(&parent->seccomp_mode));
}

/* ---- checking a program ---- */

static bool insn_allowed(const struct seccomp_insn *i, unsigned pc, unsigned count)
{
	switch (i->code) {
	case BPF_LD | BPF_W | BPF_ABS:
		return i->k < sizeof(struct seccomp_data) && !(i->k & 3);
	case BPF_LD | BPF_W | BPF_LEN:
	case BPF_LDX | BPF_W | BPF_LEN:
	case BPF_RET | BPF_K:
	case BPF_RET | BPF_A:
	case BPF_LD | BPF_IMM:
	case BPF_LDX | BPF_IMM:
	case BPF_MISC | BPF_TAX:
	case BPF_MISC | BPF_TXA:
	case BPF_ALU | BPF_ADD | BPF_K:
	case BPF_ALU | BPF_ADD | BPF_X:
	case BPF_ALU | BPF_SUB | BPF_K:
	case BPF_ALU | BPF_SUB | BPF_X:
	case BPF_ALU | BPF_MUL | BPF_K:
	case BPF_ALU | BPF_MUL | BPF_X:
	case BPF_ALU | BPF_DIV | BPF_X:
	case BPF_ALU | BPF_AND | BPF_K:
	case BPF_ALU | BPF_AND | BPF_X:
	case BPF_ALU | BPF_OR | BPF_K:
	case BPF_ALU | BPF_OR | BPF_X:
	case BPF_ALU | BPF_XOR | BPF_K:
	case BPF_ALU | BPF_XOR | BPF_X:
	case BPF_ALU | BPF_LSH | BPF_X:
	case BPF_ALU | BPF_RSH | BPF_X:
	case BPF_ALU | BPF_NEG:
		return true;
	case BPF_ALU | BPF_DIV | BPF_K:
		return i->k != 0;
	case BPF_ALU | BPF_LSH | BPF_K:
	case BPF_ALU | BPF_RSH | BPF_K:
		return i->k < 32;
	case BPF_LD | BPF_MEM:
	case BPF_LDX | BPF_MEM:
	case BPF_ST:
	case BPF_STX:
		return i->k < BPF_MEMWORDS;
	case BPF_JMP | BPF_JA:
		return i->k < count - pc - 1;
	case BPF_JMP | BPF_JEQ | BPF_K:
	case BPF_JMP | BPF_JEQ | BPF_X:
	case BPF_JMP | BPF_JGE | BPF_K:
	case BPF_JMP | BPF_JGE | BPF_X:
	case BPF_JMP | BPF_JGT | BPF_K:
	case BPF_JMP | BPF_JGT | BPF_X:
	case BPF_JMP | BPF_JSET | BPF_K:
	case BPF_JMP | BPF_JSET | BPF_X:
		return pc + i->jt + 1u < count && pc + i->jf + 1u < count;
	default:
		return false;
	}
}

static bool program_ok(const struct seccomp_insn *insns, unsigned count)
{
	for (unsigned pc = 0; pc < count; pc++)
		if (!insn_allowed(&insns[pc], pc, count))
			return false;
	return BPF_CLASS(insns[count - 1].code) == BPF_RET;
}

/* ---- running one: jumps only go forward, so it ends ---- */

static uint32_t alu(unsigned op, uint32_t a, uint32_t b)
{
	switch (op) {
	case BPF_ADD:
		return a + b;
	case BPF_SUB:
		return a - b;
	case BPF_MUL:
		return a * b;
	case BPF_AND:
		return a & b;
	case BPF_OR:
		return a | b;
	case BPF_XOR:
		return a ^ b;
	case BPF_LSH:
		return b < 32 ? a << b : 0;
	case BPF_RSH:
		return b < 32 ? a >> b : 0;
	case BPF_NEG:
		return -a;
	default:
		return a / b; /* BPF_DIV: 0 was looked at */
	}
}

static bool jump_taken(unsigned op, uint32_t a, uint32_t b)
{
	switch (op) {
	case BPF_JEQ:
		return a == b;
	case BPF_JGT:
		return a > b;
	case BPF_JGE:
		return a >= b;
	default:
		return a & b; /* BPF_JSET */
	}
}

static uint32_t filter_run(const struct seccomp_filter *f, const struct seccomp_data *data)
{
	uint32_t a = 0, x = 0, mem[BPF_MEMWORDS] = {0}, word, src;
	const struct seccomp_insn *i;

	for (unsigned pc = 0; pc < f->count; pc++) {
		i = &f->insns[pc];
		src = BPF_SRC(i->code) == BPF_X ? x : i->k;
		switch (BPF_CLASS(i->code)) {
		case BPF_LD:
		case BPF_LDX:
			if (BPF_MODE(i->code) == BPF_ABS)
				memcpy(&word, (const char *)data + i->k, sizeof(word));
			else if (BPF_MODE(i->code) == BPF_LEN)
				word = sizeof(*data);
			else if (BPF_MODE(i->code) == BPF_MEM)
				word = mem[i->k];
			else
				word = i->k;
			*(BPF_CLASS(i->code) == BPF_LD ? &a : &x) = word;
			break;
		case BPF_ST:
			mem[i->k] = a;
			break;
		case BPF_STX:
			mem[i->k] = x;
			break;
		case BPF_ALU:
			if (BPF_OP(i->code) == BPF_DIV && !src)
				return 0; /* as Linux: the filter ends with 0, which kills */
			a = alu(BPF_OP(i->code), a, src);
			break;
		case BPF_JMP:
			if (BPF_OP(i->code) == BPF_JA)
				pc += i->k;
			else
				pc += jump_taken(BPF_OP(i->code), a, src) ? i->jt : i->jf;
			break;
		case BPF_RET:
			return BPF_RVAL(i->code) == BPF_A ? a : i->k;
		default: /* BPF_MISC */
			if (BPF_MISCOP(i->code) == BPF_TAX)
				x = a;
			else
				a = x;
			break;
		}
	}
	return SECCOMP_RET_KILL_PROCESS;
}

/* ---- before a call ---- */

static void sigsys(struct task *t, int64_t nr, int reason, bool kill)
{
	struct moat_siginfo info = {
		.si_signo = SIGSYS, .si_errno = reason, .si_code = 1 /* SYS_SECCOMP */};

	info.sys.call_addr = t->regs.r.rip;
	info.sys.syscall = (int32_t)nr;
	info.sys.arch = AUDIT_ARCH_X86_64;
	if (kill)
		signal_force_fatal(t, SIGSYS);
	else
		signal_force(t, &info);
}

/*
 * A question that Linux's vDSO answers without a call, and ours by one when its clock's line has ended (sentry/loader/vdso.c) or it does not
 * know: filters are not to see it. Whoever jumps there learns the time, and nothing else.
 */
static bool is_vdso_answer(struct task *t, int64_t nr, const struct syscall_args *a)
{
	struct mm_layout layout;

	switch (nr) {
	case 228: /* clock_gettime */
		if (a->a[0] > CLOCK_MONOTONIC_COARSE || !(1u << a->a[0] & 0x63))
			return false;
		break;
	case 96: /* gettimeofday */
	case 201: /* time */
	case 309: /* getcpu */
		break;
	default:
		return false;
	}
	mm_get_layout(t->mm, &layout);
	return layout.vdso && t->regs.r.rip - layout.vdso < VDSO_TEXT_MAX;
}

static bool strict_check(struct task *t, int64_t nr)
{
	if (nr == 0 || nr == 1 || nr == 60 || nr == 15) /* read, write, exit, rt_sigreturn */
		return true;
	task_thread_kill(t, SIGKILL);
	return false;
}

static bool apply(struct task *t, int64_t nr, uint32_t action, int64_t *ret_rax)
{
	int data = (int)(action & SECCOMP_RET_DATA);

	switch (action & SECCOMP_RET_ACTION_FULL) {
	case SECCOMP_RET_ALLOW:
	case SECCOMP_RET_LOG:
		return true;
	case SECCOMP_RET_ERRNO:
		*ret_rax = -(int64_t)MIN(data, 4095);
		return false;
	case SECCOMP_RET_TRAP:
		*ret_rax = nr; /* rax as at the call: a handler may emulate it */
		sigsys(t, nr, data, false);
		return false;
	case SECCOMP_RET_TRACE:
		*ret_rax = -ENOSYS;
		if (!ptrace_wants_event(t, 7 /* PTRACE_EVENT_SECCOMP */))
			return false;
		ptrace_event(t, 7, (uint64_t)data);
		return !t->exiting && (int64_t)t->regs.r.orig_rax >= 0;
	case SECCOMP_RET_USER_NOTIF:
		*ret_rax = -ENOSYS; /* no listener can be attached */
		return false;
	case SECCOMP_RET_KILL_THREAD:
		task_thread_kill(t, SIGSYS);
		return false;
	default:
		sigsys(t, nr, data, true);
		return false;
	}
}

bool seccomp_check(struct task *t, int64_t nr, const struct syscall_args *a, int64_t *ret_rax)
{
	struct seccomp_data data = {
		.nr = (int)nr, .arch = AUDIT_ARCH_X86_64, .instruction_pointer = t->regs.r.rip};
	uint32_t action = SECCOMP_RET_ALLOW, one;

	/* (In strict mode Linux forbids the counter that its vDSO reads.) */
	if (atomic_load_explicit(&t->seccomp_mode, memory_order_relaxed) == SECCOMP_MODE_STRICT)
		return strict_check(t, nr);
	if (unlikely(is_vdso_answer(t, nr, a)))
		return true;
	for (int i = 0; i < 6; i++)
		data.args[i] = a->a[i];
	for (struct seccomp_filter *f = t->seccomp; f; f = f->prev) {
		one = filter_run(f, &data);
		/* The action is signed: KILL_PROCESS is the lowest, and the lowest wins. */
		if ((int32_t)(one & SECCOMP_RET_ACTION_FULL) <
		    (int32_t)(action & SECCOMP_RET_ACTION_FULL))
			action = one;
	}
	return apply(t, nr, action, ret_rax);
}

/* ---- installing ---- */

/* Strict mode is an empty filter, so that dispatch has one thing to look at; seccomp_check() goes by the mode. */
int64_t seccomp_set_strict(struct task *t)
{
	struct seccomp_filter *f;

	if (atomic_load(&t->seccomp_mode) == SECCOMP_MODE_FILTER)
		return -EINVAL;
	if (t->seccomp)
		return 0;
	f = calloc(1, sizeof(*f));
	if (!f)
		return -ENOMEM;
	ref_init(&f->ref, &seccomp_ref_type);
	atomic_store(&t->seccomp_mode, SECCOMP_MODE_STRICT);
	t->seccomp = f;
	return 0;
}

static bool is_ancestor(const struct seccomp_filter *parent, const struct seccomp_filter *child)
{
	if (!parent)
		return true;
	for (; child; child = child->prev)
		if (child == parent)
			return true;
	return false;
}

/* The tid of a sibling whose filters are not ours; 0 if all can follow. sighand lock held. */
static int32_t tsync_blocker(struct task *t)
{
	struct task *o;

	TAILQ_FOREACH (o, &t->group->threads, thread_link) {
		int mode = atomic_load(&o->seccomp_mode);

		if (o == t || atomic_load(&o->state) == TASK_ZOMBIE)
			continue;
		if (mode == SECCOMP_MODE_STRICT ||
		    (mode == SECCOMP_MODE_FILTER && !is_ancestor(o->seccomp, t->seccomp)))
			return o->vtid;
	}
	return 0;
}

static void tsync_siblings(struct task *t, struct seccomp_filter *f)
{
	struct task *o;

	TAILQ_FOREACH (o, &t->group->threads, thread_link) {
		struct seccomp_filter *old = o->seccomp;

		if (o == t || atomic_load(&o->state) == TASK_ZOMBIE)
			continue;
		/* The old chain is part of f's: a reader that still walks it is safe after this reference goes. */
		seccomp_filter_ref(f);
		o->seccomp = f;
		atomic_store(&o->seccomp_mode, SECCOMP_MODE_FILTER);
		seccomp_filter_unref(old);
	}
}

int64_t seccomp_install(struct task *t, unsigned flags, const struct seccomp_insn *insns,
			unsigned count)
{
	struct seccomp_filter *f, *prev = t->seccomp;
	struct sighand *sh;
	int32_t blocker = 0;
	unsigned total = count;

	if (!count || count > SECCOMP_FILTER_INSNS_MAX || !program_ok(insns, count))
		return -EINVAL;
	if (atomic_load(&t->seccomp_mode) == SECCOMP_MODE_STRICT)
		return -EINVAL;
	if (prev)
		total += prev->total + 4;
	if (total > SECCOMP_CHAIN_INSNS_MAX)
		return -ENOMEM;
	f = malloc(sizeof(*f) + count * sizeof(*insns));
	if (!f)
		return -ENOMEM;
	ref_init(&f->ref, &seccomp_ref_type);
	f->prev = prev; /* the task's reference moves into the chain */
	f->count = count;
	f->total = total;
	f->log = flags & SECCOMP_FILTER_FLAG_LOG;
	memcpy(f->insns, insns, count * sizeof(*insns));
	sh = sighand_lock(t->group);
	if (flags & SECCOMP_FILTER_FLAG_TSYNC)
		blocker = tsync_blocker(t);
	if (!blocker) {
		t->seccomp = f;
		atomic_store(&t->seccomp_mode, SECCOMP_MODE_FILTER);
		if (flags & SECCOMP_FILTER_FLAG_TSYNC)
			tsync_siblings(t, f);
	}
	sighand_unlock(sh);
	if (blocker) {
		f->prev = NULL;
		seccomp_filter_unref(f);
		return flags & SECCOMP_FILTER_FLAG_TSYNC_ESRCH ? -ESRCH : blocker;
	}
	return 0;
}
