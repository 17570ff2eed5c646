// LINK: moat_mem
/* Accounts of private memory: charged to who allocates, given back when freed, the mark, the overdraft, numbers used again; and what is warm. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "base/rcu.h"
#include "mem/memfile.h"
#include "mem/pressure.h"

#define LIMIT (256ul << 20)

static uint64_t take(uint64_t size)
{
	uint64_t off = 0;

	assert_int_equal(memfile_alloc(mem_private(), size, 0, 0, &off), 0);
	return off;
}

static void give(uint64_t off, uint64_t size)
{
	memfile_range_unref(mem_private(), off, size);
}

static void test_charge(void **state)
{
	struct mem_account *a = mem_account_create(), *b = mem_account_create();
	uint64_t one, two, nobodys;

	(void)state;
	assert_non_null(a);
	assert_non_null(b);
	nobodys = take(MEM_CHUNK_SIZE);
	mem_account_enter(a);
	one = take(4 * MEM_CHUNK_SIZE);
	mem_account_enter(b);
	two = take(2 * MEM_CHUNK_SIZE);
	mem_account_enter(NULL);
	assert_int_equal(mem_account_bytes(a), 4 * MEM_CHUNK_SIZE);
	assert_int_equal(mem_account_bytes(b), 2 * MEM_CHUNK_SIZE);
	/* What was not touched is not resident; and what is, is whose it is. */
	memset(memfile_ptr(mem_private(), one), 1, 3 * MOAT_PAGE_SIZE);
	memset(memfile_ptr(mem_private(), two), 1, MOAT_PAGE_SIZE);
	memset(memfile_ptr(mem_private(), nobodys), 1, MOAT_PAGE_SIZE);
	assert_int_equal(mem_account_resident(a), 3 * MOAT_PAGE_SIZE);
	assert_int_equal(mem_account_resident(b), MOAT_PAGE_SIZE);
	/* A part; and whoever frees it. */
	mem_account_enter(b);
	give(one, MEM_CHUNK_SIZE);
	mem_account_enter(NULL);
	assert_int_equal(mem_account_bytes(a), 3 * MEM_CHUNK_SIZE);
	assert_int_equal(mem_account_resident(a), 0);
	give(one + MEM_CHUNK_SIZE, 3 * MEM_CHUNK_SIZE);
	give(two, 2 * MEM_CHUNK_SIZE);
	give(nobodys, MEM_CHUNK_SIZE);
	assert_int_equal(mem_account_bytes(a), 0);
	assert_int_equal(mem_account_bytes(b), 0);
	mem_account_destroy(a);
	mem_account_destroy(b);
	rcu_drain();
}

static void test_mark(void **state)
{
	struct mem_account *a = mem_account_create();
	uint64_t off, more;

	(void)state;
	assert_non_null(a);
	mem_account_limit(a, 2 * MEM_CHUNK_SIZE);
	mem_account_enter(a);
	off = take(2 * MEM_CHUNK_SIZE);
	assert_false(mem_account_is_over(a));
	assert_int_equal(mem_accounts_over, 0);
	more = take(MEM_CHUNK_SIZE);
	assert_true(mem_account_is_over(a));
	assert_int_equal(mem_accounts_over, 1);
	/* It stays until it is told, whatever is freed. */
	give(more, MEM_CHUNK_SIZE);
	assert_true(mem_account_is_over(a));
	mem_account_limit(a, 2 * MEM_CHUNK_SIZE);
	assert_false(mem_account_is_over(a));
	/* A lower figure counts at once. */
	mem_account_limit(a, MEM_CHUNK_SIZE);
	assert_true(mem_account_is_over(a));
	/* Above the limit: so much more than now, and what is freed takes the mark down with it, but not below the limit. */
	mem_account_look_after(a, UINT64_MAX, 2 * MEM_CHUNK_SIZE);
	assert_false(mem_account_is_over(a));
	more = take(2 * MEM_CHUNK_SIZE);
	assert_false(mem_account_is_over(a));
	give(more, 2 * MEM_CHUNK_SIZE);
	give(off, 2 * MEM_CHUNK_SIZE);
	off = take(2 * MEM_CHUNK_SIZE);
	assert_false(mem_account_is_over(a));
	more = take(MEM_CHUNK_SIZE);
	assert_true(mem_account_is_over(a));
	mem_account_enter(NULL);
	mem_account_destroy(a);
	assert_int_equal(mem_accounts_over, 0);
	give(more, MEM_CHUNK_SIZE);
	give(off, 2 * MEM_CHUNK_SIZE);
	rcu_drain();
}

