/* tests/unit/file_rw.h - reads and writes of an open file from the test's own memory. */
#ifndef MOAT_TESTS_UNIT_FILE_RW_H
#define MOAT_TESTS_UNIT_FILE_RW_H

#include "vfs/file.h"

static inline ssize_t file_rd(struct file *f, void *buf, size_t size)
{
	struct io_iter it;
	ssize_t n;

	io_iter_init_kernel(&it, buf, size, true);
	n = file_read_iter(f, &it, NULL, 0);
	io_iter_fini(&it);
	return n;
}

static inline ssize_t file_wr(struct file *f, const void *buf, size_t size)
{
	struct io_iter it;
	ssize_t n;

	io_iter_init_kernel(&it, (void *)buf, size, false);
	n = file_write_iter(f, &it, NULL, 0);
	io_iter_fini(&it);
	return n;
}

#endif
