/* sentry/boot/boot_network.h - the network namespace, before confinement. */
#ifndef MOAT_SENTRY_BOOT_BOOT_NETWORK_H
#define MOAT_SENTRY_BOOT_BOOT_NETWORK_H

#include "wire/boot_spec.h"

/* What it finds missing is logged, and missing. */
void boot_network_prepare(const struct boot_spec *spec);
/* The capabilities over the network namespace that the sentry keeps for the container: of those that it was given. */
uint64_t boot_network_caps(const struct boot_spec *spec);

#endif
