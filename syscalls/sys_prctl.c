/* syscalls/sys_prctl.c - prctl, arch_prctl, personality, seccomp, ptrace's entry. */
#include "syscalls/syscalls.h"

#include <asm/prctl.h>
#include <linux/capability.h>
#include <linux/prctl.h>
#include <linux/seccomp.h>

#include "sentry/ptrace.h"
#include "sentry/seccomp.h"
#include "syscalls/util.h"

#define PR_GET_AUXV_ 0x41555856

#define SECBITS_ALL 0xffu /* the four bits and their locks */
#define SECBITS_LOCKS 0xaau
#define SECBIT_KEEP_CAPS (1u << 4)
#define SECBIT_KEEP_CAPS_LOCKED (1u << 5)
#define SECBIT_NO_CAP_AMBIENT_RAISE (1u << 6)

/* ---- capabilities and securebits ---- */

static int64_t commit(struct task *t, struct cred *c)
{
	cred_commit(c);
	task_set_cred(t, c);
	return 0;
}

static int64_t capbset_drop(struct task *t, uint64_t cap)
{
	struct cred *c;
	int err;

	if (!cred_has_cap(t->cred, CAP_SETPCAP))
		return -EPERM;
	if (cap > CAP_LAST)
		return -EINVAL;
	err = cred_prepare(t->cred, &c);
	if (err)
		return err;
	c->cap_bounding &= ~(1ull << cap);
	return commit(t, c);
}

static int64_t set_securebits(struct task *t, uint64_t bits)
{
	uint32_t old = t->cred->securebits;
	struct cred *c;
	int err;

	/* A locked bit stays; unknown bits do not exist; and it takes CAP_SETPCAP. */
	if ((((old & SECBITS_LOCKS) >> 1) & (old ^ bits)) || (old & SECBITS_LOCKS & ~bits) ||
	    (bits & ~(uint64_t)SECBITS_ALL) || !cred_has_cap(t->cred, CAP_SETPCAP))
		return -EPERM;
	err = cred_prepare(t->cred, &c);
	if (err)
		return err;
	c->securebits = (uint32_t)bits;
	return commit(t, c);
}

static int64_t set_keepcaps(struct task *t, uint64_t on)
{
	struct cred *c;
	int err;

	if (on > 1)
		return -EINVAL;
	if (t->cred->securebits & SECBIT_KEEP_CAPS_LOCKED)
		return -EPERM;
	err = cred_prepare(t->cred, &c);
	if (err)
		return err;
	c->securebits = on ? c->securebits | SECBIT_KEEP_CAPS : c->securebits & ~SECBIT_KEEP_CAPS;
	return commit(t, c);
}

static int64_t cap_ambient(struct task *t, const struct syscall_args *a)
{
	const struct cred *old = t->cred;
	uint64_t cap = a->a[2], bit;
	struct cred *c;
	int err;

	if (a->a[3] || a->a[4])
		return -EINVAL;
	if (a->a[1] == PR_CAP_AMBIENT_CLEAR_ALL) {
		if (cap)
			return -EINVAL;
		err = cred_prepare(old, &c);
		if (err)
			return err;
		c->cap_ambient = 0;
		return commit(t, c);
	}
	if (cap > CAP_LAST)
		return -EINVAL;
	bit = 1ull << cap;
	switch (a->a[1]) {
	case PR_CAP_AMBIENT_IS_SET:
		return !!(old->cap_ambient & bit);
	case PR_CAP_AMBIENT_RAISE:
		if (!(old->cap_permitted & old->cap_inheritable & bit) ||
		    (old->securebits & SECBIT_NO_CAP_AMBIENT_RAISE))
			return -EPERM;
		break;
	case PR_CAP_AMBIENT_LOWER:
		break;
	default:
		return -EINVAL;
	}
	err = cred_prepare(old, &c);
	if (err)
		return err;
	c->cap_ambient =
		a->a[1] == PR_CAP_AMBIENT_RAISE ? c->cap_ambient | bit : c->cap_ambient & ~bit;
	return commit(t, c);
}

static int64_t set_no_new_privs(struct task *t, const struct syscall_args *a)
{
	struct cred *c;
	int err;

	if (a->a[1] != 1 || a->a[2] || a->a[3] || a->a[4])
		return -EINVAL;
	err = cred_prepare(t->cred, &c);
	if (err)
		return err;
	c->no_new_privs = true;
	return commit(t, c);
}

/* ---- seccomp ---- */

static int64_t seccomp_filter_get(struct task *t, unsigned flags, uint64_t ufprog)
{
	struct {
		uint16_t len;
		uint16_t pad[3];
		uint64_t filter;
	} prog;
	struct seccomp_insn *insns;
	int64_t ret;

	if (flags & ~(unsigned)(SECCOMP_FILTER_FLAG_TSYNC | SECCOMP_FILTER_FLAG_LOG |
				SECCOMP_FILTER_FLAG_SPEC_ALLOW | SECCOMP_FILTER_FLAG_TSYNC_ESRCH))
		return -EINVAL;
	if (task_copy_in(t, &prog, ufprog, sizeof(prog)))
		return -EFAULT;
	if (!prog.len || prog.len > SECCOMP_FILTER_INSNS_MAX)
		return -EINVAL;
	if (!t->cred->no_new_privs && !cred_has_cap(t->cred, CAP_SYS_ADMIN))
		return -EACCES;
	insns = malloc(prog.len * sizeof(*insns));
	if (!insns)
		return -ENOMEM;
	ret = -EFAULT;
	if (!task_copy_in(t, insns, prog.filter, prog.len * sizeof(*insns)))
		ret = seccomp_install(t, flags, insns, prog.len);
	free(insns);
	return ret;
}

int64_t sys_seccomp(struct task *t, const struct syscall_args *a)
{
	unsigned op = ARG_UINT(0), flags = ARG_UINT(1);
	uint32_t action;

	switch (op) {
	case SECCOMP_SET_MODE_STRICT:
		return flags || a->a[2] ? -EINVAL : seccomp_set_strict(t);
	case SECCOMP_SET_MODE_FILTER:
		return seccomp_filter_get(t, flags, a->a[2]);
	case SECCOMP_GET_ACTION_AVAIL:
		if (flags)
			return -EINVAL;
		if (task_copy_in(t, &action, a->a[2], sizeof(action)))
			return -EFAULT;
		switch (action) {
		case SECCOMP_RET_KILL_PROCESS:
		case SECCOMP_RET_KILL_THREAD:
		case SECCOMP_RET_TRAP:
		case SECCOMP_RET_ERRNO:
		case SECCOMP_RET_TRACE:
		case SECCOMP_RET_LOG:
		case SECCOMP_RET_ALLOW:
			return 0;
		default:
			return -EOPNOTSUPP;
		}
	default:
		return -EINVAL;
	}
}

/* ---- PR_SET_MM, names of mappings ---- */

static int64_t set_mm(struct task *t, const struct syscall_args *a)
{
	struct mm_layout l;

	if (a->a[4] || (a->a[3] && a->a[1] != PR_SET_MM_AUXV && a->a[1] != PR_SET_MM_MAP &&
			a->a[1] != PR_SET_MM_MAP_SIZE))
		return -EINVAL;
	if (!cred_has_cap(t->cred, CAP_SYS_RESOURCE))
		return -EPERM;
	if (a->a[2] >= ARCH_TASK_SIZE)
		return -EINVAL;
	mm_get_layout(t->mm, &l);
	switch (a->a[1]) {
	case PR_SET_MM_START_CODE:
		l.start_code = a->a[2];
		break;
	case PR_SET_MM_END_CODE:
		l.end_code = a->a[2];
		break;
	case PR_SET_MM_START_DATA:
		l.start_data = a->a[2];
		break;
	case PR_SET_MM_END_DATA:
		l.end_data = a->a[2];
		break;
	case PR_SET_MM_START_STACK:
		l.start_stack = a->a[2];
		break;
	case PR_SET_MM_ARG_START:
		l.arg_start = a->a[2];
		break;
	case PR_SET_MM_ARG_END:
		l.arg_end = a->a[2];
		break;
	case PR_SET_MM_ENV_START:
		l.env_start = a->a[2];
		break;
	case PR_SET_MM_ENV_END:
		l.env_end = a->a[2];
		break;
	default:
		return -EINVAL; /* brk, auxv, exe file, whole map */
	}
	mm_set_layout(t->mm, &l);
	return 0;
}

static bool anon_name_ok(const char *s)
{
	for (; *s; s++)
		if (*s < 0x20 || *s > 0x7e || strchr("\\`$[]", *s))
			return false;
	return true;
}

