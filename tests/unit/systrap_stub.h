/* tests/unit/systrap_stub.h - processes of a systrap platform, for tests that look at its stubs from within. */
#ifndef MOAT_TEST_SYSTRAP_STUB_H
#define MOAT_TEST_SYSTRAP_STUB_H

#include <unistd.h>

#include "platform/systrap/systrap.h"

/* For systrap_as_retire(): arg is an _Atomic bool. */
static inline void retired(void *arg)
{
	atomic_store((_Atomic bool *)arg, true);
}

/* A new address space and a thread in it; without, the test's process ends. */
static inline struct platform_context *context_in(struct systrap_platform *p,
						  struct address_space **ret)
{
	struct platform_context *ctx;

	if (systrap_as_create(&p->base, ret) || systrap_context_create(&p->base, NULL, &ctx) ||
	    systrap_context_prepare(ctx, *ret))
		_exit(2);
	return ctx;
}

#endif
