/* tests/platform/patching.c - patched call sites: what events say, races with whoever changes the text, hostile use. */
#include <stdlib.h>

#include "platform/patch/patch.h"
#include "tests/platform/harness.h"

#define TEXT_VA 0x500000ul
#define HOT 200u /* rounds after which the sites have been patched */
#define RESULT 0x1122334455667788ul

extern const char p_start[], p_loop[], p_first[], p_second[], p_peek[], p_write[], p_jump[],
	p_handler[], p_handled[], p_end[];

/* With MEM_WRITE no site can be patched: calls are posted by where `syscall` leads, or trap. */
static unsigned text_access = MEM_READ | MEM_EXEC;

static uint64_t text_va(const char *symbol)
{
	return TEXT_VA + (symbol - p_start);
}

static bool patches(void)
{
	return plat->ops->as_claim != NULL;
}

static uint64_t text_off(void)
{
	static uint64_t off;

	if (!off) {
		off = mem_pages((p_end - p_start) / PAGE);
		memcpy(mem_at(off), p_start, p_end - p_start);
	}
	return off;
}

static struct address_space *text_space(void)
{
	struct address_space *as = space_new();

	space_map(as, TEXT_VA, text_off(), (p_end - p_start) / PAGE, text_access);
	return as;
}

static void set_regs(struct arch_regs *regs, const char *symbol)
{
	*regs = (struct arch_regs){.r = {.rip = text_va(symbol),
					 .rsp = STACK_VA + PAGE - 64,
					 .rbx = 0xb0,
					 .rdi = 0xd1,
					 .rsi = 0x51,
					 .rdx = 0xd2,
					 .r8 = 0x80,
					 .r9 = 0x90,
					 .r10 = 0xa0,
					 .r12 = 0xc0,
					 .r13 = 0x8000000000000000ul,
					 .r14 = 0x7fffffffffffffff,
					 .r15 = 0xf0}};
}

/* Everything that the application can see of a call at one of the sites. */
static bool honest_call(const struct guest *g)
{
	const struct user_regs_struct *r = &g->regs.r;
	bool first = r->rip == text_va(p_first);

	return g->ev.kind == PLATFORM_SYSCALL && (first || r->rip == text_va(p_second)) &&
	       r->rax == (first ? 39 : 110) && r->rcx == r->rip && r->r11 == r->eflags &&
	       /* 0x7ff...f - 0x800...0: CF, PF, SF, OF */
	       (r->eflags & 0x8d5) == 0x885 && r->rsp == STACK_VA + PAGE - 64 && r->rbx == 0xb0 &&
	       r->rdi == 0xd1 && r->rsi == 0x51 && r->rdx == 0xd2 && r->r8 == 0x80 &&
	       r->r9 == 0x90 && r->r10 == 0xa0 && r->r12 == 0xc0 &&
	       r->r13 == 0x8000000000000000ul && r->r14 == 0x7fffffffffffffff && r->r15 == 0xf0 &&
	       r->gs_base == 0;
}

/* Rounds of the loop, each call answered with a result that the next must not show. */
static void loop(struct guest *g, unsigned count)
{
	uint64_t rbp = g->regs.r.rbp, last = 0;

	for (unsigned i = 0; i < count && !atomic_load(&test_failed); i++) {
		g->regs.r.rax = RESULT;
		guest_resume(g);
		EXPECT(honest_call(g));
		EXPECT(g->regs.r.rip != last);
		last = g->regs.r.rip;
	}
	EXPECT(g->regs.r.rbp - rbp >= count / 2);
}

static void start(struct guest *g, struct address_space *as)
{
	guest_init(g, as);
	set_regs(&g->regs, p_loop);
	loop(g, HOT * 2);
}

static void patch_hot_loop(void)
{
	struct address_space *as = text_space();
	struct guest g;
	uint64_t val;

	start(&g, as);
	loop(&g, rounds(20000));
	/* The program sees it, if it looks; the memory file does not. */
	if (patches() && !(text_access & MEM_WRITE)) {
		EXPECT(peek(as, text_va(p_first) - 7, &val) == 0 && (val & 0xffffff) == 0x2524ff);
		EXPECT(((uint8_t *)mem_at(text_off()))[text_va(p_first) - 7 - TEXT_VA] == 0xb8);
	}
	guest_fini(&g);
	ops->as_destroy(as);
}

