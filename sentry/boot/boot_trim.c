/*
 * sentry/boot/boot_trim.c - what of Moat's own text and constants only boot needed is not kept mapped.
 *
 * The host maps the pages around each that is touched, so that after boot nearly all of them are there, of which a container needs a part. Some
 * time after boot these mappings go, once. Nothing is lost: the segments cannot be written, their pages are the file's. What is still in
 * use comes back from the page cache, by one minor fault of the host for sixteen pages. But breakpoints go, of a debugger or of uprobes,
 * that were set before: they are copies of these pages. Set later they stay.
 */
#include <link.h>
#include <sys/mman.h>

#include "base/log.h"
#include "base/sleep.h"
#include "base/timer.h"
#include "sentry/boot/internal.h"

/* When a container that starts at once has done what all do. */
#define TRIM_AFTER_NS 500000000ll

static struct ktimer trim_timer;

/* The first object is the program itself: libraries are shared with the whole machine. */
static int trim_object(struct dl_phdr_info *info, size_t unused_arg size, void *arg)
{
	size_t *bytes = arg;

	for (unsigned i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *ph = &info->dlpi_phdr[i];
		uint64_t start = info->dlpi_addr + ph->p_vaddr, end = start + ph->p_memsz;

		if (ph->p_type != PT_LOAD || (ph->p_flags & PF_W))
			continue;
		start &= MOAT_PAGE_MASK;
		end = (end + MOAT_PAGE_SIZE - 1) & MOAT_PAGE_MASK;
		if (madvise((void *)start, end - start, MADV_DONTNEED) == 0)
			*bytes += end - start;
	}
	return 1;
}

static void trim(struct ktimer unused_arg *timer)
{
	size_t bytes = 0;

	(void)dl_iterate_phdr(trim_object, &bytes);
	log_debug("boot: %zu KiB of text and constants are mapped again as needed", bytes >> 10);
}

void boot_trim_later(void)
{
	ktimer_init(&trim_timer, trim);
	ktimer_arm(&trim_timer, time_monotonic_ns() + TRIM_AFTER_NS);
}
