/*
 * tests/unit/fake_platform.h - a platform without a CPU: it records translations, and app_load/app_store do
 * what an application's instruction would, fault included. Also files to map: in private memory and
 * on the host. Included by the mm's and the loader's tests.
 */
#ifndef MOAT_TESTS_FAKE_PLATFORM_H
#define MOAT_TESTS_FAKE_PLATFORM_H

#include <stdlib.h>
#include <string.h>

#include "base/lock.h"
#include "base/rcu.h"
#include "base/tree.h"
#include "mem/guard.h"
#include "sentry/mm/internal.h"
#include "vfs/file.h"

struct fake_pte {
	RB_ENTRY(fake_pte) node;
	uint64_t va;
	struct memfile *mf;
	uint64_t off;
	unsigned access;
	bool shared;
};

static int fake_pte_cmp(const struct fake_pte *a, const struct fake_pte *b)
{
	return a->va < b->va ? -1 : a->va > b->va;
}

RB_HEAD(fake_tree, fake_pte);
RB_GENERATE_LOCAL(fake_tree, fake_pte, node, fake_pte_cmp)

struct address_space {
	struct mutex lock;
	struct fake_tree ptes;
};

static _Atomic int fake_spaces;
static _Atomic unsigned long fake_map_calls, fake_unmap_calls;

static struct fake_pte *fake_find(struct address_space *as, uint64_t va)
{
	struct fake_pte key = {.va = va};

	return RB_FIND(fake_tree, &as->ptes, &key);
}

static unused_arg int fake_as_create(struct platform *p, struct address_space **ret_as)
{
	struct address_space *as = calloc(1, sizeof(*as));

	(void)p;
	mutex_init(&as->lock, LOCK_AS, "fake as");
	RB_INIT(&as->ptes);
	fake_spaces++;
	*ret_as = as;
	return 0;
}

static unused_arg void fake_unmap_locked(struct address_space *as, uint64_t va, uint64_t size)
{
	struct fake_pte key = {.va = va}, *pte = RB_NFIND(fake_tree, &as->ptes, &key), *next;

	for (; pte && pte->va < va + size; pte = next) {
		next = RB_NEXT(fake_tree, &as->ptes, pte);
		RB_REMOVE(fake_tree, &as->ptes, pte);
		free(pte);
	}
}

static void fake_as_unmap(struct address_space *as, uint64_t va, uint64_t size)
{
	fake_unmap_calls++;
	mutex_lock(&as->lock);
	fake_unmap_locked(as, va, size);
	mutex_unlock(&as->lock);
}

static void fake_as_clear(struct address_space *as)
{
	fake_as_unmap(as, 0, ARCH_TASK_SIZE);
}

static void fake_as_destroy(struct address_space *as)
{
	fake_as_clear(as);
	fake_spaces--;
	free(as);
}

static int fake_as_map(struct address_space *as, uint64_t va, uint64_t size, struct memfile *mf,
		       uint64_t mf_off, unsigned access, unsigned flags)
{
	uint64_t i;
	int err = 0;

	assert(!((va | size | mf_off) & 4095) && size && access);
	fake_map_calls++;
	mutex_lock(&as->lock);
	for (i = 0; i < size; i += 4096) {
		struct fake_pte *pte = fake_find(as, va + i);

		/* What a real platform does before it installs a host page's entry. */
		if (memfile_kind(mf) == MEMFILE_HOST &&
		    guard_probe(memfile_ptr(mf, mf_off + i), false)) {
			fake_unmap_locked(as, va + i, size - i);
			if (!i)
				err = -EFAULT;
			break;
		}
		if (!pte) {
			pte = calloc(1, sizeof(*pte));
			pte->va = va + i;
			RB_INSERT(fake_tree, &as->ptes, pte);
		}
		pte->mf = mf;
		pte->off = mf_off + i;
		pte->access = access | MEM_READ;
		pte->shared = flags & PLATFORM_MAP_SHARED;
	}
	mutex_unlock(&as->lock);
	return err;
}

static void fake_as_protect(struct address_space *as, uint64_t va, uint64_t size, unsigned access)
{
	struct fake_pte key = {.va = va}, *pte;

	mutex_lock(&as->lock);
	pte = RB_NFIND(fake_tree, &as->ptes, &key);
	for (; pte && pte->va < va + size; pte = RB_NEXT(fake_tree, &as->ptes, pte))
		pte->access &= access;
	mutex_unlock(&as->lock);
}

static int fake_as_fork(struct address_space *parent, struct address_space *child)
{
	struct fake_pte *pte, *copy;

	mutex_lock(&parent->lock);
	RB_FOREACH (pte, fake_tree, &parent->ptes) {
		if (!pte->shared)
			pte->access &= ~(unsigned)MEM_WRITE;
		copy = malloc(sizeof(*copy));
		*copy = *pte;
		RB_INSERT(fake_tree, &child->ptes, copy);
	}
	mutex_unlock(&parent->lock);
	return 0;
}

