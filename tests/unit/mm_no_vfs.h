/* tests/unit/mm_no_vfs.h - what mm asks of files, in a program without a vfs. Include it in one file of it. */
#ifndef MOAT_TESTS_UNIT_MM_NO_VFS_H
#define MOAT_TESTS_UNIT_MM_NO_VFS_H

#include "vfs/file.h"
#include "vfs/write_access.h"

/* No file of these runs against a writer. */
bool vfs_deny_write_again(unused_arg struct file *f)
{
	return false;
}

void vfs_allow_write(unused_arg struct file *f)
{
}

int file_fallocate(struct file *f, int mode, uint64_t off, uint64_t size)
{
	(void)f;
	(void)mode;
	(void)off;
	(void)size;
	return 0;
}

#endif
