/*
 * sentry/loader.h - execve's work on an image: ELF (static, PIE, interpreter), `#!` scripts, the stack.
 *
 * Builds a new mm; nothing of the caller changes until it succeeds. Every field of the file is read once and checked.
 */
#ifndef MOAT_SENTRY_LOADER_H
#define MOAT_SENTRY_LOADER_H

#include "sentry/mm.h"

struct cred;
struct file;

#define LOADER_INTERP_MAX 5 /* nested #! */
#define LOADER_ARG_STRLEN_MAX (32 * 4096)
#define LOADER_PHDRS_MAX 65536 /* bytes of program headers, as Linux's ELF_MIN_ALIGN rule */

struct loader_args {
	struct platform *platform;
	struct file *file; /* the executable, opened for exec; borrowed */
	const char *filename; /* as execve got it (AT_EXECFN) */
	char *const *argv, *const *envp; /* sentry strings */
	size_t argc, envc;
	const struct mm_limits *limits;
	uint64_t stack_rlimit;
	const struct cred *cred; /* for AT_UID ...: the new credentials */
	bool secure; /* AT_SECURE */
	bool no_randomize; /* personality ADDR_NO_RANDOMIZE */
	/* Opens an interpreter by path for execution in the caller's fs context. Returns a reference. */
	int (*open_exec)(void *arg, const char *path, struct file **ret_file);
	void *open_arg;
};

struct loader_result {
	struct mm *mm; /* a reference */
	uint64_t entry, sp;
	struct file *exe; /* a reference: the file that runs (the script's interpreter for #!) */
	char comm[16];
};

/*
 * Return: 0, -ENOEXEC, -EACCES, -ELIBBAD, -ENOENT (interpreter), -E2BIG, -ENOMEM, -EINVAL, -ELOOP, -EIO.
 */
must_check int loader_load(const struct loader_args *args, struct loader_result *ret);

/* The vDSO: one image per sandbox and a seqlocked page of time parameters (see vdso/). */
must_check int vdso_init(void);
must_check int vdso_map(struct mm *mm, uint64_t *ret_base);
/* Draws the clocks' next lines now. */
void vdso_update_time(void);
/* The time for a system call, by the lines that the vDSO reads; they are drawn anew if they have ended. False: there are none, the host's clock is the guest's. */
bool vdso_clock_read(bool monotonic, int64_t *ret_ns);

#endif
