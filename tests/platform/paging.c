/*
 * tests/platform/paging.c - what is taken away is gone when the call returns, while other vCPUs run.
 *
 * Watchers (blobs g_watch_*) read a flag, then touch the victim page; the flag is set when the call under test has
 * returned. A touch that still works after that ends in a system call: a stale translation.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "tests/platform/harness.h"

#define WATCHERS 2
#define RW (MEM_READ | MEM_WRITE)

struct scene {
	struct address_space *as;
	uint64_t flag_off, flag_va;
	struct runner r[WATCHERS];
	enum platform_event_kind kind[WATCHERS];
	unsigned access;
	bool present;
};

/* A watcher ends at its first event that is no interruption. */
static bool first_event(struct runner *r)
{
	return r->g.ev.kind == PLATFORM_INTERRUPTED;
}

static void scene_init(struct scene *s, struct address_space *as)
{
	memset(s, 0, sizeof(*s));
	s->as = as;
	s->flag_off = mem_pages(1);
	s->flag_va = FLAG_VA;
	space_map(as, s->flag_va, s->flag_off, 1, MEM_READ);
}

static void scene_start(struct scene *s, const char *blob, uint64_t victim)
{
	for (unsigned i = 0; i < WATCHERS; i++)
		runner_start(&s->r[i], s->as, blob, victim, s->flag_va, first_event, NULL);
	sleep_us(rnd() % 400);
}

/* Sets the flag and collects. */
static void scene_end(struct scene *s)
{
	__atomic_store_n(mem_at(s->flag_off), 1, __ATOMIC_SEQ_CST);
	for (unsigned i = 0; i < WATCHERS; i++)
		EXPECT(runner_wait(&s->r[i]));
}

static bool all_faulted(struct scene *s, uint64_t addr, unsigned access, bool present)
{
	for (unsigned i = 0; i < WATCHERS; i++)
		if (!is_fault(&s->r[i].g, addr, access, present))
			return false;
	return true;
}

static void concurrent_unmap(void)
{
	for (unsigned i = 0; i < rounds(150) && !atomic_load(&test_failed); i++) {
		struct address_space *as = space_new();
		uint64_t off = mem_pages(16), va = DATA_VA + (rnd() % 64) * PAGE;
		unsigned victim = rnd() % 16;
		struct scene s;

		scene_init(&s, as);
		space_map(as, va, off, 16, RW);
		scene_start(&s, i & 1 ? g_watch_store : g_watch_load, va + victim * PAGE);
		if (i & 2)
			ops->as_unmap(as, va + victim * PAGE, PAGE);
		else
			ops->as_unmap(as, va, 16 * PAGE);
		scene_end(&s);
		EXPECT(all_faulted(&s, va + victim * PAGE, i & 1 ? MEM_WRITE : MEM_READ, false));
		ops->as_destroy(as);
	}
}

static void concurrent_protect(void)
{
	for (unsigned i = 0; i < rounds(150) && !atomic_load(&test_failed); i++) {
		struct address_space *as = space_new();
		uint64_t off = mem_pages(16), val;
		struct scene s;
		uint64_t *word = mem_at(off + 3 * PAGE);

		scene_init(&s, as);
		space_map(as, DATA_VA, off, 16, RW);
		scene_start(&s, g_watch_store, DATA_VA + 3 * PAGE);
		ops->as_protect(as, DATA_VA, 16 * PAGE, MEM_READ);
		val = __atomic_load_n(word, __ATOMIC_SEQ_CST);
		scene_end(&s);
		EXPECT(all_faulted(&s, DATA_VA + 3 * PAGE, MEM_WRITE, true));
		EXPECT(*word == val);
		ops->as_destroy(as);
	}
}

static void concurrent_noexec(void)
{
	for (unsigned i = 0; i < rounds(50) && !atomic_load(&test_failed); i++) {
		struct address_space *as = space_new();
		uint64_t off = mem_pages(1);
		struct scene s;

		*(uint8_t *)mem_at(off) = 0xc3; /* ret */
		scene_init(&s, as);
		space_map(as, DATA_VA, off, 1, MEM_READ | MEM_EXEC);
		/* Both use one stack, which does no harm: they push the same address. */
		scene_start(&s, g_watch_exec, DATA_VA);
		ops->as_protect(as, DATA_VA, PAGE, MEM_READ);
		scene_end(&s);
		EXPECT(all_faulted(&s, DATA_VA, MEM_EXEC, true));
		ops->as_destroy(as);
	}
}

