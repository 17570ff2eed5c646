/*
 * vfs/fs_config.c - configuring a filesystem, parameter by parameter (Linux's fs/fs_context.c and fs/fs_parser.c).
 *
 * Cannot do: shared superblocks. Every get_tree makes a filesystem, so FSCONFIG_CMD_CREATE_EXCL never finds one that exists.
 */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>

#include "vfs/fs_config.h"

int fs_config_create(const struct filesystem_type *type, struct filesystem *fs, struct dentry *root,
		     struct fs_config **ret)
{
	struct fs_config *c = calloc(1, sizeof(*c));

	if (!c)
		return -ENOMEM;
	c->type = type;
	buf_init(&c->text, FS_CONFIG_TEXT_MAX);
	if (fs) {
		filesystem_ref(fs);
		dentry_ref(root);
		c->fs = fs;
		c->root = root;
		c->reconfigure = true;
		c->phase = FS_CONFIG_RECONF_PARAMS;
	}
	*ret = c;
	return 0;
}

void fs_config_destroy(struct fs_config *c)
{
	char *msg;

	if (c->type->config_free)
		c->type->config_free(c);
	dentry_unref(c->root);
	filesystem_unref(c->fs);
	while ((msg = fs_config_pop_message(c)))
		free(msg);
	buf_fini(&c->text);
	free(c->source);
	free(c);
}

/* ---- messages ---- */

char *fs_config_pop_message(struct fs_config *c)
{
	char *msg;

	if (!c->log_count)
		return NULL;
	msg = c->log[c->log_head];
	c->log_head = (c->log_head + 1) % FS_CONFIG_LOG_MAX;
	c->log_count--;
	return msg;
}

const char *fs_config_message(const struct fs_config *c)
{
	return c->log_count ? c->log[c->log_head] : NULL;
}

int fs_config_error(struct fs_config *c, const char *fmt, ...)
{
	char *text, *line;
	va_list ap;
	int len;

	va_start(ap, fmt);
	len = vasprintf(&text, fmt, ap);
	va_end(ap);
	if (len < 0)
		return -EINVAL;
	len = asprintf(&line, "e %s\n", text);
	free(text);
	if (len < 0)
		return -EINVAL;
	if (c->log_count == FS_CONFIG_LOG_MAX)
		free(fs_config_pop_message(c));
	c->log[(c->log_head + c->log_count++) % FS_CONFIG_LOG_MAX] = line;
	return -EINVAL;
}

/* ---- parameters ---- */

/* vfs_parse_sb_flag(). */
static bool parse_sb_flag(struct fs_config *c, const char *key)
{
	static const struct {
		const char *name;
		unsigned set, clear;
	} flags[] = {
		{"dirsync", MS_DIRSYNC, 0},	{"lazytime", MS_LAZYTIME, 0},
		{"mand", MS_MANDLOCK, 0},	{"ro", MS_RDONLY, 0},
		{"sync", MS_SYNCHRONOUS, 0},	{"async", 0, MS_SYNCHRONOUS},
		{"nolazytime", 0, MS_LAZYTIME}, {"nomand", 0, MS_MANDLOCK},
		{"rw", 0, MS_RDONLY},
	};

	for (size_t i = 0; i < ARRAY_SIZE(flags); i++) {
		if (strcmp(flags[i].name, key))
			continue;
		c->sb_flags = (c->sb_flags & ~flags[i].clear) | flags[i].set;
		c->sb_mask |= flags[i].clear | flags[i].set;
		return true;
	}
	return false;
}

static int parse_source(struct fs_config *c, const struct fs_param *p)
{
	if (strcmp(p->key, "source"))
		return FS_PARAM_UNKNOWN;
	if (p->kind != FS_PARAM_STRING)
		return fs_config_error(c, "Non-string source");
	if (c->source)
		return fs_config_error(c, "Multiple sources");
	c->source = strdup(p->string);
	return c->source ? 0 : -ENOMEM;
}

