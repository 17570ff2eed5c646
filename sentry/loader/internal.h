/* sentry/loader/internal.h - what the loader's files share. */
#ifndef MOAT_SENTRY_LOADER_INTERNAL_H
#define MOAT_SENTRY_LOADER_INTERNAL_H

#include "sentry/loader.h"
#include "sentry/loader/elf.h"

/* An image mapped into the new mm. */
struct loaded_image {
	uint64_t bias; /* added to every vaddr */
	uint64_t entry;
};

/* map.c: maps img's segments. `bias` is where an ET_DYN image goes; UINT64_MAX lets mmap choose. */
must_check int loader_map_image(const struct loader_args *args, struct mm *mm, struct file *file,
				const struct elf_image *img, uint64_t bias,
				struct loaded_image *ret);
/* Maps around what the program touches first, so that its start costs few exits. */
void loader_prefault(struct mm *mm, const struct elf_image *img, const struct loaded_image *at);

void loader_prefault_vdso(struct mm *mm, uint64_t vdso);

/* stack.c */
struct stack_args {
	const struct loader_args *args;
	const char *filename;
	char *const *argv; /* final: after #! */
	size_t argc;
	const struct elf_image *img;
	struct loaded_image exe;
	uint64_t interp_base;
	uint64_t vdso;
	uint64_t top; /* STACK_TOP, page-aligned */
};
must_check int loader_build_stack(const struct stack_args *sa, struct mm *mm,
				  struct mm_layout *layout, uint64_t *ret_sp);

/* Random bits below `limit` (a power of two), or 0 with no_randomize. */
uint64_t loader_random(const struct loader_args *args, uint64_t limit);

#endif
