/* wire/passwd.c - "name:password:uid:gid:gecos:directory:shell", a line each. */
#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "wire/passwd.h"

enum { FIELD_UID = 2, FIELD_HOME = 5 };

/* Field n of the line; *ret_size 0: empty, or there are not as many. */
static const char *field(const char *line, size_t size, int n, size_t *ret_size)
{
	const char *end = line + size, *colon;

	for (; n > 0; n--) {
		colon = memchr(line, ':', (size_t)(end - line));
		line = colon ? colon + 1 : end;
	}
	colon = memchr(line, ':', (size_t)(end - line));
	*ret_size = (size_t)((colon ? colon : end) - line);
	return line;
}

static bool is_number(const char *s, size_t size, uint32_t n)
{
	uint64_t value = 0;

	if (!size || size > 10)
		return false;
	for (size_t i = 0; i < size; i++) {
		if (s[i] < '0' || s[i] > '9')
			return false;
		value = value * 10 + (uint64_t)(s[i] - '0');
	}
	return value == n;
}

int passwd_home(const char *text, size_t size, uint32_t uid, char **ret_home)
{
	const char *end = text + strnlen(text, size);

	while (text < end) {
		const char *newline = memchr(text, '\n', (size_t)(end - text)), *s;
		size_t line = (size_t)((newline ? newline : end) - text), n;

		/* Blanks at either end are nobody's: runc's reader takes them off. */
		while (line && isspace((unsigned char)text[line - 1]))
			line--;
		s = field(text, line, FIELD_UID, &n);
		if (is_number(s, n, uid)) {
			s = field(text, line, FIELD_HOME, &n);
			*ret_home = strndup(s, n);
			return *ret_home ? 0 : -ENOMEM;
		}
		text = newline ? newline + 1 : end;
	}
	return -ENOENT;
}
