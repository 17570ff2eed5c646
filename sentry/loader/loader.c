/*
 * sentry/loader/loader.c - execve's image: finds the format, follows `#!`, maps, builds the stack.
 *
 * Organised: elf.c reads headers (pure, fuzzed), map.c maps segments, stack.c lays out the stack,
 * vdso.c keeps the clock page. A load fills a new mm; whatever fails, the mm goes and the caller
 * still runs the old image.
 *
 * Performs: three reads of a file (head, program headers, interpreter's path) and one fault a segment
 * made ahead: text comes in windows of 2 MiB, small data is copied before it is first written.
 *
 * Differs from Linux: what Linux discovers after its point of no return (a segment that cannot be mapped)
 * kills the process there; here it is an errno, since the old image still exists.
 *
 * Cannot do: a.out, flat, 32-bit, binfmt_misc.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "sentry/loader/internal.h"
#include "vfs/file.h"

#define ELF_ET_DYN_BASE (ARCH_TASK_SIZE / 3 * 2)
#define MMAP_RND_LIMIT (1ul << 28) /* pages: vm.mmap_rnd_bits */
#define STACK_RND_LIMIT (1ul << 22) /* pages */
#define BRK_RND_LIMIT (1ul << 25) /* bytes */
#define MMAP_GAP_MIN (128ul << 20)
#define MMAP_GAP_MAX (ARCH_TASK_SIZE / 6 * 5)
#define STACK_GUARD_GAP (256 * MOAT_PAGE_SIZE)

/* What a chain of #! makes of argv. */
struct exec_chain {
	struct file *file; /* a reference */
	char **argv; /* owned array; strings are the caller's or in `own` */
	size_t argc;
	char *own[LOADER_INTERP_MAX * 2 + 2];
	unsigned nown;
	char head[SCRIPT_HEAD_SIZE];
};

static char *chain_dup(struct exec_chain *ch, const char *s)
{
	char *copy = strdup(s);

	if (copy)
		ch->own[ch->nown++] = copy;
	return copy;
}

static void chain_fini(struct exec_chain *ch)
{
	while (ch->nown)
		free(ch->own[--ch->nown]);
	free(ch->argv);
	if (ch->file)
		file_unref(ch->file);
}

/* The file's first bytes, zero-filled. */
static int chain_read_head(struct exec_chain *ch)
{
	ssize_t n;

	memset(ch->head, 0, sizeof(ch->head));
	n = file_read_kernel(ch->file, ch->head, sizeof(ch->head), 0);
	return n < 0 ? (int)n : 0;
}

/* argv becomes interpreter, [argument], script, argv[1] ... */
static int chain_shift(struct exec_chain *ch, const char *interp, const char *arg,
		       const char *script)
{
	size_t extra = *arg ? 3 : 2, rest = ch->argc ? ch->argc - 1 : 0, n = 0;
	char **argv = calloc(extra + rest + 1, sizeof(*argv));

	if (!argv)
		return -ENOMEM;
	argv[n++] = chain_dup(ch, interp);
	if (*arg)
		argv[n++] = chain_dup(ch, arg);
	/* A deeper script's name is the interpreter string that we own; the first one's is the caller's. */
	argv[n++] = (char *)(uintptr_t)script;
	if (!argv[0] || !argv[n - 2]) {
		free(argv);
		return -ENOMEM;
	}
	if (rest)
		memcpy(&argv[n], ch->argv + 1, rest * sizeof(*argv));
	free(ch->argv);
	ch->argv = argv;
	ch->argc = n + rest;
	return 0;
}

/* Follows scripts to a file that is none. Return: 0 with its head read. */
static int chain_resolve(const struct loader_args *args, struct exec_chain *ch)
{
	const char *script = args->filename;
	unsigned depth;
	int err;

	for (depth = 0;; depth++) {
		char interp[SCRIPT_HEAD_SIZE], arg[SCRIPT_HEAD_SIZE];
		struct file *next;

		err = chain_read_head(ch);
		if (err)
			return err;
		if (ch->head[0] != '#' || ch->head[1] != '!')
			return 0;
		err = script_parse(ch->head, interp, arg);
		if (err)
			return err;
		if (depth >= LOADER_INTERP_MAX)
			return -ELOOP;
		err = chain_shift(ch, interp, arg, script);
		if (err)
			return err;
		script = ch->argv[0];
		err = args->open_exec(args->open_arg, interp, &next);
		if (err)
			return err;
		file_unref(ch->file);
		ch->file = next;
	}
}

