/*
 * platform/kvm/vm.c - the VM and its memory slots.
 *
 * Guest-physical space is handed out in units of 256 MiB, in order of first use, because processors
 * with 39 or 40 physical address bits exist and neither the private memory file nor the window would fit
 * in there as a whole. Unit 0 is the guest kernel's; unit 15 is left out (VMX without unrestricted guest
 * keeps pages of its own below 4 GiB).
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/log.h"
#include "platform/kvm/kvm.h"

#ifndef KVM_X86_QUIRK_SLOT_ZAP_ALL
#define KVM_X86_QUIRK_SLOT_ZAP_ALL (1 << 7)
#endif

/* A unit that no slot may use: see above. */
#define UNIT_RESERVED 15
#define VMX_TSS_ADDR 0xfffbd000ul

/*
 * Quirks that are wrong for us: a slot's deletion that zaps every other slot's shadows, KVM rewriting a
 * foreign hypercall instruction in the application's text, `out 0x7e` moving RIP, mwait that does nothing.
 */
#define QUIRKS_OFF                                                       \
	(KVM_X86_QUIRK_SLOT_ZAP_ALL | KVM_X86_QUIRK_FIX_HYPERCALL_INSN | \
	 KVM_X86_QUIRK_OUT_7E_INC_RIP | KVM_X86_QUIRK_MWAIT_NEVER_UD_FAULTS)

int kvm_ioctl(int fd, unsigned long request, void *arg)
{
	int ret = ioctl(fd, request, arg);

	return ret < 0 ? -errno : ret;
}

static int check_extension(int fd, unsigned long cap)
{
	int ret = ioctl(fd, KVM_CHECK_EXTENSION, cap);

	return ret < 0 ? 0 : ret;
}

static int check_capabilities(struct kvm_platform *p)
{
	static const struct {
		unsigned cap;
		const char *name;
		int bits;
	} needed[] = {
		{KVM_CAP_USER_MEMORY, "KVM_CAP_USER_MEMORY", 0},
		{KVM_CAP_SYNC_MMU, "KVM_CAP_SYNC_MMU", 0},
		{KVM_CAP_IMMEDIATE_EXIT, "KVM_CAP_IMMEDIATE_EXIT", 0},
		{KVM_CAP_VCPU_EVENTS, "KVM_CAP_VCPU_EVENTS", 0},
		{KVM_CAP_XSAVE, "KVM_CAP_XSAVE", 0},
		{KVM_CAP_SYNC_REGS, "KVM_CAP_SYNC_REGS", KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS},
	};

	for (size_t i = 0; i < ARRAY_SIZE(needed); i++) {
		int have = check_extension(p->kvm_fd, needed[i].cap);

		if (have <= 0 || (have & needed[i].bits) != needed[i].bits) {
			log_error("kvm: this kernel's KVM lacks %s", needed[i].name);
			return -EOPNOTSUPP;
		}
	}
	return 0;
}

/* Shadow pages are host kernel memory: bounded, but far above KVM's default, which thrashes. */
static unsigned long mmu_pages(void)
{
	struct sysinfo si;
	unsigned long pages = 16384;

	if (sysinfo(&si) == 0)
		pages = si.totalram / MOAT_PAGE_SIZE * si.mem_unit / 16;
	return MIN(MAX(pages, 16384ul), 1ul << 20);
}

static void vm_tune(struct kvm_platform *p)
{
	int quirks = check_extension(p->vm_fd, KVM_CAP_DISABLE_QUIRKS2) & QUIRKS_OFF;
	struct kvm_enable_cap cap = {.cap = KVM_CAP_DISABLE_QUIRKS2, .args = {quirks}};
	int err;

	if (quirks && ioctl(p->vm_fd, KVM_ENABLE_CAP, &cap) < 0) {
		log_warn("kvm: quirks %#x stay on: %s", quirks, strerror(errno));
		quirks = 0;
	}
	if (!(quirks & KVM_X86_QUIRK_SLOT_ZAP_ALL))
		log_info("kvm: deleting a slot drops every slot's shadows here");
	if (ioctl(p->vm_fd, KVM_SET_NR_MMU_PAGES, mmu_pages()) < 0)
		log_warn("kvm: KVM_SET_NR_MMU_PAGES: %s", strerror(errno));
	if (check_extension(p->vm_fd, KVM_CAP_SET_TSS_ADDR) > 0) {
		err = ioctl(p->vm_fd, KVM_SET_TSS_ADDR, VMX_TSS_ADDR) < 0 ? errno : 0;
		if (err)
			log_warn("kvm: KVM_SET_TSS_ADDR: %s", strerror(err));
	}
}

