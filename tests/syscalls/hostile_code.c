/* tests/syscalls/hostile_code.c - instructions that are not for programs, every interrupt, and code made of random bytes. See hostile.h. */
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>

#include "hostile.h"

static void run_code(const unsigned char *code, size_t size)
{
	unsigned char *p = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE | PROT_EXEC,
				MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	void (*fn)(void);

	memcpy(p, code, size);
	memset(p + size, 0xcc, 64);
	memcpy(&fn, &p, sizeof(p));
	if (ATTEMPT()) {
		/* eax 20 and 39: getpid, whichever way a call is made. */
		__asm__ volatile("mov $20, %%eax\n\txor %%ebx, %%ebx\n\txor %%ecx, %%ecx\n\txor "
				 "%%edx, %%edx\n\t"
				 "call *%0"
				 :
				 : "r"(fn)
				 : "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10",
				   "r11", "memory");
	}
	trying = false;
	__asm__ volatile("cld");
	munmap(p, 2 * PAGE);
}

TEST(privileged_instructions)
{
	static const struct {
		unsigned char size, code[12];
	} insns[] = {
		{1, {0xf4}}, /* hlt */
		{2, {0xe4, 0x80}}, /* in */
		{2, {0xe6, 0x80}}, /* out */
		{1, {0xec}}, /* in dx */
		{1, {0xee}}, /* out dx */
		{1, {0x6e}}, /* outsb */
		{1, {0x6c}}, /* insb */
		{1, {0xfa}}, /* cli */
		{1, {0xfb}}, /* sti */
		{2, {0x0f, 0x34}}, /* sysenter */
		{2, {0x0f, 0x35}}, /* sysexit */
		{2, {0x0f, 0x07}}, /* sysret */
		{3, {0x48, 0x0f, 0x07}}, /* sysretq */
		{3, {0x0f, 0x01, 0xf8}}, /* swapgs */
		{2, {0x0f, 0x32}}, /* rdmsr */
		{2, {0x0f, 0x30}}, /* wrmsr */
		{2, {0x0f, 0x33}}, /* rdpmc */
		{2, {0x0f, 0x06}}, /* clts */
		{2, {0x0f, 0x08}}, /* invd */
		{2, {0x0f, 0x09}}, /* wbinvd */
		{3, {0x0f, 0x01, 0x10}}, /* lgdt */
		{3, {0x0f, 0x01, 0x18}}, /* lidt */
		{3, {0x0f, 0x00, 0xd0}}, /* lldt */
		{3, {0x0f, 0x00, 0xd8}}, /* ltr */
		{3, {0x0f, 0x01, 0x38}}, /* invlpg */
		{3, {0x0f, 0x22, 0xd8}}, /* mov cr3 */
		{3, {0x0f, 0x22, 0xe0}}, /* mov cr4 */
		{3, {0x0f, 0x20, 0xd8}}, /* mov from cr3 */
		{3, {0x0f, 0x23, 0xf8}}, /* mov dr7 */
		{3, {0x0f, 0x01, 0xc1}}, /* vmcall */
		{3, {0x0f, 0x01, 0xd9}}, /* vmmcall */
		{3, {0x0f, 0x01, 0xd8}}, /* vmrun */
		{3, {0x0f, 0x01, 0xd1}}, /* xsetbv */
		{3, {0x0f, 0x01, 0xd0}}, /* xgetbv */
		{3, {0x0f, 0x01, 0xc8}}, /* monitor */
		{3, {0x0f, 0x01, 0xc9}}, /* mwait */
		{3, {0x0f, 0x01, 0xca}}, /* clac */
		{3, {0x0f, 0x01, 0xcb}}, /* stac */
		{3, {0x0f, 0x01, 0xf9}}, /* rdtscp */
		{2, {0x0f, 0x0b}}, /* ud2 */
		{1, {0xf1}}, /* icebp */
		{1, {0xcc}}, /* int3 */
		{1, {0xce}}, /* into */
		{1, {0xcf}}, /* iret */
		{2, {0x48, 0xcf}}, /* iretq */
		{1, {0xcb}}, /* lret */
		{2, {0x48, 0xcb}}, /* lretq */
		{4, {0xf0, 0x0f, 0xc7, 0xc8}}, /* lock cmpxchg8b %eax */
		{3, {0x66, 0xff, 0x2c}}, /* ljmp, cut off */
		{2, {0xff, 0x1c}}, /* lcall */
		{3, {0x0f, 0x00, 0xc0}}, /* sldt */
		{3, {0x0f, 0x01, 0xe0}}, /* smsw */
		{3, {0x0f, 0x01, 0x00}}, /* sgdt */
		{3, {0x0f, 0xa2, 0x90}}, /* cpuid */
		{6, {0x0f, 0x05, 0x0f, 0x05, 0x0f, 0x05}}, /* syscalls */
	};
	pid_t pid;

	sibling_begin();
	pid = fork();
	if (pid == 0) {
		catch_all();
		for (size_t i = 0; i < sizeof(insns) / sizeof(insns[0]); i++)
			run_code(insns[i].code, insns[i].size);
		_exit(0);
	}
	(void)reap(pid);
	/* One by one, so that the end of one hides no other; plain and single-stepped. */
	for (size_t i = 0; i < sizeof(insns) / sizeof(insns[0]) * 2; i++) {
		pid = fork();
		CHECK(pid >= 0);
		if (pid == 0) {
			unsigned char code[32] = {0x9c, 0x80, 0x4c, 0x24,
						  0x01, 0x01, 0x9d}; /* TF on */
			const unsigned char *insn = insns[i / 2].code;
			size_t size = insns[i / 2].size;

			catch_all();
			memcpy(code + 7, insn, size);
			if (i & 1)
				run_code(code, size + 7);
			else
				run_code(insn, size);
			_exit(0);
		}
		(void)reap(pid);
	}
	sibling_end();
}