/* Headers of `file`; `bad` is the errno for a file that is no ELF image for us. */
static int read_image(struct file *file, const void *head, size_t head_size, int bad,
		      struct elf_image *ret)
{
	struct elf_header hdr;
	void *phdrs;
	ssize_t n;
	int err = elf_parse_header(head, head_size, &hdr);

	if (err)
		return bad;
	if (!file_mappable(file))
		return bad;
	phdrs = malloc(hdr.phsize);
	if (!phdrs)
		return -ENOMEM;
	n = file_read_kernel(file, phdrs, hdr.phsize, hdr.phoff);
	if (n < 0 || (size_t)n != hdr.phsize)
		err = bad;
	else
		err = elf_parse_phdrs(&hdr, phdrs, ret);
	free(phdrs);
	return err == -ENOEXEC ? bad : err;
}

/* Opens the interpreter that img names, and reads its headers. */
static int open_interp(const struct loader_args *args, struct file *file,
		       const struct elf_image *img, struct file **ret_file,
		       struct elf_image *ret_img)
{
	char path[ELF_INTERP_MAX], head[ELF_EHDR_SIZE];
	struct file *interp;
	ssize_t n = file_read_kernel(file, path, img->interp_size, img->interp_off);
	int err;

	if (n < 0)
		return (int)n;
	if ((size_t)n != img->interp_size)
		return -EIO;
	if (path[n - 1])
		return -ENOEXEC;
	err = args->open_exec(args->open_arg, path, &interp);
	if (err)
		return err;
	n = file_read_kernel(interp, head, sizeof(head), 0);
	if (n >= 0 && (size_t)n != sizeof(head))
		n = -EIO;
	err = n < 0 ? (int)n : read_image(interp, head, sizeof(head), -ELIBBAD, ret_img);
	if (err) {
		file_unref(interp);
		return err;
	}
	*ret_file = interp;
	return 0;
}

/* mmap_base and the stack's top, before anything is mapped. */
static uint64_t place_layout(const struct loader_args *args, struct mm_layout *l)
{
	uint64_t gap = args->stack_rlimit, pad = STACK_GUARD_GAP;

	if (!args->no_randomize)
		pad += STACK_RND_LIMIT << MOAT_PAGE_SHIFT;
	if (gap + pad > gap)
		gap += pad;
	gap = MAX(gap, MMAP_GAP_MIN);
	gap = MIN(gap, MMAP_GAP_MAX);
	l->mmap_base =
		(ARCH_TASK_SIZE - gap - (loader_random(args, MMAP_RND_LIMIT) << MOAT_PAGE_SHIFT)) &
		MOAT_PAGE_MASK;
	return ARCH_TASK_SIZE - (loader_random(args, STACK_RND_LIMIT) << MOAT_PAGE_SHIFT);
}

/* The images are mapped; the words of the layout that come from them. */
static void image_layout(const struct loader_args *args, const struct elf_image *img,
			 const struct loaded_image *at, struct mm_layout *l)
{
	uint64_t brk = round_up_u64(at->bias + img->brk, MOAT_PAGE_SIZE);

	l->start_code = at->bias + img->start_code;
	l->end_code = at->bias + img->end_code;
	l->start_data = at->bias + img->start_data;
	l->end_data = at->bias + img->end_data;
	/* A static PIE lies among the mappings: its heap goes where a PIE's would. */
	if (img->hdr.dyn && !img->has_interp && !args->no_randomize)
		brk = round_up_u64(ELF_ET_DYN_BASE, MOAT_PAGE_SIZE);
	brk += loader_random(args, BRK_RND_LIMIT) & MOAT_PAGE_MASK;
	l->start_brk = brk;
	l->brk = brk;
}

