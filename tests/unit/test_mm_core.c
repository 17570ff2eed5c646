// LINK: moat_mm moat_mem
/* The mm over a fake platform: mapping, protection, copy-on-write, growth, advice, leaks. */
#include "tests/unit/mm_fixture.h"

static void test_anon(void **state)
{
	struct mm *mm = new_mm();
	uint64_t a = anon(mm, 64 * PAGE, 3), i;
	char c;

	(void)state;
	assert_int_equal(load(mm, a), 0);
	for (i = 0; i < 64; i++)
		store(mm, a + i * PAGE + i, (char)(i + 1));
	for (i = 0; i < 64; i++)
		assert_int_equal(load(mm, a + i * PAGE + i), (char)(i + 1));
	check_mm(mm);
	assert_int_equal(app_load(mm, a - 1, &c), SIGSEGV);
	assert_int_equal(app_load(mm, a + 64 * PAGE, &c), SIGSEGV);
	assert_int_equal(mm_unmap(mm, a + 10 * PAGE, 5 * PAGE), 0);
	check_mm(mm);
	assert_int_equal(vmas(mm), 2);
	assert_int_equal(app_load(mm, a + 10 * PAGE, &c), SIGSEGV);
	assert_int_equal(load(mm, a + 9 * PAGE + 9), 10);
	assert_int_equal(load(mm, a + 15 * PAGE + 15), 16);
	assert_int_equal(anon_at(mm, a + 10 * PAGE, 5 * PAGE, 3), 0);
	assert_int_equal(vmas(mm), 1);
	assert_int_equal(load(mm, a + 12 * PAGE + 12), 0);
	check_mm(mm);
	mm_unref(mm);
}

static void test_few_faults(void **state)
{
	struct mm *mm = new_mm();
	uint64_t size = 64ul << 20, a = anon(mm, size, 3), i;
	unsigned long calls = fake_map_calls;

	(void)state;
	for (i = 0; i < size; i += PAGE)
		store(mm, a + i, 1);
	/* 64 KiB doubling to 2 MiB. */
	assert_true(fake_map_calls - calls < 45);
	for (calls = fake_map_calls, i = 0; i < (1ul << 20); i += PAGE)
		store(mm, a + i, 1);
	assert_int_equal(fake_map_calls, calls);
	/* It is one translation if memory was contiguous. */
	check_mm(mm);
	mm_unref(mm);
}

static void test_map_errors(void **state)
{
	struct mm *mm = new_mm();
	struct mm_map_args args = {.size = PAGE, .prot = 3, .max_prot = 7};
	struct mm_limits lim = no_limits;
	uint64_t addr;

	(void)state;
	args.size = 0;
	assert_int_equal(mm_map(mm, &args, &lim, &addr), -EINVAL);
	args.size = UINT64_MAX;
	assert_int_equal(mm_map(mm, &args, &lim, &addr), -ENOMEM);
	args.size = ARCH_TASK_SIZE + PAGE;
	assert_int_equal(mm_map(mm, &args, &lim, &addr), -ENOMEM);
	args.size = PAGE;
	args.fixed = true;
	args.addr = 0x100001;
	assert_int_equal(mm_map(mm, &args, &lim, &addr), -EINVAL);
	args.addr = 4096;
	assert_int_equal(mm_map(mm, &args, &lim, &addr), -EPERM);
	args.addr = ARCH_TASK_SIZE;
	assert_int_equal(mm_map(mm, &args, &lim, &addr), -ENOMEM);
	args.addr = ARCH_TASK_SIZE - PAGE;
	assert_int_equal(mm_map(mm, &args, &lim, &addr), 0);
	args.addr = 0x100000;
	assert_int_equal(mm_map(mm, &args, &lim, &addr), 0);
	args.fixed = false;
	args.fixed_noreplace = true;
	assert_int_equal(mm_map(mm, &args, &lim, &addr), -EEXIST);
	args.fixed_noreplace = false;
	/* A hint that is taken is ignored; a free one is used. */
	assert_int_equal(mm_map(mm, &args, &lim, &addr), 0);
	assert_int_not_equal(addr, 0x100000);
	args.addr = 0x200010;
	assert_int_equal(mm_map(mm, &args, &lim, &addr), 0);
	assert_int_equal(addr, 0x201000);
	lim.as_bytes = 4 * PAGE;
	args.addr = 0;
	assert_int_equal(mm_map(mm, &args, &lim, &addr), -ENOMEM);
	lim = no_limits;
	lim.data_bytes = PAGE;
	assert_int_equal(mm_map(mm, &args, &lim, &addr), -ENOMEM);
	args.prot = 1;
	assert_int_equal(mm_map(mm, &args, &lim, &addr), 0);
	args.prot = 3;
	args.locked = true;
	lim = no_limits;
	lim.memlock_bytes = 0;
	assert_int_equal(mm_map(mm, &args, &lim, &addr), -EAGAIN);
	args.locked = false;
	args.size = mm_total_bytes() + PAGE;
	assert_int_equal(mm_map(mm, &args, &no_limits, &addr), -ENOMEM);
	args.noreserve = true;
	assert_int_equal(mm_map(mm, &args, &no_limits, &addr), 0);
	assert_int_equal(mm_unmap(mm, addr + 1, PAGE), -EINVAL);
	assert_int_equal(mm_unmap(mm, addr, 0), -EINVAL);
	assert_int_equal(mm_unmap(mm, addr, UINT64_MAX), -EINVAL);
	assert_int_equal(mm_unmap(mm, addr, args.size), 0);
	check_mm(mm);
	mm_unref(mm);
}

