/*
 * platform/patch/trampoline.S - what every patched site's entry jumps to. Data here; copied to PATCH_CODE_VA.
 *
 * In: rax the call's number, r11 the address after the site's `syscall`. Changes no flag (mov, lea, jrcxz and pause
 * do not), and of the registers only rax, rcx and r11; rsp for one instruction, while rcx has the true one. So
 * wherever it is interrupted, patch_resolve() finds the application's registers in the registers: the labels
 * are its map. Once the call has been taken, the sentry has them.
 */
#include "platform/patch/layout.h"

	.section .rodata
	.balign 64
	.globl patch_code
	.globl patch_code_slow_jmp
	.globl patch_code_pushf
	.globl patch_code_popped
	.globl patch_code_posted
	.globl patch_code_done
	.globl patch_code_done_rax
	.globl patch_code_done_rcx
	.globl patch_code_done_jmp
	.globl patch_code_leave
	.globl patch_code_left
	.globl patch_code_order
	.globl patch_code_switch
	.globl patch_code_switch_jmp
	.globl patch_code_end
patch_code:
	/* Does %gs lead to a mailbox? Where it leads to nothing this faults, and the fault is served as the call. */
	movq	%gs:MB_MAGIC, %rcx
	leaq	-PATCH_MAGIC(%rcx), %rcx
	jrcxz	1f
	jmp	2f
1:	movl	%gs:MB_ASLEEP, %ecx
	jrcxz	3f
	/* Nobody listens: the site's own `syscall`. */
2:	leaq	-2(%r11), %r11
patch_code_slow_jmp:
	jmp	*%r11
3:	movq	%rdi, %gs:MB_RDI
	movq	%rsi, %gs:MB_RSI
	movq	%rdx, %gs:MB_RDX
	movq	%r10, %gs:MB_R10
	movq	%r8, %gs:MB_R8
	movq	%r9, %gs:MB_R9
	movq	%rbx, %gs:MB_RBX
	movq	%rbp, %gs:MB_RBP
	movq	%rsp, %gs:MB_RSP
	movq	%r12, %gs:MB_R12
	movq	%r13, %gs:MB_R13
	movq	%r14, %gs:MB_R14
	movq	%r15, %gs:MB_R15
	movq	%r11, %gs:MB_RIP
	movq	%rsp, %rcx
	movq	%gs:MB_STACK, %rsp
patch_code_pushf: /* from here to `popped` rcx is the true rsp */
	pushfq
	movq	%rcx, %rsp
patch_code_popped:
	/* x86 stores are seen in order: who sees the state sees the registers. */
	movq	%rax, %gs:MB_RAX
	movl	$MB_POSTED, %gs:MB_STATE
patch_code_posted:
	movl	%gs:MB_SPINS, %eax
4:	movl	%gs:MB_STATE, %ecx
	jrcxz	patch_code_done
	leal	-MB_LEAVE(%rcx), %ecx
	jrcxz	patch_code_leave
	leal	MB_LEAVE-MB_ORDER(%rcx), %ecx
	jrcxz	patch_code_order
	movl	%eax, %ecx
	jrcxz	patch_code_leave
	leal	-1(%rax), %eax
	pause
	jmp	4b
patch_code_done:
	movq	%gs:MB_RAX, %rax
patch_code_done_rax:
	movq	%r11, %rcx
patch_code_done_rcx:
	movq	%gs:MB_FLAGS, %r11
patch_code_done_jmp:
	jmp	*%rcx
patch_code_leave:
	/* A call that cannot be served here traps; an exception would cost several times that where a hypervisor looks at it. */
	movq	%r11, %rax
	syscall
patch_code_left: /* rax is what r11 was */
	ud2
	/* From here on the sentry has the registers: what they are here is nobody's. */
patch_code_order:
	movl	%gs:MB_OP, %ecx
	leal	-MB_OP_SWITCH(%rcx), %ecx
	jrcxz	patch_code_switch
	movl	$-1, %eax
	movl	$-1, %edx
	xsave64	%gs:MB_XSAVE
	/* A reply that is only rax finds it as it was. */
	movq	%gs:MB_RDX, %rdx
	movl	$MB_TAKEN, %gs:MB_STATE
	jmp	patch_code_posted
	/* From here on the application's registers are those in the mailbox. */
patch_code_switch:
	movq	%gs:MB_STACK, %rsp
	leaq	MB_FLAGS-MB_STACK_TOP(%rsp), %rsp
	popfq
	movq	%gs:MB_RAX, %rax
	movq	%gs:MB_RDI, %rdi
	movq	%gs:MB_RSI, %rsi
	movq	%gs:MB_RDX, %rdx
	movq	%gs:MB_R10, %r10
	movq	%gs:MB_R8, %r8
	movq	%gs:MB_R9, %r9
	movq	%gs:MB_RBX, %rbx
	movq	%gs:MB_RBP, %rbp
	movq	%gs:MB_R12, %r12
	movq	%gs:MB_R13, %r13
	movq	%gs:MB_R14, %r14
	movq	%gs:MB_R15, %r15
	movq	%gs:MB_RCX, %rcx
	movq	%gs:MB_R11, %r11
	movq	%gs:MB_RSP, %rsp
patch_code_switch_jmp:
	jmp	*%gs:MB_RIP
patch_code_end:

	.section .note.GNU-stack, "", @progbits
