/*
 * platform/kvm/kvm.h - what the files of the KVM platform share. kvm.c opens with the essay.
 *
 * Lock order
 *   address_space.lock (LOCK_AS; a fork nests the unpublished child's)
 *     kvm_platform.lock (LOCK_PLATFORM): units, table slots, the vCPU pool, who owns whose FPU state
 * The run path takes neither, but for a vCPU's first use, after an eviction, and when a call site has become hot.
 */
#ifndef MOAT_PLATFORM_KVM_KVM_H
#define MOAT_PLATFORM_KVM_KVM_H

#include <linux/kvm.h>
#include <sched.h>
#include <sys/queue.h>

#include "base/lock.h"
#include "platform/patch/patch.h"
#include "platform/platform.h"

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* since 5.14; before, pages come one by one */
#endif

/* Guest-physical memory is handed out in units; a unit holds one kind of memory. */
#define KVM_UNIT_SHIFT 28
#define KVM_UNIT_SIZE (1ul << KVM_UNIT_SHIFT)
#define KVM_UNITS_MAX 8192
#define KVM_PRIVATE_UNITS (MEMFILE_PRIVATE_MAX >> KVM_UNIT_SHIFT)
#define KVM_WINDOW_UNITS (MEM_WINDOW_SIZE >> KVM_UNIT_SHIFT)

/* Page-table pages: slots of 512 pages, 128 of them in a unit. */
#define KVM_TABLE_SLOT_SHIFT 21
#define KVM_TABLE_SLOT_SIZE (1ul << KVM_TABLE_SLOT_SHIFT)
#define KVM_TABLE_SLOT_PAGES 512u
#define KVM_TABLE_SLOTS_MAX 16384u
#define KVM_TABLE_SLOTS_PER_UNIT (KVM_UNIT_SIZE >> KVM_TABLE_SLOT_SHIFT)
/* A slot with fewer untouched pages than this is exhausted: it waits to be deleted and added again. */
#define KVM_TABLE_SLOT_LEFT_MIN 48u
/* An address space with more table slots than this looks whether most of its tables are empty. */
#define KVM_TREE_SLOTS_COMPACT 4u

#define KVM_VCPUS_MAX 1024u
/* Of those, how many belong to no thread: tasks beyond the limit take turns on them. */
#define KVM_VCPUS_SHARED 16u
#define KVM_SHARE_SLICE_NS 3000000l
#define KVM_SHARE_SLICE_SLOW_NS 50000000l /* where a vCPU's change of threads is slow */

/* A site is patched after so many calls: where each is an exit that is early, not hasty. */
#define KVM_SITE_HOT 16u
/* patch_pace.patience where a vCPU's change of threads is slow. */
#define KVM_SLOW_MOVE_PATIENCE 6u

#define KVM_CPUID_ENTRIES_MAX 256
#define KVM_XSAVE_MAX 16384u

/* The one signal that gets a thread out of KVM_RUN. Its handler does nothing. */
#define KVM_KICK_SIGNAL SIGRTMIN

/* Page-table entries. */
#define PTE_P 0x1ul
#define PTE_W 0x2ul
#define PTE_U 0x4ul
#define PTE_AD 0x60ul
#define PTE_PS 0x80ul
#define PTE_SHARED 0x200ul /* software: PLATFORM_MAP_SHARED */
#define PTE_PATCHED \
	0x400ul /* software: a patched copy is executed in place of what the mm mapped */
#define PTE_OWN 0x800ul /* software: trampolines and mailboxes: not the mm's */
#define PTE_NX (1ul << 63)
#define PTE_ADDR 0x000ffffffffff000ul
#define PTE_TABLE (PTE_P | PTE_W | PTE_U | PTE_AD)

