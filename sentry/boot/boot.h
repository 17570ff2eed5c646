/*
 * sentry/boot/boot.h - the sentry process: from a boot spec to a running init, and the control server.
 *
 * Order of boot_main(): read the spec; logs; memory, platform (these open what they need of the host); confinement
 * (namespaces, empty root, no capabilities, seccomp; sentry/boot/confine.h); only then the first untrusted byte: the gofer's replies, ELF files.
 */
#ifndef MOAT_SENTRY_BOOT_BOOT_H
#define MOAT_SENTRY_BOOT_BOOT_H

#include "wire/boot_spec.h"

struct platform_ops;

/* The layer above: given by the caller, because includes go downward only. */
struct boot_hooks {
	int (*syscalls_init)(void);
	int (*strace_enable)(const char *list); /* "": every call */
};

/* NULL if there is no platform of that name. */
const struct platform_ops *boot_platform(const char *name);
/* Return 0, or -errno with one line in `why` that says what is wrong and what to do. */
must_check int boot_platform_probe(const char *name, char *why, size_t why_size);
/* The platforms of this binary by number, from 0; NULL behind the last. */
const char *boot_platform_name(unsigned i);

struct platform_speed {
	int64_t syscall_ns,
		fault_ns; /* the best of a few; a fault: to its handler, a page mapped, and on to a call */
};
/*
 * Runs a few events in a process of its own: about 3 ms, and what making the platform takes. The caller is single-threaded.
 * Return: 0; -errno: it does not work here (-ETIMEDOUT: it hung).
 */
must_check int boot_platform_measure(const char *name, struct platform_speed *ret);

/* The sentry role. Reads the spec from spec_fd. Returns only on failure to boot, with an exit status. */
int boot_main(int spec_fd, const struct boot_hooks *hooks);

#endif
