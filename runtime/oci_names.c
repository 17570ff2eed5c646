/* runtime/oci_names.c - tables of names in config.json: capabilities, rlimits, mount options. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <string.h>
#include <sys/mount.h>

#include "base/buf.h"
#include "runtime/oci.h"
#include "runtime/oci_names.h"

static const char *const cap_names[] = {
	"CAP_CHOWN",
	"CAP_DAC_OVERRIDE",
	"CAP_DAC_READ_SEARCH",
	"CAP_FOWNER",
	"CAP_FSETID",
	"CAP_KILL",
	"CAP_SETGID",
	"CAP_SETUID",
	"CAP_SETPCAP",
	"CAP_LINUX_IMMUTABLE",
	"CAP_NET_BIND_SERVICE",
	"CAP_NET_BROADCAST",
	"CAP_NET_ADMIN",
	"CAP_NET_RAW",
	"CAP_IPC_LOCK",
	"CAP_IPC_OWNER",
	"CAP_SYS_MODULE",
	"CAP_SYS_RAWIO",
	"CAP_SYS_CHROOT",
	"CAP_SYS_PTRACE",
	"CAP_SYS_PACCT",
	"CAP_SYS_ADMIN",
	"CAP_SYS_BOOT",
	"CAP_SYS_NICE",
	"CAP_SYS_RESOURCE",
	"CAP_SYS_TIME",
	"CAP_SYS_TTY_CONFIG",
	"CAP_MKNOD",
	"CAP_LEASE",
	"CAP_AUDIT_WRITE",
	"CAP_AUDIT_CONTROL",
	"CAP_SETFCAP",
	"CAP_MAC_OVERRIDE",
	"CAP_MAC_ADMIN",
	"CAP_SYSLOG",
	"CAP_WAKE_ALARM",
	"CAP_BLOCK_SUSPEND",
	"CAP_AUDIT_READ",
	"CAP_PERFMON",
	"CAP_BPF",
	"CAP_CHECKPOINT_RESTORE",
};

int oci_cap_number(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(cap_names); i++)
		if (strcmp(name, cap_names[i]) == 0)
			return (int)i;
	return -1;
}

const char *oci_cap_name(int cap)
{
	return cap >= 0 && (size_t)cap < ARRAY_SIZE(cap_names) ? cap_names[cap] : NULL;
}

int oci_rlimit_number(const char *name)
{
	static const char *const names[BOOT_RLIMITS] = {
		"RLIMIT_CPU",	   "RLIMIT_FSIZE", "RLIMIT_DATA",   "RLIMIT_STACK",
		"RLIMIT_CORE",	   "RLIMIT_RSS",   "RLIMIT_NPROC",  "RLIMIT_NOFILE",
		"RLIMIT_MEMLOCK",  "RLIMIT_AS",	   "RLIMIT_LOCKS",  "RLIMIT_SIGPENDING",
		"RLIMIT_MSGQUEUE", "RLIMIT_NICE",  "RLIMIT_RTPRIO", "RLIMIT_RTTIME",
	};

	for (int i = 0; i < BOOT_RLIMITS; i++)
		if (strcmp(name, names[i]) == 0)
			return i;
	return -1;
}

struct mount_option {
	const char *name;
	uint64_t set, clear, propagation;
};

static const struct mount_option mount_options[] = {
	{"defaults", 0, 0, 0},
	{"ro", MS_RDONLY, 0, 0},
	{"rw", 0, MS_RDONLY, 0},
	{"nosuid", MS_NOSUID, 0, 0},
	{"suid", 0, MS_NOSUID, 0},
	{"nodev", MS_NODEV, 0, 0},
	{"dev", 0, MS_NODEV, 0},
	{"noexec", MS_NOEXEC, 0, 0},
	{"exec", 0, MS_NOEXEC, 0},
	{"sync", MS_SYNCHRONOUS, 0, 0},
	{"async", 0, MS_SYNCHRONOUS, 0},
	{"dirsync", MS_DIRSYNC, 0, 0},
	{"remount", MS_REMOUNT, 0, 0},
	{"mand", MS_MANDLOCK, 0, 0},
	{"nomand", 0, MS_MANDLOCK, 0},
	{"noatime", MS_NOATIME, 0, 0},
	{"atime", 0, MS_NOATIME, 0},
	{"nodiratime", MS_NODIRATIME, 0, 0},
	{"diratime", 0, MS_NODIRATIME, 0},
	{"relatime", MS_RELATIME, 0, 0},
	{"norelatime", 0, MS_RELATIME, 0},
	{"strictatime", MS_STRICTATIME, 0, 0},
	{"nostrictatime", 0, MS_STRICTATIME, 0},
	{"nosymfollow", 256, 0, 0},
	{"bind", MS_BIND, 0, 0},
	{"rbind", MS_BIND | MS_REC, 0, 0},
	{"private", 0, 0, MS_PRIVATE},
	{"rprivate", 0, 0, MS_PRIVATE | MS_REC},
	{"shared", 0, 0, MS_SHARED},
	{"rshared", 0, 0, MS_SHARED | MS_REC},
	{"slave", 0, 0, MS_SLAVE},
	{"rslave", 0, 0, MS_SLAVE | MS_REC},
	{"unbindable", 0, 0, MS_UNBINDABLE},
	{"runbindable", 0, 0, MS_UNBINDABLE | MS_REC},
	/* Of all that a bind mount brings along: the sandbox's has one set of flags for that anyway. */
	{"rro", MS_RDONLY, 0, 0},
	{"rrw", 0, MS_RDONLY, 0},
	{"rnosuid", MS_NOSUID, 0, 0},
	{"rsuid", 0, MS_NOSUID, 0},
	{"rnodev", MS_NODEV, 0, 0},
	{"rdev", 0, MS_NODEV, 0},
	{"rnoexec", MS_NOEXEC, 0, 0},
	{"rexec", 0, MS_NOEXEC, 0},
	{"rnoatime", MS_NOATIME, 0, 0},
	{"ratime", 0, MS_NOATIME, 0},
	{"rnodiratime", MS_NODIRATIME, 0, 0},
	{"rdiratime", 0, MS_NODIRATIME, 0},
	{"rrelatime", MS_RELATIME, 0, 0},
	{"rnorelatime", 0, MS_RELATIME, 0},
	{"rstrictatime", MS_STRICTATIME, 0, 0},
	{"rnostrictatime", 0, MS_STRICTATIME, 0},
	{"rnosymfollow", 256, 0, 0},
	{"rsymfollow", 0, 256, 0},
	{"symfollow", 0, 256, 0},
	/* Of filesystems that the sandbox does not have. */
	{"acl", 0, 0, 0},
	{"noacl", 0, 0, 0},
	{"iversion", 0, 0, 0},
	{"noiversion", 0, 0, 0},
	{"lazytime", 0, 0, 0},
	{"nolazytime", 0, 0, 0},
	{"silent", 0, 0, 0},
	{"loud", 0, 0, 0},
};