/* The guest kernel: one slot at guest-physical 0, mapped at KVM_KERNEL_BASE for ring 0 only. */
#define KVM_KERNEL_BASE 0xffff800000000000ul
#define KVM_KERNEL_SIZE (8ul << 20)
#define KVM_KERNEL_GDT 0x1000ul
#define KVM_KERNEL_IDT 0x2000ul
#define KVM_KERNEL_HANDLERS 0x3000ul /* 256 of KVM_HANDLER_SIZE bytes */
#define KVM_KERNEL_STUB 0x4000ul /* the LSTAR page: also mapped at KVM_STUB_VA, for ring 3 */
#define KVM_KERNEL_PDPT 0x5000ul
#define KVM_KERNEL_PD 0x6000ul
#define KVM_KERNEL_PROBE 0x7000ul /* code of the start-up self-test */
#define KVM_KERNEL_VCPUS 0x200000ul /* a page each: TSS, then the exception stack */
#define KVM_HANDLER_SIZE 16u
/* Above what Linux gives out, in the same leaf table as the top of the stack. Its first part is lstar.S, if anything. */
#define KVM_STUB_VA ARCH_TASK_SIZE
#define KVM_STUB_OFFSET 0x800ul
#define KVM_STUB_PORT PATCH_LSTAR_PORT
/*
 * Where the stub saves (struct kvm_platform.stub_saves): it begins before KVM_STUB_OFFSET, and the handlers end in one `hlt`
 * in the same page. What is saved lies in the vCPU's page, where `swapgs` leads.
 */
#define KVM_STUB_SAVE_MAX 0x80ul
#define KVM_STUB_COMMON 0x400ul
#define KVM_VCPU_SAVE 0x200ul
/* Behind it, where ring 0 is native: `sysretq`. The way back needs no segment registers set. */
#define KVM_STUB_SYSRET_VA (KVM_STUB_VA + KVM_STUB_OFFSET + 2)
#define CR4_FSGSBASE (1ul << 16)
_Static_assert(PATCH_LSTAR_VA == KVM_STUB_VA && PATCH_LSTAR_MAX <= KVM_STUB_COMMON,
	       "lstar.S has the stub's page");
#define KVM_KERNEL_CS 0x10
#define KVM_KERNEL_SS 0x18

enum kvm_unit_kind {
	KVM_UNIT_NONE,
	KVM_UNIT_KERNEL,
	KVM_UNIT_PRIVATE,
	KVM_UNIT_WINDOW,
	KVM_UNIT_TABLES
};

struct kvm_unit {
	uint8_t *hva; /* published by the release store of the gpa that leads here */
	enum kvm_unit_kind kind;
};

/* 512 table pages of one memory slot. Owned by one tree, or by the pool (guarded by platform lock). */
struct kvm_table_slot {
	SLIST_ENTRY(kvm_table_slot) link;
	uint64_t gpa; /* immutable */
	uint8_t *mem; /* immutable */
	uint32_t kvm_id; /* immutable: the memory slot's number */
	unsigned used; /* pages [0, used) have been tables since the slot was last added */
	unsigned first; /* `used` when the present owner got it */
	unsigned dropped; /* pages [0, dropped) hold no host memory any more */
};
SLIST_HEAD(kvm_table_slots, kvm_table_slot);

/* A tree of page tables. Its pages are never freed one by one: see rule (c) in kvm.c. */
struct kvm_tree {
	struct kvm_table_slots slots; /* the first one is allocated from */
	unsigned nslots;
	uint64_t present; /* entries below ARCH_TASK_SIZE */
	uint64_t *root; /* NULL: no tree yet */
	uint64_t root_gpa;
};

struct address_space {
	struct kvm_platform *p; /* immutable */
	struct mutex lock; /* LOCK_AS */
	struct kvm_tree tree; /* guarded by lock */
	_Atomic uint64_t root; /* tree.root_gpa as runners see it; 0: none yet */
	unsigned compact_at; /* guarded by lock: nslots at which to look for empty tables */
	_Atomic uint32_t refs; /* the mm's, and one for each context with a mailbox in it */
	bool dead; /* guarded by lock: the mm's reference is gone */
	/* Patched call sites: patching.c. */
	struct patch_heat heat;
	struct kvm_patches *patches; /* guarded by lock; stays until the end */
	/* With what trampolines are resolved; NULL: nothing is mapped, or the application wants the range. */
	struct patch_space *_Atomic patch_live;
	/* The same for who was running when it went: cleared when every vCPU has left. */
	struct patch_space *_Atomic patch_known;
	bool patch_refused, traced; /* guarded by lock */
};

