/* syscalls/sys_mmap.c - address spaces. The mm does the work; here are the arguments' checks, in Linux's order. */
#include <sys/mman.h>
#include <sys/stat.h>

#include "sentry/fs/fs.h"
#include "syscalls/syscalls.h"
#include "syscalls/util.h"

#ifndef MAP_DROPPABLE
#define MAP_DROPPABLE 8
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif
#define MAP_32BIT_ 0x40
#define PROT_GROWSDOWN_ 0x01000000u
#define PROT_GROWSUP_ 0x02000000u
#define PROT_SEM_ 8u
#define PROT_ALL (PROT_READ | PROT_WRITE | PROT_EXEC)
#define READ_IMPLIES_EXEC_ 0x0400000u
#define CAP_SYS_NICE_ 23

/* LEGACY_MAP_MASK: what MAP_SHARED_VALIDATE lets pass, with the newer flags. */
#define MAP_VALIDATED                                                                        \
	(MAP_SHARED | MAP_PRIVATE | MAP_FIXED | MAP_ANONYMOUS | MAP_32BIT_ | MAP_GROWSDOWN | \
	 MAP_DENYWRITE | MAP_EXECUTABLE | MAP_LOCKED | MAP_NORESERVE | MAP_POPULATE |        \
	 MAP_NONBLOCK | MAP_STACK | MAP_HUGETLB | MAP_FIXED_NOREPLACE | MAP_UNINITIALIZED_)
#define MAP_UNINITIALIZED_ 0x4000000
#define MAP_HUGE_BITS (0x3f << 26)

/* do_mmap's checks of a file against what is asked. */
static int check_file_mapping(struct file *f, unsigned type, unsigned flags, unsigned prot,
			      struct mm_map_args *args)
{
	bool noexec =
		f->path.mount &&
		(atomic_load_explicit(&f->path.mount->flags, memory_order_relaxed) & MNT_NOEXEC_F);

	if (type == MAP_SHARED_VALIDATE &&
	    (flags & ~(unsigned)(MAP_VALIDATED | MAP_HUGE_BITS | MAP_SHARED_VALIDATE)))
		return -EOPNOTSUPP;
	if (type == MAP_SHARED || type == MAP_SHARED_VALIDATE) {
		if ((prot & PROT_WRITE) && !(f->mode & FILE_WRITE))
			return -EACCES;
		/* PROT_WRITE or not: mprotect() could add it. */
		if ((f->mode & FILE_WRITE) && f->ops->append_only && f->ops->append_only(f))
			return -EACCES;
		args->shared = true;
		if (!(f->mode & FILE_WRITE))
			args->max_prot &= ~(unsigned)PROT_WRITE;
	}
	if (!(f->mode & FILE_READ))
		return -EACCES;
	/* seal_check_write: a sealed file is mapped shared for reading at most. */
	if (args->shared && f->ops->get_seals) {
		int seals = f->ops->get_seals(f);

		if (seals > 0 && (seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE))) {
			if (prot & PROT_WRITE)
				return -EPERM;
			args->max_prot &= ~(unsigned)PROT_WRITE;
		}
	}
	if (noexec) {
		if (prot & PROT_EXEC)
			return -EPERM;
		args->max_prot &= ~(unsigned)PROT_EXEC;
	}
	if (flags & MAP_GROWSDOWN)
		return dev_is_zero(f) || file_mappable(f) ? -EINVAL : -ENODEV;
	if (dev_is_zero(f)) {
		/* Anonymous memory by another name; what the descriptor forbids stays so. */
		args->off = 0;
		return 0;
	}
	args->mappable = file_mappable(f);
	if (!args->mappable)
		return -ENODEV;
	args->file = f;
	return 0;
}

/* ---- MAP_32BIT: as Linux's, the hint where it is free and ends below 2 GiB, else the first gap in [1 GiB, 2 GiB) ---- */

#define LOW_START 0x40000000ull
#define LOW_END 0x80000000ull
#define LOW_HINT_MIN 0x10000ull /* vm.mmap_min_addr */
#define LOW_TRIES 8 /* another thread may take the gap */

struct gap_search {
	uint64_t at, size;
};

static int gap_step(void *arg, const struct mm_vma_info *info)
{
	struct gap_search *s = arg;

	if (info->start >= s->at + s->size)
		return 1;
	s->at = MAX(s->at, info->end);
	return 0;
}

static int map_low(struct task *t, struct mm_map_args *args, const struct mm_limits *lim,
		   uint64_t *ret_addr)
{
	uint64_t size = round_up_u64(args->size, MOAT_PAGE_SIZE);
	uint64_t hint = args->addr & ~(MOAT_PAGE_SIZE - 1ull);
	int err = -ENOMEM;

	if (hint && hint < LOW_END && size <= LOW_END - hint) {
		args->addr = MAX(hint, LOW_HINT_MIN);
		args->fixed = args->fixed_noreplace = true;
		err = mm_map(t->mm, args, lim, ret_addr);
		if (err != -EEXIST)
			return err;
	}
	for (int i = 0; i < LOW_TRIES; i++) {
		struct gap_search s = {LOW_START, size};

		(void)mm_for_each_vma(t->mm, LOW_START, gap_step, &s);
		if (s.at + s.size > LOW_END)
			return -ENOMEM;
		args->addr = s.at;
		args->fixed = args->fixed_noreplace = true;
		err = mm_map(t->mm, args, lim, ret_addr);
		if (err != -EEXIST)
			return err;
	}
	return err == -EEXIST ? -ENOMEM : err;
}

