/*
 * sentry/loader/stack.c - the first stack: strings, then argc, argv, envp and the auxiliary vector, as
 * Linux's create_elf_tables() lays them out. Built in one buffer, copied out once.
 */
#include <cpuid.h>
#include <elf.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>

#include "sentry/loader/internal.h"
#include "vfs/cred.h"

#define AT_RSEQ_FEATURE_SIZE_ 27
#define AT_RSEQ_ALIGN_ 28
#define AT_MINSIGSTKSZ_ 51
#define HWCAP2_FSGSBASE_ 2u

#define STACK_EXTRA (128ul << 10) /* mapped below the first stack pointer */
#define STACK_ARG_MIN (32 * MOAT_PAGE_SIZE) /* ARG_MAX: always allowed */
#define STACK_ARG_MAX (6ul << 20) /* 3/4 of _STK_LIM: never more */
#define SIGFRAME_SIZE 440u /* struct rt_sigframe */

/* A buffer whose end is the stack's top. */
struct stack_build {
	char *buf;
	uint64_t top; /* address of the buffer's end */
	uint64_t size; /* bytes of it */
	uint64_t sp; /* lowest address used */
};

uint64_t loader_random(const struct loader_args *args, uint64_t limit)
{
	uint64_t v;

	if (args->no_randomize || getrandom(&v, sizeof(v), 0) != sizeof(v))
		return 0;
	return v & (limit - 1);
}

static char *stack_at(struct stack_build *sb, uint64_t addr)
{
	assert(addr <= sb->top && sb->top - addr <= sb->size);
	return sb->buf + (sb->size - (sb->top - addr));
}

static uint64_t push_bytes(struct stack_build *sb, const void *src, size_t size)
{
	sb->sp -= size;
	memcpy(stack_at(sb, sb->sp), src, size);
	return sb->sp;
}

/* Strings in order, the first lowest. Return: where the first is. */
static uint64_t push_strings(struct stack_build *sb, char *const *v, size_t count)
{
	size_t i;

	for (i = count; i > 0; i--)
		push_bytes(sb, v[i - 1], strlen(v[i - 1]) + 1);
	return sb->sp;
}

static int strings_size(char *const *v, size_t count, uint64_t *inout_size)
{
	size_t i;

	for (i = 0; i < count; i++) {
		size_t len = strnlen(v[i], LOADER_ARG_STRLEN_MAX);

		if (len == LOADER_ARG_STRLEN_MAX)
			return -E2BIG;
		*inout_size += len + 1;
	}
	return 0;
}

/* Bytes of all strings, within what Linux allows (prepare_arg_pages, bprm_stack_limits). */
static int check_sizes(const struct stack_args *sa, uint64_t *ret_size)
{
	const struct loader_args *args = sa->args;
	uint64_t limit = MIN(STACK_ARG_MAX, args->stack_rlimit / 4), size = 8;
	uint64_t ptrs = (sa->argc + args->envc) * sizeof(uint64_t);
	int err;

	limit = MAX(limit, STACK_ARG_MIN);
	if (limit <= ptrs)
		return -E2BIG;
	size += strnlen(sa->filename, LOADER_ARG_STRLEN_MAX) + 1;
	err = strings_size(args->envp, args->envc, &size);
	if (!err)
		err = strings_size(sa->argv, sa->argc, &size);
	if (err)
		return err;
	if (size > limit - ptrs)
		return -E2BIG;
	*ret_size = size;
	return 0;
}

static uint64_t min_sigstack(const struct loader_args *args)
{
	const struct platform_ops *ops = args->platform->ops;
	uint64_t fpu = ops->fpu_size ? ops->fpu_size(args->platform) : 4096;

	/* Frame, FPU state with its trailing magic, and their alignment. */
	return round_up_u64(SIGFRAME_SIZE + 64 + fpu + 4 + 63, 16);
}

struct auxv {
	uint64_t words[64];
	unsigned count;
};

static void aux_add(struct auxv *av, uint64_t type, uint64_t val)
{
	assert(av->count + 2 <= ARRAY_SIZE(av->words));
	av->words[av->count++] = type;
	av->words[av->count++] = val;
}

static void cpu_hwcaps(uint64_t *ret_hwcap, uint64_t *ret_hwcap2)
{
	unsigned a, b, c, d;

	*ret_hwcap = __get_cpuid(1, &a, &b, &c, &d) ? d : 0;
	*ret_hwcap2 = __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & 1) ? HWCAP2_FSGSBASE_ : 0;
}