TEST(every_interrupt)
{
	sibling_begin();
	for (unsigned n = 0; n < 256; n += 16) {
		pid_t pid = fork();

		CHECK(pid >= 0);
		if (pid == 0) {
			catch_all();
			for (unsigned k = n; k < n + 16; k++) {
				unsigned char code[3] = {0xcd, (unsigned char)k, 0xc3};

				run_code(code, sizeof(code));
			}
			_exit(0);
		}
		CHECK(reap(pid) == 0);
	}
	sibling_end();
}

/*
 * On the host it would be the machine that random code talks to: there only the calls that run_code() makes itself
 * are let through, others are a SIGSYS.
 */
static void fence(void)
{
	static struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 0, 5),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mmap, 2, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_munmap, 1, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit_group, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
	};
	struct sock_fprog prog = {.len = sizeof(code) / sizeof(code[0]), .filter = code};

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
	    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog))
		_exit(1);
}

TEST(random_code)
{
	uint64_t x = 88172645463325252ull;
	bool fenced = !in_moat();

	sibling_begin();
	for (unsigned n = 0; n < 60; n++) {
		pid_t pid = fork();

		CHECK(pid >= 0);
		for (unsigned k = 0; k < 20 * 16; k++)
			x ^= x << 13, x ^= x >> 7, x ^= x << 17;
		if (pid == 0) {
			setpgid(0, 0);
			catch_all();
			if (fenced)
				fence();
			else if (setuid(65534)) /* or it may stop the sibling, which is root's */
				_exit(1);
			for (unsigned k = 0; k < 20; k++) {
				uint64_t code[4];

				for (unsigned i = 0; i < 4; i++) {
					x ^= x << 13, x ^= x >> 7, x ^= x << 17;
					code[i] = x;
				}
				run_code((unsigned char *)code, 30);
			}
			_exit(0);
		}
		(void)reap(pid);
	}
	sibling_end();
}
