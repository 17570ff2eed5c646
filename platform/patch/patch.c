/*
 * platform/patch/patch.c - sites, entries, copies of pages. (mailbox.c has the mailboxes, resolve.c what registers mean in a trampoline.)
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
 * What cannot be patched: calls whose number is loaded in another way (a register; xor %eax,%eax but for what detour.c knows), sites at
 * the start or across the end of a page, those behind a REX or operand-size prefix byte (another instruction).
 * A file that is written while its text is executed (a library overwritten in place) is not seen by
 * threads that execute a copy; programs see the patch if they read their own text.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>

#include "platform/patch/internal.h"

#define SITE_SYSCALL_AT 5u
#define TABLE_OFF 0u
#define TABLE_BYTES (PATCH_SITES_MAX * 8u)
#define ENTRY_OFF TABLE_BYTES
#define ENTRY_BYTES (PATCH_SITES_MAX * PATCH_ENTRY_SIZE)
#define CODE_OFF (ENTRY_OFF + ENTRY_BYTES)
#define ENTRY_USED 20u

_Static_assert(CODE_OFF + MOAT_PAGE_SIZE <= MEM_CHUNK_SIZE, "one chunk holds it all");
_Static_assert(PATCH_MAILBOX_VA + PATCH_MAILBOXES_MAX * MOAT_PAGE_SIZE == PATCH_END_VA, "layout");
_Static_assert(PATCH_SITES_MAX * 8u <= PATCH_ENTRY_VA - PATCH_TABLE_VA, "layout");

#define OUT_SIZE 2u

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
	memcpy(patch_mem(s->off + CODE_OFF), patch_code, patch_code_end - patch_code);
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

int patch_page_get(uint64_t *chunks, uint16_t *used, unsigned count)
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

	patch_detours_leave(s, va, size);
	for (unsigned i = 0; i < s->npages; i++) {
		if (s->pages[i].va - va < size)
			copy_dies(s, s->pages[i].off);
		else
			s->pages[kept++] = s->pages[i];
	}
	s->npages = kept;
}

/* What loads the call's number, ENTRY_AT_MOVABS bytes. */
static void put_load(uint8_t *entry, uint32_t nr, bool cleared)
{
	/* The flags that it leaves are the program's: xor %eax, %eax; nopl (%rax). */
	static const uint8_t clear[ENTRY_AT_MOVABS] = {0x31, 0xc0, 0x0f, 0x1f, 0x00};

	if (cleared) {
		memcpy(entry, clear, sizeof(clear));
		return;
	}
	entry[0] = 0xb8; /* mov $nr, %eax */
	put32(entry + 1, nr);
}

