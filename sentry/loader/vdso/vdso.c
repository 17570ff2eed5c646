/*
 * vdso/vdso.c - the clock calls that cost no exit. Runs in the application, at any address.
 *
 * Reads of the page are retried while the sentry writes it. Anything that is not a plain clock makes the
 * system call. getcpu too: a vCPU is not bound to a host CPU, so nothing in user mode knows the number.
 */
#include "sentry/loader/vdso/data.h"

#define EXPORT __attribute__((visibility("default")))
#define ALIAS(name) __attribute__((weak, alias(#name), visibility("default")))

#define SYS_gettimeofday 96
#define SYS_time 201
#define SYS_clock_gettime 228
#define SYS_clock_getres 229
#define SYS_getcpu 309

#define NSEC_PER_SEC 1000000000ul

struct timespec {
	long tv_sec, tv_nsec;
};
struct timeval {
	long tv_sec, tv_usec;
};
struct timezone {
	int minuteswest, dsttime;
};

extern const volatile struct vdso_data vdso_data __attribute__((visibility("hidden")));

long __vdso_clock_gettime(int id, struct timespec *ts);
int __vdso_gettimeofday(struct timeval *tv, struct timezone *tz);
long __vdso_time(long *t);
long __vdso_getcpu(unsigned *cpu, unsigned *node, void *unused);
long __vdso_clock_getres(int id, struct timespec *ts);

static long call3(long nr, long a, long b, long c)
{
	long ret;

	__asm__ volatile("syscall"
			 : "=a"(ret)
			 : "a"(nr), "D"(a), "S"(b), "d"(c)
			 : "rcx", "r11", "memory");
	return ret;
}

static unsigned long read_tsc(void)
{
	unsigned lo, hi;

	/*
	 * lfence: not before the loads of seq above it. None behind: the counter may be read late, never the words
	 * of a line that has been replaced, which the loads of seq below would show.
	 */
	__asm__ volatile("lfence; rdtsc" : "=a"(lo), "=d"(hi) : : "memory");
	return (unsigned long)hi << 32 | lo;
}

/* 0 and the time in ns, or -1: make the call. */
static int read_clock(unsigned which, unsigned long *ret_ns)
{
	const volatile struct vdso_clock *c = &vdso_data.clock[which];
	unsigned seq;
	unsigned long ns, tsc, delta, valid;

	do {
		seq = __atomic_load_n(&vdso_data.seq, __ATOMIC_ACQUIRE);
		if (!vdso_data.usable)
			return -1;
		tsc = read_tsc();
		delta = tsc - c->base_tsc;
		/* Another CPU's counter, a few cycles behind the sentry's reading. */
		if (-delta < VDSO_SKEW_CYCLES)
			delta = 0;
		valid = vdso_data.valid;
		ns = c->base_ns + (unsigned long)(((unsigned __int128)delta * c->mult) >> 32);
		__atomic_thread_fence(__ATOMIC_ACQUIRE);
	} while ((seq & 1) || seq != __atomic_load_n(&vdso_data.seq, __ATOMIC_RELAXED));
	if (delta > valid)
		return -1;
	*ret_ns = ns;
	return 0;
}

EXPORT long __vdso_clock_gettime(int id, struct timespec *ts)
{
	unsigned long ns;

	/* REALTIME, MONOTONIC and their _COARSE kin (5, 6), which may be finer than they promise. */
	if (((1u << (id & 31)) & 0x63) && (unsigned)id < 32 &&
	    !read_clock((id == 0 || id == 5) ? VDSO_REALTIME : VDSO_MONOTONIC, &ns)) {
		ts->tv_sec = (long)(ns / NSEC_PER_SEC);
		ts->tv_nsec = (long)(ns % NSEC_PER_SEC);
		return 0;
	}
	return call3(SYS_clock_gettime, id, (long)ts, 0);
}
long clock_gettime(int id, struct timespec *ts) ALIAS(__vdso_clock_gettime);

EXPORT int __vdso_gettimeofday(struct timeval *tv, struct timezone *tz)
{
	unsigned long ns;

	if (read_clock(VDSO_REALTIME, &ns))
		return (int)call3(SYS_gettimeofday, (long)tv, (long)tz, 0);
	if (tv) {
		tv->tv_sec = (long)(ns / NSEC_PER_SEC);
		tv->tv_usec = (long)(ns % NSEC_PER_SEC / 1000);
	}
	if (tz) {
		tz->minuteswest = 0;
		tz->dsttime = 0;
	}
	return 0;
}
int gettimeofday(struct timeval *tv, struct timezone *tz) ALIAS(__vdso_gettimeofday);

EXPORT long __vdso_time(long *t)
{
	unsigned long ns;
	long sec;

	if (read_clock(VDSO_REALTIME, &ns))
		return call3(SYS_time, (long)t, 0, 0);
	sec = (long)(ns / NSEC_PER_SEC);
	if (t)
		*t = sec;
	return sec;
}
long time(long *t) ALIAS(__vdso_time);

EXPORT long __vdso_getcpu(unsigned *cpu, unsigned *node, void *unused)
{
	return call3(SYS_getcpu, (long)cpu, (long)node, (long)unused);
}
long getcpu(unsigned *cpu, unsigned *node, void *unused) ALIAS(__vdso_getcpu);

EXPORT long __vdso_clock_getres(int id, struct timespec *ts)
{
	if (id == 0 || id == 1) {
		if (ts) {
			ts->tv_sec = 0;
			ts->tv_nsec = 1;
		}
		return 0;
	}
	return call3(SYS_clock_getres, id, (long)ts, 0);
}
long clock_getres(int id, struct timespec *ts) ALIAS(__vdso_clock_getres);
