/*
 * platform/kvm/kvm.c - the KVM platform: one VM a sandbox, applications in its ring 3, the sentry outside.
 *
 * Organised as: vm.c (VM, memory slots), cpuid.c, guest.c (the guest's ring 0: a few hlt and one out), table.c
 * (page-table pages), as.c (address spaces), vcpu.c (whose vCPU, kicks), fpu.c (contexts), run.c (events), hand.c (calls
 * without an exit), patching.c, selftest.c, confine.h (what a seccomp filter must let through). docs/platform-kvm.md has the numbers.
 *
 * Paging may be shadowed: the CPU may use a translation for as long as KVM has not been told that it is gone,
 * and KVM is told only by the host's memory, never by an edited entry. Hence
 *  (a) store the entry, then MADV_DONTNEED the host mapping of the data page that the slot is backed by
 *      (not the mapping that the sentry reads through), both under the address space's lock, then let
 *      anyone go on. KVM's notifier drops every shadow and combined translation of the page. One call per contiguous
 *      extent. It drops them from every address space: those refault inside KVM, without an exit.
 *      Not present to present, and more rights on the same page, need nothing.
 *  (b) large or scattered changes, fork's, exec's and exit's take a fresh tree of tables that were never shadowed;
 *      vCPUs in the old one are kicked and waited for.
 *  (c) the shadow of a table is kept by its guest frame and outlives the table. A table page is therefore never
 *      used twice between two additions of its slot to the VM, and a non-leaf entry goes from nothing to one table
 *      and never to another. Trees are freed whole.
 * On hardware (two-dimensional paging) the same is right: the notifier flushes combined translations, and deleting
 * a slot flushes every vCPU.
 *
 * Performs: an event costs one KVM_RUN with registers in the shared page and no other call; where ring 0 is
 * emulated that is about 25 us whatever the event, so as_map writes all the entries it is given and nothing
 * here exits twice for one event. Watch: the counters of `moat debug`; `bad_exits` should be 0.
 * Cannot do: 32-bit code, LDTs, debug registers, protection keys; more than 1008 threads at full speed.
 */
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/log.h"
#include "base/sleep.h"
#include "base/spin.h"
#include "platform/kvm/kvm.h"

/* Of a bounded sandbox, and at least, pages for shadows of page tables. */
#define KVM_SHADOW_PART 16
#define KVM_SHADOW_MIN 512

/* What kvm_probe() opened: create() may run where /dev/kvm can no longer be reached. Boot thread only. */
static int probed_fd = -1, probed_load_fd = -1;

static int kvm_probe(char *why, size_t why_size)
{
	int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC), version, err = errno;

	if (fd < 0) {
		if (err == ENOENT || err == ENODEV || err == ENXIO)
			snprintf(why, why_size,
				 "/dev/kvm: %s: load the kvm_intel or kvm_amd module "
				 "(in a virtual machine, turn on nested virtualisation first)",
				 strerror(err));
		else if (err == EACCES || err == EPERM)
			snprintf(why, why_size,
				 "/dev/kvm: %s: run as root or join the group that owns it "
				 "(usermod -aG kvm USER)",
				 strerror(err));
		else
			snprintf(why, why_size, "/dev/kvm: %s", strerror(err));
		return -err;
	}
	version = ioctl(fd, KVM_GET_API_VERSION, 0);
	if (version != KVM_API_VERSION) {
		close(fd);
		snprintf(why, why_size,
			 "/dev/kvm: not a KVM device (API version %d, wanted %d): check what it is",
			 version, KVM_API_VERSION);
		return -EOPNOTSUPP;
	}
	if (probed_fd >= 0)
		close(probed_fd);
	probed_fd = fd;
	/* How many threads of the machine want a core; without it hand.c goes by its own vCPUs. */
	if (probed_load_fd < 0)
		probed_load_fd = open("/proc/loadavg", O_RDONLY | O_CLOEXEC);
	return 0;
}