static bool number_ok(const char *s, int base)
{
	unsigned long v;
	char *end;

	if (!isdigit((unsigned char)*s))
		return false;
	errno = 0;
	v = strtoul(s, &end, base);
	return !errno && !*end && v <= UINT32_MAX;
}

static bool size_ok(const char *s)
{
	char *end;

	if (!isdigit((unsigned char)*s))
		return false;
	(void)strtoull(s, &end, 0);
	if (*end && strchr("kKmMgGtTpPeE", *end))
		end++;
	if (*end == '%')
		end++;
	return !*end;
}

static bool spec_fits(const struct fs_param_spec *spec, const struct fs_param *p)
{
	bool text = p->kind == FS_PARAM_STRING && p->string[0];

	switch (spec->kind) {
	case FS_SPEC_FLAG:
		return p->kind == FS_PARAM_FLAG || (p->kind == FS_PARAM_STRING && !p->string[0]);
	case FS_SPEC_ANY:
		return p->kind == FS_PARAM_FLAG || p->kind == FS_PARAM_STRING;
	case FS_SPEC_STRING:
		return text && (!spec->fits || spec->fits(p->string));
	case FS_SPEC_U32:
		return text && number_ok(p->string, 0);
	case FS_SPEC_U32_OCT:
		return text && number_ok(p->string, 8);
	case FS_SPEC_SIZE:
		return text && size_ok(p->string);
	}
	return false;
}

/* fs_parse() with the type's table; then the option joins the text. */
static int parse_by_table(struct fs_config *c, const struct fs_param *p)
{
	const struct fs_param_spec *spec = c->type->params;

	while (spec && spec->name && strcmp(spec->name, p->key))
		spec++;
	if (spec && !spec->name)
		return FS_PARAM_UNKNOWN;
	if (spec && !spec_fits(spec, p))
		return fs_config_error(c, "%s: %s value for '%s'", c->type->name,
				       spec->kind == FS_SPEC_FLAG ? "Unexpected" : "Bad", p->key);
	if (!spec && p->kind != FS_PARAM_FLAG && p->kind != FS_PARAM_STRING)
		return -EOPNOTSUPP;
	/* The text is split at commas again. */
	if (strchr(p->key, ',') || (p->string && strchr(p->string, ',')))
		return fs_config_error(c, "%s: Option '%s' contained comma", c->type->name, p->key);
	if (c->text.len)
		buf_putc(&c->text, ',');
	buf_puts(&c->text, p->key);
	if (p->kind == FS_PARAM_STRING) {
		buf_putc(&c->text, '=');
		buf_puts(&c->text, p->string);
	}
	if (buf_error(&c->text) == -EMSGSIZE)
		return fs_config_error(c, "%s: Cumulative options too large", c->type->name);
	return buf_error(&c->text);
}

int fs_config_param(struct fs_config *c, const struct vfs_lookup *who, const struct fs_param *p)
{
	int err;

	/* vfs_clean_context() left it ready for the next round. */
	if (c->phase == FS_CONFIG_AWAITING_RECONF)
		c->phase = FS_CONFIG_RECONF_PARAMS;
	if (c->phase != FS_CONFIG_CREATE_PARAMS && c->phase != FS_CONFIG_RECONF_PARAMS)
		return -EBUSY;
	if (parse_sb_flag(c, p->key))
		return 0;
	err = FS_PARAM_UNKNOWN;
	if (p->key[0] && c->type->parse_param) {
		c->who = who;
		err = c->type->parse_param(c, p);
		c->who = NULL;
	} else if (p->key[0] && strcmp(p->key, "source")) {
		err = parse_by_table(c, p);
	}
	if (err == FS_PARAM_UNKNOWN)
		err = parse_source(c, p);
	if (err == FS_PARAM_UNKNOWN)
		err = fs_config_error(c, "%s: Unknown parameter '%s'", c->type->name, p->key);
	return err;
}