/* An address space's patched pages, with what the mm mapped there. Guarded by the address space's lock. */
struct kvm_patches {
	struct patch_space *space;
	unsigned count;
	struct {
		uint64_t va, orig; /* the entry as the mm has it */
	} pages[PATCH_PAGES_MAX];
};

/* What ring 3 can change of the segments. */
struct kvm_segs {
	uint64_t fs_base, gs_base;
	uint16_t ds, es, fs, gs;
};

/* What the stub and the handlers write, at KVM_VCPU_SAVE. Ring 3 cannot; nothing depends on that. */
struct kvm_saved {
	uint64_t rax, fs_base, gs_base, cr2;
	uint16_t ds, es, fs, gs;
};

struct kvm_vcpu {
	struct kvm_platform *p; /* immutable */
	unsigned id; /* immutable */
	int fd; /* immutable */
	struct kvm_run *run; /* the owner's thread; immediate_exit by anyone */
	uint8_t *stack_page; /* immutable: TSS and exception stack, host side */
	struct kvm_sregs sregs; /* the owner's thread: template for every entry */
	bool broken; /* the owner's thread: state must be set up anew */
	bool posts; /* the owner's thread: `syscall` leads to lstar.S */
	bool in_stub; /* the runner's: at KVM_STUB_SYSRET_VA, with these: */
	struct kvm_segs segs; /* the runner's: as of the last event */
	_Atomic pid_t tid;
	struct address_space *_Atomic as; /* runs, or is about to run, in this one */
	_Atomic uint32_t gen; /* odd from before `as->root` is read until KVM_RUN has returned */
	_Atomic uint32_t waiters; /* somebody waits for gen to change */
	/* Whose FPU state is in it; changed under platform lock. */
	struct platform_context *_Atomic fpu_owner;
	/* The hot ones, by vCPU: events of each kind. Written by the owner's thread. */
	struct {
		_Atomic uint64_t runs, syscalls, faults, exceptions;
	} counts;
	bool shared; /* immutable */
	bool busy; /* shared ones: guarded by platform lock */
	_Atomic bool yield; /* shared ones: somebody waits for a turn */
	_Atomic int64_t turn_ns; /* shared ones: when the turn began; INT64_MAX: it has not */
	SLIST_ENTRY(kvm_vcpu) link; /* pool; guarded by platform lock */
	/* The companion that runs it during a hand-off; made when first wanted, and then its own for life. */
	struct kvm_hand *_Atomic hand;
	_Atomic bool stop; /* the companion must come out */
	uint64_t
		hidden_gs; /* the runner's: the gs base that is a mailbox, not the application's; 0: none */
};

struct platform_context {
	struct kvm_platform *p; /* immutable */
	_Atomic bool interrupt; /* sticky */
	struct kvm_vcpu *_Atomic running;
	/* Where the FPU state is: in fpu_vcpu; else in fpu_buf; else it is the reset state. Platform lock. */
	struct kvm_vcpu *fpu_vcpu;
	void *fpu_buf;
	/* The rest is the owner's thread's. */
	struct patch_pace pace;
	struct address_space *mb_as; /* a reference; its mailbox is `mb`, unless NULL */
	struct patch_mailbox *mb;
	int mb_index;
	/* Handed off: the companion runs it, or it waits in a trampoline for the answer to `taken`. */
	bool held;
	struct arch_regs taken;
};

/* A thread's place in the queue for a shared vCPU; on its stack. */
struct kvm_turn {
	TAILQ_ENTRY(kvm_turn) link; /* guarded by platform lock while not given */
	struct kvm_vcpu *v;
	_Atomic uint32_t given; /* futex */
};

