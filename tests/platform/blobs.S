/* tests/platform/blobs.S - what the guest runs. Copied to CODE_VA; position-independent. */
#include "platform/systrap/layout.h"

	.section .note.GNU-stack, "", @progbits
	.section .rodata
	.globl blobs_start, blobs_end
	.balign 4096
blobs_start:

#define BLOB(name) .globl name; .balign 16; name

BLOB(g_syscall):
	syscall
	syscall
	ud2

/* rax = [rbx] */
BLOB(g_load):
	mov (%rbx), %rax
	syscall
	jmp g_load

/* [rbx] = rax */
BLOB(g_store):
	mov %rax, (%rbx)
	syscall
	jmp g_store

/* [rbx .. rcx) = rax */
BLOB(g_fill):
	mov %rax, (%rbx)
	add $8, %rbx
	cmp %rcx, %rbx
	jb g_fill
	syscall

/* rdx: how many words of [rbx .. rcx) are not rax */
BLOB(g_find):
	mov (%rbx), %rdi
	not %rdi
	cmp %rax, %rdi
	jne 1f
	inc %rdx
1:	add $8, %rbx
	cmp %rcx, %rbx
	jb g_find
	xor %edi, %edi
	syscall

/* rbx: its mailbox's state word. Says for ever that there is an event and guesses what the reset is answered with; [rcx] counts. */
BLOB(g_forge):
	incq (%rcx)
	movl $STUB_STATE_EVENT, (%rbx)
	mov %rdx, AREA_RESET-AREA_STATE(%rbx)
	jmp g_forge

/* The same, with rax and more in whatever is not a general register: alignment checks, string operations downwards, x87, SSE, segments. */
BLOB(g_foul):
	movq %rax, %xmm3
	wrfsbase %rax
	wrgsbase %rax
	mov $0x2b, %esi
	mov %esi, %ds
	mov %esi, %es
	push $0x1fa0
	ldmxcsr (%rsp)
	pop %rsi
	fld1
	pushfq
	orl $0x40400, (%rsp)
	popfq
	jmp g_forge
/* rax: selectors; rsi: bases; rdx: flags; r8: MXCSR; r9: of xmm3; r10: the x87's status */
BLOB(g_state):
	xor %r10d, %r10d
	fnstsw %ax
	mov %ax, %r10w
	mov %ds, %eax
	mov %es, %esi
	or %esi, %eax
	mov %fs, %esi
	or %esi, %eax
	mov %gs, %esi
	or %esi, %eax
	rdfsbase %rsi
	rdgsbase %rdi
	or %rdi, %rsi
	pushfq
	pop %rdx
	push $0
	stmxcsr (%rsp)
	pop %r8
	movq %xmm3, %r9
	syscall

BLOB(g_store_load):
	mov %rax, (%rbx)
	mov (%rbx), %rcx
	mov %rcx, %rdx
	syscall

BLOB(g_exec):
	call *%rbx
	syscall

BLOB(g_spin):
	inc %rax
	jmp g_spin

/* rbp counts; each round ends in one event. */
BLOB(g_count_syscall):
	inc %rbp
	syscall
	jmp g_count_syscall
BLOB(g_count_int3):
	inc %rbp
	int3
	jmp g_count_int3
BLOB(g_count_ud2):
	inc %rbp
	ud2
	jmp g_count_ud2
/* The host skips the load: it never succeeds. */
BLOB(g_count_fault):
	inc %rbp
	movb (%rbx), %al
	jmp g_count_fault

/* Adds up pages from rbx to rax. */
BLOB(g_touch):
	xor %edx, %edx
1:	add (%rbx), %rdx
	add $4096, %rbx
	cmp %rax, %rbx
	jb 1b
	syscall

/*
 * Reads the flag (rax), then touches the victim (rbx). Once the flag is set, a touch that works ends in a system
 * call: the translation was stale. rsi counts.
 */
BLOB(g_watch_load):
	inc %rsi
	mov (%rax), %rdx
	mov (%rbx), %rdi
	test %rdx, %rdx
	jz g_watch_load
	syscall
	ud2
BLOB(g_watch_store):
	inc %rsi
	mov (%rax), %rdx
	mov %rsi, (%rbx)
	test %rdx, %rdx
	jz g_watch_store
	syscall
	ud2
BLOB(g_watch_exec):
	inc %rsi
	mov (%rax), %rdx
	call *%rbx
	test %rdx, %rdx
	jz g_watch_exec
	syscall
	ud2

/* rax: seed. Fills xmm0-15, x87 and mxcsr. */
BLOB(g_fpu_fill):
	movq %rax, %xmm0
	movq %rax, %xmm1
	.irp n,2,3,4,5,6,7,8,9,10,11,12,13,14,15
	movq %rax, %xmm\n
	punpcklqdq %xmm\n, %xmm\n
	inc %rax
	.endr
	fninit
	push %rax
	fildq (%rsp)
	fld1
	movl $0x1fa0, (%rsp)
	ldmxcsr (%rsp)
	movw $0x27f, (%rsp)
	fldcw (%rsp)
	pop %rcx
	syscall
/* fxsave to [rbx] */
BLOB(g_fpu_dump):
	fxsave64 (%rbx)
	syscall
BLOB(g_avx_fill):
	vmovq %rax, %xmm3
	vpunpcklqdq %xmm3, %xmm3, %xmm3
	vinsertf128 $1, %xmm3, %ymm3, %ymm3
	syscall
BLOB(g_avx_dump):
	vmovups %ymm3, (%rbx)
	syscall
BLOB(g_mxcsr):
	stmxcsr (%rbx)
	syscall
/* Adds 1.0 to xmm3 for ever and checks that xmm4 keeps what it was given. */
BLOB(g_fxch_spin):
	movq %rax, %xmm4
1:	inc %rsi
	movq %xmm4, %rdx
	cmp %rax, %rdx
	je 1b
	syscall

BLOB(g_cpuid):
	xor %ecx, %ecx
	cpuid
	mov %rcx, %rdx
	syscall
BLOB(g_xgetbv):
	xor %ecx, %ecx
	xgetbv
	shl $32, %rdx
	or %rdx, %rax
	syscall
/* xsave64 everything to [rbx] */
BLOB(g_xsave):
	mov $-1, %eax
	mov $-1, %edx
	xsave64 (%rbx)
	syscall
BLOB(g_segs):
	mov %ds, %eax
	mov %es, %edx
	mov %fs, %esi
	mov %gs, %edi
	mov %ss, %r8d
	mov %cs, %r9d
	syscall
/* ds = es = ax */
BLOB(g_set_segs):
	mov %eax, %ds
	mov %eax, %es
	syscall
/* rax = fs:[0], rdx = gs:[0] */
BLOB(g_bases):
	mov %fs:0, %rax
	mov %gs:0, %rdx
	syscall
BLOB(g_set_bases):
	wrfsbase %rax
	wrgsbase %rbx
	syscall
BLOB(g_rflags):
	pushfq
	pop %rax
	syscall
BLOB(g_rdtsc):
	rdtsc
	shl $32, %rdx
	or %rdx, %rax
	syscall
BLOB(g_div0):
	xor %edx, %edx
	xor %ecx, %ecx
	div %rcx
	syscall
BLOB(g_int3):
	int3
	syscall
BLOB(g_into_int4):
	int $4
	syscall
BLOB(g_step):
	nop
	inc %rax
	inc %rax
	syscall
/* AC set: a misaligned load */
BLOB(g_align):
	mov 1(%rbx), %rax
	syscall

	.org blobs_start + 0x3000
	ret
	.balign 4096
blobs_end:
