/*
 * sentry/seccomp.h - the guest's own seccomp: strict mode and filters (classic BPF), run before dispatch.
 *
 * A filter is immutable and points to the one installed before it; tasks share chains by reference.
 */
#ifndef MOAT_SENTRY_SECCOMP_H
#define MOAT_SENTRY_SECCOMP_H

#include "sentry/task.h"

#define SECCOMP_FILTER_INSNS_MAX 4096 /* BPF_MAXINSNS */
#define SECCOMP_CHAIN_INSNS_MAX (1 << 15) /* MAX_INSNS_PER_PATH */

struct seccomp_filter;
struct seccomp_insn {
	uint16_t code;
	uint8_t jt, jf;
	uint32_t k;
};

void seccomp_filter_ref(struct seccomp_filter *f);
void seccomp_filter_unref(struct seccomp_filter *f);
/* Is this call allowed? false: do not run it, *ret_rax is the result (for SIGSYS the signal was forced). */
bool seccomp_check(struct task *t, int64_t nr, const struct syscall_args *a, int64_t *ret_rax);
/* seccomp(2)'s SECCOMP_SET_MODE_STRICT and _FILTER. insns were copied in. Return 0, a tid (TSYNC), -errno. */
int64_t seccomp_set_strict(struct task *t);
int64_t seccomp_install(struct task *t, unsigned flags, const struct seccomp_insn *insns,
			unsigned count);
/* clone: the child inherits. LOCK_TASK of the parent is held. */
void seccomp_fork(struct task *parent, struct task *child);

#endif
