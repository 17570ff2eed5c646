/*
 * platform/patch/patch.c - sites, entries, copies of pages, mailboxes, and what registers mean in a trampoline.
 *
 *	site S, in the patched copy	table (0x050f0000)	entry (32 bytes)	trampoline.S
 *	jmp *[0x050fXXXX]  ──────────►	address of the entry ─►	mov $nr,%eax	   ──►	gs? listening?
 *	0f 05  (still a syscall) ◄───────────── no ──────────	movabs $S+7,%r11	  │ yes
 *	S+7 ◄────────────────── rax, rcx, r11 as after the call ───────────────── post, spin, done
 *
 * Everything that an address space's trampolines consist of lies in one 64 KiB chunk of private memory: two
 * pages of table, eight of entries, one of code. Copies of pages come from further chunks, sixteen each, as do
 * mailboxes. A site's entry is written before the first page that jumps to it exists and never changes: threads may
 * be in it at any time, also after its page has been dropped.
 *
 * A page that gets another site gets another copy; the old one is freed when the platform says that nobody can be in
 * it. So no byte that may be executed is ever changed.
 *
 * What cannot be patched: calls whose number is loaded in another way (xor %eax,%eax; a register), sites at
 * the start or across the end of a page, those behind a REX or operand-size prefix byte (another instruction).
 * A file that is written while its text is executed (a library overwritten in place) is not seen by
 * threads that execute a copy; programs see the patch if they read their own text.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>

#include "mem/memfile.h"
#include "platform/patch/patch.h"

#define CHUNK_PAGES (MEM_CHUNK_SIZE / MOAT_PAGE_SIZE)
#define COPY_CHUNKS_MAX ((2 * PATCH_PAGES_MAX + CHUNK_PAGES - 1) / CHUNK_PAGES)
#define MAILBOX_CHUNKS_MAX (PATCH_MAILBOXES_MAX / CHUNK_PAGES)

#define XSAVE_HEADER 512u
#define XSAVE_HEADER_SIZE 64u
#define EFLAGS_RF 0x10000ul
#define EFLAGS_AC 0x40000ul
#define SITE_SIZE 7u
#define SITE_SYSCALL_AT 5u
#define TABLE_OFF 0u
#define TABLE_BYTES (PATCH_SITES_MAX * 8u)
#define ENTRY_OFF TABLE_BYTES
#define ENTRY_BYTES (PATCH_SITES_MAX * PATCH_ENTRY_SIZE)
#define CODE_OFF (ENTRY_OFF + ENTRY_BYTES)
#define ENTRY_AT_MOVABS 5u
#define ENTRY_AT_JMP 15u
#define ENTRY_USED 20u

_Static_assert(CODE_OFF + MOAT_PAGE_SIZE <= MEM_CHUNK_SIZE, "one chunk holds it all");
_Static_assert(PATCH_MAILBOX_VA + PATCH_MAILBOXES_MAX * MOAT_PAGE_SIZE == PATCH_END_VA, "layout");
_Static_assert(PATCH_SITES_MAX * 8u <= PATCH_ENTRY_VA - PATCH_TABLE_VA, "layout");

#define VECTOR_UD 6u
#define VECTOR_PF 14u
#define PF_FETCH_USER 0x14u

/* trampoline.S */
extern const uint8_t patch_code[], patch_code_slow_jmp[], patch_code_pushf[], patch_code_popped[],
	patch_code_posted[], patch_code_done[], patch_code_done_rax[], patch_code_done_rcx[],
	patch_code_done_jmp[], patch_code_leave[], patch_code_left[], patch_code_order[],
	patch_code_switch[], patch_code_switch_jmp[], patch_code_end[];

/* lstar.S */
extern const uint8_t patch_lstar[], patch_lstar_entry[], patch_lstar_up[], patch_lstar_down[],
	patch_lstar_back[], patch_lstar_whole[], patch_lstar_posted[], patch_lstar_left[],
	patch_lstar_done[], patch_lstar_done_rax[], patch_lstar_stack[], patch_lstar_unstack[],
	patch_lstar_done_jmp[], patch_lstar_order[], patch_lstar_imm_left[],
	patch_lstar_imm_switch[], patch_lstar_end[];

#define OUT_SIZE 2u
#define LSTAR_VA_OF(label) (PATCH_LSTAR_VA + (uint64_t)((label)-patch_lstar))
#define CODE_VA_OF(label) (PATCH_CODE_VA + (uint64_t)((label)-patch_code))

struct patch_mailbox {
	uint64_t magic;
	_Atomic uint32_t asleep;
	_Atomic uint32_t spins;
	uint64_t stack;
	uint8_t pad0[MB_STATE - 24];
	_Atomic uint32_t state;
	uint8_t pad1[MB_RAX - MB_STATE - 4];
	_Atomic uint64_t rax;
	uint8_t pad2[MB_RDI - MB_RAX - 8];
	_Atomic uint64_t rdi, rsi, rdx, r10, r8, r9, rbx, rbp, rsp, r12, r13, r14, r15, rip, flags,
		rcx, r11;
	_Atomic uint32_t op;
	uint8_t pad3[MB_XSAVE - MB_OP - 4];
	uint8_t xsave[MB_XSAVE_SIZE];
};

#define CHECK_OFFSET(field, off) \
	_Static_assert(offsetof(struct patch_mailbox, field) == (off), #field)
CHECK_OFFSET(magic, MB_MAGIC);
CHECK_OFFSET(asleep, MB_ASLEEP);
CHECK_OFFSET(spins, MB_SPINS);
CHECK_OFFSET(stack, MB_STACK);
CHECK_OFFSET(state, MB_STATE);
CHECK_OFFSET(rax, MB_RAX);
CHECK_OFFSET(rdi, MB_RDI);
CHECK_OFFSET(r10, MB_R10);
CHECK_OFFSET(r9, MB_R9);
CHECK_OFFSET(rsp, MB_RSP);
CHECK_OFFSET(r15, MB_R15);
CHECK_OFFSET(rip, MB_RIP);
CHECK_OFFSET(flags, MB_FLAGS);
CHECK_OFFSET(rcx, MB_RCX);
CHECK_OFFSET(r11, MB_R11);
CHECK_OFFSET(op, MB_OP);
CHECK_OFFSET(xsave, MB_XSAVE);
_Static_assert(MB_FLAGS + 8 == MB_STACK_TOP, "pushfq writes `flags`");
_Static_assert(sizeof(struct patch_mailbox) == MOAT_PAGE_SIZE, "a page each");

struct site {
	uint64_t rip; /* past the `syscall` */
	uint32_t nr;
};

struct patched_page {
	uint64_t va, off;
};

struct patch_space {
	uint64_t off; /* immutable: the chunk */
	/* Entries [0, nsites) are immutable; read without a lock. */
	_Atomic unsigned nsites;
	struct site sites[PATCH_SITES_MAX];
	unsigned npages, ndead;
	struct patched_page pages[PATCH_PAGES_MAX];
	uint64_t dead[2 * PATCH_PAGES_MAX]; /* copies to free at the next patch_reap() */
	uint64_t copy_chunks[COPY_CHUNKS_MAX]; /* offset + 1; 0: none */
	uint16_t copy_used[COPY_CHUNKS_MAX]; /* a bit a page */
	uint64_t mailbox_chunks[MAILBOX_CHUNKS_MAX]; /* offset + 1 */
	uint16_t mailbox_used[MAILBOX_CHUNKS_MAX];
};

static bool enabled = true;

void patch_set_enabled(bool on)
{
	enabled = on;
}

bool patch_enabled(void)
{
	return enabled;
}

/* ---- spaces ---- */

static uint8_t *mem_at_off(uint64_t off)
{
	return memfile_ptr(mem_private(), off);
}

static void put32(uint8_t *p, uint32_t val)
{
	memcpy(p, &val, sizeof(val));
}

void patch_lstar_put(uint8_t *at)
{
	assert(patch_lstar_end - patch_lstar <= PATCH_LSTAR_MAX);
	memcpy(at, patch_lstar, patch_lstar_end - patch_lstar);
	put32(at + (patch_lstar_imm_left - patch_lstar) - 4, (uint32_t)CODE_VA_OF(patch_code_left));
	put32(at + (patch_lstar_imm_switch - patch_lstar) - 4,
	      (uint32_t)CODE_VA_OF(patch_code_switch));
}

int patch_space_create(struct patch_space **ret_space)
{
	struct patch_space *s = calloc(1, sizeof(*s));
	int err;

	if (!s)
		return -ENOMEM;
	err = memfile_alloc(mem_private(), MEM_CHUNK_SIZE, 0, 0, &s->off);
	if (err) {
		free(s);
		return err;
	}
	memcpy(mem_at_off(s->off + CODE_OFF), patch_code, patch_code_end - patch_code);
	*ret_space = s;
	return 0;
}

void patch_space_destroy(struct patch_space *s)
{
	memfile_range_unref(mem_private(), s->off, MEM_CHUNK_SIZE);
	for (unsigned i = 0; i < COPY_CHUNKS_MAX; i++)
		if (s->copy_chunks[i])
			memfile_range_unref(mem_private(), s->copy_chunks[i] - 1, MEM_CHUNK_SIZE);
	for (unsigned i = 0; i < MAILBOX_CHUNKS_MAX; i++)
		if (s->mailbox_chunks[i])
			memfile_range_unref(mem_private(), s->mailbox_chunks[i] - 1,
					    MEM_CHUNK_SIZE);
	free(s);
}

bool patch_space_range(struct patch_space *s, unsigned n, struct patch_range *ret_range)
{
	const struct patch_range ranges[] = {
		{PATCH_TABLE_VA, TABLE_BYTES, s->off + TABLE_OFF, MEM_READ},
		{PATCH_ENTRY_VA, ENTRY_BYTES, s->off + ENTRY_OFF, MEM_READ | MEM_EXEC},
		{PATCH_CODE_VA, MOAT_PAGE_SIZE, s->off + CODE_OFF, MEM_READ | MEM_EXEC},
	};

	if (n >= ARRAY_SIZE(ranges))
		return false;
	*ret_range = ranges[n];
	return true;
}

uint64_t patch_lstar_offset(void)
{
	return (uint64_t)(patch_lstar_entry - patch_lstar);
}

bool patch_lstar_at_exit(uint64_t rip)
{
	return rip == PATCH_LSTAR_VA || rip == PATCH_LSTAR_VA + OUT_SIZE ||
	       rip == LSTAR_VA_OF(patch_lstar_left) - OUT_SIZE ||
	       rip == LSTAR_VA_OF(patch_lstar_left);
}

/* A page of one of `count` chunks. Return: its number, -ENOSPC, -ENOMEM. */
static int page_get(uint64_t *chunks, uint16_t *used, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		uint64_t off;
		int err, bit;

		if (used[i] == 0xffff)
			continue;
		if (!chunks[i]) {
			err = memfile_alloc(mem_private(), MEM_CHUNK_SIZE, 0, 0, &off);
			if (err)
				return err;
			chunks[i] = off + 1;
		}
		bit = __builtin_ctz(~(unsigned)used[i]);
		used[i] |= 1u << bit;
		return (int)(i * CHUNK_PAGES) + bit;
	}
	return -ENOSPC;
}

