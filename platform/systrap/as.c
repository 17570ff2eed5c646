/*
 * platform/systrap/as.c - address spaces: what should be where, and the orders that make it so.
 *
 * A translation is written down here first (a region); it is `dirty` until the stub has been told. as_map of something
 * new tells nobody: the orders go out with the next context that starts, in one batch. What takes something away (or
 * replaces it) is carried out before the call returns. An address space without a stub costs nothing but its regions,
 * so a fork's child that has not run yet takes and gives no process.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "base/log.h"
#include "mem/guard.h"
#include "platform/systrap/systrap.h"

static int region_cmp(const struct systrap_region *a, const struct systrap_region *b)
{
	return (a->va > b->va) - (a->va < b->va);
}

RB_GENERATE_LOCAL(systrap_regions, systrap_region, node, region_cmp)

int systrap_as_create(struct platform *base, struct address_space **ret_as)
{
	struct systrap_platform *p = systrap_of(base);
	struct address_space *as = calloc(1, sizeof(*as));

	if (!as)
		return -ENOMEM;
	as->p = p;
	mutex_init(&as->lock, LOCK_AS, "address space");
	RB_INIT(&as->regions);
	TAILQ_INIT(&as->dirty);
	SYSTRAP_STAT_ADD(p, spaces, 1);
	*ret_as = as;
	return 0;
}

/* ---- regions ---- */

/* The first region that ends above va. */
static struct systrap_region *region_find(struct address_space *as, uint64_t va)
{
	struct systrap_region *r = RB_ROOT(&as->regions), *best = NULL;

	while (r) {
		if (r->va + r->size > va) {
			best = r;
			r = RB_LEFT(r, node);
		} else {
			r = RB_RIGHT(r, node);
		}
	}
	return best;
}

static void region_set_dirty(struct address_space *as, struct systrap_region *r)
{
	if (!r->installed)
		return;
	r->installed = false;
	TAILQ_INSERT_TAIL(&as->dirty, r, dirty_link);
	as->ndirty++;
	atomic_store(&as->has_dirty, true);
}

static void region_set_installed(struct address_space *as, struct systrap_region *r)
{
	if (r->installed)
		return;
	r->installed = true;
	TAILQ_REMOVE(&as->dirty, r, dirty_link);
	as->ndirty--;
}

static void region_insert(struct address_space *as, struct systrap_region *r)
{
	bool installed = r->installed;

	if (RB_INSERT(systrap_regions, &as->regions, r))
		assert(!"two regions at one address");
	as->npieces += r->pieces;
	r->installed = true;
	if (!installed)
		region_set_dirty(as, r);
}

static void region_remove(struct address_space *as, struct systrap_region *r)
{
	region_set_installed(as, r);
	RB_REMOVE(systrap_regions, &as->regions, r);
	as->npieces -= r->pieces;
	free(r);
}

/* Its pieces after a change of its size: each is a page at least. */
static uint32_t region_pieces(const struct systrap_region *r)
{
	return (uint32_t)MIN((uint64_t)r->pieces, r->size / MOAT_PAGE_SIZE);
}

/* Takes over what next has, which joins r. */
static void region_absorb(struct address_space *as, struct systrap_region *r,
			  struct systrap_region *next)
{
	uint32_t pieces = memfile_kind(r->mf) == MEMFILE_PRIVATE ? MAX(r->pieces, next->pieces)
								 : r->pieces + next->pieces;

	r->size += next->size;
	region_remove(as, next);
	as->npieces += pieces - r->pieces;
	r->pieces = pieces;
}

/* Makes `at` a boundary. Return: 0, -ENOMEM. */
static int region_split(struct address_space *as, uint64_t at)
{
	struct systrap_region *r = region_find(as, at), *upper;

	if (!r || r->va >= at)
		return 0;
	upper = malloc(sizeof(*upper));
	if (!upper)
		return -ENOMEM;
	*upper = *r;
	upper->va = at;
	upper->off += at - r->va;
	upper->size -= at - r->va;
	r->size = at - r->va;
	/* Nobody knows on which side of it they are. */
	upper->pieces = region_pieces(upper);
	region_insert(as, upper);
	as->npieces -= r->pieces - region_pieces(r);
	r->pieces = region_pieces(r);
	return 0;
}

