/* gofer/confine.h - what the file servers share of giving up rights. */
#ifndef MOAT_GOFER_CONFINE_H
#define MOAT_GOFER_CONFINE_H

#include "base/compiler.h"

/* A sanitizer's run time makes calls of its own: no seccomp filter then. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define CONFINE_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define CONFINE_SANITIZED 1
#endif
#endif
#ifndef CONFINE_SANITIZED
#define CONFINE_SANITIZED 0
#endif

/* A server's filter: what confine_filter_load() allows to all servers, and this. */
struct confine_filter {
	const int *calls; /* count of them, without conditions on their arguments */
	size_t count;
	int (*add)(void *ctx, const void *arg); /* rules with conditions; or NULL */
	const void *arg;
	bool all_threads;
};

/* Kills the process at any other call from here on. Does nothing under a sanitizer. Return: 0, -errno. */
must_check int confine_filter_load(const struct confine_filter *f);

/* Keeps the capabilities that confine.c lists, drops the rest for good. Return: 0, -errno. */
must_check int confine_caps(void);

#endif
