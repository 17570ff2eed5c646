/*
 * tests/platform/svm/getpid_count.c - what a getpid costs from user code to user code, in time stamp ticks: with
 * QEMU's -icount these are instructions. The number comes from memory, so that the call site cannot be patched.
 */
#include <stdio.h>
#include <stdlib.h>

#define ROUNDS 2000

static unsigned long ticks(void)
{
	unsigned lo, hi;

	__asm__ volatile("lfence; rdtsc; lfence" : "=a"(lo), "=d"(hi)::"memory");
	return (unsigned long)hi << 32 | lo;
}

static int compare(const void *a, const void *b)
{
	const unsigned long *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

int main(void)
{
	static unsigned long took[ROUNDS], empty[ROUNDS];
	volatile long getpid_nr = 39;

	for (int i = 0; i < ROUNDS; i++) {
		unsigned long start = ticks();

		empty[i] = ticks() - start;
		start = ticks();
		__asm__ volatile("syscall" ::"a"(getpid_nr) : "rcx", "r11", "memory");
		took[i] = ticks() - start;
	}
	qsort(took, ROUNDS, sizeof(took[0]), compare);
	qsort(empty, ROUNDS, sizeof(empty[0]), compare);
	printf("getpid %lu median %lu least %lu clock %lu\n", took[ROUNDS / 2] - empty[ROUNDS / 2],
	       took[ROUNDS / 2], took[0], empty[ROUNDS / 2]);
	return 0;
}