/* Top-down placement finds the highest hole that fits, whatever was mapped and unmapped. */
static void test_gaps(void **state)
{
	struct mm *mm = new_mm();
	uint64_t addr[400], i;

	(void)state;
	srand(3);
	for (i = 0; i < 400; i++)
		addr[i] = anon(mm, (1 + (uint64_t)rand() % 8) * PAGE, i & 1 ? 1 : 3);
	for (i = 0; i < 400; i += 1 + (uint64_t)rand() % 3)
		assert_int_equal(mm_unmap(mm, addr[i], PAGE), 0);
	check_mm(mm);
	for (i = 0; i < 300; i++) {
		uint64_t size = (1 + (uint64_t)rand() % 4) * PAGE, best = 0,
			 end = mm->layout.mmap_base, got;
		struct vma *vma, *prev;

		/* By exhaustion. */
		for (vma = vma_find_next(mm, 0), prev = NULL; vma;
		     prev = vma, vma = vma_next(vma)) {
			uint64_t lo = prev ? prev->end : MM_MIN_ADDR;

			if (vma->start - lo >= size)
				best = vma->start - size;
			if (!vma_next(vma) && end > vma->end && end - vma->end >= size)
				best = end - size;
		}
		got = anon(mm, size, i & 1 ? 1 : 3);
		assert_int_equal(got, best);
	}
	check_mm(mm);
	mm_unref(mm);
}

static void test_protect(void **state)
{
	struct mm *mm = new_mm();
	uint64_t a = anon(mm, 8 * PAGE, 3), i;
	char c;

	(void)state;
	for (i = 0; i < 8; i++)
		store(mm, a + i * PAGE, (char)i);
	assert_int_equal(protect(mm, a + 2 * PAGE, 2 * PAGE, 1), 0);
	check_mm(mm);
	assert_int_equal(vmas(mm), 3);
	assert_int_equal(app_store(mm, a + 2 * PAGE, 1), SIGSEGV);
	assert_int_equal(load(mm, a + 3 * PAGE), 3);
	store(mm, a + 4 * PAGE, 44);
	assert_int_equal(protect(mm, a + 3 * PAGE, PAGE, 0), 0);
	assert_int_equal(app_load(mm, a + 3 * PAGE, &c), SIGSEGV);
	check_mm(mm);
	assert_int_equal(protect(mm, a, 8 * PAGE, 3), 0);
	assert_int_equal(vmas(mm), 1);
	check_mm(mm);
	for (i = 0; i < 8; i++)
		assert_int_equal(load(mm, a + i * PAGE), i == 4 ? 44 : (char)i);
	store(mm, a + 3 * PAGE, 33);
	assert_int_equal(protect(mm, a + 6 * PAGE, 4 * PAGE, 1), -ENOMEM);
	/* ... but what came before the hole is changed. */
	assert_int_equal(app_store(mm, a + 7 * PAGE, 1), SIGSEGV);
	assert_int_equal(protect(mm, a + 1, PAGE, 1), -EINVAL);
	assert_int_equal(protect(mm, a, PAGE, 8), -EINVAL);
	assert_int_equal(protect(mm, a, 0, 1), 0);
	assert_int_equal(protect(mm, ARCH_TASK_SIZE, PAGE, 1), -ENOMEM);
	assert_int_equal(mm_protect(mm, a, PAGE, 1, true, &no_limits), -EINVAL);
	check_mm(mm);
	mm_unref(mm);
}

