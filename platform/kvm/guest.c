/*
 * platform/kvm/guest.c - ring 0 of the guest: tables, one-instruction handlers, one stub.
 *
 * None of it holds a secret and none of it is trusted. A handler is `hlt`: its address tells the vector, the
 * exception stack in the vCPU's own page the rest. The system call stub is `out`: on hardware it runs at
 * CPL 0; where ring 0 is emulated it is fetched with the application's rights, so its page is executable
 * by ring 3, and only the `out` that follows a `syscall` exits (elsewhere it is a #GP). Where ring 0 is native,
 * `sysretq` behind it is the way back. (Not `hlt`: stepping over that costs KVM more where the CPU does not say how long
 * it was.)
 * Every gate uses IST 1, so nothing is ever pushed on a stack that the application chose.
 */
#include <string.h>

#include "platform/kvm/kvm.h"

#define GDT_ENTRIES 16
#define GDT_CODE64_KERNEL 0x00af9b000000ffffull
#define GDT_DATA_KERNEL 0x00cf93000000ffffull
#define GDT_DATA_USER 0x00cff3000000ffffull
#define GDT_CODE64_USER 0x00affb000000ffffull
#define TSS_SELECTOR 0x40
#define TSS_SIZE 104
#define TSS_IOMAP_SIZE 8 /* ports 0 to 55, and the byte of ones that ends it */
#define TSS_LIMIT (TSS_SIZE + TSS_IOMAP_SIZE - 1)
#define TSS_RSP0 4
#define TSS_IST1 36
#define TSS_IOMAP 102

#define INSN_HLT 0xf4
#define INSN_INT3 0xcc

#define CR0_BITS 0x80050033ul /* PG AM WP NE ET MP PE */
#define EFER_BITS 0xd01ul /* NXE LMA LME SCE */

static void put_gate(uint8_t *idt, unsigned vector, unsigned dpl)
{
	uint64_t handler = KVM_KERNEL_BASE + KVM_KERNEL_HANDLERS + vector * KVM_HANDLER_SIZE;
	uint64_t gate[2];

	gate[0] = (handler & 0xffff) | (uint64_t)KVM_KERNEL_CS << 16 | 1ull << 32 /* IST 1 */ |
		  (uint64_t)(0x8e00 | dpl << 13) << 32 | (handler >> 16 & 0xffff) << 48;
	gate[1] = handler >> 32;
	memcpy(idt + vector * sizeof(gate), gate, sizeof(gate));
}

static void build_descriptors(struct kvm_platform *p)
{
	uint64_t *gdt = (uint64_t *)(p->kernel + KVM_KERNEL_GDT);

	gdt[KVM_KERNEL_CS >> 3] = GDT_CODE64_KERNEL;
	gdt[KVM_KERNEL_SS >> 3] = GDT_DATA_KERNEL;
	gdt[ARCH_USER_SS >> 3] = GDT_DATA_USER;
	gdt[ARCH_USER_CS >> 3] = GDT_CODE64_USER;
	for (unsigned v = 0; v < 256; v++) {
		uint8_t *handler = p->kernel + KVM_KERNEL_HANDLERS + v * KVM_HANDLER_SIZE;

		/* int3 and into are instructions of ring 3; every other `int n` is a #GP. */
		put_gate(p->kernel + KVM_KERNEL_IDT, v, v == 3 || v == 4 ? 3 : 0);
		memset(handler, INSN_INT3, KVM_HANDLER_SIZE);
		handler[0] = INSN_HLT;
	}
}

void kvm_guest_build(struct kvm_platform *p)
{
	uint64_t *pdpt = (uint64_t *)(p->kernel + KVM_KERNEL_PDPT);
	uint64_t *pd = (uint64_t *)(p->kernel + KVM_KERNEL_PD);
	uint8_t *stub = p->kernel + KVM_KERNEL_STUB;
	static const uint8_t sysretq[] = {0x48, 0x0f, 0x07};

	build_descriptors(p);
	memset(stub, INSN_HLT, MOAT_PAGE_SIZE);
	stub[KVM_STUB_OFFSET] = 0xe6; /* out %al, $KVM_STUB_PORT */
	stub[KVM_STUB_OFFSET + 1] = KVM_STUB_PORT;
	memcpy(stub + KVM_STUB_OFFSET + 2, sysretq, sizeof(sysretq));
	pdpt[KVM_KERNEL_BASE >> 30 & 511] = KVM_KERNEL_PD | PTE_P | PTE_W | PTE_AD;
	for (uint64_t i = 0; i < KVM_KERNEL_SIZE >> 21; i++)
		pd[i] = i << 21 | PTE_P | PTE_W | PTE_AD | PTE_PS | (i ? PTE_NX : 0);
}

uint64_t kvm_guest_tss_va(unsigned vcpu_id)
{
	return KVM_KERNEL_BASE + KVM_KERNEL_VCPUS + vcpu_id * MOAT_PAGE_SIZE;
}

void kvm_guest_vcpu_page(struct kvm_platform *p, unsigned id, uint8_t **ret_page)
{
	uint8_t *page = p->kernel + KVM_KERNEL_VCPUS + id * MOAT_PAGE_SIZE;
	uint64_t top = kvm_guest_tss_va(id) + MOAT_PAGE_SIZE;
	uint16_t iomap = TSS_SIZE;

	memset(page, 0, MOAT_PAGE_SIZE);
	memcpy(page + TSS_RSP0, &top, sizeof(top));
	memcpy(page + TSS_IST1, &top, sizeof(top));
	memcpy(page + TSS_IOMAP, &iomap, sizeof(iomap));
	/* No port is allowed, but for the stub's where the stub runs with ring 3's rights. */
	memset(page + iomap, 0xff, TSS_IOMAP_SIZE);
	if (p->ring0_emulated)
		page[iomap + KVM_STUB_PORT / 8] &= ~(1u << KVM_STUB_PORT % 8);
	*ret_page = page;
}

void kvm_guest_sregs(struct kvm_platform *p, unsigned vcpu_id, struct kvm_sregs *inout_sregs)
{
	struct kvm_sregs *s = inout_sregs;

	s->cr0 = CR0_BITS;
	s->cr2 = 0;
	s->cr4 = p->cr4;
	s->cr8 = 0;
	s->efer = EFER_BITS;
	s->gdt.base = KVM_KERNEL_BASE + KVM_KERNEL_GDT;
	s->gdt.limit = GDT_ENTRIES * 8 - 1;
	s->idt.base = KVM_KERNEL_BASE + KVM_KERNEL_IDT;
	s->idt.limit = 256 * 16 - 1;
	s->cs = (struct kvm_segment){
		.limit = 0xffffffff,
		.selector = ARCH_USER_CS,
		.type = 11,
		.present = 1,
		.dpl = 3,
		.s = 1,
		.l = 1,
		.g = 1,
	};
	s->ss = (struct kvm_segment){
		.limit = 0xffffffff,
		.selector = ARCH_USER_SS,
		.type = 3,
		.present = 1,
		.dpl = 3,
		.db = 1,
		.s = 1,
		.g = 1,
	};
	s->tr = (struct kvm_segment){
		.base = kvm_guest_tss_va(vcpu_id),
		.limit = TSS_LIMIT,
		.selector = TSS_SELECTOR,
		.type = 11,
		.present = 1,
	};
	s->ldt = (struct kvm_segment){.unusable = 1};
	memset(s->interrupt_bitmap, 0, sizeof(s->interrupt_bitmap));
}
