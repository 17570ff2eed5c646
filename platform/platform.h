/*
 * platform/platform.h - how application code runs. Nothing above this line knows which platform does it.
 *
 * Objects: one struct platform per sandbox; a struct address_space per mm (guest-virtual -> memory
 * file pages); a struct platform_context per task (its FPU state, and what it needs to be run and interrupted).
 *
 * Invariants
 *  - When as_unmap/as_protect/as_map-over-something returns, no application thread on any CPU can use the old translation.
 *  - as_map of a page that was not mapped takes effect at once too, but needs no flush.
 *  - Missing translations are always legal: the platform may drop any of them; the application faults and the mm maps again.
 *  - Nothing that the application does to its registers, memory or the platform's own stubs yields
 *    more than an event that is truthful about that application.
 * Locks: LOCK_AS per address space, then LOCK_PLATFORM. Callers hold at most up to LOCK_MM_PT.
 * Threads: context_switch() is called by the task's own host thread only; context_interrupt() by any.
 */
#ifndef MOAT_PLATFORM_PLATFORM_H
#define MOAT_PLATFORM_PLATFORM_H

#include "abi/regs.h"
#include "base/compiler.h"
#include "mem/memfile.h"

struct platform;
struct address_space;
struct platform_context;

enum platform_event_kind {
	PLATFORM_SYSCALL, /* rip is past the instruction; rcx and r11 as the instruction leaves them */
	PLATFORM_FAULT, /* page fault: addr, access; rip at the faulting instruction */
	PLATFORM_EXCEPTION, /* vector other than 14, error_code; rip as the CPU reports it */
	PLATFORM_INTERRUPTED, /* context_interrupt(), or no reason at all */
};

struct platform_event {
	enum platform_event_kind kind;
	uint64_t addr; /* FAULT: guest-virtual */
	unsigned access; /* FAULT: MEM_READ, MEM_WRITE or MEM_EXEC */
	bool present; /* FAULT: a translation was there and forbade it */
	uint32_t vector; /* EXCEPTION */
	uint32_t error_code; /* FAULT, EXCEPTION */
};

enum {
	/* as_map: as_fork() keeps write permission (a shared mapping). */
	PLATFORM_MAP_SHARED = 1 << 0,
	/* as_map: all of it is about to be written, so the host's pages may be made at once. A hint. */
	PLATFORM_MAP_WILL_TOUCH = 1 << 1,
};

struct platform_ops {
	const char *name;
	/* A page that is mapped alone costs no more than one of many: no host mapping of its own. */
	bool maps_pages;

	/*
	 * Is it usable here? Return 0, or -errno with a one-line reason and what to do in `why`.
	 * Called before the sandbox is confined; keeps the host devices that create() needs open.
	 */
	int (*probe)(char *why, size_t why_size);
	/* Closes them: no create() is to come. */
	void (*unprobe)(void);
	/*
	 * Takes what it needs from the host before the seccomp filter and after anything that must be single-threaded.
	 * mem_init() was called; probe() was, if paths lead nowhere any more.
	 */
	int (*create)(struct platform **ret_p);
	/* The sandbox has that many bytes: what the host's kernel keeps for the platform shall be a small part. After create(), before the filter. May be absent. */
	void (*bound_memory)(struct platform *p, uint64_t bytes);
	void (*destroy)(struct platform *p);

	int (*as_create)(struct platform *p, struct address_space **ret_as);
	/* No context runs in it any more. */
	void (*as_destroy)(struct address_space *as);
	/*
	 * The same without waiting: done(arg) is called, by another thread perhaps, when nothing of the application's can reach
	 * what was mapped. May be absent: platform_as_retire().
	 */
	void (*as_retire)(struct address_space *as, void (*done)(void *arg), void *arg);
	/*
	 * Waits until all that as_retire() was given before has ended: its threads count for limits, its memory is not given
	 * back until then. No locks that done() takes. May be absent: platform_settle().
	 */
	void (*settle)(struct platform *p);
	/* The sandbox is quiet: gives back memory that it keeps only to be quick. May be absent: platform_trim(). */
	void (*trim)(struct platform *p);
	/*
	 * Translates [va, va + size) to mf at mf_off with at most `access` (MEM_READ implied); replaces
	 * what was there. The caller holds chunk references on the range for as long as it stays mapped.
	 * Return: 0, -ENOMEM, -EFAULT if a host file's page cannot be touched (first page; later ones are left unmapped).
	 */
	int (*as_map)(struct address_space *as, uint64_t va, uint64_t size, struct memfile *mf,
		      uint64_t mf_off, unsigned access, unsigned flags);
	void (*as_unmap)(struct address_space *as, uint64_t va, uint64_t size);
	/* Takes away access bits that are not in `access`; never adds. */
	void (*as_protect)(struct address_space *as, uint64_t va, uint64_t size, unsigned access);
	/*
	 * fork: the child, empty, gets the parent's translations; both lose write permission on all that was not
	 * mapped with PLATFORM_MAP_SHARED. May give the child fewer. Return: 0, -ENOMEM (child left empty, parent protected).
	 */
	int (*as_fork)(struct address_space *parent, struct address_space *child);
	/* Everything below ARCH_TASK_SIZE goes (exec, exit). */
	void (*as_clear)(struct address_space *as);

