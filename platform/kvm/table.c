/*
 * platform/kvm/table.c - page-table pages and trees of them. Rule (c) of kvm.c lives here.
 *
 * A slot belongs to one tree at a time. Pages are handed out in order and never twice between two
 * additions of the slot to the VM, so no table page that KVM has ever shadowed is given to anyone. A tree is
 * freed as a whole; a slot with enough untouched pages then goes to the next tree as it is (some twenty
 * short-lived processes share one slot in turn), an exhausted one is deleted and added first.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/log.h"
#include "platform/kvm/kvm.h"

#define LEVEL_SHIFT(level) (12 + 9 * (level)) /* 0: the leaf table's entries */
#define LEVEL_INDEX(va, level) ((va) >> LEVEL_SHIFT(level) & 511)
#define ROOT_LEVEL 3
#define POPULATE_PAGES 12u
/* This many dead pages of one slot go back to the host before it is recycled. */
#define RELEASE_EAGER_PAGES 64u

int kvm_tables_init(struct kvm_platform *p)
{
	SLIST_INIT(&p->table_free);
	SLIST_INIT(&p->table_exhausted);
	p->table_array = calloc(KVM_TABLE_SLOTS_MAX, sizeof(*p->table_array));
	return p->table_array ? 0 : -ENOMEM;
}

void kvm_tables_fini(struct kvm_platform *p)
{
	free(p->table_array);
}

/* A slot that was never used. Platform lock held. */
static struct kvm_table_slot *slot_new_locked(struct kvm_platform *p)
{
	struct kvm_table_slot *slot;
	unsigned n = p->table_slots;
	uint64_t in_unit = n % KVM_TABLE_SLOTS_PER_UNIT;

	if (n >= KVM_TABLE_SLOTS_MAX || p->kvm_slots_used >= p->slots_limit)
		return NULL;
	slot = &p->table_array[n];
	slot->mem = p->table_mem + (uint64_t)n * KVM_TABLE_SLOT_SIZE;
	if (in_unit == 0) {
		int unit = kvm_unit_new_locked(p, KVM_UNIT_TABLES, slot->mem);

		if (unit < 0)
			return NULL;
		p->table_units = unit;
	}
	slot->gpa = ((uint64_t)p->table_units << KVM_UNIT_SHIFT) + in_unit * KVM_TABLE_SLOT_SIZE;
	slot->kvm_id = p->kvm_slots_used;
	p->table_slots++;
	p->kvm_slots_used++;
	if (kvm_slot_set(p, slot->kvm_id, slot->gpa, slot->mem, KVM_TABLE_SLOT_SIZE)) {
		/* Its numbers are lost, no more. */
		log_error("kvm: no slot for page tables at %#lx", slot->gpa);
		return NULL;
	}
	return slot;
}

/*
 * Deleting the slot makes KVM forget every shadow of its pages; only then may they be tables again.
 * Platform lock held. Return: false if KVM refused (the slot is not used any more).
 */
static bool slot_recycle_locked(struct kvm_platform *p, struct kvm_table_slot *slot)
{
	if (kvm_slot_set(p, slot->kvm_id, slot->gpa, slot->mem, 0))
		return false;
	if (madvise(slot->mem, KVM_TABLE_SLOT_SIZE, MADV_DONTNEED))
		memset(slot->mem, 0, KVM_TABLE_SLOT_SIZE);
	if (kvm_slot_set(p, slot->kvm_id, slot->gpa, slot->mem, KVM_TABLE_SLOT_SIZE))
		return false;
	slot->used = slot->dropped = 0;
	KVM_STAT_ADD(p, slot_recycles, 1);
	return true;
}

static struct kvm_table_slot *slot_get(struct kvm_platform *p)
{
	struct kvm_table_slot *slot;

	mutex_lock(&p->lock);
	slot = SLIST_FIRST(&p->table_free);
	if (slot) {
		SLIST_REMOVE_HEAD(&p->table_free, link);
		goto out_unlock;
	}
	while ((slot = SLIST_FIRST(&p->table_exhausted)) != NULL) {
		SLIST_REMOVE_HEAD(&p->table_exhausted, link);
		if (slot_recycle_locked(p, slot))
			goto out_unlock;
		log_error("kvm: page-table slot at %#lx is lost", slot->gpa);
	}
	slot = slot_new_locked(p);
out_unlock:
	mutex_unlock(&p->lock);
	if (slot)
		slot->first = slot->used;
	return slot;
}

/* A zeroed page that was never a table since its slot was added. */
static uint64_t *page_alloc(struct kvm_platform *p, struct kvm_tree *t, uint64_t *ret_gpa)
{
	struct kvm_table_slot *slot = SLIST_FIRST(&t->slots);
	unsigned n;

	if (!slot || slot->used == KVM_TABLE_SLOT_PAGES) {
		slot = slot_get(p);
		if (!slot)
			return NULL;
		SLIST_INSERT_HEAD(&t->slots, slot, link);
		t->nslots++;
	}
	/* By the dozen and for writing: a page at a time would be two faults of the host's each. */
	if ((slot->used - slot->first) % POPULATE_PAGES == 0)
		(void)madvise(slot->mem + slot->used * MOAT_PAGE_SIZE,
			      MIN(POPULATE_PAGES, KVM_TABLE_SLOT_PAGES - slot->used) *
				      MOAT_PAGE_SIZE,
			      MADV_POPULATE_WRITE);
	n = slot->used++;
	*ret_gpa = slot->gpa + n * MOAT_PAGE_SIZE;
	return (uint64_t *)(slot->mem + n * MOAT_PAGE_SIZE);
}