struct kvm_stats {
	_Atomic uint64_t interrupts, reruns, kicks, flushes, flushed_pages, rebuilds, compactions,
		slot_recycles, window_drops, fpu_loads, shared_waits, bad_exits, spaces, patches,
		handoffs, handoff_starts, handoff_misses, handoff_no_core;
};
#define KVM_STAT_ADD(p, field, n) \
	atomic_fetch_add_explicit(&(p)->stats.field, (n), memory_order_relaxed)

struct kvm_platform {
	struct platform base;
	int kvm_fd, vm_fd; /* immutable after create; kvm_fd is closed at its end */
	int load_fd; /* immutable: /proc/loadavg, or -1 */
	unsigned cores, machine_cores; /* immutable: ours, and the machine's */
	cpu_set_t cpus; /* immutable: ours */
	pid_t pid;
	bool ring0_emulated; /* immutable: an exit from the stub shows the user's CS */
	bool sysret_works; /* immutable after the self-test: the way back to ring 3 */
	bool lstar_posts; /* immutable after the self-test: `syscall` may lead to lstar.S */
	bool stub_saves; /* immutable after the self-test: exits need no segments from KVM */
	uint64_t stub_entry_va, common_hlt_va; /* immutable after the self-test */
	bool has_xsave;
	bool vcpus_move; /* a vCPU may change threads at no cost */
	int64_t share_slice_ns;
	uint64_t tsc_per_us;
	uint64_t cr4, xcr0;
	unsigned units_limit, slots_limit;
	size_t run_size, xsave_size, fpu_size;
	struct kvm_cpuid2 *cpuid;
	void *fpu_reset_buf; /* xsave_size bytes */
	uint8_t *kernel; /* KVM_KERNEL_SIZE */
	uint8_t *private_map; /* the private memfd, mapped for the slots only */
	uint8_t *table_mem; /* KVM_TABLE_SLOTS_MAX slots, reserved */

	struct mutex lock; /* LOCK_PLATFORM */
	/* Guarded by lock; gpas are also read without it (acquire). */
	struct kvm_unit units[KVM_UNITS_MAX];
	unsigned units_used;
	uint32_t kvm_slots_used;
	_Atomic uint64_t private_gpa[KVM_PRIVATE_UNITS]; /* 0: no slot yet */
	_Atomic uint64_t window_gpa[KVM_WINDOW_UNITS];
	struct kvm_table_slots table_free, table_exhausted;
	unsigned table_slots, table_units;
	struct kvm_table_slot *table_array; /* KVM_TABLE_SLOTS_MAX */
	SLIST_HEAD(, kvm_vcpu) parked;
	struct kvm_vcpu *_Atomic vcpus[KVM_VCPUS_MAX];
	_Atomic unsigned nvcpus; /* entries of vcpus that may be set */
	unsigned vcpus_limit, shared_max, vcpus_owned, vcpus_shared, next_victim;
	TAILQ_HEAD(, kvm_turn) turns; /* waiting for a shared vCPU, in order */

	struct kvm_stats stats;
};

static inline struct kvm_platform *kvm_platform_of(struct platform *p)
{
	return container_of(p, struct kvm_platform, base);
}

/* vm.c: an entry holds what we did not write: the sandbox ends. */
noreturn_fn void kvm_gpa_bad(uint64_t gpa);

/* The unit of a guest-physical address that a page-table entry of ours holds. */
static inline const struct kvm_unit *kvm_gpa_unit(const struct kvm_platform *p, uint64_t gpa)
{
	const struct kvm_unit *unit = &p->units[gpa >> KVM_UNIT_SHIFT & (KVM_UNITS_MAX - 1)];

	if (unlikely(gpa >> KVM_UNIT_SHIFT >= KVM_UNITS_MAX || !unit->hva ||
		     (unit->kind == KVM_UNIT_KERNEL && gpa >= KVM_KERNEL_SIZE)))
		kvm_gpa_bad(gpa);
	return unit;
}