const char *oci_mount_option_name(size_t i)
{
	return i < ARRAY_SIZE(mount_options) ? mount_options[i].name : NULL;
}

bool oci_mount_option(const char *name, uint64_t *inout_flags, uint64_t *inout_propagation)
{
	for (size_t i = 0; i < ARRAY_SIZE(mount_options); i++) {
		const struct mount_option *o = &mount_options[i];

		if (strcmp(name, o->name) != 0)
			continue;
		*inout_flags = (*inout_flags & ~o->clear) | o->set;
		if (o->propagation)
			*inout_propagation = o->propagation;
		return true;
	}
	return false;
}

bool oci_mount_type_known(const char *type)
{
	static const char *const types[] = {"proc",   "sysfs",	  "tmpfs", "devpts",
					    "mqueue", "virtiofs", "9p",	   "bind",
					    "cgroup", "cgroup2",  "none",  "overlay"};

	for (size_t i = 0; i < ARRAY_SIZE(types); i++)
		if (strcmp(type, types[i]) == 0)
			return true;
	return false;
}

const char *oci_own_instead(const char *source, const char *destination)
{
	static const char cgroup[] = "/sys/fs/cgroup/";
	static const struct {
		const char *path, *type;
	} own[] = {{"/sys", "sysfs"},
		   {"/proc", "proc"},
		   {"/sys/fs/cgroup", "cgroup"},
		   {"/dev/mqueue", "mqueue"}};

	if (!source)
		return NULL;
	/* A hierarchy of v1, as podman's --systemd gives it. */
	if (strncmp(source, cgroup, sizeof(cgroup) - 1) == 0 &&
	    strncmp(destination, cgroup, sizeof(cgroup) - 1) == 0)
		return "";
	for (size_t i = 0; i < ARRAY_SIZE(own); i++)
		if (strcmp(source, own[i].path) == 0)
			return own[i].type;
	return NULL;
}