/* Names are checked as Linux does, and the range must be mapped; /proc/PID/maps does not show them. */
static int64_t set_vma(struct task *t, const struct syscall_args *a)
{
	char name[81];
	ssize_t len;

	if (a->a[1] != PR_SET_VMA_ANON_NAME)
		return -EINVAL;
	if (a->a[4]) {
		len = mm_copy_in_string(t->mm, name, a->a[4], 80);
		if (len == -ENAMETOOLONG)
			return -EINVAL;
		if (len < 0)
			return len;
		if (!anon_name_ok(name))
			return -EINVAL;
	}
	if (a->a[2] & ~MOAT_PAGE_MASK)
		return -EINVAL;
	return sys_range_ok(a->a[2], a->a[3]) ? 0 : -ENOMEM;
}

/* ---- the others ---- */

static int64_t get_name(struct task *t, uint64_t uaddr)
{
	char comm[TASK_COMM_LEN];

	task_get_comm(t, comm);
	return task_copy_out(t, uaddr, comm, sizeof(comm));
}

static int64_t set_name(struct task *t, uint64_t uaddr)
{
	char comm[TASK_COMM_LEN];
	ssize_t len = mm_copy_in_string(t->mm, comm, uaddr, sizeof(comm));

	if (len == -ENAMETOOLONG) {
		/* Cut, not refused. */
		if (task_copy_in(t, comm, uaddr, sizeof(comm) - 1))
			return -EFAULT;
		comm[sizeof(comm) - 1] = '\0';
	} else if (len < 0) {
		return len;
	}
	task_set_comm(t, comm);
	return 0;
}

static int64_t put_int(struct task *t, uint64_t uaddr, int v)
{
	return task_copy_out(t, uaddr, &v, sizeof(v));
}

static int64_t prctl_signals_and_marks(struct task *t, const struct syscall_args *a)
{
	switch (ARG_INT(0)) {
	case PR_SET_PDEATHSIG:
		if (a->a[1] > SIG_COUNT)
			return -EINVAL;
		t->parent_death_signal = (int32_t)a->a[1];
		return 0;
	case PR_GET_PDEATHSIG:
		return put_int(t, a->a[1], t->parent_death_signal);
	case PR_GET_DUMPABLE:
		return atomic_load(&t->group->dumpable);
	case PR_SET_DUMPABLE:
		if (a->a[1] > 1)
			return -EINVAL;
		atomic_store(&t->group->dumpable, (int)a->a[1]);
		return 0;
	case PR_SET_CHILD_SUBREAPER:
		group_set_subreaper(t->group, a->a[1] != 0);
		return 0;
	case PR_GET_CHILD_SUBREAPER:
		return put_int(t, a->a[1], t->group->is_subreaper);
	case PR_GET_TID_ADDRESS:
		return task_copy_out(t, a->a[1], &t->clear_child_tid, sizeof(t->clear_child_tid));
	case PR_SET_NAME:
		return set_name(t, a->a[1]);
	case PR_GET_NAME:
		return get_name(t, a->a[1]);
	default:
		return -ENOSYS;
	}
}

/* Return: its size, whatever was asked for. */
static int64_t get_auxv(struct task *t, uint64_t uaddr, uint64_t usize)
{
	struct mm_layout l;

	mm_get_layout(t->mm, &l);
	memset(l.auxv + MIN(l.auxv_count, (unsigned)ARRAY_SIZE(l.auxv)), 0,
	       (ARRAY_SIZE(l.auxv) - MIN(l.auxv_count, (unsigned)ARRAY_SIZE(l.auxv))) *
		       sizeof(l.auxv[0]));
	if (task_copy_out(t, uaddr, l.auxv, MIN(usize, sizeof(l.auxv))))
		return -EFAULT;
	return sizeof(l.auxv);
}