static void test_fork_cow(void **state)
{
	struct mm *mm = new_mm(), *kid, *grandkid;
	uint64_t n = 100, a = anon(mm, n * PAGE, 3), i, before;

	(void)state;
	for (i = 0; i < n; i++)
		store(mm, a + i * PAGE, (char)i);
	assert_int_equal(mm_fork(mm, &kid), 0);
	check_mm(mm);
	check_mm(kid);
	before = private_bytes();
	for (i = 0; i < n; i++)
		assert_int_equal(load(kid, a + i * PAGE), (char)i);
	assert_int_equal(private_bytes(), before);
	store(kid, a + 5 * PAGE, 99);
	assert_int_equal(private_bytes(), before + MEM_CHUNK_SIZE);
	assert_int_equal(load(mm, a + 5 * PAGE), 5);
	store(mm, a + 6 * PAGE, 77);
	/* The kid left that chunk: in place. */
	assert_int_equal(private_bytes(), before + MEM_CHUNK_SIZE);
	assert_int_equal(load(kid, a + 6 * PAGE), 6);
	assert_int_equal(load(kid, a + 5 * PAGE), 99);
	store(mm, a + 50 * PAGE, 55);
	assert_int_equal(load(kid, a + 50 * PAGE), 50);
	assert_int_equal(mm_fork(kid, &grandkid), 0);
	store(kid, a + 5 * PAGE, 98);
	assert_int_equal(load(grandkid, a + 5 * PAGE), 99);
	mm_unref(kid);
	check_mm(mm);
	check_mm(grandkid);
	store(grandkid, a + 5 * PAGE, 97);
	for (i = 0; i < n; i++) {
		assert_int_equal(load(mm, a + i * PAGE), i == 6 ? 77 : i == 50 ? 55 : (char)i);
		assert_int_equal(load(grandkid, a + i * PAGE), i == 5 ? 97 : (char)i);
	}
	mm_unref(grandkid);
	/* All ours again: no copies. */
	before = private_bytes();
	for (i = 0; i < n; i++)
		store(mm, a + i * PAGE, 1);
	assert_int_equal(private_bytes(), before);
	check_mm(mm);
	mm_unref(mm);
}

static void test_fork_flags(void **state)
{
	struct mm *mm = new_mm(), *kid;
	struct tfile t;
	uint64_t a = anon(mm, 16 * PAGE, 3), s;
	char c;

	(void)state;
	tfile_init(&t, 4 * PAGE);
	s = map_file(mm, &t, 0, 4 * PAGE, 3, true);
	memset(&c, 0, 1);
	store(mm, a, 1);
	store(mm, a + 4 * PAGE, 2);
	store(mm, a + 8 * PAGE, 3);
	store(mm, s, 4);
	assert_int_equal(mm_advise(mm, a + 4 * PAGE, 4 * PAGE, MADV_DONTFORK), 0);
	assert_int_equal(mm_advise(mm, a + 8 * PAGE, 4 * PAGE, MADV_WIPEONFORK), 0);
	assert_int_equal(mm_advise(mm, s, PAGE, MADV_WIPEONFORK), -EINVAL);
	assert_int_equal(mm_fork(mm, &kid), 0);
	check_mm(kid);
	assert_int_equal(load(kid, a), 1);
	assert_int_equal(app_load(kid, a + 4 * PAGE, &c), SIGSEGV);
	assert_int_equal(load(kid, a + 8 * PAGE), 0);
	store(kid, s + 1, 5);
	assert_int_equal(load(mm, s + 1), 5);
	assert_int_equal(load(kid, s), 4);
	store(mm, a + 4 * PAGE, 2);
	assert_int_equal(load(mm, a + 8 * PAGE), 3);
	mm_unref(kid);
	check_mm(mm);
	mm_unref(mm);
	tfile_fini(&t);
}

