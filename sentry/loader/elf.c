/* sentry/loader/elf.c - see elf.h. Linux's fs/binfmt_elf.c and binfmt_script.c decide what is refused, and how. */
#include "sentry/loader/elf.h"

#include <elf.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "abi/regs.h"
#include "sentry/loader.h"

static_assert(sizeof(Elf64_Ehdr) == ELF_EHDR_SIZE, "ELF64 header");
static_assert(sizeof(Elf64_Phdr) == ELF_PHDR_SIZE, "ELF64 program header");

int elf_parse_header(const void *buf, size_t size, struct elf_header *ret)
{
	Elf64_Ehdr e;

	if (size < sizeof(e))
		return -ENOEXEC;
	memcpy(&e, buf, sizeof(e));
	if (memcmp(e.e_ident, ELFMAG, SELFMAG) || e.e_ident[EI_CLASS] != ELFCLASS64 ||
	    e.e_ident[EI_DATA] != ELFDATA2LSB || e.e_machine != EM_X86_64)
		return -ENOEXEC;
	if (e.e_type != ET_EXEC && e.e_type != ET_DYN)
		return -ENOEXEC;
	if (e.e_phentsize != sizeof(Elf64_Phdr) || !e.e_phnum ||
	    (size_t)e.e_phnum * sizeof(Elf64_Phdr) > LOADER_PHDRS_MAX)
		return -ENOEXEC;
	if (e.e_phoff > INT64_MAX - LOADER_PHDRS_MAX)
		return -ENOEXEC;
	ret->dyn = e.e_type == ET_DYN;
	ret->entry = e.e_entry;
	ret->phoff = e.e_phoff;
	ret->phnum = e.e_phnum;
	ret->phsize = (size_t)e.e_phnum * sizeof(Elf64_Phdr);
	return 0;
}

static int parse_load(const Elf64_Phdr *ph, struct elf_image *img)
{
	struct elf_segment *seg = &img->segs[img->nsegs];

	/* What mmap would refuse: sizes past the address space, unaligned offsets, wrapping. */
	if (ph->p_filesz > ph->p_memsz || ph->p_memsz > ARCH_TASK_SIZE ||
	    ph->p_vaddr > ARCH_TASK_SIZE - ph->p_memsz)
		return -EINVAL;
	if (ph->p_filesz && ((ph->p_offset ^ ph->p_vaddr) & (MOAT_PAGE_SIZE - 1)))
		return -EINVAL;
	if (ph->p_filesz > INT64_MAX || ph->p_offset > INT64_MAX - ph->p_filesz)
		return -EINVAL;
	seg->vaddr = ph->p_vaddr;
	seg->filesz = ph->p_filesz;
	seg->memsz = ph->p_memsz;
	seg->offset = ph->p_offset;
	seg->prot = (ph->p_flags & PF_R ? PROT_READ : 0) | (ph->p_flags & PF_W ? PROT_WRITE : 0) |
		    (ph->p_flags & PF_X ? PROT_EXEC : 0);
	img->nsegs++;
	/* Not a power of two: ignored, as on Linux. */
	if (ph->p_align > img->align && !(ph->p_align & (ph->p_align - 1)) &&
	    ph->p_align <= (1ul << 40))
		img->align = ph->p_align;
	return 0;
}