/* The site's slot: found, or made. Return: its number, -ENOSPC. */
static int site_get(struct patch_space *s, uint64_t rip, uint32_t nr, bool cleared)
{
	unsigned n = atomic_load_explicit(&s->nsites, memory_order_relaxed);
	uint64_t entry_va;
	uint8_t *entry;

	for (unsigned i = 0; i < n; i++)
		if (s->sites[i].rip == rip && s->sites[i].nr == nr &&
		    s->sites[i].cleared == cleared)
			return (int)i;
	if (n == PATCH_SITES_MAX)
		return -ENOSPC;
	s->sites[n] = (struct patch_site){.rip = rip, .nr = nr, .cleared = cleared};
	entry_va = PATCH_ENTRY_VA + n * PATCH_ENTRY_SIZE;
	entry = patch_mem(s->off + ENTRY_OFF + n * PATCH_ENTRY_SIZE);
	put_load(entry, nr, cleared);
	entry[ENTRY_AT_MOVABS] = 0x49; /* movabs $rip, %r11 */
	entry[ENTRY_AT_MOVABS + 1] = 0xbb;
	memcpy(entry + ENTRY_AT_MOVABS + 2, &rip, sizeof(rip));
	entry[ENTRY_AT_JMP] = 0xe9; /* jmp PATCH_CODE_VA */
	put32(entry + ENTRY_AT_JMP + 1, (uint32_t)(PATCH_CODE_VA - (entry_va + ENTRY_USED)));
	memset(entry + ENTRY_USED, 0xcc, PATCH_ENTRY_SIZE - ENTRY_USED);
	memcpy(patch_mem(s->off + TABLE_OFF + n * 8), &entry_va, sizeof(entry_va));
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

/* jmp *[PATCH_TABLE_VA + slot * 8] */
static void put_jump(uint8_t *at, int slot)
{
	at[0] = 0xff;
	at[1] = 0x24;
	at[2] = 0x25;
	put32(at + 3, PATCH_TABLE_VA + (uint32_t)slot * 8);
}

static bool is_jump(const uint8_t *page, uint64_t at)
{
	return at <= MOAT_PAGE_SIZE - SITE_SIZE && page[at] == 0xff && page[at + 1] == 0x24;
}

/* Is the site patched in these bytes already? */
static bool is_patched(struct patch_space *s, const uint8_t *page, uint64_t page_va, uint64_t end)
{
	const uint8_t *site = page + end - CLEARED_SIZE;

	if (!is_jump(page, end - SITE_SIZE) &&
	    (site[0] != 0xeb || !is_jump(page, end - CLEARED_SIZE + 2 + site[1])))
		return false;
	return page_find(s, page_va);
}

/*
 * The patched bytes of a page with a site whose `syscall` ends at `end`. Return: 0, -ENOTSUP, -ENOSPC.
 */
static int put_site(struct patch_space *s, uint8_t *page, uint64_t page_va, uint64_t end,
		    uint32_t nr)
{
	uint64_t at = end - SITE_SIZE, pad = 0;
	bool cleared = false;
	int slot;

	if (at >= MOAT_PAGE_SIZE || !is_site(page, at, nr)) {
		cleared = s->alone && nr == 0 && patch_detour_fits(page, end, &pad);
		if (!cleared)
			return -ENOTSUP;
	}
	slot = site_get(s, page_va + end, nr, cleared);
	if (slot < 0)
		return slot;
	if (!cleared) {
		/* The address's upper half is the site's `syscall`. */
		put_jump(page + at, slot);
		return 0;
	}
	page[end - CLEARED_SIZE] = 0xeb; /* jmp pad */
	page[end - CLEARED_SIZE + 1] = (uint8_t)(pad - (end - CLEARED_SIZE + 2));
	put_jump(page + pad, slot);
	return patch_detour_add(s, page_va + pad, page_va + end);
}

int patch_apply(struct patch_space *s, uint64_t rip, uint64_t nr, uint64_t page_va,
		const void *page, uint64_t *ret_off)
{
	uint64_t end = rip - page_va, off;
	uint8_t bytes[MOAT_PAGE_SIZE];
	struct patched_page *old;
	int n, err;

	if (end < CLEARED_SIZE || end > MOAT_PAGE_SIZE || nr > UINT32_MAX || ends_elsewhere(nr) ||
	    patch_range_touches(page_va, MOAT_PAGE_SIZE))
		return -ENOTSUP;
	/* Once: the application may be able to write it by another mapping. */
	memcpy(bytes, page, sizeof(bytes));
	if (is_patched(s, bytes, page_va, end))
		return -EALREADY;
	old = page_find(s, page_va);
	if ((!old && s->npages == PATCH_PAGES_MAX) || s->ndead == ARRAY_SIZE(s->dead))
		return -ENOSPC;
	err = put_site(s, bytes, page_va, end, (uint32_t)nr);
	if (err)
		return err;
	n = patch_page_get(s->copy_chunks, s->copy_used, COPY_CHUNKS_MAX);
	if (n < 0) {
		/* Of a page that is not recorded nobody would drop them. */
		if (!old)
			patch_detours_leave(s, page_va, MOAT_PAGE_SIZE);
		return n;
	}
	off = s->copy_chunks[n / CHUNK_PAGES] - 1 + n % CHUNK_PAGES * MOAT_PAGE_SIZE;
	memcpy(patch_mem(off), bytes, sizeof(bytes));
	if (old) {
		copy_dies(s, old->off);
		old->off = off;
	} else {
		s->pages[s->npages++] = (struct patched_page){.va = page_va, .off = off};
	}
	*ret_off = off;
	return 0;
}
