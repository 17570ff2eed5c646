// LINK: moat_loader moat_mm moat_mem
/* execve's images: the host's own programs, scripts, malformed files, the stack, the vDSO. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <dirent.h>
#include <elf.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "base/timer.h"
#include "sentry/loader.h"
#include "sentry/loader/vdso/data.h"
#include "sentry/loader/elf.h"
#include "tests/unit/fake_platform.h"
#include "tests/unit/mm_no_vfs.h"
#include "vfs/cred.h"
#include "vfs/write_access.h"

struct test_file {
	struct file f;
	struct tfile t;
	int fd;
	_Atomic int refs;
};

static _Atomic int open_files;

struct file *file_ref(struct file *f)
{
	container_of(f, struct test_file, f)->refs++;
	return f;
}

void file_unref(struct file *f)
{
	struct test_file *tf = container_of(f, struct test_file, f);

	if (--tf->refs)
		return;
	tfile_fini(&tf->t);
	close(tf->fd);
	free(tf);
	open_files--;
}

ssize_t file_read_kernel(struct file *f, void *buf, size_t size, uint64_t off)
{
	ssize_t n = pread(container_of(f, struct test_file, f)->fd, buf, size, (off_t)off);

	return n < 0 ? -errno : n;
}

struct mappable *file_mappable(struct file *f)
{
	return &container_of(f, struct test_file, f)->t.m;
}

static struct file *file_of_fd(int fd)
{
	struct test_file *tf = calloc(1, sizeof(*tf));
	int dup_fd = dup(fd);

	tf->fd = fd;
	tf->refs = 1;
	tfile_init(&tf->t, 0);
	tf->t.size = (uint64_t)lseek(fd, 0, SEEK_END);
	assert_int_equal(memfile_create_host(dup_fd, MEM_READ | MEM_EXEC, &tf->t.host), 0);
	open_files++;
	return &tf->f;
}

static int open_exec(void *arg, const char *path, struct file **ret)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	(void)arg;
	if (fd < 0)
		return -errno;
	*ret = file_of_fd(fd);
	return 0;
}

static struct file *file_of_bytes(const void *data, size_t size)
{
	int fd = memfd_create("x", 0);

	assert_int_equal(write(fd, data, size), (ssize_t)size);
	return file_of_fd(fd);
}

static const struct cred creds = {.uid = 1000, .euid = 1001, .gid = 1002, .egid = 1003};

static int load_file(struct file *file, const char *name, char *const *argv, size_t argc,
		     char *const *envp, size_t envc, struct loader_result *res)
{
	struct loader_args args = {
		.platform = &fake_platform,
		.file = file,
		.filename = name,
		.argv = argv,
		.argc = argc,
		.envp = envp,
		.envc = envc,
		.limits = &no_limits,
		.stack_rlimit = 8ul << 20,
		.cred = &creds,
		.open_exec = open_exec,
	};

	assert_int_equal(guard_install(), 0);
	return loader_load(&args, res);
}

static int load_bytes(const void *data, size_t size)
{
	char *argv[] = {"x", NULL};
	struct file *f = file_of_bytes(data, size);
	struct loader_result res;
	int err = load_file(f, "x", argv, 1, NULL, 0, &res);

	file_unref(f);
	if (!err) {
		mm_unref(res.mm);
		file_unref(res.exe);
	}
	return err;
}

static uint64_t get64(struct mm *mm, uint64_t addr)
{
	uint64_t v;

	assert_int_equal(mm_copy_in(mm, &v, addr, 8), 0);
	return v;
}

static void check_string(struct mm *mm, uint64_t addr, const char *want)
{
	char buf[256];

	assert_true(mm_copy_in_string(mm, buf, addr, sizeof(buf)) >= 0);
	assert_string_equal(buf, want);
}

static uint64_t aux(struct mm *mm, uint64_t pos, uint64_t type)
{
	for (; get64(mm, pos) != AT_NULL; pos += 16)
		if (get64(mm, pos) == type)
			return get64(mm, pos + 8);
	return UINT64_MAX;
}

static void test_real_program(void **state)
{
	char *argv[] = {"true", "one", "two words", NULL}, *envp[] = {"A=1", "PATH=/bin", NULL};
	struct loader_result res;
	struct mm_layout l;
	struct file *f;
	uint64_t pos, auxv;
	char head[4];

	(void)state;
	assert_int_equal(open_exec(NULL, "/bin/true", &f), 0);
	assert_int_equal(load_file(f, "/bin/true", argv, 3, envp, 2, &res), 0);
	file_unref(f);
	check_mm(res.mm);
	assert_string_equal(res.comm, "true");
	assert_int_equal(res.sp % 16, 0);
	assert_int_equal(get64(res.mm, res.sp), 3);
	for (pos = 0; pos < 3; pos++)
		check_string(res.mm, get64(res.mm, res.sp + 8 + pos * 8), argv[pos]);
	assert_int_equal(get64(res.mm, res.sp + 32), 0);
	check_string(res.mm, get64(res.mm, res.sp + 40), "A=1");
	check_string(res.mm, get64(res.mm, res.sp + 48), "PATH=/bin");
	assert_int_equal(get64(res.mm, res.sp + 56), 0);
	auxv = res.sp + 64;
	assert_int_equal(aux(res.mm, auxv, AT_UID), 1000);
	assert_int_equal(aux(res.mm, auxv, AT_EGID), 1003);
	assert_int_equal(aux(res.mm, auxv, AT_PAGESZ), 4096);
	assert_int_equal(aux(res.mm, auxv, AT_SECURE), 0);
	assert_int_equal(aux(res.mm, auxv, AT_PHENT), 56);
	check_string(res.mm, aux(res.mm, auxv, AT_EXECFN), "/bin/true");
	check_string(res.mm, aux(res.mm, auxv, AT_PLATFORM), "x86_64");
	assert_int_not_equal(aux(res.mm, auxv, AT_RANDOM), UINT64_MAX);
	/* The interpreter and the vDSO are where they say. */
	assert_int_equal(mm_copy_in(res.mm, head, aux(res.mm, auxv, AT_BASE), 4), 0);
	assert_memory_equal(head, ELFMAG, 4);
	assert_int_equal(mm_copy_in(res.mm, head, aux(res.mm, auxv, AT_SYSINFO_EHDR), 4), 0);
	assert_memory_equal(head, ELFMAG, 4);
	assert_true(res.entry > aux(res.mm, auxv, AT_BASE));
	/* PT_PHDR's own first header. */
	assert_int_equal((uint32_t)get64(res.mm, aux(res.mm, auxv, AT_PHDR)), PT_PHDR);
	assert_int_equal(app_load(res.mm, res.entry, head), 0);
	mm_get_layout(res.mm, &l);
	assert_int_equal(l.start_stack, res.sp);
	assert_true(l.arg_start < l.arg_end && l.arg_end == l.env_start && l.env_start < l.env_end);
	assert_true(l.start_code < l.end_code && l.start_data < l.end_data && l.brk >= l.end_data);
	check_string(res.mm, l.arg_start, "true");
	mm_unref(res.mm);
	file_unref(res.exe);
}

