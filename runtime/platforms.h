/* runtime/platforms.h - which platforms this binary has, and what every boot spec gets from the global flags. */
#ifndef MOAT_RUNTIME_PLATFORMS_H
#define MOAT_RUNTIME_PLATFORMS_H

#include "wire/boot_spec.h"

/* Prints an error that says what to do when `name` is unknown or does not work here. */
must_check bool platform_usable(const char *name);
/* id, platform, strace, debug, cpus, hostname default, the caller's rlimits. */
void boot_spec_add_globals(struct boot_spec *spec, const char *id);

#endif