static void *reserve(size_t size, int prot, int flags, int fd)
{
	void *mem = mmap(NULL, size, prot, flags | MAP_NORESERVE, fd, 0);

	if (mem == MAP_FAILED)
		return NULL;
	/* Neither is worth dumping, and a table slot must not be backed by a huge page for its first page's sake. */
	(void)madvise(mem, size, MADV_DONTDUMP);
	(void)madvise(mem, size, MADV_NOHUGEPAGE);
	return mem;
}

static int vm_memory(struct kvm_platform *p)
{
	/* Shared: MADV_DONTNEED never loses it. */
	p->kernel =
		reserve(KVM_KERNEL_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1);
	p->table_mem = reserve(KVM_TABLE_SLOTS_MAX * KVM_TABLE_SLOT_SIZE, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS, -1);
	p->private_map = mmap(NULL, MEMFILE_PRIVATE_MAX, PROT_READ | PROT_WRITE,
			      MAP_SHARED | MAP_NORESERVE, memfile_fd(mem_private()), 0);
	if (p->private_map == MAP_FAILED)
		p->private_map = NULL;
	if (!p->kernel || !p->table_mem || !p->private_map)
		return -ENOMEM;
	(void)madvise(p->private_map, MEMFILE_PRIVATE_MAX, MADV_DONTDUMP);
	p->units[0] = (struct kvm_unit){.hva = p->kernel, .kind = KVM_UNIT_KERNEL};
	p->units_used = 1;
	return kvm_slot_set(p, p->kvm_slots_used++, 0, p->kernel, KVM_KERNEL_SIZE);
}

/* Before 6.13 a vCPU that changes threads costs an RCU grace period. */
static bool vcpus_move_freely(void)
{
	struct utsname un;
	unsigned major = 0, minor = 0;

	return uname(&un) == 0 && sscanf(un.release, "%u.%u", &major, &minor) == 2 &&
	       (major > 6 || (major == 6 && minor >= 13));
}