/* The host address behind it. Whatever the entry holds: of the guest's memory. */
static inline uint8_t *kvm_gpa_hva(const struct kvm_platform *p, uint64_t gpa)
{
	return kvm_gpa_unit(p, gpa)->hva + (gpa & (KVM_UNIT_SIZE - 1));
}

/* The same of an entry that leads to a table. */
static inline uint64_t *kvm_table_hva(const struct kvm_platform *p, uint64_t gpa)
{
	if (unlikely(kvm_gpa_unit(p, gpa)->kind != KVM_UNIT_TABLES))
		kvm_gpa_bad(gpa);
	return (uint64_t *)kvm_gpa_hva(p, gpa);
}

/* It is where `syscall` led it, with ring 3's rights or without: patch_resolve() knows what it has. */
static inline bool kvm_in_lstar(const struct kvm_vcpu *v, uint64_t rip)
{
	return patch_lstar_inside(rip) && v->posts;
}

/* vm.c: the VM, its memory slots. Return 0 or -errno. */
/* ioctl(2) with -errno; EINTR is not retried. */
must_check int kvm_ioctl(int fd, unsigned long request, void *arg);
/* The descriptor that the probe opened, or a new one. */
must_check int kvm_device_open(void);
must_check int kvm_vm_open(struct kvm_platform *p);
void kvm_vm_close(struct kvm_platform *p);
must_check int kvm_slot_set(struct kvm_platform *p, uint32_t id, uint64_t gpa, void *hva,
			    uint64_t size);
/*
 * The guest-physical address of mf_off, adding its unit's slot if need be. Bytes up to the unit's end follow it.
 * Return: 0, -ENOMEM (no units, slots or host memory left), -EFAULT (not in the window).
 */
must_check int kvm_mem_gpa(struct kvm_platform *p, struct memfile *mf, uint64_t mf_off,
			   uint64_t *ret_gpa);
/* Another unit's number, or -ENOMEM. Platform lock held. */
must_check int kvm_unit_new_locked(struct kvm_platform *p, enum kvm_unit_kind kind, void *hva);

/* cpuid.c */
must_check int kvm_cpuid_load(struct kvm_platform *p);
const struct kvm_cpuid_entry2 *kvm_cpuid_find(const struct kvm_platform *p, uint32_t function,
					      uint32_t index);

/* guest.c: what ring 0 of the guest consists of. */
/* Again when p->stub_saves has changed: no vCPU runs, and each is set up anew. */
void kvm_guest_build(struct kvm_platform *p);
void kvm_guest_vcpu_page(struct kvm_platform *p, unsigned id, uint8_t **ret_page);
/* The template for an entry to ring 3. In: what KVM_GET_SREGS says. */
void kvm_guest_sregs(struct kvm_platform *p, unsigned vcpu_id, struct kvm_sregs *inout_sregs);
uint64_t kvm_guest_tss_va(unsigned vcpu_id);

/* table.c */
must_check int kvm_tables_init(struct kvm_platform *p);
void kvm_tables_fini(struct kvm_platform *p);
/* Dead pages of all slots that no tree has go back to the host. */
void kvm_tables_trim(struct kvm_platform *p);
void kvm_tree_init(struct kvm_tree *t);
/* Makes the root, the kernel half and the stub's tables if there is no root yet. Return: 0, -ENOMEM. */
must_check int kvm_tree_root(struct kvm_platform *p, struct kvm_tree *t);
/* The leaf table that covers va; NULL: none (create: no memory). */
uint64_t *kvm_tree_leaf(struct kvm_platform *p, struct kvm_tree *t, uint64_t va, bool create);
/* The first leaf table that covers any of [*va, end); sets *va to the start of what it covers. NULL: none. */
uint64_t *kvm_tree_next_leaf(struct kvm_platform *p, const struct kvm_tree *t, uint64_t *inout_va,
			     uint64_t end);