/* The next option of an overlay's data, which is taken apart; a comma in a path has a backslash before it. NULL: no more. */
static char *next_option(char **rest)
{
	char *option = *rest, *end = option;

	if (!option || !*option)
		return NULL;
	while (*end && *end != ',')
		end += end[0] == '\\' && end[1] ? 2 : 1;
	*rest = *end ? end + 1 : end;
	*end = '\0';
	return option;
}

/* Takes the data apart: its layers, into it; NULL what there is not. */
static void overlay_layers(char *data, const char **ret_lower, const char **ret_upper)
{
	char *option;

	*ret_lower = *ret_upper = NULL;
	while ((option = next_option(&data))) {
		if (strncmp(option, "lowerdir=", 9) == 0)
			*ret_lower = option + 9;
		else if (strncmp(option, "upperdir=", 9) == 0)
			*ret_upper = option + 9;
	}
}

/* upperdir as one of lowerdir's, between whose paths a colon stands. */
static void put_layer(struct buf *b, const char *path)
{
	for (; *path; path++) {
		if (path[0] == '\\' && path[1])
			buf_putc(b, *path++);
		else if (*path == ':')
			buf_putc(b, '\\');
		buf_putc(b, *path);
	}
}

char *oci_overlay_readonly(const char *data)
{
	/* What makes another tree of the same layers. */
	static const char *const kept[] = {"userxattr", "metacopy=", "redirect_dir="};
	char *copy = strdup(data), *option, *rest = copy, *ret = NULL;
	const char *lower = NULL, *upper = NULL;
	struct buf b, more;

	if (!copy)
		return NULL;
	buf_init(&b, OCI_CONFIG_MAX);
	buf_init(&more, OCI_CONFIG_MAX);
	while ((option = next_option(&rest))) {
		if (strncmp(option, "lowerdir=", 9) == 0)
			lower = option + 9;
		else if (strncmp(option, "upperdir=", 9) == 0)
			upper = option + 9;
		for (size_t i = 0; i < ARRAY_SIZE(kept); i++)
			if (strncmp(option, kept[i], strlen(kept[i])) == 0)
				buf_printf(&more, ",%s", option);
	}
	buf_puts(&b, "lowerdir=");
	if (upper) {
		put_layer(&b, upper);
		buf_putc(&b, ':');
	}
	buf_puts(&b, lower ? lower : "");
	if (more.len)
		buf_puts(&b, more.data);
	if (lower && !buf_error(&b) && !buf_error(&more))
		ret = strdup(b.data);
	buf_fini(&b);
	buf_fini(&more);
	free(copy);
	return ret;
}

int oci_overlay_check(const char *data, const char *destination, char *why)
{
	char *copy = strdup(data);
	const char *layers[2];
	struct stat st;
	int err = 0;

	if (!copy) {
		snprintf(why, OCI_ERROR_MAX, "out of memory");
		return -ENOMEM;
	}
	overlay_layers(copy, &layers[0], &layers[1]);
	for (size_t i = 0; i < 2 && !err; i++) {
		/* Several, or with something special in its name: the mount tells. */
		if (!layers[i] || strpbrk(layers[i], ":\\") || stat(layers[i], &st) == 0)
			continue;
		err = -errno;
		snprintf(why, OCI_ERROR_MAX, "mounts: the overlay at %.100s: %.250s: %s",
			 destination, layers[i], strerror(errno));
	}
	free(copy);
	return err;
}