static void test_brk(void **state)
{
	struct mm *mm = new_mm();
	struct mm_limits lim = no_limits;
	struct mm_layout l;
	uint64_t base = 0x10000000, brk, i;
	char c;

	(void)state;
	mm_get_layout(mm, &l);
	l.start_brk = l.brk = base + 100;
	mm_set_layout(mm, &l);
	assert_int_equal(mm_brk(mm, 0, &lim, &brk), 0);
	assert_int_equal(brk, base + 100);
	for (i = 1; i <= 40; i++) {
		assert_int_equal(mm_brk(mm, base + i * PAGE, &lim, &brk), 0);
		assert_int_equal(brk, base + i * PAGE);
		if (i > 1)
			store(mm, brk - 1, (char)i);
	}
	assert_int_equal(vmas(mm), 1);
	check_mm(mm);
	/* The pages share chunks. */
	assert_true(private_bytes() <= 4 * MEM_CHUNK_SIZE);
	for (i = 2; i <= 40; i++)
		assert_int_equal(load(mm, base + i * PAGE - 1), (char)i);
	assert_int_equal(mm_brk(mm, base + 5 * PAGE, &lim, &brk), 0);
	assert_int_equal(app_load(mm, base + 5 * PAGE, &c), SIGSEGV);
	assert_int_equal(mm_brk(mm, base + 6 * PAGE, &lim, &brk), 0);
	assert_int_equal(load(mm, base + 6 * PAGE - 1), 0);
	lim.data_bytes = 10 * PAGE;
	assert_int_equal(mm_brk(mm, base + 20 * PAGE, &lim, &brk), 0);
	assert_int_equal(brk, base + 6 * PAGE);
	assert_int_equal(anon_at(mm, base + 30 * PAGE, PAGE, 3), 0);
	assert_int_equal(mm_brk(mm, base + 31 * PAGE, &no_limits, &brk), 0);
	assert_int_equal(brk, base + 6 * PAGE);
	check_mm(mm);
	mm_unref(mm);
}

static void test_stack(void **state)
{
	struct mm *mm = new_mm();
	struct mm_map_args args = {.addr = 0x7ff000000000,
				   .size = 4 * PAGE,
				   .prot = 3,
				   .max_prot = 7,
				   .fixed = true,
				   .grows_down = true,
				   .stack = true,
				   .name = "[stack]"};
	uint64_t addr, top, i;
	char c;

	(void)state;
	assert_int_equal(mm_map(mm, &args, &no_limits, &addr), 0);
	top = addr + 4 * PAGE;
	mm_set_stack_limit(mm, 1ul << 20);
	for (i = PAGE; i <= 1ul << 20; i += PAGE)
		store(mm, top - i, 1);
	check_mm(mm);
	assert_int_equal(app_store(mm, top - (1ul << 20) - 1, 1), SIGSEGV);
	mm_set_stack_limit(mm, 64ul << 20);
	/* A mapping below keeps its distance. */
	assert_int_equal(anon_at(mm, top - (4ul << 20), PAGE, 3), 0);
	assert_int_equal(app_store(mm, top - (4ul << 20) + PAGE, 1), SIGSEGV);
	assert_int_equal(app_store(mm, top - (4ul << 20) + PAGE + MM_STACK_GAP - 1, 1), SIGSEGV);
	store(mm, top - (4ul << 20) + PAGE + MM_STACK_GAP, 1);
	assert_int_equal(app_load(mm, top - (8ul << 20), &c), SIGSEGV);
	check_mm(mm);
	mm_unref(mm);
}