/* What is taken while somebody measures is of what the measure leaves: it is not to be had a second time. */
static void test_taken_meanwhile(void **state)
{
	struct mem_account *a = mem_account_create();
	uint64_t off, more, held, rest;

	(void)state;
	assert_non_null(a);
	mem_account_limit(a, MEM_CHUNK_SIZE);
	mem_account_enter(a);
	off = take(2 * MEM_CHUNK_SIZE);
	assert_true(mem_account_is_over(a));
	held = mem_account_bytes(a);
	more = take(3 * MEM_CHUNK_SIZE);
	mem_account_look_after(a, held, 4 * MEM_CHUNK_SIZE);
	assert_false(mem_account_is_over(a));
	rest = take(2 * MEM_CHUNK_SIZE);
	assert_true(mem_account_is_over(a));
	/* More than all of it was taken: it is time to look again at once. */
	mem_account_look_after(a, held, 4 * MEM_CHUNK_SIZE);
	assert_true(mem_account_is_over(a));
	/* What was given back meanwhile is not there yet. */
	held = mem_account_bytes(a);
	give(more, 3 * MEM_CHUNK_SIZE);
	mem_account_look_after(a, held, MEM_CHUNK_SIZE);
	assert_false(mem_account_is_over(a));
	more = take(MEM_CHUNK_SIZE);
	assert_false(mem_account_is_over(a));
	give(more, MEM_CHUNK_SIZE);
	more = take(2 * MEM_CHUNK_SIZE);
	assert_true(mem_account_is_over(a));
	mem_account_enter(NULL);
	mem_account_destroy(a);
	give(more, 2 * MEM_CHUNK_SIZE);
	give(rest, 2 * MEM_CHUNK_SIZE);
	give(off, 2 * MEM_CHUNK_SIZE);
	rcu_drain();
}

/* Pages that come to exist of chunks that are held: as many as the last look left, and of soft accounts only. */
static void test_pages(void **state)
{
	const unsigned pages = MEM_CHUNK_SIZE >> MOAT_PAGE_SHIFT;
	struct mem_account *a = mem_account_create();
	uint64_t off;

	(void)state;
	assert_non_null(a);
	mem_account_page();
	mem_account_enter(a);
	off = take(2 * MEM_CHUNK_SIZE);
	mem_account_page();
	assert_false(mem_account_is_over(a));
	mem_account_set_soft(a);
	for (int round = 0; round < 2; round++) {
		mem_account_look_after(a, UINT64_MAX, MEM_CHUNK_SIZE);
		for (unsigned i = 0; i < pages; i++)
			mem_account_page();
		assert_false(mem_account_is_over(a));
		mem_account_page();
		assert_true(mem_account_is_over(a));
	}
	/* What ends with the account's coming down: the mark was raised, and is the limit again. */
	mem_account_limit(a, MEM_CHUNK_SIZE);
	mem_account_look_after(a, UINT64_MAX, MEM_CHUNK_SIZE);
	atomic_store(&mem_exact, true);
	give(off, MEM_CHUNK_SIZE);
	rcu_drain();
	assert_true(mem_exact);
	give(off + MEM_CHUNK_SIZE, MEM_CHUNK_SIZE);
	rcu_drain();
	assert_false(mem_exact);
	mem_account_enter(NULL);
	mem_account_destroy(a);
	assert_int_equal(mem_accounts_over, 0);
}