static int64_t do_mmap(struct task *t, struct file *f, uint64_t addr, uint64_t size, unsigned prot,
		       unsigned flags, uint64_t off)
{
	unsigned type = flags & MAP_TYPE;
	struct mm_map_args args = {
		.addr = addr,
		.size = size,
		.off = off,
		.max_prot = PROT_ALL,
		.fixed = flags & (MAP_FIXED | MAP_FIXED_NOREPLACE),
		.fixed_noreplace = flags & MAP_FIXED_NOREPLACE,
		.grows_down = flags & MAP_GROWSDOWN,
		.stack = flags & MAP_STACK,
		.locked = flags & MAP_LOCKED,
		.noreserve = flags & MAP_NORESERVE,
		.populate = (flags & (MAP_POPULATE | MAP_NONBLOCK)) == MAP_POPULATE,
	};
	struct mm_limits lim;
	uint64_t end, ret;
	int err;

	if (!size)
		return -EINVAL;
	if (size > ARCH_TASK_SIZE)
		return -ENOMEM;
	if (__builtin_add_overflow(off, round_up_u64(size, MOAT_PAGE_SIZE), &end))
		return -EOVERFLOW;
	if ((t->personality & READ_IMPLIES_EXEC_) && (prot & PROT_READ))
		prot |= PROT_EXEC;
	args.prot = prot & PROT_ALL;
	if (f) {
		if (type != MAP_SHARED && type != MAP_PRIVATE && type != MAP_SHARED_VALIDATE)
			return -EINVAL;
		err = check_file_mapping(f, type, flags, prot, &args);
		if (err)
			return err;
	} else {
		if (type != MAP_SHARED && type != MAP_PRIVATE)
			return -EINVAL;
		if (type == MAP_SHARED && (flags & MAP_GROWSDOWN))
			return -EINVAL;
		args.shared = type == MAP_SHARED;
		args.off = 0;
	}
	task_mm_limits(t, &lim);
	if ((flags & MAP_32BIT_) && !args.fixed)
		err = map_low(t, &args, &lim, &ret);
	else
		err = mm_map(t->mm, &args, &lim, &ret);
	return err ? err : (int64_t)ret;
}

int64_t sys_mmap(struct task *t, const struct syscall_args *a)
{
	unsigned flags = (unsigned)a->a[3];
	struct file *f = NULL;
	int64_t ret;

	if (a->a[5] & ~MOAT_PAGE_MASK)
		return -EINVAL;
	if (!(flags & MAP_ANONYMOUS)) {
		f = sys_fd(t, ARG_INT(4));
		if (!f)
			return -EBADF;
		/* There is no hugetlbfs: no file can be one. */
		if (flags & MAP_HUGETLB) {
			file_unref(f);
			return -EINVAL;
		}
	} else if (flags & MAP_HUGETLB) {
		/* As with an empty huge page pool. */
		return -ENOMEM;
	}
	ret = do_mmap(t, f, a->a[0], a->a[1], (unsigned)a->a[2], flags, a->a[5]);
	if (f)
		file_unref(f);
	return ret;
}

int64_t sys_munmap(struct task *t, const struct syscall_args *a)
{
	return mm_unmap(t->mm, a->a[0], a->a[1]);
}

static int64_t protect(struct task *t, uint64_t addr, uint64_t size, uint64_t prot64)
{
	unsigned prot = (unsigned)prot64;
	unsigned grows = prot & (PROT_GROWSDOWN_ | PROT_GROWSUP_);
	struct mm_limits lim;

	prot &= ~(PROT_GROWSDOWN_ | PROT_GROWSUP_);
	if (grows == (PROT_GROWSDOWN_ | PROT_GROWSUP_))
		return -EINVAL;
	if (addr & ~MOAT_PAGE_MASK)
		return -EINVAL;
	if (!size)
		return 0;
	if (size > UINT64_MAX - MOAT_PAGE_SIZE || addr + round_up_u64(size, MOAT_PAGE_SIZE) <= addr)
		return -ENOMEM;
	if (prot & ~(unsigned)(PROT_ALL | PROT_SEM_))
		return -EINVAL;
	/* Nothing grows up here. */
	if (grows & PROT_GROWSUP_)
		return -EINVAL;
	if ((t->personality & READ_IMPLIES_EXEC_) && (prot & PROT_READ))
		prot |= PROT_EXEC;
	task_mm_limits(t, &lim);
	return mm_protect(t->mm, addr, size, prot & PROT_ALL, grows & PROT_GROWSDOWN_, &lim);
}

int64_t sys_mprotect(struct task *t, const struct syscall_args *a)
{
	return protect(t, a->a[0], a->a[1], a->a[2]);
}