struct load_state {
	struct exec_chain chain;
	struct elf_image img, interp_img;
	struct file *interp;
	struct mm *mm;
};

static void load_fini(struct load_state *ls)
{
	if (ls->mm)
		mm_unref(ls->mm);
	if (ls->interp)
		file_unref(ls->interp);
	elf_image_fini(&ls->img);
	elf_image_fini(&ls->interp_img);
	chain_fini(&ls->chain);
}

static int load_map(const struct loader_args *args, struct load_state *ls,
		    struct loader_result *ret)
{
	struct loaded_image exe, interp = {0};
	struct mm_layout l;
	struct stack_args sa;
	uint64_t bias = UINT64_MAX, top;
	int err;

	mm_get_layout(ls->mm, &l);
	top = place_layout(args, &l);
	mm_set_layout(ls->mm, &l);
	mm_set_stack_limit(ls->mm, args->stack_rlimit);
	if (ls->img.has_interp)
		bias = ELF_ET_DYN_BASE + (loader_random(args, MMAP_RND_LIMIT) << MOAT_PAGE_SHIFT);
	err = loader_map_image(args, ls->mm, ls->chain.file, &ls->img, bias, &exe);
	if (err)
		return err;
	ret->entry = exe.entry;
	if (ls->interp) {
		err = loader_map_image(args, ls->mm, ls->interp, &ls->interp_img, UINT64_MAX,
				       &interp);
		if (err)
			return err;
		ret->entry = interp.entry;
	}
	image_layout(args, &ls->img, &exe, &l);
	err = vdso_map(ls->mm, &l.vdso);
	if (err)
		return err;
	sa = (struct stack_args){
		.args = args,
		.filename = args->filename,
		.argv = ls->chain.argv,
		.argc = ls->chain.argc,
		.img = &ls->img,
		.exe = exe,
		.interp_base = interp.bias,
		.vdso = l.vdso,
		.top = top,
	};
	err = loader_build_stack(&sa, ls->mm, &l, &ret->sp);
	if (err)
		return err;
	mm_set_layout(ls->mm, &l);
	loader_prefault(ls->mm, &ls->img, &exe);
	if (ls->interp)
		loader_prefault(ls->mm, &ls->interp_img, &interp);
	loader_prefault_vdso(ls->mm, l.vdso);
	return 0;
}

static void set_comm(const char *filename, char comm[16])
{
	const char *slash = strrchr(filename, '/');

	memset(comm, 0, 16);
	strncpy(comm, slash ? slash + 1 : filename, 15);
}

int loader_load(const struct loader_args *args, struct loader_result *ret)
{
	static const char *const no_argv[] = {""};
	struct load_state ls = {0};
	size_t argc = args->argc;
	int err = -ENOMEM;

	ls.chain.file = file_ref(args->file);
	/* No argv at all: Linux runs the program with an empty argv[0]. */
	ls.chain.argv = calloc(MAX(argc, 1ul) + 1, sizeof(char *));
	if (!ls.chain.argv)
		goto out;
	memcpy(ls.chain.argv, argc ? (const void *)args->argv : (const void *)no_argv,
	       MAX(argc, 1ul) * sizeof(char *));
	ls.chain.argc = MAX(argc, 1ul);
	err = chain_resolve(args, &ls.chain);
	if (err)
		goto out;
	err = read_image(ls.chain.file, ls.chain.head, sizeof(ls.chain.head), -ENOEXEC, &ls.img);
	if (err)
		goto out;
	if (ls.img.has_interp) {
		err = open_interp(args, ls.chain.file, &ls.img, &ls.interp, &ls.interp_img);
		if (err)
			goto out;
	}
	err = mm_create(args->platform, &ls.mm);
	if (err)
		goto out;
	err = load_map(args, &ls, ret);
	if (err)
		goto out;
	set_comm(args->filename, ret->comm);
	ret->mm = ls.mm;
	ls.mm = NULL;
	ret->exe = file_ref(ls.chain.file);
out:
	load_fini(&ls);
	return err;
}
