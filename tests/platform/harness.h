/*
 * tests/platform/harness.h - what the platform's tests share.
 *
 * A test is a function that calls EXPECT(); the first failure in it is printed and makes it `not ok`. Guest code
 * is in blobs.S: position-independent, mapped at CODE_VA; entry points by symbol.
 */
#ifndef MOAT_TESTS_PLATFORM_HARNESS_H
#define MOAT_TESTS_PLATFORM_HARNESS_H

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "platform/platform.h"

#define CODE_VA 0x400000ul
#define STACK_VA 0x7fffffff0000ul /* one page */
#define DATA_VA 0x20000000ul
#define FLAG_VA 0x10000000ul
#define PAGE MOAT_PAGE_SIZE

struct test {
	const char *name;
	void (*fn)(void);
};

extern struct platform *plat; /* the one under test */
extern const struct platform_ops *ops;
extern bool on_kvm; /* some rows are about what only KVM has */
extern _Atomic bool test_failed;

void expect_failed(const char *file, int line, const char *what);
#define EXPECT(cond)                                              \
	do {                                                      \
		if (!(cond))                                      \
			expect_failed(__FILE__, __LINE__, #cond); \
	} while (0)

/* A random 64-bit number; the seed is printed at start (MOAT_TEST_SEED). */
uint64_t rnd(void);
/* True when the tests run on a slow (emulated) machine: fewer rounds. */
extern bool slow_machine;
unsigned rounds(unsigned n);

/* Private memory: one reference is held until the process ends. Filled with zeros. */
uint64_t mem_pages(unsigned pages);
uint64_t *mem_at(uint64_t off);
/* An address space with the code page and a stack page. */
struct address_space *space_new(void);
void space_map(struct address_space *as, uint64_t va, uint64_t off, unsigned pages,
	       unsigned access);
uint64_t stat_value(const char *name);

/* Guest routines (blobs.S). */
extern const char blobs_start[], blobs_end[];
extern const char g_syscall[], g_load[], g_store[], g_exec[], g_spin[], g_count_syscall[],
	g_count_int3[], g_count_ud2[], g_count_fault[], g_watch_load[], g_watch_store[],
	g_watch_exec[], g_fpu_fill[], g_fpu_dump[], g_avx_fill[], g_avx_dump[], g_cpuid[],
	g_xgetbv[], g_xsave[], g_segs[], g_set_segs[], g_bases[], g_store_load[], g_touch[],
	g_mxcsr[], g_fxch_spin[], g_div0[], g_int3[], g_into_int4[], g_step[], g_align[], g_rdtsc[],
	g_rflags[], g_set_bases[], g_fill[], g_find[], g_forge[], g_foul[], g_state[];
uint64_t blob_va(const char *symbol);
#define RET_VA (CODE_VA + 0x3000) /* `ret` alone on a page of the code */

struct guest {
	struct platform_context *ctx;
	struct address_space *as;
	struct arch_regs regs;
	struct platform_event ev;
};

void guest_init(struct guest *g, struct address_space *as);
void guest_fini(struct guest *g);
/* Starts at a blob with rbx, rax as given and a stack, runs to the next event that is no spurious interruption. */
void guest_run(struct guest *g, const char *blob, uint64_t rbx, uint64_t rax);
/* Goes on with the registers as they are. */
void guest_resume(struct guest *g);
bool is_fault(const struct guest *g, uint64_t addr, unsigned access, bool present);
bool is_exception(const struct guest *g, unsigned vector);
/* Loads one word in `as`: 0 and *ret_val, or -EFAULT. */
int peek(struct address_space *as, uint64_t va, uint64_t *ret_val);

/* A thread that runs `g` until `stop` and answers every event by `on_event` (false: stop). */
struct runner {
	pthread_t thread;
	struct guest g;
	const char *blob;
	uint64_t rbx, rax;
	bool (*on_event)(struct runner *r);
	void *arg;
	_Atomic bool stop;
	_Atomic bool started;
	_Atomic uint64_t events, interrupts;
	_Atomic bool done;
};
void runner_start(struct runner *r, struct address_space *as, const char *blob, uint64_t rbx,
		  uint64_t rax, bool (*on_event)(struct runner *r), void *arg);
/* Interrupts until it ends, joins. */
void runner_stop(struct runner *r);
/* Waits for it to end by itself; false after some seconds (then it is stopped). */
bool runner_wait(struct runner *r);
void sleep_us(unsigned us);
uint64_t now_ns(void);

extern const struct test stub_tests[], recycle_tests[];
extern const struct test event_tests[], paging_tests[], interrupt_tests[], fpu_tests[],
	hostile_tests[], share_tests[], patch_tests[], detour_tests[], companion_tests[];

#endif
