/* tests/unit/mm_fixture.h - an mm over a fake platform, the files it maps, and what must be left after a test: nothing. */
#ifndef MOAT_TESTS_UNIT_MM_FIXTURE_H
#define MOAT_TESTS_UNIT_MM_FIXTURE_H

#include "tests/unit/check.h"

#include <sys/mman.h>

#include "tests/unit/fake_platform.h"
#include "tests/unit/mm_no_vfs.h"

#define PAGE 4096ul

static _Atomic int file_refs;

struct file *file_ref(struct file *f)
{
	file_refs++;
	return f;
}

void file_unref(struct file *f)
{
	(void)f;
	file_refs--;
}

static inline struct mm *new_mm(void)
{
	struct mm *mm;

	assert_int_equal(guard_install(), 0); /* cmocka's own handlers come per test */
	assert_int_equal(mm_create(&fake_platform, &mm), 0);
	return mm;
}

static inline uint64_t anon(struct mm *mm, uint64_t size, unsigned prot)
{
	struct mm_map_args args = {.size = size, .prot = prot, .max_prot = 7};
	uint64_t addr;

	assert_int_equal(mm_map(mm, &args, &no_limits, &addr), 0);
	return addr;
}

static inline int anon_at(struct mm *mm, uint64_t addr, uint64_t size, unsigned prot)
{
	struct mm_map_args args = {
		.addr = addr, .size = size, .prot = prot, .max_prot = 7, .fixed = true};
	uint64_t got;

	return mm_map(mm, &args, &no_limits, &got);
}

static inline uint64_t map_file(struct mm *mm, struct tfile *t, uint64_t off, uint64_t size,
				unsigned prot, bool shared)
{
	static struct file file;
	struct mm_map_args args = {.size = size,
				   .prot = prot,
				   .max_prot = 7,
				   .mappable = &t->m,
				   .off = off,
				   .shared = shared,
				   .file = &file};
	uint64_t addr;

	assert_int_equal(mm_map(mm, &args, &no_limits, &addr), 0);
	return addr;
}

static inline char load(struct mm *mm, uint64_t addr)
{
	char c;

	assert_int_equal(app_load(mm, addr, &c), 0);
	return c;
}

static inline void store(struct mm *mm, uint64_t addr, char c)
{
	assert_int_equal(app_store(mm, addr, c), 0);
}

static inline int protect(struct mm *mm, uint64_t addr, uint64_t size, unsigned prot)
{
	return mm_protect(mm, addr, size, prot, false, &no_limits);
}

static inline unsigned vmas(struct mm *mm)
{
	struct mm_usage u;

	mm_get_usage(mm, &u);
	return u.vmas;
}

/* After every test: nothing is left. */
static inline int teardown(void **state)
{
	(void)state;
	rcu_drain();
	assert_int_equal(private_bytes(), 0);
	assert_int_equal(fake_spaces, 0);
	assert_int_equal(file_refs, 0);
	assert_int_equal(ref_live(&mm_type), 0);
	return 0;
}

#define MM_TEST(fn) cmocka_unit_test_setup_teardown(fn, NULL, teardown)
/* The end of main(). */
#define MM_TESTS_RUN(tests)                                       \
	do {                                                      \
		rcu_thread_begin();                               \
		if (mem_init(512ul << 20))                        \
			return 1;                                 \
		return cmocka_run_group_tests(tests, NULL, NULL); \
	} while (0)

#endif