/* The page under a running reader is exchanged: after as_map has returned only the new one is seen. */
static void concurrent_repoint(void)
{
	for (unsigned i = 0; i < rounds(150) && !atomic_load(&test_failed); i++) {
		struct address_space *as = space_new();
		uint64_t a = mem_pages(1), b = mem_pages(1);
		struct scene s;

		mem_at(a)[0] = 0xaaaa;
		mem_at(b)[0] = 0xbbbb;
		scene_init(&s, as);
		space_map(as, DATA_VA, a, 1, RW);
		scene_start(&s, g_watch_load, DATA_VA);
		space_map(as, DATA_VA, b, 1, MEM_READ);
		scene_end(&s);
		for (unsigned k = 0; k < WATCHERS; k++) {
			EXPECT(s.r[k].g.ev.kind == PLATFORM_SYSCALL);
			EXPECT(s.r[k].g.regs.r.rdi == 0xbbbb);
		}
		ops->as_destroy(as);
	}
}

/* Copy-on-write: no store of the parent's reaches the page once as_fork has returned. */
static void concurrent_fork(unsigned pages, unsigned n)
{
	for (unsigned i = 0; i < n && !atomic_load(&test_failed); i++) {
		struct address_space *as = space_new(), *child;
		uint64_t off = mem_pages(pages), shared = mem_pages(1), copy = mem_pages(1), val,
			 got;
		unsigned victim = rnd() % pages;
		struct scene s;
		struct guest g;

		scene_init(&s, as);
		/* With holes in between, so that both rules get their turn. */
		for (unsigned k = 0; k < pages; k++)
			space_map(as, DATA_VA + 2 * k * PAGE, off + (k ^ 1) * PAGE, 1, RW);
		EXPECT(ops->as_map(as, DATA_VA - PAGE, PAGE, mem_private(), shared, RW,
				   PLATFORM_MAP_SHARED) == 0);
		scene_start(&s, g_watch_store, DATA_VA + 2 * victim * PAGE);
		EXPECT(ops->as_create(plat, &child) == 0);
		EXPECT(ops->as_fork(as, child) == 0);
		val = __atomic_load_n(mem_at(off + (victim ^ 1) * PAGE), __ATOMIC_SEQ_CST);
		scene_end(&s);
		EXPECT(all_faulted(&s, DATA_VA + 2 * victim * PAGE, MEM_WRITE, true));
		EXPECT(mem_at(off + (victim ^ 1) * PAGE)[0] == val);
		/* The child reads the same, writes nothing but what is shared. */
		EXPECT(peek(child, DATA_VA + 2 * victim * PAGE, &got) == 0 && got == val);
		guest_init(&g, child);
		guest_run(&g, g_store, DATA_VA + 2 * victim * PAGE, 1);
		EXPECT(is_fault(&g, DATA_VA + 2 * victim * PAGE, MEM_WRITE, true));
		guest_run(&g, g_store, DATA_VA - PAGE, 77);
		EXPECT(g.ev.kind == PLATFORM_SYSCALL && mem_at(shared)[0] == 77);
		/* The copy is broken in the child: the parent keeps the old page. */
		mem_at(copy)[0] = 0xc0;
		space_map(child, DATA_VA + 2 * victim * PAGE, copy, 1, RW);
		guest_run(&g, g_store_load, DATA_VA + 2 * victim * PAGE, 0xc1);
		EXPECT(g.regs.r.rdx == 0xc1 && mem_at(copy)[0] == 0xc1);
		guest_fini(&g);
		EXPECT(peek(as, DATA_VA + 2 * victim * PAGE, &got) == 0 && got == val);
		guest_init(&g, as);
		guest_run(&g, g_store, DATA_VA - PAGE, 78);
		EXPECT(g.ev.kind == PLATFORM_SYSCALL && mem_at(shared)[0] == 78);
		guest_fini(&g);
		ops->as_destroy(child);
		ops->as_destroy(as);
	}
}

