/*
 * sentry/mm/copy.c - the sentry's reads and writes of guest memory, and futex keys.
 *
 * A piece is found under pt_lock (read). Reads then go on in an RCU section without it: the page may be
 * given up meanwhile, not reused. Writes keep pt_lock, because fork would otherwise share the page in the
 * middle of one. A missing piece is faulted in with no lock held, and the look-up repeated.
 */
#include <signal.h>
#include <string.h>

#include "mem/guard.h"
#include "sentry/mm/internal.h"

#define COPY_STEP (64ul << 10) /* pt_lock is held for at most this much */
#define STRING_STEP 512ul

enum copy_dir { COPY_IN, COPY_OUT, COPY_ZERO };

/* What is at addr and how far it goes; NULL if a fault is needed. Pre: pt_lock. */
static char *user_ptr(struct mm *mm, uint64_t addr, unsigned access, uint64_t *ret_len)
{
	struct pma *pma = pma_find(mm, addr);

	if (!pma || (pma->access & access) != access)
		return NULL;
	*ret_len = pma->end - addr;
	return pma->ptr + (addr - pma->start);
}

/* One piece. Return: bytes moved; *ret_fault: nothing is there; *ret_bad: the page cannot be touched. */
static size_t copy_piece(struct mm *mm, void *buf, uint64_t addr, size_t size, enum copy_dir dir,
			 bool *ret_fault, bool *ret_bad)
{
	size_t left = 0;
	uint64_t len;
	char *p;

	rcu_read_begin();
	rwlock_read_lock(&mm->pt_lock);
	p = user_ptr(mm, addr, dir == COPY_IN ? MEM_READ : MEM_WRITE, &len);
	if (p) {
		size = MIN(size, len);
		if (dir != COPY_IN)
			size = MIN(size, COPY_STEP);
		if (dir == COPY_OUT)
			left = guard_copy(p, buf, size);
		else if (dir == COPY_ZERO)
			left = guard_zero(p, size);
	}
	rwlock_read_unlock(&mm->pt_lock);
	if (p && dir == COPY_IN)
		left = guard_copy(buf, p, size);
	rcu_read_end();
	*ret_fault = !p;
	*ret_bad = left != 0;
	return p ? size - left : 0;
}

static size_t copy_user(struct mm *mm, void *buf, uint64_t addr, size_t size, enum copy_dir dir)
{
	size_t done = 0;

	if (addr >= ARCH_TASK_SIZE)
		return 0;
	size = MIN(size, ARCH_TASK_SIZE - addr);
	while (done < size) {
		bool fault, bad;
		int signo, sicode;

		done += copy_piece(mm, buf ? (char *)buf + done : NULL, addr + done, size - done,
				   dir, &fault, &bad);
		if (bad)
			break;
		if (fault && mm_fault(mm, addr + done, dir == COPY_IN ? MEM_READ : MEM_WRITE,
				      &signo, &sicode))
			break;
	}
	return done;
}

int mm_copy_in(struct mm *mm, void *dst, uint64_t addr, size_t size)
{
	return copy_user(mm, dst, addr, size, COPY_IN) == size ? 0 : -EFAULT;
}

int mm_copy_out(struct mm *mm, uint64_t addr, const void *src, size_t size)
{
	return copy_user(mm, (void *)(uintptr_t)src, addr, size, COPY_OUT) == size ? 0 : -EFAULT;
}

int mm_zero_out(struct mm *mm, uint64_t addr, size_t size)
{
	return copy_user(mm, NULL, addr, size, COPY_ZERO) == size ? 0 : -EFAULT;
}

size_t mm_copy_in_partial(struct mm *mm, void *dst, uint64_t addr, size_t size)
{
	return copy_user(mm, dst, addr, size, COPY_IN);
}

size_t mm_copy_out_partial(struct mm *mm, uint64_t addr, const void *src, size_t size)
{
	return copy_user(mm, (void *)(uintptr_t)src, addr, size, COPY_OUT);
}

ssize_t mm_copy_in_string(struct mm *mm, char *dst, uint64_t addr, size_t size)
{
	size_t done = 0;

	while (done < size) {
		/* Not past the page: what follows it may be missing, and the string may end before. */
		uint64_t page_left = MOAT_PAGE_SIZE - ((addr + done) & (MOAT_PAGE_SIZE - 1));
		size_t want = MIN(size - done, STRING_STEP), got;
		char *nul;

		want = MIN(want, page_left);
		got = copy_user(mm, dst + done, addr + done, want, COPY_IN);
		nul = memchr(dst + done, 0, got);
		if (nul)
			return nul - dst;
		if (got < want)
			return -EFAULT;
		done += got;
	}
	return -ENAMETOOLONG;
}

