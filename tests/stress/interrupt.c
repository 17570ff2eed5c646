/*
 * tests/stress/interrupt.c - signals to a thread that spins in user code: each must arrive, and soon.
 *
 * Usage: interrupt COUNT. Prints "delivered N of COUNT p50 NS p99.9 NS max NS". The spinning thread makes no call and no fault; the handler notes
 * the time, by the vDSO. Between tries the sender sleeps for a moment that varies, so that the signal hits different phases.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* A signal that has not come by then is lost. */
#define LOST_NS 5000000000ll
#define COUNT_MAX 1000000

static _Atomic int64_t arrived;
static _Atomic int tid, stop;

static int64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ll + t.tv_nsec;
}

static void on_signal(int sig)
{
	(void)sig;
	atomic_store(&arrived, now_ns());
}

static void *spin(void *arg)
{
	atomic_store(&tid, (int)syscall(SYS_gettid));
	while (!atomic_load_explicit(&stop, memory_order_relaxed))
		__asm__ volatile("pause");
	return arg;
}

static void nap(long ns)
{
	struct timespec t = {.tv_nsec = ns};

	nanosleep(&t, NULL);
}

/* Return: the latency, or -1 if it never came. */
static int64_t try_one(void)
{
	int64_t begin, at;

	atomic_store(&arrived, 0);
	begin = now_ns();
	if (syscall(SYS_tgkill, getpid(), atomic_load(&tid), SIGUSR1))
		return -1;
	while (!(at = atomic_load(&arrived))) {
		if (now_ns() - begin > LOST_NS)
			return -1;
		/* Leaves the processor to the other thread where they share one. */
		nap(10000);
	}
	return at - begin;
}

static int compare(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
	int count = argc > 1 ? atoi(argv[1]) : 1000, n = 0;
	int64_t *latency;
	pthread_t thread;

	if (count < 1 || count > COUNT_MAX)
		return 2;
	latency = calloc((size_t)count, sizeof(*latency));
	signal(SIGUSR1, on_signal);
	if (!latency || pthread_create(&thread, NULL, spin, NULL))
		return 2;
	while (!atomic_load(&tid))
		sched_yield();
	for (int i = 0; i < count; i++) {
		latency[n] = try_one();
		n += latency[n] >= 0;
		nap(1000 * (i % 97));
	}
	atomic_store(&stop, 1);
	pthread_join(thread, NULL);
	if (!n)
		return 1;
	qsort(latency, (size_t)n, sizeof(*latency), compare);
	printf("delivered %d of %d p50 %lld p99.9 %lld max %lld\n", n, count,
	       (long long)latency[n / 2], (long long)latency[(int64_t)n * 999 / 1000],
	       (long long)latency[n - 1]);
	return n != count;
}
