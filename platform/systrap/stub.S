/*
 * platform/systrap/stub.S - what runs in a stub besides the application. Linked into the sentry, copied to STUB_CODE;
 * position-independent, but for the addresses of what is mapped.
 *
 * Two kinds of threads run it.
 *
 * The order thread: stub_orders. It has no stack, calls nothing and keeps everything in registers, because every
 * writable byte of the process is the application's to overwrite. What it does comes from the order pages, which the
 * stub can only read.
 *
 * Application threads: stub_handler is the handler of every signal. Signals are not masked in it (no rt_sigreturn is
 * needed, and the filter allows none), so the sentry's kick may interrupt it anywhere:
 *   [stub_handler, stub_wait)       straight-line; it is resumed where it was (stub_resume)
 *                                   but by the reset, after which nothing of the application runs (recycle.c)
 *   [stub_wait, stub_wait_end)      waits for, and loads, the application's registers; everything it needs lies
 *                                   in the mailbox, so it is begun anew
 * Nothing here is trusted by the sentry: the application can jump to any byte and write to every area.
 */
#include <asm/unistd_64.h>

#include "platform/systrap/layout.h"

#define UC_GREGS 40
#define UC_R8 (UC_GREGS + 0)
#define UC_R9 (UC_GREGS + 8)
#define UC_R10 (UC_GREGS + 16)
#define UC_R11 (UC_GREGS + 24)
#define UC_R12 (UC_GREGS + 32)
#define UC_R13 (UC_GREGS + 40)
#define UC_R14 (UC_GREGS + 48)
#define UC_R15 (UC_GREGS + 56)
#define UC_RDI (UC_GREGS + 64)
#define UC_RSI (UC_GREGS + 72)
#define UC_RBP (UC_GREGS + 80)
#define UC_RBX (UC_GREGS + 88)
#define UC_RDX (UC_GREGS + 96)
#define UC_RAX (UC_GREGS + 104)
#define UC_RCX (UC_GREGS + 112)
#define UC_RSP (UC_GREGS + 120)
#define UC_RIP (UC_GREGS + 128)
#define UC_RFLAGS (UC_GREGS + 136)

/* The frame: the siginfo lies behind the ucontext. */
#define UC_SIGINFO 304
#define SIGINFO_VALUE 24

#define FUTEX_WAIT 0
#define FUTEX_WAKE 1
#define RFLAGS_NT_AC 0x44000
#define USER_CS 0x33
#define USER_SS 0x2b

	.section .note.GNU-stack, "", @progbits
	.section systrap_stub, "ax", @progbits

/* rdi: signal, rdx: struct ucontext; rsp: the frame, on the area's alternate stack. */
	.globl stub_handler
stub_handler:
	mov %rsp, %rbx
	and $-STUB_AREA_SIZE, %rbx
	add $AREA_MAILBOX, %rbx
	/* An alignment check would hit our own accesses, a nested task flag our iretq. */
	testl $RFLAGS_NT_AC, UC_RFLAGS(%rdx)
	jnz .Lclear_flags
.Lflags_clear:
	cmp $STUB_KICK_SIGNAL, %edi
	je .Lkick
.Lpublish:
	mov %ds, %eax
	mov %ax, AREA_SEGS+0(%rbx)
	mov %es, %eax
	mov %ax, AREA_SEGS+2(%rbx)
	mov %fs, %eax
	mov %ax, AREA_SEGS+4(%rbx)
	mov %gs, %eax
	mov %ax, AREA_SEGS+6(%rbx)
	rdfsbase %rax
	mov %rax, AREA_FS_BASE(%rbx)
	rdgsbase %rax
	mov %rax, AREA_GS_BASE(%rbx)
	mov %edi, AREA_SIGNO(%rbx)
	mov %rdx, AREA_UCONTEXT(%rbx)
	cmp $STUB_RESET_SIGNAL, %edi
	je .Lreset
.Lpost:
	mov $STUB_CPU_SELECTOR, %eax
	lsl %eax, %eax
	and $STUB_CPU_MASK, %eax
	mov %eax, AREA_CPU(%rbx)
	mov $STUB_STATE_EVENT, %eax
	xchg %eax, AREA_STATE(%rbx)
.Lposted:
	cmpl $0, AREA_SENTRY_ASLEEP(%rbx)
	je stub_wait
	lea AREA_STATE(%rbx), %rdi
	mov $FUTEX_WAKE, %esi
	mov $1, %edx
	mov $__NR_futex, %eax
	syscall
	.globl stub_ip_wake
stub_ip_wake:
	jmp stub_wait

/* Last of all what only the kernel can have told, and not as it did: nothing of the mailbox is written after it. */
.Lreset:
	mov $STUB_STATE_EVENT, %eax
	xchg %eax, AREA_STATE(%rbx)
	mov UC_SIGINFO+SIGINFO_VALUE(%rdx), %rax
	not %rax
	mov %rax, AREA_RESET(%rbx)
	jmp .Lposted

.Lclear_flags:
	push $0x202
	popfq
	jmp .Lflags_clear

/* Where did the kick hit? */
.Lkick:
	lea stub_handler(%rip), %rcx
	mov UC_RIP(%rdx), %rax
	sub %rcx, %rax
	cmp $(stub_wait_end - stub_handler), %rax
	jae .Lpublish
	cmp $(stub_wait - stub_handler), %rax
	jae stub_wait
	/* Fall through to where it was; stub code has no FPU state. */
stub_resume:
	push $USER_SS
	push UC_RSP(%rdx)
	push UC_RFLAGS(%rdx)
	push $USER_CS
	push UC_RIP(%rdx)
	mov UC_R8(%rdx), %r8
	mov UC_R9(%rdx), %r9
	mov UC_R10(%rdx), %r10
	mov UC_R11(%rdx), %r11
	mov UC_R12(%rdx), %r12
	mov UC_R13(%rdx), %r13
	mov UC_R14(%rdx), %r14
	mov UC_R15(%rdx), %r15
	mov UC_RDI(%rdx), %rdi
	mov UC_RSI(%rdx), %rsi
	mov UC_RBP(%rdx), %rbp
	mov UC_RBX(%rdx), %rbx
	mov UC_RAX(%rdx), %rax
	mov UC_RCX(%rdx), %rcx
	mov UC_RDX(%rdx), %rdx
	iretq

/* The sentry wanted it back before it ran. */
.Lnot_run:
	movl $STUB_NOT_RUN, AREA_SIGNO(%rbx)
	jmp .Lpost

/* rsp: anywhere in the area. */
	.globl stub_wait
	.balign 16
stub_wait:
	mov %rsp, %rbx
	sub $1, %rbx
	and $-STUB_AREA_SIZE, %rbx
	add $AREA_MAILBOX, %rbx
	mov %rbx, %rsp
	mov AREA_SPINS(%rbx), %ecx
.Lspin:
	cmpl $STUB_STATE_APP, AREA_STATE(%rbx)
	je .Lgo
	cmpl $0, AREA_YIELD(%rbx)
	jne .Lsleep
	pause
	sub $1, %ecx
	ja .Lspin
.Lsleep:
	mov $1, %eax
	xchg %eax, AREA_APP_ASLEEP(%rbx)
	mov AREA_STATE(%rbx), %edx
	cmp $STUB_STATE_APP, %edx
	je .Lawake
	lea AREA_STATE(%rbx), %rdi
	mov $FUTEX_WAIT, %esi
	xor %r10d, %r10d
	mov $__NR_futex, %eax
	syscall
	.globl stub_ip_wait
stub_ip_wait:
	cmpl $STUB_STATE_APP, AREA_STATE(%rbx)
	jne .Lsleep
.Lawake:
	movl $0, AREA_APP_ASLEEP(%rbx)
.Lgo:
	/* Set before the kick is sent: it is seen here, or in stub_wait begun anew by the kick. */
	cmpl $0, AREA_INTERRUPT(%rbx)
	jne .Lnot_run
	testl $(STUB_SET_SEGS | STUB_SET_BASES), AREA_FLAGS(%rbx)
	jnz .Lset_segs
.Lsegs_set:
	mov AREA_SET_FPU(%rbx), %rcx
	mov AREA_SET_FPU_MASK(%rbx), %eax
	mov AREA_SET_FPU_MASK+4(%rbx), %edx
	xrstor64 (%rcx)
	lea AREA_REGS(%rbx), %rsp
	pop %r15
	pop %r14
	pop %r13
	pop %r12
	pop %r11
	pop %r10
	pop %r9
	pop %r8
	pop %rdi
	pop %rsi
	pop %rbp
	pop %rbx
	pop %rdx
	pop %rcx
	pop %rax
	iretq

.Lset_segs:
	testl $STUB_SET_SEGS, AREA_FLAGS(%rbx)
	jz .Lset_bases
	movzwl AREA_SET_SEGS+0(%rbx), %eax
	mov %eax, %ds
	movzwl AREA_SET_SEGS+2(%rbx), %eax
	mov %eax, %es
	movzwl AREA_SET_SEGS+4(%rbx), %eax
	mov %eax, %fs
	movzwl AREA_SET_SEGS+6(%rbx), %eax
	mov %eax, %gs
.Lset_bases:
	mov AREA_SET_FS_BASE(%rbx), %rax
	wrfsbase %rax
	mov AREA_SET_GS_BASE(%rbx), %rax
	wrgsbase %rax
	jmp .Lsegs_set

	.globl stub_wait_end
stub_wait_end:

/*
 * The order thread. rbp: its slot's orders; r14: hints; r13d: orders done; r12: the present order. Pristine processes
 * jump here with a stack that is unmapped first.
 */
	.globl stub_orders
	.balign 16
stub_orders:
	movabs $STUB_STACK, %rdi
	mov $STUB_STACK_SIZE, %esi
	mov $__NR_munmap, %eax
	syscall
	movabs $STUB_ORDERS, %rbp
	movabs $STUB_HINTS, %r14
	xor %r13d, %r13d
	xor %esp, %esp
.Lorder_next:
	mov ORDERS_HEAD(%rbp), %edx
	cmp %r13d, %edx
	jne .Lorder
	lea ORDERS_HEAD(%rbp), %rdi
	mov $FUTEX_WAIT, %esi
	xor %r10d, %r10d
	mov $__NR_futex, %eax
	syscall
	jmp .Lorder_next
.Lorder:
	mov %r13d, %edx
	and $(ORDERS_COUNT - 1), %edx
	shl $6, %edx
	lea ORDERS_RING(%rbp,%rdx), %r12
	mov ORDER_ARGS+0(%r12), %rdi
	mov ORDER_ARGS+8(%r12), %rsi
	testl $(ORDER_STORE | ORDER_CLONE), ORDER_FLAGS(%r12)
	jnz .Lorder_special
	mov ORDER_ARGS+16(%r12), %rdx
	mov ORDER_ARGS+24(%r12), %r10
	mov ORDER_ARGS+32(%r12), %r8
	mov ORDER_ARGS+40(%r12), %r9
	mov ORDER_NR(%r12), %eax
	syscall
	.globl stub_ip_order
stub_ip_order:
.Lorder_result:
	cmp $-4095, %rax
	jb .Lorder_done
	mov %rax, HINT_RESULT(%r14)
	testl $ORDER_MUST, ORDER_FLAGS(%r12)
	jnz .Lorder_die
.Lorder_done:
	inc %r13d
	mov %r13d, HINT_DONE(%r14)
	jmp .Lorder_next
.Lorder_die:
	mov $1, %edi
	mov $__NR_exit_group, %eax
	syscall
	ud2
.Lorder_special:
	testl $ORDER_STORE, ORDER_FLAGS(%r12)
	jz .Lorder_clone
	xchg %esi, (%rdi)
	jmp .Lorder_done
.Lorder_clone:
	/* args: flags, stack, parent_tid, and for the new thread, in r15, which may come to run when this order is no more: its stack_t. */
	mov ORDER_ARGS+16(%r12), %rdx
	mov ORDER_ARGS+24(%r12), %r15
	xor %r10d, %r10d
	xor %r8d, %r8d
	mov $__NR_clone, %eax
	syscall
	test %rax, %rax
	jnz .Lorder_result

/*
 * A new application thread, rsp at its area's end. Until its filter is on it may map: no writable memory is
 * looked at, what the calls read lies in the orders' pages and the constants, and signals stay blocked. (A kick that another
 * thread has drawn here by writing this one's number to its own mailbox would run the handler, and then the
 * application, without the filter.) Then it lets signals in, which the filter allows here, and reports for duty.
 */
stub_thread:
	/* It has a descriptor table of its own: an empty one. */
	xor %edi, %edi
	mov $-1, %esi
	xor %edx, %edx
	mov $__NR_close_range, %eax
	syscall
	cmp $-4095, %rax
	jae .Lthread_die
	mov %r15, %rdi
	xor %esi, %esi
	mov $__NR_sigaltstack, %eax
	syscall
	test %rax, %rax
	jnz .Lthread_die
	mov $1, %edi /* SECCOMP_SET_MODE_FILTER */
	xor %esi, %esi
	movabs $(STUB_DATA + STUB_DATA_APP_FILTER), %rdx
	mov $__NR_seccomp, %eax
	syscall
	test %rax, %rax
	jnz .Lthread_die
	mov $2, %edi /* SIG_SETMASK */
	movabs $(STUB_DATA + STUB_DATA_SIGMASK), %rsi
	xor %edx, %edx
	mov $8, %r10d
	mov $__NR_rt_sigprocmask, %eax
	syscall
	.globl stub_ip_mask
stub_ip_mask:
	test %rax, %rax
	jnz .Lthread_die
	lea -STUB_AREA_SIZE+AREA_MAILBOX(%rsp), %rbx
	jmp .Lnot_run
.Lthread_die:
	mov $2, %edi
	mov $__NR_exit_group, %eax
	syscall
	ud2

/* rdi: stack pointer, rsi: function, rdx: its argument. Never returns. */
	.globl stub_call_on
stub_call_on:
	mov %rdi, %rsp
	xor %ebp, %ebp
	mov %rdx, %rdi
	call *%rsi
	ud2
	.globl stub_restorer
stub_restorer:
	ud2
