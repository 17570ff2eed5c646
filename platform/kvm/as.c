/*
 * platform/kvm/as.c - address spaces: translations in and out, and rules (a) and (b) of kvm.c.
 *
 * Entries are changed under the address space's lock by whole 8-byte stores. What used to be allowed and no
 * longer is gets collected in a struct kvm_flush and dropped (rule a) before the lock is let go; a change
 * of many scattered pages takes a fresh tree instead (rule b).
 */
#include <stdlib.h>
#include <sys/mman.h>

#include "base/log.h"
#include "mem/guard.h"
#include "platform/kvm/as_internal.h"

/*
 * What the two ways to take translations away cost, in tenths of a microsecond: rule (a) a call an extent and KVM's
 * work a page; rule (b) a tree, and a shadow fault for each page that is touched again.
 */
#define COST_EXTENT 20u
#define COST_FLUSHED_PAGE 2u
#define COST_TREE 600u
#define COST_SHADOW_FAULT 7u

static uint64_t pte_bits(unsigned access, unsigned flags)
{
	uint64_t bits = PTE_P | PTE_U | PTE_AD;

	if (access & MEM_WRITE)
		bits |= PTE_W;
	if (!(access & MEM_EXEC))
		bits |= PTE_NX;
	if (flags & PLATFORM_MAP_SHARED)
		bits |= PTE_SHARED;
	return bits;
}

/* Would the CPU be allowed something by `old` that `val` forbids? */
static bool pte_takes_away(uint64_t old, uint64_t val)
{
	if (!(old & PTE_P))
		return false;
	if (!(val & PTE_P) || ((old ^ val) & PTE_ADDR))
		return true;
	return ((old & PTE_W) && !(val & PTE_W)) || (!(old & PTE_NX) && (val & PTE_NX));
}

void kvm_flush_init(struct kvm_flush *f, struct address_space *as)
{
	f->as = as;
	f->count = 0;
	f->pages = f->cost = 0;
	f->rebuild = false;
}

/*
 * Drops what has been collected. KVM drops every shadow of these pages and every combined translation; a shared
 * file's pages stay. This comes after the entries' stores: a shadow fault that read an old entry reads it again
 * under the lock that this call takes.
 */
static void flush_extents(struct kvm_flush *f)
{
	f->cost += f->count * COST_EXTENT + f->pages * COST_FLUSHED_PAGE;
	if (f->cost > COST_TREE + f->as->tree.present * COST_SHADOW_FAULT)
		f->rebuild = true;
	for (unsigned i = 0; i < f->count && !f->rebuild; i++)
		if (madvise(f->extents[i].start, f->extents[i].end - f->extents[i].start,
			    MADV_DONTNEED))
			f->rebuild = true;
	KVM_STAT_ADD(f->as->p, flushes, f->count);
	KVM_STAT_ADD(f->as->p, flushed_pages, f->pages);
	f->count = 0;
	f->pages = 0;
}

/* The entry that led to `gpa` has been overwritten. */
void kvm_flush_page(struct kvm_flush *f, uint64_t gpa)
{
	uint8_t *hva = kvm_gpa_hva(f->as->p, gpa);

	f->pages++;
	if (f->count && f->extents[f->count - 1].end == hva) {
		f->extents[f->count - 1].end += MOAT_PAGE_SIZE;
		return;
	}
	if (f->count == FLUSH_EXTENTS_MAX)
		flush_extents(f);
	f->extents[f->count].start = hva;
	f->extents[f->count].end = hva + MOAT_PAGE_SIZE;
	f->count++;
}

int kvm_as_create(struct platform *base, struct address_space **ret_as)
{
	struct address_space *as = calloc(1, sizeof(*as));

	if (!as)
		return -ENOMEM;
	as->p = kvm_platform_of(base);
	as->compact_at = KVM_TREE_SLOTS_COMPACT;
	as->heat.hot = KVM_SITE_HOT;
	atomic_store_explicit(&as->refs, 1, memory_order_relaxed);
	mutex_init(&as->lock, LOCK_AS, "address space");
	kvm_tree_init(&as->tree);
	KVM_STAT_ADD(as->p, spaces, 1);
	*ret_as = as;
	return 0;
}