int fs_config_options(struct fs_config *c, const struct vfs_lookup *who, const char *data)
{
	int err = 0;
	char *copy, *rest, *key;

	if (!data || !*data)
		return 0;
	copy = rest = strdup(data);
	if (!copy)
		return -ENOMEM;
	while (!err && (key = strsep(&rest, ","))) {
		struct fs_param p = {.kind = FS_PARAM_FLAG, .key = key};
		char *value = strchr(key, '=');

		/* generic_parse_monolithic(): "=x" is passed over. */
		if (!*key || value == key)
			continue;
		if (value) {
			*value++ = '\0';
			p.kind = FS_PARAM_STRING;
			p.string = value;
			p.size = strlen(value);
		}
		err = fs_config_param(c, who, &p);
	}
	free(copy);
	return err;
}

/* ---- commands ---- */

static unsigned sb_to_fs_flags(unsigned ms)
{
	return (ms & MS_RDONLY ? FS_RDONLY : 0) | (ms & MS_SYNCHRONOUS ? FS_SYNC : 0) |
	       (ms & MS_DIRSYNC ? FS_DIRSYNC : 0) | (ms & MS_LAZYTIME ? FS_LAZYTIME : 0) |
	       (ms & MS_MANDLOCK ? FS_MANDLOCK : 0);
}

int fs_config_get_tree(struct fs_config *c, const struct vfs_lookup *who)
{
	const struct filesystem_type *t = c->type;
	const char *text = c->text.data ? c->text.data : "";
	int err;

	if (c->phase != FS_CONFIG_CREATE_PARAMS)
		return -EBUSY;
	c->who = who;
	err = t->get_tree
		      ? t->get_tree(c, &c->fs, &c->root)
		      : t->mount(t, c->source, c->sb_flags, text, c->kernel_data, &c->fs, &c->root);
	c->who = NULL;
	if (err) {
		c->fs = NULL;
		c->root = NULL;
		c->phase = FS_CONFIG_FAILED;
		return err;
	}
	atomic_fetch_or_explicit(&c->fs->sb_flags, sb_to_fs_flags(c->sb_flags),
				 memory_order_release);
	c->phase = FS_CONFIG_AWAITING_MOUNT;
	return 0;
}

/* vfs_clean_context(): what was given has been used. */
static void config_clean(struct fs_config *c)
{
	if (c->type->config_free)
		c->type->config_free(c);
	c->priv = NULL;
	buf_reset(&c->text);
	free(c->source);
	c->source = NULL;
	/* As in Linux sb_mask stays: what was given before is off unless it is given again. */
	c->sb_flags = 0;
	c->reconfigure = true;
	c->phase = FS_CONFIG_AWAITING_RECONF;
}

int fs_config_reconfigure(struct fs_config *c, const struct vfs_lookup *who)
{
	struct filesystem *fs = c->fs;
	unsigned set, mask;
	int err;

	if (c->phase == FS_CONFIG_AWAITING_RECONF)
		c->phase = FS_CONFIG_RECONF_PARAMS;
	if (c->phase != FS_CONFIG_RECONF_PARAMS)
		return -EBUSY;
	if (c->sb_mask & ~(unsigned)FS_CONFIG_REMOUNT_FLAGS) {
		c->phase = FS_CONFIG_FAILED;
		return -EINVAL;
	}
	c->who = who;
	err = c->type->reconfigure
		      ? c->type->reconfigure(c)
		      : fs->ops->remount(fs, c->sb_flags, c->text.data ? c->text.data : "");
	c->who = NULL;
	set = sb_to_fs_flags(c->sb_flags);
	mask = sb_to_fs_flags(c->sb_mask);
	if (!err && (mask & FS_RDONLY))
		err = vfs_fs_set_readonly(fs, (set & FS_RDONLY) != 0);
	if (err) {
		c->phase = FS_CONFIG_FAILED;
		return err;
	}
	mask &= ~(unsigned)FS_RDONLY;
	atomic_fetch_and_explicit(&fs->sb_flags, ~(mask & ~set), memory_order_release);
	atomic_fetch_or_explicit(&fs->sb_flags, mask & set, memory_order_release);
	config_clean(c);
	return 0;
}

void fs_config_mounted(struct fs_config *c)
{
	config_clean(c);
}