#define FXSAVE_MXCSR 24
#define FXSAVE_XMM 160
#define EFLAGS_RF 0x10000ull /* how the trap was made may show in it */

/* In the state that g_fpu_fill has made? */
static bool fpu_is_filled(const uint8_t *area, uint64_t seed)
{
	uint32_t mxcsr;
	uint64_t val;

	memcpy(&mxcsr, area + FXSAVE_MXCSR, sizeof(mxcsr));
	for (unsigned i = 2; i < 16; i++) {
		memcpy(&val, area + FXSAVE_XMM + i * 16, sizeof(val));
		if (val != seed + i - 2)
			return false;
	}
	return mxcsr == 0x1fa0;
}

/* Registers that are not what was called with, as for a signal's handler: each one arrives. */
static void check_handler(struct guest *g)
{
	struct user_regs_struct *r = &g->regs.r, sent;
	unsigned long long *regs[] = {&r->r15, &r->r14, &r->r13, &r->r12, &r->rcx,
				      &r->r11, &r->r10, &r->r9,	 &r->r8,  &r->rax,
				      &r->rdx, &r->rsi, &r->rdi, &r->rsp};

	for (unsigned i = 0; i < ARRAY_SIZE(regs); i++)
		*regs[i] = rnd();
	r->rip = text_va(p_handler);
	r->eflags = 0x202 | (rnd() & 0xcd5);
	sent = *r;
	guest_resume(g);
	EXPECT(g->ev.kind == PLATFORM_SYSCALL && r->rip == text_va(p_handled) && r->rax == 15);
	EXPECT(r->rbx == sent.rcx && r->rbp == sent.r11 &&
	       !((r->eflags ^ sent.eflags) & ~EFLAGS_RF));
	EXPECT(r->rdi == sent.rdi && r->rsi == sent.rsi && r->rdx == sent.rdx && r->r8 == sent.r8 &&
	       r->r9 == sent.r9 && r->r10 == sent.r10 && r->r12 == sent.r12 && r->r13 == sent.r13 &&
	       r->r14 == sent.r14 && r->r15 == sent.r15 && r->rsp == sent.rsp);
}

static void patch_handlers(void)
{
	struct address_space *as = text_space();
	size_t size = ops->fpu_size(plat);
	uint8_t *fpu = malloc(size);
	struct arch_regs regs;
	struct guest g;

	guest_init(&g, as);
	guest_run(&g, g_fpu_fill, 0, 0x4711);
	set_regs(&g.regs, p_loop);
	loop(&g, HOT * 2);
	for (unsigned i = 0; i < rounds(3000) && !atomic_load(&test_failed); i++) {
		loop(&g, 1 + rnd() % 4);
		regs = g.regs;
		memset(fpu, 0xff, size);
		EXPECT(ops->fpu_get(g.ctx, fpu, size) == (int)size && fpu_is_filled(fpu, 0x4711));
		/* The header's reserved part, which a signal frame shows. */
		for (unsigned at = 520; at < 576 && at < size; at++)
			EXPECT(fpu[at] == 0);
		check_handler(&g);
		if (i % 8 == 0)
			EXPECT(ops->fpu_set(g.ctx, fpu, size) == 0);
		g.regs = regs;
	}
	free(fpu);
	guest_fini(&g);
	ops->as_destroy(as);
}

/* As for ptrace: nothing of it shows in the text from then on. */
static void patch_traced(void)
{
	struct address_space *as = text_space();
	struct guest g;
	uint64_t val;

	start(&g, as);
	platform_as_set_traced(plat, as, true);
	EXPECT(peek(as, text_va(p_first) - 7, &val) == 0 && (val & 0xff) == 0xb8);
	loop(&g, HOT * 4);
	EXPECT(peek(as, text_va(p_first) - 7, &val) == 0 && (val & 0xff) == 0xb8);
	guest_fini(&g);
	ops->as_destroy(as);
}

