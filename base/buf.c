#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"

#define BUF_FIRST_ALLOC 64

void buf_init(struct buf *b, size_t max)
{
	*b = (struct buf){.max = max};
}

void buf_fini(struct buf *b)
{
	free(b->data);
	*b = (struct buf){.max = b->max};
}

void buf_reset(struct buf *b)
{
	b->len = 0;
	b->error = 0;
	if (b->data)
		b->data[0] = '\0';
}

/* Room for `more` bytes and the terminator. False with the error set when there is none. */
static bool buf_reserve(struct buf *b, size_t more)
{
	size_t alloc = b->alloc ? b->alloc : BUF_FIRST_ALLOC;
	char *data;

	if (b->error)
		return false;
	if (more > b->max || b->len > b->max - more) {
		b->error = -EMSGSIZE;
		return false;
	}
	if (b->len + more >= SIZE_MAX / 2) {
		b->error = -ENOMEM;
		return false;
	}
	if (b->data && b->len + more < b->alloc)
		return true;
	while (alloc <= b->len + more)
		alloc *= 2;
	data = realloc(b->data, alloc);
	if (!data) {
		b->error = -ENOMEM;
		return false;
	}
	b->data = data;
	b->alloc = alloc;
	return true;
}

void *buf_extend(struct buf *b, size_t size)
{
	char *at;

	if (!buf_reserve(b, size))
		return NULL;
	at = b->data + b->len;
	b->len += size;
	b->data[b->len] = '\0';
	return at;
}

void buf_append(struct buf *b, const void *src, size_t size)
{
	void *at = buf_extend(b, size);

	if (at && size)
		memcpy(at, src, size);
}

void buf_puts(struct buf *b, const char *s)
{
	buf_append(b, s, strlen(s));
}

void buf_putc(struct buf *b, char c)
{
	buf_append(b, &c, 1);
}

void buf_vprintf(struct buf *b, const char *fmt, va_list ap)
{
	va_list again;
	size_t room;
	int n;

	if (!buf_reserve(b, 0))
		return;
	room = b->alloc - b->len;
	va_copy(again, ap);
	n = vsnprintf(b->data + b->len, room, fmt, ap);
	if (n >= 0 && (size_t)n >= room) {
		b->data[b->len] = '\0';
		if (buf_reserve(b, (size_t)n))
			n = vsnprintf(b->data + b->len, (size_t)n + 1, fmt, again);
		else
			n = 0;
	} else if (n >= 0 && b->len + (size_t)n > b->max) {
		b->data[b->len] = '\0';
		b->error = -EMSGSIZE;
		n = 0;
	}
	va_end(again);
	if (n < 0)
		b->error = -EINVAL;
	else
		b->len += (size_t)n;
}

void buf_printf(struct buf *b, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	buf_vprintf(b, fmt, ap);
	va_end(ap);
}
