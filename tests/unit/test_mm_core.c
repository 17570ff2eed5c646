// LINK: moat_mm moat_mem
/* The mm over a fake platform: system calls' results, copy-on-write, files, leaks. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/unit/fake_platform.h"

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

int file_fallocate(struct file *f, int mode, uint64_t off, uint64_t size)
{
	(void)f;
	(void)mode;
	(void)off;
	(void)size;
	return 0;
}

static struct mm *new_mm(void)
{
	struct mm *mm;

	assert_int_equal(guard_install(), 0); /* cmocka's own handlers come per test */
	assert_int_equal(mm_create(&fake_platform, &mm), 0);
	return mm;
}

static uint64_t anon(struct mm *mm, uint64_t size, unsigned prot)
{
	struct mm_map_args args = {.size = size, .prot = prot, .max_prot = 7};
	uint64_t addr;

	assert_int_equal(mm_map(mm, &args, &no_limits, &addr), 0);
	return addr;
}

static int anon_at(struct mm *mm, uint64_t addr, uint64_t size, unsigned prot)
{
	struct mm_map_args args = {
		.addr = addr, .size = size, .prot = prot, .max_prot = 7, .fixed = true};
	uint64_t got;

	return mm_map(mm, &args, &no_limits, &got);
}

static uint64_t map_file(struct mm *mm, struct tfile *t, uint64_t off, uint64_t size, unsigned prot,
			 bool shared)
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

static char load(struct mm *mm, uint64_t addr)
{
	char c;

	assert_int_equal(app_load(mm, addr, &c), 0);
	return c;
}

static void store(struct mm *mm, uint64_t addr, char c)
{
	assert_int_equal(app_store(mm, addr, c), 0);
}

static int protect(struct mm *mm, uint64_t addr, uint64_t size, unsigned prot)
{
	return mm_protect(mm, addr, size, prot, false, &no_limits);
}

static unsigned vmas(struct mm *mm)
{
	struct mm_usage u;

	mm_get_usage(mm, &u);
	return u.vmas;
}

/* After every test: nothing is left. */
static int teardown(void **state)
{
	(void)state;
	rcu_drain();
	assert_int_equal(private_bytes(), 0);
	assert_int_equal(fake_spaces, 0);
	assert_int_equal(file_refs, 0);
	assert_int_equal(mm_type.live, 0);
	return 0;
}

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

static void file_tests(struct tfile *t, uint64_t size)
{
	struct mm *mm = new_mm(), *kid;
	uint64_t p = map_file(mm, t, 0, size, 3, false);
	uint64_t s = map_file(mm, t, 0, size, 3, true);
	uint64_t pages = size / PAGE, i;
	char c;

	for (i = 0; i < pages; i++)
		assert_int_equal(load(mm, p + i * PAGE + 1), tfile_byte(i * PAGE));
	store(mm, p + 3 * PAGE, 100);
	assert_int_equal(load(mm, s + 3 * PAGE), tfile_byte(3 * PAGE));
	store(mm, s + 40 * PAGE, 101);
	/* Not copied yet: a private mapping still follows the file. */
	assert_int_equal(load(mm, p + 40 * PAGE), 101);
	check_mm(mm);
	assert_int_equal(mm_fork(mm, &kid), 0);
	store(kid, p + 3 * PAGE, 102);
	assert_int_equal(load(mm, p + 3 * PAGE), 100);
	store(kid, s + 41 * PAGE, 103);
	assert_int_equal(load(mm, s + 41 * PAGE), 103);
	check_mm(kid);
	/* DONTNEED: back to the file. */
	assert_int_equal(mm_advise(mm, p, size, MADV_DONTNEED), 0);
	assert_int_equal(load(mm, p + 3 * PAGE), tfile_byte(3 * PAGE));
	assert_int_equal(load(kid, p + 3 * PAGE), 102);
	/* Splits keep offsets. */
	assert_int_equal(mm_unmap(mm, p + 7 * PAGE, PAGE), 0);
	assert_int_equal(mm_unmap(mm, s + 7 * PAGE, PAGE), 0);
	assert_int_equal(load(mm, p + 9 * PAGE), tfile_byte(9 * PAGE));
	assert_int_equal(load(mm, s + 8 * PAGE), tfile_byte(8 * PAGE));
	check_mm(mm);
	assert_int_equal(app_load(mm, p + 7 * PAGE, &c), SIGSEGV);
	mm_unref(mm);
	check_mm(kid);
	mm_unref(kid);
}