/* What ends with the account's coming down without a chunk's: a look that finds it below its limit, and a limit that is none. */
static void test_exact_ends(void **state)
{
	struct mem_account *a = mem_account_create();
	uint64_t off;

	(void)state;
	assert_non_null(a);
	mem_account_set_soft(a);
	mem_account_limit(a, 4 * MEM_CHUNK_SIZE);
	mem_account_enter(a);
	off = take(5 * MEM_CHUNK_SIZE);
	assert_true(mem_account_is_over(a));
	/* It was killed, and then somebody looks. */
	give(off, 5 * MEM_CHUNK_SIZE);
	rcu_drain();
	atomic_store(&mem_exact, true);
	mem_account_look_after(a, mem_account_bytes(a), MEM_CHUNK_SIZE);
	assert_false(mem_account_is_over(a));
	assert_false(mem_exact);
	off = take(5 * MEM_CHUNK_SIZE);
	atomic_store(&mem_exact, true);
	mem_account_look_after(a, mem_account_bytes(a), MEM_CHUNK_SIZE);
	assert_true(mem_exact);
	mem_account_limit(a, UINT64_MAX);
	assert_false(mem_exact);
	give(off, 5 * MEM_CHUNK_SIZE);
	rcu_drain();
	mem_account_enter(NULL);
	mem_account_destroy(a);
	assert_int_equal(mem_accounts_over, 0);
}

static void test_overdraft(void **state)
{
	struct mem_account *a = mem_account_create();
	uint64_t off, more = 0;

	(void)state;
	assert_non_null(a);
	mem_account_limit(a, MEM_CHUNK_SIZE);
	mem_account_enter(a);
	off = take(MEM_ACCOUNT_OVERDRAFT);
	assert_int_equal(memfile_alloc(mem_private(), 2 * MEM_CHUNK_SIZE, 0, 0, &more), -ENOMEM);
	assert_int_equal(mem_account_bytes(a), MEM_ACCOUNT_OVERDRAFT);
	/* Nobody else's. */
	mem_account_enter(NULL);
	more = take(2 * MEM_CHUNK_SIZE);
	give(more, 2 * MEM_CHUNK_SIZE);
	mem_account_limit(a, UINT64_MAX);
	mem_account_enter(a);
	more = take(2 * MEM_CHUNK_SIZE);
	give(more, 2 * MEM_CHUNK_SIZE);
	mem_account_enter(NULL);
	give(off, MEM_ACCOUNT_OVERDRAFT);
	mem_account_destroy(a);
	rcu_drain();
}

static void test_soft(void **state)
{
	struct mem_account *a = mem_account_create();
	uint64_t off;

	(void)state;
	assert_non_null(a);
	mem_account_set_soft(a);
	mem_account_limit(a, MEM_CHUNK_SIZE);
	mem_account_enter(a);
	off = take(MEM_ACCOUNT_OVERDRAFT + 4 * MEM_CHUNK_SIZE);
	mem_account_enter(NULL);
	assert_true(mem_account_is_over(a));
	give(off, MEM_ACCOUNT_OVERDRAFT + 4 * MEM_CHUNK_SIZE);
	mem_account_destroy(a);
	/* Whoever has its number next is as everybody. */
	a = mem_account_create();
	assert_non_null(a);
	mem_account_limit(a, MEM_CHUNK_SIZE);
	mem_account_enter(a);
	assert_int_equal(memfile_alloc(mem_private(), MEM_ACCOUNT_OVERDRAFT + 4 * MEM_CHUNK_SIZE, 0,
				       0, &off),
			 -ENOMEM);
	mem_account_enter(NULL);
	mem_account_destroy(a);
	rcu_drain();
}

/* What a program gives back is warm for the next one, but not while little is left. */
static void test_tight(void **state)
{
	const uint64_t size = 8 * MEM_CHUNK_SIZE;
	uint64_t none, off;
	char *p;

	(void)state;
	rcu_drain();
	mem_set_tight(true);
	none = mem_private_resident();
	mem_set_tight(false);
	off = take(size);
	p = memfile_ptr(mem_private(), off);
	memset(p, 1, size);
	assert_int_equal(mem_private_resident(), none + size);
	/* The mapping goes, not what it shows. */
	mem_private_unmap();
	for (uint64_t at = 0; at < size; at += MOAT_PAGE_SIZE)
		assert_int_equal(p[at], 1);
	give(off, size);
	rcu_drain();
	assert_int_equal(mem_private_resident(), none + size);
	mem_set_tight(true);
	assert_int_equal(mem_private_resident(), none);
	off = take(size);
	p = memfile_ptr(mem_private(), off);
	assert_int_equal(p[0], 0);
	memset(p, 1, size);
	give(off, size);
	rcu_drain();
	assert_int_equal(mem_private_resident(), none);
	mem_set_tight(false);
}