static void concurrent_fork_small(void)
{
	concurrent_fork(4, rounds(100));
}

static void concurrent_fork_large(void)
{
	concurrent_fork(600, rounds(20));
}

/* Another address space has the same page: it goes on reading, and is not disturbed. */
static void shared_page(void)
{
	struct address_space *a = space_new(), *b = space_new();
	uint64_t off = mem_pages(1), flag = mem_pages(1), got;
	struct runner r;

	mem_at(off)[0] = 0x77;
	space_map(a, DATA_VA, off, 1, RW);
	space_map(b, DATA_VA, off, 1, RW);
	space_map(b, FLAG_VA, flag, 1, MEM_READ);
	runner_start(&r, b, g_watch_load, DATA_VA, FLAG_VA, first_event, NULL);
	for (unsigned i = 0; i < rounds(500); i++) {
		EXPECT(peek(a, DATA_VA, &got) == 0 && got == 0x77);
		ops->as_unmap(a, DATA_VA, PAGE);
		EXPECT(peek(a, DATA_VA, &got) == -EFAULT);
		space_map(a, DATA_VA, off, 1, RW);
	}
	mem_at(flag)[0] = 1;
	EXPECT(runner_wait(&r));
	EXPECT(r.g.ev.kind == PLATFORM_SYSCALL && r.g.regs.r.rdi == 0x77);
	ops->as_destroy(a);
	ops->as_destroy(b);
}

/* exec: everything goes, while siblings run. */
static void concurrent_clear(void)
{
	for (unsigned i = 0; i < rounds(100) && !atomic_load(&test_failed); i++) {
		struct address_space *as = space_new();
		uint64_t off = mem_pages(1);
		struct scene s;

		mem_at(off)[0] = 0x5ec;
		scene_init(&s, as);
		space_map(as, DATA_VA, off, 1, RW);
		scene_start(&s, g_watch_load, DATA_VA);
		ops->as_clear(as);
		scene_end(&s);
		/* The code has gone as well. */
		for (unsigned k = 0; k < WATCHERS; k++)
			EXPECT(s.r[k].g.ev.kind == PLATFORM_FAULT && !s.r[k].g.ev.present);
		ops->as_destroy(as);
	}
}

static bool fill_in(struct runner *r)
{
	struct guest *g = &r->g;
	uint64_t *off = r->arg;

	if (g->ev.kind == PLATFORM_INTERRUPTED)
		return true;
	if (g->ev.kind != PLATFORM_FAULT)
		return false;
	/* Not there (any more): map it again, as an mm would. */
	space_map(g->as, g->ev.addr & MOAT_PAGE_MASK, *off + (g->ev.addr & 0xffff & MOAT_PAGE_MASK),
		  1, RW);
	return !atomic_load(&test_failed);
}

/* Tables are reused between address spaces: nobody sees a page that it has not mapped itself. */
static void table_recycling(void)
{
	uint64_t secret = mem_pages(16), other = mem_pages(16), got;
	struct address_space *busy = space_new();
	uint64_t slots = 0;
	struct runner r;

	for (unsigned i = 0; i < 16; i++) {
		mem_at(secret + i * PAGE)[0] = 0x5ec2e7;
		mem_at(other + i * PAGE)[0] = 0x0123;
	}
	runner_start(&r, busy, g_watch_load, DATA_VA, DATA_VA + 8 * PAGE, fill_in, &other);
	mem_at(other + 8 * PAGE)[0] = 0;
	for (unsigned i = 0; i < rounds(1500) && !atomic_load(&test_failed); i++) {
		struct address_space *a = space_new(), *b;
		/* The same tables at other addresses, other tables at the same ones. */
		uint64_t va = DATA_VA + (rnd() % 8 << 30) + (rnd() % 512 << 21);
		uint64_t vb = DATA_VA + (rnd() % 8 << 30) + (rnd() % 512 << 21);

		space_map(a, va, secret, 16, RW);
		EXPECT(peek(a, va + (i % 16) * PAGE, &got) == 0 && got == 0x5ec2e7);
		if (i & 1)
			ops->as_clear(a);
		else
			ops->as_destroy(a);
		b = space_new();
		space_map(b, vb + PAGE, other, 1, MEM_READ);
		EXPECT(peek(b, vb + PAGE, &got) == 0 && got == 0x0123);
		for (unsigned k = 0; k < 3; k++) {
			uint64_t probe = (k & 1 ? va : vb) + (k ? rnd() % 16 : 0) * PAGE;

			if (probe == vb + PAGE)
				continue;
			EXPECT(peek(b, probe, &got) == -EFAULT);
		}
		ops->as_destroy(b);
		if (i & 1)
			ops->as_destroy(a);
		if (i == rounds(1500) / 2)
			slots = stat_value("kvm/table_slots");
	}
	runner_stop(&r);
	ops->as_destroy(busy);
	/* Half-way it had all it needs. */
	EXPECT(stat_value("kvm/table_slots") <= slots + 2);
	if (on_kvm && !slow_machine)
		EXPECT(stat_value("kvm/slot_recycles") > 0);
}

