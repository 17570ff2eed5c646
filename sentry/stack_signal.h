/* sentry/stack_signal.h - asks a task's thread where it is: sentry/boot/boot_stacks.c handles it from before the first of them on. */
#ifndef MOAT_SENTRY_STACK_SIGNAL_H
#define MOAT_SENTRY_STACK_SIGNAL_H

#include <signal.h>

#define TASK_STACK_SIGNAL (SIGRTMIN + 2)

#endif
