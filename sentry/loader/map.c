/*
 * sentry/loader/map.c - an ELF image into an address space.
 *
 * Segments are private file mappings, in file order, later ones over earlier ones; what memsz has beyond
 * filesz is zeroed to its page's end and anonymous after that, as elf_load() does.
 */
#include <sys/mman.h>

#include "sentry/loader/internal.h"
#include "vfs/file.h"

static int map_one(const struct loader_args *args, struct mm *mm, const struct mm_map_args *in,
		   uint64_t *ret_addr)
{
	return mm_map(mm, in, args->limits, ret_addr);
}

/* Anonymous memory for the rest of a segment. */
static int map_bss(const struct loader_args *args, struct mm *mm, uint64_t start, uint64_t end,
		   unsigned prot)
{
	struct mm_map_args map = {
		.addr = start,
		.size = end - start,
		/* vm_brk_flags(): always readable and writable. */
		.prot = PROT_READ | PROT_WRITE | (prot & PROT_EXEC),
		.max_prot = PROT_READ | PROT_WRITE | PROT_EXEC,
		.fixed = true,
	};
	uint64_t addr;

	return start < end ? map_one(args, mm, &map, &addr) : 0;
}

static int map_segment(const struct loader_args *args, struct mm *mm, struct file *file,
		       const struct elf_segment *seg, uint64_t bias, bool first)
{
	uint64_t start = bias + seg->vaddr, skew = start & (MOAT_PAGE_SIZE - 1), addr;
	uint64_t file_end = start + seg->filesz, end = start + seg->memsz;
	uint64_t zero_end;
	int err;

	if (seg->filesz) {
		struct mm_map_args map = {
			.addr = start - skew,
			.size = seg->filesz + skew,
			.prot = seg->prot,
			.max_prot = PROT_READ | PROT_WRITE | PROT_EXEC,
			.fixed = !first,
			.fixed_noreplace = first,
			.mappable = file_mappable(file),
			.off = seg->offset - skew,
			.file = file,
		};

		err = map_one(args, mm, &map, &addr);
		if (err)
			return err;
	}
	if (seg->memsz == seg->filesz)
		return 0;
	if (!seg->filesz)
		return map_bss(args, mm, start - skew, round_up_u64(end, MOAT_PAGE_SIZE),
			       seg->prot);
	zero_end = round_up_u64(file_end, MOAT_PAGE_SIZE);
	/* A read-only segment's padding stays what the file has: Linux ignores that fault too. */
	if (zero_end > file_end && (seg->prot & PROT_WRITE) &&
	    mm_zero_out(mm, file_end, zero_end - file_end))
		return -EFAULT;
	return map_bss(args, mm, zero_end, round_up_u64(end, MOAT_PAGE_SIZE), seg->prot);
}

/* A free range for an image that may go anywhere. */
static int reserve_span(const struct loader_args *args, struct mm *mm, const struct elf_image *img,
			uint64_t *ret_bias)
{
	struct mm_map_args map = {
		.size = img->hi - img->lo + img->align - MOAT_PAGE_SIZE,
		.prot = PROT_NONE,
		.noreserve = true,
	};
	uint64_t addr;
	int err = map_one(args, mm, &map, &addr);

	if (err)
		return err;
	err = mm_unmap(mm, addr, map.size);
	if (err)
		return err;
	*ret_bias = round_up_u64(addr, img->align) - img->lo;
	return 0;
}

int loader_map_image(const struct loader_args *args, struct mm *mm, struct file *file,
		     const struct elf_image *img, uint64_t bias, struct loaded_image *ret)
{
	unsigned i;
	int err;

	if (!img->hdr.dyn) {
		bias = 0;
	} else if (bias == UINT64_MAX) {
		err = reserve_span(args, mm, img, &bias);
		if (err)
			return err;
	} else {
		bias = round_down_u64(bias, img->align) - round_down_u64(img->lo, img->align);
	}
	if (img->hi + bias > ARCH_TASK_SIZE || img->hi + bias < img->hi - img->lo)
		return -ENOMEM;
	for (i = 0; i < img->nsegs; i++) {
		err = map_segment(args, mm, file, &img->segs[i], bias, i == 0);
		if (err)
			return err;
	}
	ret->bias = bias;
	ret->entry = img->hdr.entry + bias;
	return ret->entry < ARCH_TASK_SIZE ? 0 : -EINVAL;
}

void loader_prefault(struct mm *mm, const struct elf_image *img, const struct loaded_image *at)
{
	int signo, sicode;
	unsigned i;

	for (i = 0; i < img->nsegs; i++) {
		const struct elf_segment *seg = &img->segs[i];
		uint64_t addr = at->bias + seg->vaddr;
		unsigned access = MEM_READ;

		if (!seg->filesz || !(seg->prot & PROT_READ))
			continue;
		/* Relocation writes to all of a small data segment anyway. */
		if ((seg->prot & PROT_WRITE) && seg->filesz <= MEM_CHUNK_SIZE)
			access = MEM_WRITE;
		else if (img->hdr.entry >= seg->vaddr && img->hdr.entry - seg->vaddr < seg->filesz)
			addr = at->entry;
		/* Best effort: what fails here is the program's fault to meet. */
		if (mm_fault(mm, addr, access, &signo, &sicode))
			continue;
	}
}

void loader_prefault_vdso(struct mm *mm, uint64_t vdso)
{
	int signo, sicode;

	/* The image, and the data page below it. */
	if (vdso && (mm_fault(mm, vdso, MEM_EXEC, &signo, &sicode) ||
		     mm_fault(mm, vdso - MOAT_PAGE_SIZE, MEM_READ, &signo, &sicode)))
		return;
}
