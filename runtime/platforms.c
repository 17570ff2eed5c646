/*
 * runtime/platforms.c - platform choice.
 *
 * `auto` takes the only platform that works, or the faster of those that do. Which is faster is measured once per boot and remembered in
 * the state directory, in a file that names what the answer depends on: the boot, the host's kernel, this binary, the user and
 * what may be opened. A file that says otherwise, is somebody else's or cannot be read is as none: measured again.
 */
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "runtime/cli.h"
#include "runtime/limits.h"
#include "runtime/platforms.h"
#include "sentry/boot/boot.h"

#define CACHE_NAME ".platform"
#define CACHE_SIZE_MAX 2048
#define AUTO_MAX 4
/* A fault counts as this part of a system call: programs make fewer. */
#define FAULT_SHARE 8

static char chosen_why[512];

static const char *all_names(char *buf, size_t size)
{
	const char *name;
	size_t n = 0;

	buf[0] = '\0';
	for (unsigned i = 0; (name = boot_platform_name(i)) != NULL && n < size; i++)
		n += (size_t)snprintf(buf + n, size - n, "%s%s", i ? ", " : "", name);
	return buf;
}

/* ---- what the answer depends on ---- */

static void cache_key(char *buf, size_t size)
{
	char boot_id[64] = "";
	struct utsname host = {0};
	struct stat self = {0};
	int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd >= 0 ? read(fd, boot_id, sizeof(boot_id) - 1) : -1;

	if (fd >= 0)
		close(fd);
	boot_id[n > 0 ? strcspn(boot_id, "\n") : 0] = '\0';
	(void)uname(&host);
	(void)!stat("/proc/self/exe", &self);
	snprintf(buf, size,
		 "moat-platform 1 boot %s kernel %s %s binary %lx:%lx:%lx:%lx user %u kvm %d\n",
		 boot_id, host.release, host.version, (unsigned long)self.st_dev,
		 (unsigned long)self.st_ino, (unsigned long)self.st_mtim.tv_sec,
		 (unsigned long)self.st_mtim.tv_nsec, geteuid(), access("/dev/kvm", R_OK | W_OK));
}

/* Is the directory one that only this user writes? */
static int cache_dir(void)
{
	struct stat st;
	int fd;

	if (mkdir(cli.root, 0700) < 0 && errno != EEXIST)
		return -1;
	fd = open(cli.root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd >= 0 && (fstat(fd, &st) || st.st_uid != geteuid() || (st.st_mode & 022))) {
		close(fd);
		return -1;
	}
	return fd;
}

static const char *known_name(const char *name)
{
	const char *known;

	for (unsigned i = 0; (known = boot_platform_name(i)) != NULL; i++)
		if (strcmp(known, name) == 0)
			return known;
	return NULL;
}

/* Second line: the name; third: the reason. Return: NULL if there is no answer. */
static const char *cache_load(int dirfd, const char *key)
{
	char *text, *name, *why;
	const char *known = NULL;
	size_t size;

	if (io_read_file_at(dirfd, CACHE_NAME, CACHE_SIZE_MAX, &text, &size))
		return NULL;
	if (strlen(text) == size && strncmp(text, key, strlen(key)) == 0) {
		name = text + strlen(key);
		why = strchr(name, '\n');
		if (why) {
			*why++ = '\0';
			why[strcspn(why, "\n")] = '\0';
			known = known_name(name);
			snprintf(chosen_why, sizeof(chosen_why), "%s (measured before)", why);
		}
	}
	free(text);
	return known;
}

static void cache_save(int dirfd, const char *key, const char *name)
{
	char text[CACHE_SIZE_MAX], temp[64];
	int n = snprintf(text, sizeof(text), "%s%s\n%s\n", key, name, chosen_why);

	/* Without it the next start measures again: nothing that the user must hear of. */
	snprintf(temp, sizeof(temp), CACHE_NAME ".%d", (int)getpid());
	if (n <= 0 || (size_t)n >= sizeof(text))
		return;
	if (io_write_file_at(dirfd, temp, text, (size_t)n, 0600) ||
	    renameat(dirfd, temp, dirfd, CACHE_NAME))
		(void)!unlinkat(dirfd, temp, 0);
}

/* ---- measuring ---- */