static void spaces_do_not_leak(void)
{
	struct address_space *many[200];
	uint64_t first = 0, off = mem_pages(1), spaces = stat_value("kvm/spaces");

	for (unsigned round = 0; round < 5; round++) {
		for (unsigned i = 0; i < 200; i++) {
			many[i] = space_new();
			space_map(many[i], DATA_VA + ((uint64_t)i << 30), off, 1, RW);
		}
		for (unsigned i = 0; i < 200; i++)
			ops->as_destroy(many[i]);
		if (round == 0)
			first = stat_value("kvm/table_slots");
	}
	EXPECT(stat_value("kvm/table_slots") == first);
	EXPECT(stat_value("kvm/spaces") == spaces);
	EXPECT(stat_value("kvm/table_slots_free") + stat_value("kvm/table_slots_exhausted") ==
	       first);
}

/* One process that maps and unmaps all over its address space: empty tables do not pile up. */
static void sparse_process(void)
{
	struct address_space *as = space_new();
	uint64_t off = mem_pages(1), got, keep = DATA_VA;

	mem_at(off)[0] = 9;
	space_map(as, keep, off, 1, RW);
	for (unsigned i = 1; i < rounds(20000) && !atomic_load(&test_failed); i++) {
		uint64_t va = (uint64_t)i << 31;

		space_map(as, va, off, 1, RW);
		if (i % 997 == 0)
			EXPECT(peek(as, va, &got) == 0 && got == 9);
		ops->as_unmap(as, va, PAGE);
		if (i % 997 == 0)
			EXPECT(peek(as, va, &got) == -EFAULT);
	}
	EXPECT(peek(as, keep, &got) == 0 && got == 9);
	if (on_kvm && !slow_machine)
		EXPECT(stat_value("kvm/compactions") > 0);
	ops->as_destroy(as);
}

static void large_ranges(void)
{
	struct address_space *as = space_new();
	unsigned pages = slow_machine ? 2048 : 16384;
	uint64_t off = mem_pages(pages), sum = 0, got;
	struct guest g;

	for (unsigned i = 0; i < pages; i++) {
		mem_at(off + i * PAGE)[0] = i * 3ul;
		sum += i * 3ul;
	}
	space_map(as, DATA_VA, off, pages, RW);
	guest_init(&g, as);
	guest_run(&g, g_touch, DATA_VA, DATA_VA + pages * PAGE);
	EXPECT(g.ev.kind == PLATFORM_SYSCALL && g.regs.r.rdx == sum);
	ops->as_unmap(as, DATA_VA + PAGE, (pages - 2) * PAGE);
	guest_run(&g, g_touch, DATA_VA, DATA_VA + pages * PAGE);
	EXPECT(is_fault(&g, DATA_VA + PAGE, MEM_READ, false));
	EXPECT(peek(as, DATA_VA + (pages - 1) * PAGE, &got) == 0 && got == (pages - 1) * 3ul);
	EXPECT(peek(as, DATA_VA + (pages - 2) * PAGE, &got) == -EFAULT);
	guest_fini(&g);
	ops->as_destroy(as);
}

