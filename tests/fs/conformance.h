/* tests/fs/conformance.h - what conformance.c and conformance_mounts.c share: an environment for each test, and how results are said. */
#ifndef MOAT_TESTS_FS_CONFORMANCE_H
#define MOAT_TESTS_FS_CONFORMANCE_H

#include "tests/unit/check.h"

#include "tests/fs/env.h"

static struct fs_env e;

static inline int setup(void **state)
{
	(void)state;
	return fs_env_init(&e);
}

static inline int teardown(void **state)
{
	(void)state;
	fs_env_fini(&e);
	return 0;
}

#define OK(call) assert_int_equal((call), 0)
#define FAILS(call, err) assert_int_equal((call), -(err))
#define CONFORMANCE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

/* Mounts of the backend. Return: how many tests failed. */
int conformance_mounts(void);

#endif