static void test_numbers(void **state)
{
	struct mem_account *all[MEM_ACCOUNTS_MAX], *again;
	unsigned count = 0;
	uint64_t off;

	(void)state;
	while ((all[count] = mem_account_create()))
		count++;
	assert_int_equal(count, MEM_ACCOUNTS_MAX - 1);
	/* Not while something is charged to it. */
	mem_account_enter(all[7]);
	off = take(MEM_CHUNK_SIZE);
	mem_account_enter(NULL);
	mem_account_destroy(all[7]);
	assert_null(mem_account_create());
	give(off, MEM_CHUNK_SIZE);
	again = mem_account_create();
	assert_ptr_equal(again, all[7]);
	for (unsigned i = 0; i < count; i++)
		mem_account_destroy(all[i]);
	mem_account_destroy(NULL);
	rcu_drain();
}

/* A thread that takes and gives in its own account while another moves the mark and measures. */
static void *churn(void *arg)
{
	rcu_thread_begin();
	mem_account_enter(arg);
	for (int i = 0; i < 2000; i++) {
		uint64_t one = take(3 * MEM_CHUNK_SIZE), two = take(MEM_CHUNK_SIZE);

		give(one, 3 * MEM_CHUNK_SIZE);
		give(two, MEM_CHUNK_SIZE);
	}
	mem_account_enter(NULL);
	rcu_thread_end();
	return NULL;
}

static void test_threads(void **state)
{
	struct mem_account *all[2] = {mem_account_create(), mem_account_create()};
	pthread_t threads[2];

	(void)state;
	for (int i = 0; i < 2; i++) {
		assert_non_null(all[i]);
		mem_account_limit(all[i], MEM_CHUNK_SIZE);
		assert_int_equal(pthread_create(&threads[i], NULL, churn, all[i]), 0);
	}
	for (int i = 0; i < 200; i++) {
		(void)mem_account_resident(all[i & 1]);
		mem_account_look_after(all[i & 1], mem_account_bytes(all[i & 1]),
				       (uint64_t)(i % 8) * MEM_CHUNK_SIZE);
	}
	for (int i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(mem_account_bytes(all[i]), 0);
		mem_account_destroy(all[i]);
	}
	assert_int_equal(mem_accounts_over, 0);
	rcu_drain();
}

/* How much at a time: by the limit, whosesoever it is, and a chunk where little is left. */
static void test_piece(void **state)
{
	const struct {
		uint64_t total, piece;
	} wanted[] = {
		{0, MEM_PIECE_MAX},	      {MEM_CHUNK_SIZE, MEM_CHUNK_SIZE},
		{16ull << 20, 128ull << 10},  {64ull << 20, 512ull << 10},
		{100ull << 20, 512ull << 10}, {512ull << 20, MEM_PIECE_MAX},
		{1ull << 40, MEM_PIECE_MAX},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++) {
		mem_set_limit(LIMIT, wanted[i].total);
		assert_int_equal(mem_piece, wanted[i].piece);
		mem_set_tight(true);
		assert_int_equal(mem_piece, MEM_CHUNK_SIZE);
		/* It may change meanwhile. */
		mem_set_limit(LIMIT, 1ull << 40);
		assert_int_equal(mem_piece, MEM_CHUNK_SIZE);
		mem_set_limit(LIMIT, wanted[i].total);
		mem_set_tight(false);
		assert_int_equal(mem_piece, wanted[i].piece);
	}
	mem_set_limit(LIMIT, LIMIT);
}

static int setup(void **state)
{
	(void)state;
	rcu_thread_begin();
	return mem_init(LIMIT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_charge),
		cmocka_unit_test(test_mark),
		cmocka_unit_test(test_taken_meanwhile),
		cmocka_unit_test(test_pages),
		cmocka_unit_test(test_exact_ends),
		cmocka_unit_test(test_overdraft),
		cmocka_unit_test(test_soft),
		cmocka_unit_test(test_tight),
		cmocka_unit_test(test_piece),
		cmocka_unit_test(test_numbers),
		cmocka_unit_test(test_threads),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
