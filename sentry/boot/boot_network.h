/* sentry/boot/boot_network.h - the network namespace, before confinement. */
#ifndef MOAT_SENTRY_BOOT_BOOT_NETWORK_H
#define MOAT_SENTRY_BOOT_BOOT_NETWORK_H

#include "wire/boot_spec.h"

/*
 * Files of the namespace that are read later, and the configured net.* settings. What the host lacks is logged, and missing.
 * Return: 0, or -errno with one line in `why`: a setting that cannot be made.
 */
must_check int boot_network_prepare(const struct boot_spec *spec, char *why, size_t why_size);
/* Those settings that are the sentry's, also later, for a further container (!first). Return as above. */
must_check int boot_network_configure(const struct boot_spec *spec, bool first, char *why,
				      size_t why_size);
/* The capabilities over the network namespace that the sentry keeps for the container: of those that it was given. */
uint64_t boot_network_caps(const struct boot_spec *spec);

#endif
