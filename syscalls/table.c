#include "syscalls/table.h"

#include <string.h>

#include "syscalls/syscalls.h"

#define A0              \
	0,              \
	{               \
		SC_NONE \
	}
#define A1(a)          \
	1,             \
	{              \
		SC_##a \
	}
#define A2(a, b)               \
	2,                     \
	{                      \
		SC_##a, SC_##b \
	}
#define A3(a, b, c)                    \
	3,                             \
	{                              \
		SC_##a, SC_##b, SC_##c \
	}
#define A4(a, b, c, d)                         \
	4,                                     \
	{                                      \
		SC_##a, SC_##b, SC_##c, SC_##d \
	}
#define A5(a, b, c, d, e)                              \
	5,                                             \
	{                                              \
		SC_##a, SC_##b, SC_##c, SC_##d, SC_##e \
	}
#define A6(a, b, c, d, e, f)                                   \
	6,                                                     \
	{                                                      \
		SC_##a, SC_##b, SC_##c, SC_##d, SC_##e, SC_##f \
	}

#define FN_FULL(name) sys_##name
#define FN_PARTIAL(name) sys_##name
#define FN_ABSENT(name) NULL

/* The argument list expands to two initialisers, hence the indirection. */
#define ROW(nr, call, lvl, error, note_, ...) \
	[nr] = {#call, FN_##lvl(call), error, SYSCALL_##lvl, __VA_ARGS__, note_},
#define SYSCALL(nr, call, lvl, error, args, note_) ROW(nr, call, lvl, error, note_, args)

const struct syscall_row syscall_table[SYSCALL_NR_MAX] = {
#include "syscalls/table.def"
};

int syscall_find(const char *name, size_t len)
{
	for (int nr = 0; nr < SYSCALL_NR_MAX; nr++)
		if (syscall_table[nr].name && strlen(syscall_table[nr].name) == len &&
		    !memcmp(syscall_table[nr].name, name, len))
			return nr;
	return -1;
}