int kvm_vm_open(struct kvm_platform *p)
{
	int err;

	p->kvm_fd = kvm_device_open();
	if (p->kvm_fd < 0)
		return p->kvm_fd;
	if (ioctl(p->kvm_fd, KVM_GET_API_VERSION, 0) != KVM_API_VERSION)
		return -EOPNOTSUPP;
	err = check_capabilities(p);
	if (err)
		return err;
	do {
		p->vm_fd = ioctl(p->kvm_fd, KVM_CREATE_VM, 0);
	} while (p->vm_fd < 0 && errno == EINTR);
	if (p->vm_fd < 0)
		return -errno;
	vm_tune(p);
	p->vcpus_move = vcpus_move_freely();
	p->share_slice_ns = p->vcpus_move ? KVM_SHARE_SLICE_NS : KVM_SHARE_SLICE_SLOW_NS;
	err = ioctl(p->kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
	if (err < (int)sizeof(struct kvm_run))
		return err < 0 ? -errno : -EOPNOTSUPP;
	p->run_size = err;
	p->slots_limit = MAX(check_extension(p->vm_fd, KVM_CAP_NR_MEMSLOTS), 32);
	p->vcpus_limit =
		MIN((unsigned)MAX(check_extension(p->vm_fd, KVM_CAP_MAX_VCPUS), 4), KVM_VCPUS_MAX);
	p->xsave_size =
		MAX((size_t)check_extension(p->vm_fd, KVM_CAP_XSAVE2), sizeof(struct kvm_xsave));
	if (p->xsave_size > KVM_XSAVE_MAX)
		return -EOPNOTSUPP;
	return vm_memory(p);
}

void kvm_vm_close(struct kvm_platform *p)
{
	if (p->vm_fd >= 0)
		close(p->vm_fd);
	if (p->kvm_fd >= 0)
		close(p->kvm_fd);
	if (p->kernel)
		munmap(p->kernel, KVM_KERNEL_SIZE);
	if (p->table_mem)
		munmap(p->table_mem, KVM_TABLE_SLOTS_MAX * KVM_TABLE_SLOT_SIZE);
	if (p->private_map)
		munmap(p->private_map, MEMFILE_PRIVATE_MAX);
}

int kvm_slot_set(struct kvm_platform *p, uint32_t id, uint64_t gpa, void *hva, uint64_t size)
{
	struct kvm_userspace_memory_region region = {
		.slot = id,
		.guest_phys_addr = gpa,
		.memory_size = size,
		.userspace_addr = (uintptr_t)hva,
	};
	int err;

	do {
		err = kvm_ioctl(p->vm_fd, KVM_SET_USER_MEMORY_REGION, &region);
	} while (err == -EINTR || err == -EAGAIN);
	return err;
}

int kvm_unit_new_locked(struct kvm_platform *p, enum kvm_unit_kind kind, void *hva)
{
	unsigned unit;

	mutex_assert_held(&p->lock);
	if (p->units_used == UNIT_RESERVED)
		p->units_used++;
	if (p->units_used >= p->units_limit)
		return -ENOMEM;
	unit = p->units_used++;
	p->units[unit] = (struct kvm_unit){.hva = hva, .kind = kind};
	return (int)unit;
}

void kvm_gpa_bad(uint64_t gpa)
{
	log_fatal("kvm: a page table leads to %#lx, where no memory is: the guest's tables were "
		  "written to",
		  gpa);
}

/* The slow half of kvm_mem_gpa: `entry` is the unit's place in private_gpa or window_gpa. */
static int unit_add(struct kvm_platform *p, _Atomic uint64_t *entry, enum kvm_unit_kind kind,
		    uint8_t *hva, uint64_t *ret_gpa)
{
	uint64_t gpa;
	int err = 0, unit;

	mutex_lock(&p->lock);
	gpa = atomic_load_explicit(entry, memory_order_relaxed);
	if (gpa)
		goto out_unlock;
	err = -ENOMEM;
	if (p->kvm_slots_used >= p->slots_limit)
		goto out_unlock;
	unit = kvm_unit_new_locked(p, kind, hva);
	if (unit < 0)
		goto out_unlock;
	gpa = (uint64_t)unit << KVM_UNIT_SHIFT;
	err = kvm_slot_set(p, p->kvm_slots_used, gpa, hva, KVM_UNIT_SIZE);
	if (err) {
		log_error("kvm: memory slot at %#lx: %s", gpa, strerror(-err));
		p->units_used--;
		err = -ENOMEM;
		goto out_unlock;
	}
	p->kvm_slots_used++;
	/* Whoever reads the gpa sees the unit. */
	atomic_store_explicit(entry, gpa, memory_order_release);
out_unlock:
	mutex_unlock(&p->lock);
	if (!err)
		*ret_gpa = gpa;
	return err;
}

int kvm_mem_gpa(struct kvm_platform *p, struct memfile *mf, uint64_t mf_off, uint64_t *ret_gpa)
{
	_Atomic uint64_t *entry;
	enum kvm_unit_kind kind;
	uint64_t gpa, off = mf_off;
	uint8_t *hva;
	int err;

	if (memfile_kind(mf) == MEMFILE_PRIVATE) {
		kind = KVM_UNIT_PRIVATE;
		if (off >= MEMFILE_PRIVATE_MAX)
			return -EFAULT;
		entry = &p->private_gpa[off >> KVM_UNIT_SHIFT];
		hva = p->private_map;
	} else {
		uint8_t *ptr = memfile_ptr(mf, mf_off);

		kind = KVM_UNIT_WINDOW;
		hva = mem_window_base();
		if (!ptr || ptr < hva || ptr >= hva + MEM_WINDOW_SIZE)
			return -EFAULT;
		off = ptr - hva;
		entry = &p->window_gpa[off >> KVM_UNIT_SHIFT];
	}
	gpa = atomic_load_explicit(entry, memory_order_acquire);
	if (unlikely(!gpa)) {
		err = unit_add(p, entry, kind, hva + round_down_u64(off, KVM_UNIT_SIZE), &gpa);
		if (err)
			return err;
	}
	*ret_gpa = gpa + (off & (KVM_UNIT_SIZE - 1));
	return 0;
}
