/* base/spin.c - see spin.h. */
#include "base/spin.h"

#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/sleep.h"

#define SCORE_MIN 2u /* brief waits of late that make it look */
#define SCORE_MAX 8u
#define ASK_NS 500000 /* between looks at how busy the machine is */
#define LOADAVG_MAX 96

static int load_fd = -1; /* set before there are threads */
static unsigned cores;
static _Atomic int64_t asked_ns;
static _Atomic bool core_free;

void spin_allow(void)
{
	cpu_set_t set;
	long online = sysconf(_SC_NPROCESSORS_ONLN);

	if (load_fd >= 0 || sched_getaffinity(0, sizeof(set), &set) < 0 || CPU_COUNT(&set) < 2)
		return;
	cores = online > 0 ? (unsigned)online : 0;
	load_fd = open("/proc/loadavg", O_RDONLY | O_CLOEXEC);
}

/* "0.10 0.20 0.30 RUNNING/ALL PID": does nobody wait for a core? */
static bool look(void)
{
	char buf[LOADAVG_MAX];
	ssize_t size = pread(load_fd, buf, sizeof(buf) - 1, 0);
	const char *at = buf;

	if (size <= 0)
		return false;
	buf[size] = '\0';
	for (unsigned i = 0; i < 3 && at; i++) {
		at = strchr(at, ' ');
		at = at ? at + 1 : NULL;
	}
	return at && strtoul(at, NULL, 10) <= cores;
}

void spin_begin(struct spin *s, int64_t ns)
{
	s->start_ns = time_monotonic_ns();
	s->brief_ns = 2 * ns;
	s->until_ns = 0;
	if (load_fd < 0 || s->score < SCORE_MIN)
		return;
	if (s->start_ns - atomic_load_explicit(&asked_ns, memory_order_relaxed) > ASK_NS) {
		atomic_store_explicit(&core_free, look(), memory_order_relaxed);
		atomic_store_explicit(&asked_ns, s->start_ns, memory_order_relaxed);
	}
	if (atomic_load_explicit(&core_free, memory_order_relaxed))
		s->until_ns = s->start_ns + ns;
}

bool spin_on(const struct spin *s)
{
	if (!s->until_ns || time_monotonic_ns() >= s->until_ns)
		return false;
	sched_yield();
	return true;
}

void spin_end(struct spin *s)
{
	if (time_monotonic_ns() - s->start_ns <= s->brief_ns) {
		s->score += s->score < SCORE_MAX;
		return;
	}
	s->score /= 2;
	/* Somebody else may want the cores by now. */
	atomic_store_explicit(&asked_ns, 0, memory_order_relaxed);
}
