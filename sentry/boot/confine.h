/*
 * sentry/boot/confine.h - the sentry gives up what it does not need.
 *
 * Two steps, because the first needs a single thread and the second must see every thread:
 *   sentry_confine_namespaces()  empty read-only root, no capabilities but those, uid nobody, own user namespace, no new privileges
 *   sentry_confine_seccomp()     the allow-list of host calls (confine.c says of each why), on all threads
 * Both before the first untrusted byte is read.
 */
#ifndef MOAT_SENTRY_BOOT_CONFINE_H
#define MOAT_SENTRY_BOOT_CONFINE_H

#include "base/compiler.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define CONFINE_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define CONFINE_SANITIZER 1
#endif
#endif

/* The uid and gid that the sentry runs as when it was started by root. */
#define CONFINE_UID 65534u

/*
 * keep_caps: CAP_NET_* that the container itself has over the network namespace; usually 0. With any, the sentry stays in the
 * user namespace that they are for. Return 0, or -errno with one line in `why`.
 */
must_check int sentry_confine_namespaces(uint64_t keep_caps, char *why, size_t why_size);
must_check int sentry_confine_seccomp(char *why, size_t why_size);

#endif
