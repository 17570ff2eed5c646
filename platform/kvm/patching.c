/*
 * platform/kvm/patching.c - patched call sites in an address space; platform/patch/ knows what a patch is.
 *
 * A patched page's entry leads to a copy and has PTE_PATCHED; `orig` is the entry as the mm has it, with which every
 * change is compared: the same again keeps the copy, anything else drops it. Trampolines and mailboxes have PTE_OWN:
 * unmapping what the application had around them leaves them alone, a fork does not copy them. When the mm
 * claims their range they go, for as long as the address space lives.
 */
#include <stdlib.h>

#include "base/log.h"
#include "mem/guard.h"
#include "platform/kvm/as_internal.h"

uint64_t kvm_patch_orig_locked(struct address_space *as, uint64_t va)
{
	struct kvm_patches *pp = as->patches;

	for (unsigned i = 0; i < pp->count; i++)
		if (pp->pages[i].va == va)
			return pp->pages[i].orig;
	assert(!"a patched page without its record");
	return 0;
}

/* Remembers what is at va; of a page that is there already, nothing changes. */
static void record_locked(struct kvm_patches *pp, uint64_t va, uint64_t orig)
{
	unsigned i = 0;

	while (i < pp->count && pp->pages[i].va != va)
		i++;
	/* The patch_space has the same limit. */
	assert(i < PATCH_PAGES_MAX);
	pp->pages[i].va = va;
	pp->pages[i].orig = orig;
	pp->count = MAX(pp->count, i + 1);
}

void kvm_patch_forget_locked(struct address_space *as, uint64_t va)
{
	struct kvm_patches *pp = as->patches;

	for (unsigned i = 0; i < pp->count; i++)
		if (pp->pages[i].va == va) {
			pp->pages[i] = pp->pages[--pp->count];
			break;
		}
	patch_drop(pp->space, va, MOAT_PAGE_SIZE);
	patch_heat_reset(&as->heat);
}

void kvm_patch_flushed_locked(struct address_space *as)
{
	patch_reap(as->patches->space);
}

void kvm_patches_free(struct address_space *as)
{
	if (!as->patches)
		return;
	patch_space_destroy(as->patches->space);
	free(as->patches);
}

/* Maps one of our own ranges: nothing is there. Return: 0, -ENOMEM. */
static int map_own_locked(struct address_space *as, const struct patch_range *range)
{
	uint64_t bits = PTE_P | PTE_U | PTE_AD | PTE_OWN, gpa, *leaf;
	struct kvm_flush f;
	int err = 0;

	if (range->access & MEM_WRITE)
		bits |= PTE_W;
	if (!(range->access & MEM_EXEC))
		bits |= PTE_NX;
	kvm_flush_init(&f, as);
	for (uint64_t done = 0; done < range->size && !err; done += MOAT_PAGE_SIZE) {
		uint64_t va = range->va + done;

		err = kvm_mem_gpa(as->p, mem_private(), range->off + done, &gpa);
		if (err)
			break;
		leaf = kvm_tree_leaf(as->p, &as->tree, va, true);
		if (leaf)
			kvm_install(&leaf[LEAF_INDEX(va)], va, gpa | bits, &f);
		else
			err = -ENOMEM;
	}
	kvm_flush_end_locked(as, &f);
	return err;
}

static bool own_mapped_locked(struct address_space *as)
{
	uint64_t *leaf = kvm_tree_leaf(as->p, &as->tree, PATCH_CODE_VA, false);

	return leaf && (pte_load(&leaf[LEAF_INDEX(PATCH_CODE_VA)]) & PTE_OWN);
}

/* The trampolines are there: made the first time, mapped again if a rebuild lost them. */
static int space_ready_locked(struct address_space *as)
{
	struct patch_range range;
	int err = 0;

	if (!as->patches) {
		struct kvm_patches *pp = calloc(1, sizeof(*pp));

		if (!pp)
			return -ENOMEM;
		err = patch_space_create(&pp->space);
		if (err) {
			free(pp);
			return err;
		}
		as->patches = pp;
	}
	if (!own_mapped_locked(as))
		for (unsigned n = 0; !err && patch_space_range(as->patches->space, n, &range); n++)
			err = map_own_locked(as, &range);
	return err;
}

/* Who runs from now on may be in a trampoline. */
static void publish_locked(struct address_space *as)
{
	atomic_store(&as->patch_known, as->patches->space);
	atomic_store(&as->patch_live, as->patches->space);
}

/* Return: 0; -ENOTSUP: never; anything else: perhaps later. */
static int patch_site_locked(struct address_space *as, uint64_t rip, uint64_t nr)
{
	uint64_t va = (rip - 1) & MOAT_PAGE_MASK, *leaf, pte, orig, off, gpa;
	uint8_t page[MOAT_PAGE_SIZE];
	struct kvm_flush f;
	int err;

	leaf = kvm_tree_leaf(as->p, &as->tree, va, false);
	pte = leaf ? pte_load(&leaf[LEAF_INDEX(va)]) : 0;
	if (!(pte & PTE_P))
		return -EAGAIN;
	if (!(pte & PTE_U) || (pte & (PTE_W | PTE_NX | PTE_SHARED | PTE_OWN)))
		return -ENOTSUP;
	orig = pte & PTE_PATCHED ? kvm_patch_orig_locked(as, va) : pte;
	if (guard_copy(page, kvm_gpa_hva(as->p, pte & PTE_ADDR), MOAT_PAGE_SIZE))
		return -EAGAIN;
	err = space_ready_locked(as);
	if (!err)
		err = patch_apply(as->patches->space, rip, nr, va, page, &off);
	if (err)
		return err;
	err = kvm_mem_gpa(as->p, mem_private(), off, &gpa);
	if (err) {
		patch_drop(as->patches->space, va, MOAT_PAGE_SIZE);
		return err;
	}
	record_locked(as->patches, va, orig);
	publish_locked(as);
	kvm_flush_init(&f, as);
	pte_store(&leaf[LEAF_INDEX(va)], gpa | PTE_P | PTE_U | PTE_AD | PTE_PATCHED);
	kvm_flush_page(&f, pte & PTE_ADDR);
	kvm_flush_end_locked(as, &f);
	KVM_STAT_ADD(as->p, patches, 1);
	return 0;
}