/* No vCPU runs in it any more and none can. */
void kvm_tree_release(struct kvm_platform *p, struct kvm_tree *t);

/* as.c */
must_check int kvm_as_create(struct platform *base, struct address_space **ret_as);
void kvm_as_destroy(struct address_space *as);
must_check int kvm_as_map(struct address_space *as, uint64_t va, uint64_t size, struct memfile *mf,
			  uint64_t mf_off, unsigned access, unsigned flags);
void kvm_as_unmap(struct address_space *as, uint64_t va, uint64_t size);
void kvm_as_protect(struct address_space *as, uint64_t va, uint64_t size, unsigned access);
void kvm_as_clear(struct address_space *as);
must_check int kvm_as_fork(struct address_space *parent, struct address_space *child);
/* Runners read as->root: makes sure there is one. Return: 0, -ENOMEM. */
must_check int kvm_as_ready(struct address_space *as);
/* KVM_RUN said EFAULT: drops every translation to the window. Return: how many there were. */
size_t kvm_as_drop_window(struct address_space *as);
/* A context's mailbox goes with it: the struct stays until all are gone. */
void kvm_as_unref(struct address_space *as);
/* Bytes of what the application has at va; those that are not mapped are left as they are in buf. */
void kvm_as_fetch(struct address_space *as, uint64_t va, uint8_t *buf, size_t size);

/* vcpu.c */
must_check int kvm_vcpu_init_state(struct kvm_vcpu *v);
/* Where `syscall` leads. v does not run. Return: 0, -errno. */
must_check int kvm_vcpu_set_lstar(struct kvm_vcpu *v, uint64_t va);
/* The calling thread's vCPU (its own for life), or one of the shared for this turn. Return: 0, -EAGAIN, -EINTR (interrupted). */
must_check int kvm_vcpu_get(struct kvm_platform *p, struct platform_context *ctx,
			    struct kvm_vcpu **ret_v);
void kvm_vcpu_put(struct kvm_vcpu *v);
void kvm_vcpu_thread_exit(struct platform *base);
void kvm_vcpus_fini(struct kvm_platform *p);
void kvm_vcpu_kick(struct kvm_vcpu *v);
/* The calling thread is the one to be kicked from now on. */
void kvm_vcpu_adopt(struct kvm_vcpu *v);
/* Publishes that v runs in `as`; pairs with kvm_vcpus_leave(). */
void kvm_vcpu_enter(struct kvm_vcpu *v, struct address_space *as);
void kvm_vcpu_exit(struct kvm_vcpu *v);
/* Returns when every vCPU that may run on a root of `as` read before this call has left. */
void kvm_vcpus_leave(struct address_space *as);
must_check int kvm_kick_install(void);
/* For tests: at most `limit` vCPUs, the last `shared` of them shared. Before the first one is made. */
void kvm_test_limit_vcpus(struct platform *base, unsigned limit, unsigned shared);

/* fpu.c */
must_check int kvm_fpu_init(struct kvm_platform *p);
/* ctx's FPU state is in v when this returns 0; -ENOMEM, -EIO. */
must_check int kvm_fpu_load(struct kvm_vcpu *v, struct platform_context *ctx);
must_check int kvm_context_create(struct platform *base, struct platform_context *from,
				  struct platform_context **ret_ctx);
void kvm_context_destroy(struct platform_context *ctx);
size_t kvm_fpu_size(struct platform *base);
int kvm_fpu_get(struct platform_context *ctx, void *buf, size_t size);
int kvm_fpu_set(struct platform_context *ctx, const void *buf, size_t size);
void kvm_fpu_reset(struct platform_context *ctx);

/* run.c */
must_check int kvm_context_switch(struct platform_context *ctx, struct address_space *as,
				  struct arch_regs *regs, struct platform_event *ret_event);
void kvm_context_interrupt(struct platform_context *ctx);
/* Registers are loaded with these; NULL mb: no mailbox. */
void kvm_load_regs(struct kvm_vcpu *v, const struct arch_regs *regs, uint64_t mailbox_va);
/* Before that: what `syscall` leads to in `as`. */
void kvm_choose_lstar(struct kvm_vcpu *v, const struct address_space *as,
		      const struct arch_regs *regs, uint64_t mailbox_va);
