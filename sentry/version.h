/* sentry/version.h - what uname(2), /proc/version and /proc/sys/kernel say this kernel is. */
#ifndef MOAT_SENTRY_VERSION_H
#define MOAT_SENTRY_VERSION_H

#define MOAT_SYSNAME "Linux"
#define MOAT_RELEASE "6.12.0-moat"
#define MOAT_VERSION "#1 SMP PREEMPT_DYNAMIC Moat 0.1.0"
#define MOAT_MACHINE "x86_64"
/* /proc/version, without the newline */
#define MOAT_PROC_VERSION \
	MOAT_SYSNAME " version " MOAT_RELEASE " (moat@moat) (Moat 0.1.0 in C) " MOAT_VERSION

#endif