static const struct platform_ops fake_ops = {
	.name = "fake",
	.as_create = fake_as_create,
	.as_destroy = fake_as_destroy,
	.as_map = fake_as_map,
	.as_unmap = fake_as_unmap,
	.as_protect = fake_as_protect,
	.as_fork = fake_as_fork,
	.as_clear = fake_as_clear,
};

static struct platform fake_platform = {.ops = &fake_ops};

/*
 * An instruction of the application that reads or writes one byte. Return: 0, or the signal. The
 * address-space lock stands for the invalidation that waits for the CPU.
 */
static unused_arg int app_touch(struct mm *mm, uint64_t addr, char *val, bool write)
{
	unsigned need = write ? MEM_WRITE : MEM_READ;

	for (;;) {
		struct address_space *as = mm_address_space(mm);
		struct fake_pte *pte;
		int signo = 0, sicode, err;

		mutex_lock(&as->lock);
		pte = fake_find(as, addr & ~4095ul);
		if (pte && (pte->access & need)) {
			char *p = (char *)memfile_ptr(pte->mf, pte->off) + (addr & 4095);
			size_t left = write ? guard_copy(p, val, 1) : guard_copy(val, p, 1);

			if (left)
				fake_unmap_locked(as, addr & ~4095ul, 4096);
			mutex_unlock(&as->lock);
			if (!left)
				return 0;
			continue;
		}
		mutex_unlock(&as->lock);
		err = mm_fault(mm, addr, need, &signo, &sicode);
		if (err)
			return err == -EFAULT ? signo : 1000 - err;
	}
}

static unused_arg int app_load(struct mm *mm, uint64_t addr, char *ret)
{
	return app_touch(mm, addr, ret, false);
}

static unused_arg int app_store(struct mm *mm, uint64_t addr, char val)
{
	return app_touch(mm, addr, &val, true);
}

/* Every platform entry is backed by a translation that allows it; VMAs and translations nest. Quiescent mm. */
static unused_arg void check_mm(struct mm *mm)
{
	struct address_space *as = mm_address_space(mm);
	struct fake_pte *pte;
	struct pma *pma, *prev = NULL;
	struct vma *vma;
	uint64_t vm = 0, anon = 0, end = 0;
	unsigned count = 0;

	rwlock_read_lock(&mm->vma_lock);
	rwlock_read_lock(&mm->pt_lock);
	mutex_lock(&as->lock);
	for (vma = vma_first(mm); vma; vma = vma_next(vma)) {
		assert(vma->start >= end && vma->end > vma->start);
		assert(vma->gap == vma->start - end);
		end = vma->end;
		vm += vma->end - vma->start;
		count++;
		if (vma->mappable)
			assert(vma->map.addr == vma->start && vma->map.off == vma->off &&
			       vma->map.size == vma->end - vma->start);
	}
	assert(vm == mm->vm_bytes && count == mm->vma_count);
	for (pma = pma_find_next(mm, 0); pma; prev = pma, pma = pma_next(pma)) {
		uint64_t pos;

		assert(!prev || prev->end <= pma->start);
		assert((char *)memfile_ptr(pma->mf, pma->off) == pma->ptr);
		/* Neighbouring segments of a host file may follow each other in the window. */
		for (pos = 0; pos < pma->end - pma->start; pos += 4096)
			assert((char *)memfile_ptr(pma->mf, pma->off + pos) == pma->ptr + pos);
		pos = pma->start;
		if (pma->flags & PMA_ANON)
			anon += pma->end - pma->start;
		for (; pos < pma->end; pos = vma->end) {
			vma = vma_find(mm, pos);
			assert(vma);
			assert(pma->access == pma_calc_access(pma, vma->prot));
		}
	}
	assert(anon == mm->rss_anon);
	RB_FOREACH (pte, fake_tree, &as->ptes) {
		pma = pma_find(mm, pte->va);
		assert(pma && pte->mf == pma->mf && pte->off == pma->off + (pte->va - pma->start));
		assert(!(pte->access & ~pma->access));
	}
	mutex_unlock(&as->lock);
	rwlock_read_unlock(&mm->pt_lock);
	rwlock_read_unlock(&mm->vma_lock);
}

/* A file of private memory (as memfs), or of the host. */
#define TFILE_MAX_CHUNKS 256

struct tfile {
	struct mappable m;
	_Atomic int refs;
	uint64_t size; /* guarded by data_lock */
	uint64_t chunk[TFILE_MAX_CHUNKS]; /* 0: not there */
	struct memfile *host;
	bool need_populate, write_tracked;
	_Atomic int populates, writes;
};

