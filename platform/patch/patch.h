/*
 * platform/patch/patch.h - hot system call sites that post their calls instead of trapping. Both platforms use it;
 * patch.c opens with the essay, docs/trampolines.md has the picture.
 *
 * What happens to a site. `b8 imm32; 0f 05` (mov $nr,%eax; syscall) at S becomes `ff 24 25 XX XX 0f 05`: a jump
 * through a table slot; the `0f 05` stays a system call for whoever jumps to S + 5. It happens in a *copy* of the
 * page, which the platform maps where the application executes; the mm, and with it /proc/PID/mem, ptrace and
 * files, keep the page as it is. Replacing the page's translation is one step, so no thread executes half of it.
 *
 * `31 c0; 0f 05` (xor %eax,%eax; syscall: glibc's read()) has no room for that: the `xor` becomes a short jump to padding behind the
 * function's `ret`, and the jump through the table stands there (detour.c). Only while one thread runs in the address space
 * (patch_set_alone()).
 *
 * What the trampoline does: checks that %gs leads to a mailbox with a listener, stores the registers there, sets
 * state = MB_POSTED and spins. In every other case it jumps to S + 5: an ordinary system call. It changes no flag, no
 * register but rax, rcx and r11 (which a system call changes), and no memory but the mailbox's.
 *
 * Division of labour
 *   platform  counts system call events (patch_heat_note), says what lies at a hot site, maps what patch_space_range()
 *             and patch_apply() hand out, gives threads their mailbox's address as %gs base while the application's own
 *             is 0 (and shows the application's 0), asks patch_resolve() about every event whose rip is inside
 *             [PATCH_VA, PATCH_END_VA), and has a listener at the mailbox while it sets `listening`.
 *   this      finds out whether a site can be patched, builds tables, entries and copies, keeps mailboxes, knows
 *             what registers mean inside a trampoline.
 *
 * Memory: everything that is mapped lies in the private memory file; ranges are (va, mem_private() offset), so
 * a platform maps them as it maps anything. References are the patch_space's.
 *
 * Locks: a patch_space has none: the platform's lock of the address space guards it (every function below that takes
 * one), but for patch_resolve() and patch_heat_note(), which anyone may call at any time.
 * Mailboxes are written by the application at will: only the functions here read them, each field once.
 */
#ifndef MOAT_PLATFORM_PATCH_PATCH_H
#define MOAT_PLATFORM_PATCH_PATCH_H

#include "abi/regs.h"
#include "base/compiler.h"
#include "mem/memfile.h"
#include "platform/patch/layout.h"
#include "platform/platform.h"

/* `--no-patch`, or a test. Before any address space is made; true at start. */
void patch_set_enabled(bool on);
bool patch_enabled(void);

/* Does [va, va + size) touch the trampolines' range? */
static inline bool patch_range_touches(uint64_t va, uint64_t size)
{
	return va < PATCH_END_VA && va + size > PATCH_VA;
}

static inline bool patch_rip_inside(uint64_t rip)
{
	return unlikely(rip - PATCH_VA < PATCH_END_VA - PATCH_VA);
}

static inline bool patch_lstar_inside(uint64_t rip)
{
	return unlikely(rip - PATCH_LSTAR_VA < PATCH_LSTAR_MAX);
}

/* ---- which sites are hot ---- */

#define PATCH_HEAT_SLOTS 64

/* Embedded in the platform's address space, zeroed. Racy counts are good enough. */
struct patch_heat {
	uint32_t hot; /* immutable: calls until a site is hot; 0: the default */
	struct {
		_Atomic uint64_t rip;
		_Atomic uint32_t count;
	} slots[PATCH_HEAT_SLOTS];
};

/*
 * A system call trapped with rip past the instruction. Return: true now and then while it stays hot: try patch_apply()
 * (not from a site that patch_heat_cold() was told about).
 */
bool patch_heat_note(struct patch_heat *heat, uint64_t rip);
/* It cannot be patched: it is not reported again while it keeps its slot. */
void patch_heat_cold(struct patch_heat *heat, uint64_t rip);
/* It is patched: not reported again either, but remembered as such. A slot that was lost is a "no". */
void patch_heat_patched(struct patch_heat *heat, uint64_t rip);
bool patch_heat_is_patched(const struct patch_heat *heat, uint64_t rip);
/* What was cold for being patched may become hot again. */
void patch_heat_reset(struct patch_heat *heat);

/* ---- an address space's patches ---- */

struct patch_space;