void kvm_as_unref(struct address_space *as)
{
	if (atomic_fetch_sub(&as->refs, 1) != 1)
		return;
	kvm_patches_free(as);
	free(as);
}

void kvm_as_destroy(struct address_space *as)
{
	/* A context whose task has moved on may still be held here. */
	kvm_hands_leave(as);
	kvm_as_clear(as);
	KVM_STAT_ADD(as->p, spaces, -1ul);
	mutex_lock(&as->lock);
	as->dead = true;
	mutex_unlock(&as->lock);
	kvm_as_unref(as);
}

/* Installs `t` (moved from) as the tree, waits until no vCPU is in the old one, and releases that. */
static void replace_locked(struct address_space *as, struct kvm_tree *t)
{
	struct kvm_tree old = as->tree;

	mutex_assert_held(&as->lock);
	as->tree = *t;
	kvm_tree_init(t);
	/* Pairs with kvm_vcpu_enter(): a runner either reads the new root or is seen and waited for. */
	atomic_store(&as->root, as->tree.root_gpa);
	if (!old.root)
		return;
	kvm_vcpus_leave(as);
	kvm_tree_release(as->p, &old);
}

int kvm_as_ready(struct address_space *as)
{
	int err;

	if (likely(atomic_load_explicit(&as->root, memory_order_relaxed)))
		return 0;
	mutex_lock(&as->lock);
	err = kvm_tree_root(as->p, &as->tree);
	if (!err)
		atomic_store(&as->root, as->tree.root_gpa);
	mutex_unlock(&as->lock);
	return err;
}

/* Copies what is present below ARCH_TASK_SIZE. Return: 0, -ENOMEM. */
static int tree_copy(struct kvm_platform *p, const struct kvm_tree *from, struct kvm_tree *to)
{
	uint64_t va = 0;
	uint64_t *src;

	if (kvm_tree_root(p, to))
		return -ENOMEM;
	for (; (src = kvm_tree_next_leaf(p, from, &va, ARCH_TASK_SIZE)) != NULL; va += LEAF_SPAN) {
		uint64_t *dst = NULL;

		for (unsigned i = 0; i < 512; i++) {
			uint64_t pte = pte_load(&src[i]);

			if (!(pte & PTE_P) || va + i * MOAT_PAGE_SIZE >= ARCH_TASK_SIZE)
				continue;
			if (!dst)
				dst = kvm_tree_leaf(p, to, va, true);
			if (!dst)
				return -ENOMEM;
			pte_store(&dst[i], pte);
			to->present++;
		}
	}
	return 0;
}

/* Rule (b): a copy of the present translations replaces the tree; on -ENOMEM an empty one does. */
static void rebuild_locked(struct address_space *as)
{
	struct kvm_tree fresh;

	kvm_tree_init(&fresh);
	if (as->tree.root && tree_copy(as->p, &as->tree, &fresh)) {
		/* Missing translations are always legal. */
		kvm_tree_release(as->p, &fresh);
	}
	KVM_STAT_ADD(as->p, rebuilds, 1);
	replace_locked(as, &fresh);
}

/* Nothing that was taken away is usable when this returns. */
void kvm_flush_end_locked(struct address_space *as, struct kvm_flush *f)
{
	flush_extents(f);
	if (f->rebuild)
		rebuild_locked(as);
	if (unlikely(as->patches))
		kvm_patch_flushed_locked(as);
}

/*
 * Tables whose entries have all gone stay (rule c). When a tree has grown over several slots, most of them
 * may be such; then a copy of the rest replaces it.
 */
static void compact_locked(struct address_space *as)
{
	uint64_t va = 0, *leaf;
	size_t tables = 0, empty = 0;

	if (as->tree.nslots < as->compact_at)
		return;
	for (; (leaf = kvm_tree_next_leaf(as->p, &as->tree, &va, ARCH_TASK_SIZE)) != NULL;
	     va += LEAF_SPAN) {
		unsigned i = 0;

		while (i < 512 && !(pte_load(&leaf[i]) & PTE_P))
			i++;
		tables++;
		empty += i == 512;
	}
	if (empty > tables / 2) {
		KVM_STAT_ADD(as->p, compactions, 1);
		rebuild_locked(as);
	}
	as->compact_at = MAX(KVM_TREE_SLOTS_COMPACT, as->tree.nslots * 2);
}