/* What the mm does to the text is seen at once; a child starts with the text as it is. */
static void patch_changes(void)
{
	struct address_space *as = text_space(), *child;
	uint64_t other = mem_pages(2), val;
	struct guest g;

	start(&g, as);
	EXPECT(ops->as_create(plat, &child) == 0 && ops->as_fork(as, child) == 0);
	EXPECT(peek(child, text_va(p_first) - 7, &val) == 0 && (val & 0xff) == 0xb8);
	ops->as_destroy(child);
	/* The same again, around it: the copy may stay; calls go on. */
	space_map(as, TEXT_VA, text_off(), 2, text_access);
	loop(&g, HOT);
	ops->as_unmap(as, TEXT_VA, PAGE);
	g.regs.r.rax = 0;
	guest_resume(&g);
	EXPECT(g.ev.kind == PLATFORM_FAULT && g.ev.access == MEM_EXEC && !g.ev.present);
	EXPECT(g.regs.r.rip - TEXT_VA < PAGE);
	space_map(as, TEXT_VA, text_off(), 2, text_access);
	loop(&g, HOT * 3);
	ops->as_protect(as, TEXT_VA, PAGE, MEM_READ);
	guest_resume(&g);
	EXPECT(g.ev.kind == PLATFORM_FAULT && g.ev.access == MEM_EXEC);
	space_map(as, TEXT_VA, text_off(), 2, text_access);
	loop(&g, HOT * 3);
	/* Another page: what is executed is the other page. */
	memset(mem_at(other), 0x0b, PAGE * 2);
	for (unsigned i = 0; i < PAGE * 2; i += 2)
		((uint8_t *)mem_at(other))[i] = 0x0f;
	space_map(as, TEXT_VA, other, 2, MEM_READ | MEM_EXEC);
	set_regs(&g.regs, p_start);
	guest_resume(&g);
	EXPECT(is_exception(&g, 6) && g.regs.r.rip == TEXT_VA);
	guest_fini(&g);
	ops->as_destroy(as);
}

/* The application wants the addresses: it gets them, as they should be. */
static void patch_claim(void)
{
	struct address_space *as = text_space();
	uint64_t off = mem_pages(1), val;
	struct guest g;

	start(&g, as);
	platform_as_claim(plat, as, PATCH_CODE_VA, PAGE);
	if (patches())
		EXPECT(peek(as, PATCH_TABLE_VA, &val) == -EFAULT);
	*mem_at(off) = 0x1234;
	space_map(as, PATCH_CODE_VA, off, 1, MEM_READ | MEM_WRITE | MEM_EXEC);
	EXPECT(peek(as, PATCH_CODE_VA, &val) == 0 && val == 0x1234);
	loop(&g, HOT * 4);
	EXPECT(peek(as, text_va(p_first) - 7, &val) == 0 && (val & 0xff) == 0xb8);
	guest_fini(&g);
	ops->as_destroy(as);
}

/* The same where the only hot site cannot be patched: nothing of ours may be left in what is empty for the application. */
static void patch_claim_unpatched(void)
{
	struct address_space *as = text_space();
	uint64_t val;
	struct guest g;

	guest_init(&g, as);
	for (unsigned i = 0; i < HOT && !atomic_load(&test_failed); i++) {
		set_regs(&g.regs, p_peek);
		g.regs.r.rbx = TEXT_VA;
		guest_resume(&g);
		EXPECT(g.ev.kind == PLATFORM_SYSCALL && g.regs.r.rcx == g.regs.r.rip);
	}
	platform_as_claim(plat, as, PATCH_VA, PATCH_END_VA - PATCH_VA);
	EXPECT(peek(as, PATCH_TABLE_VA, &val) == -EFAULT);
	EXPECT(peek(as, PATCH_ENTRY_VA, &val) == -EFAULT);
	EXPECT(peek(as, PATCH_CODE_VA, &val) == -EFAULT);
	EXPECT(peek(as, PATCH_MAILBOX_VA, &val) == -EFAULT);
	guest_fini(&g);
	ops->as_destroy(as);
}

