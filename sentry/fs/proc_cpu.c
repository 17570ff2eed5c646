/*
 * sentry/fs/proc_cpu.c - /proc/cpuinfo from the CPUID instruction, formatted as arch/x86/kernel/cpu/proc.c does.
 *
 * The flags are those that CPUID reports and an application may use; bits of the kernel's own (pti, ibrs_enhanced ...) are
 * not made up.
 */
#include <cpuid.h>
#include <stdio.h>
#include <string.h>
#include <x86intrin.h>

#include "sentry/fs/proc.h"

static uint64_t tsc_at_start;
static int64_t ns_at_start;

void proc_cpu_init(void)
{
	tsc_at_start = __rdtsc();
	ns_at_start = time_monotonic_ns();
}

static uint64_t tsc_khz(void)
{
	unsigned a, b, c, d;
	int64_t ns = time_monotonic_ns() - ns_at_start;

	if (__get_cpuid_count(0x15, 0, &a, &b, &c, &d) && a && b && c)
		return (uint64_t)c * b / a / 1000;
	if (ns < 1000000) /* too young to measure: a guess that the next read corrects */
		return 2000000;
	return (__rdtsc() - tsc_at_start) * 1000000 / (uint64_t)ns;
}

enum reg { EAX, EBX, ECX, EDX };

struct flag_word {
	unsigned leaf, sub;
	enum reg reg;
	const char *names[32];
};

/* In the order of Linux's X86_FEATURE words. */
static const struct flag_word flag_words[] = {
	{1, 0, EDX, {"fpu",  "vme",   "de",   "pse",	 "tsc",	 "msr", "pae",	"mce",
		     "cx8",  "apic",  NULL,   "sep",	 "mtrr", "pge", "mca",	"cmov",
		     "pat",  "pse36", "pn",   "clflush", NULL,	 "dts", "acpi", "mmx",
		     "fxsr", "sse",   "sse2", "ss",	 "ht",	 "tm",	"ia64", "pbe"}},
	{0x80000001,
	 0,
	 EDX,
	 {[11] = "syscall",
	  [19] = "mp",
	  [20] = "nx",
	  [22] = "mmxext",
	  [25] = "fxsr_opt",
	  [26] = "pdpe1gb",
	  [27] = "rdtscp",
	  [29] = "lm",
	  [30] = "3dnowext",
	  [31] = "3dnow"}},
	{1, 0, ECX, {"pni",    "pclmulqdq", "dtes64", "monitor", "ds_cpl",
		     "vmx",    "smx",	    "est",    "tm2",	 "ssse3",
		     "cid",    "sdbg",	    "fma",    "cx16",	 "xtpr",
		     "pdcm",   NULL,	    "pcid",   "dca",	 "sse4_1",
		     "sse4_2", "x2apic",    "movbe",  "popcnt",	 "tsc_deadline_timer",
		     "aes",    "xsave",	    NULL,     "avx",	 "f16c",
		     "rdrand", "hypervisor"}},
	{0x80000001, 0, ECX, {"lahf_lm",    "cmp_legacy",  "svm",
			      "extapic",    "cr8_legacy",  "abm",
			      "sse4a",	    "misalignsse", "3dnowprefetch",
			      "osvw",	    "ibs",	   "xop",
			      "skinit",	    "wdt",	   NULL,
			      "lwp",	    "fma4",	   "tce",
			      NULL,	    "nodeid_msr",  NULL,
			      "tbm",	    "topoext",	   "perfctr_core",
			      "perfctr_nb", NULL,	   "bpext",
			      "ptsc",	    "perfctr_llc", "mwaitx"}},
	{7, 0, EBX, {"fsgsbase", "tsc_adjust", "sgx",	   "bmi1",	 "hle",	     "avx2",
		     NULL,	 "smep",       "bmi2",	   "erms",	 "invpcid",  "rtm",
		     "cqm",	 NULL,	       "mpx",	   "rdt_a",	 "avx512f",  "avx512dq",
		     "rdseed",	 "adx",	       "smap",	   "avx512ifma", NULL,	     "clflushopt",
		     "clwb",	 "intel_pt",   "avx512pf", "avx512er",	 "avx512cd", "sha_ni",
		     "avx512bw", "avx512vl"}},
	{0xd, 1, EAX, {"xsaveopt", "xsavec", "xgetbv1", "xsaves"}},
	{7,
	 1,
	 EAX,
	 {[0] = "sha512",
	  [4] = "avx_vnni",
	  [5] = "avx512_bf16",
	  [10] = "fzrm",
	  [11] = "fsrs",
	  [12] = "fsrc",
	  [21] = "amx_fp16",
	  [23] = "avx_ifma"}},
	{0x80000008,
	 0,
	 EBX,
	 {[0] = "clzero", [1] = "irperf", [2] = "xsaveerptr", [4] = "rdpru", [9] = "wbnoinvd"}},
	{6, 0, EAX, {[2] = "arat"}},
	{7,
	 0,
	 ECX,
	 {[1] = "avx512vbmi",
	  [2] = "umip",
	  [3] = "pku",
	  [4] = "ospke",
	  [5] = "waitpkg",
	  [6] = "avx512_vbmi2",
	  [8] = "gfni",
	  [9] = "vaes",
	  [10] = "vpclmulqdq",
	  [11] = "avx512_vnni",
	  [12] = "avx512_bitalg",
	  [14] = "avx512_vpopcntdq",
	  [16] = "la57",
	  [22] = "rdpid",
	  [25] = "cldemote",
	  [27] = "movdiri",
	  [28] = "movdir64b"}},
	{7,
	 0,
	 EDX,
	 {[2] = "avx512_4vnniw",
	  [3] = "avx512_4fmaps",
	  [4] = "fsrm",
	  [8] = "avx512_vp2intersect",
	  [14] = "serialize",
	  [16] = "tsxldtrk",
	  [22] = "amx_bf16",
	  [23] = "avx512_fp16",
	  [24] = "amx_tile",
	  [25] = "amx_int8"}},
};