void kvm_tree_init(struct kvm_tree *t)
{
	*t = (struct kvm_tree){.slots = SLIST_HEAD_INITIALIZER(t->slots)};
}

static void entry_store(uint64_t *entry, uint64_t val)
{
	__atomic_store_n(entry, val, __ATOMIC_RELEASE);
}

uint64_t *kvm_tree_leaf(struct kvm_platform *p, struct kvm_tree *t, uint64_t va, bool create)
{
	uint64_t *table = t->root;

	if (!table)
		return NULL;
	for (int level = ROOT_LEVEL; level > 0; level--) {
		uint64_t *entry = &table[LEVEL_INDEX(va, level)];

		if (!(*entry & PTE_P)) {
			uint64_t gpa;

			if (!create)
				return NULL;
			table = page_alloc(p, t, &gpa);
			if (!table)
				return NULL;
			entry_store(entry, gpa | PTE_TABLE);
		} else {
			table = kvm_table_hva(p, *entry & PTE_ADDR);
		}
	}
	return table;
}

uint64_t *kvm_tree_next_leaf(struct kvm_platform *p, const struct kvm_tree *t, uint64_t *inout_va,
			     uint64_t end)
{
	uint64_t va = *inout_va;

	if (!t->root)
		return NULL;
	while (va < end) {
		uint64_t *table = t->root;
		int level;

		for (level = ROOT_LEVEL; level > 0; level--) {
			uint64_t entry = table[LEVEL_INDEX(va, level)];

			if (!(entry & PTE_P))
				break;
			table = kvm_table_hva(p, entry & PTE_ADDR);
		}
		if (level == 0) {
			*inout_va = round_down_u64(va, 1ul << LEVEL_SHIFT(1));
			return table;
		}
		va = round_down_u64(va, 1ul << LEVEL_SHIFT(level)) + (1ul << LEVEL_SHIFT(level));
	}
	return NULL;
}

int kvm_tree_root(struct kvm_platform *p, struct kvm_tree *t)
{
	uint64_t *leaf;

	if (t->root)
		return 0;
	t->root = page_alloc(p, t, &t->root_gpa);
	if (!t->root)
		return -ENOMEM;
	entry_store(&t->root[LEVEL_INDEX(KVM_KERNEL_BASE, ROOT_LEVEL)],
		    KVM_KERNEL_PDPT | PTE_P | PTE_W | PTE_AD);
	leaf = kvm_tree_leaf(p, t, KVM_STUB_VA, true);
	if (!leaf) {
		kvm_tree_release(p, t);
		return -ENOMEM;
	}
	/* For ring 3 to execute, where ring 0 is emulated; never to write. */
	entry_store(&leaf[LEVEL_INDEX(KVM_STUB_VA, 0)],
		    KVM_KERNEL_STUB | PTE_P | (p->stub_saves ? 0 : PTE_U) | PTE_AD);
	return 0;
}

/* Pages of trees that were freed, up to `end`. Dead shadows of them are out of reach: no CR3 leads to them. */
static void slot_drop(struct kvm_table_slot *slot, unsigned end)
{
	if (!madvise(slot->mem + slot->dropped * MOAT_PAGE_SIZE,
		     (end - slot->dropped) * MOAT_PAGE_SIZE, MADV_DONTNEED))
		slot->dropped = slot->used;
}

static void slots_trim_locked(const struct kvm_table_slots *slots)
{
	struct kvm_table_slot *slot;

	SLIST_FOREACH (slot, slots, link) {
		/* And what page_alloc() made ahead. */
		if (slot->dropped < slot->used)
			slot_drop(slot, MIN(slot->used + POPULATE_PAGES, KVM_TABLE_SLOT_PAGES));
	}
}

void kvm_tables_trim(struct kvm_platform *p)
{
	mutex_lock(&p->lock);
	slots_trim_locked(&p->table_free);
	slots_trim_locked(&p->table_exhausted);
	mutex_unlock(&p->lock);
}

void kvm_tree_release(struct kvm_platform *p, struct kvm_tree *t)
{
	struct kvm_table_slot *slot, *next;

	for (slot = SLIST_FIRST(&t->slots); slot; slot = next) {
		next = SLIST_NEXT(slot, link);
		if (slot->used - slot->dropped >= RELEASE_EAGER_PAGES)
			slot_drop(slot, slot->used);
		mutex_lock(&p->lock);
		if (KVM_TABLE_SLOT_PAGES - slot->used >= KVM_TABLE_SLOT_LEFT_MIN)
			SLIST_INSERT_HEAD(&p->table_free, slot, link);
		else
			SLIST_INSERT_HEAD(&p->table_exhausted, slot, link);
		mutex_unlock(&p->lock);
	}
	kvm_tree_init(t);
}
