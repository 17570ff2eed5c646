/*
 * runtime/view_identity.c - whom the one process of an engine's /proc is: the container's first, not the monitor that stands for it.
 *
 * `podman top` and its like read users, capabilities, seccomp mode and parents from /proc/1/status and stat. As configured, and as it was when
 * the container was made: what the program changes later (setuid(2), prctl(2)) only the sandbox knows.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/io.h"
#include "runtime/cli.h"
#include "runtime/sandbox.h"

#define COMM_MAX 15

static void comm_of(const struct boot_spec *s, char *ret)
{
	const char *name = s->argv && s->argv[0] ? s->argv[0] : "", *slash = strrchr(name, '/');

	snprintf(ret, COMM_MAX + 1, "%s", slash ? slash + 1 : name);
	/* It may hold whatever the configuration's author likes; the file has lines and brackets. */
	for (char *p = ret; *p; p++)
		if (*p < ' ' || *p == '(' || *p == ')')
			*p = '?';
}

/* An id as the namespace that engines are in calls it. */
static uint32_t outside(const struct id_map *maps, unsigned n, uint32_t id)
{
	for (unsigned i = 0; i < n; i++)
		if (id >= maps[i].inside && id - maps[i].inside < maps[i].count)
			return maps[i].outside + (id - maps[i].inside);
	return id;
}

static void put_id(struct buf *b, const char *name, uint32_t id)
{
	buf_printf(b, "%s:\t%u\t%u\t%u\t%u\n", name, id, id, id, id);
}

/* What execve(2) makes of the configured sets. */
static void put_caps(struct buf *b, const struct boot_spec *s)
{
	uint64_t held = s->uid == 0 ? s->cap_inheritable | s->cap_bounding : s->cap_ambient;

	buf_printf(b, "CapInh:\t%016llx\nCapPrm:\t%016llx\nCapEff:\t%016llx\n",
		   (unsigned long long)s->cap_inheritable, (unsigned long long)held,
		   (unsigned long long)held);
	buf_printf(b, "CapBnd:\t%016llx\nCapAmb:\t%016llx\n", (unsigned long long)s->cap_bounding,
		   (unsigned long long)s->cap_ambient);
}

/* One line of the monitor's status, `len` bytes with its end. */
static void put_line(struct buf *b, const struct boot_spec *s, const struct userns *u,
		     const char *line, size_t len)
{
	char comm[COMM_MAX + 1];

	if (strncmp(line, "Name:", 5) == 0) {
		comm_of(s, comm);
		buf_printf(b, "Name:\t%s\n", comm);
	} else if (strncmp(line, "State:", 6) == 0) {
		buf_puts(b, "State:\tS (sleeping)\n");
	} else if (strncmp(line, "Tgid:", 5) == 0 || strncmp(line, "Pid:", 4) == 0) {
		buf_printf(b, "%.*s:\t1\n", (int)strcspn(line, ":"), line);
	} else if (strncmp(line, "PPid:", 5) == 0) {
		buf_puts(b, "PPid:\t0\n");
	} else if (strncmp(line, "Uid:", 4) == 0) {
		put_id(b, "Uid", outside(u->uids, u->nuids, s->uid));
	} else if (strncmp(line, "Gid:", 4) == 0) {
		put_id(b, "Gid", outside(u->gids, u->ngids, s->gid));
	} else if (strncmp(line, "Groups:", 7) == 0) {
		buf_puts(b, "Groups:\t");
		for (unsigned i = 0; i < s->ngroups; i++)
			buf_printf(b, "%u ", outside(u->gids, u->ngids, s->groups[i]));
		buf_putc(b, '\n');
	} else if (strncmp(line, "CapInh:", 7) == 0) {
		put_caps(b, s);
	} else if (strncmp(line, "Cap", 3) == 0) {
		return; /* with the first of them */
	} else if (strncmp(line, "NoNewPrivs:", 11) == 0) {
		buf_printf(b, "NoNewPrivs:\t%d\n", s->no_new_privs);
	} else if (strncmp(line, "Seccomp:", 8) == 0) {
		buf_printf(b, "Seccomp:\t%d\n", s->seccomp ? 2 : 0);
	} else if (strncmp(line, "Seccomp_filters:", 16) == 0) {
		buf_printf(b, "Seccomp_filters:\t%d\n", s->seccomp ? 1 : 0);
	} else {
		buf_append(b, line, len);
	}
}

static void status_text(struct buf *b, const struct boot_spec *s, const struct userns *u,
			const char *own)
{
	while (*own) {
		size_t len = strcspn(own, "\n");

		len += own[len] == '\n';
		put_line(b, s, u, own, len);
		own += len;
	}
}

/* "PID (comm) STATE PPID PGRP SESSION REST" */
static void stat_text(struct buf *b, const struct boot_spec *s, const char *own)
{
	char comm[COMM_MAX + 1];
	const char *rest = strrchr(own, ')');

	for (int skip = 0; rest && skip < 5; skip++)
		rest = strchr(rest + 1, ' ');
	comm_of(s, comm);
	if (rest)
		buf_printf(b, "1 (%s) S 0 1 1%s", comm, rest);
}

static void cover(int proc, int own, const char *name, const struct buf *text)
{
	char from[64], to[64];
	int file, place;

	/* A name in the view's own /proc, for as long as the mount takes. */
	file = openat(proc, ".1", O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0444);
	place = openat(own, name, O_PATH | O_CLOEXEC);
	snprintf(from, sizeof(from), "/proc/self/fd/%d", file);
	snprintf(to, sizeof(to), "/proc/self/fd/%d", place);
	if (file < 0 || place < 0 || io_write_full(file, text->data, text->len) ||
	    mount(from, to, NULL, MS_BIND, NULL) < 0)
		cli_debug("view: /proc/1/%s: %m", name);
	if (place >= 0)
		close(place);
	if (file >= 0) {
		close(file);
		unlinkat(proc, ".1", 0);
	}
}

void view_identity(const struct boot_spec *s, const struct userns *u, int proc)
{
	static const char *const files[] = {"status", "stat"};
	int own = openat(proc, "1", O_PATH | O_DIRECTORY | O_CLOEXEC);

	for (size_t i = 0; own >= 0 && i < ARRAY_SIZE(files); i++) {
		auto_free char *text = NULL;
		struct buf b;
		size_t size;

		/* Of one that was entered the numbers may not be known. */
		if ((u->path && !u->nuids) || io_read_file_at(own, files[i], 16384, &text, &size))
			continue;
		buf_init(&b, 32768);
		if (i == 0)
			status_text(&b, s, u, text);
		else
			stat_text(&b, s, text);
		if (!buf_error(&b) && b.len)
			cover(proc, own, files[i], &b);
		buf_fini(&b);
	}
	if (own >= 0)
		close(own);
}