static void copy_free(struct patch_space *s, uint64_t off)
{
	for (unsigned i = 0; i < COPY_CHUNKS_MAX; i++) {
		uint64_t start = s->copy_chunks[i] - 1;

		if (s->copy_chunks[i] && off - start < MEM_CHUNK_SIZE)
			s->copy_used[i] &= ~(1u << ((off - start) >> MOAT_PAGE_SHIFT));
	}
}

void patch_reap(struct patch_space *s)
{
	for (unsigned i = 0; i < s->ndead; i++)
		copy_free(s, s->dead[i]);
	s->ndead = 0;
}

unsigned patch_pages(const struct patch_space *s)
{
	return s->npages;
}

static struct patched_page *page_find(struct patch_space *s, uint64_t va)
{
	for (unsigned i = 0; i < s->npages; i++)
		if (s->pages[i].va == va)
			return &s->pages[i];
	return NULL;
}

bool patch_find(struct patch_space *s, uint64_t va, uint64_t size, uint64_t *ret_va,
		uint64_t *ret_off)
{
	const struct patched_page *best = NULL;

	for (unsigned i = 0; i < s->npages; i++)
		if (s->pages[i].va - va < size && (!best || s->pages[i].va < best->va))
			best = &s->pages[i];
	if (!best)
		return false;
	if (ret_va)
		*ret_va = best->va;
	if (ret_off)
		*ret_off = best->off;
	return true;
}

static void copy_dies(struct patch_space *s, uint64_t off)
{
	assert(s->ndead < ARRAY_SIZE(s->dead));
	s->dead[s->ndead++] = off;
}

void patch_drop(struct patch_space *s, uint64_t va, uint64_t size)
{
	unsigned kept = 0;

	for (unsigned i = 0; i < s->npages; i++) {
		if (s->pages[i].va - va < size)
			copy_dies(s, s->pages[i].off);
		else
			s->pages[kept++] = s->pages[i];
	}
	s->npages = kept;
}

