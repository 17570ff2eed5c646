// LINK: moat_systrap moat_mem
/*
 * Stubs that are used again (platform/systrap/recycle.c), seen from within: what is under way while a process ends. In a process of
 * its own, since a platform has children.
 */

#include <limits.h>
#include <linux/futex.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/rcu.h"
#include "mem/guard.h"
#include "platform/systrap/systrap.h"

#include "check.h"
#include "systrap_stub.h"

#define CANNOT 77
#define ATTEMPTS 20u
/* Some must be used again, if it takes longer: a stub whose thread does not answer soon, as on a busy machine, is killed. */
#define RECYCLED_MIN 2u
#define LONGER 10u
#define SLOW_NS 30000000
#define SPINS UINT32_MAX

extern const char __start_systrap_stub[], __stop_systrap_stub[];

/* Return: its stub waits for the next address space. */
static bool retire(struct systrap_platform *p, struct address_space *as)
{
	uint64_t before = atomic_load(&p->stats.stubs_recycled);
	_Atomic bool done = false;

	systrap_as_retire(as, retired, (void *)&done);
	systrap_settle(&p->base);
	if (!atomic_load(&done))
		_exit(3);
	return atomic_load(&p->stats.stubs_recycled) > before;
}

static bool go_on(unsigned done, unsigned recycled)
{
	return done < ATTEMPTS || (recycled < RECYCLED_MIN && done < LONGER * ATTEMPTS);
}

/* The state of a stub's thread, as the host tells it. */
static char host_state(const struct systrap_thread *t)
{
	char path[64], state = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/stat", atomic_load(&t->pid),
		 atomic_load(&t->tid));
	f = fopen(path, "re");
	if (!f || fscanf(f, "%*d (%*[^)]) %c", &state) != 1)
		_exit(4);
	fclose(f);
	return state;
}

/* An application's registers that need no page of its own: it looks, in the stub's code, at a word of the stub's that stays. */
static void aim_at_spin(const struct systrap_thread *t)
{
	size_t size = (size_t)(__stop_systrap_stub - __start_systrap_stub), word = size - 4;
	const char *pause = stub_wait;
	uint64_t regs[20] = {0};
	uint32_t value;

	while (memcmp(pause, "\xf3\x90", 2))
		if (++pause == stub_wait_end)
			_exit(5);
	while (memcpy(&value, __start_systrap_stub + word, 4), !value)
		word--;
	regs[11] = STUB_CODE + word - AREA_STATE;
	regs[13] = SPINS;
	regs[15] = STUB_CODE + (uint64_t)(pause - __start_systrap_stub);
	regs[16] = ARCH_USER_CS;
	regs[17] = ARCH_EFLAGS_FIXED;
	regs[18] = systrap_area_va(t) + STUB_AREA_SIZE;
	regs[19] = ARCH_USER_SS;
	memcpy(t->mem + AREA_MAILBOX + AREA_REGS, regs, sizeof(regs));
	atomic_store(mb_flags(t), 0);
	atomic_store(mb_interrupt(t), 0);
	atomic_store(mb_set_fpu(t), systrap_area_va(t) + AREA_FPU);
	atomic_store(mb_set_fpu_mask(t), 0);
}

/*
 * A thread that forges its event leaves the order that lets it go under way, behind others that take their time. It must not be
 * carried out after the thread's answer: it would go on, in a stub that is another's.
 */
static int start_under_way(struct systrap_platform *p)
{
	static const struct timespec slow = {.tv_nsec = SLOW_NS};
	unsigned recycled = 0;

	for (unsigned i = 0; go_on(i, recycled); i++) {
		struct address_space *as;
		struct platform_context *ctx = context_in(p, &as);
		struct systrap_thread *t = ctx->thread;
		uint64_t area = systrap_area_va(t), state = area + AREA_MAILBOX + AREA_STATE;

		aim_at_spin(t);
		memcpy(t->mem + AREA_ALTSTACK, &slow, sizeof(slow));
		mutex_lock(&as->lock);
		systrap_order_post(p, as->stub,
				   &(struct systrap_order){
					   .nr = SYS_futex,
					   .args = {area + AREA_ALTSTACK + 16, FUTEX_WAIT, 0,
						    area + AREA_ALTSTACK},
				   });
		systrap_order_post(p, as->stub,
				   &(struct systrap_order){.flags = ORDER_STORE,
							   .args = {state, STUB_STATE_APP}});
		systrap_order_post(p, as->stub,
				   &(struct systrap_order){.nr = SYS_futex,
							   .args = {state, FUTEX_WAKE, INT_MAX}});
		systrap_orders_start(p, as->stub);
		mutex_unlock(&as->lock);
		if (retire(p, as)) {
			recycled++;
			usleep(2 * SLOW_NS / 1000);
			if (atomic_load(mb_state(t)) != STUB_STATE_EVENT || host_state(t) != 'S')
				return 10;
		}
		systrap_context_destroy(ctx);
	}
	return recycled < RECYCLED_MIN ? 11 : 0;
}

/* Who interrupts a context that has just gone may kick what was its thread at any time: that is nobody else's as long. */
static int late_kick(struct systrap_platform *p)
{
	unsigned recycled = 0;

	for (unsigned i = 0; go_on(i, recycled); i++) {
		struct address_space *as;
		struct platform_context *ctx = context_in(p, &as);
		struct systrap_thread *t = ctx->thread;
		bool held = i & 1, again;

		if (held)
			atomic_fetch_add(&t->kickers, 1);
		again = retire(p, as);
		if (held)
			atomic_fetch_sub(&t->kickers, 1);
		if (held && again)
			return 12;
		recycled += again;
		systrap_context_destroy(ctx);
	}
	return recycled < RECYCLED_MIN ? 13 : 0;
}

/* All that will join the pool are being emptied: who finds it empty gets one of his own. */
static int all_emptying(struct systrap_platform *p)
{
	struct platform_context *ctx;
	struct address_space *as;

	for (;;) {
		while (systrap_pool_reserve(p))
			;
		if (!p->making && !p->pool_count)
			break;
		(void)context_in(p, &as);
	}
	if (p->recycling != SYSTRAP_POOL || systrap_as_create(&p->base, &as) ||
	    systrap_context_create(&p->base, NULL, &ctx))
		return 15;
	return systrap_context_prepare(ctx, as) ? 16 : 0;
}

static _Noreturn void child_main(int (*fn)(struct systrap_platform *))
{
	struct platform *base;
	char why[256];

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	rcu_thread_begin();
	if (systrap_platform_ops.probe(why, sizeof(why)))
		_exit(CANNOT);
	if (guard_install() || mem_init(0) || systrap_platform_ops.create(&base))
		_exit(1);
	_exit(fn(systrap_of(base)));
}

static void in_child(int (*fn)(struct systrap_platform *))
{
	pid_t pid = fork();
	int status;

	if (pid == 0)
		child_main(fn);
	assert_true(pid > 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (WIFEXITED(status) && WEXITSTATUS(status) == CANNOT)
		skip();
	assert_int_equal(status, 0);
}

static void test_start_under_way(void **state unused_arg)
{
	in_child(start_under_way);
}

static void test_late_kick(void **state unused_arg)
{
	in_child(late_kick);
}

static void test_all_emptying(void **state unused_arg)
{
	in_child(all_emptying);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_start_under_way),
		cmocka_unit_test(test_late_kick),
		cmocka_unit_test(test_all_emptying),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