static void test_file_private_memory(void **state)
{
	struct tfile t;

	(void)state;
	tfile_init(&t, 100 * PAGE);
	t.need_populate = true;
	file_tests(&t, 100 * PAGE);
	assert_int_equal(t.populates, 1);
	tfile_fini(&t);
	tfile_init(&t, 100 * PAGE);
	t.write_tracked = true;
	file_tests(&t, 100 * PAGE);
	assert_true(t.writes > 0);
	tfile_fini(&t);
}

static void host_tfile(struct tfile *t, uint64_t size, int *ret_fd)
{
	char page[PAGE];
	uint64_t i;
	int fd = memfd_create("t", 0);

	tfile_init(t, 0);
	t->size = size;
	for (i = 0; i < size; i += PAGE) {
		memset(page, tfile_byte(i), PAGE);
		assert_int_equal(pwrite(fd, page, PAGE, (off_t)i), PAGE);
	}
	assert_int_equal(memfile_create_host(fd, MEM_READ | MEM_WRITE, &t->host), 0);
	*ret_fd = fd;
}

static void test_file_host(void **state)
{
	struct tfile t;
	int fd;

	(void)state;
	host_tfile(&t, 100 * PAGE, &fd);
	file_tests(&t, 100 * PAGE);
	tfile_fini(&t);
}

static void test_truncate(void **state)
{
	struct mm *mm = new_mm();
	struct tfile t;
	uint64_t p, s;
	char c, buf[3 * PAGE];

	(void)state;
	tfile_init(&t, 64 * PAGE);
	p = map_file(mm, &t, 0, 64 * PAGE, 3, false);
	s = map_file(mm, &t, 0, 64 * PAGE, 3, true);
	store(mm, p + 30 * PAGE, 9);
	store(mm, p + 3 * PAGE, 9);
	store(mm, s + 31 * PAGE, 9);
	tfile_truncate(&t, 20 * PAGE, 0);
	check_mm(mm);
	assert_int_equal(app_load(mm, p + 30 * PAGE, &c), SIGBUS);
	assert_int_equal(app_load(mm, s + 31 * PAGE, &c), SIGBUS);
	assert_int_equal(app_store(mm, p + 20 * PAGE, 1), SIGBUS);
	assert_int_equal(load(mm, p + 3 * PAGE), 9);
	assert_int_equal(mm_copy_in_partial(mm, buf, s + 18 * PAGE, sizeof(buf)), 2 * PAGE);
	assert_int_equal(mm_copy_in(mm, buf, s + 20 * PAGE, 1), -EFAULT);
	tfile_truncate(&t, 20 * PAGE, 64 * PAGE);
	assert_int_equal(load(mm, p + 30 * PAGE), 0);
	assert_int_equal(load(mm, s + 31 * PAGE), 0);
	check_mm(mm);
	mm_unref(mm);
	tfile_fini(&t);
}

/* A host file that shrinks behind our back. */
static void test_host_shrinks(void **state)
{
	struct mm *mm = new_mm();
	struct tfile t;
	uint64_t p, s;
	char c, buf[64];
	int fd;

	(void)state;
	host_tfile(&t, 64 * PAGE, &fd);
	p = map_file(mm, &t, 0, 64 * PAGE, 3, false);
	s = map_file(mm, &t, 0, 64 * PAGE, 3, true);
	assert_int_equal(load(mm, s + 2 * PAGE), tfile_byte(2 * PAGE));
	store(mm, p + 50 * PAGE, 3);
	assert_int_equal(ftruncate(fd, 30 * PAGE), 0);
	assert_int_equal(app_load(mm, s + 40 * PAGE, &c), SIGBUS);
	assert_int_equal(app_store(mm, p + 40 * PAGE, 1), SIGBUS);
	assert_int_equal(mm_copy_in(mm, buf, s + 40 * PAGE, 64), -EFAULT);
	assert_int_equal(mm_copy_in_partial(mm, buf, s + 30 * PAGE - 10, 64), 10);
	/* Copied before: ours. */
	assert_int_equal(load(mm, p + 50 * PAGE), 3);
	store(mm, p + 29 * PAGE, 1);
	check_mm(mm);
	mm_unref(mm);
	tfile_fini(&t);
}