/* The site's slot: found, or made. Return: its number, -ENOSPC. */
static int site_get(struct patch_space *s, uint64_t rip, uint32_t nr)
{
	unsigned n = atomic_load_explicit(&s->nsites, memory_order_relaxed);
	uint64_t entry_va;
	uint8_t *entry;

	for (unsigned i = 0; i < n; i++)
		if (s->sites[i].rip == rip && s->sites[i].nr == nr)
			return (int)i;
	if (n == PATCH_SITES_MAX)
		return -ENOSPC;
	s->sites[n] = (struct site){.rip = rip, .nr = nr};
	entry_va = PATCH_ENTRY_VA + n * PATCH_ENTRY_SIZE;
	entry = mem_at_off(s->off + ENTRY_OFF + n * PATCH_ENTRY_SIZE);
	entry[0] = 0xb8; /* mov $nr, %eax */
	put32(entry + 1, nr);
	entry[ENTRY_AT_MOVABS] = 0x49; /* movabs $rip, %r11 */
	entry[ENTRY_AT_MOVABS + 1] = 0xbb;
	memcpy(entry + ENTRY_AT_MOVABS + 2, &rip, sizeof(rip));
	entry[ENTRY_AT_JMP] = 0xe9; /* jmp PATCH_CODE_VA */
	put32(entry + ENTRY_AT_JMP + 1, (uint32_t)(PATCH_CODE_VA - (entry_va + ENTRY_USED)));
	memset(entry + ENTRY_USED, 0xcc, PATCH_ENTRY_SIZE - ENTRY_USED);
	memcpy(mem_at_off(s->off + TABLE_OFF + n * 8), &entry_va, sizeof(entry_va));
	atomic_store_explicit(&s->nsites, n + 1, memory_order_release);
	return (int)n;
}

/* Is there `mov $nr,%eax; syscall` at `at`, as far as bytes can tell? */
static bool is_site(const uint8_t *page, uint64_t at, uint32_t nr)
{
	static const uint8_t syscall_insn[] = {0x0f, 0x05};
	uint32_t imm;

	if (at == 0 || at + SITE_SIZE > MOAT_PAGE_SIZE || page[at] != 0xb8 ||
	    memcmp(page + at + SITE_SYSCALL_AT, syscall_insn, sizeof(syscall_insn)) != 0)
		return false;
	/* Behind these it is another register's load, or a shorter one. */
	if ((page[at - 1] & 0xf0) == 0x40 || page[at - 1] == 0x66)
		return false;
	memcpy(&imm, page + at + 1, sizeof(imm));
	return imm == nr;
}

/* Calls that end with another address space or thread, or do not end: posting them saves nothing. */
static bool ends_elsewhere(uint64_t nr)
{
	switch (nr) {
	case SYS_clone:
	case SYS_clone3:
	case SYS_fork:
	case SYS_vfork:
	case SYS_execve:
	case SYS_execveat:
	case SYS_exit:
	case SYS_exit_group:
		return true;
	}
	return false;
}

int patch_apply(struct patch_space *s, uint64_t rip, uint64_t nr, uint64_t page_va,
		const void *page, uint64_t *ret_off)
{
	uint64_t at = rip - SITE_SIZE - page_va, off;
	uint8_t bytes[MOAT_PAGE_SIZE];
	struct patched_page *old;
	int slot, n;

	if (at >= MOAT_PAGE_SIZE || nr > UINT32_MAX || ends_elsewhere(nr) ||
	    patch_range_touches(page_va, MOAT_PAGE_SIZE))
		return -ENOTSUP;
	/* Once: the application may be able to write it by another mapping. */
	memcpy(bytes, page, sizeof(bytes));
	if (bytes[at] == 0xff && at + SITE_SIZE <= MOAT_PAGE_SIZE && bytes[at + 1] == 0x24 &&
	    page_find(s, page_va))
		return -EALREADY;
	if (!is_site(bytes, at, (uint32_t)nr))
		return -ENOTSUP;
	old = page_find(s, page_va);
	if ((!old && s->npages == PATCH_PAGES_MAX) || s->ndead == ARRAY_SIZE(s->dead))
		return -ENOSPC;
	slot = site_get(s, rip, (uint32_t)nr);
	if (slot < 0)
		return slot;
	n = page_get(s->copy_chunks, s->copy_used, COPY_CHUNKS_MAX);
	if (n < 0)
		return n;
	off = s->copy_chunks[n / CHUNK_PAGES] - 1 + n % CHUNK_PAGES * MOAT_PAGE_SIZE;
	bytes[at] =
		0xff; /* jmp *[PATCH_TABLE_VA + slot * 8]: the address's upper half is the site's `syscall` */
	bytes[at + 1] = 0x24;
	bytes[at + 2] = 0x25;
	put32(bytes + at + 3, PATCH_TABLE_VA + (uint32_t)slot * 8);
	memcpy(mem_at_off(off), bytes, sizeof(bytes));
	if (old) {
		copy_dies(s, old->off);
		old->off = off;
	} else {
		s->pages[s->npages++] = (struct patched_page){.va = page_va, .off = off};
	}
	*ret_off = off;
	return 0;
}