/* gs base is the application's: to nothing, to memory of its own, to memory that looks like a mailbox. */
static void patch_gs(void)
{
	struct address_space *as = text_space();
	const uint64_t bases[] = {0x7000, DATA_VA, DATA_VA + PAGE};
	uint64_t off = mem_pages(2);
	struct guest g;

	space_map(as, DATA_VA, off, 2, MEM_READ | MEM_WRITE);
	start(&g, as);
	for (unsigned i = 0; i < ARRAY_SIZE(bases) && !atomic_load(&test_failed); i++) {
		for (unsigned n = 0; n < 40; n++) {
			g.regs.r.gs_base = bases[i];
			guest_resume(&g);
			EXPECT(g.ev.kind == PLATFORM_SYSCALL && g.regs.r.gs_base == bases[i]);
			g.regs.r.gs_base = 0;
			EXPECT(honest_call(&g));
		}
		/* Not one byte was stored there. */
		for (unsigned at = 0; at < 2 * PAGE / 8; at++)
			EXPECT(mem_at(off)[at] == 0);
	}
	/* Its own magic and nobody who listens: it spins for as long as it says, then traps. */
	mem_at(off)[0] = PATCH_MAGIC;
	mem_at(off)[MB_STACK / 8] = DATA_VA + MB_STACK_TOP;
	for (unsigned n = 0; n < 10; n++) {
		g.regs.r.gs_base = DATA_VA;
		guest_resume(&g);
		EXPECT(g.ev.kind == PLATFORM_SYSCALL);
		EXPECT(!patch_rip_inside(g.regs.r.rip));
	}
	guest_fini(&g);
	ops->as_destroy(as);
}

/* ---- interruptions ---- */

static bool loop_event(struct runner *r)
{
	struct guest *g = &r->g;

	if (!g->regs.r.r15) {
		set_regs(&g->regs, p_loop);
		return true;
	}
	EXPECT(!patch_rip_inside(g->regs.r.rip) && !patch_lstar_inside(g->regs.r.rip));
	if (g->ev.kind == PLATFORM_SYSCALL) {
		EXPECT(honest_call(g));
		g->regs.r.rax = RESULT;
	} else if (g->ev.kind != PLATFORM_INTERRUPTED) {
		EXPECT(g->ev.kind == PLATFORM_FAULT && r->arg);
		/* Nor is it told what its jump could not read. */
		EXPECT(!patch_range_touches(g->ev.addr, 1));
		/* Text that the test has taken away for a moment. */
		sleep_us(20);
		space_map(g->as, TEXT_VA, text_off(), 2, text_access);
	}
	return !atomic_load(&test_failed);
}

static void loop_start(struct runner *r, struct address_space *as, void *arg)
{
	/* One call at a blob gets it to loop_event(), which sends it into the loop. */
	runner_start(r, as, g_syscall, 0, 0, loop_event, arg);
}

static void patch_interrupts(void)
{
	struct address_space *as = text_space();
	unsigned count = rounds(2000);
	struct runner r;
	uint64_t worst = 0;

	loop_start(&r, as, NULL);
	for (unsigned i = 0; i < count && !atomic_load(&test_failed); i++) {
		uint64_t before = atomic_load(&r.interrupts), sent = now_ns();

		ops->context_interrupt(r.g.ctx);
		while (atomic_load(&r.interrupts) == before && now_ns() - sent < 20000000000ul &&
		       !atomic_load(&test_failed))
			sleep_us(rnd() % 100);
		EXPECT(atomic_load(&r.interrupts) != before);
		worst = MAX(worst, now_ns() - sent);
		sleep_us(rnd() % 300);
	}
	printf("# %lu events, the slowest interruption %lu us\n", atomic_load(&r.events),
	       worst / 1000);
	runner_stop(&r);
	ops->as_destroy(as);
}

/* ---- races ---- */

#define RACERS 3