/* Every ELF program of the host loads; the text that is mapped is the file's. */
static void test_host_programs(void **state)
{
	DIR *dir = opendir("/usr/bin");
	char *argv[] = {"x", NULL};
	struct dirent *de;
	unsigned loaded = 0;

	(void)state;
	while ((de = readdir(dir)) && loaded < 60) {
		char path[512];
		struct loader_result res;
		struct file *f;
		int err;

		snprintf(path, sizeof(path), "/usr/bin/%s", de->d_name);
		if (de->d_type != DT_REG || open_exec(NULL, path, &f))
			continue;
		err = load_file(f, path, argv, 1, NULL, 0, &res);
		file_unref(f);
		if (err) {
			/* A text without #!, or an interpreter that is not installed. */
			assert_true(err == -ENOEXEC || err == -ENOENT);
			continue;
		}
		check_mm(res.mm);
		mm_unref(res.mm);
		file_unref(res.exe);
		loaded++;
	}
	closedir(dir);
	assert_true(loaded > 10);
}

static void test_scripts(void **state)
{
	static const struct {
		const char *line, *interp, *arg;
		int err;
	} table[] = {
		{"#!/bin/sh\n", "/bin/sh", "", 0},
		{"#! \t/bin/sh  -x  y \t\nrest", "/bin/sh", "-x  y", 0},
		{"#!/bin/sh", "/bin/sh", "", 0},
		{"#!\n", "", "", -ENOEXEC},
		{"#!   \n", "", "", -ENOEXEC},
		{"#!", "", "", -ENOEXEC},
		{"#/bin/sh\n", "", "", -ENOEXEC},
	};
	char *argv[] = {"zero", "one", NULL}, long_line[400], interp[256], arg[256];
	struct loader_result res;
	struct file *f;
	unsigned i;

	(void)state;
	for (i = 0; i < ARRAY_SIZE(table); i++) {
		char head[SCRIPT_HEAD_SIZE] = {0};

		strcpy(head, table[i].line);
		assert_int_equal(script_parse(head, interp, arg), table[i].err);
		if (!table[i].err) {
			assert_string_equal(interp, table[i].interp);
			assert_string_equal(arg, table[i].arg);
		}
	}
	/* A path cut by the 256 bytes is refused, a cut argument is not. */
	memset(long_line, 'a', sizeof(long_line));
	memcpy(long_line, "#!/", 3);
	assert_int_equal(script_parse(long_line, interp, arg), -ENOEXEC);
	memcpy(long_line, "#!/b ", 5);
	assert_int_equal(script_parse(long_line, interp, arg), 0);
	assert_string_equal(interp, "/b");
	f = file_of_bytes("#!/bin/sh -e\n", 13);
	assert_int_equal(load_file(f, "./script", argv, 2, NULL, 0, &res), 0);
	file_unref(f);
	assert_string_equal(res.comm, "script");
	assert_int_equal(get64(res.mm, res.sp), 4);
	check_string(res.mm, get64(res.mm, res.sp + 8), "/bin/sh");
	check_string(res.mm, get64(res.mm, res.sp + 16), "-e");
	check_string(res.mm, get64(res.mm, res.sp + 24), "./script");
	check_string(res.mm, get64(res.mm, res.sp + 32), "one");
	check_string(res.mm, aux(res.mm, res.sp + 56, AT_EXECFN), "./script");
	mm_unref(res.mm);
	file_unref(res.exe);
	assert_int_equal(load_bytes("#!/does/not/exist\n", 18), -ENOENT);
	assert_int_equal(load_bytes("", 0), -ENOEXEC);
	assert_int_equal(load_bytes("echo hi\n", 8), -ENOEXEC);
}