/* ---- mailboxes ---- */

int patch_mailbox_get(struct patch_space *s, struct patch_range *ret_range,
		      struct patch_mailbox **ret_mb)
{
	int n = page_get(s->mailbox_chunks, s->mailbox_used, MAILBOX_CHUNKS_MAX);
	struct patch_mailbox *mb;
	uint64_t off;

	if (n < 0)
		return n;
	off = s->mailbox_chunks[n / CHUNK_PAGES] - 1 + n % CHUNK_PAGES * MOAT_PAGE_SIZE;
	mb = (struct patch_mailbox *)mem_at_off(off);
	mb->magic = PATCH_MAGIC;
	mb->stack = patch_mailbox_va(n) + MB_STACK_TOP;
	patch_mailbox_listen(mb, false, 0);
	patch_mailbox_reset(mb);
	*ret_range = (struct patch_range){patch_mailbox_va(n), MOAT_PAGE_SIZE, off,
					  MEM_READ | MEM_WRITE};
	*ret_mb = mb;
	return n;
}

void patch_mailbox_put(struct patch_space *s, int index)
{
	s->mailbox_used[index / CHUNK_PAGES] &= ~(1u << index % CHUNK_PAGES);
}

void patch_mailbox_listen(struct patch_mailbox *mb, bool listening, uint32_t spins)
{
	atomic_store_explicit(&mb->spins, spins, memory_order_relaxed);
	atomic_store_explicit(&mb->asleep, !listening, memory_order_release);
}

bool patch_mailbox_posted(const struct patch_mailbox *mb)
{
	return atomic_load_explicit(&mb->state, memory_order_acquire) == MB_POSTED;
}

static void as_after_syscall(struct user_regs_struct *r, uint64_t rip, uint64_t flags)
{
	r->eflags = (flags & ARCH_EFLAGS_USER) | ARCH_EFLAGS_FIXED;
	r->rip = r->rcx = rip;
	r->r11 = r->eflags;
	/* Whatever they were loaded with. */
	r->cs = ARCH_USER_CS;
	r->ss = ARCH_USER_SS;
}

/* The general registers but those that the call and the way back change: each read once, any value will do. */
static void take_general(const struct patch_mailbox *mb, struct user_regs_struct *r)
{
#define TAKE(reg) r->reg = atomic_load_explicit(&mb->reg, memory_order_relaxed)
	TAKE(rax);
	TAKE(rdi);
	TAKE(rsi);
	TAKE(rdx);
	TAKE(r10);
	TAKE(r8);
	TAKE(r9);
	TAKE(rbx);
	TAKE(rbp);
	TAKE(rsp);
	TAKE(r12);
	TAKE(r13);
	TAKE(r14);
	TAKE(r15);
#undef TAKE
}

bool patch_mailbox_take(struct patch_mailbox *mb, struct arch_regs *regs)
{
	struct user_regs_struct *r = &regs->r;

	if (!patch_mailbox_posted(mb))
		return false;
	atomic_store_explicit(&mb->state, MB_TAKEN, memory_order_relaxed);
	take_general(mb, r);
	as_after_syscall(r, atomic_load_explicit(&mb->rip, memory_order_relaxed),
			 atomic_load_explicit(&mb->flags, memory_order_relaxed));
	return true;
}

void patch_mailbox_reply(struct patch_mailbox *mb, uint64_t rax)
{
	atomic_store_explicit(&mb->rax, rax, memory_order_relaxed);
	atomic_store_explicit(&mb->state, MB_DONE, memory_order_release);
}