static void test_copies(void **state)
{
	struct mm *mm = new_mm(), *kid;
	uint64_t a = anon(mm, 512 * PAGE, 3);
	static char buf[300 * PAGE], out[300 * PAGE];
	unsigned i;

	(void)state;
	for (i = 0; i < sizeof(buf); i++)
		buf[i] = (char)(i * 31);
	assert_int_equal(mm_copy_out(mm, a + 100, buf, sizeof(buf)), 0);
	assert_int_equal(mm_copy_in(mm, out, a + 100, sizeof(out)), 0);
	assert_memory_equal(buf, out, sizeof(buf));
	assert_int_equal(load(mm, a + 100 + 12345), buf[12345]);
	assert_int_equal(mm_fork(mm, &kid), 0);
	assert_int_equal(mm_zero_out(kid, a + 100 + 5000, 50000), 0);
	assert_int_equal(mm_copy_in(mm, out, a + 100, sizeof(out)), 0);
	assert_memory_equal(buf, out, sizeof(buf));
	assert_int_equal(mm_copy_in(kid, out, a + 100, sizeof(out)), 0);
	memset(buf + 5000, 0, 50000);
	assert_memory_equal(buf, out, sizeof(buf));
	check_mm(kid);
	mm_unref(kid);
	/* Ends. */
	assert_int_equal(mm_copy_out_partial(mm, a + 511 * PAGE, buf, 3 * PAGE), PAGE);
	assert_int_equal(mm_copy_out(mm, a + 511 * PAGE + 1, buf, PAGE), -EFAULT);
	assert_int_equal(mm_copy_in(mm, out, ARCH_TASK_SIZE, 1), -EFAULT);
	assert_int_equal(mm_copy_in(mm, out, UINT64_MAX - 3, 10), -EFAULT);
	assert_int_equal(mm_copy_in(mm, out, 0, 1), -EFAULT);
	assert_int_equal(mm_copy_in(mm, out, 0, 0), 0);
	assert_int_equal(protect(mm, a, PAGE, 1), 0);
	assert_int_equal(mm_copy_out(mm, a, buf, 1), -EFAULT);
	assert_int_equal(mm_copy_in(mm, out, a, 1), 0);
	mm_unref(mm);
}

static void test_strings(void **state)
{
	struct mm *mm = new_mm();
	uint64_t a = anon(mm, 2 * PAGE, 3), end = a + 2 * PAGE;
	char buf[100], big[2 * PAGE];
	unsigned i;

	(void)state;
	assert_int_equal(mm_copy_out(mm, end - 6, "hello", 6), 0);
	assert_int_equal(mm_copy_in_string(mm, buf, end - 6, sizeof(buf)), 5);
	assert_string_equal(buf, "hello");
	assert_int_equal(mm_copy_in_string(mm, buf, end - 6, 6), 5);
	assert_int_equal(mm_copy_in_string(mm, buf, end - 6, 5), -ENAMETOOLONG);
	assert_int_equal(mm_copy_out(mm, end - 6, "hello!", 6), 0);
	assert_int_equal(mm_copy_in_string(mm, buf, end - 6, sizeof(buf)), -EFAULT);
	memset(big, 'x', sizeof(big));
	big[2 * PAGE - 1] = 0;
	assert_int_equal(mm_copy_out(mm, a, big, sizeof(big)), 0);
	for (i = 0; i < 3; i++) {
		char got[2 * PAGE];

		assert_int_equal(mm_copy_in_string(mm, got, a + i * 777, sizeof(got)),
				 2 * PAGE - 1 - i * 777);
	}
	assert_int_equal(mm_copy_in_string(mm, buf, 1, sizeof(buf)), -EFAULT);
	mm_unref(mm);
}