static void test_script_depth(void **state)
{
	char path[2][64], line[80];
	char *argv[] = {"x", NULL};
	struct loader_result res;
	struct file *f;
	int fd, i, err;

	(void)state;
	/* A script that is its own interpreter. */
	snprintf(path[0], sizeof(path[0]), "/tmp/moat-loader-%d", getpid());
	fd = open(path[0], O_CREAT | O_RDWR | O_TRUNC, 0700);
	i = snprintf(line, sizeof(line), "#!%s\n", path[0]);
	assert_int_equal(write(fd, line, (size_t)i), i);
	f = file_of_fd(fd);
	err = load_file(f, path[0], argv, 1, NULL, 0, &res);
	file_unref(f);
	unlink(path[0]);
	assert_int_equal(err, -ELOOP);
}

/* A static program of one page of text and one of data with bss. */
struct small_elf {
	Elf64_Ehdr eh;
	Elf64_Phdr ph[3];
	char pad[4096 - sizeof(Elf64_Ehdr) - 3 * sizeof(Elf64_Phdr)];
	char data[4096];
};

static void small_elf_init(struct small_elf *e)
{
	memset(e, 0, sizeof(*e));
	memcpy(e->eh.e_ident, ELFMAG, 4);
	e->eh.e_ident[EI_CLASS] = ELFCLASS64;
	e->eh.e_ident[EI_DATA] = ELFDATA2LSB;
	e->eh.e_type = ET_EXEC;
	e->eh.e_machine = EM_X86_64;
	e->eh.e_phoff = sizeof(e->eh);
	e->eh.e_phentsize = 56;
	e->eh.e_phnum = 3;
	e->eh.e_entry = 0x400100;
	e->ph[0] = (Elf64_Phdr){.p_type = PT_LOAD,
				.p_flags = PF_R | PF_X,
				.p_vaddr = 0x400000,
				.p_filesz = 4096,
				.p_memsz = 4096,
				.p_align = 4096};
	e->ph[1] = (Elf64_Phdr){.p_type = PT_LOAD,
				.p_flags = PF_R | PF_W,
				.p_offset = 4096,
				.p_vaddr = 0x402000,
				.p_filesz = 100,
				.p_memsz = 10000,
				.p_align = 4096};
	e->ph[2] = (Elf64_Phdr){.p_type = PT_GNU_STACK, .p_flags = PF_R | PF_W};
	memset(e->data, 0x77, sizeof(e->data));
}

