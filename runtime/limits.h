/* runtime/limits.h - resource limits of whoever called: they are the container's where config.json names none, and not the sandbox's own. */
#ifndef MOAT_RUNTIME_LIMITS_H
#define MOAT_RUNTIME_LIMITS_H

#include "wire/boot_spec.h"

/*
 * At the beginning of main: remembers the limits, and lifts those of this process and what it becomes (monitor, sentry, gofer) as far as it may. A
 * program's file size, address space or CPU time are the guest's kernel's to count.
 */
void limits_begin(void);
/* Those that `s` does not set are the caller's. Pre: limits_begin(). */
void limits_add(struct boot_spec *s);
/* In a child that executes a program on the host, a hook: the caller's again. Pre: limits_begin(). */
void limits_restore(void);

#endif