static void test_remap(void **state)
{
	struct mm *mm = new_mm();
	struct tfile t;
	uint64_t a = anon(mm, 20 * PAGE, 3), b, i, s;
	char c;

	(void)state;
	for (i = 0; i < 20; i++)
		store(mm, a + i * PAGE, (char)(i + 1));
	assert_int_equal(mm_remap(mm, a, 20 * PAGE, 10 * PAGE, 0, 0, &no_limits, &b), 0);
	assert_int_equal(b, a);
	assert_int_equal(app_load(mm, a + 10 * PAGE, &c), SIGSEGV);
	assert_int_equal(mm_remap(mm, a, 10 * PAGE, 20 * PAGE, 0, 0, &no_limits, &b), 0);
	assert_int_equal(b, a);
	assert_int_equal(load(mm, a + 10 * PAGE), 0);
	/* The middle cannot grow in place. */
	assert_int_equal(mm_remap(mm, a, 5 * PAGE, 50 * PAGE, 0, 0, &no_limits, &b), -ENOMEM);
	assert_int_equal(mm_remap(mm, a, 5 * PAGE, 50 * PAGE, MREMAP_MAYMOVE, 0, &no_limits, &b),
			 0);
	assert_int_not_equal(b, a);
	check_mm(mm);
	for (i = 0; i < 5; i++)
		assert_int_equal(load(mm, b + i * PAGE), (char)(i + 1));
	assert_int_equal(load(mm, b + 5 * PAGE), 0);
	assert_int_equal(app_load(mm, a, &c), SIGSEGV);
	assert_int_equal(load(mm, a + 5 * PAGE), 6);
	assert_int_equal(mm_remap(mm, b, 3 * PAGE, 3 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED,
				  0x20000000, &no_limits, &b),
			 0);
	assert_int_equal(b, 0x20000000);
	assert_int_equal(load(mm, b + 2 * PAGE), 3);
	assert_int_equal(mm_remap(mm, b, 3 * PAGE, 3 * PAGE, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, 0,
				  &no_limits, &s),
			 0);
	assert_int_equal(load(mm, s + 2 * PAGE), 3);
	assert_int_equal(load(mm, b + 2 * PAGE), 0);
	check_mm(mm);
	/* Files: old_size 0 maps a second time; a move keeps offsets. */
	tfile_init(&t, 40 * PAGE);
	s = map_file(mm, &t, 0, 20 * PAGE, 3, true);
	store(mm, s + PAGE, 50);
	assert_int_equal(mm_remap(mm, s, 0, 20 * PAGE, MREMAP_MAYMOVE, 0, &no_limits, &b), 0);
	assert_int_equal(load(mm, b + PAGE), 50);
	assert_int_equal(mm_remap(mm, s + 2 * PAGE, 18 * PAGE, 38 * PAGE, MREMAP_MAYMOVE, 0,
				  &no_limits, &b),
			 0);
	assert_int_equal(load(mm, b + PAGE), tfile_byte(3 * PAGE));
	assert_int_equal(load(mm, b + 37 * PAGE), tfile_byte(39 * PAGE));
	tfile_truncate(&t, 10 * PAGE, 0);
	assert_int_equal(app_load(mm, b + 8 * PAGE, &c), SIGBUS);
	check_mm(mm);
	assert_int_equal(mm_remap(mm, s, PAGE, PAGE, MREMAP_FIXED, 0x30000000, &no_limits, &b),
			 -EINVAL);
	assert_int_equal(mm_remap(mm, s + 1, PAGE, PAGE, 0, 0, &no_limits, &b), -EINVAL);
	assert_int_equal(mm_remap(mm, s, PAGE, 0, 0, 0, &no_limits, &b), -EINVAL);
	assert_int_equal(mm_remap(mm, 0x5000000, PAGE, PAGE, 0, 0, &no_limits, &b), -EFAULT);
	assert_int_equal(mm_remap(mm, s, PAGE, PAGE, 8, 0, &no_limits, &b), -EINVAL);
	assert_int_equal(mm_remap(mm, s, 2 * PAGE, 2 * PAGE, MREMAP_FIXED | MREMAP_MAYMOVE,
				  s + PAGE, &no_limits, &b),
			 -EINVAL);
	mm_unref(mm);
	tfile_fini(&t);
}