struct patch_range {
	uint64_t va, size, off; /* off: in mem_private() */
	unsigned access; /* MEM_READ, MEM_READ | MEM_EXEC, MEM_READ | MEM_WRITE */
};

/* Return: 0, -ENOMEM. */
must_check int patch_space_create(struct patch_space **ret_space);
/* Nothing of it is mapped any more. */
void patch_space_destroy(struct patch_space *space);
/* Fixed ranges (table, entries, code), to be mapped before the first patched page: n = 0, 1 ...; false: no more. */
bool patch_space_range(struct patch_space *space, unsigned n, struct patch_range *ret_range);
/*
 * Code of PATCH_LSTAR_MAX bytes at most, for who has memory at PATCH_LSTAR_VA (`at`, of which it is a part) and makes
 * PATCH_LSTAR_VA + patch_lstar_offset() the place where `syscall` leads: what runs there posts the call if it can, and
 * else exits by PATCH_LSTAR_PORT at patch_lstar_at_exit(). It is the same for all spaces. patch_resolve() is asked about
 * patch_lstar_inside() of who runs so.
 */
void patch_lstar_put(uint8_t *at);
uint64_t patch_lstar_offset(void);
/* Is this rip at, or past, an instruction there that exits? */
bool patch_lstar_at_exit(uint64_t rip);

/*
 * patch_apply - a patched copy of the page at page_va, because a call with `nr` in rax arrived with `rip`.
 * `page`: what is there now for the application (the copy, if one is mapped), MOAT_PAGE_SIZE readable bytes; the caller
 * has seen that it is executable, not writable and not a shared mapping.
 * Return: 0: the caller now maps *ret_off at page_va, r-x, in place of what was there, then calls patch_reap();
 * -EALREADY: that site is patched; -ENOTSUP: not such a site (patch_heat_cold() it); -ENOSPC, -ENOMEM: limits.
 */
must_check int patch_apply(struct patch_space *space, uint64_t rip, uint64_t nr, uint64_t page_va,
			   const void *page, uint64_t *ret_off);
/*
 * One thread at most runs in the address space, and patched pages change only while it has an event: sites may be patched that take two jumps.
 * Without it none is. False to begin with. Who takes it back drops the pages that patch_detour_find() tells first, while that thread has its event.
 */
void patch_set_alone(struct patch_space *space, bool alone);
bool patch_detour_find(const struct patch_space *space, uint64_t *ret_va);
/* Are there copies with such sites in [va, va + size), or were, and the thread has not gone on since? */
bool patch_detours_in(const struct patch_space *space, uint64_t va, uint64_t size);
/* The thread has an event, which has been resolved: it is in no detour of pages that were dropped, and these are mapped no more. */
void patch_settle(struct patch_space *space);
/* Is there something to settle? Callable without the lock. */
bool patch_unsettled(const struct patch_space *space);
/* Is a patched copy recorded in [va, va + size)? Its first page: *ret_va, its copy: *ret_off (each may be NULL). */
bool patch_find(struct patch_space *space, uint64_t va, uint64_t size, uint64_t *ret_va,
		uint64_t *ret_off);
/* Copies in [va, va + size) are not mapped any more: patch_reap() frees them. Entries stay: threads may be in them. */
void patch_drop(struct patch_space *space, uint64_t va, uint64_t size);
/* No thread can use a copy that was replaced or dropped before this call. */
void patch_reap(struct patch_space *space);
unsigned patch_pages(const struct patch_space *space);

/* ---- mailboxes: one a thread and address space ---- */

struct patch_mailbox; /* a page that the application can write */

/* A free mailbox, initialised, not listening; *ret_range is to be mapped. Return: its index; -ENOSPC, -ENOMEM. */
must_check int patch_mailbox_get(struct patch_space *space, struct patch_range *ret_range,
				 struct patch_mailbox **ret_mb);
/* It may be given to another thread; its translation may stay. */
void patch_mailbox_put(struct patch_space *space, int index);

/* The %gs base that leads to it. */
static inline uint64_t patch_mailbox_va(int index)
{
	return PATCH_MAILBOX_VA + (uint64_t)index * MOAT_PAGE_SIZE;
}

/* Calls are posted from now on; `spins` bounds how often the trampoline looks for the answer before it traps. */
void patch_mailbox_listen(struct patch_mailbox *mb, bool listening, uint32_t spins);
/* Something is posted; acquire. */
bool patch_mailbox_posted(const struct patch_mailbox *mb);
/*
 * Takes what is posted: general registers, rip, flags, as after the `syscall`; segments and bases of *regs stay.
 * Any values may come, as from any application. False if nothing is posted.
 */
