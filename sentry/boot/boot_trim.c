/*
 * sentry/boot/boot_trim.c - what of Moat's own text and constants only boot needed is not kept mapped (base/trim.h). Some time after boot these
 * mappings go, once.
 */
#include "base/log.h"
#include "base/sleep.h"
#include "base/timer.h"
#include "base/trim.h"
#include "sentry/boot/internal.h"

static struct ktimer trim_timer;

static void trim(struct ktimer unused_arg *timer)
{
	size_t bytes = trim_own_text();

	log_debug("boot: %zu KiB of text and constants are mapped again as needed", bytes >> 10);
}

void boot_trim_later(void)
{
	ktimer_init(&trim_timer, trim);
	ktimer_arm(&trim_timer, time_monotonic_ns() + TRIM_AFTER_MS * 1000000ll);
}