static void test_advise(void **state)
{
	struct mm *mm = new_mm(), *kid;
	uint64_t a = anon(mm, 2048 * PAGE, 3), i, before;

	(void)state;
	for (i = 0; i < 2048; i++)
		store(mm, a + i * PAGE, 1);
	before = private_bytes();
	assert_int_equal(mm_advise(mm, a + 3 * PAGE, 2 * PAGE, MADV_DONTNEED), 0);
	assert_int_equal(load(mm, a + 2 * PAGE), 1);
	assert_int_equal(load(mm, a + 3 * PAGE), 0);
	assert_int_equal(load(mm, a + 4 * PAGE), 0);
	assert_int_equal(load(mm, a + 5 * PAGE), 1);
	assert_int_equal(private_bytes(), before);
	assert_int_equal(mm_fork(mm, &kid), 0);
	assert_int_equal(mm_advise(kid, a + 10 * PAGE, 5 * PAGE, MADV_FREE), 0);
	assert_int_equal(load(kid, a + 10 * PAGE), 0);
	assert_int_equal(load(mm, a + 10 * PAGE), 1);
	check_mm(kid);
	mm_unref(kid);
	assert_int_equal(mm_advise(mm, a, 2048 * PAGE, MADV_DONTNEED), 0);
	assert_int_equal(private_bytes(), 0);
	assert_int_equal(load(mm, a + 100 * PAGE), 0);
	assert_int_equal(mm_advise(mm, a, PAGE, 12 /* MADV_MERGEABLE */), -EINVAL);
	assert_int_equal(mm_advise(mm, a, PAGE, 12345), -EINVAL);
	assert_int_equal(mm_advise(mm, a, PAGE, MADV_HUGEPAGE), 0);
	assert_int_equal(mm_advise(mm, a + 1, PAGE, MADV_NORMAL), -EINVAL);
	assert_int_equal(mm_advise(mm, a, 0, MADV_NORMAL), 0);
	assert_int_equal(mm_advise(mm, a + 2047 * PAGE, 2 * PAGE, MADV_DONTNEED), -ENOMEM);
	assert_int_equal(mm_advise(mm, a, PAGE, MADV_REMOVE), -EINVAL);
	assert_int_equal(mm_advise(mm, a, 4 * PAGE, MADV_POPULATE_WRITE), 0);
	assert_int_equal(mm_sync(mm, a, 4 * PAGE, MS_SYNC), 0);
	assert_int_equal(mm_sync(mm, a, 4 * PAGE, MS_SYNC | MS_ASYNC), -EINVAL);
	assert_int_equal(mm_sync(mm, a + 2047 * PAGE, 4 * PAGE, MS_SYNC), -ENOMEM);
	check_mm(mm);
	mm_unref(mm);
}