static void kvm_unprobe(void)
{
	if (probed_fd >= 0)
		close(probed_fd);
	if (probed_load_fd >= 0)
		close(probed_load_fd);
	probed_fd = probed_load_fd = -1;
}

int kvm_device_open(void)
{
	int fd = probed_fd;

	probed_fd = -1;
	if (fd < 0)
		fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

static void platform_free(struct kvm_platform *p)
{
	kvm_vcpus_fini(p);
	kvm_tables_fini(p);
	kvm_vm_close(p);
	if (p->load_fd >= 0)
		close(p->load_fd);
	free(p->cpuid);
	free(p->fpu_reset_buf);
	free(p);
}

static int kvm_create(struct platform **ret_p)
{
	struct kvm_platform *p = calloc(1, sizeof(*p));
	uint64_t gpa;
	uint64_t tsc = __builtin_ia32_rdtsc();
	int64_t start = time_monotonic_ns();
	int err;

	if (!p)
		return -ENOMEM;
	p->base.ops = &kvm_platform_ops;
	p->kvm_fd = p->vm_fd = -1;
	p->load_fd = probed_load_fd;
	probed_load_fd = -1;
	p->cores = sched_getaffinity(0, sizeof(p->cpus), &p->cpus) == 0
			   ? (unsigned)CPU_COUNT(&p->cpus)
			   : 1;
	p->machine_cores = (unsigned)MAX(sysconf(_SC_NPROCESSORS_ONLN), 1l);
	p->pid = getpid();
	p->shared_max = KVM_VCPUS_SHARED;
	mutex_init(&p->lock, LOCK_PLATFORM, "kvm");
	SLIST_INIT(&p->parked);
	TAILQ_INIT(&p->turns);
	err = kvm_vm_open(p);
	if (!err)
		err = kvm_cpuid_load(p);
	if (!err)
		err = kvm_tables_init(p);
	if (!err)
		err = kvm_fpu_init(p);
	if (!err)
		err = kvm_kick_install();
	if (err)
		goto out_free;
	kvm_guest_build(p);
	/* The first unit ahead of need; the device itself is not needed any more. */
	err = kvm_mem_gpa(p, mem_private(), 0, &gpa);
	if (!err)
		err = kvm_selftest(p);
	if (err)
		goto out_free;
	/* Good enough for how long to spin: a millisecond has gone. */
	p->tsc_per_us = MAX((__builtin_ia32_rdtsc() - tsc) * 1000 /
				    MAX((uint64_t)(time_monotonic_ns() - start), 1ul),
			    1ul);
	close(p->kvm_fd);
	p->kvm_fd = -1;
	/* A wake-up of an idle core costs a thread that waits as much as two exits here. */
	sleeper_allow_spin(spin_running, p->load_fd, p->cores, p->machine_cores);
	*ret_p = &p->base;
	return 0;
out_free:
	platform_free(p);
	return err;
}

/*
 * Without nested paging the host has a shadow of each of our page tables, made as they are used and dropped only when there are too many, by a count that is made for the size of
 * the memory slots. They are the cgroup's kernel memory: two dozen threads in a loop of small processes had 30 MiB of them. Where there is nested paging it is no bound of anything.
 */
static void kvm_bound_memory(struct platform *base, uint64_t bytes)
{
	uint64_t pages = MAX(bytes / KVM_SHADOW_PART >> MOAT_PAGE_SHIFT, (uint64_t)KVM_SHADOW_MIN);

	if (ioctl(kvm_platform_of(base)->vm_fd, KVM_SET_NR_MMU_PAGES, pages) < 0)
		log_debug("kvm: %llu shadow pages: %s", (unsigned long long)pages, strerror(errno));
}

static void kvm_destroy(struct platform *base)
{
	sleeper_allow_spin(spin_running, -1, 0, 0);
	platform_free(kvm_platform_of(base));
}

static void kvm_emit_stats(struct platform *base,
			   void (*emit)(void *arg, const char *name, uint64_t value), void *arg)
{
	struct kvm_platform *p = kvm_platform_of(base);
	unsigned slots, units, owned, shared, free_slots = 0, exhausted = 0;
	uint64_t runs = 0, syscalls = 0, faults = 0, exceptions = 0;
	struct kvm_table_slot *slot;

	mutex_lock(&p->lock);
	slots = p->table_slots;
	units = p->units_used;
	owned = p->vcpus_owned;
	shared = p->vcpus_shared;
	SLIST_FOREACH (slot, &p->table_free, link)
		free_slots++;
	SLIST_FOREACH (slot, &p->table_exhausted, link)
		exhausted++;
	mutex_unlock(&p->lock);
	for (unsigned id = 0; id < atomic_load(&p->nvcpus); id++) {
		struct kvm_vcpu *v = atomic_load(&p->vcpus[id]);

		if (!v)
			continue;
		runs += atomic_load(&v->counts.runs);
		syscalls += atomic_load(&v->counts.syscalls);
		faults += atomic_load(&v->counts.faults);
		exceptions += atomic_load(&v->counts.exceptions);
	}
	emit(arg, "kvm/runs", runs);
	emit(arg, "kvm/syscalls", syscalls);
	emit(arg, "kvm/faults", faults);
	emit(arg, "kvm/exceptions", exceptions);
#define EMIT(field) emit(arg, "kvm/" #field, atomic_load(&p->stats.field))
	EMIT(interrupts);
	EMIT(reruns);
	EMIT(kicks);
	EMIT(flushes);
	EMIT(flushed_pages);
	EMIT(rebuilds);
	EMIT(compactions);
	EMIT(slot_recycles);
	EMIT(window_drops);
	EMIT(fpu_loads);
	EMIT(shared_waits);
	EMIT(bad_exits);
	EMIT(spaces);
	EMIT(patches);
	EMIT(handoffs);
	EMIT(handoff_starts);
	EMIT(handoff_misses);
	EMIT(handoff_no_core);
#undef EMIT
	emit(arg, "kvm/ring0_emulated", p->ring0_emulated);
	emit(arg, "kvm/stub_saves", p->stub_saves);
	emit(arg, "kvm/lstar_posts", p->lstar_posts);
	emit(arg, "kvm/units", units);
	emit(arg, "kvm/vcpus", owned);
	emit(arg, "kvm/vcpus_shared", shared);
	emit(arg, "kvm/table_slots", slots);
	emit(arg, "kvm/table_slots_free", free_slots);
	emit(arg, "kvm/table_slots_exhausted", exhausted);
}

static void kvm_trim(struct platform *base)
{
	kvm_tables_trim(kvm_platform_of(base));
}

const struct platform_ops kvm_platform_ops = {
	.name = "kvm",
	.maps_pages = true,
	.probe = kvm_probe,
	.unprobe = kvm_unprobe,
	.create = kvm_create,
	.bound_memory = kvm_bound_memory,
	.destroy = kvm_destroy,
	.as_create = kvm_as_create,
	.as_destroy = kvm_as_destroy,
	.as_map = kvm_as_map,
	.as_unmap = kvm_as_unmap,
	.as_protect = kvm_as_protect,
	.as_fork = kvm_as_fork,
	.as_clear = kvm_as_clear,
	.as_claim = kvm_as_claim,
	.as_set_traced = kvm_as_set_traced,
	.context_create = kvm_context_create,
	.context_destroy = kvm_context_destroy,
	.context_switch = kvm_context_switch,
	.context_interrupt = kvm_context_interrupt,
	.thread_exit = kvm_vcpu_thread_exit,
	.trim = kvm_trim,
	.fpu_size = kvm_fpu_size,
	.fpu_get = kvm_fpu_get,
	.fpu_set = kvm_fpu_set,
	.fpu_reset = kvm_fpu_reset,
	.stats = kvm_emit_stats,
};