void kvm_install(uint64_t *entry, uint64_t va, uint64_t val, struct kvm_flush *f)
{
	uint64_t old = pte_load(entry);

	if (old == val)
		return;
	if (unlikely(old & PTE_PATCHED)) {
		/* The text stays as it was: so does its copy. */
		if (kvm_patch_orig_locked(f->as, va) == val)
			return;
		kvm_patch_forget_locked(f->as, va);
	}
	f->as->tree.present += (val & PTE_P) - (old & PTE_P);
	pte_store(entry, val);
	if (pte_takes_away(old, val))
		kvm_flush_page(f, old & PTE_ADDR);
}

/* Every present entry of [va, va + size) becomes (entry & keep) | set, or nothing if `keep` is 0. */
static void change_locked(struct address_space *as, uint64_t va, uint64_t size, uint64_t keep,
			  uint64_t set, struct kvm_flush *f)
{
	uint64_t end = va + size, at = va, *leaf;

	while (at < end && (leaf = kvm_tree_next_leaf(as->p, &as->tree, &at, end)) != NULL) {
		uint64_t from = MAX(at, va), to = MIN(at + LEAF_SPAN, end);

		for (uint64_t page = from; page < to; page += MOAT_PAGE_SIZE) {
			uint64_t *entry = &leaf[LEAF_INDEX(page)];
			uint64_t old = pte_load(entry);

			if (unlikely(old & PTE_PATCHED))
				old = kvm_patch_orig_locked(as, page);
			if ((old & PTE_P) && !(old & PTE_OWN))
				kvm_install(entry, page, keep ? (old & keep) | set : 0, f);
		}
		at += LEAF_SPAN;
	}
}

/*
 * Host files: how many bytes from ptr on may get an entry (the first page must, for `access`). Only the first page
 * may become writable: making a page of a file writable is a change to the file, one page at a time.
 */
static int probe_run(uint8_t *ptr, uint64_t size, bool write, uint64_t *ret_size)
{
	uint64_t done = 0;

	if (guard_probe(ptr, write))
		return -EFAULT;
	do {
		done += MOAT_PAGE_SIZE;
	} while (done < size && !guard_probe(ptr + done, false));
	*ret_size = done;
	return 0;
}

/* One run: contiguous guest-physical memory within one leaf table. Return: bytes mapped, -ENOMEM, -EFAULT. */
static int64_t map_run_locked(struct address_space *as, uint64_t va, uint64_t size,
			      struct memfile *mf, uint64_t mf_off, uint64_t bits, bool first,
			      struct kvm_flush *f)
{
	uint64_t gpa, run, *leaf;
	const uint64_t allowed = bits;
	bool host = memfile_kind(mf) == MEMFILE_HOST;
	int err = kvm_mem_gpa(as->p, mf, mf_off, &gpa);

	if (err)
		return err;
	run = MIN(size, LEAF_SPAN - (va & (LEAF_SPAN - 1)));
	run = MIN(run, KVM_UNIT_SIZE - (gpa & (KVM_UNIT_SIZE - 1)));
	if (host) {
		run = MIN(run, memfile_ptr_len(mf, mf_off, run));
		if (!first)
			bits &= ~PTE_W;
		err = run ? probe_run(memfile_ptr(mf, mf_off), run, bits & PTE_W, &run) : -EFAULT;
		if (err)
			return err;
	}
	leaf = kvm_tree_leaf(as->p, &as->tree, va, true);
	if (!leaf)
		return -ENOMEM;
	for (uint64_t done = 0; done < run; done += MOAT_PAGE_SIZE) {
		uint64_t *entry = &leaf[LEAF_INDEX(va + done)];

		/*
		 * A neighbour that may be written already stays so: a store across two pages would otherwise take each
		 * page's right away while getting the other's, for ever.
		 */
		if (!host || pte_load(entry) != ((gpa + done) | allowed))
			kvm_install(entry, va + done, (gpa + done) | bits, f);
		if (host)
			bits &= ~PTE_W;
	}
	return (int64_t)run;
}

