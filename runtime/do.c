/*
 * runtime/do.c - moat do: one command in a throw-away sandbox over the host's root.
 *
 * The host's tree is served read-only by the gofer; writes go to memory through an overlay and are gone at the end.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/cli.h"
#include "runtime/platforms.h"
#include "runtime/sandbox.h"

static const char do_help[] =
	"Usage: moat do [--cwd DIR] [--rootfs DIR] [--] CMD [ARGS...]\n\n"
	"Runs CMD in a sandbox that sees the host's files read-only; what it writes stays\n"
	"in memory and is gone when it ends. /proc, /sys and /dev are the sandbox's own.\n\n"
	"  --cwd DIR      start there (default: the current directory, / with --rootfs)\n"
	"  --rootfs DIR   another tree than /\n"
	"  --tty, --no-tty  a terminal of its own (default: if standard input and output are one)\n"
	"  --network MODE none (default), host, or ns:PATH of a network namespace\n\n"
	"Example: moat do -- python3 -c 'import platform; print(platform.uname())'\n";

struct do_mount {
	const char *destination, *type, *source, *data;
	uint64_t flags;
	bool only_other_root;
};

static const struct do_mount do_mounts[] = {
	{"/proc", "proc", "proc", NULL, MS_NOSUID | MS_NODEV | MS_NOEXEC, false},
	{"/sys", "sysfs", "sysfs", NULL, MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_RDONLY, false},
	{"/dev", "tmpfs", "tmpfs", "mode=755,size=65536k", MS_NOSUID | MS_STRICTATIME, false},
	{"/dev/pts", "devpts", "devpts", "newinstance,ptmxmode=0666,mode=0620,gid=5",
	 MS_NOSUID | MS_NOEXEC, false},
	{"/dev/shm", "tmpfs", "shm", "mode=1777", MS_NOSUID | MS_NODEV | MS_NOEXEC, false},
	{"/dev/mqueue", "mqueue", "mqueue", NULL, MS_NOSUID | MS_NODEV | MS_NOEXEC, false},
	{"/tmp", "tmpfs", "tmpfs", "mode=1777", MS_NOSUID | MS_NODEV, true},
	{"/run", "tmpfs", "tmpfs", "mode=755", MS_NOSUID | MS_NODEV, true},
};

static char *dup_opt(const char *s)
{
	return s ? strdup(s) : NULL;
}

static int fill_spec(struct oci_config *c, char **argv, int argc, const char *cwd,
		     const char *rootfs, bool tty)
{
	struct boot_spec *s = &c->spec;
	size_t envc = 0;

	memset(c, 0, sizeof(*c));
	boot_spec_init(s);
	s->argv = calloc((size_t)argc + 1, sizeof(*s->argv));
	while (environ[envc])
		envc++;
	s->envp = calloc(envc + 1, sizeof(*s->envp));
	s->mounts = calloc(ARRAY_SIZE(do_mounts), sizeof(*s->mounts));
	s->cwd = strdup(cwd);
	if (!s->argv || !s->envp || !s->mounts || !s->cwd ||
	    oci_attach_add(c, strdup(rootfs), true, false) < 0)
		return -ENOMEM;
	for (int i = 0; i < argc; i++)
		s->argv[i] = strdup(argv[i]);
	for (size_t i = 0; i < envc; i++)
		s->envp[i] = strdup(environ[i]);
	for (size_t i = 0; i < ARRAY_SIZE(do_mounts); i++) {
		const struct do_mount *m = &do_mounts[i];

		/* The host's own temporary files are part of its tree; another tree gets fresh ones. */
		if (m->only_other_root && strcmp(rootfs, "/") == 0)
			continue;

		s->mounts[s->nmounts++] = (struct boot_mount){strdup(m->destination),
							      strdup(m->type),
							      strdup(m->source),
							      dup_opt(m->data),
							      m->flags,
							      0,
							      -1,
							      false};
	}
	s->umask = 022;
	s->cap_bounding = s->cap_effective = s->cap_permitted = (1ull << 41) - 1;
	s->rootfs_overlay = BOOT_OVERLAY_MEMORY;
	s->terminal = tty;
	s->killable_init = true;
	return 0;
}

static int do_main(int argc, char **argv)
{
	const char *cwd = NULL, *rootfs = "/", *network;
	struct sandbox_options opts = {0};
	struct oci_config config;
	char cwd_buf[PATH_MAX], id[64];
	struct stat st;
	int tty = -1, i, status;
	bool set;

	for (i = 1; i < argc && argv[i][0] == '-'; i++) {
		if (strcmp(argv[i], "--") == 0) {
			i++;
			break;
		}
		if (cli_flag(argc, argv, &i, "cwd", 0, &cwd) ||
		    cli_flag(argc, argv, &i, "rootfs", 0, &rootfs))
			continue;
		if (cli_flag(argc, argv, &i, "network", 0, &network)) {
			if (network_option_parse(network, &opts.network))
				return 1;
			continue;
		}
		if (cli_bool_flag(argv, &i, "tty", 't', &set))
			tty = set;
		else if (cli_bool_flag(argv, &i, "no-tty", 0, &set))
			tty = !set;
		else if (cli_bool_flag(argv, &i, "net-host", 0, &set))
			opts.network.host = set;
		else if (!cli_global_flag(argc, argv, &i))
			return cli_unknown_flag("do", argv[i]);
	}
	if (i >= argc) {
		cli_error("do: no command; usage: moat do -- CMD [ARGS...]");
		return 1;
	}
	if (cli.overlay && strcmp(cli.overlay, "none") == 0) {
		cli_error("do: --overlay=none: CMD may not write to the host's tree; run a bundle "
			  "for that");
		return 1;
	}
	errno = ENOTDIR;
	if (stat(rootfs, &st) < 0 || !S_ISDIR(st.st_mode)) {
		cli_error("do: --rootfs: %s: %m", rootfs);
		return 1;
	}
	if (!platform_usable(cli.platform))
		return 1;
	if (!cwd)
		cwd = strcmp(rootfs, "/") != 0		 ? "/"
		      : getcwd(cwd_buf, sizeof(cwd_buf)) ? cwd_buf
							 : "/";
	if (tty < 0)
		tty = isatty(STDIN_FILENO) && isatty(STDOUT_FILENO);
	if (fill_spec(&config, argv + i, argc - i, cwd, rootfs, tty)) {
		cli_error("out of memory");
		return 1;
	}
	snprintf(id, sizeof(id), "do-%d", getpid());
	opts.id = id;
	opts.no_cgroup = true;
	boot_spec_add_globals(&config.spec, id);
	status = sandbox_run(&config, &opts);
	oci_config_fini(&config);
	return status;
}

const struct cli_verb verb_do = {"do", "run one command over the host's root, read-only", do_help,
				 do_main};