static int small_elf_load(const struct small_elf *e)
{
	return load_bytes(e, sizeof(*e));
}

static void test_small_elf(void **state)
{
	struct small_elf e;
	char *argv[] = {"x", NULL}, page[4096], zero[4096] = {0};
	struct loader_result res;
	struct file *f;

	(void)state;
	small_elf_init(&e);
	f = file_of_bytes(&e, sizeof(e));
	assert_int_equal(load_file(f, "x", argv, 1, NULL, 0, &res), 0);
	file_unref(f);
	assert_int_equal(res.entry, 0x400100);
	assert_int_equal(mm_copy_in(res.mm, page, 0x402000, 4096), 0);
	assert_memory_equal(page, e.data, 100);
	assert_memory_equal(page + 100, zero, 3996);
	assert_int_equal(mm_copy_in(res.mm, page, 0x403000, 4096), 0);
	assert_memory_equal(page, zero, 4096);
	assert_int_equal(mm_copy_in(res.mm, page, 0x404000, 4096), 0);
	assert_int_equal(mm_copy_in(res.mm, page, 0x405000, 1), -EFAULT);
	assert_int_equal(aux(res.mm, res.sp + 32, AT_PHDR), 0x400040);
	mm_unref(res.mm);
	file_unref(res.exe);
}