int kvm_as_map(struct address_space *as, uint64_t va, uint64_t size, struct memfile *mf,
	       uint64_t mf_off, unsigned access, unsigned flags)
{
	struct kvm_flush f;
	uint64_t bits, done = 0;
	int err = 0;

	assert(!((va | size | mf_off) & ~MOAT_PAGE_MASK));
	assert(va < ARCH_TASK_SIZE && size <= ARCH_TASK_SIZE - va);
	if (memfile_kind(mf) == MEMFILE_HOST)
		access &= memfile_max_access(mf) | MEM_EXEC;
	else if (flags & PLATFORM_MAP_WILL_TOUCH)
		/* Reading maps what exists by sixteen pages, writable as the mapping is. */
		(void)madvise(as->p->private_map + mf_off, size, MADV_POPULATE_READ);
	bits = pte_bits(access, flags);
	if (unlikely(patch_range_touches(va, size)))
		kvm_as_claim(as, va, size);
	mutex_lock(&as->lock);
	kvm_flush_init(&f, as);
	err = kvm_tree_root(as->p, &as->tree);
	if (err)
		goto out_unlock;
	while (done < size) {
		int64_t run = map_run_locked(as, va + done, size - done, mf, mf_off + done, bits,
					     done == 0, &f);

		if (run < 0) {
			/* A page that cannot be touched matters only if it is the one that was asked for. */
			err = run == -EFAULT && done ? 0 : (int)run;
			break;
		}
		done += run;
	}
	/* What could not be replaced must not keep its old translation. */
	if (done < size)
		change_locked(as, va + done, size - done, 0, 0, &f);
	if (!atomic_load_explicit(&as->root, memory_order_relaxed))
		atomic_store(&as->root, as->tree.root_gpa);
	kvm_flush_end_locked(as, &f);
	compact_locked(as);
out_unlock:
	mutex_unlock(&as->lock);
	return err;
}

void kvm_as_unmap(struct address_space *as, uint64_t va, uint64_t size)
{
	struct kvm_flush f;

	assert(!((va | size) & ~MOAT_PAGE_MASK));
	assert(va <= ARCH_TASK_SIZE && size <= ARCH_TASK_SIZE - va);
	mutex_lock(&as->lock);
	kvm_flush_init(&f, as);
	change_locked(as, va, size, 0, 0, &f);
	kvm_flush_end_locked(as, &f);
	mutex_unlock(&as->lock);
}

void kvm_as_protect(struct address_space *as, uint64_t va, uint64_t size, unsigned access)
{
	struct kvm_flush f;
	uint64_t keep = ~0ul, set = 0;

	assert(!((va | size) & ~MOAT_PAGE_MASK));
	assert(va <= ARCH_TASK_SIZE && size <= ARCH_TASK_SIZE - va);
	if (!(access & MEM_WRITE))
		keep &= ~PTE_W;
	if (!(access & MEM_EXEC))
		set |= PTE_NX;
	/* Present is readable: without any access there is no translation. */
	if (!(access & (MEM_READ | MEM_WRITE | MEM_EXEC)))
		keep = set = 0;
	mutex_lock(&as->lock);
	kvm_flush_init(&f, as);
	change_locked(as, va, size, keep, set, &f);
	kvm_flush_end_locked(as, &f);
	mutex_unlock(&as->lock);
}

void kvm_as_clear(struct address_space *as)
{
	struct kvm_tree none;

	kvm_tree_init(&none);
	mutex_lock(&as->lock);
	/* It may fill up again, but it will not be patched. */
	as->patch_refused = true;
	atomic_store(&as->patch_live, NULL);
	replace_locked(as, &none);
	atomic_store(&as->patch_known, NULL);
	as->compact_at = KVM_TREE_SLOTS_COMPACT;
	mutex_unlock(&as->lock);
}