	/*
	 * The mm has a mapping of the application's in [va, va + size) now (nothing need be translated there yet): what
	 * the platform itself keeps at these addresses gives way. Any time. May be absent: platform_as_claim().
	 */
	void (*as_claim)(struct address_space *as, uint64_t va, uint64_t size);
	/* While on, the application's text is executed exactly as the mm has it: ptrace. May be absent. Counts. */
	void (*as_set_traced)(struct address_space *as, bool on);

	/* FPU state starts as the CPU's reset state, or as a copy of `from`, which belongs to the calling thread. */
	int (*context_create)(struct platform *p, struct platform_context *from,
			      struct platform_context **ret_ctx);
	void (*context_destroy)(struct platform_context *ctx);
	/*
	 * Takes from the host now what context_switch() in `as` will need, so that clone() fails for want of it. May be
	 * absent. Nobody else uses ctx. Return: 0, -EAGAIN, -ENOMEM.
	 */
	int (*context_prepare)(struct platform_context *ctx, struct address_space *as);
	/*
	 * Runs the application until an event. `regs` in and out; segments and flags are sanitised by the platform.
	 * Return: 0 with *ret_event; -ENOMEM, -EAGAIN (no host resources: the task gets SIGKILL).
	 */
	int (*context_switch)(struct platform_context *ctx, struct address_space *as,
			      struct arch_regs *regs, struct platform_event *ret_event);
	/*
	 * Makes the current or the next context_switch() return PLATFORM_INTERRUPTED soon; sticky until one does.
	 * Any thread; async-signal-safe not required; no locks taken above LOCK_LEAF.
	 */
	void (*context_interrupt)(struct platform_context *ctx);
	/* The vCPU, stub thread ... of the calling host thread is given back; it will run no more. */
	void (*thread_exit)(struct platform *p);

	/* XSAVE area in standard format, as signal frames hold it. get: writes at most size, returns bytes. The calling thread owns ctx. */
	size_t (*fpu_size)(struct platform *p);
	int (*fpu_get)(struct platform_context *ctx, void *buf, size_t size);
	/* Untrusted contents: -EINVAL if the CPU would refuse them. */
	int (*fpu_set)(struct platform_context *ctx, const void *buf, size_t size);
	void (*fpu_reset)(struct platform_context *ctx);

	/* Counters for moat debug: calls emit(name, value). */
	void (*stats)(struct platform *p, void (*emit)(void *arg, const char *name, uint64_t value),
		      void *arg);
};

struct platform {
	const struct platform_ops *ops;
	/* A range below ARCH_TASK_SIZE that nothing can be mapped in, immutable; size 0: none. */
	uint64_t reserved_start, reserved_size;
	/* Applications run on host threads that context_switch()'s callers wait for; immutable. */
	bool app_elsewhere;
};

/* Lowest address that platforms keep for themselves below ARCH_TASK_SIZE, and its end: where as_claim matters. */
#define PLATFORM_CLAIM_START 0x050f0000ul
#define PLATFORM_CLAIM_END 0x05250000ul

static inline void platform_as_claim(struct platform *p, struct address_space *as, uint64_t va,
				     uint64_t size)
{
	if (unlikely(va < PLATFORM_CLAIM_END && va + size > PLATFORM_CLAIM_START) &&
	    p->ops->as_claim)
		p->ops->as_claim(as, va, size);
}

static inline void platform_as_retire(struct platform *p, struct address_space *as,
				      void (*done)(void *arg), void *arg)
{
	if (p->ops->as_retire) {
		p->ops->as_retire(as, done, arg);
	} else {
		p->ops->as_destroy(as);
		done(arg);
	}
}

static inline void platform_settle(struct platform *p)
{
	if (p->ops->settle)
		p->ops->settle(p);
}

static inline void platform_trim(struct platform *p)
{
	if (p->ops->trim)
		p->ops->trim(p);
}

static inline void platform_as_set_traced(struct platform *p, struct address_space *as, bool on)
{
	if (p->ops->as_set_traced)
		p->ops->as_set_traced(as, on);
}

static inline must_check int
platform_context_prepare(struct platform *p, struct platform_context *ctx, struct address_space *as)
{
	return p->ops->context_prepare ? p->ops->context_prepare(ctx, as) : 0;
}

extern const struct platform_ops kvm_platform_ops, systrap_platform_ops;

#endif