/*
 * Runs what is loaded until there is an event. INTERRUPTED does not consume ctx->interrupt. An rip inside the
 * trampolines' range is to be resolved with *ret_space, unless that is NULL. Return: 0, -ENOMEM, -EAGAIN.
 */
must_check int kvm_run_until_event(struct kvm_vcpu *v, struct platform_context *ctx,
				   struct address_space *as, struct arch_regs *regs,
				   struct platform_event *ev, const struct patch_space **ret_space);

/* patching.c: patched pages of an address space, mailboxes of contexts. */
/* A system call trapped with regs as they are after it: patches its site when it is hot. */
void kvm_patch_note(struct address_space *as, const struct arch_regs *regs);
/* What the mm mapped at va, where a patched copy is. Address space locked. */
uint64_t kvm_patch_orig_locked(struct address_space *as, uint64_t va);
/* The entry of the copy at va is being overwritten; the flush that follows frees it. Address space locked. */
void kvm_patch_forget_locked(struct address_space *as, uint64_t va);
/* Whatever was forgotten can be used by nobody any more. Address space locked. */
void kvm_patch_flushed_locked(struct address_space *as);
void kvm_as_claim(struct address_space *as, uint64_t va, uint64_t size);
void kvm_as_set_traced(struct address_space *as, bool on);
/* No vCPU is in it and none will be. */
void kvm_patches_free(struct address_space *as);
/*
 * An event whose rip may be in a trampoline becomes one of the application's. `mb`: where replies have been given,
 * NULL if nowhere.
 */
void kvm_patch_resolve(const struct patch_space *space, const struct patch_mailbox *mb,
		       struct arch_regs *regs, struct platform_event *ev);
/* A mailbox for ctx in `as`, which has patches; without one (limits) its trampolines fault and are served so. */
void kvm_mailbox_attach(struct platform_context *ctx, struct address_space *as);
void kvm_mailbox_detach(struct platform_context *ctx);
static inline uint64_t kvm_mailbox_va(const struct platform_context *ctx,
				      const struct address_space *as)
{
	return ctx->mb && ctx->mb_as == as ? patch_mailbox_va(ctx->mb_index) : 0;
}

/* hand.c: a companion thread sits in KVM_RUN, the task's thread serves posted calls. */
/*
 * kvm_context_switch() by hand-off. Pre: v has ctx's FPU state.
 * Return: 0 with an event; 1: *regs are to be run here; -ENOMEM, -EAGAIN.
 */
must_check int kvm_hand_run(struct kvm_vcpu *v, struct platform_context *ctx,
			    struct address_space *as, struct arch_regs *regs,
			    struct platform_event *ev);
/* The same when ctx is held: answers if that suffices. */
must_check int kvm_hand_resume(struct platform_context *ctx, struct address_space *as,
			       struct arch_regs *regs, struct platform_event *ev);
/* ctx is held: its FPU state as kvm_fpu_get() gives it, written by the trampoline. False: the vCPU must be asked. Owner's thread. */
bool kvm_hand_fpu(struct platform_context *ctx, void *buf, size_t size);
/* ctx's registers are the caller's alone and its vCPU is idle. Owner's thread. */
void kvm_hand_end(struct platform_context *ctx);
/* No companion is in `as` any more; whoever owns it finds it stopped. Any thread. */
void kvm_hands_leave(struct address_space *as);
/* By the owner's thread, which lets v go or runs another context on it: whoever was held on it is not any more. */
void kvm_hand_reclaim(struct kvm_vcpu *v);
void kvm_hand_destroy(struct kvm_vcpu *v);
/* selftest.c: which ring mode, do system calls, faults and exceptions come through. Return: 0, -ENOSYS. */
must_check int kvm_selftest(struct kvm_platform *p);

#endif