size_t kvm_as_drop_window(struct address_space *as)
{
	struct kvm_flush f;
	uint64_t va = 0, *leaf;
	size_t dropped = 0;

	mutex_lock(&as->lock);
	kvm_flush_init(&f, as);
	while ((leaf = kvm_tree_next_leaf(as->p, &as->tree, &va, ARCH_TASK_SIZE)) != NULL) {
		for (unsigned i = 0; i < 512; i++) {
			uint64_t pte = pte_load(&leaf[i]);

			if (unlikely(pte & PTE_PATCHED))
				pte = kvm_patch_orig_locked(as, va + i * MOAT_PAGE_SIZE);
			if (!(pte & PTE_P) ||
			    kvm_gpa_unit(as->p, pte & PTE_ADDR)->kind != KVM_UNIT_WINDOW)
				continue;
			kvm_install(&leaf[i], va + i * MOAT_PAGE_SIZE, 0, &f);
			dropped++;
		}
		va += LEAF_SPAN;
	}
	kvm_flush_end_locked(as, &f);
	mutex_unlock(&as->lock);
	KVM_STAT_ADD(as->p, window_drops, 1);
	return dropped;
}

/* One leaf table of a fork: the parent's entries lose W in place, the child's copy has none. */
static int fork_leaf_locked(struct address_space *child, uint64_t va, uint64_t *src, bool copy,
			    struct kvm_flush *f)
{
	uint64_t *dst = NULL;

	for (unsigned i = 0; i < 512; i++) {
		uint64_t pte = pte_load(&src[i]), page = va + i * MOAT_PAGE_SIZE;

		/* The child starts without patches. */
		if (!(pte & PTE_P) || (pte & PTE_OWN) || page >= ARCH_TASK_SIZE)
			continue;
		if (unlikely(pte & PTE_PATCHED))
			pte = kvm_patch_orig_locked(f->as, page);
		if ((pte & PTE_W) && !(pte & PTE_SHARED)) {
			pte &= ~PTE_W;
			kvm_install(&src[i], page, pte, f);
		}
		if (!copy)
			continue;
		if (!dst)
			dst = kvm_tree_leaf(child->p, &child->tree, va, true);
		if (!dst)
			return -ENOMEM;
		pte_store(&dst[i], pte);
		child->tree.present++;
	}
	return 0;
}

int kvm_as_fork(struct address_space *parent, struct address_space *child)
{
	struct kvm_flush f;
	uint64_t va = 0, *leaf;
	int err;

	mutex_lock(&parent->lock);
	kvm_flush_init(&f, parent);
	/* The child is not known to anyone else yet: parent first is the order. */
	mutex_lock_nested(&child->lock);
	assert(!child->tree.root);
	err = kvm_tree_root(child->p, &child->tree);
	while ((leaf = kvm_tree_next_leaf(parent->p, &parent->tree, &va, ARCH_TASK_SIZE)) != NULL) {
		int leaf_err = fork_leaf_locked(child, va, leaf, !err, &f);

		if (leaf_err) {
			/* Half a table of the parent is still writable: go on without the child. */
			err = leaf_err;
			leaf_err = fork_leaf_locked(child, va, leaf, false, &f);
			assert(!leaf_err);
		}
		va += LEAF_SPAN;
	}
	if (err)
		kvm_tree_release(child->p, &child->tree);
	else
		atomic_store(&child->root, child->tree.root_gpa);
	mutex_unlock(&child->lock);
	kvm_flush_end_locked(parent, &f);
	mutex_unlock(&parent->lock);
	return err;
}

void kvm_as_fetch(struct address_space *as, uint64_t va, uint8_t *buf, size_t size)
{
	mutex_lock(&as->lock);
	for (size_t i = 0; i < size && va + i < ARCH_TASK_SIZE; i++) {
		uint64_t *leaf = kvm_tree_leaf(as->p, &as->tree, va + i, false);
		uint64_t pte = leaf ? pte_load(&leaf[LEAF_INDEX(va + i)]) : 0;

		if ((pte & PTE_P) &&
		    guard_copy(&buf[i],
			       kvm_gpa_hva(as->p, pte & PTE_ADDR) + ((va + i) & ~MOAT_PAGE_MASK),
			       1))
			break;
	}
	mutex_unlock(&as->lock);
}
