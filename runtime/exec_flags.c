/* runtime/exec_flags.c - the flags of moat exec: exec_flags.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/cli.h"
#include "runtime/exec_flags.h"
#include "wire/control.h"

/* Of a flag. Return 1, or -1 after an error message. */
static int add_string(json_t **list, const char *name, const char *s)
{
	if (!*list)
		*list = json_array();
	if (json_array_append_new(*list, json_string(s)) == 0)
		return 1;
	cli_error("exec failed: --%s: the value is no UTF-8", name);
	return -1;
}

static bool unsigned_flag(const char *name, const char *text, unsigned max, unsigned *ret)
{
	char *end;
	unsigned long v = strtoul(text, &end, 10);

	if (!*text || *end || v > max) {
		cli_error("--%s: '%s' is no number from 0 to %u", name, text, max);
		return false;
	}
	*ret = (unsigned)v;
	return true;
}

/* [CONTROLLERS:]PATH, a cgroup below the container's. There is none: all of a sandbox is in one. */
static bool cgroup_flag(const char *text)
{
	static const char *const known =
		",cpu,cpuacct,cpuset,memory,pids,devices,freezer,blkio,io,hugetlb,net_cls,net_prio,"
		"perf_event,rdma,misc,name=systemd,";
	const char *colon = strchr(text, ':'), *path = colon ? colon + 1 : text;

	for (const char *c = text; colon && c < colon;) {
		int len = (int)strcspn(c, ",:");
		char word[64];

		snprintf(word, sizeof(word), ",%.*s,", len, c);
		if (!strstr(known, word)) {
			cli_error("exec failed: unknown controller %.*s in --cgroup", len, c);
			return false;
		}
		c += len + 1;
	}
	if (strspn(path, "/.") == strlen(path) && !strstr(path, ".."))
		return true;
	cli_error("exec failed: --cgroup %s: no such file or directory; a container's processes "
		  "are all in one cgroup, /",
		  path);
	return false;
}

int exec_flag(struct exec_options *o, int argc, char **argv, int *i)
{
	const char *v;
	unsigned n;

	if (cli_flag(argc, argv, i, "process", 'p', &o->process_file) ||
	    cli_flag(argc, argv, i, "console-socket", 0, &o->console_socket) ||
	    cli_flag(argc, argv, i, "pid-file", 0, &o->pid_file) ||
	    cli_flag(argc, argv, i, "cwd", 0, &o->cwd) ||
	    cli_flag(argc, argv, i, "user", 'u', &o->user))
		return 1;
	if (cli_flag(argc, argv, i, "env", 'e', &v))
		return add_string(&o->env, "env", v);
	if (cli_flag(argc, argv, i, "cap", 'c', &v))
		return add_string(&o->caps, "cap", v);
	if (cli_flag(argc, argv, i, "additional-gids", 'g', &v)) {
		if (!unsigned_flag("additional-gids", v, UINT32_MAX - 1, &n))
			return -1;
		if (!o->gids)
			o->gids = json_array();
		json_array_append_new(o->gids, json_integer(n));
		return 1;
	}
	if (cli_flag(argc, argv, i, "preserve-fds", 0, &v))
		return unsigned_flag("preserve-fds", v, CONTROL_PRESERVED_MAX + 3, &o->preserve_fds)
			       ? 1
			       : -1;
	if (cli_flag(argc, argv, i, "cgroup", 0, &v))
		return o->cgroup = v, 1;
	if (cli_flag(argc, argv, i, "apparmor", 0, &o->apparmor) ||
	    cli_flag(argc, argv, i, "process-label", 0, &o->process_label))
		return 1;
	if (cli_bool_flag(argv, i, "detach", 'd', &o->detach) ||
	    cli_bool_flag(argv, i, "tty", 't', &o->tty) ||
	    cli_bool_flag(argv, i, "ignore-paused", 0, &o->ignore_paused) ||
	    cli_bool_flag(argv, i, "no-new-privs", 0, &o->no_new_privs))
		return 1;
	return cli_global_flag(argc, argv, i) ? 1 : 0;
}

/* What is given to one process by name is wanted: unlike config.json's labels, which engines write wherever the host has such. */
bool exec_check_flags(const struct exec_options *o)
{
	if (!o->process_file && o->argc < 1)
		cli_error("exec failed: process args cannot be empty");
	else if (o->apparmor && *o->apparmor)
		cli_error("exec failed: --apparmor %s: the sandbox has no AppArmor profiles",
			  o->apparmor);
	else if (o->process_label && *o->process_label)
		cli_error("exec failed: --process-label %s: selinux label is specified, but the "
			  "sandbox has no SELinux",
			  o->process_label);
	else
		return !o->cgroup || cgroup_flag(o->cgroup);
	return false;
}
