/* platform/patch/internal.h - what patch.c, mailbox.c and resolve.c share. */
#ifndef MOAT_PLATFORM_PATCH_INTERNAL_H
#define MOAT_PLATFORM_PATCH_INTERNAL_H

#include "mem/memfile.h"
#include "platform/patch/patch.h"

#define CHUNK_PAGES (MEM_CHUNK_SIZE / MOAT_PAGE_SIZE)
#define COPY_CHUNKS_MAX ((2 * PATCH_PAGES_MAX + CHUNK_PAGES - 1) / CHUNK_PAGES)
#define MAILBOX_CHUNKS_MAX (PATCH_MAILBOXES_MAX / CHUNK_PAGES)

#define SITE_SIZE 7u /* of one that a `mov` begins, and of the jump in its place */
#define CLEARED_SIZE 4u /* of one that a `xor` begins */
#define ENTRY_AT_CLEARED 2u /* behind the `xor` of such a site's entry */
#define ENTRY_AT_MOVABS 5u
#define ENTRY_AT_JMP 15u

/* trampoline.S */
extern const uint8_t patch_code[], patch_code_slow_jmp[], patch_code_pushf[], patch_code_popped[],
	patch_code_posted[], patch_code_done[], patch_code_done_rax[], patch_code_done_rcx[],
	patch_code_done_jmp[], patch_code_leave[], patch_code_left[], patch_code_order[],
	patch_code_switch[], patch_code_switch_jmp[], patch_code_end[];

/* lstar.S */
extern const uint8_t patch_lstar[], patch_lstar_entry[], patch_lstar_up[], patch_lstar_down[],
	patch_lstar_back[], patch_lstar_whole[], patch_lstar_posts[], patch_lstar_posted[],
	patch_lstar_left[], patch_lstar_done[], patch_lstar_done_rax[], patch_lstar_stack[],
	patch_lstar_unstack[], patch_lstar_done_jmp[], patch_lstar_order[], patch_lstar_imm_left[],
	patch_lstar_imm_switch[], patch_lstar_end[];

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

struct patch_site {
	uint64_t rip; /* past the `syscall` */
	uint32_t nr;
	bool cleared; /* `xor %eax,%eax` loads the number, which is 0 */
};

struct patched_page {
	uint64_t va, off;
};

/* Values of `live`. */
#define DETOUR_GONE 0u
#define DETOUR_LEFT \
	1u /* its page was dropped, and no event came since: the thread may still be there */
#define DETOUR_LIVE 2u

/* A jump in what was padding, which a site's short jump leads to. */
struct patch_detour {
	uint64_t at; /* immutable */
	uint64_t rip; /* immutable: the site's */
	_Atomic unsigned live;
};

struct patch_space {
	uint64_t off; /* immutable: the chunk */
	/* Entries [0, nsites) are immutable; read without a lock. */
	_Atomic unsigned nsites;
	struct patch_site sites[PATCH_SITES_MAX];
	/* Detours [0, ndetours), likewise, but for `live`. */
	_Atomic unsigned ndetours;
	struct patch_detour detours[PATCH_DETOURS_MAX];
	_Atomic bool left; /* some are DETOUR_LEFT */
	bool alone; /* patch_set_alone() */
	unsigned npages, ndead;
	struct patched_page pages[PATCH_PAGES_MAX];
	uint64_t dead[2 * PATCH_PAGES_MAX]; /* copies to free at the next patch_reap() */
	uint64_t copy_chunks[COPY_CHUNKS_MAX]; /* offset + 1; 0: none */
	uint16_t copy_used[COPY_CHUNKS_MAX]; /* a bit a page */
	uint64_t mailbox_chunks[MAILBOX_CHUNKS_MAX]; /* offset + 1 */
	uint16_t mailbox_used[MAILBOX_CHUNKS_MAX];
};

static inline uint8_t *patch_mem(uint64_t off)
{
	return memfile_ptr(mem_private(), off);
}
/* A page of one of `count` chunks. Return: its number, -ENOSPC, -ENOMEM. */
must_check int patch_page_get(uint64_t *chunks, uint16_t *used, unsigned count);

/* ---- detour.c ---- */

/* Is there `xor %eax,%eax; syscall` before `at`, and behind it dead padding for a jump? *ret_pad: its place. All in bytes of the page. */
bool patch_detour_fits(const uint8_t *page, uint64_t at, uint64_t *ret_pad);
/* Return: 0, -ENOSPC. */
must_check int patch_detour_add(struct patch_space *s, uint64_t at, uint64_t rip);
/* Copies of [va, va + size) go. */
void patch_detours_leave(struct patch_space *s, uint64_t va, uint64_t size);
/* As `xor %eax,%eax` leaves them. */
void patch_clear_rax(struct user_regs_struct *r);
/* Is rip in a detour? Then *r are at its site's `syscall`. */
bool patch_detour_resolve(const struct patch_space *s, struct user_regs_struct *r);

/* As a call that returns to `rip` leaves them. */
void patch_after_syscall(struct user_regs_struct *r, uint64_t rip, uint64_t flags);
/* The general registers but those that the call and the way back change: each read once, any value will do. */
void patch_take_general(const struct patch_mailbox *mb, struct user_regs_struct *r);
#endif