static void test_malformed(void **state)
{
	static const struct {
		size_t off, size;
		uint64_t val;
		int err;
	} table[] = {
#define EH(field) offsetof(struct small_elf, eh.field), sizeof(((struct small_elf *)0)->eh.field)
#define PH(i, field) \
	offsetof(struct small_elf, ph[i].field), sizeof(((struct small_elf *)0)->ph[i].field)
		{0, 1, 0x7e, -ENOEXEC},
		{EI_CLASS, 1, ELFCLASS32, -ENOEXEC},
		{EI_DATA, 1, ELFDATA2MSB, -ENOEXEC},
		{EH(e_type), ET_REL, -ENOEXEC},
		{EH(e_type), ET_CORE, -ENOEXEC},
		{EH(e_machine), EM_AARCH64, -ENOEXEC},
		{EH(e_phentsize), 55, -ENOEXEC},
		{EH(e_phnum), 0, -ENOEXEC},
		{EH(e_phnum), 65535, -ENOEXEC},
		{EH(e_phnum), 1000, -ENOEXEC},
		{EH(e_phoff), UINT64_MAX, -ENOEXEC},
		{EH(e_phoff), 1ul << 40, -ENOEXEC},
		{EH(e_entry), UINT64_MAX, -EINVAL},
		{EH(e_version), 99, 0},
		{PH(0, p_offset), 1, -EINVAL},
		{PH(0, p_offset), UINT64_MAX - 4095, -EINVAL},
		{PH(0, p_filesz), UINT64_MAX, -EINVAL},
		{PH(0, p_filesz), 4097, -EINVAL},
		{PH(0, p_memsz), UINT64_MAX, -EINVAL},
		{PH(0, p_vaddr), UINT64_MAX & ~4095ul, -EINVAL},
		{PH(0, p_vaddr), ARCH_TASK_SIZE, -EINVAL},
		{PH(0, p_vaddr), 0, -EPERM},
		{PH(1, p_vaddr), 0x400000, 0}, /* over the first */
		{PH(1, p_align), 3, 0},
		{PH(1, p_memsz), 1ul << 46, -ENOMEM},
		{PH(2, p_type), PT_INTERP, -ENOEXEC},
	};
	struct small_elf e;
	unsigned i;

	(void)state;
	for (i = 0; i < ARRAY_SIZE(table); i++) {
		int err;

		small_elf_init(&e);
		memcpy((char *)&e + table[i].off, &table[i].val, table[i].size);
		err = small_elf_load(&e);
		if (err != table[i].err)
			print_error("row %u: %d\n", i, err);
		assert_int_equal(err, table[i].err);
	}
	/* No segment at all. */
	small_elf_init(&e);
	e.ph[0].p_type = e.ph[1].p_type = PT_NULL;
	assert_int_equal(small_elf_load(&e), -EINVAL);
	/* Truncated anywhere: an error or a program that faults, never a crash. */
	small_elf_init(&e);
	for (i = 0; i < 300; i += 7)
		assert_true(load_bytes(&e, i) < 0);
	/* An interpreter that is no ELF file. */
	small_elf_init(&e);
	e.ph[2] = (Elf64_Phdr){.p_type = PT_INTERP, .p_offset = 4096, .p_filesz = 12};
	strcpy(e.data, "/etc/passwd");
	assert_int_equal(small_elf_load(&e), -ELIBBAD);
	strcpy(e.data, "/nonexist12");
	assert_int_equal(small_elf_load(&e), -ENOENT);
	e.data[11] = 'x';
	assert_int_equal(small_elf_load(&e), -ENOEXEC);
	e.ph[2].p_offset = 9000;
	assert_int_equal(small_elf_load(&e), -EIO);
}

static void test_arg_limits(void **state)
{
	static char *argv[1 << 17];
	char *big = malloc(LOADER_ARG_STRLEN_MAX + 1);
	struct loader_result res;
	struct file *f;
	size_t i;

	(void)state;
	assert_int_equal(open_exec(NULL, "/bin/true", &f), 0);
	memset(big, 'b', LOADER_ARG_STRLEN_MAX);
	big[LOADER_ARG_STRLEN_MAX] = 0;
	argv[0] = big;
	assert_int_equal(load_file(f, "x", argv, 1, NULL, 0, &res), -E2BIG);
	big[LOADER_ARG_STRLEN_MAX - 1] = 0;
	assert_int_equal(load_file(f, "x", argv, 1, NULL, 0, &res), 0);
	mm_unref(res.mm);
	file_unref(res.exe);
	for (i = 0; i < ARRAY_SIZE(argv); i++)
		argv[i] = "0123456789";
	assert_int_equal(load_file(f, "x", argv, ARRAY_SIZE(argv), NULL, 0, &res), -E2BIG);
	assert_int_equal(load_file(f, "x", argv, 50000, NULL, 0, &res), 0);
	check_string(res.mm, get64(res.mm, res.sp + 8 * 50000), "0123456789");
	mm_unref(res.mm);
	file_unref(res.exe);
	assert_int_equal(load_file(f, "x", NULL, 0, NULL, 0, &res), 0);
	assert_int_equal(get64(res.mm, res.sp), 1);
	check_string(res.mm, get64(res.mm, res.sp + 8), "");
	mm_unref(res.mm);
	file_unref(res.exe);
	file_unref(f);
	free(big);
}