bool patch_can_switch(const struct arch_regs *taken, const struct arch_regs *now)
{
	const struct user_regs_struct *a = &taken->r, *b = &now->r;

	return ((a->fs_base ^ b->fs_base) | (a->gs_base ^ b->gs_base) | (a->ds ^ b->ds) |
		(a->es ^ b->es) | (a->fs ^ b->fs) | (a->gs ^ b->gs) |
		(b->eflags & ~(uint64_t)(ARCH_EFLAGS_USER | ARCH_EFLAGS_FIXED)) |
		(b->eflags & (ARCH_EFLAGS_TF | EFLAGS_RF | EFLAGS_AC))) == 0;
}

void patch_mailbox_switch(struct patch_mailbox *mb, const struct arch_regs *regs)
{
	const struct user_regs_struct *r = &regs->r;

#define PUT(reg) atomic_store_explicit(&mb->reg, r->reg, memory_order_relaxed)
	PUT(rax);
	PUT(rdi);
	PUT(rsi);
	PUT(rdx);
	PUT(r10);
	PUT(r8);
	PUT(r9);
	PUT(rbx);
	PUT(rbp);
	PUT(rsp);
	PUT(r12);
	PUT(r13);
	PUT(r14);
	PUT(r15);
	PUT(rip);
	PUT(rcx);
	PUT(r11);
#undef PUT
	atomic_store_explicit(&mb->flags, r->eflags, memory_order_relaxed);
	atomic_store_explicit(&mb->op, MB_OP_SWITCH, memory_order_relaxed);
	atomic_store_explicit(&mb->state, MB_ORDER, memory_order_release);
}

void patch_mailbox_save_fpu(struct patch_mailbox *mb)
{
	memset(mb->xsave + XSAVE_HEADER, 0, XSAVE_HEADER_SIZE);
	atomic_store_explicit(&mb->op, MB_OP_SAVE, memory_order_relaxed);
	atomic_store_explicit(&mb->state, MB_ORDER, memory_order_release);
}

bool patch_mailbox_saved(const struct patch_mailbox *mb)
{
	return atomic_load_explicit(&mb->state, memory_order_acquire) == MB_TAKEN;
}

void patch_mailbox_fpu(const struct patch_mailbox *mb, void *buf, size_t size)
{
	assert(size <= MB_XSAVE_SIZE);
	memcpy(buf, mb->xsave, size);
	if (size >= XSAVE_HEADER + XSAVE_HEADER_SIZE)
		memset((uint8_t *)buf + XSAVE_HEADER + 8, 0, XSAVE_HEADER_SIZE - 8);
}

void patch_mailbox_leave(struct patch_mailbox *mb)
{
	atomic_store_explicit(&mb->state, MB_LEAVE, memory_order_release);
}

void patch_mailbox_reset(struct patch_mailbox *mb)
{
	atomic_store_explicit(&mb->state, MB_DONE, memory_order_relaxed);
}

bool patch_only_rax_changed(const struct arch_regs *taken, const struct arch_regs *now)
{
	const struct user_regs_struct *a = &taken->r, *b = &now->r;
	uint64_t diff = 0;

#define DIFF(reg) diff |= a->reg ^ b->reg
	DIFF(rdi);
	DIFF(rsi);
	DIFF(rdx);
	DIFF(r10);
	DIFF(r8);
	DIFF(r9);
	DIFF(rbx);
	DIFF(rbp);
	DIFF(rsp);
	DIFF(r12);
	DIFF(r13);
	DIFF(r14);
	DIFF(r15);
	DIFF(rip);
	DIFF(rcx);
	DIFF(r11);
	DIFF(eflags);
	DIFF(fs_base);
	DIFF(gs_base);
	DIFF(ds);
	DIFF(es);
	DIFF(fs);
	DIFF(gs);
#undef DIFF
	return diff == 0;
}

/* ---- registers inside a trampoline ---- */

/* The site whose call returns to `rip`; of several (its text was replaced), the last. */
static const struct site *site_by_rip(const struct patch_space *s, uint64_t rip)
{
	unsigned n = s ? atomic_load_explicit(&s->nsites, memory_order_acquire) : 0;

	while (n-- > 0)
		if (s->sites[n].rip == rip)
			return &s->sites[n];
	return NULL;
}

static enum patch_verdict resolve_entry(const struct patch_space *s, struct user_regs_struct *r)
{
	unsigned n = s ? atomic_load_explicit(&s->nsites, memory_order_acquire) : 0;
	uint64_t at = r->rip - PATCH_ENTRY_VA;
	const struct site *site;

