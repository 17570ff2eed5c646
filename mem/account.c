/*
 * mem/account.c - whose the private memory is: containers of one sandbox have limits of their own.
 *
 * A chunk belongs to the account that its allocating thread had entered, until it is free: as with Linux's memory cgroups, whoever is first pays, and who
 * copies pays for the copy. One byte a chunk in a sparse array. An account's number is used again when nothing is charged to it any more.
 *
 * An account is told when it has more chunks than its mark; what that means is for the layers above (sentry/oom.c). Chunks that were never touched
 * count there, so a limit is compared with mem_account_resident(), which asks the host; that costs 0.3 ms or more for 256 MiB.
 * The mark is the limit, or above it as long as that many chunks were seen to be not all there: it comes down again when they are freed.
 *
 * Locks: charge and uncharge run under that of private memory (LOCK_MEMFILE); accounts_lock, a leaf, guards marks that move. `held`, `mark` and `over`
 * are looked at without: a mark that moves at the same time is met by the next chunk.
 */
#include <string.h>
#include <sys/mman.h>

#include "base/lock.h"
#include "mem/internal.h"

#define PIECE 64u /* chunks that mincore(2) is asked of at once */

struct mem_account {
	bool used; /* guarded by accounts_lock */
	_Atomic bool soft;
	uint64_t limit, step; /* chunks; guarded by accounts_lock */
	_Atomic uint64_t held; /* chunks */
	_Atomic uint64_t mark; /* chunks; UINT64_MAX: never; written under accounts_lock */
	_Atomic uint64_t
		allowance; /* pages; what may come to exist of held chunks until the next look */
	_Atomic bool raised; /* the mark is above the limit; written under accounts_lock */
	_Atomic bool over;
};

_Atomic unsigned mem_accounts_over;
_Atomic bool mem_exact;
static struct mutex accounts_lock = MUTEX_INIT(LOCK_LEAF, "memory accounts");
static struct mem_account accounts[MEM_ACCOUNTS_MAX]; /* 0 is nobody's */
static _Atomic uint8_t *owner; /* one a chunk, sparse */
static _Atomic uint32_t highest; /* no chunk from here on was ever an account's */
static _Thread_local struct mem_account *mine;

