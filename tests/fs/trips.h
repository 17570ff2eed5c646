/*
 * tests/fs/trips.h - how many requests an operation costs. For tests that define `static uint64_t requests(void)`: requests so far, of the
 * one client that they run.
 */
#ifndef MOAT_TESTS_FS_TRIPS_H
#define MOAT_TESTS_FS_TRIPS_H

/* Runs it and says how many requests it waits for. */
#define TRIPS(expression)                                                      \
	({                                                                     \
		uint64_t before_ = requests();                                 \
		int64_t ret_ = (expression);                                   \
                                                                               \
		if (ret_ < 0)                                                  \
			fail_msg("%s: %s", #expression, strerror((int)-ret_)); \
		(unsigned)(requests() - before_);                              \
	})

#endif
