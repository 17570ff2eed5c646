// LINK: moat_loader moat_mm moat_mem moat_vfs moat_memfs
/*
 * sentry/loader/vdso.c with a counter and clocks of the test's own: readings never go back, whoever draws the next line, and whatever the
 * counter does while the host or its virtual machine is suspended.
 */
#include "tests/unit/check.h"

#include <stdlib.h>
#include <time.h>
#include <x86intrin.h>

#include "base/lock.h"
#include "base/sleep.h"

#define SEC 1000000000ll
#define EPOCH (1700000000ll * SEC)

static uint64_t counter = 1ull << 40;
static int64_t host_ns = 1000 * SEC;

/* The counter goes at 1 GHz. Asking takes time. */
static uint64_t fake_rdtsc(void)
{
	counter += 20;
	host_ns += 20;
	return counter;
}

static int64_t fake_monotonic(void)
{
	counter += 20;
	return host_ns += 20;
}

static int fake_gettime(clockid_t id, struct timespec *ret)
{
	int64_t ns = fake_monotonic() + (id == CLOCK_REALTIME ? EPOCH : 0);

	*ret = (struct timespec){ns / SEC, ns % SEC};
	return 0;
}

#define __rdtsc fake_rdtsc
#define clock_gettime fake_gettime
#define time_monotonic_ns fake_monotonic
#include "sentry/loader/vdso.c"
#undef clock_gettime

/* As vdso/vdso.c, and clock_read() behind the call. */
static int64_t asked(bool monotonic)
{
	const struct vdso_clock *c = &vdso.data->clock[monotonic ? VDSO_MONOTONIC : VDSO_REALTIME];
	uint64_t delta = fake_rdtsc() - c->base_tsc;
	int64_t ns;

	if (vdso.data->usable && delta <= vdso.data->valid)
		return line_at(c, c->base_tsc + delta);
	if (vdso_clock_read(monotonic, &ns))
		return ns;
	return fake_monotonic() + (monotonic ? 0 : EPOCH);
}

static void pass(int64_t ns)
{
	host_ns += ns;
	counter += (uint64_t)ns;
}

static int64_t off_host(void)
{
	return labs(asked(true) - host_ns);
}

static int setup(void **state)
{
	(void)state;
	free(vdso.data);
	memset(&vdso, 0, sizeof(vdso));
	vdso.data = calloc(1, MOAT_PAGE_SIZE);
	mutex_init(&vdso.lock, LOCK_LEAF, "vdso");
	vdso.tsc_ok = true;
	sample_clocks(&vdso.first);
	vdso_start();
	return vdso.data->usable ? 0 : -1;
}

/* Asks for `ns` of the host's time, every `step` of it. */
static void ask_for(int64_t ns, int64_t step)
{
	int64_t end = host_ns + ns, last = asked(true), last_real = asked(false), now;

	while (host_ns < end) {
		pass(step);
		now = asked(true);
		assert_true(now >= last);
		last = now;
		now = asked(false);
		assert_true(now >= last_real);
		last_real = now;
	}
}

/* One has read a line that is ahead of the host's clock, another draws the next, and the first one's call comes after that. */
static void test_two_readers(void **state)
{
	int64_t first, second, third;

	(void)state;
	/* The host's clock was slewed since the rate was measured. */
	host_ns -= 50000;
	pass((int64_t)(vdso.data->clock[VDSO_MONOTONIC].base_tsc + vdso.data->valid - counter) -
	     1000);
	first = asked(true);
	pass(2000);
	assert_true(vdso_clock_read(true, &second));
	assert_true(second >= first);
	if (!vdso_clock_read(true, &third))
		third = fake_monotonic();
	assert_true(third >= second);
	ask_for(5 * SEC, SEC / 100);
	assert_true(off_host() < 100000);
}

/* The counter went on for hours while CLOCK_MONOTONIC stood. */
static void test_suspend_to_idle(void **state)
{
	(void)state;
	for (int idle = 0; idle < 2; idle++) {
		int64_t last;

		ask_for(3 * SEC, SEC / 100);
		last = asked(true);
		pass(idle ? 300 * SEC : 1000);
		counter += 8 * 3600 * (uint64_t)SEC;
		assert_true(asked(true) >= last);
		ask_for(5 * SEC, SEC / 100);
		assert_true(off_host() < 100000);
	}
	assert_true(vdso.data->usable);
}

/* It began anew. */
static void test_suspend_to_ram(void **state)
{
	int64_t last;

	(void)state;
	ask_for(3 * SEC, SEC / 100);
	last = asked(true);
	counter = 1000;
	assert_true(asked(true) >= last);
	ask_for(5 * SEC, SEC / 100);
	assert_true(off_host() < 100000);
	assert_true(vdso.data->usable);
}

/* A reader is frozen where it has just drawn a line: it does not read beyond that line's end. */
static void test_ended_at_once(void **state)
{
	int64_t last;

	(void)state;
	ask_for(3 * SEC, SEC / 100);
	for (int i = 0; i < 3; i++) {
		pass(300 * SEC);
		last = asked(true);
		assert_true(labs(last - host_ns) < 100000);
	}
	ask_for(SEC, SEC / 1000);
	assert_true(off_host() < 100000);
}

/* CPUs whose counters differ by seconds: after a while nobody reads them. */
static void test_counters_differ(void **state)
{
	int64_t last = asked(true), now;

	(void)state;
	for (int i = 0; i < 200; i++) {
		pass(SEC / 100);
		counter += i & 1 ? 10 * (uint64_t)SEC : -10 * (uint64_t)SEC;
		now = asked(true);
		assert_true(now >= last);
		assert_true(off_host() < 2000000);
		last = now;
	}
	assert_false(vdso.data->usable);
	assert_true(off_host() < 1000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_two_readers, setup),
		cmocka_unit_test_setup(test_suspend_to_idle, setup),
		cmocka_unit_test_setup(test_suspend_to_ram, setup),
		cmocka_unit_test_setup(test_ended_at_once, setup),
		cmocka_unit_test_setup(test_counters_differ, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
