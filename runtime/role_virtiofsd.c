/* runtime/role_virtiofsd.c - moat gofer: a file server of our own for others: the virtio-fs daemon. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "gofer/virtiofs/virtiofsd.h"
#include "runtime/cli.h"

static const char gofer_help[] =
	"Usage: moat gofer --virtiofs --shared-dir DIR --socket PATH [FLAGS]\n\n"
	"Serves DIR as a virtio-fs device on a vhost-user socket, to a sandbox (a mount of type\n"
	"virtiofs, moat run --rootfs-virtiofs) or to a virtual machine. Confines itself to DIR.\n\n"
	"  --cache MODE   what clients may keep: auto (default, a second), none, always\n"
	"  --queues N     request queues, a thread each (default 4, at most 16)\n"
	"  --dax-window SIZE  the address space for mapped files that a client may have: 1G, "
	"512M;\n"
	"                 0: none (default 8G; it costs nothing before it is used)\n"
	"  --writeback    let clients hold written data back (Linux's do then)\n"
	"  --readonly     refuse every change\n"
	"  -o LIST        what clients may ask for, separated by commas, as with virtiofsd:\n"
	"                 posix_lock, flock (locks that other clients and the host respect),\n"
	"                 posix_acl, announce_submounts, killpriv_v2 (on unless no_killpriv_v2),\n"
	"                 writeback; each also with no_ before it; cache=MODE\n"
	"  --once         end with the first connection\n";

static int listen_on(const char *path)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	struct stat st;
	int fd;

	if (strlen(path) + 2 > sizeof(addr.sun_path)) {
		cli_error("--socket %s: longer than %zu bytes", path, sizeof(addr.sun_path) - 2);
		return -1;
	}
	memcpy(addr.sun_path, path, strlen(path));
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	/* Only a socket that nobody listens on is replaced. */
	if (fd >= 0 && connect(fd, (struct sockaddr *)&addr, sizeof(addr)) == 0) {
		cli_error("--socket %s: a daemon listens there already", path);
		close(fd);
		return -1;
	}
	if (fd >= 0)
		close(fd);
	if (lstat(path, &st) == 0 && !S_ISSOCK(st.st_mode)) {
		cli_error("--socket %s: something is there that is no socket", path);
		return -1;
	}
	/* By another name until it listens: whoever sees the socket can connect to it. */
	addr.sun_path[strlen(path)] = '~';
	(void)unlink(addr.sun_path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	umask(077);
	if (fd < 0 || bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 || listen(fd, 8) < 0 ||
	    rename(addr.sun_path, path) < 0) {
		cli_error("--socket %s: %m", path);
		if (fd >= 0)
			close(fd);
		return -1;
	}
	return fd;
}

#define DAX_GRANULE (2ul << 20) /* what clients map at once */

static int parse_window(const char *text, uint64_t *ret)
{
	char *end;
	unsigned long n = strtoul(text, &end, 10);
	unsigned shift = *end == 'G' ? 30 : *end == 'M' ? 20 : 0;

	if (end == text || end[shift ? 1 : 0] || n > (1ul << 40) >> shift ||
	    (n << shift) % DAX_GRANULE) {
		cli_error("gofer: --dax-window '%s' is no size up to 1024G in steps of 2M, like 1G "
			  "or "
			  "512M",
			  text);
		return 1;
	}
	*ret = n << shift;
	return 0;
}

static int parse_cache(const char *text, struct virtiofsd_config *c)
{
	static const char *const modes[] = {[VIRTIOFSD_AUTO] = "auto",
					    [VIRTIOFSD_NONE] = "none",
					    [VIRTIOFSD_ALWAYS] = "always"};

	for (unsigned i = 0; i < ARRAY_SIZE(modes); i++)
		if (!strcmp(text, modes[i])) {
			c->cache = (enum virtiofsd_cache)i;
			return 0;
		}
	cli_error("gofer: --cache '%s' is none of auto, none, always", text);
	return 1;
}

