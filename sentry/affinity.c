/*
 * sentry/affinity.c - on which CPUs tasks run: the guest's masks applied to the host threads that carry them.
 *
 * Guest CPU n is the n-th host CPU that the caller of the runtime may use; where it may use all, which is the usual case, the numbers are the same.
 * A cpuset takes some of them away, now and then others: /proc/cpuinfo shows all of them, as in any container, masks what is left. That of the
 * sandbox's cgroup holds by itself, and the host is asked for it; that of a further container, whose threads are in the sandbox's, is applied here.
 * A worker remembers the mask that its host thread has: the next task that it carries sets its own only if that differs.
 * affinity_lock orders a change of a task's mask, by whoever, against its worker's taking it up and letting it go.
 */
#include <ctype.h>
#include <sched.h>
#include <stdlib.h>
#include <unistd.h>

#include "sentry/task_internal.h"

#define HOST_CPUS_MAX 1024
#define GUEST_CPUS_MAX 64u

static struct mutex affinity_lock = MUTEX_INIT(LOCK_LEAF, "affinity");
/* Immutable after affinity_init(). */
static uint16_t host_cpu[GUEST_CPUS_MAX];
static unsigned host_cpus; /* entries of host_cpu */

/* "0-3,6". False: it is no list of CPUs. */
static bool parse_list(const char *list, unsigned long set[HOST_CPUS_MAX / 64])
{
	while (*list) {
		unsigned long from, to;
		char *end;

		if (!isdigit((unsigned char)*list))
			return false;
		from = to = strtoul(list, &end, 10);
		if (*end == '-' && isdigit((unsigned char)end[1]))
			to = strtoul(end + 1, &end, 10);
		if (from > to || to >= HOST_CPUS_MAX || (*end && *end != ','))
			return false;
		for (; from <= to; from++)
			set[from / 64] |= 1ul << (from % 64);
		list = end + (*end == ',');
	}
	return true;
}

static uint64_t to_guest(const unsigned long set[HOST_CPUS_MAX / 64])
{
	uint64_t mask = 0;

	for (unsigned i = 0; i < host_cpus; i++)
		if (set[host_cpu[i] / 64] >> (host_cpu[i] % 64) & 1)
			mask |= 1ull << i;
	return mask;
}

static void take_host(const unsigned long set[HOST_CPUS_MAX / 64], unsigned max)
{
	host_cpus = 0;
	for (unsigned cpu = 0; cpu < HOST_CPUS_MAX && host_cpus < max; cpu++)
		if (set[cpu / 64] >> (cpu % 64) & 1)
			host_cpu[host_cpus++] = (uint16_t)cpu;
}

void affinity_set_host(const char *list)
{
	unsigned long set[HOST_CPUS_MAX / 64] = {0};

	host_cpus = 0;
	if (list && parse_list(list, set))
		take_host(set, GUEST_CPUS_MAX);
}

void affinity_init(void)
{
	unsigned long set[HOST_CPUS_MAX / 64] = {0};
	unsigned max = MIN(kernel.cpus, GUEST_CPUS_MAX);

	if (host_cpus == max || sched_getaffinity(0, sizeof(set), (cpu_set_t *)(void *)set))
		return;
	/* Nobody said which: what a cpuset leaves of them. */
	take_host(set, max);
	if (host_cpus && host_cpus < max)
		kernel.cpus = host_cpus;
}

uint64_t affinity_all(void)
{
	return kernel.cpus >= GUEST_CPUS_MAX ? ~0ull : (1ull << kernel.cpus) - 1;
}

/* What the sandbox's cpuset leaves now. No task runs on the process's main thread, so that one's mask is the cpuset's. */
static uint64_t host_allowed(void)
{
	unsigned long set[HOST_CPUS_MAX / 64] = {0};
	uint64_t mask;

	if (!host_cpus || sched_getaffinity(getpid(), sizeof(set), (cpu_set_t *)(void *)set))
		return affinity_all();
	mask = to_guest(set);
	return mask ? mask : affinity_all();
}

/* `mask` of `allowed`, or all of that: as Linux does where a cpuset leaves nothing of what a task asked for. */
static uint64_t mask_of(uint64_t mask, uint64_t allowed)
{
	return mask & allowed ? mask & allowed : allowed;
}

static uint64_t container_mask(struct task_cgroup *cg)
{
	uint64_t mask = atomic_load(&cg->cpu_mask);

	return mask ? mask : affinity_all();
}

uint64_t affinity_allowed(struct task_cgroup *cg)
{
	return mask_of(container_mask(cg), host_allowed());
}

uint64_t affinity_effective(struct task *t)
{
	return mask_of(t->cpu_mask, affinity_allowed(t->group->cgroup));
}

/* What its host thread's mask shall be; the host takes from it what its cpuset has not. */
static uint64_t wanted_mask(struct task *t)
{
	return mask_of(t->cpu_mask, container_mask(t->group->cgroup));
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
	uint64_t host;
	int err = 0;

	mutex_lock(&affinity_lock);
	/* Under the lock: affinity_set_container() goes through the tasks once. */
	host = mask_of(mask, container_mask(t->group->cgroup));
	if (host_cpus && t->affinity)
		err = apply_locked(t->affinity->host_tid, host);
	if (!err) {
		t->cpu_mask = mask;
		if (t->affinity)
			t->affinity->mask = host;
	}
	mutex_unlock(&affinity_lock);
	return err;
}

/* The task's worker gets the mask that the task shall have. affinity_lock held. */
static void follow_locked(struct task *t)
{
	struct task_affinity *a = t->affinity;
	uint64_t mask = wanted_mask(t);

	if (unlikely(a->mask != mask) && host_cpus && !apply_locked(a->host_tid, mask))
		a->mask = mask;
}

void affinity_begin(struct task_affinity *a, struct task *t, int host_tid)
{
	mutex_lock(&affinity_lock);
	a->host_tid = host_tid;
	if (!a->mask)
		a->mask = affinity_all();
	t->affinity = a;
	follow_locked(t);
	mutex_unlock(&affinity_lock);
}

void affinity_set_container(struct task_cgroup *cg, const char *list)
{
	unsigned long set[HOST_CPUS_MAX / 64] = {0};
	uint64_t mask = parse_list(list, set) ? to_guest(set) : 0;
	struct task *t;
	int32_t id = 1;

	if (!mask)
		return;
	/* Whoever begins from here on looks at it under the lock; the others are gone through. */
	mutex_lock(&affinity_lock);
	atomic_store(&cg->cpu_mask, mask);
	mutex_unlock(&affinity_lock);
	while ((t = task_cgroup_next_task(cg, &id))) {
		mutex_lock(&affinity_lock);
		if (t->affinity)
			follow_locked(t);
		mutex_unlock(&affinity_lock);
		task_unref(t);
		id++;
	}
}

void affinity_end(struct task *t)
{
	mutex_lock(&affinity_lock);
	t->affinity = NULL;
	mutex_unlock(&affinity_lock);
}
