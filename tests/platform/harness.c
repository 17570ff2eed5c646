/* tests/platform/harness.c - see harness.h. */
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/rcu.h"
#include "mem/guard.h"
#include "tests/platform/harness.h"

struct platform *plat;
const struct platform_ops *ops = &kvm_platform_ops;
bool on_kvm = true;
_Atomic bool test_failed;
bool slow_machine;

static uint64_t code_off;
static _Atomic uint64_t seed;

void expect_failed(const char *file, int line, const char *what)
{
	if (!atomic_exchange(&test_failed, true))
		printf("# %s:%d: %s\n", file, line, what);
}

uint64_t rnd(void)
{
	uint64_t z = atomic_fetch_add(&seed, 0x9e3779b97f4a7c15ul);

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ul;
	z = (z ^ z >> 27) * 0x94d049bb133111ebul;
	return z ^ z >> 31;
}

/* MOAT_TEST_PART: of so many rounds one, for builds that have others beside them. */
static unsigned part = 1;

unsigned rounds(unsigned n)
{
	return slow_machine ? n / 20 + 1 : part > 1 ? n / part + 1 : n;
}

uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000ul + ts.tv_nsec;
}

void sleep_us(unsigned us)
{
	struct timespec ts = {.tv_sec = us / 1000000, .tv_nsec = us % 1000000 * 1000};

	nanosleep(&ts, NULL);
}

uint64_t mem_pages(unsigned pages)
{
	uint64_t off;

	if (memfile_alloc(mem_private(), pages * PAGE, 0, 0, &off)) {
		printf("Bail out! no memory\n");
		exit(1);
	}
	return off;
}

uint64_t *mem_at(uint64_t off)
{
	return memfile_ptr(mem_private(), off);
}

uint64_t blob_va(const char *symbol)
{
	return CODE_VA + (symbol - blobs_start);
}

void space_map(struct address_space *as, uint64_t va, uint64_t off, unsigned pages, unsigned access)
{
	EXPECT(ops->as_map(as, va, pages * PAGE, mem_private(), off, access, 0) == 0);
}

struct address_space *space_new(void)
{
	struct address_space *as;
	size_t size = blobs_end - blobs_start;

	if (ops->as_create(plat, &as)) {
		printf("Bail out! no address space\n");
		exit(1);
	}
	if (!code_off) {
		code_off = mem_pages(size / PAGE);
		memcpy(mem_at(code_off), blobs_start, size);
	}
	space_map(as, CODE_VA, code_off, size / PAGE, MEM_READ | MEM_EXEC);
	space_map(as, STACK_VA, mem_pages(1), 1, MEM_READ | MEM_WRITE);
	return as;
}

struct stat_query {
	const char *name;
	uint64_t value;
};

static void stat_emit(void *arg, const char *name, uint64_t value)
{
	struct stat_query *q = arg;

	if (!strcmp(q->name, name))
		q->value = value;
}

uint64_t stat_value(const char *name)
{
	struct stat_query q = {.name = name};

	ops->stats(plat, stat_emit, &q);
	return q.value;
}

void guest_init(struct guest *g, struct address_space *as)
{
	memset(g, 0, sizeof(*g));
	g->as = as;
	if (ops->context_create(plat, NULL, &g->ctx)) {
		printf("Bail out! no context\n");
		exit(1);
	}
}

void guest_fini(struct guest *g)
{
	ops->context_destroy(g->ctx);
}

void guest_resume(struct guest *g)
{
	do {
		int err = ops->context_switch(g->ctx, g->as, &g->regs, &g->ev);

		EXPECT(err == 0);
		if (err)
			return;
	} while (g->ev.kind == PLATFORM_INTERRUPTED);
}

void guest_run(struct guest *g, const char *blob, uint64_t rbx, uint64_t rax)
{
	g->regs = (struct arch_regs){0};
	g->regs.r.rip = blob_va(blob);
	g->regs.r.rsp = STACK_VA + PAGE - 64;
	g->regs.r.rbx = rbx;
	g->regs.r.rax = rax;
	guest_resume(g);
}

bool is_fault(const struct guest *g, uint64_t addr, unsigned access, bool present)
{
	return g->ev.kind == PLATFORM_FAULT && g->ev.addr == addr && g->ev.access == access &&
	       g->ev.present == present;
}

bool is_exception(const struct guest *g, unsigned vector)
{
	return g->ev.kind == PLATFORM_EXCEPTION && g->ev.vector == vector;
}

int peek(struct address_space *as, uint64_t va, uint64_t *ret_val)
{
	struct guest g;
	int err = -EFAULT;

	guest_init(&g, as);
	guest_run(&g, g_load, va, 0);
	if (g.ev.kind == PLATFORM_SYSCALL) {
		*ret_val = g.regs.r.rax;
		err = 0;
	} else {
		EXPECT(is_fault(&g, va, MEM_READ, false));
	}
	guest_fini(&g);
	return err;
}

