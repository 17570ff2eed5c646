/* base/futex.h - the host's futex(2), private to the process. For base/ and task threads only. */
#ifndef MOAT_BASE_FUTEX_H
#define MOAT_BASE_FUTEX_H

#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/compiler.h"

/*
 * Sleeps while *word == expected. `deadline` is absolute CLOCK_MONOTONIC, or NULL.
 * Return: 0 woken (perhaps spuriously), -EAGAIN the word differs, -EINTR, -ETIMEDOUT.
 */
static inline int futex_wait(_Atomic uint32_t *word, uint32_t expected,
			     const struct timespec *deadline)
{
	long ret = syscall(SYS_futex, (uint32_t *)word, FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG,
			   expected, deadline, NULL, FUTEX_BITSET_MATCH_ANY);

	return ret < 0 ? -errno : 0;
}

/* Return: how many were woken. */
static inline int futex_wake(_Atomic uint32_t *word, int count)
{
	long ret = syscall(SYS_futex, (uint32_t *)word, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, count,
			   NULL, NULL, 0);

	return ret < 0 ? 0 : (int)ret;
}

static inline void cpu_relax(void)
{
	__builtin_ia32_pause();
}

#endif
