/*
 * sentry/affinity.c - on which CPUs tasks run: the guest's masks applied to the host threads that carry them.
 *
 * Guest CPU n is the n-th host CPU that the sandbox may use; where it may use all, which is the usual case, the numbers are the same.
 * A worker remembers the mask that its host thread has: the next task that it carries sets its own only if that differs.
 * affinity_lock orders a change of a task's mask, by whoever, against its worker's taking it up and letting it go.
 */
#include <sched.h>

#include "sentry/task_internal.h"

#define HOST_CPUS_MAX 1024
#define GUEST_CPUS_MAX 64u

static struct mutex affinity_lock = MUTEX_INIT(LOCK_LEAF, "affinity");
/* Immutable after affinity_init(). */
static uint16_t host_cpu[GUEST_CPUS_MAX];
static unsigned host_cpus; /* entries of host_cpu */

void affinity_init(void)
{
	unsigned long set[HOST_CPUS_MAX / 64] = {0};

	host_cpus = 0;
	if (sched_getaffinity(0, sizeof(set), (cpu_set_t *)(void *)set))
		return;
	for (unsigned cpu = 0; cpu < HOST_CPUS_MAX && host_cpus < MIN(kernel.cpus, GUEST_CPUS_MAX);
	     cpu++)
		if (set[cpu / 64] >> (cpu % 64) & 1)
			host_cpu[host_cpus++] = (uint16_t)cpu;
	/* The container's cpuset, which holds the sentry, leaves fewer than the caller has. */
	if (host_cpus && host_cpus < MIN(kernel.cpus, GUEST_CPUS_MAX))
		kernel.cpus = host_cpus;
}

uint64_t affinity_all(void)
{
	return kernel.cpus >= GUEST_CPUS_MAX ? ~0ull : (1ull << kernel.cpus) - 1;
}

unsigned affinity_current_cpu(void)
{
	unsigned cpu = 0, node;

	if (getcpu(&cpu, &node))
		return 0;
	for (unsigned i = 0; i < host_cpus; i++)
		if (host_cpu[i] == cpu)
			return i;
	/* More host CPUs than masks have bits. */
	return cpu < kernel.cpus ? cpu : 0;
}

/* Return: 0, or -errno of a host that takes CPUs away. affinity_lock held. */
static int apply_locked(int host_tid, uint64_t mask)
{
	unsigned long set[HOST_CPUS_MAX / 64] = {0};

	for (unsigned i = 0; i < host_cpus; i++)
		if (mask >> i & 1)
			set[host_cpu[i] / 64] |= 1ul << (host_cpu[i] % 64);
	return sched_setaffinity(host_tid, sizeof(set), (cpu_set_t *)(void *)set) ? -errno : 0;
}

int affinity_set(struct task *t, uint64_t mask)
{
	int err = 0;

	mutex_lock(&affinity_lock);
	if (host_cpus && t->affinity)
		err = apply_locked(t->affinity->host_tid, mask);
	if (!err) {
		t->cpu_mask = mask;
		if (t->affinity)
			t->affinity->mask = mask;
	}
	mutex_unlock(&affinity_lock);
	return err;
}

void affinity_begin(struct task_affinity *a, struct task *t, int host_tid)
{
	mutex_lock(&affinity_lock);
	a->host_tid = host_tid;
	if (!a->mask)
		a->mask = affinity_all();
	if (unlikely(a->mask != t->cpu_mask) && host_cpus && !apply_locked(host_tid, t->cpu_mask))
		a->mask = t->cpu_mask;
	t->affinity = a;
	mutex_unlock(&affinity_lock);
}

void affinity_end(struct task *t)
{
	mutex_lock(&affinity_lock);
	t->affinity = NULL;
	mutex_unlock(&affinity_lock);
}