static void cpu_flags(struct buf *b)
{
	buf_puts(b, "flags\t\t:");
	for (size_t i = 0; i < ARRAY_SIZE(flag_words); i++) {
		const struct flag_word *w = &flag_words[i];
		unsigned r[4] = {0};

		if (!__get_cpuid_count(w->leaf, w->sub, &r[0], &r[1], &r[2], &r[3]))
			continue;
		for (int bit = 0; bit < 32; bit++)
			if (w->names[bit] && (r[w->reg] >> bit & 1))
				buf_printf(b, " %s", w->names[bit]);
	}
	/* What every x86-64 Linux of today also lists. */
	buf_puts(b, " constant_tsc rep_good nopl cpuid tsc_known_freq\n");
}

struct cpu_id {
	char vendor[13], model_name[49];
	unsigned family, model, stepping, level, clflush, phys_bits, virt_bits, cache_kib;
};

static void cpu_identify(struct cpu_id *id)
{
	unsigned a, b, c, d;

	memset(id, 0, sizeof(*id));
	if (__get_cpuid(0, &a, &b, &c, &d)) {
		id->level = a;
		memcpy(id->vendor, &b, 4);
		memcpy(id->vendor + 4, &d, 4);
		memcpy(id->vendor + 8, &c, 4);
	}
	if (__get_cpuid(1, &a, &b, &c, &d)) {
		id->stepping = a & 15;
		id->model = (a >> 4) & 15;
		id->family = (a >> 8) & 15;
		if (id->family == 15)
			id->family += (a >> 20) & 255;
		if (id->family >= 6)
			id->model += ((a >> 16) & 15) << 4;
		id->clflush = ((b >> 8) & 255) * 8;
	}
	for (unsigned i = 0; i < 3; i++)
		if (__get_cpuid(0x80000002 + i, &a, &b, &c, &d)) {
			memcpy(id->model_name + i * 16, &a, 4);
			memcpy(id->model_name + i * 16 + 4, &b, 4);
			memcpy(id->model_name + i * 16 + 8, &c, 4);
			memcpy(id->model_name + i * 16 + 12, &d, 4);
		}
	if (__get_cpuid(0x80000006, &a, &b, &c, &d))
		id->cache_kib = c >> 16;
	if (__get_cpuid(0x80000008, &a, &b, &c, &d)) {
		id->phys_bits = a & 255;
		id->virt_bits = (a >> 8) & 255;
	}
}

int proc_cpuinfo_show(unused_arg struct synth_node *n, unused_arg struct synth_file *sf,
		      struct buf *b)
{
	uint64_t khz = tsc_khz();
	struct cpu_id id;
	char *name;

	cpu_identify(&id);
	name = id.model_name + strspn(id.model_name, " ");
	for (size_t len = strlen(name); len && name[len - 1] == ' '; len--)
		name[len - 1] = 0;
	for (unsigned cpu = 0; cpu < kernel.cpus; cpu++) {
		buf_printf(b, "processor\t: %u\nvendor_id\t: %s\ncpu family\t: %u\nmodel\t\t: %u\n",
			   cpu, id.vendor, id.family, id.model);
		buf_printf(b, "model name\t: %s\nstepping\t: %u\n", *name ? name : "unknown",
			   id.stepping);
		buf_printf(b, "cpu MHz\t\t: %llu.%03llu\ncache size\t: %u KB\n",
			   (unsigned long long)(khz / 1000), (unsigned long long)(khz % 1000),
			   id.cache_kib);
		buf_printf(b,
			   "physical id\t: 0\nsiblings\t: %u\ncore id\t\t: %u\ncpu cores\t: %u\n",
			   kernel.cpus, cpu, kernel.cpus);
		buf_printf(b, "apicid\t\t: %u\ninitial apicid\t: %u\n", cpu, cpu);
		buf_printf(b,
			   "fpu\t\t: yes\nfpu_exception\t: yes\ncpuid level\t: %u\nwp\t\t: yes\n",
			   id.level);
		cpu_flags(b);
		buf_printf(b, "bugs\t\t:\nbogomips\t: %llu.%02llu\n",
			   (unsigned long long)(khz / 500), (unsigned long long)(khz / 5 % 100));
		buf_printf(b, "clflush size\t: %u\ncache_alignment\t: %u\n", id.clflush,
			   id.clflush);
		buf_printf(b, "address sizes\t: %u bits physical, %u bits virtual\n", id.phys_bits,
			   id.virt_bits);
		buf_puts(b, "power management:\n\n");
	}
	return 0;
}
