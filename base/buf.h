/*
 * base/buf.h - a growable byte buffer, always NUL-terminated past `len`.
 *
 * An allocation failure is sticky: later appends do nothing and buf_error() says -ENOMEM, so a
 * producer (a /proc file, a JSON writer) checks once at its end. A bound is set at init: appending past it is
 * the same sticky error, -EMSGSIZE.
 */
#ifndef MOAT_BASE_BUF_H
#define MOAT_BASE_BUF_H

#include <stdarg.h>

#include "base/compiler.h"

struct buf {
	char *data; /* owned; NULL until the first append */
	size_t len; /* bytes, without the terminator */
	size_t alloc;
	size_t max;
	int error;
};

#define BUF_DEFAULT_MAX (64ul << 20)

void buf_init(struct buf *b, size_t max);
void buf_fini(struct buf *b);
void buf_reset(struct buf *b); /* keeps the allocation */
void buf_append(struct buf *b, const void *src, size_t size);
void buf_puts(struct buf *b, const char *s);
void buf_putc(struct buf *b, char c);
void buf_printf(struct buf *b, const char *fmt, ...) printf_like(2, 3);
void buf_vprintf(struct buf *b, const char *fmt, va_list ap);
/* Room for `size` more bytes, uninitialised; NULL on error. Advances len. */
void *buf_extend(struct buf *b, size_t size);
static inline must_check int buf_error(const struct buf *b)
{
	return b->error;
}

#endif
