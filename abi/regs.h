/* abi/regs.h - a task's general registers: Linux's user_regs_struct, the ptrace layout. */
#ifndef MOAT_ABI_REGS_H
#define MOAT_ABI_REGS_H

#include <sys/user.h>

/*
 * Field names are those of <sys/user.h>: r15 ... orig_rax rip cs eflags rsp ss fs_base gs_base ds es fs gs.
 * orig_rax is the call's number while one is being served, -1 otherwise.
 */
struct arch_regs {
	struct user_regs_struct r;
};

#define ARCH_USER_CS 0x33
#define ARCH_USER_SS 0x2b
/* Flags that user code may set: CF PF AF ZF SF TF DF OF RF AC ID (TF single-steps). */
#define ARCH_EFLAGS_USER 0x250dd5ul
#define ARCH_EFLAGS_TF 0x100ul
#define ARCH_EFLAGS_FIXED 0x202ul /* bit 1 and IF, always set */
/* User addresses end here, as on Linux without LA57. */
#define ARCH_TASK_SIZE 0x7ffffffff000ul

#endif
