/*
 * sentry/boot/boot_trim.c - what only the start of something needed is not kept mapped: of Moat's own text and constants (base/trim.h), and of the host files
 * that the platform has mappings of. Once, some time after boot, after each exec's end and after many tasks have ended, when little is under way: an idle
 * sandbox has no timer for it. The heap's free pages and threads that carried tasks go with it.
 */
#include <stdatomic.h>
#include <time.h>

#include "base/log.h"
#include "base/rcu.h"
#include "base/sleep.h"
#include "base/timer.h"
#include "base/trim.h"
#include "mem/memfile.h"
#include "sentry/boot/internal.h"

#define TRIM_AFTER_NS (TRIM_AFTER_MS * 1000000ll)
/* Of the processors' time: who works wants its mappings. It is asked again later. */
#define TRIM_BUSY_NS (TRIM_AFTER_NS / 8)

static struct {
	struct ktimer timer;
	struct rcu_cb rcu;
	_Atomic bool queued; /* rcu is under way */
	_Atomic int64_t worked_ns; /* the process's time when the timer was armed */
} trim;

static int64_t process_cpu_ns(void)
{
	struct timespec ts;

	return clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts) ? 0
							    : ts.tv_sec * 1000000000ll + ts.tv_nsec;
}

/* On the RCU thread: giving pages back would make other timers late. */
static void trim_now(struct rcu_cb unused_arg *cb)
{
	size_t bytes;

	atomic_store(&trim.queued, false);
	task_workers_trim();
	platform_trim(kernel.platform);
	mem_window_unmap();
	bytes = trim_process();
	log_debug("boot: %zu KiB of text and constants are mapped again as needed", bytes >> 10);
}

static void trim_timeout(struct ktimer unused_arg *timer)
{
	if (process_cpu_ns() - atomic_load(&trim.worked_ns) > TRIM_BUSY_NS)
		boot_trim_later();
	else if (!atomic_exchange(&trim.queued, true))
		rcu_call(&trim.rcu, trim_now);
}

void boot_trim_init(void)
{
	ktimer_init(&trim.timer, trim_timeout);
	kernel.on_many_parked = boot_trim_later;
	boot_trim_later();
}

void boot_trim_later(void)
{
	atomic_store(&trim.worked_ns, process_cpu_ns());
	ktimer_arm(&trim.timer, time_monotonic_ns() + TRIM_AFTER_NS);
}
