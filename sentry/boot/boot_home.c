/*
 * sentry/boot/boot_home.c - HOME of a process from outside whose environment has none, or an empty one: what the container's /etc/passwd says, as runc does
 * it. Docker and containerd leave it to the runtime.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/log.h"
#include "sentry/boot/internal.h"
#include "wire/passwd.h"

/* Users further down in a larger file have "/". */
#define PASSWD_SIZE_MAX (1u << 20)

/* The file's text, malloc'd, and its size; NULL: it cannot be read. */
static char *read_passwd(struct file *f, uint64_t size, size_t *ret_size)
{
	char *text = malloc(size ? size : 1);
	ssize_t n = text ? file_read_kernel(f, text, size, 0) : -ENOMEM;

	if (n < 0) {
		free(text);
		return NULL;
	}
	*ret_size = (size_t)n;
	return text;
}

/* Malloc'd; NULL: out of memory. */
static char *find_home(struct boot_container *b, uint32_t uid)
{
	struct vfs_lookup lk = boot_lookup(b, "/etc/passwd", LOOKUP_FOLLOW);
	struct moat_statx st;
	char *text, *home = NULL;
	struct file *f;
	size_t size;

	/* Not a fifo or a device, which might keep us waiting; O_NONBLOCK for what it is by now. */
	if (vfs_stat(&lk, &(struct stat_args){.mask = 0x7ff}, &st) || !S_ISREG(st.mode) ||
	    vfs_open(&lk, &(struct open_args){.flags = O_RDONLY | O_NONBLOCK | O_NOCTTY}, &f))
		return strdup("/");
	text = read_passwd(f, MIN(st.size, PASSWD_SIZE_MAX), &size);
	file_unref(f);
	if (!text || passwd_home(text, size, uid, &home))
		home = strdup("/");
	free(text);
	return home;
}

int boot_add_home(struct boot_container *b, struct boot_spec *s)
{
	const char *given = boot_env_value(s->envp, "HOME");
	char *home, *line, **grown;
	size_t count = 0;

	if (given && *given)
		return 0;
	home = find_home(b, s->uid);
	if (!home || asprintf(&line, "HOME=%s", home) < 0) {
		free(home);
		return -ENOMEM;
	}
	free(home);
	for (; s->envp[count]; count++) {
		if (strncmp(s->envp[count], "HOME=", 5) == 0) {
			free(s->envp[count]);
			s->envp[count] = line;
			return 0;
		}
	}
	grown = realloc(s->envp, (count + 2) * sizeof(*grown));
	if (!grown) {
		free(line);
		return -ENOMEM;
	}
	grown[count] = line;
	grown[count + 1] = NULL;
	s->envp = grown;
	return 0;
}
