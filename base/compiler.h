/* base/compiler.h - attributes and helpers every file may use. */
#ifndef MOAT_BASE_COMPILER_H
#define MOAT_BASE_COMPILER_H

#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define must_check __attribute__((warn_unused_result))
#define printf_like(fmt, args) __attribute__((format(printf, fmt, args)))
#define noreturn_fn __attribute__((noreturn))
#define noinline_fn __attribute__((noinline))
#define unused_arg __attribute__((unused))
#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

/* container_of - the object of `type` whose field `member` is at `ptr`. */
#define container_of(ptr, type, member) \
	((type *)((char *)(1 ? (ptr) : &((type *)0)->member) - offsetof(type, member)))

/* Each use has names of its own, so that they nest without shadowing. */
#define MOAT_PASTE_(a, b) a##b
#define MOAT_PASTE(a, b) MOAT_PASTE_(a, b)
#define MOAT_PICK_(a, op, b, x, y) \
	({                         \
		typeof(a) x = (a); \
		typeof(b) y = (b); \
		x op y ? x : y;    \
	})
#define MOAT_PICK(a, op, b, n) MOAT_PICK_(a, op, b, MOAT_PASTE(pick_a_, n), MOAT_PASTE(pick_b_, n))
#define MIN(a, b) MOAT_PICK(a, <, b, __COUNTER__)
#define MAX(a, b) MOAT_PICK(a, >, b, __COUNTER__)

#define MOAT_PAGE_SHIFT 12
#define MOAT_PAGE_SIZE 4096ul
#define MOAT_PAGE_MASK (~(MOAT_PAGE_SIZE - 1))

static inline uint64_t round_down_u64(uint64_t v, uint64_t align)
{
	return v & ~(align - 1);
}

static inline uint64_t round_up_u64(uint64_t v, uint64_t align)
{
	return (v + align - 1) & ~(align - 1);
}

#endif