int account_init(uint32_t chunks)
{
	void *p = mmap(NULL, chunks, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		return -ENOMEM;
	owner = p;
	return 0;
}

static void set_over(struct mem_account *a, bool over)
{
	if (atomic_exchange(&a->over, over) == over)
		return;
	if (over)
		atomic_fetch_add(&mem_accounts_over, 1);
	else
		atomic_fetch_sub(&mem_accounts_over, 1);
}

/* Of a mark that is set. What is charged between the look and its consequence is charged against that mark, and must not be forgotten. */
static void settle_over(struct mem_account *a, uint64_t mark)
{
	if (atomic_load(&a->held) <= mark)
		set_over(a, false);
	if (atomic_load(&a->held) > mark)
		set_over(a, true);
}

/* Lock held. */
static void set_mark(struct mem_account *a, uint64_t chunks)
{
	atomic_store(&a->mark, chunks);
	atomic_store(&a->raised, chunks > a->limit);
	/* However it came below: somebody has died, or it has another limit. Who is over it sets this again. */
	if (chunks <= a->limit && atomic_load_explicit(&a->soft, memory_order_relaxed))
		atomic_store(&mem_exact, false);
}

struct mem_account *mem_account_create(void)
{
	struct mem_account *found = NULL;

	mutex_lock(&accounts_lock);
	for (unsigned i = 1; i < MEM_ACCOUNTS_MAX && !found; i++)
		if (!accounts[i].used && !atomic_load(&accounts[i].held))
			found = &accounts[i];
	if (found) {
		found->used = true;
		atomic_store(&found->soft, false);
		found->limit = UINT64_MAX;
		set_mark(found, UINT64_MAX);
	}
	mutex_unlock(&accounts_lock);
	return found;
}

void mem_account_destroy(struct mem_account *a)
{
	if (!a)
		return;
	mem_account_limit(a, UINT64_MAX);
	mutex_lock(&accounts_lock);
	a->used = false;
	mutex_unlock(&accounts_lock);
}

void mem_account_enter(struct mem_account *a)
{
	mine = a;
}

void mem_account_limit(struct mem_account *a, uint64_t bytes)
{
	uint64_t chunks = bytes == UINT64_MAX ? bytes : bytes >> MEM_CHUNK_SHIFT;

	mutex_lock(&accounts_lock);
	a->limit = chunks;
	set_mark(a, chunks);
	mutex_unlock(&accounts_lock);
	settle_over(a, chunks);
}

void mem_account_look_after(struct mem_account *a, uint64_t held, uint64_t bytes)
{
	uint64_t mark;

	mutex_lock(&accounts_lock);
	a->step = bytes >> MEM_CHUNK_SHIFT;
	atomic_store(&a->allowance, bytes >> MOAT_PAGE_SHIFT);
	held = MIN(held >> MEM_CHUNK_SHIFT, atomic_load(&a->held));
	mark = MAX(a->limit, held + a->step);
	set_mark(a, mark);
	mutex_unlock(&accounts_lock);
	settle_over(a, mark);
}

void mem_account_page(void)
{
	uint64_t left;

	if (!mine || !atomic_load_explicit(&mine->soft, memory_order_relaxed))
		return;
	/* Never what was left before a look: that may have been much more than there is. */
	left = atomic_load_explicit(&mine->allowance, memory_order_relaxed);
	while (left &&
	       !atomic_compare_exchange_weak_explicit(&mine->allowance, &left, left - 1,
						      memory_order_relaxed, memory_order_relaxed))
		;
	if (!left)
		set_over(mine, true);
}

/* Some of its chunks are free again: the mark that was raised for them comes down. */
static void lower_mark(struct mem_account *a)
{
	uint64_t mark;

	mutex_lock(&accounts_lock);
	mark = MAX(a->limit, atomic_load(&a->held) + a->step);
	if (mark < atomic_load(&a->mark))
		set_mark(a, mark);
	mutex_unlock(&accounts_lock);
}

bool mem_account_is_over(struct mem_account *a)
{
	return atomic_load_explicit(&a->over, memory_order_relaxed);
}

void mem_account_set_soft(struct mem_account *a)
{
	atomic_store(&a->soft, true);
}

uint64_t mem_account_bytes(struct mem_account *a)
{
	return atomic_load_explicit(&a->held, memory_order_relaxed) << MEM_CHUNK_SHIFT;
}

static uint64_t resident_pages(uint32_t first, uint32_t len)
{
	unsigned char present[PIECE << (MEM_CHUNK_SHIFT - MOAT_PAGE_SHIFT)];
	uint64_t pages = (uint64_t)len << (MEM_CHUNK_SHIFT - MOAT_PAGE_SHIFT), count = 0, i;

	if (mincore(mem_private_base + ((uint64_t)first << MEM_CHUNK_SHIFT),
		    pages << MOAT_PAGE_SHIFT, present) < 0)
		return pages;
	for (i = 0; i < pages; i++)
		count += present[i] & 1;
	return count;
}

uint64_t mem_account_resident(struct mem_account *a)
{
	uint32_t end = atomic_load(&highest), i = 0, first;
	uint8_t id = (uint8_t)(a - accounts);
	uint64_t pages = 0;

	while (i < end) {
		if (atomic_load_explicit(&owner[i], memory_order_relaxed) != id) {
			i++;
			continue;
		}
		for (first = i; i < end && i - first < PIECE &&
				atomic_load_explicit(&owner[i], memory_order_relaxed) == id;)
			i++;
		pages += resident_pages(first, i - first);
	}
	return pages << MOAT_PAGE_SHIFT;
}

bool account_is_full(uint32_t len)
{
	uint64_t mark, most = MEM_ACCOUNT_OVERDRAFT >> MEM_CHUNK_SHIFT;

	if (!mine || atomic_load_explicit(&mine->soft, memory_order_relaxed))
		return false;
	mark = atomic_load_explicit(&mine->mark, memory_order_relaxed);
	return mark < UINT64_MAX - most &&
	       atomic_load_explicit(&mine->held, memory_order_relaxed) + len > mark + most;
}

void account_charge(uint32_t first, uint32_t len)
{
	struct mem_account *a = mine;

	if (!a)
		return;
	for (uint32_t i = first; i < first + len; i++)
		atomic_store_explicit(&owner[i], (uint8_t)(a - accounts), memory_order_relaxed);
	if (first + len > atomic_load_explicit(&highest, memory_order_relaxed))
		atomic_store(&highest, first + len);
	/* One of the two sees the other: this and who moves the mark and looks at `held`. */
	if (atomic_fetch_add(&a->held, len) + len > atomic_load(&a->mark))
		set_over(a, true);
}

static void uncharge_run(uint8_t id, uint32_t len)
{
	struct mem_account *a = &accounts[id];

	atomic_fetch_sub(&a->held, len);
	if (unlikely(atomic_load_explicit(&a->raised, memory_order_relaxed)))
		lower_mark(a);
}

void account_uncharge(uint32_t first, uint32_t len)
{
	uint32_t end = first + len, run = 0;
	uint8_t id = 0;

	for (uint32_t i = first; i < end; i++) {
		uint8_t its = atomic_load_explicit(&owner[i], memory_order_relaxed);

		if (its != id && id)
			uncharge_run(id, run);
		if (its != id)
			run = 0;
		id = its;
		if (!id)
			continue;
		atomic_store_explicit(&owner[i], 0, memory_order_relaxed);
		run++;
	}
	if (id)
		uncharge_run(id, run);
}
