/*
 * sentry/loader/elf.h - reading an executable's headers: pure functions over bytes, no I/O, fuzzed.
 *
 * Every field is read once into these structs and checked there; who maps the image trusts them.
 */
#ifndef MOAT_SENTRY_LOADER_ELF_H
#define MOAT_SENTRY_LOADER_ELF_H

#include "base/compiler.h"

#define ELF_EHDR_SIZE 64u
#define ELF_PHDR_SIZE 56u
#define ELF_INTERP_MAX 4096u /* PATH_MAX */
#define SCRIPT_HEAD_SIZE 256u /* BINPRM_BUF_SIZE */

struct elf_header {
	bool dyn; /* ET_DYN: placed by us */
	uint64_t entry, phoff;
	unsigned phnum;
	size_t phsize; /* bytes of program headers */
};

/* A PT_LOAD, checked: no sum below wraps. */
struct elf_segment {
	uint64_t vaddr, filesz, memsz, offset;
	unsigned prot; /* PROT_* */
};

struct elf_image {
	struct elf_header hdr;
	struct elf_segment *segs; /* owned; in file order */
	unsigned nsegs;
	bool has_interp;
	uint64_t interp_off;
	size_t interp_size; /* with its NUL */
	bool exec_stack;
	uint64_t align; /* the largest PT_LOAD alignment, at least a page */
	uint64_t lo, hi; /* page range that all segments span */
	uint64_t phdr_vaddr; /* where the program headers are loaded; 0 if nowhere */
	uint64_t start_code, end_code, start_data, end_data, brk;
};

/* The first ELF_EHDR_SIZE bytes. Return: 0, -ENOEXEC (not for us: another format, architecture or malformed). */
must_check int elf_parse_header(const void *buf, size_t size, struct elf_header *ret);
/*
 * hdr->phsize bytes of program headers. Return: 0 (elf_image_fini() later), -ENOEXEC, -EINVAL (segments that
 * cannot be mapped), -ENOMEM.
 */
must_check int elf_parse_phdrs(const struct elf_header *hdr, const void *buf,
			       struct elf_image *ret);
void elf_image_fini(struct elf_image *img);

/*
 * A `#!` line in the first bytes of a file (zero-filled up to SCRIPT_HEAD_SIZE). Return: 0 with NUL-terminated
 * strings (*ret_arg points at an empty one if there is none), -ENOEXEC.
 */
must_check int script_parse(const char head[SCRIPT_HEAD_SIZE], char interp[SCRIPT_HEAD_SIZE],
			    char arg[SCRIPT_HEAD_SIZE]);

#endif
