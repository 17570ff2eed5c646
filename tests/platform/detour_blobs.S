/* tests/platform/detour_blobs.S - a call as glibc's read() makes it, with short branches. One page, copied to where detours.c wants it. */
	.section .note.GNU-stack, "", @progbits
	.section .rodata
	.globl d_start, d_loop, d_site, d_after, d_pad, d_behind, d_end
	.balign 4096
d_start:
	.fill 64, 1, 0xcc
/* rbp counts. The flags before the site are others than those that its `xor` leaves. */
d_loop:
	inc	%rbp
	cmp	%r13, %r14
	call	d_read
	jmp	d_loop
	.balign 16
d_read:
	cmpb	$0, d_start(%rip)
	je	1f
d_site:
	xor	%eax, %eax
	syscall
d_after:
	cmp	$-4096, %rax
	ja	1f
	ret
d_pad:
	.byte	0x66, 0x2e, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0
/* Who goes on behind the padding gets here. */
d_behind:
1:
	ud2
	.balign 4096
d_end:
