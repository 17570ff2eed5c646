/*
 * runtime/oci_seccomp.c - linux.seccomp compiled to the filter that the sentry evaluates for the guest.
 *
 * The guest makes x86-64 calls only, so the filter is for that architecture; the others in the profile have nothing to act on. Rules are
 * added as runc adds them: names that libseccomp does not know are skipped, a rule with the default action is none, and several
 * conditions on one argument are alternatives.
 */
#include <ctype.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/oci.h"

#define SECCOMP_ARGS 6
#define NOTIFY "SCMP_ACT_NOTIFY"

static int fail(char *why, const char *what, const char *name)
{
	snprintf(why, OCI_ERROR_MAX, "linux.seccomp: %s '%.100s'", what, name ? name : "");
	return -EINVAL;
}

static bool parse_action(const char *name, const json_t *errno_ret, uint32_t *ret)
{
	uint32_t err = json_is_integer(errno_ret) ? (uint32_t)json_integer_value(errno_ret) & 0xffff
						  : EPERM;
	const struct {
		const char *name;
		uint32_t action;
	} actions[] = {
		{"SCMP_ACT_ALLOW", SCMP_ACT_ALLOW},
		{"SCMP_ACT_ERRNO", SCMP_ACT_ERRNO(err)},
		{"SCMP_ACT_KILL", SCMP_ACT_KILL_THREAD},
		{"SCMP_ACT_KILL_THREAD", SCMP_ACT_KILL_THREAD},
		{"SCMP_ACT_KILL_PROCESS", SCMP_ACT_KILL_PROCESS},
		{"SCMP_ACT_TRAP", SCMP_ACT_TRAP},
		{"SCMP_ACT_TRACE", SCMP_ACT_TRACE(err)},
		{"SCMP_ACT_LOG", SCMP_ACT_LOG},
	};

	for (size_t i = 0; name && i < ARRAY_SIZE(actions); i++)
		if (strcmp(name, actions[i].name) == 0) {
			*ret = actions[i].action;
			return true;
		}
	return false;
}

static bool parse_op(const char *name, enum scmp_compare *ret)
{
	static const struct {
		const char *name;
		enum scmp_compare op;
	} ops[] = {
		{"SCMP_CMP_NE", SCMP_CMP_NE},
		{"SCMP_CMP_LT", SCMP_CMP_LT},
		{"SCMP_CMP_LE", SCMP_CMP_LE},
		{"SCMP_CMP_EQ", SCMP_CMP_EQ},
		{"SCMP_CMP_GE", SCMP_CMP_GE},
		{"SCMP_CMP_GT", SCMP_CMP_GT},
		{"SCMP_CMP_MASKED_EQ", SCMP_CMP_MASKED_EQ},
	};

	for (size_t i = 0; name && i < ARRAY_SIZE(ops); i++)
		if (strcmp(name, ops[i].name) == 0) {
			*ret = ops[i].op;
			return true;
		}
	return false;
}

/* -EEXIST: the same rule again. */
static int add(scmp_filter_ctx ctx, uint32_t action, int nr, const struct scmp_arg_cmp *args,
	       unsigned n)
{
	int err = seccomp_rule_add_array(ctx, action, nr, n, args);

	return err == -EEXIST ? 0 : err;
}

static int add_call(scmp_filter_ctx ctx, uint32_t action, const char *name, const json_t *list,
		    char *why)
{
	struct scmp_arg_cmp args[32];
	unsigned n = 0, uses[SECCOMP_ARGS] = {0};
	int nr = seccomp_syscall_resolve_name(name), err = 0;
	bool repeated = false;

	if (nr < 0)
		return 0;
	for (size_t i = 0; i < json_array_size(list); i++) {
		const json_t *a = json_array_get(list, i);
		json_int_t index = json_integer_value(json_object_get(a, "index")),
			   value = json_integer_value(json_object_get(a, "value")),
			   two = json_integer_value(json_object_get(a, "valueTwo"));
		const char *op_name = json_string_value(json_object_get(a, "op"));
		enum scmp_compare op;

		if (index < 0 || index >= SECCOMP_ARGS || n == ARRAY_SIZE(args) ||
		    !parse_op(op_name, &op))
			return fail(why, "bad condition on", name);
		/* For a masked comparison the mask comes first in libseccomp. */
		args[n++] = (struct scmp_arg_cmp){(unsigned)index, op, (scmp_datum_t)value,
						  (scmp_datum_t)two};
		repeated = repeated || uses[index]++;
	}
	if (!repeated)
		return add(ctx, action, nr, args, n);
	for (unsigned i = 0; i < n && !err; i++)
		err = add(ctx, action, nr, &args[i], 1);
	return err;
}

/*
 * Why SCMP_ACT_NOTIFY is not to be had; runc's words where it refuses too. The agent's descriptor would be one of the host's kernel, which does not
 * see the guest's calls.
 */
static int refuse_notify(const json_t *seccomp, const json_t *names, char *why)
{
	const char *name;
	const json_t *v;
	size_t i;

	json_array_foreach((json_t *)names, i, v)
	{
		name = json_string_value(v);
		if (name && strcmp(name, "write") == 0)
			return fail(why,
				    "SCMP_ACT_NOTIFY cannot be used for the write syscall:", name);
	}
	name = json_string_value(json_object_get(seccomp, "listenerPath"));
	if (!name || !*name)
		return fail(why, "SCMP_ACT_NOTIFY: listenerPath is not set:", name);
	return fail(
		why,
		"SCMP_ACT_NOTIFY: this runtime's calls are not the host's, and cannot be answered "
		"by the agent at listenerPath; use SCMP_ACT_ERRNO or SCMP_ACT_ALLOW instead:",
		name);
}

static int add_rules(scmp_filter_ctx ctx, const json_t *seccomp, uint32_t dflt, char *why)
{
	const json_t *list = json_object_get(seccomp, "syscalls");

	for (size_t i = 0; i < json_array_size(list); i++) {
		const json_t *rule = json_array_get(list, i),
			     *names = json_object_get(rule, "names");
		const char *action_name = json_string_value(json_object_get(rule, "action"));
		uint32_t action;

		if (action_name && strcmp(action_name, NOTIFY) == 0)
			return refuse_notify(seccomp, names, why);
		if (!parse_action(action_name, json_object_get(rule, "errnoRet"), &action))
			return fail(why, "unknown action", action_name);
		if (action == dflt)
			continue;
		for (size_t k = 0; k < json_array_size(names); k++) {
			const char *name = json_string_value(json_array_get(names, k));
			int err = name ? add_call(ctx, action, name, json_object_get(rule, "args"),
						  why)
				       : -EINVAL;

			if (err)
				return err == -EINVAL && why[0]
					       ? err
					       : fail(why, "cannot add rule for", name);
		}
	}
	return 0;
}

static int export_hex(scmp_filter_ctx ctx, char **ret_hex)
{
	int fd = memfd_create("moat-seccomp", MFD_CLOEXEC), err = fd < 0 ? -errno : 0;
	struct sock_filter insn;
	char *hex = NULL, *at = NULL;
	struct stat st;

	if (!err)
		err = seccomp_export_bpf(ctx, fd);
	if (!err && fstat(fd, &st) < 0)
		err = -errno;
	if (!err)
		hex = at = malloc((size_t)st.st_size * 2 + 1);
	if (!err && !hex)
		err = -ENOMEM;
	for (off_t off = 0; !err && off < st.st_size; off += (off_t)sizeof(insn)) {
		if (pread(fd, &insn, sizeof(insn), off) != (ssize_t)sizeof(insn)) {
			err = -EIO;
			break;
		}
		at += sprintf(at, "%04x%02x%02x%08x", insn.code, insn.jt, insn.jf, insn.k);
	}
	if (fd >= 0)
		close(fd);
	if (err)
		free(hex);
	else
		*ret_hex = hex;
	return err;
}

/* What there is, as libseccomp and the specification name it; none of it changes what a guest's call gets. */
static int check_names(const json_t *seccomp, char *why)
{
	static const char *const flags[] = {OCI_SECCOMP_FLAGS};
	const json_t *list = json_object_get(seccomp, "architectures");
	char lower[32];

	for (size_t i = 0; i < json_array_size(list); i++) {
		const char *name = json_string_value(json_array_get(list, i));
		size_t n = 0;

		if (name && strncmp(name, "SCMP_ARCH_", 10) == 0)
			for (const char *c = name + 10; *c && n < sizeof(lower) - 1; c++)
				lower[n++] = (char)tolower((unsigned char)*c);
		lower[n] = '\0';
		if (!n || !seccomp_arch_resolve_name(lower))
			return fail(why, "unknown architecture", name);
	}
	list = json_object_get(seccomp, "flags");
	for (size_t i = 0; i < json_array_size(list); i++) {
		const char *name = json_string_value(json_array_get(list, i));
		size_t k = 0;

		while (k < ARRAY_SIZE(flags) && (!name || strcmp(name, flags[k]) != 0))
			k++;
		if (k == ARRAY_SIZE(flags))
			return fail(why, "unknown flag", name);
	}
	return 0;
}

int oci_seccomp_compile(const json_t *seccomp, char **ret_hex, char *why)
{
	const char *name = json_string_value(json_object_get(seccomp, "defaultAction"));
	scmp_filter_ctx ctx;
	uint32_t dflt;
	int err;

	why[0] = '\0';
	/* Neither: seccomp is off, as for runc. */
	if ((!name || !*name) && !json_array_size(json_object_get(seccomp, "syscalls"))) {
		*ret_hex = NULL;
		return 0;
	}
	if (name && strcmp(name, NOTIFY) == 0)
		return fail(why, "SCMP_ACT_NOTIFY cannot be used as default action:", name);
	if (!parse_action(name, json_object_get(seccomp, "defaultErrnoRet"), &dflt))
		return fail(why, "unknown defaultAction", name);
	ctx = seccomp_init(dflt);
	if (!ctx)
		return -ENOMEM;
	err = check_names(seccomp, why);
	if (err) {
		seccomp_release(ctx);
		return err;
	}
	/* A binary tree over the numbers: every guest call runs the filter. */
	err = seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2);
	if (!err)
		err = add_rules(ctx, seccomp, dflt, why);
	if (!err)
		err = export_hex(ctx, ret_hex);
	seccomp_release(ctx);
	if (err && err != -ENOMEM && !why[0])
		return fail(why, "cannot compile:", strerror(-err));
	return err;
}