static bool region_joins(const struct systrap_region *a, const struct systrap_region *b)
{
	return a->va + a->size == b->va && a->mf == b->mf && a->off + a->size == b->off &&
	       a->access == b->access && a->rights == b->rights && a->shared == b->shared &&
	       a->whole == b->whole && a->installed == b->installed;
}

static void region_merge(struct address_space *as, struct systrap_region *r)
{
	struct systrap_region *prev = RB_PREV(systrap_regions, &as->regions, r), *next;

	if (prev && region_joins(prev, r)) {
		region_absorb(as, prev, r);
		r = prev;
	}
	next = RB_NEXT(systrap_regions, &as->regions, r);
	if (next && region_joins(r, next))
		region_absorb(as, r, next);
}

/* ---- orders ---- */

static void post(struct address_space *as, uint32_t nr, uint32_t flags, uint64_t a0, uint64_t a1,
		 uint64_t a2)
{
	systrap_order_post(as->p, as->stub,
			   &(struct systrap_order){.nr = nr, .flags = flags, .args = {a0, a1, a2}});
}

static void post_unmap(struct address_space *as, uint64_t va, uint64_t size)
{
	uint64_t end = va + size;

	/* Around the stub's own range: what lay on both sides of it goes in one call. */
	if (unlikely(va < STUB_BASE && end > STUB_END)) {
		post_unmap(as, va, STUB_BASE - va);
		va = STUB_END;
	}
	/* Around the trampolines. */
	if (unlikely(as->own_mapped && va < PATCH_VA && end > PATCH_END_VA)) {
		post(as, SYS_munmap, ORDER_MUST, va, PATCH_VA - va, 0);
		va = PATCH_END_VA;
	}
	post(as, SYS_munmap, ORDER_MUST, va, end - va, 0);
}

/* Carries out what was posted; copies of pages that were replaced by it are nobody's. */
static void sync(struct address_space *as)
{
	systrap_orders_sync(as->p, as->stub);
	if (unlikely(as->patches))
		patch_reap(as->patches);
}

void systrap_as_post_unmap_all(struct address_space *as)
{
	systrap_patch_drop(as, 0, ARCH_TASK_SIZE);
	as->own_mapped = false;
	atomic_store(&as->patch_live, NULL);
	post_unmap(as, 0, STUB_BASE);
	post_unmap(as, STUB_END, ARCH_TASK_SIZE - STUB_END);
}

/* Everything that is the application's; the regions stay. */
static void unmap_all(struct address_space *as)
{
	systrap_as_post_unmap_all(as);
	sync(as);
}

/* Nothing waits to be installed any more. lock held. */
static void settle(struct address_space *as)
{
	if (TAILQ_EMPTY(&as->dirty))
		atomic_store(&as->has_dirty, false);
}

/* The stub has it no longer, as far as it had. lock held. */
static void drop_all(struct address_space *as)
{
	struct systrap_region *r, *next;

	RB_FOREACH_SAFE (r, systrap_regions, &as->regions, next)
		region_remove(as, r);
	atomic_store(&as->has_dirty, false);
	if (as->stub)
		unmap_all(as);
}

/*
 * A host file's descriptor becomes the stub's descriptor 0. The message's header lies in memory that the application
 * can write; what it can achieve is that nothing arrives, and then the next order ends it.
 */
