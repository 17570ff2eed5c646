/* tests/platform/detours.c - sites that a jump in padding serves, while one thread runs in the address space (platform/patch/detour.c). */
#include <stddef.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>

#include "platform/patch/patch.h"
#include "platform/systrap/systrap.h"
#include "tests/platform/harness.h"

#define TEXT_VA 0x500000ul
#define HOT 400u /* calls after which the site has been patched */
#define FLAGS_AFTER_XOR 0x44ul /* PF, ZF; not CF, SF, OF */

extern const char d_start[], d_loop[], d_site[], d_after[], d_pad[], d_behind[], d_end[];

static uint64_t text_va(const char *symbol)
{
	return TEXT_VA + (symbol - d_start);
}

static uint64_t text_off(void)
{
	static uint64_t off;

	if (!off) {
		off = mem_pages(1);
		memcpy(mem_at(off), d_start, d_end - d_start);
	}
	return off;
}

static void map_text(struct address_space *as)
{
	space_map(as, TEXT_VA, text_off(), 1, MEM_READ | MEM_EXEC);
}

static struct address_space *text_space(void)
{
	struct address_space *as = space_new();

	map_text(as);
	return as;
}

static void set_regs(struct arch_regs *regs)
{
	*regs = (struct arch_regs){.r = {.rip = text_va(d_loop),
					 .rsp = STACK_VA + PAGE - 64,
					 .rdi = 0xd1,
					 .rsi = 0x51,
					 .rdx = 0xd2,
					 .r13 = 0x8000000000000000ul,
					 .r14 = 0x7fffffffffffffff,
					 .r15 = 0xf0}};
}

static bool honest_call(const struct guest *g)
{
	const struct user_regs_struct *r = &g->regs.r;

	return g->ev.kind == PLATFORM_SYSCALL && r->rip == text_va(d_after) && r->rax == 0 &&
	       r->rcx == r->rip && r->r11 == r->eflags && (r->eflags & 0x8c5) == FLAGS_AFTER_XOR &&
	       r->rsp == STACK_VA + PAGE - 72 && r->rdi == 0xd1 && r->rsi == 0x51 &&
	       r->rdx == 0xd2 && r->r15 == 0xf0;
}

static void loop(struct guest *g, unsigned count)
{
	uint64_t rbp = g->regs.r.rbp;

	for (unsigned i = 0; i < count && !atomic_load(&test_failed); i++) {
		g->regs.r.rax = i;
		guest_resume(g);
		EXPECT(honest_call(g));
	}
	EXPECT(g->regs.r.rbp - rbp == count);
}

/* Return: how many sites were patched meanwhile. */
static uint64_t start(struct guest *g, struct address_space *as)
{
	uint64_t before = on_kvm ? 0 : stat_value("systrap/patches");

	guest_init(g, as);
	set_regs(&g->regs);
	loop(g, HOT);
	return on_kvm ? 0 : stat_value("systrap/patches") - before;
}

/* Does another thread that looks see the program's own text? From then on they are two. */
static void expect_own_text(struct address_space *as)
{
	uint64_t site, pad;

	EXPECT(peek(as, text_va(d_site), &site) == 0 && (site & 0xffffffff) == 0x050fc031);
	EXPECT(peek(as, text_va(d_pad), &pad) == 0 && (pad & 0xffffffff) == 0x1f0f2e66);
}

static void detour_hot_loop(void)
{
	struct address_space *as = text_space();
	struct guest g;

	EXPECT(start(&g, as) == !on_kvm);
	loop(&g, rounds(20000));
	guest_fini(&g);
	ops->as_destroy(as);
}

/* A second thread takes it back, and it stays so. */
static void detour_company(void)
{
	struct address_space *as = text_space();
	uint64_t before;
	struct guest g;

	start(&g, as);
	expect_own_text(as);
	before = on_kvm ? 0 : stat_value("systrap/patches");
	loop(&g, HOT * 4);
	EXPECT(on_kvm || stat_value("systrap/patches") == before);
	expect_own_text(as);
	guest_fini(&g);
	ops->as_destroy(as);
}

static void detour_traced(void)
{
	struct address_space *as = text_space();
	struct guest g;

	start(&g, as);
	platform_as_set_traced(plat, as, true);
	loop(&g, HOT * 4);
	expect_own_text(as);
	guest_fini(&g);
	ops->as_destroy(as);
}

/* The text goes and comes again, by calls of the thread itself; then there is another at these addresses. */
static void detour_changes(void)
{
	struct address_space *as = text_space();
	uint64_t other = mem_pages(1);
	struct guest g;

	start(&g, as);
	for (unsigned i = 0; i < 8 && !atomic_load(&test_failed); i++) {
		if (i & 1)
			ops->as_unmap(as, TEXT_VA, PAGE);
		else
			ops->as_protect(as, TEXT_VA, PAGE, MEM_READ);
		guest_resume(&g);
		EXPECT(g.ev.kind == PLATFORM_FAULT && g.ev.access == MEM_EXEC);
		map_text(as);
		loop(&g, HOT * 2);
	}
	/* There, where the jump was, is an instruction of another program. */
	memset(mem_at(other), 0xcc, PAGE);
	space_map(as, TEXT_VA, other, 1, MEM_READ | MEM_EXEC);
	for (unsigned i = 0; i < 2; i++) {
		g.regs.r.rip = text_va(d_pad) - i;
		guest_resume(&g);
		EXPECT(is_exception(&g, 3) && g.regs.r.rip == text_va(d_pad) - i + 1);
	}
	guest_fini(&g);
	ops->as_destroy(as);
}

/* Its own call takes the text away: what comes then at the jump's address is the new text's, be it the first thing that comes. */
static void detour_gone(void)
{
	uint64_t other = mem_pages(1);
	struct address_space *as = text_space();
	struct guest g;

	start(&g, as);
	ops->as_unmap(as, TEXT_VA, PAGE);
	g.regs.r.rip = text_va(d_pad);
	g.regs.r.rax = 0x1234;
	guest_resume(&g);
	EXPECT(g.ev.kind == PLATFORM_FAULT && g.ev.addr == text_va(d_pad));
	EXPECT(g.regs.r.rip == text_va(d_pad) && g.regs.r.rax == 0x1234);
	set_regs(&g.regs);
	map_text(as);
	loop(&g, HOT * 2);
	memset(mem_at(other), 0xf4, PAGE); /* hlt */
	space_map(as, TEXT_VA, other, 1, MEM_READ | MEM_EXEC);
	g.regs.r.rip = text_va(d_pad);
	g.regs.r.rax = 0x1234;
	guest_resume(&g);
	EXPECT(is_exception(&g, 13));
	EXPECT(g.regs.r.rip == text_va(d_pad) && g.regs.r.rax == 0x1234);
	guest_fini(&g);
	ops->as_destroy(as);
}

/* The file's descriptor cannot be sent when its page is to come back: the page is missing then, and comes when it is mapped. */
static void detour_not_restored(void)
{
	struct address_space *as = space_new();
	int fd = memfd_create("text", 0), kept;
	struct memfile *mf;
	struct guest g;

	EXPECT(fd >= 0 && write(fd, d_start, PAGE) == PAGE);
	EXPECT(memfile_create_host(dup(fd), MEM_READ | MEM_EXEC, &mf) == 0);
	EXPECT(memfile_range_ref(mf, 0, PAGE) == 0);
	EXPECT(ops->as_map(as, TEXT_VA, PAGE, mf, 0, MEM_READ | MEM_EXEC, 0) == 0);
	EXPECT(start(&g, as) == !on_kvm);
	kept = dup(memfile_fd(mf));
	close(memfile_fd(mf));
	platform_as_set_traced(plat, as, true);
	EXPECT(dup2(kept, memfile_fd(mf)) == memfile_fd(mf));
	guest_resume(&g);
	if (g.ev.kind == PLATFORM_FAULT) {
		EXPECT(ops->as_map(as, TEXT_VA, PAGE, mf, 0, MEM_READ | MEM_EXEC, 0) == 0);
		guest_resume(&g);
	}
	EXPECT(honest_call(&g));
	guest_fini(&g);
	ops->as_destroy(as);
	memfile_range_unref(mf, 0, PAGE);
	memfile_unref(mf);
	close(kept);
	close(fd);
}

/* It sees its own instructions only: the `xor` done, never the padding. */
static void detour_single_step(void)
{
	struct address_space *as = text_space();
	unsigned calls = 0;
	struct guest g;

	start(&g, as);
	for (unsigned i = 0; i < 400 && !atomic_load(&test_failed); i++) {
		uint64_t rip;

		g.regs.r.eflags |= 0x100;
		guest_resume(&g);
		rip = g.regs.r.rip;
		EXPECT(g.ev.kind == PLATFORM_SYSCALL || is_exception(&g, 1));
		EXPECT(rip >= text_va(d_loop) && rip < text_va(d_pad));
		if (rip == text_va(d_site) + 2)
			EXPECT(g.regs.r.rax == 0 && (g.regs.r.eflags & 0x8c5) == FLAGS_AFTER_XOR);
		calls += g.ev.kind == PLATFORM_SYSCALL;
		if (g.ev.kind == PLATFORM_SYSCALL)
			g.regs.r.rax = 1;
	}
	EXPECT(calls > 10);
	guest_fini(&g);
	ops->as_destroy(as);
}

static bool loop_event(struct runner *r)
{
	struct guest *g = &r->g;

	if (!g->regs.r.r15) {
		set_regs(&g->regs);
		return true;
	}
	EXPECT(g->regs.r.rip >= text_va(d_loop) && g->regs.r.rip < text_va(d_pad));
	if (g->ev.kind == PLATFORM_SYSCALL) {
		EXPECT(honest_call(g));
		g->regs.r.rax = 1;
	} else if (g->ev.kind != PLATFORM_INTERRUPTED) {
		EXPECT(g->ev.kind == PLATFORM_FAULT && r->arg);
		EXPECT(!patch_range_touches(g->ev.addr, 1));
		sleep_us(20);
		map_text(g->as);
	}
	return !atomic_load(&test_failed);
}

static void detour_interrupts(void)
{
	struct address_space *as = text_space();
	unsigned count = rounds(4000);
	struct runner r;

	runner_start(&r, as, g_syscall, 0, 0, loop_event, NULL);
	for (unsigned i = 0; i < count && !atomic_load(&test_failed); i++) {
		uint64_t before = atomic_load(&r.interrupts), sent = now_ns();

		ops->context_interrupt(r.g.ctx);
		while (atomic_load(&r.interrupts) == before && now_ns() - sent < 20000000000ul &&
		       !atomic_load(&test_failed))
			sleep_us(rnd() % 50);
		EXPECT(atomic_load(&r.interrupts) != before);
	}
	printf("# %lu events\n", atomic_load(&r.events));
	runner_stop(&r);
	ops->as_destroy(as);
}

/* Somebody else takes the text away, as who cuts its file: the thread may be anywhere in it. */
static void detour_taken_away(void)
{
	struct address_space *as = text_space();
	uint64_t until = now_ns() + (slow_machine ? 15000000000ul : 1500000000ul);
	struct runner r;

	runner_start(&r, as, g_syscall, 0, 0, loop_event, as);
	while (now_ns() < until && !atomic_load(&test_failed)) {
		if (rnd() & 1)
			ops->as_unmap(as, TEXT_VA, PAGE);
		else
			ops->context_interrupt(r.g.ctx);
		sleep_us(rnd() % 1500);
	}
	printf("# %lu events\n", atomic_load(&r.events));
	runner_stop(&r);
	ops->as_destroy(as);
}

/* Lets a thread that we trace go on with a breakpoint of the CPU's. Return: it has stopped there. */
static bool run_to(pid_t tid, uint64_t va)
{
	int status, signo = 0;

	if (ptrace(PTRACE_POKEUSER, tid, offsetof(struct user, u_debugreg[0]), va) ||
	    ptrace(PTRACE_POKEUSER, tid, offsetof(struct user, u_debugreg[7]), 1))
		return false;
	do {
		if (ptrace(PTRACE_CONT, tid, NULL, (long)signo) ||
		    waitpid(tid, &status, __WALL) != tid || !WIFSTOPPED(status))
			return false;
		signo = status >> 16 ? 0 : WSTOPSIG(status);
	} while (signo != SIGTRAP);
	EXPECT((uint64_t)ptrace(PTRACE_PEEKUSER, tid, offsetof(struct user, regs.rip), NULL) == va);
	return !ptrace(PTRACE_POKEUSER, tid, offsetof(struct user, u_debugreg[7]), 0);
}

/* Somebody else maps the text where it is already, as process_vm_readv() may, while the thread stands between the two jumps. */
static void detour_mapped_again(void)
{
	struct address_space *as = text_space();
	unsigned stops = 0;
	struct runner r;

	if (on_kvm)
		goto out;
	runner_start(&r, as, g_syscall, 0, 0, loop_event, as);
	for (unsigned i = 0; i < 8 && !atomic_load(&test_failed); i++) {
		uint64_t before = stat_value("systrap/patches"), until = now_ns() + 20000000000ul;
		uint64_t events;
		pid_t tid;
		int status;

		map_text(as);
		while (stat_value("systrap/patches") == before && now_ns() < until)
			sleep_us(100);
		tid = atomic_load(&r.g.ctx->thread->tid);
		if (ptrace(PTRACE_SEIZE, tid, NULL, 0L)) {
			printf("# no ptrace: %s\n", strerror(errno));
			break;
		}
		EXPECT(!ptrace(PTRACE_INTERRUPT, tid, NULL, 0L));
		EXPECT(waitpid(tid, &status, __WALL) == tid);
		if (run_to(tid, text_va(d_pad))) {
			stops++;
			map_text(as);
		}
		EXPECT(!ptrace(PTRACE_DETACH, tid, NULL, 0L));
		events = atomic_load(&r.events);
		until = now_ns() + 20000000000ul;
		while (atomic_load(&r.events) < events + HOT && now_ns() < until &&
		       !atomic_load(&test_failed))
			sleep_us(100);
		EXPECT(atomic_load(&r.events) >= events + HOT);
	}
	printf("# stopped there %u times\n", stops);
	runner_stop(&r);
out:
	ops->as_destroy(as);
}

const struct test detour_tests[] = {
	{"detour_hot_loop", detour_hot_loop},
	{"detour_company", detour_company},
	{"detour_traced", detour_traced},
	{"detour_changes", detour_changes},
	{"detour_single_step", detour_single_step},
	{"detour_interrupts", detour_interrupts},
	{"detour_taken_away", detour_taken_away},
	{"detour_gone", detour_gone},
	{"detour_not_restored", detour_not_restored},
	{"detour_mapped_again", detour_mapped_again},
	{NULL, NULL},
};
