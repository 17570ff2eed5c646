/* tests/syscalls/events.h - what an inotify descriptor has to say, as text. */
#ifndef MOAT_TESTS_SYSCALLS_EVENTS_H
#define MOAT_TESTS_SYSCALLS_EVENTS_H

#include "t.h"

#include <sys/inotify.h>

/* Everything queued: "WD:MASK[:NAME] ...", in hexadecimal. */
static const char *events(int fd)
{
	static char text[4096];
	char buf[4096] __attribute__((aligned(8)));
	ssize_t n = read(fd, buf, sizeof(buf));
	size_t len = 0;

	text[0] = '\0';
	for (ssize_t at = 0; at < n;) {
		struct inotify_event *e = (struct inotify_event *)(buf + at);

		len += (size_t)snprintf(text + len, sizeof(text) - len, "%s%d:%x%s%s",
					len ? " " : "", e->wd, e->mask, e->len ? ":" : "",
					e->len ? e->name : "");
		at += (ssize_t)(sizeof(*e) + e->len);
	}
	return text;
}

#endif
