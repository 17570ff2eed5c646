/*
 * platform/systrap/layout.h - addresses, offsets and values that stub.S, pristine.c and the sentry share.
 * Included by C and assembly.
 */
#ifndef MOAT_PLATFORM_SYSTRAP_LAYOUT_H
#define MOAT_PLATFORM_SYSTRAP_LAYOUT_H

/* The range of a stub that is not the application's. Inside what ThreadSanitizer leaves to programs (its "high app"). */
#define STUB_BASE 0x7e9000000000
#define STUB_SIZE 0x80000000
#define STUB_END (STUB_BASE + STUB_SIZE)

/* Code, then constants (struct stub_data); read-only for ever. */
#define STUB_CODE STUB_BASE
#define STUB_CODE_SIZE 0x8000
#define STUB_DATA (STUB_CODE + STUB_CODE_SIZE)
#define STUB_BLOB_SIZE 0x9000
#define STUB_DATA_SIGMASK 0x00 /* u64 */
#define STUB_DATA_APP_FILTER 0x10 /* struct sock_fprog */
/* The pristine process's stack; stubs unmap it. */
#define STUB_STACK (STUB_BASE + 0x20000)
#define STUB_STACK_SIZE 0x8000
/* Orders: the sentry writes, the stub reads. Then a page of hints that the order thread writes. */
#define STUB_ORDERS (STUB_BASE + 0x40000)
#define STUB_ORDERS_SIZE 0x3000
#define STUB_HINTS (STUB_ORDERS + STUB_ORDERS_SIZE)
#define STUB_HINTS_SIZE 0x1000
#define STUB_SLOT_SIZE 0x4000
/* Areas: one a thread. */
#define STUB_AREAS (STUB_BASE + 0x1000000)
#define STUB_AREA_SIZE 0x20000
#define STUB_AREAS_MAX 8192

/* Descriptors: the pristine process's control socket; what order threads have. Received ones become 0. */
#define STUB_FD_CONTROL 3
#define STUB_FD_PRIVATE 4
#define STUB_FD_SHARED 5
#define STUB_FD_SOCKET 6

/* ---- orders: the head, then from the second page on a ring of 64-byte entries ---- */
#define ORDERS_HEAD 0x00 /* u32: how many were ever posted; the order thread's futex */
/* Before the ring: where a new thread, by its area's number, finds its stack_t, which outlives the order that makes it. */
#define ORDERS_STACKS 0x40
#define ORDERS_STACKS_COUNT 128
#define ORDERS_RING 0x1000
#define ORDERS_COUNT 128
#define ORDER_SIZE 64
#define ORDER_NR 0x00 /* u32 */
#define ORDER_FLAGS 0x04 /* u32 */
#define ORDER_ARGS 0x08 /* six u64 */
#define ORDER_EXTRA 0x38 /* u64 */
#define ORDER_MUST 1 /* an error ends the process */
#define ORDER_STORE 2 /* no call: (u32)args[1] goes to args[0] */
#define ORDER_CLONE 4 /* the call is clone() of an application thread */

#define HINT_DONE 0x00 /* u32: orders done */
#define HINT_RESULT 0x08 /* i64: of the last failed order */
#define HINT_MSG 0x100 /* struct msghdr, iovec, control: recvmsg() */

/* ---- an area ---- */
#define AREA_FPU 0x0000 /* an XSAVE image written by the sentry */
#define AREA_FPU_SIZE 0x5000
#define AREA_ALTSTACK 0x5000 /* to the area's end */
/*
 * In the middle of the alternate stack: signals that arrive while rsp is here push their frames below, and spare the
 * application's frame at the top.
 */
#define AREA_MAILBOX 0x10000

/*
 * r15 r14 r13 r12 r11 r10 r9 r8 rdi rsi rbp rbx rdx rcx rax, then iretq's five. First: while they are popped, a signal's
 * frame goes 128 bytes below rsp and further down, and so hits nothing of the mailbox.
 */
#define AREA_REGS 0x000
#define AREA_STATE 0x100 /* u32, futex */
#define AREA_SENTRY_ASLEEP 0x104 /* u32 */
#define AREA_APP_ASLEEP 0x108 /* u32 */
#define AREA_INTERRUPT 0x10c /* u32 */
#define AREA_TID 0x110 /* u32, by the kernel at clone() */
/* The application's answer. */
#define AREA_SIGNO 0x140 /* u32 */
#define AREA_SEGS 0x148 /* u16 ds, es, fs, gs */
#define AREA_FS_BASE 0x150
#define AREA_GS_BASE 0x158
#define AREA_UCONTEXT 0x160
#define AREA_CPU 0x168 /* u32: where it ran */
#define AREA_RESET 0x170 /* u64: the complement of what came with the reset signal; written last */
/* The sentry's. */
#define AREA_FLAGS 0x180 /* u32 */
#define AREA_SPINS 0x184 /* u32 */
#define AREA_YIELD \
	0x1b0 /* u32: who would spin sleeps, so that the order thread can run on that core */
#define AREA_SET_SEGS 0x188
#define AREA_SET_FS_BASE 0x190
#define AREA_SET_GS_BASE 0x198
#define AREA_SET_FPU 0x1a0 /* address of the XSAVE image */
#define AREA_SET_FPU_MASK 0x1a8

#define STUB_STATE_APP 0
#define STUB_STATE_EVENT 1
#define STUB_STATE_STARTING 2 /* the order thread will set STATE_APP */

#define STUB_SET_SEGS 1 /* segment selectors */
#define STUB_SET_BASES 2

/* AREA_SIGNO: interrupted before anything ran. */
#define STUB_NOT_RUN 0

/* The descriptor that the kernel keeps the CPU's number in, for everyone to read (its vDSO's getcpu). */
#define STUB_CPU_SELECTOR 0x7b
#define STUB_CPU_MASK 0xfff

#define STUB_KICK_SIGNAL 23 /* SIGURG: ignored by whoever has no handler for it */
#define STUB_RESET_SIGNAL 16 /* SIGSTKFLT: nobody else sends it */

#endif