/* -o: the stock daemon's way to say these. */
static int parse_options(const char *list, struct virtiofsd_config *c)
{
	bool killpriv = !c->no_killpriv;
	const struct {
		const char *name;
		bool *at;
	} flags[] = {{"posix_lock", &c->posix_lock}, {"flock", &c->flock},
		     {"posix_acl", &c->posix_acl},   {"announce_submounts", &c->submounts},
		     {"killpriv_v2", &killpriv},     {"writeback", &c->writeback}};
	char *copy = strdup(list), *save = NULL;
	int err = copy ? 0 : 1;

	for (char *at = strtok_r(copy, ",", &save); at && !err; at = strtok_r(NULL, ",", &save)) {
		bool on = strncmp(at, "no_", 3) != 0, found = false;

		for (unsigned i = 0; i < ARRAY_SIZE(flags); i++)
			if (!strcmp(on ? at : at + 3, flags[i].name)) {
				*flags[i].at = on;
				found = true;
			}
		if (!strncmp(at, "cache=", 6)) {
			err = parse_cache(at + 6, c);
		} else if (!found) {
			cli_error("gofer: -o %s: no such option; see moat gofer --help", at);
			err = 1;
		}
	}
	free(copy);
	c->no_killpriv = !killpriv;
	return err;
}

static int parse(int argc, char **argv, struct virtiofsd_config *c, const char **ret_socket)
{
	const char *queues = "4", *window = "8G", *value;
	bool virtiofs = false;
	char *end;

	for (int i = 1; i < argc; i++) {
		if (cli_bool_flag(argv, &i, "virtiofs", 0, &virtiofs) ||
		    cli_bool_flag(argv, &i, "readonly", 0, &c->readonly) ||
		    cli_bool_flag(argv, &i, "writeback", 0, &c->writeback) ||
		    cli_bool_flag(argv, &i, "once", 0, &c->once))
			continue;
		if (cli_flag(argc, argv, &i, "o", 'o', &value)) {
			if (parse_options(value, c))
				return 1;
		} else if (cli_flag(argc, argv, &i, "cache", 0, &value)) {
			if (parse_cache(value, c))
				return 1;
		} else if (!cli_flag(argc, argv, &i, "shared-dir", 0, &c->shared_dir) &&
			   !cli_flag(argc, argv, &i, "socket", 0, ret_socket) &&
			   !cli_flag(argc, argv, &i, "queues", 0, &queues) &&
			   !cli_flag(argc, argv, &i, "dax-window", 0, &window) &&
			   !cli_global_flag(argc, argv, &i))
			return cli_unknown_flag("gofer", argv[i]);
	}
	if (!virtiofs || !c->shared_dir || !*ret_socket) {
		cli_error("gofer: --virtiofs, --shared-dir DIR and --socket PATH are needed; see "
			  "moat gofer --help");
		return 1;
	}
	c->queues = (unsigned)strtoul(queues, &end, 10);
	if (*end || !c->queues || c->queues > VIRTIOFSD_QUEUES_MAX) {
		cli_error("gofer: --queues '%s' is no number from 1 to %d", queues,
			  VIRTIOFSD_QUEUES_MAX);
		return 1;
	}
	return parse_window(window, &c->dax_window);
}

static int gofer_main_verb(int argc, char **argv)
{
	struct virtiofsd_config config = {.sock_fd = -1, .no_namespaces = geteuid() != 0};
	const char *path = NULL;
	struct stat st;

	if (parse(argc, argv, &config, &path))
		return 1;
	if (stat(config.shared_dir, &st) < 0 || !S_ISDIR(st.st_mode)) {
		cli_error("--shared-dir %s: %s", config.shared_dir,
			  errno && !S_ISDIR(st.st_mode) ? "not a directory" : strerror(errno));
		return 1;
	}
	config.listen_fd = listen_on(path);
	if (config.listen_fd < 0)
		return 1;
	signal(SIGPIPE, SIG_IGN);
	log_init(STDERR_FILENO, cli.debug ? LOG_DEBUG_LEVEL : LOG_INFO_LEVEL, "gofer");
	return virtiofsd_main(&config) ? 1 : 0;
}

const struct cli_verb verb_gofer = {
	.name = "gofer",
	.summary = "serve a directory as a virtio-fs device",
	.help = gofer_help,
	.main = gofer_main_verb,
};