static void *vdso_symbol(char *image, const char *name)
{
	Elf64_Ehdr *eh = (void *)image;
	Elf64_Phdr *ph = (void *)(image + eh->e_phoff);
	Elf64_Dyn *dyn = NULL;
	Elf64_Sym *sym = NULL;
	const char *str = NULL;
	uint32_t *hash = NULL, i;

	for (i = 0; i < eh->e_phnum; i++)
		if (ph[i].p_type == PT_DYNAMIC)
			dyn = (void *)(image + ph[i].p_vaddr);
	for (; dyn->d_tag; dyn++) {
		if (dyn->d_tag == DT_SYMTAB)
			sym = (void *)(image + dyn->d_un.d_val);
		if (dyn->d_tag == DT_STRTAB)
			str = image + dyn->d_un.d_val;
		if (dyn->d_tag == DT_HASH)
			hash = (void *)(image + dyn->d_un.d_val);
	}
	for (i = 0; i < hash[1]; i++)
		if (!strcmp(str + sym[i].st_name, name))
			return image + sym[i].st_value;
	return NULL;
}

static int64_t ns_of(const struct timespec *ts)
{
	return ts->tv_sec * 1000000000ll + ts->tv_nsec;
}

/* Between what the host says before and after, however long the test was kept from its CPU; the two may differ by 2 ms. */
static void is_hosts_time(long (*gettime)(int, struct timespec *), int clock)
{
	struct timespec before, got, after;

	clock_gettime(clock, &before);
	assert_int_equal(gettime(clock, &got), 0);
	clock_gettime(clock, &after);
	assert_in_range(ns_of(&got), ns_of(&before) - 2000000, ns_of(&after) + 2000000);
}