	if (at / PATCH_ENTRY_SIZE >= n)
		return PATCH_STRAY;
	site = &s->sites[at / PATCH_ENTRY_SIZE];
	switch (at % PATCH_ENTRY_SIZE) {
	case 0:
	case ENTRY_AT_MOVABS:
		r->rax = site->nr;
		r->rip = site->rip - 2;
		return PATCH_BEFORE;
	case ENTRY_AT_JMP:
		r->rax = site->nr;
		as_after_syscall(r, site->rip, r->eflags);
		return PATCH_CALL;
	}
	return PATCH_STRAY;
}

/* The call is over: its result is in the mailbox, or already in rax. */
static enum patch_verdict resolve_done(const struct patch_space *s, const struct patch_mailbox *mb,
				       struct user_regs_struct *r, uint64_t rip)
{
	uint64_t at = r->rip;
	bool has_rax = at > CODE_VA_OF(patch_code_done) && at <= CODE_VA_OF(patch_code_done_jmp);

	if (!site_by_rip(s, rip) || (!has_rax && !mb))
		return PATCH_STRAY;
	if (!has_rax)
		r->rax = atomic_load_explicit(&mb->rax, memory_order_relaxed);
	as_after_syscall(r, rip, r->eflags);
	return PATCH_AFTER;
}

/* All registers were to come from the mailbox: any values, as in patch_mailbox_take(). */
static enum patch_verdict resolve_switch(const struct patch_mailbox *mb, struct user_regs_struct *r)
{
	if (!mb)
		return PATCH_STRAY;
	take_general(mb, r);
	r->rip = atomic_load_explicit(&mb->rip, memory_order_relaxed);
	r->rcx = atomic_load_explicit(&mb->rcx, memory_order_relaxed);
	r->r11 = atomic_load_explicit(&mb->r11, memory_order_relaxed);
	r->eflags = (atomic_load_explicit(&mb->flags, memory_order_relaxed) & ARCH_EFLAGS_USER) |
		    ARCH_EFLAGS_FIXED;
	return PATCH_AFTER;
}

/* On its way to the switch, or there: was it really sent, or has the application jumped there? */
static bool is_switching(const struct patch_mailbox *mb)
{
	return mb && atomic_load_explicit(&mb->state, memory_order_acquire) == MB_ORDER &&
	       atomic_load_explicit(&mb->op, memory_order_relaxed) == MB_OP_SWITCH;
}

/* In lstar.S. Whatever the registers are, they give a call, or the end of one, that the program could have made itself. */
static enum patch_verdict resolve_lstar(const struct patch_mailbox *mb, struct user_regs_struct *r)
{
	uint64_t at = r->rip;
	bool posted = at >= LSTAR_VA_OF(patch_lstar_posted), moved = posted, done;

	moved |= at >= LSTAR_VA_OF(patch_lstar_up) && at < LSTAR_VA_OF(patch_lstar_whole);
	moved &= !(at >= LSTAR_VA_OF(patch_lstar_down) && at < LSTAR_VA_OF(patch_lstar_back));
	done = at >= LSTAR_VA_OF(patch_lstar_done) && at < LSTAR_VA_OF(patch_lstar_order);
	if (done && at > LSTAR_VA_OF(patch_lstar_done_rax)) {
		/* Flags have been put where popfq finds them, or are in r11 again, or (nobody's) lost. */
		if (at >= LSTAR_VA_OF(patch_lstar_stack) && at < LSTAR_VA_OF(patch_lstar_unstack))
			r->rsp = r->r11;
		if (at < LSTAR_VA_OF(patch_lstar_done_jmp))
			r->r11 = mb ? atomic_load_explicit(&mb->flags, memory_order_relaxed)
				    : r->eflags;
		moved = false;
	}
	if (posted && !done && is_switching(mb))
		return resolve_switch(mb, r);
	as_after_syscall(r, r->rcx, moved ? r->r11 >> 16 : r->r11);
	if (done && at >= LSTAR_VA_OF(patch_lstar_done_rax))
		return PATCH_AFTER;
	/* Its answer is there, though it has not seen it. */
	if (posted && mb && atomic_load_explicit(&mb->state, memory_order_acquire) == MB_DONE) {
		r->rax = atomic_load_explicit(&mb->rax, memory_order_relaxed);
		return PATCH_AFTER;
	}
	return PATCH_CALL;
}

