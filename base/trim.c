/* base/trim.c - the program's own mappings. */
#include <link.h>
#include <malloc.h>
#include <sys/auxv.h>
#include <sys/mman.h>

#include "base/compiler.h"
#include "base/trim.h"

#define PAGE 4096ul

static const ElfW(Phdr) * vdso_phdr(void)
{
	const ElfW(Ehdr) *ehdr = (const ElfW(Ehdr) *)getauxval(AT_SYSINFO_EHDR);

	return ehdr ? (const ElfW(Phdr) *)((const char *)ehdr + ehdr->e_phoff) : NULL;
}

static int trim_object(struct dl_phdr_info *info, size_t unused_arg size, void *arg)
{
	size_t *bytes = arg;

	/* The kernel's own object is no file's. */
	if (info->dlpi_phdr == vdso_phdr())
		return 0;
	for (unsigned i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *ph = &info->dlpi_phdr[i];
		uintptr_t start = info->dlpi_addr + ph->p_vaddr, end = start + ph->p_memsz;

		if (ph->p_type != PT_LOAD || (ph->p_flags & PF_W))
			continue;
		start &= ~(PAGE - 1);
		end = (end + PAGE - 1) & ~(PAGE - 1);
		if (madvise((void *)start, end - start, MADV_DONTNEED) == 0)
			*bytes += end - start;
	}
	return 0;
}

size_t trim_own_text(void)
{
	size_t bytes = 0;

	(void)dl_iterate_phdr(trim_object, &bytes);
	return bytes;
}

size_t trim_process(void)
{
	(void)malloc_trim(0);
	return trim_own_text();
}
