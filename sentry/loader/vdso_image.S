/* The vDSO's bytes, for vdso.c to copy into the sandbox's memory. */
	.section .rodata
	.globl vdso_image_start, vdso_image_end
	.p2align 12
vdso_image_start:
	.incbin VDSO_SO
vdso_image_end:
	.byte 0
	.section .note.GNU-stack, "", @progbits