static void *runner_main(void *arg)
{
	struct runner *r = arg;
	struct guest *g = &r->g;

	rcu_thread_begin();
	g->regs.r.rip = blob_va(r->blob);
	g->regs.r.rsp = STACK_VA + PAGE - 64;
	g->regs.r.rbx = r->rbx;
	g->regs.r.rax = r->rax;
	atomic_store(&r->started, true);
	while (!atomic_load(&r->stop)) {
		int err = ops->context_switch(g->ctx, g->as, &g->regs, &g->ev);

		EXPECT(err == 0);
		if (err)
			break;
		if (g->ev.kind == PLATFORM_INTERRUPTED)
			atomic_fetch_add(&r->interrupts, 1);
		else
			atomic_fetch_add(&r->events, 1);
		if (!r->on_event(r))
			break;
	}
	ops->thread_exit(plat);
	rcu_thread_end();
	atomic_store(&r->done, true);
	return NULL;
}

void runner_start(struct runner *r, struct address_space *as, const char *blob, uint64_t rbx,
		  uint64_t rax, bool (*on_event)(struct runner *r), void *arg)
{
	memset(r, 0, sizeof(*r));
	guest_init(&r->g, as);
	r->blob = blob;
	r->rbx = rbx;
	r->rax = rax;
	r->on_event = on_event;
	r->arg = arg;
	if (pthread_create(&r->thread, NULL, runner_main, r)) {
		printf("Bail out! no thread\n");
		exit(1);
	}
	while (!atomic_load(&r->started))
		sleep_us(50);
}

void runner_stop(struct runner *r)
{
	atomic_store(&r->stop, true);
	ops->context_interrupt(r->g.ctx);
	pthread_join(r->thread, NULL);
	guest_fini(&r->g);
}

bool runner_wait(struct runner *r)
{
	uint64_t until = now_ns() + 20000000000ul;
	bool done;

	while (!(done = atomic_load(&r->done)) && now_ns() < until)
		sleep_us(100);
	runner_stop(r);
	return done;
}

static bool wanted(const char *name, int argc, char **argv)
{
	bool any = false;

	for (int i = 1; i < argc; i++) {
		if (!strncmp(argv[i], "--", 2))
			continue;
		if (strstr(name, argv[i]))
			return true;
		any = true;
	}
	return !any;
}

/* --platform=NAME, else $MOAT_PLATFORM, else kvm. Return: a usage error. */
static bool choose_platform(int argc, char **argv)
{
	const char *name = getenv("MOAT_PLATFORM");

	for (int i = 1; i < argc; i++)
		if (!strncmp(argv[i], "--platform=", 11))
			name = argv[i] + 11;
	if (!name || !strcmp(name, "kvm"))
		return false;
	ops = &systrap_platform_ops;
	on_kvm = false;
	return strcmp(name, ops->name) != 0;
}

int main(int argc, char **argv)
{
	const struct test *suites[] = {event_tests,	paging_tests, interrupt_tests, fpu_tests,
				       hostile_tests,	share_tests,  patch_tests,     detour_tests,
				       companion_tests, stub_tests,   recycle_tests};
	const char *env = getenv("MOAT_TEST_SEED");
	unsigned failed = 0, ran = 0;
	char why[256];
	int err;

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (choose_platform(argc, argv)) {
		printf("Bail out! this program knows the platforms kvm and systrap\n");
		return 2;
	}
	seed = env ? strtoull(env, NULL, 0) : now_ns();
	if (getenv("MOAT_TEST_LOG"))
		log_init(2, LOG_DEBUG_LEVEL, "test");
	slow_machine = getenv("MOAT_TEST_SLOW") != NULL;
	if (getenv("MOAT_TEST_PART"))
		part = MAX((unsigned)strtoul(getenv("MOAT_TEST_PART"), NULL, 10), 1u);
	printf("# MOAT_TEST_SEED=%#lx\n", (unsigned long)seed);
	if (ops->probe(why, sizeof(why))) {
		printf("1..0 # skip %s\n", why);
		return 77;
	}
	rcu_thread_begin();
	err = guard_install();
	if (!err)
		err = mem_init(0);
	if (!err)
		err = ops->create(&plat);
	if (err) {
		printf("Bail out! create: %s\n", strerror(-err));
		return 1;
	}
	if (on_kvm)
		printf("# ring 0 is %s\n",
		       stat_value("kvm/ring0_emulated") ? "emulated" : "native");
	for (size_t s = 0; s < ARRAY_SIZE(suites); s++) {
		for (const struct test *t = suites[s]; t->name; t++) {
			uint64_t start = now_ns();

			if (!wanted(t->name, argc, argv))
				continue;
			alarm(slow_machine ? 600 : 120);
			atomic_store(&test_failed, false);
			t->fn();
			ran++;
			failed += atomic_load(&test_failed);
			printf("%s %s # %lu ms\n", atomic_load(&test_failed) ? "not ok" : "ok",
			       t->name, (now_ns() - start) / 1000000);
		}
	}
	ops->destroy(plat);
	printf("1..%u\n", ran);
	return failed ? 1 : 0;
}