static bool send_file(struct address_space *as, struct memfile *mf)
{
	uint8_t *at = as->stub->hints + HINT_MSG;
	uint64_t va = STUB_HINTS + HINT_MSG, iov_va = va + 64, data_va = va + 80,
		 control_va = va + 96;
	union {
		struct cmsghdr hdr;
		char space[CMSG_SPACE(sizeof(int))];
	} control = {.hdr = {.cmsg_len = CMSG_LEN(sizeof(int)),
			     .cmsg_level = SOL_SOCKET,
			     .cmsg_type = SCM_RIGHTS}};
	char byte = 0;
	struct iovec iov = {.iov_base = &byte, .iov_len = 1};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = &control,
			     .msg_controllen = sizeof(control)};
	uint64_t header[7] = {0, 0, iov_va, 1, control_va, CMSG_SPACE(sizeof(int)), 0};
	uint64_t vec[2] = {data_va, 1};
	int fd = memfile_fd(mf);
	ssize_t n;

	static_assert(sizeof(struct msghdr) == 56, "msghdr");
	memcpy(CMSG_DATA(&control.hdr), &fd, sizeof(fd));
	do {
		n = sendmsg(as->stub->socket, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
	} while (n < 0 && errno == EINTR);
	if (n != 1) {
		log_debug("systrap: a file's descriptor cannot be sent: %s", strerror(errno));
		return false;
	}
	memcpy(at, header, sizeof(header));
	memcpy(at + 64, vec, sizeof(vec));
	post(as, SYS_recvmsg, ORDER_MUST, STUB_FD_SOCKET, va, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	return true;
}

static void post_map(struct address_space *as, const struct systrap_region *r, int fd)
{
	uint64_t prot = PROT_READ | (r->access & MEM_WRITE ? PROT_WRITE : 0) |
			(r->access & MEM_EXEC ? PROT_EXEC : 0);
	uint64_t flags = MAP_SHARED | MAP_FIXED | MAP_NORESERVE | (r->populate ? MAP_POPULATE : 0);

	systrap_order_post(as->p, as->stub,
			   &(struct systrap_order){
				   .nr = SYS_mmap,
				   .flags = ORDER_MUST,
				   .args = {r->va, r->size, prot, flags, (uint64_t)fd, r->off},
			   });
}

/* A region's mapping is there: its rights, whatever they are now, become those that it should have. */
static void post_rights(struct address_space *as, struct systrap_region *r)
{
	post(as, SYS_mprotect, ORDER_MUST, r->va, r->size, r->access);
	region_set_installed(as, r);
	r->rights = r->access;
}

/* What the stub has of a region that waits to be mapped goes. */
static void post_gone(struct address_space *as, struct systrap_region *r)
{
	post_unmap(as, r->va, r->size);
	r->rights = 0;
}

/* It will not be mapped now; what the stub has of it goes. */
static void forget_one(struct address_space *as, struct systrap_region *r)
{
	if (r->rights)
		post_unmap(as, r->va, r->size);
	region_remove(as, r);
}

/* Counts what it maps down in *inout_left, and maps one at least. */
static void install_one(struct address_space *as, struct systrap_region *r, unsigned *inout_left)
{
	struct memfile *mf = r->mf;
	struct systrap_region *next;
	bool host = memfile_kind(mf) != MEMFILE_PRIVATE;

	--*inout_left;
	if (r->whole) {
		post_rights(as, r);
		region_merge(as, r);
		return;
	}
	if (host && !send_file(as, mf)) {
		/* It faults, and is mapped again. */
		forget_one(as, r);
		return;
	}
	/* A file's descriptor is sent once for its mappings that follow one another: a program's segments. */
	for (;; r = next) {
		next = TAILQ_NEXT(r, dirty_link);
		region_set_installed(as, r);
		post_map(as, r, host ? 0 : STUB_FD_PRIVATE);
		as->npieces -= r->pieces - 1;
		r->pieces = 1;
		r->populate = false;
		r->whole = true;
		r->rights = r->access;
		region_merge(as, r);
		if (!host || !next || next->mf != mf || !*inout_left)
			break;
		--*inout_left;
	}
	if (host)
		post(as, SYS_close, 0, 0, 0, 0);
}

void systrap_as_install(struct address_space *as)
{
	struct systrap_region *r;
	unsigned left = SYSTRAP_BATCH_MAX;

	if (as->npieces > SYSTRAP_PIECES_MAX) {
		SYSTRAP_STAT_ADD(as->p, drops, 1);
		drop_all(as);
		return;
	}
	/* The oldest first; a child of a large process lets the rest fault in. */
	while ((r = TAILQ_FIRST(&as->dirty))) {
		if (left)
			install_one(as, r, &left);
		else if (r->whole)
			post_rights(as, r);
		else
			forget_one(as, r);
	}
	SYSTRAP_STAT_ADD(as->p, batches, 1);
}

const struct systrap_region *systrap_region_at(struct address_space *as, uint64_t va)
{
	const struct systrap_region *r = region_find(as, va);

	return r && r->va <= va ? r : NULL;
}

void systrap_region_restore(struct address_space *as, uint64_t va)
{
	struct systrap_region *r = region_find(as, va), page;

	if (!r || r->va > va || !r->rights)
		return;
	r->rights |= r->access;
	page = *r;
	page.va = va;
	page.off += va - r->va;
	page.size = MOAT_PAGE_SIZE;
	page.populate = false;
	if (memfile_kind(page.mf) == MEMFILE_PRIVATE) {
		post_map(as, &page, STUB_FD_PRIVATE);
	} else if (send_file(as, page.mf)) {
		post_map(as, &page, 0);
		post(as, SYS_close, 0, 0, 0, 0);
	} else {
		/* It faults, and is mapped again: not if all of it were there, and had the rights that are asked for. */
		post_unmap(as, va, MOAT_PAGE_SIZE);
		r->whole = false;
	}
}

/* ---- the platform's operations ---- */

/*
 * Nothing is at [va, end) any more, in the tree. Return: whether the stub may have had something there: *ret_lo and
 * *ret_hi, with *inout_rights more. Without memory for a split more goes than was asked for.
 */
static bool carve(struct address_space *as, uint64_t va, uint64_t end, uint64_t *ret_lo,
		  uint64_t *ret_hi, uint8_t *inout_rights)
{
	struct systrap_region *r, *next;
	uint64_t lo = UINT64_MAX, hi = 0;

	if (region_split(as, va) || region_split(as, end))
		log_debug("systrap: no memory; a whole translation is dropped");
	for (r = region_find(as, va); r && r->va < end; r = next) {
		next = RB_NEXT(systrap_regions, &as->regions, r);
		if (r->rights) {
			lo = MIN(lo, r->va);
			hi = MAX(hi, r->va + r->size);
			*inout_rights |= r->rights;
		}
		region_remove(as, r);
	}
	*ret_lo = lo;
	*ret_hi = hi;
	if (lo < hi)
		systrap_patch_drop(as, lo, hi - lo);
	return lo < hi;
}

/* What the stub may have in [va, end) is exactly this already, but for rights that are added. */
static bool only_adds(struct address_space *as, const struct systrap_region *want)
{
	struct systrap_region *r = region_find(as, want->va);
	uint64_t end = want->va + want->size;

	for (; r && r->va < end; r = RB_NEXT(systrap_regions, &as->regions, r))
		if (r->rights && (r->mf != want->mf || r->off - r->va != want->off - want->va ||
				  (r->rights & ~want->access)))
			return false;
	return true;
}

/*
 * Pre: only_adds(). One region that is mapped already covers `want`: it gets the rights. Nothing is to be done if the stub has
 * them, as it does when a fork took them and they come back before it was told. Return: false: none does.
 */
static bool add_rights(struct address_space *as, const struct systrap_region *want)
{
	uint64_t end = want->va + want->size;
	struct systrap_region *r = region_find(as, want->va);

	if (want->populate || !r || !r->whole || r->va > want->va || r->va + r->size < end ||
	    r->shared != want->shared)
		return false;
	if (region_split(as, want->va) || region_split(as, end))
		return false;
	r = region_find(as, want->va);
	r->access = want->access;
	if (r->rights == r->access) {
		region_set_installed(as, r);
		region_merge(as, r);
		settle(as);
	} else {
		region_set_dirty(as, r);
	}
	return true;
}

int systrap_as_map(struct address_space *as, uint64_t va, uint64_t size, struct memfile *mf,
		   uint64_t mf_off, unsigned access, unsigned flags)
{
	struct systrap_region *r = calloc(1, sizeof(*r));
	uint64_t lo, hi;
	bool adds, detours;

	if (!r)
		return -ENOMEM;
	if (systrap_reserved(va, size) ||
	    (memfile_kind(mf) == MEMFILE_HOST && guard_probe(memfile_ptr(mf, mf_off), false))) {
		free(r);
		return -EFAULT;
	}
	*r = (struct systrap_region){
		.va = va,
		.size = size,
		.mf = mf,
		.off = mf_off,
		.pieces = 1,
		.access = (uint8_t)((access & memfile_max_access(mf)) | MEM_READ),
		.shared = flags & PLATFORM_MAP_SHARED,
		.populate = (flags & PLATFORM_MAP_WILL_TOUCH) && (access & MEM_WRITE),
	};
	mutex_lock(&as->lock);
	adds = only_adds(as, r) && !systrap_patched(as, va, size);
	if (adds && add_rights(as, r)) {
		mutex_unlock(&as->lock);
		free(r);
		return 0;
	}
	detours = systrap_patch_has_detours(as, va, size);
	/* More than was asked for goes when memory is short: then that has to be carried out, too. */
	if (carve(as, va, va + size, &lo, &hi, &r->rights) && detours) {
		/* Another process maps this, perhaps. A thread that stands at a detour faults there, and finds the new page when it goes on. */
		post_unmap(as, lo, hi - lo);
		r->rights = 0;
		region_insert(as, r);
		sync(as);
	} else if (lo < hi && (!adds || lo < va || hi > va + size)) {
		/* In one step for what is replaced; the rest of what was carved goes. */
		if (lo < va)
			post_unmap(as, lo, va - lo);
		if (hi > va + size)
			post_unmap(as, va + size, hi - (va + size));
		region_insert(as, r);
		install_one(as, r, &(unsigned){1});
		sync(as);
	} else {
		region_insert(as, r);
	}
	mutex_unlock(&as->lock);
	return 0;
}

void systrap_as_unmap(struct address_space *as, uint64_t va, uint64_t size)
{
	uint64_t lo, hi;
	uint8_t rights = 0;

	mutex_lock(&as->lock);
	if (carve(as, va, va + size, &lo, &hi, &rights)) {
		post_unmap(as, lo, hi - lo);
		sync(as);
	}
	mutex_unlock(&as->lock);
}

void systrap_as_protect(struct address_space *as, uint64_t va, uint64_t size, unsigned access)
{
	struct systrap_region *r;
	uint64_t lo, hi, end = va + size;
	uint8_t rights = 0;
	bool any = false;

	if (!(access & MEM_READ)) {
		systrap_as_unmap(as, va, size);
		return;
	}
	mutex_lock(&as->lock);
	if (region_split(as, va) || region_split(as, end)) {
		/* No memory: nothing is there, rather than too much. */
		if (carve(as, va, end, &lo, &hi, &rights)) {
			post_unmap(as, lo, hi - lo);
			any = true;
		}
	}
	for (r = region_find(as, va); r && r->va < end;
	     r = RB_NEXT(systrap_regions, &as->regions, r)) {
		r->access &= (uint8_t)access;
		if (!(r->rights & ~r->access))
			continue;
		/* The copy of a patched page keeps the page's rights: those of the region are enough. */
		if (r->whole)
			post_rights(as, r);
		else
			post_gone(as, r);
		any = true;
	}
	if (any)
		sync(as);
	mutex_unlock(&as->lock);
}

/*
 * Private regions lose the right to write. later: the stub is told before a thread of it goes on, if the right has not come back
 * by then. Return: orders were posted.
 */
static bool protect_for_fork(struct address_space *parent, bool later)
{
	struct systrap_region *r;
	uint64_t start = 0, end = 0;
	uint8_t access = 0;
	bool any = false;

	RB_FOREACH (r, systrap_regions, &parent->regions) {
		if (r->shared)
			continue;
		r->access &= (uint8_t)~MEM_WRITE;
		if (!(r->rights & MEM_WRITE))
			continue;
		if (later && r->whole) {
			region_set_dirty(parent, r);
			continue;
		}
		any = true;
		if (!r->whole) {
			post_gone(parent, r);
			continue;
		}
		region_set_installed(parent, r);
		r->rights = r->access;
		/* Runs of them in one call, joined as far as nothing lies between them. */
		if (start < end && end == r->va && access == r->access) {
			end += r->size;
			continue;
		}
		if (start < end)
			post(parent, SYS_mprotect, ORDER_MUST, start, end - start, access);
		start = r->va;
		end = r->va + r->size;
		access = r->access;
	}
	if (start < end)
		post(parent, SYS_mprotect, ORDER_MUST, start, end - start, access);
	return any;
}

/*
 * Does no thread of the application's run? Then whoever goes on finds that there is something to install, and waits for the lock: pairs
 * with run(). A thread that runs although the sentry has its event (it has forged that) writes to what its child reads a little longer.
 */
static bool at_rest(struct address_space *as)
{
	const struct systrap_thread *t;

	atomic_store(&as->has_dirty, true);
	if (as->stub)
		LIST_FOREACH (t, &as->stub->threads, link)
			if (atomic_load(&t->run) != RUN_NOT)
				return false;
	return true;
}

void systrap_as_company(struct address_space *as)
{
	if (likely(as->in_company))
		return;
	/* It is made by a call of the first one's, which therefore rests. */
	systrap_patch_company(as, at_rest(as));
	settle(as);
}

int systrap_as_fork(struct address_space *parent, struct address_space *child)
{
	struct systrap_region *r, *copy, *next;
	int err = 0;

	mutex_lock(&parent->lock);
	mutex_lock_nested(&child->lock); /* nobody else knows it */
	if (protect_for_fork(parent, at_rest(parent)))
		systrap_orders_sync(parent->p, parent->stub);
	settle(parent);
	RB_FOREACH (r, systrap_regions, &parent->regions) {
		copy = malloc(sizeof(*copy));
		if (!copy) {
			err = -ENOMEM;
			break;
		}
		*copy = *r;
		copy->installed = copy->whole = copy->populate = false;
		copy->rights = 0;
		copy->pieces = 1;
		region_insert(child, copy);
	}
	if (err)
		RB_FOREACH_SAFE (r, systrap_regions, &child->regions, next)
			region_remove(child, r);
	mutex_unlock(&child->lock);
	mutex_unlock(&parent->lock);
	return err;
}

void systrap_as_clear(struct address_space *as)
{
	mutex_lock(&as->lock);
	drop_all(as);
	mutex_unlock(&as->lock);
}

void systrap_as_leave(struct address_space *as)
{
	struct systrap_thread *t;

	mutex_lock(&as->lock);
	mutex_lock(&as->p->bind_lock);
	if (as->stub)
		LIST_FOREACH (t, &as->stub->threads, link)
			if (t->ctx)
				systrap_unbind_locked(t->ctx);
	mutex_unlock(&as->p->bind_lock);
	mutex_unlock(&as->lock);
}

void systrap_as_free(struct address_space *as)
{
	mutex_lock(&as->lock);
	as->stub = NULL;
	drop_all(as);
	mutex_unlock(&as->lock);
	if (as->patches)
		patch_space_destroy(as->patches);
	atomic_fetch_sub_explicit(&as->p->stats.spaces, 1, memory_order_relaxed);
	free(as);
}

void systrap_as_destroy(struct address_space *as)
{
	mutex_lock(&as->lock);
	drop_all(as);
	mutex_unlock(&as->lock);
	systrap_as_leave(as);
	if (as->stub && !systrap_recycle(as))
		systrap_stub_put(as->p, as->stub);
	systrap_as_free(as);
}
