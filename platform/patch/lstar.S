/*
 * platform/patch/lstar.S - where `syscall` itself leads on a hypervisor that runs what LSTAR points to with ring 3's
 * rights: calls that no patch can reach are posted too. Data here; copied to where PATCH_LSTAR_VA is. trampoline.S has the rest.
 *
 * In: as the CPU leaves a `syscall`: rcx the way back, r11 the flags. So flags may be changed here, and rcx stays as it is.
 * rax does until the answer. r11 is moved up by 16 bits while its lower part counts. Wherever it is interrupted, patch_resolve()
 * finds the application's registers: the labels are its map.
 */
#include "platform/patch/layout.h"

	.section .rodata
	.balign 64
	.globl patch_lstar
	.globl patch_lstar_entry
	.globl patch_lstar_up
	.globl patch_lstar_down
	.globl patch_lstar_back
	.globl patch_lstar_whole
	.globl patch_lstar_posts
	.globl patch_lstar_posted
	.globl patch_lstar_done
	.globl patch_lstar_done_rax
	.globl patch_lstar_stack
	.globl patch_lstar_unstack
	.globl patch_lstar_done_jmp
	.globl patch_lstar_order
	.globl patch_lstar_imm_left
	.globl patch_lstar_imm_switch
	.globl patch_lstar_end
patch_lstar:
	/* An exit: the call is the sentry's, or was abandoned. Nothing of the application's is changed. */
	outb	%al, $PATCH_LSTAR_PORT
	ud2
patch_lstar_entry:
	/* With ring 0's rights nothing is touched that gs, which is ring 3's, leads to. */
	shlq	$16, %r11
patch_lstar_up: /* r11 >> 16 are the flags from here ... */
	movw	%cs, %r11w
	cmpw	$PATCH_USER_CS, %r11w
	je	1f
	shrq	$16, %r11
patch_lstar_down: /* (not in between) */
	jmp	patch_lstar
	nop
patch_lstar_back:
1:	shrq	$16, %r11
patch_lstar_whole: /* ... to here */
	cmpl	$PATCH_MAGIC, %gs:MB_MAGIC
	jne	patch_lstar
	cmpl	$0, %gs:MB_ASLEEP
	jne	patch_lstar
	/* The trap of a trampoline that gave up; a single step. */
	cmpq	$0x7fffffff, %rcx
patch_lstar_imm_left: /* the number before it is patch_code_left */
	je	patch_lstar
	testl	$0x100, %r11d
	jne	patch_lstar
	/* rt_sigreturn, clone to exit, exit_group, execveat, clone3: they end elsewhere. */
	cmpl	$15, %eax
	je	patch_lstar
	cmpl	$56, %eax
	jb	2f
	cmpl	$60, %eax
	jbe	patch_lstar
	cmpl	$231, %eax
	je	patch_lstar
	cmpl	$322, %eax
	je	patch_lstar
	cmpl	$435, %eax
	je	patch_lstar
2:	movq	%rdi, %gs:MB_RDI
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
	movq	%rcx, %gs:MB_RIP
	movq	%r11, %gs:MB_FLAGS
	movq	%rax, %gs:MB_RAX
	shlq	$16, %r11
patch_lstar_posts: /* r11 is moved from here on; what the state says is of an earlier call until it is stored */
	movw	%gs:MB_SPINS, %r11w
	/* x86 stores are seen in order: who sees the state sees the registers. */
	movl	$MB_POSTED, %gs:MB_STATE
patch_lstar_posted:
3:	cmpl	$MB_DONE, %gs:MB_STATE
	je	patch_lstar_done
	cmpl	$MB_LEAVE, %gs:MB_STATE
	je	4f
	cmpl	$MB_ORDER, %gs:MB_STATE
	je	patch_lstar_order
	decw	%r11w
	je	4f
	pause
	jmp	3b
4:	outb	%al, $PATCH_LSTAR_PORT
	.globl patch_lstar_left
patch_lstar_left:
	ud2
patch_lstar_done:
	movq	%gs:MB_RAX, %rax
patch_lstar_done_rax:
	movq	%rsp, %r11
	movq	%gs:MB_STACK, %rsp
patch_lstar_stack: /* from here to `unstack` r11 is the true rsp */
	leaq	MB_FLAGS-MB_STACK_TOP(%rsp), %rsp
	popfq
	movq	%r11, %rsp
patch_lstar_unstack:
	movq	%gs:MB_FLAGS, %r11
patch_lstar_done_jmp:
	jmp	*%rcx
	/* From here on the sentry has the registers: what they are here is nobody's. */
patch_lstar_order:
	cmpl	$MB_OP_SWITCH, %gs:MB_OP
	je	5f
	movl	$-1, %eax
	movl	$-1, %edx
	xsave64	%gs:MB_XSAVE
	/* A reply that is only rax finds it as it was. */
	movq	%gs:MB_RDX, %rdx
	movw	%gs:MB_SPINS, %r11w
	movl	$MB_TAKEN, %gs:MB_STATE
	jmp	3b
5:	movl	$0x7fffffff, %eax
patch_lstar_imm_switch: /* the number before it is patch_code_switch */
	jmp	*%rax
patch_lstar_end:

	.section .note.GNU-stack, "", @progbits