enum patch_verdict patch_resolve(const struct patch_space *s, const struct patch_mailbox *mb,
				 struct arch_regs *inout_regs)
{
	struct user_regs_struct *r = &inout_regs->r;
	const struct site *site;
	uint64_t rip = r->rip, back = r->r11;

	if (!patch_rip_inside(rip) && !patch_lstar_inside(rip))
		return PATCH_OUTSIDE;
	if (rip >= PATCH_ENTRY_VA && rip < PATCH_CODE_VA)
		return resolve_entry(s, r);
	if (rip - PATCH_LSTAR_VA < (uint64_t)(patch_lstar_end - patch_lstar) && s) {
		enum patch_verdict verdict = resolve_lstar(mb, r);

		/* The trap at a trampoline's end has come by here. */
		if (verdict != PATCH_CALL || r->rip != CODE_VA_OF(patch_code_left))
			return verdict;
		rip = r->rip;
	}
	if (rip < PATCH_CODE_VA || rip >= CODE_VA_OF(patch_code_end))
		return PATCH_STRAY;
	if (rip == CODE_VA_OF(patch_code_done_rcx) || rip == CODE_VA_OF(patch_code_done_jmp))
		back = r->rcx;
	else if (rip == CODE_VA_OF(patch_code_slow_jmp))
		back = r->r11 + 2;
	else if (rip == CODE_VA_OF(patch_code_left))
		back = r->rax;
	if (rip >= CODE_VA_OF(patch_code_done) && rip <= CODE_VA_OF(patch_code_done_jmp))
		return resolve_done(s, mb, r, back);
	if (rip >= CODE_VA_OF(patch_code_switch) ||
	    (rip >= CODE_VA_OF(patch_code_posted) && is_switching(mb)))
		return resolve_switch(mb, r);
	/* Its answer is there, and it was on its way to a trap, or to look. */
	if (rip >= CODE_VA_OF(patch_code_posted) && mb &&
	    atomic_load_explicit(&mb->state, memory_order_acquire) == MB_DONE)
		return resolve_done(s, mb, r, back);
	site = site_by_rip(s, back);
	if (!site)
		return PATCH_STRAY;
	if (rip >= CODE_VA_OF(patch_code_pushf) && rip < CODE_VA_OF(patch_code_popped))
		r->rsp = r->rcx;
	r->rax = site->nr;
	as_after_syscall(r, site->rip, r->eflags);
	return PATCH_CALL;
}

/* A site's jump was under way when its table went: it is void, since the site's page went before, or with it. */
static bool is_jump_fault(const struct patch_space *s, const struct arch_regs *regs,
			  const struct platform_event *ev)
{
	uint64_t at = ev->addr - PATCH_TABLE_VA, slot = at / 8;

	return ev->kind == PLATFORM_FAULT && ev->access == MEM_READ && s && at % 8 == 0 &&
	       slot < atomic_load_explicit(&s->nsites, memory_order_acquire) &&
	       s->sites[slot].rip == regs->r.rip + SITE_SIZE;
}

void patch_resolve_event(const struct patch_space *space, const struct patch_mailbox *mb, bool ours,
			 struct arch_regs *inout_regs, struct platform_event *inout_ev)
{
	static const struct platform_event interrupted = {.kind = PLATFORM_INTERRUPTED};
	enum platform_event_kind kind = inout_ev->kind;
	bool trap = kind == PLATFORM_SYSCALL ||
		    (kind == PLATFORM_EXCEPTION && inout_ev->vector == VECTOR_UD);

	switch (patch_resolve(space, mb, inout_regs)) {
	case PATCH_OUTSIDE:
		if (is_jump_fault(space, inout_regs, inout_ev))
			*inout_ev = interrupted;
		break;
	case PATCH_BEFORE:
		if (kind == PLATFORM_FAULT)
			*inout_ev = interrupted;
		break;
	case PATCH_CALL:
		*inout_ev = (struct platform_event){.kind = PLATFORM_SYSCALL};
		break;
	case PATCH_AFTER:
		if (trap || kind == PLATFORM_FAULT)
			*inout_ev = interrupted;
		break;
	case PATCH_STRAY:
		if (!ours)
			break;
		*inout_ev = (struct platform_event){
			.kind = PLATFORM_FAULT,
			.addr = inout_regs->r.rip,
			.access = MEM_EXEC,
			.vector = VECTOR_PF,
			.error_code = PF_FETCH_USER,
		};
		break;
	}
}