static void test_lock_and_mincore(void **state)
{
	struct mm *mm = new_mm();
	struct mm_limits lim = no_limits;
	uint64_t a = anon(mm, 64 * PAGE, 3), v = anon(mm, PAGE, 3);
	struct mm_usage u;
	unsigned char vec[64];

	(void)state;
	store(mm, a + 5 * PAGE, 1);
	assert_int_equal(mm_mincore(mm, a, 64 * PAGE, v), 0);
	assert_int_equal(mm_copy_in(mm, vec, v, 64), 0);
	assert_int_equal(vec[5], 1);
	assert_int_equal(vec[40], 0);
	assert_int_equal(mm_mincore(mm, a, 66 * PAGE, v), -ENOMEM);
	assert_int_equal(mm_mincore(mm, a, PAGE, 1), -EFAULT);
	lim.memlock_bytes = 4 * PAGE;
	assert_int_equal(mm_lock(mm, a + 10, 4 * PAGE, 0, true, &lim), -ENOMEM);
	assert_int_equal(mm_lock(mm, a, 4 * PAGE, 0, true, &lim), 0);
	assert_int_equal(mm_lock(mm, a, 4 * PAGE, 0, true, &lim), 0);
	mm_get_usage(mm, &u);
	assert_int_equal(u.locked_bytes, 4 * PAGE);
	assert_int_equal(mm_advise(mm, a, PAGE, MADV_DONTNEED), -EINVAL);
	assert_int_equal(mm_lock(mm, a + 2 * PAGE, PAGE, 0, false, &lim), 0);
	mm_get_usage(mm, &u);
	assert_int_equal(u.locked_bytes, 3 * PAGE);
	check_mm(mm);
	assert_int_equal(mm_lock_all(mm, 0, false, &lim), 0);
	assert_int_equal(mm_lock_all(mm, MCL_CURRENT, true, &lim), -ENOMEM);
	assert_int_equal(mm_lock_all(mm, MCL_FUTURE, true, &no_limits), 0);
	anon(mm, 2 * PAGE, 3);
	mm_get_usage(mm, &u);
	assert_int_equal(u.locked_bytes, 2 * PAGE);
	lim.memlock_bytes = 0;
	assert_int_equal(mm_lock(mm, a, PAGE, 0, true, &lim), -EPERM);
	mm_unref(mm);
}

static int count_vma(void *arg, const struct mm_vma_info *info)
{
	uint64_t *last = arg;

	assert_true(info->start >= *last);
	*last = info->end;
	return 0;
}

/* MAP_SHARED|MAP_ANONYMOUS: one memory for all who inherit it. */
static void test_shared_anon(void **state)
{
	struct mm *mm = new_mm(), *kid;
	struct mm_map_args args = {.size = 600 * PAGE, .prot = 3, .max_prot = 7, .shared = true};
	struct futex_key k1, k2;
	uint64_t a, b;

	(void)state;
	assert_int_equal(mm_map(mm, &args, &no_limits, &a), 0);
	store(mm, a + 5 * PAGE, 1);
	assert_int_equal(mm_fork(mm, &kid), 0);
	store(kid, a + 6 * PAGE, 2);
	store(kid, a + 500 * PAGE, 3);
	assert_int_equal(load(mm, a + 6 * PAGE), 2);
	assert_int_equal(load(mm, a + 500 * PAGE), 3);
	store(mm, a + 501 * PAGE, 4);
	assert_int_equal(load(kid, a + 501 * PAGE), 4);
	assert_int_equal(load(kid, a + 5 * PAGE), 1);
	assert_int_equal(mm_advise(mm, a, 600 * PAGE, MADV_DONTNEED), 0);
	assert_int_equal(load(mm, a + 6 * PAGE), 2);
	assert_int_equal(mm_futex_key(mm, a + 4, true, true, &k1), 0);
	assert_int_equal(mm_futex_key(kid, a + 4, true, true, &k2), 0);
	assert_true(k1.a == k2.a && k1.b == k2.b);
	futex_key_fini(&k1);
	futex_key_fini(&k2);
	assert_int_equal(mm_remap(kid, a, 0, 600 * PAGE, MREMAP_MAYMOVE, 0, &no_limits, &b), 0);
	assert_int_equal(load(kid, b + 500 * PAGE), 3);
	check_mm(kid);
	check_mm(mm);
	mm_unref(mm);
	assert_int_equal(load(kid, b + 501 * PAGE), 4);
	mm_unref(kid);
}

static void test_walk(void **state)
{
	struct mm *mm = new_mm();
	uint64_t a = anon(mm, 200 * PAGE, 3), last = 0, i;

	(void)state;
	for (i = 0; i < 200; i += 2)
		assert_int_equal(protect(mm, a + i * PAGE, PAGE, 1), 0);
	assert_int_equal(vmas(mm), 200);
	assert_int_equal(mm_for_each_vma(mm, 0, count_vma, &last), 0);
	assert_int_equal(last, a + 200 * PAGE);
	mm_unref(mm);
}