/* One piece of a debugger's access, after a forced fault. Return: bytes moved, 0 to fault again. */
static size_t remote_piece(struct mm *mm, uint64_t addr, void *buf, size_t size, bool write)
{
	struct pma *pma;
	size_t n = 0;

	if (write)
		rwlock_write_lock(&mm->pt_lock);
	else
		rwlock_read_lock(&mm->pt_lock);
	pma = pma_find(mm, addr);
	if (pma && (!write || ((pma->flags & PMA_OWN) && !(pma->flags & PMA_COW)) ||
		    ((pma->flags & PMA_SHARED) && (pma->limit & MEM_WRITE)))) {
		char *p = pma->ptr + (addr - pma->start);

		n = MIN(size, pma->end - addr);
		n = MIN(n, COPY_STEP);
		n -= write ? guard_copy(p, buf, n) : guard_copy(buf, p, n);
		/* Text: what runs may be a patched copy of it. */
		if (write && n && !(pma->access & MEM_WRITE))
			mm->platform->ops->as_unmap(mm->as, page_down(addr),
						    page_up(addr + n) - page_down(addr));
	}
	if (write)
		rwlock_write_unlock(&mm->pt_lock);
	else
		rwlock_read_unlock(&mm->pt_lock);
	return n;
}

static size_t access_remote(struct mm *mm, uint64_t addr, void *buf, size_t size, bool write,
			    unsigned flags)
{
	unsigned access = write ? MEM_WRITE : MEM_READ;
	size_t done = 0;

	while (done < size) {
		int signo, sicode;
		size_t n = 0;

		/* Nothing: a truncated file, or the page went away between; a second fault tells. */
		for (int tries = 0; !n && tries < 2; tries++) {
			if (mm_fault_flags(mm, addr + done, access, flags, &signo, &sicode))
				return done;
			n = remote_piece(mm, addr + done, (char *)buf + done, size - done, write);
		}
		if (!n)
			break;
		done += n;
	}
	return done;
}

size_t mm_access_remote(struct mm *mm, uint64_t addr, void *buf, size_t size, bool write)
{
	return access_remote(mm, addr, buf, size, write, FAULT_FORCE);
}

size_t mm_copy_remote(struct mm *mm, uint64_t addr, void *buf, size_t size, bool write)
{
	return access_remote(mm, addr, buf, size, write, 0);
}

int mm_load_u32(struct mm *mm, uint64_t addr, uint32_t *ret_val)
{
	if ((addr & 3) || addr >= ARCH_TASK_SIZE)
		return -EFAULT;
	for (;;) {
		int signo, sicode, err = 0;
		uint64_t len;
		char *p;

		rcu_read_begin();
		rwlock_read_lock(&mm->pt_lock);
		p = user_ptr(mm, addr, MEM_READ, &len);
		rwlock_read_unlock(&mm->pt_lock);
		if (p)
			err = guard_load_u32(p, ret_val);
		rcu_read_end();
		if (p)
			return err;
		if (mm_fault(mm, addr, MEM_READ, &signo, &sicode))
			return -EFAULT;
	}
}

int mm_cmpxchg_u32(struct mm *mm, uint64_t addr, uint32_t *inout_expected, uint32_t desired)
{
	if ((addr & 3) || addr >= ARCH_TASK_SIZE)
		return -EFAULT;
	for (;;) {
		int signo, sicode, err = 0;
		uint64_t len;
		char *p;

		rwlock_read_lock(&mm->pt_lock);
		p = user_ptr(mm, addr, MEM_WRITE, &len);
		if (p)
			err = guard_cmpxchg_u32(p, inout_expected, desired);
		rwlock_read_unlock(&mm->pt_lock);
		if (p)
			return err;
		if (mm_fault(mm, addr, MEM_WRITE, &signo, &sicode))
			return -EFAULT;
	}
}

int mm_futex_key(struct mm *mm, uint64_t addr, bool shared, bool write, struct futex_key *ret_key)
{
	struct vma *vma;
	uint32_t val;
	int err;

	if (addr >= ARCH_TASK_SIZE)
		return -EFAULT;
	*ret_key = (struct futex_key){
		.a = (uintptr_t)mm,
		.b = page_down(addr),
		.off = (uint32_t)(addr - page_down(addr)),
		.mm = mm,
	};
	if (!shared)
		return 0;
	/* Linux pins the page: it must be there, and writable if the call writes. */
	err = mm_load_u32(mm, addr & ~3ul, &val);
	if (err)
		return err;
	rwlock_read_lock(&mm->vma_lock);
	vma = vma_find(mm, addr);
	if (!vma || (write && !(vma->prot & PROT_WRITE))) {
		err = -EFAULT;
	} else if ((vma->flags & VMA_SHARED) && vma->mappable) {
		vma->mappable->ops->ref(vma->mappable);
		ret_key->a = (uintptr_t)vma->mappable | 1;
		ret_key->b = vma->off + (page_down(addr) - vma->start);
		ret_key->mm = NULL;
		ret_key->mappable = vma->mappable;
	}
	rwlock_read_unlock(&mm->vma_lock);
	return err;
}

void futex_key_fini(struct futex_key *key)
{
	if (key->mappable)
		key->mappable->ops->unref(key->mappable);
	key->mappable = NULL;
}