static void patch_races(void)
{
	struct address_space *as = text_space(), *child;
	struct runner r[RACERS];
	uint64_t until = now_ns() + (slow_machine ? 20000000000ul : 1500000000ul);
	uint64_t events = 0;

	for (unsigned i = 0; i < RACERS; i++)
		loop_start(&r[i], as, as);
	while (now_ns() < until && !atomic_load(&test_failed)) {
		switch (rnd() % 6) {
		case 0:
			ops->as_unmap(as, TEXT_VA, PAGE);
			break;
		case 1:
			ops->as_protect(as, TEXT_VA, PAGE * 2, MEM_READ);
			break;
		case 2:
			EXPECT(ops->as_create(plat, &child) == 0);
			EXPECT(ops->as_fork(as, child) == 0);
			ops->as_destroy(child);
			break;
		case 3:
			ops->context_interrupt(r[rnd() % RACERS].g.ctx);
			break;
		case 4:
			platform_as_set_traced(plat, as, true);
			sleep_us(rnd() % 500);
			platform_as_set_traced(plat, as, false);
			break;
		default:
			sleep_us(rnd() % 4000);
		}
		sleep_us(rnd() % 2000);
	}
	for (unsigned i = 0; i < RACERS; i++) {
		events += atomic_load(&r[i].events);
		runner_stop(&r[i]);
	}
	printf("# %lu events\n", events);
	ops->as_destroy(as);
}

/* exec: the text is gone, the loop starts anew in an address space that others share. */
static void patch_clear_and_claim_races(void)
{
	for (unsigned n = 0; n < rounds(30) && !atomic_load(&test_failed); n++) {
		struct address_space *as = text_space();
		struct runner r[RACERS];

		for (unsigned i = 0; i < RACERS; i++)
			loop_start(&r[i], as, as);
		sleep_us(slow_machine ? 400000 : 20000 + rnd() % 10000);
		if (n & 1)
			platform_as_claim(plat, as, PATCH_VA, PAGE);
		else
			ops->as_clear(as);
		if (!(n & 1)) {
			space_map(as, STACK_VA, mem_pages(1), 1, MEM_READ | MEM_WRITE);
			space_map(as, TEXT_VA, text_off(), 2, text_access);
		}
		sleep_us(5000);
		for (unsigned i = 0; i < RACERS; i++)
			runner_stop(&r[i]);
		ops->as_destroy(as);
	}
}

#define CROWD 40

/* It posts to memory of its own, where nobody listens, until the trampoline is gone; then there is the call. */
static bool crowd_event(struct runner *r)
{
	struct guest *g = &r->g;

	if (!g->regs.r.r15) {
		set_regs(&g->regs, p_loop);
		g->regs.r.gs_base = DATA_VA;
		return true;
	}
	EXPECT(!patch_rip_inside(g->regs.r.rip) && !patch_lstar_inside(g->regs.r.rip));
	EXPECT(g->regs.r.gs_base == DATA_VA);
	g->regs.r.gs_base = 0;
	EXPECT(g->ev.kind == PLATFORM_INTERRUPTED || honest_call(g));
	g->regs.r.gs_base = DATA_VA;
	if (g->ev.kind == PLATFORM_SYSCALL)
		g->regs.r.rax = RESULT;
	return !atomic_load(&test_failed);
}

/* So many threads inside that most have had no CPU yet when who claims has waited for a while. */
static void patch_claim_crowd(void)
{
	struct address_space *as = text_space();
	struct runner r[CROWD];
	/* Who claims waits for CPUs only where threads of the host's are inside. */
	unsigned count = slow_machine || !plat->app_elsewhere ? CROWD / 8 : CROWD;
	uint64_t off = mem_pages(1), after[CROWD];
	struct guest g;

	mem_at(off)[MB_MAGIC / 8] = PATCH_MAGIC;
	mem_at(off)[MB_ASLEEP / 8] = (uint64_t)UINT32_MAX << 32; /* awake; MB_SPINS: for minutes */
	mem_at(off)[MB_STACK / 8] = DATA_VA + MB_STACK_TOP;
	space_map(as, DATA_VA, off, 1, MEM_READ | MEM_WRITE);
	start(&g, as);
	for (unsigned i = 0; i < count; i++)
		runner_start(&r[i], as, g_syscall, 0, 0, crowd_event, NULL);
	sleep_us(100000);
	platform_as_claim(plat, as, PATCH_VA, PAGE);
	for (unsigned i = 0; i < count; i++)
		after[i] = atomic_load(&r[i].events);
	for (unsigned i = 0; i < count; i++) {
		uint64_t until = now_ns() + 20000000000ul;

		while (atomic_load(&r[i].events) < after[i] + 2 && now_ns() < until &&
		       !atomic_load(&test_failed))
			sleep_us(1000);
		EXPECT(atomic_load(&r[i].events) >= after[i] + 2);
	}
	for (unsigned i = 0; i < count; i++)
		runner_stop(&r[i]);
	loop(&g, HOT);
	guest_fini(&g);
	ops->as_destroy(as);
}