void kvm_patch_note(struct address_space *as, const struct arch_regs *regs)
{
	int err;

	if (likely(!patch_heat_note(&as->heat, regs->r.rip)) || !patch_enabled())
		return;
	mutex_lock(&as->lock);
	err = as->patch_refused || as->traced ? -ENOTSUP
					      : patch_site_locked(as, regs->r.rip, regs->r.rax);
	if (err == 0 || err == -EALREADY)
		patch_heat_patched(&as->heat, regs->r.rip);
	else if (err == -ENOTSUP || err == -ENOSPC)
		patch_heat_cold(&as->heat, regs->r.rip);
	/* A site that cannot be patched posts its calls by where `syscall` leads, once the trampolines are there. */
	if (err && as->p->lstar_posts && !as->patch_refused && !as->traced &&
	    !atomic_load(&as->patch_live) && !space_ready_locked(as))
		publish_locked(as);
	mutex_unlock(&as->lock);
}

/* Every patched page is the mm's again. */
static void unpatch_locked(struct address_space *as, struct kvm_flush *f)
{
	struct kvm_patches *pp = as->patches;

	while (pp->count) {
		uint64_t va = pp->pages[pp->count - 1].va, orig = pp->pages[pp->count - 1].orig;
		uint64_t *leaf = kvm_tree_leaf(as->p, &as->tree, va, false);
		uint64_t *entry = leaf ? &leaf[LEAF_INDEX(va)] : NULL;
		uint64_t pte = entry ? pte_load(entry) : 0;

		kvm_patch_forget_locked(as, va);
		if (pte & PTE_PATCHED) {
			pte_store(entry, orig);
			kvm_flush_page(f, pte & PTE_ADDR);
		}
	}
}

/* Trampolines and mailboxes. */
static void unmap_own_locked(struct address_space *as, struct kvm_flush *f)
{
	uint64_t at = PATCH_VA, *leaf;

	while (at < PATCH_END_VA &&
	       (leaf = kvm_tree_next_leaf(as->p, &as->tree, &at, PATCH_END_VA)) != NULL) {
		for (unsigned i = 0; i < 512; i++)
			if (pte_load(&leaf[i]) & PTE_OWN)
				kvm_install(&leaf[i], at + i * MOAT_PAGE_SIZE, 0, f);
		at += LEAF_SPAN;
	}
}

void kvm_as_claim(struct address_space *as, uint64_t va, uint64_t size)
{
	struct kvm_flush f;
	bool mapped;

	if (!patch_range_touches(va, size))
		return;
	mutex_lock(&as->lock);
	/* Also what was mapped for a site that could not be patched then. Once refused, nothing is mapped again. */
	mapped = as->patches && !as->patch_refused;
	as->patch_refused = true;
	if (mapped) {
		kvm_flush_init(&f, as);
		unpatch_locked(as, &f);
		unmap_own_locked(as, &f);
		/* Pairs with kvm_run_until_event(): who comes out inside a trampoline does not go on there. */
		atomic_store(&as->patch_live, NULL);
		kvm_flush_end_locked(as, &f);
		kvm_vcpus_leave(as);
		atomic_store(&as->patch_known, NULL);
	}
	mutex_unlock(&as->lock);
}

void kvm_as_set_traced(struct address_space *as, bool on)
{
	struct kvm_flush f;

	mutex_lock(&as->lock);
	as->traced = on;
	if (on && as->patches) {
		/* Threads in a trampoline go on: it stays. */
		kvm_flush_init(&f, as);
		unpatch_locked(as, &f);
		kvm_flush_end_locked(as, &f);
	}
	if (!on)
		patch_heat_reset(&as->heat);
	mutex_unlock(&as->lock);
}

void kvm_patch_resolve(const struct patch_space *space, const struct patch_mailbox *mb,
		       struct arch_regs *regs, struct platform_event *ev)
{
	patch_resolve_event(space, mb, true, regs, ev);
}

void kvm_mailbox_detach(struct platform_context *ctx)
{
	struct address_space *as = ctx->mb_as;

	if (!as)
		return;
	mutex_lock(&as->lock);
	if (ctx->mb && as->patches)
		patch_mailbox_put(as->patches->space, ctx->mb_index);
	mutex_unlock(&as->lock);
	ctx->mb = NULL;
	ctx->mb_as = NULL;
	kvm_as_unref(as);
}

void kvm_mailbox_attach(struct platform_context *ctx, struct address_space *as)
{
	struct patch_range range;
	int index;

	if (likely(ctx->mb_as == as))
		return;
	kvm_mailbox_detach(ctx);
	atomic_fetch_add(&as->refs, 1);
	ctx->mb_as = as;
	mutex_lock(&as->lock);
	if (atomic_load(&as->patch_live)) {
		index = patch_mailbox_get(as->patches->space, &range, &ctx->mb);
		if (index >= 0 && map_own_locked(as, &range)) {
			patch_mailbox_put(as->patches->space, index);
			ctx->mb = NULL;
		}
		ctx->mb_index = index;
	}
	mutex_unlock(&as->lock);
}