static int temp_file(unsigned pages)
{
	char name[] = "/tmp/platform-XXXXXX";
	int fd = mkstemp(name);

	EXPECT(fd >= 0);
	unlink(name);
	for (unsigned i = 0; i < pages; i++) {
		uint64_t word = 0xf00 + i;

		EXPECT(pwrite(fd, &word, sizeof(word), i * PAGE) == sizeof(word));
	}
	EXPECT(ftruncate(fd, pages * PAGE) == 0);
	return fd;
}

static void host_files(void)
{
	struct address_space *as = space_new();
	int fd = temp_file(4);
	struct memfile *mf;
	uint64_t got;
	struct guest g;

	EXPECT(memfile_create_host(dup(fd), MEM_READ | MEM_EXEC, &mf) == 0);
	EXPECT(memfile_range_ref(mf, 0, 4 * PAGE) == 0);
	/* Asked for more than the file gives: no writable entry. */
	EXPECT(ops->as_map(as, DATA_VA, 4 * PAGE, mf, 0, RW, 0) == 0);
	for (unsigned i = 0; i < 4; i++)
		EXPECT(peek(as, DATA_VA + i * PAGE, &got) == 0 && got == 0xf00 + i);
	guest_init(&g, as);
	guest_run(&g, g_store, DATA_VA, 1);
	EXPECT(is_fault(&g, DATA_VA, MEM_WRITE, true));
	/* It shrinks under a mapping: the fault is the application's, at its address. */
	EXPECT(ftruncate(fd, PAGE) == 0);
	EXPECT(peek(as, DATA_VA + 2 * PAGE, &got) == -EFAULT);
	EXPECT(ops->as_map(as, DATA_VA + 2 * PAGE, PAGE, mf, 2 * PAGE, MEM_READ, 0) == -EFAULT);
	/* What is left of it is dropped as well, and comes back when mapped. */
	EXPECT(ops->as_map(as, DATA_VA, 4 * PAGE, mf, 0, MEM_READ, 0) == 0);
	EXPECT(peek(as, DATA_VA, &got) == 0 && got == 0xf00);
	EXPECT(peek(as, DATA_VA + PAGE, &got) == -EFAULT);
	guest_fini(&g);
	ops->as_destroy(as);
	memfile_range_unref(mf, 0, 4 * PAGE);
	memfile_unref(mf);
	close(fd);
}

static void host_file_written(void)
{
	struct address_space *as = space_new();
	int fd = temp_file(4);
	struct memfile *mf;
	uint64_t word = 0;
	struct guest g;

	EXPECT(memfile_create_host(dup(fd), RW, &mf) == 0);
	EXPECT(memfile_range_ref(mf, 0, 4 * PAGE) == 0);
	EXPECT(ops->as_map(as, DATA_VA, 4 * PAGE, mf, 0, RW, PLATFORM_MAP_SHARED) == 0);
	guest_init(&g, as);
	guest_run(&g, g_store, DATA_VA, 0x55aa);
	EXPECT(g.ev.kind == PLATFORM_SYSCALL);
	EXPECT(pread(fd, &word, sizeof(word), 0) == sizeof(word) && word == 0x55aa);
	/* On KVM only the page that was asked for became writable. */
	guest_run(&g, g_store, DATA_VA + PAGE, 0x55ab);
	EXPECT(is_fault(&g, DATA_VA + PAGE, MEM_WRITE, true) ||
	       (!on_kvm && g.ev.kind == PLATFORM_SYSCALL));
	EXPECT(ops->as_map(as, DATA_VA + PAGE, PAGE, mf, PAGE, RW, PLATFORM_MAP_SHARED) == 0);
	guest_run(&g, g_store, DATA_VA + PAGE, 0x55ab);
	EXPECT(g.ev.kind == PLATFORM_SYSCALL);
	EXPECT(pread(fd, &word, sizeof(word), PAGE) == sizeof(word) && word == 0x55ab);
	guest_fini(&g);
	ops->as_destroy(as);
	memfile_range_unref(mf, 0, 4 * PAGE);
	memfile_unref(mf);
	close(fd);
}