/* ---- hostile ---- */

/* Whatever happens to it is its own affair; it starts anew, or goes where it is sent. */
static bool victim_event(struct runner *r)
{
	struct guest *g = &r->g;

	if (g->ev.kind == PLATFORM_SYSCALL && g->regs.r.rip - TEXT_VA < PAGE)
		g->regs.r.rax = RESULT;
	else
		set_regs(&g->regs, p_loop);
	return true;
}

static bool writer_event(struct runner *r)
{
	set_regs(&r->g.regs, p_write);
	r->g.regs.r.rbx = r->rbx;
	r->g.regs.r.rax = rnd() | 1;
	return true;
}

static void works_elsewhere(void)
{
	struct address_space *as = text_space();
	struct guest g;

	start(&g, as);
	guest_fini(&g);
	ops->as_destroy(as);
}

/* A neighbour writes over the mailbox and what follows while calls are posted. */
static void patch_forged_mailbox(void)
{
	struct address_space *as = text_space();
	struct runner victim, writer;
	uint64_t until = now_ns() + (slow_machine ? 15000000000ul : 2000000000ul);

	runner_start(&victim, as, g_syscall, 0, 0, victim_event, NULL);
	sleep_us(slow_machine ? 500000 : 50000);
	runner_start(&writer, as, g_syscall, PATCH_MAILBOX_VA, 1, writer_event, NULL);
	while (now_ns() < until && !atomic_load(&test_failed)) {
		sleep_us(rnd() % 3000);
		ops->context_interrupt(victim.g.ctx);
		if (rnd() % 2)
			ops->context_interrupt(writer.g.ctx);
	}
	printf("# %lu events of the victim\n", atomic_load(&victim.events));
	runner_stop(&writer);
	runner_stop(&victim);
	works_elsewhere();
	ops->as_destroy(as);
}

struct jumper {
	_Atomic uint64_t at;
	_Atomic uint64_t jumps;
};

/* r11 and others as an attacker would have them: a site's, a neighbour's, garbage. */
static bool jumper_event(struct runner *r)
{
	struct jumper *j = r->arg;
	struct user_regs_struct *u = &r->g.regs.r;

	EXPECT(r->g.ev.kind != PLATFORM_SYSCALL || u->rcx == u->rip);
	set_regs(&r->g.regs, p_jump);
	u->rbx = atomic_load(&j->at);
	u->r11 = rnd() & 1 ? text_va(p_first) : rnd() & 1 ? text_va(p_first) + 3 : rnd();
	u->rcx = rnd() & 1 ? text_va(p_second) : rnd() >> (rnd() & 63);
	u->rax = rnd() & 1 ? 39 : rnd();
	if (rnd() % 4 == 0)
		u->eflags |= 0x100; /* TF */
	if (rnd() % 8 == 0)
		u->rsp = rnd();
	atomic_fetch_add(&j->jumps, 1);
	return !atomic_load(&test_failed);
}

