/* platform/common/cores.c - counting who wants a core; cores.h says what for. */
#include "platform/common/cores.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/sleep.h"
#include "base/spin.h"

#define CALIBRATE_NS 200000

static int probed_fd = -1;

void cores_probe(void)
{
	if (probed_fd < 0)
		probed_fd = open("/proc/loadavg", O_RDONLY | O_CLOEXEC);
}

void cores_unprobe(void)
{
	if (probed_fd >= 0)
		close(probed_fd);
	probed_fd = -1;
}

static uint64_t calibrate(void)
{
	int64_t start = time_monotonic_ns(), ns;
	uint64_t tsc = cores_now();

	do {
		ns = time_monotonic_ns() - start;
	} while (ns < CALIBRATE_NS);
	return MAX((cores_now() - tsc) * 1000 / (uint64_t)ns, 1ul);
}

void cores_init(struct cores *c)
{
	memset(c, 0, sizeof(*c));
	c->load_fd = probed_fd;
	probed_fd = -1;
	c->machine = (unsigned)MAX(sysconf(_SC_NPROCESSORS_ONLN), 1l);
	CPU_ZERO(&c->allowed);
	if (sched_getaffinity(0, sizeof(c->allowed), &c->allowed))
		CPU_SET(0, &c->allowed);
	c->count = (unsigned)CPU_COUNT(&c->allowed);
	c->ticks_per_us = calibrate();
}

void cores_fini(struct cores *c)
{
	if (c->load_fd >= 0)
		close(c->load_fd);
	c->load_fd = -1;
}

static void keep_off(struct cores *c, uint64_t now, uint64_t max_us)
{
	uint64_t until = atomic_load_explicit(&c->short_until, memory_order_relaxed);
	uint64_t us = atomic_load_explicit(&c->short_us, memory_order_relaxed);

	if (now < until)
		return;
	/* Again, as soon as spinning was allowed: longer. */
	us = now - until < 2 * us * c->ticks_per_us ? MIN(us * 2, MAX(us, max_us)) : CORES_SHORT_US;
	atomic_store_explicit(&c->short_us, us, memory_order_relaxed);
	atomic_store_explicit(&c->short_until, now + us * c->ticks_per_us, memory_order_relaxed);
}

void cores_stolen(struct cores *c, uint64_t now)
{
	keep_off(c, now, CORES_SHORT_MAX_US);
}

unsigned cores_wanted(const struct cores *c)
{
	return spin_running(c->load_fd);
}

void cores_look_but(struct cores *c, uint64_t now, unsigned asleep)
{
	uint64_t asked = atomic_load_explicit(&c->asked_at, memory_order_relaxed);

	if (now - asked < CORES_ASK_US * c->ticks_per_us)
		return;
	atomic_store_explicit(&c->asked_at, now, memory_order_relaxed);
	if (cores_wanted(c) <= c->machine + CORES_DOUBT + asleep)
		atomic_store_explicit(&c->over, 0, memory_order_relaxed);
	else if (atomic_fetch_add_explicit(&c->over, 1, memory_order_relaxed) + 1 >= CORES_OVER)
		keep_off(c, now, CORES_WANTED_MAX_US);
}