static int64_t prctl_creds(struct task *t, const struct syscall_args *a)
{
	switch (ARG_INT(0)) {
	case PR_GET_KEEPCAPS:
		return !!(t->cred->securebits & SECBIT_KEEP_CAPS);
	case PR_SET_KEEPCAPS:
		return set_keepcaps(t, a->a[1]);
	case PR_CAPBSET_READ:
		return a->a[1] > CAP_LAST ? -EINVAL
					  : (int64_t)((t->cred->cap_bounding >> a->a[1]) & 1);
	case PR_CAPBSET_DROP:
		return capbset_drop(t, a->a[1]);
	case PR_GET_SECUREBITS:
		return t->cred->securebits;
	case PR_SET_SECUREBITS:
		return set_securebits(t, a->a[1]);
	case PR_SET_NO_NEW_PRIVS:
		return set_no_new_privs(t, a);
	case PR_GET_NO_NEW_PRIVS:
		return a->a[1] || a->a[2] || a->a[3] || a->a[4] ? -EINVAL : t->cred->no_new_privs;
	case PR_CAP_AMBIENT:
		return cap_ambient(t, a);
	case PR_GET_SECCOMP:
		return atomic_load(&t->seccomp_mode);
	case PR_SET_SECCOMP:
		if (a->a[1] == SECCOMP_MODE_STRICT)
			return seccomp_set_strict(t);
		return a->a[1] == SECCOMP_MODE_FILTER ? seccomp_filter_get(t, 0, a->a[2]) : -EINVAL;
	default:
		return -ENOSYS;
	}
}

int64_t sys_prctl(struct task *t, const struct syscall_args *a)
{
	int64_t ret = prctl_signals_and_marks(t, a);

	if (ret == -ENOSYS)
		ret = prctl_creds(t, a);
	if (ret != -ENOSYS)
		return ret;
	switch (ARG_INT(0)) {
	case PR_GET_TIMING:
		return PR_TIMING_STATISTICAL;
	case PR_SET_TIMING:
		return a->a[1] == PR_TIMING_STATISTICAL ? 0 : -EINVAL;
	case PR_GET_TSC:
		return put_int(t, a->a[1], t->tsc_mode);
	case PR_SET_TSC:
		/* Faulting on rdtsc needs CR4.TSD in the guest; it is always allowed. */
		return a->a[1] == PR_TSC_ENABLE ? 0 : -EINVAL;
	case PR_SET_TIMERSLACK:
		t->timer_slack_ns = (int64_t)a->a[1] <= 0 ? t->timer_slack_default_ns : a->a[1];
		return 0;
	case PR_GET_TIMERSLACK:
		return (int64_t)t->timer_slack_ns;
	case PR_SET_MM:
		return set_mm(t, a);
	case PR_SET_VMA:
		return set_vma(t, a);
	case PR_MCE_KILL:
		return a->a[3] || a->a[4] ? -EINVAL : 0;
	case PR_MCE_KILL_GET:
		return PR_MCE_KILL_DEFAULT;
	case PR_SET_THP_DISABLE:
		if (a->a[2] || a->a[3] || a->a[4])
			return -EINVAL;
		atomic_store(&t->group->thp_disabled, a->a[1] != 0);
		return 0;
	case PR_GET_THP_DISABLE:
		if (a->a[1] || a->a[2] || a->a[3] || a->a[4])
			return -EINVAL;
		return atomic_load(&t->group->thp_disabled);
	case PR_GET_AUXV_:
		return a->a[3] || a->a[4] ? -EINVAL : get_auxv(t, a->a[1], a->a[2]);
	case PR_SET_PTRACER:
		return 0; /* Yama is off: whoever may, may */
	default:
		return -EINVAL;
	}
}

/* ---- segments ---- */

int64_t sys_arch_prctl(struct task *t, const struct syscall_args *a)
{
	struct user_regs_struct *r = &t->regs.r;
	uint64_t base;

	switch (ARG_INT(0)) {
	case ARCH_SET_FS:
		if (a->a[1] >= ARCH_TASK_SIZE)
			return -EPERM;
		r->fs_base = a->a[1];
		return 0;
	case ARCH_SET_GS:
		if (a->a[1] >= ARCH_TASK_SIZE)
			return -EPERM;
		r->gs_base = a->a[1];
		return 0;
	case ARCH_GET_FS:
		base = r->fs_base;
		return task_copy_out(t, a->a[1], &base, sizeof(base));
	case ARCH_GET_GS:
		base = r->gs_base;
		return task_copy_out(t, a->a[1], &base, sizeof(base));
	case 0x1011: /* ARCH_GET_CPUID */
		return 1;
	case 0x1012: /* ARCH_SET_CPUID */
		return -ENODEV;
	default:
		return -EINVAL;
	}
}

int64_t sys_personality(struct task *t, const struct syscall_args *a)
{
	uint32_t old = t->personality;

	if (ARG_UINT(0) != 0xffffffffu)
		t->personality = ARG_UINT(0);
	return old;
}

int64_t sys_ptrace(struct task *t, const struct syscall_args *a)
{
	return ptrace_request(t, ARG_INT(0), ARG_INT(1), a->a[2], a->a[3]);
}