static void patch_jumps(void)
{
	struct address_space *as = text_space();
	struct jumper j = {.at = TEXT_VA};
	struct runner r;
	struct guest g;

	/* So that there is something to jump into. */
	start(&g, as);
	runner_start(&r, as, g_syscall, 0, 0, jumper_event, &j);
	for (uint64_t at = 0; at < 0x1f0 && !atomic_load(&test_failed);
	     at += slow_machine ? 5 : 1) {
		const uint64_t places[] = {PATCH_TABLE_VA + at, PATCH_ENTRY_VA + at,
					   PATCH_CODE_VA + at,	PATCH_MAILBOX_VA + at,
					   PATCH_LSTAR_VA + at, text_va(p_first) - 16 + at % 32};

		for (unsigned i = 0; i < ARRAY_SIZE(places); i++) {
			uint64_t before = atomic_load(&j.jumps);

			atomic_store(&j.at, places[i]);
			/* It may be spinning somewhere for good. */
			while (atomic_load(&j.jumps) < before + 2 && !atomic_load(&test_failed)) {
				sleep_us(100);
				ops->context_interrupt(r.g.ctx);
			}
		}
	}
	printf("# %lu jumps\n", atomic_load(&j.jumps));
	runner_stop(&r);
	loop(&g, HOT);
	guest_fini(&g);
	works_elsewhere();
	ops->as_destroy(as);
}

/* A single-stepping application sees its own instructions only. */
static void patch_single_step(void)
{
	struct address_space *as = text_space();
	struct guest g;

	start(&g, as);
	for (unsigned i = 0; i < 200 && !atomic_load(&test_failed); i++) {
		g.regs.r.eflags |= 0x100;
		guest_resume(&g);
		EXPECT(g.ev.kind == PLATFORM_SYSCALL || is_exception(&g, 1));
		EXPECT(g.regs.r.rip - TEXT_VA < PAGE);
		if (g.regs.r.rip == text_va(p_first) - 2)
			EXPECT(g.regs.r.rax == 39);
		if (g.ev.kind == PLATFORM_SYSCALL)
			EXPECT(g.regs.r.rax == 39 || g.regs.r.rax == 110);
	}
	guest_fini(&g);
	ops->as_destroy(as);
}

/* ---- the same where sites cannot be patched ---- */

#define UNPATCHABLE(name)                                      \
	static void name##_unpatchable(void)                   \
	{                                                      \
		text_access = MEM_READ | MEM_WRITE | MEM_EXEC; \
		name();                                        \
		text_access = MEM_READ | MEM_EXEC;             \
	}
UNPATCHABLE(patch_hot_loop)
UNPATCHABLE(patch_handlers)
UNPATCHABLE(patch_claim)
UNPATCHABLE(patch_gs)
UNPATCHABLE(patch_interrupts)
UNPATCHABLE(patch_races)
UNPATCHABLE(patch_clear_and_claim_races)
UNPATCHABLE(patch_forged_mailbox)
UNPATCHABLE(patch_single_step)

const struct test patch_tests[] = {
	{"patch_hot_loop", patch_hot_loop},
	{"patch_handlers", patch_handlers},
	{"patch_traced", patch_traced},
	{"patch_changes", patch_changes},
	{"patch_claim", patch_claim},
	{"patch_claim_unpatched", patch_claim_unpatched},
	{"patch_gs", patch_gs},
	{"patch_single_step", patch_single_step},
	{"patch_interrupts", patch_interrupts},
	{"patch_races", patch_races},
	{"patch_clear_and_claim_races", patch_clear_and_claim_races},
	{"patch_claim_crowd", patch_claim_crowd},
	{"patch_forged_mailbox", patch_forged_mailbox},
	{"patch_jumps", patch_jumps},
	{"patch_hot_loop_unpatchable", patch_hot_loop_unpatchable},
	{"patch_handlers_unpatchable", patch_handlers_unpatchable},
	{"patch_claim_unpatchable", patch_claim_unpatchable},
	{"patch_gs_unpatchable", patch_gs_unpatchable},
	{"patch_interrupts_unpatchable", patch_interrupts_unpatchable},
	{"patch_races_unpatchable", patch_races_unpatchable},
	{"patch_clear_and_claim_races_unpatchable", patch_clear_and_claim_races_unpatchable},
	{"patch_forged_mailbox_unpatchable", patch_forged_mailbox_unpatchable},
	{"patch_single_step_unpatchable", patch_single_step_unpatchable},
	{NULL, NULL},
};