static int tfile_translate(struct mappable *m, uint64_t off, uint64_t hint_start, uint64_t hint_end,
			   unsigned access, struct mem_trans *ret)
{
	struct tfile *t = container_of(m, struct tfile, m);
	uint64_t start = MAX(round_down_u64(off, MEM_CHUNK_SIZE), hint_start);
	uint64_t end = MIN(round_down_u64(off, MEM_CHUNK_SIZE) + MEM_CHUNK_SIZE, hint_end);

	if (off >= t->size)
		return -EFAULT;
	if (t->need_populate)
		return -EAGAIN;
	ret->access = MEM_READ | MEM_WRITE | MEM_EXEC;
	if (t->write_tracked && !(access & MEM_WRITE))
		ret->access &= ~(unsigned)MEM_WRITE;
	if (access & MEM_WRITE)
		t->writes++;
	if (t->host) {
		ret->start = hint_start;
		ret->size = MIN(hint_end, round_up_u64(t->size, 4096)) - hint_start;
		ret->mf = t->host;
		ret->mf_off = ret->start;
		return memfile_range_ref(t->host, ret->mf_off, ret->size);
	}
	end = MIN(end, round_up_u64(t->size, 4096));
	ret->mf = mem_private();
	ret->mf_off = t->chunk[off / MEM_CHUNK_SIZE] + (start & (MEM_CHUNK_SIZE - 1));
	ret->start = start;
	ret->size = end - start;
	return memfile_range_ref(ret->mf, ret->mf_off, ret->size);
}

static int tfile_populate(struct mappable *m, uint64_t off, uint64_t size, unsigned access)
{
	struct tfile *t = container_of(m, struct tfile, m);

	(void)off;
	(void)size;
	(void)access;
	rwlock_write_lock(&m->data_lock);
	t->need_populate = false;
	t->populates++;
	rwlock_write_unlock(&m->data_lock);
	return 0;
}

static void tfile_ref(struct mappable *m)
{
	container_of(m, struct tfile, m)->refs++;
}

static void tfile_unref(struct mappable *m)
{
	struct tfile *t = container_of(m, struct tfile, m);
	int left = --t->refs;

	assert(left >= 0);
}

static const struct mappable_ops tfile_ops = {
	.translate = tfile_translate,
	.populate = tfile_populate,
	.ref = tfile_ref,
	.unref = tfile_unref,
};

static char *tfile_ptr(struct tfile *t, uint64_t off)
{
	if (t->host)
		return memfile_ptr(t->host, off);
	return (char *)memfile_ptr(mem_private(), t->chunk[off / MEM_CHUNK_SIZE]) +
	       off % MEM_CHUNK_SIZE;
}

/* Byte at page p of a file that nobody wrote. */
static unused_arg char tfile_byte(uint64_t off)
{
	return (char)(off / 4096 * 7 + 1);
}

static unused_arg void tfile_init(struct tfile *t, uint64_t size)
{
	uint64_t i;

	memset(t, 0, sizeof(*t));
	mappable_init(&t->m, &tfile_ops);
	t->refs = 1;
	t->size = size;
	for (i = 0; i * MEM_CHUNK_SIZE < size; i++)
		if (memfile_alloc(mem_private(), MEM_CHUNK_SIZE, 0, 0, &t->chunk[i]))
			abort();
	for (i = 0; i < size; i += 4096)
		memset(tfile_ptr(t, i), tfile_byte(i), MIN(4096ul, size - i));
}

/* Shrinks and grows again at once: old contents are gone everywhere. */
static unused_arg void tfile_truncate(struct tfile *t, uint64_t size, uint64_t regrow)
{
	uint64_t i, old[TFILE_MAX_CHUNKS] = {0};

	rwlock_write_lock(&t->m.data_lock);
	mappable_invalidate(&t->m, round_up_u64(size, 4096), UINT64_MAX, true);
	for (i = round_up_u64(size, MEM_CHUNK_SIZE); i < round_up_u64(t->size, MEM_CHUNK_SIZE);
	     i += MEM_CHUNK_SIZE) {
		old[i / MEM_CHUNK_SIZE] = t->chunk[i / MEM_CHUNK_SIZE];
		t->chunk[i / MEM_CHUNK_SIZE] = 0;
	}
	if (size % MEM_CHUNK_SIZE)
		memset(tfile_ptr(t, size), 0, MEM_CHUNK_SIZE - size % MEM_CHUNK_SIZE);
	for (i = round_up_u64(size, MEM_CHUNK_SIZE); i < regrow; i += MEM_CHUNK_SIZE)
		if (memfile_alloc(mem_private(), MEM_CHUNK_SIZE, 0, 0,
				  &t->chunk[i / MEM_CHUNK_SIZE]))
			abort();
	t->size = MAX(size, regrow);
	rwlock_write_unlock(&t->m.data_lock);
	for (i = 0; i < TFILE_MAX_CHUNKS; i++)
		if (old[i])
			memfile_range_unref(mem_private(), old[i], MEM_CHUNK_SIZE);
}

static unused_arg void tfile_fini(struct tfile *t)
{
	unsigned i;

	assert(t->refs == 1);
	mappable_fini(&t->m);
	for (i = 0; i < TFILE_MAX_CHUNKS; i++)
		if (t->chunk[i])
			memfile_range_unref(mem_private(), t->chunk[i], MEM_CHUNK_SIZE);
	if (t->host)
		memfile_unref(t->host);
}

static const struct mm_limits no_limits = {UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX};

static unused_arg uint64_t private_bytes(void)
{
	struct mem_stats s;

	mem_get_stats(&s);
	return s.private_bytes;
}

#endif