static const char *measure(const char *const *works, unsigned n)
{
	const char *best = NULL;
	int64_t best_score = INT64_MAX;
	size_t len = 0;

	for (unsigned i = 0; i < n; i++) {
		struct platform_speed speed;
		int err = boot_platform_measure(works[i], &speed);
		char *at = chosen_why + len;
		size_t left = sizeof(chosen_why) - len;

		if (err)
			snprintf(at, left, "%s%s: %s", i ? "; " : "", works[i], strerror(-err));
		else
			snprintf(at, left, "%s%s: a system call %.1f us, a fault %.1f us",
				 i ? "; " : "", works[i], (double)speed.syscall_ns / 1000,
				 (double)speed.fault_ns / 1000);
		len = strlen(chosen_why);
		if (!err && speed.syscall_ns + speed.fault_ns / FAULT_SHARE < best_score) {
			best_score = speed.syscall_ns + speed.fault_ns / FAULT_SHARE;
			best = works[i];
		}
	}
	return best;
}

/* Return: the platform's name, the reason in chosen_why; NULL after an error message. */
static const char *choose(void)
{
	const char *works[AUTO_MAX], *name;
	char why[AUTO_MAX * 256], key[1024];
	unsigned n = 0;
	size_t len = 0;
	int dirfd;

	why[0] = '\0';
	for (unsigned i = 0; i < AUTO_MAX && (name = boot_platform_name(i)) != NULL; i++) {
		if (boot_platform_probe(name, why + len, MIN(sizeof(why) - len, 256ul)) == 0) {
			works[n++] = name;
			continue;
		}
		len += strlen(why + len);
		len += (size_t)snprintf(why + len, sizeof(why) - len, "; ");
	}
	if (len >= 2)
		why[len - 2] = '\0';
	if (n == 0) {
		cli_error("no platform works here: %s", why);
		return NULL;
	}
	if (n == 1) {
		snprintf(chosen_why, sizeof(chosen_why), "the only one here%s%.400s",
			 why[0] ? ": " : "", why);
		return works[0];
	}
	cache_key(key, sizeof(key));
	dirfd = cache_dir();
	name = dirfd >= 0 ? cache_load(dirfd, key) : NULL;
	if (!name) {
		name = measure(works, n);
		if (name && dirfd >= 0)
			cache_save(dirfd, key, name);
	}
	if (dirfd >= 0)
		close(dirfd);
	if (!name)
		cli_error("no platform works here: %s", chosen_why);
	return name;
}

bool platform_usable(const char *name)
{
	char why[256], names[128];

	if (strcmp(name, "auto") == 0) {
		cli.platform = choose();
		return cli.platform != NULL;
	}
	snprintf(chosen_why, sizeof(chosen_why), "asked for");
	if (!known_name(name)) {
		cli_error("unknown platform '%s'; --platform is auto or one of %s", name,
			  all_names(names, sizeof(names)));
		return false;
	}
	if (boot_platform_probe(name, why, sizeof(why)) == 0)
		return true;
	cli_error("%s", why);
	return false;
}

static char *dup_or_exit(const char *s)
{
	char *copy = strdup(s);

	if (!copy) {
		cli_error("out of memory");
		exit(1);
	}
	return copy;
}

/* "0-3,6". NULL: it is too long. */
static char *cpu_list(const cpu_set_t *set)
{
	char text[512];
	size_t len = 0;

	for (int i = 0; i < CPU_SETSIZE; i++) {
		int last = i;

		if (!CPU_ISSET(i, set))
			continue;
		while (last + 1 < CPU_SETSIZE && CPU_ISSET(last + 1, set))
			last++;
		len += (size_t)snprintf(text + len, sizeof(text) - len, "%s%d-%d", len ? "," : "",
					i, last);
		if (len >= sizeof(text))
			return NULL;
		i = last;
	}
	return dup_or_exit(text);
}

void boot_spec_add_globals(struct boot_spec *spec, const char *id)
{
	cpu_set_t set;
	bool known = sched_getaffinity(0, sizeof(set), &set) == 0;

	spec->id = dup_or_exit(id);
	spec->platform = dup_or_exit(cli.platform);
	spec->platform_why = dup_or_exit(chosen_why);
	spec->strace = cli.strace ? dup_or_exit(cli.strace) : NULL;
	spec->debug = cli.debug;
	spec->no_path_cache = cli.no_path_cache;
	spec->no_patch = cli.no_patch;
	spec->host_fifo = cli.host_fifo;
	spec->cpus = known ? (unsigned)CPU_COUNT(&set) : 1;
	spec->host_cpus = known ? cpu_list(&set) : NULL;
	if (!spec->hostname)
		spec->hostname = dup_or_exit("moat");
	limits_add(spec);
}