static void fill_auxv(const struct stack_args *sa, uint64_t random_at, uint64_t platform_at,
		      uint64_t execfn_at, struct auxv *av)
{
	const struct cred *cred = sa->args->cred;
	uint64_t hwcap, hwcap2;

	cpu_hwcaps(&hwcap, &hwcap2);
	if (sa->vdso)
		aux_add(av, AT_SYSINFO_EHDR, sa->vdso);
	aux_add(av, AT_MINSIGSTKSZ_, min_sigstack(sa->args));
	aux_add(av, AT_HWCAP, hwcap);
	aux_add(av, AT_PAGESZ, MOAT_PAGE_SIZE);
	aux_add(av, AT_CLKTCK, 100);
	aux_add(av, AT_PHDR, sa->img->phdr_vaddr ? sa->img->phdr_vaddr + sa->exe.bias : 0);
	aux_add(av, AT_PHENT, ELF_PHDR_SIZE);
	aux_add(av, AT_PHNUM, sa->img->hdr.phnum);
	aux_add(av, AT_BASE, sa->interp_base);
	aux_add(av, AT_FLAGS, 0);
	aux_add(av, AT_ENTRY, sa->exe.entry);
	aux_add(av, AT_UID, cred->uid);
	aux_add(av, AT_EUID, cred->euid);
	aux_add(av, AT_GID, cred->gid);
	aux_add(av, AT_EGID, cred->egid);
	aux_add(av, AT_SECURE, sa->args->secure);
	aux_add(av, AT_RANDOM, random_at);
	aux_add(av, AT_HWCAP2, hwcap2);
	aux_add(av, AT_EXECFN, execfn_at);
	aux_add(av, AT_PLATFORM, platform_at);
	aux_add(av, AT_RSEQ_FEATURE_SIZE_, 28);
	aux_add(av, AT_RSEQ_ALIGN_, 32);
	aux_add(av, AT_NULL, 0);
}

/* Pointers to consecutive strings, then NULL. */
static void put_pointers(struct stack_build *sb, uint64_t *inout_pos, uint64_t string, size_t count)
{
	uint64_t zero = 0;
	size_t i;

	for (i = 0; i < count; i++) {
		memcpy(stack_at(sb, *inout_pos), &string, sizeof(string));
		*inout_pos += sizeof(string);
		string += strlen(stack_at(sb, string)) + 1;
	}
	memcpy(stack_at(sb, *inout_pos), &zero, sizeof(zero));
	*inout_pos += sizeof(zero);
}

static int fill_stack(const struct stack_args *sa, struct stack_build *sb, struct mm_layout *l)
{
	const struct loader_args *args = sa->args;
	uint64_t random_bytes[2], argc = sa->argc, pos, execfn, random_at, platform_at;
	struct auxv av = {.count = 0};

	sb->sp -= 8; /* Linux leaves a NULL at the very top */
	execfn = push_bytes(sb, sa->filename, strlen(sa->filename) + 1);
	l->env_end = sb->sp;
	l->env_start = push_strings(sb, args->envp, args->envc);
	l->arg_end = l->env_start;
	l->arg_start = push_strings(sb, sa->argv, sa->argc);
	sb->sp = round_down_u64(sb->sp - loader_random(args, 8192), 16);
	platform_at = push_bytes(sb, "x86_64", 7);
	if (getrandom(random_bytes, sizeof(random_bytes), 0) != sizeof(random_bytes))
		return -EIO;
	random_at = push_bytes(sb, random_bytes, sizeof(random_bytes));
	fill_auxv(sa, random_at, platform_at, execfn, &av);
	sb->sp = round_down_u64(sb->sp - av.count * sizeof(uint64_t), 16);
	sb->sp = round_down_u64(sb->sp - (1 + argc + 1 + args->envc + 1) * sizeof(uint64_t), 16);
	pos = sb->sp;
	memcpy(stack_at(sb, pos), &argc, sizeof(argc));
	pos += sizeof(argc);
	put_pointers(sb, &pos, l->arg_start, sa->argc);
	put_pointers(sb, &pos, l->env_start, args->envc);
	memcpy(stack_at(sb, pos), av.words, av.count * sizeof(uint64_t));
	memcpy(l->auxv, av.words, av.count * sizeof(uint64_t));
	l->auxv_count = av.count;
	l->start_stack = sb->sp;
	return 0;
}

static int map_stack(const struct stack_args *sa, struct mm *mm, uint64_t sp)
{
	uint64_t room = MIN(MAX(sa->args->stack_rlimit, sa->top - sp), sa->top / 2);
	uint64_t start = (sp & MOAT_PAGE_MASK) - STACK_EXTRA, addr;
	struct mm_map_args map = {
		.prot = PROT_READ | PROT_WRITE | (sa->img->exec_stack ? PROT_EXEC : 0),
		.max_prot = PROT_READ | PROT_WRITE | PROT_EXEC,
		.fixed_noreplace = true,
		.grows_down = true,
		.stack = true,
		.name = "[stack]",
	};

	if (sa->top - start > room)
		start = (sa->top - room) & MOAT_PAGE_MASK;
	start = MIN(start, sp & MOAT_PAGE_MASK);
	map.addr = start;
	map.size = sa->top - start;
	return mm_map(mm, &map, sa->args->limits, &addr);
}

int loader_build_stack(const struct stack_args *sa, struct mm *mm, struct mm_layout *layout,
		       uint64_t *ret_sp)
{
	struct stack_build sb = {.top = sa->top, .sp = sa->top};
	uint64_t strings = 0;
	int err = check_sizes(sa, &strings);

	if (err)
		return err;
	/* Strings, random shift and alignment, random bytes and platform, vectors. */
	sb.size = strings + 8192 + 256 + sizeof(struct auxv) +
		  (3 + sa->argc + sa->args->envc) * sizeof(uint64_t);
	sb.buf = calloc(1, sb.size);
	if (!sb.buf)
		return -ENOMEM;
	err = fill_stack(sa, &sb, layout);
	if (err)
		goto out;
	err = map_stack(sa, mm, sb.sp);
	if (err)
		goto out;
	if (mm_copy_out(mm, sb.sp, stack_at(&sb, sb.sp), sa->top - sb.sp))
		err = -ENOMEM;
	*ret_sp = sb.sp;
out:
	free(sb.buf);
	return err;
}
