/* bench/fs_tree.h - what programs do to whole trees, as sequences of calls on a subject: find, git status, tar. */
#ifndef MOAT_BENCH_FS_TREE_H
#define MOAT_BENCH_FS_TREE_H

#include "bench/fs_subject.h"

#define TREE_DIRS 50
#define TREE_FILES 20 /* in each */
#define UNTAR_DIRS 10

/* "src" below the directory `root`: TREE_DIRS directories in two levels, TREE_FILES of 4 KiB in each. Return: 0, -errno. */
int tree_make(int root);
/* Each returns 0 or -errno; -EBADMSG: the tree is not as it was made. */
int tree_find(struct subject *s); /* every directory listed, each looked at before */
int tree_git_status(
	struct subject *s); /* every file looked at, in order, and every directory listed */
/* UNTAR_DIRS directories of "new-SUBJECT" with their files written, their modes set. */
int tree_untar(struct subject *s);
int tree_remove_untarred(struct subject *s);

#endif
