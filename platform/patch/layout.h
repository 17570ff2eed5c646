/*
 * platform/patch/layout.h - addresses and offsets that the trampolines (trampoline.S) and C share. Included by both.
 */
#ifndef MOAT_PLATFORM_PATCH_LAYOUT_H
#define MOAT_PLATFORM_PATCH_LAYOUT_H

/*
 * The range in an address space that has patches. Its start is forced: `ff 24 25 XX XX 0f 05` jumps through the
 * slot at 0x050fXXXX.
 */
#define PATCH_VA 0x050f0000
#define PATCH_TABLE_VA PATCH_VA
#define PATCH_ENTRY_VA 0x05100000
#define PATCH_CODE_VA 0x05140000
#define PATCH_MAILBOX_VA 0x05150000
#define PATCH_END_VA 0x05250000

/*
 * lstar.S, where a platform has it: at ARCH_TASK_SIZE, because no mapping of an application's can ever take its place. What is
 * there may be executed with ring 0's rights.
 */
#define PATCH_LSTAR_VA 0x7ffffffff000
#define PATCH_LSTAR_MAX 0x400

#define PATCH_SITES_MAX 1024 /* slots in use; the table's range has room for 8192 */
#define PATCH_ENTRY_SIZE 32
#define PATCH_MAILBOXES_MAX 256
#define PATCH_PAGES_MAX 128 /* patched pages of an address space */
#define PATCH_DETOURS_MAX 16 /* sites of an address space that a jump in padding serves */

/* What the trampoline finds at %gs:MB_MAGIC if %gs leads to a mailbox. Fits a sign-extended displacement. */
#define PATCH_MAGIC 0x6d6f6174

/* Offsets in struct patch_mailbox; mailbox.c asserts them. */
#define MB_MAGIC 0x000
#define MB_ASLEEP 0x008
#define MB_SPINS 0x00c
#define MB_STACK 0x010
#define MB_STATE 0x040
#define MB_RAX 0x048 /* in the line of the state: an answer is one line's way between two cores */
#define MB_RDI 0x088
#define MB_RSI 0x090
#define MB_RDX 0x098
#define MB_R10 0x0a0
#define MB_R8 0x0a8
#define MB_R9 0x0b0
#define MB_RBX 0x0b8
#define MB_RBP 0x0c0
#define MB_RSP 0x0c8
#define MB_R12 0x0d0
#define MB_R13 0x0d8
#define MB_R14 0x0e0
#define MB_R15 0x0e8
#define MB_RIP 0x0f0
#define MB_FLAGS 0x0f8
#define MB_STACK_TOP 0x100
#define MB_RCX 0x100
#define MB_R11 0x108
#define MB_OP 0x110
#define MB_XSAVE 0x400 /* to the page's end: an XSAVE area */
#define MB_XSAVE_SIZE 0xc00

/* lstar.S: what it exits by, and how it knows that it has ring 3's rights. */
#define PATCH_LSTAR_PORT 0x10
#define PATCH_USER_CS 0x33

/* Values of `state`. */
#define MB_DONE 0 /* nothing is posted, or the posted call's result is in rax */
#define MB_POSTED 1 /* by the application */
#define MB_TAKEN 2 /* by the sentry: it is being served */
#define MB_LEAVE 3 /* by the sentry: the trampoline must trap */
#define MB_ORDER 4 /* by the sentry, of a taken call: what `op` says */

/* Values of `op`. */
#define MB_OP_NONE 0 /* there has been no order yet */
#define MB_OP_SWITCH 1 /* all registers from the mailbox, and on from there */
#define MB_OP_SAVE 2 /* XSAVE into the mailbox, then MB_TAKEN again */

#endif
