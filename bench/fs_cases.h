/* bench/fs_cases.h - the cases of bench/fs: what each does to a subject's tree. */
#ifndef MOAT_BENCH_FS_CASES_H
#define MOAT_BENCH_FS_CASES_H

#include "bench/fs_subject.h"

#define FS_CASES 18

/* One pass of a case: `ops` operations. What may go wrong ends the benchmark. */
struct fs_case {
	const char *name;
	void (*before)(struct subject *s); /* not measured; NULL */
	void (*op)(struct subject *s, const struct fs_case *c, unsigned i);
	void (*last)(struct subject *s); /* measured with the pass; NULL */
	void (*after)(struct subject *s, const struct fs_case *c); /* not measured; NULL */
	int depth;
	unsigned ops; /* 0: one a MiB of the file */
	bool warm_once; /* long: one warm pass is enough */
	bool mapped; /* diod's files cannot be */
};
extern const struct fs_case fs_cases[FS_CASES];

/* Entries of the wide directory, MiB of the files that are read and written: set before the tree is made. */
extern unsigned fs_entries, fs_file_mib;

/* Prints what went wrong, and exits. */
void fs_fail(const char *what, const char *who, int err);
/* In the empty directory `tree`: what the cases need of which case_wanted, FS_CASES long, says true. */
void fs_tree_make(const char *tree, const bool *case_wanted);

#endif