static void test_seal(void **state)
{
	struct mm *mm = new_mm();
	struct mm_map_args args = {.size = PAGE, .prot = 3, .max_prot = 7, .shared = true};
	struct tfile t;
	uint64_t addr;

	(void)state;
	tfile_init(&t, PAGE);
	args.mappable = &t.m;
	t.m.writable_mappings = -1;
	assert_int_equal(mm_map(mm, &args, &no_limits, &addr), -EPERM);
	args.prot = 1;
	assert_int_equal(mm_map(mm, &args, &no_limits, &addr), 0);
	assert_int_equal(protect(mm, addr, PAGE, 3), -EACCES);
	mm_unref(mm);
	assert_int_equal(t.m.writable_mappings, -1);
	tfile_fini(&t);
}

static struct mappable *late_file;
static unsigned late_ends, late_writable;

/* What is there goes before the file's count says that nothing is. */
static void late_clear(struct address_space *as)
{
	assert_true(atomic_load(&late_file->writable_mappings) > 0);
	fake_as_clear(as);
}

/* A hostile application runs on until this has ended. */
static void late_retire(struct address_space *as, void (*done)(void *), void *arg)
{
	struct fake_pte *pte;

	late_ends++;
	RB_FOREACH (pte, fake_tree, &as->ptes)
		late_writable += pte->shared && (pte->access & MEM_WRITE);
	fake_as_destroy(as);
	done(arg);
}

/* An application that is ended late writes to no file that may be sealed by then. */
static void test_late_end(void **state)
{
	struct platform_ops ops = fake_ops;
	struct platform late = {.ops = &ops, .app_elsewhere = true};
	struct tfile t;
	struct mm *mm;
	uint64_t addr;

	(void)state;
	ops.as_clear = late_clear;
	ops.as_retire = late_retire;
	tfile_init(&t, 2 * PAGE);
	late_file = &t.m;
	for (int shared = 0; shared < 2; shared++) {
		assert_int_equal(mm_create(&late, &mm), 0);
		store(mm, anon(mm, PAGE, 3), 1);
		addr = map_file(mm, &t, 0, 2 * PAGE, 3, shared);
		store(mm, addr, 2);
		assert_int_equal(t.m.writable_mappings, shared);
		/* Pieces of it count, whatever they may do now. */
		assert_int_equal(protect(mm, addr + PAGE, PAGE, 1), 0);
		mm_unref(mm);
		assert_int_equal(t.m.writable_mappings, 0);
		assert_int_equal(late_ends, shared + 1);
		assert_int_equal(late_writable, 0);
	}
	tfile_fini(&t);
}

/* The allocator refuses: -ENOMEM, nothing broken. */
static void test_out_of_memory(void **state)
{
	struct mm *mm = new_mm();
	uint64_t size = 2ul << 30, a = anon(mm, size, 3), i;
	int signo = 0;

	(void)state;
	for (i = 0; i < size && !signo; i += MEM_CHUNK_SIZE)
		signo = app_store(mm, a + i, 1);
	assert_int_equal(signo, 1000 + ENOMEM);
	check_mm(mm);
	mm_unref(mm);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		MM_TEST(test_anon),	     MM_TEST(test_few_faults),
		MM_TEST(test_map_errors),    MM_TEST(test_gaps),
		MM_TEST(test_protect),	     MM_TEST(test_fork_cow),
		MM_TEST(test_fork_flags),    MM_TEST(test_brk),
		MM_TEST(test_stack),	     MM_TEST(test_remap),
		MM_TEST(test_advise),	     MM_TEST(test_lock_and_mincore),
		MM_TEST(test_shared_anon),   MM_TEST(test_walk),
		MM_TEST(test_seal),	     MM_TEST(test_late_end),
		MM_TEST(test_out_of_memory),
	};

	MM_TESTS_RUN(tests);
}