/* No protection keys, as on a CPU without them: none can be allocated, none but -1 used. */
int64_t sys_pkey_mprotect(struct task *t, const struct syscall_args *a)
{
	if (ARG_INT(3) != -1)
		return -EINVAL;
	return protect(t, a->a[0], a->a[1], a->a[2]);
}

int64_t sys_pkey_alloc(unused_arg struct task *t, const struct syscall_args *a)
{
	if (a->a[0] || (a->a[1] & ~3ull))
		return -EINVAL;
	return -ENOSPC;
}

int64_t sys_pkey_free(unused_arg struct task *t, unused_arg const struct syscall_args *a)
{
	return -EINVAL;
}

int64_t sys_mremap(struct task *t, const struct syscall_args *a)
{
	struct mm_limits lim;
	uint64_t ret;
	int err;

	task_mm_limits(t, &lim);
	err = mm_remap(t->mm, a->a[0], a->a[1], a->a[2], ARG_UINT(3), a->a[4], &lim, &ret);
	return err ? err : (int64_t)ret;
}

int64_t sys_brk(struct task *t, const struct syscall_args *a)
{
	struct mm_limits lim;
	uint64_t ret = 0;

	task_mm_limits(t, &lim);
	/* brk(2) answers where the break is, moved or not. */
	if (mm_brk(t->mm, a->a[0], &lim, &ret)) {
		struct mm_layout layout;

		mm_get_layout(t->mm, &layout);
		ret = layout.brk;
	}
	return (int64_t)ret;
}

int64_t sys_madvise(struct task *t, const struct syscall_args *a)
{
	return sys_restart(mm_advise(t->mm, a->a[0], a->a[1], ARG_INT(2)));
}

int64_t sys_msync(struct task *t, const struct syscall_args *a)
{
	int flags = ARG_INT(2);

	if (flags & ~(MS_ASYNC | MS_INVALIDATE | MS_SYNC))
		return -EINVAL;
	if (a->a[0] & ~MOAT_PAGE_MASK)
		return -EINVAL;
	if ((flags & MS_ASYNC) && (flags & MS_SYNC))
		return -EINVAL;
	return mm_sync(t->mm, a->a[0], a->a[1], flags);
}

int64_t sys_mincore(struct task *t, const struct syscall_args *a)
{
	if (a->a[0] & ~MOAT_PAGE_MASK)
		return -EINVAL;
	if (!sys_range_ok(a->a[0], a->a[1]))
		return -ENOMEM;
	return mm_mincore(t->mm, a->a[0], a->a[1], a->a[2]);
}

#define MLOCK_ONFAULT_ 1

static int64_t lock_range(struct task *t, uint64_t addr, uint64_t size, unsigned flags, bool lock)
{
	struct mm_limits lim;

	task_mm_limits(t, &lim);
	return mm_lock(t->mm, addr, size, flags, lock, &lim);
}

int64_t sys_mlock(struct task *t, const struct syscall_args *a)
{
	return lock_range(t, a->a[0], a->a[1], 0, true);
}

int64_t sys_mlock2(struct task *t, const struct syscall_args *a)
{
	if (ARG_INT(2) & ~MLOCK_ONFAULT_)
		return -EINVAL;
	return lock_range(t, a->a[0], a->a[1], ARG_UINT(2), true);
}

int64_t sys_munlock(struct task *t, const struct syscall_args *a)
{
	return lock_range(t, a->a[0], a->a[1], 0, false);
}

int64_t sys_mlockall(struct task *t, const struct syscall_args *a)
{
	unsigned flags = ARG_UINT(0);
	struct mm_limits lim;

	if (!flags || (flags & ~(unsigned)(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT)) ||
	    flags == MCL_ONFAULT)
		return -EINVAL;
	task_mm_limits(t, &lim);
	return mm_lock_all(t->mm, flags, true, &lim);
}

int64_t sys_munlockall(struct task *t, unused_arg const struct syscall_args *a)
{
	struct mm_limits lim;

	task_mm_limits(t, &lim);
	return mm_lock_all(t->mm, 0, false, &lim);
}

int64_t sys_mseal(struct task *t, const struct syscall_args *a)
{
	return a->a[2] ? -EINVAL : mm_seal(t->mm, a->a[0], a->a[1]);
}

int64_t sys_remap_file_pages(struct task *t, const struct syscall_args *a)
{
	uint64_t start = a->a[0] & MOAT_PAGE_MASK, size = a->a[1] & MOAT_PAGE_MASK, off = a->a[3];
	struct mm_limits lim;

	if (a->a[2] || start + size <= start || start + size > ARCH_TASK_SIZE ||
	    off + size / MOAT_PAGE_SIZE < off)
		return -EINVAL;
	/* Beyond any file either way: -EOVERFLOW, if there is a mapping. */
	off = MIN(off, UINT64_MAX / MOAT_PAGE_SIZE);
	task_mm_limits(t, &lim);
	return mm_remap_file_pages(t->mm, start, size, off * MOAT_PAGE_SIZE,
				   !(a->a[4] & MAP_NONBLOCK), &lim);
}