/* The words that /proc/PID/stat and brk want, and the span. */
static int image_extent(struct elf_image *img)
{
	unsigned i;

	img->lo = UINT64_MAX;
	img->start_code = UINT64_MAX;
	for (i = 0; i < img->nsegs; i++) {
		const struct elf_segment *seg = &img->segs[i];
		uint64_t file_end = seg->vaddr + seg->filesz, mem_end = seg->vaddr + seg->memsz;

		img->lo = MIN(img->lo, seg->vaddr & MOAT_PAGE_MASK);
		img->hi = MAX(img->hi, round_up_u64(mem_end, MOAT_PAGE_SIZE));
		if (seg->prot & PROT_EXEC) {
			img->start_code = MIN(img->start_code, seg->vaddr);
			img->end_code = MAX(img->end_code, file_end);
		}
		img->start_data = MAX(img->start_data, seg->vaddr);
		img->end_data = MAX(img->end_data, file_end);
		img->brk = MAX(img->brk, mem_end);
		if (seg->offset <= img->hdr.phoff && img->hdr.phoff - seg->offset < seg->filesz)
			img->phdr_vaddr = img->hdr.phoff - seg->offset + seg->vaddr;
	}
	if (img->start_code == UINT64_MAX)
		img->start_code = 0;
	/* Nothing to run. */
	return img->nsegs && img->hi > img->lo ? 0 : -EINVAL;
}

int elf_parse_phdrs(const struct elf_header *hdr, const void *buf, struct elf_image *ret)
{
	struct elf_image img = {.hdr = *hdr, .align = MOAT_PAGE_SIZE};
	const char *pos = buf;
	unsigned i;
	int err = 0;

	img.segs = calloc(hdr->phnum, sizeof(*img.segs));
	if (!img.segs)
		return -ENOMEM;
	for (i = 0; i < hdr->phnum && !err; i++, pos += sizeof(Elf64_Phdr)) {
		Elf64_Phdr ph;

		memcpy(&ph, pos, sizeof(ph));
		switch (ph.p_type) {
		case PT_LOAD:
			err = parse_load(&ph, &img);
			break;
		case PT_INTERP:
			if (img.has_interp)
				break;
			if (ph.p_filesz > ELF_INTERP_MAX || ph.p_filesz < 2 ||
			    ph.p_offset > INT64_MAX - ELF_INTERP_MAX) {
				err = -ENOEXEC;
				break;
			}
			img.has_interp = true;
			img.interp_off = ph.p_offset;
			img.interp_size = ph.p_filesz;
			break;
		case PT_GNU_STACK:
			img.exec_stack = ph.p_flags & PF_X;
			break;
		default:
			break;
		}
	}
	if (!err)
		err = image_extent(&img);
	if (err) {
		free(img.segs);
		return err;
	}
	*ret = img;
	return 0;
}

void elf_image_fini(struct elf_image *img)
{
	free(img->segs);
	img->segs = NULL;
}

static bool is_blank(char c)
{
	return c == ' ' || c == '\t';
}

int script_parse(const char head[SCRIPT_HEAD_SIZE], char interp[SCRIPT_HEAD_SIZE],
		 char arg[SCRIPT_HEAD_SIZE])
{
	const char *pos = head + 2, *limit = head + SCRIPT_HEAD_SIZE - 1, *end, *name_end;

	if (head[0] != '#' || head[1] != '!')
		return -ENOEXEC;
	end = memchr(head, '\n', SCRIPT_HEAD_SIZE);
	while (pos < limit && is_blank(*pos))
		pos++;
	if (!end) {
		const char *p = pos;

		/* No newline in what was read: the path must at least end there, or it may be cut. */
		if (pos == limit)
			return -ENOEXEC;
		while (p < limit && *p && !is_blank(*p))
			p++;
		if (p == limit)
			return -ENOEXEC;
		end = limit;
	}
	if (pos > end)
		pos = end;
	end = pos + strnlen(pos, (size_t)(end - pos));
	while (end > pos && is_blank(end[-1]))
		end--;
	if (end == pos)
		return -ENOEXEC;
	for (name_end = pos; name_end < end && !is_blank(*name_end); name_end++)
		;
	memcpy(interp, pos, (size_t)(name_end - pos));
	interp[name_end - pos] = 0;
	for (pos = name_end; pos < end && is_blank(*pos); pos++)
		;
	memcpy(arg, pos, (size_t)(end - pos));
	arg[end - pos] = 0;
	return 0;
}
