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
#define LOADAVG_MAX 128

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

unsigned spin_running(int fd)
{
	char buf[LOADAVG_MAX];
	ssize_t n = fd >= 0 ? pread(fd, buf, sizeof(buf) - 1, 0) : 0;
	char *at;

	if (n <= 0)
		return 0;
	buf[n] = '\0';
	at = strchr(buf, '/');
	while (at && at > buf && at[-1] >= '0' && at[-1] <= '9')
		at--;
	return at ? (unsigned)strtoul(at, NULL, 10) : 0;
}

/* Does nobody wait for a core? */
static bool look(void)
{
	unsigned running = spin_running(load_fd);

	return running && running <= cores;
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
