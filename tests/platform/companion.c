/* tests/platform/companion.c - a hand-off whose companion comes to life when the order has been withdrawn: the thread that runs then is the one to be told. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/rcu.h"
#include "tests/platform/harness.h"

#define TURNS 6
#define TURNS_MAX 18 /* until a thread began late: on a busy machine there may be none */
#define HOT_NS 10000000ull
#define LATE_US 40000
#define TEXT_VA 0x500000ul

extern const char p_start[], p_loop[], p_end[];

/* Threads that begin LATE_US after they were made: the linker leads every pthread_create() here. */
static _Atomic bool late;
static _Atomic unsigned late_threads;

struct late_start {
	void *(*fn)(void *);
	void *arg;
};

int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*fn)(void *),
			  void *arg);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*fn)(void *),
			  void *arg);

static void *begin_late(void *arg)
{
	struct late_start start = *(struct late_start *)arg;

	free(arg);
	usleep(LATE_US);
	return start.fn(start.arg);
}

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*fn)(void *),
			  void *arg)
{
	struct late_start *start;

	if (!atomic_load(&late))
		return __real_pthread_create(thread, attr, fn, arg);
	start = malloc(sizeof(*start));
	if (!start)
		return ENOMEM;
	*start = (struct late_start){fn, arg};
	atomic_fetch_add(&late_threads, 1);
	return __real_pthread_create(thread, attr, begin_late, start);
}

/* Calls until the platform has had time to take to another way of serving them; then none. */
struct turn {
	struct guest g;
	uint64_t hot_ns;
	_Atomic bool spins, told, end;
};

static void *turn_main(void *arg)
{
	struct turn *t = arg;
	struct guest *g = &t->g;

	rcu_thread_begin();
	g->regs.r.rip = TEXT_VA + (p_loop - p_start);
	g->regs.r.rsp = STACK_VA + PAGE - 64;
	for (uint64_t until = now_ns() + t->hot_ns; now_ns() < until;)
		EXPECT(ops->context_switch(g->ctx, g->as, &g->regs, &g->ev) == 0);
	g->regs.r.rip = blob_va(g_spin);
	atomic_store(&t->spins, true);
	EXPECT(ops->context_switch(g->ctx, g->as, &g->regs, &g->ev) == 0);
	EXPECT(g->ev.kind == PLATFORM_INTERRUPTED);
	atomic_store(&t->told, true);
	/* It keeps what the platform has given this thread: the next turn's must have its own. */
	while (!atomic_load(&t->end))
		sleep_us(1000);
	ops->thread_exit(plat);
	rcu_thread_end();
	return NULL;
}

static void late_companion(void)
{
	const unsigned pages = (p_end - p_start) / PAGE;
	struct address_space *as = space_new();
	uint64_t off = mem_pages(pages);
	pthread_t threads[TURNS_MAX];
	struct turn *turns = calloc(TURNS_MAX, sizeof(*turns));
	unsigned n, before = atomic_load(&late_threads);
	bool told = true;

	memcpy(mem_at(off), p_start, p_end - p_start);
	space_map(as, TEXT_VA, off, pages, MEM_READ | MEM_EXEC);
	EXPECT(turns != NULL);
	/* Only KVM has companions. */
	for (n = 0; turns && told && n < TURNS_MAX; n++) {
		struct turn *t = &turns[n];
		uint64_t until;

		if (n >= TURNS && (!on_kvm || slow_machine || atomic_load(&late_threads) > before))
			break;
		t->hot_ns = HOT_NS * (1 + n / TURNS);
		guest_init(&t->g, as);
		if (pthread_create(&threads[n], NULL, turn_main, t)) {
			printf("Bail out! no thread\n");
			exit(1);
		}
		atomic_store(&late, true);
		while (!atomic_load(&t->spins))
			sleep_us(1000);
		atomic_store(&late, false);
		sleep_us(2 * LATE_US);
		ops->context_interrupt(t->g.ctx);
		for (until = now_ns() + 10000000000ull; !atomic_load(&t->told) && now_ns() < until;)
			sleep_us(1000);
		told = atomic_load(&t->told);
		EXPECT(told);
		/* By the platform's own signal, so that the test can end. */
		if (!told)
			pthread_kill(threads[n], SIGRTMIN);
	}
	printf("# %u threads of the platform's own began late in %u turns\n",
	       atomic_load(&late_threads) - before, n);
	while (n-- > 0) {
		atomic_store(&turns[n].end, true);
		pthread_join(threads[n], NULL);
		guest_fini(&turns[n].g);
	}
	free(turns);
	ops->as_destroy(as);
}

const struct test companion_tests[] = {
	{"late_companion", late_companion},
	{NULL, NULL},
};