/* The image runs here as in an application: same answers as the host's, never backwards. */
static void test_vdso(void **state)
{
	struct mm *mm;
	uint64_t base;
	char *p = mmap(NULL, 2 * 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	long (*gettime)(int, struct timespec *);
	long (*gettimeofday_fn)(struct timeval *, void *);
	long (*time_fn)(long *);
	struct timespec a, before, after, last = {0};
	struct timeval tv;
	int i, k;
	long now;

	(void)state;
	assert_int_equal(mm_create(&fake_platform, &mm), 0);
	assert_int_equal(vdso_map(mm, &base), 0);
	assert_int_equal(mm_copy_in(mm, p + 4096, base, 4096), 0);
	gettime = vdso_symbol(p + 4096, "__vdso_clock_gettime");
	gettimeofday_fn = vdso_symbol(p + 4096, "__vdso_gettimeofday");
	time_fn = vdso_symbol(p + 4096, "__vdso_time");
	assert_non_null(vdso_symbol(p + 4096, "__vdso_getcpu"));
	assert_non_null(vdso_symbol(p + 4096, "__vdso_clock_getres"));
	for (k = 0; k < 5; k++) {
		assert_int_equal(mm_copy_in(mm, p, base - 4096, 4096), 0);
		for (i = 0; i < 2000; i++) {
			assert_int_equal(gettime(CLOCK_MONOTONIC, &a), 0);
			assert_true(a.tv_sec > last.tv_sec ||
				    (a.tv_sec == last.tv_sec && a.tv_nsec >= last.tv_nsec));
			last = a;
		}
		is_hosts_time(gettime, CLOCK_MONOTONIC);
		is_hosts_time(gettime, CLOCK_REALTIME);
		usleep(20000);
		vdso_update_time();
	}
	assert_int_equal(gettime(CLOCK_PROCESS_CPUTIME_ID, &a), 0);
	clock_gettime(CLOCK_REALTIME, &before);
	assert_int_equal(gettimeofday_fn(&tv, NULL), 0);
	now = time_fn(NULL);
	clock_gettime(CLOCK_REALTIME, &after);
	assert_in_range(tv.tv_sec, before.tv_sec - 1, after.tv_sec + 1);
	assert_in_range(now, before.tv_sec - 1, after.tv_sec + 1);
	/* The page is the sentry's: not writable, not even by a debugger. */
	assert_int_equal(mm_copy_out(mm, base - 4096, &a, 1), -EFAULT);
	assert_int_equal(mm_access_remote(mm, base - 4096, &a, 1, true), 0);
	assert_int_equal(mm_access_remote(mm, base, &a, 1, true), 1);
	check_mm(mm);
	mm_unref(mm);
	munmap(p, 2 * 4096);
}

/* A line that has ended is not read: the call is made. */
static void test_vdso_end(void **state)
{
	struct mm *mm;
	uint64_t base;
	char *p = mmap(NULL, 2 * 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct vdso_data *d = (struct vdso_data *)(void *)p;
	long (*gettime)(int, struct timespec *);
	struct timespec before, got, after;
	int64_t ns;

	(void)state;
	assert_int_equal(mm_create(&fake_platform, &mm), 0);
	assert_int_equal(vdso_map(mm, &base), 0);
	assert_int_equal(mm_copy_in(mm, p, base - 4096, 4096), 0);
	assert_int_equal(mm_copy_in(mm, p + 4096, base, 4096), 0);
	gettime = vdso_symbol(p + 4096, "__vdso_clock_gettime");
	for (int k = 0; k < VDSO_CLOCKS; k++)
		d->clock[k].base_ns = 0;
	d->valid = UINT64_MAX;
	assert_int_equal(gettime(CLOCK_MONOTONIC, &got), 0);
	clock_gettime(CLOCK_MONOTONIC, &after);
	assert_true(ns_of(&got) < ns_of(&after) / 2);
	d->valid = 0;
	for (int clock = CLOCK_REALTIME; clock <= CLOCK_MONOTONIC; clock++) {
		clock_gettime(clock, &before);
		assert_int_equal(gettime(clock, &got), 0);
		clock_gettime(clock, &after);
		assert_in_range(ns_of(&got), ns_of(&before), ns_of(&after));
	}
	/* Nor is one that begins long after this, of a counter that was set back. */
	d->valid = UINT64_MAX / 2;
	for (int k = 0; k < VDSO_CLOCKS; k++)
		d->clock[k].base_tsc += 1ul << 40;
	clock_gettime(CLOCK_MONOTONIC, &before);
	assert_int_equal(gettime(CLOCK_MONOTONIC, &got), 0);
	assert_true(ns_of(&got) >= ns_of(&before));
	vdso_update_time();
	for (int clock = CLOCK_REALTIME; clock <= CLOCK_MONOTONIC; clock++) {
		usleep(1100000);
		clock_gettime(clock, &before);
		assert_true(vdso_clock_read(clock == CLOCK_MONOTONIC, &ns));
		clock_gettime(clock, &after);
		/* Nobody who slept reads an earlier time than that until which he slept. */
		assert_true(ns >= ns_of(&before) - 2000);
		assert_true(ns <= ns_of(&after) + 100000);
		/* And the new line is in the page. */
		assert_int_equal(mm_copy_in(mm, p, base - 4096, 4096), 0);
		assert_int_equal(gettime(clock, &got), 0);
		assert_true(ns_of(&got) >= ns_of(&before) - 2000);
	}
	mm_unref(mm);
	munmap(p, 2 * 4096);
}

static int teardown(void **state)
{
	(void)state;
	rcu_drain();
	assert_int_equal(private_bytes(), MEM_CHUNK_SIZE); /* the vDSO's */
	assert_int_equal(fake_spaces, 0);
	assert_int_equal(open_files, 0);
	return 0;
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, NULL, teardown)
	const struct CMUnitTest tests[] = {
		T(test_real_program), T(test_host_programs), T(test_scripts),
		T(test_script_depth), T(test_small_elf),     T(test_malformed),
		T(test_arg_limits),   T(test_vdso),	     T(test_vdso_end),
	};

	rcu_thread_begin();
	if (mem_init(512ul << 20) || timer_thread_start() || vdso_init())
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
