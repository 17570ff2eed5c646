/* tests/platform/patch_blobs.S - call sites that get patched. Two pages, copied to where patching.c wants them. */
	.section .note.GNU-stack, "", @progbits
	.section .rodata
	.globl p_start, p_loop, p_first, p_second, p_peek, p_write, p_write_loop, p_jump, p_handler, p_handled, p_end
	.balign 4096
p_start:
	.fill 64, 1, 0xcc
/* Two sites a round; flags by r13 and r14 before the first, and the same at the second. rbp counts. */
p_loop:
	inc	%rbp
	cmp	%r13, %r14
	mov	$39, %eax
	syscall
p_first:
	mov	$110, %eax
	syscall
p_second:
	jmp	p_loop
	.balign 16
/* rax = [rbx], by a site that cannot be patched */
p_peek:
	mov	(%rbx), %rax
	xor	%ecx, %ecx
	syscall
	ud2
	.balign 16
/* A hostile neighbour: xorshift from rax over [rbx, rbx + 0x200), for ever. */
p_write:
	xor	%ecx, %ecx
p_write_loop:
	mov	%rax, %rdx
	shl	$13, %rdx
	xor	%rdx, %rax
	mov	%rax, %rdx
	shr	$7, %rdx
	xor	%rdx, %rax
	mov	%rax, %rdx
	shl	$17, %rdx
	xor	%rdx, %rax
	mov	%rax, (%rbx, %rcx)
	/* The words that the trampoline acts on: what they may be, mostly. */
	and	$7, %edx
	mov	%edx, 0x40(%rbx)
	and	$3, %edx
	mov	%edx, 0x110(%rbx)
	add	$8, %ecx
	and	$0x1ff, %ecx
	jmp	p_write_loop
	.balign 16
p_jump:
	jmp	*%rbx
	.balign 16
/* A signal's handler, as far as registers matter: shows those that a call changes. */
p_handler:
	mov	%rcx, %rbx
	mov	%r11, %rbp
	mov	$15, %eax
	syscall
p_handled:
	ud2
	.balign 4096
p_end:
