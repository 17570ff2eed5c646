/*
 * platform/kvm/confine.h - what the KVM platform asks of the host after create() has returned.
 *
 * probe() opens /dev/kvm and keeps it for create(), which may therefore run where no path leads there any more. create()
 * makes the VM, reads CPUID, installs the kick signal's handler, maps what it needs, runs the self-test and closes the
 * device: from then on no path, no /dev and no /proc is used, and the root may be empty. It must run in the process that
 * goes on (a VM belongs to its memory), as the pid that process will have, and after anything that wants a single
 * thread (unshare of a user namespace): KVM's first KVM_RUN adds a kernel thread to the process.
 *
 * System calls after create(), with their arguments where a filter can tell:
 *
 *	ioctl(vm or vCPU, ...)	one of kvm_confined_ioctls; a vCPU's descriptor is new each time
 *	mmap(NULL, a few pages, PROT_READ | PROT_WRITE, MAP_SHARED, vCPU, 0)	a new vCPU's shared page
 *	munmap, close		when making one fails, and in destroy()
 *	madvise(MADV_DONTNEED)	rule (a); and table pages given back
 *	madvise(MADV_POPULATE_WRITE)	table pages; refused is fine
 *	madvise(MADV_POPULATE_READ)	memory about to be written; refused is fine
 *	tgkill(own pid, tid, SIGRTMIN)	kicks
 *	futex(FUTEX_WAIT_BITSET, FUTEX_WAKE; private)
 *	gettid, rt_sigprocmask, rt_sigreturn, clock_gettime (where it is no vDSO call)
 *	pread64(what probe() opened of /proc/loadavg): is a core free for a companion? (hand.c)
 *	sched_setaffinity(a companion's), getcpu (where it is no vDSO call)	the companion is kept off its task's core
 *	clone with a thread's flags, and what libc asks for a thread's stack and start (a vCPU's companion, hand.c)
 *	and what malloc takes: mmap, munmap, mprotect, brk
 *
 * SIGRTMIN stays ours: nobody else handles or blocks it in threads that run the application. Its handler does
 * nothing, so any sentry code may see a host call end with EINTR for it.
 */
#ifndef MOAT_PLATFORM_KVM_CONFINE_H
#define MOAT_PLATFORM_KVM_CONFINE_H

#include <linux/kvm.h>

static const unsigned long kvm_confined_ioctls[] = {
	/* the hot path: nothing else but for what is written beside the others */
	KVM_RUN,
	/* an interrupted run: is an exception queued? int3: forget it */
	KVM_GET_VCPU_EVENTS,
	KVM_SET_VCPU_EVENTS,
	/* FPU state on its way to a signal frame, a child, another vCPU */
	KVM_GET_XSAVE,
	KVM_GET_XSAVE2,
	KVM_SET_XSAVE,
	/* a new vCPU, and one that a shutdown has reset */
	KVM_CREATE_VCPU,
	KVM_SET_CPUID2,
	KVM_GET_SREGS,
	KVM_SET_SREGS,
	KVM_SET_XCRS,
	KVM_SET_MSRS,
	KVM_SET_DEVICE_ATTR,
	/* units and page-table slots */
	KVM_SET_USER_MEMORY_REGION,
};

#endif
