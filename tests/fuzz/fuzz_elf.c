// LINK: moat_loader moat_mm moat_mem
/* ELF and #! header parsing over arbitrary bytes: what is accepted must satisfy what the mapper relies on. */
#include <stdlib.h>
#include <string.h>

#include "abi/regs.h"
#include "sentry/loader/elf.h"
#include "vfs/file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The mapper's references, which nothing here reaches. */
struct file *file_ref(struct file *f)
{
	return f;
}
void file_unref(struct file *f)
{
	(void)f;
}
int file_fallocate(struct file *f, int mode, uint64_t off, uint64_t size)
{
	(void)f;
	(void)mode;
	(void)off;
	(void)size;
	return -EOPNOTSUPP;
}
ssize_t file_read_kernel(struct file *f, void *buf, size_t size, uint64_t off)
{
	(void)f;
	(void)buf;
	(void)size;
	(void)off;
	return -EIO;
}
struct mappable *file_mappable(struct file *f)
{
	(void)f;
	return NULL;
}

static void check(bool ok)
{
	if (!ok)
		abort();
}

static void try_script(const uint8_t *data, size_t size)
{
	char head[SCRIPT_HEAD_SIZE] = {0}, interp[SCRIPT_HEAD_SIZE], arg[SCRIPT_HEAD_SIZE];

	memcpy(head, data, MIN(size, sizeof(head)));
	if (script_parse(head, interp, arg))
		return;
	check(strlen(interp) > 0 && strlen(interp) + strlen(arg) < SCRIPT_HEAD_SIZE);
	check(!strchr(interp, '\n') && !strchr(interp, ' ') && !strchr(arg, '\n'));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct elf_header hdr;
	struct elf_image img;
	unsigned i;

	try_script(data, size);
	if (elf_parse_header(data, size, &hdr))
		return 0;
	check(hdr.phsize == hdr.phnum * ELF_PHDR_SIZE && hdr.phnum);
	if (hdr.phoff > size || hdr.phsize > size - hdr.phoff)
		return 0;
	if (elf_parse_phdrs(&hdr, data + hdr.phoff, &img))
		return 0;
	check(img.nsegs && img.nsegs <= hdr.phnum && img.lo < img.hi);
	check(!(img.align & (img.align - 1)) && img.align >= MOAT_PAGE_SIZE);
	for (i = 0; i < img.nsegs; i++) {
		const struct elf_segment *seg = &img.segs[i];

		check(seg->filesz <= seg->memsz && seg->vaddr <= ARCH_TASK_SIZE - seg->memsz);
		check(!seg->filesz || !((seg->offset ^ seg->vaddr) & (MOAT_PAGE_SIZE - 1)));
		check(seg->offset + seg->filesz >= seg->offset);
		check(seg->vaddr >= img.lo && seg->vaddr + seg->memsz <= img.hi);
	}
	elf_image_fini(&img);
	return 0;
}
