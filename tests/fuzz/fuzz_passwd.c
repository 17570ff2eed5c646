// LINK: moat_wire moat_base
/* A container's /etc/passwd: the first line "UID", the rest the file. The home directory is a field of it, or there is none. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "wire/passwd.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const uint8_t *newline = memchr(data, '\n', size);
	char number[16] = "", *home = NULL, *text;
	size_t len = newline ? (size_t)(newline - data) : 0;
	int err;

	if (!newline || len >= sizeof(number))
		return 0;
	memcpy(number, data, len);
	size -= len + 1;
	/* Of its exact size, and not terminated: whatever is read beyond it is seen. */
	text = malloc(size ? size : 1);
	if (!text)
		return 0;
	memcpy(text, newline + 1, size);
	err = passwd_home(text, size, (uint32_t)strtoul(number, NULL, 10), &home);
	assert(err ? err == -ENOENT && !home : home && !strpbrk(home, ":\n"));
	assert(err || strlen(home) < size);
	free(home);
	free(text);
	return 0;
}