bool patch_mailbox_take(struct patch_mailbox *mb, struct arch_regs *regs);
/* The taken call has ended with rax and nothing else has changed: the trampoline returns. */
void patch_mailbox_reply(struct patch_mailbox *mb, uint64_t rax);
/*
 * The taken call has ended with these registers, of which patch_can_switch() has been asked: the trampoline loads them all and
 * goes on at their rip. The mailbox is not written again before a call is taken.
 */
void patch_mailbox_switch(struct patch_mailbox *mb, const struct arch_regs *regs);
bool patch_can_switch(const struct arch_regs *taken, const struct arch_regs *now);
/* Of a taken call: the trampoline is to write the FPU state down; it has if patch_mailbox_saved(). */
void patch_mailbox_save_fpu(struct patch_mailbox *mb);
bool patch_mailbox_saved(const struct patch_mailbox *mb);
/* What it wrote, at most MB_XSAVE_SIZE bytes: as untrusted as any image of the application's. The header is in order. */
void patch_mailbox_fpu(const struct patch_mailbox *mb, void *buf, size_t size);
/* The trampoline traps instead of going on (a system call event, at an rip that patch_resolve() knows). */
void patch_mailbox_leave(struct patch_mailbox *mb);
/* The thread that used it runs somewhere else with registers of its own: nothing is posted. */
void patch_mailbox_reset(struct patch_mailbox *mb);
/* Does a reply suffice: is `now` what was taken, but for rax? */
bool patch_only_rax_changed(const struct arch_regs *taken, const struct arch_regs *now);

/* ---- registers inside a trampoline ---- */

enum patch_verdict {
	PATCH_OUTSIDE, /* not in the range: *regs untouched */
	PATCH_BEFORE, /* *regs are at the site's `syscall`: it has not happened; the event stands, but a fault is void */
	PATCH_CALL, /* *regs are past the site's `syscall`: the event is a PLATFORM_SYSCALL instead */
	/* The posted call is over, *regs are past it with its rax; the event stands, but a fault and the trap are void. */
	PATCH_AFTER,
	PATCH_STRAY, /* the application jumped here by itself: *regs untouched; a fault, as if nothing were mapped */
};

/*
 * patch_resolve - the application's true registers for an event whose rip may lie in a trampoline. `space` and `mb`
 * may be NULL. Caller: gives up `mb`'s posted call if PATCH_CALL (patch_mailbox_reset()) once it has resolved, unless
 * that call was taken before: then the platform knows itself that this thread is waiting for its answer.
 * Callable without the address space's lock.
 */
enum patch_verdict patch_resolve(const struct patch_space *space, const struct patch_mailbox *mb,
				 struct arch_regs *inout_regs);

/*
 * The same, and what the event is then: a fault or a trap inside a trampoline is a call, or nothing, as is a fault of a site's jump
 * whose table has gone; where the application has no business to be, a fetch fault; `ours`: it can have nothing of its own there.
 */
void patch_resolve_event(const struct patch_space *space, const struct patch_mailbox *mb, bool ours,
			 struct arch_regs *inout_regs, struct platform_event *inout_ev);

/* ---- when to listen ---- */

/*
 * Whether hand-offs pay, from what one thread sees: what each saved, against what the failed ones lost. Owned by
 * that thread; zeroed at start. The platform asks before it runs the application whether to listen, and reports.
 */
struct patch_pace {
	int64_t trap_ns; /* what a trapped call costs, about */
	int64_t credit_ns; /* what the present series of hand-offs has saved, bounded */
	int64_t rest_ns, rest_until_ns; /* no hand-offs until then (CLOCK_MONOTONIC) */
	int64_t defer_ns; /* how long the last rest for want of a core was */
	uint32_t score; /* recent trapped calls that came soon after the last */
	uint32_t patience; /* the caller's: powers of two more calls before each try */
	bool on;
};

/* A call of a patched site trapped all the same, `ns` after the application was entered. */
void patch_pace_trapped(struct patch_pace *p, int64_t ns, int64_t now_ns);
bool patch_pace_on(const struct patch_pace *p);
/* Not now, whatever it would save: there is no core for it. Asked again a little later, and ever later. */
void patch_pace_defer(struct patch_pace *p, int64_t now_ns);
/* Handed off: the next event came `ns` after the reply. */
void patch_pace_hit(struct patch_pace *p, int64_t ns, int64_t now_ns);
/* Handed off: waited in vain; `lost_ns` until the thread had its registers back. */
void patch_pace_miss(struct patch_pace *p, int64_t lost_ns, int64_t now_ns);

#endif