static void test_words_and_futex(void **state)
{
	struct mm *mm = new_mm(), *kid;
	struct tfile t;
	uint64_t a = anon(mm, PAGE, 3), s, ro = anon(mm, PAGE, 1);
	struct futex_key k1, k2;
	uint32_t v = 7;

	(void)state;
	tfile_init(&t, 2 * PAGE);
	s = map_file(mm, &t, PAGE, PAGE, 3, true);
	assert_int_equal(mm_load_u32(mm, a, &v), 0);
	assert_int_equal(v, 0);
	assert_int_equal(mm_cmpxchg_u32(mm, a, &v, 5), 0);
	assert_int_equal(mm_cmpxchg_u32(mm, a, &v, 5), -EAGAIN);
	assert_int_equal(v, 5);
	assert_int_equal(mm_load_u32(mm, a + 2, &v), -EFAULT);
	assert_int_equal(mm_cmpxchg_u32(mm, ro, &v, 5), -EFAULT);
	assert_int_equal(mm_load_u32(mm, 0, &v), -EFAULT);
	assert_int_equal(mm_fork(mm, &kid), 0);
	assert_int_equal(mm_futex_key(mm, a + 8, false, false, &k1), 0);
	assert_ptr_equal(k1.mm, mm);
	assert_int_equal(k1.off, 8);
	assert_int_equal(mm_futex_key(kid, a + 8, true, false, &k2), 0);
	assert_int_not_equal(k1.a, k2.a);
	futex_key_fini(&k1);
	futex_key_fini(&k2);
	assert_int_equal(mm_futex_key(mm, s + 4, true, true, &k1), 0);
	assert_int_equal(mm_futex_key(kid, s + 4, true, true, &k2), 0);
	assert_int_equal(k1.a, k2.a);
	assert_int_equal(k1.b, k2.b);
	assert_int_equal(k1.b, PAGE);
	futex_key_fini(&k1);
	futex_key_fini(&k2);
	assert_int_equal(mm_futex_key(mm, ro, true, true, &k1), -EFAULT);
	assert_int_equal(mm_futex_key(mm, 4096, true, false, &k1), -EFAULT);
	mm_unref(kid);
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

static void test_remote(void **state)
{
	struct mm *mm = new_mm(), *kid;
	struct tfile t;
	uint64_t a = anon(mm, 4 * PAGE, 3), text, s;
	char buf[16];

	(void)state;
	tfile_init(&t, 4 * PAGE);
	text = map_file(mm, &t, 0, 4 * PAGE, 5, false);
	s = map_file(mm, &t, 0, 4 * PAGE, 1, true);
	store(mm, a, 7);
	assert_int_equal(protect(mm, a, 4 * PAGE, 0), 0);
	assert_int_equal(mm_fork(mm, &kid), 0);
	assert_int_equal(mm_access_remote(mm, a, buf, 4, false), 4);
	assert_int_equal(buf[0], 7);
	assert_int_equal(mm_access_remote(mm, a, "bcd", 3, true), 3);
	assert_int_equal(mm_access_remote(kid, a, buf, 4, false), 4);
	assert_int_equal(buf[0], 7);
	/* A breakpoint: in this mm's copy only, and the application sees it. */
	assert_int_equal(load(mm, text + PAGE), tfile_byte(PAGE));
	assert_int_equal(mm_access_remote(mm, text + PAGE, "\xcc", 1, true), 1);
	assert_int_equal(load(mm, text + PAGE), (char)0xcc);
	assert_int_equal(load(kid, text + PAGE), tfile_byte(PAGE));
	assert_int_equal(load(mm, s + PAGE), tfile_byte(PAGE));
	assert_int_equal(app_store(mm, text + PAGE, 1), SIGSEGV);
	assert_int_equal(mm_access_remote(mm, s, "x", 1, true), 0);
	assert_int_equal(mm_access_remote(mm, 0, buf, 1, false), 0);
	check_mm(mm);
	check_mm(kid);
	mm_unref(kid);
	mm_unref(mm);
	tfile_fini(&t);
}

static void test_iter(void **state)
{
	struct mm *mm = new_mm(), *kid;
	uint64_t a = anon(mm, 4096 * PAGE, 3), hole = a + 100 * PAGE;
	struct iovec iov[3], one, win[4];
	struct io_iter it;
	static char big[1 << 20];
	unsigned i;
	int n;

	(void)state;
	assert_int_equal(mm_unmap(mm, hole, PAGE), 0);
	iov[0] = (struct iovec){(void *)(a + 10), 100};
	iov[1] = (struct iovec){(void *)(a + 5000), 0};
	iov[2] = (struct iovec){(void *)(hole - 50), 100};
	mm_iter_init(mm, &it, iov, 3, true);
	assert_int_equal(it.remaining, 200);
	memset(big, 'q', sizeof(big));
	assert_int_equal(io_iter_put(&it, big, 200), 150);
	assert_int_equal(it.error, -EFAULT);
	io_iter_fini(&it);
	assert_int_equal(load(mm, a + 10 + 99), 'q');
	assert_int_equal(load(mm, hole - 1), 'q');
	mm_iter_init_one(mm, &it, &one, a + 200 * PAGE, sizeof(big), true);
	for (i = 0; i < sizeof(big); i++)
		big[i] = (char)(i >> 8);
	assert_int_equal(io_iter_put(&it, big, sizeof(big)), sizeof(big));
	io_iter_revert(&it, sizeof(big) - 300);
	assert_int_equal(it.consumed, 300);
	n = io_iter_window(&it, 1000, win, 4);
	assert_true(n > 0);
	assert_int_equal(*(char *)win[0].iov_base, big[300]);
	/* A fork with the window pinned: the I/O's bytes are the parent's alone. */
	assert_int_equal(mm_fork(mm, &kid), 0);
	check_mm(kid);
	*(char *)win[0].iov_base = 'Z';
	store(mm, a + 200 * PAGE + 301, 'Y');
	assert_int_equal(load(mm, a + 200 * PAGE + 300), 'Z');
	assert_int_equal(load(kid, a + 200 * PAGE + 300), big[300]);
	assert_int_equal(load(kid, a + 200 * PAGE + 301), big[301]);
	io_iter_fini(&it);
	mm_unref(kid);
	check_mm(mm);
	/* Unmapped while pinned: no crash, no reuse. */
	mm_iter_init_one(mm, &it, &one, a + 200 * PAGE, 8 * PAGE, true);
	n = io_iter_window(&it, 8 * PAGE, win, 4);
	assert_true(n > 0);
	assert_int_equal(mm_unmap(mm, a, 4096 * PAGE), 0);
	assert_true(private_bytes() > 0);
	memset(win[0].iov_base, 1, win[0].iov_len);
	io_iter_fini(&it);
	mm_iter_init_one(mm, &it, &one, a, 10, false);
	assert_int_equal(io_iter_get(&it, big, 10), 0);
	assert_int_equal(it.error, -EFAULT);
	io_iter_fini(&it);
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
#define T(fn) cmocka_unit_test_setup_teardown(fn, NULL, teardown)
	const struct CMUnitTest tests[] = {
		T(test_anon),
		T(test_few_faults),
		T(test_map_errors),
		T(test_gaps),
		T(test_protect),
		T(test_fork_cow),
		T(test_fork_flags),
		T(test_file_private_memory),
		T(test_file_host),
		T(test_truncate),
		T(test_host_shrinks),
		T(test_copies),
		T(test_strings),
		T(test_words_and_futex),
		T(test_brk),
		T(test_stack),
		T(test_remap),
		T(test_advise),
		T(test_lock_and_mincore),
		T(test_remote),
		T(test_iter),
		T(test_shared_anon),
		T(test_walk),
		T(test_seal),
		T(test_out_of_memory),
	};

	rcu_thread_begin();
	if (mem_init(512ul << 20))
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
