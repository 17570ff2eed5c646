/*
 * sentry/boot/confine.h - the sentry gives up what it does not need.
 *
 * Two steps, because the first needs a single thread and the second must see every thread:
 *   confine_namespaces()  empty read-only root, no capabilities, uid nobody, own user namespace, no new privileges
 *   confine_seccomp()     the allow-list of host calls (confine.c says of each why), on all threads
 * Both before the first untrusted byte is read.
 */
#ifndef MOAT_SENTRY_BOOT_CONFINE_H
#define MOAT_SENTRY_BOOT_CONFINE_H

#include "base/compiler.h"

/* The uid and gid that the sentry runs as when it was started by root. */
#define CONFINE_UID 65534u

/* Return 0, or -errno with one line in `why`. */
must_check int confine_namespaces(char *why, size_t why_size);
must_check int confine_seccomp(char *why, size_t why_size);

#endif