/* A fork while nobody runs: the parent may not write afterwards, but where the right has come back. */
static void fork_at_rest(void)
{
	for (unsigned i = 0; i < rounds(30); i++) {
		struct address_space *as = space_new(), *child;
		uint64_t off = mem_pages(4), got;
		struct guest g;

		space_map(as, DATA_VA, off, 3, RW);
		EXPECT(ops->as_map(as, DATA_VA + 3 * PAGE, PAGE, mem_private(), off + 3 * PAGE, RW,
				   PLATFORM_MAP_SHARED) == 0);
		guest_init(&g, as);
		for (unsigned k = 0; k < 4; k++)
			guest_run(&g, g_store, DATA_VA + k * PAGE, 0x10 + k);
		EXPECT(ops->as_create(plat, &child) == 0 && ops->as_fork(as, child) == 0);
		/* The middle one comes back before anybody goes on. */
		space_map(as, DATA_VA + PAGE, off + PAGE, 1, RW);
		guest_run(&g, g_store, DATA_VA + PAGE, 0x21);
		EXPECT(g.ev.kind == PLATFORM_SYSCALL && mem_at(off + PAGE)[0] == 0x21);
		for (unsigned k = 0; k < 3; k += 2) {
			guest_run(&g, g_store, DATA_VA + k * PAGE, 0x20);
			EXPECT(is_fault(&g, DATA_VA + k * PAGE, MEM_WRITE, true));
			EXPECT(mem_at(off + k * PAGE)[0] == 0x10 + k);
		}
		guest_run(&g, g_store, DATA_VA + 3 * PAGE, 0x23);
		EXPECT(g.ev.kind == PLATFORM_SYSCALL && mem_at(off + 3 * PAGE)[0] == 0x23);
		/* Taken away before the parent was told that it may only read. */
		EXPECT(ops->as_map(as, DATA_VA, PAGE, mem_private(), off, RW, 0) == 0);
		ops->as_unmap(as, DATA_VA, 2 * PAGE);
		guest_run(&g, g_load, DATA_VA, 0);
		EXPECT(is_fault(&g, DATA_VA, MEM_READ, false));
		guest_run(&g, g_load, DATA_VA + PAGE, 0);
		EXPECT(is_fault(&g, DATA_VA + PAGE, MEM_READ, false));
		EXPECT(peek(child, DATA_VA, &got) == 0 && got == 0x10);
		guest_fini(&g);
		ops->as_destroy(child);
		ops->as_destroy(as);
	}
}

static void count_retired(void *arg)
{
	atomic_fetch_add((_Atomic unsigned *)arg, 1);
}

/* Many at once, some that never ran, some whose contexts live on: each is told of once. */
static void spaces_retire(void)
{
	_Atomic unsigned done = 0;
	unsigned n = rounds(60);
	struct guest g[4];

	for (unsigned i = 0; i < n; i++) {
		struct address_space *as = space_new();

		if (i >= 4)
			guest_fini(&g[i % 4]);
		space_map(as, DATA_VA, mem_pages(1), 1, RW);
		guest_init(&g[i % 4], as);
		if (i % 3) {
			guest_run(&g[i % 4], g_store, DATA_VA, i);
			EXPECT(g[i % 4].ev.kind == PLATFORM_SYSCALL);
		}
		platform_as_retire(plat, as, count_retired, &done);
	}
	for (unsigned k = 0; k < MIN(n, 4u); k++)
		guest_fini(&g[k]);
	platform_settle(plat);
	EXPECT(atomic_load(&done) == n);
}

const struct test paging_tests[] = {
	{"large_ranges", large_ranges},
	{"concurrent_unmap", concurrent_unmap},
	{"concurrent_protect", concurrent_protect},
	{"concurrent_noexec", concurrent_noexec},
	{"concurrent_repoint", concurrent_repoint},
	{"concurrent_fork_small", concurrent_fork_small},
	{"concurrent_fork_large", concurrent_fork_large},
	{"fork_at_rest", fork_at_rest},
	{"spaces_retire", spaces_retire},
	{"concurrent_clear", concurrent_clear},
	{"shared_page", shared_page},
	{"table_recycling", table_recycling},
	{"spaces_do_not_leak", spaces_do_not_leak},
	{"sparse_process", sparse_process},
	{"host_files", host_files},
	{"host_file_written", host_file_written},
	{0},
};
