/*
 * platform/kvm/cpuid.c - what the application sees of the CPU, the same on every vCPU.
 *
 * KVM's supported leaves, less what ring 3 cannot use here: virtualisation, MONITOR, protection keys and
 * hypervisor paravirtual leaves. Where ring 3 runs natively on a software hypervisor, CPUID is the
 * host's whatever is set; so nothing above may rely on a bit being hidden.
 */
#include <cpuid.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "platform/kvm/kvm.h"

#define CPUID_1_ECX_MONITOR (1u << 3)
#define CPUID_1_ECX_VMX (1u << 5)
#define CPUID_7_EBX_FSGSBASE (1u << 0)
#define CPUID_7_ECX_UMIP (1u << 2)
#define CPUID_7_ECX_PKU (1u << 3)
#define CPUID_7_ECX_OSPKE (1u << 4)
#define CPUID_7_ECX_CET_SS (1u << 7)
#define CPUID_7_EDX_CET_IBT (1u << 20)
#define CPUID_80000001_ECX_SVM (1u << 2)

#define CR4_PAE (1ul << 5)
#define CR4_OSFXSR (1ul << 9)
#define CR4_OSXMMEXCPT (1ul << 10)
#define CR4_UMIP (1ul << 11)
#define CR4_OSXSAVE (1ul << 18)

#define XSAVE_HEADER_END 576u

const struct kvm_cpuid_entry2 *kvm_cpuid_find(const struct kvm_platform *p, uint32_t function,
					      uint32_t index)
{
	for (uint32_t i = 0; i < p->cpuid->nent; i++) {
		const struct kvm_cpuid_entry2 *e = &p->cpuid->entries[i];

		if (e->function == function && e->index == index)
			return e;
	}
	return NULL;
}

static void filter(struct kvm_cpuid2 *cpuid)
{
	uint32_t kept = 0;

	for (uint32_t i = 0; i < cpuid->nent; i++) {
		struct kvm_cpuid_entry2 *e = &cpuid->entries[i];

		if (e->function >= 0x40000000u && e->function < 0x40010000u)
			continue;
		if (e->function == 1)
			e->ecx &= ~(CPUID_1_ECX_MONITOR | CPUID_1_ECX_VMX);
		if (e->function == 7 && e->index == 0) {
			e->ecx &= ~(CPUID_7_ECX_PKU | CPUID_7_ECX_OSPKE | CPUID_7_ECX_CET_SS);
			e->edx &= ~CPUID_7_EDX_CET_IBT;
		}
		if (e->function == 0x80000001u)
			e->ecx &= ~CPUID_80000001_ECX_SVM;
		cpuid->entries[kept++] = *e;
	}
	cpuid->nent = kept;
}

static void derive(struct kvm_platform *p)
{
	const struct kvm_cpuid_entry2 *e;
	unsigned phys_bits = 36;

	p->cr4 = CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT;
	e = kvm_cpuid_find(p, 7, 0);
	if (e && (e->ebx & CPUID_7_EBX_FSGSBASE))
		p->cr4 |= CR4_FSGSBASE;
	if (e && (e->ecx & CPUID_7_ECX_UMIP))
		p->cr4 |= CR4_UMIP;
	/* Without XSAVE too: signal frames have one format. */
	p->fpu_size = XSAVE_HEADER_END;
	/* Not leaf 1: software hypervisors leave XSAVE out there while ring 3 has it. */
	e = kvm_cpuid_find(p, 0xd, 0);
	if (e && e->eax) {
		p->has_xsave = true;
		p->cr4 |= CR4_OSXSAVE;
		p->xcr0 = ((uint64_t)e->edx << 32) | e->eax;
		/* ECX is the size for all that the leaf names; EBX only for what XCR0 has at the moment. */
		p->fpu_size = MIN(MAX((size_t)e->ecx, (size_t)XSAVE_HEADER_END), p->xsave_size);
	}
	e = kvm_cpuid_find(p, 0x80000008u, 0);
	if (e && (e->eax & 0xff) >= 32)
		phys_bits = e->eax & 0xff;
	p->units_limit = MIN(1ul << (phys_bits - KVM_UNIT_SHIFT), (unsigned long)KVM_UNITS_MAX);
}

int kvm_cpuid_load(struct kvm_platform *p)
{
	int err;

	p->cpuid = calloc(1, sizeof(*p->cpuid) +
				     KVM_CPUID_ENTRIES_MAX * sizeof(struct kvm_cpuid_entry2));
	if (!p->cpuid)
		return -ENOMEM;
	p->cpuid->nent = KVM_CPUID_ENTRIES_MAX;
	err = kvm_ioctl(p->kvm_fd, KVM_GET_SUPPORTED_CPUID, p->cpuid);
	if (err < 0)
		return err;
	filter(p->cpuid);
	derive(p);
	return 0;
}
