/*
 * mem/guard.S - the only instructions that may fault on guest memory; guard.h is the manual.
 *
 * Each range [from, to) of guard_table resumes at its fix-up when an instruction in it faults. The
 * entries are offsets from the table, so the image needs no relocation.
 */
#ifdef __CET__
#include <cet.h>
#else
#define _CET_ENDBR
#endif

#define FUNC(name) .globl name; .type name, @function; .p2align 4; name: _CET_ENDBR
#define END(name) .size name, . - name
#define FIXUP(from, to, fix) \
	.pushsection .rodata.guard, "a"; \
	.long from - guard_table, to - guard_table, fix - guard_table; \
	.popsection

	.section .rodata.guard, "a"
	.p2align 2
	.globl guard_table
	.hidden guard_table
guard_table:

	.text

/* size_t guard_copy(dst, src, size): bytes not copied. `rep movsb` leaves them in rcx. */
FUNC(guard_copy)
	cmpq	$128, %rdx
	ja	.Lcopy_rep
	cmpq	$8, %rdx
	jb	.Lcopy_bytes
.Lcopy_word:
	movq	(%rsi), %rax
	movq	%rax, (%rdi)
	addq	$8, %rsi
	addq	$8, %rdi
	subq	$8, %rdx
	cmpq	$8, %rdx
	jae	.Lcopy_word
.Lcopy_word_end:
.Lcopy_bytes:
	testq	%rdx, %rdx
	jz	.Lcopy_done
.Lcopy_byte:
	movb	(%rsi), %al
	movb	%al, (%rdi)
	incq	%rsi
	incq	%rdi
	decq	%rdx
	jnz	.Lcopy_byte
.Lcopy_byte_end:
.Lcopy_done:
	movq	%rdx, %rax
	ret
.Lcopy_rep:
	movq	%rdx, %rcx
.Lcopy_rep_insn:
	rep movsb
.Lcopy_rep_end:
	movq	%rcx, %rax
	ret
	/* A word that straddles the bad page: its good bytes count. */
	FIXUP(.Lcopy_word, .Lcopy_word_end, .Lcopy_bytes)
	FIXUP(.Lcopy_byte, .Lcopy_byte_end, .Lcopy_done)
	FIXUP(.Lcopy_rep_insn, .Lcopy_rep_end, .Lcopy_rep_end)
END(guard_copy)

/* size_t guard_zero(dst, size) */
FUNC(guard_zero)
	movq	%rsi, %rcx
	xorl	%eax, %eax
.Lzero_insn:
	rep stosb
.Lzero_end:
	movq	%rcx, %rax
	ret
	FIXUP(.Lzero_insn, .Lzero_end, .Lzero_end)
END(guard_zero)

/* int guard_load_u32(src, ret) */
FUNC(guard_load_u32)
.Lload32:
	movl	(%rdi), %eax
.Lload32_end:
	movl	%eax, (%rsi)
	xorl	%eax, %eax
	ret
	FIXUP(.Lload32, .Lload32_end, .Lefault)
END(guard_load_u32)

FUNC(guard_load_u64)
.Lload64:
	movq	(%rdi), %rax
.Lload64_end:
	movq	%rax, (%rsi)
	xorl	%eax, %eax
	ret
	FIXUP(.Lload64, .Lload64_end, .Lefault)
END(guard_load_u64)

/* int guard_cmpxchg_u32(dst, inout_expected, desired) */
FUNC(guard_cmpxchg_u32)
	movl	(%rsi), %eax
.Lcas:
	lock cmpxchgl %edx, (%rdi)
.Lcas_end:
	jne	.Lcas_differs
	xorl	%eax, %eax
	ret
.Lcas_differs:
	movl	%eax, (%rsi)
	movl	$-11, %eax		/* -EAGAIN */
	ret
	FIXUP(.Lcas, .Lcas_end, .Lefault)
END(guard_cmpxchg_u32)

/* int guard_xchg_u32(dst, val, ret_old) */
FUNC(guard_xchg_u32)
.Lxchg:
	xchgl	%esi, (%rdi)
.Lxchg_end:
	movl	%esi, (%rdx)
	xorl	%eax, %eax
	ret
	FIXUP(.Lxchg, .Lxchg_end, .Lefault)
END(guard_xchg_u32)

/* int guard_probe(addr, write) */
FUNC(guard_probe)
	testb	%sil, %sil
	jnz	.Lprobe_write
.Lprobe_read:
	movb	(%rdi), %al
.Lprobe_read_end:
	xorl	%eax, %eax
	ret
.Lprobe_write:
	lock orb $0, (%rdi)
.Lprobe_write_end:
	xorl	%eax, %eax
	ret
	FIXUP(.Lprobe_read, .Lprobe_read_end, .Lefault)
	FIXUP(.Lprobe_write, .Lprobe_write_end, .Lefault)
END(guard_probe)

.Lefault:
	movl	$-14, %eax		/* -EFAULT */
	ret

	.section .rodata.guard, "a"
	.globl guard_table_end
	.hidden guard_table_end
guard_table_end:

	.section .note.GNU-stack, "", @progbits
