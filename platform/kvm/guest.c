/*
 * platform/kvm/guest.c - ring 0 of the guest: tables, one-instruction handlers, one stub.
 *
 * None of it holds a secret and none of it is trusted. A handler is `hlt`: its address tells the vector, the
 * exception stack in the vCPU's own page the rest. The system call stub is `out`: on hardware it runs at
 * CPL 0; where ring 0 is emulated it is fetched with the application's rights, so its page is executable
 * by ring 3, and only the `out` that follows a `syscall` exits (elsewhere it is a #GP). Where ring 0 is native,
 * `sysretq` behind it is the way back. (Not `hlt`: stepping over that costs KVM more where the CPU does not say how long
 * it was.)
 * There it also saves segments on the way in, some fifteen instructions, and so do the handlers, which then end in one
 * common `hlt`: what KVM takes to look at a vCPU's segments at every exit is an eighth of a system call.
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

#define INSN_GS 0x65
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

/* A mov between a register (or a segment register) and the save area: `gs op modrm sib disp32`. */
static uint8_t *put_save(uint8_t *at, const uint8_t *op, size_t op_size, unsigned reg, size_t off)
{
	uint32_t disp = (uint32_t)off;

	*at++ = INSN_GS;
	memcpy(at, op, op_size);
	at += op_size;
	*at++ = (uint8_t)(reg << 3 | 4);
	*at++ = 0x25;
	memcpy(at, &disp, sizeof(disp));
	return at + sizeof(disp);
}

static uint8_t *put_bytes(uint8_t *at, const void *bytes, size_t size)
{
	memcpy(at, bytes, size);
	return at + size;
}

/*
 * Writes down what ring 3 may have done to its segments, and for a handler the faulting address, so that KVM need not be
 * asked: by rax, which is put back.
 */
static uint8_t *put_saving(uint8_t *at, bool cr2)
{
	static const uint8_t swapgs[] = {0x0f, 0x01, 0xf8},
			     rdfsbase[] = {0xf3, 0x48, 0x0f, 0xae, 0xc0},
			     rdgsbase[] = {0xf3, 0x48, 0x0f, 0xae, 0xc8},
			     read_cr2[] = {0x0f, 0x20, 0xd0}, store_rax[] = {0x48, 0x89},
			     load_rax[] = {0x48, 0x8b}, store_seg[] = {0x8c};
	enum { ES = 0, DS = 3, FS = 4, GS = 5 };

	at = put_bytes(at, swapgs, sizeof(swapgs));
	at = put_save(at, store_rax, 2, 0, offsetof(struct kvm_saved, rax));
	at = put_save(at, store_seg, 1, DS, offsetof(struct kvm_saved, ds));
	at = put_save(at, store_seg, 1, ES, offsetof(struct kvm_saved, es));
	at = put_save(at, store_seg, 1, FS, offsetof(struct kvm_saved, fs));
	at = put_save(at, store_seg, 1, GS, offsetof(struct kvm_saved, gs));
	at = put_bytes(at, rdfsbase, sizeof(rdfsbase));
	at = put_save(at, store_rax, 2, 0, offsetof(struct kvm_saved, fs_base));
	if (cr2) {
		at = put_bytes(at, read_cr2, sizeof(read_cr2));
		at = put_save(at, store_rax, 2, 0, offsetof(struct kvm_saved, cr2));
	}
	at = put_bytes(at, swapgs, sizeof(swapgs));
	at = put_bytes(at, rdgsbase, sizeof(rdgsbase));
	at = put_bytes(at, swapgs, sizeof(swapgs));
	at = put_save(at, store_rax, 2, 0, offsetof(struct kvm_saved, gs_base));
	at = put_save(at, load_rax, 2, 0, offsetof(struct kvm_saved, rax));
	return put_bytes(at, swapgs, sizeof(swapgs));
}

/* handler: push $vector; jmp common. The frame stays at the top of the stack. */
static void put_saving_handler(uint8_t *handler, unsigned vector)
{
	uint64_t end = KVM_KERNEL_HANDLERS + vector * KVM_HANDLER_SIZE + 7;
	uint32_t rel = (uint32_t)(KVM_KERNEL_STUB + KVM_STUB_COMMON - end);

	handler[0] = 0x6a;
	handler[1] = (uint8_t)vector;
	handler[2] = 0xe9;
	memcpy(handler + 3, &rel, sizeof(rel));
}

static void build_stub(struct kvm_platform *p)
{
	static const uint8_t sysretq[] = {0x48, 0x0f, 0x07};
	uint8_t saving[KVM_STUB_SAVE_MAX], *page = p->kernel + KVM_KERNEL_STUB;
	uint8_t *out = page + KVM_STUB_OFFSET, *at;
	size_t size = 0;

	memset(page, INSN_HLT, MOAT_PAGE_SIZE);
	if (p->stub_saves) {
		at = put_saving(page + KVM_STUB_COMMON, true);
		p->common_hlt_va = KVM_KERNEL_BASE + KVM_KERNEL_STUB + (uint64_t)(at - page);
		size = put_saving(saving, false) - saving;
		assert(size <= sizeof(saving));
		memcpy(out - size, saving, size);
	}
	if (p->lstar_posts)
		patch_lstar_put(page);
	p->stub_entry_va = KVM_STUB_VA + KVM_STUB_OFFSET - size;
	out[0] = 0xe6; /* out %al, $KVM_STUB_PORT */
	out[1] = KVM_STUB_PORT;
	memcpy(out + 2, sysretq, sizeof(sysretq));
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
		if (p->stub_saves)
			put_saving_handler(handler, v);
	}
}

void kvm_guest_build(struct kvm_platform *p)
{
	uint64_t *pdpt = (uint64_t *)(p->kernel + KVM_KERNEL_PDPT);
	uint64_t *pd = (uint64_t *)(p->kernel + KVM_KERNEL_PD);

	build_descriptors(p);
	build_stub(p);
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
